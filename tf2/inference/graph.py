# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""A function as a graph of constants: weights in place of variables, batch normalization inside the convolutions."""

import collections
import dataclasses
import graphlib
import re

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2_as_graph
from tensorflow.types.experimental import ConcreteFunction

from dataset.files import atomic_path, check_target
from tf2.inference.metadata import METADATA_KEY, Metadata

IDENTITIES = ("Identity", "IdentityN", "StopGradient", "PreventGradient")
CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
UNFIT = (tf.variant, tf.resource)  # types that no constant can hold

Nodes = dict[str, tf.compat.v1.NodeDef]


@dataclasses.dataclass(frozen=True)
class Graph:
    """A graph without variables."""

    graph_def: tf.compat.v1.GraphDef
    inputs: list[tf.TensorSpec]  # named as their placeholders
    outputs: dict[str, str]  # names of tensors by those of the function


def freeze(function: ConcreteFunction) -> Graph:
    """The graph of a function, simplified.

    Variables become constants, what depends on constants alone is computed, identities are bypassed, and batch
    normalization is folded into the convolution before it: conv(x, W) * s + t is conv(x, W * s) + t. A kernel that
    several normalizations follow, as in the heads, becomes one for each. Control flow stays as it is.

    A placeholder is called as its argument, an output's node as the output. Only class_predict_{i} and box_predict_{i}
    have the names that the published graphs made known: class_net/class-predict/BiasAdd,
    class_net/class-predict_1/BiasAdd and so on.

    Args:
        function: of tensors, returns a dict of tensors.

    Returns:
        The graph; float outputs differ from the function's by rounding.
    """
    frozen, graph_def = convert_variables_to_constants_v2_as_graph(function, lower_control_flow=False)
    nodes = {node.name: node for node in graph_def.node}
    stateful = {op.name for op in frozen.graph.get_operations() if op.op_def.is_stateful}
    _drop_control_inputs(nodes, stateful)
    fetches = _bypass_identities(nodes, [tensor.name for tensor in frozen.outputs])
    _evaluate_constants(nodes, stateful, frozen.graph)
    _fold_batch_norms(nodes)
    outputs = _name_outputs(nodes, dict(zip(sorted(function.structured_outputs), fetches, strict=True)))
    inputs = [tf.TensorSpec.from_tensor(tensor, tensor.op.name) for tensor in frozen.inputs]
    used = _used(nodes, [*outputs.values(), *(spec.name for spec in inputs)])
    simple = tf.compat.v1.GraphDef(node=used, library=graph_def.library, versions=graph_def.versions)
    return Graph(simple, inputs, outputs)


def to_function(graph: Graph) -> ConcreteFunction:
    """A function that computes the graph, to be called, traced into another, or saved as a signature.

    Args:
        graph: of `freeze`.

    Returns:
        A function of the graph's inputs, by position, that returns a dict of its outputs.
    """

    @tf.function(input_signature=graph.inputs, autograph=False)
    def function(*inputs):
        outputs = tf.graph_util.import_graph_def(
            graph.graph_def,
            input_map={spec.name: tensor for spec, tensor in zip(graph.inputs, inputs)},
            return_elements=list(graph.outputs.values()),
            name="",
        )
        return dict(zip(graph.outputs, outputs))

    return function.get_concrete_function()


def write(graph: Graph, path: str, metadata: Metadata) -> None:
    """Writes a .pb file.

    Args:
        graph: of `freeze`.
        path: a file that does not exist.
        metadata: put into the graph, as the string constant `METADATA_KEY`.

    Raises:
        TargetError: if the target exists.
    """
    check_target(path)
    described = tf.compat.v1.GraphDef()
    described.CopyFrom(graph.graph_def)
    described.node.append(_constant(METADATA_KEY, metadata.to_json()))
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(described.SerializeToString())


def _drop_control_inputs(nodes: Nodes, stateful: set[str]) -> None:
    """Leaves those that make a node wait for one with effects, such as an assertion."""
    effective = set(stateful)
    while found := {n.name for n in nodes.values() if effective & {_node(i) for i in n.input}} - effective:
        effective |= found
    for node in nodes.values():
        node.input[:] = [name for name in node.input if name[0] != "^" or name[1:] in effective]


def _bypass_identities(nodes: Nodes, fetches: list[str]) -> list[str]:
    """Connects what identities connect directly; returns the tensors that `fetches` are."""
    sources = {}
    for node in nodes.values():
        node.attr.pop("_class", None)  # would place a node beside one that may be gone
        if node.op in IDENTITIES and not any(name.startswith("^") for name in node.input):
            sources |= {_short(f"{node.name}:{i}"): _short(source) for i, source in enumerate(node.input)}

    def resolve(tensor):
        while tensor in sources:
            tensor = sources[tensor]
        return tensor

    for node in nodes.values():
        for i, name in enumerate(node.input):
            node.input[i] = f"^{_node(resolve(name[1:]))}" if name.startswith("^") else resolve(_short(name))
    return [resolve(_short(name)) for name in fetches]


