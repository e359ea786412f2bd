# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The best evaluation of a training run, by AP."""

import dataclasses
from collections.abc import Mapping

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
