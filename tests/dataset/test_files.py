# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/files.py."""

import os

import pytest
import tensorflow as tf

from dataset import files
from dataset.file_search import files_in


@pytest.mark.parametrize(
    "error, reason",
    [
        (FileNotFoundError(2, "No such file or directory", "a.jpg"), "No such file or directory"),
        (ValueError("while parsing\n  line 3,\tcolumn 1"), "while parsing line 3, column 1"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 300), "x" * 197 + "..."),
        (
            tf.errors.DataLossError(None, None, "{{node ReadFile}} truncated record [Op:ReadFile]\nstack"),
            "truncated record",
        ),
        (tf.errors.NotFoundError(None, None, "a; b.json; No such file or directory"), "No such file or directory"),
        (tf.errors.NotFoundError(None, None, "a; b.json; Not here"), "a; b.json; Not here"),
        (tf.errors.InvalidArgumentError(None, None, ""), "InvalidArgumentError"),
    ],
)
def test_reason_of(error, reason):
    assert files.reason_of(error) == reason


@pytest.mark.parametrize("folder", ["", "ram://files/"])
def test_write_file_replaces_local_and_remote_files(tmp_path, folder):
    path = (folder or f"{tmp_path}/") + "a.txt"
    tf.io.gfile.makedirs(os.path.dirname(path))
    files.write_file(path, b"first, and longer")
    files.write_file(path, "é \udcff")
    with tf.io.gfile.GFile(path, "rb") as file:
        assert file.read() == "é \\udcff".encode()
    assert tf.io.gfile.listdir(os.path.dirname(path)) == ["a.txt"]


