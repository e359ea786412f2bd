# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Matching of detections and objects at a score threshold: correct, confused, false positive or missed."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask

from efficientdet.boxes import to_xywh
from tf2.evaluation.coco_metric import EvaluatedImage, ImageGroundtruth

MIN_IOU = 0.5
NONE = -1  # position and class of a detection or an object that does not exist


class Match(NamedTuple):
    """A detection and its object, a detection without an object, or an object without a detection."""

    image: int  # position of the image
    detection: int  # position among the image's detections; NONE for a missed object
    object: int  # position in the image's groundtruth; NONE for a false positive
    detected_class: int  # class of the detection, or NONE
    object_class: int  # class of the object, or NONE
    score: float  # of the detection, in [0, 1]; 0 without one
    area: float  # of the object, px^2; 0 without one

    @property
    def is_correct(self) -> bool:
        """True if detection and object have the same class."""
        return self.detected_class == self.object_class

    @property
    def is_confused(self) -> bool:
        """True if detection and object have different classes."""
        return not (self.is_correct or self.is_false_positive or self.is_missed)

    @property
    def is_false_positive(self) -> bool:
        """True if the detection has no object: there is none, or it is matched to another detection."""
        return self.object == NONE

    @property
    def is_missed(self) -> bool:
        """True if the object has no detection."""
        return self.detection == NONE


class Counts(NamedTuple):
    """Numbers of detections and objects of one class."""

    objects: int
    detections: int
    correct: int  # objects detected with their class
    confused: int  # objects detected as another class
    missed: int  # objects without a detection
    wrong_class: int  # detections matched to an object of another class
    false_positives: int  # detections without an object

    @property
    def precision(self) -> float:
        """Fraction of the detections that are correct; -1 without detections."""
        return self.correct / self.detections if self.detections else -1.0

    @property
    def recall(self) -> float:
        """Fraction of the objects that are detected with their class; -1 without objects."""
        return self.correct / self.objects if self.objects else -1.0


def match(images: Sequence[EvaluatedImage], min_score_thresh: float) -> list[Match]:
    """Matches detections above a score threshold with objects; every detection and object is in one `Match`.

    Detections are matched greedily by descending score (ties by position) in two rounds. In the first, each takes the
    unmatched object of its own class with the highest IoU, if that is at least 0.5, as in COCO's evaluation. In the
    second, the remaining detections take unmatched objects of other classes in the same way.

    Crowds and difficult objects are ignored. A detection of their class with an IoU of at least 0.5 that found no
    object in the first round is ignored with them; any number of detections may be. The IoU with a crowd is the
    intersection divided by the area of the detection, as in COCO's evaluation.

    Args:
        images: detections and groundtruth; their boxes are in the same unit.
        min_score_thresh: detections with this score or less are ignored.

    Returns:
        Matches image by image; within an image, detections by descending score, then missed objects.
    """
    return [pair for i, image in enumerate(images) for pair in _match_image(i, image, min_score_thresh)]


def _match_image(index: int, image: EvaluatedImage, min_score_thresh: float) -> list[Match]:
    (boxes, scores, classes, _), groundtruth = image.detections, image.groundtruth
    chosen = np.argsort(-scores, kind="stable")
    chosen = chosen[scores[chosen] > min_score_thresh]
    iou = coco_iou(boxes[chosen], groundtruth)
    same_class = classes[chosen, None] == groundtruth.classes
    ignored = groundtruth.is_crowd | groundtruth.difficult
    matches_ignored = (same_class & ignored & (iou >= MIN_IOU)).any(axis=1)
    unmatched, partners = ~ignored, np.full(len(chosen), NONE)
    for is_candidate in (same_class, ~same_class & ~matches_ignored[:, None]):
        for row in np.flatnonzero(partners == NONE):
            candidates = np.where(is_candidate[row] & unmatched, iou[row], 0)
            if candidates.max(initial=0) >= MIN_IOU:
                partners[row] = candidates.argmax()
                unmatched[candidates.argmax()] = False

    is_counted = (partners != NONE) | ~matches_ignored
    pairs = [*zip(chosen[is_counted].tolist(), partners[is_counted].tolist())]
    pairs += [(NONE, missed) for missed in np.flatnonzero(unmatched).tolist()]
    # Index NONE, which is -1, selects the appended values.
    detected_classes, scores = np.append(classes, NONE).tolist(), np.append(scores, 0.0).tolist()
    object_classes, areas = np.append(groundtruth.classes, NONE).tolist(), np.append(groundtruth.area, 0.0).tolist()
    return [Match(index, d, o, detected_classes[d], object_classes[o], scores[d], areas[o]) for d, o in pairs]


def coco_iou(boxes: np.ndarray, groundtruth: ImageGroundtruth) -> np.ndarray:
    """Computes COCO's IoU of every box [D, 4] with each of the K objects: [D, K].

    With a crowd it is the intersection divided by the area of the box. pycocotools computes it, so that both the crowd
    rule and the rounding are those of COCO's evaluation.
    """
    if not len(boxes) or not len(groundtruth.boxes):
        return np.zeros([len(boxes), len(groundtruth.boxes)])
    return mask.iou(to_xywh(boxes), to_xywh(groundtruth.boxes), groundtruth.is_crowd.astype(np.uint8))


def confusion(matches: Iterable[Match], class_ids: Sequence[int]) -> np.ndarray:
    """Computes the confusion matrix.

    Args:
        matches: their classes are in `class_ids`.
        class_ids: [C], without NONE.

    Returns:
        [C + 1, C + 1] int: rows are classes of objects, columns classes of detections. The last row counts false
        positives, the last column missed objects.

    Example:
        >>> found = Match(0, 0, 0, detected_class=2, object_class=1, score=0.9, area=64.0)
        >>> missed = Match(0, NONE, 1, detected_class=NONE, object_class=1, score=0.0, area=64.0)
        >>> confusion([found, missed], class_ids=[1, 2]).tolist()
        [[0, 1, 1], [0, 0, 0], [0, 0, 0]]
    """
    positions = {class_id: position for position, class_id in enumerate([*class_ids, NONE])}
    matrix = np.zeros([len(positions), len(positions)], int)
    for pair in matches:
        matrix[positions[pair.object_class], positions[pair.detected_class]] += 1
    return matrix


def counts(matrix: np.ndarray) -> list[Counts]:
    """Returns the counts of each of the C classes of a `confusion` matrix, then of all classes together.

    >>> counts(np.array([[8, 1, 1], [0, 5, 0], [2, 0, 0]]))[0]
    Counts(objects=10, detections=10, correct=8, confused=1, missed=1, wrong_class=0, false_positives=2)
    """
    objects, detections, correct = matrix.sum(axis=1), matrix.sum(axis=0), matrix.diagonal()
    missed, false = matrix[:, -1], matrix[-1]
    columns = (objects, detections, correct, objects - correct - missed, missed, detections - correct - false, false)
    rows = np.transpose(columns)[:-1]
    return [Counts(*row) for row in [*rows.tolist(), rows.sum(axis=0).tolist()]]
