# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Measures the cost of training: time of a step, of the start and of an evaluation, memory, and speed of reading.

    taskset -c 0 python tf2/benchmarks/training.py --what=step --model_name=efficientdet-d0 --profile
    taskset -c 0 python tf2/benchmarks/training.py --what=step --model_name=efficientdet-lite0 --use_xla
    taskset -c 0 python tf2/benchmarks/training.py --what=memory --model_name=efficientdet-d0
    taskset -c 0 python tf2/benchmarks/training.py --what=cycles --hparams=image_size=128
    taskset -c 0 python tf2/benchmarks/training.py --what=reading --file_pattern='bccd/trainval-*' --stages
    python tf2/benchmarks/training.py --what=evaluation --devices=2 --file_pattern='bccd/test-*'

step is a full training step of main.py on random images: L2 loss, both clips, moving averages, all metrics read;
--use_xla compares it with the step that XLA compiles, by processor time and in turn. memory compares such steps with
and without grad_checkpoint. cycles trains and evaluates repeatedly and reports whether memory grows. reading times the
input pipeline from records to batches, without a cache. evaluation compares passes on one device and on several logical
ones, which share the cores.

Each result is printed beside the time of a matrix product of fixed size, and compared with the published code after
scaling by it; `taskset` restricts the run to one core, as in the published code's measurement.
"""

import concurrent.futures
import contextlib
import functools
import multiprocessing
import operator
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from dataset import command_line
from efficientdet import config as config_lib
from tf2.benchmarks import measure

FLAGS = flags.FLAGS
SAMPLE = ROOT / "testdata" / "sample.tfrecord"
CYCLE_STEPS = 3
WARM_UP_IMAGES = 320  # read before the clock starts
MIN_SHARE = 0.005  # of the time of a step, for a kernel to be listed
# The published code on one core. Seconds of a step (8 images; network, loss and SGD alone) and of the start (from
# building to the end of the first step; None if not measured); images per second from records of 640x480 pixels.
PUBLISHED_STEP = {
    ("efficientdet-lite0", "2.15"): (1.25, 41),
    ("efficientdet-d0", "2.15"): (4.85, 60),
    ("efficientdet-lite0", "2.21"): (1.28, None),
    ("efficientdet-d0", "2.21"): (5.64, None),
}
PUBLISHED_READING = {
    ("efficientdet-lite0", "training"): 73,
    ("efficientdet-lite0", "evaluation"): 72,
    ("efficientdet-d0", "training"): 67,
    ("efficientdet-d0", "evaluation"): 53,
}


class Times(NamedTuple):
    """Seconds of the start of a training and of the steps after it."""

    start: dict[str, float]  # building, tracing, first step
    steps: list[float]
    matmuls: list[float]  # one matrix product before each step
    added_mib: float  # peak memory after the first step, minus the peak before tracing


def define_flags() -> None:
    """Defines all flags; not done at import time."""
    with command_line.group("Measurement"):
        flags.DEFINE_enum("what", "step", list(WHAT), "The quantity to measure.")
        flags.DEFINE_string("model_name", "efficientdet-lite0", f"One of {', '.join(config_lib.MODELS)}.")
        flags.DEFINE_string("hparams", "", "Keys of efficientdet/config.py, as in main.py.")
        flags.DEFINE_integer("batch_size", 8, "Images per step or batch.", lower_bound=1)
    with command_line.group("Training", ["step", "memory", "cycles"]):
        flags.DEFINE_integer("steps", 5, "Steps to time after the first one (step, memory).", lower_bound=1)
        flags.DEFINE_bool("profile", False, "Also list the kernels of one more step (step).")
        flags.DEFINE_bool("use_xla", False, "Also compile the step with XLA, and compare processor times (step).")
        flags.DEFINE_integer("cycles", 10, "Epochs of training and evaluation (cycles).", lower_bound=4)
    with command_line.group("Evaluation", ["evaluation"]):
        flags.DEFINE_integer("devices", 2, "Logical devices of the CPU.", lower_bound=2)
        flags.DEFINE_integer(
            "passes", 3, "Passes on each number of devices, after one that is not timed.", lower_bound=1
        )
    with command_line.group("Records", ["reading", "evaluation"]):
        flags.DEFINE_string("file_pattern", None, "Glob of the TFRecords, in quotes.")
        flags.DEFINE_integer("num_images", 1000, "Images to time after a warm-up.", lower_bound=1)
        flags.DEFINE_bool("stages", False, "Also time the first stages of the pipeline alone.")


def main() -> None:
    """Prints the measurement."""
    if FLAGS.what in ("reading", "evaluation") and not FLAGS.file_pattern:
        raise ValueError(f"--what={FLAGS.what} needs --file_pattern")
    for line in WHAT[FLAGS.what](config_lib.load(FLAGS.model_name, FLAGS.hparams)):
        print(line, flush=True)


def measure_step(config: config_lib.Config) -> Iterator[str]:
    """Times the start and the steps after it; with --profile also lists the kernels of one step."""
    import tensorflow as tf

    yield header(config)
    times, step = train_steps(config, FLAGS.batch_size, FLAGS.steps)
    published = PUBLISHED_STEP.get((config.name, ".".join(tf.__version__.split(".")[:2])))
    is_comparable = FLAGS.batch_size == 8 and config == config_lib.load(config.name)
    yield from step_report(times, published if is_comparable else None)
    if FLAGS.profile:
        yield from kernel_report(kernels(step), config.name)
    if FLAGS.use_xla:
        compiled, compiled_step = train_steps(config, FLAGS.batch_size, 0, use_xla=True)
        yield from xla_report(compiled, step, compiled_step, FLAGS.steps)


def measure_memory(config: config_lib.Config) -> Iterator[str]:
    """Runs steps with and without grad_checkpoint, each in a new process, as a peak never falls."""
    times = []
    for grad_checkpoint in (False, True):
        variant = config.override({"grad_checkpoint": grad_checkpoint})
        try:
            with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
                times.append(executor.submit(step_times, variant, FLAGS.batch_size, FLAGS.steps).result())
        except concurrent.futures.BrokenExecutor as error:
            message = f"the process with grad_checkpoint={grad_checkpoint} was killed; lower --batch_size"
            raise OSError(message) from error
    yield header(config)  # only now: it imports TensorFlow, and child processes inherit the peak of this one
    yield from memory_report(*times)


def measure_cycles(config: config_lib.Config) -> Iterator[str]:
    """Trains and evaluates in this process, as --mode=train_and_eval does, and records its memory."""
    from tf2.evaluation import evaluator
    from tf2.training import train

    resident = []

    class RecordingEvaluator(evaluator.Evaluator):
        def draw_images(self, net):  # once at the end of each evaluation, of which the last has two runs
            images = super().draw_images(net)
            resident.append(measure.resident_mib())
            return images

    yield header(config)
    recording = RecordingEvaluator(config, evaluator.Evaluation(str(SAMPLE)))
    batch_size = FLAGS.batch_size
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(sys.stderr):  # tables of AP
        training = train.Training(
            directory, str(SAMPLE), batch_size=batch_size, num_examples_per_epoch=CYCLE_STEPS * batch_size, seed=0
        )
        train.run(config.override({"num_epochs": FLAGS.cycles}), training, recording, eval_every_epochs=1)
    yield from cycle_report(resident)


def measure_reading(config: config_lib.Config) -> Iterator[str]:
    """Times the input pipelines of training and evaluation; with --stages also their first stages."""
    yield header(config)
    yield f"{'pipeline':<40}{'images/s':>10}{'matmul s':>10}{'x published':>13}"
    measure.calibrate()
    for name, (dataset, is_batched) in pipelines(config).items():
        before = measure.calibrate()
        speed = images_per_second(dataset, FLAGS.num_images, is_batched)
        matmul = (before + measure.calibrate()) / 2
        published = PUBLISHED_READING.get((config.name, name))
        ratio = f"{speed / published * matmul / measure.CALIBRATION:.2f}" if published else ""
        yield f"{name:<40}{speed:>10.1f}{matmul:>10.3f}{ratio:>13}"


def measure_evaluation(config: config_lib.Config) -> Iterator[str]:
    """Times passes on one device and on several logical ones, alternately, with random weights."""
    import tensorflow as tf

    from tf2.evaluation.evaluator import Evaluation, Evaluator
    from tf2.inference.drivers import KerasDriver

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * FLAGS.devices)
    yield header(config)
    seconds = {1: [], FLAGS.devices: []}  # (wall, processor) per pass
    passes = {}
    for count in seconds:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)])
        with strategy.scope():
            network = KerasDriver(config, None).network
        evaluator = Evaluator(config, Evaluation(FLAGS.file_pattern, batch_size=FLAGS.batch_size), strategy)
        passes[count] = functools.partial(evaluator.evaluate, network)
        passes[count]()
    for _ in range(FLAGS.passes):
        for count, evaluate in passes.items():
            start = time.perf_counter(), time.process_time()
            num_images = evaluate().num_images
            seconds[count].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    for count, times in seconds.items():
        wall, processor = (1000 * statistics.median(column) / num_images for column in zip(*times))
        yield f"{count} device(s): {wall:.1f} ms per image, {processor:.1f} ms of processor time"


WHAT = {
    "step": measure_step,
    "memory": measure_memory,
    "cycles": measure_cycles,
    "reading": measure_reading,
    "evaluation": measure_evaluation,
}


def header(config: config_lib.Config) -> str:
    """The first line: configuration and machine."""
    import tensorflow as tf

    from tf2.inference import runtimes

    size = "x".join(map(str, config.image_size[::-1]))
    return (
        f"{config.name}, {size} pixels, batch size {FLAGS.batch_size}, {runtimes.num_cores()} core(s), "
        f"TensorFlow {tf.__version__}; "
        f"weight_decay {config.weight_decay:g}, clip_gradients_norm {config.clip_gradients_norm}, "
        f"moving_average_decay {config.moving_average_decay:g}"
    )


def train_steps(
    config: config_lib.Config, batch_size: int, count: int, *, use_xla: bool = False
) -> tuple[Times, Callable[[], None]]:
    """Builds and traces a training, and runs its first step and `count` more.

    Returns:
        The times, and a function that runs one more step.
    """
    import tensorflow as tf
    import tf_keras as keras

    from tf2.benchmarks.random_batch import random_batch
    from tf2.training.trainer import Trainer

    batch = random_batch(config, batch_size)
    keras.utils.set_random_seed(0)
    clock = [time.perf_counter()]
    trainer = Trainer(config, batch_size=batch_size, steps_per_epoch=1000, use_xla=use_xla)
    clock.append(time.perf_counter())
    peak_before = measure.peak_mib()
    trainer.train_step.get_concrete_function(*batch)
    clock.append(time.perf_counter())

    def step() -> None:
        tf.nest.map_structure(float, trainer.train_step(*batch))

    step()
    clock.append(time.perf_counter())
    start = dict(zip(("building", "tracing", "first step"), map(operator.sub, clock[1:], clock)))
    added_mib = measure.peak_mib() - peak_before
    steps, matmuls = [], []
    for _ in range(count):
        matmuls.append(measure.calibrate())
        begin = time.perf_counter()
        step()
        steps.append(time.perf_counter() - begin)
    return Times(start, steps, matmuls, added_mib), step


def step_times(config: config_lib.Config, batch_size: int, count: int) -> Times:
    """The times of `train_steps`, which another process can return."""
    return train_steps(config, batch_size, count)[0]


def step_report(times: Times, published: tuple[float, float | None] | None) -> Iterator[str]:
    """Medians, and their calibrated ratio to the published figures."""
    step, matmul = statistics.median(times.steps), statistics.median(times.matmuls)
    start, parts = sum(times.start.values()), ", ".join(f"{part} {value:.1f}" for part, value in times.start.items())
    lines = [
        f"step: {step:.3f} s, matmul {matmul:.3f} s, ratio {step / matmul:.2f}",
        f"start: {start:.1f} s ({parts})",
    ]
    for line, ours, theirs in zip(lines, (step, start), published or (None, None)):
        ratio = ours / matmul / (theirs / measure.CALIBRATION) if theirs else None
        yield line + (f"; {ratio:.2f} of the published {theirs:g} s" if theirs else "")


def xla_report(
    compiled: Times, step: Callable[[], None], compiled_step: Callable[[], None], count: int
) -> Iterator[str]:
    """The start of a training compiled by XLA, and the medians of processor times of `count` steps without and with."""
    seconds = {step: [], compiled_step: []}
    for run in [*seconds] * count:
        begin = time.process_time()
        run()
        seconds[run].append(time.process_time() - begin)
    without, with_xla = (statistics.median(values) for values in seconds.values())
    parts = ", ".join(f"{part} {value:.1f}" for part, value in compiled.start.items())
    yield f"start with XLA: {sum(compiled.start.values()):.1f} s ({parts})"
    yield (
        f"processor time of a step: {without:.3f} s, with XLA {with_xla:.3f} s, with / without {with_xla / without:.2f}"
    )


def memory_report(without: Times, checkpointed: Times) -> Iterator[str]:
    """Peak memory and step time of both runs, and their ratios."""
    ratios = []
    for switch, times in (("false", without), ("true", checkpointed)):
        step, matmul = statistics.median(times.steps), statistics.median(times.matmuls)
        ratios.append(step / matmul)
        yield (
            f"grad_checkpoint={switch}: peak {times.added_mib:.0f} MiB, "
            f"step {step:.3f} s, matmul {matmul:.3f} s, ratio {step / matmul:.2f}"
        )
    yield f"with / without: peak {checkpointed.added_mib / without.added_mib:.3f}, time {ratios[1] / ratios[0]:.2f}"


def cycle_report(resident: Sequence[float]) -> Iterator[str]:
    """Memory after each cycle, and the last one relative to the third; the first two still trace and warm up."""
    yield from (f"after cycle {i}: {mib:.0f} MiB" for i, mib in enumerate(resident, 1))
    yield f"after cycle {len(resident)} / after cycle 3: {resident[-1] / resident[2]:.3f}"


def kernels(step: Callable[[], None]) -> list[tuple[str, str, float]]:
    """(name of the operation with its scopes, type, ms) of every kernel that one step runs on the CPU."""
    found = []
    for plane in measure.profile(step).planes:
        for event in (event for line in plane.lines for event in line.events):
            metadata = plane.event_metadata[event.metadata_id]
            # A kernel is an event "name:type" shown as its type; all others belong to the runtime around the kernels.
            if metadata.display_name and metadata.name.endswith(f":{metadata.display_name}"):
                found.append((metadata.name, metadata.display_name, event.duration_ps / 1e9))
    return found


def kernel_report(found: Sequence[tuple[str, str, float]], network: str) -> Iterator[str]:
    """A table by type of operation, separately for the network with its gradient and for the rest of the step."""
    rows, total = defaultdict(list), sum(ms for *_, ms in found)
    for name, kind, ms in found:
        rows[kind, "network" if network in name else "step"].append(ms)
    shown = [row for row in sorted(rows.items(), key=lambda row: -sum(row[1])) if sum(row[1]) >= MIN_SHARE * total]
    for part in ("network", "step"):
        shown.append((("all", part), [ms for (_, other), row in rows.items() if other == part for ms in row]))
    yield f"{'kernel':<50}{'of the':>10}{'ms':>10}{'calls':>8}{'share':>8}"
    for (kind, part), ms in shown:
        yield f"{kind:<50}{part:>10}{sum(ms):>10.1f}{len(ms):>8}{sum(ms) / total:>8.1%}"


def pipelines(config: config_lib.Config) -> dict[str, tuple[Iterable, bool]]:
    """The pipelines to time: name -> (endless dataset, True if its elements are batches)."""
    import tensorflow as tf

    from dataset import tfrecord
    from dataset.dataloader import InputReader

    size = FLAGS.batch_size
    reader = InputReader(FLAGS.file_pattern, config)
    runs = {
        "training": (reader.training(size, seed=1, num_examples=1), True),
        "evaluation": (reader.evaluation(size).repeat(), True),
    }
    if FLAGS.stages:
        records = tf.data.Dataset.range(len(reader.records.files)).repeat().flat_map(reader.records.read)
        images = records.map(lambda _, record: tfrecord.decode(record), num_parallel_calls=tf.data.AUTOTUNE)
        runs |= {
            "records": (records, False),
            "records, whole images decoded": (images, False),
            "training, before targets and batches": (reader.augmented(seed=1), False),
        }
    return runs


def images_per_second(dataset: Iterable, num_images: int, is_batched: bool) -> float:
    """Reads every tensor of an endless dataset, for `num_images` images after WARM_UP_IMAGES others."""
    import tensorflow as tf

    from dataset import dataloader

    iterator = dataloader.iterate(dataset)

    def take(number: int) -> int:
        taken = 0
        with dataloader.data_errors():
            while taken < number:
                arrays = [tensor.numpy() for tensor in tf.nest.flatten(next(iterator))]
                taken += len(arrays[0]) if is_batched else 1  # the last batch of a pass may be smaller
        return taken

    take(WARM_UP_IMAGES)
    start = time.perf_counter()
    return take(num_images) / (time.perf_counter() - start)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
