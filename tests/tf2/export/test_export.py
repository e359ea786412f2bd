# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/export/export.py: several targets, of which some fail."""

import errno
import os
import types

import pytest
import tensorflow as tf

from dataset.files import TargetError
from tf2.export import export
from tf2.export.export import Targets

NO_ROOM = os.strerror(errno.ENOSPC)


@pytest.mark.parametrize(
    "error, expected, message",
    [
        (OSError(errno.ENOSPC, NO_ROOM, "a.onnx.tmp"), TargetError, "^a.onnx cannot be written (No space left on dev"),
        (tf.errors.ResourceExhaustedError(None, None, f"a.onnx.tmp; {NO_ROOM}"), TargetError, "^a.onnx cannot be wr"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), OSError, "Input/output error"),  # not of the target's folder
        (tf.errors.ResourceExhaustedError(None, None, "OOM"), tf.errors.OpError, "OOM"),
    ],
)
def test_a_folder_without_room(tiny_config, monkeypatch, capsys, error, expected, message):
    def fail(*args, **options):
        raise error

    driver = types.SimpleNamespace(config=tiny_config, model=None, ckpt_path=None)
    monkeypatch.setattr(export.signatures, "frozen", lambda *args: None)
    monkeypatch.setattr(export.onnx, "write", fail)
    monkeypatch.setattr(export.saved_model, "frozen_graph", lambda model, path, *args, **options: [path])
    monkeypatch.setattr(export.tflite, "write", lambda model, path, *args, **options: [path])
    targets = Targets(onnx="a.onnx", tflite="a.tflite", frozen_graph="a.pb")
    with pytest.raises(expected, match=message.replace("(", r"\(")):
        export.write(driver, targets, None)
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["a.pb", "a.tflite"]
