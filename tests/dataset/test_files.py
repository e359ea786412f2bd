# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/files.py."""

import os

import pytest
import tensorflow as tf

from dataset import files


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
    assert files.files_in(str(path)) == [str(path / "inside") if target.endswith("/") else str(path)]


HIDDEN = [
    "._a.jpg",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    ".ipynb_checkpoints/a-checkpoint.jpg",
    "__MACOSX/._a.jpg",
    "__MACOSX/a.jpg",
    "sub/.ipynb_checkpoints/deep/a.jpg",
    "sub/._b.jpg",
]


@pytest.fixture
def littered(tmp_path):
    """A folder with images, two of them in subfolders, between hidden files; its own path has hidden parts."""
    folder = tmp_path / ".cache" / "in [1]"
    for name in ["b.jpg", "a.jpg", "c.png", "sub/b.jpg", "sub/deep/a.jpg", *HIDDEN]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize(
    "pattern, names, hidden",
    [
        ("*", ["a.jpg", "b.jpg", "c.png"], [".DS_Store", "._a.jpg", "Thumbs.db", "desktop.ini"]),
        ("*.jpg", ["a.jpg", "b.jpg"], ["._a.jpg"]),
        ("**", ["a.jpg", "b.jpg", "c.png", "sub/b.jpg", "sub/deep/a.jpg"], sorted(HIDDEN)),
        ("**/*", ["a.jpg", "b.jpg", "c.png", "sub/b.jpg", "sub/deep/a.jpg"], sorted(HIDDEN)),
        (
            "**/*.jpg",
            ["a.jpg", "b.jpg", "sub/b.jpg", "sub/deep/a.jpg"],
            sorted(name for name in HIDDEN if name.endswith(".jpg")),
        ),
        ("**.jpg", ["a.jpg", "b.jpg"], ["._a.jpg"]),  # as `*`, like Python's glob and bash
        ("**/a.jpg", ["a.jpg", "sub/deep/a.jpg"], ["__MACOSX/a.jpg", "sub/.ipynb_checkpoints/deep/a.jpg"]),
        ("s*/**/*.jpg", ["sub/b.jpg", "sub/deep/a.jpg"], ["sub/._b.jpg", "sub/.ipynb_checkpoints/deep/a.jpg"]),
        ("*/*.jpg", ["sub/b.jpg"], [".ipynb_checkpoints/a-checkpoint.jpg", "__MACOSX/._a.jpg", "__MACOSX/a.jpg",
                                    "sub/._b.jpg"]),
        ("[ac].*", ["a.jpg", "c.png"], []),
        ("sub/*", ["sub/b.jpg"], ["sub/._b.jpg"]),
        ("*.gif", [], []),
    ],
)  # fmt: skip
def test_globs_are_recursive_and_without_hidden_files(littered, pattern, names, hidden):
    expected = files.Found(*([str(littered / name) for name in group] for group in (names, hidden)))
    assert files.find_in(littered, pattern) == expected
    plain = littered.with_name("plain")  # a glob cannot begin with the brackets of the other name
    littered.rename(plain)
    found = files.expand(f"{plain}/{pattern}")
    assert found == files.Found(*([str(plain / name) for name in group] for group in (names, hidden)))


def test_paths_of_globs_begin_as_given(littered, monkeypatch):
    monkeypatch.chdir(littered)
    assert files.expand("*.jpg").files == ["a.jpg", "b.jpg"]
    assert files.expand("./*.jpg").files == ["./a.jpg", "./b.jpg"]
    assert files.expand("../in*/*.png").files == ["../in [1]/c.png"]
    assert files.expand("sub/**/*.jpg").files == ["sub/b.jpg", "sub/deep/a.jpg"]
    assert files.expand("**/deep/*").files == ["sub/deep/a.jpg"]


def test_files_and_folders_are_taken_as_named(littered):
    """The name of a file may look like a glob, and a hidden folder may be meant."""
    assert files.expand(str(littered)).files == [str(littered / name) for name in ("a.jpg", "b.jpg", "c.png")]
    assert files.expand(str(littered / "._a.jpg")) == ([str(littered / "._a.jpg")], [])
    hidden_folder = littered / ".ipynb_checkpoints"
    assert files.expand(str(hidden_folder)).files == [str(hidden_folder / "a-checkpoint.jpg")]
    assert files.expand("") == files.expand(str(littered / "none.jpg")) == ([], [])


def test_a_link_to_nothing_is_found(littered):
    (littered / "d.jpg").symlink_to("gone")
    assert str(littered / "d.jpg") in files.find_in(littered).files


def test_files_in_has_no_hidden_files(littered):
    names = ["a.jpg", "b.jpg", "c.png", "sub/b.jpg", "sub/deep/a.jpg"]
    assert files.files_in(str(littered)) == [str(littered / name) for name in names]


def test_hidden_files_are_counted_once(caplog):
    hidden = [f"data/._{i}.jpg" for i in range(5)]
    for _ in range(2):
        files.warn_of_hidden(hidden)
    files.warn_of_hidden([])
    assert caplog.messages == ["hidden files ignored: 5 (data/._0.jpg, data/._1.jpg, data/._2.jpg, ...)"]


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
    assert files.files_in(path) == [f"{path}/a", f"{path}/inside/b"]
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
    assert uploaded == ["2", "1", "3"] and files.files_in(folder) == (
        [] if fails_at else [f"{folder}/{i}" for i in "123"]
    )
