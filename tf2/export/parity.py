# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Proof sheets: an exported file is held against its checkpoint, on the same pictures, number by number.

What is judged, by the precision of the file:
  raw outputs   FP32, FP16: |difference| / max(1, |value of the checkpoint|) of every output of the network is at most
                BOUNDS; INT8: told, not judged. Only of files that give them: networks, and SavedModels.
  agreement     FP32, FP16: at least AGREEMENT of the detections on each side have their own on the other: of the same
                class, with scores at most ROW_BOUNDS apart, and corners at most that times the longer side of the
                box (or of one pixel). Rows that are missing do not count where rounding may have decided whether
                they are kept: at the score threshold, and at the last score of a full list. INT8: told, not judged.
  AP drop       all: at most max_ap_drop, of what each serves at its score threshold. Only with an evaluation.
The checkpoint runs with the suppression that the file was exported with.
"""

import contextlib
import dataclasses
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dataset import scenes
from dataset.files import files_in, write_file
from efficientdet.config import Config
from efficientdet.nms import least_score
from efficientdet.postprocess import Detections
from efficientdet.tta import Levels
from tf2.evaluation import evaluator
from tf2.evaluation.evaluator import Evaluation
from tf2.inference import drivers, provenance, runtimes
from tf2.inference.drivers import ArtifactDriver, Driver, KerasDriver
from tf2.inference.metadata import ArtifactError, Metadata, class_names

BOUNDS = {"FP32": 1e-4, "FP16": 1e-2}  # of differences of raw outputs
# Of differences of rows that are the same: above those of raw outputs, as exp and the size of anchors multiply these.
ROW_BOUNDS = {"FP32": 1e-3, "FP16": 1e-2, "INT8": 0.1}
# Not all: rounding may decide which of two boxes of nearly equal scores suppresses the other, and all that follows.
AGREEMENT = {"FP32": 0.99, "FP16": 0.9}
MAX_AP_DROP = 0.02
GENERATED_SIZES = ((480, 640), (427, 240), (97, 201), (720, 1280))  # (height, width) of pictures, none as a network's
LATENCY_RUNS = 30  # of each of the two, alternating
LEAST_RUNS, LATENCY_SECONDS = 3, 30.0  # fewer runs, where they take longer than this


class ProofError(ValueError):
    """An exported file that does not compute what its checkpoint computes."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One number of a sheet, and what it is held against."""

    name: str
    value: float | None  # None: there is nothing to compare
    bound: float | None  # None: not judged
    passed: bool | None  # None: not judged
    compared: int  # values, rows or images
    text: str  # where, or why not

    @property
    def ends(self) -> bool:
        """Whether the two are so different that nothing further can be compared."""
        return self.value is None and self.passed is False


@dataclasses.dataclass(frozen=True)
class Sheet:
    """All that is known of one exported file beside its checkpoint."""

    path: str  # of the exported file or folder
    metadata: Metadata
    facts: dict[str, Any]  # fit for JSON
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        """passed, failed or not judged."""
        judged = [finding.passed for finding in self.findings if finding.passed is not None]
        return "not judged" if not judged else "passed" if all(judged) else "failed"

    @property
    def report_path(self) -> str:
        """Where the sheet is written to."""
        return f"{self.path.rstrip('/')}.report.json"

    def to_json(self) -> str:
        """The sheet as a file; a number that is infinite is the text "inf"."""
        findings = {finding.name: dataclasses.asdict(finding) for finding in self.findings}
        for finding in findings.values():
            del finding["name"]
            if finding["value"] is not None and not math.isfinite(finding["value"]):
                finding["value"] = str(finding["value"])
        content = {"artifact": self.path, "verdict": self.verdict, "findings": findings, **self.facts}
        return json.dumps({**content, "metadata": json.loads(self.metadata.to_json())}, indent=1, allow_nan=False)

    def table(self) -> Iterator[str]:
        """The sheet as lines for people."""
        facts, words = self.facts, {True: "passed", False: "FAILED", None: "not judged"}
        yield f"{self.path} ({self.metadata.content}, {self.metadata.precision}) against {facts['checkpoint']}"
        yield f"{'':2}{'':<30}{'value':>12}{'bound':>12}{'':4}{'':<12}{'compared':>10}"
        for finding in self.findings:
            value, bound = ("-" if x is None else f"{x:.4g}" for x in (finding.value, finding.bound))
            yield f"  {finding.name:<30}{value:>12}{bound:>12}    {words[finding.passed]:<12}{finding.compared:>10}"
            yield f"      {finding.text}"
        nms = ", ".join(f"{key} {value}" for key, value in facts["nms"].items())
        yield f"  both suppressed by: {nms}"
        yield f"  pictures: {facts['pictures']['source']}, {', '.join(facts['pictures']['sizes'])}"
        yield f"  size: {facts['bytes']:,} bytes"
        if latency := facts.get("latency"):
            of_each = [
                f"{name} median {latency[name]['median_ms']:.1f} ms, p99 {latency[name]['p99_ms']:.1f} ms"
                for name in ("artifact", "checkpoint")
            ]
            yield f"  latency: {'; '.join(of_each)} ({latency['runs']} runs, one picture of {latency['picture']})"
        yield f"  verdict: {self.verdict}; {self.report_path}"


