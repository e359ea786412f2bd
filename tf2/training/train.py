# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Training: build, resume or load, then step until done, saving and evaluating on the way."""

import dataclasses
import os
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import logging

from dataset import dataloader
from dataset.dataloader import InputReader
from efficientdet.config import Config
from efficientdet.model import EfficientDetNet
from tf2.training import model_dir
from tf2.training import strategy as strategy_lib
from tf2.training.interrupt import Interrupt
from tf2.training.model_dir import ModelDir
from tf2.training.progress import EvaluationLog, Profiler, Progress
from tf2.training.trainer import Trainer
from tf2.weights import checkpoint

PROFILED = range(10, 16)  # steps of a run, from 1: after the compilation, and enough to see the input pipeline


@dataclasses.dataclass(frozen=True)
class Training:
    """What a training reads and writes, and how it runs."""

    model_dir: str
    train_file_pattern: str
    batch_size: int = 64  # images a step, over all replicas
    num_examples_per_epoch: int = 120000
    ckpt: str | None = None  # weights of a detector to start from
    backbone_ckpt: str | None = None  # weights of a classifier to start the backbone from
    save_checkpoints_steps: int = 1000
    steps_per_execution: int = 1  # steps without a return to Python between them
    seed: int | None = None  # of weights, data order and augmentation; None draws one
    use_fake_data: bool = False  # repeats the first batch
    profile: bool = False  # writes a profile of a few steps
    command: str = ""  # for the first line of config.yaml

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.num_examples_per_epoch // self.batch_size


class Evaluator(Protocol):
    """What can tell the quality of a network, such as `evaluator.Evaluator`."""

    def run(self, net: EfficientDetNet) -> dict[str, float]:
        """Metrics by name."""

    def draw_images(self, net: EfficientDetNet) -> dict[str, np.ndarray]:
        """Drawn detections by name, [H, W, 3] uint8."""


