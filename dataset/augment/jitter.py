# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Scale jitter: a random scale, and a random window if the scaled image is larger than the network input."""

import tensorflow as tf

from dataset.window import Window
from efficientdet import preprocess


def random_window(
    image_hw: tf.Tensor,
    seed: tf.Tensor,
    *,
    image_size: tuple[int, int],
    target_size: tuple[int, int],
    jitter_min: float,
    jitter_max: float,
) -> Window:
    """Draws a window from the size of an image alone, so that only the window has to be decoded.

    The window consists of whole pixels of the original image, whereas the published code crops the scaled image: a side
    differs by up to half a pixel, and pixels outside of the window do not contribute to interpolation at its border.

    Args:
        image_hw: [2] int32, (height, width) of the image.
        seed: [2] integer.
        image_size: (height, width) of the network input.
        target_size: (height, width) into which an image is fitted at factor 1.
        jitter_min: smallest factor.
        jitter_max: largest factor.

    Returns:
        The window; its scaled_size is at most image_size.

    Reference: Tan et al., CVPR 2020, section 5.1 (https://arxiv.org/abs/1911.09070).
    """
    draws = tf.random.stateless_uniform([3], seed)
    factor = jitter_min + (jitter_max - jitter_min) * draws[0]
    # At least one pixel: 0.01 * 64 pixels would be rounded down to 0.
    scale = preprocess.fit_scale(image_hw, tf.maximum(tf.floor(factor * tf.cast(target_size, tf.float32)), 1))
    scaled = preprocess.scaled_size(image_hw, scale)
    shown = tf.cast(tf.round(tf.cast(image_size, tf.float32) / scale), tf.int32)
    size = tf.where(scaled > image_size, tf.clip_by_value(shown, 1, image_hw), image_hw)
    offset = tf.cast(tf.cast(image_hw - size + 1, tf.float32) * draws[1:], tf.int32)
    return Window(offset, size, tf.minimum(scaled, image_size))
