# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""drivers: a detector called with arrays of any size, one by one and together."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from efficientdet.model import EfficientDetModel, EfficientDetNet
from tf2.inference import drivers
from tf2.training.model_dir import ModelDir
from tf2.weights import checkpoint

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope="module")
def driver(tiny_config, spread_driver):
    return spread_driver(tiny_config.override({"nms_configs": {"max_output_size": 20}}))


@pytest.fixture(scope="module")
def images():
    rng = np.random.RandomState(1)
    return [rng.randint(0, 256, size, np.uint8) for size in ((96, 96, 3), (40, 150, 3), (200, 64, 3))]


def test_one_array_is_as_a_list_of_one_and_of_many(driver, images):
    together = driver.serve(images)
    assert together.boxes.shape == (3, 20, 4) and together.boxes.dtype == np.float32
    assert together.scores.shape == together.classes.shape == (3, 20)
    for i, image in enumerate(images):
        alone, detected, count = driver.serve([image]), driver.detect(image), together.valid_len[i]
        assert 0 < count <= 20
        assert len(detected.boxes) == len(detected.scores) == len(detected.classes) == detected.valid_len == count
        for ours, single, shared in zip(detected[:3], alone[:3], together[:3]):
            np.testing.assert_array_equal(ours, single[0][:count])
            np.testing.assert_allclose(ours, shared[i][:count], rtol=1e-3, atol=1e-3)
            assert not np.any(shared[i][count:])


def test_boxes_are_in_pixels_of_each_picture(driver, images):
    for image in images:
        boxes, scores, classes, _ = driver.detect(image)
        side = max(image.shape[:2])  # the picture fits into the square input; its padding may be detected, too
        assert np.all(boxes >= 0) and np.all(boxes <= side) and boxes.max() > 0.6 * side
        assert np.all(boxes[:, 2:] >= boxes[:, :2])
        assert np.all(np.diff(scores) <= 0) and np.all((scores > 0) & (scores <= 1))
        assert set(classes) <= {1, 2, 3}


def test_a_driver_is_the_model_compiled(driver, images, tiny_config):
    model = EfficientDetModel(driver.config, driver.model.net)
    expected = model(images[0][np.newaxis])
    detected = driver.serve(images[:1])
    for ours, theirs in zip(detected, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "image, got",
    [
        (np.zeros((9, 9), np.uint8), r"\[9, 9\] uint8"),
        (np.zeros((9, 9, 4), np.uint8), r"\[9, 9, 4\] uint8"),
        (np.zeros((1, 9, 9, 3), np.uint8), r"\[1, 9, 9, 3\] uint8"),
        (np.zeros((9, 9, 3), np.float32), r"\[9, 9, 3\] float32"),
        (np.zeros((0, 9, 3), np.uint8), r"\[0, 9, 3\] uint8"),
    ],
)
def test_what_is_no_picture_is_refused(driver, image, got):
    with pytest.raises(ValueError, match=f"expected .*pictures, got {got}"):
        driver.detect(image)


def test_serving_no_picture_is_refused(driver):
    with pytest.raises(ValueError, match="at least one picture"):
        driver.serve([])


def test_names_come_from_the_label_map(driver, tiny_config):
    assert driver.names == {}
    assert drivers.KerasDriver(tiny_config.override({"label_map": {2: "b"}}), None).names == {2: "b"}


def test_a_missing_checkpoint_is_told_before_anything_is_built(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(drivers, "EfficientDetModel", None)
    with pytest.raises(checkpoint.CheckpointError, match=r"no checkpoint at .*none; give a directory"):
        drivers.KerasDriver(tiny_config, str(tmp_path / "none"))


def test_a_driver_names_the_checkpoint_of_a_directory(tiny_config, tmp_path):
    weights = {
        name: variable.numpy() for name, variable in checkpoint.named_variables(EfficientDetNet(tiny_config)).items()
    }
    prefix = ModelDir(str(tmp_path)).save(7, weights)
    assert drivers.KerasDriver(tiny_config, str(tmp_path)).ckpt_path == prefix


@pytest.mark.slow
def test_the_documented_lines(tmp_path):
    hparams = "image_size=64,fpn_num_filters=8,fpn_cell_repeats=1,box_class_repeats=1"
    random = drivers.load("efficientdet-lite0", None, hparams)
    weights = {name: variable.numpy() for name, variable in checkpoint.named_variables(random.model.net).items()}
    path = ModelDir(str(tmp_path)).save(0, weights)

    detector = drivers.load("efficientdet-lite0", path, hparams, nms_configs={"score_thresh": 0.0})
    detections = detector.detect(np.asarray(Image.open(ROOT / "testdata" / "img1.jpg").convert("RGB")))
    assert detections.boxes.shape == (detections.valid_len, 4) and detections.valid_len > 0
    assert np.all(detections.boxes <= 640)
    assert detector.names[1] == "person"  # 90 classes and no label map: those of COCO
