# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluation beside a training: each checkpoint as it is written."""

import contextlib
import tempfile
import time
from collections.abc import Callable

from absl import logging

from efficientdet.model import EfficientDetNet
from tf2.evaluation.evaluator import Evaluator
from tf2.training import model_dir as model_dir_lib
from tf2.weights import checkpoint

POLL_SECONDS = 5  # from one look for a new checkpoint to the next


def run(
    evaluator: Evaluator,
    model_dir: str,
    *,
    min_interval: float,
    timeout: float,
    on_result: Callable[[str, int | None, dict[str, float]], None],
) -> dict[str, float]:
    """Evaluates the newest checkpoint of a directory, then each newer one as a training writes it.

    Ends with the checkpoint of the training's last step, which its entry `training/last_step` tells; with one that has
    no step in its name, as released ones have none; or when no newer one comes. One that is deleted, or not all there
    yet, while it is read is left for a newer one.

    Args:
        evaluator: of the config of the training.
        model_dir: directory of the checkpoints; it need not exist yet.
        min_interval: seconds from the start of an evaluation to that of the next, at least.
        timeout: seconds to wait for a newer checkpoint, after each evaluation and for the first one.
        on_result: called after each evaluation with the prefix of a copy of the checkpoint, which a training may have
            deleted since, step (None where the name has none; then there is no copy) and metrics.

    Returns:
        Metrics of the last evaluation.

    Raises:
        CheckpointError: if there is no checkpoint within `timeout`, or it is of another network.
    """
    net = EfficientDetNet(evaluator.config)  # one for all checkpoints: the evaluator traces it once
    prefix, step, results, not_before = None, -1, {}, time.monotonic()
    while True:
        logging.info("waiting up to %g s for a %s checkpoint in %s", timeout, "newer" if prefix else "first", model_dir)
        deadline = max(time.monotonic() + timeout, not_before)
        time.sleep(max(0.0, not_before - time.monotonic()))
        with tempfile.TemporaryDirectory() as folder:
            loaded = _load_newer(net, model_dir, step, deadline, folder)
            if loaded is None:
                break
            not_before = time.monotonic() + min_interval
            prefix, step, last_step, copy = loaded
            results = evaluator.run(net)
            on_result(copy, step, results)
        if step is None or (last_step is not None and step >= last_step):
            return results
    if prefix is None:
        raise checkpoint.CheckpointError(
            f"no checkpoint that can be read came to {model_dir} within {timeout:g} s; "
            f"give the --model_dir of a training, or a longer --eval_timeout"
        )
    logging.warning(
        "nothing newer than %s came within %g s, and it is not marked as the last of its training: ending here; "
        "run again when the training goes on, or with a longer --eval_timeout",
        prefix,
        timeout,
    )
    return results


def _load_newer(
    net: EfficientDetNet, model_dir: str, step: int, deadline: float, folder: str
) -> tuple[str, int | None, int | None, str] | None:
    """Loads the newest checkpoint as soon as it is beyond a step, and copies it to a folder.

    Returns:
        Its prefix, the step in its name, if any, the last step of its training, if it tells, and the prefix of the
        copy; None if none came until the deadline.
    """
    unreadable = None
    while True:
        prefix, newest_step = _newest(model_dir)
        if prefix and (newest_step is None or newest_step > step):
            try:
                last_step = checkpoint.read_entries(prefix, ["training/last_step"]).get("training/last_step")
                checkpoint.restore(net, prefix)
                copy = prefix if newest_step is None else model_dir_lib.copy(prefix, folder)
                return prefix, newest_step, last_step, copy
            except checkpoint.CheckpointError as error:
                if checkpoint.is_whole(prefix):  # and of another network: waiting would not help
                    raise
                if prefix != unreadable:
                    logging.warning("%s; waiting for a newer checkpoint", error)
                unreadable = prefix
        if time.monotonic() >= deadline:
            return None
        time.sleep(POLL_SECONDS)


def _newest(model_dir: str) -> tuple[str | None, int | None]:
    """Prefix and step of the newest checkpoint of a directory, as far as there are any."""
    prefix = step = None
    # Of a state file whose checkpoint is deleted or not there yet; of a name without a step.
    with contextlib.suppress(checkpoint.CheckpointError):
        prefix = checkpoint.latest(model_dir)
        step = checkpoint.step_of(prefix) if prefix else None
    return prefix, step
