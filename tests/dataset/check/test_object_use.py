# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/check/object_use.py: objects that training or evaluation leaves out."""

import pytest
import tensorflow as tf

from dataset import tfrecord
from dataset.check import checks, data_report, record_facts
from dataset.tfrecord import DataError, Record
from efficientdet import config as config_lib

JPEG = tf.io.encode_jpeg(tf.zeros([64, 64, 3], tf.uint8)).numpy()
BOX, INVALID = (0.1, 0.2, 0.6, 0.7), (0.5, 0.5, 0.5, 0.5)
REMEDY = "export polygons or boxes instead of masks, which some tools mark as crowds (iscrowd: 0 for one object)"
KEPT = {"skip_crowd_during_training": False}


def config(**overrides):
    return config_lib.load("efficientdet-lite0", num_classes=3).override(overrides)


def write(path, records):
    """Writes records, each a list of objects (class id, is_crowd) or (class id, is_crowd, box); returns the path."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for i, objects in enumerate(records):
            classes, is_crowd, boxes = zip(*((*item, BOX)[:3] for item in objects)) if objects else ((), (), ())
            # No two boxes of an image are equal.
            boxes = [[x + 0.01 * k for x in box] for k, box in enumerate(boxes)]
            columns = {"boxes_norm": boxes, "classes": classes, "is_crowd": is_crowd}
            writer.write(tfrecord.encode(Record(JPEG, 64, 64, f"{i}.jpg", str(i + 1), **columns)))
    return str(path)


def find(pattern, evaluates=False, samples=None, **overrides):
    """Returns (level, text) of the findings of this module."""
    facts = record_facts.read(pattern, samples=samples)
    findings = checks.run(facts, config(**overrides), evaluates=evaluates)
    return [(f.level, f.text) for f in findings if f.code in ("crowds", "unused_classes")]


@pytest.mark.parametrize(
    "evaluates, overrides, level, consequence",
    [
        (False, {}, "fatal", "skip_crowd_during_training leaves out: nothing would be trained; "),
        (False, KEPT, "warning", "AP ignores: it would be -1; "),
        (True, {}, "fatal", "AP ignores: it would be -1; "),
        (True, KEPT, "fatal", "AP ignores: it would be -1; "),
    ],
)
def test_crowds_alone_are_refused(tmp_path, evaluates, overrides, level, consequence):
    pattern = write(tmp_path / "x", [[(1, 1), (2, 1)], [], [(1, 1)]])
    setting = ", or set skip_crowd_during_training=false" if not evaluates and not overrides else ""
    text = f"3 of 3 valid boxes (100.0%) are crowds (iscrowd: 1), which {consequence}{REMEDY}{setting}"
    assert find(pattern, evaluates, **overrides) == [(level, text)]
    if level == "fatal":
        with pytest.raises(DataError, match=r"3 of 3 valid boxes .* are crowds"):
            checks.quick(pattern, config(**overrides), evaluates=evaluates)
    else:
        assert text in checks.quick(pattern, config(**overrides), evaluates=evaluates).warnings[0]


@pytest.mark.parametrize("num_crowds, level", [(1, None), (2, None), (3, "warning"), (10, "warning")])
@pytest.mark.parametrize("evaluates", [False, True])
def test_many_crowds_are_a_warning(tmp_path, num_crowds, level, evaluates):
    pattern = write(tmp_path / "x", [[(1, int(i < num_crowds))] for i in range(20)])
    found = find(pattern, evaluates)
    assert [finding_level for finding_level, _ in found] == ([level] if level else [])
    assert all(f"{num_crowds} of 20 valid boxes (" in text and REMEDY in text for _, text in found)
    assert find(pattern, **KEPT) == []


def test_invalid_boxes_beside_crowds_do_not_hide_them(tmp_path):
    pattern = write(tmp_path / "x", [[(1, 1), (2, 0, INVALID)], [(1, 1)]])
    [(level, text)] = find(pattern)
    assert level == "fatal" and "2 of 2 valid boxes (100.0%) are crowds" in text


@pytest.mark.parametrize(
    "objects, overrides, expected",
    [
        ([(2, 1)], {}, "2 (1, 1 of them crowds)"),
        ([(2, 1)], KEPT, None),
        ([(2, 1), (2, 0)], {}, None),
        ([(2, 0, INVALID)], {}, "2 (1, 0 of them crowds)"),
        ([(2, 0, INVALID), (3, 1)], {}, "2 (1, 0 of them crowds), 3 (1, 1 of them crowds)"),
    ],
)
def test_a_class_of_which_no_box_is_used_is_a_warning(tmp_path, objects, overrides, expected):
    pattern = write(tmp_path / "x", [[(1, 0)] for _ in range(40)] + [objects])
    found = find(pattern, **overrides)
    assert [level for level, _ in found] == (["warning"] if expected else [])
    assert not expected or found[0][1].startswith(f"no box of class {expected} is trained; {REMEDY}")
    assert [text.split("; ")[0] for _, text in find(pattern, evaluates=True)] == (
        [f"no box of class {expected or '2 (1, 1 of them crowds)'} counts in AP"] if expected or overrides else []
    )


def test_few_sampled_boxes_of_a_class_are_no_evidence(tmp_path):
    for count, expected in ((9, []), (10, ["warning"])):
        records = [[(2, 1)]] * count + [[(1, 0)]] * 250
        assert [level for level, _ in find(write(tmp_path / "x", records), samples=200)] == expected


def test_a_sample_of_crowds_is_refused_only_if_all_records_are_like_it(tmp_path):
    pattern = write(tmp_path / "x", [[(1, 1)]] * 300)
    [(level, text)] = find(pattern, samples=256)
    assert level == "warning" and text.startswith("256 of 256 valid boxes (100.0%) of the 256 sampled records are")
    with pytest.raises(DataError, match=r"300 of 300 valid boxes \(100.0%\) are crowds"):
        checks.quick(pattern, config())
    [warning] = checks.quick(write(tmp_path / "x", [[(1, 1)]] * 300 + [[(1, 0)]]), config()).warnings
    assert "300 of 301 valid boxes (99.7%) are crowds (iscrowd: 1), which skip_crowd_during_training leaves" in warning


def test_a_fatal_sample_is_refused_without_reading_on(tmp_path, monkeypatch):
    pattern = write(tmp_path / "x", [[(7, 1)]] * 300)
    read = []
    monkeypatch.setattr(checks, "_read", lambda *args, read_some=checks._read: read.append(args) or read_some(*args))
    with pytest.raises(DataError, match="class ids must be in"):
        checks.quick(pattern, config())
    assert len(read) == 1


def test_the_report_of_crowds_has_no_anchor_recall(tmp_path):
    facts = record_facts.read(write(tmp_path / "x", [[(1, 1)]]))
    lines = data_report.table(data_report.compute_statistics(facts, config()), []).splitlines()
    assert [line.split() for line in lines if line.startswith("  all")] == [["all", "0", "-"]]
