# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""From an image to the network input. Training, evaluation, serving and export all go through `to_input`."""

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
) -> tuple[tf.Tensor, tf.Tensor]:
    """Scales an image so that it just fits, normalizes it, and pads it at the bottom and right.

    Args:
        image: [H, W, 3] or a batch [B, H, W, 3], uint8 or float, RGB in [0, 255].
        image_size: (height, width) of the network input.
        mean_rgb: see `to_input`, as the rest.

    Returns:
        The input [(B,) height, width, 3] float32, and image_scale [] float32: boxes of the network input times
        image_scale are boxes in pixels of the given image.
    """
    image = tf.convert_to_tensor(image)
    image_hw = tf.shape(image)[-3:-1]
    scale = fit_scale(image_hw, image_size)
    size = scaled_size(image_hw, scale)
    colors = {"mean_rgb": mean_rgb, "stddev_rgb": stddev_rgb, "scale_range": scale_range}
    return to_input(image, size, image_size, **colors), 1 / scale


def to_input(
    image: tf.Tensor,
    size: tf.Tensor,
    image_size: tuple[int, int],
    *,
    mean_rgb: float | Sequence[float],
    stddev_rgb: float | Sequence[float],
    scale_range: bool,
) -> tf.Tensor:
    """Resizes to the given size (bilinear, half-pixel centers), normalizes, and pads at the bottom and right.

    Args:
        image: [H, W, 3] or a batch [B, H, W, 3], uint8 or float, RGB in [0, 255].
        size: [2] int32, (height, width) to resize to, at most image_size.
        image_size: (height, width) of the network input.
        mean_rgb: mean in the unit of the image: one number, or one a channel.
        stddev_rgb: standard deviation likewise.
        scale_range: whether the result is mapped on by x * 2 / 255 - 1, padding included; for networks trained on
            [-1, 1], whose mean_rgb is 0 and stddev_rgb 1.

    Returns:
        The input [(B,) height, width, 3] float32.
    """
    height, width = image_size
    # Normalizing commutes with bilinear resizing, and here it has fewer pixels to do.
    image = normalize(_resize(image, size), mean_rgb, stddev_rgb)
    # After normalizing: padding has the mean color.
    batch_paddings = [[0, 0]] * (image.shape.rank - 3)
    image = tf.pad(image, [*batch_paddings, [0, height - size[0]], [0, width - size[1]], [0, 0]])
    # The size is static again; by a reshape, as TFLite has no op that only asserts a shape.
    batch = [-1 if count is None else count for count in image.shape[:-3]]
    image = tf.reshape(image, [*batch, height, width, 3])
    return image * (2 / 255) - 1 if scale_range else image


def _resize(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """[(B,) *size, 3] float32, bilinear with half-pixel centers."""
    # Neither TFLite nor ONNX resizes uint8 to float32: what is to be converted to them comes as float32.
    if image.dtype == tf.float32:
        return tf.image.resize(image, size)
    # TensorFlow has vector code for float32 alone, nearly twice as fast; yet no float copy of a much larger image.
    is_small = tf.reduce_prod(tf.shape(image)[-3:-1]) <= 4 * tf.reduce_prod(size)
    return tf.cond(
        is_small,
        lambda: tf.image.resize(tf.cast(image, tf.float32), size),
        lambda: tf.cast(tf.image.resize(image, size), tf.float32),
    )


def normalize(image: tf.Tensor, mean_rgb: float | Sequence[float], stddev_rgb: float | Sequence[float]) -> tf.Tensor:
    """(image - mean_rgb) / stddev_rgb for [..., H, W, 3] float32; each one number, or one a channel."""
    # Row by row, not pixel by pixel: TensorFlow takes six times as long to broadcast three numbers as a row of them.
    shape = tf.shape(image)
    mean, stddev = (
        tf.tile(tf.broadcast_to(tf.constant(rgb, tf.float32), [3]), shape[-2:-1]) for rgb in (mean_rgb, stddev_rgb)
    )
    rows = tf.reshape(image, tf.concat([shape[:-2], [-1]], 0))
    return tf.reshape((rows - mean) / stddev, shape)


def unnormalize(
    image: tf.Tensor,
    *,
    mean_rgb: float | Sequence[float],
    stddev_rgb: float | Sequence[float],
    scale_range: bool,
) -> tf.Tensor:
    """The picture that a network input shows: what `to_input` did to the colors, undone.

    Args:
        image: [..., 3] float, normalized.
        mean_rgb: as it was given to `to_input`, like the rest.

    Returns:
        [..., 3] uint8, RGB; what lies outside of [0, 255] is clipped. Padding has the mean color.
    """
    image = tf.cast(image, tf.float32)
    if scale_range:
        image = (image + 1) * (255 / 2)
    image = image * tf.constant(stddev_rgb, tf.float32) + tf.constant(mean_rgb, tf.float32)
    return tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)
