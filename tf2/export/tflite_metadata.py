# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""TFLite Metadata: normalization of the input, meaning of the outputs and class names, for MediaPipe and Task Library.

It is a flatbuffer of a public schema, stored in the model by the name METADATA_NAME. The files that it lists are in a
ZIP archive after the model.
Reference: https://github.com/google/mediapipe/blob/master/mediapipe/tasks/metadata/metadata_schema.fbs.
"""

import dataclasses
import enum

import flatbuffers
import numpy as np

from dataset import label_map
from efficientdet.config import Config

METADATA_NAME = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"
NO_NAME = "???"  # the line of a class id without a name, as in published label files
IDENTIFIER = b"M001"  # of the schema
MIN_PARSER_VERSION = "1.2.0"  # of the schema; the first one with output_tensor_groups
# Fields of the schema's tables in their order, of which only some are written. A union is two fields, type and value.
FIELDS = {
    "ModelMetadata": "name description version subgraph_metadata author license associated_files min_parser_version",
    "SubGraphMetadata": "name description input_tensor_metadata output_tensor_metadata associated_files "
    "input_process_units output_process_units input_tensor_groups output_tensor_groups custom_metadata",
    "TensorMetadata": "name description dimension_names content process_units stats associated_files",
    "TensorGroup": "name tensor_names",
    "AssociatedFile": "name description type locale version",
    "Content": "content_properties_type content_properties range",
    "FeatureProperties": "",
    "ImageProperties": "color_space default_size",
    "BoundingBoxProperties": "index type coordinate_type",
    "ValueRange": "min max",
    "ProcessUnit": "options_type options",
    "NormalizationOptions": "mean std",
}


class Code(enum.IntEnum):
    """Constants of the schema's enumerations and types of its unions, stored as bytes."""

    RGB = 1  # ColorSpaceType
    BOUNDARIES = 1  # BoundingBoxType
    TENSOR_VALUE_LABELS = 3  # AssociatedFileType
    NORMALIZATION_OPTIONS = 1  # ProcessUnitOptions
    FEATURE_PROPERTIES = 1  # ContentProperties
    IMAGE_PROPERTIES = 2
    BOUNDING_BOX_PROPERTIES = 3


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the schema; fields that are absent have the default, which is 0 for numbers."""

    kind: str  # a key of FIELDS
    fields: dict[str, "str | int | list | Table"]


def detection_op(config: Config) -> bytes:
    """Returns the metadata of a network with TFLite's detection op, whose outputs are boxes, classes, scores, count."""
    mean, stddev = normalization(config)
    if has_one_mean(config):
        mean, stddev = mean[:1], stddev[:1]
    options = _table("NormalizationOptions", mean=mean.tolist(), std=stddev.tolist())
    image = _tensor(
        "image",
        "RGB image, scaled to the size of the tensor. Float: normalized; uint8: quantized as the tensor is.",
        _content(Code.IMAGE_PROPERTIES, "ImageProperties", color_space=Code.RGB),
        process_units=[_table("ProcessUnit", options_type=Code.NORMALIZATION_OPTIONS, options=options)],
    )
    graph = _table(
        "SubGraphMetadata",
        input_tensor_metadata=[image],
        output_tensor_metadata=_outputs(config),
        output_tensor_groups=[
            _table("TensorGroup", name="detection_result", tensor_names=["location", "category", "score"])
        ],
    )
    model = _table(
        "ModelMetadata",
        name=config.name,
        description="Locates objects in an image and identifies their classes.",
        subgraph_metadata=[graph],
        min_parser_version=MIN_PARSER_VERSION,
    )
    builder = flatbuffers.Builder()
    builder.Finish(_write(builder, model), IDENTIFIER)
    return bytes(builder.Output())


