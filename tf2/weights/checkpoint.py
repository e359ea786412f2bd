# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one reader a published format, each yielding {official name: array}, and one assigner.

Three formats exist, told apart by what is in the file, never by its name:
  name-based    TensorFlow's V2 format, one entry a variable name, with `/ExponentialMovingAverage` beside;
                the released checkpoints, and the ones written here;
  object-based  the same container, with keys that follow attributes instead of names;
  HDF5          `save_weights("x.h5")`; read as plain arrays, nothing in it is executed.
"""

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping

import h5py
import numpy as np
import tensorflow as tf
from absl import logging

from backbone import efficientnet_builder
from dataset.files import reason_of
from efficientdet import config as config_lib
from efficientdet.model import EfficientDetNet
from tf2.weights import published

AVERAGE = "/ExponentialMovingAverage"
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
OBJECT_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
# What optimizers and loops leave beside the weights, in any version of the published code and here.
TRAINING_STATE = re.compile(r".*/(Momentum|RMSProp(_1)?|Adam(_1)?)$|beta[12]_power$|global_step$|training/")
PREFIX = "model.ckpt"
# What the readers of TensorFlow and h5py raise over damaged files; a cut-off data file is an IndexError.
UNREADABLE = (tf.errors.OpError, OSError, RuntimeError, LookupError, TypeError, UnicodeDecodeError)


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or of another network."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The weights of a checkpoint."""

    path: str
    format: str  # name-based, object-based or HDF5
    averaged: bool  # whether the values are moving averages
    values: dict[str, np.ndarray]  # by official variable name


@dataclasses.dataclass(frozen=True)
class Report:
    """What an assignment did, variable by variable."""

    loaded: list[str]
    mismatched: list[str]  # "name: [3] in the checkpoint, [4] in the network"
    missing: list[str]  # in the network, not in the checkpoint
    unused: list[str]  # in the checkpoint, not in the network


def find(path: str) -> str:
    """The checkpoint that a path means.

    Args:
        path: a prefix, an .h5 file, a directory (its newest checkpoint), or a state file called `checkpoint`; where
            nothing of that name exists, the name of published weights, a key of `published.ARCHIVES`.

    Returns:
        A prefix, or the path of an HDF5 file.

    Raises:
        CheckpointError: if there is none.
        WeightsError: if published weights cannot be had.
    """
    if tf.io.gfile.exists(path + ".index"):
        return path
    if os.path.basename(path) == "checkpoint" and not tf.io.gfile.isdir(path):
        path = os.path.dirname(path) or "."
    if tf.io.gfile.isdir(path):
        prefix = latest(path)
        if prefix is None:
            raise CheckpointError(
                f"no checkpoint in {path}; expected a state file `checkpoint` and the files it names, "
                f"but the directory holds {_some(_list(path)) or 'nothing'}"
            )
        return prefix
    if re.search(r"\.(index|data-\d+-of-\d+)$", path) and tf.io.gfile.exists(path):
        return find(re.sub(r"\.(index|data-\d+-of-\d+)$", "", path))
    if tf.io.gfile.exists(path):
        return path
    if path in published.ARCHIVES:
        return find(published.fetch(path))
    names = "".join(f", or {name}" for name in published.similar(path))
    raise CheckpointError(f"no checkpoint at {path}; give a directory, a prefix (x of x.index) or an .h5 file{names}")


def latest(directory: str) -> str | None:
    """Prefix of the newest checkpoint of a directory, the first of `prefixes`, or None."""
    return next(iter(prefixes(directory)), None)


def prefixes(directory: str) -> list[str]:
    """Prefixes of the checkpoints of a directory, newest first.

    First those that its state file lists, then what else lies there, by steps. A state file may hold paths of the
    machine that wrote it; the file beside it counts. Where the state file is missing or damaged, as after a kill or a
    copy that stopped, or names files that are gone, the log says what is taken instead.

    Raises:
        CheckpointError: if the state file names checkpoints, and there is none at all.
    """
    listed = _listed(directory)[::-1]
    lying = [file.removesuffix(".index") for file in _list(directory) if re.fullmatch(rf"{PREFIX}-\d+\.index", file)]
    lying = [os.path.join(directory, name) for name in sorted(lying, key=step_of, reverse=True)]
    candidates = [prefix for path in listed for prefix in (os.path.join(directory, os.path.basename(path)), path)]
    found = [prefix for prefix in dict.fromkeys([*candidates, *lying]) if tf.io.gfile.exists(prefix + ".index")]
    if listed and not found:
        raise CheckpointError(
            f"the state file in {directory} names {listed[0]}, which has no .index file; "
            f"give the prefix of a checkpoint that exists"
        )
    if found and not listed:
        logging.warning("%s has no state file that can be read; taking its newest checkpoint, %s", directory, found[0])
    elif found and os.path.basename(found[0]) != os.path.basename(listed[0]):
        logging.error("%s, the newest in its directory, has no .index file; taking %s instead", listed[0], found[0])
    return found


