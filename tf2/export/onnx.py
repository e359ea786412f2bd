# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Export to ONNX with standard operators: a whole detector, or the network alone."""

import logging
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from absl import logging as log
from tensorflow.types.experimental import ConcreteFunction

from dataset import tfrecord
from dataset.files import atomic_path, check_target, reason_of
from efficientdet import config as config_lib
from efficientdet.model import EfficientDetModel
from tf2.export import onnx_precision, onnx_suppression
from tf2.export.quiet import quiet
from tf2.inference import runtimes, signatures
from tf2.inference.metadata import CONTENTS, METADATA_KEY, ExportError, Metadata, check_calibration

OPSET = 17  # of the standard operators; supported from ONNX Runtime 1.12 and TensorRT 8.6 on
DIMENSIONS = ("batch", "height", "width")  # names of the dynamic dimensions
TRIAL_SIZE = (33, 57)  # (height, width) of the image for the first run: odd, not square, smaller than network inputs


def write(
    model: EfficientDetModel,
    path: str,
    metadata: Metadata,
    *,
    batch_size: int = 1,
    calibration_inputs: Iterable[np.ndarray] | None = None,
) -> list[str]:
    """Writes an ONNX file, using only the standard operators of opset 17.

    The function depends on `metadata.content`:
        detector: `signatures.detector` for images of any height and width.
        network: `signatures.network`.
    The network depends on `metadata.precision`; inputs, outputs, pre- and post-processing are the same in each:
        FP32: unchanged.
        FP16: weights and activations in float16.
        INT8: weights in 8 bits with one scale per channel, activations in 8 bits with one scale per tensor.

    Args:
        model: from `signatures.frozen`.
        path: of a new file, *.onnx.
        metadata: stored in the file's metadata_props.
        batch_size: images per call; 0 for any number.
        calibration_inputs: for INT8, inputs for one image that determine the ranges of all tensors: [1, H, W, 3] uint8
            images of a detector, or [1, height, width, 3] float32 network inputs.

    Returns:
        The written file.

    Raises:
        TargetError: if the target exists.
        ExportError: if the model cannot be exported, see `check`.
    """
    check_target(path)
    check(path, metadata)
    check_calibration(metadata.precision, calibration_inputs)
    import onnx

    function = {
        "detector": lambda: signatures.detector(model, batch_size, resizes_float=True),
        "network": lambda: signatures.network(model.net, model.config, batch_size),
    }[metadata.content]()
    proto = _convert(function)
    if metadata.precision == "FP16":
        onnx_precision.halve(proto)
    with atomic_path(path) as temporary:
        if metadata.precision == "INT8":
            batches = (np.repeat(inputs, batch_size or 1, axis=0) for inputs in calibration_inputs)
            proto = _quantize(proto, batches, temporary)
        _describe(proto, metadata)
        onnx.save(_with_shapes(proto), temporary)
        _run_once(temporary, metadata, batch_size or 1)
    return [path]


def check(path: str, metadata: Metadata) -> None:
    """Raises ExportError, before any work, if ONNX does not support the request or if packages are missing."""
    if not path.endswith(".onnx"):
        raise ExportError(f"an ONNX file is recognized by its name: expected *.onnx, got {path}")
    if metadata.content not in ("detector", "network"):
        raise ExportError(f"an ONNX file holds a detector or a network, got {metadata.content}")
    # tf2onnx would silently turn it into hard NMS.
    if metadata.content == "detector" and metadata.config.nms_configs.method == "gaussian":
        raise ExportError("ONNX has no gaussian NMS; use --nms_method=hard, or --onnx_content=network")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"ONNX needs additional packages: python -m pip install -r requirements-onnx.txt ({error})"
        ) from error


