# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Content of records, read for a check: invalid records are described instead of raising errors."""

import collections
import concurrent.futures
import dataclasses
import functools
import io
import itertools
import math
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from dataset import tfrecord
from dataset.check import swap_evidence
from dataset.dataloader import data_errors
from dataset.files import reason_of
from dataset.records import FRAME_BYTES, RecordFiles, find_files
from efficientdet import preprocess

MAX_SAMPLED_FILES = 32
RECORDS_AT_ONCE = 128  # held in memory
MAX_PIXEL_SEARCHES = 300  # images whose pixels are searched for evidence of swapped boxes

FIELDS = {"bytes_list": "text or bytes", "float_list": "floats", "int64_list": "whole numbers"}
FIELD_OF = {tf.string: "bytes_list", tf.float32: "float_list", tf.int64: "int64_list"}
BOX_SIDES = tuple(f"image/object/{side}" for side in tfrecord.BOX_SIDES)
LABEL, IS_CROWD = "image/object/class/label", "image/object/is_crowd"
REQUIRED = (*BOX_SIDES, LABEL)  # for every object
READ_IN_TRAINING = (*REQUIRED, IS_CROWD, "image/object/area")

NOT_DECODABLE = "hold an image that does not decode"
JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
PNG_SIZE = struct.Struct(">16x2I")  # width and height, after the signature and the header of the chunk IHDR


class RecordFacts(NamedTuple):
    """Content of one record with K objects, as stored."""

    where: str  # file and number of the record, from 0
    fault: str = ""  # reason why no reader can use it, equal for all records of a kind; all below is empty then
    detail: str = ""  # of the fault
    unread: str = ""  # columns that training does not read and that differ in length from the boxes
    source_id: str = ""  # as in the input pipeline
    has_source_id: bool = True
    filename: str = ""
    stored_size: tuple[int, int] | None = None  # image/height and image/width
    size: tuple[int, int] = (1, 1)  # (height, width) of the encoded image, pixels
    boxes: np.ndarray = np.empty([0, 4])  # [K, 4] float64; [ymin, xmin, ymax, xmax] in [0, 1] if valid
    classes: np.ndarray = np.empty([0], np.int64)  # [K]
    names: tuple[str, ...] = ()  # K, or none
    is_crowd: np.ndarray = np.empty([0], bool)  # [K]
    gains: np.ndarray = np.empty([0, 3])  # [K, 3], see swap_evidence.gains; NaN if the pixels were not searched


@dataclasses.dataclass(frozen=True)
class Facts:
    """Content of the records of a file pattern: I readable records with K objects in total."""

    files: list[str]  # that match the pattern
    complete: bool  # True if all their records were read
    damage: list[str]  # file, number and reason of each record that cannot be read from its file
    lost_share: float  # damaged share of all bytes or, in a sample, of the records
    faulty: list[RecordFacts]
    records: list[RecordFacts]  # without faults

    def _concatenate(self, column: str) -> np.ndarray:
        return np.concatenate([getattr(record, column) for record in (RecordFacts(""), *self.records)])

    boxes = functools.cached_property(lambda self: self._concatenate("boxes"))  # [K, 4]
    classes = functools.cached_property(lambda self: self._concatenate("classes"))  # [K]
    is_crowd = functools.cached_property(lambda self: self._concatenate("is_crowd"))  # [K]
    gains = functools.cached_property(lambda self: self._concatenate("gains"))  # [K, 3]

    @property
    def num_records(self) -> int:
        """Number of records that were read, including faulty ones."""
        return len(self.records) + len(self.faulty)

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """[I, 2], (height, width) of the images in pixels."""
        return np.array([record.size for record in self.records], np.int64).reshape(-1, 2)

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """[I], objects per image."""
        return np.array([len(record.boxes) for record in self.records], np.int64)

    @functools.cached_property
    def image_index(self) -> np.ndarray:
        """[K], index into records of each object."""
        return np.repeat(np.arange(len(self.records)), self.counts)

    @functools.cached_property
    def names(self) -> collections.Counter[tuple[int, str]]:
        """Number of boxes by (class id, name)."""
        return collections.Counter(
            (class_id, name)
            for record in self.records
            for class_id, name in zip(record.classes.tolist(), record.names)
            if name
        )

    @functools.cached_property
    def usable(self) -> np.ndarray:
        """[K] bool: boxes that are finite, not empty and at least partly inside the image."""
        mins, maxs = self.boxes[:, :2], self.boxes[:, 2:]
        return np.isfinite(self.boxes).all(1) & ((maxs > mins) & (maxs > 0) & (mins < 1)).all(1)

    def network_boxes(self, image_size: tuple[int, int]) -> np.ndarray:
        """[K, 4] in pixels of the network input of evaluation, clipped to the image."""
        sizes, image = np.unique(self.sizes, axis=0, return_inverse=True)
        scaled = [preprocess.scaled_size(size, preprocess.fit_scale(size, image_size)).numpy() for size in sizes]
        scaled = np.reshape(scaled, [-1, 2])[image.reshape(-1)][self.image_index]
        return np.clip(self.boxes, 0, 1) * np.tile(scaled, 2)


