# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/skipped_steps.py: counters, and the loss scale of float16."""

import numpy as np
import pytest
import tensorflow as tf

from tf2.training import skipped_steps

NORMS = {True: [1.0, 2.0], False: [1.0, np.inf]}  # of the gradients of steps that are finite or not


def after(steps, **options):
    """Returns the object after steps that are finite or not."""
    skipped = skipped_steps.SkippedSteps(tf.distribute.get_strategy(), **options)
    for is_finite in steps:
        skipped.update(tf.constant(is_finite), tf.constant(NORMS[is_finite]))
    return skipped


@pytest.mark.parametrize(
    "steps, count, in_a_row",
    [([], 0, 0), ([True], 0, 0), ([False, False], 2, 2), ([False, True, False], 2, 1), ([False, True], 1, 0)],
)
def test_skipped_steps_are_counted(steps, count, in_a_row):
    skipped = after(steps)
    assert (int(skipped.count), skipped.num_in_a_row()) == (count, in_a_row)
    assert not skipped.can_reduce_loss_scale()
    assert [variable.name for variable in skipped.saved] == ["training/skipped_steps:0", "training/skipped_in_a_row:0"]


@pytest.mark.parametrize(
    "steps, scale, good_steps, can_reduce",
    [
        ([], 4, 0, True),
        ([False], 2, 0, True),
        ([False, False, False], 1, 0, False),  # never below 1
        ([True], 4, 1, True),
        ([True, True], 8, 0, True),
        ([True, False, True], 2, 1, True),
    ],
)
def test_the_loss_scale_follows_overflows(monkeypatch, steps, scale, good_steps, can_reduce):
    monkeypatch.setattr(skipped_steps, "GROWTH_STEPS", 2)
    skipped = after(steps, loss_scale=4.0)
    assert (float(skipped.loss_scale), int(skipped.good_steps)) == (scale, good_steps)
    assert skipped.can_reduce_loss_scale() == can_reduce and len(skipped.saved) == 4
    scaled = skipped.scale(tf.constant(3.0))
    assert scaled == 3 * scale and [float(value) for value in skipped.unscale([scaled, scaled])] == [3, 3]


@pytest.mark.parametrize(
    "metrics, cause",
    [
        ({"loss": 2.5}, "the gradient of b:0 is not finite, while the loss is 2.5 (most likely the gradients explode"),
        ({"box_loss": np.nan}, "box_loss is not finite (most likely learning_rate is too high"),
        ({"cls_loss": np.inf, "det_loss": np.nan}, "cls_loss and det_loss are not finite (most likely learning_rate"),
    ],
)
def test_the_cause_is_named(metrics, cause):
    variables = [tf.Variable(0.0, name=name) for name in "ab"]
    assert after([False]).cause(metrics, variables).startswith(cause)
