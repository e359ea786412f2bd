# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""From an image to the network input. Training, evaluation, serving and export all go through `preprocess`."""

from collections.abc import Sequence

import tensorflow as tf


def fit_scale(image_hw: tf.Tensor, output_size: tuple[int, int] | tf.Tensor) -> tf.Tensor:
    """[] float32: the largest factor by which an image of (height, width) still fits into output_size."""
    return tf.reduce_min(tf.cast(output_size, tf.float32) / tf.cast(image_hw, tf.float32))


def scaled_size(image_hw: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """[2] int32: (height, width) in whole pixels of an image of image_hw after scaling, at least one pixel a side."""
    # float32 and cut, not rounded: where the product is just below a whole number, published models saw a pixel less.
    return tf.maximum(tf.cast(tf.cast(image_hw, tf.float32) * scale, tf.int32), 1)


def preprocess(
    image: tf.Tensor,
    image_size: tuple[int, int],
    *,
    mean_rgb: float | Sequence[float],
    stddev_rgb: float | Sequence[float],
    scale_range: bool,
    scale: tf.Tensor | None = None,
    offset: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Resizes (bilinear, half-pixel centers), crops, normalizes, and pads at the bottom and right.

    Args:
        image: [H, W, 3] or a batch [B, H, W, 3], uint8 or float, RGB in [0, 255].
        image_size: (height, width) of the network input.
        mean_rgb: mean in the unit of the image: one number, or one a channel.
        stddev_rgb: standard deviation likewise.
        scale_range: whether the result is mapped on by x * 2 / 255 - 1, padding included; for networks trained on
            [-1, 1], whose mean_rgb is 0 and stddev_rgb 1.
        scale: [] float32, factor from image to input, as scale jitter draws it; None: the image just fits.
        offset: [2] int32, (y, x) of the window that is cut from the scaled image; None: (0, 0).

    Returns:
        The input [(B,) height, width, 3] float32, and image_scale [] float32: boxes of the network input times
        image_scale are boxes in pixels of the given image (for a window: before its offset is added).
    """
    image = tf.convert_to_tensor(image)
    height, width = image_size
    image_hw = tf.shape(image)[-3:-1]
    if scale is None:
        scale = fit_scale(image_hw, image_size)
    # Normalizing commutes with bilinear resizing, and here it has fewer pixels to do, none of them cut off later.
    image = tf.cast(tf.image.resize(image, scaled_size(image_hw, scale)), tf.float32)
    if offset is not None:
        image = image[..., offset[0] :, offset[1] :, :]
    image = normalize(image[..., :height, :width, :], mean_rgb, stddev_rgb)
    missing = image_size - tf.shape(image)[-3:-1]
    # After normalizing: padding has the mean color.
    batch_paddings = [[0, 0]] * (image.shape.rank - 3)
    image = tf.pad(image, [*batch_paddings, [0, missing[0]], [0, missing[1]], [0, 0]])
    image = tf.ensure_shape(image, [*image.shape[:-3], height, width, 3])
    if scale_range:
        image = image * (2 / 255) - 1
    return image, 1 / scale


def normalize(image: tf.Tensor, mean_rgb: float | Sequence[float], stddev_rgb: float | Sequence[float]) -> tf.Tensor:
    """(image - mean_rgb) / stddev_rgb for [..., 3] float32; each one number, or one a channel."""
    return (image - tf.constant(mean_rgb, tf.float32)) / tf.constant(stddev_rgb, tf.float32)
