# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/check/anchor_fit.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.check import anchor_fit
from efficientdet import boxes as box_ops
from efficientdet import config as config_lib
from efficientdet import hparams
from efficientdet.model import build_anchors


def config(**overrides):
    return config_lib.load("efficientdet-d0", image_size=256).override(overrides)


def boxes_of(random, sides, size=256):
    """Returns boxes of (height, width) [K, 2] at random positions inside a square input."""
    sides = np.asarray(sides, float)
    mins = random.uniform(0, 1, sides.shape) * (size - sides)
    return np.concatenate([mins, mins + sides], 1)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"image_size": (200, 333), "num_scales": 2, "aspect_ratios": [[1.4, 0.7], 3.0]},
        {"anchor_scale": [1.0, 2.0, 3.0, 4.0, 5.0]},
    ],
)
@given(seed=st.integers(0, 2**31))
def test_best_ious_equal_the_maximum_over_all_anchors(overrides, seed):
    random = np.random.default_rng(seed)
    mins = random.uniform(-20, 250, [30, 2])
    boxes = np.concatenate([mins, mins + np.exp(random.uniform(0, 6, [30, 2]))], 1)
    anchors = build_anchors(config(**overrides))
    expected = box_ops.iou(boxes[:, np.newaxis].astype(np.float32), anchors.boxes).numpy().max(1)
    np.testing.assert_allclose(anchor_fit.best_ious(boxes, anchors), expected, atol=1e-5)


def test_best_ious_by_hand():
    # The first anchor is 32x32 around (4, 4): a box equal to it, one of half its height inside it, and one of 2x2.
    def anchors_of(threshold: float = 0.5):
        return config(num_scales=1, aspect_ratios=[1.0], match_threshold=threshold)

    anchors = build_anchors(anchors_of())
    boxes = np.array([[-12.0, -12, 20, 20], [-12, -12, 4, 20], [0, 0, 2, 2]])
    np.testing.assert_allclose(anchor_fit.best_ious(boxes, anchors), [1, 0.5, 4 / 1024])
    assert anchor_fit.best_ious(np.empty([0, 4]), anchors).shape == (0,)
    ious = np.array([1, 0.5, 0.49])
    assert [anchor_fit.recall(ious, threshold) for threshold in (0.5, 0.49, 0.6)] == pytest.approx([2 / 3, 1, 1 / 3])
    assert [anchor_fit.recall_of(boxes, anchors_of(t)) for t in (0.5, 0.51)] == pytest.approx([2 / 3, 1 / 3])


def test_k_means_by_hand():
    values = np.array([0, 1, 2, 10, 11, 12, 100.0])
    np.testing.assert_allclose(anchor_fit.k_means(values, 1), [136 / 7])
    np.testing.assert_allclose(anchor_fit.k_means(np.array([0, 1, 2, 10, 11, 12.0]), 2), [1, 11])
    np.testing.assert_allclose(anchor_fit.k_means(np.array([3.0, 3.0]), 4), [3])


def test_small_boxes_get_a_smaller_anchor_scale():
    random = np.random.default_rng(1)
    boxes = boxes_of(random, random.uniform(14, 22, [400, 1]) * [1, 1])
    present = config()
    proposals = anchor_fit.propose(boxes, present)
    assert anchor_fit.recall_of(boxes, present) < 0.05
    assert list(proposals[0].overrides) == ["anchor_scale"] and proposals[0].recall > 0.9
    assert 1.5 <= proposals[0].overrides["anchor_scale"] <= 2.75  # 14 to 22 pixels at stride 8


def test_long_boxes_get_their_aspect_ratio():
    random = np.random.default_rng(1)
    widths = random.uniform(80, 200, [400, 1])
    boxes = boxes_of(random, widths * [1 / 6, 1])
    proposals = anchor_fit.propose(boxes, config())
    assert proposals[-1].recall > 0.95
    np.testing.assert_allclose(proposals[-1].overrides["aspect_ratios"], 6, atol=0.02)


def test_proposed_hparams_reach_the_stated_recall():
    random = np.random.default_rng(2)
    boxes = boxes_of(random, np.exp(random.uniform(np.log(6), np.log(90), [500, 2])))
    present = config()
    proposals = anchor_fit.propose(boxes, present)
    assert len(proposals) >= 2
    assert [p.recall for p in proposals] == sorted(p.recall for p in proposals)
    for proposal in proposals:
        pasted = present.override(hparams.parse_pairs(proposal.hparams))
        assert anchor_fit.recall_of(boxes, pasted) == proposal.recall


def test_scales_per_level_remain_per_level():
    random = np.random.default_rng(1)
    boxes = boxes_of(random, np.full([200, 2], 18.0))
    [proposal, *_] = anchor_fit.propose(boxes, config(anchor_scale=[4.0] * 5))
    assert len(proposal.overrides["anchor_scale"]) == 5 and proposal.recall > 0.9


def test_no_proposal_for_fitting_anchors():
    boxes = boxes_of(np.random.default_rng(1), np.full([100, 2], 64.0))
    assert anchor_fit.propose(boxes, config()) == []
    assert anchor_fit.propose(np.empty([0, 4]), config()) == []
