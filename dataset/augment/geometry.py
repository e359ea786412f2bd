# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Flip, rotation, shear and translation of images and boxes; operations on windows of an image.

A transform is a [3, 3] float32 matrix that maps output to input coordinates: output pixel (x, y) is the input at
`matrix @ [x, y, 1]`, in pixel indices, where 0 is the centre of the first pixel. The output has the size of the input;
pixels from outside of the input are `GREY`.
"""

import math

import tensorflow as tf

from dataset.tfrecord import Sample

GREY = 128  # near the mean of natural images
MIN_VISIBLE = 0.01  # pixels; an object with a shorter side is a rounding error


def random_flip(sample: Sample, seed: tf.Tensor) -> Sample:
    """Flips image and boxes horizontally with probability 0.5; deterministic for a given seed, [2] integer."""

    def mirrored() -> tuple[tf.Tensor, tf.Tensor]:
        ymin, xmin, ymax, xmax = tf.unstack(sample["boxes_norm"], axis=-1)
        return tf.reverse(sample["image"], [1]), tf.stack([ymin, 1 - xmax, ymax, 1 - xmin], -1)

    flips = tf.random.stateless_uniform([], seed) < 0.5
    image, boxes_norm = tf.cond(flips, mirrored, lambda: (sample["image"], sample["boxes_norm"]))
    return {**sample, "image": image, "boxes_norm": boxes_norm}


def rotation(degrees: float | tf.Tensor, image_hw: tf.Tensor) -> tf.Tensor:
    """Rotates about the centre of an image of image_hw, [2] pixels, counterclockwise for positive degrees.

    >>> image_hw = tf.constant([64, 64])
    >>> boxes_norm = warp_boxes(tf.constant([[0.0, 0.0, 0.5, 0.5]]), rotation(180.0, image_hw), image_hw)
    >>> boxes_norm.numpy().round(2).tolist()
    [[0.5, 0.5, 1.0, 1.0]]
    """
    radians = tf.cast(degrees, tf.float32) * (math.pi / 180)
    cos, sin = tf.cos(radians), tf.sin(radians)
    last_y, last_x = tf.unstack(tf.cast(image_hw, tf.float32) - 1)  # twice the centre, in pixel indices
    x_offset = (last_x - (cos * last_x - sin * last_y)) / 2
    y_offset = (last_y - (sin * last_x + cos * last_y)) / 2
    return _matrix([cos, -sin, x_offset], [sin, cos, y_offset])


def shear(x: float | tf.Tensor = 0.0, y: float | tf.Tensor = 0.0) -> tf.Tensor:
    """Moves row i by `x * i` pixels to the left, and column j by `y * j` pixels up."""
    return _matrix([1, x, 0], [y, 1, 0])


def translation(x: float | tf.Tensor = 0.0, y: float | tf.Tensor = 0.0) -> tf.Tensor:
    """Moves the content by x pixels to the right and y pixels down."""
    return _matrix([1, 0, -x], [0, 1, -y])


def _matrix(x_row: list, y_row: list) -> tf.Tensor:
    return tf.stack([tf.stack([tf.cast(entry, tf.float32) for entry in row]) for row in (x_row, y_row, [0, 0, 1])])


def warp_image(image: tf.Tensor, matrix: tf.Tensor, output_hw: tf.Tensor | None = None) -> tf.Tensor:
    """Transforms an image with nearest-neighbour interpolation; GREY outside of the input.

    Args:
        image: [H, W, C] uint8.
        matrix: [3, 3] float32.
        output_hw: [2] int32, height and width of the output; None for those of the image.
    """
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=tf.reshape(matrix, [1, 9])[:, :8],
        output_shape=tf.shape(image)[:2] if output_hw is None else output_hw,
        fill_value=GREY,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )
    return warped[0]


def warp_boxes(boxes_norm: tf.Tensor, matrix: tf.Tensor, image_hw: tf.Tensor) -> tf.Tensor:
    """Transforms boxes: the axis-aligned boxes around the transformed corners, clipped to the image.

    Args:
        boxes_norm: [K, 4] float32 in [0, 1].
        matrix: [3, 3] float32.
        image_hw: [2] int32, height and width in pixels.

    Returns:
        [K, 4] float32 in [0, 1]; all zeros for a box that leaves the image, or that was empty before, so that an object
        removed by one transform does not reappear after the next.

    Example:
        >>> warp_boxes(tf.constant([[0.0, 0.0, 0.5, 0.5]]), translation(x=32.0), tf.constant([64, 64])).numpy().tolist()
        [[0.0, 0.5, 0.5, 1.0]]
    """
    size = tf.cast(tf.tile(image_hw, [2]), tf.float32)
    # Pixel indices are relative to the centre of the first pixel, box coordinates to its edge.
    boxes, last = boxes_norm * size - 0.5, size - 0.5
    warped = tf.clip_by_value(_bounds(boxes, tf.linalg.inv(matrix)), -0.5, last)
    visible = _has_extent(boxes) & _has_extent(warped)
    return tf.where(visible[:, tf.newaxis], tf.clip_by_value((warped + 0.5) / size, 0.0, 1.0), 0.0)


def _bounds(boxes: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Axis-aligned boxes [K, 4] around the corners of boxes [K, 4], each mapped to `matrix @ corner`."""
    ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=-1)
    x = tf.stack([xmin, xmax, xmin, xmax], -1)  # [K, corners]
    y = tf.stack([ymin, ymin, ymax, ymax], -1)
    x, y = (row[0] * x + row[1] * y + row[2] for row in tf.unstack(matrix[:2]))
    return tf.stack([tf.reduce_min(y, -1), tf.reduce_min(x, -1), tf.reduce_max(y, -1), tf.reduce_max(x, -1)], -1)


