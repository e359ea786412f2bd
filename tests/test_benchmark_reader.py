# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""benchmark_reader: it times the real reader to the last batch, and says what it timed. How fast is no test."""

import pathlib
import subprocess
import sys

import pytest

from dataset import benchmark_reader

ROOT = pathlib.Path(__file__).parents[1]


def run(*flags):
    command = [sys.executable, str(ROOT / "dataset" / "benchmark_reader.py"), "--hparams=num_classes=3", *flags]
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


def test_elements_are_counted_after_the_warm_up():
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield ()

    assert benchmark_reader.images_per_second(endless(), num_images=10, images_each=4) > 0
    assert len(taken) == -(-benchmark_reader.WARM_UP_IMAGES // 4) + 3
