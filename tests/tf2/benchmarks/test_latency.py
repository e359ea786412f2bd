# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""latency: what is measured and how it is reported; no test depends on the speed."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tf2.benchmarks import latency, measure
from tf2.benchmarks.latency import Options, Seconds
from tf2.inference import drivers, runtimes, signatures
from tf2.inference.metadata import Metadata

ROOT = pathlib.Path(__file__).parents[3]
IMAGE = str(ROOT / "testdata" / "img1.jpg")
STATISTICS = {"mean", "median", "p90", "p99", "cpu", "calibrated", "images_per_second"}


class FakeRuntime:
    """The runtime of an exported file, computed by a function."""

    def __init__(self, run, batch_size=None):
        self.run, self.batch_size = run, batch_size


@pytest.fixture(scope="module")
def keras_driver(tiny_config):
    return drivers.KerasDriver(tiny_config, None)


@pytest.fixture(scope="module")
def network(keras_driver):
    """The network as a serving signature for any batch size."""
    return signatures.network(keras_driver.model.net, keras_driver.config, batch_size=0)


@pytest.fixture
def artifact(keras_driver, network):
    """Returns a function: content -> driver of an exported file with that content."""
    config = keras_driver.config
    count = config.nms_configs.max_output_size
    outputs = {
        "detector": lambda images: {"detections": np.zeros([len(images), count, 7], np.float32)},
        "detection_op": lambda images: {
            f"output_{i}": np.zeros([len(images), *shape], np.float32)
            for i, shape in enumerate([[], [count], [count], [count, 4]])
        },
        "network": lambda images: {name: out.numpy() for name, out in network(images=tf.constant(images)).items()},
    }
    return lambda content, **options: drivers.ArtifactDriver(
        FakeRuntime(outputs[content], **options), Metadata(config, content)
    )


@pytest.fixture
def matmul(monkeypatch):
    """Replaces the matrix product by a constant time of 0.4 s."""
    monkeypatch.setattr(measure, "calibrate_one_core", lambda: 0.4)


def test_statistics_by_hand():
    seconds = [Seconds(wall, 2 * wall) for wall in (0.4, 0.1, 0.2, 0.3, 1.0)]
    assert latency.summarize(seconds, batch_size=8, matmul=0.4) == pytest.approx(
        {
            "mean": 0.4,
            "median": 0.3,
            "p90": 0.76,  # of ranks 0..4 at 3.6: 0.4 + 0.6 * (1.0 - 0.4)
            "p99": 0.976,  # at 3.96
            "cpu": 0.6,
            "calibrated": 0.3,  # 0.6 on a core that takes 0.4 s for the matrix product, not 0.2 s
            "images_per_second": 20,
        }
    )


def test_stages_are_summed_per_run():
    samples = {"a": [Seconds(1, 10), Seconds(2, 20)], "b": [Seconds(3, 30), Seconds(4, 40)], "c": [Seconds(0, 5)] * 2}
    assert latency.add(samples, ["a", "b"]) == [Seconds(4, 40), Seconds(6, 60)]
    assert latency.add(samples, samples) == [Seconds(4, 45), Seconds(6, 65)]


def test_a_stage_receives_the_result_of_the_one_before():
    seen = []
    stages = {"one": lambda x: x + 1, "ten": lambda x: 10 * x, "end": seen.append}
    seconds = latency.run_once(stages, 2)
    assert seen == [30] and list(seconds) == ["one", "ten", "end"]
    assert all(wall >= 0 and cpu >= 0 for wall, cpu in seconds.values())


@pytest.mark.parametrize("runs, products", [(1, 1), (3, 3), (10, 5), (11, 4)])
def test_runs_are_counted(monkeypatch, capsys, runs, products):
    calls = []
    monkeypatch.setattr(measure, "calibrate_one_core", lambda: calls.append("matmul") or len(calls))
    samples, matmul = latency._measure({"a": lambda _: calls.append("run")}, None, runs)
    assert len(samples["a"]) == runs and calls.count("matmul") == products
    # Not timed: WARM_UP runs at first, and one after each product, whose matrices have replaced the CPU's caches.
    assert calls.count("run") == latency.WARM_UP + runs + products
    assert calls[: latency.WARM_UP + 3] == [*latency.WARM_UP * ["run"], "matmul", "run", "run"]
    assert matmul == np.median([i + 1 for i, call in enumerate(calls) if call == "matmul"])
    assert capsys.readouterr().out == f"Start benchmark runs total={runs}\n"


