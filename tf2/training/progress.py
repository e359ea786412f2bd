# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""What one sees of a training: a line of progress, and the same numbers as TensorBoard's event files and as CSV."""

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

from dataset.files import reason_of, write_file

REPORT_STEPS = 10  # from one look at the metrics to the next: each waits for the device
LOG_SECONDS = 30  # from one line of a log to the next
SMOOTHING = 0.2  # weight of the last interval in the speed that the time left is computed from

PARTS = {"cls_loss": "cls {:.3f}", "box_loss": "box {:.4f}", "box_iou_loss": "iou {:.3f}"}  # of the loss, in the line
PUBLISHED_TAGS = {"learning_rate": "lrn_rate", "gradient_norm": "clip/gradient_norm"}
OWN_TAGS = ("skipped_steps", "images_per_second", "input_wait")  # all other metrics are below trainloss/


class Progress:
    """What one sees of a training; a context manager.

    On a terminal the line of progress is a bar, elsewhere a line of the log. Files: event files in model_dir and
    model_dir/eval, train.csv and eval.csv. A file that cannot be written is told once, and done without.
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
        """Starts the clock, and says that the first step is compiled.

        Args:
            model_dir: exists. Rows that its CSV files hold of steps after `step` are removed.
            batch_size: images a step, over all devices.
            step: steps already taken.
            last_step: where the training ends.
            steps_per_epoch: for the number of the epoch.
            is_chief: whether this process has the bar and the files; of several machines, the first one.
        """
        self._batch_size = batch_size
        self._last_step = last_step
        self._steps_per_epoch = steps_per_epoch
        self._step = self._read_step = step
        self._metrics: Mapping[str, tf.Tensor] = {}
        self._read_at = self._logged_at = time.monotonic()
        self._waited = self._paused = 0.0  # seconds since the last look at the metrics
        self._knows_waiting = False  # not where a call takes several steps, which waits for input by itself
        self._step_seconds: float | None = None  # smoothed; None before it can be known
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
            disable=None if is_chief and step < last_step else True,  # None: off where stderr is no terminal
        )
        if self._bar.disable and step < last_step:
            logging.info("compiling the first step")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error) -> None:
        self._bar.close()
        if self._events:
            self._events.close()
            self._evaluations.close()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A context whose time is the input pipeline's."""
        begun, self._knows_waiting = time.monotonic(), True
        try:
            yield
        finally:
            self._waited += time.monotonic() - begun

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A context whose time is no training: saving, evaluating."""
        if self._metrics:
            float(self._metrics["loss"])  # steps that the device still works on are no pause
        begun, waited, paused = time.monotonic(), self._waited, self._paused
        try:
            yield
        finally:
            self._waited, self._paused = waited, paused + time.monotonic() - begun

    def report(self, step: int, metrics: Mapping[str, tf.Tensor]) -> dict[str, float] | None:
        """Takes the metrics of a step; reads, shows and writes the first, the last and those of every tenth.

        Args:
            step: steps taken by now, one or more since the last call.
            metrics: scalars by name, at least loss and learning_rate.

        Returns:
            The metrics as numbers where they were read, else None.
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
        self, step: int, results: Mapping[str, float], pictures: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Logs and writes what an evaluation found; the evaluation itself belongs into `paused`.

        Args:
            step: of the weights.
            results: metrics by their published names.
            pictures: [H, W, 3] uint8 by name; None for none.
        """
        with self.paused():
            self._log("step %d: %s", step, ", ".join(f"{name} = {value:.4f}" for name, value in results.items()))
            if self._evaluations:
                self._evaluations.write(step, results, pictures)

    def _measure(self) -> dict[str, float | None]:
        """Speed since the last look at the metrics; None for both numbers at the first, which holds the compilation."""
        now, steps = time.monotonic(), self._step - self._read_step
        seconds = max(now - self._read_at - self._paused, 1e-9)
        waited, first = self._waited, self._first
        self._read_at, self._read_step, self._waited, self._paused, self._first = now, self._step, 0.0, 0.0, False
        if first:
            what = "step" if steps == 1 else f"{steps} steps"
            wait = f"; before it {waited:.1f} s of waiting for input" if self._knows_waiting else ""
            self._log("the first %s took %.1f s, most of it compiling%s", what, seconds - waited, wait)
            return {"images_per_second": None, "input_wait": None}
        weight = SMOOTHING if self._step_seconds else 1.0
        self._step_seconds = weight * seconds / steps + (1 - weight) * (self._step_seconds or 0.0)
        return {
            "images_per_second": self._batch_size * steps / seconds,
            "input_wait": min(waited / seconds, 1.0) if self._knows_waiting else None,
        }

    def _show(self, values: Mapping[str, float], speed: Mapping[str, float | None]) -> None:
        """Puts the line of progress into the bar, or into the log where the time for one has come."""
        line = self._line(values, speed)
        if not self._bar.disable:
            self._bar.set_description_str(line)
            return
        first, last = speed["images_per_second"] is None, self._step == self._last_step
        if first or last or self._read_at - self._logged_at >= LOG_SECONDS:
            self._logged_at = self._read_at
            logging.info("step %d/%d, %s", self._step, self._last_step, line)

    def _line(self, values: Mapping[str, float], speed: Mapping[str, float | None]) -> str:
        """Epoch, loss and its parts, rate, speed, time left and the share of time that the input pipeline took."""
        epochs = round(self._last_step / self._steps_per_epoch, 1)
        parts = ", ".join(form.format(values[name]) for name, form in PARTS.items() if name in values)
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
        """Logs a line; the bar makes room for it."""
        with contextlib.nullcontext() if self._bar.disable else tqdm.tqdm.external_write_mode():
            logging.info(message, *args)


def _tag(name: str) -> str:
    """The name of a training metric in TensorBoard."""
    return PUBLISHED_TAGS.get(name) or (name if name in OWN_TAGS else f"trainloss/{name}")


def _or_without(method: Callable) -> Callable:
    """A method of a file that one can do without: the first error is told, after it nothing is done any more."""

    @functools.wraps(method)
    def attempt(self, *args, **kwargs):
        if self.failed:
            return
        try:
            method(self, *args, **kwargs)
        except (OSError, tf.errors.OpError, ValueError, csv.Error) as error:
            self.failed = True
            logging.warning("%s: going on without this file: %s", self.path, reason_of(error))

    return attempt


class EventFile:
    """One of TensorBoard's event files, which begins to be with the first thing written to it."""

    def __init__(self, path: str):
        """Takes the directory of the file."""
        self.path = path
        self.failed = False
        self._writer: tf.summary.SummaryWriter | None = None

    @_or_without
    def write(self, step: int, scalars: Mapping[str, float], pictures: Mapping[str, np.ndarray] | None = None) -> None:
        """Adds numbers and pictures, [H, W, 3] uint8, by their tags; on disk half a minute later at most."""
        self._writer = self._writer or tf.summary.create_file_writer(self.path, flush_millis=30_000)
        with self._writer.as_default(step):
            for tag, value in scalars.items():
                tf.summary.scalar(tag, value)
            for tag, picture in (pictures or {}).items():
                tf.summary.image(tag, picture[np.newaxis])

    @_or_without
    def flush(self) -> None:
        """Brings to disk what was written."""
        if self._writer:
            self._writer.flush()

    @_or_without
    def close(self) -> None:
        """Ends the file."""
        if self._writer:
            self._writer.close()


