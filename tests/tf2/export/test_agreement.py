# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""agreement: detections and their partners, and those that rounding may have removed."""

import math

import numpy as np
import pytest

from efficientdet.postprocess import Detections
from tf2.export import agreement
from tf2.export.agreement import Share, Tolerance
from tf2.export.parity_report import Finding

OF_FILE = "agreement of the file's detections"
TOLERANCE = Tolerance(0.01, 0.01, 0.01)


def detections(*rows):
    """Detections from rows (class, score, box)."""
    classes, scores, boxes = zip(*rows) if rows else ([], [], [])
    return Detections(np.reshape(boxes, [-1, 4]), np.float64(scores), np.int32(classes), len(rows))


def counts(share):
    return share.num_matched, share.num_missing, share.num_uncounted


BOX, FAR = (10, 10, 30, 50), (100, 100, 140, 120)


@pytest.mark.parametrize(
    "other, matched, differences",
    [
        ([(1, 0.9, BOX)], [True], [0, 0]),
        ([(2, 0.9, BOX)], [False], [0, 0]),
        ([(1, 0.905, BOX)], [True], [0.005, 0]),
        ([(1, 0.92, BOX)], [False], [0, 0]),
        ([(1, 0.9, (10.2, 10, 30, 50))], [True], [0, 0.2]),  # of a longer side of 40
        ([(1, 0.9, (10.6, 10, 30, 50))], [False], [0, 0]),
        ([(1, 0.9, FAR)], [False], [0, 0]),
        ([], [], [0, 0]),
        ([(1, 0.905, BOX), (1, 0.9, BOX)], [False, True], [0, 0]),  # only the closest one
    ],
)
def test_matching(other, matched, differences):
    rows, columns, *largest = agreement._match(detections((1, 0.9, BOX)), detections(*other), TOLERANCE)
    assert columns.tolist() == matched and rows.tolist() == [any(matched)]
    assert largest == pytest.approx(differences)


def test_a_box_without_area_is_compared_in_pixels():
    point = (5, 5, 5, 5)
    for moved, is_matched in ((5.009, True), (5.011, False)):
        other = detections((1, 0.9, (moved, 5, 5, 5)))
        assert agreement._match(detections((1, 0.9, point)), other, TOLERANCE).rows == [is_matched]


@pytest.mark.parametrize(
    "score, shift, side, is_matched",
    [
        (0.0009, 0, 40, True),
        (0.0011, 0, 40, False),
        (0, 0.09, 40, True),
        (0, 0.11, 40, False),
        (0, 0.19, 1000, True),  # 2e-4 of the side
        (0, 0.21, 1000, False),
    ],
)
def test_tolerance_of_fp32(score, shift, side, is_matched):
    ours, theirs = (detections((1, 0.9 + s, (10, 10, 30, 10 + side + x))) for s, x in ((0, 0), (score, shift)))
    assert agreement._match(ours, theirs, agreement.TOLERANCES["FP32"]).rows == [is_matched]


@pytest.mark.parametrize(
    "nms_configs, scores, cutoff",
    [
        ({"score_thresh": 0.4}, [0.9, 0.6], 0.4),
        ({"score_thresh": 0.4, "max_output_size": 2}, [0.9, 0.6], 0.6),
        ({"score_thresh": 0.0, "method": "gaussian"}, [0.9], 0.001),
        ({"score_thresh": 0.0, "method": "hard"}, [0.9], -math.inf),
        ({"score_thresh": 0.4}, [], 0.4),
    ],
)
def test_score_cutoff(tiny_config, nms_configs, scores, cutoff):
    found = detections(*((1, score, BOX) for score in scores))
    assert agreement._score_cutoff(found, tiny_config.override({"nms_configs": nms_configs})) == cutoff


