# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of preprocess: published network inputs, sizes, padding, stretching, and unnormalize."""

import functools
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from efficientdet import preprocess as preprocess_lib
from efficientdet.preprocess import fit, normalize, to_input, unnormalize
from testdata import reference_weights

TESTDATA = pathlib.Path(__file__).parents[2] / "testdata"
COLORS = {"mean_rgb": (123.675, 116.28, 103.53), "stddev_rgb": (58.395, 57.12, 57.375), "scale_range": False}
LITE = {"mean_rgb": 127.0, "stddev_rgb": 128.0, "scale_range": False}
RAW = {"mean_rgb": 0.0, "stddev_rgb": 1.0, "scale_range": False}

preprocess = functools.partial(preprocess_lib.preprocess, keep_aspect_ratio=True)
stretch = functools.partial(preprocess_lib.preprocess, keep_aspect_ratio=False)


def image(height, width, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


def test_published_input():
    expected = json.loads((TESTDATA / "numbers.json").read_text())["preprocess"]
    output, image_scale = preprocess(image(100, 150, seed=3), (128, 96), **COLORS)
    output = output.numpy()
    np.testing.assert_array_equal(image_scale, [np.float32(expected["image_scale_to_original"])] * 4)
    _, scale = fit((100, 150), (128, 96), keep_aspect_ratio=True)
    np.testing.assert_array_equal(scale, [np.float32(expected["image_scale"])] * 2)
    assert output.shape == tuple(expected["out"]["shape"]) and output.dtype == np.float32
    np.testing.assert_allclose(output.mean(), expected["out"]["mean"], rtol=1e-5)
    np.testing.assert_allclose(np.abs(output).sum(), expected["out"]["abs_sum"], rtol=1e-6)
    np.testing.assert_allclose(output.ravel()[:5], expected["out"]["first5"], atol=1e-5)
    np.testing.assert_allclose(output[40, 0], output[40].ravel()[:3])
    assert np.count_nonzero(np.abs(output).sum((1, 2))) == expected["nonzero_rows"]


@pytest.mark.parametrize("model, colors", [("efficientdet-d0", COLORS), ("efficientdet-lite0", LITE)])
def test_published_input_of_a_nonsquare_image(model, colors):
    expected = np.load(TESTDATA / f"{model}.npz")
    output, image_scale = preprocess(reference_weights.image(256, 11)[:180, :240], (256, 256), **colors)
    np.testing.assert_allclose(reference_weights.sample(output), expected["pre_nonsquare_sample"], atol=1e-5)
    np.testing.assert_allclose(image_scale, np.tile(expected["pre_nonsquare_scale"], 4), rtol=1e-6)


def test_padding_is_zero_or_with_scale_range_minus_one():
    white = np.full((10, 20, 3), 255, np.uint8)
    output, _ = preprocess(white, (20, 20), **COLORS)
    np.testing.assert_allclose(
        output[:10], np.broadcast_to((255 - np.array(COLORS["mean_rgb"])) / 57.63, (10, 20, 3)), 0.02
    )
    assert not output[10:].numpy().any()
    output, _ = preprocess(white, (20, 20), **{**RAW, "scale_range": True})
    assert np.all(output[:10] == 1) and np.all(output[10:] == -1)


def test_to_input_accepts_any_size():
    source = image(30, 40)
    output = to_input(source, tf.constant([50, 45]), (50, 70), **RAW)
    np.testing.assert_array_equal(output[:, :45], tf.image.resize(source, [50, 45]))
    assert output.shape == (50, 70, 3) and not output[:, 45:].numpy().any()


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([(64, 64), (48, 96), (128, 32)]))
def test_every_image_fits(height, width, image_size):
    output, image_scale = preprocess(np.full((height, width, 3), 9, np.uint8), image_size, **RAW)
    assert output.shape == (*image_size, 3)
    size, _ = fit((height, width), image_size, keep_aspect_ratio=True)
    rows, columns = size.numpy()
    assert np.all(output[:rows, :columns] == 9) and tf.reduce_sum(output) == rows * columns * 27
    # Up to the fraction of a pixel that is rounded down, the scaled image covers the original.
    np.testing.assert_array_less(np.abs(np.array([rows, columns]) - [height, width] / image_scale[:2]), 1 + 1e-3)


@pytest.mark.parametrize(
    "image_hw, output_size, keep_aspect_ratio, size, scale",
    [  # by hand
        ((480, 640), (320, 320), True, [240, 320], [0.5, 0.5]),
        ((480, 640), (320, 320), False, [320, 320], [2 / 3, 0.5]),
        ((100, 50), (64, 96), True, [64, 32], [0.64, 0.64]),
        ((100, 50), (64, 96), False, [64, 96], [0.64, 1.92]),
        ((1, 1000), (64, 64), True, [1, 64], [0.064, 0.064]),  # 0.064 pixels are at least one
        ((1, 1000), (64, 64), False, [64, 64], [64, 0.064]),
    ],
)
def test_fit_golden(image_hw, output_size, keep_aspect_ratio, size, scale):
    ours, factors = fit(image_hw, output_size, keep_aspect_ratio=keep_aspect_ratio)
    np.testing.assert_array_equal(ours, size)
    assert ours.dtype == tf.int32
    np.testing.assert_allclose(factors, scale, rtol=1e-6)


