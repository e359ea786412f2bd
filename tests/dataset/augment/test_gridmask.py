# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/augment/gridmask.py: probability of the mask, period, stripe width and angle of the grid."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.augment import gridmask
from dataset.augment.gridmask import grid_mask, random_grid

SEEDS = st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
SIGNATURE = [
    {
        "image": tf.TensorSpec([None, None, 3], tf.uint8),
        "boxes_norm": tf.TensorSpec([None, 4], tf.float32),
        "classes": tf.TensorSpec([None], tf.int32),
        "source_id": tf.TensorSpec([], tf.string),
    },
    tf.TensorSpec([2], tf.int32),
]
MASKED_SEED = [0, 5]  # a seed that masks


def make_sample(height, width, num_boxes=0):
    rng = np.random.RandomState(height + width)
    corners = np.sort(rng.uniform(size=(num_boxes, 2, 2)), axis=1).reshape(-1, 4)
    return {
        "image": tf.constant(rng.randint(1, 256, (height, width, 3)), tf.uint8),
        "boxes_norm": tf.constant(corners, tf.float32),
        "classes": tf.range(1, num_boxes + 1),
        "source_id": tf.constant("7"),
    }


@pytest.fixture
def upright(monkeypatch):
    monkeypatch.setattr(gridmask, "MEAN_DEGREES", 0.0)
    monkeypatch.setattr(gridmask, "STDDEV_DEGREES", 0.0)


@pytest.fixture(scope="module")
def traced():
    return tf.function(grid_mask, input_signature=SIGNATURE)


def gaps(blank):
    """Lengths of the runs of True, and distances of their starts, without runs at the first or last pixel."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], blank, [False]]).astype(int)))
    starts, ends = edges[::2], edges[1::2]
    whole = (starts > 0) & (ends < len(blank))
    return set((ends - starts)[whole]), set(np.diff(starts[starts > 0]))


def test_half_of_the_seeds_mask(traced):
    sample = make_sample(20, 30)
    masked = [bool(tf.reduce_any(traced(sample, [5, i])["image"] == 0)) for i in range(200)]
    assert 80 <= sum(masked) <= 120  # nearly 3 standard deviations; with the published draw it would be 138


@pytest.mark.parametrize("height, width", [(100, 200), (300, 100), (240, 240), (64, 90)])
def test_stripes_golden(upright, height, width):
    """The period is within its range, and stripes are 0.6 of it, which leaves squares of 0.4 of it."""
    low, high = sorted([0.5 * height, 0.3 * width])
    for i in range(20):
        blank = random_grid(tf.constant([height, width]), tf.constant([i, 2])).numpy()[..., 0] == 0
        if not blank.any():  # the image is inside of a stripe
            continue
        np.testing.assert_array_equal(blank, blank.any(1)[:, np.newaxis] & blank.any(0))
        for axis in (0, 1):
            lengths, periods = gaps(blank.any(axis))
            assert len(lengths) <= 1 and len(periods) <= 1
            for period in periods:
                assert int(low) <= period <= high
                assert not lengths or lengths == {period - round(0.6 * period)}


def test_offsets_are_uniform(upright):
    """Each pixel is blank with probability 0.4 * 0.4."""
    grid = tf.function(random_grid)
    share = np.mean([grid(tf.constant([40, 60]), tf.constant([i, 0])) == 0 for i in range(400)], axis=0)
    np.testing.assert_allclose(share.mean(), 0.16, atol=0.015)
    assert share.min() > 0.08 and share.max() < 0.25


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_rotation_is_counterclockwise_about_the_centre(upright, monkeypatch, quarter_turns):
    size, seed = tf.constant([42, 42]), tf.constant([3, 4])
    upright_grid = random_grid(size, seed).numpy()[..., 0]
    monkeypatch.setattr(gridmask, "MEAN_DEGREES", 90.0 * quarter_turns)
    rotated = random_grid(size, seed).numpy()[..., 0]
    np.testing.assert_array_equal(rotated, np.rot90(upright_grid, quarter_turns))
    assert np.any(rotated == 0) and np.any(rotated != np.rot90(rotated, 2))


def test_angles_are_as_published(monkeypatch):
    """10 * N(-1, 1) degrees."""
    angles = []
    rotation = gridmask.geometry.rotation
    monkeypatch.setattr(
        gridmask.geometry, "rotation", lambda angle, size: angles.append(float(angle)) or rotation(angle, size)
    )
    for i in range(100):
        random_grid(tf.constant([4, 4]), tf.constant([i, 1]))
    np.testing.assert_allclose([np.mean(angles), np.std(angles)], [-10, 10], atol=3)


@settings(max_examples=25)
@given(st.integers(1, 60), st.integers(1, 60), SEEDS)
def test_mask_values_are_0_and_1(height, width, seed):
    """Any other value would be the fill value outside of the pattern."""
    mask = random_grid(tf.constant([height, width]), tf.constant(seed))
    assert mask.shape == (height, width, 1) and mask.dtype == tf.uint8
    assert np.all(mask <= 1)


@settings(max_examples=25)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 500), SEEDS)
def test_only_pixels_change_and_equal_seeds_give_equal_results(traced, height, width, num_boxes, seed):
    sample = make_sample(height, width, num_boxes)
    result = grid_mask(sample, tf.constant(seed))
    kept = np.any(result["image"] != 0, axis=-1, keepdims=True)  # no pixel of the sample is black
    np.testing.assert_array_equal(result["image"], np.where(kept, sample["image"], 0))
    again = traced(sample, seed)
    for name in sample:
        np.testing.assert_array_equal(again[name], result[name])
        if name != "image":
            np.testing.assert_array_equal(result[name], sample[name])


@pytest.mark.parametrize("height, width", [(1, 1), (4, 4), (512, 1028), (1028, 512)])
def test_sizes_in_tf_data(traced, height, width):
    sample = make_sample(height, width, 3)
    expected = grid_mask(sample, tf.constant(MASKED_SEED))
    [result] = tf.data.Dataset.from_tensors(sample).map(lambda sample: traced(sample, MASKED_SEED))
    np.testing.assert_array_equal(result["image"], expected["image"])
    if height > 4:
        assert 0.05 < np.mean(result["image"] == 0) < 0.27
