# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of bifpn: resampling and fusion by hand, gradients, and variable names."""

import numpy as np
import pytest
import tensorflow as tf

from efficientdet import bifpn
from efficientdet.bifpn import ConvAfterFusion, FNode, FPNCell, NodeOptions, ResampleFeatureMap
from efficientdet.fpn_configs import FUSIONS, Node

OPTIONS = NodeOptions(filters=4, act_type="relu")
NODES = [Node(3, (0, 1)), Node(4, (1, 2))]  # a pyramid of two levels


def ramp(*shape):
    return tf.reshape(tf.range(np.prod(shape), dtype=tf.float32), [1, *shape, 1])


@pytest.mark.parametrize(
    "length, size, expected",
    [
        (3, 5, [0, 0, 1, 1, 2]),  # floor(i * 3 / 5)
        (3, 7, [0, 0, 0, 1, 1, 2, 2]),  # floor(i * 3 / 7); half-pixel centers would give 0 0 1 1 1 2 2
        (2, 4, [0, 0, 1, 1]),
        (1, 3, [0, 0, 0]),
    ],
)
def test_upsample_golden(length, size, expected):
    rows = bifpn.upsample(tf.repeat(ramp(length, 1), size, axis=2), (size, size))
    np.testing.assert_array_equal(rows[0, :, 0, 0], expected)
    columns = bifpn.upsample(ramp(1, length), (1, size))
    np.testing.assert_array_equal(columns[0, 0, :, 0], expected)


