# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/optimizer.py, against published rates, hand computation, Keras and TensorFlow Addons."""

import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from efficientdet import config as config_lib
from efficientdet.model import EfficientDetNet
from tf2.training.optimizer import (
    OPTIMIZERS,
    Adam,
    AdamW,
    LearningRate,
    MovingAverage,
    Sgd,
    clip_gradients,
    frozen_variables,
    learning_rate_schedule,
)

TRAIN = pathlib.Path(__file__).parents[3] / "testdata" / "train.npz"
# Settings of the published rates, which scale with batch_size / 64.
PUBLISHED = {"batch_size": 128, "steps_per_epoch": 1000}
PUBLISHED_HPARAMS = "learning_rate=0.08,lr_warmup_init=0.004,num_epochs=300"


@pytest.mark.parametrize("method", ["stepwise", "polynomial"])
def test_published_rates(method):
    figures = np.load(TRAIN)
    config = config_lib.load("efficientdet-d0", f"{PUBLISHED_HPARAMS},lr_decay_method={method}")
    rate = learning_rate_schedule(config, **PUBLISHED)
    rates = [rate(step) for step in figures[f"lr/{method}/steps"]]
    np.testing.assert_allclose(rates, figures[f"lr/{method}/values"], rtol=1e-5)


def test_cosine_golden():
    rate = learning_rate_schedule(config_lib.load("efficientdet-d0", PUBLISHED_HPARAMS), **PUBLISHED)
    warm, total = 1000, 300_000
    for step in (1000, 1001, 50_000, 150_500, 299_000, 299_999, 300_000):
        expected = 0.16 * 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
        np.testing.assert_allclose(rate(step), expected, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose([rate(0), rate(500), rate(150_500)], [0.008, 0.084, 0.08], rtol=1e-5)
    assert rate(310_000) == 0  # the cosine does not rise again


def test_warmup_of_a_fraction_of_an_epoch_and_without():
    config = config_lib.load("efficientdet-d0", "lr_warmup_epoch=0.25,lr_decay_method=polynomial,num_epochs=2")
    rate = learning_rate_schedule(config, batch_size=64, steps_per_epoch=10)  # int(2.5) steps
    np.testing.assert_allclose([rate(0), rate(1)], [0.008, 0.044], rtol=1e-6)
    np.testing.assert_allclose(rate(2), 0.08 * 0.9**0.9, rtol=1e-6)
    without = learning_rate_schedule(config.override({"lr_warmup_epoch": 0}), batch_size=64, steps_per_epoch=10)
    np.testing.assert_allclose([without(0), without(20)], [0.08, 0], rtol=1e-6)


def test_constant_rate_has_no_warmup():
    config = config_lib.load("efficientdet-d0", "lr_decay_method=constant,learning_rate=0.02")
    rate = learning_rate_schedule(config, batch_size=16, steps_per_epoch=10)
    np.testing.assert_allclose([rate(0), rate(5), rate(10**6)], 0.005, rtol=1e-6)


def test_rates_are_equal_after_serialization():
    rate = LearningRate("stepwise", 0.1, total_steps=100, warmup_init=0.01, warmup_steps=5, drop_steps=[50, 80])
    again = LearningRate.from_config(rate.get_config())
    np.testing.assert_array_equal([again(step) for step in (0, 3, 49, 50, 80)], [rate(s) for s in (0, 3, 49, 50, 80)])
    np.testing.assert_allclose([rate(49), rate(50), rate(80)], [0.1, 0.01, 0.001], rtol=1e-6)


def test_unknown_decay_method():
    with pytest.raises(ValueError, match="unknown lr_decay_method 'linear'; use one of cosine"):
        LearningRate("linear", 0.1, total_steps=10)


def apply(optimizer, variable, gradient, *, rate=0.1, step=0, apply_update=True):
    optimizer.apply(
        [tf.constant(gradient, tf.float32)],
        [variable],
        rate=tf.constant(rate),
        step=tf.constant(step, tf.int64),
        apply_update=tf.constant(apply_update),
    )


def test_sgd_golden():
    """By hand: gradients 1, 1, 2 and momentum 0.5 give m = 1, 1.5, 2.75; w -= rate * m, without Nesterov."""
    variable, values = tf.Variable([0.0], name="a/kernel"), []
    sgd = Sgd([variable], 0.5)
    for step, (gradient, rate) in enumerate([(1.0, 0.1), (1.0, 0.2), (2.0, 0.01)]):
        apply(sgd, variable, [gradient], rate=rate, step=step)
        values.append(float(variable[0]))
    np.testing.assert_allclose(values, [-0.1, -0.1 - 0.3, -0.4 - 0.0275], rtol=1e-6)
    (accumulator,) = sgd.slots[variable.ref()]
    np.testing.assert_allclose(accumulator, [2.75], rtol=1e-6)
    assert accumulator.name == "a/kernel/Momentum:0" and not accumulator.trainable


def test_adam_golden():
    """Reference in float64: w -= rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(v) + epsilon)."""
    gradients, rates = [[1.0, -3.0], [0.5, 1e-6], [-2.0, 0.0], [4.0, 1e-7]], [0.1, 0.2, 0.05, 0.3]
    variable = tf.Variable([1.0, 2.0], name="a/kernel")
    adam = Adam([variable], 0.8)
    expected, mean, square = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    for step, (gradient, rate) in enumerate(zip(gradients, rates)):
        apply(adam, variable, gradient, rate=rate, step=step)
        mean = 0.8 * mean + 0.2 * np.array(gradient)
        square = 0.999 * square + 0.001 * np.array(gradient) ** 2
        step_size = rate * math.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.8 ** (step + 1))
        expected = expected - step_size * mean / (np.sqrt(square) + 1e-7)
        np.testing.assert_allclose(variable, expected, rtol=1e-4)
    for slot, values, name in zip(adam.slots[variable.ref()], (mean, square), ("Adam", "Adam_1")):
        np.testing.assert_allclose(slot, values, rtol=1e-4)
        assert slot.name == f"a/kernel/{name}:0"


