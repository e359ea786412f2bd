# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pictures that show what a detector gets right and wrong: which ones, what is said of them, and how they are drawn."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataset import label_map, visualize
from tf2.evaluation.coco_metric import EvaluatedImage
from tf2.evaluation.report.error_analysis import MIN_IOU, NONE, Case, pairwise_iou

ENTRIES = 12  # of a gallery, at most
FULL_SIDE = 800  # pixels: the longer side of one half of a full picture, at most
SMALL_SIDE = 200  # pixels: that of a small one
SURROUNDINGS = 2.5  # sides of a box that a small picture shows around it
MIN_WINDOW = 16  # pixels of the image, the side of the smallest part
THICK = 5  # pixels: the line of the box that is meant
GAP = 4  # pixels between the halves


class Entry(NamedTuple):
    """A picture, and what is said of it."""

    image: int  # position of the image
    case: Case | None  # what is meant; None for all of the image
    lines: list[str]


class Gallery(NamedTuple):
    """Pictures of one kind."""

    name: str  # one word
    title: str
    order: str  # which come first
    entries: list[Entry]


def choose(images: Sequence[EvaluatedImage], cases: Sequence[Case], names: Mapping[int, str]) -> list[Gallery]:
    """The galleries of an evaluation, each of ENTRIES at most.

    Args:
        images: all of them.
        cases: of them, see `error_analysis.match`.
        names: {class id: name}.
    """

    def entries(chosen):
        return [Entry(case.image, case, _case_lines(case, images[case.image], names)) for case in chosen[:ENTRIES]]

    by_score = sorted(cases, key=lambda case: -case.score)
    by_area = sorted(cases, key=lambda case: -case.area)
    return [
        Gallery("false", "False positives", "the highest scores", entries([c for c in by_score if c.is_false])),
        Gallery("missed", "Missed objects", "the largest", entries([c for c in by_area if c.is_missed])),
        Gallery("confused", "Confused classes", "the highest scores", entries([c for c in by_score if c.is_confused])),
        Gallery("best", "Best images", "the largest shares of right boxes", _best(images, cases)),
    ]


def _case_lines(case: Case, image: EvaluatedImage, names: Mapping[int, str]) -> list[str]:
    """What a case is, and what it should have been."""
    detections, groundtruth = image.detections, image.groundtruth
    detected, actual = (label_map.name_of(names, class_id) for class_id in (case.detected, case.actual))
    if case.is_confused:
        lines = [f"detected: {detected}, score {case.score:.3f}", f"should be: {actual}"]
    elif case.is_false:
        iou = pairwise_iou(detections.boxes[[case.detection]], groundtruth)[0]
        lines = [f"detected: {detected}, score {case.score:.3f}", "should be: nothing"]
        if iou.max(initial=0) > 0:
            nearest = label_map.name_of(names, groundtruth.classes[iou.argmax()])
            taken = ", which another detection has" if iou.max() >= MIN_IOU else ""
            lines.append(f"nearest object: {nearest}, IoU {iou.max():.2f}{taken}")
    else:
        height, width = np.diff(groundtruth.boxes[case.object].reshape(2, 2), axis=0)[0]
        there = pairwise_iou(detections.boxes, groundtruth)[:, case.object] >= MIN_IOU
        scores = detections.scores[there & (detections.classes == case.actual)]
        best = f"the best of its class there has score {scores.max():.3f}" if len(scores) else "none of its class there"
        lines = [f"object: {actual}, {width:.0f}x{height:.0f} px", f"detected: {best}"]
    return [f"image {image.source_id}", *lines]


def _best(images: Sequence[EvaluatedImage], cases: Sequence[Case]) -> list[Entry]:
    """The images with the largest share of right cases, of equals those with more of them."""
    by_image = defaultdict(list)
    for case in cases:
        by_image[case.image].append(case.is_right)
    found = [index for index, rights in by_image.items() if any(rights)]
    found.sort(key=lambda index: (-np.mean(by_image[index]), -sum(by_image[index])))
    return [
        Entry(
            index,
            None,
            [f"image {images[index].source_id}", f"right: {sum(by_image[index])} of {len(by_image[index])} boxes"],
        )
        for index in found[:ENTRIES]
    ]


