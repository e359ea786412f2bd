# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of losses: published values, comparison with the formulas of the papers, and edge cases."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from efficientdet.anchors import Anchors
from efficientdet.losses import LossOptions, box_iou_loss, box_loss, detection_loss, focal_loss, names
from efficientdet.targets import AnchorLabeler

NUMBERS = pathlib.Path(__file__).parents[2] / "testdata" / "numbers.json"
OPTIONS = LossOptions(
    alpha=0.25, gamma=1.5, label_smoothing=0.0, delta=0.1, box_loss_weight=50.0, iou_loss_type=None, iou_loss_weight=1.0
)
ANCHORS = Anchors((128, 128), min_level=3, max_level=7, num_scales=3, aspect_ratios=[1.0, 2.0, 0.5], anchor_scale=4.0)


@pytest.fixture(scope="module")
def published():
    """Outputs, labels, normalizer and losses of the published case."""
    numbers = json.loads(NUMBERS.read_text())
    rng = np.random.RandomState(7)
    shapes = [(1, h, w, 36) for h, w in ANCHORS.feat_sizes]
    cls_outputs = [tf.constant(rng.standard_normal(shape) * 0.5 - 3, tf.float32) for shape in shapes]
    box_outputs = [tf.constant(rng.standard_normal(shape) * 0.2, tf.float32) for shape in shapes]
    cls_targets, box_targets, num_positives = AnchorLabeler(ANCHORS).label(
        tf.constant(numbers["labels"]["gt_boxes"]), tf.constant(numbers["labels"]["gt_classes"])
    )
    labels = {"cls_targets": [t[tf.newaxis] for t in cls_targets], "box_targets": [t[tf.newaxis] for t in box_targets]}
    return cls_outputs, box_outputs, labels, num_positives + 1, numbers["loss"]


def losses_of(published, **changes):
    cls_outputs, box_outputs, labels, normalizer, _ = published
    return detection_loss(
        cls_outputs,
        box_outputs,
        labels,
        options=OPTIONS._replace(**changes),
        anchors=ANCHORS.boxes,
        normalizer=normalizer,
    )


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_published_losses(published, label_smoothing):
    expected = published[-1]["label_smoothing_0.1"] if label_smoothing else published[-1]
    losses = losses_of(published, label_smoothing=label_smoothing)
    assert set(losses) == {"cls_loss", "box_loss", "det_loss"}
    for ours, theirs in (("cls_loss", "cls"), ("box_loss", "box"), ("det_loss", "total")):
        np.testing.assert_allclose(losses[ours], expected[theirs], rtol=1e-6)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_published_iou_losses(published, kind):
    losses = losses_of(published, iou_loss_type=kind, iou_loss_weight=2.0)
    expected = published[-1][f"tf2_BoxIouLoss_{kind}"]
    np.testing.assert_allclose(losses["box_iou_loss"], expected, rtol=1e-6)
    np.testing.assert_allclose(losses["det_loss"], published[-1]["total"] + 2 * expected, rtol=1e-6)


