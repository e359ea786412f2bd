# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The files of a folder and its subfolders, listed once, and the folders in it that have the images of annotations."""

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dataset.convert import image_file
from dataset.file_search import is_hidden
from dataset.files import reason_of
from dataset.tfrecord import DataError

NAMES_SAMPLED = 50  # names of images that are looked up to choose their folder


@dataclasses.dataclass(frozen=True)
class FolderListing:
    """Names of the visible files below a folder; subfolders are paths relative to it, "" for the folder itself."""

    root: Path
    names: Mapping[str, Sequence[str]]  # {subfolder: sorted names of its files}, without subfolders that have none

    def with_suffix(self, *suffixes: str) -> dict[str, list[str]]:
        """Returns {subfolder: names of its files with one of the suffixes}, in lower case, without empty lists."""
        found = {
            folder: [name for name in names if name.lower().endswith(suffixes)] for folder, names in self.names.items()
        }
        return {folder: names for folder, names in found.items() if names}

    @functools.cached_property
    def images(self) -> Mapping[str, list[str]]:
        """Names of the images of every subfolder that has some."""
        return self.with_suffix(*image_file.SUFFIXES)

    @functools.cached_property
    def num_images(self) -> int:
        """Number of the images."""
        return sum(map(len, self.images.values()))

    def children(self) -> list[str]:
        """Returns the names of the subfolders that have a file in or below them."""
        return sorted({folder.partition("/")[0] for folder in self.names} - {""})

    def below(self, folder: str) -> "FolderListing":
        """Returns the listing of a subfolder; this one for ""."""
        if not folder:
            return self
        prefix = f"{folder}/"
        names = {path.removeprefix(prefix): names for path, names in self.names.items() if path.startswith(prefix)}
        if folder in self.names:
            names[""] = self.names[folder]
        return FolderListing(self.root / folder, names)

    def find_image_folder(self, names: Sequence[str], preferred: Iterable[str] = ()) -> str | None:
        """Returns the subfolder with most of the images that annotations name, or None if there are no images.

        Args:
            names: paths of images relative to the folder that is searched, in which "/" separates folders; suffixes are
                ignored.
            preferred: subfolders that win over others with as many of the images.
        """
        if not self.images:
            return None
        folders = [folder for image_folder in self.images for folder in ancestors(image_folder)]
        known = set(folders)
        candidates = [folder for folder in dict.fromkeys([*preferred, *self.images, *folders]) if folder in known]
        sample = [os.path.splitext(name)[0] for name in names[:: -(-len(names) // NAMES_SAMPLED) or 1]]
        for stems in (sample, list(map(os.path.basename, sample))):
            found = {folder: sum(os.path.join(folder, stem) in self._stems for stem in stems) for folder in candidates}
            best = max(candidates, key=found.__getitem__)
            if found[best]:
                return best
        return candidates[0]

    @functools.cached_property
    def _stems(self) -> frozenset[str]:
        """Paths of all images without suffix."""
        return frozenset(
            os.path.splitext(os.path.join(folder, name))[0] for folder, names in self.images.items() for name in names
        )


def scan(root: Path, *, skip_unreadable: bool = False) -> FolderListing:
    """Lists a folder and its subfolders; follows links to folders, but enters no folder twice.

    Args:
        root: the folder.
        skip_unreadable: skips folders that cannot be read.

    Raises:
        DataError: if a folder cannot be read.
    """
    names, entered, pending = {}, set(), [""]
    while pending:
        folder = pending.pop()
        real = os.path.realpath(root / folder)
        if real in entered:
            continue
        entered.add(real)
        try:
            with os.scandir(root / folder) as entries:
                visible = [(entry.name, entry.is_dir()) for entry in entries if not is_hidden(entry.name)]
        except OSError as error:
            if skip_unreadable:
                continue
            raise DataError(f"cannot read folder {root / folder}: {reason_of(error)}") from error
        pending += [os.path.join(folder, name) for name, is_folder in visible if is_folder]
        if files := sorted(name for name, is_folder in visible if not is_folder):
            names[folder] = files
    return FolderListing(root, {folder: names[folder] for folder in sorted(names)})


def ancestors(folder: str) -> list[str]:
    """Returns a relative folder and those above it, from the deepest to "".

    >>> ancestors("train/images")
    ['train/images', 'train', '']
    """
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:end]) for end in range(len(parts), -1, -1)]


def common_folder(folders: Iterable[str]) -> str:
    """Returns the deepest relative folder that contains all others.

    >>> common_folder(["train/images", "train/labels"])
    'train'
    """
    return os.path.commonpath([f"/{folder}" for folder in folders]).strip("/")
