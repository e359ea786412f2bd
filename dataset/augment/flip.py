# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Horizontal flip."""

import tensorflow as tf

from dataset.tfrecord import Sample


def random_flip(sample: Sample, seed: tf.Tensor) -> Sample:
    """Mirrors image and boxes left to right for half of the seeds; equal seeds, equal result.

    Args:
        sample: with image [H, W, 3] and boxes_norm [K, 4].
        seed: [2] integer.

    Returns:
        The sample, mirrored or not.
    """
    ymin, xmin, ymax, xmax = tf.unstack(sample["boxes_norm"], axis=-1)
    mirrored = {
        **sample,
        "image": sample["image"][:, ::-1],
        "boxes_norm": tf.stack([ymin, 1 - xmax, ymax, 1 - xmin], -1),
    }
    return tf.cond(tf.random.stateless_uniform([], seed) < 0.5, lambda: mirrored, lambda: dict(sample))
