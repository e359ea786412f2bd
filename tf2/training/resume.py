# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The checkpoint that a training run resumes from, and the checks that it can continue with the new settings."""

import os
from collections.abc import Mapping

import numpy as np
from absl import logging

from efficientdet.config import Config
from tf2.training import model_dir as model_dir_lib
from tf2.training.model_dir import ModelDir
from tf2.weights.checkpoint import CheckpointError


def find(
    directory: ModelDir, config: Config, *, batch_size: int, num_examples_per_epoch: int
) -> tuple[str, dict[str, np.ndarray]] | None:
    """Returns prefix and entries of the checkpoint to resume from, or None if the directory has none.

    Changes of the config and of the length of an epoch are logged.

    Args:
        directory: directory of the training run.
        config: of the run that resumes.
        batch_size: its images per step.
        num_examples_per_epoch: its images per epoch.

    Raises:
        CheckpointError: if the checkpoint has no training state.
        ConfigError: for a change of the config with which training cannot continue.
        LabelMapError: for a label map that gives a class name another id.
        ValueError: for another batch size.
    """
    newest = directory.newest()
    if newest is None:
        return None
    prefix, entries = newest
    if "training/seed" not in entries:
        raise CheckpointError(
            f"{prefix} holds weights without training state and cannot be resumed; start from it with "
            f"--ckpt={prefix} in another --model_dir"
        )
    saved_config = directory.read_config()
    for change in model_dir_lib.compare(saved_config, config) if saved_config else []:
        logging.info("changed since the last run: %s", change)
    saved_length = int(entries["training/num_examples_per_epoch"])
    if saved_length != num_examples_per_epoch:
        logging.warning(
            "this training run started with epochs of %d images, now %d: epochs and data order change; "
            "--num_examples_per_epoch=%d keeps them",
            saved_length,
            num_examples_per_epoch,
            saved_length,
        )
    saved_size = int(entries["training/batch_size"])
    if saved_size != batch_size:
        raise ValueError(
            f"{directory.path} was started with --train_batch_size={saved_size}, got {batch_size}, which would change "
            f"its steps and rates; use {saved_size} (gradient_accumulation_steps saves memory), or start a new run in "
            f"another --model_dir with --ckpt={prefix}"
        )
    return newest


def find_seed(entries: Mapping[str, np.ndarray], given: int | None, num_workers: int) -> int:
    """Returns the seed of the resumed run, or for a new one the seed given, or one that all workers share.

    Args:
        entries: entries of the checkpoint to resume from; empty for a new run.
        given: seed that the user asks for; None to draw one.
        num_workers: number of machines.
    """
    saved = entries.get("training/seed")
    if saved is None:
        drawn = int.from_bytes(os.urandom(3), "big") if num_workers == 1 else 0
        return given if given is not None else drawn
    if given not in (None, int(saved)):
        logging.info("this training run started with seed %d and keeps it; --tf_random_seed is ignored", saved)
    return int(saved)
