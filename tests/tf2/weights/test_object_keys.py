# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""object_keys: keys of the object-based format for the variables of published networks."""

import pathlib

import numpy as np
import pytest

from tf2.weights.object_keys import object_keys

TESTDATA = pathlib.Path(__file__).parents[3] / "testdata"

# By hand from the lists of published keys, one per pattern. blocks_0 has no expansion, blocks_3 has one.
KEYS = {
    "efficientnet-b0/stem/conv2d/kernel": "backbone/_stem/_conv_stem/kernel",
    "efficientnet-b0/stem/tpu_batch_normalization/gamma": "backbone/_stem/_bn/gamma",
    "efficientnet-b0/blocks_0/depthwise_conv2d/depthwise_kernel": "backbone/_blocks/0/_depthwise_conv/depthwise_kernel",
    "efficientnet-b0/blocks_0/tpu_batch_normalization/gamma": "backbone/_blocks/0/_bn1/gamma",
    "efficientnet-b0/blocks_0/tpu_batch_normalization_1/beta": "backbone/_blocks/0/_bn2/beta",
    "efficientnet-b0/blocks_0/conv2d/kernel": "backbone/_blocks/0/_project_conv/kernel",
    "efficientnet-b0/blocks_0/se/conv2d/bias": "backbone/_blocks/0/_se/_se_reduce/bias",
    "efficientnet-b0/blocks_3/conv2d/kernel": "backbone/_blocks/3/_expand_conv/kernel",
    "efficientnet-b0/blocks_3/conv2d_1/kernel": "backbone/_blocks/3/_project_conv/kernel",
    "efficientnet-b0/blocks_3/tpu_batch_normalization/moving_mean": "backbone/_blocks/3/_bn0/moving_mean",
    "efficientnet-b0/blocks_3/tpu_batch_normalization_2/gamma": "backbone/_blocks/3/_bn2/gamma",
    "efficientnet-b0/blocks_3/se/conv2d_1/kernel": "backbone/_blocks/3/_se/_se_expand/kernel",
    "resample_p6/conv2d/bias": "resample_layers/0/conv2d/bias",
    "resample_p6/bn/gamma": "resample_layers/0/bn/gamma",
    "fpn_cells/cell_0/fnode1/WSM_1": "fpn_cells/cells/0/fnodes/1/WSM_1",
    "fpn_cells/cell_0/fnode1/resample_0_2_6/bn/beta": "fpn_cells/cells/0/fnodes/1/resample_layers/0/bn/beta",
    "fpn_cells/cell_2/fnode7/op_after_combine12/conv/bias": "fpn_cells/cells/2/fnodes/7/op_after_combine/conv_op/bias",
    "fpn_cells/cell_2/fnode7/op_after_combine12/bn/beta": "fpn_cells/cells/2/fnodes/7/op_after_combine/bn/beta",
    "class_net/class-1/pointwise_kernel": "class_net/conv_ops/1/pointwise_kernel",
    "class_net/class-0-bn-3/gamma": "class_net/bns/0/0/gamma",
    "box_net/box-2-bn-5/moving_variance": "box_net/bns/2/2/moving_variance",
    "class_net/class-predict/bias": "class_net/classes/bias",
    "box_net/box-predict/depthwise_kernel": "box_net/boxes/depthwise_kernel",
}


def test_object_keys_golden():
    assert object_keys(KEYS) == {key: name for name, key in KEYS.items()}


@pytest.mark.parametrize("model", ["d0", "lite0"])
def test_published_object_keys(model):
    keys = np.load(TESTDATA / "variables.npz")[f"{model}/object_keys"].tolist()
    names = np.load(TESTDATA / f"efficientdet-{model}.npz")["var_names"].tolist()
    expected = dict(zip(keys, names, strict=True))
    assert len(expected) == len(names) and object_keys(expected.values()) == expected
