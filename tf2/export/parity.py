# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Parity check: compares an exported file with its checkpoint on the same images.

The criteria depend on the precision of the file:
  raw outputs   FP32, FP16: the differences of each network output are at most MAX_RATIO times those that rounding
                causes in the checkpoint itself, see `rounding`; or MAX_RATIO_IF_COMPLETE times, if every detection has
                a partner. INT8: reported without a verdict. Only for files that expose raw outputs: networks and
                SavedModels.
  detections    FP32, FP16: the share of detections on each side with a partner on the other side, see
                `agreement.TOLERANCES`, is at least MIN_AGREEMENT, minus twice the share that rounding changes in the
                checkpoint itself. Unmatched detections within rounding of the score threshold, or of the last score of
                a full list, are not counted, if there are few of them. INT8: reported without a verdict.
  AP drop       all: at most max_ap_drop, for the detections above the score threshold. Only with an evaluation.
The checkpoint runs with the NMS that the file was exported with.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dataset import label_map, scenes
from dataset.file_search import files_in
from dataset.files import write_file
from efficientdet.config import Config
from efficientdet.postprocess import Detections
from tf2.evaluation import evaluator
from tf2.evaluation.evaluator import Evaluation
from tf2.export import agreement, memory, rounding
from tf2.export.parity_report import Finding, ParityReport
from tf2.inference import drivers, provenance, runtimes
from tf2.inference.drivers import ArtifactDriver, Driver, KerasDriver
from tf2.inference.metadata import ArtifactError

# Of the differences of raw outputs to those of rounding: 0.2 to 1.5 in correct files, and above 100 if a kernel has an
# error of one percent, even where scores are so near to 1 that the detections do not show it.
MAX_RATIO, MAX_RATIO_IF_COMPLETE = 10, 30
MAX_AP_DROP = 0.02
GENERATED_SIZES = ((480, 640), (427, 240), (97, 201), (720, 1280))  # (height, width), all unlike network inputs
NO_RAW_OUTPUTS = Finding(rounding.NAME, None, None, None, 0, "the file does not contain them")
LATENCY_RUNS = 30  # of each detector, alternating
MIN_LATENCY_RUNS, LATENCY_SECONDS = 2, 30.0  # after this time no further run starts, except to reach the minimum


class ParityError(ValueError):
    """An exported file whose results differ from those of its checkpoint."""


@dataclasses.dataclass
class CheckpointResults:
    """Results of a checkpoint, computed in the check of the first of its files that needs them."""

    detections: list[Detections] | None = None  # per image
    ap: dict[str, float] | None = None  # AP and AP50


def check(
    reference: KerasDriver,
    path: str,
    *,
    images: Sequence[np.ndarray] | None = None,
    evaluation: Evaluation | None = None,
    max_ap_drop: float = MAX_AP_DROP,
    results: CheckpointResults | None = None,
) -> ParityReport:
    """Compares an exported file with the checkpoint it was exported from; writes and prints the report.

    Args:
        reference: the checkpoint, with the config of the export.
        path: of the exported file or folder; the report is written to `<path>.parity.json`.
        images: [H, W, 3] uint8 RGB; None or an empty list generates images.
        evaluation: records to compare AP on; None skips AP.
        max_ap_drop: largest accepted AP of the checkpoint minus AP of the file.
        results: shared by the checks of all files of a checkpoint, with the same images and records; None for one file.

    Returns:
        The report.

    Raises:
        ArtifactError: if the file cannot be loaded.
        ParityError: if the check fails; the report is written and printed before.
    """
    exported, results = drivers.open_artifact(path), results or CheckpointResults()
    memory.release()
    source, images = ("given", list(images)) if images else ("generated", generated_images())
    facts = {
        "checkpoint": reference.ckpt_path or "random weights",
        "nms": evaluator.suppression(exported.config),
        "pictures": {"source": source, "sizes": [f"{image.shape[1]}x{image.shape[0]}" for image in images]},
        "bytes": sum(tf.io.gfile.stat(file).length for file in files_in(path)),
        "versions": provenance.describe(exported)["versions"],
    }
    findings = []
    for finding in _findings(reference, exported, images, results):
        findings.append(finding)
        if finding.is_fatal:
            break
    else:
        latency = _latency({"artifact": exported, "checkpoint": reference}, images[0])
        facts["latency"] = {"picture": facts["pictures"]["sizes"][0], **latency}
        findings += _ap_drop(reference, exported, evaluation, max_ap_drop, facts, results)
    report = ParityReport(path, exported.metadata, facts, tuple(findings))
    write_file(report.report_path, report.to_json())
    print(*report.table(), sep="\n", flush=True)
    if report.verdict == "failed":
        raise ParityError(report.error)
    return report


def generated_images() -> list[np.ndarray]:
    """Shapes on textured backgrounds in GENERATED_SIZES; always the same images."""
    return [scenes.make_scene(0, i, size).image for i, size in enumerate(GENERATED_SIZES)]


