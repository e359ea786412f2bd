# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Measures what training costs: the time of a step and of the start, peak memory, and whether memory grows.

    taskset -c 0 python tf2/benchmarks/training.py --what=step --model_name=efficientdet-d0 --profile
    taskset -c 0 python tf2/benchmarks/training.py --what=memory --model_name=efficientdet-d0
    taskset -c 0 python tf2/benchmarks/training.py --what=cycles --hparams=image_size=128

A step is all that main.py does in one: L2, both clips, averages, and all metrics read. Machines differ and are shared,
so a matrix product of fixed size is timed before every step; PUBLISHED was measured on one core that took 0.20 s for
it, and is compared after scaling by the time that it takes here. `taskset` is what makes it one core.
"""

import contextlib
import importlib.metadata
import json
import operator
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as in main.py

from absl import flags

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from dataset import command_line
from efficientdet import config as config_lib
from tf2.benchmarks.reader import PUBLISHED_CALIBRATION, calibrate

FLAGS = flags.FLAGS
SAMPLE = ROOT / "testdata" / "sample.tfrecord"
CYCLE_STEPS = 3
LEAST_SHARE = 0.005  # of a step, for a kernel to get a line
MIB = 2**20


class Published(NamedTuple):
    """Seconds of the published code, on one core, 8 images a step; its step is network, a loss and SGD alone."""

    step: float
    start: float | None  # from the start of building to the end of the first step; None where not measured


PUBLISHED = {  # by model and version of TensorFlow
    ("efficientdet-lite0", "2.15"): Published(1.25, 41),
    ("efficientdet-d0", "2.15"): Published(4.85, 60),
    ("efficientdet-lite0", "2.21"): Published(1.28, None),
    ("efficientdet-d0", "2.21"): Published(5.64, None),
}


class Times(NamedTuple):
    """Seconds of one training's start and of some steps after it, and what was timed between."""

    start: dict[str, float]  # building, tracing, first step
    steps: list[float]
    calibrations: list[float]  # one before each step
    added_mib: float  # peak memory of tracing and first step, above the peak before


class Kernel(NamedTuple):
    """One execution of one operation."""

    name: str  # of the operation, with its scopes
    kind: str
    ms: float


def define_flags() -> None:
    """Defines every flag; a function, so that importing this file defines none."""
    with command_line.group("What is measured"):
        flags.DEFINE_enum("what", "step", list(WHAT), "What to measure; once: the half of memory, as JSON.")
        flags.DEFINE_integer("steps", 5, "Steps to time, after the first.", lower_bound=1)
        flags.DEFINE_integer("cycles", 10, "Epochs of training and evaluation, with --what=cycles.", lower_bound=4)
        flags.DEFINE_bool("profile", False, "With --what=step: also the kernels of one more step.")
    with command_line.group("Of what"):
        flags.DEFINE_string("model_name", "efficientdet-lite0", f"One of {', '.join(config_lib.MODELS)}.")
        flags.DEFINE_string("hparams", "", "Keys of efficientdet/config.py, as in main.py.")
        flags.DEFINE_bool("grad_checkpoint", None, "The key of that name; default: what --hparams says.")
        flags.DEFINE_integer("batch_size", 8, "Images a step.", lower_bound=1)


def random_batch(config: config_lib.Config, batch_size: int) -> tuple[Any, dict]:
    """Images and labels as `InputReader.training` gives them, the same ones each time; ten objects an image."""
    import numpy as np
    import tensorflow as tf

    from efficientdet.model import build_anchors
    from efficientdet.targets import AnchorLabeler

    labeler, rng = AnchorLabeler(build_anchors(config)), np.random.RandomState(0)
    labels = []
    for _ in range(batch_size):
        corners = rng.uniform(0, 0.75, [10, 2])
        corners = np.concatenate([corners, corners + rng.uniform(0.05, 0.25, [10, 2])], -1)
        boxes = corners * np.tile(config.image_size, 2)
        classes = rng.randint(1, config.num_classes + 1, 10)
        targets = labeler.label(tf.constant(boxes, tf.float32), tf.constant(classes, tf.int32))
        labels.append(dict(zip(["cls_targets", "box_targets", "num_positives"], targets)))
    images = tf.constant(rng.normal(size=[batch_size, *config.image_size, 3]), tf.float32)
    return images, tf.nest.map_structure(lambda *values: tf.stack(values), *labels)


