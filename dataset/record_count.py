# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Numbers of records in TFRecord files, remembered between runs."""

import json
import os
from collections.abc import Sequence
from concurrent import futures

import numpy as np
import tensorflow as tf
from absl import logging

from dataset.file_access import is_remote
from dataset.files import read_file, reason_of, write_file
from dataset.records import FRAME_BYTES, HEADER_BYTES, LENGTH_BYTES, RecordFiles
from dataset.tfrecord import DataError

FILE_NAME = "record_counts.json"
FILES_AT_ONCE = 16
RECORDS_AT_ONCE = 1024


class RecordCounts:
    """Counts records; a file is counted again only if its size or its time of modification changed."""

    def __init__(self, folder: str | None = None):
        """Reads the counts of an earlier run.

        Args:
            folder: local or remote folder of the file that `save` writes; None to remember nothing.
        """
        self._path = os.path.join(folder, FILE_NAME) if folder else None
        self._saved = _read_saved(self._path) if self._path else {}
        self._counted = {}  # {path: [bytes, time of modification in ns, number of records]}

    def total(self, files: Sequence[str]) -> int:
        """Returns the number of records in the files, without damaged ones.

        Of local files only the headers of the records are read. There, a record that is damaged itself, behind an
        intact header, is counted.

        Raises:
            DataError: if a file cannot be read.
        """
        try:
            with futures.ThreadPoolExecutor(FILES_AT_ONCE) as pool:
                states = dict(zip(files, pool.map(_state, files)))
                known = self._saved | self._counted
                counts = {path: known[path][2] for path in files if known.get(path, [])[:2] == states[path]}
                local = [path for path in files if path not in counts and not is_remote(_local(path))]
                counts |= zip(local, pool.map(_count_headers, local))
            counts |= _count_by_reading([path for path in files if counts.get(path) is None])
        except (OSError, tf.errors.OpError) as error:
            raise DataError(f"cannot count the records: {reason_of(error)}") from error
        self._counted |= {path: [*states[path], counts[path]] for path in files}
        return sum(counts.values())

    def save(self) -> None:
        """Writes the counts to the folder, which must exist; logs a warning if that fails."""
        if self._path and self._counted != self._saved:
            try:
                write_file(self._path, json.dumps(self._counted))
            except tf.errors.OpError as error:
                logging.warning("cannot write %s: %s; the next run counts again", self._path, reason_of(error))


def _read_saved(path: str) -> dict[str, list[int]]:
    """Returns the saved counts; none if the file is absent or damaged."""
    try:
        saved = json.loads(read_file(path))
        return {name: [int(value) for value in entry] for name, entry in saved.items() if len(entry) == 3}
    except (tf.errors.OpError, ValueError, TypeError, AttributeError):
        return {}


def _local(path: str) -> str:
    return path.removeprefix("file://")


def _state(path: str) -> list[int]:
    """Returns size in bytes and time of modification in nanoseconds."""
    stat = tf.io.gfile.stat(path)
    return [stat.length, stat.mtime_nsec]


def _count_headers(path: str) -> int | None:
    """Counts the records of a local file by following the lengths in their headers; None if they are damaged."""
    number, offset, file = 0, 0, os.open(_local(path), os.O_RDONLY)
    try:
        size = os.fstat(file).st_size
        while offset + HEADER_BYTES <= size:
            offset += FRAME_BYTES + int.from_bytes(os.pread(file, LENGTH_BYTES, offset), "little")
            number += 1
    finally:
        os.close(file)
    # A wrong length leads to bytes that are no header, and their length beyond the end of the file.
    return number if offset == size else None


def _count_by_reading(files: Sequence[str]) -> dict[str, int]:
    """Counts the records of files by reading them, as in training; for remote files and those with damaged headers.

    Of a remote file, reading it takes about as long as one request per header: 460 records of 160 kB are 74 MB, a
    second at 70 MB/s, or 460 requests of a few milliseconds each and often more.
    """
    if not files:
        return {}
    logging.info("counting the records of %d files, which are remote or damaged and have to be read once", len(files))
    source = RecordFiles(files, max_damaged=None)
    indices = tf.data.Dataset.range(len(files)).interleave(
        lambda index: source.read(index).map(lambda position, _: position[0]),
        cycle_length=FILES_AT_ONCE,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=False,
    )
    numbers = np.zeros(len(files), int)
    for batch in indices.batch(RECORDS_AT_ONCE).as_numpy_iterator():
        numbers += np.bincount(batch, minlength=len(files))
    for position, reason in sorted(source.damaged.items())[:1]:
        message = "%d damaged records are not counted, such as %s: %s"
        logging.warning(message, len(source.damaged), source.name(position), reason)
    return dict(zip(files, numbers.tolist()))