def step_of(prefix: str) -> int:
    """The step in the name of a checkpoint that a training wrote."""
    match = re.search(r"-(\d+)$", prefix)
    if not match:
        raise CheckpointError(
            f"{prefix} is not of a training that can go on: its name has no step; "
            f"start from it with --ckpt, in another --model_dir"
        )
    return int(match[1])


def read(path: str, names: Iterable[str]) -> Checkpoint:
    """Reads the weights of a checkpoint of any published format.

    Args:
        path: see `find`.
        names: official names of the network's variables; the object-based format, which has no names,
            is read through them.

    Returns:
        All weights in the file, moving averages where it holds them.

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
        return _read_names(prefix, reader)
    except UNREADABLE as error:
        raise unreadable(prefix, error) from error


def unreadable(prefix: str, error: Exception) -> CheckpointError:
    """What a reader's error means for the user."""
    return CheckpointError(f"cannot read {prefix}: {reason_of(error)}")


def _read_names(prefix: str, reader) -> Checkpoint:
    entries = reader.get_variable_to_shape_map()
    names = [name for name in entries if not name.endswith(AVERAGE) and not TRAINING_STATE.match(name)]
    averaged = [name for name in names if name + AVERAGE in entries]
    values = {name: reader.get_tensor(name + AVERAGE if name + AVERAGE in entries else name) for name in names}
    return Checkpoint(prefix, "name-based", bool(averaged), values)


def _read_objects(prefix: str, reader, names: Iterable[str]) -> Checkpoint:
    keys = object_keys(names)
    values = {}
    for key in reader.get_variable_to_shape_map():
        path = key.removesuffix(OBJECT_VALUE)
        if path == key or ".OPTIMIZER_SLOT" in key or path.startswith(("optimizer/", "save_counter")):
            continue
        values[keys.get(path, path)] = reader.get_tensor(key)
    # Whether these are averages is known to the trainer that wrote them alone, which named the file so.
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
    """Entries of a name-based checkpoint as they stand there, training state included.

    Args:
        prefix: of the checkpoint.
        names: entries to read, as far as they are there; None for all.

    Raises:
        CheckpointError: if it cannot be read.
    """
    try:
        reader = tf.compat.v1.train.NewCheckpointReader(prefix)
        there = reader.get_variable_to_shape_map().keys()
        return {name: np.asarray(reader.get_tensor(name)) for name in (there if names is None else there & set(names))}
    except UNREADABLE as error:
        raise unreadable(prefix, error) from error


def write_entries(prefix: str, entries: Mapping[str, np.ndarray]) -> None:
    """Writes a name-based checkpoint; what `read_entries` reads."""
    names, values = list(entries), [tf.convert_to_tensor(value) for value in entries.values()]
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=values)


def is_whole(prefix: str) -> bool:
    """Whether every entry of a checkpoint can be read."""
    try:
        return bool(read_entries(prefix))
    except CheckpointError:
        return False


def object_keys(names: Iterable[str]) -> dict[str, str]:
    """Keys of the object-based format, by attributes, for variables known by name.

    Args:
        names: official names of all variables of one network.

    Returns:
        {object key without its suffix: official name}.
    """
    names = set(names)
    levels = {int(match[1]) for name in names if (match := re.match(r"class_net/class-0-bn-(\d+)/", name))}
    min_level = min(levels, default=0)
    return {_object_key(name, names, min_level): name for name in names}


def _object_key(name: str, names: set[str], min_level: int) -> str:
    head, *rest = name.split("/")
    if head.startswith("efficientnet-"):
        return "/".join(["backbone", *_backbone_key(head, rest, names)])
    if head.startswith("resample_p"):
        return "/".join(["resample_layers", str(int(head.removeprefix("resample_p")) - 6), *rest])
    if head == "fpn_cells":
        key = re.sub(r"/cell_(\d+)/fnode(\d+)/", r"/cells/\1/fnodes/\2/", name)
        key = re.sub(r"/resample_(\d+)_\d+_\d+/", r"/resample_layers/\1/", key)
        return re.sub(
            r"/op_after_combine\d+/(conv)?", lambda m: "/op_after_combine/" + ("conv_op" if m[1] else ""), key
        )
    key = re.sub(r"/(class|box)-(\d+)-bn-(\d+)/", lambda m: f"/bns/{m[2]}/{int(m[3]) - min_level}/", name)
    key = re.sub(r"/(class|box)-(\d+)/", r"/conv_ops/\2/", key)
    return key.replace("/class-predict/", "/classes/").replace("/box-predict/", "/boxes/")


