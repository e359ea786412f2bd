# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The frame of the boxes of images with EXIF orientation: the stored pixels or the upright image.

Annotation tools differ: some show the stored pixels, most the upright image, and some of the latter write the stored
size all the same. Therefore all images of a dataset are looked at before the first is converted: a box that fits in one
of the two frames only shows the frame, and is stronger evidence than the annotated size. Images without any evidence,
such as square ones, those turned by 180 degrees and those whose boxes are fractions, follow the others.
"""

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence

STORED, UPRIGHT, AUTO = "stored", "upright", "auto"
EXIF_BOXES = (AUTO, STORED, UPRIGHT)  # values of --exif_boxes

FIT_TOLERANCE = 0.02  # fraction of the longer side by which a box may extend beyond its image
MIN_AGREEMENT = 0.9  # of the boxes that fit in one frame only

BOXES_TURNED = "EXIF orientation applied to images and boxes"
# Bases of a decision, as shown in the report.
BY_FLAG = "as --exif_boxes says"
BY_BOXES = "shown by boxes that do not fit in the other frame"
BY_SIZE = "assumed, as the annotated size is that of this frame; --exif_boxes=upright if boxes are wrong"
BY_OTHERS = "as in the other images of the dataset"
ASSUMED = "assumed without evidence; give --exif_boxes"

Size = tuple[float, float]  # (height, width), pixels
Box = tuple[float, float, float, float]


@dataclasses.dataclass
class Evidence:
    """Evidence of images with EXIF orientation and objects about the frame of their boxes."""

    fits: collections.Counter = dataclasses.field(default_factory=collections.Counter)  # boxes in one frame only
    names: list[str] = dataclasses.field(default_factory=list)  # of the images


@dataclasses.dataclass(frozen=True)
class BoxFrames:
    """Frame of the boxes of a dataset, and its basis, by the frame of the annotated size, see `Frames.of_size`."""

    by_size: Mapping[str | None, tuple[str, str]]

    def describe(self, size_frame: str | None) -> tuple[str, str | None]:
        """Returns (frame, note for the report); no note where the annotated size is that of the upright image."""
        frame, basis = self.by_size[size_frame]
        if frame == STORED:
            return frame, f"{BOXES_TURNED}: {basis}"
        is_plain = size_frame == UPRIGHT and basis == BY_SIZE
        return frame, None if is_plain else f"EXIF orientation applied to images only, boxes are upright: {basis}"


@dataclasses.dataclass(frozen=True)
class Frames:
    """Sizes of both frames of an image; equal ones, as of a square or after a rotation by 180 degrees, show nothing."""

    stored: Size
    upright: Size

    def include(self, size: Size | None) -> bool:
        """Returns True if an annotated size is that of one of the frames, or is missing."""
        return size in (None, self.stored, self.upright)

    def of_size(self, size: Size | None) -> str | None:
        """Returns the frame that an annotated size shows, or None."""
        return self._only([frame for frame, frame_size in self._sizes if size == frame_size])

    def of_box(self, box: Box) -> str | None:
        """Returns the frame in which a box [xmin, ymin, xmax, ymax], pixels, fits if it fits in one only, or None."""
        xmin, ymin, xmax, ymax = box
        tolerance = FIT_TOLERANCE * max(self.stored)
        if not (-tolerance <= xmin < xmax < math.inf and -tolerance <= ymin < ymax < math.inf):  # also for NaN
            return None
        return self._only([f for f, (h, w) in self._sizes if xmax <= w + tolerance and ymax <= h + tolerance])

    def of_mask(self, segmentation: Sequence | Mapping | None) -> str | None:
        """Returns the frame that the size of run lengths as in COCO shows; None for polygons."""
        grid = segmentation.get("size") if isinstance(segmentation, Mapping) else None
        return self._only([frame for frame, size in self._sizes if grid == [*size]])

    @property
    def _sizes(self) -> tuple[tuple[str, Size], tuple[str, Size]]:
        return (STORED, self.stored), (UPRIGHT, self.upright)

    @staticmethod
    def _only(frames: Sequence[str]) -> str | None:
        return frames[0] if len(frames) == 1 else None


def decide(evidence: Mapping[str | None, Evidence], exif_boxes: str = AUTO) -> BoxFrames:
    """Decides on the frame of the boxes of a dataset.

    Args:
        evidence: by the frame of the annotated size; images of one kind come from one tool, and have one frame.
        exif_boxes: one of EXIF_BOXES; other than auto, it is the frame of all boxes.
    """
    if exif_boxes != AUTO:
        return BoxFrames(dict.fromkeys((STORED, UPRIGHT, None), (exif_boxes, BY_FLAG)))
    by_size = {frame: _decide_on_kind(evidence.get(frame, Evidence()), (frame, BY_SIZE)) for frame in (STORED, UPRIGHT)}
    frames = {by_size[frame][0] for frame in by_size if frame in evidence and by_size[frame][1] != ASSUMED}
    # Without evidence, upright: browsers, phones and most tools show images so.
    others = (frames.pop(), BY_OTHERS) if len(frames) == 1 else (UPRIGHT, ASSUMED)
    return BoxFrames({**by_size, None: _decide_on_kind(evidence.get(None, Evidence()), others)})


def _decide_on_kind(evidence: Evidence, default: tuple[str, str]) -> tuple[str, str]:
    """Returns the frame that nearly all boxes show; the default if there are none; without a basis if they disagree."""
    if not evidence.fits:
        return default
    [(frame, count)] = evidence.fits.most_common(1)
    return (frame, BY_BOXES) if count >= MIN_AGREEMENT * evidence.fits.total() else (default[0], ASSUMED)


def find_undecided(evidence: Mapping[str | None, Evidence], frames: BoxFrames) -> tuple[list[str], collections.Counter]:
    """Returns the names of the images whose frame is assumed without evidence, and their boxes by frame."""
    kinds = [found for kind, found in evidence.items() if frames.by_size[kind][1] == ASSUMED]
    names = [name for found in kinds for name in found.names]
    return names, sum((found.fits for found in kinds), collections.Counter())


def transpose_box_norm(box_norm: Box, orientation: int) -> Box:
    """Maps a box [ymin, xmin, ymax, xmax] in [0, 1] from the stored pixels to the upright image.

    Args:
        box_norm: in fractions of the stored pixels.
        orientation: EXIF orientation; the box is returned unchanged for values outside of 2-8.

    Example:
        >>> transpose_box_norm((0.0, 0.0, 0.25, 0.5), orientation=6)
        (0.0, 0.75, 0.5, 1.0)

    Reference: Exif 2.32, tag 274, Orientation: the visual side of row 0 and of column 0 of the stored pixels.
    """
    ymin, xmin, ymax, xmax = box_norm
    return {
        2: (ymin, 1 - xmax, ymax, 1 - xmin),  # row 0 top, column 0 right
        3: (1 - ymax, 1 - xmax, 1 - ymin, 1 - xmin),  # bottom, right
        4: (1 - ymax, xmin, 1 - ymin, xmax),  # bottom, left
        5: (xmin, ymin, xmax, ymax),  # left, top
        6: (xmin, 1 - ymax, xmax, 1 - ymin),  # right, top
        7: (1 - xmax, 1 - ymax, 1 - xmin, 1 - ymin),  # right, bottom
        8: (1 - xmax, ymin, 1 - xmin, ymax),  # left, bottom
    }.get(orientation, box_norm)
