# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The length of an epoch: the number of training records, compared with --num_examples_per_epoch."""

from absl import logging

from dataset.record_count import RecordCounts
from dataset.records import find_files

MAX_DIFFERENCE = 0.01  # relative difference from the number of records, above which a given length is a warning


def find_length(file_pattern: str, given: int | None, counts: RecordCounts) -> int:
    """Returns the number of images per epoch, and logs how it compares with the records.

    Args:
        file_pattern: glob of the training records.
        given: length that the user asks for; None for the number of records.
        counts: counter of records.

    Raises:
        DataError: if no file matches, or one cannot be read.
    """
    num_records = counts.total(find_files(file_pattern))
    if given is None:
        logging.info("epochs of %d images, the records of %s", num_records, file_pattern)
        return num_records
    if given != num_records:
        is_far = abs(given - num_records) > MAX_DIFFERENCE * num_records
        (logging.warning if is_far else logging.info)(
            "--num_examples_per_epoch=%d, but %s holds %d records: epochs and learning rate are those of %d images, "
            "and a resumed run does not continue at the exact image; omit the flag for epochs of all records",
            given,
            file_pattern,
            num_records,
            given,
        )
    return given
