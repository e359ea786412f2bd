# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""proof: a faithful file passes, each kind of fault is caught and named; and the AP of any driver over records."""

import io
import json
import math
import pathlib
import re
import types

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from PIL import Image

from dataset import tfrecord
from efficientdet.model import EfficientDetModel
from efficientdet.postprocess import Detections, to_rows
from tf2.evaluation import evaluator
from tf2.evaluation.evaluator import Evaluation
from tf2.export import parity
from tf2.inference import drivers, runtimes
from tf2.inference import signatures as serving
from tf2.inference.metadata import METADATA_FILE, Metadata, append_zip
from tf2.weights import checkpoint

FOUND, OWN = "agreement of the checkpoint's detections", "agreement of the file's detections"
SAMPLE = str(pathlib.Path(__file__).parents[3] / "testdata" / "sample.tfrecord")


@pytest.fixture(autouse=True)
def few_runs(monkeypatch):
    monkeypatch.setattr(parity, "LATENCY_RUNS", 2)


@pytest.fixture(scope="module")
def reference(tiny_config):
    """A tiny checkpoint that detects a few dozen boxes of all scores, other ones in other pictures."""
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


def with_config(reference, values):
    """The same network, used by another config."""
    driver = drivers.KerasDriver.__new__(drivers.KerasDriver)
    config = reference.config.override(values)
    driver.model, driver.network = EfficientDetModel(config, reference.model.net), reference.network
    drivers.Driver.__init__(driver, config, drivers.stages(driver.model, driver.network))
    return driver


class Exported:
    """Stands in for the runtime of a file: what a driver computes, through a fault on the way in or out."""

    batch_size = 1

    def __init__(self, driver, content, change=lambda outputs: outputs, change_inputs=lambda inputs: inputs):
        self.driver, self.content, self.change, self.change_inputs = driver, content, change, change_inputs

    def run(self, inputs):
        inputs = self.change_inputs(inputs)
        if self.content == "network":
            outputs = parity._named(self.driver.network(tf.constant(inputs)))
            return self.change({name: output.copy() for name, output in outputs.items()})
        rows = to_rows(Detections(*map(tf.constant, self.driver.serve(list(inputs))))).numpy()
        return {"detections": self.change(rows)}


@pytest.fixture
def check(reference, images, tmp_path, monkeypatch):
    """Holds an Exported against the reference; returns the sheet, or the error and the report."""

    def run(content="detector", change=lambda outputs: outputs, *, driver=None, told=None, fails=False, **options):
        path = tmp_path / "model.tflite"
        path.write_bytes(bytes(1234))
        inputs = {key: options.pop(key) for key in ("change_inputs",) if key in options}
        runtime = Exported(driver or reference, content, change, **inputs)
        told = Metadata((told or reference).config, content, options.pop("precision", "FP32"), "model.ckpt-7")
        exported = drivers.ArtifactDriver(runtime, told)
        monkeypatch.setattr(parity.drivers, "open_artifact", lambda path: exported)
        options = {"images": images, **options}
        report = tmp_path / "model.tflite.report.json"
        if not fails:
            return parity.check(reference, str(path), **options)
        with pytest.raises(parity.ProofError, match=rf"^{path} does not compute .*; see {report}$") as raised:
            parity.check(reference, str(path), **options)
        content = json.loads(report.read_text())
        assert content["verdict"] == "failed" and list(tmp_path.iterdir()) in ([path, report], [report, path])
        return str(raised.value), content["findings"]

    return run


def test_a_faithful_detector_passes(check, reference, images):
    sheet = check()
    raw, ours, theirs = sheet.findings
    assert sheet.verdict == "passed" and raw.value is None and raw.text == "the file does not give them"
    assert ours.value == theirs.value == 1 and ours.passed and theirs.passed
    counts = [reference.detect(image).valid_len for image in images]
    assert ours.compared == theirs.compared == sum(counts) > 10
    assert f"{sum(counts)} of {sum(counts)} rows, their largest difference 0 " in ours.text


def test_a_faithful_network_passes(check, images):
    sheet = check("network", lambda outputs: {name: x * (1 + 1e-6) for name, x in outputs.items()})
    raw, ours, theirs = sheet.findings
    # By hand: levels of 8, 4, 2, 1, 1 pixels a side have 86 places of 9 anchors with 3 logits and 4 codes.
    assert raw.compared == len(images) * 86 * 9 * 7
    assert 0 < raw.value < 3e-6 and raw.bound == 1e-4 and raw.passed and ours.passed and theirs.passed


