# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/augment/autoaugment.py: published policies, levels, probabilities, and boxes."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_mosaic import SAMPLE

from dataset.augment import color, geometry
from dataset.augment.autoaugment import OBJECT_OPERATIONS, OPERATIONS, POLICIES, apply, autoaugment
from dataset.augment.geometry import GREY

SIDES = st.integers(1, 60)
SEEDS = st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))

# The published policies, one line per sub-policy: operation, probability, level.
V0 = """
TranslateX_BBox .6 4, Equalize .8 10
TranslateY_Only_BBoxes .2 2, Cutout .8 8
Sharpness 0 8, ShearX_BBox .4 0
ShearY_BBox 1 2, TranslateY_Only_BBoxes .6 6
Rotate_BBox .6 10, Color 1 6
"""
V1 = (
    V0
    + """
Color 0 0, ShearX_Only_BBoxes .8 4
ShearY_Only_BBoxes .8 2, Flip_Only_BBoxes 0 10
Equalize .6 10, TranslateX_BBox .2 2
Color 1 10, TranslateY_Only_BBoxes .4 6
Rotate_BBox .8 10, Contrast 0 10
Cutout .2 2, Brightness .8 10
Color 1 6, Equalize 1 2
Cutout_Only_BBoxes .4 6, TranslateY_Only_BBoxes .8 2
Color .2 8, Rotate_BBox .8 10
Sharpness .4 4, TranslateY_Only_BBoxes 0 4
Sharpness 1 4, SolarizeAdd .4 4
Rotate_BBox 1 8, Sharpness .2 8
ShearY_BBox .6 10, Equalize_Only_BBoxes .6 8
ShearX_BBox .2 6, TranslateY_Only_BBoxes .2 10
SolarizeAdd .6 8, Brightness .8 10
"""
)
V2 = """
Color 0 6, Cutout .6 8, Sharpness .4 8
Rotate_BBox .4 8, Sharpness .4 2, Rotate_BBox .8 10
TranslateY_BBox 1 8, AutoContrast .8 2
AutoContrast .4 6, ShearX_BBox .8 8, Brightness 0 10
SolarizeAdd .2 6, Contrast 0 10, AutoContrast .6 0
Cutout .2 0, Solarize .8 8, Color 1 4
TranslateY_BBox 0 4, Equalize .6 8, Solarize 0 10
TranslateY_BBox .2 2, ShearY_BBox .8 8, Rotate_BBox .8 8
Cutout .8 8, Brightness .8 8, Cutout .2 2
Color .8 4, TranslateY_BBox 1 6, Rotate_BBox .6 6
Rotate_BBox .6 10, BBox_Cutout 1 4, Cutout .2 8
Rotate_BBox 0 0, Equalize .6 6, ShearY_BBox .6 8
Brightness .8 8, AutoContrast .4 2, Brightness .2 2
TranslateY_BBox .4 8, Solarize .4 6, SolarizeAdd .2 10
Contrast 1 10, SolarizeAdd .2 8, Equalize .2 4
"""
V3 = """
Posterize .8 2, TranslateX_BBox 1 8
BBox_Cutout .2 10, Sharpness 1 8
Rotate_BBox .6 8, Rotate_BBox .8 10
Equalize .8 10, AutoContrast .2 10
SolarizeAdd .2 2, TranslateY_BBox .2 8
Sharpness 0 2, Color .4 8
Equalize 1 8, TranslateY_BBox 1 8
Posterize .6 2, Rotate_BBox 0 10
AutoContrast .6 0, Rotate_BBox 1 6
Equalize 0 4, Cutout .8 10
Brightness 1 2, TranslateY_BBox 1 6
Contrast 0 2, ShearY_BBox .8 0
AutoContrast .8 10, Contrast .2 10
Rotate_BBox 1 10, Cutout 1 10
SolarizeAdd .8 6, Equalize .8 8
"""
TEST = "TranslateX_BBox 1 4, Equalize 1 10"
RANDAUG = """
Equalize 1 15
Solarize 1 15
Color 1 15
Cutout 1 15
SolarizeAdd 1 15
TranslateX_BBox 1 15
TranslateY_BBox 1 15
ShearX_BBox 1 15
ShearY_BBox 1 15
Rotate_BBox 1 15
"""
PUBLISHED = {"v0": V0, "v1": V1, "v2": V2, "v3": V3, "test": TEST, "randaug": RANDAUG}


