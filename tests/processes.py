# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Processes of tests that need several replicas, which are configured before TensorFlow starts."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Sequence

SECONDS = 900  # limit of each process


def run(folder: pathlib.Path, *commands: Sequence) -> None:
    """Runs Python scripts with their arguments at the same time; no process is left running.

    Args:
        folder: folder of their logs.
        commands: arguments of Python: a script, then its arguments.

    Raises:
        AssertionError: with the end of the log, if a process fails.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    with contextlib.ExitStack() as stack:
        processes = []
        for i, command in enumerate(commands):
            log = stack.enter_context((folder / f"{i}.log").open("w"))
            words = [sys.executable, *map(str, command)]
            processes.append(subprocess.Popen(words, stdout=log, stderr=log, env=environment))
            stack.callback(processes[-1].wait)
            stack.callback(processes[-1].kill)
        for i, process in enumerate(processes):
            assert process.wait(timeout=SECONDS) == 0, (folder / f"{i}.log").read_text()[-4000:]


def free_addresses(count: int) -> str:
    """Returns addresses of this machine with free ports, as --worker takes them."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("localhost", 0))
        return ",".join(f"localhost:{one.getsockname()[1]}" for one in sockets)
