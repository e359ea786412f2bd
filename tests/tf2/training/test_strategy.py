# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/strategy.py: missing devices, and equal training on one device, two devices, two machines."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import processes
import pytest
import tensorflow as tf
from absl import logging

from tf2.training import cluster, strategy
from tf2.training.trainer import Trainer

ROOT = pathlib.Path(__file__).parents[3]
# With this rate, 20 steps lower the loss without amplifying rounding errors: at four times the rate, the order of the
# images within a batch changes the loss of one device by 5e-4. The decay lets the average leave its initial values.
HPARAMS = "learning_rate=0.001,lr_warmup_init=0.0003,moving_average_decay=0.9"
# For gradient accumulation over replicas, which requires frozen batch normalization.
ACCUMULATION = "learning_rate=0.016,lr_warmup_init=0.004,moving_average_decay=0.9,is_training_bn=false"
CLUSTER = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}


@pytest.fixture
def warnings(monkeypatch):
    """Lines of `logging.warning`."""
    lines = []
    monkeypatch.setattr(logging, "warning", lambda message, *args: lines.append(message % args))
    return lines


@pytest.fixture
def no_gpu(monkeypatch):
    """Hides the GPUs of the machine from TensorFlow."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: [])


def test_default_is_one_device():
    one = strategy.create()
    assert one is tf.distribute.get_strategy() and one.num_replicas_in_sync == 1
    assert strategy.is_chief(one) and strategy.num_workers(one) == 1


def test_gpus_requires_a_gpu(no_gpu):
    with pytest.raises(ValueError, match=r"--strategy=gpus needs a GPU, but .* finds none .*; omit --strategy to use"):
        strategy.create("gpus")


def test_a_tpu_takes_no_workers():
    with pytest.raises(ValueError, match="--worker applies to --strategy=multi-gpus; omit it for a TPU"):
        strategy.create("tpu", workers=["a:1"])


@pytest.mark.parametrize("flags", [{"tpu": "local"}, {"tpu_zone": "z"}, {"kind": "gpus", "gcp_project": "p"}])
def test_tpu_flags_require_the_tpu_strategy(flags):
    with pytest.raises(ValueError, match="require --strategy=tpu; add it, or omit them"):
        strategy.create(**flags)


def test_worker_index_requires_workers():
    with pytest.raises(ValueError, match="--worker_index=1 is an index into --worker; pass both"):
        strategy.create("multi-gpus", worker_index=1)


@pytest.mark.parametrize(
    "error, message",
    [
        (tf.errors.ResourceExhaustedError(None, None, "OOM when\nat"), "out of memory: buy more (OOM when)"),
        (tf.errors.ResourceExhaustedError(None, None, "a; No space left on device"), "a: No space left on device"),
        (tf.errors.PermissionDeniedError(None, None, "a; Permission denied"), "a: Permission denied"),
        (tf.errors.UnknownError(None, None, "no port\nat"), "no port"),
    ],
)
def test_device_errors_have_one_line(error, message):
    with pytest.raises(OSError) as caught, strategy.device_errors("buy more"):
        raise error
    assert str(caught.value) == message


@pytest.mark.parametrize("kind", [None, "gpus", "multi-gpus"])
def test_workers_select_the_multi_worker_strategy(kind):
    with pytest.raises(ValueError, match=r"expected worker_index in 0\.\.1 for 2 workers, got 2"):
        strategy.create(kind, workers=["a:1", "b:2"], worker_index=2)


def test_gpus_with_a_cluster_selects_the_multi_worker_strategy(monkeypatch):
    cluster = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 5}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(ValueError, match=r"TF_CONFIG: expected the index of a worker in 0\.\.1, got 5"):
        strategy.create("gpus")


@pytest.mark.parametrize(
    "workers, index, message",
    [
        (["a:1", "b:2"], 2, r"expected worker_index in 0\.\.1 for 2 workers, got 2"),
        (["a:1", "b:2"], -1, r"expected worker_index in 0\.\.1 for 2 workers, got -1"),
        (["a:1", "b"], 0, r"expected workers as host:port, got 'b' in a:1,b"),
    ],
)
def test_invalid_workers(workers, index, message):
    with pytest.raises(ValueError, match=message):
        strategy.create("multi-gpus", workers=workers, worker_index=index)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "{",
        "[]",
        "{}",
        json.dumps({**CLUSTER, "task": {"type": "trainer", "index": 0}}),
        json.dumps({**CLUSTER, "task": {"type": "worker", "index": "0"}}),
        json.dumps({**CLUSTER, "cluster": {}}),
    ],
)
def test_multi_gpus_requires_addresses(monkeypatch, given):
    for name in cluster.SLURM_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TF_CONFIG", given)
    with pytest.raises(ValueError) as error:
        strategy.create("multi-gpus")
    assert "needs the machines: --worker=host:port,host:port and --worker_index, or TF_CONFIG=" in str(error.value)
    assert str(error.value).endswith(f"got TF_CONFIG={given!r}")


@pytest.mark.parametrize("flags", [{}, {"workers": ["a:1", "b:2"], "worker_index": 1}])
def test_flags_are_equivalent_to_tf_config(monkeypatch, no_gpu, warnings, flags):
    made = []
    monkeypatch.setattr(cluster, "wait_for_all", lambda cluster: None)
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda: made.append(os.environ["TF_CONFIG"]))
    # With flags, TF_CONFIG is overwritten.
    monkeypatch.setenv("TF_CONFIG", "nonsense" if flags else json.dumps(CLUSTER))
    strategy.create("multi-gpus", **flags)
    assert [json.loads(config) for config in made] == [CLUSTER]
    assert warnings == ["no GPU on this machine: its worker uses the CPU"]


def test_unreachable_tpu(monkeypatch):
    def resolver(tpu, zone, project):
        assert (tpu, zone, project) == ("pod", "here", "mine")
        raise RuntimeError("no such machine\nand more")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", resolver)
    with pytest.raises(
        ValueError, match="--strategy=tpu cannot reach the TPU pod: no such machine and more; give --tpu=local"
    ):
        strategy.create("tpu", tpu="pod", tpu_zone="here", gcp_project="mine")


def test_precision_depends_on_the_devices(monkeypatch, no_gpu, warnings):
    one = tf.distribute.get_strategy()
    assert strategy.precision(False, one) == "float32" and warnings == []
    assert strategy.precision(True, one) == "float32"
    assert warnings == ["mixed_precision needs a GPU or TPU, and this machine has none: computing in float32"]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: [f"/device:{kind}:0"])
    assert strategy.precision(True, one) == "mixed_float16" and strategy.precision(False, one) == "float32"
    monkeypatch.setattr(tf.distribute, "TPUStrategy", type(one))
    assert strategy.precision(True, one) == "mixed_bfloat16" and len(warnings) == 1


@pytest.mark.parametrize("kind, is_refused", [("CPU", True), ("GPU", False)])
def test_xla_does_not_compile_for_several_cpus(kind, is_refused):
    def of(count):
        devices = tuple(f"/job:localhost/replica:0/task:0/device:{kind}:{i}" for i in range(count))
        return SimpleNamespace(num_replicas_in_sync=count, extended=SimpleNamespace(worker_devices=devices))

    strategy.check_xla(of(1))
    expected = pytest.raises(ValueError, match="cannot compile the sums over 2 replicas on CPUs; omit it, or train on")
    with expected if is_refused else contextlib.nullcontext():
        strategy.check_xla(of(2))


def test_gradient_accumulation_over_replicas_requires_frozen_statistics(tiny_config):
    config, two = tiny_config.override({"gradient_accumulation_steps": 2}), SimpleNamespace(num_replicas_in_sync=2)
    with pytest.raises(ValueError, match="gradient_accumulation_steps=2 over 2 replicas needs is_training_bn=false"):
        Trainer(config, batch_size=8, steps_per_epoch=1, strategy=two)


# Equal training runs, each in a process of its own.


def run(directory, hparams, *modes):
    """Returns the results of simultaneous runs of replicas.py."""
    outputs = [directory / f"{i}.npz" for i in range(len(modes))]
    script = ROOT / "tests" / "replicas.py"
    processes.run(directory, *([script, output, hparams, *mode] for output, mode in zip(outputs, modes)))
    results = []
    for output in outputs:
        with np.load(output) as arrays:
            results.append(dict(arrays))
    return results


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    (one,) = run(tmp_path_factory.mktemp("one"), HPARAMS, ["one"])
    assert one["metrics/loss"][-1] < one["metrics/loss"][0] - 0.1
    return one


def assert_same_training(found, expected):
    """Compares metrics of all 20 steps, and weights, averages and statistics after the last one."""
    assert found.keys() == expected.keys()
    assert expected["metrics/loss"].shape == (20,)
    for name, value in expected.items():
        if "gradient" in name or name.endswith("/Momentum"):  # sums over pixels, of order 100
            tolerance = {"rtol": 1e-3, "atol": 1e-2}
        else:  # including statistics: variances are unbiased, over the samples of all replicas
            tolerance = {"rtol": 1e-4, "atol": 0 if name.startswith("metrics/") else 1e-4}
        np.testing.assert_allclose(found[name], value, **tolerance, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("grad_checkpoint", [False, True])
def test_two_devices_train_like_one(one_device, tmp_path, grad_checkpoint):
    (two,) = run(tmp_path, f"{HPARAMS},grad_checkpoint={grad_checkpoint}", ["two-devices"])
    assert_same_training(two, one_device)


@pytest.mark.slow
def test_two_devices_decay_weights_like_one(tmp_path):
    hparams = "learning_rate=0.01,lr_warmup_init=0.01,moving_average_decay=0.9,optimizer=adamw,weight_decay=20"
    (one,) = run(tmp_path, hparams, ["one"])
    (two,) = run(tmp_path, hparams, ["two-devices"])
    kernels = [name for name in one if name.endswith("kernel")]
    assert len(kernels) > 50 and not np.any(one["metrics/reg_l2_loss"])
    for name in kernels:
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=2e-3, err_msg=name)
        np.testing.assert_allclose(np.linalg.norm(two[name]), np.linalg.norm(one[name]), rtol=1e-3, err_msg=name)


@pytest.mark.slow
@pytest.mark.both_lanes
def test_two_machines_train_like_one_device(one_device, tmp_path):
    workers = processes.free_addresses(2)
    first, second = run(tmp_path, HPARAMS, [workers, 0], [workers, 1])
    assert_same_training(first, one_device)
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


@pytest.mark.slow
def test_gradient_accumulation_over_two_devices(tmp_path):
    (one,) = run(tmp_path, ACCUMULATION, ["one"])
    (two,) = run(tmp_path, f"{ACCUMULATION},gradient_accumulation_steps=2", ["two-devices"])
    assert_same_training(two, one)


@pytest.mark.slow
def test_collectives_of_a_step():
    """Two per normalization, three if it is computed again; one for all gradients and losses; one before the losses."""
    tiny = "image_size=64,fpn_num_filters=8,fpn_cell_repeats=1,box_class_repeats=1,max_level=5,num_classes=3"
    frozen = "is_training_bn=false,gradient_accumulation_steps=2"
    command = [sys.executable, ROOT / "tests" / "collectives.py", "--model_name=efficientdet-lite0"]
    hparams = [f"--hparams={keys}" for keys in (tiny, f"{tiny},grad_checkpoint=true", f"{tiny},{frozen}")]
    done = subprocess.run([*command, *hparams], capture_output=True, text=True, timeout=processes.SECONDS)
    assert done.returncode == 0, done.stderr[-4000:]
    (norms, plain), (_, recomputed), (_, without) = json.loads(done.stdout)
    assert norms > 50 and plain == 2 * norms + 2
    assert plain < recomputed <= 3 * norms + 2
    assert without == 2