def test_failed_write_keeps_the_previous_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.write_file(path, "old")

    def fail(*args, **kwargs):
        raise tf.errors.ResourceExhaustedError(None, None, "no space left")

    monkeypatch.setattr(tf.io.gfile, "rename", fail)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        files.write_file(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_writers_with_different_suffixes_may_write_at_the_same_time(tmp_path, monkeypatch):
    path, rename = str(tmp_path / "a.txt"), tf.io.gfile.rename

    def write_another_first(*args, **kwargs):
        monkeypatch.setattr(tf.io.gfile, "rename", rename)
        files.write_file(path, "another", suffix="-2")
        rename(*args, **kwargs)

    monkeypatch.setattr(tf.io.gfile, "rename", write_another_first)
    files.write_file(path, "one", suffix="-1")
    assert os.listdir(tmp_path) == ["a.txt"] and files.read_file(path) == b"one"


def test_staging_folder_moves_files_in_order(tmp_path, monkeypatch):
    (tmp_path / ".unfinished-train").mkdir()
    (tmp_path / ".unfinished-train" / "left-by-a-killed-process").write_text("")
    moved = []
    replace = os.replace
    monkeypatch.setattr(files.os, "replace", lambda old, new: (moved.append(os.path.basename(new)), replace(old, new)))
    with files.staging_folder(str(tmp_path / "train"), order=lambda file: -int(file)) as folder:
        for name in ("1", "3", "2"):
            (tmp_path / folder / name).write_text(name)
    assert moved == ["3", "2", "1"] and sorted(os.listdir(tmp_path)) == ["1", "2", "3"]


def test_staging_folder_has_one_writer(tmp_path):
    prefix = str(tmp_path / "train")
    with files.staging_folder(prefix) as folder:
        (tmp_path / folder / "a").write_text("mine")
        with pytest.raises(files.TargetError, match="another run is writing"), files.staging_folder(prefix):
            pytest.fail("two writers")
    assert (tmp_path / "a").read_text() == "mine"
    with pytest.raises(OSError, match="disk full"), files.staging_folder(prefix) as folder:
        (tmp_path / folder / "b").write_text("half")
        raise OSError("disk full")
    assert os.listdir(tmp_path) == ["a"]


def test_check_target_rejects_existing_paths_and_unusable_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("kept")
    for path in ("empty", "none", "new/folder/file"):
        files.check_target(str(tmp_path / path))
    assert (tmp_path / "new" / "folder").is_dir()
    for path, message in (
        (".", "exists already"),
        ("file", "exists already"),
        ("file/x", "file cannot be written to"),
    ):
        with pytest.raises(files.TargetError, match=message):
            files.check_target(str(tmp_path / path))
    assert (tmp_path / "file").read_text() == "kept"


def test_check_file_accepts_files_of_existing_and_of_remote_folders(tmp_path):
    (tmp_path / "file").write_text("kept")
    for path in (tmp_path / "file", tmp_path / "new", "ram://check_file/new/file"):
        files.check_file(str(path))
    for path in (tmp_path, tmp_path / "none" / "file", tmp_path / "file" / "x"):
        with pytest.raises(files.TargetError, match=f"expected a file in a folder that exists, got {path}$"):
            files.check_file(str(path))
    assert (tmp_path / "file").read_text() == "kept" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("target", ["new.pb", "folder/"])
def test_atomic_path_is_complete_or_absent(tmp_path, target):
    path = tmp_path / target.rstrip("/")

    def write(text):
        with files.atomic_path(str(tmp_path) + "/" + target) as temporary:
            assert temporary.endswith(path.suffix) and not path.exists()
            file = tmp_path / temporary
            if target.endswith("/"):
                file.mkdir()
                file /= "inside"
            file.write_text(text)
            if text == "half":
                raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write("half")
    assert list(tmp_path.iterdir()) == []
    write("complete")
    assert list(tmp_path.iterdir()) == [path]
    assert files_in(str(path)) == [str(path / "inside") if target.endswith("/") else str(path)]


@pytest.mark.parametrize(
    "path, folder",
    [
        ("gs://bucket/a/b.json", "gs://bucket/a"),
        ("gs://bucket/a/", "gs://bucket"),
        ("ram://a", "ram://"),
        ("/a/b.json", "/a"),
        ("/a/b/", "/a"),
    ],
)
def test_folder_of(path, folder):
    assert files.folder_of(path.rstrip("/")) == folder


def test_folder_of_a_name_is_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert files.folder_of("a.json") == str(tmp_path)


def test_a_remote_folder_is_uploaded_when_it_is_complete(tmp_path):
    path = f"ram://{tmp_path.name}/model"

    def write(is_complete):
        with files.atomic_path(path) as temporary:
            assert os.path.isabs(temporary)
            os.makedirs(f"{temporary}/inside")
            for name in ("a", "inside/b"):
                files.write_file(f"{temporary}/{name}", name)
            if not is_complete:
                raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write(is_complete=False)
    assert not tf.io.gfile.exists(path)
    write(is_complete=True)
    assert files_in(path) == [f"{path}/a", f"{path}/inside/b"]
    assert files.read_file(f"{path}/inside/b") == b"inside/b"
    with pytest.raises(files.TargetError, match="exists already"):
        files.check_target(path)


@pytest.mark.parametrize("fails_at", [None, "3"])
def test_remote_files_that_belong_together_are_uploaded_in_order(tmp_path, monkeypatch, fails_at):
    uploaded, copy = [], tf.io.gfile.copy

    def record(source, target, overwrite):
        uploaded.append(os.path.basename(source))
        if uploaded[-1] == fails_at:
            raise tf.errors.UnavailableError(None, None, "no network")
        copy(source, target, overwrite=overwrite)

    monkeypatch.setattr(tf.io.gfile, "copy", record)
    folder = f"ram://{tmp_path.name}"
    tf.io.gfile.makedirs(folder)

    def write():
        with files.staging_folder(f"{folder}/train", order=lambda file: (file != "2", file)) as staging:
            for name in ("1", "2", "3"):
                files.write_file(f"{staging}/{name}", name)

    if fails_at:
        with pytest.raises(tf.errors.UnavailableError):
            write()
    else:
        write()
    assert uploaded == ["2", "1", "3"] and files_in(folder) == ([] if fails_at else [f"{folder}/{i}" for i in "123"])
