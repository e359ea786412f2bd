# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/progress.py: progress lines, event files and CSV, with a simulated clock."""

import glob
import io
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from test_model_dir import file_size_limit

from tf2.training import progress as progress_lib
from tf2.training.progress import CsvFile, EvaluationLog, Progress
from tf2.training.run_lock import LockLost

ROOT = pathlib.Path(__file__).parents[3]
METRICS = {"loss": 1.5, "cls_loss": 1.25, "box_loss": 0.005, "learning_rate": 0.08, "gradient_norm": 3.0}


class Clock:
    """Replacement of time.monotonic."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_lib.time, "monotonic", clock)
    return clock


@pytest.fixture
def logged(monkeypatch):
    """Lines of `logging.info` and `logging.warning`."""
    lines = []
    for level in ("info", "warning"):
        monkeypatch.setattr(logging, level, lambda message, *args: lines.append(message % args))
    return lines


@pytest.fixture(params=["local", "ram"])
def directory(request, tmp_path):
    path = str(tmp_path) if request.param == "local" else f"ram://{tmp_path}"
    tf.io.gfile.makedirs(path)
    return path


def progress(model_dir, **changes):
    options = {"batch_size": 4, "step": 0, "last_step": 400, "steps_per_epoch": 100, **changes}
    return Progress(str(model_dir), **options)


def tensors(**changes):
    return {name: tf.constant(value) for name, value in {**METRICS, **changes}.items()}


def take(reporter, clock, steps, *, seconds=1.0, **changes):
    """Reports steps of the given duration; returns the results of `report`."""
    results = []
    for step in steps:
        with reporter.waiting():
            pass
        clock.now += seconds
        results.append(reporter.report(step, tensors(**changes)))
    return results


def read(path):
    with tf.io.gfile.GFile(str(path)) as file:
        return file.read()


def write(path, text):
    with tf.io.gfile.GFile(str(path), "w") as file:
        file.write(text)


def events(model_dir):
    """Returns {(tag, step): value} of all event files of a directory; images are encoded."""
    return {
        (value.tag, event.step): tf.make_ndarray(value.tensor)
        for path in glob.glob(os.path.join(model_dir, "events.out.tfevents.*"))
        for event in tf.compat.v1.train.summary_iterator(path)
        for value in event.summary.value
    }


def test_metrics_are_read_at_the_first_every_tenth_and_the_last_step(clock, tmp_path, logged):
    with progress(tmp_path, step=7, last_step=33) as reporter:
        results = dict(zip(range(8, 34), take(reporter, clock, range(8, 34))))
    assert [step for step, result in results.items() if result is not None] == [8, 10, 20, 30, 33]
    assert results[20] == pytest.approx(METRICS)


def test_metrics_of_calls_with_several_steps_are_read_after_ten(clock, tmp_path, logged):
    with progress(tmp_path, last_step=100) as reporter:
        results = take(reporter, clock, [4, 8, 12, 16, 20, 60, 64])
    assert [result is not None for result in results] == [True, False, True, False, True, True, False]
    assert "the first 4 steps took 1.0 s" in logged[1]


def test_log_lines(clock, tmp_path, logged):
    with progress(tmp_path) as reporter:
        with reporter.waiting():
            clock.now += 2
        clock.now += 20
        reporter.report(1, tensors())
        take(reporter, clock, range(2, 11), seconds=4.0)
        with reporter.waiting():
            clock.now += 10
        take(reporter, clock, range(11, 21), seconds=3.0)
    assert logged == [
        "compiling the first step",
        "the first step took 20.0 s, most of it compiling, after 2.0 s of waiting for input",
        "step 1/400, epoch 0.0/4, loss 1.500 (cls 1.250, box 0.0050), rate 0.08",
        # 9 steps in 36 s, 390 more at 4 s
        "step 10/400, epoch 0.1/4, loss 1.500 (cls 1.250, box 0.0050), rate 0.08, 1.0 images/s, 26:00 left, "
        "waiting for input 0 %",
        # 10 steps in 40 s, 10 s of them waiting for input
        "step 20/400, epoch 0.2/4, loss 1.500 (cls 1.250, box 0.0050), rate 0.08, 1.0 images/s, 25:20 left, "
        "waiting for input 25 %",
    ]


def test_a_line_is_logged_every_30_seconds_and_at_the_end(clock, tmp_path, logged):
    with progress(tmp_path, last_step=95) as reporter:
        take(reporter, clock, range(1, 96))
    steps = [int(match[1]) for line in logged if (match := re.match(r"step (\d+)/95, ", line))]
    assert steps == [1, 40, 70, 95]  # steps of 1 s, reported every 10th; at 1 s, and then after 30 s or more


def test_optional_metrics_are_shown_if_present(clock, tmp_path, logged):
    with progress(tmp_path, steps_per_epoch=160) as reporter:
        take(reporter, clock, [1], box_iou_loss=0.25, skipped_steps=0.0)
        take(reporter, clock, [400], box_iou_loss=0.25, skipped_steps=2.0)
    first, last = logged[2:]
    # 0 skipped steps are not shown.
    assert first == "step 1/400, epoch 0.0/2.5, loss 1.500 (cls 1.250, box 0.0050, iou 0.250), rate 0.08"
    assert last.startswith("step 400/400, epoch 2.5/2.5, ") and last.endswith(
        "00:00 left, waiting for input 0 %, 2 steps skipped"
    )


def test_pauses_count_neither_as_training_nor_as_waiting(clock, tmp_path, logged):
    with progress(tmp_path) as reporter:
        take(reporter, clock, range(1, 6))
        with reporter.paused():
            clock.now += 500
            with reporter.waiting():
                clock.now += 500
            reporter.evaluated(5, {"AP": 0.5})  # a nested pause counts once
        take(reporter, clock, range(6, 11))
    lines = read(tmp_path / "train.csv").splitlines()
    assert lines[-1].endswith(",4,0")  # 9 steps of 4 images in 9 s


def test_a_pause_starts_when_the_device_has_finished(clock, tmp_path, logged):
    class Busy:
        """The loss of a step of 9 s that the device is still computing."""

        def __float__(self):
            clock.now += 9
            return 1.5

    with progress(tmp_path) as reporter:
        take(reporter, clock, [1])
        reporter.report(9, {**tensors(), "loss": Busy()})
        with reporter.paused():
            clock.now += 100
        take(reporter, clock, [10])
    assert read(tmp_path / "train.csv").splitlines()[-1].endswith(",3.6,0")  # 9 steps of 4 images in 10 s


def test_time_left_is_estimated_from_the_smoothed_speed(clock, tmp_path, logged):
    with progress(tmp_path) as reporter:
        take(reporter, clock, [1, 10])  # 9 steps in 1 s
        take(reporter, clock, [20], seconds=100.0)
    # (0.8 * 1/9 + 0.2 * 10) s per step, 380 steps left: 793.8 s
    assert "13:13 left" in logged[-1] and "0.4 images/s" in logged[-1]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_a_bar(clock, tmp_path, logged, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress(tmp_path, step=100) as reporter:
        assert "step 100/400, compiling the first step" in terminal.getvalue()
        take(reporter, clock, [101, 110])
        reporter.evaluated(110, {"AP": 0.5})
    last = terminal.getvalue().split("\r")[-1]
    assert "step 110/400, epoch 1.1/4, loss 1.500 (cls 1.250, box 0.0050), rate 0.08, 36.0 images/s, 00:32 left" in last
    assert logged == [  # no progress lines
        "the first step took 1.0 s, most of it compiling, after 0.0 s of waiting for input",
        "step 110: AP = 0.5000",
    ]


def test_a_pause_hides_the_bar(clock, tmp_path, monkeypatch):
    def last():
        return terminal.getvalue().split("\r")[-1]

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress(tmp_path, step=100) as reporter:
        take(reporter, clock, [101, 110])
        assert "step 110/400" in last()
        with reporter.paused():
            assert not last()
        assert "step 110/400" in last()


def test_a_piped_log_has_no_partial_lines(tmp_path):
    script = (
        "from absl import logging\n"
        "from tf2.training.progress import Progress\n"
        "logging.use_absl_handler()\n"  # as absl.app does
        "logging.set_verbosity('info')\n"
        f"with Progress({str(tmp_path)!r}, batch_size=4, step=0, last_step=40, steps_per_epoch=10) as reporter:\n"
        "    for step in range(1, 41):\n"
        f"        reporter.report(step, {METRICS})\n"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, stderr=subprocess.PIPE, check=True, timeout=120
    )
    assert b"\r" not in done.stderr
    steps = re.findall(r"\] step (\d+)/40, epoch .*loss 1\.500 .*$", done.stderr.decode(), re.MULTILINE)
    assert steps == ["1", "40"]


def test_event_files_have_the_published_tags(clock, tmp_path, logged):
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    with progress(tmp_path) as reporter:
        take(reporter, clock, range(1, 11), skipped_steps=1.0)
        reporter.evaluated(10, {"AP": 0.25, "AP50": 0.5}, {"sample": image})
    training = events(tmp_path)
    assert training.pop(("images_per_second", 10)) == 4 and training.pop(("input_wait", 10)) == 0
    assert training == {
        (tag, step): np.float32(value)
        for step in (1, 10)
        for tag, value in {
            "trainloss/loss": 1.5,
            "trainloss/cls_loss": 1.25,
            "trainloss/box_loss": 0.005,
            "lrn_rate": 0.08,
            "clip/gradient_norm": 3.0,
            "skipped_steps": 1.0,
        }.items()
    }
    evaluation = events(tmp_path / "eval")
    width, height, png = evaluation.pop(("sample", 10))
    assert (int(width), int(height)) == (6, 4)
    np.testing.assert_array_equal(tf.io.decode_png(png), image)
    assert evaluation == {("AP", 10): 0.25, ("AP50", 10): 0.5}


def test_csv_files_have_the_numbers_of_the_event_files(clock, directory, logged):
    with progress(directory) as reporter:
        take(reporter, clock, range(1, 11))
        reporter.evaluated(10, {"AP": 1 / 3, "AP_/a, b": -1.0})
        assert read(f"{directory}/eval.csv") == 'step,AP,"AP_/a, b"\n10,0.3333333,-1\n'
        reporter.flush()
        assert read(f"{directory}/train.csv") == (
            "step,loss,cls_loss,box_loss,learning_rate,gradient_norm,images_per_second,input_wait\n"
            "1,1.5,1.25,0.005,0.08,3,,\n"
            "10,1.5,1.25,0.005,0.08,3,4,0\n"
        )


def test_rows_of_training_are_written_at_once(clock, directory, logged, monkeypatch):
    appended = []
    open_file = tf.io.gfile.GFile
    monkeypatch.setattr(tf.io.gfile, "GFile", lambda *args: appended.append(args[1:]) or open_file(*args))
    with progress(directory) as reporter:
        take(reporter, clock, range(1, 31))
        assert appended.count(("a",)) == 0
        reporter.flush()
        reporter.flush()
        assert appended.count(("a",)) == 1
        assert [line.split(",")[0] for line in read(f"{directory}/train.csv").splitlines()] == [
            "step",
            "1",
            "10",
            "20",
            "30",
        ]
        take(reporter, clock, range(31, 46))
    assert read(f"{directory}/train.csv").splitlines()[-1].startswith("40,")  # written at the end


@pytest.mark.parametrize("kind, rows", [(KeyboardInterrupt, 2), (FloatingPointError, 2), (LockLost, 0)])
def test_rows_are_written_at_an_error_except_for_a_lost_lock(clock, tmp_path, logged, kind, rows):
    with pytest.raises(kind), progress(tmp_path) as reporter:
        take(reporter, clock, range(1, 11))
        raise kind
    assert len(read(tmp_path / "train.csv").splitlines()) == 1 + rows


def test_waiting_time_is_left_out_if_unknown(clock, tmp_path, logged):
    with progress(tmp_path) as reporter:
        for step in (20, 40):
            clock.now += 20
            reporter.report(step, tensors())
        clock.now += 60
        reporter.report(100, tensors())
    assert logged[1] == "the first 20 steps took 20.0 s, most of it compiling"
    assert logged[-1].endswith("rate 0.08, 4.0 images/s, 05:00 left")
    assert read(tmp_path / "train.csv").splitlines()[-1].endswith(",4,")
    assert ("images_per_second", 100) in events(tmp_path) and ("input_wait", 100) not in events(tmp_path)


def test_no_compilation_is_logged_if_nothing_is_left_to_train(tmp_path, logged):
    with progress(tmp_path, step=400) as reporter:
        reporter.evaluated(400, {"AP": 0.5})
    assert logged == ["step 400: AP = 0.5000"]


def test_evaluation_files_exist_only_after_an_evaluation(clock, tmp_path, logged):
    with progress(tmp_path) as reporter:
        take(reporter, clock, [1])
    names = sorted(os.listdir(tmp_path))
    assert names[0].startswith("events.out.tfevents") and names[1:] == ["train.csv"]


def test_only_the_chief_writes_files(clock, tmp_path, logged):
    with progress(tmp_path, is_chief=False) as reporter:
        take(reporter, clock, [1])
        reporter.evaluated(1, {"AP": 0.5}, {"sample": np.zeros([2, 2, 3], np.uint8)})
    assert os.listdir(tmp_path) == []
    assert "step 1/400" in logged[2] and logged[3] == "step 1: AP = 0.5000"


@pytest.mark.parametrize("rest", ["", "3", "30", "30,0.", '"'])  # an incomplete row, left by a kill
def test_resuming_removes_later_rows_and_an_incomplete_line(directory, rest):
    path = f"{directory}/train.csv"
    write(path, f"step,loss\n10,4\n20,3\n25,2.5\n{rest}")
    table = CsvFile(path, 20)
    assert read(path) == "step,loss\n10,4\n20,3\n"
    table.write(21, {"loss": 2.0})
    table.flush()
    assert read(path) == "step,loss\n10,4\n20,3\n21,2\n"
    assert tf.io.gfile.listdir(directory) == ["train.csv"]


def test_resuming_at_step_0_removes_all_rows(clock, tmp_path, logged):
    for name in ("train.csv", "eval.csv"):
        write(tmp_path / name, "step,loss\n10,4\n")
    with progress(tmp_path):
        assert [read(tmp_path / name) for name in ("train.csv", "eval.csv")] == ["step,loss\n"] * 2


def test_a_parallel_evaluation_keeps_all_rows(directory):
    path = f"{directory}/eval.csv"
    write(path, "step,AP\n10,1\n20,2\n3")
    log = EvaluationLog(directory)
    log.write(30, {"AP": 3.0})
    log.close()
    assert read(path) == "step,AP\n10,1\n20,2\n30,3\n"


def test_an_unchanged_table_is_not_rewritten(tmp_path):
    path = tmp_path / "eval.csv"  # another process may be appending to it
    write(path, "step,AP\n10,1\n")
    before = path.stat()
    CsvFile(str(path), 10)
    assert path.stat() == before


def test_a_new_column_keeps_the_old_rows(directory):
    path = f"{directory}/train.csv"
    table = CsvFile(path, 0)
    table.write(10, {"loss": 4.0, "cls_loss": 3.0})
    table.flush()
    table = CsvFile(path, 10)
    table.write(20, {"loss": 2.0, "box_iou_loss": 1.0})
    table.write(30, {"loss": 1.0})
    table.write(40, {"loss": 1.0, "extra": 2.0})  # rows that are not in the file yet
    table.flush()
    assert read(path) == "step,loss,cls_loss,box_iou_loss,extra\n10,4,3,,\n20,2,,1,\n30,1,,,\n40,1,,,2\n"


def test_rows_of_repeated_steps_are_replaced(directory):
    path = f"{directory}/eval.csv"
    table = CsvFile(path, 0)
    for step, value in [(10, 1.0), (20, 2.0), (30, 3.0), (20, 4.0), (20, 5.0)]:
        table.write(step, {"AP": value})
    table.flush()
    assert read(path) == "step,AP\n10,1\n20,5\n"


@pytest.mark.parametrize("header", [b"", b"step", b"step,lo"])
def test_a_table_with_an_incomplete_header_is_replaced(tmp_path, header):
    (tmp_path / "train.csv").write_bytes(header)
    table = CsvFile(str(tmp_path / "train.csv"), 10)
    table.write(20, {"loss": 2.0})
    table.flush()
    assert read(tmp_path / "train.csv") == "step,loss\n20,2\n"


@pytest.mark.parametrize("text", ["a;b\n1;2\n", "step,loss\nnone,1\n", "step,loss\n1,2,3\n"])
def test_an_unknown_file_is_not_modified(tmp_path, logged, text):
    write(tmp_path / "train.csv", text)
    table = CsvFile(str(tmp_path / "train.csv"), 10)
    table.write(20, {"loss": 2.0})
    table.flush()
    assert read(tmp_path / "train.csv") == text
    assert len(logged) == 1
    assert logged[0].startswith(f"{tmp_path}/train.csv: continuing without this file: ")


def test_a_failed_write_is_logged_once_and_the_file_skipped(clock, tmp_path, logged):
    (tmp_path / "eval").write_text("a file in place of the directory")
    (tmp_path / "train.csv").mkdir()
    with progress(tmp_path) as reporter:
        assert take(reporter, clock, [1, 10])[-1] == pytest.approx(METRICS)
        for step in (10, 20):
            reporter.evaluated(step, {"AP": 0.5})
    warnings = sorted(line.split(": ")[0] for line in logged if "continuing without this file: " in line)
    assert warnings == [f"{tmp_path}/eval", f"{tmp_path}/train.csv"]
    assert read(tmp_path / "eval.csv") == "step,AP\n10,0.5\n20,0.5\n"
    assert ("trainloss/loss", 10) in events(tmp_path)


def test_a_full_disk_does_not_stop_the_training(tmp_path, logged):
    with file_size_limit(2000), progress(tmp_path, last_step=2000) as reporter:
        results = [reporter.report(step, METRICS) for step in range(1, 2001)]
    assert results[-1] == METRICS
    assert sum("continuing without this file: " in line for line in logged) == 2
    lines = read(tmp_path / "train.csv").splitlines()
    assert lines[1].startswith("1,1.5,") and len(lines) > 20
