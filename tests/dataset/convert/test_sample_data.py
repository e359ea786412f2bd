# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/convert/sample_data.py."""

import hashlib
import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from dataset import scenes, tfrecord
from dataset.convert import sample_data

ROOT = Path(__file__).resolve().parents[3]


def test_images_annotations_and_records_agree(tmp_path):
    report = sample_data.create(tmp_path, num_images=6, image_size=(40, 56), seed=4, prefix="mine", num_shards=2)
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert [image["id"] for image in content["images"]] == [1, 2, 3, 4, 5, 6]
    assert content["categories"] == [{"id": i, "name": n} for i, n in scenes.CLASS_NAMES.items()]
    assert str(report).startswith(f"6 images, {len(content['annotations'])} boxes")
    written = json.loads((tmp_path / "report_mine.json").read_text())
    assert (written["images"], written["boxes"], written["reasons"]) == (6, len(content["annotations"]), {})
    samples = {}
    for shard in range(2):
        for raw in tf.data.TFRecordDataset(str(tmp_path / f"mine-{shard:05d}-of-00002.tfrecord")):
            sample = tfrecord.decode(raw)
            samples[int(sample["source_id"])] = sample
    for image in content["images"]:
        scene, sample = scenes.make_scene(4, image["id"] - 1, (40, 56)), samples[image["id"]]
        np.testing.assert_allclose(sample["boxes_norm"] * [40, 56, 40, 56], scene.boxes, atol=1e-4)
        np.testing.assert_array_equal(sample["classes"], scene.classes)
        assert np.abs(sample["image"].numpy().astype(float) - scene.image).mean() < 8  # JPEG is lossy
        bboxes = [a["bbox"] for a in content["annotations"] if a["image_id"] == image["id"]]
        corners = np.reshape(bboxes, [-1, 4]) @ [[0, 1, 0, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
        np.testing.assert_array_equal(corners, scene.boxes)


def test_testdata_is_reproducible(tmp_path):
    # It was made on another machine, with other versions of NumPy.
    sample_data.create(tmp_path, num_images=8, image_size=(96, 96), seed=1, num_shards=1)
    committed = json.loads((ROOT / "testdata" / "sample.json").read_text())
    assert json.loads((tmp_path / "annotations.json").read_text()) == committed
    raw = list(tf.data.TFRecordDataset(str(ROOT / "testdata" / "sample.tfrecord")))
    assert sum(len(tfrecord.decode(x)["classes"]) for x in raw) == len(committed["annotations"])
    for serialized in raw:
        feature = tf.train.Example.FromString(serialized.numpy()).features.feature
        encoded = feature["image/encoded"].bytes_list.value[0]
        assert feature["image/key/sha256"].bytes_list.value[0].decode() == hashlib.sha256(encoded).hexdigest()


def test_a_smaller_run_removes_images_of_a_larger_one(tmp_path):
    sample_data.create(tmp_path, num_images=4, image_size=(32, 32), num_shards=1)
    foreign = {"mine.jpg", "12.jpg", "000000000139.jpg", "000004.png"}
    for name in foreign:
        (tmp_path / "images" / name).touch()
    sample_data.create(tmp_path, num_images=2, image_size=(32, 48), num_shards=1)
    listed = {image["file_name"] for image in json.loads((tmp_path / "annotations.json").read_text())["images"]}
    assert listed == {"000001.jpg", "000002.jpg"}
    assert {path.name for path in (tmp_path / "images").iterdir()} == listed | foreign
    assert all(Image.open(tmp_path / "images" / name).size == (48, 32) for name in listed)
