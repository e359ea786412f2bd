# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/check/json_checks.py: planted faults of the groundtruth file."""

import copy
import dataclasses
import json

import numpy as np
import pytest
from planted import (
    SIZE,
    SIZES,
    annotations_by,
    boxes_by,
    change_boxes,
    check_records,
    codes,
    config,
    jpeg,
    other_ids,
    renumber,
)

from dataset.check import checks, json_checks
from dataset.tfrecord import DataError


def corners(row):
    xmin, ymin, width, height = row["bbox"]
    return {"bbox": [xmin, ymin, xmin + width, ymin + height]}


def centers(row):
    xmin, ymin, width, height = row["bbox"]
    return {"bbox": [xmin + width / 2, ymin + height / 2, width, height]}


def other_split(groundtruth):
    """The same ids for other images."""
    random = np.random.default_rng(1)
    for image in groundtruth["images"]:
        image["file_name"] = f"val{image['id']}.jpg"
    for row in groundtruth["annotations"]:
        row["bbox"] = [*random.uniform(0, 60, 2).tolist(), *random.uniform(10, 30, 2).tolist()]


def mirror(row):
    xmin, ymin, width, height = row["bbox"]
    return {"bbox": [SIZE[1] - xmin - width, ymin, width, height]}


def moved_boxes(groundtruth):
    """Other boxes of the same images, which no layout explains."""
    random = np.random.default_rng(1)
    annotations_by(lambda row: {"bbox": [*random.uniform(0, 60, 2).tolist(), *random.uniform(10, 30, 2).tolist()]})(
        groundtruth
    )


def without_names(groundtruth):
    moved_boxes(groundtruth)
    for image in groundtruth["images"]:
        del image["file_name"]


def far_out(groundtruth):
    """Corners instead of sides, shifted so that no layout explains them."""
    annotations_by(lambda row: {"bbox": [value + 9 for value in corners(row)["bbox"]]})(groundtruth)


def shift_ids(groundtruth):
    for image in groundtruth["images"]:
        image["id"] += 1000
    for row in groundtruth["annotations"]:
        row["image_id"] += 1000


def fewer_images(groundtruth):
    groundtruth["images"] = groundtruth["images"][:20]
    groundtruth["annotations"] = [row for row in groundtruth["annotations"] if row["image_id"] <= 20]


def larger_images(groundtruth):
    for image in groundtruth["images"]:
        image.update(height=5 * image["height"], width=5 * image["width"])
    annotations_by(lambda row: {"bbox": [5 * value for value in row["bbox"]]})(groundtruth)


def ids_from_0(groundtruth):
    annotations_by(lambda row: {"category_id": row["category_id"] - 1})(groundtruth)
    for category in groundtruth["categories"]:
        category["id"] -= 1


def no_box_in_these_images(groundtruth):
    """All objects are in an image that the records lack."""
    groundtruth["images"].append({"id": 99, "file_name": "99.jpg"})
    annotations_by(lambda row: {"image_id": 99})(groundtruth)


def category_0(groundtruth):
    """A quarter of the objects is of a category 0; the other ids are right."""
    groundtruth["categories"].append({"id": 0, "name": "moon"})
    for row in groundtruth["annotations"][::4]:
        row["category_id"] = 0


