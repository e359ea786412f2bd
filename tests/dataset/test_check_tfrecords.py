# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/check_tfrecords.py: its output, files and exit code."""

import json
import pathlib
import subprocess
import sys

from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
SAMPLE = ROOT / "testdata" / "sample.tfrecord"
LABELS = "label_map={1: 'circle', 2: 'triangle', 3: 'star'}"


def command(folder, *flags):
    script = ROOT / "dataset" / "check_tfrecords.py"
    return subprocess.run(
        [sys.executable, str(script), "--model_name=efficientdet-lite0", *flags],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
    )


def test_clean_records(tmp_path):
    flags = [f"--file_pattern={SAMPLE}", f"--hparams=num_classes=3,{LABELS}", "--output_dir=check/1"]
    result = command(tmp_path, *flags, f"--val_json_file={ROOT / 'testdata' / 'sample.json'}")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[-1] == "nothing wrong was found"
    assert max(map(len, lines)) <= 120
    truth = json.loads((ROOT / "testdata" / "sample.json").read_text())
    stars = sum(row["category_id"] == 3 for row in truth["annotations"])
    assert ["3", "star", str(stars)] in [line.split()[:3] for line in lines]
    report = json.loads((tmp_path / "check/1/report.json").read_text())
    assert report["records"] == 8 and report["findings"] == [] and report["boxes"] == len(truth["annotations"])
    assert sum(row["boxes"] for row in report["classes"]) == len(truth["annotations"])
    # By hand from the JSON: all images are 96x96, and scaled by 320 / 96 for the network.
    for where, scale in (("original", 1), ("network", 320 / 96)):
        areas = [row["area"] * scale**2 for row in truth["annotations"]]
        assert report["sizes"][where] == {
            "small": sum(area < 32**2 for area in areas),
            "medium": sum(32**2 <= area < 96**2 for area in areas),
            "large": sum(area >= 96**2 for area in areas),
        }
    for name in ("box_sizes.png", "counts.png"):
        with Image.open(tmp_path / "check/1" / name) as image:
            image.load()
            assert image.format == "PNG" and image.width >= 600


def test_the_default_model_is_that_of_the_other_commands(tmp_path):
    assert "(default: efficientdet-d0)" in " ".join(command(tmp_path, "--help").stdout.split())


def test_a_fatal_finding_is_exit_code_1(tmp_path):
    result = command(tmp_path, f"--file_pattern={SAMPLE}", "--hparams=num_classes=2", "--samples=8")
    assert result.returncode == 1
    assert "FATAL: class ids must be in 1..num_classes = 2, but 12 of 29 boxes have others (3 on 12)" in result.stdout
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_wrong_flags_exit_with_a_message(tmp_path):
    (tmp_path / "file").touch()
    for flags, message in (
        ([f"--file_pattern={SAMPLE}", "--hparams=num_clases=3"], "did you mean 'num_classes'?"),
        (["--file_pattern=x", "extra"], "every option starts with --"),
        (["--file_pattern=none-*"], "error: no file matches 'none-*'"),
        (
            [f"--file_pattern={SAMPLE}", "--val_json_file=x.json"],
            "error: cannot read x.json: No such file or directory",
        ),
        (
            [f"--file_pattern={SAMPLE}", "--samples=1", "--output_dir=file"],
            "error: file cannot be written to (File exists)",
        ),
    ):
        result = command(tmp_path, *flags)
        assert result.returncode == 1 and message in result.stdout + result.stderr
        assert "Traceback" not in result.stderr
