# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/train.py: fast ones use a trainer with a single weight, slow ones run main.py."""

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

from dataset import record_count
from dataset.dataloader import InputReader
from dataset.files import TargetError
from dataset.label_map import LabelMapError
from dataset.record_count import FILE_NAME
from efficientdet import config as config_lib
from efficientdet.config import ConfigError
from tf2.evaluation import follow
from tf2.training import run_lock, train
from tf2.training.model_dir import ModelDir
from tf2.training.run_lock import LockLost
from tf2.weights import checkpoint
from tf2.weights.checkpoint import CheckpointError

ROOT = pathlib.Path(__file__).parents[3]
SAMPLE = str(ROOT / "testdata" / "sample.tfrecord")
IMAGE = np.zeros([2, 2, 3], np.uint8)


class OneWeight:
    """Replacement of Trainer; its weight depends on all images seen so far, and on their order."""

    num_replicas = 1
    trained = ()
    not_finite = frozenset()  # steps to skip
    overflows = False  # the result of can_reduce_loss_scale
    average = None  # if set, there is a moving average of the weight
    during_step = staticmethod(lambda step: None)

    def __init__(self, config, *, batch_size, steps_per_epoch, seed, strategy, precision, use_xla=False):
        self.config, self.batch_size, self.seed, self.strategy = config, batch_size, seed, strategy
        self.weight, self.step, self.skipped, self.skipped_in_a_row = np.float64(0), 0, 0, 0
        self.started_from = self.resumed_at = None
        self.calls = []  # number of steps per call

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
            finite = self.step not in self.not_finite
            self.skipped += not finite
            self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
            if finite:
                self.weight = 0.9 * self.weight + float(tf.reduce_mean(images))
        self.calls.append(self.step - before)
        metrics = dict.fromkeys(("loss", "cls_loss", "box_loss", "learning_rate", "gradient_norm"), 1.0)
        metrics |= {"loss": 1.0 if finite else np.nan, "skipped_steps": self.skipped}
        return {name: tf.constant(value, tf.float32) for name, value in metrics.items()}

    @property
    def skipped_steps(self):
        return self

    def num_in_a_row(self):
        return self.skipped_in_a_row

    def can_reduce_loss_scale(self):
        return self.overflows

    def cause(self, metrics, variables):
        return "the loss is not finite (most likely the weather)"

    def any_worker(self, flag):
        return flag

    def mean_over_replicas(self, values):
        return values

    def evaluated_net(self, *, averaged=True):
        self.evaluates_average = averaged and self.average is not None
        return self

    def summary(self):
        return "one weight"

    def num_bytes(self):
        return 8

    def start_from(self, path, **scopes):
        self.started_from = path, scopes

    def state(self):
        average = {"weight" + checkpoint.AVERAGE: self.weight / 2} if self.average else {}
        return {"weight": self.weight, "global_step": np.int64(self.step), **average}

    def resume(self, prefix, entries):
        self.weight, self.step = entries["weight"], int(entries["global_step"])
        self.resumed_at = self.step


class Numbers:
    """Replacement of InputReader; batch i is the number i."""

    def __init__(self, file_pattern, config, shard):
        pass

    def training(self, batch_size, *, seed, start_batch, num_examples):
        return tf.data.Dataset.range(start_batch, 1000, output_type=tf.float32).map(lambda number: (number, {}))

    def source_ids(self, batch_size, *, seed, start_batch, num_examples):
        return [f"image{start_batch * batch_size + i}" for i in range(batch_size)]


class Scores:
    """Evaluator that returns a given AP per step."""

    def __init__(self, aps=None, stop_at=None):
        self.aps, self.stop_at, self.steps = aps, stop_at, []

    def run(self, net):
        if net.step == self.stop_at:
            raise Killed
        self.steps.append(net.step)
        return {"AP": self.aps[net.step] if self.aps else net.step / 100}

    def draw_images(self, net):
        return {"img": IMAGE}


class Killed(Exception):
    """Ends a run as a kill would."""


