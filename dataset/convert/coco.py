# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The reader of COCO annotations; image ids are kept, and category ids unless they are to be numbered from 1."""

import collections
import functools
import math
import reprlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dataset import coco_json
from dataset import label_map as label_map_lib
from dataset.coco_json import CocoFile
from dataset.convert.annotation import ROTATED, AnnotatedObject, Annotation, Source, enclose_rotated
from dataset.convert.conversion_report import ConversionReport
from dataset.convert.image_file import ImageError
from dataset.convert.image_folder import ImageFolder
from dataset.files import check_local
from dataset.tfrecord import DataError
from efficientdet import config as config_lib


def load(
    image_dir: str | Path,
    *,
    image_info_file: str | Path = "",
    object_annotations_file: str | Path = "",
    caption_annotations_file: str | Path = "",
    consecutive_ids: bool = False,
) -> Source:
    """Reads COCO files, at least one; the first one in the order of the arguments provides the list of images.

    Args:
        consecutive_ids: numbers the categories from 1 in the order of their ids, see `_number_categories`; the source
            then writes groundtruth with these ids. It also does so if boxes are rotated.

    Raises:
        DataError: if no file is given, one cannot be read or lacks a list, an id is invalid, not unique or too large, a
            name is empty or not unique, or the folder of the images does not exist.
    """
    given = [path for path in (image_info_file, object_annotations_file, caption_annotations_file) if path]
    if not given:
        raise DataError(
            "all annotation files are missing; give object_annotations_file, caption_annotations_file "
            "or image_info_file"
        )
    check_local(image_dir, "image_dir")
    if not Path(image_dir).is_dir():
        raise DataError(f"image_dir {str(image_dir)!r} is not a folder")
    files = {path: coco_json.read(path) for path in given}
    images, report = files[given[0]].images("file_name"), ConversionReport()
    names = [image["file_name"] for image in images.values() if coco_json.is_text(image["file_name"])]
    report.note_duplicates("file names with several image ids, written once per id", names)
    objects, class_ids, label_map = {}, {}, {}
    if object_annotations_file:
        file = files[object_annotations_file]
        categories = _read_categories(file)
        class_ids = _number_categories(file, categories, consecutive_ids, report)
        label_map = _name_classes(categories, class_ids)
        # image_info_file may list a subset of the images.
        objects = _read_objects(file, images, class_ids, report, is_subset=bool(image_info_file))
    captions = _read_captions(files[caption_annotations_file], images, report) if caption_annotations_file else {}
    items = [(image, objects.get(image_id, []), captions.get(image_id, [])) for image_id, image in images.items()]
    folder = ImageFolder(image_dir, names)
    read = functools.partial(_read_annotation, folder=folder, class_ids=class_ids, label_map=label_map)
    original_ids = {class_id: category for category, class_id in class_ids.items()} if consecutive_ids else {}
    is_renumbered = consecutive_ids and bool(object_annotations_file)
    is_rotated = any(_rotation(row) for rows in objects.values() for row in rows)
    return Source(
        items, read, label_map, report, write_groundtruth=is_renumbered or is_rotated, original_ids=original_ids
    )


def _read_categories(file: CocoFile) -> dict[int, dict[str, Any]]:
    """Returns {category id: row}; every category has a name."""
    categories = file.categories("name")
    for i, category in enumerate(categories.values()):
        if not coco_json.is_text(category["name"]):
            shown = reprlib.repr(category["name"])
            raise DataError(f"{file.path}: expected a name as text in categories[{i}], got {shown}")
    return categories


def _number_categories(
    file: CocoFile, categories: Mapping[int, Mapping[str, Any]], consecutive_ids: bool, report: ConversionReport
) -> dict[int, int]:
    """Returns {category id: class id}, class ids from 1; categories that stand for the background are left out.

    With consecutive_ids, class ids are 1, 2, ... in the order of the category ids, without category 0 if it is called
    background, or is the supercategory of another one and has no box. Otherwise, they are the category ids.

    Raises:
        DataError: if class ids would be too large for num_classes.
    """
    if not consecutive_ids:
        ids = sorted(categories.keys() - {0})
        if ids and ids[-1] > config_lib.MAX_NUM_CLASSES:
            advice = config_lib.num_classes_advice(ids[-1])
            raise DataError(f"{file.path}: category ids go up to {ids[-1]}; {advice}")
        return {category: category for category in ids}
    reason = _find_background(file, categories)
    if reason:
        report.note(f"category 0 left out: {reason}", categories[0]["name"])
    ids = sorted(categories.keys() - ({0} if reason else set()))
    class_ids = {category: class_id for class_id, category in enumerate(ids, start=1)}
    for category, class_id in class_ids.items():
        if category != class_id:
            name = categories[category]["name"]
            report.note("categories renumbered, see the label map", f"{category} {name} is {class_id}")
    return class_ids


