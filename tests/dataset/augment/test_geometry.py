# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/augment/geometry.py: pixels agree with TensorFlow Addons, and boxes follow pixels."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataset.augment import geometry
from dataset.augment.geometry import GREY

# Name -> (amount, [height, width]) -> matrix; an amount of 1 is a large transform.
TRANSFORMS = {
    "rotate": lambda amount, image_hw: geometry.rotation(90 * amount, image_hw),
    "shear_x": lambda amount, image_hw: geometry.shear(x=amount),
    "shear_y": lambda amount, image_hw: geometry.shear(y=amount),
    "translate_x": lambda amount, image_hw: geometry.translation(x=30 * amount),
    "translate_y": lambda amount, image_hw: geometry.translation(y=30 * amount),
}
SIDES = st.integers(1, 40)
AMOUNTS = st.floats(-2, 2, width=16)
NAMES = pytest.mark.parametrize("name", TRANSFORMS)


def grey_levels(rows):
    return tf.constant(np.repeat(np.array(rows, np.uint8)[..., np.newaxis], 3, -1))


def warp_image(rows, matrix):
    return geometry.warp_image(grey_levels(rows), matrix).numpy()[..., 0].tolist()


def warp_boxes(box, matrix, image_hw):
    """`geometry.warp_boxes` of one box in pixels."""
    size = np.array(image_hw * 2, np.float32)
    return (geometry.warp_boxes(tf.constant([box], tf.float32) / size, matrix, tf.constant(image_hw))[0] * size).numpy()


ROWS = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize(
    "matrix, expected",
    [  # by hand
        (geometry.rotation(0.0, tf.constant([3, 3])), ROWS),
        (geometry.rotation(90.0, tf.constant([3, 3])), [[3, 6, 9], [2, 5, 8], [1, 4, 7]]),  # counterclockwise
        (geometry.rotation(180.0, tf.constant([3, 3])), [[9, 8, 7], [6, 5, 4], [3, 2, 1]]),
        (geometry.translation(x=1.0), [[GREY, 1, 2], [GREY, 4, 5], [GREY, 7, 8]]),
        (geometry.translation(y=-2.0), [[7, 8, 9], [GREY] * 3, [GREY] * 3]),
        (geometry.translation(x=-9.0), [[GREY] * 3] * 3),
        (geometry.shear(x=1.0), [[1, 2, 3], [5, 6, GREY], [9, GREY, GREY]]),
        (geometry.shear(y=-1.0), [[1, GREY, GREY], [4, 2, GREY], [7, 5, 3]]),
    ],
)
def test_warp_image_golden(matrix, expected):
    assert warp_image(ROWS, matrix) == expected


def test_rotation_keeps_the_size_and_crops():
    # By hand: columns 1 and 2 become rows 1 and 0; columns 0 and 3 leave the image.
    assert warp_image([[1, 2, 3, 4], [5, 6, 7, 8]], geometry.rotation(90.0, tf.constant([2, 4]))) == [
        [GREY, 3, 7, GREY],
        [GREY, 2, 6, GREY],
    ]


@NAMES
def test_pixels_agree_with_tensorflow_addons(name):
    tfa = pytest.importorskip("tensorflow_addons", reason="TensorFlow Addons, the reference, is not installed")
    reference = {
        "rotate": lambda image, amount: tfa.image.rotate(image, np.pi / 180 * 90 * amount, fill_value=GREY),
        "shear_x": lambda image, amount: tfa.image.shear_x(image, amount, GREY),
        "shear_y": lambda image, amount: tfa.image.shear_y(image, amount, GREY),
        "translate_x": lambda image, amount: tfa.image.translate(image, [30 * amount, 0], fill_value=GREY),
        "translate_y": lambda image, amount: tfa.image.translate(image, [0, 30 * amount], fill_value=GREY),
    }[name]

    @settings(max_examples=25)
    @given(SIDES, SIDES, AMOUNTS)
    def agree(height, width, amount):
        image = tf.constant(np.random.RandomState(height * width).randint(0, 256, (height, width, 3)), tf.uint8)
        ours = geometry.warp_image(image, TRANSFORMS[name](amount, tf.constant([height, width])))
        np.testing.assert_array_equal(ours, reference(image, amount))

    agree()


ROOT_8 = 8**0.5  # half of the diagonal of a square with side 4


@pytest.mark.parametrize(
    "box, matrix, expected",
    [  # by hand, [ymin, xmin, ymax, xmax] in pixels of an image of 20 x 40
        ([4, 6, 10, 18], geometry.translation(x=5.0), [4, 11, 10, 23]),
        ([4, 6, 10, 18], geometry.translation(y=-7.0), [0, 6, 3, 18]),  # clipped
        ([4, 6, 10, 18], geometry.translation(y=-10.0), [0, 0, 0, 0]),  # outside of the image
        ([4, 6, 10, 18], geometry.rotation(180.0, tf.constant([20, 40])), [10, 22, 16, 34]),
        ([8, 17, 12, 23], geometry.rotation(90.0, tf.constant([20, 40])), [7, 18, 13, 22]),
        (
            [8, 18, 12, 22],
            geometry.rotation(45.0, tf.constant([20, 40])),
            [10 - ROOT_8, 20 - ROOT_8, 10 + ROOT_8, 20 + ROOT_8],
        ),
        ([4, 6, 10, 18], geometry.shear(x=-1.0), [4, 9.5, 10, 27.5]),  # its edges are 3.5 and 9.5 below row 0
        ([4, 6, 10, 18], geometry.shear(y=0.5), [0, 6, 7.25, 18]),
        ([0, 0, 20, 40], geometry.rotation(30.0, tf.constant([20, 40])), [0, 0, 20, 40]),
        ([5, 5, 5, 9], geometry.rotation(30.0, tf.constant([20, 40])), [0, 0, 0, 0]),  # empty before the transform
    ],
)
def test_warp_boxes_golden(box, matrix, expected):
    np.testing.assert_allclose(warp_boxes(box, matrix, [20, 40]), expected, atol=1e-4)