@pytest.fixture
def trainers(monkeypatch):
    """Makes `train.run` use OneWeight and Numbers; a list of the trainers that it builds."""
    made = []

    def build(*args, **kwargs):
        made.append(OneWeight(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(train, "Trainer", build)
    monkeypatch.setattr(train, "InputReader", Numbers)
    monkeypatch.setattr(run_lock, "SETTLE", 0.0)
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


def test_a_resumed_run_reads_the_same_data_as_an_uninterrupted_one(trainers, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "InputReader", InputReader)
    train.run(epochs(tiny_config, 2), training(tmp_path / "halves", seed=None))
    seed = int(newest_entries(tmp_path / "halves")["training/seed"])  # drawn by the first run, and kept
    train.run(epochs(tiny_config, 4), training(tmp_path / "halves", seed=None))
    train.run(epochs(tiny_config, 4), training(tmp_path / "whole", seed=seed))
    halves, whole = trainers[-2:]
    assert (halves.resumed_at, halves.step, whole.step) == (4, 8, 8)
    assert halves.weight == whole.weight != 0


@pytest.mark.usefixtures("trainers", "op_determinism")
def test_training_reads_in_parallel_with_op_determinism(tiny_config, tmp_path, overlap, monkeypatch):
    def batches(*_, **__):
        numbers = tf.data.Dataset.range(1000, output_type=tf.float32)
        return numbers.map(lambda number: (overlap(number), {}), num_parallel_calls=2)

    monkeypatch.setattr(Numbers, "training", batches)
    train.run(epochs(tiny_config, 1), training(tmp_path))
    assert overlap.seen == [True]


def test_every_epoch_ends_with_a_checkpoint(trainers, tiny_config, tmp_path):
    train.run(epochs(tiny_config, 3), training(tmp_path))  # with the default, a checkpoint every 1000 steps
    assert steps_saved(tmp_path) == [2, 4, 6]


@pytest.mark.parametrize(
    "min_save_steps, every, saved",
    [
        (2, 0, [6, 8, 10, 12, 14]),  # the last five of all epochs
        (5, 0, [6, 12, 14]),
        (5, 2, [4, 6, 8, 12, 14]),  # every evaluation has a checkpoint
        (100, 0, [14]),
        (100, 3, [6, 12, 14]),
    ],
)
def test_short_epochs_end_together_with_a_checkpoint(trainers, tiny_config, tmp_path, min_save_steps, every, saved):
    options = training(tmp_path, min_save_steps=min_save_steps, steps_per_execution=3)
    train.run(epochs(tiny_config, 7), options, Scores() if every else None, eval_every_epochs=every)
    assert steps_saved(tmp_path) == saved and trainers[0].calls == [2] * 7


def test_a_run_that_was_killed_between_saved_epochs_resumes(trainers, tiny_config, tmp_path, monkeypatch):
    options = {"min_save_steps": 5}
    train.run(epochs(tiny_config, 7), training(tmp_path / "whole", **options))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(OneWeight, "during_step", kill_at(11))
        train.run(epochs(tiny_config, 7), training(tmp_path / "run", **options))
    train.run(epochs(tiny_config, 7), training(tmp_path / "run", **options))
    assert trainers[2].resumed_at == 6 and steps_saved(tmp_path / "run") == [6, 12, 14]
    assert_same_entries(newest_entries(tmp_path / "run"), newest_entries(tmp_path / "whole"))


def kill_at(step):
    """Returns a function of a step that ends the run as a kill would, at one of them."""

    def during_step(number):
        if number == step:
            raise Killed

    return during_step


def test_steps_per_execution_ends_at_saves_and_epochs(trainers, tiny_config, tmp_path):
    options = {"num_examples_per_epoch": 20, "save_checkpoints_steps": 4, "steps_per_execution": 3}
    train.run(epochs(tiny_config, 2), training(tmp_path, **options))
    assert trainers[0].calls == [3, 1, 1, 3, 2]  # to 3, 4 (save), 5 (epoch), 8 (save), 10 (epoch)
    assert steps_saved(tmp_path) == [4, 5, 8, 10]
    train.run(epochs(tiny_config, 2), training(tmp_path / "one", **options | {"steps_per_execution": 1}))
    assert trainers[0].weight == trainers[1].weight


def test_epochs_are_of_all_records_which_are_counted_once(trainers, tiny_config, tmp_path, logged, monkeypatch):
    options = {"num_examples_per_epoch": None, "batch_size": 2}  # of the 8 records of the sample
    train.run(epochs(tiny_config, 2), training(tmp_path, **options))
    assert (trainers[0].step, steps_saved(tmp_path)) == (8, [4, 8])
    assert f"epochs of 8 images, the records of {SAMPLE}" in logged
    assert [entry[2] for entry in json.loads((tmp_path / FILE_NAME).read_text()).values()] == [8]

    monkeypatch.setattr(record_count, "_count_headers", None)  # fails if it is called
    train.run(epochs(tiny_config, 3), training(tmp_path, **options))
    assert (trainers[1].resumed_at, trainers[1].step) == (8, 12)


def test_a_run_that_started_with_other_epochs_is_reported(trainers, tiny_config, tmp_path, logged):
    train.run(epochs(tiny_config, 2), training(tmp_path, num_examples_per_epoch=16))
    assert any(line.startswith(f"--num_examples_per_epoch=16, but {SAMPLE} holds 8 records: ") for line in logged)
    train.run(epochs(tiny_config, 5), training(tmp_path, num_examples_per_epoch=None))
    words = "this training run started with epochs of 16 images, now 8: epochs and data order change; "
    assert words + "--num_examples_per_epoch=16 keeps them" in logged
    assert trainers[1].step == 10


def test_with_fake_data_and_a_length_nothing_is_counted(trainers, tiny_config, tmp_path, logged, monkeypatch):
    monkeypatch.setattr(record_count.RecordCounts, "total", None)  # fails if it is called
    train.run(epochs(tiny_config, 1), training(tmp_path, num_examples_per_epoch=16, use_fake_data=True))
    assert trainers[0].step == 4 and not (tmp_path / FILE_NAME).exists()


def test_a_finished_run_is_only_evaluated(trainers, tiny_config, tmp_path, logged, monkeypatch):
    train.run(epochs(tiny_config, 1), training(tmp_path), Scores())
    monkeypatch.setattr(Numbers, "training", None)  # fails if anything is read
    evaluator = Scores()
    assert train.run(epochs(tiny_config, 1), training(tmp_path)) == {}
    assert train.run(epochs(tiny_config, 1), training(tmp_path), evaluator) == {"AP": 0.02}
    assert evaluator.steps == [2] and [trainer.calls for trainer in trainers[1:]] == [[], []]
    assert f"{tmp_path} already has all 2 steps: nothing left to train; raise num_epochs to continue" in logged
    assert rows(tmp_path / "eval.csv") == [{"step": "2", "AP": "0.02"}]


@pytest.mark.parametrize("start", [{"ckpt": "weights"}, {"backbone_ckpt": "weights"}])
def test_resuming_ignores_ckpt_flags(trainers, tiny_config, tmp_path, logged, monkeypatch, start):
    monkeypatch.setattr(checkpoint, "find", lambda path: path)
    config = tiny_config.override({"ckpt_var_scope": "teacher"})
    train.run(epochs(config, 1), training(tmp_path, **start))
    scopes = {"scope": "efficientnet-lite0/", "source_scope": "teacher/"} if "backbone_ckpt" in start else {}
    assert trainers[0].started_from == ("weights", scopes)
    assert not any("are not read" in line for line in logged)
    train.run(epochs(config, 2), training(tmp_path, **start))
    assert trainers[1].started_from is None and trainers[1].step == 4
    expected = f"{tmp_path} resumes from {tmp_path}/model.ckpt-2; --ckpt and --backbone_ckpt apply to the start of a "
    assert any(line.startswith(expected) and line.endswith(", and are not read") for line in logged)


def test_a_resumed_run_keeps_its_seed(trainers, tiny_config, tmp_path, logged):
    train.run(epochs(tiny_config, 1), training(tmp_path, seed=5))
    train.run(epochs(tiny_config, 2), training(tmp_path, seed=6))
    assert newest_entries(tmp_path)["training/seed"] == trainers[1].seed == 5
    assert "this training run started with seed 5 and keeps it; --tf_random_seed is ignored" in logged


def test_fake_data_repeats_the_first_batch(trainers, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Numbers, "training", lambda *args, **options: tf.data.Dataset.from_tensor_slices(([3.0, 5.0], [0, 0]))
    )
    train.run(epochs(tiny_config, 2), training(tmp_path, use_fake_data=True))
    assert trainers[0].weight == pytest.approx(3 * (1 + 0.9 + 0.9**2 + 0.9**3))


# Evaluations, archive and early stopping.


@pytest.mark.parametrize("every, expected", [(0, [8]), (1, [2, 4, 6, 8]), (2, [4, 8]), (3, [6, 8])])
def test_evaluations_run_every_n_epochs_and_at_the_end(trainers, tiny_config, tmp_path, every, expected):
    evaluator = Scores()
    results = train.run(epochs(tiny_config, 4), training(tmp_path), evaluator, eval_every_epochs=every)
    assert evaluator.steps == expected and results == {"AP": 0.08}
    assert steps_saved(tmp_path) == [2, 4, 6, 8]


def test_archive_holds_the_first_best_checkpoint(trainers, tiny_config, tmp_path):
    aps = {2: 0.1, 4: 0.3, 6: 0.2, 8: 0.3}
    train.run(epochs(tiny_config, 4), training(tmp_path), Scores(aps), eval_every_epochs=1)
    best = checkpoint.find(str(tmp_path / "archive"))
    assert_same_entries(checkpoint.read_entries(best), checkpoint.read_entries(str(tmp_path / "model.ckpt-4")))
    assert json.loads((tmp_path / "archive" / "best_eval.txt").read_text()) == {"AP": 0.3, "step": 4}
    assert (tmp_path / "archive" / "config.yaml").read_bytes() == (tmp_path / "config.yaml").read_bytes()


@pytest.mark.parametrize("last, kept", [(0.3, 1), (0.5, 8)])
def test_a_better_checkpoint_of_a_parallel_evaluation_stays_archived(trainers, tiny_config, tmp_path, last, kept):
    directory = ModelDir(str(tmp_path))
    follow.EvaluationRecorder(str(tmp_path)).record(directory.save(1, {"weight": np.float32(1)}), 1, {"AP": 0.4})
    (tmp_path / "checkpoint").unlink()
    for file in tmp_path.glob("model.ckpt-1.*"):
        file.unlink()
    train.run(epochs(tiny_config, 4), training(tmp_path), Scores({8: last}))
    assert checkpoint.step_of(checkpoint.find(str(tmp_path / "archive"))) == kept


FALLING = {2: 0.1, 4: 0.3, 6: 0.2, 8: 0.3, 10: 0.2, 12: 0.4}


@pytest.mark.parametrize("patience, steps", [(1, [2, 4, 6]), (2, [2, 4, 6, 8]), (3, [2, 4, 6, 8, 10])])
def test_early_stopping_counts_evaluations_since_the_best_one(
    trainers, tiny_config, tmp_path, logged, monkeypatch, patience, steps
):
    config = epochs(tiny_config, 6).override({"early_stop_patience": patience})
    evaluator = Scores(FALLING)
    train.run(config, training(tmp_path), evaluator, eval_every_epochs=1)
    assert evaluator.steps == steps and trainers[0].step == steps[-1]
    message = f"stopping early: no better AP than 0.3000 of step 4 in {patience} evaluations"
    assert message in logged
    monkeypatch.setattr(Numbers, "training", None)  # the same command stops at the same step, without training
    assert train.run(config, training(tmp_path), Scores(FALLING), eval_every_epochs=1) == {"AP": FALLING[steps[-1]]}
    assert logged.count(message) == 2 and trainers[1].calls == []


def test_early_stopping_requires_evaluations(trainers, tiny_config, tmp_path):
    config = tiny_config.override({"early_stop_patience": 2})
    with pytest.raises(ValueError, match="early_stop_patience needs evaluations during training; use --mode=train_and"):
        train.run(config, training(tmp_path))
    assert trainers == []


class ScoresOfBoth(Scores):
    """Evaluator that returns a given AP per step, and another for the raw weights."""

    def __init__(self, aps, raw_aps):
        super().__init__(aps)
        self.raw_aps, self.evaluations, self.drawn = raw_aps, [], []

    def run(self, net):
        kind, aps = ("averaged", self.aps) if net.evaluates_average else ("raw", self.raw_aps)
        self.evaluations.append((net.step, kind))
        return {"AP": aps[net.step], "AP50": 2 * aps[net.step]}

    def draw_images(self, net):
        self.drawn.append("averaged" if net.evaluates_average else "raw")
        return super().draw_images(net)


@pytest.mark.parametrize(
    "before, averaged, raw, kept",
    [
        (0.1, 0.3, 0.4, "raw"),
        (0.1, 0.4, 0.3, "averaged"),
        (0.1, 0.3, 0.3, "averaged"),
        (0.35, 0.3, 0.4, "raw"),  # better than the best averaged ones
        (0.5, 0.3, 0.4, "another"),
        (0.4, 0.3, 0.4, "another"),  # the first of equals
    ],
)
def test_the_last_weights_are_evaluated_averaged_and_raw_and_the_best_are_archived(
    trainers, tiny_config, tmp_path, logged, monkeypatch, before, averaged, raw, kept
):
    monkeypatch.setattr(OneWeight, "average", object())
    evaluator = ScoresOfBoth({2: before, 4: averaged}, {4: raw})
    results = train.run(epochs(tiny_config, 2), training(tmp_path), evaluator, eval_every_epochs=1)
    assert evaluator.evaluations == [(2, "averaged"), (4, "averaged"), (4, "raw")]

    better = max(averaged, raw)
    assert results == {"AP": better, "AP50": 2 * better, "AP_averaged": averaged, "AP_raw": raw}
    assert evaluator.drawn == ["averaged", "raw" if raw > averaged else "averaged"]
    table = [{name: float(value) for name, value in row.items() if value} for row in rows(tmp_path / "eval.csv")]
    assert table == [{"step": 2, "AP": before, "AP50": 2 * before}, {"step": 4, **results}]
    assert {"AP", "AP50", "AP_averaged", "AP_raw"} <= tags(tmp_path / "eval")

    best_step, best = (2, before) if kept == "another" else (4, better)
    archived = json.loads((tmp_path / "archive" / "best_eval.txt").read_text())
    assert (archived["step"], archived["AP"]) == (best_step, best) == (best_step, ModelDir(str(tmp_path)).best_ap())
    assert float((tmp_path / "best_objective.txt").read_text()) == best
    saved = checkpoint.read_entries(str(tmp_path / f"model.ckpt-{best_step}"))
    if kept == "raw":
        del saved["weight" + checkpoint.AVERAGE]
    assert_same_entries(newest_entries(tmp_path / "archive"), saved)
    kept = f"another checkpoint, AP {best:.4f}" if kept == "another" else f"the {kept} weights"
    assert f"AP of averaged weights {averaged:.4f}, of raw weights {raw:.4f}: archive keeps {kept}" in logged

    # The same command evaluates again, and comes to the same result.
    assert train.run(epochs(tiny_config, 2), training(tmp_path), evaluator, eval_every_epochs=1) == results
    assert evaluator.evaluations[3:] == [(4, "averaged"), (4, "raw")]
    assert_same_entries(newest_entries(tmp_path / "archive"), saved)


def test_raw_weights_are_evaluated_when_training_stops_early(trainers, tiny_config, tmp_path, logged, monkeypatch):
    monkeypatch.setattr(OneWeight, "average", object())
    config = epochs(tiny_config, 6).override({"early_stop_patience": 2})
    evaluator = ScoresOfBoth(FALLING, {8: 0.35})  # better than the best averaged ones, those of step 4
    results = train.run(config, training(tmp_path), evaluator, eval_every_epochs=1)
    assert [step for step, kind in evaluator.evaluations if kind == "averaged"] == [2, 4, 6, 8]
    assert evaluator.evaluations[-1] == (8, "raw") and results["AP"] == 0.35
    assert logged.index("stopping early: no better AP than 0.3000 of step 4 in 2 evaluations") < logged.index(
        "AP of averaged weights 0.3000, of raw weights 0.3500: archive keeps the raw weights"
    )
    assert checkpoint.step_of(checkpoint.latest(str(tmp_path / "archive"))) == 8


def test_without_averages_nothing_is_evaluated_twice(trainers, tiny_config, tmp_path, logged):
    evaluator = ScoresOfBoth({}, {2: 0.1, 4: 0.2})
    results = train.run(epochs(tiny_config, 2), training(tmp_path), evaluator, eval_every_epochs=1)
    assert evaluator.evaluations == [(2, "raw"), (4, "raw")] and results == {"AP": 0.2, "AP50": 0.4}
    assert not any("averaged" in line for line in logged)


def test_averages_that_are_better_when_training_goes_on_replace_raw_weights(
    trainers, tiny_config, tmp_path, monkeypatch
):
    monkeypatch.setattr(OneWeight, "average", object())
    evaluator = ScoresOfBoth({2: 0.3, 4: 0.35, 6: 0.5}, {2: 0.4, 4: 0.2, 6: 0.2})
    kept = []
    for count in (1, 2, 3):
        train.run(epochs(tiny_config, count), training(tmp_path), evaluator)
        kept.append(
            (checkpoint.step_of(checkpoint.latest(str(tmp_path / "archive"))), ModelDir(str(tmp_path)).best_ap())
        )
    assert kept == [(2, 0.4), (2, 0.4), (6, 0.5)]
    assert "weight" + checkpoint.AVERAGE in newest_entries(tmp_path / "archive")


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

    uninterrupted, results = run("uninterrupted")
    assert uninterrupted == [2, 4, 6, 8, 10]
    if moment == "before the evaluation":
        with pytest.raises(Killed):
            run("killed", stop_at=at)
    elif at < 10:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(OneWeight, "during_step", kill)
            run("killed")
    else:
        run("killed")  # stopped early at this step
    again, results_again = run("killed")
    assert again == [step for step in uninterrupted if step >= at]  # starts with the interrupted evaluation
    assert results_again == results
    for directory in ("", "archive"):
        found, expected = (newest_entries(tmp_path / name / directory) for name in ("killed", "uninterrupted"))
        assert_same_entries(found, expected)
    for file in ("eval.csv", "archive/best_eval.txt", "best_objective.txt"):
        assert (tmp_path / "killed" / file).read_text() == (tmp_path / "uninterrupted" / file).read_text()


# Invalid input, changed configs and damaged files.


def test_invalid_input_is_reported_before_anything_is_built(trainers, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "InputReader", InputReader)
    with pytest.raises(ValueError, match="an epoch of 3 images has no complete batch of 4; lower --train_batch_size"):
        train.run(tiny_config, training(tmp_path, num_examples_per_epoch=3))
    with pytest.raises(ValueError, match="no file matches 'nowhere'"):
        train.run(tiny_config, train.Training(str(tmp_path), "nowhere"))
    with pytest.raises(CheckpointError, match="no checkpoint at nowhere"):
        train.run(tiny_config, training(tmp_path, ckpt="nowhere"))
    assert trainers == []


def test_an_unwritable_model_dir_is_reported_before_anything_is_built(trainers, tiny_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=f"cannot write to {tmp_path}/file/dir: "):
        train.run(tiny_config, training(tmp_path / "file" / "dir"))
    assert trainers == []


# Several runs in one model_dir.


def files_of(directory):
    return {path: path.read_bytes() for path in sorted(pathlib.Path(directory).rglob("*")) if path.is_file()}


def test_a_second_run_in_one_model_dir_changes_nothing(trainers, tiny_config, tmp_path, monkeypatch):
    refused = []

    def start_second(step):
        if step == 3:
            before = files_of(tmp_path)
            with pytest.raises(TargetError, match=f"{tmp_path} is in use by another training, process {os.getpid()} "):
                train.run(epochs(tiny_config, 5), training(tmp_path))
            refused.append(files_of(tmp_path) == before)

    monkeypatch.setattr(OneWeight, "during_step", staticmethod(start_second))
    train.run(epochs(tiny_config, 2), training(tmp_path))
    assert refused == [True] and len(trainers) == 1 and steps_saved(tmp_path)[-1] == 4
    assert not (tmp_path / "run.lock").exists()


@pytest.mark.parametrize("content", [b'{"token": "other", "pid": 7, "host": "a", "since": "now"}', None])
def test_a_run_that_lost_its_lock_stops_before_it_saves(trainers, tiny_config, tmp_path, monkeypatch, content):
    lock, taken_over = tmp_path / "run.lock", []

    def lose(step):
        if step == 3:
            lock.unlink() if content is None else lock.write_bytes(content)
            taken_over.append({path: data for path, data in files_of(tmp_path).items() if "tfevents" not in path.name})

    monkeypatch.setattr(OneWeight, "during_step", staticmethod(lose))
    found = "run.lock was removed" if content is None else "process 7 on a, since now took over"
    with pytest.raises(LockLost, match=found):
        train.run(epochs(tiny_config, 3), training(tmp_path))
    after = files_of(tmp_path)
    assert [{path: data for path, data in after.items() if "tfevents" not in path.name}] == taken_over
    assert steps_saved(tmp_path)[-1] == 2


def test_a_run_that_lost_its_lock_in_an_evaluation_archives_nothing(trainers, tiny_config, tmp_path):
    class Loses(Scores):
        def run(self, net):
            (tmp_path / "run.lock").unlink()
            return super().run(net)

    with pytest.raises(LockLost):
        train.run(epochs(tiny_config, 2), training(tmp_path), Loses(), eval_every_epochs=1)
    assert not (tmp_path / "archive").exists() and not (tmp_path / "eval.csv").exists()


@pytest.mark.parametrize("error", [FloatingPointError, KeyboardInterrupt])
def test_an_error_releases_the_lock(trainers, tiny_config, tmp_path, monkeypatch, error):
    def fail(step):
        raise error

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(OneWeight, "during_step", staticmethod(fail))
        train.run(epochs(tiny_config, 2), training(tmp_path))
    assert not (tmp_path / "run.lock").exists()
    train.run(epochs(tiny_config, 2), training(tmp_path))


@pytest.mark.parametrize(
    "keys, options, expected",
    [
        ({}, {"batch_size": 2}, r"was started with --train_batch_size=4, got 2, .*; use 4 \(gradient_accumulation_st"),
        ({"num_classes": 4}, {}, "this training run cannot continue with num_classes: 3 -> 4; restore the previous v"),
        ({"moving_average_decay": 0.0}, {}, "cannot continue with moving_average_decay: 0.9998 -> 0.0"),
    ],
)
def test_changes_that_prevent_resuming_are_rejected(trainers, tiny_config, tmp_path, keys, options, expected):
    train.run(epochs(tiny_config, 1), training(tmp_path))
    before = (tmp_path / "config.yaml").read_text()
    with pytest.raises(ValueError, match=expected) as error:
        train.run(epochs(tiny_config, 2).override(keys), training(tmp_path, **options))
    assert isinstance(error.value, ConfigError) == bool(keys) and "another --model_dir" in str(error.value)
    assert len(trainers) == 1 and (tmp_path / "config.yaml").read_text() == before


@pytest.mark.parametrize("resumes", [True, False])
def test_class_names_may_change_but_not_move(trainers, tiny_config, tmp_path, logged, resumes):
    """Neither in a resumed training nor in one that takes over the class head of another."""
    first = epochs(tiny_config, 1).override({"label_map": {1: "a", 2: "b"}})
    train.run(first, training(tmp_path / "first"))
    new = training(tmp_path / "first") if resumes else training(tmp_path / "new", ckpt=str(tmp_path / "first"))
    with pytest.raises(LabelMapError, match=r"ids in label_map than in .*: 'b' is 1 instead of 2; .* another"):
        train.run(epochs(tiny_config, 2).override({"label_map": {1: "b", 3: "c"}}), new)
    assert len(trainers) == 1
    train.run(epochs(tiny_config, 2).override({"label_map": {1: "uno", 2: "b"}}), new)
    expected = f"label_map renames 1 classes of {tmp_path}/first/config.yaml: 1 'a' -> 'uno'"
    if resumes:
        expected = "changed since the last run: label_map: {1: 'a'} -> {1: 'uno'}"
    assert expected in logged


def test_other_changes_are_logged(trainers, tiny_config, tmp_path, logged):
    train.run(epochs(tiny_config, 1), training(tmp_path))
    train.run(epochs(tiny_config, 2).override({"learning_rate": 0.01}), training(tmp_path))
    changes = {line for line in logged if line.startswith("changed since the last run: ")}
    assert {line.split(": ", 1)[1] for line in changes} == {"num_epochs: 1 -> 2", "learning_rate: 0.08 -> 0.01"}
    assert config_lib.load("efficientdet-d0", str(tmp_path / "config.yaml")).learning_rate == 0.01


def test_a_checkpoint_without_training_state_is_rejected(trainers, tiny_config, tmp_path):
    prefix = ModelDir(str(tmp_path)).save(5, {"weight": np.float64(1)})
    with pytest.raises(CheckpointError, match=f"holds weights without training state .* --ckpt={prefix} in another"):
        train.run(tiny_config, training(tmp_path))
    assert trainers == []


def test_a_damaged_checkpoint_is_replaced_by_the_previous_one(trainers, tiny_config, tmp_path, logged):
    train.run(epochs(tiny_config, 3), training(tmp_path))
    data = tmp_path / "model.ckpt-6.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    train.run(epochs(tiny_config, 4), training(tmp_path))
    assert trainers[1].resumed_at == 4
    assert trainers[1].weight == pytest.approx(sum(i * 0.9 ** (7 - i) for i in range(8)))
    assert any("model.ckpt-6" in line and line.endswith(f"using {tmp_path}/model.ckpt-4 instead") for line in logged)
    checkpoint.read_entries(str(tmp_path / "model.ckpt-6"))  # saved again


@pytest.mark.parametrize("damage", [None, b"", b'model_checkpoint_path: "mo'])
def test_a_lost_state_file_does_not_restart_training(trainers, tiny_config, tmp_path, damage):
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
        (range(1, 100), 10),  # metrics are read at step 1, which is below the limit, and at every 10th step
        (range(16, 100), 20),
        (range(17, 21), None),  # 4 in a row
        ([*range(12, 16), *range(17, 21)], None),  # 8, but not in a row
    ],
)
def test_non_finite_steps_are_skipped_up_to_a_limit(trainers, tiny_config, tmp_path, monkeypatch, not_finite, stops_at):
    monkeypatch.setattr(OneWeight, "not_finite", frozenset(not_finite))
    config, options = epochs(tiny_config, 2), training(tmp_path, num_examples_per_epoch=60, save_checkpoints_steps=4)
    if stops_at:
        images = ", ".join(f"image{4 * stops_at - 4 + i}" for i in range(4))
        count = stops_at - not_finite[0] + 1
        message = rf"step {stops_at}: the loss is not finite .*; {count} steps in a row were skipped, .*: {images}$"
        with pytest.raises(FloatingPointError, match=message):
            train.run(config, options)
        assert steps_saved(tmp_path)[-1] == (stops_at - 1) // 4 * 4
    else:
        train.run(config, options)
        assert steps_saved(tmp_path)[-1] == 30
    finite = [step for step in range(1, steps_saved(tmp_path)[-1] + 1) if step not in not_finite]
    weight = sum((step - 1) * 0.9 ** (len(finite) - 1 - i) for i, step in enumerate(finite))
    assert newest_entries(tmp_path)["weight"] == pytest.approx(weight)


