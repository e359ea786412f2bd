# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures what detecting costs: of the network alone, or from files to pictures with boxes.

Machines differ and are shared, so every measurement also times a matrix product of fixed size, on one core, between its
runs. The column `calibrated` is processor time as it would be on a core that takes CALIBRATION seconds for the product.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import tensorflow as tf
from absl import logging

from dataset import scenes, visualize
from dataset.files import write_file
from efficientdet.postprocess import Detections
from tf2.benchmarks.reader import CALIBRATION_SIDE
from tf2.benchmarks.reader import PUBLISHED_CALIBRATION as CALIBRATION
from tf2.benchmarks.training import peak_mib, profile
from tf2.inference import images, provenance
from tf2.inference.drivers import ArtifactDriver, Driver, KerasDriver

ROOT = Path(__file__).resolve().parents[2]
WARM_UP = 5  # runs before those that count
MAX_CALIBRATIONS = 5  # between the runs
GENERATED_SIZE = (720, 1280)  # (height, width) of the picture that stands in for one of the user's
COLUMNS = ("mean", "median", "p90", "p99", "cpu", "calibrated")  # seconds a batch, shown in ms
# A process of its own: only there the product can be held to one thread, and its threads do not disturb the next run.
MATMUL = """
import sys, time
from tf2.benchmarks.reader import calibrate
for line in sys.stdin:
    print(calibrate(time.process_time), flush=True)
"""
ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)

Stages = Mapping[str, Callable[[Any], Any]]


class Seconds(NamedTuple):
    """What one execution of one stage took."""

    wall: float
    cpu: float  # of all threads of this process


