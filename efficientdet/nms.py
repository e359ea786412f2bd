# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Hard and soft non-maximum suppression, by one operation of TensorFlow or by operations that XLA compiles."""

import tensorflow as tf

from efficientdet import boxes as box_ops
from efficientdet.config import NmsConfig


def nms(boxes: tf.Tensor, scores: tf.Tensor, config: NmsConfig) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Selects boxes in descending order of score.

    A selected box removes the remaining boxes that overlap it (hard), or multiplies their scores by
    exp(-iou**2 / sigma) (gaussian).

    Args:
        boxes: [K, 4] float32, [ymin, xmin, ymax, xmax] in any unit.
        scores: [K] float32.
        config: method, thresholds and max_output_size D; max_nms_inputs is not used.

    Returns:
        indices: [D] int32 into boxes, in descending order of score; 0 from valid_len on.
        scores: [D] float32, after decay; 0 from valid_len on.
        valid_len: [] int32.

    Example:
        >>> boxes = tf.constant([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 3.0], [5.0, 5.0, 6.0, 6.0]])
        >>> config = NmsConfig(method="hard", max_output_size=3)
        >>> indices, _, valid_len = nms(boxes, tf.constant([0.5, 0.75, 0.25]), config)
        >>> indices[: int(valid_len)].numpy().tolist()
        [1, 2]

    Reference: Bodla et al., ICCV 2017, equation 3 (https://arxiv.org/abs/1704.04503), for gaussian.
    """
    is_soft = config.method == "gaussian"
    return tf.raw_ops.NonMaxSuppressionV5(
        boxes=boxes,
        scores=scores,
        max_output_size=config.max_output_size,
        # With sigma > 0, TensorFlow ignores the IoU threshold but TFLite applies it; 1 disables it there too.
        iou_threshold=1.0 if is_soft else config.hard_iou_thresh,
        score_threshold=config.min_score,
        soft_nms_sigma=config.soft_sigma / 2 if is_soft else 0.0,  # the op decays by exp(-iou**2 / (2 * sigma))
        pad_to_max_output_size=True,
    )


def static_nms(
    boxes: tf.Tensor, scores: tf.Tensor, config: NmsConfig, classes: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`nms` of a batch by operations that XLA compiles: all shapes are static. Results are equal up to rounding.

    Args:
        boxes: [B, K, 4] float32, [ymin, xmin, ymax, xmax] in any unit.
        scores: [B, K] float32.
        config: see `nms`.
        classes: [B, K] int32, if boxes suppress those of their own class only; None if they suppress all boxes.

    Returns:
        indices [B, D], scores [B, D] and valid_len [B], see `nms`.
    """
    size, candidates, removed = config.max_output_size, tf.range(tf.shape(scores)[1]), -float("inf")

    def select(i, remaining, selected, kept):
        best = tf.argmax(remaining, -1, output_type=tf.int32)[:, tf.newaxis]  # first of equal scores, as in `nms`
        overlaps = box_ops.iou(tf.gather(boxes, best, batch_dims=1), boxes)
        if config.method == "gaussian":
            factors = tf.exp(-tf.square(overlaps) / config.soft_sigma)
        else:
            factors = tf.where(overlaps > config.hard_iou_thresh, 0.0, 1.0)
        if classes is not None:
            factors = tf.where(classes == tf.gather(classes, best, batch_dims=1), factors, 1.0)
        is_removed = (candidates == best) | (factors == 0) | (remaining * factors <= config.min_score)
        is_slot = tf.range(size) == i
        selected = tf.where(is_slot, best, selected)
        kept = tf.where(is_slot, tf.reduce_max(remaining, -1, keepdims=True), kept)
        return i + 1, tf.where(is_removed, removed, remaining * factors), selected, kept

    remaining, shape = tf.where(scores > config.min_score, scores, removed), [tf.shape(scores)[0], size]
    state = 0, remaining, tf.zeros(shape, tf.int32), tf.fill(shape, removed)
    _, _, selected, kept = tf.while_loop(lambda i, *_: i < size, select, state)
    is_valid = kept > removed
    valid_len = tf.math.count_nonzero(is_valid, axis=-1, dtype=tf.int32)
    return tf.where(is_valid, selected, 0), tf.where(is_valid, kept, 0.0), valid_len
