# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Conversion of COCO annotations to TFRecords; category ids and image ids are kept."""

import collections
import dataclasses
import json
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataset import label_map
from dataset.convert import image_file, shards
from dataset.convert.annotation import AnnotatedObject, Annotation
from dataset.convert.conversion_report import ConversionNotes, ConversionReport
from dataset.convert.image_file import ImageError
from dataset.files import reason_of
from dataset.tfrecord import DataError

MAX_CATEGORY_ID = 2**31 - 1  # class ids are decoded as int32


@dataclasses.dataclass(frozen=True)
class CocoSource:
    """Content of COCO files: checked lists of images and categories, unchecked lists of objects and captions."""

    image_dir: Path
    images: list[dict]  # each with a unique id, and a file_name
    category_names: Mapping[int, str]
    objects: list[dict]
    captions: list[dict]
    is_image_subset: bool  # the images are from image_info_file, which may list fewer than the annotations refer to

    def label_map(self) -> dict[int, str]:
        """Returns the names of the class ids from 1; id 0 is the background.

        Raises:
            DataError: for duplicate or empty names.
        """
        names = {class_id: name for class_id, name in self.category_names.items() if class_id > 0}
        try:
            return label_map.resolve(names)
        except label_map.LabelMapError as error:
            raise DataError(f"categories: {error}; give each class a unique name") from error


