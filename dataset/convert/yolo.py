# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The reader of YOLO text labels."""

import functools
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset import label_map as label_map_lib
from dataset.convert import image_file
from dataset.convert.annotation import (
    AnnotatedObject,
    Annotation,
    Source,
    number_images,
    parse_numbers,
    read_lines,
)
from dataset.convert.conversion_report import ConversionReport
from dataset.convert.split_names import SPLIT_WORDS, find_synonym, split_of
from dataset.file_search import HIDDEN_IGNORED, find_in
from dataset.files import check_local
from dataset.tfrecord import DataError
from efficientdet import config as config_lib
from efficientdet import hparams

MAX_FRACTION = 1.5  # boxes may extend beyond the image; larger values are pixels
NAMES_SUFFIXES = (".txt", ".names")

Image = tuple[Path, str, Path]  # folder, path of the image in it, and its label file


def load(
    data: str | Path,
    split: str | None = None,
    *,
    image_dir: str | Path | None = None,
    label_dir: str | Path | None = None,
) -> Source:
    """Reads a dataset and finds the images of a split; image ids count from 1.

    Args:
        data: data.yaml; obj.data, its counterpart in Darknet; or a list of the class names, such as classes.txt, for
            datasets that have neither.
        split: key of data.yaml or obj.data, by default "train"; or a subfolder of the images of a list of names, by
            default all of them.
        image_dir: folder of the images, only for a list of names, see `_find_folders`.
        label_dir: folder of the label files; needs image_dir, and that both are those of the split.

    Raises:
        DataError: if the file cannot be read, lacks the split or the names, the split or `path` does not exist, or no
            image has a label file.
    """
    check_local(data, "data_yaml")
    check_local(image_dir or "", "image_dir")
    data, report = Path(data), ConversionReport()
    if data.suffix.lower() in NAMES_SUFFIXES:
        label_map = _number_names(_read_names_file(data))
        folders = (Path(image_dir), Path(label_dir)) if label_dir else _find_folders(data, split, image_dir)
        images = _find_by_folders(*folders, report)
    elif image_dir:
        raise DataError(f"image_dir is for lists of names, such as classes.txt; {data} itself states where images are")
    else:
        label_map, images = _find_by_splits(data, split or "train", report)
    items = number_images([(str(item[0] / item[1]), item) for item in images], report)
    if not any(labels.is_file() for _, _, labels, _ in items):
        raise DataError(f"none of the {len(items)} images has a label file; expected files such as {items[0][2]}")
    read = functools.partial(_read_annotation, label_map=label_map)
    find_error = functools.partial(_find_offset, label_map=label_map)
    return Source(items, read, _find_image, label_map, report, find_error=find_error)


def _find_by_splits(data: Path, split: str, report: ConversionReport) -> tuple[dict[int, str], list[Image]]:
    """Returns the names and the images of a split of data.yaml or obj.data.

    The key `path` is relative to the folder of the file or, if that does not exist, to the working directory. The
    split, a folder of images, a .txt list of images or several of these, is relative to `path`.
    """
    content = _read_data(data)
    label_map = _read_names(content, data)
    if "kpt_shape" in content:
        raise DataError(f"{data} has kpt_shape; expected labels of boxes or polygons, not of keypoints")
    entries = _read_entries(content, split, data)
    root = _find_root(content, data)
    images = [image for entry in entries for image in _find_images(root, entry, report)]
    if not images:
        suffixes = ", ".join(image_file.SUFFIXES)
        raise DataError(f"{split} of {data} has no image ({suffixes}) in {', '.join(entries)}")
    return label_map, images


def sources(data: Path, split: str | None) -> list[Path]:
    """Returns the files and folders that `load` reads for a data.yaml or obj.data, without looking at the images."""
    content = _read_data(data)
    root, found = _find_root(content, data), {data}
    for path in (_locate(root, entry) for entry in _read_entries(content, split or "train", data)):
        images = [path / "any"] if path.is_dir() else _read_image_list(path)
        found |= {path, *(folder for image in images for folder in (image.parent, label_path(image).parent))}
    return sorted(found)


