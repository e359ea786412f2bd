# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""evaluate: choice of the suppression, printed results, written files."""

import dataclasses
import json
import pathlib
import types

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dataset import label_map
from efficientdet.config import ConfigError
from efficientdet.postprocess import Detections
from tf2.evaluation import evaluate, evaluator
from tf2.evaluation.evaluate import EvaluationOutputs
from tf2.evaluation.evaluator import Evaluation
from tf2.inference import drivers
from tf2.inference.metadata import Metadata
from tf2.weights import class_names

TESTDATA = pathlib.Path(__file__).parents[3] / "testdata"
SAMPLE, GROUNDTRUTH = str(TESTDATA / "sample.tfrecord"), str(TESTDATA / "sample.json")
NAMES = {1: "one", 2: "two", 3: "three"}


class Oracle(drivers.Driver):
    """A fake driver that detects every object except those of one class, two pixels off."""

    network = None

    def __init__(self, config, missed=0):
        super().__init__(config, {"all": self._find})
        self.ckpt_path, self.image = "the oracle", 0
        rows = json.loads(pathlib.Path(GROUNDTRUTH).read_text())["annotations"]
        self.rows = [row for row in rows if row["category_id"] != missed]

    def _find(self, images):
        boxes, scores = np.zeros([len(images), 100, 4]), np.zeros([len(images), 100])
        classes, lengths = np.zeros([len(images), 100], np.int32), []
        for i in range(len(images)):
            self.image += 1
            found = [row for row in self.rows if row["image_id"] == self.image]
            lengths.append(len(found))
            for j, row in enumerate(found):
                x, y, width, height = row["bbox"]
                boxes[i, j] = np.array([y, x, y + height, x + width]) + 2
                scores[i, j], classes[i, j] = 1 / (j + 2), row["category_id"]
        return Detections(boxes, scores, classes, np.array(lengths, np.int32))


@pytest.fixture(scope="module")
def config(tiny_config):
    return tiny_config.override({"label_map": NAMES})


@pytest.fixture(scope="module")
def random_driver(config, spread_driver):
    """A driver with random weights, shared by the tests because building and tracing it takes seconds."""
    return spread_driver(config.override({"nms_configs": {"max_nms_inputs": 50}}))


@pytest.fixture
def publish(config):
    """A function that evaluates an Oracle, writes the outputs and returns the metrics."""

    def run(outputs, missed=0, **evaluation):
        outputs.check()
        driver, evaluation = Oracle(config, missed), Evaluation(SAMPLE, **evaluation)
        result = evaluate.run(driver, evaluation)
        outputs = dataclasses.replace(outputs, command="python main.py --mode=eval")
        return evaluate.publish(driver, evaluation, result, outputs)

    return run


