# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Workers that end: a signal to one stops all of them together; a failure of one is an error of the others."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator

import tensorflow as tf

from tf2.training import cluster as cluster_lib
from tf2.training import strategy as strategy_lib
from tf2.training.interrupt import Stopped
from tf2.training.trainer import Trainer
from tf2.weights import checkpoint

# Exit code of a process because another worker ended: with restartPolicy: ExitCode, Kubeflow's TFJob restarts a process
# that ends with it, as after SIGTERM.
LOST_EXIT_CODE = 138
POLL_STEPS = 10  # maximum steps between two questions for a stop request: each one waits for the device
POLL_SECONDS = 5.0  # target time between them, if steps are slow: preempted machines often have 30 seconds left
PEER = r"/job:worker/(?:replica:\d+/)?task:(\d+)"  # a worker in TensorFlow's messages


class StopRequests:
    """Stop requests of all workers, which ask each other at the same steps."""

    def __init__(self, trainer: Trainer):
        """Starts the clock; the first question is due after the next step."""
        self._trainer, self._cluster = trainer, cluster_lib.current()
        self._step, self._asked_at = trainer.step, time.monotonic()
        self._next = self._step + 1

    def ask(self, step: int, here: bool, *, always: bool = False) -> list[str]:
        """Returns the workers on which a stop is requested, for messages; a collective call, made at each step.

        Args:
            step: steps taken so far.
            here: True if a stop is requested on this worker.
            always: asks even if no question is due; without a question the list is empty.
        """
        if not always and step < self._next:
            return []
        now, count = time.monotonic(), len(self._cluster.workers)
        seconds = (now - self._asked_at) / max(step - self._step, 1)
        requests = [float(here and index == self._cluster.index) for index in range(count)]
        *requests, seconds = self._trainer.mean_over_replicas([*requests, seconds])
        # From the mean, so that all workers ask at the same step.
        self._next = step + min(max(int(POLL_SECONDS / max(seconds, 1e-9)), 1), POLL_STEPS)
        self._step, self._asked_at = step, now
        return [self._cluster.describe(index) for index, request in enumerate(requests) if request]


@contextlib.contextmanager
def lost_workers(strategy: tf.distribute.Strategy, advice: Callable[[], str]) -> Iterator[None]:
    """Context manager that converts the error of a collective to `Stopped` that names the workers that ended.

    Args:
        strategy: strategy of the workers.
        advice: returns advice on resuming, the last part of the message.

    Raises:
        Stopped: with exit code LOST_EXIT_CODE, if another worker ended.
    """
    try:
        yield
    except tf.errors.OpError as error:
        lost = _lost(error) if strategy_lib.num_workers(strategy) > 1 else []
        if not lost:
            raise
        names = " and ".join(lost)
        raise Stopped(f"{names} ended or cannot be reached, see the log there; {advice()}", LOST_EXIT_CODE) from error


def resume_advice(model_dir: str) -> str:
    """Returns a sentence that states where a training resumes."""
    names = checkpoint.saved(model_dir)
    if not names:
        return "nothing is saved yet: start the same command on all machines again"
    return f"the same command on all machines resumes from step {checkpoint.step_of(names[-1])}"


def _lost(error: tf.errors.OpError) -> list[str]:
    """Returns the other workers that ended according to an error, or that do not accept connections."""
    kinds = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError)
    kinds += (tf.errors.DeadlineExceededError, tf.errors.FailedPreconditionError, tf.errors.UnknownError)
    if not isinstance(error, kinds):
        return []
    cluster = cluster_lib.current()
    others = [index for index in range(len(cluster.workers)) if index != cluster.index]
    # TensorFlow's heartbeats name the worker; a broken connection does not, and its other end may be alive.
    reported = re.findall(f"Error reported from {PEER}", error.message)
    lost = {int(index) for index in reported} & set(others)
    lost = lost or {index for index in others if not cluster_lib.accepts_connections(cluster.workers[index])}
    if not lost and "Collective ops is aborted" in error.message:  # it still ends, or another process took its place
        lost = {int(index) for index in re.findall(PEER, error.message)} & set(others)
        if not lost:
            return ["another worker"]
    return [cluster.describe(index) for index in sorted(lost)]
