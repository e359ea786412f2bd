# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of layers: activations, batch normalization, drop connect, recomputation and variable names."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from backbone import layers


@pytest.mark.parametrize(
    "act_type, expected",
    [
        ("swish", [-0.268941, 0.311230, 9.999546]),  # x / (1 + exp(-x))
        ("silu", [-0.268941, 0.311230, 9.999546]),
        ("swish_native", [-0.268941, 0.311230, 9.999546]),
        ("hswish", [-1 / 3, 0.5 * 3.5 / 6, 10.0]),
        ("relu", [0.0, 0.5, 10.0]),
        ("relu6", [0.0, 0.5, 6.0]),
        ("mish", [-0.303401, 0.375245, 10.0]),  # x * tanh(log(1 + exp(x)))
    ],
)
def test_activations_golden(act_type, expected):
    """By hand; hswish, relu, relu6 and mish of 0.5 and 10 are also in the published unit tests."""
    values = layers.activation(act_type)(tf.constant([-1.0, 0.5, 10.0]))
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_unknown_activation():
    with pytest.raises(ValueError, match="unknown act_type 'elu'; use one of swish, silu"):
        layers.activation("elu")


def test_batch_normalization_golden():
    """Values 0 and 2: mean 1, variance 1, and unbiased variance 2, which updates the moving average."""
    x = tf.reshape(tf.constant([0.0, 2.0]), [1, 1, 2, 1])
    bn = layers.BatchNormalization()
    np.testing.assert_allclose(tf.squeeze(bn(x)), [0, 2 / np.sqrt(1.001)], rtol=1e-5)
    np.testing.assert_allclose(tf.squeeze(bn(x, training=True)), np.array([-1, 1]) / np.sqrt(1.001), rtol=1e-5)
    np.testing.assert_allclose(bn.moving_mean, [0.01], rtol=1e-5)
    np.testing.assert_allclose(bn.moving_variance, [0.99 + 0.01 * 2], rtol=1e-5)


def test_without_batch_statistics_training_equals_inference_with_gradients():
    bn = layers.BatchNormalization()
    x = tf.random.stateless_normal([2, 4, 4, 3], [1, 2])
    expected = bn(x)
    bn.batch_statistics = False
    with tf.GradientTape() as tape:
        outputs = bn(x, training=True)
        loss = tf.reduce_sum(outputs * x)
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(bn.moving_mean, [0, 0, 0])
    np.testing.assert_array_equal(bn.moving_variance, [1, 1, 1])
    for gradient in tape.gradient(loss, [bn.gamma, bn.beta]):
        assert np.abs(gradient).min() > 0


def test_drop_connect_drops_whole_samples_and_keeps_the_expectation():
    tf.random.set_seed(1)
    dropped = layers.drop_connect(tf.ones([4000, 2, 2, 3]), 0.8, True).numpy()
    by_sample = dropped.reshape(4000, -1)
    np.testing.assert_array_equal(by_sample, np.repeat(by_sample[:, :1], 12, axis=1))
    np.testing.assert_allclose(np.unique(by_sample), [0, 1 / 0.8])
    # Tolerance: five standard deviations of the mean, sqrt(0.2 / 0.8 / 4000) each.
    np.testing.assert_allclose(dropped.mean(), 1.0, atol=5 * np.sqrt(0.25 / 4000))


def test_drop_connect_returns_its_input_in_inference_or_without_drops():
    x = tf.random.stateless_normal([3, 2, 2, 1], [3, 4])
    np.testing.assert_array_equal(layers.drop_connect(x, 0.5, False), x)
    np.testing.assert_array_equal(layers.drop_connect(x, 1.0, True), x)


@pytest.mark.parametrize("seed", [[12, 0], [0, 277_241], [2**40, 3]])
def test_seeded_draws_have_the_same_bits_with_xla(seed):
    draw = lambda seed: layers.seeded_draws([64, 16], seed)  # noqa: E731
    draws = draw(tf.constant(seed, tf.int64))
    np.testing.assert_array_equal(draws, tf.random.stateless_uniform([64, 16], seed))  # on a CPU, without XLA
    np.testing.assert_array_equal(draws, tf.function(draw)(tf.constant(seed, tf.int64)))
    np.testing.assert_array_equal(draws, tf.function(draw, jit_compile=True)(tf.constant(seed, tf.int64)))


