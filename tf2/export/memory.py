# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Memory of an export: unneeded memory is returned to the system between its steps."""

import ctypes
import gc
import sys

M_ARENA_MAX = -8  # parameter of glibc's mallopt


def set_up() -> None:
    """Lets all threads share the memory that the C library keeps when it is freed; called before they start."""
    if libc := _glibc():
        libc.mallopt(M_ARENA_MAX, 1)


def release() -> None:
    """Frees unreferenced objects, also in cycles, such as graphs, and returns their memory to the system."""
    gc.collect()
    trim()


def trim() -> None:
    """Returns the memory of freed objects to the system, in milliseconds."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """Returns the C library if it is glibc; others return memory by themselves, or never."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "malloc_trim") else None
