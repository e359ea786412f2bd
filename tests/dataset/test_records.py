# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/records.py: all intact records are read and all damaged ones reported, wherever the damage is."""

import gzip

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import records as records_lib
from dataset.records import FRAME_BYTES, RecordFiles
from dataset.tfrecord import DataError


def write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def starts(records):
    """Byte offsets of the frames of all records, and of the end of the file."""
    offsets = [0]
    for record in records:
        offsets.append(offsets[-1] + len(record) + FRAME_BYTES)
    return offsets


def read(path, max_damaged=None):
    """The (number, record) pairs of a file, and the reasons of skipped records by number."""
    files = RecordFiles([path], max_damaged)
    found = [
        (int(position[1]), record) for position, record in files.read(tf.constant(0, tf.int64)).as_numpy_iterator()
    ]
    return found, {number: reason for (_, number), reason in files.damaged.items()}


@pytest.fixture(scope="module")
def records():
    return [bytes([i]) * (20 + 7 * i) for i in range(12)]


@pytest.mark.parametrize("contents", [[], [b""], [b"\0"], [b"a", b"", b"\0", b"\0\0\0\0" * 9, b"a"]])
def test_intact_files(tmp_path, contents):
    assert read(write(tmp_path / "x", contents)) == (list(enumerate(contents)), {})


@pytest.mark.parametrize("bad", [[0], [11], [3], [3, 4], [0, 5, 11], list(range(12))])
def test_wrong_checksums(tmp_path, records, bad):
    path = write(tmp_path / "x", records)
    content = bytearray((tmp_path / "x").read_bytes())
    for number in bad:
        content[starts(records)[number] + 14] ^= 4
    (tmp_path / "x").write_bytes(content)
    found, damaged = read(path)
    assert found == [(i, record) for i, record in enumerate(records) if i not in bad]
    assert damaged == dict.fromkeys(bad, "its checksum is wrong")


@pytest.mark.parametrize("block", [5, 64, records_lib.BLOCK_BYTES])
@pytest.mark.parametrize("number", [0, 4, 11])
@pytest.mark.parametrize("byte", [0, 7, 9], ids=["length", "length, upper half", "checksum of the length"])
def test_damaged_length_loses_one_record(tmp_path, monkeypatch, records, number, byte, block):
    monkeypatch.setattr(records_lib, "BLOCK_BYTES", block)
    path = write(tmp_path / "x", records)
    content = bytearray((tmp_path / "x").read_bytes())
    content[starts(records)[number] + byte] ^= 1
    (tmp_path / "x").write_bytes(content)
    found, damaged = read(path)
    assert found == [(i, record) for i, record in enumerate(records) if i != number]
    lost = len(records[number]) + FRAME_BYTES
    assert damaged == {number: f"its length field is damaged; {lost} bytes up to the next record are lost"}


def test_runs_of_zeros_after_damage_are_skipped_fast(tmp_path, records, monkeypatch):
    path = write(tmp_path / "x", [*records, b"\0" * 100_000, b"\0\0\1" * 9, b"z"])
    content = bytearray((tmp_path / "x").read_bytes())
    offsets = starts([*records, b"\0" * 100_000])
    content[offsets[12] + 1] ^= 4  # the length of the record of zeros
    (tmp_path / "x").write_bytes(content + b"\0" * 1_000_000)  # preallocated, never written
    calls = []
    real = records_lib._masked_crc32c
    monkeypatch.setattr(records_lib, "_masked_crc32c", lambda data: calls.append(1) or real(data))
    found, damaged = read(path)
    assert found == [*enumerate(records), (13, b"\0\0\1" * 9), (14, b"z")]
    assert list(damaged) == [12, 15] and all("its length field is damaged" in reason for reason in damaged.values())
    assert len(calls) < 1000  # each takes microseconds


def test_truncated_file_that_starts_like_json(tmp_path):
    write(tmp_path / "x", [b"a" * ord("{")])  # the first byte of a file is the lowest byte of a length
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(content[:-20])
    assert content.startswith(b"{") and read(str(tmp_path / "x")) == ([], {0: "20 bytes are missing at its end"})


def test_truncated_file(tmp_path, records):
    path = write(tmp_path / "x", records)
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(content[: starts(records)[7] + 20])
    found, damaged = read(path)
    assert found == list(enumerate(records[:7]))
    assert damaged == {7: f"{len(records[7]) + FRAME_BYTES - 20} bytes are missing at its end"}


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"<html>not found</html>" * 100, "the file is XML or HTML, not a TFRecord file"),
        (b'\xef\xbb\xbf\n {"images": []}', "the file is JSON, not a TFRecord file"),
        (gzip.compress(b"records", mtime=0), "the file is compressed with GZIP, not a TFRecord file"),
        (b"records", "its length field is damaged; 7 bytes up to the next record are lost"),
    ],
)
def test_other_file_formats(tmp_path, content, reason):
    (tmp_path / "x").write_bytes(content)
    assert read(str(tmp_path / "x")) == ([], {0: reason})


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 699), st.integers(1, 255)), min_size=1, max_size=4, unique_by=lambda c: c[0]))
def test_changed_bytes_damage_only_their_records(tmp_path_factory, records, changes):
    path = tmp_path_factory.mktemp("changed") / "x"
    write(path, records)
    content, offsets = bytearray(path.read_bytes()), starts(records)
    for byte, bits in changes:
        content[byte % len(content)] ^= bits
    path.write_bytes(content)
    touched = {max(i for i, start in enumerate(offsets[:-1]) if start <= byte % len(content)) for byte, _ in changes}
    found, damaged = read(str(path))
    assert [record for _, record in found] == [record for i, record in enumerate(records) if i not in touched]
    assert 1 <= len(damaged) <= len(touched)


def test_too_many_damaged_records_are_an_error_every_time(tmp_path, records):
    path = write(tmp_path / "x", records)
    content = bytearray((tmp_path / "x").read_bytes())
    for number in (2, 8):
        content[starts(records)[number] + 14] ^= 4
    (tmp_path / "x").write_bytes(content)
    assert len(read(path, max_damaged=2)[0]) == 10
    files = RecordFiles([path], max_damaged=1)
    for _ in range(2):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match="more than max_damaged_records = 1 records are damaged"
        ):
            list(files.read(tf.constant(0, tf.int64)))


def test_too_many_damaged_records_raise_data_error(tmp_path):
    files = RecordFiles(["a.tfrecord"], max_damaged=0)
    with pytest.raises(DataError, match=r"record 3 of a\.tfrecord: cut; write the records again"):
        files._add_damaged((0, 3), "cut")


@pytest.mark.parametrize("folder", ["", "ram://hidden/"])
def test_hidden_files_are_no_records(tmp_path, folder, caplog):
    folder = folder or f"{tmp_path}/.data/"  # the folder itself may be hidden
    for name in ("b", "a", ".DS_Store", "._a", "Thumbs.db"):
        tf.io.gfile.makedirs(folder)
        write(f"{folder}{name}", [b"x"])
    assert records_lib.find_files(f"{folder}*") == [f"{folder}a", f"{folder}b"]
    [message] = caplog.messages
    assert message == f"hidden files ignored: 3 ({folder}.DS_Store, {folder}._a, {folder}Thumbs.db)"
    assert records_lib.find_files(f"{folder}._a") == [f"{folder}._a"]  # named by the user
    with pytest.raises(DataError, match="no file matches"):
        records_lib.find_files(f"{folder}*_a")
