# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""parity: correct files pass, every kind of fault is detected and named; AP of any driver over records."""

import io
import json
import pathlib
import re
import types

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from PIL import Image

from dataset import tfrecord
from dataset.check.class_ids import NamedIds
from dataset.tfrecord import DataError
from efficientdet import config as config_lib
from efficientdet.model import EfficientDetModel
from efficientdet.postprocess import Detections, to_rows
from testdata import reference_weights
from tf2.evaluation import evaluator
from tf2.evaluation.evaluator import Evaluation
from tf2.export import export, parity, rounding, saved_model, tflite
from tf2.export.parity_report import Finding
from tf2.inference import drivers, runtimes, signatures
from tf2.inference.metadata import Metadata
from tf2.weights import checkpoint

RATIO = "raw outputs / rounding"
OF_CHECKPOINT, OF_FILE = "agreement of the checkpoint's detections", "agreement of the file's detections"
SAMPLE = str(pathlib.Path(__file__).parents[3] / "testdata" / "sample.tfrecord")


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


def test_a_correct_detector_passes(check, reference, images):
    report = check()
    raw, ours, theirs = report.findings
    assert report.verdict == "passed" and raw.value is None and raw.text == "the file does not contain them"
    assert ours.value == theirs.value == 1 and ours.passed and theirs.passed
    counts = [reference.detect(image).valid_len for image in images]
    assert ours.compared == theirs.compared == sum(counts) > 10
    assert f"{sum(counts)} of {sum(counts)} detections, largest differences: score 0, box 0 pixels" in ours.text


def test_a_correct_network_passes(check, images):
    report = check("network", lambda outputs: {name: x * (1 + 1e-6) for name, x in outputs.items()})
    raw, ratio, ours, theirs = report.findings
    # By hand: levels with sides of 8, 4, 2, 1, 1 have 86 locations with 9 anchors, each with 3 logits and 4 codes.
    assert raw.compared == len(images) * 86 * 9 * 7
    assert 0 < raw.value < 3e-6 and raw.bound is None and raw.passed is None
    assert 0 < ratio.value < ratio.bound == 10 and ratio.passed and ours.passed and theirs.passed


def test_the_report_and_the_table(check, tmp_path, capsys):
    result = check(precision="FP16")
    report = json.loads((tmp_path / "model.tflite.parity.json").read_text())
    assert report["verdict"] == "passed" and report["bytes"] == 1234 and report["checkpoint"] == "random weights"
    assert report["artifact"] == str(tmp_path / "model.tflite")
    assert list(report["findings"]) == ["raw outputs", OF_CHECKPOINT, OF_FILE]
    assert report["findings"][OF_FILE]["bound"] == 0.9
    assert report["nms"]["method"] == "hard" and report["nms"]["iou_thresh"] == 0.3
    assert report["nms"]["score_thresh"] == 0.4 and report["nms"]["max_output_size"] == 100
    assert report["pictures"] == {"source": "given", "sizes": ["80x96", "150x40"]}
    latency = report["latency"]
    assert latency["runs"] == 2 and latency["picture"] == "80x96"
    assert 0 < latency["artifact"]["median_ms"] <= latency["artifact"]["p99_ms"]
    assert 0 < latency["checkpoint"]["median_ms"] <= latency["checkpoint"]["p99_ms"]
    assert report["metadata"] == json.loads(result.metadata.to_json())
    assert set(report["versions"]) == {"efficientdet", "python", "tensorflow", "numpy"}
    printed = capsys.readouterr().out
    assert printed == "".join(f"{line}\n" for line in result.table())
    for text in ("(detector, FP16) against random weights", "method hard, iou_thresh 0.3, score_thresh 0.4", "1,234 b"):
        assert text in printed


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


@pytest.mark.parametrize(
    "values, message",
    [
        (
            {"nms_configs": {"score_thresh": 0.6}},
            r"nms_configs is {'score_thresh': 0.6}, expected {'score_thresh': 0.4}",
        ),
        ({"nms_configs": {"iou_thresh": 0.2}}, "nms_configs is {'iou_thresh': 0.2}, expected {'iou_thresh': 0.3}"),
        ({"nms_configs": {"max_output_size": 5}}, "nms_configs is"),
        ({"mean_rgb": 0}, r"mean_rgb is \[0.0, 0.0, 0.0\], expected \[127.0, 127.0, 127.0\]"),
        ({"stddev_rgb": 64}, "stddev_rgb is"),
        ({"label_map": {1: "b"}}, "class names"),
    ],
)
def test_another_config_is_detected_in_metadata_and_in_results(check, reference, values, message):
    driver = with_config(reference, values)
    error, findings = check(fails=True, driver=driver, declared=driver)
    assert list(findings) == ["config"] and re.search(f"config: differs from the checkpoint: {message}", error)
    if "label_map" not in values and "max_output_size" not in str(values):
        _, findings = check(fails=True, driver=driver)
        assert findings[OF_CHECKPOINT]["passed"] is False


