# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""train: the loop around a step. Fast tests give it a trainer of one weight, slow ones run the command."""

import csv
import glob
import json
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
from efficientdet.config import ConfigError
from tf2.training import train
from tf2.training.model_dir import ModelDir
from tf2.weights import checkpoint
from tf2.weights.checkpoint import CheckpointError

ROOT = pathlib.Path(__file__).parents[3]
SAMPLE = str(ROOT / "testdata" / "sample.tfrecord")
PICTURE = np.zeros([2, 2, 3], np.uint8)


class OneWeight:
    """Stands in for Trainer: its weight is a function of every image seen so far, and in which order."""

    num_replicas = 1
    not_finite = frozenset()  # steps to skip
    overflows = False  # whether the loss scale still has a way to go down
    during_step = staticmethod(lambda step: None)

    def __init__(self, config, *, batch_size, steps_per_epoch, seed, strategy, precision):
        self.config, self.batch_size, self.seed = config, batch_size, seed
        self.weight, self.step, self.skipped, self.skipped_in_a_row = np.float64(0), 0, 0, 0
        self.started_from = self.resumed_at = None
        self.calls = []  # steps that each call took

    def distribute(self, make_dataset):
        return make_dataset(0, 1, self.batch_size)

    def train_step(self, images, labels):
        return self._take([(images, labels)])

    def train_steps(self, batches, count):
        return self._take(next(batches) for _ in range(int(count)))

    def _take(self, batches):
        before = self.step
        for images, _ in batches:
            self.step += 1
            type(self).during_step(self.step)
            good = self.step not in self.not_finite
            self.skipped += not good
            self.skipped_in_a_row = 0 if good else self.skipped_in_a_row + 1
            if good:
                self.weight = 0.9 * self.weight + float(tf.reduce_mean(images))
        self.calls.append(self.step - before)
        metrics = dict.fromkeys(("loss", "cls_loss", "box_loss", "learning_rate", "gradient_norm"), 1.0)
        metrics |= {"loss": 1.0 if good else np.nan, "skipped_steps": self.skipped}
        return {name: tf.constant(value, tf.float32) for name, value in metrics.items()}

    def num_skipped_in_a_row(self):
        return self.skipped_in_a_row

    def can_reduce_loss_scale(self):
        return self.overflows

    def non_finite_cause(self, metrics):
        return "the loss is not finite (most likely the weather)"

    def any_worker(self, wish):
        return wish

    def all_equal(self, number):
        return True

    def evaluated_net(self):
        return self

    def summary(self):
        return "one weight"

    def num_bytes(self):
        return 8

    def start_from(self, path, **scopes):
        self.started_from = path, scopes

    def state(self):
        return {"weight": self.weight, "global_step": np.int64(self.step)}

    def resume(self, prefix, entries):
        self.weight, self.step = entries["weight"], int(entries["global_step"])
        self.resumed_at = self.step


class Numbers:
    """Stands in for InputReader: batch i is the number i."""

    def __init__(self, file_pattern, config, shard):
        pass

    def training(self, batch_size, *, seed, start_batch, num_examples):
        return tf.data.Dataset.range(start_batch, 1000, output_type=tf.float32).map(lambda number: (number, {}))

    def source_ids(self, batch_size, *, seed, start_batch, num_examples):
        return [f"image{start_batch * batch_size + i}" for i in range(batch_size)]


class Scores:
    """Stands in for an evaluator: an AP for each step."""

    def __init__(self, aps=None, stop_at=None):
        self.aps, self.stop_at, self.steps = aps, stop_at, []

    def run(self, net):
        if net.step == self.stop_at:
            raise Killed
        self.steps.append(net.step)
        return {"AP": self.aps[net.step] if self.aps else net.step / 100}

    def draw_images(self, net):
        return {"img": PICTURE}


class Killed(Exception):
    """Ends a run where a kill would."""


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
    """Lines of the log."""
    lines = []
    for level in ("info", "warning", "error"):
        monkeypatch.setattr(logging, level, lambda message, *args: lines.append(message % args))
    return lines


def training(model_dir, **changes):
    options = {"batch_size": 4, "num_examples_per_epoch": 8, "save_checkpoints_steps": 1000, "seed": 3, **changes}
    return train.Training(str(model_dir), SAMPLE, **options)


def epochs(config, count):
    return config.override({"num_epochs": count})