def test_overflows_that_reduce_the_loss_scale_do_not_stop_training(trainers, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(OneWeight, "not_finite", range(1, 21))
    monkeypatch.setattr(OneWeight, "overflows", True)
    train.run(epochs(tiny_config, 10), training(tmp_path))
    assert trainers[0].step == 20


@pytest.fixture
def default_sigint():
    """Python's default handler, as at a terminal; background jobs of a shell ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("steps_per_execution, saved", [(1, 3), (5, 5)])
def test_after_a_signal_the_step_is_finished_and_saved(
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
    train.run(config, training(tmp_path / "uninterrupted", **options))
    assert trainers[1].resumed_at == saved
    assert_same_entries(newest_entries(tmp_path / "stopped"), newest_entries(tmp_path / "uninterrupted"))


def test_a_cluster_in_the_environment_does_not_matter_to_one_device(trainers, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"chief": ["a:1"]}, "task": {"type": "chief"}}))
    train.run(epochs(tiny_config, 1), training(tmp_path))
    assert steps_saved(tmp_path)[-1] == trainers[0].step == 2


@pytest.fixture
def two_machines(monkeypatch):
    """Two machines; returns a list to change: the starts of both, as the first one sends it."""
    starts = []
    monkeypatch.setattr(train.strategy_lib, "num_workers", lambda strategy: 2)
    monkeypatch.setattr(train.exchange, "gather_objects", lambda strategy, start: [start, *(starts or [start])])
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1", "b:2"]}, "task": {"index": 0}}))
    return starts


def test_of_several_machines_only_the_first_writes(trainers, tiny_config, tmp_path, monkeypatch, two_machines):
    monkeypatch.setattr(train.strategy_lib, "is_chief", lambda strategy: False)

    class Second(Scores):
        """The evaluator of a worker other than the first."""

        draw_images = None  # not called

        def run(self, net):
            super().run(net)
            return {}

    evaluator = Second()
    assert train.run(epochs(tiny_config, 5), training(tmp_path / "second"), evaluator, eval_every_epochs=1) == {}
    assert trainers[0].step == 10 and not (tmp_path / "second").exists()
    assert evaluator.steps == [2, 4, 6, 8, 10]  # all workers evaluate


def test_all_machines_evaluate_raw_weights_when_the_first_one_stops_early(
    trainers, tiny_config, tmp_path, monkeypatch, two_machines
):
    monkeypatch.setattr(train.strategy_lib, "is_chief", lambda strategy: False)
    monkeypatch.setattr(OneWeight, "average", True)
    evaluations = []
    # The first machine stops early after the evaluation at step 4.
    monkeypatch.setattr(OneWeight, "any_worker", lambda self, flag: evaluations[-1:] == [(4, True)])

    class Second(Scores):
        def run(self, net):
            evaluations.append((net.step, net.evaluates_average))
            return {}

    assert train.run(epochs(tiny_config, 5), training(tmp_path), Second(), eval_every_epochs=1) == {}
    assert evaluations == [(2, True), (4, True), (4, False)]


def test_a_signal_to_one_machine_stops_all(trainers, tiny_config, tmp_path, monkeypatch, two_machines):
    monkeypatch.setattr(OneWeight, "mean_over_replicas", lambda self, values: (0.0, self.step >= 5, values[2]))
    with pytest.raises(train.Stopped, match=r"which is saved, by a signal to worker 1 \(b:2\); the same") as stopped:
        train.run(epochs(tiny_config, 10), training(tmp_path))
    assert stopped.value.exit_code == 143 and steps_saved(tmp_path)[-1] == trainers[0].step <= 15


@pytest.mark.parametrize(
    "own, name",
    [
        ({"first step": 5}, "first step 5 instead of 1"),
        ({"images per epoch": 9}, "images per epoch 9 instead of 8"),
        ({"state": "1234"}, "state 1234 instead of "),
    ],
)
def test_machines_that_start_differently_are_refused(trainers, tiny_config, tmp_path, two_machines, own, name):
    two_machines.append({"first step": 1, "images per epoch": 8, "state": None, **own})
    with pytest.raises(ValueError, match=rf"worker 1 \(b:2\) has .*{name}.*; all workers need the same --ckpt and rec"):
        train.run(tiny_config, training(tmp_path, num_examples_per_epoch=None))
    assert trainers[0].step == 0 and steps_saved(tmp_path) == []


def test_a_profile_of_a_few_steps_is_written(trainers, tiny_config, tmp_path, logged):
    train.run(epochs(tiny_config, 10), training(tmp_path, profile=True))
    assert glob.glob(str(tmp_path / "plugins" / "profile" / "*" / "*.xplane.pb"))
    assert f"profile written: tensorboard --logdir={tmp_path}" in logged


def test_profile_with_steps_per_execution_and_in_a_short_run(trainers, tiny_config, tmp_path, logged):
    options = {"profile": True, "num_examples_per_epoch": 80, "steps_per_execution": 20}
    train.run(epochs(tiny_config, 2), training(tmp_path / "multiple", **options))
    assert f"profile written: tensorboard --logdir={tmp_path / 'multiple'}" in logged
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


# main.py with a tiny network, including drop connect; a step takes a tenth of a second.

TINY = "image_size=64,fpn_num_filters=8,fpn_cell_repeats=1,box_class_repeats=1,num_classes=3"
# Runs main.py as a script, with Python code before it and an expression that is printed at the end of the process.
WRAPPER = """
import atexit, runpy, sys
sys.argv[0] = {main!r}
sys.path.insert(0, {root!r})
{before}
atexit.register(lambda: print({at_exit}, file=sys.stderr))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def command(model_dir, *flags, mode="train", num_epochs=30, script=(str(ROOT / "main.py"),)):
    """Returns the command of a run with two steps and one checkpoint per epoch."""
    return [
        *(sys.executable, *script, f"--mode={mode}", "--model_name=efficientdet-lite0", f"--hparams={TINY}"),
        *(f"--model_dir={model_dir}", f"--train_file_pattern={SAMPLE}", f"--val_file_pattern={SAMPLE}"),
        *("--train_batch_size=4", "--num_examples_per_epoch=8", f"--num_epochs={num_epochs}", "--tf_random_seed=3"),
        *flags,
    ]


def wrapped(before="", at_exit="''"):
    return "-c", WRAPPER.format(main=str(ROOT / "main.py"), root=str(ROOT), before=before, at_exit=at_exit)


def finish(arguments, code=0, env=None):
    """Runs a command to its end; returns its stderr."""
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=600, env={**os.environ, **(env or {})})
    assert result.returncode == code, result.stderr[-4000:]
    return result.stderr


