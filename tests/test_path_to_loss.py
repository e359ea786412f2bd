# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Test of the path from the training command to the loss: at most nine calls, as README.md prints them."""

import pathlib
import re
import traceback

import pytest
from absl import flags

import main
from dataset import command_line
from efficientdet import losses

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TINY = "image_size=64,num_classes=3,fpn_num_filters=8,fpn_cell_repeats=1,box_class_repeats=1"


class Reached(Exception):
    """Carries the stack at the first call of the focal loss."""


@pytest.fixture
def training_command(tmp_path):
    """Parses a small training command; the flags are undefined again afterwards."""
    groups, before = command_line.GROUPS[:], set(flags.FLAGS)
    main.define_flags()
    words = ["--mode=train", "--model_name=efficientdet-lite0", f"--hparams={TINY}", f"--model_dir={tmp_path}"]
    words += [f"--train_file_pattern={ROOT}/testdata/sample.tfrecord", "--train_batch_size=2"]
    flags.FLAGS(["main.py", *words, "--num_examples_per_epoch=2", "--num_epochs=1"])
    yield
    command_line.GROUPS[:] = groups
    flags.FLAGS.remove_flag_values(set(flags.FLAGS) - before)
    flags.FLAGS.unparse_flags()


def test_the_path_to_the_loss_is_short_and_documented(training_command, monkeypatch):
    def focal_loss(*args, **kwargs):
        raise Reached(traceback.extract_stack())

    monkeypatch.setattr(losses, "focal_loss", focal_loss)
    with pytest.raises(Reached) as reached:
        main.main()
    calls = []
    for frame in reached.value.args[0]:
        path = pathlib.Path(frame.filename).resolve()
        # Comprehensions, which are calls up to Python 3.11, belong to the function around them.
        if path.is_relative_to(ROOT) and path.exists() and not frame.name.startswith("<"):
            calls.append(f"{path.relative_to(ROOT)}: {frame.name}")
    calls = [call for call in calls if not call.startswith(("tests/", ".venv/"))]
    calls.append("efficientdet/losses.py: focal_loss")
    printed = re.search(r"^From the command to the loss[^:]*: (.*?)\.$", README, re.MULTILINE | re.DOTALL)[1]
    documented, file = [], None
    for step in re.sub(r"\s+", " ", printed).replace("`", "").split(" -> "):
        file, name = step.split(": ") if ": " in step else (file, step)
        documented.append(f"{file}: {name}")
    assert calls == documented
    assert len(calls) - 1 <= 9
