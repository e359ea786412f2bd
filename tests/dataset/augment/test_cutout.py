# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/augment/cutout.py: size and position of the grey rectangle."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.augment.cutout import cutout, object_cutout
from dataset.augment.geometry import GREY

SIDES = st.integers(1, 40)
SEEDS = st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))


def grey_window(image):
    """The grey rectangle, [top, left, bottom, right], of a black image, or None; asserts that it is a rectangle."""
    grey = np.all(image.numpy() == GREY, axis=-1)
    assert np.all(image.numpy()[~grey] == 0)
    if not grey.any():
        return None
    rows, columns = np.flatnonzero(grey.any(1)), np.flatnonzero(grey.any(0))
    window = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
    assert grey.sum() == (window[2] - window[0]) * (window[3] - window[1])
    return window


@settings(max_examples=25)
@given(SIDES, SIDES, SEEDS, st.integers(1, 60))
def test_cutout_is_a_square_clipped_to_the_image(height, width, seed, pad):
    top, left, bottom, right = grey_window(cutout(tf.zeros([height, width, 3], tf.uint8), tf.constant(seed), pad))
    for first, last, side in ((top, bottom, height), (left, right, width)):
        assert last - first == 2 * pad or ((first == 0 or last == side) and last - first <= 2 * pad)
        assert last - first >= min(pad, side)  # its centre is inside of the image


def test_cutout_centres_cover_the_image():
    """For squares of 2 x 2 pixels, last row and column are those of the centre."""
    image = tf.zeros([4, 6, 3], tf.uint8)
    run = tf.function(cutout)
    windows = [grey_window(run(image, tf.constant([3, i]), 1)) for i in range(300)]
    assert {(bottom, right) for _, _, bottom, right in windows} == {(i, j) for i in range(1, 5) for j in range(1, 7)}


def test_size_0_returns_the_image():
    image = tf.constant(np.random.RandomState(0).randint(0, 256, (20, 30, 3)), tf.uint8)
    boxes_norm = tf.constant([[0.1, 0.1, 0.9, 0.9]])
    np.testing.assert_array_equal(cutout(image, tf.constant([1, 2]), 0), image)
    np.testing.assert_array_equal(object_cutout(image, boxes_norm, tf.constant([1, 2]), 0.0), image)


@pytest.mark.parametrize("fraction, size", [(0.75, (14, 6)), (0.3, (6, 2))])  # by hand, 2 * int(fraction * side / 2)
def test_object_cutout_golden(fraction, size):
    image, box = tf.zeros([60, 60, 3], tf.uint8), np.array([20, 30, 40, 38])  # 20 x 8 pixels
    centers, run = [], tf.function(object_cutout)
    for i in range(100):
        hidden = run(image, tf.constant([box / 60], tf.float32), tf.constant([i, 0]), fraction)
        top, left, bottom, right = grey_window(hidden)
        assert (bottom - top, right - left) == size
        centers.append([(top + bottom) // 2, (left + right) // 2])
    assert np.all(np.min(centers, 0) >= [20, 30]) and np.all(np.max(centers, 0) < [40, 38])
    assert np.all(np.ptp(centers, 0) >= [17, 6])


def test_object_cutout_ignores_empty_boxes():
    boxes = np.array([[0, 0, 8, 8], [20, 20, 20, 28], [20, 0, 28, 8], [0, 20, 8, 28], [0, 0, 0, 0]]) / 40
    hit = set()
    for i in range(60):
        image = tf.zeros([40, 40, 3], tf.uint8)
        top, left, *_ = grey_window(object_cutout(image, tf.constant(boxes, tf.float32), tf.constant([0, i]), 0.5))
        hit.add((top >= 15, left >= 15))
    assert hit == {(False, False), (True, False), (False, True)}


@pytest.mark.parametrize("boxes", [[], [[0.5, 0.5, 0.5, 0.5]], [[0.0] * 4] * 500])
def test_object_cutout_without_objects_returns_the_image(boxes):
    image = tf.constant(np.random.RandomState(0).randint(0, 256, (20, 30, 3)), tf.uint8)
    boxes_norm = tf.reshape(tf.constant(boxes, tf.float32), [-1, 4])
    np.testing.assert_array_equal(object_cutout(image, boxes_norm, tf.constant([1, 2]), 0.75), image)
