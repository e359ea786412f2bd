# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""model_inspect.py on the command line: files and output of every run mode."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from own_lines import foreign_lines

from efficientdet import config as config_lib
from tf2.export import checkpoints

ROOT = pathlib.Path(__file__).parents[1]
IMAGE = ROOT / "testdata" / "img1.jpg"
RECORD = ROOT / "testdata" / "sample.tfrecord"
TINY = ["--model_name=efficientdet-lite0", "--min_score_thresh=0.0099"]
TINY += ["--hparams=image_size=64,num_classes=3,fpn_num_filters=8,fpn_cell_repeats=1,box_class_repeats=1"]

pytestmark = pytest.mark.slow


def inspect(runmode, *flags, code=0):
    """Runs a mode; returns stdout if it succeeds as expected, and stderr if it fails as expected."""
    result = subprocess.run(
        [sys.executable, str(ROOT / "model_inspect.py"), f"--runmode={runmode}", *map(str, flags)],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == code, result.stderr
    assert foreign_lines(result.stderr) == []
    return result.stdout if code == 0 else result.stderr


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def checkpoint(spread_driver, tmp_path_factory):
    """A checkpoint whose detections differ in score; with initial weights rounding would decide which are kept."""
    prefix = str(tmp_path_factory.mktemp("checkpoint") / "model")
    config = config_lib.load("efficientdet-lite0", TINY[-1].removeprefix("--hparams="))
    checkpoints.export(spread_driver(config).model.net, prefix, format="name")
    return prefix


@pytest.fixture(scope="module")
def saved_model(checkpoint, tmp_path_factory):
    """A SavedModel with a frozen graph in its folder, and a TFLite file beside it."""
    folder = tmp_path_factory.mktemp("exported")
    options = [*TINY, f"--ckpt_path={checkpoint}", f"--saved_model_dir={folder / 'saved_model'}"]
    options += [f"--tflite_path={folder / 'model.tflite'}", f"--parity_images={IMAGE}"]
    printed = inspect("saved_model", *options)
    written = files(folder)
    graph = "saved_model/efficientdet-lite0_frozen.pb"
    reports = {f"{name}.parity.json" for name in ("saved_model", graph, "model.tflite")}
    assert {"saved_model/saved_model.pb", graph, "model.tflite"} | reports < written
    assert printed.count("verdict: passed") == 3
    assert json.loads((folder / "saved_model.parity.json").read_text())["verdict"] == "passed"
    return folder / "saved_model"


def detections(*flags, runmode="saved_model_infer", folder):
    """Runs a mode on the image; returns its JSON output."""
    output = folder / f"{len(files(folder))}.json"
    inspect(runmode, *flags, f"--input_image={IMAGE}", f"--output_json={output}")
    return json.loads(output.read_text())


def test_dry(tmp_path):
    folder, name = tmp_path / "logdir", "efficientdet-lite0"
    printed = inspect("dry", *TINY, f"--logdir={folder}")
    written = files(folder)
    expected = {f"{name}.data-00000-of-00001", f"{name}.index", "checkpoint"}
    assert expected < written and [file for file in written - expected if file.startswith("events.out.tfevents")]
    assert len(written) == len(expected) + 1 and "trainable parameters" in printed
    assert "exists already" in inspect("dry", *TINY, f"--logdir={folder}", code=1)
    inspect("ckpt", *TINY, f"--ckpt_path={folder}")


def test_ckpt_converts_to_every_format(checkpoint, tmp_path):
    for format, name in (("name", "a"), ("object", "b"), ("hdf5", "c.h5")):
        target = tmp_path / name
        options = [*TINY, f"--ckpt_path={checkpoint}", f"--export_ckpt={target}", f"--export_ckpt_format={format}"]
        assert f"export model to {target}\n" in inspect("ckpt", *options)
        inspect("ckpt", *TINY, f"--ckpt_path={target}")
    wrong = [flag.replace("num_classes=3", "num_classes=7") for flag in TINY]
    message = inspect("ckpt", *wrong, f"--ckpt_path={checkpoint}", code=1)
    assert "num_classes 7" in message and "num_classes=3" in message


def test_freeze(checkpoint, tmp_path):
    inspect("freeze", *TINY, f"--ckpt_path={checkpoint}", f"--logdir={tmp_path}")
    assert {"efficientdet-lite0_frozen.pb", "savedmodel/saved_model.pb"} < files(tmp_path)


@pytest.mark.both_lanes
def test_exported_files_return_the_detections_of_their_checkpoint(checkpoint, saved_model, tmp_path):
    expected = detections(*TINY, f"--ckpt_path={checkpoint}", runmode="infer", folder=tmp_path)
    paths = [saved_model, saved_model / "efficientdet-lite0_frozen.pb", saved_model.parent / "model.tflite"]
    for path in paths:
        found = detections(f"--saved_model_dir={path}", "--min_score_thresh=0.0099", folder=tmp_path)
        [ours], [theirs] = found["images"], expected["images"]
        ours, theirs = (
            np.array([[*row["box"], 100 * row["score"]] for row in rows["detections"]]) for rows in (ours, theirs)
        )
        assert len(theirs) > 10 and abs(len(ours) - len(theirs)) <= 2
        # Except for a few, which rounding may change in NMS.
        nearest = np.abs(ours[:, np.newaxis] - theirs).max(axis=-1).min(axis=-1)
        assert np.mean(nearest < 0.1) >= 0.9


def test_benchmarks_print_the_published_lines(saved_model, tmp_path):
    for runmode, path in (("bm", saved_model), ("saved_model_benchmark", saved_model.parent / "model.tflite")):
        report = tmp_path / f"{runmode}.json"
        flags = [f"--saved_model_dir={path}", "--bm_runs=2", "--threads=1", f"--benchmark_json={report}"]
        lines = inspect(runmode, *flags).splitlines()
        assert lines[0] == "num_threads for benchmarking: 1" and "Start benchmark runs total=2" in lines
        assert any(line.startswith("Per batch inference time:  ") for line in lines)
        assert any(line.startswith("FPS:  ") for line in lines)
        assert json.loads(report.read_text())["runs"] == 2


def test_tensorrt_fails_last_with_a_hint(checkpoint, tmp_path):
    target = tmp_path / "saved_model"
    flags = [*TINY, f"--ckpt_path={checkpoint}", f"--saved_model_dir={target}", "--tensorrt=FP16", "--noparity"]
    message = inspect("saved_model", *flags, code=1)
    assert "error: --tensorrt " in message and "--runmode=onnx" in message
    assert (target / "saved_model.pb").exists() and (target / "efficientdet-lite0_frozen.pb").exists()


def test_int8_is_compared_with_its_checkpoint(checkpoint, tmp_path):
    flags = [*TINY, f"--ckpt_path={checkpoint}", f"--saved_model_dir={tmp_path / 'saved'}", "--tflite=INT8"]
    flags += [f"--tflite_path={tmp_path / 'model.tflite'}", "--tflite_content=network", f"--file_pattern={RECORD}"]
    flags += ["--num_calibration_steps=4", f"--val_file_pattern={RECORD}", "--max_ap_drop=1"]
    printed = inspect("saved_model", *flags)
    report = json.loads((tmp_path / "model.tflite.parity.json").read_text())
    assert report["findings"]["AP drop"]["passed"] and report["ap"]["images"] == 8
    assert os.path.getsize(tmp_path / "model.tflite") < 6e6 and "AP drop" in printed


def test_onnx(checkpoint, tmp_path):
    pytest.importorskip("tf2onnx")
    target = tmp_path / "model.onnx"
    printed = inspect("onnx", *TINY, f"--ckpt_path={checkpoint}", f"--onnx_path={target}")
    assert f"writing file to {target}\n" in printed and "verdict: passed" in printed


def test_onnx_int8_is_compared_with_its_checkpoint(checkpoint, tmp_path):
    pytest.importorskip("tf2onnx")
    flags = [*TINY, f"--ckpt_path={checkpoint}", f"--onnx_path={tmp_path / 'model.onnx'}", "--onnx=INT8"]
    flags += [f"--file_pattern={RECORD}", "--num_calibration_steps=4"]
    flags += [f"--val_file_pattern={RECORD}", "--max_ap_drop=1"]
    printed = inspect("onnx", *flags)
    report = json.loads((tmp_path / "model.onnx.parity.json").read_text())
    assert report["findings"]["AP drop"]["passed"] and report["ap"]["images"] == 8
    assert report["latency"]["artifact"]["median_ms"] > 0 and "(detector, INT8)" in printed


def test_video(saved_model, tmp_path):
    cv2 = pytest.importorskip("cv2")
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (96, 64))
    for i in range(3):
        writer.write(np.full((64, 96, 3), 80 * i, np.uint8))
    writer.release()
    flags = [f"--saved_model_dir={saved_model}", f"--input_video={source}", f"--output_video={target}"]
    assert f"writing file to {target}: 3 frames" in inspect("saved_model_video", *flags)
    capture = cv2.VideoCapture(str(target))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and capture.get(cv2.CAP_PROP_FPS) == 10
