# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/check/checks.py: no findings for clean records, and the right ones for planted faults."""

import dataclasses
import json
import pathlib
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from planted import (
    NAMES,
    SIZES,
    boxes_by,
    change_boxes,
    check,
    check_records,
    classes_by,
    codes,
    config,
    renumber,
    write,
)

from dataset import tfrecord
from dataset.check import checks, data_report, json_checks, record_facts
from dataset.tfrecord import DataError, Record
from efficientdet import config as config_lib

ROOT = pathlib.Path(__file__).parents[3]
BCCD = ROOT.parent / "shared" / "data" / "VOCdevkit" / "BCCD"


# --- Clean data has no findings.


def test_clean_scenes_have_no_findings(tmp_path, clean):
    records, groundtruth = clean
    assert check_records(tmp_path, records, groundtruth) == []
    assert check_records(tmp_path, records) == []
    bare = [dataclasses.replace(record, class_names=()) for record in records]
    assert check_records(tmp_path, bare, label_map=None) == []
    (tmp_path / "x.json").write_text(json.dumps(groundtruth))
    assert checks.quick(str(tmp_path / "x.tfrecord"), config(), str(tmp_path / "x.json")).warnings == []


@pytest.mark.parametrize("model", ["efficientdet-lite0", "efficientdet-d0", "efficientdet-d1"])
def test_the_sample_has_no_findings(model):
    sample = config_lib.load(model, num_classes=3, label_map=NAMES)
    groundtruth = json_checks.load(str(ROOT / "testdata" / "sample.json"))
    assert check(str(ROOT / "testdata" / "sample.tfrecord"), sample, groundtruth) == []


@pytest.fixture(scope="module")
def bccd_records():
    """Every sixth image of BCCD, with clipped boxes and without empty ones, as a converter writes them."""
    if not BCCD.is_dir():
        pytest.skip("BCCD is not in ../shared/data")
    ids = {"RBC": 1, "WBC": 2, "Platelets": 3}
    records = []
    for i, path in enumerate(sorted((BCCD / "Annotations").glob("*.xml"))[::6]):
        root = ElementTree.parse(path).getroot()
        size = [int(root.findtext(f"size/{side}")) for side in ("height", "width")]
        found = {}  # BCCD repeats one box
        for item in root.iterfind("object"):
            box = [float(item.findtext(f"bndbox/{side}")) for side in ("ymin", "xmin", "ymax", "xmax")]
            box = np.clip(box / np.tile(size, 2), 0, 1)
            if (box[2:] > box[:2]).all():
                found[(*box, ids[item.findtext("name")])] = item.findtext("name")
        encoded = (BCCD / "JPEGImages" / f"{path.stem}.jpg").read_bytes()
        boxes, classes = [key[:4] for key in found], [key[4] for key in found]
        record = Record(encoded, *size, f"{path.stem}.jpg", str(i + 1), boxes_norm=boxes, classes=classes)
        records.append(dataclasses.replace(record, class_names=list(found.values())))
    return records


def test_bccd_has_no_findings_and_swapped_boxes_are_detected_from_pixels(tmp_path, bccd_records):
    bccd = {"label_map": {1: "RBC", 2: "WBC", 3: "Platelets"}}
    assert check_records(tmp_path, bccd_records, **bccd) == []
    swapped = [change_boxes(record, lambda boxes: boxes[:, [1, 0, 3, 2]]) for record in bccd_records]
    assert codes(check_records(tmp_path, swapped, **bccd)) == {"boxes_swapped"}


# --- Planted faults: each changes the clean records, and states the expected findings.


def first_box(**values):
    """Changes the first box of the first record that has one: ymin, xmin, ymax, xmax."""

    def plant(records):
        i = next(i for i, record in enumerate(records) if len(record.boxes_norm))
        box = dict(zip(("ymin", "xmin", "ymax", "xmax"), records[i].boxes_norm[0])) | values
        boxes = np.array([list(box.values()), *records[i].boxes_norm[1:]])
        return [*records[:i], dataclasses.replace(records[i], boxes_norm=boxes), *records[i + 1 :]]

    return plant


