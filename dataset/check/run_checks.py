# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of all records that a training or an evaluation reads, before it begins."""

from absl import logging

from dataset.check import checks
from dataset.check.class_ids import NamedIds
from efficientdet.config import Config


def check_files(
    config: Config,
    known: NamedIds,
    train_file_pattern: str | None = None,
    val_file_pattern: str | None = None,
    *,
    val_json_file: str | None = None,
    is_test_set: bool = False,
) -> NamedIds:
    """Checks some records of each file pattern, see `checks.quick`, and logs warnings.

    Args:
        known: class names of the detector that is evaluated or trained further.
        train_file_pattern: records of training; None if there is none.
        val_file_pattern: records of evaluation; None if there is none.
        val_json_file: their groundtruth for AP, instead of the boxes in the records.
        is_test_set: True if the evaluated records have no groundtruth.

    Returns:
        The class names in the records that were checked last, those of an evaluation if there is one.

    Raises:
        DataError: if training or evaluation on them would be pointless.
    """
    warnings, others = [], [known]
    if train_file_pattern:
        result = checks.quick(train_file_pattern, config, None, others)
        warnings += result.warnings
        others.append(result.names)
    if val_file_pattern and is_test_set:
        warnings += checks.quick_test_set(val_file_pattern, config)
    elif val_file_pattern:
        result = checks.quick(val_file_pattern, config, val_json_file, others, evaluates=True)
        warnings += result.warnings
        others.append(result.names)
    for warning in warnings:
        logging.warning("%s", warning)
    return others[-1]
