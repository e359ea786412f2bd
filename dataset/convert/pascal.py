# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Conversion of Pascal VOC annotations to TFRecords and a COCO groundtruth file."""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath

from lxml import etree

from dataset import label_map as label_map_lib
from dataset.convert import image_file, shards
from dataset.convert.annotation import AnnotatedObject, Annotation
from dataset.convert.conversion_report import ConversionNotes, ConversionReport
from dataset.convert.image_file import ImageError
from dataset.files import reason_of
from dataset.tfrecord import DataError

VOC_LABEL_MAP = {name: class_id for class_id, name in label_map_lib.VOC.items()}
CLASS_FLAG = re.compile(r"\s+(-1|0|1)$")  # after each id in the list of a class: class absent, difficult, present
BOX_SIDES = ("xmin", "ymin", "xmax", "ymax")
UNKNOWN_CLASS = "is not in the label map"


@dataclasses.dataclass(frozen=True)
class VocSet:
    """An image set of a VOC folder."""

    folder: Path  # {data_dir}/{year}
    name: str  # such as trainval
    annotations_dir: str = "Annotations"

    def all_ids(self) -> list[str]:
        """Returns the ids of all annotation files, sorted.

        Raises:
            DataError: if there is no annotation file.
        """
        folder = self.folder / self.annotations_dir
        if not folder.is_dir():
            raise DataError(f"folder {folder} does not exist; check data_dir, year and annotations_dir")
        ids = sorted(path.stem for path in folder.glob("*.xml"))
        if not ids:
            raise DataError(f"no annotations *.xml in {folder}")
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
        """Reads the ids of a list, one per line; in the list of a class, a flag follows each id."""
        try:
            lines = path.read_text("utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read image list {path}: {reason_of(error)}") from error
        ids = [line.strip() for line in lines if line.strip()]
        if not ids:
            raise DataError(f"{path} lists no images")
        # Ids may contain spaces: "image 1" is an id if there is an annotation of that name.
        folder = self.folder / self.annotations_dir
        if all(CLASS_FLAG.search(line) for line in ids) and not any((folder / f"{line}.xml").is_file() for line in ids):
            return [CLASS_FLAG.sub("", line) for line in ids]
        return ids

    @functools.cached_property
    def lists(self) -> Mapping[str, Path]:
        """Paths of the image lists, by file name."""
        return {path.name: path for path in sorted((self.folder / "ImageSets" / "Main").glob("*.txt"))}

    @functools.cached_property
    def images(self) -> Mapping[str, list[str]]:
        """File names of the images in JPEGImages, by stem."""
        names: dict[str, list[str]] = {}
        for path in sorted((self.folder / "JPEGImages").glob("*")):
            if path.suffix.lower() in image_file.SUFFIXES:
                names.setdefault(path.stem, []).append(path.name)
        return names

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


def load_label_map(path: str | Path) -> dict[str, int]:
    """Reads {name: id} from a file of {name: id} or {id: name}, see `label_map.resolve`.

    Raises:
        DataError: if the file cannot be read, is invalid or is empty.
    """
    try:
        names = label_map_lib.resolve(str(path))
    except label_map_lib.LabelMapError as error:
        raise DataError(f"cannot use --label_map_json_path: {error}") from error
    if not names:
        raise DataError(f'{path} must contain names and ids, such as {{"cat": 1, "dog": 2}}')
    return {name: class_id for class_id, name in names.items()}


