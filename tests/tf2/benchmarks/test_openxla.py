# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""openxla: errors of the command line, the exported programs, and with JAX the way from export to run and compile."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from dataset import command_line
from tf2.benchmarks import openxla, openxla_export, stablehlo

ROOT = pathlib.Path(__file__).parents[3]
SCRIPT = str(ROOT / "tf2" / "benchmarks" / "openxla.py")
TINY = "image_size=64,fpn_num_filters=8,fpn_cell_repeats=1,box_class_repeats=1,num_classes=3"
HAS_STABLEHLO = tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 20)
needs_stablehlo = pytest.mark.skipif(not HAS_STABLEHLO, reason="TensorFlow 2.15 does not write StableHLO")


@pytest.fixture
def call(monkeypatch):
    """A function that runs the script's main with a command line."""
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    monkeypatch.setattr(openxla, "FLAGS", values)
    monkeypatch.setattr(command_line, "GROUPS", [])
    for kind in ("list", "string", "integer", "enum", "bool", "float"):
        define = getattr(flags, f"DEFINE_{kind}")
        monkeypatch.setattr(
            flags, f"DEFINE_{kind}", lambda *args, d=define, **options: d(*args, flag_values=values, **options)
        )
    openxla.define_flags()
    return lambda *words: openxla.main(*command_line.parse(["openxla.py", *words], ("a", "b"))[1:])


@pytest.mark.parametrize(
    "words, message",
    [
        (["exprot", "x"], "expected one of export, run, compile, got 'exprot'"),
        (
            ["run", "x", "--programs=network,train"],
            "--programs takes network, training_step, evaluation_step, got 'train'",
        ),
        (["run", "x", "--batch_size=4"], "--batch_size has no effect with run; leave it out"),
        (["export", "x", "--topology=v4:2x2x1"], "--topology has no effect with export; leave it out"),
        (["export", "x", "--hparams=image_sise=64"], "unknown config key 'image_sise'"),
    ],
)
def test_errors_of_the_command_line(call, words, message):
    with pytest.raises(ValueError, match=message):
        call(*words)


