# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Exports network, training step and evaluation step to OpenXLA, and runs or compiles them with JAX alone.

    python tf2/benchmarks/openxla.py export /tmp/d0 --model_name=efficientdet-d0 --precision=bfloat16
    python tf2/benchmarks/openxla.py run /tmp/d0
    python tf2/benchmarks/openxla.py compile /tmp/d0 --topology=v5e:2x2

export needs TensorFlow 2.20 or later; it writes StableHLO, random inputs, and the outputs that TensorFlow computes from
them on a CPU without XLA. run and compile need JAX instead, in an environment of its own (requirements-openxla.txt).
run takes the folder to any device of JAX, compares the outputs and times them. compile needs no such device: it
compiles for one device of a TPU and reports the memory that the program takes there, its operations and memory traffic.
With --memory_only it stops when that memory is known, after a tenth of the time.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import flags

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from dataset import command_line
from efficientdet import config as config_lib

FLAGS = flags.FLAGS
PROGRAMS = ("network", "training_step", "evaluation_step")
# Of libtpu, which otherwise asks the metadata server of Google Cloud and runs in one process alone, and of JAX, which
# otherwise looks for a TPU.
ABSENT_TPU = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def define_flags() -> None:
    """Defines all flags; not done at import time."""
    flags.DEFINE_list("programs", None, f"Some of {', '.join(PROGRAMS)}; all without it.")
    with command_line.group("Export", ["export"]):
        flags.DEFINE_string("model_name", "efficientdet-lite0", f"One of {', '.join(config_lib.MODELS)}.")
        flags.DEFINE_string("hparams", "", "Keys of efficientdet/config.py, as in main.py.")
        flags.DEFINE_integer("batch_size", 8, "Images per step.", lower_bound=1)
        flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16", "float16"], "Precision of the layers.")
        flags.DEFINE_bool("expected", True, "Also stores inputs and outputs, which run needs.")
    with command_line.group("Run", ["run"]):
        flags.DEFINE_integer("runs", 10, "Runs to time after a warm-up.", lower_bound=1)
        flags.DEFINE_float("tolerance", None, "Largest deviation from TensorFlow; by precision without it.")
    with command_line.group("Compile", ["compile"]):
        flags.DEFINE_string("topology", "v5e:2x2", "TPU and its layout, such as v5e:2x2 or v4:2x2x1.")
        flags.DEFINE_bool("memory_only", False, "Stops when the memory is known, after a tenth of the time.")


def main(command: str, folder: str) -> None:
    """Runs a command and prints its report."""
    if command not in COMMANDS:
        raise ValueError(f"expected one of {', '.join(COMMANDS)}, got {command!r}")
    if unused := command_line.unused(command):
        raise ValueError(f"--{unused[0]} has no effect with {command}; leave it out")
    if unknown := sorted({*(FLAGS.programs or ())} - {*PROGRAMS}):
        raise ValueError(f"--programs takes {', '.join(PROGRAMS)}, got {unknown[0]!r}")
    for line in COMMANDS[command](folder):
        print(line, flush=True)


def export(folder: str) -> Iterator[str]:
    """Exports the programs."""
    config = config_lib.load(FLAGS.model_name, FLAGS.hparams)
    try:
        from tf2.benchmarks import openxla_export
    except ModuleNotFoundError as error:
        raise ValueError(
            f"export needs TensorFlow ({error}): python -m pip install -r requirements.txt -c constraints-py313.txt"
        ) from error
    options = openxla_export.Options(FLAGS.programs or PROGRAMS, FLAGS.batch_size, FLAGS.precision, FLAGS.expected)
    return openxla_export.export(config, folder, options)


def run(folder: str) -> Iterator[str]:
    """Runs the programs on JAX's default device."""
    return _jax_side().run(Path(folder), FLAGS.programs or (), runs=FLAGS.runs, tolerance=FLAGS.tolerance)


def compile_programs(folder: str) -> Iterator[str]:
    """Compiles the programs for a TPU."""
    for name, value in ABSENT_TPU.items():
        os.environ.setdefault(name, value)
    names = FLAGS.programs or ()
    return _jax_side().compile_for(Path(folder), names, FLAGS.topology, memory_only=FLAGS.memory_only)


COMMANDS = {"export": export, "run": run, "compile": compile_programs}


def _jax_side():
    """Returns the module that needs JAX, which is imported late because export runs where there is none."""
    try:
        from tf2.benchmarks import openxla_jax
    except ModuleNotFoundError as error:
        raise ValueError(
            f"run and compile need JAX ({error}), best in an environment of its own: "
            "python -m pip install -r requirements-openxla.txt"
        ) from error
    return openxla_jax


if __name__ == "__main__":
    define_flags()
    command_line.run(main, arguments=("export, run or compile", "the folder"))
