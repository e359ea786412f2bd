# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""follow: the evaluated checkpoints, their times, and the end of following, with a simulated clock; the records."""

import csv
import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf

from dataset.check import class_ids
from dataset.label_map import LabelMapError
from efficientdet import config as config_lib
from tf2.evaluation import follow
from tf2.training.model_dir import ModelDir
from tf2.weights import checkpoint


class Clock:
    """A fake module time: sleep() advances the clock and calls the events that are due."""

    def __init__(self):
        self.now, self.events = 1000.0, []  # seconds; (when, what to call)

    def at(self, seconds, call, *args):
        self.events.append((1000 + seconds, lambda: call(*args)))

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        for event in [event for event in self.events if event[0] <= self.now]:
            self.events.remove(event)
            event[1]()


class Follower:
    """A directory of checkpoints, and a fake evaluator whose metric is the value of the network's only variable."""

    def __init__(self, directory):
        self.directory, self.clock, self.seconds = directory, Clock(), 0
        self.evaluations = []  # (start, AP)
        self.recorded = []  # (prefix, step, metrics)
        self.nets = []
        self.config = types.SimpleNamespace(num_classes=3, label_map=None)

    def net(self, config):
        assert config is self.config
        weights = [tf.Variable(tf.zeros(3), name="part/kernel")]
        self.nets.append(
            types.SimpleNamespace(name="tiny", config=types.SimpleNamespace(num_classes=3, colors={}), weights=weights)
        )
        return self.nets[-1]

    def save(self, step, last_step=None, shape=3, average=None):
        """Writes a checkpoint that contains its step as values."""
        tensors = {"part/kernel": np.full(shape, step, np.float32)}
        if average is not None:
            tensors["part/kernel" + checkpoint.AVERAGE] = np.full(shape, average, np.float32)
        if last_step is not None:
            tensors["training/last_step"] = np.int64(last_step)
        return ModelDir(str(self.directory), keep=2).save(step, tensors)

    def run(self, net):
        """Replaces Evaluator.run; takes self.seconds."""
        [value] = set(net.weights[0].numpy().tolist())
        self.evaluations.append([self.clock.now - 1000, value])
        self.clock.sleep(self.seconds)
        return {"AP": value}

    def follow(self, **options):
        """Returns name and step of the recorded checkpoints."""
        results = follow.evaluate_checkpoints(
            self, str(self.directory), **{"min_interval": 0, "timeout": 60, **options}
        )
        assert [row[2]["AP"] for row in self.recorded] == [value for _, value in self.evaluations]
        assert results == self.recorded[-1][2]
        assert len(self.nets) == 1
        return [(pathlib.Path(prefix).name, step) for prefix, step, _ in self.recorded]


@pytest.fixture
def follower(tmp_path, monkeypatch):
    follower = Follower(tmp_path)
    monkeypatch.setattr(follow, "time", follower.clock)
    monkeypatch.setattr(follow, "EfficientDetNet", follower.net)
    record = follow.EvaluationRecorder.record

    def record_and_keep(recorder, *result, **options):
        follower.recorded.append(result)
        return record(recorder, *result, **options)

    monkeypatch.setattr(follow.EvaluationRecorder, "record", record_and_keep)
    return follower


def recorded_aps(directory):
    with open(directory / "eval.csv", newline="") as file:
        return [float(row["AP"]) for row in csv.DictReader(file)]


def named(*steps):
    return [(f"model.ckpt-{step}", step) for step in steps]


def test_training_is_followed_to_its_last_step(follower):
    follower.save(10, 30)
    follower.clock.at(20, follower.save, 20, 30)
    follower.clock.at(70, follower.save, 30, 30)  # within 60 s after the one before
    follower.clock.at(75, follower.save, 40, 30)  # after the last step
    assert follower.follow() == named(10, 20, 30)
    assert follower.evaluations == [[0, 10], [20, 20], [70, 30]]
    assert recorded_aps(follower.directory) == [10, 20, 30]


def test_finished_training_is_evaluated_once(follower):
    follower.save(10, 20)
    follower.save(20, 20)
    assert follower.follow() == named(20)
    assert follower.clock.now == 1000


@pytest.mark.parametrize("in_records", [False, True])
def test_names_of_a_training_that_starts_later_are_compared(follower, in_records):
    def start(label_map):
        config = config_lib.load("efficientdet-lite0", num_classes=3, label_map=label_map)
        ModelDir(str(follower.directory)).write_config(config)
        follower.save(10, 10)

    names = class_ids.of_label_map({1: "b", 3: "c"} if in_records else None, "the records")
    follower.config.label_map = None if in_records else {1: "b", 3: "c"}
    source = "the records" if in_records else "label_map"
    follower.clock.at(20, start, {1: "a", 2: "b"})
    with pytest.raises(LabelMapError, match=f"other ids in {source} than in .*/config.yaml: 'b' is 1 instead of 2; "):
        follower.follow(names=names)
    assert follower.evaluations == []


