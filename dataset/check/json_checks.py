# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Holds records against the groundtruth file that AP is computed with: image ids, boxes, class ids."""

import collections
import dataclasses
import json
from collections.abc import Callable
from pathlib import PurePath
from typing import NamedTuple

import numpy as np

from dataset.check import box_layouts
from dataset.check.finding import FATAL, NOTE, WARNING, Finding, by_share, count, first
from dataset.check.record_facts import Facts, RecordFacts
from dataset.convert.conversion_report import CORNERS
from dataset.files import reason_of
from dataset.tfrecord import DataError
from efficientdet import boxes as box_ops

MAX_IMAGES = 2000  # whose boxes are compared
MAX_TRIED = 200  # images with which other layouts are tried
SAME_IOU = 0.5
AGREES, DISAGREES = 0.95, 0.5  # share of the boxes found in the records
EXPLAINS = 0.8  # share that a layout has to explain
SWAPS = ("boxes_swapped", "boxes_swapped_in_pixels")  # which no values exclude
MIXED = 0.1  # share of boxes with another class; above, AP means nothing


class JsonImage(NamedTuple):
    """One image of the file; crowds are left out."""

    file_name: str
    size: tuple[int, int] | None  # (height, width), pixels; None where the file does not say
    bboxes: np.ndarray  # [K, 4], [xmin, ymin, width, height] in pixels, if all is well
    classes: np.ndarray  # [K]


@dataclasses.dataclass(frozen=True)
class Groundtruth:
    """A groundtruth file in COCO's format."""

    path: str
    names: dict[int, str]
    images: dict[str, JsonImage]  # by image id, as text


