# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""trainer: published losses and gradients, and what a step, a save and a resume do to the state."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from dataset.dataloader import InputReader
from efficientdet import config as config_lib
from efficientdet.model import build_anchors
from efficientdet.targets import AnchorLabeler
from testdata import reference_weights
from tf2 import checkpoint, optimizer
from tf2.trainer import Trainer

ROOT = pathlib.Path(__file__).parents[1]
TRAIN = ROOT.parent / "shared" / "reference" / "train.npz"
SETTINGS = {
    "default": "",
    "label_smoothing": "label_smoothing=0.1",
    "ciou": "iou_loss_type=ciou",
    "gamma2_delta1": "gamma=2.0,alpha=0.5,delta=1.0",
}
# Of the three published images: boxes in pixels of 256 x 256, and classes.
GROUNDTRUTH = [
    (
        [[30, 40, 120, 200], [10, 10, 60, 50], [100, 120, 250, 250], [5, 180, 40, 240], [140, 8, 180, 30]],
        [1, 17, 90, 3, 44],
    ),
    ([[64, 64, 192, 192]], [62]),
    ([], []),
]


@pytest.fixture(scope="module")
def batch(tiny_config):
    """A batch of two images that no augmentation changes."""
    config = tiny_config.override({"input_rand_hflip": False, "jitter_min": 1.0, "jitter_max": 1.0})
    reader = InputReader(str(ROOT / "testdata" / "sample.tfrecord"), config)
    return next(iter(reader.training(2, seed=4, num_examples=8)))


@pytest.fixture(scope="module")
def config(tiny_config):
    return tiny_config.override(
        {"learning_rate": 0.5, "lr_decay_method": "constant", "moving_average_decay": 0.99, "weight_decay": 0.01}
    )


@pytest.fixture(scope="module")
def trained(config, batch):
    """A trainer after three steps, the weights it began with, and the metrics of every step."""
    trainer = Trainer(config, batch_size=2, steps_per_epoch=10)
    before = {name: variable.numpy() for name, variable in checkpoint.named_variables(trainer.net).items()}
    step = trainer.train_step.python_function  # compiling takes longer than three steps
    metrics = [{name: float(value) for name, value in step(*batch).items()} for _ in range(3)]
    return trainer, before, metrics


@pytest.fixture(scope="module")
def wider(config):
    """A trainer of four classes instead of three."""
    return Trainer(config.override({"num_classes": 4}), batch_size=2, steps_per_epoch=10)


@pytest.mark.slow
def test_the_loss_falls_when_a_batch_repeats(config, batch):
    keras.utils.set_random_seed(1)
    trainer = Trainer(config.override({"optimizer": "adam"}), batch_size=2, steps_per_epoch=10)
    losses = [float(trainer.train_step(*batch)["det_loss"]) for _ in range(25)]
    assert np.all(np.isfinite(losses)) and np.mean(losses[-3:]) < 0.5 * losses[0]


def test_the_parts_of_the_loss_add_up(trained, config):
    trainer, before, metrics = trained
    for step in metrics:
        np.testing.assert_allclose(step["det_loss"], step["cls_loss"] + 50 * step["box_loss"], rtol=1e-5)
        np.testing.assert_allclose(step["loss"], step["det_loss"] + step["reg_l2_loss"], rtol=1e-5)
        assert 0 < step["gradient_norm"] <= 10 * (1 + 1e-6)
        np.testing.assert_allclose(step["learning_rate"], 0.5 * 2 / 64, rtol=1e-6)
    kernels = [value for name, value in before.items() if name.endswith(("kernel", "weight"))]
    expected = config.weight_decay / 2 * sum(np.sum(np.square(kernel, dtype=np.float64)) for kernel in kernels)
    np.testing.assert_allclose(metrics[0]["reg_l2_loss"], expected, rtol=1e-4)
    assert trainer.step == 3


def test_weight_decay_is_for_kernels_alone(trained):
    trainer, _, _ = trained
    names = {checkpoint.official_name(variable) for variable in trainer.kernels}
    everything = {checkpoint.official_name(variable) for variable in trainer.net.trainable_variables}
    assert {name.rsplit("/", 1)[-1] for name in names} == {"kernel", "depthwise_kernel", "pointwise_kernel"}
    assert {name.rsplit("/", 1)[-1].rstrip("_0123456789") for name in everything - names} == {
        "bias",
        "gamma",
        "beta",
        "WSM",
    }


