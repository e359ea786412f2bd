# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""GridMask: squares on a turned grid are blanked, so that no object is recognized by one part alone."""

import tensorflow as tf

from dataset.augment import geometry
from dataset.tfrecord import Sample

PROBABILITY = 0.5
KEPT = 0.6  # of the grid's period, along each axis
MEAN_DEGREES, STDDEV_DEGREES = -10.0, 10.0


def grid_mask(sample: Sample, seed: tf.Tensor) -> Sample:
    """Blanks a random grid of squares for half of the seeds; equal seeds, equal result. Boxes stay.

    The published code compared a normal draw with 0.5, which blanks in 69 % of the images; here it is half of them.

    Args:
        sample: with image [H, W, 3] uint8.
        seed: [2] integer.

    Returns:
        The sample, masked or not.

    Reference: Chen et al., 2020, section 3 (https://arxiv.org/abs/2001.04086).
    """
    image = sample["image"]
    apply_seed, grid_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    return tf.cond(
        tf.random.stateless_uniform([], apply_seed) < PROBABILITY,
        lambda: {**sample, "image": image * random_grid(tf.shape(image)[:2], grid_seed)},
        lambda: dict(sample),
    )


def random_grid(image_hw: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A mask of crossing stripes, turned about its centre.

    Args:
        image_hw: [2] int32, height and width in pixels.
        seed: [2] integer: of the grid's period, its place and its angle.

    Returns:
        [H, W, 1] uint8: 1 on the stripes, 0 on the squares between them.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
    height, width = tf.unstack(tf.cast(image_hw, tf.float32))
    ends = tf.sort(tf.stack([0.5 * height, 0.3 * width]))
    period = tf.cast(tf.random.stateless_uniform([], seeds[0], ends[0], ends[1]), tf.int32)
    period = tf.maximum(period, 2)  # a stripe and a gap have a pixel each, whatever the image
    kept = tf.clip_by_value(tf.cast(tf.round(KEPT * tf.cast(period, tf.float32)), tf.int32), 1, period - 1)

    side = tf.reduce_max(image_hw) * 3 // 2 + 1  # more than the diagonal, so turning brings no corner into sight
    start = tf.random.stateless_uniform([2], seeds[1], maxval=period, dtype=tf.int32)
    stripes = (tf.range(side)[:, tf.newaxis] + start) % period < kept  # [side, axes]
    mask = tf.cast(stripes[:, tf.newaxis, :1] | stripes[tf.newaxis, :, 1:], tf.uint8)

    degrees = tf.random.stateless_normal([], seeds[2], MEAN_DEGREES, STDDEV_DEGREES)
    top, left = tf.unstack(tf.cast((side - image_hw) // 2, tf.float32))
    window = geometry.translation_x(-left) @ geometry.translation_y(-top)
    return geometry.warp_image(mask, geometry.rotation(degrees, tf.stack([side, side])) @ window, image_hw)