def set_threads(count: int) -> None:
    """Holds every operation of TensorFlow to so many threads, and runs one operation at a time.

    Args:
        count: threads, at least 1.

    Raises:
        ValueError: if TensorFlow has started its threads already.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        raise ValueError(
            f"--threads={count} comes too late, TensorFlow has started its threads; set it before all other work"
        ) from error
    print(f"num_threads for benchmarking: {count}")


def bm(
    driver: Driver,
    *,
    batch_size: int = 1,
    runs: int = 10,
    use_xla: bool = False,
    trace_filename: str | None = None,
    json_path: str | None = None,
) -> dict[str, Any]:
    """Times the network alone, on random inputs, and prints the result.

    Args:
        driver: with `network`.
        batch_size: images a run.
        runs: that count, after WARM_UP others.
        use_xla: compiles the network of a checkpoint with XLA, which takes long on a CPU.
        trace_filename: file for a trace of one more run, which chrome://tracing and ui.perfetto.dev show.
        json_path: file for the report.

    Returns:
        The report, see `report`.

    Raises:
        ValueError: if the driver has no network of its own, or an argument does not suit it.
    """
    _check(driver, batch_size, runs, trace_filename, json_path)
    if driver.network is None:
        raise ValueError(
            "this file does not give the outputs of its network, which bm times; "
            "use --runmode=saved_model_benchmark, or give a checkpoint or a file of the network alone"
        )
    network = _compile(driver) if use_xla else driver.network
    inputs = tf.random.stateless_normal([batch_size, *driver.config.image_size, 3], seed=[0, 0])
    if isinstance(driver, ArtifactDriver):  # whose `network` brings the outputs back into TensorFlow
        network, inputs = driver.runtime.run, np.asarray(inputs)
    stages = {"network": network}
    samples, matmul = _measure(stages, inputs, runs)
    about = {"benchmark": "bm", "batch_size": batch_size, "use_xla": use_xla, **provenance.describe(driver)}
    result = report(about, samples, matmul)
    _publish(result, "network", json_path)
    if trace_filename:
        write_file(trace_filename, json.dumps(trace(stages, inputs), indent=1))
    return result


def saved_model_benchmark(
    driver: Driver,
    input_image: str | None = None,
    *,
    batch_size: int = 1,
    runs: int = 10,
    trace_filename: str | None = None,
    json_path: str | None = None,
) -> dict[str, Any]:
    """Times the way from files to pictures with boxes by stages, and prints the result.

    The stages are those of the driver, with `decode` (reads files) before and `draw` after them. `inference` is the sum
    of the driver's own, and what the two published lines tell; `sum` is all.

    Args:
        driver: any.
        input_image: see `infer.find_images`; repeated to fill the batch. None generates a picture of GENERATED_SIZE.
        batch_size: pictures a run.
        runs: that count, after WARM_UP others.
        trace_filename: file for a trace of one more run, which chrome://tracing and ui.perfetto.dev show.
        json_path: file for the report.

    Returns:
        The report, see `report`.

    Raises:
        ValueError: if there is no picture, or an argument does not suit the driver.
    """
    _check(driver, batch_size, runs, trace_filename, json_path)
    with _paths(input_image, batch_size) as paths:
        pictures = [images.read_image(path) for path in paths]
        stages = end_to_end(driver, pictures)
        samples, matmul = _measure(stages, paths, runs)
        samples |= {"inference": add(samples, driver.stages), "sum": add(samples, stages)}
        about = {
            "benchmark": "saved_model_benchmark",
            "batch_size": batch_size,
            "input_image": input_image or "generated",
            "picture_sizes": sorted({f"{picture.shape[1]}x{picture.shape[0]}" for picture in pictures}),
            "detections": int(np.sum(driver.serve(pictures).valid_len)),
            **provenance.describe(driver),
        }
        result = report(about, samples, matmul)
        _publish(result, "inference", json_path)
        if trace_filename:
            write_file(trace_filename, json.dumps(trace(stages, paths), indent=1))
    return result


def end_to_end(driver: Driver, pictures: Sequence[np.ndarray]) -> Stages:
    """The stages from paths to pictures with boxes; `pictures` are those of the paths."""

    def draw(detections: Detections) -> list[np.ndarray]:
        rows = zip(pictures, detections.boxes, detections.classes, detections.scores, strict=True)
        return [visualize.draw_boxes(*row, names=driver.names) for row in rows]

    return {"decode": lambda paths: [images.read_image(path) for path in paths], **driver.stages, "draw": draw}


def run_once(stages: Stages, state: Any) -> dict[str, Seconds]:
    """Puts a value through all stages; returns what each took."""
    seconds = {}
    for name, stage in stages.items():
        wall, cpu = time.perf_counter(), time.process_time()
        with tf.profiler.experimental.Trace(name):
            state = stage(state)
            tf.test.experimental.sync_devices()  # a GPU goes on working when the call returns
        seconds[name] = Seconds(time.perf_counter() - wall, time.process_time() - cpu)
    return seconds


def add(samples: Mapping[str, Sequence[Seconds]], names: Iterable[str]) -> list[Seconds]:
    """The sums of some stages, run by run."""
    return [Seconds(*map(sum, zip(*run))) for run in zip(*(samples[name] for name in names))]


def summarize(seconds: Sequence[Seconds], batch_size: int, matmul: float) -> dict[str, float]:
    """Statistics of one stage.

    Args:
        seconds: of each run.
        batch_size: images a run.
        matmul: seconds that the matrix product took on one core.

    Returns:
        Seconds a batch: mean, median, p90 and p99 (between two runs linear) of the clock; cpu, the median of the
        processor time of all threads; calibrated, the same as if the product had taken CALIBRATION. And
        images_per_second, by the mean.
    """
    wall, cpu = [run.wall for run in seconds], statistics.median(run.cpu for run in seconds)
    p90, p99 = np.percentile(wall, [90, 99]).tolist()
    return {
        "mean": statistics.fmean(wall),
        "median": statistics.median(wall),
        "p90": p90,
        "p99": p99,
        "cpu": cpu,
        "calibrated": cpu * CALIBRATION / matmul,
        "images_per_second": batch_size / statistics.fmean(wall),
    }


def report(about: Mapping[str, Any], samples: Mapping[str, Sequence[Seconds]], matmul: float) -> dict[str, Any]:
    """All that is known of a measurement, fit for JSON.

    Args:
        about: what was measured.
        samples: by stage, a value a run.
        matmul: seconds that the matrix product took on one core.

    Returns:
        `about`, and runs, warm_up, matmul_seconds, peak_memory_mib (the most that this process ever had), and stages:
        {name: what `summarize` gives}.
    """
    stages = {name: summarize(seconds, about["batch_size"], matmul) for name, seconds in samples.items()}
    return {
        **about,
        "runs": len(next(iter(samples.values()))),
        "warm_up": WARM_UP,
        "stages": stages,
        "matmul_seconds": matmul,
        "peak_memory_mib": peak_mib(),
    }


def table(result: Mapping[str, Any]) -> Iterator[str]:
    """Lines that show a report."""
    yield (
        f"{result['model_name']} {result['image_size']}, {result['form']} {result['content']} {result['precision']}, "
        f"{result['weights']}; {result['batch_size']} image(s) a batch, {result['runs']} runs after {WARM_UP} others"
    )
    if "detections" in result:
        sizes = ", ".join(result["picture_sizes"])
        yield f"pictures: {result['input_image']}, {sizes}; {result['detections']} detection(s) a batch"
    width = max(map(len, result["stages"])) + 2
    yield f"{'ms a batch':<{width}}" + "".join(f"{name:>12}" for name in (*COLUMNS, "images/s"))
    for name, row in result["stages"].items():
        times = "".join(f"{1000 * row[column]:>12.2f}" for column in COLUMNS)
        yield f"{name:<{width}}{times}{row['images_per_second']:>12.2f}"
    yield (
        f"calibrator: {CALIBRATION_SIDE}^3 float32 matmul in NumPy on one core {result['matmul_seconds']:.3f} s; "
        f"cpu: median of all threads' time; calibrated: cpu x {CALIBRATION:.2f} / {result['matmul_seconds']:.3f}"
    )
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    yield (
        f"device {result['device']}, {result['cpu_name']}, {result['cores']} core(s), "
        f"threads: {result['threads'] or 'as the runtime chooses'}; {versions}"
    )
    yield f"peak memory of the process, from its start: {result['peak_memory_mib']:.0f} MiB"


def trace(stages: Stages, state: Any) -> dict[str, Any]:
    """What TensorFlow's profiler saw in one run, in the JSON that chrome://tracing and ui.perfetto.dev show.

    The stages are spans of the thread "python", TensorFlow's kernels are spans of its own threads.
    """
    events = []
    for device, plane in enumerate(profile(lambda: run_once(stages, state)).planes):
        for thread, line in enumerate(plane.lines):
            where = {"pid": device, "tid": thread}
            events.append({"ph": "M", "name": "process_name", **where, "args": {"name": plane.name}})
            events.append({"ph": "M", "name": "thread_name", **where, "args": {"name": line.name}})
            for event in line.events:
                events.append(
                    {
                        "ph": "X",
                        "name": plane.event_metadata[event.metadata_id].name,
                        "ts": line.timestamp_ns / 1e3 + event.offset_ps / 1e6,  # microseconds, as is dur
                        "dur": event.duration_ps / 1e6,
                        **where,
                    }
                )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _check(driver: Driver, batch_size: int, runs: int, *paths: str | None) -> None:
    """Raises ValueError for what would fail, or mislead, after the measurement."""
    trace_filename, _ = paths
    if batch_size < 1 or runs < 1:
        raise ValueError(f"expected a batch size and runs of at least 1, got batch_size {batch_size} and {runs} runs")
    runtime = driver.runtime if isinstance(driver, ArtifactDriver) else None
    if runtime and runtime.batch_size not in (None, batch_size):
        raise ValueError(
            f"the file takes {runtime.batch_size} image(s) a call, got batch_size {batch_size}; "
            f"give --batch_size={runtime.batch_size}, or export it with another one"
        )
    if trace_filename and isinstance(runtime, provenance.NOT_TENSORFLOW):
        raise ValueError(
            f"--trace_filename traces TensorFlow, and {type(runtime).__name__} files run outside of it; leave it out"
        )
    for path in filter(None, paths):
        if os.path.isdir(path) or not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            raise ValueError(f"expected a file in a folder that exists, got {path}")


def _compile(driver: Driver) -> Callable[[tf.Tensor], Any]:
    """The network compiled with XLA."""
    if not isinstance(driver, KerasDriver):
        raise ValueError("--use_xla compiles the network of a checkpoint, and a file runs as it is; leave it out")
    logging.info("compiling the network with XLA; on a CPU this takes minutes")
    return tf.function(lambda inputs: driver.network(inputs), autograph=False, jit_compile=True)


def _measure(stages: Stages, inputs: Any, runs: int) -> tuple[dict[str, list[Seconds]], float]:
    """By stage, what each run took; and the median of the matrix products between the runs."""
    for _ in range(WARM_UP):
        run_once(stages, inputs)
    print(f"Start benchmark runs total={runs}", flush=True)
    samples, calibrations = {name: [] for name in stages}, []
    with _matmul_process() as matmul:
        for i in range(runs):
            if i % -(-runs // MAX_CALIBRATIONS) == 0:
                calibrations.append(matmul())
                run_once(stages, inputs)  # does not count: the product has swept the caches
            for name, seconds in run_once(stages, inputs).items():
                samples[name].append(seconds)
    return samples, statistics.median(calibrations)


@contextlib.contextmanager
def _matmul_process() -> Iterator[Callable[[], float]]:
    """A function that has the matrix product made in another process, and returns the seconds that took one core."""
    command, pipe = [sys.executable, "-c", MATMUL], subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **ONE_THREAD}, stdin=pipe, stdout=pipe, text=True, bufsize=1
    ) as process:

        def matmul() -> float:
            process.stdin.write("\n")
            return float(process.stdout.readline())

        try:
            matmul()  # warms up
            yield matmul
        finally:
            process.stdin.close()  # which ends it


@contextlib.contextmanager
def _paths(input_image: str | None, batch_size: int) -> Iterator[list[str]]:
    """A batch of the files of the user, or of a JPEG with shapes on a textured background."""
    if input_image:
        paths = images.find_images(input_image)
        yield [paths[i % len(paths)] for i in range(batch_size)]
        return
    scene = scenes.make_scene(0, 0, GENERATED_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "generated.jpg")
        PIL.Image.fromarray(scene.image).save(path, **scenes.JPEG_OPTIONS)
        yield batch_size * [path]


def _publish(result: dict[str, Any], row: str, json_path: str | None) -> None:
    """Prints the two published lines by a row of the table, and the table; writes the report."""
    print("Per batch inference time: ", result["stages"][row]["mean"])
    print("FPS: ", result["stages"][row]["images_per_second"])
    print(*table(result), sep="\n", flush=True)
    if json_path:
        write_file(json_path, json.dumps(result, indent=1))
