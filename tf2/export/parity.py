# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Parity check: compares an exported file with its checkpoint on the same images.

The criteria depend on the precision of the file:
  raw outputs   FP32, FP16: |difference| / max(1, |value of the checkpoint|) of every network output is at most BOUNDS.
                INT8: reported without a verdict. Only for files that expose raw outputs: networks and SavedModels.
  agreement     FP32, FP16: at least MIN_AGREEMENT of the detections on each side have a partner on the other side: the
                same class, scores at most ROW_BOUNDS apart, corners at most ROW_BOUNDS times the longer side of the
                box (at least one pixel) apart. Unmatched detections within rounding of the score threshold, or of the
                last score of a full list, are not counted. INT8: reported without a verdict.
  AP drop       all: at most max_ap_drop, for the detections above the score threshold. Only with an evaluation.
The checkpoint runs with the NMS that the file was exported with.
"""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from dataset import label_map, scenes
from dataset.file_search import files_in
from dataset.files import write_file
from efficientdet.config import Config
from efficientdet.postprocess import Detections
from efficientdet.tta import Levels
from tf2.evaluation import evaluator
from tf2.evaluation.evaluator import Evaluation
from tf2.inference import drivers, provenance, runtimes
from tf2.inference.drivers import ArtifactDriver, Driver, KerasDriver
from tf2.inference.metadata import ArtifactError, Metadata

BOUNDS = {"FP32": 1e-4, "FP16": 1e-2}  # of differences of raw outputs
# Of differences of matched detections; larger, because exp and the anchor sizes multiply differences of raw outputs.
ROW_BOUNDS = {"FP32": 1e-3, "FP16": 1e-2, "INT8": 0.1}
# Below 1, because rounding may decide which of two boxes with nearly equal scores suppresses the other.
MIN_AGREEMENT = {"FP32": 0.99, "FP16": 0.9}
MAX_AP_DROP = 0.02
GENERATED_SIZES = ((480, 640), (427, 240), (97, 201), (720, 1280))  # (height, width), all unlike network inputs
LATENCY_RUNS = 30  # of each detector, alternating
MIN_LATENCY_RUNS, LATENCY_SECONDS = 3, 30.0  # after this time no further run starts, except to reach the minimum


class ParityError(ValueError):
    """An exported file whose results differ from those of its checkpoint."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One compared quantity and its verdict."""

    name: str
    value: float | None  # None: nothing to compare
    bound: float | None  # None: no verdict
    passed: bool | None  # None: no verdict
    compared: int  # number of values, detections or images
    text: str  # details

    @property
    def is_fatal(self) -> bool:
        """True if nothing further can be compared."""
        return self.value is None and self.passed is False


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """The result of one parity check."""

    path: str  # of the exported file or folder
    metadata: Metadata
    facts: dict[str, Any]  # JSON values
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        """passed, failed or not judged."""
        judged = [finding.passed for finding in self.findings if finding.passed is not None]
        return "not judged" if not judged else "passed" if all(judged) else "failed"

    @property
    def report_path(self) -> str:
        """Path of the JSON file."""
        return f"{self.path.rstrip('/')}.parity.json"

    def to_json(self) -> str:
        """The report as JSON; infinite numbers become the string "inf"."""
        findings = {finding.name: dataclasses.asdict(finding) for finding in self.findings}
        for finding in findings.values():
            del finding["name"]
            if finding["value"] is not None and not math.isfinite(finding["value"]):
                finding["value"] = str(finding["value"])
        content = {"artifact": self.path, "verdict": self.verdict, "findings": findings, **self.facts}
        return json.dumps({**content, "metadata": json.loads(self.metadata.to_json())}, indent=1, allow_nan=False)

    def table(self) -> Iterator[str]:
        """Formats the report as lines of text."""
        facts, words = self.facts, {True: "passed", False: "FAILED", None: "not judged"}
        yield f"{self.path} ({self.metadata.content}, {self.metadata.precision}) against {facts['checkpoint']}"
        yield f"{'':2}{'':<30}{'value':>12}{'bound':>12}{'':4}{'':<12}{'compared':>10}"
        for finding in self.findings:
            value, bound = ("-" if x is None else f"{x:.4g}" for x in (finding.value, finding.bound))
            yield f"  {finding.name:<30}{value:>12}{bound:>12}    {words[finding.passed]:<12}{finding.compared:>10}"
            yield f"      {finding.text}"
        nms = ", ".join(f"{key} {value}" for key, value in facts["nms"].items())
        yield f"  NMS of both: {nms}"
        yield f"  images: {facts['pictures']['source']}, {', '.join(facts['pictures']['sizes'])}"
        yield f"  size: {facts['bytes']:,} bytes"
        if latency := facts.get("latency"):
            quantiles = [
                f"{name} median {latency[name]['median_ms']:.1f} ms, p99 {latency[name]['p99_ms']:.1f} ms"
                for name in ("artifact", "checkpoint")
            ]
            yield f"  latency: {'; '.join(quantiles)} ({latency['runs']} runs, one image of {latency['picture']})"
        yield f"  verdict: {self.verdict}; {self.report_path}"


