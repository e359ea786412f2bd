# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Devices: tf.distribute strategies, and the precision of their computations."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf
import tf_keras as keras
from absl import logging

from dataset.files import reason_of
from tf2.training import cluster as cluster_lib


def set_options(seed: int | None = None, *, debug: bool = False, use_xla: bool = False) -> None:
    """Makes TensorFlow's global settings; before `create`.

    Args:
        seed: of all random numbers, which makes results reproducible, on CPUs to the bit; None for other ones each run.
        debug: runs operations eagerly.
        use_xla: True if XLA will compile the steps.
    """
    if seed is not None:
        keras.utils.set_random_seed(seed)
        # Not on GPUs: TensorFlow has no deterministic kernel there for the gradient of frozen batch normalization. Not
        # with XLA, whose programs for CPUs are deterministic: TensorFlow would refuse the gradient of max pooling.
        if not (use_xla or tf.config.list_physical_devices("GPU")):
            tf.config.experimental.enable_op_determinism()
    if debug:
        tf.config.run_functions_eagerly(True)
        tf.data.experimental.enable_debug_mode()


def create(
    kind: str | None = None,
    *,
    workers: Sequence[str] = (),
    worker_index: int = 0,
    tpu: str | None = None,
    tpu_zone: str | None = None,
    gcp_project: str | None = None,
) -> tf.distribute.Strategy:
    """Creates a strategy. Must be called before anything else uses TensorFlow's devices.

    Args:
        kind: None for one device; gpus for all GPUs of this machine; multi-gpus for several machines, with their GPUs
            or else their CPUs; tpu for a TPU. With workers, None and gpus mean multi-gpus.
        workers: host:port of each machine. If empty, the environment is used, see `cluster.find`: always for
            multi-gpus, and for gpus if TF_CONFIG names several machines.
        worker_index: index of this machine in workers, from 0; the first one writes the files.
        tpu: name or address of a TPU; "local" on a TPU VM.
        tpu_zone: Google Cloud zone.
        gcp_project: Google Cloud project.

    Raises:
        ValueError: if the devices do not exist, or the machines are not described correctly.
    """
    if workers and kind == "tpu":
        raise ValueError("--worker applies to --strategy=multi-gpus; omit it for a TPU")
    if worker_index and not workers:
        raise ValueError(f"--worker_index={worker_index} is an index into --worker; pass both flags, or only TF_CONFIG")
    if kind != "tpu" and (tpu or tpu_zone or gcp_project):
        raise ValueError("--tpu, --tpu_zone and --gcp_project require --strategy=tpu; add it, or omit them")
    if workers or (kind == "gpus" and cluster_lib.names_several(os.environ.get(cluster_lib.TF_CONFIG, ""))):
        kind = "multi-gpus"
    if kind == "tpu":
        return _tpu_strategy(tpu, tpu_zone, gcp_project)
    gpus = tf.config.list_physical_devices("GPU")
    if kind == "multi-gpus":
        cluster = cluster_lib.find(workers, worker_index)
        os.environ[cluster_lib.TF_CONFIG] = cluster.tf_config()
        gpus = _own_gpus(cluster, gpus)
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if kind == "multi-gpus":
        if not gpus:
            logging.warning("no GPU on this machine: its worker uses the CPU")
        tf.get_logger().setLevel("WARNING")  # instead of a line per collective
        cluster_lib.wait_for_all(cluster)
        return tf.distribute.MultiWorkerMirroredStrategy()
    if kind == "gpus":
        if not gpus:
            raise ValueError(
                "--strategy=gpus needs a GPU, but TensorFlow finds none on this machine; omit --strategy to use the "
                "CPU, or install the GPU driver and tensorflow[and-cuda]"
            )
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


@contextlib.contextmanager
def device_errors(out_of_memory: str) -> Iterator[None]:
    """Context manager that converts TensorFlow errors to OSErrors with a one-line reason.

    Args:
        out_of_memory: advice for the case that memory does not suffice.
    """
    try:
        yield
    except tf.errors.OpError as error:
        reason = reason_of(error, with_path=True)
        is_disk = reason.endswith(os.strerror(errno.ENOSPC))  # of the same kind as a lack of memory
        if isinstance(error, tf.errors.ResourceExhaustedError) and not is_disk:
            reason = f"out of memory: {out_of_memory} ({reason})"
        raise OSError(reason) from error


def _own_gpus(cluster: cluster_lib.Cluster, gpus: list) -> list:
    """Returns the GPUs of this process and hides those of others on the same machine."""
    on_machine = os.environ.get("SLURM_GPUS_ON_NODE", "")
    own = cluster_lib.share_of(gpus, cluster, int(on_machine) if on_machine.isdigit() else None)
    if own != gpus:
        tf.config.set_visible_devices(own, "GPU")
    return own


def _tpu_strategy(tpu: str | None, tpu_zone: str | None, gcp_project: str | None) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu, zone=tpu_zone, project=gcp_project)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    # Without a TPU, its packages raise errors of any kind, including missing modules.
    except Exception as error:
        raise ValueError(
            f"--strategy=tpu cannot reach the TPU {tpu or '(none named)'}: {reason_of(error)}; give --tpu=local on a "
            f"TPU VM, or its name with --tpu, --tpu_zone and --gcp_project"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns True if this process writes the files: the only process, or the first of several machines."""
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or resolver is None:
        return True
    return resolver.task_id == 0


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of machines that work together."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    return len(strategy.cluster_resolver.cluster_spec().as_dict()["worker"])


def compile_replica(function: Callable, strategy: tf.distribute.Strategy) -> Callable:
    """Returns the function of one replica, an argument of `strategy.run`, as one XLA program per shape of its inputs.

    Raises:
        ValueError: if there are several CPUs.
    """
    check_xla(strategy)
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return function  # strategy.run compiles all functions for TPUs
    return tf.function(function, autograph=False, jit_compile=True)


def check_xla(strategy: tf.distribute.Strategy) -> None:
    """Raises ValueError if XLA cannot compile the training step of a strategy."""
    count = strategy.num_replicas_in_sync
    if count > 1 and any("CPU:" in device for device in strategy.extended.worker_devices):
        raise ValueError(
            f"--use_xla cannot compile the sums over {count} replicas on CPUs; omit it, or train on one CPU, on GPUs "
            f"or on a TPU"
        )


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """Returns the index of this machine among those that work together, from 0."""
    return 0 if num_workers(strategy) == 1 else strategy.cluster_resolver.task_id


def num_local_replicas(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of replicas on this machine."""
    return strategy.num_replicas_in_sync // num_workers(strategy)


def precision(mixed: bool, strategy: tf.distribute.Strategy) -> str:
    """Chooses the Keras policy of a training run.

    Args:
        mixed: if True, layers compute in 16 bits.
        strategy: strategy of the training run.

    Returns:
        For mixed, mixed_bfloat16 on TPUs, mixed_float16 on GPUs, and with a warning float32 on CPUs; else float32.
    """
    if not mixed:
        return "float32"
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return "mixed_bfloat16"
    if tf.config.list_logical_devices("GPU"):
        return "mixed_float16"
    logging.warning("mixed_precision needs a GPU or TPU, and this machine has none: computing in float32")
    return "float32"
