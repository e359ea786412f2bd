# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Agreement: the share of detections of a checkpoint and of an exported file that have a partner on the other side."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from efficientdet.config import Config
from efficientdet.postprocess import Detections
from tf2.export.parity_report import Finding

# Below 1, because rounding may decide which of two boxes with nearly equal scores suppresses the other.
MIN_AGREEMENT = {"FP32": 0.99, "FP16": 0.9}
MAX_UNCOUNTED, MIN_UNCOUNTED = 0.1, 2  # share of the detections; this many are always accepted


class Tolerance(NamedTuple):
    """Largest differences of a detection and its partner, which have the same class."""

    score: float
    pixels: float  # of the corners
    side: float  # of the corners, relative to the longer side of the box; sufficient if `pixels` is exceeded


TOLERANCES = {
    "FP32": Tolerance(1e-3, 0.1, 2e-4),
    "FP16": Tolerance(1e-2, 0.1, 1e-2),
    "INT8": Tolerance(0.1, 0.1, 0.1),
}


@dataclasses.dataclass(frozen=True)
class Share:
    """The detections of one side, in all images."""

    name: str
    num_matched: int  # with a partner
    num_missing: int  # without
    num_uncounted: int  # without, which rounding may have removed: near the score threshold or the end of a full list
    text: str  # details

    @property
    def count(self) -> int:
        """Number of counted detections."""
        return self.num_matched + self.num_missing

    @property
    def value(self) -> float | None:
        """The share of the counted detections that have a partner; None without any."""
        return self.num_matched / self.count if self.count else None

    @property
    def is_complete(self) -> bool:
        """True if there are detections, and each has a partner."""
        return self.num_matched > 0 and not self.num_missing and not self.num_uncounted

    def judge(self, min_share: float | None, own: "Share | None" = None) -> Finding:
        """Returns a finding, with a verdict unless there is nothing to compare.

        Args:
            min_share: see MIN_AGREEMENT; None for no verdict.
            own: the checkpoint's detections, compared with those of the checkpoint after rounding, which excuse twice
                as many in the file; None excuses none.
        """
        name, text, count = f"agreement of the {self.name}", self.text, self.count
        total = count + self.num_uncounted
        if min_share is None or not total:
            return Finding(name, self.value, min_share, None, count, text)
        bound, limit = min_share, max(MIN_UNCOUNTED, MAX_UNCOUNTED * total)
        if own:
            text += f"; after rounding, the checkpoint has {own.num_matched} of its {own.count} detections"
            bound -= 2 * own.num_missing / max(1, own.count)
            limit = max(limit, 2 * own.num_uncounted)
        if self.num_uncounted > limit:
            text = f"{self.num_uncounted} of {total} detections cannot be compared, more than {limit:.0f}; {text}"
            return Finding(name, self.value or 0.0, bound, False, count, text)
        if self.value is None or bound <= 0:
            return Finding(name, self.value, None, None, count, f"no verdict: rounding decides; {text}")
        return Finding(name, self.value, bound, self.value >= bound, count, text)


class _Match(NamedTuple):
    """The partners in one image."""

    rows: np.ndarray  # [K] bool, True for detections of the checkpoint with a partner
    columns: np.ndarray  # [N] bool, True for detections of the file with a partner
    score: float  # largest difference of the scores of partners
    pixels: float  # largest difference of their corners


class _Side(NamedTuple):
    """The detections of one detector in all images."""

    name: str
    detections: Sequence[Detections]
    matched: Sequence[np.ndarray]  # per image [K] bool


def non_finite(expected: Sequence[Detections], detected: Sequence[Detections]) -> Finding | None:
    """Returns a failed finding if the detections of the checkpoint or of the file contain NaN or infinity."""
    for name, side in (("checkpoint", expected), ("file", detected)):
        for i, (boxes, scores, *_) in enumerate(side):
            if not (np.all(np.isfinite(boxes)) and np.all(np.isfinite(scores))):
                text = f"the {name}'s detections in image {i} are not all finite"
                return Finding("finite detections", None, None, False, len(scores), text)
    return None


