# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads serialized records from TFRecord files; damaged records are skipped, counted and logged, up to a limit."""

import functools
import re
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.python.lib.io.tf_record import tf_record_random_reader

from dataset.file_search import glob_root, split_hidden, warn_of_hidden
from dataset.files import reason_of
from dataset.tfrecord import DataError

# A TFRecord file is a sequence of frames: length of the record as a little-endian uint64, CRC of these 8 bytes as a
# uint32, the record, CRC of the record as a uint32. The header is length and CRC.
LENGTH_BYTES, HEADER_BYTES, FRAME_BYTES = 8, 12, 16

FILE_FORMATS = {  # by the first bytes of a file
    b"\x1f\x8b": "compressed with GZIP",
    b"PK\x03\x04": "a ZIP archive",
    b"{": "JSON",
    b"[": "JSON",
    b"<": "XML or HTML",
}
# Kinds of errors that damaged data causes in `decode` functions; not an out-of-memory, or an op that is missing.
DAMAGE = (tf.errors.InvalidArgumentError, tf.errors.DataLossError)
ZEROS = re.compile(rb"\0\0\0\0+")
BLOCK_BYTES = 1 << 20


def find_files(file_pattern: str) -> list[str]:
    """Returns the files that match a glob pattern, sorted, without hidden ones.

    Raises:
        DataError: if there is none, or the file system cannot be reached.
    """
    try:
        matches = sorted(tf.io.gfile.glob(file_pattern))
    except tf.errors.OpError as error:
        raise DataError(f"cannot look for {file_pattern!r}: {reason_of(error)}") from error
    files, hidden = split_hidden(matches, glob_root(file_pattern))
    warn_of_hidden(hidden)
    if not files:
        raise DataError(f"no file matches {file_pattern!r}; give a pattern such as 'data/train-*.tfrecord'")
    return files


class DataFiles(NamedTuple):
    """Files of records that a command reads, and the groundtruth of the evaluation."""

    train_file_pattern: str | None  # None without training
    val_file_pattern: str | None = None  # None without evaluation
    val_json_file: str | None = None  # in COCO's format; None: the groundtruth in the records


