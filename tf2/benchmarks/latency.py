# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Latency of inference: of the network alone, or from image files to drawn boxes.

The column `calibrated` is processor time, scaled to a core that takes CALIBRATION seconds for the matrix product that
is timed between the runs, see measure.py.
"""

import contextlib
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import tensorflow as tf
from absl import logging

from dataset import scenes, visualize
from dataset.convert import image_file
from dataset.files import check_file, write_file
from efficientdet.postprocess import Detections
from tf2.benchmarks import measure
from tf2.benchmarks.measure import CALIBRATION, CALIBRATION_SIDE
from tf2.inference import images, provenance
from tf2.inference.drivers import ArtifactDriver, Driver, KerasDriver

WARM_UP = 5  # runs before the timed ones
MAX_CALIBRATIONS = 5  # between the runs
GENERATED_SIZE = (720, 1280)  # (height, width) of the image used if none is given
COLUMNS = ("mean", "median", "p90", "p99", "cpu", "calibrated")  # seconds per batch, printed in ms

Stages = Mapping[str, Callable[[Any], Any]]


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of both benchmarks."""

    batch_size: int = 1  # images per run
    runs: int = 10  # timed, after WARM_UP others
    trace_filename: str | None = None  # file for a trace of one more run, for chrome://tracing or ui.perfetto.dev
    json_path: str | None = None  # file for the report


class Seconds(NamedTuple):
    """Duration of one execution of one stage."""

    wall: float
    cpu: float  # of all threads of this process


