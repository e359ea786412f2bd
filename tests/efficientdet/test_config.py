# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of Config: published defaults and models, overrides, and the message of every invalid value."""

import dataclasses
import pathlib
import subprocess
import sys

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from efficientdet.config import MODELS, RECIPES, RETIRED, Config, ConfigError, NmsConfig, load
from efficientdet.fpn_configs import FUSIONS

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Published table of models: backbone, size, filters, cells, head repeats, anchor_scale, fusion.
PUBLISHED = {
    "efficientdet-d0": ("efficientnet-b0", 512, 64, 3, 3, 4.0, None),
    "efficientdet-d1": ("efficientnet-b1", 640, 88, 4, 3, 4.0, None),
    "efficientdet-d2": ("efficientnet-b2", 768, 112, 5, 3, 4.0, None),
    "efficientdet-d3": ("efficientnet-b3", 896, 160, 6, 4, 4.0, None),
    "efficientdet-d4": ("efficientnet-b4", 1024, 224, 7, 4, 4.0, None),
    "efficientdet-d5": ("efficientnet-b5", 1280, 288, 7, 4, 4.0, None),
    "efficientdet-d6": ("efficientnet-b6", 1280, 384, 8, 5, 4.0, "sum"),
    "efficientdet-d7": ("efficientnet-b6", 1536, 384, 8, 5, 5.0, "sum"),
    "efficientdet-d7x": ("efficientnet-b7", 1536, 384, 8, 5, 4.0, "sum"),
    "efficientdet-lite0": ("efficientnet-lite0", 320, 64, 3, 3, 3.0, "sum"),
    "efficientdet-lite1": ("efficientnet-lite1", 384, 88, 4, 3, 3.0, "sum"),
    "efficientdet-lite2": ("efficientnet-lite2", 448, 112, 5, 3, 3.0, "sum"),
    "efficientdet-lite3": ("efficientnet-lite3", 512, 160, 6, 4, 4.0, "sum"),
    "efficientdet-lite3x": ("efficientnet-lite3", 640, 200, 6, 4, 3.0, "sum"),
    "efficientdet-lite4": ("efficientnet-lite4", 640, 224, 7, 4, 4.0, "sum"),
}

# The defaults in a config.yaml of the published program, including retired keys.
PUBLISHED_YAML = """
name: efficientdet-d1
act_type: swish
image_size: 640
target_size: null
input_rand_hflip: true
jitter_min: 0.1
jitter_max: 2.0
autoaugment_policy: null
grid_mask: false
sample_image: null
map_freq: 1
num_classes: 90
seg_num_classes: 3
heads: [object_detection]
skip_crowd_during_training: true
label_map: null
max_instances_per_image: 100
regenerate_source_id: false
min_level: 3
max_level: 7
num_scales: 3
aspect_ratios: [1.0, 2.0, 0.5]
anchor_scale: 4.0
is_training_bn: true
momentum: 0.9
optimizer: sgd
learning_rate: 0.08
lr_warmup_init: 0.008
lr_warmup_epoch: 1.0
first_lr_drop_epoch: 200.0
second_lr_drop_epoch: 250.0
poly_lr_power: 0.9
clip_gradients_norm: 10.0
num_epochs: 300
data_format: channels_last
mean_rgb: [123.675, 116.28, 103.53]
stddev_rgb: [58.395, 57.120000000000005, 57.375]
scale_range: false
label_smoothing: 0.0
alpha: 0.25
gamma: 1.5
delta: 0.1
box_loss_weight: 50.0
iou_loss_type: null
iou_loss_weight: 1.0
weight_decay: 4e-05
strategy: null
mixed_precision: false
loss_scale: null
box_class_repeats: 3
fpn_cell_repeats: 3
fpn_num_filters: 88
separable_conv: true
apply_bn_for_resampling: true
conv_after_downsample: false
conv_bn_act_pattern: false
drop_remainder: true
nms_configs: {method: gaussian, iou_thresh: null, score_thresh: 0.0, sigma: null, pyfunc: false, max_nms_inputs: 0,
  max_output_size: 100}
tflite_max_detections: 100
fpn_name: null
fpn_weight_method: null
fpn_config: null
survival_prob: null
img_summary_steps: null
lr_decay_method: cosine
moving_average_decay: 0.9998
ckpt_var_scope: null
skip_mismatch: true
backbone_name: efficientnet-b1
backbone_config: null
var_freeze_expr: null
use_keras_model: true
dataset_type: null
positives_momentum: null
grad_checkpoint: false
verbose: 1
save_freq: epoch
"""


