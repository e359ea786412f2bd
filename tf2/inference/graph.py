# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Freezing: a function becomes a graph of constants, with batch normalization folded into convolutions."""

import collections
import dataclasses
import graphlib
import re
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.function_pb2 import FunctionDefLibrary
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2_as_graph
from tensorflow.types.experimental import ConcreteFunction

from dataset.files import atomic_path, check_target
from tf2.inference import constants
from tf2.inference.metadata import METADATA_KEY, Metadata

IDENTITIES = ("Identity", "IdentityN", "StopGradient", "PreventGradient")
CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
NOT_CONSTANT = (tf.variant, tf.resource)  # dtypes without constants

Nodes = dict[str, tf.compat.v1.NodeDef]


@dataclasses.dataclass(frozen=True)
class Graph:
    """A graph without variables."""

    graph_def: tf.compat.v1.GraphDef
    inputs: list[tf.TensorSpec]  # with the names of their placeholders
    outputs: dict[str, str]  # {output name of the function: name of the tensor}


def freeze(function: ConcreteFunction) -> Graph:
    """Freezes and simplifies the graph of a function.

    Variables become constants, constant subexpressions are evaluated, identities are bypassed, and batch normalization
    is folded into the preceding convolution: conv(x, W) * s + t = conv(x, W * s) + t. A kernel that is followed by
    several normalizations, as in the heads, is copied for each. Control flow is kept.

    Placeholders have the names of their arguments, output nodes the names of their outputs; class_predict_{i} and
    box_predict_{i} have those of the published graphs: class_net/class-predict/BiasAdd,
    class_net/class-predict_1/BiasAdd and so on. Float outputs differ from those of the function by rounding.

    Args:
        function: takes tensors, returns a dict of tensors.
    """
    graph_def, stateful, fetches, inputs = _without_variables(function)
    nodes = {node.name: node for node in graph_def.node}
    _drop_control_inputs(nodes, stateful)
    fetches = _bypass_identities(nodes, fetches)
    _evaluate_constants(nodes, stateful, graph_def.library)
    _fold_batch_norms(nodes)
    outputs = _name_outputs(nodes, dict(zip(sorted(function.structured_outputs), fetches, strict=True)))
    used = _used(nodes, [*outputs.values(), *(spec.name for spec in inputs)])
    simple = tf.compat.v1.GraphDef(node=used, library=graph_def.library, versions=graph_def.versions)
    return Graph(simple, inputs, outputs)


def _without_variables(
    function: ConcreteFunction,
) -> tuple[tf.compat.v1.GraphDef, set[str], list[str], list[tf.TensorSpec]]:
    """Returns the graph of a function with constants in place of variables.

    Returns:
        The graph, the names of its stateful nodes, the names of the outputs, and the inputs.
    """
    graph_def = function.graph.as_graph_def()
    variables = {id(variable.handle): variable for variable in function.graph.variables}
    captured = {placeholder.op.name: variables.get(id(handle)) for handle, placeholder in function.graph.captures}
    if any(attribute.HasField("func") for node in graph_def.node for attribute in node.attr.values()):
        # Calls are inlined, for which TensorFlow needs several copies of the constants.
        function, graph_def = convert_variables_to_constants_v2_as_graph(function, lower_control_flow=False)
    stateful = {op.name for op in function.graph.get_operations() if op.op_def.is_stateful}
    for node in graph_def.node:
        if node.op == "Placeholder" and captured.get(node.name) is not None:
            node.CopyFrom(_constant(node.name, captured[node.name].numpy()))
        elif node.op == "ReadVariableOp":
            node.CopyFrom(
                tf.compat.v1.NodeDef(name=node.name, op="Identity", input=node.input, attr={"T": node.attr["dtype"]})
            )
            stateful.remove(node.name)
    inputs = [tf.TensorSpec.from_tensor(x, x.op.name) for x in function.inputs if x.dtype != tf.resource]
    return graph_def, stateful, [tensor.name for tensor in function.outputs], inputs


