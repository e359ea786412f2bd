# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""training_report: the checkpoint that is reported, and failures, which do not end the command."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from PIL import Image

from dataset.files import read_file
from efficientdet.postprocess import Detections
from tf2.evaluation import evaluator, training_report
from tf2.evaluation.evaluator import Evaluation
from tf2.evaluation.report import report
from tf2.inference import drivers
from tf2.training.model_dir import ModelDir
from tf2.weights import checkpoint

SAMPLE = str(pathlib.Path(__file__).parents[3] / "testdata" / "sample.tfrecord")


@pytest.fixture(scope="module")
def result(tiny_config):
    """The result of a detector that finds one box of class 1 in every image."""

    def find(images):
        count = len(images)
        boxes, scores = np.tile([0.0, 0.0, 64.0, 64.0], [count, 1, 1]), np.full([count, 1], 0.9)
        return Detections(boxes, scores, np.ones([count, 1], int), np.ones(count, int))

    return evaluator.run_driver(drivers.Driver(tiny_config, {"all": find}), Evaluation(SAMPLE))


class FakeEvaluator:
    """Replacement of Evaluator that counts its evaluations."""

    evaluation = Evaluation(SAMPLE)
    strategy = tf.distribute.get_strategy()

    def __init__(self, best, other):
        self.best, self.other, self.networks = best, other, []

    def alone(self):
        return self

    def evaluate(self, network):
        self.networks.append(network)
        return self.other


class FakeDriver:
    """Replacement of KerasDriver."""

    def __init__(self, config, ckpt_path):
        self.network = ckpt_path


@pytest.fixture(autouse=True)
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda message, *args: lines.append(message % args))
    monkeypatch.setattr(training_report, "KerasDriver", FakeDriver)
    return lines


@pytest.fixture(params=["local", "remote"])
def model_dir(request, tmp_path):
    return str(tmp_path / "run") if request.param == "local" else f"ram://{tmp_path.name}/run"


def train(model_dir, metrics=None, *, averaged=True):
    """Writes the files of a training with two checkpoints, of which the first is archived if it has metrics."""
    directory = ModelDir(model_dir)
    directory.prepare(0)
    entries = {"weight": np.float32(1)} | ({f"weight{checkpoint.AVERAGE}": np.float32(1)} if averaged else {})
    prefix = directory.save(5, entries)
    directory.save(9, entries)
    if metrics is not None:
        directory.archive(prefix, metrics)
    with tf.io.gfile.GFile(f"{model_dir}/train.csv", "w") as file:
        file.write("step,loss,learning_rate\n1,3,0.1\n9,2,0.05\n")


def write(config, evaluator, model_dir):
    training_report.write(config, evaluator, model_dir, "python main.py --debug")
    return read_file(f"{model_dir}/report/index.html").decode()


def test_the_kept_result_is_reported_without_another_evaluation(tiny_config, result, model_dir, warnings, capsys):
    train(model_dir, result.metric.result())
    evaluator = FakeEvaluator(result, None)
    page = write(tiny_config, evaluator, model_dir)
    assert evaluator.networks == [] and warnings == []
    for text in (f"{model_dir}/archive/model.ckpt-5, moving averages", "python main.py --debug", "9 steps, 0 eval"):
        assert text in page
    assert {"index.html", "report_files", "example.jpg"} == {
        name.rstrip("/") for name in tf.io.gfile.listdir(f"{model_dir}/report")
    }
    assert tf.io.gfile.exists(f"{model_dir}/report/report_files/training.png")
    ap = result.metric.result()["AP"]
    line = f"writing file to {model_dir}/report/index.html, of {model_dir}/archive/model.ckpt-5 with AP {ap:.3f}\n"
    assert capsys.readouterr().out == line


@pytest.mark.parametrize("archived, keeps, step", [({"AP": 0.9}, True, 5), ("same", False, 5), (None, True, 9)])
def test_a_checkpoint_without_a_kept_result_is_evaluated(tiny_config, result, tmp_path, archived, keeps, step):
    metrics = result.metric.result()
    train(str(tmp_path), metrics if archived == "same" else archived and metrics | archived, averaged=False)
    evaluator = FakeEvaluator(result if keeps else None, result)
    page = write(tiny_config, evaluator, str(tmp_path))
    prefix = f"{tmp_path}/archive/model.ckpt-5" if step == 5 else f"{tmp_path}/model.ckpt-9"
    assert evaluator.networks == [prefix] and f"{prefix}, raw weights" in page


def test_the_example_is_the_first_image_with_objects(tiny_config, result, tmp_path):
    train(str(tmp_path), result.metric.result())
    write(tiny_config, FakeEvaluator(result, None), str(tmp_path))
    counts = [len(image.groundtruth.classes) for image in result.metric.images()]
    reader = training_report.InputReader(SAMPLE, tiny_config)
    [(_, expected)] = evaluator.read_images(reader, [next(i for i, count in enumerate(counts) if count)])
    with Image.open(tmp_path / "report" / "example.jpg") as image:
        assert np.abs(np.asarray(image).astype(int) - expected).mean() < 4


def foreign_page(monkeypatch, model_dir):
    (model_dir / "report").mkdir()
    (model_dir / "report" / "index.html").write_text("mine")


def failing_plot(monkeypatch, model_dir):
    monkeypatch.setattr(report.plots, "plot_training", lambda history: 1 / 0)


def no_checkpoint(monkeypatch, model_dir):
    for file in [*model_dir.glob("model.ckpt-*"), *model_dir.glob("archive/*")]:
        file.unlink()


@pytest.mark.parametrize("damage, kind", [
    (foreign_page, "TargetError: "),
    (failing_plot, "ZeroDivisionError: division by zero"),
    (no_checkpoint, "CheckpointError: "),
])  # fmt: skip
def test_a_failure_is_a_warning(tiny_config, result, tmp_path, warnings, monkeypatch, capsys, damage, kind):
    train(str(tmp_path), result.metric.result())
    damage(monkeypatch, tmp_path)
    training_report.write(tiny_config, FakeEvaluator(result, None), str(tmp_path), "")
    assert warnings[-1].startswith(f"no report: {kind}") and "the checkpoints are complete" in warnings[-1]
    assert capsys.readouterr().out == ""
    left = {path.name for path in (tmp_path / "report").iterdir()} if (tmp_path / "report").exists() else set()
    assert left == ({"index.html"} if damage is foreign_page else set())
