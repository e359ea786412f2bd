# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluation from the command line: metrics of a checkpoint or an exported file, printed and written to files."""

import dataclasses
import datetime
import functools
import json
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from dataset import label_map
from dataset.check import run_checks
from dataset.dataloader import InputReader
from dataset.files import check_distinct, check_folder, folder_of, write_file
from efficientdet.config import Config, ConfigError
from tf2.evaluation import evaluator, voc_metric
from tf2.evaluation.coco_metric import CocoMetric
from tf2.evaluation.evaluator import Evaluation, Evaluator, Result
from tf2.evaluation.report import report
from tf2.inference import drivers, provenance
from tf2.inference.drivers import ArtifactDriver, Driver
from tf2.inference.metadata import stored_names
from tf2.training import exchange, history, same_start, workers
from tf2.training import strategy as strategy_lib
from tf2.weights import class_names

TESTDEV_FILE = "detections_test-dev2017_test_results.json"  # the name that COCO's server expects
MAX_SCORE_THRESH = 0.01  # a higher score threshold lowers AP
# Config keys of the input data, which can be set for an exported file too.
DATA_KEYS = ("label_map", "max_instances_per_image", "regenerate_source_id", "max_damaged_records")


@dataclasses.dataclass(frozen=True)
class EvaluationOutputs:
    """Local or remote files to write; those that are None are skipped. Missing folders are created."""

    testdev_dir: str | None = None  # folder for TESTDEV_FILE; there is no groundtruth then, and no metrics
    detections: str | None = None  # file for all detections, in COCO's results format
    metrics: str | None = None  # JSON file for all metrics and their provenance
    report_dir: str | None = None  # folder for an HTML report
    voc: bool = False  # adds Pascal VOC's metrics
    command: str = ""  # the command line, for provenance

    @property
    def files(self) -> list[str]:
        """Paths of all files except those of the report."""
        testdev = self.testdev_dir and os.path.join(self.testdev_dir, TESTDEV_FILE)
        return [file for file in (testdev, self.detections, self.metrics) if file]

    def check(self, val_json_file: str | None = None) -> None:
        """Creates the folders and checks that they are writable, before the evaluation begins.

        Args:
            val_json_file: groundtruth file, which must not be overwritten.

        Raises:
            ValueError: if a file cannot be written, or an output needs groundtruth that a test set does not have.
        """
        if self.testdev_dir and (self.report_dir or self.voc):
            raise ValueError("--testdev_dir evaluates images without groundtruth; remove --report_dir and --voc")
        check_distinct(self.files, [val_json_file] if val_json_file else [], "--val_json_file")
        for file in self.files:
            if tf.io.gfile.isdir(file):
                raise ValueError(f"{file} is a folder; give a file name")
            check_folder(folder_of(file))
        if self.report_dir:
            report.check(self.report_dir)


def evaluate_stored(
    config: Config,
    path: str,
    evaluation: Evaluation,
    *,
    outputs: EvaluationOutputs,
    artifact_keys: Mapping[str, Any] | None = None,
    as_served: bool = False,
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, float]:
    """Evaluates a stored detector after a check of the records, prints the result and writes the requested files.

    Several workers call this together; the first one prints and writes.

    Args:
        config: config of the checkpoint, or for exported files without metadata.
        path: a checkpoint, see `checkpoint.find`, or an exported file, see `open_artifact`.
        evaluation: files and options; without groundtruth if outputs are for a test set.
        outputs: files to write.
        artifact_keys: config keys set on the command line, for an exported file; None for a checkpoint.
        as_served: see `run`.
        strategy: see `run`.

    Returns:
        All metrics by name; empty without groundtruth, and on workers other than the first.

    Raises:
        DataError: if an evaluation on these records would be pointless.
        ValueError: if an output cannot be written, or see `open_artifact`.
    """
    strategy = strategy or tf.distribute.get_strategy()
    with workers.lost_workers(strategy, lambda: "run the same command on all machines again"):
        if strategy_lib.is_chief(strategy):
            outputs.check(evaluation.val_json_file)
        is_test_set = bool(outputs.testdev_dir)
        if is_test_set:
            evaluation = dataclasses.replace(evaluation, val_json_file=None)
        driver = _open(config, path, evaluation, strategy, artifact_keys=artifact_keys, is_test_set=is_test_set)
        result = run(driver, evaluation, as_served=as_served, strategy=strategy)
        metrics = publish(driver, evaluation, result, outputs) if strategy_lib.is_chief(strategy) else {}
        exchange.wait_for_all(strategy)
    return metrics