def test_adamw_golden():
    """Reference in float64, of kernels and of another variable: w -= rate * (step of Adam + weight_decay * w)."""
    gradients, rates = [[1.0, -3.0], [0.5, 1e-6], [-2.0, 0.0], [4.0, 1e-7]], [0.1, 0.2, 0.05, 0.3]
    kernel, bias = (tf.Variable([1.0, 2.0], name=name) for name in ("a/kernel", "a/bias"))
    adamw = AdamW([kernel, bias], 0.8, weight_decay=0.25, kernels=[kernel])
    weights, decay = np.array([[1.0, 2.0], [1.0, 2.0]]), np.array([[0.25], [0.0]])
    mean, square = np.zeros(2), np.zeros(2)
    for step, (gradient, rate) in enumerate(zip(gradients, rates)):
        adamw.apply(
            [tf.constant(gradient)] * 2,
            [kernel, bias],
            rate=tf.constant(rate),
            step=tf.constant(step, tf.int64),
            apply_update=tf.constant(True),
        )
        mean = 0.8 * mean + 0.2 * np.array(gradient)
        square = 0.999 * square + 0.001 * np.array(gradient) ** 2
        direction = mean / (1 - 0.8 ** (step + 1)) / (np.sqrt(square / (1 - 0.999 ** (step + 1))) + 1e-7)
        weights = weights - rate * (direction + decay * weights)
        np.testing.assert_allclose([kernel, bias], weights, rtol=1e-4)
    assert [slot.name for slot in adamw.slots[kernel.ref()]] == ["a/kernel/Adam:0", "a/kernel/Adam_1:0"]


def test_adamw_keeps_the_kernels_of_a_skipped_update():
    kernel = tf.Variable(np.random.RandomState(1).randn(50), dtype=tf.float32)
    adamw = AdamW([kernel], 0.9, weight_decay=0.1, kernels=[kernel])
    before = kernel.numpy()
    apply(adamw, kernel, np.zeros(50), apply_update=False)
    np.testing.assert_array_equal(kernel, before)
    apply(adamw, kernel, np.zeros(50))
    np.testing.assert_allclose(kernel, 0.99 * before, rtol=1e-6)  # rate 0.1 * decay 0.1


