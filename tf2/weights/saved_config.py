# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reading of config.yaml, which training saves beside its checkpoints."""

import os
import reprlib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import yaml

from dataset import label_map
from dataset.files import read_file, reason_of
from efficientdet.config import Config, ConfigError


def read(directory: str, defaults: Mapping[str, Any] | None = None) -> Config | None:
    """Reads the config of a training, with class names in `label_map`; None if the directory has no config.yaml.

    Args:
        directory: the folder of the training, or its archive/ subfolder; local or remote.
        defaults: config keys that the file overrides.

    Raises:
        ConfigError: if this version cannot read the file.
    """
    path = os.path.join(directory, "config.yaml")
    if not tf.io.gfile.exists(path):
        return None
    try:
        values = yaml.safe_load(read_file(path))
        if not isinstance(values, dict):
            raise ConfigError(f"expected `key: value` lines, got {reprlib.repr(values)}")
        return with_class_names(Config().override(defaults or {}, values))
    except (tf.errors.OpError, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"cannot read {path} ({reason_of(error)})") from error


def with_class_names(config: Config) -> Config:
    """Returns the config with `label_map` replaced by the class names that it refers to."""
    return config.override({"label_map": label_map.resolve(config.label_map) or None})