def scaled(name, factor=1.01):
    return lambda outputs: outputs | {name: outputs[name] * np.float32(factor)}


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


@pytest.mark.parametrize("difference, bound, passes", [(2e-6, 10, True), (1e-5, 30, True), (2e-5, 30, False)])
def test_bound_of_raw_outputs_if_every_detection_agrees(check, reference, images, difference, bound, passes):
    inputs = [np.asarray(reference.stages["preprocess"]([image])[0]) for image in images]
    lowest = min(reference.network(x)[0][0].numpy().min() for x in inputs)  # a logit of no detection

    def change(outputs):
        outputs["class_predict_0"][outputs["class_predict_0"] == lowest] += difference * abs(lowest)
        return outputs

    if passes:
        raw, ratio, ours, _ = check("network", change).findings
        assert raw.value == pytest.approx(difference, rel=0.2) and ratio.passed and ours.value == 1
        assert ratio.bound == bound and ("every detection has a partner" in ratio.text) == (bound == 30)
        return
    _, findings = check("network", change, fails=True)
    assert findings[RATIO]["passed"] is False and findings[RATIO]["bound"] == bound
    assert findings[OF_CHECKPOINT]["passed"] is True


@pytest.mark.parametrize(
    "value, is_complete, bound, passes",
    [(10, False, 10, True), (10.1, False, 10, False), (9, True, 10, True), (30, True, 30, True), (31, True, 30, False)],
)
def test_verdict_on_the_ratio(value, is_complete, bound, passes):
    finding = parity._judged_ratio(Finding(RATIO, value, None, None, 5, "text"), is_complete)
    assert (finding.bound, finding.passed, finding.compared) == (bound, passes, 5)


def test_rounding_sets_the_bounds(check, reference, monkeypatch):
    """A file passes that differs from the checkpoint as much as its own, very coarse, rounding."""
    monkeypatch.setitem(rounding.LAST_BITS, "FP32", 14)
    rounded = rounding.rounded(reference, "FP32")
    raw, ratio, ours, _ = check("network", driver=rounded).findings
    assert raw.value > 1e-3 and ratio.value <= 1 and ratio.passed
    assert 0.5 < ours.value < 0.99 and ours.bound == pytest.approx(0.99 - 2 * (1 - ours.value)) and ours.passed
    assert "; after rounding, the checkpoint has " in ours.text
    detector = check("detector", driver=rounded)  # without raw outputs
    assert detector.findings[1].value == ours.value and detector.findings[1].bound == ours.bound
    assert detector.verdict == "passed"


def test_rounding_is_measured_only_where_it_decides(check, reference, monkeypatch):
    """A detector without raw outputs needs no more runs of the checkpoint if all detections agree."""
    runs = []
    monkeypatch.setattr(rounding, "rounded", lambda *args: runs.append(args))
    assert check().verdict == "passed" and not runs


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
    values = reference_weights.weights(np.load(pathlib.Path(SAMPLE).with_name(f"{request.param}.npz")))
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


def test_int8_is_judged_by_ap_alone(check):
    report = check("network", scaled("box_predict_2"), precision="INT8")
    assert report.verdict == "not judged" and [finding.passed for finding in report.findings] == [None] * 4
    assert report.findings[0].value > 1e-4 and report.findings[1].value > 0.9
    assert report.findings[-1].text == "no verdict: needs --val_file_pattern"


@pytest.mark.parametrize(
    "precision, max_ap_drop, passes", [("INT8", 0.02, False), ("FP32", 0.02, False), ("INT8", 1, True)]
)
def test_verdict_on_the_drop_of_ap(check, monkeypatch, reference, precision, max_ap_drop, passes):
    figures = iter([{"AP": 0.5, "AP50": 0.8, "AR": 0}, {"AP": 0.47, "AP50": 0.7, "AR": 0}])

    def run_driver(driver, evaluation):
        return types.SimpleNamespace(metric=types.SimpleNamespace(result=lambda: next(figures)), num_images=72)

    monkeypatch.setattr(parity.evaluator, "run_driver", run_driver)
    options = {"precision": precision, "evaluation": Evaluation("val-*"), "max_ap_drop": max_ap_drop}
    if passes:
        report = check(**options)
        assert report.verdict == "passed" and report.facts["ap"]["images"] == 72
        return
    error, findings = check(fails=True, **options)
    assert findings["AP drop"]["value"] == pytest.approx(0.03) and findings["AP drop"]["compared"] == 72
    assert "AP drop: 0.03 (bound 0.02), AP 0.4700, AP50 0.7000; checkpoint AP 0.5000" in error


def test_generated_images_are_reproducible():
    images = parity.generated_images()
    assert [image.shape[:2] for image in images] == list(parity.GENERATED_SIZES)
    for image, again in zip(images, parity.generated_images()):
        assert image.dtype == np.uint8 and image.std() > 10
        np.testing.assert_array_equal(image, again)


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


