# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""A detector with random weights, of which the fixture `spread_driver` and `replicated_evaluation.py` make copies."""

import numpy as np
import tf_keras as keras

from efficientdet import config as config_lib
from tf2.inference import drivers
from tf2.weights import checkpoint


def make_spread_driver(config: config_lib.Config) -> drivers.KerasDriver:
    """Returns a driver with random weights, and class and box outputs that vary over the image."""
    # A fixed seed: the order of boxes with nearly equal scores depends on the weights.
    keras.utils.set_random_seed(0)
    driver = drivers.KerasDriver(config, None)
    rng = np.random.RandomState(0)
    for name, variable in checkpoint.named_variables(driver.model.net).items():
        if "predict" in name and not name.endswith("depthwise_kernel"):
            variable.assign(0.3 * rng.randn(*variable.shape))
    return driver
