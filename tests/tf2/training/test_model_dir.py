# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/training/model_dir.py: checkpoints survive kills, damaged files and full disks."""

import contextlib
import dataclasses
import itertools
import json
import os
import re
import resource
import shutil
import tempfile

import numpy as np
import pytest
import tensorflow as tf
import yaml

from dataset import label_map
from efficientdet import config as config_lib
from efficientdet.config import Config, ConfigError
from efficientdet.model import EfficientDetNet
from tf2.training import model_dir
from tf2.training.model_dir import ModelDir
from tf2.weights import checkpoint
from tf2.weights.checkpoint import CheckpointError

DATA = ".data-00000-of-00001"


@pytest.fixture(params=["local", "ram"])
def path(request, tmp_path):
    """A path that does not exist yet, on disk and in memory, which behaves like an object store."""
    return str(tmp_path / "run") if request.param == "local" else f"ram://{tmp_path.name}/run"


def entries(value):
    return {"net/kernel": np.full([3, 5], value, np.float32), "global_step": np.int64(value)}


def filled(path, *steps, keep=5):
    """Returns a ModelDir with checkpoints of these steps; the values of each are its step."""
    directory = ModelDir(path, keep)
    directory.prepare(1000)
    for step in steps:
        directory.save(step, entries(step))
    return directory


def step_and_value(directory):
    """Returns step and value of the newest checkpoint; they are equal if it is the one that `filled` saved."""
    prefix, values = directory.newest()
    assert values.keys() == entries(0).keys() and len(np.unique(values["net/kernel"])) == 1
    return checkpoint.step_of(prefix), values["net/kernel"][0, 0]


def listing(*parts):
    return sorted(file.rstrip("/") for file in tf.io.gfile.listdir(os.path.join(*parts)))


def files_of(*steps):
    return {f"model.ckpt-{step}{suffix}" for step in steps for suffix in (DATA, ".index")}


def write(data, *parts):
    """Replaces a file; TensorFlow would append to one in memory."""
    if tf.io.gfile.exists(os.path.join(*parts)):
        tf.io.gfile.remove(os.path.join(*parts))
    with tf.io.gfile.GFile(os.path.join(*parts), "wb") as file:
        file.write(data)


def read(*parts):
    with tf.io.gfile.GFile(os.path.join(*parts), "rb") as file:
        return file.read()


def is_one_line(error):
    return "\n" not in str(error.value) and "{{" not in str(error.value) and len(str(error.value)) < 600


# Saving.


def test_saved_values_are_read_bit_for_bit(path):
    tensors = {
        "single": np.array([[1 / 3, -0.0], [np.finfo(np.float32).tiny, 3e38]], np.float32),
        "half": np.array([1.5, 65504], tf.bfloat16.as_numpy_dtype),
        "whole": np.int64(2**62),
        "flag": np.array(True),
        "text": np.array(b"schedule"),
    }
    directory = filled(path)
    assert directory.save(12, tensors) == os.path.join(path, "model.ckpt-12")
    prefix, values = directory.newest()
    assert prefix == os.path.join(path, "model.ckpt-12") == checkpoint.find(path) and values.keys() == tensors.keys()
    assert values.pop("text").item() == b"schedule"
    for name, value in values.items():
        assert value.dtype == tensors[name].dtype and value.tobytes() == tensors[name].tobytes()


def test_save_keeps_the_newest_checkpoints(path):
    directory = filled(path, 1, 2, 10, 11, 12, 100, 101)  # removing model.ckpt-1 must not remove model.ckpt-1*
    assert checkpoint.saved(path) == [f"model.ckpt-{step}" for step in (10, 11, 12, 100, 101)]
    assert set(listing(path)) == {"checkpoint"} | files_of(10, 11, 12, 100, 101)
    assert step_and_value(directory) == (101, 101)
    filled(path, 102, keep=2)
    assert set(listing(path)) == {"checkpoint"} | files_of(101, 102)
    filled(path, 103, keep=1)
    assert set(listing(path)) == {"checkpoint"} | files_of(103)
    assert tf.train.latest_checkpoint(path) == os.path.join(path, "model.ckpt-103")  # TensorFlow's own reader


