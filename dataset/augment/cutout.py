# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cutout: a grey rectangle hides a part of the image, or of one object. Boxes stay.

Reference: DeVries and Taylor, 2017 (https://arxiv.org/abs/1708.04552).
"""

import tensorflow as tf

from dataset.augment.geometry import grey_out, pixel_windows


def cutout(image: tf.Tensor, seed: tf.Tensor, pad: int) -> tf.Tensor:
    """Hides a square of side 2 * pad around a random pixel, as far as it lies within the image.

    Args:
        image: [H, W, 3] uint8.
        seed: [2] integer.
        pad: pixels; 0 hides nothing.

    Returns:
        [H, W, 3] uint8.
    """
    center = _random_pixel(seed, tf.zeros([2], tf.int32), tf.shape(image)[:2])
    return grey_out(image, tf.concat([center - pad, center + pad], 0))


def object_cutout(image: tf.Tensor, boxes_norm: tf.Tensor, seed: tf.Tensor, fraction: float) -> tf.Tensor:
    """Hides a rectangle around a random pixel of one of the objects.

    Args:
        image: [H, W, 3] uint8.
        boxes_norm: [K, 4] float32; one of those that cover a pixel is drawn. Without any, nothing is hidden.
        seed: [2] integer.
        fraction: height and width of the rectangle as fractions of the object's.

    Returns:
        [H, W, 3] uint8.
    """
    windows = pixel_windows(boxes_norm, tf.shape(image)[:2])
    windows = tf.boolean_mask(windows, tf.reduce_all(windows[:, 2:] > windows[:, :2], axis=-1))
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))

    def hide() -> tf.Tensor:
        index = tf.random.stateless_uniform([], seeds[0], maxval=tf.shape(windows)[0], dtype=tf.int32)
        first, last = tf.split(windows[index], 2)
        center = _random_pixel(seeds[1], first, last)
        half = tf.cast(tf.cast(last - first, tf.float32) * (fraction / 2), tf.int32)
        return grey_out(image, tf.concat([center - half, center + half], 0))

    return tf.cond(tf.shape(windows)[0] > 0, hide, lambda: image)


def _random_pixel(seed: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
    """[2] int32 (row, column), from `first` up to but without `last`."""
    extent = tf.cast(last - first, tf.float32)
    return first + tf.cast(tf.random.stateless_uniform([2], seed) * extent, tf.int32)