class ByColor:
    """A driver that detects one box per image, whose height is the value of its first pixel."""

    def __init__(self, config):
        self.config, self.names, self.batches = config, {1: "square"}, []
        self.stages = {"all": self.serve}

    def serve(self, images):
        self.batches.append([image.shape[:2] for image in images])
        boxes = np.array([[[0, 0, image[0, 0, 0], 10]] for image in images], np.float32)
        count = len(images)
        return Detections(boxes, np.full([count, 1], 0.9), np.ones([count, 1], np.int32), np.ones(count, np.int32))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Records of five images of different sizes with one box each, the third of them damaged."""
    path = str(tmp_path_factory.mktemp("data") / "records")
    with tf.io.TFRecordWriter(path) as writer:
        for i, height in enumerate([20, 30, 40, 50, 60]):
            size = (80 + i, 100 + i)
            encoded = png(np.full((*size, 3), height, np.uint8)) if i != 2 else b"damaged"
            box = (0, 0, height / size[0], 10 / size[1])
            writer.write(tfrecord.encode(tfrecord.Record(encoded, *size, "f", str(i), "png", [box], [1])))
    return path


@pytest.mark.parametrize("batch_size", [1, 2, 9])
def test_a_driver_is_evaluated_on_the_original_images(tiny_config, records, batch_size, capsys):
    driver = ByColor(tiny_config)
    result = evaluator.run_driver(driver, Evaluation(records, batch_size=batch_size))
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


def test_a_driver_is_evaluated_on_some_images(tiny_config, records):
    assert evaluator.run_driver(ByColor(tiny_config), Evaluation(records, num_samples=2)).num_images == 2


def test_ap_of_both(check, reference):
    report = check(evaluation=Evaluation(SAMPLE))
    ours, theirs = (report.facts["ap"][name] for name in ("checkpoint", "artifact"))
    assert ours == theirs and 0 <= ours["AP"] <= ours["AP50"] < 0.5  # of a random network
    assert report.facts["ap"]["images"] == 8 and report.findings[-1].value == 0 and report.findings[-1].passed


def test_records_are_checked_as_those_of_an_evaluation(tiny_config, tmp_path):
    path = str(tmp_path / "crowds")
    columns = {"boxes_norm": [(0.1, 0.1, 0.6, 0.6)], "classes": [1], "is_crowd": [1]}
    encoded = png(np.zeros((80, 100, 3), np.uint8))
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(tfrecord.encode(tfrecord.Record(encoded, 80, 100, "f", "1", "png", **columns)))
    options = export.ParityOptions(evaluation=Evaluation(path))
    for skips in (True, False):  # which matters for training alone
        config = tiny_config.override({"skip_crowd_during_training": skips})
        with pytest.raises(DataError, match=r"1 of 1 valid boxes .* which AP ignores: it would be -1; export polygons"):
            export._parity_arguments(config, options, NamedIds((), "no checkpoint"))


class ExportedSavedModel(Exported, runtimes.SavedModel):
    """One signature of a SavedModel."""


def test_a_saved_model_is_compared_in_both_signatures(reference, images, tmp_path, monkeypatch):
    other = with_config(reference, {"mean_rgb": 0})
    contents = {None: (other, "detector"), "network": (reference, "network")}
    monkeypatch.setattr(
        parity.drivers,
        "open_artifact",
        lambda path, content=None: drivers.ArtifactDriver(
            ExportedSavedModel(*contents[content]), Metadata(reference.config, contents[content][1])
        ),
    )
    (tmp_path / "saved_model").mkdir()
    with pytest.raises(parity.ParityError, match=rf"checkpoint: {OF_CHECKPOINT}: 0.* \(bound 0.99\)"):
        parity.check(reference, f"{tmp_path}/saved_model/", images=images)
    findings = json.loads((tmp_path / "saved_model.parity.json").read_text())["findings"]
    assert findings["raw outputs"]["value"] == 0 and findings[RATIO]["passed"] is True


@pytest.mark.slow
def test_a_saved_model_passes(reference, images, tmp_path):
    path = str(tmp_path / "saved_model")
    saved_model.saved_model(signatures.frozen(reference.model), path, Metadata(reference.config))
    report = parity.check(reference, path, images=images)
    assert report.verdict == "passed" and [finding.passed for finding in report.findings] == [None, True, True, True]
    assert report.findings[0].value < 1e-4 and report.facts["bytes"] > 1e6


@pytest.mark.slow
def test_a_tflite_file_of_the_network_passes(reference, images, tmp_path):
    path = str(tmp_path / "network.tflite")
    tflite.write(signatures.frozen(reference.model), path, Metadata(reference.config, "network"))
    report = parity.check(reference, path, images=images)
    assert report.verdict == "passed" and report.findings[0].compared == len(images) * 86 * 9 * 7
