# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The parity check of every model at its own size: exported files pass, errors of one percent in a kernel do not."""

import pathlib

import numpy as np
import pytest

from efficientdet import config as config_lib
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
def driver(request, spread_driver):
    """The weights of the reference values, where there are any, and random ones otherwise."""
    config = config_lib.load(request.param, nms_configs=NMS)
    paths = [folder / f"{request.param}.npz" for folder in FOLDERS]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return spread_driver(config)
    driver = drivers.KerasDriver(config, None)
    values = reference_weights.weights(np.load(path))
    for name, variable in checkpoint.named_variables(driver.model.net).items():
        variable.assign(values[name])
    return driver


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