def test_last_step_may_increase(follower):
    follower.save(10, 20)
    follower.clock.at(5, follower.save, 20, 30)  # resumed with more epochs
    follower.clock.at(10, follower.save, 30, 30)
    assert follower.follow() == named(10, 20, 30)


def test_evaluations_start_min_interval_apart(follower):
    follower.seconds = 7
    follower.save(1, 100)
    for step in range(2, 101):
        follower.clock.at(step, follower.save, step, 100)
    assert follower.follow(min_interval=30) == named(1, 30, 60, 90, 100)
    assert [start for start, _ in follower.evaluations] == [0, 30, 60, 90, 120]


def test_long_evaluations_follow_each_other_directly(follower):
    follower.seconds = 40
    follower.save(1, 100)
    for step in range(2, 101):
        follower.clock.at(step, follower.save, step, 100)
    assert follower.follow(min_interval=30) == named(1, 40, 80, 100)


def test_timeout_stops_with_a_warning(follower, caplog):
    follower.save(10, 30)
    follower.clock.at(50, follower.save, 20, 30)
    follower.clock.at(200, follower.save, 30, 30)
    assert follower.follow() == named(10, 20)
    assert follower.clock.now == 1000 + 50 + 60
    assert "no checkpoint newer than " in caplog.text and "model.ckpt-20 appeared within 60 s" in caplog.text


def test_checkpoint_without_last_step_is_not_the_last(follower):
    follower.save(10)
    follower.clock.at(5, follower.save, 20)
    assert follower.follow() == named(10, 20)
    assert follower.clock.now == 1000 + 5 + 60


def test_checkpoint_without_a_step_in_its_name_is_the_only_one(follower):
    follower.save(7)
    for file in follower.directory.glob("model.ckpt-7.*"):
        file.rename(follower.directory / file.name.replace("model.ckpt-7", "model"))
    (follower.directory / "checkpoint").write_text('model_checkpoint_path: "model"\n')
    assert follower.follow() == [("model", None)]
    assert follower.evaluations == [[0, 7]] and follower.clock.now == 1000


def test_waits_for_the_first_checkpoint(follower, caplog):
    caplog.set_level("INFO", logger="absl")
    follower.directory /= "new"
    follower.clock.at(30, lambda: (follower.directory.mkdir(), follower.save(5, 5)))
    assert follower.follow() == named(5)
    assert follower.evaluations == [[30, 5]]
    waiting = [message for message in caplog.messages if message.startswith("waiting")]
    assert waiting == [f"waiting up to 60 s for a first checkpoint in {follower.directory}"]


def test_no_checkpoint_is_an_error(follower):
    with pytest.raises(checkpoint.CheckpointError, match=r"no readable checkpoint appeared in .* within 60 s; pass"):
        follower.follow()
    assert follower.clock.now == 1060


def test_lower_step_is_not_newer(follower):
    follower.save(20, 30)
    follower.clock.at(10, follower.save, 10, 30)
    assert follower.follow() == named(20)


@pytest.mark.parametrize("damage", ["index", "data", "half"])
def test_unreadable_checkpoint_is_skipped_for_a_newer_one(follower, damage, caplog):
    follower.save(10, 30)
    data = next(follower.directory.glob("*.data*"))
    if damage == "index":
        (follower.directory / "model.ckpt-10.index").unlink()
    elif damage == "data":
        data.unlink()
    else:
        data.write_bytes(data.read_bytes()[:-9])
    follower.clock.at(30, follower.save, 20, 30)
    follower.clock.at(40, follower.save, 30, 30)
    assert follower.follow() == named(20, 30)
    warnings = [message for message in caplog.messages if "waiting for a newer checkpoint" in message]
    assert len(warnings) == (0 if damage == "index" else 1)  # without its index there is no checkpoint


def test_incomplete_checkpoint_is_read_when_it_is_complete(follower):
    follower.save(10, 10)
    data = next(follower.directory.glob("*.data*"))
    content = data.read_bytes()
    data.write_bytes(content[:5])
    follower.clock.at(20, data.write_bytes, content)
    assert follower.follow() == named(10)
    assert follower.evaluations == [[20, 10]]


def test_checkpoint_deleted_while_it_is_read(follower, monkeypatch):
    """The training deletes the listed checkpoint before it is read."""
    follower.save(10, 40)
    read = checkpoint.read_entries

    def read_late(prefix, names=None):
        monkeypatch.setattr(checkpoint, "read_entries", read)
        for step in (20, 30, 40):
            follower.save(step, 40)
        return read(prefix, names)

    monkeypatch.setattr(checkpoint, "read_entries", read_late)
    assert follower.follow() == named(40)


