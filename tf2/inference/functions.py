# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Functions of stored graphs, called without variables and without Python graphs.

tf.saved_model.load and tf.graph_util.import_graph_def build Python graphs beside the functions that run. For frozen
weights, the former holds 15 copies of them and takes seconds. Functions take the weights as arguments: as constants,
they would be copied several times again when TensorFlow prepares a function for its first call.
"""

import itertools
import os
import weakref
from collections.abc import Collection, Iterable, Mapping

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.attr_value_pb2 import NameAttrList
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.eager import context
from tensorflow.types.experimental import ConcreteFunction

from dataset.files import read_file
from tf2.inference import constants

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_counter = itertools.count()  # for names of functions, which are global in TensorFlow


class Library:
    """Functions that TensorFlow can run; removed with the memory of their execution when no longer referenced.

    Attributes:
        names: {name in the file: name of the function}.
        weights: {name in the file: tensors that the function takes after its own arguments}.
    """

    def __init__(self, functions: Iterable[FunctionDef]):
        """Adds functions under new names.

        Args:
            functions: changed in place.
        """
        functions = list(functions)
        self.weights = _lift_weights(functions)
        suffix = f"_file_{next(_counter)}"
        self.names = {function.signature.name: function.signature.name + suffix for function in functions}
        added = []
        weakref.finalize(self, _remove, added).atexit = False  # TensorFlow ends first
        for function in functions:
            function.signature.name = self.names[function.signature.name]
            for node in function.node_def:
                for reference in _references(node):
                    reference.name = self.names.get(reference.name, reference.name)
            context.context().add_function_def(function)
            added.append(function.signature.name)


def _remove(names: list[str]) -> None:
    for name in names:
        context.context().remove_function(name)


def _lift_weights(functions: Collection[FunctionDef]) -> dict[str, list[tf.Tensor]]:
    """Turns large float32 constants into arguments of their functions and of the callers of these, in place.

    Constants of loops and conditions, and of what these call, stay.

    Returns:
        The values, in the order of the new arguments, by name of the function.
    """
    by_name = {function.signature.name: function for function in functions}
    weights = {name: [] for name in _names_of_bodies(by_name)}

    def lift(name: str) -> list[tf.Tensor]:
        if name not in weights:
            function, arguments, weights[name] = by_name[name], {}, []
            for node in function.node_def:
                if _is_weight(node):
                    tensor = node.attr["value"].tensor
                    weights[name].append(tf.constant(tf.make_ndarray(tensor)))
                    tensor.Clear()
                    arguments[node.name] = _add_argument(function, weights[name][-1])
                elif node.op in CALLS and node.attr["f"].func.name in by_name:
                    for value in lift(node.attr["f"].func.name):
                        weights[name].append(value)
                        node.attr["Tin"].list.type.append(value.dtype.as_datatype_enum)
                        # Control inputs are the last.
                        place = next((i for i, x in enumerate(node.input) if x.startswith("^")), len(node.input))
                        node.input.insert(place, _add_argument(function, value))
            _use_arguments(function, arguments)
        return weights[name]

    for name in by_name:
        lift(name)
    return weights


def _names_of_bodies(functions: Mapping[str, FunctionDef]) -> set[str]:
    """Returns the names of the functions that are called by other operations than CALLS, and of those they call."""
    nodes = [node for function in functions.values() for node in function.node_def if node.op not in CALLS]
    names = set()
    while nodes:
        new = {reference.name for node in nodes for reference in _references(node)} & functions.keys() - names
        nodes = [node for name in new for node in functions[name].node_def]
        names |= new
    return names


def _references(node: tf.compat.v1.NodeDef) -> list[NameAttrList]:
    """Returns the functions to which a node refers."""
    return [
        reference
        for value in node.attr.values()
        for reference in ([value.func] if value.HasField("func") else value.list.func)
    ]


def _is_weight(node: tf.compat.v1.NodeDef) -> bool:
    """Returns True for a large float32 constant."""
    is_large = node.op == "Const" and len(node.attr["value"].tensor.tensor_content) >= constants.MIN_BYTES
    return is_large and node.attr["dtype"].type == tf.float32.as_datatype_enum


def _add_argument(function: FunctionDef, value: tf.Tensor) -> str:
    """Adds an argument to a function, and returns its name."""
    arguments = function.signature.input_arg
    argument = arguments.add(name=f"weights_{len(arguments)}", type=value.dtype.as_datatype_enum)
    shapes = function.arg_attr[len(arguments) - 1].attr["_output_shapes"].list.shape
    shapes.append(value.shape.as_proto())
    return argument.name


def _use_arguments(function: FunctionDef, arguments: Mapping[str, str]) -> None:
    """Replaces constants, given by name, by arguments."""
    outputs = {f"{name}:output:0": argument for name, argument in arguments.items()}
    nodes = [node for node in function.node_def if node.name not in arguments]
    for node in nodes:
        node.input[:] = [outputs.get(x, x) for x in node.input if x.removeprefix("^") not in arguments]
    for output, value in function.ret.items():
        function.ret[output] = outputs.get(value, value)
    del function.node_def[:]
    function.node_def.extend(nodes)


class Function:
    """A function of one argument, called like a signature of tf.saved_model.load."""

    def __init__(self, library: Library, name: str, spec: tf.TensorSpec, outputs: Mapping[str, int], count: int):
        """Initializes the function.

        Args:
            library: with the function, and those that it calls.
            name: in the file.
            spec: of the argument.
            outputs: positions of the named outputs.
            count: number of all outputs.
        """
        self._library = library  # keeps the functions
        self._name, self._weights, self._count = library.names[name].encode(), library.weights[name], count
        self._outputs = dict(outputs)
        self.structured_input_signature = (), {spec.name: spec}

    def __call__(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = context.context().call_function(self._name, [*inputs.values(), *self._weights], self._count)
        return {name: outputs[i] for name, i in self._outputs.items()}


def of_saved_model(path: str) -> dict[str, Function] | None:
    """Returns the signatures of a SavedModel; None if it is damaged, or one of them needs variables or tables.

    Args:
        path: folder of the SavedModel.
    """
    try:
        stored = SavedModel.FromString(read_file(os.path.join(path, "saved_model.pb")))
        [meta_graph] = stored.meta_graphs
    except (OSError, ValueError, DecodeError, tf.errors.OpError):
        return None
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    calls = {}
    for name, signature in meta_graph.signature_def.items():
        outputs = {output: info.name.partition(":") for output, info in signature.outputs.items()}
        call = nodes.get(next((node for node, _, _ in outputs.values()), ""))
        if call is not None and call.op == "NoOp":  # initialization without effect
            continue
        inputs = list(signature.inputs.items())
        if call is None or call.op not in CALLS or len(inputs) != 1:
            return None
        [(argument, info)] = inputs
        if [f"{i}:0" for i in call.input] != [info.name]:  # variables, tables or assets are further inputs
            return None
        calls[name] = call, argument, info, {output: int(i) for output, (_, _, i) in outputs.items()}
    library = Library(meta_graph.graph_def.library.function)
    return {
        name: Function(library, call.attr["f"].func.name, _spec(info, argument), outputs, _num_outputs(call))
        for name, (call, argument, info, outputs) in calls.items()
    }


def _num_outputs(call: tf.compat.v1.NodeDef) -> int:
    return len(call.attr["Tout"].list.type)


def _spec(info: TensorInfo, name: str) -> tf.TensorSpec:
    shape = None if info.tensor_shape.unknown_rank else [d.size if d.size >= 0 else None for d in info.tensor_shape.dim]
    return tf.TensorSpec(shape, tf.dtypes.as_dtype(info.dtype), name)


def of_concrete_function(function: ConcreteFunction, values: Mapping[bytes, bytes]) -> Function:
    """Returns a function whose constants get their values back, see `constants.take`.

    Args:
        function: of one argument, without variables; returns a dict.
        values: of the constants.
    """
    definitions = [function.function_def, *function.graph.as_graph_def().library.function]
    for definition in definitions:
        constants.restore(definition.node_def, values)
    [argument] = function.inputs
    spec = tf.TensorSpec.from_tensor(argument, definitions[0].signature.input_arg[0].name)
    outputs = {output: i for i, output in enumerate(sorted(function.structured_outputs))}
    name = definitions[0].signature.name
    return Function(Library(definitions), name, spec, outputs, len(outputs))
