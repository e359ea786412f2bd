# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Content of records, read for a check: invalid records are described instead of raising errors."""

import collections
import concurrent.futures
import dataclasses
import math
import os
import struct
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tqdm import tqdm

from dataset import tfrecord
from dataset.check import swap_evidence
from dataset.convert.truncated import JPEG_SIGNATURE, PNG_SIGNATURE
from dataset.dataloader import data_errors
from dataset.files import reason_of
from dataset.records import FRAME_BYTES, RecordFiles, find_files
from efficientdet import preprocess

MAX_SAMPLED_FILES = 32
RECORDS_AT_ONCE = 100  # held in memory
MAX_PIXEL_SEARCHES = 300  # images whose pixels are searched for evidence of swapped boxes

FIELDS = {"bytes_list": "text or bytes", "float_list": "floats", "int64_list": "whole numbers"}
FIELD_OF = {tf.string: "bytes_list", tf.float32: "float_list", tf.int64: "int64_list"}
OBJECT = "image/object/"  # prefix of the columns, which have one value per object
BOX_SIDES = tuple(f"{OBJECT}{side}" for side in tfrecord.BOX_SIDES)
LABEL, TEXT, IS_CROWD = (f"{OBJECT}{name}" for name in ("class/label", "class/text", "is_crowd"))
REQUIRED = (*BOX_SIDES, LABEL)  # for every object
USED_FEATURES = {
    **tfrecord.DECODED_FEATURES,
    "image/filename": tf.io.FixedLenFeature([], tf.string),
    TEXT: tf.io.VarLenFeature(tf.string),
}

NOT_DECODABLE = "hold an image that does not decode"
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


