# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of postprocess: published detections in every mode, and properties of all modes."""

import json
import pathlib
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientdet import boxes as box_ops
from efficientdet import postprocess as pp
from efficientdet.anchors import Anchors, concat_levels
from efficientdet.config import NmsConfig
from efficientdet.nms import nms

NUMBERS = pathlib.Path(__file__).parents[2] / "testdata" / "numbers.json"
ANCHORS = Anchors((128, 128), min_level=3, max_level=7, num_scales=3, aspect_ratios=[1.0, 2.0, 0.5], anchor_scale=4.0)
SCALES = tf.constant([[1.5] * 4, [2.0] * 4])
HARD = NmsConfig("hard", max_output_size=20)
EVERY = [
    (mode, replace(HARD, method=method, max_nms_inputs=inputs))
    for mode in pp.MODES
    for method in ("hard", "gaussian")
    for inputs in (0, 200)
    if mode != "combined" or (method, inputs) == ("hard", 0)
]


def outputs(scale, seed, batch=2):
    """Normal noise as in the published cases: four classes, levels 3 to 7."""
    return [
        tf.constant(np.random.RandomState(seed + level).standard_normal((batch, h, w, 36)) * scale, tf.float32)
        for level, (h, w) in zip(range(3, 8), ANCHORS.feat_sizes)
    ]


CLS_OUTPUTS, BOX_OUTPUTS = outputs(1.0, 11), outputs(0.1, 31)


def detect(mode, config, cls_outputs=CLS_OUTPUTS, box_outputs=BOX_OUTPUTS, image_scales=SCALES):
    return pp.postprocess(mode, cls_outputs, box_outputs, anchors=ANCHORS, image_scales=image_scales, nms_config=config)


def assert_same(detections, others):
    for name, ours, theirs in zip(pp.Detections._fields, detections, others):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4, err_msg=name)


def assert_found(expected, rows):
    """Asserts that every expected (box, score, class) matches a different row."""
    unmatched = list(rows)
    for box, score, label in expected:
        tolerance = max(0.05, 2e-4 * max(box[2] - box[0], box[3] - box[1]))
        for i, (our_box, our_score, our_label) in enumerate(unmatched):
            close = np.abs(np.subtract(our_box, box)).max() <= tolerance and abs(our_score - score) <= 1e-4
            if close and our_label == label:
                del unmatched[i]
                break
        else:
            raise AssertionError(f"no detection matches {box}, {score}, {label}")


@pytest.mark.parametrize("mode, config", EVERY)
def test_published_detections(mode, config):
    case = mode.removesuffix("_static")
    case = case if mode == "combined" else f"{case} {config.method} max_nms_inputs={config.max_nms_inputs}"
    published = json.loads(NUMBERS.read_text())["postprocess"]["cases"][case]
    detections = detect(mode, config)
    np.testing.assert_array_equal(detections.valid_len, published[3])
    for i, size in enumerate(128 * SCALES[:, 0].numpy()):
        # The published per_class mode does not clip boxes.
        expected = zip(np.clip(published[0][i], 0, size), published[1][i], published[2][i])
        assert_found(expected, zip(*(x[i].numpy() for x in detections[:3])))


@pytest.mark.parametrize("mode, config", EVERY)
def test_batch_of_two_is_two_batches_of_one(mode, config):
    alone = [
        detect(
            mode, config, [x[i : i + 1] for x in CLS_OUTPUTS], [x[i : i + 1] for x in BOX_OUTPUTS], SCALES[i : i + 1]
        )
        for i in (0, 1)
    ]
    assert_same(detect(mode, config), [tf.concat(parts, 0) for parts in zip(*alone)])


@pytest.mark.parametrize("mode, config", EVERY)
def test_eager_equals_function_of_any_batch(mode, config):
    signature = [[tf.TensorSpec([None, *x.shape[1:]]) for x in CLS_OUTPUTS]]
    signature += [[tf.TensorSpec([None, *x.shape[1:]]) for x in BOX_OUTPUTS], tf.TensorSpec([None, 4])]
    function = tf.function(lambda c, b, s: detect(mode, config, c, b, s), input_signature=signature)
    assert_same(detect(mode, config), function(CLS_OUTPUTS, BOX_OUTPUTS, SCALES))


