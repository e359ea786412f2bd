# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Identification of the model that weights belong to, by their names and shapes; for error messages and as a guess."""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from backbone import efficientnet_builder
from efficientdet import config as config_lib


def looks_like(values: Mapping[str, np.ndarray]) -> str:
    """Describes the published models that have the structure of the weights, and the number of classes.

    Args:
        values: weights by official name, or by object key if they were read for a network of another structure.

    Returns:
        Text such as "efficientdet-d6 or efficientdet-d7 with num_classes 90".
    """
    if _is_detector(values):
        models = " or ".join(models_like(values)) or "a customized EfficientDet"
        return f"{models} with num_classes {num_classes(values)}"
    backbones = sorted({name.split("/")[0] for name in values if name.startswith("efficientnet-")})
    return f"a backbone, {backbones[0]}" if backbones else "no EfficientDet"


def models_like(values: Mapping[str, np.ndarray]) -> list[str]:
    """Returns the published models that have the structure of the weights, see `looks_like`."""
    if not _is_detector(values):
        return []
    kernel = next(name for name in values if re.match(r"class_net/(class-predict|classes)/(pointwise_)?kernel", name))
    structure = (
        _count(r"(?:efficientnet-[^/]+/blocks_|backbone/_blocks/)(\d+)/", values),
        any(re.search(r"/_?se/", name) for name in values),
        _count(r"fpn_cells/(?:cell_|cells/)(\d+)/", values),
        _count(r"class_net/(?:class-|conv_ops/)(\d+)/", values),
        values[kernel].shape[-2],
        any("/WSM" in name for name in values),
    )
    return [name for name in config_lib.MODELS if _structure(config_lib.load(name)) == structure]


def _is_detector(values: Mapping[str, np.ndarray]) -> bool:
    return {"class_net/class-predict/bias", "box_net/box-predict/bias"} <= values.keys()


def num_classes(values: Mapping[str, np.ndarray]) -> int:
    """Returns the number of class logits per anchor of a detector's weights."""
    num_anchors = values["box_net/box-predict/bias"].size // 4
    return values["class_net/class-predict/bias"].size // num_anchors


def _structure(config: config_lib.Config) -> tuple:
    blocks = efficientnet_builder.block_args(config.backbone_name)
    return (
        len(blocks),
        blocks[0].se_ratio is not None,
        config.fpn_cell_repeats,
        config.box_class_repeats,
        config.fpn_num_filters,
        config.fpn_weight_method != "sum",
    )


def _count(pattern: str, names: Iterable[str]) -> int:
    return len({match[1] for name in names if (match := re.match(pattern, name))})
