# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""checkpoints: every format holds the same values and looks like the published files; the files of --runmode=dry."""

import contextlib
import io
import os
import pathlib

import h5py
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from dataset.files import TargetError
from efficientdet import config as config_lib
from efficientdet.model import EfficientDetNet
from testdata import reference_weights
from tf2.export import checkpoints
from tf2.inference.drivers import KerasDriver
from tf2.weights import checkpoint
from tf2.weights.checkpoint import AVERAGE, OBJECT_GRAPH, OBJECT_VALUE, CheckpointError
from tf2.weights.object_keys import object_keys

ROOT = pathlib.Path(__file__).parents[3]
PUBLISHED = ROOT.parent / "shared" / "reference" / "checkpoints"
NAMES = {"name": "model", "object": "model", "hdf5": "model.h5"}
FORMATS = {"name": "name-based", "object": "object-based", "hdf5": "HDF5"}
PAIR = ["model.data-00000-of-00001", "model.index"]


@pytest.fixture(scope="module")
def net(tiny_config):
    net = EfficientDetNet(tiny_config)
    for name, variable in checkpoint.named_variables(net).items():
        variable.assign(reference_weights.weight(name, variable.shape))
    return net


@pytest.fixture(scope="module")
def other_net(tiny_config):
    return EfficientDetNet(tiny_config)


@pytest.fixture(scope="module")
def values(net):
    return {name: variable.numpy() for name, variable in checkpoint.named_variables(net).items()}


def assert_same_values(read, values):
    assert read.keys() == values.keys()
    for name, value in values.items():
        np.testing.assert_array_equal(read[name], value, err_msg=name)


@pytest.mark.parametrize("format", NAMES)
def test_round_trip(net, values, format, tmp_path, capsys):
    prefix = str(tmp_path / NAMES[format])
    files = checkpoints.export(net, prefix, format=format)
    assert capsys.readouterr().out == f"export model to {prefix}\n"
    names = ["model.h5"] if format == "hdf5" else [*PAIR, "checkpoint"]
    assert files == [str(tmp_path / name) for name in names] and sorted(os.listdir(tmp_path)) == sorted(names)
    # Found by its prefix and, except for HDF5, by its folder.
    for path in (prefix, *([str(tmp_path)] if format != "hdf5" else [])):
        read = checkpoint.read(path, values)
        assert read.format == FORMATS[format]
        assert_same_values(read.values, values)


@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("target", NAMES)
def test_conversion_between_all_formats(net, other_net, values, source, target, tmp_path):
    first, second = (str(tmp_path / f"{i}{NAMES[format]}") for i, format in enumerate((source, target)))
    checkpoints.export(net, first, format=source)
    for variable in other_net.weights:
        variable.assign(tf.zeros_like(variable))
    checkpoint.restore(other_net, first)
    checkpoints.export(other_net, second, format=target)
    assert_same_values(checkpoint.read(second, values).values, values)


def test_variable_and_average_hold_the_same_value(net, values, tmp_path):
    checkpoints.export(net, str(tmp_path / "model"))
    assert_same_values(
        checkpoint.read_entries(str(tmp_path / "model")), values | {name + AVERAGE: v for name, v in values.items()}
    )


def test_tensorflow_reads_object_based_checkpoints(net, values, tmp_path):
    """tf.train.Checkpoint restores a tree of its own from them; the object graph names each variable."""
    prefix = str(tmp_path / "model")
    checkpoints.export(net, prefix, format="object")
    classes = tf.Module()
    classes.bias = tf.Variable(tf.zeros([27]))
    tree = tf.train.Checkpoint(class_net=tf.train.Checkpoint(classes=classes))
    tree.read(prefix).assert_existing_objects_matched()
    np.testing.assert_array_equal(classes.bias, values["class_net/class-predict/bias"])
    graph = object_graph(prefix)
    assert [child.local_name for child in graph.nodes[0].children] == [
        *("backbone", "box_net", "class_net", "fpn_cells", "resample_layers")
    ]
    assert full_names(graph) == {key + OBJECT_VALUE: name for key, name in object_keys(values).items()}


def object_graph(prefix):
    encoded = tf.train.load_checkpoint(prefix).get_tensor(OBJECT_GRAPH)
    return trackable_object_graph_pb2.TrackableObjectGraph.FromString(encoded)


def full_names(graph):
    return {a.checkpoint_key: a.full_name for node in graph.nodes for a in node.attributes}


