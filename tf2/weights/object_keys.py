# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Keys of the object-based checkpoint format, which follow attributes of the network instead of variable names."""

import re
from collections.abc import Iterable, Mapping


def object_keys(names: Iterable[str]) -> dict[str, str]:
    """Maps the keys of the object-based format to variable names.

    Args:
        names: official names of all variables of one network.

    Returns:
        {object key without its suffix: official name}.
    """
    names = set(names)
    levels = {int(match[1]) for name in names if (match := re.match(r"class_net/class-0-bn-(\d+)/", name))}
    min_level = min(levels, default=0)
    return {_object_key(name, names, min_level): name for name in names}


def _object_key(name: str, names: set[str], min_level: int) -> str:
    head, *rest = name.split("/")
    if head.startswith("efficientnet-"):
        return "/".join(["backbone", *_backbone_key(head, rest, names)])
    if head.startswith("resample_p"):
        return "/".join(["resample_layers", str(int(head.removeprefix("resample_p")) - 6), *rest])
    if head == "fpn_cells":
        key = re.sub(r"/cell_(\d+)/fnode(\d+)/", r"/cells/\1/fnodes/\2/", name)
        key = re.sub(r"/resample_(\d+)_\d+_\d+/", r"/resample_layers/\1/", key)
        return re.sub(
            r"/op_after_combine\d+/(conv)?", lambda m: "/op_after_combine/" + ("conv_op" if m[1] else ""), key
        )
    key = re.sub(r"/(class|box)-(\d+)-bn-(\d+)/", lambda m: f"/bns/{m[2]}/{int(m[3]) - min_level}/", name)
    key = re.sub(r"/(class|box)-(\d+)/", r"/conv_ops/\2/", key)
    return key.replace("/class-predict/", "/classes/").replace("/box-predict/", "/boxes/")


def _backbone_key(backbone: str, rest: list[str], names: set[str]) -> list[str]:
    block, *layer, variable = rest
    if block == "stem":
        return ["_stem", {"conv2d": "_conv_stem"}.get(layer[0], "_bn"), variable]
    if layer[0] == "se":
        return ["_blocks", block.removeprefix("blocks_"), "_se", *_rename(layer[1:], _SE_KEYS), variable]
    # A block with expand_ratio 1 has no expansion convolution and normalization, so its numbering is shifted by one.
    expands = f"{backbone}/{block}/conv2d_1/kernel" in names
    keys = _MBCONV_KEYS if expands else _UNEXPANDED_KEYS
    return ["_blocks", block.removeprefix("blocks_"), *_rename(layer, keys), variable]


def _rename(layer: list[str], keys: Mapping[str, str]) -> list[str]:
    return [keys.get(part, part) for part in layer]


_SE_KEYS = {"conv2d": "_se_reduce", "conv2d_1": "_se_expand"}
_MBCONV_KEYS = {
    "conv2d": "_expand_conv",
    "conv2d_1": "_project_conv",
    "depthwise_conv2d": "_depthwise_conv",
    "tpu_batch_normalization": "_bn0",
    "tpu_batch_normalization_1": "_bn1",
    "tpu_batch_normalization_2": "_bn2",
}
_UNEXPANDED_KEYS = {
    "conv2d": "_project_conv",
    "depthwise_conv2d": "_depthwise_conv",
    "tpu_batch_normalization": "_bn1",
    "tpu_batch_normalization_1": "_bn2",
}
