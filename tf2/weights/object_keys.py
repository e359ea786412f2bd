# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Keys of the object-based checkpoint format, which follow attributes of the network instead of variable names."""

import re
from collections.abc import Iterable

# Layers that are numbered per block: conv2d, conv2d_1. A block with expand_ratio 1 lacks the first of each kind.
_BLOCK_LAYERS = {"conv2d": ("_expand_conv", "_project_conv"), "tpu_batch_normalization": ("_bn0", "_bn1", "_bn2")}
# Parts of names and their replacements, applied in this order.
_PARTS = {
    r"^efficientnet-[^/]+/stem/conv2d/": "backbone/_stem/_conv_stem/",
    r"^efficientnet-[^/]+/stem/tpu_batch_normalization/": "backbone/_stem/_bn/",
    r"^efficientnet-[^/]+/blocks_(\d+)/": r"backbone/_blocks/\1/",
    r"/depthwise_conv2d/": "/_depthwise_conv/",
    r"/se/conv2d/": "/_se/_se_reduce/",
    r"/se/conv2d_1/": "/_se/_se_expand/",
    r"/cell_(\d+)/fnode(\d+)/": r"/cells/\1/fnodes/\2/",
    r"/resample_(\d+)_\d+_\d+/": r"/resample_layers/\1/",
    r"/op_after_combine\d+/": "/op_after_combine/",
    r"/op_after_combine/conv/": "/op_after_combine/conv_op/",
    r"/(class|box)-(\d+)/": r"/conv_ops/\2/",
    r"/class-predict/": "/classes/",
    r"/box-predict/": "/boxes/",
}


def object_keys(names: Iterable[str]) -> dict[str, str]:
    """Maps the keys of the object-based format to variable names.

    Args:
        names: official names of all variables of one network.

    Returns:
        {object key without its suffix: official name}.
    """
    names = set(names)
    min_level = min((int(m[1]) for name in names if (m := re.match(r"class_net/class-0-bn-(\d+)/", name))), default=0)

    def block_layer(match):
        block, kind, number = match.groups(default=0)
        is_expanded = f"{block}/conv2d_1/kernel" in names
        return f"{block}/{_BLOCK_LAYERS[kind][int(number) + (not is_expanded)]}/"

    def object_key(name):
        key = re.sub(r"(.*/blocks_\d+)/(conv2d|tpu_batch_normalization)(?:_(\d))?/", block_layer, name)
        key = re.sub(r"^resample_p(\d+)/", lambda match: f"resample_layers/{int(match[1]) - 6}/", key)
        key = re.sub(r"/(class|box)-(\d+)-bn-(\d+)/", lambda m: f"/bns/{m[2]}/{int(m[3]) - min_level}/", key)
        for pattern, replacement in _PARTS.items():
            key = re.sub(pattern, replacement, key)
        return key

    return {object_key(name): name for name in names}
