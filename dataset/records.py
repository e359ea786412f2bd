# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Serialized records out of TFRecord files, past damaged ones: those are named, counted, and left out up to a bound."""

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

# A record in a file: its length as a little-endian uint64, the checksum of these 8 bytes, the record, its checksum.
LENGTH_BYTES, HEADER_BYTES, FRAME_BYTES = 8, 12, 16

KIND_BYTES = 64
OTHER_KINDS = {  # by how a file begins
    b"\x1f\x8b": "compressed with GZIP",
    b"PK\x03\x04": "a ZIP archive",
    b"{": "JSON",
    b"[": "JSON",
    b"<": "XML or HTML",
}
NOT_ZERO = re.compile(rb"[^\0]")


def find_files(file_pattern: str) -> list[str]:
    """The files that a glob matches, sorted.

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
    """Reads files of records. A place, [2] int64, is the index of a file and the number of a record in it.

    Attributes:
        files: paths.
        max_damaged: so many records may be left out, each named in the log; None for any number, not logged.
        damaged: why a record was left out, by its place.
    """

    def __init__(self, files: Sequence[str], max_damaged: int | None):
        self.files = list(files)
        self.max_damaged = max_damaged
        self.damaged: dict[tuple[int, int], str] = {}

    def read(self, file_index: tf.Tensor) -> tf.data.Dataset:
        """The records of a file, [] int64, in their order: a dataset of (place, record [] string)."""

        def step(state: tuple[tf.Tensor, tf.Tensor], item: tuple[tf.Tensor, tf.Tensor]):
            (number, offset), (record, is_end) = state, item
            numbers, records = tf.cond(
                is_end,
                lambda: tf.numpy_function(self._rest, [file_index, number, offset], [tf.int64, tf.string]),
                lambda: [number[tf.newaxis], record[tf.newaxis]],
            )
            places = tf.stack([tf.fill(tf.shape(numbers), file_index), tf.reshape(numbers, [-1])], 1)
            length = tf.cast(tf.strings.length(record), tf.int64)
            return (number + 1, offset + length + FRAME_BYTES), (places, tf.reshape(records, [-1]))

        # TensorFlow reads up to the first damage, and then tells no more than at the end of a whole file.
        readable = tf.data.TFRecordDataset(tf.gather(self.files, file_index)).ignore_errors()
        records = tf.data.Dataset.zip((readable, tf.data.Dataset.from_tensors(False).repeat()))
        start = tf.zeros([], tf.int64)
        return records.concatenate(tf.data.Dataset.from_tensors((b"", True))).scan((start, start), step).unbatch()

    def attempt(self, decode: Callable[[tf.Tensor], Any], place: tf.Tensor, record: tf.Tensor) -> tuple[Any, tf.Tensor]:
        """Decodes a record without failing; to be called inside tf.data.

        Args:
            decode: record [] string -> nested tensors; may raise tf.errors.InvalidArgumentError.
            place: of the record.
            record: [] string.

        Returns:
            What decode returned, or as many ones (one where a dimension is not known); and whether it did, [] bool.
        """
        decoded = tf.data.Dataset.from_tensors(record).map(lambda record: (decode(record), True)).ignore_errors()

        def ones(spec: tf.TensorSpec) -> tf.Tensor:  # empty texts among them
            return (tf.zeros if spec.dtype == tf.string else tf.ones)([size or 1 for size in spec.shape], spec.dtype)

        def instead(place: tf.Tensor, record: tf.Tensor):
            noted = tf.numpy_function(self._note_undecodable, [place, record], tf.bool)
            return tf.nest.map_structure(ones, decoded.element_spec[0]), ~tf.ensure_shape(noted, [])

        damaged = tf.data.Dataset.from_tensors((place, record)).map(instead)
        return decoded.concatenate(damaged).take(1).get_single_element()

    def name(self, place: Sequence[int]) -> str:
        """How messages call a record."""
        return f"record {place[1]} of {self.files[place[0]]}"

    def _rest(self, file_index: np.int64, number: np.int64, offset: np.int64) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and records behind the damage at a byte of a file; none where the file just ends there."""
        with tf.io.gfile.GFile(self.files[file_index], "rb") as file:
            file.seek(int(offset))
            content = file.read()
        frames = list(_frames(content))
        if offset == 0 and _record_length(content, 0) is None and len(frames) == 1:  # there is no other header, too
            frames = [(b"", _other_kind(content) or reason) for _, reason in frames]
        intact = _intact_records([frame for frame, _ in frames if frame])
        numbers, records, upcoming = [], [], next(intact, None)
        for i, (frame, reason) in enumerate(frames, start=number):
            if frame and frame[HEADER_BYTES:-4] == upcoming:
                numbers.append(i)
                records.append(upcoming)
                upcoming = next(intact, None)
            else:
                self._note((file_index, i), reason or "its checksum is wrong")
        return np.array(numbers, np.int64), np.array(records, object)

    def _note_undecodable(self, place: np.ndarray, record: bytes) -> np.bool_:
        try:
            tfrecord.decode(tf.constant(record), with_difficult=True)  # all that any reader asks for
            reason = "its image cannot be decoded"
        except tf.errors.OpError as error:
            reason = reason_of(error)
        self._note(tuple(place.tolist()), reason)
        return np.True_

    def _note(self, place: tuple[int, int], reason: str) -> None:
        """Counts a record that is left out.

        Raises:
            DataError: if it is one too many.
        """
        place = (int(place[0]), int(place[1]))
        is_new = place not in self.damaged  # else it was there in an earlier round
        self.damaged[place] = reason
        count, most = len(self.damaged), self.max_damaged
        if most is None:
            return
        if count > most:
            raise DataError(
                f"more than max_damaged_records = {most} records are damaged, among them {self.name(place)}: {reason}; "
                "write the records again, or raise max_damaged_records"
            )
        if is_new:
            message = "left out %s: %s (damaged so far: %d, at most %d)"
            logging.warning(message, self.name(place), reason, count, most)


