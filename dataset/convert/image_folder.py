# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""A folder of images whose names in annotations may contain folders of the tool that wrote them."""

import collections
import functools
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

from dataset.convert import image_file
from dataset.convert.conversion_report import ConversionReport
from dataset.convert.image_file import ImageError
from dataset.file_search import find_in

SEPARATORS = re.compile(r"[\\/]+|\?d=")  # the last in URLs of local files
MOVED = "images found by name, in another folder than annotated"


class ImageFolder:
    r"""Finds the images that annotations name.

    Some names are not paths below the folder: `images\a.jpg` of Windows, `/data/upload/1/a.jpg` or a URL of a server,
    or `a.jpg` where the export has `default/a.jpg`. They stand for the file of the same name in the folder or below it,
    if that is certain: only the separators differ; or neither the annotations nor the folder has two files of that
    name, one of the two paths ends with the other, and no file of the annotated path exists beside the folder, which
    then is the wrong one.
    """

    def __init__(self, folder: str | Path, names: Iterable[str]):
        self.folder = Path(folder)
        self._uses = collections.Counter(_split(name)[-1] for name in set(names))

    def find(self, name: str, report: ConversionReport) -> Path:
        """Returns the path of the image; notes it if it is in another folder.

        Raises:
            ImageError: if there is none, see `image_file.find`.
        """
        try:
            return image_file.find(self.folder, name)
        except ImageError as error:
            parts = _split(name)
            found = self._paths.get(parts[-1], [])
            if parts in found and ".." not in SEPARATORS.split(name):
                return image_file.find(self.folder, os.path.join(*parts))
            if len(found) != 1 or self._uses[parts[-1]] > 1 or not _is_end(parts, found[0]):
                raise
            path, beside = image_file.find(self.folder, os.path.join(*found[0])), self.folder.parent.joinpath(*parts)
            if beside.is_file() and not beside.samefile(path):
                raise ImageError(error.reason, f"{error}; {beside} does: is {self.folder} the right folder?") from None
        if parts != found[0]:  # else only the separators differ
            report.note(MOVED, f"{os.path.join(*found[0])} for {name}")
        return path

    @functools.cached_property
    def _paths(self) -> Mapping[str, list[tuple[str, ...]]]:
        """Parts of the paths of all files in the folder, relative to it, by name."""
        paths = collections.defaultdict(list)
        for path in map(Path, find_in(self.folder, "**").files):
            paths[path.name].append(path.relative_to(self.folder).parts)
        return paths


def _split(name: str) -> tuple[str, ...]:
    """Splits a path of any operating system, or a URL, at its separators."""
    if "://" in name or "?d=" in name:
        name = unquote(name)
    return tuple(part for part in SEPARATORS.split(name) if part not in ("", ".", "..")) or (name,)


def _is_end(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Returns True if one path ends with the other."""
    return all(a == b for a, b in zip(reversed(one), reversed(other)))