def with_objects(records, boxes, class_id=1):
    """Replaces the objects of the first record."""
    columns = {"boxes_norm": boxes, "classes": [class_id] * len(boxes), "class_names": [NAMES[class_id]] * len(boxes)}
    return [dataclasses.replace(records[0], **columns), *records[1:]]


def repeat_a_box(records):
    i = next(i for i, record in enumerate(records) if len(record.boxes_norm))
    record = records[i]
    columns = {
        "boxes_norm": [*record.boxes_norm, record.boxes_norm[0]],
        "classes": [*record.classes, record.classes[0]],
    }
    names = [*record.class_names, record.class_names[0]]
    return [*records[:i], dataclasses.replace(record, **columns, class_names=names), *records[i + 1 :]]


def other_sizes(change):
    return lambda records: [dataclasses.replace(r, **dict(zip(("height", "width"), change(r)))) for r in records]


def tiny_boxes(records):
    random = np.random.default_rng(1)
    mins = random.uniform(0, 0.9, [40, 2])
    return with_objects(records, np.concatenate([mins, mins + 0.004], 1))


def from_corners(boxes):
    """Converts corners that were taken for x, y, width, height."""
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])


FAULTS = {
    # name: (change of the records, codes, part of a message)
    "ids from 0": (classes_by(lambda i: i - 1), {"class_ids"}, "0 is called 'circle', which label_map has as 1"),
    "ids from 0, no names": (classes_by(lambda i: i - 1, names=False), {"class_ids"}, "class ids are one too low"),
    "ids from 2": (classes_by(lambda i: i + 1), {"class_ids"}, "class ids are one too high"),
    "ids from 2, no names": (classes_by(lambda i: i + 1, names=False), {"class_ids"}, "class ids are one too high"),
    "id above": (classes_by(lambda i: {3: 7}.get(i, i)), {"class_ids"}, "others (7 on "),
    "background": (classes_by(lambda i: {1: 0}.get(i, i), False), {"class_ids"}, "no boxes of background"),
    "negative": (classes_by(lambda i: {1: -1}.get(i, i)), {"class_ids"}, "write ids from 1"),
    "permuted ids": (
        classes_by(lambda i: {1: 2, 2: 3, 3: 1}[i]),
        {"moved_names"},
        "other ids in the records than in label_map: 'star' is 1 instead of 3, 'circle' is 2 instead of 1, 'triangle'",
    ),
    "swapped": (boxes_by(lambda b: b[:, [1, 0, 3, 2]]), {"boxes_swapped"}, "x and y of the boxes are swapped"),
    "in pixels": (boxes_by(lambda b: b * SIZES), {"boxes_in_pixels"}, "boxes are in pixels where fractions"),
    "normalized twice": (boxes_by(lambda b: b / SIZES), {"boxes_normalized_twice"}, "boxes are normalized twice"),
    "with sides": (
        boxes_by(lambda b: np.hstack([b[:, :2], b[:, 2:] - b[:, :2]])),
        {"boxes_with_sides"},
        "xmax and ymax hold width and height",
    ),
    "from centers": (
        boxes_by(lambda b: np.hstack([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]])),
        {"boxes_from_centers"},
        "xmin and ymin hold the center",
    ),
    "corners as sides": (boxes_by(from_corners), {"boxes_from_corners"}, "were corners x1, y1, x2, y2 read as x, y, w"),
    "corners as sides, cut": (
        boxes_by(lambda b: np.clip(from_corners(b), 0, 1)),
        {"boxes_from_corners"},
        "were corners x1, y1, x2, y2 read as x, y, width, height?",
    ),
    "of images twice as large": (
        boxes_by(lambda b: b * 1.8),
        {"boxes_beyond", "boxes_outside", "boxes_tiny", "anchors"},
        "or pixels of other",
    ),
    "inverted": (first_box(ymin=0.9, ymax=0.2), {"boxes_inverted"}, "1 of "),
    "all inverted": (boxes_by(lambda b: b[:, [2, 3, 0, 1]]), {"boxes_inverted"}, "(100.0%) have a maximum below"),
    "empty": (first_box(xmin=0.5, xmax=0.5), {"boxes_empty"}, "have no area"),
    "not a number": (first_box(xmin=float("nan")), {"boxes_not_finite"}, "are not a number"),
    "outside the image": (first_box(xmin=1.1, xmax=1.3), {"boxes_outside"}, "outside their image"),
    "beyond the image": (first_box(xmin=0.5, xmax=1.3), {"boxes_beyond"}, "extend beyond their image"),
    "repeated box": (repeat_a_box, {"boxes_twice"}, "1 of "),
    "tiny": (tiny_boxes, {"boxes_tiny", "anchors"}, "less than 2 pixels high or wide at 320x320"),
    "whole image": (
        lambda records: [*(with_objects([r], [[0, 0, 1, 1]])[0] for r in records[:12]), *records[12:]],
        {"boxes_of_whole_images"},
        "are these data for classification?",
    ),
    "no boxes": (
        lambda records: [dataclasses.replace(r, boxes_norm=(), classes=(), class_names=()) for r in records],
        {"no_boxes"},
        "no record has a box",
    ),
    "many boxes": (
        lambda records: with_objects(records, [[i / 130, 0.3, i / 130 + 0.2, 0.6] for i in range(101)]),
        {"too_many_boxes"},
        "set it to 101",
    ),
    "height and width exchanged": (
        other_sizes(lambda record: (record.width, record.height)),
        {"image_sizes"},
        "the two are swapped",
    ),
    "size of another image": (other_sizes(lambda record: (960, 1280)), {"image_sizes"}, "1280x960 for 128x96"),
    "truncated image": (
        lambda records: [dataclasses.replace(records[0], encoded=records[0].encoded[:200]), *records[1:]],
        {"faulty_records"},
        "1 of 24 records (4.2%) hold an image that does not decode (x.tfrecord record 0: ",
    ),
    "repeated id": (
        lambda records: [dataclasses.replace(records[0], source_id="2"), *records[1:]],
        {"repeated_image_ids"},
        "1 image ids occur more than once (2)",
    ),
    "one id": (
        renumber(lambda record: "7"),
        {"repeated_image_ids"},
        "all 24 records with an image id have the same, '7': write to image/source_id of each the id",
    ),
    "no ids": (renumber(lambda record: ""), {"no_image_ids"}, "have no image/source_id"),
}
FATAL = {
    "class_ids", "moved_names", "boxes_swapped", "boxes_in_pixels", "boxes_normalized_twice", "boxes_with_sides",
    "boxes_from_centers", "boxes_from_corners", "no_boxes", "image_sizes", "faulty_records",
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_only_the_planted_fault_is_found(tmp_path, clean, name):
    plant, expected, words = FAULTS[name]
    findings = check_records(tmp_path, plant(clean[0]))
    # Without most boxes, some class has none.
    findings = [finding for finding in findings if finding.code != "unseen_classes"]
    assert codes(findings) == expected
    assert any(words in finding.text for finding in findings), findings
    fatal = bool(expected & FATAL) or name in ("all inverted", "of images twice as large")
    assert any(finding.level == "fatal" for finding in findings) == fatal


@pytest.mark.parametrize(
    "name", ["ids from 0", "in pixels", "normalized twice", "with sides", "corners as sides, cut", "no boxes"]
)
def test_quick_raises_the_message(tmp_path, clean, name):
    plant, _, words = FAULTS[name]
    pattern = write(tmp_path / "x.tfrecord", map(tfrecord.encode, plant(clean[0])))
    with pytest.raises(DataError) as error:
        checks.quick(pattern, config())
    assert words in str(error.value)


def test_quick_tolerates_as_many_faulty_records_as_the_reader(tmp_path, clean):
    faulty = [dataclasses.replace(record, encoded=b"not an image") for record in clean[0]]
    pattern = write(tmp_path / "x.tfrecord", map(tfrecord.encode, [*faulty[:2], *clean[0][2:]]))
    [warning] = checks.quick(pattern, config(max_damaged_records=2)).warnings
    assert "2 of 24 records (8.3%) hold an image that does not decode" in warning
    with pytest.raises(DataError, match="write them again, or raise max_damaged_records = 1; "):
        checks.quick(pattern, config(max_damaged_records=1))
    pattern = write(tmp_path / "all.tfrecord", map(tfrecord.encode, faulty[:5]))
    with pytest.raises(DataError, match=r"5 of 5 records \(100.0%\) hold an image that does not decode"):
        checks.quick(pattern, config())  # there is no other record


def test_a_test_set_needs_the_image_ids_of_coco_but_no_boxes(tmp_path, clean):
    def warnings(ids):
        columns = dict.fromkeys(("boxes_norm", "classes", "class_names", "is_crowd", "area"), ())
        bare = [dataclasses.replace(record, source_id=i, **columns) for record, i in zip(clean[0], ids)]
        return checks.quick_test_set(write(tmp_path / "x.tfrecord", map(tfrecord.encode, bare)), config())

    assert warnings(["7", "8", "9"]) == []
    with pytest.raises(DataError, match="regenerate_source_id replaces the image ids of COCO's server"):
        checks.quick_test_set(str(tmp_path / "x.tfrecord"), config(regenerate_source_id=True))
    for ids, words in (
        (["7", "b8"], "there are b8: write"),
        (["7", "8", "7"], "are 7: write"),
        (["7", ""], "are none: write"),
    ):
        with pytest.raises(
            DataError, match=f"image/source_id must be the unique number that COCO gives the image.* {words}"
        ):
            warnings(ids)


def test_quick_tolerates_as_many_damaged_records_as_the_reader(tmp_path, clean):
    path = tmp_path / "x.tfrecord"
    write(path, map(tfrecord.encode, clean[0]))
    path.write_bytes(path.read_bytes()[:-100])
    [warning] = checks.quick(str(path), config()).warnings
    assert "record 23 of " in warning and "bytes are missing at its end" in warning
    with pytest.raises(DataError, match="damaged files: record 23 of "):
        checks.quick(str(path), config(max_damaged_records=0))


def test_a_sample_without_boxes_is_a_warning_and_the_quick_check_reads_on(tmp_path, clean):
    empty = dataclasses.replace(clean[0][0], boxes_norm=(), classes=(), class_names=())
    empty = [dataclasses.replace(empty, source_id=f"empty{i}") for i in range(260)]
    pattern = write(tmp_path / "x.tfrecord", map(tfrecord.encode, empty + clean[0]))
    [finding] = checks.run(record_facts.read(pattern, samples=256), config())
    assert finding.level == "warning" and "no record of the 256 sampled ones has a box" in finding.text
    [warning] = checks.quick(pattern, config()).warnings
    assert "of 284 images (" in warning and "have no box" in warning
    pattern = write(tmp_path / "empty.tfrecord", map(tfrecord.encode, empty))
    with pytest.raises(DataError, match="no record has a box"):
        checks.quick(pattern, config())


def test_records_without_boxes_can_be_evaluated_with_a_json(tmp_path, clean):
    [finding] = check_records(tmp_path, FAULTS["no boxes"][0](clean[0]), clean[1])
    assert (finding.level, finding.code) == ("warning", "no_boxes")


def test_quick_returns_warnings(tmp_path, clean):
    pattern = write(tmp_path / "x.tfrecord", map(tfrecord.encode, repeat_a_box(clean[0])))
    [warning] = checks.quick(pattern, config()).warnings
    assert "repeat another of their image and class" in warning


@pytest.mark.parametrize("source", ["records", "label_map"])
def test_similar_class_names_are_a_warning(tmp_path, clean, source):
    names = {**NAMES, 3: f" {NAMES[1].upper()}"}
    records = [dataclasses.replace(r, class_names=[names[class_id] for class_id in r.classes]) for r in clean[0]]
    if source == "label_map":
        records = [dataclasses.replace(r, class_names=()) for r in records]
    pattern = write(tmp_path / "x.tfrecord", map(tfrecord.encode, records))
    [warning] = checks.quick(pattern, config(label_map=names if source == "label_map" else None)).warnings
    counts = [sum(r.classes.count(class_id) for r in records) for class_id in (1, 3)]
    shown = f"1 {names[1]!r} on {counts[0]} boxes, 3 {names[3]!r} on {counts[1]} boxes"
    assert f": classes whose names differ only in case, spaces, hyphens or underscores: {shown}; if they are" in warning
    [finding] = check(pattern, config(label_map=names))
    assert (finding.level, finding.code) == ("warning", "similar_names")


@pytest.mark.parametrize("num_boxes, level", [(50, "fatal"), (49, "warning")])
def test_anchors_without_recall_are_fatal(tmp_path, clean, num_boxes, level):
    mins = np.random.default_rng(1).uniform(0, 0.9, [num_boxes, 2])
    tiny = np.concatenate([mins, mins + 8 / 320], 1)  # 8x6 pixels where the smallest anchors have 24
    pattern = write(tmp_path / "x.tfrecord", [tfrecord.encode(with_objects(clean[0], tiny)[0])])
    [finding] = check(pattern, config(label_map=None))
    assert (finding.level, finding.code) == (level, "anchors")
    assert finding.text.startswith("100% of the boxes have no anchor") and "; --hparams='anchor_scale=" in finding.text


def test_without_label_map_the_report_has_the_class_names_of_the_records(tmp_path, clean):
    records = [dataclasses.replace(clean[0][0], class_names=["odd"] * len(clean[0][0].classes)), *clean[0][1:]]
    facts = record_facts.read(write(tmp_path / "x.tfrecord", map(tfrecord.encode, records)))
    statistics = data_report.compute_statistics(facts, config(label_map=None))
    assert {row["id"]: row["name"] for row in statistics["classes"]} == NAMES
    assert "   3 star " in data_report.table(statistics, [])
    statistics["classes"][0]["name"] = "$\\no formula$"
    data_report.plot_counts(statistics, tmp_path / "counts.png")


def test_axes_of_box_sizes_have_plain_numbers(tmp_path, clean, monkeypatch):
    drawn = []
    monkeypatch.setattr(data_report.Figure, "savefig", lambda figure, path: drawn.append(figure))
    facts = record_facts.read(write(tmp_path / "x.tfrecord", map(tfrecord.encode, clean[0])))
    data_report.plot_sizes(facts, config(), tmp_path / "sizes.png")
    drawn[0].draw_without_rendering()
    for axis in (drawn[0].axes[0].xaxis, drawn[0].axes[0].yaxis):
        assert {"32", "64", "128"} <= {label.get_text() for label in axis.get_ticklabels()}


@pytest.mark.parametrize(
    "name",
    [
        *("swapped", "in pixels", "normalized twice", "with sides", "from centers", "corners as sides, cut"),
        *("ids from 0", "ids from 0, no names"),
    ],
)
def test_faults_of_records_are_reported_once_beside_a_json(tmp_path, clean, name):
    plant, expected, words = FAULTS[name]
    findings = check_records(tmp_path, plant(clean[0]), clean[1], label_map=None)
    assert codes(findings) == expected
    assert words in findings[0].text or "one too low" in findings[0].text


# --- Data that look like a fault, but are not.


def test_truly_small_objects_are_not_normalized_twice(tmp_path, clean):
    random = np.random.default_rng(1)
    records = []
    for record in clean[0]:
        mins = random.uniform(0, 0.99, [30, 2])
        [small] = with_objects([record], np.concatenate([mins, mins + random.uniform(0.001, 0.005, [30, 2])], 1))
        records.append(small)
    assert codes(check_records(tmp_path, records, label_map=None)) == {"boxes_tiny", "anchors"}
