# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The tf.train.Example schema of a detection record: encoder and decoder side by side."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# One decoded record; K objects, which stay aligned:
#   image        uint8 [H, W, 3]
#   boxes_norm   float32 [K, 4], [ymin, xmin, ymax, xmax] as fractions of the image
#   classes      int32 [K], from 1
#   is_crowd     bool [K]
#   area         float32 [K], square pixels of the original image
#   source_id    string []
#   height, width  int32 [], pixels of the original image
# Evaluation alone asks for one more:
#   difficult    bool [K], whether Pascal VOC lets a detector miss it
Sample = dict[str, tf.Tensor]


class DataError(ValueError):
    """The user's data cannot be used as it is; the message says which file and what to do."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One image with its K objects. A per-object column is K long; a column that the source lacks is empty."""

    encoded: bytes  # the image file as it is
    height: int
    width: int
    filename: str
    source_id: str  # the image id that a ground truth JSON uses
    image_format: str = "jpeg"
    boxes_norm: Sequence[Sequence[float]] = ()  # [K, 4], [ymin, xmin, ymax, xmax] in [0, 1]
    classes: Sequence[int] = ()  # from 1
    class_names: Sequence[str] = ()
    is_crowd: Sequence[int] = ()
    area: Sequence[float] = ()  # square pixels
    masks: Sequence[bytes] = ()  # PNG files, 1 on the object
    difficult: Sequence[int] = ()
    truncated: Sequence[int] = ()
    poses: Sequence[str] = ()
    captions: Sequence[str] = ()  # of the image


def encode(record: Record) -> bytes:
    """A record as a serialized tf.train.Example, the same bytes for the same record.

    Raises:
        ValueError: if a per-object column is neither empty nor as long as `boxes_norm`.
    """
    boxes = np.asarray(record.boxes_norm, np.float32).reshape(-1, 4)
    for name in ("classes", "class_names", "is_crowd", "area", "masks", "difficult", "truncated", "poses"):
        if len(getattr(record, name)) not in (0, len(boxes)):
            raise ValueError(f"{record.filename}: {len(getattr(record, name))} {name} for {len(boxes)} boxes")
    features = {
        "image/height": _ints([record.height]),
        "image/width": _ints([record.width]),
        "image/filename": _texts([record.filename]),
        "image/source_id": _texts([record.source_id]),
        "image/key/sha256": _texts([hashlib.sha256(record.encoded).hexdigest()]),
        "image/encoded": _blobs([record.encoded]),
        "image/format": _texts([record.image_format]),
        "image/object/bbox/ymin": _floats(boxes[:, 0]),
        "image/object/bbox/xmin": _floats(boxes[:, 1]),
        "image/object/bbox/ymax": _floats(boxes[:, 2]),
        "image/object/bbox/xmax": _floats(boxes[:, 3]),
        "image/object/class/label": _ints(record.classes),
        "image/object/class/text": _texts(record.class_names),
        "image/object/is_crowd": _ints(record.is_crowd),
        "image/object/area": _floats(record.area),
        "image/object/mask": _blobs(record.masks),
        "image/object/difficult": _ints(record.difficult),
        "image/object/truncated": _ints(record.truncated),
        "image/object/view": _texts(record.poses),
        "image/caption": _texts(record.captions),
    }
    present = {key: feature for key, feature in features.items() if getattr(feature, feature.WhichOneof("kind")).value}
    example = tf.train.Example(features=tf.train.Features(feature=present))
    return example.SerializeToString(deterministic=True)


