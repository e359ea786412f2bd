# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""evaluator.run_driver: any detector is evaluated on the original images."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dataset import tfrecord
from efficientdet.postprocess import Detections
from tf2.evaluation import evaluator
from tf2.evaluation.evaluator import Evaluation


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


class ByColor:
    """A driver that detects one box per image, whose height is the value of its first pixel."""

    def __init__(self, config):
        self.config, self.names, self.batches = config, {1: "square"}, []
        self.stages = {"all": self.serve}

    def serve(self, images):
        self.batches.append([image.shape[:2] for image in images])
        boxes = np.array([[[0, 0, image[0, 0, 0], 10]] for image in images], np.float32)
        count = len(images)
        return Detections(boxes, np.full([count, 1], 0.9), np.ones([count, 1], np.int32), np.ones(count, np.int32))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Records of five images of different sizes with one box each, the third of them damaged."""
    path = str(tmp_path_factory.mktemp("data") / "records")
    with tf.io.TFRecordWriter(path) as writer:
        for i, height in enumerate([20, 30, 40, 50, 60]):
            size = (80 + i, 100 + i)
            encoded = png(np.full((*size, 3), height, np.uint8)) if i != 2 else b"damaged"
            box = (0, 0, height / size[0], 10 / size[1])
            writer.write(tfrecord.encode(tfrecord.Record(encoded, *size, "f", str(i), "png", [box], [1])))
    return path


@pytest.mark.parametrize("batch_size", [1, 2, 9])
def test_a_driver_is_evaluated_on_the_original_images(tiny_config, records, batch_size, capsys):
    driver = ByColor(tiny_config)
    result = evaluator.run_driver(driver, Evaluation(records, batch_size=batch_size))
    metrics = result.metric.result()
    assert result.num_images == 4 and [size for batch in driver.batches for size in batch] == [
        (80, 100),
        (81, 101),
        (83, 103),
        (84, 104),
    ]
    assert max(map(len, driver.batches)) == min(batch_size, 4)
    assert metrics["AP"] == pytest.approx(1) and metrics["AP_/square"] == pytest.approx(1)
    assert not capsys.readouterr().out


def test_a_driver_is_evaluated_on_some_images(tiny_config, records):
    assert evaluator.run_driver(ByColor(tiny_config), Evaluation(records, num_samples=2)).num_images == 2
