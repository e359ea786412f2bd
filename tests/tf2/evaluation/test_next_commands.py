# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""next_commands: commands after a training, as a shell splits them."""

import shlex

import numpy as np
import pytest

from tf2.evaluation import next_commands
from tf2.training.model_dir import ModelDir

TYPED = ["main.py", "--mode=train_and_eval", "--hparams=label_map={1: 'a b'}", "--debug"]


@pytest.fixture
def trained(tiny_config, tmp_path):
    """A function that writes a directory as a training leaves it; returns its path."""

    def write(*, ap=0.5, last_step=10, **keys):
        directory = ModelDir(str(tmp_path / "my runs"))
        directory.prepare(0)
        prefix = directory.save(10, {"weight": np.float32(1), "training/last_step": np.int64(last_step)})
        directory.write_config(tiny_config.override({"num_epochs": 40, **keys}))
        if ap >= 0:
            directory.archive(prefix, {"AP": ap})
        return directory.path

    return write


def after(model_dir, argv):
    return {purpose: shlex.split(command) for purpose, command in next_commands.after_training(model_dir, argv).items()}


@pytest.mark.parametrize("script, folder", [("main.py", ""), ("/opt/det/main.py", "/opt/det/"), ("./main.py", "./")])
def test_commands_have_the_paths_of_the_training(trained, tmp_path, script, folder):
    model_dir = trained()
    detect, export, longer = after(model_dir, [script, *TYPED[1:]]).values()
    inspect = ["python", f"{folder}model_inspect.py", f"--ckpt_path={model_dir}/archive"]
    image = f"{folder}testdata/img1.jpg"
    assert detect == [
        *inspect,
        "--runmode=infer",
        f"--input_image={image}",
        f"--output_image_dir={model_dir}/detections",
    ]
    assert export == [*inspect, "--runmode=saved_model", f"--saved_model_dir={model_dir}/saved_model"]
    assert longer == ["python", script, *TYPED[1:], "--num_epochs=80"]
    (tmp_path / "my runs" / "report").mkdir()
    (tmp_path / "my runs" / "report" / "example.jpg").write_bytes(b"")
    assert f"--input_image={model_dir}/report/example.jpg" in after(model_dir, TYPED)["detect objects in images"]


def test_without_an_archive_the_newest_checkpoint_is_used(trained):
    model_dir = trained(ap=-1)
    assert f"--ckpt_path={model_dir}" in after(model_dir, TYPED)["export the detector"]


@pytest.mark.parametrize("words", [
    ["--num_epochs=40"], ["-num_epochs=40"], ["--num_epochs", "40"], ["-num_epochs", "40"],
    ["--num_epochs=1", "--num_epochs=40"], [],
])  # fmt: skip
def test_the_number_of_epochs_is_replaced(trained, words):
    others = ["--num_examples_per_epoch=8", "--ckpt=x"]
    typed = [*TYPED, others[0], *words, others[1]]
    assert after(trained(), typed)["train longer"] == ["python", *TYPED, *others, "--num_epochs=80"]


@pytest.mark.parametrize("last_step, patience, is_early", [(10, 5, False), (20, 5, True), (20, None, False)])
def test_an_early_stop_is_named(trained, last_step, patience, is_early):
    *_, purpose = after(trained(last_step=last_step, early_stop_patience=patience), TYPED)
    note = ", with a larger early_stop_patience than 5, which ended this run"
    assert purpose == "train longer" + note * is_early