def test_bm_prints_the_published_lines_and_a_table(keras_driver, matmul, capsys, tmp_path):
    path = tmp_path / "bm.json"
    result = latency.bm(keras_driver, Options(batch_size=2, runs=3, json_path=str(path)))
    start, batch_time, fps, header, titles, row, calibration, where, memory = capsys.readouterr().out.splitlines()
    mean = result["stages"]["network"]["mean"]
    assert start == "Start benchmark runs total=3"
    assert batch_time == f"Per batch inference time:  {mean}" and fps == f"FPS:  {2 / mean}"
    assert header == (
        "efficientdet-lite0 64x64, Keras detector FP32, random weights; 2 image(s) per batch, 3 runs after 5 others"
    )
    assert titles.split() == ["ms", "per", "batch", "mean", "median", "p90", "p99", "cpu", "calibrated", "images/s"]
    assert row.split()[:2] == ["network", f"{1000 * mean:.2f}"] and row.split()[-1] == f"{2 / mean:.2f}"
    assert calibration.startswith("calibration: 2048^3 float32 matmul in NumPy on one core 0.400 s; ")
    assert f"tensorflow {tf.__version__}" in where and f"python {'.'.join(map(str, sys.version_info[:3]))}" in where
    assert re.fullmatch(r"peak memory of the process since its start: \d{3,} MiB", memory)

    assert json.loads(path.read_text()) == result and os.listdir(tmp_path) == ["bm.json"]
    assert result["stages"].keys() == {"network"} and result["stages"]["network"].keys() == STATISTICS
    assert result["matmul_seconds"] == 0.4 and result["peak_memory_mib"] > 100
    assert (result["benchmark"], result["batch_size"], result["runs"], result["warm_up"]) == ("bm", 2, 3, 5)
    assert result["versions"].keys() == {"efficientdet", "python", "tensorflow", "numpy"}
    assert result["device"] and result["cpu_name"] and result["cores"] >= 1 and result["threads"] is None


def test_bm_of_an_exported_file_times_its_runtime_alone(artifact, matmul):
    driver, shapes = artifact("network"), []
    run = driver.runtime.run
    driver.runtime.run = lambda inputs: shapes.append((type(inputs), inputs.shape, inputs.dtype)) or run(inputs)
    result = latency.bm(driver, Options(batch_size=3, runs=1))
    assert set(shapes) == {(np.ndarray, (3, 64, 64, 3), np.dtype(np.float32))}
    assert (result["form"], result["content"], result["precision"]) == ("FakeRuntime", "network", "FP32")


@pytest.mark.parametrize(
    "content, own",
    [
        (None, ["preprocess", "network", "NMS"]),
        ("network", ["preprocess", "network", "NMS"]),
        ("detection_op", ["preprocess", "network + NMS"]),
        ("detector", ["preprocess + network + NMS"]),
    ],
)
def test_end_to_end_by_stages(keras_driver, artifact, matmul, capsys, content, own):
    driver = artifact(content) if content else keras_driver
    result = latency.saved_model_benchmark(driver, IMAGE, Options(runs=2))
    assert list(result["stages"]) == ["decode", *own, "draw", "inference", "sum"]
    means = {name: row["mean"] for name, row in result["stages"].items()}
    assert means["inference"] == pytest.approx(sum(means[name] for name in own))
    assert means["sum"] == pytest.approx(means["decode"] + means["inference"] + means["draw"])
    assert result["picture_sizes"] == ["640x480"] and (result["detections"] > 0) == (content in (None, "network"))
    lines = capsys.readouterr().out.splitlines()
    assert f"Per batch inference time:  {means['inference']}" in lines and f"FPS:  {1 / means['inference']}" in lines
    assert f"images: {IMAGE}, 640x480; {result['detections']} detection(s) per batch" in lines


def test_images_are_repeated_to_fill_the_batch(artifact, matmul, tmp_path):
    for i, size in enumerate([(30, 20), (40, 50)]):
        PIL.Image.new("RGB", size, (10 * i, 0, 0)).save(tmp_path / f"{i}.png")
    driver, shapes = artifact("network"), []
    stage = driver.stages["preprocess"]
    driver.stages["preprocess"] = lambda images: shapes.append([image.shape[:2] for image in images]) or stage(images)
    result = latency.saved_model_benchmark(driver, f"{tmp_path}/*.png", Options(batch_size=3, runs=1))
    assert shapes[0] == [(20, 30), (50, 40), (20, 30)] and result["picture_sizes"] == ["30x20", "40x50"]


def test_an_image_is_generated_by_default():
    with latency._paths(None, 2) as paths:
        assert paths[0] == paths[1]
        with PIL.Image.open(paths[0]) as image:
            assert image.size == (1280, 720) and np.asarray(image).std() > 10
    assert not os.path.exists(paths[0])


