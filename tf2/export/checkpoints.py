# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Verbs behind the run modes ckpt and dry: checkpoints in every published format, and the graph of a training."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import h5py
import tensorflow as tf
import tf_keras as keras
from absl import logging
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from dataset import files
from dataset.files import reason_of, staging_folder
from efficientdet.config import Config
from efficientdet.model import EfficientDetNet
from tf2.weights import checkpoint
from tf2.weights.checkpoint import AVERAGE

STATE = "checkpoint"  # the file that names the newest checkpoint of a folder
SUFFIXES = (".data-00000-of-00001", ".index")
DRY_SUFFIXES = (*SUFFIXES, ".meta", "_train.pb")


def check_target(prefix: str, format: str = "name") -> None:
    """Finds what would keep `export` from writing, before any work.

    Args:
        prefix: of the checkpoint; of the format hdf5 the file itself.
        format: a key of FORMATS.

    Raises:
        TargetError: if the target exists, its folder cannot be written to, or its name is one of another format.
    """
    if prefix.endswith("/") or os.path.isdir(prefix):
        raise files.TargetError(
            f"{prefix} is a folder; give the name of a checkpoint in it, {os.path.join(prefix, 'model')}"
        )
    if (format == "hdf5") != prefix.endswith(".h5"):
        raise files.TargetError(
            f"a checkpoint of the format hdf5 has a name that ends in .h5, and no other has; "
            f"got the name {prefix} and the format {format}"
        )
    for suffix in [""] if format == "hdf5" else SUFFIXES:
        files.check_target(prefix + suffix)


def export(net: EfficientDetNet, prefix: str, *, format: str = "name") -> list[str]:
    """Writes the weights of a network as a checkpoint, and prints where.

    A state file `checkpoint`, which lets loaders take the folder for the prefix, is written beside it, unless there is
    one already: another checkpoint then stays the newest of that folder.

    Args:
        net: the network.
        prefix: see `check_target`.
        format: "name" for one entry a variable and one a moving average, both with the same value, as in the released
            checkpoints; "object" for TensorFlow 2's object-based format; "hdf5" for that of Keras.

    Returns:
        The files written.

    Raises:
        TargetError: see `check_target`.
        OSError: if it cannot be written; nothing is left of it.
    """
    check_target(prefix, format)
    written = _write_whole(prefix, lambda path: FORMATS[format](net, path), has_state=format != "hdf5")
    print(f"export model to {prefix}", flush=True)
    return written


def check_dry(config: Config, logdir: str) -> None:
    """Raises TargetError if a file that `dry` writes exists already, or if `logdir` cannot become a folder."""
    if not os.path.isdir(logdir):
        files.check_target(logdir)
        return
    for suffix in DRY_SUFFIXES:
        files.check_target(os.path.join(logdir, config.name + suffix))


def dry(net: EfficientDetNet, logdir: str) -> list[str]:
    """Writes what a training would begin with, and prints the files and the number of parameters.

    In the files of TensorFlow 1: the weights, a name-based checkpoint; the graph of the network in training as
    {model}_train.pb, a GraphDef that begins at the placeholder `input`; the same with the means to restore the weights
    as {model}.meta, for `tf.compat.v1.train.import_meta_graph`; the same for TensorBoard as an event file.

    Args:
        net: the network.
        logdir: a folder, made where it does not exist.

    Returns:
        The files written.

    Raises:
        TargetError: see `check_dry`.
        OSError: if they cannot be written; nothing is left of them.
    """
    check_dry(net.config, logdir)
    graph_def, meta_graph = _training_graph(net.config)

    def write(prefix: str) -> None:
        _write_names(net, prefix)
        for suffix, message in (("_train.pb", graph_def), (".meta", meta_graph)):
            with open(prefix + suffix, "wb") as file:
                file.write(message.SerializeToString())
        writer = tf.summary.create_file_writer(os.path.dirname(prefix))
        with writer.as_default():
            tf.summary.graph(graph_def)
        writer.close()

    os.makedirs(logdir, exist_ok=True)
    written = _write_whole(os.path.join(logdir, net.config.name), write)
    for file in written:
        print(f"writing file to {file}")
    trainable, total = num_parameters(net)
    print(f"{net.config.name}: {trainable:,} trainable parameters, {total:,} in all", flush=True)
    return written


