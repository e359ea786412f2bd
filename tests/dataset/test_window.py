# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/window.py: a decoded window equals the same part of the decoded image."""

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dataset import tfrecord
from dataset.window import Window, crop_boxes, crop_image, decode_window

OPTIONS = {
    "jpeg 4:4:4": ("JPEG", {"quality": 90, "subsampling": 0}),
    "jpeg 4:2:2": ("JPEG", {"quality": 90, "subsampling": 1}),
    "jpeg 4:2:0": ("JPEG", {"quality": 90, "subsampling": 2}),
    "progressive": ("JPEG", {"quality": 90, "subsampling": 2, "progressive": True}),
    "png": ("PNG", {}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
}


@st.composite
def windows(draw, max_side=80):
    """(height, width) of an image, and (y, x), (height, width) of a window in it."""
    image_hw = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    size = tuple(draw(st.integers(1, side)) for side in image_hw)
    offset = tuple(draw(st.integers(0, side - part)) for side, part in zip(image_hw, size))
    return image_hw, offset, size


def encoded(kind, height, width, mode="RGB"):
    """A colour image with smooth transitions, where chroma is interpolated."""
    rng = np.random.RandomState(height * 100 + width)
    cells = Image.fromarray(rng.randint(0, 256, (height // 5 + 1, width // 5 + 1, 3)).astype(np.uint8))
    file_format, options = OPTIONS[kind]
    buffer = io.BytesIO()
    cells.resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(buffer, file_format, **options)
    return buffer.getvalue()


def window_of(offset, size):
    return Window(tf.constant(offset), tf.constant(size), tf.constant([32, 32]))


@tf.function(input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.int32), tf.TensorSpec([2], tf.int32)])
def decoded(data, offset, size):
    return decode_window(data, lambda _: Window(offset, size, size))


@pytest.mark.parametrize("kind", OPTIONS)
@given(windows())
def test_window_equals_part_of_the_decoded_image(kind, geometry):
    image_hw, offset, size = geometry
    for mode in ("RGB", "L"):
        data = encoded(kind, *image_hw, mode)
        full = tfrecord.decode_image(data).numpy()
        image, decoded_hw, _ = decoded(data, offset, size)
        rows, columns = (slice(start, start + length) for start, length in zip(offset, size))
        np.testing.assert_array_equal(image, full[rows, columns])
        np.testing.assert_array_equal(decoded_hw, image_hw)
        np.testing.assert_array_equal(crop_image(full, window_of(offset, size)), full[rows, columns])


def test_window_is_chosen_from_the_image_size():
    sizes = []

    def choose(image_hw):
        sizes.append(image_hw.numpy().tolist())
        return window_of([0, 0], [1, 1])

    for kind in ("jpeg 4:2:0", "png"):
        decode_window(encoded(kind, 30, 50), choose)
    assert sizes == [[30, 50]] * 2


def test_boxes_by_hand():
    # 100 x 200 pixels; the window is [10, 20] to [60, 60].
    boxes = tf.constant([[0.1, 0.1, 0.6, 0.3], [0.35, 0.2, 1.0, 1.0]])
    window = window_of([10, 20], [50, 40])
    expected = [[0, 0, 1, 1], [0.5, 0.5, 1.8, 4.5]]
    np.testing.assert_allclose(crop_boxes(boxes, tf.constant([100, 200]), window), expected, atol=1e-6)


@given(windows())
def test_boxes_follow_pixels(geometry):
    image_hw, offset, size = geometry
    image = np.zeros((*image_hw, 3), np.uint8)
    corners = np.array([offset, np.add(offset, size)])  # a box equal to the window
    image[corners[0, 0] : corners[1, 0], corners[0, 1] : corners[1, 1]] = 255
    boxes_norm = tf.constant((corners / image_hw).reshape(1, 4), tf.float32)
    window = window_of(offset, size)
    assert np.all(crop_image(image, window) == 255)
    cropped = crop_boxes(boxes_norm, tf.constant(image_hw), window)
    np.testing.assert_allclose(cropped * np.tile(size, 2), [[0, 0, *size]], atol=1e-4)


def test_truncated_image_raises():
    for kind in ("jpeg 4:2:0", "png"):
        data = encoded(kind, 40, 40)
        with pytest.raises(tf.errors.InvalidArgumentError):
            decoded(data[: len(data) // 2], [0, 0], [40, 40])
