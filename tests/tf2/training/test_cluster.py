# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/cluster.py: the workers in flags, in TF_CONFIG and in the variables of Slurm."""

import json
import socket
import threading

import pytest
import tensorflow as tf
from absl import logging

from tf2.training import cluster
from tf2.training.cluster import Cluster

# As Kubeflow's TFJob writes it.
KUBEFLOW = {
    "cluster": {"chief": ["job-chief-0:2222"], "worker": ["job-worker-0:2222", "job-worker-1:2222"]},
    "task": {"type": "worker", "index": 1},
    "environment": "cloud",
}
SLURM = {
    "SLURM_JOB_ID": "70012",
    "SLURM_PROCID": "3",
    "SLURM_STEP_NODELIST": "n[9-10]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "1",
}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in (cluster.TF_CONFIG, *SLURM):
        monkeypatch.delenv(name, raising=False)


def set_variables(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def tf_config(kind, index, **workers):
    return json.dumps({"cluster": workers, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    "given, index",
    [
        (json.dumps(KUBEFLOW), 2),
        (json.dumps({**KUBEFLOW, "task": {"type": "worker", "index": 0}}), 1),
        (json.dumps({**KUBEFLOW, "task": {"type": "chief", "index": 0}}), 0),
        (tf_config("worker", 0, master=["job-chief-0:2222"], worker=KUBEFLOW["cluster"]["worker"]), 1),
        (tf_config("master", 0, master=["job-chief-0:2222"], worker=KUBEFLOW["cluster"]["worker"]), 0),
        (tf_config("chief", 0, evaluator=["job-evaluator-0:2222"], **KUBEFLOW["cluster"]), 0),
    ],
)
def test_a_chief_beside_the_workers_is_the_first_worker(monkeypatch, given, index):
    monkeypatch.setenv("TF_CONFIG", given)
    found = cluster.find()
    assert found == Cluster(("job-chief-0:2222", "job-worker-0:2222", "job-worker-1:2222"), index)
    assert json.loads(found.tf_config()) == {
        "cluster": {"worker": ["job-chief-0:2222", "job-worker-0:2222", "job-worker-1:2222"]},
        "task": {"type": "worker", "index": index},
    }
    monkeypatch.setenv("TF_CONFIG", found.tf_config())
    assert cluster.current() == cluster.find() == found  # a second strategy in one process
    assert found.describe(2) == "worker 2 (job-worker-1:2222)"


@pytest.mark.parametrize(
    "given, message",
    [
        (
            tf_config("evaluator", 0, **KUBEFLOW["cluster"]),
            "an evaluator, .*: start it with --mode=eval --eval_timeout",
        ),
        (tf_config("chief", 0, ps=["a:1"], **KUBEFLOW["cluster"]), "of the kind ps; .* there are no parameter servers"),
        (tf_config("chief", 1, **KUBEFLOW["cluster"]), r"expected the index of a chief in 0\.\.0, got 1"),
        (tf_config("worker", 2, **KUBEFLOW["cluster"]), r"expected the index of a worker in 0\.\.1, got 2"),
        (tf_config("worker", 0, chief=["a:1", "b:1"], worker=["c:1"]), "needs the machines"),
        (tf_config("worker", 0, chief=["a:1"]), r"expected the index of a worker in 0\.\.-1, got 0"),
        ("", "or the variables of Slurm, which srun sets; got TF_CONFIG=''"),
    ],
)
def test_other_clusters_are_refused(monkeypatch, given, message):
    monkeypatch.setenv("TF_CONFIG", given)
    with pytest.raises(ValueError, match=message):
        cluster.find()


def test_slurm_tasks_are_workers_in_the_order_of_their_ranks(monkeypatch):
    set_variables(monkeypatch, SLURM)
    found = cluster.find()
    port = 15000 + 12 * 16  # the last three digits of the job
    assert found.workers == (f"n9:{port}", f"n9:{port + 1}", f"n10:{port}", f"n10:{port + 1}")
    assert (found.index, found.place, found.places) == (3, 1, 2)


@pytest.mark.parametrize("first", [{"TF_CONFIG": json.dumps(KUBEFLOW)}, {}])
def test_flags_and_tf_config_come_before_slurm(monkeypatch, first):
    set_variables(monkeypatch, {**SLURM, **first})
    assert cluster.find(["a:1", "b:2"], 1) == Cluster(("a:1", "b:2"), 1)
    assert (cluster.find().workers[0] == "job-chief-0:2222") == bool(first)


@pytest.mark.parametrize(
    "nodes, counts, hosts",
    [
        ("gpu1", "2", ["gpu1"] * 2),
        ("n[1-2],m5,o[3-4,6,7-9]", "1(x9)", ["n1", "n2", "m5", "o3", "o4", "o6", "o7", "o8", "o9"]),
        ("n[008-010],login", "1(x3),2", ["n008", "n009", "n010", "login", "login"]),
        ("r[1-2]n[1-2]", "1(x4)", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("a-[1-2].b", "1(x2)", ["a-1.b", "a-2.b"]),
    ],
)
def test_slurm_node_lists(monkeypatch, nodes, counts, hosts):
    variables = {"SLURM_JOB_ID": "5", "SLURM_PROCID": "0", "SLURM_STEP_NODELIST": nodes}
    set_variables(monkeypatch, {**variables, "SLURM_STEP_TASKS_PER_NODE": counts})
    assert [worker.partition(":")[0] for worker in cluster.find().workers] == hosts


def test_slurm_tasks_agree_with_tensorflow(monkeypatch):
    """For hosts in alphabetical order: TensorFlow's resolver sorts them."""
    variables = {**SLURM, "SLURM_STEP_NODELIST": "n[08-10],o1", "SLURM_STEP_TASKS_PER_NODE": "2(x3),1"}
    set_variables(monkeypatch, {**variables, "SLURM_STEP_NUM_TASKS": "7"})
    found = cluster.find()
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=cluster.SLURM_PORT + 12 * cluster.SLURM_TASKS, gpus_per_node=2, gpus_per_task=1, auto_set_gpu=False
    )
    assert tuple(resolver.cluster_spec().as_dict()["worker"]) == found.workers
    assert resolver.get_task_info() == ("worker", found.index)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"SLURM_STEP_NODELIST": None}, "SLURM_STEP_NODELIST not set in this Slurm job: start every task with srun"),
        ({"SLURM_STEP_TASKS_PER_NODE": "4"}, "expected as many numbers in SLURM_STEP_TASKS_PER_NODE=4 as hosts in"),
        ({"SLURM_PROCID": "4"}, r"expected SLURM_PROCID in 0\.\.3 for 4 tasks, got 4"),
        ({"SLURM_NODEID": "0"}, "task 3 runs as task 1 of node 0, expected task 1 of node 1; use srun --distribution"),
    ],
)
def test_slurm_variables_that_do_not_fit_are_refused(monkeypatch, changed, message):
    set_variables(monkeypatch, {name: value for name, value in {**SLURM, **changed}.items() if value})
    with pytest.raises(ValueError, match=message):
        cluster.find()