def d0(hparams: str = "", **flags) -> Config:
    return load("efficientdet-d0", hparams, **flags)


def test_published_defaults():
    published = yaml.safe_load(PUBLISHED_YAML)
    assert Config().override(published) == Config()
    fields = {field.name for field in dataclasses.fields(Config)}
    ours = {"mosaic", "max_damaged_records", "gradient_accumulation_steps", "early_stop_patience", "max_skipped_steps"}
    ours |= {"moving_average_horizon", "batch_norm_momentum", "recipe", "fit_anchors", "match_threshold"}
    ours.add("keep_aspect_ratio")
    assert (fields - ours) | {key for key in RETIRED if "." not in key} == set(published)


@pytest.mark.parametrize("name", PUBLISHED, ids=str)
def test_models_golden(name):
    config = load(name)
    backbone, size, filters, cells, repeats, anchor_scale, fusion = PUBLISHED[name]
    assert (config.name, config.backbone_name, config.image_size) == (name, backbone, (size, size))
    assert (config.fpn_num_filters, config.fpn_cell_repeats, config.box_class_repeats) == (filters, cells, repeats)
    assert (config.anchor_scale, config.fpn_weight_method, config.num_classes) == (anchor_scale, fusion, 90)
    assert (config.min_level, config.max_level) == (3, 8 if name == "efficientdet-d7x" else 7)
    if "lite" in name:
        assert (config.act_type, config.mean_rgb, config.stddev_rgb) == ("relu6", (127.0,) * 3, (128.0,) * 3)
    else:
        assert config.act_type == "swish"
        assert config.mean_rgb == pytest.approx((123.675, 116.28, 103.53))
        assert config.stddev_rgb == pytest.approx((58.395, 57.12, 57.375))


def test_model_table_is_complete():
    assert set(MODELS) == set(PUBLISHED)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("source", ["hparams", "flags", "default"])
def test_a_recipe_sets_its_keys_and_no_others(name, source):
    given = {"hparams": {"hparams": f"recipe={name}"}, "flags": {"recipe": name}, "default": {"default_recipe": name}}
    config = load("efficientdet-lite0", **given[source])
    changed = config.difference(load("efficientdet-lite0"))
    assert config.recipe == name
    assert changed == ({**RECIPES[name], "recipe": name} if name != "published" else {})


def test_recipes_and_their_choices_agree():
    [field] = [field for field in dataclasses.fields(Config) if field.name == "recipe"]
    assert set(RECIPES) == set(field.metadata["choices"]) and RECIPES["published"] == {}


def test_precedence_of_recipes(monkeypatch):
    recipe = {"anchor_scale": 7.0, "momentum": 0.7, "learning_rate": 0.7, "num_epochs": 7}
    monkeypatch.setitem(RECIPES, "finetune", recipe)
    config = load("efficientdet-lite0", "recipe=finetune,learning_rate=0.5,num_epochs=5", num_epochs=3)
    assert (config.num_classes, config.anchor_scale, config.momentum) == (90, 7.0, 0.7)
    assert (config.learning_rate, config.num_epochs) == (0.5, 3)
    assert load("efficientdet-lite0", "recipe=published", default_recipe="finetune") == load("efficientdet-lite0")
    assert load("efficientdet-lite0", "recipe=published", recipe="finetune").momentum == 0.7


