# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The reader of YOLO text labels."""

import functools
import os
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataset import files
from dataset import label_map as label_map_lib
from dataset.convert import image_file
from dataset.convert.annotation import AnnotatedObject, Annotation, Source, number_images, parse_numbers, read_lines
from dataset.convert.conversion_report import ConversionReport
from dataset.tfrecord import DataError
from efficientdet import config as config_lib
from efficientdet import hparams

MAX_FRACTION = 1.5  # boxes may extend beyond the image; larger values are pixels


def load(data_yaml: str | Path, split: str) -> Source:
    """Reads data.yaml and finds the images of a split; image ids count from 1.

    The key `path` is relative to the folder of data.yaml or, if that does not exist, to the working directory. The
    split, a folder of images, a .txt list of images or several of these, is relative to `path`.

    Raises:
        DataError: if the file cannot be read, lacks the split or the names, the split or `path` does not exist, or no
            image has a label file.
    """
    try:
        content = hparams.read_yaml(str(data_yaml))
        label_map = _read_names(content, data_yaml)
    except (config_lib.ConfigError, label_map_lib.LabelMapError) as error:
        raise DataError(f"cannot use data_yaml: {error}") from error
    if "kpt_shape" in content:
        raise DataError(f"{data_yaml} has kpt_shape; expected labels of boxes or polygons, not of keypoints")
    entries, root = content.get(split), content.get("path") or ""
    if not entries:
        others = ", ".join(name for name in ("train", "val", "test") if content.get(name)) or "none"
        raise DataError(f"{data_yaml} has no split {split!r} (available: {others}); add it, or choose another --split")
    entries = [entries] if isinstance(entries, str) else entries
    if not (isinstance(entries, list) and all(isinstance(text, str) for text in [*entries, root])):
        raise DataError(
            f"{data_yaml}: expected path to be a folder, and {split} a folder, a .txt list or several of them, got "
            f"{reprlib.repr(root)} and {reprlib.repr(entries)}"
        )
    tried = [Path(data_yaml).resolve().parent / root, Path.cwd() / root]
    folders = [folder for folder in tried if folder.is_dir()]
    if not folders:
        shown = " and ".join(dict.fromkeys(map(str, tried)))
        raise DataError(f"path: {root} is not a folder (tried {shown}); set it to the folder of the dataset")
    report = ConversionReport()
    found = [image for entry in entries for image in _find_images(folders[0], entry, report)]
    items = number_images([(str(folder / name), (folder, name)) for folder, name in found], report)
    if not items:
        suffixes = ", ".join(image_file.SUFFIXES)
        raise DataError(f"{split} of {data_yaml} has no image ({suffixes}) in {', '.join(entries)}")
    labels = [label_path(folder / name) for folder, name, _ in items]
    if not any(path.is_file() for path in labels):
        raise DataError(f"none of the {len(labels)} images has a label file; expected files such as {labels[0]}")
    return Source(items, functools.partial(_read_annotation, label_map=label_map), label_map, report)


def _read_names(content: Mapping, data_yaml: str | Path) -> dict[int, str]:
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not (isinstance(names, dict) and names and all(type(class_id) is int for class_id in names)):
        raise DataError(f"{data_yaml}: expected names as a list or as {{0: name, ...}}, got {str(names)[:80]}")
    if content.get("nc", len(names)) != len(names):
        raise DataError(f"{data_yaml}: nc is {content['nc']}, but there are {len(names)} names; correct one of them")
    return label_map_lib.resolve({class_id + 1: name for class_id, name in names.items()})


def _find_images(root: Path, entry: str, report: ConversionReport) -> list[tuple[Path, str]]:
    """Finds the images in a folder and its subfolders, or in a .txt list, as (folder, name in the folder)."""
    path = root / entry
    if not path.exists() and entry.startswith("../"):
        path = root / entry[3:]  # some exporters write paths relative to a folder next to data.yaml
    if path.is_dir():
        found, hidden = files.find_in(path, "**")
        images = sorted(file for file in map(Path, found) if file.suffix.lower() in image_file.SUFFIXES)
        missing, hidden_labels = _missing_images(path, images)
        for file in [*hidden, *hidden_labels]:
            report.note(files.HIDDEN_IGNORED, file)
        return [(path, str(image.relative_to(path))) for image in [*images, *missing]]
    lines = read_lines(path, "folder or list of images")
    return [(root, os.path.relpath(path.parent / line, root)) for line in lines if line]


def _missing_images(folder: Path, images: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Returns the expected images of label files without an image, to be counted as missing, and hidden label files."""
    labels = label_path(folder / "any").parent
    if labels == folder:  # may contain other .txt files
        return [], []
    known = {label_path(image) for image in images}
    found, hidden = files.find_in(labels, "**/*.txt")
    unmatched = [path for path in sorted(map(Path, found)) if path not in known and path.name != "classes.txt"]
    return [folder / path.relative_to(labels).with_suffix(".jpg") for path in unmatched], hidden


def label_path(image_path: Path) -> Path:
    """Returns the path of an image's labels: `labels` for the last folder `images`, if there is one, and .txt."""
    *folders, name = image_path.parts
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return Path(*folders, name).with_suffix(".txt")


def _read_annotation(
    item: tuple[Path, str, str], report: ConversionReport, *, label_map: Mapping[int, str]
) -> Annotation:
    """Reads (folder, image in it, source id); invalid rows are left out and noted. No label file means no objects."""
    folder, name, source_id = item
    image_path, labels, rows, objects = image_file.find(folder, name), label_path(folder / name), [], []
    if labels.exists():
        rows = read_lines(labels, "label file")
    else:
        report.note("images without a label file: no objects", name)
    for number, row in enumerate(rows, start=1):
        if not row:
            continue
        values, label = parse_numbers(row.split()), f"line {number}"
        if fault := _find_fault(values, label_map):
            report.leave_out("boxes", fault, f"{label} of {name}")
        else:
            class_id = int(values[0]) + 1
            objects.append(AnnotatedObject(_to_box(values[1:]), class_id, label_map[class_id], label))
    return Annotation(image_path, name, source_id, None, objects, normalized=True)


def _find_fault(values: Sequence[float] | None, label_map: Mapping[int, str]) -> str | None:
    """Returns the reason why the numbers of a row cannot be used, or None."""
    if values is None:
        return "row has values that are not finite numbers"
    if len(values) == 6:
        return "row has 6 values, like predictions with scores; expected 5, or a polygon"
    if len(values) < 5 or len(values) % 2 == 0:
        return "row has neither 5 values nor a class and the x, y pairs of a polygon"
    if values[0] + 1 not in label_map:
        return f"class {values[0]:g} is not among the names"
    if any(abs(value) > MAX_FRACTION for value in values[1:]):
        return "values are in pixels, not fractions of the image"
    return None


def _to_box(values: Sequence[float]) -> tuple[float, float, float, float]:
    """Converts cx, cy, width, height, or the corners x1, y1, x2, y2, ... of a polygon."""
    if len(values) == 4:
        x, y, width, height = values
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