class _Fault(Exception):
    """A fault and its detail, see `RecordFacts`."""


def read(
    file_pattern: str,
    *,
    samples: int | None = None,
    decode_images: bool = True,
    regenerate_source_id: bool = False,
    progress: bool = False,
) -> Facts:
    """Reads the records of a file pattern.

    Args:
        file_pattern: glob.
        samples: approximate number of records to read, the first ones of up to 32 files; None for all.
        decode_images: False to read only the headers of the images.
        regenerate_source_id: as in the Config.
        progress: shows a progress bar.

    Raises:
        DataError: if no file matches, or a file cannot be read.
    """
    files = find_files(file_pattern)
    chosen, per_file = files, -1
    if samples is not None:
        places = np.linspace(0, len(files) - 1, min(samples, len(files), MAX_SAMPLED_FILES))
        chosen = [files[int(place)] for place in places]
        per_file = math.ceil(samples / len(chosen))
    source, records, num_bytes = RecordFiles(chosen, max_damaged=None), [], 0
    options = {"decode_images": decode_images, "regenerate_source_id": regenerate_source_id}
    stream = enumerate(_serialized(source, per_file))
    with (
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(desc="reading", unit="record", disable=not progress) as bar,
    ):
        while some := list(itertools.islice(stream, RECORDS_AT_ONCE)):
            records += pool.map(
                lambda item: facts_of(*item[1], search_pixels=item[0] < MAX_PIXEL_SEARCHES, **options), some
            )
            num_bytes += sum(len(serialized) + FRAME_BYTES for _, (_, serialized) in some)
            bar.update(len(some))
    complete = samples is None or (chosen == files and len(records) < per_file)
    if complete:
        lost_share = 1 - num_bytes / max(sum(tf.io.gfile.stat(path).length for path in chosen), 1)
    else:
        lost_share = len(source.damaged) / max(len(source.damaged) + len(records), 1)
    return Facts(
        files=files,
        complete=complete,
        damage=[f"{source.name(place)}: {reason}" for place, reason in source.damaged.items()],
        lost_share=lost_share,
        faulty=[record for record in records if record.fault],
        records=[record for record in records if not record.fault],
    )


def _serialized(source: RecordFiles, per_file: int) -> Iterator[tuple[str, bytes]]:
    """Yields (where, content) of the first per_file records of each file; -1 for all."""
    files = tf.data.Dataset.range(len(source.files))
    records = files.flat_map(lambda index: source.read(index).take(per_file))
    with data_errors():
        for (index, number), serialized in records.as_numpy_iterator():
            yield f"{os.path.basename(source.files[index])} record {number}", serialized


