# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Functions of stored graphs, called without variables and without Python graphs.

tf.saved_model.load and tf.graph_util.import_graph_def build Python graphs beside the functions that run. For frozen
weights, the former holds 15 copies of them and takes seconds; a function alone holds one.
"""

import itertools
import os
import weakref
from collections.abc import Iterable, Mapping

import tensorflow as tf
from google.protobuf.message import DecodeError
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
    """Functions that TensorFlow can run; removed with the memory of their execution when no longer referenced."""

    def __init__(self, functions: Iterable[FunctionDef]):
        """Adds functions under new names.

        Args:
            functions: changed in place.
        """
        functions = list(functions)
        suffix = f"_file_{next(_counter)}"
        self.names = {function.signature.name: function.signature.name + suffix for function in functions}
        added = []
        weakref.finalize(self, _remove, added).atexit = False  # TensorFlow ends first
        for function in functions:
            function.signature.name = self.names[function.signature.name]
            for node in function.node_def:
                for value in node.attr.values():
                    for reference in [value.func] if value.HasField("func") else value.list.func:
                        reference.name = self.names.get(reference.name, reference.name)
            context.context().add_function_def(function)
            added.append(function.signature.name)


def _remove(names: list[str]) -> None:
    for name in names:
        context.context().remove_function(name)


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
        self._name, self._count = library.names[name].encode(), count
        self._outputs = dict(outputs)
        self.structured_input_signature = (), {spec.name: spec}

    def __call__(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = context.context().call_function(self._name, list(inputs.values()), self._count)
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
