# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/check/name_checks.py: sources that give the same names other ids, and ids without a name."""

import copy
import dataclasses
import json

import pytest
from planted import NAMES, check_records, classes_by, codes, config, other_ids, text_of, write

from dataset import tfrecord
from dataset.check import checks, class_ids
from dataset.tfrecord import DataError

MOVED = {1: "star", 2: "circle", 3: "triangle"}


@pytest.mark.parametrize("label_map", [NAMES, None])
@pytest.mark.parametrize("in_records", [False, True])
def test_groundtruth_files_have_the_ids_of_records_and_label_map(tmp_path, clean, label_map, in_records):
    """One of the two has other ids than the label map, or than each other without one."""
    records, groundtruth = clean[0], copy.deepcopy(clean[1])
    if in_records:
        records = classes_by({1: 3, 2: 1, 3: 2}.get)(records)
    else:
        other_ids(groundtruth)
    found = check_records(tmp_path, records, groundtruth, label_map=label_map)
    assert codes(found) == {"moved_names"} and {finding.level for finding in found} == {"fatal"}
    pairs = [finding.text.split(": ")[0].split("other ids in ")[1] for finding in found]
    file = str(tmp_path / "x.json")
    expected = {f"the records than in {file}"}
    expected |= {f"{'the records' if in_records else file} than in label_map"} if label_map else set()
    assert set(pairs) == expected and len(pairs) == len(expected)


@pytest.mark.parametrize("name", ["background", "_background_", "shapes"])
def test_a_category_0_without_boxes_hides_no_other_ids(tmp_path, clean, name):
    """It is the background, or the supercategory of the others."""
    groundtruth = copy.deepcopy(clean[1])
    other_ids(groundtruth)
    groundtruth["categories"].insert(0, {"id": 0, "name": name})
    found = check_records(tmp_path, clean[0], groundtruth)
    assert "'triangle' is 1 instead of 2" in text_of(found[:1], "fatal", "moved_names")


def test_records_are_compared_with_the_names_of_the_detector(tmp_path, clean):
    """It is trained with names that the config does not repeat, or renames."""
    pattern = write(tmp_path / "x.tfrecord", map(tfrecord.encode, clean[0]))
    (tmp_path / "x.json").write_text(json.dumps(clean[1]))
    moved, same = (class_ids.of_label_map(names, "runs/x/config.yaml") for names in (MOVED, NAMES))
    renamed = config(label_map={1: "disc", 2: "delta", 3: "asterisk"})
    for values in (config(label_map=None), renamed):
        with pytest.raises(DataError) as error:
            checks.quick(pattern, values, None, [moved])
        assert str(error.value).startswith(
            f"{pattern}: class names have other ids in the records than in runs/x/config.yaml: 'circle' is 1 instead "
            "of 2, 'triangle' is 2 instead of 3, 'star' is 3 instead of 1; correct label_map, or convert the data "
        )
    with pytest.raises(DataError, match=r"other ids in .*x\.json than in runs/x/config\.yaml: 'circle' is 1"):
        bare = [dataclasses.replace(record, class_names=()) for record in clean[0]]
        write(tmp_path / "bare.tfrecord", map(tfrecord.encode, bare))
        checks.quick(str(tmp_path / "bare.tfrecord"), config(label_map=None), str(tmp_path / "x.json"), [moved])
    assert checks.quick(pattern, config(label_map=None), str(tmp_path / "x.json"), [same]).warnings == []
    part = class_ids.of_label_map({1: "circle", 4: "padding"}, "runs/x/config.yaml")
    assert checks.quick(pattern, config(label_map=None, num_classes=4), None, [part]).warnings == []


def test_validation_records_have_the_ids_of_training_records(tmp_path, clean):
    pattern = write(tmp_path / "train.tfrecord", map(tfrecord.encode, clean[0]))
    moved = write(tmp_path / "val.tfrecord", map(tfrecord.encode, classes_by({1: 3, 2: 1, 3: 2}.get)(clean[0])))
    known = checks.quick(pattern, config(label_map=None)).names
    assert known.source == pattern and set(known.pairs) == set(NAMES.items())
    assert checks.quick(pattern, config(label_map=None), None, [known]).warnings == []
    with pytest.raises(DataError, match=f"other ids in the records than in {pattern}: 'triangle' is 1 instead of 2"):
        checks.quick(moved, config(label_map=None), None, [known])


def test_other_names_of_the_same_ids_are_a_warning(tmp_path, clean):
    names = {1: "disc", 2: "Triangle", 3: "star"}
    found = check_records(tmp_path, clean[0], label_map=names)
    assert codes(found) == {"class_names"}
    assert "1 is 'circle' in the records and 'disc' there" in text_of(found, "warning", "class_names")
    assert codes(check_records(tmp_path, clean[0], clean[1], label_map=names)) == {"class_names"}


def test_ids_that_the_label_map_lacks_are_an_error(tmp_path, clean):
    part = {1: "circle", 3: "star"}
    stars = int(sum(record.classes.count(2) for record in clean[0]))
    text = text_of(check_records(tmp_path, clean[0], label_map=part), "fatal", "unnamed_classes")
    assert text.startswith(f"label_map has no class 2, which {stars} boxes have; add the names, or convert the data")
    # In the groundtruth file alone: other boxes of images without any in the records.
    fewer = [
        dataclasses.replace(r, boxes_norm=(), classes=(), class_names=()) if 2 in r.classes else r for r in clean[0]
    ]
    found = check_records(tmp_path, fewer, clean[1], label_map=part)
    text = text_of(found, "fatal", "json_unnamed_classes")
    assert text.startswith(f"label_map has no class 2, which {stars} boxes of {tmp_path}/x.json have; add the names")
    # Categories without boxes, padding classes and the background need no name; moved names explain the others.
    groundtruth = {**clean[1], "categories": [{"id": 0, "name": "background"}, {"id": 4, "name": "x"}]}
    groundtruth["categories"] += clean[1]["categories"]
    padded = {0: "background", **NAMES}
    assert check_records(tmp_path, clean[0], groundtruth, label_map=padded, num_classes=7) == []
    assert codes(check_records(tmp_path, clean[0], label_map={1: "triangle", 2: "star"})) == {"moved_names"}


def test_records_of_two_label_maps_are_reported(tmp_path, clean):
    mixed = [*clean[0][:12], *classes_by({1: 3, 2: 1, 3: 2}.get)(clean[0][12:])]
    text = text_of(check_records(tmp_path, mixed, label_map=None), "warning", "repeated_names")
    assert "'circle' is 1 and 3" in text and "'star' is 2 and 3" in text
    assert codes(check_records(tmp_path, mixed)) == {"moved_names"}
    one = [dataclasses.replace(record, class_names=["object"] * len(record.classes)) for record in clean[0]]
    assert codes(check_records(tmp_path, one, label_map=None)) == {"similar_names"}
