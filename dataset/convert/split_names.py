# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Names of splits: the words for training, validation and test images in names of files, folders, lists and keys."""

import re
from collections.abc import Collection

TRAINVAL = "trainval"
# {split: words}, those that are preferred first. CVAT calls images without a subset "default".
SPLIT_WORDS = {
    "train": ("train", "training", TRAINVAL, "default"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


def split_of(name: str) -> str | None:
    """Returns the split "train", "val" or "test" that the words of a name show, or None.

    A name with words of several splits shows none, except that one with a word of "test" is that of test images.

    >>> split_of("instances_train2017"), split_of("valid"), split_of("images")
    ('train', 'val', None)
    """
    words = set(re.split(r"[^a-z]+", name.lower()))
    found = [split for split, synonyms in SPLIT_WORDS.items() if words & set(synonyms)]
    return found[-1] if len(found) == 1 or "test" in found else None


def find_synonym(word: str, names: Collection[str]) -> str | None:
    """Returns the word of a split or, if it is not among the names, another word for that split which is, or None.

    "trainval" replaces no other word, as its images may be those of validation, too.

    >>> find_synonym("val", {"train", "validation"})
    'validation'
    """
    synonyms = next((words for words in SPLIT_WORDS.values() if word in words), ())
    candidates = [word, *(synonym for synonym in synonyms if synonym != TRAINVAL)]
    return next((candidate for candidate in candidates if candidate in names), None)
