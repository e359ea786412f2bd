# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The layouts of COCO datasets: an annotation file per split, and images in folders of any names."""

import contextlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from dataset.convert.coco import CocoSplit
from dataset.convert.split_names import split_of
from dataset.prepare.folder_listing import FolderListing, ancestors
from dataset.tfrecord import DataError

# Files beside those of the objects: keypoints and captions of COCO, and those of the writers of TFRecords.
OTHER_FILES = re.compile(r"(captions|person_keypoints|image_info|stuff|panoptic|_?report|_?json)_")
LISTS = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
PART_BYTES = 1 << 16  # bytes that are read at both ends of a file
NAMES_SHOWN = 4  # in error messages


def find_annotations(listing: FolderListing) -> list[str]:
    """Returns the paths of the annotation files, relative to the root of the listing."""
    paths = [os.path.join(folder, name) for folder, names in listing.with_suffix(".json").items() for name in names]
    return [path for path in paths if is_annotation_file(listing.root / path)]


def is_annotation_file(path: Path) -> bool:
    """Returns True for a JSON file with lists of images, annotations and categories, as far as its two ends show it."""
    if OTHER_FILES.match(path.name):
        return False
    found = set(LISTS.findall(_read_ends(path)))
    return len(found) == 3 if path.stat().st_size <= 2 * PART_BYTES else bool(found)


def find_splits(listing: FolderListing, paths: Sequence[str]) -> dict[str, CocoSplit]:
    """Finds annotation file and folder of images of every split of the annotation files `paths`.

    The name of the file tells the split, as in instances_val2017.json, or else that of a folder above it. A single file
    of no split is "train".

    Raises:
        DataError: if there are several files of one split, or of none.
    """
    by_split = {}
    for path in paths:
        by_split.setdefault(_split_of(path), []).append(path)
    unknown = by_split.get(None, [])
    if len(paths) == 1 and unknown:
        by_split = {"train": unknown}
    elif unknown:
        raise DataError(
            f"{listing.root} has {len(paths)} COCO files, and the names of some show no split: {_show(unknown)}; name "
            "them such as train.json and val.json, or give one file as PATH"
        )
    for split, files in by_split.items():
        if len(files) > 1:
            raise DataError(
                f"{listing.root} has {len(files)} COCO files of the split {split}: {_show(files)}; expected one, "
                "remove the others, or give one file as PATH"
            )
    return {split: place(listing, file, split) for split, [file] in by_split.items()}


def place(listing: FolderListing, path: str, split: str) -> CocoSplit:
    """Returns an annotation file of the listing with the folder that has its images, as far as names show it."""
    names = []
    for text in FILE_NAME.findall(_read_ends(listing.root / path)):
        with contextlib.suppress(ValueError):  # the conversion reports it
            names.append(json.loads(text).replace("\\", "/").removeprefix("./"))
    of_split = [folder for folder in listing.images if split in map(split_of, folder.split("/"))]
    images = listing.find_image_folder(names, [os.path.dirname(path), *of_split, "images"])
    if images is None:
        raise DataError(f"found the COCO file {listing.root / path}, but no image in {listing.root} or below it")
    return CocoSplit(listing.root / path, listing.root / images)


def sources(place: CocoSplit) -> list[Path]:
    """Returns the files and folders that are read for a split."""
    return list(place)


def show(place: CocoSplit, root: Path) -> str:
    """Returns a split as text, with paths relative to a folder."""
    return f"{os.path.relpath(place.annotations, root)} with images in {os.path.relpath(place.image_dir, root)}"


def _split_of(path: str) -> str | None:
    names = [os.path.splitext(os.path.basename(path))[0], *map(os.path.basename, ancestors(os.path.dirname(path)))]
    return next(filter(None, map(split_of, names)), None)


def _read_ends(path: Path) -> bytes:
    """Returns the first and the last bytes of a file, the whole of a small one; without the zeros of UTF-16."""
    with open(path, "rb") as file:
        start, size = file.read(PART_BYTES), os.fstat(file.fileno()).st_size
        file.seek(max(PART_BYTES, size - PART_BYTES))
        return (start + file.read()).replace(b"\0", b"")


def _show(paths: Sequence[str]) -> str:
    more = f", and {len(paths) - NAMES_SHOWN} more" if len(paths) > NAMES_SHOWN else ""
    return ", ".join(paths[:NAMES_SHOWN]) + more
