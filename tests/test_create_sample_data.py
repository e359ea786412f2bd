# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""tests of dataset/create_sample_data.py."""

import hashlib
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset import command_line, create_sample_data, tfrecord

ROOT = Path(__file__).resolve().parent.parent
CENTER = {1: -1.0, 2: -0.5, 3: -0.384}  # distance from the middle to the outline, by trigonometry


def disc(radius, center_y, center_x, size=(40, 60)):
    y, x = np.mgrid[: size[0], : size[1]]
    return (np.hypot(y + 0.5 - center_y, x + 0.5 - center_x) <= radius).astype(float)


def test_scenes_are_varied_and_well_filled():
    scenes = [create_sample_data.make_scene(1, i, (64, 64)) for i in range(300)]
    counts = np.array([len(scene.boxes) for scene in scenes])
    assert counts.mean() >= 3.5
    assert 0.03 < np.mean(counts == 0) < 0.10
    classes = np.concatenate([scene.classes for scene in scenes])
    assert set(classes) == set(create_sample_data.CLASS_NAMES)
    assert np.bincount(classes)[1:].min() > 0.25 * len(classes)
    boxes = np.concatenate([scene.boxes for scene in scenes])
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) / 64
    assert sides.min() < 0.15 and 0.5 < sides.max() <= 0.63


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, 10**6), st.integers(32, 90), st.integers(32, 90))
def test_boxes_lie_within_the_image(seed, index, height, width):
    scene = create_sample_data.make_scene(seed, index, (height, width))
    assert scene.image.shape == (height, width, 3) and scene.image.dtype == np.uint8
    assert len(scene.boxes) == len(scene.classes)
    assert (scene.boxes[:, :2] >= 0).all() and (scene.boxes[:, 2:] <= [height, width]).all()
    assert (scene.boxes[:, 2:] > scene.boxes[:, :2]).all()


def test_a_seed_gives_the_same_picture_and_another_seed_another():
    scene = create_sample_data.make_scene(1, 6, (48, 64))
    again = create_sample_data.make_scene(1, 6, (48, 64))
    np.testing.assert_array_equal(scene.image, again.image)
    np.testing.assert_array_equal(scene.boxes, again.boxes)
    assert (scene.image != create_sample_data.make_scene(2, 6, (48, 64)).image).mean() > 0.5
    assert (scene.image != create_sample_data.make_scene(1, 7, (48, 64)).image).mean() > 0.5


@pytest.mark.parametrize("class_id, distance", CENTER.items())
def test_shapes_by_hand(class_id, distance):
    shape = create_sample_data.SHAPES[class_id]
    x, y = np.array([0.0, 1.0, 0.999, 1.001, -1.1]), np.zeros(5)
    found = shape(x, y)
    assert found[0] == pytest.approx(distance, abs=1e-3)
    assert found[1] == pytest.approx(0, abs=1e-9)  # a tip, or the circle's rightmost point
    assert found[2] < 0 < found[3] and found[4] > 0


def test_shape_areas_by_hand():
    y, x = (np.mgrid[:800, :800] + 0.5) / 400 - 1
    areas = {class_id: (shape(x, y) < 0).mean() * 4 for class_id, shape in create_sample_data.SHAPES.items()}
    assert areas[1] == pytest.approx(np.pi, rel=0.01)
    assert areas[2] == pytest.approx(3 * np.sqrt(3) / 4, rel=0.01)
    assert areas[3] == pytest.approx(5 * 0.45 * np.sin(np.pi / 5), rel=0.01)  # ten triangles, tip - middle - notch


def test_boxes_are_those_of_the_pixel_mask():
    coverage = disc(5, center_y=20, center_x=2)  # cut off on the left
    assert create_sample_data._mask_box(coverage >= 0.5) == (15, 0, 25, 7)


def test_objects_that_later_ones_hide_are_not_drawn():
    small, large, aside = disc(4, 20, 20), disc(10, 20, 20), disc(4, 20, 33)
    assert create_sample_data._visible([small, aside, large]) == [1, 2]
    assert create_sample_data._visible([large, small, aside]) == [0, 1, 2]
    # What is not drawn hides nothing: the middle one is hidden, and it alone would hide the first.
    assert create_sample_data._visible([disc(4, 20, 26), disc(6, 20, 22), disc(9, 20, 16)]) == [0, 2]


def test_painted_objects_stand_out():
    random = np.random.RandomState(0)
    image = np.full([40, 60, 3], 120.0)
    coverage = disc(8, 20, 30)
    painted = create_sample_data._paint(random, image, coverage)
    np.testing.assert_array_equal(painted[coverage == 0], 120)
    assert np.linalg.norm(painted[coverage == 1].mean(axis=0) - 120) > 0.7 * create_sample_data.MIN_CONTRAST


