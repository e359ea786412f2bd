# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The exporting run modes: writes the requested files, and checks each for parity with its checkpoint."""

import contextlib
import dataclasses
import errno
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from dataset import records
from dataset.check import checks
from dataset.check.class_ids import NamedIds
from dataset.convert import image_file
from dataset.dataloader import InputReader
from dataset.files import TargetError, check_target, reason_of
from efficientdet.config import Config
from efficientdet.model import EfficientDetModel
from tf2.evaluation.evaluator import Evaluation
from tf2.export import memory, onnx, parity, saved_model, tflite
from tf2.inference import images, signatures
from tf2.inference.drivers import KerasDriver
from tf2.inference.metadata import Metadata, check_calibration
from tf2.weights import class_names


@dataclasses.dataclass(frozen=True)
class Targets:
    """The files to write; those that are None are skipped."""

    saved_model_dir: str | None = None
    frozen_graph: str | None = None  # a .pb file
    tflite: str | None = None  # a .tflite file
    onnx: str | None = None  # an .onnx file
    tensorrt_dir: str | None = None  # the SavedModel of saved_model_dir, converted
    content: str = "detector"  # of all files except tflite: detector or network
    tflite_content: str = "detector"  # a key of CONTENTS
    tflite_precision: str = "FP32"  # FP32, FP16 or INT8
    onnx_precision: str = "FP32"  # FP32, FP16 or INT8
    tensorrt_precision: str = "FP32"  # FP32, FP16 or INT8
    batch_size: int = 1  # images per call; 0 for any number
    file_pattern: str | None = None  # TFRecords with calibration images for INT8
    num_calibration_steps: int = 500  # maximum number of calibration images


@dataclasses.dataclass(frozen=True)
class ParityOptions:
    """The data of the parity check, see `parity.check`."""

    input_image: str | None = None  # see `images.find_images`; None generates images
    evaluation: Evaluation | None = None  # records to compare AP on; None skips AP
    max_ap_drop: float = parity.MAX_AP_DROP


def run(config: Config, ckpt_path: str | None, targets: Targets, parity_options: ParityOptions | None) -> None:
    """Exports a checkpoint; everything that can be checked is checked before the network is built.

    Args:
        config: of the detector, with the NMS that exported detectors apply; without a label_map, the files get the
            class names of the checkpoint.
        ckpt_path: see `checkpoint.find`; None for random weights.
        targets: files to write.
        parity_options: data of the parity check; None skips the check.

    Raises:
        ValueError: see `check` and `write`; also if images or records of the parity check cannot be read, or class
            names have other ids than in the checkpoint.
    """
    memory.set_up()
    config, known = class_names.of_detector(config, ckpt_path)
    check(config, targets)
    arguments = _parity_arguments(config, parity_options, known) if parity_options else {}
    driver = KerasDriver(config, ckpt_path)
    write(driver, targets, functools.partial(parity.check, driver, **arguments) if parity_options else None)


def check(config: Config, targets: Targets) -> None:
    """Checks the targets before any work.

    Raises:
        TargetError: if a target exists.
        ExportError: if a format does not support the request.
        DataError: if INT8 lacks records with calibration images.
    """
    for path in (targets.saved_model_dir, targets.frozen_graph, targets.tflite, targets.onnx, targets.tensorrt_dir):
        # Targets inside saved_model_dir have a folder that does not exist yet.
        if path and not path.startswith(f"{targets.saved_model_dir}/"):
            check_target(path)
    if targets.tflite:
        tflite.check(targets.tflite, _tflite_metadata(config, targets), targets.batch_size)
    if targets.onnx:
        onnx.check(targets.onnx, Metadata(config, targets.content, targets.onnx_precision))
    if "INT8" in (targets.tflite_precision, targets.onnx_precision, targets.tensorrt_precision):
        check_calibration("INT8", targets.file_pattern or None)
        records.find_files(targets.file_pattern)


def write(driver: KerasDriver, targets: Targets, check_parity: Callable[[str], Any] | None) -> None:
    """Writes all targets, and prints their files; those that cannot be exported do not stop the remaining ones.

    The files are checked after all are written, when the memory of writing is free again.

    Args:
        driver: with the weights.
        targets: that passed `check`.
        check_parity: called with the path of each written file; None skips the check.

    Raises:
        ExportError: if a format cannot be written here.
        TargetError: if a folder has no room.
        ValueError: if a file fails its parity check, or several targets fail; the message names all of them.
    """
    written, failures = _write_files(driver, targets)
    memory.release()
    if check_parity:
        for path in written:
            with _collected(failures, path):
                check_parity(path)
    if failures:
        raise failures[0] if len(failures) == 1 else ValueError("; ".join(map(str, failures)))


