# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Image galleries of errors and of the best images: selection, captions and drawing."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataset import label_map, visualize
from tf2.evaluation.coco_metric import EvaluatedImage
from tf2.evaluation.report.error_analysis import MIN_IOU, NONE, Match, coco_iou

MAX_ENTRIES = 12  # per gallery
FULL_SIDE = 800  # pixels, maximum for the longer side of one half of a full drawing
SMALL_SIDE = 200  # pixels, the same for a thumbnail
CONTEXT = 2.5  # side of a thumbnail's window relative to the longer side of the highlighted boxes
MIN_WINDOW = 16  # pixels of the image, smallest side of a thumbnail's window
THICK_LINE = 5  # pixels, line of a highlighted box
GAP = 4  # pixels between the halves


class Entry(NamedTuple):
    """An image of a gallery with its caption."""

    image: int  # position of the image
    match: Match | None  # highlighted boxes; None shows the whole image
    lines: list[str]  # caption


class Gallery(NamedTuple):
    """Images of one kind."""

    name: str  # one word, for file names and anchors
    title: str
    order: str  # describes the sorting, as in "the largest first"
    entries: list[Entry]


def select(images: Sequence[EvaluatedImage], matches: Sequence[Match], names: Mapping[int, str]) -> list[Gallery]:
    """Selects the galleries of an evaluation from its matches, each with at most MAX_ENTRIES images."""

    def entries(chosen):
        return [Entry(pair.image, pair, _caption(pair, images[pair.image], names)) for pair in chosen[:MAX_ENTRIES]]

    by_score = sorted(matches, key=lambda pair: -pair.score)
    by_area = sorted(matches, key=lambda pair: -pair.area)
    false_positives = entries([pair for pair in by_score if pair.is_false_positive])
    missed = entries([pair for pair in by_area if pair.is_missed])
    confused = entries([pair for pair in by_score if pair.is_confused])
    return [
        Gallery("false", "False positives", "the highest scores", false_positives),
        Gallery("missed", "Missed objects", "the largest", missed),
        Gallery("confused", "Confused classes", "the highest scores", confused),
        Gallery("best", "Best images", "the highest fractions of correct boxes", _best_images(images, matches)),
    ]


def _caption(match: Match, image: EvaluatedImage, names: Mapping[int, str]) -> list[str]:
    detections, groundtruth = image.detections, image.groundtruth
    detected, actual = (label_map.name_of(names, class_id) for class_id in (match.detected_class, match.object_class))
    if match.is_confused:
        lines = [f"detected: {detected}, score {match.score:.3f}", f"should be: {actual}"]
    elif match.is_false_positive:
        iou = coco_iou(detections.boxes[[match.detection]], groundtruth)[0]
        lines = [f"detected: {detected}, score {match.score:.3f}", "should be: nothing"]
        if iou.max(initial=0) > 0:
            nearest = label_map.name_of(names, groundtruth.classes[iou.argmax()])
            is_taken = ", matched to another detection" if iou.max() >= MIN_IOU else ""
            lines.append(f"nearest object: {nearest}, IoU {iou.max():.2f}{is_taken}")
    else:
        height, width = np.diff(groundtruth.boxes[match.object].reshape(2, 2), axis=0)[0]
        overlaps = coco_iou(detections.boxes, groundtruth)[:, match.object] >= MIN_IOU
        scores = detections.scores[overlaps & (detections.classes == match.object_class)]
        lines = [f"object: {actual}, {width:.0f}x{height:.0f} px", "no detection of its class here"]
        if len(scores):
            lines[1] = f"best detection of its class here: score {scores.max():.3f}"
    return [f"image {image.source_id}", *lines]


def _best_images(images: Sequence[EvaluatedImage], matches: Sequence[Match]) -> list[Entry]:
    """Selects the images with the highest fraction of correct matches; of equal ones, those with more of them."""
    by_image = defaultdict(list)
    for pair in matches:
        by_image[pair.image].append(pair.is_correct)
    best = [index for index, is_correct in by_image.items() if any(is_correct)]
    best.sort(key=lambda index: (-np.mean(by_image[index]), -sum(by_image[index])))
    entries = []
    for index in best[:MAX_ENTRIES]:
        fraction = f"correct: {sum(by_image[index])} of {len(by_image[index])} boxes"
        entries.append(Entry(index, None, [f"image {images[index].source_id}", fraction]))
    return entries


