# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Training losses: focal loss on classes, Huber and IoU losses on boxes."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from efficientdet import boxes as box_ops
from efficientdet.anchors import concat_levels

IGNORED = -2  # class target of an anchor that must not count; -1 is background


class LossOptions(NamedTuple):
    """What `detection_loss` is made of; the names are those of the configuration."""

    alpha: float  # weight of positives in the focal loss; negatives have 1 - alpha
    gamma: float  # focusing exponent of the focal loss
    label_smoothing: float
    delta: float  # error from which the Huber loss is linear
    box_loss_weight: float
    iou_loss_type: str | None  # None, or a key of boxes.IOU_TYPES
    iou_loss_weight: float


def names(options: LossOptions) -> tuple[str, ...]:
    """What `detection_loss` returns."""
    return ("cls_loss", "box_loss", *(["box_iou_loss"] if options.iou_loss_type else []), "det_loss")


def focal_loss(
    cls_outputs: tf.Tensor,
    cls_targets: tf.Tensor,
    *,
    alpha: float,
    gamma: float,
    label_smoothing: float,
    normalizer: tf.Tensor,
) -> tf.Tensor:
    """Focal loss of one level.

    Args:
        cls_outputs: [B, Hl, Wl, A * C] float32 logits.
        cls_targets: [B, Hl, Wl, A] int32: class in [0, C), -1 background, -2 ignored.
        alpha: weight of positives in [0, 1]; negatives have 1 - alpha.
        gamma: focusing exponent, 0 or more.
        label_smoothing: in [0, 1): targets of the cross entropy move from 0 and 1 to half of it; the focusing factor
            still sees 0 and 1.
        normalizer: [] float32, the sum is divided by it.

    Returns:
        [] float32.

    Reference: Lin et al., ICCV 2017, equation 5 (https://arxiv.org/abs/1708.02002).
    """
    num_classes = cls_outputs.shape[-1] // cls_targets.shape[-1]
    logits, targets = tf.reshape(cls_outputs, [-1, num_classes]), tf.reshape(cls_targets, [-1])
    classes, is_positive = tf.maximum(targets, 0), targets >= 0
    weights = tf.where(targets == IGNORED, 0.0, 1 / normalizer)  # of an anchor
    wrong = functools.partial(_loss_of_wrong, gamma=gamma, label_smoothing=label_smoothing)

    # The logits are the largest tensor of training, and nearly all of them are of a wrong class: all count as such,
    # then the one of each anchor's class is put right, of which the negated logit is that of being wrong. With a
    # gradient of its own, as TensorFlow would go over the logits about three times as often.
    @tf.custom_gradient
    def loss(logits):
        logit = tf.gather(logits, classes, batch_dims=1)
        (all_wrong, slope), (as_wrong, slope_as_wrong), (as_right, slope_as_right) = map(wrong, (logits, logit, -logit))
        by_anchor = (1 - alpha) * tf.reduce_sum(all_wrong, -1)
        by_anchor += tf.where(is_positive, alpha * as_right - (1 - alpha) * as_wrong, 0.0)

        def gradient(upstream):
            with tf.control_dependencies([upstream]):  # not before it is needed, as it needs memory
                factor = upstream * weights
                change = -alpha * slope_as_right() - (1 - alpha) * slope_as_wrong()
                change = tf.where(is_positive, factor * change, 0.0)
                places = tf.stack([tf.range(tf.size(classes)), classes], -1)
                return tf.tensor_scatter_nd_add(((1 - alpha) * factor)[:, None] * slope(), places, change)

        return tf.reduce_sum(weights * by_anchor), gradient

    return loss(logits)


def _loss_of_wrong(
    logits: tf.Tensor, gamma: float, label_smoothing: float
) -> tuple[tf.Tensor, Callable[[], tf.Tensor]]:
    """p^gamma * cross entropy, with p = sigmoid(logit) of an answer that is wrong; and how to get its derivative."""
    softplus = tf.nn.softplus(logits)  # -log(1 - p)
    log_p, smoothed = logits - softplus, 0.5 * label_smoothing
    factor = tf.exp(gamma * log_p)
    cross_entropy = softplus - smoothed * logits if label_smoothing else softplus

    def derivative() -> tf.Tensor:
        p = tf.exp(log_p)
        return factor * (gamma * (1 - p) * cross_entropy + (p - smoothed if label_smoothing else p))

    return factor * cross_entropy, derivative


