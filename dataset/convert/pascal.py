# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The reader of Pascal VOC annotations."""

import dataclasses
import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath

from lxml import etree

from dataset import label_map as label_map_lib
from dataset.convert import image_file
from dataset.convert.annotation import AnnotatedObject, Annotation, Source, number_images, parse_numbers, read_lines
from dataset.convert.conversion_report import ConversionReport
from dataset.convert.image_file import ImageError
from dataset.files import HIDDEN_IGNORED, find_in, reason_of
from dataset.tfrecord import DataError

CLASS_FLAG = re.compile(r"\s+(-1|0|1)$")  # after each id in the list of a class: class absent, difficult, present
BOX_SIDES = ("xmin", "ymin", "xmax", "ymax")
UNKNOWN_CLASS = "is not in the label map"


@dataclasses.dataclass(frozen=True)
class VocSet:
    """An image set of a VOC folder."""

    folder: Path  # {data_dir}/{year}
    name: str  # such as trainval
    annotations_dir: str = "Annotations"

    @property
    def annotations(self) -> Path:
        """Folder of the annotation files."""
        return self.folder / self.annotations_dir

    def all_ids(self) -> list[str]:
        """Returns the ids of all annotation files, sorted.

        Raises:
            DataError: if there is no annotation file.
        """
        if not self.annotations.is_dir():
            raise DataError(f"folder {self.annotations} does not exist; check data_dir, year and annotations_dir")
        ids = sorted(Path(path).stem for path in find_in(self.annotations, "*.xml").files)
        if not ids:
            raise DataError(f"no annotations *.xml in {self.annotations}")
        return ids

    def image_ids(self, class_names: Sequence[str]) -> list[str]:
        """Returns the image ids of the set.

        They are read from `{set}.txt`, or else from the list of a class, `{class}_{set}.txt`, which contains the same
        ids. If the folder has no lists at all, or the set is "all" and has no list, all annotation files are used.

        Raises:
            DataError: if the list does not exist, cannot be read or is empty, or there is no annotation file.
        """
        for name in (self.name, *(f"{class_name}_{self.name}" for class_name in class_names)):
            if f"{name}.txt" in self.lists:
                return self._read_list(self.lists[f"{name}.txt"])
        if self.lists and self.name != "all":
            raise DataError(
                f"image list {self.folder}/ImageSets/Main/{self.name}.txt does not exist; available lists: "
                f"{', '.join(self.lists)}; use --set=all to convert all annotations"
            )
        return self.all_ids()

    def _read_list(self, path: Path) -> list[str]:
        ids = [line for line in read_lines(path, "image list") if line]
        if not ids:
            raise DataError(f"{path} lists no images")
        # Ids may contain spaces: "image 1" is an id if there is an annotation of that name.
        if any(not CLASS_FLAG.search(line) or (self.annotations / f"{line}.xml").is_file() for line in ids):
            return ids
        return [CLASS_FLAG.sub("", line) for line in ids]

    @functools.cached_property
    def lists(self) -> Mapping[str, Path]:
        """Paths of the image lists, by file name."""
        paths = find_in(self.folder / "ImageSets" / "Main", "*.txt").files
        return {os.path.basename(path): Path(path) for path in paths}

    @functools.cached_property
    def images(self) -> Mapping[str, list[str]]:
        """File names of the images in JPEGImages, by stem."""
        names: dict[str, list[str]] = {}
        for path in map(Path, find_in(self.folder / "JPEGImages").files):
            if path.suffix.lower() in image_file.SUFFIXES:
                names.setdefault(path.stem, []).append(path.name)
        return names

    @property
    def hidden(self) -> list[str]:
        """Paths of the files beside annotations, images and lists that are never data."""
        folders = (self.annotations, self.folder / "JPEGImages", self.folder / "ImageSets" / "Main")
        return [path for folder in folders for path in find_in(folder).hidden]

    def image_path(self, image_id: str, filename: str) -> Path:
        """Returns the image in JPEGImages with the name of the annotation, or else with its <filename>.

        <folder> is ignored, as it is often wrong.

        Raises:
            ImageError: if neither exists in JPEGImages.
        """
        named = PureWindowsPath(filename).name  # splits at both kinds of slash; paths of other machines are useless
        names = self.images.get(image_id, [named or f"{image_id}.jpg"])
        try:
            return image_file.find(self.folder / "JPEGImages", named if named in names else names[0])
        except ImageError as error:
            raise ImageError(error.reason, f"annotation {image_id}: {error}") from error


def load_label_map(path: str | Path) -> dict[int, str]:
    """Reads {id: name} from a file of {name: id} or {id: name}, see `label_map.resolve`.

    Raises:
        DataError: if the file cannot be read, is invalid or is empty.
    """
    try:
        label_map = label_map_lib.resolve(str(path))
    except label_map_lib.LabelMapError as error:
        raise DataError(f"cannot use --label_map_json_path: {error}") from error
    if not label_map:
        raise DataError(f'{path} must contain names and ids, such as {{"cat": 1, "dog": 2}}')
    return label_map


