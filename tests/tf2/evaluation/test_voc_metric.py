# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pascal VOC's AP: cases computed by hand, and equality with a direct implementation in fractions."""

import json
from fractions import Fraction

import numpy as np
import pytest

from efficientdet.postprocess import Detections
from tf2.evaluation import voc_metric
from tf2.evaluation.coco_metric import CocoMetric, EvaluatedImage, ImageGroundtruth

NAMES = {1: "a", 2: "b", 3: "c", 9: "absent"}
BOX, FAR = [0, 0, 10, 10], [50, 50, 60, 60]
DIFFICULT, CROWD = (True, False), (False, True)


def image(found=(), objects=()):
    """An image from rows of (box, score, class) and of (box, class[, is_difficult[, is_crowd]])."""

    def column(rows, i, dtype):
        return np.array([row[i] if len(row) > i else False for row in rows], dtype)

    boxes, scores, classes = (column(found, i, dtype) for i, dtype in enumerate([np.float32, np.float32, np.int32]))
    object_boxes = column(objects, 0, np.float64).reshape(-1, 4)
    sides = object_boxes[:, 2:] - object_boxes[:, :2]
    return EvaluatedImage(
        "any",
        Detections(boxes.reshape(-1, 4), scores, classes, np.int32(len(scores))),
        ImageGroundtruth(
            object_boxes,
            column(objects, 1, np.int64),
            is_crowd=column(objects, 3, bool),
            area=sides.prod(axis=-1),
            difficult=column(objects, 2, bool),
        ),
    )


def both_rules(images, category=1):
    return voc_metric.score(images).classes[category][1:]


# Five objects in a row, and a detection of each.
ROW = [([0, x, 10, x + 10], 1) for x in range(0, 100, 20)]
SEEN = [(box, 0.9 - 0.1 * i, 1) for i, (box, _) in enumerate(ROW)]


@pytest.mark.parametrize(
    "found, objects, expected_11, expected_all",
    [
        (SEEN, ROW, 1, 1),
        ([], ROW, 0, 0),
        # Three objects; true, false, true, false. Precision 1 up to recall 1/3, then 2/3 up to 2/3.
        ([SEEN[0], (FAR, 0.85, 1), SEEN[1], (FAR, 0.1, 1)], ROW[:3], (4 * 1 + 3 * 2 / 3) / 11, 1 / 3 + 2 / 9),
        # Interpolation replaces a precision by a higher one at a higher recall: 1/2 at recall 1/5, 2/3 at 2/5.
        ([(FAR, 0.99, 1), *SEEN[:2]], ROW, 5 * 2 / 3 / 11, 2 / 5 * 2 / 3),
        (SEEN[:3], ROW * 2, 4 / 11, 3 / 10),  # recall 3/10 reaches the sample at 0.3
        # An IoU of 1/2 suffices, 49/100 does not.
        ([([0, 0, 10, 5], 0.9, 1)], [(BOX, 1)], 1, 1),
        ([([0, 0, 10, 4.9], 0.9, 1)], [(BOX, 1)], 0, 0),
        # The second detection of an object is a false positive.
        ([(BOX, 0.9, 1), (BOX, 0.8, 1), (FAR, 0.7, 1)], [(BOX, 1), (FAR, 1)], (6 + 5 * 2 / 3) / 11, 1 / 2 + 1 / 3),
        # Even if its IoU with another object suffices, because it is assigned to the one with the highest IoU.
        ([(BOX, 0.9, 1), (BOX, 0.8, 1)], [([0, 0, 10, 6], 1), (BOX, 1)], 6 / 11, 1 / 2),
        # Difficult objects, crowds, and the detections assigned to them are ignored.
        ([(FAR, 0.9, 1), (FAR, 0.8, 1), (BOX, 0.7, 1)], [(BOX, 1), (FAR, 1, *DIFFICULT)], 1, 1),
        ([(FAR, 0.9, 1), (FAR, 0.8, 1), (BOX, 0.7, 1)], [(BOX, 1), (FAR, 1, *CROWD)], 1, 1),
        ([(BOX, 0.7, 1)], [(BOX, 1), (FAR, 1, *DIFFICULT)], 1, 1),
        ([(FAR, 0.7, 1)], [(FAR, 1, *DIFFICULT)], -1, -1),
        # The IoU with a crowd is the ordinary one, not the share of the detection inside.
        ([([50, 50, 52, 52], 0.9, 1), (BOX, 0.7, 1)], [(BOX, 1), (FAR, 1, *CROWD)], 1 / 2, 1 / 2),
        ([(BOX, 0.9, 2), (BOX, 0.8, 1)], [(BOX, 1)], 1, 1),  # of another class
        ([(BOX, 0.9, 1)], [(BOX, 2)], -1, -1),
        ([([3, 3, 3, 3], 0.9, 1), (BOX, 0.8, 1)], [([3, 3, 3, 3], 1), (BOX, 1)], 6 * 1 / 2 / 11, 1 / 4),  # no area
    ],
)
def test_by_hand(found, objects, expected_11, expected_all):
    np.testing.assert_allclose(both_rules([image(found, objects)]), [expected_11, expected_all], atol=1e-12)


