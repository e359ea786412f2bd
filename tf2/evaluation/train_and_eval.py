# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""A complete training: checks of its data, recipe, steps, evaluations and report."""

from collections.abc import Collection

import tensorflow as tf

from dataset.check import run_checks
from dataset.record_count import RecordCounts
from efficientdet.config import Config
from tf2.evaluation import training_report
from tf2.evaluation.evaluator import Evaluation, Evaluator
from tf2.training import recipe, train
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
    if training.use_xla:
        strategy_lib.check_xla(strategy or tf.distribute.get_strategy())
    config, known = class_names.at_start(config, training.model_dir, training.ckpt)
    evaluated = (evaluation.val_file_pattern, evaluation.val_json_file) if evaluation else (None, None)
    run_checks.check_files(config, known, training.train_file_pattern, evaluated[0], val_json_file=evaluated[1])
    counts = RecordCounts(training.model_dir)
    config = recipe.fit(config, typed_keys, training, counts=counts)
    evaluator = Evaluator(config, evaluation) if evaluation else None
    every = config.map_freq if evaluates_during else 0
    metrics = train.run(config, training, evaluator, eval_every_epochs=every, strategy=strategy, counts=counts)
    if metrics:  # of the first machine, if there are several
        training_report.write(config, evaluator, training.model_dir, training.command)
    return metrics
