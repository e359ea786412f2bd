# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Filter for the log of native code, which is written to file descriptor 2 and bypasses Python's logging.

Lines without information are removed, all others are printed. They are read by a process of its own: if native code
aborts this process, as TensorFlow does after a failed CHECK, its last message is printed nevertheless.
"""

import contextlib
import importlib.abc
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

LEVEL = "TF_CPP_MIN_LOG_LEVEL"  # environment variable: 0 prints everything, 3 only fatal errors
# Notes that TensorFlow prints while it is imported, at any level: before its log is set up (2.20 and later), and
# about plugins that are registered twice or absent. File and line are left out, because they change with the version.
START_NOTES = (
    r"I0000 \S+ +\d+ \S+\] ",
    r"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR",
    r"[-\d]+ [:.\d]+: I ",
    r".*\] Unable to register cu(DNN|FFT|BLAS) factory: ",
    r".*\] computation placer already registered\.",
    r".*\] TF-TRT Warning: Could not find TensorRT",
    r"To enable the following instructions: ",  # continues a note about CPU features
)
# Prints the lines of stdin that do not match its argument. Binary, because native code may write any bytes.
FILTER = """
import re, sys
remove = re.compile(sys.argv[1].encode()).match
for line in sys.stdin.buffer:
    if not remove(line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""
MAX_WAIT = 10.0  # seconds for the filter to print its last lines


def hide_start_notes() -> None:
    """Hides TensorFlow's notes about its start. Has no effect after TensorFlow was imported, or at level 0.

    The import is filtered. From then on TensorFlow follows the level; without one in the environment it is set to 3,
    because TensorFlow logs errors that are none, such as missing CUDA libraries. Real errors are raised as well.
    """
    if "tensorflow" in sys.modules or any(isinstance(finder, _TensorFlowFinder) for finder in sys.meta_path):
        return
    if os.environ.setdefault(LEVEL, "3") != "0":
        sys.meta_path.insert(0, _TensorFlowFinder())


@contextlib.contextmanager
def without(notes: Sequence[str]) -> Iterator[None]:
    """Removes lines that the process writes to file descriptor 2 during the block.

    Args:
        notes: regular expressions that match the start of a line to remove.
    """
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stderr.flush()
    try:
        terminal = os.dup(2)
    except OSError:  # the process has no stderr
        yield
        return
    try:
        child = _start_filter(notes, terminal)
        try:
            yield
        finally:
            with contextlib.suppress(AttributeError, OSError, ValueError):
                sys.stderr.flush()
            os.dup2(terminal, 2)  # closes the pipe, which ends the filter
            if child:
                with contextlib.suppress(subprocess.TimeoutExpired):  # a child of native code may hold the pipe
                    child.wait(MAX_WAIT)
    finally:
        os.close(terminal)


def _start_filter(notes: Sequence[str], terminal: int) -> subprocess.Popen | None:
    """Connects file descriptor 2 with a filter that prints to `terminal`; None if no process can be started."""
    reading, writing = os.pipe()
    try:
        # A session of its own: the Ctrl-C that ends this process must not end the filter before its last line.
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", FILTER, "|".join(notes)],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=terminal,
            start_new_session=True,
        )
        os.dup2(writing, 2)
    except OSError:
        child = None
    finally:
        os.close(reading)
        os.close(writing)
    return child


class _TensorFlowFinder(importlib.abc.MetaPathFinder):
    """Filters the first import of TensorFlow."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def exec_module(module):
                with without(START_NOTES):
                    execute(module)

            spec.loader.exec_module = exec_module
        return spec
