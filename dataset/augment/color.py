# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Colour operations, [H, W, 3] uint8 -> [H, W, 3] uint8.

They equal those of the Python Imaging Library, as listed in the AutoAugment paper (Cubuk et al., CVPR 2019, table 6 of
https://arxiv.org/abs/1805.09501). On a CPU, `tf.where` per pixel and broadcasting along the last axis of size 3 are
several times slower than arithmetic on flat rows, and are avoided.
"""

import tensorflow as tf

from dataset.augment.geometry import paste

LUMA = (0.299, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601
SMOOTHING_TOTAL = 13  # of the kernel 1 1 1 / 1 5 1 / 1 1 1


def blend(first: tf.Tensor, second: tf.Tensor, factor: float) -> tf.Tensor:
    """Returns `first + factor * (second - first)`, clipped to [0, 255] and truncated to uint8.

    Both have numbers in [0, 255]; first is broadcast to the shape of second. A factor above 1 extrapolates.

    >>> blend(tf.constant([0.0]), tf.constant([100.0]), 0.5).numpy().tolist()
    [50]
    """
    first, second = tf.cast(first, tf.float32), tf.cast(second, tf.float32)
    return tf.cast(tf.clip_by_value(first + factor * (second - first), 0.0, 255.0), tf.uint8)


def color(image: tf.Tensor, factor: float) -> tf.Tensor:
    """Changes the saturation: factor 0 returns greys, 1 the image.

    >>> color(tf.constant([[[200, 100, 0]]], tf.uint8), factor=0.0).numpy().tolist()
    [[[118, 118, 118]]]
    """
    values = tf.reshape(tf.cast(image, tf.float32), [-1, 3])
    to_luma = tf.tile(tf.constant(LUMA)[:, tf.newaxis], [1, 3])
    return tf.reshape(blend(tf.round(values @ to_luma), values, factor), tf.shape(image))


def contrast(image: tf.Tensor, factor: float) -> tf.Tensor:
    """Scales the distance from the mean luma: factor 0 returns a uniform grey, 1 the image."""
    values = tf.cast(image, tf.float32)
    mean = tf.reduce_sum(tf.reduce_mean(values, axis=[0, 1]) * LUMA)
    return blend(tf.round(mean), values, factor)


def brightness(image: tf.Tensor, factor: float) -> tf.Tensor:
    """Scales the values: factor 0 returns black, 1 the image.

    >>> brightness(tf.fill([1, 1, 3], 100.0), factor=1.5).numpy().tolist()
    [[[150, 150, 150]]]
    """
    return blend(0, image, factor)


def sharpness(image: tf.Tensor, factor: float) -> tf.Tensor:
    """Blends with the smoothed image: factor 0 returns it, 1 the image, above 1 sharpens. The border is unchanged."""
    values = tf.cast(image, tf.float32)
    inner = values[1:-1, 1:-1]  # empty for a side of one or two pixels
    rows = values[:-2] + values[1:-1] + values[2:]
    smoothed = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * inner) / SMOOTHING_TOTAL
    return paste(image, blend(tf.round(smoothed), inner, factor), 1, 1)


def posterize(image: tf.Tensor, bits: int) -> tf.Tensor:
    """Keeps the highest `bits` bits of every value, clipped to [1, 8]: 0 bits would leave a black image.

    >>> posterize(tf.constant([255, 127], tf.uint8), bits=2).numpy().tolist()
    [192, 64]
    """
    lowest = 1 << (8 - min(max(bits, 1), 8))  # value of the lowest bit kept
    return tf.bitwise.bitwise_and(image, tf.constant(256 - lowest, tf.uint8))


def solarize(image: tf.Tensor, threshold: int) -> tf.Tensor:
    """Inverts values at or above a threshold; none if it is above 255.

    >>> solarize(tf.constant([100, 200], tf.uint8), threshold=128).numpy().tolist()
    [100, 55]
    """
    bright = tf.cast(tf.cast(image, tf.int32) >= threshold, tf.uint8)
    return tf.bitwise.bitwise_xor(image, 255 * bright)


def solarize_add(image: tf.Tensor, addition: int, threshold: int = 128) -> tf.Tensor:
    """Adds `addition`, 0 or more, to values below a threshold of up to 255; the sum is at most 255.

    >>> solarize_add(tf.constant([100, 200], tf.uint8), addition=50).numpy().tolist()
    [150, 200]
    """
    dark = tf.cast(image < threshold, tf.uint8)
    return image + dark * tf.minimum(tf.constant(min(addition, 255), tf.uint8), 255 - image)


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches the values of each channel to [0, 255]. A channel with a single value is unchanged."""
    lowest, highest = (tf.cast(reduce(image, [0, 1]), tf.float32) for reduce in (tf.reduce_min, tf.reduce_max))
    flat = highest == lowest
    offset, extent = tf.where(flat, 0.0, lowest), tf.where(flat, 255.0, highest - lowest)
    height, width = tf.unstack(tf.shape(image)[:2])
    rows = tf.cast(tf.reshape(image, [height, width * 3]), tf.float32)
    stretched = 255 * (rows - tf.tile(offset, [width])) / tf.tile(extent, [width])
    return tf.cast(tf.reshape(stretched, tf.shape(image)), tf.uint8)


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Equalizes the histogram of each channel, if at least 255 pixels are below its highest value."""
    channels = tf.cast(tf.transpose(tf.reshape(image, [-1, 3])), tf.int32)  # [3, H * W]
    counts = tf.math.bincount(channels, minlength=256, maxlength=256, axis=-1)  # [3, 256]
    num_highest = tf.gather(counts, tf.reduce_max(channels, -1), batch_dims=1)
    step = (tf.shape(channels)[1] - num_highest)[:, tf.newaxis] // 255  # pixels per value, [3, 1]
    below = tf.cumsum(counts, axis=-1, exclusive=True)
    spread = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    table = tf.cast(tf.where(step > 0, spread, tf.range(256)), tf.uint8)
    return tf.reshape(tf.transpose(tf.gather(table, channels, batch_dims=1)), tf.shape(image))
