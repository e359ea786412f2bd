# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""checkpoint: every published format gives the same weights; mismatches are reported in one error message."""

import os
import pathlib
import re
import shutil

import h5py
import numpy as np
import pytest
import tensorflow as tf

from efficientdet import config as config_lib
from efficientdet.model import EfficientDetModel, EfficientDetNet
from testdata import reference_weights
from tf2.weights import checkpoint
from tf2.weights.checkpoint import AVERAGE, CheckpointError

ROOT = pathlib.Path(__file__).parents[3]
REFERENCE = ROOT.parent / "shared" / "reference"
BACKBONE = "efficientnet-lite0/"


def write_entries(directory, entries, prefix="model.ckpt-7"):
    """Writes a checkpoint with a state file by the raw op; returns its prefix."""
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, prefix)
    tensors = [tf.convert_to_tensor(value) for value in entries.values()]
    tf.raw_ops.SaveV2(prefix=path, tensor_names=list(entries), shape_and_slices=[""] * len(entries), tensors=tensors)
    write_state(directory, prefix)
    return path


def write_state(directory, name):
    text = f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n'
    pathlib.Path(directory, "checkpoint").write_text(text)


def name_based(values):
    """As in the released checkpoints, with averages; the raw values are wrong, and there is training state."""
    entries = {name: value * 0.9 for name, value in values.items()}
    entries |= {name + AVERAGE: value for name, value in values.items()}
    entries |= {f"{name}/Momentum": value * 0 for name, value in list(values.items())[:5]}
    return {**entries, "global_step": np.int64(7)}


def object_based(values):
    keys = {name: key for key, name in checkpoint.object_keys(values).items()}
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    entries = {keys[name] + suffix: value for name, value in values.items()}
    entries |= {"optimizer/iter" + suffix: np.int64(7), "save_counter" + suffix: np.int64(1)}
    return {"_CHECKPOINTABLE_OBJECT_GRAPH": b"graph", **entries}


def write_hdf5(path, values):
    """As save_weights: a group named after the layer, with the full name of the variable in it."""
    with h5py.File(path, "w") as file:
        file.attrs["backend"] = "tensorflow"
        for name, value in values.items():
            file[f"{name.split('/')[0]}/{name}:0"] = value


@pytest.fixture(scope="module")
def net(tiny_config):
    return EfficientDetNet(tiny_config)


@pytest.fixture(scope="module")
def values(net):
    """A value for each variable of the tiny network, by name."""
    variables = checkpoint.named_variables(net)
    return {name: np.float32(reference_weights.weight(name, variables[name].shape)) for name in variables}


@pytest.fixture(scope="module")
def files(values, tmp_path_factory):
    """The same weights in every format: {format: path}."""
    root = str(tmp_path_factory.mktemp("formats"))
    write_hdf5(f"{root}/weights.h5", values)
    return {
        "name-based": write_entries(f"{root}/names", name_based(values)),
        "object-based": write_entries(f"{root}/objects", object_based(values), "emackpt-1"),
        "HDF5": f"{root}/weights.h5",
    }


def cleared(net):
    for variable in net.weights:
        variable.assign(tf.zeros_like(variable))
    return net


def assert_holds(net, values, where=lambda name: True):
    """Asserts that variables have these values, or zeros if `where(name)` is False."""
    for name, variable in checkpoint.named_variables(net).items():
        np.testing.assert_array_equal(variable, values[name] if where(name) else 0 * values[name], err_msg=name)


def is_one_line(error):
    return "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("kind", ["name-based", "object-based", "HDF5"])
def test_every_format_gives_the_same_weights(net, values, files, kind):
    read = checkpoint.restore(cleared(net), files[kind])
    assert_holds(net, values)
    assert read.format == kind and read.averaged == (kind != "HDF5") and read.values.keys() == values.keys()


@pytest.mark.parametrize("kind", ["name-based", "object-based", "HDF5"])
def test_the_format_is_recognized_by_content_not_by_name(net, values, files, kind, tmp_path):
    source, target = pathlib.Path(files[kind]), tmp_path / "model.h5.ckpt"
    for file in source.parent.glob(f"{source.name}*"):
        shutil.copy(file, f"{target}{file.name.removeprefix(source.name)}")
    assert checkpoint.restore(cleared(net), str(target)).format == kind
    assert_holds(net, values)


def test_raw_values_are_used_without_averages(net, values, tmp_path, caplog):
    """No averages at all, then none of the statistics; the summary names the kind of values."""
    read = checkpoint.read(write_entries(tmp_path / "raw", values), values)
    assert not read.averaged and "plain values, not moving averages" in checkpoint.summary(read, _report(), 3)
    entries = {k: v for k, v in name_based(values).items() if not ("/moving_" in k and k.endswith(AVERAGE))}
    read = checkpoint.restore(cleared(net), write_entries(tmp_path / "mixed", entries))
    assert read.averaged and "(name-based, moving averages)" in checkpoint.summary(read, _report(), 3)
    assert_holds(net, {name: v * np.float32(0.9) if "/moving_" in name else v for name, v in values.items()})


