# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""parity: correct files pass; reports and verdicts."""

import json
import pathlib
import re
import types

import numpy as np
import pytest
import tensorflow as tf
from exported import Exported, scaled, with_config

from dataset import tfrecord
from dataset.check.class_ids import NamedIds
from dataset.tfrecord import DataError
from tf2.evaluation.evaluator import Evaluation
from tf2.export import export, parity, rounding, saved_model, tflite
from tf2.export.parity_report import Finding
from tf2.inference import drivers, runtimes, signatures
from tf2.inference.metadata import Metadata

RATIO = "raw outputs / rounding"
OF_CHECKPOINT, OF_FILE = "agreement of the checkpoint's detections", "agreement of the file's detections"
SAMPLE = str(pathlib.Path(__file__).parents[3] / "testdata" / "sample.tfrecord")


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


def test_ap_of_both(check, reference):
    report = check(evaluation=Evaluation(SAMPLE))
    ours, theirs = (report.facts["ap"][name] for name in ("checkpoint", "artifact"))
    assert ours == theirs and 0 <= ours["AP"] <= ours["AP50"] < 0.5  # of a random network
    assert report.facts["ap"]["images"] == 8 and report.findings[-1].value == 0 and report.findings[-1].passed


def test_results_of_the_checkpoint_are_computed_once_for_several_files(check, monkeypatch):
    results, evaluated = parity.CheckpointResults(), []
    first = check(results=results, evaluation=Evaluation(SAMPLE))
    run_driver = parity.evaluator.run_driver

    def run(driver, evaluation):
        evaluated.append(driver)
        return run_driver(driver, evaluation)

    monkeypatch.setattr(parity.evaluator, "run_driver", run)
    monkeypatch.setattr(parity, "_run_checkpoint", None)
    second = check(results=results, evaluation=Evaluation(SAMPLE))
    assert second.findings == first.findings and second.facts["ap"] == first.facts["ap"]
    assert len(evaluated) == 1 and isinstance(evaluated[0], drivers.ArtifactDriver)


def test_records_are_checked_as_those_of_an_evaluation(tiny_config, tmp_path):
    path = str(tmp_path / "crowds")
    columns = {"boxes_norm": [(0.1, 0.1, 0.6, 0.6)], "classes": [1], "is_crowd": [1]}
    encoded = tf.io.encode_png(np.zeros((80, 100, 3), np.uint8)).numpy()
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(tfrecord.encode(tfrecord.Record(encoded, 80, 100, "f", "1", "png", **columns)))
    options = export.ParityOptions(evaluation=Evaluation(path))
    for skips in (True, False):  # which matters for training alone
        config = tiny_config.override({"skip_crowd_during_training": skips})
        with pytest.raises(DataError, match=r"1 of 1 valid boxes .* which AP ignores: it would be -1; export polygons"):
            export._parity_arguments(config, options, NamedIds((), "no checkpoint"))


class ExportedSavedModel(Exported, runtimes.SavedModel):
    """A SavedModel with another detector in its signature `network`."""

    def __init__(self, driver, network_driver):
        super().__init__(driver, "detector")
        self.network_driver = network_driver

    def of_content(self, content):
        return Exported(self.network_driver, content)


def test_a_saved_model_is_compared_in_both_signatures(reference, images, tmp_path, monkeypatch):
    other = with_config(reference, {"mean_rgb": 0})
    exported = drivers.ArtifactDriver(ExportedSavedModel(other, reference), Metadata(reference.config))
    monkeypatch.setattr(parity.drivers, "open_artifact", lambda path: exported)
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