def load(path: str) -> Groundtruth:
    """Reads the file.

    Raises:
        DataError: if it is not groundtruth in COCO's format.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {reason_of(error)}") from error
    except RecursionError:
        raise DataError(f"cannot read {path}: its brackets are nested too deep for groundtruth") from None
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing:
        raise DataError(f"{path} has no {' and no '.join(missing)}: give a file such as instances_val2017.json")
    try:
        rows = collections.defaultdict(list)
        for row in content["annotations"]:
            if not row.get("iscrowd"):
                xmin, ymin, width, height = row["bbox"]
                rows[str(row["image_id"])].append((xmin, ymin, width, height, row["category_id"]))
        images = {}
        for image in content["images"]:
            columns = np.array(rows[str(image["id"])], np.float64).reshape(-1, 5)
            if not np.isfinite(columns).all():
                raise ValueError(f"a bbox or category_id of image {image['id']} is not a number")
            size = [int(image.get(side) or 0) for side in ("height", "width")]
            images[str(image["id"])] = JsonImage(
                str(image.get("file_name", "")),
                tuple(size) if all(size) else None,
                columns[:, :4],
                columns[:, 4].astype(int),
            )
        names = {int(category["id"]): str(category.get("name", "")) for category in content["categories"]}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path} is not groundtruth in COCO's format ({reason}); write it again") from error
    return Groundtruth(path, {i: name for i, name in names.items() if i or name.lower() != "background"}, images)


def check_image_ids(facts: Facts, groundtruth: Groundtruth, regenerate_source_id: bool) -> list[Finding]:
    """Whether the images of the records are those of the file; regenerate_source_id as in the Config."""
    path, records = groundtruth.path, facts.records
    known = [record for record in records if record.source_id in groundtruth.images]
    if not known and records:
        return [Finding(FATAL, "json_image_ids", _no_ids(facts, groundtruth, regenerate_source_id))]
    findings = []
    if len(known) < len(records):
        unknown = [record for record in records if record.source_id not in groundtruth.images]
        findings.append(
            Finding(
                FATAL,
                "json_image_ids",
                f"{count(len(unknown), len(records), 'records')} have an image id that {path} lacks "
                f"({first([record.source_id for record in unknown])}), where evaluation stops: give the file that "
                "belongs to these records",
            )
        )
    elif facts.complete and len(groundtruth.images) > len(records):
        text = f"the records hold {len(records)} of the {len(groundtruth.images)} images of {path}; AP is of these"
        findings.append(Finding(NOTE, "json_more_images", text))
    return findings


def _no_ids(facts: Facts, groundtruth: Groundtruth, regenerate_source_id: bool) -> str:
    ids = [record.source_id for record in facts.records]
    start = (
        f"none of {len(ids)} records has an image id of {groundtruth.path} (records: {first(ids)}; file: "
        f"{first(list(groundtruth.images))})"
    )
    if regenerate_source_id:
        return f"{start}: with regenerate_source_id they are hashes of the images; leave it out"
    names = {PurePath(image.file_name).stem for image in groundtruth.images.values()} - {""}
    if not any(record.has_source_id for record in facts.records):
        return f"{start}: the records have no image/source_id; write the image ids of the file there"
    if sum(PurePath(record.filename).stem in names for record in facts.records) > len(ids) / 2:
        return f"{start}, though file names agree: write its image ids to image/source_id, without zeros before them"
    return f"{start}: the JSON is of another split; give the one that was written with these records"


def check_boxes(facts: Facts, groundtruth: Groundtruth) -> tuple[list[Finding], bool]:
    """Whether boxes and classes of the records are those of the file, on the images that both have.

    Returns:
        The findings, and whether most boxes agree, so that the layout of the records is beyond doubt.
    """
    common = [(record, groundtruth.images.get(record.source_id)) for record in facts.records]
    common = [(record, image) for record, image in common if image and len(image.bboxes)][:MAX_IMAGES]
    if not common or not len(facts.boxes):
        return [], False
    share, pairs = _compare(common, _stored, _corners)
    far_out = _check_far_out(common, groundtruth)
    if share >= AGREES:
        return far_out + _check_classes(pairs, groundtruth), True
    if share < DISAGREES:
        explained = _explain(common, groundtruth)
        return [explained] if explained else far_out or [_tell_apart(common, groundtruth, share)], False
    if far_out:
        return far_out, False
    text = (
        f"{1 - share:.0%} of the boxes of {groundtruth.path} are not in the records of their images: was one of the "
        "two changed after the other was written?"
    )
    return [Finding(WARNING, "json_boxes", text), *_check_classes(pairs, groundtruth)], True


RecordLayout = Callable[[RecordFacts], np.ndarray]  # -> [K, 4], pixels of the image
JsonLayout = Callable[[JsonImage, RecordFacts], np.ndarray]


def _stored(record: RecordFacts) -> np.ndarray:
    return record.boxes * np.tile(record.size, 2)


def _corners(image: JsonImage, record: RecordFacts) -> np.ndarray:
    xmin, ymin, width, height = image.bboxes.T
    return np.stack([ymin, xmin, ymin + height, xmin + width], -1)


def _scaled(image: JsonImage, record: RecordFacts) -> np.ndarray:
    return _corners(image, record) * np.tile(np.divide(record.size, image.size or record.size), 2)


# What may be wrong with the file instead of the records.
JSON_LAYOUTS: dict[str, tuple[str, JsonLayout]] = {
    "json_boxes_scaled": (
        "boxes of the JSON are in pixels of images of another size than those in the records: AP compares pixels; "
        "write both from the same images",
        _scaled,
    ),
    "json_boxes_as_corners": (
        "bbox of the JSON holds [xmin, ymin, xmax, ymax]; write [xmin, ymin, width, height]",
        lambda image, record: image.bboxes[:, [1, 0, 3, 2]],
    ),
    "json_boxes_from_centers": (
        "bbox of the JSON holds centers, width and height; write [xmin, ymin, width, height]",
        lambda image, record: _corners(image, record) - np.tile(image.bboxes[:, [3, 2]] / 2, 2),
    ),
    "json_boxes_normalized": (
        "bbox of the JSON holds fractions of the image; write pixels",
        lambda image, record: _corners(image, record) * np.tile(record.size, 2),
    ),
    "json_boxes_mirrored": (
        "boxes of the JSON are those of the records mirrored left to right: the images of one of the two were flipped; "
        "write both from the same images",
        lambda image, record: _corners(image, record)[:, [0, 3, 2, 1]] * [1, -1, 1, -1] + [0, record.size[1]] * 2,
    ),
}


def _check_far_out(common: list[tuple[RecordFacts, JsonImage]], groundtruth: Groundtruth) -> list[Finding]:
    """Whether many boxes of the file are to a large part outside of their images."""
    boxes_norm = [_corners(image, record) / np.tile(record.size, 2) for record, image in common]
    far_out = box_layouts.are_far_out(np.concatenate(boxes_norm))
    if not box_layouts.are_many(far_out):
        return []
    text = f"{count(int(far_out.sum()), len(far_out), 'boxes')} of {groundtruth.path} have more than a third of their "
    return [Finding(FATAL, "json_boxes_beyond", f"{text}area outside of their images: {CORNERS}")]


def _explain(common: list[tuple[RecordFacts, JsonImage]], groundtruth: Groundtruth) -> Finding | None:
    """Why boxes are elsewhere in the records than in the file, where another layout of one of the two explains it."""
    tried = common[:: -(-len(common) // MAX_TRIED)]
    boxes = np.concatenate([record.boxes for record, _ in tried])
    sizes = np.concatenate([np.tile(record.size, [len(record.boxes), 1]) for record, _ in tried])
    # Corners taken for sides here look like sides taken for corners there. The values of the records tell which.
    possible = {*SWAPS, box_layouts.from_values(boxes, sizes)} - {None}
    found = {}
    for code in sorted(possible):
        repair = box_layouts.LAYOUTS[code].repair
        found[code] = _compare(tried, lambda record, fix=repair: fix(record.boxes, np.tile(record.size, 2)), _corners)
    for code, (_, layout) in JSON_LAYOUTS.items():
        found[code] = _compare(tried, _stored, layout)
    best = max(found, key=lambda code: found[code][0])
    if found[best][0] >= EXPLAINS:
        text = box_layouts.LAYOUTS[best].text if best in box_layouts.LAYOUTS else JSON_LAYOUTS[best][0]
        return Finding(FATAL, best, f"{text} ({found[best][0]:.0%} of the boxes of {groundtruth.path} then agree)")
    return None


def _tell_apart(common: list[tuple[RecordFacts, JsonImage]], groundtruth: Groundtruth, share: float) -> Finding:
    """Whether boxes that nothing explains are of other images, by the names of the files."""
    text = f"image ids agree, but only {share:.0%} of the boxes of {groundtruth.path} are in the records"
    named = [(record, image) for record, image in common if record.filename and image.file_name]
    for record, image in named:
        if PurePath(record.filename).stem != PurePath(image.file_name).stem:
            text += f" (image {record.source_id} is {image.file_name} there and {record.filename} here)"
            return Finding(FATAL, "json_other_split", f"{text}: the JSON is of another split whose ids begin anew")
    if named:
        text += ", though file names agree: were images or boxes of one of the two turned, cut, scaled or marked anew?"
        return Finding(FATAL, "json_other_boxes", f"{text} Write both from the same data")
    text += ", and no file names tell whether these are the same images: is the JSON of another split?"
    return Finding(FATAL, "json_other_split", text)


def _compare(common, record_layout: RecordLayout, json_layout: JsonLayout) -> tuple[float, np.ndarray]:
    """Share of the file's boxes that are in the records, and the classes [P, 2] (record, file) of those that are."""
    total, pairs = 0, [np.empty([0, 2], int)]
    for record, image in common:
        total += len(image.bboxes)
        boxes = record_layout(record)
        finite = np.isfinite(boxes).all(1)
        boxes, classes = boxes[finite], record.classes[finite]
        if not len(boxes):
            continue
        ious = box_ops.pairwise_iou(json_layout(image, record), boxes).numpy()
        # Where objects of several classes share a box, the one of the right class.
        best = (ious + 1e-6 * (image.classes[:, np.newaxis] == classes)).argmax(1)
        same = ious[np.arange(len(ious)), best] >= SAME_IOU
        pairs.append(np.stack([classes[best], image.classes], -1)[same])
    pairs = np.concatenate(pairs)
    return len(pairs) / max(total, 1), pairs