def find_splits(data: Path) -> dict[str, tuple[str, list[Path]]]:
    """Returns {split: (its key, its folders or lists of images)} of data.yaml or obj.data.

    Raises:
        DataError: if the file cannot be read, a value is not a path, or `path` does not exist.
    """
    content, splits = _read_data(data), {}
    for split, words in SPLIT_WORDS.items():
        if key := next(filter(content.get, words), None):
            entries, root = _read_entries(content, key, data), _find_root(content, data)
            splits[split] = key, [_locate(root, entry) for entry in entries]
    return splits


def _read_data(data: Path) -> Mapping[str, Any]:
    """Returns the content of data.yaml or obj.data."""
    try:
        return _read_darknet(data) if data.suffix == ".data" else hparams.read_yaml(str(data))
    except config_lib.ConfigError as error:
        raise DataError(f"cannot use data_yaml: {error}") from error


def _read_entries(content: Mapping, split: str, data: Path) -> list[str]:
    """Returns the folders and lists of a split as they are written."""
    splits = [key for key, entries in content.items() if entries and split_of(str(key))]
    entries = content.get(find_synonym(split, splits) or split)
    if not entries:
        others = ", ".join(map(str, splits)) or "none"
        raise DataError(f"{data} has no split {split!r} (available: {others}); add it, or choose another --split")
    entries, root = [entries] if isinstance(entries, str) else entries, content.get("path") or ""
    if not (isinstance(entries, list) and all(isinstance(text, str) for text in [*entries, root])):
        raise DataError(
            f"{data}: expected path to be a folder, and {split} a folder, a .txt list or several of them, got "
            f"{reprlib.repr(root)} and {reprlib.repr(entries)}"
        )
    for text in (root, *entries):
        check_local(text, f"a path in {data}")
    return entries


def _find_root(content: Mapping, data: Path) -> Path:
    """Returns the folder to which the splits are relative."""
    root = content.get("path") or ""
    tried = [data.resolve().parent / root, Path.cwd() / root]
    folders = [folder for folder in tried if folder.is_dir()]
    if not folders:
        shown = " and ".join(dict.fromkeys(map(str, tried)))
        raise DataError(f"path: {root} is not a folder (tried {shown}); set it to the folder of the dataset")
    return folders[0]


def _read_darknet(path: Path) -> dict[str, Any]:
    """Reads obj.data, of lines such as `valid = data/valid.txt`, as the content of a data.yaml."""
    pairs = [line.partition("=") for line in read_lines(path, "data file") if line and not line.startswith("#")]
    content = {key.strip(): value.strip() for key, _, value in pairs}
    if "names" not in content:
        raise DataError(f"{path}: expected a line such as names = data/obj.names")
    names = _read_names_file(_locate(path.parent, content["names"]))
    if content.get("classes", str(len(names))) != str(len(names)):
        raise DataError(
            f"{path}: classes is {content['classes']}, but there are {len(names)} names; correct one of them"
        )
    return {**content, "names": names}


def _read_names(content: Mapping, data_yaml: Path) -> dict[int, str]:
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not (isinstance(names, dict) and names and all(type(class_id) is int for class_id in names)):
        raise DataError(f"{data_yaml}: expected names as a list or as {{0: name, ...}}, got {str(names)[:80]}")
    if content.get("nc", len(names)) != len(names):
        raise DataError(f"{data_yaml}: nc is {content['nc']}, but there are {len(names)} names; correct one of them")
    return _number_names(names)


def _read_names_file(path: Path) -> dict[int, str]:
    """Returns {id: name} of a file with a name per line, ids from 0."""
    names = read_lines(path, "list of names")
    while names and not names[-1]:
        names.pop()
    if "" in names:
        line = names.index("") + 1
        raise DataError(f"{path}, line {line}: the name of class {line - 1} is blank; add it or remove the line")
    if not names or any(Path(name).suffix.lower() in image_file.SUFFIXES or _is_row(name) for name in names):
        raise DataError(f"{path}: expected the name of a class in every line, got {reprlib.repr(names)}")
    return dict(enumerate(names))


