# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Counts the collectives of a training step on two logical CPU devices.

    python tests/collectives.py --model_name=efficientdet-d0
    python tests/collectives.py --model_name=efficientdet-d0 --hparams= --hparams=grad_checkpoint=true

Prints a list of [normalization layers, collectives of a replica], one entry per --hparams. The step is only traced.
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import tensorflow as tf
from absl import flags

from backbone.layers import BatchNormalization
from dataset import command_line
from efficientdet import config as config_lib
from tf2.benchmarks.random_batch import random_batch
from tf2.training.trainer import Trainer

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines all flags; not done at import time."""
    with command_line.group("Training"):
        flags.DEFINE_enum("model_name", config_lib.DEFAULT_MODEL, list(config_lib.MODELS), "Model.")
        flags.DEFINE_multi_string("hparams", [""], "Keys of efficientdet/config.py, as in main.py. May be repeated.")


def count(model: str, hparams: str, strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Returns the numbers of normalization layers, and of collectives that a replica takes part in per step."""
    config = config_lib.load(model, hparams)
    batch_size = 2 * config.gradient_accumulation_steps
    trainer = Trainer(config, batch_size=batch_size, steps_per_epoch=1, strategy=strategy)
    graph = trainer.train_step.get_concrete_function(*random_batch(config, batch_size // 2)).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    collectives = sum(node.op.startswith("Collective") for node in nodes)
    return sum(isinstance(layer, BatchNormalization) for layer in trainer.net.submodules), collectives // 2


def main() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    print(json.dumps([count(FLAGS.model_name, hparams, two) for hparams in FLAGS.hparams]))


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
