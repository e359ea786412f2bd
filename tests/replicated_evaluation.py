# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluations on several replicas in a process of their own, because replicas are configured before TensorFlow starts.

    python tests/replicated_evaluation.py OUTPUT.pickle DAMAGED.tfrecord one
    python tests/replicated_evaluation.py OUTPUT.pickle DAMAGED.tfrecord 4     (logical devices)
    python tests/replicated_evaluation.py OUTPUT.pickle DAMAGED.tfrecord host:port,host:port 0     (and the same with 1)

Writes {name of an evaluation: (metrics, detections)} of this process; ("error", message) for one that failed.
"""

import pathlib
import pickle
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import tensorflow as tf
from random_detector import make_spread_driver

from efficientdet import config as config_lib
from tf2.evaluation import evaluate, voc_metric
from tf2.evaluation.evaluator import Evaluation, Evaluator
from tf2.training import exchange
from tf2.training import strategy as strategy_lib

SAMPLE, GROUNDTRUTH = (str(ROOT / "testdata" / f"sample.{suffix}") for suffix in ("tfrecord", "json"))
TINY = {"image_size": 64, "fpn_num_filters": 8, "fpn_cell_repeats": 1, "box_class_repeats": 1, "num_classes": 3}
TINY |= {"label_map": {1: "one", 2: "two", 3: "three"}, "nms_configs": {"max_nms_inputs": 50}}
NUM_DAMAGED = 3
CASES = {  # {name: (config, Evaluation, as_served)}
    "all images": ({}, {"batch_size": 3, "val_json_file": GROUNDTRUTH}, False),
    "one image, flipped": ({}, {"flip": True, "num_samples": 1}, False),
    "as served": ({}, {"batch_size": 2}, True),
    "damaged": ({"max_damaged_records": NUM_DAMAGED}, {"batch_size": 2}, False),
    "too many damaged": ({"max_damaged_records": NUM_DAMAGED - 1}, {}, True),
    "wrong class": ({"num_classes": 2, "label_map": None}, {}, True),  # in some of the records
}


def make_strategy(mode: str, worker_index: int) -> tf.distribute.Strategy:
    """Returns the strategy of a mode."""
    if mode == "one":
        return strategy_lib.create()
    if "," in mode:
        return strategy_lib.create("multi-gpus", workers=mode.split(","), worker_index=worker_index)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(mode))
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(int(mode))])


def outcome(driver, evaluation, as_served, strategy) -> tuple:
    """Returns metrics, also Pascal VOC's, and the arrays of all detections and objects, or the message of an error."""
    try:
        result = evaluate.run(driver, evaluation, as_served=as_served, strategy=strategy)
    except ValueError as error:
        return "error", str(error)
    images = [
        (image.source_id, *map(np.asarray, image.detections), *image.groundtruth) for image in result.metric.images()
    ]
    metrics = {}
    if strategy_lib.is_chief(strategy):
        metrics = result.metric.result() | voc_metric.score(result.metric.images(), result.metric.names).metrics
    return metrics, images, result.metric.coco_results(), result.num_images


def main(output: str, damaged: str, mode: str, worker_index: int = 0) -> None:
    """Runs all evaluations, and writes them to the pickle file `output`."""
    strategy = make_strategy(mode, worker_index)
    config = config_lib.load("efficientdet-lite0", **TINY)
    with strategy.scope():
        driver, outcomes = make_spread_driver(config), {}
    for name, (keys, options, as_served) in CASES.items():
        driver.config = config.override(keys)
        evaluation = Evaluation(damaged if "damaged" in name else SAMPLE, **options)
        outcomes[name] = outcome(driver, evaluation, as_served, strategy)
    if strategy_lib.is_chief(strategy):
        outcomes["drawn"] = Evaluator(config, Evaluation(SAMPLE), strategy).draw_images(driver.model.net)
    exchange.wait_for_all(strategy)
    with open(output, "wb") as file:
        pickle.dump(outcomes, file)


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
