# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluation from the command line: figures of a checkpoint or an exported file, printed and written to be quoted."""

import dataclasses
import datetime
import functools
import json
import os
from collections.abc import Mapping
from typing import Any

from absl import logging

from dataset import label_map
from dataset.dataloader import InputReader
from dataset.files import check_distinct, check_folder, write_file
from efficientdet.config import Config, ConfigError
from tf2.evaluation import evaluator, voc_metric
from tf2.evaluation.evaluator import Evaluation, Evaluator, Result
from tf2.evaluation.report import report
from tf2.inference import drivers, provenance
from tf2.inference.drivers import ArtifactDriver, Driver

TESTDEV_FILE = "detections_test-dev2017_test_results.json"  # as COCO's server wants it called
LOW_SCORE = 0.01  # a threshold above it costs AP
# Keys that say how to read and to judge, not what an exported file computes.
READING_KEYS = ("label_map", "max_instances_per_image", "regenerate_source_id", "max_damaged_records")


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What is written; None is left out. Folders are made."""

    testdev_dir: str | None = None  # folder for TESTDEV_FILE; then there is no groundtruth, and no metric
    detections: str | None = None  # file for all detections, as COCO results
    metrics: str | None = None  # file for all figures, and what they are of, as JSON
    report_dir: str | None = None  # folder for a page with plots and pictures
    voc: bool = False  # Pascal VOC's metrics, too

    @property
    def files(self) -> list[str]:
        """All but the report."""
        testdev = self.testdev_dir and os.path.join(self.testdev_dir, TESTDEV_FILE)
        return [file for file in (testdev, self.detections, self.metrics) if file]

    def check(self, val_json_file: str | None = None) -> None:
        """Makes the folders and tries to write there, before any work.

        Args:
            val_json_file: the groundtruth, which none may replace.

        Raises:
            ValueError: if a file cannot be written, or what is asked for needs groundtruth that a test set does not
                have.
        """
        if self.testdev_dir and (self.report_dir or self.voc):
            raise ValueError("--testdev_dir is for images without groundtruth; leave --report_dir and --voc out")
        check_distinct(self.files, [val_json_file] if val_json_file else [], "--val_json_file")
        for file in self.files:
            if os.path.isdir(file):
                raise ValueError(f"{file} is a folder; give the name of a file")
            check_folder(os.path.dirname(os.path.abspath(file)))
        if self.report_dir:
            report.check(self.report_dir)


def open_artifact(path: str, config: Config, hparams: Mapping[str, Any]) -> ArtifactDriver:
    """An exported file to be evaluated.

    Args:
        path: a SavedModel's folder, a frozen graph, a .tflite or an .onnx file.
        config: for files that do not say what they are.
        hparams: keys that were typed: for the reader, and nms_configs of a file that leaves suppression to its caller.

    Raises:
        ArtifactError: if there is no such file, it is damaged, or it is no detector.
        ConfigError: for a key that the file has made up its mind about.
        LabelMapError: for names of classes that the file does not have.
    """
    driver = drivers.open_artifact(path, config)
    if driver.runtime.metadata is None:
        logging.warning("%s does not say what it is: --model_name and --hparams are taken for it", path)
        _check_names(config)
        return driver
    keys = READING_KEYS + (("nms_configs",) if driver.metadata.content == "network" else ())
    fixed = sorted(hparams.keys() - set(keys))
    if fixed:
        raise ConfigError(
            f"{path} was exported with its own {', '.join(fixed)}; of --hparams it takes {', '.join(keys)} alone: "
            f"leave the others out, or export again"
        )
    config = driver.config.override(hparams)
    _check_names(config)
    return ArtifactDriver(driver.runtime, dataclasses.replace(driver.metadata, config=config))


def _check_names(config: Config) -> None:
    label_map.check(label_map.resolve(config.label_map), config.num_classes)


def run(driver: Driver, evaluation: Evaluation, *, as_served: bool = False) -> Result:
    """One pass.

    Args:
        driver: a checkpoint, or an exported file. One that gives the outputs of its network gets the suppression that
            AP was published with: boxes compete within their class, MAX_NMS_INPUTS candidates, nothing cut off at the
            border. Others are judged by the detections they give.
        evaluation: what to read.
        as_served: judges each driver by the detections that it gives.
    """
    score_thresh = driver.config.nms_configs.score_thresh or 0.0
    if score_thresh > LOW_SCORE:
        is_inside = isinstance(driver, ArtifactDriver) and driver.network is None
        remedy = (
            "export again with --min_score_thresh=0.001" if is_inside else "--hparams=nms_configs.score_thresh=0.001"
        )
        logging.warning("detections up to a score of %g are left out, which lowers AP; %s", score_thresh, remedy)
    if driver.network is None or as_served:
        return evaluator.run_driver(driver, evaluation)
    config = driver.config.override({"sample_image": None})  # nothing is drawn in it
    return Evaluator(config, evaluation).evaluate(driver.network)


def publish(driver: Driver, evaluation: Evaluation, result: Result, outputs: Outputs, command: str) -> dict[str, float]:
    """Prints what was found, and writes what is asked for.

    Args:
        driver: what was evaluated.
        evaluation: what was read.
        result: of it.
        outputs: that passed `check`.
        command: that was typed.

    Returns:
        All metrics by name; none without groundtruth.
    """
    metric, metrics, tables = result.metric, {}, []
    if not outputs.testdev_dir:
        metrics, tables = metric.result(), [metric.table()]
        if outputs.voc:
            voc = voc_metric.score(metric.images(), metric.names)
            metrics |= voc.metrics
            tables.append(voc.table())
    for line in (f"suppression: {sentence(result.suppression)}", *tables, timing(result)):
        print(line)
    facts = about(driver, evaluation, result, command)
    for path in outputs.files:
        content = {"metrics": metrics, **facts} if path == outputs.metrics else metric.coco_results()
        write_file(path, json.dumps(content, indent=1 if path == outputs.metrics else None, ensure_ascii=False))
        print(f"writing file to {path}")
    if outputs.report_dir:
        pictures = functools.partial(evaluator.pictures_at, InputReader(evaluation.val_file_pattern, driver.config))
        print(f"writing file to {report.write(outputs.report_dir, metric, metrics, facts, pictures)}")
    return metrics


def sentence(suppression: Mapping[str, Any]) -> str:
    """Suppression for people."""
    threshold = suppression["score_thresh"]
    own = "sigma {sigma:g}" if suppression["method"] == "gaussian" else "IoU {iou_thresh:g}"
    return ", ".join(
        [
            f"{suppression['method']}, {own}".format(**suppression),
            f"scores above {threshold:g}" if threshold else "no score threshold",
            f"{suppression['max_nms_inputs'] or 'all'} candidates",
            f"at most {suppression['max_output_size']} detections an image",
            f"classes {suppression['classes']}",
            "boxes cut off at the border" if suppression["clip"] else "boxes not cut off",
        ]
    )


def timing(result: Result) -> str:
    """Where the time went, for people."""
    first, *rest = result.seconds.items()
    total = sum(seconds for _, seconds in rest)
    shares = ", ".join(f"{name} {seconds:.1f} s ({seconds / max(total, 1e-9):.0%})" for name, seconds in rest)
    return f"time of {result.num_images} images: {first[0]} {first[1]:.1f} s, then {total:.1f} s: {shares}"


def about(driver: Driver, evaluation: Evaluation, result: Result, command: str) -> dict[str, Any]:
    """What the figures are of; fit for JSON."""
    return {
        **provenance.describe(driver),
        "images": result.num_images,
        "evaluation": dataclasses.asdict(evaluation),
        "suppression": result.suppression,
        "config": driver.config.difference(Config()),
        "seconds": result.seconds,
        "command": command,
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }
