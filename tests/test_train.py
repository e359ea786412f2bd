# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""train: the loop around a step. Fast tests give it a trainer of one weight, slow ones the tiny network."""

import contextlib
import glob
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from dataset.dataloader import InputReader
from efficientdet import config as config_lib
from tf2 import checkpoint, train

ROOT = pathlib.Path(__file__).parents[1]
SAMPLE = str(ROOT / "testdata" / "sample.tfrecord")
TRAINABLE = {
    "image_size": 64,
    "fpn_num_filters": 8,
    "fpn_cell_repeats": 1,
    "box_class_repeats": 1,
    "num_classes": 3,
}


class OneWeight:
    """Stands in for Trainer: its weight is a function of every image seen so far, and in which order."""

    nan_at = None

    def __init__(self, config, *, batch_size, steps_per_epoch):
        self.config, self.net = config, object()
        self.weight, self.step, self.started_from, self.resumed_at = np.float64(0), 0, None, None

    def train_step(self, images, labels):
        self.step += 1
        self.weight = 0.9 * self.weight + float(tf.reduce_mean(images))
        loss = np.nan if self.step == self.nan_at else 1.0
        return dict.fromkeys(("loss", "cls_loss", "box_loss", "learning_rate", "gradient_norm"), tf.constant(loss))

    def evaluated(self):
        return contextlib.nullcontext()

    def start_from(self, path, **scopes):
        self.started_from = path

    def save(self, directory, extra):
        return checkpoint.save(directory, self.step, {"weight": self.weight, **extra})

    def resume(self, prefix):
        entries = checkpoint.read_entries(prefix)
        self.weight, self.step = entries.pop("weight"), checkpoint.step_of(prefix)
        self.resumed_at = self.step
        return entries


class Numbers:
    """Stands in for InputReader: batch i is the number i."""

    def __init__(self, file_pattern, config):
        pass

    def training(self, batch_size, *, seed, start_batch, num_examples):
        return tf.data.Dataset.range(start_batch, 1000, output_type=tf.float32).map(lambda number: (number, {}))


class Calls:
    """Stands in for an evaluator: notes the step of each run."""

    def __init__(self, trainers):
        self.trainers, self.steps = trainers, []

    def run(self, net):
        assert net is self.trainers[-1].net
        self.steps.append(self.trainers[-1].step)
        return {"AP": 0.1 * len(self.steps)}