def stop_after_first_save(arguments, model_dir, number):
    """Sends a signal after the first checkpoint; returns the exit code."""
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
def uninterrupted(tmp_path_factory):
    """The model directory of an uninterrupted run."""
    model_dir = tmp_path_factory.mktemp("uninterrupted") / "model"
    finish(command(model_dir))
    return model_dir


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_stopped_command_resumes_bit_for_bit(uninterrupted, tmp_path, number, code):
    model_dir = tmp_path / "model"
    assert stop_after_first_save(command(model_dir), model_dir, number) == code
    prefix, _ = ModelDir(str(model_dir)).newest()
    stopped = checkpoint.step_of(prefix)
    assert 2 <= stopped < 60
    assert f"resuming from {prefix}, step {stopped}" in finish(command(model_dir))
    assert steps_saved(model_dir) == [52, 54, 56, 58, 60]
    assert_same_entries(newest_entries(model_dir), newest_entries(uninterrupted))
    steps = [int(row["step"]) for row in rows(model_dir / "train.csv")]
    assert steps == sorted(set(steps)) and steps[-1] == 60
    assert "model already has all 60 steps: nothing left to train" in finish(command(model_dir))


@pytest.mark.slow
def test_two_runs_of_a_command_are_bit_identical(uninterrupted, tmp_path):
    finish(command(tmp_path / "again"))
    again, first = newest_entries(tmp_path / "again"), newest_entries(uninterrupted)
    assert_same_entries(again, first)
    assert again["global_step"] == 60 and again["training/skipped_steps"] == 0
    assert all(np.isfinite(value).all() for value in again.values())
    numbers = ["loss", "cls_loss", "box_loss", "reg_l2_loss", "gradient_norm", "learning_rate"]
    table, expected = rows(tmp_path / "again" / "train.csv"), rows(uninterrupted / "train.csv")
    assert [[row[name] for name in numbers] for row in table] == [[row[name] for name in numbers] for row in expected]
    assert float(table[-1]["loss"]) < float(table[0]["loss"])


