# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""One image as an annotation tool describes it, made into a record: turned, clipped, and without broken boxes."""

import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as mask_lib

from dataset.convert.conversion_report import CLIPPED_BY_MUCH, FAR_OUT, Notes
from dataset.convert.image_file import TURNS, ImageError, ImageFile
from dataset.tfrecord import Record

ROUNDING = 0.1  # pixels that a box may stick out without a note, as fractions with six digits do
SMALLEST = 0.001  # pixels that a side has to have; less is nothing, or nothing once it is rounded to be stored
MAX_AREA = float(np.finfo(np.float32).max)
Box = tuple[float, float, float, float]


class AnnotatedObject(NamedTuple):
    """One object as it is written."""

    box: Box  # [xmin, ymin, xmax, ymax] in the unit of the annotation
    class_id: int  # from 1
    class_name: str
    label: str  # how messages call it, such as "annotation 17"
    area: float | None = None  # square pixels; None: that of the box
    is_crowd: int | None = None  # as the three below: None where the source knows no such thing, for all objects alike
    difficult: int | None = None
    truncated: int | None = None
    pose: str | None = None
    segmentation: Sequence | Mapping | None = None  # polygons or run lengths as in COCO, in pixels


@dataclasses.dataclass(frozen=True)
class Annotation:
    """One image with its objects, as a tool wrote them."""

    image_path: Path
    filename: str  # image/filename
    source_id: str
    size: tuple[float, float] | None  # (height, width) that the tool says; None where it does not
    objects: Sequence[AnnotatedObject]
    normalized: bool = False  # boxes are fractions of the image, not pixels
    captions: Sequence[str] = ()


def to_record(annotation: Annotation, image: ImageFile, notes: Notes, include_masks: bool = False) -> Record:
    """The record of an image; what is changed or left out goes to the notes.

    Boxes that stick out are clipped; those that are not finite, empty, inverted or outside are left out. Where EXIF
    turned the image, boxes and masks turn with it only if the annotated size says that they were drawn before.

    Raises:
        ImageError: if the annotated size is not that of the image.
    """
    if image.change:
        notes.note(f"images encoded anew: {image.change}", annotation.filename)
    turn = _find_turn(annotation, image, notes)
    size = image.stored_size if turn else (image.height, image.width)  # that the boxes refer to
    kept, boxes_norm, masks, seen = [], [], [], set()
    for item in annotation.objects:
        where = f"{item.label} of {annotation.filename}"
        try:
            mask = [encode_mask(item.segmentation, size, turn)] if include_masks else []
            box_norm = _to_box_norm(item.box, annotation.normalized, size, where, notes)
        except ValueError as error:
            notes.leave_out_box(str(error), where)
            continue
        masks += mask
        if (item.box, item.class_id) in seen:
            notes.note("duplicate boxes, kept", where)
        seen.add((item.box, item.class_id))
        kept.append(item)
        boxes_norm.append(turn_box_norm(box_norm, turn))
    boxes_norm = np.array(boxes_norm, np.float32).reshape(-1, 4)
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
        area=_find_areas(kept, boxes_norm, image, annotation.filename, notes),
        masks=masks,
        difficult=[item.difficult for item in kept if item.difficult is not None],
        truncated=[item.truncated for item in kept if item.truncated is not None],
        poses=[item.pose for item in kept if item.pose is not None],
        captions=annotation.captions,
    )


def _find_turn(annotation: Annotation, image: ImageFile, notes: Notes) -> int:
    """The EXIF orientation by which boxes have to be turned too, or 0.

    Raises:
        ImageError: if the annotated size is that of the image neither before nor after its turn.
    """
    upright, size = (image.height, image.width), annotation.size
    if size is not None and size not in (upright, image.stored_size):
        said, found = f"{size[1]:g}x{size[0]:g}", f"{image.width}x{image.height}"
        raise ImageError(
            "annotated size is not the image's",
            f"{annotation.filename} is {found}, but annotated as {said}; its boxes would be wrong",
        )
    if image.orientation == 1 or not annotation.objects:
        return 0
    if size is None or image.stored_size == upright:
        notes.note("images turned by EXIF, boxes left as annotated: nothing tells which they fit", annotation.filename)
        return 0
    if size == upright:
        return 0
    notes.note("images turned by EXIF, boxes with them", annotation.filename)
    return image.orientation


