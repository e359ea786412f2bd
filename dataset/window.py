# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Windows of images: random choice, partial decoding, cropping, and conversion of boxes."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from dataset import tfrecord
from efficientdet import preprocess


class Window(NamedTuple):
    """A rectangle of an image, and its size in the network input."""

    offset: tf.Tensor  # [2] int32, (y, x) in the image
    size: tf.Tensor  # [2] int32, (height, width) in the image, at least (1, 1)
    scaled_size: tf.Tensor  # [2] int32, (height, width) in the input


def random_window(
    image_hw: tf.Tensor,
    seed: tf.Tensor,
    *,
    image_size: tuple[int, int],
    target_size: tuple[int, int],
    keep_aspect_ratio: bool,
    jitter_min: float,
    jitter_max: float,
) -> Window:
    """Draws a window for scale jitter: a random scale and, if the scaled image is larger than the input, a random part.

    Only the size of the image is needed, so that only the window has to be decoded. The window consists of whole pixels
    of the original image, whereas the published code crops the scaled image: a side differs by up to half a pixel, and
    pixels outside of the window do not contribute to interpolation at its border.

    Args:
        image_hw: [2] int32, (height, width) of the image.
        seed: [2] integer.
        image_size: (height, width) of the network input.
        target_size: (height, width) into which an image is fitted at factor 1.
        keep_aspect_ratio: see `preprocess.fit`; False applies the random factor to both sides of the stretched image.
        jitter_min, jitter_max: smallest and largest factor.

    Returns:
        The window; its scaled_size is at most image_size.

    Reference: Tan et al., CVPR 2020, section 5.1 (https://arxiv.org/abs/1911.09070).
    """
    draws = tf.random.stateless_uniform([3], seed)
    factor = jitter_min + (jitter_max - jitter_min) * draws[0]
    # At least one pixel: 0.01 * 64 pixels would be rounded down to 0.
    target_size = tf.maximum(tf.floor(factor * tf.cast(target_size, tf.float32)), 1)
    scaled, scale = preprocess.fit(image_hw, target_size, keep_aspect_ratio=keep_aspect_ratio)
    shown = tf.cast(tf.round(tf.cast(image_size, tf.float32) / scale), tf.int32)
    size = tf.where(scaled > image_size, tf.clip_by_value(shown, 1, image_hw), image_hw)
    offset = tf.cast(tf.cast(image_hw - size + 1, tf.float32) * draws[1:], tf.int32)
    return Window(offset, size, tf.minimum(scaled, image_size))


def decode_window(encoded: tf.Tensor, choose: Callable[[tf.Tensor], Window]) -> tuple[tf.Tensor, tf.Tensor, Window]:
    """Decodes a window of an image; the pixels equal those of the whole image. Of a JPEG little else is decoded.

    Args:
        encoded: [] string.
        choose: returns the window for an image of [2] int32 (height, width).

    Returns:
        (image, image_hw, window): the pixels of the window, [h, w, 3] uint8; (height, width) of the whole image,
        [2] int32; and the window returned by `choose`.

    Raises:
        tf.errors.InvalidArgumentError: if the image cannot be decoded.
    """

    def decode_jpeg():
        image_hw = tf.io.extract_jpeg_shape(encoded)[:2]
        window = choose(image_hw)
        (y, x), (height, width) = tf.unstack(window.offset), tf.unstack(window.size)
        # The decoder interpolates chroma from neighbouring columns, so up to two more are decoded on either side.
        left, right = tf.minimum(x, 2), tf.minimum(image_hw[1] - x - width, 2)
        image = tf.io.decode_and_crop_jpeg(encoded, [y, x - left, height, left + width + right], channels=3)
        return image[:, left : left + width], image_hw, window

    def decode_other():
        image = tfrecord.decode_image(encoded)
        image_hw = tf.shape(image)[:2]
        window = choose(image_hw)
        return crop_image(image, window), image_hw, window

    image, image_hw, window = tf.cond(tf.io.is_jpeg(encoded), decode_jpeg, decode_other)
    return tf.ensure_shape(image, [None, None, 3]), image_hw, window


def crop_image(image: tf.Tensor, window: Window) -> tf.Tensor:
    """Crops an image [H, W, 3] to a window, [h, w, 3]."""
    return tf.slice(image, [*tf.unstack(window.offset), 0], [*tf.unstack(window.size), 3])


def crop_boxes(boxes_norm: tf.Tensor, image_hw: tf.Tensor, window: Window) -> tf.Tensor:
    """Converts boxes [K, 4] from fractions of an image, [2] (height, width), to fractions of a window; not clipped.

    >>> window = Window(offset=tf.constant([0, 32]), size=tf.constant([64, 32]), scaled_size=tf.constant([128, 64]))
    >>> crop_boxes(tf.constant([[0.0, 0.5, 1.0, 1.0]]), tf.constant([64, 64]), window).numpy().tolist()
    [[0.0, 0.0, 1.0, 1.0]]
    """
    image_hw, offset, size = (tf.tile(tf.cast(side, tf.float32), [2]) for side in (image_hw, *window[:2]))
    return (boxes_norm * image_hw - offset) / size
