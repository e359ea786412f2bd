# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""EfficientNets by name: one table of coefficients, one base network, and the rules that scale it.

Reference: Tan and Le, ICML 2019 (https://arxiv.org/abs/1905.11946), table 1 and equation 3.
"""

import dataclasses
import math
from typing import NamedTuple

from backbone.efficientnet_model import BlockArgs, Model


class Coefficients(NamedTuple):
    """How far a network is scaled from the base network."""

    width: float
    depth: float


COEFFICIENTS = {
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


class Stage(NamedTuple):
    """A run of blocks of the base network; only the first has its strides and input filters."""

    repeats: int
    block: BlockArgs


STEM_FILTERS = 32
STAGES = [
    Stage(1, BlockArgs(3, 1, 1, 32, 16, 0.25)),
    Stage(2, BlockArgs(3, 2, 6, 16, 24, 0.25)),
    Stage(2, BlockArgs(5, 2, 6, 24, 40, 0.25)),
    Stage(3, BlockArgs(3, 2, 6, 40, 80, 0.25)),
    Stage(3, BlockArgs(5, 1, 6, 80, 112, 0.25)),
    Stage(4, BlockArgs(5, 2, 6, 112, 192, 0.25)),
    Stage(1, BlockArgs(3, 1, 6, 192, 320, 0.25)),
]


def round_filters(filters: int, width: float, divisor: int = 8) -> int:
    """Scaled filters, rounded to a multiple of the divisor that loses at most a tenth."""
    scaled = filters * width
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


def block_args(name: str) -> list[BlockArgs]:
    """The blocks of a network, first to last.

    Lite networks have no squeeze-excite, and neither their stem nor the number of blocks of their
    first and last stage is scaled.

    Args:
        name: a key of `COEFFICIENTS`.

    Returns:
        One BlockArgs a block, with scaled filters.
    """
    width, depth = COEFFICIENTS[name]
    lite = is_lite(name)
    blocks = []
    for stage, (repeats, base) in enumerate(STAGES):
        if not (lite and stage in (0, len(STAGES) - 1)):
            repeats = math.ceil(depth * repeats)
        first = dataclasses.replace(
            base,
            input_filters=blocks[-1].output_filters if blocks else stem_filters(name),
            output_filters=round_filters(base.output_filters, width),
            se_ratio=None if lite else base.se_ratio,
        )
        rest = dataclasses.replace(first, input_filters=first.output_filters, strides=1)
        blocks += [first] + [rest] * (repeats - 1)
    return blocks


def stem_filters(name: str) -> int:
    """Output channels of the stem."""
    return STEM_FILTERS if is_lite(name) else round_filters(STEM_FILTERS, COEFFICIENTS[name].width)


def is_lite(name: str) -> bool:
    """Whether a network is of the lite family, made for fixed-point hardware."""
    return name.startswith("efficientnet-lite")


def get_model(name: str, *, act_type: str | None = None, survival_prob: float = 1.0, recompute: bool = False) -> Model:
    """Builds a backbone by name, with random weights.

    Args:
        name: efficientnet-b0 .. efficientnet-b7, efficientnet-lite0 .. efficientnet-lite4.
        act_type: activation; None for the family's own, swish or (lite) relu6.
        survival_prob: of the last block under drop connect; earlier blocks survive more often.
        recompute: trains with less memory and more time, see `Model`.

    Returns:
        The unbuilt network; a call builds it.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in COEFFICIENTS:
        raise ValueError(f"unknown backbone {name!r}; use one of {', '.join(COEFFICIENTS)}")
    return Model(
        block_args(name),
        stem_filters=stem_filters(name),
        act_type=act_type or ("relu6" if is_lite(name) else "swish"),
        survival_prob=survival_prob,
        recompute=recompute,
        name=name,
    )
