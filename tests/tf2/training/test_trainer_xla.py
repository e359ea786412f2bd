# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Steps of Trainer that XLA compiles equal those without it."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from backbone import efficientnet_builder
from efficientdet import config as config_lib
from tf2.benchmarks.random_batch import random_batch
from tf2.training.trainer import Trainer

STEPS = 5
# Smooth activations, and no level with few pixels: elsewhere rounding errors grow a thousandfold in one step, with and
# without XLA.
TINY = {"image_size": 128, "fpn_num_filters": 8, "fpn_cell_repeats": 1, "box_class_repeats": 1, "num_classes": 3}
TINY |= {"max_level": 5, "act_type": "swish", "lr_decay_method": "constant", "moving_average_decay": 0.9}


@pytest.fixture
def one_block_per_stage(monkeypatch):
    """Backbones of seven blocks, which XLA compiles in a third of the time."""
    stages = [(1, first) for _, first in efficientnet_builder.STAGES]
    monkeypatch.setattr(efficientnet_builder, "STAGES", stages)


def steps(config, *, use_xla, precision="float32"):
    """The metrics of STEPS steps, and the states before the first and after the last; with XLA, the same bits twice."""
    keras.utils.set_random_seed(0)
    trainer = Trainer(config, batch_size=4, steps_per_epoch=10, seed=3, precision=precision, use_xla=use_xla)
    _, labels = random_batch(config, 4)
    images = tf.image.resize(tf.random.stateless_normal([4, 4, 4, 3], [1, 2]), config.image_size)
    before = trainer.state()

    def run():
        # train_step itself runs eagerly, which saves tracing it; its compiled part is the same.
        metrics = [trainer.train_step.python_function(images, labels) for _ in range(STEPS)]
        return [{name: float(value) for name, value in step.items()} for step in metrics], trainer.state()

    metrics, after = run()
    if use_xla:
        for name, variable in trainer.variables().items():
            variable.assign(before[name])
        repeated, state = run()
        assert repeated == metrics
        for name, value in after.items():
            np.testing.assert_array_equal(state[name], value, err_msg=name)
    return metrics, before, after


def check(model, changes, *, loss_tolerance=1e-5, weight_tolerance=1e-4):
    """Asserts that losses and states with and without XLA are equal, and change by far more than they may differ.

    Adam normalizes the gradients of biases in front of batch normalization, which consist of rounding errors, so that
    these variables differ by about half of their updates.
    """
    config = config_lib.load(model, **{**TINY, **changes})
    plain, before, after = steps(config, use_xla=False)
    compiled, compiled_before, compiled_after = steps(config, use_xla=True)
    for expected, metrics in zip(plain, compiled, strict=True):
        for name in expected.keys() - {"gradient_norm"}:
            np.testing.assert_allclose(metrics[name], expected[name], rtol=loss_tolerance, err_msg=name)
    assert plain[-1]["det_loss"] != pytest.approx(plain[0]["det_loss"], rel=100 * loss_tolerance)
    assert compiled_after.keys() == after.keys() and after["global_step"] == compiled_after["global_step"] == STEPS
    for name, value in after.items():
        np.testing.assert_array_equal(compiled_before[name], before[name], err_msg=name)
        np.testing.assert_allclose(compiled_after[name], value, rtol=0, atol=weight_tolerance, err_msg=name)
    kernels = [name for name in after if name.endswith("kernel")]
    assert max(np.abs(after[name] - before[name]).max() for name in kernels) > 5 * weight_tolerance


FAST = {
    "lite, sgd, clipping": ("efficientdet-lite0", {"learning_rate": 0.1, "clip_gradients_norm": 1.0}),
    "d, adam, drop connect, recomputation": (
        "efficientdet-d0",
        {"learning_rate": 0.0025, "optimizer": "adam", "survival_prob": 0.8, "grad_checkpoint": True},
    ),
}


@pytest.mark.parametrize("model, changes", FAST.values(), ids=FAST)
def test_steps_equal_those_without_xla(one_block_per_stage, model, changes):
    check(model, changes)


SLOW = {
    "lite, adamw, IoU loss, average of positives": (
        "efficientdet-lite0",
        {"learning_rate": 0.0025, "optimizer": "adamw", "iou_loss_type": "ciou", "positives_momentum": 0.9},
    ),
    # Frozen statistics: those of two images would amplify rounding errors. A small image, because
    # XLA has no fast convolutions on CPUs within a loop.
    "d, sgd, accumulation": (
        "efficientdet-d0",
        {"learning_rate": 1.0, "gradient_accumulation_steps": 2, "is_training_bn": False, "image_size": 64},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("model, changes", SLOW.values(), ids=SLOW)
def test_further_steps_equal_those_without_xla(one_block_per_stage, model, changes):
    check(model, changes)


@pytest.mark.slow
def test_steps_in_bfloat16_equal_those_without_xla_up_to_its_rounding(one_block_per_stage):
    """XLA keeps 32 bits between operations that it fuses; gradients of 16 bits differ by a tenth."""
    config = config_lib.load("efficientdet-lite0", **{**TINY, "learning_rate": 0.01})
    runs = [steps(config, use_xla=use_xla, precision="mixed_bfloat16") for use_xla in (False, True)]
    (plain, before, after), (compiled, _, compiled_after) = runs
    for expected, metrics in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=0.01)
    kernels = [name for name in after if name.endswith("kernel")]
    updates, expected = (
        np.concatenate([(end[k] - before[k]).ravel() for k in kernels]) for end in (compiled_after, after)
    )
    assert np.linalg.norm(updates - expected) < 0.3 * np.linalg.norm(expected)
