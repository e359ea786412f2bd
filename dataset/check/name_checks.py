# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Comparison of the class names of records with those of the label map, the groundtruth file and the detector."""

import collections
import itertools
from collections.abc import Iterator, Sequence

from dataset.check import class_ids
from dataset.check.class_ids import NamedIds
from dataset.check.finding import FATAL, WARNING, Finding, format_names
from dataset.check.json_checks import GroundtruthFile
from dataset.check.record_facts import Facts
from dataset.label_map import spelling_key

REMEDY = "correct label_map, or convert the data again with the label map of the detector"


def check(
    facts: Facts, label_map: NamedIds, groundtruth: GroundtruthFile | None, others: Sequence[NamedIds]
) -> Iterator[Finding]:
    """Compares the records and the groundtruth file with each other, and with names that were known before.

    Args:
        label_map: of the config; may have no names.
        others: names of the detector, or of other records.
    """
    records, named = NamedIds(facts.names, "the records"), label_map
    known = [other for other in others if other.pairs]
    if all(dict(label_map.pairs) != dict(other.pairs) for other in known):
        known.append(label_map)
    compared = [(records, other) for other in known]
    if groundtruth and groundtruth.has_names:
        of_file = NamedIds(groundtruth.names.items(), groundtruth.path)
        compared += [(of_file, other) for other in known] + [(records, of_file)]
        named = label_map if label_map.pairs else of_file
    texts = [text for pair in compared if (text := class_ids.describe_moved(*pair, REMEDY))]
    yield from (Finding(FATAL, "moved_names", text) for text in texts)
    if not texts:
        yield from _check_other_names(facts, named)
        yield from _check_repeated_names(facts)
    if groundtruth and label_map.pairs:
        yield from _check_unnamed(groundtruth, label_map)


def _check_other_names(facts: Facts, reference: NamedIds) -> Iterator[Finding]:
    """Reports ids with one name in the records and another one in the reference."""
    names = dict(reference.pairs)
    differ = [
        f"{class_id} is {name!r} in the records and {names[class_id]!r} there"
        for class_id, name in sorted(facts.names)
        if class_id in names and spelling_key(name) != spelling_key(names[class_id])
    ]
    if differ:
        text = f"class names differ from those of {reference.source}: {format_names(differ)}; which ids are right?"
        yield Finding(WARNING, "class_names", text)


def _check_repeated_names(facts: Facts) -> Iterator[Finding]:
    """Reports names with several ids, unless the records have only one name, which distinguishes no classes."""
    ids = collections.defaultdict(list)
    for class_id, name in sorted(facts.names):
        ids[name].append(class_id)
    repeated = [f"{name!r} is {' and '.join(map(str, found))}" for name, found in ids.items() if len(found) > 1]
    if repeated and len(ids) > 1:
        text = f"class names have several ids in the records: {format_names(repeated)}; were they converted with two"
        yield Finding(WARNING, "repeated_names", f"{text} label maps? Write all with one")


def _check_unnamed(groundtruth: GroundtruthFile, label_map: NamedIds) -> Iterator[Finding]:
    """Reports ids of annotations that the label map lacks."""
    ids = collections.Counter(itertools.chain(*(image.classes.tolist() for image in groundtruth.images.values())))
    unnamed = sorted(ids.keys() - dict(label_map.pairs).keys() - {0})  # 0 is reported as background
    if unnamed:
        boxes = sum(ids[class_id] for class_id in unnamed)
        text = f"label_map has no class {format_names(unnamed)}, which {boxes} boxes of {groundtruth.path} have"
        yield Finding(FATAL, "json_unnamed_classes", f"{text}; add the names, or write both with the same label map")
