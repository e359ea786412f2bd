# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/convert/command.py."""

import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dataset import command_line, tfrecord
from dataset.convert import command, shards
from dataset.convert.annotation import Annotation, Source
from dataset.convert.conversion_report import ConversionReport


@pytest.mark.parametrize(
    "error, line",
    [
        (tfrecord.DataError("no image"), "error: no image"),
        (PermissionError(13, "Permission denied", "a.xml"), "error: a.xml: Permission denied"),
        (OSError(28, "No space left on device"), "error: No space left on device"),
        (tf.errors.ResourceExhaustedError(None, None, "out/0; No space left on device"), "error: out/0: No space left"),
    ],
)
def test_errors_end_a_script_with_one_line(error, line):
    @command.translate_errors()
    def script():
        raise error

    with pytest.raises(SystemExit) as caught:
        command_line.call(script)
    assert caught.value.code.startswith(line) and "\n" not in caught.value.code


def test_other_errors_are_not_translated():
    with pytest.raises(KeyError), command.translate_errors():
        raise KeyError("program")


def test_gpus_are_hidden_unless_tensorflow_is_initialized(monkeypatch):
    calls = []

    def set_visible_devices(devices, kind):
        calls.append((devices, kind))
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", set_visible_devices)
    command.hide_gpus()
    assert calls == [([], "GPU")]


def test_flag_values_are_arguments_of_write_shards(tmp_path, monkeypatch):
    values = {"num_threads": 2, "max_bad_fraction": 0.5, "max_image_pixels": 95}  # an image has 96
    monkeypatch.setattr(command, "FLAGS", types.SimpleNamespace(**values, num_shards=9))
    assert command.flag_values() == values
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(tmp_path / "a.png")
    annotation = Annotation(tmp_path / "a.png", "a.png", "0", None, [])
    report = ConversionReport()
    with pytest.raises(tfrecord.DataError, match="too many pixels: 9 "):
        source = Source(range(9), lambda i, report: annotation, lambda i: ("a.png", tmp_path / "a.png"), {}, report)
        shards.write_shards(source, tmp_path / "out", num_shards=1, **command.flag_values())
