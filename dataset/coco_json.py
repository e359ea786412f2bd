# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The reader of JSON files in COCO's format, shared by converter, check and metric, so that all agree on their content.

Image and category ids become integers: 7, 7.0, "7" and "007" are the same id, and any other value is an error.
Annotations that cannot be used are left out and counted by reason.
"""

import collections
import dataclasses
import json
import math
import os
import reprlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from dataset.files import read_file, reason_of
from dataset.tfrecord import DataError

MAX_ID = 2**63 - 1  # ids are compared as int64
MAX_FLOAT_ID = 2**53  # larger floats are not exact
MAX_DIGITS = 100  # of an id as text, with leading zeros

# Reasons why annotations are left out, in the reports of all commands.
UNLISTED_IMAGE = "annotations of images that are not listed"
NO_BOX = "bbox is not four numbers"
NEGATIVE_SIDE = "bbox has a negative width or height"
BACKGROUND = (
    "category 0 is reserved for the background: if it is a class of another name, convert with "
    "dataset/create_coco_tfrecord.py --consecutive_ids"
)
BAD_CROWD = "iscrowd is neither 0 nor 1"
BAD_AREA = "area is not a number"
UNUSABLE_CAPTION = "captions left out: not a string, or of images that are not listed"


class Annotations(NamedTuple):
    """Object annotations of a file; ids are integers."""

    rows: list[dict[str, Any]]  # those that can be used, in the order of the file
    left_out: dict[str, list[str]]  # {reason: labels of the others}, such as "annotation 17 of a.jpg"
    repeated: list[str]  # labels of annotations whose own id occurs before


@dataclasses.dataclass(frozen=True)
class CocoFile:
    """Content of a JSON file whose lists are read by the methods."""

    path: str
    content: dict[str, Any]

    def images(self, *required: str) -> dict[int, dict[str, Any]]:
        """Returns {image id: row} in the order of the file; every row has the required keys.

        Raises:
            DataError: if the list is missing, or a row is not an object, lacks a key, or has an invalid or repeated id.
        """
        return self._by_id("images", required)

    def categories(self, *required: str) -> dict[int, dict[str, Any]]:
        """Returns {category id: row}, as `images`; ids are not negative."""
        rows = self._by_id("categories", required)
        if rows and min(rows) < 0:
            raise DataError(f"{self.path}: a category has the id {min(rows)}; number the categories from 1")
        return rows

    def annotations(self, images: Mapping[int, Mapping], categories: Collection[int]) -> Annotations:
        """Reads the object annotations of images.

        Args:
            images: {image id: row with or without file_name}; annotations of others are left out.
            categories: ids of the categories that can be used.

        Raises:
            DataError: if the list is missing, or a row is not an object, or lacks an id or has an invalid one.
        """
        result, seen = Annotations([], collections.defaultdict(list), []), set()
        for i, row in enumerate(self._rows("annotations")):
            self._normalize("annotations", i, row, "image_id", "category_id")
            if "id" in row:
                own_id = parse_id(row["id"])
                own_id = repr(row["id"]) if own_id is None else own_id
                if own_id in seen:
                    result.repeated.append(_label_with_file(row, images))
                seen.add(own_id)
            if fault := _find_fault(row, images, categories):
                result.left_out[fault].append(_label_with_file(row, images))
            else:
                result.rows.append(row)
        return result

    def annotated_categories(self) -> set[int | None]:
        """Returns the category ids of all annotations."""
        return {parse_id(row.get("category_id")) for row in self._rows("annotations")}

    def captions(self, images: Collection[int]) -> Annotations:
        """Reads the annotations with a caption, as `annotations`; other keys are not checked."""
        result = Annotations([], collections.defaultdict(list), [])
        for i, row in enumerate(self._rows("annotations")):
            self._normalize("annotations", i, row, "image_id")
            if row["image_id"] in images and is_text(row.get("caption")):
                result.rows.append(row)
            else:
                result.left_out[UNUSABLE_CAPTION].append(label(row))
        return result

    def _rows(self, name: str) -> list[dict[str, Any]]:
        rows = self.content.get(name)
        if not isinstance(rows, list):
            raise DataError(f"{self.path} has no list of {name}; expected a COCO annotation file")
        for i, row in enumerate(rows):
            if not isinstance(row, dict):
                raise DataError(f"{self.path}: expected {name}[{i}] to be an object {{...}}, got {reprlib.repr(row)}")
        return rows

    def _normalize(self, name: str, i: int, row: dict[str, Any], *keys: str) -> None:
        """Replaces ids of a row by integers."""
        for key in keys:
            value = row.get(key)
            if type(value) is int and -MAX_ID <= value <= MAX_ID:
                continue
            if key not in row:
                raise DataError(f"{self.path}: {name}[{i}] has no {key!r}; add it to {_shorten(row)}")
            row[key] = parse_id(value)
            if row[key] is None:
                shown = reprlib.repr(value)
                raise DataError(
                    f'{self.path}: {name}[{i}] has {key} {shown}; ids must be integers: write a number such as 7 ("7" '
                    f"and 7.0 are the same)"
                )

    def _by_id(self, name: str, required: Collection[str]) -> dict[int, dict[str, Any]]:
        rows, found, repeated = self._rows(name), {}, 0
        for i, row in enumerate(rows):
            self._normalize(name, i, row, "id")
            for key in required:
                if key not in row:
                    raise DataError(f"{self.path}: {name}[{i}] has no {key!r}; add it to {_shorten(row)}")
            repeated += found.setdefault(row["id"], i) != i
        if repeated:
            first, other = next((found[row["id"]], i) for i, row in enumerate(rows) if found[row["id"]] != i)
            more = f" (and {repeated - 1} more are repeated)" if repeated > 1 else ""
            raise DataError(
                f"{self.path}: {name}[{first}] and [{other}] have the same id {rows[first]['id']}{more}; use unique ids"
            )
        return {row["id"]: row for row in rows}


class Groundtruth(NamedTuple):
    """Images, categories and objects of a file with which records are evaluated."""

    path: str
    images: dict[int, dict[str, Any]]
    names: dict[int, str]  # {category id: name or ""}, including 0 if the file lists it
    annotations: Annotations

    def counts(self) -> dict[str, int]:
        """Returns numbers of images, of those without a box that can be used, of boxes, and of crowds among these."""
        return count(self.images, self.annotations.rows)


def load(path: str, keys: Collection[str] = ()) -> Groundtruth:
    """Reads a groundtruth file.

    Args:
        path: a JSON file with images, annotations and categories.
        keys: keys of annotations to keep; empty for all. Masks are most of a file.

    Raises:
        DataError: if the file cannot be read or lacks a list, or an id is invalid; the message names file and row.
    """
    file = read(path)
    names = ("images", "annotations", "categories")
    missing = [name for name in names if not isinstance(file.content.get(name), list)]
    if missing:
        raise DataError(
            f"{path} has no {' and no '.join(missing)}: AP needs groundtruth, such as instances_val2017.json"
        )
    images, categories = file.images(), file.categories()
    annotations = file.annotations(images, categories.keys() - {0})
    if keys:
        annotations.rows[:] = [{key: row[key] for key in keys if key in row} for row in annotations.rows]
    category_names = {category: str(row.get("name") or "") for category, row in categories.items()}
    return Groundtruth(str(path), images, category_names, annotations)


def count(image_ids: Collection[int], rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Returns numbers of images, of those without annotations, of the annotations, and of crowds among these.

    >>> count([1, 2], [{"image_id": 1}, {"image_id": 1, "iscrowd": 1}])
    {'images': 2, 'images_without_boxes': 1, 'boxes': 2, 'crowds': 1}
    """
    return {
        "images": len(image_ids),
        "images_without_boxes": len(set(image_ids) - {row["image_id"] for row in rows}),
        "boxes": len(rows),
        "crowds": sum(bool(row.get("iscrowd")) for row in rows),
    }


