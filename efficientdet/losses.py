# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Training losses: focal loss of the classes, Huber and IoU losses of the boxes."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from efficientdet import boxes as box_ops
from efficientdet.anchors import concat_levels

IGNORED = -2  # class target of anchors without loss; -1 is background


class LossOptions(NamedTuple):
    """Hyper-parameters of `detection_loss`: keys of `config.Config`, which documents them."""

    alpha: float
    gamma: float
    label_smoothing: float
    delta: float
    box_loss_weight: float
    iou_loss_type: str | None
    iou_loss_weight: float


def names(options: LossOptions) -> tuple[str, ...]:
    """Returns the keys of the result of `detection_loss`.

    >>> names(LossOptions(0.25, 1.5, 0.0, 0.1, 50.0, "ciou", 1.0))
    ('cls_loss', 'box_loss', 'box_iou_loss', 'det_loss')
    """
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

    A wrong class with logit x has the loss FL_neg(x) = sigmoid(x)**gamma * softplus(x), weighted by 1 - alpha, and the
    target class FL_pos(x) = FL_neg(-x), weighted by alpha; they are summed over all anchors and classes.

    Args:
        cls_outputs: [B, Hl, Wl, A * C] float32 logits.
        cls_targets: [B, Hl, Wl, A] int32: class in [0, C), -1 background, -2 ignored.
        alpha: weight of positives in [0, 1]; negatives have 1 - alpha.
        gamma: focusing exponent, 0 or more.
        label_smoothing: s in [0, 1): cross entropy targets become 1 - s / 2 and s / 2; sigmoid(x)**gamma is unchanged.
        normalizer: [] float32, divides the sum.

    Returns:
        [] float32.

    Reference: Lin et al., ICCV 2017, equation 5 (https://arxiv.org/abs/1708.02002).
    """
    num_classes = cls_outputs.shape[-1] // cls_targets.shape[-1]
    logits, targets = tf.reshape(cls_outputs, [-1, num_classes]), tf.reshape(cls_targets, [-1])
    classes, is_positive = tf.maximum(targets, 0), targets >= 0
    anchor_weights = tf.where(targets == IGNORED, 0.0, 1 / normalizer)
    negative_loss = functools.partial(_negative_focal_loss, gamma=gamma, label_smoothing=label_smoothing)

    # The logits x [anchors, C] are the largest tensor of training. Instead of a one-hot mask of their size, FL_neg is
    # summed over all of them, and the term of the target logit x_t of positive anchors is replaced:
    #   loss = (1 - alpha) * sum(FL_neg(x)) + alpha * FL_neg(-x_t) - (1 - alpha) * FL_neg(x_t)
    # The gradient is written out because automatic differentiation passes over x about three times as often.
    @tf.custom_gradient
    def loss(logits):
        target_logits = tf.gather(logits, classes, batch_dims=1)
        negatives, negatives_slope = negative_loss(logits)
        target_negative, target_negative_slope = negative_loss(target_logits)
        target_positive, target_positive_slope = negative_loss(-target_logits)
        anchor_losses = (1 - alpha) * tf.reduce_sum(negatives, -1)
        anchor_losses += tf.where(is_positive, alpha * target_positive - (1 - alpha) * target_negative, 0.0)

        def gradient(upstream):
            # The control dependency keeps these large tensors from being computed during the forward pass.
            with tf.control_dependencies([upstream]):
                scale = upstream * anchor_weights
                target_slope = -alpha * target_positive_slope() - (1 - alpha) * target_negative_slope()
                target_slope = tf.where(is_positive, scale * target_slope, 0.0)
                indices = tf.stack([tf.range(tf.size(classes)), classes], -1)
                slopes = ((1 - alpha) * scale)[:, None] * negatives_slope()
                return tf.tensor_scatter_nd_add(slopes, indices, target_slope)

        return tf.reduce_sum(anchor_weights * anchor_losses), gradient

    return loss(logits)


def _negative_focal_loss(
    logits: tf.Tensor, gamma: float, label_smoothing: float
) -> tuple[tf.Tensor, Callable[[], tf.Tensor]]:
    """Returns FL_neg(x), the focal loss of a wrong class, and a function that computes its derivative.

    FL_neg(x) = p**gamma * CE(x) with p = sigmoid(x), CE(x) = softplus(x) - s / 2 * x, s = label_smoothing;
    FL_neg'(x) = p**gamma * (gamma * (1 - p) * CE(x) + p - s / 2).
    """
    softplus = tf.nn.softplus(logits)  # -log(1 - p)
    log_p, half_smoothing = logits - softplus, 0.5 * label_smoothing
    focus = tf.exp(gamma * log_p)
    cross_entropy = softplus - half_smoothing * logits if label_smoothing else softplus

    def derivative() -> tf.Tensor:
        p = tf.exp(log_p)
        return focus * (gamma * (1 - p) * cross_entropy + (p - half_smoothing if label_smoothing else p))

    return focus * cross_entropy, derivative


def box_loss(box_outputs: tf.Tensor, box_targets: tf.Tensor, *, delta: float, normalizer: tf.Tensor) -> tf.Tensor:
    """Huber loss of box codes.

    Args:
        box_outputs: [..., 4] float32 codes.
        box_targets: [..., 4] float32 codes. Values of exactly 0 have no loss, as in the training of the published
            checkpoints: they mark background, although a code of a matched anchor can be 0 as well.
        delta: error from which the loss is linear.
        normalizer: [] float32; the sum is divided by 4 * normalizer.

    Returns:
        [] float32.

    Example:
        >>> outputs, targets = tf.constant([0.5, 0.0, 0.0, 0.0]), tf.constant([0.25, 0.0, 0.0, 0.0])
        >>> loss = box_loss(outputs, targets, delta=0.125, normalizer=tf.constant(1.0))
        >>> float(loss)  # delta * (error - delta / 2) / 4
        0.005859375

    Reference: Girshick, ICCV 2015, section 2.3 (https://arxiv.org/abs/1504.08083), there with delta 1.
    """
    error = tf.abs(box_outputs - box_targets)
    quadratic = tf.minimum(error, delta)
    huber = quadratic * (error - 0.5 * quadratic)
    return tf.reduce_sum(tf.where(box_targets != 0, huber, 0.0)) / (4 * normalizer)


def box_iou_loss(
    box_outputs: tf.Tensor, box_targets: tf.Tensor, anchors: tf.Tensor, *, iou_type: str, normalizer: tf.Tensor
) -> tf.Tensor:
    """Sum of 1 - IoU of the decoded boxes.

    Every row is decoded with its own anchor. The published code concatenates all images per level but repeats the
    anchors per image, so that rows of a batch are decoded with other anchors; see docs/results.md.

    Args:
        box_outputs: [B, N, 4] float32 codes.
        box_targets: [B, N, 4] float32 codes; values of exactly 0 are masked, see `box_loss`.
        anchors: [N, 4] float32, pixels.
        iou_type: a key of `boxes.IOU_TYPES`.
        normalizer: [] float32; the sum is divided by 4 * normalizer.

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
    """Computes all losses of the network outputs except weight decay.

    Args:
        cls_outputs: per level, [B, Hl, Wl, A * C] float32 logits.
        box_outputs: per level, [B, Hl, Wl, A * 4] float32 codes.
        labels: per level, cls_targets [B, Hl, Wl, A] int32 and box_targets [B, Hl, Wl, A * 4] float32.
        options: hyper-parameters of the losses.
        anchors: [N, 4] float32, pixels.
        normalizer: [] float32: 1 + number of positive anchors in the batch of all replicas.

    Returns:
        cls_loss, box_loss, box_iou_loss (only with an iou_loss_type), and det_loss, their weighted sum; [] float32.
    """
    focal = functools.partial(
        focal_loss,
        alpha=options.alpha,
        gamma=options.gamma,
        label_smoothing=options.label_smoothing,
        normalizer=normalizer,
    )
    codes, code_targets = concat_levels(box_outputs, 4), concat_levels(labels["box_targets"], 4)
    losses = {
        "cls_loss": tf.add_n([focal(*level) for level in zip(cls_outputs, labels["cls_targets"])]),
        "box_loss": box_loss(codes, code_targets, delta=options.delta, normalizer=normalizer),
    }
    total = losses["cls_loss"] + options.box_loss_weight * losses["box_loss"]
    if options.iou_loss_type:
        losses["box_iou_loss"] = box_iou_loss(
            codes, code_targets, anchors, iou_type=options.iou_loss_type, normalizer=normalizer
        )
        total += options.iou_loss_weight * losses["box_iou_loss"]
    return {**losses, "det_loss": total}
