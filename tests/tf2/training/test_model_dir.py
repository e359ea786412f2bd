# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""model_dir: whatever stops the writing, and whatever is damaged later, a whole checkpoint is found again."""

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
    """A directory that does not exist, on disk and in an object store."""
    return str(tmp_path / "run") if request.param == "local" else f"ram://{tmp_path.name}/run"


def entries(value):
    return {"net/kernel": np.full([3, 5], value, np.float32), "global_step": np.int64(value)}


def filled(path, *steps, keep=5):
    """A directory with checkpoints of these steps; the values in each are its step."""
    directory = ModelDir(path, keep)
    directory.prepare(1000)
    for step in steps:
        directory.save(step, entries(step))
    return directory


def step_and_value(directory):
    """What a training would go on from; both are the same number if the checkpoint is the right one."""
    prefix, values = directory.newest()
    assert values.keys() == entries(0).keys() and len(np.unique(values["net/kernel"])) == 1
    return checkpoint.step_of(prefix), values["net/kernel"][0, 0]


def listing(*parts):
    return sorted(file.rstrip("/") for file in tf.io.gfile.listdir(os.path.join(*parts)))


def files_of(*steps):
    return {f"model.ckpt-{step}{suffix}" for step in steps for suffix in (DATA, ".index")}


def write(data, *parts):
    """Replaces a file; in memory, TensorFlow would append to it."""
    if tf.io.gfile.exists(os.path.join(*parts)):
        tf.io.gfile.remove(os.path.join(*parts))
    with tf.io.gfile.GFile(os.path.join(*parts), "wb") as file:
        file.write(data)


def read(*parts):
    with tf.io.gfile.GFile(os.path.join(*parts), "rb") as file:
        return file.read()


def one_sentence(error):
    return "\n" not in str(error.value) and "{{" not in str(error.value) and len(str(error.value)) < 600


# Saving.


def test_save_gives_back_bit_by_bit(path):
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


def test_save_keeps_the_newest(path):
    directory = filled(path, 1, 2, 10, 11, 12, 100, 101)  # model.ckpt-1 goes, model.ckpt-1* does not
    assert checkpoint.saved(path) == [f"model.ckpt-{step}" for step in (10, 11, 12, 100, 101)]
    assert set(listing(path)) == {"checkpoint"} | files_of(10, 11, 12, 100, 101)
    assert step_and_value(directory) == (101, 101)
    filled(path, 102, keep=2)
    assert set(listing(path)) == {"checkpoint"} | files_of(101, 102)
    filled(path, 103, keep=1)
    assert set(listing(path)) == {"checkpoint"} | files_of(103)
    assert tf.train.latest_checkpoint(path) == os.path.join(path, "model.ckpt-103")  # TensorFlow's own reader agrees


def test_a_moved_directory_goes_on(tmp_path):
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
def test_nothing_that_is_not_finite_is_saved(bad, dtype, tmp_path):
    directory = filled(str(tmp_path), 3)
    before = listing(tmp_path)
    tensors = {**entries(4), "net/bias": np.array([1, bad], dtype)}
    with pytest.raises(FloatingPointError, match=r"^step 4 is not saved: 1 of its 3 tensors .*\(net/bias\)$"):
        directory.save(4, tensors)
    assert listing(tmp_path) == before and step_and_value(directory) == (3, 3)


# Kills.


class Kill(BaseException):
    """Ends the program in the middle of its work: nothing that mends errors sees it."""


@contextlib.contextmanager
def killed_at(number, half):
    """Ends the program at the file operation of this number; with `half`, after a part of what it does.

    A rename is one moment, and so is the end of a short file; TensorFlow renames the data first, then the index.
    """
    counter = itertools.count()

    def half_copy(source, target, overwrite=False):
        if DATA in source:
            write(read(source)[:20], target)

    def half_save(prefix, **kwargs):
        save(prefix=f"{prefix}-elsewhere", **kwargs)
        rename(f"{prefix}-elsewhere{DATA}", f"{prefix}{DATA}", overwrite=True)
        remove(f"{prefix}-elsewhere.index")

    def step(original, partly=None):
        def operation(*args, **kwargs):
            if next(counter) == number:
                if half and partly:
                    partly(*args, **kwargs)
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


def assert_all_whole(path):
    """Each index that lies there is of a checkpoint that can be read, should the state file be lost, too."""
    for file in listing(path):
        if file.endswith(".index"):
            checkpoint.read_entries(os.path.join(path, file.removesuffix(".index")))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("steps, step, keep", [((), 3, 5), ((1, 2), 3, 2), ((1,), 2, 1), ((1, 2), 2, 5), ((2,), 2, 1)])
