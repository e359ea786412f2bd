# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Training: build, resume or load, then step until done, saving and evaluating on the way."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import logging

from dataset import dataloader
from dataset.dataloader import Batch, InputReader
from efficientdet.config import Config
from efficientdet.model import EfficientDetNet
from tf2 import callbacks, checkpoint
from tf2.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Training:
    """What a training reads and writes."""

    model_dir: str
    train_file_pattern: str
    batch_size: int = 64  # images a step, over all devices
    num_examples_per_epoch: int = 120000
    ckpt: str | None = None  # weights of a detector to start from
    backbone_ckpt: str | None = None  # weights of a classifier to start the backbone from
    save_checkpoints_steps: int = 1000
    seed: int | None = None  # of weights, data order and augmentation; None draws one
    use_fake_data: bool = False  # repeats the first batch

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.num_examples_per_epoch // self.batch_size


class Evaluator(Protocol):
    """What can tell the quality of a network, such as `evaluate.Evaluator`."""

    def run(self, net: EfficientDetNet) -> dict[str, float]:
        """Metrics by name."""


def run(
    config: Config, training: Training, evaluator: Evaluator | None = None, *, eval_every_epochs: int = 0
) -> dict[str, float]:
    """Trains to the end of the last epoch, or goes on where model_dir left off.

    Args:
        config: of model and training.
        training: files and sizes.
        evaluator: run after the last epoch; None for no evaluation.
        eval_every_epochs: evaluates after every so many epochs, too; 0 for not.

    Returns:
        Metrics of the last evaluation; nothing without one.

    Raises:
        ValueError: if a file is missing or does not fit, or an epoch has no whole batch.
        FloatingPointError: if the loss is not finite; nothing of that step is saved.
    """
    steps_per_epoch = training.steps_per_epoch
    if steps_per_epoch < 1:
        raise ValueError(
            f"an epoch of {training.num_examples_per_epoch} images has no whole batch of {training.batch_size}; "
            f"lower --train_batch_size or correct --num_examples_per_epoch"
        )
    last_step = config.num_epochs * steps_per_epoch
    reader = InputReader(training.train_file_pattern, config)
    prefix = _existing(training)
    if prefix and checkpoint.step_of(prefix) >= last_step:
        logging.info("%s has all %d steps: nothing left to train; raise num_epochs to go on", prefix, last_step)
        return evaluator.run(checkpoint.load_net(config, prefix)) if evaluator else {}

    trainer, seed = _begin(config, training, prefix)
    batches = _batches(reader, training, seed, trainer.step)
    eval_steps = eval_every_epochs * steps_per_epoch
    results = {}
    with callbacks.Progress(training.model_dir, training.batch_size, trainer.step, last_step) as progress:
        for step in range(trainer.step + 1, last_step + 1):
            progress.report(step, trainer.train_step(*next(batches)))
            due = evaluator and (step == last_step or (eval_steps and step % eval_steps == 0))
            if step == last_step or not step % training.save_checkpoints_steps or not step % steps_per_epoch:
                progress.require_finite()
                trainer.save(training.model_dir, {"seed": np.int64(seed)})
            if due:
                with trainer.evaluated():
                    results = evaluator.run(trainer.net)
                progress.evaluated(step, results)
    return results


def _existing(training: Training) -> str | None:
    """The checkpoint to continue from, if model_dir has one; makes model_dir where it does not exist."""
    tf.io.gfile.makedirs(training.model_dir)
    prefix = checkpoint.latest(training.model_dir)
    if prefix and (training.ckpt or training.backbone_ckpt):
        logging.info(
            "%s continues from %s; --ckpt and --backbone_ckpt only say how to begin, and are not read",
            training.model_dir,
            prefix,
        )
    return prefix


def _begin(config: Config, training: Training, prefix: str | None) -> tuple[Trainer, int]:
    """A trainer at its first step, and the seed of the whole training."""
    start = training.ckpt or training.backbone_ckpt
    if start and not prefix:
        checkpoint.find(start)  # before the seconds that building takes
    seed = _seed(training, prefix)
    # Of initial weights and drop connect; the latter would otherwise repeat itself after a resume.
    keras.utils.set_random_seed(seed + (checkpoint.step_of(prefix) if prefix else 0))
    logging.info("building %s, seed %d; beside the defaults: %s", config.name, seed, config.difference(Config()))
    trainer = Trainer(config, batch_size=training.batch_size, steps_per_epoch=training.steps_per_epoch)
    if prefix:
        trainer.resume(prefix)
    elif training.ckpt:
        trainer.start_from(training.ckpt)
    elif training.backbone_ckpt:
        source_scope = f"{config.ckpt_var_scope}/" if config.ckpt_var_scope else None
        trainer.start_from(training.backbone_ckpt, scope=f"{config.backbone_name}/", source_scope=source_scope)
    with tf.io.gfile.GFile(os.path.join(training.model_dir, "config.yaml"), "w") as file:
        file.write(config.to_yaml())
    return trainer, seed


def _seed(training: Training, prefix: str | None) -> int:
    """The seed that the training began with; for a new one what was asked for, or any."""
    begun = checkpoint.read_entries(prefix, ["seed"]).get("seed") if prefix else None
    if begun is None:
        return training.seed if training.seed is not None else int.from_bytes(os.urandom(3), "big")
    if training.seed not in (None, int(begun)):
        logging.info("this training began with seed %d and keeps it; --tf_random_seed is not used", begun)
    return int(begun)


def _batches(reader: InputReader, training: Training, seed: int, start_batch: int) -> Iterator[Batch]:
    dataset = reader.training(
        training.batch_size, seed=seed, start_batch=start_batch, num_examples=training.num_examples_per_epoch
    )
    return dataloader.batches(dataset.take(1).cache().repeat() if training.use_fake_data else dataset)