def _number_names(names: Mapping[int, str]) -> dict[int, str]:
    """Returns the label map, in which classes count from 1."""
    try:
        return label_map_lib.resolve({class_id + 1: name for class_id, name in names.items()})
    except label_map_lib.LabelMapError as error:
        raise DataError(f"cannot use the names of classes: {error}") from error


def _find_folders(names_file: Path, split: str | None, image_dir: str | Path | None) -> tuple[Path, Path]:
    """Returns the folders of the images and of the label files of a dataset that has only a list of names.

    The label files are in `labels` beside the list or, without such a folder, beside the list itself. The images are
    in image_dir; by default in `images` beside the list, beside a list in `labels`, or beside the list itself. A split
    is a subfolder of both, or one with its own `images` and `labels`.
    """
    base = names_file.resolve().parent
    labels, images = labels_in(base), [base / "images", base]
    if labels == base and base.name == "labels":
        images.insert(1, base.with_name("images"))
    folder = Path(image_dir).resolve() if image_dir else next(path for path in images if path.is_dir())
    splits = sorted(path.name for path in folder.glob("*") if path.is_dir() and split_of(path.name))
    if split and not (folder / split).is_dir():
        raise DataError(
            f"{folder} has no subfolder {split!r} of images (available: {', '.join(splits) or 'none'}); choose another "
            "--split, or leave it out for all images"
        )
    if splits and not split:
        raise DataError(f"{folder} has the subfolders {', '.join(splits)}; choose one with --split")
    return images_in(folder / (split or "")), labels_in(labels / (split or ""))


def _find_by_folders(folder: Path, labels: Path, report: ConversionReport) -> list[Image]:
    """Finds the images in a folder, with the label files at the same places in another one."""
    found = _images_in(folder, lambda image: labels / image.relative_to(folder).with_suffix(".txt"), report)
    if not found:
        raise DataError(f"no image ({', '.join(image_file.SUFFIXES)}) in {folder}; give --image_dir")
    return found


def images_in(folder: Path) -> Path:
    """Returns the folder of the images in the folder of a dataset or of a split."""
    return folder / "images" if (folder / "images").is_dir() else folder


def labels_in(folder: Path) -> Path:
    """Returns the folder of the label files in the folder of a dataset or of a split."""
    return folder / "labels" if (folder / "labels").is_dir() else folder


def _find_images(root: Path, entry: str, report: ConversionReport) -> list[Image]:
    """Finds the images in a folder and its subfolders, or in a .txt list."""
    path = _locate(root, entry)
    if path.is_dir():
        return _images_in(path, label_path, report)
    return [(root, os.path.relpath(image, root), label_path(image)) for image in _read_image_list(path)]


def _read_image_list(path: Path) -> list[Path]:
    return [_locate(path.parent, line) for line in read_lines(path, "folder or list of images") if line]


def _locate(folder: Path, text: str) -> Path:
    """Returns a path in a folder, without the `../` or `data/` that some exporters write before it.

    Raises:
        DataError: if it exists both with and without `../`, of which the exporters mean the latter.
    """
    if not (folder / text).exists():
        text = text.replace("\\", "/")
    first, _, rest = text.partition("/")
    path, inside = folder / text, folder / rest
    if first == ".." and rest and path.exists() and inside.exists():
        raise DataError(
            f"{text} may be {path.resolve()} or {inside}, which both exist; remove ../, or write a full path"
        )
    return inside if first in ("..", "data") and rest and not path.exists() else path


