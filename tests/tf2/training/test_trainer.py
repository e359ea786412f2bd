# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/trainer.py: steps, skipped steps, resuming, published losses and gradients.

Most steps run eagerly, because tracing the first one takes longer than ten eager ones.
"""

import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from backbone.layers import BatchNormalization
from efficientdet import config as config_lib
from efficientdet.anchors import concat_levels
from efficientdet.losses import box_iou_loss
from efficientdet.model import build_anchors
from efficientdet.targets import AnchorLabeler
from testdata import reference_weights
from tf2.training import optimizer, skipped_steps
from tf2.training.model_dir import ModelDir
from tf2.training.trainer import Trainer
from tf2.weights import checkpoint

ROOT = pathlib.Path(__file__).parents[3]
SETTINGS = {
    "default": "",
    "label_smoothing": "label_smoothing=0.1",
    "ciou": "iou_loss_type=ciou",
    "gamma2_delta1": "gamma=2.0,alpha=0.5,delta=1.0",
}
# Boxes, in pixels of 256 x 256, and classes of the three images of train.npz.
GROUNDTRUTH = [
    (
        [[30, 40, 120, 200], [10, 10, 60, 50], [100, 120, 250, 250], [5, 180, 40, 240], [140, 8, 180, 30]],
        [1, 17, 90, 3, 44],
    ),
    ([[64, 64, 192, 192]], [62]),
    ([], []),
]


@pytest.fixture(scope="module")
def config(tiny_config):
    return tiny_config.override(
        {"learning_rate": 0.5, "lr_decay_method": "constant", "moving_average_decay": 0.99, "weight_decay": 0.01}
    )


@pytest.fixture(scope="module")
def batch(config):
    """A batch of two images, (images, labels) as from InputReader."""
    labeler = AnchorLabeler(build_anchors(config))
    groundtruth = [([[4.0, 4, 40, 50], [30, 30, 60, 62]], [1, 3]), ([[0.0, 0, 20, 20]], [2])]
    images = tf.random.stateless_normal([2, 8, 8, 3], [1, 2])  # resized, because the deep features of noise hardly vary
    return tf.image.resize(images, config.image_size), stacked(label(labeler, *objects) for objects in groundtruth)


@pytest.fixture(scope="module")
def trained(config, batch):
    """A trainer after three steps, the states before and after each step, and the metrics of the steps."""
    trainer = Trainer(config, batch_size=2, steps_per_epoch=10, seed=12)
    states, metrics = [trainer.state()], []
    for _ in range(3):
        metrics.append(eager_step(trainer, batch))
        states.append(trainer.state())
    return trainer, states, metrics


@pytest.fixture(scope="module")
def another(config):
    """A second trainer with the same config."""
    return Trainer(config, batch_size=2, steps_per_epoch=10, seed=12)


@pytest.fixture
def trainer(another, config, trained):
    """The second trainer, in the initial state of the trained one."""
    another.config, another.seed = config, 12
    another.resume("", trained[1][0])
    return another


@pytest.fixture(scope="module")
def wider(config):
    """A trainer with four classes instead of three."""
    return Trainer(config.override({"num_classes": 4}), batch_size=2, steps_per_epoch=10)


def eager_step(trainer, batch):
    metrics = trainer.train_step.python_function(*batch)
    return {name: float(value) for name, value in metrics.items()}


def changed(before, after):
    assert before.keys() == after.keys()
    return {name for name, value in after.items() if not np.array_equal(value, before[name], equal_nan=True)}


def assert_states_close(ours, theirs, tolerance):
    """Compares states; the tolerance of each entry is relative to its largest value."""
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        atol = tolerance * (1e-3 + np.abs(theirs[name]).max())
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=atol, err_msg=name)


def stacked(labels):
    """Stacks the (cls_targets, box_targets, num_positives) of images to the labels of a batch."""
    cls_targets, box_targets, num_positives = zip(*labels)
    return {
        "cls_targets": tuple(tf.stack(level) for level in zip(*cls_targets)),
        "box_targets": tuple(tf.stack(level) for level in zip(*box_targets)),
        "num_positives": tf.stack(num_positives),
    }


# A training step.


@pytest.mark.slow
def test_the_loss_of_a_repeated_batch_decreases(config, batch):
    keras.utils.set_random_seed(1)
    trainer = Trainer(config.override({"optimizer": "adam"}), batch_size=2, steps_per_epoch=10)
    losses = [float(trainer.train_step(*batch)["det_loss"]) for _ in range(25)]
    assert np.all(np.isfinite(losses)) and np.mean(losses[-3:]) < 0.5 * losses[0]


def test_loss_components_add_up(trained, config):
    trainer, states, metrics = trained
    for step in metrics:
        np.testing.assert_allclose(step["det_loss"], step["cls_loss"] + 50 * step["box_loss"], rtol=1e-5)
        np.testing.assert_allclose(step["loss"], step["det_loss"] + step["reg_l2_loss"], rtol=1e-5)
        assert 0 < step["gradient_norm"] <= 10 * (1 + 1e-6) and step["skipped_steps"] == 0
        np.testing.assert_allclose(step["learning_rate"], 0.5 * 2 / 64, rtol=1e-6)
    np.testing.assert_allclose(metrics[0]["reg_l2_loss"], decay(states[0], trainer, config), rtol=1e-4)
    assert trainer.step == 3


def decay(state, trainer, config, frozen=()):
    """Returns the weight decay loss, computed in float64."""
    names = [checkpoint.official_name(variable) for variable in trainer.net.trainable_variables]
    kernels = [name for name in names if name.endswith(("kernel", "weight")) and not name.startswith(frozen)]
    return config.weight_decay / 2 * sum(np.sum(np.square(state[name], dtype=np.float64)) for name in kernels)


def test_weight_decay_applies_to_kernels_only(trained):
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


def test_a_step_updates_weights_statistics_and_averages(trained):
    trainer, states, _ = trained
    weights = checkpoint.named_variables(trainer.net)
    unchanged = weights.keys() - changed(states[0], states[3])
    # Biases before batch normalization have no effect, and WSM has no gradient if both inputs are equal.
    assert len(unchanged) < 0.1 * len(weights), unchanged
    assert "stem/tpu_batch_normalization/moving_mean" in " ".join(weights.keys() - unchanged)
    kernel = "class_net/class-predict/pointwise_kernel"
    # Decays (1 + step) / (10 + step) after steps 1, 2 and 3.
    average = states[0][kernel].astype(np.float64)
    for step in (1, 2, 3):
        average += (1 - (1 + step) / (10 + step)) * (states[step][kernel] - average)
    np.testing.assert_allclose(states[3][kernel + checkpoint.AVERAGE], average, rtol=1e-5, atol=1e-7)
    evaluated = checkpoint.named_variables(trainer.evaluated_net())
    assert evaluated.keys() == weights.keys()
    for name, variable in evaluated.items():
        np.testing.assert_array_equal(variable, states[3][name + checkpoint.AVERAGE], err_msg=name)
    assert trainer.evaluated_net() is trainer.evaluated_net() is not trainer.net
    raw = trainer.evaluated_net(averaged=False)
    assert raw is trainer.evaluated_net(averaged=False)
    for name, variable in checkpoint.named_variables(raw).items():
        np.testing.assert_array_equal(variable, states[3][name], err_msg=name)


def test_batch_norm_momentum_and_moving_average_horizon(config, trained, batch):
    _, states, _ = trained
    changes = {"batch_norm_momentum": 0.5, "moving_average_horizon": 0.5}
    trainer = Trainer(config.override(changes), batch_size=2, steps_per_epoch=10, seed=12)
    trainer.resume("before", states[0])
    eager_step(trainer, batch)
    for name, value in trainer.state().items():
        before, after = (state[name].astype(np.float64) for state in states[:2])
        if name.endswith(("/moving_mean", "/moving_variance")):
            # The change is (1 - momentum) times the difference to the batch.
            np.testing.assert_allclose(value, before + 50 * (after - before), rtol=1e-2, atol=1e-4, err_msg=name)
        elif name.endswith(("kernel" + checkpoint.AVERAGE, "beta" + checkpoint.AVERAGE)):
            weight = name.removesuffix(checkpoint.AVERAGE)  # decay (1 + 1) / (2 + 1), as for 0.1 2 / 11
            expected = states[0][weight] + (states[1][weight] - states[0][weight]) / 3
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6, err_msg=name)
        elif not name.endswith(checkpoint.AVERAGE):
            np.testing.assert_array_equal(value, states[1][name], err_msg=name)


def test_without_moving_averages_the_weights_are_evaluated(config):
    trainer = Trainer(config.override({"moving_average_decay": 0}), batch_size=2, steps_per_epoch=1)
    assert trainer.average is None and not any(name.endswith(checkpoint.AVERAGE) for name in trainer.state())
    for variable, evaluated in zip(trainer.net.weights, trainer.evaluated_net().weights, strict=True):
        np.testing.assert_array_equal(evaluated, variable)


def test_frozen_normalization_keeps_its_statistics(trainer, batch):
    for layer in (norms := [layer for layer in trainer.net.submodules if isinstance(layer, BatchNormalization)]):
        layer.batch_statistics = False
    before, weights = trainer.state(), checkpoint.named_variables(trainer.net)
    gamma = next(variable for name, variable in weights.items() if name.endswith("tpu_batch_normalization/gamma"))
    with tf.GradientTape() as tape:
        loss = trainer.loss(*batch, normalizer=22.0)["loss"]
    assert np.any(tape.gradient(loss, gamma) != 0)  # gamma and beta are still trained
    assert not changed(before, trainer.state())
    for layer in norms:
        layer.batch_statistics = True


@pytest.mark.parametrize("iou_loss_type, label_smoothing", [(None, 0.1), ("iou", 0), ("giou", 0), ("ciou", 0.1)])
def test_metric_names_lists_the_metrics_of_every_loss(trainer, batch, iou_loss_type, label_smoothing):
    changes = {"iou_loss_type": iou_loss_type, "label_smoothing": label_smoothing, "iou_loss_weight": 2.0}
    trainer.config = trainer.config.override(changes)
    metrics = eager_step(trainer, batch)
    parts = ["cls_loss", "box_loss", *(["box_iou_loss"] if iou_loss_type else []), "det_loss", "reg_l2_loss", "loss"]
    assert tuple(metrics) == trainer.metric_names == (*parts, "gradient_norm", "learning_rate", "skipped_steps")
    assert np.all(np.isfinite(list(metrics.values()))) and metrics["skipped_steps"] == 0
    iou_loss = metrics.get("box_iou_loss", 0.0)
    assert bool(iou_loss > 0) == bool(iou_loss_type)
    expected = metrics["cls_loss"] + 50 * metrics["box_loss"] + 2 * iou_loss
    np.testing.assert_allclose(metrics["det_loss"], expected, rtol=1e-5)


def test_positives_momentum(trainer, trained, batch):
    """From 0, with momentum 0.75 and a constant number of positives: 1/4, 7/16 and 37/64 of it."""
    trainer.config = trainer.config.override({"positives_momentum": 0.75})
    first, plain = eager_step(trainer, batch), trained[2][0]
    for name in ("cls_loss", "box_loss"):
        np.testing.assert_allclose(first[name], plain[name] * 4, rtol=1e-5)
    averages = [trainer.state()["training/positives_average"]]
    for _ in range(2):
        eager_step(trainer, batch)
        averages.append(trainer.state()["training/positives_average"])
    normalizer = np.sum(batch[1]["num_positives"]) + 1
    np.testing.assert_allclose(averages, normalizer * np.array([1 / 4, 7 / 16, 37 / 64]), rtol=1e-6)


def test_a_negative_positives_momentum_disables_averaging(trainer, trained, batch):
    trainer.config = trainer.config.override({"positives_momentum": -1})
    assert eager_step(trainer, batch) == trained[2][0]
    assert not changed(trained[1][1], trainer.state())


# Skipped steps.


# The entries that a skipped step changes.
COUNTERS = {"global_step", "training/skipped_steps", "training/skipped_in_a_row"}


def bad_images(images, labels):
    return tf.fill(images.shape, np.inf), labels


def bad_boxes(images, labels):
    return images, {**labels, "box_targets": [tf.fill(level.shape, np.nan) for level in labels["box_targets"]]}


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_non_finite_loss_changes_counters_only(request, batch, name):
    trainer = request.getfixturevalue("trainer" if name == "sgd" else name)
    trainer.config = trainer.config.override({"positives_momentum": 0.5})
    eager_step(trainer, batch)
    before = trainer.state()
    parts = ("cls_loss and box_loss and det_loss", "box_loss and det_loss")
    for i, (spoil, losses) in enumerate(zip((bad_images, bad_boxes), parts), 1):
        metrics = eager_step(trainer, spoil(*batch))
        assert trainer.skipped_steps.num_in_a_row() == metrics["skipped_steps"] == i
        cause = f"{losses} are not finite (most likely learning_rate is too high"
        assert trainer.skipped_steps.cause(metrics, trainer.trained).startswith(cause)
    after = trainer.state()
    assert changed(before, after) == COUNTERS and after["global_step"] == before["global_step"] + 2
    metrics = eager_step(trainer, batch)
    assert trainer.skipped_steps.num_in_a_row() == 0 and metrics["skipped_steps"] == 2 and np.isfinite(metrics["loss"])
    assert len(changed(after, trainer.state())) > 0.8 * len(after)


@pytest.fixture(scope="module")
def adam(config):
    return Trainer(config.override({"optimizer": "adam"}), batch_size=2, steps_per_epoch=10)


@pytest.fixture(scope="module")
def adamw(config):
    return Trainer(config.override({"optimizer": "adamw", "weight_decay": 0.1}), batch_size=2, steps_per_epoch=10)


def test_adamw_decays_kernels_by_the_rate_and_not_in_the_loss(adam, adamw, batch, monkeypatch):
    """Relative to Adam without L2 loss, a step shrinks kernels by rate * weight_decay, and nothing else."""
    adamw.resume("", adam.state())
    monkeypatch.setattr(adam, "config", adam.config.override({"weight_decay": 0}))
    before, metrics = adamw.state(), [eager_step(trainer, batch) for trainer in (adam, adamw)]
    assert metrics[0] == metrics[1] and metrics[1]["reg_l2_loss"] == 0
    ours, theirs, share = adamw.state(), adam.state(), 0.1 * 0.5 * 2 / 64
    kernels = {checkpoint.official_name(variable) for variable in adamw.kernels}
    assert changed(theirs, ours) == kernels | {name + checkpoint.AVERAGE for name in kernels}
    for name in kernels:
        np.testing.assert_allclose(ours[name], theirs[name] - share * before[name], rtol=1e-4, atol=1e-7, err_msg=name)


def test_a_non_finite_gradient_is_reported_with_its_variable(trainer, batch, monkeypatch):
    variable = next(v for v in trainer.trained if v.name == "class_net/class-predict/bias:0")
    loss = trainer.loss

    def with_infinite_gradient(*args, **options):
        parts = loss(*args, **options)
        return {**parts, "loss": parts["loss"] + tf.sqrt(tf.reduce_sum(0 * variable))}  # sqrt(0): infinite slope

    before = trainer.state()
    monkeypatch.setattr(trainer, "loss", with_infinite_gradient)
    metrics = eager_step(trainer, batch)
    assert np.isfinite(metrics["loss"])
    assert changed(before, trainer.state()) == COUNTERS
    cause = f"the gradient of class_net/class-predict/bias:0 is not finite, while the loss is {metrics['loss']:.4g} "
    assert trainer.skipped_steps.cause(metrics, trainer.trained).startswith(cause)


# Drop connect, save and resume.


def test_a_resumed_training_takes_the_same_steps(trained, trainer, batch, tmp_path):
    """Bit for bit, including drop connect, which depends on seed and step only."""
    _, states, metrics = trained
    prefix = ModelDir(str(tmp_path)).save(1, states[1])
    assert trainer.net.num_draws == 16
    trainer.resume(prefix, checkpoint.read_entries(prefix))
    assert trainer.step == 1
    assert not changed(states[1], trainer.state())
    assert [eager_step(trainer, batch) for _ in range(2)] == metrics[1:]
    assert not changed(states[3], trainer.state())


def test_drop_connect_depends_on_the_seed(trained, trainer, batch):
    trainer.seed = 13
    assert eager_step(trainer, batch)["det_loss"] != trained[2][0]["det_loss"]


def test_state_has_weights_averages_momenta_and_counters(trained):
    trainer, states, _ = trained
    num_weights, num_trainable = len(trainer.net.weights), len(trainer.net.trainable_variables)
    counters = ["global_step", *(f"training/{name}" for name in ("skipped_steps", "skipped_in_a_row"))]
    counters.append("training/positives_average")
    assert counters == [name for name in states[3] if "/" not in name or name.startswith("training/")]
    assert len(states[3]) == 2 * num_weights + num_trainable + len(counters)
    assert "class_net/class-predict/bias/Momentum" in states[3] and states[3]["global_step"].dtype == np.int64
    assert trainer.num_bytes() == sum(value.nbytes for value in states[3].values())


def test_evaluation_reads_the_averages_of_a_checkpoint(trained, tmp_path):
    _, states, _ = trained
    loaded = checkpoint.read(ModelDir(str(tmp_path)).save(3, states[3]), [])
    assert loaded.averaged and loaded.values.keys() == checkpoint.named_variables(trained[0].net).keys()
    for name, value in loaded.values.items():
        np.testing.assert_array_equal(value, states[3][name + checkpoint.AVERAGE])


def test_resuming_with_another_network_is_rejected(trained, wider):
    name, before = "class_net/class-predict/pointwise_kernel", wider.state()
    message = rf"it has shape \[1, 1, 8, 27\] for {name}, expected shape \[1, 1, 8, 36\]"
    with pytest.raises(checkpoint.CheckpointError, match=message) as error:
        wider.resume("some/model.ckpt-3", trained[1][3])
    assert str(error.value).endswith("or start a new one in another --model_dir with --ckpt=some/model.ckpt-3")
    assert not changed(before, wider.state())


def test_resuming_with_another_optimizer_is_rejected(trained, adam):
    with pytest.raises(checkpoint.CheckpointError, match=r"it has no entry for .*/Adam, expected shape"):
        adam.resume("model.ckpt-3", trained[1][3])


def test_start_from_loads_matching_variables_and_starts_at_step_0(trained, wider, tmp_path):
    prefix = ModelDir(str(tmp_path)).save(3, trained[1][3])
    source = checkpoint.read(prefix, []).values
    wider.start_from(prefix)
    assert wider.step == 0
    state = wider.state()
    np.testing.assert_allclose(state["class_net/class-predict/bias"], -np.log(99), rtol=1e-5)  # the initial value
    kernel = "box_net/box-predict/pointwise_kernel"
    np.testing.assert_array_equal(state[kernel], source[kernel])
    np.testing.assert_array_equal(state[kernel + checkpoint.AVERAGE], source[kernel])  # the average starts there, too


def test_start_from_rejects_a_mismatch_without_skip_mismatch(trained, wider, tmp_path, monkeypatch):
    prefix = ModelDir(str(tmp_path)).save(3, trained[1][3])
    monkeypatch.setattr(wider, "config", wider.config.override({"skip_mismatch": False}))
    with pytest.raises(checkpoint.CheckpointError, match="with num_classes 3"):
        wider.start_from(prefix)


# Freezing.

FROZEN = ("efficientnet", "fpn_cells", "resample_p6")


def test_freeze_and_unfreeze(config, trained, trainer, batch):
    """Frozen entries, with statistics, averages and slots, keep every bit; others change; both trainers can resume."""
    _, states, metrics = trained
    frozen = Trainer(
        config.override({"var_freeze_expr": f"({'|'.join(FROZEN)})"}), batch_size=2, steps_per_epoch=10, seed=12
    )
    assert frozen.state().keys() == states[0].keys()
    frozen.resume("", states[0])
    first = eager_step(frozen, batch)
    np.testing.assert_allclose(first["reg_l2_loss"], decay(states[0], frozen, config, FROZEN), rtol=1e-4)
    moved = changed(states[0], frozen.state())
    assert all(name.startswith(("class_net/", "box_net/", "global_step")) for name in moved)
    heads = {name for name in states[0] if name.startswith(("class_net/", "box_net/"))}
    assert {name for name in heads if name.endswith("kernel")} <= moved and len(moved) > 0.7 * len(heads)
    # Frozen normalization uses moving statistics instead of those of the batch.
    assert first["cls_loss"] != metrics[0]["cls_loss"]

    trainer.resume("", frozen.state())
    assert trainer.step == 1
    eager_step(trainer, batch)
    assert any(name.startswith("efficientnet") for name in changed(frozen.state(), trainer.state()))
    assert ", 0 frozen" in trainer.summary() and f"{len(frozen.trained)} trainable variables" in frozen.summary()


# Gradient accumulation, several steps per call, recomputation.


@pytest.fixture(scope="module")
def accumulation(tiny_config):
    """A trainer without batch statistics, a batch of four, and the state and metrics of three steps without parts."""
    # Smooth activations: if rounding errors switch a relu, correct implementations soon differ.
    changes = {"act_type": "swish", "is_training_bn": False, "learning_rate": 0.5, "lr_decay_method": "constant"}
    changes |= {"max_level": 5, "box_class_repeats": 2, "survival_prob": 0.8}
    config = tiny_config.override(changes)
    trainer = Trainer(config, batch_size=4, steps_per_epoch=10, seed=3)
    labeler = AnchorLabeler(build_anchors(config))
    groundtruth = [([[4.0, 4, 40, 50], [30, 30, 60, 62]], [1, 3]), ([[0.0, 0, 20, 20]], [2]), ([], []), ([], [])]
    labels = stacked(label(labeler, *objects) for objects in groundtruth)
    batch = tf.random.stateless_normal([4, 64, 64, 3], [1, 2]), labels
    start = trainer.state()
    whole = [eager_step(trainer, batch) for _ in range(3)]
    return trainer, batch, start, whole, trainer.state()


def label(labeler, boxes, classes):
    return labeler.label(tf.reshape(tf.constant(boxes, tf.float32), [-1, 4]), tf.constant(classes, tf.int32))


@pytest.mark.parametrize("parts", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_gradient_accumulation_equals_the_whole_batch(accumulation, parts):
    """Including drop connect, whose random numbers are drawn for the whole batch."""
    trainer, batch, start, whole, end = accumulation
    assert trainer.net.num_draws == 16 + 2 * 3
    trainer.config = trainer.config.override({"gradient_accumulation_steps": parts})
    trainer.resume("", start)
    for expected in whole:
        metrics = eager_step(trainer, batch)
        assert metrics.keys() == expected.keys()
        for name, value in metrics.items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)
    assert_states_close(trainer.state(), end, 1e-5)


@pytest.mark.slow
def test_gradient_accumulation_in_a_traced_function(accumulation):
    trainer, batch, start, whole, end = accumulation
    trainer.config = trainer.config.override({"gradient_accumulation_steps": 2})
    trainer.resume("", start)
    losses = [float(trainer.train_step(*batch)["loss"]) for _ in range(3)]
    np.testing.assert_allclose(losses, [step["loss"] for step in whole], rtol=1e-5)
    assert_states_close(trainer.state(), end, 1e-5)


@pytest.mark.parametrize(
    "batch_size, parts, replicas, message",
    [
        (6, 4, 1, "6 is not divisible by 1 replicas times gradient_accumulation_steps=4; nearest: 4 or 8"),
        (3, 4, 1, "nearest: 4$"),
        (9, 1, 2, "9 is not divisible by 2 replicas; nearest: 8 or 10"),
        (10, 2, 3, "10 is not divisible by 3 replicas times gradient_accumulation_steps=2; nearest: 6 or 12"),
    ],
)
def test_indivisible_batch_sizes(config, batch_size, parts, replicas, message):
    strategy = types.SimpleNamespace(num_replicas_in_sync=replicas)
    config = config.override({"gradient_accumulation_steps": parts, "is_training_bn": False})
    with pytest.raises(ValueError, match=f"train_batch_size {message}" if message[0].isdigit() else message):
        Trainer(config, batch_size=batch_size, steps_per_epoch=10, strategy=strategy)


@pytest.mark.slow
def test_train_steps_equals_single_steps(trainer, batch):
    """Bit for bit, with a different batch per step."""
    images, labels = batch
    factors = tf.data.Dataset.from_tensor_slices([1.0, 1.1, 1.2])
    dataset = factors.map(lambda factor: (factor * images, labels))
    start = trainer.state()
    singles = [trainer.train_step(*each) for each in dataset]
    end = trainer.state()
    trainer.resume("", start)
    last = trainer.train_steps(iter(dataset), tf.constant(3))
    assert trainer.step == 3 and last.keys() == singles[-1].keys()
    assert {k: float(v) for k, v in last.items()} == {k: float(v) for k, v in singles[-1].items()}
    assert not changed(end, trainer.state())


@pytest.mark.slow
def test_grad_checkpoint_does_not_change_a_step(config, batch):
    """In traced functions, with drop connect in backbone and heads.

    Grappler rewrites the two graphs with different rounding; test_model compares them without it.
    """
    config = config.override({"survival_prob": 0.8, "box_class_repeats": 2, "act_type": "swish", "max_level": 5})
    keep = slice(0, 3)  # levels 3 to 5 of the labels
    images, labels = batch
    labels = {**labels, **{name: labels[name][keep] for name in ("cls_targets", "box_targets")}}
    keras.utils.set_random_seed(1)
    start, results = None, []
    for grad_checkpoint in (False, True):
        trainer = Trainer(
            config.override({"grad_checkpoint": grad_checkpoint}), batch_size=2, steps_per_epoch=10, seed=3
        )
        start = start or trainer.state()
        trainer.resume("", start)
        metrics = trainer.train_step(images, labels)
        results.append(({name: float(value) for name, value in metrics.items()}, trainer.state()))
    (plain, plain_state), (metrics, state) = results
    for name, value in plain.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    assert_states_close(*({k: v for k, v in each.items() if "/moving_" in k} for each in (state, plain_state)), 3e-4)
    # In one norm, because some gradients cancel out to rounding errors.
    momenta = [name for name in state if name.endswith("/Momentum")]
    gradients, plain_gradients = (np.concatenate([s[k].ravel() for k in momenta]) for s in (state, plain_state))
    assert np.linalg.norm(gradients - plain_gradients) < 3e-4 * np.linalg.norm(plain_gradients)


# Half precision and several workers.


@pytest.mark.slow
def test_float16(config, batch, trained, monkeypatch):
    """Variables and outputs stay float32; the loss scale is halved after an overflow, and doubled after finite steps.

    The gradients do not depend on the scale.
    """
    monkeypatch.setattr(skipped_steps, "GROWTH_STEPS", 2)
    config = config.override({"weight_decay": 0, "clip_gradients_norm": 0, "loss_scale": 2.0**40})
    trainer = Trainer(config, batch_size=2, steps_per_epoch=10, seed=12, precision="mixed_float16")
    assert keras.mixed_precision.global_policy().name == "float32"  # the global policy is restored
    assert {variable.dtype for variable in trainer.net.weights} == {tf.float32}
    cls_outputs, box_outputs = trainer.net(batch[0])
    assert {output.dtype for output in [*cls_outputs, *box_outputs]} == {tf.float32}
    scale, good_steps = "training/loss_scale", "training/good_steps"
    start = trainer.state() | trained[1][0]
    trainer.resume("", start)

    metrics = eager_step(trainer, batch)
    after = trainer.state()
    assert metrics["skipped_steps"] == 1 and after[scale] == 2.0**39 and trainer.skipped_steps.can_reduce_loss_scale()
    np.testing.assert_allclose(metrics["cls_loss"], trained[2][0]["cls_loss"], rtol=0.02)

    slots = []
    for first_scale in (16, 64):
        trainer.resume("", start | {scale: np.float32(first_scale)})
        assert eager_step(trainer, batch)["skipped_steps"] == 0
        state = trainer.state()
        assert state[scale] == first_scale and state[good_steps] == 1
        slots.append(np.concatenate([state[name].ravel() for name in state if name.endswith("/Momentum")]))
    assert np.linalg.norm(slots[0] - slots[1]) < 0.02 * np.linalg.norm(slots[0])
    eager_step(trainer, batch)
    state = trainer.state()
    assert state[scale] == 128 and state[good_steps] == 0


def test_any_worker_and_mean_over_replicas(trained):
    trainer = trained[0]
    assert trainer.any_worker(True) and not trainer.any_worker(False)
    assert trainer.mean_over_replicas([0.25, 2**24 + 1]).tolist() == [0.25, 2**24 + 1]  # float32 has no such number


# Published.


@pytest.fixture(scope="module")
def published():
    """D0 with the published weights, images and labels of the published step, and train.npz."""
    config = config_lib.load("efficientdet-d0", "image_size=256")
    trainer = Trainer(config, batch_size=3, steps_per_epoch=10)
    values = reference_weights.weights(np.load(ROOT / "testdata" / "efficientdet-d0.npz"))
    for name, variable in checkpoint.named_variables(trainer.net).items():
        variable.assign(values[name])
    labeler = AnchorLabeler(build_anchors(config))
    labels = stacked(label(labeler, *objects) for objects in GROUNDTRUTH)
    images = np.stack([reference_weights.image(256, i) for i in range(3)])
    images = tf.constant((images - np.array(config.mean_rgb)) / np.array(config.stddev_rgb), tf.float32)
    return trainer, images, labels, np.load(ROOT / "testdata" / "train.npz")


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


@pytest.mark.parametrize("setting", SETTINGS)
def test_published_losses_and_gradients(published, setting):
    trainer, images, labels, figures = published
    trainer.config = config_lib.load("efficientdet-d0", f"image_size=256,{SETTINGS[setting]}".rstrip(","))

    with tf.GradientTape() as tape:
        metrics = trainer.loss(images, labels, normalizer=tf.reduce_sum(labels["num_positives"]) + 1)
    gradients = tape.gradient(metrics["loss"], trainer.net.trainable_variables)
    clipped_norm = optimizer.clip_gradients(gradients, trainer.config.clip_gradients_norm).norm
    assert {f"{setting}/{name}" for name in metrics} <= set(figures.files)
    for name in metrics.keys() - {"box_iou_loss"}:  # see test_published_iou_loss
        np.testing.assert_allclose(metrics[name], figures[f"{setting}/{name}"], rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(clipped_norm, figures[f"{setting}/clipped_global_grad_norm"], rtol=1e-4)
    if setting == "ciou":  # the published gradient lacks the aspect-ratio term
        return
    global_norm = figures[f"{setting}/global_grad_norm"]
    np.testing.assert_allclose(tf.linalg.global_norm(gradients), global_norm, rtol=1e-3)
    norms = [float(tf.norm(gradient)) for gradient in gradients]
    by_name = dict(zip(map(checkpoint.official_name, trainer.net.trainable_variables), norms))
    for name, norm in zip(figures[f"{setting}/grad_names"], figures[f"{setting}/grad_norms"], strict=True):
        assert abs(by_name[name] - norm) <= 1e-3 * norm + 1e-6 * global_norm, name


def test_published_iou_loss(published):
    """CIoU equals the published loss in the order of rows that the published code has.

    That code concatenates outputs as [level, image, anchor] but repeats the anchors as [image, level, anchor], so that
    outputs of several images are decoded with anchors of other places. For one image at a time the orders are the same.
    """
    trainer, images, labels, figures = published
    _, box_outputs = trainer.net(images, training=True)
    maps = (box_outputs, labels["box_targets"])
    options = {"iou_type": "ciou", "normalizer": tf.reduce_sum(labels["num_positives"]) + 1}

    def published_order(*image):
        codes, targets = (tf.concat([tf.reshape(level[slice(*image)], [-1, 4]) for level in part], 0) for part in maps)
        return box_iou_loss(
            codes, targets, tf.tile(trainer.anchors, [len(codes) // len(trainer.anchors), 1]), **options
        )

    np.testing.assert_allclose(published_order(None), figures["ciou/box_iou_loss"], rtol=1e-5)
    ours = box_iou_loss(*(concat_levels(part, 4) for part in maps), trainer.anchors, **options)
    np.testing.assert_allclose(ours, sum(published_order(i, i + 1) for i in range(3)), rtol=1e-6)
    assert float(ours / figures["ciou/box_iou_loss"]) == pytest.approx(1.0028, abs=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("op_determinism")
def test_steps_of_a_full_network_are_bit_identical():
    """Kernels may add in another order on several threads, but only for tensors of a size that tiny networks lack."""
    config = config_lib.load("efficientdet-lite0", "num_classes=3,image_size=128,optimizer=adam,learning_rate=0.08")
    labeler = AnchorLabeler(build_anchors(config))
    images = tf.random.stateless_normal([8, 128, 128, 3], [1, 2])
    labels = stacked(label(labeler, [[8.0, 8, 60, 70], [40, 50, 120, 110]], [1, 3]) for _ in range(8))
    states = []
    for _ in range(2):
        keras.utils.set_random_seed(1)
        trainer = Trainer(config, batch_size=8, steps_per_epoch=10, seed=1)
        for _ in range(8):
            trainer.train_step(images, labels)
        states.append(trainer.state())
    assert changed(*states) == set()
