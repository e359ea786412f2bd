# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Comparison of records with the COCO groundtruth file used for AP: image ids, boxes and class ids."""

import collections
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import NamedTuple

import numpy as np

from dataset import coco_json
from dataset.check import box_layouts
from dataset.check.box_layouts import Layout
from dataset.check.finding import FATAL, NOTE, WARNING, Finding, format_count, format_names
from dataset.check.record_facts import Facts, RecordFacts
from dataset.coco_json import Groundtruth
from dataset.convert.annotation import CORNERS_HINT, CROWDS_HINT, MAX_CROWDS
from dataset.label_map import is_background
from efficientdet import boxes as box_ops

MAX_LEFT_OUT = 0.1  # share of the file's annotations that cannot be used; above, AP is meaningless
MAX_IMAGES = 2000  # whose boxes are compared
MAX_REPAIRED_IMAGES = 200  # whose boxes are compared after a repair
MIN_IOU = 0.5  # of equal boxes
AGREEMENT, DISAGREEMENT = 0.95, 0.5  # share of the JSON's boxes that are in the records
MIN_EXPLAINED = 0.8  # share of the JSON's boxes that must be in the records after a repair
MAX_OTHER_CLASS = 0.1  # share of matched boxes with another class; above, AP is meaningless


class JsonImage(NamedTuple):
    """One image of a groundtruth file, without crowds."""

    file_name: str
    size: tuple[int, int] | None  # (height, width), pixels; None if absent
    boxes: np.ndarray  # [K, 4], [ymin, xmin, ymax, xmax] in pixels, if the layout is correct
    classes: np.ndarray  # [K]


class GroundtruthFile(NamedTuple):
    """Content of a groundtruth file in COCO's format."""

    path: str
    names: dict[int, str]  # by category id; includes 0 if that is a class with boxes
    images: dict[int, JsonImage]  # by image id
    counts: dict[str, int]  # see `Groundtruth.counts`
    findings: list[Finding]  # of `check_rows`

    @property
    def has_names(self) -> bool:
        """True if the file names classes with ids from 1, as in records."""
        return min(self.names, default=0) > 0

    def image_of(self, record: RecordFacts) -> JsonImage | None:
        """Returns the image of a record, or None if the file lacks it."""
        return self.images.get(coco_json.parse_id(record.source_id))


Pairs = list[tuple[RecordFacts, JsonImage]]  # images that the records and the JSON have in common


def load(path: str) -> GroundtruthFile:
    """Reads a groundtruth file.

    Raises:
        DataError: if it cannot be read, or is not groundtruth in COCO's format.
    """
    groundtruth = coco_json.load(path)
    rows = collections.defaultdict(list)
    for row in groundtruth.annotations.rows:
        if not row.get("iscrowd"):
            xmin, ymin, width, height = row["bbox"]
            rows[row["image_id"]].append((ymin, xmin, height, width, row["category_id"]))
    images = {}
    for image_id, image in groundtruth.images.items():
        columns = np.array(rows[image_id], np.float64).reshape(-1, 5)
        size = [image.get(side) for side in ("height", "width")]
        has_size = all(coco_json.is_number(side) and 0 < side < 2**31 for side in size)
        images[image_id] = JsonImage(
            file_name=str(image.get("file_name", "")),
            size=tuple(map(int, size)) if has_size else None,
            boxes=np.hstack([columns[:, :2], columns[:, :2] + columns[:, 2:4]]),
            classes=columns[:, 4].astype(int),
        )
    # Category 0 is a class if it has boxes and is not called background; all ids may be one too low then.
    has_boxes = coco_json.BACKGROUND in groundtruth.annotations.left_out
    names = {
        category: name
        for category, name in groundtruth.names.items()
        if category or (has_boxes and not is_background(name))
    }
    return GroundtruthFile(path, names, images, groundtruth.counts(), check_rows(groundtruth))


