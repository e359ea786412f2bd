# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of main.py and model_inspect.py as commands: error messages, output, and one complete run."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
SAMPLE = str(ROOT / "testdata" / "sample.tfrecord")
TINY = "--hparams=image_size=64,num_classes=3,fpn_num_filters=8,fpn_cell_repeats=1,box_class_repeats=1"
TRAIN = ["main.py", "--mode=train", "--model_name=efficientdet-lite0", TINY]
NEW = ["main.py", "--model_dir=m", "--train_file_pattern=x"]
EVAL = ["main.py", "--mode=eval", "--model_name=efficientdet-lite0", TINY]
EXPORT = ["model_inspect.py", "--runmode=saved_model", "--ckpt_path=_"]
INSPECT = ["model_inspect.py", "--model_name=efficientdet-lite0", TINY]
INFER = [*INSPECT, "--runmode=infer"]
SAVED_MODEL = [*INSPECT, "--runmode=saved_model", "--ckpt_path=_", "--saved_model_dir=DIR/x"]
ONE_OFF = "needs a one-off --mode=eval; it cannot be combined with training, --min_eval_interval or --eval_timeout"
INT8 = [*SAVED_MODEL, "--tflite=INT8", "--tflite_path=DIR/x.tflite", "--tflite_content=network"]
ONNX = [*INSPECT, "--runmode=onnx", "--ckpt_path=_", "--onnx_path=DIR/x.onnx"]


def command(script, *flags, tensorflow=None):
    """Runs a script from another folder; `tensorflow` is a folder whose modules replace TensorFlow."""
    path = {"PYTHONPATH": str(tensorflow)} if tensorflow else {}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, flags)],
        capture_output=True,
        text=True,
        cwd=tensorflow or ROOT / "testdata",
        env={**os.environ, **path},
        timeout=900,
    )


@pytest.fixture(scope="module")
def no_tensorflow(tmp_path_factory):
    """A folder with modules tensorflow and tf_keras whose import fails."""
    folder = tmp_path_factory.mktemp("no_tensorflow")
    for name in ("tensorflow", "tf_keras"):
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} was imported')\n")
    return folder


