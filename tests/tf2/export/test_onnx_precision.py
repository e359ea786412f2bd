# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""onnx_precision: the network of a graph in float16 or in 8 bits, between float32 pre- and post-processing."""

import collections
import logging

import numpy as np
import pytest

for package in ("onnx", "onnxruntime"):
    pytest.importorskip(package, reason="needs python -m pip install -r requirements-onnx.txt")
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tf2.export import onnx_precision
from tf2.inference.metadata import ExportError

OFFSET = np.float32(4097.5)  # of the output; float16 would round it to 4096


@pytest.fixture
def proto():
    """Images -> normalization -> a network of convolutions, swish and squeeze-excite -> large float32 values."""
    rng = np.random.RandomState(0)
    weights = {
        "scale": np.float32(1 / 255),
        "k0": rng.randn(8, 3, 3, 3) / 4,
        "k1": rng.randn(8, 8, 1, 1) / 3,
        "k2": rng.randn(4, 8, 1, 1) / 3,
        "factors": np.float32([1, 1, 2, 2]),
        "offset": OFFSET,
    }
    nodes = [
        ("Cast", ["images"], "pixels", {"to": TensorProto.FLOAT}),
        ("Mul", ["pixels", "scale"], "normalized", {}),
        ("Conv", ["normalized", "k0"], "x0", {"pads": [1, 1, 1, 1]}),
        ("Sigmoid", ["x0"], "gate0", {}),
        ("Mul", ["x0", "gate0"], "x1", {}),
        ("AveragePool", ["x1"], "rows", {"kernel_shape": [1, 16], "strides": [1, 16]}),
        ("GlobalAveragePool", ["rows"], "mean", {}),
        ("Conv", ["mean", "k1"], "gate1", {}),
        ("Mul", ["x1", "gate1"], "x2", {}),
        ("Resize", ["x2", "", "factors"], "x3", {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}),
        ("Conv", ["x3", "k2"], "x4", {}),
        ("Add", ["x4", "offset"], "output", {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [output], output, **kwargs) for op, inputs, output, kwargs in nodes],
        "model",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 4, 32, 32])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def images(count):
    return np.random.RandomState(count).randint(0, 256, (count, 1, 3, 16, 16)).astype(np.uint8)


def run(model, inputs):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": inputs})[0]


def test_network_nodes(proto):
    names = [node.name for node in onnx_precision.network_nodes(proto.graph)]
    assert names == ["x0", "gate0", "x1", "rows", "mean", "gate1", "x2", "x3", "x4"]


def test_halve(proto):
    [inputs] = images(1)
    expected = run(proto, inputs)
    onnx_precision.halve(proto)
    onnx.checker.check_model(proto, full_check=True)
    output = run(proto, inputs)
    assert output.dtype == np.float32
    assert 0 < np.max(np.abs(output - expected)) < 0.01 < np.std(expected)
    casts = [(*node.input, *node.output) for node in proto.graph.node if node.op_type == "Cast"]
    assert casts == [
        ("images", "pixels"), ("normalized", "normalized/float16"), ("x4/float16", "x4"),
    ]  # fmt: skip
    types = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    kernels = {f"k{i}/float16": TensorProto.FLOAT16 for i in range(3)}
    assert types == {"scale": TensorProto.FLOAT, "factors": TensorProto.FLOAT, "offset": TensorProto.FLOAT} | kernels


def test_halved_weights_are_finite(proto):
    kernel = proto.graph.initializer[3]
    kernel.CopyFrom(numpy_helper.from_array(np.full([4, 8, 1, 1], -1e6, np.float32), "k2"))
    onnx_precision.halve(proto)
    [half] = [numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == "k2/float16"]
    assert np.all(half == -65504)


def test_quantize(proto, tmp_path, caplog):
    [inputs] = images(1)
    expected, batches = run(proto, inputs), iter(images(5))
    with caplog.at_level(logging.WARNING):
        assert onnx_precision.quantize(proto, batches, str(tmp_path / "q.onnx")) == 5
    assert not caplog.records and next(batches, None) is None
    quantized = onnx.load(tmp_path / "q.onnx")
    assert [(opset.domain, opset.version) for opset in quantized.opset_import] == [("", 17)]
    output = run(quantized, inputs)
    assert output.dtype == np.float32
    assert 1e-3 < np.max(np.abs(output - expected)) < 0.1 < np.std(expected)
    operators = collections.Counter(node.op_type for node in quantized.graph.node)
    assert operators["Conv"] == 3 and operators["QuantizeLinear"] > 5 and "AveragePool" not in operators
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    assert weights["k0_quantized"].dtype == np.int8 and weights["k0_scale"].shape == (8,)  # a scale per channel
    consumers = {name: node for node in quantized.graph.node for name in node.input}
    assert consumers["pixels"].name == "normalized" and consumers["offset"].name == "output"  # in float32


def test_quantize_without_images(proto, tmp_path):
    with pytest.raises(ExportError, match="the records have none; check --file_pattern"):
        onnx_precision.quantize(proto, [], str(tmp_path / "q.onnx"))
    assert list(tmp_path.iterdir()) == []