def test_drop_connect_golden():
    """With survival_prob 0.75, samples with a draw of at least 0.25 are kept and divided by 0.75."""
    x = tf.reshape(tf.constant([3.0, 6.0, 9.0, 12.0]), [4, 1, 1, 1])
    dropped = layers.drop_connect(x, 0.75, True, tf.constant([0.0, 0.2499, 0.25, 0.9999]))
    np.testing.assert_allclose(tf.reshape(dropped, [-1]), [0, 0, 12, 16], rtol=1e-6)


def test_swish_gradient_equals_that_of_silu():
    x, upstream = tf.constant([-1e4, -90.0, -3.0, -1e-3, 0.0, 0.5, 7.0, 90.0, 1e4]), tf.range(1.0, 10.0)
    values, gradients = [], []
    for function in (layers.swish, tf.nn.silu, tf.function(layers.swish)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        values.append(y)
        gradients.append(tape.gradient(y, x, output_gradients=upstream))
    for parts in (values, gradients):
        np.testing.assert_allclose(parts[0], parts[1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(parts[0], parts[2], rtol=1e-6)


@pytest.mark.parametrize("mean", [0.0, 300.0])
def test_synchronized_equals_fused_on_one_replica(mean):
    """Compares outputs, gradients and moving averages."""
    x = mean + tf.random.stateless_normal([3, 4, 5, 6], [1, 2]) * tf.range(1.0, 7.0)
    upstream, results = tf.random.stateless_normal(x.shape, [3, 4]), []
    for synchronized in (False, True):
        bn = layers.BatchNormalization()
        layers.build(bn, 6)
        bn.synchronized = synchronized
        bn.gamma.assign(tf.range(0.5, 3.5, 0.5))
        bn.beta.assign(tf.range(-3.0, 3.0))
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = bn(x, training=True)
        gradients = tape.gradient(outputs, [x, bn.gamma, bn.beta], output_gradients=upstream)
        results.append([outputs, *gradients, bn.moving_mean, bn.moving_variance])
    for fused, synchronized in zip(*results):
        np.testing.assert_allclose(synchronized, fused, rtol=1e-4, atol=1e-4 * np.abs(fused).max())


def test_frozen_moving_averages():
    x = tf.random.stateless_normal([2, 3, 3, 4], [1, 2]) + 5
    bn = layers.BatchNormalization()
    layers.build(bn, 4)
    with layers.frozen_moving_averages():
        with layers.frozen_moving_averages():
            expected = bn(x, training=True)
        np.testing.assert_array_equal(bn(x, training=True), expected)  # still frozen after the inner context
        np.testing.assert_array_equal(bn.moving_mean, np.zeros(4))
        np.testing.assert_array_equal(bn.moving_variance, np.ones(4))
    np.testing.assert_array_equal(bn(x, training=True), expected)
    np.testing.assert_allclose(bn.moving_mean, 0.01 * np.mean(x, (0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("wrap", [lambda function: function, tf.function], ids=["eager", "function"])
def test_recompute_equals_the_function_with_its_gradients_and_averages(wrap):
    """Two inputs in a list, one without gradient; moving averages are updated once."""
    x, shortcut = (tf.random.stateless_normal([4, 5, 5, 3], [1, i]) for i in range(2))
    conv, bn = keras.layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization()
    layers.build(bn, layers.build(conv, 3))
    draw = tf.constant([0.1, 0.6, 0.3, 0.9])
    watched = [x, conv.kernel, conv.bias, bn.gamma, bn.beta]

    def block(inputs):
        outputs = layers.swish(bn(conv(inputs[0]), training=True))
        return [inputs[1] + layers.drop_connect(outputs, 0.5, True, draw)]

    def run(recompute):
        with tf.GradientTape() as tape:
            tape.watch(x)
            (outputs,) = layers.recompute(block, [x, shortcut]) if recompute else block([x, shortcut])
            loss = tf.reduce_sum(outputs * shortcut)
        return outputs, tape.gradient(loss, watched)

    results = []
    for recompute in (False, True):
        for average, value in ((bn.moving_mean, 0.0), (bn.moving_variance, 1.0)):
            average.assign(tf.fill([3], value))
        outputs, gradients = wrap(run)(recompute)
        results.append([outputs, *gradients, bn.moving_mean.numpy(), bn.moving_variance.numpy()])
    assert np.all(results[0][-2] != 0)
    for expected, value in zip(*results):
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_build_names_variables_after_the_layer_each_time():
    for _ in range(2):
        conv = keras.layers.Conv2D(5, 3, padding="same", name="conv")
        with tf.name_scope("outer"):
            assert layers.build(conv, 4) == 5
        assert [v.name for v in conv.weights] == ["outer/conv/kernel:0", "outer/conv/bias:0"]
        assert conv.kernel.shape == (3, 3, 4, 5)
