# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The tf.train.Example schema of detection records: encoder and decoder."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# One decoded record with K objects; row k of every per-object column belongs to object k:
#   image        uint8 [H, W, 3]
#   boxes_norm   float32 [K, 4], [ymin, xmin, ymax, xmax] as fractions of the image
#   classes      int32 [K], from 1
#   is_crowd     bool [K]
#   area         float32 [K], square pixels of the original image
#   source_id    string []
#   height, width  int32 [], pixels of the original image
# Only with `with_difficult`, for evaluation:
#   difficult    bool [K], True if Pascal VOC does not count the object
Sample = dict[str, tf.Tensor]


class DataError(ValueError):
    """Data that cannot be used; the message names the file and the remedy."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One image with its K objects. Per-object columns have length K, or 0 if the source does not provide them."""

    encoded: bytes  # content of the image file
    height: int
    width: int
    filename: str
    source_id: str  # the image id in a groundtruth JSON file
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
    """Serializes a record as a tf.train.Example; deterministic.

    Raises:
        ValueError: if the length of a per-object column is neither 0 nor that of `boxes_norm`.

    Example:
        >>> record = Record(b"...", 480, 640, "a.jpg", "1", boxes_norm=[[0.0, 0.0, 0.5, 1.0]], classes=[2])
        >>> sample = parse(encode(record))
        >>> sample["boxes_norm"].numpy().tolist(), sample["classes"].numpy().tolist()
        ([[0.0, 0.0, 0.5, 1.0]], [2])
    """
    boxes = np.asarray(record.boxes_norm, np.float32).reshape(-1, 4)
    for name in ("classes", "class_names", "is_crowd", "area", "masks", "difficult", "truncated", "poses"):
        if len(getattr(record, name)) not in (0, len(boxes)):
            raise ValueError(f"{record.filename}: {len(getattr(record, name))} {name} for {len(boxes)} boxes")
    columns = {
        "int64_list": {
            "image/height": [record.height],
            "image/width": [record.width],
            "image/object/class/label": record.classes,
            "image/object/is_crowd": record.is_crowd,
            "image/object/difficult": record.difficult,
            "image/object/truncated": record.truncated,
        },
        "float_list": {
            **{f"image/object/{side}": boxes[:, i] for i, side in enumerate(BOX_SIDES)},
            "image/object/area": record.area,
        },
        "bytes_list": {
            "image/filename": _utf8([record.filename]),
            "image/source_id": _utf8([record.source_id]),
            "image/key/sha256": _utf8([hashlib.sha256(record.encoded).hexdigest()]),
            "image/encoded": [record.encoded],
            "image/format": _utf8([record.image_format]),
            "image/object/class/text": _utf8(record.class_names),
            "image/object/mask": record.masks,
            "image/object/view": _utf8(record.poses),
            "image/caption": _utf8(record.captions),
        },
    }
    features = {
        key: tf.train.Feature(**{kind: {"value": values}})
        for kind, columns_of_kind in columns.items()
        for key, values in columns_of_kind.items()
        if len(values)
    }
    return tf.train.Example(features={"feature": features}).SerializeToString(deterministic=True)


def _utf8(texts: Sequence[str]) -> list[bytes]:
    return [text.encode("utf-8") for text in texts]


def _column(dtype: tf.DType) -> tf.io.FixedLenSequenceFeature:
    return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)


BOX_SIDES = ("bbox/ymin", "bbox/xmin", "bbox/ymax", "bbox/xmax")
DECODED_FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/source_id": tf.io.FixedLenFeature([], tf.string, ""),
    "image/height": tf.io.FixedLenFeature([], tf.int64, -1),
    "image/width": tf.io.FixedLenFeature([], tf.int64, -1),
    **{f"image/object/{side}": _column(tf.float32) for side in BOX_SIDES},
    "image/object/class/label": _column(tf.int64),
    "image/object/is_crowd": _column(tf.int64),
    "image/object/area": _column(tf.float32),
}


