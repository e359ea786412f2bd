# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""How well the anchors of a config fit boxes, and which aspect ratios and anchor_scale would fit better."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from efficientdet.anchors import Anchors
from efficientdet.config import Config
from efficientdet.model import build_anchors
from efficientdet.targets import MATCH_THRESHOLD

BOXES_AT_ONCE = 1 << 14
SEARCHED_BOXES = 20000  # anchor_scale is searched with so many; the recall of what is found is that of all
FACTORS = 2 ** (np.arange(-18, 13) / 6)  # of the present anchor_scale: 1/8 to 4
EXTRA_RATIOS = 2  # the most expensive proposal has so many aspect ratios more
WORTH = 0.01  # of recall more: below, a proposal is not made


class Proposal(NamedTuple):
    """Other anchors, and what they would reach."""

    overrides: dict  # keys of Config
    recall: float

    @property
    def hparams(self) -> str:
        """As typed after --hparams=, in quotes."""
        return ",".join(f"{key}={_typed(value)}" for key, value in self.overrides.items())


def best_ious(boxes: np.ndarray, anchors: Anchors) -> np.ndarray:
    """IoU of every box with its best anchor: [K] in [0, 1].

    Anchors of one kind (level, scale, aspect ratio) are copies of one box on a grid, and the one that overlaps a box
    most is the one whose center is nearest, by row and by column. So a box meets as many anchors as there are kinds,
    instead of all.

    Args:
        boxes: [K, 4], pixels of the network input, of positive sides.
        anchors: of that input.
    """
    return _in_chunks(boxes, *_kinds(anchors))


def _kinds(anchors: Anchors) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all T kinds of anchors: (height, width), strides (y, x), and grid (rows, columns), [T, 2] each."""
    depth, first = anchors.num_anchors_per_location, 0
    sides, strides, grids = [], [], []
    for grid in anchors.feat_sizes:
        cell = anchors.boxes[first : first + depth].astype(np.float64)
        sides.append(cell[:, 2:] - cell[:, :2])
        strides += [np.divide(anchors.image_size, grid)] * depth
        grids += [grid] * depth
        first += grid[0] * grid[1] * depth
    return np.concatenate(sides), np.array(strides), np.array(grids)


def _in_chunks(boxes: np.ndarray, *kinds: np.ndarray) -> np.ndarray:
    starts = range(0, len(boxes), BOXES_AT_ONCE)
    chunks = [_best_ious(boxes[start : start + BOXES_AT_ONCE], *kinds) for start in starts]
    return np.concatenate([np.empty([0]), *chunks])


def _best_ious(boxes: np.ndarray, sides: np.ndarray, strides: np.ndarray, grids: np.ndarray) -> np.ndarray:
    mins, maxs = boxes[:, np.newaxis, :2], boxes[:, np.newaxis, 2:]  # [K, 1, 2]
    cells = np.clip(np.floor((mins + maxs) / 2 / strides), 0, grids - 1)  # [K, T, 2]
    centers = (cells + 0.5) * strides
    overlaps = np.minimum(maxs, centers + sides / 2) - np.maximum(mins, centers - sides / 2)
    intersections = np.maximum(overlaps, 0).prod(-1)  # [K, T]
    return (intersections / ((maxs - mins).prod(-1) + sides.prod(-1) - intersections)).max(1)


def recall(ious: np.ndarray) -> float:
    """Share of the boxes whose best anchor has an IoU of 0.5 or more, which is when it is matched in training."""
    return float(np.mean(ious >= MATCH_THRESHOLD)) if len(ious) else 1.0


def anchors_of(config: Config, **overrides) -> Anchors:
    """The anchors of a config with some keys changed."""
    return build_anchors(config.override(overrides))


def propose(boxes: np.ndarray, config: Config) -> list[Proposal]:
    """Other anchors that would reach more boxes, the best one last; num_scales stays as it is.

    The proposals are another anchor_scale, other aspect ratios, both, and both with more ratios; each one that is made
    has a percent of recall more than the present anchors and those before it.

    Args:
        boxes: [K, 4], pixels of the network input, of positive sides.
        config: the present anchors.
    """
    if not len(boxes):
        return []
    some = boxes[:: -(-len(boxes) // SEARCHED_BOXES)]
    log_ratios = np.log((some[:, 3] - some[:, 1]) / (some[:, 2] - some[:, 0]))
    present, number = config.aspect_ratios, len(config.aspect_ratios)
    ratios, more = _ratios(log_ratios, number), _ratios(log_ratios, number + EXTRA_RATIOS)
    candidates = [
        {"anchor_scale": _best_scale(some, config, present)},
        {"aspect_ratios": ratios},
        {"anchor_scale": _best_scale(some, config, ratios), "aspect_ratios": ratios},
        {"anchor_scale": _best_scale(some, config, more), "aspect_ratios": more},
    ]
    proposals, reached = [], recall(best_ious(boxes, anchors_of(config)))
    for overrides in candidates:
        proposal = Proposal(overrides, recall(best_ious(boxes, anchors_of(config, **overrides))))
        if proposal.recall >= reached + WORTH:
            proposals.append(proposal)
            reached = proposal.recall
    return proposals


def _ratios(log_ratios: np.ndarray, number: int) -> tuple[float, ...]:
    return tuple(sorted({max(round(float(ratio), 2), 0.01) for ratio in np.exp(k_means(log_ratios, number))}))


def _best_scale(boxes: np.ndarray, config: Config, aspect_ratios: Sequence) -> float | tuple[float, ...]:
    """The anchor_scale with the highest recall; of equal ones, that with the highest mean IoU."""
    sides, *grid = _kinds(anchors_of(config, aspect_ratios=aspect_ratios))

    def score(factor: float) -> tuple[float, float]:
        ious = _in_chunks(boxes, sides * factor, *grid)
        return round(recall(ious), 3), float(ious.mean())

    scale = np.maximum(np.round(np.multiply(config.anchor_scale, max(FACTORS, key=score)), 2), 0.01)
    return tuple(scale.tolist()) if scale.ndim else float(scale)


def k_means(values: np.ndarray, number: int) -> np.ndarray:
    """Lloyd's algorithm in one dimension, from evenly spread quantiles: sorted centers, at most `number`.

    Applied to the logarithms of width / height, so that 2:1 is as far from 1:1 as 1:2 is.
    """
    centers = np.unique(np.quantile(values, (np.arange(number) + 0.5) / number))
    while True:
        nearest = np.abs(values[:, np.newaxis] - centers).argmin(1)
        moved = np.array([values[nearest == i].mean() for i in np.unique(nearest)])
        if len(moved) == len(centers) and np.allclose(moved, centers, rtol=0, atol=1e-6):
            return moved
        centers = moved


def _typed(value: float | tuple) -> str:
    return f"[{', '.join(map(_typed, value))}]" if isinstance(value, tuple) else f"{value:g}"
