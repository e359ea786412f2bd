# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/convert/split_names.py."""

import pytest

from dataset.convert.split_names import find_synonym, split_of


@pytest.mark.parametrize(
    "name, split",
    [
        ("instances_train2017", "train"),
        ("Training", "train"),
        ("instances_default", "train"),
        ("valid", "val"),
        ("train-val", None),  # of both
        ("train_test", "test"),
        ("trainval", "train"),
        ("untrained", None),
        ("images", None),
    ],
)
def test_split_of(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize(
    "word, names, found",
    [
        ("val", ["valid", "val"], "val"),
        ("val", ["valid", "train"], "valid"),
        ("valid", ["val"], "val"),
        ("test", ["testing"], "testing"),
        ("train", ["trainval", "val"], None),
        ("trainval", ["trainval", "train"], "trainval"),
        ("night", ["night", "day"], "night"),
        ("night", ["day"], None),
    ],
)
def test_synonyms(word, names, found):
    assert find_synonym(word, names) == found
