# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of boxes: IoU variants by hand and against published values, encode and decode, gradients."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from efficientdet import boxes


@st.composite
def box_arrays(draw, count=5):
    """[count, 4] float32 with corners in [0, 2000] and sides in [1, 1000]."""
    corners = draw(hnp.arrays(np.float32, (count, 2), elements=st.floats(0, 1000, width=32)))
    sides = draw(hnp.arrays(np.float32, (count, 2), elements=st.floats(1, 1000, width=32)))
    return np.concatenate([corners, corners + sides], -1)


@pytest.mark.parametrize(
    "kind, box, other, expected",
    [
        # By hand: intersection 1, union 7, hull 9, squared distance 2, squared diagonal 18.
        ("iou", [0, 0, 2, 2], [1, 1, 3, 3], 1 / 7),
        ("giou", [0, 0, 2, 2], [1, 1, 3, 3], 1 / 7 - 2 / 9),
        ("diou", [0, 0, 2, 2], [1, 1, 3, 3], 1 / 7 - 2 / 18),
        ("ciou", [0, 0, 2, 2], [1, 1, 3, 3], 1 / 7 - 2 / 18),  # equal aspect ratios
        # A box without area: union 4, hull 9, squared distance 8, squared diagonal 18.
        ("iou", [-1, -1, -1, -1], [0, 0, 2, 2], 0),
        ("giou", [-1, -1, -1, -1], [0, 0, 2, 2], -5 / 9),
        ("diou", [-1, -1, -1, -1], [0, 0, 2, 2], -8 / 18),
        ("giou", [0, 0, 0, 0], [0, 0, 0, 0], 0),
        # A negative width counts as 0: DIoU -4 / 8, v = 4 / pi**2 * (pi / 4)**2 = 1 / 4, w = v / (1 + v) = 1 / 5.
        ("ciou", [0, 0, 2, -2], [0, 0, 2, 2], -1 / 2 - 1 / 20),
        ("ciou", [0, 0, 2, 2], [0, 0, -2, 2], -1 / 2 - 1 / 20),
        # Published values, 1 - loss.
        ("iou", [4, 3, 7, 5], [3, 4, 6, 8], 1 - 0.875),
        ("giou", [4, 3, 7, 5], [3, 4, 6, 8], 1 - 1.075),
        ("diou", [4, 3, 7, 5], [3, 4, 6, 8], 1 - 0.9969512),
        ("ciou", [4, 3, 7, 5], [3, 4, 6, 8], 1 - 0.99931306),
        ("iou", [5, 6, 10, 7], [14, 14, 15, 15], 0),
        ("giou", [5, 6, 10, 7], [14, 14, 15, 15], 1 - 1.933333),
        ("diou", [5, 6, 10, 7], [14, 14, 15, 15], 1 - 1.6243094),
        ("ciou", [5, 6, 10, 7], [14, 14, 15, 15], 1 - 1.6415315),
    ],
)
def test_iou_variants_golden(kind, box, other, expected):
    metric = boxes.IOU_TYPES[kind](tf.constant([box], tf.float32), tf.constant([other], tf.float32))
    np.testing.assert_allclose(metric, [expected], atol=1e-6)


@pytest.mark.parametrize("kind", boxes.IOU_TYPES)
@given(a=box_arrays(), b=box_arrays())
def test_iou_variants_are_symmetric_and_bounded(kind, a, b):
    metric = boxes.IOU_TYPES[kind](a, b).numpy()
    np.testing.assert_allclose(metric, boxes.IOU_TYPES[kind](b, a), atol=1e-5)
    np.testing.assert_allclose(boxes.IOU_TYPES[kind](a, a), np.ones(len(a)), atol=1e-5)
    assert np.all(metric <= 1 + 1e-5) and np.all(metric >= {"iou": 0, "ciou": -2}.get(kind, -1) - 1e-5)


@given(box_arrays(3), box_arrays(4))
def test_iou_broadcasts_to_every_pair(a, b):
    pairs = boxes.iou(a[:, np.newaxis], b)
    assert pairs.shape == (3, 4)
    np.testing.assert_array_equal(pairs[1], boxes.iou(np.repeat(a[1:2], 4, 0), b))