def test_a_moved_directory_can_be_resumed(tmp_path):
    filled(str(tmp_path / "old"), 3, 4)
    moved = shutil.move(tmp_path / "old", tmp_path / "new")
    directory = filled(str(moved), 5)
    assert step_and_value(directory) == (5, 5) and set(listing(moved)) == {"checkpoint"} | files_of(3, 4, 5)


def test_saving_a_step_again_replaces_it(path):
    directory = filled(path, 3, 4)
    directory.save(4, entries(40))
    assert step_and_value(directory) == (4, 40)
    assert checkpoint.saved(path) == ["model.ckpt-3", "model.ckpt-4"]
    assert set(listing(path)) == {"checkpoint"} | files_of(3, 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, tf.bfloat16.as_numpy_dtype])
def test_non_finite_values_are_not_saved(bad, dtype, tmp_path):
    directory = filled(str(tmp_path), 3)
    before = listing(tmp_path)
    tensors = {**entries(4), "net/bias": np.array([1, bad], dtype)}
    with pytest.raises(FloatingPointError, match=r"^step 4 is not saved: 1 of its 3 tensors .*\(net/bias\)$"):
        directory.save(4, tensors)
    assert listing(tmp_path) == before and step_and_value(directory) == (3, 3)


# Kills.


class Kill(BaseException):
    """Stands for SIGKILL: not an Exception, so that no error handler catches it."""


@contextlib.contextmanager
def killed_at(number, half):
    """Raises Kill at the file operation of this number, and at all later ones; with `half`, after a part of it.

    Renaming and removing are atomic. TensorFlow renames the data file first, then the index.
    """
    counter = itertools.count()

    def half_copy(source, target, overwrite=False):
        if DATA in source:
            if gfile.exists(target):
                remove(target)
            with gfile.GFile(target, "wb") as file:
                file.write(read(source)[:20])

    def half_save(prefix, **kwargs):
        save(prefix=f"{prefix}-elsewhere", **kwargs)
        rename(f"{prefix}-elsewhere{DATA}", f"{prefix}{DATA}", overwrite=True)
        remove(f"{prefix}-elsewhere.index")

    def step(original, partly=None):
        def operation(*args, **kwargs):
            index = next(counter)
            if index == number and half and partly:
                partly(*args, **kwargs)
            if index >= number:  # a killed process does not clean up either
                raise Kill
            return original(*args, **kwargs)

        return operation

    gfile, save, rename, remove = tf.io.gfile, tf.raw_ops.SaveV2, tf.io.gfile.rename, tf.io.gfile.remove
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gfile, "rename", step(rename))
        patch.setattr(gfile, "remove", step(remove))
        patch.setattr(gfile, "copy", step(gfile.copy, half_copy))
        patch.setattr(tf.raw_ops, "SaveV2", step(save, half_save))
        yield


def assert_all_readable(path):
    """Asserts that every index file belongs to a readable checkpoint, in case the state file is lost, too."""
    for file in listing(path):
        if file.endswith(".index"):
            checkpoint.read_entries(os.path.join(path, file.removesuffix(".index")))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("steps, step, keep", [((), 3, 5), ((1, 2), 3, 2), ((1,), 2, 1), ((1, 2), 2, 5), ((2,), 2, 1)])