def check(
    reference: KerasDriver,
    path: str,
    *,
    images: Sequence[np.ndarray] | None = None,
    evaluation: Evaluation | None = None,
    max_ap_drop: float = MAX_AP_DROP,
) -> Sheet:
    """Holds an exported file against the checkpoint that it was made of; writes and prints the sheet.

    Args:
        reference: the checkpoint, with the config of the export.
        path: of the exported file or folder; the sheet goes to `<path>.report.json`.
        images: [H, W, 3] uint8 RGB pictures; none or None generates some.
        evaluation: records to take AP on; None takes none.
        max_ap_drop: how much lower the AP of the file may be.

    Returns:
        The sheet.

    Raises:
        ArtifactError: if the file cannot be loaded.
        ProofError: if a number is outside its bound; the sheet is written and printed all the same.
    """
    exported = drivers.open_artifact(path)
    pictures = list(images) if images else generated_pictures()
    facts = {
        "checkpoint": reference.ckpt_path or "random weights",
        "nms": evaluator.suppression(exported.config),
        "pictures": {"source": "given" if images else "generated", "sizes": [_size(picture) for picture in pictures]},
        "bytes": sum(os.path.getsize(file) for file in files_in(path)),
        "versions": provenance.describe(exported)["versions"],
    }
    findings = []
    for found in _findings(reference, exported, path, pictures):
        findings.append(found)
        if found.ends:
            break
    else:
        facts["latency"] = _latency({"artifact": exported, "checkpoint": reference}, pictures[0])
        findings += _ap_drop(reference, exported, evaluation, max_ap_drop, facts)
    sheet = Sheet(path, exported.metadata, facts, tuple(findings))
    write_file(sheet.report_path, sheet.to_json())
    print(*sheet.table(), sep="\n", flush=True)
    if failed := [finding for finding in findings if finding.passed is False]:
        numbers = "; ".join(f"{finding.name}: {_against(finding)}{finding.text}" for finding in failed)
        raise ProofError(f"{path} does not compute what its checkpoint computes: {numbers}; see {sheet.report_path}")
    return sheet


def generated_pictures() -> list[np.ndarray]:
    """Shapes on textured backgrounds, the same ones always, of GENERATED_SIZES."""
    return [scenes.make_scene(0, i, size).image for i, size in enumerate(GENERATED_SIZES)]


def _findings(
    reference: KerasDriver, exported: ArtifactDriver, path: str, pictures: Sequence[np.ndarray]
) -> Iterator[Finding]:
    """What needs no records, one by one, as nothing can be compared behind a finding that `ends`."""
    if differing := _differing(exported.config, reference.config):
        yield Finding("config", None, None, False, 0, f"not that of the checkpoint: {', '.join(differing)}")
    precision = exported.metadata.precision
    bound, row_bound = BOUNDS.get(precision), ROW_BOUNDS[precision]
    if network := _network(exported, path):
        yield _raw_outputs(reference, network, pictures, bound)
    else:
        yield Finding("raw outputs", None, bound, None, 0, "the file does not give them")
    detected = [[driver.detect(picture) for picture in pictures] for driver in (reference, exported)]
    yield from _agreement(*detected, reference.config, row_bound, AGREEMENT.get(precision))


def _differing(config: Config, other: Config) -> list[str]:
    """What two configs do not share, class names as they are resolved."""
    plain, other_plain = (each.override({"label_map": None}) for each in (config, other))
    ours, theirs = plain.difference(other_plain), other_plain.difference(plain)
    texts = [f"{key} is {ours[key]} and not {theirs[key]}" for key in ours]
    return texts + (["other class names"] if class_names(config) != class_names(other) else [])


def _network(exported: ArtifactDriver, path: str) -> Driver | None:
    """The driver of the file that has its network; None where the file gives no raw outputs."""
    if exported.network is not None:
        return exported
    if isinstance(exported.runtime, runtimes.SavedModel):
        with contextlib.suppress(ArtifactError):  # of one without that signature
            return drivers.open_artifact(path, content="network")
    return None


