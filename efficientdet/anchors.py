# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Anchor boxes, and the conversion between feature maps and lists of anchors."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

Maps = Sequence[tf.Tensor]  # one per level, finest first


def feature_sizes(image_size: tuple[int, int], max_level: int) -> list[tuple[int, int]]:
    """Returns the (height, width) of levels 0..max_level; each is half of the previous one, rounded up.

    >>> feature_sizes((640, 480), max_level=3)
    [(640, 480), (320, 240), (160, 120), (80, 60)]
    """
    return [tuple(-(-side // 2**level) for side in image_size) for level in range(max_level + 1)]


def concat_levels(outputs: Maps, depth: int) -> tf.Tensor:
    """Concatenates maps [B, Hl, Wl, A * depth] per level to [B, N, depth], in the order of `Anchors.boxes`.

    >>> concat_levels([tf.zeros([1, 4, 4, 9 * 2]), tf.zeros([1, 2, 2, 9 * 2])], depth=2).shape
    TensorShape([1, 180, 2])
    """
    return tf.concat(split_anchors(outputs, depth), 1)


def split_anchors(outputs: Maps, depth: int) -> list[tf.Tensor]:
    """Reshapes maps [B, Hl, Wl, A * depth] per level to [B, Hl * Wl * A, depth] per level.

    >>> [level.shape[1] for level in split_anchors([tf.zeros([1, 4, 4, 18]), tf.zeros([1, 2, 2, 18])], depth=2)]
    [144, 36]
    """
    # The number of anchors is computed statically; only the batch size may be unknown.
    return [tf.reshape(output, [-1, math.prod(output.shape[1:]) // depth, depth]) for output in outputs]


def gather_anchors(outputs: Maps, indices: tf.Tensor, depth: int) -> tf.Tensor:
    """Gathers rows of `concat_levels(outputs, depth)` without concatenating the levels.

    Args:
        outputs: per level, [B, Hl, Wl, A * depth].
        indices: [B, D] int32 in [0, N).
        depth: values per anchor.

    Returns:
        [B, D, depth], of the dtype of outputs.

    Example:
        >>> levels = [tf.reshape([1.0, 2.0, 3.0, 4.0], [1, 2, 2, 1]), tf.reshape([5.0], [1, 1, 1, 1])]
        >>> gather_anchors(levels, tf.constant([[4, 0]]), depth=1).numpy().tolist()
        [[[5.0], [1.0]]]
    """
    rows, start = None, 0
    for level in split_anchors(outputs, depth):
        index = tf.clip_by_value(indices - start, 0, level.shape[1] - 1)
        found = tf.gather(level, index, batch_dims=1)
        # Indices from `start` on belong to this level or a later one, which then overwrites them.
        rows = found if rows is None else tf.where(indices[..., tf.newaxis] < start, rows, found)
        start += level.shape[1]
    return rows


class Anchors:
    """The anchor boxes of one image size.

    Attributes:
        image_size: (height, width) in pixels.
        feat_sizes: (height, width) of the feature maps, min_level..max_level.
        num_anchors_per_location: A = num_scales * len(aspect_ratios).
        boxes: [N, 4] float32 NumPy array, pixels, not clipped to the image; sorted by level, y, x, scale, aspect ratio.

    Example:
        >>> sizes = {"min_level": 3, "max_level": 7, "num_scales": 3, "anchor_scale": 4.0}
        >>> anchors = Anchors((512, 512), aspect_ratios=[1.0, 2.0, 0.5], **sizes)
        >>> anchors.boxes.shape, anchors.boxes[0].tolist()
        ((49104, 4), [-12.0, -12.0, 20.0, 20.0])
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
    ) -> None:
        """Creates the boxes.

        Args:
            image_size: (height, width) in pixels; need not be a multiple of the strides.
            min_level, max_level: finest and coarsest level.
            num_scales: scales per octave; scale i is 2 ** (i / num_scales).
            aspect_ratios: width / height at unit area, or a pair (x, y) of factors for width and height.
            anchor_scale: side of the square anchor at scale 0, in strides; one number, or one per level.

        Raises:
            ValueError: if anchor_scale does not have one value per level, or an aspect ratio is no number or pair.

        Reference: Lin et al., ICCV 2017, section 4 (https://arxiv.org/abs/1708.02002).
        """
        num_levels = max_level - min_level + 1
        scales = list(anchor_scale) if isinstance(anchor_scale, Sequence) else [anchor_scale] * num_levels
        if len(scales) != num_levels:
            raise ValueError(
                f"anchor_scale must be one number or one per level ({num_levels} for levels {min_level} to "
                f"{max_level}), got {len(scales)}: {anchor_scale}"
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
    """Returns the (height, width) factors of an entry of aspect_ratios."""
    if not isinstance(ratio, Sequence):
        return 1 / math.sqrt(ratio), math.sqrt(ratio)
    if len(ratio) != 2:
        raise ValueError(f"an aspect ratio must be a number or a pair (x, y), got {ratio!r}")
    x, y = ratio
    return y, x


def _level_boxes(image_size: tuple[int, int], feat_size: tuple[int, int], shapes: np.ndarray) -> np.ndarray:
    """Returns the boxes of one level, [h * w * A, 4] float64; shapes [A, 2] are (height, width) in strides."""
    # Not 2 ** level: if a side is no multiple of it, all cells are equally a little smaller.
    strides = np.divide(image_size, feat_size)
    ys, xs = ((np.arange(size) + 0.5) * stride for size, stride in zip(feat_size, strides))
    centers = np.stack(np.meshgrid(ys, xs, indexing="ij"), -1)[:, :, np.newaxis]  # [h, w, 1, 2]
    half_sizes = shapes * strides / 2  # [A, 2]
    return np.concatenate([centers - half_sizes, centers + half_sizes], -1).reshape(-1, 4)
