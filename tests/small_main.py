# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""main.py with a network of two convolutions, so that trainings in several processes start within seconds.

    python tests/small_main.py --mode=train ...     (the flags of main.py)

Everything else is that of main.py: flags, records, strategy, training loop, checkpoints, messages and exit codes. With
STEP_SECONDS in the environment every step takes that much longer, without computing.
"""

import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import main
from dataset import command_line
from main_flags import define_flags


def use_small_network() -> None:
    """Replaces the network of `Trainer`."""
    import tensorflow as tf
    import tf_keras as keras

    from backbone import layers
    from tf2.training import train, trainer

    class SmallNet(keras.Model):
        """Scaled images, a normalization, and one convolution per head, shared by all levels."""

        num_draws = 1

        def __init__(self, config, *, synchronized=False):
            super().__init__(name=config.name)
            self.config = config
            num_anchors = config.num_scales * len(config.aspect_ratios)
            self.bn = layers.BatchNormalization(name="bn")
            self.class_net = keras.layers.Conv2D(num_anchors * config.num_classes, 1, name="class_net")
            self.box_net = keras.layers.Conv2D(num_anchors * 4, 1, name="box_net")
            with tf.init_scope(), tf.name_scope(""):
                for layer in (self.bn, self.class_net, self.box_net):
                    with tf.name_scope(layer.name):
                        layer.build((None, None, None, 3))
            self.bn.synchronized = synchronized
            self.built = True

        def call(self, images, training=False, draws=None):
            images = self.bn(images, training=training)
            sizes = [[side // 2**level for side in self.config.image_size] for level in (3, 4, 5, 6, 7)]
            levels = [tf.image.resize(images, [max(side, 1) for side in size]) for size in sizes]
            return [self.class_net(level) for level in levels], [self.box_net(level) for level in levels]

    class SlowTrainer(trainer.Trainer):
        """Waits after each step."""

        def train_step(self, *batch):
            time.sleep(float(os.environ.get("STEP_SECONDS", 0)))
            return super().train_step(*batch)

    trainer.EfficientDetNet = SmallNet
    train.Trainer = SlowTrainer


def run() -> None:
    """Runs main.py with the small network."""
    use_small_network()
    main.main()


if __name__ == "__main__":
    define_flags()
    command_line.run(run)
