# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which detection belongs to which object at a score threshold: right, of another class, of nothing, or missed."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask

from tf2.evaluation.coco_metric import EvaluatedImage, Groundtruth, xywh

MIN_IOU = 0.5
NONE = -1  # position and class of an object or a detection that is not there


class Case(NamedTuple):
    """A detection and the object it belongs to, or either alone."""

    image: int  # position of the image
    detection: int  # position among the image's detections; NONE if the object was missed
    object: int  # position in the image's groundtruth; NONE if the detection is of nothing
    detected: int  # class of the detection, or NONE
    actual: int  # class of the object, or NONE
    score: float  # of the detection, in [0, 1]; 0 if there is none
    area: float  # of the object, px^2; 0 if there is none

    @property
    def is_right(self) -> bool:
        """The object was found as what it is."""
        return self.detected == self.actual

    @property
    def is_confused(self) -> bool:
        """The object was taken for one of another class."""
        return not (self.is_right or self.is_false or self.is_missed)

    @property
    def is_false(self) -> bool:
        """The detection belongs to no object: there is nothing, or another detection has it."""
        return self.object == NONE

    @property
    def is_missed(self) -> bool:
        """No detection belongs to the object."""
        return self.detection == NONE


class Counts(NamedTuple):
    """Detections and objects of one class."""

    objects: int
    detections: int
    right: int  # objects found as what they are
    confused: int  # objects taken for another class
    missed: int  # objects not found at all
    mistaken: int  # detections that belong to an object of another class
    false: int  # detections that belong to no object

    @property
    def precision(self) -> float:
        """Share of the detections that are right; -1 without any."""
        return self.right / self.detections if self.detections else -1.0

    @property
    def recall(self) -> float:
        """Share of the objects that were found as what they are; -1 without any."""
        return self.right / self.objects if self.objects else -1.0


def match(images: Sequence[EvaluatedImage], min_score_thresh: float) -> list[Case]:
    """Every detection above a score and every object once, image by image.

    Detections choose by falling score, the first of equals before the next, in two rounds. In the first each takes the
    free object of its own class that it overlaps most, from an IoU of 0.5 on, as in COCO's evaluation. What is left
    then takes, in the same way, a free object of any other class, which was confused. After that, objects without a
    detection were missed, and detections without an object are false.

    Crowds and difficult objects are neither missed nor confused: they are no cases, nor are the detections that belong
    to them, which are those of their class with an IoU of 0.5 that found no other object in the first round. Any number
    may belong to one. In the IoU with a crowd the area of the detection takes the place of the union.

    Args:
        images: boxes of detections and objects are in the same unit.
        min_score_thresh: detections have to be above it.
    """
    return [case for i, image in enumerate(images) for case in _match_image(i, image, min_score_thresh)]


def _match_image(index: int, image: EvaluatedImage, min_score_thresh: float) -> list[Case]:
    """The cases of one image: its detections by falling score, then the missed objects."""
    (boxes, scores, classes, _), groundtruth = image.detections, image.groundtruth
    chosen = np.argsort(-scores, kind="stable")
    chosen = chosen[scores[chosen] > min_score_thresh]
    iou = pairwise_iou(boxes[chosen], groundtruth)
    same_class = classes[chosen, None] == groundtruth.classes
    ignored = groundtruth.is_crowd | groundtruth.difficult
    belongs_to_ignored = (same_class & ignored & (iou >= MIN_IOU)).any(axis=1)
    free, partners = ~ignored, np.full(len(chosen), NONE)
    for is_candidate in (same_class, ~same_class & ~belongs_to_ignored[:, None]):
        for row in np.flatnonzero(partners == NONE):
            fit = np.where(is_candidate[row] & free, iou[row], 0)
            if fit.max(initial=0) >= MIN_IOU:
                partners[row] = fit.argmax()
                free[fit.argmax()] = False

    cases = []
    for detection, partner, to_ignored in zip(chosen.tolist(), partners.tolist(), belongs_to_ignored):
        if partner == NONE and to_ignored:
            continue
        actual = NONE if partner == NONE else int(groundtruth.classes[partner])
        area = 0.0 if partner == NONE else float(groundtruth.area[partner])
        cases.append(Case(index, detection, partner, int(classes[detection]), actual, float(scores[detection]), area))
    for missed in np.flatnonzero(free).tolist():
        actual, area = int(groundtruth.classes[missed]), float(groundtruth.area[missed])
        cases.append(Case(index, NONE, missed, NONE, actual, 0.0, area))
    return cases


def pairwise_iou(boxes: np.ndarray, groundtruth: Groundtruth) -> np.ndarray:
    """[D, K] IoU of [D, 4] boxes and K objects as COCO computes it; of a crowd the share of the box that is in it."""
    if not len(boxes) or not len(groundtruth.boxes):
        return np.zeros([len(boxes), len(groundtruth.boxes)])
    return mask.iou(xywh(boxes), xywh(groundtruth.boxes), groundtruth.is_crowd.astype(np.uint8))


def confusion(cases: Iterable[Case], class_ids: Sequence[int]) -> np.ndarray:
    """How many objects of each class were detected as what.

    Args:
        cases: of these classes.
        class_ids: [C], without NONE.

    Returns:
        [C + 1, C + 1] int: rows are classes of objects, columns of detections. The last row has the detections of
        nothing, the last column the missed objects.
    """
    places = {class_id: place for place, class_id in enumerate([*class_ids, NONE])}
    matrix = np.zeros([len(places), len(places)], int)
    for (actual, detected), number in Counter((case.actual, case.detected) for case in cases).items():
        matrix[places[actual], places[detected]] = number
    return matrix


def counts(matrix: np.ndarray) -> list[Counts]:
    """The counts of each of the C classes of a `confusion`, then of all together."""
    objects, detections, right = matrix.sum(axis=1), matrix.sum(axis=0), matrix.diagonal()
    missed, false = matrix[:, -1], matrix[-1]
    columns = (objects, detections, right, objects - right - missed, missed, detections - right - false, false)
    rows = [[int(number) for number in row[:-1]] for row in columns]
    return [Counts(*row) for row in zip(*rows)] + [Counts(*map(sum, rows))]
