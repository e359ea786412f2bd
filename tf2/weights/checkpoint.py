# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one reader per published format, each returning {official name: array}, and one assigner.

There are three formats, recognized by the content of the file, not by its name:
  name-based    TensorFlow's V2 format with one entry per variable name, and `NAME/ExponentialMovingAverage`;
                used by the released checkpoints and by training here;
  object-based  the same container, with keys that follow attributes instead of names;
  HDF5          `save_weights("x.h5")`; read as plain arrays, without executing anything in it.
"""

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Mapping

import h5py
import numpy as np
import tensorflow as tf
from absl import logging

from dataset.files import reason_of
from efficientdet.model import EfficientDetNet
from tf2.weights import published, structure
from tf2.weights.object_keys import object_keys

AVERAGE = "/ExponentialMovingAverage"
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
OBJECT_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
# Entries of optimizers and training loops, of any version of the published code and of this one.
TRAINING_STATE = re.compile(r".*/(Momentum|RMSProp(_1)?|Adam(_1)?)$|beta[12]_power$|global_step$|training/")
PREFIX = "model.ckpt"
# Raised by the readers of TensorFlow and h5py for damaged files; IndexError for a truncated data file.
READ_ERRORS = (tf.errors.OpError, OSError, RuntimeError, LookupError, TypeError, UnicodeDecodeError)


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or does not match the network."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The weights of a checkpoint."""

    path: str
    format: str  # name-based, object-based or HDF5
    averaged: bool  # True if the values are moving averages
    values: dict[str, np.ndarray]  # by official variable name


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """Names of the variables that an assignment loaded and skipped."""

    loaded: list[str]
    mismatched: list[str]  # "name: [3] in the checkpoint, [4] in the network"
    missing: list[str]  # in the network, not in the checkpoint
    unused: list[str]  # in the checkpoint, not in the network


def find(path: str) -> str:
    """Returns the checkpoint that a path refers to: a prefix, or the path of an HDF5 file.

    Args:
        path: a prefix, an .h5 file, a directory (its newest checkpoint), or a state file named `checkpoint`. If no such
            file exists: the name of published weights, a key of `published.ARCHIVES`.

    Raises:
        CheckpointError: if there is no checkpoint.
        WeightsError: if published weights cannot be downloaded.
    """
    if tf.io.gfile.exists(path + ".index"):
        return path
    if os.path.basename(path) == "checkpoint" and not tf.io.gfile.isdir(path):
        path = os.path.dirname(path) or "."
    if tf.io.gfile.isdir(path):
        if prefix := latest(path):
            return prefix
        raise CheckpointError(
            f"no checkpoint in {path}; expected a state file `checkpoint` and the files it names, "
            f"but the directory holds {_abbreviate(tf.io.gfile.listdir(path)) or 'nothing'}"
        )
    if tf.io.gfile.exists(path):
        prefix = re.sub(r"\.(index|data-\d+-of-\d+)$", "", path)
        return path if prefix == path else find(prefix)
    if path in published.ARCHIVES:
        return find(published.fetch(path))
    names = "".join(f", or {name}" for name in difflib.get_close_matches(path, published.ARCHIVES, cutoff=0.8))
    raise CheckpointError(f"no checkpoint at {path}; give a directory, a prefix (x of x.index) or an .h5 file{names}")


def latest(directory: str) -> str | None:
    """Returns the prefix of the newest checkpoint of a directory, or None; see `prefixes`."""
    return next(iter(prefixes(directory)), None)


def prefixes(directory: str) -> list[str]:
    """Lists the prefixes of the checkpoints of a directory, newest first.

    Checkpoints in the state file come first, then all others by step. The state file may contain paths of another
    machine; a file of the same name in `directory` takes precedence. If the state file is missing or damaged, as after
    a kill or an interrupted copy, or names missing files, a log line names the checkpoint that is used instead.

    Raises:
        CheckpointError: if the state file names checkpoints, but none exists.
    """
    listed = _listed(directory)[::-1]
    files = tf.io.gfile.listdir(directory) if tf.io.gfile.isdir(directory) else []
    others = [os.path.join(directory, match[1]) for f in files if (match := re.fullmatch(rf"({PREFIX}-\d+)\.index", f))]
    others.sort(key=step_of, reverse=True)
    candidates = [prefix for path in listed for prefix in (os.path.join(directory, os.path.basename(path)), path)]
    found = [prefix for prefix in dict.fromkeys([*candidates, *others]) if tf.io.gfile.exists(prefix + ".index")]
    if listed and not found:
        raise CheckpointError(
            f"the state file in {directory} names {listed[0]}, which has no .index file; "
            f"give the prefix of a checkpoint that exists"
        )
    if found and not listed:
        logging.warning("%s has no readable state file; using its newest checkpoint, %s", directory, found[0])
    elif found and os.path.basename(found[0]) != os.path.basename(listed[0]):
        logging.error("%s, the newest in its directory, has no .index file; using %s instead", listed[0], found[0])
    return found