class _Half(NamedTuple):
    """The boxes of one half of a drawing."""

    boxes: np.ndarray  # [K, 4], pixels of the image
    classes: np.ndarray  # [K]
    scores: np.ndarray | None  # [K]
    names: Mapping[int, str]
    highlighted: int  # position of the highlighted box, or NONE


def draw(
    entry: Entry, image: EvaluatedImage, pixels: np.ndarray, names: Mapping[int, str], min_score_thresh: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draws an entry: objects on the left half, detections on the right, highlighted boxes with a thick line.

    Args:
        pixels: [H, W, 3] uint8.
        names: {class id: name}.
        min_score_thresh: detections with this score or less are not drawn.

    Returns:
        Two arrays [h, w, 3] uint8: the whole image, at most 2 * FULL_SIDE + GAP wide; and a thumbnail, at most
        2 * SMALL_SIDE + GAP wide, of the highlighted boxes and those that overlap them.
    """
    detections, groundtruth = image.detections, image.groundtruth
    object_names = {i: f"object: {label_map.name_of(names, i)}" for i in groundtruth.classes.tolist()}
    match_object, match_detection = (NONE, NONE) if entry.match is None else (entry.match.object, entry.match.detection)
    halves = [
        _Half(groundtruth.boxes, groundtruth.classes, None, object_names, match_object),
        _Half(detections.boxes, detections.classes, detections.scores, names, match_detection),
    ]

    def drawing(window, focus, side):
        left, right = (_draw_half(half, pixels, window, focus, side, min_score_thresh) for half in halves)
        return np.concatenate([left, np.full([len(left), GAP, 3], 255, np.uint8), right], axis=1)

    whole = np.array([0, 0, *pixels.shape[:2]])
    full = drawing(whole, whole[None], min(FULL_SIDE, whole.max()))
    if entry.match is None:
        small = Image.fromarray(full)
        small.thumbnail([2 * SMALL_SIDE + GAP, SMALL_SIDE])  # scaled with its labels, too small to be read
        return full, np.array(small)
    highlighted = np.array([half.boxes[half.highlighted] for half in halves if half.highlighted != NONE])
    return full, drawing(_window(highlighted, whole), highlighted, SMALL_SIDE)


def _window(boxes: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns a square around boxes and their context, clipped to the image: [4] int."""
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    half = max(CONTEXT * (high - low).max() / 2, MIN_WINDOW / 2)
    center = np.clip((low + high) / 2, 0, whole[2:])  # detections may be outside of the image
    return np.clip([*(center - half), *(center + half)], 0, np.tile(whole[2:], 2)).round().astype(int)


def _draw_half(
    half: _Half, pixels: np.ndarray, window: np.ndarray, focus: np.ndarray, side: int, min_score_thresh: float
) -> np.ndarray:
    """Draws boxes on a window [4] of an image, resized to a longer side of `side` pixels.

    Lines and text have their final size. Boxes that overlap none of the boxes in focus [F, 4] are not drawn.
    """
    ymin, xmin, ymax, xmax = window.tolist()
    scale = side / max(ymax - ymin, xmax - xmin)
    size = [max(1, round(scale * length)) for length in (xmax - xmin, ymax - ymin)]
    image = np.array(Image.fromarray(pixels[ymin:ymax, xmin:xmax]).resize(size, Image.Resampling.LANCZOS))
    boxes = scale * (half.boxes - [ymin, xmin, ymin, xmin])
    overlaps = (half.boxes[:, None, :2] < focus[:, 2:]) & (half.boxes[:, None, 2:] > focus[:, :2])
    is_highlighted = np.arange(len(boxes)) == half.highlighted
    others = overlaps.all(axis=2).any(axis=1) & ~is_highlighted
    for rows, thickness in ((others, None), (is_highlighted, THICK_LINE)):  # the highlighted box on top
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
