# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""gallery: selection, captions and drawing."""

import numpy as np
import pytest

from dataset import visualize
from efficientdet.postprocess import Detections
from tf2.evaluation.coco_metric import EvaluatedImage, ImageGroundtruth
from tf2.evaluation.report import error_analysis, gallery
from tf2.evaluation.report.gallery import GAP, SMALL_SIDE, Entry

GRAY = 90
NAMES = {1: "one", 2: "two"}


def image(source_id, found, objects):
    """An image from rows of (box, score, class) and of (box, class)."""
    truth = np.array([box for box, _ in objects], np.float64).reshape(-1, 4)
    return EvaluatedImage(
        source_id,
        Detections(
            np.array([row[0] for row in found], np.float32).reshape(-1, 4),
            np.array([row[1] for row in found], np.float32),
            np.array([row[2] for row in found], np.int32),
            np.int32(len(found)),
        ),
        ImageGroundtruth(
            truth,
            np.array([category for _, category in objects], np.int64),
            np.zeros(len(objects), bool),
            (truth[:, 2:] - truth[:, :2]).prod(axis=1),
            np.zeros(len(objects), bool),
        ),
    )


def box(x, side=20):
    return [0, x, side, x + side]


IMAGES = [
    image("a", [(box(0), 0.9, 1), (box(2), 0.8, 1), (box(50), 0.7, 2)], [(box(0), 1), (box(50), 1)]),
    image(
        "b", [(box(0), 0.6, 1), (box(50), 0.3, 2), (box(100), 0.95, 1)], [(box(0), 1), (box(50), 2), (box(130, 9), 2)]
    ),
    image("c", [(box(0), 0.55, 2), (box(50), 0.6, 2)], [(box(0), 2), (box(50), 2)]),
    image("d", [], [(box(0, 40), 1)]),
    image("e", [], []),
]


@pytest.fixture
def galleries():
    return {part.name: part for part in gallery.select(IMAGES, error_analysis.match(IMAGES, 0.5), NAMES)}


def test_selection_order_and_captions(galleries):
    lines = {name: [entry.lines for entry in part.entries] for name, part in galleries.items()}
    assert lines["false"] == [
        ["image b", "detected: one, score 0.950", "should be: nothing"],
        [
            "image a",
            "detected: one, score 0.800",
            "should be: nothing",
            "nearest object: one, IoU 0.82, matched to another detection",
        ],
    ]
    assert lines["missed"] == [
        ["image d", "object: one, 40x40 px", "no detection of its class here"],
        ["image b", "object: two, 20x20 px", "best detection of its class here: score 0.300"],
        ["image b", "object: two, 9x9 px", "no detection of its class here"],
    ]
    assert lines["confused"] == [["image a", "detected: two, score 0.700", "should be: one"]]
    assert lines["best"] == [
        ["image c", "correct: 2 of 2 boxes"],
        ["image a", "correct: 1 of 3 boxes"],
        ["image b", "correct: 1 of 4 boxes"],
    ]


def test_gallery_is_limited():
    images = [image(f"{i}", [(box(0), 0.9 - i / 100, 1)], []) for i in range(20)]
    entries = gallery.select(images, error_analysis.match(images, 0.5), NAMES)[0].entries
    assert [entry.image for entry in entries] == list(range(gallery.MAX_ENTRIES))


def halves(drawn):
    width = (drawn.shape[1] - GAP) // 2
    assert (drawn[:, width : width + GAP] == 255).all()
    return drawn[:, :width], drawn[:, width + GAP :]


def has_color(drawn, class_id):
    return (drawn == visualize.class_color(class_id)).all(axis=-1).any()


def test_objects_on_the_left_and_detections_on_the_right(galleries):
    pixels = np.full([100, 200, 3], GRAY, np.uint8)
    full, small = gallery.draw(galleries["confused"].entries[0], IMAGES[0], pixels, NAMES, 0.5)
    for drawn in (full, small):
        left, right = halves(drawn)
        assert has_color(left, 1) and not has_color(left, 2) and has_color(right, 2)
    assert has_color(halves(full)[1], 1)
    assert not has_color(halves(small)[1], 1)  # the others do not overlap
    # Only the line of the highlighted box is thick.
    left, _ = halves(full)
    color = visualize.class_color(1)
    assert (left[10, 50 : 50 + gallery.THICK_LINE] == color).all() and (left[10, 50 + gallery.THICK_LINE] == GRAY).all()
    assert (left[10, :2] == color).all() and (left[10, 2] == GRAY).all()


def test_best_images_show_the_whole_image(galleries):
    pixels = np.full([100, 200, 3], GRAY, np.uint8)
    full, small = gallery.draw(galleries["best"].entries[0], IMAGES[2], pixels, NAMES, 0.5)
    assert full.shape == (100, 2 * 200 + GAP, 3) and small.shape == full.shape
    left, right = halves(full)
    assert has_color(left, 2) and has_color(right, 2)


@pytest.mark.parametrize("height, width", [(3000, 1000), (500, 4000), (1, 300), (40, 1)])
def test_sizes_of_drawings(height, width):
    item = image("x", [([-50, -70, -10, -20], 0.9, 1), ([0, 0, 1, 1], 0.8, 2)], [([0, 0, height, width], 1)])
    pixels = np.full([height, width, 3], GRAY, np.uint8)
    parts = gallery.select([item], error_analysis.match([item], 0.5), NAMES)
    entries = [entry for part in parts for entry in part.entries]
    assert len(entries) == 3
    for entry in [*entries, Entry(0, None, [])]:
        full, small = gallery.draw(entry, item, pixels, NAMES, 0.5)
        assert max(full.shape[0], (full.shape[1] - GAP) // 2) == min(gallery.FULL_SIDE, max(height, width))
        assert small.shape[0] <= SMALL_SIDE and small.shape[1] <= 2 * SMALL_SIDE + GAP
