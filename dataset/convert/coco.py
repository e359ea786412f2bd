# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The reader of COCO annotations; image ids are kept, and category ids unless they are to be numbered from 1."""

import collections
import dataclasses
import functools
import math
import reprlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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

MAX_GAPS = 0.2  # fraction of ids without a category up to which `load_splits` keeps the ids; 0.11 in COCO


class CocoSplit(NamedTuple):
    """Annotation file and images of a split."""

    annotations: Path
    image_dir: Path


class Classes(NamedTuple):
    """Classes of a dataset."""

    ids: Mapping[int, int]  # {category id: class id}, class ids from 1
    names: Mapping[int, str]  # {class id: name}
    consecutive: bool  # class ids are 1, 2, ... instead of category ids


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
    files, report = {path: coco_json.read(path) for path in given}, ConversionReport()
    images, objects, captions = files[given[0]].images("file_name"), {}, {}
    classes = Classes({}, {}, consecutive=False)
    if object_annotations_file:
        file = files[object_annotations_file]
        classes = _number_categories([file], _read_categories(file), consecutive_ids, report)
        # image_info_file may list a subset of the images.
        objects = _read_objects(file, images, classes.ids, report, is_subset=bool(image_info_file))
    if caption_annotations_file:
        captions = _read_captions(files[caption_annotations_file], images, report)
    return _make_source(image_dir, images, objects, captions, classes=classes, report=report)


def load_splits(splits: Mapping[str, CocoSplit]) -> dict[str, Source]:
    """Reads the splits of a dataset, which get the same classes.

    The ids of the categories are kept if they count from 1 and at most MAX_GAPS of them are not used, as in COCO, whose
    80 categories have ids up to 90; otherwise they are numbered from 1 in the order of their ids. Category 0 is left
    out if it has no box. A split may lack some of the categories. Groundtruth is written for all splits but "train".

    Raises:
        DataError: see `load`; also if a category has different names, or a name different ids, in two splits.
    """
    files = {split: coco_json.read(place.annotations) for split, place in splits.items()}
    categories, unused = _unite_categories(list(files.values())), None
    if 0 in categories and not any(0 in file.annotated_categories() for file in files.values()):
        unused = categories.pop(0)  # such as Roboflow's group of the others
    consecutive_ids = 0 in categories or len(categories) < (1 - MAX_GAPS) * max(categories, default=0)
    sources = {}
    for split, file in files.items():
        images, report = file.images("file_name"), ConversionReport()
        if unused:
            report.note("category 0 left out: it has no box", unused["name"])
        classes = _number_categories(list(files.values()), categories, consecutive_ids, report)
        objects = _read_objects(file, images, classes.ids, report, is_subset=False)
        source = _make_source(splits[split].image_dir, images, objects, {}, classes=classes, report=report)
        sources[split] = dataclasses.replace(source, write_groundtruth=split != "train")
    return sources


def _make_source(
    image_dir: str | Path,
    images: Mapping[int, dict[str, Any]],
    objects: Mapping[int, list[dict[str, Any]]],
    captions: Mapping[int, list[str]],
    *,
    classes: Classes,
    report: ConversionReport,
) -> Source:
    """Returns the source of images with their objects and captions, both by image id."""
    names = [image["file_name"] for image in images.values() if coco_json.is_text(image["file_name"])]
    report.note_duplicates("file names with several image ids, written once per id", names)
    items = [(image, objects.get(image_id, []), captions.get(image_id, [])) for image_id, image in images.items()]
    folder = ImageFolder(image_dir, names)
    read = functools.partial(_read_annotation, folder=folder, class_ids=classes.ids, label_map=classes.names)
    is_rotated = any(_rotation(row) for rows in objects.values() for row in rows)
    original_ids = {class_id: category for category, class_id in classes.ids.items()} if classes.consecutive else {}
    return Source(
        items,
        read,
        functools.partial(_find_image, folder=folder),
        classes.names,
        report,
        write_groundtruth=classes.consecutive or is_rotated,
        original_ids=original_ids,
    )