def test_a_saved_config_is_not_changed_by_another_table(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    config = load("efficientdet-lite0", "recipe=finetune,anchor_scale=2.12", num_epochs=40)
    path.write_text(config.to_yaml())
    others = {"optimizer": "sgd", "learning_rate": 1.0, "match_threshold": 0.3, "mosaic": True}
    monkeypatch.setitem(RECIPES, "finetune", others)
    assert load("efficientdet-lite0", str(path)) == config
    assert Config().override(yaml.safe_load(path.read_text())) == config


def test_precedence_is_defaults_model_hparams_flags():
    config = d0("num_epochs=7,learning_rate=0.1,nms_configs.sigma=0.3", num_epochs=9, nms_configs={"method": "hard"})
    assert (config.num_epochs, config.learning_rate, config.image_size) == (9, 0.1, (512, 512))
    assert config.nms_configs == NmsConfig(method="hard", sigma=0.3)
    assert d0("num_epochs=7", num_epochs=None).num_epochs == 7


@pytest.mark.parametrize(
    "values, iou_thresh, sigma, min_score",
    [
        ({"method": "hard"}, 0.5, 0.5, float("-inf")),
        ({"method": "hard", "iou_thresh": 0.0, "score_thresh": None, "sigma": 0.0}, 0.5, 0.5, float("-inf")),
        ({"method": "gaussian"}, 0.5, 0.5, 0.001),
        ({"method": "gaussian", "iou_thresh": 0.3, "score_thresh": 0.2, "sigma": 0.1}, 0.3, 0.1, 0.2),
    ],
)
def test_defaults_of_nms_thresholds(values, iou_thresh, sigma, min_score):
    config = NmsConfig(**values)
    assert (config.hard_iou_thresh, config.soft_sigma, config.min_score) == (iou_thresh, sigma, min_score)


def test_contradictions_are_checked_after_the_last_layer():
    assert d0("jitter_min=3", jitter_max=4.0).jitter_min == 3.0


def test_label_map_is_replaced_and_nms_configs_is_merged():
    config = d0("label_map={1: 'a', 2: 'b'},nms_configs.method=hard")
    config = config.override({"label_map": {3: "c"}, "nms_configs": {"sigma": 1}})
    assert config.label_map == {3: "c"}
    assert config.nms_configs == NmsConfig(method="hard", sigma=1.0)


def test_constructor_converts_values_and_config_is_frozen():
    config = Config(image_size="640x320", mean_rgb=127, stddev_rgb=(1, 2, 3))
    assert (config.image_size, config.mean_rgb) == ((320, 640), (127.0, 127.0, 127.0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.num_classes = 3
    with pytest.raises(ConfigError, match="num_classes must be"):
        dataclasses.replace(config, num_classes=0)


@pytest.mark.parametrize(
    "hparams, message",
    [
        ("lerning_rate=1", "unknown config key 'lerning_rate'; did you mean 'learning_rate'?"),
        ("method=hard", "unknown config key 'method'; did you mean 'nms_configs.method'?"),
        ("nms_configs.metod=hard", "unknown config key 'nms_configs.metod'; did you mean 'nms_configs.method'?"),
        ("qqqq=1", "unknown config key 'qqqq'"),
        ("num_classes=true", "num_classes must be a whole number in [1, inf), got True"),
        ("num_classes=2.5", "num_classes must be a whole number in [1, inf), got 2.5"),
        ("num_classes=0", "num_classes must be a whole number in [1, inf), got 0"),
        (
            "num_classes=9210045",
            "num_classes 9210045 is too large; class ids, and num_classes, must be at most 10000: number the classes "
            "from 1, as dataset/create_coco_tfrecord.py --consecutive_ids does",
        ),
        ("scale_range=1", "scale_range must be true or false, got 1"),
        ("learning_rate=nan", "learning_rate must be a number in [0, inf), got 'nan'"),
        ("learning_rate=1e999", "learning_rate must be a number in [0, inf), got inf"),
        ("learning_rate=true", "learning_rate must be a number in [0, inf), got True"),
        ("label_smoothing=1", "label_smoothing must be a number in [0, 1), got 1"),
        ("survival_prob=0", "survival_prob must be a number in (0, 1] or None, got 0"),
        ("optimizer=rmsprop", "optimizer must be one of sgd, adam, adamw, got 'rmsprop'"),
        ("optimizer=", "optimizer must be one of sgd, adam, adamw, got ''"),
        ("recipe=fine", "recipe must be one of published, finetune, got 'fine'"),
        ("recipe=", "recipe must be one of published, finetune, got ''"),
        ("recipe=['finetune']", "recipe must be one of published, finetune, got ['finetune']"),
        ("match_threshold=0", "match_threshold must be a number in (0, 1], got 0"),
        ("iou_loss_type=eiou", "iou_loss_type must be one of iou, giou, diou, ciou or None, got 'eiou'"),
        ("nms_configs.method=soft", "nms_configs.method must be one of hard, gaussian, got 'soft'"),
        ("nms_configs.max_output_size=0", "nms_configs.max_output_size must be a whole number in [1, inf), got 0"),
        ("nms_configs=hard", "nms_configs must be a mapping such as {method: hard}, got 'hard'"),
        (
            "image_size=512x",
            "image_size must be 512, \"1920x1280\" (width x height) or [height, width] in [1, inf), got '512x'",
        ),
        (
            "image_size=[1,2,3]",
            'image_size must be 512, "1920x1280" (width x height) or [height, width] in [1, inf), got [1, 2, 3]',
        ),
        (
            "image_size=0x8",
            "image_size must be 512, \"1920x1280\" (width x height) or [height, width] in [1, inf), got '0x8'",
        ),
        ("mean_rgb=[1,2]", "mean_rgb must be a number or a list of three, got [1, 2]"),
        ("stddev_rgb=0", "stddev_rgb must be a number or a list of three in (0, inf), got 0"),
        (
            "aspect_ratios=[[1,2,3]]",
            "aspect_ratios must be a list of width/height ratios or [x, y] pairs in (0, inf), got [[1, 2, 3]]",
        ),
        (
            "aspect_ratios=[]",
            "aspect_ratios must be a list of width/height ratios or [x, y] pairs in (0, inf), got []",
        ),
        ("anchor_scale=[1,2]", "anchor_scale has 2 values, but levels 3..7 need 5"),
        ("min_level=5,max_level=4", "min_level 5 must be below max_level 4"),
        ("jitter_min=3", "jitter_min 3.0 must not be above jitter_max 2.0"),
        (
            "lr_decay_method=stepwise,first_lr_drop_epoch=260",
            "first_lr_drop_epoch 260.0 must not be above second_lr_drop_epoch 250.0",
        ),
        (
            "label_map=5",
            "label_map must be coco, voc, waymo, a .yaml, .json or .pbtxt file or a mapping such as "
            "{1: cat, 2: dog} or None, got 5",
        ),
        (
            "label_map={1: True}",
            "label_map must pair whole numbers with names in quotes, got 1: True; without quotes, yes, no, on and off "
            "are booleans",
        ),
        (
            "fpn_config={'nodes': []}",
            "fpn_config must be {nodes: [{feat_level: 6, inputs_offsets: [3, 4]}, ...], weight_method: sum} or None,"
            " got {'nodes': []}",
        ),
        (
            "fpn_config={'nodes': [{'feat_level': 6, 'inputs_offsets': [3, 5]}]}",
            "fpn_config node 0 must have a feat_level in 3..7 and inputs_offsets in 0..4,"
            " got {'feat_level': 6, 'inputs_offsets': [3, 5]}",
        ),
        (
            "max_level=4,fpn_config={'nodes': [{'feat_level': 3, 'inputs_offsets': [0, 1]}]}",
            "fpn_config needs a node for each level 3..4, none has {4}",
        ),
        (
            "fpn_name=bifpn,max_level=4,fpn_config={'nodes': [{'feat_level': 3, 'inputs_offsets': [0]}]}",
            "fpn_config replaces fpn_name; remove one of them (fpn_name is 'bifpn')",
        ),
        (
            "autoaugmentation_policy=v4",
            "autoaugment_policy must be one of v0, v1, v2, v3, test, randaug or None, got 'v4'",
        ),
        ("gradient_accumulation_steps=0", "gradient_accumulation_steps must be a whole number in [1, inf), got 0"),
        ("early_stop_patience=0", "early_stop_patience must be a whole number in [1, inf) or None, got 0"),
        ("positives_momentum=1", "positives_momentum must be a number in (-inf, 1) or None, got 1"),
        ("name=my detector", "name must be letters, digits, dots, dashes and underscores, got 'my detector'"),
        ("name=a/b", "name must be letters, digits, dots, dashes and underscores, got 'a/b'"),
        ("max_skipped_steps=0", "max_skipped_steps must be a whole number in [1, inf), got 0"),
    ],
)
def test_error_messages(hparams, message):
    with pytest.raises(ConfigError) as error:
        d0(hparams)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "key, value",
    [
        ("use_keras_model", False),
        ("dataset_type", "sstable"),
        ("data_format", "channels_first"),
        ("heads", ["object_detection", "segmentation"]),
        ("seg_num_classes", 4),
        ("backbone_config", {"blocks": []}),
        ("verbose", 0),
        ("save_freq", 100),
        ("tflite_max_detections", 25),
        ("img_summary_steps", 100),
        ("nms_configs.pyfunc", True),
    ],
)
def test_error_messages_of_retired_keys(key, value):
    section, _, leaf = key.rpartition(".")
    values = {section: {leaf: value}} if section else {leaf: value}
    with pytest.raises(ConfigError) as error:
        Config().override(values)
    assert str(error.value) == f"{key}={value!r} is no longer supported: {RETIRED[key][1]}"


@pytest.mark.parametrize("name, close", [("efficientdet-d9", "efficientdet-d"), ("lite3xx", "efficientdet-lite3x")])
def test_unknown_model_lists_the_nearest_and_all(name, close):
    with pytest.raises(ConfigError, match=rf"unknown model '{name}'; did you mean '{close}.*known: .*lite4"):
        load(name)


positive = st.floats(1e-3, 1e6)
words = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)
sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
overrides = st.fixed_dictionaries(
    {},
    optional={
        "name": st.from_regex(r"[A-Za-z0-9.][A-Za-z0-9_.-]*", fullmatch=True),
        "image_size": st.integers(1, 5000) | sizes | sizes.map(lambda s: f"{s[1]}x{s[0]}"),
        "target_size": st.none() | sizes,
        "mean_rgb": st.floats(-255, 255) | st.lists(st.floats(-255, 255), min_size=3, max_size=3),
        "aspect_ratios": st.lists(positive | st.tuples(positive, positive), min_size=1),
        "anchor_scale": positive | st.lists(positive, min_size=5, max_size=5),
        "label_map": st.none() | words | st.dictionaries(st.integers(0, 100), words),
        "learning_rate": st.floats(0, 1e3),
        "clip_gradients_norm": st.none() | st.floats(0, 1e3),
        "scale_range": st.booleans(),
        "max_level": st.just(7),
        "optimizer": st.sampled_from(["sgd", "adam", "adamw"]),
        "ckpt_var_scope": st.none() | words,
        "nms_configs": st.fixed_dictionaries(
            {}, optional={"method": st.sampled_from(["hard", "gaussian", None]), "sigma": st.none() | st.floats(0, 1e9)}
        ),
        "fpn_config": st.none()
        | st.fixed_dictionaries(
            {"nodes": st.just([{"feat_level": level, "inputs_offsets": [0, level - 3]} for level in range(3, 8)])},
            optional={"weight_method": st.sampled_from(sorted(FUSIONS))},
        ),
    },
)


@given(overrides, overrides)
@example({"label_map": {1: "猫", 2: "\x85"}}, {})
def test_yaml_and_difference_round_trip(values, others):
    config, base = Config().override(values), Config().override(others)
    assert base.override(yaml.safe_load(config.to_yaml())) == config
    difference = config.difference(base)
    assert base.override(yaml.safe_load(yaml.safe_dump(difference))) == config
    assert config.difference(config) == {}


def test_import_loads_neither_tensorflow_nor_numpy():
    code = (
        "import sys\nfrom efficientdet import config\nfrom dataset import label_map\n"
        "print(sorted({'tensorflow', 'numpy', 'absl', 'tf_keras'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
