# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of heads: initial values, variable names, weights shared by levels, and drop connect."""

import numpy as np
import pytest
import tensorflow as tf

from efficientdet.heads import BoxNet, ClassNet

OPTIONS = {"filters": 4, "repeats": 2, "min_level": 3, "max_level": 4, "act_type": "relu"}


def built(layer):
    with tf.name_scope(layer.name):
        layer.build([(None, None, None, 4)] * 2)
    return layer


@pytest.mark.parametrize("net_class, bias", [(ClassNet, -4.59512), (BoxNet, 0.0)])
def test_initial_predictions(net_class, bias):
    """The initial class bias is -log((1 - 0.01) / 0.01), a probability of 0.01."""
    net = built(net_class(6, **OPTIONS))
    np.testing.assert_allclose(net.predict.bias, np.full(6, bias), atol=1e-5)
    for outputs in net([tf.zeros([1, 3, 2, 4]), tf.zeros([1, 2, 1, 4])]):
        np.testing.assert_allclose(outputs, np.full(outputs.shape, bias), atol=1e-5)
    assert not any(np.any(conv.bias) for conv in net.convs)


@pytest.mark.parametrize("separable_conv", [True, False])
def test_standard_deviation_of_initial_kernels(separable_conv):
    """Separable: variance 1 / fan_in, pointwise fan_in = F; plain: standard deviation 0.01."""
    net = ClassNet(6, **{**OPTIONS, "filters": 64, "separable_conv": separable_conv}, name="class_net")
    net.build([(None, None, None, 64)] * 2)
    if separable_conv:
        np.testing.assert_allclose(np.std(net.convs[1].pointwise_kernel), np.sqrt(1 / 64), rtol=0.05)
    else:
        np.testing.assert_allclose(np.std(net.convs[1].kernel), 0.01, rtol=0.05)


def test_variable_names_equal_those_of_checkpoints():
    for net, prefix in (
        (ClassNet(6, **OPTIONS, name="class_net"), "class"),
        (BoxNet(6, **OPTIONS, name="box_net"), "box"),
    ):
        convs = [f"{prefix}-0", f"{prefix}-1", f"{prefix}-predict"]
        bns = [f"{prefix}-{i}-bn-{level}" for i in (0, 1) for level in (3, 4)]
        assert {v.name for v in built(net).weights} == {
            *(f"{net.name}/{conv}/{v}:0" for conv in convs for v in ("depthwise_kernel", "pointwise_kernel", "bias")),
            *(f"{net.name}/{bn}/{v}:0" for bn in bns for v in ("gamma", "beta", "moving_mean", "moving_variance")),
        }


def test_levels_share_convolutions_but_not_batch_normalization():
    net = built(ClassNet(6, **OPTIONS))
    x = tf.random.stateless_normal([1, 3, 3, 4], [1, 2])
    finer, coarser = net([x, x])
    np.testing.assert_array_equal(finer, coarser)
    net.bns[0][1].beta.assign([3.0] * 4)
    again, changed = net([x, x])
    np.testing.assert_array_equal(again, finer)
    assert np.abs(changed - coarser).max() > 0.01


def test_steps_have_a_shortcut_only_with_a_survival_probability():
    """With gamma 0 and beta 0, the output of the second step is that of its shortcut, or 0."""
    x = tf.random.stateless_uniform([1, 3, 3, 4], [1, 2])
    for survival_prob, has_shortcut in ((None, False), (0.9, True)):
        net = built(BoxNet(6, **OPTIONS, survival_prob=survival_prob))
        for bn in net.bns[1]:
            bn.gamma.assign([0.0] * 4)
        outputs = net([x, x])[0]
        assert np.any(outputs) == has_shortcut
        if has_shortcut:
            first = net.act(net.bns[0][0](net.convs[0](x)))
            np.testing.assert_allclose(outputs, net.predict(first), atol=1e-6)


@pytest.mark.parametrize("recompute", [False, True])
def test_each_step_of_each_level_has_its_own_draw(recompute):
    """Steps after the first are dropped where their draw is 0; otherwise x becomes x + x / 0.5."""
    net = built(ClassNet(4, **{**OPTIONS, "repeats": 3}, survival_prob=0.5, recompute=recompute))
    assert net.num_draws == 4
    identity = np.eye(4).reshape(1, 1, 4, 4)
    for conv in (*net.convs, net.predict):
        conv.depthwise_kernel.assign(np.pad(np.ones([1, 1, 4, 1]), [(1, 1), (1, 1), (0, 0), (0, 0)]))
        conv.pointwise_kernel.assign(identity)
        conv.bias.assign(np.zeros(4))
    for bns in net.bns:
        for bn in bns:
            bn.batch_statistics = False
            bn.gamma.assign(np.full(4, np.sqrt(1.001)))  # undoes epsilon
    # Draws per image: two steps at level 3, then two steps at level 4.
    draws = tf.constant([[0.0, 0.0, 0.9, 0.9], [0.9, 0.0, 0.0, 0.6]])
    finer, coarser = tf.function(net)([tf.ones([2, 2, 2, 4]), tf.ones([2, 1, 1, 4])], training=True, draws=draws)
    np.testing.assert_allclose(finer[:, 0, 0, 0], [1, 3], rtol=1e-5)
    np.testing.assert_allclose(coarser[:, 0, 0, 0], [9, 3], rtol=1e-5)


@pytest.mark.parametrize("survival_prob, repeats, expected", [(None, 3, 0), (1.0, 3, 0), (0.9, 1, 0), (0.9, 4, 6)])
def test_number_of_draws(survival_prob, repeats, expected):
    net = built(BoxNet(6, **{**OPTIONS, "repeats": repeats}, survival_prob=survival_prob))
    assert net.num_draws == expected
    assert len(net([tf.zeros([1, 2, 2, 4])] * 2, training=True)) == 2  # draws None: new random numbers


def test_no_repeats():
    net = built(BoxNet(6, **{**OPTIONS, "repeats": 0}))
    assert len(net.weights) == 3 and net([tf.zeros([1, 2, 2, 4])] * 2)[1].shape == (1, 2, 2, 6)
