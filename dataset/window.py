# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Windows of images: partial decoding, cropping, and conversion of boxes."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from dataset import tfrecord


class Window(NamedTuple):
    """A rectangle of an image, and its size in the network input."""

    offset: tf.Tensor  # [2] int32, (y, x) in the image
    size: tf.Tensor  # [2] int32, (height, width) in the image, at least (1, 1)
    scaled_size: tf.Tensor  # [2] int32, (height, width) in the input


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
    """Converts boxes [K, 4] from fractions of an image, [2] (height, width), to fractions of a window; not clipped."""
    image_hw, offset, size = (tf.tile(tf.cast(side, tf.float32), [2]) for side in (image_hw, *window[:2]))
    return (boxes_norm * image_hw - offset) / size
