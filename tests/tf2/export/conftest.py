# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the parity check: a small detector, images, and the check of a file that computes almost the same."""

import json

import numpy as np
import pytest
import tf_keras as keras
from exported import Exported

from tf2.export import parity
from tf2.inference import drivers
from tf2.inference.metadata import Metadata
from tf2.weights import checkpoint


@pytest.fixture(autouse=True)
def few_runs(monkeypatch):
    monkeypatch.setattr(parity, "LATENCY_RUNS", 2)


@pytest.fixture(scope="module")
def reference(tiny_config):
    """A tiny checkpoint that detects a few dozen boxes of all scores, different ones per image."""
    keras.utils.set_random_seed(0)
    nms_configs = {"score_thresh": 0.4, "method": "hard", "iou_thresh": 0.3}
    driver = drivers.KerasDriver(tiny_config.override({"nms_configs": nms_configs, "label_map": {2: "b"}}), None)
    rng = np.random.RandomState(0)
    for name, variable in checkpoint.named_variables(driver.model.net).items():
        if name == "class_net/class-predict/bias":
            variable.assign(rng.randn(*variable.shape) - 1)
        elif name.endswith(("predict/pointwise_kernel", "bias", "beta")):
            variable.assign((1 if name.startswith("class_net/class-predict") else 0.3) * rng.randn(*variable.shape))
    return driver


@pytest.fixture(scope="module")
def images():
    rng = np.random.RandomState(1)
    return [rng.randint(0, 256, size, np.uint8) for size in ((96, 80, 3), (40, 150, 3))]


@pytest.fixture
def check(reference, images, tmp_path, monkeypatch):
    """Returns a function that checks an Exported; it returns the report, or the error message and the findings."""

    def run(content="detector", change=lambda outputs: outputs, *, driver=None, declared=None, fails=False, **options):
        path = tmp_path / "model.tflite"
        path.write_bytes(bytes(1234))
        inputs = {key: options.pop(key) for key in ("change_inputs",) if key in options}
        runtime = Exported(driver or reference, content, change, **inputs)
        config, precision = (declared or reference).config, options.pop("precision", "FP32")
        exported = drivers.ArtifactDriver(runtime, Metadata(config, content, precision, "model.ckpt-7"))
        monkeypatch.setattr(parity.drivers, "open_artifact", lambda path: exported)
        options = {"images": images, **options}
        checkpoint_driver = options.pop("reference", reference)
        report = tmp_path / "model.tflite.parity.json"
        if not fails:
            return parity.check(checkpoint_driver, str(path), **options)
        with pytest.raises(
            parity.ParityError, match=rf"^{path} differs from its checkpoint: .*; see {report}$"
        ) as raised:
            parity.check(checkpoint_driver, str(path), **options)
        content = json.loads(report.read_text())
        assert content["verdict"] == "failed" and list(tmp_path.iterdir()) in ([path, report], [report, path])
        return str(raised.value), content["findings"]

    return run
