# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The training loop: build or resume, then train to the last step, saving and evaluating in between."""

import contextlib
import dataclasses
import math
import os
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import logging

from dataset import dataloader
from dataset.check import class_ids
from dataset.dataloader import InputReader
from dataset.record_count import RecordCounts
from efficientdet.config import Config
from efficientdet.model import EfficientDetNet
from tf2.training import epoch, exchange, resume, same_start
from tf2.training import strategy as strategy_lib
from tf2.training.best_result import BestResult, BetterWeights
from tf2.training.interrupt import Interrupt, Stopped
from tf2.training.model_dir import ModelDir
from tf2.training.progress import Profiler, Progress
from tf2.training.run_lock import RunLock
from tf2.training.trainer import Trainer
from tf2.training.workers import StopRequests
from tf2.weights import checkpoint, class_names

PROFILED = range(10, 16)  # steps of a run, from 1: after compilation, and enough to see the input pipeline


@dataclasses.dataclass(frozen=True)
class Training:
    """Files, sizes and run-time options of a training run."""

    model_dir: str
    train_file_pattern: str
    batch_size: int = 64  # images per step, over all replicas
    num_examples_per_epoch: int | None = None  # images per epoch; None: the records of train_file_pattern
    ckpt: str | None = None  # weights of a detector to start from
    backbone_ckpt: str | None = None  # weights of a classifier to start the backbone from
    save_checkpoints_steps: int = 1000
    min_save_steps: int = 0  # of epochs that end with a checkpoint; of shorter ones, several together end with one
    steps_per_execution: int = 1  # steps taken without returning to Python
    seed: int | None = None  # seed of weights, data order and augmentation; None draws one
    use_fake_data: bool = False  # repeats the first batch
    profile: bool = False  # profiles a few steps
    use_xla: bool = False  # compiles the step, see `Trainer`
    command: str = ""  # command line, for the first line of config.yaml

    @property
    def steps_per_epoch(self) -> int:
        """Complete batches per epoch."""
        return self.num_examples_per_epoch // self.batch_size


class Evaluator(Protocol):
    """Interface of an evaluator, see `evaluator.Evaluator`."""

    def run(self, net: EfficientDetNet) -> dict[str, float]:
        """Returns metrics by name; all workers call it together, and those other than the first get none."""

    def draw_images(self, net: EfficientDetNet) -> dict[str, np.ndarray]:
        """Returns images with drawn detections by name, [H, W, 3] uint8."""


def run(
    config: Config,
    training: Training,
    evaluator: Evaluator | None = None,
    *,
    eval_every_epochs: int = 0,
    strategy: tf.distribute.Strategy | None = None,
    counts: RecordCounts | None = None,
) -> dict[str, float]:
    """Trains to the end of the last epoch, resuming from the newest checkpoint in model_dir.

    Args:
        config: configuration of model and training.
        training: files, sizes and options.
        evaluator: called after the last epoch; None for no evaluation.
        eval_every_epochs: epochs between evaluations during training; 0 for none.
        strategy: distribution strategy, see `strategy.create`; None for one device.
        counts: counter of records, which are not counted again; None for a new one.

    Returns:
        Metrics of the last evaluation; empty without one. With moving averages, those of the better of the averaged
        and the raw weights, see `BetterWeights`.

    Raises:
        ValueError: if a file is missing or does not match, an epoch has no complete batch, or label_map gives a class
            name another id than before, or than in the detector of `ckpt`.
        FloatingPointError: if the loss is not finite for max_skipped_steps steps in a row; these are not saved.
        OSError: if model_dir cannot be written.
        TargetError: if another training writes to model_dir.
        Stopped: after SIGTERM or SIGINT on any worker; the current step was finished and saved.
    """
    counts = counts or RecordCounts(training.model_dir)
    if training.num_examples_per_epoch is None or not training.use_fake_data:
        length = epoch.find_length(training.train_file_pattern, training.num_examples_per_epoch, counts)
        training = dataclasses.replace(training, num_examples_per_epoch=length)
    _check(config, training, bool(evaluator and eval_every_epochs))
    eval_steps, batches, results, is_early = eval_every_epochs * training.steps_per_epoch, None, {}, False
    strategy = strategy or tf.distribute.get_strategy()
    lock = RunLock(training.model_dir) if strategy_lib.is_chief(strategy) else contextlib.nullcontext()
    with lock, Interrupt() as interrupt:
        session = _Session(config, training, evaluator, strategy, interrupt, lock)
        if session.is_chief:
            counts.save()
        step = session.trainer.step
        with session.progress, session.profiler:
            while True:
                # Also before the first step: the evaluation after the last saved step may have been interrupted.
                is_last = step >= session.last_step
                if evaluator and step and (is_last or (eval_steps and step % eval_steps == 0)):
                    results, is_early = session.evaluate(step)
                    if not is_last and session.stop_requested(step, always=True):
                        raise session.stopped(step)
                if is_last or is_early:
                    return results
                batches = batches or session.batches(step)
                step = session.advance(batches, step)


