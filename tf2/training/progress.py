# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Training progress: progress bar, TensorBoard events and CSV."""

import contextlib
import csv
import functools
import io
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
import tensorflow as tf
import tqdm
from absl import logging

from dataset.files import read_file, reason_of, write_file
from tf2.training.run_lock import LockLost

REPORT_STEPS = 10  # steps between reads of the metrics: each read waits for the device
LOG_SECONDS = 30  # minimum seconds between log lines
SMOOTHING = 0.2  # weight of the last interval in the speed from which the remaining time is estimated

COMPONENTS = {"cls_loss": "cls {:.3f}", "box_loss": "box {:.4f}", "box_iou_loss": "iou {:.3f}"}  # shown after the loss
PUBLISHED_TAGS = {"learning_rate": "lrn_rate", "gradient_norm": "clip/gradient_norm"}
OWN_TAGS = ("skipped_steps", "images_per_second", "input_wait")  # all other metrics go below trainloss/


class Progress:
    """Context manager that reports the progress of a training run.

    Progress is shown as a bar on a terminal, and as log lines elsewhere. It is also written to event files in model_dir
    and model_dir/eval, train.csv and eval.csv. If a file cannot be written, a warning is logged once and the file is
    skipped.
    """

    def __init__(
        self,
        model_dir: str,
        *,
        batch_size: int,
        step: int,
        last_step: int,
        steps_per_epoch: int,
        is_chief: bool = True,
    ):
        """Starts the clock, and reports that the first step is being compiled.

        Args:
            model_dir: existing folder; rows of its CSV files after `step` are removed.
            batch_size: images per step, over all devices.
            step: steps already taken.
            last_step: number of the last step.
            steps_per_epoch: converts steps to epochs.
            is_chief: True if this process shows the bar and writes the files: the first of several machines.
        """
        self._batch_size = batch_size
        self._last_step = last_step
        self._steps_per_epoch = steps_per_epoch
        self._step = self._read_step = step
        self._metrics: Mapping[str, tf.Tensor] = {}
        self._read_at = self._logged_at = time.monotonic()
        self._waited = self._paused = 0.0  # seconds since the metrics were last read
        self._knows_waiting = False  # unknown if one call takes several steps, which waits inside TensorFlow
        self._step_seconds: float | None = None  # smoothed; None until measured
        self._first = True
        self._events = self._table = self._evaluations = None
        if is_chief:
            self._events = EventFile(model_dir)
            self._table = CsvFile(os.path.join(model_dir, "train.csv"), step)
            self._evaluations = EvaluationLog(model_dir, step)
        self._bar = tqdm.tqdm(
            total=last_step,
            initial=step,
            desc="compiling the first step",
            bar_format="{percentage:3.0f}%|{bar:10}| step {n_fmt}/{total_fmt}, {desc}",
            disable=None if is_chief and step < last_step else True,  # None: off if stderr is not a terminal
        )
        if self._bar.disable and step < last_step:
            logging.info("compiling the first step")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error) -> None:
        self._bar.close()
        if kind is not LockLost:  # train.csv belongs to another run then
            self.flush()
        if self._events:
            self._events.close()
            self._evaluations.close()

    def flush(self) -> None:
        """Writes the rows of train.csv since the last call; to be called before a checkpoint is saved.

        Rows are not written one by one, because appending to a file of an object store writes all of it again. Rows
        that a kill loses are of steps after the last checkpoint, which are repeated.
        """
        if self._table:
            self._table.flush()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Context manager whose duration counts as waiting for input."""
        start, self._knows_waiting = time.monotonic(), True
        try:
            yield
        finally:
            self._waited += time.monotonic() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Context manager for saving and evaluating: does not count as training, hides the bar."""
        if self._metrics:
            float(self._metrics["loss"])  # waits for the steps that the device is still computing
        start, waited, paused = time.monotonic(), self._waited, self._paused
        self._bar.clear()
        try:
            yield
        finally:
            self._bar.refresh()
            self._waited, self._paused = waited, paused + time.monotonic() - start

    def report(self, step: int, metrics: Mapping[str, tf.Tensor]) -> dict[str, float] | None:
        """Reads, shows and writes the metrics of the first, the last and every REPORT_STEPS-th step.

        Args:
            step: steps taken so far, one or more since the last call.
            metrics: scalars by name, at least loss and learning_rate.

        Returns:
            The metrics as numbers if they were read, else None.
        """
        self._bar.update(step - self._step)
        self._step, self._metrics = step, metrics
        due = step // REPORT_STEPS != self._read_step // REPORT_STEPS or step == self._last_step
        if not due and not self._first:
            return None
        values = {name: float(value) for name, value in metrics.items()}
        speed = self._measure()
        self._show(values, speed)
        if self._events:
            row = {**values, **speed}
            self._events.write(step, {_tag(name): value for name, value in row.items() if value is not None})
            self._table.write(step, row)
        return values

    def evaluated(
        self, step: int, results: Mapping[str, float], images: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Logs and writes the results of an evaluation; the evaluation itself should run inside `paused`.

        Args:
            step: step of the weights.
            results: metrics by their published names.
            images: [H, W, 3] uint8 by name; None for none.
        """
        with self.paused():
            self._log("step %d: %s", step, ", ".join(f"{name} = {value:.4f}" for name, value in results.items()))
            if self._evaluations:
                self._evaluations.write(step, results, images)

    def _measure(self) -> dict[str, float | None]:
        """Returns the speed since the metrics were last read; both numbers are None for the first, compiled step."""
        now, steps = time.monotonic(), self._step - self._read_step
        seconds = max(now - self._read_at - self._paused, 1e-9)
        waited, first = self._waited, self._first
        self._read_at, self._read_step, self._waited, self._paused, self._first = now, self._step, 0.0, 0.0, False
        if first:
            taken = "step" if steps == 1 else f"{steps} steps"
            wait = f", after {waited:.1f} s of waiting for input" if self._knows_waiting else ""
            self._log("the first %s took %.1f s, most of it compiling%s", taken, seconds - waited, wait)
            return {"images_per_second": None, "input_wait": None}
        weight = SMOOTHING if self._step_seconds else 1.0
        self._step_seconds = weight * seconds / steps + (1 - weight) * (self._step_seconds or 0.0)
        return {
            "images_per_second": self._batch_size * steps / seconds,
            "input_wait": min(waited / seconds, 1.0) if self._knows_waiting else None,
        }

    def _show(self, values: Mapping[str, float], speed: Mapping[str, float | None]) -> None:
        """Updates the bar, or logs a line if LOG_SECONDS have passed."""
        line = self._line(values, speed)
        if not self._bar.disable:
            self._bar.set_description_str(line)
            return
        first, last = speed["images_per_second"] is None, self._step == self._last_step
        if first or last or self._read_at - self._logged_at >= LOG_SECONDS:
            self._logged_at = self._read_at
            logging.info("step %d/%d, %s", self._step, self._last_step, line)

    def _line(self, values: Mapping[str, float], speed: Mapping[str, float | None]) -> str:
        """Formats epoch, loss and its components, learning rate, speed, time left and time waiting for input."""
        epochs = round(self._last_step / self._steps_per_epoch, 1)
        parts = ", ".join(form.format(values[name]) for name, form in COMPONENTS.items() if name in values)
        line = [
            f"epoch {self._step / self._steps_per_epoch:.1f}/{epochs:g}",
            f"loss {values['loss']:.3f}" + (f" ({parts})" if parts else ""),
            f"rate {values['learning_rate']:.2g}",
        ]
        if speed["images_per_second"] is not None:
            left = tqdm.tqdm.format_interval((self._last_step - self._step) * self._step_seconds)
            line += [f"{speed['images_per_second']:.1f} images/s", f"{left} left"]
        if speed["input_wait"] is not None:
            line += [f"waiting for input {100 * speed['input_wait']:.0f} %"]
        if values.get("skipped_steps"):
            line += [f"{values['skipped_steps']:.0f} steps skipped"]
        return ", ".join(line)

    def _log(self, message: str, *args: object) -> None:
        """Logs a line above the bar."""
        with contextlib.nullcontext() if self._bar.disable else tqdm.tqdm.external_write_mode():
            logging.info(message, *args)


def _tag(name: str) -> str:
    """Returns the TensorBoard tag of a training metric."""
    return PUBLISHED_TAGS.get(name) or (name if name in OWN_TAGS else f"trainloss/{name}")


def _optional(method: Callable) -> Callable:
    """Decorates a method of an optional file: the first error is logged, and the file is skipped from then on."""

    @functools.wraps(method)
    def call_unless_failed(self, *args, **kwargs):
        if self.failed:
            return
        try:
            method(self, *args, **kwargs)
        except (OSError, tf.errors.OpError, ValueError, csv.Error) as error:
            self.failed = True
            logging.warning("%s: continuing without this file: %s", self.path, reason_of(error))

    return call_unless_failed


class EventFile:
    """A TensorBoard event file, created on the first write."""

    def __init__(self, path: str):
        """Stores the directory of the file."""
        self.path = path
        self.failed = False
        self._writer: tf.summary.SummaryWriter | None = None

    @_optional
    def write(self, step: int, scalars: Mapping[str, float], images: Mapping[str, np.ndarray] | None = None) -> None:
        """Writes numbers and images, [H, W, 3] uint8, by tag; they are flushed within 30 seconds."""
        self._writer = self._writer or tf.summary.create_file_writer(self.path, flush_millis=30_000)
        with self._writer.as_default(step):
            for tag, value in scalars.items():
                tf.summary.scalar(tag, value)
            for tag, image in (images or {}).items():
                tf.summary.image(tag, image[np.newaxis])

    @_optional
    def flush(self) -> None:
        """Writes buffered events to disk."""
        if self._writer:
            self._writer.flush()

    @_optional
    def close(self) -> None:
        """Closes the file."""
        if self._writer:
            self._writer.close()


class CsvFile:
    """A CSV file with one row per step; a kill loses the rows since the last `flush`.

    Rows are appended. To add a column, or to remove steps that are repeated, the file is rewritten atomically.
    """

    def __init__(self, path: str, step: int | None):
        """Opens the file and removes the rows after `step`, written after the last checkpoint; None keeps all rows."""
        self.path = path
        self.failed = False
        self._columns: list[str] = []
        self._step = -1  # of the last row
        self._buffer = io.StringIO(newline="")  # rows that are not in the file yet
        self._open(math.inf if step is None else step)

    @_optional
    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Adds a row, and columns if needed; None leaves a cell empty."""
        if not self._columns or step <= self._step or not values.keys() <= set(self._columns):
            self._append()
            self._rewrite(step - 1, values)
        cells = ["" if (x := values.get(name)) is None else f"{x:.7g}" for name in self._columns]
        csv.writer(self._buffer, lineterminator="\n").writerow([step, *cells])
        self._step = step

    @_optional
    def flush(self) -> None:
        """Appends the rows since the last call to the file."""
        self._append()

    def _append(self) -> None:
        if rows := self._buffer.getvalue():
            with tf.io.gfile.GFile(self.path, "a") as file:
                file.write(rows)
            self._buffer = io.StringIO(newline="")

    @_optional
    def _open(self, last_step: float) -> None:
        if tf.io.gfile.exists(self.path):
            self._rewrite(last_step, ())

    def _rewrite(self, last_step: float, columns: Collection[str]) -> None:
        """Rewrites the file with the rows up to a step and additional columns."""
        old = b""
        if tf.io.gfile.exists(self.path):
            old = read_file(self.path)
        header, rows = self._parse(old)
        header += [name for name in columns if name not in header]
        rows = [row for row in rows if int(row["step"]) <= last_step]
        new = io.StringIO(newline="")
        writer = csv.DictWriter(new, header, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        if new.getvalue().encode() != old:
            write_file(self.path, new.getvalue())
        self._columns = header[1:]
        self._step = int(rows[-1]["step"]) if rows else -1

    def _parse(self, table: bytes) -> tuple[list[str], list[dict[str, str]]]:
        """Returns header and rows, without an incomplete last line."""
        complete, newline, _ = table.rpartition(b"\n")
        reader = csv.DictReader(io.StringIO((complete + newline).decode(), newline=""))
        header = list(reader.fieldnames or ["step"])
        if header[0] != "step":
            raise ValueError(f"expected 'step' as its first column, got {header[0]!r}; move the file away")
        return header, list(reader)


class EvaluationLog:
    """The metrics of evaluations: an event file in model_dir/eval, and model_dir/eval.csv."""

    def __init__(self, model_dir: str, step: int | None = None):
        """Opens the files, and removes the rows after `step`; None, for a parallel evaluation, keeps all rows."""
        self._events = EventFile(os.path.join(model_dir, "eval"))
        self._table = CsvFile(os.path.join(model_dir, "eval.csv"), step)

    def write(self, step: int, results: Mapping[str, float], images: Mapping[str, np.ndarray] | None = None) -> None:
        """Writes metrics by their published names, and images, [H, W, 3] uint8, by name."""
        self._events.write(step, results, images)
        self._events.flush()
        self._table.write(step, results)
        self._table.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._events.close()


class Profiler:
    """Context manager that profiles some steps for TensorBoard's profile page."""

    def __init__(self, model_dir: str, steps: range):
        """Stores the numbers of the steps to profile; an empty range disables profiling."""
        self._model_dir = model_dir
        self._steps = steps
        self._running = False

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *error) -> None:
        if self._running:
            self._end()
        elif self._steps:
            logging.warning("nothing was profiled: the run ended before step %d", self._steps.start)

    def before(self, step: int) -> None:
        """Starts or stops the profiler if that is due before a step."""
        if self._running and step >= self._steps.stop:
            self._end()
        elif not self._running and self._steps and step >= self._steps.start:
            tf.profiler.experimental.start(self._model_dir)
            self._running = True

    def _end(self) -> None:
        tf.profiler.experimental.stop()
        self._running, self._steps = False, range(0)
        logging.info("profile written: tensorboard --logdir=%s", self._model_dir)
