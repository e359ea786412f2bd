# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Scale jitter: a random zoom, and a random window where the zoomed image is larger than the input."""

import tensorflow as tf

from dataset.tfrecord import Sample
from efficientdet import preprocess


def random_jitter(
    sample: Sample,
    seed: tf.Tensor,
    *,
    image_size: tuple[int, int],
    target_size: tuple[int, int],
    jitter_min: float,
    jitter_max: float,
) -> Sample:
    """Draws how `preprocess` has to scale and crop the image; pixels and boxes stay as they are.

    Args:
        sample: with image [H, W, 3].
        seed: [2] integer.
        image_size: (height, width) of the network input.
        target_size: (height, width) that an image at factor 1 just fits into.
        jitter_min: smallest factor.
        jitter_max: largest factor.

    Returns:
        The sample with `scale`, [] float32, and `offset`, [2] int32, as `preprocess` takes them.

    Reference: Tan et al., CVPR 2020, section 5.1 (https://arxiv.org/abs/1911.09070).
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    factor = tf.random.stateless_uniform([], seeds[0], jitter_min, jitter_max)
    image_hw = tf.shape(sample["image"])[:2]
    # At least a pixel: a factor of 0.01 of a 64 pixel input leaves none.
    scale = preprocess.fit_scale(image_hw, tf.maximum(tf.floor(factor * tf.cast(target_size, tf.float32)), 1))
    excess = tf.maximum(preprocess.scaled_size(image_hw, scale) - image_size, 0)
    offset = tf.cast(tf.cast(excess, tf.float32) * tf.random.stateless_uniform([2], seeds[1]), tf.int32)
    return {**sample, "scale": scale, "offset": offset}
