# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Datasets and annotated images, the common form of all source formats, and their conversion to records."""

import dataclasses
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as mask_lib

from dataset.convert import box_frame
from dataset.convert.box_frame import Box, BoxFrames, Frames
from dataset.convert.conversion_report import ConversionReport
from dataset.convert.image_file import EXIF_TRANSPOSES, ImageError, ImageFile
from dataset.files import reason_of
from dataset.tfrecord import Record

CLIP_TOLERANCE = 0.1  # pixels beyond the border that are clipped without a note, such as rounding of fractions
MIN_SIDE = 0.001  # pixels; boxes with a shorter side are empty, or become so in float32
MAX_AREA = float(np.finfo(np.float32).max)

ROTATED = "rotated boxes, replaced by the boxes that enclose them"

# Boxes at the border may extend beyond the image. If many do so by far, their values mean something else.
MAX_OUTSIDE = 1 / 3  # tolerated part of a box's area outside the image
MAX_CLIPPED = 0.2  # tolerated fraction of boxes beyond MAX_OUTSIDE
MIN_CLIPPED = 10  # fewer such boxes are always tolerated
HEAVILY_CLIPPED = "boxes that lost more than a third of their area by clipping"
MAX_CROWDS = 0.1  # tolerated fraction of crowds; 0.012 in COCO
CROWDS = "crowds (iscrowd: 1), not trained with skip_crowd_during_training, and ignored by AP"
CROWDS_HINT = "export polygons or boxes instead of masks, which some tools mark as crowds (iscrowd: 0 for one object)"
CORNERS_HINT = "are these corners x1, y1, x2, y2 instead of x, y, width, height, or pixels of other images?"


class AnnotatedObject(NamedTuple):
    """One object of an image.

    is_crowd, difficult, truncated and pose are None, for all objects, if the source format lacks them.
    """

    box: Box  # [xmin, ymin, xmax, ymax] in the unit of the annotation
    class_id: int  # from 1
    class_name: str
    label: str  # name in messages, such as "annotation 17"
    area: float | None = None  # square pixels; None: area of the box
    is_crowd: int | None = None
    difficult: int | None = None
    truncated: int | None = None
    pose: str | None = None
    segmentation: Sequence | Mapping | None = None  # polygons or run lengths as in COCO, in pixels


