# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Measures what COCO's metrics cost, on random boxes: CocoMetric with each of its backends, against pycocotools alone.

    taskset -c 0 python tf2/benchmarks/metric.py
    taskset -c 0 python tf2/benchmarks/metric.py --num_images=500 --num_classes=20
    taskset -c 0 python tf2/benchmarks/metric.py --num_images=500 --once=pycocotools

pycocotools alone starts from lists of rows that are ready, as read from a file; CocoMetric from batches of arrays. Each
runs in a process of its own, so that peaks of memory are its own. Machines differ and are shared, so a matrix product
of fixed size is timed around every run; the last columns compare after scaling by the time that it takes. `taskset` is
what makes it one core.
"""

import contextlib
import importlib.util
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as in main.py

import numpy as np
from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from dataset import command_line
from tf2.benchmarks.reader import calibrate
from tf2.benchmarks.training import peak_mib, resident_mib

FLAGS = flags.FLAGS
ALONE = "pycocotools alone"
SIDE = 640  # pixels of an image
FOUND = 0.7  # share of the objects that have a detection near them
CROWDS = 0.02  # share of the objects
MASK = 0.6  # of a box, on average; the area of an object is that of its mask
BATCH_SIZE = 8
CALIBRATIONS = 3  # before a run, and after it
EQUAL = 1e-12  # the backends round differently


class Image(NamedTuple):
    """Detections and objects of one image; boxes [ymin, xmin, ymax, xmax] in pixels."""

    boxes: np.ndarray  # [D, 4] float32
    scores: np.ndarray  # [D] float32, many of them equal
    classes: np.ndarray  # [D] int32, from 1
    groundtruth: dict[str, np.ndarray]  # as CocoMetric.add takes it


class Measurement(NamedTuple):
    """One run."""

    seconds: float
    cpu_seconds: float
    matmul: float  # CPU seconds of the matrix product, median
    added_mib: float  # peak memory, above what data and imports take
    stats: list[float]  # COCO's twelve metrics


def define_flags() -> None:
    """Defines every flag; a function, so that importing this file defines none."""
    with command_line.group("Random boxes"):
        flags.DEFINE_integer("num_images", 5000, "Images.", lower_bound=1)
        flags.DEFINE_integer("num_detections", 100, "Detections an image.", lower_bound=1)
        flags.DEFINE_integer("num_classes", 80, "Classes.", lower_bound=1)
        flags.DEFINE_integer("num_objects", 7, "Objects an image, on average.", lower_bound=1)
        flags.DEFINE_integer("seed", 0, "Another seed, other boxes.")
    with command_line.group("What is measured"):
        flags.DEFINE_string(
            "once",
            None,
            f"One run as JSON, in this process: {ALONE!r}, or a backend of CocoMetric; default: a table of all.",
        )


def random_images(
    num_images: int, num_detections: int, num_classes: int, num_objects: int, *, seed: int
) -> list[Image]:
    """Objects anywhere, detections near most of them, and as many others as are missing; the same ones each time."""
    rng = np.random.default_rng(seed)

    def anywhere(count: int) -> np.ndarray:
        sides = SIDE * rng.uniform(0.02, 0.5, [count, 2])
        corners = rng.uniform(0, SIDE - sides)
        return np.concatenate([corners, corners + sides], -1)

    images = []
    for _ in range(num_images):
        count = rng.poisson(num_objects)
        objects, classes = anywhere(count), rng.integers(1, num_classes + 1, count)
        sides = np.tile(objects[:, 2:] - objects[:, :2], 2)
        near = np.flatnonzero(rng.random(count) < FOUND)[:num_detections]
        others = num_detections - len(near)
        images.append(
            Image(
                np.float32(np.concatenate([rng.normal(objects, 0.05 * sides)[near], anywhere(others)])),
                np.float32(rng.random(num_detections)).round(2),
                np.int32(np.concatenate([classes[near], rng.integers(1, num_classes + 1, others)])),
                {
                    "boxes": np.float32(objects),
                    "classes": np.int32(classes),
                    "is_crowd": rng.random(count) < CROWDS,
                    "area": np.float32(sides[:, 0] * sides[:, 1] * rng.uniform(2 * MASK - 1, 1, count)),
                },
            )
        )
    return images


def pycocotools_alone(images: list[Image]) -> Callable[[], list[float]]:
    """A function that scores the images, of which COCO's rows are made here."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    objects, results = [], []
    for image_id, (boxes, scores, classes, groundtruth) in enumerate(images, 1):
        for box, score, category in zip(xywh(boxes), scores.tolist(), classes.tolist()):
            results.append({"image_id": image_id, "category_id": category, "bbox": box, "score": score})
        columns = (groundtruth[name].tolist() for name in ("classes", "is_crowd", "area"))
        for box, category, is_crowd, area in zip(xywh(groundtruth["boxes"]), *columns):
            row = {"image_id": image_id, "category_id": category, "bbox": box, "area": area, "iscrowd": int(is_crowd)}
            objects.append({**row, "id": len(objects) + 1})

    def score() -> list[float]:
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i} for i in range(1, len(images) + 1)],
            "categories": [{"id": i} for i in sorted({row["category_id"] for row in objects})],
            "annotations": objects,
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation.stats.tolist()

    return score


