# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Average precision at IoU 0.5 as Pascal VOC defines it, by the rule of 2007 and by the one of 2010 and later."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tf2.evaluation.coco_metric import EvaluatedImage

MIN_IOU = 0.5
RECALL_STEPS = 10  # the rule of 2007 looks at recall 0, 1/10 ... 1


class ClassResult(NamedTuple):
    """One class over all images; its AP is -1 if there is no object to find."""

    num_objects: int  # to find: neither difficult nor crowds
    ap_11_points: float  # in [0, 1]: mean of the best precision at each of 11 recalls or more, VOC2007
    ap_all_points: float  # in [0, 1]: area below the best precision at each recall or more, VOC2010 and later


class VocResult(NamedTuple):
    """What `score` found."""

    names: dict[int, str]  # by category id, of the classes to report one by one
    classes: dict[int, ClassResult]  # by category id: those that have a name, an object or a detection

    @property
    def mean(self) -> ClassResult:
        """All objects together, and the mean of AP over the classes that have an object to find, named or not."""
        found = [result for result in self.classes.values() if result.num_objects]
        if not found:
            return ClassResult(0, -1.0, -1.0)
        num_objects, ap_11_points, ap_all_points = zip(*found)
        return ClassResult(sum(num_objects), float(np.mean(ap_11_points)), float(np.mean(ap_all_points)))

    @property
    def metrics(self) -> dict[str, float]:
        """`VOC07_mAP` and `VOC_mAP`, then `VOC07_AP_/<name>` and `VOC_AP_/<name>`, by 11 points and by all."""
        named = [(f"AP_/{name}", self.classes[category]) for category, name in self.names.items()]
        metrics = {}
        for name, result in [("mAP", self.mean), *named]:
            metrics |= {f"VOC07_{name}": result.ap_11_points, f"VOC_{name}": result.ap_all_points}
        return metrics

    def table(self) -> str:
        """The same for people, and how many objects there are to find."""
        named = [(name, self.classes[category]) for category, name in self.names.items()]
        lines = [f"Pascal VOC, AP at IoU {MIN_IOU:<19} objects  11 points  all points"]
        for name, (num_objects, ap_11_points, ap_all_points) in [("mean", self.mean), *named]:
            lines.append(f" {name:<39} {num_objects:>8} {ap_11_points:>10.3f} {ap_all_points:>11.3f}")
        return "\n".join(lines)


def score(images: Sequence[EvaluatedImage], names: Mapping[int, str] | None = None) -> VocResult:
    """Pascal VOC's AP of every class.

    The detections of a class are judged by falling score; equal scores in the order of the images, then in that of
    their rows. Each belongs to the object of its class and image that it overlaps most, the first of equals. If their
    IoU is 0.5 or more it is a true positive, or a false one if the object has been found before; below it is a false
    one. Detections that belong to a difficult object count neither way, nor are such objects there to find. The same
    goes for the crowds of COCO, which VOC has not.

    Sides of boxes are differences of their coordinates. VOC's development kit adds a pixel to each, as its coordinates
    are numbers of pixels that are still part of the object; ours lie between pixels.

    Args:
        images: boxes of detections and objects are in the same unit.
        names: {category id: name} of the classes to report one by one, from 1.

    References: Everingham et al., IJCV 2010, section 4.2 (https://doi.org/10.1007/s11263-009-0275-4), for 11 points;
        IJCV 2015, section 2.4.3 (https://doi.org/10.1007/s11263-014-0733-5), and the development kit of 2010, section
        3.4.1 (http://host.robots.ox.ac.uk/pascal/VOC/voc2010/htmldoc/index.html), for all points.
    """
    names = {category: name for category, name in sorted((names or {}).items()) if category > 0}
    object_classes = _joined([image.groundtruth.classes for image in images], np.int64)
    is_ignored = _joined([image.groundtruth.is_crowd | image.groundtruth.difficult for image in images], bool)
    scores = _joined([image.detections.scores for image in images], np.float64)
    classes = _joined([image.detections.classes for image in images], np.int64)
    first_objects = np.cumsum([0, *(len(image.groundtruth.classes) for image in images)])
    objects = _joined([_find_objects(image, first) for image, first in zip(images, first_objects)], np.int64)
    counts = ~np.append(is_ignored, False)[objects]  # object -1, which is none, is the False at the end

    results = {}
    for category in sorted({*names, *object_classes.tolist(), *classes.tolist()}):
        rows = np.flatnonzero((classes == category) & counts)
        found = objects[rows[np.argsort(-scores[rows], kind="stable")]]
        is_first = np.zeros(len(found), bool)
        is_first[np.unique(found, return_index=True)[1]] = True
        num_objects = int(np.count_nonzero((object_classes == category) & ~is_ignored))
        results[category] = _class_result(is_first & (found >= 0), num_objects)
    return VocResult(names, results)


def _joined(arrays: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *arrays]).astype(dtype)


def _find_objects(image: EvaluatedImage, first: int) -> np.ndarray:
    """[D], the object that each detection belongs to, by its number among those of all images; -1 for none.

    Args:
        image: with D detections.
        first: number of the image's first object.
    """
    detections, groundtruth = image.detections, image.groundtruth
    if not len(groundtruth.classes):
        return np.full(len(detections.classes), -1)
    iou = _pairwise_iou(np.float64(detections.boxes), groundtruth.boxes)
    iou[detections.classes[:, None] != groundtruth.classes] = 0
    best = iou.argmax(axis=1)
    return np.where(iou.max(axis=1) >= MIN_IOU, first + best, -1)


def _pairwise_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[D, K] IoU of [D, 4] and [K, 4] boxes; 0 where the union is empty."""
    a, b = boxes[:, None], others[None]
    sides = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0)
    overlap = sides.prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def _class_result(is_true: np.ndarray, num_objects: int) -> ClassResult:
    """AP of a class.

    Args:
        is_true: [D] bool, whether a detection is a true positive, by falling score.
        num_objects: to find.
    """
    if not num_objects:
        return ClassResult(0, -1.0, -1.0)
    num_found = np.cumsum(is_true)
    precision = num_found / np.arange(1, len(is_true) + 1)
    # The best at this recall or more; behind the last detection there is none.
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    # In whole numbers, as 3 * 0.1 is more than 3 / 10.
    steps = np.searchsorted(RECALL_STEPS * num_found, np.arange(RECALL_STEPS + 1) * num_objects)
    return ClassResult(num_objects, float(best[steps].mean()), float(best[:-1][is_true].sum() / num_objects))
