# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Every command refuses class names that have other ids than in its detector, before a network is built."""

import dataclasses
import json
import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf
import until_built
from until_built import Built

from dataset import tfrecord
from dataset.label_map import COCO
from efficientdet import config as config_lib
from tf2.inference import drivers
from tf2.inference.metadata import Metadata
from tf2.training.model_dir import ModelDir

ROOT = pathlib.Path(__file__).parents[1]
BCCD = {1: "RBC", 2: "WBC", 3: "Platelets"}
MOVED = {1: "Platelets", 2: "RBC", 3: "WBC"}
WRONG = "--hparams=num_classes=4,label_map={1: 'Platelets', 2: 'RBC', 3: 'WBC'}"
RIGHT = "--hparams=num_classes=4,label_map={1: 'RBC', 2: 'WBC', 3: 'Platelets'}"
NO_NAMES = "--hparams=num_classes=4"
IDS = "'Platelets' is 1 instead of 3, 'RBC' is 2 instead of 1, 'WBC' is 3 instead of 2; "
IDS_BACK = "'RBC' is 1 instead of 2, 'WBC' is 2 instead of 3, 'Platelets' is 3 instead of 1; "

EVAL = ["main.py", "--mode=eval", "--val_file_pattern=right"]
WRONG_EVAL = ["main.py", "--mode=eval", "--val_file_pattern=wrong"]
FILE = [*EVAL, "--saved_model_dir=x.tflite"]
TRAIN = ["main.py", "--mode=train", "--train_batch_size=1", "--train_file_pattern=right"]
WRONG_TRAIN = [*TRAIN[:3], "--train_file_pattern=wrong"]
INFER = ["model_inspect.py", "--runmode=infer", "--ckpt_path=bccd", f"--input_image={ROOT}/testdata/img1.jpg"]
INFER += ["--output_json=found.json"]
STORED_INFER = ["model_inspect.py", "--runmode=saved_model_infer", "--saved_model_dir=x.tflite", *INFER[3:]]
EXPORT = ["model_inspect.py", "--runmode=saved_model", "--ckpt_path=bccd/model.ckpt-7", "--saved_model_dir=saved"]
ONNX = ["model_inspect.py", "--runmode=onnx", "--ckpt_path=bccd", "--onnx_path=x.onnx"]
FREEZE = ["model_inspect.py", "--runmode=freeze", "--ckpt_path=bccd", "--logdir=log"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the detector bccd, records with the same and with other ids, and their groundtruth files."""
    monkeypatch.chdir(tmp_path)
    ModelDir("bccd").prepare(0)
    ModelDir("bccd").write_config(config_lib.load("efficientdet-lite0", num_classes=4, label_map=BCCD))
    ModelDir("bccd").save(7, {"part/kernel": np.zeros(3)})
    pixels = tf.io.encode_jpeg(tf.zeros([96, 96, 3], tf.uint8))
    for name, names in (("right", BCCD), ("wrong", MOVED)):
        record = tfrecord.Record(pixels.numpy(), 96, 96, "a.jpg", "1", boxes_norm=BOXES, classes=list(names))
        with tf.io.TFRecordWriter(name) as writer:
            writer.write(tfrecord.encode(dataclasses.replace(record, class_names=list(names.values()))))
        rows = [
            {"id": i, "image_id": 1, "category_id": i, "iscrowd": 0, "bbox": [96 * x1, 96 * y1, 48, 48], "area": 2304}
            for i, (y1, x1, _, _) in zip(names, BOXES)
        ]
        content = {"images": [{"id": 1, "file_name": "a.jpg", "height": 96, "width": 96}], "annotations": rows}
        content["categories"] = [{"id": class_id, "name": class_name} for class_id, class_name in names.items()]
        (tmp_path / f"{name}.json").write_text(json.dumps(content))

    until_built.patch(monkeypatch)
    stored = Metadata(config_lib.load("efficientdet-lite0", num_classes=4, label_map=BCCD))
    runtime = types.SimpleNamespace(metadata=stored, content="detector", batch_size=None)
    monkeypatch.setattr(drivers.runtimes, "load", lambda *args: runtime)
    return tmp_path


BOXES = [[0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 1.0, 0.5], [0.0, 0.5, 0.5, 1.0]]


def run(words):
    """Runs a command up to the construction of its network."""
    until_built.run([words[0], "--model_name=efficientdet-lite0", *words[1:]])


@pytest.mark.parametrize(
    "words, sources",
    [
        ([*EVAL, "--ckpt=bccd", WRONG], "label_map than in bccd/config.yaml"),
        ([*EVAL, "--model_dir=bccd", WRONG], "label_map than in bccd/config.yaml"),
        ([*EVAL, "--model_dir=bccd", "--eval_timeout=1", WRONG], "label_map than in bccd/config.yaml"),
        ([*WRONG_EVAL, "--ckpt=bccd/model.ckpt-7", RIGHT], "the records than in bccd/config.yaml"),
        ([*WRONG_EVAL, "--ckpt=bccd", NO_NAMES], "the records than in bccd/config.yaml"),
        ([*WRONG_EVAL, "--model_dir=bccd", "--min_eval_interval=1", NO_NAMES], "the records than in bccd/config.yaml"),
        ([*EVAL, "--ckpt=bccd", "--val_json_file=wrong.json", NO_NAMES], "wrong.json than in bccd/config.yaml"),
        ([*FILE, "--hparams=label_map={1: 'Platelets', 2: 'RBC', 3: 'WBC'}"], "label_map than in x.tflite"),
        ([*TRAIN, "--model_dir=bccd", WRONG], "label_map than in bccd/config.yaml"),
        ([*WRONG_TRAIN, "--model_dir=bccd", NO_NAMES], "the records than in bccd/config.yaml"),
        ([*WRONG_TRAIN, "--model_dir=new", "--ckpt=bccd", WRONG], "label_map than in bccd/config.yaml"),
        ([*WRONG_TRAIN, "--model_dir=new", "--ckpt=bccd", NO_NAMES], "the records than in bccd/config.yaml"),
        ([*INFER, WRONG], "label_map than in bccd/config.yaml"),
        ([*STORED_INFER, WRONG], "label_map than in x.tflite"),
        (["model_inspect.py", "--runmode=bm", "--ckpt_path=bccd", WRONG], "label_map than in bccd/config.yaml"),
        ([*EXPORT, WRONG], "label_map than in bccd/config.yaml"),
        ([*EXPORT, "--val_file_pattern=wrong", NO_NAMES], "the records than in bccd/config.yaml"),
        ([*ONNX, WRONG], "label_map than in bccd/config.yaml"),
        ([*FREEZE, WRONG], "label_map than in bccd/config.yaml"),
    ],
)
def test_moved_names_are_refused(folder, words, sources):
    with pytest.raises(ValueError) as error:
        run(words)
    assert f"class names have other ids in {sources}: {IDS}" in str(error.value) and "\n" not in str(error.value)


def test_training_and_validation_records_have_the_same_ids(folder):
    words = ["--mode=train_and_eval", "--model_dir=new", "--val_file_pattern=right", NO_NAMES]
    with pytest.raises(
        ValueError, match=f"^right: class names have other ids in the records than in wrong: {IDS_BACK}"
    ):
        run(["main.py", "--train_file_pattern=wrong", *words])


@pytest.mark.parametrize(
    "words, expected",
    [
        ([*EVAL, "--ckpt=bccd", NO_NAMES], BCCD),
        ([*EVAL, "--ckpt=bccd", "--val_json_file=right.json", RIGHT], BCCD),
        ([*INFER, NO_NAMES], BCCD),
        ([*INFER, "--hparams=num_classes=4,label_map={1: 'red', 2: 'WBC', 3: 'Platelets'}"], {**BCCD, 1: "red"}),
        ([*EXPORT, "--val_file_pattern=right", NO_NAMES], BCCD),
        ([*ONNX, NO_NAMES], BCCD),
        ([*FREEZE, NO_NAMES], BCCD),
        ([*INFER, "--ckpt_path=efficientdet-d0"], COCO),
        ([*INFER, "--ckpt_path=_"], None),  # 90 classes of any kind
        ([*WRONG_TRAIN, "--model_dir=new", "--ckpt=bccd", WRONG.replace("4", "5")], MOVED),  # another class head
        ([*WRONG_TRAIN, "--model_dir=new", WRONG], MOVED),
    ],
)
def test_networks_are_built_with_the_names_of_their_detector(folder, words, expected):
    with pytest.raises(Built) as built:
        run(words)
    assert built.value.args[0].label_map == expected
