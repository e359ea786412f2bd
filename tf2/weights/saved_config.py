# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""config.yaml, which training saves beside its checkpoints: reading, and comparison with another config.

Local folders are read without TensorFlow, so that commands can report errors in their flags immediately.
"""

import os
import reprlib
from collections.abc import Mapping
from typing import Any

import yaml

from dataset import file_access, label_map
from efficientdet.config import Config, ConfigError
from tf2.weights import published

FILE = "config.yaml"
# Keys that determine the names and shapes of the weights.
STRUCTURE = (
    *("num_classes", "backbone_name", "min_level", "max_level", "num_scales", "aspect_ratios"),
    *("fpn_name", "fpn_weight_method", "fpn_config", "fpn_cell_repeats", "fpn_num_filters", "box_class_repeats"),
    *("separable_conv", "apply_bn_for_resampling", "conv_bn_act_pattern"),
)
# Further keys that the weights were trained for: with other values they load, and detect wrongly.
SEMANTICS = ("act_type", "conv_after_downsample", "anchor_scale", "mean_rgb", "stddev_rgb", "scale_range")
# Values with the same meaning.
SYNONYMS = {"fpn_name": {None: "bifpn", "bifpn_dyn": "bifpn"}, "fpn_weight_method": {None: "fastattn"}}


def read(directory: str, defaults: Mapping[str, Any] | None = None) -> Config | None:
    """Reads the config of a training, with class names in `label_map`; None if the directory has no config.yaml.

    Args:
        directory: the folder of the training, or its archive/ subfolder; local or remote.
        defaults: config keys that the file overrides.

    Raises:
        ConfigError: if this version cannot read the file.
    """
    path = os.path.join(directory, FILE)
    if not file_access.exists(path):
        return None
    try:
        values = yaml.safe_load(_content(path))
        if not isinstance(values, dict):
            raise ConfigError(f"expected `key: value` lines, got {reprlib.repr(values)}")
        return with_class_names(Config().override(defaults or {}, values))
    except (OSError, yaml.YAMLError, ValueError) as error:
        from dataset.files import reason_of  # imports TensorFlow

        raise ConfigError(f"cannot read {path} ({reason_of(error)})") from error


def with_class_names(config: Config) -> Config:
    """Returns the config with `label_map` replaced by the class names that it refers to."""
    return config.override({"label_map": label_map.resolve(config.label_map) or None})


def folder_of(path: str) -> str:
    """Returns the folder of a checkpoint, see `checkpoint.find`; the path itself if there is no such file."""
    is_file = file_access.exists(f"{path}.index") or (file_access.exists(path) and not file_access.is_folder(path))
    return os.path.dirname(path) or "." if is_file else path


def file_of(path: str) -> str:
    """Returns the path of config.yaml beside a checkpoint, see `folder_of`."""
    return os.path.join(folder_of(path), FILE)


def has_checkpoint(folder: str) -> bool:
    """Returns True if a folder exists and has a checkpoint in TensorFlow's format."""
    return file_access.is_folder(folder) and any(name.endswith(".index") for name in file_access.names_in(folder))


def released_name(path: str) -> str | None:
    """Returns the name of released weights, given by it or by an unpacked folder of that name; otherwise None."""
    if path in published.ARCHIVES and not file_access.exists(path):
        return path
    folder = folder_of(path)
    name = os.path.basename(os.path.normpath(folder))
    return name if name in published.DETECTORS and has_checkpoint(folder) else None


def _content(path: str) -> bytes:
    if not file_access.is_remote(path):
        with open(path, "rb") as file:
            return file.read()
    import tensorflow as tf

    from dataset.files import read_file, reason_of

    try:
        return read_file(path)
    except tf.errors.OpError as error:
        raise OSError(reason_of(error)) from error


def changes(saved: Config, new: Config) -> dict[str, str]:
    """Returns the keys of a config that differ from the one of a training, with both values in one line.

    The line of label_map has the names that differ; keys of nms_configs are written nms_configs.method and so on.

    >>> changes(Config(), Config(learning_rate=0.01, map_freq=2))
    {'learning_rate': 'learning_rate: 0.08 -> 0.01', 'map_freq': 'map_freq: 1 -> 2'}
    """
    before, after = _values_unlike(saved, new), _values_unlike(new, saved)
    return {key: f"{key}: {_short(before[key])} -> {_short(after[key])}" for key in after}


def differs(key: str, saved: Config, new: Config) -> bool:
    """Returns True if two configs differ in the meaning of a key, see SYNONYMS.

    >>> differs("fpn_name", Config(), Config(fpn_name="bifpn"))
    False
    """
    before, after = (getattr(config, key) for config in (saved, new))
    if key in SYNONYMS:
        before, after = (SYNONYMS[key].get(value, value) for value in (before, after))
    return before != after


def _values_unlike(config: Config, other: Config) -> dict[str, Any]:
    """Returns the values of a config that differ from another, by key; of label_map only the names that differ."""
    names, others = label_map.resolve(config.label_map), label_map.resolve(other.label_map)
    changed = config.override({"label_map": None}).difference(other.override({"label_map": None}))
    changed |= {f"nms_configs.{key}": value for key, value in changed.pop("nms_configs", {}).items()}
    if names != others:
        changed["label_map"] = {number: name for number, name in names.items() if others.get(number) != name}
    return changed


def _short(value: Any) -> str:
    return value if isinstance(value, str) else reprlib.repr(value)
