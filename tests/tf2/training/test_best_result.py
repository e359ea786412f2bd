# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/best_result.py."""

from tf2.training.best_result import BestResult


def test_the_best_ap_is_kept_through_a_checkpoint():
    best = BestResult()
    assert [best.update(step, ap) for step, ap in [(10, 0.0), (20, 0.3), (30, 0.3), (40, 0.2)]] == [
        *(True, True),  # AP 0 is better than none
        *(False, False),  # an equal one is not better
    ]
    restored = BestResult.from_entries({**best.entries(), "training/seed": 1})
    assert restored == BestResult(best_ap=0.3, best_step=20, stale=2)
    assert type(restored.best_step) is int and type(restored.best_ap) is float
    assert restored.update(50, 0.4) and restored == BestResult(0.4, 50, 0)
