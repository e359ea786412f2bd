# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""EfficientNets by name: the base network and the rules that scale it by the coefficients of `choices.BACKBONES`.

Reference: Tan and Le, ICML 2019 (https://arxiv.org/abs/1905.11946), table 1 and equation 3.
"""

import math

from backbone.choices import BACKBONES
from backbone.efficientnet_model import BlockArgs, Model

STEM_FILTERS = 32
# Consecutive blocks of the base network: their number, and the first; later ones keep resolution and filters.
STAGES = [
    (1, BlockArgs(3, 1, 1, 32, 16, 0.25)),
    (2, BlockArgs(3, 2, 6, 16, 24, 0.25)),
    (2, BlockArgs(5, 2, 6, 24, 40, 0.25)),
    (3, BlockArgs(3, 2, 6, 40, 80, 0.25)),
    (3, BlockArgs(5, 1, 6, 80, 112, 0.25)),
    (4, BlockArgs(5, 2, 6, 112, 192, 0.25)),
    (1, BlockArgs(3, 1, 6, 192, 320, 0.25)),
]


def round_filters(filters: int, width: float, divisor: int = 8) -> int:
    """Returns filters * width, rounded to a multiple of divisor that is at least 0.9 * filters * width.

    >>> round_filters(32, width=1.4)
    48
    """
    scaled = filters * width
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


def block_args(name: str) -> list[BlockArgs]:
    """Returns the scaled blocks, first to last, of a network by name, a key of `choices.BACKBONES`.

    Lite networks have no squeeze-excite; their stem and the depth of their first and last stage are not scaled.

    >>> len(block_args("efficientnet-b0")), len(block_args("efficientnet-b7"))
    (16, 55)
    """
    width, depth = BACKBONES[name]
    lite = is_lite(name)
    blocks, filters = [], STEM_FILTERS if lite else round_filters(STEM_FILTERS, width)
    for stage, (repeats, base) in enumerate(STAGES):
        if not (lite and stage in (0, len(STAGES) - 1)):
            repeats = math.ceil(depth * repeats)
        first = base._replace(
            input_filters=filters,
            output_filters=round_filters(base.output_filters, width),
            se_ratio=None if lite else base.se_ratio,
        )
        filters = first.output_filters
        blocks += [first] + [first._replace(input_filters=filters, strides=1)] * (repeats - 1)
    return blocks


def is_lite(name: str) -> bool:
    """Returns True for a network of the lite family, which is made for fixed-point hardware.

    >>> is_lite("efficientnet-lite0"), is_lite("efficientnet-b0")
    (True, False)
    """
    return name.startswith("efficientnet-lite")


def get_model(name: str, *, act_type: str | None = None, survival_prob: float = 1.0, recompute: bool = False) -> Model:
    """Builds a backbone with random weights.

    Args:
        name: efficientnet-b0 .. efficientnet-b7 or efficientnet-lite0 .. efficientnet-lite4.
        act_type: a name of `choices.ACTIVATIONS`; None for swish, or relu6 in the lite family.
        survival_prob: probability in (0, 1] that drop connect keeps the last block; earlier blocks have a higher one.
        recompute: trades training time for memory, see `Model`.

    Returns:
        The network; its variables are created by `build` or the first call.

    Raises:
        ValueError: if the name is unknown.

    Example:
        >>> list(get_model("efficientnet-b0").feature_channels)
        [16, 24, 40, 112, 320]
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; use one of {', '.join(BACKBONES)}")
    return Model(
        block_args(name),
        act_type=act_type or ("relu6" if is_lite(name) else "swish"),
        survival_prob=survival_prob,
        recompute=recompute,
        name=name,
    )
