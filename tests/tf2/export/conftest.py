# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the export tests: models that convert quickly."""

import numpy as np
import pytest

from efficientdet.model import EfficientDetModel


@pytest.fixture(scope="module")
def light_model(tiny_config):
    """Returns a function that builds models whose network is a single matrix product, which converts quickly."""
    colors = np.random.RandomState(0).randn(3, 9 * (3 + 4)).astype(np.float32)

    def net(inputs, training=False):
        maps = [inputs[:, :: 2**level, :: 2**level] @ colors for level in range(3, 8)]
        return [x[..., :27] for x in maps], [x[..., 27:] for x in maps]

    def build(post_mode="global", **nms_configs):
        nms_configs = {"method": "hard", "score_thresh": 0.5, "max_output_size": 20} | nms_configs
        config = tiny_config.override({"image_size": "96x64", "nms_configs": nms_configs})
        return EfficientDetModel(config, net, post_mode=post_mode)

    return build