@dataclasses.dataclass
class Facts:
    """Content of the records of a file pattern: I readable records with K objects in total."""

    files: list[str]  # that match the pattern
    complete: bool  # True if all their records were read
    damage: list[str]  # file, number and reason of each record that cannot be read from its file
    lost_share: float  # damaged share of all bytes or, in a sample, of the records
    faulty: list[RecordFacts]
    records: list[RecordFacts]  # without faults

    def __post_init__(self):
        columns = [RecordFacts(""), *self.records]  # at least one, as np.concatenate needs
        self.boxes = np.concatenate([record.boxes for record in columns])  # [K, 4]
        self.classes = np.concatenate([record.classes for record in columns])  # [K]
        self.is_crowd = np.concatenate([record.is_crowd for record in columns])  # [K]
        self.gains = np.concatenate([record.gains for record in columns])  # [K, 3]
        self.counts = np.array([len(record.boxes) for record in self.records], int)  # [I], objects per image
        self.image_index = np.repeat(np.arange(len(self.records)), self.counts)  # [K], index into records
        self.sizes = np.array([record.size for record in self.records], int).reshape(-1, 2)  # [I, 2], as in RecordFacts
        self.num_records = len(self.records) + len(self.faulty)
        # Number of boxes by (class id, name).
        pairs = (pair for record in self.records for pair in zip(record.classes.tolist(), record.names))
        self.names = collections.Counter((class_id, name) for class_id, name in pairs if name)
        # [K] bool: boxes that are finite, not empty and at least partly inside the image.
        mins, maxs = self.boxes[:, :2], self.boxes[:, 2:]
        self.usable = np.isfinite(self.boxes).all(1) & ((maxs > mins) & (maxs > 0) & (mins < 1)).all(1)

    def network_boxes(self, image_size: tuple[int, int], keep_aspect_ratio: bool) -> np.ndarray:
        """[K, 4] in pixels of the network input of evaluation, clipped to the image."""
        sizes, image = np.unique(self.sizes, axis=0, return_inverse=True)
        scaled = [preprocess.fit(size, image_size, keep_aspect_ratio=keep_aspect_ratio)[0].numpy() for size in sizes]
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

    Raises:
        DataError: if no file matches, or a file cannot be read.
    """
    files = find_files(file_pattern)
    chosen, per_file = files, -1
    if samples is not None:
        indices = np.linspace(0, len(files) - 1, min(samples, len(files), MAX_SAMPLED_FILES)).astype(int)
        chosen = [files[i] for i in indices]
        per_file = math.ceil(samples / len(chosen))
    source, records, num_bytes = RecordFiles(chosen, max_damaged=None), [], 0

    def facts_of(position: np.ndarray, serialized: bytes) -> RecordFacts:
        where = f"{os.path.basename(chosen[position[0]])} record {position[1]}"
        try:
            return _facts_of(where, _parse(serialized), decode_images, regenerate_source_id, search_pixels)
        except _Fault as fault:
            return RecordFacts(where, *fault.args)

    dataset = tf.data.Dataset.range(len(chosen)).flat_map(lambda index: source.read(index).take(per_file))
    with (
        data_errors(),
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(desc="reading", unit="record", **({} if progress else {"disable": True})) as bar,
    ):
        for positions, batch in dataset.batch(RECORDS_AT_ONCE).as_numpy_iterator():
            search_pixels = decode_images and len(records) < MAX_PIXEL_SEARCHES
            records += pool.map(facts_of, positions, batch)
            num_bytes += sum(len(serialized) + FRAME_BYTES for serialized in batch)
            bar.update(len(batch))
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


def _parse(serialized: bytes) -> dict[str, list]:
    """Returns the values of all features of a record, after checking the types of those that are used."""
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except DecodeError as error:
        raise _Fault("hold no tf.train.Example", str(error)) from error
    fields = {name: feature.WhichOneof("kind") for name, feature in features.items()}
    values = {name: list(getattr(features[name], field).value) if field else [] for name, field in fields.items()}
    if not any(values.get("image/encoded", [])):
        raise _Fault("hold no image in image/encoded", f"features: {', '.join(sorted(fields)[:5])}")
    for name, feature in USED_FEATURES.items():
        expected, field, length = FIELD_OF[feature.dtype], fields.get(name), len(values.setdefault(name, []))
        if field not in (None, expected):
            raise _Fault("hold a feature of the wrong type", f"{name} has {FIELDS[field]}, expected {FIELDS[expected]}")
        if isinstance(feature, tf.io.FixedLenFeature) and length > 1:
            raise _Fault("hold a list where one value is expected", f"{length} values in {name}")
    return values


def _facts_of(
    where: str, values: dict[str, list], decode_images: bool, regenerate_source_id: bool, search_pixels: bool
) -> RecordFacts:
    """Returns the content of a record; see `read` for the arguments."""
    unread = _check_lengths(values)
    [encoded] = values["image/encoded"]
    image, size = _decode(encoded, decode_images)
    boxes = np.array([values[side] for side in BOX_SIDES], np.float64).T
    source_id, filename = (
        b"".join(values[name]).decode("utf-8", "replace") for name in ("image/source_id", "image/filename")
    )
    has_source_id = bool(source_id)
    if regenerate_source_id or not has_source_id:
        source_id = tfrecord.fingerprint(encoded).numpy().decode()
    stored_size = (*values["image/height"], *values["image/width"])
    has_names = len(values[TEXT]) == len(boxes)
    return RecordFacts(
        where,
        unread=unread,
        source_id=source_id,
        has_source_id=has_source_id,
        filename=filename,
        # The reader takes a negative or absent size from the image.
        stored_size=stored_size if len(stored_size) == 2 and min(stored_size) >= 0 else None,
        size=size,
        boxes=boxes,
        classes=np.array(values[LABEL], np.int64),
        names=tuple(name.decode("utf-8", "replace") for name in values[TEXT]) if has_names else (),
        is_crowd=np.array(values[IS_CROWD] or [False] * len(boxes), bool),
        gains=swap_evidence.gains(image, boxes) if search_pixels else np.full([len(boxes), 3], np.nan),
    )


def _check_lengths(values: dict[str, list]) -> str:
    """Checks the lengths of the columns that training reads; returns the wrong ones of the other columns."""
    num_boxes, wrong = len(values[BOX_SIDES[0]]), {True: [], False: []}  # by whether training reads the column
    for name, column in sorted(values.items()):
        if name.startswith(OBJECT) and len(column) != num_boxes and (column or name in REQUIRED):
            wrong[name in tfrecord.DECODED_FEATURES].append(f"{len(column)} {name.removeprefix(OBJECT)}")
    if wrong[True]:
        raise _Fault("have columns that differ in length", f"{num_boxes} bbox/ymin, {', '.join(wrong[True])}")
    return ", ".join(wrong[False])


def _decode(encoded: bytes, decode_images: bool) -> tuple[np.ndarray | None, tuple[int, int]]:
    """Returns an image and its (height, width), which is read from the header unless images are decoded.

    Pillow is not used: it reads more than the header of a PNG file, and rejects files with large texts or profiles that
    TensorFlow decodes.
    """
    image = None
    try:
        if not decode_images and encoded.startswith(JPEG_SIGNATURE):
            height, width, _ = tf.io.extract_jpeg_shape(encoded).numpy().tolist()
        elif not decode_images and encoded.startswith(PNG_SIGNATURE):
            width, height = PNG_SIZE.unpack_from(encoded)
        else:  # also for GIF and BMP, which are rare
            image = tfrecord.decode_image(encoded).numpy()
            height, width, _ = image.shape
    except (tf.errors.OpError, struct.error) as error:
        raise _Fault(NOT_DECODABLE, reason_of(error)) from error
    if height < 1 or width < 1:
        raise _Fault(NOT_DECODABLE, f"its header states {width}x{height}")
    return image, (height, width)