@pytest.mark.parametrize("format", ["name", "object"])
def test_an_existing_state_file_is_kept(net, values, format, tmp_path, caplog):
    checkpoints.export(net, str(tmp_path / "first"))
    state = (tmp_path / "checkpoint").read_bytes()
    files = checkpoints.export(net, str(tmp_path / "model"), format=format)
    assert files == [str(tmp_path / name) for name in PAIR] and (tmp_path / "checkpoint").read_bytes() == state
    assert f"load this one by its prefix, {tmp_path}/model" in caplog.text
    assert checkpoint.find(str(tmp_path)) == str(tmp_path / "first")


def test_a_prefix_without_a_folder(net, values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checkpoints.export(net, "model") == [*PAIR, "checkpoint"]
    assert checkpoint.find(".") == "./model"


@pytest.mark.parametrize(
    "prefix, format, message",
    [
        ("", "name", "is a folder; give the name of a checkpoint in it, .*/model$"),
        ("/", "hdf5", "is a folder; give the name of a checkpoint in it, .*/model$"),
        ("/old", "name", "old.data-00000-of-00001 exists already; remove it, or choose another name"),
        ("/half", "object", "half.index exists already"),
        ("/old.h5", "hdf5", "old.h5 exists already"),
        ("/old.h5/model", "name", "old.h5 cannot be written to"),
        (
            "/model",
            "hdf5",
            r"must end in .h5 for the format hdf5, and only .*; got the name .*/model and the format hdf5",
        ),
        ("/model.h5", "object", r"and only for it; got the name .*/model.h5 and the format object"),
    ],
)
def test_targets_that_cannot_be_written(net, prefix, format, message, tmp_path):
    for name in ("old.data-00000-of-00001", "half.index", "old.h5"):
        (tmp_path / name).write_bytes(b"existing")
    before = sorted(os.listdir(tmp_path))
    for check in (checkpoints.check_target, lambda *args: checkpoints.export(net, args[0], format=args[1])):
        with pytest.raises(TargetError, match=message) as error:
            check(f"{tmp_path}{prefix}", format)
        assert "\n" not in str(error.value)
    assert sorted(os.listdir(tmp_path)) == before and (tmp_path / "half.index").read_bytes() == b"existing"


@pytest.mark.parametrize("kind", [OSError, tf.errors.ResourceExhaustedError])
def test_a_failed_write_leaves_nothing(net, kind, tmp_path, monkeypatch):
    """Files left by a killed process are removed, too."""

    def full(prefix, entries):
        pathlib.Path(f"{prefix}.data-00000-of-00001").write_bytes(b"half")
        raise OSError("no space left") if kind is OSError else kind(None, None, "no space left\nat all")

    monkeypatch.setattr(checkpoint, "write_entries", full)
    (tmp_path / ".unfinished-model").mkdir()
    (tmp_path / ".unfinished-model" / "model.index").write_bytes(b"older half")
    with pytest.raises(OSError, match=r"no space left(; free some space.*)?$"):
        checkpoints.export(net, str(tmp_path / "model"))
    assert os.listdir(tmp_path) == []


def test_another_num_classes_is_an_error_with_both_numbers(net, tmp_path):
    checkpoints.export(net, str(tmp_path / "model"))
    with pytest.raises(CheckpointError, match=r"with num_classes 21 .* num_classes 3: set --hparams=num_classes=3, or"):
        KerasDriver(net.config.override({"num_classes": 21}), str(tmp_path / "model"))
    with pytest.raises(CheckpointError, match="set --model_name and --hparams as in its training"):
        KerasDriver(net.config.override({"num_classes": 21, "num_scales": 2}), str(tmp_path / "model"))


@pytest.fixture(scope="module")
def dried(net, tmp_path_factory):
    """The folder, the return value of `dry`, and its output."""
    folder, output = tmp_path_factory.mktemp("dry") / "log", io.StringIO()
    with contextlib.redirect_stdout(output):
        files = checkpoints.dry(net, f"{folder}/")
    return folder, files, output.getvalue()


def test_dry_writes_a_checkpoint_and_an_event_file(values, dried):
    folder, files, _ = dried
    names = sorted(path.name for path in folder.iterdir())
    assert sorted(files) == [str(folder / name) for name in names]
    assert names[:3] == ["checkpoint", *(f"efficientdet-lite0{suffix}" for suffix in checkpoints.SUFFIXES)]
    assert len(names) == 4 and names[3].startswith("events.out.tfevents.")
    assert_same_values(checkpoint.read(str(folder), values).values, values)


def test_dry_prints_files_and_numbers_of_parameters(values, dried):
    total = sum(value.size for value in values.values())
    statistics = sum(value.size for name, value in values.items() if "/moving_" in name)
    assert dried[2].splitlines() == [
        *(f"writing file to {file}" for file in dried[1]),
        f"efficientdet-lite0: {total - statistics:,} trainable parameters, {total:,} in all",
    ]


def test_the_graph_is_that_of_training(dried):
    """Its input has the published name; batch normalization uses the statistics of the batch."""
    [path] = dried[0].glob("events.out.tfevents.*")
    [graph] = [event.graph_def for event in tf.compat.v1.train.summary_iterator(str(path)) if event.graph_def]
    graph_def = tf.compat.v1.GraphDef.FromString(graph)
    nodes = {node.name: node for node in graph_def.node}
    sizes = [dim.size for dim in nodes["input"].attr["shape"].shape.dim]
    assert nodes["input"].op == "Placeholder" and sizes == [-1, 64, 64, 3]
    norms = [node for node in graph_def.node if node.op == "FusedBatchNormV3"]
    assert norms and all(node.attr["is_training"].b for node in norms)


@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
def test_dry_does_not_overwrite(net, suffix, tmp_path):
    checkpoints.check_dry(net.config, str(tmp_path))
    checkpoints.check_dry(net.config, str(tmp_path / "new"))
    target = tmp_path / f"efficientdet-lite0{suffix}"
    target.write_bytes(b"existing")
    for path, message in (
        (tmp_path, f"{target} exists already"),
        (target, "exists already"),
        (target / "log", "cannot be written to"),
    ):
        with pytest.raises(TargetError, match=message):
            checkpoints.check_dry(net.config, str(path))
    with pytest.raises(TargetError, match="exists already"):
        checkpoints.dry(net, str(tmp_path))
    assert os.listdir(tmp_path) == [target.name]


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    """A network with the published weights, read from the name-based checkpoint, and a folder with all formats."""
    if not PUBLISHED.exists():
        pytest.skip(f"needs {PUBLISHED}")
    net = KerasDriver(config_lib.load("efficientdet-lite0"), str(PUBLISHED / "tf1" / "efficientdet-lite0")).model.net
    folder = tmp_path_factory.mktemp("lite0")
    for format in NAMES:
        (folder / format).mkdir()
        checkpoints.export(net, str(folder / format / NAMES[format]), format=format)
    return net, folder


@pytest.mark.slow
@pytest.mark.both_lanes
def test_published_objects(lite0):
    """Keys, shapes, values, and the names in the object graph."""
    ours, theirs = str(lite0[1] / "object" / "model"), str(PUBLISHED / "tf2" / "efficientdet-lite0" / "emackpt-1")
    entries = [checkpoint.read_entries(prefix) for prefix in (ours, theirs)]
    for of_one in entries:
        del of_one[OBJECT_GRAPH]
    assert_same_values(*entries)
    assert full_names(object_graph(ours)) == full_names(object_graph(theirs))


@pytest.mark.slow
@pytest.mark.both_lanes
def test_published_hdf5(lite0):
    """Layers and, within each, weights in the published order, by which Keras reads them."""
    with h5py.File(lite0[1] / "hdf5" / "model.h5") as ours, h5py.File(PUBLISHED / "efficientdet-lite0.h5") as theirs:
        assert ours.attrs.keys() == theirs.attrs.keys() and ours.keys() == theirs.keys()
        assert list(ours.attrs["layer_names"]) == list(theirs.attrs["layer_names"])
        for layer in theirs:
            names = list(theirs[layer].attrs["weight_names"])
            assert list(ours[layer].attrs["weight_names"]) == names
            assert_same_values(
                {name: ours[layer][name][()] for name in names}, {n: theirs[layer][n][()] for n in names}
            )


@pytest.mark.slow
@pytest.mark.both_lanes
def test_published_names(lite0):
    """All entries except the step; the plain values equal the averages here."""
    theirs = checkpoint.read_entries(str(PUBLISHED / "tf1" / "efficientdet-lite0" / "model.ckpt-12345"))
    averages = {name.removesuffix(AVERAGE): value for name, value in theirs.items() if name.endswith(AVERAGE)}
    both = averages | {name + AVERAGE: value for name, value in averages.items()}
    ours = checkpoint.read_entries(str(lite0[1] / "name" / "model"))
    assert_same_values(ours, both)
    assert theirs.keys() - ours.keys() == {"global_step"}


@pytest.mark.slow
def test_published_number_of_parameters(lite0):
    assert checkpoints.num_parameters(lite0[0]) == (3243470, 3290606)
