# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/check/swap_evidence.py: what the pixels show about swapped boxes, and what they do not show."""

import numpy as np
import pytest
from planted import check_records, codes, jpeg

from dataset.check import swap_evidence
from dataset.tfrecord import Record


def find_swap(images, boxes):
    """Returns find_swap over images with equal numbers of boxes."""
    gains = [swap_evidence.gains(*pair) for pair in zip(images, boxes)]
    return swap_evidence.find_swap(
        np.concatenate(gains), np.concatenate(boxes), np.repeat(np.arange(len(images)), len(boxes[0]))
    )


def test_objects_in_noise_are_no_evidence_of_swapped_boxes():
    random = np.random.default_rng(1)
    mins = random.uniform(0, 0.6, [60, 5, 2])
    boxes = np.concatenate([mins, mins + random.uniform(0.1, 0.4, [60, 5, 2])], 2)
    assert find_swap(random.integers(0, 256, [60, 90, 120, 3], np.uint8), boxes) is None
    assert swap_evidence.find_swap(np.full([60, 3], np.nan), boxes[:, 0], np.arange(60)) is None


@pytest.mark.parametrize("spread", [3, 10])
def test_background_of_a_fixed_camera_is_no_evidence_of_swapped_boxes(tmp_path, clean, spread):
    random = np.random.default_rng(1)
    records = []
    for index in range(40):
        image = random.integers(90, 110, [200, 200, 3], np.uint8)
        image[20:60, 120:180] = 250  # at the transposed boxes
        box = (np.array([120, 20, 180, 60]) + np.tile(random.uniform(-spread, spread, 2), 2)) / 200
        record = Record(jpeg(image), 200, 200, f"{index}.jpg", str(index), boxes_norm=[box], classes=[1])
        records.append(record)
    assert "boxes_swapped" not in codes(check_records(tmp_path, records, label_map=None))


def test_swapped_boxes_are_detected_from_enough_places(clean):
    """Squares of 24 pixels, one per image, on a grid: 16 places are enough, 14 are not."""
    random = np.random.default_rng(1)
    cells = [(y, x) for y in range(8) for x in range(8) if abs(y - x) > 2]
    for number, layout in ((16, "boxes_swapped"), (14, None)):
        images, boxes = [], []
        for y, x in cells[:number] * 3:
            image = random.integers(90, 110, [200, 200, 3], np.uint8)
            image[25 * y : 25 * y + 24, 25 * x : 25 * x + 24] = 220 + random.integers(0, 30)
            images.append(image)
            boxes.append(np.array([[25 * x, 25 * y, 25 * x + 24, 25 * y + 24]]) / 200)
        assert find_swap(images, boxes) == layout


def test_gains_by_hand():
    # A black square of 20 pixels, box [20, 60, 40, 80], on white: all four sides have full contrast.
    image = np.full([100, 100, 3], 255, np.uint8)
    image[20:40, 60:80] = 0
    [[stored, swapped, in_pixels]] = swap_evidence.gains(image, np.array([[0.2, 0.6, 0.4, 0.8]]))
    # Shifted by half a side: one side is in black and one in white, both without contrast; the inner strips of the two
    # others are black along half their length: 255 / 2. Mean 63.75; unshifted 255.
    assert stored == pytest.approx(255 - 63.75)
    assert swapped == in_pixels == 0  # white everywhere
    assert np.isnan(swap_evidence.gains(image, np.array([[0.2, 0.2, 0.4, 0.4]]))).all()  # equal to its transposed box
