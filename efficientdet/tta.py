# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Test-time augmentation: a network that looks twice."""

from collections.abc import Callable

import tensorflow as tf

Levels = tuple[list[tf.Tensor], list[tf.Tensor]]  # cls_outputs, box_outputs


def flip_averaged(
    network: Callable[[tf.Tensor], Levels], num_anchors_per_location: int
) -> Callable[[tf.Tensor], Levels]:
    """A network whose outputs are the means of those for an image and, turned back, those for its mirror image.

    The grids of anchors are their own mirror images, so outputs meet anchor by anchor, before any suppression.

    Args:
        network: [B, height, width, 3] -> class logits and box codes, a list over the levels of [B, Hl, Wl, A * C] and
            [B, Hl, Wl, A * 4].
        num_anchors_per_location: A.
    """
    # [ty, tx, th, tw] of every anchor: in a mirror only the way to the right changes its sign.
    signs = tf.tile(tf.constant([1.0, -1.0, 1.0, 1.0]), [num_anchors_per_location])

    def averaged(inputs: tf.Tensor) -> Levels:
        cls_outputs, box_outputs = network(inputs)
        cls_mirrored, box_mirrored = network(tf.reverse(inputs, [2]))
        cls_outputs = [(a + tf.reverse(b, [2])) / 2 for a, b in zip(cls_outputs, cls_mirrored)]
        box_outputs = [(a + signs * tf.reverse(b, [2])) / 2 for a, b in zip(box_outputs, box_mirrored)]
        return cls_outputs, box_outputs

    return averaged
