# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Detection of swapped x and y from the pixels.

A box around an object has a higher contrast across its sides than the same box shifted by half a side. If the stored
boxes do not have such a gain in contrast, but the transposed boxes do, then x and y are swapped. The difference is
tested by t statistics over images. Images of a fixed camera are not independent, because the background is the same in
all of them; therefore the test is repeated over places in the image, and both must be significant.
"""

import numpy as np

from dataset.check.box_layouts import LAYOUTS, SWAPS
from efficientdet import boxes as box_ops

MAX_SIDE = 512  # pixels; larger images are subsampled
MIN_BOX_SIDE = 6  # pixels
MAX_OVERLAP = 0.3  # IoU of a stored with a transposed box; above, the box is not used
STRIP = 0.12  # width of the compared strips inside and outside a side, relative to the box
MIN_GROUPS = 15  # number of images, and of places
PLACES = 8  # grid cells along each side of the image; boxes with centers in one cell are one place
MIN_T = 5.0  # of transposed boxes; reached by chance once in 3 million data sets
MAX_STORED_T = 2.0  # of stored boxes


def gains(image: np.ndarray, boxes_norm: np.ndarray) -> np.ndarray:
    """Gain in contrast of the boxes of an image, as stored and transposed in both ways of SWAPS.

    Args:
        image: uint8 [H, W, 3].
        boxes_norm: [K, 4] as stored.

    Returns:
        [K, 3] in gray levels; NaN for boxes that cannot tell the layouts apart.
    """
    step = -(-max(image.shape[:2]) // MAX_SIDE)
    image = image[::step, ::step]
    size = np.tile(image.shape[:2], 2)
    sums = np.pad(image.cumsum(0, dtype=np.int64).cumsum(1), [(1, 0), (1, 0), (0, 0)])
    with np.errstate(invalid="ignore", over="ignore"):
        boxes = np.stack([boxes_norm * size, *(LAYOUTS[swap].repair(boxes_norm, size) for swap in SWAPS)])  # [3, K, 4]
        sides = boxes[..., 2:] - boxes[..., :2]
        shifts = [np.tile(sides * shift, 2) for shift in ([0, 0], [0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5])]
        contrast, *shifted = _contrast(sums, boxes + shifts)
        gain = contrast - _nan_mean(shifted)
        overlap = box_ops.numpy_iou(boxes[0], boxes[1:]).max(0)
    gain[:, (overlap > MAX_OVERLAP) | np.isnan(gain[0])] = np.nan
    return gain.T


def find_swap(box_gains: np.ndarray, boxes_norm: np.ndarray, image_index: np.ndarray) -> str | None:
    """Returns the entry of SWAPS for which the evidence is significant, or None.

    Args:
        box_gains: [K, 3], see `gains`.
        boxes_norm: [K, 4] as stored.
        image_index: [K], image of each box.
    """
    evidence = {}
    for i, swap in enumerate(SWAPS, start=1):
        known = ~np.isnan(box_gains[:, [0, i]]).any(1)
        stored, transposed = box_gains[known][:, [0, i]].T
        places = np.floor((boxes_norm[known, :2] + boxes_norm[known, 2:]) / 2 * PLACES) @ [PLACES, 1]
        evidence[swap] = min(_evidence(stored, transposed, group) for group in (image_index[known], places))
    best = max(evidence, key=evidence.get)
    return best if evidence[best] >= MIN_T else None


def _evidence(stored: np.ndarray, transposed: np.ndarray, group: np.ndarray) -> float:
    """t statistic by which mean gains per group [K] exceed, if transposed, 0 and stored ones; 0 if those gain too."""
    _, index, sizes = np.unique(group, return_inverse=True, return_counts=True)
    if len(sizes) < MIN_GROUPS:
        return 0.0
    stored, transposed = (np.bincount(index, values) / sizes for values in (stored, transposed))
    if _t_statistic(stored) >= MAX_STORED_T:
        return 0.0
    return min(_t_statistic(transposed), _t_statistic(transposed - stored))


def _t_statistic(values: np.ndarray) -> float:
    return float(values.mean() / max(values.std(ddof=1) / np.sqrt(len(values)), 1e-9))


def _contrast(sums: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Mean difference in color across the sides of boxes [..., 4], from the summed-area table [H + 1, W + 1, 3].

    NaN for boxes that are small or not inside the image. Sides at the border of the image are not used.
    """
    size = np.array(sums.shape[:2]) - 1
    inside = (boxes[..., :2] >= -1).all(-1) & (boxes[..., 2:] <= size + 1).all(-1)
    valid = inside & (boxes[..., 2:] - boxes[..., :2] >= MIN_BOX_SIDE).all(-1)
    corners = np.where(valid[..., np.newaxis], boxes, 0).round().astype(int)  # an empty box has no colors
    ymin, xmin, ymax, xmax = np.moveaxis(np.clip(corners, 0, np.tile(size, 2)), -1, 0)
    dy = np.maximum(1, (STRIP * (ymax - ymin)).round().astype(int))
    dx = np.maximum(1, (STRIP * (xmax - xmin)).round().astype(int))
    strips = [  # (inside, outside) of the top, bottom, left and right side
        [(ymin, xmin, ymin + dy, xmax), (ymin - dy, xmin, ymin, xmax)],
        [(ymax - dy, xmin, ymax, xmax), (ymax, xmin, ymax + dy, xmax)],
        [(ymin, xmin, ymax, xmin + dx), (ymin, xmin - dx, ymax, xmin)],
        [(ymin, xmax - dx, ymax, xmax), (ymin, xmax, ymax, xmax + dx)],
    ]
    edges = zip(np.moveaxis(np.array(strips), 2, 0), np.tile(size, 2))
    top, left, bottom, right = (np.clip(edge, 0, length) for edge, length in edges)
    total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    colors = total / ((bottom - top) * (right - left))[..., np.newaxis]  # [4, 2, ..., 3]
    return _nan_mean(np.abs(colors[:, 0] - colors[:, 1]).mean(-1))


def _nan_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis without NaN; NaN if there is nothing else (and no warning, unlike np.nanmean)."""
    return np.nansum(values, 0) / (~np.isnan(values)).sum(0)
