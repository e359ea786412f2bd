# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The layouts of YOLO datasets: data.yaml, Darknet's obj.data, or only a list of the names of classes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import logging

from dataset.convert import yolo
from dataset.convert.annotation import Source
from dataset.convert.image_file import ImageError
from dataset.convert.split_names import split_of
from dataset.prepare.folder_listing import FolderListing, ancestors
from dataset.tfrecord import DataError
from efficientdet import config as config_lib
from efficientdet import hparams

YAML_SUFFIXES = (".yaml", ".yml")
DATA_FILES = ("data.yaml", "data.yml", "dataset.yaml", "obj.data")  # preferred to files of other names
NAMES_FILES = ("classes.txt", "names.txt", "labels.txt", "obj.names")
MAX_DATA_BYTES = 1 << 20  # larger files are no lists of names
LABELS_SAMPLED = 20  # files per folder that are looked at


class YoloSplit(NamedTuple):
    """Arguments of `yolo.load`: the split of a data.yaml or obj.data, or the folders for a list of names."""

    data: Path
    split: str | None = None
    image_dir: Path | None = None
    label_dir: Path | None = None


def find_annotations(listing: FolderListing) -> list[str]:
    """Returns the paths of files that state the names of classes, or else of label files; relative to the listing."""
    labels = _find_label_folders(listing)
    return _find_data_files(listing) or (_find_names_files(listing) if labels else []) or list(labels.values())


def find_splits(listing: FolderListing, paths: Sequence[str]) -> dict[str, YoloSplit]:
    """Finds the images of every split of the files that `find_annotations` returned.

    Raises:
        DataError: if there is no or more than one file of names, or it is invalid.
    """
    preferred = [path for path in paths if path in DATA_FILES]
    paths = preferred[:1] or paths
    is_data = is_data_file(paths[0])
    if not (is_data or _is_names_file(paths[0])):
        raise DataError(
            f"found YOLO labels such as {listing.root / paths[0]}, but no names of classes; expected data.yaml with "
            "names, or classes.txt with a name per line beside the labels"
        )
    if len(paths) > 1:
        raise DataError(f"{listing.root} has several lists of names: {', '.join(paths)}; give one of them as PATH")
    return place_data_file(listing.root / paths[0]) if is_data else place_names_file(listing, paths[0])


def place_data_file(path: Path) -> dict[str, YoloSplit]:
    """Returns the splits of data.yaml or obj.data; val and test are left out with a warning if they do not exist.

    Raises:
        DataError: if the file is invalid, or the training images do not exist.
    """
    splits = {}
    for split, (key, places) in yolo.find_splits(path).items():
        missing = [place for place in places if not place.exists()]
        if missing and split == "train":
            raise DataError(f"{path}: {missing[0]} does not exist; put the images of {key} there, or correct the path")
        if missing:
            logging.warning("%s: %s does not exist, split %s is left out", path, missing[0], key)
        else:
            splits[split] = YoloSplit(path, key)
    return splits


def place_names_file(listing: FolderListing, path: str) -> dict[str, YoloSplit]:
    """Returns the splits of a dataset that has only a list of names: subfolders of its images, or all of them.

    A list in the folder of a split is that of all splits. A split may have its images and labels in folders of these
    names.

    Args:
        path: the list of names, relative to the listing.

    Raises:
        DataError: if there is no image, or there are several subfolders of one split, or images beside them.
    """
    data, folder = listing.root / path, os.path.dirname(path)
    above = [os.path.dirname(parent) for parent in ancestors(folder) if split_of(os.path.basename(parent))]
    labels = yolo.labels_in(listing.root / (above[-1] if above else folder))
    inside = os.path.relpath(labels, listing.root).removeprefix(".")
    files = listing.below(inside).with_suffix(".txt")
    names = [_image_name(folder, name) for folder, texts in files.items() for name in texts if not _is_names_file(name)]
    images = listing.find_image_folder(names, [inside, "images"])
    if images is None:
        raise DataError(f"found YOLO labels in {labels}, but no image in {listing.root} or below it")
    below = listing.below(images)
    folders = [folder for folder in below.children() if split_of(folder) and below.below(folder).images]
    if not folders:
        return {"train": YoloSplit(data, image_dir=below.root, label_dir=labels)}
    splits = {
        split_of(folder): YoloSplit(
            data, image_dir=yolo.images_in(below.root / folder), label_dir=yolo.labels_in(labels / folder)
        )
        for folder in folders
    }
    if len(splits) < len(folders) or "" in below.images:
        raise DataError(
            f"{below.root} has the subfolders {', '.join(folders)}{' and images beside them' * ('' in below.images)}; "
            "expected one for each of train, val and test, with all images"
        )
    return splits