def _frames(content: bytes) -> Iterator[tuple[bytes, str]]:
    """The frames of a piece of a file; of what is none, b"" and the reason."""
    start = 0
    while start < len(content):
        length = _record_length(content, start)
        if length is None:
            end = _next_frame(content, start + 1)
            yield b"", f"its length is damaged, {end - start} bytes up to the next record are lost with it"
        else:
            end = start + FRAME_BYTES + length
            missing = end - len(content)
            yield (b"", f"{missing} bytes are missing at its end") if missing > 0 else (content[start:end], "")
        start = end


def _other_kind(content: bytes) -> str:
    """What a file that holds no record is instead, where its beginning tells."""
    start = content[:KIND_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n")
    kind = next((kind for beginning, kind in OTHER_KINDS.items() if start.startswith(beginning)), "")
    return f"the file is {kind}, no TFRecord" if kind else ""


def _next_frame(content: bytes, start: int) -> int:
    """Where the next header is whose checksum is right, or else the end."""
    while (zeros := content.find(b"\0\0\0\0", start + 4)) >= 0:  # the upper half of a length below 4 GB
        if _record_length(content, zeros - 4) is not None:
            return zeros - 4
        start = zeros - 3
        # Zeros alone are no header. A file that was never written to its end is full of them, and byte by byte they
        # would take minutes.
        if not any(content[start : start + HEADER_BYTES]):
            other = NOT_ZERO.search(content, start + HEADER_BYTES)
            start = other.start() - HEADER_BYTES + 1 if other else len(content)
    return len(content)


def _record_length(content: bytes, start: int) -> int | None:
    """Bytes of the record whose frame starts there, or None where its header is damaged."""
    header = content[start : start + HEADER_BYTES]
    if len(header) < HEADER_BYTES:
        return None
    length, checksum = struct.unpack("<QI", header)
    return length if checksum == _masked_crc32c(header[:LENGTH_BYTES]) else None


def _masked_crc32c(data: bytes) -> int:
    """The checksum of TFRecord files; bit by bit, as it is for 8 bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _intact_records(frames: Sequence[bytes]) -> Iterator[bytes]:
    """The records of those frames whose checksums are right, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, str(i))) for i in range(len(frames))]
        for path, frame in zip(paths, frames):
            Path(path).write_bytes(frame)
        # A file each: TensorFlow goes on with the next file after an error.
        yield from tf.data.TFRecordDataset(paths).ignore_errors().as_numpy_iterator() if paths else ()
