# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""A short training run as a separate process, because replicas must be configured before TensorFlow starts.

    python tests/replicas.py OUTPUT.npz HPARAMS one
    python tests/replicas.py OUTPUT.npz HPARAMS two-devices
    python tests/replicas.py OUTPUT.npz HPARAMS host:port,host:port 0     (and the same with 1, at the same time)

Writes the metrics of all steps and the state after the last one. All modes use the same images; with two replicas,
those of the second one contain no objects.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
import tensorflow as tf
import tf_keras as keras

from efficientdet import config as config_lib
from efficientdet.model import build_anchors
from efficientdet.targets import AnchorLabeler
from tf2.training import strategy as strategy_lib
from tf2.training.trainer import Trainer

STEPS = 20
IMAGES = 8  # per step
# Smooth activations, and no level with so few pixels that its statistics come from a handful of values: if rounding
# errors switch a relu or are amplified by normalization, correct implementations soon differ.
TINY = {"image_size": 128, "fpn_num_filters": 8, "fpn_cell_repeats": 1, "box_class_repeats": 2, "num_classes": 3}
TINY |= {"act_type": "swish", "max_level": 5}


def examples(config: config_lib.Config) -> list:
    """Returns one (image, labels) per image, IMAGES per step; the second half of each step has no objects."""
    labeler, rng = AnchorLabeler(build_anchors(config)), np.random.RandomState(3)
    made = []
    for i in range(STEPS * IMAGES):
        boxes = rng.uniform(0, 60, (3 if i % IMAGES < IMAGES // 2 else 0, 4)).astype(np.float32)
        boxes[:, 2:] += boxes[:, :2] + 8
        classes = np.arange(1, len(boxes) + 1, dtype=np.int32)
        cls_targets, box_targets, num_positives = labeler.label(tf.constant(boxes), tf.constant(classes))
        labels = {"cls_targets": cls_targets, "box_targets": box_targets, "num_positives": num_positives}
        # Large shapes: the deep features of noise hardly vary, and normalization would amplify rounding errors.
        image = tf.image.resize(tf.constant(rng.uniform(-2, 2, (4, 4, 3)), tf.float32), config.image_size)
        made.append((image, labels))
    return made


def main(output: str, hparams: str, mode: str, worker_index: int = 0) -> None:
    """Trains, and writes metrics and state to the .npz file `output`."""
    strategy = None
    if mode == "two-devices":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    elif mode != "one":
        strategy = strategy_lib.create("multi-gpus", workers=mode.split(","), worker_index=worker_index)
    config = config_lib.load("efficientdet-lite0", hparams, **TINY)
    keras.utils.set_random_seed(1)
    trainer = Trainer(config, batch_size=IMAGES, steps_per_epoch=STEPS, seed=5, strategy=strategy)
    if strategy:
        assert trainer.num_replicas == 2 and trainer.any_worker(worker_index == 0)
        mean = 1.0 if mode == "two-devices" else 1.5
        assert trainer.mean_over_replicas([1.0 + worker_index, 3.0]).tolist() == [mean, 3.0]
        assert strategy_lib.is_chief(strategy) == (worker_index == 0)
    made = examples(config)

    def dataset(worker: int, num_workers: int, per_replica: int) -> tf.data.Dataset:
        share = IMAGES // num_workers
        own = [example for i, example in enumerate(made) if i % IMAGES // share == worker]
        stacked = tf.nest.map_structure(lambda *values: tf.stack(values), *own)
        return tf.data.Dataset.from_tensor_slices(stacked).batch(per_replica, drop_remainder=True)

    metrics = [{k: float(v) for k, v in trainer.train_step(*batch).items()} for batch in trainer.distribute(dataset)]
    columns = {f"metrics/{name}": [step[name] for step in metrics] for name in metrics[0]}
    with open(output, "wb") as file:
        np.savez(file, **trainer.state(), **columns)


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
