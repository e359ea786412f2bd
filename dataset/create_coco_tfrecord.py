# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Converts images with COCO annotations into TFRecords; category ids and image ids stay as they are.

    python dataset/create_coco_tfrecord.py --image_dir=train2017 --output_file_prefix=coco/train \
        --object_annotations_file=annotations/instances_train2017.json
    python dataset/create_coco_tfrecord.py --image_dir=test2017 --output_file_prefix=coco/testdev \
        --image_info_file=annotations/image_info_test-dev2017.json
    python dataset/create_coco_tfrecord.py --image_dir=shop --output_file_prefix=shop/train --include_masks \
        --object_annotations_file=shop.json --num_shards=8

The second is for images without annotations.
"""

import collections
import dataclasses
import json
import os
import reprlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as in main.py

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dataset import command_line, label_map
from dataset.convert import image_file, shards
from dataset.convert.annotation import AnnotatedObject, Annotation
from dataset.convert.conversion_report import Notes, Report
from dataset.convert.image_file import ImageError
from dataset.files import reason_of
from dataset.tfrecord import DataError

FLAGS = flags.FLAGS
MAX_CATEGORY_ID = 2**31 - 1  # class ids are int32 in the decoder


def define_flags() -> None:
    with command_line.group("Input, one of the three JSON files at least"):
        flags.DEFINE_string("image_dir", None, "Folder of the images.", required=True)
        flags.DEFINE_string("object_annotations_file", "", "JSON with boxes, such as instances_train2017.json.")
        flags.DEFINE_string("caption_annotations_file", "", "JSON with captions, such as captions_train2017.json.")
        flags.DEFINE_string("image_info_file", "", "JSON that lists images, such as image_info_test-dev2017.json.")
    with command_line.group("Output"):
        flags.DEFINE_string("output_file_prefix", "/tmp/train", "What the file names begin with, such as coco/train.")
        flags.DEFINE_integer("num_shards", 32, "TFRecord files to write.", lower_bound=1)
        flags.DEFINE_boolean("include_masks", False, "Writes instance masks too, as PNG.")
    shards.define_flags()


@dataclasses.dataclass(frozen=True)
class CocoSource:
    """Images and what is known of them: rows of the JSON files, of which an annotation itself may be faulty."""

    image_dir: Path
    images: list[dict]  # each with a file_name and an id of its own
    category_names: Mapping[int, str]
    objects: list[dict]
    captions: list[dict]
    lists_all: bool  # the list of images is the annotations' own: one that it lacks is a fault, not a choice

    def label_map(self) -> dict[int, str]:
        """The names of the classes that records can have: from 1, as 0 is the background.

        Raises:
            DataError: for a name given twice, or empty, which no label map can have.
        """
        names = {class_id: name for class_id, name in self.category_names.items() if class_id > 0}
        try:
            return label_map.resolve(names)
        except label_map.LabelMapError as error:
            raise DataError(f"categories: {error}; give each class a name of its own") from error


def load(
    image_dir: str | Path,
    *,
    image_info_file: str | Path = "",
    object_annotations_file: str | Path = "",
    caption_annotations_file: str | Path = "",
) -> CocoSource:
    """Reads the JSON files that are given; the list of images comes from the first of them.

    Raises:
        DataError: if there is none, one cannot be read or lacks a list, an id is wrong or there twice, or the images
            folder is not there.
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
        return _rows(files[path], path, name, keys) if path else []

    images = rows(given[0], "images", "id", "file_name")
    _check_ids(images, f"{given[0]}: images")
    categories = rows(object_annotations_file, "categories", "id", "name")
    _check_ids(categories, f"{object_annotations_file}: categories")
    for i, category in enumerate(categories):
        if (
            type(category["id"]) is not int
            or not 0 <= category["id"] <= MAX_CATEGORY_ID
            or not _is_text(category["name"])
        ):
            raise DataError(f"{object_annotations_file}: expected categories[{i}] with a number as id and a name")
    return CocoSource(
        Path(image_dir),
        images,
        category_names={category["id"]: category["name"] for category in categories},
        objects=rows(object_annotations_file, "annotations"),
        captions=rows(caption_annotations_file, "annotations"),
        lists_all=not image_info_file,
    )


def _read_json(path: str | Path) -> object:
    try:
        return json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {reason_of(error)}") from error
    except RecursionError:
        raise DataError(f"cannot read {path}: its brackets are nested too deep for a COCO annotation file") from None


def _rows(content: object, path: str | Path, name: str, keys: Sequence[str]) -> list[dict]:
    """The list of that name in the content of a COCO file, once every row is known to have the keys."""
    if not (isinstance(content, dict) and isinstance(content.get(name), list)):
        raise DataError(f"{path} has no list of {name}; expected a COCO annotation file")
    for i, row in enumerate(content[name]):
        if not isinstance(row, dict):
            raise DataError(f"{path}: expected {name}[{i}] as {{...}}, got {reprlib.repr(row)}")
        for key in keys:
            if key not in row:
                raise DataError(f"{path}: {name}[{i}] has no {key!r}; add it to {json.dumps(row)[:80]}")
    return content[name]