@pytest.mark.parametrize(
    "count, places, on_machine, expected",
    [
        (4, 1, None, [0, 1, 2, 3]),
        (4, 2, 4, [2, 3]),
        (4, 2, None, [2, 3]),
        (1, 2, 2, [0]),  # divided by Slurm
        (0, 2, None, []),  # the CPU
    ],
)
def test_tasks_on_one_machine_share_its_gpus(count, places, on_machine, expected):
    second = Cluster(("a:1", "a:2"), 1, places - 1, places)
    assert cluster.share_of(range(count), second, on_machine) == expected


def test_gpus_that_cannot_be_shared_are_refused():
    with pytest.raises(ValueError, match="2 Slurm tasks on this machine cannot share its 3 GPUs evenly; use one task"):
        cluster.share_of(range(3), Cluster(("a:1", "a:2"), 1, 1, 2), None)


@pytest.fixture
def local_workers():
    """The addresses of two workers on this machine."""
    with socket.create_server(("localhost", 0)) as first, socket.create_server(("localhost", 0)) as second:
        return tuple(f"localhost:{server.getsockname()[1]}" for server in (first, second))


def test_workers_wait_for_each_other_and_name_those_that_are_missing(monkeypatch, local_workers):
    lines, is_waiting = [], threading.Event()
    monkeypatch.setattr(cluster, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(logging, "info", lambda *args: (lines.append(args[0] % args[1:]), is_waiting.set()))
    first = threading.Thread(target=cluster.wait_for_all, args=[Cluster(local_workers, 0)], daemon=True)
    first.start()
    assert is_waiting.wait(20) and first.is_alive()
    assert lines == [f"waiting for worker 1 ({local_workers[1]})"]
    with socket.create_server(("localhost", int(local_workers[1].rpartition(":")[2]))):
        first.join(20)
        assert not first.is_alive()


def test_a_single_worker_does_not_wait(local_workers):
    cluster.wait_for_all(Cluster(local_workers[:1], 0))


def test_a_port_in_use_is_an_error(local_workers):
    port = local_workers[1].rpartition(":")[2]
    message = f"worker 1 .localhost:{port}. cannot use port {port} of this machine: Address already in use; end"
    with socket.create_server(("localhost", int(port))), pytest.raises(ValueError, match=message):
        cluster.wait_for_all(Cluster(local_workers, 1))
