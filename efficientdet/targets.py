# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Target assignment: which anchor answers for which groundtruth box."""

import math

import numpy as np
import tensorflow as tf

from efficientdet import boxes as box_ops
from efficientdet.anchors import Anchors

MATCH_THRESHOLD = 0.5  # IoU from which an anchor belongs to its best box; below it is background, nothing is ignored
ROUNDING = 1e-5  # relative: how much earlier the cheap test says yes, so that no rounding makes it miss a pair


class AnchorLabeler:
    """Groundtruth of one image -> what the network should answer at every anchor.

    An anchor belongs to the box with which it has the highest IoU, if that is 0.5 or more. Besides, every box has its
    best anchor, however little they overlap, so that no box goes unseen; of several boxes with one best anchor the
    first gets it.

    The [K, N] matrix of all IoUs is never made. Anchors of one kind (one level, scale and aspect ratio) stand on a
    grid, so their overlap with a box is its height in their row times its width in their column. Only rows and columns
    whose overlap leaves an IoU of 0.5 possible are multiplied out, and the best anchor of a kind is where its best row
    and its best column meet.

    Reference: Lin et al., ICCV 2017, section 4 (https://arxiv.org/abs/1708.02002), with one threshold instead of two.
    """

    def __init__(self, anchors: Anchors):
        self.anchors = anchors
        self._areas = box_ops.area(tf.constant(anchors.boxes)).numpy()  # [N]
        # The vertical sides of the T kinds of anchors in every row, then the horizontal ones in every column: where
        # they start and stop, in pixels, and what row or column adds to the index of an anchor. R is that of the
        # largest level; the others are padded with sides of no length, which overlap nothing.
        depth, longest = anchors.num_anchors_per_location, max(max(size) for size in anchors.feat_sizes)
        num_kinds = depth * len(anchors.feat_sizes)
        self._start, self._stop = np.zeros([2, 2, num_kinds, longest], np.float32)  # [2, T, R] each
        self._index = np.zeros([2, num_kinds, longest], np.int32)
        first = 0
        for level, (height, width) in enumerate(anchors.feat_sizes):
            kinds, last = slice(level * depth, (level + 1) * depth), first + height * width * depth
            boxes = anchors.boxes[first:last].reshape(height, width, depth, 4)
            index = np.arange(first, last).reshape(height, width, depth)
            self._start[0, kinds, :height], self._stop[0, kinds, :height] = boxes[:, 0, :, 0].T, boxes[:, 0, :, 2].T
            self._start[1, kinds, :width], self._stop[1, kinds, :width] = boxes[0, :, :, 1].T, boxes[0, :, :, 3].T
            self._index[0, kinds, :height] = index[:, 0].T
            self._index[1, kinds, :width] = (index - index[:, :1])[0].T
            first = last
        self._lengths = np.max(self._stop - self._start, 2)[:, np.newaxis]  # [2, 1, T]

    def label(
        self, boxes: tf.Tensor, classes: tf.Tensor
    ) -> tuple[tuple[tf.Tensor, ...], tuple[tf.Tensor, ...], tf.Tensor]:
        """Assigns the boxes of one image to anchors; works in eager mode, in graphs and in `tf.data`.

        Args:
            boxes: [K, 4] float32, pixels of the network input, without padding; K may be 0.
            classes: [K] integer, from 1.

        Returns:
            cls_targets: a level, [Hl, Wl, A] int32: class from 0, -1 for background.
            box_targets: a level, [Hl, Wl, 4 * A] float32 codes, 0 for background.
            num_positives: [] float32, anchors that are not background.
        """
        boxes, num_anchors = tf.convert_to_tensor(boxes), len(self.anchors.boxes)
        matches = self._match(boxes)
        positives = tf.where(matches >= 0)  # [P, 1], anchors
        matched = tf.gather_nd(matches, positives)  # [P], boxes
        codes = box_ops.encode(tf.gather(boxes, matched), tf.gather_nd(self.anchors.boxes, positives))
        # Class 0 is background, which the network calls -1.
        cls_targets = tf.scatter_nd(positives, tf.gather(tf.cast(classes, tf.int32), matched), [num_anchors]) - 1
        box_targets = tf.scatter_nd(positives, codes, [num_anchors, 4])
        num_positives = tf.cast(tf.shape(positives)[0], tf.float32)
        return self._by_level(cls_targets, 1), self._by_level(box_targets, 4), num_positives

    def _match(self, boxes: tf.Tensor) -> tf.Tensor:
        """[N] int32: index of the box of every anchor, -1 for background."""
        num_boxes, num_anchors = tf.shape(boxes)[0], len(self.anchors.boxes)
        box, anchor, overlap = self._pairs(boxes)
        highest_of_anchor = tf.math.unsorted_segment_max(overlap, anchor, num_anchors)
        matches = (overlap >= MATCH_THRESHOLD) & (overlap == tf.gather(highest_of_anchor, anchor))
        highest_of_box = tf.math.unsorted_segment_max(overlap, box, num_boxes)
        best = tf.where(overlap == tf.gather(highest_of_box, box), anchor, num_anchors)
        best_anchor = tf.math.unsorted_segment_min(best, box, num_boxes)  # [K], the first of several
        claims = tf.where(best_anchor < num_anchors, best_anchor, 0)  # 0 where a box overlaps no anchor at all

        # The lowest number wins an anchor: claims are 0..K-1, matches K..2K-1, and nothing is any larger one.
        numbers = tf.concat([tf.range(num_boxes), tf.where(matches, num_boxes + box, 2 * num_boxes)], 0)
        winner = tf.math.unsorted_segment_min(numbers, tf.concat([claims, anchor], 0), num_anchors)
        return tf.where(winner < 2 * num_boxes, winner % tf.maximum(num_boxes, 1), -1)

    def _pairs(self, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """All pairs [P] of box and anchor with an IoU from the threshold on or the highest of the box, and some more.

        Returns:
            box [P] int32, anchor [P] int32, IoU [P] float32.
        """
        starts, stops = tf.split(tf.transpose(boxes), 2)  # [2, K] each: along y, then along x
        lengths = tf.expand_dims(stops - starts, 2)  # [2, K, 1]
        areas = lengths[0] * lengths[1]  # [K, 1]
        starts, stops = (tf.reshape(sides, [2, -1, 1, 1]) for sides in (starts, stops))
        shared = tf.minimum(stops, self._stop[:, np.newaxis]) - tf.maximum(starts, self._start[:, np.newaxis])
        shared = tf.nn.relu(shared)  # [2, K, T, R], pixels

        # Worth a look are sides that an IoU of the threshold needs (the intersection is at least that share of either
        # area, so a shared side is at least that share of either side), and the best of the best kinds.
        best = tf.reduce_max(shared, 3)  # [2, K, T]
        ious = _iou(best[0] * best[1], areas, self._lengths[0] * self._lengths[1])  # [K, T]
        is_best_kind = (ious >= (1 - ROUNDING) * tf.reduce_max(ious, 1, keepdims=True)) & (ious > 0)
        needed = tf.minimum(MATCH_THRESHOLD * tf.maximum(lengths, self._lengths), tf.where(is_best_kind, best, np.inf))
        enough = shared >= (1 - ROUNDING) * needed[..., tf.newaxis]

        # Places [P] in `shared`, ordered by box and kind. Each row is paired with all columns of its box and kind.
        counts = tf.math.count_nonzero(enough, 3, dtype=tf.int32)  # [2, K, T]
        places = tf.cast(tf.where(tf.reshape(enough, [-1]))[:, 0], tf.int32)
        rows, columns = tf.split(places, tf.reduce_sum(counts, [1, 2]), num=2)
        of_columns = tf.reshape(counts[1], [-1])
        group = rows // self._index.shape[2]
        first = tf.gather(tf.cumsum(of_columns, exclusive=True), group)
        limit = first + tf.gather(of_columns, group)
        splits, column = tf.raw_ops.RaggedRange(starts=first, limits=limit, deltas=1, Tsplits=tf.int32)
        row = tf.searchsorted(splits, tf.range(tf.size(column)), side="right") - 1
        row, column = tf.gather(rows, row), tf.gather(columns, column)

        box = row // self._index[0].size
        of_row, of_column = (
            tf.gather(index.ravel(), place % index.size) for index, place in zip(self._index, (row, column))
        )
        anchor = of_row + of_column
        shared = tf.reshape(shared, [-1])
        intersection = tf.gather(shared, row) * tf.gather(shared, column)
        return box, anchor, _iou(intersection, tf.gather(areas[:, 0], box), tf.gather(self._areas, anchor))

    def _by_level(self, values: tf.Tensor, depth: int) -> tuple[tf.Tensor, ...]:
        """Values of all anchors, in their order, as maps [Hl, Wl, depth * A]."""
        # A tuple, and no list: tf.data would try to stack that to one tensor.
        shapes = [(h, w, self.anchors.num_anchors_per_location) for h, w in self.anchors.feat_sizes]
        levels = tf.split(values, [math.prod(shape) for shape in shapes])
        return tuple(tf.reshape(level, [h, w, depth * a]) for level, (h, w, a) in zip(levels, shapes))


def _iou(intersection: tf.Tensor, areas: tf.Tensor, other_areas: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(intersection, areas + other_areas - intersection)
