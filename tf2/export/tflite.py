# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Export to TensorFlow Lite: a whole detector, the network with TFLite's detection op, or the network alone."""

from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.types.experimental import ConcreteFunction

from dataset import dataloader, tfrecord
from dataset.files import atomic_path, check_target, reason_of
from efficientdet import postprocess
from efficientdet.config import Config
from efficientdet.model import EfficientDetModel
from tf2.export import tflite_metadata, tflite_model
from tf2.inference import runtimes, signatures
from tf2.inference.metadata import METADATA_FILE, ArtifactError, ExportError, Metadata, append_zip, check_calibration

OP = "TFLite_Detection_PostProcess"
OP_OUTPUTS = ("output_3", "output_2", "output_1", "output_0")  # order of the tensors: boxes, classes, scores, count
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
            With one mean and stddev for all channels, the scale of the input is 1 / stddev and its zero point the
            mean, so that pixels of an image need no quantization.

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
    check_calibration(metadata.precision, calibration_inputs)
    _warn_of_means(path, metadata)
    function = {
        "detector": lambda: signatures.detector(model, resizes_float=True),
        "detection_op": lambda: detection_op(model),
        "network": lambda: signatures.network(model.net, model.config),
    }[metadata.content]()
    flatbuffer = _convert(function, metadata, calibration_inputs)
    options, files = {}, {METADATA_FILE: metadata.to_json()}
    if metadata.content == "detection_op":
        options["outputs"] = OP_OUTPUTS
        options["metadata"] = {tflite_metadata.METADATA_NAME: tflite_metadata.detection_op(metadata.config)}
        if labels := tflite_metadata.labels(metadata.config):
            files[tflite_metadata.LABELS_FILE] = labels
    flatbuffer = tflite_model.edit(flatbuffer, halves_kernels=metadata.precision == "FP16", **options)
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(flatbuffer)
        append_zip(temporary, files)
        _run_once(temporary, metadata)
    return [path]


def _warn_of_means(path: str, metadata: Metadata) -> None:
    """Warns about a file with the detection op whose normalization MediaPipe does not support."""
    if metadata.content != "detection_op" or tflite_metadata.has_one_mean(metadata.config):
        return
    remedy = "or normalize and quantize the pixels" if metadata.precision == "INT8" else "or the TFLite Task Library"
    logging.warning(
        "%s is not for MediaPipe, which supports only one mean and stddev for all channels, but mean_rgb or "
        "stddev_rgb differ, as in D0 to D7x; use a lite model, %s",
        path,
        remedy,
    )


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
            yield [image if num_images else _with_extremes(image, metadata.config)]
            num_images += 1

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
    return flatbuffer


def _with_extremes(image: np.ndarray, config: Config) -> np.ndarray:
    """Returns a network input, [1, height, width, 3] float32, whose first pixels are replaced by black and white.

    As they are the limits of all inputs, the scale of the input does not depend on the calibration images. Images
    without bright pixels would saturate the brighter ones of other images.
    """
    mean, stddev = tflite_metadata.normalization(config)
    image = image.copy()
    image[0, 0, :2] = [-mean / stddev, (255 - mean) / stddev]
    return image


def _run_once(path: str, metadata: Metadata) -> None:
    """Loads a file and runs it once, because unsupported ops and mismatched shapes fail only then."""
    size = TRIAL_SIZE if metadata.content == "detector" else metadata.config.image_size
    try:
        runtimes.TFLite(path).run(np.zeros([1, *size, 3], np.uint8))
    except (ArtifactError, RuntimeError) as error:
        raise ExportError(f"TFLite cannot run the converted file: {reason_of(error)}") from error
