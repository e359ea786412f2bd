# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Export to TensorFlow Lite: a whole detector, the network with TFLite's detection op, or the network alone."""

import copy
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils
from tensorflow.types.experimental import ConcreteFunction

from dataset import dataloader, tfrecord
from dataset.files import atomic_path, check_target, reason_of
from efficientdet import postprocess
from efficientdet.config import Config
from efficientdet.model import EfficientDetModel
from tf2.inference import runtimes, signatures
from tf2.inference.metadata import ArtifactError, ExportError, Metadata, append_zip

OP = "TFLite_Detection_PostProcess"
TRIAL_SIZE = (33, 57)  # (height, width) of the image for the first run: odd, not square, smaller than network inputs


def write(
    model: EfficientDetModel, path: str, metadata: Metadata, *, calibration_inputs: Iterable[np.ndarray] | None = None
) -> list[str]:
    """Writes a TFLite file for one image per call, of builtin ops and, on request, TFLite's detection op.

    The signature serving_default depends on `metadata.content`:
        detector: `signatures.detector` for images of any height and width.
        detection_op: see `detection_op`.
        network: `signatures.network`.
    The weights depend on `metadata.precision`:
        FP32: unchanged.
        FP16: kernels of dense convolutions, nearly all weights, in 16 bits.
        INT8: weights in 8 bits with one scale per channel, activations in 8 bits with one scale per tensor. The input
            `images` is uint8; outputs are uint8, or float from the detection op. The scales are stored in the file.

    Args:
        model: from `signatures.frozen`.
        path: of a new file, *.tflite.
        metadata: stored in the file.
        calibration_inputs: for INT8, network inputs [1, height, width, 3] float32 that determine the ranges of all
            tensors.

    Returns:
        The written file.

    Raises:
        TargetError: if the target exists.
        ExportError: if the model cannot be exported, see `check`.

    Reference: Jacob et al., CVPR 2018, section 2 (https://arxiv.org/abs/1712.05877), for INT8.
    """
    check_target(path)
    check(path, metadata)
    if metadata.precision == "INT8" and calibration_inputs is None:
        raise ExportError("INT8 needs calibration images: give --file_pattern of TFRecords")
    function = {
        "detector": lambda: signatures.detector(model, resizes_float=True),
        "detection_op": lambda: detection_op(model),
        "network": lambda: signatures.network(model.net, model.config),
    }[metadata.content]()
    flatbuffer = _convert(function, metadata, calibration_inputs)
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(flatbuffer)
        append_zip(temporary, metadata)
        _run_once(temporary, metadata)
    return [path]


def check(path: str, metadata: Metadata, batch_size: int = 1) -> None:
    """Raises ExportError, before any work, if TFLite does not support the request."""
    nms_configs, content, precision = metadata.config.nms_configs, metadata.content, metadata.precision
    if not path.endswith(".tflite"):
        raise ExportError(f"a TFLite file is recognized by its name: expected *.tflite, got {path}")
    if batch_size != 1:
        raise ExportError(f"a TFLite file takes one image per call, got --batch_size={batch_size}; use 1")
    if content == "detector" and precision == "INT8":
        raise ExportError(
            "INT8 applies to the network only, as boxes in pixels do not fit into 8 bits; choose the content "
            "detection_op or network, or FP16 for a whole detector"
        )
    if content == "detector" and nms_configs.method == "gaussian" and nms_configs.max_nms_inputs:
        # With max_nms_inputs an anchor occurs once per class; TFLite's op keeps only one of several equal boxes.
        raise ExportError(
            "TFLite's gaussian NMS uses only the best class of each anchor, got nms_configs.max_nms_inputs="
            f"{nms_configs.max_nms_inputs}; set it to 0, or use --nms_method=hard"
        )
    if content == "detection_op" and nms_configs.method == "gaussian":
        raise ExportError(f"{OP} has no gaussian NMS; use --nms_method=hard, or the content detector or network")
    if content == "detection_op" and nms_configs.max_nms_inputs:
        raise ExportError(
            f"{OP} uses only the best class of each anchor, got nms_configs.max_nms_inputs="
            f"{nms_configs.max_nms_inputs}; set it to 0, or use the content detector or network"
        )


def calibration_inputs(file_pattern: str, config: Config, count: int) -> Iterator[np.ndarray]:
    """Returns the first images of TFRecords as network inputs [1, height, width, 3] float32.

    Args:
        file_pattern: of the records.
        config: of the network.
        count: maximum number of images; 100 to 500 suffice.

    Raises:
        ValueError: if no file matches, or no record can be read.
    """
    dataset = dataloader.InputReader(file_pattern, config).evaluation(1, count)
    return (images.numpy() for images, _ in dataloader.batches(dataset))


def detection_op(model: EfficientDetModel) -> ConcreteFunction:
    """The network followed by TFLite's detection op, which decodes boxes and applies NMS.

    The input `images` is [1, height, width, 3] float32, normalized. The outputs are sorted by descending score:
        output_0: [1] float32, number of detections; later rows are undefined.
        output_1: [1, D] float32, scores.
        output_2: [1, D] float32, 0-based classes.
        output_3: [1, D, 4] float32, [ymin, xmin, ymax, xmax] in [0, 1] of the network input.

    The op is inserted by the converter; in TensorFlow the function returns zeros.
    """
    size = model.config.nms_configs.max_output_size
    images = tf.TensorSpec([1, *model.config.image_size, 3], tf.float32, name="images")

    @tf.function(experimental_implements=_op_attributes(model), autograph=False)
    def op(codes, scores, anchors):
        return tf.zeros([1, size, 4]), tf.zeros([1, size]), tf.zeros([1, size]), tf.zeros([1])

    @tf.function(input_signature=[images], autograph=False)
    def serve(images):
        boxes, classes, scores, count = op(
            *postprocess.tflite_op_inputs(*model.net(images, training=False), model.anchors)
        )
        return {"output_0": count, "output_1": scores, "output_2": classes, "output_3": boxes}

    return serve.get_concrete_function()


