# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""benchmark_reader: it times the real reader to the last batch, and says what it timed. How fast is no test."""

import itertools
import pathlib
import subprocess
import sys
import types

import pytest
import tensorflow as tf

from tf2.benchmarks import reader

ROOT = pathlib.Path(__file__).parents[3]


def run(*flags):
    command = [sys.executable, str(ROOT / "tf2" / "benchmarks" / "reader.py"), "--hparams=num_classes=3", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_line_for_every_pipeline(tmp_path):
    result = run(
        f"--file_pattern={ROOT}/testdata/sample.tfrecord",
        "--model_names=efficientdet-lite0",
        "--num_images=8",
        "--stages",
    )
    assert result.returncode == 0, result.stderr
    rows = [line for line in result.stdout.splitlines() if line.startswith("efficientdet-lite0")]
    assert [row[20:60].strip() for row in rows] == [
        "training",
        "evaluation",
        "records",
        "records, whole images decoded",
        "training, before targets and batches",
    ]
    for row in rows:
        speed, seconds, *compared = map(float, row[60:].split())
        assert speed > 0 and seconds > 0 and len(compared) == (row in rows[:2])


@pytest.mark.parametrize("flag, expected", [("--file_pattern=/none/*", "no file matches '/none/*'")])
def test_errors_are_one_sentence(flag, expected):
    result = run(flag)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: {expected}")


@pytest.mark.parametrize("sizes, is_batched", [([4, 1], True), ([4], True), ([4], False)])
def test_images_are_counted_after_the_warm_up(monkeypatch, sizes, is_batched):
    taken = []

    def endless():
        for size in itertools.cycle(sizes):
            taken.append(size if is_batched else 1)
            yield tf.zeros([size, 2])

    monkeypatch.setattr(reader, "time", types.SimpleNamespace(perf_counter=itertools.count().__next__))
    warm_up = reader.WARM_UP_IMAGES
    speed = reader.images_per_second(endless(), 10, is_batched)  # in one second of this clock
    assert 10 <= speed < 14 and warm_up + 10 <= sum(taken) < warm_up + 18
