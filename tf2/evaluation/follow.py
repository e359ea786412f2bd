# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluates the checkpoints of a running training as they are written, and records the results."""

import contextlib
import tempfile
import time
from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf
from absl import logging

from dataset.check import class_ids, run_checks
from dataset.check.class_ids import NamedIds
from efficientdet.config import Config
from efficientdet.model import EfficientDetNet
from tf2.evaluation.evaluator import Evaluation, Evaluator
from tf2.training import model_dir as model_dir_lib
from tf2.training import strategy as strategy_lib
from tf2.training.best_result import BetterWeights
from tf2.training.progress import EvaluationLog
from tf2.weights import checkpoint, class_names
from tf2.weights.checkpoint import CheckpointError

POLL_SECONDS = 5  # between checks for a new checkpoint
NO_NAMES = NamedIds((), "the records")


class _Loaded(NamedTuple):
    """A checkpoint whose averages, or weights without averages, were loaded into the network."""

    prefix: str
    step: int | None  # in its name
    last_step: int | None  # of its training
    copy: str  # prefix of a copy that the training does not delete; `prefix` if its name has no step
    averaged: bool

    @property
    def is_last(self) -> bool:
        """True if no checkpoint of the training will follow."""
        return self.step is None or (self.last_step is not None and self.step >= self.last_step)


class EvaluationRecorder:
    """Writes the results of a parallel evaluation to the model directory: event file, eval.csv and archive."""

    def __init__(self, path: str):
        self.log = EvaluationLog(path)
        self.model_dir = model_dir_lib.ModelDir(path)
        self.best_ap = self.model_dir.best_ap()

    def record(self, prefix: str, step: int | None, results: Mapping[str, float], *, averaged: bool = True) -> bool:
        """Records the metrics of a checkpoint, unless it has no step; a failed write is logged as a warning.

        Args:
            averaged: False if the metrics are those of its raw weights, although it has averages.

        Returns:
            True if it is the best, and was archived.
        """
        if step is None:
            return False
        try:
            self.log.write(step, results)
            if is_best := results["AP"] > self.best_ap:
                self.model_dir.archive(prefix, results, averaged=averaged)
                self.best_ap = results["AP"]  # last: a checkpoint that could not be archived must not count
            return is_best
        except (OSError, CheckpointError) as error:
            logging.warning("%s", error)
            return False


def run(
    config: Config,
    evaluation: Evaluation,
    model_dir: str,
    *,
    min_interval: float,
    timeout: float,
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, float]:
    """Evaluates the checkpoints of a parallel training, see `evaluate_checkpoints`, after a check of the records.

    Args:
        config: config of the training.
        evaluation: files and options.
        model_dir, min_interval, timeout: see `evaluate_checkpoints`.
        strategy: strategy of one worker, on whose replicas the checkpoints are evaluated; None for one device.

    Raises:
        ValueError: for several workers, which may see different checkpoints.
        DataError: if an evaluation on these records would be pointless.
        CheckpointError, LabelMapError: see `evaluate_checkpoints`.
    """
    strategy = strategy or tf.distribute.get_strategy()
    if strategy_lib.num_workers(strategy) > 1:
        raise ValueError(
            "--min_eval_interval and --eval_timeout evaluate on one machine; omit --worker and --strategy=multi-gpus, "
            "or run --mode=eval without these two on all machines"
        )
    config, known = class_names.of_detector(config, model_dir)
    names = run_checks.check_files(
        config, known, None, evaluation.val_file_pattern, val_json_file=evaluation.val_json_file
    )
    # No image is drawn here, and sample_image may be a file of the machine that trains.
    evaluator = Evaluator(config.override({"sample_image": None}), evaluation, strategy)
    # The training may write its own names later.
    with strategy.scope():  # in which the weights are created and assigned
        return evaluate_checkpoints(evaluator, model_dir, min_interval=min_interval, timeout=timeout, names=names)


