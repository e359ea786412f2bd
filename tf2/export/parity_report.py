# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The report of a parity check: its findings, verdict, table and JSON file."""

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

from tf2.inference.metadata import Metadata


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
    def error(self) -> str:
        """The error message of a failed check: each value that failed, its bound and details."""
        failed = [finding for finding in self.findings if finding.passed is False]
        details = "; ".join(f"{finding.name}: {_value_and_bound(finding)}{finding.text}" for finding in failed)
        return f"{self.path} differs from its checkpoint: {details}; see {self.report_path}"

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


def _value_and_bound(finding: Finding) -> str:
    if finding.value is None:
        return ""
    return f"{finding.value:.3g}" + (f" (bound {finding.bound:.3g}), " if finding.bound is not None else ", ")
