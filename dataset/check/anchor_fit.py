# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Recall of the anchors of a config over groundtruth boxes, and proposals of aspect_ratios and anchor_scale."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from efficientdet import boxes as box_ops
from efficientdet.anchors import Anchors
from efficientdet.config import Config
from efficientdet.model import build_anchors

MAX_SEARCH_BOXES = 20000  # used to search anchor_scale; the recall of a proposal is computed over all boxes
SCALE_FACTORS = 2 ** (np.arange(-18, 13) / 6)  # relative to the present anchor_scale: 1/8 to 4
EXTRA_RATIOS = 2  # additional aspect ratios of the most expensive proposal
MIN_GAIN = 0.01  # recall that a proposal must add


class Proposal(NamedTuple):
    """Config overrides for other anchors, and their recall."""

    overrides: dict
    recall: float

    @property
    def hparams(self) -> str:
        """Value of --hparams."""
        return ",".join(f"{key}={_format_value(value)}" for key, value in self.overrides.items())


def best_ious(boxes: np.ndarray, anchors: Anchors, side_factor: float = 1.0) -> np.ndarray:
    """IoU of every box with its best anchor.

    The anchors of one level, scale and aspect ratio are copies of one box on a grid. Of these, the one with the nearest
    center has the highest IoU, so that only one IoU is computed per box and kind of anchor.

    Args:
        boxes: [K, 4] with positive sides, pixels of the network input.
        side_factor: multiplies the sides of the anchors.

    Returns:
        [K] in [0, 1].
    """
    best, centers, first = np.zeros(len(boxes)), (boxes[:, :2] + boxes[:, 2:]) / 2, 0
    for grid in anchors.feat_sizes:
        stride, end = np.divide(anchors.image_size, grid), first + anchors.num_anchors_per_location
        cells = np.clip(np.floor(centers / stride), 0, np.subtract(grid, 1))
        nearest = (cells + 0.5) * stride  # [K, 2], centers of the anchors
        for anchor in anchors.boxes[first:end].astype(np.float64):  # those of the first cell
            half_sides = (anchor[2:] - anchor[:2]) * side_factor / 2
            ious = box_ops.numpy_iou(boxes, np.hstack([nearest - half_sides, nearest + half_sides]))
            best = np.maximum(best, ious)
        first += (end - first) * math.prod(grid)
    return best


def recall(ious: np.ndarray, match_threshold: float) -> float:
    """Share of boxes whose best anchor reaches the IoU with which anchors are matched in training; 1 without boxes.

    >>> recall(np.array([0.4, 0.6, 0.8, 0.9]), match_threshold=0.5)
    0.75
    """
    return float(np.mean(ious >= match_threshold)) if len(ious) else 1.0


def recall_of(boxes: np.ndarray, config: Config) -> float:
    """Recall of the anchors of a config over boxes [K, 4] with positive sides, pixels of the network input."""
    return recall(best_ious(boxes, build_anchors(config)), config.match_threshold)


def propose(boxes: np.ndarray, config: Config) -> list[Proposal]:
    """Proposes anchors with a higher recall; num_scales is unchanged.

    Candidates are another anchor_scale, other aspect ratios, both, and both with more aspect ratios. A candidate is
    proposed if its recall exceeds that of the present anchors and of earlier proposals by MIN_GAIN.

    Args:
        boxes: [K, 4] with positive sides, pixels of the network input.
    """
    if not len(boxes):
        return []
    some = boxes[:: -(-len(boxes) // MAX_SEARCH_BOXES)]
    log_ratios = np.log((some[:, 3] - some[:, 1]) / (some[:, 2] - some[:, 0]))
    present, number = config.aspect_ratios, len(config.aspect_ratios)
    ratios, more = _ratios(log_ratios, number), _ratios(log_ratios, number + EXTRA_RATIOS)
    candidates = [
        {"anchor_scale": _best_scale(some, config, present)},
        {"aspect_ratios": ratios},
        {"anchor_scale": _best_scale(some, config, ratios), "aspect_ratios": ratios},
        {"anchor_scale": _best_scale(some, config, more), "aspect_ratios": more},
    ]
    proposals, reached = [], recall_of(boxes, config)
    for overrides in candidates:
        proposal = Proposal(overrides, recall_of(boxes, config.override(overrides)))
        if proposal.recall >= reached + MIN_GAIN:
            proposals.append(proposal)
            reached = proposal.recall
    return proposals


def _ratios(log_ratios: np.ndarray, number: int) -> tuple[float, ...]:
    return tuple(sorted({max(round(float(ratio), 2), 0.01) for ratio in np.exp(k_means(log_ratios, number))}))


def _best_scale(boxes: np.ndarray, config: Config, aspect_ratios: Sequence) -> float | tuple[float, ...]:
    """Returns the anchor_scale with the highest recall and, of equal ones, the highest mean IoU."""
    anchors = build_anchors(config.override({"aspect_ratios": aspect_ratios}))

    def score(factor: float) -> tuple[float, float]:
        ious = best_ious(boxes, anchors, factor)
        return round(recall(ious, config.match_threshold), 3), float(ious.mean())

    scale = np.maximum(np.round(np.multiply(config.anchor_scale, max(SCALE_FACTORS, key=score)), 2), 0.01)
    return tuple(scale.tolist()) if scale.ndim else float(scale)


def k_means(values: np.ndarray, number: int) -> np.ndarray:
    """Centers of Lloyd's algorithm in one dimension, started from evenly spaced quantiles.

    Args:
        values: [K]. Aspect ratios are passed as logarithms, in which 2:1 and 1:2 are equally far from 1:1.
        number: maximum number of clusters.

    Returns:
        Sorted centers, [number] or fewer.

    Example:
        >>> k_means(np.array([1.0, 2.0, 10.0, 12.0]), number=2).tolist()
        [1.5, 11.0]
    """
    centers = np.unique(np.quantile(values, (np.arange(number) + 0.5) / number))
    while True:
        nearest = np.abs(values[:, np.newaxis] - centers).argmin(1)
        moved = np.array([values[nearest == i].mean() for i in np.unique(nearest)])
        if len(moved) == len(centers) and np.allclose(moved, centers, rtol=0, atol=1e-6):
            return moved
        centers = moved


def _format_value(value: float | tuple) -> str:
    return f"[{', '.join(map(_format_value, value))}]" if isinstance(value, tuple) else f"{value:g}"
