# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs exported files in the programs of others, each in an environment of its own, and compares their detections.

    python tests/clients/run_clients.py --write

Every client detects in six images of BCCD with a file exported from a detector of blood cells; its detections are
compared with those of the checkpoint, of --runmode=infer. --write puts the figures into docs/exports.json and the
table of docs/exports.md. The environments are created once, below .venv/clients/.
"""

import json
import pathlib
import sys
import tempfile
import time

from absl import flags

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import exports_page
from client_table import CLIENTS

from dataset import command_line

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines all flags; not done at import time."""
    with command_line.group("Clients"):
        flags.DEFINE_string("only", "", "Runs the clients whose name contains this text.")
        flags.DEFINE_string("work_dir", None, "Folder for exported files, which are reused; default: a temporary one.")
        flags.DEFINE_bool("write", False, "Writes the figures into docs/exports.json and docs/exports.md.")


def main() -> None:
    """Runs the clients.

    Raises:
        ValueError: if a client does not run, or finds too little.
    """
    from workplace import Workplace  # imports TensorFlow

    results, failures = {}, []
    with tempfile.TemporaryDirectory() as temporary:
        workplace = Workplace(pathlib.Path(FLAGS.work_dir or temporary), ROOT / ".venv" / "clients")
        for client in CLIENTS:
            if FLAGS.only not in client.name:
                continue
            start = time.monotonic()
            result = results[client.name] = workplace.measure(client)
            print(f"{client.name}: {json.dumps(result)}, {time.monotonic() - start:.0f} s", flush=True)
            if reason := client.failure(result):
                failures.append(f"{client.name}: {reason}")
    if FLAGS.write:
        exports_page.update(results)
    if failures:
        raise ValueError("; ".join(failures))


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
