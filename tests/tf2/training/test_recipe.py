# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/recipe.py: number of epochs, warm-up and evaluations, and anchors fitted to the boxes."""

import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from dataset import tfrecord
from dataset.check import anchor_fit
from efficientdet import config as config_lib
from efficientdet.config import RECIPES
from tf2.training import recipe
from tf2.training.model_dir import ModelDir
from tf2.training.optimizer import learning_rate_schedule
from tf2.training.train import Training
from tf2.weights import base_config

SIZE = 320  # of images and network input, pixels
NUM_IMAGES = 40


def finetune(**keys):
    return config_lib.load("efficientdet-lite0", recipe="finetune", num_classes=3, **keys)


def write(path, sides_of_classes):
    """Writes records with one object per class and image, a box of the sides given, in pixels."""
    random = np.random.default_rng(1)
    pixels = tf.io.encode_jpeg(tf.zeros([SIZE, SIZE, 3], tf.uint8)).numpy()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for i in range(NUM_IMAGES):
            boxes, classes = [], []
            for class_id, sides in sides_of_classes.items():
                for height, width in sides:
                    top, left = random.uniform(0, SIZE - height), random.uniform(0, SIZE - width)
                    boxes.append(np.array([top, left, top + height, left + width]) / SIZE)
                    classes.append(class_id)
            record = tfrecord.Record(pixels, SIZE, SIZE, f"{i}.jpg", str(i), boxes_norm=boxes, classes=classes)
            writer.write(tfrecord.encode(record))
    return str(path)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Records by kind of their objects: those of the present anchors, small ones, a rare class of them, long ones."""
    folder, medium = tmp_path_factory.mktemp("records"), [(64, 64)]
    kinds = {
        "medium": {1: medium},
        "small": {1: [(13, 13)]},
        "rare": {1: medium * 60, 2: [(13, 13)]},
        "long": {1: [(20, 120)]},
    }
    return {kind: write(folder / kind, sides) for kind, sides in kinds.items()}


@pytest.fixture
def logged(monkeypatch):
    lines = []
    for name in ("info", "warning"):
        monkeypatch.setattr(logging, name, lambda message, *args, name=name: lines.append((name, message % args)))
    return lines


def training(tmp_path, pattern, **options):
    options = {"backbone_ckpt": "efficientnet-lite0", **options}
    return Training(str(tmp_path / "run"), pattern, batch_size=8, **options)


@pytest.mark.parametrize(
    "num_images, batch_size, epochs, steps",
    [
        (1, 8, 300, 300),
        (20, 8, 300, 600),
        (128, 8, 90, 1440),
        (292, 8, 40, 1440),  # BCCD
        (1000, 8, 15, 1875),
        (10_000, 8, 15, 18_750),
        (100_000, 8, 15, 187_500),
        (292, 1, 15, 4380),
        (1000, 64, 96, 1440),
        (100_000, 64, 15, 23_430),
    ],
)
def test_number_of_epochs(num_images, batch_size, epochs, steps):
    steps_per_epoch = max(num_images // batch_size, 1)
    assert recipe.num_epochs(steps_per_epoch) == epochs
    assert epochs * steps_per_epoch == steps


@pytest.mark.parametrize(
    "epochs, steps_per_epoch, warmup_steps, map_freq",
    [
        (40, 36, 36, 4),  # BCCD
        (300, 2, 30, 30),
        (15, 12_500, 1000, 2),
        (15, 1250, 468, 2),
        (1, 3, 1, 1),
        (3, 10, 15, 1),
        (15, 10_000_000, 1000, 2),
    ],
)
def test_warm_up_and_evaluations_fit_the_length(epochs, steps_per_epoch, warmup_steps, map_freq):
    keys = recipe.schedule(epochs, steps_per_epoch)
    rate = learning_rate_schedule(finetune(**keys), batch_size=8, steps_per_epoch=steps_per_epoch)
    assert (rate.warmup_steps, rate.total_steps) == (warmup_steps, epochs * steps_per_epoch)
    assert (keys["num_epochs"], keys["map_freq"]) == (epochs, map_freq)


def test_batch_size_of_every_recipe():
    assert recipe.BATCH_SIZES.keys() == RECIPES.keys()
    assert recipe.BATCH_SIZES["published"] == Training("", "").batch_size == 64


def test_finetune_sets_length_and_anchors(tmp_path, records, logged):
    config = finetune()
    fitted = recipe.fit(config, {"num_classes"}, training(tmp_path, records["small"]))
    changed = fitted.difference(config)
    # The largest of the three octave scales, at the stride 8 of the finest level, is that of the boxes.
    assert 8 * changed.pop("anchor_scale") * 2 ** (2 / 3) == pytest.approx(13, rel=0.1)
    assert changed == {"num_epochs": 288, "lr_warmup_epoch": 7.2, "map_freq": 29}  # 5 steps per epoch, 1440 in all
    (_, length), (_, anchors) = logged
    assert length == (
        "recipe finetune: 288 epochs of 40 images, 1440 steps of 8 images; it sets num_epochs=288, "
        "lr_warmup_epoch=7.2, map_freq=29"
    )
    assert anchors.startswith("recall of the anchors over 40 training boxes, IoU 0.5: 0.000 -> 0.900, fitted with ")
    assert anchors.endswith(f"anchor_scale: 3.0 -> {fitted.anchor_scale}")


@pytest.mark.parametrize("typed", ["num_epochs", "lr_warmup_epoch", "map_freq", "anchor_scale", "aspect_ratios"])
def test_typed_keys_are_kept(tmp_path, records, typed):
    values = {"num_epochs": 7, "lr_warmup_epoch": 0.5, "map_freq": 3, "anchor_scale": 5.0, "aspect_ratios": [1.0, 3.0]}
    config = finetune(**{typed: values[typed]})
    fitted = recipe.fit(config, {typed}, training(tmp_path, records["small"]))
    assert getattr(fitted, typed) == getattr(config, typed)
    if typed == "num_epochs":
        assert (fitted.lr_warmup_epoch, fitted.map_freq) == (3.5, 1)  # of 35 steps, half
    anchors = fitted.select("anchor_scale", "aspect_ratios")
    assert (anchors == config.select("anchor_scale", "aspect_ratios")) == (typed in recipe.ANCHORS)


@pytest.mark.parametrize(
    "kind, changed",
    [("medium", set()), ("small", {"anchor_scale"}), ("rare", {"anchor_scale"}), ("long", {"aspect_ratios"})],
)
def test_the_cheapest_sufficient_anchors_are_chosen(tmp_path, records, logged, kind, changed):
    fitted = recipe.fit(finetune(), (), training(tmp_path, records[kind]))
    before, boxes = finetune(), recipe.training_boxes(records[kind], finetune())
    assert {key for key in recipe.ANCHORS if getattr(fitted, key) != getattr(before, key)} >= changed
    if changed:
        assert anchor_fit.recall_of(boxes, fitted) > anchor_fit.recall_of(boxes, before) + 0.02
    else:
        assert fitted.select(*recipe.ANCHORS) == before.select(*recipe.ANCHORS)
        assert logged[-1][1].endswith("IoU 0.5: 1.000; other anchors would not add more than 0.02")


def test_frequent_classes_do_not_hide_a_rare_one(records):
    boxes = recipe.training_boxes(records["rare"], finetune())
    sides = np.round(boxes[:, 2:] - boxes[:, :2]).astype(int)
    assert (sides == 13).all(1).sum() == NUM_IMAGES  # all of the rare class
    assert (sides == 64).all(1).sum() == 800  # of 2400, with 1000 boxes per class at most


@pytest.mark.parametrize("typed", [set(), {"fit_anchors"}])
def test_a_detector_keeps_its_anchors_unless_asked(tmp_path, records, typed):
    options = {"backbone_ckpt": None, "ckpt": "efficientdet-lite0"}
    fitted = recipe.fit(finetune(), typed, training(tmp_path, records["small"], **options))
    assert (fitted.anchor_scale == 3.0) == (not typed)


def test_the_anchors_of_a_fine_tuned_detector_are_taken_over(tmp_path, records, logged):
    before = finetune(anchor_scale=2.12, aspect_ratios=[1.0, 3.0], num_scales=2)
    ModelDir(str(tmp_path / "before")).prepare(0)
    ModelDir(str(tmp_path / "before")).write_config(before)
    ckpt = str(tmp_path / "before" / "model.ckpt-7")
    (tmp_path / "before" / "model.ckpt-7.index").write_text("")
    start = training(tmp_path, records["small"], backbone_ckpt=None, ckpt=ckpt)
    fitted = recipe.fit(finetune(), (), start)
    assert (fitted.anchor_scale, fitted.aspect_ratios, fitted.num_scales) == (2.12, (1.0, 3.0), 2)
    assert logged[-1][1] == f"anchors of {ckpt}: num_scales=2, anchor_scale=2.12, aspect_ratios=(1.0, 3.0)"
    assert recipe.fit(finetune(anchor_scale=4.0), {"anchor_scale"}, start).anchor_scale == 4.0


def test_a_resumed_training_keeps_what_its_recipe_gave_it(tmp_path, records, logged, monkeypatch):
    fitted = recipe.fit(finetune(), (), training(tmp_path, records["small"]))
    directory = ModelDir(str(tmp_path / "run"))
    directory.prepare(0)
    directory.write_config(fitted)
    directory.save(7, {"part/kernel": np.zeros(3)})
    monkeypatch.setitem(RECIPES, "finetune", {**RECIPES["finetune"], "learning_rate": 1.0, "gamma": 9.0})
    logged.clear()
    again = training(tmp_path, records["long"])  # other data, and another version of the table
    start = {"model_dir": directory.path, "ckpt": None, "default_recipe": "finetune"}
    for hparams in ("", "num_epochs=500,jitter_min=0.8"):
        config = base_config.of_training(model_name=None, hparams=hparams, **start)
        typed = config_lib.read_hparams(hparams)
        assert config == fitted.override(typed)
        assert recipe.fit(config, typed.keys(), again) == config and not logged


def test_a_resumed_training_of_the_published_recipe_is_that_of_its_flags(tmp_path, records):
    directory = ModelDir(str(tmp_path / "run"))
    directory.prepare(0)
    directory.write_config(config_lib.load("efficientdet-lite0", num_epochs=7, anchor_scale=2.0))
    directory.save(7, {"part/kernel": np.zeros(3)})
    config = config_lib.load("efficientdet-lite0")
    assert recipe.fit(config, (), training(tmp_path, records["small"])) == config


@pytest.mark.parametrize("hparams, scale", [("", 3.0), ("fit_anchors=true", 1.06)])
def test_the_published_recipe_depends_on_no_data(tmp_path, records, logged, hparams, scale):
    config = config_lib.load("efficientdet-lite0", hparams)
    fitted = recipe.fit(config, {"fit_anchors"} if hparams else (), training(tmp_path, records["small"]))
    assert fitted == config.override({"anchor_scale": scale})
    assert len(logged) == bool(hparams)


@pytest.mark.parametrize(
    "options, warns",
    [
        ({"backbone_ckpt": None}, True),
        ({"backbone_ckpt": "efficientnet-lite0"}, False),
        ({"backbone_ckpt": None, "ckpt": "efficientdet-lite0"}, False),
    ],
)
def test_random_weights_are_a_warning(tmp_path, records, logged, options, warns):
    recipe.fit(finetune(), (), training(tmp_path, records["medium"], **options))
    warnings = [line for level, line in logged if level == "warning"]
    expected = (
        "training starts from random weights, for which 40 images are too few; "
        "start from a released detector, --ckpt=efficientdet-lite0 or a released classifier, "
        "--backbone_ckpt=efficientnet-lite0"
    )
    assert warnings == ([expected] if warns else [])
