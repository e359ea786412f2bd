# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of the command dataset/create_pascal_tfrecord.py."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from own_lines import foreign_lines
from PIL import Image

from dataset import command_line, create_pascal_tfrecord, label_map
from dataset.convert import command

ROOT = Path(__file__).resolve().parents[2]


def make_voc(folder):
    """Writes a VOC folder with one image, one object of the class "no" and the list `train`."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    Image.new("RGB", (40, 20), (10, 200, 30)).save(folder / "JPEGImages" / "a.jpg")
    box = "<xmin>4</xmin><ymin>5</ymin><xmax>12</xmax><ymax>15</ymax>"
    content = f"<annotation><object><name>no</name><bndbox>{box}</bndbox></object></annotation>"
    (folder / "Annotations" / "a.xml").write_text(content)
    (folder / "ImageSets/Main/train.txt").write_text("a\n")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"output_path": "file/voc"}, "^error: .*file"),  # a file instead of a folder
        (
            {},
            r"^error: too many boxes left out: 1 of 1, .*class 'no' is not in the label map: 1 \(.*; "
            "use --label_map_json_path for other classes, or --collect_label_map for those of the annotations$",
        ),
        (
            {"collect_label_map": True, "label_map_json_path": "x"},
            "^error: expected one of --collect_label_map and --label_map_json_path, got both$",
        ),
    ],
)
def test_errors_are_reported(tmp_path, monkeypatch, changes, message):
    make_voc(tmp_path / "VOC2007")
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    flags = types.SimpleNamespace(
        data_dir=tmp_path,
        output_path="voc",
        year="VOC2007",
        set="train",
        annotations_dir=None,
        image_dir=None,
        label_map_json_path=None,
        collect_label_map=False,
        num_threads=1,
        max_bad_fraction=0.01,
        max_image_pixels=10**8,
        exif_boxes="auto",
        ignore_difficult_instances=False,
        num_shards=1,
        num_images=None,
    )
    vars(flags).update(changes)
    monkeypatch.setattr(create_pascal_tfrecord, "FLAGS", flags)
    monkeypatch.setattr(command, "FLAGS", flags)
    with pytest.raises(SystemExit, match=message):
        command_line.call(create_pascal_tfrecord.main)


def test_command_runs_from_anywhere(tmp_path):
    make_voc(tmp_path / "data")
    script = ROOT / "dataset" / "create_pascal_tfrecord.py"
    flags = ["--data_dir=data", "--year=", "--output_path=out/voc", "--num_shards=2"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}

    def run(*more):
        command = [sys.executable, script, *flags, *more]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    done = run("--collect_label_map")
    assert done.returncode == 0, done.stderr
    assert "1 images, 1 boxes\n" in done.stdout
    assert "wrote out/voc-*-of-00002.tfrecord and out/json_voc.json\n" in done.stdout
    assert "; for other sets pass --label_map_json_path=out/label_map_voc.yaml, for training --hparams=" in done.stdout
    assert done.stdout.endswith("--hparams=label_map=out/label_map_voc.yaml,num_classes=1\n")
    assert label_map.resolve(str(tmp_path / "out/label_map_voc.yaml")) == {1: "no"}
    assert len(list((tmp_path / "out").glob("voc*"))) == 2
    failed = run("--set=odd")
    assert failed.returncode == 1
    message = "error: image list data/ImageSets/Main/odd.txt does not exist"
    assert failed.stderr.splitlines()[-1].startswith(message)
    assert foreign_lines(failed.stderr) == []
