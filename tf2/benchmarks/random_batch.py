# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Random inputs of a training step."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from efficientdet.config import Config
from efficientdet.model import build_anchors
from efficientdet.targets import AnchorLabeler


def random_batch(config: Config, batch_size: int) -> tuple[tf.Tensor, Mapping]:
    """Images and labels as `InputReader.training` returns them, always the same; ten objects per image."""
    labeler = AnchorLabeler(build_anchors(config), config.match_threshold)
    rng = np.random.RandomState(0)
    labels = []
    for _ in range(batch_size):
        corners = rng.uniform(0, 0.75, [10, 2])
        corners = np.concatenate([corners, corners + rng.uniform(0.05, 0.25, [10, 2])], -1)
        boxes = corners * np.tile(config.image_size, 2)
        classes = rng.randint(1, config.num_classes + 1, 10)
        targets = labeler.label(tf.constant(boxes, tf.float32), tf.constant(classes, tf.int32))
        labels.append(dict(zip(["cls_targets", "box_targets", "num_positives"], targets)))
    images = tf.constant(rng.normal(size=[batch_size, *config.image_size, 3]), tf.float32)
    return images, tf.nest.map_structure(lambda *values: tf.stack(values), *labels)
