# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""runtimes: one error message for files that are not a detector; quantization rounds and saturates."""

import os
import pathlib
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import tensorflow as tf

from tf2.inference import runtimes
from tf2.inference.metadata import ArtifactError

ROOT = pathlib.Path(__file__).parents[3]


def assert_refused(path, message):
    with pytest.raises(ArtifactError, match=message) as raised:
        runtimes.load(str(path))
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_missing_files_and_other_suffixes(tmp_path):
    assert_refused(tmp_path / "none.tflite", "there is no file")
    assert_refused(tmp_path, "contains no SavedModel")
    (tmp_path / "a.h5").write_text("")
    assert_refused(tmp_path / "a.h5", r"neither a SavedModel\'s folder nor a \.pb, \.tflite or \.onnx file")


@pytest.mark.parametrize("name", ["a.pb", "a.tflite", "a.onnx", "saved_model.pb"])
@pytest.mark.parametrize("content", [b"", b"hello world, this is a text file\n" * 9], ids=["empty", "text"])
def test_files_of_another_format(tmp_path, name, content):
    if name == "a.onnx":
        pytest.importorskip("onnxruntime")
    (tmp_path / name).write_bytes(content)
    path = tmp_path if name == "saved_model.pb" else tmp_path / name
    assert_refused(path, "cannot be loaded|is damaged|is not the graph of a detector|is not .* of a detector")


def test_a_saved_model_that_is_not_a_detector(tmp_path):
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def double(x):
        return {"y": 2 * x}

    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": double})
    assert_refused(
        tmp_path,
        r"not a SavedModel of a detector: expected a signature with the input image_arrays, got serving_default\(x\)",
    )


def test_a_graph_that_is_not_a_detector(tmp_path):
    with tf.Graph().as_default() as graph:
        tf.constant(1.0, name="one")
    (tmp_path / "a.pb").write_bytes(graph.as_graph_def().SerializeToString())
    assert_refused(tmp_path / "a.pb", "expected the nodes image_arrays and detections, .* got 1 other nodes")


def test_a_tflite_file_that_is_not_a_detector(tmp_path):
    double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([3], tf.float32, name="x")])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([double.get_concrete_function()], tf.Module())
    (tmp_path / "a.tflite").write_bytes(converter.convert())
    assert_refused(tmp_path / "a.tflite", "not the TFLite file of a detector: expected an output detections or .*, got")


def test_quantization_rounds_and_saturates():
    details = {"quantization": (0.5, 10), "dtype": np.uint8}
    values = np.array([-100, -0.3, -0.2, 0, 0.24, 0.26, 0.74, 0.76, 1000], np.float32)
    quantized = runtimes.quantize(values, details)  # by hand: value / 0.5 + 10
    np.testing.assert_array_equal(quantized, np.array([0, 9, 10, 10, 10, 11, 11, 12, 255], np.uint8))
    assert quantized.dtype == np.uint8
    np.testing.assert_array_equal(runtimes.dequantize(np.array([0, 10, 12], np.uint8), details), [-5, 0, 1])


def test_values_that_are_not_quantized_are_unchanged():
    values, details = np.array([1.25], np.float32), {"quantization": (0.0, 0), "dtype": np.float32}
    assert runtimes.quantize(values, details) == values and runtimes.dequantize(values, details) == values
    pixels = np.array([200], np.uint8)
    assert runtimes.quantize(pixels, {"quantization": (0.5, 3), "dtype": np.uint8}) == 200  # already as stored


def test_quiet_tflite_removes_notes_only(capfd):
    """Statistics of the converter and lines of the interpreter, as printed by TensorFlow 2.15 and 2.21."""
    notes = (
        "\nSummary on the non-converted ops:\n---------------------------------\n"
        " * Accepted dialects: tfl, builtin, func\n"
        " * Non-Converted Ops: 98, Total Ops 243, % non-converted = 40.33 %\n * 98 ARITH ops\n\n"
        "- arith.constant:   98 occurrences  (f32: 95, i32: 3)\n\n\n  (f32: 9)\n  (f32: 2, i1: 6, i32: 1)\n"
        "fully_quantize: 0, inference_type: 6, input_inference_type: UINT8, output_inference_type: UINT8\n"
        "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
        "W0000 00:00:1795915360.401558   27983 tf_tfl_flatbuffer_helpers.cc:364] Ignored output_format.\n"
    )
    message = "F0000 00:00:1795915360.401558   27983 graph.cc:1] Check failed: inputs == 2\nERROR: no memory\n"
    with pytest.warns(UserWarning) as caught, runtimes.quiet_tflite():
        os.write(2, (notes + message).encode())
        warnings.warn("    Warning: tf.lite.Interpreter is deprecated and is scheduled for deletion", stacklevel=1)
        warnings.warn("of another thread", stacklevel=1)
    assert capfd.readouterr().err == message
    assert [str(warning.message) for warning in caught] == ["of another thread"]


def test_an_abort_in_the_converter_leaves_its_message():
    code = "import os\nfrom tf2.inference.runtimes import quiet_tflite\nwith quiet_tflite():\n    "
    code += "os.write(2, b'INFO: note\\nCheck failed: inputs == 2\\n')\n    os.abort()"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == -signal.SIGABRT
    assert result.stderr.endswith("Check failed: inputs == 2\n") and "INFO: note" not in result.stderr
