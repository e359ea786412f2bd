# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Stops one of two workers, checks how the other one ends, and that both resume to the bits of an uninterrupted run.

    python tests/kill_workers.py
    python tests/kill_workers.py --cases=kill-1

Two local processes train a network of two convolutions (tests/small_main.py) with --strategy=multi-gpus. In turn, the
second one receives SIGKILL, the second one SIGTERM, the first one SIGKILL and the first one SIGTERM. The other process
must end within a minute, with the documented exit code and a message that names the step from which the same command
resumes, and the worker. The workers are described by flags, by TF_CONFIG with a chief
as Kubeflow writes it, and by the variables of Slurm, in turn. At the end the training runs to its last step, and its
state is compared with that of a training that was never stopped.
"""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np
from absl import flags

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from dataset import command_line
from tf2.training import cluster
from tf2.training.model_dir import ModelDir
from tf2.training.workers import LOST_EXIT_CODE
from tf2.weights import checkpoint

FLAGS = flags.FLAGS
LAST_STEP = 60
STEP_SECONDS = "0.1"  # so that a run does not reach its last step before the signal
START_SECONDS = 400  # maximum time until the first checkpoint of a run, and of a whole run
END_SECONDS = 60  # maximum time between the end of a worker and that of the other one
CLUSTERS = ("flags", "TF_CONFIG", "Slurm")


class Case(NamedTuple):
    """A signal to one of the workers."""

    number: signal.Signals
    victim: int  # index of the worker
    exit_code: int  # of the other worker
    message: str  # regular expression for the log of the other worker; {name} is the victim

    def __str__(self) -> str:
        return f"{self.number.name} to worker {self.victim}"


LOST = r"{name} ended or cannot be reached, .*; the same command on all machines resumes from step (\d+)"
STOPPED = r"stopped after step (\d+), which is saved, by a signal to {name}; the same command on all machines resumes"
CASES = {
    "kill-1": Case(signal.SIGKILL, 1, LOST_EXIT_CODE, LOST),
    "term-1": Case(signal.SIGTERM, 1, 128 + signal.SIGTERM, STOPPED),
    "kill-0": Case(signal.SIGKILL, 0, LOST_EXIT_CODE, LOST),
    "term-0": Case(signal.SIGTERM, 0, 128 + signal.SIGTERM, STOPPED),
}


def define_flags() -> None:
    """Defines all flags; not done at import time."""
    with command_line.group("Cases"):
        flags.DEFINE_multi_enum("cases", list(CASES), list(CASES), "Signals and the worker that receives them.")


def free_port() -> int:
    """Returns the first of two successive free ports that the tasks of some Slurm job have."""
    for port in range(cluster.SLURM_PORT, cluster.SLURM_PORT + cluster.SLURM_JOBS * cluster.SLURM_TASKS, 16):
        try:
            with socket.create_server(("localhost", port)), socket.create_server(("localhost", port + 1)):
                return port
        except OSError:
            continue
    raise RuntimeError("no free ports")


def describe_cluster(kind: str, port: int, index: int) -> tuple[list[str], dict[str, str]]:
    """Returns flags and environment variables of a worker, in one of the ways of CLUSTERS."""
    workers = [f"localhost:{port}", f"localhost:{port + 1}"]
    if kind == "flags":
        return [f"--worker={','.join(workers)}", f"--worker_index={index}"], {}
    if kind == "TF_CONFIG":
        task = {"type": "worker" if index else "chief", "index": 0}
        spec = {"chief": workers[:1], "worker": workers[1:]}
        return [], {"TF_CONFIG": json.dumps({"cluster": spec, "task": task, "environment": "cloud"})}
    job = (port - cluster.SLURM_PORT) // cluster.SLURM_TASKS
    variables = {"JOB_ID": job, "PROCID": index, "NODEID": 0, "LOCALID": index, "STEP_NODELIST": "localhost"}
    return [], {f"SLURM_{name}": str(value) for name, value in {**variables, "STEP_TASKS_PER_NODE": 2}.items()}


class Workers:
    """Two workers in separate processes; a context manager that kills both at the end."""

    def __init__(self, model_dir: pathlib.Path, kind: str = "flags", extra: tuple[str, ...] = ()):
        """Starts both; `extra` are flags of the second one alone."""
        self.port, self.processes, self.logs = free_port(), [], []
        names = {cluster.TF_CONFIG, *(name for name in os.environ if name.startswith("SLURM_"))}
        environment = {name: value for name, value in os.environ.items() if name not in names}
        for index in range(2):
            own, variables = describe_cluster(kind, self.port, index)
            self.logs.append(model_dir.with_name(f"{model_dir.name}-{index}.txt"))
            with self.logs[-1].open("w") as log:
                process = subprocess.Popen(
                    [*command(model_dir), *own, *(extra if index else ())],
                    stdout=log,
                    stderr=log,
                    env={**environment, **variables, "STEP_SECONDS": STEP_SECONDS},
                )
            self.processes.append(process)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def wait_for_step(self, model_dir: pathlib.Path, step: int) -> None:
        """Waits until a step is saved; raises RuntimeError if a worker ends before that."""
        deadline = time.monotonic() + START_SECONDS
        while newest_step(model_dir) < step:
            time.sleep(0.02)
            if any(process.poll() is not None for process in self.processes) or time.monotonic() > deadline:
                raise RuntimeError(f"a worker ended or hangs: {[log.read_text()[-2000:] for log in self.logs]}")

    def exit_codes(self, seconds: float) -> list[int]:
        """Waits for the end of both; raises TimeoutExpired if one does not end."""
        deadline = time.monotonic() + seconds
        return [process.wait(max(deadline - time.monotonic(), 0.01)) for process in self.processes]


def command(model_dir: pathlib.Path) -> list[str]:
    """Returns the command of both workers."""
    return [
        *(sys.executable, str(ROOT / "tests" / "small_main.py"), "--mode=train", "--strategy=multi-gpus"),
        *("--model_name=efficientdet-lite0", "--hparams=image_size=64,num_classes=3", f"--model_dir={model_dir}"),
        *(f"--train_file_pattern={ROOT / 'testdata' / 'sample.tfrecord'}", "--num_examples_per_epoch=8"),
        *("--train_batch_size=4", f"--num_epochs={LAST_STEP // 2}", "--save_checkpoints_steps=1", "--tf_random_seed=1"),
    ]


def newest_step(model_dir: pathlib.Path) -> int:
    """Returns the last saved step; 0 without one. Parsed by regex, as the file is read often."""
    try:
        names = re.findall(r'^model_checkpoint_path: ".*-(\d+)"', (model_dir / "checkpoint").read_text(), re.M)
    except FileNotFoundError:
        names = []
    return int(names[0]) if names else 0


def run_case(case: Case, model_dir: pathlib.Path, kind: str) -> str:
    """Resumes the training, and stops one worker after the next save; returns the problems found, or ""."""
    before = newest_step(model_dir)
    with Workers(model_dir, kind) as workers:
        workers.wait_for_step(model_dir, before + 1)
        saved = newest_step(model_dir)
        workers.processes[case.victim].send_signal(case.number)
        try:
            codes = workers.exit_codes(END_SECONDS)
        except subprocess.TimeoutExpired:
            return f"a worker did not end within {END_SECONDS} s"
        log = workers.logs[1 - case.victim].read_text()
        name = re.escape(f"worker {case.victim} (localhost:{workers.port + case.victim})")
    newest = checkpoint.step_of(ModelDir(str(model_dir)).newest()[0])  # reads every entry
    expected = [case.exit_code, case.exit_code]
    if case.number == signal.SIGKILL:
        expected[case.victim] = -signal.SIGKILL
    steps = re.findall(case.message.replace("{name}", name), log)
    problems = {
        f"exit codes {codes}, expected {expected}": codes != expected,
        f"the message names the steps {steps}, step {newest} is saved: {log[-1500:]}": steps != [str(newest)],
        f"step {saved} was saved and is lost": newest < saved,
        f"it did not resume from step {before}": before and f"{checkpoint.PREFIX}-{before}, step {before}" not in log,
        f"it reached the last step, {newest}": newest >= LAST_STEP,
    }
    return "; ".join(problem for problem, is_found in problems.items() if is_found)


def run_to_end(model_dir: pathlib.Path, kind: str) -> dict[str, np.ndarray]:
    """Trains to the last step; returns the entries of the last checkpoint."""
    with Workers(model_dir, kind) as workers:
        codes = workers.exit_codes(START_SECONDS)
        if codes != [0, 0]:
            raise RuntimeError(f"exit codes {codes}: {[log.read_text()[-2000:] for log in workers.logs]}")
    return checkpoint.read_entries(str(model_dir / f"{checkpoint.PREFIX}-{LAST_STEP}"))


def compare(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> str:
    """Returns the entries that differ in a bit, or ""."""
    names = found.keys() | expected.keys()
    different = [name for name in names if found[name].tobytes() != expected[name].tobytes()]
    return f"{len(different)} of {len(names)} entries differ: {sorted(different)[:3]}" if different else ""


def main() -> None:
    failures = 0
    with tempfile.TemporaryDirectory() as directory:
        model_dir = pathlib.Path(directory) / "stopped"
        for i, name in enumerate(FLAGS.cases):
            kind = CLUSTERS[i % len(CLUSTERS)]
            problem = run_case(CASES[name], model_dir, kind)
            failures += bool(problem)
            step = newest_step(model_dir)
            print(f"{CASES[name]}, workers from {kind}: step {step} is saved; {problem or 'passed'}", flush=True)
        kind = CLUSTERS[len(FLAGS.cases) % len(CLUSTERS)]
        entries = run_to_end(model_dir, kind)
        problem = compare(entries, run_to_end(model_dir.with_name("uninterrupted"), "flags"))
        failures += bool(problem)
        print(f"resumed to step {LAST_STEP}, {len(entries)} entries as without a stop: {problem or 'passed'}")
    sys.exit(int(failures > 0))


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
