# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Names of the backbones and activations. Imports no TensorFlow, so that a config is checked before TensorFlow loads.

Reference: Tan and Le, ICML 2019 (https://arxiv.org/abs/1905.11946), equation 3.
"""

from typing import NamedTuple


class Coefficients(NamedTuple):
    """Factors by which a network is scaled from the base network."""

    width: float
    depth: float


BACKBONES = {
    "efficientnet-b0": Coefficients(1.0, 1.0),
    "efficientnet-b1": Coefficients(1.0, 1.1),
    "efficientnet-b2": Coefficients(1.1, 1.2),
    "efficientnet-b3": Coefficients(1.2, 1.4),
    "efficientnet-b4": Coefficients(1.4, 1.8),
    "efficientnet-b5": Coefficients(1.6, 2.2),
    "efficientnet-b6": Coefficients(1.8, 2.6),
    "efficientnet-b7": Coefficients(2.0, 3.1),
    "efficientnet-lite0": Coefficients(1.0, 1.0),
    "efficientnet-lite1": Coefficients(1.0, 1.1),
    "efficientnet-lite2": Coefficients(1.1, 1.2),
    "efficientnet-lite3": Coefficients(1.2, 1.4),
    "efficientnet-lite4": Coefficients(1.4, 1.8),
}

# Each is a function of this name in layers.py.
ACTIVATIONS = ("swish", "silu", "swish_native", "hswish", "relu", "relu6", "mish")
