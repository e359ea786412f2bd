# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of the command dataset/create_coco_tfrecord.py."""

import json
import os
import subprocess
import sys
import types
import unittest.mock
from pathlib import Path

import pytest
from own_lines import foreign_lines
from PIL import Image

from dataset import command_line, create_coco_tfrecord, label_map
from dataset.convert import coco, command

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    """A folder with two images and instances.json, which has one box."""
    (tmp_path / "images").mkdir()
    for i in (3, 7):
        Image.new("RGB", (40, 20), (i, 100, 200)).save(tmp_path / "images" / f"{i}.jpg")
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in (7, 3)]
    box = {"id": 1, "image_id": 3, "category_id": 18, "bbox": [4, 5, 8, 10]}
    categories = [{"id": 18, "name": "dog"}, {"id": 90, "name": "toothbrush"}]
    content = {"images": images, "annotations": [box], "categories": categories}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def test_write_errors_are_reported(folder, monkeypatch):
    flags = types.SimpleNamespace(
        image_dir=folder / "images",
        image_info_file="",
        object_annotations_file=folder / "instances.json",
        caption_annotations_file="",
        output_file_prefix=str(folder / "instances.json" / "train"),  # a file instead of a folder
        include_masks=False,
        consecutive_ids=False,
        num_shards=1,
        num_threads=1,
        max_bad_fraction=0.01,
        max_image_pixels=10**8,
        exif_boxes="auto",
    )
    monkeypatch.setattr(create_coco_tfrecord, "FLAGS", flags)
    monkeypatch.setattr(command, "FLAGS", flags)
    with pytest.raises(
        SystemExit, match=r"^error: /.*instances\.json cannot be written to \((Not a directory|File exists)\); "
    ):
        command_line.call(create_coco_tfrecord.main)


def test_ctrl_c_gives_a_one_line_message(folder, monkeypatch, capsys):
    def load(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(coco, "load", load)
    monkeypatch.setattr(create_coco_tfrecord, "FLAGS", unittest.mock.MagicMock())
    with pytest.raises(SystemExit) as error:
        command_line.call(create_coco_tfrecord.main)
    assert error.value.code == 130
    assert capsys.readouterr().err == "interrupted: no incomplete TFRecords are left\n"


def test_command_runs_from_anywhere(folder):
    script = ROOT / "dataset" / "create_coco_tfrecord.py"
    flags = ["--image_dir=images", "--output_file_prefix=new/train", "--num_shards=2"]
    flags.append("--object_annotations_file=instances.json")
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run([sys.executable, script, *flags], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert foreign_lines(done.stderr) == []
    assert "2 images (1 without boxes), 1 boxes\n" in done.stdout
    assert done.stdout.endswith("wrote new/train-*-of-00002.tfrecord and new/label_map_train.yaml\n")
    assert len(list((folder / "new").glob("train*"))) == 2
    assert label_map.resolve(str(folder / "new" / "label_map_train.yaml")) == {18: "dog", 90: "toothbrush"}