def _check(config: Config, training: Training, evaluates: bool) -> None:
    if training.steps_per_epoch < 1:
        raise ValueError(
            f"an epoch of {training.num_examples_per_epoch} images has no complete batch of {training.batch_size}; "
            f"lower --train_batch_size, or raise --num_examples_per_epoch (images then repeat)"
        )
    if config.early_stop_patience and not evaluates:
        raise ValueError("early_stop_patience needs evaluations during training; use --mode=train_and_eval")


class _Session:
    """One run of a training: its trainer, input, model directory and progress."""

    def __init__(
        self,
        config: Config,
        training: Training,
        evaluator: Evaluator | None,
        strategy: tf.distribute.Strategy,
        interrupt: Interrupt,
        lock: RunLock | contextlib.nullcontext,  # of the chief
    ):
        self.config, self.training, self.evaluator = config, training, evaluator
        self.interrupt, self.lock = interrupt, lock
        self.last_step = config.num_epochs * training.steps_per_epoch
        self.is_chief = strategy_lib.is_chief(strategy)
        self.num_workers = strategy_lib.num_workers(strategy)
        self.model_dir = ModelDir(training.model_dir)
        self.reader = self._reader(0, 1)
        sizes = {"batch_size": training.batch_size, "num_examples_per_epoch": training.num_examples_per_epoch}
        prefix, entries = resume.find(self.model_dir, config, **sizes) or (None, {})
        self.seed = resume.find_seed(entries, training.seed, self.num_workers)
        self.best = BestResult.from_entries(entries) if entries else BestResult()
        start = training.ckpt or training.backbone_ckpt
        if start and prefix:
            reason = "--ckpt and --backbone_ckpt apply to the start of a training run, and are not read"
            logging.info("%s resumes from %s; %s", training.model_dir, prefix, reason)
        elif start:
            checkpoint.find(start)  # fails here, before the seconds that building takes
            _, known = class_names.at_start(config, training.model_dir, training.ckpt)
            class_names.log_renamed(class_ids.of_label_map(config.label_map), known)

        epochs_per_save = max(math.ceil(training.min_save_steps / training.steps_per_epoch), 1)
        self.save_steps = (training.save_checkpoints_steps, epochs_per_save * training.steps_per_epoch)
        self.trainer = self._build(strategy)
        if self.is_chief:
            self.lock.check()  # after building, so that a training that started at the same time has written its lock
            self.model_dir.prepare(self.trainer.num_bytes())
        self._load(prefix, entries)
        if self.is_chief:
            self.model_dir.write_config(config, training.command)

        self.stop_requests = StopRequests(self.trainer) if self.num_workers > 1 else None
        self.stopping_workers = []  # asked to stop by a signal
        step = self.saved_step = self.trainer.step
        if step >= self.last_step:
            logging.info(
                "%s already has all %d steps: nothing left to train; raise num_epochs to continue",
                training.model_dir,
                step,
            )
        self.progress = Progress(
            training.model_dir,
            batch_size=training.batch_size,
            step=step,
            last_step=max(step, self.last_step),
            steps_per_epoch=training.steps_per_epoch,
            is_chief=self.is_chief,
        )
        profiled = range(step + PROFILED.start, step + PROFILED.stop) if training.profile else range(0)
        self.profiler = Profiler(training.model_dir, profiled)

    def _build(self, strategy: tf.distribute.Strategy) -> Trainer:
        """Builds the trainer with random weights."""
        config, training, start = self.config, self.training, time.monotonic()
        difference = config.difference(Config())
        logging.info("building %s, seed %d; other than the defaults: %s", config.name, self.seed, difference)
        keras.utils.set_random_seed(self.seed)
        trainer = Trainer(
            config,
            batch_size=training.batch_size,
            steps_per_epoch=training.steps_per_epoch,
            seed=self.seed,
            strategy=strategy,
            precision=strategy_lib.precision(config.mixed_precision, strategy),
            use_xla=training.use_xla,
        )
        seconds, compiler = time.monotonic() - start, "; XLA compiles the steps" if training.use_xla else ""
        logging.info("built in %.1f s: %s%s", seconds, trainer.summary(), compiler)
        return trainer

    def _load(self, prefix: str | None, entries: Mapping[str, np.ndarray]) -> None:
        """Resumes from a checkpoint of this run or starts from --ckpt or --backbone_ckpt; compares the workers."""
        config, training, trainer = self.config, self.training, self.trainer
        if prefix:
            trainer.resume(prefix, entries)
        elif training.ckpt:
            trainer.start_from(training.ckpt)
        elif training.backbone_ckpt:
            source_scope = f"{config.ckpt_var_scope}/" if config.ckpt_var_scope else None
            trainer.start_from(training.backbone_ckpt, scope=f"{config.backbone_name}/", source_scope=source_scope)
        if self.num_workers > 1:
            start = {
                "first step": trainer.step + 1,
                "images per epoch": training.num_examples_per_epoch,
                "state": same_start.state(trainer.state()),
            }
            remedy = "all workers need the same --ckpt and records, and one --model_dir that all of them can read"
            same_start.check(exchange.gather_objects(trainer.strategy, start), remedy)

    def advance(self, batches: Iterator, step: int) -> int:
        """Takes one step, or several in one call, reports and saves; returns the number of the last step."""
        count = self._steps_to_boundary(step)
        self.profiler.before(step + 1)
        if self.training.steps_per_execution > 1:
            with dataloader.data_errors():
                metrics = self.trainer.train_steps(batches, tf.constant(count))
        else:
            with dataloader.data_errors(), self.progress.waiting():
                batch = next(batches)
            metrics = self.trainer.train_step(*batch)
        step += count
        values = self.progress.report(step, metrics)
        self._check_finite(step, values)
        stops = self.stop_requested(step)
        if stops or step == self.last_step or any(step % steps == 0 for steps in self.save_steps):
            self._save(step)
        if stops:
            raise self.stopped(step)
        return step

    def stopped(self, step: int) -> Stopped:
        """Returns the exception that ends the run after a signal."""
        message = f"stopped by a signal after step {step}, which is saved; the same command resumes from there"
        if self.stopping_workers:
            message = (
                f"stopped after step {step}, which is saved, by a signal to {' and '.join(self.stopping_workers)}; the "
                f"same command on all machines resumes from there"
            )
        return Stopped(message, self.interrupt.exit_code or 128 + signal.SIGTERM)

    def _reader(self, worker: int, num_workers: int) -> InputReader:
        return InputReader(self.training.train_file_pattern, self.config, shard=(worker, num_workers))

    def batches(self, step: int) -> Iterator:
        """Returns an iterator over the batches from a step on, one per `train_step`."""

        def dataset(worker: int, num_workers: int, per_replica: int) -> tf.data.Dataset:
            self.reader = self._reader(worker, num_workers)
            replicas = self.trainer.num_replicas // num_workers
            dataset = self.reader.training(
                per_replica,
                seed=self.seed,
                start_batch=0 if self.training.use_fake_data else step * replicas,
                num_examples=self.training.num_examples_per_epoch,
            )
            return dataset.take(replicas).cache().repeat() if self.training.use_fake_data else dataset

        return dataloader.iterate(self.trainer.distribute(dataset))

    def _steps_to_boundary(self, step: int) -> int:
        """Returns the number of steps until control has to return to Python."""
        lengths = (*self.save_steps, self.training.steps_per_epoch)  # epochs, because an evaluation may follow
        left = (length - step % length for length in lengths)
        return min(self.training.steps_per_execution, self.last_step - step, *left)

    def _check_finite(self, step: int, values: Mapping[str, float] | None) -> None:
        """Ends the training if max_skipped_steps steps in a row were skipped.

        Args:
            step: last step.
            values: its metrics; None if they were not read.
        """
        if values is None or not values["skipped_steps"]:
            return
        skipped = self.trainer.skipped_steps
        in_a_row = skipped.num_in_a_row()
        if in_a_row < self.config.max_skipped_steps or skipped.can_reduce_loss_scale():
            return
        images = self.reader.source_ids(
            self.training.batch_size // self.num_workers,
            seed=self.seed,
            start_batch=0 if self.training.use_fake_data else step - 1,
            num_examples=self.training.num_examples_per_epoch,
        )
        raise FloatingPointError(
            f"step {step}: {skipped.cause(values, self.trainer.trained)}; {in_a_row} steps in a row were skipped, none "
            f"of them is saved. Images of this step: {', '.join(images)}"
        )

    def stop_requested(self, step: int, *, always: bool = False) -> bool:
        """Returns True if a signal arrived; for several workers see `StopRequests.ask`."""
        here = self.interrupt.signal is not None
        if self.stop_requests is None:
            return here
        self.stopping_workers = self.stop_requests.ask(step, here, always=always)
        return bool(self.stopping_workers)

    def _save(self, step: int) -> None:
        if not self.is_chief or step == self.saved_step:
            return
        self.lock.check()
        self.progress.flush()
        training = self.training
        extra = {
            "seed": self.seed,
            "batch_size": training.batch_size,
            "position": step * training.batch_size,  # images read
            "num_examples_per_epoch": training.num_examples_per_epoch,
            "last_step": self.last_step,
        }
        with self.progress.paused():
            entries = {f"training/{name}": np.int64(value) for name, value in extra.items()}
            self.model_dir.save(step, {**self.trainer.state(), **entries, **self.best.entries()})
        self.saved_step = step

    def evaluate(self, step: int) -> tuple[dict[str, float], bool]:
        """Evaluates the current weights on all workers; the first one archives the best.

        With moving averages, the averaged weights are evaluated, and at the end of the training the raw ones, too.
        Returns the metrics of the better weights, and True if training stops early.
        """
        self._save(step)  # unless it is saved: the best checkpoint is copied, and a kill repeats no step before it
        better, is_best, is_early = None, False, False
        with self.progress.paused():
            results = self.evaluator.run(self.trainer.evaluated_net())
            if self.is_chief:
                is_best, is_early = self.best.update(step, results["AP"]), self._stops_early(step)
            if self.num_workers > 1:
                is_early = self.trainer.any_worker(is_early)
            if self.trainer.average and (is_early or step >= self.last_step):
                raw = self.evaluator.run(self.trainer.evaluated_net(averaged=False))
                if self.is_chief:
                    better = BetterWeights.of(results, raw)
                    results = better.metrics
                    is_best |= not better.averaged and self.best.update(step, results["AP"])
        if self.is_chief:
            self._publish(step, results, better, is_best)
        return results, is_early

    def _publish(self, step: int, results: dict[str, float], better: BetterWeights | None, is_best: bool) -> None:
        """Writes metrics and drawn images of an evaluation, and archives the checkpoint if it is the best."""
        averaged = better is None or better.averaged
        with self.progress.paused():
            images = self.evaluator.draw_images(self.trainer.evaluated_net(averaged=averaged))
        self.lock.check()
        self.progress.evaluated(step, results, images)
        # A parallel --mode=eval may have archived a better one. An equal one is this one, archived before a kill.
        is_best = is_best and results["AP"] >= self.model_dir.best_ap()
        if is_best:
            prefix = os.path.join(self.training.model_dir, f"{checkpoint.PREFIX}-{step}")
            with self.progress.paused():
                self.model_dir.archive(prefix, results, averaged=averaged)
        if better:
            logging.info("%s", better.describe(is_best, self.model_dir.best_ap()))

    def _stops_early(self, step: int) -> bool:
        """Returns True, and logs a line, if early_stop_patience ends the training after an evaluation."""
        patience, best = self.config.early_stop_patience, self.best
        is_early = bool(patience and best.stale >= patience and step < self.last_step)
        if is_early:
            logging.info(
                "stopping early: no better AP than %.4f of step %d in %d evaluations",
                *(best.best_ap, best.best_step, best.stale),
            )
        return is_early