JSON_FAULTS = {
    "another split": (shift_ids, {"json_image_ids"}, "(records: 1, 2, 3 and 21 more; file: 1001, 1002, 1003"),
    "another split with the same ids": (
        other_split,
        {"json_other_split"},
        "image 1 is val1.jpg there and 0.jpg here",
    ),
    "mirrored": (annotations_by(mirror), {"json_boxes_mirrored"}, "mirrored left to right: the images of one of the"),
    "other boxes": (moved_boxes, {"json_other_boxes"}, "though file names agree: were images or boxes of one of the"),
    "other boxes, no names": (without_names, {"json_other_split"}, "there are no file names to compare: is the JSON"),
    "far out": (
        far_out,
        {"json_boxes_beyond"},
        "area outside of their images: are these corners x1, y1, x2, y2 instead",
    ),
    "a part": (fewer_images, {"json_image_ids"}, "4 of 24 records (16.7%) have an image id that"),
    "categories under other ids": (
        other_ids,
        {"moved_names"},
        "x.json than in label_map: 'triangle' is 1 instead of 2, 'star' is 2 instead of 3, 'circle' is 3 instead of 1",
    ),
    "categories from 0": (ids_from_0, {"json_class_ids"}, "category ids of the JSON are one too low"),
    "other categories": (
        annotations_by(lambda row: {"category_id": {1: 1, 2: 3, 3: 2}[row["category_id"]]}),
        {"json_class_ids"},
        "in the records is 3 (star) there",
    ),
    "corners": (annotations_by(corners), {"json_boxes_as_corners"}, "bbox of the JSON holds [xmin, ymin, xmax, ymax]"),
    "centers": (annotations_by(centers), {"json_boxes_from_centers"}, "bbox of the JSON holds centers"),
    "fractions": (
        annotations_by(lambda row: {"bbox": (np.array(row["bbox"]) / [128, 96, 128, 96]).tolist()}),
        {"json_boxes_normalized"},
        "fractions of the image; write pixels",
    ),
    "pixels of larger images": (larger_images, {"json_boxes_scaled"}, "of images of another size"),
    "crowds": (
        annotations_by(lambda row: {"iscrowd": 1}),
        {"json_crowds"},
        "x.json are crowds (iscrowd: 1), which AP ignores; export polygons or boxes instead of masks",
    ),
    "no boxes": (
        lambda groundtruth: groundtruth.update(annotations=[]),
        {"json_no_boxes"},
        "x.json has no boxes; give a file",
    ),
    "boxes of other images": (no_box_in_these_images, {"json_no_boxes"}, "none of the images of the records has a box"),
    "no bbox": (
        annotations_by(lambda row: {"bbox": None} if row["id"] % 4 == 0 else {}),
        {"json_left_out"},
        "bbox is not four numbers: ",
    ),
    "a category that is not listed": (
        annotations_by(lambda row: {"category_id": 7} if row["category_id"] == 3 else {}),
        {"json_left_out"},
        "category 7 is not among the categories: ",
    ),
    "category 0": (category_0, {"json_category_0"}, "--consecutive_ids"),
}


@pytest.mark.parametrize("name", JSON_FAULTS)
def test_only_the_planted_fault_of_the_json_is_found(tmp_path, clean, name):
    records, groundtruth = clean[0], copy.deepcopy(clean[1])
    plant, expected, words = JSON_FAULTS[name]
    plant(groundtruth)
    findings = check_records(tmp_path, records, groundtruth)
    assert codes(findings) == expected
    assert words in findings[0].text and findings[0].level == "fatal"
    with pytest.raises(DataError, match=r"^.*x.tfrecord: "):
        checks.quick(str(tmp_path / "x.tfrecord"), config(), str(tmp_path / "x.json"))


def test_the_json_shows_swapped_boxes_if_pixels_do_not(tmp_path, clean):
    flat = [dataclasses.replace(r, encoded=jpeg(np.full([*SIZE, 3], 99, np.uint8))) for r in clean[0]]
    in_pixels = boxes_by(lambda boxes: (boxes * SIZES)[:, [1, 0, 3, 2]] / SIZES)(flat)
    assert codes(check_records(tmp_path, in_pixels, clean[1])) == {"boxes_swapped_in_pixels"}
    swapped = boxes_by(lambda boxes: boxes[:, [1, 0, 3, 2]])(flat)
    assert codes(check_records(tmp_path, swapped, clean[1])) == {"boxes_swapped"}
    assert codes(check_records(tmp_path, swapped)) == set()  # flat images have no evidence


def test_ids_with_leading_zeros_and_absent_ids(tmp_path, clean):
    padded = renumber(lambda record: record.source_id.zfill(12))(clean[0])
    assert check_records(tmp_path, padded, clean[1]) == []
    named = renumber(lambda record: f"image {record.source_id}")(clean[0])
    [finding] = check_records(tmp_path, named, clean[1])
    assert finding.text.endswith("file names agree: write its image ids to image/source_id")
    absent = renumber(lambda record: "")(clean[0])
    findings = check_records(tmp_path, absent, clean[1])
    assert codes(findings) == {"json_image_ids", "no_image_ids"} and "have no image/source_id" in findings[0].text
    [finding] = check_records(tmp_path, clean[0], clean[1], regenerate_source_id=True)
    assert "regenerate_source_id" in finding.text


@pytest.mark.parametrize("of_image", [float, str, lambda number: str(number).zfill(12)])
@pytest.mark.parametrize("of_category", [float, str])
def test_ids_of_the_json_may_have_several_types(tmp_path, clean, of_image, of_category):
    groundtruth = copy.deepcopy(clean[1])
    for row in groundtruth["annotations"][::2]:
        row.update(image_id=of_image(row["image_id"]), category_id=of_category(row["category_id"]))
    assert check_records(tmp_path, clean[0], groundtruth) == []


