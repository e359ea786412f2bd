# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/native_log.py: removed and printed lines, aborts, and the start of every kind of command."""

import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest
from own_lines import foreign_lines

from dataset import native_log

ROOT = pathlib.Path(__file__).parents[2]
SAMPLE = ROOT / "testdata" / "sample.tfrecord"
# As printed by TensorFlow 2.15 and 2.21 without a GPU, at TF_CPP_MIN_LOG_LEVEL=1 and 3.
NOTES = """\
2026-11-29 00:56:59.540830: I tensorflow/core/util/port.cc:113] oneDNN custom operations are on.
2026-11-29 00:56:59.572949: E external/local_xla/xla/stream_executor/cuda/cuda_dnn.cc:9261] Unable to register cuDNN \
factory: Attempting to register factory for plugin cuDNN when one has already been registered
2026-11-29 00:56:59.581225: I tensorflow/core/platform/cpu_feature_guard.cc:182] This TensorFlow binary is optimized
To enable the following instructions: AVX2 AVX512F, in other operations, rebuild TensorFlow with the appropriate flags.
2026-11-29 00:57:00.409667: W tensorflow/compiler/tf2tensorrt/utils/py_utils.cc:38] TF-TRT Warning: Could not find \
TensorRT
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795914349.241793   13088 port.cc:153] oneDNN custom operations are on.
I0000 00:00:1795914349.242153   13088 cudart_stub.cc:31] Could not find cuda drivers on your machine.
"""
MESSAGES = """\
2026-11-29 00:56:59.541000: W tensorflow/core/common_runtime/gpu/gpu_device.cc:2256] Cannot dlopen some GPU libraries.
E0000 00:00:1795914349.242153   13088 cuda_dnn.cc:1] Loaded runtime CuDNN library: 8.0.0 but source was compiled with 9
F0000 00:00:1795914349.242153   13088 check.cc:1] Check failed: size == 3
I1129 01:10:41.404587 139997348965248 checkpoint.py:265] 384 of 384 variables loaded
WARNING:absl:a warning of Python
error: a message
"""


def test_notes_are_removed_and_messages_are_printed(capfd):
    with native_log.without(native_log.START_NOTES):
        for note, message in zip(NOTES.splitlines(), [*MESSAGES.splitlines()] * 2):
            os.write(2, f"{note}\n{message}\n".encode())
        os.write(2, b"\xff a line of bytes\nI0000 00:00:1 2 x.cc:1] note\nwithout an end")
    lines = capfd.readouterr().err.splitlines()
    assert sorted(set(lines[:-2])) == sorted(MESSAGES.splitlines())
    assert lines[-1] == "without an end" and lines[-2].endswith(" a line of bytes")


def test_lines_of_all_threads_are_printed(capfd):
    def write(number):
        for i in range(50):
            os.write(2, f"thread {number}, line {i}\nnote {i}\n".encode())

    threads = [threading.Thread(target=write, args=[number]) for number in range(3)]
    with native_log.without([r"note \d+$"]):
        print("from Python", file=sys.stderr)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    expected = {"from Python", *(f"thread {number}, line {i}" for number in range(3) for i in range(50))}
    assert set(capfd.readouterr().err.splitlines()) == expected
    os.write(2, b"note 1\n")
    assert capfd.readouterr().err == "note 1\n"  # the filter has ended


def test_exceptions_pass_and_stderr_is_restored(capfd):
    with pytest.raises(ValueError, match="inside"), native_log.without(["note"]):
        raise ValueError("inside")
    os.write(2, b"note\n")
    assert capfd.readouterr().err == "note\n"


def test_without_a_process_everything_is_printed(capfd, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with native_log.without(["note"]):
        os.write(2, b"note\n")
    assert capfd.readouterr().err == "note\n"


def test_an_abort_leaves_its_message():
    code = (
        "import os\nfrom dataset import native_log\n"
        "with native_log.without(['note']):\n"
        "    os.write(2, b'note\\nCheck failed: size == 3\\n')\n"
        "    os.abort()"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == -signal.SIGABRT and result.stderr == "Check failed: size == 3\n"


NO_CHECKPOINT = ["--runmode=infer", "--ckpt_path=/none", "--input_image=testdata/img1.jpg", "--output_json=/none/json"]


@pytest.mark.parametrize(
    "words, code",
    [
        (["-c", "import tf2; tf2.load"], 0),
        (["main.py", "--mode=eval", f"--val_file_pattern={SAMPLE}", "--model_dir=/none"], 1),
        pytest.param(["model_inspect.py", *NO_CHECKPOINT], 1, marks=pytest.mark.slow),
        pytest.param(["dataset/check_tfrecords.py", f"--file_pattern={SAMPLE}"], 0, marks=pytest.mark.slow),
        pytest.param(["tf2/benchmarks/training.py", "--steps=1", "--hparams=image_size=64"], 0, marks=pytest.mark.slow),
    ],
    ids=["tf2.load", "main", "model_inspect", "check_tfrecords", "training"],
)
def test_commands_start_without_notes(words, code):
    environment = {name: value for name, value in os.environ.items() if name != native_log.LEVEL}
    result = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == code, result.stderr
    assert foreign_lines(result.stderr) == []
