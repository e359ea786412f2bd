# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The format and the splits of a dataset, found from the names of its files and the content of small ones."""

import collections
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from dataset.convert import coco, image_file, yolo
from dataset.convert.annotation import Source
from dataset.convert.split_names import SPLIT_WORDS, split_of
from dataset.files import check_local, reason_of
from dataset.prepare import coco_layout, folder_listing, record_layout, voc_layout, yolo_layout
from dataset.prepare.folder_listing import FolderListing
from dataset.tfrecord import DataError

COCO, VOC, YOLO, TFRECORD = FORMATS = ("coco", "voc", "yolo", "tfrecord")
NAMES = {COCO: "COCO", VOC: "Pascal VOC", YOLO: "YOLO", TFRECORD: "TFRecords"}
FINDERS: Mapping[str, ModuleType] = {
    COCO: coco_layout,
    VOC: voc_layout,
    YOLO: yolo_layout,
    TFRECORD: record_layout,
}
FILE_FORMATS = {".json": COCO, **dict.fromkeys([*yolo_layout.YAML_SUFFIXES, ".data", *yolo.NAMES_SUFFIXES], YOLO)}
EXPECTED = (
    "COCO (*.json with images, annotations and categories), Pascal VOC (*.xml), YOLO (data.yaml, obj.data or "
    "classes.txt, with *.txt) or TFRecords (train-*-of-*.tfrecord)"
)
SUFFIXES_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Layout:
    """A dataset as found on disk."""

    format: str  # one of FORMATS
    description: str  # one line: format, folder, splits and where they are
    folder: Path  # folder of the dataset: the given one, one in it, or that of the given file
    # {"train", "val", "test": CocoSplit, list of VocSet, YoloSplit or RecordSplit}, in this order
    splits: Mapping[str, Any]

    def load(self) -> dict[str, Source]:
        """Reads the annotations of all splits, with one label map; not for TFRecords.

        Raises:
            DataError: if annotations cannot be read, see the `load` of the format.
        """
        loaders = {COCO: coco.load_splits, VOC: voc_layout.load, YOLO: yolo_layout.load}
        return loaders[self.format](self.splits)

    def sources(self) -> list[Path]:
        """Returns the existing files and folders that `load` and the conversion read; some may be outside of `folder`.

        They are unchanged if the names, sizes and times of all files in and below them are.
        """
        found = {path for place in self.splits.values() for path in FINDERS[self.format].sources(place)}
        return sorted(path for path in found if path.exists())


def find(path: str | Path, data_format: str | None = None) -> Layout:
    """Finds format and splits of a dataset without reading large files.

    Args:
        path: folder of the dataset, or a folder that has only this folder; or data.yaml, obj.data, a list of class
            names, or one COCO file of training images.
        data_format: one of FORMATS, needed where the folder holds several; None to find it.

    Raises:
        DataError: if `path` does not exist, has no or several formats, lacks images, annotations or splits, or
            the splits are ambiguous.
    """
    check_local(path, "data")
    try:
        return _find(Path(path), data_format)
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {reason_of(error)}") from error


def _find(path: Path, data_format: str | None) -> Layout:
    if path.is_file():
        return _find_file(path, data_format)
    if not path.is_dir():
        raise DataError(f"{path} does not exist; expected a folder, a file or a .zip of {EXPECTED}")
    listing = _enter_only_folder(folder_listing.scan(path))
    finders = FINDERS if data_format is None else {data_format: FINDERS[data_format]}
    found = {name: annotations for name, finder in finders.items() if (annotations := finder.find_annotations(listing))}
    data_format = data_format or _choose_format(listing, found)
    if data_format not in found:
        raise DataError(
            f"found {_show_files(listing)} in {path}, but nothing of {NAMES[data_format]}; expected {EXPECTED}"
        )
    annotations = found[data_format]
    # Images of a data.yaml may be elsewhere.
    if not listing.images and data_format != TFRECORD and not yolo_layout.is_data_file(annotations[0]):
        raise DataError(
            f"found {len(annotations)} annotations of {NAMES[data_format]} and no image in {listing.root}; put the "
            "images beside the annotations, or in a folder beside theirs"
        )
    return _create(data_format, listing.root, FINDERS[data_format].find_splits(listing, annotations))


