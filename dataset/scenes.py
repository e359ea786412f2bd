# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Synthetic images of circles, triangles and stars over textured backgrounds, with exact boxes.

The class is the shape; size, colour, rotation, position and texture are independent of it.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

CLASS_NAMES = {1: "circle", 2: "triangle", 3: "star"}
EMPTY_SHARE = 0.06  # of the images
MAX_OBJECTS = 8  # on one image
SIZES = (0.18, 0.6)  # diameter of an object, in shorter sides of the image
MAX_HIDDEN = 0.4  # share of an object that others may hide
MIN_CONTRAST = 90  # distance in RGB between an object's colour and what it covers
JPEG_OPTIONS = {"quality": 92, "subsampling": 0}  # with subsampling, small shapes lose their colour


class Scene(NamedTuple):
    """An image and its objects."""

    image: np.ndarray  # uint8 [H, W, 3]
    boxes: np.ndarray  # int [K, 4], [ymin, xmin, ymax, xmax] in pixels: the whole shape, including hidden parts
    classes: np.ndarray  # int [K], keys of CLASS_NAMES


def make_scene(seed: int, index: int, image_size: tuple[int, int]) -> Scene:
    """Draws image number `index` of a seed; image_size is (height, width) in pixels.

    >>> make_scene(seed=1, index=0, image_size=(96, 128)).image.shape
    (96, 128, 3)
    """
    random = np.random.RandomState([seed, index])  # unlike a Generator, the same stream in every NumPy version
    image = _background(random, image_size)
    num_objects = 0 if random.random_sample() < EMPTY_SHARE else 1 + int(random.random_sample() * MAX_OBJECTS)
    classes = 1 + (random.random_sample(num_objects) * len(CLASS_NAMES)).astype(int)
    coverages = [_shape_coverage(random, SHAPES[class_id], image_size) for class_id in classes]
    kept = _visible(coverages)
    for i in kept:
        image = _paint(random, image, coverages[i])
    image += random.uniform(-8, 8, image.shape)  # grain
    boxes = np.array([_mask_box(coverages[i] >= 0.5) for i in kept], np.int64).reshape(-1, 4)
    return Scene(np.clip(image, 0, 255).astype(np.uint8), boxes, classes[kept])


def _visible(coverages: list[np.ndarray]) -> list[int]:
    """Returns the indices of the objects to draw, in order, so that later ones hide at most MAX_HIDDEN of each."""
    kept, hidden = [], False
    for i in reversed(range(len(coverages))):
        mask = coverages[i] >= 0.5
        if (mask & hidden).sum() <= MAX_HIDDEN * mask.sum():
            kept.insert(0, i)
            hidden = mask | hidden
    return kept


def _mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest box [ymin, xmin, ymax, xmax] that contains the pixels of a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def _shape_coverage(random: np.random.RandomState, distance: Callable, image_size: tuple[int, int]) -> np.ndarray:
    """Fraction of each pixel covered by a shape of random size, rotation and position: float [H, W] in [0, 1]."""
    smallest, largest = np.log(SIZES)
    radius = min(image_size) * np.exp(random.uniform(smallest, largest)) / 2
    # At most a third of the radius extends beyond each edge.
    center = [random.uniform(radius * 2 / 3, side - radius * 2 / 3) for side in image_size]
    angle = random.uniform(0, 2 * np.pi)
    bounds = [(max(int(c - radius) - 1, 0), min(int(c + radius) + 2, side)) for c, side in zip(center, image_size)]
    window = np.ix_(*(np.arange(first, last) for first, last in bounds))
    y, x = ((pixels + 0.5 - c) / radius for pixels, c in zip(window, center))  # in radii
    rotated = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    coverage = np.zeros(image_size)
    coverage[window] = np.clip(0.5 - radius * distance(*rotated), 0, 1)
    return coverage


def _star_distance(x: np.ndarray, y: np.ndarray, tips: int, notch: float) -> np.ndarray:
    """Signed distance to the nearest edge of a star with tips at radius 1 and notches between them, negative inside.

    By symmetry, the plane is folded into the wedge between a tip, at angle 0, and a notch, joined by one straight edge.
    """
    wedge = np.pi / tips
    angle = np.abs((np.arctan2(y, x) + wedge) % (2 * wedge) - wedge)
    radius = np.hypot(x, y)
    edge_x, edge_y = notch * np.cos(wedge) - 1, notch * np.sin(wedge)  # from the tip to the notch
    cross = (radius * np.cos(angle) - 1) * edge_y - radius * np.sin(angle) * edge_x
    return cross / np.hypot(edge_x, edge_y)


SHAPES = {  # by class: (x, y) -> signed distance to the outline, in radii, negative inside
    1: lambda x, y: np.hypot(x, y) - 1,
    2: functools.partial(_star_distance, tips=3, notch=0.5),  # cos(pi / 3): the notch is on the line between two tips
    3: functools.partial(_star_distance, tips=5, notch=0.45),
}


def _paint(random: np.random.RandomState, image: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """Draws an object, shaded from side to side, in a colour that contrasts with the pixels it covers."""
    below = np.tensordot(coverage, image, 2) / coverage.sum()  # [3], mean colour
    color = random.uniform(0, 255, 3)
    while np.linalg.norm(color - below) < MIN_CONTRAST:
        color = random.uniform(0, 255, 3)
    shade = 1 + 0.5 * (_ramp(random, image.shape[:2]) - 0.5)
    return image + coverage[..., None] * (color * shade[..., None] - image)


def _background(random: np.random.RandomState, image_size: tuple[int, int]) -> np.ndarray:
    """A texture between two colours of limited contrast: float [H, W, 3] in [0, 255]."""
    base = random.uniform(50, 205, 3)
    contrast = random.uniform(-50, 50, 3)
    texture = TEXTURES[int(random.random_sample() * len(TEXTURES))](random, image_size)
    return base + contrast * (texture[..., None] * 2 - 1)


def _ramp(random: np.random.RandomState, image_size: tuple[int, int]) -> np.ndarray:
    """A linear gradient in [0, 1] across the image, in a random direction: float [H, W]."""
    angle = random.uniform(0, 2 * np.pi)
    y, x = np.linspace(-1, 1, image_size[0])[:, None], np.linspace(-1, 1, image_size[1])[None, :]
    return 0.5 + (np.sin(angle) * y + np.cos(angle) * x) / np.sqrt(8)


def _stripes(random: np.random.RandomState, image_size: tuple[int, int]) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(_ramp(random, image_size) * random.uniform(20, 90))


def _clouds(random: np.random.RandomState, image_size: tuple[int, int]) -> np.ndarray:
    """Smooth noise: a coarse grid of random values, enlarged to the image."""
    cells = 3 + int(random.random_sample() * 8)
    grid = Image.fromarray(random.random_sample((cells, cells)).astype(np.float32))
    return np.clip(np.asarray(grid.resize(image_size[::-1], Image.Resampling.BICUBIC), np.float64), 0, 1)


TEXTURES = (_ramp, _stripes, _clouds)
