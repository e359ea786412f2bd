# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/best_result.py."""

import pytest

from tf2.training.best_result import BestResult, BetterWeights


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


@pytest.mark.parametrize("averaged, raw, is_averaged", [(0.5, 0.25, True), (0.25, 0.5, False), (0.5, 0.5, True)])
def test_better_weights(averaged, raw, is_averaged):
    better = BetterWeights.of({"AP": averaged, "AP50": 0.75}, {"AP": raw, "AP50": 0.875})
    expected = {"AP": 0.5, "AP50": 0.75 if is_averaged else 0.875, "AP_averaged": averaged, "AP_raw": raw}
    assert better == (expected, is_averaged)
    aps = f"AP of averaged weights {averaged:.4f}, of raw weights {raw:.4f}: archive keeps "
    assert better.describe(True, 0.5) == aps + f"the {'averaged' if is_averaged else 'raw'} weights"
    assert better.describe(False, 0.625) == aps + "another checkpoint, AP 0.6250"
