# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/check/: no findings for clean records, and the right findings for planted faults."""

import copy
import dataclasses
import io
import json
import pathlib
import struct
import xml.etree.ElementTree as ElementTree
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dataset import scenes, tfrecord
from dataset.check import checks, class_ids, data_report, json_checks, record_facts, swap_evidence
from dataset.tfrecord import DataError, Record
from efficientdet import config as config_lib

ROOT = pathlib.Path(__file__).parents[3]
BCCD = ROOT.parent / "shared" / "data" / "VOCdevkit" / "BCCD"
NAMES = scenes.CLASS_NAMES
SIZE = (96, 128)  # (height, width)
NUM_IMAGES = 24


def config(**overrides):
    return config_lib.load("efficientdet-lite0", num_classes=3, label_map=NAMES).override(overrides)


def jpeg(image):
    with io.BytesIO() as file:
        Image.fromarray(image).save(file, "JPEG", quality=92)
        return file.getvalue()


@pytest.fixture(scope="module")
def clean():
    """Records of scenes, and the content of their groundtruth file."""
    records = []
    for index in range(NUM_IMAGES):
        scene = scenes.make_scene(3, index, SIZE)
        boxes = scene.boxes / np.tile(SIZE, 2)
        classes = scene.classes.tolist()
        names = [NAMES[class_id] for class_id in classes]
        record = Record(jpeg(scene.image), *SIZE, f"{index}.jpg", str(index + 1), boxes_norm=boxes, classes=classes)
        records.append(dataclasses.replace(record, class_names=names))
    return records, groundtruth_of(records)


def groundtruth_of(records):
    images, annotations = [], []
    for record in records:
        images.append({"id": int(record.source_id), "file_name": record.filename})
        images[-1].update(height=record.height, width=record.width)
        for box, class_id in zip(np.asarray(record.boxes_norm) * np.tile(SIZE, 2), record.classes):
            ymin, xmin, ymax, xmax = box.tolist()
            row = {"id": len(annotations) + 1, "image_id": images[-1]["id"], "category_id": class_id, "iscrowd": 0}
            annotations.append({**row, "bbox": [xmin, ymin, xmax - xmin, ymax - ymin]})
    categories = [{"id": class_id, "name": name} for class_id, name in NAMES.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(path, serialized):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in serialized:
            writer.write(record)
    return str(path)


def check(pattern, config, groundtruth=None):
    """Returns the findings of the whole check."""
    facts = record_facts.read(pattern, regenerate_source_id=config.regenerate_source_id)
    statistics = data_report.compute_statistics(facts, config)
    findings = checks.run(facts, config, groundtruth, statistics["anchors"])
    assert max(map(len, data_report.table(statistics, findings).splitlines())) <= 120
    return findings


def check_records(tmp_path, records, groundtruth=None, **overrides):
    pattern = write(tmp_path / "x.tfrecord", map(tfrecord.encode, records))
    if groundtruth is not None:
        (tmp_path / "x.json").write_text(json.dumps(groundtruth))
        groundtruth = json_checks.load(str(tmp_path / "x.json"))
    return check(pattern, config(**overrides), groundtruth)


# --- Clean data has no findings.


def test_clean_scenes_have_no_findings(tmp_path, clean):
    records, groundtruth = clean
    assert check_records(tmp_path, records, groundtruth) == []
    assert check_records(tmp_path, records) == []
    bare = [dataclasses.replace(record, class_names=()) for record in records]
    assert check_records(tmp_path, bare, label_map=None) == []
    (tmp_path / "x.json").write_text(json.dumps(groundtruth))
    assert checks.quick(str(tmp_path / "x.tfrecord"), config(), str(tmp_path / "x.json")) == []


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


def codes(findings):
    return {finding.code for finding in findings}


def change_boxes(record, change):
    return dataclasses.replace(record, boxes_norm=change(np.reshape(record.boxes_norm, [-1, 4])))


def boxes_by(change):
    return lambda records: [change_boxes(record, change) for record in records]


def classes_by(change, names=True):
    def plant(records):
        changed = [dataclasses.replace(r, classes=[change(class_id) for class_id in r.classes]) for r in records]
        return changed if names else [dataclasses.replace(record, class_names=()) for record in changed]

    return plant


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


def renumber(source_id):
    return lambda records: [dataclasses.replace(record, source_id=source_id(record)) for record in records]


def other_sizes(change):
    return lambda records: [dataclasses.replace(r, **dict(zip(("height", "width"), change(r)))) for r in records]


def tiny_boxes(records):
    random = np.random.default_rng(1)
    mins = random.uniform(0, 0.9, [40, 2])
    return with_objects(records, np.concatenate([mins, mins + 0.004], 1))


def from_corners(boxes):
    """Converts corners that were taken for x, y, width, height."""
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])