def parse(serialized: tf.Tensor, regenerate_source_id: bool = False, with_difficult: bool = False) -> Sample:
    """Parses a serialized record without decoding its image; for use inside tf.data.

    Args:
        serialized: [] string, a tf.train.Example.
        regenerate_source_id: replaces the source_id of the record with the fingerprint of its image.
        with_difficult: also reads the column `difficult`.

    Returns:
        A Sample with `encoded`, [] string, instead of `image`. Defaults for missing features: -1 for height and width,
        an empty area, False for is_crowd and difficult, and for source_id the `fingerprint` of the encoded image.

    Raises:
        tf.errors.InvalidArgumentError: if the record has no image, or its columns differ in length.
    """
    difficult = {"image/object/difficult": _column(tf.int64)} if with_difficult else {}
    parsed = tf.io.parse_single_example(serialized, DECODED_FEATURES | difficult)
    encoded, source_id = parsed["image/encoded"], parsed["image/source_id"]
    image_id = fingerprint(encoded)
    source_id = image_id if regenerate_source_id else tf.where(tf.equal(source_id, ""), image_id, source_id)
    flags = ("is_crowd", "difficult") if with_difficult else ("is_crowd",)
    names = (*BOX_SIDES, "class/label", "area", *flags)
    columns = {name: parsed[f"image/object/{name}"] for name in names}
    num_boxes = tf.size(columns["bbox/ymin"])
    lengths = tf.stack([tf.size(column) for column in columns.values()])
    is_optional = [name == "area" or name in flags for name in names]
    is_aligned = tf.reduce_all((lengths == num_boxes) | (is_optional & (lengths == 0)))
    message = f"{', '.join(names[:-1])} and {names[-1]} must have one value per box; record"
    # tf.debugging.Assert would add a conditional to the graph, which is slower than the rest of this check.
    check = tf.raw_ops.Assert(condition=is_aligned, data=[message, source_id, "has", lengths], summarize=len(names))
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
        **{name: tf.cast(_default_if_empty(columns[name], unset), tf.bool) for name in flags},
    }


def decode(serialized: tf.Tensor, regenerate_source_id: bool = False, with_difficult: bool = False) -> Sample:
    """Parses a serialized record, see `parse`, and decodes its image.

    A missing height or width is taken from the image. A missing area, or an area that is the fraction of the image
    covered by the box, is replaced with the area of the box in pixels.

    Raises:
        tf.errors.InvalidArgumentError: as in `parse`, or if the image cannot be decoded.
    """
    sample = parse(serialized, regenerate_source_id, with_difficult)
    image = decode_image(sample.pop("encoded"))
    stored = tf.stack([sample["height"], sample["width"]])
    height, width = tf.unstack(tf.where(stored < 0, tf.shape(image)[:2], stored))
    box_fraction = tf.reduce_prod(sample["boxes_norm"][:, 2:] - sample["boxes_norm"][:, :2], axis=1)
    box_area = box_fraction * tf.cast(height, tf.float32) * tf.cast(width, tf.float32)  # square pixels
    area = _default_if_empty(sample["area"], box_area)
    # Published Pascal VOC records store the fraction, with which COCO metrics would count every object as small.
    area = tf.where(tf.abs(area - box_fraction) <= 1e-3 * box_fraction, box_area, area)
    return {**sample, "image": image, "area": area, "height": height, "width": width}


def fingerprint(encoded: tf.Tensor) -> tf.Tensor:
    """Source id of an image without one, [] string: a 63-bit hash of the encoded image as a decimal number."""
    return tf.strings.as_string(tf.strings.to_hash_bucket_fast(encoded, 2**63 - 1))


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes an image, [] string, to uint8 [H, W, 3]; the first frame of an animation."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def _default_if_empty(column: tf.Tensor, default: tf.Tensor) -> tf.Tensor:
    """Returns column, [K] or [0], or default, [K], if column is empty."""
    return tf.concat([column, default], 0)[: tf.size(default)]