def test_a_kill_while_saving(path, steps, step, keep, half):
    """The next start finds the old state or the new one, whole; going on leaves no other files than ever."""
    last = steps[-1] if steps else None
    for number in itertools.count():
        directory = filled(f"{path}/{number}", *steps, keep=keep)
        try:
            with killed_at(number, half):
                directory.save(step, entries(30))
            break
        except Kill:
            pass
        for _ in range(2):  # as it lies there, and as the next start leaves it
            assert_all_whole(directory.path)
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
    assert number >= 2  # the checkpoint, its state file and more


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("steps", [(1, 2), (2, 2)])
def test_a_kill_while_archiving(path, steps, half):
    for number in itertools.count():
        directory = filled(f"{path}/{number}")
        directory.write_config(Config())
        directory.archive(directory.save(steps[0], entries(10)), {"AP": 0.1})
        prefix = directory.save(steps[1], entries(20))
        best = ModelDir(os.path.join(directory.path, "archive"))
        try:
            with killed_at(number, half):
                directory.archive(prefix, {"AP": 0.2})
            break
        except Kill:
            pass
        for _ in range(2):
            assert_all_whole(best.path)
            assert step_and_value(best) in [(steps[0], 10), (steps[1], 20)]
            assert directory.best_ap() == {10: 0.1, 20: 0.2}[step_and_value(best)[1]] or steps == (2, 2)
            directory.prepare(1000)
        directory.archive(prefix, {"AP": 0.2})
        directory.prepare(1000)
        assert step_and_value(best) == (steps[1], 20) and json.loads(read(best.path, "best_eval.txt"))["AP"] == 0.2
        assert set(listing(best.path)) == {"checkpoint", "best_eval.txt", "config.yaml"} | files_of(steps[1])
    assert number >= 6


@pytest.mark.parametrize("prepares", [True, False])
def test_a_kill_while_saving_a_step_again(path, prepares):
    """The copy that stands in has another name; it gives the name back, and then goes."""
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


def test_prepare_removes_what_kills_leave(path, caplog):
    caplog.set_level("INFO", logger="absl")
    directory = filled(path, 3, 4)
    left = [f"model.ckpt-5{DATA}", f"model.ckpt-4{DATA}.tempstate123", "model.ckpt-5.index.tempstate9"]
    left += [".unfinished-checkpoint", ".unfinished-best_objective.txt", ".unfinished-config.yaml", *files_of(2)]
    others = [
        "notes.txt",
        ".unfinished-notes",
        "model.ckpt-5.zip",
        "my-model.ckpt-5.index",
        "model.ckpt-best.index",
        "graph.pbtxt",
    ]
    for name in [*left, *others]:
        write(b"half", path, name)
    directory.prepare(1000)
    assert set(listing(path)) == {"checkpoint", *others} | files_of(3, 4)
    assert f"removing {len(left)} files of an interrupted run" in caplog.text
    assert all(name in caplog.text for name in left)
    caplog.clear()
    directory.prepare(1000)
    assert not caplog.text


@pytest.mark.parametrize("state", [None, b"", b"\xff", b'model_checkpoint_path: "model.ckpt-3"\n'])
def test_prepare_leaves_whole_checkpoints_that_no_state_file_lists(path, state):
    """The state file lost, damaged, and older than the checkpoints."""
    directory = filled(path, 3, 4, 5)
    if state is None:
        tf.io.gfile.remove(f"{path}/checkpoint")
    else:
        write(state, path, "checkpoint")
    directory.prepare(1000)
    assert set(listing(path)) >= files_of(3, 4, 5)
    assert step_and_value(directory) == ((3, 3) if state and b"3" in state else (5, 5))


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_prepare_leaves_older_ones_where_the_newest_is_not_whole(path, damage):
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
def test_a_damaged_newest_checkpoint(path, kind, suffix, caplog):
    directory = filled(path, 1, 2, 3)
    damage(kind, path, f"model.ckpt-3{suffix}")
    directory.prepare(1000)
    assert step_and_value(directory) == (2, 2)
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1 and re.search(rf"{path}/model.ckpt-3.*; using {path}/model.ckpt-2 instead$", errors[0])
    for step in (3, 4):  # training goes on
        directory.save(step, entries(step))
        assert step_and_value(directory) == (step, step)


def test_two_damaged_checkpoints(path, caplog):
    directory = filled(path, 1, 2, 3)
    damage("cut off", path, f"model.ckpt-3{DATA}")
    damage("cut off", path, "model.ckpt-2.index")
    assert step_and_value(directory) == (1, 1)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


