# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""parity: every kind of fault of a file is detected and named."""

import pathlib
import re

import numpy as np
import pytest
from exported import scaled, with_config

from efficientdet import config as config_lib
from testdata import reference_weights
from tf2.inference import drivers
from tf2.weights import checkpoint

RATIO = "raw outputs / rounding"
OF_CHECKPOINT, OF_FILE = "agreement of the checkpoint's detections", "agreement of the file's detections"
TESTDATA = pathlib.Path(__file__).parents[3] / "testdata"


def columns(*order):
    """Reorders the columns of rows [index, ymin, xmin, ymax, xmax, score, class]."""
    return lambda rows: rows[..., list(order)]


def add(column, value):
    """Adds a value to a column of all rows except padding."""

    def change(rows):
        rows = rows.copy()
        rows[rows[..., 5] > 0, column] += value
        return rows

    return change


GROSS = {
    "xyxy": {"change": columns(0, 2, 1, 4, 3, 5, 6)},
    "corners": {"change": columns(0, 3, 4, 1, 2, 5, 6)},
    "class": {"change": add(6, 1)},
    "missing": {"change": lambda rows: rows * (np.arange(100) < 3)[:, None]},
    "BGR": {"change_inputs": lambda images: images[..., ::-1]},
    "upside down": {"change_inputs": lambda images: images[:, ::-1]},
    "dark": {"change_inputs": lambda images: images // 2},
}
FINE = {
    "half a pixel": {"change": add(slice(1, 5), 0.5)},
    "boxes": {"change": lambda rows: rows * np.float32([1, 1.01, 1.01, 1.01, 1.01, 1, 1])},
    "scores": {"change": lambda rows: rows * np.float32([1, 1, 1, 1, 1, 0.99, 1])},
}


@pytest.mark.parametrize(
    "name, precision",
    [(name, "FP32") for name in (*GROSS, *FINE)] + [(name, "FP16") for name in GROSS],
)
def test_faults_of_a_detector_are_detected(check, name, precision):
    error, findings = check(fails=True, precision=precision, **(GROSS | FINE)[name])
    failed = findings[OF_CHECKPOINT]
    assert failed["value"] < failed["bound"] and failed["passed"] is False
    assert f"{OF_CHECKPOINT}: {failed['value']:.3g} (bound {failed['bound']:.3g})" in error
    assert "image" in failed["text"] and "of the checkpoint, nearest of the file: " in failed["text"]


def test_the_error_shows_the_best_unmatched_detection_and_its_nearest(check, reference, images):
    error, _ = check(fails=True, change=add(6, 1))
    best = max((reference.detect(image) for image in images), key=lambda detections: detections.scores[0])
    row = f"score {best.scores[0]:.5f}, box \\[{best.boxes[0][0]:.2f}, .*\\]"
    text = f"class {best.classes[0]}, {row} of the checkpoint, nearest of the file: class {best.classes[0] + 1}, {row}"
    assert re.search(text, error)


def test_additional_detections_of_the_file_are_detected(check, reference):
    loose = with_config(reference, {"nms_configs": {"iou_thresh": 0.9}})
    error, findings = check(fails=True, driver=loose)
    assert findings[OF_FILE]["passed"] is False and "of the file, nearest of the checkpoint: class" in error


def test_a_scaled_output_is_named(check):
    error, findings = check("network", scaled("box_predict_2"), fails=True)
    raw, ratio = findings["raw outputs"], findings[RATIO]
    assert 1e-4 < raw["value"] <= 0.0101 and raw["passed"] is None
    number = r"-?\d+\.\d+"
    assert re.match(rf"box_predict_2\[\d, \d, \d+\] of image [01] is {number}, expected {number}$", raw["text"])
    assert ratio["value"] > 1000 and ratio["passed"] is False
    differences = rf"{number} \(rms\), at most {number}; by rounding in the checkpoint \S+, at most \S+"
    assert re.match(f"box_predict_2 differs by {differences}", ratio["text"])
    assert f"{RATIO}: {ratio['value']:.3g} (bound {ratio['bound']}), {ratio['text']}" in error


class Planted:
    """A driver whose network has one changed kernel while it runs."""

    def __init__(self, driver, kernel):
        variables = checkpoint.named_variables(driver.model.net).items()
        [self.variable] = [variable for name, variable in variables if re.search(f"{kernel}(_kernel|/kernel)$", name)]
        self.driver = driver

    def network(self, inputs):
        return self._run(self.driver.network, inputs)

    def serve(self, images):
        return self._run(self.driver.serve, images)

    def _run(self, function, inputs):
        value = self.variable.numpy()
        self.variable.assign(1.01 * value)
        outputs = function(inputs)
        self.variable.assign(value)
        return outputs


@pytest.fixture(scope="module", params=["efficientdet-d0", "efficientdet-lite0"])
def published(request):
    """A driver with the weights of the reference values; its detections differ in score."""
    nms_configs = {"score_thresh": 0.4, "method": "hard"}
    driver = drivers.KerasDriver(config_lib.load(request.param, image_size=128, nms_configs=nms_configs), None)
    values = reference_weights.weights(np.load(TESTDATA / f"{request.param}.npz"))
    for name, variable in checkpoint.named_variables(driver.model.net).items():
        variable.assign(values[name])
    return driver


@pytest.mark.parametrize("content", ["network", "detector"])
@pytest.mark.parametrize("kernel", ["stem/conv2d", "cell_0/fnode0/op_after_combine5/conv/pointwise", "box-0/pointwise"])
def test_an_error_of_one_percent_in_one_kernel_is_detected(check, published, kernel, content):
    options = {"reference": published, "declared": published, "images": [reference_weights.image()]}
    error, findings = check(content, driver=Planted(published, kernel), fails=True, **options)
    assert findings[OF_CHECKPOINT]["passed"] is False and OF_CHECKPOINT in error
    if content == "network":
        assert findings[RATIO]["passed"] is False and findings[RATIO]["value"] > 300 and RATIO in error


def test_a_single_wrong_value_is_located(check, reference, images):
    def change(outputs):
        outputs["class_predict_0"][0, 3, 5, 7] += 100
        return outputs

    _, findings = check("network", change, fails=True, images=images[:1])
    inputs, _ = reference.stages["preprocess"](images[:1])
    value = reference.network(inputs)[0][0].numpy()[0, 3, 5, 7]
    assert findings["raw outputs"]["text"] == (
        f"class_predict_0[3, 5, 7] of image 0 is {value + np.float32(100):.7g}, expected {value:.7g}"
    )
    assert findings["raw outputs"]["value"] == pytest.approx(100 / max(1, abs(value)), rel=1e-5)


@pytest.mark.parametrize(
    "dropped, message",
    [
        (["class_predict_4", "box_predict_4"], r"class_predict_4 in the file None, .* \(1, 1, 1, 27\)"),
        (["class_predict_4"], "class_predict_4 in the file None"),
        (["box_predict_1"], "the file has no output box_predict_1"),
    ],
)
def test_a_missing_output_is_detected(check, dropped, message):
    def drop(outputs):
        return {name: x for name, x in outputs.items() if name not in dropped}

    error, findings = check("network", drop, fails=True)
    assert list(findings) == ["raw outputs"] and findings["raw outputs"]["value"] is None
    assert re.search(message, error)


def test_another_number_of_classes_is_detected(check):
    error, _ = check("network", lambda outputs: {name: x[..., :18] for name, x in outputs.items()}, fails=True)
    assert "shape of class_predict_0 in the file (1, 8, 8, 18), in the checkpoint (1, 8, 8, 27)" in error


@pytest.mark.parametrize("precision", ["FP32", "FP16", "INT8"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_values_fail_in_every_precision(check, precision, value):
    def change(outputs):
        outputs["box_predict_0"][0, 0, 0, 0] = value
        return outputs

    _, findings = check("network", change, fails=True, precision=precision)
    assert findings["raw outputs"]["value"] == "inf" and "box_predict_0[0, 0, 0]" in findings["raw outputs"]["text"]
    error, findings = check(fails=True, precision=precision, change=add(2, value))
    assert "the file's detections in image 0 are not all finite" in error