def num_parameters(net: EfficientDetNet) -> tuple[int, int]:
    """Numbers of trainable parameters and of all, the statistics of batch normalization included."""
    return tuple(sum(v.shape.num_elements() for v in group) for group in (net.trainable_weights, net.weights))


def _training_graph(config: Config) -> tuple[GraphDef, MetaGraphDef]:
    """The network in training as a graph of TensorFlow 1, alone and with what restores its variables."""
    with tf.Graph().as_default() as graph:
        net = EfficientDetNet(config)
        images = tf.compat.v1.placeholder(tf.float32, [None, *config.image_size, 3], name="input")
        # Nothing in a layer needs AutoGraph, which would take most of the time.
        tf.autograph.experimental.do_not_convert(net)(images, training=True)
        graph_def = graph.as_graph_def()
        saver = tf.compat.v1.train.Saver(checkpoint.named_variables(net))
        return graph_def, saver.export_meta_graph(clear_devices=True)


def _write_names(net: EfficientDetNet, prefix: str) -> None:
    """Writes the name-based format."""
    values = {name: variable.numpy() for name, variable in checkpoint.named_variables(net).items()}
    checkpoint.write_entries(prefix, values | {name + AVERAGE: value for name, value in values.items()})


def _write_objects(net: EfficientDetNet, prefix: str) -> None:
    """Writes the object-based format, by the published attributes instead of those of this program."""
    variables = checkpoint.named_variables(net)
    keys = checkpoint.object_keys(variables)
    tf.train.Checkpoint(**_tree({key: variables[name] for key, name in keys.items()})).write(prefix)


def _write_hdf5(net: EfficientDetNet, path: str) -> None:
    """Writes HDF5 as Keras does, which reads it by order: the published backbone has its stem behind the blocks."""
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
    """Nested dictionaries of a flat one whose keys are paths."""
    tree = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        branch = tree
        for folder in folders:
            branch = branch.setdefault(folder, {})
        branch[name] = leaf
    return tree


def _write_whole(prefix: str, write: Callable[[str], None], has_state: bool = True) -> list[str]:
    """Has the files of a checkpoint written in a folder of their own, and moves them to where they belong.

    The index comes last but for the state file: data without one are no checkpoint.
    """
    directory, name = os.path.split(prefix)
    try:
        with staging_folder(prefix, _state_last) as folder:
            write(os.path.join(folder, name))
            if has_state:
                _write_state(directory, folder, name)
            written = sorted(os.listdir(folder), key=_state_last)
        return [os.path.join(directory, file) for file in written]
    except tf.errors.OpError as error:
        raise OSError(
            f"cannot write {prefix}: {reason_of(error)}; free some space, or change the permissions"
        ) from error


def _state_last(file: str) -> tuple:
    """Sorts the files of a checkpoint: without its index it is none, and the state file names complete ones."""
    return file == STATE, file.endswith(".index"), file


def _write_state(directory: str, unfinished: str, name: str) -> None:
    """Writes a state file to `unfinished`, where `directory` has none."""
    if os.path.exists(os.path.join(directory, STATE)):
        logging.warning(
            "%s stays as it is, so that folder means another checkpoint: give this one by its prefix, %s",
            *(os.path.join(directory, file) for file in (STATE, name)),
        )
        return
    with open(os.path.join(unfinished, STATE), "w", encoding="utf-8") as file:
        file.write(str(tf.compat.v1.train.generate_checkpoint_state_proto(unfinished, name)))
