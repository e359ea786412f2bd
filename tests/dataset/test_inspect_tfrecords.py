# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/inspect_tfrecords.py: the command, as published, and its error messages."""

import os
import pathlib
import subprocess
import sys

import pytest
from own_lines import foreign_lines
from PIL import Image

from dataset import inspect_tfrecords

ROOT = pathlib.Path(__file__).parents[2]
SAMPLE = str(ROOT / "testdata" / "sample.tfrecord")
LABELS = "label_map={1:'circle',2:'triangle',3:'star'}"


def command(folder, *flags):
    script = str(ROOT / "dataset" / "inspect_tfrecords.py")
    return subprocess.run(
        [sys.executable, script, *flags], capture_output=True, text=True, cwd=folder, timeout=300, env=os.environ
    )


def test_the_published_command(tmp_path):
    flags = [
        f"--file_pattern={SAMPLE}",
        "--model_name=efficientdet-d0",
        "--samples=2",
        "--save_samples_dir=train_samples/",
    ]
    result = command(tmp_path, *flags, "-eval", f"--hparams={LABELS}, autoaugmentation_policy=v3")
    assert result.returncode == 0, result.stderr
    assert foreign_lines(result.stderr) == []
    assert result.stdout.splitlines()[-1] == (
        "wrote 2 images, 1 of them without boxes, and a contact sheet to train_samples"
    )
    names = sorted(path.name for path in (tmp_path / "train_samples").iterdir())
    assert names == ["contact_sheet.jpg", "sample0.jpg", "sample1.jpg"]
    assert Image.open(tmp_path / "train_samples" / "sample0.jpg").size == (512, 512)


@pytest.mark.parametrize("dashes", ["-eval-hparams", "--eval--hparams"])
def test_joined_flags_exit_with_the_corrected_command(monkeypatch, dashes):
    argv = [
        "inspect.py",
        "--file_pattern=a*",
        f"{dashes}=label_map={{1:'label1'}}, autoaugmentation_policy=v3",
        "--samples=3",
    ]
    with pytest.raises(SystemExit) as stopped:
        inspect_tfrecords.check_joined_flags(argv)
    assert stopped.value.code == (
        f"error: {dashes} is two flags in one word; type: python inspect.py '--file_pattern=a*' --eval "
        "\"--hparams=label_map={1:'label1'}, autoaugmentation_policy=v3\" --samples=3"
    )


def test_other_flags_are_accepted():
    inspect_tfrecords.check_joined_flags(
        ["inspect.py", "-eval", "-hparams=eval-hparams=1", "--noeval", "--eval=true", "--eval"]
    )


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--file_pattern=none*"], "error: no file matches 'none*'"),
        ([f"--file_pattern={SAMPLE}", "-eval-hparams=num_classes=3"], "error: -eval-hparams is two flags in one word"),
    ],
)
def test_errors_exit_with_1_and_a_message(tmp_path, flags, message):
    result = command(tmp_path, *flags)
    assert result.returncode == 1 and message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr and list(tmp_path.iterdir()) == []