@pytest.mark.parametrize(
    "name, reference",
    [
        ("sgd", lambda: keras.optimizers.SGD(0.1, momentum=0.9)),  # equal only for a constant rate
        ("adam", lambda: keras.optimizers.Adam(0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-7)),
        ("adamw", lambda: keras.optimizers.AdamW(0.1, weight_decay=0, beta_1=0.9, beta_2=0.999, epsilon=1e-7)),
    ],
)
def test_optimizers_agree_with_those_of_keras(name, reference):
    rng = np.random.RandomState(0)
    ours, theirs = (tf.Variable(np.ones((3, 2)), dtype=tf.float32) for _ in range(2))
    optimizer, reference = OPTIMIZERS[name]([ours], 0.9), reference()
    for step in range(20):
        gradient = rng.randn(3, 2).astype(np.float32)
        apply(optimizer, ours, gradient, step=step)
        reference.apply_gradients([(tf.constant(gradient), theirs)])
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_skipped_update_changes_no_bit(name):
    variable = tf.Variable(np.random.RandomState(1).randn(50), dtype=tf.float32)
    optimizer = OPTIMIZERS[name]([variable], 0.9)
    for step in range(3):
        apply(optimizer, variable, np.random.RandomState(step).randn(50), step=step)
    state = [variable, *optimizer.slots[variable.ref()]]
    before = [part.numpy() for part in state]
    apply(optimizer, variable, np.zeros(50), step=3, apply_update=False)
    for part, values in zip(state, before):
        np.testing.assert_array_equal(part, values)
        assert np.any(values)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_may_update_some_of_its_variables(name):
    variables = [tf.Variable([1.0], name=part) for part in ("a", "b")]
    optimizer = OPTIMIZERS[name](variables, 0.9)
    apply(optimizer, variables[1], [1.0])
    np.testing.assert_allclose(tf.concat(variables, 0), [1.0, 0.9], rtol=1e-5)
    assert not any(np.any(slot) for slot in optimizer.slots[variables[0].ref()])


@pytest.mark.parametrize(
    "gradients, norm, expected, expected_norm",
    [
        ([[3.0, 4.0], [0.3]], 10.0, [[3, 4], [0.3]], math.hypot(5, 0.3)),  # below both limits
        ([[30.0, 40.0]], 10.0, [[6, 8]], 10.0),  # one gradient, clipped to norm 10
        # Both are clipped to norm 10, then the global norm 10 * sqrt(2) to 10.
        ([[300.0, 400.0], [0.0, 10.0]], 10.0, [[6 / 2**0.5, 8 / 2**0.5], [0, 10 / 2**0.5]], 10.0),
        ([[300.0, 400.0]], None, [[300, 400]], 500.0),
        ([[300.0, 400.0]], 0.0, [[300, 400]], 500.0),
    ],
)
def test_clip_gradients_golden(gradients, norm, expected, expected_norm):
    clipped = clip_gradients([tf.constant(gradient) for gradient in gradients], norm)
    for gradient, values in zip(clipped.gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, values, rtol=1e-6)
    np.testing.assert_allclose(clipped.norm, expected_norm, rtol=1e-6)
    np.testing.assert_allclose(clipped.norms, [np.linalg.norm(gradient) for gradient in gradients], rtol=1e-6)
    assert clipped.finite


@pytest.mark.parametrize("norm", [10.0, None])
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_non_finite_gradients_become_zeros(bad, norm):
    clipped = clip_gradients([tf.constant([3.0, 4.0]), tf.constant([[1.0, bad]]), tf.constant(2.0)], norm)
    assert not clipped.finite
    for gradient, shape in zip(clipped.gradients, [(2,), (1, 2), ()], strict=True):
        np.testing.assert_array_equal(gradient, np.zeros(shape))
    np.testing.assert_array_equal(np.isfinite(clipped.norms), [True, False, True])


def test_gradients_of_zero_stay_zero():
    clipped = clip_gradients([tf.zeros([2]), tf.zeros([])], 10.0)
    assert clipped.finite and clipped.norm == 0 and not any(np.any(gradient) for gradient in clipped.gradients)


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