def test_metrics_file_contains_metrics_and_provenance(publish, tmp_path, capsys):
    path = tmp_path / "new" / "metrics.json"
    metrics = publish(EvaluationOutputs(metrics=str(path), voc=True), batch_size=3)
    content = json.loads(path.read_text())
    assert content["metrics"] == metrics
    assert {"AP", "ARl", "AP_/three", "VOC07_mAP", "VOC_mAP", "VOC_AP_/three"} <= metrics.keys()
    assert content["images"] == 8 and content["evaluation"]["batch_size"] == 3
    assert content["model_name"] == "efficientdet-lite0" and content["weights"] == "the oracle"
    assert content["config"]["num_classes"] == 3 and content["command"] == "python main.py --mode=eval"
    assert content["versions"].keys() >= {"efficientdet", "tensorflow"}
    assert content["suppression"]["classes"] == "all at once"
    assert list(content["seconds"]) == ["first batch", "read", "all", "metric"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("suppression: gaussian, sigma 0.5, scores above 0.001, all candidates, at most 100")
    assert lines[-1] == f"writing file to {path}"
    assert any(line.startswith("time of 8 images: first batch ") for line in lines)


@pytest.mark.parametrize("val_json_file", [None, GROUNDTRUTH])
def test_written_detections_give_the_same_metrics(publish, tmp_path, capsys, val_json_file):
    path = tmp_path / "found.json"
    metrics = publish(EvaluationOutputs(detections=str(path)), missed=2, val_json_file=val_json_file)
    assert metrics["AP_/two"] == 0 and 0.3 < metrics["AP_/one"] < 1
    groundtruth = COCO(GROUNDTRUTH)
    evaluation = COCOeval(groundtruth, groundtruth.loadRes(str(path)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(metrics["AP"], abs=1e-9)
    rows = json.loads(path.read_text())
    assert all(row["category_id"] in (1, 3) and row["score"] > 0 and row["bbox"][2] > 0 for row in rows)


def test_report_shows_images_of_the_records(publish, tmp_path, capsys):
    publish(EvaluationOutputs(report_dir=str(tmp_path / "report")), missed=2)
    page = (tmp_path / "report" / "index.html").read_text()
    assert "python main.py --mode=eval" in page and "Missed objects" in page
    assert list((tmp_path / "report").rglob("missed_01.jpg"))
    assert capsys.readouterr().out.splitlines()[-1] == f"writing file to {tmp_path / 'report' / 'index.html'}"


@pytest.mark.parametrize("folder, has_curves", [("run", True), ("run/archive", True), ("other", False)])
def test_report_shows_the_curves_of_the_training(config, tmp_path, folder, has_curves):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.csv").write_text("step,loss\n1,2\n")
    driver, evaluation = Oracle(config), Evaluation(SAMPLE)
    driver.ckpt_path = str(tmp_path / folder / "model.ckpt-1")
    outputs = EvaluationOutputs(report_dir=str(tmp_path / "report"))
    outputs.check()
    evaluate.publish(driver, evaluation, evaluate.run(driver, evaluation), outputs)
    assert (tmp_path / "report" / "report_files" / "training.png").exists() == has_curves


def test_testdev_writes_detections_and_no_metrics(publish, tmp_path, capsys):
    metrics = publish(EvaluationOutputs(testdev_dir=str(tmp_path / "new" / "testdev")))
    assert metrics == {}
    rows = json.loads((tmp_path / "new" / "testdev" / "detections_test-dev2017_test_results.json").read_text())
    assert len(rows) == len(json.loads(pathlib.Path(GROUNDTRUTH).read_text())["annotations"])
    assert rows[0].keys() == {"image_id", "category_id", "bbox", "score"} and isinstance(rows[0]["image_id"], int)
    assert "Average Precision" not in capsys.readouterr().out


def test_empty_detections_score_zero(publish, config, monkeypatch, tmp_path):
    monkeypatch.setattr(Oracle, "_find", lambda self, images: Detections(*_nothing(len(images))))
    metrics = publish(EvaluationOutputs(detections=str(tmp_path / "found.json"), metrics=str(tmp_path / "m.json")))
    assert metrics["AP"] == metrics["AP_/one"] == 0 and (tmp_path / "found.json").read_text() == "[]"


def _nothing(count):
    return np.zeros([count, 5, 4]), np.zeros([count, 5]), np.zeros([count, 5], np.int32), np.zeros(count, np.int32)


def test_outputs_are_checked_before_the_evaluation(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        ValueError, match=r"file cannot be written to \(.*\); change its permissions, or choose another"
    ):
        EvaluationOutputs(metrics=str(tmp_path / "file" / "metrics.json")).check()
    with pytest.raises(ValueError, match="is a folder; give a file name"):
        EvaluationOutputs(detections=str(tmp_path)).check()
    with pytest.raises(ValueError, match="--testdev_dir evaluates images without groundtruth"):
        EvaluationOutputs(testdev_dir=str(tmp_path), voc=True).check()
    one = str(tmp_path / "one.json")
    with pytest.raises(ValueError, match="one file cannot take several kinds of results; give each its own"):
        EvaluationOutputs(metrics=one, detections=one).check()
    with pytest.raises(ValueError, match=r"one\.json is --val_json_file and would be overwritten"):
        EvaluationOutputs(metrics=one).check(val_json_file=one)
    EvaluationOutputs(metrics=str(tmp_path / "a" / "metrics.json")).check()
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("has_network", [True, False])
def test_high_score_threshold_is_warned_about(config, caplog, monkeypatch, has_network):
    monkeypatch.setattr(evaluate, "Evaluator", lambda *args: types.SimpleNamespace(evaluate=lambda net: None))
    for score_thresh, warns in ((0.4, True), (0.001, False)):
        caplog.clear()
        driver = Oracle(config.override({"nms_configs": {"score_thresh": score_thresh}}))
        driver.network = (lambda inputs: None) if has_network else None
        evaluate.run(driver, Evaluation(SAMPLE))
        assert (
            "detections with scores up to 0.4 are discarded, which lowers AP; pass --hparams=" in caplog.text
        ) == warns


def test_high_score_threshold_of_an_exported_detector_needs_another_export(config, caplog, monkeypatch, network_file):
    path = network_file(monkeypatch, "detector")
    driver = evaluate.open_artifact(path, config, {})
    driver.config = config.override({"nms_configs": {"score_thresh": 0.4}})
    monkeypatch.setattr(evaluator, "run_driver", lambda *args: None)
    evaluate.run(driver, Evaluation(SAMPLE))
    assert "which lowers AP; export again with --min_score_thresh=0.001" in caplog.text


def test_networks_are_evaluated_as_published_unless_as_served(random_driver):
    published = evaluate.run(random_driver, Evaluation(SAMPLE, batch_size=8))
    assert (published.suppression["classes"], published.suppression["clip"]) == ("each by itself", False)
    assert list(published.seconds)[1:] == ["read", "metric"]  # there is one batch
    served = evaluate.run(random_driver, Evaluation(SAMPLE, batch_size=3), as_served=True)
    assert (served.suppression["classes"], served.suppression["clip"]) == ("all at once", True)
    assert list(served.seconds) == ["first batch", "read", "preprocess", "network", "NMS", "metric"]
    for image in served.metric.images():
        assert image.detections.boxes.min() >= 0
    assert min(image.detections.boxes.min() for image in published.metric.images()) < 0
    with pytest.raises(ValueError, match="flip needs the outputs of the network"):
        evaluate.run(random_driver, Evaluation(SAMPLE, flip=True), as_served=True)


def test_flip_averages_the_outputs_of_both_images(random_driver, monkeypatch):
    seen, network = [], random_driver.network
    monkeypatch.setattr(random_driver, "network", lambda inputs: seen.append(np.asarray(inputs)) or network(inputs))
    plain = evaluate.run(random_driver, Evaluation(SAMPLE, batch_size=8))
    flipped = evaluate.run(random_driver, Evaluation(SAMPLE, batch_size=8, flip=True))
    np.testing.assert_array_equal(seen[2], seen[1][:, :, ::-1])
    np.testing.assert_array_equal(seen[0], seen[1])
    scores = [result.metric.images()[0].detections.scores for result in (plain, flipped)]
    assert not np.array_equal(*scores)


@pytest.fixture
def network_file(config, tmp_path):
    """A function: content -> path of a fake exported file for open_artifact."""

    def make(monkeypatch, content, metadata=True, config=config):
        runtime = types.SimpleNamespace(content=content, batch_size=None, run=lambda inputs: {})
        runtime.metadata = Metadata(config, content) if metadata else None
        monkeypatch.setattr(drivers.runtimes, "load", lambda *args: runtime)
        return "model.onnx"

    return make


def test_hparams_override_only_keys_that_the_file_leaves_open(config, monkeypatch, network_file):
    typed = {"nms_configs": {"method": "hard"}, "label_map": {1: "uno"}}
    driver = evaluate.open_artifact(network_file(monkeypatch, "network"), config, typed)
    assert driver.config.nms_configs.method == "hard" and driver.names == {1: "uno"}
    with pytest.raises(
        ConfigError, match="was exported with its own nms_configs; --hparams can only set label_map, max"
    ):
        evaluate.open_artifact(network_file(monkeypatch, "detector"), config, typed)
    with pytest.raises(ConfigError, match="its own image_size, num_classes"):
        evaluate.open_artifact(network_file(monkeypatch, "network"), config, {"num_classes": 4, "image_size": 64})


def test_names_of_an_exported_file_may_change_but_not_move(config, monkeypatch, network_file):
    lines = []
    monkeypatch.setattr(class_names.logging, "info", lambda text, *args: lines.append(text % args))
    stored = config.override({"label_map": {1: "a", 2: "b"}})
    path = network_file(monkeypatch, "detector", config=stored)
    assert evaluate.open_artifact(path, config, {}).names == {1: "a", 2: "b"}
    typed = {"label_map": {1: "uno", 2: "b"}}
    driver = evaluate.open_artifact(path, config.override(typed), typed)
    assert driver.names == typed["label_map"] and driver.runtime.metadata.config == stored
    assert lines == ["label_map renames 1 classes of model.onnx: 1 'a' -> 'uno'"]
    typed = {"label_map": {1: "b", 2: "a"}}
    message = "class names have other ids in label_map than in model.onnx: 'b' is 1 instead of 2, 'a' is 2 instead of 1"
    for opened in (evaluate.open_artifact, lambda path, config, _: drivers.open_artifact(path, config)):
        with pytest.raises(label_map.LabelMapError, match=message):
            opened(path, config.override(typed), typed)


def test_label_map_must_fit_num_classes(config, monkeypatch, network_file):
    with pytest.raises(label_map.LabelMapError, match=r"id 20 .* but num_classes is 3"):
        evaluate.open_artifact(network_file(monkeypatch, "network"), config, {"label_map": "voc"})
    with pytest.raises(label_map.LabelMapError, match=r"id 20 .* but num_classes is 3"):
        path = network_file(monkeypatch, "network", metadata=False)
        evaluate.open_artifact(path, config.override({"label_map": "voc"}), {"label_map": "voc"})


def test_missing_sample_image_is_ignored(config, monkeypatch, network_file):
    config = config.override({"sample_image": "/gone.jpg"})
    monkeypatch.setattr(evaluate.Evaluator, "evaluate", lambda self, network: "evaluated")
    driver = evaluate.open_artifact(network_file(monkeypatch, "network", metadata=False), config, {})
    assert evaluate.run(driver, Evaluation(SAMPLE)) == "evaluated"


def test_file_without_metadata_uses_the_given_config(config, monkeypatch, network_file, caplog):
    path = network_file(monkeypatch, "detector", metadata=False)
    driver = evaluate.open_artifact(path, config, {"num_classes": 3})
    assert driver.config is config and "has no metadata: assuming the config" in caplog.text


@pytest.mark.parametrize(
    "nms_configs, expected",
    [
        ({"method": "hard", "iou_thresh": 0.6}, "hard, IoU 0.6, no score threshold, all candidates, at most 100"),
        ({"method": "gaussian", "max_nms_inputs": 9}, "gaussian, sigma 0.5, scores above 0.001, 9 candidates, at most"),
    ],
)
def test_described_suppression_resolves_defaults(config, nms_configs, expected):
    config = config.override({"nms_configs": {"score_thresh": 0.0, "max_nms_inputs": 0} | nms_configs})
    assert evaluate.describe_suppression(evaluator.suppression(config)).startswith(expected)
    text = evaluate.describe_suppression(evaluator.suppression(config, classes="each by itself", clip=False))
    assert text.endswith("100 detections per image, classes each by itself, boxes not clipped")
