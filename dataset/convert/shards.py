# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""TFRecord shards of annotated images: read in parallel, written atomically, with a report."""

import collections
import contextlib
import functools
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from fnmatch import fnmatch
from typing import Any

import numpy as np
import tensorflow as tf
import yaml
from tqdm import tqdm

from dataset import label_map, tfrecord
from dataset.convert import box_frame, image_file
from dataset.convert.annotation import (
    CORNERS_HINT,
    CROWDS,
    CROWDS_HINT,
    HEAVILY_CLIPPED,
    MAX_CLIPPED,
    MAX_CROWDS,
    MIN_CLIPPED,
    Source,
    to_record,
)
from dataset.convert.box_frame import BoxFrames, Evidence, Frames
from dataset.convert.conversion_report import ConversionReport, Reason
from dataset.convert.image_file import ImageError
from dataset.files import check_folder, folder_of, read_file, reason_of, staging_folder, write_file
from dataset.tfrecord import DataError, Record

READ_AHEAD = 4  # results per thread that may wait for a slower image before them


@contextlib.contextmanager
def open_shards(prefix: str | os.PathLike, num_shards: int) -> Iterator[Callable[[bytes], None]]:
    """Yields a function that appends a serialized record to `{prefix}-{shard:05d}-of-{num_shards:05d}.tfrecord`.

    Record i goes to shard i mod num_shards. Shards are written to a hidden folder, see `files.staging_folder`, and are
    moved to their final names only if the block ends without an error.

    Args:
        prefix: local or remote path prefix of the shard names; the folder is created.
        num_shards: from 1; all shards are created, even for fewer records.

    Raises:
        DataError: for an invalid argument, if shards of the same prefix but another number exist, or if a shard cannot
            be opened.
        TargetError: if the folder cannot be written to, or another process is writing to the same prefix.
        tf.errors.OpError: if a shard cannot be written.
    """
    if num_shards < 1:
        raise DataError(f"num_shards must be at least 1, got {num_shards}")
    prefix = os.fspath(prefix)
    if not prefix or prefix.endswith(os.sep):
        raise DataError(f"expected a path prefix of shard names, such as data/train, got {prefix!r}")
    check_folder(folder_of(prefix))
    folder, name = os.path.split(prefix)
    names = [f"{name}-{shard:05d}-of-{num_shards:05d}.tfrecord" for shard in range(num_shards)]
    shard_name = re.compile(re.escape(name) + r"-\d{5}-of-\d{5}\.tfrecord", re.ASCII)
    for file in sorted(tf.io.gfile.listdir(folder or ".")):
        if shard_name.fullmatch(file) and file not in names:  # `{prefix}*` would match it too
            raise DataError(
                f"{os.path.join(folder, file)} belongs to a run with another number of shards than {num_shards}, and a "
                f"reader of {prefix}* would read both; remove the old shards, or choose another name"
            )
    with staging_folder(prefix) as folder, contextlib.ExitStack() as stack:
        writers = []
        try:
            for name in names:
                writers.append(stack.enter_context(tf.io.TFRecordWriter(os.path.join(folder, name))))
        except tf.errors.OpError as error:
            raise DataError(
                f"cannot open shard {len(writers)} of {num_shards}: {reason_of(error)}; all shards "
                "are open at the same time: lower num_shards, or raise `ulimit -n` if too many files are open"
            ) from error
        rotation = itertools.cycle(writers)
        yield lambda serialized: next(rotation).write(serialized)


def companion_path(prefix: str | os.PathLike, kind: str, suffix: str = ".json") -> str:
    """Returns `{folder}/{kind}_{name}{suffix}`, with a leading underscore if `{name}*` would match that name.

    >>> companion_path("records/train", "label_map", ".yaml")
    'records/label_map_train.yaml'
    """
    folder, prefix_name = os.path.split(prefix)
    name = f"{kind}_{prefix_name}{suffix}"
    return os.path.join(folder, f"_{name}" if name.startswith(prefix_name) else name)


def write_label_map(
    prefix: str | os.PathLike, names: Mapping[int, str], original_ids: Mapping[int, int] | None = None
) -> str:
    """Writes {id: name} to `label_map_{name}.yaml`, a value of the config key `label_map`; returns the path.

    The ids that renumbered classes have in the source are listed in comments.
    """
    path = companion_path(prefix, "label_map", ".yaml")
    comments = [
        f"# {class_id} has the id {original} in the source\n" for class_id, original in (original_ids or {}).items()
    ]
    write_file(path, "".join(comments) + yaml.safe_dump(dict(names), allow_unicode=True))
    return path


