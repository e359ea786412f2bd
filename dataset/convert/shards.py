# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Many annotated images into TFRecord shards, in parallel and whole or not at all, with a report."""

import collections
import contextlib
import glob
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
import yaml
from absl import flags
from tqdm import tqdm

from dataset import command_line, tfrecord
from dataset.convert import annotation as annotation_lib
from dataset.convert import image_file
from dataset.convert.annotation import Annotation
from dataset.convert.conversion_report import Notes, Report
from dataset.convert.image_file import ImageError
from dataset.files import reason_of, staging_folder, write_file
from dataset.tfrecord import DataError, Record

FLAGS = flags.FLAGS
READ_AHEAD = 4  # images a thread that may wait, encoded, for one that takes longer
T = TypeVar("T")


def define_flags() -> None:
    """The flags that all conversions share: arguments of `run`."""
    with command_line.group("What is taken"):
        flags.DEFINE_integer("num_threads", None, "Images read at the same time; default: one a core.", lower_bound=1)
        flags.DEFINE_float(
            "max_bad_fraction",
            0.01,
            "Share of the images, or of the boxes, that may be left out, 0 to 1; beyond it nothing is written. The "
            "same, but 0.2 at least, for boxes that lose more than a third of their area by clipping.",
            lower_bound=0,
            upper_bound=1,
        )
        flags.DEFINE_integer(
            "max_image_pixels",
            image_file.MAX_IMAGE_PIXELS,
            "Pixels of the largest image; larger ones are left out.",
            lower_bound=1,
        )


def options() -> dict[str, Any]:
    """The values of these flags, as keyword arguments of `run`."""
    return {name: getattr(FLAGS, name) for name in ("num_threads", "max_bad_fraction", "max_image_pixels")}


def hide_gpus() -> None:
    """For a script, before its first tensor: TensorFlow only decodes here, and would claim the memory of all GPUs."""
    with contextlib.suppress(RuntimeError):  # it has begun already, in the process of another program
        tf.config.set_visible_devices([], "GPU")


@contextlib.contextmanager
def plain_ending() -> Iterator[None]:
    """Around the work of a script: what TensorFlow cannot write is a DataError, and Ctrl-C tells what is left."""
    try:
        yield
    except tf.errors.OpError as error:
        raise DataError(reason_of(error)) from error
    except KeyboardInterrupt:
        print("interrupted: nothing is left of what was not finished", file=sys.stderr)
        raise