def _images_in(folder: Path, labels_of: Callable[[Path], Path], report: ConversionReport) -> list[Image]:
    """Finds the images in a folder and its subfolders, and those of label files without an image, to count them."""
    labels = labels_of(folder / "any").parent
    found, found_labels = find_in(folder, "**"), find_in(labels, "**/*.txt")
    for file in dict.fromkeys([*found.hidden, *found_labels.hidden]):
        report.note(HIDDEN_IGNORED, file)
    images = sorted(file for file in map(Path, found.files) if file.suffix.lower() in image_file.SUFFIXES)
    known = {labels_of(image) for image in images}
    if images:
        lost = sorted(path for path in map(Path, found_labels.files) if path not in known and is_label_file(path))
        images += [folder / path.relative_to(labels).with_suffix(".jpg") for path in lost]
    return [(folder, str(image.relative_to(folder)), labels_of(image)) for image in images]


def is_label_file(path: Path) -> bool:
    """Returns False for other text, such as a list of names."""
    return all(map(_is_row, [line for line in read_lines(path, "label file") if line][:1]))


def _is_row(line: str) -> bool:
    return len(parse_numbers(line.split()) or ()) >= 5


def label_path(image_path: Path) -> Path:
    """Returns the path of an image's labels: `labels` for the last folder `images`, if there is one, and .txt.

    >>> label_path(Path("data/images/train/a.jpg")).as_posix()
    'data/labels/train/a.txt'
    """
    *folders, name = image_path.parts
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return Path(*folders, name).with_suffix(".txt")


def _read_annotation(
    item: tuple[Path, str, Path, str], report: ConversionReport, *, label_map: Mapping[int, str]
) -> Annotation:
    """Reads an Image with its source id; invalid rows are left out and noted. No label file means no objects."""
    _, _, labels, source_id = item
    (name, image_path), rows, objects = _find_image(item), [], []
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
            if len(values) > 5:
                report.note("polygons, replaced by the boxes that enclose them", f"{label} of {name}")
            objects.append(AnnotatedObject(_to_box(values[1:]), class_id, label_map[class_id], label))
    return Annotation(image_path, name, source_id, None, objects, normalized=True)


def _find_image(item: tuple[Path, str, Path, str]) -> tuple[str, Path]:
    folder, name, _, _ = item
    return name, image_file.find(folder, name)


def _find_fault(values: Sequence[float] | None, label_map: Mapping[int, str]) -> str | None:
    """Returns the reason why the numbers of a row cannot be used, or None."""
    if values is None:
        return "row has values that are not finite numbers"
    if len(values) == 6:
        return "row has 6 values, like predictions with scores; expected 5, or a polygon"
    if len(values) < 5 or len(values) % 2 == 0:
        return "row has neither 5 values nor a class and the x, y pairs of a polygon"
    if values[0] + 1 not in label_map:
        known = f"which are those of {min(label_map) - 1} to {max(label_map) - 1}"
        return f"{_unknown(values[0])}, {known}: is one missing, or do the labels count from 1?"
    if any(abs(value) > MAX_FRACTION for value in values[1:]):
        return "values are in pixels, not fractions of the image"
    return None


def _unknown(class_id: float) -> str:
    return f"class {class_id:g} is not among the names"


def _find_offset(num_boxes: Mapping[int, int], report: ConversionReport, *, label_map: Mapping[int, str]) -> str | None:
    """Returns an error if the labels count classes from 1: all but those of the last class would get a wrong name."""
    first, last = min(label_map) - 1, max(label_map) - 1
    beyond = sum(n for reason, n in report.left_out["boxes"].items() if reason.startswith(f"{_unknown(last + 1)},"))
    if num_boxes.get(first + 1) or not beyond:
        return None
    return (
        f"no box is of class {first} ({label_map[first + 1]}), but {beyond} are of class {last + 1}, beyond the names: "
        f"the labels seem to count from {first + 1}; insert a name that is not used as the first, or correct the rows"
    )


def _to_box(values: Sequence[float]) -> tuple[float, float, float, float]:
    """Converts cx, cy, width, height, or the corners x1, y1, x2, y2, ... of a polygon."""
    if len(values) == 4:
        x, y, width, height = values
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