def _check_ids(rows: list[dict], where: str):
    seen = {}
    for i, row in enumerate(rows):
        if type(row["id"]) not in (int, str) or not _is_text(str(row["id"])):
            raise DataError(f"{where}[{i}] has the id {reprlib.repr(row['id'])}; expected a whole number or a text")
        other = seen.setdefault(str(row["id"]), i)  # as text, since 1 and "1" would be one source_id
        if other != i:
            raise DataError(f"{where}[{other}] and [{i}] have the same id {row['id']!r}; give each its own")


def _is_text(value: object) -> bool:
    """Whether it is a string that UTF-8 can hold, which half a surrogate pair is not."""
    return isinstance(value, str) and value == value.encode("utf-8", "ignore").decode("utf-8")


def convert(
    source: CocoSource,
    output_file_prefix: str | Path,
    *,
    include_masks: bool = False,
    num_shards: int = 32,
    **options,
) -> Report:
    """Writes `{output_file_prefix}-*.tfrecord`, in the order of the list of images.

    Args:
        source: from `load`.
        output_file_prefix: path that the shard names begin with.
        include_masks: writes instance masks too.
        num_shards: number of TFRecord files, from 1.
        **options: num_threads, max_bad_fraction and max_image_pixels of `conversion.run`.

    Raises:
        DataError: for data that cannot be converted; the report alone is written then.
    """
    notes, listed = Notes(), {image["id"] for image in source.images}
    names = collections.Counter(image["file_name"] for image in source.images if _is_text(image["file_name"]))
    for name, times in names.items():
        if times > 1:
            notes.note("file names under several image ids, written for each", name)
    objects, captions = collections.defaultdict(list), collections.defaultdict(list)
    for row in source.objects:
        if _refers_to(listed, row):
            objects[row["image_id"]].append(row)
        else:
            report = notes.leave_out_box if source.lists_all else notes.note
            report("annotations of an image that the list of images lacks", _name(row))
    for row in source.captions:
        if _refers_to(listed, row) and _is_text(row.get("caption")):
            captions[row["image_id"]].append(row["caption"])
        else:
            notes.note("captions left out: no text, or of no image in the list", _name(row))

    def read(image: Mapping, notes: Notes) -> Annotation:
        return read_annotation(source, image, objects.get(image["id"], []), captions.get(image["id"], []), notes)

    return shards.run(
        source.images,
        read,
        output_file_prefix,
        num_shards=num_shards,
        include_masks=include_masks,
        notes=notes,
        **options,
    )


def _refers_to(listed: set[int | str], row: Mapping) -> bool:
    image_id = row.get("image_id")
    return type(image_id) in (int, float, str) and image_id in listed  # 1.0 is 1


def _name(row: Mapping) -> str:
    return f"annotation {row['id']}" if "id" in row else f"annotation {reprlib.repr(row)}"


def read_annotation(
    source: CocoSource, image: Mapping, rows: list[dict], captions: Sequence[str], notes: Notes
) -> Annotation:
    """One image of the list with its objects; faulty ones are left out and noted.

    Raises:
        ImageError: if its file name or its size is none, or the file is not in the images folder.
    """
    name = image["file_name"]
    if not _is_text(name):
        raise ImageError("file name is no text", f"expected a file name for image {image['id']}, got {name!r}")
    size = [image.get(side) or 0 for side in ("height", "width")]
    if not all(_is_number(side) for side in size):
        found = reprlib.repr(size)
        raise ImageError("size is not a number", f"{name}: expected numbers as height and width, got {found}")
    objects = []
    for row in rows:
        fault = find_fault(row, source.category_names)
        if fault:
            notes.leave_out_box(fault, f"{_name(row)} of {name}")
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
    """Why an annotation cannot be used, or None where it can."""
    box, category, area = row.get("bbox"), row.get("category_id"), row.get("area", 0)
    if not (isinstance(box, list) and len(box) == 4 and all(_is_number(side) for side in box)):
        return "bbox is not four numbers"
    if type(category) is not int or category not in category_names:
        return f"category {reprlib.repr(category)} is not among the categories"
    if category == 0:
        return "category 0 would be the background: number the categories from 1"
    if row.get("iscrowd", 0) not in (0, 1):
        return "iscrowd is neither 0 nor 1"
    if area is not None and not _is_number(area):
        return "area is not a number"
    return None


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)  # a larger one does not fit a float


def _to_object(row: Mapping, category_names: Mapping[int, str]) -> AnnotatedObject:
    x, y, width, height = row["bbox"]
    return AnnotatedObject(
        box=(x, y, x + width, y + height),
        class_id=row["category_id"],
        class_name=category_names[row["category_id"]],
        label=_name(row),
        is_crowd=int(row.get("iscrowd", 0)),
        area=row.get("area"),
        segmentation=row.get("segmentation") or None,
    )


def main() -> None:
    shards.hide_gpus()
    with shards.plain_ending():
        source = load(
            FLAGS.image_dir,
            image_info_file=FLAGS.image_info_file,
            object_annotations_file=FLAGS.object_annotations_file,
            caption_annotations_file=FLAGS.caption_annotations_file,
        )
        names = source.label_map()
        report = convert(
            source,
            FLAGS.output_file_prefix,
            include_masks=FLAGS.include_masks,
            num_shards=FLAGS.num_shards,
            **shards.options(),
        )
        more = f" and {shards.write_label_map(FLAGS.output_file_prefix, names)}" if names else ""
    print(report)
    print(f"wrote {FLAGS.output_file_prefix}-*-of-{FLAGS.num_shards:05d}.tfrecord{more}")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