def step_of(prefix: str) -> int:
    """Returns the step in the name of a checkpoint.

    Raises:
        CheckpointError: if the name has no step, as in released checkpoints.

    Example:
        >>> step_of("model/ckpt-1200")
        1200
    """
    match = re.search(r"-(\d+)$", prefix)
    if not match:
        raise CheckpointError(
            f"training cannot continue from {prefix}: its name has no step; "
            f"start from it with --ckpt, in another --model_dir"
        )
    return int(match[1])


def read(path: str, names: Iterable[str], *, averaged: bool = True) -> Checkpoint:
    """Reads all weights of a checkpoint of any published format; moving averages where the file has them.

    Args:
        path: see `find`.
        names: official names of the network's variables; needed to translate the keys of the object-based format.
        averaged: False reads the raw weights of a name-based checkpoint.

    Raises:
        CheckpointError: if there is no checkpoint or it cannot be read.
    """
    prefix = find(path)
    try:
        if not tf.io.gfile.exists(prefix + ".index"):
            return _read_hdf5(prefix)
        reader = tf.compat.v1.train.NewCheckpointReader(prefix)
        if reader.has_tensor(OBJECT_GRAPH):
            return _read_objects(prefix, reader, names)
        return _read_names(prefix, reader, averaged)
    except READ_ERRORS as error:
        raise CheckpointError(f"cannot read {prefix}: {reason_of(error)}") from error


def _read_names(prefix: str, reader, averaged: bool) -> Checkpoint:
    entries = reader.get_variable_to_shape_map()
    names = [name for name in entries if not name.endswith(AVERAGE) and not TRAINING_STATE.match(name)]
    averages = {name: name + AVERAGE for name in names if averaged and name + AVERAGE in entries}
    values = {name: reader.get_tensor(averages.get(name, name)) for name in names}
    return Checkpoint(prefix, "name-based", bool(averages), values)


def _read_objects(prefix: str, reader, names: Iterable[str]) -> Checkpoint:
    keys, values = object_keys(names), {}
    for key in reader.get_variable_to_shape_map():
        path = key.removesuffix(OBJECT_VALUE)
        if path != key and ".OPTIMIZER_SLOT" not in key and not path.startswith(("optimizer/", "save_counter")):
            values[keys.get(path, path)] = reader.get_tensor(key)
    # The file does not record whether these are averages; the published trainer named averaged checkpoints emackpt-*.
    return Checkpoint(prefix, "object-based", os.path.basename(prefix).startswith("emackpt"), values)


def _read_hdf5(path: str) -> Checkpoint:
    values = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            values[name.split("/", 1)[-1].removesuffix(":0")] = item[()]

    with tf.io.gfile.GFile(path, "rb") as file:
        if file.read(8) != b"\x89HDF\r\n\x1a\n":
            raise CheckpointError(f"{path} is neither a TensorFlow checkpoint (no {path}.index) nor an HDF5 file")
        file.seek(0)
        with h5py.File(file, "r") as weights:
            weights.visititems(visit)
    return Checkpoint(path, "HDF5", False, values)