def test_kill_during_save(path, steps, step, keep, half):
    """The next start finds the old or the new state, complete, and a later save leaves no additional files."""
    last = steps[-1] if steps else None
    for number in itertools.count():
        directory = filled(f"{path}/{number}", *steps, keep=keep)
        try:
            with killed_at(number, half):
                directory.save(step, entries(30))
            break
        except Kill:
            pass
        for _ in range(2):  # before and after `prepare` of the next start
            assert_all_readable(directory.path)
            if directory.newest() is None:
                assert last is None
            else:
                assert step_and_value(directory) in [(last, last), (step, 30)]
            directory.prepare(1000)
        directory.save(step, entries(30))
        directory.prepare(1000)
        assert step_and_value(directory) == (step, 30)
        kept = [*(s for s in steps if s != step), step][-keep:]
        assert set(listing(directory.path)) == {"checkpoint"} | files_of(*kept)
    assert number >= 2  # at least the checkpoint and its state file


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("steps, averaged", [((1, 2), True), ((2, 2), True), ((2, 2), False)])
def test_kill_during_archive(path, steps, averaged, half):
    for number in itertools.count():
        directory = filled(f"{path}/{number}")
        directory.write_config(Config())
        directory.archive(directory.save(steps[0], entries(10)), {"AP": 0.1})
        prefix = directory.save(steps[1], entries(20))
        best = ModelDir(os.path.join(directory.path, "archive"))
        try:
            with killed_at(number, half):
                directory.archive(prefix, {"AP": 0.2}, averaged=averaged)
            break
        except Kill:
            pass
        for _ in range(2):
            assert_all_readable(best.path)
            assert step_and_value(best) in [(steps[0], 10), (steps[1], 20)]
            assert directory.best_ap() == {10: 0.1, 20: 0.2}[step_and_value(best)[1]] or steps == (2, 2)
            directory.prepare(1000)
        directory.archive(prefix, {"AP": 0.2}, averaged=averaged)
        directory.prepare(1000)
        assert step_and_value(best) == (steps[1], 20) and json.loads(read(best.path, "best_eval.txt"))["AP"] == 0.2
        assert set(listing(best.path)) == {"checkpoint", "best_eval.txt", "config.yaml"} | files_of(steps[1])
    assert number >= 6


@pytest.mark.parametrize("prepares", [True, False])
def test_kill_during_overwrite(path, prepares):
    """The state file names a copy while files are replaced; `prepare` renames it back, and the next save removes it."""
    directory = filled(path, 1, 2)
    with contextlib.suppress(Kill), killed_at(3, half=False):  # two copies, the state file
        directory.save(2, entries(20))
    assert checkpoint.saved(path) == ["model.ckpt-1", "model.ckpt-02"] and step_and_value(directory) == (2, 2)
    if prepares:
        directory.prepare(1000)
        assert checkpoint.saved(path) == ["model.ckpt-1", "model.ckpt-2"] and step_and_value(directory) == (2, 2)
        assert set(listing(path)) == {"checkpoint"} | files_of(1, 2)
    directory.save(2, entries(20))
    assert step_and_value(directory) == (2, 20) and set(listing(path)) == {"checkpoint"} | files_of(1, 2)


def test_prepare_removes_leftovers_of_killed_runs(path, caplog):
    caplog.set_level("INFO", logger="absl")
    directory = filled(path, 3, 4)
    leftovers = [f"model.ckpt-5{DATA}", f"model.ckpt-4{DATA}.tempstate123", "model.ckpt-5.index.tempstate9"]
    leftovers += [".unfinished-checkpoint", ".unfinished-best_objective.txt", ".unfinished-config.yaml", *files_of(2)]
    others = [
        "notes.txt",
        ".unfinished-notes",
        "model.ckpt-5.zip",
        "my-model.ckpt-5.index",
        "model.ckpt-best.index",
        "graph.pbtxt",
    ]
    for name in [*leftovers, *others]:
        write(b"half", path, name)
    directory.prepare(1000)
    assert set(listing(path)) == {"checkpoint", *others} | files_of(3, 4)
    assert f"removing {len(leftovers)} files of an interrupted run" in caplog.text
    assert all(name in caplog.text for name in leftovers)
    caplog.clear()
    directory.prepare(1000)
    assert not caplog.text


@pytest.mark.parametrize("state", [None, b"", b"\xff", b'model_checkpoint_path: "model.ckpt-3"\n'])
def test_prepare_keeps_complete_checkpoints_that_the_state_file_does_not_name(path, state):
    """State file missing, empty, damaged, and older than the checkpoints."""
    directory = filled(path, 3, 4, 5)
    if state is None:
        tf.io.gfile.remove(f"{path}/checkpoint")
    else:
        write(state, path, "checkpoint")
    directory.prepare(1000)
    assert set(listing(path)) >= files_of(3, 4, 5)
    assert step_and_value(directory) == ((3, 3) if state and b"3" in state else (5, 5))


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_prepare_keeps_older_checkpoints_if_the_newest_is_incomplete(path, damage):
    directory = filled(path, 3, 4, 5)
    write(b'model_checkpoint_path: "model.ckpt-5"\n', path, "checkpoint")
    if damage == "gone":
        tf.io.gfile.remove(f"{path}/model.ckpt-5.index")
    else:
        write(b"", path, f"model.ckpt-5{DATA}")
    directory.prepare(1000)
    assert step_and_value(directory) == (4, 4)


