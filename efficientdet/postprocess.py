# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""From the outputs of the network to detections: candidates -> boxes -> non-maximum suppression."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from efficientdet import boxes as box_ops
from efficientdet.anchors import Anchors, concat_levels, gather_anchors, split_anchors
from efficientdet.nms import NmsOptions, hard_iou_thresh, nms

CLASS_OFFSET = 1  # classes count from 0 in the network, from 1 outside, where 0 is background and padding


class Detections(NamedTuple):
    """Detections of a batch by falling score, D an image; all is 0 from valid_len on."""

    boxes: tf.Tensor  # [B, D, 4] float32, [ymin, xmin, ymax, xmax], pixels of the original image
    scores: tf.Tensor  # [B, D] float32, in [0, 1]
    classes: tf.Tensor  # [B, D] int32, from 1
    valid_len: tf.Tensor  # [B] int32


class Candidates(NamedTuple):
    """What goes into non-maximum suppression: K boxes an image, each with one class."""

    boxes: tf.Tensor  # [B, K, 4] float32, pixels of the network input
    scores: tf.Tensor  # [B, K] float32, in [0, 1]
    classes: tf.Tensor  # [B, K] int32, from 0


def postprocess(
    mode: str,
    cls_outputs: Sequence[tf.Tensor],
    box_outputs: Sequence[tf.Tensor],
    *,
    anchors: Anchors,
    image_scales: tf.Tensor,
    options: NmsOptions,
    clip: bool = True,
) -> Detections:
    """Turns the outputs of the network into detections.

    Args:
        mode: "global": one suppression over the boxes of all classes; "per_class": boxes compete within their class
            only; "combined": the same by TensorFlow's combined op, from all anchors and classes and always hard.
        cls_outputs: a level, [B, Hl, Wl, A * C] float32 logits; B may be unknown.
        box_outputs: a level, [B, Hl, Wl, A * 4] float32 codes.
        anchors: of the network input.
        image_scales: [B] float32, pixels of the original image a pixel of the network input.
        options: which detections are kept.
        clip: cuts the boxes off at the border of the network input.

    Returns:
        Detections.

    Raises:
        ValueError: for another mode or suppression method.
    """
    if mode not in MODES:
        raise ValueError(f"postprocessing must be one of {', '.join(MODES)}, got {mode!r}")
    boxes, scores, classes, valid_len = MODES[mode](cls_outputs, box_outputs, anchors, options)
    if clip:
        boxes = box_ops.clip(boxes, *anchors.image_size)
    boxes *= tf.reshape(image_scales, [-1, 1, 1])
    valid = tf.sequence_mask(valid_len, options.max_output_size)
    return Detections(
        boxes=tf.where(valid[..., tf.newaxis], boxes, 0.0),
        scores=tf.where(valid, scores, 0.0),
        classes=tf.where(valid, classes + CLASS_OFFSET, 0),
        valid_len=valid_len,
    )


def to_rows(detections: Detections) -> tf.Tensor:
    """Detections as one tensor, as served: [B, D, 7] of [index in batch, ymin, xmin, ymax, xmax, score, class]."""
    boxes, scores, classes, _ = detections
    index = tf.range(tf.shape(scores)[0])[:, tf.newaxis] + tf.zeros_like(classes)
    columns = [tf.cast(index, tf.float32), *tf.unstack(boxes, axis=-1), scores, tf.cast(classes, tf.float32)]
    return tf.stack(columns, -1)


