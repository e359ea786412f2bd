# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""interrupt: signals that a real process gets, which needs no TensorFlow."""

import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from tf2.training.interrupt import Interrupt

ROOT = pathlib.Path(__file__).parents[3]
HEAD = """
import hashlib, os, signal, sys, time
from tf2.training.interrupt import Interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)  # the background jobs of a shell ignore it
"""
# Steps until it is asked to stop; a step that is begun is ended.
LOOP = """
with Interrupt() as interrupt:
    print("ready", flush=True)
    while not interrupt.signal:
        time.sleep(0.02)
    input()
    print("saved", flush=True)
sys.exit(interrupt.exit_code)
"""
# A call that no handler of Python's can end, as is a step that compiles.
STUCK = """
with Interrupt() as interrupt:
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""
BOTH = pytest.mark.parametrize("number, name, code", [(signal.SIGTERM, "SIGTERM", 143), (signal.SIGINT, "SIGINT", 130)])


@pytest.fixture
def started():
    """Starts a script and waits until it is ready; in the end it is gone."""
    processes = []

    def start(script):
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-c", HEAD + script], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@BOTH
def test_the_first_signal_lets_the_work_end(started, number, name, code):
    process = started(LOOP)
    process.send_signal(number)
    assert process.stderr.readline().endswith(f"{name}: finishing the step and saving; send it again to end at once\n")
    assert process.communicate("\n", timeout=20) == ("saved\n", "")
    assert process.returncode == code


@BOTH
@pytest.mark.parametrize("script", [LOOP, STUCK])
def test_the_second_signal_ends_the_process_at_once(started, script, number, name, code):
    process = started(script)
    process.send_signal(signal.SIGTERM)
    process.stderr.readline()
    process.send_signal(number)
    assert process.wait(timeout=20) == code
    assert process.stdout.read() == ""


def test_a_signal_that_is_sent_twice_at_the_same_time_is_one(started):
    process = started(LOOP)
    for _ in range(2):  # as timeout(1) does
        process.send_signal(signal.SIGTERM)
    process.stderr.readline()
    assert process.communicate("\n", timeout=20) == ("saved\n", "")
    assert process.returncode == 143


def test_a_signal_that_was_ignored_stays_ignored(started):
    process = started("signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + LOOP)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert "SIGTERM: " in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate("\n", timeout=20) == ("saved\n", "")
    assert process.returncode == 143


def test_afterwards_the_former_handlers_are_back(started):
    process = started(
        "handled = []\n"
        "signal.signal(signal.SIGTERM, lambda *event: handled.append(event))\n"
        "with Interrupt() as interrupt:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    while not interrupt.signal:\n"
        "        time.sleep(0.02)\n"
        "assert handled == [] and interrupt.signal == signal.SIGTERM\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "assert signal.set_wakeup_fd(-1) == -1\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('ready')\n"
        "print(len(handled), interrupt.exit_code)\n"
    )
    assert process.wait(timeout=20) == 0, process.stderr.read()
    assert process.stdout.read() == "1 143\n"


def test_without_a_signal_nothing_is_left():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    threads = threading.active_count()
    with Interrupt() as interrupt:
        assert interrupt.signal is None and interrupt.exit_code == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert threading.active_count() == threads


def test_another_thread_than_the_main_one_handles_nothing():
    handlers = []

    def run():
        with Interrupt() as interrupt:
            handlers.append((signal.getsignal(signal.SIGTERM), interrupt.signal))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == [(before, None)]
