# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Export to TensorFlow Lite: a whole detector, one that ends in TFLite's detection op, or the network alone."""

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
from efficientdet import nms, postprocess
from efficientdet.config import Config
from efficientdet.model import EfficientDetModel
from tf2.inference import runtimes, signatures
from tf2.inference.metadata import ArtifactError, ExportError, Metadata, append_zip

OP = "TFLite_Detection_PostProcess"
TRIAL_SIZE = (33, 57)  # of the picture that a new file is tried with: odd, not square, smaller than any network input


def write(
    model: EfficientDetModel, path: str, metadata: Metadata, *, representative: Iterable[np.ndarray] | None = None
) -> list[str]:
    """Writes a TFLite file of builtin ops, and TFLite's detection op where asked for; it takes one picture a call.

    By `metadata.content`, with one signature, serving_default:
        detector: `serving.detector`; H and W of a picture are free.
        detection_op: see `detection_op`.
        network: `serving.network`.
    By `metadata.precision`, FP32: as it is. FP16: kernels of dense convolutions, nearly all weights, of 16 bits.
    INT8: weights and activations of 8 bits, a scale for each channel of a weight and one for each tensor between; the
    file takes `images` as uint8, and gives uint8, or float from the detection op; the scales stand in the file.

    Args:
        model: a frozen one, see `serving.frozen`.
        path: a file that does not exist, *.tflite.
        metadata: of the file, put into it.
        representative: for INT8, network inputs [1, height, width, 3] float32, which show the range of every tensor.

    Returns:
        The file written.

    Raises:
        TargetError: if the target exists.
        ExportError: if TFLite cannot do it; see `check`.

    Reference: Jacob et al., CVPR 2018, section 2 (https://arxiv.org/abs/1712.05877), for INT8.
    """
    check_target(path)
    check(path, metadata)
    if metadata.precision == "INT8" and representative is None:
        raise ExportError("INT8 needs pictures that show the range of every tensor: give --file_pattern of TFRecords")
    function = {
        "detector": lambda: signatures.detector(model, resizes_float=True),
        "detection_op": lambda: detection_op(model),
        "network": lambda: signatures.network(model.net, model.config),
    }[metadata.content]()
    flatbuffer = _convert(function, metadata, representative)
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(flatbuffer)
        append_zip(temporary, metadata)
        _try(temporary, metadata)
    return [path]


def check(path: str, metadata: Metadata, batch_size: int = 1) -> None:
    """Raises ExportError for what TFLite has not; asked before the work begins."""
    nms_configs, content, precision = metadata.config.nms_configs, metadata.content, metadata.precision
    if not path.endswith(".tflite"):
        raise ExportError(f"a TFLite file is told by its name: expected *.tflite, got {path}")
    if batch_size != 1:
        raise ExportError(f"a TFLite file takes one picture a call, got --batch_size={batch_size}; use 1")
    if content == "detector" and precision == "INT8":
        raise ExportError(
            "INT8 is for the network: sizes and boxes in pixels do not fit into 8 bits; choose the content "
            "detection_op or network, or FP16 for a whole detector"
        )
    if content == "detector" and nms_configs.method == "gaussian" and nms_configs.max_nms_inputs:
        # One anchor comes with several classes, so with equal boxes, of which TFLite's op drops all but one.
        raise ExportError(
            "TFLite's gaussian NMS takes every anchor with its best class, got nms_configs.max_nms_inputs="
            f"{nms_configs.max_nms_inputs}; set it to 0, or use --nms_method=hard"
        )
    if content == "detection_op" and nms_configs.method == "gaussian":
        raise ExportError(f"{OP} has no gaussian NMS; use --nms_method=hard, or the content detector or network")
    if content == "detection_op" and nms_configs.max_nms_inputs:
        raise ExportError(
            f"{OP} takes every anchor with its best class, got nms_configs.max_nms_inputs="
            f"{nms_configs.max_nms_inputs}; set it to 0, or use the content detector or network"
        )


def representative_inputs(file_pattern: str, config: Config, count: int) -> Iterator[np.ndarray]:
    """The first pictures of TFRecords as network inputs [1, height, width, 3] float32.

    Args:
        file_pattern: of the records.
        config: of the network.
        count: pictures at most; 100 to 500 do.

    Raises:
        ValueError: if no file matches, or none holds a record that can be read.
    """
    dataset = dataloader.InputReader(file_pattern, config).evaluation(1, count)
    return (images.numpy() for images, _ in dataloader.batches(dataset))