def tflite_form(
    cls_outputs: Sequence[tf.Tensor], box_outputs: Sequence[tf.Tensor], anchors: Anchors
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """What the op TFLite_Detection_PostProcess takes; it decodes, chooses and suppresses itself.

    Returns:
        codes: [B, N, 4] float32, [ty, tx, th, tw].
        scores: [B, N, C] float32, in [0, 1].
        anchors: [N, 4] float32, [ycenter, xcenter, height, width] in parts of the network input.
    """
    scores = tf.sigmoid(concat_levels(cls_outputs, _num_classes(cls_outputs, anchors)))
    height, width = anchors.image_size
    anchors_norm = box_ops.center_size(anchors.boxes / tf.constant([height, width, height, width], tf.float32))
    return concat_levels(box_outputs, 4), scores, anchors_norm


def choose_candidates(
    cls_outputs: Sequence[tf.Tensor], box_outputs: Sequence[tf.Tensor], anchors: Anchors, max_nms_inputs: int
) -> Candidates:
    """The max_nms_inputs best pairs of anchor and class, by falling score; with 0, every anchor with its best class.

    One anchor may be there several times, with several classes. Only the boxes that are chosen are decoded.
    """
    num_classes = _num_classes(cls_outputs, anchors)
    codes, anchor_boxes = concat_levels(box_outputs, 4), anchors.boxes
    levels = split_anchors(cls_outputs, num_classes)
    best = tf.concat([tf.reduce_max(logits, -1) for logits in levels], 1)
    if max_nms_inputs:
        # The K best pairs are of the K best anchors, and the rest need not be copied nor sorted by class.
        _, chosen = tf.math.top_k(best, k=min(max_nms_inputs, best.shape[1]))
        pairs = tf.reshape(gather_anchors(cls_outputs, chosen, num_classes), [-1, chosen.shape[1] * num_classes])
        best, index = tf.math.top_k(pairs, k=min(max_nms_inputs, pairs.shape[1]))
        classes = index % num_classes
        chosen = tf.gather(chosen, index // num_classes, batch_dims=1)
        codes, anchor_boxes = tf.gather(codes, chosen, batch_dims=1), tf.gather(anchor_boxes, chosen)
    else:
        classes = tf.concat([_best_classes(logits) for logits in levels], 1)
    return Candidates(box_ops.decode(codes, anchor_boxes), tf.sigmoid(best), classes)


def postprocess_global(cls_outputs, box_outputs, anchors: Anchors, options: NmsOptions) -> Detections:
    """One suppression an image. Here and in the other modes: boxes in pixels of the network input, classes from 0."""
    candidates = choose_candidates(cls_outputs, box_outputs, anchors, options.max_nms_inputs)
    kept = _suppress(lambda boxes, scores: nms(boxes, scores, options), candidates.boxes, candidates.scores)
    detections = _gather(candidates, *kept)
    if options.max_nms_inputs:
        return detections
    # To find the best class of every anchor takes longer than all else here. A graph leaves it out, as nothing uses it.
    chosen = gather_anchors(cls_outputs, kept[0], _num_classes(cls_outputs, anchors))
    return detections._replace(classes=_best_classes(chosen))


def postprocess_per_class(cls_outputs, box_outputs, anchors: Anchors, options: NmsOptions) -> Detections:
    """One suppression for every class in an image; the best detections of all of them."""
    candidates = choose_candidates(cls_outputs, box_outputs, anchors, options.max_nms_inputs)
    return _gather(candidates, *_suppress(lambda *image: _nms_per_class(*image, options), *candidates))


def postprocess_combined(cls_outputs, box_outputs, anchors: Anchors, options: NmsOptions) -> Detections:
    """tf.image.combined_non_max_suppression over all anchors and classes; hard, whatever options.method says."""
    logits = concat_levels(cls_outputs, _num_classes(cls_outputs, anchors))
    boxes = box_ops.decode(concat_levels(box_outputs, 4), anchors.boxes)
    boxes, scores, classes, valid_len = tf.image.combined_non_max_suppression(
        boxes[:, :, tf.newaxis],
        tf.sigmoid(logits),
        max_output_size_per_class=options.max_output_size,
        max_total_size=options.max_output_size,
        iou_threshold=hard_iou_thresh(options),
        score_threshold=options.score_thresh or float("-inf"),
        clip_boxes=False,
    )
    return Detections(boxes, scores, tf.cast(classes, tf.int32), valid_len)


MODES = {"global": postprocess_global, "per_class": postprocess_per_class, "combined": postprocess_combined}


def _suppress(suppress_image, *candidates: tf.Tensor) -> Sequence[tf.Tensor]:
    """Runs [K, ...] of an image -> (indices [D], scores [D], valid_len []) on each of the batch."""
    if not candidates[0].shape[0]:
        signature = (tf.int32, tf.float32, tf.int32)
        return tf.map_fn(lambda image: tuple(suppress_image(*image)), candidates, fn_output_signature=signature)
    # No loop where the number of images is known: converters and other runtimes do better without.
    images = zip(*(tf.unstack(tensor) for tensor in candidates))
    return [tf.stack(parts) for parts in zip(*(suppress_image(*image) for image in images))]


def _gather(candidates: Candidates, indices: tf.Tensor, scores: tf.Tensor, valid_len: tf.Tensor) -> Detections:
    """The candidates that suppression kept."""
    boxes = tf.gather(candidates.boxes, indices, batch_dims=1)
    return Detections(boxes, scores, tf.gather(candidates.classes, indices, batch_dims=1), valid_len)


def _nms_per_class(boxes, scores, classes, options: NmsOptions) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """As `nms`, with a suppression for each of the classes that occur among the candidates of one image."""
    by_class = tf.argsort(classes, stable=True)
    _, _, counts = tf.unique_with_counts(tf.gather(classes, by_class))
    ends = tf.cumsum(counts)

    def suppress_class(span):
        members = by_class[span[0] : span[1]]
        indices, kept, valid_len = nms(tf.gather(boxes, members), tf.gather(scores, members), options)
        valid = tf.sequence_mask(valid_len, options.max_output_size)
        return tf.gather(members, indices), tf.where(valid, kept, -1.0)  # padding sorts last

    indices, kept = tf.map_fn(
        suppress_class, tf.stack([ends - counts, ends], -1), fn_output_signature=(tf.int32, tf.float32)
    )
    kept, best = tf.math.top_k(tf.reshape(kept, [-1]), k=options.max_output_size)
    return tf.gather(tf.reshape(indices, [-1]), best), kept, tf.math.count_nonzero(kept >= 0, dtype=tf.int32)


def _best_classes(logits: tf.Tensor) -> tf.Tensor:
    """Of each anchor: [..., C] -> [...] int32, from 0."""
    return tf.argmax(logits, -1, output_type=tf.int32)


def _num_classes(cls_outputs: Sequence[tf.Tensor], anchors: Anchors) -> int:
    return cls_outputs[0].shape[-1] // anchors.num_anchors_per_location
