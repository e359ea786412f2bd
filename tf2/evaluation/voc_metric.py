# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pascal VOC's average precision at IoU 0.5: 11-point interpolation (VOC2007) and all points (VOC2010 and later)."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from efficientdet import boxes as box_ops
from tf2.evaluation.coco_metric import EvaluatedImage

MIN_IOU = 0.5
RECALL_STEPS = 10  # VOC2007 samples the precision at recall 0, 1/10, ..., 1


class ClassResult(NamedTuple):
    """Result of one class over all images; AP is -1 without objects.

    Both values of AP average the interpolated precision p(r), the maximum precision at a recall of at least r.
    """

    num_objects: int  # excluding difficult objects and crowds
    ap_11_points: float  # VOC2007: mean of p(0), p(0.1), ..., p(1), in [0, 1]
    ap_all_points: float  # VOC2010 and later: integral of p(r) over r, in [0, 1]


class VocResult(NamedTuple):
    """Results of `score`, by category id."""

    names: dict[int, str]  # classes to report individually
    classes: dict[int, ClassResult]  # classes with a name, an object or a detection

    @property
    def mean(self) -> ClassResult:
        """Total number of objects, and mean AP over all classes with objects, named or not."""
        results = [result for result in self.classes.values() if result.num_objects]
        if not results:
            return ClassResult(0, -1.0, -1.0)
        num_objects, ap_11_points, ap_all_points = zip(*results)
        return ClassResult(sum(num_objects), float(np.mean(ap_11_points)), float(np.mean(ap_all_points)))

    @property
    def metrics(self) -> dict[str, float]:
        """`VOC07_mAP` (11 points) and `VOC_mAP` (all points), then `VOC07_AP_/<name>` and `VOC_AP_/<name>`."""
        named = [(f"AP_/{name}", self.classes[category]) for category, name in self.names.items()]
        metrics = {}
        for name, result in [("mAP", self.mean), *named]:
            metrics |= {f"VOC07_{name}": result.ap_11_points, f"VOC_{name}": result.ap_all_points}
        return metrics

    def table(self) -> str:
        """Formats the metrics and the numbers of objects for printing."""
        named = [(name, self.classes[category]) for category, name in self.names.items()]
        lines = [f"Pascal VOC, AP at IoU {MIN_IOU:<19} objects  11 points  all points"]
        for name, (num_objects, ap_11_points, ap_all_points) in [("mean", self.mean), *named]:
            lines.append(f" {name:<39} {num_objects:>8} {ap_11_points:>10.3f} {ap_all_points:>11.3f}")
        if not self.mean.num_objects:
            lines.append("AP of -1: the images have no object, or difficult ones and crowds only, which are ignored")
        return "\n".join(lines)


def score(images: Sequence[EvaluatedImage], names: Mapping[int, str] | None = None) -> VocResult:
    """Computes Pascal VOC's AP of every class.

    The detections of a class are processed by descending score; ties in the order of the images, then of the rows.
    Each is assigned to the object of its class and image with the highest IoU (the first of equals). It is a true
    positive if that IoU is at least 0.5 and the object has no detection yet, otherwise a false positive. Difficult
    objects, and detections assigned to them, are ignored; so are COCO's crowds, which VOC does not have.

    The width of a box is xmax - xmin. VOC's development kit adds 1, because its coordinates are indices of the first
    and last pixel; ours are positions between pixels.

    Args:
        images: detections and groundtruth; their boxes are in the same unit.
        names: {category id: name} of the classes to report individually, from 1.

    References: Everingham et al., IJCV 2010, section 4.2 (https://doi.org/10.1007/s11263-009-0275-4), for 11 points;
        IJCV 2015, section 2.4.3 (https://doi.org/10.1007/s11263-014-0733-5), and the development kit of 2010, section
        3.4.1 (http://host.robots.ox.ac.uk/pascal/VOC/voc2010/htmldoc/index.html), for all points.
    """
    names = {category: name for category, name in sorted((names or {}).items()) if category > 0}
    num_objects = Counter()  # by category
    found = defaultdict(list)  # by category: (score, True for a true positive) of the detections that count
    for (boxes, scores, classes, _), groundtruth in ((image.detections, image.groundtruth) for image in images):
        is_ignored = groundtruth.is_crowd | groundtruth.difficult
        for category, ignored in zip(groundtruth.classes.tolist(), is_ignored):
            num_objects[category] += not ignored
        iou = box_ops.numpy_iou(np.float64(boxes)[:, None], groundtruth.boxes)  # [D, K]
        # An additional column of 0, because there may be no objects.
        iou = np.pad(iou * (classes[:, None] == groundtruth.classes), [(0, 0), (0, 1)])
        is_detected = np.zeros(iou.shape[1], bool)
        for i in np.argsort(-scores, kind="stable"):
            assigned, rows = iou[i].argmax(), found[int(classes[i])]
            if iou[i, assigned] < MIN_IOU:
                rows.append((scores[i], False))
            elif not is_ignored[assigned]:
                rows.append((scores[i], not is_detected[assigned]))
                is_detected[assigned] = True

    results = {}
    for category in sorted({*names, *num_objects, *found}):
        ranked = sorted(found[category], key=lambda row: -row[0])
        results[category] = _class_result(np.array([is_true for _, is_true in ranked], bool), num_objects[category])
    return VocResult(names, results)


def _class_result(is_true: np.ndarray, num_objects: int) -> ClassResult:
    """Computes the AP of a class from its detections by descending score: [D] bool, True for a true positive."""
    if not num_objects:
        return ClassResult(0, -1.0, -1.0)
    true_positives = np.cumsum(is_true)
    precision = true_positives / np.arange(1, len(is_true) + 1)
    # p(r) at the recall of each detection; 0 beyond the highest recall.
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    # Compared as integers, because 3 * 0.1 > 3 / 10 in floating point.
    steps = np.searchsorted(RECALL_STEPS * true_positives, np.arange(RECALL_STEPS + 1) * num_objects)
    return ClassResult(num_objects, float(best[steps].mean()), float(best[:-1][is_true].sum() / num_objects))