def assert_error(result, message):
    """Asserts that a command failed with a one-line error message and without a traceback."""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 1, result.stderr
    assert len(errors) == 1 and message in errors[0], result.stderr
    assert result.stderr.rstrip().endswith(errors[0])
    assert "Traceback" not in result.stderr and result.stdout == ""


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            [*NEW, "--model_name=efficientdet-d00"],
            "unknown model 'efficientdet-d00'; did you mean 'efficientdet-d0'?",
        ),
        ([*NEW, "--hparams=learning_rat=1"], "unknown config key 'learning_rat'; did you mean 'learning_rate'?"),
        ([*NEW, "--hparams=none.yaml"], "cannot read none.yaml: No such file or directory"),
        ([*NEW, "--hparams=num_classes=0"], "num_classes must be a whole number in [1, inf), got 0"),
        (
            [*NEW, "--hparams=num_classes=3,label_map=voc"],
            "label_map has id 20 ('tvmonitor') but num_classes is 3",
        ),
        ([*TRAIN], "Must specify --model_dir for train."),
        (
            [*TRAIN, "--data=x", "--train_file_pattern=y"],
            "--data and --train_file_pattern are mutually exclusive; omit --train_file_pattern, which follows",
        ),
        ([*EVAL, "--data=x", "--val_json_file=y"], "--data and --val_json_file are mutually exclusive"),
        ([*TRAIN, "--data_cache=x"], "--data_cache needs --data"),
        ([*TRAIN, "--data=x", "--data_split=test"], "--data_split needs --mode=eval; a training is evaluated on the"),
        ([*TRAIN, "--model_dir=m"], "Must specify --train_file_pattern for train."),
        ([*TRAIN, "--model_dir=m", "--train_file_pattern=x", "--eval_after_train"], "Must specify --val_file_pattern"),
        (
            [*TRAIN, "--mode=train_and_eval", "--model_dir=m", "--train_file_pattern=x"],
            "Must specify --val_file_pattern",
        ),
        ([*EVAL], "Must specify --model_dir for eval."),
        ([*EVAL, "--ckpt=c"], "Must specify --val_file_pattern for eval."),
        (
            [*TRAIN, "--model_dir=m", "--train_file_pattern=x", "--ckpt=a", "--backbone_ckpt=b"],
            "--ckpt and --backbone_ckpt are mutually exclusive",
        ),
        ([*EVAL, "--ckpt=c", "--val_file_pattern=x", "--eval_timeout=9"], "omit them or --ckpt"),
        ([*NEW, "--hparams=strategy=cpus"], "strategy must be one of gpus, multi-gpus, tpu or None, got 'cpus'"),
        ([*TRAIN, "--testdev_dir=d"], f"--testdev_dir {ONE_OFF}"),
        (
            [*EVAL, "--val_file_pattern=v", "--saved_model_dir=s", "--use_xla"],
            "--use_xla compiles the network of a checkpoint, not an exported file; omit it",
        ),
        ([*TRAIN, "--debug", "--use_xla"], "--debug runs operations eagerly and --use_xla compiles them; omit one"),
        ([*TRAIN, "--hub_module_url=u"], "--hub_module_url is refused: TensorFlow Hub modules are not supported"),
        (
            [*EVAL, "--val_file_pattern=v", "--model_dir=m", "--report_dir=r", "--eval_timeout=9"],
            f"--report_dir {ONE_OFF}",
        ),
        (
            [*EVAL, "--val_file_pattern=v", "--ckpt=c", "--saved_model_dir=s"],
            "--saved_model_dir and --ckpt are mutually exclusive; pass the one to evaluate",
        ),
        ([*EXPORT, "--model_name=d1"], "unknown model 'd1'; did you mean 'efficientdet-d1'?"),
        ([*EXPORT, "--nms_method=soft"], "nms_configs.method must be one of hard, gaussian, got 'soft'"),
        ([*EXPORT, "--hparams=label_map={91: 'x'}"], "set num_classes to 91 or more"),
        ([*INFER], "--runmode=infer needs --ckpt_path"),
        ([*INFER, "--ckpt_path=_"], "--runmode=infer needs --input_image"),
        (
            [*INFER, "--ckpt_path=_", "--input_image=x.jpg"],
            "--runmode=infer needs --output_image_dir or --output_json or --output_csv or --output_coco",
        ),
        ([*INSPECT, "--runmode=saved_model"], "--runmode=saved_model needs --ckpt_path"),
        ([*INSPECT, "--runmode=onnx", "--ckpt_path=_"], "--runmode=onnx needs --onnx_path"),
        ([*INSPECT, "--runmode=ckpt"], "--runmode=ckpt needs --ckpt_path"),
        ([*INSPECT, "--runmode=saved_model_infer"], "--runmode=saved_model_infer needs --input_image"),
        ([*INSPECT, "--runmode=saved_model_video"], "--runmode=saved_model_video needs --input_video"),
        ([*INSPECT, "--runmode=freeze", "--use_xla"], "--use_xla requires --runmode=bm"),
        ([*INSPECT, "--runmode=freeze", "--export_ckpt=x"], "--export_ckpt requires --runmode=ckpt or dry"),
        ([*EXPORT, "--tflite=INT8"], "--tflite needs --tflite_path"),
        (
            [*EXPORT, "--noparity", "--max_ap_drop=0.1"],
            "--max_ap_drop needs the parity check; leave it or --noparity out",
        ),
        (
            [*EXPORT, "--noproof", "--proof_images=x.jpg"],  # former names
            "--parity_images needs the parity check; leave it or --noparity out",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_flags_are_reported_before_tensorflow_is_imported(no_tensorflow, flags, message):
    assert_error(command(*flags, tensorflow=no_tensorflow), message)


def test_published_flags_without_effect_are_accepted_and_logged(no_tensorflow):
    flags = ["--iterations_per_loop=100", "--num_cores=8", "--use_spatial_partition", "--norun_epoch_in_child_process"]
    flags += ["--num_cores_per_replica=2", "--input_partition_dims=1", "--input_partition_dims=2", "--eval_name=val"]
    result = command("main.py", *flags, "--mode=eval", "--ckpt=c", tensorflow=no_tensorflow)
    assert_error(result, "Must specify --val_file_pattern for eval.")
    for name in (
        "iterations_per_loop",
        "num_cores",
        "use_spatial_partition",
        "run_epoch_in_child_process",
        "num_cores_per_replica",
        "input_partition_dims",
        "eval_name",
    ):
        assert f"--{name} has no effect: " in result.stderr


@pytest.mark.parametrize("script", ["main.py", "model_inspect.py", "dataset/check_tfrecords.py"])
def test_help_and_version_do_not_import_tensorflow(no_tensorflow, script):
    for word, beginning in (("--help", "[A-Z].*\n\n    python "), ("--version", "efficientdet-tf2 ")):
        result = command(script, word, tensorflow=no_tensorflow)
        assert (result.returncode, result.stderr) == (0, "") and re.match(beginning, result.stdout)


def test_positional_arguments_are_rejected(no_tensorflow):
    for script in ("main.py", "model_inspect.py"):
        result = command(script, "train", tensorflow=no_tensorflow)
        assert result.returncode == 1 and "every option starts with --" in result.stdout + result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags, message",
    [
        ([*TRAIN, "--model_dir=DIR", "--train_file_pattern=none-*"], "no file matches 'none-*'; give a pattern"),
        ([*EVAL, "--ckpt=none", "--val_file_pattern=sample.tfrecord"], "no checkpoint at none; give a directory"),
        ([*EVAL, "--model_dir=DIR", "--val_file_pattern=sample.tfrecord"], "no checkpoint in "),
        ([*EVAL, "--ckpt=x", "--val_file_pattern=sample.tfrecord", "--val_json_file=none.json"], "none.json"),
        (
            [*TRAIN, "--model_dir=DIR", "--train_file_pattern=sample.tfrecord", "--num_examples_per_epoch=8"],
            "an epoch of 8 images has no complete batch of 64",
        ),
        ([*INFER, "--ckpt_path=_", "--input_image=*.webp", "--output_image_dir=DIR"], "no image at '*.webp'"),
        ([*INFER, "--ckpt_path=none", "--input_image=img1.jpg", "--output_image_dir=DIR"], "no checkpoint at none"),
        ([*INSPECT, "--runmode=saved_model", "--ckpt_path=_", "--saved_model_dir=."], ". exists already; remove it"),
        (
            [
                *INSPECT,
                "--runmode=saved_model_infer",
                "--input_image=img1.jpg",
                "--output_json=DIR/x.json",
                "--saved_model_dir=none.tflite",
            ],
            "there is no file none.tflite",
        ),
        (
            [*ONNX, "--nms_method=gaussian"],
            "ONNX has no gaussian NMS",
        ),
        ([*ONNX, "--onnx=INT8"], "give --file_pattern of TFRecords"),
        (
            [*INT8],
            "give --file_pattern of TFRecords",
        ),
        ([*INT8, "--file_pattern=none-*"], "no file matches 'none-*'"),
        ([*SAVED_MODEL, "--val_file_pattern=none-*"], "no file matches 'none-*'"),
        ([*SAVED_MODEL, "--val_file_pattern=sample.tfrecord", "--val_json_file=none.json"], "none.json"),
        (
            [*TRAIN, "--model_dir=DIR", "--train_file_pattern=sample.tfrecord", "--tpu=local"],
            "require --strategy=tpu; add it, or omit",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_files_are_reported(tmp_path, flags, message):
    assert_error(command(*(flag.replace("DIR", str(tmp_path)) for flag in flags)), message)


@pytest.mark.slow
def test_mismatched_data_are_rejected_before_the_first_step(tmp_path):
    two = TINY.replace("num_classes=3", "num_classes=2")
    flags = [f"--train_file_pattern={SAMPLE}", "--num_examples_per_epoch=8", "--train_batch_size=8", "--num_epochs=1"]
    result = command("main.py", "--model_name=efficientdet-lite0", two, f"--model_dir={tmp_path}", *flags)
    assert_error(
        result,
        "class ids must be in 1..num_classes = 2, but 12 of 29 boxes have others (3 on 12); set num_classes to 3",
    )


@pytest.mark.slow
@pytest.mark.both_lanes
def test_complete_run(tmp_path):
    model_dir, names = tmp_path / "model", "label_map={1: 'circle', 2: 'triangle', 3: 'star'}"
    common = ["--model_name=efficientdet-lite0", f"{TINY},{names}"]
    val = [f"--val_file_pattern={SAMPLE}", f"--val_json_file={ROOT / 'testdata' / 'sample.json'}"]
    train = ["--mode=train_and_eval", f"--model_dir={model_dir}", f"--train_file_pattern={SAMPLE}", *val]
    train += ["--train_batch_size=4", "--num_examples_per_epoch=8", "--num_epochs=2", "--tf_random_seed=0"]
    result = command("main.py", *common, *train)
    assert result.returncode == 0, result.stderr
    metrics = json.loads(result.stdout.splitlines()[-1])
    assert (model_dir / "report" / "report_files" / "training.png").exists()
    assert "report/index.html, of " in result.stdout.splitlines()[-2]
    assert {"AP", "AP50", "ARmax100", "AP_/circle", "AP_/star"} <= metrics.keys()
    assert all(-1 <= value <= 1 for value in metrics.values())
    assert {"model.ckpt-2.index", "model.ckpt-4.index", "config.yaml"} <= {path.name for path in model_dir.iterdir()}

    again = command("main.py", *common, *train)
    assert again.returncode == 0 and "already has all 4 steps: nothing left to train" in again.stderr

    evaluated = command("main.py", *common, "--mode=eval", f"--model_dir={model_dir}", "--eval_batch_size=3", *val)
    assert evaluated.returncode == 0, evaluated.stderr
    averaged = json.loads(evaluated.stdout.splitlines()[-1])
    assert averaged["AP"] == pytest.approx(metrics["AP_averaged"], abs=1e-6)
    assert averaged.keys() == metrics.keys() - {"AP_averaged", "AP_raw"}
    assert metrics["AP"] == max(metrics["AP_averaged"], metrics["AP_raw"])

    inspect = ["model_inspect.py", *common, f"--ckpt_path={model_dir}", "--min_score_thresh=0.001"]
    exported = command(*inspect, "--runmode=saved_model", f"--saved_model_dir={tmp_path / 'saved'}")
    assert exported.returncode == 0, exported.stderr
    assert f"writing file to {tmp_path / 'saved' / 'saved_model.pb'}" in exported.stdout.splitlines()

    evaluate = ["main.py", "--mode=eval", f"--output_metrics={tmp_path / 'metrics.json'}", *val]
    served = command(*evaluate, f"--saved_model_dir={tmp_path / 'saved'}", f"--report_dir={tmp_path / 'report'}")
    assert served.returncode == 0, served.stderr
    assert (tmp_path / "report" / "index.html").exists()
    hard = f"{TINY},{names},nms_configs.method=hard,nms_configs.score_thresh=0.001"
    options = ["--model_name=efficientdet-lite0", hard, f"--model_dir={model_dir}", "--as_served", "--voc"]
    as_served = command(*evaluate, *options, f"--output_detections={tmp_path / 'found.json'}")
    assert as_served.returncode == 0, as_served.stderr
    ours, theirs = (json.loads(run.stdout.splitlines()[-1]) for run in (as_served, served))
    assert ours["AP"] == pytest.approx(theirs["AP"], abs=0.002) and "VOC_AP_/star" in ours
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"] == ours
    assert json.loads((tmp_path / "found.json").read_text())
    testdev = command(*evaluate, f"--saved_model_dir={tmp_path / 'saved'}", f"--testdev_dir={tmp_path / 'testdev'}")
    assert testdev.returncode == 0 and "Average Precision" not in testdev.stdout, testdev.stderr
    assert json.loads(next((tmp_path / "testdev").iterdir()).read_text())

    out = tmp_path / "drawn"
    image = f"--input_image={ROOT / 'testdata' / 'img1.jpg'}"
    drawn = command(*inspect, "--runmode=infer", image, f"--output_image_dir={out}")
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout == f"writing file to {out / '0.jpg'}\n"
    before, after = Image.open(ROOT / "testdata" / "img1.jpg"), Image.open(out / "0.jpg")
    assert before.size == after.size
    assert np.abs(np.asarray(before).astype(int) - np.asarray(after)).max() > 60

    printed = [shlex.split(line) for line in result.stderr.splitlines() if line.startswith("  python ")]
    detect, export, longer = (command(*words) for _, *words in printed)
    assert detect.returncode == 0 and (model_dir / "detections" / "0.jpg").exists(), detect.stderr
    assert export.returncode == 0 and (model_dir / "saved_model" / "saved_model.pb").exists(), export.stderr
    assert longer.returncode == 0 and (model_dir / "model.ckpt-8.index").exists(), longer.stderr