@pytest.mark.slow
def test_steps_per_execution_does_not_change_the_steps(uninterrupted, tmp_path):
    finish(command(tmp_path, "--steps_per_execution=3", "--save_checkpoints_steps=5"))
    found, expected = newest_entries(tmp_path), newest_entries(uninterrupted)
    assert found["global_step"] == 60
    for name, value in expected.items():
        # In another graph TensorFlow may fuse kernels differently.
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_debug_runs_functions_eagerly(tmp_path):
    script = wrapped(at_exit="__import__('tensorflow').config.functions_run_eagerly()")
    stderr = finish(command(tmp_path, "--debug", num_epochs=1, script=script))
    assert stderr.splitlines()[-1] == "True"
    assert newest_entries(tmp_path)["global_step"] == 2


@pytest.mark.slow
def test_use_xla_compiles_the_steps(tmp_path):
    stderr = finish(command(tmp_path, "--use_xla", num_epochs=1))
    assert "XLA compiles the steps" in stderr and newest_entries(tmp_path)["global_step"] == 2


@pytest.mark.slow
def test_profile_can_be_read_by_tensorboard(tmp_path):
    assert "profile written: tensorboard --logdir=" in finish(command(tmp_path, "--profile", num_epochs=8))
    (profile,) = glob.glob(str(tmp_path / "plugins" / "profile" / "*" / "*.xplane.pb"))
    assert b"train_step" in pathlib.Path(profile).read_bytes()


