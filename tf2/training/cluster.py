# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The workers that train together, one process each: from flags, from TF_CONFIG, or from the variables of Slurm."""

import itertools
import json
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from absl import logging

TF_CONFIG = "TF_CONFIG"
# Ports of a Slurm job: below 32768, where Linux starts to give ports to clients, and 16 for each of 1000 job ids, so
# that jobs that share a machine are unlikely to take the same ones.
SLURM_PORT, SLURM_JOBS, SLURM_TASKS = 15000, 1000, 16
CONNECT_SECONDS = 2.0  # maximum time of a connection to a worker that is alive
WAIT_SECONDS = 0.5  # between checks of workers that have not started
LOG_SECONDS = 30.0  # between log lines of the workers that are waited for
SLURM_VARIABLES = ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")


class Cluster(NamedTuple):
    """The workers, and the place of this process among them."""

    workers: tuple[str, ...]  # host:port; the first one, the chief, writes the files
    index: int  # of this process
    place: int = 0  # of this process among those of the same Slurm job on this machine, from 0
    places: int = 1  # processes of the same Slurm job on this machine

    def tf_config(self) -> str:
        """Returns TF_CONFIG as tf.distribute reads it: the first worker is the chief."""
        return json.dumps({"cluster": {"worker": self.workers}, "task": {"type": "worker", "index": self.index}})

    def describe(self, index: int) -> str:
        """Returns a worker for messages, such as "worker 1 (host2:2222)"."""
        return f"worker {index} ({self.workers[index]})"


def find(workers: Sequence[str] = (), worker_index: int = 0) -> Cluster:
    """Returns the workers that the flags, or else TF_CONFIG, or else the variables of a Slurm job step describe.

    Args:
        workers: host:port of each worker; empty to use the environment.
        worker_index: index of this process in workers.

    Raises:
        ValueError: if the description is missing or invalid.
    """
    if workers:
        cluster = Cluster(tuple(workers), worker_index)
    elif given := os.environ.get(TF_CONFIG):
        cluster = _of_tf_config(given)
    elif any(name in os.environ for name in SLURM_VARIABLES):
        cluster = _of_slurm(os.environ)
    else:
        raise _missing("")
    for worker in cluster.workers:
        if not re.fullmatch(r"\S+:\d+", str(worker)):
            raise ValueError(f"expected workers as host:port, got {worker!r} in {','.join(map(str, cluster.workers))}")
    if not 0 <= cluster.index < len(cluster.workers):
        count = len(cluster.workers)
        raise ValueError(f"expected worker_index in 0..{count - 1} for {count} workers, got {cluster.index}")
    return cluster


def current() -> Cluster:
    """Returns the workers that `Cluster.tf_config` in the environment describes; no workers without it."""
    given = json.loads(os.environ.get(TF_CONFIG) or '{"cluster": {"worker": []}, "task": {"index": 0}}')
    return Cluster(tuple(given["cluster"]["worker"]), given["task"]["index"])


def wait_for_all(cluster: Cluster) -> None:
    """Returns when all workers have started, and names those that have not.

    tf.distribute waits for them as well, but cannot be interrupted then and does not tell which one is missing. Until
    all are there, this process listens on its port in place of TensorFlow's server.

    Raises:
        ValueError: if the port of this worker is in use.
    """
    port = int(cluster.workers[cluster.index].rpartition(":")[2])
    missing = [index for index in range(len(cluster.workers)) if index != cluster.index]
    is_dual = socket.has_dualstack_ipv6()
    try:
        family = socket.AF_INET6 if is_dual else socket.AF_INET
        server = socket.create_server(("", port), family=family, backlog=1024, dualstack_ipv6=is_dual)
    except OSError as error:
        raise ValueError(
            f"{cluster.describe(cluster.index)} cannot use port {port} of this machine: {os.strerror(error.errno)}; "
            f"end the process that uses it, or choose another port"
        ) from error
    with server:
        logged_at = -LOG_SECONDS
        while missing := [index for index in missing if not accepts_connections(cluster.workers[index])]:
            if time.monotonic() - logged_at >= LOG_SECONDS:
                logging.info("waiting for %s", ", ".join(map(cluster.describe, missing)))
                logged_at = time.monotonic()
            time.sleep(WAIT_SECONDS)


def accepts_connections(worker: str) -> bool:
    """Returns True if host:port can be connected to."""
    host, _, port = worker.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def names_several(tf_config: str) -> bool:
    """Returns True if a TF_CONFIG names several processes; False if it cannot be parsed."""
    try:
        return sum(map(len, json.loads(tf_config)["cluster"].values())) > 1
    except (ValueError, LookupError, TypeError, AttributeError):
        return False


def _missing(given: str) -> ValueError:
    return ValueError(
        "--strategy=multi-gpus needs the machines: --worker=host:port,host:port and --worker_index, or "
        'TF_CONFIG={"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}, which may have '
        f'a "chief" beside the workers, or the variables of Slurm, which srun sets; got TF_CONFIG={given!r}'
    )


