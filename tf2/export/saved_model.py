# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Export to TensorFlow's formats: SavedModel, frozen graph and TF-TRT."""

import logging
import os
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.saved_model.fingerprinting_utils import write_fingerprint
from tensorflow.types.experimental import ConcreteFunction

from dataset import tfrecord
from dataset.file_search import files_in
from dataset.files import atomic_path, check_target, read_file, reason_of, write_file
from efficientdet import postprocess
from efficientdet.model import EfficientDetModel
from tf2.export.quiet import quiet
from tf2.inference import constants, graph, signatures
from tf2.inference.metadata import METADATA_FILE, ExportError, Metadata, check_calibration

TENSORRT_WORKSPACE = 2 << 30  # bytes that TensorRT may use while it selects kernels


def saved_model(model: EfficientDetModel, path: str, metadata: Metadata, *, batch_size: int = 1) -> list[str]:
    """Writes a SavedModel.

    The signatures depend on `metadata.content`:
        detector: serving_default is `signatures.detector`, encoded `signatures.encoded_detector`, network
            `signatures.network`.
        network: serving_default is `signatures.network`, with the argument `input`.

    Args:
        model: from `signatures.frozen`.
        path: of a new or empty folder.
        metadata: stored in its assets.extra.
        batch_size: images per call; 0 for any number.

    Returns:
        The written files.

    Raises:
        TargetError: if the target exists.
    """
    check_target(path)
    model, values = signatures.without_constants(model)
    if metadata.content == "network":
        functions = {"serving_default": signatures.network(model.net, model.config, batch_size, name="input")}
    else:
        functions = {
            "serving_default": signatures.detector(model, batch_size),
            "encoded": signatures.encoded_detector(model, batch_size),
            "network": signatures.network(model.net, model.config, batch_size),
        }
    # TensorFlow logs the files it writes, whose names are temporary.
    with atomic_path(path) as folder, quiet("absl", logging.WARNING):
        tf.saved_model.save(tf.Module(), folder, signatures=functions)
        write_file(os.path.join(folder, "saved_model.pb"), _with_constants(folder, values))
        write_fingerprint(folder)
        _write_metadata(folder, metadata)
    return files_in(path)


def _with_constants(folder: str, values: dict[bytes, bytes]) -> bytes:
    """Returns the content of saved_model.pb with the weights, without which it was saved."""
    stored = SavedModel.FromString(read_file(os.path.join(folder, "saved_model.pb")))
    for function in stored.meta_graphs[0].graph_def.library.function:
        constants.restore(function.node_def, values)
    return stored.SerializeToString(deterministic=True)


def frozen_graph(model: EfficientDetModel, path: str, metadata: Metadata, *, batch_size: int = 1) -> list[str]:
    """Writes a frozen graph with the published node names.

    The nodes depend on `metadata.content`:
        detector: `image_files`, [B] strings, is decoded to `image_arrays`, [B, H, W, 3] uint8 of one size, which can be
            fed instead; `detections` is as in `signatures.detector`.
        network: `input`; per level `class_net/class-predict{,_1..}/BiasAdd` and `box_net/box-predict{,_1..}/BiasAdd`.

    Args:
        model: from `signatures.frozen`.
        path: of a new file.
        metadata: stored in the graph.
        batch_size: images per run; 0 for any number.

    Returns:
        The written file.

    Raises:
        TargetError: if the target exists.
    """
    check_target(path)
    model, values = signatures.without_constants(model)
    if metadata.content == "network":
        function = signatures.network(model.net, model.config, batch_size, name="input")
    else:
        function = _published_detector(model, batch_size)
    frozen = graph.freeze(function)
    constants.restore(frozen.graph_def.node, values)
    graph.write(frozen, path, metadata)
    return [path]


def _published_detector(model: EfficientDetModel, batch_size: int) -> ConcreteFunction:
    """Like `signatures.encoded_detector` for images of one size, with the published names; EXIF is ignored."""

    @tf.function(input_signature=[tf.TensorSpec([batch_size or None], tf.string, name="image_files")], autograph=False)
    def serve(image_files):
        image = tf.TensorSpec([None, None, 3], tf.uint8)
        image_arrays = tf.map_fn(tfrecord.decode_image, image_files, fn_output_signature=image)
        image_arrays = tf.ensure_shape(image_arrays, [batch_size or None, None, None, 3], name="image_arrays")
        return {"detections": postprocess.to_rows(model(image_arrays))}

    return serve.get_concrete_function()


def check_tensorrt() -> None:
    """Raises ExportError if this build of TensorFlow or this machine cannot run TF-TRT."""
    instead = "use --runmode=onnx, and build the engine from that file with TensorRT's trtexec --onnx=..."
    if not tf.sysconfig.get_build_info().get("is_tensorrt_build"):
        raise ExportError(
            f"--tensorrt needs a TensorFlow built with TensorRT, such as 2.15.1 for Linux; this is {tf.__version__}; "
            f"{instead}"
        )
    if not tf.config.list_physical_devices("GPU"):
        raise ExportError(
            f"--tensorrt builds its engines on the GPU they run on, but TensorFlow finds no GPU; {instead}"
        )


def tensorrt(
    saved_model_dir: str, path: str, metadata: Metadata, *, calibration_batches: Iterable[np.ndarray] | None = None
) -> list[str]:
    """Converts a SavedModel with TF-TRT. Not tested: the developers had no GPU.

    Args:
        saved_model_dir: written by `saved_model`.
        path: of a new or empty folder.
        metadata: with the precision FP32, FP16 or INT8.
        calibration_batches: for INT8, batches of images [B, H, W, 3] uint8.

    Returns:
        The written files.

    Raises:
        ExportError: if TF-TRT is not available or fails.
    """
    check_tensorrt()
    calibrates = metadata.precision == "INT8"
    check_calibration(metadata.precision, calibration_batches)
    try:
        converter = tf.experimental.tensorrt.Converter(
            input_saved_model_dir=saved_model_dir,
            precision_mode=metadata.precision,
            use_calibration=calibrates,
            max_workspace_size_bytes=TENSORRT_WORKSPACE,
        )
        inputs = ({"image_arrays": tf.constant(batch)} for batch in calibration_batches) if calibrates else None
        converter.convert(calibration_input_fn=(lambda: inputs) if calibrates else None)
        with atomic_path(path) as folder:
            converter.save(folder)
            _write_metadata(folder, metadata)
    except (RuntimeError, OSError, tf.errors.OpError) as error:
        raise ExportError(f"TF-TRT failed: {reason_of(error)}") from error
    return files_in(path)


def _write_metadata(folder: str, metadata: Metadata) -> None:
    """Writes the metadata to assets.extra, the folder that TensorFlow reserves for other files."""
    extra = os.path.join(folder, "assets.extra")
    tf.io.gfile.makedirs(extra)
    with tf.io.gfile.GFile(os.path.join(extra, METADATA_FILE), "w") as file:
        file.write(metadata.to_json())
