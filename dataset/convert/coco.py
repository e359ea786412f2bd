# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The reader of COCO annotations; category ids and image ids are kept."""

import collections
import functools
import json
import reprlib
from collections.abc import Mapping
from pathlib import Path

from dataset import label_map as label_map_lib
from dataset.convert import image_file
from dataset.convert.annotation import AnnotatedObject, Annotation, Source
from dataset.convert.conversion_report import ConversionReport
from dataset.convert.image_file import ImageError
from dataset.files import reason_of
from dataset.tfrecord import DataError

MAX_CATEGORY_ID = 2**31 - 1  # class ids are decoded as int32


def load(
    image_dir: str | Path,
    *,
    image_info_file: str | Path = "",
    object_annotations_file: str | Path = "",
    caption_annotations_file: str | Path = "",
) -> Source:
    """Reads COCO files, at least one; the first one in the order of the arguments provides the list of images.

    Raises:
        DataError: if no file is given, one cannot be read or lacks a list, an id is invalid or not unique, a name is
            empty or not unique, or the folder of the images does not exist.
    """
    given = [path for path in (image_info_file, object_annotations_file, caption_annotations_file) if path]
    if not given:
        raise DataError(
            "all annotation files are missing; give object_annotations_file, caption_annotations_file "
            "or image_info_file"
        )
    if not Path(image_dir).is_dir():
        raise DataError(f"image_dir {str(image_dir)!r} is not a folder")
    files = {path: _read_json(path) for path in given}
    images = _rows(files, given[0], "images", "id", "file_name")
    label_map = _read_categories(files, object_annotations_file)
    report, image_ids = ConversionReport(), {image["id"] for image in images}
    names = (image["file_name"] for image in images if _is_text(image["file_name"]))
    report.note_duplicates("file names with several image ids, written once per id", names)
    objects, captions = collections.defaultdict(list), collections.defaultdict(list)
    for row in _rows(files, object_annotations_file, "annotations"):
        if _is_of(image_ids, row):
            objects[row["image_id"]].append(row)
        else:
            # image_info_file may list a subset of the images.
            add = report.note if image_info_file else functools.partial(report.leave_out, "boxes")
            add("annotations of images that are not listed", _label(row))
    for row in _rows(files, caption_annotations_file, "annotations"):
        if _is_of(image_ids, row) and _is_text(row.get("caption")):
            captions[row["image_id"]].append(row["caption"])
        else:
            report.note("captions left out: not a string, or of images that are not listed", _label(row))
    items = [(image, objects[image["id"]], captions[image["id"]]) for image in images]
    read = functools.partial(_read_annotation, image_dir=Path(image_dir), label_map=label_map)
    return Source(items, read, label_map, report, write_groundtruth=False)


def _read_json(path: str | Path) -> object:
    try:
        return json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {reason_of(error)}") from error
    except RecursionError:
        raise DataError(f"cannot read {path}: brackets are nested too deep for a COCO annotation file") from None


def _rows(files: Mapping[str | Path, object], path: str | Path, name: str, *keys: str) -> list[dict]:
    """Returns a list of a file, in which every row has the keys and, if they include "id", a unique id."""
    content = files.get(path, {name: []})
    if not (isinstance(content, dict) and isinstance(content.get(name), list)):
        raise DataError(f"{path} has no list of {name}; expected a COCO annotation file")
    rows, seen = content[name], {}
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}: expected {name}[{i}] to be an object {{...}}, got {reprlib.repr(row)}")
        for key in keys:
            if key not in row:
                raise DataError(f"{path}: {name}[{i}] has no {key!r}; add it to {json.dumps(row)[:80]}")
        if "id" not in keys:
            continue
        if type(row["id"]) not in (int, str) or not _is_text(str(row["id"])):
            shown = reprlib.repr(row["id"])
            raise DataError(f"{path}: {name}[{i}] has id {shown}; expected an integer or a string")
        other = seen.setdefault(str(row["id"]), i)  # as text: 1 and "1" have the same source_id
        if other != i:
            raise DataError(f"{path}: {name}[{other}] and [{i}] have the same id {row['id']!r}; use unique ids")
    return rows


def _read_categories(files: Mapping[str | Path, object], path: str | Path) -> dict[int, str]:
    """Returns the names of the class ids from 1."""
    names = {}
    for i, category in enumerate(_rows(files, path, "categories", "id", "name")):
        class_id, name = category["id"], category["name"]
        if type(class_id) is not int or not 0 <= class_id <= MAX_CATEGORY_ID or not _is_text(name):
            raise DataError(f"{path}: expected categories[{i}] with an id in [0, {MAX_CATEGORY_ID}] and a name")
        if class_id > 0:
            names[class_id] = name
    try:
        return label_map_lib.resolve(names)
    except label_map_lib.LabelMapError as error:
        raise DataError(f"categories: {error}; give each class a unique name") from error


def _is_text(value: object) -> bool:
    """Returns True for strings that UTF-8 can encode, i.e. without lone surrogates."""
    return isinstance(value, str) and value == value.encode("utf-8", "ignore").decode("utf-8")


def _is_number(value: object) -> bool:
    # Very large integers cannot be converted to float.
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _is_of(image_ids: set[int | str], row: Mapping) -> bool:
    image_id = row.get("image_id")
    return type(image_id) in (int, float, str) and image_id in image_ids  # a float, too: 1.0 == 1


def _label(row: Mapping) -> str:
    return f"annotation {row['id']}" if "id" in row else f"annotation {reprlib.repr(row)}"


def _read_annotation(
    item: tuple[dict, list[dict], list[str]], report: ConversionReport, *, image_dir: Path, label_map: Mapping[int, str]
) -> Annotation:
    """Reads (image, its object annotations, its captions); invalid objects are left out and noted."""
    image, rows, captions = item
    name, size = image["file_name"], [image.get(side) or 0 for side in ("height", "width")]
    if not _is_text(name):
        raise ImageError("file name is not a string", f"expected a file name for image {image['id']}, got {name!r}")
    if not all(_is_number(side) for side in size):
        shown = reprlib.repr(size)
        raise ImageError("size is not a number", f"{name}: expected numbers as height and width, got {shown}")
    objects = []
    for row in rows:
        if fault := _find_fault(row, label_map):
            report.leave_out("boxes", fault, f"{_label(row)} of {name}")
            continue
        (x, y, width, height), class_id = row["bbox"], row["category_id"]
        objects.append(
            AnnotatedObject(
                box=(x, y, x + width, y + height),
                class_id=class_id,
                class_name=label_map[class_id],
                label=_label(row),
                is_crowd=int(row.get("iscrowd", 0)),
                area=row.get("area"),
                segmentation=row.get("segmentation") or None,
            )
        )
    path, size = image_file.find(image_dir, name), tuple(size) if all(size) else None
    return Annotation(path, name, str(image["id"]), size, objects, captions=captions)


def _find_fault(row: Mapping, label_map: Mapping[int, str]) -> str | None:
    """Returns the reason why an annotation cannot be used, or None."""
    box, category, area = row.get("bbox"), row.get("category_id"), row.get("area", 0)
    if not (isinstance(box, list) and len(box) == 4 and all(_is_number(side) for side in box)):
        return "bbox is not four numbers"
    if category == 0:
        return "category 0 is reserved for the background: number the categories from 1"
    if type(category) is not int or category not in label_map:
        return f"category {reprlib.repr(category)} is not among the categories"
    if row.get("iscrowd", 0) not in (0, 1):
        return "iscrowd is neither 0 nor 1"
    if area is not None and not _is_number(area):
        return "area is not a number"
    return None
