# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""keep_aspect_ratio=false in signatures and exported files: images are stretched, boxes are in pixels of the image."""

import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from absl import logging

from efficientdet.model import EfficientDetModel
from tf2.export import export, tflite
from tf2.export.export import Targets
from tf2.inference import drivers, signatures
from tf2.inference.metadata import Metadata

SIZES = ((50, 130), (99, 64))  # the network input is 64 pixels high and 96 wide


@pytest.fixture(scope="module")
def images():
    return [np.random.RandomState(i).randint(0, 256, (*size, 3), np.uint8) for i, size in enumerate(SIZES)]


def encode(image):
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def stretched(image):
    """The image as other programs resize it for the network: [64, 96, 3] float32."""
    return tf.image.resize(tf.cast(image, tf.float32), [64, 96])


def assert_equal(found, expected, tolerance=1e-3):
    assert np.all(expected.valid_len > 0)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def test_signatures_take_images_of_any_shape(light_model, images):
    """Equal to the detections of the stretched images, which need no scaling, times the quotients of the sides."""
    fitted = light_model()
    model = EfficientDetModel(fitted.config.override({"keep_aspect_ratio": False}), fitted.net)
    expected = fitted(tf.stack([stretched(image) for image in images]))
    assert np.all(expected.valid_len > 0)
    factors = np.divide(SIZES, (64, 96)).astype(np.float32)
    boxes = expected.boxes * np.tile(factors, 2)[:, np.newaxis]
    encoded = signatures.encoded_detector(model, 0)(tf.constant([encode(image) for image in images]))
    for i, image in enumerate(images):
        detected = signatures.detector(model, resizes_float=True)(tf.constant(image[np.newaxis]))
        for outputs, row in ((encoded, i), (detected, 0)):
            np.testing.assert_allclose(outputs["detection_boxes"][row], boxes[i], rtol=1e-4, atol=1e-3)
            np.testing.assert_allclose(outputs["detection_scores"][row], expected.scores[i], atol=1e-5)


@pytest.fixture(scope="module")
def driver(tiny_config, spread_driver):
    nms_configs = {"method": "hard", "score_thresh": 0.5, "max_output_size": 15}
    options = {"image_size": "96x64", "keep_aspect_ratio": False, "nms_configs": nms_configs}
    return spread_driver(tiny_config.override(options))


def test_a_driver_detects_what_it_detects_in_the_stretched_image(driver):
    """Of three equal columns, half-pixel centers take the middle one, so that the network inputs are equal."""
    image = np.random.RandomState(0).randint(0, 256, (64, 96, 3), np.uint8)
    expected = driver.serve([image])
    found = driver.serve([np.repeat(image, 3, axis=1)])
    assert_equal(found, expected._replace(boxes=expected.boxes * [1, 3, 1, 3]))


@pytest.mark.parametrize("keep_aspect_ratio", [True, False])
@pytest.mark.parametrize("content", ["detector", "detection_op", "network"])
def test_a_file_for_programs_that_stretch_images_is_reported_if_it_expects_padding(
    tiny_config, monkeypatch, keep_aspect_ratio, content
):
    lines = []
    monkeypatch.setattr(logging, "info", lambda text, *args: lines.append(text % args))
    monkeypatch.setattr(tflite, "write", lambda model, path, metadata, **options: [path])
    metadata = Metadata(tiny_config.override({"keep_aspect_ratio": keep_aspect_ratio}))
    targets = Targets(tflite="x.tflite", tflite_content=content)
    assert export._write_tflite(None, "x.tflite", metadata, targets) == ["x.tflite"]
    is_reported = [line for line in lines if line.startswith("x.tflite expects padded images")] != []
    assert is_reported == (keep_aspect_ratio and content == "detection_op")


@pytest.mark.slow
@pytest.mark.both_lanes
def test_exported_files_agree_with_their_driver(driver, images, tmp_path):
    saved_model, frozen_graph, detector, op, onnx = (
        str(tmp_path / name) for name in ("saved_model", "frozen.pb", "detector.tflite", "op.tflite", "model.onnx")
    )
    targets = Targets(saved_model, frozen_graph, tflite=detector, onnx=onnx)
    export.write(driver, targets, None)
    export.write(driver, Targets(tflite=op, tflite_content="detection_op"), None)
    expected = [driver.detect(image) for image in images]
    for path in (saved_model, frozen_graph, detector, op, onnx):
        opened = drivers.open_artifact(path)
        assert opened.config == driver.config
        for image, theirs in zip(images, expected):
            assert_equal(opened.detect(image), theirs)
    found = tf.saved_model.load(saved_model).signatures["encoded"](tf.constant([encode(images[0])]))
    count = found["num_detections"][0]
    np.testing.assert_allclose(found["detection_boxes"][0, :count], expected[0].boxes, rtol=1e-3, atol=1e-3)
