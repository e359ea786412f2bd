# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The model directory of a training run: checkpoints, state file, config.yaml and archive.

The state file decides which checkpoints exist. It is written last and replaced atomically, files that it names are
never modified, and files are deleted only after they are no longer named. A kill at any moment therefore leaves a
state file that names complete checkpoints; other files are removed at the next start.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping

import numpy as np
import tensorflow as tf
from absl import logging

from dataset.check import class_ids
from dataset.files import UNFINISHED, read_file, reason_of, write_file
from efficientdet.config import Config, ConfigError
from tf2.weights import checkpoint, class_names, saved_config
from tf2.weights.checkpoint import PREFIX, CheckpointError

ARCHIVE = "archive"
# Files written here. TensorFlow writes .tempstate files first and renames them: data, then index.
CHECKPOINT_FILE = re.compile(rf"({PREFIX}-\d+)\.(?:index|meta|data-\d+-of-\d+)(\.tempstate\d+)?")
TEMPORARY_FILE = re.compile(
    UNFINISHED + r"(checkpoint|config\.yaml|best_eval\.txt|best_objective\.txt|record_counts\.json|probe|run\.lock-.*)"
)

# Keys that change names or shapes of variables, or the state of the optimizer.
FIXED = (*saved_config.STRUCTURE, "optimizer")


