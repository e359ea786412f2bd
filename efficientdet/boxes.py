# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Functions of boxes [ymin, xmin, ymax, xmax]: area, IoU and its variants, encoding, decoding, clipping."""

import math

import numpy as np
import tensorflow as tf

# `encode` clamps sides to at least this, so that no logarithm or quotient is infinite.
MIN_SIDE = 1e-8
# `decode` clamps th and tw, so that a side is at most e**10 = 22,000 anchor sides, more than any image. exp() overflows
# from 88 on, and the product of two sides from 44 on. Codes of published networks are below 6, hence unchanged.
MAX_LOG_SCALE = 10.0


def area(boxes: tf.Tensor) -> tf.Tensor:
    """Returns the area of [..., 4] boxes, [...], in the square of their unit; 0 unless both sides are positive.

    >>> float(area(tf.constant([0.0, 0.0, 2.0, 3.0])))
    6.0
    """
    ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=-1)
    return tf.nn.relu(ymax - ymin) * tf.nn.relu(xmax - xmin)


def center_size(boxes: tf.Tensor) -> tf.Tensor:
    """Converts [..., 4] boxes to [ycenter, xcenter, height, width], in the same unit.

    >>> center_size(tf.constant([0.0, 0.0, 2.0, 3.0])).numpy().tolist()
    [1.0, 1.5, 2.0, 3.0]
    """
    mins, maxs = tf.split(boxes, 2, axis=-1)
    return tf.concat([(mins + maxs) / 2, maxs - mins], -1)


