# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Measuring tools shared by the benchmarks: calibration, memory of the process, TensorFlow's profiler.

Machines differ and may be shared, so the benchmarks also time a matrix product of fixed size, and scale their results
to a core that takes CALIBRATION seconds for it, as the one of the published program's figures did.

This file does not import TensorFlow at the top, because a child process that only calibrates must start quickly.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CALIBRATION = 0.20  # seconds
CALIBRATION_SIDE = 2048  # rows and columns of the matrices
# NumPy reads the number of threads when it is imported, hence a process of its own. The second product counts: the
# first one starts the thread and touches the memory.
MATMUL = "import time; from tf2.benchmarks.measure import calibrate as c; c(); print(c(time.process_time))"
ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
MIB = 2**20


def calibrate(clock: Callable[[], float] = time.perf_counter) -> float:
    """Returns the seconds, by a clock, of NumPy's product of two float32 matrices, with all of its threads."""
    matrix = np.ones([CALIBRATION_SIDE, CALIBRATION_SIDE], np.float32)
    start = clock()
    matrix @ matrix
    return clock() - start


def calibrate_one_core() -> float:
    """Processor time in seconds that the product takes with one thread, in a process of its own."""
    command = [sys.executable, "-c", MATMUL]
    result = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **ONE_THREAD}, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(result.stdout)


def peak_mib() -> float:
    """Peak memory of this process in MiB. A child process inherits the peak of its parent."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return peak / MIB if sys.platform == "darwin" else peak * 1024 / MIB


def resident_mib() -> float:
    """Current memory of this process in MiB; needs Linux."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024 / MIB


def profile(call: Callable[[], Any]):
    """Calls a function under TensorFlow's profiler.

    Returns:
        An XSpace: planes (devices) of lines (threads) of events.
    """
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as directory:
        with tf.profiler.experimental.Profile(directory):
            call()
        [path] = Path(directory).rglob("*.xplane.pb")
        return xplane_pb2.XSpace.FromString(path.read_bytes())
