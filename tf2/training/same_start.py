# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Comparison of the workers before the first step: settings, records, software and weights must be equal."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from dataset.records import find_files
from efficientdet import config as config_lib
from efficientdet.config import Config
from tf2.training import cluster as cluster_lib

SHOWN = 4  # differences per worker in the message
FILES_AT_ONCE = 16
ROOT = Path(__file__).parents[2]
PACKAGES = ("backbone", "efficientdet", "dataset", "tf2")


def check(values: Sequence[Mapping[str, Any]], remedy: str) -> None:
    """Compares the values of all workers with those of the first one.

    Args:
        values: what must be equal, by name, of each worker; compared as text.
        remedy: advice, the last part of the message.

    Raises:
        ValueError: with the workers that differ and their values.
    """
    first, *others = values
    found = [(index, _compare(first, other)) for index, other in enumerate(others, 1)]
    if any(differences for _, differences in found):
        describe = cluster_lib.current().describe
        different = "; ".join(f"{describe(index)} has {differences}" for index, differences in found if differences)
        raise ValueError(f"{different} on {describe(0)}; {remedy}")


def _compare(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Returns the differences between two workers as text; empty if there are none."""
    names = [name for name in {**first, **other} if str(first.get(name)) != str(other.get(name))]
    shown = [f"{name} {other.get(name)} instead of {first.get(name)}" for name in names[:SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def software() -> dict[str, str]:
    """Returns versions of TensorFlow and of this code, with a digest of its files, by name."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    version = f"{config_lib.VERSION} ({digest.hexdigest()[:8]})"
    return {"TensorFlow": tf.__version__, "efficientdet-tf2": version}


def settings(config: Config, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys of a config, and options of the command, by name.

    Args:
        config: the config; its strategy may differ.
        options: values by name of the flag. Of paths to weights only the last part counts: machines may have them in
            different folders, and `state` compares the weights themselves.
    """
    keys = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    del keys["strategy"]
    paths = {name: options[name] and os.path.basename(options[name].rstrip("/")) for name in ("ckpt", "backbone_ckpt")}
    return {**keys, **options, **paths}


def files(pattern: str | None) -> str:
    """Returns number, size and a digest of names and sizes of the files that match a pattern; folders may differ."""
    if not pattern:
        return "no files"
    paths = find_files(pattern)
    with futures.ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        sizes = list(pool.map(lambda path: tf.io.gfile.stat(path).length, paths))
    listed = sorted(zip(map(os.path.basename, paths), sizes))
    digest = hashlib.sha256(repr(listed).encode()).hexdigest()[:8]
    return f"{len(paths)} files of {sum(sizes)} bytes ({digest})"


def state(entries: Mapping[str, np.ndarray]) -> str:
    """Returns a digest of the state of a training, see `Trainer.state`."""
    digest = hashlib.sha256()
    for name, value in sorted(entries.items()):
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()[:8]
