# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""measure: calibration in a process of its own, and memory."""

import mmap
import os

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
    before = measure.resident_mib()
    with mmap.mmap(-1, 256 * measure.MIB) as block:
        block.write(bytes(256 * measure.MIB))
        assert before + 200 < measure.resident_mib() < before + 600  # bytes() may still be there, too
        assert measure.peak_mib() > before + 200
    assert measure.resident_mib() < before + 300