def _convert(function: ConcreteFunction):
    """Converts a function to an onnx.ModelProto, and checks it."""
    import onnx
    from tf2onnx import convert

    (signature,), _ = function.structured_input_signature
    try:
        with quiet("tf2onnx", logging.CRITICAL):  # unknown operators, which the error names as well
            proto, _ = convert.from_function(
                tf.function(function, autograph=False),  # tf2onnx expects a function that it can trace itself
                [signature],
                opset=OPSET,
                custom_op_handlers={
                    "AddN": (_convert_add_n, []),
                    "ResizeNearestNeighbor": (_convert_nearest, []),
                },
            )
        # tf2onnx also declares the operator set ai.onnx.ml, which no node uses.
        del proto.opset_import[:]
        proto.opset_import.append(onnx.helper.make_opsetid("", OPSET))
        onnx_suppression.unroll(proto)
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # tf2onnx and onnx raise classes without a common base
        raise ExportError(f"TensorFlow's graph could not be converted to ONNX: {reason_of(error)}") from error
    return proto


def _quantize(proto, batches: Iterable[np.ndarray], path: str):
    """Returns a quantized onnx.ModelProto, see `onnx_precision.quantize`; uses `path` as a temporary file."""
    import onnx

    log.info("calibrating: running images through the network to measure the ranges of its tensors")
    try:
        count = onnx_precision.quantize(proto, batches, path)
    except (tfrecord.DataError, ExportError):  # from reading the calibration images
        raise
    except Exception as error:  # ONNX Runtime's classes derive directly from Exception
        raise ExportError(f"ONNX Runtime could not quantize the network: {reason_of(error)}") from error
    log.info("calibrated with %d images", count)
    return onnx.load(path)


def _convert_add_n(graph, node, name, args) -> None:
    """Converts AddN in a tf2onnx graph to a chain of Add: ((x_0 + x_1) + x_2) + ..., as TensorFlow computes it.

    tf2onnx itself uses Sum, of which OpenCV 4.11 and 4.12 add only some of three inputs, without an error.
    """
    total, *others = node.input
    outputs = {"outputs": node.output, "shapes": node.output_shapes, "dtypes": node.output_dtypes}
    graph.remove_node(name)
    for other in others[:-1]:
        total = graph.make_node("Add", [total, other]).output[0]
    graph.make_node("Add", [total, others[-1]], name=name, **outputs)


def _convert_nearest(graph, node, name, args) -> None:
    """Converts ResizeNearestNeighbor in a tf2onnx graph: out[i] = x[floor(i * before / after)] on both axes.

    tf2onnx itself uses Resize with factors, which is exact for integer factors only: 3 * float32(5 / 3) is not 5.
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
    """Adds the metadata, and names the graph and its dynamic dimensions."""
    import onnx

    onnx.helper.set_model_props(proto, {METADATA_KEY: metadata.to_json()})
    proto.producer_name, proto.producer_version = "EfficientDet TensorFlow 2", config_lib.VERSION
    proto.doc_string = f"{metadata.config.name}: {CONTENTS[metadata.content]}"
    proto.graph.name = metadata.config.name
    for value in [*proto.graph.input, *proto.graph.output]:
        for dimension, name in zip(value.type.tensor_type.shape.dim, DIMENSIONS):
            if dimension.HasField("dim_param"):
                dimension.dim_param = name


def _with_shapes(proto):
    """Returns an onnx.ModelProto with types and shapes of all tensors, without which onnxslim fails for detectors."""
    import onnx

    del proto.graph.value_info[:]  # quantization leaves some, with other names of the dynamic dimensions
    return onnx.shape_inference.infer_shapes(proto)


def _run_once(path: str, metadata: Metadata, batch_size: int) -> None:
    """Loads a file and runs it once, because mismatched shapes fail only then."""
    if metadata.content == "detector":
        inputs = np.zeros([batch_size, *TRIAL_SIZE, 3], np.uint8)
    else:
        inputs = np.zeros([batch_size, *metadata.config.image_size, 3], np.float32)
    try:
        runtimes.Onnx(path).run(inputs)
    except Exception as error:  # ONNX Runtime's classes derive directly from Exception
        raise ExportError(f"ONNX Runtime cannot run the converted file: {reason_of(error)}") from error
