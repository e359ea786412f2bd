# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws boxes with class names and scores on a NumPy image."""

import colorsys
import contextlib
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from PIL import Image, ImageDraw, ImageFont

from dataset import label_map

GOLDEN_RATIO = 0.618034
# Pillow's built-in font covers ASCII only; for other letters, the file names of fonts of Linux, macOS and Windows.
BUILT_IN_FONT = ""
SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
    "msyh.ttc",
)
MISSING_LETTER = "\uffff"  # not a character: every font draws it as it draws letters that it lacks


def class_color(class_id: int) -> tuple[int, int, int]:
    """Returns the RGB colour of a class, which depends on its id alone; hues of adjacent ids are far apart.

    >>> class_color(1), class_color(2)
    ((38, 101, 255), (132, 204, 31))
    """
    red, green, blue = colorsys.hsv_to_rgb(class_id * GOLDEN_RATIO % 1, 0.85, 1.0 if class_id % 2 else 0.8)
    return round(255 * red), round(255 * green), round(255 * blue)


def text_color(background: tuple[int, int, int]) -> tuple[int, int, int]:
    """Returns black or white, whichever has the higher contrast to an RGB colour (relative luminance, WCAG 2).

    >>> text_color((255, 255, 0))
    (0, 0, 0)
    """
    linear = (np.asarray(background) / 255) ** 2.2
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)  # where both contrasts are equal


def draw_boxes(
    image: np.ndarray,
    boxes_image: np.ndarray,
    classes: np.ndarray,
    scores: np.ndarray | None = None,
    *,
    names: Mapping[int, str] | None = None,
    min_score_thresh: float = 0.4,
    max_boxes_to_draw: int = 100,
    line_thickness: int | None = None,
) -> np.ndarray:
    """Draws boxes with labels such as `name: 87%` on a copy of an image; lines and text scale with the image.

    Args:
        image: uint8 [H, W, 3], RGB.
        boxes_image: [K, 4], [ymin, xmin, ymax, xmax] in pixels of this image; non-finite boxes are not drawn.
        classes: [K], ids from 1, of any numeric type.
        scores: [K] in [0, 1]; None, as for groundtruth, draws every box, labelled with its name only.
        names: class id -> name.
        min_score_thresh: draws only boxes with a score above it.
        max_boxes_to_draw: draws at most this many boxes, those with the highest scores.
        line_thickness: pixels; None derives it from the size of the image.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: if the image is not uint8 [H, W, 3], or boxes, classes and scores differ in number.
    """
    boxes_image, classes = np.asarray(boxes_image, np.float64).reshape(-1, 4), np.asarray(classes)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    if len(classes) != len(boxes_image) or (scores is not None and len(scores) != len(boxes_image)):
        raise ValueError(f"expected a class and a score for each of {len(boxes_image)} boxes")
    order = np.arange(len(boxes_image))
    if scores is not None:
        scores = np.asarray(scores)
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > min_score_thresh]
    chosen = order[np.isfinite(boxes_image[order]).all(1)][:max_boxes_to_draw]
    labels = [(int(classes[i]), "" if scores is None else f": {int(100 * scores[i])}%") for i in chosen]

    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    height, width = image.shape[:2]
    thickness = line_thickness or max(2, round(min(max(height, width) / 400, min(height, width) / 80)))
    corners = np.clip(boxes_image[chosen].round(), 0, [height, width, height, width]).astype(int)
    for (ymin, xmin, ymax, xmax), (class_id, _) in zip(corners[::-1].tolist(), labels[::-1]):  # highest score on top
        # Pillow includes the last row and column.
        edges = [xmin, ymin, max(xmin, xmax - 1), max(ymin, ymax - 1)]
        draw.rectangle(edges, outline=class_color(class_id), width=thickness)
    _draw_labels(canvas, corners, labels, names or {})
    return np.array(canvas)


