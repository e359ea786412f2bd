# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/evaluation/train_and_eval.py: the steps around a training, with a fake training and evaluator."""

import pathlib

import pytest

from dataset import record_count
from dataset.tfrecord import DataError
from efficientdet import config as config_lib
from tf2.evaluation import train_and_eval
from tf2.evaluation.evaluator import Evaluation
from tf2.training.train import Training

SAMPLE = str(pathlib.Path(__file__).parents[3] / "testdata" / "sample.tfrecord")
RECIPE = {"num_classes": 3, "recipe": "finetune", "fit_anchors": False}


@pytest.fixture
def calls(monkeypatch):
    """(name, arguments) of the training and of the report; the training counts its records and has an AP of 0.5."""
    calls = []

    def train(config, training, evaluator, *, eval_every_epochs, strategy, counts):
        calls.append(("train", config, evaluator, eval_every_epochs, counts.total([training.train_file_pattern])))
        return {"AP": 0.5} if evaluator else {}

    monkeypatch.setattr(train_and_eval.train, "run", train)
    monkeypatch.setattr(train_and_eval, "Evaluator", lambda config, evaluation, strategy: (config, evaluation))
    monkeypatch.setattr(train_and_eval.training_report, "write", lambda *args: calls.append(("report", *args)))
    return calls


@pytest.mark.parametrize("during, every", [(True, 30), (False, 0)])
def test_evaluations_use_the_config_of_the_recipe(calls, tmp_path, during, every):
    config = config_lib.load("efficientdet-lite0", **RECIPE)
    training = Training(str(tmp_path), SAMPLE, 8, command="python main.py")
    evaluation = Evaluation(SAMPLE)
    metrics = train_and_eval.run(config, training, evaluation, evaluates_during=during)
    (_, trained, evaluator, found, num_records), report = calls
    assert (trained.num_epochs, trained.map_freq, found, num_records) == (300, 30, every, 8)
    assert evaluator == (trained, evaluation) and metrics == {"AP": 0.5}
    assert report == ("report", trained, evaluator, str(tmp_path), "python main.py")


def test_without_evaluation_there_is_no_report(calls, tmp_path):
    config = config_lib.load("efficientdet-lite0", **RECIPE)
    assert train_and_eval.run(config, Training(str(tmp_path), SAMPLE, 8), typed_keys={"num_epochs"}) == {}
    [(_, trained, evaluator, *_)] = calls
    assert evaluator is None and trained.num_epochs == config.num_epochs


def test_training_records_are_counted_once(calls, tmp_path, monkeypatch):
    counted, count = [], record_count._count_headers
    monkeypatch.setattr(record_count, "_count_headers", lambda path: counted.append(path) or count(path))
    train_and_eval.run(config_lib.load("efficientdet-lite0", **RECIPE), Training(str(tmp_path), SAMPLE, 8))
    assert counted == [SAMPLE]


def test_pointless_trainings_end_before_they_begin(calls, tmp_path):
    config = config_lib.load("efficientdet-lite0", num_classes=1)
    with pytest.raises(DataError, match="num_classes"):
        train_and_eval.run(config, Training(str(tmp_path), SAMPLE, 8))
    assert calls == []
