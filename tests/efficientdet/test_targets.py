# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of targets: published assignments, the rules by hand, and comparison with plain implementations."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from efficientdet import boxes as box_ops
from efficientdet.anchors import Anchors
from efficientdet.targets import AnchorLabeler

TESTDATA = pathlib.Path(__file__).parents[2] / "testdata"
DEFAULTS = {"min_level": 3, "max_level": 7, "num_scales": 3, "aspect_ratios": [1.0, 2.0, 0.5], "anchor_scale": 4.0}
NO_BOXES = (np.zeros((0, 4), np.float32), np.zeros(0, np.int32))


def labeler(size=128):
    return AnchorLabeler(Anchors((size, size), **DEFAULTS))


def flat(cls_targets, box_targets):
    """Concatenates the targets of all levels to [N] and [N, 4]."""
    return (
        np.concatenate([level.numpy().ravel() for level in cls_targets]),
        np.concatenate([level.numpy().reshape(-1, 4) for level in box_targets]),
    )


def iou(a, b):
    height, width = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    overlap = max(height, 0) * max(width, 0)
    return overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap)


def test_published_labels():
    labels = json.loads((TESTDATA / "numbers.json").read_text())["labels"]
    cls_targets, box_targets, num_positives = labeler().label(
        tf.constant(labels["gt_boxes"]), tf.constant(labels["gt_classes"])
    )
    assert num_positives == labels["num_positives"]
    for level, cls_target, box_target in zip("34567", cls_targets, box_targets):
        expected = {tuple(anchor["yxa"]): anchor for anchor in labels["positives"][level]}
        assert {tuple(index) for index in np.argwhere(cls_target.numpy() >= 0)} == set(expected)
        codes = box_target.numpy().reshape(*cls_target.shape, 4)
        for index, anchor in expected.items():
            assert cls_target.numpy()[index] == anchor["cls"]
            np.testing.assert_allclose(codes[index], anchor["box"], atol=1e-6)
            codes[index] = 0
        assert not codes.any()  # background is exactly 0


def test_published_batch():
    """The three images of the published training step; the last one has no boxes."""
    train = np.load(TESTDATA / "train.npz")
    images = [
        (
            [[30, 40, 120, 200], [10, 10, 60, 50], [100, 120, 250, 250], [5, 180, 40, 240], [140, 8, 180, 30]],
            [1, 17, 90, 3, 44],
        ),
        ([[64, 64, 192, 192]], [62]),
    ]
    labels = [labeler(256).label(tf.constant(b, tf.float32), tf.constant(c)) for b, c in images]
    labels.append(labeler(256).label(*NO_BOXES))
    np.testing.assert_array_equal([label[2] for label in labels], train["default/num_positives"])
    for i, level in enumerate("34567"):
        cls_targets = np.stack([label[0][i] for label in labels])
        box_targets = np.stack([label[1][i] for label in labels])
        assert cls_targets.min() == -1 and box_targets.shape == tuple(train[f"box_targets_{level}_shape"])
        np.testing.assert_array_equal(np.argwhere(cls_targets >= 0), train[f"cls_targets_{level}_positive_index"])
        np.testing.assert_array_equal(cls_targets[cls_targets >= 0], train[f"cls_targets_{level}_positive_value"])
        np.testing.assert_allclose(box_targets[box_targets != 0], train[f"box_targets_{level}_nonzero"], atol=1e-6)


def test_no_boxes():
    cls_targets, box_targets, num_positives = labeler().label(*NO_BOXES)
    assert [level.shape for level in cls_targets] == [(s, s, 9) for s in (16, 8, 4, 2, 1)]
    assert [level.shape for level in box_targets] == [(s, s, 36) for s in (16, 8, 4, 2, 1)]
    cls_flat, box_flat = flat(cls_targets, box_targets)
    assert cls_flat.dtype == np.int32 and set(cls_flat) == {-1} and not box_flat.any() and num_positives == 0


def test_a_box_below_the_threshold_has_its_best_anchor():
    anchors = labeler().anchors
    cls_flat, box_flat = flat(*labeler().label(tf.constant([[60.0, 60, 64, 66]]), tf.constant([3]))[:2])
    (index,) = np.flatnonzero(cls_flat >= 0)
    overlaps = [iou(box, [60, 60, 64, 66]) for box in anchors.boxes]
    assert cls_flat[index] == 2 and index == np.argmax(overlaps) and overlaps[index] < 0.5
    assert box_flat[index].all()


def test_the_first_of_two_boxes_gets_their_common_best_anchor():
    anchor = labeler().anchors.boxes[500]
    near, exact = anchor + np.array([0, 0, 1, 0]), anchor  # although the IoU of the second is higher
    cls_flat, _ = flat(*labeler().label(tf.constant([near, exact], tf.float32), tf.constant([7, 8]))[:2])
    assert cls_flat[500] == 6
    cls_flat, _ = flat(*labeler().label(tf.constant([exact, near], tf.float32), tf.constant([8, 7]))[:2])
    assert cls_flat[500] == 7


