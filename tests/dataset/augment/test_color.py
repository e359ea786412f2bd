# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/augment/color.py against values by hand and against Pillow."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from dataset.augment import color


@st.composite
def images(draw):
    """Images from 1 x 1 pixel, with values in a part of [0, 255] or all equal."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    low, high = sorted((draw(st.integers(0, 255)), draw(st.integers(0, 255))))
    rng = np.random.RandomState(draw(st.integers(0, 2**31)))
    return rng.randint(low, high + 1, (height, width, 3)).astype(np.uint8)


def one_row(*values):
    return tf.constant([[[value] * 3 for value in values]], tf.uint8)


def greys(image):
    values = image.numpy()[0]
    assert np.all(values == values[:, :1])
    return values[:, 0].tolist()


@pytest.mark.parametrize(
    "first, second, factor, expected",
    [  # by hand
        (10, 20, 0.0, 10),
        (10, 20, 1.0, 20),
        (10, 20, 0.57, 15),  # 15.7 is truncated
        (20, 10, 1.5, 5),
        (10, 20, 1.9, 29),
        (100, 200, 1.9, 255),  # 290
        (200, 100, 2.8, 0),  # -80
    ],
)
def test_blend_golden(first, second, factor, expected):
    blended = color.blend(one_row(first), one_row(second), factor)
    assert blended.dtype == tf.uint8 and greys(blended) == [expected]


@pytest.mark.parametrize(
    "operation, expected",
    [  # by hand, for the greys 0, 10, 127, 128, 255
        (lambda image: color.posterize(image, 8), [0, 10, 127, 128, 255]),
        (lambda image: color.posterize(image, 4), [0, 0, 112, 128, 240]),
        (lambda image: color.posterize(image, 1), [0, 0, 0, 128, 128]),
        (lambda image: color.posterize(image, 0), [0, 0, 0, 128, 128]),  # as with 1
        (lambda image: color.solarize(image, 128), [0, 10, 127, 127, 0]),
        (lambda image: color.solarize(image, 0), [255, 245, 128, 127, 0]),
        (lambda image: color.solarize(image, 255), [0, 10, 127, 128, 0]),
        (lambda image: color.solarize(image, 256), [0, 10, 127, 128, 255]),
        (lambda image: color.solarize(image, 384), [0, 10, 127, 128, 255]),
        (lambda image: color.solarize_add(image, 0), [0, 10, 127, 128, 255]),
        (lambda image: color.solarize_add(image, 66), [66, 76, 193, 128, 255]),
        (lambda image: color.solarize_add(image, 165), [165, 175, 255, 128, 255]),
        (lambda image: color.solarize_add(image, 300, threshold=11), [255, 255, 127, 128, 255]),
        (lambda image: color.brightness(image, 0.5), [0, 5, 63, 64, 127]),
        (lambda image: color.brightness(image, 1.9), [0, 19, 241, 243, 255]),
        (lambda image: color.contrast(image, 0.0), [104] * 5),  # the mean
        (lambda image: color.contrast(image, 0.5), [52, 57, 115, 116, 179]),
        (lambda image: color.color(image, 0.1), [0, 10, 127, 128, 255]),  # greys have no saturation
        (lambda image: color.sharpness(image, 0.1), [0, 10, 127, 128, 255]),  # one row is all border
        (lambda image: color.equalize(image), [0, 10, 127, 128, 255]),  # fewer than 255 pixels
        (lambda image: color.autocontrast(image), [0, 10, 127, 128, 255]),
        (lambda image: color.autocontrast(image[:, 1:4]), [0, 252, 255]),  # 255 * 117 / 118
        (lambda image: color.autocontrast(image[:, 1:2]), [10]),
    ],
)
def test_golden(operation, expected):
    assert greys(operation(one_row(0, 10, 127, 128, 255))) == expected


def test_color_golden():
    # By hand: luma 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2, so 124; then half way between, truncated.
    assert color.color(tf.constant([[[200, 100, 50]]], tf.uint8), 0.0).numpy().tolist() == [[[124, 124, 124]]]
    assert color.color(tf.constant([[[200, 100, 50]]], tf.uint8), 0.5).numpy().tolist() == [[[162, 112, 87]]]


def test_sharpness_golden():
    # By hand: the middle is smoothed to 5 * 130 / 13 = 50; its neighbours are border and do not change.
    image = np.zeros((3, 3, 3), np.uint8)
    image[1, 1] = 130
    for factor, middle in ((0.0, 50), (0.5, 90), (1.0, 130), (1.9, 202)):
        expected = image.copy()
        expected[1, 1] = middle
        np.testing.assert_array_equal(color.sharpness(tf.constant(image), factor), expected)


def test_equalize_golden():
    # By hand: 510 pixels of 100, 255 of 101, 3 of 102. Pixels per value, without the highest: 765 // 255 = 3;
    # (0 + 1) // 3 = 0, (510 + 1) // 3 = 170, (765 + 1) // 3 = 255. The channel with one value is unchanged.
    values = np.repeat([100, 101, 102], [510, 255, 3])
    image = np.stack([values, np.full(768, 7), values[::-1]], -1).reshape(24, 32, 3).astype(np.uint8)
    spread = np.repeat([0, 170, 255], [510, 255, 3])
    expected = np.stack([spread, np.full(768, 7), spread[::-1]], -1).reshape(24, 32, 3)
    np.testing.assert_array_equal(color.equalize(tf.constant(image)), expected)


PILLOW = {  # ours, Pillow's, tolerance: rounding of luma and scales differs
    "equalize": (color.equalize, ImageOps.equalize, 0),
    "autocontrast": (color.autocontrast, ImageOps.autocontrast, 1),
    **{
        f"posterize {bits}": (
            lambda image, bits=bits: color.posterize(image, bits),
            lambda image, bits=bits: ImageOps.posterize(image, bits),
            0,
        )
        for bits in (1, 3, 8)
    },
    **{
        f"solarize {threshold}": (
            lambda image, threshold=threshold: color.solarize(image, threshold),
            lambda image, threshold=threshold: ImageOps.solarize(image, threshold),
            0,
        )
        for threshold in (0, 102, 204)
    },
    **{
        f"{ours.__name__} {factor}": (
            lambda image, ours=ours, factor=factor: ours(image, factor),
            lambda image, pillow=pillow, factor=factor: pillow(image).enhance(factor),
            tolerance,
        )
        for factor in (0.1, 0.46, 1.0, 1.9, 2.8)
        for ours, pillow, tolerance in (
            (color.brightness, ImageEnhance.Brightness, 0),
            (color.contrast, ImageEnhance.Contrast, 2),
            (color.color, ImageEnhance.Color, 2),
            (color.sharpness, ImageEnhance.Sharpness, 0),
        )
    },
}


@pytest.mark.parametrize("name", PILLOW)
def test_agrees_with_pillow(name):
    ours, pillow, tolerance = PILLOW[name]

    @settings(max_examples=10)
    @given(images())
    def agree(image):
        result = ours(tf.constant(image))
        assert result.dtype == tf.uint8
        expected = np.array(pillow(Image.fromarray(image)), np.int32)
        np.testing.assert_allclose(result.numpy().astype(np.int32), expected, rtol=0, atol=tolerance)

    agree()


@pytest.mark.parametrize("operation", [color.color, color.contrast, color.brightness, color.sharpness])
def test_factor_1_is_the_identity(operation):
    image = tf.constant(np.random.RandomState(0).randint(0, 256, (37, 23, 3)), tf.uint8)
    np.testing.assert_array_equal(operation(image, 1.0), image)


def test_results_with_unknown_sizes():
    """In tf.data an image is [?, ?, 3]."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def run(image):
        return color.equalize(color.sharpness(color.autocontrast(color.color(image, 1.9)), 1.9))

    for height, width in ((1, 1), (2, 3), (30, 50)):
        image = tf.constant(np.random.RandomState(height).randint(9, 200, (height, width, 3)), tf.uint8)
        np.testing.assert_array_equal(run(image), run.python_function(image))
