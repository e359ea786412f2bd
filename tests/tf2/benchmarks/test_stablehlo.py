# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""stablehlo: what is changed in TensorFlow's text, types of inputs and outputs, the folder."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tf2.benchmarks import stablehlo
from tf2.benchmarks.stablehlo import Tensor

ROOT = pathlib.Path(__file__).parents[3]
# As TensorFlow 2.21 writes it for a step that adds x to a variable, counts, and returns the sum.
TEXT = """\
#loc1 = loc("XLA_Args")
module @a_inference_step_46__.2 attributes {mhlo.cross_program_prefetches = [], mhlo.input_output_alias = \
[{alias = {kind = "may_alias", parameter_index = array<i64>, parameter_number = 1 : i64}, output_index = array<i64: 1>}\
, {alias = {kind = "may_alias", parameter_index = array<i64>, parameter_number = 2 : i64}, output_index = array<i64: 2>\
}], mhlo.is_dynamic = false, mhlo.use_auto_spmd_partitioning = false} {
  func.func private @region.1(%arg0: tensor<f32> loc("x.1")) -> tensor<f32> {
    return %arg0 : tensor<f32> loc(#loc1)
  } loc(#loc1)
  func.func @main(%arg0: tensor<2x3xbf16> loc("XLA_Args"), %arg1: tensor<i64> loc("XLA_Args"), %arg2: tensor<2x3xf32> \
loc("XLA_Args")) -> (tensor<f32>, tensor<i64>, tensor<2x3xf32>) {
    %17 = mhlo.copy %16 : tensor<i64> loc(#loc9)
    %5 = stablehlo.dot %4, %arg3 {mhlo.frontend_attributes = {grad_x = "false"}} : tensor<2x2xf32>
    return %15, %17, %19 : tensor<f32>, tensor<i64>, tensor<2x3xf32> loc(#loc1)
  } loc(#loc1)
} loc(#loc1)
"""


def test_program_of_compiler_ir():
    program = stablehlo.from_compiler_ir("step", TEXT, ["x", "count", "net/kernel"], ["loss"])
    assert program.inputs == [
        Tensor("x", (2, 3), "bfloat16"),
        Tensor("count", (), "int64"),
        Tensor("net/kernel", (2, 3), "float32"),
    ]
    assert program.outputs == [
        Tensor("loss", (), "float32"),
        Tensor("count", (), "int64"),
        Tensor("net/kernel", (2, 3), "float32"),
    ]
    assert program.updates == {1: 1, 2: 2}
    lines, original = program.text.splitlines(), TEXT.splitlines()
    changed = {i: line for i, line in enumerate(lines) if line != original[i]}
    assert len(lines) == len(original) and list(changed.values()) == [
        "module @a_inference_step_46__.2 {",
        "    %17 = stablehlo.optimization_barrier %16 : tensor<i64> loc(#loc9)",
    ]


def test_program_with_one_result_and_without_updates():
    text = 'module @m {\n  func.func @main(%arg0: tensor<1xi1> loc("x")) -> tensor<1xf16> {\n  }\n}\n'
    program = stablehlo.from_compiler_ir("network", text, ["x"], ["result"])
    assert (program.inputs, program.outputs) == ([Tensor("x", (1,), "bool")], [Tensor("result", (1,), "float16")])
    assert program.updates == {} and program.text == text


@pytest.mark.parametrize(
    "text, inputs, message",
    [
        (TEXT, ["x", "count"], "expected 2 inputs, 1 results and 2 updates .* with 3 inputs and 3 outputs"),
        (TEXT.replace("mhlo.copy", "mhlo.erf"), ["x", "count", "v"], "step contains mhlo.erf, which StableHLO does no"),
        (TEXT.replace("mhlo.copy", '"mhlo.erf"'), ["x", "count", "v"], "step contains mhlo.erf"),
        ("HloModule x", ["x"], "expected StableHLO with a function @main, got 'HloModule x'"),
    ],
)
def test_other_text_is_refused(text, inputs, message):
    with pytest.raises(ValueError, match=message):
        stablehlo.from_compiler_ir("step", text, inputs, ["loss"])


def test_a_folder_returns_what_was_written(tmp_path):
    program = stablehlo.from_compiler_ir("step", TEXT, ["x", "count", "v"], ["loss"])
    arrays = {"in_0": np.ones([2, 3]), "in_1": np.array(4), "in_2": np.zeros([2, 3])}
    arrays |= {"out_0": np.array(6.0), "out_2": np.ones([2, 3])}
    stored = stablehlo.write(tmp_path, program, arrays)
    alone = stablehlo.write(tmp_path, program._replace(name="alone"), {})
    stablehlo.write_manifest(tmp_path, {"batch_size": 2, "programs": {"step": stored, "alone": alone}})
    about = stablehlo.read_manifest(tmp_path)
    assert about["batch_size"] == 2 and list(about["programs"]) == ["step", "alone"]
    assert stablehlo.read(tmp_path, "step", about["programs"]["step"]) == program
    inputs, outputs = stablehlo.read_arrays(tmp_path, program)
    assert [array.tolist() for array in inputs] == [[[1] * 3] * 2, 4, [[0] * 3] * 2]
    assert outputs[1] is None and [outputs[i].tolist() for i in (0, 2)] == [6, [[1] * 3] * 2]
    assert stablehlo.read_arrays(tmp_path, program._replace(name="alone")) is None


@pytest.mark.parametrize("content", [None, "{", "{}", "[]", '{"programs": 1}'])
def test_a_folder_that_is_not_an_export(tmp_path, content):
    if content is not None:
        (tmp_path / "export.json").write_text(content)
    with pytest.raises(ValueError, match=r"export\.json cannot be read \(.*\); expected a folder of the export"):
        stablehlo.read_manifest(tmp_path)


def test_deviations_by_hand():
    names = ["loss", "logits", "norm", "boxes", "a/kernel", "b/kernel", "a/bias", "step", "c/frozen"]
    outputs = [Tensor(name, (), "float32") for name in names]
    program = stablehlo.Program("step", "", outputs[4:], outputs, {i + 4: i for i in range(5)})
    inputs = [np.zeros(2), np.zeros(1), np.ones(1), np.array(4), np.ones(1)]
    expected = [2.0, [0.5, -8.0], np.nan, None, [3.0, 0.0], [4.0], [2.0], 5, [1.0]]
    got = [2.2, [0.3, -8.8], np.nan, [1.0], [3.0, 0.3], [4.4], [2.0], 5, [1.5]]
    found = stablehlo.deviations(program, inputs, expected, got)
    assert found["results"] == {"loss": pytest.approx(0.1), "logits": pytest.approx(0.2), "norm": 0}
    # The kernels change by a norm of 5 and differ by one of 0.5; the last variable must not change.
    assert found["updates"] == {"kernel": pytest.approx(0.1), "bias": 0, "step": 0, "frozen": np.inf}


def test_only_numpy_is_needed():
    """The environment of JAX has no TensorFlow."""
    code = "import sys, tf2.benchmarks.stablehlo; sys.exit('tensorflow' in sys.modules or 'jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