def check(
    reference: KerasDriver,
    path: str,
    *,
    images: Sequence[np.ndarray] | None = None,
    evaluation: Evaluation | None = None,
    max_ap_drop: float = MAX_AP_DROP,
) -> ParityReport:
    """Compares an exported file with the checkpoint it was exported from; writes and prints the report.

    Args:
        reference: the checkpoint, with the config of the export.
        path: of the exported file or folder; the report is written to `<path>.parity.json`.
        images: [H, W, 3] uint8 RGB; None or an empty list generates images.
        evaluation: records to compare AP on; None skips AP.
        max_ap_drop: largest accepted AP of the checkpoint minus AP of the file.

    Returns:
        The report.

    Raises:
        ArtifactError: if the file cannot be loaded.
        ParityError: if a value exceeds its bound; the report is written and printed before.
    """
    exported = drivers.open_artifact(path)
    source, images = ("given", list(images)) if images else ("generated", generated_images())
    facts = {
        "checkpoint": reference.ckpt_path or "random weights",
        "nms": evaluator.suppression(exported.config),
        "pictures": {"source": source, "sizes": [f"{image.shape[1]}x{image.shape[0]}" for image in images]},
        "bytes": sum(tf.io.gfile.stat(file).length for file in files_in(path)),
        "versions": provenance.describe(exported)["versions"],
    }
    findings = []
    for finding in _findings(reference, exported, path, images):
        findings.append(finding)
        if finding.is_fatal:
            break
    else:
        latency = _latency({"artifact": exported, "checkpoint": reference}, images[0])
        facts["latency"] = {"picture": facts["pictures"]["sizes"][0], **latency}
        findings += _ap_drop(reference, exported, evaluation, max_ap_drop, facts)
    report = ParityReport(path, exported.metadata, facts, tuple(findings))
    write_file(report.report_path, report.to_json())
    print(*report.table(), sep="\n", flush=True)
    if failed := [finding for finding in findings if finding.passed is False]:
        details = "; ".join(f"{finding.name}: {_value_and_bound(finding)}{finding.text}" for finding in failed)
        raise ParityError(f"{path} differs from its checkpoint: {details}; see {report.report_path}")
    return report


def generated_images() -> list[np.ndarray]:
    """Shapes on textured backgrounds in GENERATED_SIZES; always the same images."""
    return [scenes.make_scene(0, i, size).image for i, size in enumerate(GENERATED_SIZES)]


def _findings(
    reference: KerasDriver, exported: ArtifactDriver, path: str, images: Sequence[np.ndarray]
) -> Iterator[Finding]:
    """Yields the findings that need no records; after a fatal one the caller stops."""
    if differences := _config_differences(exported.config, reference.config):
        yield Finding("config", None, None, False, 0, f"differs from the checkpoint: {', '.join(differences)}")
    precision = exported.metadata.precision
    bound, row_bound = BOUNDS.get(precision), ROW_BOUNDS[precision]
    if network := _network(exported, path):
        yield _raw_outputs(reference, network, images, bound)
    else:
        yield Finding("raw outputs", None, bound, None, 0, "the file does not contain them")
    detected = [[driver.detect(image) for image in images] for driver in (reference, exported)]
    yield from _agreement(*detected, reference.config, row_bound, MIN_AGREEMENT.get(precision))


def _config_differences(config: Config, expected: Config) -> list[str]:
    """Describes the keys that differ; label maps are compared by the class names they resolve to."""
    plain, expected_plain = (each.override({"label_map": None}) for each in (config, expected))
    ours, theirs = plain.difference(expected_plain), expected_plain.difference(plain)
    texts = [f"{key} is {ours[key]}, expected {theirs[key]}" for key in ours]
    names, expected_names = (label_map.resolve(each.label_map) for each in (config, expected))
    return texts + (["class names"] if names != expected_names else [])


