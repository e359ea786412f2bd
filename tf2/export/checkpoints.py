# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The run modes ckpt and dry: writes checkpoints in every published format, and the training graph."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import h5py
import tensorflow as tf
import tf_keras as keras
from absl import logging

from dataset import files
from dataset.files import reason_of, staging_folder
from efficientdet.config import Config
from efficientdet.model import EfficientDetNet
from tf2.inference.drivers import KerasDriver
from tf2.weights import checkpoint
from tf2.weights.checkpoint import AVERAGE
from tf2.weights.object_keys import object_keys

STATE = "checkpoint"  # the file that names the newest checkpoint of a folder
SUFFIXES = (".data-00000-of-00001", ".index")


def run(
    config: Config,
    ckpt_path: str | None,
    *,
    logdir: str | None = None,
    export_ckpt: str | None = None,
    format: str = "name",
) -> None:
    """Loads a checkpoint, and writes it again.

    Args:
        config: of the detector.
        ckpt_path: see `checkpoint.find`; None for random weights.
        logdir: folder for the files of `dry`; None skips these.
        export_ckpt: prefix of the checkpoint to write, see `export`; None skips it.
        format: of that checkpoint, a key of FORMATS.

    Raises:
        ValueError: if a target exists or the checkpoint does not fit; the targets are checked first.
    """
    if logdir:
        check_dry(config, logdir)
    if export_ckpt:
        check_target(export_ckpt, format)
    net = KerasDriver(config, ckpt_path).model.net
    if logdir:
        dry(net, logdir)
    if export_ckpt:
        export(net, export_ckpt, format=format)


def check_target(prefix: str, format: str = "name") -> None:
    """Checks that `export` can write, before any work.

    Args:
        prefix: of the checkpoint; for hdf5 the path of the file.
        format: a key of FORMATS.

    Raises:
        TargetError: if the target exists, its folder cannot be written to, or its name belongs to another format.
    """
    if prefix.endswith("/") or tf.io.gfile.isdir(prefix):
        raise files.TargetError(
            f"{prefix} is a folder; give the name of a checkpoint in it, {os.path.join(prefix, 'model')}"
        )
    if (format == "hdf5") != prefix.endswith(".h5"):
        raise files.TargetError(
            f"the name of a checkpoint must end in .h5 for the format hdf5, and only for it; "
            f"got the name {prefix} and the format {format}"
        )
    for suffix in [""] if format == "hdf5" else SUFFIXES:
        files.check_target(prefix + suffix)


def export(net: EfficientDetNet, prefix: str, *, format: str = "name") -> list[str]:
    """Writes the weights of a network as a checkpoint, and prints its prefix.

    A state file `checkpoint` is written beside it, so that loaders accept the folder in place of the prefix. An
    existing state file is kept: the folder then still means the older checkpoint.

    Args:
        net: the network.
        prefix: see `check_target`.
        format: "name": one entry per variable and one per moving average, both with the same value, as in the released
            checkpoints; "object": TensorFlow 2's object-based format; "hdf5": Keras' HDF5 format.

    Returns:
        The written files.

    Raises:
        TargetError: see `check_target`.
        OSError: if it cannot be written; no partial file is left.
    """
    check_target(prefix, format)
    written = _write_atomically(prefix, lambda path: FORMATS[format](net, path), has_state=format != "hdf5")
    print(f"export model to {prefix}", flush=True)
    return written


def check_dry(config: Config, logdir: str) -> None:
    """Raises TargetError if a checkpoint of `dry` already exists, or if `logdir` cannot be created."""
    if not tf.io.gfile.isdir(logdir):
        files.check_target(logdir)
        return
    for suffix in SUFFIXES:
        files.check_target(os.path.join(logdir, config.name + suffix))


