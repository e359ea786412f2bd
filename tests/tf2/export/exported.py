# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for exported files and their networks, for tests of the parity check."""

import numpy as np
import tensorflow as tf

from efficientdet.model import EfficientDetModel
from efficientdet.postprocess import Detections, to_rows
from tf2.export import rounding
from tf2.inference import drivers


def with_config(reference, values):
    """A driver of the same network with another config."""
    driver = drivers.KerasDriver.__new__(drivers.KerasDriver)
    config = reference.config.override(values)
    driver.model, driver.network = EfficientDetModel(config, reference.model.net), reference.network
    drivers.Driver.__init__(driver, config, drivers.stages(driver.model, driver.network))
    return driver


class Exported:
    """The runtime of an exported file: the results of a driver, with changed inputs or outputs."""

    batch_size = 1

    def __init__(self, driver, content, change=lambda outputs: outputs, change_inputs=lambda inputs: inputs):
        self.driver, self.content, self.change, self.change_inputs = driver, content, change, change_inputs

    def run(self, inputs):
        inputs = self.change_inputs(inputs)
        if self.content == "network":
            outputs = rounding.named(self.driver.network(tf.constant(inputs)))
            return self.change({name: output.copy() for name, output in outputs.items()})
        rows = to_rows(Detections(*map(tf.constant, self.driver.serve(list(inputs))))).numpy()
        return {"detections": self.change(rows)}


def scaled(name, factor=1.01):
    return lambda outputs: outputs | {name: outputs[name] * np.float32(factor)}