def _findings(
    reference: KerasDriver,
    exported: ArtifactDriver,
    images: Sequence[np.ndarray],
    results: CheckpointResults,
) -> Iterator[Finding]:
    """Yields the findings that need no records; after a fatal one the caller stops."""
    if differences := _config_differences(exported.config, reference.config):
        yield Finding("config", None, None, False, 0, f"differs from the checkpoint: {', '.join(differences)}")
    precision, config = exported.metadata.precision, reference.config
    network = _network(exported)
    raw = rounding.RawOutputs(reference, network, precision) if network else None
    memory.release()
    if raw or not results.detections:
        expected = []
        for image in images:
            found, fault = _run_checkpoint(reference, image, raw)
            if fault:
                yield Finding(rounding.NAME, None, None, False, 0, fault)
                return
            expected.append(found)
        results.detections = expected
    expected = results.detections
    largest, *ratio = raw.findings() if raw else [NO_RAW_OUTPUTS]
    yield largest
    del raw, network
    memory.release()
    detected = [exported.detect(image) for image in images]
    if finding := agreement.non_finite(expected, detected):
        yield finding
        return
    tolerance, min_share = agreement.TOLERANCES[precision], agreement.MIN_AGREEMENT.get(precision)
    shares, own = list(agreement.compare(expected, detected, config, tolerance)), None
    if min_share is not None and any(share.num_missing or share.num_uncounted for share in shares):
        rounded = rounding.rounded(reference, precision)
        own = next(agreement.compare(expected, [rounded.detect(image) for image in images], config, tolerance))
    is_complete = all(share.is_complete for share in shares)
    yield from (_judged_ratio(each, is_complete) for each in ratio)
    yield from (share.judge(min_share, own) for share in shares)


def _run_checkpoint(
    reference: KerasDriver, image: np.ndarray, raw: rounding.RawOutputs | None
) -> tuple[Detections, str]:
    """Returns the checkpoint's detections, and the error message of its raw outputs, which are added to `raw`."""
    inputs, image_scales = reference.stages["preprocess"]([image])
    levels = reference.network(inputs)
    memory.trim()
    detections = reference.first(reference.stages["NMS"]((levels, image_scales)))
    return detections, raw.add(inputs, levels) if raw else ""


def _judged_ratio(ratio: Finding, is_complete: bool) -> Finding:
    """Adds the verdict on raw outputs; is_complete says that every detection has a partner."""
    if not is_complete or ratio.value <= MAX_RATIO:
        return dataclasses.replace(ratio, bound=MAX_RATIO, passed=ratio.value <= MAX_RATIO)
    bound, text = MAX_RATIO_IF_COMPLETE, f"{ratio.text}; the bound is higher, because every detection has a partner"
    return dataclasses.replace(ratio, bound=bound, passed=ratio.value <= bound, text=text)


def _config_differences(config: Config, expected: Config) -> list[str]:
    """Describes the keys that differ; label maps are compared by the class names they resolve to."""
    plain, expected_plain = (each.override({"label_map": None}) for each in (config, expected))
    ours, theirs = plain.difference(expected_plain), expected_plain.difference(plain)
    texts = [f"{key} is {ours[key]}, expected {theirs[key]}" for key in ours]
    names, expected_names = (label_map.resolve(each.label_map) for each in (config, expected))
    return texts + (["class names"] if names != expected_names else [])


def _network(exported: ArtifactDriver) -> Driver | None:
    """A driver of the file with `network`; None if the file has no raw outputs."""
    if exported.network is not None:
        return exported
    if isinstance(exported.runtime, runtimes.SavedModel):
        with contextlib.suppress(ArtifactError):  # without that signature
            metadata = dataclasses.replace(exported.metadata, content="network")
            return ArtifactDriver(exported.runtime.of_content("network"), metadata)
    return None


def _ap_drop(
    reference: KerasDriver,
    exported: ArtifactDriver,
    evaluation: Evaluation | None,
    max_ap_drop: float,
    facts: dict,
    results: CheckpointResults,
) -> Iterator[Finding]:
    """Yields the difference of the APs, which are added to `facts`."""
    if evaluation is None:
        if exported.metadata.precision == "INT8":
            yield Finding("AP drop", None, max_ap_drop, None, 0, "no verdict: needs --val_file_pattern")
        return
    if results.ap is None:
        results.ap, _ = _ap(reference, evaluation)
    ap, count = _ap(exported, evaluation)
    facts["ap"] = {"checkpoint": results.ap, "artifact": ap}
    facts["ap"] |= {"images": count, "val_file_pattern": evaluation.val_file_pattern}
    ours, theirs = facts["ap"]["checkpoint"], facts["ap"]["artifact"]
    if ours["AP"] < 0:
        yield Finding("AP drop", None, max_ap_drop, None, count, "no verdict: the images have no groundtruth")
        return
    drop = ours["AP"] - theirs["AP"]
    figures = "AP {AP:.4f}, AP50 {AP50:.4f}"
    text = f"{figures.format(**theirs)}; checkpoint {figures.format(**ours)}"
    yield Finding("AP drop", drop, max_ap_drop, drop <= max_ap_drop, count, text)


def _ap(driver: Driver, evaluation: Evaluation) -> tuple[dict[str, float], int]:
    """Returns AP and AP50 of a detector, and the number of images."""
    result = evaluator.run_driver(driver, evaluation)
    metrics = result.metric.result()
    return {key: metrics[key] for key in ("AP", "AP50")}, result.num_images


def _latency(detectors: dict[str, Driver], image: np.ndarray) -> dict[str, Any]:
    """Times detection in one image, alternating between the detectors, which have detected in it before."""
    seconds = {name: [] for name in detectors}
    begin = time.perf_counter()
    for run in range(LATENCY_RUNS):
        if run >= MIN_LATENCY_RUNS and time.perf_counter() - begin > LATENCY_SECONDS:
            break
        for name, driver in detectors.items():
            start = time.perf_counter()
            driver.detect(image)
            seconds[name].append(time.perf_counter() - start)
    quantiles = {name: 1000 * np.percentile(values, [50, 99]) for name, values in seconds.items()}
    return {
        "runs": len(seconds["artifact"]),
        **{name: {"median_ms": float(median), "p99_ms": float(p99)} for name, (median, p99) in quantiles.items()},
    }
