# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Config: the published defaults and models, every way to type a value, every refusal."""

import dataclasses
import pathlib
import subprocess
import sys

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from efficientdet import config as config_lib
from efficientdet.config import MODELS, RETIRED, Config, ConfigError, NmsConfig, load, parse_pairs

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

# Published defaults, retired keys included, as a config.yaml of the published program holds them.
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


# Every level takes its own input and the finest one.
OWN_FPN = {
    "nodes": [{"feat_level": level, "inputs_offsets": [0, level - 3]} for level in range(3, 8)],
    "weight_method": "sum",
}


def d0(hparams: str = "", **flags) -> Config:
    return load("efficientdet-d0", hparams, **flags)


def test_defaults_are_the_published_ones_and_all_of_them():
    published = yaml.safe_load(PUBLISHED_YAML)
    assert Config().override(published) == Config()
    fields = {field.name for field in dataclasses.fields(Config)}
    ours = {"mosaic", "max_damaged_records", "gradient_accumulation_steps", "early_stop_patience", "max_skipped_steps"}
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


@pytest.mark.parametrize(
    "hparams, expected",
    [
        ("", {}),
        ("gamma=1.5, ,", {}),
        ("num_classes=20, moving_average_decay=0", {"num_classes": 20, "moving_average_decay": 0.0}),
        ("learning_rate=1e-3", {"learning_rate": 0.001}),
        ("scale_range=true,input_rand_hflip=False", {"scale_range": True, "input_rand_hflip": False}),
        ("clip_gradients_norm=None", {"clip_gradients_norm": None}),
        ("fpn_name=", {}),
        ("image_size=768", {"image_size": [768, 768]}),
        ("image_size=1920x1280", {"image_size": [1280, 1920]}),
        ("image_size=1920X1280", {"image_size": [1280, 1920]}),
        ("image_size=(1280,1920)", {"image_size": [1280, 1920]}),
        ("image_size=1280*1920", {"image_size": [1280, 1920]}),
        ("target_size='896x640'", {"target_size": [640, 896]}),
        ("aspect_ratios=[[1.4,0.7],[1.0,1.0]]", {"aspect_ratios": [[1.4, 0.7], [1.0, 1.0]]}),
        ("aspect_ratios=[1, (0.7, 1.4)]", {"aspect_ratios": [1.0, [0.7, 1.4]]}),
        ("aspect_ratios=1.0*3.0", {"aspect_ratios": [1.0, 3.0]}),
        ("anchor_scale=1*2*3*4*5", {"anchor_scale": [1.0, 2.0, 3.0, 4.0, 5.0]}),
        ("mean_rgb=127.0,stddev_rgb=[1,2,3]", {"mean_rgb": [127.0] * 3, "stddev_rgb": [1.0, 2.0, 3.0]}),
        ("nms_configs.method=hard", {"nms_configs": {"method": "hard"}}),
        ("nms_configs.method=None", {"nms_configs": {"method": "hard"}}),
        (
            "nms_configs={'method': 'hard'},nms_configs.sigma=0.3",
            {"nms_configs": {"method": "hard", "sigma": 0.3}},
        ),
        ("label_map={1:'a',2:'b, or c'}", {"label_map": {1: "a", 2: "b, or c"}}),
        ('label_map={1: "it\'s"}', {"label_map": {1: "it's"}}),
        (r"label_map={1: 'it\'s'}", {"label_map": {1: "it's"}}),
        ("label_map={'cat': 1}", {"label_map": {"cat": 1}}),
        ("label_map=coco,num_classes=91", {"label_map": "coco", "num_classes": 91}),
        ("label_map=/data/run=3/my.yaml", {"label_map": "/data/run=3/my.yaml"}),
        ("label_map='a,b.yaml'", {"label_map": "a,b.yaml"}),
        ("ckpt_var_scope=a*b", {"ckpt_var_scope": "a*b"}),
        (f"fpn_config={OWN_FPN}", {"fpn_config": OWN_FPN}),
        ("use_keras_model=true,heads=['object_detection'],data_format=channels_last,nms_configs.pyfunc=false", {}),
        ("autoaugmentation_policy=None", {}),
    ],
)
def test_pairs(hparams, expected):
    assert d0(hparams).difference(d0()) == expected


