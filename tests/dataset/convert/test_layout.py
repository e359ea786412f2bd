# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/convert/layout.py and of the layouts of each format."""

import pytest
from tool_exports import BOXES, EXPORTS, HEIGHT, WIDTH

from dataset.convert import layout
from dataset.convert.conversion_report import ConversionReport

# Images of the splits of exports that have several, without BOXES.
OTHER_SPLITS = {("Roboflow", "Pascal VOC"): {"val": {"c": [("Dog", [1, 1, 9, 9])]}, "test": {"d": []}}}
OTHER_SPLITS[("Roboflow", "COCO")] = {"val": BOXES, "test": BOXES}
OTHER_SPLITS[("Roboflow", "YOLO")] = {"val": BOXES}


def boxes_of(source):
    """Returns {name of the image without folder and suffix: [(class, box in pixels)]}."""
    boxes = {}
    for item in source.items:
        annotation = source.read(item, ConversionReport())
        scale = [WIDTH, HEIGHT] * 2 if annotation.normalized else [1] * 4
        stem = annotation.image_path.stem.removesuffix("_jpg.rf.0123abcd")
        boxes[stem] = [
            (item.class_name, [round(side * length, 3) for side, length in zip(item.box, scale)])
            for item in annotation.objects
        ]
    return boxes


@pytest.mark.parametrize("export", EXPORTS, ids=" ".join)
def test_exports_of_tools(tmp_path, export):
    EXPORTS[export](tmp_path)
    found = layout.find(tmp_path)
    expected = {"train": BOXES, **OTHER_SPLITS.get(export, {})}
    if export in (("CVAT", "Pascal VOC 1.1"), ("CVAT", "COCO 1.0")):  # turned by 90 degrees
        expected["train"] = {**BOXES, "a": [("Dog", [3, 6, 13, 14]), BOXES["a"][1]]}
    sources = found.load()
    assert {split: boxes_of(source) for split, source in sources.items()} == expected
    assert list(sources) == list(expected) == list(found.splits)
    assert {tuple(source.label_map.items()) for source in sources.values()} == {((1, "Dog"), (2, "traffic light"))}
    assert found.format == {"Pascal": "voc", "COCO": "coco"}.get(export[1].split()[0], "yolo")
    assert str(found.folder) in found.description
