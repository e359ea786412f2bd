# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Export to ONNX: a whole detector, or the network alone, of standard operators."""

import contextlib
import logging
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from tensorflow.types.experimental import ConcreteFunction

from dataset.files import atomic_path, check_target, reason_of
from efficientdet import config as config_lib
from efficientdet.model import EfficientDetModel
from tf2.inference import runtimes, signatures
from tf2.inference.metadata import CONTENTS, METADATA_KEY, ExportError, Metadata

OPSET = 17  # of the standard operators; ONNX Runtime 1.12 and TensorRT 8.6 have it
DIMENSIONS = ("batch", "height", "width")  # names of those that are free
TRIAL_SIZE = (33, 57)  # of the picture that a new file is tried with: odd, not square, smaller than any network input


def write(model: EfficientDetModel, path: str, metadata: Metadata, *, batch_size: int = 1) -> list[str]:
    """Writes an ONNX file of float32, with the standard operators of opset 17 alone.

    By `metadata.content`:
        detector: see `detector`; H and W of a picture are free.
        network: `serving.network`.

    Args:
        model: a frozen one, see `serving.frozen`.
        path: a file that does not exist, *.onnx.
        metadata: of the file, put into its metadata_props.
        batch_size: pictures a call; 0 for any number.

    Returns:
        The file written.

    Raises:
        TargetError: if the target exists.
        ExportError: if ONNX cannot do it; see `check`.
    """
    check_target(path)
    check(path, metadata)
    import onnx

    function = {
        "detector": lambda: signatures.detector(model, batch_size, resizes_float=True),
        "network": lambda: signatures.network(model.net, model.config, batch_size),
    }[metadata.content]()
    proto = _convert(function)
    _describe(proto, metadata)
    with atomic_path(path) as temporary:
        onnx.save(proto, temporary)
        _try(temporary, metadata, batch_size or 1)
    return [path]


def check(path: str, metadata: Metadata) -> None:
    """Raises ExportError for what ONNX has not, and for missing packages; asked before the work begins."""
    if not path.endswith(".onnx"):
        raise ExportError(f"an ONNX file is told by its name: expected *.onnx, got {path}")
    if metadata.content not in ("detector", "network") or metadata.precision != "FP32":
        raise ExportError(
            f"an ONNX file holds a detector or a network in FP32, got {metadata.content} in {metadata.precision}"
        )
    # tf2onnx would make it hard NMS without a word.
    if metadata.content == "detector" and metadata.config.nms_configs.method == "gaussian":
        raise ExportError("ONNX has no gaussian NMS; use --nms_method=hard, or the content network")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"ONNX needs packages of its own: python -m pip install -r requirements-onnx.txt ({error})"
        ) from error


def _convert(function: ConcreteFunction):
    """The onnx.ModelProto of a function, checked."""
    import onnx
    from tf2onnx import convert

    (signature,), _ = function.structured_input_signature
    try:
        with _quiet_tf2onnx():
            proto, _ = convert.from_function(
                tf.function(function, autograph=False),  # one that is still to be traced is wanted
                [signature],
                opset=OPSET,
                custom_op_handlers={"ResizeNearestNeighbor": (_convert_nearest, [])},
            )
        # tf2onnx also declares operators of machine learning that no node is of.
        del proto.opset_import[:]
        proto.opset_import.append(onnx.helper.make_opsetid("", OPSET))
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # tf2onnx has no kind of its own, and those of onnx derive from Exception alone
        raise ExportError(f"TensorFlow's graph could not be converted to ONNX: {reason_of(error)}") from error
    return proto


def _convert_nearest(graph, node, name, args) -> None:
    """Converts ResizeNearestNeighbor in a graph of tf2onnx: out[i] = x[floor(i * before / after)], on two axes.

    Its own way is Resize by factors, which are exact for whole factors only: 3 pixels times float32(5 / 3) are not 5.
    """
    before, after = np.array(graph.get_shape(node.input[0])[1:3]), node.inputs[1].get_tensor_value(as_list=False)
    outputs = {"outputs": node.output, "shapes": node.output_shapes, "dtypes": node.output_dtypes}
    x = graph.make_node("Transpose", [node.input[0]], attr={"perm": [0, 3, 1, 2]}).output[0]
    graph.remove_node(name)
    if not np.any(after % before):
        factors = graph.make_const(f"{name}/factors", np.float32([1, 1, *(after // before)])).output[0]
        attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        x = graph.make_node("Resize", [x, "", factors], attr=attributes).output[0]
    else:
        for i in range(2):
            sources = graph.make_const(f"{name}/sources_{i}", np.arange(after[i]) * before[i] // after[i]).output[0]
            x = graph.make_node("Gather", [x, sources], attr={"axis": 2 + i}).output[0]
    graph.make_node("Transpose", [x], attr={"perm": [0, 2, 3, 1]}, name=name, **outputs)


def _describe(proto, metadata: Metadata) -> None:
    """Says what the model is, and names what tf2onnx gave numbers to."""
    import onnx

    onnx.helper.set_model_props(proto, {METADATA_KEY: metadata.to_json()})
    proto.producer_name, proto.producer_version = "EfficientDet TensorFlow 2", config_lib.VERSION
    proto.doc_string = f"{metadata.config.name}: {CONTENTS[metadata.content]}"
    proto.graph.name = metadata.config.name
    for value in [*proto.graph.input, *proto.graph.output]:
        for dimension, name in zip(value.type.tensor_type.shape.dim, DIMENSIONS):
            if dimension.HasField("dim_param"):
                dimension.dim_param = name


def _try(path: str, metadata: Metadata, batch_size: int) -> None:
    """Opens a file and runs it once: shapes that do not fit fail only then."""
    if metadata.content == "detector":
        inputs = np.zeros([batch_size, *TRIAL_SIZE, 3], np.uint8)
    else:
        inputs = np.zeros([batch_size, *metadata.config.image_size, 3], np.float32)
    try:
        runtimes.Onnx(path).run(inputs)
    except Exception as error:  # of ONNX Runtime's own kinds, which derive from Exception alone
        raise ExportError(f"ONNX Runtime cannot run what was converted: {reason_of(error)}") from error


@contextlib.contextmanager
def _quiet_tf2onnx() -> Iterator[None]:
    """Leaves out what tf2onnx logs of operators it does not know: an error tells them."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
