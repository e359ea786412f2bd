# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Verb behind the exporting run modes: writes the files asked for, and holds each against its checkpoint."""

import dataclasses
from collections.abc import Callable

from dataset import records
from dataset.dataloader import InputReader
from dataset.files import check_target
from efficientdet.config import Config
from efficientdet.model import EfficientDetModel
from tf2.export import onnx as export_onnx
from tf2.export import saved_model
from tf2.export import tflite as export_tflite
from tf2.inference import signatures
from tf2.inference.drivers import KerasDriver
from tf2.inference.metadata import ExportError, Metadata

# Puts one artifact to the proof, and raises ValueError if it fails: (path).
Prove = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Targets:
    """What is written; a path that is None is left out."""

    saved_model_dir: str | None = None
    frozen_graph: str | None = None  # a .pb file
    tflite: str | None = None  # a .tflite file
    onnx: str | None = None  # an .onnx file
    tensorrt_dir: str | None = None  # saved_model_dir, converted
    content: str = "detector"  # of all but tflite: detector or network
    tflite_content: str = "detector"  # a key of CONTENTS
    tflite_precision: str = "FP32"  # one of PRECISIONS
    tensorrt_precision: str = "FP32"  # one of PRECISIONS
    batch_size: int = 1  # pictures a call; 0 for any number
    file_pattern: str | None = None  # TFRecords, in whose images INT8 sees the ranges of its tensors
    num_calibration_steps: int = 500  # images of them at most


def check(config: Config, targets: Targets) -> None:
    """Finds what cannot be written, before any work.

    Raises:
        TargetError: if a target exists.
        ExportError: if a format does not have what it is asked for.
        DataError: if there are no records to see the ranges of INT8 in.
    """
    for path in (targets.saved_model_dir, targets.frozen_graph, targets.tflite, targets.onnx, targets.tensorrt_dir):
        # Some lie in the first, which is still to be made.
        if path and not path.startswith(f"{targets.saved_model_dir}/"):
            check_target(path)
    if targets.tflite:
        export_tflite.check(targets.tflite, _tflite(config, targets), targets.batch_size)
    if targets.onnx:
        export_onnx.check(targets.onnx, Metadata(config, targets.content))
    if "INT8" in (targets.tflite_precision, targets.tensorrt_precision):
        if not targets.file_pattern:
            raise ExportError("INT8 needs images that show the range of every tensor: give --file_pattern of TFRecords")
        records.find_files(targets.file_pattern)


def run(driver: KerasDriver, targets: Targets, prove: Prove | None) -> None:
    """Writes all targets, and prints what it writes; what fails, or fails its proof, does not stop those after it.

    Args:
        driver: with the weights.
        targets: that passed `check`.
        prove: puts a file to the proof; None does not.

    Raises:
        ExportError: if a format cannot be written here.
        ValueError: if a file failed its proof, or several things failed; names them all.
    """
    config, failures = driver.config, []
    model = signatures.frozen(driver.model, targets.batch_size)
    metadata = Metadata(config, targets.content, checkpoint=driver.ckpt_path or "random weights")
    options = {"batch_size": targets.batch_size}
    jobs = (
        (targets.saved_model_dir, lambda path: saved_model.saved_model(model, path, metadata, **options)),
        (targets.frozen_graph, lambda path: saved_model.frozen_graph(model, path, metadata, **options)),
        (targets.tflite, lambda path: _write_tflite(model, path, metadata, targets)),
        (targets.onnx, lambda path: export_onnx.write(model, path, metadata, **options)),
        (targets.tensorrt_dir, lambda path: _write_tensorrt(path, metadata, targets)),
    )
    for path, write in jobs:
        if path is None:
            continue
        try:
            for file in write(path):
                print(f"writing file to {file}", flush=True)
            if prove:
                prove(path)
        except ValueError as error:
            failures.append(error)
    if failures:
        raise failures[0] if len(failures) == 1 else ValueError("; ".join(map(str, failures)))


def _tflite(config: Config, targets: Targets, checkpoint: str = "") -> Metadata:
    """What the TFLite file will be."""
    return Metadata(config, targets.tflite_content, targets.tflite_precision, checkpoint)


def _write_tflite(model: EfficientDetModel, path: str, metadata: Metadata, targets: Targets) -> list[str]:
    representative = None
    if targets.tflite_precision == "INT8":
        representative = export_tflite.representative_inputs(
            targets.file_pattern, metadata.config, targets.num_calibration_steps
        )
    metadata = _tflite(metadata.config, targets, metadata.checkpoint)
    return export_tflite.write(model, path, metadata, representative=representative)


def _write_tensorrt(path: str, metadata: Metadata, targets: Targets) -> list[str]:
    pictures = None
    if targets.tensorrt_precision == "INT8":
        reader = InputReader(targets.file_pattern, metadata.config)
        pictures = reader.pictures(targets.num_calibration_steps).map(lambda picture, _: picture)
        pictures = pictures.batch(1).as_numpy_iterator()
    metadata = dataclasses.replace(metadata, precision=targets.tensorrt_precision)
    return saved_model.tensorrt(targets.saved_model_dir, path, metadata, pictures=pictures)
