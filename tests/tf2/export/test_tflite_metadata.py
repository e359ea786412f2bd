# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""tflite_metadata: the flatbuffer holds what clients look for, in the fields of the public schema."""

import flatbuffers.encode
import flatbuffers.number_types as types
import flatbuffers.table
import numpy as np
import pytest

from efficientdet import config as config_lib
from tf2.export import tflite_metadata


class Reader:
    """Reads a table by the numbers of its fields, as the public schema counts them from 0."""

    def __init__(self, buffer, position):
        self._table = flatbuffers.table.Table(buffer, position)

    @classmethod
    def root(cls, buffer):
        return cls(buffer, flatbuffers.encode.Get(types.UOffsetTFlags.packer_type, buffer, 0))

    def has(self, field):
        return self._table.Offset(4 + 2 * field) != 0

    def text(self, field):
        return self._table.String(self._table.Offset(4 + 2 * field) + self._table.Pos).decode()

    def number(self, field, flags=types.Int8Flags):
        return self._table.Get(flags, self._table.Offset(4 + 2 * field) + self._table.Pos)

    def table(self, field):
        return Reader(self._table.Bytes, self._table.Indirect(self._table.Offset(4 + 2 * field) + self._table.Pos))

    def vector(self, field, flags=None):
        """Returns tables, numbers, or with flags=str strings."""
        offset = self._table.Offset(4 + 2 * field)
        start = self._table.Vector(offset)
        items = [start + 4 * i for i in range(self._table.VectorLen(offset))]
        if flags is str:
            return [self._table.String(item).decode() for item in items]
        if flags:
            return [self._table.Get(flags, item) for item in items]
        return [Reader(self._table.Bytes, self._table.Indirect(item)) for item in items]


def read(config):
    buffer = tflite_metadata.detection_op(config)
    assert buffer[4:8] == b"M001"
    return Reader.root(buffer)


@pytest.fixture(scope="module")
def config():
    return config_lib.load("efficientdet-lite0", "num_classes=3,label_map={1: 'RBC', 3: 'é'}")


def test_the_model_and_its_input(config):
    model = read(config)
    assert model.text(0) == "efficientdet-lite0" and model.text(7) == "1.2.0"
    [graph] = model.vector(3)
    [image] = graph.vector(2)
    assert image.text(0) == "image"
    content = image.table(3)
    assert content.number(0) == 2  # ImageProperties
    assert content.table(1).number(0) == 1  # RGB
    [unit] = image.vector(4)
    assert unit.number(0) == 1  # NormalizationOptions
    assert unit.table(1).vector(0, types.Float32Flags) == [127.0]
    assert unit.table(1).vector(1, types.Float32Flags) == [128.0]


def test_the_outputs(config):
    [graph] = read(config).vector(3)
    tensors = graph.vector(3)
    assert [tensor.text(0) for tensor in tensors] == ["location", "category", "score", "number of detections"]
    boxes = tensors[0].table(3)
    assert boxes.number(0) == 3  # BoundingBoxProperties
    assert boxes.table(1).vector(0, types.Uint32Flags) == [1, 0, 3, 2]
    assert boxes.table(1).number(1) == 1 and not boxes.table(1).has(2)  # BOUNDARIES, and RATIO, the default
    for tensor in tensors[1:]:
        assert tensor.table(3).number(0) == 1  # FeatureProperties
    for tensor in tensors[:3]:
        assert [tensor.table(3).table(2).number(field, types.Int32Flags) for field in (0, 1)] == [2, 2]
    [file] = tensors[1].vector(6)
    assert file.text(0) == "labels.txt" and file.number(2) == 3  # TENSOR_VALUE_LABELS
    [group] = graph.vector(8)
    assert group.text(0) == "detection_result" and group.vector(1, str) == ["location", "category", "score"]


def test_a_detector_without_class_names_has_no_labels():
    config = config_lib.load("efficientdet-lite0")
    assert tflite_metadata.labels(config) is None
    assert not read(config).vector(3)[0].vector(3)[1].has(6)


@pytest.mark.parametrize(
    "names, lines",
    [
        ({1: "RBC", 2: "WBC", 3: "Platelets"}, ["RBC", "WBC", "Platelets", "???"]),
        ({2: "WBC", 4: "é"}, ["???", "WBC", "???", "é"]),
        ({1: "red\nblood\r\ncell", 2: "a\u2028b", 3: "x" * 300}, ["red blood cell", "a b", "x" * 300, "???"]),
    ],
    ids=["plain", "gaps", "long and broken"],
)
def test_line_i_names_class_i(names, lines):
    config = config_lib.load("efficientdet-lite0", num_classes=4, label_map=names)
    assert tflite_metadata.labels(config) == "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize(
    "model, changes, mean, stddev",
    [
        ("efficientdet-lite0", {}, [127], [128]),
        # By hand: 255 * (0.485, 0.456, 0.406) and 255 * (0.229, 0.224, 0.225).
        ("efficientdet-d0", {}, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
        ("efficientdet-d0", {"mean_rgb": 0, "stddev_rgb": 1, "scale_range": True}, [127.5], [127.5]),
    ],
)
def test_normalization(model, changes, mean, stddev):
    config = config_lib.load(model, **changes)
    options = read(config).vector(3)[0].vector(2)[0].vector(4)[0].table(1)
    np.testing.assert_allclose(options.vector(0, types.Float32Flags), mean, rtol=1e-6)
    np.testing.assert_allclose(options.vector(1, types.Float32Flags), stddev, rtol=1e-6)
    assert tflite_metadata.has_one_mean(config) == (len(mean) == 1)


@pytest.mark.parametrize("scale_range", [False, True])
def test_normalization_is_that_of_preprocessing(scale_range):
    from efficientdet import preprocess  # imports TensorFlow

    changes = {"mean_rgb": (10.0, 20.0, 30.0), "stddev_rgb": (2.0, 3.0, 4.0), "scale_range": scale_range}
    config = config_lib.load("efficientdet-lite0", **changes)
    image = np.arange(16 * 16 * 3, dtype=np.float32).reshape(16, 16, 3) % 256
    inputs = preprocess.to_input(image, [16, 16], (16, 16), **config.colors)
    mean, stddev = tflite_metadata.normalization(config)
    np.testing.assert_allclose(inputs, (image - mean) / stddev, rtol=1e-5, atol=1e-5)