def test_removed_objects_do_not_reappear():
    sample = {"image": tf.zeros([10, 10, 3], tf.uint8), "boxes_norm": tf.constant([[0.7, 0.2, 0.9, 0.4]])}
    down, up = geometry.translation(y=4.0), geometry.translation(y=-4.0)
    back = geometry.warp(geometry.warp(sample, down), up)
    np.testing.assert_array_equal(back["boxes_norm"], [[0, 0, 0, 0]])
    assert back["image"][:, 0, 0].numpy().tolist() == [0] * 6 + [GREY] * 4


@NAMES
def test_boxes_follow_pixels(name):
    @settings(max_examples=25)
    @given(SIDES, SIDES, AMOUNTS, st.data())
    def follow(height, width, amount, data):
        edges = [sorted((data.draw(st.integers(0, side)), data.draw(st.integers(0, side)))) for side in (height, width)]
        (top, bottom), (left, right) = edges
        image = np.zeros((height, width, 3), np.uint8)
        image[top:bottom, left:right] = 255
        boxes_norm = tf.constant([[top, left, bottom, right]], tf.float32) / [height, width, height, width]
        matrix = TRANSFORMS[name](amount, tf.constant([height, width]))
        warped = geometry.warp({"image": tf.constant(image), "boxes_norm": boxes_norm}, matrix)

        box = warped["boxes_norm"][0].numpy() * [height, width, height, width]
        rows, columns = np.nonzero(warped["image"].numpy()[..., 0] == 255)
        if not rows.size:  # outside, or narrower than a pixel
            assert np.min(box[2:] - box[:2]) <= 1.5
            return
        found = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
        assert np.all(found[:2] >= box[:2] - 0.51) and np.all(found[2:] <= box[2:] + 0.51)  # inside of its box
        corners = np.array([[x - 0.5, y - 0.5, 1] for x in (left, right) for y in (top, bottom)])
        inside = corners @ np.linalg.inv(matrix.numpy().astype(np.float64)).T[:, :2]
        if np.all(inside >= -0.5) and np.all(inside <= [width - 0.5, height - 0.5]):  # fills it if not clipped
            np.testing.assert_allclose(found, box, atol=2.0)

    follow()


@pytest.mark.parametrize("num_boxes", [0, 1, 500])
def test_boxes_keep_their_order_and_range(num_boxes):
    corners = np.sort(np.random.RandomState(0).uniform(size=(num_boxes, 2, 2)), 1).reshape(-1, 4)
    boxes_norm = tf.constant(corners, tf.float32)
    for transform in TRANSFORMS.values():
        identity = geometry.warp_boxes(boxes_norm, transform(0.0, tf.constant([30, 50])), tf.constant([30, 50]))
        visible = np.min(corners[:, 2:] - corners[:, :2], axis=-1) > 1e-3  # all but the narrowest
        np.testing.assert_allclose(identity.numpy()[visible], corners[visible], atol=1e-6)
        moved = geometry.warp_boxes(boxes_norm, transform(0.4, tf.constant([30, 50])), tf.constant([30, 50]))
        assert moved.shape == (num_boxes, 4)
        assert np.all(moved >= 0) and np.all(moved <= 1) and np.all(moved[:, 2:] >= moved[:, :2])


@settings(max_examples=25)
@example(height=1, width=1, edges=[0, 0, 0, 0])
@given(height=SIDES, width=SIDES, edges=st.lists(st.floats(-0.5, 1.5, width=32), min_size=4, max_size=4))
def test_pasting_a_crop_back_restores_the_image(height, width, edges):
    image = tf.constant(np.random.RandomState(0).randint(0, 256, (height, width, 3)), tf.uint8)
    box = np.sort(np.reshape(edges, [2, 2]), 0).reshape(1, 4)
    top, left, bottom, right = geometry.pixel_windows(tf.constant(box, tf.float32), tf.constant([height, width]))[0]
    assert 0 <= top <= bottom <= height and 0 <= left <= right <= width
    np.testing.assert_array_equal(geometry.paste(image, image[top:bottom, left:right], top, left), image)
    expected = image.numpy()
    expected[top:bottom, left:right] = GREY
    np.testing.assert_array_equal(geometry.grey_out(image, tf.stack([top, left, bottom, right])), expected)


def test_windows_of_whole_pixel_boxes_are_exact():
    """Also if the division is not exact: 0.3 * 10 is above 3 in float32, and its ceiling would be 4."""
    edges = np.array([[i, i, i + 1, i + 1] for i in range(1000)])
    np.testing.assert_array_equal(geometry.pixel_windows(tf.constant(edges / 1000, tf.float32), [1000, 1000]), edges)
