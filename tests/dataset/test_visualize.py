# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/visualize.py."""

import functools

import numpy as np
import pytest
from PIL import ImageFont

from dataset import visualize

GRAY = 77
NAMES = {1: "cat", 2: "dog"}


def gray(height=120, width=200):
    return np.full([height, width, 3], GRAY, np.uint8)


def has_color(image, class_id):
    return (image == visualize.class_color(class_id)).all(axis=-1).any()


def changed(image):
    """The smallest box [ymin, xmin, ymax, xmax] around all changed pixels."""
    rows, columns = np.nonzero((image != GRAY).any(axis=-1))
    return [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]


def test_box_has_the_right_position_and_color():
    image = visualize.draw_boxes(gray(), [[50, 60, 100, 180]], [2], line_thickness=3)
    color = visualize.class_color(2)
    for y, x in [(99, 60), (99, 179), (50, 179), (75, 60), (75, 62), (97, 100)]:
        np.testing.assert_array_equal(image[y, x], color)
    for y, x in [(100, 100), (75, 59), (75, 63), (75, 180), (96, 100)]:
        np.testing.assert_array_equal(image[y, x], GRAY)


def test_input_is_not_changed():
    image = gray()
    visualize.draw_boxes(image, [[5, 5, 50, 50]], [1], [0.9])
    assert (image == GRAY).all()


def test_score_must_be_above_the_threshold():
    boxes, classes = [[50, 10, 90, 60], [50, 110, 90, 160]], [1, 2]
    image = visualize.draw_boxes(gray(), boxes, classes, [0.5, 0.5001], min_score_thresh=0.5)
    assert not has_color(image, 1) and has_color(image, 2)
    image = visualize.draw_boxes(gray(), boxes, classes, [0.4, 0.0])  # padding rows have score 0
    assert (image == GRAY).all()


def test_highest_scores_are_drawn_and_on_top():
    boxes, classes = [[50, 10, 90, 60], [50, 110, 90, 160], [50, 10, 90, 60]], [1, 2, 3]
    image = visualize.draw_boxes(gray(), boxes, classes, [0.6, 0.9, 0.8], max_boxes_to_draw=2)
    assert has_color(image, 2) and has_color(image, 3) and not has_color(image, 1)
    image = visualize.draw_boxes(gray(), boxes, classes, [0.6, 0.9, 0.8])
    np.testing.assert_array_equal(image[80, 10], visualize.class_color(3))
    assert visualize.draw_boxes(gray(), boxes, classes, max_boxes_to_draw=0).tolist() == gray().tolist()


@pytest.mark.parametrize(
    "box, position",
    [
        ([50, 60, 100, 180], "above"),
        ([3, 60, 90, 180], "below"),  # no room above
        ([0, 60, 120, 180], "inside"),
    ],
)
def test_label_position(box, position):
    ymin, xmin, ymax, xmax = changed(visualize.draw_boxes(gray(), [box], [1], [0.87], names=NAMES))
    assert (xmin, xmax) == (60, 180)
    assert (ymin < box[0]) == (position == "above")
    assert (ymax > box[2]) == (position == "below")


def test_labels_do_not_cover_each_other():
    boxes = [[50, 40, 110, 190], [52, 42, 112, 192], [51, 41, 111, 191]]
    image = visualize.draw_boxes(gray(240, 320), boxes, [1, 2, 3], [0.9, 0.8, 0.7])
    alone = [visualize.draw_boxes(gray(240, 320), boxes[:1], [i], [score]) for i, score in ((1, 0.9), (2, 0.8))]
    labels = [(one[:50] == visualize.class_color(i)).all(-1).sum() for i, one in enumerate(alone, 1)]
    for class_id, area in enumerate(labels, 1):  # plates and letters are visible, and the lines
        assert (image == visualize.class_color(class_id)).all(-1).sum() >= area > 500
    above = (image[:50] == visualize.class_color(1)).all(-1).sum()
    assert above == labels[0]  # the label of the highest score does not move


def test_labels_without_free_space_are_drawn():
    image = visualize.draw_boxes(gray(40, 60), [[0, 0, 40, 60]] * 9, range(1, 10), np.linspace(0.9, 0.5, 9))
    assert has_color(image, 1) and image.shape == (40, 60, 3)


def test_long_name_is_truncated_before_its_score():
    def draw(name):
        return visualize.draw_boxes(gray(100, 100), [[50, 0, 90, 90]], [1], [0.87], names={1: name})

    long = draw("an extraordinarily long name of a class")
    np.testing.assert_array_equal(long, draw("an extraordinarily long name of another"))
    assert changed(long)[3] <= 100


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\x85", "\u2029"])
def test_name_is_drawn_on_one_line(line_break):
    arguments = gray(), [[20, 10, 80, 150]], [1]
    expected = visualize.draw_boxes(*arguments, names={1: "red cell"})
    np.testing.assert_array_equal(visualize.draw_boxes(*arguments, names={1: f"red{line_break}cell"}), expected)