@pytest.mark.parametrize("text, size", [("160", (160, 160)), ("640x480", (480, 640)), ("64X32", (32, 64))])
def test_parse_image_size(text, size):
    assert create_sample_data.parse_image_size(text) == size


@pytest.mark.parametrize("text", ["", "16", "1x2x3", "abc", "-160", "100x"])
def test_parse_image_size_refuses(text):
    with pytest.raises(tfrecord.DataError, match="expected image_size"):
        create_sample_data.parse_image_size(text)


def test_files_agree(tmp_path):
    report = create_sample_data.create(tmp_path, num_images=6, image_size=(40, 56), seed=4, prefix="mine", num_shards=2)
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert [image["id"] for image in content["images"]] == [1, 2, 3, 4, 5, 6]
    assert content["categories"] == [{"id": i, "name": n} for i, n in create_sample_data.CLASS_NAMES.items()]
    assert str(report).startswith(f"6 images, {len(content['annotations'])} boxes")
    written = json.loads((tmp_path / "report_mine.json").read_text())
    assert (written["images"], written["boxes"], written["reasons"]) == (6, len(content["annotations"]), {})
    samples = {}
    for shard in range(2):
        for raw in tf.data.TFRecordDataset(str(tmp_path / f"mine-{shard:05d}-of-00002.tfrecord")):
            sample = tfrecord.decode(raw)
            samples[int(sample["source_id"])] = sample
    for image in content["images"]:
        scene, sample = create_sample_data.make_scene(4, image["id"] - 1, (40, 56)), samples[image["id"]]
        np.testing.assert_allclose(sample["boxes_norm"] * [40, 56, 40, 56], scene.boxes, atol=1e-4)
        np.testing.assert_array_equal(sample["classes"], scene.classes)
        assert np.abs(sample["image"].numpy().astype(float) - scene.image).mean() < 8  # JPEG's loss
        own = [a["bbox"] for a in content["annotations"] if a["image_id"] == image["id"]]
        corners = np.reshape(own, [-1, 4]) @ [[0, 1, 0, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
        np.testing.assert_array_equal(corners, scene.boxes)


def test_testdata_is_what_its_script_makes(tmp_path):
    # Made on another machine, by other versions of NumPy: the boxes stay.
    create_sample_data.create(tmp_path, num_images=8, image_size=(96, 96), seed=1, num_shards=1)
    committed = json.loads((ROOT / "testdata" / "sample.json").read_text())
    assert json.loads((tmp_path / "annotations.json").read_text()) == committed
    raw = list(tf.data.TFRecordDataset(str(ROOT / "testdata" / "sample.tfrecord")))
    assert sum(len(tfrecord.decode(x)["classes"]) for x in raw) == len(committed["annotations"])
    for serialized in raw:
        feature = tf.train.Example.FromString(serialized.numpy()).features.feature
        encoded = feature["image/encoded"].bytes_list.value[0]
        assert feature["image/key/sha256"].bytes_list.value[0].decode() == hashlib.sha256(encoded).hexdigest()


def test_a_smaller_run_leaves_no_pictures_of_a_larger_one(tmp_path):
    create_sample_data.create(tmp_path, num_images=4, image_size=(32, 32), num_shards=1)
    foreign = {"mine.jpg", "12.jpg", "000000000139.jpg", "000004.png"}
    for name in foreign:
        (tmp_path / "images" / name).touch()
    create_sample_data.create(tmp_path, num_images=2, image_size=(32, 48), num_shards=1)
    listed = {image["file_name"] for image in json.loads((tmp_path / "annotations.json").read_text())["images"]}
    assert listed == {"000001.jpg", "000002.jpg"}
    assert {path.name for path in (tmp_path / "images").iterdir()} == listed | foreign
    assert all(Image.open(tmp_path / "images" / name).size == (48, 32) for name in listed)


def test_files_that_cannot_be_written_are_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    flags = types.SimpleNamespace(output_dir=tmp_path / "file", num_images=1, image_size="32", seed=0, prefix="a")
    monkeypatch.setattr(create_sample_data, "FLAGS", flags)
    with pytest.raises(SystemExit, match=r"^error: .*file"):
        command_line.call(create_sample_data.main)


def test_command(tmp_path):
    script = ROOT / "dataset" / "create_sample_data.py"
    flags = ["--output_dir=made", "--num_images=5", "--image_size=64x48", "--prefix=val", "--seed=2"]
    quiet = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}  # by itself
    done = subprocess.run([sys.executable, script, *flags], cwd=tmp_path, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cuda_dnn.cc" not in done.stderr  # nor other lines of TensorFlow's that it can hold back
    assert done.stdout.startswith("5 images, ")
    assert len(list((tmp_path / "made").glob("val-*-of-00004.tfrecord"))) == 4
    assert len(list((tmp_path / "made" / "images").glob("*.jpg"))) == 5
