# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The best evaluation of a training run, and the better of its last averaged and raw weights, by AP."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


@dataclasses.dataclass
class BestResult:
    """The best evaluation of a training run; saved with each checkpoint."""

    best_ap: float = -1.0
    best_step: int = 0
    stale: int = 0  # evaluations since the best one

    def update(self, step: int, ap: float) -> bool:
        """Records an evaluation; returns True if it is better than all before."""
        is_best = ap > self.best_ap
        if is_best:
            self.best_ap, self.best_step = ap, step
        self.stale = 0 if is_best else self.stale + 1
        return is_best

    def entries(self) -> dict[str, np.ndarray]:
        """Returns the checkpoint entries."""
        return {f"training/{name}": np.asarray(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_entries(cls, entries: Mapping[str, np.ndarray]) -> "BestResult":
        """Restores the object from checkpoint entries."""
        fields = {field.name: type(field.default) for field in dataclasses.fields(cls)}
        return cls(**{name: kind(entries[f"training/{name}"]) for name, kind in fields.items()})


class BetterWeights(NamedTuple):
    """The better of the averaged and the raw weights of one step; the averaged ones if both have the same AP."""

    metrics: dict[str, float]  # of the better weights; and AP_averaged, AP_raw
    averaged: bool  # False if the raw weights are better

    @classmethod
    def of(cls, averaged: Mapping[str, float], raw: Mapping[str, float]) -> "BetterWeights":
        """Compares the metrics of averaged and raw weights."""
        is_averaged = averaged["AP"] >= raw["AP"]
        metrics = averaged if is_averaged else raw
        return cls({**metrics, "AP_averaged": averaged["AP"], "AP_raw": raw["AP"]}, is_averaged)

    def describe(self, is_best: bool, best_ap: float) -> str:
        """Returns a line for the log.

        Args:
            is_best: True if these weights are in archive/.
            best_ap: AP of the weights in archive/.
        """
        these = "the averaged weights" if self.averaged else "the raw weights"
        kept = these if is_best else f"another checkpoint, AP {best_ap:.4f}"
        aps = f"AP of averaged weights {self.metrics['AP_averaged']:.4f}, of raw weights {self.metrics['AP_raw']:.4f}"
        return f"{aps}: archive keeps {kept}"
