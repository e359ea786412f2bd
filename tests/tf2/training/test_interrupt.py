# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/interrupt.py, by signals sent to a process."""

import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from tf2.training.interrupt import ECHO_SECONDS, Interrupt

ROOT = pathlib.Path(__file__).parents[3]
HEAD = """
import os, signal, sys, time
from tf2.training.interrupt import Interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
"""
# Takes steps until a signal arrives, and completes the current step.
LOOP = """
with Interrupt() as interrupt:
    print("ready", flush=True)
    while not interrupt.signal:
        time.sleep(0.02)
    input()
    print("saved", flush=True)
sys.exit(interrupt.exit_code)
"""
SIGNALS = [(signal.SIGTERM, "SIGTERM", 143), (signal.SIGINT, "SIGINT", 130)]


@pytest.fixture
def started():
    """A function that starts a script and waits until it is ready; the process is killed at the end of the test."""
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


@pytest.mark.parametrize("number, name, code", SIGNALS)
def test_the_step_is_finished_after_the_first_signal(started, number, name, code):
    process = started(LOOP)
    process.send_signal(number)
    assert process.stderr.readline().endswith(
        f"{name}: finishing the step and saving; send it again to exit immediately\n"
    )
    assert process.communicate("\n", timeout=20) == ("saved\n", "")
    assert process.returncode == code


@pytest.mark.parametrize("number, name, code", SIGNALS)
def test_the_second_signal_ends_the_process_at_once(started, number, name, code):
    process = started(LOOP)
    process.send_signal(signal.SIGTERM)
    process.stderr.readline()
    time.sleep(2 * ECHO_SECONDS)
    process.send_signal(number)
    assert process.wait(timeout=20) == code
    assert process.stdout.read() == ""


def test_an_immediately_repeated_signal_counts_once(started):
    process = started(LOOP)
    for _ in range(2):  # like timeout(1)
        process.send_signal(signal.SIGTERM)
    process.stderr.readline()
    assert process.communicate("\n", timeout=20) == ("saved\n", "")
    assert process.returncode == 143


def test_an_ignored_signal_stays_ignored(started):
    process = started("signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + LOOP)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert "SIGTERM: " in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate("\n", timeout=20) == ("saved\n", "")
    assert process.returncode == 143


def test_the_previous_handlers_are_restored(started):
    process = started(
        "handled = []\n"
        "signal.signal(signal.SIGTERM, lambda *event: handled.append(event))\n"
        "with Interrupt() as interrupt:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    while not interrupt.signal:\n"
        "        time.sleep(0.02)\n"
        "assert handled == [] and interrupt.signal == signal.SIGTERM\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('ready')\n"
        "print(len(handled), interrupt.exit_code)\n"
    )
    assert process.wait(timeout=20) == 0, process.stderr.read()
    assert process.stdout.read() == "1 143\n"


def test_without_a_signal_nothing_changes():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with Interrupt() as interrupt:
        assert interrupt.signal is None and interrupt.exit_code == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_signals_are_handled_in_the_main_thread_only():
    handlers = []

    def run():
        with Interrupt() as interrupt:
            handlers.append((signal.getsignal(signal.SIGTERM), interrupt.signal))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == [(before, None)]