@pytest.mark.parametrize(
    "path",
    [
        *("names", "names/", "names/checkpoint", "names/model.ckpt-7", "names/model.ckpt-7.index"),
        "names/model.ckpt-7.data-00000-of-00001",
    ],
)
def test_find(files, path):
    root = pathlib.Path(files["name-based"]).parents[1]
    assert checkpoint.find(f"{root}/{path}") == files["name-based"]


def test_find_in_the_working_directory(files, monkeypatch):
    monkeypatch.chdir(pathlib.Path(files["name-based"]).parent)
    assert [checkpoint.find(path) for path in (".", "checkpoint", "model.ckpt-7")] == [
        *["./model.ckpt-7", "./model.ckpt-7", "model.ckpt-7"]
    ]


def test_a_state_file_with_paths_of_another_machine(tmp_path):
    prefix = write_entries(tmp_path / "moved", {"x": np.float32(1)})
    write_state(tmp_path / "moved", "/home/someone/else/model.ckpt-7")
    assert checkpoint.find(str(tmp_path / "moved")) == checkpoint.latest(str(tmp_path / "moved")) == prefix


def state_text(*steps):
    lines = [f'all_model_checkpoint_paths: "model.ckpt-{step}"' for step in steps]
    return "\n".join([f'model_checkpoint_path: "model.ckpt-{steps[-1]}"', *lines])


@pytest.mark.parametrize(
    "state, saved, order, message",
    [
        (state_text(9, 10), [9, 10], [10, 9, 11], ""),  # its entries come first
        ('model_checkpoint_path: "model.ckpt-10"', [10], [10, 11, 9], ""),
        (state_text(9, 10, 12), [9, 10, 12], [10, 9, 11], "ckpt-12, the newest in .* using .*/model.ckpt-10 instead"),
        ("model_ch", [], [11, 10, 9], "no readable state file; using its newest checkpoint, .*/model.ckpt-11"),
        (None, [], [11, 10, 9], "no readable state file; using its newest checkpoint, .*/model.ckpt-11"),
    ],
)
def test_the_checkpoints_of_a_directory(state, saved, order, message, tmp_path, caplog):
    for step in (9, 10, 11):
        write_entries(tmp_path, {"x": np.float32(step)}, f"model.ckpt-{step}")
    (tmp_path / "checkpoint").unlink()
    if state is not None:
        (tmp_path / "checkpoint").write_text(state)
    prefixes = [str(tmp_path / f"model.ckpt-{step}") for step in order]
    assert checkpoint.prefixes(str(tmp_path)) == prefixes and checkpoint.latest(str(tmp_path)) == prefixes[0]
    assert checkpoint.saved(str(tmp_path)) == [f"model.ckpt-{step}" for step in saved]
    assert re.search(message, caplog.text) if message else "ckpt" not in caplog.text


def test_no_directory_no_checkpoints(tmp_path):
    assert checkpoint.prefixes(f"{tmp_path}/none") == [] and checkpoint.latest(f"{tmp_path}/none") is None


@pytest.mark.parametrize("path", ["", "/model.ckpt-7", "/checkpoint"])
def test_find_in_an_object_store(values, path, tmp_path):
    """Folders exist only as prefixes of file names."""
    directory = f"ram://{tmp_path.name}"
    names, tensors = list(values), [tf.constant(value) for value in values.values()]
    tf.raw_ops.SaveV2(
        prefix=f"{directory}/model.ckpt-7", tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors
    )
    with tf.io.gfile.GFile(f"{directory}/checkpoint", "w") as file:
        file.write('model_checkpoint_path: "model.ckpt-7"')
    assert checkpoint.find(f"{directory}{path}") == f"{directory}/model.ckpt-7"
    read = checkpoint.read(f"{directory}{path}", values)
    assert read.values.keys() == values.keys()
    for name, value in read.values.items():
        np.testing.assert_array_equal(value, values[name], err_msg=name)


def _truncate(path, parts=0.5):
    data = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(data[: int(len(data) * parts)])


