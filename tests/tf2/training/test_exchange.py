# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/exchange.py: results and errors of all workers; slow tests elsewhere run several processes."""

import json

import pytest
import tensorflow as tf

from tf2.training import exchange

ONE = tf.distribute.get_strategy()


def fail():
    raise OSError("no file")


@pytest.fixture
def second_worker(monkeypatch):
    """Two workers, this one is the first; returns a list that holds what the second one sends."""
    sent = []
    spec = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(spec))
    monkeypatch.setattr(exchange.strategy_lib, "num_workers", lambda strategy: 2)
    monkeypatch.setattr(exchange, "gather_objects", lambda strategy, value: [value, *sent])
    return sent


def test_one_worker_exchanges_nothing():
    assert exchange.gather_objects(ONE, fail) == [fail]
    assert exchange.run_on_all(ONE, lambda: 5) == [5]
    with pytest.raises(OSError, match="no file"):
        exchange.run_on_all(ONE, fail)


def test_results_come_from_all_workers(second_worker):
    second_worker.append(({"x": 2}, None))
    assert exchange.run_on_all(ONE, lambda: {"x": 1}) == [{"x": 1}, {"x": 2}]


def test_the_failure_of_another_worker_is_an_error_with_its_name(second_worker):
    second_worker.append((None, "no file matches 'x'"))
    with pytest.raises(ValueError, match=r"^worker 1 \(b:2\) failed: no file matches 'x'$"):
        exchange.run_on_all(ONE, lambda: 5)


def test_the_own_failure_is_raised_after_the_exchange(second_worker):
    second_worker.append((None, "another one"))
    with pytest.raises(OSError, match="no file"):
        exchange.run_on_all(ONE, fail)
