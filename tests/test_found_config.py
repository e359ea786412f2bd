# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Every command takes the folder of a training alone: model, config and class names come from its config.yaml."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
import until_built
from absl import logging
from until_built import Built

import tf2
from dataset import tfrecord
from efficientdet import config as config_lib
from tf2.training.best_result import BestResult
from tf2.training.model_dir import ModelDir
from tf2.weights import published

ROOT = pathlib.Path(__file__).parents[1]
NAMES = {1: "RBC", 2: "WBC"}
KEYS = {"num_classes": 3, "label_map": NAMES, "image_size": [64, 96], "fpn_num_filters": 8, "learning_rate": 0.5}
KEYS |= {"act_type": "relu", "nms_configs": {"score_thresh": 0.2}}
MACHINE = {"strategy": "gpus", "mixed_precision": True, "loss_scale": 8.0, "sample_image": "gone.jpg"}
SAVED = config_lib.load("efficientdet-lite0", **KEYS, **MACHINE)
INFERENCE = config_lib.load("efficientdet-lite0").override({"nms_configs": config_lib.INFERENCE_NMS}, KEYS)
EVALUATION = config_lib.load("efficientdet-lite0", **KEYS)
RESUMED = SAVED.override({"strategy": None, "sample_image": None})  # sample_image is read, and typed in the commands

EVAL = ["main.py", "--mode=eval", "--val_file_pattern=val"]
TRAIN = ["main.py", "--mode=train", "--train_file_pattern=val", "--train_batch_size=1"]
INFER = ["model_inspect.py", "--runmode=infer", f"--input_image={ROOT}/testdata/img1.jpg", "--output_json=found.json"]
SAVED_MODEL = ["model_inspect.py", "--runmode=saved_model", "--saved_model_dir=saved"]
COMMANDS = {
    "eval": [*EVAL, "--model_dir=shop"],
    "eval of a checkpoint": [*EVAL, "--ckpt=shop"],
    "eval beside a training": [*EVAL, "--model_dir=shop", "--eval_timeout=1"],
    "infer": [*INFER, "--ckpt_path=shop"],
    "saved_model": [*SAVED_MODEL, "--ckpt_path=shop"],
    "tflite": [*SAVED_MODEL, "--ckpt_path=shop", "--tflite_path=x.tflite"],
    "onnx": ["model_inspect.py", "--runmode=onnx", "--ckpt_path=shop", "--onnx_path=x.onnx"],
    "freeze": ["model_inspect.py", "--runmode=freeze", "--ckpt_path=shop", "--logdir=log"],
    "bm": ["model_inspect.py", "--runmode=bm", "--ckpt_path=shop"],
    "dry": ["model_inspect.py", "--runmode=dry", "--ckpt_path=shop", "--logdir=log"],
    "ckpt": ["model_inspect.py", "--runmode=ckpt", "--ckpt_path=shop"],
    "tf2.load": ["tf2.load", "shop"],
    "train": [*TRAIN, "--model_dir=shop", "--hparams=sample_image=None"],
}
DETECTORS = {name: words for name, words in COMMANDS.items() if name != "train"}
EXPECTED = {name: EVALUATION if words[0] == "main.py" else INFERENCE for name, words in COMMANDS.items()}
EXPECTED["eval beside a training"] = EVALUATION.override({"nms_configs": {"max_nms_inputs": 5000}})  # as published
EXPECTED["train"] = RESUMED


def built(words, hparams="", model_name=None):
    """Returns the config of the network that a command builds."""
    with pytest.raises(Built) as error:
        if words[0] == "tf2.load" and model_name:
            tf2.load(model_name, words[1], hparams=hparams)
        elif words[0] == "tf2.load":
            tf2.load(words[1], hparams=hparams)
        else:
            words = [*words, *([f"--model_name={model_name}"] if model_name else [])]
            typed = [word for word in words if word.startswith("--hparams=") and hparams]
            words = [word for word in words if word not in typed]
            hparams = ",".join([*(word.removeprefix("--hparams=") for word in typed), hparams])
            until_built.run([*words, *([f"--hparams={hparams}"] if hparams else [])])
    return error.value.args[0]