def _raw_outputs(
    reference: KerasDriver, exported: Driver, pictures: Sequence[np.ndarray], bound: float | None
) -> Finding:
    """The largest difference of all outputs of the network, on the network inputs of the checkpoint."""
    name, worst, where, count = "raw outputs", -1.0, "", 0
    for i, picture in enumerate(pictures):
        inputs, _ = reference.stages["preprocess"]([picture])
        expected = _named(reference.network(inputs))
        try:
            outputs = _named(exported.network(inputs))
        except KeyError as error:
            return Finding(name, None, bound, False, 0, f"the file gives no {error.args[0]}")
        shapes, others = ({key: x.shape for key, x in named.items()} for named in (outputs, expected))
        if shapes != others:
            key = next(key for key in {**others, **shapes} if shapes.get(key) != others.get(key))
            text = f"{key} of the file is {shapes.get(key)}, of the checkpoint {others.get(key)}"
            return Finding(name, None, bound, False, 0, text)
        for key, values in outputs.items():
            difference = np.abs(values - expected[key]) / np.maximum(1, np.abs(expected[key]))
            difference = np.where(np.isfinite(difference), difference, np.inf)  # a NaN is as far off as can be
            place = np.unravel_index(np.argmax(difference), difference.shape)
            count += difference.size
            if difference[place] > worst:
                worst = float(difference[place])
                index = ", ".join(map(str, place[1:]))
                where = f"{key}[{index}] of picture {i} is {values[place]:.7g} and not {expected[key][place]:.7g}"
    passed = False if math.isinf(worst) else None if bound is None else worst <= bound
    return Finding(name, worst, bound, passed, count, where)


def _named(levels: Levels) -> dict[str, np.ndarray]:
    """Raw outputs by the names that files give them."""
    return {
        f"{head}_predict_{i}": np.asarray(output)
        for head, outputs in zip(("class", "box"), levels)
        for i, output in enumerate(outputs)
    }


class _Side(NamedTuple):
    """The detections of all pictures by one of the two, and which of them agree with the other's."""

    name: str
    detections: Sequence[Detections]
    agree: Sequence[np.ndarray]  # a picture, [K] bool


def _agreement(
    expected: Sequence[Detections],
    detected: Sequence[Detections],
    config: Config,
    bound: float,
    least: float | None,
) -> Iterator[Finding]:
    """How many of the checkpoint's detections the file has, how many of the file's the checkpoint has."""
    agreeing = [_agreeing(*pair, bound) for pair in zip(expected, detected, strict=True)]
    for name, side in (("checkpoint", expected), ("file", detected)):
        for i, (boxes, scores, *_) in enumerate(side):
            if not (np.all(np.isfinite(boxes)) and np.all(np.isfinite(scores))):
                text = f"the {name}'s detections in picture {i} are not all finite"
                yield Finding("finite detections", None, None, False, len(scores), text)
                return
    ours = _Side("the checkpoint", expected, [rows for rows, _, _ in agreeing])
    theirs = _Side("the file", detected, [columns for _, columns, _ in agreeing])
    largest = max(difference for _, _, difference in agreeing)
    for name, side, other in (("checkpoint's detections", ours, theirs), ("file's detections", theirs, ours)):
        yield _share(f"agreement of the {name}", side, other, config, bound, least, largest)