def test_order_is_defaults_model_hparams_flags():
    config = d0("num_epochs=7,learning_rate=0.1,nms_configs.sigma=0.3", num_epochs=9, nms_configs={"method": "hard"})
    assert (config.num_epochs, config.learning_rate, config.image_size) == (9, 0.1, (512, 512))
    assert config.nms_configs == NmsConfig(method="hard", sigma=0.3)
    assert d0("num_epochs=7", num_epochs=None).num_epochs == 7


def test_keys_are_checked_together_only_after_the_last_layer():
    assert d0("jitter_min=3", jitter_max=4.0).jitter_min == 3.0


def test_label_map_is_replaced_and_nms_merged():
    config = d0("label_map={1: 'a', 2: 'b'},nms_configs.method=hard")
    config = config.override({"label_map": {3: "c"}, "nms_configs": {"sigma": 1}})
    assert config.label_map == {3: "c"}
    assert config.nms_configs == NmsConfig(method="hard", sigma=1.0)


def test_config_is_frozen_and_typed_when_made_directly():
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
        ("scale_range=1", "scale_range must be true or false, got 1"),
        ("learning_rate=nan", "learning_rate must be a number in [0, inf), got 'nan'"),
        ("learning_rate=1e999", "learning_rate must be a number in [0, inf), got inf"),
        ("learning_rate=true", "learning_rate must be a number in [0, inf), got True"),
        ("label_smoothing=1", "label_smoothing must be a number in [0, 1), got 1"),
        ("survival_prob=0", "survival_prob must be a number in (0, 1] or None, got 0"),
        ("optimizer=rmsprop", "optimizer must be one of sgd, adam, got 'rmsprop'"),
        ("optimizer=", "optimizer must be one of sgd, adam, got ''"),
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
        (
            "aspect_ratios=1.0,2.0",
            "'2.0' is not key=value; a list is typed in brackets, as in aspect_ratios=[1.0, 2.0]",
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
            "label_map must be coco, voc, waymo, a .yaml or .json file or a mapping such as "
            "{1: 'cat', 2: 'dog'} or None, got 5",
        ),
        ("label_map={1: True}", "label_map pairs whole numbers with names in quotes, got 1: True"),
        (
            "label_map={1: cat}",
            "label_map={1: cat} cannot be read; inside brackets, text needs quotes, as in {1: 'cat'}",
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
        ("label_map={1: 'a'", "unbalanced bracket in \"label_map={1: 'a'\"; put the value in quotes"),
        ("ckpt_var_scope=a)", "unbalanced bracket in 'ckpt_var_scope=a)'; put the value in quotes"),
        ("label_map=o'brien", 'unbalanced quote in "label_map=o\'brien"; put the value in quotes'),
        ("label_map={1: 'a', 1: 'b'}", "label_map={1: 'a', 1: 'b'} gives a key twice; leave one of them out"),
        ("gamma=1,gamma=2", "gamma is given twice in 'gamma=1,gamma=2'"),
        ("gamma=1,gamma.b.c=2", "gamma.b.c is given twice in 'gamma=1,gamma.b.c=2'"),
        ("=3", "'=3' is not key=value; a list is typed in brackets, as in aspect_ratios=[1.0, 2.0]"),
        ("d0", "hparams must be a file ending in .yaml or key=value pairs, got 'd0'"),
        ("no_such.yaml", "cannot read no_such.yaml: No such file or directory"),
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
def test_bad_hparams_get_one_sentence(hparams, message):
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
def test_retired_keys_say_what_to_do(key, value):
    section, _, leaf = key.rpartition(".")
    values = {section: {leaf: value}} if section else {leaf: value}
    with pytest.raises(ConfigError) as error:
        Config().override(values)
    assert str(error.value) == f"{key}={value!r} is not supported any more: {RETIRED[key][1]}"


def test_a_file_that_gives_a_key_twice_is_refused(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("learning_rate: 0.1\nnms_configs: {method: hard}\nlearning_rate: 0.2\n")
    with pytest.raises(ConfigError, match=r"a\.yaml, line 3 is not valid YAML: 'learning_rate' is given twice$"):
        d0(str(path))
    path.write_text("base: &base {method: hard, sigma: 1.0}\nnms_configs: {<<: *base, sigma: 2.0}\n")
    assert config_lib.read_yaml(str(path))["nms_configs"] == {"method": "hard", "sigma": 2.0}  # that is no repetition


@pytest.mark.parametrize("name, close", [("efficientdet-d9", "efficientdet-d"), ("lite3xx", "efficientdet-lite3x")])
def test_unknown_model_names_the_nearest_and_all(name, close):
    with pytest.raises(ConfigError, match=rf"unknown model '{name}'; did you mean '{close}.*known: .*lite4"):
        load(name)


def test_yaml_file(tmp_path):
    path = tmp_path / "run=1.yaml"  # a path with "=" that exists is a file
    path.write_text(
        "image_size: [1280, 1920]\nlearning_rate: 1e-3\naspect_ratios: [[1.4, 0.7], [1.0, 1.0]]\n"
        "label_map: {1: a, 2: b}\nnms_configs:\n  method: hard\n"
    )
    config = d0(str(path))
    assert (config.image_size, config.learning_rate) == ((1280, 1920), 0.001)
    assert config.aspect_ratios == ((1.4, 0.7), (1.0, 1.0))
    assert config.label_map == {1: "a", 2: "b"}
    assert config.nms_configs == NmsConfig(method="hard")


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "gamma: 2\naspect_ratios: [!!python/tuple [1.4, 0.7]]\n",
            ", line 2: tags such as !!python/tuple are not read",
        ),
        ("a: !!python/object/apply:os.system ['true']\n", ", line 1: tags such as !!python/tuple are not read"),
        ("gamma: 2\nalpha: [1\n", ", line 3 is not valid YAML: expected ',' or ']'"),
        ("gamma: 2024-13-45\n", " is not valid YAML: month must be in 1..12"),
        ("gamma: \0\n", " is not valid YAML: unacceptable character"),
        ("- gamma\n", " must hold `key: value` lines, got ['gamma']"),
        ("", " must hold `key: value` lines, got None"),
    ],
)
def test_bad_yaml_gets_one_sentence(tmp_path, text, message):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        d0(str(path))
    assert str(error.value).startswith(f"{path}{message}")
    assert "\n" not in str(error.value)


