# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reduced precision of ONNX graphs: the network in float16 or 8 bits; pre- and post-processing stay in float32.

Needs the packages of requirements-onnx.txt, which are imported where they are used.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tf2.export.quiet import quiet
from tf2.inference.metadata import ExportError

FLOAT_INPUTS = {"Resize": (0,)}  # positions of the inputs that have the type of the output; default: all
QUANTIZED = {"onnx.quant.pre_process": "onnxruntime.quant"}  # metadata by which ONNX Runtime knows a prepared graph


def network_nodes(graph) -> list:
    """Returns the nodes of the network: the convolutions, and all nodes on a path between two of them.

    Args:
        graph: onnx.GraphProto, in topological order.
    """
    producers = {output: i for i, node in enumerate(graph.node) for output in node.output}
    sources = [{producers[name] for name in node.input if name in producers} for node in graph.node]
    after = {i for i, node in enumerate(graph.node) if node.op_type == "Conv"}
    before = set(after)
    for i in range(len(graph.node)):
        if after & sources[i]:
            after.add(i)
    for i in reversed(range(len(graph.node))):
        if i in before:
            before |= sources[i]
    return [graph.node[i] for i in sorted(after & before)]


def halve(proto) -> None:
    """Converts the network in an onnx.ModelProto to float16, in place; inputs and outputs stay float32.

    onnxruntime.transformers.float16 is not used: it also rounds between the nodes that it leaves in float32, such as
    those that compute boxes in pixels.
    """
    import onnx
    from onnx import TensorProto, helper

    graph, nodes = proto.graph, network_nodes(proto.graph)
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    floats = weights.keys() | {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    computed = {name for node in nodes for name in node.output}
    halves = {}
    for node in nodes:
        for names, places in ((node.input, FLOAT_INPUTS.get(node.op_type)), (node.output, None)):
            for i, name in enumerate(names):
                if name in floats and (places is None or i in places):
                    names[i] = halves.setdefault(name, f"{name}/float16")
    used = _used_names(graph)
    casts = {}  # source: node
    for name, half in halves.items():
        if name in weights:
            graph.initializer.append(_half(weights[name], half))
        elif name not in computed:
            casts[name] = helper.make_node("Cast", [name], [half], half, to=TensorProto.FLOAT16)
        elif name in used:
            casts[half] = helper.make_node("Cast", [half], [name], f"{name}/float32", to=TensorProto.FLOAT)
    _insert(graph, casts)
    for name in halves.keys() & weights.keys() - used:
        graph.initializer.remove(weights[name])
    del graph.value_info[:]  # types from before


def _used_names(graph) -> set[str]:
    """Returns the tensors that nodes, also those of subgraphs, take, and the outputs."""
    subgraphs = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    names = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    return names.union(*map(_used_names, subgraphs))


def _half(tensor, name: str):
    """Returns a float32 TensorProto in float16, without infinite values."""
    from onnx import numpy_helper

    limit = np.finfo(np.float16).max
    return numpy_helper.from_array(np.clip(numpy_helper.to_array(tensor), -limit, limit).astype(np.float16), name)


def _insert(graph, additions: dict[str, Any]) -> None:
    """Inserts nodes, given by the tensors that they take, where these are known."""
    nodes = [additions[value.name] for value in graph.input if value.name in additions]
    for node in graph.node:
        nodes += [node, *(additions[name] for name in node.output if name in additions)]
    del graph.node[:]
    graph.node.extend(nodes)


def quantize(proto, batches: Iterable[np.ndarray], path: str) -> int:
    """Quantizes the network in a graph to 8 bits, and writes it; inputs and outputs stay float32.

    The graph has QuantizeLinear and DequantizeLinear around the operators (QDQ): weights in int8 with one scale per
    channel, activations in uint8 with one scale per tensor, whose ranges are those in the calibration images.

    Args:
        proto: onnx.ModelProto, changed in place.
        batches: inputs of the graph for calibration.
        path: of the file to write.

    Returns:
        The number of batches.

    Raises:
        ExportError: if there are none.

    Reference: Jacob et al., CVPR 2018, section 2 (https://arxiv.org/abs/1712.05877).
    """
    import onnx
    from onnxruntime import quantization

    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        raise ExportError("INT8 needs calibration images, but the records have none; check --file_pattern")
    reader = _CalibrationReader(proto.graph.input[0].name, itertools.chain([first], batches))
    _merge_means(proto.graph)
    onnx.helper.set_model_props(proto, QUANTIZED)
    nodes = network_nodes(proto.graph)
    with quiet(None, logging.ERROR):  # onnxruntime.quantization warns through the root logger
        quantization.quantize_static(
            proto,
            path,
            reader,
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_quantize=[node.name for node in nodes],
            op_types_to_quantize=sorted({node.op_type for node in nodes}),
        )
    return reader.count


class _CalibrationReader:
    """ONNX Runtime's interface of calibration data."""

    def __init__(self, name: str, batches: Iterator[np.ndarray]):
        self.count = 0
        self._name, self._batches = name, batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        self.count += batch is not None
        return None if batch is None else {self._name: batch}


def _merge_means(graph) -> None:
    """Replaces the mean of row means by one mean over the image: AveragePool is slow in 8 bits, and sums are exact."""
    producers = {node.output[0]: node for node in graph.node}
    for node in [node for node in graph.node if node.op_type == "GlobalAveragePool"]:
        rows = producers.get(node.input[0])
        if rows is not None and rows.op_type == "AveragePool":
            node.input[0] = rows.input[0]
            graph.node.remove(rows)