SIZES = np.tile(SIZE, 2)
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
    [warning] = checks.quick(pattern, config(max_damaged_records=2))
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
    [warning] = checks.quick(str(path), config())
    assert "record 23 of " in warning and "bytes are missing at its end" in warning
    with pytest.raises(DataError, match="damaged files: record 23 of "):
        checks.quick(str(path), config(max_damaged_records=0))


def test_a_sample_without_boxes_is_a_warning_and_the_quick_check_reads_on(tmp_path, clean):
    empty = dataclasses.replace(clean[0][0], boxes_norm=(), classes=(), class_names=())
    empty = [dataclasses.replace(empty, source_id=f"empty{i}") for i in range(260)]
    pattern = write(tmp_path / "x.tfrecord", map(tfrecord.encode, empty + clean[0]))
    [finding] = checks.run(record_facts.read(pattern, samples=256), config())
    assert finding.level == "warning" and "no record of the 256 sampled ones has a box" in finding.text
    [warning] = checks.quick(pattern, config())
    assert "of 284 images (" in warning and "have no box" in warning
    pattern = write(tmp_path / "empty.tfrecord", map(tfrecord.encode, empty))
    with pytest.raises(DataError, match="no record has a box"):
        checks.quick(pattern, config())


def test_records_without_boxes_can_be_evaluated_with_a_json(tmp_path, clean):
    [finding] = check_records(tmp_path, FAULTS["no boxes"][0](clean[0]), clean[1])
    assert (finding.level, finding.code) == ("warning", "no_boxes")


def test_quick_returns_warnings(tmp_path, clean):
    pattern = write(tmp_path / "x.tfrecord", map(tfrecord.encode, repeat_a_box(clean[0])))
    [warning] = checks.quick(pattern, config())
    assert "repeat another of their image and class" in warning


@pytest.mark.parametrize("source", ["records", "label_map"])
def test_similar_class_names_are_a_warning(tmp_path, clean, source):
    names = {**NAMES, 3: f" {NAMES[1].upper()}"}
    records = [dataclasses.replace(r, class_names=[names[class_id] for class_id in r.classes]) for r in clean[0]]
    if source == "label_map":
        records = [dataclasses.replace(r, class_names=()) for r in records]
    pattern = write(tmp_path / "x.tfrecord", map(tfrecord.encode, records))
    [warning] = checks.quick(pattern, config(label_map=names if source == "label_map" else None))
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


# --- Planted faults of the groundtruth file.


def annotations_by(change):
    def plant(groundtruth):
        for row in groundtruth["annotations"]:
            row.update(change(row))

    return plant


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


def other_ids(groundtruth):
    annotations_by(lambda row: {"category_id": {1: 3, 2: 1, 3: 2}[row["category_id"]]})(groundtruth)
    for category in groundtruth["categories"]:
        category["id"] = {1: 3, 2: 1, 3: 2}[category["id"]]


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


# --- Class names: pairs of sources that give the same names other ids, and ids without a name.

MOVED = {1: "star", 2: "circle", 3: "triangle"}