def test_equal_scores_are_ordered_by_image_and_row():
    true, false = image([(BOX, 0.5, 1)], [(BOX, 1)]), image([(BOX, 0.5, 1)])
    assert both_rules([true, false]) == (1, 1)
    assert both_rules([false, true]) == (0.5, 0.5)
    rows = [(FAR, 0.5, 1), (BOX, 0.5, 1)]
    assert both_rules([image(rows, [(BOX, 1)])]) == (0.5, 0.5)
    assert both_rules([image(rows[::-1], [(BOX, 1)])]) == (1, 1)


def test_first_of_equal_overlaps_is_assigned():
    twins = [(BOX, 1), (BOX, 1, *DIFFICULT)]
    assert both_rules([image([(BOX, 0.9, 1)], twins)]) == (1, 1)
    assert both_rules([image([(BOX, 0.9, 1)], twins[::-1])]) == (0, 0)


def test_names_by_category_and_mean_over_classes_with_objects():
    found = [(BOX, 0.9, 2), (BOX, 0.8, 4), (FAR, 0.7, 9), (BOX, 0.6, 3)]
    objects = [(BOX, 2), (BOX, 4), (FAR, 5), (BOX, 3, *DIFFICULT)]
    result = voc_metric.score([image(found, objects)], {9: "absent", 2: "b", 3: "c", 0: "background", 1: "a"})
    assert result.metrics == {
        "VOC07_mAP": pytest.approx(2 / 3),  # of the classes 2 and 4, and of 5, which was missed
        "VOC_mAP": pytest.approx(2 / 3),
        **{"VOC07_AP_/a": -1, "VOC_AP_/a": -1, "VOC07_AP_/b": 1, "VOC_AP_/b": 1},
        **{"VOC07_AP_/c": -1, "VOC_AP_/c": -1, "VOC07_AP_/absent": -1, "VOC_AP_/absent": -1},
    }
    assert all(type(value) is float for value in result.metrics.values())  # which JSON can hold
    assert {category: row.num_objects for category, row in result.classes.items()} == {
        **{1: 0, 2: 1, 3: 0, 4: 1, 5: 1, 9: 0}
    }
    assert result.mean.num_objects == 3
    header, *lines = result.table().splitlines()
    assert header.split() == "Pascal VOC, AP at IoU 0.5 objects 11 points all points".split()
    assert [line.split() for line in lines] == [
        ["mean", "3", "0.667", "0.667"],
        ["a", "0", "-1.000", "-1.000"],
        ["b", "1", "1.000", "1.000"],
        ["c", "0", "-1.000", "-1.000"],
        ["absent", "0", "-1.000", "-1.000"],
    ]
    assert {len(line) for line in [header, *lines]} == {72}


@pytest.mark.parametrize("images", [[], [image()], [image([(BOX, 0.9, 1)])], [image([], [(BOX, 1, *DIFFICULT)])]])
def test_without_objects_ap_is_minus_one(images):
    result = voc_metric.score(images)
    assert result.metrics == {"VOC07_mAP": -1, "VOC_mAP": -1}
    assert result.table().splitlines()[-1].startswith("AP of -1: the images have no object, or difficult ones and")


