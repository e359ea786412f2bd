# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/epoch.py: the default length of an epoch, and the comparison with a given one."""

import pytest
import tensorflow as tf
from absl import logging

from dataset.record_count import RecordCounts
from dataset.tfrecord import DataError
from tf2.training import epoch


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    """Pattern of two files with 200 records in total."""
    folder = tmp_path_factory.mktemp("records")
    for name, count in (("train-0", 150), ("train-1", 50)):
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for _ in range(count):
                writer.write(b"record")
    return f"{folder}/train-*"


@pytest.mark.parametrize(
    "given, length, level",
    [
        (None, 200, "info"),
        (200, 200, None),
        (198, 198, "info"),
        (202, 202, "info"),
        (197, 197, "warning"),
        (203, 203, "warning"),
        (120000, 120000, "warning"),
    ],
)
def test_the_default_is_the_number_of_records_and_other_lengths_are_reported(
    pattern, monkeypatch, given, length, level
):
    logged = []
    for name in ("info", "warning"):
        monkeypatch.setattr(logging, name, lambda message, *args, name=name: logged.append((name, message % args)))
    assert epoch.find_length(pattern, given, RecordCounts()) == length
    assert [name for name, _ in logged] == ([level] if level else [])
    if given not in (None, 200):
        assert f"--num_examples_per_epoch={given}, but {pattern} holds 200 records" in logged[0][1]
        assert "a resumed run does not continue at the exact image; omit the flag" in logged[0][1]


def test_without_a_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no file matches"):
        epoch.find_length(f"{tmp_path}/train-*", None, RecordCounts())