def text_of(findings, level, code):
    [text] = [finding.text for finding in findings if (finding.level, finding.code) == (level, code)]
    return text


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
    assert checks.quick(pattern, config(label_map=None), str(tmp_path / "x.json"), [same]) == []
    part = class_ids.of_label_map({1: "circle", 4: "padding"}, "runs/x/config.yaml")
    assert checks.quick(pattern, config(label_map=None, num_classes=4), None, [part]) == []


def test_validation_records_have_the_ids_of_training_records(tmp_path, clean):
    pattern = write(tmp_path / "train.tfrecord", map(tfrecord.encode, clean[0]))
    moved = write(tmp_path / "val.tfrecord", map(tfrecord.encode, classes_by({1: 3, 2: 1, 3: 2}.get)(clean[0])))
    known = checks.record_names(pattern, config(label_map=None))
    assert known.source == pattern and set(known.pairs) == set(NAMES.items())
    assert checks.quick(pattern, config(label_map=None), None, [known]) == []
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


# --- Data that look like a fault, but are not.


def test_truly_small_objects_are_not_normalized_twice(tmp_path, clean):
    random = np.random.default_rng(1)
    records = []
    for record in clean[0]:
        mins = random.uniform(0, 0.99, [30, 2])
        [small] = with_objects([record], np.concatenate([mins, mins + random.uniform(0.001, 0.005, [30, 2])], 1))
        records.append(small)
    assert codes(check_records(tmp_path, records, label_map=None)) == {"boxes_tiny", "anchors"}


def find_swap(images, boxes):
    """Returns find_swap over images with equal numbers of boxes."""
    gains = [swap_evidence.gains(*pair) for pair in zip(images, boxes)]
    return swap_evidence.find_swap(
        np.concatenate(gains), np.concatenate(boxes), np.repeat(np.arange(len(images)), len(boxes[0]))
    )


def test_objects_in_noise_are_no_evidence_of_swapped_boxes():
    random = np.random.default_rng(1)
    mins = random.uniform(0, 0.6, [60, 5, 2])
    boxes = np.concatenate([mins, mins + random.uniform(0.1, 0.4, [60, 5, 2])], 2)
    assert find_swap(random.integers(0, 256, [60, 90, 120, 3], np.uint8), boxes) is None
    assert swap_evidence.find_swap(np.full([60, 3], np.nan), boxes[:, 0], np.arange(60)) is None


@pytest.mark.parametrize("spread", [3, 10])
def test_background_of_a_fixed_camera_is_no_evidence_of_swapped_boxes(tmp_path, clean, spread):
    random = np.random.default_rng(1)
    records = []
    for index in range(40):
        image = random.integers(90, 110, [200, 200, 3], np.uint8)
        image[20:60, 120:180] = 250  # at the transposed boxes
        box = (np.array([120, 20, 180, 60]) + np.tile(random.uniform(-spread, spread, 2), 2)) / 200
        record = Record(jpeg(image), 200, 200, f"{index}.jpg", str(index), boxes_norm=[box], classes=[1])
        records.append(record)
    assert "boxes_swapped" not in codes(check_records(tmp_path, records, label_map=None))


def test_swapped_boxes_are_detected_from_enough_places(clean):
    """Squares of 24 pixels, one per image, on a grid: 16 places are enough, 14 are not."""
    random = np.random.default_rng(1)
    cells = [(y, x) for y in range(8) for x in range(8) if abs(y - x) > 2]
    for number, layout in ((16, "boxes_swapped"), (14, None)):
        images, boxes = [], []
        for y, x in cells[:number] * 3:
            image = random.integers(90, 110, [200, 200, 3], np.uint8)
            image[25 * y : 25 * y + 24, 25 * x : 25 * x + 24] = 220 + random.integers(0, 30)
            images.append(image)
            boxes.append(np.array([[25 * x, 25 * y, 25 * x + 24, 25 * y + 24]]) / 200)
        assert find_swap(images, boxes) == layout


