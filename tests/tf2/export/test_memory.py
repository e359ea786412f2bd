# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""memory: what is unreferenced goes back to the system; an export needs at most 1.5 GiB and 10 times the weights."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from efficientdet import config as config_lib
from tf2.benchmarks import measure
from tf2.export import memory

ROOT = pathlib.Path(__file__).parents[3]
GIB = 2**30
PARAMETERS = {"efficientdet-d2": 8_097_039, "efficientdet-d7x": 77_073_151}  # published: 8.1 M and 77 M

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
