# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Comparison of the class names of two sources, of which one may give the same names other ids.

Sources are the label map of a config, a detector (its config.yaml, or the metadata of its exported file), records, and
the categories of a groundtruth file. A detector that is trained with other ids than those of its data detects wrongly
named objects, and has a wrong AP, without an error.
"""

import collections
from collections.abc import Collection, Mapping
from typing import NamedTuple

from dataset import label_map as label_map_lib
from dataset.check.finding import format_names
from dataset.label_map import LabelMapError, spelling_key


class NamedIds(NamedTuple):
    """The class names of one source."""

    pairs: Collection[tuple[int, str]]  # (class id, name); of records, both may repeat; empty if there are no names
    source: str  # such as "label_map", "the records" or the path of a config.yaml


def of_label_map(label_map: str | Mapping | None, source: str = "label_map") -> NamedIds:
    """Returns the class names of a `label_map` config value, see `label_map.resolve`."""
    return NamedIds(label_map_lib.resolve(label_map).items(), source)


def moved(given: NamedIds, reference: NamedIds) -> list[tuple[str, int, int]]:
    """Returns the class names that two sources give to different ids, as (name, id given, id in the reference).

    Names that only one source has are not among them, so that a label map may name part of the classes, and an id may
    have another name in each.

    >>> moved(NamedIds([(1, "dog"), (2, "cat")], "label_map"), NamedIds([(1, "cat"), (2, "Dog")], "the records"))
    [('dog', 1, 2), ('cat', 2, 1)]
    """
    ids = collections.defaultdict(set)
    for class_id, name in reference.pairs:
        ids[spelling_key(name)].add(class_id)
    others = ((class_id, name, ids[spelling_key(name)]) for class_id, name in sorted(given.pairs))
    return [(name, class_id, min(known)) for class_id, name, known in others if known and class_id not in known]


def describe_moved(given: NamedIds, reference: NamedIds, remedy: str) -> str:
    """Returns the message about names that two sources give to different ids, see `moved`; "" if there are none.

    Args:
        remedy: what to do, the end of the message.
    """
    names = [f"{name!r} is {new} instead of {old}" for name, new, old in moved(given, reference)]
    if not names:
        return ""
    return f"class names have other ids in {given.source} than in {reference.source}: {format_names(names)}; {remedy}"


def check_moved(given: NamedIds, reference: NamedIds, remedy: str) -> None:
    """Checks that no class name has another id in the reference, see `describe_moved`.

    Raises:
        LabelMapError: with the names, both ids and both sources.
    """
    if message := describe_moved(given, reference, remedy):
        raise LabelMapError(message)
