# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The lock of a model directory: one training at a time writes to it.

The lock is a file that names its owner and is rewritten every HEARTBEAT seconds. A training that was killed leaves it
behind; the next one takes it over, at once if the owner ran on the same machine, else after STALE seconds without a
heartbeat. Heartbeats are compared with each other and never with a clock, so that clocks of machines may differ.

Object stores have no exclusive creation of files. Of two trainings that start within the same moment, the one whose
file remains holds the lock; the other one finds that out in `RunLock.check`, SETTLE seconds after its start or, if
writing took longer than that, at its first checkpoint.
"""

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import logging

from dataset.files import TargetError, read_file, reason_of, write_file

FILE = "run.lock"
HEARTBEAT = 20.0  # seconds between heartbeats
STALE = 180.0  # seconds without a heartbeat after which a lock is taken over
POLL = 2.0  # seconds between checks of the lock of another machine
SETTLE = 1.0  # seconds after which the file of the last of several trainings remains


class LockLost(TargetError):
    """Another training took the model directory over."""


class RunLock:
    """Context manager that holds the lock of a model directory, with heartbeats from a thread."""

    def __init__(self, model_dir: str):
        """Stores the path; no file is accessed.

        Args:
            model_dir: local or remote path supported by tf.io.gfile.
        """
        self.model_dir = model_dir
        self._path = os.path.join(model_dir, FILE)
        self._owner = {
            "token": uuid.uuid4().hex,
            "host": platform.node(),
            "machine": _machine(),
            "pid": os.getpid(),
            "process_started": _process_started(os.getpid()),
            "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "heartbeats": 0,
        }
        self._written_at = 0.0  # time.monotonic() of the first heartbeat
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="run lock", daemon=True)

    def __enter__(self) -> "RunLock":
        """Creates the directory and takes the lock.

        Raises:
            TargetError: if another training holds it.
            OSError: if the directory cannot be written to.
        """
        try:
            tf.io.gfile.makedirs(self.model_dir)
            if (content := self._read()) is not None:
                self._take_over(content)
            self._write()
        except tf.errors.OpError as error:
            raise OSError(
                f"cannot write to {self.model_dir}: {reason_of(error)}; fix that, or choose another --model_dir"
            ) from error
        self._written_at = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._ended.set()
        self._thread.join()
        try:
            if self._is_held():
                tf.io.gfile.remove(self._path)
        except tf.errors.OpError as error:
            logging.warning("cannot remove %s: %s", self._path, reason_of(error))

    def check(self) -> None:
        """Checks that the lock is still held; called before files of the directory are replaced.

        Raises:
            LockLost: if another training took it over, or the file was removed.
            OSError: if it cannot be read.
        """
        time.sleep(max(0.0, self._written_at + SETTLE - time.monotonic()))
        try:
            content = self._read()
        except tf.errors.OpError as error:
            raise OSError(f"cannot read {self._path}: {reason_of(error)}") from error
        owner = _parse(content)
        if owner.get("token") != self._owner["token"]:
            found = f"{self._path} was removed" if content is None else f"{_describe(owner)} took over"
            raise LockLost(
                f"{self.model_dir} no longer belongs to this training: {found}; nothing more is written there. "
                f"A training keeps {FILE} unless it stalls for {STALE:.0f} s; choose another --model_dir for this one"
            )

    def _take_over(self, content: bytes) -> None:
        """Returns if the owner of a lock is dead; raises TargetError if it is alive."""
        owner = _parse(content)
        is_alive = _is_alive(owner)
        if is_alive is None:
            logging.info(
                "%s is locked by %s; waiting up to %.0f s for a heartbeat", self.model_dir, _describe(owner), STALE
            )
            is_alive = self._sees_heartbeat(content)
        if is_alive:
            raise TargetError(
                f"{self.model_dir} is in use by another training, {_describe(owner)}; wait for its end or stop it, or "
                f"choose another --model_dir"
            )
        logging.warning("taking over %s from %s, which is no longer running", self.model_dir, _describe(owner))

    def _sees_heartbeat(self, content: bytes) -> bool:
        """Waits until the file changes or is removed; returns False if it is removed, or unchanged for STALE."""
        end = time.monotonic() + STALE
        while time.monotonic() < end:
            time.sleep(POLL)
            if (found := self._read()) != content:
                return found is not None
        return False

    def _beat(self) -> None:
        """Rewrites the file until the training ends or loses the lock."""
        while not self._ended.wait(HEARTBEAT):
            try:
                if not self._is_held():
                    return
                self._owner["heartbeats"] += 1
                self._write()
            except tf.errors.OpError as error:
                logging.warning("cannot write %s: %s", self._path, reason_of(error))

    def _is_held(self) -> bool:
        return _parse(self._read()).get("token") == self._owner["token"]

    def _read(self) -> bytes | None:
        try:
            return read_file(self._path)
        except tf.errors.NotFoundError:
            return None

    def _write(self) -> None:
        # A temporary name of its own, as several trainings may start at once.
        write_file(self._path, json.dumps(self._owner), suffix=f"-{self._owner['token']}")


def _parse(content: bytes | None) -> dict[str, Any]:
    """Returns the owner in a lock file; empty without one, or for a file that was not written here."""
    try:
        owner = json.loads(content or "{}")
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _describe(owner: Mapping[str, Any]) -> str:
    return f"process {owner.get('pid')} on {owner.get('host')}, since {owner.get('since')}"


def _is_alive(owner: Mapping[str, Any]) -> bool | None:
    """Returns True if the owner of a lock runs; None if that is unknown, as it is for other machines."""
    if not owner.get("machine") or owner["machine"] != _machine():
        return None
    started = _process_started(owner.get("pid"))
    return started is not None and started == owner.get("process_started")


def _machine() -> str | None:
    """Identifies the range in which process ids are unique: until a reboot, in a container. None if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()  # Linux only
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _process_started(pid: Any) -> int | None:
    """Start of a process in clock ticks since the boot, which tells processes of one id apart; None if none runs."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])  # Z, X: ended
