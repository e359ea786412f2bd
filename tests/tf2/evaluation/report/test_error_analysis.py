# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""error_analysis: matching computed by hand and by brute force, and compared with COCO's own matching."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from efficientdet.postprocess import Detections
from tf2.evaluation.coco_metric import EvaluatedImage, ImageGroundtruth
from tf2.evaluation.report import error_analysis
from tf2.evaluation.report.error_analysis import NONE, Match

THRESHOLD = 0.5


def image(found, objects):
    """An image from rows of (box, score, class) and of (box, class[, is_crowd[, is_difficult]])."""
    boxes, scores, classes = zip(*found) if found else ((), (), ())
    detections = Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.int32),
        np.int32(len(found)),
    )
    truth = [(*row, False, False)[:4] if len(row) == 2 else (*row, False)[:4] for row in objects]
    boxes = np.array([row[0] for row in truth], np.float64).reshape(-1, 4)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    classes = np.array([row[1] for row in truth], np.int64)
    crowd, difficult = (np.array([row[i] for row in truth], bool) for i in (2, 3))
    return EvaluatedImage("x", detections, ImageGroundtruth(boxes, classes, crowd, area, difficult))


def box(x, y=0, side=10):
    return [y, x, y + side, x + side]


def pairs(found, objects):
    """(detection, object) of every match."""
    return [(pair.detection, pair.object) for pair in error_analysis.match([image(found, objects)], THRESHOLD)]


@pytest.mark.parametrize(
    "found, objects, expected",
    [
        ([(box(0), 0.9, 1)], [(box(0), 1)], [(0, 0)]),  # correct
        ([(box(0), 0.5, 1)], [(box(0), 1)], [(NONE, 0)]),  # not above the threshold
        ([(box(0), 0.9, 2)], [(box(0), 1)], [(0, 0)]),  # confused
        ([(box(7), 0.9, 1)], [(box(0), 1)], [(0, NONE), (NONE, 0)]),  # IoU 3/17
        ([(box(0, side=10), 0.9, 1)], [([0, 0, 10, 20], 1)], [(0, 0)]),  # IoU 0.5
        ([(box(0), 0.6, 1), (box(1), 0.9, 1)], [(box(0), 1)], [(1, 0), (0, NONE)]),  # the higher score takes it
        ([(box(0), 0.9, 1), (box(0), 0.9, 1)], [(box(0), 1)], [(0, 0), (1, NONE)]),  # the first of equal scores
        ([(box(1), 0.9, 1)], [(box(3), 1), (box(0), 1)], [(0, 1), (NONE, 0)]),  # the largest overlap
        ([(box(0), 0.9, 1)], [(box(2), 1), (box(0), 2)], [(0, 0), (NONE, 1)]),  # its own class before a larger overlap
        ([(box(0), 0.9, 2), (box(0), 0.6, 1)], [(box(0), 1)], [(0, NONE), (1, 0)]),  # even against a higher score
        ([(box(2), 0.9, 1), (box(0), 0.8, 1)], [(box(0), 1), (box(0), 2)], [(0, 0), (1, 1)]),  # the remaining object
        ([], [], []),
        ([(box(0), 0.9, 1)], [], [(0, NONE)]),
    ],
)
def test_match_by_hand(found, objects, expected):
    assert pairs(found, objects) == expected


@pytest.mark.parametrize("crowd, difficult", [(True, False), (False, True)])
def test_crowds_and_difficult_objects_are_ignored(crowd, difficult):
    ignored = ([0, 0, 10, 30], 1, crowd, difficult)
    assert pairs([], [ignored]) == []
    # Its IoU is 1 with the crowd around it, 1/3 with the difficult object.
    assert pairs([(box(0), 0.9, 1)], [ignored]) == ([] if crowd else [(0, NONE)])
    assert pairs([([0, 0, 10, 20], 0.9, 1), ([0, 0, 10, 29], 0.8, 1)], [ignored]) == []
    assert pairs([([0, 0, 10, 30], 0.9, 2)], [ignored]) == [(0, NONE)]  # of another class
    # Neither takes a detection from an object.
    assert pairs([([0, 0, 10, 20], 0.9, 1)], [ignored, ([0, 0, 10, 12], 1)]) == [(0, 1)]
    assert pairs([([0, 0, 10, 20], 0.9, 1)], [ignored, ([0, 0, 10, 20], 2)]) == [(NONE, 1)]


def test_fields_and_kinds_of_matches():
    found = [(box(0), 0.9, 1), (box(50), 0.8, 1), (box(100), 0.75, 2)]
    objects = [(box(0), 1), (box(100), 1), (box(150, side=20), 3)]
    matches = error_analysis.match([image([], []), image(found, objects)], THRESHOLD)
    assert matches == [
        Match(1, 0, 0, 1, 1, pytest.approx(0.9), 100.0),
        Match(1, 1, NONE, 1, NONE, pytest.approx(0.8), 0.0),
        Match(1, 2, 1, 2, 1, 0.75, 100.0),
        Match(1, NONE, 2, NONE, 3, 0.0, 400.0),
    ]
    kinds = [(pair.is_correct, pair.is_false_positive, pair.is_confused, pair.is_missed) for pair in matches]
    np.testing.assert_array_equal(kinds, np.eye(4, dtype=bool))