def _write_files(driver: KerasDriver, targets: Targets) -> tuple[list[str], list[ValueError]]:
    """Writes all targets; returns the paths of those that were written, and the errors of the others."""
    config, written, failures = driver.config, [], []
    model = signatures.frozen(driver.model, targets.batch_size)
    metadata = Metadata(config, targets.content, checkpoint=driver.ckpt_path or "random weights")
    options = {"batch_size": targets.batch_size}
    jobs = (
        (targets.saved_model_dir, lambda path: saved_model.saved_model(model, path, metadata, **options)),
        (targets.frozen_graph, lambda path: saved_model.frozen_graph(model, path, metadata, **options)),
        (targets.tflite, lambda path: _write_tflite(model, path, metadata, targets)),
        (targets.onnx, lambda path: _write_onnx(model, path, metadata, targets)),
        (targets.tensorrt_dir, lambda path: _write_tensorrt(path, metadata, targets)),
    )
    for path, write_target in jobs:
        if path is None:
            continue
        with _collected(failures, path):
            for file in write_target(path):
                print(f"writing file to {file}", flush=True)
            written.append(path)
    return written, failures


@contextlib.contextmanager
def _collected(failures: list[ValueError], path: str) -> Iterator[None]:
    """Adds an error of the block to `failures`, and frees the memory of the block.

    Raises:
        TargetError: if the folder of the path has no room.
    """
    try:
        yield
    except ValueError as error:
        failures.append(error.with_traceback(None))  # which would keep the memory
    except (OSError, tf.errors.OpError) as error:
        no_room = os.strerror(errno.ENOSPC)
        if not reason_of(error).endswith(no_room):
            raise
        raise TargetError(f"{path} cannot be written ({no_room}); free some space, or use another folder") from error
    memory.release()


def _parity_arguments(config: Config, options: ParityOptions, known: NamedIds) -> dict[str, Any]:
    """Reads the images and checks the records; returns keyword arguments of `parity.check`."""
    paths = images.find_images(options.input_image) if options.input_image else []
    arguments = {"images": [image_file.read_pixels(path) for path in paths], "max_ap_drop": options.max_ap_drop}
    if evaluation := options.evaluation:
        pattern, json_file = evaluation.val_file_pattern, evaluation.val_json_file
        for warning in checks.quick(pattern, config, json_file, [known], evaluates=True).warnings:
            logging.warning("%s", warning)
    return arguments | {"evaluation": options.evaluation, "results": parity.CheckpointResults()}


def _tflite_metadata(config: Config, targets: Targets, checkpoint: str = "") -> Metadata:
    return Metadata(config, targets.tflite_content, targets.tflite_precision, checkpoint)


def _write_tflite(model: EfficientDetModel, path: str, metadata: Metadata, targets: Targets) -> list[str]:
    inputs = None
    if targets.tflite_precision == "INT8":
        inputs = tflite.calibration_inputs(targets.file_pattern, metadata.config, targets.num_calibration_steps)
    metadata = _tflite_metadata(metadata.config, targets, metadata.checkpoint)
    if metadata.content == "detection_op" and metadata.config.keep_aspect_ratio:
        logging.info(
            "%s expects padded images: programs that stretch them, such as MediaPipe, find less; for these, pad images "
            "to a square, or train with keep_aspect_ratio=false (docs/exports.md)",
            path,
        )
    return tflite.write(model, path, metadata, calibration_inputs=inputs)


def _write_onnx(model: EfficientDetModel, path: str, metadata: Metadata, targets: Targets) -> list[str]:
    inputs = None
    if targets.onnx_precision == "INT8" and metadata.content == "network":
        inputs = tflite.calibration_inputs(targets.file_pattern, metadata.config, targets.num_calibration_steps)
    elif targets.onnx_precision == "INT8":
        inputs = _image_batches(metadata.config, targets)
    metadata = dataclasses.replace(metadata, precision=targets.onnx_precision)
    return onnx.write(model, path, metadata, batch_size=targets.batch_size, calibration_inputs=inputs)


def _write_tensorrt(path: str, metadata: Metadata, targets: Targets) -> list[str]:
    batches = None
    if targets.tensorrt_precision == "INT8":
        batches = _image_batches(metadata.config, targets)
    metadata = dataclasses.replace(metadata, precision=targets.tensorrt_precision)
    return saved_model.tensorrt(targets.saved_model_dir, path, metadata, calibration_batches=batches)


def _image_batches(config: Config, targets: Targets) -> Iterator[np.ndarray]:
    """Returns the calibration images, [1, H, W, 3] uint8 of any size."""
    dataset = InputReader(targets.file_pattern, config).original_images(targets.num_calibration_steps)
    return dataset.map(lambda image, _: image).batch(1).as_numpy_iterator()