def make_sample(height, width, num_boxes=3, seed=0):
    rng = np.random.RandomState(seed)
    corners = np.sort(rng.uniform(size=(num_boxes, 2, 2)), axis=1).reshape(-1, 4)
    return {
        "image": tf.constant(rng.randint(0, 256, (height, width, 3)), tf.uint8),
        "boxes_norm": tf.constant(corners, tf.float32),
        "classes": tf.range(1, num_boxes + 1),
        "is_crowd": tf.constant(rng.rand(num_boxes) < 0.1),
        "area": tf.constant(rng.rand(num_boxes), tf.float32),
        "source_id": tf.constant("7"),
        "height": tf.constant(height),
        "width": tf.constant(width),
    }


SIGNATURE = [SAMPLE, tf.TensorSpec([2], tf.int64)]


@functools.cache
def traced(policy):
    """A policy as a graph, as in InputReader: sizes unknown, seeds of int64."""
    return tf.function(lambda sample, seed: autoaugment(sample, seed, policy), input_signature=SIGNATURE)


def assert_equal(sample, other):
    assert sample.keys() == other.keys()
    for name in sample:
        np.testing.assert_array_equal(sample[name], other[name], err_msg=name)


def assert_fits(result, sample):
    """Asserts that shapes and ranges are valid and that only image and boxes differ."""
    assert result["image"].dtype == tf.uint8 and result["boxes_norm"].dtype == tf.float32
    assert result["image"].shape == sample["image"].shape
    boxes = result["boxes_norm"].numpy()
    assert boxes.shape == sample["boxes_norm"].shape
    assert np.all(boxes >= 0) and np.all(boxes <= 1) and np.all(boxes[:, 2:] >= boxes[:, :2])
    assert_equal(result | {"image": 0, "boxes_norm": 0}, sample | {"image": 0, "boxes_norm": 0})


@pytest.mark.parametrize("policy", PUBLISHED)
def test_policies_are_the_published_ones(policy):
    expected = [[step.split() for step in line.split(", ")] for line in PUBLISHED[policy].strip().splitlines() if line]
    expected = [[(name, float(probability), int(level)) for name, probability, level in line] for line in expected]
    assert [list(steps) for steps in POLICIES[policy]] == expected
    assert all(isinstance(level, int) for steps in POLICIES[policy] for _, _, level in steps)


def test_every_operation_is_used_by_a_policy():
    used = {name for policy in POLICIES.values() for steps in policy for name, _, _ in steps}
    assert used == set(OPERATIONS) | set(OBJECT_OPERATIONS)


def test_message_for_unknown_policy():
    with pytest.raises(ValueError, match="unknown autoaugment policy 'v4'; expected one of v0, v1, v2, v3, test, rand"):
        autoaugment(make_sample(4, 4), tf.constant([1, 2]), "v4")


