# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Mosaic: combines four images, one per corner, which shows objects smaller and in other surroundings."""

from collections.abc import Sequence

import tensorflow as tf

from dataset.augment.geometry import MIN_VISIBLE
from dataset.tfrecord import Sample
from dataset.window import Window, crop_boxes, crop_image

NUM_IMAGES = 4


def mosaic(
    samples: Sequence[Sample], seed: tf.Tensor, *, image_size: tuple[int, int], keep_aspect_ratio: bool
) -> Sample:
    """Combines four images around a random point; deterministic for a given seed.

    The point is within 25-75 % of each axis. Each image is scaled until it covers its corner, which shows a random
    window of it. Up to rounding to whole pixels, its aspect ratio is its own or, without keep_aspect_ratio, that of the
    mosaic, as the network input of the whole image would have it.

    Args:
        samples: top left, top right, bottom left and bottom right, each with image [H, W, 3] uint8 of any size, and K
            objects.
        seed: [2] integer.
        image_size: (height, width) of the mosaic, at least (2, 2).
        keep_aspect_ratio: as in the Config.

    Returns:
        A Sample with an image of image_size and the objects of all four images, in order. Boxes are clipped to their
        corner, and area is that of the clipped box. An object outside of its corner keeps its row with an empty box,
        all zeros. The four source_ids are joined with "+".

    Raises:
        ValueError: if there are not four samples, or a side of image_size is below 2.

    Reference: Bochkovskiy et al., 2020, section 3.3 (https://arxiv.org/abs/2004.10934).
    """
    if len(samples) != NUM_IMAGES:
        raise ValueError(f"a mosaic needs {NUM_IMAGES} samples, got {len(samples)}")
    if min(image_size) < 2:
        raise ValueError(f"a mosaic needs at least 2 pixels per side, got image_size {tuple(image_size)}")
    height, width = image_size
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2 + NUM_IMAGES))
    y, x = _split_side(seeds[0], height), _split_side(seeds[1], width)
    corners = [(0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width)]
    shapes = [tf.shape(sample["image"])[:2] if keep_aspect_ratio else tf.constant(image_size) for sample in samples]
    parts = map(_fill_corner, samples, shapes, map(tf.stack, corners), seeds[2:])
    (top_left, top_right, bottom_left, bottom_right), boxes = zip(*parts)
    top, bottom = tf.concat([top_left, top_right], axis=1), tf.concat([bottom_left, bottom_right], axis=1)
    boxes = tf.concat(boxes, axis=0)
    return {
        "image": tf.ensure_shape(tf.concat([top, bottom], axis=0), [height, width, 3]),
        "boxes_norm": boxes / tf.constant([height, width] * 2, tf.float32),
        **{name: tf.concat([sample[name] for sample in samples], axis=0) for name in ("classes", "is_crowd")},
        "area": (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
        "source_id": tf.strings.join([sample["source_id"] for sample in samples], "+"),
        "height": tf.constant(height),
        "width": tf.constant(width),
    }


def _split_side(seed: tf.Tensor, side: int) -> tf.Tensor:
    """Draws the pixel at which a side is split, [] int32, within 25-75 % of it."""
    return tf.random.stateless_uniform([], seed, -(-side // 4), 3 * side // 4 + 1, tf.int32)


def _fill_corner(sample: Sample, shape: tf.Tensor, corner: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Fills a corner, [4], with a random window of a sample that is first stretched to `shape`, [2] int32.

    Returns:
        The pixels of the corner, and boxes in pixels of the mosaic.
    """
    image_hw = tf.shape(sample["image"])[:2]
    window = _covering_window(image_hw, shape, corner[2:] - corner[:2], seed)
    # Cropped before resizing, which converts to float.
    image = tf.image.resize(crop_image(sample["image"], window), window.scaled_size)
    boxes = tf.clip_by_value(crop_boxes(sample["boxes_norm"], image_hw, window), 0.0, 1.0)
    offset, size = (tf.tile(tf.cast(pair, tf.float32), [2]) for pair in (corner[:2], window.scaled_size))
    boxes *= size
    visible = tf.reduce_all(boxes[:, 2:] - boxes[:, :2] > MIN_VISIBLE, axis=-1, keepdims=True)
    return tf.cast(tf.round(image), tf.uint8), tf.where(visible, boxes + offset, 0.0)


def _covering_window(image_hw: tf.Tensor, shape: tf.Tensor, size: tf.Tensor, seed: tf.Tensor) -> Window:
    """The largest window of an image stretched to `shape` with the aspect ratio of size, at a random position."""
    image, stretched, corner = (tf.cast(pair, tf.float32) for pair in (image_hw, shape, size))
    shown = corner * tf.reduce_min(stretched / corner) * (image / stretched)
    shown = tf.clip_by_value(tf.cast(tf.round(shown), tf.int32), 1, image_hw)
    offset = tf.cast(image_hw - shown + 1, tf.float32) * tf.random.stateless_uniform([2], seed)
    return Window(tf.cast(offset, tf.int32), shown, size)
