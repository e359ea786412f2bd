# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Measures how many images a second the input pipeline makes, from files to batches, without a cache.

    taskset -c 0 python tf2/benchmarks/reader.py --file_pattern='bccd/trainval-*' --hparams=num_classes=4
    taskset -c 0 python tf2/benchmarks/reader.py --file_pattern='coco/val-*' --model_names=efficientdet-d2 --stages
    python tf2/benchmarks/reader.py --file_pattern='coco/train-*' --batch_size=64 --num_images=5000

Machines differ and are shared, so a matrix product of fixed size is timed before and after every run. With images of
640x480, the published pipeline made what PUBLISHED says on one core that took 0.20 s for it; the last column compares
after scaling by the time that it takes here. `taskset` is what makes it one core.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as in main.py

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from dataset import command_line
from efficientdet import config as config_lib

FLAGS = flags.FLAGS
PUBLISHED = {  # images a second on one core, records of 640x480 pixels
    ("efficientdet-lite0", "training"): 73,
    ("efficientdet-lite0", "evaluation"): 72,
    ("efficientdet-d0", "training"): 67,
    ("efficientdet-d0", "evaluation"): 53,
}
PUBLISHED_CALIBRATION = 0.20  # seconds
CALIBRATION_SIDE = 2048
WARM_UP_IMAGES = 320


def define_flags() -> None:
    with command_line.group("Records"):
        flags.DEFINE_string("file_pattern", None, "Glob of the records, in quotes.", required=True)
        flags.DEFINE_integer("num_images", 1000, "Images to time, after a warm-up.", lower_bound=1)
        flags.DEFINE_integer("batch_size", 8, "Images a batch.", lower_bound=1)
    with command_line.group("What is measured"):
        flags.DEFINE_list("model_names", ["efficientdet-lite0", "efficientdet-d0"], "Models, separated by commas.")
        flags.DEFINE_string("hparams", "", "Keys of efficientdet/config.py for all of them.")
        flags.DEFINE_bool("stages", False, "Also times what the pipeline does by stage, each with all before it.")


def calibrate(clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of a clock for the product of two matrices in NumPy."""
    import numpy as np

    matrix = np.ones([CALIBRATION_SIDE, CALIBRATION_SIDE], np.float32)
    start = clock()
    matrix @ matrix
    return clock() - start


def images_per_second(dataset: Iterable, num_images: int, is_batched: bool) -> float:
    """Takes elements of an endless dataset, every tensor of each; is_batched: whether they are batches of images."""
    import tensorflow as tf

    from dataset import dataloader

    iterator = iter(dataset)

    def take(number: int) -> int:
        taken = 0
        with dataloader.plain_errors():
            while taken < number:
                arrays = [tensor.numpy() for tensor in tf.nest.flatten(next(iterator))]
                taken += len(arrays[0]) if is_batched else 1  # the last batch of a pass may be smaller
        return taken

    take(WARM_UP_IMAGES)
    start = time.perf_counter()
    return take(num_images) / (time.perf_counter() - start)


def pipelines(config: config_lib.Config, stages: bool) -> dict[str, tuple[Iterable, bool]]:
    """What to time: name -> (endless dataset, whether its elements are batches)."""
    import tensorflow as tf

    from dataset import tfrecord
    from dataset.dataloader import InputReader

    size = FLAGS.batch_size
    reader = InputReader(FLAGS.file_pattern, config)
    runs = {
        "training": (reader.training(size, seed=1, num_examples=1), True),
        "evaluation": (reader.evaluation(size).repeat(), True),
    }
    if stages:
        records = tf.data.Dataset.range(len(reader.records.files)).repeat().flat_map(reader.records.read)
        images = records.map(lambda _, record: tfrecord.decode(record), num_parallel_calls=tf.data.AUTOTUNE)
        runs |= {
            "records": (records, False),
            "records, whole images decoded": (images, False),
            "training, before targets and batches": (reader.augmented(seed=1), False),
        }
    return runs


def main() -> None:
    configs = {name: config_lib.load(name, FLAGS.hparams) for name in FLAGS.model_names}
    print(f"{len(os.sched_getaffinity(0))} core(s)") if hasattr(os, "sched_getaffinity") else None
    print(f"{'model':<20}{'pipeline':<40}{'images/s':>10}{'matmul s':>10}{'x published':>13}")
    calibrate()
    for name, config in configs.items():
        for pipeline, (dataset, is_batched) in pipelines(config, FLAGS.stages).items():
            before = calibrate()
            speed = images_per_second(dataset, FLAGS.num_images, is_batched)
            seconds = (before + calibrate()) / 2
            published = PUBLISHED.get((name, pipeline))
            ratio = f"{speed / published * seconds / PUBLISHED_CALIBRATION:.2f}" if published else ""
            print(f"{name:<20}{pipeline:<40}{speed:>10.1f}{seconds:>10.3f}{ratio:>13}", flush=True)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
