# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The layout of a folder of TFRecords as the converters write it: shards of each split, label map and groundtruth."""

import collections
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dataset.convert import shards
from dataset.convert.split_names import split_of
from dataset.prepare.folder_listing import FolderListing
from dataset.tfrecord import DataError

SHARD = re.compile(r"(?P<prefix>.+)-\d{5}-of-(?P<number>\d{5})(\.tfrecord)?", re.ASCII)


class RecordSplit(NamedTuple):
    """Files of a split."""

    file_pattern: str
    groundtruth: Path | None  # COCO JSON, if there is one
    label_map: Path | None


def find_annotations(listing: FolderListing) -> list[str]:
    """Returns the names of the shards of splits directly in the folder."""
    found = map(SHARD.fullmatch, listing.names.get("", []))
    return [match[0] for match in found if match and split_of(match["prefix"])]


def find_splits(listing: FolderListing, names: Sequence[str]) -> dict[str, RecordSplit]:
    """Finds the files of every split of the shards `names`.

    Raises:
        DataError: if there are records of several datasets, or shards are missing.
    """
    found = {}
    for match in map(SHARD.fullmatch, names):
        dataset = match["prefix"], int(match["number"])
        found.setdefault(split_of(match["prefix"]), collections.Counter())[dataset] += 1
    splits = {}
    for split, datasets in found.items():
        if len(datasets) > 1:
            shown = ", ".join(f"{prefix}-*-of-{number:05d}" for prefix, number in datasets)
            raise DataError(f"{listing.root} has several sets of records of the split {split}: {shown}; expected one")
        [((prefix, number), num_found)] = datasets.items()
        if num_found != number:
            raise DataError(f"{listing.root} has {num_found} of {number} shards of {prefix}; copy the missing ones")
        splits[split] = RecordSplit(
            f"{listing.root / prefix}-*-of-{number:05d}*",
            _companion(listing.root / prefix, "json", ".json"),
            _companion(listing.root / prefix, "label_map", ".yaml"),
        )
    return splits


def sources(place: RecordSplit) -> list[Path]:
    """Returns the files and folders that are read for a split."""
    return [Path(place.file_pattern).parent]


def show(place: RecordSplit, root: Path) -> str:
    """Returns a split as text, with paths relative to a folder."""
    groundtruth = f" with {place.groundtruth.name}" if place.groundtruth else ""
    return os.path.relpath(place.file_pattern, root) + groundtruth


def _companion(prefix: Path, kind: str, suffix: str) -> Path | None:
    path = Path(shards.companion_path(prefix, kind, suffix))
    return path if path.is_file() else None