def start(config: config_lib.Config, batch_size: int) -> tuple[Callable[[], None], dict[str, float], float]:
    """Builds, traces and takes the first step.

    Returns:
        A function that takes one more step, the seconds that each part of the start took, and the MiB that tracing and
        the first step added to the peak.
    """
    import tensorflow as tf
    import tf_keras as keras

    from tf2.training.trainer import Trainer

    batch = random_batch(config, batch_size)
    keras.utils.set_random_seed(0)
    clock = [time.perf_counter()]
    trainer = Trainer(config, batch_size=batch_size, steps_per_epoch=1000)
    clock.append(time.perf_counter())
    before = peak_mib()
    trainer.train_step.get_concrete_function(*batch)
    clock.append(time.perf_counter())

    def step() -> None:
        tf.nest.map_structure(float, trainer.train_step(*batch))

    step()
    clock.append(time.perf_counter())
    parts = ("building", "tracing", "first step")
    return step, dict(zip(parts, map(operator.sub, clock[1:], clock))), peak_mib() - before


def peak_mib() -> float:
    """The most memory that this process ever had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak * 1024 / MIB


def time_steps(step: Callable[[], None], count: int) -> tuple[list[float], list[float]]:
    """Seconds of the steps, and of the matrix product before each."""
    seconds, calibrations = [], []
    for _ in range(count):
        calibrations.append(calibrate())
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    return seconds, calibrations


def measure_once(config: config_lib.Config) -> Iterator[str]:
    """One line of JSON: the fields of Times."""
    step, seconds, added_mib = start(config, FLAGS.batch_size)
    yield json.dumps(Times(seconds, *time_steps(step, FLAGS.steps), added_mib)._asdict())


def measure_step(config: config_lib.Config) -> Iterator[str]:
    """Lines about the start and the steps after it; with --profile also about the kernels of one."""
    import tensorflow as tf

    yield header(config, tf.__version__)
    step, seconds, added_mib = start(config, FLAGS.batch_size)
    times = Times(seconds, *time_steps(step, FLAGS.steps), added_mib)
    published = PUBLISHED.get((config.name, ".".join(tf.__version__.split(".")[:2])))
    comparable = FLAGS.batch_size == 8 and config == config_lib.load(config.name)
    yield from step_report(times, published if comparable else None)
    if FLAGS.profile:
        yield from kernel_report(kernels(step), config.name)


def header(config: config_lib.Config, version: str) -> str:
    """What is measured where."""
    from tf2.inference import provenance

    size = "x".join(map(str, config.image_size[::-1]))
    return (
        f"{config.name}, {size} pixels, {FLAGS.batch_size} images a step, {provenance.num_cores()} core(s), "
        f"TensorFlow {version}; "
        f"weight_decay {config.weight_decay:g}, clip_gradients_norm {config.clip_gradients_norm}, "
        f"moving_average_decay {config.moving_average_decay:g}"
    )


def step_report(times: Times, published: Published | None) -> Iterator[str]:
    """Medians, and their ratio to what was published where that is comparable."""
    step, matmul = statistics.median(times.steps), statistics.median(times.calibrations)
    begun, parts = sum(times.start.values()), ", ".join(f"{part} {value:.1f}" for part, value in times.start.items())
    lines = [
        f"step: {step:.3f} s, matmul {matmul:.3f} s, ratio {step / matmul:.2f}",
        f"start: {begun:.1f} s ({parts})",
    ]
    for line, ours, theirs in zip(lines, (step, begun), published or (None, None)):
        ratio = ours / matmul / (theirs / PUBLISHED_CALIBRATION) if theirs else None
        yield line + (f"; {ratio:.2f} of the published {theirs:g} s" if theirs else "")


def profile(step: Callable[[], Any]):
    """All that TensorFlow's profiler saw in one call, as an XSpace: planes (devices) of lines (threads) of events."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as directory:
        with tf.profiler.experimental.Profile(directory):
            step()
        [path] = Path(directory).rglob("*.xplane.pb")
        return xplane_pb2.XSpace.FromString(path.read_bytes())


def kernels(step: Callable[[], None]) -> list[Kernel]:
    """All that ran on the CPU in one step."""
    found = []
    for plane in profile(step).planes:
        events = [
            (plane.event_metadata[e.metadata_id], e.duration_ps / 1e9) for line in plane.lines for e in line.events
        ]
        # A kernel is an event "name:type", shown as its type; the others are of the runtime around the kernels.
        found += [
            Kernel(event.name, event.display_name, ms)
            for event, ms in events
            if event.display_name and event.name.endswith(f":{event.display_name}")
        ]
    return found


