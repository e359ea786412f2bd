# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""kill_training: a training that is killed leaves a directory to continue from, and the script would tell if not."""

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
    """What `look` needs of a run."""
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
def test_half_done_is_what_no_state_file_counts(model_dir, file):
    for step in (1, 2):
        save(model_dir, step)
    (model_dir / "config.yaml").touch()
    assert kill_training.listed(model_dir) == ["model.ckpt-1", "model.ckpt-2"]
    assert kill_training.half_done(model_dir) == []
    (model_dir / file).touch()
    assert kill_training.half_done(model_dir) == [file]


def test_every_aim_is_at_a_file_of_a_save():
    files = ["model.ckpt-3.data-00000-of-00001.tempstate123", "model.ckpt-3.data-00000-of-00001", "model.ckpt-3.index"]
    *aims, anywhere = kill_training.AIMS
    hit = [[file for file in files if re.search(aim, file)] for aim in aims]
    assert hit == [[file] for file in files] and anywhere is None


def test_a_good_run_is_found_good(model_dir):
    for step in (1, 2, 3):
        save(model_dir, step)
    assert kill_training.look(ended(model_dir, ""), 0, 3) == (3, "")
    assert kill_training.look(ended(model_dir, f"continuing from {model_dir}/model.ckpt-2, step 2"), 2, 3) == (3, "")


@pytest.mark.parametrize(
    "log, step, saved, expected",
    [
        ("continuing from x, step 2", 2, 4, (3, "step 4 was saved and is lost")),
        ("continuing from x, step 1", 2, 3, (3, "it began with step ['1'], expected 2")),
        ("", 2, 3, (3, "it began with step [], expected 2")),
        ("continuing from x, step 1", 0, 3, (3, "it began with step ['1'], expected 0")),
    ],
)
def test_a_run_that_lost_something_is_found(model_dir, log, step, saved, expected):
    save(model_dir, 3)
    assert kill_training.look(ended(model_dir, log), step, saved) == expected


def test_a_directory_of_no_use_is_found(model_dir):
    assert kill_training.look(ended(model_dir, ""), 0, 1) == (0, "the directory holds no checkpoint")
    save(model_dir, 1, global_step=7)
    assert kill_training.look(ended(model_dir, ""), 0, 1)[1].endswith("model.ckpt-1 is of step 7")
    save(model_dir, 1)
    data = model_dir / "model.ckpt-1.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    assert "no checkpoint in" in kill_training.look(ended(model_dir, ""), 0, 1)[1]


def test_entries_that_are_not_finite_are_found(model_dir, monkeypatch):
    save(model_dir, 1)
    entries = {"weight": np.float32([np.nan]), "global_step": np.int64(1)}
    monkeypatch.setattr(checkpoint, "read_entries", lambda prefix: entries)
    assert kill_training.look(ended(model_dir, ""), 0, 1)[1].endswith("model.ckpt-1 is not finite: ['weight']")


@pytest.mark.slow
def test_three_kills_leave_what_the_next_run_continues():
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills=3", "--inside=1"], capture_output=True, text=True, timeout=1500
    )
    assert result.returncode == 0, result.stdout + result.stderr
    *kills, stopped, summary = result.stdout.splitlines()
    assert [line.rsplit("; ", 1)[1] for line in [*kills, stopped]] == ["usable"] * 4
    inside = sum("inside a save: " in line for line in kills)
    assert summary == f"3 kills, {inside} inside a save; 0 runs left what is of no use" and inside >= 1
