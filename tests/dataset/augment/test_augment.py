# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of the augmentations of every training: random flip, and the window of scale jitter."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.augment.geometry import random_flip
from dataset.window import Window, random_window

SEEDS = st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
STAYS, FLIPS = (0, 3), (0, 0)


@st.composite
def samples(draw):
    height, width, num_boxes = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(0, 50))
    rng = np.random.RandomState(draw(st.integers(0, 2**31)))
    corners = np.sort(rng.uniform(size=(num_boxes, 2, 2)), axis=1)
    return {
        "image": tf.constant(rng.randint(0, 256, (height, width, 3)), tf.uint8),
        "boxes_norm": tf.constant(corners.reshape(-1, 4), tf.float32),
        "classes": tf.range(1, num_boxes + 1),
    }


def filled_box(height, width, box):
    """A black image with one white box, [ymin, xmin, ymax, xmax] in whole pixels."""
    image = np.zeros((height, width, 3), np.uint8)
    image[box[0] : box[2], box[1] : box[3]] = 255
    boxes_norm = tf.constant([box], tf.float32) / [height, width, height, width]
    return {"image": tf.constant(image), "boxes_norm": boxes_norm}


def assert_equal(sample, other):
    assert sample.keys() == other.keys()
    for name in sample:
        np.testing.assert_array_equal(sample[name], other[name], err_msg=name)


def jitter(image_hw, seed, *, factors=(0.1, 2.0), image_size=(64, 64), target_size=None, keep_aspect_ratio=True):
    window = random_window(
        tf.constant(image_hw),
        tf.constant(seed),
        image_size=image_size,
        target_size=target_size or image_size,
        keep_aspect_ratio=keep_aspect_ratio,
        jitter_min=factors[0],
        jitter_max=factors[1],
    )
    return Window(*(side.numpy() for side in window))


@given(samples(), SEEDS)
def test_two_flips_are_the_identity(sample, seed):
    twice = random_flip(random_flip(sample, tf.constant(seed)), tf.constant(seed))
    np.testing.assert_array_equal(twice["image"], sample["image"])
    np.testing.assert_allclose(twice["boxes_norm"], sample["boxes_norm"], atol=1e-6)
    np.testing.assert_array_equal(twice["classes"], sample["classes"])


@given(samples(), SEEDS)
def test_flip_mirrors_image_and_boxes_or_neither(sample, seed):
    flipped = random_flip(sample, tf.constant(seed))
    ymin, xmin, ymax, xmax = sample["boxes_norm"].numpy().T
    mirrored = {
        **sample,
        "image": sample["image"][:, ::-1],
        "boxes_norm": np.stack([ymin, 1 - xmax, ymax, 1 - xmin], -1),
    }
    assert_equal(flipped, mirrored if tf.random.stateless_uniform([], seed) < 0.5 else sample)


@pytest.mark.parametrize("seed, expected", [(STAYS, [10, 3, 20, 9]), (FLIPS, [10, 21, 20, 27])])
def test_flip_golden(seed, expected):  # by hand: 30 pixels wide, so xmin = 30 - 9, xmax = 30 - 3
    flipped = random_flip(filled_box(24, 30, [10, 3, 20, 9]), tf.constant(seed))
    np.testing.assert_allclose(flipped["boxes_norm"][0] * [24, 30, 24, 30], expected, atol=1e-5)
    assert_equal(flipped | {"boxes_norm": 0}, filled_box(24, 30, expected) | {"boxes_norm": 0})


def test_half_of_the_seeds_flip():
    sample = filled_box(2, 4, [0, 0, 1, 1])
    flips = [bool(random_flip(sample, tf.constant([7, i]))["image"][0, 3, 0]) for i in range(200)]
    assert 80 <= sum(flips) <= 120


SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))


@given(SIZES, SEEDS, SIZES)
def test_window_is_within_image_and_input(image_hw, seed, image_size):
    offset, size, scaled_size = jitter(image_hw, seed, image_size=image_size)
    assert np.all(offset >= 0) and np.all(size >= 1) and np.all(offset + size <= image_hw)
    assert np.all(scaled_size >= 1) and np.all(scaled_size <= image_size)
    # Equal factors of both sides, up to rounding: half a pixel of the window, or less than one of the input.
    low, high = (scaled_size / (size + 0.5)), ((scaled_size + 1) / np.maximum(size - 0.5, 1e-9))
    assert np.all((low <= high[::-1]) | (scaled_size == 1))
    # A side is cropped only if it does not fit into the input.
    assert np.all((size == image_hw) | (scaled_size == image_size))


