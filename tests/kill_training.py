# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Kills a training run repeatedly, mostly while it saves, and checks the model directory after each kill.

    python tests/kill_training.py --kills=20

Each run saves after every step and receives SIGKILL after its first save: in three of four runs when files of an
unfinished save appear in the directory, otherwise at a random moment. After each kill the newest checkpoint must be
complete and at least as recent as the last one in the state file, and the next run must resume from it. The last run
is stopped with SIGTERM.
"""

import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from absl import flags

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from dataset import command_line
from tf2.training.model_dir import ModelDir
from tf2.weights import checkpoint

FLAGS = flags.FLAGS
SAMPLE = ROOT / "testdata" / "sample.tfrecord"
TINY = "image_size=64,fpn_num_filters=8,fpn_cell_repeats=1,box_class_repeats=1,num_classes=3"
START_SECONDS = 400  # maximum time until the first checkpoint of a run
# Files of an unfinished save to wait for, in turn: data being written; data without an index, of a checkpoint that is
# being added or removed; a complete checkpoint that the state file does not name yet. None: a random moment.
TARGETS = (r"data-\d+-of-\d+\.tempstate", r"data-\d+-of-\d+$", r"\.index$", None)
STOPPED = 128 + signal.SIGTERM  # exit code of main.py after SIGTERM


def define_flags() -> None:
    """Defines all flags; not done at import time."""
    with command_line.group("Kills"):
        flags.DEFINE_integer("kills", 20, "Number of runs to kill.", lower_bound=1)
        flags.DEFINE_integer("inside", 8, "Minimum number of kills during a save.", lower_bound=0)
        flags.DEFINE_integer("seed", 1, "Seed of the random moments.")


def command(model_dir: pathlib.Path) -> list[str]:
    """Returns the command of a training run of a tiny network that would take days."""
    return [
        *(sys.executable, str(ROOT / "main.py"), "--mode=train", "--model_name=efficientdet-lite0"),
        *(f"--hparams={TINY}", "--num_epochs=100000", f"--model_dir={model_dir}"),
        *(f"--train_file_pattern={SAMPLE}", "--train_batch_size=4", "--num_examples_per_epoch=8"),
        "--save_checkpoints_steps=1",
    ]


class Run:
    """A training run in a separate process; a context manager that kills the process at the end."""

    def __init__(self, model_dir: pathlib.Path):
        self.model_dir, self.log = model_dir, model_dir.with_name("log.txt")
        self.state_before = state_file(model_dir)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command(model_dir), stdout=log, stderr=log)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *error) -> None:
        self.process.kill()
        self.process.wait()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Polls a condition without pause; raises RuntimeError if the run ends or START_SECONDS pass before it."""
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"the run ended or hangs, exit code {self.process.returncode}:\n{self.log.read_text()}"
                )

    def wait_for_first_save(self) -> None:
        """Waits until this run has saved a step."""
        self.wait_until(lambda: time.sleep(0.01) or state_file(self.model_dir) != self.state_before)

    def end(self, number: signal.Signals) -> int:
        """Sends a signal; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(START_SECONDS)


def state_file(model_dir: pathlib.Path) -> bytes:
    """Returns the content of the state file; empty if it does not exist."""
    try:
        return (model_dir / "checkpoint").read_bytes()
    except FileNotFoundError:
        return b""


def listed(model_dir: pathlib.Path) -> list[str]:
    """Returns the checkpoints in the state file, oldest first; parsed by regex, as it is read thousands of times."""
    return re.findall(r'all_model_checkpoint_paths: "(.*)"', state_file(model_dir).decode())


def unfinished_files(model_dir: pathlib.Path) -> list[str]:
    """Returns the files of an unfinished save: temporary, or of a checkpoint that the state file does not name."""
    names = listed(model_dir)
    files = [file for file in os.listdir(model_dir) if re.match(rf"{checkpoint.PREFIX}-|\.unfinished-checkpoint", file)]
    return sorted(file for file in files if ".tempstate" in file or ".".join(file.split(".")[:2]) not in names)


def newest_step(model_dir: pathlib.Path) -> int:
    """Returns the step from which training would resume.

    Raises:
        CheckpointError: if it could not resume.
    """
    found = ModelDir(str(model_dir)).newest()
    if found is None:
        raise checkpoint.CheckpointError("the directory holds no checkpoint")
    prefix, entries = found
    bad = [name for name, value in entries.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
    if bad:
        raise checkpoint.CheckpointError(f"{prefix} is not finite: {bad[:3]}")
    if int(entries["global_step"]) != checkpoint.step_of(prefix):
        raise checkpoint.CheckpointError(f"{prefix} has global_step {int(entries['global_step'])}")
    return checkpoint.step_of(prefix)


def kill(run: Run, rng: random.Random, target: str | None) -> tuple[int, list[str]]:
    """Kills a run after its first save; returns the last saved step, and the files of an unfinished save."""
    run.wait_for_first_save()
    if target is None:
        time.sleep(rng.uniform(0, 1))
    else:
        run.wait_until(lambda: any(re.search(target, file) for file in unfinished_files(run.model_dir)))
    saved = checkpoint.step_of(listed(run.model_dir)[-1])
    run.end(signal.SIGKILL)
    return saved, unfinished_files(run.model_dir)


def check(run: Run, step: int, saved: int) -> tuple[int, str]:
    """Checks the model directory and the log of an ended run.

    Args:
        run: the run.
        step: step from which it should have resumed; 0 for none.
        saved: last step in the state file before its end.

    Returns:
        The step from which the next run has to resume, and a description of the problem; empty if there is none.
    """
    try:
        newest = newest_step(run.model_dir)
    except checkpoint.CheckpointError as error:
        return step, str(error)
    if newest < saved:
        return newest, f"step {saved} was saved and is lost"
    resumed = re.findall(r"resuming from \S+, step (\d+)", run.log.read_text())
    return newest, "" if resumed == [str(step)] * bool(step) else f"it resumed from step {resumed}, expected {step}"


def main() -> None:
    rng, step, inside, failures = random.Random(FLAGS.seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as directory:
        model_dir = pathlib.Path(directory) / "model_dir"
        for i in range(FLAGS.kills):
            with Run(model_dir) as run:
                saved, files = kill(run, rng, TARGETS[i % len(TARGETS)])
            step, problem = check(run, step, saved)
            inside, failures = inside + bool(files), failures + bool(problem)
            moment = f"during a save: {', '.join(files)}" if files else "between saves"
            print(f"kill {i + 1}, step {saved}, {moment}; newest is step {step}; {problem or 'passed'}", flush=True)
        with Run(model_dir) as run:
            run.wait_for_first_save()
            code = run.end(signal.SIGTERM)
        step, problem = check(run, step, step + 1)
        failures += bool(problem) or code != STOPPED
        print(f"SIGTERM, exit code {code} (expected: {STOPPED}); newest is step {step}; {problem or 'passed'}")
    print(f"{FLAGS.kills} kills, {inside} during a save; {failures} runs failed")
    sys.exit(int(failures > 0 or inside < FLAGS.inside))


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