def test_a_step_moves_weights_statistics_and_averages(trained):
    trainer, before, _ = trained
    weights = checkpoint.named_variables(trainer.net)
    unchanged = [name for name, variable in weights.items() if np.array_equal(variable, before[name])]
    # Biases before a batch norm cancel out, and WSM has no gradient where both inputs are alike: but most move.
    assert len(unchanged) < 0.1 * len(weights), unchanged
    assert "stem/tpu_batch_normalization/moving_mean" in " ".join(set(weights) - set(unchanged))
    averaged = dict(zip(map(checkpoint.official_name, trainer.average.variables), trainer.average.averages))
    assert averaged.keys() == weights.keys()
    kernel = "class_net/class-predict/pointwise_kernel"
    assert not np.array_equal(averaged[kernel], weights[kernel])
    assert not np.array_equal(averaged[kernel], before[kernel])
    with trainer.evaluated():
        evaluated = weights[kernel].numpy()
    np.testing.assert_array_equal(evaluated, averaged[kernel])
    assert not np.array_equal(evaluated, weights[kernel])


def test_save_and_resume_restore_every_variable(trained, config, tmp_path):
    trainer, _, _ = trained
    prefix = trainer.save(str(tmp_path), {"seed": np.int64(7)})
    assert prefix.endswith("model.ckpt-3") and checkpoint.latest(str(tmp_path)) == prefix
    other = Trainer(config, batch_size=2, steps_per_epoch=10)
    assert other.step == 0
    assert other.resume(prefix) == {"seed": 7}
    assert other.step == 3
    ours, theirs = other._state(), trainer._state()
    assert ours.keys() == theirs.keys()
    num_weights, num_trainable = len(trainer.net.weights), len(trainer.net.trainable_variables)
    assert len(ours) == 2 * num_weights + num_trainable + 1  # weights, averages, momenta, the step
    for name, variable in ours.items():
        np.testing.assert_array_equal(variable, theirs[name], err_msg=name)


def test_evaluation_reads_the_averages_of_a_saved_training(trained, tmp_path):
    trainer, _, _ = trained
    prefix = trainer.save(str(tmp_path), {})
    loaded = checkpoint.read(prefix, [])
    assert loaded.averaged and loaded.values.keys() == checkpoint.named_variables(trainer.net).keys()
    for variable, average in zip(trainer.average.variables, trainer.average.averages):
        np.testing.assert_array_equal(loaded.values[checkpoint.official_name(variable)], average)


def test_resume_of_another_network_is_refused(trained, wider, tmp_path):
    prefix = trained[0].save(str(tmp_path), {})
    lacks = (
        r"it holds \[1, 1, 8, 27\] for class_net/class-predict/pointwise_kernel, this training needs \[1, 1, 8, 36\]"
    )
    with pytest.raises(checkpoint.CheckpointError, match=lacks) as error:
        wider.resume(prefix)
    assert str(error.value).endswith(f"or start anew in another --model_dir with --ckpt={prefix}")


def test_resume_with_another_optimizer_is_refused(trained, config, tmp_path):
    prefix = trained[0].save(str(tmp_path), {})
    other = Trainer(config.override({"optimizer": "adam"}), batch_size=2, steps_per_epoch=10)
    with pytest.raises(checkpoint.CheckpointError, match=r"it holds nothing for .*/Adam/m, this training needs"):
        other.resume(prefix)


def test_start_from_takes_what_fits_and_begins_at_step_0(trained, wider, tmp_path):
    prefix = trained[0].save(str(tmp_path), {})
    weights, source = checkpoint.named_variables(wider.net), checkpoint.read(prefix, []).values
    wider.start_from(prefix)
    assert wider.step == 0
    np.testing.assert_allclose(weights["class_net/class-predict/bias"], -np.log(99), rtol=1e-5)  # as it was
    kernel = "box_net/box-predict/pointwise_kernel"
    np.testing.assert_array_equal(weights[kernel], source[kernel])
    averages = dict(zip(map(checkpoint.official_name, wider.average.variables), wider.average.averages))
    np.testing.assert_array_equal(averages[kernel], source[kernel])  # the average begins there, too


def test_start_from_stops_at_a_mismatch_where_the_config_says_so(trained, wider, tmp_path, monkeypatch):
    prefix = trained[0].save(str(tmp_path), {})
    monkeypatch.setattr(wider, "config", wider.config.override({"skip_mismatch": False}))
    with pytest.raises(checkpoint.CheckpointError, match="with num_classes 3"):
        wider.start_from(prefix)