def compare(
    expected: Sequence[Detections], detected: Sequence[Detections], config: Config, tolerance: Tolerance
) -> Iterator[Share]:
    """Yields the share of the checkpoint's detections, and that of the file's.

    Args:
        expected: detections of the checkpoint per image, in NumPy arrays without padding, finite.
        detected: those of the file.
        config: with the thresholds of both.
        tolerance: an entry of TOLERANCES.
    """
    matches = [_match(*pair, tolerance) for pair in zip(expected, detected, strict=True)]
    ours = _Side("the checkpoint", expected, [match.rows for match in matches])
    theirs = _Side("the file", detected, [match.columns for match in matches])
    score, pixels = (max(getattr(match, name) for match in matches) for name in ("score", "pixels"))
    # The rounding observed in the pairs, not the tolerance, within which all of several similar scores would lie.
    rounding = min(2 * score, tolerance.score)
    differences = f"largest differences: score {score:.2g}, box {pixels:.2g} pixels"
    for name, side, other in (("checkpoint's detections", ours, theirs), ("file's detections", theirs, ours)):
        yield _share(name, side, other, config, rounding=rounding, differences=differences)


def _match(expected: Detections, detected: Detections, tolerance: Tolerance) -> _Match:
    """Matches the detections of one image greedily, the closest pair first."""
    distances = _distances(expected, detected, tolerance)
    distances = np.where(expected.classes[:, None] == detected.classes, distances, np.inf)
    rows, columns = np.zeros(len(expected.scores), bool), np.zeros(len(detected.scores), bool)
    score = pixels = 0.0
    pairs = np.argwhere(distances <= 1)
    for i, j in pairs[np.argsort(distances[tuple(pairs.T)], kind="stable")]:
        if not rows[i] and not columns[j]:
            rows[i] = columns[j] = True
            score = max(score, float(abs(expected.scores[i] - detected.scores[j])))
            pixels = max(pixels, float(np.max(np.abs(expected.boxes[i] - detected.boxes[j]))))
    return _Match(rows, columns, score, pixels)


def _distances(expected: Detections, detected: Detections, tolerance: Tolerance) -> np.ndarray:
    """[K, N] differences of score or corners, the larger one, in units of the tolerance."""
    boxes = np.asarray(expected.boxes, np.float64)
    sides = np.max(boxes[:, 2:] - boxes[:, :2], axis=-1, initial=0)  # pixels
    accepted = np.maximum(tolerance.pixels, tolerance.side * sides)
    corners = np.max(np.abs(boxes[:, None] - detected.boxes), axis=-1) / accepted[:, None]
    return np.maximum(corners, np.abs(expected.scores[:, None] - detected.scores) / tolerance.score)


def _share(name: str, side: _Side, other: _Side, config: Config, *, rounding: float, differences: str) -> Share:
    """The matched share of one side; unmatched detections that rounding may have removed are not counted."""
    num_matched, missing, num_marginal = int(sum(map(np.sum, side.matched))), [], 0
    for i, (ours, theirs) in enumerate(zip(side.detections, other.detections)):
        is_marginal = ours.scores <= _score_cutoff(theirs, config) + rounding
        missing += [(ours.scores[k], i, k) for k in np.flatnonzero(~side.matched[i] & ~is_marginal)]
        num_marginal += int(np.sum(~side.matched[i] & is_marginal))
    text = f"{num_matched} of {num_matched + len(missing)} detections, {differences}"
    if not any(map(len, side.matched)):
        thresh = config.nms_configs.score_thresh or 0
        text = f"no verdict: no detection above {thresh:g}; give --parity_images, or a lower --min_score_thresh"
    if num_marginal:
        text += f"; {num_marginal} more within rounding of the score cutoff"
    if missing:
        _, i, k = max(missing)
        text += f"; image {i}: {_row(side.detections[i], k)} of {side.name}"
        text += f", nearest of {other.name}: {_nearest(side.detections[i], k, other.detections[i])}"
    return Share(name, num_matched, len(missing), num_marginal, text)


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
    return _row(others, int(np.argmin(_distances(row, others, TOLERANCES["FP32"])))) if others.valid_len else "none"
