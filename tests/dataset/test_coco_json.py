# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/coco_json.py."""

import json

import pytest

from dataset import coco_json
from dataset.tfrecord import DataError


@pytest.fixture
def write(tmp_path):
    """A function that writes a file with two images and one category, changed, and returns its path."""

    def write(annotations, **changes):
        images = [{"id": 3, "file_name": "3.jpg"}, {"id": 7}]
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "dog"}], **changes}
        path = tmp_path / "x.json"
        path.write_text(json.dumps(content))
        return str(path)

    return write


def row(image_id=3, category_id=1, **changes):
    return {"image_id": image_id, "category_id": category_id, "bbox": [1, 2, 3, 4], **changes}


@pytest.mark.parametrize(
    "value, expected",
    [
        *[(7, 7), (7.0, 7), ("7", 7), ("007", 7), (0, 0), (-7, -7), (2**63 - 1, 2**63 - 1), ("000000000139", 139)],
        *[(value, None) for value in (7.5, float("nan"), float("inf"), 1e300, 2**63, True, None, [7], {"a": 7})],
        *[(value, None) for value in ("", "seven", "7.0", "-7", " 7", "7\n", "\u0667", "\u00b2", "9" * 10_000)],
    ],
)
def test_parse_id(value, expected):
    assert coco_json.parse_id(value) == expected


def test_one_id_in_several_types(write):
    ids = [3, 3.0, "3", "03"]
    path = write([row(image_id=image_id, category_id=str(1)) for image_id in ids], images=[{"id": "3"}, {"id": 7.0}])
    groundtruth = coco_json.load(path)
    assert list(groundtruth.images) == [3, 7] and groundtruth.names == {1: "dog"}
    assert [(row["image_id"], row["category_id"]) for row in groundtruth.annotations.rows] == [(3, 1)] * 4
    assert groundtruth.annotations.left_out == {}
    assert groundtruth.counts() == {"images": 2, "images_without_boxes": 1, "boxes": 4, "crowds": 0}


@pytest.mark.parametrize(
    "annotations, changes, message",
    [
        ([row(), row(image_id="a7")], {}, r"annotations\[1\] has image_id 'a7'; ids must be integers: write a number"),
        ([row(), row(category_id=1.5)], {}, r"annotations\[1\] has category_id 1\.5; ids must be integers"),
        ([row(), row(image_id=None)], {}, r"annotations\[1\] has image_id None; ids"),
        ([{"bbox": [1, 2, 3, 4], "category_id": 1}], {}, r"annotations\[0\] has no 'image_id'; add it to {\"bbox\""),
        ([{"bbox": [1, 2, 3, 4], "image_id": 3}], {}, r"annotations\[0\] has no 'category_id'; add it to {"),
        ([5], {}, r"expected annotations\[0\] to be an object {\.\.\.}, got 5"),
        ([], {"images": [{"id": 3}, {"id": True}]}, r"images\[1\] has id True; ids"),
        ([], {"images": [{"id": 3}, {}]}, r"images\[1\] has no 'id'"),
        ([], {"images": [{"id": 3}, {"id": "3"}]}, r"images\[0\] and \[1\] have the same id 3; use unique ids"),
        ([], {"images": [{"id": i % 2} for i in range(4)]}, r"\[2\] have the same id 0 \(and 1 more are repeated\)"),
        ([], {"categories": [{"id": "dog"}]}, r"categories\[0\] has id 'dog'; ids"),
        ([], {"categories": [{"id": 1}, {"id": 1.0}]}, r"categories\[0\] and \[1\] have the same id 1"),
        ([], {"categories": [{"id": -2}]}, r"a category has the id -2; number the categories from 1"),
        ([], {"categories": None}, r"has no categories: AP needs groundtruth, such as instances_val2017\.json"),
    ],
)
def test_errors_name_file_list_index_and_value(write, annotations, changes, message):
    with pytest.raises(DataError, match=rf"x\.json[: ].*{message}") as error:
        coco_json.load(write(annotations, **changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"image_id": 4}, coco_json.UNLISTED_IMAGE),
        ({"category_id": 2}, "category 2 is not among the categories"),
        ({"category_id": 0}, coco_json.BACKGROUND),
        ({"bbox": None}, coco_json.NO_BOX),
        ({"bbox": [1, 2, 3]}, coco_json.NO_BOX),
        ({"bbox": [1, 2, 3, "4"]}, coco_json.NO_BOX),
        ({"bbox": [1, 2, 3, float("nan")]}, coco_json.NO_BOX),
        ({"bbox": [1, 2, 3, float("inf")]}, coco_json.NO_BOX),
        ({"bbox": [1, 2, 3, 10**400]}, coco_json.NO_BOX),
        ({"bbox": [1, 2, -3, 4]}, coco_json.NEGATIVE_SIDE),
        ({"iscrowd": "maybe"}, coco_json.BAD_CROWD),
        ({"area": "large"}, coco_json.BAD_AREA),
    ],
)
def test_annotations_that_cannot_be_used_are_left_out_by_reason(write, change, reason):
    groundtruth = coco_json.load(write([row(id=1), {**row(id=5), **change}], categories=[{"id": 0}, {"id": 1}]))
    where = "annotation 5" if "image_id" in change else "annotation 5 of 3.jpg"
    assert groundtruth.annotations.left_out == {reason: [where]}
    assert [row["id"] for row in groundtruth.annotations.rows] == [1]


def test_repeated_annotation_ids(write):
    rows = [row(id=1), row(id="1"), row(id=2), row(), row(), row(id="x"), row(id="x"), row(id=[1]), row(id=[1])]
    annotations = coco_json.load(write(rows)).annotations
    assert annotations.repeated == [f"annotation {label} of 3.jpg" for label in ("1", "x", "[1]")]
    assert len(annotations.rows) == 9


def test_only_the_given_keys_are_kept(write):
    [kept] = coco_json.load(write([row(segmentation=[[1, 2, 3, 4, 5, 6]], area=2)]), ["bbox", "area"]).annotations.rows
    assert kept == {"bbox": [1, 2, 3, 4], "area": 2}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_of_json(tmp_path, encoding):
    (tmp_path / "x.json").write_text('{"images": [], "categories": [{"id": 1, "name": "m\u00f6we"}]}', encoding)
    assert coco_json.read(tmp_path / "x.json").categories()[1]["name"] == "m\u00f6we"