# Damage.

DAMAGES = {
    "cut off": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "a bit at the start": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "a bit in the middle": lambda data: data[:30] + bytes([data[30] ^ 16]) + data[31:],
    "zeros": lambda data: bytes(len(data)),
    "gone": None,
}


def damage(kind, *parts):
    if DAMAGES[kind]:
        write(DAMAGES[kind](read(*parts)), *parts)
    else:
        tf.io.gfile.remove(os.path.join(*parts))


@pytest.mark.parametrize("suffix", [".index", DATA])
@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_newest_checkpoint(path, kind, suffix, caplog):
    directory = filled(path, 1, 2, 3)
    damage(kind, path, f"model.ckpt-3{suffix}")
    directory.prepare(1000)
    assert step_and_value(directory) == (2, 2)
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1 and re.search(rf"{path}/model.ckpt-3.*; using {path}/model.ckpt-2 instead$", errors[0])
    for step in (3, 4):  # training continues
        directory.save(step, entries(step))
        assert step_and_value(directory) == (step, step)


def test_two_damaged_checkpoints(path, caplog):
    directory = filled(path, 1, 2, 3)
    damage("cut off", path, f"model.ckpt-3{DATA}")
    damage("cut off", path, "model.ckpt-2.index")
    assert step_and_value(directory) == (1, 1)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


@pytest.mark.parametrize("state", [True, False])
def test_all_checkpoints_damaged(path, state):
    directory = filled(path, 1, 2)
    for step in (1, 2):
        damage("a bit in the middle", path, f"model.ckpt-{step}{DATA}")
    if not state:
        tf.io.gfile.remove(f"{path}/checkpoint")
    directory.prepare(1000)
    with pytest.raises(
        CheckpointError, match=r"no checkpoint in .* can be read .*ckpt-2.*ckpt-1.*start a new run"
    ) as error:
        directory.newest()
    assert "\n" not in str(error.value)


def test_state_file_without_checkpoints(path):
    directory = filled(path, 1, 2)
    for file in files_of(1, 2):
        tf.io.gfile.remove(f"{path}/{file}")
    with pytest.raises(CheckpointError, match=r"names .*model.ckpt-2, which has no .index file"):
        directory.newest()


def test_directory_without_checkpoints(path):
    assert ModelDir(path).newest() is None  # the directory does not exist either
    assert filled(path).newest() is None
    write(b"half", path, f"model.ckpt-1{DATA}")  # the first save was killed
    assert ModelDir(path).newest() is None


def test_every_damaged_byte_is_detected(tmp_path):
    """TensorFlow's checksums detect it: no wrong value is ever read."""
    directory = filled(str(tmp_path), 1)
    for suffix in (".index", DATA):
        file = tmp_path / f"model.ckpt-1{suffix}"
        data = file.read_bytes()
        for i in range(len(data)):
            file.write_bytes(data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1 :])
            with contextlib.suppress(CheckpointError):
                assert step_and_value(directory) == (1, 1), i
        file.write_bytes(data)


def test_reading_while_another_process_deletes(path, monkeypatch):
    """At any moment, a reader gets the checkpoint or one of the two errors that callers handle."""
    directory = filled(path, 1, 2)
    load = tf.compat.v1.train.NewCheckpointReader

    def load_late(prefix):
        reader = load(prefix)
        for file in listing(path):
            tf.io.gfile.remove(f"{path}/{file}")
        return reader

    monkeypatch.setattr(tf.compat.v1.train, "NewCheckpointReader", load_late)
    with contextlib.suppress(CheckpointError, OSError):  # an open file may stay readable
        assert step_and_value(directory) == (2, 2)
    with pytest.raises(CheckpointError, match=r"cannot read|no checkpoint"):
        checkpoint.read_entries(f"{path}/model.ckpt-2")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.find(path)


# Full disks and missing permissions.


