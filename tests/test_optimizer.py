# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""optimizer: published learning rates, clipping and averaging by hand and by TensorFlow Addons."""

import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from efficientdet import config as config_lib
from tf2 import trainer
from tf2.optimizer import LearningRate, MovingAverage, clip_gradients, get_optimizer

TRAIN = pathlib.Path(__file__).parents[2] / "shared" / "reference" / "train.npz"
# Of the published rates: they scale with batch / 64, here twice.
PUBLISHED = {"batch_size": 128, "steps_per_epoch": 1000}
PUBLISHED_HPARAMS = "learning_rate=0.08,lr_warmup_init=0.004,num_epochs=300"


@pytest.mark.parametrize("method", ["stepwise", "polynomial"])
def test_published_rates(method):
    if not TRAIN.exists():
        pytest.skip(f"needs {TRAIN}")
    figures = np.load(TRAIN)
    config = config_lib.load("efficientdet-d0", f"{PUBLISHED_HPARAMS},lr_decay_method={method}")
    rate = trainer.learning_rate(config, **PUBLISHED)
    rates = [rate(step) for step in figures[f"lr/{method}/steps"]]
    np.testing.assert_allclose(rates, figures[f"lr/{method}/values"], rtol=1e-5)


def test_cosine_is_the_plain_one():
    rate = trainer.learning_rate(config_lib.load("efficientdet-d0", PUBLISHED_HPARAMS), **PUBLISHED)
    warm, total = 1000, 300_000
    for step in (1000, 1001, 50_000, 150_500, 299_000, 299_999, 300_000):
        expected = 0.16 * 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
        np.testing.assert_allclose(rate(step), expected, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose([rate(0), rate(500), rate(150_500)], [0.008, 0.084, 0.08], rtol=1e-5)
    assert rate(310_000) == 0  # and never rises again


def test_warm_up_of_a_fraction_of_an_epoch_and_of_none():
    config = config_lib.load("efficientdet-d0", "lr_warmup_epoch=0.25,lr_decay_method=polynomial,num_epochs=2")
    rate = trainer.learning_rate(config, batch_size=64, steps_per_epoch=10)  # int(2.5) steps
    np.testing.assert_allclose([rate(0), rate(1)], [0.008, 0.044], rtol=1e-6)
    np.testing.assert_allclose(rate(2), 0.08 * 0.9**0.9, rtol=1e-6)
    without = trainer.learning_rate(config.override({"lr_warmup_epoch": 0}), batch_size=64, steps_per_epoch=10)
    np.testing.assert_allclose([without(0), without(20)], [0.08, 0], rtol=1e-6)


def test_constant_has_no_warm_up():
    config = config_lib.load("efficientdet-d0", "lr_decay_method=constant,learning_rate=0.02")
    rate = trainer.learning_rate(config, batch_size=16, steps_per_epoch=10)
    np.testing.assert_allclose([rate(0), rate(5), rate(10**6)], 0.005, rtol=1e-6)


def test_rates_survive_serialization():
    rate = LearningRate("stepwise", 0.1, total_steps=100, warmup_init=0.01, warmup_steps=5, drop_steps=[50, 80])
    again = LearningRate.from_config(rate.get_config())
    np.testing.assert_array_equal([again(step) for step in (0, 3, 49, 50, 80)], [rate(s) for s in (0, 3, 49, 50, 80)])
    np.testing.assert_allclose([rate(49), rate(50), rate(80)], [0.1, 0.01, 0.001], rtol=1e-6)


def test_unknown_names_are_told():
    with pytest.raises(ValueError, match="unknown lr_decay_method 'linear'; use one of cosine"):
        LearningRate("linear", 0.1, total_steps=10)
    with pytest.raises(ValueError, match="unknown optimizer 'rmsprop'; use sgd or adam"):
        get_optimizer("rmsprop", LearningRate("constant", 0.1, total_steps=1), 0.9)


@pytest.mark.parametrize(
    "name, expected",
    [  # by hand, for a gradient of 1 twice, rate 0.1 and momentum 0.5
        ("sgd", [-0.1, -0.1 - 0.1 * 1.5]),  # velocity 1, then 0.5 * 1 + 1; not Nesterov
        ("adam", [-0.1, -0.2]),  # a constant gradient has both corrected moments 1
    ],
)
def test_two_steps_of_an_optimizer(name, expected):
    variable = tf.Variable([0.0])
    optimizer = get_optimizer(name, LearningRate("constant", 0.1, total_steps=1), 0.5)
    values = []
    for _ in range(2):
        optimizer.apply_gradients([(tf.constant([1.0]), variable)])
        values.append(float(variable[0]))
    np.testing.assert_allclose(values, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "gradients, norm, expected, expected_norm",
    [
        ([[3.0, 4.0], [0.3]], 10.0, [[3, 4], [0.3]], math.hypot(5, 0.3)),  # below both limits
        ([[30.0, 40.0]], 10.0, [[6, 8]], 10.0),  # one gradient, cut to norm 10
        # Each to norm 10 first, so the large one counts no more than the other; then 10 * sqrt(2) to 10.
        ([[300.0, 400.0], [0.0, 10.0]], 10.0, [[6 / 2**0.5, 8 / 2**0.5], [0, 10 / 2**0.5]], 10.0),
        ([[300.0, 400.0]], None, [[300, 400]], 500.0),
        ([[300.0, 400.0]], 0.0, [[300, 400]], 500.0),
    ],
)
def test_clip_gradients_golden(gradients, norm, expected, expected_norm):
    clipped, global_norm = clip_gradients([tf.constant(gradient) for gradient in gradients], norm)
    for gradient, values in zip(clipped, expected, strict=True):
        np.testing.assert_allclose(gradient, values, rtol=1e-6)
    np.testing.assert_allclose(global_norm, expected_norm, rtol=1e-6)


def test_moving_average_golden():
    variable = tf.Variable([1.0])
    average = MovingAverage([variable], 0.3)
    variable.assign([11.0])
    average.update(tf.constant(1))  # decay (1 + 1) / (10 + 1) = 2 / 11: 1 + 9 / 11 * 10
    np.testing.assert_allclose(average.averages[0], [1 + 90 / 11], rtol=1e-6)
    average.update(tf.constant(1000))  # the decay is now min(0.3, 0.99...): 0.3 * before + 0.7 * 11
    np.testing.assert_allclose(average.averages[0], [0.3 * (1 + 90 / 11) + 0.7 * 11], rtol=1e-6)
    average.reset()
    np.testing.assert_array_equal(average.averages[0], [11])


def test_moving_average_agrees_with_tensorflow_addons():
    addons = pytest.importorskip("tensorflow_addons")
    rng = np.random.RandomState(0)
    theirs, ours = (tf.Variable(np.ones((3, 2)), dtype=tf.float32) for _ in range(2))
    reference = addons.optimizers.MovingAverage("SGD", average_decay=0.9, dynamic_decay=True)
    average = MovingAverage([ours], 0.9)
    for step in range(1, 120):
        gradient = tf.constant(rng.randn(3, 2), tf.float32)
        reference.apply_gradients([(gradient, theirs)])
        ours.assign_sub(0.01 * gradient)
        # Addons counts from the step before.
        average.update(tf.constant(step - 1))
        np.testing.assert_allclose(average.averages[0], reference.get_slot(theirs, "average"), rtol=1e-5, atol=1e-7)


def test_applied_swaps_and_swaps_back():
    variables = [tf.Variable([1.0, 2.0], name="a"), tf.Variable(3.0, name="b", trainable=False)]
    average = MovingAverage(variables, 0.9)
    variables[0].assign([5.0, 6.0])
    with average.applied():
        np.testing.assert_array_equal(variables[0], [1, 2])
    np.testing.assert_array_equal(variables[0], [5, 6])
    with pytest.raises(KeyError), average.applied():
        np.testing.assert_array_equal(variables[0], [1, 2])
        raise KeyError
    np.testing.assert_array_equal(variables[0], [5, 6])
    np.testing.assert_array_equal(average.averages[0], [1, 2])


def test_keras_optimizers_are_those_of_keras_2():
    optimizer = get_optimizer("adam", LearningRate("constant", 0.1, total_steps=1), 0.8)
    assert isinstance(optimizer, keras.optimizers.Adam) and optimizer.beta_1 == 0.8