class _Half(NamedTuple):
    """The boxes of one half of a picture."""

    boxes: np.ndarray  # [K, 4], pixels of the image
    classes: np.ndarray  # [K]
    scores: np.ndarray | None  # [K]
    names: Mapping[int, str]
    meant: int  # which of them, or NONE


def draw(
    entry: Entry, image: EvaluatedImage, picture: np.ndarray, names: Mapping[int, str], min_score_thresh: float
) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of an entry: the left half has the objects, the right one the detections; what is meant is thick.

    Args:
        entry: what to show.
        image: what it is of.
        picture: [H, W, 3] uint8, of the image.
        names: {class id: name}.
        min_score_thresh: detections have to be above it.

    Returns:
        Two of [h, w, 3] uint8: of all of the image, at most 2 * FULL_SIDE + GAP wide, and of the part that is meant, at
        most 2 * SMALL_SIDE + GAP wide, with its boxes and those that overlap them.
    """
    detections, groundtruth = image.detections, image.groundtruth
    object_names = {i: f"object: {label_map.name_of(names, i)}" for i in groundtruth.classes.tolist()}
    meant_object, meant_detection = (NONE, NONE) if entry.case is None else (entry.case.object, entry.case.detection)
    halves = [
        _Half(groundtruth.boxes, groundtruth.classes, None, object_names, meant_object),
        _Half(detections.boxes, detections.classes, detections.scores, names, meant_detection),
    ]

    whole = np.array([[0, 0, *picture.shape[:2]]])
    side = min(FULL_SIDE, max(picture.shape[:2]))
    full = _join([_draw_half(half, picture, whole[0], whole, side, min_score_thresh) for half in halves])
    if entry.case is None:
        small = Image.fromarray(full)
        small.thumbnail([2 * SMALL_SIDE + GAP, SMALL_SIDE])  # of many boxes no labels could be read
        return full, np.array(small)
    meant = np.array([half.boxes[half.meant] for half in halves if half.meant != NONE])
    window = _window(meant, whole[0])
    return full, _join([_draw_half(half, picture, window, meant, SMALL_SIDE, min_score_thresh) for half in halves])


def _window(boxes: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """[4] int: a square around boxes with what is around them, as far as it is within the picture."""
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    half = max(SURROUNDINGS * (high - low).max() / 2, MIN_WINDOW / 2)
    center = np.clip((low + high) / 2, 0, whole[2:])  # detections may be outside of the picture
    return np.clip([*(center - half), *(center + half)], 0, np.tile(whole[2:], 2)).round().astype(int)


def _draw_half(
    half: _Half, picture: np.ndarray, window: np.ndarray, focus: np.ndarray, side: int, min_score_thresh: float
) -> np.ndarray:
    """Boxes on a part of a picture; lines and text are made for its size.

    Args:
        half: what to draw.
        picture: [H, W, 3] uint8.
        window: [4] int, the part.
        focus: [F, 4]: boxes that overlap none of them are left out.
        side: pixels, the longer one of the result.
        min_score_thresh: detections have to be above it.
    """
    ymin, xmin, ymax, xmax = window.tolist()
    scale = side / max(ymax - ymin, xmax - xmin)
    size = [max(1, round(scale * length)) for length in (xmax - xmin, ymax - ymin)]
    image = np.array(Image.fromarray(picture[ymin:ymax, xmin:xmax]).resize(size, Image.Resampling.LANCZOS))
    boxes = scale * (half.boxes - [ymin, xmin, ymin, xmin])
    overlaps = (half.boxes[:, None, :2] < focus[:, 2:]) & (half.boxes[:, None, 2:] > focus[:, :2])
    is_meant = np.arange(len(boxes)) == half.meant
    others = overlaps.all(axis=2).any(axis=1) & ~is_meant
    for rows, thickness in ((others, None), (is_meant, THICK)):  # what is meant on top
        image = visualize.draw_boxes(
            image,
            boxes[rows],
            half.classes[rows],
            None if half.scores is None else half.scores[rows],
            names=half.names,
            min_score_thresh=min_score_thresh,
            max_boxes_to_draw=len(boxes),
            line_thickness=thickness,
        )
    return image


def _join(halves: Sequence[np.ndarray]) -> np.ndarray:
    """Two pictures of one size, side by side."""
    left, right = halves
    return np.concatenate([left, np.full([len(left), GAP, 3], 255, np.uint8), right], axis=1)