@pytest.mark.slow
def test_a_parallel_evaluation_ends_with_the_training(tmp_path):
    follower = subprocess.Popen(
        command(tmp_path, "--min_eval_interval=0", "--eval_timeout=300", mode="eval", num_epochs=8),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        finish(command(tmp_path, num_epochs=8))
        stdout, stderr = follower.communicate(timeout=400)
    finally:
        follower.kill()
        follower.wait()
    assert follower.returncode == 0, stderr
    table = rows(tmp_path / "eval.csv")
    assert table[-1]["step"] == "16"
    assert float(table[-1]["AP"]) == pytest.approx(json.loads(stdout.splitlines()[-1])["AP"], abs=1e-6)
    assert "resuming" not in stderr and "is not marked as the last" not in stderr
    best = checkpoint.step_of(checkpoint.find(str(tmp_path / "archive")))
    assert max(table, key=lambda row: float(row["AP"]))["step"] == str(best)


@pytest.mark.slow
def test_out_of_memory_names_the_settings_to_change(tmp_path):
    before = (
        "import tensorflow as tf\nfrom tf2.training import train\n"
        "def take(*args): raise tf.errors.ResourceExhaustedError(None, None, 'OOM when allocating tensor\\nand more')\n"
        "train.Trainer.train_step = take"
    )
    stderr = finish(command(tmp_path, script=wrapped(before)), code=1)
    assert (
        "error: out of memory: lower --train_batch_size, set gradient_accumulation_steps to 2 or more, or "
        "grad_checkpoint=true in --hparams (OOM when allocating tensor)\n"
    ) in stderr
    assert "Traceback" not in stderr
