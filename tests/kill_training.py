# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Kills a training again and again, most of the times while it saves, and looks at what lies there afterwards.

    python tests/kill_training.py --kills=20

A run saves after every step. Once it has saved, it gets SIGKILL: in three of four runs as soon as a certain part of a
save is seen in the directory, else at any moment. What then lies beside the checkpoints that the state file names
shows whether the kill was inside a save. After each kill the directory has to give a whole checkpoint, no older than
the last one that counted before, and the next run has to continue from it; the last run is stopped with SIGTERM.
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

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as in main.py

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
START_SECONDS = 400  # that a run may take to its first checkpoint
# Half-done files to wait for, in turn: data being written; data without an index, of a checkpoint that comes or goes; a
# whole checkpoint that the state file does not name yet. None: any moment.
AIMS = (r"data-\d+-of-\d+\.tempstate", r"data-\d+-of-\d+$", r"\.index$", None)
STOPPED = 128 + signal.SIGTERM  # exit code of main.py after SIGTERM


def define_flags() -> None:
    """Defines every flag; a function, so that importing this file defines none."""
    with command_line.group("Kills"):
        flags.DEFINE_integer("kills", 20, "Runs to kill.", lower_bound=1)
        flags.DEFINE_integer("inside", 8, "Kills that have to be inside a save, at least.", lower_bound=0)
        flags.DEFINE_integer("seed", 1, "Another seed, other moments to kill at.")


def command(model_dir: pathlib.Path) -> list[str]:
    """A training of the tiny network that would take days."""
    return [
        *(sys.executable, str(ROOT / "main.py"), "--mode=train", "--model_name=efficientdet-lite0"),
        *(f"--hparams={TINY}", "--num_epochs=100000", f"--model_dir={model_dir}"),
        *(f"--train_file_pattern={SAMPLE}", "--train_batch_size=4", "--num_examples_per_epoch=8"),
        "--save_checkpoints_steps=1",
    ]


class Run:
    """One run of the training, beside this process; a context manager that leaves none behind."""

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
        """Polls as fast as it can; raises RuntimeError if the run ends before, or does not come to it."""
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the run ended or hung, code {self.process.returncode}:\n{self.log.read_text()}")

    def wait_for_first_save(self) -> None:
        """Waits until a step of this run is done and saved, before which there is nothing new to lose."""
        self.wait_until(lambda: time.sleep(0.01) or state_file(self.model_dir) != self.state_before)

    def end(self, number: signal.Signals) -> int:
        """Sends a signal; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(START_SECONDS)


def state_file(model_dir: pathlib.Path) -> bytes:
    """What the state file says; nothing where there is none."""
    try:
        return (model_dir / "checkpoint").read_bytes()
    except FileNotFoundError:
        return b""


def listed(model_dir: pathlib.Path) -> list[str]:
    """Checkpoints that the state file names, oldest first; read by hand, as this is done thousands of times a run."""
    return re.findall(r'all_model_checkpoint_paths: "(.*)"', state_file(model_dir).decode())


def half_done(model_dir: pathlib.Path) -> list[str]:
    """Files of a save that is not done: they belong to no checkpoint that the state file names, or are temporary."""
    names = listed(model_dir)
    files = [file for file in os.listdir(model_dir) if re.match(rf"{checkpoint.PREFIX}-|\.unfinished-checkpoint", file)]
    return sorted(file for file in files if ".tempstate" in file or ".".join(file.split(".")[:2]) not in names)


def newest_step(model_dir: pathlib.Path) -> int:
    """The step that a training would continue from.

    Raises:
        CheckpointError: if it could not.
    """
    found = ModelDir(str(model_dir)).newest()
    if found is None:
        raise checkpoint.CheckpointError("the directory holds no checkpoint")
    prefix, entries = found
    bad = [name for name, value in entries.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
    if bad:
        raise checkpoint.CheckpointError(f"{prefix} is not finite: {bad[:3]}")
    if int(entries["global_step"]) != checkpoint.step_of(prefix):
        raise checkpoint.CheckpointError(f"{prefix} is of step {int(entries['global_step'])}")
    return checkpoint.step_of(prefix)


def kill(run: Run, rng: random.Random, aim: str | None) -> tuple[int, list[str]]:
    """Kills a run after its first step; returns the last step that was saved by then, and what is half done."""
    run.wait_for_first_save()
    if aim is None:
        time.sleep(rng.uniform(0, 1))
    else:
        run.wait_until(lambda: any(re.search(aim, file) for file in half_done(run.model_dir)))
    saved = checkpoint.step_of(listed(run.model_dir)[-1])
    run.end(signal.SIGKILL)
    return saved, half_done(run.model_dir)


def look(run: Run, step: int, saved: int) -> tuple[int, str]:
    """What an ended run left.

    Args:
        run: that ended.
        step: that it should have continued from; 0 for none.
        saved: the last step that the state file named before the end.

    Returns:
        The step that the next run is to continue from, and what is wrong; nothing if all is well.
    """
    try:
        newest = newest_step(run.model_dir)
    except checkpoint.CheckpointError as error:
        return step, str(error)
    if newest < saved:
        return newest, f"step {saved} was saved and is lost"
    begun = re.findall(r"continuing from \S+, step (\d+)", run.log.read_text())
    return newest, "" if begun == [str(step)] * bool(step) else f"it began with step {begun}, expected {step}"


def main() -> None:
    rng, step, inside, useless = random.Random(FLAGS.seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as directory:
        model_dir = pathlib.Path(directory) / "model_dir"
        for i in range(FLAGS.kills):
            with Run(model_dir) as run:
                saved, files = kill(run, rng, AIMS[i % len(AIMS)])
            step, problem = look(run, step, saved)
            inside, useless = inside + bool(files), useless + bool(problem)
            where = f"inside a save: {', '.join(files)}" if files else "between saves"
            print(f"kill {i + 1}, step {saved}, {where}; newest is step {step}; {problem or 'usable'}", flush=True)
        with Run(model_dir) as run:
            run.wait_for_first_save()
            code = run.end(signal.SIGTERM)
        step, problem = look(run, step, step + 1)
        useless += bool(problem) or code != STOPPED
        print(f"SIGTERM, exit code {code} (expected: {STOPPED}); newest is step {step}; {problem or 'usable'}")
    print(f"{FLAGS.kills} kills, {inside} inside a save; {useless} runs left what is of no use")
    sys.exit(int(useless > 0 or inside < FLAGS.inside))


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