def without_constants(graph: Graph) -> tuple[Graph, dict[bytes, bytes]]:
    """Returns a graph without its large constants, and their values, see `constants.take`."""
    light = tf.compat.v1.GraphDef()
    light.CopyFrom(graph.graph_def)
    values = constants.take(light.node)
    return dataclasses.replace(graph, graph_def=tf.compat.v1.GraphDef.FromString(light.SerializeToString())), values


def to_function(graph: Graph) -> ConcreteFunction:
    """Returns a function of the inputs of a graph, by position, that returns a dict of its outputs."""

    @tf.function(input_signature=graph.inputs, autograph=False)
    def function(*inputs):
        sources = {spec.name: tensor for spec, tensor in zip(graph.inputs, inputs)}
        outputs = tf.graph_util.import_graph_def(graph.graph_def, sources, list(graph.outputs.values()), name="")
        return dict(zip(graph.outputs, outputs))

    return function.get_concrete_function()


def write(graph: Graph, path: str, metadata: Metadata) -> None:
    """Writes a .pb file, with the metadata as the string constant `METADATA_KEY`.

    Raises:
        TargetError: if the file exists.
    """
    check_target(path)
    addition = tf.compat.v1.GraphDef(node=[_constant(METADATA_KEY, metadata.to_json())])
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        for part in (graph.graph_def, addition):  # a message is stored as the messages it is merged from
            file.write(part.SerializeToString())


def _drop_control_inputs(nodes: Nodes, stateful: set[str]) -> None:
    """Drops control inputs, except those from stateful nodes, such as assertions, and from their dependents."""
    kept = set(stateful)
    while found := {n.name for n in nodes.values() if kept & {_node(i) for i in n.input}} - kept:
        kept |= found
    for node in nodes.values():
        node.input[:] = [name for name in node.input if name[0] != "^" or name[1:] in kept]


def _bypass_identities(nodes: Nodes, fetches: list[str]) -> list[str]:
    """Connects the inputs of identities to their consumers; returns the tensors that replace `fetches`."""
    sources = {}
    for node in nodes.values():
        node.attr.pop("_class", None)  # would colocate a node with one that may be removed
        if node.op in IDENTITIES and not any(name.startswith("^") for name in node.input):
            sources |= {f"{node.name}:{i}".removesuffix(":0"): source for i, source in enumerate(node.input)}

    def resolve(tensor):
        while (tensor := tensor.removesuffix(":0")) in sources:
            tensor = sources[tensor]
        return tensor

    for node in nodes.values():
        for i, name in enumerate(node.input):
            node.input[i] = f"^{_node(resolve(name[1:]))}" if name.startswith("^") else resolve(name)
    return list(map(resolve, fetches))


def _evaluate_constants(nodes: Nodes, stateful: set[str], library: FunctionDefLibrary) -> None:
    """Evaluates subexpressions that depend on constants only, such as the fusion weights of the BiFPN."""
    pure = {name for name, node in nodes.items() if node.input and name not in stateful}
    given = {name for name, node in nodes.items() if node.op == "Const" and not constants.is_taken(node)}
    known = set(given)
    while found := {name for name in pure - known if all(_node(source) in known for source in nodes[name].input)}:
        known |= found
    users = [node for node in nodes.values() if node.name not in known]
    tensors = {name for node in users for name in node.input if _node(name) in known - given and name[0] != "^"}
    values = _evaluate(tf.compat.v1.GraphDef(node=_used(nodes, tensors), library=library), tensors)
    names = {name: f"{name.replace(':', '_')}/value" for name in values}
    nodes.update((names[name], _constant(names[name], value)) for name, value in values.items())
    for node in users:
        node.input[:] = [names.get(name, name) for name in node.input]