def iou(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Intersection over union, element by element.

    Args:
        boxes: [..., 4] float, in any unit.
        others: [..., 4] float, in the same unit; the leading dimensions broadcast.

    Returns:
        [...] float in [0, 1]; 0 where both boxes are empty.

    Example:
        >>> float(iou(tf.constant([0.0, 0.0, 2.0, 2.0]), tf.constant([0.0, 0.0, 2.0, 4.0])))
        0.5
    """
    intersection, union = _intersection_and_union(boxes, others)
    # no_nan, here and below: background rows have no area, and one NaN would spread to all gradients of the batch.
    return tf.math.divide_no_nan(intersection, union)


def giou(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Generalized IoU, element by element; arguments as in `iou`.

    Returns:
        [...] float in [-1, 1]: 1 for equal boxes, below 0 where a gap dominates.

    Example:
        >>> float(giou(tf.constant([0.0, 0.0, 1.0, 1.0]), tf.constant([0.0, 3.0, 1.0, 4.0])))
        -0.5

    Reference: Rezatofighi et al., CVPR 2019, algorithm 1 (https://arxiv.org/abs/1902.09630).
    """
    intersection, union = _intersection_and_union(boxes, others)
    hull = area(_hull(boxes, others))
    return tf.math.divide_no_nan(intersection, union) - tf.math.divide_no_nan(hull - union, hull)


def diou(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Distance IoU, element by element; arguments as in `iou`.

    Returns:
        [...] float in [-1, 1]: IoU - d**2 / c**2, d the distance of the centers, c the diagonal of the common hull.

    Example:
        >>> round(float(diou(tf.constant([0.0, 0.0, 2.0, 2.0]), tf.constant([0.0, 0.0, 2.0, 4.0]))), 4)
        0.45

    Reference: Zheng et al., AAAI 2020, equation 7 (https://arxiv.org/abs/1911.08287).
    """
    distance = (center_size(boxes) - center_size(others))[..., :2]
    diagonal = center_size(_hull(boxes, others))[..., 2:]
    distance2, diagonal2 = (tf.reduce_sum(tf.square(vector), -1) for vector in (distance, diagonal))
    return iou(boxes, others) - tf.math.divide_no_nan(distance2, diagonal2)


def ciou(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Complete IoU, element by element; arguments as in `iou`.

    Returns:
        [...] float in (-2, 1]: DIoU - w * v, v = 4 / pi**2 * (atan(w1 / h1) - atan(w2 / h2))**2, w = v / (1 - IoU + v).
        Negative sides count as 0. As in the paper, w is a constant to the gradient. The gradient of v is exact; the
        published code has none with respect to the prediction.

    Example:
        >>> round(float(ciou(tf.constant([0.0, 0.0, 2.0, 2.0]), tf.constant([0.0, 0.0, 2.0, 4.0]))), 4)
        0.4468

    Reference: Zheng et al., AAAI 2020, equations 8 to 11 (https://arxiv.org/abs/1911.08287).
    """
    penalty = tf.square((_diagonal_angle(boxes) - _diagonal_angle(others)) * (2 / math.pi))
    weight = tf.stop_gradient(tf.math.divide_no_nan(penalty, 1 - iou(boxes, others) + penalty))
    return diou(boxes, others) - weight * penalty


IOU_TYPES = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou}


def numpy_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`iou` for NumPy arrays, in their precision; float64 gives exact comparisons with 0.5.

    Arguments and result as in `iou`: the leading dimensions broadcast, so [K, 1, 4] and [N, 4] give [K, N].

    >>> numpy_iou(np.array([[[0.0, 0.0, 2.0, 2.0]]]), np.array([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 4.0]])).tolist()
    [[1.0, 0.5]]
    """
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    intersection = np.maximum(sides, 0).prod(-1)
    areas = [np.maximum(array[..., 2:] - array[..., :2], 0).prod(-1) for array in (boxes, others)]
    union = areas[0] + areas[1] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def to_xywh(boxes: np.ndarray) -> np.ndarray:
    """Converts [K, 4] boxes to COCO's [xmin, ymin, width, height], [K, 4] float64 in the same unit.

    >>> to_xywh(np.array([[10, 20, 40, 80]])).tolist()
    [[20.0, 10.0, 60.0, 30.0]]
    """
    ymin, xmin, ymax, xmax = np.reshape(boxes, [-1, 4]).astype(np.float64).T
    return np.stack([xmin, ymin, xmax - xmin, ymax - ymin], -1)


def encode(boxes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
    """Encodes boxes relative to anchors, as targets of the box head.

    Args:
        boxes: [..., 4] float, pixels.
        anchors: [..., 4] float, pixels; one per box.

    Returns:
        [..., 4] float, [ty, tx, th, tw]: ty = (ycenter - anchor ycenter) / anchor height, th = log(height / anchor
        height), and likewise tx and tw.

    Example:
        >>> encode(tf.constant([0.0, 0.0, 4.0, 4.0]), tf.constant([1.0, 0.0, 5.0, 4.0])).numpy().tolist()
        [-0.25, 0.0, 0.0, 0.0]

    Reference: Girshick et al., CVPR 2014, appendix C (https://arxiv.org/abs/1311.2524).
    """
    centers, sizes = tf.split(center_size(boxes), 2, axis=-1)
    anchor_centers, anchor_sizes = tf.split(center_size(anchors), 2, axis=-1)
    sizes, anchor_sizes = tf.maximum(sizes, MIN_SIDE), tf.maximum(anchor_sizes, MIN_SIDE)
    return tf.concat([(centers - anchor_centers) / anchor_sizes, tf.math.log(sizes / anchor_sizes)], -1)


def decode(codes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
    """Inverts `encode`: codes [..., 4] and anchors [..., 4] in pixels -> boxes [..., 4] in pixels, always finite.

    >>> decode(tf.constant([-0.25, 0.0, 0.0, 0.0]), tf.constant([1.0, 0.0, 5.0, 4.0])).numpy().tolist()
    [0.0, 0.0, 4.0, 4.0]
    """
    shifts, log_scales = tf.split(codes, 2, axis=-1)
    anchor_centers, anchor_sizes = tf.split(center_size(anchors), 2, axis=-1)
    centers = shifts * anchor_sizes + anchor_centers
    half_sizes = tf.exp(tf.minimum(log_scales, MAX_LOG_SCALE)) * anchor_sizes / 2
    return tf.concat([centers - half_sizes, centers + half_sizes], -1)


def clip(boxes: tf.Tensor, height: float, width: float) -> tf.Tensor:
    """Clips [..., 4] boxes to an image [0, height] x [0, width], in the same unit.

    >>> clip(tf.constant([-1.0, 2.0, 30.0, 40.0]), height=20, width=50).numpy().tolist()
    [0.0, 2.0, 20.0, 40.0]
    """
    return tf.clip_by_value(boxes, 0.0, tf.constant([height, width, height, width], boxes.dtype))


def _intersection_and_union(boxes: tf.Tensor, others: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # Per coordinate, so that [K, 1, 4] and [N, 4] never allocate [K, N, 4].
    ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=-1)
    other_ymin, other_xmin, other_ymax, other_xmax = tf.unstack(others, axis=-1)
    height = tf.nn.relu(tf.minimum(ymax, other_ymax) - tf.maximum(ymin, other_ymin))
    width = tf.nn.relu(tf.minimum(xmax, other_xmax) - tf.maximum(xmin, other_xmin))
    intersection = height * width
    return intersection, area(boxes) + area(others) - intersection


def _hull(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Returns the smallest boxes that enclose both."""
    return tf.concat([tf.minimum(boxes[..., :2], others[..., :2]), tf.maximum(boxes[..., 2:], others[..., 2:])], -1)


def _diagonal_angle(boxes: tf.Tensor) -> tf.Tensor:
    """Returns atan(width / height) in [0, pi / 2); 0 for a box without height. Negative sides count as 0."""
    heights, widths = tf.unstack(tf.nn.relu(center_size(boxes)[..., 2:]), axis=-1)
    return tf.atan(tf.math.divide_no_nan(widths, heights))