@contextlib.contextmanager
def file_size_limit(num_bytes):
    """Limits the size of files of this process, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def unprivileged():
    """Drops root privileges, to which file permissions do not apply."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_prepare_creates_the_directory(path):
    ModelDir(f"{path}/a/b").prepare(1000)
    assert tf.io.gfile.isdir(f"{path}/a/b") and listing(f"{path}/a/b") == []
    ModelDir(f"{path}/a/b").prepare(1000)


def test_prepare_reports_a_file_in_place_of_the_directory(path):
    tf.io.gfile.makedirs(os.path.dirname(path))
    write(b"", path)
    with pytest.raises(OSError, match=f"^cannot write to {path}: .*; fix that, or choose another --model_dir") as error:
        ModelDir(path).prepare(1000)
    assert is_one_line(error)


@pytest.mark.parametrize("exists", [True, False])
def test_prepare_reports_a_read_only_directory(exists):
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o555)
        path = root if exists else f"{root}/new"
        with unprivileged(), pytest.raises(OSError, match=f"cannot write to {path}: .*ermission denied") as error:
            ModelDir(path).prepare(1000)
    assert is_one_line(error)


def test_prepare_requires_space_for_two_checkpoints(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(OSError, match=r"has \d+ MiB free, two checkpoints need \d+ MiB; free space") as error:
        ModelDir(str(tmp_path)).prepare(int(free * 0.51))
    assert is_one_line(error)
    ModelDir(str(tmp_path)).prepare(int(free * 0.4))
    ModelDir(f"ram://{tmp_path.name}").prepare(free)  # its free space is unknown


LARGE = {"net/kernel": np.ones([50_000], np.float32), "global_step": np.int64(5)}


@pytest.mark.parametrize("step", [4, 5])
@pytest.mark.parametrize("num_bytes", [0, 10_000])
def test_full_disk_during_save(tmp_path, step, num_bytes):
    """Step 4 exists already, step 5 is new."""
    directory = filled(str(tmp_path), 3, 4)
    with file_size_limit(num_bytes), pytest.raises(OSError) as error:
        directory.save(step, LARGE)
    assert re.search(
        f"^cannot save step {step} in {tmp_path}: .*File too large; previous files are kept: ", str(error.value)
    )
    assert is_one_line(error) and step_and_value(directory) == (4, 4)
    names = {file.replace("ckpt-04", "ckpt-4") for file in listing(tmp_path)}
    assert names == {"checkpoint"} | files_of(3, 4)
    prefix = directory.save(step, LARGE)
    assert checkpoint.read_entries(prefix)["global_step"] == 5 and directory.newest()[0] == prefix


@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize("num_bytes", [0, 10_000])
def test_full_disk_during_archive(tmp_path, num_bytes, averaged):
    directory = filled(str(tmp_path), 3)
    directory.archive(f"{tmp_path}/model.ckpt-3", {"AP": 0.3})
    prefix = directory.save(4, LARGE)
    with (
        file_size_limit(num_bytes),
        pytest.raises(OSError, match=r"^cannot keep model.ckpt-4 as the best in .*File too large; previous"),
    ):
        directory.archive(prefix, {"AP": 0.4}, averaged=averaged)
    best = ModelDir(f"{tmp_path}/archive")
    assert step_and_value(best) == (3, 3) and read(tmp_path, "best_objective.txt") == b"0.300000"
    assert set(listing(best.path)) == {"checkpoint", "best_eval.txt"} | files_of(3)


def test_full_disk_while_writing_the_config(tmp_path):
    directory = filled(str(tmp_path))
    directory.write_config(Config(num_epochs=7))
    with file_size_limit(100), pytest.raises(OSError, match=r"^cannot write config\.yaml in .*File too large"):
        directory.write_config(Config(num_epochs=8))
    assert directory.read_config().num_epochs == 7 and listing(tmp_path) == ["config.yaml"]


def test_save_to_a_deleted_directory(tmp_path):
    directory = filled(str(tmp_path / "run"), 3)
    shutil.rmtree(directory.path)
    (tmp_path / "run").write_text("")
    with pytest.raises(OSError, match=r"^cannot save step 4 in ") as error:
        directory.save(4, entries(4))
    assert is_one_line(error)


# The best checkpoint.


def test_archive_holds_one_checkpoint_with_config_and_metrics(path):
    directory = filled(path, 3)
    directory.write_config(Config(num_classes=7))
    directory.archive(directory.save(4, entries(4)), {"AP": np.float32(0.5), "AP50": 0.75})
    directory.save(5, entries(5))
    assert checkpoint.find(f"{path}/archive") == f"{path}/archive/model.ckpt-4"
    best = ModelDir(f"{path}/archive")
    assert step_and_value(best) == (4, 4) and best.read_config().num_classes == 7
    assert json.loads(read(path, "archive/best_eval.txt")) == {"AP": 0.5, "AP50": 0.75, "step": 4}
    assert read(path, "best_objective.txt") == b"0.500000"
    directory.archive(f"{path}/model.ckpt-5", {"AP": 0.6})
    assert step_and_value(best) == (5, 5) and read(path, "best_objective.txt") == b"0.600000"
    assert set(listing(best.path)) == {"checkpoint", "config.yaml", "best_eval.txt"} | files_of(5)
    assert set(listing(path)) == {"checkpoint", "config.yaml", "best_objective.txt", "archive"} | files_of(3, 4, 5)


def test_archive_leaves_out_averages_that_are_worse_than_the_weights(path):
    raw = {"net/kernel": np.ones([3, 5], np.float32), "global_step": np.int64(4)}
    average = {"net/kernel" + checkpoint.AVERAGE: np.zeros([3, 5], np.float32)}
    directory, best = filled(path), ModelDir(f"{path}/archive")
    prefix = directory.save(4, raw | average)
    for averaged, expected in [(True, raw | average), (False, raw), (True, raw | average)]:
        directory.archive(prefix, {"AP": 0.5}, averaged=averaged)
        found = checkpoint.read_entries(f"{path}/archive/model.ckpt-4")
        assert found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in found)
        read = checkpoint.read(best.path, ["net/kernel"])
        assert read.averaged == averaged and np.all(read.values["net/kernel"] == (0 if averaged else 1))
    assert checkpoint.read_entries(prefix).keys() == (raw | average).keys()


