# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/workers.py: questions for a stop request, and errors after the end of another worker."""

import json
import socket

import kill_workers
import numpy as np
import pytest
import tensorflow as tf

from tf2.training import workers
from tf2.training.interrupt import Stopped

HEARTBEAT = (  # of TensorFlow 2.15
    "Graph execution error:\n\nDetected at node CollectiveReduceV2 defined at (most recent call last):\n"
    "Collective ops is aborted by: Error reported from /job:worker/task:2: Task /job:worker/replica:0/task:2 heartbeat "
    "timeout. This indicates that the remote task has failed, got preempted, or crashed unexpectedly."
)
BROKEN = (
    "Collective ops is aborted by: Socket closed\nAdditional GRPC error information from remote target "
    "/job:worker/replica:0/task:2 while calling /tensorflow.WorkerService/RecvBuf:"
)


@pytest.fixture
def cluster_of(monkeypatch):
    """Sets the addresses of the workers; this process is the first of them."""
    monkeypatch.setattr(workers.strategy_lib, "num_workers", lambda strategy: strategy)

    def set_workers(*addresses):
        spec = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": 0}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(spec))

    set_workers("a:1", "b:2", "c:3")
    return set_workers


@pytest.fixture
def reachable(monkeypatch):
    """The workers that accept connections; all of them at first."""
    alive = {"a:1", "b:2", "c:3"}
    monkeypatch.setattr(workers.cluster_lib, "accepts_connections", lambda worker: worker in alive)
    return alive


def raise_in_collective(error, num_workers=3):
    with workers.lost_workers(num_workers, lambda: "start again"):
        raise error


def unavailable(message):
    return tf.errors.UnavailableError(None, None, message)


@pytest.mark.parametrize(
    "dead, error, names",
    [
        ([], unavailable(HEARTBEAT), "worker 2 (c:3)"),
        (["b:2"], unavailable(HEARTBEAT), "worker 2 (c:3)"),  # b ended because of c
        (["b:2"], unavailable("Connection reset by peer"), "worker 1 (b:2)"),
        (
            ["b:2", "c:3"],
            tf.errors.InternalError(None, None, "NCCL: remote error"),
            "worker 1 (b:2) and worker 2 (c:3)",
        ),
        ([], unavailable(BROKEN), "worker 2 (c:3)"),  # it still accepts connections
        ([], unavailable("Collective ops is aborted by: Socket closed"), "another worker"),
    ],
)
def test_workers_that_ended_are_named(cluster_of, reachable, dead, error, names):
    reachable -= set(dead)
    with pytest.raises(Stopped) as stopped:
        raise_in_collective(error)
    assert str(stopped.value) == f"{names} ended or cannot be reached, see the log there; start again"
    assert stopped.value.exit_code == 138


@pytest.mark.parametrize(
    "dead, error, num_workers",
    [
        ([], unavailable("gs://bucket/file: try again"), 3),  # all workers are alive
        (["b:2"], tf.errors.ResourceExhaustedError(None, None, "out of memory"), 3),
        (["b:2"], tf.errors.InvalidArgumentError(None, None, "shapes"), 3),
        (["b:2"], unavailable("Connection reset by peer"), 1),  # TF_CONFIG of something else
    ],
)
def test_other_errors_are_unchanged(cluster_of, reachable, dead, error, num_workers):
    reachable -= set(dead)
    with pytest.raises(type(error)) as raised:
        raise_in_collective(error, num_workers)
    assert raised.value is error