def check_rows(groundtruth: Groundtruth) -> list[Finding]:
    """Checks that AP can use the annotations of a file: findings about boxes that are left out, repeated or crowds."""
    path, (rows, left_out, repeated) = groundtruth.path, groundtruth.annotations
    total = len(rows) + sum(map(len, left_out.values()))
    if not total:
        return [
            Finding(FATAL, "json_no_boxes", f"{path} has no boxes; give a file with the groundtruth of these records")
        ]
    findings = []
    background = {reason: labels for reason, labels in left_out.items() if reason == coco_json.BACKGROUND}
    others = {reason: labels for reason, labels in left_out.items() if reason != coco_json.BACKGROUND}
    for code, reasons in ("json_category_0", background), ("json_left_out", others):
        number = sum(map(len, reasons.values()))
        # A file may list a subset of the images that it annotates.
        wrong = number - len(reasons.get(coco_json.UNLISTED_IMAGE, []))
        shown = [f"{reason}: {len(labels)} ({format_names(labels)})" for reason, labels in reasons.items()]
        text = f"AP leaves out {format_count(number, total, 'annotations')} of {path}: {format_names(shown)}"
        if number:
            findings.append(Finding(FATAL if wrong > MAX_LEFT_OUT * total or not rows else WARNING, code, text))
    if repeated:
        text = (
            f"{format_count(len(repeated), total, 'annotations')} of {path} have the id of another one "
            f"({format_names(repeated)}): are boxes in it twice, or were two files merged?"
        )
        findings.append(Finding(WARNING, "json_repeated_ids", text))
    return [*findings, *_check_crowds(groundtruth)]


def _check_crowds(groundtruth: Groundtruth) -> Iterator[Finding]:
    """Checks that few boxes of a file are crowds, and that each of its classes has others."""
    path, rows, names = groundtruth.path, groundtruth.annotations.rows, groundtruth.names
    boxes = collections.Counter(row["category_id"] for row in rows)
    crowds = collections.Counter(row["category_id"] for row in rows if row.get("iscrowd"))
    if crowds.total() > MAX_CROWDS * len(rows):
        text = (
            f"{format_count(crowds.total(), len(rows), 'boxes')} of {path} are crowds (iscrowd: 1), which AP ignores; "
            f"{CROWDS_HINT} (training leaves crowds out, too, unless skip_crowd_during_training=false)"
        )
        yield Finding(FATAL if crowds == boxes else WARNING, "json_crowds", text)
    unused = [f"{category} {names[category]!r}" for category in sorted(crowds) if crowds[category] == boxes[category]]
    if unused and crowds != boxes:
        text = f"all boxes of category {format_names(unused)} of {path} are crowds, which AP ignores; {CROWDS_HINT}"
        yield Finding(WARNING, "json_unused_classes", text)


def check_image_ids(facts: Facts, groundtruth: GroundtruthFile, regenerate_source_id: bool) -> Iterator[Finding]:
    """Checks that the file contains the images of the records; regenerate_source_id as in the Config."""
    path, total = groundtruth.path, len(facts.records)
    unknown = [record.source_id for record in facts.records if not groundtruth.image_of(record)]
    if unknown:
        text = (
            f"{format_count(len(unknown), total, 'records')} have an image id that {path} lacks "
            f"({format_names(unknown)}), at which evaluation stops: give the file that belongs to these records"
        )
        if len(unknown) == total:
            text = _explain_ids(facts, groundtruth, regenerate_source_id)
        yield Finding(FATAL, "json_image_ids", text)
        return
    sizes = [len(groundtruth.image_of(record).boxes) for record in facts.records]
    if sizes and not any(sizes) and any(len(image.boxes) for image in groundtruth.images.values()):
        sample = "images of the records" if facts.complete else f"{len(sizes)} sampled images"
        text = f"none of the {sample} has a box in {path} that AP can use; give the file that belongs to these records"
        yield Finding(FATAL if facts.complete else WARNING, "json_no_boxes", text)
    elif facts.complete and len(groundtruth.images) > total:
        text = f"the records contain {total} of the {len(groundtruth.images)} images of {path}; AP is of these"
        yield Finding(NOTE, "json_more_images", text)


def _explain_ids(facts: Facts, groundtruth: GroundtruthFile, regenerate_source_id: bool) -> str:
    """Returns the message for records without any image id of the file."""
    ids = [record.source_id for record in facts.records]
    start = (
        f"none of {len(ids)} records has an image id of {groundtruth.path} (records: {format_names(ids)}; file: "
        f"{format_names(list(groundtruth.images))})"
    )
    if regenerate_source_id:
        return f"{start}: with regenerate_source_id they are hashes of the images; leave it out"
    names = {PurePath(image.file_name).stem for image in groundtruth.images.values()} - {""}
    if not any(record.has_source_id for record in facts.records):
        return f"{start}: the records have no image/source_id; write the image ids of the file there"
    if sum(PurePath(record.filename).stem in names for record in facts.records) > len(ids) / 2:
        return f"{start}, though file names agree: write its image ids to image/source_id"
    return f"{start}: the JSON is of another split; give the one that was written with these records"


