# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Anchors: the feature grids of an image size, and the boxes that stand on them."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def feature_sizes(image_size: tuple[int, int], max_level: int) -> list[tuple[int, int]]:
    """(height, width) of the feature maps of levels 0 to max_level: every level halves the one below, rounded up."""
    sizes = [tuple(image_size)]
    for _ in range(max_level):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def concat_levels(outputs: Sequence[tf.Tensor], depth: int) -> tf.Tensor:
    """Maps [B, Hl, Wl, A * depth], one a level, as one [B, N, depth] in the order of `Anchors.boxes`."""
    return tf.concat(split_anchors(outputs, depth), 1)


def split_anchors(outputs: Sequence[tf.Tensor], depth: int) -> list[tf.Tensor]:
    """Maps [B, Hl, Wl, A * depth], one a level, as [B, Hl * Wl * A, depth], one a level."""
    # The number of anchors is static, so that it stays known where the batch is not.
    return [tf.reshape(output, [-1, math.prod(output.shape[1:]) // depth, depth]) for output in outputs]


def gather_anchors(outputs: Sequence[tf.Tensor], indices: tf.Tensor, depth: int) -> tf.Tensor:
    """Rows of `concat_levels`, without the copy of everything that it makes.

    Args:
        outputs: a level, [B, Hl, Wl, A * depth].
        indices: [B, D] int32, from 0 to N - 1.
        depth: values an anchor.

    Returns:
        [B, D, depth], of the dtype of outputs.
    """
    rows, start = None, 0
    for level in split_anchors(outputs, depth):
        index = tf.clip_by_value(indices - start, 0, level.shape[1] - 1)
        found = tf.gather(level, index, batch_dims=1)
        # A level takes over from its first anchor on; what it found for the indices before is of no level.
        rows = found if rows is None else tf.where(indices[..., tf.newaxis] < start, rows, found)
        start += level.shape[1]
    return rows


class Anchors:
    """The anchor boxes of one image size, made once in NumPy.

    Attributes:
        image_size: (height, width) in pixels.
        feat_sizes: (height, width) of the feature maps, min_level to max_level.
        num_anchors_per_location: A = num_scales * len(aspect_ratios).
        boxes: [N, 4] float32, pixels, not clipped to the image; ordered by level, y, x, scale, aspect ratio.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        min_level: int,
        max_level: int,
        num_scales: int,
        aspect_ratios: Sequence[float | Sequence[float]],
        anchor_scale: float | Sequence[float],
    ):
        """Makes the boxes.

        Args:
            image_size: (height, width) in pixels; a side need not be a multiple of the strides.
            min_level: finest level.
            max_level: coarsest level.
            num_scales: scales an octave; scale i is 2 ** (i / num_scales).
            aspect_ratios: width / height at unit area, or a pair (x, y) of factors for width and height.
            anchor_scale: side of the first anchor in strides: one number, or one a level.

        Raises:
            ValueError: if anchor_scale does not have one value a level, or an aspect ratio is neither number nor pair.

        Reference: Lin et al., ICCV 2017, section 4 (https://arxiv.org/abs/1708.02002).
        """
        num_levels = max_level - min_level + 1
        scales = list(anchor_scale) if isinstance(anchor_scale, Sequence) else [anchor_scale] * num_levels
        if len(scales) != num_levels:
            raise ValueError(
                f"anchor_scale must be one number or one a level ({num_levels} for levels {min_level} to {max_level}), "
                f"got {len(scales)}: {anchor_scale}"
            )
        self.image_size = tuple(image_size)
        self.feat_sizes = feature_sizes(image_size, max_level)[min_level:]
        self.num_anchors_per_location = num_scales * len(aspect_ratios)
        # [A, 2], (height, width) in units of anchor_scale * stride.
        octaves = [2 ** (i / num_scales) for i in range(num_scales)]
        shapes = np.array([np.multiply(octave, _aspect(ratio)) for octave in octaves for ratio in aspect_ratios])
        levels = [_level_boxes(self.image_size, size, scale * shapes) for size, scale in zip(self.feat_sizes, scales)]
        self.boxes = np.concatenate(levels).astype(np.float32)


def _aspect(ratio: float | Sequence[float]) -> tuple[float, float]:
    """(height, width) factors of one entry of aspect_ratios."""
    if not isinstance(ratio, Sequence):
        return 1 / math.sqrt(ratio), math.sqrt(ratio)
    if len(ratio) != 2:
        raise ValueError(f"an aspect ratio must be a number or a pair (x, y), got {ratio!r}")
    x, y = ratio
    return y, x


def _level_boxes(image_size: tuple[int, int], feat_size: tuple[int, int], shapes: np.ndarray) -> np.ndarray:
    """Boxes [h * w * A, 4] float64 of one level; shapes [A, 2] is (height, width) in strides."""
    # Not 2 ** level: where a side does not divide, the cells are a little smaller, and all of them the same.
    strides = np.divide(image_size, feat_size)
    ys, xs = ((np.arange(size) + 0.5) * stride for size, stride in zip(feat_size, strides))
    centers = np.stack(np.meshgrid(ys, xs, indexing="ij"), -1)[:, :, np.newaxis]  # [h, w, 1, 2]
    half_sizes = shapes * strides / 2  # [A, 2]
    return np.concatenate([centers - half_sizes, centers + half_sizes], -1).reshape(-1, 4)
