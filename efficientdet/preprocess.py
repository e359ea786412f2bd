# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Image -> network input. Training, evaluation, serving and export all use `to_input`."""

from collections.abc import Sequence

import tensorflow as tf

Rgb = float | Sequence[float]  # one number, or one per channel


def fit(
    image_hw: tf.Tensor, output_size: tuple[int, int] | tf.Tensor, *, keep_aspect_ratio: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Fits an image into output_size.

    Args:
        image_hw: [2] integer, (height, width) of the image in pixels.
        output_size: (height, width) in pixels.
        keep_aspect_ratio: True for the largest common factor of both axes; False for one factor per axis, so that the
            image fills output_size.

    Returns:
        The size of the scaled image, [2] int32, (height, width) of at least (1, 1); and the factors, [2] float32,
        (y, x).

    Example:
        >>> size, scale = fit(tf.constant([480, 640]), (320, 320), keep_aspect_ratio=True)
        >>> size.numpy().tolist(), scale.numpy().tolist()
        ([240, 320], [0.5, 0.5])
    """
    scale = tf.cast(output_size, tf.float32) / tf.cast(image_hw, tf.float32)
    if not keep_aspect_ratio:
        return tf.cast(output_size, tf.int32), scale
    scale = tf.fill([2], tf.reduce_min(scale))
    # In float32 and not rounded, like the published models: a product just below an integer loses a pixel.
    return tf.maximum(tf.cast(tf.cast(image_hw, tf.float32) * scale, tf.int32), 1), scale


def preprocess(
    image: tf.Tensor, image_size: tuple[int, int], *, keep_aspect_ratio: bool, **colors: Rgb | bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Scales an image to fit the network input, normalizes it, and pads it at the bottom and right.

    Args:
        image: [H, W, 3] or a batch [B, H, W, 3], uint8 or float, RGB in [0, 255].
        image_size: (height, width) of the network input.
        keep_aspect_ratio: see `fit`; False leaves no padding.
        **colors: mean_rgb, stddev_rgb and scale_range, see `to_input`.

    Returns:
        The network input [(B,) height, width, 3] float32, and image_scale [4] float32: boxes in pixels of the network
        input, multiplied by image_scale, are in pixels of the given image.

    Example:
        >>> colors = {"mean_rgb": 127.0, "stddev_rgb": 128.0, "scale_range": False}
        >>> image = tf.zeros([480, 640, 3], tf.uint8)
        >>> inputs, image_scale = preprocess(image, (320, 320), keep_aspect_ratio=True, **colors)
        >>> inputs.shape, image_scale.numpy().tolist()
        (TensorShape([320, 320, 3]), [2.0, 2.0, 2.0, 2.0])
    """
    image = tf.convert_to_tensor(image)
    size, scale = fit(tf.shape(image)[-3:-1], image_size, keep_aspect_ratio=keep_aspect_ratio)
    return to_input(image, size, image_size, **colors), tf.tile(1 / scale, [2])


def to_input(
    image: tf.Tensor, size: tf.Tensor, image_size: tuple[int, int], *, mean_rgb: Rgb, stddev_rgb: Rgb, scale_range: bool
) -> tf.Tensor:
    """Resizes to `size` (bilinear, half-pixel centers), normalizes, and pads at the bottom and right.

    Args:
        image: [H, W, 3] or a batch [B, H, W, 3], uint8 or float, RGB in [0, 255].
        size: [2] int32, (height, width) after resizing, at most image_size.
        image_size: (height, width) of the network input.
        mean_rgb: mean in [0, 255]; one number, or one per channel.
        stddev_rgb: standard deviation in [0, 255]; one number, or one per channel.
        scale_range: True maps the padded result x to x * 2 / 255 - 1, for networks trained on [-1, 1] with
            mean_rgb = 0 and stddev_rgb = 1.

    Returns:
        The network input [(B,) height, width, 3] float32.
    """
    height, width = image_size
    # Normalization commutes with bilinear resizing; after it, there are fewer pixels.
    image = normalize(_resize(image, size), mean_rgb, stddev_rgb)
    # Padding after normalization with 0 has the mean color.
    batch_paddings = [[0, 0]] * (image.shape.rank - 3)
    image = tf.pad(image, [*batch_paddings, [0, height - size[0]], [0, width - size[1]], [0, 0]])
    # Makes the size static; TFLite has no EnsureShape op.
    batch = [-1 if count is None else count for count in image.shape[:-3]]
    image = tf.reshape(image, [*batch, height, width, 3])
    return image * (2 / 255) - 1 if scale_range else image


def _resize(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Returns [(B,) *size, 3] float32, bilinear with half-pixel centers."""
    # TFLite and ONNX cannot resize uint8 to float32, so graphs for them take float32 and need no branch.
    if image.dtype == tf.float32:
        return tf.image.resize(image, size)
    # Resizing float32 is vectorized and nearly twice as fast, but a float copy of a much larger image costs more.
    is_small = tf.reduce_prod(tf.shape(image)[-3:-1]) <= 4 * tf.reduce_prod(size)
    return tf.cond(
        is_small,
        lambda: tf.image.resize(tf.cast(image, tf.float32), size),
        lambda: tf.cast(tf.image.resize(image, size), tf.float32),
    )


def normalize(image: tf.Tensor, mean_rgb: Rgb, stddev_rgb: Rgb) -> tf.Tensor:
    """Returns (image - mean_rgb) / stddev_rgb for [..., H, W, 3] float32; arguments as in `to_input`.

    >>> normalize(tf.fill([1, 1, 3], 255.0), mean_rgb=127.0, stddev_rgb=128.0).numpy().tolist()
    [[[1.0, 1.0, 1.0]]]
    """
    # Broadcasts whole rows: TensorFlow takes six times as long to broadcast [3] over every pixel.
    shape = tf.shape(image)
    mean, stddev = (
        tf.tile(tf.broadcast_to(tf.constant(rgb, tf.float32), [3]), shape[-2:-1]) for rgb in (mean_rgb, stddev_rgb)
    )
    rows = tf.reshape(image, tf.concat([shape[:-2], [-1]], 0))
    return tf.reshape((rows - mean) / stddev, shape)


def unnormalize(image: tf.Tensor, *, mean_rgb: Rgb, stddev_rgb: Rgb, scale_range: bool) -> tf.Tensor:
    """Inverts the color normalization of `to_input`.

    Args:
        image: [..., 3] float, normalized.
        mean_rgb, stddev_rgb, scale_range: as given to `to_input`.

    Returns:
        [..., 3] uint8, RGB, clipped to [0, 255]; padding has the mean color.

    Example:
        >>> unnormalize(tf.ones([1, 3]), mean_rgb=127.0, stddev_rgb=128.0, scale_range=False).numpy().tolist()
        [[255, 255, 255]]
    """
    image = tf.cast(image, tf.float32)
    if scale_range:
        image = (image + 1) * (255 / 2)
    image = image * tf.constant(stddev_rgb, tf.float32) + tf.constant(mean_rgb, tf.float32)
    return tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)
