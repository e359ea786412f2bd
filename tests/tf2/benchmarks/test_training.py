# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""training benchmark: what is measured and how it is reported; no test depends on the speed."""

import itertools
import pathlib
import re
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from tf2.benchmarks import random_batch, training
from tf2.benchmarks.training import Times

ROOT = pathlib.Path(__file__).parents[3]
SAMPLE = ROOT / "testdata" / "sample.tfrecord"
TINY = "image_size=64,fpn_num_filters=8,fpn_cell_repeats=1,box_class_repeats=1,num_classes=3"
NUMBER = r"(\d+(?:\.\d+)?)"


def run(*flags, hparams=TINY):
    command = [sys.executable, str(ROOT / "tf2" / "benchmarks" / "training.py"), f"--hparams={hparams}", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def lines_of(*flags):
    result = run(*flags)
    assert result.returncode == 0, result.stderr
    header, *lines = result.stdout.splitlines()
    assert re.search(r"^efficientdet-lite0, 64x64 pixels, batch size 2, \d+ core\(s\), TensorFlow 2\.", header)
    assert header.endswith("; weight_decay 4e-05, clip_gradients_norm 10.0, moving_average_decay 0.9998")
    return lines


def numbers(pattern, line):
    match = re.fullmatch(pattern.replace("#", NUMBER), line)
    assert match, line
    return [float(number) for number in match.groups()]


@pytest.mark.slow
def test_what_step_prints():
    step, start, title, *table = lines_of("--what=step", "--batch_size=2", "--steps=2", "--profile")
    seconds, matmul, ratio = numbers("step: # s, matmul # s, ratio #", step)
    assert ratio == pytest.approx(seconds / matmul, rel=0.05, abs=0.01)
    total, *parts = numbers(r"start: # s \(building #, tracing #, first step #\)", start)
    assert total == pytest.approx(sum(parts), abs=0.21)
    assert title.split() == ["kernel", "of", "the", "ms", "calls", "share"]
    shares = [float(row.split()[-1].rstrip("%")) for row in table]
    assert any("Conv2D" in row for row in table) and sum(shares[:-2]) <= 100.5
    assert sum(shares[-2:]) == pytest.approx(100, abs=0.11) and 50 < shares[-2] < 100  # of network, and of the rest


@pytest.mark.slow
def test_what_memory_prints():
    without, checkpointed, ratios = lines_of("--what=memory", "--batch_size=2", "--steps=1")
    peaks = []
    for switch, line in (("false", without), ("true", checkpointed)):
        peak, *_ = numbers(f"grad_checkpoint={switch}: peak # MiB, step # s, matmul # s, ratio #", line)
        peaks.append(peak)
    assert min(peaks) > 10
    assert numbers("with / without: peak #, time #", ratios)[0] == pytest.approx(peaks[1] / peaks[0], rel=0.05)


@pytest.mark.slow
def test_what_cycles_prints():
    *cycles, ratio = lines_of("--what=cycles", "--batch_size=2", "--cycles=4")
    resident = [numbers(f"after cycle {i}: # MiB", line)[0] for i, line in enumerate(cycles, 1)]
    assert len(resident) == 4 and min(resident) > 100
    assert numbers("after cycle 4 / after cycle 3: #", ratio) == [pytest.approx(resident[3] / resident[2], abs=0.003)]


@pytest.mark.slow
def test_what_reading_prints(tiny_config, monkeypatch):
    flags = types.SimpleNamespace(batch_size=2, file_pattern=str(SAMPLE), num_images=8, stages=True)
    monkeypatch.setattr(training, "FLAGS", flags)
    monkeypatch.setattr(training, "WARM_UP_IMAGES", 8)
    _, title, *rows = training.measure_reading(tiny_config)
    assert title.split() == ["pipeline", "images/s", "matmul", "s", "x", "published"]
    assert [row[:40].strip() for row in rows] == [
        "training",
        "evaluation",
        "records",
        "records, whole images decoded",
        "training, before targets and batches",
    ]
    for row in rows:
        speed, seconds, *compared = map(float, row[40:].split())
        assert speed > 0 and seconds > 0 and len(compared) == (row in rows[:2])


@pytest.mark.slow
def test_what_evaluation_prints():
    options = (f"--file_pattern={SAMPLE}", "--batch_size=2", "--devices=3", "--passes=1")
    for count, line in zip((1, 3), lines_of("--what=evaluation", *options), strict=True):
        assert min(numbers(rf"{count} device\(s\): # ms per image, # ms of processor time", line)) > 0


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--hparams=image_sise=64"], "error: unknown config key 'image_sise'"),
        (["--what=reading"], "error: --what=reading needs --file_pattern"),
        (["--what=evaluation"], "error: --what=evaluation needs --file_pattern"),
    ],
)
def test_errors_are_one_line(flags, message):
    result = run(*flags)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(message)


def test_a_pattern_without_files(tiny_config, monkeypatch):
    monkeypatch.setattr(training, "FLAGS", types.SimpleNamespace(batch_size=2, file_pattern="/none/*", stages=False))
    with pytest.raises(ValueError, match=r"no file matches '/none/\*'"):
        training.pipelines(tiny_config)


