# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings of hypothesis, and fixtures with small models."""

import os
import threading

import numpy as np
import pytest
from hypothesis import settings

from dataset import native_log
from efficientdet import config as config_lib

native_log.hide_start_notes()  # as the commands do
# Read when XLA is first used: with optimization, it compiles a training step for several minutes on a CPU.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# No deadline: the first call of a TensorFlow function traces it. Derandomized: results are reproducible.
settings.register_profile("tensorflow", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("tensorflow")


@pytest.fixture(scope="session")
def tiny_config() -> config_lib.Config:
    """The smallest complete detector: 64 px, 8 filters, one FPN cell, one head convolution, 3 classes."""
    return config_lib.load(
        "efficientdet-lite0",
        image_size=64,
        fpn_num_filters=8,
        fpn_cell_repeats=1,
        box_class_repeats=1,
        num_classes=3,
        fpn_weight_method="fastattn",
    )


@pytest.fixture(scope="session")
def spread_driver():
    """A function: config -> driver with random weights, and class and box outputs that vary over the image."""
    from random_detector import make_spread_driver  # imports TensorFlow, which not every test needs

    return make_spread_driver


@pytest.fixture(scope="module")
def light_model(tiny_config):
    """Returns a function that builds models whose network is a single matrix product, which converts quickly."""
    from efficientdet.model import EfficientDetModel  # imports TensorFlow, which not every test needs

    colors = np.random.RandomState(0).randn(3, 9 * (3 + 4)).astype(np.float32)

    def net(inputs, training=False):
        maps = [inputs[:, :: 2**level, :: 2**level] @ colors for level in range(3, 8)]
        return [x[..., :27] for x in maps], [x[..., 27:] for x in maps]

    def build(post_mode="global", **nms_configs):
        nms_configs = {"method": "hard", "score_thresh": 0.5, "max_output_size": 20} | nms_configs
        config = tiny_config.override({"image_size": "96x64", "nms_configs": nms_configs})
        return EfficientDetModel(config, net, post_mode=post_mode)

    return build


@pytest.fixture
def op_determinism():
    """Op determinism, which main.py enables with --tf_random_seed; disabled again after the test."""
    import tensorflow as tf
    from tensorflow.python.framework import config

    tf.config.experimental.enable_op_determinism()
    yield
    assert config.is_op_determinism_enabled()
    config.disable_op_determinism()


class Overlap:
    """A function for tf.data that returns its argument; the first call waits until a second one runs in parallel."""

    def __init__(self):
        self.seen = []  # True if the first call saw a second one
        self._calls = threading.Semaphore(0)
        self._is_first = threading.Lock()

    def __call__(self, tensor):
        import tensorflow as tf

        return tf.ensure_shape(tf.numpy_function(self._wait, [tensor], tensor.dtype), tensor.shape)

    def _wait(self, value):
        if self._is_first.acquire(blocking=False):  # never released
            self.seen.append(self._calls.acquire(timeout=20))
        else:
            self._calls.release()
        return value


@pytest.fixture
def overlap():
    return Overlap()
