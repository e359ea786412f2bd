# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Image sets of Pascal VOC folders, in the layout of VOCdevkit or of an annotation tool."""

import dataclasses
import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from dataset.convert import image_file
from dataset.convert.annotation import read_lines
from dataset.convert.image_file import ImageError
from dataset.convert.split_names import find_synonym, split_of
from dataset.file_search import Found, find_in
from dataset.tfrecord import DataError

CLASS_FLAG = re.compile(r"\s+(-1|0|1)$")  # after each id in the list of a class: class absent, difficult, present
ANNOTATIONS_DIRS = ("Annotations", "annotations")
IMAGE_DIRS = ("JPEGImages", "images")


@dataclasses.dataclass(frozen=True)
class VocSet:
    """An image set of a VOC folder.

    An id is the path of an annotation file in the folder of the annotations, without .xml; its image has the same path
    in the folder of the images. An image set is a list of ids or, without lists, a subfolder of the annotations.
    """

    folder: Path  # {data_dir}/{year}
    name: str  # such as trainval
    annotations_dir: str | None = None  # in `folder`; None: Annotations or, if there is none, `folder` itself
    image_dir: str | Path | None = None  # None: JPEGImages or images in `folder`, or `folder` itself

    @functools.cached_property
    def annotations(self) -> Path:
        """Folder of the annotation files."""
        if self.annotations_dir is not None:
            return self.folder / self.annotations_dir
        return _find_folder(self.folder, ANNOTATIONS_DIRS)

    @functools.cached_property
    def image_folder(self) -> Path:
        """Folder of the images."""
        if self.image_dir is not None:
            return Path(self.image_dir)
        return self.folder if self.annotations == self.folder else _find_folder(self.folder, IMAGE_DIRS)

    def all_ids(self) -> list[str]:
        """Returns the ids of all annotation files, sorted.

        Raises:
            DataError: if there is no annotation file.
        """
        found = map(Path, self._in_annotations.files)
        paths = [path.relative_to(self.annotations) for path in found if path.suffix == ".xml"]
        if self.annotations_dir is None and self.annotations == self.folder:
            # Those in an Annotations folder belong to one of several VOC folders in this folder.
            paths = [path for path in paths if not set(ANNOTATIONS_DIRS) & set(path.parts)]
            if not paths:
                missing = self.folder / ANNOTATIONS_DIRS[0]
                raise DataError(
                    f"folder {missing} does not exist, and {self.folder} has no *.xml beside images; check data_dir, "
                    "year and annotations_dir"
                )
        if not self.annotations.is_dir():
            raise DataError(f"folder {self.annotations} does not exist; check data_dir, year and annotations_dir")
        if not paths:
            raise DataError(f"no annotations *.xml in {self.annotations}")
        return [path.as_posix().removesuffix(".xml") for path in paths]

    def image_ids(self, class_names: Sequence[str]) -> list[str]:
        """Returns the image ids of the set.

        They are read from `{set}.txt`, or else from the lists of classes, `{class}_{set}.txt`. Without any lists they
        are those in the subfolder of the set or, if there are no such subfolders, those of all annotation files, as
        they are for the set "all" without a list.

        Raises:
            DataError: if the list or subfolder does not exist, a list cannot be read or is empty, or there is no
                annotation file.
        """
        if f"{self.name}.txt" in self.lists:
            return self._read_list(self.lists[f"{self.name}.txt"])
        names = [f"{class_name}_{self.name}.txt" for class_name in class_names]
        if of_classes := [self._read_list(self.lists[name]) for name in names if name in self.lists]:
            return list(dict.fromkeys(image_id for ids in of_classes for image_id in ids))
        if self.lists and self.name != "all":
            raise DataError(
                f"image list {self.folder}/ImageSets/Main/{self.name}.txt does not exist; available lists: "
                f"{', '.join(self.lists)}; use --set=all to convert all annotations"
            )
        prefix = f"{self.subfolder}/" if self.subfolder else ""
        return [image_id for image_id in self.all_ids() if image_id.startswith(prefix)]

    @functools.cached_property
    def subfolder(self) -> str:
        """Subfolder of the annotations of the set, which has no list; "" if the set is all annotations.

        Raises:
            DataError: if there are subfolders of other sets only.
        """
        if self.name == "all":
            return ""
        subfolders = sorted({image_id.partition("/")[0] for image_id in self.all_ids() if "/" in image_id})
        if name := find_synonym(self.name, subfolders):
            return name
        if any(map(split_of, subfolders)):
            raise DataError(
                f"{self.annotations} has no subfolder of annotations {self.name!r} (available: "
                f"{', '.join(subfolders)}); choose another --set, or --set=all for all annotations"
            )
        return ""

    def _read_list(self, path: Path) -> list[str]:
        lines = [line for line in read_lines(path, "image list") if line]
        if not lines:
            raise DataError(f"{path} lists no images")
        # Ids may contain spaces: "image 1" is an id if there is an annotation of that name.
        if all(CLASS_FLAG.search(line) and not self._has_annotation(line) for line in lines):
            lines = [CLASS_FLAG.sub("", line) for line in lines]
        return [self._to_id(line) for line in lines]

    def _to_id(self, text: str) -> str:
        """Removes the quotes and the file suffix with which some tools write an id."""
        plain = text if self._has_annotation(text) else text.strip('"')
        stem, dot, suffix = plain.rpartition(".")
        is_file = f"{dot}{suffix}".lower() in image_file.SUFFIXES
        return stem if is_file and not self._has_annotation(plain) else plain

    def _has_annotation(self, image_id: str) -> bool:
        return (self.annotations / f"{image_id}.xml").is_file()

    @functools.cached_property
    def lists(self) -> Mapping[str, Path]:
        """Paths of the image lists, by file name."""
        paths = find_in(self.folder / "ImageSets" / "Main", "*.txt").files
        return {os.path.basename(path): Path(path) for path in paths}

    @functools.cached_property
    def images(self) -> Mapping[str, list[str]]:
        """Paths of the images in their folder, by id."""
        names: dict[str, list[str]] = {}
        for path in map(Path, self._in_image_folder.files):
            if path.suffix.lower() in image_file.SUFFIXES:
                name = path.relative_to(self.image_folder)
                names.setdefault(name.with_suffix("").as_posix(), []).append(name.as_posix())
        return names

    @property
    def hidden(self) -> list[str]:
        """Paths of the files beside annotations, images and lists that are never data."""
        found = (self._in_annotations, self._in_image_folder, find_in(self.folder / "ImageSets" / "Main", "**"))
        return list(dict.fromkeys(path for files in found for path in files.hidden))

    @functools.cached_property
    def _in_annotations(self) -> Found:
        """Files in the folder of the annotations."""
        return find_in(self.annotations, "**")

    @functools.cached_property
    def _in_image_folder(self) -> Found:
        """Files in the folder of the images, which may be that of the annotations."""
        return self._in_annotations if self.image_folder == self.annotations else find_in(self.image_folder, "**")

    def image_path(self, image_id: str, filename: str) -> Path:
        """Returns the image with the name of the annotation, or else with its <filename>.

        <folder> is ignored, as it is often wrong.

        Raises:
            ImageError: if neither exists in the folder of the images.
        """
        named = PureWindowsPath(filename).name  # splits at both kinds of slash; paths of other machines are useless
        beside = str(PurePosixPath(image_id).with_name(named)) if named else f"{image_id}.jpg"
        names = self.images.get(image_id, [beside])
        try:
            return image_file.find(self.image_folder, beside if beside in names else names[0])
        except ImageError as error:
            raise ImageError(error.reason, f"annotation {image_id}: {error}") from error


def _find_folder(folder: Path, names: Sequence[str]) -> Path:
    """Returns the first of the subfolders that exists, or else the folder itself."""
    return next((folder / name for name in names if (folder / name).is_dir()), folder)
