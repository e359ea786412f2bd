# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads serialized records from TFRecord files; damaged records are skipped, counted and logged, up to a limit."""

import re
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from dataset import tfrecord
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
NOT_ZERO = re.compile(rb"[^\0]")


def find_files(file_pattern: str) -> list[str]:
    """Returns the files that match a glob pattern, sorted.

    Raises:
        DataError: if there is none, or the file system cannot be reached.
    """
    try:
        files = sorted(tf.io.gfile.glob(file_pattern))
    except tf.errors.OpError as error:
        raise DataError(f"cannot look for {file_pattern!r}: {reason_of(error)}") from error
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
            numbers, records = tf.cond(
                is_end,
                lambda: tf.numpy_function(self._read_behind, [file_index, number, offset], [tf.int64, tf.string]),
                lambda: [number[tf.newaxis], record[tf.newaxis]],
            )
            positions = tf.stack([tf.fill(tf.shape(numbers), file_index), tf.reshape(numbers, [-1])], 1)
            length = tf.cast(tf.strings.length(record), tf.int64)
            return (number + 1, offset + length + FRAME_BYTES), (positions, tf.reshape(records, [-1]))

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
        """Reads the intact records from a byte offset on, where record `number` is damaged or the file ends.

        Returns:
            Indices [K] and records [K]; every other frame is counted as damaged.
        """
        with tf.io.gfile.GFile(self.files[file_index], "rb") as file:
            file.seek(int(offset))
            content = file.read()
        frames = list(_split_frames(content))
        if offset == 0 and len(frames) == 1 and _record_length(content, 0) is None:  # no valid header in the file
            frames = [(b"", _file_format(content) or reason) for _, reason in frames]
        records = dict(_intact_records([frame for frame, _ in frames])) if frames else {}
        for i, (_, reason) in enumerate(frames):
            if i not in records:
                self._add_damaged((file_index, number + i), reason or "its checksum is wrong")
        return np.array([number + i for i in records], np.int64), np.array(list(records.values()), object)

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
        """Adds a record to `damaged` and logs it.

        Raises:
            DataError: if more than max_damaged records are damaged.
        """
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


def _split_frames(content: bytes) -> Iterator[tuple[bytes, str]]:
    """Yields (frame, "") for every complete frame, and (b"", reason) for damaged bytes between them."""
    start = 0
    while start < len(content):
        length = _record_length(content, start)
        if length is None:
            end = _find_header(content, start + 1)
            yield b"", f"its length field is damaged; {end - start} bytes up to the next record are lost"
        else:
            end = start + FRAME_BYTES + length
            missing = end - len(content)
            yield (b"", f"{missing} bytes are missing at its end") if missing > 0 else (content[start:end], "")
        start = end


def _file_format(content: bytes) -> str:
    """Returns an error message with the format of a file that is not a TFRecord file, or "" if it is not recognized."""
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    name = next((name for prefix, name in FILE_FORMATS.items() if start.startswith(prefix)), "")
    return f"the file is {name}, not a TFRecord file" if name else ""


def _find_header(content: bytes, start: int) -> int:
    """Returns the position of the first valid header from `start` on, or the length of the content if there is none.

    Only positions with zeros in bytes 4 to 7, the upper half of any length below 4 GB, are tested.
    """
    while (zeros := content.find(b"\0\0\0\0", start + 4)) >= 0:
        if _record_length(content, zeros - 4) is not None:
            return zeros - 4
        start = zeros - 3
        # A header is never all zeros. Preallocated files contain long runs of zeros, which would take minutes to test
        # byte by byte.
        if not any(content[start : start + HEADER_BYTES]):
            other = NOT_ZERO.search(content, start + HEADER_BYTES)
            start = other.start() - HEADER_BYTES + 1 if other else len(content)
    return len(content)


def _record_length(content: bytes, start: int) -> int | None:
    """Returns the length of the record whose header is at `start`, or None if the header is incomplete or damaged."""
    header = content[start : start + HEADER_BYTES]
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


def _intact_records(frames: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yields (index of the frame, record) for every frame whose checksums are right, as verified by TensorFlow."""
    with tempfile.TemporaryDirectory() as folder:  # one file per frame, as reading a file ends at its first error
        for i, frame in enumerate(frames):
            Path(folder, str(i)).write_bytes(frame)

        def read(i: tf.Tensor) -> tf.data.Dataset:
            path = tf.strings.join([folder, tf.strings.as_string(i)], "/")
            return tf.data.TFRecordDataset(path).ignore_errors().map(lambda record: (i, record))

        yield from tf.data.Dataset.range(len(frames)).flat_map(read).as_numpy_iterator()
