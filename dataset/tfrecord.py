# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The tf.train.Example schema of a detection record: encoder and decoder side by side, and the sharded writer."""

import collections
import dataclasses
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

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
Sample = dict[str, tf.Tensor]

NOTES_SHOWN = 5  # of a kind; COCO has thousands

IMAGE_FORMATS = {"JPEG": "jpeg", "PNG": "png", "GIF": "gif", "BMP": "bmp"}  # Pillow's name -> image/format


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


@dataclasses.dataclass
class Summary:
    """What a conversion wrote, and all that it changed or left out, by name."""

    num_images: int = 0
    num_boxes: int = 0
    notes: dict[str, list[str]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))

    def note(self, what: str, where: str) -> None:
        """Adds one thing that was changed or left out, such as ("empty boxes left out", "annotation 3 of 7.jpg")."""
        self.notes[what].append(where)

    def __str__(self) -> str:
        lines = [f"{self.num_images} images, {self.num_boxes} boxes"]
        for what, where in self.notes.items():
            more = f" and {len(where) - NOTES_SHOWN} more" if len(where) > NOTES_SHOWN else ""
            lines.append(f"{what}: {len(where)} ({'; '.join(where[:NOTES_SHOWN])}{more})")
        return "\n".join(lines)


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


def decode(serialized: tf.Tensor, regenerate_source_id: bool = False) -> Sample:
    """A serialized record as tensors; TensorFlow operations only, so it runs inside tf.data.

    What a record lacks is filled in: height and width from the image, no crowds, area from the box, which also
    replaces an area in (0, 1]. An absent or empty source_id becomes a 63-bit fingerprint of the encoded image, as a
    decimal string.

    Args:
        serialized: [] string, a tf.train.Example.
        regenerate_source_id: takes the fingerprint even where the record has a source_id.

    Raises:
        tf.errors.InvalidArgumentError: if the record has no image, or its columns differ in length.
    """
    parsed = tf.io.parse_single_example(serialized, DECODED_FEATURES)
    encoded, source_id = parsed["image/encoded"], parsed["image/source_id"]
    fingerprint = tf.strings.as_string(tf.strings.to_hash_bucket_fast(encoded, 2**63 - 1))
    source_id = fingerprint if regenerate_source_id else tf.where(tf.equal(source_id, ""), fingerprint, source_id)

    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image = tf.ensure_shape(image, [None, None, 3])
    height = tf.cast(parsed["image/height"], tf.int32)
    width = tf.cast(parsed["image/width"], tf.int32)
    height = tf.where(height < 0, tf.shape(image)[0], height)
    width = tf.where(width < 0, tf.shape(image)[1], width)
    sides = [parsed[f"image/object/bbox/{side}"] for side in ("ymin", "xmin", "ymax", "xmax")]
    classes, is_crowd, area = (parsed[f"image/object/{name}"] for name in ("class/label", "is_crowd", "area"))
    with tf.control_dependencies(_check_lengths([*sides, classes], [is_crowd, area], source_id)):
        boxes_norm = tf.stack(sides, axis=-1)
    size = (boxes_norm[:, 2:] - boxes_norm[:, :2]) * tf.cast([height, width], tf.float32)  # pixels
    box_area = size[:, 0] * size[:, 1]
    area = _or_default(area, box_area)
    # Published Pascal VOC records store fractions of the image, which would make every object a small one. An area
    # that really is 1 pixel or less has a box of about that size, so it loses nothing.
    area = tf.where((area > 0) & (area <= 1), box_area, area)
    no_crowds = tf.zeros([tf.shape(boxes_norm)[0]], tf.int64)
    return {
        "image": image,
        "boxes_norm": boxes_norm,
        "classes": tf.cast(classes, tf.int32),
        "is_crowd": tf.cast(_or_default(is_crowd, no_crowds), tf.bool),
        "area": area,
        "source_id": source_id,
        "height": height,
        "width": width,
    }


def _or_default(column: tf.Tensor, default: tf.Tensor) -> tf.Tensor:
    return tf.cond(tf.size(column) > 0, lambda: column, lambda: default)


def _check_lengths(columns: list[tf.Tensor], optional: list[tf.Tensor], source_id: tf.Tensor) -> list:
    """What to depend on. Without them a short column would fail later, where nothing names the record."""
    lengths = tf.stack([tf.size(column) for column in columns])
    optional_lengths = tf.stack([tf.size(column) for column in optional])
    equal = tf.reduce_all(lengths == lengths[0])
    fits = tf.reduce_all((optional_lengths == lengths[0]) | (optional_lengths == 0))
    text = "ymin, xmin, ymax, xmax, label, is_crowd and area must have one value a box; record"
    return [tf.debugging.Assert(equal & fits, [text, source_id, "has", lengths, optional_lengths], summarize=5)]


class ShardWriter:
    """Writes records to `{prefix}-00000-of-{num_shards:05d}.tfrecord` and on; record i goes to shard i mod num_shards.

    A context manager. The shards grow in a hidden folder beside their place, under names that `{prefix}*` does not
    match, and move there only when the block ends without an error: what stands there is whole.

    Args:
        prefix: path that the shard names begin with; its folder is made.
        num_shards: how many, from 1. Shards are written even where there are fewer records.

    Raises:
        DataError: for a bad argument, or if shards of another count stand there, which a `{prefix}*` would mix in.
    """

    def __init__(self, prefix: str | Path, num_shards: int):
        if num_shards < 1:
            raise DataError(f"num_shards must be at least 1, got {num_shards}")
        if not str(prefix) or str(prefix).endswith(os.sep):
            raise DataError(f"expected a path that shard names begin with, such as data/train, got {str(prefix)!r}")
        self.prefix = Path(prefix)
        self.num_shards = num_shards
        self.num_records = 0

    def shard_path(self, shard: int) -> Path:
        """Where shard number `shard`, from 0, will be."""
        return self.prefix.with_name(f"{self.prefix.name}-{shard:05d}-of-{self.num_shards:05d}.tfrecord")

    def __enter__(self) -> "ShardWriter":
        self.prefix.parent.mkdir(parents=True, exist_ok=True)
        own = {self.shard_path(shard).name for shard in range(self.num_shards)}
        pattern = "-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9].tfrecord"
        for path in sorted(self.prefix.parent.glob(glob.escape(self.prefix.name) + pattern)):
            if path.name not in own:
                raise DataError(
                    f"{path} is from a run with another number of shards than {self.num_shards}, and a reader of "
                    f"{self.prefix}* would mix the two; remove the old shards or choose another name"
                )
        self._folder = Path(tempfile.mkdtemp(prefix=f".unfinished-{self.prefix.name}-", dir=self.prefix.parent))
        self._writers = [tf.io.TFRecordWriter(str(self._folder / str(shard))) for shard in range(self.num_shards)]
        return self

    def write(self, serialized: bytes) -> None:
        """Adds a serialized record to the shard whose turn it is."""
        self._writers[self.num_records % self.num_shards].write(serialized)
        self.num_records += 1

    def __exit__(self, error_type, error, traceback):
        try:
            for writer in self._writers:
                writer.close()
            if error_type is None:
                for shard in range(self.num_shards):
                    os.replace(self._folder / str(shard), self.shard_path(shard))
        finally:
            shutil.rmtree(self._folder)