@pytest.fixture
def trainers(monkeypatch):
    """Makes `train.run` use OneWeight and Numbers; collects the trainers that it builds."""
    made = []

    def build(*args, **kwargs):
        made.append(OneWeight(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(train, "Trainer", build)
    monkeypatch.setattr(train, "InputReader", Numbers)
    return made


@pytest.fixture
def logged(monkeypatch):
    """Lines of `logging.info`."""
    lines = []
    monkeypatch.setattr(logging, "info", lambda message, *args: lines.append(message % args))
    return lines


def training(model_dir, **changes):
    options = {"batch_size": 4, "num_examples_per_epoch": 8, "save_checkpoints_steps": 1000, **changes}
    return train.Training(str(model_dir), SAMPLE, **options)


def epochs(config, count):
    return config.override({"num_epochs": count})


def test_a_run_writes_checkpoints_config_and_events(trainers, tiny_config, tmp_path):
    config = epochs(tiny_config, 5)
    assert train.run(config, training(tmp_path / "new" / "dir", save_checkpoints_steps=3)) == {}
    model_dir = tmp_path / "new" / "dir"
    assert checkpoint.saved(str(model_dir)) == [f"model.ckpt-{step}" for step in (4, 6, 8, 9, 10)]
    assert config_lib.load("efficientdet-d0", str(model_dir / "config.yaml")) == config
    tags = {
        value.tag
        for path in glob.glob(str(model_dir / "events.out.tfevents.*"))
        for event in tf.compat.v1.train.summary_iterator(path)
        for value in event.summary.value
    }
    assert tags == {"lrn_rate", "clip/gradient_norm", *(f"trainloss/{x}" for x in ("loss", "cls_loss", "box_loss"))}


def test_stop_and_resume_reads_what_the_run_that_never_stopped_reads(trainers, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "InputReader", InputReader)
    train.run(epochs(tiny_config, 2), training(tmp_path / "halves"))
    seed = checkpoint.read_entries(str(tmp_path / "halves" / "model.ckpt-4"))["seed"]  # it was drawn, and has to stay
    train.run(epochs(tiny_config, 4), training(tmp_path / "halves"))
    train.run(epochs(tiny_config, 4), training(tmp_path / "whole", seed=int(seed)))
    halves, whole = trainers[-2:]
    assert halves.step == whole.step == 8
    assert halves.weight == whole.weight != 0


def test_every_epoch_ends_in_a_checkpoint(trainers, tiny_config, tmp_path):
    train.run(epochs(tiny_config, 3), training(tmp_path))  # with the default, a checkpoint every 1000 steps
    assert checkpoint.saved(str(tmp_path)) == ["model.ckpt-2", "model.ckpt-4", "model.ckpt-6"]


def test_a_finished_run_says_so_and_evaluates_what_it_has(trainers, tiny_config, tmp_path, logged, monkeypatch):
    train.run(epochs(tiny_config, 1), training(tmp_path))
    evaluator = Calls(trainers)
    monkeypatch.setattr(checkpoint, "load_net", lambda config, prefix: trainers[0].net)
    assert train.run(epochs(tiny_config, 1), training(tmp_path)) == {}
    assert train.run(epochs(tiny_config, 1), training(tmp_path), evaluator) == {"AP": 0.1}
    assert len(trainers) == 1 and evaluator.steps == [2]  # no trainer was built
    assert f"{tmp_path}/model.ckpt-2 has all 2 steps: nothing left to train; raise num_epochs to go on" in logged


def test_resume_wins_over_ckpt_and_says_so(trainers, tiny_config, tmp_path, logged, monkeypatch):
    monkeypatch.setattr(checkpoint, "find", lambda path: path)
    train.run(epochs(tiny_config, 1), training(tmp_path, ckpt="weights"))
    assert trainers[0].started_from == "weights"
    assert not any("not read" in line for line in logged)
    train.run(epochs(tiny_config, 2), training(tmp_path, ckpt="weights"))
    assert trainers[1].started_from is None and trainers[1].step == 4
    said = f"{tmp_path} continues from {tmp_path}/model.ckpt-2; --ckpt and --backbone_ckpt only say how to begin"
    assert any(line.startswith(said) for line in logged)


@pytest.mark.parametrize("nan_at", [1, 6, 8, 10])
def test_a_loss_that_is_not_finite_stops_and_is_not_saved(trainers, tiny_config, tmp_path, monkeypatch, nan_at):
    monkeypatch.setattr(OneWeight, "nan_at", nan_at)
    with pytest.raises(FloatingPointError, match=f"loss.* is not finite at step {nan_at} .*lower learning_rate"):
        train.run(epochs(tiny_config, 5), training(tmp_path, save_checkpoints_steps=2))
    assert checkpoint.saved(str(tmp_path)) == [f"model.ckpt-{step}" for step in range(2, nan_at, 2)]


@pytest.mark.parametrize(
    "every, expected, result", [(0, [8], 0.1), (1, [2, 4, 6, 8], 0.4), (2, [4, 8], 0.2), (3, [6, 8], 0.2)]
)
def test_evaluations_come_after_their_epochs(trainers, tiny_config, tmp_path, every, expected, result):
    evaluator = Calls(trainers)
    results = train.run(epochs(tiny_config, 4), training(tmp_path), evaluator, eval_every_epochs=every)
    assert evaluator.steps == expected
    assert results == {"AP": pytest.approx(result)}
    assert checkpoint.saved(str(tmp_path)) == [f"model.ckpt-{step}" for step in (2, 4, 6, 8)]


def test_the_seed_of_a_training_stays(trainers, tiny_config, tmp_path, logged):
    train.run(epochs(tiny_config, 1), training(tmp_path, seed=5))
    train.run(epochs(tiny_config, 2), training(tmp_path, seed=6))
    assert checkpoint.read_entries(str(tmp_path / "model.ckpt-4"))["seed"] == 5
    assert "this training began with seed 5 and keeps it; --tf_random_seed is not used" in logged


@pytest.mark.parametrize("damage", [None, b"", b'model_checkpoint_path: "mo'])
def test_a_lost_state_file_does_not_start_anew(trainers, tiny_config, tmp_path, damage):
    train.run(epochs(tiny_config, 5), training(tmp_path))
    (tmp_path / "checkpoint").unlink() if damage is None else (tmp_path / "checkpoint").write_bytes(damage)
    train.run(epochs(tiny_config, 6), training(tmp_path))
    assert trainers[1].resumed_at == 10 and trainers[1].step == 12


def test_five_checkpoints_are_kept(trainers, tiny_config, tmp_path):
    train.run(epochs(tiny_config, 4), training(tmp_path, save_checkpoints_steps=1))
    assert checkpoint.saved(str(tmp_path)) == [f"model.ckpt-{step}" for step in range(4, 9)]
    assert len(list(tmp_path.glob("model.ckpt-*.index"))) == 5


def test_fake_data_repeats_the_first_batch(trainers, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Numbers, "training", lambda *args, **options: tf.data.Dataset.from_tensor_slices(([3.0, 5.0], [0, 0]))
    )
    train.run(epochs(tiny_config, 2), training(tmp_path, use_fake_data=True))
    assert trainers[0].weight == pytest.approx(3 * (1 + 0.9 + 0.9**2 + 0.9**3))


def test_what_cannot_be_trained_is_told_before_anything_is_built(trainers, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "InputReader", InputReader)
    with pytest.raises(ValueError, match="an epoch of 3 images has no whole batch of 4; lower --train_batch_size"):
        train.run(tiny_config, training(tmp_path, num_examples_per_epoch=3))
    with pytest.raises(ValueError, match="no file matches 'nowhere'"):
        train.run(tiny_config, train.Training(str(tmp_path), "nowhere"))
    assert trainers == []


@pytest.mark.slow
def test_stop_and_resume_of_a_network_is_exact(tmp_path):
    # efficientnet-b0, as it has no drop connect, whose random numbers start anew in a process that resumes.
    config = config_lib.load("efficientdet-d0", **TRAINABLE)
    train.run(epochs(config, 2), training(tmp_path / "whole", seed=3))
    train.run(epochs(config, 1), training(tmp_path / "halves", seed=3))
    whole = checkpoint.read_entries(str(tmp_path / "whole" / "model.ckpt-4"))
    train.run(epochs(config, 2), training(tmp_path / "halves", seed=3))
    halves = checkpoint.read_entries(str(tmp_path / "halves" / "model.ckpt-4"))
    assert whole.keys() == halves.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(halves[name], value, err_msg=name)


@pytest.mark.slow
def test_a_killed_command_continues_when_it_is_given_again(tmp_path):
    command = [sys.executable, str(ROOT / "main.py"), "--mode=train", "--model_name=efficientdet-lite0"]
    command += [f"--hparams={','.join(f'{key}={value}' for key, value in TRAINABLE.items())}", "--num_epochs=40"]
    command += [f"--model_dir={tmp_path}", f"--train_file_pattern={SAMPLE}", "--train_batch_size=4"]
    command += ["--num_examples_per_epoch=8"]  # two steps an epoch, and a checkpoint after each
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 400
        while not (tmp_path / "checkpoint").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    stopped = checkpoint.step_of(checkpoint.latest(str(tmp_path)))
    assert 2 <= stopped < 80
    seed = checkpoint.read_entries(checkpoint.latest(str(tmp_path)))["seed"]

    again = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert f"model.ckpt-{stopped}, step {stopped}" in again.stderr
    entries = checkpoint.read_entries(str(tmp_path / "model.ckpt-80"))
    assert entries["global_step"] == 80 and entries["seed"] == seed
    finished = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert "model.ckpt-80 has all 80 steps: nothing left to train" in finished.stderr
