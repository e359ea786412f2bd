# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Objects that training or evaluation leaves out: crowds, and classes without any usable box."""

from collections.abc import Iterator

import numpy as np

from dataset.check.finding import FATAL, WARNING, Finding, format_count, format_names
from dataset.check.record_facts import Facts
from dataset.convert.annotation import CROWDS_HINT, MAX_CROWDS
from efficientdet.config import Config

MIN_SAMPLED_BOXES = 10  # of a class in a sample; fewer say nothing about the others
SETTING = "skip_crowd_during_training"


def used_boxes(facts: Facts, config: Config, evaluates: bool) -> np.ndarray:
    """Mask [K] of the boxes that are trained or, if `evaluates`, that count in AP."""
    return facts.usable & ~(facts.is_crowd & (evaluates or config.skip_crowd_during_training))


def check(facts: Facts, config: Config, evaluates: bool) -> Iterator[Finding]:
    """Checks that few boxes are crowds, and that of every class some box is used, see `used_boxes`."""
    used = used_boxes(facts, config, evaluates)
    crowds, total = facts.usable & facts.is_crowd, int(facts.usable.sum())
    are_untrained = config.skip_crowd_during_training and not evaluates
    are_skipped = evaluates or are_untrained
    sample = "" if facts.complete else f" of the {facts.num_records} sampled records"
    remedy = f"{CROWDS_HINT}, or set {SETTING}=false" if are_untrained else CROWDS_HINT
    if crowds.sum() > MAX_CROWDS * total and (are_skipped or crowds.sum() == total):
        consequence = f"{SETTING} leaves out" if are_untrained else "AP ignores"
        if crowds.sum() == total:
            consequence += ": nothing would be trained" if are_untrained else ": it would be -1"
        boxes = format_count(int(crowds.sum()), total, "valid boxes")
        text = f"{boxes}{sample} are crowds (iscrowd: 1), which {consequence}; {remedy}"
        yield Finding(WARNING if used.any() or not facts.complete else FATAL, "crowds", text)
    unused = []
    for class_id in np.unique(facts.classes) if used.any() else ():
        chosen = facts.classes == class_id
        if not used[chosen].any() and (facts.complete or chosen.sum() >= MIN_SAMPLED_BOXES):
            unused.append(f"{class_id} ({chosen.sum()}, {(facts.is_crowd & chosen).sum()} of them crowds)")
    if unused:
        result = "counts in AP" if evaluates else "is trained"
        text = f"no box of class {format_names(unused)} {result}{sample}; {remedy}, and correct invalid boxes"
        yield Finding(WARNING, "unused_classes", text)
