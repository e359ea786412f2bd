# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of the command dataset/create_yolo_tfrecord.py."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml
from own_lines import foreign_lines
from PIL import Image

from dataset import command_line, create_yolo_tfrecord, label_map

ROOT = Path(__file__).resolve().parents[2]


def make_yolo(folder):
    """Writes data.yaml, one image and its label file."""
    for name in ("images/train", "labels/train"):
        (folder / name).mkdir(parents=True)
    Image.new("RGB", (40, 20), (10, 200, 30)).save(folder / "images/train/a.jpg")
    (folder / "labels/train/a.txt").write_text("0 0.5 0.5 0.2 0.2")
    content = {"path": ".", "train": "images/train", "val": "images/val", "names": ["cat", "dog"]}
    (folder / "data.yaml").write_text(yaml.safe_dump(content))


def test_command_runs_from_anywhere(tmp_path):
    make_yolo(tmp_path / "data")
    script = ROOT / "dataset" / "create_yolo_tfrecord.py"
    flags = ["--data_yaml=data/data.yaml", "--output_path=out/val", "--num_shards=2"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, script, *flags], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert foreign_lines(done.stderr) == []
    assert "1 images, 1 boxes" in done.stdout
    assert "wrote out/val-*-of-00002.tfrecord, out/json_val.json and out/label_map_val.yaml" in done.stdout
    assert len(list((tmp_path / "out").glob("val*"))) == 2
    assert label_map.resolve(str(tmp_path / "out" / "label_map_val.yaml")) == {1: "cat", 2: "dog"}


def test_errors_are_reported(tmp_path, monkeypatch):
    make_yolo(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    target = {"output_path": "out/val", "num_shards": 2}
    flags = types.SimpleNamespace(data_yaml="data/data.yaml", split="test", image_dir=None, **target)
    monkeypatch.setattr(create_yolo_tfrecord, "FLAGS", flags)
    message = r"^error: data/data\.yaml has no split 'test' \(available: train, val\)"
    with pytest.raises(SystemExit, match=message):
        command_line.call(create_yolo_tfrecord.main)
