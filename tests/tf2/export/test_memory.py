# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""memory: what is unreferenced goes back to the system; an export needs at most 1.5 GiB and 10 times the weights."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tf2.benchmarks import measure
from tf2.export import memory

ROOT = pathlib.Path(__file__).parents[3]
PARAMETERS = {"efficientdet-d2": 8.1e6, "efficientdet-d7x": 77e6}  # published
# Prints the peak memory of a command in KiB; itself a small process, because a child inherits the peak of its parent.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""

glibc = pytest.mark.skipif(memory._glibc() is None, reason="needs glibc")


@glibc
def test_release_returns_memory():
    """Blocks below the size that is mapped by itself, in a cycle, with a block in use behind them."""
    before = measure.resident_mib()
    blocks = [np.ones(2**14) for _ in range(2000)]  # 250 MiB
    in_use = np.ones(2**14)
    blocks.append(blocks)
    assert measure.resident_mib() - before > 200
    del blocks
    memory.release()
    assert measure.resident_mib() - before < 50 and in_use[0] == 1


@glibc
@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientdet-d2", pytest.param("efficientdet-d7x", marks=pytest.mark.long)])
def test_peak_memory_of_an_export(name, tmp_path):
    """1.5 GiB and 10 times the float32 weights, including the parity check."""
    flags = ["--runmode=saved_model", f"--model_name={name}", "--ckpt_path=_", f"--saved_model_dir={tmp_path}/export"]
    command = [sys.executable, "-c", MEASURE, sys.executable, "model_inspect.py", *flags]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) * 1024 < 1.5 * 2**30 + 10 * 4 * PARAMETERS[name]