@given(st.lists(st.tuples(*[st.integers(0, 56)] * 2, *[st.integers(1, 64)] * 2, st.integers(1, 9)), max_size=4))
def test_equals_a_plain_assignment(objects):
    """Applies the rules in NumPy; with integer coordinates, both compute the same IoUs."""
    boxes = np.array([[y, x, y + h, x + w] for y, x, h, w, _ in objects], np.float32).reshape(-1, 4)
    classes = np.array([o[4] for o in objects], np.int32)
    small = AnchorLabeler(Anchors((64, 64), **{**DEFAULTS, "num_scales": 1, "aspect_ratios": [1.0]}))
    overlaps = np.array([[iou(box, anchor) for box in boxes] for anchor in small.anchors.boxes.tolist()])
    expected = np.full(len(overlaps), -1)
    if objects:
        expected[:] = np.where(overlaps.max(1) >= 0.5, classes[overlaps.argmax(1)] - 1, -1)
        for k in reversed(range(len(objects))):  # so that the first box is written last
            expected[overlaps[:, k].argmax()] = classes[k] - 1
    cls_targets, box_targets, num_positives = small.label(boxes, classes)
    cls_flat, box_flat = flat(cls_targets, box_targets)
    np.testing.assert_array_equal(cls_flat, expected)
    assert num_positives == np.sum(expected >= 0) and not box_flat[expected < 0].any()


def dense_match(anchors, boxes, threshold=0.5):
    """Returns the box of every anchor or -1, [N], from the matrix of all IoUs."""
    num_boxes = len(boxes)
    overlaps = np.pad(box_ops.iou(boxes[:, np.newaxis], anchors.boxes).numpy(), [[0, 1], [0, 0]])
    matches = np.where(overlaps.max(0) >= threshold, overlaps.argmax(0), -1)
    for k in reversed(range(num_boxes)):
        matches[overlaps[k].argmax()] = k
    return matches


@pytest.mark.parametrize("num_boxes", [0, 1, 13, 100, 500])
@pytest.mark.parametrize(
    "change, threshold",
    [
        ({}, 0.5),
        ({}, 0.35),
        ({}, 0.8),
        ({}, 1.0),
        ({"anchor_scale": 0.5}, 0.5),
        ({"anchor_scale": 0.5}, 0.05),
        ({"num_scales": 2, "aspect_ratios": [1.0, [1.4, 0.7]]}, 0.5),
    ],
)
def test_equals_the_matrix_of_all_ious(num_boxes, change, threshold):
    """Bit for bit, including ties broken by rounding; some boxes overlap no small anchor."""
    rng = np.random.RandomState(num_boxes)
    anchors = Anchors((160, 96), **{**DEFAULTS, **change})
    size = np.tile(anchors.image_size, 2)
    match = tf.function(AnchorLabeler(anchors, threshold).match, input_signature=[tf.TensorSpec([None, 4])])
    corners = np.sort(rng.uniform(size=(num_boxes, 2, 2)), 1).reshape(-1, 4) * size
    centers, sides = rng.uniform(size=(2, num_boxes, 2)) * size[:2]
    near_anchors = np.clip(np.concatenate([centers - sides / 4, centers + sides / 4], 1), 0, size)
    whole_pixels = np.round(near_anchors) + np.array([0, 0, 1, 1])
    for boxes in (corners, near_anchors, whole_pixels):
        boxes = boxes.astype(np.float32)
        matches = np.full(len(anchors.boxes), -1)
        positives, matched = match(boxes)
        matches[positives] = matched
        np.testing.assert_array_equal(matches, dense_match(anchors, boxes, threshold))


def test_eager_equals_function_equals_dataset():
    boxes, classes = np.array([[10, 20, 50, 70], [0, 0, 127, 127]], np.float32), np.array([1, 2], np.int32)
    label = labeler().label
    signature = [tf.TensorSpec([None, 4]), tf.TensorSpec([None], tf.int32)]
    in_function = tf.function(label, input_signature=signature)(boxes, classes)
    dataset = tf.data.Dataset.from_tensors((boxes, classes)).map(
        lambda b, c: label(tf.ensure_shape(b, [None, 4]), tf.ensure_shape(c, [None]))
    )
    in_dataset = next(iter(dataset))
    for others in (in_function, in_dataset):
        for ours, theirs in zip(tf.nest.flatten(label(boxes, classes)), tf.nest.flatten(others)):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert [level.shape[-1] for level in dataset.element_spec[1]] == [36] * 5  # static, for the batch