def test_the_report_and_the_table(check, tmp_path, capsys):
    sheet = check(precision="FP16")
    report = json.loads((tmp_path / "model.tflite.report.json").read_text())
    assert report["verdict"] == "passed" and report["bytes"] == 1234 and report["checkpoint"] == "random weights"
    assert report["artifact"] == str(tmp_path / "model.tflite")
    assert list(report["findings"]) == ["raw outputs", FOUND, OWN]
    assert report["findings"][OWN]["bound"] == 0.9
    assert report["nms"]["method"] == "hard" and report["nms"]["iou_thresh"] == 0.3
    assert report["nms"]["score_thresh"] == 0.4 and report["nms"]["max_output_size"] == 100
    assert report["pictures"] == {"source": "given", "sizes": ["80x96", "150x40"]}
    latency = report["latency"]
    assert latency["runs"] == 2 and latency["picture"] == "80x96"
    assert 0 < latency["artifact"]["median_ms"] <= latency["artifact"]["p99_ms"]
    assert 0 < latency["checkpoint"]["median_ms"] <= latency["checkpoint"]["p99_ms"]
    assert report["metadata"] == json.loads(sheet.metadata.to_json())
    assert set(report["versions"]) == {"efficientdet", "python", "tensorflow", "numpy"}
    printed = capsys.readouterr().out
    assert printed == "".join(f"{line}\n" for line in sheet.table())
    for text in ("(detector, FP16) against random weights", "method hard, iou_thresh 0.3, score_thresh 0.4", "1,234 b"):
        assert text in printed


def columns(*order):
    """Rows [index, ymin, xmin, ymax, xmax, score, class] with their columns in another order."""
    return lambda rows: rows[..., list(order)]


def add(column, value):
    """Something added to a column of all rows that are no padding."""

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
def test_faults_of_a_detector_are_caught(check, name, precision):
    error, findings = check(fails=True, precision=precision, **(GROSS | FINE)[name])
    failed = findings[FOUND]
    assert failed["value"] < failed["bound"] and failed["passed"] is False
    assert f"{FOUND}: {failed['value']:.3g} against a bound of {failed['bound']:g}" in error
    assert "picture" in failed["text"] and "of the checkpoint, nearest of the file: " in failed["text"]


def test_what_is_told_of_a_fault_is_the_strongest_row_and_its_nearest(check, reference, images):
    error, _ = check(fails=True, change=add(6, 1))
    best = max((reference.detect(image) for image in images), key=lambda found: found.scores[0])
    row = f"score {best.scores[0]:.5f}, box \\[{best.boxes[0][0]:.2f}, .*\\]"
    text = f"class {best.classes[0]}, {row} of the checkpoint, nearest of the file: class {best.classes[0] + 1}, {row}"
    assert re.search(text, error)


def test_detections_that_only_the_file_has_are_caught(check, reference):
    loose = with_config(reference, {"nms_configs": {"iou_thresh": 0.9}})
    error, findings = check(fails=True, driver=loose)
    assert findings[OWN]["passed"] is False and "of the file, nearest of the checkpoint: class" in error


@pytest.mark.parametrize(
    "values, told",
    [
        ({"nms_configs": {"score_thresh": 0.6}}, r"nms_configs is {'score_thresh': 0.6} and not {'score_thresh': 0.4}"),
        ({"nms_configs": {"iou_thresh": 0.2}}, "nms_configs is {'iou_thresh': 0.2} and not {'iou_thresh': 0.3}"),
        ({"nms_configs": {"max_output_size": 5}}, "nms_configs is"),
        ({"mean_rgb": 0}, r"mean_rgb is \[0.0, 0.0, 0.0\] and not \[127.0, 127.0, 127.0\]"),
        ({"stddev_rgb": 64}, "stddev_rgb is"),
        ({"label_map": {1: "b"}}, "other class names"),
    ],
)
def test_another_config_is_caught_in_what_the_file_says_and_in_what_it_does(check, reference, values, told):
    driver = with_config(reference, values)
    error, findings = check(fails=True, driver=driver, told=driver)
    assert list(findings) == ["config"] and re.search(f"config: not that of the checkpoint: {told}", error)
    if "label_map" not in values and "max_output_size" not in str(values):
        _, findings = check(fails=True, driver=driver)
        assert findings[FOUND]["passed"] is False


