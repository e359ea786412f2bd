# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""benchmark_metric: it measures the real metric on data worth it, and says what came out. How fast is no test."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tf2.benchmarks import metric
from tf2.benchmarks.metric import ALONE, Measurement
from tf2.evaluation.coco_metric import BACKENDS

ROOT = pathlib.Path(__file__).parents[3]


def run(*flags):
    command = [sys.executable, str(ROOT / "tf2" / "benchmarks" / "metric.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def images():
    return metric.random_images(40, 12, 3, 4, seed=1)


@pytest.mark.slow
def test_a_line_for_each_and_the_same_numbers():
    result = run("--num_images=20", "--num_detections=10", "--num_classes=3", "--num_objects=4")
    assert result.returncode == 0, result.stderr
    header, _, *rows = result.stdout.splitlines()
    assert header == "20 images, 10 detections and about 4 objects each, 3 classes"
    assert [row[:35].strip() for row in rows] == [ALONE, *(f"CocoMetric, {name}" for name in BACKENDS)]
    for row in rows:
        seconds, cpu_seconds, matmul, _, time, _ = map(float, row[35:87].split())
        assert seconds >= 0 and cpu_seconds >= 0 and matmul > 0 and time > 0
    assert rows[0][87:].startswith("  AP 0.") and {row[87:] for row in rows[1:]} == {"  equal"}


@pytest.mark.slow
def test_an_error_is_one_sentence():
    result = run("--num_images=1", "--once=matlab")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: backend 'matlab' is none of those installed: pycocotools")


@pytest.mark.parametrize("installed", [True, False])
def test_each_has_a_process_of_its_own(monkeypatch, installed):
    commands = []

    def fake_run(command, **options):
        commands.append(command)
        measured = Measurement(float(len(commands)), 1.0, 0.2, 100.0, [0.5])
        return subprocess.CompletedProcess(command, 0, stdout=json.dumps(measured._asdict()))

    monkeypatch.setattr(metric.subprocess, "run", fake_run)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: installed or None)
    monkeypatch.setattr(sys, "argv", ["script.py", "--num_images=3"])
    names = [ALONE, "pycocotools", "faster-coco-eval"][: 2 + installed]
    assert [(name, run.seconds) for name, run in metric.measure_all()] == list(zip(names, [1.0, 2.0, 3.0]))
    assert commands == [[sys.executable, "script.py", "--num_images=3", f"--once={name}"] for name in names]


def test_a_process_that_fails_is_told(monkeypatch):
    monkeypatch.setattr(metric.subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 3))
    with pytest.raises(OSError, match="the process of 'pycocotools alone' ended with code 3, see above"):
        next(metric.measure_all())


def test_all_score_the_same_images(images):
    alone = metric.pycocotools_alone(images)()
    for backend in BACKENDS:
        np.testing.assert_allclose(metric.coco_metric(images, backend)(), alone, rtol=0, atol=1e-12)
    assert 0.05 < alone[0] < 0.95 and min(alone) > -1  # so that it is a comparison, at all sizes


def test_images_are_the_same_each_time_and_have_all_that_is_hard(images):
    for image, again in zip(images, metric.random_images(40, 12, 3, 4, seed=1)):
        for array, other in zip([*image[:3], *image[3].values()], [*again[:3], *again[3].values()]):
            np.testing.assert_array_equal(array, other)
        assert image.boxes.shape == (12, 4) and image.boxes.dtype == np.float32
    scores, classes = (np.concatenate(column) for column in list(zip(*images))[1:3])
    objects = [image.groundtruth for image in images]
    assert len(np.unique(scores)) < len(scores) and set(classes) == {1, 2, 3}
    assert any(image["is_crowd"].any() for image in objects) and any(not len(image["boxes"]) for image in objects)
    for image in objects:
        sides = image["boxes"][:, 2:] - image["boxes"][:, :2]
        assert np.all(sides > 0) and np.all(image["area"] > 0)
        assert np.all(image["area"] < sides[:, 0] * sides[:, 1])
        assert np.all((image["boxes"] >= 0) & (image["boxes"] <= metric.SIDE))


def test_runs_are_held_against_the_first_by_the_matmul():
    runs = [
        (ALONE, Measurement(90.0, 80.0, 0.2, 2000.0, [0.25, 0.5])),
        ("pycocotools", Measurement(81.0, 60.0, 0.3, 100.0, [0.25, 0.5])),
        ("other", Measurement(8.1, 8.0, 0.2, 50.0, [0.25, 0.375])),
    ]
    _, *rows = metric.report(iter(runs))
    assert [row[35:].split(maxsplit=6) for row in rows] == [
        ["90.0", "80.0", "0.200", "2000", "1.00", "1.00", "AP 0.2500"],
        ["81.0", "60.0", "0.300", "100", "0.50", "0.05", "equal"],  # (60 / 0.3) / (80 / 0.2)
        ["8.1", "8.0", "0.200", "50", "0.10", "0.03", "apart by 1.2e-01"],
    ]
