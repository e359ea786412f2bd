# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tta: averaging by hand, and symmetry under a horizontal flip."""

import numpy as np
import tensorflow as tf

from efficientdet import boxes as box_ops
from efficientdet import tta
from efficientdet.anchors import Anchors, concat_levels

ANCHORS = Anchors((32, 48), min_level=3, max_level=4, num_scales=2, aspect_ratios=[1.0, 2.0], anchor_scale=4.0)  # A = 4


def network(inputs):
    """Returns outputs that vary with the position and the channel."""
    cls_outputs, box_outputs = [], []
    for height, width in ANCHORS.feat_sizes:
        features = tf.image.resize(inputs, (height, width)) + tf.reshape(tf.range(width, dtype=tf.float32) / 9, [-1, 1])
        cls_outputs.append(tf.concat([features * (i + 1) for i in range(4)], -1))  # 4 anchors of 3 classes
        box_outputs.append(tf.concat([features[..., :2] * (i + 1) / 9 for i in range(8)], -1))
    return cls_outputs, box_outputs


def boxes_of(box_outputs):
    return box_ops.decode(concat_levels(box_outputs, 4), ANCHORS.boxes)


def test_mirrored_images_have_mirrored_detections():
    inputs = tf.random.stateless_normal([2, 32, 48, 3], [1, 2])
    averaged = tta.flip_averaged(network, ANCHORS.num_anchors_per_location)
    cls_outputs, box_outputs = averaged(inputs)
    cls_mirrored, box_mirrored = averaged(tf.reverse(inputs, [2]))
    for a, b in zip(cls_outputs, cls_mirrored):
        np.testing.assert_allclose(a, b[:, :, ::-1], atol=1e-5)
    # Mirrored boxes are at mirrored cells of the grid.
    for i, (height, width) in enumerate(ANCHORS.feat_sizes):
        first = sum(h * w * 4 for h, w in ANCHORS.feat_sizes[:i])
        rows = slice(first, first + height * width * 4)
        boxes, mirrored = (
            np.reshape(boxes_of(x)[:, rows], [2, height, width, 4, 4]) for x in (box_outputs, box_mirrored)
        )
        ymin, xmin, ymax, xmax = np.moveaxis(mirrored[:, :, ::-1], -1, 0)
        np.testing.assert_allclose(boxes, np.stack([ymin, 48 - xmax, ymax, 48 - xmin], -1), atol=1e-3)


def test_flip_averaged_golden():
    """The network returns the means of the left and the right half, 1 and 5."""

    def halves(inputs):
        left = tf.reduce_mean(inputs[:, :, :4], [1, 2, 3])
        right = tf.reduce_mean(inputs[:, :, 4:], [1, 2, 3])
        cls = tf.reshape(tf.stack([left, 2 * right], -1), [-1, 1, 2, 1])
        codes = tf.reshape(tf.stack([left, left, left, left, right, right, right, right], -1), [-1, 1, 2, 4])
        return [cls], [codes]

    image = np.concatenate([np.full([1, 8, 4, 3], 1.0), np.full([1, 8, 4, 3], 5.0)], 2).astype(np.float32)
    [cls], [codes] = tta.flip_averaged(halves, 1)(tf.constant(image))
    # Image: [1, 10]. Mirror image: left is 5, right is 1, so [5, 2]; flipped back [2, 5].
    np.testing.assert_allclose(np.ravel(cls), [1.5, 7.5])
    # Image: left 1, right 5. Mirror image: [5, 1], flipped back [1, 5] with tx negated: tx cancels out.
    np.testing.assert_allclose(np.reshape(codes, [2, 4]), [[1, 0, 1, 1], [5, 0, 5, 5]])