def test_a_worker_is_reachable_while_it_listens(cluster_of):
    with socket.create_server(("localhost", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
        cluster_of("a:1", address)
        with pytest.raises(tf.errors.UnavailableError):
            raise_in_collective(unavailable("try again"), 2)
    with pytest.raises(Stopped, match=f"worker 1 .{address}. ended"):
        raise_in_collective(unavailable("try again"), 2)


def test_the_advice_names_the_last_saved_step(tmp_path):
    assert workers.resume_advice(str(tmp_path)) == "nothing is saved yet: start the same command on all machines again"
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt-120"\nall_model_checkpoint_paths: "model.ckpt-100"\n'
    )
    assert workers.resume_advice(str(tmp_path)) == "the same command on all machines resumes from step 120"


class Replicas:
    """Replacement of a trainer with three replicas; the last one computes as fast, and stops at `stop_at`."""

    def __init__(self, stop_at=1000):
        self.step, self.stop_at, self.asked = 100, stop_at, []

    def mean_over_replicas(self, values):
        self.asked.append(self.step)
        *requests, seconds = values
        requests[2] += self.step >= self.stop_at
        return np.array([*(request / 3 for request in requests), seconds])


@pytest.mark.parametrize(
    "seconds, asked",
    [
        (0.01, [101, 111, 121]),  # every tenth step
        (1.0, [101, 106, 111, 116, 121]),  # every five seconds
        (60.0, list(range(101, 125))),
    ],
)
def test_slow_steps_ask_more_often_for_a_stop(cluster_of, monkeypatch, seconds, asked):
    now = [0.0]
    monkeypatch.setattr(workers.time, "monotonic", lambda: now[0])
    trainer = Replicas()
    requests = workers.StopRequests(trainer)
    while trainer.step < 124:
        now[0] += seconds
        trainer.step += 1
        assert requests.ask(trainer.step, False) == []
    assert trainer.asked == asked


@pytest.mark.parametrize(
    "stop_at, here, expected",
    [
        (104, False, (111, ["worker 2 (c:3)"])),
        (1000, True, (101, ["worker 0 (a:1)"])),
        (101, True, (101, ["worker 0 (a:1)", "worker 2 (c:3)"])),
        (1000, False, None),
    ],
)
def test_a_request_of_any_worker_stops_all(cluster_of, monkeypatch, stop_at, here, expected):
    monkeypatch.setattr(workers.time, "monotonic", lambda: 0.0)
    trainer = Replicas(stop_at)
    requests = workers.StopRequests(trainer)
    found = []
    for trainer.step in range(101, 120):
        if names := requests.ask(trainer.step, here):
            found.append((trainer.step, names))
    assert (found or [None])[0] == expected


def test_a_question_after_an_evaluation_is_always_asked(cluster_of):
    trainer = Replicas(stop_at=105)
    requests = workers.StopRequests(trainer)
    trainer.step = 101
    assert requests.ask(101, False) == []
    trainer.step = 105
    assert requests.ask(105, False, always=True) == ["worker 2 (c:3)"] and trainer.asked == [101, 105]


def test_a_state_with_another_bit_is_another_one():
    entries = {"a": np.float32([0.0]), "b": np.float32([1.0])}
    assert kill_workers.compare(entries, {**entries}) == ""
    assert kill_workers.compare(entries, {**entries, "a": np.float32([-0.0])}) == "1 of 2 entries differ: ['a']"


@pytest.mark.slow
def test_a_killed_worker_ends_the_other_one_and_both_resume_to_the_same_bits(tmp_path):
    """The workers are described by flags, by Slurm and by TF_CONFIG."""
    stopped, uninterrupted = tmp_path / "stopped", tmp_path / "uninterrupted"
    assert kill_workers.run_case(kill_workers.CASES["kill-1"], stopped, "flags") == ""
    entries = kill_workers.run_to_end(stopped, "Slurm")
    assert len(entries) > 20
    assert kill_workers.compare(entries, kill_workers.run_to_end(uninterrupted, "TF_CONFIG")) == ""


@pytest.mark.slow
def test_a_worker_with_other_flags_is_refused(tmp_path):
    extra = ("--hparams=image_size=64,num_classes=3,learning_rate=0.1", "--save_checkpoints_steps=7")
    with kill_workers.Workers(tmp_path / "model", "Slurm", extra) as both:
        assert both.exit_codes(kill_workers.START_SECONDS) == [1, 1]
    for log in both.logs:
        assert log.read_text().splitlines()[-1] == (
            f"error: worker 1 (localhost:{both.port + 1}) has learning_rate 0.1 instead of 0.08, "
            f"save_checkpoints_steps 7 instead of 1 on worker 0 (localhost:{both.port}); start all workers with the "
            f"same command, records and versions"
        )
    assert kill_workers.newest_step(tmp_path / "model") == 0
