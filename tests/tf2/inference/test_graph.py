# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""graph: the frozen graph computes the same outputs as the function, under the published names."""

import collections
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from dataset.files import TargetError
from efficientdet import config as config_lib
from efficientdet.model import EfficientDetModel, EfficientDetNet
from testdata import reference_weights
from tf2.inference import graph, signatures
from tf2.inference.metadata import METADATA_KEY, Metadata
from tf2.weights import checkpoint

ROOT = pathlib.Path(__file__).parents[3]
# The tiny network, with two convolutions per head.
SMALL = {"image_size": 64, "fpn_num_filters": 8, "fpn_cell_repeats": 1, "box_class_repeats": 2, "num_classes": 3}
HEADS = {"class": "cls", "box": "box"}  # in names of outputs, in names of published figures


def randomized(config):
    """A network in which all normalizations, biases and fusion weights affect the outputs."""
    keras.utils.set_random_seed(0)
    net = EfficientDetNet(config)
    rng = np.random.RandomState(0)
    for name, variable in checkpoint.named_variables(net).items():
        kind = name.rsplit("/", 1)[-1]
        if kind in ("gamma", "moving_variance") or kind.startswith("WSM"):
            variable.assign(rng.uniform(0.5, 2, variable.shape))
        elif kind in ("beta", "moving_mean", "bias"):
            variable.assign(rng.uniform(-0.5, 0.5, variable.shape))
    return net


@pytest.fixture(scope="module")
def net(tiny_config):
    return randomized(tiny_config)


def normal(*shape):
    return np.random.RandomState(1).randn(*shape).astype(np.float32)


def difference(outputs, expected):
    """Returns the largest difference of float outputs, relative to max(1, |value|)."""
    assert outputs.keys() == expected.keys()
    return max(np.max(np.abs(outputs[k] - expected[k]) / np.maximum(1, np.abs(expected[k]))) for k in expected)


def operations(frozen):
    return collections.Counter(node.op for node in frozen.graph_def.node)


def traced(function, *shapes):
    """Traces a function of float tensors of these shapes, named x0, x1, ..."""
    signature = [tf.TensorSpec(shape, tf.float32, name=f"x{i}") for i, shape in enumerate(shapes)]
    return tf.function(function, input_signature=signature, autograph=False).get_concrete_function()


