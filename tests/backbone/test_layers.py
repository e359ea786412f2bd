# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of layers: activations, batch normalization, drop connect, recomputation and variable names."""

import concurrent.futures
import threading
import types

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


class Replicas:
    """Replacement of `tf.distribute` with replicas that are threads and compute eagerly."""

    def __init__(self, count, monkeypatch):
        self.count, self.barrier, self.local, self.values = count, threading.Barrier(count), threading.local(), {}
        self.collectives = 0
        monkeypatch.setattr(layers, "all_sum", self.all_sum)
        monkeypatch.setattr(tf.distribute, "get_replica_context", self.context)

    def context(self):
        return types.SimpleNamespace(replica_id_in_sync_group=self.local.index, num_replicas_in_sync=self.count)

    def all_sum(self, value):
        self.values[self.local.index] = value
        if self.barrier.wait(timeout=60) == 0:  # in one of the threads
            self.collectives += 1
        total = tf.add_n([self.values[i] for i in range(self.count)])
        self.barrier.wait(timeout=60)
        return total

    def run(self, function):
        """Returns function(i) of each replica i."""

        def run(i):
            self.local.index = i
            return function(i)

        with concurrent.futures.ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(run, range(self.count)))


def normalized(x, upstream, *, synchronized, wrap=lambda function: function):
    """Outputs of a batch normalization, their gradients, and updated averages."""
    policy = "float32" if x.dtype == tf.float32 else f"mixed_{x.dtype.name}"
    bn = layers.BatchNormalization(momentum=0.0, synchronized=synchronized, dtype=policy)
    layers.build(bn, x.shape[-1])
    bn.gamma.assign(tf.range(0.5, 3.5, 0.5))
    bn.beta.assign(tf.range(-3.0, 3.0))

    @wrap
    def run(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = bn(x, training=True)
        return outputs, *tape.gradient(outputs, [x, bn.gamma, bn.beta], output_gradients=upstream)

    return [value.numpy() for value in (*run(x, upstream), bn.moving_mean, bn.moving_variance)]


def batch(mean, dtype=tf.float32):
    """Six images whose means and channels' deviations differ, and gradients of their normalization."""
    x = tf.cast(mean + tf.random.stateless_normal([6, 8, 8, 6], [1, 2]) * tf.range(1.0, 7.0), dtype)
    x += tf.cast(tf.reshape([5.0, 0.0, 0.0, -9.0, 0.0, 2.0], [-1, 1, 1, 1]), dtype)
    return x, tf.cast(tf.random.stateless_normal(x.shape, [3, 4]), dtype)


def check_normalized(found, expected, x, mean):
    """Compares results of `normalized` for a batch x; float32 stores its means with an error of up to `rounding`."""
    rounding = mean * np.finfo(np.float32).eps
    digits = {"float32": 1e-5, "float16": 0.004, "bfloat16": 0.03}[x.dtype.name]
    tolerances = [(digits, rounding)] * 2 + [(1e-4, rounding * len(x[..., 0].numpy().ravel()) ** 0.5)] * 2
    for value, reference, (share, rounding) in zip(found, expected, tolerances):  # outputs and gradients
        assert value.dtype == reference.dtype
        value, reference = value.astype(np.float32), reference.astype(np.float32)
        atol = share * np.abs(reference).max() + rounding
        np.testing.assert_allclose(value, reference, rtol=share, atol=atol)
    exact = x.numpy().astype(np.float64)
    np.testing.assert_allclose(found[-2], exact.mean((0, 1, 2)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found[-1], exact.var((0, 1, 2), ddof=1), rtol=1e-4)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float16, tf.bfloat16], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("mean", [0.0, 300.0, 3000.0])
def test_synchronized_replicas_equal_one_batch(monkeypatch, mean, dtype):
    """Batches of three, one and two images; outputs and gradients in the precision of the inputs."""
    x, upstream = batch(mean, dtype)
    expected = normalized(x, upstream, synchronized=False)
    assert expected[0].dtype == expected[1].dtype == dtype.as_numpy_dtype
    parts, replicas = [slice(0, 3), slice(3, 4), slice(4, 6)], Replicas(3, monkeypatch)
    results = replicas.run(lambda i: normalized(x[parts[i]], upstream[parts[i]], synchronized=True))
    assert replicas.collectives == 2
    outputs, d_x, d_gamma, d_beta, averages, variances = zip(*results)
    sums = sum(d_gamma), sum(d_beta)  # by the training step, with all gradients
    for average, variance in zip(averages, variances):
        found = np.concatenate(outputs), np.concatenate(d_x), *sums, average, variance
        check_normalized(found, expected, x, mean)


@pytest.mark.parametrize("mean", [0.0, 300.0])
def test_synchronized_with_xla_equals_the_kernels(mean):
    x, upstream = batch(mean)
    expected = normalized(x, upstream, synchronized=False)
    compiled = normalized(x, upstream, synchronized=True, wrap=tf.function(jit_compile=True, autograph=False))
    check_normalized(compiled, expected, x, mean)


@pytest.mark.parametrize("synchronized", [False, True])
def test_backward_pass_of_16_bit_normalization_keeps_no_32_bit_copy_of_its_input(synchronized):
    bn, kept = layers.BatchNormalization(synchronized=synchronized, dtype="mixed_float16"), []
    layers.build(bn, 6)

    @tf.function(autograph=False)
    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = bn(x, training=True)
        forward = {operation.name for operation in outputs.graph.get_operations()}
        result = tape.gradient(outputs, [x, bn.gamma, bn.beta], output_gradients=x)
        backward = [operation for operation in outputs.graph.get_operations() if operation.name not in forward]
        kept.extend(t for operation in backward for t in operation.inputs if t.op.name in forward)
        return outputs, *result

    outputs, d_x, *_ = gradients(tf.random.stateless_normal([2, 5, 5, 6], [1, 2], dtype=tf.float16))
    assert outputs.dtype == d_x.dtype == tf.float16
    large = [tensor for tensor in kept if tensor.shape.rank == 4]
    assert large and {tensor.dtype for tensor in large} == {tf.float16}


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