@pytest.fixture
def lines(monkeypatch):
    """Lines that are logged."""
    lines = []
    for level in ("info", "warning"):
        monkeypatch.setattr(logging, level, lambda text, *args: lines.append(text % args))
    return lines


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the training `shop`, its archive, and the record `val`."""
    monkeypatch.chdir(tmp_path)
    training = ModelDir("shop")
    training.prepare(0)
    training.write_config(SAVED)
    entries = {"part/kernel": np.zeros(3), **BestResult().entries(), "training/seed": np.int64(5)}
    entries |= {"training/batch_size": np.int64(1), "training/num_examples_per_epoch": np.int64(1)}
    training.archive(training.save(7, entries), {"AP": 0.5})
    pixels = tf.io.encode_jpeg(tf.zeros([96, 96, 3], tf.uint8)).numpy()
    record = tfrecord.Record(pixels, 96, 96, "a.jpg", "1", boxes_norm=[[0, 0, 0.5, 0.5]], classes=[1])
    with tf.io.TFRecordWriter("val") as writer:
        writer.write(tfrecord.encode(record))
    until_built.patch(monkeypatch)
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_the_folder_is_enough(folder, lines, name):
    assert built(COMMANDS[name]) == EXPECTED[name]
    assert [line for line in lines if line.startswith(("other than in", "mixed_precision applies"))] == []


@pytest.mark.parametrize("path", ["shop/", "shop/archive", "shop/model.ckpt-7", "shop/archive/model.ckpt-7", "FOLDER"])
@pytest.mark.parametrize("name", ["eval", "eval of a checkpoint", "infer", "saved_model", "onnx", "tf2.load"])
def test_so_are_its_archive_and_checkpoints(folder, name, path):
    path = path.replace("FOLDER", f"file://{folder}/shop")
    words = [word if word != "shop" and "=shop" not in word else word.replace("shop", path) for word in COMMANDS[name]]
    assert built(words) == EXPECTED[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_model_may_be_given_again(folder, name):
    assert built(COMMANDS[name], model_name="efficientdet-lite0") == EXPECTED[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_config_may_be_given_again(folder, lines, name):
    ours = config_lib.load("efficientdet-lite0", **KEYS)
    (folder / "shop.yaml").write_text(ours.to_yaml(default_nms=False))
    words = [word for word in COMMANDS[name] if not word.startswith("--hparams")]
    config = built(words, "shop.yaml", model_name="efficientdet-lite0")
    assert config == (EVALUATION if name == "train" else EXPECTED[name])
    assert [line for line in lines if line.startswith("other than in")] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_another_model_is_refused(folder, name):
    with pytest.raises(
        config_lib.ConfigError,
        match=r"^shop/config\.yaml is of efficientdet-lite0, but the model given is efficientdet-d0; leave it out, or",
    ):
        built(COMMANDS[name], model_name="efficientdet-d0")


@pytest.mark.parametrize("name", DETECTORS)
def test_what_contradicts_the_weights_is_refused(folder, name):
    with pytest.raises(config_lib.ConfigError) as error:
        built(COMMANDS[name], "num_classes=5,act_type=swish,fpn_name=bifpn_dyn,anchor_scale=2,image_size=128")
    assert str(error.value) == (
        "the weights were trained with other settings, shop/config.yaml: num_classes: 3 -> 5, act_type: relu -> swish, "
        "anchor_scale: 3.0 -> 2.0; remove them"
    )


@pytest.mark.parametrize("name", ["eval", "infer", "saved_model", "tf2.load"])
def test_another_keep_aspect_ratio_is_a_warning(folder, monkeypatch, name):
    """Clients may dictate it: the AP that they get is measured, and files are exported for them."""
    warnings = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: warnings.append(text % args))
    config = built(COMMANDS[name], "keep_aspect_ratio=false")
    assert config == EXPECTED[name].override({"keep_aspect_ratio": False})
    assert "other than in shop/config.yaml: keep_aspect_ratio: True -> False" in warnings


def test_keep_aspect_ratio_of_weights_without_a_config(folder, lines):
    (folder / "shop" / "config.yaml").unlink()
    line = "shop has no config.yaml; keep_aspect_ratio: False suits it only if it was trained so"
    for hparams, named in (("keep_aspect_ratio=false", True), ("", False)):
        built(COMMANDS["eval"], hparams, model_name="efficientdet-lite0")
        assert (line in lines) == named
        lines.clear()


def test_a_training_from_a_detector_keeps_its_aspect_ratio(folder):
    path = folder / "shop" / "config.yaml"
    path.write_text(path.read_text().replace("keep_aspect_ratio: true", "keep_aspect_ratio: false"))
    words = [*TRAIN, "--model_dir=new", "--ckpt=shop"]
    assert not built(words).keep_aspect_ratio
    assert built(words, "keep_aspect_ratio=true").keep_aspect_ratio


@pytest.mark.parametrize("name", COMMANDS)
def test_what_may_change_is_logged(folder, lines, name):
    config = built(COMMANDS[name], "image_size=128,nms_configs.score_thresh=0.3,label_map={1: 'red', 2: 'WBC'}")
    expected = {"image_size": 128, "nms_configs": {"score_thresh": 0.3}, "label_map": {1: "red", 2: "WBC"}}
    assert config == EXPECTED[name].override(expected)
    start = "changed since the last run: " if name == "train" else "other than in shop/config.yaml: "
    changed = {line.removeprefix(start) for line in lines if line.startswith(start)}
    of_run = {"strategy: gpus -> None", "sample_image: gone.jpg -> None"} if name == "train" else set()
    assert changed - of_run == {
        "image_size: [64, 96] -> [128, 128]",
        "label_map: {1: 'RBC'} -> {1: 'red'}",
        "nms_configs.score_thresh: 0.2 -> 0.3",
    }


def test_training_continues_with_more_epochs(folder, lines):
    assert built([*COMMANDS["train"], "--num_epochs=80"]) == RESUMED.override({"num_epochs": 80})
    assert "changed since the last run: num_epochs: 300 -> 80" in lines
    with pytest.raises(config_lib.ConfigError, match="cannot continue with num_classes: 3 -> 5"):
        built(COMMANDS["train"], "num_classes=5")


def test_a_training_without_checkpoint_starts_anew(folder):
    """It may have ended in an error due to its config."""
    ModelDir("new").prepare(0)
    ModelDir("new").write_config(SAVED)
    words = [*TRAIN, "--model_dir=new"]
    assert built(words) == config_lib.load("efficientdet-d0")
    assert built(words, model_name="efficientdet-d1") == config_lib.load("efficientdet-d1")


@pytest.mark.parametrize("saved, typed", [("published", "finetune"), ("finetune", "finetune"), ("finetune", "")])
def test_the_recipe_of_a_training_continues_unless_another_is_given(folder, saved, typed):
    changed = {} if saved == "published" else {"learning_rate": 0.25}
    config = SAVED.override({"recipe": saved}, config_lib.RECIPES[saved], changed, {"optimizer": "adam"})
    ModelDir("shop").write_config(config)
    table = config_lib.RECIPES[typed] if saved != typed and typed else {}
    expected = config.override({"recipe": typed or saved, "strategy": None, "sample_image": None}, table)
    assert built(COMMANDS["train"], f"recipe={typed}" if typed else "") == expected


@pytest.mark.parametrize("hparams, changes", [("", {}), ("num_classes=5", {"num_classes": 5, "label_map": None})])
def test_a_new_training_has_the_network_that_it_starts_from(folder, hparams, changes):
    config = built([*TRAIN, "--model_dir=new", "--ckpt=shop"], hparams)
    keys = {key: value for key, value in KEYS.items() if key not in ("learning_rate", "nms_configs")}
    assert config == config_lib.load("efficientdet-lite0", **keys).override(changes)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unreadable_file(folder, lines, name):
    pathlib.Path("shop/config.yaml").write_text("no_such_key: 1")
    message = r"cannot read shop/config\.yaml \(unknown config key 'no_such_key'"
    with pytest.raises(config_lib.ConfigError, match=message):
        built(COMMANDS[name])
    assert built(COMMANDS[name], "num_classes=3", model_name="efficientdet-d0").name == "efficientdet-d0"
    assert [line for line in lines if line.endswith("using --model_name and --hparams alone")]


@pytest.mark.parametrize("ckpt", ["efficientdet-d2-640", "efficientdet-lite3x", "efficientdet-d0-advprop"])
@pytest.mark.parametrize("name", ["eval of a checkpoint", "infer", "onnx", "tf2.load", "train"])
def test_released_weights_by_name(folder, monkeypatch, name, ckpt):
    monkeypatch.setattr(published, "fetch", lambda name: "shop")
    words = [word.replace("shop", ckpt) for word in COMMANDS[name]]
    words = [*TRAIN, "--model_dir=new", f"--ckpt={ckpt}"] if name == "train" else words
    config = built(words)
    model = ckpt.removesuffix("-640").removesuffix("-advprop")
    expected = config_lib.load(model, **({"image_size": 640} if "640" in ckpt else {}))
    if "advprop" in ckpt:
        expected = expected.override({"mean_rgb": 0.0, "stddev_rgb": 1.0, "scale_range": True})
    assert config.difference(expected).keys() <= {"label_map", "nms_configs"}


@pytest.mark.parametrize("name", DETECTORS)
def test_what_does_not_exist(folder, name):
    words = [word.replace("shop", "efficientdet-d9") for word in COMMANDS[name]]
    with pytest.raises(config_lib.ConfigError, match=r"^'efficientdet-d9' is neither the folder of .*; did you mean"):
        built(words)
