# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Wrong layouts of stored boxes: messages, repairs, and detection from the values.

Records must hold [ymin, xmin, ymax, xmax] as fractions of the image. A repair maps stored boxes, [K, 4], and
[height, width, height, width] of their images in pixels to the true boxes in pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dataset.convert.annotation import MAX_CLIPPED, MAX_OUTSIDE, MIN_CLIPPED

MIN_SHARE = 0.95  # of the boxes that must fit a layout
ROUNDING = 0.01


class Layout(NamedTuple):
    """A wrong layout of boxes."""

    text: str  # problem and remedy
    repair: Callable[[np.ndarray, np.ndarray], np.ndarray]


LAYOUTS = {
    "boxes_swapped": Layout(
        "x and y of the boxes are swapped: image/object/bbox/ymin and ymax hold xmin and xmax; write the records again "
        "with x in xmin and xmax",
        lambda boxes, size: boxes[:, [1, 0, 3, 2]] * size,
    ),
    "boxes_swapped_in_pixels": Layout(
        "x and y of the boxes are swapped, and divided by the wrong sides: ymin and ymax are x / height; write x / "
        "width to xmin and xmax, y / height to ymin and ymax",
        lambda boxes, size: (boxes * size)[:, [1, 0, 3, 2]],
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
        lambda boxes, size: np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]) * size,
    ),
    "boxes_from_centers": Layout(
        "xmin and ymin hold the center of the boxes, xmax and ymax their width and height; write corners",
        lambda boxes, size: np.hstack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2]) * size,
    ),
    "boxes_from_corners": Layout(
        "boxes end at xmin + xmax and ymin + ymax, or at the border: were corners x1, y1, x2, y2 read as x, y, width, "
        "height? Write the records again without adding the corners",
        lambda boxes, size: np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]) * size,  # unless clipped
    ),
}
SWAPS = ("boxes_swapped", "boxes_swapped_in_pixels")  # which no values exclude


def from_values(boxes: np.ndarray, sizes: np.ndarray) -> str | None:
    """Returns the wrong layout that explains the values of the boxes, a key of LAYOUTS, or None.

    Args:
        boxes: [K, 4] as stored.
        sizes: [K, 2], (height, width) of their images in pixels.
    """
    finite = np.isfinite(boxes).all(1)
    boxes, sizes = boxes[finite], np.tile(sizes[finite], 2)
    if not len(boxes):
        return None
    # Some fractions slightly exceed 1. Only boxes in the first pixels of an image are below 2 in pixels.
    if np.mean(boxes.max(1) > 2) >= MIN_SHARE:
        return "boxes_in_pixels"
    # Tested by position, not size: objects may all be smaller than a pixel, but they are not all in one corner.
    if np.mean((boxes * sizes <= 1 + ROUNDING).all(1) & (sizes.min(1) > 16)) >= MIN_SHARE:
        return "boxes_normalized_twice"
    starts, ends = boxes[:, :2], boxes[:, 2:]
    # Sums of two corners are at twice the start or beyond, or at the border. Boxes that start in the right or lower
    # half of the image are tested separately: of correct ones, most end before the border.
    are_sums = (ends >= np.minimum(2 * starts, 1) - ROUNDING).all(1)
    in_second_half = (starts > 0.5 + ROUNDING).any(1)
    if are_many(in_second_half) and min(np.mean(are_sums), np.mean(are_sums[in_second_half])) >= MIN_SHARE:
        return "boxes_from_corners"
    if np.mean((ends < starts).any(1)) <= 1 - MIN_SHARE or np.mean((ends > 0).all(1)) < MIN_SHARE:
        return None
    misfits = {  # with sides instead of ends
        "boxes_with_sides": (starts + ends > 1 + ROUNDING).any(1).mean(),
        "boxes_from_centers": ((starts < ends / 2 - ROUNDING) | (starts + ends / 2 > 1 + ROUNDING)).any(1).mean(),
    }
    layout = min(misfits, key=misfits.get)
    return layout if misfits[layout] <= 1 - MIN_SHARE else None


def are_far_outside(boxes_norm: np.ndarray) -> np.ndarray:
    """Mask [K] of boxes [K, 4], fractions of the image, with more than MAX_OUTSIDE of their area outside.

    >>> are_far_outside(np.array([[0.5, 0.5, 1.0, 1.0], [0.5, 0.5, 1.0, 3.0]])).tolist()
    [False, True]
    """
    inside = np.clip(boxes_norm, 0, 1)
    with np.errstate(invalid="ignore", over="ignore"):
        area, area_inside = ((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (boxes_norm, inside))
        return (boxes_norm[:, 2:] > boxes_norm[:, :2]).all(1) & (area_inside < (1 - MAX_OUTSIDE) * area)


def are_many(chosen: np.ndarray) -> bool:
    """Returns True if a mask [K] selects more boxes than valid data would."""
    return int(chosen.sum()) >= MIN_CLIPPED and float(chosen.mean()) > MAX_CLIPPED