def _draw_labels(
    canvas: Image.Image, boxes: np.ndarray, labels: Sequence[tuple[int, str]], names: Mapping[int, str]
) -> None:
    """Draws a label, (class id, score), for each box [K, 4]. The first one gets the best position, and is on top."""
    draw, (width, height) = ImageDraw.Draw(canvas), canvas.size
    text_size = max(12, round(min(max(height, width) / 45, min(height, width) / 8)))
    margin = max(1, round(text_size / 8))  # above and below the text; twice as much at its sides
    plates, texts = [], []
    for box, (class_id, score) in zip(boxes, labels):
        name = label_map.on_one_line(label_map.name_of(names, class_id))  # Pillow fails for line breaks
        font_name = _font_with(name)
        if font_name is None:
            name, font_name = label_map.name_of({}, class_id), BUILT_IN_FONT
        font = _font(font_name, text_size)
        text = _truncate(name, score, font, width - 4 * margin)
        _, top, _, bottom = font.getbbox("Ág")
        plate_size = bottom - top + 2 * margin, round(font.getlength(text)) + 4 * margin
        plates.append(_place_label(box, plate_size, (height, width), np.reshape(plates, [-1, 4])))
        texts.append((text, font, top, class_color(class_id)))
    for (ymin, xmin, ymax, xmax), (text, font, top, color) in zip(plates[::-1], texts[::-1]):
        draw.rectangle([xmin, ymin, xmax - 1, ymax - 1], fill=color)
        draw.text((xmin + 2 * margin, ymin + margin - top), text, fill=text_color(color), font=font)


@functools.lru_cache(maxsize=32)
def _font(file_name: str, size: int) -> ImageFont.FreeTypeFont:
    """Loads a font; raises OSError if it is not installed."""
    return ImageFont.load_default(size) if file_name == BUILT_IN_FONT else ImageFont.truetype(file_name, size)


@functools.lru_cache(maxsize=4096)
def _font_with(text: str) -> str | None:
    """Returns the file name of the first font with all letters of a text; logs and returns None if there is none."""

    def glyph(font, letter):
        mask = font.getmask(letter)
        return mask.size, bytes(mask)

    for file_name in (BUILT_IN_FONT, *SYSTEM_FONTS):
        with contextlib.suppress(OSError):  # not installed
            font = _font(file_name, 20)
            if all(glyph(font, letter) != glyph(font, MISSING_LETTER) for letter in text):
                return file_name
    logging.warning("no installed font has the letters of %r, its class id is drawn instead; install fonts-noto", text)
    return None


def _truncate(name: str, score: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Returns name and score; the name is truncated if they are wider than `width`."""
    texts = [name + score, *(f"{name[:length]}..{score}" for length in range(len(name) - 1, 0, -1))]
    return next((text for text in texts if font.getlength(text) <= width), texts[-1])


def _place_label(
    box: np.ndarray, plate_size: tuple[int, int], image_size: tuple[int, int], taken: np.ndarray
) -> np.ndarray:
    """Positions a label above, below or inside its box [4], with the least overlap of the labels `taken`, [K, 4]."""
    (ymin, xmin, ymax, xmax), (height, width) = box.tolist(), plate_size
    lowest, rightmost = (max(0, side - length) for side, length in zip(image_size, plate_size))
    rows = [y for y in (ymin - height, ymax) if 0 <= y <= lowest] + [min(ymin, lowest), max(0, ymax - height)]
    corners = np.array([(y, min(max(x, 0), rightmost)) for x in (xmin, xmax - width) for y in rows])
    candidates = np.concatenate([corners, corners + plate_size], axis=-1)
    overlap_min = np.maximum(candidates[:, np.newaxis, :2], taken[:, :2])
    overlap_max = np.minimum(candidates[:, np.newaxis, 2:], taken[:, 2:])
    covered = np.maximum(overlap_max - overlap_min, 0).prod(axis=-1).sum(axis=-1)
    return candidates[np.argmin(covered)]  # the first one of equals