def random_images(seed, num_images=30, size=20, noise=0.0, difficult=0.1):
    """Boxes on a coarse grid and coarse scores, so that there are ties, overlaps of 0.5, crowds and empty images."""
    rng = np.random.default_rng(seed)

    def boxes(number):
        corners = rng.integers(0, 5, [number, 2])
        corners = np.concatenate([corners, corners + rng.integers(2, 5, [number, 2])], axis=1)
        return (corners + noise * rng.random([number, 4])).tolist()

    images = []
    for _ in range(num_images):
        found = [(b, rng.integers(1, 10) / 10, int(rng.integers(1, 4))) for b in boxes(rng.integers(0, size))]
        objects = [
            (b, int(rng.integers(1, 4)), bool(rng.random() < 0.1), bool(rng.random() < difficult))
            for b in boxes(rng.integers(0, size))
        ]
        images.append(image(found, objects))
    return images


def iou(a, b, is_crowd):
    height, width = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    overlap = height * width if height > 0 and width > 0 else 0
    area_a, area_b = ((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return overlap / (area_a if is_crowd else area_a + area_b - overlap)


def brute_force(index, item):
    """Matches by the rules of the docstring, one pair at a time: a set of (image, detection, object)."""
    detections, truth = item.detections, item.groundtruth
    order = [d for d in range(len(detections.scores)) if detections.scores[d] > THRESHOLD]
    order.sort(key=lambda d: (-detections.scores[d], d))
    real = [o for o in range(len(truth.classes)) if not truth.is_crowd[o] and not truth.difficult[o]]
    ignored = [o for o in range(len(truth.classes)) if o not in real]

    def overlap(d, o):
        return iou(detections.boxes[d].tolist(), truth.boxes[o].tolist(), truth.is_crowd[o])

    partner, gone = {}, set()
    for own_class in (True, False):
        for d in order:
            if d in partner or d in gone:
                continue
            fits = [
                (overlap(d, o), -o)
                for o in real
                if o not in partner.values() and (truth.classes[o] == detections.classes[d]) == own_class
            ]
            if fits and max(fits)[0] >= 0.5:
                partner[d] = -max(fits)[1]
            elif own_class and any(truth.classes[o] == detections.classes[d] and overlap(d, o) >= 0.5 for o in ignored):
                gone.add(d)
    triples = {(index, d, partner.get(d, NONE)) for d in order if d not in gone}
    return triples | {(index, NONE, o) for o in real if o not in partner.values()}


@pytest.mark.parametrize("seed", range(10))
def test_match_equals_brute_force(seed):
    images = random_images(seed)
    matches = error_analysis.match(images, THRESHOLD)
    expected = set().union(*(brute_force(i, item) for i, item in enumerate(images)))
    assert {pair[:3] for pair in matches} == expected and len(matches) == len(expected)
    for pair in matches:
        detections, truth = images[pair.image].detections, images[pair.image].groundtruth
        assert pair.detected_class == (NONE if pair.detection == NONE else detections.classes[pair.detection])
        assert pair.object_class == (NONE if pair.object == NONE else truth.classes[pair.object])


@pytest.mark.parametrize("seed", range(3))
def test_number_of_correct_detections_equals_cocos(seed):
    images = random_images(seed + 100, noise=0.5, difficult=0)  # without equal overlaps; COCO has no difficult objects

    def coco(rows):
        data = COCO()
        data.dataset = {
            "images": [{"id": i} for i in range(len(images))],
            "categories": [{"id": i} for i in (1, 2, 3)],
            "annotations": [{"id": i, **row} for i, row in enumerate(rows, 1)],
        }
        data.createIndex()
        return data

    def row(index, corners, category, **others):
        ymin, xmin, ymax, xmax = map(float, corners)
        sides = {"bbox": [xmin, ymin, xmax - xmin, ymax - ymin], "area": (xmax - xmin) * (ymax - ymin)}
        return {"image_id": index, "category_id": int(category), **sides, **others}

    objects, found = [], []
    for i, (_, detections, truth) in enumerate(images):
        objects += [
            row(i, b, category, iscrowd=int(crowd))
            for b, category, crowd in zip(truth.boxes, truth.classes, truth.is_crowd)
        ]
        found += [
            row(i, b, category, score=float(score))
            for b, category, score in zip(detections.boxes, detections.classes, detections.scores)
            if score > THRESHOLD
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco(objects), coco(found), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.evaluate()
    matches = error_analysis.match(images, THRESHOLD)
    for category in (1, 2, 3):
        parts = [part for part in evaluation.evalImgs if part is not None and part["category_id"] == category]
        matched = sum(np.count_nonzero((part["dtMatches"] > 0) & ~part["dtIgnore"]) for part in parts)
        assert matched == sum(pair.is_correct and pair.object_class == category for pair in matches) > 0


def test_confusion_and_counts_by_hand():
    kinds = [(1, 1), (1, 1), (1, 4), (4, NONE), (NONE, 4), (NONE, 4), (NONE, 1), (4, 1)]  # (object, detected)
    matches = [Match(0, 0, 0, detected, actual, 0.9, 1.0) for actual, detected in kinds]
    matrix = error_analysis.confusion(matches, [1, 3, 4])
    np.testing.assert_array_equal(matrix, [[2, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 1], [1, 0, 2, 0]])
    first, absent, last, total = error_analysis.counts(matrix)
    assert first == (3, 4, 2, 1, 0, 1, 1)
    assert (first.precision, first.recall) == (1 / 2, 2 / 3)
    assert absent == (0,) * 7 and (absent.precision, absent.recall) == (-1, -1)
    assert last == (2, 3, 0, 1, 1, 1, 2)
    assert total == (5, 7, 2, 2, 1, 2, 3)


def test_counts_without_matches():
    assert error_analysis.counts(error_analysis.confusion([], [])) == [(0,) * 7]