def _op_attributes(model: EfficientDetModel) -> str:
    """Name and attributes of the op as a text-format attribute list, from which the converter recognizes it."""
    nms_configs = model.config.nms_configs
    attributes = {
        "max_detections": f"i: {nms_configs.max_output_size}",
        "max_classes_per_detection": "i: 1",
        "use_regular_nms": "b: false",  # NMS over all classes together
        "nms_score_threshold": f"f: {nms_configs.min_score:.6f}",
        "nms_iou_threshold": f"f: {nms_configs.hard_iou_thresh:.6f}",
        **{f"{code}_scale": "f: 1.000000" for code in "yxhw"},
        "num_classes": f"i: {model.config.num_classes}",
    }
    return " ".join(
        [f'name: "{OP}"', *(f'attr {{ key: "{key}" value {{ {value} }} }}' for key, value in attributes.items())]
    )


def _convert(function: ConcreteFunction, metadata: Metadata, inputs: Iterable[np.ndarray] | None) -> bytes:
    """Converts a function to a flatbuffer; `inputs` are those of the calibration."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    num_images = 0

    def calibration():
        nonlocal num_images
        for image in inputs:
            num_images += 1
            yield [image]

    if metadata.precision == "INT8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        logging.info("calibrating: running images through the network to measure the ranges of its tensors")
        converter.representative_dataset = calibration
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        if metadata.content == "detection_op":  # a float op
            converter.target_spec.supported_ops.append(tf.lite.OpsSet.TFLITE_BUILTINS)
        else:
            converter.inference_output_type = tf.uint8
    try:
        with runtimes.quiet_tflite():
            flatbuffer = converter.convert()
    except tfrecord.DataError:  # from reading the calibration images
        raise
    except Exception as error:  # the converter's class derives directly from Exception
        reason = reason_of(error).rpartition("error: ")[-1]  # without the position in TensorFlow's source
        raise ExportError(f"TensorFlow could not convert to TFLite: {reason}") from error
    if metadata.precision == "INT8":
        if not num_images:  # TensorFlow would accept arbitrary ranges
            raise ExportError("INT8 needs calibration images, but the records have none; check --file_pattern")
        logging.info("calibrated with %d images", num_images)
    return _halve_kernels(flatbuffer) if metadata.precision == "FP16" else flatbuffer


def _halve_kernels(flatbuffer: bytes) -> bytes:
    """Stores the kernels of dense convolutions in 16 bits, with an op that converts them to 32 bits at load time.

    TFLite's own FP16 mode also halves depthwise kernels and biases. They are 7 % of the weights of EfficientDet-Lite0
    and cause most of the error: on blood cells the largest error is 0.006 without them and 0.016 with them.
    """
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(flatbuffer))
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    widen = schema.BuiltinOperator.DEQUANTIZE
    code = _object(schema.OperatorCodeT, deprecatedBuiltinCode=widen, builtinCode=widen, version=3)
    model.operatorCodes.append(code)
    graph = model.subgraphs[0]
    kernels = {op.inputs[1] for op in graph.operators if codes[op.opcodeIndex] == schema.BuiltinOperator.CONV_2D}
    for index in sorted(kernels):
        wide = graph.tensors[index]
        buffer = model.buffers[wide.buffer]
        if buffer.data is None:  # a computed tensor, not a constant
            continue
        half = np.frombuffer(bytes(buffer.data), np.float32).astype(np.float16)
        model.buffers.append(_object(schema.BufferT, data=np.frombuffer(half.tobytes(), np.uint8)))
        narrow = copy.copy(wide)
        narrow.name, narrow.type, narrow.buffer = wide.name + b"/16", schema.TensorType.FLOAT16, len(model.buffers) - 1
        graph.tensors.append(narrow)
        wide.buffer = 0  # marks a computed tensor
        op = _object(schema.OperatorT, opcodeIndex=len(codes), inputs=[len(graph.tensors) - 1], outputs=[index])
        graph.operators.insert(0, op)
    unused = set(range(1, len(model.buffers))) - {
        tensor.buffer for graph in model.subgraphs for tensor in graph.tensors
    }
    for index in unused - {metadata.buffer for metadata in model.metadata or ()}:
        model.buffers[index].data = None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _object(kind: type, **attributes):
    """Creates a flatbuffer object; TensorFlow 2.15 has no constructor with attributes."""
    created = kind()
    for name, value in attributes.items():
        setattr(created, name, value)
    return created


def _run_once(path: str, metadata: Metadata) -> None:
    """Loads a file and runs it once, because unsupported ops and mismatched shapes fail only then."""
    size = TRIAL_SIZE if metadata.content == "detector" else metadata.config.image_size
    try:
        runtimes.TFLite(path).run(np.zeros([1, *size, 3], np.uint8))
    except (ArtifactError, RuntimeError) as error:
        raise ExportError(f"TFLite cannot run the converted file: {reason_of(error)}") from error