def check_boxes(facts: Facts, groundtruth: GroundtruthFile) -> tuple[list[Finding], bool]:
    """Compares boxes and classes of the images that both have.

    Returns:
        The findings, and True if most boxes agree, so that the layout of the records is correct.
    """
    pairs = [(record, groundtruth.image_of(record)) for record in facts.records]
    pairs = [(record, image) for record, image in pairs if image and len(image.boxes)][:MAX_IMAGES]
    if not pairs or not len(facts.boxes):
        return [], False
    share, classes = _match(pairs)
    findings = _check_far_outside(pairs, groundtruth)
    if share < DISAGREEMENT:
        return _explain_boxes(pairs, groundtruth) or findings or [_unexplained(pairs, groundtruth, share)], False
    if share < AGREEMENT:
        if findings:
            return findings, False
        text = (
            f"{1 - share:.0%} of the boxes of {groundtruth.path} are not in the records of their images: was one of "
            "the two changed after the other was written?"
        )
        findings = [Finding(WARNING, "json_boxes", text)]
    return [*findings, *_check_classes(classes, groundtruth)], True


def _check_far_outside(pairs: Pairs, groundtruth: GroundtruthFile) -> list[Finding]:
    """Checks that few boxes of the file are far outside their images."""
    boxes_norm = np.concatenate([image.boxes / np.tile(record.size, 2) for record, image in pairs])
    outside = box_layouts.are_far_outside(boxes_norm)
    if not box_layouts.are_many(outside):
        return []
    boxes = format_count(int(outside.sum()), len(outside), "boxes")
    text = f"{boxes} of {groundtruth.path} have more than a third of their area outside of their images: {CORNERS_HINT}"
    return [Finding(FATAL, "json_boxes_beyond", text)]


# Layouts of the file, by which the records are correct: (image, [height, width] * 2 of the record) -> boxes, pixels.
JSON_LAYOUTS = {
    "json_boxes_scaled": Layout(
        "boxes of the JSON are in pixels of images of another size than those in the records: AP compares pixels; "
        "write both from the same images",
        lambda image, size: image.boxes * (size / np.tile(image.size, 2) if image.size else 1),
    ),
    "json_boxes_as_corners": Layout(
        "bbox of the JSON holds [xmin, ymin, xmax, ymax]; write [xmin, ymin, width, height]",
        lambda image, size: np.hstack([image.boxes[:, :2], image.boxes[:, 2:] - image.boxes[:, :2]]),
    ),
    "json_boxes_from_centers": Layout(
        "bbox of the JSON holds centers, width and height; write [xmin, ymin, width, height]",
        lambda image, size: image.boxes - np.tile((image.boxes[:, 2:] - image.boxes[:, :2]) / 2, 2),
    ),
    "json_boxes_normalized": Layout(
        "bbox of the JSON holds fractions of the image; write pixels",
        lambda image, size: image.boxes * size,
    ),
    "json_boxes_mirrored": Layout(
        "boxes of the JSON are those of the records mirrored left to right: the images of one of the two were flipped; "
        "write both from the same images",
        lambda image, size: image.boxes[:, [0, 3, 2, 1]] * [1, -1, 1, -1] + size * [0, 1, 0, 1],
    ),
}