def test_detections_are_drawn(artifact):
    driver, image = artifact("detector"), np.full([60, 80, 3], 200, np.uint8)
    row = np.float32([0, 10, 20, 50, 70, 0.9, 1])  # index, box, score, class
    driver.runtime.run = lambda images: {"detections": np.pad(row[np.newaxis, np.newaxis], [[0, 0], [0, 99], [0, 0]])}
    stages = latency.end_to_end(driver, [image])
    [drawn] = stages["draw"](driver.serve([image]))
    assert not np.array_equal(drawn[30, 20], image[30, 20]) and np.array_equal(drawn[30, 75], image[30, 75])


@pytest.mark.parametrize("function", ["bm", "saved_model_benchmark"])
def test_a_trace_holds_stages_and_kernels(keras_driver, matmul, tmp_path, function):
    path = tmp_path / "trace.json"
    getattr(latency, function)(keras_driver, options=Options(runs=1, trace_filename=str(path)))
    trace = json.loads(path.read_text())
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert all(event["dur"] >= 0 and event["ts"] >= 0 for event in spans)
    [network] = [event for event in spans if event["name"] == "network"]
    convolutions = [event for event in spans if re.search(r":.*Conv2D", event["name"])]
    assert len(convolutions) > 20  # each within the stage
    for event in convolutions:
        assert network["ts"] <= event["ts"] and event["ts"] + event["dur"] <= network["ts"] + network["dur"]
    threads = {event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "thread_name"}
    assert "python" in threads
    expected = {"decode", "preprocess", "NMS", "draw"} if function != "bm" else set()
    assert expected <= {event["name"] for event in spans}


def test_xla_compiles_the_network_of_a_checkpoint(keras_driver, artifact, matmul, monkeypatch):
    compiled = []

    def network(inputs):  # a small one: compiling a whole network takes minutes
        compiled.append(tf.executing_eagerly())
        return tf.reduce_sum(inputs)

    monkeypatch.setattr(keras_driver, "network", network)
    assert latency.bm(keras_driver, Options(runs=1), use_xla=True)["use_xla"]
    assert compiled == [False]  # traced once, then run as compiled
    function = latency._compile(keras_driver)
    hlo = function.experimental_get_compiler_ir(tf.ones([1, 4, 4, 3]))(stage="hlo")
    assert "reduce" in hlo
    with pytest.raises(ValueError, match="--use_xla compiles the network of a checkpoint"):
        latency.bm(artifact("network"), use_xla=True)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 0}, "at least 1, got batch_size 0 and 10 runs"),
        ({"runs": 0}, "at least 1, got batch_size 1 and 0 runs"),
        ({"json_path": "/nowhere/a.json"}, "expected a file in a folder that exists, got /nowhere/a.json"),
        ({"trace_filename": "/"}, "expected a file in a folder that exists, got /"),
    ],
)
@pytest.mark.parametrize("function", [latency.bm, latency.saved_model_benchmark])
def test_bad_options(keras_driver, monkeypatch, function, options, message):
    monkeypatch.setattr(latency, "_measure", None)  # the error comes first
    with pytest.raises(ValueError, match=message):
        function(keras_driver, options=Options(**options))


@pytest.mark.parametrize("batch_size", [1, 9])
def test_batch_size_must_be_that_of_the_file(artifact, batch_size):
    with pytest.raises(ValueError, match=f"takes 8 .* per call, got batch_size {batch_size}; give --batch_size=8"):
        latency.saved_model_benchmark(artifact("detector", batch_size=8), IMAGE, Options(batch_size=batch_size))


@pytest.mark.parametrize("content", ["detector", "detection_op"])
def test_bm_needs_a_network(artifact, content):
    with pytest.raises(ValueError, match="does not give the outputs of its network"):
        latency.bm(artifact(content))


@pytest.mark.parametrize("kind", [runtimes.TFLite, runtimes.Onnx])
def test_only_tensorflow_is_traced(artifact, tmp_path, kind):
    driver = artifact("network")
    driver.runtime = kind.__new__(kind)
    driver.runtime.batch_size = None
    with pytest.raises(ValueError, match=f"--trace_filename traces TensorFlow, and {kind.__name__} files"):
        latency.bm(driver, Options(trace_filename=str(tmp_path / "trace.json")))


def test_missing_images(keras_driver, tmp_path):
    with pytest.raises(ValueError, match="no image at"):
        latency.saved_model_benchmark(keras_driver, str(tmp_path))


def test_threads_are_set_before_tensorflow_starts():
    code = (
        "import tensorflow as tf; from tf2.benchmarks import latency\n"
        "latency.set_threads(3)\n"
        "print(tf.config.threading.get_intra_op_parallelism_threads())\n"
        "print(tf.config.threading.get_inter_op_parallelism_threads())\n"
        "tf.ones([])\n"
        "latency.set_threads(2)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.stdout.splitlines() == ["num_threads for benchmarking: 3", "3", "1"]
    assert result.stderr.splitlines()[-1].startswith("ValueError: --threads=2 comes too late")
