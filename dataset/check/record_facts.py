# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads records to check them: whatever is in them is a fact, and nothing stops the reading."""

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
from dataset.dataloader import plain_errors
from dataset.files import reason_of
from dataset.records import FRAME_BYTES, RecordFiles, find_files
from efficientdet import preprocess

FILES_SAMPLED = 32  # opened at most where only some records are read
RECORDS_AT_ONCE = 128  # in memory, encoded
MAX_GAINS = 300  # images whose pixels are searched for swapped boxes

FIELDS = {"bytes_list": "text or bytes", "float_list": "floats", "int64_list": "whole numbers"}
FIELD_OF = {tf.string: "bytes_list", tf.float32: "float_list", tf.int64: "int64_list"}
BOX_SIDES = tuple(f"image/object/{side}" for side in tfrecord.BOX_SIDES)
LABEL = "image/object/class/label"
READ_BY_TRAINING = (*BOX_SIDES, LABEL, "image/object/is_crowd", "image/object/area")

JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
PNG_SIZE = struct.Struct(">16x2I")  # width and height; signature, length and name of the chunk IHDR before them


class RecordFacts(NamedTuple):
    """One record with K objects, as it stands in the file."""

    where: str  # file and number of the record, from 0
    fault: str = ""  # why no reader can use it, the same for all of a kind; then the rest is empty
    detail: str = ""  # of the fault
    unread: str = ""  # columns of another length than the boxes that training does not read
    source_id: str = ""  # as the input pipeline sees it
    has_source_id: bool = True
    filename: str = ""
    stored_size: tuple[int, int] | None = None  # image/height and image/width
    size: tuple[int, int] = (1, 1)  # (height, width) of the image itself, pixels
    boxes: np.ndarray = np.empty([0, 4])  # [K, 4] float64; [ymin, xmin, ymax, xmax] in [0, 1] if all is well
    classes: np.ndarray = np.empty([0], np.int64)  # [K]
    names: tuple[str, ...] = ()  # K, or none
    is_crowd: np.ndarray = np.empty([0], bool)  # [K]
    gains: np.ndarray = np.empty([0, 3])  # [K, 3], see swap_evidence.gains


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the records of a file pattern hold. I readable records with K objects altogether."""

    files: list[str]  # that match
    complete: bool  # whether all their records are known to have been read
    damage: list[str]  # file, record and reason of every record that cannot be read from its file
    lost_share: float  # of all bytes; of all records, where only some were read
    faulty: list[RecordFacts]
    records: list[RecordFacts]  # without fault

    @property
    def num_records(self) -> int:
        """All that were read, faulty ones too."""
        return len(self.records) + len(self.faulty)

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """[I, 2], (height, width) of the images in pixels."""
        return np.array([record.size for record in self.records], np.int64).reshape(-1, 2)

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """[I], objects an image."""
        return np.array([len(record.boxes) for record in self.records], np.int64)

    @functools.cached_property
    def image_index(self) -> np.ndarray:
        """[K], the record of every object."""
        return np.repeat(np.arange(len(self.records)), self.counts)

    @functools.cached_property
    def boxes(self) -> np.ndarray:
        """[K, 4] as stored."""
        return np.concatenate([np.empty([0, 4]), *(record.boxes for record in self.records)])

    @functools.cached_property
    def classes(self) -> np.ndarray:
        """[K] as stored."""
        return np.concatenate([np.empty([0], np.int64), *(record.classes for record in self.records)])

    @functools.cached_property
    def is_crowd(self) -> np.ndarray:
        """[K] bool."""
        return np.concatenate([np.empty([0], bool), *(record.is_crowd for record in self.records)])

    @functools.cached_property
    def gains(self) -> np.ndarray:
        """[K, 3], see swap_evidence.gains; NaN where pixels were not looked at."""
        return np.concatenate([np.empty([0, 3]), *(record.gains for record in self.records)])

    @functools.cached_property
    def names(self) -> collections.Counter[tuple[int, str]]:
        """How many boxes have a class id and a name, for all pairs of the two that occur."""
        return collections.Counter(
            (class_id, name)
            for record in self.records
            for class_id, name in zip(record.classes.tolist(), record.names)
            if name
        )

    @functools.cached_property
    def usable(self) -> np.ndarray:
        """[K] bool: finite, not empty, and with a part inside the image."""
        with np.errstate(invalid="ignore"):
            return (
                np.isfinite(self.boxes).all(1)
                & (self.boxes[:, 2:] > self.boxes[:, :2]).all(1)
                & (self.boxes[:, 2:] > 0).all(1)
                & (self.boxes[:, :2] < 1).all(1)
            )

    def network_boxes(self, image_size: tuple[int, int]) -> np.ndarray:
        """[K, 4] in pixels of the network input as evaluation makes it, cut at the border of the image."""
        sizes, image = np.unique(self.sizes, axis=0, return_inverse=True)
        scaled = [preprocess.scaled_size(size, preprocess.fit_scale(size, image_size)).numpy() for size in sizes]
        scaled = np.reshape(scaled, [-1, 2])[image.reshape(-1)][self.image_index]
        return np.clip(self.boxes, 0, 1) * np.tile(scaled, 2)


class _Fault(Exception):
    """A record that no reader can use: (what is wrong, details)."""


def read(
    file_pattern: str,
    *,
    samples: int | None = None,
    decode_images: bool = True,
    regenerate_source_id: bool = False,
    progress: bool = False,
) -> Facts:
    """Reads the records that match.

    Args:
        file_pattern: glob.
        samples: about how many to read: the first records of each of up to 32 files; None for all.
        decode_images: whether images are decoded; otherwise only their headers are read.
        regenerate_source_id: as in the Config.
        progress: whether a bar is shown.

    Raises:
        DataError: if no file matches, or one cannot be read.
    """
    files = find_files(file_pattern)
    chosen, per_file = files, -1
    if samples is not None:
        places = np.linspace(0, len(files) - 1, min(samples, len(files), FILES_SAMPLED))
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
            records += pool.map(lambda item: facts_of(*item[1], search_pixels=item[0] < MAX_GAINS, **options), some)
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
    """(where, content) of the records of all files, of each at most per_file, or all for -1."""
    files = tf.data.Dataset.range(len(source.files))
    records = files.flat_map(lambda index: source.read(index).take(per_file))
    with plain_errors():
        for (index, number), serialized in records.as_numpy_iterator():
            yield f"{os.path.basename(source.files[index])} record {number}", serialized


def facts_of(
    where: str, serialized: bytes, *, decode_images: bool, regenerate_source_id: bool, search_pixels: bool
) -> RecordFacts:
    """The facts of one serialized record; see `read` for the arguments."""
    try:
        return _facts_of(where, serialized, decode_images, regenerate_source_id, search_pixels)
    except _Fault as fault:
        return RecordFacts(where, *fault.args)


def _facts_of(where, serialized, decode_images, regenerate_source_id, search_pixels) -> RecordFacts:
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except DecodeError as error:
        raise _Fault("hold no tf.train.Example", str(error)) from error
    encoded = _one(features, "image/encoded", "bytes_list")
    if not encoded:
        raise _Fault("hold no image in image/encoded", f"features: {', '.join(sorted(features)[:5])}")
    for name, column in tfrecord.DECODED_FEATURES.items():
        _values(features, name, FIELD_OF[column.dtype])
    sides = [_values(features, name, "float_list") for name in BOX_SIDES]
    classes = _values(features, LABEL, "int64_list")
    is_crowd = _values(features, "image/object/is_crowd", "int64_list")
    unread = _check_lengths(features, len(sides[0]))
    names = [] if "class/text" in unread else _values(features, "image/object/class/text", "bytes_list")
    boxes = np.array(sides, np.float64).T.reshape(-1, 4)
    image, size = _image(encoded) if decode_images else (None, _header(encoded))
    stored_size = tuple(_one(features, f"image/{side}", "int64_list") for side in ("height", "width"))
    source_id = (_one(features, "image/source_id", "bytes_list") or b"").decode("utf-8", "replace")
    has_source_id = bool(source_id)
    if regenerate_source_id or not has_source_id:
        source_id = tfrecord.fingerprint(encoded).numpy().decode()
    return RecordFacts(
        where,
        unread=unread,
        source_id=source_id,
        has_source_id=has_source_id,
        filename=(_one(features, "image/filename", "bytes_list") or b"").decode("utf-8", "replace"),
        # Negative or absent: the reader takes them from the image.
        stored_size=None if any(side is None or side < 0 for side in stored_size) else stored_size,
        size=size,
        boxes=boxes,
        classes=np.array(classes, np.int64),
        names=tuple(name.decode("utf-8", "replace") for name in names),
        is_crowd=np.array(is_crowd, bool) if is_crowd else np.zeros(len(boxes), bool),
        gains=np.full([len(boxes), 3], np.nan)
        if image is None or not search_pixels
        else swap_evidence.gains(image, boxes),
    )


def _values(features, name: str, field: str) -> list:
    """The values of a feature, none where it is absent."""
    feature = features.get(name)
    found = feature.WhichOneof("kind") if feature else None
    if found not in (None, field):
        raise _Fault("hold a feature of the wrong type", f"{name} has {FIELDS[found]}, expected {FIELDS[field]}")
    return list(getattr(feature, field).value) if found else []


def _one(features, name: str, field: str):
    """The value of a feature that has one or none."""
    values = _values(features, name, field)
    if len(values) > 1:
        raise _Fault("hold a list where one value is expected", f"{len(values)} values in {name}")
    return values[0] if values else None


def _check_lengths(features, num_boxes: int) -> str:
    """Names the columns that training does not read and that have another length; raises for those that it reads."""
    unread, wrong = [], []
    for name in sorted(name for name in features if name.startswith("image/object/")):
        feature = features[name]
        length = len(getattr(feature, feature.WhichOneof("kind") or "int64_list").value)
        needed = name in BOX_SIDES or name == LABEL
        if length != num_boxes and (length or needed):
            (wrong if name in READ_BY_TRAINING else unread).append(f"{length} {name.removeprefix('image/object/')}")
    if num_boxes:
        wrong += [f"0 {name.removeprefix('image/object/')}" for name in (*BOX_SIDES, LABEL) if name not in features]
    if wrong:
        raise _Fault("have columns that differ in length", f"{num_boxes} bbox/ymin, {', '.join(wrong)}")
    return ", ".join(unread)


def _image(encoded: bytes) -> tuple[np.ndarray, tuple[int, int]]:
    try:
        image = tfrecord.decode_image(encoded).numpy()
    except tf.errors.OpError as error:
        raise _Fault("hold an image that does not decode", reason_of(error)) from error
    return image, image.shape[:2]


def _header(encoded: bytes) -> tuple[int, int]:
    """(height, width) of an image that is not decoded.

    Pillow reads more than the header of a PNG, and refuses files for their texts or profiles that TensorFlow decodes.
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
        raise _Fault("hold an image that does not decode", "expected JPEG, PNG, GIF or BMP") from error
    except tf.errors.OpError as error:
        raise _Fault("hold an image that does not decode", reason_of(error)) from error
    except Exception as error:  # whatever Pillow raises over bytes that are no image
        raise _Fault("hold an image that does not decode", str(error)) from error
    if height < 1 or width < 1:
        raise _Fault("hold an image that does not decode", f"its header says {width}x{height}")
    return height, width
