# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The parity check of every model at its own size: exported files pass, errors of one percent in a kernel do not."""

import pathlib

import numpy as np
import pytest
import tf_keras as keras

from backbone.layers import BatchNormalization
from efficientdet import config as config_lib
from efficientdet.model import EfficientDetNet
from testdata import reference_weights
from tf2.export import parity, saved_model
from tf2.inference import drivers, signatures
from tf2.inference.metadata import Metadata
from tf2.weights import checkpoint

ROOT = pathlib.Path(__file__).parents[3]
FOLDERS = (ROOT / "testdata", ROOT.parent / "shared" / "reference" / "models")
NMS = {"score_thresh": 0.4, "method": "hard"}
KERNELS = (
    "stem/conv2d/kernel",
    "fpn_cells/cell_0/fnode0/op_after_combine5/conv/pointwise_kernel",
    "box_net/box-0/pointwise_kernel",
)


@pytest.fixture(params=config_lib.MODELS)
def driver(request):
    """A detector with the weights of the reference values, or such weights with other batch-norm statistics."""
    paths = [folder / f"{request.param}.npz" for folder in FOLDERS]
    path = next((path for path in paths if path.exists()), None)
    values = reference_weights.weights(np.load(path)) if path else random_weights(request.param)
    driver = drivers.KerasDriver(config_lib.load(request.param, nms_configs=NMS), None)
    for name, variable in checkpoint.named_variables(driver.model.net).items():
        variable.assign(values[name])
    return driver


def random_weights(model):
    """Returns {official name: value}; with initial batch-norm statistics, outputs would not depend on the image."""
    keras.utils.set_random_seed(0)  # drop connect
    net = EfficientDetNet(config_lib.load(model, image_size=256))
    variables = checkpoint.named_variables(net)
    for name, variable in variables.items():
        variable.assign(reference_weights.weight(name, tuple(variable.shape)))
    for layer in net.submodules:
        if isinstance(layer, BatchNormalization):
            layer.momentum = 0.0
    net(np.float32(reference_weights.image()[np.newaxis]) / 64 - 2, training=True)
    return {name: variable.numpy() for name, variable in variables.items()}


@pytest.mark.slow
@pytest.mark.long
def test_a_saved_model_passes_and_an_error_in_one_kernel_fails(driver, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "LATENCY_RUNS", 1)
    path, images = str(tmp_path / "saved_model"), parity.generated_images()[:1]
    saved_model.saved_model(signatures.frozen(driver.model, 1), path, Metadata(driver.config), batch_size=1)
    report = parity.check(driver, path, images=images)
    assert report.verdict == "passed" and 0 < report.findings[1].value < 5
    variables = checkpoint.named_variables(driver.model.net)
    for kernel in KERNELS:
        [variable] = [variable for name, variable in variables.items() if name.endswith(kernel)]
        value = variable.numpy()
        variable.assign(1.01 * value)
        with pytest.raises(parity.ParityError, match="raw outputs / rounding: "):
            parity.check(driver, path, images=images)
        variable.assign(value)
