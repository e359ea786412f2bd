# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Raw outputs of an exported network, compared with what rounding alone changes in those of its checkpoint.

Rounding errors grow on their way through a network, by a factor that depends on its weights. It is measured: the
checkpoint runs a second time, with each weight and each value of its input changed by one unit in the last place.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from efficientdet.tta import Levels
from tf2.export import memory
from tf2.export.parity_report import Finding
from tf2.inference.drivers import Driver, KerasDriver

LAST_BITS = {"FP32": 0, "FP16": 13}  # of a float32, the bit of the last place of the precision
NAME, RATIO_NAME = "raw outputs", "raw outputs / rounding"


def rounded(reference: KerasDriver, precision: str) -> Driver:
    """Returns the detector of a checkpoint with each weight and input value changed by one unit in the last place.

    Args:
        reference: the checkpoint; its weights are changed during each call of the network.
        precision: a key of LAST_BITS.
    """
    bit, variables = LAST_BITS[precision], [v for v in reference.model.net.variables if v.dtype == tf.float32]

    def flip_weights():
        for variable in variables:
            variable.assign(_with_flipped_bit(variable.numpy(), bit))

    def network(inputs):
        flip_weights()
        try:
            return reference.network(tf.constant(_with_flipped_bit(np.asarray(inputs), bit)))
        finally:
            flip_weights()

    driver = Driver(reference.config, {**reference.stages, "network": lambda state: (network(state[0]), state[1])})
    driver.network = network
    return driver


def _with_flipped_bit(values: np.ndarray, bit: int) -> np.ndarray:
    """Returns float32 values with a flipped bit of the mantissa, zeros unchanged; a second call restores them."""
    bits = np.asarray(values).view(np.int32)
    is_normal = np.abs(values) >= np.finfo(np.float32).tiny
    return np.where(is_normal, bits ^ np.int32(1 << bit), bits).view(np.float32)


@dataclasses.dataclass
class _Spread:
    """Root mean square and maximum of differences."""

    largest: float = 0.0
    sum_of_squares: float = 0.0
    count: int = 0

    def add(self, differences: np.ndarray) -> None:
        self.largest = max(self.largest, float(differences.max()))
        self.sum_of_squares += float(np.vdot(differences, differences))
        self.count += differences.size

    @property
    def rms(self) -> float:
        return (self.sum_of_squares / self.count) ** 0.5

    def ratio(self, others: "_Spread", unit: float) -> float:
        """Returns the larger ratio of both to those of other differences, which are at least `unit`."""
        return max(self.rms / max(others.rms, unit), self.largest / max(others.largest, unit))


class RawOutputs:
    """The differences of all network outputs, without a verdict.

    They are relative: |difference| / max(1, |value of the checkpoint|).
    """

    def __init__(self, reference: KerasDriver, exported: Driver, precision: str):
        """Starts a comparison.

        Args:
            reference: the checkpoint.
            exported: the file, with `network`.
            precision: of the file; those that are not in LAST_BITS are not compared with rounding.
        """
        self._exported, self._rounded = exported, None
        if precision in LAST_BITS:
            self._rounded = rounded(reference, precision)
            self._unit = 2.0 ** (LAST_BITS[precision] - 23)  # of values in [1, 2)
        self._spreads: dict[str, tuple[_Spread, _Spread]] = {}  # of the file, and of the rounded checkpoint
        self._worst, self._where, self._num_images = -1.0, "", 0

    def add(self, inputs: tf.Tensor, levels: Levels) -> str:
        """Compares the outputs for one image.

        Args:
            inputs: [1, H, W, 3] float32, the checkpoint's preprocessed image.
            levels: the checkpoint's outputs.

        Returns:
            An error message if the file has other outputs or shapes, and an empty string otherwise.
        """
        expected = named(levels)
        try:
            outputs = named(self._exported.network(inputs))
        except KeyError as error:
            return f"the file has no output {error.args[0]}"
        if text := _other_shape(outputs, expected):
            return text
        for key, values in outputs.items():
            ours, _ = self._spreads.setdefault(key, (_Spread(), _Spread()))
            differences = _differences(values, expected[key])
            ours.add(differences)
            place = np.unravel_index(np.argmax(differences), differences.shape)
            if differences[place] > self._worst:
                self._worst = float(differences[place])
                where = f"{key}[{', '.join(map(str, place[1:]))}] of image {self._num_images}"
                self._where = f"{where} is {values[place]:.7g}, expected {expected[key][place]:.7g}"
        del outputs, values  # up to 200 MB
        memory.trim()
        if self._rounded:
            for key, values in named(self._rounded.network(inputs)).items():
                self._spreads[key][1].add(_differences(values, expected[key]))
        self._num_images += 1
        return ""

    def findings(self) -> list[Finding]:
        """Returns the largest difference, and if it is finite the ratio to rounding; no verdict on finite ones."""
        is_finite = np.isfinite(self._worst)
        count = sum(ours.count for ours, _ in self._spreads.values())
        findings = [Finding(NAME, self._worst, None, None if is_finite else False, count, self._where)]
        return findings + ([self._ratio()] if self._rounded and is_finite else [])

    def _ratio(self) -> Finding:
        """The output with the largest ratio of its differences to those of rounding."""
        ratios = {key: ours.ratio(own, self._unit) for key, (ours, own) in self._spreads.items()}
        key = max(ratios, key=ratios.get)
        ours, own = self._spreads[key]
        text = f"{key} differs by {ours.rms:.2g} (rms), at most {ours.largest:.2g}; "
        text += f"by rounding in the checkpoint {own.rms:.2g}, at most {own.largest:.2g}"
        return Finding(RATIO_NAME, ratios[key], None, None, ours.count, text)


def named(levels: Levels) -> dict[str, np.ndarray]:
    """Returns raw outputs by their names in exported files."""
    return {
        f"{head}_predict_{i}": np.asarray(output)
        for head, outputs in zip(("class", "box"), levels)
        for i, output in enumerate(outputs)
    }


def _differences(values: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Returns relative differences; in place, because outputs of large models have 100 MB."""
    differences = np.subtract(values, expected)
    np.abs(differences, out=differences)
    scale = np.abs(expected)
    differences /= np.maximum(scale, 1, out=scale)
    differences[~np.isfinite(differences)] = np.inf  # NaN counts as infinite
    return differences


def _other_shape(outputs: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> str:
    """Describes the first output whose shape differs; empty if there is none."""
    shapes, others = ({key: x.shape for key, x in each.items()} for each in (outputs, expected))
    if shapes == others:
        return ""
    key = next(key for key in {**others, **shapes} if shapes.get(key) != others.get(key))
    return f"shape of {key} in the file {shapes.get(key)}, in the checkpoint {others.get(key)}"
