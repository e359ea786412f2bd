# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The ways in which boxes are written wrongly, each with its repair, and what their values alone give away.

A record holds [ymin, xmin, ymax, xmax] as fractions of the image. A repair takes what it holds instead, [K, 4], with
[height, width, height, width] of the image in pixels, and returns the true boxes in pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dataset.convert.conversion_report import AT_LEAST, FAR_OUT, MANY

MOST = 0.95  # of the boxes have to look alike before their layout is called wrong
ROUNDING = 0.01


class Layout(NamedTuple):
    """One wrong way to write boxes."""

    text: str  # what is wrong, and what to do
    repair: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _transposed(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, [1, 0, 3, 2]]


LAYOUTS = {
    "boxes_swapped": Layout(
        "x and y of the boxes are swapped: what stands in image/object/bbox/ymin and ymax is xmin and xmax; write the "
        "records again with x in xmin and xmax",
        lambda boxes, size: _transposed(boxes) * size,
    ),
    "boxes_swapped_in_pixels": Layout(
        "x and y of the boxes are swapped, and divided by the wrong sides: ymin and ymax are x / height; write x / "
        "width to xmin and xmax, y / height to ymin and ymax",
        lambda boxes, size: _transposed(boxes * size),
    ),
    "boxes_in_pixels": Layout(
        "boxes are in pixels where fractions of the image are expected; divide x by the width and y by the height",
        lambda boxes, size: boxes,
    ),
    "boxes_normalized_twice": Layout(
        "boxes are normalized twice: all lie in the first pixel of their images; divide x by the width and y by the "
        "height once",
        lambda boxes, size: boxes * size * size,
    ),
    "boxes_with_sides": Layout(
        "xmax and ymax hold width and height of the boxes; write xmin + width and ymin + height",
        lambda boxes, size: np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1) * size,
    ),
    "boxes_from_centers": Layout(
        "xmin and ymin hold the center of the boxes, xmax and ymax their width and height; write corners",
        lambda boxes, size: (
            np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1) * size
        ),
    ),
    "boxes_from_corners": Layout(
        "boxes end at xmin + xmax and ymin + ymax, or at the border: were corners x1, y1, x2, y2 read as x, y, width, "
        "height? Write the records again, with the corners as they are",
        # Where the border cut them off, the sides are lost.
        lambda boxes, size: np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1) * size,
    ),
}


def from_values(boxes: np.ndarray, sizes: np.ndarray) -> str | None:
    """The key of LAYOUTS that the values of the boxes prove, or None.

    Args:
        boxes: [K, 4] as the records hold them.
        sizes: [K, 2], (height, width) of their images in pixels.
    """
    finite = np.isfinite(boxes).all(axis=1)
    boxes, sizes = boxes[finite], np.tile(sizes[finite], 2)
    if not len(boxes):
        return None
    # Of fractions, a few reach a little beyond 1. Of pixels, only boxes in the first pixels stay below 2.
    if np.mean(boxes.max(axis=1) > 2) >= MOST:
        return "boxes_in_pixels"
    # By the place, not the size: objects may all be smaller than a pixel, but they are not all in one corner.
    if np.mean((boxes * sizes <= 1 + ROUNDING).all(axis=1) & (sizes.min(axis=1) > 16)) >= MOST:
        return "boxes_normalized_twice"
    inverted = np.any(boxes[:, 2:] < boxes[:, :2], axis=1)
    positive = (boxes[:, 2:] > 0).all(axis=1)
    if _are_from_corners(boxes):
        return "boxes_from_corners"
    if np.mean(inverted) <= 1 - MOST or np.mean(positive) < MOST:
        return None
    # Sides fit into what is right of and below their corner, or around their center.
    starts, sides = boxes[:, :2], boxes[:, 2:]
    beyond = {
        "boxes_with_sides": np.any(starts + sides > 1 + ROUNDING, axis=1),
        "boxes_from_centers": np.any((starts < sides / 2 - ROUNDING) | (starts + sides / 2 > 1 + ROUNDING), axis=1),
    }
    layout = min(beyond, key=lambda key: beyond[key].mean())
    return layout if beyond[layout].mean() <= 1 - MOST else None


def _are_from_corners(boxes: np.ndarray) -> bool:
    """Whether all sides end at twice their start or beyond, as sums of two corners do, or at the border.

    Only boxes that start in the right or lower half of their image tell: where they are right, most of them end before
    the border.
    """
    fit = (boxes[:, 2:] >= np.minimum(2 * boxes[:, :2], 1) - ROUNDING).all(axis=1)
    tells = (boxes[:, :2] > 0.5 + ROUNDING).any(axis=1)
    return are_many(tells) and bool(np.mean(fit) >= MOST and np.mean(fit[tells]) >= MOST)


def are_far_out(boxes_norm: np.ndarray) -> np.ndarray:
    """[K] bool: boxes of positive sides, as fractions of the image, with more than a third of their area outside."""
    inside = np.clip(boxes_norm, 0, 1)
    with np.errstate(invalid="ignore", over="ignore"):
        area, left = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (boxes_norm, inside))
        return (boxes_norm[:, 2:] > boxes_norm[:, :2]).all(axis=1) & (left < (1 - FAR_OUT) * area)


def are_many(chosen: np.ndarray) -> bool:
    """Whether so many boxes are chosen, [K] bool, that their data are in question."""
    return int(chosen.sum()) >= AT_LEAST and float(chosen.mean()) > MANY