def _evaluate_constants(nodes: Nodes, stateful: set[str], graph: tf.Graph) -> None:
    """Replaces by constants what is computed of constants alone, such as the fusion weights of the BiFPN."""
    pure = {name for name, node in nodes.items() if node.input and name not in stateful}
    constants = {name for name, node in nodes.items() if node.op == "Const"}
    known = set(constants)
    while found := {name for name in pure - known if all(_node(source) in known for source in nodes[name].input)}:
        known |= found
    users = [node for node in nodes.values() if node.name not in known]
    tensors = {name for node in users for name in node.input if _node(name) in known - constants}
    tensors = {name: graph.get_tensor_by_name(_full(name)) for name in tensors if name[0] != "^"}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor.dtype not in UNFIT}
    with tf.compat.v1.Session(graph=graph) as session:
        values = session.run(tensors)
    names = {name: f"{name.replace(':', '_')}/value" for name in values}
    nodes.update((names[name], _constant(names[name], value)) for name, value in values.items())
    for node in users:
        node.input[:] = [names.get(name, name) for name in node.input]


def _fold_batch_norms(nodes: Nodes) -> None:
    """Gives every convolution before a batch normalization the kernel and the bias that make up for it."""
    uses = collections.Counter(name for node in nodes.values() for name in node.input)
    swished = {node.input[0] for node in nodes.values() if node.op == "Sigmoid"}
    for norm in [node for node in nodes.values() if node.op.startswith("FusedBatchNorm")]:
        conv, bias = nodes[_node(norm.input[0])], 0.0
        if conv.op == "BiasAdd" and uses[conv.name] == 1:
            conv, bias = nodes[_node(conv.input[0])], _value(nodes[conv.input[1]])
        if conv.op not in CONVOLUTIONS or uses[conv.name] != 1 or norm.attr["is_training"].b:
            continue
        gamma, beta, mean, variance = (_value(nodes[name]).astype(np.float64) for name in norm.input[1:5])
        scale = gamma / np.sqrt(variance + norm.attr["epsilon"].f)
        kernel = _value(nodes[conv.input[1]])
        channels = kernel.shape[2:] if conv.op == "DepthwiseConv2dNative" else kernel.shape[3:]
        constants = {
            f"{norm.name}/kernel": kernel * scale.reshape(channels),
            f"{norm.name}/bias": (bias - mean) * scale + beta,
        }
        for name, value in constants.items():
            nodes[name] = _constant(name, value.astype(kernel.dtype))
        conv.input[1] = f"{norm.name}/kernel"
        # TensorFlow makes BiasAdd and a swish behind it part of oneDNN's convolution. In TensorFlow 2.15 that takes
        # 70 ms in all of d0, where convolutions and swish by themselves take 50 and 22; 2.21 does not mind.
        op = "AddV2" if norm.name in swished else "BiasAdd"
        nodes[norm.name] = tf.compat.v1.NodeDef(
            name=norm.name, op=op, input=[conv.name, f"{norm.name}/bias"], attr={"T": norm.attr["T"]}
        )


def _name_outputs(nodes: Nodes, tensors: dict[str, str]) -> dict[str, str]:
    """Gives the nodes of the outputs their names; returns the names of their tensors."""
    names = {}
    for output, tensor in tensors.items():
        if tensor in nodes and nodes[tensor].op != "Placeholder":  # not one of several outputs of a node
            names.setdefault(tensor, _published(output))
    if taken := set(names.values()) & (nodes.keys() - names.keys()):
        raise ValueError(
            f"outputs need names that other nodes of the graph have: {', '.join(sorted(taken))}; rename these"
        )

    def renamed(name):
        return name.replace(_node(name), names.get(_node(name), _node(name)), 1)

    for node in nodes.values():
        node.name = renamed(node.name)
        node.input[:] = [renamed(name) for name in node.input]
    return {output: _full(renamed(tensor)) for output, tensor in tensors.items()}


def _published(output: str) -> str:
    """The name of an output's node."""
    match = re.fullmatch(r"(class|box)_predict_(\d+)", output)
    if not match:
        return output
    head, level = match.groups()
    return f"{head}_net/{head}-predict{f'_{level}' if int(level) else ''}/BiasAdd"


def _used(nodes: Nodes, tensors: list[str]) -> list[tf.compat.v1.NodeDef]:
    """The nodes that tensors depend on, each after those that it depends on itself."""
    nodes = {node.name: node for node in nodes.values()}
    sources, ahead = {}, [_node(name) for name in tensors]
    while ahead:
        name = ahead.pop()
        if name not in sources:
            sources[name] = [_node(source) for source in nodes[name].input]
            ahead += sources[name]
    return [nodes[name] for name in graphlib.TopologicalSorter(sources).static_order()]


def _constant(name: str, value) -> tf.compat.v1.NodeDef:
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    node.attr["dtype"].type = node.attr["value"].tensor.dtype
    return node


def _value(constant: tf.compat.v1.NodeDef) -> np.ndarray:
    return tf.make_ndarray(constant.attr["value"].tensor)


def _short(tensor: str) -> str:
    """A tensor's name without the number of its node's first output, as in the inputs of nodes."""
    return tensor.removesuffix(":0")


def _full(tensor: str) -> str:
    """A tensor's name with the number of the output."""
    return tensor if ":" in tensor else f"{tensor}:0"


def _node(name: str) -> str:
    """The node of a tensor, or of a control input."""
    return name.lstrip("^").split(":")[0]