@pytest.mark.parametrize(
    "name, level, expected",
    [
        ("Posterize", 2, lambda image: color.posterize(image, 1)),  # int(0.8) bits, and at least one
        ("Posterize", 10, lambda image: color.posterize(image, 4)),
        ("Solarize", 6, lambda image: color.solarize(image, 153)),
        ("Solarize", 8, lambda image: color.solarize(image, 204)),
        ("Solarize", 10, lambda image: image),
        ("Solarize", 15, lambda image: image),
        ("SolarizeAdd", 0, lambda image: image),
        ("SolarizeAdd", 2, lambda image: color.solarize_add(image, 22)),
        ("SolarizeAdd", 15, lambda image: color.solarize_add(image, 165)),
        ("Color", 0, lambda image: color.color(image, 0.1)),
        ("Color", 5, lambda image: image),
        ("Color", 15, lambda image: color.color(image, 2.8)),
        ("Contrast", 10, lambda image: color.contrast(image, 1.9)),
        ("Brightness", 2, lambda image: color.brightness(image, 0.46)),
        ("Sharpness", 8, lambda image: color.sharpness(image, 1.54)),
        ("Equalize", 15, color.equalize),
        ("AutoContrast", 0, color.autocontrast),
        ("Cutout", 0, lambda image: image),
        ("BBox_Cutout", 0, lambda image: image),
    ],
)
def test_levels_of_colour_operations(name, level, expected):
    sample = make_sample(30, 40)
    result = apply(sample, tf.constant([1, 2]), (name, 1.0, level))
    assert_equal(result, sample | {"image": expected(sample["image"])})


@pytest.mark.parametrize(
    "name, level, matrix",
    [
        ("TranslateX_BBox", 0, lambda side: geometry.translation(x=0.0)),
        ("TranslateX_BBox", 4, lambda side: geometry.translation(x=side * 100.0)),
        ("TranslateY_BBox", 2, lambda side: geometry.translation(y=side * 50.0)),
        ("TranslateY_BBox", 15, lambda side: geometry.translation(y=side * 375.0)),
        ("ShearX_BBox", 0, lambda side: geometry.shear(x=0.0)),
        ("ShearX_BBox", 8, lambda side: geometry.shear(x=side * 0.24)),
        ("ShearY_BBox", 10, lambda side: geometry.shear(y=side * 0.3)),
        ("Rotate_BBox", 0, lambda side: geometry.rotation(0.0, tf.constant([400, 420]))),
        ("Rotate_BBox", 6, lambda side: geometry.rotation(side * 18.0, tf.constant([400, 420]))),
        ("Rotate_BBox", 15, lambda side: geometry.rotation(side * 45.0, tf.constant([400, 420]))),
    ],
)
def test_levels_and_random_signs_of_transforms(name, level, matrix):
    sample = make_sample(400, 420)
    left, right = (geometry.warp(sample, matrix(side)) for side in (-1, 1))
    lefts = 0
    for i in range(12):
        result = apply(sample, tf.constant([4, i]), (name, 1.0, level))
        is_left = np.array_equal(result["image"], left["image"])
        assert_equal(result | {"boxes_norm": 0}, (left if is_left else right) | {"boxes_norm": 0})
        np.testing.assert_allclose(result["boxes_norm"], (left if is_left else right)["boxes_norm"], atol=1e-6)
        lefts += is_left
    assert lefts == 12 if level == 0 else 1 <= lefts <= 11


@pytest.mark.parametrize(
    "name, level, expected",
    [
        ("TranslateY_Only_BBoxes", 0, [lambda crop: crop]),
        ("TranslateY_Only_BBoxes", 2, [lambda crop, by=by: warp(crop, geometry.translation(y=by)) for by in (-24, 24)]),
        ("ShearX_Only_BBoxes", 4, [lambda crop, by=by: warp(crop, geometry.shear(x=by)) for by in (-0.12, 0.12)]),
        ("ShearY_Only_BBoxes", 2, [lambda crop, by=by: warp(crop, geometry.shear(y=by)) for by in (-0.06, 0.06)]),
        ("Equalize_Only_BBoxes", 8, [color.equalize]),
        ("Flip_Only_BBoxes", 10, [lambda crop: crop[:, ::-1]]),
    ],
)
def test_object_operations_change_only_pixels_in_the_box(name, level, expected):
    window = np.array([10, 20, 70, 50])
    sample = make_sample(80, 60) | {"boxes_norm": tf.constant([window / [80, 60, 80, 60]], tf.float32)}
    outcomes = [geometry.paste(sample["image"], f(sample["image"][10:70, 20:50]), 10, 20).numpy() for f in expected]
    seen = set()
    for i in range(12):
        result = apply(sample, tf.constant([4, i]), (name, 3.0, level))  # a third of 3.0 is 1: every object
        [match] = [j for j, image in enumerate(outcomes) if np.array_equal(image, result["image"])]
        seen.add(match)
        assert_equal(result | {"image": 0}, sample | {"image": 0})
    assert seen == set(range(len(expected)))


