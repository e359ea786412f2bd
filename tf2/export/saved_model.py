# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Export to TensorFlow's own formats: SavedModel, frozen graph, and TF-TRT."""

import contextlib
import os
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.types.experimental import ConcreteFunction

from dataset import tfrecord
from dataset.files import atomic_path, check_target, files_in, reason_of
from efficientdet import postprocess
from efficientdet.model import EfficientDetModel
from tf2.inference import graph
from tf2.inference import signatures as serving
from tf2.inference.metadata import METADATA_FILE, ExportError, Metadata

TENSORRT_WORKSPACE = 2 << 30  # bytes that TensorRT may use while it looks for the fastest kernels


def saved_model(model: EfficientDetModel, path: str, metadata: Metadata, *, batch_size: int = 1) -> list[str]:
    """Writes a SavedModel.

    Of a detector it has the signatures serving_default, encoded and network: `serving.detector`,
    `serving.encoded_detector` and `serving.network`. Of a network it has serving_default alone: `serving.network`, with
    an argument called `input`.

    Args:
        model: a frozen one, see `serving.frozen`.
        path: a directory that does not exist or is empty.
        metadata: put into its assets.extra; its content says which of the two.
        batch_size: pictures a call; 0 for any number.

    Returns:
        The files written.

    Raises:
        TargetError: if the target exists.
    """
    check_target(path)
    if metadata.content == "network":
        signatures = {"serving_default": serving.network(model.net, model.config, batch_size, name="input")}
    else:
        signatures = {
            "serving_default": serving.detector(model, batch_size),
            "encoded": serving.encoded_detector(model, batch_size),
            "network": serving.network(model.net, model.config, batch_size),
        }
    with atomic_path(path) as folder, _quiet_log():
        tf.saved_model.save(tf.Module(), folder, signatures=signatures)
        _describe(folder, metadata)
    return files_in(path)


def frozen_graph(model: EfficientDetModel, path: str, metadata: Metadata, *, batch_size: int = 1) -> list[str]:
    """Writes a frozen graph with the published nodes.

    Of a detector: `image_files`, [B] strings, are decoded to `image_arrays`, [B, H, W, 3] uint8 of one size, which can
    be fed instead; `detections` is as in `serving.detector`. Of a network: `input`,
    `class_net/class-predict{,_1..}/BiasAdd` and `box_net/box-predict{,_1..}/BiasAdd`, a level each.

    Args:
        model: a frozen one, see `serving.frozen`.
        path: a file that does not exist.
        metadata: put into the graph; its content says which of the two.
        batch_size: pictures a run; 0 for any number.

    Returns:
        The file written.

    Raises:
        TargetError: if the target exists.
    """
    check_target(path)
    if metadata.content == "network":
        function = serving.network(model.net, model.config, batch_size, name="input")
    else:
        function = _published_detector(model, batch_size)
    graph.write(graph.freeze(function), path, metadata)
    return [path]


def _published_detector(model: EfficientDetModel, batch_size: int) -> ConcreteFunction:
    """As `serving.encoded_detector`, of pictures of one size, with the published names."""

    @tf.function(input_signature=[tf.TensorSpec([batch_size or None], tf.string, name="image_files")], autograph=False)
    def serve(image_files):
        picture = tf.TensorSpec([None, None, 3], tf.uint8)
        image_arrays = tf.map_fn(tfrecord.decode_image, image_files, fn_output_signature=picture)
        image_arrays = tf.ensure_shape(image_arrays, [batch_size or None, None, None, 3], name="image_arrays")
        return {"detections": postprocess.to_rows(model(image_arrays))}

    return serve.get_concrete_function()


def check_tensorrt() -> None:
    """Raises ExportError where TF-TRT cannot run, asking the build of TensorFlow and the machine."""
    instead = "use --runmode=onnx, and build the engine from that file with TensorRT's trtexec --onnx=..."
    if not tf.sysconfig.get_build_info().get("is_tensorrt_build"):
        raise ExportError(
            f"--tensorrt needs a TensorFlow built with TensorRT, as 2.15.1 for Linux is, and this is {tf.__version__}; "
            f"{instead}"
        )
    if not tf.config.list_physical_devices("GPU"):
        raise ExportError(f"--tensorrt builds its engines on the GPU they run on, and TensorFlow sees none; {instead}")


def tensorrt(
    saved_model_dir: str, path: str, metadata: Metadata, *, pictures: Iterable[np.ndarray] | None = None
) -> list[str]:
    """Converts a SavedModel by TF-TRT. Never run by the developers, for want of a GPU.

    Args:
        saved_model_dir: of `saved_model`.
        path: a directory that does not exist or is empty.
        metadata: with the precision FP32, FP16 or INT8.
        pictures: for INT8, batches [B, H, W, 3] uint8 that calibrate the ranges.

    Returns:
        The files written.

    Raises:
        ExportError: if TF-TRT cannot run here, or fails.
    """
    check_tensorrt()
    calibrates = metadata.precision == "INT8"
    if calibrates and pictures is None:
        raise ExportError("--tensorrt=INT8 needs pictures to calibrate with: give --file_pattern of TFRecords")
    try:
        converter = tf.experimental.tensorrt.Converter(
            input_saved_model_dir=saved_model_dir,
            precision_mode=metadata.precision,
            use_calibration=calibrates,
            max_workspace_size_bytes=TENSORRT_WORKSPACE,
        )
        inputs = ({"image_arrays": tf.constant(batch)} for batch in pictures) if calibrates else None
        converter.convert(calibration_input_fn=(lambda: inputs) if calibrates else None)
        with atomic_path(path) as folder:
            converter.save(folder)
            _describe(folder, metadata)
    except (RuntimeError, OSError, tf.errors.OpError) as error:
        raise ExportError(f"TF-TRT failed: {reason_of(error)}") from error
    return files_in(path)


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """Leaves out what TensorFlow tells of the files it writes, under names that are changed afterwards."""
    logger = logging.get_absl_logger()
    level = logger.level  # not the verbosity, which is a level even where none is set
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)


def _describe(folder: str, metadata: Metadata) -> None:
    """Puts the metadata where TensorFlow leaves room for the files of others."""
    extra = os.path.join(folder, "assets.extra")
    tf.io.gfile.makedirs(extra)
    with tf.io.gfile.GFile(os.path.join(extra, METADATA_FILE), "w") as file:
        file.write(metadata.to_json())