def test_copy_outlives_a_checkpoint_deleted_during_its_evaluation(follower, monkeypatch):
    follower.save(10, 40)
    follower.seconds = 30
    for i, step in enumerate((20, 30, 40)):
        follower.clock.at(5 + i, follower.save, step, 40)
    kept = {}

    def keep(recorder, prefix, step, results, averaged=True):
        assert not checkpoint.is_readable(str(follower.directory / "model.ckpt-10"))
        kept[step] = checkpoint.read_entries(prefix)["part/kernel"].tolist()

    monkeypatch.setattr(follow.EvaluationRecorder, "record", keep)
    follow.evaluate_checkpoints(follower, str(follower.directory), min_interval=0, timeout=60)
    assert kept == {10: [10, 10, 10], 40: [40, 40, 40]}


@pytest.mark.parametrize("average, kept", [(19, "another"), (25, "another"), (31, "averaged"), (29, "raw")])
def test_the_last_checkpoint_is_evaluated_averaged_and_raw(follower, caplog, average, kept):
    """The AP of the first checkpoint is 15, or better than all others; that of the last one's raw weights is 30."""
    caplog.set_level("INFO", logger="absl")
    first = 35.0 if kept == "another" else 15.0
    follower.save(10, 30, average=first)
    follower.clock.at(20, follower.save, 30, 30, 3, average)
    results = follow.evaluate_checkpoints(follower, str(follower.directory), min_interval=0, timeout=60)
    assert [ap for _, ap in follower.evaluations] == [first, average, 30]
    assert results == {"AP": max(average, 30), "AP_averaged": average, "AP_raw": 30}
    assert recorded_aps(follower.directory) == [first, max(average, 30)]

    archive = str(follower.directory / "archive")
    best_ap = first if kept == "another" else max(average, 30)
    assert checkpoint.read(archive, ["part/kernel"]).values["part/kernel"].tolist() == [best_ap] * 3
    assert ModelDir(str(follower.directory)).best_ap() == best_ap
    kept = f"another checkpoint, AP {best_ap:.4f}" if kept == "another" else f"the {kept} weights"
    aps = f"AP of averaged weights {average:.4f}, of raw weights 30.0000"
    assert f"{aps}: archive keeps {kept}" in caplog.messages


def test_checkpoint_of_another_network_is_an_error_at_once(follower):
    follower.save(10, 30)
    follower.clock.at(5, follower.save, 20, 30, 4)
    with pytest.raises(checkpoint.CheckpointError, match="fits tiny in 0 of 1 variables"):
        follower.follow()
    assert follower.clock.now == 1005


@pytest.mark.parametrize("aps, kept", [([0.1, 0.3, 0.2], 2), ([0.3, 0.3, 0.1], 1)])
def test_recorder_writes_the_results_of_a_parallel_evaluation(tmp_path, aps, kept):
    for i, ap in enumerate(aps, 1):
        prefix = ModelDir(str(tmp_path)).save(i, {"weight": np.float32(i)})
        follow.EvaluationRecorder(str(tmp_path)).record(prefix, i, {"AP": ap})  # a new recorder, as after a restart
    assert checkpoint.read_entries(checkpoint.latest(str(tmp_path / "archive"))) == {"weight": kept}
    assert recorded_aps(tmp_path) == aps
    events = [e for path in (tmp_path / "eval").iterdir() for e in tf.compat.v1.train.summary_iterator(str(path))]
    assert {value.tag for event in events for value in event.summary.value} == {"AP"}


def test_recorder_ignores_a_released_checkpoint(tmp_path):
    follow.EvaluationRecorder(str(tmp_path)).record(str(tmp_path / "model"), None, {"AP": 0.5})
    assert list(tmp_path.iterdir()) == []


def test_recorder_logs_failed_writes_and_continues(tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO", logger="absl")
    rename = tf.io.gfile.rename

    def fail_for_eval_csv(source, target, overwrite=False):
        if target.endswith("eval.csv"):
            raise tf.errors.PermissionDeniedError(None, None, "no permission")
        rename(source, target, overwrite)

    prefix = ModelDir(str(tmp_path)).save(1, {"weight": np.float32(1)})
    for name in ("eval", "archive"):  # files in place of directories
        (tmp_path / name).touch()
    monkeypatch.setattr(tf.io.gfile, "rename", fail_for_eval_csv)
    recorder = follow.EvaluationRecorder(str(tmp_path))
    recorder.record(prefix, 1, {"AP": 0.1})
    paths = [f"{tmp_path}/eval", f"{tmp_path}/eval.csv", f"cannot keep model.ckpt-1 as the best in {tmp_path}"]
    assert [line.split(":")[0] for line in caplog.messages] == paths
    (tmp_path / "archive").unlink()
    recorder.record(prefix, 1, {"AP": 0.05})  # lower, but the better one could not be archived
    assert len(caplog.messages) == 3 and ModelDir(str(tmp_path)).best_ap() == 0.05
