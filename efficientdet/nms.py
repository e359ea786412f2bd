# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Hard and soft non-maximum suppression of one image and one class."""

from typing import NamedTuple

import tensorflow as tf


class NmsOptions(NamedTuple):
    """Which detections are kept; the names are those of `nms_configs`."""

    method: str | None  # "gaussian", or "hard", which None and "" mean, too
    iou_thresh: float | None  # hard: IoU above which the weaker box goes; None: 0.5
    score_thresh: float | None  # scores must be above; None or 0: 0.001 for gaussian, none for hard
    sigma: float | None  # gaussian: scores decay by exp(-iou^2 / sigma); None: 0.5
    max_nms_inputs: int  # candidates (anchor and class) an image; 0: every anchor with its best class
    max_output_size: int  # D, detections an image


def nms(boxes: tf.Tensor, scores: tf.Tensor, options: NmsOptions) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Chooses boxes by falling score; each removes (hard) or weakens (gaussian) the later ones that overlap with it.

    Args:
        boxes: [K, 4] float32, [ymin, xmin, ymax, xmax] in any unit.
        scores: [K] float32.
        options: all but max_nms_inputs is used.

    Returns:
        indices: [D] int32 into boxes, by falling score; 0 from valid_len on.
        scores: [D] float32, after decay; 0 from valid_len on.
        valid_len: [] int32.

    Raises:
        ValueError: for another method.

    Reference: Bodla et al., ICCV 2017, equation 3 (https://arxiv.org/abs/1704.04503), for gaussian.
    """
    if options.method in ("hard", None, ""):
        iou_thresh, sigma = hard_iou_thresh(options), 0.0
    elif options.method == "gaussian":
        # With sigma above 0 the op ignores the IoU threshold in TensorFlow, but not in TFLite: there 1 is the mildest.
        iou_thresh, sigma = 1.0, soft_sigma(options)
    else:
        raise ValueError(f"nms_configs.method must be 'hard' or 'gaussian', got {options.method!r}")
    return tf.raw_ops.NonMaxSuppressionV5(
        boxes=boxes,
        scores=scores,
        max_output_size=options.max_output_size,
        iou_threshold=iou_thresh,
        score_threshold=least_score(options),
        soft_nms_sigma=sigma / 2,  # the op decays by exp(-iou^2 / (2 sigma))
        pad_to_max_output_size=True,
    )


def hard_iou_thresh(options: NmsOptions) -> float:
    """IoU above which hard suppression removes the weaker box."""
    return options.iou_thresh or 0.5


def soft_sigma(options: NmsOptions) -> float:
    """How slowly gaussian suppression weakens a box: its score is multiplied by exp(-iou^2 / sigma)."""
    return options.sigma or 0.5


def least_score(options: NmsOptions) -> float:
    """What a score has to be above; -inf where any will do."""
    return options.score_thresh or (0.001 if options.method == "gaussian" else float("-inf"))
