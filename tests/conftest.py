# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""What every test file shares: how hypothesis runs, and a model that is small."""

import numpy as np
import pytest
from hypothesis import settings

from efficientdet import config as config_lib

# No deadline: the first call of a TensorFlow function traces it, which takes as long as a hundred later ones.
# Derandomized: a run of an unchanged tree gives an unchanged result.
settings.register_profile("tensorflow", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("tensorflow")


@pytest.fixture(scope="session")
def tiny_config() -> config_lib.Config:
    """The smallest detector that has every part: 64 px, 8 filters, one FPN cell, one head convolution, 3 classes."""
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
    """A function: config -> driver with random weights, whose class and box outputs differ from place to place."""

    def make(config: config_lib.Config):
        import tf_keras as keras  # and with it TensorFlow, which not every test needs

        from tf2.inference import drivers
        from tf2.weights import checkpoint

        # The same weights in every run: of boxes with nearly equal scores either may win.
        keras.utils.set_random_seed(0)
        driver = drivers.KerasDriver(config, None)
        rng = np.random.RandomState(0)
        for name, variable in checkpoint.named_variables(driver.model.net).items():
            if "predict" in name and not name.endswith("depthwise_kernel"):
                variable.assign(0.3 * rng.randn(*variable.shape))
        return driver

    return make
