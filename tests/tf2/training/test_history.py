# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""history: tables of a training run, complete, damaged and missing."""

import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from tf2.training import history
from tf2.training.model_dir import ModelDir
from tf2.training.progress import CsvFile

TABLE = "step,loss,rate\n1,3.5,0.1\n10,2.5,0.2\n"
ROWS = {"step": [1, 10], "loss": [3.5, 2.5], "rate": [0.1, 0.2]}


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda message, *args: lines.append(message % args))
    return lines


def as_lists(columns):
    return {name: column.tolist() for name, column in columns.items()}


@pytest.fixture(params=["local", "remote"])
def directory(request, tmp_path):
    return str(tmp_path) if request.param == "local" else f"ram://{tmp_path.name}"


def save(directory, **entries):
    state = {f"training/{name}": np.int64(value) for name, value in entries.items()}
    tf.io.gfile.makedirs(directory)
    return ModelDir(directory).save(10, {"weight": np.float32(1), **state})


def test_rows_that_progress_writes_are_read(directory, warnings):
    for name, row in (("train.csv", {"loss": 3.5, "input_wait": None}), ("eval.csv", {"AP": 0.25, "AP_/a, b": -1.0})):
        table = CsvFile(f"{directory}/{name}", None)
        table.write(10, row)
        table.flush()
    save(directory, num_examples_per_epoch=9, batch_size=4)
    found = history.read(directory)
    np.testing.assert_equal(found.training, {"step": [10], "loss": [3.5], "input_wait": [np.nan]})
    np.testing.assert_equal(found.evaluations, {"step": [10], "AP": [0.25], "AP_/a, b": [-1]})
    assert found.steps_per_epoch == 2 and warnings == []


@pytest.mark.parametrize("entries", [None, {}, {"batch_size": 4}, {"num_examples_per_epoch": 3, "batch_size": 4}])
def test_steps_per_epoch_may_be_unknown(tmp_path, entries):
    (tmp_path / "train.csv").write_text(TABLE)
    if entries is not None:
        save(str(tmp_path), **entries)
    found = history.read(str(tmp_path))
    assert (as_lists(found.training), found.evaluations, found.steps_per_epoch) == (ROWS, {}, None)


@pytest.mark.parametrize("text, expected, num_damaged", [
    (TABLE + "20,1.5,0.3", ROWS, 0),  # a kill during the last line
    (TABLE + "20,1.5\n", ROWS, 1),
    (TABLE.replace("1,3.5", "1,3.5,7\nx,1,1\n,1,1\n\n1,3.5"), ROWS, 2),
    (TABLE + "\0\0\0\0\n", ROWS, 1),  # as after a power failure
    ("step,loss,rate\n1,9,9\n10,2.5,0.2\n1,3.5,0.1\n", ROWS, 0),  # a repeated step
    ("step,loss\n1,nan\n2,inf\n3,\n", {"step": [1, 2, 3], "loss": [np.nan, np.inf, np.nan]}, 0),
])  # fmt: skip
def test_damaged_lines_are_left_out_and_counted(tmp_path, warnings, text, expected, num_damaged):
    path = tmp_path / "train.csv"
    path.write_text(text)
    np.testing.assert_equal(as_lists(history.read(str(tmp_path)).training), expected)
    assert warnings == [f"{path}: {num_damaged} damaged lines are left out"] * bool(num_damaged)


@pytest.mark.parametrize("content", [b"", b"step,loss\n", b"st", b"time,loss\n1,2\n", b"\xff\xfe\0\n1,2\n"])
def test_a_table_without_rows_is_no_history(tmp_path, content):
    assert history.read(str(tmp_path)) is None
    (tmp_path / "train.csv").write_bytes(content)
    assert history.read(str(tmp_path)) is None
    (tmp_path / "eval.csv").mkdir()  # cannot be read
    assert history.read(str(tmp_path)) is None


def test_a_checkpoint_is_looked_up_in_its_training(directory):
    assert history.read_of_checkpoint(f"{directory}/model.ckpt-10") is None
    tf.io.gfile.makedirs(directory)
    with tf.io.gfile.GFile(f"{directory}/train.csv", "w") as file:
        file.write(TABLE)
    for prefix in ("model.ckpt-10", "archive/model.ckpt-10"):
        assert as_lists(history.read_of_checkpoint(f"{directory}/{prefix}").training) == ROWS
    assert history.read_of_checkpoint(f"{directory}/other/model.ckpt-10") is None


def test_released_weights_have_no_history(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_text(TABLE)
    assert history.read_of_checkpoint("efficientdet-d0") is None
    assert as_lists(history.read_of_checkpoint("model.ckpt-10").training) == ROWS
