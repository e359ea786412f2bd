# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""drivers: a detector is called with images of any size, one by one and in batches."""

import numpy as np
import pytest
from PIL import Image

from efficientdet.model import EfficientDetModel, EfficientDetNet
from tf2.inference import drivers
from tf2.inference.metadata import Metadata
from tf2.training.model_dir import ModelDir
from tf2.weights import checkpoint


@pytest.fixture(scope="module")
def driver(tiny_config, spread_driver):
    return spread_driver(tiny_config.override({"nms_configs": {"max_output_size": 20}}))


@pytest.fixture(scope="module")
def images():
    rng = np.random.RandomState(1)
    return [rng.randint(0, 256, size, np.uint8) for size in ((96, 96, 3), (40, 150, 3), (200, 64, 3))]


def test_one_image_alone_and_in_a_batch(driver, images):
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


def test_boxes_are_in_pixels_of_each_image(driver, images):
    for image in images:
        boxes, scores, classes, _ = driver.detect(image)
        side = max(image.shape[:2])  # boxes may lie in the padding to a square input
        assert np.all(boxes >= 0) and np.all(boxes <= side) and boxes.max() > 0.6 * side
        assert np.all(boxes[:, 2:] >= boxes[:, :2])
        assert np.all(np.diff(scores) <= 0) and np.all((scores > 0) & (scores <= 1))
        assert set(classes) <= {1, 2, 3}


def test_a_driver_computes_the_same_as_the_model(driver, images):
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
def test_arrays_of_another_shape_or_dtype_are_refused(driver, image, got):
    with pytest.raises(ValueError, match=f"expected .*images, got {got}"):
        driver.detect(image)


def test_an_empty_batch_is_refused(driver):
    with pytest.raises(ValueError, match="at least one image"):
        driver.serve([])


def test_names_come_from_the_label_map(driver, tiny_config):
    assert driver.names == {}
    named = drivers.KerasDriver(tiny_config.override({"label_map": {2: "b"}}), None)
    assert named.names == {2: "b"} and [named.name_of(i) for i in (1, np.int32(2))] == ["class 1", "b"]


def test_a_missing_checkpoint_is_an_error_before_anything_is_built(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(drivers, "EfficientDetModel", None)
    with pytest.raises(checkpoint.CheckpointError, match=r"no checkpoint at .*none; give a directory"):
        drivers.KerasDriver(tiny_config, str(tmp_path / "none"))


def test_a_driver_names_the_checkpoint_of_a_directory(tiny_config, tmp_path):
    weights = {
        name: variable.numpy() for name, variable in checkpoint.named_variables(EfficientDetNet(tiny_config)).items()
    }
    prefix = ModelDir(str(tmp_path)).save(7, weights)
    assert drivers.KerasDriver(tiny_config, str(tmp_path)).ckpt_path == prefix


def test_detect_reads_files(driver, images, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(images[0]).save(path)
    for given in (path, str(path)):
        for ours, expected in zip(driver.detect(given), driver.detect(images[0]), strict=True):
            np.testing.assert_array_equal(ours, expected)
    path.write_text("no image")
    with pytest.raises(ValueError, match=r"image\.png"):
        driver.detect(path)


@pytest.mark.parametrize(
    "nms, scores",
    [
        ({"score_thresh": 0.4}, [0.9, 0.5]),
        ({"score_thresh": 0.5}, [0.9]),
        ({"score_thresh": None}, [0.9, 0.5, 0.3]),
        ({"score_thresh": 0.4, "max_output_size": 1}, [0.9]),
        ({"score_thresh": 0.95}, []),
    ],
)
def test_detect_applies_the_config_to_files_with_another_threshold(tiny_config, nms, scores):
    """As with files of the published program; rows are [image, box, score, class], and padding has the score 0."""
    rows = np.array([[0, 1, 2, 3, 4, score, 2] for score in (0.9, 0.5, 0.3, 0)], np.float32)

    class Runtime:
        batch_size, metadata, content = None, None, "detector"

        def run(self, inputs):
            return {"detections": rows[np.newaxis]}

    detector = drivers.ArtifactDriver(Runtime(), Metadata(tiny_config.override({"nms_configs": nms})))
    detections = detector.detect(np.zeros((9, 9, 3), np.uint8))
    np.testing.assert_allclose(detections.scores, scores)
    np.testing.assert_array_equal(detections.boxes, np.tile([1, 2, 3, 4], [len(scores), 1]))
    assert detections.classes.tolist() == [2] * len(scores) and detections.valid_len == len(scores)
