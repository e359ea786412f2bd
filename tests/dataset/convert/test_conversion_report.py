# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/convert/conversion_report.py."""

from dataset.convert.conversion_report import ConversionReport


def test_report_counts_and_names_the_first_few():
    report = ConversionReport()
    report.written = {"images": 3, "boxes": 5}
    report.note("boxes clipped", "a.xml cat")
    report.note("boxes clipped", "b.xml dog")
    assert str(report) == "3 images, 5 boxes\nboxes clipped: 2 (a.xml cat; b.xml dog)"
    for i in range(1000):
        report.leave_out("boxes", "empty", str(i))
    first, _, last = str(report).splitlines()
    assert first == "3 images, 5 boxes; 0 images and 1000 boxes left out"
    assert last == "empty: 1000 (0; 1; 2; 3; 4 and 995 more)"
    empty = report.to_json()["reasons"]["empty"]
    assert empty["count"] == 1000 and empty["first"] == [str(i) for i in range(300)]
