# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trainer: the network with its optimizer and moving average, one step over them, and their state on disk."""

import contextlib
import re
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import logging

from efficientdet import losses
from efficientdet.config import Config
from efficientdet.model import EfficientDetNet, build_anchors
from tf2 import checkpoint
from tf2 import optimizer as optimizer_lib


class Trainer:
    """All that training changes: weights, optimizer slots, moving averages and the step."""

    def __init__(self, config: Config, *, batch_size: int, steps_per_epoch: int):
        """Builds network and optimizer with random weights.

        Args:
            config: of the model and its training.
            batch_size: images a step, over all devices; learning rates scale with it.
            steps_per_epoch: for what the config gives in epochs.
        """
        self.config = config
        self.net = EfficientDetNet(config)
        self.anchors = tf.constant(build_anchors(config).boxes)
        self.learning_rate = learning_rate(config, batch_size, steps_per_epoch)
        self.optimizer = optimizer_lib.get_optimizer(config.optimizer, self.learning_rate, config.momentum)
        self.optimizer.build(self.net.trainable_variables)
        self.average = None
        if config.moving_average_decay:
            self.average = optimizer_lib.MovingAverage(self.net.weights, config.moving_average_decay)
        self.kernels = [v for v in self.net.trainable_variables if re.search(r"(kernel|weight):0$", v.name)]

    @property
    def step(self) -> int:
        """Steps taken since the weights were random or loaded from another training."""
        return int(self.optimizer.iterations.numpy())

    @tf.function
    def train_step(self, images: tf.Tensor, labels: Mapping) -> dict[str, tf.Tensor]:
        """One update of weights and averages.

        Args:
            images: [B, height, width, 3] float32, normalized.
            labels: as `InputReader.training` gives them.

        Returns:
            Scalars by name: loss and its parts, gradient_norm (after clipping) and learning_rate.
        """
        rate = self.learning_rate(self.optimizer.iterations)
        variables = self.net.trainable_variables
        with tf.GradientTape() as tape:
            metrics = self.loss(images, labels)
        gradients = tape.gradient(metrics["loss"], variables)
        gradients, norm = optimizer_lib.clip_gradients(gradients, self.config.clip_gradients_norm)
        self.optimizer.apply_gradients(zip(gradients, variables))
        if self.average:
            self.average.update(self.optimizer.iterations)
        return {**metrics, "gradient_norm": norm, "learning_rate": rate}

    def loss(self, images: tf.Tensor, labels: Mapping) -> dict[str, tf.Tensor]:
        """The training loss and its parts: detection losses plus weight decay; arguments as `train_step`."""
        cls_outputs, box_outputs = self.net(images, training=True)
        parts = losses.detection_loss(
            cls_outputs,
            box_outputs,
            labels,
            options=loss_options(self.config),
            anchors=self.anchors,
            normalizer=tf.reduce_sum(labels["num_positives"]) + 1,
        )
        decay = self.config.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in self.kernels])
        return {**parts, "reg_l2_loss": decay, "loss": parts["det_loss"] + decay}

    def evaluated(self) -> contextlib.AbstractContextManager:
        """A context in which the network holds the weights to evaluate and ship: the averages, if there are any."""
        return self.average.applied() if self.average else contextlib.nullcontext()

    def start_from(self, path: str, *, scope: str = "", source_scope: str | None = None) -> None:
        """Loads weights to begin a training with; what does not fit stays random, and is listed.

        Args:
            path: see `checkpoint.find`.
            scope: first part of the variable names to load; "" for all.
            source_scope: what the checkpoint has in its place; None for the same.

        Raises:
            CheckpointError: if next to nothing fits, or something does not and skip_mismatch is off.
        """
        checkpoint.restore(self.net, path, partial=self.config.skip_mismatch, scope=scope, source_scope=source_scope)
        if self.average:
            self.average.reset()

    def save(self, directory: str, extra: Mapping[str, np.ndarray]) -> str:
        """Writes all state as a name-based checkpoint; returns its prefix.

        Args:
            directory: exists.
            extra: entries of the training loop.
        """
        tensors = {name: variable.numpy() for name, variable in self._state().items()}
        return checkpoint.save(directory, self.step, {**tensors, **extra})

    def resume(self, prefix: str) -> Mapping[str, np.ndarray]:
        """Takes all state from a checkpoint that `save` wrote; returns the other entries.

        Raises:
            CheckpointError: if the checkpoint lacks any state, or holds it in another shape.
        """
        entries = checkpoint.read_entries(prefix)
        state = self._state()
        for name, variable in state.items():
            value = entries.pop(name, None)
            if value is None or value.shape != tuple(variable.shape):
                has = "nothing" if value is None else list(value.shape)
                raise checkpoint.CheckpointError(
                    f"cannot continue from {prefix}: it holds {has} for {name}, this training needs "
                    f"{variable.shape.as_list()}; use the model, num_classes, optimizer and moving_average_decay "
                    f"that it began with, or start anew in another --model_dir with --ckpt={prefix}"
                )
            variable.assign(value)
        logging.info("continuing from %s, step %d", prefix, self.step)
        return entries

    def _state(self) -> dict[str, tf.Variable]:
        """Every variable by its entry in a checkpoint; the names of weights and averages are the published ones."""
        state = checkpoint.named_variables(self.net)
        if self.average:
            averages = zip(self.average.variables, self.average.averages)
            state |= {
                checkpoint.official_name(variable) + checkpoint.AVERAGE: average for variable, average in averages
            }
        for slot in optimizer_slots(self.optimizer):
            kind, name = checkpoint.official_name(slot).split("/", 1)
            state[f"{name}/{type(self.optimizer).__name__}/{kind}"] = slot
        return {**state, "global_step": self.optimizer.iterations}


def optimizer_slots(optimizer: keras.optimizers.Optimizer) -> list[tf.Variable]:
    """Slot variables, named {m or v}/{variable}, of a built optimizer."""
    variables = optimizer.variables if not callable(optimizer.variables) else optimizer.variables()
    return [variable for variable in variables if "/" in variable.name]


def learning_rate(config: Config, batch_size: int, steps_per_epoch: int) -> optimizer_lib.LearningRate:
    """The schedule of a config: epochs become steps, and rates scale with the batch."""
    scale = batch_size / optimizer_lib.REFERENCE_BATCH_SIZE
    drops = (config.first_lr_drop_epoch, config.second_lr_drop_epoch)
    return optimizer_lib.LearningRate(
        config.lr_decay_method,
        config.learning_rate * scale,
        total_steps=config.num_epochs * steps_per_epoch,
        warmup_init=config.lr_warmup_init * scale,
        warmup_steps=int(config.lr_warmup_epoch * steps_per_epoch),
        drop_steps=[int(epoch * steps_per_epoch) for epoch in drops],
        power=config.poly_lr_power,
    )


def loss_options(config: Config) -> losses.LossOptions:
    """The part of a config that losses need."""
    return losses.LossOptions(**{name: getattr(config, name) for name in losses.LossOptions._fields})