def labels(config: Config) -> str | None:
    """Returns the text of LABELS_FILE: a line per class id from 1, which clients count from 0; None without names.

    >>> labels(Config(num_classes=3, label_map={1: "cat", 3: "dog"})).split()
    ['cat', '???', 'dog']
    """
    names = label_map.resolve(config.label_map)
    if not names:
        return None
    lines = (label_map.on_one_line(names.get(class_id, NO_NAME)) for class_id in range(1, config.num_classes + 1))
    return "".join(f"{line}\n" for line in lines)


def normalization(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation, [3] float32 in [0, 255]: the network input is (pixel - mean) / stddev.

    >>> [values.tolist() for values in normalization(Config(mean_rgb=0, stddev_rgb=1, scale_range=True))]
    [[127.5, 127.5, 127.5], [127.5, 127.5, 127.5]]
    """
    mean, stddev = np.float32(config.mean_rgb), np.float32(config.stddev_rgb)
    if config.scale_range:  # ((pixel - mean) / stddev) * 2 / 255 - 1
        stddev = stddev * np.float32(127.5)
        mean = mean + stddev
    return mean, stddev


def has_one_mean(config: Config) -> bool:
    """Returns True if one mean and one standard deviation apply to all channels."""
    return all(len(set(values.tolist())) == 1 for values in normalization(config))


def _outputs(config: Config) -> list[Table]:
    """Returns the metadata of the outputs, by the names that clients expect."""
    files = {}
    if labels(config) is not None:
        file = _table("AssociatedFile", name=LABELS_FILE, description="Class names.", type=Code.TENSOR_VALUE_LABELS)
        files = {"associated_files": [file]}
    # Clients expect the positions of left, top, right and bottom.
    boxes = _content(
        Code.BOUNDING_BOX_PROPERTIES, "BoundingBoxProperties", rows=2, index=[1, 0, 3, 2], type=Code.BOUNDARIES
    )
    features = Code.FEATURE_PROPERTIES, "FeatureProperties"
    return [
        _tensor("location", "Boxes, [ymin, xmin, ymax, xmax] in [0, 1] of the network input.", boxes),
        _tensor("category", "Classes, counted from 0.", _content(*features, rows=2), **files),
        _tensor("score", "Scores, in descending order.", _content(*features, rows=2)),
        _tensor("number of detections", "Number of rows of the other outputs that are defined.", _content(*features)),
    ]


def _tensor(name: str, description: str, content: Table, **fields) -> Table:
    return _table("TensorMetadata", name=name, description=description, content=content, **fields)


def _content(code: Code, kind: str, *, rows: int | None = None, **properties) -> Table:
    """Returns the meaning of a tensor; `rows` is the number of dimensions that one value of it covers."""
    fields = {"content_properties_type": code, "content_properties": _table(kind, **properties)}
    if rows is not None:
        fields["range"] = _table("ValueRange", min=rows, max=rows)
    return _table("Content", **fields)


def _table(kind: str, **fields) -> Table:
    return Table(kind, fields)


def _write(builder: flatbuffers.Builder, value: str | list | Table) -> int:
    """Writes a string, a vector or a table, the objects that it refers to first, and returns its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, list):
        return _write_vector(builder, value)
    slots = FIELDS[value.kind].split()
    offsets = {name: _write(builder, field) for name, field in value.fields.items() if not isinstance(field, int)}
    builder.StartObject(len(slots))
    for name, field in value.fields.items():
        slot = slots.index(name)
        if isinstance(field, Code):
            builder.PrependInt8Slot(slot, field, 0)
        elif isinstance(field, int):
            builder.PrependInt32Slot(slot, field, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[name], 0)
    return builder.EndObject()


def _write_vector(builder: flatbuffers.Builder, values: list) -> int:
    """Writes a vector of 32-bit floats, of unsigned integers, or of strings and tables."""
    if isinstance(values[0], float):
        prepend = builder.PrependFloat32
    elif isinstance(values[0], int):
        prepend = builder.PrependUint32
    else:
        values, prepend = [_write(builder, value) for value in values], builder.PrependUOffsetTRelative
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        prepend(value)
    return builder.EndVector()
