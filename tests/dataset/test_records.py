# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/records.py: all intact records are read and all damaged ones reported, wherever the damage is."""

import gzip
import shutil
import subprocess
import sys
import threading

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import records as records_lib
from dataset import tfrecord
from dataset.dataloader import data_errors
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


def test_damage_is_searched_once_and_counted_in_every_round(tmp_path, records, monkeypatch):
    path = write(tmp_path / "x", records)
    content = bytearray((tmp_path / "x").read_bytes())
    for number in (2, 8):
        content[starts(records)[number]] ^= 1  # the length
    (tmp_path / "x").write_bytes(content)
    searched = []
    real = records_lib._find_header
    monkeypatch.setattr(records_lib, "_find_header", lambda file, start: searched.append(start) or real(file, start))
    files = RecordFiles([path], max_damaged=2)
    rounds = [[r for _, r in files.read(tf.constant(0, tf.int64)).as_numpy_iterator()] for _ in range(3)]
    assert rounds == [[record for i, record in enumerate(records) if i not in (2, 8)]] * 3
    assert searched == [starts(records)[2] + 1, starts(records)[8] + 1]
    assert list(files.damaged) == [(0, 2), (0, 8)] and not files._readers


def test_records_behind_damage_that_end_with_zeros(tmp_path):
    contents = [b"damaged", b"a\0\0", b"", b"\0"]
    path = write(tmp_path / "x", contents)
    content = bytearray((tmp_path / "x").read_bytes())
    content[14] ^= 4
    (tmp_path / "x").write_bytes(content)
    assert read(path)[0] == list(enumerate(contents))[1:]


def test_iterators_at_different_places_behind_damage(tmp_path, records):
    path = write(tmp_path / "x", records)
    content = bytearray((tmp_path / "x").read_bytes())
    content[starts(records)[1] + 14] ^= 4
    (tmp_path / "x").write_bytes(content)
    dataset = RecordFiles([path], max_damaged=1).read(tf.constant(0, tf.int64)).map(lambda _, record: record)
    expected = [record for i, record in enumerate(records) if i != 1]
    first, second = dataset.as_numpy_iterator(), dataset.as_numpy_iterator()
    assert [next(first) for _ in range(4)] == expected[:4]  # the second iterator passes the first one
    assert list(second) == expected and list(first) == expected[4:]


@pytest.mark.slow
def test_damage_needs_little_memory(tmp_path):
    """By the peak of a process, which never falls: the intact file is read first, then its copy with damage."""
    with tf.io.TFRecordWriter(str(tmp_path / "intact")) as writer:
        for i in range(150):
            writer.write(bytes([i]) * 2**20)
    shutil.copy(tmp_path / "intact", tmp_path / "damaged")
    with open(tmp_path / "damaged", "r+b") as file:
        file.seek(2**20 + FRAME_BYTES)
        file.write(b"x")  # in the length of the second record
    program = """
import resource, sys
import tensorflow as tf
from dataset.records import RecordFiles
for path in sys.argv[1:]:
    count = sum(1 for _ in RecordFiles([path], max_damaged=1).read(tf.constant(0, tf.int64)))
    print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "intact"), str(tmp_path / "damaged")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (intact, peak), (damaged, peak_damaged) = (map(int, line.split()) for line in output.splitlines())
    assert (intact, damaged) == (150, 149)
    assert peak_damaged - peak < 64  # MiB


def in_time(function, seconds=60):
    """Returns the result of a function; fails if it takes too long, instead of waiting forever."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, "it hangs, or it raised"
    return results[0]


@pytest.mark.parametrize("kind", ["dangling link", "link to itself", "folder", "deleted"])
def test_files_that_cannot_be_read_are_an_error(tmp_path, records, kind):
    path = tmp_path / "x"
    files = RecordFiles([str(path)], max_damaged=10)
    if kind == "folder":
        path.mkdir()
    elif kind == "deleted":  # between two rounds
        write(path, records)
        assert len(list(files.read(tf.constant(0, tf.int64)))) == 12
        path.unlink()
    else:
        path.symlink_to(tmp_path / {"dangling link": "none", "link to itself": "x"}[kind])

    def message():
        with pytest.raises(DataError) as error, data_errors():
            list(tf.data.Dataset.range(1).flat_map(files.read))
        return str(error.value)

    reason = {"folder": "Is a directory", "link to itself": "Too many levels of symbolic links"}
    assert in_time(message) == (
        f"cannot use the records: {path} cannot be read: {reason.get(kind, 'No such file or directory')}; restore it, "
        "or give a pattern that leaves it out"
    )
    assert not files.damaged


def decode_damaged(record):
    return tf.io.decode_png(record)


def decode_without_memory(record):
    return tf.fill([2**50], record)


def decode_with_a_bug(record):
    def fail(record):
        raise RuntimeError("a bug")

    return tf.ensure_shape(tf.numpy_function(fail, [record], tf.string), [])


def try_decode(files, decode, record=b"record"):
    """The result of `RecordFiles.try_decode` for record 3 of the first file, as arrays."""
    inputs = tf.constant([0, 3], tf.int64), tf.constant(record)
    dataset = tf.data.Dataset.from_tensors(0).map(lambda _: files.try_decode(decode, *inputs))
    return next(dataset.as_numpy_iterator())


def test_a_record_that_cannot_be_decoded_is_damaged():
    files = RecordFiles(["a"], max_damaged=10)
    image, is_valid = try_decode(files, decode_damaged)
    assert image.shape == (1, 1, 1) and not is_valid
    assert list(files.damaged) == [(0, 3)] and "Unknown image file format" in files.damaged[0, 3]


def test_a_record_with_bytes_that_are_no_text_is_damaged():
    """TensorFlow quotes the record in its message, which Python cannot decode."""
    files = RecordFiles(["a"], max_damaged=10)
    sample, is_valid = try_decode(files, tfrecord.decode, b"\x0a\x05\xdb\xff\xfe")
    assert not is_valid and sample["source_id"] == b""
    assert files.damaged == {(0, 3): "it is no tf.train.Example"}


@pytest.mark.parametrize(
    "decode, kind, message",
    [
        (decode_without_memory, tf.errors.ResourceExhaustedError, "OOM when allocating"),
        (decode_with_a_bug, tf.errors.UnknownError, "a bug"),
    ],
)
def test_other_errors_of_decoding_are_raised(decode, kind, message):
    files = RecordFiles(["a"], max_damaged=10)
    with pytest.raises(kind, match=message):
        try_decode(files, decode)
    assert not files.damaged


def test_failures_that_pass_are_not_damage():
    calls = []

    def fail_once(record):
        calls.append(record)
        if len(calls) == 1:
            raise MemoryError("no room")
        return record + b"!"

    files = RecordFiles(["a"], max_damaged=10)
    decode = lambda record: tf.ensure_shape(tf.numpy_function(fail_once, [record], tf.string), [])  # noqa: E731
    assert try_decode(files, decode) == (b"record!", True) and not files.damaged
