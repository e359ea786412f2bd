# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""follow: which checkpoints of a training are evaluated, when, and how it ends; by a clock that is set."""

import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf

from tf2.evaluation import follow
from tf2.training.model_dir import ModelDir
from tf2.weights import checkpoint


class Clock:
    """Stands in for the module time: to sleep is to make time pass, and things happen that are due."""

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
    """A directory followed with a network of one variable; the metric of an evaluation is its value."""

    def __init__(self, directory):
        self.directory, self.clock, self.seconds = directory, Clock(), 0
        self.evaluations = []  # (start, step, AP)
        self.nets = []
        self.config = "config"

    def net(self, config):
        assert config == "config"
        weights = [tf.Variable(tf.zeros(3), name="part/kernel")]
        self.nets.append(
            types.SimpleNamespace(name="tiny", config=types.SimpleNamespace(num_classes=3), weights=weights)
        )
        return self.nets[-1]

    def save(self, step, last_step=None, shape=3):
        """Writes a checkpoint whose values are its step."""
        tensors = {"part/kernel": np.full(shape, step, np.float32)}
        if last_step is not None:
            tensors["training/last_step"] = np.int64(last_step)
        return ModelDir(str(self.directory), keep=2).save(step, tensors)

    def run(self, net):
        """As Evaluator.run; takes some time."""
        [value] = set(net.weights[0].numpy().tolist())
        self.evaluations.append([self.clock.now - 1000, value])
        self.clock.sleep(self.seconds)
        return {"AP": value}

    def follow(self, **options):
        told = []
        options = {"min_interval": 0, "timeout": 60, **options}
        results = follow.run(self, str(self.directory), on_result=lambda *args: told.append(args), **options)
        assert [row[2]["AP"] for row in told] == [value for _, value in self.evaluations]
        assert results == told[-1][2]
        assert len(self.nets) == 1
        return [(pathlib.Path(prefix).name, step) for prefix, step, _ in told]


@pytest.fixture
def follower(tmp_path, monkeypatch):
    follower = Follower(tmp_path)
    monkeypatch.setattr(follow, "time", follower.clock)
    monkeypatch.setattr(follow, "EfficientDetNet", follower.net)
    return follower


def named(*steps):
    return [(f"model.ckpt-{step}", step) for step in steps]


def test_a_training_is_followed_to_its_last_step(follower):
    follower.save(10, 30)
    follower.clock.at(20, follower.save, 20, 30)
    follower.clock.at(70, follower.save, 30, 30)  # within 60 s after the one before
    follower.clock.at(75, follower.save, 40, 30)  # not looked for any more
    assert follower.follow() == named(10, 20, 30)
    assert follower.evaluations == [[0, 10], [20, 20], [70, 30]]


def test_what_is_complete_is_evaluated_once(follower):
    follower.save(10, 20)
    follower.save(20, 20)
    assert follower.follow() == named(20)
    assert follower.clock.now == 1000


def test_the_last_step_may_be_put_off(follower):
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


def test_no_interval_means_one_after_the_other(follower):
    follower.seconds = 40
    follower.save(1, 100)
    for step in range(2, 101):
        follower.clock.at(step, follower.save, step, 100)
    assert follower.follow(min_interval=30) == named(1, 40, 80, 100)


def test_without_a_newer_checkpoint_it_ends_with_a_warning(follower, caplog):
    follower.save(10, 30)
    follower.clock.at(50, follower.save, 20, 30)
    follower.clock.at(200, follower.save, 30, 30)
    assert follower.follow() == named(10, 20)
    assert follower.clock.now == 1000 + 50 + 60
    assert "nothing newer than " in caplog.text and "model.ckpt-20 came within 60 s" in caplog.text


def test_a_checkpoint_that_tells_no_last_step_is_one_of_more(follower):
    follower.save(10)
    follower.clock.at(5, follower.save, 20)
    assert follower.follow() == named(10, 20)
    assert follower.clock.now == 1000 + 5 + 60


def test_a_checkpoint_without_a_step_in_its_name_is_the_only_one(follower):
    follower.save(7)
    for file in follower.directory.glob("model.ckpt-7.*"):
        file.rename(follower.directory / file.name.replace("model.ckpt-7", "model"))
    (follower.directory / "checkpoint").write_text('model_checkpoint_path: "model"\n')
    assert follower.follow() == [("model", None)]
    assert follower.evaluations == [[0, 7]] and follower.clock.now == 1000


def test_the_first_checkpoint_is_waited_for(follower, caplog):
    caplog.set_level("INFO", logger="absl")
    follower.directory /= "new"
    follower.clock.at(30, lambda: (follower.directory.mkdir(), follower.save(5, 5)))
    assert follower.follow() == named(5)
    assert follower.evaluations == [[30, 5]]
    waiting = [message for message in caplog.messages if message.startswith("waiting")]
    assert waiting == [f"waiting up to 60 s for a first checkpoint in {follower.directory}"]


def test_no_checkpoint_at_all_is_an_error(follower):
    with pytest.raises(
        checkpoint.CheckpointError, match=r"no checkpoint that can be read came to .* within 60 s; give"
    ):
        follower.follow()
    assert follower.clock.now == 1060


def test_a_step_back_is_not_newer(follower):
    follower.save(20, 30)
    follower.clock.at(10, follower.save, 10, 30)
    assert follower.follow() == named(20)


@pytest.mark.parametrize("damage", ["index", "data", "half"])
def test_what_vanishes_or_is_half_there_gives_way_to_a_newer_one(follower, damage, caplog):
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
    told = [message for message in caplog.messages if "waiting for a newer checkpoint" in message]
    assert len(told) == (0 if damage == "index" else 1)  # without its index there is no checkpoint


def test_a_checkpoint_that_is_still_being_copied_is_read_when_it_is_whole(follower):
    follower.save(10, 10)
    data = next(follower.directory.glob("*.data*"))
    whole = data.read_bytes()
    data.write_bytes(whole[:5])
    follower.clock.at(20, data.write_bytes, whole)
    assert follower.follow() == named(10)
    assert follower.evaluations == [[20, 10]]


def test_a_checkpoint_deleted_while_it_is_read(follower, monkeypatch):
    """The trainer writes two more, and keeps two, between the look at the state file and the reading."""
    follower.save(10, 40)
    read = checkpoint.read_entries

    def late(prefix, names=None):
        monkeypatch.setattr(checkpoint, "read_entries", read)
        for step in (20, 30, 40):
            follower.save(step, 40)
        return read(prefix, names)

    monkeypatch.setattr(checkpoint, "read_entries", late)
    assert follower.follow() == named(40)


def test_a_checkpoint_deleted_while_it_is_evaluated_can_be_kept(follower):
    follower.save(10, 40)
    follower.seconds = 30
    for i, step in enumerate((20, 30, 40)):
        follower.clock.at(5 + i, follower.save, step, 40)
    kept = {}

    def keep(prefix, step, results):
        assert not checkpoint.is_whole(str(follower.directory / "model.ckpt-10"))
        kept[step] = checkpoint.read_entries(prefix)["part/kernel"].tolist()

    follow.run(follower, str(follower.directory), min_interval=0, timeout=60, on_result=keep)
    assert kept == {10: [10, 10, 10], 40: [40, 40, 40]}


def test_a_checkpoint_of_another_network_is_an_error_at_once(follower):
    follower.save(10, 30)
    follower.clock.at(5, follower.save, 20, 30, 4)
    with pytest.raises(checkpoint.CheckpointError, match="fits tiny in 0 of 1 variables"):
        follower.follow()
    assert follower.clock.now == 1005
