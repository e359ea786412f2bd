# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/augment/mosaic.py: images fill their corners, and boxes follow pixels."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.augment.mosaic import mosaic

SEEDS = st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))
SAMPLE = {
    "image": tf.TensorSpec([None, None, 3], tf.uint8),
    "boxes_norm": tf.TensorSpec([None, 4], tf.float32),
    "classes": tf.TensorSpec([None], tf.int32),
    "is_crowd": tf.TensorSpec([None], tf.bool),
    "area": tf.TensorSpec([None], tf.float32),
    "source_id": tf.TensorSpec([], tf.string),
    "height": tf.TensorSpec([], tf.int32),
    "width": tf.TensorSpec([], tf.int32),
}


@functools.cache
def graph(image_size, keep_aspect_ratio=True):
    """One graph per image_size and keep_aspect_ratio, for samples of any shapes."""

    @tf.function(input_signature=[[SAMPLE] * 4, tf.TensorSpec([2], tf.int32)])
    def run(samples, seed):
        return mosaic(samples, seed, image_size=image_size, keep_aspect_ratio=keep_aspect_ratio)

    return run


def traced(image_size, keep_aspect_ratio=True):
    run = graph(image_size, keep_aspect_ratio)
    return lambda samples, seed: {name: column.numpy() for name, column in run(samples, tf.constant(seed)).items()}


def sample(image, boxes=(), source_id="1"):
    """A Sample of an image with boxes in pixels, and classes 1, 2, ..."""
    height, width = image.shape[:2]
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    return {
        "image": tf.constant(image, tf.uint8),
        "boxes_norm": tf.constant(boxes / np.array([height, width] * 2, np.float32)),
        "classes": tf.range(1, len(boxes) + 1),
        "is_crowd": tf.range(len(boxes)) % 2 == 1,
        "area": tf.fill([len(boxes)], -7.0),
        "source_id": tf.constant(source_id),
        "height": tf.constant(height),
        "width": tf.constant(width),
    }


def gray(size, value, boxes=(), source_id="1"):
    return sample(np.full([*size, 3], value, np.uint8), boxes, source_id)


@st.composite
def samples_of_any_kind(draw):
    def one(i):
        (height, width), num_boxes = draw(SIZES), draw(st.sampled_from([0, 1, 2, 17, 500]))
        rng = np.random.RandomState(draw(st.integers(0, 2**31)))
        corners = np.sort(rng.uniform(size=(num_boxes, 2, 2)), axis=1).reshape(-1, 4)
        image = rng.randint(0, 256, (height, width, 3))
        return sample(image, corners * [height, width, height, width], source_id=f"image {i}")

    return [one(i) for i in range(4)]


def corners_of(image, values):
    """The corners [ymin, xmin, ymax, xmax] of a mosaic of four grey images; asserts that the images fill them."""
    height, width = image.shape[:2]
    y, x = (image[:, 0, 0] == values[0]).sum(), (image[0, :, 0] == values[0]).sum()
    corners = [(0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width)]
    for value, (top, left, bottom, right) in zip(values, corners, strict=True):
        assert bottom > top and right > left and np.all(image[top:bottom, left:right] == value)
    return corners


@given(st.lists(SIZES, min_size=4, max_size=4), SEEDS, st.sampled_from([(64, 64), (40, 97), (3, 2)]))
def test_images_fill_their_corners(sizes, seed, image_size):
    values = [10, 90, 170, 250]
    full = [gray(size, value, [[0, 0, *size]]) for size, value in zip(sizes, values, strict=True)]
    result = traced(image_size)(full, seed)
    assert result["image"].shape == (*image_size, 3) and result["image"].dtype == np.uint8
    corners = corners_of(result["image"], values)
    y, x = corners[0][2:]
    assert image_size[0] / 4 <= y <= 0.75 * image_size[0] and image_size[1] / 4 <= x <= 0.75 * image_size[1]
    # The box around the whole image becomes the box of the corner.
    np.testing.assert_allclose(result["boxes_norm"] * [*image_size, *image_size], corners, atol=1e-4)
    np.testing.assert_allclose(
        result["area"], [(ymax - ymin) * (xmax - xmin) for ymin, xmin, ymax, xmax in corners], rtol=1e-5
    )
    assert (result["height"], result["width"]) == image_size