def _open(
    config: Config,
    path: str,
    evaluation: Evaluation,
    strategy: tf.distribute.Strategy,
    *,
    artifact_keys: Mapping[str, Any] | None,
    is_test_set: bool,
) -> Driver:
    """Opens a detector after a check of the records, see `evaluate_stored`."""
    driver = None
    if artifact_keys is not None:
        driver = open_artifact(path, config, artifact_keys)
        config, known = driver.config, stored_names(driver.runtime.metadata, path)
    else:
        config, known = class_names.of_detector(config, path)
    run_checks.check_files(
        *(config, known, None, evaluation.val_file_pattern),
        val_json_file=evaluation.val_json_file,
        is_test_set=is_test_set,
    )
    if strategy_lib.num_workers(strategy) > 1:
        files = {name: same_start.files(getattr(evaluation, name)) for name in ("val_file_pattern", "val_json_file")}
        options = dataclasses.asdict(evaluation) | files | {"ckpt": path, "backbone_ckpt": None}
        own = same_start.software() | same_start.settings(config, options)
        same_start.check(
            exchange.gather_objects(strategy, own), "start all with the same command, records and versions"
        )
    with strategy.scope():
        return driver or drivers.KerasDriver(config, path)


def open_artifact(path: str, config: Config, hparams: Mapping[str, Any]) -> ArtifactDriver:
    """Opens an exported file for evaluation.

    Args:
        path: a SavedModel's folder, a frozen graph, a .tflite or an .onnx file.
        config: config for files without metadata.
        hparams: keys set on the command line: DATA_KEYS, and nms_configs if the file contains no suppression.

    Raises:
        ArtifactError: if the file does not exist, is damaged, or is not a detector.
        ConfigError: for a key that is fixed in the file.
        LabelMapError: for class ids that the file does not have, or names that have other ids in it.
    """
    driver = drivers.open_artifact(path, config)
    if driver.runtime.metadata is None:
        logging.warning("%s has no metadata: assuming the config given by --model_name and --hparams", path)
    else:
        keys = DATA_KEYS + (("nms_configs",) if driver.metadata.content == "network" else ())
        fixed = sorted(hparams.keys() - set(keys))
        if fixed:
            raise ConfigError(
                f"{path} was exported with its own {', '.join(fixed)}; --hparams can only set {', '.join(keys)} here: "
                f"remove the other keys, or export again"
            )
        stored = stored_names(driver.metadata, path)
        config = class_names.with_names(driver.config.override(hparams), stored)
        driver = ArtifactDriver(driver.runtime, dataclasses.replace(driver.metadata, config=config))
    label_map.check(label_map.resolve(config.label_map), config.num_classes)
    return driver


def run(
    driver: Driver,
    evaluation: Evaluation,
    *,
    as_served: bool = False,
    strategy: tf.distribute.Strategy | None = None,
) -> Result:
    """Evaluates a driver.

    Args:
        driver: a checkpoint or an exported file. If it exposes the outputs of its network, they are evaluated with the
            suppression of the published AP: per class, MAX_NMS_INPUTS candidates, boxes not clipped. Otherwise the
            detections that the driver serves are evaluated.
        as_served: evaluates the detections that the driver serves in any case.
        strategy: its workers evaluate together, and a checkpoint is evaluated on all its replicas; None for one device.
    """
    threshold = driver.config.nms_configs.score_thresh or 0.0
    if threshold > MAX_SCORE_THRESH:
        is_exported = isinstance(driver, ArtifactDriver) and driver.network is None
        remedy = "export again with --min_score_thresh" if is_exported else "pass --hparams=nms_configs.score_thresh"
        logging.warning("detections with scores up to %g are discarded, which lowers AP; %s=0.001", threshold, remedy)
    if isinstance(driver, ArtifactDriver) and strategy and strategy_lib.num_local_replicas(strategy) > 1:
        logging.info("an exported file is evaluated on one device of each machine")
    if driver.network is None or as_served:
        return evaluator.run_driver(driver, evaluation, strategy)
    config = driver.config.override({"sample_image": None})  # not drawn here
    return Evaluator(config, evaluation, strategy).evaluate(driver.network)


