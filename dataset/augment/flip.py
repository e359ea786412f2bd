# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Horizontal flip."""

import tensorflow as tf

from dataset.tfrecord import Sample


def random_flip(sample: Sample, seed: tf.Tensor) -> Sample:
    """Flips image and boxes horizontally with probability 0.5; deterministic for a given seed, [2] integer."""

    def mirrored() -> tuple[tf.Tensor, tf.Tensor]:
        ymin, xmin, ymax, xmax = tf.unstack(sample["boxes_norm"], axis=-1)
        return tf.reverse(sample["image"], [1]), tf.stack([ymin, 1 - xmax, ymax, 1 - xmin], -1)

    flips = tf.random.stateless_uniform([], seed) < 0.5
    image, boxes_norm = tf.cond(flips, mirrored, lambda: (sample["image"], sample["boxes_norm"]))
    return {**sample, "image": image, "boxes_norm": boxes_norm}