def _find_file(path: Path, data_format: str | None) -> Layout:
    known = FILE_FORMATS.get(path.suffix.lower())
    if not known or data_format not in (None, known):
        expected = NAMES[data_format] if data_format else EXPECTED
        raise DataError(f"{path} is not a file of {expected}; give the folder of the dataset")
    path = path.absolute()
    if known == YOLO and path.suffix.lower() not in yolo.NAMES_SUFFIXES:
        return _create(YOLO, path.parent, yolo_layout.place_data_file(path))
    listing = folder_listing.scan(path.parent, skip_unreadable=True)
    if not listing.images and listing.root.parent != listing.root:  # images beside the folder of the annotations
        listing = folder_listing.scan(listing.root.parent, skip_unreadable=True)
    file = os.path.relpath(path, listing.root)
    if known == YOLO:
        return _create(YOLO, listing.root, yolo_layout.place_names_file(listing, file))
    if not coco_layout.is_annotation_file(path):
        raise DataError(f"{path} has no lists of images, annotations and categories; expected a COCO annotation file")
    split = split_of(path.stem) or "train"
    return _create(COCO, listing.root, {split: coco_layout.place(listing, file, split)})


def _enter_only_folder(listing: FolderListing) -> FolderListing:
    """Returns the listing of the only subfolder, repeatedly, if there are no data beside it and it is no split."""
    suffixes = tuple(suffix for suffix in (*FILE_FORMATS, ".xml", ".tfrecord") if suffix != ".txt")
    while True:
        beside = FolderListing(listing.root, {"": listing.names.get("", [])})
        has_names = any(name.lower() in yolo_layout.NAMES_FILES for name in beside.names[""])
        folders = listing.children()
        if len(folders) != 1 or split_of(folders[0]) or has_names or beside.images or beside.with_suffix(*suffixes):
            return listing
        listing = listing.below(folders[0])


def _choose_format(listing: FolderListing, found: Mapping[str, Sequence[str]]) -> str:
    """Returns the only format of {format: paths of annotations}."""
    if not found:
        raise DataError(f"found {_show_files(listing)} and no annotations in {listing.root}; expected {EXPECTED}")
    if len(found) > 1:
        shown = " and ".join(f"{NAMES[name]} ({paths[0]})" for name, paths in found.items())
        flags = " or ".join(f"--data_format={name}" for name in found)
        raise DataError(f"{listing.root} holds several formats, {shown}; choose one with {flags}")
    return next(iter(found))


def _create(data_format: str, folder: Path, splits: Mapping[str, Any]) -> Layout:
    splits = {split: splits[split] for split in SPLIT_WORDS if split in splits}
    if not splits:
        raise DataError(f"{folder} has no split of images; expected one that is called train, val or test")
    shown = "; ".join(f"{split}: {FINDERS[data_format].show(place, folder)}" for split, place in splits.items())
    return Layout(data_format, f"{NAMES[data_format]} in {folder}: {shown}", folder, splits)


def _show_files(listing: FolderListing) -> str:
    """Returns the numbers of files by kind, such as "40 images, 2 .csv"."""
    names = [name for names in listing.names.values() for name in names]
    others = collections.Counter(
        os.path.splitext(name)[1].lower() or name for name in names if not name.lower().endswith(image_file.SUFFIXES)
    )
    shown = [f"{listing.num_images} images"] if listing.images else []
    shown += [f"{number} {suffix}" for suffix, number in others.most_common(SUFFIXES_SHOWN)]
    return ", ".join(shown) or "no files"