def test_archive_requires_a_checkpoint(path):
    directory = filled(path, 3)
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*model.ckpt-9"):
        directory.archive(f"{path}/model.ckpt-9", {"AP": 0.5})
    assert set(listing(path)) == {"checkpoint"} | files_of(3)


@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize("suffix", [".index", DATA])
def test_archive_rejects_a_damaged_checkpoint(path, suffix, averaged):
    """As if training deleted the checkpoint while another process archives it."""
    directory = filled(path, 3, 4)
    directory.archive(f"{path}/model.ckpt-3", {"AP": 0.3})
    damage("cut off", path, f"model.ckpt-4{suffix}")
    with pytest.raises(CheckpointError, match=r"cannot read .*model.ckpt-4"):
        directory.archive(f"{path}/model.ckpt-4", {"AP": 0.4}, averaged=averaged)
    best = ModelDir(f"{path}/archive")
    assert step_and_value(best) == (3, 3) and directory.best_ap() == 0.3
    assert set(listing(best.path)) == {"checkpoint", "best_eval.txt"} | files_of(3)


def test_archive_skips_temporary_files(path):
    directory = filled(path, 3)
    write(b"half", path, f"model.ckpt-3{DATA}.tempstate77")
    directory.archive(f"{path}/model.ckpt-3", {"AP": 0.3})
    assert set(listing(path, "archive")) == {"checkpoint", "best_eval.txt"} | files_of(3)


@pytest.mark.parametrize("metrics", [None, b"", b"{}", b"[1]", b"{'AP': 0.5}"])
def test_best_ap_is_minus_1_without_a_valid_archive(path, metrics):
    directory = filled(path, 3)
    assert directory.best_ap() == -1
    directory.archive(f"{path}/model.ckpt-3", {"AP": 0.25})
    assert directory.best_ap() == 0.25
    assert directory.archived() == (f"{path}/archive/model.ckpt-3", {"AP": 0.25, "step": 3})
    if metrics is not None:
        write(metrics, path, "archive/best_eval.txt")
        assert directory.best_ap() == -1 and directory.archived() is None


