# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""layers: values of the activations, which statistics normalize, which samples drop connect drops."""

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
    """By hand; hswish, relu, relu6 and mish of 0.5 and 10 are also the published unit tests'."""
    values = layers.activation(act_type)(tf.constant([-1.0, 0.5, 10.0]))
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_unknown_activation():
    with pytest.raises(ValueError, match="unknown act_type 'elu'; use one of swish, silu"):
        layers.activation("elu")


def test_batch_normalization_golden():
    """One channel, values 0 and 2: mean 1, variance 1; unbiased 2, which is what the moving average gets."""
    x = tf.reshape(tf.constant([0.0, 2.0]), [1, 1, 2, 1])
    bn = layers.BatchNormalization()
    np.testing.assert_allclose(tf.squeeze(bn(x)), [0, 2 / np.sqrt(1.001)], rtol=1e-5)
    np.testing.assert_allclose(tf.squeeze(bn(x, training=True)), np.array([-1, 1]) / np.sqrt(1.001), rtol=1e-5)
    np.testing.assert_allclose(bn.moving_mean, [0.01], rtol=1e-5)
    np.testing.assert_allclose(bn.moving_variance, [0.99 + 0.01 * 2], rtol=1e-5)


def test_without_batch_statistics_training_is_inference_that_learns():
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
    # Five standard deviations of the mean of 4000 draws: sqrt(0.2 / 0.8 / 4000) each.
    np.testing.assert_allclose(dropped.mean(), 1.0, atol=5 * np.sqrt(0.25 / 4000))


def test_drop_connect_leaves_alone():
    x = tf.random.stateless_normal([3, 2, 2, 1], [3, 4])
    np.testing.assert_array_equal(layers.drop_connect(x, 0.5, False), x)
    np.testing.assert_array_equal(layers.drop_connect(x, 1.0, True), x)


def test_build_names_variables_after_the_layer_whatever_was_built_before():
    for _ in range(2):
        conv = keras.layers.Conv2D(5, 3, padding="same", name="conv")
        with tf.name_scope("outer"):
            assert layers.build(conv, 4) == 5
        assert [v.name for v in conv.weights] == ["outer/conv/kernel:0", "outer/conv/bias:0"]
        assert conv.kernel.shape == (3, 3, 4, 5)