@pytest.mark.parametrize("horizon, decay, age", [
    (0.1, 0.9998, [10, 40]),
    (0.02, 0.9998, [2, 8]),
    (0.1, 0.9, [9, 9]),  # the decay limits the age: 0.9 / (1 - 0.9)
])  # fmt: skip
def test_moving_average_over_a_fraction_of_the_steps(horizon, decay, age):
    """The age of the average, in steps, after 100 and 400 steps of a variable that counts them."""
    variable = tf.Variable(0.0)
    average = MovingAverage([variable], decay, horizon)
    update = tf.function(average.update)
    ages = {}
    for step in range(1, 401):
        variable.assign(step)
        update(tf.constant(step))
        ages[step] = step - float(average.averages[0])
    np.testing.assert_allclose([ages[100], ages[400]], age, rtol=0.1)


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
        # Addons counts steps from 0.
        average.update(tf.constant(step - 1))
        np.testing.assert_allclose(average.averages[0], reference.get_slot(theirs, "average"), rtol=1e-5, atol=1e-7)


def test_a_moving_average_without_an_update_changes_no_bit():
    variable = tf.Variable([0.1, 0.2])
    average = MovingAverage([variable], 0.9)
    before = average.averages[0].numpy()
    variable.assign([math.pi, math.e])
    average.update(tf.constant(5), tf.constant(False))
    np.testing.assert_array_equal(average.averages[0], before)
    average.update(tf.constant(5), tf.constant(True))
    assert np.all(average.averages[0] != before)


@pytest.fixture(scope="module")
def net(tiny_config):
    return EfficientDetNet(tiny_config)


def frozen_names(net, expression):
    frozen = frozen_variables(net, expression)
    return {variable.name for variable in net.weights if variable.ref() in frozen}


def test_no_expression_freezes_nothing(net):
    assert frozen_variables(net, None) == set()


@pytest.mark.parametrize("expression", ["efficientnet", "(efficientnet-lite0|class_net)", "fpn_cells/cell_0/fnode0"])
def test_frozen_variables_include_statistics(net, expression):
    starts = tuple(expression.strip("()").split("|"))
    frozen = frozen_names(net, expression)
    assert frozen == {variable.name for variable in net.weights if variable.name.startswith(starts)}
    assert {name.rsplit("/", 1)[-1] for name in frozen} >= {"gamma:0", "moving_mean:0", "moving_variance:0"}


def test_an_expression_may_match_the_end_of_a_name(net):
    assert frozen_names(net, ".*/class-predict/bias:0$") == {"class_net/class-predict/bias:0"}


@pytest.mark.parametrize("expression", [".*", "", "[a-z]"])
def test_freezing_everything_is_rejected(net, expression):
    with pytest.raises(ValueError, match="matches every variable; nothing is left to train"):
        frozen_variables(net, expression)


@pytest.mark.parametrize(
    "expression, similar",
    [
        ("net/class-predict", "class_net/class-predict/"),  # in the middle of a name
        ("fpn_cells/cell_7/fnode0", "fpn_cells/cell_0/fnode0/"),  # this model has no such cell
        ("efficientnet-b0/stem", "efficientnet-lite0/stem/"),
        (".*moving_mean", ""),  # only statistics, which are not trainable
    ],
)
def test_freezing_nothing_is_rejected_with_similar_names(net, expression, similar):
    with pytest.raises(ValueError, match="matches no trainable variable from the start of its name") as error:
        frozen_variables(net, expression)
    message = str(error.value)
    assert "names begin with efficientnet-lite0, resample_p6, fpn_cells, class_net, box_net, such as " in message
    suggested = message.split("such as ")[1].split(", ")
    assert len(suggested) == 3 and all(name.startswith(similar) for name in suggested)
    assert set(suggested) <= {variable.name for variable in net.trainable_variables}


def test_invalid_regular_expression(net):
    with pytest.raises(ValueError, match=r"var_freeze_expr '\(stem' is not a regular expression: missing \)"):
        frozen_variables(net, "(stem")