def load(splits: Mapping[str, YoloSplit]) -> dict[str, Source]:
    """Reads the annotations of all splits; their label map is that of the names."""
    return {
        split: yolo.load(place.data, place.split, image_dir=place.image_dir, label_dir=place.label_dir)
        for split, place in splits.items()
    }


def sources(place: YoloSplit) -> list[Path]:
    """Returns the files and folders that are read for a split."""
    return [place.data, place.image_dir, place.label_dir] if place.image_dir else yolo.sources(place.data, place.split)


def show(place: YoloSplit, root: Path) -> str:
    """Returns a split as text, with paths relative to a folder."""
    shown = [os.path.relpath(place.data, root), place.split]
    shown += [f"with images in {os.path.relpath(place.image_dir, root)}"] if place.image_dir else []
    return " ".join(filter(None, shown))


def is_data_file(path: str) -> bool:
    """Returns True for the name of a data.yaml or obj.data, which may name images elsewhere."""
    return path.lower().endswith((*YAML_SUFFIXES, ".data"))


def _is_names_file(path: str) -> bool:
    name = os.path.basename(path).lower()
    return name in NAMES_FILES or name.endswith(".names")


def _image_name(folder: str, name: str) -> str:
    """Returns the path of the image of a label file, as in `yolo.label_path`, with the suffix of the latter."""
    return os.path.join(*("images" if part == "labels" else part for part in folder.split("/")), name)


def _find_data_files(listing: FolderListing) -> list[str]:
    """Returns the paths of files of splits and names, at most one folder deep."""
    found = listing.with_suffix(*YAML_SUFFIXES, ".data")
    paths = [os.path.join(folder, name) for folder, names in found.items() for name in names if "/" not in folder]
    return [path for path in paths if path in DATA_FILES or _has_names(listing.root / path)]


def _has_names(path: Path) -> bool:
    if path.stat().st_size > MAX_DATA_BYTES:
        return False
    if path.suffix == ".data":
        return "names" in path.read_text("utf-8", "replace")
    try:
        return "names" in hparams.read_yaml(str(path))
    except config_lib.ConfigError:
        return False


def _find_names_files(listing: FolderListing) -> list[str]:
    """Returns the paths of lists of names; of equal ones, only the first."""
    by_content = {}
    for folder, names in listing.with_suffix(".txt", ".names").items():
        for name in names:
            if _is_names_file(name):
                path = os.path.join(folder, name)
                by_content.setdefault((listing.root / path).read_bytes().strip(), path)
    return list(by_content.values())


def _find_label_folders(listing: FolderListing) -> dict[str, str]:
    """Returns {subfolder: path of a label file in it, relative to the listing}."""
    found = {}
    for folder, names in listing.with_suffix(".txt").items():
        for name in [name for name in names if not _is_names_file(name)][:LABELS_SAMPLED]:
            path = listing.root / folder / name
            try:
                is_label = path.stat().st_size > 1 and yolo.is_label_file(path)
            except (ImageError, OSError):  # text of another encoding
                is_label = False
            if is_label:
                found[folder] = os.path.join(folder, name)
                break
    return found
