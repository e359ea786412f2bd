# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Horizontal-flip test-time augmentation."""

from collections.abc import Callable

import tensorflow as tf

Levels = tuple[list[tf.Tensor], list[tf.Tensor]]  # cls_outputs, box_outputs


def flip_averaged(
    network: Callable[[tf.Tensor], Levels], num_anchors_per_location: int
) -> Callable[[tf.Tensor], Levels]:
    """Returns a network that averages the outputs for an image and the flipped-back outputs for its mirror image.

    Anchor grids are symmetric, so the outputs are averaged per anchor, before non-maximum suppression.

    Args:
        network: [B, height, width, 3] -> class logits and box codes, per level [B, Hl, Wl, A * C] and
            [B, Hl, Wl, A * 4].
        num_anchors_per_location: A.
    """
    signs = tf.tile(tf.constant([1.0, -1.0, 1.0, 1.0]), [num_anchors_per_location])  # a flip negates tx of ty,tx,th,tw

    def averaged(inputs: tf.Tensor) -> Levels:
        cls_outputs, box_outputs = network(inputs)
        cls_mirrored, box_mirrored = network(tf.reverse(inputs, [2]))
        cls_outputs = [(a + tf.reverse(b, [2])) / 2 for a, b in zip(cls_outputs, cls_mirrored)]
        box_outputs = [(a + signs * tf.reverse(b, [2])) / 2 for a, b in zip(box_outputs, box_mirrored)]
        return cls_outputs, box_outputs

    return averaged