@pytest.mark.parametrize("alpha, gamma, label_smoothing", [(0.25, 1.5, 0.0), (0.5, 2.0, 0.1), (0.25, 0.0, 0.0)])
def test_focal_loss_equals_the_formula(alpha, gamma, label_smoothing):
    """Compares with equation 5, computed from probabilities in float64."""
    rng = np.random.RandomState(0)
    logits = rng.normal(0, 4, (2, 3, 4, 2 * 5))
    targets = rng.randint(-1, 5, (2, 3, 4, 2))
    y = np.eye(6)[targets][..., :5].reshape(logits.shape)  # the sixth row, also index -1, is background
    p = 1 / (1 + np.exp(-logits))
    smooth = y * (1 - label_smoothing) + 0.5 * label_smoothing
    cross_entropy = -smooth * np.log(p) - (1 - smooth) * np.log(1 - p)
    p_t = y * p + (1 - y) * (1 - p)
    expected = np.sum((y * alpha + (1 - y) * (1 - alpha)) * (1 - p_t) ** gamma * cross_entropy) / 7
    loss = focal_loss(
        tf.constant(logits, tf.float32),
        tf.constant(targets, tf.int32),
        alpha=alpha,
        gamma=gamma,
        label_smoothing=label_smoothing,
        normalizer=7.0,
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_ignored_anchors_have_no_class_loss():
    def loss(targets):
        logits = tf.reshape(tf.range(6.0), [1, 1, 1, 6])
        options = {"alpha": 0.25, "gamma": 1.5, "label_smoothing": 0.0, "normalizer": 1.0}
        return focal_loss(logits, tf.reshape(targets, [1, 1, 1, len(targets)]), **options)

    assert loss([-2, -2]) == 0
    # The loss of two anchors is the sum of their losses.
    np.testing.assert_allclose(loss([1, -2]) + loss([-2, -1]), loss([1, -1]), rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
@pytest.mark.parametrize("logit", [-1e4, -90.0, 0.0, 90.0, 1e4])
def test_focal_loss_and_gradient_are_finite(gamma, logit):
    logits = tf.fill([1, 1, 1, 2], logit)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = focal_loss(
            logits, tf.zeros([1, 1, 1, 1], tf.int32), alpha=0.25, gamma=gamma, label_smoothing=0.1, normalizer=1.0
        )
    assert np.isfinite(loss) and np.all(np.isfinite(tape.gradient(loss, logits)))


def plain_focal_loss(logits, targets, alpha, gamma, label_smoothing, normalizer):
    """Equation 5 in TensorFlow operations with automatic gradients; targets [..., A], -2 is ignored."""
    targets = tf.repeat(targets, logits.shape[-1] // targets.shape[-1], axis=-1)
    classes = tf.range(logits.shape[-1]) % (logits.shape[-1] // 2)  # of two anchors
    y = tf.cast(targets == classes, logits.dtype)
    smooth = y * (1 - label_smoothing) + 0.5 * label_smoothing
    p = tf.sigmoid(logits)
    cross_entropy = -smooth * tf.math.log(p) - (1 - smooth) * tf.math.log(1 - p)
    loss = (y * alpha + (1 - y) * (1 - alpha)) * (y * (1 - p) + (1 - y) * p) ** gamma * cross_entropy
    return tf.reduce_sum(tf.where(targets == -2, tf.zeros_like(loss), loss)) / normalizer


@pytest.mark.parametrize("alpha, gamma, label_smoothing", [(0.25, 1.5, 0.0), (0.5, 2.0, 0.1), (0.25, 0.0, 0.2)])
def test_focal_loss_gradient_equals_that_of_the_formula(alpha, gamma, label_smoothing):
    """Compares with automatic differentiation and with difference quotients of the formula, both in float64."""
    rng = np.random.RandomState(0)
    logits, direction = rng.normal(0, 2, (2, 2, 3, 2, 5 * 2))
    targets = rng.randint(-2, 5, (2, 3, 2, 2)).astype(np.int32)
    assert {-2, -1, 0, 4} <= set(targets.ravel())
    options = {"alpha": alpha, "gamma": gamma, "label_smoothing": label_smoothing, "normalizer": 7.0}

    def plain(logits):
        return plain_focal_loss(logits, tf.constant(targets), **options)

    ours, exact = tf.constant(logits, tf.float32), tf.constant(logits)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([ours, exact])
        loss = 3 * focal_loss(ours, tf.constant(targets), **options)
        expected = 3 * plain(exact)
    gradient = tape.gradient(loss, ours)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, tape.gradient(expected, exact), rtol=1e-4, atol=1e-6)
    assert not np.any(gradient.numpy().reshape(-1, 5)[targets.ravel() == -2])
    along = 3 * (plain(exact + 1e-5 * direction) - plain(exact - 1e-5 * direction)) / 2e-5
    np.testing.assert_allclose(np.sum(gradient * direction), along, rtol=1e-4)


@pytest.mark.parametrize("iou_loss_type", [None, "iou", "giou", "diou", "ciou"])
def test_names_are_the_keys_of_the_result(published, iou_loss_type):
    losses = losses_of(published, iou_loss_type=iou_loss_type)
    assert tuple(losses) == names(OPTIONS._replace(iou_loss_type=iou_loss_type))


def test_box_loss_golden():
    outputs = tf.constant([[0.15, 1.0, 9.0, 0.0]])
    targets = tf.constant([[0.1, -1.0, 0.0, 0.1]])  # quadratic, linear, background, at delta
    expected = (0.5 * 0.05**2 + 0.1 * 2 - 0.5 * 0.1**2 + 0.5 * 0.1**2) / (4 * 3)
    np.testing.assert_allclose(box_loss(outputs, targets, delta=0.1, normalizer=3.0), expected, rtol=1e-5)


def test_background_has_no_box_loss_and_no_gradient():
    outputs, targets = tf.ones([1, 2, 4]), tf.zeros([1, 2, 4])
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss = box_loss(outputs, targets, delta=0.1, normalizer=1.0)
        loss += box_iou_loss(outputs, targets, ANCHORS.boxes[:2], iou_type="ciou", normalizer=1.0)
    assert loss == 0 and not tape.gradient(loss, outputs).numpy().any()


def test_iou_loss_golden():
    # Anchor [0, 0, 8, 8]; target shifted by (4, 4), output by (4, 0): intersection 32, union 96.
    anchors = tf.constant([[0.0, 0, 8, 8]])
    targets, outputs = tf.constant([[[0.5, 0.5, 1e-7, 1e-7]]]), tf.constant([[[0.5, 0.0, 0.0, 0.0]]])
    loss = box_iou_loss(outputs, targets, anchors, iou_type="iou", normalizer=2.0)
    np.testing.assert_allclose(loss, (1 - 32 / 96) / (4 * 2), rtol=1e-5)


def test_eager_equals_function(published):
    eager = losses_of(published, iou_loss_type="ciou")
    in_function = tf.function(lambda: losses_of(published, iou_loss_type="ciou"))()
    for name, value in eager.items():
        np.testing.assert_allclose(in_function[name], value, rtol=1e-5)
