# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cutout: covers a part of the image, or of one object, with a grey rectangle. Boxes do not change.

Reference: DeVries and Taylor, 2017 (https://arxiv.org/abs/1708.04552).
"""

import tensorflow as tf

from dataset.augment.geometry import grey_out, pixel_windows


def cutout(image: tf.Tensor, seed: tf.Tensor, pad: int) -> tf.Tensor:
    """Covers a square of side 2 * pad pixels around a random pixel of an image [H, W, 3], clipped to it, with grey."""
    center = _random_pixel(seed, tf.zeros([2], tf.int32), tf.shape(image)[:2])
    return grey_out(image, tf.concat([center - pad, center + pad], 0))


def object_cutout(image: tf.Tensor, boxes_norm: tf.Tensor, seed: tf.Tensor, fraction: float) -> tf.Tensor:
    """Covers a rectangle around a random pixel of a random object with grey, `fraction` as high and wide as its box.

    Boxes, [K, 4] in [0, 1], of less than a pixel are ignored; without others, the image [H, W, 3] is returned.
    """
    windows = pixel_windows(boxes_norm, tf.shape(image)[:2])
    windows = tf.boolean_mask(windows, tf.reduce_all(windows[:, 2:] > windows[:, :2], axis=-1))
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))

    def cover() -> tf.Tensor:
        index = tf.random.stateless_uniform([], seeds[0], maxval=tf.shape(windows)[0], dtype=tf.int32)
        first, last = tf.split(windows[index], 2)
        center = _random_pixel(seeds[1], first, last)
        half = tf.cast(tf.cast(last - first, tf.float32) * (fraction / 2), tf.int32)
        return grey_out(image, tf.concat([center - half, center + half], 0))

    return tf.cond(tf.shape(windows)[0] > 0, cover, lambda: image)


def _random_pixel(seed: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
    """Draws a pixel, [2] int32 (row, column), from `first` (inclusive) to `last` (exclusive)."""
    extent = tf.cast(last - first, tf.float32)
    return first + tf.cast(tf.random.stateless_uniform([2], seed) * extent, tf.int32)