def xywh(boxes: np.ndarray) -> list[list[float]]:
    """Rows of COCO's [xmin, ymin, width, height]."""
    return [[x0, y0, x1 - x0, y1 - y0] for y0, x0, y1, x1 in np.float64(boxes).tolist()]


def coco_metric(images: list[Image], backend: str) -> Callable[[], list[float]]:
    """A function that adds the images to a CocoMetric and scores them."""
    from efficientdet.postprocess import Detections
    from tf2.evaluation.coco_metric import METRICS, CocoMetric

    def score() -> list[float]:
        metric = CocoMetric(backend=backend)
        for start in range(0, len(images), BATCH_SIZE):
            boxes, scores, classes, groundtruth = zip(*images[start : start + BATCH_SIZE])
            columns = [np.stack(column) for column in (boxes, scores, classes)]
            valid_len = np.array([len(column) for column in scores], np.int32)
            # Source ids do not count, as the groundtruth is that of the batches.
            metric.add([""] * len(scores), Detections(*columns, valid_len), groundtruth)
        result = metric.result()
        return [result[name] for name in METRICS]

    return score


def measure(score: Callable[[], list[float]]) -> Measurement:
    """Runs it once."""
    calibrations = [calibrate(time.process_time) for _ in range(CALIBRATIONS)]
    before, clock = resident_mib(), (time.perf_counter(), time.process_time())
    with contextlib.redirect_stdout(io.StringIO()):
        stats = score()
    seconds, cpu_seconds = time.perf_counter() - clock[0], time.process_time() - clock[1]
    added_mib = peak_mib() - before
    calibrations += [calibrate(time.process_time) for _ in range(CALIBRATIONS)]
    return Measurement(seconds, cpu_seconds, statistics.median(calibrations), added_mib, stats)


def measure_once(name: str) -> Measurement:
    """One of the runs, in this process."""
    sizes = (FLAGS.num_images, FLAGS.num_detections, FLAGS.num_classes, FLAGS.num_objects)
    images = random_images(*sizes, seed=FLAGS.seed)
    return measure(pycocotools_alone(images) if name == ALONE else coco_metric(images, name))


def measure_all() -> Iterator[tuple[str, Measurement]]:
    """Runs this script once for each, in a process of its own."""
    # BACKENDS of CocoMetric; but its import would bring TensorFlow, and its memory, into this process.
    names = [ALONE, "pycocotools", *(["faster-coco-eval"] if importlib.util.find_spec("faster_coco_eval") else [])]
    for name in names:
        command = [sys.executable, *sys.argv, f"--once={name}"]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if result.returncode:
            raise OSError(f"the process of {name!r} ended with code {result.returncode}, see above")
        yield name, Measurement(**json.loads(result.stdout))


def report(runs: Iterator[tuple[str, Measurement]]) -> Iterator[str]:
    """A line for each; the first one is what the others are compared with."""
    yield f"{'':<35}{'seconds':>9}{'CPU s':>9}{'matmul s':>10}{'MiB':>8}{'time':>8}{'memory':>8}  the twelve metrics"
    first = None
    for name, run in runs:
        first = first or run
        label = name if name == ALONE else f"CocoMetric, {name}"
        ratios = run.cpu_seconds / run.matmul / (first.cpu_seconds / first.matmul), run.added_mib / first.added_mib
        apart = max(abs(a - b) for a, b in zip(run.stats, first.stats))
        same = f"AP {run.stats[0]:.4f}" if run is first else "equal" if apart < EQUAL else f"apart by {apart:.1e}"
        yield (
            f"{label:<35}{run.seconds:>9.1f}{run.cpu_seconds:>9.1f}{run.matmul:>10.3f}{run.added_mib:>8.0f}"
            f"{ratios[0]:>8.2f}{ratios[1]:>8.2f}  {same}"
        )


def main() -> None:
    if FLAGS.once:
        print(json.dumps(measure_once(FLAGS.once)._asdict()))
        return
    print(
        f"{FLAGS.num_images} images, {FLAGS.num_detections} detections and about {FLAGS.num_objects} objects each, "
        f"{FLAGS.num_classes} classes"
    )
    for line in report(measure_all()):
        print(line, flush=True)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