def _backbone_key(backbone: str, rest: list[str], names: set[str]) -> list[str]:
    block, *layer, variable = rest
    if block == "stem":
        return ["_stem", {"conv2d": "_conv_stem"}.get(layer[0], "_bn"), variable]
    if layer[0] == "se":
        return ["_blocks", block.removeprefix("blocks_"), "_se", *_pick(layer[1:], _SE_KEYS), variable]
    # A block that does not expand has one convolution and one normalization less, and its counters start later.
    expands = f"{backbone}/{block}/conv2d_1/kernel" in names
    return ["_blocks", block.removeprefix("blocks_"), *_pick(layer, _MBCONV_KEYS if expands else _PLAIN_KEYS), variable]


def _pick(layer: list[str], keys: Mapping[str, str]) -> list[str]:
    return [keys.get(part, part) for part in layer]


_SE_KEYS = {"conv2d": "_se_reduce", "conv2d_1": "_se_expand"}
_MBCONV_KEYS = {
    "conv2d": "_expand_conv",
    "conv2d_1": "_project_conv",
    "depthwise_conv2d": "_depthwise_conv",
    "tpu_batch_normalization": "_bn0",
    "tpu_batch_normalization_1": "_bn1",
    "tpu_batch_normalization_2": "_bn2",
}
_PLAIN_KEYS = {
    "conv2d": "_project_conv",
    "depthwise_conv2d": "_depthwise_conv",
    "tpu_batch_normalization": "_bn1",
    "tpu_batch_normalization_1": "_bn2",
}


def assign(variables: Mapping[str, tf.Variable], checkpoint: Checkpoint) -> Report:
    """Gives variables the values of a checkpoint wherever name and shape agree.

    Args:
        variables: {official name: variable}.
        checkpoint: from `read`.

    Returns:
        What was loaded and what was not.
    """
    report = Report([], [], [], sorted(checkpoint.values.keys() - variables.keys()))
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
    net: EfficientDetNet, path: str, *, partial: bool = False, scope: str = "", source_scope: str | None = None
) -> Checkpoint:
    """Loads a checkpoint into a network and logs one summary of what was loaded, skipped and missed.

    Args:
        net: the network.
        path: see `find`.
        partial: accepts variables that the checkpoint lacks or holds in another shape, as a start of
            training does; otherwise each of them is an error.
        scope: first part of the names to load, such as "efficientnet-b0/"; "" for all.
        source_scope: what stands in the checkpoint in place of `scope`; None for the same.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: if next to nothing fits; without `partial`, also if a variable is left out, or if the
            checkpoint is of a network with more parts.
    """
    if path in published.ARCHIVES:
        published.check_colors(path, net.config.colors)
    variables = {name: v for name, v in named_variables(net).items() if name.startswith(scope)}
    checkpoint = read(path, variables)
    if source_scope is not None:
        renamed = {
            scope + k.removeprefix(source_scope): v for k, v in checkpoint.values.items() if k.startswith(source_scope)
        }
        checkpoint = dataclasses.replace(checkpoint, values=renamed)
    report = assign(variables, checkpoint)
    logging.info("%s", summary(checkpoint, report, len(variables)))
    if len(report.loaded) < 0.1 * len(variables):
        raise CheckpointError(
            f"{checkpoint.path} fits {net.name} in {len(report.loaded)} of {len(variables)} variables; "
            f"it looks like {looks_like(checkpoint.values)}: choose --model_name accordingly, or another checkpoint"
        )
    if not partial and (report.missing or report.mismatched):
        raise CheckpointError(
            f"{checkpoint.path} lacks {len(report.missing) + len(report.mismatched)} of the {len(variables)} variables "
            f"of {net.name} with num_classes {net.config.num_classes} ({_some(report.mismatched + report.missing)}); "
            f"it looks like {looks_like(checkpoint.values)}: {_remedy(checkpoint, report)}"
        )
    surplus = [] if partial or scope else _surplus(report, variables)
    if surplus:
        raise CheckpointError(
            f"{checkpoint.path} holds {len(surplus)} variables that {net.name} as configured has no place for "
            f"({_some(surplus)}); "
            f"it looks like {looks_like(checkpoint.values)}: set --model_name and --hparams as in its training"
        )
    return checkpoint


def load_net(config: config_lib.Config, path: str) -> EfficientDetNet:
    """The network of a config with the weights of a checkpoint.

    Raises:
        CheckpointError: if there is no checkpoint, or it is not one of this network, see `restore`.
    """
    find(path)  # before the seconds that building takes
    net = EfficientDetNet(config)
    restore(net, path)
    return net