def facts_of(
    where: str, serialized: bytes, *, decode_images: bool, regenerate_source_id: bool, search_pixels: bool
) -> RecordFacts:
    """Returns the content of a serialized record, or its fault; see `read` for the arguments."""
    try:
        features = _parse(serialized)
        encoded = _value(features, "image/encoded", "bytes_list")
        sides = [_values(features, name, "float_list") for name in BOX_SIDES]
        is_crowd = _values(features, IS_CROWD, "int64_list")
        unread = _check_lengths(features, len(sides[0]))
        names = [] if "class/text" in unread else _values(features, "image/object/class/text", "bytes_list")
        boxes = np.array(sides, np.float64).T.reshape(-1, 4)
        image, size = _image(encoded) if decode_images else (None, _header(encoded))
        stored_size = tuple(_value(features, f"image/{side}", "int64_list") for side in ("height", "width"))
        texts = [_value(features, name, "bytes_list") or b"" for name in ("image/source_id", "image/filename")]
    except _Fault as fault:
        return RecordFacts(where, *fault.args)
    source_id, filename = (text.decode("utf-8", "replace") for text in texts)
    has_source_id = bool(source_id)
    if regenerate_source_id or not has_source_id:
        source_id = tfrecord.fingerprint(encoded).numpy().decode()
    search_pixels = search_pixels and image is not None
    return RecordFacts(
        where,
        unread=unread,
        source_id=source_id,
        has_source_id=has_source_id,
        filename=filename,
        # The reader takes a negative or absent size from the image.
        stored_size=None if any(side is None or side < 0 for side in stored_size) else stored_size,
        size=size,
        boxes=boxes,
        classes=np.array(_values(features, LABEL, "int64_list"), np.int64),
        names=tuple(name.decode("utf-8", "replace") for name in names),
        is_crowd=np.array(is_crowd, bool) if is_crowd else np.zeros(len(boxes), bool),
        gains=swap_evidence.gains(image, boxes) if search_pixels else np.full([len(boxes), 3], np.nan),
    )


def _parse(serialized: bytes):
    """Returns the features of a record, after checking the types of those that the reader reads."""
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except DecodeError as error:
        raise _Fault("hold no tf.train.Example", str(error)) from error
    if not _value(features, "image/encoded", "bytes_list"):
        raise _Fault("hold no image in image/encoded", f"features: {', '.join(sorted(features)[:5])}")
    for name, column in tfrecord.DECODED_FEATURES.items():
        _values(features, name, FIELD_OF[column.dtype])
    return features


def _values(features, name: str, field: str) -> list:
    """Returns the values of a feature; none if it is absent."""
    feature = features.get(name)
    found = feature.WhichOneof("kind") if feature else None
    if found not in (None, field):
        raise _Fault("hold a feature of the wrong type", f"{name} has {FIELDS[found]}, expected {FIELDS[field]}")
    return list(getattr(feature, field).value) if found else []


def _value(features, name: str, field: str):
    """Returns the only value of a feature; None if it is absent."""
    values = _values(features, name, field)
    if len(values) > 1:
        raise _Fault("hold a list where one value is expected", f"{len(values)} values in {name}")
    return values[0] if values else None


def _check_lengths(features, num_boxes: int) -> str:
    """Checks the lengths of the columns that training reads; returns the wrong ones of the other columns."""
    wrong = {True: [], False: []}  # by whether training reads the column
    for name in sorted({*features, *REQUIRED}):
        if name.startswith("image/object/"):
            feature = features.get(name, tf.train.Feature())
            length = len(getattr(feature, feature.WhichOneof("kind") or "int64_list").value)
            if length != num_boxes and (length or name in REQUIRED):
                wrong[name in READ_IN_TRAINING].append(f"{length} {name.removeprefix('image/object/')}")
    if wrong[True]:
        raise _Fault("have columns that differ in length", f"{num_boxes} bbox/ymin, {', '.join(wrong[True])}")
    return ", ".join(wrong[False])


def _image(encoded: bytes) -> tuple[np.ndarray, tuple[int, int]]:
    """Returns a decoded image and its (height, width)."""
    try:
        image = tfrecord.decode_image(encoded).numpy()
    except tf.errors.OpError as error:
        raise _Fault(NOT_DECODABLE, reason_of(error)) from error
    return image, image.shape[:2]


def _header(encoded: bytes) -> tuple[int, int]:
    """Returns (height, width) of an image from its header.

    Pillow is not used for PNG: it reads more than the header, and rejects files with large texts or profiles that
    TensorFlow decodes.
    """
    try:
        if encoded.startswith(JPEG_START):
            height, width, _ = tf.io.extract_jpeg_shape(encoded).numpy().tolist()
        elif encoded.startswith(PNG_START):
            width, height = PNG_SIZE.unpack_from(encoded)
        else:
            with Image.open(io.BytesIO(encoded), formats=("GIF", "BMP")) as image:
                width, height = image.size
    except UnidentifiedImageError as error:
        raise _Fault(NOT_DECODABLE, "expected JPEG, PNG, GIF or BMP") from error
    except Exception as error:  # Pillow raises errors of many types for invalid bytes
        raise _Fault(NOT_DECODABLE, reason_of(error)) from error
    if height < 1 or width < 1:
        raise _Fault(NOT_DECODABLE, f"its header states {width}x{height}")
    return height, width