def load(
    image_dir: str | Path,
    *,
    image_info_file: str | Path = "",
    object_annotations_file: str | Path = "",
    caption_annotations_file: str | Path = "",
) -> CocoSource:
    """Reads COCO files, at least one; the first one in the order of the arguments provides the list of images.

    Raises:
        DataError: if no file is given, one cannot be read or lacks a list, an id is invalid or not unique, or the
            folder of the images does not exist.
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

    def rows(path: str | Path, name: str, *keys: str) -> list[dict]:
        return _checked_rows(files[path], path, name, keys) if path else []

    images = rows(given[0], "images", "id", "file_name")
    _check_ids(images, f"{given[0]}: images")
    categories = rows(object_annotations_file, "categories", "id", "name")
    _check_ids(categories, f"{object_annotations_file}: categories")
    for i, category in enumerate(categories):
        is_id = type(category["id"]) is int and 0 <= category["id"] <= MAX_CATEGORY_ID
        if not is_id or not _is_text(category["name"]):
            raise DataError(
                f"{object_annotations_file}: expected categories[{i}] with an id in [0, {MAX_CATEGORY_ID}] and a name"
            )
    return CocoSource(
        Path(image_dir),
        images,
        category_names={category["id"]: category["name"] for category in categories},
        objects=rows(object_annotations_file, "annotations"),
        captions=rows(caption_annotations_file, "annotations"),
        is_image_subset=bool(image_info_file),
    )


def _read_json(path: str | Path) -> object:
    try:
        return json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {reason_of(error)}") from error
    except RecursionError:
        raise DataError(f"cannot read {path}: brackets are nested too deep for a COCO annotation file") from None


def _checked_rows(content: object, path: str | Path, name: str, keys: Sequence[str]) -> list[dict]:
    """Returns a list of a COCO file, after checking that every row has the keys."""
    if not (isinstance(content, dict) and isinstance(content.get(name), list)):
        raise DataError(f"{path} has no list of {name}; expected a COCO annotation file")
    for i, row in enumerate(content[name]):
        if not isinstance(row, dict):
            raise DataError(f"{path}: expected {name}[{i}] to be an object {{...}}, got {reprlib.repr(row)}")
        for key in keys:
            if key not in row:
                raise DataError(f"{path}: {name}[{i}] has no {key!r}; add it to {json.dumps(row)[:80]}")
    return content[name]


def _check_ids(rows: list[dict], where: str) -> None:
    seen = {}
    for i, row in enumerate(rows):
        if type(row["id"]) not in (int, str) or not _is_text(str(row["id"])):
            raise DataError(f"{where}[{i}] has id {reprlib.repr(row['id'])}; expected an integer or a string")
        other = seen.setdefault(str(row["id"]), i)  # as text: 1 and "1" have the same source_id
        if other != i:
            raise DataError(f"{where}[{other}] and [{i}] have the same id {row['id']!r}; use unique ids")


def _is_text(value: object) -> bool:
    """Returns True for strings that UTF-8 can encode, i.e. without lone surrogates."""
    return isinstance(value, str) and value == value.encode("utf-8", "ignore").decode("utf-8")


def convert(
    source: CocoSource,
    output_file_prefix: str | Path,
    *,
    include_masks: bool = False,
    num_shards: int = 32,
    **options,
) -> ConversionReport:
    """Writes `{output_file_prefix}-*.tfrecord`, in the order of the list of images.

    Args:
        source: see `load`.
        output_file_prefix: path prefix of the shard names.
        include_masks: writes instance masks too.
        num_shards: number of TFRecord files, from 1.
        **options: num_threads, max_bad_fraction and max_image_pixels of `shards.write_shards`.

    Raises:
        DataError: if the data cannot be converted; only the report is written then.
    """
    notes, image_ids = ConversionNotes(), {image["id"] for image in source.images}
    names = collections.Counter(image["file_name"] for image in source.images if _is_text(image["file_name"]))
    for name, count in names.items():
        if count > 1:
            notes.note("file names with several image ids, written once per id", name)
    objects, captions = collections.defaultdict(list), collections.defaultdict(list)
    for row in source.objects:
        if _is_of(image_ids, row):
            objects[row["image_id"]].append(row)
        else:
            add = notes.note if source.is_image_subset else notes.leave_out_box
            add("annotations of images that are not listed", _label(row))
    for row in source.captions:
        if _is_of(image_ids, row) and _is_text(row.get("caption")):
            captions[row["image_id"]].append(row["caption"])
        else:
            notes.note("captions left out: not a string, or of images that are not listed", _label(row))

    def read(image: Mapping, notes: ConversionNotes) -> Annotation:
        return read_annotation(source, image, objects.get(image["id"], []), captions.get(image["id"], []), notes)

    return shards.write_shards(
        source.images,
        read,
        output_file_prefix,
        num_shards=num_shards,
        include_masks=include_masks,
        notes=notes,
        **options,
    )


def _is_of(image_ids: set[int | str], row: Mapping) -> bool:
    image_id = row.get("image_id")
    return type(image_id) in (int, float, str) and image_id in image_ids  # a float, too: 1.0 == 1


def _label(row: Mapping) -> str:
    return f"annotation {row['id']}" if "id" in row else f"annotation {reprlib.repr(row)}"


def read_annotation(
    source: CocoSource, image: Mapping, rows: list[dict], captions: Sequence[str], notes: ConversionNotes
) -> Annotation:
    """Returns an image with its objects; invalid ones are left out and noted.

    Raises:
        ImageError: if the file name or size is invalid, or the file is not in the folder of the images.
    """
    name = image["file_name"]
    if not _is_text(name):
        raise ImageError("file name is not a string", f"expected a file name for image {image['id']}, got {name!r}")
    size = [image.get(side) or 0 for side in ("height", "width")]
    if not all(_is_number(side) for side in size):
        shown = reprlib.repr(size)
        raise ImageError("size is not a number", f"{name}: expected numbers as height and width, got {shown}")
    objects = []
    for row in rows:
        fault = find_fault(row, source.category_names)
        if fault:
            notes.leave_out_box(fault, f"{_label(row)} of {name}")
        else:
            objects.append(_to_object(row, source.category_names))
    return Annotation(
        image_path=image_file.find(source.image_dir, name),
        filename=name,
        source_id=str(image["id"]),
        size=tuple(size) if all(size) else None,
        objects=objects,
        captions=captions,
    )


def find_fault(row: Mapping, category_names: Mapping[int, str]) -> str | None:
    """Returns the reason why an annotation cannot be used, or None."""
    box, category, area = row.get("bbox"), row.get("category_id"), row.get("area", 0)
    if not (isinstance(box, list) and len(box) == 4 and all(_is_number(side) for side in box)):
        return "bbox is not four numbers"
    if type(category) is not int or category not in category_names:
        return f"category {reprlib.repr(category)} is not among the categories"
    if category == 0:
        return "category 0 is reserved for the background: number the categories from 1"
    if row.get("iscrowd", 0) not in (0, 1):
        return "iscrowd is neither 0 nor 1"
    if area is not None and not _is_number(area):
        return "area is not a number"
    return None


def _is_number(value: object) -> bool:
    # Very large integers cannot be converted to float.
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _to_object(row: Mapping, category_names: Mapping[int, str]) -> AnnotatedObject:
    x, y, width, height = row["bbox"]
    return AnnotatedObject(
        box=(x, y, x + width, y + height),
        class_id=row["category_id"],
        class_name=category_names[row["category_id"]],
        label=_label(row),
        is_crowd=int(row.get("iscrowd", 0)),
        area=row.get("area"),
        segmentation=row.get("segmentation") or None,
    )