def collect_label_map(voc_sets: Sequence[VocSet]) -> dict[int, str]:
    """Collects the classes of all annotation files of the folders, so that all of their sets have the same ids.

    Ids count from 1 in the order of the names. Unreadable files are skipped; the conversion counts them.

    Raises:
        DataError: if there is no class.
    """
    names = set()
    for voc_set in voc_sets:
        for image_id in voc_set.all_ids():
            try:
                root = read_xml(voc_set, image_id)
            except ImageError:
                continue
            names.update(_find_text(element, "name") for element in root.iterfind("object"))
    names.discard("")
    if not names:
        raise DataError(f"no annotation in {voc_sets[0].annotations} names a class")
    return dict(enumerate(sorted(names), start=1))


def load(
    voc_sets: Sequence[VocSet],
    *,
    label_map: Mapping[int, str],
    ignore_difficult_instances: bool = False,
    num_images: int | None = None,
) -> Source:
    """Finds the images of sets; image ids count from 1 over all of them.

    Args:
        voc_sets: sets to convert, in this order.
        label_map: {id: name}, ids from 1.
        ignore_difficult_instances: leaves out objects marked as difficult.
        num_images: number of images to convert, from the first; None for all.

    Raises:
        DataError: if a list of images does not exist, cannot be read or is empty.
    """
    images, report = [], ConversionReport()
    for voc_set in voc_sets:
        ids = voc_set.image_ids(list(label_map.values()))
        images += [(f"{image_id} of {voc_set.folder}", (voc_set, image_id)) for image_id in ids]
        for path in voc_set.hidden:
            report.note(HIDDEN_IGNORED, path)
        if not voc_set.lists and voc_set.name != "all":
            report.note("folders without image lists: all annotations converted", str(voc_set.folder))
    items = number_images(images, report)[:num_images]
    class_ids = {name: class_id for class_id, name in label_map.items()}
    read = functools.partial(_read_annotation, class_ids=class_ids, ignore_difficult=ignore_difficult_instances)
    return Source(items, read, label_map, report)


def read_xml(voc_set: VocSet, image_id: str) -> etree._Element:
    """Returns the root of an annotation file, without expanding entities or loading external files.

    Raises:
        ImageError: if the file is missing or not XML, or has a DOCTYPE, which could define entities.
    """
    path = image_file.find(voc_set.annotations, f"{image_id}.xml")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        content = path.read_bytes()
        root = None if b"<!DOCTYPE" in content else etree.fromstring(content, parser)
    except (OSError, etree.XMLSyntaxError) as error:
        reason = reason_of(error)
        raise ImageError("annotation is unreadable", f"cannot read annotation {path}: {reason}") from error
    if root is None or root.getroottree().docinfo.doctype:  # the latter for encodings such as UTF-16
        raise ImageError("annotation has a DOCTYPE", f"{path} has a <!DOCTYPE ...>; remove it and its entities")
    return root


def _read_annotation(
    item: tuple[VocSet, str, str], report: ConversionReport, *, class_ids: Mapping[str, int], ignore_difficult: bool
) -> Annotation:
    """Reads (image set, image id, source id); invalid objects are left out and noted."""
    voc_set, image_id, source_id = item
    if PureWindowsPath(image_id).name != image_id:
        raise ImageError("id is not a plain name", f"expected the name of an annotation file, got {image_id!r}")
    root = read_xml(voc_set, image_id)
    image_path = voc_set.image_path(image_id, _find_text(root, "filename"))
    objects = []
    for element in root.iterfind("object"):
        name, sides = _find_text(element, "name"), [_find_text(element, f"bndbox/{side}") for side in BOX_SIDES]
        label, box = f"{name} [{', '.join(sides)}]"[:100], parse_numbers(sides)
        where = f"{label} of {image_path.name}"
        if name not in class_ids:
            report.leave_out("boxes", f"class {name[:50]!r} {UNKNOWN_CLASS}", where)
        elif box is None:
            report.leave_out("boxes", "bndbox is not four numbers", where)
        elif ignore_difficult and _is_set(element, "difficult"):
            report.note("difficult objects left out", where)
        else:
            flags = {flag: _is_set(element, flag) for flag in ("difficult", "truncated")}
            pose = _find_text(element, "pose")
            objects.append(AnnotatedObject(box, class_ids[name], name, label, pose=pose, **flags))
    size = parse_numbers([_find_text(root, f"size/{side}") for side in ("height", "width")])
    return Annotation(image_path, image_path.name, source_id, size if size and all(size) else None, objects)


def _find_text(element: etree._Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _is_set(element: etree._Element, tag: str) -> int:
    return int(_find_text(element, tag).lower() in ("1", "true", "yes"))