@pytest.mark.parametrize(
    "name, options",
    [
        ("efficientdet-lite0", {"fpn_weight_method": "fastattn"}),
        pytest.param("efficientdet-d0", {}, marks=pytest.mark.slow),
        pytest.param(
            "efficientdet-d0",
            {"separable_conv": False, "conv_bn_act_pattern": True, "fpn_weight_method": "channel_attn"},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["lite0", "d0", "variants"],
)
def test_a_network_freezes_to_convolutions(name, options):
    config = config_lib.load(name, **SMALL, **options)
    net = randomized(config)
    function = signatures.network(net, config, 2)
    frozen = graph.freeze(function)
    images = tf.constant(normal(2, 64, 64, 3))
    assert difference(graph.to_function(frozen)(images), function(images)) < 1e-4  # at most 6e-5 was measured
    expected = {"Const", "Placeholder", "Conv2D", "DepthwiseConv2dNative", "BiasAdd", "AddV2", "AddN", "MaxPool"}
    expected |= {"ResizeNearestNeighbor", "Mul"}  # Mul: by the fusion weights, which are constants
    expected |= {"Relu6"} if "lite" in name else {"Sigmoid", "AvgPool", "Mean"}
    assert set(operations(frozen)) == expected
    used = {source for node in frozen.graph_def.node for source in node.input}
    assert {
        node.name for node in frozen.graph_def.node if node.op == "Const"
    } <= used  # the original kernels are removed


@pytest.mark.parametrize("max_level, levels", [(7, 5), pytest.param(8, 6, marks=pytest.mark.slow)])
def test_published_names(tiny_config, max_level, levels):
    config = tiny_config.override({"max_level": max_level, "image_size": 128})
    net = EfficientDetNet(config)
    frozen = graph.freeze(signatures.network(net, config, 1, name="input"))
    assert frozen.inputs == [tf.TensorSpec([1, 128, 128, 3], tf.float32, name="input")]
    nodes = {node.name: node for node in frozen.graph_def.node}
    assert nodes["input"].op == "Placeholder"
    assert len(frozen.outputs) == 2 * levels
    for head in ("class", "box"):
        for level in range(levels):
            name = f"{head}_net/{head}-predict{'' if level == 0 else f'_{level}'}/BiasAdd"
            assert frozen.outputs[f"{head}_predict_{level}"] == f"{name}:0"
            assert nodes[name].op == "BiasAdd"


def test_a_detector_with_a_loop_freezes(tiny_config, net):
    """A detector of any batch size: NMS runs in a map, the network outside of it."""
    model = EfficientDetModel(tiny_config, net)
    function = signatures.detector(model, batch_size=0)
    frozen = graph.freeze(function)
    names = {node.name for node in frozen.graph_def.node}
    assert {"image_arrays", "detections", "num_detections"} <= names
    assert operations(frozen)["FusedBatchNormV3"] == 0 and operations(frozen)["StatefulPartitionedCall"] == 0
    images = tf.constant(np.random.RandomState(0).randint(0, 256, (3, 40, 70, 3), np.uint8))
    outputs, expected = graph.to_function(frozen)(images), function(images)
    assert difference({k: v.numpy() for k, v in outputs.items()}, {k: v.numpy() for k, v in expected.items()}) < 5e-4


@pytest.mark.slow
def test_a_frozen_network_freezes_again_within_a_function(tiny_config, net):
    """As in exports: all signatures share one frozen network."""
    model = EfficientDetModel(tiny_config, net)
    function = signatures.network(signatures.frozen(model).net, tiny_config, 1, name="input")
    frozen = graph.freeze(function)
    once = graph.freeze(signatures.network(model.net, tiny_config, 1, name="input"))
    assert operations(frozen) == operations(once)
    assert frozen.outputs == once.outputs
    images = tf.constant(normal(1, 64, 64, 3))
    assert difference(graph.to_function(frozen)(images), graph.to_function(once)(images)) < 1e-6


def test_batch_norm_by_hand():
    """conv(x, 2) + 1 = 2 x + 1; normalized: 3 * (2 x + 1 - 5) / sqrt(3.999 + 0.001) + 7 = 3 x + 1."""

    def function(x):
        x = tf.nn.bias_add(tf.nn.conv2d(x, tf.fill([1, 1, 1, 1], 2.0), 1, "SAME"), [1.0])
        options = {"mean": [5.0], "variance": [3.999], "epsilon": 0.001, "is_training": False}
        return {"y": tf.compat.v1.nn.fused_batch_norm(x, [3.0], [7.0], **options)[0]}

    frozen = graph.freeze(traced(function, [1, 1, 2, 1]))
    assert operations(frozen) == {"Placeholder": 1, "Const": 2, "Conv2D": 1, "BiasAdd": 1}
    constants = [tf.make_ndarray(n.attr["value"].tensor) for n in frozen.graph_def.node if n.op == "Const"]
    np.testing.assert_allclose(sorted(float(value.squeeze()) for value in constants), [1, 3], rtol=1e-6)
    y = graph.to_function(frozen)(tf.reshape([10.0, -1.0], [1, 1, 2, 1]))["y"]
    np.testing.assert_allclose(np.ravel(y), [31, -2], rtol=1e-6)


def test_a_depthwise_kernel_with_two_outputs_per_channel():
    kernel = normal(3, 3, 2, 2)
    statistics = {"mean": normal(4), "variance": np.abs(normal(4)) + 0.1, "epsilon": 1e-3, "is_training": False}

    def function(x):
        x = tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME")
        return {"y": tf.compat.v1.nn.fused_batch_norm(x, normal(4) + 2, normal(4), **statistics)[0]}

    function = traced(function, [1, 5, 5, 2])
    frozen = graph.freeze(function)
    assert operations(frozen)["FusedBatchNormV3"] == 0
    x = tf.constant(normal(1, 5, 5, 2))
    assert difference(graph.to_function(frozen)(x), function(x)) < 1e-5


@pytest.mark.parametrize("is_training, shared", [(True, False), (False, True)], ids=["training", "shared"])
def test_normalizations_that_cannot_be_folded_are_kept(is_training, shared):
    """Normalization by batch statistics, and of a convolution that has another consumer."""

    def function(x):
        x = tf.nn.conv2d(x, normal(1, 1, 2, 2), 1, "SAME")
        statistics = {} if is_training else {"mean": [1.0, 2.0], "variance": [3.0, 4.0]}
        y = tf.compat.v1.nn.fused_batch_norm(x, [2.0, 3.0], [4.0, 5.0], is_training=is_training, **statistics)[0]
        return {"y": y, "z": x * 2 if shared else y * 2}

    function = traced(function, [1, 4, 4, 2])
    frozen = graph.freeze(function)
    assert operations(frozen)["FusedBatchNormV3"] == 1
    x = tf.constant(normal(1, 4, 4, 2))
    assert difference(graph.to_function(frozen)(x), function(x)) < 1e-6


def test_assertions_and_random_numbers_are_kept():
    """Assertions still fail, random numbers are drawn per call, and constants are evaluated once."""

    def function(x):
        with tf.control_dependencies([tf.debugging.assert_positive(x, message="not positive")]):
            noisy = tf.identity(x) + tf.random.uniform([1])
        return {"y": noisy, "z": tf.exp(tf.constant([1.0]) + 1) * x}

    frozen = graph.freeze(traced(function, [1]))
    assert operations(frozen)["Exp"] == 0 and operations(frozen)["RandomUniform"] == 1
    call = graph.to_function(frozen)
    first, second = call(tf.constant([1.0])), call(tf.constant([1.0]))
    assert 1 <= first["y"] < 2 and first["y"] != second["y"]
    np.testing.assert_allclose(first["z"], [np.exp(2)], rtol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not positive"):
        call(tf.constant([-1.0]))


def test_outputs_that_share_a_node_or_are_inputs():
    def function(x, y):
        total = x + y
        first, second = tf.split(total, 2)
        return {"same": total, "again": tf.identity(total), "first": first, "second": second, "input": x}

    frozen = graph.freeze(traced(function, [2], [2]))
    assert frozen.outputs["input"] == "x0:0"
    assert frozen.outputs["again"] == frozen.outputs["same"]
    assert (frozen.outputs["first"], frozen.outputs["second"]) == ("first:0", "first:1")
    assert operations(frozen)["Identity"] == 0
    outputs = graph.to_function(frozen)(tf.constant([1.0, 2.0]), tf.constant([3.0, 4.0]))
    values = {name: np.array(value).tolist() for name, value in outputs.items()}
    assert values == {"same": [4, 6], "again": [4, 6], "first": [4], "second": [6], "input": [1, 2]}


def test_an_output_name_in_use():
    def function(x):
        return {"y": tf.exp(tf.exp(x, name="y"))}

    with pytest.raises(
        ValueError, match="names of outputs are used by other nodes of the graph: y; rename these nodes"
    ):
        graph.freeze(traced(function, [2]))


def test_a_signature_of_a_saved_model(tiny_config, net, tmp_path):
    function = signatures.network(net, tiny_config, 0)
    frozen = graph.to_function(graph.freeze(function))
    tf.saved_model.save(tf.Module(), str(tmp_path), signatures={"network": frozen})
    loaded = tf.saved_model.load(str(tmp_path))
    images = tf.constant(normal(3, 64, 64, 3))
    assert difference(loaded.signatures["network"](images=images), function(images)) < 3e-5


def test_a_pb_file(tiny_config, tmp_path):
    frozen = graph.freeze(traced(lambda x: {"y": 2 * x}, [2]))
    metadata = Metadata(tiny_config, "network", "FP32", "a checkpoint")
    path = tmp_path / "double.pb"
    graph.write(frozen, str(path), metadata)
    written = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    assert [node.name for node in written.node[:-1]] == [node.name for node in frozen.graph_def.node]
    [text] = written.node[-1].attr["value"].tensor.string_val
    assert written.node[-1].name == METADATA_KEY and Metadata.from_json(text, "double.pb").checkpoint == "a checkpoint"
    with pytest.raises(TargetError, match="exists already"):
        graph.write(frozen, str(path), metadata)


@pytest.mark.slow
@pytest.mark.both_lanes
@pytest.mark.parametrize(
    "name, bound",
    # With these weights, lite0 amplifies rounding errors: the network differs by 4e-4 with and without oneDNN.
    [("efficientdet-d0", 1e-4), ("efficientdet-lite0", 1e-3)],
    ids=["d0", "lite0"],
)
def test_a_full_network_gives_the_published_figures(name, bound):
    figures = np.load(ROOT / "testdata" / f"{name}.npz")
    config = config_lib.load(name, image_size=int(figures["image_size"]))
    model = EfficientDetModel(config)
    variables = checkpoint.named_variables(model.net)
    for key, value in reference_weights.weights(figures).items():
        variables[key].assign(value)
    frozen = graph.freeze(signatures.network(model.net, config, 1))
    assert operations(frozen)["FusedBatchNormV3"] == operations(frozen)["Identity"] == 0
    images, _ = model.preprocess(reference_weights.image()[np.newaxis])
    outputs = graph.to_function(frozen)(images)
    samples = {f"{head}_predict_{i}": f"{key}_{i + 3}_sample" for head, key in HEADS.items() for i in range(5)}
    values = {output: reference_weights.sample(outputs[output].numpy()) for output in samples}
    assert difference(values, {output: figures[key] for output, key in samples.items()}) < bound
