# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""rounding: a checkpoint with changed last bits, and the ratio of differences to those that it has."""

import numpy as np
import pytest
import tensorflow as tf

from tf2.export import rounding
from tf2.inference import drivers


@pytest.mark.parametrize("bit, unit", [(0, 2.0**-23), (13, 2.0**-10)])
def test_a_flipped_bit_changes_values_by_one_unit(bit, unit):
    values = np.float32([1, -1, 1.5, 0, 1e-3, -7.25, 1e-42])  # the last one is not a normal number
    changed = rounding._with_flipped_bit(values, bit)
    powers = np.float32([1, 1, 1, 0, 2**-10, 4, 0])  # of two, below the values
    np.testing.assert_array_equal(np.abs(changed - values), powers * np.float32(unit))
    np.testing.assert_array_equal(rounding._with_flipped_bit(changed, bit), values)
    assert rounding._with_flipped_bit(np.float32(1), bit) == 1 + unit  # of a weight without dimensions


@pytest.fixture(scope="module")
def reference(spread_driver, tiny_config):
    return spread_driver(tiny_config)


def test_a_rounded_checkpoint_restores_its_weights(reference):
    weights = [variable.numpy() for variable in reference.model.net.variables]
    inputs = tf.random.stateless_normal([1, 64, 64, 3], [0, 1])
    seen = []

    def network(inputs):
        seen.extend(variable.numpy() for variable in reference.model.net.variables)
        raise RuntimeError("out of memory")

    driver = drivers.KerasDriver.__new__(drivers.KerasDriver)
    driver.__dict__ |= {**vars(reference), "network": network}
    with pytest.raises(RuntimeError, match="out of memory"):
        rounding.rounded(driver, "FP32").network(inputs)
    for before, during, after in zip(weights, seen, reference.model.net.variables):
        np.testing.assert_array_equal(before, after)
        assert np.all((before != during) == (before != 0))
        np.testing.assert_allclose(before, during, rtol=2**-22)


@pytest.mark.parametrize("precision, largest", [("FP32", 1e-5), ("FP16", 0.1)])
def test_outputs_of_a_rounded_checkpoint(reference, precision, largest):
    inputs = tf.random.stateless_normal([1, 64, 64, 3], [0, 1])
    expected, outputs = reference.network(inputs)[0][0], rounding.rounded(reference, precision).network(inputs)[0][0]
    difference = np.max(np.abs(outputs - expected))
    assert largest / 1000 < difference < largest
    detections = rounding.rounded(reference, "FP32").detect(np.zeros([40, 50, 3], np.uint8))
    assert detections.valid_len == reference.detect(np.zeros([40, 50, 3], np.uint8)).valid_len


def test_ratio_of_differences(reference, monkeypatch):
    """By hand: 0.2 beside 0.1 in one of two values of an output, in units of max(1, |value of the checkpoint|)."""
    names = ("network", "rounded")
    levels = {
        "checkpoint": ([np.float32([[1, 4]])], [np.float32([[0, 0]])]),
        "network": ([np.float32([[1.2, 4]])], [np.float32([[0, 0]])]),
        "rounded": ([np.float32([[1, 4.4]])], [np.float32([[0.5, 0]])]),
    }
    given = {name: type("Network", (), {"network": lambda inputs, name=name: levels[name]}) for name in names}
    monkeypatch.setattr(rounding, "rounded", lambda reference, precision: given["rounded"])
    raw = rounding.RawOutputs(reference, given["network"], "FP32")
    assert raw.add(None, levels["checkpoint"]) == ""
    largest, ratio = raw.findings()
    assert largest.value == pytest.approx(0.2) and largest.compared == 4
    assert largest.text == "class_predict_0[0] of image 0 is 1.2, expected 1"
    assert ratio.value == pytest.approx(2) and ratio.compared == 2
    assert ratio.text == (
        "class_predict_0 differs by 0.14 (rms), at most 0.2; by rounding in the checkpoint 0.071, at most 0.1"
    )
    assert (ratio.bound, ratio.passed, largest.passed) == (None, None, None)
