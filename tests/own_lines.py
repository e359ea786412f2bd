# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Recognizes lines in the stderr of a command that are not its own, such as the log of TensorFlow's start."""

import re

OWN = re.compile(
    r"[IWEF](?!0000)\d{4} [\d:.]+ \d+ \w+\.py:\d+\] "  # absl's log; early lines of the one in C++ have the date 0000
    r"|  \w|error: |[\w ]+: .*\[\d\d:\d\d.*\]"  # further lines of a message, error messages, progress bars
    r"|$"
)


def foreign_lines(stderr: str) -> list[str]:
    """Returns the lines that are neither log, error message nor progress bar of a command."""
    return [line for line in re.split(r"[\r\n]+", stderr) if not OWN.match(line)]