def _agreeing(expected: Detections, detected: Detections, bound: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Pairs the rows of one picture off, the closest first.

    Returns:
        Whether each row has a partner within the bound, [K] and [N] bool, and the largest difference of a pair.
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
    """[K, N]: the larger of the difference of scores, and of corners in longer sides of the expected box."""
    boxes = np.asarray(expected.boxes, np.float64)
    sides = np.maximum(1, np.max(boxes[:, 2:] - boxes[:, :2], axis=-1, initial=0))  # pixels
    corners = np.max(np.abs(boxes[:, None] - detected.boxes), axis=-1) / sides[:, None]
    return np.maximum(corners, np.abs(expected.scores[:, None] - detected.scores))


def _share(
    name: str, side: _Side, other: _Side, config: Config, bound: float, least: float | None, largest: float
) -> Finding:
    """How many rows of one side agree; those that are missing at the border of being kept do not count."""
    # By what rounding does here, not by the bound: of scores that hardly differ, all would be at the border.
    rounding = min(2 * largest, bound)
    num_agreeing, missing, num_at_border = int(sum(map(np.sum, side.agree))), [], 0
    for i, (ours, theirs) in enumerate(zip(side.detections, other.detections)):
        at_border = ours.scores <= _border(theirs, config) + rounding
        missing += [(ours.scores[k], i, k) for k in np.flatnonzero(~side.agree[i] & ~at_border)]
        num_at_border += int(np.sum(~side.agree[i] & at_border))
    count = num_agreeing + len(missing)
    if not count:
        thresh = config.nms_configs.score_thresh or 0
        text = f"says nothing: no detection above {thresh:g}; give --proof_images, or a lower --min_score_thresh"
        return Finding(name, None, least, None, 0, text)
    text = f"{num_agreeing} of {count} rows, their largest difference {largest:.2g} (bound {bound:g})"
    if num_at_border:
        text += f"; {num_at_border} more at the border of being kept"
    if missing:
        _, i, k = max(missing)
        text += f"; picture {i}: {_row(side.detections[i], k)} of {side.name}"
        text += f", nearest of {other.name}: {_nearest(side.detections[i], k, other.detections[i])}"
    share = num_agreeing / count
    return Finding(name, share, least, None if least is None else share >= least, count, text)


def _border(detections: Detections, config: Config) -> float:
    """The score that a row has to beat to be among the detections of a picture."""
    nms_configs = config.nms_configs
    thresh = least_score(nms_configs)
    is_full = detections.valid_len >= nms_configs.max_output_size
    return max(thresh, detections.scores[-1]) if is_full else thresh


def _row(detections: Detections, k: int) -> str:
    """A row for people."""
    box = ", ".join(f"{x:.2f}" for x in detections.boxes[k])
    return f"class {detections.classes[k]}, score {detections.scores[k]:.5f}, box [{box}]"


def _nearest(detections: Detections, k: int, others: Detections) -> str:
    """The row of the others that is nearest to row k, of any class."""
    row = Detections(*(column[k : k + 1] for column in detections[:3]), 1)
    return _row(others, int(np.argmin(_distances(row, others)))) if others.valid_len else "none"


def _ap_drop(
    reference: KerasDriver,
    exported: ArtifactDriver,
    evaluation: Evaluation | None,
    max_ap_drop: float,
    facts: dict[str, Any],
) -> Iterator[Finding]:
    """The AP of both, which it adds to the facts."""
    if evaluation is None:
        if exported.metadata.precision == "INT8":
            yield Finding("AP drop", None, max_ap_drop, None, 0, "not judged: needs --val_file_pattern")
        return
    facts["ap"] = {}
    for name, driver in (("checkpoint", reference), ("artifact", exported)):
        result = evaluator.run_driver(driver, evaluation)
        metrics, count = result.metric.result(), result.num_images
        facts["ap"][name] = {key: metrics[key] for key in ("AP", "AP50")}
    facts["ap"] |= {"images": count, "val_file_pattern": evaluation.val_file_pattern}
    ours, theirs = facts["ap"]["checkpoint"], facts["ap"]["artifact"]
    if ours["AP"] < 0:
        yield Finding("AP drop", None, max_ap_drop, None, count, "says nothing: the images have no groundtruth")
        return
    drop = ours["AP"] - theirs["AP"]
    figures = "AP {AP:.4f}, AP50 {AP50:.4f}"
    text = f"{figures.format(**theirs)} against the checkpoint's {figures.format(**ours)}"
    yield Finding("AP drop", drop, max_ap_drop, drop <= max_ap_drop, count, text)


def _latency(detectors: dict[str, Driver], picture: np.ndarray) -> dict[str, Any]:
    """From picture to detections, batch 1, the detectors by turns; the first run of each does not count."""
    seconds = {name: [] for name in detectors}
    for driver in detectors.values():
        driver.detect(picture)
    begun = time.perf_counter()
    for run in range(LATENCY_RUNS):
        if run >= LEAST_RUNS and time.perf_counter() - begun > LATENCY_SECONDS:
            break
        for name, driver in detectors.items():
            start = time.perf_counter()
            driver.detect(picture)
            seconds[name].append(time.perf_counter() - start)
    quantiles = {name: 1000 * np.percentile(values, [50, 99]) for name, values in seconds.items()}
    return {
        "picture": _size(picture),
        "runs": len(seconds["artifact"]),
        **{name: {"median_ms": float(median), "p99_ms": float(p99)} for name, (median, p99) in quantiles.items()},
    }


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"


def _against(finding: Finding) -> str:
    """A number and its bound, for a sentence."""
    if finding.value is None:
        return ""
    return f"{finding.value:.3g}" + (f" against a bound of {finding.bound:g}, " if finding.bound is not None else ", ")