@settings(max_examples=100)
@given(st.data(), SIZES.filter(lambda size: min(size) >= 4), SEEDS, st.integers(0, 3))
def test_boxes_follow_pixels(data, size, seed, corner):
    top, left = (data.draw(st.integers(0, side - 2)) for side in size)
    bottom, right = data.draw(st.integers(top + 2, size[0])), data.draw(st.integers(left + 2, size[1]))
    image = np.zeros([*size, 3], np.uint8)
    image[top:bottom, left:right] = 255
    others = [gray((9, 9), 0)] * 3
    result = traced((120, 150))([*others[:corner], sample(image, [[top, left, bottom, right]]), *others[corner:]], seed)
    box = result["boxes_norm"][0] * [120, 150, 120, 150]
    rows, columns = (np.flatnonzero(result["image"][..., 0].max(axis=axis) > 127) for axis in (1, 0))
    if np.min(box[2:] - box[:2]) >= 2:  # a narrower one may fall between the sampled pixels
        found = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
        np.testing.assert_allclose(box, found, atol=1.01)
    elif len(rows):
        assert rows[0] >= box[0] - 1.01 and rows[-1] + 1 <= box[2] + 1.01
        assert columns[0] >= box[1] - 1.01 and columns[-1] + 1 <= box[3] + 1.01


@settings(max_examples=25)
@given(samples_of_any_kind(), SEEDS)
def test_columns_are_aligned_and_boxes_in_their_corner(samples, seed):
    result = traced((64, 64))(samples, seed)
    counts = [len(sample["classes"]) for sample in samples]
    for name in ("classes", "is_crowd"):
        np.testing.assert_array_equal(result[name], np.concatenate([sample[name] for sample in samples]))
    boxes, area = result["boxes_norm"], result["area"]
    assert boxes.shape == (sum(counts), 4) and area.shape == (sum(counts),)
    assert np.all(boxes >= 0) and np.all(boxes <= 1)
    np.testing.assert_allclose(area, np.prod(boxes[:, 2:] - boxes[:, :2], -1) * 64 * 64, atol=1e-2)
    assert np.all((area > 0) | np.all(boxes == 0, axis=-1))
    by_image = [part[part[:, 2] > 0] for part in np.split(boxes, np.cumsum(counts)[:-1])]
    for first, second, axis in ((0, 1, 1), (2, 3, 1), (0, 2, 0), (1, 3, 0)):
        assert by_image[first][:, axis + 2].max(initial=0) <= by_image[second][:, axis].min(initial=1)
    assert result["source_id"] == b"image 0+image 1+image 2+image 3"


@settings(max_examples=5)
@given(samples_of_any_kind(), SEEDS)
def test_equal_seeds_give_equal_results_eager_traced_and_in_tf_data(samples, seed):
    eager = mosaic(samples, tf.constant(seed), image_size=(50, 70), keep_aspect_ratio=True)
    dataset = tf.data.Dataset.from_tensors((tuple(samples), seed))
    inside = next(iter(dataset.map(lambda samples, seed: graph((50, 70))(list(samples), seed))))
    for other in (traced((50, 70))(samples, seed), inside):
        assert other.keys() == eager.keys() == SAMPLE.keys()
        for name in eager:
            assert eager[name].dtype == SAMPLE[name].dtype
            if name in ("boxes_norm", "area"):  # graphs multiply by the reciprocal instead of dividing
                np.testing.assert_allclose(other[name], eager[name], rtol=1e-6, err_msg=name)
            else:
                np.testing.assert_array_equal(other[name], eager[name], err_msg=name)


def test_golden():
    """By hand: 2 x 2 pixels can only be split in the middle, so every corner is one pixel."""
    images = [
        sample(np.array([[[0, 1, 2]]]), [[0, 0, 1, 1]]),
        # The window is the whole image, resized to one pixel: the mean, 2.75, is rounded.
        sample(np.array([[[0], [4]], [[2], [5]]]) * [1, 1, 1], [[0, 0, 1, 2], [0, 0, 2, 1], [2, 2, 2, 2]]),
        gray((7, 3), 9),
        gray((1, 6), 200, [[0, 0, 1, 6]]),
    ]
    result = mosaic(images, tf.constant([3, 4]), image_size=(2, 2), keep_aspect_ratio=True)
    np.testing.assert_array_equal(result["image"], [[[0, 1, 2], [3, 3, 3]], [[9, 9, 9], [200, 200, 200]]])
    np.testing.assert_allclose(
        result["boxes_norm"],
        [[0, 0, 0.5, 0.5], [0, 0.5, 0.25, 1], [0, 0.5, 0.5, 0.75], [0, 0, 0, 0], [0.5, 0.5, 1, 1]],
    )
    np.testing.assert_allclose(result["area"], [1, 0.5, 0.5, 0, 1])
    np.testing.assert_array_equal(result["classes"], [1, 1, 2, 3, 1])
    np.testing.assert_array_equal(result["is_crowd"], [False, False, True, False, False])