BROKEN = {
    "missing": (lambda d: f"{d}/nothing", "no checkpoint at .*/nothing; give a directory, a prefix"),
    "empty folder": (lambda d: str(d), "no checkpoint in .*holds nothing"),
    "folder of others": (lambda d: [(d / "a.jpg").write_text(""), str(d)][-1], r"no checkpoint in .*holds a\.jpg"),
    "text": (
        lambda d: [(d / "a.h5").write_text("hello"), f"{d}/a.h5"][-1],
        "neither a TensorFlow checkpoint .* nor an",
    ),
    "nothing in it": (lambda d: [(d / "a.h5").write_text(""), f"{d}/a.h5"][-1], "nor an HDF5 file"),
    "text as index": (lambda d: [(d / "a.index").write_text("hello"), f"{d}/a"][-1], "cannot read .*/a: "),
    "state of nothing": (lambda d: [write_state(d, "gone-1"), str(d)][-1], "names .*gone-1, which has no .index file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_no_checkpoint_is_found(net, case, tmp_path):
    make, message = BROKEN[case]
    with pytest.raises(CheckpointError, match=message) as error:
        checkpoint.restore(net, make(tmp_path))
    assert is_one_line(error)


@pytest.mark.parametrize("kind", ["name-based", "object-based"])
@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
@pytest.mark.parametrize("parts", [None, 0.0, 0.5, 0.999])
def test_damaged_files(net, files, kind, suffix, parts, tmp_path):
    source = pathlib.Path(files[kind])
    for file in source.parent.glob(f"{source.name}*"):
        shutil.copy(file, tmp_path)
    damaged = tmp_path / f"{source.name}{suffix}"
    if parts is None:
        damaged.unlink()
    else:
        _truncate(damaged, parts)
    with pytest.raises(CheckpointError, match=r"cannot read|no checkpoint at") as error:
        checkpoint.restore(net, str(tmp_path / source.name))
    assert is_one_line(error) and str(tmp_path / source.name) in str(error.value)


@pytest.mark.parametrize("parts", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_damaged_hdf5(net, files, parts, tmp_path):
    path = shutil.copy(files["HDF5"], tmp_path / "weights.h5")
    _truncate(path, parts)
    with pytest.raises(CheckpointError, match=f"cannot read {path}") as error:
        checkpoint.restore(net, str(path))
    assert is_one_line(error)


@pytest.fixture(scope="module")
def d0():
    """Zeros with the shapes of efficientdet-d0."""
    return _zeros(np.load(ROOT / "testdata" / "efficientdet-d0.npz"))


@pytest.mark.parametrize("partial", [True, False])
def test_almost_nothing_fits(net, d0, partial, tmp_path):
    message = "fits efficientdet-lite0 in .* looks like efficientdet-d0 with num_classes 90: choose --model_name"
    with pytest.raises(CheckpointError, match=message) as error:
        checkpoint.restore(net, write_entries(tmp_path, name_based(d0)), partial=partial)
    assert is_one_line(error)


def test_mismatches_are_named(net, d0, tmp_path):
    with pytest.raises(CheckpointError, match=r"lacks .* looks like efficientdet-d0 with num_classes 90") as error:
        checkpoint.restore(net, write_entries(tmp_path, object_based(d0)))
    assert is_one_line(error)


@pytest.mark.parametrize(
    "key, value, surplus", [("fpn_weight_method", "sum", "fnode0/WSM"), ("box_class_repeats", 0, "box-0-bn-3")]
)
def test_a_network_with_less_than_the_checkpoint(tiny_config, values, key, value, surplus, tmp_path):
    """Each variable is in the checkpoint, with its shape; the surplus shows that it is another network."""
    smaller = EfficientDetNet(tiny_config.override({key: value}))
    prefix = write_entries(tmp_path, values)
    with pytest.raises(CheckpointError, match=r"does not have .* it looks like .* with num_classes 3") as error:
        checkpoint.restore(smaller, prefix)
    assert is_one_line(error) and surplus in str(error.value)
    checkpoint.restore(smaller, prefix, partial=True)


@pytest.mark.slow
def test_lite0_does_not_load_d0(lite0, d0, tmp_path):
    """Object keys do not name the backbone, and d0 has all variables of lite0 and more."""
    with pytest.raises(CheckpointError, match=r"does not have .* looks like efficientdet-d0 with num_classes 90"):
        checkpoint.restore(lite0[0].net, write_entries(tmp_path, object_based(d0)))


def _zeros(figures):
    """Weights with the shapes of a published model, without the memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in reference_weights.shapes(figures).items()}


@pytest.fixture
def five_classes(values, tmp_path):
    """The weights of the tiny network, but with five classes."""
    changed = dict(values)
    for name in ("class_net/class-predict/pointwise_kernel", "class_net/class-predict/bias"):
        changed[name] = np.ones((*values[name].shape[:-1], 9 * 5), np.float32)
    return write_entries(tmp_path / "five", changed)


def test_other_num_classes_is_an_error(net, five_classes):
    with pytest.raises(CheckpointError, match=r"lacks 2 of the \d+ variables of efficientdet-lite0 with") as error:
        checkpoint.restore(cleared(net), five_classes)
    assert is_one_line(error) and "with num_classes 5" in str(error.value)
    assert "class_net/class-predict/bias: [45] in the checkpoint, [27] in the network" in str(error.value)


def test_other_num_classes_loads_the_rest_for_training(net, values, five_classes, caplog):
    caplog.set_level("INFO", logger="absl")
    checkpoint.restore(cleared(net), five_classes, partial=True)
    skipped = {"class_net/class-predict/pointwise_kernel", "class_net/class-predict/bias"}
    assert_holds(net, values, where=lambda name: name not in skipped)
    assert f"{len(values) - 2} of {len(values)} variables loaded" in caplog.text
    assert all(name in caplog.text for name in skipped)


def test_a_missing_variable(net, values, tmp_path):
    missing = "box_net/box-0-bn-3/moving_mean"
    prefix = write_entries(tmp_path, {name: value for name, value in values.items() if name != missing})
    with pytest.raises(CheckpointError, match=f"lacks 1 of .*{missing}"):
        checkpoint.restore(net, prefix)
    checkpoint.restore(cleared(net), prefix, partial=True)
    assert_holds(net, values, where=lambda name: name != missing)


@pytest.mark.parametrize("kind", ["name-based", "object-based", "HDF5"])
def test_backbone_of_a_detector(net, values, files, kind):
    checkpoint.restore(cleared(net), files[kind], scope=BACKBONE)
    assert_holds(net, values, where=lambda name: name.startswith(BACKBONE))


@pytest.mark.parametrize("source_scope", ["efficientnet-lite0/", "model/", "my/backbone/", ""])
def test_backbone_of_a_classifier(net, values, source_scope, tmp_path):
    """The head of the classifier is ignored; `source_scope` replaces the name of the backbone in its variables."""
    backbone = {name.removeprefix(BACKBONE): v for name, v in values.items() if name.startswith(BACKBONE)}
    entries = {source_scope + name: value for name, value in backbone.items()}
    entries |= {f"{source_scope}head/dense/kernel": np.zeros([4, 10], np.float32)}
    prefix = write_entries(tmp_path, name_based(entries))
    checkpoint.restore(cleared(net), prefix, scope=BACKBONE, source_scope=source_scope)
    assert_holds(net, values, where=lambda name: name.startswith(BACKBONE))


def test_a_backbone_is_no_detector(net, values, tmp_path):
    prefix = write_entries(tmp_path, {name: v for name, v in values.items() if name.startswith(BACKBONE)})
    with pytest.raises(CheckpointError, match="looks like a backbone, efficientnet-lite0"):
        checkpoint.restore(net, prefix)


def test_assign_reports(values):
    variables = {name: tf.Variable(tf.zeros(shape)) for name, shape in (("a", [2]), ("b", [3]), ("c", []))}
    read = checkpoint.Checkpoint("x", "name-based", True, {"a": np.ones(2), "b": np.ones(4), "d": np.ones(1)})
    report = checkpoint.assign(variables, read)
    assert report == checkpoint.LoadReport(["a"], ["b: [4] in the checkpoint, [3] in the network"], ["c"], ["d"])
    np.testing.assert_array_equal(variables["a"], [1, 1])
    assert checkpoint.summary(read, report, 3).splitlines() == [
        "x (name-based, moving averages): 1 of 3 variables loaded",
        "  skipped, other shape: 1 (b: [4] in the checkpoint, [3] in the network)",
        "  missing in the checkpoint: 1 (c)",
        "  unused: 1 (d)",
    ]


def test_a_name_without_a_step():
    with pytest.raises(CheckpointError, match="its name has no step; start from it with --ckpt"):
        checkpoint.step_of("efficientdet-d0/model")


@pytest.mark.slow
@pytest.mark.both_lanes
@pytest.mark.parametrize("path", ["tf1/efficientdet-lite0", "tf2/efficientdet-lite0", "efficientdet-lite0.h5"])
def test_published_formats_give_the_published_outputs(lite0, path):
    """The raw values of the first are 0.9 times the correct ones: the averages must be used."""
    model, figures = lite0
    path = REFERENCE / "checkpoints" / path
    if not path.exists():
        pytest.skip(f"needs {path}")
    checkpoint.restore(cleared(model.net), str(path))
    inputs, _ = model.preprocess(reference_weights.image()[np.newaxis])
    for kind, outputs in zip(("cls", "box"), model.net(inputs)):
        for level, output in enumerate(outputs, 3):
            expected = figures[f"{kind}_{level}_sample"]
            error = np.abs(reference_weights.sample(output.numpy()) - expected) / np.maximum(1, np.abs(expected))
            assert error.max() <= 1e-4, f"{kind} outputs of level {level} differ by {error.max()}"


@pytest.fixture(scope="module")
def lite0():
    model = EfficientDetModel(config_lib.load("efficientdet-lite0", image_size=256))
    return model, np.load(ROOT / "testdata" / "efficientdet-lite0.npz")


def _report():
    return checkpoint.LoadReport([], [], [], [])