def test_metrics_that_a_kill_separated_from_the_archived_checkpoint_are_unknown(path):
    directory = filled(path, 3)
    directory.archive(f"{path}/model.ckpt-3", {"AP": 0.25})
    write(b'{"AP": 0.5, "step": 4}', path, "archive/best_eval.txt")
    assert directory.archived() == (f"{path}/archive/model.ckpt-3", {}) and directory.best_ap() == 0.25


# The configuration.


def test_config_round_trip(path):
    directory = filled(path)
    assert directory.read_config() is None
    config = config_lib.load(
        "efficientdet-lite0", num_classes=3, label_map={1: "rød", 3: "c"}, var_freeze_expr=r"(a|\d)"
    )
    directory.write_config(config, "python main.py --hparams='x=1\n,y=\x1b2'")
    assert directory.read_config() == config
    assert read(path, "config.yaml").decode().splitlines()[0] == "# python main.py --hparams='x=1 ,y= 2'"
    directory.write_config(config.override({"num_epochs": 5}))
    assert directory.read_config().num_epochs == 5 and listing(path) == ["config.yaml"]
    assert read(path, "config.yaml").startswith(b"name: efficientdet-lite0")
    assert yaml.safe_load(read(path, "config.yaml"))["nms_configs"] == {}  # inference has its own defaults
    directory.write_config(config.override({"nms_configs": {"method": "hard"}}))
    assert yaml.safe_load(read(path, "config.yaml"))["nms_configs"] == {"method": "hard"}
    assert directory.read_config().nms_configs.method == "hard"


def test_config_file_contains_class_names(path, tmp_path):
    directory = filled(path)
    directory.write_config(Config(label_map="voc"))
    assert directory.read_config().label_map[20] == "tvmonitor" and len(directory.read_config().label_map) == 20
    (tmp_path / "names.yaml").write_text("{cat: 2, dog: 1}")
    directory.write_config(Config(label_map=str(tmp_path / "names.yaml")))
    (tmp_path / "names.yaml").unlink()
    assert directory.read_config().label_map == {1: "dog", 2: "cat"}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe\x00",
        b"name: [",
        b"- 1",
        b"no_such_key: 1",
        b"num_classes: many",
        b"label_map: gone.yaml",
        b"a: \x00",
    ],
)
def test_unreadable_config(path, text, caplog):
    directory = filled(path)
    write(text, path, "config.yaml")
    assert directory.read_config() is None
    [record] = caplog.records
    assert record.levelname == "WARNING" and f"cannot read {path}/config.yaml (" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_compare_lists_changes():
    saved = Config(label_map="voc", nms_configs={"method": "hard", "iou_thresh": 0.3})
    assert model_dir.compare(saved, saved) == []
    new = saved.override(
        {"learning_rate": 0.01, "mosaic": True, "var_freeze_expr": "fpn", "aspect_ratios": [1, 2, 0.5]}
    )
    new = new.override({"nms_configs": {"iou_thresh": 0.5}, "moving_average_decay": 0.99, "image_size": "96x64"})
    assert model_dir.compare(saved, new) == [
        "image_size: [640, 640] -> [64, 96]",
        "mosaic: False -> True",
        "learning_rate: 0.08 -> 0.01",
        "moving_average_decay: 0.9998 -> 0.99",
        "var_freeze_expr: None -> fpn",
        "nms_configs.iou_thresh: 0.3 -> 0.5",
    ]


def test_compare_resolves_label_maps():
    names = Config(label_map={1: "a", 2: "b"})
    assert model_dir.compare(names, Config(label_map={2: "b", 1: "a"})) == []
    assert model_dir.compare(names, Config(label_map={1: "a", 2: "c"})) == ["label_map: {2: 'b'} -> {2: 'c'}"]
    assert model_dir.compare(Config(), names) == ["label_map: {} -> {1: 'a', 2: 'b'}"]
    assert model_dir.compare(Config(label_map=label_map.VOC), Config(label_map="voc")) == []


