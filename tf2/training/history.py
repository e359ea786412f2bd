# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The metrics of a training run so far, read from its train.csv and eval.csv."""

import contextlib
import csv
import dataclasses
import io
import os

import numpy as np
import tensorflow as tf
from absl import logging

from dataset.files import read_file, reason_of
from tf2.training.model_dir import ARCHIVE
from tf2.weights import checkpoint, published
from tf2.weights.checkpoint import CheckpointError

Columns = dict[str, np.ndarray]  # [rows] float64 by name, "step" among them, ascending; NaN for an empty cell


@dataclasses.dataclass(frozen=True)
class History:
    """The metrics of a training run by step."""

    training: Columns  # of train.csv; empty without rows
    evaluations: Columns  # of eval.csv, by published names; empty without rows
    steps_per_epoch: float | None = None  # None if no checkpoint tells it


def read(directory: str) -> History | None:
    """Reads the tables of a training run; damaged lines and files are left out with a warning.

    Args:
        directory: local or remote model_dir.

    Returns:
        The metrics so far; None if the directory has no tables with rows.
    """
    training, evaluations = (_read_table(os.path.join(directory, name)) for name in ("train.csv", "eval.csv"))
    return History(training, evaluations, _steps_per_epoch(directory)) if training or evaluations else None


def read_of_checkpoint(ckpt_path: str) -> History | None:
    """Reads the tables of the training run that a checkpoint belongs to, in its folder or the one above archive/.

    Args:
        ckpt_path: prefix or file of a checkpoint, or name of released weights.

    Returns:
        See `read`; None for a checkpoint from elsewhere.
    """
    if ckpt_path in published.ARCHIVES:
        return None
    folder, _ = os.path.split(ckpt_path)
    parent, name = os.path.split(folder)
    return read(parent if name == ARCHIVE else folder)


def _read_table(path: str) -> Columns:
    """Reads a table with a header and one row of numbers per step; of repeated steps the last row counts."""
    if not tf.io.gfile.exists(path):
        return {}
    try:
        # Without an incomplete last line, as a kill leaves it. Python 3.10 reads no table that has NUL.
        text = read_file(path).decode(errors="replace").replace("\0", "?").rpartition("\n")[0]
        header, *lines = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
        if header[:1] != ["step"]:
            raise ValueError("expected 'step' as its first column")
    except (tf.errors.OpError, csv.Error, ValueError) as error:
        logging.warning("%s is left out: %s", path, reason_of(error))
        return {}
    rows, num_damaged = {}, 0  # {step: cells}
    for line in filter(None, lines):
        try:
            step, cells = int(line[0]), [float(cell or "nan") for cell in line[1:]]
            rows[step] = dict(zip(header[1:], cells, strict=True))
        except ValueError:
            num_damaged += 1
    if num_damaged:
        logging.warning("%s: %d damaged lines are left out", path, num_damaged)
    if not rows:
        return {}
    steps = sorted(rows)
    columns = {name: np.array([rows[step][name] for step in steps]) for name in header[1:]}
    return {"step": np.array(steps, np.float64), **columns}


def _steps_per_epoch(directory: str) -> float | None:
    """Returns the steps per epoch recorded in the newest checkpoint, or None."""
    names = ("training/num_examples_per_epoch", "training/batch_size")
    with contextlib.suppress(CheckpointError):
        if prefix := checkpoint.latest(directory):
            entries = checkpoint.read_entries(prefix, names)
            if entries.keys() == set(names):
                return int(entries[names[0]]) // int(entries[names[1]]) or None
    return None
