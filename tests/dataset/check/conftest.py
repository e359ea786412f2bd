# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of checks."""

import dataclasses

import numpy as np
import pytest
from planted import NAMES, NUM_IMAGES, SIZE, groundtruth_of, jpeg

from dataset import scenes
from dataset.tfrecord import Record


@pytest.fixture(scope="module")
def clean():
    """Records of scenes, and the content of their groundtruth file."""
    records = []
    for index in range(NUM_IMAGES):
        scene = scenes.make_scene(3, index, SIZE)
        boxes = scene.boxes / np.tile(SIZE, 2)
        classes = scene.classes.tolist()
        names = [NAMES[class_id] for class_id in classes]
        record = Record(jpeg(scene.image), *SIZE, f"{index}.jpg", str(index + 1), boxes_norm=boxes, classes=classes)
        records.append(dataclasses.replace(record, class_names=names))
    return records, groundtruth_of(records)
