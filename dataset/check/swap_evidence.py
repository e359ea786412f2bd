# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Whether x and y of the boxes are swapped, told from the pixels alone.

A box around an object has another color outside its sides than inside, more so than the same box moved by half its
side. Boxes in the wrong place do not gain from their place. If those that stand in the records do not, but their
transposed twins do, over so many images that chance is excluded, then x and y are swapped.

Images of a fixed camera are not independent: what stands in the background stands there in all of them, and one sign
may happen to lie where the twins are. So the boxes of one place count once, however many images have them, as those of
one image do, and the twins have to gain at many places.
"""

import numpy as np

from dataset.check import box_layouts

HYPOTHESES = (None, "boxes_swapped", "boxes_swapped_in_pixels")  # None: boxes are as they should be
MAX_SIDE = 512  # pixels; of larger images, every second, third, ... pixel is looked at
MIN_BOX_SIDE = 6  # pixels
MAX_OVERLAP = 0.3  # IoU of a box with its twin; above, they tell little apart
STRIP = 0.12  # width of the strips inside and outside a side, in sides of the box
MIN_GROUPS = 15  # images, and places as well
PLACES = 8  # along a side of the image, told apart by the center of a box
# Standard errors. Chance reaches 5 once in 3 million data sets.
PROOF, NO_PROOF = 5.0, 2.0


def gains(image: np.ndarray, boxes_norm: np.ndarray) -> np.ndarray:
    """How much each box of one image gains from its place, under each of HYPOTHESES.

    Args:
        image: uint8 [H, W, 3].
        boxes_norm: [K, 4] as the record holds them.

    Returns:
        [K, 3] in gray levels; NaN where a box does not tell the hypotheses apart.
    """
    step = -(-max(image.shape[:2]) // MAX_SIDE)
    image = image[::step, ::step]
    size = np.tile(image.shape[:2], 2)
    with np.errstate(invalid="ignore", over="ignore"):
        candidates = [boxes_norm * size] + [box_layouts.LAYOUTS[key].repair(boxes_norm, size) for key in HYPOTHESES[1:]]
    sums = np.pad(image.cumsum(0, dtype=np.int64).cumsum(1), [(1, 0), (1, 0), (0, 0)])
    gain = _gain(sums, np.stack(candidates))  # [3, K]
    tells = np.all([_overlaps(candidates[0], twin) <= MAX_OVERLAP for twin in candidates[1:]], axis=0)
    gain[:, ~tells | np.isnan(gain[0])] = np.nan
    return gain.T


def verdict(box_gains: np.ndarray, boxes_norm: np.ndarray, image_index: np.ndarray) -> str | None:
    """The key of box_layouts.LAYOUTS that the boxes of many images prove, or None.

    Args:
        box_gains: [K, 3], see `gains`.
        boxes_norm: [K, 4] as the records hold them.
        image_index: [K], the image of each.
    """
    proofs = {}
    for i, layout in enumerate(HYPOTHESES[1:], start=1):
        tells = ~np.isnan(box_gains[:, [0, i]]).any(axis=1)
        pairs = box_gains[tells][:, [0, i]]
        places = np.floor((boxes_norm[tells, :2] + boxes_norm[tells, 2:]) / 2 * PLACES) @ [PLACES, 1]
        proofs[layout] = min(_proof(pairs, image_index[tells]), _proof(pairs, places))
    best = max(proofs, key=proofs.get)
    return best if proofs[best] >= PROOF else None


def _proof(pairs: np.ndarray, group: np.ndarray) -> float:
    """How far the twins' gains are beyond chance, in standard errors; 0 where the stored boxes gain as well.

    Args:
        pairs: [K, 2], gains of a stored box and of its twin.
        group: [K]; boxes of one group count once.
    """
    _, index, sizes = np.unique(group, return_inverse=True, return_counts=True)
    if len(sizes) < MIN_GROUPS:
        return 0.0
    stored, twin = (np.bincount(index, gains) / sizes for gains in pairs.T)
    return min(_errors(twin), _errors(twin - stored)) if _errors(stored) < NO_PROOF else 0.0


def _errors(values: np.ndarray) -> float:
    """The mean in standard errors: the t statistic."""
    return float(values.mean() / max(values.std(ddof=1) / np.sqrt(len(values)), 1e-9))


def _gain(sums: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Contrast of boxes [..., 4] less that of the same boxes moved by half a side in each direction: [...]."""
    sides = boxes[..., 2:] - boxes[..., :2]
    moves = [np.tile(sides * move, 2) for move in ([0, 0], [0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5])]
    contrast = _contrast(sums, np.reshape(boxes + moves, [-1, 4])).reshape(len(moves), *boxes.shape[:-1])
    known = ~np.isnan(contrast[1:])
    with np.errstate(invalid="ignore"):
        return contrast[0] - np.where(known, contrast[1:], 0).sum(0) / known.sum(0)


def _contrast(sums: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Mean difference in color across the four sides of boxes: [K] gray levels; NaN for those that are not all inside.

    Sides at the border of the image have no outside, and do not count.
    """
    height, width = np.array(sums.shape[:2]) - 1
    with np.errstate(invalid="ignore"):
        inside = (boxes[:, :2] >= -1).all(1) & (boxes[:, 2] <= height + 1) & (boxes[:, 3] <= width + 1)
        valid = inside & (boxes[:, 2:] - boxes[:, :2] >= MIN_BOX_SIDE).all(1)
    corners = np.where(valid[:, None], boxes, 0).round().astype(int)
    ymin, xmin, ymax, xmax = np.clip(corners, 0, [height, width, height, width]).T
    dy = np.maximum(1, (STRIP * (ymax - ymin)).round().astype(int))
    dx = np.maximum(1, (STRIP * (xmax - xmin)).round().astype(int))
    pairs = [  # (inside, outside) of the top, bottom, left and right side
        ((ymin, xmin, ymin + dy, xmax), (ymin - dy, xmin, ymin, xmax)),
        ((ymax - dy, xmin, ymax, xmax), (ymax, xmin, ymax + dy, xmax)),
        ((ymin, xmin, ymax, xmin + dx), (ymin, xmin - dx, ymax, xmin)),
        ((ymin, xmax - dx, ymax, xmax), (ymin, xmax, ymax, xmax + dx)),
    ]
    differences = np.stack([np.abs(_color(sums, *one) - _color(sums, *other)).mean(1) for one, other in pairs])
    known = ~np.isnan(differences) & valid
    with np.errstate(invalid="ignore"):
        return np.where(known, differences, 0).sum(0) / known.sum(0)


def _color(sums: np.ndarray, ymin, xmin, ymax, xmax) -> np.ndarray:
    """Mean color [K, 3] of regions, from the sums of all pixels above and left; NaN where a region is empty."""
    height, width = np.array(sums.shape[:2]) - 1
    ymin, ymax = np.clip(ymin, 0, height), np.clip(ymax, 0, height)
    xmin, xmax = np.clip(xmin, 0, width), np.clip(xmax, 0, width)
    total = sums[ymax, xmax] - sums[ymin, xmax] - sums[ymax, xmin] + sums[ymin, xmin]
    with np.errstate(invalid="ignore"):
        return total / ((ymax - ymin) * (xmax - xmin))[:, None]


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[K] IoU of boxes with others, one by one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        sides = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
        overlap = np.maximum(sides, 0).prod(1)
        areas = [(array[:, 2:] - array[:, :2]).prod(1) for array in (boxes, others)]
        return overlap / (areas[0] + areas[1] - overlap)
