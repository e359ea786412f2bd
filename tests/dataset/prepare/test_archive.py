# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/prepare/archive.py."""

import errno
import os
import pathlib
import shutil
import stat
import zipfile

import pytest

from dataset.files import TargetError
from dataset.prepare import archive
from dataset.tfrecord import DataError


def write_zip(path, entries, compression=zipfile.ZIP_DEFLATED):
    """Writes {name or ZipInfo: content}."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def entry(name, mode=0):
    """Returns the header of an entry with a Unix mode, which Python does not normalize."""
    info = zipfile.ZipInfo("x")
    info.filename, info.external_attr = name, mode << 16
    return info


def content_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_refused(path, message, error=DataError):
    """Checks the error, and that nothing is written."""
    folder = path.parent / "out/shop"
    with pytest.raises(error, match=message) as info:
        archive.unpack(path, folder)
    assert "\n" not in str(info.value)
    assert not folder.exists() and content_of(path.parent).keys() == {path.name}


def test_content(tmp_path):
    entries = {"top/a.jpg": b"\xff" * 1000, "top/labels/a.txt": b"0 0.5 0.5 1 1", "top/empty/": b"", "b.txt": b""}
    hidden = {"__MACOSX/._a.jpg": b"1", "top/.DS_Store": b"2", "top/Thumbs.db": b"3"}
    path = write_zip(tmp_path / "shop.ZIP", {**entries, **hidden})
    archive.unpack(path, tmp_path / "data/shop")
    assert content_of(tmp_path / "data") == {f"shop/{name}": entries[name] for name in entries if name[-1] != "/"}
    assert os.listdir(tmp_path / "data") == ["shop"]  # no staging folder


@pytest.mark.parametrize(
    "stored, is_utf8, name",
    [
        (b"train\\images\\a.jpg", False, "train/images/a.jpg"),  # Windows
        ("süß/é.jpg".encode(), True, "süß/é.jpg"),
        ("süß/é.jpg".encode(), False, "süß/é.jpg"),  # macOS: UTF-8 without the flag
        ("süß.jpg".encode("cp437"), False, "süß.jpg"),
        (b"./a//b.jpg", False, "a/b.jpg"),
    ],
)
def test_names_of_other_systems(tmp_path, stored, is_utf8, name):
    class Info(zipfile.ZipInfo):
        def _encodeFilenameFlags(self):
            return stored, archive.UTF8 if is_utf8 else 0

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(Info("x"), b"1")
    archive.unpack(tmp_path / "a.zip", tmp_path / "out")
    assert content_of(tmp_path / "out") == {name: b"1"}


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "..\\evil", "a/..", "/etc/evil", "\\evil", "\\\\host\\evil", "C:\\evil", "c:evil"],
)
def test_names_outside_of_the_folder_are_refused(tmp_path, name):
    path = write_zip(tmp_path / "a.zip", {"a.jpg": b"1", entry(name): b"2"})
    check_refused(path, r"a.zip is refused: '.*' would be written outside of the folder")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_special_files_are_refused(tmp_path, kind):
    path = write_zip(tmp_path / "a.zip", {"a.jpg": b"1", entry("link", kind | 0o777): b"/etc/passwd"})
    check_refused(path, "'link' is a link or a special file; pack the files themselves")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names, message",
    [
        (["a.jpg", "b.jpg", "a.jpg"], "it has 'a.jpg' twice"),
        (["x/a.jpg", "x\\a.jpg"], "it has 'x/a.jpg' twice"),
        (["x", "x/a.jpg"], "'x' is both a file and a folder"),
        (["x/"], "a.zip has no files"),
        ([".hidden"], "a.zip has no files"),
    ],
)
def test_names_that_collide_or_none(tmp_path, names, message):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in names:
            file.writestr(entry(name), b"1")
    check_refused(tmp_path / "a.zip", message)


def test_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MIN_BOMB_BYTES", 1 << 20)
    path = write_zip(tmp_path / "a.zip", {"a.txt": bytes(1 << 21)})
    check_refused(path, r"refused: \d+ bytes would expand to 2097152, more than 100 times as many")
    write_zip(path, {"a.txt": bytes(1 << 20)})  # small enough, whatever its ratio
    archive.unpack(path, tmp_path / "out")
    assert (tmp_path / "out/a.txt").stat().st_size == 1 << 20


def test_an_entry_cannot_exceed_its_stated_size(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.txt": bytes(5000)})
    content = path.read_bytes().replace((5000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(content)
    check_refused(path, "cannot unpack .*a.zip: Bad CRC-32 for file 'a.txt'; is the file complete")


def test_content_that_does_not_fit_the_disk(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "a.zip", {"a.bin": os.urandom(1000)})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**6, 10**6 - 1100, 1100))
    check_refused(path, r"a.zip needs 1000 bytes, but .*/out has 1100 left; free some, or choose a folder on another")


@pytest.mark.parametrize(
    "error, message", [(OSError(errno.ENOSPC, "No space left on device"), "No space left"), (KeyboardInterrupt(), None)]
)
def test_nothing_is_left_of_an_interrupted_run(tmp_path, monkeypatch, error, message):
    path = write_zip(tmp_path / "a.zip", {"x/a.jpg": b"1", "x/b.jpg": b"2"})
    copied = []

    def copy(source, target):
        if copied:
            raise error
        copied.append(target.write(source.read()))

    monkeypatch.setattr(shutil, "copyfileobj", copy)
    check_refused(path, message, DataError if message else KeyboardInterrupt)
    assert os.listdir(tmp_path / "out") == []


def test_the_rest_of_a_killed_run_is_replaced(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x/a.jpg": b"1"})
    (tmp_path / ".unfinished-out/out/x").mkdir(parents=True)
    (tmp_path / ".unfinished-out/out/x/old.jpg").touch()
    archive.unpack(path, tmp_path / "out")
    assert content_of(tmp_path) == {"a.zip": path.read_bytes(), "out/x/a.jpg": b"1"}


def damage(content, kind):
    data = content.find(b"\xff" * 50)  # stored, not compressed
    return {
        "empty": b"",
        "text": b"no zip",
        "truncated": content[: len(content) // 2],
        "changed": content[:data] + b"\0" + content[data + 1 :],
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "changed"])
def test_damaged_archives(tmp_path, kind):
    path = write_zip(tmp_path / "a.zip", {"a.jpg": b"\xff" * 3000}, zipfile.ZIP_STORED)
    path.write_bytes(damage(path.read_bytes(), kind))
    check_refused(path, r"cannot unpack .*a.zip: .*; is the file complete\? Export it again")


def test_encrypted_and_exotic_archives(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.jpg": b"1"})
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.find(signature) + offset] |= archive.ENCRYPTED
    path.write_bytes(content)
    check_refused(path, "a.zip is encrypted; unpack it with its password, and give the folder")
    write_zip(path, {"a.jpg": b"1"}, zipfile.ZIP_LZMA)
    check_refused(path, "'a.jpg' is compressed by method 14; expected deflate")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.rar", "a.7z"])
def test_other_archives(tmp_path, name):
    (tmp_path / name).write_bytes(b"1")
    assert archive.is_archive(tmp_path / name)
    check_refused(tmp_path / name, f"{name} is not a .zip file; unpack it, and give the folder")


def test_what_is_an_archive(tmp_path):
    (tmp_path / "folder.zip").mkdir()
    assert archive.is_archive(pathlib.Path("x/a.ZIP"))
    assert not archive.is_archive(pathlib.Path("data.yaml")) and not archive.is_archive(tmp_path / "folder.zip")


def test_existing_files_are_not_replaced(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.jpg": b"1"})
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_bytes(b"2")
    with pytest.raises(TargetError, match="out exists already"):
        archive.unpack(path, tmp_path / "out")
    assert content_of(tmp_path / "out") == {"mine": b"2"}
