# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The directory of a training: what is written there, in which order, and what may change between two runs.

A state file is what makes a checkpoint count. It is written last and renamed into place, no file that it names is
ever written to, and files go only when it names them no longer. So a kill at any moment leaves a directory whose
state file names whole checkpoints; what lies beside them is removed at the next start.
"""

import json
import os
import re
import reprlib
import shutil
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import yaml
from absl import logging

from dataset import label_map
from dataset.files import UNFINISHED, reason_of, write_file
from efficientdet.config import Config, ConfigError
from tf2.weights import checkpoint
from tf2.weights.checkpoint import PREFIX, CheckpointError

ARCHIVE = "archive"
# Files that are ours by name. TensorFlow writes to .tempstate files first, and renames them: data, then index.
CHECKPOINT_FILE = re.compile(rf"({PREFIX}-\d+)\.(?:index|meta|data-\d+-of-\d+)(\.tempstate\d+)?")
TEMPORARY_FILE = re.compile(UNFINISHED + r"(checkpoint|config\.yaml|best_eval\.txt|best_objective\.txt|probe)")

# Keys that change names or shapes of the variables, or the state of the optimizer.
FIXED = (
    *("num_classes", "backbone_name", "min_level", "max_level", "num_scales", "aspect_ratios"),
    *("fpn_name", "fpn_weight_method", "fpn_config", "fpn_cell_repeats", "fpn_num_filters", "box_class_repeats"),
    *("separable_conv", "apply_bn_for_resampling", "conv_bn_act_pattern", "optimizer"),
)
# Two ways to write the same thing.
SYNONYMS = {"fpn_name": {None: "bifpn", "bifpn_dyn": "bifpn"}, "fpn_weight_method": {None: "fastattn"}}


class ModelDir:
    """The directory of one training: its checkpoints, its best one, its configuration."""

    def __init__(self, path: str, keep: int = 5):
        """Touches nothing.

        Args:
            path: local, or what tf.io.gfile knows, such as gs://bucket/directory.
            keep: how many checkpoints stay; older ones are deleted.
        """
        self.path = path
        self.keep = keep

    def prepare(self, num_bytes: int) -> None:
        """Makes the directory where it does not exist, and removes what a kill left behind.

        Args:
            num_bytes: size of a checkpoint.

        Raises:
            OSError: if it cannot be written to, or has no room for two checkpoints.
        """
        try:
            tf.io.gfile.makedirs(self.path)
            self._remove_leftovers()
            self._put_back()
            self._write("probe", "")
            tf.io.gfile.remove(self._join("probe"))
        except tf.errors.OpError as error:
            raise OSError(
                f"cannot write to {self.path}: {reason_of(error)}; mend that, or choose another --model_dir"
            ) from error
        local = self.path.removeprefix("file://")
        free = None if "://" in local else shutil.disk_usage(local).free
        if free is not None and free < 2 * num_bytes:
            raise OSError(
                f"{self.path} has {free / 2**20:.0f} MiB left, two checkpoints need {2 * num_bytes / 2**20:.0f} MiB; "
                f"free space there, or choose another --model_dir"
            )

    def _remove_leftovers(self) -> None:
        """Removes files that are ours by name and belong to no checkpoint.

        What is whole stays, unless the newest checkpoint of the state file is whole too, and of no earlier step.
        """
        listed, files = checkpoint.saved(self.path), set(tf.io.gfile.listdir(self.path))
        matches = list(filter(None, map(CHECKPOINT_FILE.fullmatch, files)))
        leftovers = {file for file in files if TEMPORARY_FILE.fullmatch(file)} | {m[0] for m in matches if m[2]}
        others = {match[1] for match in matches} - set(listed)
        complete = {name for name in others if f"{name}.index" in files}
        if complete and listed and checkpoint.is_whole(self._join(listed[-1])):
            complete = {name for name in complete if checkpoint.step_of(name) > checkpoint.step_of(listed[-1])}
        leftovers |= {match[0] for match in matches if match[1] in others - complete}
        if leftovers:
            logging.info(
                "%s: removing %d files that a kill left behind: %s", self.path, len(leftovers), sorted(leftovers)
            )
            self._remove(leftovers)
        if ARCHIVE in {file.rstrip("/") for file in files}:
            self._archive()._remove_leftovers()

    def _put_back(self) -> None:
        """Gives the copy of a step whose saving again was killed, see `_add`, the plain name."""
        name = next(reversed(checkpoint.saved(self.path)), "")
        plain = re.sub(rf"^{PREFIX}-0+(?=\d)", f"{PREFIX}-", name)
        if plain != name:
            self._add(plain, lambda target: _copy(self.path, name, target))

    def newest(self) -> tuple[str, dict[str, np.ndarray]] | None:
        """The newest checkpoint that can be read to its last entry.

        Returns:
            Its prefix and its entries; None for a directory without a checkpoint.

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
                logging.error("%s; taking %s instead", message, prefix)
            return prefix, entries
        if damaged:
            raise CheckpointError(
                f"no checkpoint in {self.path} can be read ({'; '.join(damaged)}); "
                f"bring back a copy, or begin anew in another --model_dir"
            )
        return None

    def save(self, step: int, tensors: Mapping[str, np.ndarray]) -> str:
        """Writes a name-based checkpoint and makes it the newest of the directory.

        Args:
            step: number in the file name.
            tensors: {entry: value}.

        Returns:
            The prefix written.

        Raises:
            FloatingPointError: if a value is not finite; nothing is written.
            OSError: if it cannot be written; all that was saved before is still there.
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

    def archive(self, prefix: str, results: Mapping[str, float]) -> None:
        """Makes a checkpoint the best one: archive/ gets a copy of it, and of config.yaml.

        Args:
            prefix: of a checkpoint that `save` wrote.
            results: its metrics, AP among them; they go to archive/best_eval.txt, AP to best_objective.txt.

        Raises:
            CheckpointError: if there is no such checkpoint, or it cannot be read.
            OSError: if it cannot be written. In either case archive/ still holds the one before.
        """
        prefix, best = checkpoint.find(prefix), self._archive()
        directory, name = os.path.split(prefix)
        metrics = {**{key: float(value) for key, value in results.items()}, "step": checkpoint.step_of(prefix)}

        def write(target: str) -> None:
            _copy(directory, name, target)
            checkpoint.read_entries(target)  # whole, though a training may delete the source at this moment

        try:
            tf.io.gfile.makedirs(best.path)
            best._write("best_eval.txt", json.dumps(metrics) + "\n")
            if tf.io.gfile.exists(self._join("config.yaml")):
                best._write("config.yaml", _read(self._join("config.yaml")))
            best._add(name, write)
            self._write("best_objective.txt", f"{metrics['AP']:f}")
        except tf.errors.OpError as error:
            raise self._failed(f"keep {name} as the best", error) from error

    def best_ap(self) -> float:
        """AP of the checkpoint in archive/; -1 without one."""
        best = self._archive()
        try:
            metrics = json.loads(_read(best._join("best_eval.txt")))
            if metrics["step"] == checkpoint.step_of(checkpoint.latest(best.path)):
                return float(metrics["AP"])
            return float(_read(self._join("best_objective.txt")))  # a kill came between the metrics and the switch
        except (tf.errors.OpError, ValueError, LookupError, TypeError):
            return -1.0

    def _archive(self) -> "ModelDir":
        return ModelDir(self._join(ARCHIVE), keep=1)

    def _add(self, name: str, write: Callable[[str], None]) -> str:
        """Has a checkpoint written, makes it the newest, and removes the oldest; returns its prefix."""
        listed, spare = checkpoint.saved(self.path), name.replace("-", "-0")
        others = [other for other in listed if other not in (name, spare)]
        kept = [*others, name][-self.keep :]
        try:
            if name in listed:  # a copy stands in while its files are replaced
                _copy(self.path, name, self._join(spare))
                self._write_state([*others, spare])
            self._remove_checkpoints([name])  # or what a kill left of it, for old and new files must not mix
            write(self._join(name))
            self._write_state(kept)
        except (tf.errors.OpError, CheckpointError):
            self._remove_checkpoints({name, spare} - set(checkpoint.saved(self.path)))
            raise
        self._remove_checkpoints({*others, spare} - set(kept))
        return self._join(name)

    def _write_state(self, names: list[str]) -> None:
        """Replaces the state file; names are relative, so that a directory may move."""
        lines = [f'model_checkpoint_path: "{names[-1]}"', *(f'all_model_checkpoint_paths: "{name}"' for name in names)]
        self._write("checkpoint", "\n".join(lines) + "\n")

    def write_config(self, config: Config, command: str = "") -> None:
        """Writes config.yaml: every key, the names of the classes, and of nms_configs what was set.

        Args:
            config: of the training.
            command: that started it; a comment in the first line.

        Raises:
            OSError: if it cannot be written; a file from before is still there.
        """
        comment = "".join(char if char.isprintable() else " " for char in command)  # as YAML asks for
        try:
            self._write(
                "config.yaml", f"# {comment}\n" * bool(command) + _with_names(config).to_yaml(default_nms=False)
            )
        except tf.errors.OpError as error:
            raise self._failed("write config.yaml", error) from error

    def begun_with(self) -> Config | None:
        """The config in config.yaml; None without the file, and, with a warning, if this version cannot read it."""
        path = self._join("config.yaml")
        if not tf.io.gfile.exists(path):
            return None
        try:
            values = yaml.safe_load(_read(path))
            if not isinstance(values, dict):
                raise ConfigError(f"expected `key: value` lines, got {reprlib.repr(values)}")
            return _with_names(Config().override(values))
        except (tf.errors.OpError, yaml.YAMLError, ValueError) as error:
            logging.warning(
                "cannot read %s (%s); what changed since the last run is not known",
                path,
                " ".join(str(error).split()),
            )
            return None

    def _join(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _write(self, name: str, text: str | bytes) -> None:
        write_file(self._join(name), text)

    def _remove_checkpoints(self, names: Collection[str]) -> None:
        files = tf.io.gfile.listdir(self.path)
        self._remove(file for file in files if (match := CHECKPOINT_FILE.fullmatch(file)) and match[1] in names)

    def _remove(self, files: Collection[str]) -> None:
        """Removes files as far as that is possible; the index first: data without one are no checkpoint."""
        for file in sorted(files, key=lambda file: not file.endswith(".index")):
            try:
                tf.io.gfile.remove(self._join(file))
            except tf.errors.NotFoundError:
                pass
            except tf.errors.OpError as error:
                logging.warning("cannot remove %s: %s", self._join(file), reason_of(error))

    def _failed(self, what: str, error: tf.errors.OpError) -> OSError:
        return OSError(
            f"cannot {what} in {self.path}: {reason_of(error)}; what was there before is kept: "
            f"make room or mend the access, then give the same command again to go on from the last checkpoint"
        )


def copy(prefix: str, folder: str) -> str:
    """Copies a checkpoint, as a training may delete it at any moment.

    Args:
        prefix: of a checkpoint that `ModelDir.save` wrote.
        folder: to copy it to, under its name.

    Returns:
        The prefix of the copy.

    Raises:
        CheckpointError: if it is deleted at this moment.
    """
    directory, name = os.path.split(prefix)
    target = os.path.join(folder, name)
    try:
        _copy(directory, name, target)
        checkpoint.read_entries(target)
    except (tf.errors.NotFoundError, CheckpointError) as error:
        raise CheckpointError(f"{prefix} was deleted while it was copied") from error
    return target


def _copy(directory: str, name: str, target: str) -> None:
    """Copies the files of a checkpoint to another prefix, the index last."""
    matches = filter(None, map(CHECKPOINT_FILE.fullmatch, tf.io.gfile.listdir(directory)))
    files = [match[0] for match in matches if match[1] == name and not match[2]]
    for file in sorted(files, key=lambda file: file.endswith(".index")):
        tf.io.gfile.copy(os.path.join(directory, file), target + file.removeprefix(name), overwrite=True)


def _read(path: str) -> bytes:
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read()


def _is_finite(value: np.ndarray) -> bool:
    value = np.asarray(value)
    return value.dtype.kind in "OSU" or not tf.as_dtype(value.dtype).is_floating or bool(np.isfinite(value).all())


def _with_names(config: Config) -> Config:
    """A config whose label_map holds the names themselves, wherever they came from."""
    return config.override({"label_map": label_map.resolve(config.label_map) or None})


def compare(begun: Config, now: Config) -> list[str]:
    """What changed in the config of a training since it began.

    Args:
        begun: as it was.
        now: as it is to go on.

    Returns:
        A line a key, such as "learning_rate: 0.08 -> 0.01".

    Raises:
        ConfigError: for a change that no training can go on with, see FIXED; nor can the moving average be turned on
            or off.
        LabelMapError: for a label map that cannot be used.
    """
    before, after = _changes(begun, now), _changes(now, begun)
    lines = {key: f"{key}: {_short(before[key])} -> {_short(after[key])}" for key in after}
    fixed = [line for key, line in lines.items() if _is_fixed(key, before[key], after[key])]
    if fixed:
        raise ConfigError(
            f"a training that has begun cannot go on with {', '.join(fixed)}; "
            f"set what was before, or train in another --model_dir that starts from this one with --ckpt"
        )
    return list(lines.values())


def _changes(config: Config, other: Config) -> dict[str, Any]:
    """What one config has otherwise than another, by key; of a label map only the names that differ."""
    names, others = label_map.resolve(config.label_map), label_map.resolve(other.label_map)
    changed = config.override({"label_map": None}).difference(other.override({"label_map": None}))
    changed |= {f"nms_configs.{key}": value for key, value in changed.pop("nms_configs", {}).items()}
    if names != others:
        changed["label_map"] = {number: name for number, name in names.items() if others.get(number) != name}
    return changed


def _is_fixed(key: str, before: Any, after: Any) -> bool:
    if key == "moving_average_decay":
        return bool(before) != bool(after)
    if key in SYNONYMS:
        before, after = (SYNONYMS[key].get(value, value) for value in (before, after))
    return key in FIXED and before != after


def _short(value: Any) -> str:
    return value if isinstance(value, str) else reprlib.repr(value)