def _explain_boxes(pairs: Pairs, groundtruth: GroundtruthFile) -> list[Finding]:
    """Returns a finding if a wrong layout of the records or of the file explains the difference between their boxes."""
    tried = pairs[:: -(-len(pairs) // MAX_REPAIRED_IMAGES)]
    boxes = np.concatenate([record.boxes for record, _ in tried])
    sizes = np.concatenate([np.tile(record.size, [len(record.boxes), 1]) for record, _ in tried])
    # Repairs of the records are tried if their values allow it: sides instead of corners in the records, and corners
    # instead of sides in the file, both explain the same difference.
    possible = sorted({*box_layouts.SWAPS, box_layouts.from_values(boxes, sizes)} - {None})
    shares = {code: _match(tried, record_repair=box_layouts.LAYOUTS[code].repair)[0] for code in possible}
    shares |= {code: _match(tried, json_repair=layout.repair)[0] for code, layout in JSON_LAYOUTS.items()}
    best = max(shares, key=shares.get)
    if shares[best] < MIN_EXPLAINED:
        return []
    text = {**box_layouts.LAYOUTS, **JSON_LAYOUTS}[best].text
    return [Finding(FATAL, best, f"{text} ({shares[best]:.0%} of the boxes of {groundtruth.path} then agree)")]


def _unexplained(pairs: Pairs, groundtruth: GroundtruthFile, share: float) -> Finding:
    """Returns the finding for boxes that no layout explains: other images or other boxes, judged by file names."""
    text = f"image ids agree, but only {share:.0%} of the boxes of {groundtruth.path} are in the records"
    named = [(record, image) for record, image in pairs if record.filename and image.file_name]
    for record, image in named:
        if PurePath(record.filename).stem != PurePath(image.file_name).stem:
            text += f" (image {record.source_id} is {image.file_name} there and {record.filename} here)"
            return Finding(FATAL, "json_other_split", f"{text}: the JSON is of another split with the same ids")
    if named:
        text += ", though file names agree: were images or boxes of one of the two rotated, cropped, scaled or changed?"
        return Finding(FATAL, "json_other_boxes", f"{text} Write both from the same data")
    text += ", and there are no file names to compare: is the JSON of another split?"
    return Finding(FATAL, "json_other_split", text)


def _match(
    pairs: Pairs,
    record_repair: Callable = lambda boxes, size: boxes * size,
    json_repair: Callable = lambda image, size: image.boxes,
) -> tuple[float, np.ndarray]:
    """Matches the boxes of the file with those of the records, after repairs: see `box_layouts` and JSON_LAYOUTS.

    Returns:
        Share of the file's boxes that are in the records, and the classes [P, 2] (record, file) of these.
    """
    total, classes = 0, [np.empty([0, 2], int)]
    for record, image in pairs:
        total += len(image.boxes)
        size = np.tile(record.size, 2)
        boxes = record_repair(record.boxes, size)
        finite = np.isfinite(boxes).all(1)
        boxes, record_classes = boxes[finite], record.classes[finite]
        if not len(boxes):
            continue
        ious = box_ops.numpy_iou(json_repair(image, size)[:, np.newaxis], boxes)
        # Of equal boxes of several classes, the one of the same class.
        best = (ious + 1e-6 * (image.classes[:, np.newaxis] == record_classes)).argmax(1)
        matched = ious[np.arange(len(ious)), best] >= MIN_IOU
        classes.append(np.stack([record_classes[best], image.classes], -1)[matched])
    classes = np.concatenate(classes)
    return len(classes) / max(total, 1), classes


def _check_classes(classes: np.ndarray, groundtruth: GroundtruthFile) -> list[Finding]:
    """Checks that matched boxes have equal classes; [P, 2] (record, file)."""
    different = classes[classes[:, 0] != classes[:, 1]]
    if not len(different):
        return []
    [(shift, boxes)] = collections.Counter((classes[:, 1] - classes[:, 0]).tolist()).most_common(1)
    if abs(shift) == 1 and boxes >= AGREEMENT * len(classes):
        low, high = "class ids of the records", "those of the JSON"
        if shift < 0:
            low, high = "category ids of the JSON", "those of the records"
        text = f"{low} are one too low: {boxes} of {len(classes)} boxes have an id one below {high}; write both from 1"
        return [Finding(FATAL, "json_class_ids", text)]

    named = {class_id: f"{class_id} ({name})" for class_id, name in groundtruth.names.items() if name}
    common = collections.Counter(map(tuple, different.tolist())).most_common()
    examples = [f"{a} in the records is {named.get(b, b)} there, {boxes} times" for (a, b), boxes in common]
    text = (
        f"{format_count(len(different), len(classes), 'boxes')} have another class in {groundtruth.path}: "
        f"{format_names(examples)}; write both with the same label map"
    )
    level = FATAL if len(different) > MAX_OTHER_CLASS * len(classes) else WARNING
    return [Finding(level, "json_class_ids", text)]