def test_is_training_bn_false_keeps_the_statistics(config, batch):
    trainer = Trainer(
        config.override({"is_training_bn": False, "moving_average_decay": 0}), batch_size=2, steps_per_epoch=1
    )
    assert trainer.average is None
    with trainer.evaluated():
        pass
    weights = checkpoint.named_variables(trainer.net)
    before = {name: variable.numpy() for name, variable in weights.items()}
    with tf.GradientTape() as tape:
        loss = trainer.loss(*batch)["loss"]
    gamma = next(variable for name, variable in weights.items() if name.endswith("tpu_batch_normalization/gamma"))
    assert np.any(tape.gradient(loss, gamma) != 0)  # gamma and beta go on learning
    for name, variable in weights.items():
        np.testing.assert_array_equal(variable, before[name], err_msg=name)


@pytest.fixture(scope="module")
def published():
    """The published d0 with its weights, and (images, labels) of the published step; train.npz."""
    if not TRAIN.exists():
        pytest.skip(f"needs {TRAIN}")
    config = config_lib.load("efficientdet-d0", "image_size=256")
    trainer = Trainer(config, batch_size=3, steps_per_epoch=10)
    values = reference_weights.weights(np.load(ROOT / "testdata" / "efficientdet-d0.npz"))
    for name, variable in checkpoint.named_variables(trainer.net).items():
        variable.assign(values[name])
    labeler = AnchorLabeler(build_anchors(config))
    labels = [
        labeler.label(tf.reshape(tf.constant(boxes, tf.float32), [-1, 4]), tf.constant(classes, tf.int32))
        for boxes, classes in GROUNDTRUTH
    ]
    cls_targets, box_targets, num_positives = zip(*labels)
    labels = {
        "cls_targets": [tf.stack(level) for level in zip(*cls_targets)],
        "box_targets": [tf.stack(level) for level in zip(*box_targets)],
        "num_positives": tf.stack(num_positives),
    }
    images = np.stack([reference_weights.image(256, i) for i in range(3)])
    images = tf.constant((images - np.array(config.mean_rgb)) / np.array(config.stddev_rgb), tf.float32)
    return trainer, images, labels, np.load(TRAIN)


@pytest.mark.slow
@pytest.mark.both_lanes
def test_published_targets(published):
    _, _, labels, figures = published
    np.testing.assert_array_equal(labels["num_positives"], figures["default/num_positives"])
    for level, (cls_targets, box_targets) in enumerate(zip(labels["cls_targets"], labels["box_targets"]), 3):
        cls_targets, box_targets = cls_targets.numpy(), box_targets.numpy()
        positive = cls_targets >= 0
        np.testing.assert_array_equal(np.argwhere(positive), figures[f"cls_targets_{level}_positive_index"])
        np.testing.assert_array_equal(cls_targets[positive], figures[f"cls_targets_{level}_positive_value"])
        assert cls_targets.min() == figures[f"cls_targets_{level}_min"]
        np.testing.assert_array_equal(box_targets.shape, figures[f"box_targets_{level}_shape"])
        nonzero = figures[f"box_targets_{level}_nonzero"]
        np.testing.assert_allclose(box_targets[box_targets != 0], nonzero, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.both_lanes
@pytest.mark.parametrize("setting", SETTINGS)
def test_published_losses_and_gradients(published, setting):
    trainer, images, labels, figures = published
    trainer.config = config_lib.load("efficientdet-d0", f"image_size=256,{SETTINGS[setting]}".rstrip(","))

    with tf.GradientTape() as tape:
        metrics = trainer.loss(images, labels)
    gradients = tape.gradient(metrics["loss"], trainer.net.trainable_variables)
    _, clipped_norm = optimizer.clip_gradients(gradients, trainer.config.clip_gradients_norm)
    assert {f"{setting}/{name}" for name in metrics} <= set(figures.files)
    for name, value in metrics.items():
        # Of the IoU loss, the rows of all four codes agree. The others, where the code of a centre or a side is exactly
        # 0 and so does not count (13 codes of the 185 matched anchors), are published with another loss, unexplained.
        rtol = 5e-3 if name == "box_iou_loss" else 1e-4
        np.testing.assert_allclose(value, figures[f"{setting}/{name}"], rtol=rtol, err_msg=name)
    np.testing.assert_allclose(clipped_norm, figures[f"{setting}/clipped_global_grad_norm"], rtol=1e-4)
    if setting == "ciou":  # its published gradient lacks the aspect term
        return
    global_norm = figures[f"{setting}/global_grad_norm"]
    np.testing.assert_allclose(tf.linalg.global_norm(gradients), global_norm, rtol=1e-3)
    norms = [float(tf.norm(gradient)) for gradient in gradients]
    by_name = dict(zip(map(checkpoint.official_name, trainer.net.trainable_variables), norms))
    for name, norm in zip(figures[f"{setting}/grad_names"], figures[f"{setting}/grad_norms"], strict=True):
        assert abs(by_name[name] - norm) <= 1e-3 * norm + 1e-6 * global_norm, name
