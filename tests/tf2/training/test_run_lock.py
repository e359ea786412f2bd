# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/run_lock.py."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
import tensorflow as tf
from absl import logging

from dataset.files import TargetError, write_file
from tf2.training import run_lock
from tf2.training.model_dir import ModelDir
from tf2.training.run_lock import LockLost, RunLock

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    for name, seconds in {"HEARTBEAT": 0.05, "STALE": 0.4, "POLL": 0.02, "SETTLE": 0.1}.items():
        monkeypatch.setattr(run_lock, name, seconds)


@pytest.fixture(params=["local", "ram"])
def directory(request, tmp_path):
    return str(tmp_path / "run") if request.param == "local" else f"ram://{tmp_path.name}/run"


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda message, *args: lines.append(message % args))
    return lines


def read(directory):
    with tf.io.gfile.GFile(f"{directory}/run.lock") as file:
        return json.loads(file.read())


def leave(directory, **changes):
    """Writes the lock of this process with changes, as a killed process leaves it."""
    owner = {**RunLock(directory)._owner, "token": "left", "since": "2026-01-02 03:04:05 +0000", **changes}
    tf.io.gfile.makedirs(directory)
    write_file(f"{directory}/run.lock", json.dumps(owner))


def test_the_lock_is_held_and_released(directory):
    with RunLock(directory) as lock:
        lock.check()
        assert read(directory)["pid"] == os.getpid() and read(directory)["host"] == os.uname().nodename
        before = read(directory)["heartbeats"]
        time.sleep(0.3)
        assert read(directory)["heartbeats"] > before
        with pytest.raises(TargetError, match=rf"{directory} is in use by another training, process {os.getpid()} on "):
            RunLock(directory).__enter__()
        lock.check()
    assert tf.io.gfile.listdir(directory) == []
    with RunLock(directory) as lock:
        lock.check()


def test_a_running_process_keeps_the_lock_without_heartbeats(directory):
    leave(directory)
    with pytest.raises(TargetError, match="since 2026-01-02 03:04:05"):
        RunLock(directory).__enter__()
    assert read(directory)["token"] == "left"


@pytest.mark.parametrize("changes", [{"pid": 2**22 + 1}, {"process_started": 1}], ids=["gone", "id used again"])
def test_the_lock_of_an_ended_process_is_taken_over_at_once(directory, warnings, monkeypatch, changes):
    monkeypatch.setattr(run_lock, "STALE", 60.0)
    leave(directory, **changes)
    with RunLock(directory) as lock:
        lock.check()
    assert len(warnings) == 1 and warnings[0].startswith(f"taking over {directory} from process ")


def test_a_process_that_was_not_waited_for_has_ended():
    process = subprocess.Popen(["true"])
    try:
        deadline = time.monotonic() + 10
        while run_lock._process_started(process.pid) is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert run_lock._process_started(process.pid) is None
    finally:
        process.wait()


@pytest.mark.parametrize("machine", ["elsewhere", None])
def test_the_lock_of_another_machine_is_taken_over_without_a_heartbeat(directory, warnings, machine):
    leave(directory, machine=machine, host="elsewhere")
    start = time.monotonic()
    with RunLock(directory) as lock:
        lock.check()
        assert time.monotonic() - start >= 0.4
    assert warnings[0].startswith(f"taking over {directory} from process {os.getpid()} on elsewhere, since 2026-01-02")


@pytest.mark.parametrize("content", ["", "[]", "no json"])
def test_an_unreadable_lock_is_taken_over_if_it_does_not_change(tmp_path, warnings, content):
    (tmp_path / "run.lock").write_text(content)
    with RunLock(str(tmp_path)) as lock:
        lock.check()
    assert len(warnings) == 1


def test_a_heartbeat_of_another_machine_keeps_its_lock(directory, monkeypatch):
    machine = run_lock._machine
    with RunLock(directory) as first:
        monkeypatch.setattr(run_lock, "_machine", lambda: "another machine")
        with pytest.raises(TargetError, match="is in use by another training"):
            RunLock(directory).__enter__()
        monkeypatch.setattr(run_lock, "_machine", machine)
        first.check()


def test_a_lock_released_while_waiting_is_taken(directory, monkeypatch):
    leave(directory, machine="elsewhere")
    monkeypatch.setattr(run_lock, "STALE", 60.0)
    remover = threading.Timer(0.1, tf.io.gfile.remove, [f"{directory}/run.lock"])
    remover.start()
    with RunLock(directory) as lock:
        lock.check()
    remover.join()


def test_of_two_that_start_at_once_one_remains(directory, monkeypatch):
    first, second = RunLock(directory), RunLock(directory)
    with first:
        monkeypatch.setattr(RunLock, "_take_over", lambda self, content: None)  # it has read no lock
        with second, pytest.raises(LockLost, match=rf"{directory} no longer belongs to this training: process "):
            first.check()
            second.check()
    assert tf.io.gfile.listdir(directory) == []


def test_a_lost_lock_is_neither_rewritten_nor_removed(directory, monkeypatch):
    monkeypatch.setattr(run_lock, "HEARTBEAT", 0.3)
    with RunLock(directory) as lock:
        leave(directory)
        time.sleep(0.6)
        assert read(directory)["token"] == "left"
        with pytest.raises(LockLost, match=r"since 2026-01-02 03:04:05 .* took over; nothing more is written there"):
            lock.check()
    assert read(directory)["token"] == "left"


def test_a_removed_lock_is_lost(directory):
    with RunLock(directory) as lock:
        tf.io.gfile.remove(f"{directory}/run.lock")
        time.sleep(0.2)
        with pytest.raises(LockLost, match=r"run\.lock was removed"):
            lock.check()


def test_the_model_directory_keeps_the_lock_and_removes_its_temporary_file(directory):
    with RunLock(directory) as lock:
        with tf.io.gfile.GFile(f"{directory}/.unfinished-run.lock-killed", "w") as file:
            file.write("half")
        model_dir = ModelDir(directory)
        model_dir.prepare(8)
        assert tf.io.gfile.listdir(directory) == ["run.lock"] and model_dir.newest() is None
        lock.check()


HOLD = """
import sys, time
from tf2.training.run_lock import RunLock
with RunLock(sys.argv[1]):
    print(1, flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number, is_left", [(signal.SIGINT, False), (signal.SIGKILL, True)])
def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, warnings, number, is_left):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout.readline() == b"1\n"
        with pytest.raises(TargetError, match=f"process {process.pid} "):
            RunLock(str(tmp_path)).__enter__()
        process.send_signal(number)
        process.wait()
        assert (tmp_path / "run.lock").exists() == is_left
        with RunLock(str(tmp_path)) as lock:
            lock.check()
    assert len(warnings) == is_left
