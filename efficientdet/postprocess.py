# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Postprocessing: network outputs -> candidates -> boxes -> non-maximum suppression -> detections."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from efficientdet import boxes as box_ops
from efficientdet.anchors import Anchors, Maps, concat_levels, gather_anchors, split_anchors
from efficientdet.config import NmsConfig
from efficientdet.nms import nms, static_nms

CLASS_OFFSET = 1  # classes are 0-based in the network and 1-based elsewhere, where 0 is background and padding


class Detections(NamedTuple):
    """D detections per image, in descending order of score; all fields are 0 from valid_len on."""

    boxes: tf.Tensor  # [B, D, 4] float32, [ymin, xmin, ymax, xmax], pixels of the original image
    scores: tf.Tensor  # [B, D] float32, in [0, 1]
    classes: tf.Tensor  # [B, D] int32, 1-based
    valid_len: tf.Tensor  # [B] int32


class Candidates(NamedTuple):
    """Input of non-maximum suppression: K boxes per image, each with one class."""

    boxes: tf.Tensor  # [B, K, 4] float32, pixels of the network input
    scores: tf.Tensor  # [B, K] float32, in [0, 1]
    classes: tf.Tensor  # [B, K] int32, 0-based


def postprocess(
    mode: str,
    cls_outputs: Maps,
    box_outputs: Maps,
    *,
    anchors: Anchors,
    image_scales: tf.Tensor,
    nms_config: NmsConfig,
    clip: bool = True,
) -> Detections:
    """Converts the outputs of the network to detections.

    Args:
        mode: "global": one suppression over the boxes of all classes; "per_class": one suppression per class;
            "combined": one hard suppression per class over all anchors and classes, by TensorFlow's combined op;
            "global_static", "per_class_static": the same detections by operations that XLA compiles.
        cls_outputs: per level, [B, Hl, Wl, A * C] float32 logits; B may be unknown.
        box_outputs: per level, [B, Hl, Wl, A * 4] float32 codes.
        anchors: anchors of the network input.
        image_scales: [B, 4] float32, see `preprocess.preprocess`; or [1, 4] for images of one size.
        nms_config: suppression method, thresholds and limits.
        clip: True clips the boxes at the border of the network input.

    Raises:
        ValueError: if the mode is unknown.
    """
    if mode not in MODES:
        raise ValueError(f"postprocessing must be one of {', '.join(MODES)}, got {mode!r}")
    boxes, scores, classes, valid_len = MODES[mode](cls_outputs, box_outputs, anchors, nms_config)
    if clip:
        boxes = box_ops.clip(boxes, *anchors.image_size)
    boxes *= image_scales[:, tf.newaxis]
    valid = tf.sequence_mask(valid_len, nms_config.max_output_size)
    return Detections(
        boxes=tf.where(valid[..., tf.newaxis], boxes, 0.0),
        scores=tf.where(valid, scores, 0.0),
        classes=tf.where(valid, classes + CLASS_OFFSET, 0),
        valid_len=valid_len,
    )


def to_rows(detections: Detections) -> tf.Tensor:
    """Packs detections into one tensor: [B, D, 7] of [index in batch, ymin, xmin, ymax, xmax, score, class].

    >>> box = tf.constant([[[1.0, 2.0, 3.0, 4.0]]])
    >>> detections = Detections(box, tf.constant([[0.5]]), tf.constant([[17]]), tf.constant([1]))
    >>> to_rows(detections).numpy().tolist()
    [[[0.0, 1.0, 2.0, 3.0, 4.0, 0.5, 17.0]]]
    """
    boxes, scores, classes, _ = detections
    index = tf.range(tf.shape(scores)[0])[:, tf.newaxis] + tf.zeros_like(classes)
    columns = [tf.cast(index, tf.float32), *tf.unstack(boxes, axis=-1), scores, tf.cast(classes, tf.float32)]
    return tf.stack(columns, -1)