def _network(exported: ArtifactDriver, path: str) -> Driver | None:
    """A driver of the file with `network`; None if the file has no raw outputs."""
    if exported.network is not None:
        return exported
    if isinstance(exported.runtime, runtimes.SavedModel):
        with contextlib.suppress(ArtifactError):  # without that signature
            return drivers.open_artifact(path, content="network")
    return None


def _raw_outputs(
    reference: KerasDriver, exported: Driver, images: Sequence[np.ndarray], bound: float | None
) -> Finding:
    """The largest difference of all network outputs; both networks get the checkpoint's preprocessed images."""
    name, worst, where, count = "raw outputs", -1.0, "", 0
    for i, image in enumerate(images):
        inputs, _ = reference.stages["preprocess"]([image])
        expected = _named(reference.network(inputs))
        try:
            outputs = _named(exported.network(inputs))
        except KeyError as error:
            return Finding(name, None, bound, False, 0, f"the file has no output {error.args[0]}")
        shapes, others = ({key: x.shape for key, x in named.items()} for named in (outputs, expected))
        if shapes != others:
            key = next(key for key in {**others, **shapes} if shapes.get(key) != others.get(key))
            text = f"shape of {key} in the file {shapes.get(key)}, in the checkpoint {others.get(key)}"
            return Finding(name, None, bound, False, 0, text)
        for key, values in outputs.items():
            difference = np.abs(values - expected[key]) / np.maximum(1, np.abs(expected[key]))
            difference = np.where(np.isfinite(difference), difference, np.inf)  # NaN counts as infinite
            place = np.unravel_index(np.argmax(difference), difference.shape)
            count += difference.size
            if difference[place] > worst:
                worst = float(difference[place])
                index = ", ".join(map(str, place[1:]))
                where = f"{key}[{index}] of image {i} is {values[place]:.7g}, expected {expected[key][place]:.7g}"
    passed = False if math.isinf(worst) else None if bound is None else worst <= bound
    return Finding(name, worst, bound, passed, count, where)


def _named(levels: Levels) -> dict[str, np.ndarray]:
    """Raw outputs by their names in exported files."""
    return {
        f"{head}_predict_{i}": np.asarray(output)
        for head, outputs in zip(("class", "box"), levels)
        for i, output in enumerate(outputs)
    }


class _Side(NamedTuple):
    """The detections of one detector in all images."""

    name: str
    detections: Sequence[Detections]
    matched: Sequence[np.ndarray]  # per image [K] bool, True for detections with a partner on the other side


def _agreement(
    expected: Sequence[Detections],
    detected: Sequence[Detections],
    config: Config,
    bound: float,
    min_share: float | None,
) -> Iterator[Finding]:
    """Yields the matched share of the checkpoint's detections, and that of the file's."""
    matches = [_match(*pair, bound) for pair in zip(expected, detected, strict=True)]
    for name, side in (("checkpoint", expected), ("file", detected)):
        for i, (boxes, scores, *_) in enumerate(side):
            if not (np.all(np.isfinite(boxes)) and np.all(np.isfinite(scores))):
                text = f"the {name}'s detections in image {i} are not all finite"
                yield Finding("finite detections", None, None, False, len(scores), text)
                return
    ours = _Side("the checkpoint", expected, [rows for rows, _, _ in matches])
    theirs = _Side("the file", detected, [columns for _, columns, _ in matches])
    largest = max(difference for _, _, difference in matches)
    for name, side, other in (("checkpoint's detections", ours, theirs), ("file's detections", theirs, ours)):
        yield _share(f"agreement of the {name}", side, other, config, bound, min_share, largest)