def read_entries(prefix: str, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Reads the entries of a name-based checkpoint unchanged, including training state: those of `names`, or all.

    Raises:
        CheckpointError: if it cannot be read.
    """
    try:
        reader = tf.compat.v1.train.NewCheckpointReader(prefix)
        found = reader.get_variable_to_shape_map().keys()
        return {name: np.asarray(reader.get_tensor(name)) for name in (found if names is None else found & set(names))}
    except READ_ERRORS as error:
        raise CheckpointError(f"cannot read {prefix}: {reason_of(error)}") from error


def write_entries(prefix: str, entries: Mapping[str, np.ndarray]) -> None:
    """Writes a name-based checkpoint; the inverse of `read_entries`."""
    names, values = list(entries), [tf.convert_to_tensor(value) for value in entries.values()]
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=values)


def is_readable(prefix: str) -> bool:
    """Returns True if every entry of a name-based checkpoint can be read."""
    try:
        return bool(read_entries(prefix))
    except CheckpointError:
        return False


def assign(variables: Mapping[str, tf.Variable], checkpoint: Checkpoint) -> LoadReport:
    """Assigns the values of a checkpoint to the variables, by official name, of the same shape."""
    report = LoadReport([], [], [], sorted(checkpoint.values.keys() - variables.keys()))
    for name, variable in variables.items():
        value = checkpoint.values.get(name)
        if value is None:
            report.missing.append(name)
        elif value.shape != tuple(variable.shape):
            shapes = f"{list(value.shape)} in the checkpoint, {variable.shape.as_list()} in the network"
            report.mismatched.append(f"{name}: {shapes}")
        else:
            variable.assign(value)
            report.loaded.append(name)
    return report


def restore(
    net: EfficientDetNet,
    path: str,
    *,
    partial: bool = False,
    scope: str = "",
    source_scope: str | None = None,
    averaged: bool = True,
) -> Checkpoint:
    """Loads a checkpoint into a network and logs a summary of loaded, skipped and missing variables.

    Args:
        path: see `find`.
        partial: True accepts variables that are missing in the checkpoint or have another shape there, as at the start
            of training; False raises an error for them.
        scope: prefix of the names to load, such as "efficientnet-b0/"; "" for all.
        source_scope: prefix that replaces `scope` in the checkpoint; None for the same.
        averaged: False loads raw weights, see `read`.

    Raises:
        CheckpointError: if less than a tenth of the variables can be loaded; without `partial`, also if any variable
            cannot be loaded, or if the checkpoint has further variables in parts of this network.
    """
    published.check_colors(path, net.config.colors)
    variables = {name: v for name, v in named_variables(net).items() if name.startswith(scope)}
    checkpoint = read(path, variables, averaged=averaged)
    if source_scope is not None:
        names = [name for name in checkpoint.values if name.startswith(source_scope)]
        values = {scope + name.removeprefix(source_scope): checkpoint.values[name] for name in names}
        checkpoint = dataclasses.replace(checkpoint, values=values)
    report = assign(variables, checkpoint)
    logging.info("%s", summary(checkpoint, report, len(variables)))
    skipped = report.mismatched + report.missing
    # Without a check of the surplus, a network with fewer cells or unweighted fusion would load without a missing
    # variable and detect nonsense; so would lite0 from an object-based d0, whose keys do not name the backbone.
    parts = {"backbone", "resample_layers", *(name.split("/")[0] for name in variables)}
    surplus = [name for name in report.unused if name.split("/")[0] in parts]
    remedy = "set --model_name and --hparams as in its training"
    if len(report.loaded) < 0.1 * len(variables):
        problem = f"fits {net.name} in {len(report.loaded)} of {len(variables)} variables"
        remedy = "choose --model_name accordingly, or another checkpoint"
    elif skipped and not partial:
        problem = f"lacks {len(skipped)} of the {len(variables)} variables of {net.name} with num_classes "
        problem += f"{net.config.num_classes} ({_abbreviate(skipped)})"
        if not report.missing and all(line.startswith("class_net/class-predict/") for line in report.mismatched):
            classes = structure.num_classes(checkpoint.values)
            remedy = f"set --hparams=num_classes={classes}, or choose another checkpoint"
    elif surplus and not (partial or scope):
        problem = f"has {len(surplus)} variables that {net.name} as configured does not have ({_abbreviate(surplus)})"
    else:
        return checkpoint
    model = structure.looks_like(checkpoint.values)
    raise CheckpointError(f"{checkpoint.path} {problem}; it looks like {model}: {remedy}")


def named_variables(net: EfficientDetNet) -> dict[str, tf.Variable]:
    """Returns {official name: variable} for all weights of a network."""
    return {official_name(variable): variable for variable in net.weights}


def official_name(variable: tf.Variable) -> str:
    """Returns the name of a variable in checkpoints, which lacks TensorFlow's output index."""
    return variable.name.removesuffix(":0")


def summary(checkpoint: Checkpoint, report: LoadReport, total: int) -> str:
    """Returns a few lines of text about the variables loaded from a checkpoint."""
    kind = "moving averages" if checkpoint.averaged else "plain values, not moving averages"
    lines = [f"{checkpoint.path} ({checkpoint.format}, {kind}): {len(report.loaded)} of {total} variables loaded"]
    others = {"skipped, other shape": report.mismatched, "missing in the checkpoint": report.missing}
    others["unused"] = report.unused
    lines += [f"  {what}: {len(items)} ({_abbreviate(items)})" for what, items in others.items() if items]
    return "\n".join(lines)


def _abbreviate(items: list[str], limit: int = 4) -> str:
    """Joins the first items, followed by the number of the others."""
    return ", ".join(items[:limit]) + (f" and {len(items) - limit} more" if len(items) > limit else "")


def saved(directory: str) -> list[str]:
    """Returns the names of the checkpoints in a directory's state file, newest last; empty if it cannot be read."""
    return [os.path.basename(path) for path in _listed(directory)]


def _listed(directory: str) -> list[str]:
    try:
        state = tf.train.get_checkpoint_state(directory)
    except ValueError:  # damaged
        state = None
    if state is None:
        return []
    newest = state.model_checkpoint_path
    return [*(path for path in state.all_model_checkpoint_paths if path != newest), newest]