def read(path: str | os.PathLike) -> CocoFile:
    """Reads a JSON file; raises DataError if it cannot be read or is not an object."""
    try:
        encoded = read_file(path)
        text = encoded.decode(json.detect_encoding(encoded))
        del encoded  # files have up to several hundred megabytes
        content = json.loads(text)
    except (tf.errors.OpError, ValueError) as error:
        raise DataError(f"cannot read {path}: {reason_of(error)}") from error
    except RecursionError:
        raise DataError(f"cannot read {path}: brackets are nested too deep for a COCO annotation file") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} has no list of images; expected a COCO annotation file")
    return CocoFile(str(path), content)


def parse_id(value: object) -> int | None:
    """Returns an id as an integer: of an integer, an integral float or digits; None for any other value.

    >>> parse_id(7.0), parse_id("7"), parse_id("seven")
    (7, 7, None)
    """
    if type(value) is float and value.is_integer() and abs(value) <= MAX_FLOAT_ID:
        return int(value)
    if type(value) is str and value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS:
        value = int(value)
    return value if type(value) is int and -MAX_ID <= value <= MAX_ID else None


def label(annotation: Mapping[str, Any]) -> str:
    """Returns the name of an annotation in messages.

    >>> label({"id": 17})
    'annotation 17'
    """
    return f"annotation {annotation['id'] if 'id' in annotation else reprlib.repr(annotation)}"


def is_text(value: object) -> bool:
    """Returns True for strings that UTF-8 can encode, i.e. without lone surrogates."""
    return isinstance(value, str) and value == value.encode("utf-8", "ignore").decode("utf-8")


def is_number(value: object) -> bool:
    """Returns True for numbers that can be converted to a float."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _find_fault(row: Mapping[str, Any], images: Collection[int], categories: Collection[int]) -> str | None:
    """Returns the reason why an annotation cannot be used, or None."""
    box, category, area = row.get("bbox"), row["category_id"], row.get("area")
    if row["image_id"] not in images:
        return UNLISTED_IMAGE
    if not (isinstance(box, list) and len(box) == 4 and all(is_number(side) and math.isfinite(side) for side in box)):
        return NO_BOX
    if box[2] < 0 or box[3] < 0:
        return NEGATIVE_SIDE
    if category not in categories:
        return f"category {category} is not among the categories" if category else BACKGROUND
    if row.get("iscrowd", 0) not in (0, 1):
        return BAD_CROWD
    return None if area is None or is_number(area) else BAD_AREA


def _label_with_file(row: Mapping[str, Any], images: Mapping[int, Mapping[str, Any]]) -> str:
    """Returns the name of an annotation and of its image file, if that is listed, such as "annotation 17 of a.jpg"."""
    name = images.get(row["image_id"], {}).get("file_name")
    return f"{label(row)} of {name}" if name else label(row)


def _shorten(row: Mapping[str, Any]) -> str:
    return json.dumps(row)[:80]