def _find_background(file: CocoFile, categories: Mapping[int, Mapping[str, Any]]) -> str | None:
    """Returns the reason why category 0 is no class, or None if it is one or does not exist."""
    if 0 not in categories:
        return None
    name = categories[0]["name"]
    if label_map_lib.is_background(name):
        return "it is the background"
    parents = [row.get("supercategory") for category, row in categories.items() if category]
    if name in parents and 0 not in file.annotated_categories():
        return "it is the supercategory of others, and has no box"
    return None


def _name_classes(categories: Mapping[int, Mapping[str, Any]], class_ids: Mapping[int, int]) -> dict[int, str]:
    try:
        return label_map_lib.resolve(
            {class_id: categories[category]["name"] for category, class_id in class_ids.items()}
        )
    except label_map_lib.LabelMapError as error:
        raise DataError(f"categories: {error}; give each class a unique name") from error


def _read_objects(
    file: CocoFile,
    images: Mapping[int, Mapping[str, Any]],
    categories: Collection[int],
    report: ConversionReport,
    *,
    is_subset: bool,
) -> dict[int, list[dict[str, Any]]]:
    """Returns the annotations that can be used, by image id; is_subset: annotations of other images are expected."""
    rows, left_out, repeated = file.annotations(images, categories)
    for reason, labels in left_out.items():
        for label in labels:
            if reason == coco_json.UNLISTED_IMAGE and is_subset:
                report.note(reason, label)
            else:
                report.leave_out("boxes", reason, label)
    for label in repeated:
        report.note("annotations with the id of another one, written", label)
    objects = collections.defaultdict(list)
    for row in rows:
        objects[row["image_id"]].append(row)
    return objects


def _read_captions(file: CocoFile, images: Collection[int], report: ConversionReport) -> dict[int, list[str]]:
    rows, left_out, _ = file.captions(images)
    for reason, labels in left_out.items():
        for label in labels:
            report.note(reason, label)
    captions = collections.defaultdict(list)
    for row in rows:
        captions[row["image_id"]].append(row["caption"])
    return captions


def _read_annotation(
    item: tuple[dict, list[dict], list[str]],
    report: ConversionReport,
    *,
    folder: ImageFolder,
    class_ids: Mapping[int, int],
    label_map: Mapping[int, str],
) -> Annotation:
    """Reads (image, its object annotations, its captions)."""
    image, rows, captions = item
    name, size = image["file_name"], [image.get(side) or 0 for side in ("height", "width")]
    if not coco_json.is_text(name):
        raise ImageError("file name is not a string", f"expected a file name for image {image['id']}, got {name!r}")
    if not all(coco_json.is_number(side) for side in size):
        shown = reprlib.repr(size)
        raise ImageError("size is not a number", f"{name}: expected numbers as height and width, got {shown}")
    objects = []
    for row in rows:
        (x, y, width, height), class_id = row["bbox"], class_ids[row["category_id"]]
        box = (x, y, x + width, y + height)
        if angle := _rotation(row):
            box = enclose_rotated(box, angle)
            report.note(ROTATED, f"{coco_json.label(row)} of {name}")
        objects.append(
            AnnotatedObject(
                box=box,
                class_id=class_id,
                class_name=label_map[class_id],
                label=coco_json.label(row),
                is_crowd=int(row.get("iscrowd", 0)),
                area=row.get("area"),
                segmentation=row.get("segmentation") or None,
            )
        )
    path, size = folder.find(name, report), tuple(size) if all(size) else None
    return Annotation(path, name, str(image["id"]), size, objects, captions=captions)


def _rotation(row: Mapping[str, Any]) -> float:
    """Returns the degrees by which CVAT turns a box around its centre."""
    attributes = row.get("attributes")
    angle = attributes.get("rotation") if isinstance(attributes, dict) else None
    return angle if coco_json.is_number(angle) and math.isfinite(angle) else 0