def evaluate_checkpoints(
    evaluator: Evaluator, model_dir: str, *, min_interval: float, timeout: float, names: NamedIds = NO_NAMES
) -> dict[str, float]:
    """Evaluates and records the newest checkpoint of a directory, then newer ones as a training writes them.

    Stops after the checkpoint of the training's last step (its entry `training/last_step`), after one without a step
    in its name, such as a released one, or when no newer one appears within `timeout`. A checkpoint that is deleted or
    still incomplete when it is read is skipped until it is complete or a newer one appears.

    Args:
        evaluator: evaluator for the config of the training.
        model_dir: directory of the checkpoints; it need not exist yet.
        min_interval: minimum seconds between the starts of two evaluations.
        timeout: seconds to wait for the first checkpoint, and for a newer one after each evaluation.
        names: class names in the records, to be compared with those of the training.

    Returns:
        Metrics of the last evaluation; of the training's last step those of the better of averaged and raw weights, see
        `BetterWeights`.

    Raises:
        CheckpointError: if no readable checkpoint appears within `timeout`, or it does not fit the network.
        LabelMapError: if label_map or `names` give a class name of the training another id.
    """
    recorder = EvaluationRecorder(model_dir)
    net = EfficientDetNet(evaluator.config)  # shared by all checkpoints, so that the evaluator traces it once
    prefix, step, results, not_before = None, -1, {}, time.monotonic()
    while True:
        logging.info("waiting up to %g s for a %s checkpoint in %s", timeout, "newer" if prefix else "first", model_dir)
        deadline = max(time.monotonic() + timeout, not_before)
        time.sleep(max(0.0, not_before - time.monotonic()))
        # A copy, because the training may delete the checkpoint during its evaluation.
        with tempfile.TemporaryDirectory() as folder:
            loaded = _load_newer_checkpoint(net, model_dir, step, deadline, folder)
            if loaded is None:
                break
            not_before = time.monotonic() + min_interval
            prefix, step = loaded.prefix, loaded.step
            known = class_names.of_checkpoint(model_dir, evaluator.config.num_classes)
            for given in (class_ids.of_label_map(evaluator.config.label_map), names):
                class_ids.check_moved(given, known, class_names.USE_THOSE)
            results = _evaluate(evaluator, net, loaded, recorder)
        if loaded.is_last:
            return results
    if prefix is None:
        raise CheckpointError(
            f"no readable checkpoint appeared in {model_dir} within {timeout:g} s; "
            f"pass the --model_dir of a training, or a longer --eval_timeout"
        )
    logging.warning(
        "no checkpoint newer than %s appeared within %g s, and it is not marked as the last of its training: stopping; "
        "run again when the training continues, or with a longer --eval_timeout",
        prefix,
        timeout,
    )
    return results


def _evaluate(
    evaluator: Evaluator, net: EfficientDetNet, loaded: _Loaded, recorder: EvaluationRecorder
) -> dict[str, float]:
    """Evaluates a checkpoint and records its metrics; the last one of a training averaged and raw."""
    results = evaluator.run(net)
    if loaded.step is None or not (loaded.is_last and loaded.averaged):
        recorder.record(loaded.copy, loaded.step, results)
        return results
    checkpoint.restore(net, loaded.copy, averaged=False)
    better = BetterWeights.of(results, evaluator.run(net))
    is_best = recorder.record(loaded.copy, loaded.step, better.metrics, averaged=better.averaged)
    logging.info("%s", better.describe(is_best, recorder.best_ap))
    return better.metrics


def _load_newer_checkpoint(
    net: EfficientDetNet, model_dir: str, step: int, deadline: float, folder: str
) -> _Loaded | None:
    """Waits for a checkpoint newer than a step, loads it, and copies it to a folder if its name has a step.

    Returns:
        The checkpoint; None if none appears before the deadline.
    """
    unreadable = None
    while True:
        prefix = newest_step = None
        # Raised if the listed checkpoint is deleted or not there yet, or if its name has no step.
        with contextlib.suppress(CheckpointError):
            prefix = checkpoint.latest(model_dir)
            newest_step = checkpoint.step_of(prefix) if prefix else None
        if prefix and (newest_step is None or newest_step > step):
            try:
                last_step = checkpoint.read_entries(prefix, ["training/last_step"]).get("training/last_step")
                averaged = checkpoint.restore(net, prefix).averaged
                copy = prefix if newest_step is None else model_dir_lib.copy(prefix, folder)
                return _Loaded(prefix, newest_step, last_step, copy, averaged)
            except CheckpointError as error:
                if checkpoint.is_readable(prefix):  # it does not fit the network, and waiting would not help
                    raise
                if prefix != unreadable:
                    logging.warning("%s; waiting for a newer checkpoint", error)
                unreadable = prefix
        if time.monotonic() >= deadline:
            return None
        time.sleep(POLL_SECONDS)