def test_directory_instead_of_yaml(tmp_path):
    path = tmp_path / "a.yaml"
    path.mkdir()
    with pytest.raises(ConfigError, match=r"cannot read .*a\.yaml: Is a directory"):
        d0(str(path))


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
        "optimizer": st.sampled_from(["sgd", "adam"]),
        "ckpt_var_scope": st.none() | words,
        "nms_configs": st.fixed_dictionaries(
            {}, optional={"method": st.sampled_from(["hard", "gaussian", None]), "sigma": st.none() | st.floats(0, 1e9)}
        ),
        "fpn_config": st.none()
        | st.fixed_dictionaries(
            {"nodes": st.just(OWN_FPN["nodes"])},
            optional={"weight_method": st.sampled_from(config_lib.FUSIONS)},
        ),
    },
)


@given(overrides, overrides)
@example({"label_map": {1: "猫", 2: "\x85"}}, {})
def test_yaml_and_difference_lead_back(values, others):
    config, base = Config().override(values), Config().override(others)
    assert base.override(yaml.safe_load(config.to_yaml())) == config
    difference = config.difference(base)
    assert base.override(yaml.safe_load(yaml.safe_dump(difference))) == config
    assert config.difference(config) == {}


plain_text = st.text(st.characters(categories=("L", "N"), include_characters=" ,=[](){}*.:/"))
literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | plain_text,
    lambda inner: st.lists(inner) | st.dictionaries(st.integers() | plain_text, inner),
    max_leaves=8,
)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), literals))
def test_pairs_read_what_python_writes(values):
    assert parse_pairs(",".join(f"{key}={value!r}" for key, value in values.items())) == values


@given(st.sampled_from([field.name for field in dataclasses.fields(Config)]), literals)
def test_any_value_is_read_or_refused_in_words(key, value):
    try:
        config = Config().override({key: value})
    except ConfigError as error:
        assert key in str(error)
    else:
        assert Config().override(yaml.safe_load(config.to_yaml())) == config


@given(st.text(max_size=30), st.sampled_from(["", "image_size=", "label_map=", "nms_configs."]))
def test_any_text_is_read_or_refused_in_words(text, start):
    try:
        d0(start + text)
    except ConfigError as error:
        assert str(error)


def test_import_brings_neither_tensorflow_nor_numpy():
    code = (
        "import sys\nfrom efficientdet import config\nfrom dataset import label_map\n"
        "print(sorted({'tensorflow', 'numpy', 'absl', 'tf_keras'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