@pytest.mark.parametrize("state", [True, False])
def test_nothing_but_damaged_checkpoints(path, state):
    directory = filled(path, 1, 2)
    for step in (1, 2):
        damage("a bit in the middle", path, f"model.ckpt-{step}{DATA}")
    if not state:
        tf.io.gfile.remove(f"{path}/checkpoint")
    directory.prepare(1000)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be read .*ckpt-2.*ckpt-1.*begin anew") as error:
        directory.newest()
    assert "\n" not in str(error.value)


def test_all_files_are_gone_but_the_state_file(path):
    directory = filled(path, 1, 2)
    for file in files_of(1, 2):
        tf.io.gfile.remove(f"{path}/{file}")
    with pytest.raises(CheckpointError, match=r"names .*model.ckpt-2, which has no .index file"):
        directory.newest()


def test_a_directory_without_a_checkpoint(path):
    assert ModelDir(path).newest() is None  # nor a directory
    assert filled(path).newest() is None
    write(b"half", path, f"model.ckpt-1{DATA}")  # the first save was killed
    assert ModelDir(path).newest() is None


def test_every_damaged_byte_is_noticed(tmp_path):
    """TensorFlow's checksums: no value is ever read wrong."""
    directory = filled(str(tmp_path), 1)
    for suffix in (".index", DATA):
        file = tmp_path / f"model.ckpt-1{suffix}"
        data = file.read_bytes()
        for i in range(len(data)):
            file.write_bytes(data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1 :])
            with contextlib.suppress(CheckpointError):
                assert step_and_value(directory) == (1, 1), i
        file.write_bytes(data)


def test_a_reader_beside_a_writer_that_deletes(path, monkeypatch):
    """Whatever the moment, there is a checkpoint, or an error of the two kinds that callers expect."""
    directory = filled(path, 1, 2)
    load = tf.compat.v1.train.NewCheckpointReader

    def load_late(prefix):
        reader = load(prefix)
        for file in listing(path):
            tf.io.gfile.remove(f"{path}/{file}")
        return reader

    monkeypatch.setattr(tf.compat.v1.train, "NewCheckpointReader", load_late)
    with contextlib.suppress(CheckpointError, OSError):  # an open file may be read to its end
        assert step_and_value(directory) == (2, 2)
    with pytest.raises(CheckpointError, match=r"cannot read|no checkpoint"):
        checkpoint.read_entries(f"{path}/model.ckpt-2")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.find(path)


# Disks that fail.


@contextlib.contextmanager
def no_room(num_bytes):
    """Files of this process cannot grow beyond a size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def without_rights():
    """Rights of files hold for root, too."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_prepare_makes_the_directory(path):
    ModelDir(f"{path}/a/b").prepare(1000)
    assert tf.io.gfile.isdir(f"{path}/a/b") and listing(f"{path}/a/b") == []
    ModelDir(f"{path}/a/b").prepare(1000)


def test_prepare_finds_a_file_in_the_way(path):
    tf.io.gfile.makedirs(os.path.dirname(path))
    write(b"", path)
    with pytest.raises(
        OSError, match=f"^cannot write to {path}: .*; mend that, or choose another --model_dir"
    ) as error:
        ModelDir(path).prepare(1000)
    assert one_sentence(error)


@pytest.mark.parametrize("exists", [True, False])
def test_prepare_finds_a_read_only_directory(exists):
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o555)
        path = root if exists else f"{root}/new"
        with without_rights(), pytest.raises(OSError, match=f"cannot write to {path}: .*ermission denied") as error:
            ModelDir(path).prepare(1000)
    assert one_sentence(error)