def warp(crop, matrix):
    return geometry.warp_image(crop, tf.cast(matrix, tf.float32))


@pytest.mark.parametrize(
    "name, level, side", [("Cutout", 2, 40), ("Cutout_Only_BBoxes", 6, 60), ("BBox_Cutout", 4, 60)]
)
def test_cutout_sizes(name, level, side):
    """By hand, for an image of 200 pixels covered by one box: 2 * 20, 2 * 30 and 0.3 * 200."""
    sample = {"image": tf.zeros([200, 200, 3], tf.uint8), "boxes_norm": tf.constant([[0.0, 0.0, 1.0, 1.0]])}
    areas = [int(np.sum(apply(sample, tf.constant([i, 5]), (name, 3.0, level))["image"][..., 0])) for i in range(30)]
    assert max(areas) == GREY * side * side and min(areas) >= GREY * side * side // 4


def test_probabilities():
    """0, 0.3 and 1 per image; a third of 0.6 per object, independently."""
    sample = make_sample(4, 4)
    run = tf.function(apply)
    for probability, low, high in ((0.0, 0, 0), (0.3, 15, 45), (1.0, 100, 100)):
        results = [run(sample, tf.constant([i, 9]), ("SolarizeAdd", probability, 10))["image"] for i in range(100)]
        assert low <= sum(np.any(result != sample["image"]) for result in results) <= high
    rows, columns = np.divmod(np.arange(400), 20)
    pixels = tf.constant(np.stack([rows, columns, rows + 1, columns + 1], -1) / 20, tf.float32)
    sample = {"image": tf.zeros([20, 20, 3], tf.uint8), "boxes_norm": pixels}
    changed = np.mean(apply(sample, tf.constant([3, 4]), ("TranslateY_Only_BBoxes", 0.6, 10))["image"] == GREY)
    assert 0.14 < changed < 0.26


def test_sub_policies_are_drawn_uniformly_and_steps_run_in_order(monkeypatch):
    add = [("SolarizeAdd", 1.0, level) for level in (1, 2, 3)]  # add 11, 22, 33 to black pixels
    monkeypatch.setitem(POLICIES, "test", ((add[0],), (add[1],), (add[2],), (add[0], ("Solarize", 1.0, 0), add[1])))
    sample = make_sample(1, 1) | {"image": tf.zeros([1, 1, 3], tf.uint8)}
    run = tf.function(lambda seed: autoaugment(sample, seed, "test")["image"][0, 0, 0])
    values = [int(run(tf.constant([2, i]))) for i in range(400)]
    counts = {value: values.count(value) for value in set(values)}
    assert counts.keys() == {11, 22, 33, 255 - 11}  # the inverted value is above the threshold of the last step
    assert min(counts.values()) > 70


@pytest.mark.parametrize("graph", [False, True])
def test_only_drawn_operations_run(monkeypatch, graph):
    ran = []

    def spy(name):
        def run(strength, sample, seed):
            [count] = tf.py_function(lambda: [ran.append(name) or 0], [], [tf.int32])
            count.set_shape([])
            return {**sample, "area": sample["area"] + tf.cast(count, tf.float32)}

        return run

    for name in ("Color", "Equalize", "Contrast"):
        monkeypatch.setitem(OPERATIONS, name, spy(name))
    monkeypatch.setitem(POLICIES, "test", ((("Color", 1.0, 1), ("Equalize", 0.0, 1)), (("Contrast", 1.0, 1),)))
    sample = make_sample(3, 3)
    run = tf.function(lambda seed: autoaugment(sample, seed, "test")) if graph else None
    for i in range(20):
        if graph:
            run(tf.constant([1, i]))
        else:
            autoaugment(sample, tf.constant([1, i]), "test")
        assert len(ran) == i + 1
    assert set(ran) == {"Color", "Contrast"}


