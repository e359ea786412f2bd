# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Mosaic: four images in one, each in a corner, so that objects are seen smaller and in other surroundings."""

from collections.abc import Sequence

import tensorflow as tf

from dataset.augment.geometry import LEAST_VISIBLE
from dataset.tfrecord import Sample
from dataset.window import Window, crop_boxes, crop_image

NUM_IMAGES = 4


def mosaic(samples: Sequence[Sample], seed: tf.Tensor, *, image_size: tuple[int, int]) -> Sample:
    """Puts four images together at a random point; equal seeds, equal result.

    The point lies within 25-75 % of each axis. An image is scaled, without changing its aspect ratio by more than the
    rounding to whole pixels does, until it covers its corner, which shows a random window of it.

    Args:
        samples: four; of top left, top right, bottom left and bottom right. Each with image [H, W, 3] uint8 and its K
            objects; images may be of any size from one pixel.
        seed: [2] integer.
        image_size: (height, width) of the mosaic, at least (2, 2).

    Returns:
        A Sample with an image of image_size and the objects of all four, in their order. Boxes are cut to their corner,
        area is that of the cut box. An object that its corner does not show keeps its row, with a box of zeros.
        source_id is those of the four with "+" between them.

    Raises:
        ValueError: if there are not four samples, or image_size has a side below 2.

    Reference: Bochkovskiy et al., 2020, section 3.3 (https://arxiv.org/abs/2004.10934).
    """
    if len(samples) != NUM_IMAGES:
        raise ValueError(f"a mosaic is made of {NUM_IMAGES} samples, got {len(samples)}")
    if min(image_size) < 2:
        raise ValueError(f"a mosaic needs at least 2 pixels a side, got an image_size of {tuple(image_size)}")
    height, width = image_size
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2 + NUM_IMAGES))
    y, x = _divide(seeds[0], height), _divide(seeds[1], width)
    corners = [(0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width)]
    parts = [_fill(sample, tf.stack(corner), s) for sample, corner, s in zip(samples, corners, seeds[2:], strict=True)]

    (top_left, top_right, bottom_left, bottom_right), boxes = zip(*parts, strict=True)
    top, bottom = tf.concat([top_left, top_right], axis=1), tf.concat([bottom_left, bottom_right], axis=1)
    boxes = tf.concat(boxes, axis=0)
    return {
        "image": tf.ensure_shape(tf.concat([top, bottom], axis=0), [height, width, 3]),
        "boxes_norm": boxes / tf.constant([height, width] * 2, tf.float32),
        "classes": tf.concat([sample["classes"] for sample in samples], axis=0),
        "is_crowd": tf.concat([sample["is_crowd"] for sample in samples], axis=0),
        "area": (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
        "source_id": tf.strings.join([sample["source_id"] for sample in samples], "+"),
        "height": tf.constant(height),
        "width": tf.constant(width),
    }


def _divide(seed: tf.Tensor, side: int) -> tf.Tensor:
    """[] int32: where a side is divided, a whole pixel within 25-75 % of it."""
    first, last = -(-side // 4), 3 * side // 4
    return tf.random.stateless_uniform([], seed, first, last + 1, tf.int32)


def _fill(sample: Sample, corner: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What a corner, [4] int32 [ymin, xmin, ymax, xmax] in pixels of the mosaic, shows of a sample.

    Returns:
        The pixels of the corner [h, w, 3] uint8, and the boxes [K, 4] float32 in pixels of the mosaic.
    """
    image_hw = tf.shape(sample["image"])[:2]
    window = _covering_window(image_hw, corner[2:] - corner[:2], seed)
    # Only what is shown becomes float.
    image = tf.image.resize(crop_image(sample["image"], window), window.scaled_size)
    boxes = tf.clip_by_value(crop_boxes(sample["boxes_norm"], image_hw, window), 0.0, 1.0)
    offset, size = (tf.tile(tf.cast(pair, tf.float32), [2]) for pair in (corner[:2], window.scaled_size))
    boxes *= size
    visible = tf.reduce_all(boxes[:, 2:] - boxes[:, :2] > LEAST_VISIBLE, axis=-1, keepdims=True)
    return tf.cast(tf.round(image), tf.uint8), tf.where(visible, boxes + offset, 0.0)


def _covering_window(image_hw: tf.Tensor, size: tf.Tensor, seed: tf.Tensor) -> Window:
    """The largest window of an image that has the shape of size, [2] int32, at a random place."""
    image_pixels_a_pixel = tf.reduce_min(tf.cast(image_hw, tf.float32) / tf.cast(size, tf.float32))
    shown = tf.cast(tf.round(tf.cast(size, tf.float32) * image_pixels_a_pixel), tf.int32)
    shown = tf.clip_by_value(shown, 1, image_hw)
    offset = tf.cast(image_hw - shown + 1, tf.float32) * tf.random.stateless_uniform([2], seed)
    return Window(tf.cast(offset, tf.int32), shown, size)
