# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Target assignment: which anchor answers for which groundtruth box."""

import math

import tensorflow as tf

from efficientdet import boxes as box_ops
from efficientdet.anchors import Anchors

MATCH_THRESHOLD = 0.5  # IoU from which an anchor belongs to its best box; below it is background, nothing is ignored


class AnchorLabeler:
    """Groundtruth of one image -> what the network should answer at every anchor.

    An anchor belongs to the box with which it has the highest IoU, if that is 0.5 or more. Besides, every box has its
    best anchor, however little they overlap, so that no box goes unseen; of several boxes with one best anchor the
    first gets it.

    Reference: Lin et al., ICCV 2017, section 4 (https://arxiv.org/abs/1708.02002), with one threshold instead of two.
    """

    def __init__(self, anchors: Anchors):
        self.anchors = anchors

    def label(
        self, boxes: tf.Tensor, classes: tf.Tensor
    ) -> tuple[tuple[tf.Tensor, ...], tuple[tf.Tensor, ...], tf.Tensor]:
        """Assigns the boxes of one image to anchors; works in eager mode, in graphs and in `tf.data`.

        Args:
            boxes: [K, 4] float, pixels of the network input, without padding; K may be 0.
            classes: [K] integer, from 1.

        Returns:
            cls_targets: a level, [Hl, Wl, A] int32: class from 0, -1 for background.
            box_targets: a level, [Hl, Wl, 4 * A] float32 codes, 0 for background.
            num_positives: [] float32, anchors that are not background.
        """
        matches, num_boxes = self._match(boxes), tf.shape(boxes)[0]
        positive = matches < num_boxes
        # One row more for the anchors without a box: class 0 is background, which the network calls -1.
        cls_targets = tf.gather(tf.pad(tf.cast(classes, tf.int32), [[0, 1]]), matches) - 1
        matched_boxes = tf.gather(tf.pad(boxes, [[0, 1], [0, 0]]), matches)
        codes = tf.where(positive[:, tf.newaxis], box_ops.encode(matched_boxes, self.anchors.boxes), 0.0)
        return (
            self._by_level(cls_targets, 1),
            self._by_level(codes, 4),
            tf.math.count_nonzero(positive, dtype=tf.float32),
        )

    def _match(self, boxes: tf.Tensor) -> tf.Tensor:
        """[N] int32: index of the box of every anchor, K for background."""
        num_boxes, num_anchors = tf.shape(boxes)[0], len(self.anchors.boxes)
        # The last row is a box without area: without it, argmax has nothing to choose from when K is 0.
        overlaps = tf.pad(box_ops.pairwise_iou(boxes, self.anchors.boxes), [[0, 1], [0, 0]])
        best_box = tf.argmax(overlaps, axis=0, output_type=tf.int32)
        matches = tf.where(tf.reduce_max(overlaps, axis=0) >= MATCH_THRESHOLD, best_box, num_boxes)
        best_anchor = tf.argmax(overlaps[:-1], axis=1, output_type=tf.int32)
        # The lowest box that claims the anchor; more than any index where none does.
        claims = tf.math.unsorted_segment_min(tf.range(num_boxes), best_anchor, num_anchors)
        return tf.where(claims < num_boxes, claims, matches)

    def _by_level(self, values: tf.Tensor, depth: int) -> tuple[tf.Tensor, ...]:
        """Values of all anchors, in their order, as maps [Hl, Wl, depth * A]."""
        # A tuple, and no list: tf.data would try to stack that to one tensor.
        shapes = [(h, w, self.anchors.num_anchors_per_location) for h, w in self.anchors.feat_sizes]
        levels = tf.split(values, [math.prod(shape) for shape in shapes])
        return tuple(tf.reshape(level, [h, w, depth * a]) for level, (h, w, a) in zip(levels, shapes))