def _match(expected: Detections, detected: Detections, bound: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Matches the detections of one image greedily, the closest pair first.

    Returns:
        [K] and [N] bool, True for detections with a partner within the bound, and the largest difference of a pair.
    """
    difference = np.where(expected.classes[:, None] == detected.classes, _distances(expected, detected), np.inf)
    rows, columns, largest = np.zeros(len(expected.scores), bool), np.zeros(len(detected.scores), bool), 0.0
    pairs = np.argwhere(difference <= bound)
    for i, j in pairs[np.argsort(difference[tuple(pairs.T)], kind="stable")]:
        if not rows[i] and not columns[j]:
            rows[i] = columns[j] = True
            largest = float(difference[i, j])
    return rows, columns, largest


def _distances(expected: Detections, detected: Detections) -> np.ndarray:
    """[K, N] max(|score difference|, |largest corner difference| / max(1 pixel, longer side of the expected box))."""
    boxes = np.asarray(expected.boxes, np.float64)
    sides = np.maximum(1, np.max(boxes[:, 2:] - boxes[:, :2], axis=-1, initial=0))  # pixels
    corners = np.max(np.abs(boxes[:, None] - detected.boxes), axis=-1) / sides[:, None]
    return np.maximum(corners, np.abs(expected.scores[:, None] - detected.scores))


def _share(
    name: str, side: _Side, other: _Side, config: Config, bound: float, min_share: float | None, largest: float
) -> Finding:
    """The matched share of one side; unmatched detections that rounding may have removed are not counted."""
    # The rounding observed in the pairs, not the bound, within which all of several similar scores would lie.
    rounding = min(2 * largest, bound)
    num_matched, missing, num_marginal = int(sum(map(np.sum, side.matched))), [], 0
    for i, (ours, theirs) in enumerate(zip(side.detections, other.detections)):
        is_marginal = ours.scores <= _score_cutoff(theirs, config) + rounding
        missing += [(ours.scores[k], i, k) for k in np.flatnonzero(~side.matched[i] & ~is_marginal)]
        num_marginal += int(np.sum(~side.matched[i] & is_marginal))
    count = num_matched + len(missing)
    if not count:
        thresh = config.nms_configs.score_thresh or 0
        text = f"no verdict: no detection above {thresh:g}; give --parity_images, or a lower --min_score_thresh"
        return Finding(name, None, min_share, None, 0, text)
    text = f"{num_matched} of {count} detections, largest difference {largest:.2g} (bound {bound:g})"
    if num_marginal:
        text += f"; {num_marginal} more within rounding of the score cutoff"
    if missing:
        _, i, k = max(missing)
        text += f"; image {i}: {_row(side.detections[i], k)} of {side.name}"
        text += f", nearest of {other.name}: {_nearest(side.detections[i], k, other.detections[i])}"
    share = num_matched / count
    return Finding(name, share, min_share, None if min_share is None else share >= min_share, count, text)


def _score_cutoff(detections: Detections, config: Config) -> float:
    """The score above which a box is among the detections of an image."""
    nms_configs = config.nms_configs
    thresh = nms_configs.min_score
    is_full = detections.valid_len >= nms_configs.max_output_size
    return max(thresh, detections.scores[-1]) if is_full else thresh


def _row(detections: Detections, k: int) -> str:
    """Formats detection k."""
    box = ", ".join(f"{x:.2f}" for x in detections.boxes[k])
    return f"class {detections.classes[k]}, score {detections.scores[k]:.5f}, box [{box}]"


def _nearest(detections: Detections, k: int, others: Detections) -> str:
    """Formats the detection of `others` that is nearest to detection k, of any class."""
    row = Detections(*(column[k : k + 1] for column in detections[:3]), 1)
    return _row(others, int(np.argmin(_distances(row, others)))) if others.valid_len else "none"


def _ap_drop(
    reference: KerasDriver, exported: ArtifactDriver, evaluation: Evaluation | None, max_ap_drop: float, facts: dict
) -> Iterator[Finding]:
    """Yields the difference of the APs, which are added to `facts`."""
    if evaluation is None:
        if exported.metadata.precision == "INT8":
            yield Finding("AP drop", None, max_ap_drop, None, 0, "no verdict: needs --val_file_pattern")
        return
    facts["ap"] = {}
    for name, driver in (("checkpoint", reference), ("artifact", exported)):
        result = evaluator.run_driver(driver, evaluation)
        metrics, count = result.metric.result(), result.num_images
        facts["ap"][name] = {key: metrics[key] for key in ("AP", "AP50")}
    facts["ap"] |= {"images": count, "val_file_pattern": evaluation.val_file_pattern}
    ours, theirs = facts["ap"]["checkpoint"], facts["ap"]["artifact"]
    if ours["AP"] < 0:
        yield Finding("AP drop", None, max_ap_drop, None, count, "no verdict: the images have no groundtruth")
        return
    drop = ours["AP"] - theirs["AP"]
    figures = "AP {AP:.4f}, AP50 {AP50:.4f}"
    text = f"{figures.format(**theirs)}; checkpoint {figures.format(**ours)}"
    yield Finding("AP drop", drop, max_ap_drop, drop <= max_ap_drop, count, text)


def _latency(detectors: dict[str, Driver], image: np.ndarray) -> dict[str, Any]:
    """Times detection in one image, alternating between the detectors, after one untimed run of each."""
    seconds = {name: [] for name in detectors}
    for driver in detectors.values():
        driver.detect(image)
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


def _value_and_bound(finding: Finding) -> str:
    if finding.value is None:
        return ""
    return f"{finding.value:.3g}" + (f" (bound {finding.bound:g}), " if finding.bound is not None else ", ")