@pytest.mark.parametrize("mode, config", [(mode, config) for mode, config in EVERY if mode.endswith("_static")])
def test_static_modes_compile_with_xla_and_equal_the_others(mode, config):
    compiled = tf.function(lambda *inputs: detect(mode, config, *inputs), jit_compile=True, autograph=False)
    detections = compiled(CLS_OUTPUTS, BOX_OUTPUTS, SCALES)
    np.testing.assert_array_equal(detections.valid_len, 20)
    assert_same(detections, detect(mode.removesuffix("_static"), config))


@pytest.mark.parametrize("mode", pp.MODES)
def test_detections_are_sorted_clipped_and_padded_with_zeros(mode):
    config = replace(HARD, score_thresh=0.965)
    detections = detect(mode, config)
    for i, size in enumerate((192, 256)):
        boxes, scores, classes, valid_len = (x[i].numpy() for x in detections)
        assert 0 < valid_len < 20 and classes.dtype == np.int32
        assert np.all(scores[:valid_len] > 0.965) and np.all(np.diff(scores) <= 0)
        assert np.all((classes[:valid_len] >= 1) & (classes[:valid_len] <= 4))
        assert boxes.min() >= 0 and boxes.max() <= size
        assert not boxes[valid_len:].any() and not scores[valid_len:].any() and not classes[valid_len:].any()


@pytest.mark.parametrize("mode", pp.MODES)
def test_scales_of_both_axes_apply_after_suppression(mode):
    ones = detect(mode, HARD, image_scales=tf.ones([1, 4]))
    apart = detect(mode, HARD, image_scales=tf.constant([[3.0, 0.5, 3.0, 0.5]]))
    assert ones.valid_len[0] > 0
    np.testing.assert_allclose(apart.boxes, ones.boxes * [3, 0.5, 3, 0.5], rtol=1e-6)
    for ours, theirs in zip(apart[1:], ones[1:]):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", pp.MODES)
def test_no_detections(mode):
    detections = detect(mode, replace(HARD, score_thresh=0.5), [x - 100 for x in CLS_OUTPUTS])
    assert not any(x.numpy().any() for x in detections) and detections.boxes.shape == (2, 20, 4)


@pytest.mark.parametrize("method", ["hard", "gaussian"])
def test_per_class_equals_one_suppression_per_class(method):
    config = replace(HARD, method=method, max_nms_inputs=500)
    detections = detect("per_class", config, image_scales=tf.ones([2, 4]))
    candidates = pp.choose_candidates(CLS_OUTPUTS, BOX_OUTPUTS, ANCHORS, 500)
    for i in (0, 1):
        boxes, scores, classes = (x[i].numpy() for x in candidates)
        rows = []
        for label in range(4):
            members = np.flatnonzero(classes == label)
            indices, kept, valid_len = nms(boxes[members], scores[members], config)
            rows += [(s, label + 1, *boxes[members][j]) for j, s in zip(indices[:valid_len].numpy(), kept.numpy())]
        rows = np.array(sorted(rows, reverse=True)[:20])
        np.testing.assert_allclose(detections.scores[i], rows[:, 0], rtol=1e-6)
        np.testing.assert_array_equal(detections.classes[i], rows[:, 1])
        np.testing.assert_allclose(detections.boxes[i], np.clip(rows[:, 2:], 0, 128), rtol=1e-6)