def test_objects_outside_of_the_window_keep_their_row_with_an_empty_box():
    """The corner shows a small part of a wide image with ten objects side by side."""
    strip = gray((20, 2000), 9, [[0, 200 * i, 20, 200 * i + 20] for i in range(10)])
    result = traced((64, 64))([gray((1, 1), 0)] * 3 + [strip], (5, 6))
    shown = result["area"] > 0
    assert shown.sum() <= 1 and result["boxes_norm"].shape == (10, 4)
    np.testing.assert_array_equal(result["boxes_norm"][~shown], 0)


@given(st.tuples(st.integers(30, 90), st.integers(30, 90)), SEEDS)
def test_the_aspect_ratio_is_kept(size, seed):
    """Both sides of the unclipped boxes of a grid are scaled by the same factor."""
    grid = [[y, x, y + 5, x + 5] for y in range(0, size[0] - 4, 5) for x in range(0, size[1] - 4, 5)]
    result = traced((200, 200))([gray(size, 0, grid)] + [gray((1, 1), 0)] * 3, seed)
    sides = (result["boxes_norm"][:, 2:] - result["boxes_norm"][:, :2]) * 200
    unclipped = sides[np.all(sides > sides.max(axis=0) - 1e-3, axis=-1)]
    # The shortest window side, 10 of 30 pixels in a corner of 50 x 150, is rounded by up to half a pixel.
    np.testing.assert_allclose(unclipped[:, 0] / unclipped[:, 1], 1, atol=0.06)


@given(st.tuples(st.integers(30, 90), st.integers(30, 90)), SEEDS)
def test_without_it_the_aspect_ratio_is_that_of_the_stretched_image(size, seed):
    """Boxes of a grid have the sides of the whole image stretched to the mosaic, times a common factor."""
    grid = [[y, x, y + 5, x + 5] for y in range(0, size[0] - 4, 5) for x in range(0, size[1] - 4, 5)]
    result = traced((200, 120), False)([gray(size, 0, grid)] + [gray((1, 1), 0)] * 3, seed)
    sides = (result["boxes_norm"][:, 2:] - result["boxes_norm"][:, :2]) * size  # 5 pixels each in the stretched image
    unclipped = sides[np.all(sides > sides.max(axis=0) - 1e-3, axis=-1)]
    # The shortest window side, 10 of 30 pixels, is rounded by up to half a pixel.
    np.testing.assert_allclose(unclipped[:, 0] / unclipped[:, 1], 1, atol=0.06)


def test_split_points_and_windows_cover_their_range():
    ramp = np.broadcast_to(np.arange(200)[None, :, None], (20, 200, 3))  # the first value of a window is its left edge
    samples = [gray((1, 1), 255), gray((1, 1), 254), gray((1, 1), 253), sample(ramp)]
    splits, starts = [], []
    for i in range(300):
        image = traced((80, 80))(samples, (11, i))["image"][..., 0]
        splits.append([(image[:, 0] == 255).sum(), (image[0] == 255).sum()])
        starts.append(image[-1, splits[-1][1]])
    np.testing.assert_allclose(
        np.quantile(splits, [0, 0.25, 0.5, 0.75, 1], axis=0).T, [[20, 30, 40, 50, 60]] * 2, atol=4
    )
    assert np.corrcoef(np.transpose(splits))[0, 1] < 0.2  # the axes are independent
    # The window is 7 to 60 pixels wide, so the starts are spread over 0 to at most 193.
    assert min(starts) <= 3 and max(starts) >= 175 and 75 <= np.median(starts) <= 105


@pytest.mark.parametrize(
    "count, image_size, message",
    [
        (3, (64, 64), "a mosaic needs 4 samples, got 3"),
        (4, (1, 64), r"at least 2 pixels per side, got image_size \(1, 64\)"),
    ],
)
def test_messages_for_invalid_arguments(count, image_size, message):
    with pytest.raises(ValueError, match=message):
        mosaic([gray((4, 4), 0)] * count, tf.constant([0, 0]), image_size=image_size, keep_aspect_ratio=True)