def tflite_op_inputs(cls_outputs: Maps, box_outputs: Maps, anchors: Anchors) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the inputs of the op TFLite_Detection_PostProcess, which decodes, selects and suppresses boxes.

    Returns:
        codes: [B, N, 4] float32, [ty, tx, th, tw].
        scores: [B, N, C] float32, in [0, 1].
        anchors: [N, 4] float32, [ycenter, xcenter, height, width] as fractions of the network input.
    """
    scores = tf.sigmoid(concat_levels(cls_outputs, _num_classes(cls_outputs, anchors)))
    height, width = anchors.image_size
    anchors_norm = box_ops.center_size(anchors.boxes / tf.constant([height, width, height, width], tf.float32))
    return concat_levels(box_outputs, 4), scores, anchors_norm


def choose_candidates(cls_outputs: Maps, box_outputs: Maps, anchors: Anchors, max_nms_inputs: int) -> Candidates:
    """Returns the max_nms_inputs best (anchor, class) pairs, in descending order of score.

    An anchor may occur several times, with different classes; only the chosen boxes are decoded. With
    max_nms_inputs = 0, returns every anchor with its best class, in the order of the anchors.
    """
    num_classes = _num_classes(cls_outputs, anchors)
    codes, anchor_boxes = concat_levels(box_outputs, 4), anchors.boxes
    levels = split_anchors(cls_outputs, num_classes)
    best = tf.concat([tf.reduce_max(logits, -1) for logits in levels], 1)
    if max_nms_inputs:
        # The K best pairs belong to the K anchors with the best maxima; only their logits are copied and sorted.
        _, chosen = tf.math.top_k(best, k=min(max_nms_inputs, best.shape[1]))
        pairs = tf.reshape(gather_anchors(cls_outputs, chosen, num_classes), [-1, chosen.shape[1] * num_classes])
        best, index = tf.math.top_k(pairs, k=min(max_nms_inputs, pairs.shape[1]))
        classes = index % num_classes
        chosen = tf.gather(chosen, index // num_classes, batch_dims=1)
        codes, anchor_boxes = tf.gather(codes, chosen, batch_dims=1), tf.gather(anchor_boxes, chosen)
    else:
        classes = tf.concat([tf.argmax(logits, -1, output_type=tf.int32) for logits in levels], 1)
    return Candidates(box_ops.decode(codes, anchor_boxes), tf.sigmoid(best), classes)


# The modes return boxes in pixels of the network input and 0-based classes.


def postprocess_global(
    cls_outputs: Maps, box_outputs: Maps, anchors: Anchors, nms_config: NmsConfig, *, is_static: bool = False
) -> Detections:
    """One suppression per image, over the boxes of all classes."""
    candidates = choose_candidates(cls_outputs, box_outputs, anchors, nms_config.max_nms_inputs)
    boxes, scores, _ = candidates
    if is_static:
        kept = static_nms(boxes, scores, nms_config)
    else:
        kept = _map_images(lambda boxes, scores: nms(boxes, scores, nms_config), boxes, scores)
    detections = _gather(candidates, *kept)
    if nms_config.max_nms_inputs:
        return detections
    # argmax over the classes of all anchors would dominate the run time; it is computed for the kept boxes only. The
    # unused candidates.classes are pruned from a graph.
    chosen = gather_anchors(cls_outputs, kept[0], _num_classes(cls_outputs, anchors))
    return detections._replace(classes=tf.argmax(chosen, -1, output_type=tf.int32))


def postprocess_per_class(
    cls_outputs: Maps, box_outputs: Maps, anchors: Anchors, nms_config: NmsConfig, *, is_static: bool = False
) -> Detections:
    """One suppression per image and class; keeps the best detections of all classes."""
    candidates = choose_candidates(cls_outputs, box_outputs, anchors, nms_config.max_nms_inputs)
    if is_static:
        kept = static_nms(candidates.boxes, candidates.scores, nms_config, candidates.classes)
    else:
        kept = _map_images(lambda *image: _nms_per_class(*image, nms_config), *candidates)
    return _gather(candidates, *kept)


def postprocess_combined(cls_outputs: Maps, box_outputs: Maps, anchors: Anchors, nms_config: NmsConfig) -> Detections:
    """tf.image.combined_non_max_suppression over all anchors and classes; hard for any nms_config.method."""
    hard = dataclasses.replace(nms_config, method="hard")
    logits = concat_levels(cls_outputs, _num_classes(cls_outputs, anchors))
    boxes = box_ops.decode(concat_levels(box_outputs, 4), anchors.boxes)
    boxes, scores, classes, valid_len = tf.image.combined_non_max_suppression(
        boxes[:, :, tf.newaxis],
        tf.sigmoid(logits),
        max_output_size_per_class=hard.max_output_size,
        max_total_size=hard.max_output_size,
        iou_threshold=hard.hard_iou_thresh,
        score_threshold=hard.min_score,
        clip_boxes=False,
    )
    return Detections(boxes, scores, tf.cast(classes, tf.int32), valid_len)


MODES = {
    "global": postprocess_global,
    "per_class": postprocess_per_class,
    "combined": postprocess_combined,
    "global_static": functools.partial(postprocess_global, is_static=True),
    "per_class_static": functools.partial(postprocess_per_class, is_static=True),
}


def _map_images(suppress: Callable, *candidates: tf.Tensor) -> Sequence[tf.Tensor]:
    """Applies suppress: [K, ...] -> (indices [D], scores [D], valid_len []) to every image of [B, K, ...] tensors."""
    if not candidates[0].shape[0]:
        signature = (tf.int32, tf.float32, tf.int32)
        return tf.map_fn(lambda image: tuple(suppress(*image)), candidates, fn_output_signature=signature)
    # A known batch size is unrolled: converters and other runtimes handle loops poorly.
    images = zip(*(tf.unstack(tensor) for tensor in candidates))
    return [tf.stack(parts) for parts in zip(*(suppress(*image) for image in images))]


def _gather(candidates: Candidates, indices: tf.Tensor, scores: tf.Tensor, valid_len: tf.Tensor) -> Detections:
    boxes = tf.gather(candidates.boxes, indices, batch_dims=1)
    return Detections(boxes, scores, tf.gather(candidates.classes, indices, batch_dims=1), valid_len)


def _nms_per_class(
    boxes: tf.Tensor, scores: tf.Tensor, classes: tf.Tensor, nms_config: NmsConfig
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Applies `nms` to every class among the candidates of one image, and merges the results to those of `nms`."""
    by_class = tf.argsort(classes, stable=True)
    _, _, counts = tf.unique_with_counts(tf.gather(classes, by_class))
    ends = tf.cumsum(counts)
    spans = tf.stack([ends - counts, ends], -1)

    def suppress_class(span):
        members = by_class[span[0] : span[1]]
        indices, kept, valid_len = nms(tf.gather(boxes, members), tf.gather(scores, members), nms_config)
        valid = tf.sequence_mask(valid_len, nms_config.max_output_size)
        return tf.gather(members, indices), tf.where(valid, kept, -1.0)  # padding sorts last

    indices, kept = tf.map_fn(suppress_class, spans, fn_output_signature=(tf.int32, tf.float32))
    kept, best = tf.math.top_k(tf.reshape(kept, [-1]), k=nms_config.max_output_size)
    return tf.gather(tf.reshape(indices, [-1]), best), kept, tf.math.count_nonzero(kept >= 0, dtype=tf.int32)


def _num_classes(cls_outputs: Maps, anchors: Anchors) -> int:
    return cls_outputs[0].shape[-1] // anchors.num_anchors_per_location