def test_gains_by_hand():
    # A black square of 20 pixels, box [20, 60, 40, 80], on white: all four sides have full contrast.
    image = np.full([100, 100, 3], 255, np.uint8)
    image[20:40, 60:80] = 0
    [[stored, swapped, in_pixels]] = swap_evidence.gains(image, np.array([[0.2, 0.6, 0.4, 0.8]]))
    # Shifted by half a side: one side is in black and one in white, both without contrast; the inner strips of the two
    # others are black along half their length: 255 / 2. Mean 63.75; unshifted 255.
    assert stored == pytest.approx(255 - 63.75)
    assert swapped == in_pixels == 0  # white everywhere
    assert np.isnan(swap_evidence.gains(image, np.array([[0.2, 0.2, 0.4, 0.4]]))).all()  # equal to its transposed box


# --- Unreadable records and files.


def faulty(clean, change):
    example = tf.train.Example.FromString(tfrecord.encode(clean[0][0]))
    change(example.features.feature)
    return example.SerializeToString()


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda f: f["image/object/bbox/xmax"].float_list.value.pop(), "have columns that differ in length"),
        (lambda f: f.pop("image/object/class/label"), "0 class/label"),
        (lambda f: f.pop("image/encoded"), "hold no image in image/encoded"),
        (
            lambda f: f["image/object/class/label"].float_list.value.extend([1.0]),
            "image/object/class/label has floats, expected whole numbers",
        ),
        (
            lambda f: f["image/object/area"].int64_list.value.append(1),
            "image/object/area has whole numbers, expected floats",
        ),
        (lambda f: f["image/height"].int64_list.value.append(3), "2 values in image/height"),
    ],
)
def test_faulty_records_are_reported_and_the_others_read(tmp_path, clean, change, words):
    serialized = [tfrecord.encode(record) for record in clean[0]]
    pattern = write(tmp_path / "x.tfrecord", [*serialized[1:], faulty(clean, change)])
    facts = record_facts.read(pattern)
    assert (len(facts.records), len(facts.faulty)) == (23, 1)
    [finding] = check(pattern, config())
    assert finding.code == "faulty_records" and finding.level == "fatal"
    assert words in finding.text and "x.tfrecord record 23" in finding.text


def png_with(chunk, data):
    """Returns a PNG of 30x20 pixels with an additional chunk."""
    with io.BytesIO() as file:
        Image.new("RGB", (30, 20)).save(file, "PNG")
        content = file.getvalue()
    body = chunk + data
    added = struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    return content[:33] + added + content[33:]  # behind IHDR


def test_an_image_that_only_tensorflow_decodes_is_accepted(tmp_path, clean):
    encoded = png_with(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2_000_000))
    with pytest.raises(ValueError, match="too large"), Image.open(io.BytesIO(encoded)) as image:
        image.load()
    record = dataclasses.replace(clean[0][0], encoded=encoded, height=20, width=30)
    pattern = write(tmp_path / "x.tfrecord", [tfrecord.encode(record)])
    for decode_images in (False, True):
        facts = record_facts.read(pattern, decode_images=decode_images)
        assert [record.size for record in facts.records] == [(20, 30)]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP"])
def test_headers_have_the_size_and_truncated_ones_are_faults(tmp_path, clean, image_format):
    with io.BytesIO() as file:
        Image.new("RGB", (30, 20)).save(file, image_format)
        content = file.getvalue()
    serialized = [
        tfrecord.encode(dataclasses.replace(clean[0][0], encoded=encoded)) for encoded in (content, content[:15])
    ]
    facts = record_facts.read(write(tmp_path / "x.tfrecord", serialized), decode_images=False)
    assert [record.size for record in facts.records] == [(20, 30)]
    assert [record.fault for record in facts.faulty] == ["hold an image that does not decode"]
    no_size = content[:16] + bytes(8) + content[24:]
    if image_format == "PNG":
        pattern = write(tmp_path / "x.tfrecord", [tfrecord.encode(dataclasses.replace(clean[0][0], encoded=no_size))])
        assert record_facts.read(pattern, decode_images=False).faulty[0].detail == "its header states 0x0"