class ModelDir:
    """The directory of one training run: its checkpoints, the best one, and its configuration."""

    def __init__(self, path: str, keep: int = 5):
        """Stores the path; no file is accessed.

        Args:
            path: local or remote path supported by tf.io.gfile, such as gs://bucket/directory.
            keep: number of checkpoints to keep; older ones are deleted.
        """
        self.path = path
        self.keep = keep

    def prepare(self, num_bytes: int) -> None:
        """Creates the directory if it does not exist, and removes unfinished files of an interrupted run.

        Args:
            num_bytes: size of a checkpoint.

        Raises:
            OSError: if the directory cannot be written to, or has no space for two checkpoints.
        """
        try:
            tf.io.gfile.makedirs(self.path)
            self._remove_leftovers()
            self._finish_overwrite()
            self._write("probe", "")
            tf.io.gfile.remove(self._join("probe"))
        except tf.errors.OpError as error:
            raise OSError(
                f"cannot write to {self.path}: {reason_of(error)}; fix that, or choose another --model_dir"
            ) from error
        local = self.path.removeprefix("file://")
        free = None if "://" in local else shutil.disk_usage(local).free
        if free is not None and free < 2 * num_bytes:
            raise OSError(
                f"{self.path} has {free / 2**20:.0f} MiB free, two checkpoints need {2 * num_bytes / 2**20:.0f} MiB; "
                f"free space there, or choose another --model_dir"
            )

    def _remove_leftovers(self) -> None:
        """Removes files of unfinished checkpoints, and temporary files.

        A complete checkpoint that the state file does not name is removed only if the newest one that it names is
        complete and at least as recent.
        """
        listed, files = checkpoint.saved(self.path), set(tf.io.gfile.listdir(self.path))
        matches = list(filter(None, map(CHECKPOINT_FILE.fullmatch, files)))
        leftovers = {file for file in files if TEMPORARY_FILE.fullmatch(file)} | {m[0] for m in matches if m[2]}
        others = {match[1] for match in matches} - set(listed)
        complete = {name for name in others if f"{name}.index" in files}
        if complete and listed and checkpoint.is_readable(self._join(listed[-1])):
            complete = {name for name in complete if checkpoint.step_of(name) > checkpoint.step_of(listed[-1])}
        leftovers |= {match[0] for match in matches if match[1] in others - complete}
        if leftovers:
            logging.info(
                "%s: removing %d files of an interrupted run: %s", self.path, len(leftovers), sorted(leftovers)
            )
            self._remove(leftovers)
        if ARCHIVE in {file.rstrip("/") for file in files}:
            self._archive()._remove_leftovers()

    def _finish_overwrite(self) -> None:
        """Renames model.ckpt-0<step>, left by an interrupted overwrite (see `_add`), back to model.ckpt-<step>."""
        name = next(reversed(checkpoint.saved(self.path)), "")
        plain = re.sub(rf"^{PREFIX}-0+(?=\d)", f"{PREFIX}-", name)
        if plain != name:
            self._add(plain, lambda target: _copy(self.path, name, target))

    def newest(self) -> tuple[str, dict[str, np.ndarray]] | None:
        """Reads the newest checkpoint of which every entry can be read.

        Returns:
            Its prefix and its entries; None if the directory has no checkpoint.

        Raises:
            CheckpointError: if there are checkpoints, but none can be read.
        """
        damaged = []
        for prefix in checkpoint.prefixes(self.path):
            try:
                entries = checkpoint.read_entries(prefix)
            except CheckpointError as error:
                damaged.append(str(error))
                continue
            for message in damaged:
                logging.error("%s; using %s instead", message, prefix)
            return prefix, entries
        if damaged:
            raise CheckpointError(
                f"no checkpoint in {self.path} can be read ({'; '.join(damaged)}); "
                f"restore a copy, or start a new run in another --model_dir"
            )
        return None

    def save(self, step: int, tensors: Mapping[str, np.ndarray]) -> str:
        """Writes a name-based checkpoint and makes it the newest of the directory.

        Args:
            step: number in the file name.
            tensors: values by checkpoint entry.

        Returns:
            The prefix written.

        Raises:
            FloatingPointError: if a value is not finite; nothing is written.
            OSError: if it cannot be written; earlier checkpoints are kept.
        """
        bad = [name for name, value in tensors.items() if not _is_finite(value)]
        if bad:
            raise FloatingPointError(
                f"step {step} is not saved: {len(bad)} of its {len(tensors)} tensors are infinite or not a number "
                f"({', '.join(bad[:4])}{', ...' if len(bad) > 4 else ''})"
            )

        try:
            return self._add(f"{PREFIX}-{step}", lambda prefix: checkpoint.write_entries(prefix, tensors))
        except tf.errors.OpError as error:
            raise self._failed(f"save step {step}", error) from error

    def archive(self, prefix: str, results: Mapping[str, float], *, averaged: bool = True) -> None:
        """Copies a checkpoint, as the best one, and config.yaml to archive/.

        Args:
            prefix: prefix of a checkpoint written by `save`.
            results: its metrics, including AP; written to archive/best_eval.txt, and AP to best_objective.txt.
            averaged: False omits the moving averages, so that readers of archive/ get the raw weights.

        Raises:
            CheckpointError: if the checkpoint does not exist or cannot be read.
            OSError: if it cannot be written. In both cases archive/ keeps the previous one.
        """
        prefix, best = checkpoint.find(prefix), self._archive()
        directory, name = os.path.split(prefix)
        metrics = {**{key: float(value) for key, value in results.items()}, "step": checkpoint.step_of(prefix)}

        def write(target: str) -> None:
            if averaged:
                _copy(directory, name, target)
                checkpoint.read_entries(target)  # fails if the training run deleted the source during the copy
                return
            entries = checkpoint.read_entries(prefix)
            raw = {name: value for name, value in entries.items() if not name.endswith(checkpoint.AVERAGE)}
            checkpoint.write_entries(target, raw)

        try:
            tf.io.gfile.makedirs(best.path)
            best._write("best_eval.txt", json.dumps(metrics) + "\n")
            if tf.io.gfile.exists(self._join("config.yaml")):
                best._write("config.yaml", read_file(self._join("config.yaml")))
            best._add(name, write)
            self._write("best_objective.txt", f"{metrics['AP']:f}")
        except tf.errors.OpError as error:
            raise self._failed(f"keep {name} as the best", error) from error

    def archived(self) -> tuple[str, dict[str, float]] | None:
        """Returns the prefix of the checkpoint in archive/ and its metrics; None without a valid one.

        The metrics are empty if a kill has separated them from the checkpoint.
        """
        best = self._archive()
        try:
            metrics = json.loads(read_file(best._join("best_eval.txt")))
            prefix = checkpoint.latest(best.path)
            return prefix, metrics if metrics["step"] == checkpoint.step_of(prefix) else {}
        except (tf.errors.OpError, ValueError, LookupError, TypeError):
            return None

    def best_ap(self) -> float:
        """Returns the AP of the checkpoint in archive/, or -1 without one."""
        archived = self.archived()
        if archived is None:
            return -1.0
        try:
            return float(archived[1]["AP"] if archived[1] else read_file(self._join("best_objective.txt")))
        except (tf.errors.OpError, ValueError, LookupError, TypeError):
            return -1.0

    def _archive(self) -> "ModelDir":
        return ModelDir(self._join(ARCHIVE), keep=1)

    def _add(self, name: str, write: Callable[[str], None]) -> str:
        """Writes a checkpoint, makes it the newest, removes the oldest, and returns its prefix.

        Args:
            name: file name of the prefix.
            write: writes the files of the checkpoint, given the prefix.
        """
        listed, spare = checkpoint.saved(self.path), name.replace("-", "-0")
        others = [other for other in listed if other not in (name, spare)]
        kept = [*others, name][-self.keep :]
        try:
            if name in listed:  # the state file names a copy while the files are replaced
                _copy(self.path, name, self._join(spare))
                self._write_state([*others, spare])
            self._remove_checkpoints([name])  # old and new files of one name must not mix
            write(self._join(name))
            self._write_state(kept)
        except (tf.errors.OpError, CheckpointError):
            self._remove_checkpoints({name, spare} - set(checkpoint.saved(self.path)))
            raise
        self._remove_checkpoints({*others, spare} - set(kept))
        return self._join(name)

    def _write_state(self, names: list[str]) -> None:
        """Replaces the state file; names are relative, so that the directory can be moved."""
        lines = [f'model_checkpoint_path: "{names[-1]}"', *(f'all_model_checkpoint_paths: "{name}"' for name in names)]
        self._write("checkpoint", "\n".join(lines) + "\n")

    def write_config(self, config: Config, command: str = "") -> None:
        """Writes config.yaml: all keys, with class names, and the keys of nms_configs that were set.

        Args:
            config: configuration of the training run.
            command: its command line, written as a comment in the first line.

        Raises:
            OSError: if it cannot be written; a previous file is kept.
        """
        comment = "".join(char if char.isprintable() else " " for char in command)  # as YAML asks for
        try:
            self._write(
                "config.yaml",
                f"# {comment}\n" * bool(command) + saved_config.with_class_names(config).to_yaml(default_nms=False),
            )
        except tf.errors.OpError as error:
            raise self._failed("write config.yaml", error) from error

    def read_config(self) -> Config | None:
        """Reads config.yaml; returns None if it does not exist or, with a warning, cannot be read by this version."""
        try:
            return saved_config.read(self.path)
        except ConfigError as error:
            logging.warning("%s; changes since the last run are not reported", error)
            return None

    def _join(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _write(self, name: str, text: str | bytes) -> None:
        write_file(self._join(name), text)

    def _remove_checkpoints(self, names: Collection[str]) -> None:
        files = tf.io.gfile.listdir(self.path)
        self._remove(file for file in files if (match := CHECKPOINT_FILE.fullmatch(file)) and match[1] in names)

    def _remove(self, files: Collection[str]) -> None:
        """Removes files, with a warning for those that cannot be; index first: data without it are ignored."""
        for file in sorted(files, key=lambda file: not file.endswith(".index")):
            try:
                tf.io.gfile.remove(self._join(file))
            except tf.errors.NotFoundError:
                pass
            except tf.errors.OpError as error:
                logging.warning("cannot remove %s: %s", self._join(file), reason_of(error))

    def _failed(self, action: str, error: tf.errors.OpError) -> OSError:
        return OSError(
            f"cannot {action} in {self.path}: {reason_of(error)}; previous files are kept: "
            f"free some space or fix the permissions, then run the same command to resume from the last checkpoint"
        )


def copy(prefix: str, folder: str) -> str:
    """Copies a checkpoint out of the directory of a running training, which may delete it at any moment.

    Args:
        prefix: prefix of a checkpoint written by `ModelDir.save`.
        folder: destination; the file names are kept.

    Returns:
        The prefix of the copy.

    Raises:
        CheckpointError: if the checkpoint was deleted during the copy.
    """
    directory, name = os.path.split(prefix)
    target = os.path.join(folder, name)
    try:
        _copy(directory, name, target)
        checkpoint.read_entries(target)
    except (tf.errors.NotFoundError, CheckpointError) as error:
        raise CheckpointError(f"{prefix} was deleted during the copy") from error
    return target


def _copy(directory: str, name: str, target: str) -> None:
    """Copies the files of a checkpoint to another prefix, index last."""
    matches = filter(None, map(CHECKPOINT_FILE.fullmatch, tf.io.gfile.listdir(directory)))
    files = [match[0] for match in matches if match[1] == name and not match[2]]
    for file in sorted(files, key=lambda file: file.endswith(".index")):
        tf.io.gfile.copy(os.path.join(directory, file), target + file.removeprefix(name), overwrite=True)


def _is_finite(value: np.ndarray) -> bool:
    value = np.asarray(value)
    return value.dtype.kind in "OSU" or not tf.as_dtype(value.dtype).is_floating or bool(np.isfinite(value).all())


def compare(saved: Config, new: Config) -> list[str]:
    """Compares the config of a training run with the one it is resumed with.

    Args:
        saved: config so far.
        new: config from now on.

    Returns:
        One line per changed key, such as "learning_rate: 0.08 -> 0.01".

    Raises:
        ConfigError: for a change with which training cannot continue: a key in FIXED, or a moving average that is
            turned on or off.
        LabelMapError: for an invalid label map, or one that gives a class name another id.
    """
    known = class_ids.of_label_map(saved.label_map, "the config.yaml of this training run")
    class_ids.check_moved(class_ids.of_label_map(new.label_map), known, class_names.CONTINUE)
    lines = saved_config.changes(saved, new)
    fixed = [line for key, line in lines.items() if _is_fixed(key, saved, new)]
    if fixed:
        raise ConfigError(
            f"this training run cannot continue with {', '.join(fixed)}; "
            f"restore the previous values, or start a new run in another --model_dir from this one with --ckpt"
        )
    return list(lines.values())


def _is_fixed(key: str, saved: Config, new: Config) -> bool:
    if key == "moving_average_decay":
        return bool(saved.moving_average_decay) != bool(new.moving_average_decay)
    return key in FIXED and saved_config.differs(key, saved, new)
