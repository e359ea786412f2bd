# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Devices: the tf.distribute strategy of a training, and the precision that they compute in."""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence

import tensorflow as tf
from absl import logging

from dataset.files import reason_of


def create(
    kind: str | None = None,
    *,
    workers: Sequence[str] = (),
    worker_index: int = 0,
    tpu: str | None = None,
    tpu_zone: str | None = None,
    gcp_project: str | None = None,
) -> tf.distribute.Strategy:
    """The strategy of a name. Comes before everything else that uses TensorFlow's devices.

    Args:
        kind: None for one device, gpus for all GPUs of this machine, multi-gpus for several machines, with all their
            GPUs or else their CPUs, tpu for a TPU. With workers, None and gpus are multi-gpus.
        workers: host:port of each machine; none takes what the environment variable TF_CONFIG says, for multi-gpus,
            and for gpus if it names several.
        worker_index: which of the workers this one is, from 0; the first of them writes the files.
        tpu: name or address of a TPU; local on a TPU VM.
        tpu_zone: of Google Cloud.
        gcp_project: of Google Cloud.

    Raises:
        ValueError: if the devices are not there, or the machines are not described well.
    """
    if workers and kind == "tpu":
        raise ValueError("--worker is for machines with GPUs, --strategy=multi-gpus; leave it out for a TPU")
    if worker_index and not workers:
        raise ValueError(f"--worker_index={worker_index} counts in --worker; give both, or TF_CONFIG alone")
    if kind != "tpu" and (tpu or tpu_zone or gcp_project):
        raise ValueError("--tpu, --tpu_zone and --gcp_project are for --strategy=tpu; give it, or leave them out")
    if workers or (kind == "gpus" and _names_several(os.environ.get("TF_CONFIG", ""))):
        kind = "multi-gpus"
    if kind == "tpu":
        return _tpu_strategy(tpu, tpu_zone, gcp_project)
    if kind == "multi-gpus":
        os.environ["TF_CONFIG"] = json.dumps(_cluster(workers, worker_index))
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if kind == "multi-gpus":
        if not gpus:
            logging.warning("no GPU on this machine: its worker computes on the CPU")
        return tf.distribute.MultiWorkerMirroredStrategy()
    if kind == "gpus":
        if not gpus:
            raise ValueError(
                "--strategy=gpus needs a GPU, but TensorFlow finds none on this machine; leave --strategy out to use "
                "the CPU, or install the GPU driver and tensorflow[and-cuda]"
            )
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


@contextlib.contextmanager
def plain_errors(out_of_memory: str) -> Iterator[None]:
    """Around the work of a script: what devices, files and machines refuse becomes an OSError of one line.

    Args:
        out_of_memory: what to do where memory does not suffice.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(f"out of memory: {out_of_memory} ({reason_of(error)})") from error
    except tf.errors.OpError as error:
        raise OSError(reason_of(error)) from error


def _tpu_strategy(tpu: str | None, tpu_zone: str | None, gcp_project: str | None) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu, zone=tpu_zone, project=gcp_project)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    # Its packages raise what they like where there is no TPU, down to missing modules.
    except Exception as error:
        raise ValueError(
            f"--strategy=tpu cannot reach the TPU {tpu or '(none named)'}: {reason_of(error)}; give --tpu=local on a "
            f"TPU VM, or its name with --tpu, --tpu_zone and --gcp_project"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _names_several(tf_config: str) -> bool:
    """Whether a TF_CONFIG is of several machines; one that cannot be read is not."""
    try:
        return sum(map(len, json.loads(tf_config)["cluster"].values())) > 1
    except (ValueError, LookupError, TypeError, AttributeError):
        return False


def _cluster(workers: Sequence[str], worker_index: int) -> dict:
    """What TF_CONFIG has to be, from the flags or else from TF_CONFIG."""
    if not workers:
        given = os.environ.get("TF_CONFIG", "")
        try:
            cluster = json.loads(given)
            workers, task = cluster["cluster"]["worker"], cluster["task"]
            worker_index = task["index"]
            only_workers = set(cluster["cluster"]) == {"worker"} and task["type"] == "worker"
            valid = only_workers and isinstance(worker_index, int)
        except (ValueError, LookupError, TypeError):
            valid = False
        if not valid:
            raise ValueError(
                "--strategy=multi-gpus needs the machines: --worker=host:port,host:port and --worker_index, or in "
                'TF_CONFIG {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}, '
                f"got {given!r}"
            )
    for worker in workers:
        if not re.fullmatch(r"\S+:\d+", str(worker)):
            raise ValueError(f"a worker is host:port, got {worker!r} in {','.join(map(str, workers))}")
    if not 0 <= worker_index < len(workers):
        raise ValueError(f"worker_index is 0..{len(workers) - 1} for {len(workers)} workers, got {worker_index}")
    return {"cluster": {"worker": list(workers)}, "task": {"type": "worker", "index": worker_index}}


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the files: the only one, or the first of several machines."""
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or resolver is None:
        return True
    return resolver.task_id == 0


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Machines that train together."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    return len(strategy.cluster_resolver.cluster_spec().as_dict()["worker"])


def precision(mixed: bool, strategy: tf.distribute.Strategy) -> str:
    """The Keras policy of a training.

    Args:
        mixed: whether layers shall compute in 16 bits.
        strategy: of the training.

    Returns:
        mixed_bfloat16 on TPUs, mixed_float16 on GPUs; float32 on CPUs, with a warning if mixed was asked for.
    """
    if not mixed:
        return "float32"
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return "mixed_bfloat16"
    if tf.config.list_logical_devices("GPU"):
        return "mixed_float16"
    logging.warning("mixed_precision is for GPUs and TPUs, of which there is none: computing in float32")
    return "float32"