@pytest.mark.parametrize("command", ["run", "compile"])
def test_without_jax(call, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.delitem(sys.modules, "tf2.benchmarks.openxla_jax", raising=False)
    with pytest.raises(ValueError, match=r"need JAX \(.*\), .*: python -m pip install -r requirements-openxla\.txt$"):
        call(command, "/tmp/d0")


def test_without_tensorflow(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2.benchmarks.openxla_export", None)
    monkeypatch.delattr("tf2.benchmarks.openxla_export", raising=False)
    with pytest.raises(ValueError, match=r"export needs TensorFlow \(.*\): python -m pip install -r requirements\.txt"):
        call("export", "/tmp/d0")


def test_an_existing_folder_is_not_overwritten(tmp_path, tiny_config):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists already; remove it, or choose another name"):
        next(openxla_export.export(tiny_config, str(tmp_path), openxla_export.Options(["network"])))


@pytest.mark.skipif(HAS_STABLEHLO, reason="this TensorFlow writes StableHLO")
def test_tensorflow_2_15_is_refused(tmp_path, tiny_config):
    with pytest.raises(ValueError, match=r"TensorFlow 2\.15\.\d does not write StableHLO; export with Python 3\.12"):
        next(openxla_export.export(tiny_config, str(tmp_path / "x"), openxla_export.Options(["network"])))


@needs_stablehlo
def test_inputs_and_outputs_of_a_small_step():
    count, weight = tf.Variable(2, dtype=tf.int64), tf.Variable([1.0, 2.0])
    scale = tf.constant([3.0, 4.0])

    def step(x, labels):
        count.assign_add(1)
        # As the optimizers: through the handle, so that TensorFlow does not list the variable.
        tf.raw_ops.ResourceApplyGradientDescent(var=weight.handle, alpha=0.5, delta=x)
        return {"sum": tf.reduce_sum(x * scale), "product": tf.cast(count, tf.float32) * labels["b"][0]}

    arguments = tf.constant([1.0, 1.0]), {"b": [tf.constant(10.0)]}
    program, captured = openxla_export.to_program("step", step, arguments, {"count": count, "weight": weight})
    names = [each.name for each in program.inputs]
    [constant] = {*names[2:]} - {"count", "weight"}
    assert names[:2] == ["0", "1/b/0"] and re.fullmatch("captured_[012]", constant)
    arrays = openxla_export.run(program, step, arguments, captured)
    before = {name: arrays[f"in_{i}"].tolist() for i, name in enumerate(names)}
    after = {each.name: arrays[f"out_{i}"].tolist() for i, each in enumerate(program.outputs)}
    assert before == {"0": [1, 1], "1/b/0": 10, "count": 2, "weight": [1, 2], constant: [3, 4]}
    assert after == {"product": 30, "sum": 7, "count": 3, "weight": [0.5, 1.5]}


@pytest.mark.slow
@pytest.mark.both_lanes
@needs_stablehlo
def test_exported_programs(tmp_path, tiny_config):
    folder = tmp_path / "tiny"
    options = openxla_export.Options(openxla.PROGRAMS, batch_size=2, precision="bfloat16")
    lines = list(openxla_export.export(tiny_config, str(folder), options))
    assert re.fullmatch(r"network: 404 inputs, 10 outputs, 0\.\d MB of StableHLO", lines[0]) and len(lines) == 3
    files = {f"{name}.{suffix}" for name in openxla.PROGRAMS for suffix in ("mlir", "npz")}
    assert {path.name for path in folder.iterdir()} == {"export.json", *files}
    about = stablehlo.read_manifest(folder)
    assert (about["model_name"], about["batch_size"], about["precision"]) == ("efficientdet-lite0", 2, "bfloat16")
    found = {}
    for name, stored in about["programs"].items():
        program = stablehlo.read(folder, name, stored)
        assert "mhlo.copy" not in program.text and program.text.count("bf16") > 100
        inputs, outputs = stablehlo.read_arrays(folder, program)
        for tensor, array in zip([*program.inputs, *program.outputs], inputs + outputs, strict=True):
            if array is None:
                assert name == "evaluation_step" and tensor.name in openxla_export.NOT_COMPARED
            else:
                assert (array.shape, array.dtype) == (tensor.shape, tensor.dtype), tensor
        if name == "training_step":  # all of its variables are updated
            assert sorted(program.updates.values()) == list(range(12, len(program.inputs)))
        else:
            assert not program.updates
        found |= {each.name: array for each, array in zip(program.outputs, outputs)}
    assert found["global_step"] == 1 and 0 < found["cls_loss"] < 10 and np.isfinite(found["gradient_norm"])
    assert found["valid_len"].tolist() == [100, 100] and np.all(np.diff(found["scores"]) <= 0)
    assert 0 < found["scores"].min() < found["scores"].max() < 1


@pytest.fixture(scope="module")
def jax_python(tmp_path_factory):
    """A Python with requirements-openxla.txt, or $OPENXLA_PYTHON."""
    if python := os.environ.get("OPENXLA_PYTHON"):
        return python
    folder = tmp_path_factory.mktemp("openxla")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", ROOT / "requirements-openxla.txt"], check=True)
    return python


def call_script(python, *words):
    """Runs the script on the CPU, with XLA's fastest compilation."""
    environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return subprocess.run([python, SCRIPT, *words], capture_output=True, text=True, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of an export in float32, by the script."""
    folder = tmp_path_factory.mktemp("export") / "tiny"
    result = call_script(sys.executable, "export", folder, f"--hparams={TINY}", "--batch_size=2")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.slow
@pytest.mark.long
@needs_stablehlo
def test_jax_computes_what_tensorflow_computed(exported, jax_python):
    result = call_script(jax_python, "run", exported, "--runs=2")
    assert result.returncode == 0, result.stderr
    title, *lines = result.stdout.splitlines()
    assert title.startswith("efficientdet-lite0, 64x64 pixels, batch size 2, float32, exported by TensorFlow 2.2")
    assert [line.partition(":")[0] for line in lines if re.match(r"\w+: [\d.]+ ms, [\d.]+ images/s", line)] == [
        *openxla.PROGRAMS
    ]
    deviations = re.findall(r"^  (results|updates) deviate from TensorFlow by ([\d.e-]+)", result.stdout, re.MULTILINE)
    assert [what for what, _ in deviations] == ["results", "results", "updates", "results"]
    assert max(float(value) for _, value in deviations) < 0.01
    assert lines.count("  not compared: boxes, classes") == 1


@pytest.mark.slow
@pytest.mark.long
@needs_stablehlo
def test_another_output_is_an_error(exported, jax_python, tmp_path):
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    with np.load(tmp_path / "network.npz") as arrays:
        np.savez(tmp_path / "network.npz", **{**arrays, "out_0": arrays["out_0"] + 0.1})
    result = call_script(jax_python, "run", tmp_path, "--runs=1", "--programs=network")
    assert result.returncode == 1
    assert "error: results of network deviate by more than 0.01 from TensorFlow" in result.stderr


@pytest.mark.slow
@pytest.mark.long
@needs_stablehlo
def test_programs_compile_for_a_tpu_that_is_not_there(exported, jax_python):
    result = call_script(jax_python, "compile", exported, "--topology=v5e:2x2", "--programs=network")
    assert result.returncode == 0, result.stderr
    title, compiled, memory, cost = result.stdout.splitlines()
    assert title.endswith("compiled for one TPU v5 lite of v5e:2x2") and compiled.startswith("network: compiled in ")
    total, parts = re.fullmatch(r"  HBM per device: ([\d.]+) GB \((.*)\)", memory).groups()
    assert float(total) == pytest.approx(sum(map(float, re.findall(r"[\d.]+", parts))), abs=0.003)
    assert float(re.search(r"([\d.]+) GFLOP", cost)[1]) > 0

    result = call_script(jax_python, "compile", exported, "--programs=network", "--memory_only")
    assert result.returncode == 0, result.stderr
    [required] = re.findall(r"^network: ([\d.]+) GB of HBM per device, without code$", result.stdout, re.MULTILINE)
    code = re.search(r"code ([\d.]+)", parts)[1]
    assert float(required) == pytest.approx(float(total) - float(code), abs=0.003)

    result = call_script(jax_python, "compile", exported, "--topology=v99:1")
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: no TPU topology 'v99:1' (")