def publish(driver: Driver, evaluation: Evaluation, result: Result, outputs: EvaluationOutputs) -> dict[str, float]:
    """Prints the result of an evaluation and writes the requested files.

    Args:
        outputs: files to write; `EvaluationOutputs.check` has passed.

    Returns:
        All metrics by name; empty without groundtruth.
    """
    metric, metrics, tables = result.metric, {}, []
    if not outputs.testdev_dir:
        metrics, tables = metric.result(), [metric.table()]
        if outputs.voc:
            voc = voc_metric.score(metric.images(), metric.names)
            metrics |= voc.metrics
            tables.append(voc.table())
    print(f"suppression: {describe_suppression(result.suppression)}", *tables, describe_timing(result), sep="\n")
    about, has_groundtruth = provenance.describe(driver), not outputs.testdev_dir
    facts = collect_facts(about, driver.config, evaluation, result, outputs.command, has_groundtruth=has_groundtruth)
    for path in outputs.files:
        content = {"metrics": metrics, **facts} if path == outputs.metrics else metric.coco_results()
        write_file(path, json.dumps(content, indent=1 if path == outputs.metrics else None, ensure_ascii=False))
        print(f"writing file to {path}")
    if outputs.report_dir:
        is_exported = isinstance(driver, ArtifactDriver)
        run = None if is_exported or not driver.ckpt_path else history.read_of_checkpoint(driver.ckpt_path)
        read_images = functools.partial(evaluator.read_images, InputReader(evaluation.val_file_pattern, driver.config))
        page = report.write(outputs.report_dir, metric, metrics, facts, read_images, history=run)
        print(f"writing file to {page}")
    return metrics


def collect_facts(
    about: Mapping[str, Any],
    config: Config,
    evaluation: Evaluation,
    result: Result,
    command: str,
    *,
    has_groundtruth: bool = True,
) -> dict[str, Any]:
    """Returns the provenance of a result as JSON values.

    Args:
        about: description of the detector, see `provenance`.
        config: its config.
        command: the command line.
        has_groundtruth: False for a test set.
    """
    return {
        **about,
        "images": result.num_images,
        "evaluation": dataclasses.asdict(evaluation),
        **(_describe_groundtruth(result.metric) if has_groundtruth else {}),
        "suppression": result.suppression,
        "config": config.difference(Config()),
        "seconds": result.seconds,
        "command": command,
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _describe_groundtruth(metric: CocoMetric) -> dict[str, Any]:
    """Returns numbers of evaluated images and boxes and, if there are any, the warnings about groundtruth."""
    warnings = metric.find_left_out()
    return {"groundtruth": metric.count_groundtruth(), **({"warnings": warnings} if warnings else {})}


def describe_suppression(suppression: Mapping[str, Any]) -> str:
    """Formats `evaluator.suppression` for printing."""
    threshold = suppression["score_thresh"]
    parameter = "sigma {sigma:g}" if suppression["method"] == "gaussian" else "IoU {iou_thresh:g}"
    return ", ".join(
        [
            f"{suppression['method']}, {parameter}".format(**suppression),
            f"scores above {threshold:g}" if threshold else "no score threshold",
            f"{suppression['max_nms_inputs'] or 'all'} candidates",
            f"at most {suppression['max_output_size']} detections per image",
            f"classes {suppression['classes']}",
            "boxes clipped at the border" if suppression["clip"] else "boxes not clipped",
        ]
    )


def describe_timing(result: Result) -> str:
    """Formats the time per stage for printing."""
    first, *rest = result.seconds.items()
    total = sum(seconds for _, seconds in rest)
    shares = ", ".join(f"{name} {seconds:.1f} s ({seconds / max(total, 1e-9):.0%})" for name, seconds in rest)
    return f"time of {result.num_images} images: {first[0]} {first[1]:.1f} s, then {total:.1f} s: {shares}"