@pytest.mark.parametrize(
    "length, size, expected",
    [
        (4, 2, [2, 3]),  # stride 2, window 3; SAME padding (0, 1): 0 1 2 | 2 3
        (5, 3, [1, 3, 4]),  # stride 2, window 3; padding (1, 1): 0 1 | 1 2 3 | 3 4
        (6, 2, [3, 5]),  # stride 3, window 4; padding (0, 1): 0 1 2 3 | 3 4 5
        (7, 3, [2, 5, 6]),  # stride 3, window 4; padding (1, 2): 0 1 2 | 2 3 4 5 | 5 6
    ],
)
def test_downsample_golden(length, size, expected):
    np.testing.assert_array_equal(bifpn.downsample(ramp(length, length), (size, size))[0, :, -1, 0] // length, expected)
    # The unchanged side has stride 1 and window 2.
    np.testing.assert_array_equal(bifpn.downsample(ramp(1, length), (1, size))[0, 0, :, 0], expected)


def test_each_side_is_pooled_by_its_own_factor():
    """Rows 5 -> 2 by stride 3 and window 4, padding (1, 1); columns 4 -> 2 by stride 2 and window 3, padding (0, 1)."""
    pooled = bifpn.downsample(ramp(5, 4), (2, 2))
    np.testing.assert_array_equal(pooled[0, ..., 0], [[10, 11], [18, 19]])


def test_resampling_to_the_same_size_returns_the_input():
    x = ramp(3, 2)
    assert bifpn.downsample(x, (3, 2)) is x and bifpn.upsample(x, (3, 2)) is x


@pytest.mark.parametrize("size", [(2, 8), (8, 2)])
def test_one_side_larger_and_one_smaller_raises(size):
    with pytest.raises(ValueError, match=f"a map of 4x4 to {size[0]}x{size[1]}: one side shrinks, one grows"):
        ResampleFeatureMap(1)(ramp(4, 4), size)


def test_resample_has_variables_only_if_channels_differ():
    assert not _built(ResampleFeatureMap(3), 3).weights
    with tf.name_scope("pyramid"):
        resample = ResampleFeatureMap(3, name="resample_p6")
    names = [v.name for v in _built(resample, 2).weights]
    assert names == [f"conv2d/{v}:0" for v in ("kernel", "bias")] + [
        f"bn/{v}:0" for v in ("gamma", "beta", "moving_mean", "moving_variance")
    ]
    assert len(_built(ResampleFeatureMap(3, apply_bn=False), 2).weights) == 2


def test_order_of_convolution_and_pooling():
    """With a kernel of -1, pooling before the convolution gives -max(x), pooling after it max(-x)."""
    for after, expected in ((False, 0.0), (True, -3.0)):
        resample = _built(ResampleFeatureMap(2, apply_bn=False, conv_after_downsample=after), 1)
        resample.conv.kernel.assign([[[[-1.0, -1.0]]]])
        np.testing.assert_allclose(resample(ramp(2, 2), (1, 1)), np.full([1, 1, 1, 2], expected))


# Two maps, [1, 3] and [3, 5]; edge weights 2 and -1, or per channel [2, -1] and [1, 3].
E = np.exp([2.0, -1.0])
FUSED = {
    "sum": [4.0, 8.0],
    "fastattn": np.array([1.0, 3.0]) * 2 / 2.0001,  # relu(-1) = 0
    "attn": (np.array([1.0, 3.0]) * E[0] + np.array([3.0, 5.0]) * E[1]) / E.sum(),
    "channel_fastattn": [(2 * 1 + 1 * 3) / 3.0001, 3 * 5 / 3.0001],
    "channel_attn": [
        (np.exp(2) * 1 + np.exp(1) * 3) / (np.exp(2) + np.exp(1)),
        (np.exp(-1) * 3 + np.exp(3) * 5) / (np.exp(-1) + np.exp(3)),
    ],
}


@pytest.mark.parametrize("method", FUSIONS)
def test_fusion_golden(method):
    maps = [tf.constant([[[[1.0, 3.0]]]]), tf.constant([[[[3.0, 5.0]]]])]
    fusion = bifpn.fusion(method)
    fusion(maps)
    if fusion.weights:
        values = ([2.0, -1.0], [1.0, 3.0]) if method.startswith("channel_") else (2.0, -1.0)
        for edge, value in zip(fusion.weights, values):
            edge.assign(value)
    np.testing.assert_allclose(tf.squeeze(fusion(maps)), FUSED[method], rtol=1e-5)


def test_initial_fusion_equals_the_published_mean():
    """Two maps [1, 3] with weights 1: 2 / 2.0001 * [1, 3], as in the published unit test."""
    maps = [tf.constant([[[[1.0, 3.0]]]])] * 2
    np.testing.assert_allclose(tf.squeeze(bifpn.FastFusion()(maps)), [0.99995, 2.99985], atol=1e-6)
    np.testing.assert_allclose(tf.squeeze(bifpn.SoftmaxFusion()(maps)), [1, 3], atol=1e-6)


@pytest.mark.parametrize("conv_bn_act_pattern, expected", [(False, [-0.5, 1.5]), (True, [0.0, 2.0])])
def test_order_of_activation_convolution_normalization(conv_bn_act_pattern, expected):
    """The kernel is -1 at the center; the first pattern has a bias of 2 and a shift beta of -0.5 as well."""
    layer = _built(ConvAfterFusion(1, "relu", False, conv_bn_act_pattern), 1)
    layer.conv.kernel.assign(np.float32([[0, 0, 0], [0, -1, 0], [0, 0, 0]]).reshape(3, 3, 1, 1))
    layer.bn.gamma.assign([np.sqrt(1.001)])
    assert layer.conv.use_bias != conv_bn_act_pattern
    if layer.conv.use_bias:
        layer.conv.bias.assign([2.0])
        layer.bn.beta.assign([-0.5])
    # relu first: -(2, 0) + 2 - 0.5; relu last: relu(-2), relu(2).
    np.testing.assert_allclose(layer(tf.constant([[[[2.0], [-2.0]]]])).numpy().ravel(), expected, atol=1e-6)


def test_variable_names_equal_those_of_checkpoints():
    node = FNode((0, 2), 5, OPTIONS, name="fnode0")
    with tf.name_scope("cell_0"), tf.name_scope(node.name):
        node.build([(None, None, None, 3), (None, None, None, 3), (None, None, None, 4)])
    bn = ["gamma", "beta", "moving_mean", "moving_variance"]
    assert {v.name for v in node.weights} == {
        "cell_0/fnode0/WSM:0",
        "cell_0/fnode0/WSM_1:0",
        *(f"cell_0/fnode0/resample_0_0_5/conv2d/{v}:0" for v in ("kernel", "bias")),
        *(f"cell_0/fnode0/resample_0_0_5/bn/{v}:0" for v in bn),
        *(f"cell_0/fnode0/op_after_combine5/conv/{v}:0" for v in ("depthwise_kernel", "pointwise_kernel", "bias")),
        *(f"cell_0/fnode0/op_after_combine5/bn/{v}:0" for v in bn),
    }


def test_unknown_fusion():
    with pytest.raises(ValueError, match="unknown fpn_weight_method 'mean'; use one of fastattn, attn"):
        FNode((0, 1), 2, OPTIONS._replace(weight_method="mean"))


def test_cell_returns_the_last_node_of_each_level():
    cell = FPNCell([*NODES, Node(3, (2, 3))], OPTIONS)
    feats = [tf.ones([1, 5, 7, 3]), tf.ones([1, 3, 4, 3])]
    outputs = cell(feats)
    assert [tuple(x.shape) for x in outputs] == [(1, 5, 7, 4), (1, 3, 4, 4)]
    first = cell.fnodes[0](feats, (5, 7))
    second = cell.fnodes[1]([*feats, first], (3, 4))
    np.testing.assert_allclose(outputs[1], second, rtol=1e-5)
    np.testing.assert_allclose(outputs[0], cell.fnodes[2]([*feats, first, second], (5, 7)), rtol=1e-5)


def _built(layer, channels):
    layer.build((None, None, None, channels))
    return layer


@pytest.mark.parametrize("before, after", [((4, 4), (8, 8)), ((3, 5), (5, 10)), ((2, 3), (7, 11)), ((3, 2), (5, 7))])
def test_upsample_gradient_is_the_sum_over_repeated_pixels(before, after):
    """In the last case, pixels are repeated unequally often: 4 and 3 times."""
    x, upstream = (
        tf.random.stateless_normal([2, *before, 3], [1, 2]),
        tf.random.stateless_normal([2, *after, 3], [3, 4]),
    )
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = bifpn.upsample(x, after)
    gradient = tape.gradient(outputs, x, output_gradients=upstream)
    rows, columns = (np.arange(b) * a // b for a, b in zip(before, after))
    np.testing.assert_array_equal(outputs, x.numpy()[:, rows][:, :, columns])
    expected = np.zeros(x.shape, np.float32)
    np.add.at(expected, np.s_[:, rows[:, None], columns], upstream.numpy())
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_upsample_and_its_gradient_compile_with_xla():
    x = tf.random.stateless_normal([1, 3, 4, 2], [1, 2])

    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(bifpn.upsample(x, (5, 8)) ** 2)
        return tape.gradient(loss, x)

    compiled = tf.function(slope, jit_compile=True, autograph=False)
    np.testing.assert_allclose(compiled(x), slope(x), rtol=1e-5)
