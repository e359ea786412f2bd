# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Exchange of Python objects and errors between the workers of a strategy."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from dataset.files import reason_of
from tf2.training import cluster as cluster_lib
from tf2.training import strategy as strategy_lib

WORD = np.dtype(np.int64)  # collectives take numbers, but no bytes


def gather_objects(strategy: tf.distribute.Strategy, value: Any) -> list[Any]:
    """Returns the values of all workers, by worker index; a collective call, made by all workers at the same point.

    Args:
        strategy: strategy of the workers.
        value: the value of this worker, which is pickled if there are several.
    """
    if strategy_lib.num_workers(strategy) == 1:
        return [value]
    content = pickle.dumps(value)
    words = np.frombuffer(content + bytes(-len(content) % WORD.itemsize), WORD)
    words = np.concatenate([np.array([len(words)], WORD), words])
    num_local = strategy_lib.num_local_replicas(strategy)
    # Of the replicas of a worker, only the first one has a part.
    parts = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(words if context.replica_id_in_sync_group % num_local == 0 else words[:0])
    )
    rest, values = strategy.gather(parts, axis=0).numpy(), []
    while len(rest):
        end = 1 + int(rest[0])
        values.append(pickle.loads(rest[1:end].tobytes()))  # which ignores the padding
        rest = rest[end:]
    return values


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns when all workers have called this: none ends while others work, which would take that for a failure."""
    gather_objects(strategy, None)


def run_on_all(strategy: tf.distribute.Strategy, function: Callable[[], Any]) -> list[Any]:
    """Calls a function on every worker and returns all results, by worker index; a collective call.

    Raises:
        Exception: the function's own.
        ValueError: if it failed on another worker, so that no worker waits for one that ended.
    """
    if strategy_lib.num_workers(strategy) == 1:
        return [function()]
    result = error = None
    try:
        result = function()
    except Exception as caught:  # of any kind: the other workers wait for this one
        error = caught
        logging.error("%s: waiting for the other workers to end", reason_of(error))
    outcomes = gather_objects(strategy, (result, error and reason_of(error)))
    if error:
        raise error
    for index, (_, reason) in enumerate(outcomes):
        if reason:
            raise ValueError(f"{cluster_lib.current().describe(index)} failed: {reason}")
    return [result for result, _ in outcomes]