def test_compare_rejects_names_that_move_to_other_ids():
    saved, moved = Config(label_map={1: "a", 2: "b"}), Config(label_map={1: "b", 2: "a", 3: "c"})
    with pytest.raises(label_map.LabelMapError) as error:
        model_dir.compare(saved, moved)
    assert str(error.value) == (
        "class names have other ids in label_map than in the config.yaml of this training run: 'b' is 1 instead of 2, "
        "'a' is 2 instead of 1; a training run keeps its ids: convert the data again with them, or start a new run in "
        "another --model_dir"
    )


def test_compare_rejects_changes_of_fixed_keys():
    saved, new = Config(num_classes=3, optimizer="sgd"), Config(num_classes=5, optimizer="adam", num_epochs=7)
    message = r"continue with num_classes: 3 -> 5, optimizer: sgd -> adam; restore the previous values, or .*--ckpt$"
    with pytest.raises(ConfigError, match=message) as error:
        model_dir.compare(saved, new)
    assert is_one_line(error)


FPN = {"nodes": [{"feat_level": level, "inputs_offsets": [level - 3]} for level in range(3, 8)]}


@pytest.mark.parametrize("key, value", [("aspect_ratios", [1.0, 3.0, 0.33]), ("fpn_config", FPN)])
def test_compare_rejects_changed_lists_and_dicts(key, value):
    with pytest.raises(ConfigError, match=f"cannot continue with {key}: "):
        model_dir.compare(Config(), Config().override({key: value}))


@pytest.mark.parametrize("saved, new", [(0.0, 0.9), (0.9, 0.0)])
def test_compare_rejects_turning_the_moving_average_on_or_off(saved, new):
    with pytest.raises(ConfigError, match=f"moving_average_decay: {saved} -> {new}; restore"):
        model_dir.compare(Config(moving_average_decay=saved), Config(moving_average_decay=new))


@pytest.mark.parametrize(
    "key, saved, new",
    [("fpn_name", None, "bifpn"), ("fpn_name", "bifpn_dyn", None), ("fpn_weight_method", "fastattn", None)],
)
def test_compare_accepts_synonyms(key, saved, new):
    assert model_dir.compare(Config(**{key: saved}), Config(**{key: new})) == [f"{key}: {saved} -> {new}"]


# Every key that the network reads, with a value other than that of tiny_config.
NODES = [{"feat_level": level, "inputs_offsets": [level - 3]} for level in range(3, 8)]
OTHER = {
    "name": "other",
    "num_classes": 4,
    "act_type": "relu",
    "backbone_name": "efficientnet-lite1",
    "min_level": 4,
    "max_level": 6,
    "num_scales": 2,
    "aspect_ratios": [1.0, 2.0],
    "fpn_name": "qufpn",
    "fpn_weight_method": "sum",
    "fpn_config": {"nodes": NODES},
    "fpn_cell_repeats": 2,
    "fpn_num_filters": 16,
    "box_class_repeats": 2,
    "separable_conv": False,
    "apply_bn_for_resampling": False,
    "conv_after_downsample": True,
    "conv_bn_act_pattern": True,
    "survival_prob": 0.5,
    "is_training_bn": False,
    "grad_checkpoint": True,
}


def test_all_keys_that_a_network_reads_are_in_this_table(tiny_config):
    keys = {field.name for field in dataclasses.fields(Config)}
    read = set()

    class Recorded(Config):
        def __getattribute__(self, name):
            read.add(name)
            return super().__getattribute__(name)

    config = Recorded(**{key: getattr(tiny_config, key) for key in keys})
    read.clear()
    EfficientDetNet(config)
    assert read & keys == set(OTHER)
    assert set(model_dir.FIXED) - set(OTHER) == {"optimizer"}


@pytest.fixture(scope="module")
def shapes(tiny_config):
    return shapes_of(tiny_config)


def shapes_of(config):
    net = EfficientDetNet(config)
    return {name: tuple(variable.shape) for name, variable in checkpoint.named_variables(net).items()}


@pytest.mark.parametrize("key", OTHER)
def test_fixed_keys_are_those_that_change_variables(key, tiny_config, shapes):
    assert (shapes_of(tiny_config.override({key: OTHER[key]})) != shapes) == (key in model_dir.FIXED)
