# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Serialized records out of TFRecord files, past damaged ones: those are named, counted, and left out up to a bound."""

import struct
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from dataset import tfrecord
from dataset.tfrecord import DataError

# A record in a file: its length as a little-endian uint64, the checksum of these 8 bytes, the record, its checksum.
LENGTH_BYTES, HEADER_BYTES, FRAME_BYTES = 8, 12, 16
END_OF_FILE = b"\0"  # no record: a tf.train.Example cannot begin with it


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

        def step(state: tuple[tf.Tensor, tf.Tensor], record: tf.Tensor):
            number, offset = state
            numbers, records = tf.cond(
                tf.equal(record, END_OF_FILE),
                lambda: tf.numpy_function(self._rest, [file_index, number, offset], [tf.int64, tf.string]),
                lambda: [number[tf.newaxis], record[tf.newaxis]],
            )
            places = tf.stack([tf.fill(tf.shape(numbers), file_index), tf.reshape(numbers, [-1])], 1)
            length = tf.cast(tf.strings.length(record), tf.int64)
            return (number + 1, offset + length + FRAME_BYTES), (places, tf.reshape(records, [-1]))

        # TensorFlow reads up to the first damage, and then tells no more than at the end of a whole file.
        readable = tf.data.TFRecordDataset(tf.gather(self.files, file_index)).ignore_errors()
        records = readable.concatenate(tf.data.Dataset.from_tensors(END_OF_FILE))
        start = tf.zeros([], tf.int64)
        return records.scan((start, start), step).unbatch()

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
        numbers, records, start = [], [], 0
        while start < len(content):
            length = _record_length(content[start:])
            if length is None:
                lost = f"and {len(content) - start} bytes from there to the end of the file with it"
                self._note((file_index, number), f"the length of the record is damaged, {lost}")
                break
            cut = start + FRAME_BYTES + length - len(content)
            self._note(
                (file_index, number), f"{cut} bytes are missing at its end" if cut > 0 else "its checksum is wrong"
            )
            start, number = start + FRAME_BYTES + length, number + 1
            for record in _intact_records(content[start:]):
                numbers.append(number)
                records.append(record)
                start, number = start + FRAME_BYTES + len(record), number + 1
        return np.array(numbers, np.int64), np.array(records, object)

    def _note_undecodable(self, place: np.ndarray, record: bytes) -> np.bool_:
        try:
            tfrecord.decode(tf.constant(record))
            reason = "its image cannot be decoded"
        except tf.errors.OpError as error:
            reason = tfrecord.plain_reason(error)
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


def _record_length(frame: bytes) -> int | None:
    """Bytes of the record that a frame holds, or None where its header is damaged."""
    if len(frame) < HEADER_BYTES:
        return None
    length, checksum = struct.unpack("<QI", frame[:HEADER_BYTES])
    return length if checksum == _masked_crc32c(frame[:LENGTH_BYTES]) else None


def _masked_crc32c(data: bytes) -> int:
    """The checksum of TFRecord files; bit by bit, as it is for 8 bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _intact_records(content: bytes) -> list[bytes]:
    """The records that a file of this content begins with."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return list(tf.data.TFRecordDataset(file.name).ignore_errors().as_numpy_iterator())