def _of_tf_config(given: str) -> Cluster:
    """Parses TF_CONFIG; a chief beside the workers, as Kubeflow's TFJob writes it, becomes the first worker."""
    try:
        parsed = json.loads(given)
        cluster, task, index = parsed["cluster"], parsed["task"]["type"], parsed["task"]["index"]
        chiefs = [*cluster.get("chief", ()), *cluster.get("master", ())]  # master: the older name
        workers = cluster.get("worker", ())
        own = {"worker": workers, "chief": chiefs, "master": chiefs}.get(task, ())
        valid = isinstance(index, int) and bool(chiefs or workers)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _missing(given) from error
    if task == "evaluator":
        raise ValueError(
            "TF_CONFIG makes this process an evaluator, which does not train: start it with --mode=eval "
            "--eval_timeout=3600, without --strategy"
        )
    unknown = sorted(cluster.keys() - {"chief", "master", "worker", "evaluator"})
    if unknown:
        raise ValueError(
            f"TF_CONFIG has processes of the kind {', '.join(unknown)}; training uses chief and worker only: all hold "
            f"the weights, there are no parameter servers"
        )
    if not valid or task not in ("chief", "master", "worker") or len(chiefs) > 1:
        raise _missing(given)
    if not 0 <= index < len(own):
        raise ValueError(f"TF_CONFIG: expected the index of a {task} in 0..{len(own) - 1}, got {index}")
    return Cluster((*chiefs, *workers), index + (len(chiefs) if task == "worker" else 0))


def _of_slurm(variables: Mapping[str, str]) -> Cluster:
    """Returns the tasks of a Slurm job step, as srun describes them.

    tf.distribute's SlurmClusterResolver is not used: it sorts the hosts by name, n10 before n9, whereas Slurm numbers
    the tasks in the order of the list, and it requires nvidia-smi.
    """
    missing = [name for name in SLURM_VARIABLES if name not in variables]
    if missing:
        raise ValueError(f"{', '.join(missing)} not set in this Slurm job: start every task with srun, not with sbatch")
    rank, port = int(variables["SLURM_PROCID"]), int(variables["SLURM_JOB_ID"]) % SLURM_JOBS * SLURM_TASKS + SLURM_PORT
    hosts = _expand_hosts(variables["SLURM_STEP_NODELIST"])
    counts = _expand_counts(variables["SLURM_STEP_TASKS_PER_NODE"])
    if not hosts or len(hosts) != len(counts):
        raise ValueError(
            f"expected as many numbers in SLURM_STEP_TASKS_PER_NODE={variables['SLURM_STEP_TASKS_PER_NODE']} as hosts "
            f"in SLURM_STEP_NODELIST={variables['SLURM_STEP_NODELIST']}"
        )
    tasks = [(node, place) for node, count in enumerate(counts) for place in range(count)]
    if not 0 <= rank < len(tasks):
        raise ValueError(f"expected SLURM_PROCID in 0..{len(tasks) - 1} for {len(tasks)} tasks, got {rank}")
    node, place = tasks[rank]
    found = tuple(int(variables.get(name, value)) for name, value in (("SLURM_NODEID", node), ("SLURM_LOCALID", place)))
    if found != (node, place):
        raise ValueError(
            f"task {rank} runs as task {found[1]} of node {found[0]}, expected task {place} of node {node}; use srun "
            f"--distribution=block"
        )
    return Cluster(tuple(f"{hosts[node]}:{port + place}" for node, place in tasks), rank, place, counts[node])


def _expand_hosts(nodes: str) -> list[str]:
    """Returns the host names in a Slurm node list, such as "n[08-10],m5"."""
    hosts: list[str] = []
    for part in re.findall(r"(?:\[[^\]]*\]|[^,\[\]])+", nodes):
        pieces = re.split(r"\[([^\]]*)\]", part)  # text and ranges alternate
        choices = [_expand_ranges(piece) if i % 2 else [piece] for i, piece in enumerate(pieces)]
        hosts += map("".join, itertools.product(*choices))
    return hosts


def _expand_ranges(ranges: str) -> list[str]:
    """Returns the numbers in "08-10,12", with their leading zeros."""
    numbers: list[str] = []
    for each in ranges.split(","):
        first, _, last = each.partition("-")
        numbers += [str(number).zfill(len(first)) for number in range(int(first), int(last or first) + 1)]
    return numbers


def _expand_counts(counts: str) -> list[int]:
    """Returns the tasks of each node from "2(x3),1"."""
    numbers: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", counts):
        numbers += [int(count)] * int(times or 1)
    return numbers


def share_of(devices: Sequence, cluster: Cluster, on_machine: int | None) -> list:
    """Returns the devices of this process, if several processes of a Slurm job share a machine.

    Args:
        devices: devices that the process sees.
        cluster: the workers.
        on_machine: devices of the job on this machine; if the process sees fewer, Slurm has divided them already.
            None if that is unknown.

    Raises:
        ValueError: if the devices cannot be divided evenly.
    """
    if cluster.places == 1 or not devices or len(devices) < (on_machine or 0):
        return list(devices)
    size, rest = divmod(len(devices), cluster.places)
    if rest:
        raise ValueError(
            f"{cluster.places} Slurm tasks on this machine cannot share its {len(devices)} GPUs evenly; use one task "
            f"per machine or per GPU"
        )
    return list(devices[cluster.place * size : (cluster.place + 1) * size])
