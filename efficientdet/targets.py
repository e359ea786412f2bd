# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Target assignment: groundtruth boxes -> class and box targets per anchor."""

import math

import numpy as np
import tensorflow as tf

from efficientdet import boxes as box_ops
from efficientdet.anchors import Anchors

ROUNDING = 1e-5  # relative tolerance of bounds on float32 values, so that rounding never excludes a valid pair


class AnchorLabeler:
    """Assigns the groundtruth boxes of an image to anchors.

    An anchor is matched to the box with the highest IoU, if that is at least match_threshold. In addition, every box
    claims the anchor with which it has the highest IoU, however low, so that every box has an anchor. If several boxes
    claim the same anchor, the first one gets it.

    The result equals that of the [K, N] matrix of all IoUs, which is never computed. The anchors of one kind (level,
    scale and aspect ratio) form a grid, so the intersection of a box with an anchor is the product of its overlap with
    the anchor's row and with the anchor's column. Only rows and columns whose overlap allows that IoU, or the
    highest IoU of the box, are combined. CPU time per image in ms, on one thread, of this algorithm and of the matrix:
    D0 with K = 7 boxes 0.61 / 1.56, K = 30 1.4 / 6.0, K = 100 3.4 / 21.8; D7x with K = 30 2.6 / 72.

    >>> anchors = Anchors((64, 64), min_level=3, max_level=4, num_scales=1, aspect_ratios=[1.0], anchor_scale=2.0)
    >>> labeler = AnchorLabeler(anchors)
    >>> positives, boxes = labeler.match(tf.constant([[4.0, 4.0, 20.0, 20.0]]))
    >>> anchors.boxes[positives.numpy()].tolist()
    [[4.0, 4.0, 20.0, 20.0]]

    Reference: Lin et al., ICCV 2017, section 4 (https://arxiv.org/abs/1708.02002), with one threshold instead of two.
    """

    def __init__(self, anchors: Anchors, match_threshold: float = 0.5) -> None:
        """Precomputes the grids of the anchors.

        Args:
            match_threshold: minimum IoU of a match, in (0, 1]; anchors below are background, none is ignored.
        """
        self.anchors, self.match_threshold = anchors, match_threshold
        self._areas = box_ops.area(tf.constant(anchors.boxes)).numpy()  # [N]
        # A segment is a row or a column of the grid of one of the T kinds: its start and stop in pixels, and its
        # contribution to the anchor index, anchor = index[row] + index[column].
        rows, columns = [], []
        depth, first = anchors.num_anchors_per_location, 0
        for height, width in anchors.feat_sizes:
            last = first + height * width * depth
            boxes = anchors.boxes[first:last].reshape(height, width, depth, 4)
            index = np.arange(first, last).reshape(height, width, depth)
            for i in range(depth):
                rows.append((boxes[:, 0, i, 0], boxes[:, 0, i, 2], index[:, 0, i]))
                columns.append((boxes[0, :, i, 1], boxes[0, :, i, 3], index[0, :, i] - index[0, 0, i]))
            first = last
        # All S segments: the rows of kinds 0..T-1, then the columns of the same kinds as groups T..2T-1.
        groups = [*rows, *columns]
        counts = np.array([len(start) for start, _, _ in groups])
        start, stop, index = (np.concatenate(parts) for parts in zip(*groups))
        self._start, self._stop, self._index = start[:, np.newaxis], stop[:, np.newaxis], index.astype(np.int32)
        self._lengths = np.array([np.max(stop - start) for start, stop, _ in groups])[:, np.newaxis]  # [2T, 1]
        self._group = np.repeat(np.arange(len(groups), dtype=np.int32), counts)  # [S]
        self._num_kinds, self._num_rows = len(rows), counts[: len(rows)].sum()

    def label(
        self, boxes: tf.Tensor, classes: tf.Tensor
    ) -> tuple[tuple[tf.Tensor, ...], tuple[tf.Tensor, ...], tf.Tensor]:
        """Returns the targets of one image; works in eager mode, in graphs and in `tf.data`.

        Args:
            boxes: [K, 4] float32, pixels of the network input, without padding; K may be 0.
            classes: [K] integer, 1-based.

        Returns:
            cls_targets: per level, [Hl, Wl, A] int32: 0-based class, or -1 for background.
            box_targets: per level, [Hl, Wl, 4 * A] float32 codes, 0 for background.
            num_positives: [] float32, number of anchors that are not background.
        """
        boxes, num_anchors = tf.convert_to_tensor(boxes), len(self.anchors.boxes)
        positives, matched = self.match(boxes)
        codes = box_ops.encode(tf.gather(boxes, matched), tf.gather(self.anchors.boxes, positives))
        cls_values = tf.gather(tf.cast(classes, tf.int32), matched)
        cls_targets = tf.scatter_nd(positives[:, tf.newaxis], cls_values, [num_anchors]) - 1
        box_targets = tf.scatter_nd(positives[:, tf.newaxis], codes, [num_anchors, 4])
        num_positives = tf.cast(tf.size(positives), tf.float32)
        return self._by_level(cls_targets, 1), self._by_level(box_targets, 4), num_positives

    def match(self, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the positive anchors of boxes [K, 4]: anchor indices [P] int32, and their box indices [P] int32."""
        num_boxes, num_anchors = tf.shape(boxes)[0], len(self.anchors.boxes)
        box, anchor, iou = self._candidate_pairs(boxes)
        highest = tf.gather(tf.math.unsorted_segment_max(iou, box, num_boxes), box)
        claimed = tf.where(iou == highest, anchor, num_anchors)
        claimed = tf.math.unsorted_segment_min(claimed, box, num_boxes)  # [K], the first anchor of the highest IoU
        claimed = tf.where(claimed < num_anchors, claimed, 0)  # as argmax of a row of zeros: the box overlaps no anchor

        anchors, position = tf.unique(tf.concat([claimed, anchor], 0))
        num_candidates, pair_position = tf.size(anchors), position[num_boxes:]
        highest = tf.gather(tf.math.unsorted_segment_max(iou, pair_position, num_candidates), pair_position)
        is_match = (iou >= self.match_threshold) & (iou == highest)
        # The smallest rank wins an anchor: claim of box k = k, match of box k = K + k, no match = 2K.
        ranks = tf.concat([tf.range(num_boxes), tf.where(is_match, num_boxes + box, 2 * num_boxes)], 0)
        winner = tf.math.unsorted_segment_min(ranks, position, num_candidates)
        positive = tf.where(winner < 2 * num_boxes)[:, 0]
        return tf.gather(anchors, positive), tf.gather(winner, positive) % tf.maximum(num_boxes, 1)

    def _candidate_pairs(self, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns P pairs, among them all with an IoU of at least match_threshold or equal to the highest of their box.

        Returns:
            Box index [P] int32, anchor index [P] int32, IoU [P] float32.
        """
        num_kinds, num_rows = self._num_kinds, self._num_rows
        starts, stops = tf.split(tf.transpose(boxes), 2)  # [2, K] each: y, x
        lengths = stops - starts
        areas = lengths[0] * lengths[1]  # [K]
        group_axis = np.arange(2 * num_kinds, dtype=np.int32) // num_kinds  # [2T]: 0 for rows, 1 for columns
        axis = group_axis[self._group]  # [S]
        overlap = tf.minimum(tf.gather(stops, axis), self._stop)
        overlap = tf.nn.relu(overlap - tf.maximum(tf.gather(starts, axis), self._start))  # [S, K], pixels

        # IoU >= t requires intersection >= t * area of either, hence along each axis
        #   overlap >= t * max(length of the box, length of the anchor).
        # Within a kind, the IoU is highest where the best row and the best column meet. For the kinds that reach the
        # highest IoU of the box, the bound is lowered to the overlaps of these two.
        best = tf.math.segment_max(overlap, self._group)  # [2T, K]
        kind_areas = self._lengths[:num_kinds] * self._lengths[num_kinds:]
        kind_ious = _iou(best[:num_kinds] * best[num_kinds:], areas, kind_areas)  # [T, K]
        is_best_kind = (kind_ious >= (1 - ROUNDING) * tf.reduce_max(kind_ious, 0)) & (kind_ious > 0)
        bound = self.match_threshold * tf.maximum(tf.gather(lengths, group_axis), self._lengths)
        bound = tf.minimum(bound, tf.where(tf.tile(is_best_kind, [2, 1]), best, np.inf))
        is_candidate = overlap >= (1 - ROUNDING) * tf.gather(bound, self._group)

        # (box, segment) of the candidates, sorted by box and kind. Each row is combined with the columns of the same
        # box and kind, which are first..limit - 1 of `columns`.
        rows = tf.cast(tf.where(tf.transpose(is_candidate[:num_rows])), tf.int32)
        columns = tf.cast(tf.where(tf.transpose(is_candidate[num_rows:])), tf.int32) + tf.constant([0, num_rows])
        counts = tf.math.segment_sum(tf.cast(is_candidate, tf.int32), self._group)[num_kinds:]  # columns, [T, K]
        counts = tf.reshape(tf.transpose(counts), [-1])  # [K * T]
        box, segment = tf.unstack(rows, axis=1)
        box_and_kind = box * num_kinds + tf.gather(self._group, segment)
        first = tf.gather(tf.cumsum(counts, exclusive=True), box_and_kind)
        limit = first + tf.gather(counts, box_and_kind)
        splits, column = tf.raw_ops.RaggedRange(starts=first, limits=limit, deltas=1, Tsplits=tf.int32)
        row = tf.searchsorted(splits, tf.range(tf.size(column)), side="right") - 1

        box, row_segment = tf.unstack(tf.gather(rows, row), axis=1)
        _, column_segment = tf.unstack(tf.gather(columns, column), axis=1)
        anchor = tf.gather(self._index, row_segment) + tf.gather(self._index, column_segment)
        num_boxes, overlap = tf.shape(boxes)[0], tf.reshape(overlap, [-1])
        height, width = (tf.gather(overlap, segment * num_boxes + box) for segment in (row_segment, column_segment))
        return box, anchor, _iou(height * width, tf.gather(areas, box), tf.gather(self._areas, anchor))

    def _by_level(self, values: tf.Tensor, depth: int) -> tuple[tf.Tensor, ...]:
        """Splits values of all anchors, [N] or [N, depth], into maps [Hl, Wl, depth * A] per level."""
        # A tuple, because tf.data would stack a list into one tensor.
        shapes = [(h, w, self.anchors.num_anchors_per_location) for h, w in self.anchors.feat_sizes]
        levels = tf.split(values, [math.prod(shape) for shape in shapes])
        return tuple(tf.reshape(level, [h, w, depth * a]) for level, (h, w, a) in zip(levels, shapes))


def _iou(intersection: tf.Tensor, areas: tf.Tensor, other_areas: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(intersection, areas + other_areas - intersection)
