# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of anchors: published boxes and counts, odd sizes, and all forms of aspect ratios."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from efficientdet.anchors import Anchors, concat_levels, feature_sizes, gather_anchors

TRAIN = pathlib.Path(__file__).parents[2] / "testdata" / "train.npz"
DEFAULTS = {"min_level": 3, "max_level": 7, "num_scales": 3, "aspect_ratios": [1.0, 2.0, 0.5], "anchor_scale": 4.0}


def test_published_first_anchors():
    """The first anchors of efficientdet-d0."""
    expected = [
        [-12, -12, 20, 20],
        [-7.3137, -18.6274, 15.3137, 26.6274],
        [-18.6274, -7.3137, 26.6274, 15.3137],
        [-16.1587, -16.1587, 24.1587, 24.1587],
    ]
    np.testing.assert_allclose(Anchors((512, 512), **DEFAULTS).boxes[:4], expected, atol=1e-4)


@pytest.mark.parametrize(
    "size, max_level, count",
    [(512, 7, 49_104), (640, 7, 76_725), (768, 7, 110_484), (1536, 7, 441_936), (1536, 8, 442_260), (320, 7, 19_206)],
)
def test_published_counts(size, max_level, count):
    anchors = Anchors((size, size), **{**DEFAULTS, "max_level": max_level})
    assert anchors.boxes.shape == (count, 4) and anchors.boxes.dtype == np.float32
    assert sum(h * w for h, w in anchors.feat_sizes) * anchors.num_anchors_per_location == count


@pytest.mark.parametrize(
    "name, image_size, changes",
    [
        ("512", (512, 512), {}),
        ("1920x1280", (1280, 1920), {}),
        (
            "300x200",
            (200, 300),
            {
                "num_scales": 2,
                "aspect_ratios": [[1.4, 0.7], [1.0, 1.0], [0.7, 1.4]],
                "anchor_scale": [3.0, 4.0, 4.0, 4.0, 5.0],
            },
        ),
        ("d7x-1536", (1536, 1536), {"max_level": 8}),
    ],
)
def test_published_anchors(name, image_size, changes):
    train = np.load(TRAIN)
    boxes = Anchors(image_size, **{**DEFAULTS, **changes}).boxes
    assert len(boxes) == train[f"anchors/{name}/count"]
    sample = boxes[train[f"anchors/{name}/sample_index"]]
    np.testing.assert_allclose(sample, train[f"anchors/{name}/sample"], atol=1e-4)


@given(st.integers(32, 2048), st.integers(32, 2048), st.integers(3, 8))
def test_centers_fill_the_image(height, width, level):
    """Centers start half a stride from the border and are one stride apart, one per cell, at any image size."""
    one = {"num_scales": 1, "aspect_ratios": [1.0], "anchor_scale": 1.0}
    anchors = Anchors((height, width), min_level=level, max_level=level, **one)
    ((rows, columns),) = anchors.feat_sizes
    ys = np.arange(height / rows / 2, height, height / rows)
    xs = np.arange(width / columns / 2, width, width / columns)
    assert (len(ys), len(xs)) == (rows, columns)
    centers = (anchors.boxes[:, :2] + anchors.boxes[:, 2:]) / 2
    np.testing.assert_allclose(centers, np.stack(np.meshgrid(ys, xs, indexing="ij"), -1).reshape(-1, 2), atol=1e-3)


def test_feature_sizes_of_odd_images():
    assert feature_sizes((640, 300), 7) == [
        *[(640, 300), (320, 150), (160, 75), (80, 38), (40, 19), (20, 10), (10, 5), (5, 3)]
    ]


def test_aspect_ratio_pairs_are_width_and_height_factors():
    config = {**DEFAULTS, "max_level": 3, "num_scales": 1, "aspect_ratios": [(1.4, 0.7), [1.0, 1.0], 4.0]}
    boxes = Anchors((8, 8), **config).boxes  # one location, stride 8, side 32
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], [[22.4, 44.8], [32, 32], [16, 64]], rtol=1e-6)


def test_anchor_scale_per_level():
    config = {**DEFAULTS, "max_level": 4, "num_scales": 1, "aspect_ratios": [1.0]}
    boxes = Anchors((16, 16), **{**config, "anchor_scale": (2.0, 3.0)}).boxes
    np.testing.assert_allclose(boxes[:, 2] - boxes[:, 0], [16] * 4 + [48], rtol=1e-6)
    with pytest.raises(ValueError, match=r"one per level \(2 for levels 3 to 4\), got 3"):
        Anchors((16, 16), **{**config, "anchor_scale": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="a number or a pair"):
        Anchors((16, 16), **{**config, "aspect_ratios": [(1.0, 2.0, 3.0)]})


def test_concat_levels_follows_the_order_of_anchors():
    anchors = Anchors((64, 40), **DEFAULTS)
    maps, start = [], 0
    for height, width in anchors.feat_sizes:
        stop = start + height * width * 9
        maps.append(tf.reshape(tf.constant(anchors.boxes[start:stop]), [1, height, width, 36]))
        start = stop
    np.testing.assert_array_equal(concat_levels(maps, 4)[0], anchors.boxes)


def test_gather_anchors_equals_rows_of_concat_levels():
    rng = np.random.RandomState(0)
    maps = [tf.constant(rng.rand(2, height, width, 9 * 5)) for height, width in [(4, 3), (2, 2), (1, 1)]]
    num_anchors = (12 + 4 + 1) * 9
    indices = np.stack([rng.permutation(num_anchors), np.arange(num_anchors)])  # includes the borders of levels
    rows = gather_anchors(maps, tf.constant(indices, tf.int32), 5)
    expected = concat_levels(maps, 5).numpy()
    np.testing.assert_array_equal(rows, [expected[0][indices[0]], expected[1]])
