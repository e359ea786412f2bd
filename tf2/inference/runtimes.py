# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runtimes: loading and calling of each kind of exported file."""

import contextlib
import copy
import dataclasses
import os
import warnings
from collections.abc import Collection, Iterator
from typing import Protocol

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from dataset import native_log
from dataset.file_access import is_remote
from dataset.files import read_file, reason_of
from tf2.inference import constants, functions
from tf2.inference.graph import published_node
from tf2.inference.metadata import METADATA_FILE, METADATA_KEY, ArtifactError, Metadata, read_zip

# Lines of TFLite, and the converter's statistics of operations, as the start of a regular expression.
TFLITE_NOTES = (
    r"\s*$",
    r"INFO: ",
    r"WARNING: Attempting to use a delegate that only supports static-sized tensors ",
    r".*\] Ignored (output_format|drop_control_dependency)\.",
    r".*\] Skipping runtime version metadata in the model\.",
    r"fully_quantize: \d, inference_type: ",
    r"Summary on the non-converted ops:$",
    r"-+$",
    r" \* (Accepted dialects: |Non-Converted Ops: |\d+ [A-Z_]+ ops$)",
    r"- [\w.]+: +\d+ occurrences ",
    r"  \(\w+: \d+(, \w+: \d+)*\)$",
)


