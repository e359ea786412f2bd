# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/resume.py; tests/tf2/training/test_train.py has whole runs."""

import numpy as np
import pytest
from absl import logging

from tf2.training import resume
from tf2.training.model_dir import ModelDir
from tf2.weights.checkpoint import CheckpointError

STATE = {"training/seed": np.int64(5), "training/batch_size": np.int64(8)}
STATE["training/num_examples_per_epoch"] = np.int64(292)
SIZES = {"batch_size": 8, "num_examples_per_epoch": 292}


@pytest.fixture
def logged(monkeypatch):
    lines = []
    for level in ("info", "warning"):
        monkeypatch.setattr(logging, level, lambda text, *args, level=level: lines.append(f"{level}: {text % args}"))
    return lines


@pytest.fixture
def directory(tmp_path, tiny_config):
    directory = ModelDir(str(tmp_path))
    directory.write_config(tiny_config)
    return directory


def test_a_new_run_has_no_checkpoint(directory, tiny_config):
    assert resume.find(directory, tiny_config, **SIZES) is None


def test_the_newest_checkpoint_is_found(directory, tiny_config, logged):
    for step in (1, 2):
        directory.save(step, STATE)
    prefix, entries = resume.find(directory, tiny_config, **SIZES)
    assert prefix == f"{directory.path}/model.ckpt-2" and entries == STATE
    assert logged == []


def test_changes_are_reported(directory, tiny_config, logged):
    directory.save(1, STATE)
    resume.find(directory, tiny_config.override({"learning_rate": 0.5}), batch_size=8, num_examples_per_epoch=300)
    assert logged == [
        "info: changed since the last run: learning_rate: 0.08 -> 0.5",
        "warning: this training run started with epochs of 292 images, now 300: epochs and data order change; "
        "--num_examples_per_epoch=292 keeps them",
    ]


def test_what_cannot_be_resumed(directory, tiny_config):
    directory.save(1, STATE)
    with pytest.raises(ValueError, match=r"was started with --train_batch_size=8, got 4, .*; use 8 \(gradient"):
        resume.find(directory, tiny_config, batch_size=4, num_examples_per_epoch=292)
    directory.save(2, {"weights": np.zeros(3)})
    with pytest.raises(CheckpointError, match=r"model\.ckpt-2 holds weights without training state .* --ckpt="):
        resume.find(directory, tiny_config, **SIZES)


@pytest.mark.parametrize(
    "entries, given, num_workers, seed, message",
    [
        ({}, 7, 1, 7, []),
        ({}, None, 2, 0, []),  # workers cannot draw the same number
        (STATE, None, 1, 5, []),
        (STATE, 5, 1, 5, []),
        (STATE, 7, 1, 5, ["info: this training run started with seed 5 and keeps it; --tf_random_seed is ignored"]),
    ],
)
def test_a_resumed_run_keeps_its_seed(logged, entries, given, num_workers, seed, message):
    assert resume.find_seed(entries, given, num_workers) == seed
    assert logged == message


def test_seeds_of_new_runs_are_drawn():
    seeds = {resume.find_seed({}, None, 1) for _ in range(20)}
    assert len(seeds) > 10 and all(0 <= seed < 2**24 for seed in seeds)