@pytest.mark.parametrize(
    "changes, code, words",
    [
        ([{"image_id": 4444}], "json_left_out", "annotations of images that are not listed: 1 (annotation 1)"),
        ([{"category_id": 0}], "json_category_0", "AP leaves out 1 of "),
        ([{"bbox": [1, 2, float("nan"), 4]}], "json_left_out", "bbox is not four numbers: 1 (annotation 1 of 0.jpg)"),
        ([{"id": 3}], "json_repeated_ids", "have the id of another one (annotation 3 of "),
        ([{"iscrowd": 1}] * 30, "json_crowds", "are crowds (iscrowd: 1), which AP ignores; export polygons or boxes"),
    ],
)
def test_part_of_the_json_that_ap_leaves_out_is_a_warning(tmp_path, clean, changes, code, words):
    groundtruth = copy.deepcopy(clean[1])
    for row, change in zip(groundtruth["annotations"], changes):
        row.update(change)
    finding = check_records(tmp_path, clean[0], groundtruth)[0]
    assert (finding.level, finding.code) == ("warning", code) and words in finding.text


def test_a_category_of_crowds_alone_is_a_warning(tmp_path, clean):
    groundtruth = copy.deepcopy(clean[1])
    annotations_by(lambda row: {"iscrowd": int(row["category_id"] == 3)})(groundtruth)
    findings = check_records(tmp_path, clean[0], groundtruth)
    assert [(finding.level, finding.code) for finding in findings] == [
        ("warning", "json_crowds"),
        ("warning", "json_unused_classes"),
    ]
    assert "27 of 86 boxes" in findings[0].text and "all boxes of category 3 'star' of " in findings[1].text


def test_unlisted_images_never_stop_an_evaluation(tmp_path, clean):
    """A file may list a part of the images of its annotations."""
    records, groundtruth = clean[0][:6], copy.deepcopy(clean[1])
    groundtruth["images"] = groundtruth["images"][:6]
    [finding] = check_records(tmp_path, records, groundtruth)
    assert (finding.level, finding.code) == ("warning", "json_left_out")


def test_large_class_ids_need_other_ids_instead_of_num_classes(tmp_path, clean):
    records = [dataclasses.replace(r, classes=[9210045] * len(r.classes), class_names=()) for r in clean[0]]
    finding = check_records(tmp_path, records, label_map=None)[0]
    assert finding.code == "class_ids" and "set num_classes" not in finding.text
    assert "must be at most 10000: number the classes from 1, as dataset/create_coco_tfrecord.py" in finding.text


def test_repeated_ids_stop_an_evaluation_with_a_json(tmp_path, clean):
    records = [*clean[0], clean[0][0]]
    [finding] = check_records(tmp_path, records, clean[1])
    assert finding.code == "repeated_image_ids" and finding.level == "fatal"


def test_a_json_of_more_images_is_a_note_and_of_more_boxes_a_warning(tmp_path, clean):
    [finding] = check_records(tmp_path, clean[0][:20], clean[1])
    assert (finding.level, finding.code) == ("note", "json_more_images") and "20 of the 24 images" in finding.text
    fewer = [change_boxes(record, lambda boxes: boxes) for record in clean[0]]
    half = [
        dataclasses.replace(r, boxes_norm=r.boxes_norm[::2], classes=r.classes[::2], class_names=()) for r in fewer[:8]
    ]
    [finding] = check_records(tmp_path, [*half, *fewer[8:]], clean[1])
    assert (finding.level, finding.code) == ("warning", "json_boxes")


@pytest.mark.parametrize("content", ["[1]", "{", "[" * 200_000, '{"images": [], "annotations": []}'])
def test_load_rejects_other_content(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=r"x\.json"):
        json_checks.load(str(tmp_path / "x.json"))


def test_load_rejects_ids_that_are_not_integers(tmp_path, clean):
    groundtruth = copy.deepcopy(clean[1])
    groundtruth["annotations"][0]["category_id"] = None
    (tmp_path / "x.json").write_text(json.dumps(groundtruth))
    with pytest.raises(DataError, match=r"x\.json: annotations\[0\] has category_id None; ids must be integers"):
        json_checks.load(str(tmp_path / "x.json"))