class Runtime(Protocol):
    """A loaded file, called with one batch."""

    metadata: Metadata | None  # None for files of the published program
    content: str  # a key of CONTENTS
    batch_size: int | None  # of every call; None for any

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the outputs by name, dequantized, for [B, H, W, 3] uint8 images or float32 network inputs."""


class SavedModel:
    """A SavedModel, called by one of its signatures."""

    def __init__(self, path: str, content: str | None = None):
        try:
            signatures = functions.of_saved_model(path)
            if signatures is None:
                self._loaded = tf.saved_model.load(path)  # an attribute, as signatures do not keep variables alive
                signatures = self._loaded.signatures
        except (OSError, ValueError, DecodeError, tf.errors.OpError) as error:
            raise ArtifactError(f"{path} cannot be loaded as a SavedModel: {reason_of(error)}") from error
        file = os.path.join(path, "assets.extra", METADATA_FILE)
        self.metadata = Metadata.from_json(_read(file), path) if tf.io.gfile.exists(file) else None
        self._path, self._signatures = path, signatures
        self._select(content)

    def of_content(self, content: str) -> "SavedModel":
        """Returns the same file, called by the signature of a key of CONTENTS; raises ArtifactError without one."""
        other = copy.copy(self)
        other._select(content)
        return other

    def _select(self, content: str | None) -> None:
        """Selects the signature of a content; None for the detector if there is one."""
        signatures = self._signatures
        inputs = {name: signature.structured_input_signature[1] for name, signature in signatures.items()}
        for self.content, name, expected in (
            ("detector", "serving_default", "image_arrays"),
            ("network", "network", "images"),
            ("network", "serving_default", "input"),
        ):
            # TensorFlow 1 exported names of tensors, with an output index.
            argument = next((argument for argument in inputs.get(name, {}) if argument.split(":")[0] == expected), None)
            if argument and content in (None, self.content):
                self._call, self._argument = signatures[name], argument
                self.batch_size = inputs[name][argument].shape[0]
                break
        else:
            got = "; ".join(f"{name}({', '.join(arguments)})" for name, arguments in inputs.items()) or "none"
            raise ArtifactError(
                f"{self._path} is not a SavedModel of a detector: expected a signature with the input "
                f"{'images' if content == 'network' else 'image_arrays'}, got {got}"
            )
        if self.metadata:
            self.metadata = dataclasses.replace(self.metadata, content=self.content)

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        outputs = self._call(**{self._argument: tf.constant(inputs)})
        return {name.split(":")[0]: np.asarray(value) for name, value in outputs.items()}  # .numpy() would copy


class FrozenGraph:
    """A frozen graph, called by the names of its nodes."""

    def __init__(self, path: str):
        try:
            graph_def = tf.compat.v1.GraphDef.FromString(_read(path))
        except DecodeError as error:
            raise ArtifactError(f"{path} is damaged, or not a frozen graph: {reason_of(error)}") from error
        nodes = {node.name: node for node in graph_def.node}
        levels = [f"{head}_predict_{i}" for head in ("class", "box") for i in range(20)]
        levels = {output: f"{published_node(output)}:0" for output in levels if published_node(output) in nodes}
        if "image_arrays" in nodes and "detections" in nodes:
            self.content, feed, fetches = "detector", "image_arrays", {"detections": "detections:0"}
        elif "input" in nodes and "class_predict_0" in levels:
            self.content, feed, fetches = "network", "input", levels
        else:
            raise ArtifactError(
                f"{path} is not the graph of a detector: expected the nodes image_arrays and detections, or input and "
                f"{published_node('class_predict_0')}, got {len(nodes)} other nodes"
            )
        text = nodes.pop(METADATA_KEY, None)
        self.metadata = Metadata.from_json(text.attr["value"].tensor.string_val[0], path) if text else None
        try:
            values = constants.take(graph_def.node)
            imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph_def, name=""), [])
            self._call = functions.of_concrete_function(imported.prune(f"{feed}:0", fetches), values)
        except (ValueError, KeyError) as error:
            raise ArtifactError(f"{path} is damaged, or of another TensorFlow version: {reason_of(error)}") from error
        [self._argument], [spec] = zip(*self._call.structured_input_signature[1].items())
        self.batch_size = spec.shape[0]

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        return {name: np.asarray(value) for name, value in self._call(**{self._argument: tf.constant(inputs)}).items()}


class TFLite:
    """A TFLite file, called by its signature; quantized inputs and outputs are converted from and to float.

    It runs in LiteRT where that is installed, with one thread per core by default; otherwise in TensorFlow, with one
    thread by default. TensorFlow 2.15 waits busily: on a machine with other load, two threads took 40 times as long as
    one, in LiteRT 1.2 times.
    """

    def __init__(self, path: str, num_threads: int | None = None):
        interpreter = litert_interpreter()
        self.is_litert = interpreter is not None
        self.num_threads = num_threads or (num_cores() if self.is_litert else 1)
        try:
            with quiet_tflite():
                source = {"model_content": _read(path)} if is_remote(path) else {"model_path": path}
                self._interpreter = (interpreter or tf.lite.Interpreter)(**source, num_threads=self.num_threads)
                self._interpreter.allocate_tensors()
            self._signature = self._interpreter.get_signature_runner()
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"{path} cannot be loaded as a TFLite detector: {reason_of(error)}") from error
        inputs, self._outputs = self._signature.get_input_details(), self._signature.get_output_details()
        outputs = [name.split(":")[0] for name in self._outputs]  # published files use names of tensors
        contents = {"detections": "detector", "output_0": "detection_op", "class_predict_0": "network"}
        self.content = _content(f"{path} is not the TFLite file", contents, inputs=inputs, outputs=outputs)
        [(self._argument, self._input)] = inputs.items()
        self.metadata = read_zip(path)
        shape = self._input["shape_signature"]
        self.batch_size = int(shape[0]) if shape[0] > 0 else None

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        outputs = self._signature(**{self._argument: quantize(inputs, self._input)})
        return {name.split(":")[0]: dequantize(value, self._outputs[name]) for name, value in outputs.items()}


def litert_interpreter() -> type | None:
    """Returns the interpreter of LiteRT, the successor of TensorFlow's; None where ai-edge-litert is not installed."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        return None
    return Interpreter


@contextlib.contextmanager
def quiet_tflite() -> Iterator[None]:
    """Removes the notes of TFLite and its converter, which they print at any log level."""
    with native_log.without(TFLITE_NOTES), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated")
        yield