class ShardWriter:
    """Writes records to `{prefix}-00000-of-{num_shards:05d}.tfrecord` and on; record i goes to shard i mod num_shards.

    A context manager. The shards grow in the hidden folder `.unfinished-{name}` beside their place, under names that
    `{prefix}*` does not match, and move there only when the block ends without an error: what stands there is whole.
    The folder is locked as long as its run lives, and what a killed run left in it is removed by the next one.

    Args:
        prefix: path that the shard names begin with; its folder is made.
        num_shards: how many, from 1. Shards are written even where there are fewer records.

    Raises:
        DataError: for a bad argument, if shards of another count exist, which a `{prefix}*` would mix in, or if a shard
            cannot be opened.
        TargetError: if another run is writing the same shards.
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
        """Path of shard number `shard`, from 0."""
        return self.prefix.with_name(f"{self.prefix.name}-{shard:05d}-of-{self.num_shards:05d}.tfrecord")

    def __enter__(self) -> "ShardWriter":
        self.prefix.parent.mkdir(parents=True, exist_ok=True)
        self._refuse_other_counts()
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(staging_folder(str(self.prefix)))
            self._writers = []
            try:
                for shard in range(self.num_shards):
                    writer = tf.io.TFRecordWriter(os.path.join(folder, self.shard_path(shard).name))
                    stack.callback(writer.close)
                    self._writers.append(writer)
            except tf.errors.OpError as error:
                raise DataError(
                    f"cannot open shard {len(self._writers)} of {self.num_shards}: {reason_of(error)}; all shards "
                    "are open at the same time: lower num_shards, or raise `ulimit -n` if too many files are open"
                ) from error
            self._stack = stack.pop_all()
        return self

    def _refuse_other_counts(self) -> None:
        own = {self.shard_path(shard).name for shard in range(self.num_shards)}
        pattern = "-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9].tfrecord"
        for path in sorted(self.prefix.parent.glob(glob.escape(self.prefix.name) + pattern)):
            if path.name not in own:
                raise DataError(
                    f"{path} is from a run with another number of shards than {self.num_shards}, and a reader of "
                    f"{self.prefix}* would mix the two; remove the old shards or choose another name"
                )

    def write(self, serialized: bytes) -> None:
        """Appends a serialized record to the next shard in turn."""
        self._writers[self.num_records % self.num_shards].write(serialized)
        self.num_records += 1

    def __exit__(self, *error):
        return self._stack.__exit__(*error)


def beside(prefix: str | Path, kind: str, suffix: str = ".json") -> Path:
    """`{folder}/{kind}_{name}{suffix}`, with an underscore before it where `{name}*` would match that."""
    prefix = Path(prefix)
    name = f"{kind}_{prefix.name}{suffix}"
    return prefix.with_name(f"_{name}" if name.startswith(prefix.name) else name)


def write_label_map(prefix: str | Path, names: Mapping[int, str]) -> Path:
    """Writes {id: name} to `label_map_{name}.yaml` beside the shards, as the hparam `label_map` takes it.

    Returns:
        The path of the file.
    """
    path = beside(prefix, "label_map", ".yaml")
    write_file(path, yaml.safe_dump(dict(names), allow_unicode=True))
    return path


def run(
    items: Sequence[T],
    read: Callable[[T, Notes], Annotation],
    prefix: str | Path,
    *,
    num_shards: int,
    num_threads: int | None = None,
    max_bad_fraction: float = 0.01,
    max_image_pixels: int = image_file.MAX_IMAGE_PIXELS,
    include_masks: bool = False,
    groundtruth_categories: Mapping[str, int] | None = None,
    notes: Notes | None = None,
) -> Report:
    """Writes shards and `report_{name}.json`, in the order of the items and whatever the number of threads.

    Args:
        items: what `read` takes, one an image.
        read: (item, notes of this item) -> annotation, called in threads; an ImageError leaves the image out.
        prefix: path that the shard names begin with.
        num_shards: number of TFRecord files, from 1.
        num_threads: images read at the same time; None for the number of cores.
        max_bad_fraction: largest share of the images, and of the boxes, that may be left out; see also
            `Report.find_excess`.
        max_image_pixels: larger images are left out.
        include_masks: writes instance masks too.
        groundtruth_categories: {name: id}; if given, `json_{name}.json` holds the records as COCO groundtruth. The
            source ids have to be whole numbers then.
        notes: what was noted before; the report begins with it.

    Raises:
        DataError: if more has to be left out, no image remains, or many boxes lose much by clipping; the report alone
            is written then.
    """
    report = Report()
    report.add(notes or Notes())
    groundtruth = None if groundtruth_categories is None else _empty_groundtruth(groundtruth_categories)

    def convert(item: T) -> tuple[Record | None, bytes, Notes]:
        own = Notes()
        try:
            annotation = read(item, own)
            image = image_file.read(annotation.image_path, max_image_pixels)
            record = annotation_lib.to_record(annotation, image, own, include_masks)
            return record, tfrecord.encode(record), own
        except ImageError as error:
            own = Notes()  # boxes of an image that is left out do not count
            own.leave_out_image(error)
            return None, b"", own

    with ShardWriter(prefix, num_shards) as writer:
        with contextlib.closing(_map_in_order(convert, items, num_threads or os.cpu_count())) as results:
            for record, serialized, own in tqdm(results, total=len(items), desc=Path(prefix).name, unit="image"):
                report.add(own)
                if record is not None:
                    report.written["images"] += 1
                    report.written["boxes"] += len(record.boxes_norm)
                    writer.write(serialized)
                    if groundtruth is not None:
                        _add_to_groundtruth(groundtruth, record)
        # Before the shards take their place, so that all is there once they are.
        write_file(beside(prefix, "report"), json.dumps(report.to_json()))
        fault = report.find_excess(max_bad_fraction)
        if fault:
            raise DataError(f"{fault}; all of it is in {beside(prefix, 'report')}")
        if groundtruth is not None:
            write_file(beside(prefix, "json"), json.dumps(groundtruth))
    return report


def _empty_groundtruth(categories: Mapping[str, int]) -> dict[str, Any]:
    rows = [{"supercategory": "none", "id": class_id, "name": name} for name, class_id in categories.items()]
    return {"images": [], "type": "instances", "annotations": [], "categories": rows}


def _add_to_groundtruth(groundtruth: dict[str, Any], record: Record) -> None:
    image_id, size = int(record.source_id), (record.height, record.width)
    image = {"file_name": record.filename, "height": record.height, "width": record.width, "id": image_id}
    groundtruth["images"].append(image)
    boxes = np.round(np.float64(record.boxes_norm) * [*size, *size], 3)  # pixels; more digits a record does not have
    for i, (ymin, xmin, ymax, xmax) in enumerate(boxes.tolist()):
        annotation = {
            "area": round(record.area[i], 3),
            "iscrowd": record.is_crowd[i] if record.is_crowd else 0,
            "image_id": image_id,
            "bbox": [xmin, ymin, round(xmax - xmin, 3), round(ymax - ymin, 3)],
            "category_id": record.classes[i],
            "id": len(groundtruth["annotations"]) + 1,
            "ignore": 0,
            "segmentation": [],
        }
        if record.difficult and record.difficult[i]:
            annotation["difficult"] = 1
        groundtruth["annotations"].append(annotation)


def _map_in_order(function: Callable, items: Sequence, num_threads: int) -> Iterator:
    """`map` in threads, a bounded number of results ahead; closing it cancels what has not begun."""
    with futures.ThreadPoolExecutor(num_threads) as pool:
        pending = collections.deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > READ_AHEAD * num_threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
