# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/same_start.py: workers with other settings, records, software or weights are named."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from efficientdet import config as config_lib
from tf2.evaluation import train_and_eval
from tf2.evaluation.evaluator import Evaluation
from tf2.training import same_start
from tf2.training.train import Training


@pytest.fixture(autouse=True)
def three_workers(monkeypatch):
    spec = {"cluster": {"worker": ["a:1", "b:2", "c:3"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(spec))


def message(*values):
    with pytest.raises(ValueError) as error:
        same_start.check(values, "start again")
    return str(error.value)


def test_equal_workers_pass():
    same_start.check([{"x": 1, "y": None}] * 3, "start again")
    same_start.check([{"x": 1}], "start again")


def test_the_workers_that_differ_are_named_with_their_values():
    assert message({"x": 1, "y": 2}, {"x": 1, "y": 2}, {"x": 1, "y": 3}) == (
        "worker 2 (c:3) has y 3 instead of 2 on worker 0 (a:1); start again"
    )
    assert message({"x": 1}, {"x": 0}, {"y": 5}) == (
        "worker 1 (b:2) has x 0 instead of 1; worker 2 (c:3) has x None instead of 1, y 5 instead of None on worker 0 "
        "(a:1); start again"
    )


def test_many_differences_are_counted():
    found = message(dict.fromkeys("abcdef", 1), dict.fromkeys("abcdef", 2))
    assert found.startswith("worker 1 (b:2) has a 2 instead of 1, b 2 instead of 1, c ") and " and 2 more on " in found


def write_records(folder, names=("train-0", "train-1"), content=b"records"):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(content)
    return str(folder / "train-*")


def test_files_are_compared_by_name_and_size_in_any_folder(tmp_path):
    found = same_start.files(write_records(tmp_path / "a"))
    assert found.startswith("2 files of 14 bytes (") and found == same_start.files(write_records(tmp_path / "b"))
    assert same_start.files(write_records(tmp_path / "c", ["train-0", "train-2"])) != found
    assert same_start.files(write_records(tmp_path / "d", content=b"record")).startswith("2 files of 12 bytes")
    assert same_start.files(None) == "no files"


def test_the_state_is_compared_to_the_bit():
    entries = {"a": np.float32([1, 2]), "step": np.int64(3)}
    digest = same_start.state(entries)
    assert digest == same_start.state(dict(reversed(entries.items())))
    assert digest != same_start.state({**entries, "a": np.nextafter(entries["a"], np.float32(9))})
    assert digest != same_start.state({"b": entries["a"], "step": entries["step"]})


def test_software_names_versions_and_a_digest_of_the_code(tmp_path, monkeypatch):
    found = same_start.software()
    assert found["TensorFlow"] == tf.__version__
    assert found["efficientdet-tf2"].startswith(f"{config_lib.VERSION} (")
    monkeypatch.setattr(same_start, "ROOT", tmp_path)
    (tmp_path / "tf2").mkdir()
    versions = set()
    for code in ("x = 1", "x = 2"):
        (tmp_path / "tf2" / "module.py").write_text(code)
        versions.add(same_start.software()["efficientdet-tf2"])
    assert len(versions | {found["efficientdet-tf2"]}) == 3


TRAINING = {"model_dir": "/a", "train_file_pattern": "", "seed": 1, "ckpt": "/a/efficientdet-d0"}


@pytest.mark.parametrize(
    "changed, name",
    [
        ({"batch_size": 8}, "train_batch_size 8 instead of 64"),
        ({"seed": 2}, "tf_random_seed 2 instead of 1"),
        ({"num_examples_per_epoch": 640}, "num_examples_per_epoch 640 instead of None"),
        ({"save_checkpoints_steps": 5}, "save_checkpoints_steps 5 instead of 1000"),
        ({"steps_per_execution": 5}, "steps_per_execution 5 instead of 1"),
        ({"use_fake_data": True}, "use_fake_data True instead of False"),
        ({"ckpt": "efficientdet-d1"}, "ckpt efficientdet-d1 instead of efficientdet-d0"),
        ({"learning_rate": 0.1}, "learning_rate 0.1 instead of 0.08"),
        ({"num_epochs": 5}, "num_epochs 5 instead of 300"),
        ({"every": 5}, "epochs between evaluations 5 instead of 0"),
        ({"eval_batch_size": 4}, "eval_batch_size 4 instead of 1"),
        ({"model_dir": "/b", "ckpt": "/b/efficientdet-d0/", "profile": True, "command": "x", "strategy": "gpus"}, ""),
    ],
)
def test_flags_and_keys_of_workers(monkeypatch, changed, name):
    monkeypatch.setattr(same_start, "find_files", lambda pattern: [])

    def start(changes):
        config = config_lib.load("efficientdet-d0")
        keys = {field.name for field in dataclasses.fields(config)} & changes.keys()
        config = config.override({key: changes[key] for key in keys})
        fields = {field.name for field in dataclasses.fields(Training)} & changes.keys()
        training = Training(**TRAINING | {field: changes[field] for field in fields})
        evaluation = Evaluation("val", batch_size=changes.get("eval_batch_size", 1))
        return train_and_eval._start(config, training, evaluation, changes.get("every", 0))

    if not name:
        same_start.check([start({}), start(changed)], "start again")
        return
    assert f"worker 1 (b:2) has {name} on worker 0 (a:1)" in message(start({}), start(changed))
