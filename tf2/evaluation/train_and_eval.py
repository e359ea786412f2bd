# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""A complete training: checks of its data, recipe, steps, evaluations and report."""

import functools
from collections.abc import Collection
from typing import Any

import tensorflow as tf

from dataset.check import run_checks
from dataset.record_count import RecordCounts
from efficientdet.config import Config
from tf2.evaluation import training_report
from tf2.evaluation.evaluator import Evaluation, Evaluator
from tf2.training import exchange, recipe, same_start, train, workers
from tf2.training import strategy as strategy_lib
from tf2.training.train import Training
from tf2.weights import class_names


def run(
    config: Config,
    training: Training,
    evaluation: Evaluation | None = None,
    *,
    evaluates_during: bool = False,
    typed_keys: Collection[str] = (),
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, float]:
    """Trains to the end of the last epoch, evaluates, and writes the report.

    A training that resumes keeps its class names, if the config has none, and the keys that its recipe determined.

    Args:
        config: configuration of model and training, without the keys that its recipe determines from the data.
        training: files, sizes and options of the training.
        evaluation: files and options of the evaluations; None for no evaluation.
        evaluates_during: True for evaluations every map_freq epochs; False for one after the last epoch.
        typed_keys: config keys that the user set, which the recipe does not change.
        strategy: distribution strategy, see `strategy.create`; None for one device.

    Returns:
        Metrics, see `train.run`; empty without evaluation.

    Raises:
        DataError: if training or evaluation on these records would be pointless.
        ValueError, FloatingPointError, OSError, Stopped: see `train.run`.
    """
    strategy = strategy or tf.distribute.get_strategy()
    if training.use_xla:
        strategy_lib.check_xla(strategy)
    counts = RecordCounts(training.model_dir)
    with workers.lost_workers(strategy, lambda: workers.resume_advice(training.model_dir)):
        prepare = functools.partial(_prepare, config, training, evaluation, typed_keys, counts)
        config = exchange.run_on_all(strategy, prepare)[strategy_lib.worker_index(strategy)]
        every = config.map_freq if evaluates_during else 0
        if strategy_lib.num_workers(strategy) > 1:
            start = exchange.gather_objects(strategy, _start(config, training, evaluation, every))
            same_start.check(start, "start all workers with the same command, records and versions")
        evaluator = Evaluator(config, evaluation, strategy) if evaluation else None
        metrics = train.run(config, training, evaluator, eval_every_epochs=every, strategy=strategy, counts=counts)
        if metrics:  # of the first machine, if there are several
            training_report.write(config, evaluator, training.model_dir, training.command)
        exchange.wait_for_all(strategy)
    return metrics


def _prepare(
    config: Config,
    training: Training,
    evaluation: Evaluation | None,
    typed_keys: Collection[str],
    counts: RecordCounts,
) -> Config:
    """Checks the records, and returns the config with the keys that follow from them or from an earlier run."""
    config, known = class_names.at_start(config, training.model_dir, training.ckpt)
    evaluated = (evaluation.val_file_pattern, evaluation.val_json_file) if evaluation else (None, None)
    run_checks.check_files(config, known, training.train_file_pattern, evaluated[0], val_json_file=evaluated[1])
    return recipe.fit(config, typed_keys, training, counts=counts)


def _start(config: Config, training: Training, evaluation: Evaluation | None, every: int) -> dict[str, Any]:
    """Returns what all workers must have in common, by name of flags and keys."""
    options = {
        "train_batch_size": training.batch_size,
        "num_examples_per_epoch": training.num_examples_per_epoch,
        "save_checkpoints_steps": training.save_checkpoints_steps,
        "steps_per_execution": training.steps_per_execution,
        "tf_random_seed": training.seed,
        "use_fake_data": training.use_fake_data,
        "use_xla": training.use_xla,
        "ckpt": training.ckpt,
        "backbone_ckpt": training.backbone_ckpt,
        "epochs between evaluations": every,
        "training records": same_start.files(training.train_file_pattern),
    }
    if evaluation:
        options |= {
            "eval_batch_size": evaluation.batch_size,
            "eval_samples": evaluation.num_samples,
            "evaluation records": same_start.files(evaluation.val_file_pattern),
            "val_json_file": same_start.files(evaluation.val_json_file),
        }
    return same_start.software() | same_start.settings(config, options)