def box_loss(box_outputs: tf.Tensor, box_targets: tf.Tensor, *, delta: float, normalizer: tf.Tensor) -> tf.Tensor:
    """Huber loss of box codes.

    Args:
        box_outputs: [..., 4] float32 codes.
        box_targets: [..., 4] float32 codes. What is exactly 0 counts as background: so published checkpoints were
            trained, though one coordinate of a matched anchor can be 0, too, and then has no loss.
        delta: error from which the loss is linear.
        normalizer: [] float32, the number of anchors that the sum is divided by.

    Returns:
        [] float32.

    Reference: Girshick, ICCV 2015, section 2.3 (https://arxiv.org/abs/1504.08083), there with delta 1.
    """
    error = tf.abs(box_outputs - box_targets)
    quadratic = tf.minimum(error, delta)
    huber = quadratic * (error - 0.5 * quadratic)
    return tf.reduce_sum(tf.where(box_targets != 0, huber, 0.0)) / (4 * normalizer)


def box_iou_loss(
    box_outputs: tf.Tensor, box_targets: tf.Tensor, anchors: tf.Tensor, *, iou_type: str, normalizer: tf.Tensor
) -> tf.Tensor:
    """1 - IoU of decoded boxes, with any IoU of `boxes.IOU_TYPES`.

    Args:
        box_outputs: [B, N, 4] float32 codes.
        box_targets: [B, N, 4] float32 codes; what is exactly 0 does not count, see `box_loss`.
        anchors: [N, 4] float32, pixels.
        iou_type: "iou", "giou", "diou" or "ciou".
        normalizer: [] float32, the number of anchors that the sum is divided by.

    Returns:
        [] float32.
    """
    mask = tf.cast(box_targets != 0, box_outputs.dtype)
    outputs, targets = (box_ops.decode(codes, anchors) * mask for codes in (box_outputs, box_targets))
    losses = 1 - box_ops.IOU_TYPES[iou_type](outputs, targets)
    return tf.reduce_sum(tf.where(box_ops.area(targets) > 0, losses, 0.0)) / (4 * normalizer)


def detection_loss(
    cls_outputs: Sequence[tf.Tensor],
    box_outputs: Sequence[tf.Tensor],
    labels: Mapping[str, Sequence[tf.Tensor]],
    *,
    options: LossOptions,
    anchors: tf.Tensor,
    normalizer: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """All losses of the outputs of the network, without weight decay.

    Args:
        cls_outputs: a level, [B, Hl, Wl, A * C] float32 logits.
        box_outputs: a level, [B, Hl, Wl, A * 4] float32 codes.
        labels: cls_targets, a level [B, Hl, Wl, A] int32, and box_targets, a level [B, Hl, Wl, A * 4] float32.
        options: weights and shapes of the losses.
        anchors: [N, 4] float32, pixels.
        normalizer: [] float32: the positive anchors of the batch (of all replicas, where there are several), plus 1.

    Returns:
        cls_loss, box_loss, box_iou_loss (only with an iou_loss_type), and det_loss, their weighted sum: [] float32.
    """
    focal = (
        focal_loss(
            *level,
            alpha=options.alpha,
            gamma=options.gamma,
            label_smoothing=options.label_smoothing,
            normalizer=normalizer,
        )
        for level in zip(cls_outputs, labels["cls_targets"])
    )
    codes, code_targets = concat_levels(box_outputs, 4), concat_levels(labels["box_targets"], 4)
    losses = {
        "cls_loss": tf.add_n(list(focal)),
        "box_loss": box_loss(codes, code_targets, delta=options.delta, normalizer=normalizer),
    }
    total = losses["cls_loss"] + options.box_loss_weight * losses["box_loss"]
    if options.iou_loss_type:
        losses["box_iou_loss"] = box_iou_loss(
            codes, code_targets, anchors, iou_type=options.iou_loss_type, normalizer=normalizer
        )
        total += options.iou_loss_weight * losses["box_iou_loss"]
    return {**losses, "det_loss": total}