class CsvFile:
    """A table of numbers, one row a step; a kill loses at most the row that is being written.

    It is appended to. Where it has to change, for another column or for steps that are taken once more, it is written
    anew beside the old one and renamed into place.
    """

    def __init__(self, path: str, step: int | None):
        """Removes the rows of later steps, left by a run that was killed after its last checkpoint; None: of none."""
        self.path = path
        self.failed = False
        self._columns: list[str] = []
        self._step = -1  # of the last row
        self._take_up(math.inf if step is None else step)

    @_or_without
    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Adds a row, and the columns that it is the first to have; None leaves a cell empty."""
        if not self._columns or step <= self._step or not values.keys() <= set(self._columns):
            self._rewrite(step - 1, values)
        cells = [values.get(name) for name in self._columns]
        with tf.io.gfile.GFile(self.path, "a") as file:
            csv.writer(file, lineterminator="\n").writerow([step, *("" if x is None else f"{x:.7g}" for x in cells)])
        self._step = step

    @_or_without
    def _take_up(self, last_step: float) -> None:
        if tf.io.gfile.exists(self.path):
            self._rewrite(last_step, ())

    def _rewrite(self, last_step: float, columns: Collection[str]) -> None:
        """Leaves the rows up to a step, and adds columns."""
        old = b""
        if tf.io.gfile.exists(self.path):
            with tf.io.gfile.GFile(self.path, "rb") as file:
                old = file.read()
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
        """Header and rows, without a last line that was cut."""
        whole, newline, _ = table.rpartition(b"\n")
        reader = csv.DictReader(io.StringIO((whole + newline).decode(), newline=""))
        header = list(reader.fieldnames or ["step"])
        if header[0] != "step":
            raise ValueError(f"its first column is {header[0]!r} instead of 'step'; move it away for a new one")
        return header, list(reader)


class EvaluationLog:
    """Where the metrics of evaluations go: TensorBoard's event file in model_dir/eval, and model_dir/eval.csv."""

    def __init__(self, model_dir: str, step: int | None = None):
        """Removes the rows of later steps from the table; None: of none, as beside a training of another process."""
        self._events = EventFile(os.path.join(model_dir, "eval"))
        self._table = CsvFile(os.path.join(model_dir, "eval.csv"), step)

    def write(self, step: int, results: Mapping[str, float], pictures: Mapping[str, np.ndarray] | None = None) -> None:
        """Adds metrics by their published names, and pictures, [H, W, 3] uint8, by theirs."""
        self._events.write(step, results, pictures)
        self._events.flush()
        self._table.write(step, results)

    def close(self) -> None:
        """Ends the event file."""
        self._events.close()


class Profiler:
    """TensorFlow's profile of some steps, for TensorBoard's profile page; a context manager."""

    def __init__(self, model_dir: str, steps: range):
        """Takes the steps, by their numbers; with none it does nothing."""
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
        """Begins or ends the profile, where that is due before a step; several steps in one go are not divided."""
        if self._running and step >= self._steps.stop:
            self._end()
        elif not self._running and self._steps and step >= self._steps.start:
            tf.profiler.experimental.start(self._model_dir)
            self._running = True

    def _end(self) -> None:
        tf.profiler.experimental.stop()
        self._running, self._steps = False, range(0)
        logging.info("profiled: tensorboard --logdir=%s", self._model_dir)
