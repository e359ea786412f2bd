# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of kill_training.py: a killed training run can be resumed, and the script detects if it cannot."""

import pathlib
import re
import subprocess
import sys
import types

import kill_training
import numpy as np
import pytest

from tf2.training.model_dir import ModelDir
from tf2.weights import checkpoint

SCRIPT = pathlib.Path(kill_training.__file__)


def save(model_dir, step, global_step=None):
    entries = {"weight": np.float32([1.0, 2.0]), "global_step": np.int64(global_step or step)}
    ModelDir(str(model_dir)).save(step, entries)


def ended(model_dir, log):
    """Returns the attributes of a Run that `check` reads."""
    model_dir.with_name("log.txt").write_text(log)
    return types.SimpleNamespace(model_dir=model_dir, log=model_dir.with_name("log.txt"))


@pytest.fixture
def model_dir(tmp_path):
    path = tmp_path / "model_dir"
    path.mkdir()
    return path


@pytest.mark.parametrize(
    "file",
    [
        "model.ckpt-3.data-00000-of-00001.tempstate123",
        "model.ckpt-3.data-00000-of-00001",
        "model.ckpt-3.index",
        "model.ckpt-2.index.tempstate123",
        ".unfinished-checkpoint",
    ],
)
def test_unfinished_files(model_dir, file):
    for step in (1, 2):
        save(model_dir, step)
    (model_dir / "config.yaml").touch()
    assert kill_training.listed(model_dir) == ["model.ckpt-1", "model.ckpt-2"]
    assert kill_training.unfinished_files(model_dir) == []
    (model_dir / file).touch()
    assert kill_training.unfinished_files(model_dir) == [file]


def test_each_target_matches_one_file_of_a_save():
    files = ["model.ckpt-3.data-00000-of-00001.tempstate123", "model.ckpt-3.data-00000-of-00001", "model.ckpt-3.index"]
    *targets, anytime = kill_training.TARGETS
    matches = [[file for file in files if re.search(target, file)] for target in targets]
    assert matches == [[file] for file in files] and anytime is None


def test_a_correct_run_passes(model_dir):
    for step in (1, 2, 3):
        save(model_dir, step)
    assert kill_training.check(ended(model_dir, ""), 0, 3) == (3, "")
    assert kill_training.check(ended(model_dir, f"resuming from {model_dir}/model.ckpt-2, step 2"), 2, 3) == (3, "")


@pytest.mark.parametrize(
    "log, step, saved, expected",
    [
        ("resuming from x, step 2", 2, 4, (3, "step 4 was saved and is lost")),
        ("resuming from x, step 1", 2, 3, (3, "it resumed from step ['1'], expected 2")),
        ("", 2, 3, (3, "it resumed from step [], expected 2")),
        ("resuming from x, step 1", 0, 3, (3, "it resumed from step ['1'], expected 0")),
    ],
)
def test_lost_steps_are_detected(model_dir, log, step, saved, expected):
    save(model_dir, 3)
    assert kill_training.check(ended(model_dir, log), step, saved) == expected


def test_unusable_directories_are_detected(model_dir):
    assert kill_training.check(ended(model_dir, ""), 0, 1) == (0, "the directory holds no checkpoint")
    save(model_dir, 1, global_step=7)
    assert kill_training.check(ended(model_dir, ""), 0, 1)[1].endswith("model.ckpt-1 has global_step 7")
    save(model_dir, 1)
    data = model_dir / "model.ckpt-1.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    assert "no checkpoint in" in kill_training.check(ended(model_dir, ""), 0, 1)[1]


def test_non_finite_entries_are_detected(model_dir, monkeypatch):
    save(model_dir, 1)
    entries = {"weight": np.float32([np.nan]), "global_step": np.int64(1)}
    monkeypatch.setattr(checkpoint, "read_entries", lambda prefix: entries)
    assert kill_training.check(ended(model_dir, ""), 0, 1)[1].endswith("model.ckpt-1 is not finite: ['weight']")


@pytest.mark.slow
def test_training_resumes_after_three_kills():
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills=3", "--inside=1"], capture_output=True, text=True, timeout=1500
    )
    assert result.returncode == 0, result.stdout + result.stderr
    *kills, stopped, summary = result.stdout.splitlines()
    assert [line.rsplit("; ", 1)[1] for line in [*kills, stopped]] == ["passed"] * 4
    inside = sum("during a save: " in line for line in kills)
    assert summary == f"3 kills, {inside} during a save; 0 runs failed" and inside >= 1
