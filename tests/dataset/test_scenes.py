# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/scenes.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import scenes

CENTER = {1: -1.0, 2: -0.5, 3: -0.384}  # signed distance of the centre to the outline, by trigonometry


def disc(radius, center_y, center_x, size=(40, 60)):
    y, x = np.mgrid[: size[0], : size[1]]
    return (np.hypot(y + 0.5 - center_y, x + 0.5 - center_x) <= radius).astype(float)


def test_statistics_of_scenes():
    made = [scenes.make_scene(1, i, (64, 64)) for i in range(300)]
    counts = np.array([len(scene.boxes) for scene in made])
    assert counts.mean() >= 3.5
    assert 0.03 < np.mean(counts == 0) < 0.10
    classes = np.concatenate([scene.classes for scene in made])
    assert set(classes) == set(scenes.CLASS_NAMES)
    assert np.bincount(classes)[1:].min() > 0.25 * len(classes)
    boxes = np.concatenate([scene.boxes for scene in made])
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) / 64
    assert sides.min() < 0.15 and 0.5 < sides.max() <= 0.63


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, 10**6), st.integers(32, 90), st.integers(32, 90))
def test_boxes_are_inside_the_image(seed, index, height, width):
    scene = scenes.make_scene(seed, index, (height, width))
    assert scene.image.shape == (height, width, 3) and scene.image.dtype == np.uint8
    assert len(scene.boxes) == len(scene.classes)
    assert (scene.boxes[:, :2] >= 0).all() and (scene.boxes[:, 2:] <= [height, width]).all()
    assert (scene.boxes[:, 2:] > scene.boxes[:, :2]).all()


def test_equal_seeds_give_equal_images():
    scene = scenes.make_scene(1, 6, (48, 64))
    again = scenes.make_scene(1, 6, (48, 64))
    np.testing.assert_array_equal(scene.image, again.image)
    np.testing.assert_array_equal(scene.boxes, again.boxes)
    assert (scene.image != scenes.make_scene(2, 6, (48, 64)).image).mean() > 0.5
    assert (scene.image != scenes.make_scene(1, 7, (48, 64)).image).mean() > 0.5


@pytest.mark.parametrize("class_id, distance", CENTER.items())
def test_shapes_by_hand(class_id, distance):
    shape = scenes.SHAPES[class_id]
    x, y = np.array([0.0, 1.0, 0.999, 1.001, -1.1]), np.zeros(5)
    found = shape(x, y)
    assert found[0] == pytest.approx(distance, abs=1e-3)
    assert found[1] == pytest.approx(0, abs=1e-9)  # a tip, or the circle's rightmost point
    assert found[2] < 0 < found[3] and found[4] > 0


def test_shape_areas_by_hand():
    y, x = (np.mgrid[:800, :800] + 0.5) / 400 - 1
    areas = {class_id: (shape(x, y) < 0).mean() * 4 for class_id, shape in scenes.SHAPES.items()}
    assert areas[1] == pytest.approx(np.pi, rel=0.01)
    assert areas[2] == pytest.approx(3 * np.sqrt(3) / 4, rel=0.01)
    assert areas[3] == pytest.approx(5 * 0.45 * np.sin(np.pi / 5), rel=0.01)  # ten triangles: tip, centre, notch


def test_mask_box_of_a_shape_cut_off_by_the_image():
    coverage = disc(5, center_y=20, center_x=2)  # cut off at the left edge
    assert scenes._mask_box(coverage >= 0.5) == (15, 0, 25, 7)


def test_hidden_objects_are_not_drawn():
    small, large, aside = disc(4, 20, 20), disc(10, 20, 20), disc(4, 20, 33)
    assert scenes._visible([small, aside, large]) == [1, 2]
    assert scenes._visible([large, small, aside]) == [0, 1, 2]
    # The second object is hidden and not drawn, therefore it does not hide the first.
    assert scenes._visible([disc(4, 20, 26), disc(6, 20, 22), disc(9, 20, 16)]) == [0, 2]


def test_painted_objects_have_contrast():
    random = np.random.RandomState(0)
    image = np.full([40, 60, 3], 120.0)
    coverage = disc(8, 20, 30)
    painted = scenes._paint(random, image, coverage)
    np.testing.assert_array_equal(painted[coverage == 0], 120)
    assert np.linalg.norm(painted[coverage == 1].mean(axis=0) - 120) > 0.7 * scenes.MIN_CONTRAST