def _has_extent(boxes: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(boxes[:, 2:] - boxes[:, :2] > MIN_VISIBLE, axis=-1)


def warp(sample: Sample, matrix: tf.Tensor) -> Sample:
    """Transforms image and boxes of a sample, see `warp_image` and `warp_boxes`."""
    boxes_norm = warp_boxes(sample["boxes_norm"], matrix, tf.shape(sample["image"])[:2])
    return {**sample, "image": warp_image(sample["image"], matrix), "boxes_norm": boxes_norm}


def pixel_windows(boxes_norm: tf.Tensor, image_hw: tf.Tensor) -> tf.Tensor:
    """Rounds boxes [K, 4] in [0, 1] to windows of whole pixels, [K, 4] int32 [top, left, bottom, right].

    >>> pixel_windows(tf.constant([[0.0, 0.25, 0.5, 1.0]]), tf.constant([48, 64])).numpy().tolist()
    [[0, 16, 24, 64]]
    """
    edges = tf.round(tf.clip_by_value(boxes_norm, 0.0, 1.0) * tf.cast(tf.tile(image_hw, [2]), tf.float32))
    return tf.cast(edges, tf.int32)


def paste(image: tf.Tensor, patch: tf.Tensor, top: tf.Tensor | int, left: tf.Tensor | int) -> tf.Tensor:
    """Replaces the pixels of an image [H, W, C] from (top, left) on with a patch [h, w, C] within it; may be empty."""
    bottom, right = top + tf.shape(patch)[0], left + tf.shape(patch)[1]
    middle = tf.concat([image[top:bottom, :left], patch, image[top:bottom, right:]], axis=1)
    return tf.ensure_shape(tf.concat([image[:top], middle, image[bottom:]], axis=0), image.shape)


def grey_out(image: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Fills a window, [4] int32 [top, left, bottom, right], clipped to the image, with GREY."""
    top, left, bottom, right = tf.unstack(tf.clip_by_value(window, 0, tf.tile(tf.shape(image)[:2], [2])))
    patch = tf.fill([bottom - top, right - left, image.shape[-1]], tf.constant(GREY, image.dtype))
    return paste(image, patch, top, left)