def _remedy(checkpoint: Checkpoint, report: Report) -> str:
    """What to do about a checkpoint that does not fit: where no more than the number of classes differs, just that."""
    if report.missing or any(not line.startswith("class_net/class-predict/") for line in report.mismatched):
        return "set --model_name and --hparams as in its training"
    return f"set --hparams=num_classes={_num_classes(checkpoint.values)}, or choose another checkpoint"


def _surplus(report: Report, variables: Mapping[str, tf.Variable]) -> list[str]:
    """What a checkpoint holds beyond a network in the network's own parts.

    Without a look at it, a network with a cell less or unweighted fusion would load without a gap and detect nonsense;
    so would lite0 from an object-based d0, whose keys do not name the backbone.
    """
    parts = {"backbone", "resample_layers", *(name.split("/")[0] for name in variables)}
    return [name for name in report.unused if name.split("/")[0] in parts]


def named_variables(net: EfficientDetNet) -> dict[str, tf.Variable]:
    """{official name: variable} of all weights of a network."""
    return {official_name(variable): variable for variable in net.weights}


def official_name(variable: tf.Variable) -> str:
    """Name of a variable as checkpoints have it, without TensorFlow's output number."""
    return variable.name.removesuffix(":0")


def summary(checkpoint: Checkpoint, report: Report, total: int) -> str:
    """A few lines that say what came out of a checkpoint."""
    kind = "moving averages" if checkpoint.averaged else "plain values, no moving averages in it"
    lines = [f"{checkpoint.path} ({checkpoint.format}, {kind}): {len(report.loaded)} of {total} variables loaded"]
    for what, items in (
        ("skipped, other shape", report.mismatched),
        ("missing in the checkpoint", report.missing),
        ("unused", report.unused),
    ):
        if items:
            lines.append(f"  {what}: {len(items)} ({_some(items)})")
    return "\n".join(lines)


def _some(items: list[str], limit: int = 4) -> str:
    return ", ".join(items[:limit]) + (f" and {len(items) - limit} more" if len(items) > limit else "")


def looks_like(values: Mapping[str, np.ndarray]) -> str:
    """Names the published models whose structure weights have, and their number of classes.

    Args:
        values: weights by official name, or by object key where a network of another structure read them.

    Returns:
        Such as "efficientdet-d6 or efficientdet-d7 with num_classes 90", for messages.
    """
    heads = {"class_net/class-predict/bias", "box_net/box-predict/bias"}
    if not heads <= values.keys():
        backbones = sorted({name.split("/")[0] for name in values if name.startswith("efficientnet-")})
        return f"a backbone, {backbones[0]}" if backbones else "no EfficientDet"
    structure = (
        _count(r"(?:efficientnet-[^/]+/blocks_|backbone/_blocks/)(\d+)/", values),
        any(re.search(r"/_?se/", name) for name in values),
        _count(r"fpn_cells/(?:cell_|cells/)(\d+)/", values),
        _count(r"class_net/(?:class-|conv_ops/)(\d+)/", values),
        next(
            value.shape[-2]
            for name, value in values.items()
            if re.match(r"class_net/(?:class-predict|classes)/(?:point|ker)", name)
        ),
        any("/WSM" in name for name in values),
    )
    fitting = [name for name in config_lib.MODELS if _structure(config_lib.load(name)) == structure]
    return f"{' or '.join(fitting) or 'a customized EfficientDet'} with num_classes {_num_classes(values)}"


def _num_classes(values: Mapping[str, np.ndarray]) -> int:
    num_anchors = values["box_net/box-predict/bias"].size // 4
    return values["class_net/class-predict/bias"].size // num_anchors


def _structure(config: config_lib.Config) -> tuple:
    blocks = efficientnet_builder.block_args(config.backbone_name)
    return (
        len(blocks),
        blocks[0].se_ratio is not None,
        config.fpn_cell_repeats,
        config.box_class_repeats,
        config.fpn_num_filters,
        config.fpn_weight_method != "sum",
    )


def _count(pattern: str, names: Iterable[str]) -> int:
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def saved(directory: str) -> list[str]:
    """Names of the checkpoints that a directory's state file lists, newest last; none if it cannot be read."""
    return [os.path.basename(path) for path in _listed(directory)]


def _listed(directory: str) -> list[str]:
    try:
        state = tf.train.get_checkpoint_state(directory)
    except ValueError:
        return []
    if state is None:
        return []
    newest = state.model_checkpoint_path
    return [*(path for path in state.all_model_checkpoint_paths if path != newest), newest]


def _list(directory: str) -> list[str]:
    try:
        return tf.io.gfile.listdir(directory)
    except tf.errors.NotFoundError:
        return []
