# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of the table in docs/own_data.md: its commands convert the exports of annotation tools as they come."""

import importlib
import json
import pathlib
import re
import shlex

import pytest
import tensorflow as tf
from absl import flags
from tool_exports import BOXES, EXPORTS, HEIGHT, WIDTH

from dataset import command_line

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROWS = re.findall(r"^\| (.+?) \| (.+?) \| `(create_.+?)` \|$", (ROOT / "docs/own_data.md").read_text(), re.MULTILINE)

COMMANDS = {(tool, export): command for tool, export, command in ROWS}


def run(monkeypatch, folder, command):
    """Runs a converter in a folder, in this process; returns its report."""
    script, *words = shlex.split(command)
    module = importlib.import_module(f"dataset.{script.removesuffix('.py')}")
    groups, before = command_line.GROUPS[:], set(flags.FLAGS)
    monkeypatch.chdir(folder)
    try:
        module.define_flags()
        command_line.parse([script, *words, "--num_shards=1"])
        command_line.call(module.main)
    finally:
        command_line.GROUPS[:] = groups
        flags.FLAGS.remove_flag_values(set(flags.FLAGS) - before)
        flags.FLAGS.unparse_flags()
    return json.loads((folder / "shop/report_train.json").read_text())


def written(folder):
    """Returns {name of the image without suffix: [(class, box in pixels)]} of the records."""
    boxes = {}
    for raw in tf.data.TFRecordDataset(str(folder / "shop/train-00000-of-00001.tfrecord")).as_numpy_iterator():
        feature = tf.train.Example.FromString(raw).features.feature
        sides = [feature[f"image/object/bbox/{side}"].float_list.value for side in ("xmin", "ymin", "xmax", "ymax")]
        scaled = [[round(side * size, 3) for side, size in zip(box, [WIDTH, HEIGHT] * 2)] for box in zip(*sides)]
        names = [name.decode() for name in feature["image/object/class/text"].bytes_list.value]
        stem = re.split(r"[\\/]", feature["image/filename"].bytes_list.value[0].decode())[-1].removesuffix(".jpg")
        boxes[stem.removesuffix("_jpg.rf.0123abcd")] = list(zip(names, scaled))
    return boxes


@pytest.mark.parametrize("export", EXPORTS, ids=" ".join)
def test_the_documented_command_converts_the_export(tmp_path, monkeypatch, export):
    EXPORTS[export](tmp_path)
    report = run(monkeypatch, tmp_path, COMMANDS[export])
    expected, turned = dict(BOXES), export[0] == "CVAT" and "YOLO" not in export[1]
    if turned:  # by 90 degrees, around its centre
        expected["a"] = [("Dog", [3, 6, 13, 14]), BOXES["a"][1]]
    assert written(tmp_path) == expected
    assert (report["images"], report["boxes"], report["images_left_out"], report["boxes_left_out"]) == (3, 3, 0, 0)
    rotated = report["reasons"].get("rotated boxes, replaced by the boxes that enclose them")
    assert bool(rotated) == turned


def test_every_row_has_a_sample():
    assert COMMANDS.keys() == EXPORTS.keys() and len(ROWS) == len(EXPORTS)