class Stopped(Exception):
    """A signal stopped the training; all is saved, and the same command goes on."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


@dataclasses.dataclass
class Best:
    """What a training remembers of its evaluations; saved with each checkpoint."""

    best_ap: float = -1.0
    best_step: int = 0
    stale: int = 0  # evaluations since the best one

    def take(self, step: int, ap: float) -> bool:
        """Takes in an evaluation; returns whether it is the best so far, of equal ones the first."""
        is_best = ap > self.best_ap
        if is_best:
            self.best_ap, self.best_step = ap, step
        self.stale = 0 if is_best else self.stale + 1
        return is_best

    def entries(self) -> dict[str, np.ndarray]:
        """As entries of a checkpoint."""
        return {f"training/{name}": np.asarray(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def of(cls, entries: Mapping[str, np.ndarray]) -> "Best":
        """From the entries of a checkpoint."""
        fields = {field.name: type(field.default) for field in dataclasses.fields(cls)}
        return cls(**{name: kind(entries[f"training/{name}"]) for name, kind in fields.items()})


def run(
    config: Config,
    training: Training,
    evaluator: Evaluator | None = None,
    *,
    eval_every_epochs: int = 0,
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, float]:
    """Trains to the end of the last epoch, or goes on where model_dir left off.

    Args:
        config: of model and training.
        training: files and sizes.
        evaluator: run after the last epoch; None for no evaluation.
        eval_every_epochs: evaluates after every so many epochs, too; 0 for not.
        strategy: of the devices, see `strategy.create`; None for one device.

    Returns:
        Metrics of the last evaluation; nothing without one.

    Raises:
        ValueError: if a file is missing or does not fit, or an epoch has no whole batch.
        FloatingPointError: if the loss is not finite for too many steps in a row; nothing of them is saved.
        OSError: if model_dir cannot be written.
        Stopped: if SIGTERM or SIGINT came; the step was finished and saved.
    """
    if training.steps_per_epoch < 1:
        raise ValueError(
            f"an epoch of {training.num_examples_per_epoch} images has no whole batch of {training.batch_size}; "
            f"lower --train_batch_size or correct --num_examples_per_epoch"
        )
    if config.early_stop_patience and not (evaluator and eval_every_epochs):
        raise ValueError("early_stop_patience needs evaluations on the way; use --mode=train_and_eval")
    with Interrupt() as interrupt:
        loop = _Loop(config, training, evaluator, strategy or tf.distribute.get_strategy(), interrupt)
        return loop.run(eval_every_epochs * training.steps_per_epoch)


class _Loop:
    """One run of a training, from its first step to its last."""

    def __init__(
        self,
        config: Config,
        training: Training,
        evaluator: Evaluator | None,
        strategy: tf.distribute.Strategy,
        interrupt: Interrupt,
    ):
        self.config, self.training, self.evaluator, self.interrupt = config, training, evaluator, interrupt
        self.last_step = config.num_epochs * training.steps_per_epoch
        self.is_chief = strategy_lib.is_chief(strategy)
        self.num_workers = strategy_lib.num_workers(strategy)
        self.model_dir = ModelDir(training.model_dir)
        self.reader = self._reader(0, 1)
        found = self._found()
        prefix, entries = found or (None, {})
        self.seed = _seed(training, entries, self.num_workers)
        self.best = Best.of(entries) if entries else Best()
        start = training.ckpt or training.backbone_ckpt
        if start and not prefix:
            checkpoint.find(start)  # before the seconds that building takes

        self.trainer = self._build(strategy)
        if self.is_chief:
            self.model_dir.prepare(self.trainer.num_bytes())
        self._load(prefix, entries)
        if self.is_chief:
            self.model_dir.write_config(config, training.command)

    def _build(self, strategy: tf.distribute.Strategy) -> Trainer:
        """The trainer, with random weights."""
        config, training, begun = self.config, self.training, time.monotonic()
        difference = config.difference(Config())
        logging.info("building %s, seed %d; beside the defaults: %s", config.name, self.seed, difference)
        keras.utils.set_random_seed(self.seed)
        trainer = Trainer(
            config,
            batch_size=training.batch_size,
            steps_per_epoch=training.steps_per_epoch,
            seed=self.seed,
            strategy=strategy,
            precision=strategy_lib.precision(config.mixed_precision, strategy),
        )
        logging.info("built in %.1f s: %s", time.monotonic() - begun, trainer.summary())
        return trainer

    def _load(self, prefix: str | None, entries: Mapping[str, np.ndarray]) -> None:
        """Goes on from a checkpoint of this training, else begins from one of another, where one is given."""
        config, training, trainer = self.config, self.training, self.trainer
        if prefix:
            trainer.resume(prefix, entries)
        elif training.ckpt:
            trainer.start_from(training.ckpt)
        elif training.backbone_ckpt:
            source_scope = f"{config.ckpt_var_scope}/" if config.ckpt_var_scope else None
            trainer.start_from(training.backbone_ckpt, scope=f"{config.backbone_name}/", source_scope=source_scope)
        if self.num_workers > 1 and not trainer.all_agree(trainer.step):
            raise ValueError("the workers begin at different steps; give them one --model_dir that all of them reach")

    def _found(self) -> tuple[str, dict[str, np.ndarray]] | None:
        """The checkpoint to continue from, if model_dir has one that this training can take."""
        training = self.training
        found = self.model_dir.newest()
        if found is None:
            return None
        prefix, entries = found
        if training.ckpt or training.backbone_ckpt:
            logging.info(
                "%s continues from %s; --ckpt and --backbone_ckpt only say how to begin, and are not read",
                training.model_dir,
                prefix,
            )
        if "training/seed" not in entries:
            raise checkpoint.CheckpointError(
                f"{prefix} holds no state of a training, so this one cannot go on from it; start from it with "
                f"--ckpt={prefix} in another --model_dir"
            )
        begun = self.model_dir.begun_with()
        for change in model_dir.compare(begun, self.config) if begun else []:
            logging.info("changed since the last run: %s", change)
        num_examples = int(entries["training/num_examples_per_epoch"])
        if num_examples != training.num_examples_per_epoch:
            logging.warning(
                "this training began with --num_examples_per_epoch=%d, now %d: epochs and the place in the data change",
                num_examples,
                training.num_examples_per_epoch,
            )
        batch_size = int(entries["training/batch_size"])
        if batch_size != training.batch_size:
            raise ValueError(
                f"{training.model_dir} was begun with --train_batch_size={batch_size}, got {training.batch_size}, "
                f"which would change its steps and rates; give {batch_size} (gradient_accumulation_steps saves "
                f"memory), or start anew in another --model_dir with --ckpt={prefix}"
            )
        return found

    def run(self, eval_steps: int) -> dict[str, float]:
        """All steps to the end.

        Args:
            eval_steps: from one evaluation to the next; 0 for one after the last step alone.
        """
        training, step, results, enough = self.training, self.trainer.step, {}, False
        if step >= self.last_step:
            logging.info(
                "%s has all %d steps: nothing left to train; raise num_epochs to go on", training.model_dir, step
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
        with self.progress, self.profiler:
            batches = None
            while True:
                # At the first step, too: a kill may have cut off the evaluation after the last one that was saved.
                is_last = step >= self.last_step
                if self.evaluator and step and (is_last or (eval_steps and step % eval_steps == 0)):
                    results, enough = self._evaluate(step)
                    if not is_last and self._stops(True):
                        raise self._stopped(step)
                if is_last or enough:
                    return results
                batches = batches or self._batches(step)
                step = self._advance(batches, step)

    def _advance(self, batches: Iterator, step: int) -> int:
        """One step, or a few in one go; returns the number of the last."""
        count = self._steps_to_boundary(step)
        self.profiler.before(step + 1)
        metrics = self._take_steps(batches, count)
        step += count
        values = self.progress.report(step, metrics)
        self._check_finite(step, values)
        stops = self._stops(values is not None)
        if stops or not self._steps_since_save(step):
            self._save(step)
        if stops:
            raise self._stopped(step)
        return step

    def _stopped(self, step: int) -> Stopped:
        message = f"stopped by a signal after step {step}, which is saved; the same command goes on from there"
        return Stopped(message, self.interrupt.exit_code or 128 + signal.SIGTERM)

    def _reader(self, worker: int, num_workers: int) -> InputReader:
        return InputReader(self.training.train_file_pattern, self.config, shard=(worker, num_workers))

    def _batches(self, step: int) -> Iterator:
        """The batches from a step on, for one `train_step` each."""

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

        return iter(self.trainer.distribute(dataset))

    def _steps_to_boundary(self, step: int) -> int:
        """Steps to take before Python is needed again."""
        training = self.training
        lengths = (training.save_checkpoints_steps, training.steps_per_epoch)
        return min(training.steps_per_execution, self.last_step - step, *(length - step % length for length in lengths))

    def _steps_since_save(self, step: int) -> int:
        """0 where a checkpoint is due: after so many steps, and after each epoch, the last one included."""
        return min(step % self.training.save_checkpoints_steps, step % self.training.steps_per_epoch)

    def _take_steps(self, batches: Iterator, count: int) -> dict[str, tf.Tensor]:
        if self.training.steps_per_execution > 1:
            with dataloader.plain_errors():
                return self.trainer.train_steps(batches, tf.constant(count))
        with dataloader.plain_errors(), self.progress.waiting():
            batch = next(batches)
        return self.trainer.train_step(*batch)

    def _check_finite(self, step: int, values: Mapping[str, float] | None) -> None:
        """Ends the training if the last steps were all skipped; values are their metrics, where they were read."""
        if values is None or not values["skipped_steps"]:
            return
        in_a_row = self.trainer.num_skipped_in_a_row()
        if in_a_row < self.config.max_skipped_steps or self.trainer.scales_down():
            return
        images = self.reader.source_ids(
            self.training.batch_size // self.num_workers,
            seed=self.seed,
            start_batch=0 if self.training.use_fake_data else step - 1,
            num_examples=self.training.num_examples_per_epoch,
        )
        raise FloatingPointError(
            f"step {step}: {self.trainer.what_is_not_finite(values)}; {in_a_row} steps in a row were skipped, nothing "
            f"of them is saved. Images of this step: {', '.join(images)}"
        )

    def _stops(self, metrics_were_read: bool) -> bool:
        """Whether a signal came; of several workers, to any of them, which they ask each other from time to time."""
        if self.num_workers == 1:
            return self.interrupt.signal is not None
        return metrics_were_read and self.trainer.any_worker(self.interrupt.signal is not None)

    def _save(self, step: int) -> None:
        if not self.is_chief:
            return
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

    def _evaluate(self, step: int) -> tuple[dict[str, float], bool]:
        """Metrics of the weights, and whether that ends the training early; other workers wait for the chief."""
        results, enough = {}, False
        if self.is_chief:
            with self.progress.paused():
                net = self.trainer.evaluated_net()
                results = self.evaluator.run(net)
                pictures = self.evaluator.draw_images(net)
            self.progress.evaluated(step, results, pictures)
            # An evaluation beside this training may have kept a better one. An equal one is this one, before a kill.
            if self.best.take(step, results["AP"]) and results["AP"] >= self.model_dir.best_ap():
                with self.progress.paused():
                    self.model_dir.archive(
                        os.path.join(self.training.model_dir, f"{checkpoint.PREFIX}-{step}"), results
                    )
            patience = self.config.early_stop_patience
            if enough := bool(patience and self.best.stale >= patience and step < self.last_step):
                logging.info(
                    "stopping early: no better AP than %.4f of step %d in %d evaluations",
                    self.best.best_ap,
                    self.best.best_step,
                    self.best.stale,
                )
        if self.num_workers > 1:
            enough = self.trainer.any_worker(enough)
        return results, enough


class Recorder:
    """What an evaluation beside a training writes into its directory: event file, eval.csv and the archive."""

    def __init__(self, path: str):
        """Takes up the best AP where another one left it; path is the directory of the training."""
        self.model_dir = ModelDir(path)
        self.best = Best(best_ap=self.model_dir.best_ap())
        self.log = EvaluationLog(path)

    def __call__(self, prefix: str, step: int | None, results: Mapping[str, float]) -> None:
        """Records the metrics of a checkpoint; where the directory cannot be written, that is told in the log."""
        if step is None:
            return  # a released checkpoint, not one of a training
        try:
            self.log.write(step, results)
            if results["AP"] > self.best.best_ap:
                self.model_dir.archive(prefix, results)
            self.best.take(step, results["AP"])  # not before: what could not be kept is not the best to beat
        except (OSError, checkpoint.CheckpointError) as error:
            logging.warning("%s", error)


def _seed(training: Training, entries: Mapping[str, Any], num_workers: int) -> int:
    """The seed that the training began with; for a new one what was asked for, or any that all workers have."""
    begun = entries.get("training/seed")
    if begun is None:
        drawn = int.from_bytes(os.urandom(3), "big") if num_workers == 1 else 0
        return training.seed if training.seed is not None else drawn
    if training.seed not in (None, int(begun)):
        logging.info("this training began with seed %d and keeps it; --tf_random_seed is not used", begun)
    return int(begun)