def test_label_stays_within_the_image():
    image = visualize.draw_boxes(gray(), [[60, 190, 80, 200]], [1], [0.87], names={1: "a rather long name"})
    _, xmin, _, xmax = changed(image)
    assert xmin < 100 and xmax == 200


@pytest.mark.parametrize("side", [300, 1000, 4000])
def test_label_scales_with_the_image(side):
    box = np.array([[0.5, 0.5, 0.8, 0.8]]) * side
    plate = side // 2 - changed(visualize.draw_boxes(gray(side, side), box, [1], [0.9]))[0]
    assert max(12, side / 45) <= plate <= max(18, side / 25)


def test_label_of_a_wide_image_is_small():
    ymin, _, ymax, _ = changed(visualize.draw_boxes(gray(200, 4000), [[100, 2000, 101, 2001]], [1], [0.9]))
    assert 24 <= ymax - ymin <= 50


@pytest.fixture
def fonts(monkeypatch):
    """Replaces the system fonts; Pillow's built-in font remains."""
    visualize._font_with.cache_clear()
    yield lambda *names: monkeypatch.setattr(visualize, "SYSTEM_FONTS", names)
    visualize._font_with.cache_clear()


def test_name_without_a_font_is_replaced_with_its_class_id(fonts, caplog):
    fonts("no such font.ttf")
    draw = functools.partial(visualize.draw_boxes, gray(), [[60, 0, 100, 90]])
    image = draw([7], names={7: "汉字"})
    np.testing.assert_array_equal(image, draw([7]))
    assert [record.getMessage() for record in caplog.records] == [
        "no installed font has the letters of '汉字', its class id is drawn instead; install fonts-noto"
    ]
    draw([7], names={7: "汉字"})
    assert len(caplog.records) == 1  # logged once
    assert (draw([7], names={7: "tie"}) != image).any()


def test_name_is_drawn_in_a_font_with_its_letters(fonts):
    try:
        ImageFont.truetype("DejaVuSans.ttf", 20)
    except OSError:
        pytest.skip("DejaVuSans.ttf is not installed")
    fonts("no such font.ttf", "DejaVuSans.ttf")
    assert [visualize._font_with(name) for name in ("tie", "café", "汉字")] == ["", "DejaVuSans.ttf", None]
    draw = functools.partial(visualize.draw_boxes, gray(), [[60, 0, 100, 90]], [1])
    assert (draw(names={1: "café"}) != draw(names={1: "cafe"})).any()
    assert (draw(names={1: "café"}) != draw()).any()


def test_label_consists_of_name_and_score():
    def label_width(names, class_id, scores=None):
        image = visualize.draw_boxes(gray(), [[60, 0, 64, 4]], [class_id], scores, names=names)
        return changed(image)[3]

    assert label_width(NAMES, 1) < label_width(NAMES, 1, [0.9]) < label_width({1: "caterpillar"}, 1, [0.9])
    assert label_width(None, 7) == label_width(NAMES, 7) == label_width({7: "class 7"}, 7)
    assert label_width(NAMES, 1.0) == label_width(NAMES, 1)  # Detections have float classes


def test_boxes_are_clipped_to_the_image():
    boxes = [[-50, -50, 500, 500], [80, 90, 70, 60], [200, 300, 210, 310], [-1, -1, -1, -1]]
    image = visualize.draw_boxes(gray(), boxes, [1, 1, 1, 1])
    assert image.shape == (120, 200, 3) and has_color(image, 1)
    np.testing.assert_array_equal(image[119, 199], visualize.class_color(1))


def test_non_finite_boxes_are_not_drawn():
    boxes = [[np.nan, 1, 2, 3], [10, 10, 40, 40], [1, 2, np.inf, 4]]
    one = visualize.draw_boxes(np.zeros([50, 60, 3], np.uint8), boxes[1:2], [2], [0.8])
    all_three = visualize.draw_boxes(np.zeros([50, 60, 3], np.uint8), boxes, [1, 2, 3], [0.9, 0.8, 0.7])
    np.testing.assert_array_equal(all_three, one)


def test_no_boxes():
    np.testing.assert_array_equal(visualize.draw_boxes(gray(), np.zeros([0, 4]), [], []), gray())


@pytest.mark.parametrize("class_id", range(1, 91))
def test_text_contrasts_with_every_color(class_id):
    def luminance(color):
        return (np.array(color) / 255) ** 2.2 @ [0.2126, 0.7152, 0.0722]

    color = visualize.class_color(class_id)
    low, high = sorted([luminance(color), luminance(visualize.text_color(color))])
    assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG 2, level AA
    assert color != visualize.class_color(class_id + 1)


def test_messages_for_invalid_input():
    with pytest.raises(ValueError, match=r"image must be uint8 \[H, W, 3\], got float32 \[4, 4, 3\]"):
        visualize.draw_boxes(np.zeros([4, 4, 3], np.float32), [], [])
    with pytest.raises(ValueError, match="a class and a score for each of 1 boxes"):
        visualize.draw_boxes(gray(), [[1, 2, 3, 4]], [1], [0.5, 0.6])