def scaled(name, factor=1.01):
    return lambda outputs: outputs | {name: outputs[name] * np.float32(factor)}


def test_a_scaled_output_is_caught_and_named(check):
    error, findings = check("network", scaled("box_predict_2"), fails=True)
    raw = findings["raw outputs"]
    assert 1e-4 < raw["value"] <= 0.0101 and raw["passed"] is False
    number = r"-?\d+\.\d+"
    assert re.match(rf"box_predict_2\[\d, \d, \d+\] of picture [01] is {number} and not {number}$", raw["text"])
    assert raw["text"] in error
    raw, *_ = check("network", scaled("box_predict_2", 1.001), precision="FP16").findings
    assert raw.bound == 0.01 and 1e-4 < raw.value < 0.0011 and raw.passed


def test_one_wrong_value_is_found_where_it_is(check, reference, images):
    def change(outputs):
        outputs["class_predict_0"][0, 3, 5, 7] += 100
        return outputs

    _, findings = check("network", change, fails=True, images=images[:1])
    inputs, _ = reference.stages["preprocess"](images[:1])
    value = reference.network(inputs)[0][0].numpy()[0, 3, 5, 7]
    assert findings["raw outputs"]["text"] == (
        f"class_predict_0[3, 5, 7] of picture 0 is {value + np.float32(100):.7g} and not {value:.7g}"
    )
    assert findings["raw outputs"]["value"] == pytest.approx(100 / max(1, abs(value)), rel=1e-5)


@pytest.mark.parametrize(
    "dropped, told",
    [
        (["class_predict_4", "box_predict_4"], r"class_predict_4 of the file is None, .* \(1, 1, 1, 27\)"),
        (["class_predict_4"], "class_predict_4 of the file is None"),
        (["box_predict_1"], "the file gives no box_predict_1"),
    ],
)
def test_a_dropped_output_is_caught(check, dropped, told):
    def drop(outputs):
        return {name: x for name, x in outputs.items() if name not in dropped}

    error, findings = check("network", drop, fails=True)
    assert list(findings) == ["raw outputs"] and findings["raw outputs"]["value"] is None
    assert re.search(told, error)


def test_another_number_of_classes_is_caught(check):
    error, _ = check("network", lambda outputs: {name: x[..., :18] for name, x in outputs.items()}, fails=True)
    assert "class_predict_0 of the file is (1, 8, 8, 18), of the checkpoint (1, 8, 8, 27)" in error