@pytest.mark.parametrize("name", [*OPERATIONS, *OBJECT_OPERATIONS])
def test_operations_support_any_sample(name):
    @settings(max_examples=5)
    @example(height=1, width=1, num_boxes=500, level=15, seed=(1, 2))
    @example(height=2, width=1, num_boxes=0, level=10, seed=(1, 2))
    @given(height=SIDES, width=SIDES, num_boxes=st.integers(0, 20), level=st.integers(0, 15), seed=SEEDS)
    def fits(height, width, num_boxes, level, seed):
        sample = make_sample(height, width, num_boxes, seed=height)
        result = apply(sample, tf.constant(seed), (name, 1.0, level))
        assert_fits(result, sample)
        assert_equal(apply(sample, tf.constant(seed), (name, 1.0, level)), result)

    fits()


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_changes_samples(policy):
    sample = make_sample(40, 50, num_boxes=10)
    results = [autoaugment(sample, tf.constant([6, i]), policy) for i in range(20)]
    for result in results:
        assert_fits(result, sample)
    assert sum(np.any(result["image"] != sample["image"]) for result in results) >= 10


@pytest.mark.parametrize(
    "policy", ["v0", "v1", "randaug"]
)  # cover all kinds of operations; tracing a policy takes seconds
def test_equal_seeds_give_equal_results_eagerly_and_in_a_graph(policy):
    @settings(max_examples=8)
    @example(height=1, width=1, num_boxes=0, seed=(0, 0))
    @example(height=50, width=60, num_boxes=500, seed=(0, 3))
    @given(height=SIDES, width=SIDES, num_boxes=st.integers(0, 20), seed=SEEDS)
    def equal(height, width, num_boxes, seed):
        sample = make_sample(height, width, num_boxes, seed=width)
        result = traced(policy)(sample, seed)
        assert_fits(result, sample)
        assert_equal(result, autoaugment(sample, tf.constant(seed, tf.int64), policy))

    equal()


def test_equal_results_in_tf_data():
    sample = make_sample(50, 60)
    seeds = tf.data.Dataset.range(12).map(lambda i: tf.stack([5, i]))
    results = list(seeds.map(lambda seed: traced("v0")(sample, seed), num_parallel_calls=2))
    for i, result in enumerate(results):
        assert_equal(result, autoaugment(sample, tf.constant([5, i], tf.int64), "v0"))
    assert len({result["image"].numpy().tobytes() for result in results}) > 4


@pytest.mark.parametrize("policy", ["v0", "v1", "randaug"])
def test_boxes_follow_pixels(policy):
    """A red box on grey: all pixels that are still red after the policy are inside of the transformed box."""
    found = []

    @settings(max_examples=25)
    @given(
        corner=st.tuples(st.integers(0, 400), st.integers(0, 400)),
        size=st.tuples(st.integers(10, 60), st.integers(10, 60)),
        seed=SEEDS,
    )
    def follow(corner, size, seed):
        image, box = np.full((460, 460, 3), 90, np.uint8), np.array([*corner, *np.add(corner, size)])
        image[box[0] : box[2], box[1] : box[3]] = (200, 90, 90)
        pixels = {"image": tf.constant(image), "boxes_norm": tf.constant([box / 460], tf.float32)}
        result = traced(policy)(make_sample(460, 460, 1) | pixels, seed)
        label = result["boxes_norm"][0].numpy() * 460
        values = result["image"].numpy().astype(int)
        rows, columns = np.nonzero(values[..., 0] - values[..., 1] > 10)
        found.append(rows.size > 0)
        if rows.size:
            assert np.all([rows.min(), columns.min()] >= label[:2] - 0.51)
            assert np.all([rows.max() + 1, columns.max() + 1] <= label[2:] + 0.51)

    follow()
    assert np.mean(found) > 0.4  # otherwise outside of the image, covered or without colour
