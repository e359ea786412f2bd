# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Weights and image from which the reference values in efficientdet-*.npz were computed.

The weights of a model would take megabytes, so each is a function of the name and shape of its variable. The files
contain only the batch-norm statistics, without which the outputs would not depend on the image.
"""

import zlib
from collections.abc import Mapping

import numpy as np


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the float64 value of a variable: noise in steps of 1/127, seeded by its name and scaled by its kind.

    Args:
        name: official name, such as "class_net/class-0/bias".
        shape: shape of the variable.
    """
    noise = np.random.RandomState(zlib.crc32(name.encode())).uniform(-1, 1, shape)
    noise = np.round(noise * 127) / 127
    kind = name.rsplit("/", 1)[-1]
    if kind == "gamma":
        return 1 + 0.2 * noise
    if kind in ("beta", "bias"):
        return 0.2 * noise
    if kind.startswith("WSM"):
        return 1 + 0.5 * noise
    fan_in = np.prod(shape[:2] if kind == "depthwise_kernel" else shape[:-1])
    return noise * np.sqrt(6 / fan_in)


def shapes(figures: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Returns {official name: shape} of all variables of a model, from its file of reference values."""
    pairs = zip(figures["var_names"].tolist(), figures["var_shapes"].tolist())
    return {name: tuple(map(int, filter(None, shape.split(",")))) for name, shape in pairs}


def weights(figures: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns {official name: float32 value} of all variables of a model, from its file of reference values."""
    return {
        name: np.float32(figures[f"bn:{name}"] if f"bn:{name}" in figures else weight(name, shape))
        for name, shape in shapes(figures).items()
    }


def image(size: int = 256, seed: int = 0) -> np.ndarray:
    """Returns an image of squares of 32 pixels in random colours with noise, [size, size, 3] uint8."""
    random = np.random.RandomState(seed)
    squares = random.randint(0, 256, (size // 32, size // 32, 3)).repeat(32, 0).repeat(32, 1)
    return np.clip(squares + random.randint(-40, 41, (size, size, 3)), 0, 255).astype(np.uint8)


def sample(values: np.ndarray, count: int = 96) -> np.ndarray:
    """Returns the values of an output that its `_sample` entry contains, [count]."""
    values = np.ravel(values)
    return values[np.random.RandomState(1).randint(0, values.size, count)]