def set_threads(count: int) -> None:
    """Limits each TensorFlow operation to `count` threads, and runs one operation at a time.

    Raises:
        ValueError: if TensorFlow has already started its threads.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        raise ValueError(
            f"--threads={count} comes too late, TensorFlow has started its threads; set it before all other work"
        ) from error
    print(f"num_threads for benchmarking: {count}")


def bm(driver: Driver, options: Options = Options(), *, use_xla: bool = False) -> dict[str, Any]:
    """Times the network alone on random inputs, and prints the result.

    Args:
        driver: with `network`.
        options: see `Options`.
        use_xla: compiles the network of a checkpoint with XLA, which takes minutes on a CPU.

    Returns:
        The report, see `report`.

    Raises:
        ValueError: if the driver has no network, or an argument does not suit it.
    """
    _check(driver, options)
    if driver.network is None:
        raise ValueError(
            "this file does not give the outputs of its network, which bm times; "
            "use --runmode=saved_model_benchmark, or give a checkpoint or a file of the network alone"
        )
    network = _compile(driver) if use_xla else driver.network
    inputs = tf.random.stateless_normal([options.batch_size, *driver.config.image_size, 3], seed=[0, 0])
    if isinstance(driver, ArtifactDriver):  # its `network` also converts the outputs to tensors
        network, inputs = driver.runtime.run, np.asarray(inputs)
    stages = {"network": network}
    samples, matmul = _measure(stages, inputs, options.runs)
    about = {"benchmark": "bm", "batch_size": options.batch_size, "use_xla": use_xla, **provenance.describe(driver)}
    return _publish(report(about, samples, matmul), "network", options, lambda: trace(stages, inputs))


def saved_model_benchmark(
    driver: Driver, input_image: str | None = None, options: Options = Options()
) -> dict[str, Any]:
    """Times the pipeline from image files to drawn boxes by stage, and prints the result.

    The stages are `decode` (reads the files), those of the driver, and `draw`. `inference` is the sum of the driver's
    stages, which the two published lines show; `sum` is the sum of all.

    Args:
        driver: any driver.
        input_image: see `images.find_images`, repeated to fill the batch; None generates an image of GENERATED_SIZE.
        options: see `Options`.

    Returns:
        The report, see `report`.

    Raises:
        ValueError: if there is no image, or an argument does not suit the driver.
    """
    _check(driver, options)
    with _paths(input_image, options.batch_size) as paths:
        batch = [image_file.read_pixels(path) for path in paths]
        stages = end_to_end(driver, batch)
        samples, matmul = _measure(stages, paths, options.runs)
        samples |= {"inference": add(samples, driver.stages), "sum": add(samples, stages)}
        about = {
            "benchmark": "saved_model_benchmark",
            "batch_size": options.batch_size,
            "input_image": input_image or "generated",
            "picture_sizes": sorted({f"{image.shape[1]}x{image.shape[0]}" for image in batch}),
            "detections": int(np.sum(driver.serve(batch).valid_len)),
            **provenance.describe(driver),
        }
        return _publish(report(about, samples, matmul), "inference", options, lambda: trace(stages, paths))


def end_to_end(driver: Driver, batch: Sequence[np.ndarray]) -> Stages:
    """The stages from paths to drawn boxes; `batch` are the images at the paths."""

    def draw(detections: Detections) -> list[np.ndarray]:
        rows = zip(batch, detections.boxes, detections.classes, detections.scores, strict=True)
        return [visualize.draw_boxes(*row, names=driver.names) for row in rows]

    return {"decode": lambda paths: [image_file.read_pixels(path) for path in paths], **driver.stages, "draw": draw}


def run_once(stages: Stages, state: Any) -> dict[str, Seconds]:
    """Passes a value through all stages; returns the duration of each."""
    seconds = {}
    for name, stage in stages.items():
        wall, cpu = time.perf_counter(), time.process_time()
        with tf.profiler.experimental.Trace(name):
            state = stage(state)
            tf.test.experimental.sync_devices()  # a GPU still computes when the call returns
        seconds[name] = Seconds(time.perf_counter() - wall, time.process_time() - cpu)
    return seconds


def add(samples: Mapping[str, Sequence[Seconds]], names: Iterable[str]) -> list[Seconds]:
    """The sums of the named stages, per run."""
    return [Seconds(*map(sum, zip(*run))) for run in zip(*(samples[name] for name in names))]


def summarize(seconds: Sequence[Seconds], batch_size: int, matmul: float) -> dict[str, float]:
    """Statistics of one stage over all runs.

    Args:
        seconds: of each run.
        batch_size: images per run.
        matmul: seconds of the matrix product on one core.

    Returns:
        In seconds per batch: mean, median, p90 and p99 (linearly interpolated) of wall time; cpu, the median processor
        time of all threads; calibrated = cpu * CALIBRATION / matmul. Also images_per_second = batch_size / mean.
    """
    wall, cpu = [run.wall for run in seconds], statistics.median(run.cpu for run in seconds)
    mean, (p90, p99) = statistics.fmean(wall), np.percentile(wall, [90, 99]).tolist()
    result = {"mean": mean, "median": statistics.median(wall), "p90": p90, "p99": p99, "cpu": cpu}
    return result | {"calibrated": cpu * CALIBRATION / matmul, "images_per_second": batch_size / mean}


def report(about: Mapping[str, Any], samples: Mapping[str, Sequence[Seconds]], matmul: float) -> dict[str, Any]:
    """Adds to `about` the measurement as values that JSON can store; stages is {name: statistics}."""
    return {
        **about,
        "runs": len(next(iter(samples.values()))),
        "warm_up": WARM_UP,
        "stages": {name: summarize(seconds, about["batch_size"], matmul) for name, seconds in samples.items()},
        "matmul_seconds": matmul,
        "peak_memory_mib": measure.peak_mib(),
    }


def table(result: Mapping[str, Any]) -> Iterator[str]:
    """Formats a report as lines of text."""
    yield (
        f"{result['model_name']} {result['image_size']}, {result['form']} {result['content']} {result['precision']}, "
        f"{result['weights']}; {result['batch_size']} image(s) per batch, {result['runs']} runs after {WARM_UP} others"
    )
    if "detections" in result:
        sizes = ", ".join(result["picture_sizes"])
        yield f"images: {result['input_image']}, {sizes}; {result['detections']} detection(s) per batch"
    width = max(map(len, ["ms per batch", *result["stages"]])) + 2
    yield f"{'ms per batch':<{width}}" + "".join(f"{name:>12}" for name in (*COLUMNS, "images/s"))
    for name, row in result["stages"].items():
        times = "".join(f"{1000 * row[column]:>12.2f}" for column in COLUMNS)
        yield f"{name:<{width}}{times}{row['images_per_second']:>12.2f}"
    yield (
        f"calibration: {CALIBRATION_SIDE}^3 float32 matmul in NumPy on one core {result['matmul_seconds']:.3f} s; "
        f"cpu: median time of all threads; calibrated: cpu x {CALIBRATION:.2f} / {result['matmul_seconds']:.3f}"
    )
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    yield (
        f"device {result['device']}, {result['cpu_name']}, {result['cores']} core(s), "
        f"threads: {result['threads'] or 'chosen by the runtime'}; {versions}"
    )
    yield f"peak memory of the process since its start: {result['peak_memory_mib']:.0f} MiB"


def trace(stages: Stages, state: Any) -> dict[str, Any]:
    """Profiles one run, in the JSON format of chrome://tracing and ui.perfetto.dev.

    The stages are spans of the thread "python", TensorFlow's kernels are spans of its own threads.
    """
    events = []
    for device, plane in enumerate(measure.profile(lambda: run_once(stages, state)).planes):
        for thread, line in enumerate(plane.lines):
            where = {"pid": device, "tid": thread}
            events.append({"ph": "M", "name": "process_name", **where, "args": {"name": plane.name}})
            events.append({"ph": "M", "name": "thread_name", **where, "args": {"name": line.name}})
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                begin, duration = line.timestamp_ns / 1e3 + event.offset_ps / 1e6, event.duration_ps / 1e6  # us
                events.append({"ph": "X", "name": name, "ts": begin, "dur": duration, **where})
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _check(driver: Driver, options: Options) -> None:
    """Raises ValueError for options that would fail, or mislead, after the measurement."""
    size, runs = options.batch_size, options.runs
    if size < 1 or runs < 1:
        raise ValueError(f"expected a batch size and runs of at least 1, got batch_size {size} and {runs} runs")
    runtime = driver.runtime if isinstance(driver, ArtifactDriver) else None
    if runtime and runtime.batch_size not in (None, size):
        raise ValueError(
            f"the file takes {runtime.batch_size} image(s) per call, got batch_size {size}; "
            f"give --batch_size={runtime.batch_size}, or export it with another one"
        )
    if options.trace_filename and isinstance(runtime, provenance.NOT_TENSORFLOW):
        raise ValueError(
            f"--trace_filename traces TensorFlow, and {type(runtime).__name__} files run outside of it; leave it out"
        )
    for path in filter(None, (options.trace_filename, options.json_path)):
        check_file(path)


def _compile(driver: Driver) -> Callable[[tf.Tensor], Any]:
    """The network compiled with XLA."""
    if not isinstance(driver, KerasDriver):
        raise ValueError("--use_xla compiles the network of a checkpoint, not an exported file; leave it out")
    logging.info("compiling the network with XLA; on a CPU this takes minutes")
    return tf.function(lambda inputs: driver.network(inputs), autograph=False, jit_compile=True)


def _measure(stages: Stages, inputs: Any, runs: int) -> tuple[dict[str, list[Seconds]], float]:
    """Durations per stage and run, and the median of the matrix products between the runs."""
    for _ in range(WARM_UP):
        run_once(stages, inputs)
    print(f"Start benchmark runs total={runs}", flush=True)
    samples, matmuls = {name: [] for name in stages}, []
    for i in range(runs):
        if i % -(-runs // MAX_CALIBRATIONS) == 0:
            matmuls.append(measure.calibrate_one_core())
            run_once(stages, inputs)  # not timed, as the matrices have replaced everything in the CPU's caches
        for name, seconds in run_once(stages, inputs).items():
            samples[name].append(seconds)
    return samples, statistics.median(matmuls)


@contextlib.contextmanager
def _paths(input_image: str | None, batch_size: int) -> Iterator[list[str]]:
    """Yields a batch of paths: of the given images, or of a generated JPEG."""
    if input_image:
        paths = images.find_images(input_image)
        yield [paths[i % len(paths)] for i in range(batch_size)]
        return
    scene = scenes.make_scene(0, 0, GENERATED_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "generated.jpg")
        PIL.Image.fromarray(scene.image).save(path, **scenes.JPEG_OPTIONS)
        yield batch_size * [path]


def _publish(result: dict, row: str, options: Options, trace_run: Callable[[], dict]) -> dict[str, Any]:
    """Prints the two published lines for a row of the table, then the table; writes the files; returns the report."""
    print("Per batch inference time: ", result["stages"][row]["mean"])
    print("FPS: ", result["stages"][row]["images_per_second"])
    print(*table(result), sep="\n", flush=True)
    if options.json_path:
        write_file(options.json_path, json.dumps(result, indent=1))
    if options.trace_filename:
        write_file(options.trace_filename, json.dumps(trace_run(), indent=1))
    return result