def test_candidates():
    logits = concat_levels(CLS_OUTPUTS, 4).numpy()
    best = pp.choose_candidates(CLS_OUTPUTS, BOX_OUTPUTS, ANCHORS, 0)
    np.testing.assert_array_equal(best.classes, logits.argmax(-1))
    np.testing.assert_allclose(best.scores, 1 / (1 + np.exp(-logits.max(-1))), rtol=1e-5)
    top = pp.choose_candidates(CLS_OUTPUTS, BOX_OUTPUTS, ANCHORS, 7)
    order = np.argsort(-logits.reshape(2, -1))[:, :7]
    np.testing.assert_array_equal(top.classes, order % 4)
    decoded = box_ops.decode(concat_levels(BOX_OUTPUTS, 4), ANCHORS.boxes).numpy()
    np.testing.assert_allclose(top.boxes[1], decoded[1][order[1] // 4], rtol=1e-6)
    # max_nms_inputs above the number of pairs returns all pairs.
    assert pp.choose_candidates(CLS_OUTPUTS, BOX_OUTPUTS, ANCHORS, 10**6).scores.shape == (2, logits[0].size)


def distinct(seed, last):
    """Distinct outputs [2, Hl, Wl, last] in [-4, 4]."""
    shapes = [(2, h, w, last) for h, w in ANCHORS.feat_sizes]
    sizes = np.cumsum([np.prod(shape) for shape in shapes])
    values = np.random.RandomState(seed).permutation(np.linspace(-4, 4, sizes[-1], dtype=np.float32))
    return [tf.constant(part.reshape(shape)) for part, shape in zip(np.split(values, sizes[:-1]), shapes)]


@settings(max_examples=8)
@given(st.integers(0, 2**31), st.sampled_from(["hard", "gaussian"]), st.sampled_from([0, 60]), st.floats(0, 0.98))
def test_global_equals_a_plain_implementation(seed, method, max_nms_inputs, score_thresh):
    """The plain implementation decodes and classifies all anchors, image by image."""
    cls_outputs, box_outputs = distinct(seed, 36), distinct(seed + 1, 36)
    config = replace(HARD, method=method, max_nms_inputs=max_nms_inputs, score_thresh=score_thresh)
    detections = detect("global", config, cls_outputs, box_outputs)
    boxes = box_ops.decode(concat_levels(box_outputs, 4), ANCHORS.boxes).numpy()
    logits = concat_levels(cls_outputs, 4).numpy()
    for i in (0, 1):
        rows = np.arange(len(ANCHORS.boxes)) * 4 + logits[i].argmax(-1)
        if max_nms_inputs:
            rows = np.argsort(-logits[i].ravel())[:max_nms_inputs]
        indices, scores, valid_len = nms(boxes[i][rows // 4], tf.sigmoid(logits[i].ravel()[rows]), config)
        kept = rows[indices[:valid_len].numpy()]
        assert detections.valid_len[i] == valid_len
        np.testing.assert_array_equal(detections.classes[i][:valid_len], kept % 4 + 1)
        np.testing.assert_allclose(detections.scores[i], scores, rtol=1e-6)
        expected = np.clip(boxes[i][kept // 4], 0, 128) * SCALES[i]
        np.testing.assert_allclose(detections.boxes[i][:valid_len], expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("config", [config for mode, config in EVERY if mode == "global"])
def test_no_loop_if_the_batch_size_is_known(config):
    function = tf.function(lambda c, b: detect("global", config, c, b), autograph=False)
    graph = function.get_concrete_function(*([tf.TensorSpec(x.shape) for x in y] for y in (CLS_OUTPUTS, BOX_OUTPUTS)))
    types = [op.type for op in graph.graph.get_operations()]
    assert types.count("NonMaxSuppressionV5") == 2 and not {t for t in types if "While" in t or "If" in t}
    assert_same(detect("global", config), graph(*CLS_OUTPUTS, *BOX_OUTPUTS))


def test_unknown_mode():
    modes = "global, per_class, combined, global_static, per_class_static"
    with pytest.raises(ValueError, match=f"must be one of {modes}, got 'local'"):
        detect("local", HARD)


def test_to_rows():
    detections = pp.Detections(
        boxes=tf.reshape(tf.range(8.0), [2, 1, 4]),
        scores=tf.constant([[0.5], [0.25]]),
        classes=tf.constant([[3], [0]]),
        valid_len=tf.constant([1, 0]),
    )
    np.testing.assert_array_equal(pp.to_rows(detections), [[[0, 0, 1, 2, 3, 0.5, 3]], [[1, 4, 5, 6, 7, 0.25, 0]]])


def test_tflite_op_inputs_decode_to_the_same_boxes():
    """As the op decodes: center = code * anchor size + anchor center, size = exp(code) * anchor size."""
    codes, scores, anchors = (x.numpy() for x in pp.tflite_op_inputs(CLS_OUTPUTS, BOX_OUTPUTS, ANCHORS))
    np.testing.assert_allclose(anchors[0], [4 / 128, 4 / 128, 32 / 128, 32 / 128])
    centers = codes[..., :2] * anchors[:, 2:] + anchors[:, :2]
    half_sizes = np.exp(codes[..., 2:]) * anchors[:, 2:] / 2
    boxes = np.concatenate([centers - half_sizes, centers + half_sizes], -1) * 128
    candidates = pp.choose_candidates(CLS_OUTPUTS, BOX_OUTPUTS, ANCHORS, 0)
    np.testing.assert_allclose(boxes, candidates.boxes, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(scores.max(-1), candidates.scores)
    np.testing.assert_array_equal(scores.argmax(-1), candidates.classes)
