# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads serialized records from TFRecord files; damaged records are skipped, counted and logged, up to a limit."""

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.python.lib.io.tf_record import tf_record_random_reader

from dataset import tfrecord
from dataset.files import glob_root, reason_of, split_hidden, warn_of_hidden
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

    def read(self, file_index: tf.Tensor) -> tf.data.Dataset:
        """Returns the records of a file, [] int64, in order: a dataset of (position, record [] string)."""

        def step(state: tuple[tf.Tensor, tf.Tensor], item: tuple[tf.Tensor, tf.Tensor]):
            (number, offset), (record, is_end) = state, item
            positions, records = tf.cond(
                is_end,
                lambda: tf.numpy_function(self._read_behind, [file_index, number, offset], [tf.int64, tf.string]),
                lambda: [tf.stack([[file_index, number]]), record[tf.newaxis]],
            )
            length = tf.cast(tf.strings.length(record), tf.int64)
            next_state = number + 1, offset + length + FRAME_BYTES
            return next_state, (tf.reshape(positions, [-1, 2]), tf.reshape(records, [-1]))

        # TFRecordDataset stops at the first damaged record; with ignore_errors this looks like the end of the file.
        # Hence the extra last item: it reads what is behind that byte, which is nothing if the file is intact.
        readable = tf.data.TFRecordDataset(tf.gather(self.files, file_index)).ignore_errors()
        records = tf.data.Dataset.zip((readable, tf.data.Dataset.from_tensors(False).repeat()))
        start = tf.zeros([], tf.int64)
        return records.concatenate(tf.data.Dataset.from_tensors((b"", True))).scan((start, start), step).unbatch()

    def try_decode(
        self, decode: Callable[[tf.Tensor], Any], position: tf.Tensor, record: tf.Tensor
    ) -> tuple[Any, tf.Tensor]:
        """Decodes a record inside tf.data; if that fails, counts it as damaged and returns placeholders.

        Args:
            decode: record [] string -> nested tensors; may raise tf.errors.InvalidArgumentError.
            position: [2] int64, position of the record.
            record: [] string.

        Returns:
            (decoded, is_valid [] bool): the result of `decode` and True; or False and tensors of the same structure,
            filled with ones or empty strings and with size 1 where a dimension is unknown.
        """
        decoded = tf.data.Dataset.from_tensors(record).map(lambda record: (decode(record), True)).ignore_errors()

        def placeholder(spec: tf.TensorSpec) -> tf.Tensor:
            return (tf.zeros if spec.dtype == tf.string else tf.ones)([size or 1 for size in spec.shape], spec.dtype)

        def fallback(position: tf.Tensor, record: tf.Tensor):
            is_valid = tf.numpy_function(self._add_undecodable, [position, record], tf.bool)
            return tf.nest.map_structure(placeholder, decoded.element_spec[0]), tf.ensure_shape(is_valid, [])

        damaged = tf.data.Dataset.from_tensors((position, record)).map(fallback)
        return decoded.concatenate(damaged).take(1).get_single_element()

    def name(self, position: Sequence[int]) -> str:
        """Name of a record in messages."""
        return f"record {position[1]} of {self.files[position[0]]}"

    def _read_behind(self, file_index: np.int64, number: np.int64, offset: np.int64) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions [K, 2] and contents of the intact records from an offset on; counts the damaged ones."""
        records = {}
        for i, (record, reason) in enumerate(_records_from(self.files[file_index], int(offset)), start=number):
            if reason:
                self._add_damaged((file_index, i), reason)
            else:
                records[file_index, i] = record
        return np.array(list(records), np.int64), np.array(list(records.values()), object)

    def _add_undecodable(self, position: np.ndarray, record: bytes) -> np.bool_:
        """Counts a record that cannot be decoded as damaged, with the reason that TensorFlow gives; returns False."""
        try:
            tfrecord.decode(tf.constant(record), with_difficult=True)  # every column that any reader uses
            reason = "its image cannot be decoded"
        except tf.errors.OpError as error:
            reason = reason_of(error)
        self._add_damaged(position, reason)
        return np.False_

    def _add_damaged(self, position: Sequence[int], reason: str) -> None:
        """Adds a record to `damaged` and logs it; raises DataError if that is one too many."""
        position = (int(position[0]), int(position[1]))
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


def _records_from(path: str, offset: int) -> Iterator[tuple[bytes, str]]:
    """Yields (record, "") for every intact record from a byte offset on, and (b"", reason) for every damaged one."""
    size = tf.io.gfile.stat(path).length
    reader = tf_record_random_reader(path)
    with tf.io.gfile.GFile(path, "rb") as file:
        while offset < size:
            try:
                record, offset = reader.read(offset)
                reason = ""
            except (tf.errors.DataLossError, IndexError):  # IndexError: the file ends within a header
                record = b""
                offset, reason = _skip_damage(file, offset, size)
            yield record, reason


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