@given(st.integers(1, 2000), st.integers(1, 2000), st.sampled_from([(64, 64), (48, 96), (128, 32)]))
def test_a_stretched_image_fills_the_input(height, width, image_size):
    """Also where image_hw * (image_size / image_hw) is below image_size in float32, as for 41 pixels in 47."""
    output, image_scale = stretch(np.full((height, width, 3), 9, np.uint8), image_size, **RAW)
    assert output.shape == (*image_size, 3) and np.all(output == 9)
    np.testing.assert_allclose(image_scale, np.tile(np.divide((height, width), image_size), 2), rtol=1e-6)


@pytest.mark.parametrize("size", [(30, 50), (50, 30), (64, 90)])
def test_a_stretched_image_is_the_one_of_pillow(size):
    """For larger outputs, Pillow's bilinear kernel is not widened; it rounds after each axis."""
    source = image(*size)
    expected = np.array(Image.fromarray(source).resize((96, 64), Image.Resampling.BILINEAR), np.float32)
    output, _ = stretch(source, (64, 96), **LITE)
    np.testing.assert_allclose(output * 128 + 127, expected, atol=1.01)


@given(
    st.tuples(st.integers(40, 900), st.integers(40, 900)),
    st.lists(st.floats(0.1, 0.9), min_size=2, max_size=2),
    st.booleans(),
)
def test_a_marked_point_returns_to_its_place(image_hw, point, keep_aspect_ratio):
    """The center of a white square, measured in the network input, times image_scale is its center in the image."""
    half, marked = 4, np.zeros([*image_hw, 3], np.uint8)
    y, x = (round(place * side) for place, side in zip(point, image_hw))
    marked[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = 255
    rows, columns = np.nonzero(marked[..., 0])
    box = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1], np.float32)
    output, image_scale = preprocess_lib.preprocess(marked, (320, 256), keep_aspect_ratio=keep_aspect_ratio, **RAW)
    weights = output[..., 0].numpy()
    center = [np.average(np.arange(side) + 0.5, weights=weights.sum(1 - axis)) for axis, side in ((0, 320), (1, 256))]
    # Without a filter, a pixel of the input is the mean of two of the image; sides rounded down shift by a pixel.
    tolerance = 1.5 * np.maximum(1, image_scale[:2])
    assert np.all(np.abs(center * image_scale[:2] - (box[:2] + box[2:]) / 2) <= tolerance)


def test_batch_equals_single_images_equals_function():
    batch = np.stack([image(30, 40, seed) for seed in (0, 1)])
    together, image_scale = preprocess(batch, (64, 64), **COLORS)
    alone = [preprocess(one, (64, 64), **COLORS) for one in batch]
    np.testing.assert_allclose(together, [one for one, _ in alone], atol=1e-6)
    np.testing.assert_array_equal(image_scale, alone[0][1])
    any_size = tf.function(
        lambda one: preprocess(one, (64, 64), **COLORS), input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)]
    )
    assert any_size.get_concrete_function().structured_outputs[0].shape == (64, 64, 3)
    np.testing.assert_allclose(any_size(batch[0])[0], together[0], atol=1e-6)


@pytest.mark.parametrize("height, width", [(30, 40), (200, 300)])
@pytest.mark.parametrize("preprocess", [preprocess, stretch], ids=["fitted", "stretched"])
def test_float_images_equal_uint8_images_and_need_no_branch(preprocess, height, width):
    """TFLite and ONNX can neither resize uint8 to float32 nor assert a shape."""
    spec = tf.TensorSpec([1, None, None, 3], tf.float32)
    function = tf.function(lambda batch: preprocess(batch, (64, 64), **COLORS), input_signature=[spec], autograph=False)
    graph = function.get_concrete_function()
    assert not {op.type for op in graph.graph.get_operations()} & {"If", "StatelessIf", "EnsureShape"}
    assert graph.structured_outputs[0].shape == (1, 64, 64, 3)
    images = image(height, width)[np.newaxis]
    expected, image_scale = preprocess(images, (64, 64), **COLORS)
    output, float_scale = graph(tf.constant(images, tf.float32))
    np.testing.assert_allclose(output, expected, atol=1e-5)
    np.testing.assert_array_equal(float_scale, image_scale)


def test_normalize_golden():
    np.testing.assert_allclose(normalize(tf.constant([[255.0, 127, 0]]), 127, 128), [[1, 0, -127 / 128]])
    np.testing.assert_allclose(normalize(tf.constant([[3.0, 4, 5]]), (1, 2, 3), (1, 2, 4)), [[2, 1, 0.5]])


@pytest.mark.parametrize("colors", [COLORS, LITE, RAW, {**RAW, "scale_range": True}], ids=str)
def test_unnormalize_inverts_preprocess(colors):
    source = image(20, 32)
    restored = unnormalize(preprocess(source, (32, 32), **colors)[0], **colors).numpy()
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored[:20], source)
    np.testing.assert_array_equal(restored[20:], np.broadcast_to(np.round(colors["mean_rgb"]), (12, 32, 3)))


def test_unnormalize_golden():
    rgb = {"mean_rgb": (1, 2, 3), "stddev_rgb": (1, 2, 4)}
    np.testing.assert_array_equal(unnormalize(tf.constant([2, 1, 0.5]), **rgb, scale_range=False), [3, 4, 5])
    # (x + 1) * 255 / 2 is 127.5, 0, 255, so x * stddev + mean is 128.5 (rounded to even), 2 and 1023 (clipped).
    np.testing.assert_array_equal(unnormalize(tf.constant([0.0, -1, 1]), **rgb, scale_range=True), [128, 2, 255])