def steps_saved(directory):
    return [checkpoint.step_of(name) for name in checkpoint.saved(str(directory))]


def newest_entries(directory):
    return checkpoint.read_entries(checkpoint.latest(str(directory)))


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def tags(directory):
    return {
        value.tag
        for path in glob.glob(str(directory / "events.out.tfevents.*"))
        for event in tf.compat.v1.train.summary_iterator(path)
        for value in event.summary.value
    }


def assert_same_entries(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_run_writes_checkpoints_config_tables_and_events(trainers, tiny_config, tmp_path):
    config, model_dir = epochs(tiny_config, 5), tmp_path / "new" / "dir"
    options = training(model_dir, save_checkpoints_steps=3, command="python main.py")
    assert train.run(config, options, Scores()) == {"AP": 0.1}
    assert steps_saved(model_dir) == [4, 6, 8, 9, 10]
    assert config_lib.load("efficientdet-d0", str(model_dir / "config.yaml")) == config
    assert (model_dir / "config.yaml").read_text().startswith("# python main.py\n")
    assert [row["step"] for row in rows(model_dir / "train.csv")] == ["1", "10"]
    assert rows(model_dir / "eval.csv") == [{"step": "10", "AP": "0.1"}]
    parts = {f"trainloss/{name}" for name in ("loss", "cls_loss", "box_loss")}
    speed = {"images_per_second", "input_wait", "skipped_steps"}
    assert tags(model_dir) == {"lrn_rate", "clip/gradient_norm"} | parts | speed
    assert tags(model_dir / "eval") == {"AP", "img"}
    entries = newest_entries(model_dir)
    assert {name: entries[f"training/{name}"] for name in ("seed", "batch_size", "position", "last_step")} == {
        "seed": 3,
        "batch_size": 4,
        "position": 40,
        "last_step": 10,
    }


def test_stop_and_resume_reads_what_the_run_that_never_stopped_reads(trainers, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "InputReader", InputReader)
    train.run(epochs(tiny_config, 2), training(tmp_path / "halves", seed=None))
    seed = int(newest_entries(tmp_path / "halves")["training/seed"])  # it was drawn, and has to stay
    train.run(epochs(tiny_config, 4), training(tmp_path / "halves", seed=None))
    train.run(epochs(tiny_config, 4), training(tmp_path / "whole", seed=seed))
    halves, whole = trainers[-2:]
    assert (halves.resumed_at, halves.step, whole.step) == (4, 8, 8)
    assert halves.weight == whole.weight != 0


def test_every_epoch_ends_in_a_checkpoint(trainers, tiny_config, tmp_path):
    train.run(epochs(tiny_config, 3), training(tmp_path))  # with the default, a checkpoint every 1000 steps
    assert steps_saved(tmp_path) == [2, 4, 6]


def test_steps_taken_in_one_go_end_where_python_is_needed(trainers, tiny_config, tmp_path):
    options = {"num_examples_per_epoch": 20, "save_checkpoints_steps": 4, "steps_per_execution": 3}
    train.run(epochs(tiny_config, 2), training(tmp_path, **options))
    assert trainers[0].calls == [3, 1, 1, 3, 2]  # to 3, 4 (save), 5 (epoch), 8 (save), 10 (epoch)
    assert steps_saved(tmp_path) == [4, 5, 8, 10]
    train.run(epochs(tiny_config, 2), training(tmp_path / "one", **options | {"steps_per_execution": 1}))
    assert trainers[0].weight == trainers[1].weight


def test_a_finished_run_says_so_and_evaluates_what_it_has(trainers, tiny_config, tmp_path, logged, monkeypatch):
    train.run(epochs(tiny_config, 1), training(tmp_path), Scores())
    monkeypatch.setattr(Numbers, "training", None)  # nothing is read
    evaluator = Scores()
    assert train.run(epochs(tiny_config, 1), training(tmp_path)) == {}
    assert train.run(epochs(tiny_config, 1), training(tmp_path), evaluator) == {"AP": 0.02}
    assert evaluator.steps == [2] and [trainer.calls for trainer in trainers[1:]] == [[], []]
    assert f"{tmp_path} has all 2 steps: nothing left to train; raise num_epochs to go on" in logged
    assert rows(tmp_path / "eval.csv") == [{"step": "2", "AP": "0.02"}]


@pytest.mark.parametrize("start", [{"ckpt": "weights"}, {"backbone_ckpt": "weights"}])
def test_resume_wins_over_a_start_and_says_so(trainers, tiny_config, tmp_path, logged, monkeypatch, start):
    monkeypatch.setattr(checkpoint, "find", lambda path: path)
    config = tiny_config.override({"ckpt_var_scope": "teacher"})
    train.run(epochs(config, 1), training(tmp_path, **start))
    scopes = {"scope": "efficientnet-lite0/", "source_scope": "teacher/"} if "backbone_ckpt" in start else {}
    assert trainers[0].started_from == ("weights", scopes)
    assert not any("not read" in line for line in logged)
    train.run(epochs(config, 2), training(tmp_path, **start))
    assert trainers[1].started_from is None and trainers[1].step == 4
    said = f"{tmp_path} continues from {tmp_path}/model.ckpt-2; --ckpt and --backbone_ckpt only say how to begin"
    assert any(line.startswith(said) for line in logged)


def test_the_seed_of_a_training_stays(trainers, tiny_config, tmp_path, logged):
    train.run(epochs(tiny_config, 1), training(tmp_path, seed=5))
    train.run(epochs(tiny_config, 2), training(tmp_path, seed=6))
    assert newest_entries(tmp_path)["training/seed"] == trainers[1].seed == 5
    assert "this training began with seed 5 and keeps it; --tf_random_seed is not used" in logged


def test_fake_data_repeats_the_first_batch(trainers, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Numbers, "training", lambda *args, **options: tf.data.Dataset.from_tensor_slices(([3.0, 5.0], [0, 0]))
    )
    train.run(epochs(tiny_config, 2), training(tmp_path, use_fake_data=True))
    assert trainers[0].weight == pytest.approx(3 * (1 + 0.9 + 0.9**2 + 0.9**3))


# Evaluations and what is remembered of them.


@pytest.mark.parametrize("every, expected", [(0, [8]), (1, [2, 4, 6, 8]), (2, [4, 8]), (3, [6, 8])])
def test_evaluations_come_after_their_epochs(trainers, tiny_config, tmp_path, every, expected):
    evaluator = Scores()
    results = train.run(epochs(tiny_config, 4), training(tmp_path), evaluator, eval_every_epochs=every)
    assert evaluator.steps == expected and results == {"AP": 0.08}
    assert steps_saved(tmp_path) == [2, 4, 6, 8]


def test_archive_holds_the_best_of_equal_ones_the_first(trainers, tiny_config, tmp_path):
    aps = {2: 0.1, 4: 0.3, 6: 0.2, 8: 0.3}
    train.run(epochs(tiny_config, 4), training(tmp_path), Scores(aps), eval_every_epochs=1)
    best = checkpoint.find(str(tmp_path / "archive"))
    assert_same_entries(checkpoint.read_entries(best), checkpoint.read_entries(str(tmp_path / "model.ckpt-4")))
    assert json.loads((tmp_path / "archive" / "best_eval.txt").read_text()) == {"AP": 0.3, "step": 4}
    assert (tmp_path / "archive" / "config.yaml").read_bytes() == (tmp_path / "config.yaml").read_bytes()


@pytest.mark.parametrize("last, kept", [(0.3, 1), (0.5, 8)])
def test_a_better_one_that_an_evaluation_beside_the_training_kept_stays(trainers, tiny_config, tmp_path, last, kept):
    directory = ModelDir(str(tmp_path))
    train.EvaluationRecorder(str(tmp_path))(directory.save(1, {"weight": np.float32(1)}), 1, {"AP": 0.4})
    (tmp_path / "checkpoint").unlink()
    for file in tmp_path.glob("model.ckpt-1.*"):
        file.unlink()
    train.run(epochs(tiny_config, 4), training(tmp_path), Scores({8: last}))
    assert checkpoint.step_of(checkpoint.find(str(tmp_path / "archive"))) == kept


FALLING = {2: 0.1, 4: 0.3, 6: 0.2, 8: 0.3, 10: 0.2, 12: 0.4}


@pytest.mark.parametrize("patience, steps", [(1, [2, 4, 6]), (2, [2, 4, 6, 8]), (3, [2, 4, 6, 8, 10])])
def test_early_stopping_counts_evaluations_since_the_best(
    trainers, tiny_config, tmp_path, logged, monkeypatch, patience, steps
):
    config = epochs(tiny_config, 6).override({"early_stop_patience": patience})
    evaluator = Scores(FALLING)
    train.run(config, training(tmp_path), evaluator, eval_every_epochs=1)
    assert evaluator.steps == steps and trainers[0].step == steps[-1]
    said = f"stopping early: no better AP than 0.3000 of step 4 in {patience} evaluations"
    assert said in logged
    monkeypatch.setattr(Numbers, "training", None)  # given again, it stops where it stopped
    assert train.run(config, training(tmp_path), Scores(FALLING), eval_every_epochs=1) == {"AP": FALLING[steps[-1]]}
    assert logged.count(said) == 2 and trainers[1].calls == []


def test_early_stopping_needs_evaluations(trainers, tiny_config, tmp_path):
    config = tiny_config.override({"early_stop_patience": 2})
    with pytest.raises(ValueError, match="early_stop_patience needs evaluations on the way; use --mode=train_and"):
        train.run(config, training(tmp_path))
    assert trainers == []


@pytest.mark.parametrize("moment", ["before the evaluation", "before the next save"])
@pytest.mark.parametrize("at", [2, 4, 6, 8, 10])
def test_a_kill_loses_no_evaluation(trainers, tiny_config, tmp_path, monkeypatch, at, moment):
    config = epochs(tiny_config, 6).override({"early_stop_patience": 3})

    def run(name, stop_at=None):
        evaluator = Scores(FALLING, stop_at)
        return evaluator.steps, train.run(config, training(tmp_path / name), evaluator, eval_every_epochs=1)

    def kill(step):
        if step == at + 1:
            raise Killed

    whole, results = run("whole")
    assert whole == [2, 4, 6, 8, 10]
    if moment == "before the evaluation":
        with pytest.raises(Killed):
            run("killed", stop_at=at)
    elif at < 10:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(OneWeight, "during_step", kill)
            run("killed")
    else:
        run("killed")  # it stopped early here
    again, results_again = run("killed")
    assert again == [step for step in whole if step >= at]  # the evaluation that was cut off comes first
    assert results_again == results
    for directory in ("", "archive"):
        found, expected = (newest_entries(tmp_path / name / directory) for name in ("killed", "whole"))
        assert_same_entries(found, expected)
    for file in ("eval.csv", "archive/best_eval.txt", "best_objective.txt"):
        assert (tmp_path / "killed" / file).read_text() == (tmp_path / "whole" / file).read_text()


@pytest.mark.parametrize("aps, kept", [([0.1, 0.3, 0.2], 2), ([0.3, 0.3, 0.1], 1)])
def test_recorder_keeps_what_an_evaluation_beside_a_training_found(tmp_path, aps, kept):
    for i, ap in enumerate(aps, 1):
        prefix = ModelDir(str(tmp_path)).save(i, {"weight": np.float32(i)})
        train.EvaluationRecorder(str(tmp_path))(prefix, i, {"AP": ap})  # a new one each time, as after a restart
    assert newest_entries(tmp_path / "archive") == {"weight": kept}
    assert [float(row["AP"]) for row in rows(tmp_path / "eval.csv")] == aps
    assert tags(tmp_path / "eval") == {"AP"}


def test_recorder_leaves_a_released_checkpoint_alone(tmp_path):
    train.EvaluationRecorder(str(tmp_path))(str(tmp_path / "model"), None, {"AP": 0.5})
    assert list(tmp_path.iterdir()) == []


def test_recorder_tells_what_it_cannot_write_and_goes_on(tmp_path, logged):
    prefix = ModelDir(str(tmp_path)).save(1, {"weight": np.float32(1)})
    for name in ("eval", "archive"):  # files where directories should be, and the other way round
        (tmp_path / name).touch()
    (tmp_path / "eval.csv").mkdir()
    recorder = train.EvaluationRecorder(str(tmp_path))
    recorder(prefix, 1, {"AP": 0.1})
    told = [f"{tmp_path}/eval", f"{tmp_path}/eval.csv", f"cannot keep model.ckpt-1 as the best in {tmp_path}"]
    assert [line.split(":")[0] for line in logged] == told
    (tmp_path / "archive").unlink()
    recorder(prefix, 1, {"AP": 0.05})  # less, but of the better one nothing could be kept
    assert len(logged) == 3 and ModelDir(str(tmp_path)).best_ap() == 0.05


# What cannot go on, and what goes on all the same.


def test_what_cannot_be_trained_is_told_before_anything_is_built(trainers, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "InputReader", InputReader)
    with pytest.raises(ValueError, match="an epoch of 3 images has no whole batch of 4; lower --train_batch_size"):
        train.run(tiny_config, training(tmp_path, num_examples_per_epoch=3))
    with pytest.raises(ValueError, match="no file matches 'nowhere'"):
        train.run(tiny_config, train.Training(str(tmp_path), "nowhere"))
    with pytest.raises(CheckpointError, match="no checkpoint at nowhere"):
        train.run(tiny_config, training(tmp_path, ckpt="nowhere"))
    assert trainers == []


def test_a_model_dir_that_cannot_be_written_is_told_before_the_first_step(trainers, tiny_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=f"cannot write to {tmp_path}/file/dir: "):
        train.run(tiny_config, training(tmp_path / "file" / "dir"))
    assert trainers[0].calls == []


@pytest.mark.parametrize(
    "keys, options, expected",
    [
        ({}, {"batch_size": 2}, r"was begun with --train_batch_size=4, got 2, .*; give 4 \(gradient_accumulation_st"),
        ({"num_classes": 4}, {}, "a training that has begun cannot go on with num_classes: 3 -> 4; set what was bef"),
        ({"moving_average_decay": 0.0}, {}, "cannot go on with moving_average_decay: 0.9998 -> 0.0"),
    ],
)
def test_what_a_training_cannot_go_on_with_is_refused(trainers, tiny_config, tmp_path, keys, options, expected):
    train.run(epochs(tiny_config, 1), training(tmp_path))
    before = (tmp_path / "config.yaml").read_text()
    with pytest.raises(ValueError, match=expected) as error:
        train.run(epochs(tiny_config, 2).override(keys), training(tmp_path, **options))
    assert isinstance(error.value, ConfigError) == bool(keys) and "another --model_dir" in str(error.value)
    assert len(trainers) == 1 and (tmp_path / "config.yaml").read_text() == before


def test_what_a_training_goes_on_with_otherwise_is_said(trainers, tiny_config, tmp_path, logged):
    train.run(epochs(tiny_config, 1), training(tmp_path))
    train.run(epochs(tiny_config, 2).override({"learning_rate": 0.01}), training(tmp_path))
    said = {line for line in logged if line.startswith("changed since the last run: ")}
    assert {line.split(": ", 1)[1] for line in said} == {"num_epochs: 1 -> 2", "learning_rate: 0.08 -> 0.01"}
    assert config_lib.load("efficientdet-d0", str(tmp_path / "config.yaml")).learning_rate == 0.01


def test_a_checkpoint_without_state_of_a_training_is_no_beginning(trainers, tiny_config, tmp_path):
    prefix = ModelDir(str(tmp_path)).save(5, {"weight": np.float64(1)})
    with pytest.raises(CheckpointError, match=f"holds no state of a training, .* --ckpt={prefix} in another"):
        train.run(tiny_config, training(tmp_path))
    assert trainers == []


def test_a_damaged_checkpoint_is_left_for_the_one_before(trainers, tiny_config, tmp_path, logged):
    train.run(epochs(tiny_config, 3), training(tmp_path))
    data = tmp_path / "model.ckpt-6.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    train.run(epochs(tiny_config, 4), training(tmp_path))
    assert trainers[1].resumed_at == 4
    assert trainers[1].weight == pytest.approx(sum(i * 0.9 ** (7 - i) for i in range(8)))
    assert any("model.ckpt-6" in line and line.endswith(f"taking {tmp_path}/model.ckpt-4 instead") for line in logged)
    checkpoint.read_entries(str(tmp_path / "model.ckpt-6"))  # written anew


@pytest.mark.parametrize("damage", [None, b"", b'model_checkpoint_path: "mo'])
def test_a_lost_state_file_does_not_start_anew(trainers, tiny_config, tmp_path, damage):
    train.run(epochs(tiny_config, 5), training(tmp_path))
    (tmp_path / "checkpoint").unlink() if damage is None else (tmp_path / "checkpoint").write_bytes(damage)
    train.run(epochs(tiny_config, 6), training(tmp_path))
    assert trainers[1].resumed_at == 10 and trainers[1].step == 12


def test_five_checkpoints_are_kept(trainers, tiny_config, tmp_path):
    train.run(epochs(tiny_config, 4), training(tmp_path, save_checkpoints_steps=1))
    assert steps_saved(tmp_path) == [4, 5, 6, 7, 8]
    assert len(list(tmp_path.glob("model.ckpt-*.index"))) == 5


@pytest.mark.parametrize(
    "not_finite, stops_at",
    [
        (range(1, 100), 10),  # the metrics of step 1 are read, and of every tenth: one step is not yet too many
        (range(16, 100), 20),
        (range(17, 21), None),  # 4 in a row
        ([*range(12, 16), *range(17, 21)], None),  # 8, but not in a row
    ],
)
def test_steps_that_are_not_finite_are_skipped_up_to_a_number(
    trainers, tiny_config, tmp_path, monkeypatch, not_finite, stops_at
):
    monkeypatch.setattr(OneWeight, "not_finite", frozenset(not_finite))
    config, options = epochs(tiny_config, 2), training(tmp_path, num_examples_per_epoch=60, save_checkpoints_steps=4)
    if stops_at:
        images = ", ".join(f"image{4 * stops_at - 4 + i}" for i in range(4))
        count = stops_at - not_finite[0] + 1
        said = rf"step {stops_at}: the loss is not finite .*; {count} steps in a row were skipped, .*: {images}$"
        with pytest.raises(FloatingPointError, match=said):
            train.run(config, options)
        assert steps_saved(tmp_path)[-1] == (stops_at - 1) // 4 * 4
    else:
        train.run(config, options)
        assert steps_saved(tmp_path)[-1] == 30
    good = [step for step in range(1, steps_saved(tmp_path)[-1] + 1) if step not in not_finite]
    weight = sum((step - 1) * 0.9 ** (len(good) - 1 - i) for i, step in enumerate(good))
    assert newest_entries(tmp_path)["weight"] == pytest.approx(weight)


def test_steps_that_overflow_while_the_loss_scale_goes_down_end_nothing(trainers, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(OneWeight, "not_finite", range(1, 21))
    monkeypatch.setattr(OneWeight, "overflows", True)
    train.run(epochs(tiny_config, 10), training(tmp_path))
    assert trainers[0].step == 20


@pytest.fixture
def default_sigint():
    """Python's own handler, as in a program that is started at a terminal; the background jobs of a shell ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("steps_per_execution, saved", [(1, 3), (5, 5)])
def test_a_signal_finishes_the_step_and_saves(
    trainers, tiny_config, tmp_path, monkeypatch, default_sigint, number, code, steps_per_execution, saved
):
    config = epochs(tiny_config, 2)
    options = {"num_examples_per_epoch": 40, "steps_per_execution": steps_per_execution}
    with monkeypatch.context() as patch:
        patch.setattr(OneWeight, "during_step", lambda step: step == 3 and os.kill(os.getpid(), number))
        with pytest.raises(train.Stopped, match=f"after step {saved}, which is saved; the same command") as stop:
            train.run(config, training(tmp_path / "stopped", **options))
    assert stop.value.exit_code == code and steps_saved(tmp_path / "stopped") == [saved]
    train.run(config, training(tmp_path / "stopped", **options))
    train.run(config, training(tmp_path / "whole", **options))
    assert trainers[1].resumed_at == saved
    assert_same_entries(newest_entries(tmp_path / "stopped"), newest_entries(tmp_path / "whole"))


def test_of_several_machines_the_first_one_writes(trainers, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(train.strategy_lib, "num_workers", lambda strategy: 2)
    monkeypatch.setattr(train.strategy_lib, "is_chief", lambda strategy: False)
    evaluator = Scores()
    assert train.run(epochs(tiny_config, 5), training(tmp_path / "second"), evaluator, eval_every_epochs=1) == {}
    assert trainers[0].step == 10 and evaluator.steps == [] and not (tmp_path / "second").exists()


def test_a_signal_to_any_machine_stops_all_when_they_ask(trainers, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(train.strategy_lib, "num_workers", lambda strategy: 2)
    monkeypatch.setattr(OneWeight, "any_worker", lambda self, wish: self.step >= 5)
    with pytest.raises(train.Stopped) as stopped:
        train.run(epochs(tiny_config, 10), training(tmp_path))
    assert stopped.value.exit_code == 143 and steps_saved(tmp_path)[-1] == 10  # metrics are read at every tenth


def test_machines_that_begin_at_different_steps_are_refused(trainers, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(train.strategy_lib, "num_workers", lambda strategy: 2)
    monkeypatch.setattr(OneWeight, "all_equal", lambda self, number: False)
    with pytest.raises(ValueError, match="the workers begin at different steps; give them one --model_dir"):
        train.run(tiny_config, training(tmp_path))


def test_a_profile_is_of_some_steps_after_the_first(trainers, tiny_config, tmp_path, logged):
    train.run(epochs(tiny_config, 10), training(tmp_path, profile=True))
    assert glob.glob(str(tmp_path / "plugins" / "profile" / "*" / "*.xplane.pb"))
    assert f"profiled: tensorboard --logdir={tmp_path}" in logged


def test_a_profile_of_steps_in_one_go_and_of_a_run_too_short_for_one(trainers, tiny_config, tmp_path, logged):
    options = {"profile": True, "num_examples_per_epoch": 80, "steps_per_execution": 20}
    train.run(epochs(tiny_config, 2), training(tmp_path / "in one go", **options))
    assert f"profiled: tensorboard --logdir={tmp_path / 'in one go'}" in logged
    train.run(epochs(tiny_config, 3), training(tmp_path / "short", profile=True))
    assert "nothing was profiled: the run ended before step 10" in logged


def test_a_signal_during_an_evaluation_stops_before_the_next_step(trainers, tiny_config, tmp_path):
    class Signals(Scores):
        def run(self, net):
            os.kill(os.getpid(), signal.SIGTERM)
            return super().run(net)

    with pytest.raises(train.Stopped, match="after step 2, which is saved"):
        train.run(epochs(tiny_config, 4), training(tmp_path), Signals(), eval_every_epochs=1)
    assert trainers[0].step == 2


# The command with the tiny network, drop connect included; a step of it takes a tenth of a second.

TINY = "image_size=64,fpn_num_filters=8,fpn_cell_repeats=1,box_class_repeats=1,num_classes=3"
# Runs main.py as a script, with a line of Python before and one at the end of the process.
WITH = """
import atexit, runpy, sys
sys.argv[0] = {main!r}
sys.path.insert(0, {root!r})
{before}
atexit.register(lambda: print({tell}, file=sys.stderr))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def command(model_dir, *flags, mode="train", num_epochs=30, script=(str(ROOT / "main.py"),)):
    """Two steps an epoch, and a checkpoint after each."""
    return [
        *(sys.executable, *script, f"--mode={mode}", "--model_name=efficientdet-lite0", f"--hparams={TINY}"),
        *(f"--model_dir={model_dir}", f"--train_file_pattern={SAMPLE}", f"--val_file_pattern={SAMPLE}"),
        *("--train_batch_size=4", "--num_examples_per_epoch=8", f"--num_epochs={num_epochs}", "--tf_random_seed=3"),
        *flags,
    ]


def script_with(before="", tell="''"):
    return "-c", WITH.format(main=str(ROOT / "main.py"), root=str(ROOT), before=before, tell=tell)


def finish(arguments, code=0, env=None):
    """Runs a command to its end; returns what it wrote to stderr."""
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=600, env={**os.environ, **(env or {})})
    assert result.returncode == code, result.stderr[-4000:]
    return result.stderr


def stop_after_first_save(arguments, model_dir, number):
    """Sends a signal as soon as there is a checkpoint; returns the exit code."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 400
        while not (model_dir / "checkpoint").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        return process.wait(timeout=100)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing stopped."""
    model_dir = tmp_path_factory.mktemp("whole") / "model"
    finish(command(model_dir))
    return model_dir


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_command_that_was_stopped_goes_on_to_the_bit(whole, tmp_path, number, code):
    model_dir = tmp_path / "model"
    assert stop_after_first_save(command(model_dir), model_dir, number) == code
    prefix, _ = ModelDir(str(model_dir)).newest()
    stopped = checkpoint.step_of(prefix)
    assert 2 <= stopped < 60
    assert f"continuing from {prefix}, step {stopped}" in finish(command(model_dir))
    assert steps_saved(model_dir) == [52, 54, 56, 58, 60]
    assert_same_entries(newest_entries(model_dir), newest_entries(whole))
    steps = [int(row["step"]) for row in rows(model_dir / "train.csv")]
    assert steps == sorted(set(steps)) and steps[-1] == 60
    assert "model has all 60 steps: nothing left to train" in finish(command(model_dir))


@pytest.mark.slow
def test_two_runs_of_a_command_are_equal_to_the_bit(whole, tmp_path):
    finish(command(tmp_path / "again"))
    again, first = newest_entries(tmp_path / "again"), newest_entries(whole)
    assert_same_entries(again, first)
    assert again["global_step"] == 60 and again["training/skipped_steps"] == 0
    assert all(np.isfinite(value).all() for value in again.values())
    numbers = ["loss", "cls_loss", "box_loss", "reg_l2_loss", "gradient_norm", "learning_rate"]
    table, expected = rows(tmp_path / "again" / "train.csv"), rows(whole / "train.csv")
    assert [[row[name] for name in numbers] for row in table] == [[row[name] for name in numbers] for row in expected]
    assert float(table[-1]["loss"]) < float(table[0]["loss"])


@pytest.mark.slow
def test_several_steps_without_python_are_the_same_steps(whole, tmp_path):
    finish(command(tmp_path, "--steps_per_execution=3", "--save_checkpoints_steps=5"))
    found, expected = newest_entries(tmp_path), newest_entries(whole)
    assert found["global_step"] == 60
    for name, value in expected.items():
        # Another graph, whose kernels TensorFlow may fuse otherwise.
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_debug_runs_every_operation_by_itself(tmp_path):
    script = script_with(tell="__import__('tensorflow').config.functions_run_eagerly()")
    said = finish(command(tmp_path, "--debug", num_epochs=1, script=script))
    assert said.splitlines()[-1] == "True"
    assert newest_entries(tmp_path)["global_step"] == 2


@pytest.mark.slow
def test_xla_is_asked_for_and_leaves_cpus_out(tmp_path):
    # Without a GPU there is no more to see than the setting, and that the input pipeline is not compiled with the rest.
    script = script_with(tell="__import__('tensorflow').config.optimizer.get_jit()")
    said = finish(command(tmp_path, "--use_xla", num_epochs=1, script=script), env={"CUDA_VISIBLE_DEVICES": ""})
    assert said.splitlines()[-1] == "autoclustering"
    assert "--use_xla has no effect: it compiles for GPUs and TPUs, of which there is none" in said
    assert newest_entries(tmp_path)["global_step"] == 2


@pytest.mark.slow
def test_profile_can_be_read_by_tensorboard(tmp_path):
    assert "profiled: tensorboard --logdir=" in finish(command(tmp_path, "--profile", num_epochs=8))
    (profile,) = glob.glob(str(tmp_path / "plugins" / "profile" / "*" / "*.xplane.pb"))
    assert b"train_step" in pathlib.Path(profile).read_bytes()


@pytest.mark.slow
def test_an_evaluation_follows_a_training_to_its_end(tmp_path):
    follower = subprocess.Popen(
        command(tmp_path, "--min_eval_interval=0", "--eval_timeout=300", mode="eval", num_epochs=8),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        finish(command(tmp_path, num_epochs=8))
        out, said = follower.communicate(timeout=400)
    finally:
        follower.kill()
        follower.wait()
    assert follower.returncode == 0, said
    table = rows(tmp_path / "eval.csv")
    assert table[-1]["step"] == "16"
    assert float(table[-1]["AP"]) == pytest.approx(json.loads(out.splitlines()[-1])["AP"], abs=1e-6)
    assert "continuing" not in said and "is not marked as the last" not in said
    best = checkpoint.step_of(checkpoint.find(str(tmp_path / "archive")))
    assert max(table, key=lambda row: float(row["AP"]))["step"] == str(best)


@pytest.mark.slow
def test_out_of_memory_names_the_settings_to_change(tmp_path):
    before = (
        "import tensorflow as tf\nfrom tf2.training import train\n"
        "def take(*args): raise tf.errors.ResourceExhaustedError(None, None, 'OOM when allocating tensor\\nand more')\n"
        "train.Trainer.train_step = take"
    )
    said = finish(command(tmp_path, script=script_with(before)), code=1)
    assert (
        "error: out of memory: lower --train_batch_size, set gradient_accumulation_steps to 2 or more, or "
        "grad_checkpoint=true in --hparams (OOM when allocating tensor)\n"
    ) in said
    assert "Traceback" not in said
