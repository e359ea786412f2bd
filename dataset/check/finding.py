# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Findings of a data check, and the formatting of their messages."""

from collections.abc import Sequence
from typing import NamedTuple

FATAL = "fatal"  # training or evaluation would be pointless
WARNING = "warning"  # part of the data is lost or wrong
NOTE = "note"
LEVELS = (FATAL, WARNING, NOTE)  # most severe first

NAMES_SHOWN = 3


class Finding(NamedTuple):
    """A problem in the data."""

    level: str  # one of LEVELS
    code: str  # kind of problem, independent of the numbers in the text
    text: str  # problem, place and remedy


def format_count(number: int, total: int, what: str) -> str:
    """Formats a count and its share.

    >>> format_count(3, 120, "boxes")
    '3 of 120 boxes (2.5%)'
    """
    return f"{number} of {total} {what} ({100 * number / max(total, 1):.1f}%)"


def format_names(items: Sequence) -> str:
    """Joins the first few items, and counts the others.

    >>> format_names(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(items) - NAMES_SHOWN} more" if len(items) > NAMES_SHOWN else ""
    return ", ".join(str(item) for item in items[:NAMES_SHOWN]) + more