def check_label_maps(prefix: str | os.PathLike, names: Mapping[int, str]) -> None:
    """Checks that renumbered classes have the ids of other label maps in the folder, such as that of the training set.

    Raises:
        DataError: if a class of the same name has another id there.
    """
    own = companion_path(prefix, "label_map", ".yaml")
    ids = {name: class_id for class_id, name in names.items()}
    for path in _other_label_maps(own):
        for class_id, name in _read_label_map(path).items():
            if ids.get(name, class_id) != class_id:
                raise DataError(
                    f"{name!r} would get the id {ids[name]}, but has {class_id} in {path}: list the same categories in "
                    f"the JSON files of all splits, or write another dataset to another folder"
                )


def _other_label_maps(path: str) -> list[str]:
    """Returns the label maps of other datasets in the folder of a label map, which may not exist yet."""
    folder, name = os.path.split(path)
    names = tf.io.gfile.listdir(folder or ".") if tf.io.gfile.isdir(folder or ".") else []
    return [
        os.path.join(folder, other) for other in sorted(names) if other != name and fnmatch(other, "*label_map_*.yaml")
    ]


def _read_label_map(path: str) -> dict[int, str]:
    """Returns the names of a local or remote label map; none if the file is not a label map."""
    try:
        content = yaml.safe_load(read_file(path))
        return label_map.resolve(content) if isinstance(content, Mapping) else {}
    except (tf.errors.OpError, yaml.YAMLError, ValueError):
        return {}


def write_shards(
    source: Source,
    prefix: str | os.PathLike,
    *,
    num_shards: int,
    num_threads: int | None = None,
    max_bad_fraction: float = 0.01,
    max_image_pixels: int = image_file.MAX_IMAGE_PIXELS,
    include_masks: bool = False,
) -> ConversionReport:
    """Writes shards, `report_{name}.json` and, if the source asks for it, COCO groundtruth `json_{name}.json`.

    The result does not depend on the number of threads.

    Args:
        source: dataset to convert.
        prefix: local or remote path prefix of the shard names.
        num_shards: number of TFRecord files, from 1.
        num_threads: images read concurrently; None for the number of CPU cores.
        max_bad_fraction: largest fraction of images, and of boxes, that may be left out; see also `find_excess`.
        max_image_pixels: larger images are left out.
        include_masks: writes instance masks too.

    Raises:
        DataError: if no image can be written, too many images or boxes are left out, too many boxes are clipped, or
            the source finds an error; only the report is written then. Also see `decide_box_frames`.
    """
    report, groundtruth = ConversionReport(), _empty_groundtruth(source)
    report.extend(source.report)
    num_threads = num_threads or os.cpu_count()
    with open_shards(prefix, num_shards) as write:
        box_frames = decide_box_frames(source, num_threads, max_bad_fraction)
        options = {"include_masks": include_masks, "box_frames": box_frames}
        convert = functools.partial(_convert_image, source, max_image_pixels, options)
        with contextlib.closing(_map_in_order(convert, source.items, num_threads)) as results:
            for record, serialized, image_report in tqdm(
                results, total=len(source.items), desc=os.path.basename(prefix), unit="image"
            ):
                report.extend(image_report)
                if record is not None:
                    write(serialized)
                    if source.write_groundtruth:
                        _add_to_groundtruth(groundtruth, record)
        for similar in label_map.show_similar(source.label_map, report.boxes_per_class):
            report.note(f"{label_map.SIMILAR_NAMES}; {label_map.SIMILAR_NAMES_ADVICE}", similar)
        # Written before the shards are moved, so that complete shards are never without these files.
        write_file(companion_path(prefix, "report"), json.dumps(report.to_json()))
        if error := source.find_error(report.boxes_per_class, report) or find_excess(report, max_bad_fraction):
            raise DataError(f"{error}; the full report is {companion_path(prefix, 'report')}")
        if source.write_groundtruth:
            write_file(companion_path(prefix, "json"), json.dumps(groundtruth))
    return report


def decide_box_frames(source: Source, num_threads: int, max_bad_fraction: float) -> BoxFrames:
    """Decides from all images of a dataset which frame the boxes of images with EXIF orientation refer to.

    A wrong decision would misplace every box of these images without any other sign. Therefore, too many images without
    evidence are an error, which --exif_boxes resolves; a few are converted, and counted.

    Raises:
        DataError: if more than max_bad_fraction of the images have EXIF orientation and boxes, but no evidence.
    """
    evidence: dict[str | None, Evidence] = collections.defaultdict(Evidence)
    if source.exif_boxes == box_frame.AUTO:
        find = functools.partial(_find_evidence, source)
        with contextlib.closing(_map_in_order(find, source.items, num_threads)) as results:
            for found in tqdm(results, total=len(source.items), desc="EXIF orientation", unit="image"):
                if found:
                    size_frame, name, fits = found
                    evidence[size_frame].names.append(name)
                    evidence[size_frame].fits.update(fits)
    box_frames = box_frame.decide(evidence, source.exif_boxes)
    names, fits = box_frame.find_undecided(evidence, box_frames)
    if len(names) > max_bad_fraction * len(source.items):
        shown = ", ".join(f"{fits[frame]} only in the {frame} image" for frame in (box_frame.UPRIGHT, box_frame.STORED))
        raise DataError(
            f"{len(names)} of {len(source.items)} images ({names[0]}, ...) are turned by EXIF orientation, and it is "
            f"unclear whether their boxes refer to the upright image or to the stored pixels (boxes that fit in one "
            f"only: {shown}); give --exif_boxes=upright, as most annotation tools, or --exif_boxes=stored"
        )
    return box_frames