class RecordFiles:
    """Reads TFRecord files. The position of a record, [2] int64, is (index of its file, index in the file).

    Attributes:
        files: paths.
        max_damaged: maximum number of skipped records, each of which is logged; None for no limit and no logging.
        damaged: reasons of the skipped records, by position.
    """

    def __init__(self, files: Sequence[str], max_damaged: int | None):
        self.files = list(files)
        self.max_damaged = max_damaged
        self.damaged: dict[tuple[int, int], str] = {}
        self._lock = threading.Lock()  # of `damaged`: files are read, and records decoded, in parallel
        # By (index of the file, byte offset): end and reason of the damage there, which is searched only once; and
        # the generator of `_records_from` that continues there.
        self._skips: dict[tuple[int, int], tuple[int, str]] = {}
        self._readers: dict[tuple[int, int], Iterator[tuple[bytes, int, str]]] = {}

    def read(self, file_index: tf.Tensor) -> tf.data.Dataset:
        """Returns the records of a file, [] int64, in order: a dataset of (position, record [] string).

        Iterating over it raises tf.errors.InvalidArgumentError with the text of a DataError if the file cannot be read.
        """

        def step(state: tuple[tf.Tensor, tf.Tensor], item: tuple[tf.Tensor, tf.Tensor]):
            (number, offset), (record, is_end) = state, item
            number, record, offset = tf.cond(
                is_end,
                lambda: tf.numpy_function(
                    self._read_behind, [file_index, number, offset], [tf.int64, tf.string, tf.int64]
                ),
                lambda: [number, record, offset + tf.cast(tf.strings.length(record), tf.int64) + FRAME_BYTES],
            )
            number, record, offset = (tf.ensure_shape(tensor, []) for tensor in (number, record, offset))
            return (number + 1, offset), (tf.stack([file_index, number]), record)

        # TFRecordDataset stops at the first damaged record; with ignore_errors this looks like the end of the file.
        # Hence the items behind it, each of which reads one more record from the place where it stopped.
        path = tf.ensure_shape(tf.numpy_function(self._readable_file, [file_index], tf.string), [])
        records = tf.data.TFRecordDataset(path).ignore_errors()
        start = tf.zeros([], tf.int64)
        items = tf.data.Dataset.zip((records, tf.data.Dataset.from_tensors(False).repeat()))
        items = items.concatenate(tf.data.Dataset.from_tensors((b"", True)).repeat()).scan((start, start), step)
        return items.take_while(lambda position, _: position[1] >= 0)

    def try_decode(
        self, decode: Callable[..., Any], position: tf.Tensor, record: tf.Tensor, *args: tf.Tensor
    ) -> tuple[Any, tf.Tensor]:
        """Decodes a record inside tf.data; if it is damaged, counts it and returns placeholders.

        Args:
            decode: (record [] string, *args) -> nested tensors, a function of its arguments alone. Errors of the kinds
                in DAMAGE are taken for damage of the record; others are raised.
            position: [2] int64, position of the record.
            record: [] string.
            args: further arguments of `decode`.

        Returns:
            (decoded, is_valid [] bool): the result of `decode` and True; or False and tensors of the same structure,
            filled with ones or empty strings and with size 1 where a dimension is unknown.
        """
        attempt = tf.data.Dataset.from_tensors((record, *args)).map(lambda *inputs: (decode(*inputs), True))

        def placeholder(spec: tf.TensorSpec) -> tf.Tensor:
            return (tf.zeros if spec.dtype == tf.string else tf.ones)([size or 1 for size in spec.shape], spec.dtype)

        def is_damaged(*inputs: tf.Tensor) -> tf.Tensor:
            add = functools.partial(self._add_undecodable, decode)
            return tf.ensure_shape(tf.numpy_function(add, inputs, tf.bool), [])

        damaged = (
            tf.data.Dataset.from_tensors((position, record, *args)).map(is_damaged).filter(lambda damaged: damaged)
        )
        placeholders = damaged.map(lambda _: (tf.nest.map_structure(placeholder, attempt.element_spec[0]), False))
        # ignore_errors ignores every kind of error. If it was not damage, a second attempt raises it.
        return attempt.ignore_errors().concatenate(placeholders).concatenate(attempt).take(1).get_single_element()

    def add_damaged(self, damaged: Mapping[tuple[int, int], str]) -> None:
        """Adds damaged records that other readers of these files found, {position: reason}; raises as reading does."""
        for position, reason in sorted(damaged.items()):
            self._add_damaged(position, reason)

    def name(self, position: Sequence[int]) -> str:
        """Name of a record in messages."""
        return f"record {position[1]} of {self.files[position[0]]}"

    def _readable_file(self, file_index: np.int64) -> bytes:
        """Returns the path of a file; raises DataError if it cannot be read, as TFRecordDataset would retry forever."""
        path = self.files[file_index]
        try:
            with tf.io.gfile.GFile(path, "rb") as file:
                file.read(1)
        except tf.errors.OpError as error:
            message = f"{path} cannot be read: {reason_of(error)}; restore it, or give a pattern that leaves it out"
            raise DataError(message) from error
        return path.encode()

    def _read_behind(
        self, file_index: np.int64, number: np.int64, offset: np.int64
    ) -> tuple[np.int64, bytes, np.int64]:
        """Returns the next intact record from an offset on, and counts the damaged ones before it.

        Args:
            file_index: index of the file.
            number: index of the record at the offset.
            offset: byte offset.

        Returns:
            (index of the record or -1 at the end of the file, record, offset of the record behind it).
        """
        # The reader stays open between two calls. It is found by its place, as several iterators may read a file.
        reader = self._readers.pop((file_index, offset), None) or self._records_from(int(file_index), int(offset))
        for record, offset, reason in reader:
            if not reason:
                self._readers[file_index, offset] = reader
                return number, record, np.int64(offset)
            self._add_damaged((file_index, number), reason)
            number += 1
        return np.int64(-1), b"", np.int64(offset)

    def _records_from(self, file_index: int, offset: int) -> Iterator[tuple[bytes, int, str]]:
        """Yields (record, offset behind it, "") for intact records from an offset on, (b"", ..., reason) for others."""
        path = self.files[file_index]
        size = tf.io.gfile.stat(path).length
        reader = tf_record_random_reader(path)
        while offset < size:
            try:
                record, offset = reader.read(offset)
                reason = ""
            except (tf.errors.DataLossError, IndexError):  # IndexError: the file ends within a header
                place = file_index, offset
                if place not in self._skips:
                    with tf.io.gfile.GFile(path, "rb") as file:
                        self._skips[place] = _skip_damage(file, offset, size)
                record, (offset, reason) = b"", self._skips[place]
            yield record, offset, reason

    def _add_undecodable(self, decode: Callable, position: np.ndarray, record: bytes, *args: np.ndarray) -> np.bool_:
        """Decodes a record again; counts it as damaged and returns True if the error is of a kind in DAMAGE."""
        try:
            decode(tf.constant(record), *map(tf.constant, args))
        except DAMAGE as error:
            reason = reason_of(error)
        except UnicodeDecodeError:  # instead of an OpError, of which the message quotes the record
            reason = "it is no tf.train.Example"
        except tf.errors.OpError:
            return np.False_  # raised by the last attempt of `try_decode`
        else:
            return np.False_
        self._add_damaged(position, reason)
        return np.True_

    def _add_damaged(self, position: Sequence[int], reason: str) -> None:
        """Adds a record to `damaged` and logs it; raises DataError if that is one too many."""
        position = (int(position[0]), int(position[1]))
        with self._lock:
            is_new = position not in self.damaged  # False from the second round of training on
            self.damaged[position] = reason
            count, limit = len(self.damaged), self.max_damaged
        if limit is None:
            return
        if count > limit:
            raise DataError(
                f"more than max_damaged_records = {limit} records are damaged, including {self.name(position)}: "
                f"{reason}; write the records again, or raise max_damaged_records"
            )
        if is_new:
            message = "skipped %s: %s (damaged so far: %d, at most %d)"
            logging.warning(message, self.name(position), reason, count, limit)


