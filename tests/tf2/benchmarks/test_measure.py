# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""measure: calibration in a process of its own, and memory."""

import os

import numpy as np

from tf2.benchmarks import measure


def test_the_matrix_product_runs_on_one_thread_of_another_process():
    before = os.times().user
    assert 0.001 < measure.calibrate_one_core() < 60
    assert os.times().user - before < 0.1
    assert set(measure.ONE_THREAD.values()) == {"1"}


def test_calibrate_uses_the_given_clock():
    ticks = iter([3.0, 3.5])
    assert measure.calibrate(lambda: next(ticks)) == 0.5


def test_memory_of_the_process():
    block = np.ones([64, measure.MIB // 8])  # 64 MiB
    with_block = measure.resident_mib()
    assert 64 < with_block <= measure.peak_mib() + 1
    del block
    assert measure.resident_mib() < with_block - 32
