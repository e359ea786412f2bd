# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws boxes with class names and scores on a NumPy image."""

import colorsys
import contextlib
import functools
from collections.abc import Mapping

import numpy as np
from absl import logging
from PIL import Image, ImageDraw, ImageFont

from dataset import label_map

GOLDEN_RATIO = 0.618034
# Pillow's own font has ASCII alone; for other letters, fonts of Linux, macOS and Windows by the names of their files.
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
NO_LETTER = "\uffff"  # in every font it has the sign of letters that the font lacks


def class_color(class_id: int) -> tuple[int, int, int]:
    """A strong RGB colour, the same for a class in every picture; neighbouring ids get hues far apart."""
    hue = class_id * GOLDEN_RATIO % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0 if class_id % 2 else 0.8)
    return round(255 * red), round(255 * green), round(255 * blue)


def text_color(background: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever has the higher contrast to an RGB colour (relative luminance, WCAG 2)."""
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
    """Draws boxes, each labelled `name: 87%`, on a copy of an image; lines and text grow with the image.

    Args:
        image: uint8 [H, W, 3], RGB.
        boxes_image: [K, 4], [ymin, xmin, ymax, xmax] in pixels of this image; what is not finite is not drawn.
        classes: [K], ids from 1, of any number type.
        scores: [K] in [0, 1]; None draws every box, with its name alone, as for groundtruth.
        names: class id -> name.
        min_score_thresh: only boxes with a score above it are drawn.
        max_boxes_to_draw: of more, those with the highest scores are drawn.
        line_thickness: pixels; by default chosen by the size of the image.

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

    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    height, width = image.shape[:2]
    longer, shorter = max(height, width), min(height, width)
    text_size = max(12, round(min(longer / 45, shorter / 8)))
    thickness = line_thickness or max(2, round(min(longer / 400, shorter / 80)))
    corners = np.clip(np.nan_to_num(boxes_image).round(), 0, [height, width, height, width]).astype(int)
    for i in chosen[::-1]:  # the best last, on top
        ymin, xmin, ymax, xmax = corners[i].tolist()
        # Pillow paints the last corner too.
        edges = [xmin, ymin, max(xmin, xmax - 1), max(ymin, ymax - 1)]
        draw.rectangle(edges, outline=class_color(int(classes[i])), width=thickness)
    labels = []
    plates = np.zeros([0, 4], int)
    for i in chosen:  # the best has the first choice of a place
        name, font = _name_and_font(label_map.name_of(names or {}, classes[i]), int(classes[i]), text_size)
        text = _shortened(name, "" if scores is None else f": {int(100 * scores[i])}%", font, width)
        plate = _place(corners[i], _plate_size(text, font), (height, width), plates)
        plates = np.concatenate([plates, plate[np.newaxis]])
        labels.append((plate.tolist(), text, class_color(int(classes[i])), font))
    for label in labels[::-1]:  # after all boxes, so that no line crosses a label
        _draw_label(draw, *label)
    return np.array(picture)


@functools.lru_cache(maxsize=32)
def _font(file_name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font; an OSError if this system has none of that name."""
    return ImageFont.load_default(size) if file_name == BUILT_IN_FONT else ImageFont.truetype(file_name, size)


def _name_and_font(name: str, class_id: int, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """A class name and the font to draw it with; "class 7" where no font here has all of its letters."""
    file_name = _font_with(name)
    if file_name is None:
        return f"class {class_id}", _font(BUILT_IN_FONT, size)
    return name, _font(file_name, size)


@functools.lru_cache(maxsize=4096)
def _font_with(text: str) -> str | None:
    """The first font that has all letters of a text; None, told once, if none has."""

    def sign(font, letter):
        mask = font.getmask(letter)
        return mask.size, bytes(mask)

    for file_name in (BUILT_IN_FONT, *SYSTEM_FONTS):
        with contextlib.suppress(OSError):  # not on this system
            font = _font(file_name, 20)
            if all(sign(font, letter) != sign(font, NO_LETTER) for letter in text):
                return file_name
    logging.warning("no font here has the letters of %r, so its number is drawn; the package fonts-noto has most", text)
    return None


def _margin(font: ImageFont.FreeTypeFont) -> int:
    """Pixels between text and the edge of its plate; twice as many at the sides."""
    return max(1, round(font.size / 8))


def _shortened(name: str, score: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The label; a name that is too long for the picture loses its end, the score stays."""
    room = width - 4 * _margin(font)
    text = name + score
    for length in range(len(name) - 1, 0, -1):
        if font.getlength(text) <= room:
            break
        text = f"{name[:length]}..{score}"
    return text


def _plate_size(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """(height, width) of a label; the height is that of any text in the font."""
    _, top, _, bottom = font.getbbox("Ág")
    return bottom - top + 2 * _margin(font), round(font.getlength(text)) + 4 * _margin(font)


def _place(box: np.ndarray, plate_size: tuple[int, int], image_size: tuple[int, int], taken: np.ndarray) -> np.ndarray:
    """Where a label goes: above its box, below, or inside; where it covers other labels least, and never outside.

    Args:
        box: [4].
        plate_size: (height, width) of the label.
        image_size: (height, width).
        taken: [K, 4], places of other labels.

    Returns:
        [4], [ymin, xmin, ymax, xmax] in pixels.
    """
    (ymin, xmin, ymax, xmax), (height, width) = box.tolist(), plate_size
    lowest, rightmost = (max(0, side - length) for side, length in zip(image_size, plate_size))
    rows = [y for y in (ymin - height, ymax) if 0 <= y <= lowest] + [min(ymin, lowest), max(0, ymax - height)]
    corners = np.array([(y, min(max(x, 0), rightmost)) for x in (xmin, xmax - width) for y in rows])
    places = np.concatenate([corners, corners + plate_size], axis=-1)
    overlap_min = np.maximum(places[:, np.newaxis, :2], taken[:, :2])
    overlap_max = np.minimum(places[:, np.newaxis, 2:], taken[:, 2:])
    covered = np.maximum(overlap_max - overlap_min, 0).prod(axis=-1).sum(axis=-1)
    return places[np.argmin(covered)]  # the first of equals


def _draw_label(draw: ImageDraw.ImageDraw, plate: list[int], text: str, color: tuple[int, int, int], font) -> None:
    """Text on a plate."""
    ymin, xmin, ymax, xmax = plate
    margin, top = _margin(font), font.getbbox("Ág")[1]
    draw.rectangle([xmin, ymin, xmax - 1, ymax - 1], fill=color)
    draw.text((xmin + 2 * margin, ymin + margin - top), text, fill=text_color(color), font=font)