@dataclasses.dataclass(frozen=True)
class Annotation:
    """One image with its objects, as read from the source format."""

    image_path: Path
    filename: str  # image/filename
    source_id: str
    size: tuple[float, float] | None  # annotated (height, width); None if missing
    objects: Sequence[AnnotatedObject]
    normalized: bool = False  # boxes are fractions of the image, not pixels
    captions: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset in a source format."""

    items: Sequence  # one per image, in the order of the records
    read: Callable[[Any, ConversionReport], Annotation]  # reads an item; an ImageError leaves the image out
    find_image: Callable[[Any], tuple[str, Path]]  # (filename, image_path) of an item, without reading its objects
    label_map: Mapping[int, str]  # ids from 1
    report: ConversionReport  # notes on the whole dataset
    exif_boxes: str = box_frame.AUTO  # frame of the boxes of images with EXIF orientation, see `box_frame.EXIF_BOXES`
    write_groundtruth: bool = True  # False if the dataset is a COCO groundtruth file; else source ids are integers
    # Of renumbered classes: {id: source's id}.
    original_ids: Mapping[int, int] = dataclasses.field(default_factory=dict)
    # (number of boxes per class, report of the conversion) -> error of the dataset as a whole, or None
    find_error: Callable[[Mapping[int, int], ConversionReport], str | None] = lambda num_boxes, report: None


def number_images(images: Sequence[tuple[str, tuple]], report: ConversionReport) -> list[tuple]:
    """Returns the item of every (name, item), with source ids "1", "2", ... appended; notes and drops duplicates."""
    report.note_duplicates("images listed more than once, written once", (name for name, _ in images))
    return [(*item, str(number)) for number, item in enumerate(dict(images).values(), start=1)]


def read_lines(path: Path, kind: str) -> list[str]:
    """Returns the lines of a text file, without spaces around them.

    Raises:
        ImageError: if the file cannot be read; `kind` names it, such as "label file".
    """
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        raise ImageError(f"{kind} is unreadable", f"cannot read {kind} {path}: {reason_of(error)}") from error


def parse_numbers(texts: Sequence[str]) -> tuple[float, ...] | None:
    """Returns numbers, or None if a text is not a finite number.

    >>> parse_numbers(["1", "2.5"]), parse_numbers(["1", "nan"])
    ((1.0, 2.5), None)
    """
    try:
        numbers = tuple(map(float, texts))
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def enclose_rotated(box: Box, degrees: float) -> Box:
    """Returns the box [xmin, ymin, xmax, ymax] that encloses another one, in pixels, turned around its centre.

    >>> [round(side, 3) for side in enclose_rotated((0.0, 0.0, 4.0, 2.0), degrees=90)]
    [1.0, -1.0, 3.0, 3.0]
    """
    xmin, ymin, xmax, ymax = box
    cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    width, height = (xmax - xmin) * cos + (ymax - ymin) * sin, (xmax - xmin) * sin + (ymax - ymin) * cos
    x, y = (xmin + xmax) / 2, (ymin + ymax) / 2
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def to_record(
    annotation: Annotation,
    image: ImageFile,
    report: ConversionReport,
    *,
    include_masks: bool = False,
    box_frames: BoxFrames = box_frame.decide({}),  # noqa: B008, frozen
) -> Record:
    """Converts an annotated image to a record; changes and left out boxes are added to the report.

    Boxes are clipped to the image; those that are not finite, empty, inverted or outside are left out. EXIF orientation
    is applied to boxes and masks if they refer to the stored pixels.

    Args:
        annotation: image with its objects.
        image: content of the image file, see `image_file.read`.
        report: report of this image, extended in place.
        include_masks: stores instance masks; objects without a valid one are left out.
        box_frames: frame that the boxes of the dataset refer to in images with EXIF orientation.

    Raises:
        ImageError: if the annotated size differs from the image's.
    """
    if image.change:
        report.note(f"images re-encoded: {image.change}", annotation.filename)
    orientation = _box_orientation(annotation, image, report, box_frames)
    kept, boxes_norm, masks = _convert_objects(annotation, image, orientation, report, include_masks=include_masks)
    boxes_norm = np.array(boxes_norm, np.float32).reshape(-1, 4)
    ymin, xmin, ymax, xmax = boxes_norm.astype(np.float64).T
    box_areas = np.round((ymax - ymin) * image.height * (xmax - xmin) * image.width, 3).tolist()
    return Record(
        encoded=image.encoded,
        height=image.height,
        width=image.width,
        filename=annotation.filename,
        source_id=annotation.source_id,
        image_format=image.image_format,
        boxes_norm=boxes_norm,
        classes=[item.class_id for item in kept],
        class_names=[item.class_name for item in kept],
        is_crowd=[item.is_crowd for item in kept if item.is_crowd is not None],
        area=[area if item.area is None else float(item.area) for item, area in zip(kept, box_areas)],
        masks=masks,
        difficult=[item.difficult for item in kept if item.difficult is not None],
        truncated=[item.truncated for item in kept if item.truncated is not None],
        poses=[item.pose for item in kept if item.pose is not None],
        captions=annotation.captions,
    )


def _convert_objects(
    annotation: Annotation, image: ImageFile, orientation: int, report: ConversionReport, *, include_masks: bool
) -> tuple[list[AnnotatedObject], list[Box], list[bytes]]:
    """Returns the objects that can be used, their boxes [ymin, xmin, ymax, xmax] in [0, 1], and their masks as PNG.

    Args:
        orientation: EXIF orientation to apply to boxes and masks; 0 for none.
    """
    size = image.stored_size if orientation else (image.height, image.width)  # in which the boxes are given
    kept, boxes_norm, masks, seen = [], [], [], set()
    for item in annotation.objects:
        where = f"{item.label} of {annotation.filename}"
        try:
            mask = [encode_mask(item.segmentation, size, orientation)] if include_masks else []
            box_norm = _to_box_norm(item.box, annotation.normalized, size, where, report)
        except ValueError as error:
            report.leave_out("boxes", str(error), where)
            continue
        masks += mask
        if (item.box, item.class_id) in seen:
            report.note("duplicate boxes, kept", where)
        seen.add((item.box, item.class_id))
        if item.area is not None and not 0 <= item.area <= MAX_AREA:  # also true for NaN
            report.note("invalid areas, replaced by those of the boxes", where)
            item = item._replace(area=None)
        if item.is_crowd:
            report.note(CROWDS, where)
        kept.append(item)
        boxes_norm.append(box_frame.transpose_box_norm(box_norm, orientation))
    return kept, boxes_norm, masks


def _box_orientation(annotation: Annotation, image: ImageFile, report: ConversionReport, box_frames: BoxFrames) -> int:
    """Returns the EXIF orientation to apply to the boxes; 0 if they refer to the upright image."""
    frames = Frames(image.stored_size, (image.height, image.width))
    if not frames.include(annotation.size):
        annotated, actual = f"{annotation.size[1]:g}x{annotation.size[0]:g}", f"{image.width}x{image.height}"
        raise ImageError(
            "annotated size differs from the image's",
            f"{annotation.filename} is {actual}, but annotated as {annotated}; its boxes would be wrong",
        )
    if image.orientation == 1 or not annotation.objects:
        return 0
    frame, note = box_frames.describe(frames.of_size(annotation.size))
    if note:
        report.note(note, annotation.filename)
    return image.orientation if frame == box_frame.STORED else 0


def _to_box_norm(box: Box, normalized: bool, size: tuple[int, int], where: str, report: ConversionReport) -> Box:
    """Returns a box as [ymin, xmin, ymax, xmax] in [0, 1], clipped; a ValueError states the reason to leave it out."""
    if not all(math.isfinite(coordinate) for coordinate in box):
        raise ValueError("boxes that are not finite numbers")
    height, width = size
    scale = (1, 1, 1, 1) if normalized else (width, height, width, height)
    xmin, ymin, xmax, ymax = (coordinate / length for coordinate, length in zip(box, scale))
    if xmax <= xmin or ymax <= ymin:
        raise ValueError("boxes that are empty or inverted")
    if xmax <= 0 or ymax <= 0 or xmin >= 1 or ymin >= 1:
        raise ValueError("boxes outside the image")
    is_clipped = max(-xmin * width, -ymin * height, (xmax - 1) * width, (ymax - 1) * height) > CLIP_TOLERANCE
    area = (ymax - ymin) * (xmax - xmin)
    clipped = np.clip([ymin, xmin, ymax, xmax], 0, 1)
    ymin, xmin, ymax, xmax = box_norm = tuple(clipped.astype(np.float32).tolist())  # as stored
    if (xmax - xmin) * width < MIN_SIDE or (ymax - ymin) * height < MIN_SIDE:
        raise ValueError("boxes that are empty or inverted")
    if is_clipped:
        lost = 1 - (ymax - ymin) * (xmax - xmin) / area
        report.note(HEAVILY_CLIPPED if lost > MAX_OUTSIDE else "boxes that extend beyond the image, clipped", where)
    return box_norm


def encode_mask(segmentation: Sequence | Mapping | None, size: tuple[int, int], orientation: int = 0) -> bytes:
    """Encodes a COCO segmentation as PNG, 1 on the object and 0 elsewhere.

    Args:
        segmentation: polygons [[x1, y1, x2, y2, ...], ...] in pixels, whose union is the mask, or run lengths
            {"size", "counts"}.
        size: (height, width) of the image in which the segmentation is given.
        orientation: EXIF orientation to apply to the mask; 0 for none.

    Raises:
        ValueError: if the segmentation cannot be used; the message is the reason for the report.
    """
    if not segmentation:
        raise ValueError("masks missing: add 'segmentation', or convert without masks")
    try:
        mask = _decode_segmentation(segmentation, size)
    except Exception as error:  # pycocotools raises almost any type for invalid input
        raise ValueError("masks invalid: neither polygons nor run lengths of the image's size") from error
    image = Image.fromarray(mask)
    if orientation in EXIF_TRANSPOSES:
        image = image.transpose(EXIF_TRANSPOSES[orientation])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _decode_segmentation(segmentation: Sequence | Mapping, size: tuple[int, int]) -> np.ndarray:
    """Returns the mask of a segmentation, [H, W] uint8 of 0 and 1."""
    if isinstance(segmentation, Mapping):
        counts, (height, width) = segmentation["counts"], size
        runs = counts if isinstance(counts, list) else _parse_runs(counts)
        if (tuple(segmentation["size"]), sum(runs)) != (size, height * width) or min(runs) < 0:
            raise ValueError(f"expected run lengths of {size}")
        return np.repeat(np.arange(len(runs), dtype=np.uint8) % 2, runs).reshape(width, height).T
    for polygon in segmentation:
        # pycocotools takes four numbers for a box, and needs memory in proportion to the length of the outline.
        if len(polygon) < 6 or len(polygon) % 2 or not np.all(np.abs(np.asarray(polygon, float)) <= 2 * max(size)):
            raise ValueError("expected polygons of at least three corners, not far outside the image")
    return mask_lib.decode(mask_lib.merge(mask_lib.frPyObjects(segmentation, *size)))


def _parse_runs(text: str) -> list[int]:
    """Decodes COCO's compressed run lengths, without pycocotools because it accepts runs that do not fill the mask.

    A number is stored in groups of five bits, lowest first, one character `chr(48 + group)` each. Bit 5 (32) of a group
    means that more groups follow, bit 4 (16) of the last group that the number is negative. From the fourth number on,
    the difference to the number two places before is stored.
    """
    runs, number, shift = [], 0, 0
    for character in text:
        group = ord(character) - 48
        number |= (group & 31) << shift
        shift += 5
        if not group & 32:
            number -= (group & 16) << (shift - 4)
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number, shift = 0, 0
    return runs
