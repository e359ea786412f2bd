# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tf2/export/quiet.py."""

import logging

import pytest

from tf2.export.quiet import quiet


@pytest.mark.parametrize("name", ["some.package", None])
def test_lines_below_the_level_are_suppressed_until_the_end_of_the_block(name, caplog):
    logger = logging.getLogger(name)
    before = logger.level
    with pytest.raises(KeyError), quiet(name, logging.ERROR):
        logger.warning("hidden")
        logger.error("shown")
        raise KeyError
    assert caplog.messages == ["shown"]
    assert logger.level == before