def _ints(values: Sequence[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(values: Sequence[float]) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _blobs(values: Sequence[bytes]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _texts(values: Sequence[str]) -> tf.train.Feature:
    return _blobs([value.encode("utf-8") for value in values])


def _column(dtype: tf.DType) -> tf.io.FixedLenSequenceFeature:
    return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)


BOX_SIDES = ("bbox/ymin", "bbox/xmin", "bbox/ymax", "bbox/xmax")
DECODED_FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/source_id": tf.io.FixedLenFeature([], tf.string, ""),
    "image/height": tf.io.FixedLenFeature([], tf.int64, -1),
    "image/width": tf.io.FixedLenFeature([], tf.int64, -1),
    "image/object/bbox/ymin": _column(tf.float32),
    "image/object/bbox/xmin": _column(tf.float32),
    "image/object/bbox/ymax": _column(tf.float32),
    "image/object/bbox/xmax": _column(tf.float32),
    "image/object/class/label": _column(tf.int64),
    "image/object/is_crowd": _column(tf.int64),
    "image/object/area": _column(tf.float32),
}
DIFFICULT = {"image/object/difficult": _column(tf.int64)}


def parse(serialized: tf.Tensor, regenerate_source_id: bool = False, with_difficult: bool = False) -> Sample:
    """A serialized record with its image still encoded; TensorFlow operations only, so it runs inside tf.data.

    Args:
        serialized: [] string, a tf.train.Example.
        regenerate_source_id: takes the fingerprint even where the record has a source_id.
        with_difficult: reads this column too.

    Returns:
        A Sample with encoded, [] string, in place of image. Where the record has none, height and width are -1, area
        is empty, no object is a crowd or difficult, and source_id is a 63-bit fingerprint of the encoded image, as a
        decimal string.

    Raises:
        tf.errors.InvalidArgumentError: if the record has no image, or its columns differ in length.
    """
    parsed = tf.io.parse_single_example(serialized, DECODED_FEATURES | (DIFFICULT if with_difficult else {}))
    encoded, source_id = parsed["image/encoded"], parsed["image/source_id"]
    hashed = fingerprint(encoded)
    source_id = hashed if regenerate_source_id else tf.where(tf.equal(source_id, ""), hashed, source_id)
    flags = ("is_crowd", "difficult") if with_difficult else ("is_crowd",)
    names = (*BOX_SIDES, "class/label", "area", *flags)
    columns = {name: parsed[f"image/object/{name}"] for name in names}
    num_boxes = tf.size(columns["bbox/ymin"])
    lengths = tf.stack([tf.size(column) for column in columns.values()])
    is_optional = [name == "area" or name in flags for name in names]
    fits = tf.reduce_all((lengths == num_boxes) | (is_optional & (lengths == 0)))
    text = f"{', '.join(names[:-1])} and {names[-1]} must have one value a box; record"
    # Not tf.debugging.Assert: that is a branch in a graph, slower than all of this check.
    check = tf.raw_ops.Assert(condition=fits, data=[text, source_id, "has", lengths], summarize=len(names))
    with tf.control_dependencies([check]):
        boxes_norm = tf.stack([columns[side] for side in BOX_SIDES], axis=-1)
    unset = tf.zeros([num_boxes], tf.int64)
    return {
        "encoded": encoded,
        "boxes_norm": boxes_norm,
        "classes": tf.cast(columns["class/label"], tf.int32),
        "area": columns["area"],
        "source_id": source_id,
        "height": tf.cast(parsed["image/height"], tf.int32),
        "width": tf.cast(parsed["image/width"], tf.int32),
        **{name: tf.cast(_or_default(columns[name], unset), tf.bool) for name in flags},
    }


def decode(serialized: tf.Tensor, regenerate_source_id: bool = False, with_difficult: bool = False) -> Sample:
    """A serialized record as tensors: `parse`, then the image, and what only the image can tell.

    Height and width that the record lacks are those of the image; area that it lacks is that of the box, which also
    replaces an area that is the share of the box in the image.

    Raises:
        tf.errors.InvalidArgumentError: as `parse`, and if the image cannot be decoded.
    """
    sample = parse(serialized, regenerate_source_id, with_difficult)
    image = decode_image(sample.pop("encoded"))
    height, width = (
        tf.where(sample[side] < 0, tf.shape(image)[i], sample[side]) for i, side in enumerate(("height", "width"))
    )
    boxes_norm = sample["boxes_norm"]
    sides = boxes_norm[:, 2:] - boxes_norm[:, :2]
    share = sides[:, 0] * sides[:, 1]
    box_area = share * tf.cast(height, tf.float32) * tf.cast(width, tf.float32)  # square pixels
    area = _or_default(sample["area"], box_area)
    # Published Pascal VOC records store the share of the image, which would make every object a small one.
    area = tf.where(tf.abs(area - share) <= 1e-3 * share, box_area, area)
    return {**sample, "image": image, "area": area, "height": height, "width": width}


def fingerprint(encoded: tf.Tensor) -> tf.Tensor:
    """The source_id of an image that has none, [] string: 63 bits of a hash of the encoded image, as a number."""
    return tf.strings.as_string(tf.strings.to_hash_bucket_fast(encoded, 2**63 - 1))


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """An encoded image, [] string, as uint8 [H, W, 3]; of an animation the first frame."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def _or_default(column: tf.Tensor, default: tf.Tensor) -> tf.Tensor:
    """The column, or the default, which is [K], where the column is empty and not [K]."""
    return tf.concat([column, default], 0)[: tf.size(default)]