class Onnx:
    """An ONNX file in ONNX Runtime, on the CPU. The default of num_threads is one per core."""

    def __init__(self, path: str, num_threads: int | None = None):
        try:
            import onnxruntime
        except ImportError as error:
            raise ArtifactError(
                f"{path} needs onnxruntime: python -m pip install -r requirements-onnx.txt ({reason_of(error)})"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads or 0
        options.log_severity_level = 3  # errors only; failures are raised as well
        try:
            source = _read(path) if is_remote(path) else path
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no other common base class
            raise ArtifactError(f"{path} cannot be loaded as ONNX: {reason_of(error)}") from error
        inputs, self._outputs = self._session.get_inputs(), [output.name for output in self._session.get_outputs()]
        contents = {"detections": "detector", "class_predict_0": "network"}
        self.content = _content(f"{path} is not the ONNX file", contents, inputs=inputs, outputs=self._outputs)
        self._argument = inputs[0].name
        text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        self.metadata = Metadata.from_json(text, path) if text else None
        size = inputs[0].shape[0]
        self.batch_size = size if isinstance(size, int) else None

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self._outputs, self._session.run(self._outputs, {self._argument: inputs}), strict=True))


def num_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def load(path: str, content: str | None = None, num_threads: int | None = None) -> Runtime:
    """Loads an exported file; see `drivers.open_artifact` for the arguments.

    Raises:
        ArtifactError: if there is no such file, it is damaged, or it is not a detector.
    """
    if not tf.io.gfile.exists(path):
        raise ArtifactError(f"there is no file {path}; give a SavedModel's folder, or a .pb, .tflite or .onnx file")
    if tf.io.gfile.isdir(path):
        if not tf.saved_model.contains_saved_model(path):
            raise ArtifactError(f"the folder {path} contains no SavedModel; expected saved_model.pb in it")
        return SavedModel(path, content)
    if os.path.basename(path) == "saved_model.pb":
        return SavedModel(os.path.dirname(path) or ".", content)
    kind = os.path.splitext(path)[1]
    if kind == ".pb":
        return FrozenGraph(path)
    if kind == ".tflite":
        return TFLite(path, num_threads)
    if kind == ".onnx":
        return Onnx(path, num_threads)
    raise ArtifactError(f"{path} is neither a SavedModel's folder nor a .pb, .tflite or .onnx file")


def quantize(values: np.ndarray, details: dict) -> np.ndarray:
    """Quantizes values for an input, round(value / scale) + zero_point; only casts if it is not quantized.

    >>> quantize(np.array([0.0, 0.5, 1.0]), {"quantization": (1 / 255, -128), "dtype": np.int8}).tolist()
    [-128, 0, 127]
    """
    scale, zero_point = details["quantization"]
    dtype = np.dtype(details["dtype"])
    if not scale or not np.issubdtype(values.dtype, np.floating):
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / scale) + zero_point, limits.min, limits.max).astype(dtype)


def dequantize(values: np.ndarray, details: dict) -> np.ndarray:
    """Dequantizes values of an output, (value - zero_point) * scale; unchanged if it is not quantized.

    >>> dequantize(np.array([-128, 0, 127], np.int8), {"quantization": (0.5, -128)}).tolist()
    [0.0, 64.0, 127.5]
    """
    scale, zero_point = details["quantization"]
    return (values.astype(np.float32) - zero_point) * np.float32(scale) if scale else values


def _read(path: str) -> bytes:
    try:
        return read_file(path)
    except tf.errors.OpError as error:
        raise ArtifactError(f"{path} cannot be read: {reason_of(error)}") from error


def _content(file: str, contents: dict[str, str], *, inputs: Collection, outputs: Collection[str]) -> str:
    """Returns the content of a file, by the name of an output; `file` is "{path} is not the {kind} file"."""
    found = [content for name, content in contents.items() if name in outputs]
    if len(inputs) != 1 or not found:
        expected, got = " or ".join(contents), ", ".join(outputs)
        raise ArtifactError(f"{file} of a detector: expected an output {expected}, got {got}")
    return found[0]
