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
        # The sides of the T kinds of anchors: the vertical ones of every row, then the horizontal ones of every column,
        # S in all. Where they start and stop, in pixels, and what row or column adds to the index of an anchor.
        rows, columns = [], []  # of a kind
        depth, first = anchors.num_anchors_per_location, 0
        for height, width in anchors.feat_sizes:
            last = first + height * width * depth
            boxes = anchors.boxes[first:last].reshape(height, width, depth, 4)
            index = np.arange(first, last).reshape(height, width, depth)
            for i in range(depth):
                rows.append((boxes[:, 0, i, 0], boxes[:, 0, i, 2], index[:, 0, i]))
                columns.append((boxes[0, :, i, 1], boxes[0, :, i, 3], index[0, :, i] - index[0, 0, i]))
            first = last
        sides, number = [*rows, *columns], np.array([len(start) for start, _, _ in [*rows, *columns]])
        start, stop, index = (np.concatenate(parts) for parts in zip(*sides))
        self._start, self._stop, self._index = start[:, np.newaxis], stop[:, np.newaxis], index.astype(np.int32)
        self._lengths = np.array([np.max(stop - start) for start, stop, _ in sides])[:, np.newaxis]  # [2T, 1]
        self._kind = np.repeat(np.arange(len(sides), dtype=np.int32), number)  # [S]
        self._num_kinds, self._num_rows = len(rows), number[: len(rows)].sum()

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
        positives, matched = self.match(boxes)
        codes = box_ops.encode(tf.gather(boxes, matched), tf.gather(self.anchors.boxes, positives))
        # Class 0 is background, which the network calls -1.
        cls_values = tf.gather(tf.cast(classes, tf.int32), matched)
        cls_targets = tf.scatter_nd(positives[:, tf.newaxis], cls_values, [num_anchors]) - 1
        box_targets = tf.scatter_nd(positives[:, tf.newaxis], codes, [num_anchors, 4])
        num_positives = tf.cast(tf.size(positives), tf.float32)
        return self._by_level(cls_targets, 1), self._by_level(box_targets, 4), num_positives

    def match(self, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The anchors [P] int32 that belong to a box of [K, 4], and the index [P] int32 of that box."""
        num_boxes, num_anchors = tf.shape(boxes)[0], len(self.anchors.boxes)
        box, anchor, overlap = self._pairs(boxes)
        highest = tf.gather(tf.math.unsorted_segment_max(overlap, box, num_boxes), box)
        best = tf.where(overlap == highest, anchor, num_anchors)
        best = tf.math.unsorted_segment_min(best, box, num_boxes)  # [K], the first of several
        claims = tf.where(best < num_anchors, best, 0)  # 0 where a box overlaps no anchor at all

        anchors, position = tf.unique(tf.concat([claims, anchor], 0))
        num_paired, of_pairs = tf.size(anchors), position[num_boxes:]
        highest = tf.gather(tf.math.unsorted_segment_max(overlap, of_pairs, num_paired), of_pairs)
        is_match = (overlap >= MATCH_THRESHOLD) & (overlap == highest)
        # The lowest number wins an anchor: claims are 0..K-1, matches K..2K-1, and 2K is nothing.
        numbers = tf.concat([tf.range(num_boxes), tf.where(is_match, num_boxes + box, 2 * num_boxes)], 0)
        winner = tf.math.unsorted_segment_min(numbers, position, num_paired)
        won = tf.where(winner < 2 * num_boxes)[:, 0]
        return tf.gather(anchors, won), tf.gather(winner, won) % tf.maximum(num_boxes, 1)

    def _pairs(self, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """All pairs [P] of box and anchor with an IoU from the threshold on or the highest of the box, and some more.

        Returns:
            box [P] int32, anchor [P] int32, IoU [P] float32.
        """
        num_kinds, num_rows = self._num_kinds, self._num_rows
        starts, stops = tf.split(tf.transpose(boxes), 2)  # [2, K] each: along y, then along x
        lengths = stops - starts
        areas = lengths[0] * lengths[1]  # [K]
        axis = np.arange(2 * num_kinds, dtype=np.int32) // num_kinds  # [2T], of a kind
        axis_of_side = axis[self._kind]  # [S]
        shared = tf.minimum(tf.gather(stops, axis_of_side), self._stop)
        shared = tf.nn.relu(shared - tf.maximum(tf.gather(starts, axis_of_side), self._start))  # [S, K], pixels

        # Worth a look are sides that an IoU of the threshold needs (the intersection is at least that share of either
        # area, so a shared side is at least that share of either side), and the best of the best kinds.
        best = tf.math.segment_max(shared, self._kind)  # [2T, K]
        kind_areas = self._lengths[:num_kinds] * self._lengths[num_kinds:]
        ious = _iou(best[:num_kinds] * best[num_kinds:], areas, kind_areas)  # [T, K]
        is_best_kind = (ious >= (1 - ROUNDING) * tf.reduce_max(ious, 0)) & (ious > 0)
        needed = MATCH_THRESHOLD * tf.maximum(tf.gather(lengths, axis), self._lengths)
        needed = tf.minimum(needed, tf.where(tf.tile(is_best_kind, [2, 1]), best, np.inf))
        enough = shared >= (1 - ROUNDING) * tf.gather(needed, self._kind)

        # (box, side) by box and kind. A row of a box and kind is paired with all columns of the same.
        rows = tf.cast(tf.where(tf.transpose(enough[:num_rows])), tf.int32)
        columns = tf.cast(tf.where(tf.transpose(enough[num_rows:])), tf.int32) + tf.constant([0, num_rows])
        counts = tf.math.segment_sum(tf.cast(enough, tf.int32), self._kind)[num_kinds:]  # [T, K]
        counts = tf.reshape(tf.transpose(counts), [-1])
        box, side = tf.unstack(rows, axis=1)
        group = box * num_kinds + tf.gather(self._kind, side)
        first = tf.gather(tf.cumsum(counts, exclusive=True), group)
        limit = first + tf.gather(counts, group)
        splits, column = tf.raw_ops.RaggedRange(starts=first, limits=limit, deltas=1, Tsplits=tf.int32)
        row = tf.searchsorted(splits, tf.range(tf.size(column)), side="right") - 1

        box, of_row = tf.unstack(tf.gather(rows, row), axis=1)
        _, of_column = tf.unstack(tf.gather(columns, column), axis=1)
        anchor = tf.gather(self._index, of_row) + tf.gather(self._index, of_column)
        num_boxes, shared = tf.shape(boxes)[0], tf.reshape(shared, [-1])
        intersection = tf.gather(shared, of_row * num_boxes + box) * tf.gather(shared, of_column * num_boxes + box)
        return box, anchor, _iou(intersection, tf.gather(areas, box), tf.gather(self._areas, anchor))

    def _by_level(self, values: tf.Tensor, depth: int) -> tuple[tf.Tensor, ...]:
        """Values of all anchors, in their order, as maps [Hl, Wl, depth * A]."""
        # A tuple, and no list: tf.data would try to stack that to one tensor.
        shapes = [(h, w, self.anchors.num_anchors_per_location) for h, w in self.anchors.feat_sizes]
        levels = tf.split(values, [math.prod(shape) for shape in shapes])
        return tuple(tf.reshape(level, [h, w, depth * a]) for level, (h, w, a) in zip(levels, shapes))


def _iou(intersection: tf.Tensor, areas: tf.Tensor, other_areas: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(intersection, areas + other_areas - intersection)
