# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The layouts of Pascal VOC datasets: image lists, folders of splits, folders of XML files and images of any names."""

import collections
import dataclasses
import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataset.convert import pascal
from dataset.convert.annotation import Source, read_lines
from dataset.convert.split_names import SPLIT_WORDS, split_of
from dataset.convert.voc_set import ANNOTATIONS_DIRS, IMAGE_DIRS, VocSet
from dataset.prepare.folder_listing import FolderListing, ancestors, common_folder
from dataset.tfrecord import DataError

LISTS = "ImageSets/Main"
TOOL_LABEL_MAP = "pascal_label_map.pbtxt"  # of VoTT
ROOT_ELEMENT = re.compile(rb"<annotation[\s>]")
NO_ANNOTATION = "images without an XML file of their name, left out unless one states their name"
HEAD_BYTES = 4096
XML_SAMPLED = 5  # files per folder that are looked at

Splits = dict[str, list[VocSet]]


def find_annotations(listing: FolderListing) -> list[str]:
    """Returns the paths of the XML files with annotations of images, relative to the root of the listing."""
    return [
        os.path.join(folder, name)
        for folder, names in listing.with_suffix(".xml").items()
        if any(_is_annotation(listing.root / folder / name) for name in names[:XML_SAMPLED])
        for name in names
    ]


def find_splits(listing: FolderListing, paths: Sequence[str]) -> Splits:
    """Finds the image sets of every split of the XML files `paths`.

    Raises:
        DataError: if image lists exist, but none of a known split, or some annotations are in no split.
    """
    units, splits = collections.defaultdict(list), collections.defaultdict(list)
    unit_of = functools.cache(functools.partial(_unit_of, listing))
    for path in paths:
        units[unit_of(os.path.dirname(path))].append(path)
    for unit, of_unit in units.items():
        for split, voc_set in _find_sets(listing, unit, of_unit):
            splits[split].append(voc_set)
    unknown = splits.pop(None, [])
    if unknown and splits:
        shown = ", ".join(sorted(splits))
        raise DataError(
            f"the annotations in {unknown[0].annotations} are in no split, but others are ({shown}); move them into "
            "the folder of one, or elsewhere"
        )
    return {"train": unknown} if unknown else dict(splits)


def load(splits: Mapping[str, Sequence[VocSet]]) -> dict[str, Source]:
    """Reads the annotations of all splits.

    The label map is that of the tool, see TOOL_LABEL_MAP, or else the classes of all splits, ids from 1 in the order of
    their names.
    """
    voc_sets = [voc_set for sets in splits.values() for voc_set in sets]
    files = sorted({path for voc_set in voc_sets if (path := voc_set.folder / TOOL_LABEL_MAP).is_file()})
    if files:
        label_map = pascal.load_label_map(files[0])
    else:
        label_map = pascal.collect_label_map(list({voc_set.annotations: voc_set for voc_set in voc_sets}.values()))
    loaded = {split: pascal.load(sets, label_map=label_map) for split, sets in splits.items()}
    for path in _find_unannotated(voc_sets):
        next(iter(loaded.values())).report.note(NO_ANNOTATION, path)
    return loaded


def _find_unannotated(voc_sets: Sequence[VocSet]) -> list[str]:
    """Returns the images in the folders of sets without lists for which no annotation is named."""
    ids, images = collections.defaultdict(set), {}
    for voc_set in (voc_set for voc_set in voc_sets if voc_set.name == "all"):
        ids[voc_set.image_folder].update(voc_set.all_ids())
        images[voc_set.image_folder] = voc_set.images
    return [
        str(folder / name)
        for folder, names in images.items()
        for image_id, found in names.items()
        if image_id not in ids[folder]
        for name in found
    ]


def sources(place: Sequence[VocSet]) -> list[Path]:
    """Returns the files and folders that are read for a split."""
    return [
        path
        for voc_set in place
        for path in (voc_set.annotations, voc_set.image_folder, voc_set.folder / LISTS, voc_set.folder / TOOL_LABEL_MAP)
    ]


def show(place: Sequence[VocSet], root: Path) -> str:
    """Returns a split as text, with paths relative to a folder."""
    shown = []
    for voc_set in place:
        annotations = os.path.relpath(voc_set.annotations, root)
        shown.append(f"{annotations} (list {voc_set.name})" if voc_set.name != "all" else annotations)
    return " and ".join(shown)


def _is_annotation(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            # Without the zeros of UTF-16.
            return bool(ROOT_ELEMENT.search(file.read(HEAD_BYTES).replace(b"\0", b"")))
    except OSError:  # the conversion counts it
        return True


def _unit_of(listing: FolderListing, folder: str) -> str:
    """Returns the folder above XML files that has image lists or is a split, or else the folder of a year."""
    above = ancestors(folder)
    for parent in above:
        if os.path.join(parent, LISTS) in listing.names:
            return parent
    for parent in above[::-1]:
        if split_of(os.path.basename(parent)):
            return parent
    for parent in above:
        if os.path.basename(parent) in ANNOTATIONS_DIRS:
            return os.path.dirname(parent)
    return ""


def _find_sets(listing: FolderListing, unit: str, paths: Sequence[str]) -> list[tuple[str | None, VocSet]]:
    """Returns every (split or None, image set) of a unit with the XML files `paths`."""
    annotations = common_folder({os.path.dirname(path) for path in paths})
    ids = [path.removeprefix(f"{annotations}/") for path in paths]
    preferred = [annotations, *(os.path.join(unit, name) for name in IMAGE_DIRS), *_images_of_split(listing, unit)]
    images = listing.find_image_folder(ids, preferred)
    folder = listing.root / unit
    image_dir = listing.root / (annotations if images is None else images)
    voc_set = VocSet(folder, "all", os.path.relpath(annotations or ".", unit or "."), image_dir)
    if not voc_set.lists:
        return [(split_of(os.path.basename(unit)), voc_set)]
    return [(split, dataclasses.replace(voc_set, name=name)) for split, name in _choose_lists(voc_set).items()]


def _images_of_split(listing: FolderListing, unit: str) -> list[str]:
    """Returns the folders of images whose path shows the split of a unit."""
    split = split_of(os.path.basename(unit))
    return [folder for folder in listing.images if split and split in map(split_of, folder.split("/"))]


def _choose_lists(voc_set: VocSet) -> dict[str, str]:
    """Returns {split: name of its image set} of a folder with lists; lists of train win over trainval.

    An image set is a list `{set}.txt` or, if there are none, lists of classes `{class}_{set}.txt`.

    Raises:
        DataError: if no list with images shows a split, and there are several.
    """
    stems = [name.removesuffix(".txt") for name, path in voc_set.lists.items() if any(read_lines(path, "image list"))]
    of_classes = [stem.rpartition("_")[2] for stem in stems]
    by_word = {name.lower(): name for name in [*of_classes, *stems]}
    chosen = {}
    for split, words in SPLIT_WORDS.items():
        if word := next(filter(by_word.__contains__, words), None):
            chosen[split] = by_word[word]
    if chosen:
        return chosen
    if len(stems) == 1:
        return {"train": stems[0]}
    raise DataError(
        f"{voc_set.folder / LISTS} has no list with images of a known split ({', '.join(stems) or 'all are empty'}); "
        "expected train.txt, and val.txt and test.txt if there are such images"
    )
