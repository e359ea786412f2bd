# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Hard and soft non-maximum suppression of one image and one class."""

import tensorflow as tf

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