def _to_box_norm(box: Box, normalized: bool, size: tuple[int, int], where: str, notes: Notes) -> Box:
    """A box as [ymin, xmin, ymax, xmax] in [0, 1], clipped.

    Raises:
        ValueError: with the reason why the box cannot be used.
    """
    if not all(math.isfinite(side) for side in box):
        raise ValueError("boxes that are not finite numbers")
    height, width = size
    scale = (1, 1, 1, 1) if normalized else (width, height, width, height)
    xmin, ymin, xmax, ymax = (side / whole for side, whole in zip(box, scale))
    if xmax <= xmin or ymax <= ymin:
        raise ValueError("boxes that are empty or inverted")
    if xmax <= 0 or ymax <= 0 or xmin >= 1 or ymin >= 1:
        raise ValueError("boxes outside of the image")
    is_clipped = max(-xmin * width, -ymin * height, (xmax - 1) * width, (ymax - 1) * height) > ROUNDING
    area = (ymax - ymin) * (xmax - xmin)
    clipped = np.clip([ymin, xmin, ymax, xmax], 0, 1)
    ymin, xmin, ymax, xmax = box_norm = tuple(clipped.astype(np.float32).tolist())  # as it is stored
    if (xmax - xmin) * width < SMALLEST or (ymax - ymin) * height < SMALLEST:
        raise ValueError("boxes that are empty or inverted")
    if is_clipped:
        lost = 1 - (ymax - ymin) * (xmax - xmin) / area
        notes.note(CLIPPED_BY_MUCH if lost > FAR_OUT else "boxes that stick out, clipped", where)
    return box_norm


def turn_box_norm(box_norm: Box, orientation: int) -> Box:
    """A box [ymin, xmin, ymax, xmax] in [0, 1], drawn before EXIF turned the image by 5-8, as it is after; else as is.

    Reference: Exif 2.32, tag 274, Orientation: on which sides row 0 and column 0 of the stored pixels are seen.
    """
    ymin, xmin, ymax, xmax = box_norm
    return {
        5: (xmin, ymin, xmax, ymax),  # row 0 at the left, column 0 at the top
        6: (xmin, 1 - ymax, xmax, 1 - ymin),  # right, top
        7: (1 - xmax, 1 - ymax, 1 - xmin, 1 - ymin),  # right, bottom
        8: (1 - xmax, ymin, 1 - xmin, ymax),  # left, bottom
    }.get(orientation, box_norm)


def _find_areas(
    objects: Sequence[AnnotatedObject], boxes_norm: np.ndarray, image: ImageFile, filename: str, notes: Notes
) -> list[float]:
    """The area of every object in square pixels: as annotated, or else that of its box."""
    ymin, xmin, ymax, xmax = boxes_norm.astype(np.float64).T
    box_areas = np.round((ymax - ymin) * image.height * (xmax - xmin) * image.width, 3)
    areas = []
    for item, box_area in zip(objects, box_areas.tolist()):
        area = item.area
        if area is not None and not 0 <= area <= MAX_AREA:  # NaN is not either
            notes.note("areas that are not possible, that of the box taken", f"{item.label} of {filename}")
            area = None
        areas.append(box_area if area is None else float(area))
    return areas


def encode_mask(segmentation: Sequence | Mapping | None, size: tuple[int, int], orientation: int = 0) -> bytes:
    """A segmentation as a PNG, 1 on the object and 0 elsewhere.

    Args:
        segmentation: in COCO's form: a list of polygons [x1, y1, x2, y2, ...] in pixels, of which the mask is the
            union, or run lengths {"size", "counts"}.
        size: (height, width) that it refers to.
        orientation: EXIF orientation by which to turn the mask; 0 for not at all.

    Raises:
        ValueError: with the reason why it cannot be used.
    """
    if not segmentation:
        raise ValueError("masks missing: add 'segmentation', or convert without masks")
    try:
        mask = _decode_segmentation(segmentation, size)
    except Exception as error:  # pycocotools raises nearly anything on broken input
        raise ValueError("masks broken: neither polygons nor run lengths of the image's size") from error
    picture = Image.fromarray(mask)
    if orientation in TURNS:
        picture = picture.transpose(TURNS[orientation])
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _decode_segmentation(segmentation: Sequence | Mapping, size: tuple[int, int]) -> np.ndarray:
    """A mask, uint8 [H, W]."""
    if isinstance(segmentation, Mapping):
        counts, (height, width) = segmentation["counts"], size
        runs = counts if isinstance(counts, list) else _parse_runs(counts)
        if (tuple(segmentation["size"]), sum(runs)) != (size, height * width) or min(runs) < 0:
            raise ValueError(f"expected run lengths of {size}")
        return np.repeat(np.arange(len(runs), dtype=np.uint8) % 2, runs).reshape(width, height).T
    for polygon in segmentation:
        # pycocotools takes four numbers for a box; and the cost of an outline is its length, in the image or not.
        if len(polygon) < 6 or len(polygon) % 2 or not np.all(np.abs(np.asarray(polygon, float)) <= 2 * max(size)):
            raise ValueError("expected polygons of three corners or more, about in the image")
    return mask_lib.decode(mask_lib.merge(mask_lib.frPyObjects(segmentation, *size)))


def _parse_runs(text: str) -> list[int]:
    """COCO's compressed run lengths; unlike pycocotools, which takes runs that do not fill the mask.

    A number is groups of five bits, low ones first, each a character from "0" on; 32 in it says that more follow, 16
    in the last that it is negative. From the fourth on, a number is the difference to the one before the last.
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
