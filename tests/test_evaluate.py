# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""evaluate: from records and detections to metrics, over the 8 images of testdata/sample.tfrecord."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from efficientdet.model import EfficientDetNet
from efficientdet.postprocess import Detections
from tf2 import checkpoint, evaluate
from tf2.evaluate import Evaluation, Evaluator

TESTDATA = pathlib.Path(__file__).parents[1] / "testdata"
SAMPLE, GROUNDTRUTH = str(TESTDATA / "sample.tfrecord"), str(TESTDATA / "sample.json")


class Oracle:
    """Stands in for a network: its detections are the groundtruth, image by image, moved by some pixels."""

    def __init__(self, move=0.0):
        self.move, self.image = move, 0
        self.rows = {}
        for annotation in json.loads(pathlib.Path(GROUNDTRUTH).read_text())["annotations"]:
            self.rows.setdefault(annotation["image_id"], []).append(annotation)

    def detect(self, images, image_scales):
        assert images.shape[1:] == (64, 64, 3)
        np.testing.assert_allclose(image_scales, 1.5)
        count = images.shape[0]
        boxes, scores, classes = np.zeros((count, 100, 4)), np.zeros((count, 100)), np.zeros((count, 100), np.int32)
        lengths = []
        for i in range(count):
            self.image += 1
            rows = self.rows.get(self.image, [])
            lengths.append(len(rows))
            for j, row in enumerate(rows):
                x, y, width, height = row["bbox"]
                boxes[i, j] = np.array([y, x, y + height, x + width]) + self.move
                scores[i, j], classes[i, j] = 0.9, row["category_id"]
        return Detections(boxes, scores, classes, np.array(lengths))


@pytest.fixture
def score(tiny_config, monkeypatch):
    """Runs an Evaluator over an Oracle; returns its metrics."""

    def run(oracle=None, config=tiny_config, **evaluation):
        oracle = oracle or Oracle()
        monkeypatch.setattr(Evaluator, "_detector", lambda self, net: oracle.detect)
        results = Evaluator(config, Evaluation(SAMPLE, **evaluation)).run(object())
        return results, oracle

    return run


@pytest.mark.parametrize("options", [{}, {"val_json_file": GROUNDTRUTH}, {"batch_size": 3}, {"batch_size": 8}])
def test_perfect_detections_score_1(score, options, tiny_config, capsys):
    config = tiny_config.override({"label_map": {1: "one", 3: "three"}})
    results, oracle = score(config=config, **options)
    assert oracle.image == 8
    np.testing.assert_allclose([results[name] for name in ("AP", "AP50", "APs", "AP_/one", "AP_/three")], 1, rtol=1e-6)
    assert "AP_/three" in capsys.readouterr().out


def test_moved_detections_score_less(score):
    results, _ = score(Oracle(move=2.0))
    assert 0.2 < results["AP"] < results["AP50"] <= 1


def test_num_samples_limits_the_images(score):
    _, oracle = score(num_samples=5, batch_size=2)
    assert oracle.image == 5


def test_an_evaluator_runs_again_from_the_start(tiny_config, monkeypatch):
    oracle = Oracle()
    monkeypatch.setattr(Evaluator, "_detector", lambda self, net: oracle.detect)
    evaluator = Evaluator(tiny_config, Evaluation(SAMPLE, batch_size=4))
    first = evaluator.run(object())
    oracle.image = 0
    assert evaluator.run(object()) == first


def test_candidates_are_5000_unless_the_config_says(tiny_config):
    assert Evaluator(tiny_config, Evaluation(SAMPLE)).config.nms_configs.max_nms_inputs == 5000
    config = tiny_config.override({"nms_configs": {"max_nms_inputs": 70, "method": "hard"}})
    nms_configs = Evaluator(config, Evaluation(SAMPLE)).config.nms_configs
    assert (nms_configs.max_nms_inputs, nms_configs.method) == (70, "hard")


def test_files_are_looked_at_before_a_network_is_built(tiny_config, tmp_path):
    with pytest.raises(ValueError, match="no file matches"):
        Evaluator(tiny_config, Evaluation(str(tmp_path / "none")))
    with pytest.raises(FileNotFoundError):
        Evaluator(tiny_config, Evaluation(SAMPLE, str(tmp_path / "none.json")))
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint at"):
        evaluate.run(Evaluator(tiny_config, Evaluation(SAMPLE)), str(tmp_path / "none"))


@pytest.mark.slow
def test_a_checkpoint_is_evaluated_by_its_averages(tiny_config, tmp_path):
    config = tiny_config.override({"nms_configs": {"max_nms_inputs": 50}})
    net = EfficientDetNet(config)
    weights = {name: variable.numpy() for name, variable in checkpoint.named_variables(net).items()}
    averages = {name + checkpoint.AVERAGE: value for name, value in weights.items()}
    zeros = {name: np.zeros_like(value) for name, value in weights.items()}
    checkpoint.save(str(tmp_path), 1, {**zeros, **averages})
    evaluator = Evaluator(config, Evaluation(SAMPLE, GROUNDTRUTH, batch_size=3))
    results = evaluate.run(evaluator, str(tmp_path))
    assert results == evaluator.run(net)
    assert -1 <= results["AP"] < 0.2 and not tf.math.is_nan(results["AP"])