@pytest.mark.parametrize("sizes, is_batched", [([4, 1], True), ([4], True), ([4], False)])
def test_images_are_counted_after_the_warm_up(monkeypatch, sizes, is_batched):
    taken = []

    def endless():
        for size in itertools.cycle(sizes):
            taken.append(size if is_batched else 1)
            yield tf.zeros([size, 2])

    monkeypatch.setattr(training, "time", types.SimpleNamespace(perf_counter=itertools.count().__next__))
    warm_up = training.WARM_UP_IMAGES
    speed = training.images_per_second(endless(), 10, is_batched)  # in one second of this clock
    assert 10 <= speed < 14 and warm_up + 10 <= sum(taken) < warm_up + 18


def test_steps_are_compared_with_the_published_ones_relative_to_the_matmul():
    times = Times({"building": 2.0, "tracing": 3.0, "first step": 5.0}, [2.0, 1.0, 9.0], [0.5, 0.4, 0.3], 0.0)
    assert list(training.step_report(times, (1.25, 20))) == [
        "step: 2.000 s, matmul 0.400 s, ratio 5.00; 0.80 of the published 1.25 s",  # (2 / 0.4) / (1.25 / 0.2)
        "start: 10.0 s (building 2.0, tracing 3.0, first step 5.0); 0.25 of the published 20 s",
    ]
    assert list(training.step_report(times, (1.25, None)))[1].endswith("first step 5.0)")
    assert next(training.step_report(times, None)) == "step: 2.000 s, matmul 0.400 s, ratio 5.00"


def test_memory_and_time_are_compared_with_those_without_checkpointing():
    without = Times({}, [4.0], [0.2], 4000.0)
    checkpointed = Times({}, [5.0, 4.4, 4.3], [0.1, 0.2, 0.3], 1800.0)
    assert list(training.memory_report(without, checkpointed)) == [
        "grad_checkpoint=false: peak 4000 MiB, step 4.000 s, matmul 0.200 s, ratio 20.00",
        "grad_checkpoint=true: peak 1800 MiB, step 4.400 s, matmul 0.200 s, ratio 22.00",
        "with / without: peak 0.450, time 1.10",
    ]


class FakeExecutor:
    """A process pool that appends its calls to a list; the first process measures 400 MiB, the second 200 MiB."""

    def __init__(self, calls, max_workers, mp_context):
        assert max_workers == 1 and mp_context.get_start_method() == "spawn"
        self.calls = calls

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, function, config, *arguments):
        self.calls.append((function, config.grad_checkpoint, *arguments))
        times = Times({"building": 1.0}, [4.0], [0.2], 400.0 / len(self.calls))
        return types.SimpleNamespace(result=lambda: times)


def test_memory_is_measured_in_one_process_per_switch(tiny_config, monkeypatch):
    calls = []
    monkeypatch.setattr(
        training.concurrent.futures, "ProcessPoolExecutor", lambda *arguments: FakeExecutor(calls, *arguments)
    )
    monkeypatch.setattr(training, "FLAGS", types.SimpleNamespace(batch_size=8, steps=5))
    _, *lines, ratios = training.measure_memory(tiny_config)
    assert ratios == "with / without: peak 0.500, time 1.00"
    assert [line.split(":")[0] for line in lines] == ["grad_checkpoint=false", "grad_checkpoint=true"]
    assert calls == [(training.step_times, False, 8, 5), (training.step_times, True, 8, 5)]


def test_a_process_that_is_killed_is_an_error(tiny_config, monkeypatch):
    def kill(*arguments):
        raise training.concurrent.futures.BrokenExecutor

    monkeypatch.setattr(training.concurrent.futures, "ProcessPoolExecutor", kill)
    monkeypatch.setattr(training, "FLAGS", types.SimpleNamespace(batch_size=8, steps=5))
    with pytest.raises(OSError, match="grad_checkpoint=False was killed; lower --batch_size"):
        next(training.measure_memory(tiny_config))


def test_the_last_cycle_is_compared_with_the_third():
    report = list(training.cycle_report([500.0, 700.0, 800.0, 790.0, 840.0]))
    assert report[0] == "after cycle 1: 500 MiB" and report[-1] == "after cycle 5 / after cycle 3: 1.050"


def test_kernels_are_summed_by_type_and_part():
    found = [
        ("efficientdet-d0/stem/Conv2D:Conv2D", "Conv2D", 6.0),
        ("gradient_tape/efficientdet-d0/Mul:Mul", "Mul", 1.0),
        ("mul_3:Mul", "Mul", 2.0),
        ("mul_4:Mul", "Mul", 0.99),
        ("Sum:Sum", "Sum", 0.01),  # too small for a line
    ]
    _, *rows = training.kernel_report(found, "efficientdet-d0")
    assert [row.split() for row in rows] == [
        ["Conv2D", "network", "6.0", "1", "60.0%"],
        ["Mul", "step", "3.0", "2", "29.9%"],
        ["Mul", "network", "1.0", "1", "10.0%"],
        ["all", "network", "7.0", "2", "70.0%"],
        ["all", "step", "3.0", "3", "30.0%"],
    ]


def test_random_batches_look_like_those_of_a_reader_and_are_reproducible(tiny_config):
    images, labels = random_batch.random_batch(tiny_config, 2)
    again, _ = random_batch.random_batch(tiny_config, 2)
    np.testing.assert_array_equal(images, again)
    assert images.shape == [2, 64, 64, 3] and labels.keys() == {"cls_targets", "box_targets", "num_positives"}
    classes = np.concatenate([np.ravel(level) for level in labels["cls_targets"]])
    assert np.sum(labels["num_positives"]) == np.sum(classes >= 0) >= 10 and set(classes) <= {-1, 0, 1, 2}
