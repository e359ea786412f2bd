# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of hparams: key=value pairs, YAML files, and the message of every error."""

import dataclasses

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from efficientdet.config import Config, ConfigError, NmsConfig, load
from efficientdet.hparams import parse_pairs, read_yaml

FPN_CONFIG = {
    "nodes": [{"feat_level": level, "inputs_offsets": [0, level - 3]} for level in range(3, 8)],
    "weight_method": "sum",
}


def d0(hparams: str = "") -> Config:
    return load("efficientdet-d0", hparams)


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
        ("label_map={1: bottle, 2: can}", {"label_map": {1: "bottle", 2: "can"}}),
        ("label_map={1:bottle,2:can},num_classes=2", {"label_map": {1: "bottle", 2: "can"}, "num_classes": 2}),
        ("label_map={bottle: 1, hot dog: 2}", {"label_map": {"bottle": 1, "hot dog": 2}}),
        ("label_map={0: background, 1: traffic light}", {"label_map": {0: "background", 1: "traffic light"}}),
        ("label_map={1: yes, 2: no, 3: on, 4: off}", {"label_map": {1: "yes", 2: "no", 3: "on", 4: "off"}}),
        ("label_map={1: 007, 2: 2020-01-31, 3: 12:30}", {"label_map": {1: "007", 2: "2020-01-31", 3: "12:30"}}),
        ("label_map={1: can, 2: '2024', 3: 'a, b'}", {"label_map": {1: "can", 2: "2024", 3: "a, b"}}),
        ("nms_configs={method: hard, sigma: 0.3}", {"nms_configs": {"method": "hard", "sigma": 0.3}}),
        ("label_map=coco,num_classes=91", {"label_map": "coco", "num_classes": 91}),
        ("label_map=/data/run=3/my.yaml", {"label_map": "/data/run=3/my.yaml"}),
        ("label_map='a,b.yaml'", {"label_map": "a,b.yaml"}),
        ("ckpt_var_scope=a*b", {"ckpt_var_scope": "a*b"}),
        (f"fpn_config={FPN_CONFIG}", {"fpn_config": FPN_CONFIG}),
        ("use_keras_model=true,heads=['object_detection'],data_format=channels_last,nms_configs.pyfunc=false", {}),
        ("autoaugmentation_policy=None", {}),
    ],
)
def test_pairs_golden(hparams, expected):
    assert d0(hparams).difference(d0()) == expected


@pytest.mark.parametrize(
    "hparams, message",
    [
        (
            "aspect_ratios=1.0,2.0",
            "'2.0' is not key=value; write a list in brackets, as in aspect_ratios=[1.0, 2.0]",
        ),
        (
            "aspect_ratios=[wide]",
            "aspect_ratios=[wide] cannot be parsed; inside brackets, text needs quotes, as in ['a', 'b']",
        ),
        ("label_map={1: }", "label_map={1: } cannot be parsed: '1:' is not a pair such as 1: cat"),
        ("label_map={cat}", "label_map={cat} cannot be parsed: 'cat' is not a pair such as 1: cat"),
        ("label_map={[1]: a}", "label_map={[1]: a} cannot be parsed: '[1]: a' is not a pair such as 1: cat"),
        ("label_map={1: a, 1: b}", "label_map={1: a, 1: b} has a duplicate key; remove one of them"),
        ("label_map={1: 2024}", "label_map must pair whole numbers with names in quotes, got 1: 2024"),
        ("label_map={1: cat, 2: 1e3}", "label_map must pair whole numbers with names in quotes, got 2: 1000.0"),
        ("label_map={1: none}", "label_map must pair whole numbers with names in quotes, got 1: None"),
        ("label_map={1: 'a'", "unbalanced bracket in \"label_map={1: 'a'\"; put the value in quotes"),
        ("ckpt_var_scope=a)", "unbalanced bracket in 'ckpt_var_scope=a)'; put the value in quotes"),
        ("label_map=o'brien", 'unbalanced quote in "label_map=o\'brien"; put the value in quotes'),
        ("label_map={1: 'a', 1: 'b'}", "label_map={1: 'a', 1: 'b'} has a duplicate key; remove one of them"),
        ("gamma=1,gamma=2", "gamma is given twice in 'gamma=1,gamma=2'"),
        ("gamma=1,gamma.b.c=2", "gamma.b.c is given twice in 'gamma=1,gamma.b.c=2'"),
        ("=3", "'=3' is not key=value; write a list in brackets, as in aspect_ratios=[1.0, 2.0]"),
        ("d0", "hparams must be a file ending in .yaml or key=value pairs, got 'd0'"),
        ("no_such.yaml", "cannot read no_such.yaml: No such file or directory"),
    ],
)
def test_error_messages(hparams, message):
    with pytest.raises(ConfigError) as error:
        d0(hparams)
    assert str(error.value) == message


def test_duplicate_keys_in_yaml(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("learning_rate: 0.1\nnms_configs: {method: hard}\nlearning_rate: 0.2\n")
    with pytest.raises(ConfigError, match=r"a\.yaml, line 3 is not valid YAML: 'learning_rate' is given twice$"):
        d0(str(path))
    path.write_text("base: &base {method: hard, sigma: 1.0}\nnms_configs: {<<: *base, sigma: 2.0}\n")
    assert read_yaml(str(path))["nms_configs"] == {
        "method": "hard",
        "sigma": 2.0,
    }  # an override of a merged key is valid


def test_yaml_file(tmp_path):
    path = tmp_path / "run=1.yaml"  # an existing path with "=" is a file
    path.write_text(
        "image_size: [1280, 1920]\nlearning_rate: 1e-3\naspect_ratios: [[1.4, 0.7], [1.0, 1.0]]\n"
        "label_map: {1: a, 2: b}\nnms_configs:\n  method: hard\n"
    )
    config = d0(str(path))
    assert (config.image_size, config.learning_rate) == ((1280, 1920), 0.001)
    assert config.aspect_ratios == ((1.4, 0.7), (1.0, 1.0))
    assert config.label_map == {1: "a", 2: "b"}
    path.write_text("label_map: {1: traffic light, 2: on}\n")
    with pytest.raises(ConfigError, match=r"names in quotes, got 2: True; without quotes, yes, no, on and off are"):
        d0(str(path))
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
def test_error_messages_of_yaml(tmp_path, text, message):
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


plain_text = st.text(st.characters(categories=("L", "N"), include_characters=" ,=[](){}*.:/"))
literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | plain_text,
    lambda inner: st.lists(inner) | st.dictionaries(st.integers() | plain_text, inner),
    max_leaves=8,
)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), literals))
def test_pairs_invert_repr(values):
    assert parse_pairs(",".join(f"{key}={value!r}" for key, value in values.items())) == values


@given(st.sampled_from([field.name for field in dataclasses.fields(Config)]), literals)
def test_any_value_is_accepted_or_raises_config_error(key, value):
    try:
        config = Config().override({key: value})
    except ConfigError as error:
        assert key in str(error)
    else:
        assert Config().override(yaml.safe_load(config.to_yaml())) == config


@given(st.text(max_size=30), st.sampled_from(["", "image_size=", "label_map=", "nms_configs."]))
def test_any_text_is_accepted_or_raises_config_error(text, start):
    try:
        d0(start + text)
    except ConfigError as error:
        assert str(error)
