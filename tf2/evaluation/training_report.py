# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The report at the end of a training: evaluation of the best checkpoint, and curves of the training."""

import functools
import io
import os

import tensorflow as tf
from absl import logging
from PIL import Image

from dataset.dataloader import InputReader
from dataset.files import reason_of, write_file
from efficientdet.config import Config
from tf2.evaluation import evaluate
from tf2.evaluation.evaluator import Evaluator, Result, read_images
from tf2.evaluation.report import report
from tf2.inference import provenance
from tf2.inference.drivers import KerasDriver
from tf2.training import history
from tf2.training.model_dir import ModelDir
from tf2.weights import checkpoint

FOLDER = "report"  # in model_dir
EXAMPLE = "example.jpg"  # in that folder: an evaluated image without drawings


def write(config: Config, evaluator: Evaluator, model_dir: str, command: str) -> None:
    """Writes the report to model_dir/report, with an image to try the detector on; a failure is a warning.

    The report is of the checkpoint in archive/, or of the newest one if AP is -1 and nothing is archived. The
    checkpoint is evaluated once more if `evaluator` has not kept its detections: those of an earlier run, or of many
    images.

    Args:
        config: config of the training run.
        evaluator: its evaluator.
        model_dir: its directory, local or remote.
        command: its command line, for provenance.
    """
    try:
        _write(config, evaluator, model_dir, command)
    except Exception as error:  # of any kind: the training is complete, and its metrics are not printed yet
        logging.warning(
            "no report: %s: %s; the checkpoints are complete, and main.py --mode=eval --report_dir=... writes a report",
            type(error).__name__,
            reason_of(error),
        )


def _write(config: Config, evaluator: Evaluator, model_dir: str, command: str) -> None:
    directory = os.path.join(model_dir, FOLDER)
    report.check(directory)
    prefix, archived = ModelDir(model_dir).archived() or (checkpoint.find(model_dir), {})
    result = _kept_result(evaluator, archived)
    if result is None:
        logging.info("evaluating %s for the report", prefix)
        evaluator = evaluator.alone()
        with evaluator.strategy.scope():
            driver = KerasDriver(config, prefix)
        result = evaluator.evaluate(driver.network)
    metrics = result.metric.result()
    names = tf.compat.v1.train.NewCheckpointReader(prefix).get_variable_to_shape_map()
    averaged = any(name.endswith(checkpoint.AVERAGE) for name in names)
    about = provenance.describe_checkpoint(config, f"{prefix}, {'moving averages' if averaged else 'raw weights'}")
    facts = evaluate.collect_facts(about, config, evaluator.evaluation, result, command)
    reader = InputReader(evaluator.evaluation.val_file_pattern, config)
    page = report.write(
        directory,
        result.metric,
        metrics,
        facts,
        functools.partial(read_images, reader),
        history=history.read(model_dir),
    )
    _write_example(os.path.join(directory, EXAMPLE), result, reader)
    print(f"writing file to {page}, of {prefix} with AP {metrics['AP']:.3f}")


def _kept_result(evaluator: Evaluator, archived: dict[str, float]) -> Result | None:
    """Returns the best result of an evaluator if its metrics are those of the archived checkpoint, else None."""
    if not archived or evaluator.best is None:
        return None
    metrics = evaluator.best.metric.result()
    return evaluator.best if all(archived.get(name) == value for name, value in metrics.items()) else None


def _write_example(path: str, result: Result, reader: InputReader) -> None:
    """Writes the first evaluated image that has an object, or else the first one, as a JPEG file."""
    counts = [len(image.groundtruth.classes) for image in result.metric.images()]
    position = next((i for i, count in enumerate(counts) if count), 0)
    [(_, pixels)] = read_images(reader, [position])
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=95)
    write_file(path, encoded.getvalue())
