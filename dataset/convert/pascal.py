# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The reader of Pascal VOC annotations."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lxml import etree

from dataset import label_map as label_map_lib
from dataset.convert import image_file
from dataset.convert.annotation import (
    ROTATED,
    AnnotatedObject,
    Annotation,
    Source,
    enclose_rotated,
    number_images,
    parse_numbers,
)
from dataset.convert.conversion_report import ConversionReport
from dataset.convert.image_file import ImageError
from dataset.convert.voc_set import VocSet
from dataset.file_search import HIDDEN_IGNORED
from dataset.files import reason_of
from dataset.tfrecord import DataError

BOX_SIDES = ("xmin", "ymin", "xmax", "ymax")
UNKNOWN_CLASS = "is not in the label map"


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
        if not voc_set.lists and voc_set.name != "all" and not voc_set.subfolder:
            report.note("folders without image lists: all annotations converted", str(voc_set.folder))
    items = number_images(images, report)[:num_images]
    class_ids = {name: class_id for class_id, name in label_map.items()}
    read = functools.partial(_read_annotation, class_ids=class_ids, ignore_difficult=ignore_difficult_instances)
    return Source(items, read, _find_image, label_map, report)


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
    root = read_xml(voc_set, image_id)
    image_path = voc_set.image_path(image_id, _find_text(root, "filename"))
    filename, objects = image_path.relative_to(voc_set.image_folder).as_posix(), []
    for element in root.iterfind("object"):
        name, sides = _find_text(element, "name"), [_find_text(element, f"bndbox/{side}") for side in BOX_SIDES]
        label, box = f"{name} [{', '.join(sides)}]".strip()[:100], parse_numbers(sides)
        where = f"{label} of {filename}"
        if not name:
            report.leave_out("boxes", "object has no class name", where)
        elif name not in class_ids:
            report.leave_out("boxes", f"class {name[:50]!r} {UNKNOWN_CLASS}{_show_similar(name, class_ids)}", where)
        elif box is None:
            report.leave_out("boxes", "bndbox is not four numbers", where)
        elif ignore_difficult and _is_set(element, "difficult"):
            report.note("difficult objects left out", where)
        else:
            if angle := _rotation(element):
                box = enclose_rotated(box, angle)
                report.note(ROTATED, where)
            flags = {flag: _is_set(element, flag) for flag in ("difficult", "truncated")}
            pose = _find_text(element, "pose")
            objects.append(AnnotatedObject(box, class_ids[name], name, label, pose=pose, **flags))
    size = parse_numbers([_find_text(root, f"size/{side}") for side in ("height", "width")])
    return Annotation(image_path, filename, source_id, size if size and all(size) else None, objects)


def _find_image(item: tuple[VocSet, str, str]) -> tuple[str, Path]:
    """Returns (name, path) of the image; its annotation is read only if the image does not have its name."""
    voc_set, image_id, _ = item
    is_named = len(voc_set.images.get(image_id, [])) == 1
    path = voc_set.image_path(image_id, "" if is_named else _find_text(read_xml(voc_set, image_id), "filename"))
    return path.relative_to(voc_set.image_folder).as_posix(), path


def _show_similar(name: str, known: Iterable[str]) -> str:
    """Returns the class of which an unknown one is another spelling, for its message, or ""."""
    key = label_map_lib.spelling_key(name)
    return next((f", which has {other!r}" for other in known if label_map_lib.spelling_key(other) == key), "")


def _rotation(element: etree._Element) -> float:
    """Returns the degrees by which CVAT turns a box around its centre."""
    for attribute in element.iterfind("attributes/attribute"):
        if _find_text(attribute, "name") == "rotation":
            [degrees] = parse_numbers([_find_text(attribute, "value")]) or [0]
            return degrees
    return 0


def _find_text(element: etree._Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _is_set(element: etree._Element, tag: str) -> int:
    return int(_find_text(element, tag).lower() in ("1", "true", "yes"))
