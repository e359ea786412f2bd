# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of the command dataset/create_sample_data.py."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from own_lines import foreign_lines

from dataset import command_line, create_sample_data, tfrecord

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("text, size", [("160", (160, 160)), ("640x480", (480, 640)), ("64X32", (32, 64))])
def test_parse_image_size(text, size):
    assert create_sample_data.parse_image_size(text) == size


@pytest.mark.parametrize("text", ["", "16", "1x2x3", "abc", "-160", "100x"])
def test_parse_image_size_rejects(text):
    with pytest.raises(tfrecord.DataError, match="expected image_size"):
        create_sample_data.parse_image_size(text)


def test_write_errors_are_reported(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    flags = types.SimpleNamespace(output_dir=tmp_path / "file", num_images=1, image_size="32", seed=0, prefix="a")
    monkeypatch.setattr(create_sample_data, "FLAGS", flags)
    with pytest.raises(SystemExit, match=r"^error: .*file"):
        command_line.call(create_sample_data.main)


def test_command_runs_from_anywhere(tmp_path):
    script = ROOT / "dataset" / "create_sample_data.py"
    flags = ["--output_dir=made", "--num_images=5", "--image_size=64x48", "--prefix=val", "--seed=2"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, script, *flags], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert foreign_lines(done.stderr) == []
    assert done.stdout.startswith("5 images, ")
    assert len(list((tmp_path / "made").glob("val-*-of-00004.tfrecord"))) == 4
    assert len(list((tmp_path / "made" / "images").glob("*.jpg"))) == 5