def _evaluate(graph_def: tf.compat.v1.GraphDef, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Evaluates the tensors of a graph that can become constants."""
    if not graph_def.node:
        return {}
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
    tensors = {name: graph.get_tensor_by_name(_full(name)) for name in names}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor.dtype not in NOT_CONSTANT}
    with tf.compat.v1.Session(graph=graph) as session:
        return session.run(tensors)


def _fold_batch_norms(nodes: Nodes) -> None:
    """Folds each batch normalization into the kernel and the bias of the preceding convolution.

    s * (conv(x, W) + b - mean) + beta = conv(x, s * W) + s * (b - mean) + beta, s = gamma / sqrt(variance + epsilon)
    """
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
        folded = {"kernel": kernel * scale.reshape(channels), "bias": (bias - mean) * scale + beta}
        for name, value in folded.items():
            nodes[f"{norm.name}/{name}"] = _constant(f"{norm.name}/{name}", value.astype(kernel.dtype))
        conv.input[1] = f"{norm.name}/kernel"
        # TensorFlow fuses a convolution with BiasAdd and a following swish into one oneDNN kernel. In TensorFlow 2.15
        # the fused kernels are slow, 70 ms in D0 instead of 50 + 22 ms; AddV2 prevents fusion. 2.21 is equally fast.
        op = "AddV2" if norm.name in swished else "BiasAdd"
        inputs = [conv.name, f"{norm.name}/bias"]
        nodes[norm.name] = tf.compat.v1.NodeDef(name=norm.name, op=op, input=inputs, attr={"T": norm.attr["T"]})


def _name_outputs(nodes: Nodes, tensors: dict[str, str]) -> dict[str, str]:
    """Renames the nodes of the outputs; returns {output: name of its tensor}."""
    names = {}
    for output, tensor in tensors.items():
        if tensor in nodes and nodes[tensor].op != "Placeholder":  # excludes later outputs of a node, "split:1"
            names.setdefault(tensor, published_node(output))
    if taken := set(names.values()) & (nodes.keys() - names.keys()):
        raise ValueError(
            f"names of outputs are used by other nodes of the graph: {', '.join(sorted(taken))}; rename these nodes"
        )

    def renamed(name):
        return name.replace(_node(name), names.get(_node(name), _node(name)), 1)

    for node in nodes.values():
        node.name = renamed(node.name)
        node.input[:] = [renamed(name) for name in node.input]
    return {output: _full(renamed(tensor)) for output, tensor in tensors.items()}


def published_node(output: str) -> str:
    """Returns the node name of an output, as in published graphs.

    >>> published_node("class_predict_0"), published_node("box_predict_4")
    ('class_net/class-predict/BiasAdd', 'box_net/box-predict_4/BiasAdd')
    """
    output = re.sub(r"^(class|box)_predict_(\d+)$", r"\1_net/\1-predict_\2/BiasAdd", output)
    return output.replace("-predict_0/", "-predict/")


def _used(nodes: Nodes, tensors: Iterable[str]) -> list[tf.compat.v1.NodeDef]:
    """Returns the nodes that tensors depend on, in topological order."""
    nodes = {node.name: node for node in nodes.values()}
    sources, pending = {}, [_node(name) for name in tensors]
    while pending:
        name = pending.pop()
        if name not in sources:
            sources[name] = [_node(source) for source in nodes[name].input]
            pending += sources[name]
    return [nodes[name] for name in graphlib.TopologicalSorter(sources).static_order()]


def _constant(name: str, value) -> tf.compat.v1.NodeDef:
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    node.attr["dtype"].type = node.attr["value"].tensor.dtype
    return node


def _value(constant: tf.compat.v1.NodeDef) -> np.ndarray:
    return tf.make_ndarray(constant.attr["value"].tensor)


def _full(tensor: str) -> str:
    """Returns the name of a tensor with its output index."""
    return tensor if ":" in tensor else f"{tensor}:0"


def _node(name: str) -> str:
    """Returns the node name of a tensor or of a control input."""
    return name.lstrip("^").split(":")[0]