def test_unmatched_detections_near_the_cutoff_are_not_counted(tiny_config):
    config = tiny_config.override({"nms_configs": {"score_thresh": 0.4}})
    ours = detections((1, 0.9, BOX), (1, 0.405, FAR))
    # By hand: scores differ by 0.003, so rounding may have reduced the score of the missing detection by 0.006.
    found, own = agreement.compare([ours], [detections((1, 0.897, BOX))], config, TOLERANCE)
    assert counts(found) == (1, 0, 1) and counts(own) == (1, 0, 0) and not found.is_complete and own.is_complete
    assert "1 more within rounding of the score cutoff" in found.text and "cutoff" not in own.text
    # By 0.002 only; and without any match, when every detection of a wrong file would be near the cutoff.
    for score, box in ((0.898, BOX), (0.9, FAR)):
        found, _ = agreement.compare([ours], [detections((1, score, box))], config, TOLERANCE)
        assert counts(found) == (1, 1, 0) if box == BOX else (0, 2, 0)
        assert "cutoff" not in found.text


def test_equal_scores_of_a_full_list_are_not_counted(tiny_config):
    """Of more boxes with equal scores than fit into the list, any may be in it."""
    config = tiny_config.override({"nms_configs": {"score_thresh": 0.4, "max_output_size": 2}})
    ours, theirs = detections((1, 1, BOX), (1, 1, FAR)), detections((2, 1, BOX), (1, 1, FAR))
    assert [counts(share) for share in agreement.compare([ours], [theirs], config, TOLERANCE)] == [(1, 0, 1)] * 2


def share(*numbers):
    return Share("file's detections", *numbers, "text")


@pytest.mark.parametrize(
    "numbers, own, value, bound, passed",
    [
        ((99, 1, 0), None, 0.99, 0.99, True),
        ((98, 2, 0), None, 0.98, 0.99, False),
        ((98, 2, 0), (99, 1, 0), 0.98, 0.97, True),
        ((98, 2, 0), (100, 0, 5), 0.98, 0.99, False),
        ((90, 0, 10), None, 1, 0.99, True),
        ((89, 0, 11), None, 1, 0.99, False),
        ((89, 0, 11), (94, 0, 6), 1, 0.99, True),  # twice 6
        ((88, 0, 13), (94, 0, 6), 1, 0.99, False),
        ((1, 0, 2), None, 1, 0.99, True),
        ((1, 0, 3), None, 1, 0.99, False),
        ((0, 0, 2), None, None, None, None),
        ((0, 0, 3), None, 0, 0.99, False),
        ((0, 0, 50), (0, 0, 50), None, None, None),  # of nearly equal scores, rounding decides which are in the list
        ((10, 90, 0), (50, 50, 0), 0.1, None, None),
        ((0, 0, 0), None, None, 0.99, None),
    ],
)
def test_verdict_on_a_share(numbers, own, value, bound, passed):
    finding = share(*numbers).judge(0.99, own and share(*own))
    assert finding.name == OF_FILE and finding.passed is passed and finding.compared == sum(numbers[:2])
    assert (finding.value, finding.bound) == (pytest.approx(value), pytest.approx(bound))


def test_a_failed_share_tells_why():
    text = share(89, 0, 11).judge(0.99, share(96, 1, 3)).text
    assert text == (
        "11 of 100 detections cannot be compared, more than 10; text; "
        "after rounding, the checkpoint has 96 of its 97 detections"
    )
    assert share(10, 90, 0).judge(0.99, share(1, 1, 0)).text.startswith("no verdict: rounding decides; text; after")


def test_int8_has_no_verdict():
    assert share(5, 15, 0).judge(None) == Finding(OF_FILE, 0.25, None, None, 20, "text")


def test_no_detections_give_no_verdict(tiny_config):
    config = tiny_config.override({"nms_configs": {"score_thresh": 0.4}})
    for each in agreement.compare([detections()], [detections()], config, TOLERANCE):
        finding = each.judge(0.99)
        assert finding.value is None and finding.passed is None and not each.is_complete
        assert finding.text == (
            "no verdict: no detection above 0.4; give --parity_images, or a lower --min_score_thresh"
        )


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name, column", [("checkpoint", "score"), ("file", "box")])
def test_non_finite_detections(name, column, value):
    good, bad = (
        [detections((1, 0.9, BOX))] * 2,
        detections((1, value, BOX) if column == "score" else (1, 0.9, [value] * 4)),
    )
    sides = ([good[0], bad], good) if name == "checkpoint" else (good, [good[0], bad])
    finding = agreement.non_finite(*sides)
    assert finding.text == f"the {name}'s detections in image 1 are not all finite" and finding.is_fatal
    assert agreement.non_finite(good, good) is None