def _skip_damage(file: tf.io.gfile.GFile, start: int, size: int) -> tuple[int, str]:
    """Returns the offset of the next record after damage at `start`, and the reason of the damage."""
    file.seek(start)
    head = file.read(64)
    length = _record_length(head[:HEADER_BYTES])
    if length is not None:
        end = start + FRAME_BYTES + length
        return end, "its checksum is wrong" if end <= size else f"{end - size} bytes are missing at its end"
    end = _find_header(file, start + 1)
    reason = f"its length field is damaged; {end - start} bytes up to the next record are lost"
    if end - start == size:  # no valid header in the file
        head = head.lstrip(b"\xef\xbb\xbf \t\r\n")
        formats = [name for prefix, name in FILE_FORMATS.items() if head.startswith(prefix)]
        reason = f"the file is {formats[0]}, not a TFRecord file" if formats else reason
    return end, reason


def _find_header(file: tf.io.gfile.GFile, start: int) -> int:
    """Returns the offset of the first valid header from `start` on, or the size of the file if there is none.

    Only positions with zeros in bytes 4 to 7, the upper half of any length below 4 GB, are tested. A header is never
    all zeros: within the long runs of zeros of preallocated files, only the first and last positions are tested.
    """
    file.seek(start)
    content = b""
    while block := file.read(BLOCK_BYTES):
        content += block
        for zeros in ZEROS.finditer(content):
            positions = range(max(zeros.start() - 4, 0), zeros.end() - 7)
            for position in (*positions[:4], *positions[4:][-4:]):
                if _record_length(content[position : position + HEADER_BYTES]) is not None:
                    return start + position
        start += max(len(content) - HEADER_BYTES + 1, 0)
        content = content[-HEADER_BYTES + 1 :]  # may be the beginning of a header
    return start + len(content)


def _record_length(header: bytes) -> int | None:
    """Returns the length of a record, or None if its header is incomplete or damaged."""
    if len(header) < HEADER_BYTES:
        return None
    length, checksum = struct.unpack("<QI", header)
    return length if checksum == _masked_crc32c(header[:LENGTH_BYTES]) else None


def _masked_crc32c(data: bytes) -> int:
    """The checksum of TFRecord files: rotate_right(CRC-32C, 15) + 0xA282EAD8; bit by bit, as headers are short."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