def kernel_report(found: Sequence[Kernel], network: str) -> Iterator[str]:
    """A table by type of operation and by where it stands: in the network and its gradient, or in the step around."""
    rows, total = defaultdict(list), sum(kernel.ms for kernel in found)
    for kernel in found:
        rows[kernel.kind, "network" if network in kernel.name else "step"].append(kernel.ms)
    yield f"{'kernel':<50}{'of the':>10}{'ms':>10}{'calls':>8}{'share':>8}"
    for (kind, part), ms in sorted(rows.items(), key=lambda row: -sum(row[1])):
        if sum(ms) >= LEAST_SHARE * total:
            yield f"{kind:<50}{part:>10}{sum(ms):>10.1f}{len(ms):>8}{sum(ms) / total:>8.1%}"
    for part in ("network", "step"):
        ms = [ms for (_, other), row in rows.items() if other == part for ms in row]
        yield f"{'all':<50}{part:>10}{sum(ms):>10.1f}{len(ms):>8}{sum(ms) / total:>8.1%}"


def measure_memory(config: config_lib.Config) -> Iterator[str]:
    """Runs this script with and without grad_checkpoint, each in a process of its own."""
    # A process begins with the peak of the one that made it: TensorFlow must not be imported here.
    yield header(config, importlib.metadata.version("tensorflow"))
    times = {}
    for switch in ("false", "true"):
        # Of a flag that comes twice, the last one counts.
        command = [sys.executable, *sys.argv, "--what=once", f"--grad_checkpoint={switch}"]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if result.returncode:
            raise OSError(f"the process with grad_checkpoint={switch} ended with code {result.returncode}, see above")
        times[switch] = Times(**json.loads(result.stdout))
    yield from memory_report(times["false"], times["true"])


def memory_report(without: Times, checkpointed: Times) -> Iterator[str]:
    """Both, and what grad_checkpoint makes of memory and time."""
    ratios = []
    for switch, times in (("false", without), ("true", checkpointed)):
        step, matmul = statistics.median(times.steps), statistics.median(times.calibrations)
        ratios.append(step / matmul)
        yield (
            f"grad_checkpoint={switch}: peak {times.added_mib:.0f} MiB, "
            f"step {step:.3f} s, matmul {matmul:.3f} s, ratio {step / matmul:.2f}"
        )
    yield f"with / without: peak {checkpointed.added_mib / without.added_mib:.3f}, time {ratios[1] / ratios[0]:.2f}"


def measure_cycles(config: config_lib.Config) -> Iterator[str]:
    """Trains and evaluates in this process, as --mode=train_and_eval does, and watches its memory."""
    import tensorflow as tf

    from tf2.evaluation import evaluator
    from tf2.training import train

    resident = []

    class Watched(evaluator.Evaluator):
        def pictures(self, net, count=4):
            pictures = super().pictures(net, count)
            resident.append(resident_mib())
            return pictures

    yield header(config, tf.__version__)
    watched = Watched(config, evaluator.Evaluation(str(SAMPLE)))
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(sys.stderr):  # tables of AP
        training = train.Training(
            directory,
            str(SAMPLE),
            batch_size=FLAGS.batch_size,
            num_examples_per_epoch=CYCLE_STEPS * FLAGS.batch_size,
            seed=0,
        )
        train.run(config.override({"num_epochs": FLAGS.cycles}), training, watched, eval_every_epochs=1)
    yield from cycle_report(resident)


def resident_mib() -> float:
    """Memory of this process now, as Linux tells it."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024 / MIB


def cycle_report(resident: Sequence[float]) -> Iterator[str]:
    """MiB after each cycle, and the last against the third: the first ones still compile and warm up."""
    for i, mib in enumerate(resident, 1):
        yield f"after cycle {i}: {mib:.0f} MiB"
    yield f"after cycle {len(resident)} / after cycle 3: {resident[-1] / resident[2]:.3f}"


WHAT = {"step": measure_step, "memory": measure_memory, "cycles": measure_cycles, "once": measure_once}


def main() -> None:
    config = config_lib.load(FLAGS.model_name, FLAGS.hparams, grad_checkpoint=FLAGS.grad_checkpoint)
    for line in WHAT[FLAGS.what](config):
        print(line, flush=True)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