def dry(net: EfficientDetNet, logdir: str) -> list[str]:
    """Writes the start of a training; prints the files and the numbers of parameters.

    The files are a name-based checkpoint {model} of the weights, and an event file with the training graph for
    TensorBoard, which starts at the placeholder `input`.

    Args:
        net: the network.
        logdir: a folder, created if it does not exist.

    Returns:
        The written files.

    Raises:
        TargetError: see `check_dry`.
        OSError: if they cannot be written; no partial file is left.
    """
    check_dry(net.config, logdir)
    images = tf.TensorSpec([None, *net.config.image_size, 3], tf.float32, name="input")
    step = tf.function(lambda images: net(images, training=True), input_signature=[images], autograph=False)
    graph = step.get_concrete_function().graph

    def write(prefix: str) -> None:
        _write_names(net, prefix)
        writer = tf.summary.create_file_writer(os.path.dirname(prefix))
        with writer.as_default():
            tf.summary.graph(graph)
        writer.close()

    tf.io.gfile.makedirs(logdir)
    written = _write_atomically(os.path.join(logdir, net.config.name), write)
    for file in written:
        print(f"writing file to {file}")
    trainable, total = num_parameters(net)
    print(f"{net.config.name}: {trainable:,} trainable parameters, {total:,} in all", flush=True)
    return written


def num_parameters(net: EfficientDetNet) -> tuple[int, int]:
    """Numbers of trainable parameters and of all parameters, including the statistics of batch normalization."""
    return tuple(sum(v.shape.num_elements() for v in group) for group in (net.trainable_weights, net.weights))


def _write_names(net: EfficientDetNet, prefix: str) -> None:
    """Writes the name-based format."""
    values = {name: variable.numpy() for name, variable in checkpoint.named_variables(net).items()}
    checkpoint.write_entries(prefix, values | {name + AVERAGE: value for name, value in values.items()})


def _write_objects(net: EfficientDetNet, prefix: str) -> None:
    """Writes the object-based format with the published attribute paths, which differ from those of this code."""
    variables = checkpoint.named_variables(net)
    keys = object_keys(variables)
    tf.train.Checkpoint(**_tree({key: variables[name] for key, name in keys.items()})).write(prefix)


def _write_hdf5(net: EfficientDetNet, path: str) -> None:
    """Writes Keras' HDF5 format. Keras reads it by order, and the published backbone lists its stem last."""
    with h5py.File(path, "w") as file:
        file.attrs["backend"] = "tensorflow"
        file.attrs["keras_version"] = keras.__version__
        file.attrs["layer_names"] = [layer.name for layer in net.layers]
        file.create_group("top_level_model_weights").attrs["weight_names"] = []
        for layer in net.layers:
            variables = sorted(layer.weights, key=lambda variable: (not variable.trainable, "/stem/" in variable.name))
            group = file.create_group(layer.name)
            group.attrs["weight_names"] = [variable.name for variable in variables]
            for variable in variables:
                group[variable.name] = variable.numpy()


FORMATS = {"name": _write_names, "object": _write_objects, "hdf5": _write_hdf5}


def _tree(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries from a flat one whose keys are paths."""
    tree = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        branch = tree
        for folder in folders:
            branch = branch.setdefault(folder, {})
        branch[name] = leaf
    return tree


def _write_atomically(prefix: str, write: Callable[[str], None], has_state: bool = True) -> list[str]:
    """Writes the files of a checkpoint to a staging folder, then moves them to their place."""
    directory, name = os.path.split(prefix)
    try:
        with staging_folder(prefix, _completing_last) as folder:
            write(os.path.join(folder, name))
            if has_state:
                _write_state(directory, folder, name)
            written = sorted(os.listdir(folder), key=_completing_last)
        return [os.path.join(directory, file) for file in written]
    except tf.errors.OpError as error:
        raise OSError(
            f"cannot write {prefix}: {reason_of(error)}; free some space, or change the permissions"
        ) from error


def _completing_last(file: str) -> tuple:
    """Sort key: the index completes a checkpoint, and the state file must name complete ones."""
    return file == STATE, file.endswith(".index"), file


def _write_state(directory: str, unfinished: str, name: str) -> None:
    """Writes a state file to `unfinished` if `directory` has none."""
    if tf.io.gfile.exists(os.path.join(directory, STATE)):
        logging.warning(
            "%s is kept and names another checkpoint: load this one by its prefix, %s",
            *(os.path.join(directory, file) for file in (STATE, name)),
        )
        return
    with open(os.path.join(unfinished, STATE), "w", encoding="utf-8") as file:
        file.write(str(tf.compat.v1.train.generate_checkpoint_state_proto(unfinished, name)))