def _check_classes(pairs: np.ndarray, groundtruth: Groundtruth) -> list[Finding]:
    """Whether matched boxes have the same class in the records as in the file."""
    different = pairs[pairs[:, 0] != pairs[:, 1]]
    if not len(different):
        return []
    shifts = collections.Counter((pairs[:, 1] - pairs[:, 0]).tolist())
    shift, boxes = shifts.most_common(1)[0]
    if abs(shift) == 1 and boxes >= AGREES * len(pairs):
        low, high = (
            ("class ids of the records", "the JSON's")
            if shift == 1
            else ("category ids of the JSON", "those of the records")
        )
        text = f"{low} are one too low: {boxes} of {len(pairs)} boxes have an id one below {high}; write both from 1"
        return [Finding(FATAL, "json_class_ids", text)]
    common = collections.Counter(map(tuple, different.tolist())).most_common()
    examples = first([f"{a} in the records is {_name(groundtruth, b)} there, {n} times" for (a, b), n in common])
    text = f"{count(len(different), len(pairs), 'boxes')} have another class in {groundtruth.path}: {examples}"
    text += "; write both with the same label map"
    return [Finding(by_share(len(different) / len(pairs), MIXED), "json_class_ids", text)]


def _name(groundtruth: Groundtruth, class_id: int) -> str:
    return f"{class_id} ({groundtruth.names[class_id]})" if groundtruth.names.get(class_id) else str(class_id)