def _find_evidence(source: Source, item: Any) -> tuple[str | None, str, list[str]] | None:
    """Returns (frame of the annotated size, file name, frames that boxes show) of an image with EXIF orientation."""
    try:
        stored, orientation = image_file.read_header(source.find_image(item)[1])
        annotation = source.read(item, ConversionReport()) if orientation != 1 else None
    except ImageError:  # is reported by the conversion
        return None
    if not (annotation and annotation.objects):
        return None
    frames = Frames(stored, stored[::-1] if orientation >= 5 else stored)
    if not frames.include(annotation.size):  # is left out
        return None
    shown = [frames.of_mask(item.segmentation) for item in annotation.objects]
    if not annotation.normalized:
        shown += [frames.of_box(item.box) for item in annotation.objects]
    return frames.of_size(annotation.size), annotation.filename, [frame for frame in shown if frame]


def _convert_image(
    source: Source, max_pixels: int, options: Mapping[str, Any], item: Any
) -> tuple[Record | None, bytes, ConversionReport]:
    report = ConversionReport()
    try:
        annotation = source.read(item, report)
        image = image_file.read(annotation.image_path, max_pixels)
        record = to_record(annotation, image, report, **options)
    except ImageError as error:
        report = ConversionReport()  # without notes on the boxes of the image
        report.leave_out("images", error.reason, str(error))
        return None, b"", report
    report.written.update(images=1, boxes=len(record.boxes_norm))
    report.boxes_per_class.update(record.classes)
    report.without_boxes = int(bool(source.label_map) and not len(record.boxes_norm))
    return record, tfrecord.encode(record), report


def find_excess(report: ConversionReport, max_bad_fraction: float) -> str | None:
    """Returns an error message if too much of the data is left out or clipped, else None.

    That is: no image is written, more than max_bad_fraction of the images or boxes are left out, or more than
    max(MAX_CLIPPED, max_bad_fraction) of the boxes are heavily clipped.
    """
    if not report.written["images"]:
        return f"no image can be written{report.show_main_reasons('images')}"
    for kind, written in report.written.items():
        bad = report.left_out[kind].total()
        if bad > max_bad_fraction * (bad + written):
            share = f"{bad} of {bad + written}, above max_bad_fraction={max_bad_fraction}"
            return f"too many {kind} left out: {share}{report.show_main_reasons(kind)}"
    clipped, boxes = report.reasons.get(HEAVILY_CLIPPED, Reason()), report.written["boxes"]
    if clipped.count >= MIN_CLIPPED and clipped.count > max(MAX_CLIPPED, max_bad_fraction) * boxes:
        share = f"{clipped.count} of {boxes} boxes lose more than a third of their area ({clipped.first[0]}, ...)"
        return f"too many boxes clipped: {share}: {CORNERS_HINT} If they are correct, raise max_bad_fraction"
    return None


def find_unusable(report: ConversionReport) -> str | None:
    """Returns a warning if no box is written, or more than MAX_CROWDS of them are crowds, else None."""
    crowds, boxes = report.reasons.get(CROWDS, Reason()).count, report.written["boxes"]
    if not boxes:
        return "no image has a box: nothing can be trained on these records, and AP would be -1"
    if crowds > MAX_CROWDS * boxes:
        return (
            f"{crowds} of {boxes} boxes are crowds (iscrowd: 1), which training leaves out and AP ignores; "
            f"{CROWDS_HINT}, or train with skip_crowd_during_training=false"
        )
    return None


def _empty_groundtruth(source: Source) -> dict[str, Any]:
    categories = [
        {"supercategory": "none", "id": class_id, "name": name} for class_id, name in source.label_map.items()
    ]
    for category in categories:
        if category["id"] in source.original_ids:
            category["original_id"] = source.original_ids[category["id"]]
    return {"images": [], "type": "instances", "annotations": [], "categories": categories}


def _add_to_groundtruth(groundtruth: dict[str, Any], record: Record) -> None:
    image_id, size = int(record.source_id), (record.height, record.width)
    image = {"file_name": record.filename, "height": record.height, "width": record.width, "id": image_id}
    groundtruth["images"].append(image)
    boxes = np.round(np.float64(record.boxes_norm) * [*size, *size], 3)  # pixels; float32 has no more digits
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
    """Maps in threads, a bounded number of results ahead; closing the iterator cancels pending calls."""
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