def collect_label_map(voc_sets: Sequence[VocSet]) -> dict[str, int]:
    """Collects the classes of all annotation files of the folders, so that all of their sets have the same ids.

    Unreadable files are skipped here, and are counted when they are converted.

    Returns:
        {name: id}, sorted by name, ids from 1.

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
        raise DataError(f"no annotation in {voc_sets[0].folder / voc_sets[0].annotations_dir} names a class")
    return {name: class_id for class_id, name in enumerate(sorted(names), start=1)}


def read_xml(voc_set: VocSet, image_id: str) -> etree._Element:
    """Returns the root of an annotation file, without expanding entities or loading external files.

    Raises:
        ImageError: if the file is missing or not XML, or has a DOCTYPE, which could define entities.
    """
    path = image_file.find(voc_set.folder / voc_set.annotations_dir, f"{image_id}.xml")
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


def read_annotation(
    voc_set: VocSet,
    image_id: str,
    source_id: str,
    *,
    label_map: Mapping[str, int],
    ignore_difficult: bool,
    notes: ConversionNotes,
) -> Annotation:
    """Returns an image with its objects; invalid ones are left out and noted.

    Raises:
        ImageError: if the id is not a plain name, or a file is missing or unreadable.
    """
    if PureWindowsPath(image_id).name != image_id:
        raise ImageError("id is not a plain name", f"expected the name of an annotation file, got {image_id!r}")
    root = read_xml(voc_set, image_id)
    image_path = voc_set.image_path(image_id, _find_text(root, "filename"))
    objects = []
    for element in root.iterfind("object"):
        name, sides = _find_text(element, "name"), [_find_text(element, f"bndbox/{side}") for side in BOX_SIDES]
        label, box = f"{name} [{', '.join(sides)}]"[:100], [_to_number(side) for side in sides]
        where = f"{label} of {image_path.name}"
        if name not in label_map:
            notes.leave_out_box(f"class {name[:50]!r} {UNKNOWN_CLASS}", where)
        elif None in box:
            notes.leave_out_box("bndbox is not four numbers", where)
        elif ignore_difficult and _is_set(element, "difficult"):
            notes.note("difficult objects left out", where)
        else:
            objects.append(
                AnnotatedObject(
                    box=tuple(box),
                    class_id=label_map[name],
                    class_name=name,
                    label=label,
                    difficult=_is_set(element, "difficult"),
                    truncated=_is_set(element, "truncated"),
                    pose=_find_text(element, "pose"),
                )
            )
    size = [_to_number(_find_text(root, f"size/{side}")) for side in ("height", "width")]
    return Annotation(
        image_path=image_path,
        filename=image_path.name,
        source_id=source_id,
        size=tuple(size) if all(size) else None,
        objects=objects,
    )


def _find_text(element: etree._Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _to_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _is_set(element: etree._Element, tag: str) -> int:
    return int(_find_text(element, tag).lower() in ("1", "true", "yes"))


def convert(
    voc_sets: Sequence[VocSet],
    output_path: str | Path,
    *,
    label_map: Mapping[str, int],
    ignore_difficult_instances: bool = False,
    num_shards: int = 100,
    num_images: int | None = None,
    **options,
) -> ConversionReport:
    """Writes `{output_path}-*.tfrecord` and `json_{name}.json` in the same folder.

    Args:
        voc_sets: sets to convert, in this order; image ids count from 1 over all of them.
        output_path: path prefix of the shard names.
        label_map: {name: id}, ids from 1.
        ignore_difficult_instances: leaves out objects marked as difficult.
        num_shards: number of TFRecord files, from 1.
        num_images: number of images to convert, from the first; None for all.
        **options: num_threads, max_bad_fraction and max_image_pixels of `shards.write_shards`.

    Raises:
        DataError: if the data cannot be converted; only the report is written then.
    """
    listed, notes = [], ConversionNotes()
    for voc_set in voc_sets:
        for image_id, count in collections.Counter(voc_set.image_ids(list(label_map))).items():
            listed.append((voc_set, image_id))
            if count > 1:
                notes.note("images listed more than once, written once", f"{image_id} of {voc_set.folder}")
        if not voc_set.lists and voc_set.name != "all":
            notes.note("folders without image lists: all annotations converted", str(voc_set.folder))
    items = [(voc_set, image_id, str(number)) for number, (voc_set, image_id) in enumerate(listed, start=1)]

    def read(item: tuple[VocSet, str, str], notes: ConversionNotes) -> Annotation:
        return read_annotation(*item, label_map=label_map, ignore_difficult=ignore_difficult_instances, notes=notes)

    try:
        return shards.write_shards(
            items[:num_images],
            read,
            output_path,
            num_shards=num_shards,
            groundtruth_categories=label_map,
            notes=notes,
            **options,
        )
    except DataError as error:
        hint = "; use --label_map_json_path for other classes, or --collect_label_map for those of the annotations"
        raise DataError(f"{error}{hint if UNKNOWN_CLASS in str(error) else ''}") from error
