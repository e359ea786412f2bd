# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of nms: both methods by hand, thresholds, idempotence and independence of the input order."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from efficientdet.config import ConfigError, NmsConfig
from efficientdet.nms import nms

HARD = NmsConfig("hard", max_output_size=5)
GAUSSIAN = replace(HARD, method="gaussian")
# The first two boxes have an IoU of 2 / 3; the third overlaps neither.
BOXES = tf.constant([[0.0, 0, 10, 10], [0, 2, 10, 12], [20, 20, 30, 30]])
SCORES = tf.constant([0.9, 0.8, 0.7])


@pytest.mark.parametrize(
    "config, indices, scores",
    [
        (HARD, [0, 2], [0.9, 0.7]),
        (replace(HARD, method=None), [0, 2], [0.9, 0.7]),
        (replace(HARD, method=""), [0, 2], [0.9, 0.7]),
        (replace(HARD, iou_thresh=0.7), [0, 1, 2], [0.9, 0.8, 0.7]),
        (replace(HARD, score_thresh=0.75), [0], [0.9]),
        # Soft: 0.8 is multiplied by exp(-iou^2 / sigma) and falls below the third score.
        (GAUSSIAN, [0, 2, 1], [0.9, 0.7, 0.8 * np.exp(-(4 / 9) / 0.5)]),
        (replace(GAUSSIAN, sigma=2.0), [0, 2, 1], [0.9, 0.7, 0.8 * np.exp(-(4 / 9) / 2)]),
        (replace(GAUSSIAN, iou_thresh=0.1), [0, 2, 1], [0.9, 0.7, 0.8 * np.exp(-(4 / 9) / 0.5)]),
        (replace(GAUSSIAN, score_thresh=0.5), [0, 2], [0.9, 0.7]),
        (replace(GAUSSIAN, sigma=0.05), [0, 2], [0.9, 0.7]),  # 0.8 decays to 0.0001, below 0.001
    ],
)
def test_nms_golden(config, indices, scores):
    selected, kept, valid_len = nms(BOXES, SCORES, config)
    assert valid_len == len(indices) and selected.shape == kept.shape == (5,)
    np.testing.assert_array_equal(selected, indices + [0] * (5 - len(indices)))
    np.testing.assert_allclose(kept, scores + [0] * (5 - len(indices)), rtol=1e-5)


def test_hard_nms_keeps_scores_of_zero_and_limits_the_output():
    _, _, valid_len = nms(BOXES, tf.zeros([3]), HARD)
    assert valid_len == 2
    indices, _, valid_len = nms(BOXES, SCORES, replace(HARD, max_output_size=1))
    assert indices.shape == (1,) and indices[0] == 0 and valid_len == 1


def test_unknown_method():
    with pytest.raises(ConfigError, match="method must be one of hard, gaussian, got 'linear'"):
        nms(BOXES, SCORES, replace(HARD, method="linear"))


@st.composite
def scored_boxes(draw):
    sides = st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 40)] * 2)
    boxes = np.array(draw(st.lists(sides, min_size=1, max_size=12)), np.float32)
    order = draw(st.permutations(range(len(boxes))))  # distinct scores
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], -1), (np.float32(order) + 1) / 20


@given(scored_boxes())
def test_hard_nms_is_idempotent(candidates):
    boxes, scores = candidates
    config = replace(HARD, max_output_size=12)
    indices, kept, valid_len = (x.numpy() for x in nms(boxes, scores, config))
    np.testing.assert_array_equal(kept[:valid_len], scores[indices[:valid_len]])
    again, _, valid_len_again = nms(boxes[indices[:valid_len]], kept[:valid_len], config)
    assert valid_len_again == valid_len
    np.testing.assert_array_equal(again[:valid_len], np.arange(valid_len))


@given(scored_boxes())
def test_hard_nms_does_not_depend_on_input_order(candidates):
    boxes, scores = candidates
    _, kept, _ = nms(boxes, scores, replace(HARD, max_output_size=12))
    _, reversed_kept, _ = nms(boxes[::-1], scores[::-1], replace(HARD, max_output_size=12))
    np.testing.assert_array_equal(kept, reversed_kept)