def detection_op(model: EfficientDetModel) -> ConcreteFunction:
    """Network inputs to detections by TFLite's own op, which decodes, chooses and suppresses.

    It takes `images`, [1, height, width, 3] float32, normalized, and gives, by falling score:
        output_0: [1] float32, number of detections; from there on, rows mean nothing.
        output_1: [1, D] float32, scores.
        output_2: [1, D] float32, classes from 0.
        output_3: [1, D, 4] float32, [ymin, xmin, ymax, xmax] in parts of the network input.

    Only the converter puts the op in; called in TensorFlow, the function gives zeros.
    """
    size = model.nms_options.max_output_size
    images = tf.TensorSpec([1, *model.config.image_size, 3], tf.float32, name="images")

    @tf.function(experimental_implements=_op_attributes(model), autograph=False)
    def op(codes, scores, anchors):
        return tf.zeros([1, size, 4]), tf.zeros([1, size]), tf.zeros([1, size]), tf.zeros([1])

    @tf.function(input_signature=[images], autograph=False)
    def serve(images):
        boxes, classes, scores, count = op(*postprocess.tflite_form(*model.net(images, training=False), model.anchors))
        return {"output_0": count, "output_1": scores, "output_2": classes, "output_3": boxes}

    return serve.get_concrete_function()


def _op_attributes(model: EfficientDetModel) -> str:
    """Name and attributes of the op in the text form of an attribute list, by which the converter knows it."""
    options = model.nms_options
    attributes = {
        "max_detections": f"i: {options.max_output_size}",
        "max_classes_per_detection": "i: 1",
        "use_regular_nms": "b: false",  # one suppression for all classes
        "nms_score_threshold": f"f: {options.score_thresh or float('-inf'):.6f}",
        "nms_iou_threshold": f"f: {nms.hard_iou_thresh(options):.6f}",
        **{f"{code}_scale": "f: 1.000000" for code in "yxhw"},
        "num_classes": f"i: {model.config.num_classes}",
    }
    return " ".join(
        [f'name: "{OP}"', *(f'attr {{ key: "{key}" value {{ {value} }} }}' for key, value in attributes.items())]
    )


def _convert(function: ConcreteFunction, metadata: Metadata, representative: Iterable[np.ndarray] | None) -> bytes:
    """The flatbuffer."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    num_images = 0

    def calibration():
        nonlocal num_images
        for image in representative:
            num_images += 1
            yield [image]

    if metadata.precision == "INT8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        logging.info("running pictures through the network, to see the range of every tensor")
        converter.representative_dataset = calibration
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        if metadata.content == "detection_op":  # is of float
            converter.target_spec.supported_ops.append(tf.lite.OpsSet.TFLITE_BUILTINS)
        else:
            converter.inference_output_type = tf.uint8
    try:
        with runtimes.quiet_tflite():
            flatbuffer = converter.convert()
    except tfrecord.DataError:  # from the pictures
        raise
    except Exception as error:  # of its own kind, which derives from Exception alone
        reason = reason_of(error).rpartition("error: ")[-1]  # without the place in TensorFlow's code
        raise ExportError(f"TensorFlow could not convert to TFLite: {reason}") from error
    if metadata.precision == "INT8":
        if not num_images:  # TensorFlow would take any range for right
            raise ExportError("INT8 needs pictures that show the range of every tensor, and there are none")
        logging.info("ranges seen in %d pictures", num_images)
    return _halve_kernels(flatbuffer) if metadata.precision == "FP16" else flatbuffer


def _halve_kernels(flatbuffer: bytes) -> bytes:
    """Stores the kernels of dense convolutions in 16 bits, with an op that makes 32 of them when the file is loaded.

    TFLite's own way halves depthwise kernels and biases, too. They are 7 % of the weights of EfficientDet-Lite0, and
    are where most of the error comes from: on blood cells, without them at most 0.006 in place of 0.016.
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
        if buffer.data is None:  # computed, not a constant
            continue
        half = np.frombuffer(bytes(buffer.data), np.float32).astype(np.float16)
        model.buffers.append(_object(schema.BufferT, data=np.frombuffer(half.tobytes(), np.uint8)))
        narrow = copy.copy(wide)
        narrow.name, narrow.type, narrow.buffer = wide.name + b"/16", schema.TensorType.FLOAT16, len(model.buffers) - 1
        graph.tensors.append(narrow)
        wide.buffer = 0  # which stands for: computed
        op = _object(schema.OperatorT, opcodeIndex=len(codes), inputs=[len(graph.tensors) - 1], outputs=[index])
        graph.operators.insert(0, op)
    unused = set(range(1, len(model.buffers))) - {
        tensor.buffer for graph in model.subgraphs for tensor in graph.tensors
    }
    for index in unused - {metadata.buffer for metadata in model.metadata or ()}:
        model.buffers[index].data = None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _object(kind: type, **attributes):
    """A part of a flatbuffer; TensorFlow 2.15 takes no attributes when one is made."""
    made = kind()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def _try(path: str, metadata: Metadata) -> None:
    """Opens a file and runs it once: the converter takes ops and shapes that fail only then."""
    size = TRIAL_SIZE if metadata.content == "detector" else metadata.config.image_size
    try:
        runtimes.TFLite(path).run(np.zeros([1, *size, 3], np.uint8))
    except (ArtifactError, RuntimeError) as error:
        raise ExportError(f"TFLite cannot run what TensorFlow converted: {reason_of(error)}") from error