@given(SIZES, SEEDS, SIZES)
def test_window_of_a_stretched_image_is_within_image_and_input(image_hw, seed, image_size):
    """Both sides have the factors of the stretched image times a common random one, up to rounding."""
    offset, size, scaled_size = jitter(image_hw, seed, image_size=image_size, keep_aspect_ratio=False)
    assert np.all(offset >= 0) and np.all(size >= 1) and np.all(offset + size <= image_hw)
    assert np.all(scaled_size >= 1) and np.all(scaled_size <= image_size)
    factors = np.divide(image_size, image_hw)
    low, high = scaled_size / (size + 0.5) / factors, (scaled_size + 1) / np.maximum(size - 0.5, 1e-9) / factors
    assert np.all((low <= high[::-1]) | (scaled_size == 1))
    assert np.all((size == image_hw) | (scaled_size == image_size))


@pytest.mark.parametrize(
    "factor, target_size, size, scaled_size",
    [  # by hand, for an image of 100 x 200 (height, width) that an input of 64 x 64 stretches
        (1.0, (64, 64), [100, 200], [64, 64]),
        (0.5, (64, 64), [100, 200], [32, 32]),
        (1.5, (64, 64), [67, 133], [64, 64]),  # 96 x 96, of which 64 are 66.7 of 100 and 133.3 of 200
        (2.0, (64, 32), [50, 200], [64, 64]),  # 128 x 64
        (0.001, (64, 64), [100, 200], [1, 1]),
    ],
)
def test_jitter_of_a_stretched_image_golden(factor, target_size, size, scaled_size):
    options = {"factors": (factor, factor), "target_size": target_size, "keep_aspect_ratio": False}
    for i in range(5):
        _, shown, scaled = jitter((100, 200), (3, i), **options)
        assert (shown.tolist(), scaled.tolist()) == (size, scaled_size)


@pytest.mark.parametrize(
    "factor, target_size, size, scaled_size",
    [  # by hand, for an image of 100 x 200 (height, width) and an input of 64 x 64
        (1.0, (64, 64), [100, 200], [32, 64]),  # 64 / 200
        (1.5, (64, 64), [100, 133], [48, 64]),  # 96 / 200 -> 48 x 96; 64 of 96 pixels are 133 of 200
        (2.0, (64, 128), [50, 50], [64, 64]),  # 128 / 100 and 256 / 200 -> 128 x 256
        (0.51, (64, 64), [100, 200], [16, 32]),  # 32.64 is rounded down to 32; 32 / 200
        (0.001, (64, 64), [100, 200], [1, 1]),  # at least one pixel
    ],
)
def test_jitter_golden(factor, target_size, size, scaled_size):
    results = [jitter((100, 200), (3, i), factors=(factor, factor), target_size=target_size) for i in range(60)]
    for _, shown, scaled in results:
        assert (shown.tolist(), scaled.tolist()) == (size, scaled_size)
    offsets, most = np.array([offset for offset, _, _ in results]), np.array([100, 200]) - size
    assert np.all(offsets >= 0) and np.all(offsets <= most)
    assert np.all(offsets.max(0) >= 0.85 * most)  # offsets cover the whole range


def test_factors_are_uniform():
    scaled = [jitter((64, 64), (1, i), factors=(0.5, 1.0), image_size=(640, 640))[2][0] for i in range(400)]
    np.testing.assert_allclose(np.quantile(scaled, [0.25, 0.5, 0.75]), [400, 480, 560], atol=20)


@tf.function(
    input_signature=[
        {
            "image": tf.TensorSpec([None, None, 3], tf.uint8),
            "boxes_norm": tf.TensorSpec([None, 4], tf.float32),
            "classes": tf.TensorSpec([None], tf.int32),
        },
        tf.TensorSpec([2], tf.int32),
    ]
)
def augment(sample, seed):
    flipped = random_flip(sample, seed)
    sizes = {"image_size": (64, 64), "target_size": (64, 64), "keep_aspect_ratio": True}
    window = random_window(tf.shape(flipped["image"])[:2], seed, **sizes, jitter_min=0.1, jitter_max=2.0)
    return flipped | {"window": tf.stack(window)}


@settings(max_examples=15)
@given(samples(), SEEDS)
def test_equal_seeds_give_equal_results_eagerly_and_in_tf_data(sample, seed):
    eager = augment.python_function(sample, tf.constant(seed))
    assert_equal(augment.python_function(sample, tf.constant(seed)), eager)
    assert_equal(next(iter(tf.data.Dataset.from_tensors((sample, seed)).map(augment))), eager)