@pytest.mark.parametrize("precision", ["FP32", "FP16", "INT8"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number_fails_in_every_precision(check, precision, value):
    def change(outputs):
        outputs["box_predict_0"][0, 0, 0, 0] = value
        return outputs

    _, findings = check("network", change, fails=True, precision=precision)
    assert findings["raw outputs"]["value"] == "inf" and "box_predict_0[0, 0, 0]" in findings["raw outputs"]["text"]
    error, findings = check(fails=True, precision=precision, change=add(2, value))
    assert "the file's detections in picture 0 are not all finite" in error


def test_int8_is_judged_by_ap_alone(check):
    sheet = check("network", scaled("box_predict_2"), precision="INT8")
    assert sheet.verdict == "not judged" and [finding.passed for finding in sheet.findings] == [None] * 4
    assert sheet.findings[0].value > 1e-4 and sheet.findings[1].value > 0.9
    assert sheet.findings[-1].text == "not judged: needs --val_file_pattern"


@pytest.mark.parametrize(
    "precision, max_ap_drop, passes", [("INT8", 0.02, False), ("FP32", 0.02, False), ("INT8", 1, True)]
)
def test_a_drop_of_ap_is_judged(check, monkeypatch, reference, precision, max_ap_drop, passes):
    figures = iter([{"AP": 0.5, "AP50": 0.8, "AR": 0}, {"AP": 0.47, "AP50": 0.7, "AR": 0}])

    def run_driver(driver, evaluation):
        return types.SimpleNamespace(metric=types.SimpleNamespace(result=lambda: next(figures)), num_images=72)

    monkeypatch.setattr(parity.evaluator, "run_driver", run_driver)
    options = {"precision": precision, "evaluation": Evaluation("val-*"), "max_ap_drop": max_ap_drop}
    if passes:
        sheet = check(**options)
        assert sheet.verdict == "passed" and sheet.facts["ap"]["images"] == 72
        return
    error, findings = check(fails=True, **options)
    assert findings["AP drop"]["value"] == pytest.approx(0.03) and findings["AP drop"]["compared"] == 72
    assert "AP drop: 0.03 against a bound of 0.02, AP 0.4700, AP50 0.7000 against the checkpoint's AP 0.5000" in error


def detections(*rows):
    """Detections of rows (class, score, box)."""
    classes, scores, boxes = zip(*rows) if rows else ([], [], [])
    return Detections(np.reshape(boxes, [-1, 4]), np.float64(scores), np.int32(classes), len(rows))


BOX, FAR = (10, 10, 30, 50), (100, 100, 140, 120)


@pytest.mark.parametrize(
    "other, agree, difference",
    [
        ([(1, 0.9, BOX)], [True], 0),
        ([(2, 0.9, BOX)], [False], 0),
        ([(1, 0.905, BOX)], [True], 0.005),
        ([(1, 0.92, BOX)], [False], 0),
        ([(1, 0.9, (10.2, 10, 30, 50))], [True], 0.005),  # 0.2 pixels of a longer side of 40
        ([(1, 0.9, (10.6, 10, 30, 50))], [False], 0),
        ([(1, 0.9, FAR)], [False], 0),
        ([], [], 0),
        ([(1, 0.905, BOX), (1, 0.9, BOX)], [False, True], 0),  # the closest, and only one
    ],
)
def test_rows_that_agree(other, agree, difference):
    rows, columns, largest = parity._agreeing(detections((1, 0.9, BOX)), detections(*other), 0.01)
    assert columns.tolist() == agree and rows.tolist() == [any(agree)]
    assert largest == pytest.approx(difference)


def test_a_point_is_compared_in_pixels():
    point = (5, 5, 5, 5)
    rows, _, largest = parity._agreeing(detections((1, 0.9, point)), detections((1, 0.9, (5.005, 5, 5, 5))), 0.01)
    assert rows.all() and largest == pytest.approx(0.005)


@pytest.mark.parametrize(
    "nms_configs, scores, border",
    [
        ({"score_thresh": 0.4}, [0.9, 0.6], 0.4),
        ({"score_thresh": 0.4, "max_output_size": 2}, [0.9, 0.6], 0.6),
        ({"score_thresh": 0.0, "method": "gaussian"}, [0.9], 0.001),
        ({"score_thresh": 0.0, "method": "hard"}, [0.9], -math.inf),
        ({"score_thresh": 0.4}, [], 0.4),
    ],
)
def test_the_border_of_being_kept(tiny_config, nms_configs, scores, border):
    found = detections(*((1, score, BOX) for score in scores))
    assert parity._border(found, tiny_config.override({"nms_configs": nms_configs})) == border


def test_rows_at_the_border_do_not_count_when_they_are_missing(tiny_config):
    config = tiny_config.override({"nms_configs": {"score_thresh": 0.4}})
    ours = detections((1, 0.9, BOX), (1, 0.405, FAR))
    # By hand: scores differ by 0.003, so that rounding may have taken 0.006 off the row that is missing.
    found, own = parity._agreement([ours], [detections((1, 0.897, BOX))], config, 0.01, 0.99)
    assert (found.value, found.compared, own.value, own.compared) == (1, 1, 1, 1)
    assert "1 more at the border of being kept" in found.text and "border" not in own.text
    # By 0.002 only; and not at all, where every row of a wrong file would be at the border.
    for score, box in ((0.898, BOX), (0.9, FAR)):
        found, _ = parity._agreement([ours], [detections((1, score, box))], config, 0.01, 0.99)
        assert found.compared == 2 and found.passed is False and "border" not in found.text


def test_no_detection_is_told(tiny_config):
    config = tiny_config.override({"nms_configs": {"score_thresh": 0.4}})
    for finding in parity._agreement([detections()], [detections()], config, 1e-4, 0.99):
        assert finding.value is None and finding.passed is None
        assert finding.text.startswith("says nothing: no detection above 0.4; give --proof_images, or a lower")


def test_generated_pictures_are_the_same_always():
    pictures = parity.generated_pictures()
    assert [picture.shape[:2] for picture in pictures] == list(parity.GENERATED_SIZES)
    for picture, again in zip(pictures, parity.generated_pictures()):
        assert picture.dtype == np.uint8 and picture.std() > 10
        np.testing.assert_array_equal(picture, again)


def png(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


class ByColor:
    """Stands in for a driver: one box a picture, as tall as its color says."""

    def __init__(self, config):
        self.config, self.names, self.batches = config, {1: "square"}, []
        self.stages = {"all": self.serve}

    def serve(self, images):
        self.batches.append([image.shape[:2] for image in images])
        boxes = np.array([[[0, 0, image[0, 0, 0], 10]] for image in images], np.float32)
        count = len(images)
        return Detections(boxes, np.full([count, 1], 0.9), np.ones([count, 1], np.int32), np.ones(count, np.int32))


@pytest.mark.parametrize("batch_size", [1, 2, 9])
def test_a_driver_is_evaluated_on_the_pictures_as_they_are_stored(tiny_config, tmp_path, batch_size, capsys):
    path, heights = str(tmp_path / "records"), [20, 30, 40, 50, 60]
    with tf.io.TFRecordWriter(path) as writer:
        for i, height in enumerate(heights):
            size = (80 + i, 100 + i)
            encoded = png(np.full((*size, 3), height, np.uint8)) if i != 2 else b"damaged"
            box = (0, 0, height / size[0], 10 / size[1])
            writer.write(tfrecord.encode(tfrecord.Record(encoded, *size, "f", str(i), "png", [box], [1])))
    driver = ByColor(tiny_config)
    result = evaluator.run_driver(driver, Evaluation(path, batch_size=batch_size))
    metrics = result.metric.result()
    assert result.num_images == 4 and [size for batch in driver.batches for size in batch] == [
        (80, 100),
        (81, 101),
        (83, 103),
        (84, 104),
    ]
    assert max(map(len, driver.batches)) == min(batch_size, 4)
    assert metrics["AP"] == pytest.approx(1) and metrics["AP_/square"] == pytest.approx(1)
    assert not capsys.readouterr().out
    assert evaluator.run_driver(driver, Evaluation(path, num_samples=2)).num_images == 2


def test_ap_is_taken_of_both(check, reference):
    sheet = check(evaluation=Evaluation(SAMPLE))
    ours, theirs = (sheet.facts["ap"][name] for name in ("checkpoint", "artifact"))
    assert ours == theirs and 0 <= ours["AP"] <= ours["AP50"] < 0.5  # of a random network
    assert sheet.facts["ap"]["images"] == 8 and sheet.findings[-1].value == 0 and sheet.findings[-1].passed


class ExportedSavedModel(Exported, runtimes.SavedModel):
    """Stands in for one signature of a SavedModel."""


def test_a_saved_model_is_compared_in_both_signatures(reference, images, tmp_path, monkeypatch):
    other = with_config(reference, {"mean_rgb": 0})
    signatures = {None: (other, "detector"), "network": (reference, "network")}
    monkeypatch.setattr(
        parity.drivers,
        "open_artifact",
        lambda path, content=None: drivers.ArtifactDriver(
            ExportedSavedModel(*signatures[content]), Metadata(reference.config, signatures[content][1])
        ),
    )
    (tmp_path / "saved_model").mkdir()
    with pytest.raises(parity.ProofError, match=f"computes: {FOUND}: 0.* against a bound of 0.99"):
        parity.check(reference, f"{tmp_path}/saved_model/", images=images)
    findings = json.loads((tmp_path / "saved_model.report.json").read_text())["findings"]
    assert findings["raw outputs"]["passed"] is True and findings["raw outputs"]["value"] == 0


@pytest.mark.slow
def test_a_saved_model_passes(reference, images, tmp_path):
    path, model = tmp_path / "saved_model", reference.model
    signatures = {"serving_default": serving.detector(model), "network": serving.network(model.net, model.config)}
    module = tf.Module()
    module.parts = [model, model.net]
    tf.saved_model.save(module, str(path), signatures=signatures)
    (path / "assets.extra").mkdir()
    (path / "assets.extra" / METADATA_FILE).write_text(Metadata(reference.config).to_json())
    sheet = parity.check(reference, str(path), images=images)
    assert sheet.verdict == "passed" and [finding.passed for finding in sheet.findings] == [True] * 3
    assert sheet.findings[0].value < 1e-4 and sheet.facts["bytes"] > 1e6


@pytest.mark.slow
def test_a_tflite_file_of_the_network_passes(reference, images, tmp_path):
    function = serving.network(reference.model.net, reference.config)
    path = tmp_path / "network.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([function], reference.model.net).convert())
    append_zip(str(path), Metadata(reference.config, "network"))
    sheet = parity.check(reference, str(path), images=images)
    assert sheet.verdict == "passed" and sheet.findings[0].compared == len(images) * 86 * 9 * 7