def random_images(seed, count=15):
    """(found, objects) per image: integer boxes, so that overlaps and scores tie; class 9 does not occur, class 4 has
    no object, every fourth image has none at all."""
    rng = np.random.default_rng(seed)

    def boxes(number):
        corner = rng.integers(0, 20, [number, 2])
        return np.concatenate([corner, corner + rng.integers(1, 12, [number, 2])], -1).tolist()

    images = []
    for i in range(count):
        number = rng.integers(1, 8) if i % 4 else 0
        flags = rng.random([number, 2]) < [0.2, 0.1]
        objects = [
            (box, int(rng.integers(1, 4)), bool(difficult), bool(crowd))
            for box, (difficult, crowd) in zip(boxes(number), flags)
        ]
        near = [(np.add(box, rng.integers(-1, 2, 4)), category) for box, category, *_ in objects * 3]
        near = [(box.tolist(), category if rng.random() < 0.9 else 4) for box, category in near if rng.random() < 0.5]
        anywhere = [(box, int(rng.integers(1, 5))) for box in boxes(rng.integers(0, 3))]
        images.append(([(box, rng.integers(1, 8) / 8, category) for box, category in near + anywhere], objects))
    return images


def exact_iou(box, other):
    tops, lefts, bottoms, rights = zip(box, other)

    def area(top, left, bottom, right):
        return max(bottom - top, 0) * max(right - left, 0)

    overlap = area(max(tops), max(lefts), min(bottoms), min(rights))
    union = area(*box) + area(*other) - overlap
    return Fraction(overlap, union) if union else Fraction(0)


def one_by_one(images, category):
    """(11 points, all points) of a class as fractions, None without objects; processes detections one by one."""
    ranked = [
        (-score, number, row, box)
        for number, (found, _) in enumerate(images)
        for row, (box, score, its_category) in enumerate(found)
        if its_category == category
    ]
    objects = [
        [(box, difficult or crowd) for box, of, difficult, crowd in objects if of == category] for _, objects in images
    ]
    num_objects = sum(not is_ignored for boxes in objects for _, is_ignored in boxes)
    taken, num_true, num_false, curve = set(), 0, 0, []
    for _, number, _, box in sorted(ranked):
        overlaps = [exact_iou(box, other) for other, _ in objects[number]]
        most = max(overlaps, default=0)
        place = (number, overlaps.index(most)) if most >= Fraction(1, 2) else None
        if place and objects[number][place[1]][1]:
            continue
        if place and place not in taken:
            taken.add(place)
            num_true += 1
        else:
            num_false += 1
        if num_objects:
            curve.append((Fraction(num_true, num_objects), Fraction(num_true, num_true + num_false)))
    if not num_objects:
        return None

    def best(recall):
        return max((precision for reached, precision in curve if reached >= recall), default=Fraction(0))

    steps = [Fraction(i, num_objects) for i in range(1, num_objects + 1)]
    return sum(best(Fraction(i, 10)) for i in range(11)) / 11, sum(best(step) for step in steps) / num_objects


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_direct_implementation(seed):
    images = random_images(seed)
    expected = {category: one_by_one(images, category) for category in (1, 2, 3, 4, 9)}
    result = voc_metric.score([image(*rows) for rows in images], NAMES)
    for category, values in expected.items():
        values = [-1, -1] if values is None else [float(value) for value in values]
        np.testing.assert_allclose(result.classes[category][1:], values, atol=1e-12)
    means = [float(sum(values) / len(values)) for values in zip(*(v for v in expected.values() if v))]
    np.testing.assert_allclose(result.mean[1:], means, atol=1e-12)
    assert expected[4] is expected[9] is None
    assert 0.2 < means[0] < 0.9 and means[0] != means[1]  # so that the comparison is not trivial


def test_difficult_objects_from_batches_and_files(tmp_path):
    found = image([(BOX, 0.7, 1), (FAR, 0.9, 1)]).detections
    batch = Detections(*(np.asarray(field)[None] for field in found))
    labels = {"boxes": [BOX, FAR, [-1] * 4], "classes": [1, 1, -1], "is_crowd": [0, 0, -1], "area": [100, 100, -1]}
    rows = [{"image_id": 7, "category_id": 1, "bbox": [y, y, 10, 10]} for y in (0, 50)]
    rows[1]["difficult"] = 1
    path = tmp_path / "val.json"
    path.write_text(json.dumps({"images": [{"id": 7}], "categories": [{"id": 1}], "annotations": rows}))
    from_batch, from_file = CocoMetric(), CocoMetric(None, str(path))
    from_batch.add(["7"], batch, [{**labels, "difficult": [0, 1, -1]}])
    from_file.add(["7"], batch)
    for metric in (from_batch, from_file):
        assert voc_metric.score(metric.images()).classes == {1: (1, 1.0, 1.0)}
    unknown = CocoMetric()
    unknown.add(["7"], batch, [labels])
    assert voc_metric.score(unknown.images()).classes == {1: (2, 1.0, 1.0)}