def test_prepare_wants_room_for_two_checkpoints(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(OSError, match=r"has \d+ MiB left, two checkpoints need \d+ MiB; free space") as error:
        ModelDir(str(tmp_path)).prepare(int(free * 0.51))
    assert one_sentence(error)
    ModelDir(str(tmp_path)).prepare(int(free * 0.4))
    ModelDir(f"ram://{tmp_path.name}").prepare(free)  # which tells no size


LARGE = {"net/kernel": np.ones([50_000], np.float32), "global_step": np.int64(5)}


@pytest.mark.parametrize("step", [4, 5])
@pytest.mark.parametrize("room", [0, 10_000])
def test_a_full_disk_while_saving(tmp_path, step, room):
    """Step 4 is there already, and 5 is new."""
    directory = filled(str(tmp_path), 3, 4)
    with no_room(room), pytest.raises(OSError) as error:
        directory.save(step, LARGE)
    assert re.search(f"^cannot save step {step} in {tmp_path}: .*File too large; what was there", str(error.value))
    assert one_sentence(error) and step_and_value(directory) == (4, 4)
    left = {"checkpoint"} | files_of(3, 4)
    assert {file.replace("ckpt-04", "ckpt-4") for file in listing(tmp_path)} == left
    prefix = directory.save(step, LARGE)
    assert checkpoint.read_entries(prefix)["global_step"] == 5 and directory.newest()[0] == prefix


@pytest.mark.parametrize("room", [0, 10_000])
def test_a_full_disk_while_archiving(tmp_path, room):
    directory = filled(str(tmp_path), 3)
    directory.archive(f"{tmp_path}/model.ckpt-3", {"AP": 0.3})
    prefix = directory.save(4, LARGE)
    with (
        no_room(room),
        pytest.raises(OSError, match=r"^cannot keep model.ckpt-4 as the best in .*File too large; what"),
    ):
        directory.archive(prefix, {"AP": 0.4})
    best = ModelDir(f"{tmp_path}/archive")
    assert step_and_value(best) == (3, 3) and read(tmp_path, "best_objective.txt") == b"0.300000"
    assert set(listing(best.path)) == {"checkpoint", "best_eval.txt"} | files_of(3)


def test_a_full_disk_while_writing_the_config(tmp_path):
    directory = filled(str(tmp_path))
    directory.write_config(Config(num_epochs=7))
    with no_room(100), pytest.raises(OSError, match=r"^cannot write config\.yaml in .*File too large"):
        directory.write_config(Config(num_epochs=8))
    assert directory.read_config().num_epochs == 7 and listing(tmp_path) == ["config.yaml"]


def test_a_directory_that_went_away(tmp_path):
    directory = filled(str(tmp_path / "run"), 3)
    shutil.rmtree(directory.path)
    (tmp_path / "run").write_text("")
    with pytest.raises(OSError, match=r"^cannot save step 4 in ") as error:
        directory.save(4, entries(4))
    assert one_sentence(error)


# The best one.


def test_archive(path):
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


def test_archive_wants_a_checkpoint(path):
    directory = filled(path, 3)
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*model.ckpt-9"):
        directory.archive(f"{path}/model.ckpt-9", {"AP": 0.5})
    assert set(listing(path)) == {"checkpoint"} | files_of(3)


@pytest.mark.parametrize("suffix", [".index", DATA])
def test_archive_takes_nothing_that_is_damaged(path, suffix):
    """As of a training that deletes the checkpoint while another process archives it."""
    directory = filled(path, 3, 4)
    directory.archive(f"{path}/model.ckpt-3", {"AP": 0.3})
    damage("cut off", path, f"model.ckpt-4{suffix}")
    with pytest.raises(CheckpointError, match=r"cannot read .*archive/model.ckpt-4"):
        directory.archive(f"{path}/model.ckpt-4", {"AP": 0.4})
    best = ModelDir(f"{path}/archive")
    assert step_and_value(best) == (3, 3) and directory.best_ap() == 0.3
    assert set(listing(best.path)) == {"checkpoint", "best_eval.txt"} | files_of(3)


def test_archive_takes_no_file_that_is_being_written(path):
    directory = filled(path, 3)
    write(b"half", path, f"model.ckpt-3{DATA}.tempstate77")
    directory.archive(f"{path}/model.ckpt-3", {"AP": 0.3})
    assert set(listing(path, "archive")) == {"checkpoint", "best_eval.txt"} | files_of(3)


@pytest.mark.parametrize("metrics", [None, b"", b"{}", b"[1]", b"{'AP': 0.5}"])
def test_best_ap_is_none_without_an_archive(path, metrics):
    directory = filled(path, 3)
    assert directory.best_ap() == -1
    directory.archive(f"{path}/model.ckpt-3", {"AP": 0.25})
    assert directory.best_ap() == 0.25
    if metrics is not None:
        write(metrics, path, "archive/best_eval.txt")
        assert directory.best_ap() == -1


# The configuration.


def test_config_comes_back(path):
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
    assert yaml.safe_load(read(path, "config.yaml"))["nms_configs"] == {}  # a command that detects has its own
    directory.write_config(config.override({"nms_configs": {"method": "hard"}}))
    assert yaml.safe_load(read(path, "config.yaml"))["nms_configs"] == {"method": "hard"}
    assert directory.read_config().nms_configs.method == "hard"


def test_the_names_of_the_classes_travel_with_the_config(path, tmp_path):
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
def test_a_config_that_cannot_be_read(path, text, caplog):
    directory = filled(path)
    write(text, path, "config.yaml")
    assert directory.read_config() is None
    [record] = caplog.records
    assert record.levelname == "WARNING" and f"cannot read {path}/config.yaml (" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_compare_tells_what_changed():
    begun = Config(label_map="voc", nms_configs={"method": "hard", "iou_thresh": 0.3})
    assert model_dir.compare(begun, begun) == []
    now = begun.override(
        {"learning_rate": 0.01, "mosaic": True, "var_freeze_expr": "fpn", "aspect_ratios": [1, 2, 0.5]}
    )
    now = now.override({"nms_configs": {"iou_thresh": 0.5}, "moving_average_decay": 0.99, "image_size": "96x64"})
    assert model_dir.compare(begun, now) == [
        "image_size: [640, 640] -> [64, 96]",
        "mosaic: False -> True",
        "learning_rate: 0.08 -> 0.01",
        "moving_average_decay: 0.9998 -> 0.99",
        "var_freeze_expr: None -> fpn",
        "nms_configs.iou_thresh: 0.3 -> 0.5",
    ]


def test_compare_holds_names_against_names():
    names = Config(label_map={1: "a", 2: "b"})
    assert model_dir.compare(names, Config(label_map={2: "b", 1: "a"})) == []
    assert model_dir.compare(names, Config(label_map={1: "a", 2: "c"})) == ["label_map: {2: 'b'} -> {2: 'c'}"]
    assert model_dir.compare(Config(), names) == ["label_map: {} -> {1: 'a', 2: 'b'}"]
    assert model_dir.compare(Config(label_map=label_map.VOC), Config(label_map="voc")) == []


def test_compare_refuses_what_no_training_can_go_on_with():
    begun, now = Config(num_classes=3, optimizer="sgd"), Config(num_classes=5, optimizer="adam", num_epochs=7)
    message = r"cannot go on with num_classes: 3 -> 5, optimizer: sgd -> adam; set what was before, or .*--ckpt$"
    with pytest.raises(ConfigError, match=message) as error:
        model_dir.compare(begun, now)
    assert one_sentence(error)


FPN = {"nodes": [{"feat_level": level, "inputs_offsets": [level - 3]} for level in range(3, 8)]}


@pytest.mark.parametrize("key, value", [("aspect_ratios", [1.0, 3.0, 0.33]), ("fpn_config", FPN)])
def test_compare_refuses_lists_and_dicts_too(key, value):
    with pytest.raises(ConfigError, match=f"cannot go on with {key}: "):
        model_dir.compare(Config(), Config().override({key: value}))


@pytest.mark.parametrize("before, now", [(0.0, 0.9), (0.9, 0.0)])
def test_compare_refuses_a_moving_average_that_begins_or_ends(before, now):
    with pytest.raises(ConfigError, match=f"moving_average_decay: {before} -> {now}; set"):
        model_dir.compare(Config(moving_average_decay=before), Config(moving_average_decay=now))


@pytest.mark.parametrize(
    "key, before, now",
    [("fpn_name", None, "bifpn"), ("fpn_name", "bifpn_dyn", None), ("fpn_weight_method", "fastattn", None)],
)
def test_compare_takes_other_words_for_the_same(key, before, now):
    assert model_dir.compare(Config(**{key: before}), Config(**{key: now})) == [f"{key}: {before} -> {now}"]


# Every key that the network reads, each with another value than the small one has.
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


def test_all_keys_that_a_network_reads_are_known_here(tiny_config):
    keys = {field.name for field in dataclasses.fields(Config)}
    asked = set()

    class Asked(Config):
        def __getattribute__(self, name):
            asked.add(name)
            return super().__getattribute__(name)

    config = Asked(**{key: getattr(tiny_config, key) for key in keys})
    asked.clear()
    EfficientDetNet(config)
    assert asked & keys == set(OTHER)
    assert set(model_dir.FIXED) - set(OTHER) == {"optimizer"}


@pytest.fixture(scope="module")
def shapes(tiny_config):
    return shapes_of(tiny_config)


def shapes_of(config):
    net = EfficientDetNet(config)
    return {name: tuple(variable.shape) for name, variable in checkpoint.named_variables(net).items()}


@pytest.mark.parametrize("key", OTHER)
def test_what_changes_the_variables_cannot_change(key, tiny_config, shapes):
    assert (shapes_of(tiny_config.override({key: OTHER[key]})) != shapes) == (key in model_dir.FIXED)
