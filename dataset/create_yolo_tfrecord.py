# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Converts YOLO text labels into TFRecords, a COCO-style JSON of the same boxes and a label map.

    python dataset/create_yolo_tfrecord.py --data_yaml=coco128/data.yaml --split=train --output_path=data/train
    python dataset/create_yolo_tfrecord.py --data_yaml=coco128/data.yaml --split=val --output_path=data/val
    python dataset/create_yolo_tfrecord.py --data_yaml=shop/data.yaml --split=test --output_path=data/test \
        --num_shards=4 --max_bad_fraction=0.05

The labels of images/train/a.jpg are in labels/train/a.txt; those of an image whose path has no folder `images` are
beside it. One object a line, `class cx cy width height` or `class x1 y1 x2 y2 x3 y3 ...`, as fractions of the image.
Classes count from 0 there and from 1 in the records.
"""

import collections
import dataclasses
import math
import os
import reprlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as in main.py

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dataset import command_line
from dataset import label_map as label_map_lib
from dataset.convert import image_file, shards
from dataset.convert.annotation import AnnotatedObject, Annotation
from dataset.convert.conversion_report import Notes, Report
from dataset.convert.image_file import ImageError
from dataset.files import reason_of
from dataset.tfrecord import DataError
from efficientdet import config as config_lib

FLAGS = flags.FLAGS
SPLITS = ("train", "val", "test")
LARGEST_FRACTION = 1.5  # sticking out of the image happens, but what is larger was meant as pixels


def define_flags() -> None:
    with command_line.group("Input"):
        flags.DEFINE_string("data_yaml", None, "YAML file with path, train, val, test and names.", required=True)
        flags.DEFINE_string("split", "train", "Key of data_yaml whose images to convert: train, val or test.")
    with command_line.group("Output"):
        flags.DEFINE_string("output_path", None, "What the file names begin with, such as data/train.", required=True)
        flags.DEFINE_integer("num_shards", 32, "TFRecord files to write.", lower_bound=1)
    shards.define_flags()


@dataclasses.dataclass(frozen=True)
class YoloSource:
    """One split of a data set."""

    images: Sequence[tuple[Path, str]]  # (folder, name in it)
    label_map: Mapping[int, str]  # ids from 1
    twice: Sequence[Path] = ()  # images that several entries of the split name


def load(data_yaml: str | Path, split: str) -> YoloSource:
    """Reads data.yaml and finds the images of a split.

    A relative `path` starts at the folder of data.yaml or, where there is no such folder, at the working directory; the
    split, which is a folder of images, a .txt list of them or several of these, starts at `path`.

    Raises:
        DataError: if the file cannot be read, lacks the split or the names, or the split or `path` leads nowhere.
    """
    try:
        content = config_lib.read_yaml(str(data_yaml))
        label_map = _label_map(content, data_yaml)
    except (config_lib.ConfigError, label_map_lib.LabelMapError) as error:
        raise DataError(f"cannot use data_yaml: {error}") from error
    if "kpt_shape" in content:
        raise DataError(f"{data_yaml} has kpt_shape; expected rows of boxes or polygons, not of keypoints")
    entries, root = content.get(split), content.get("path") or ""
    if not entries:
        others = ", ".join(name for name in SPLITS if content.get(name)) or "none"
        raise DataError(
            f"{data_yaml} has no split {split!r} (there are: {others}); add it there or give another --split"
        )
    entries = [entries] if isinstance(entries, str) else entries
    if not (isinstance(entries, list) and all(isinstance(text, str) for text in [*entries, root])):
        raise DataError(
            f"{data_yaml}: expected path as a folder, and {split} as a folder, a .txt list or several of them, got "
            f"{reprlib.repr(root)} and {reprlib.repr(entries)}"
        )
    root = _find_root(Path(data_yaml).resolve().parent, root)
    found = [(folder / name, (folder, name)) for entry in entries for folder, name in _find_images(root, entry)]
    counts, images = collections.Counter(path for path, _ in found), list(dict(found).values())
    if not images:
        raise DataError(
            f"{split} of {data_yaml} has no image ({', '.join(image_file.SUFFIXES)}) in {', '.join(entries)}"
        )
    return YoloSource(images, label_map, [path for path, times in counts.items() if times > 1])


def _find_root(folder: Path, path: str) -> Path:
    """The folder that `path` in a data.yaml of that folder leads to."""
    tried = [folder / path, Path.cwd() / path]
    for root in tried:
        if root.is_dir():
            return root
    where = " nor ".join(dict.fromkeys(map(str, tried)))
    raise DataError(f"path: {path} leads to no folder: there is neither {where}; write where the data are")


def _label_map(content: Mapping, data_yaml: str | Path) -> dict[int, str]:
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not (isinstance(names, dict) and names and all(type(class_id) is int for class_id in names)):
        raise DataError(f"{data_yaml}: expected names as a list or as {{0: name, ...}}, got {str(names)[:80]}")
    if content.get("nc", len(names)) != len(names):
        raise DataError(f"{data_yaml}: nc is {content['nc']}, but there are {len(names)} names; correct one of them")
    return label_map_lib.resolve({class_id + 1: name for class_id, name in names.items()})


def _find_images(root: Path, entry: str) -> list[tuple[Path, str]]:
    """The images of a folder and those below it, or of a .txt list, as (folder, name in it)."""
    path = root / entry
    if not path.exists() and entry.startswith("../"):
        path = root / entry[3:]  # written for a program that runs in a folder beside data.yaml
    if path.is_dir():
        images = sorted(file for file in path.rglob("*") if file.suffix.lower() in image_file.SUFFIXES)
        return [(path, str(image.relative_to(path))) for image in [*images, *_missing_images(path, images)]]
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"expected images or a list of them, cannot read {path}: {reason_of(error)}") from error
    return [(root, os.path.relpath(path.parent / line, root)) for line in lines]


def _missing_images(folder: Path, images: Sequence[Path]) -> list[Path]:
    """The images that label files without one stand for, so that they are counted as missing."""
    labels = label_path(folder / "any").parent
    if labels == folder:  # where any other .txt may be
        return []
    known = {label_path(image) for image in images}
    lonely = sorted(path for path in labels.rglob("*.txt") if path not in known and path.name != "classes.txt")
    return [folder / path.relative_to(labels).with_suffix(".jpg") for path in lonely]


def label_path(image_path: Path) -> Path:
    """Where the labels of an image are: under labels in place of the last folder named images, else beside it."""
    *folders, name = image_path.parts
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return Path(*folders, name).with_suffix(".txt")


def find_fault(values: Sequence[float] | None, label_map: Mapping[int, str]) -> str | None:
    """Why a row of a label file cannot be used, or None where it can; values is None where they are not numbers."""
    if values is None:
        return "row is not numbers"
    if len(values) == 6:
        return "row has 6 values, as of predictions with scores; expected 5, or a polygon"
    if len(values) < 5 or len(values) % 2 == 0:
        return "row has neither 5 values nor a class and pairs, as a polygon"
    if values[0] + 1 not in label_map:
        return f"class {values[0]:g} is not among the names"
    if any(abs(value) > LARGEST_FRACTION for value in values[1:]):
        return "values are in pixels, not fractions of the image"
    return None


def _numbers(row: str) -> list[float] | None:
    try:
        values = [float(text) for text in row.split()]
    except ValueError:
        return None
    return values if all(math.isfinite(value) for value in values) else None


def _to_box(values: Sequence[float]) -> tuple[float, float, float, float]:
    """[xmin, ymin, xmax, ymax] of a row without its class: middle and size, or the corners of a polygon."""
    if len(values) == 4:
        x, y, width, height = values
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])


def read_annotation(
    folder: Path, name: str, source_id: str, *, label_map: Mapping[int, str], notes: Notes
) -> Annotation:
    """One image with its objects; faulty rows are left out and noted, no label file means no objects.

    Raises:
        ImageError: if the image is not in the folder, or the label file cannot be read.
    """
    image_path, labels = image_file.find(folder, name), label_path(folder / name)
    rows = []
    if not labels.exists():
        notes.note("images without a label file: no objects", name)
    else:
        try:
            rows = labels.read_text("utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            reason = reason_of(error)
            raise ImageError("label file is unreadable", f"cannot read the labels {labels}: {reason}") from error
    objects = []
    for number, row in enumerate(rows, start=1):
        values, label = _numbers(row), f"line {number}"
        fault = find_fault(values, label_map) if row.strip() else None
        if fault:
            notes.leave_out_box(fault, f"{label} of {name}")
        elif values:
            class_id = int(values[0]) + 1
            objects.append(AnnotatedObject(_to_box(values[1:]), class_id, label_map[class_id], label))
    return Annotation(image_path, name, source_id, None, objects, normalized=True)


def convert(source: YoloSource, output_path: str | Path, *, num_shards: int = 32, **options) -> Report:
    """Writes `{output_path}-*.tfrecord`, `json_{name}.json` and `label_map_{name}.yaml`; image ids run from 1.

    Args:
        source: from `load`.
        output_path: path that the shard names begin with.
        num_shards: number of TFRecord files, from 1.
        **options: num_threads, max_bad_fraction and max_image_pixels of `conversion.run`.

    Raises:
        DataError: for data that cannot be converted; the report alone is written then.
    """
    labels = [label_path(folder / name) for folder, name in source.images]
    if not any(path.is_file() for path in labels):
        raise DataError(f"none of the {len(labels)} images has a label file; expected {labels[0]} and such")

    notes = Notes()
    for path in source.twice:
        notes.note("images listed twice, written once", str(path))

    def read(item: tuple[int, tuple[Path, str]], notes: Notes) -> Annotation:
        number, (folder, name) = item
        return read_annotation(folder, name, str(number), label_map=source.label_map, notes=notes)

    report = shards.run(
        list(enumerate(source.images, start=1)),
        read,
        output_path,
        num_shards=num_shards,
        groundtruth_categories={name: class_id for class_id, name in source.label_map.items()},
        notes=notes,
        **options,
    )
    shards.write_label_map(output_path, source.label_map)
    return report


def main() -> None:
    shards.hide_gpus()
    with shards.plain_ending():
        report = convert(
            load(FLAGS.data_yaml, FLAGS.split),
            FLAGS.output_path,
            num_shards=FLAGS.num_shards,
            **shards.options(),
        )
    print(report)
    prefix = Path(FLAGS.output_path)
    print(
        f"wrote {prefix}-*-of-{FLAGS.num_shards:05d}.tfrecord, {shards.beside(prefix, 'json')} and "
        f"{shards.beside(prefix, 'label_map', '.yaml')}"
    )


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
