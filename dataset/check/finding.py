# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a check of the data says: findings with a level, and the pieces their sentences are made of."""

from collections.abc import Sequence
from typing import NamedTuple

FATAL = "fatal"  # training, or its evaluation, would be pointless
WARNING = "warning"  # part of the data is lost, or teaches what is wrong
NOTE = "note"  # worth knowing
LEVELS = (FATAL, WARNING, NOTE)

NAMES_SHOWN = 3


class Finding(NamedTuple):
    """One thing that is wrong with the data."""

    level: str  # one of LEVELS
    code: str  # the same for the same kind of finding, whatever its numbers
    text: str  # what is wrong, where, what to do


def by_share(share: float, fatal_above: float) -> str:
    """The level of what a share of the data suffers from."""
    return FATAL if share > fatal_above else WARNING


def count(number: int, total: int, what: str) -> str:
    """As in "3 of 120 boxes (2.5%)"."""
    return f"{number} of {total} {what} ({100 * number / max(total, 1):.1f}%)"


def first(items: Sequence) -> str:
    """The first few of a list, as in "a, b, c and 9 more"."""
    more = f" and {len(items) - NAMES_SHOWN} more" if len(items) > NAMES_SHOWN else ""
    return ", ".join(str(item) for item in items[:NAMES_SHOWN]) + more
