# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws boxes with class names and scores on a NumPy image."""

import colorsys
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataset import label_map

GOLDEN_RATIO = 0.618034


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
        boxes_image: [K, 4], [ymin, xmin, ymax, xmax] in pixels of this image.
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
    if scores is None:
        chosen = np.arange(len(boxes_image))[:max_boxes_to_draw]
    else:
        scores = np.asarray(scores)
        best = np.argsort(-scores, kind="stable")
        chosen = best[scores[best] > min_score_thresh][:max_boxes_to_draw]

    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    height, width = image.shape[:2]
    font = ImageFont.load_default(max(12, round(max(height, width) / 45)))
    thickness = line_thickness or max(2, round(max(height, width) / 400))
    corners = np.clip(boxes_image.round(), 0, [height, width, height, width]).astype(int)
    chosen = chosen[::-1]  # the best last, on top
    for i in chosen:
        ymin, xmin, ymax, xmax = corners[i].tolist()
        # Pillow paints the last corner too.
        edges = [xmin, ymin, max(xmin, xmax - 1), max(ymin, ymax - 1)]
        draw.rectangle(edges, outline=class_color(int(classes[i])), width=thickness)
    for i in chosen:  # after all boxes, so that no line crosses a label
        label = label_map.name_of(names or {}, classes[i])
        if scores is not None:
            label += f": {int(100 * scores[i])}%"
        _draw_label(draw, corners[i].tolist(), label, class_color(int(classes[i])), font)
    return np.array(picture)


def _draw_label(draw: ImageDraw.ImageDraw, box: list[int], label: str, color: tuple[int, int, int], font):
    """Text on a plate above the box; below or inside it where there is no room, and never beyond the image."""
    (width, height), (ymin, xmin, ymax, _) = draw.im.size, box
    _, top, _, bottom = draw.textbbox((0, 0), "Ág", font=font)  # of any label, so that all plates are of one height
    margin = (bottom - top) // 8
    plate_width = round(draw.textlength(label, font=font)) + 4 * margin
    plate_height = bottom - top + 2 * margin
    if ymin >= plate_height:
        y = ymin - plate_height
    elif ymax + plate_height <= height:
        y = ymax
    else:
        y = ymin
    x = max(0, min(xmin, width - plate_width))
    draw.rectangle([x, y, x + plate_width - 1, y + plate_height - 1], fill=color)
    draw.text((x + 2 * margin, y + margin - top), label, fill=text_color(color), font=font)