@given(box_arrays(3), box_arrays(4))
def test_numpy_iou_equals_iou(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    np.testing.assert_allclose(boxes.numpy_iou(a, b[:3]), boxes.iou(a, b[:3]), rtol=0, atol=1e-15)
    np.testing.assert_array_equal(boxes.numpy_iou(a[:, None], b)[2], boxes.numpy_iou(a[2], b))


def test_numpy_iou_golden():
    """By hand; half an overlap is exactly 0.5, and boxes without area do not divide by zero."""
    box = np.array([0.0, 0, 10, 10])
    others = np.array([[0.0, 0, 10, 20], [1, 1, 11, 11], [20, 20, 30, 30], [10, 10, 0, 0], [5, 5, 5, 5]])
    np.testing.assert_array_equal(boxes.numpy_iou(box, others), [0.5, 81 / 119, 0, 0, 0])
    np.testing.assert_array_equal(boxes.numpy_iou(others[4], others[3:]), [0, 0])


def test_to_xywh():
    xywh = boxes.to_xywh(np.float32([[10, 20, 40, 60], [-1, -2, 0.5, 0]]))
    assert xywh.dtype == np.float64
    np.testing.assert_array_equal(xywh, [[20, 10, 40, 30], [-2, -1, 2, 1.5]])
    assert boxes.to_xywh(np.empty([0, 4])).shape == (0, 4)


def test_area_of_inverted_boxes_is_zero():
    np.testing.assert_array_equal(boxes.area(tf.constant([[1.0, 2, 4, 7], [4, 7, 1, 2], [4, 2, 1, 7]])), [15, 0, 0])


def test_ciou_gradient_equals_that_of_the_paper():
    """Compares with difference quotients for a constant weight of the aspect penalty."""
    box, other = np.array([10.0, 10, 30, 70]), np.array([12.0, 20, 62, 40])
    variable = tf.constant(box)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        metric = boxes.ciou(variable, tf.constant(other))
    gradient = tape.gradient(metric, variable)

    def penalty(b):  # equation 9
        angles = [np.arctan((x[3] - x[1]) / (x[2] - x[0])) for x in (b, other)]
        return 4 / np.pi**2 * (angles[0] - angles[1]) ** 2

    weight = penalty(box) / (1 - boxes.iou(box, other).numpy() + penalty(box))  # equation 11
    for i, step in enumerate(1e-5 * np.eye(4)):
        quotients = [
            (function(box + step) - function(box - step)) / 2e-5
            for function in (lambda b: boxes.diou(b, other).numpy(), penalty)
        ]
        assert gradient[i].numpy() == pytest.approx(quotients[0] - weight * quotients[1], abs=1e-8)
        assert abs(weight * quotients[1]) > 1e-4  # the gradient of the aspect penalty is not 0


@pytest.mark.parametrize("kind", boxes.IOU_TYPES)
def test_gradients_of_empty_boxes_are_zero(kind):
    zeros = tf.zeros([1, 4])
    with tf.GradientTape() as tape:
        tape.watch(zeros)
        metric = boxes.IOU_TYPES[kind](zeros, tf.zeros([1, 4]))
    np.testing.assert_array_equal(tape.gradient(metric, zeros), np.zeros((1, 4)))


def test_encode_golden():
    # By hand: centers (30, 45) and (20, 40), sizes 40 x 50 and 20 x 40.
    codes = boxes.encode(tf.constant([[10.0, 20, 50, 70]]), tf.constant([[10.0, 20, 30, 60]]))
    np.testing.assert_allclose(codes, [[10 / 20, 5 / 40, np.log(2), np.log(1.25)]], rtol=1e-6)


@given(box_arrays(), box_arrays())
def test_decode_inverts_encode(targets, anchors):
    np.testing.assert_allclose(boxes.decode(boxes.encode(targets, anchors), anchors), targets, atol=0.01, rtol=1e-4)


@pytest.mark.parametrize("code", [90.0, 1e4, 3e38])
def test_decode_and_area_stay_finite(code):
    decoded = boxes.decode(tf.constant([[0.0, 0, code, code]]), tf.constant([[0.0, 0, 1e4, 1e4]]))
    assert np.all(np.isfinite(decoded)) and np.isfinite(boxes.area(decoded)[0])


def test_encode_of_a_box_without_area_is_finite():
    codes = boxes.encode(tf.zeros([1, 4]), tf.constant([[0.0, 0, 8, 8]]))
    np.testing.assert_allclose(codes, [[-0.5, -0.5, np.log(1e-8 / 8), np.log(1e-8 / 8)]], rtol=1e-6)


def test_clip():
    clipped = boxes.clip(tf.constant([[-1.0, -2, 300, 50], [10, 20, 30, 400]]), 100, 200)
    np.testing.assert_array_equal(clipped, [[0, 0, 100, 50], [10, 20, 30, 200]])