def test_an_absent_source_id_is_replaced_as_in_the_reader(tmp_path, clean):
    serialized = tfrecord.encode(dataclasses.replace(clean[0][0], source_id=""))
    [record] = record_facts.read(write(tmp_path / "x.tfrecord", [serialized])).records
    assert record.source_id == tfrecord.parse(serialized)["source_id"].numpy().decode()


def test_a_record_that_is_no_example_is_reported(tmp_path, clean):
    pattern = write(tmp_path / "x.tfrecord", [*map(tfrecord.encode, clean[0]), b"\xff\xff\xff"])
    [finding] = check(pattern, config())
    assert "1 of 25 records (4.0%) hold no tf.train.Example (x.tfrecord record 24" in finding.text


def test_columns_that_training_does_not_read_are_a_warning(tmp_path, clean):
    def change(features):
        features["image/object/class/text"].bytes_list.value.append(b"circle")

    serialized = [tfrecord.encode(record) for record in clean[0]]
    [finding] = check(write(tmp_path / "x.tfrecord", [*serialized[1:], faulty(clean, change)]), config())
    assert (finding.level, finding.code) == ("warning", "unread_columns") and "class/text" in finding.text


@pytest.mark.parametrize("fault", ["truncated", "flipped byte", "no TFRecord"])
def test_a_damaged_file_is_reported_and_the_rest_read(tmp_path, clean, fault):
    serialized = [tfrecord.encode(record) for record in clean[0]]
    for part in range(3):
        write(tmp_path / f"{part}.tfrecord", serialized[part * 8 : part * 8 + 8])
    path = tmp_path / "1.tfrecord"
    content = bytearray(path.read_bytes())
    place = sum(len(record) + 16 for record in serialized[8:11]) + 500  # in record 3
    if fault == "truncated":
        path.write_bytes(content[:place])
    elif fault == "flipped byte":
        content[place] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(b"<html>not found</html>" * 1000)
    facts = record_facts.read(str(tmp_path / "*.tfrecord"))
    damaged, readable = {"truncated": (3, 3), "flipped byte": (3, 7), "no TFRecord": (0, 0)}[fault]
    assert facts.num_records == 16 + readable
    findings = check(str(tmp_path / "*.tfrecord"), config())
    assert "damaged_files" in codes(findings) <= {"damaged_files", "unseen_classes"}
    assert f"record {damaged} of {path}: " in findings[0].text
    assert fault != "no TFRecord" or "the file is XML or HTML, not a TFRecord file" in findings[0].text
    assert findings[0].level == ("fatal" if facts.lost_share > 0.01 else "warning")


def test_a_folder_among_the_files_is_an_error(tmp_path):
    (tmp_path / "old").mkdir()
    with pytest.raises(DataError, match=r"^cannot use the records: .*old"):
        checks.quick(str(tmp_path / "*"), config())


def test_no_files_no_records_and_only_faulty_records(tmp_path):
    with pytest.raises(DataError, match="no file matches"):
        record_facts.read(str(tmp_path / "*"))
    [finding] = check(write(tmp_path / "empty.tfrecord", []), config(label_map=None))
    assert (finding.level, finding.code) == ("fatal", "no_records")
    [finding] = check(write(tmp_path / "bad.tfrecord", [b"\xff"]), config(label_map=None))
    assert (finding.level, finding.code) == ("fatal", "faulty_records")


def test_samples_are_spread_over_the_files(tmp_path, clean):
    for part in range(8):
        write(tmp_path / f"{part}.tfrecord", map(tfrecord.encode, clean[0][part * 3 : part * 3 + 3]))
    facts = record_facts.read(str(tmp_path / "*"), samples=8, decode_images=False)
    assert [record.source_id for record in facts.records] == [str(1 + 3 * part) for part in range(8)]
    facts = record_facts.read(str(tmp_path / "*"), samples=4)
    assert {record.where.split()[0] for record in facts.records} == {f"{part}.tfrecord" for part in (0, 2, 4, 7)}
    assert not facts.complete
    assert not record_facts.read(str(tmp_path / "0.*"), samples=3).complete
    assert record_facts.read(str(tmp_path / "0.*"), samples=4).complete  # there are 3