def _read_categories(file: CocoFile) -> dict[int, dict[str, Any]]:
    """Returns {category id: row}; every category has a name."""
    categories = file.categories("name")
    for i, category in enumerate(categories.values()):
        if not coco_json.is_text(category["name"]):
            shown = reprlib.repr(category["name"])
            raise DataError(f"{file.path}: expected a name as text in categories[{i}], got {shown}")
    return categories


def _unite_categories(files: Sequence[CocoFile]) -> dict[int, dict[str, Any]]:
    """Returns {category id: row} of all categories of several files."""
    united, ids = {}, {}
    for file in files:
        rows = _read_categories(file)
        for category, name in ((category, row["name"]) for category, row in rows.items()):
            other_id, other_name = ids.get(name, category), united.get(category, rows[category])["name"]
            if (other_id, other_name) != (category, name):
                other = f"category {category} is {other_name!r}" if other_name != name else f"{name!r} is {other_id}"
                raise DataError(
                    f"category {category} is {name!r} in {file.path}, but {other} in another split; export all splits "
                    "with the same categories"
                )
        united |= rows
        ids |= {row["name"]: category for category, row in rows.items()}
    return united


def _number_categories(
    files: Sequence[CocoFile],
    categories: Mapping[int, Mapping[str, Any]],
    consecutive_ids: bool,
    report: ConversionReport,
) -> Classes:
    """Numbers the classes of files from 1; categories that stand for the background are left out.

    With consecutive_ids, class ids are 1, 2, ... in the order of the category ids, without category 0 if it is called
    background, or is the supercategory of another one and has no box. Otherwise, they are the category ids.

    Raises:
        DataError: if class ids would be too large for num_classes.
    """
    if not consecutive_ids:
        ids = sorted(categories.keys() - {0})
        if ids and ids[-1] > config_lib.MAX_NUM_CLASSES:
            advice = config_lib.num_classes_advice(ids[-1])
            raise DataError(f"{files[0].path}: category ids go up to {ids[-1]}; {advice}")
        return _name_classes(categories, {category: category for category in ids}, consecutive=False)
    reason = _find_background(files, categories)
    if reason:
        report.note(f"category 0 left out: {reason}", categories[0]["name"])
    ids = sorted(categories.keys() - ({0} if reason else set()))
    class_ids = {category: class_id for class_id, category in enumerate(ids, start=1)}
    for category, class_id in class_ids.items():
        if category != class_id:
            name = categories[category]["name"]
            report.note("categories renumbered, see the label map", f"{category} {name} is {class_id}")
    return _name_classes(categories, class_ids, consecutive=True)


def _find_background(files: Sequence[CocoFile], categories: Mapping[int, Mapping[str, Any]]) -> str | None:
    """Returns the reason why category 0 is no class, or None if it is one or does not exist."""
    if 0 not in categories:
        return None
    name = categories[0]["name"]
    if label_map_lib.is_background(name):
        return "it is the background"
    parents = [row.get("supercategory") for category, row in categories.items() if category]
    if name in parents and not any(0 in file.annotated_categories() for file in files):
        return "it is the supercategory of others, and has no box"
    return None


def _name_classes(
    categories: Mapping[int, Mapping[str, Any]], class_ids: Mapping[int, int], *, consecutive: bool
) -> Classes:
    names = {class_id: categories[category]["name"] for category, class_id in class_ids.items()}
    try:
        return Classes(class_ids, label_map_lib.resolve(names), consecutive)
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
    name, path = _find_image(item, report, folder=folder)
    size = [image.get(side) or 0 for side in ("height", "width")]
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
    return Annotation(path, name, str(image["id"]), tuple(size) if all(size) else None, objects, captions=captions)


def _find_image(
    item: tuple[dict, list[dict], list[str]], report: ConversionReport | None = None, *, folder: ImageFolder
) -> tuple[str, Path]:
    image, _, _ = item
    name = image["file_name"]
    if not coco_json.is_text(name):
        raise ImageError("file name is not a string", f"expected a file name for image {image['id']}, got {name!r}")
    return name, folder.find(name, report or ConversionReport())


def _rotation(row: Mapping[str, Any]) -> float:
    """Returns the degrees by which CVAT turns a box around its centre."""
    attributes = row.get("attributes")
    angle = attributes.get("rotation") if isinstance(attributes, dict) else None
    return angle if coco_json.is_number(angle) and math.isfinite(angle) else 0
