# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Records of a dataset in any known format, written once to a cache and used again while its files are unchanged.

    CACHE/records-1a2b3c4d/          the name is the start of the fingerprint of the files of the dataset
        train-00000-of-00003.tfrecord, val-*, test-*, label_map_*.yaml, report_*.json, json_val.json, json_test.json
        split_val.txt                names of the validation images, if they were held out of the training images
        data.json                    classes, numbers of images and boxes, see `PreparedData`

Files of the dataset that change later do not disturb a training, which reads the records only. Records of the same
dataset as it was before are removed as soon as no process uses them.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import logging

from dataset.convert import shards
from dataset.convert.annotation import Source
from dataset.convert.conversion_report import ConversionReport
from dataset.files import BusyError, check_folder, check_local, read_file, reason_of, remove, staging_folder, write_file
from dataset.prepare import archive, folder_listing, split
from dataset.prepare import layout as layout_lib
from dataset.prepare.layout import Layout
from dataset.prepare.prepared_data import PreparedData, PreparedSplit
from dataset.tfrecord import DataError

VERSION = 1  # of the records; to be raised when the same files are converted to other records
USED_FILE = "data_used.json"  # in a model directory
SPLIT_SEED = 0
SHARD_IMAGES, MAX_SHARDS = 100, 64
POLL = 1.0  # seconds between checks of a conversion by another process
SCRIPT_OPTIONS = ("max_bad_fraction", "--exif_boxes")  # flags of the scripts that errors of a conversion advise
SCRIPTS = "; these are flags of dataset/create_*_tfrecord.py, whose records --data takes, too"

_locks: dict[Path, int] = {}  # folders of records that this process uses, until it ends


def default_cache(model_dir: str | None) -> str:
    """Returns the folder for records in a model directory; of an archive, in that of its training.

    Raises:
        ValueError: without model_dir.
    """
    if not model_dir:
        raise ValueError("--data needs a folder for its records: give --data_cache, or --model_dir")
    model_dir = model_dir.rstrip("/")
    return os.path.join(os.path.dirname(model_dir) if os.path.basename(model_dir) == "archive" else model_dir, "data")


def prepare(
    path: str | os.PathLike,
    cache: str | os.PathLike,
    *,
    data_format: str | None = None,
    seed: int = SPLIT_SEED,
    needs_train: bool = True,
    may_convert: bool = True,
) -> PreparedData:
    """Returns the records of a dataset, which are written if the cache lacks them.

    Args:
        path: see `layout.find`; or a .zip file of such a folder. A folder of TFRecords is used as it is.
        cache: local folder, created if needed; several processes may share it.
        data_format: one of `layout.FORMATS`; None to find it.
        seed: of the validation images, if the dataset has no such split, see `split.hold_out`.
        needs_train: False for an evaluation, for which another split is enough.
        may_convert: False for one of several machines, which would convert at the same time.

    Raises:
        DataError: if the dataset cannot be used, see `layout.find`, `Layout.load` and `shards.write_shards`.
        TargetError: if the cache cannot be written to.
    """
    check_local(path, "--data")
    check_local(cache, "--data_cache")
    path, cache = Path(path), Path(cache)
    layout = None if archive.is_archive(path) else layout_lib.find(path, data_format)
    if layout and layout.format == layout_lib.TFRECORD:
        logging.info("--data: %s", layout.description)
        data = PreparedData.of_records(layout)
    else:
        if layout and cache.resolve().is_relative_to(layout.folder.resolve()):
            raise ValueError(f"--data_cache {cache} is inside the dataset {layout.folder}; choose another folder")
        conversion = _Conversion(path, layout, cache, data_format, seed)
        data = conversion.open()
        if data:
            logging.info("--data: %s; unchanged, using the records in %s", data.description, conversion.folder)
        elif not may_convert:
            raise DataError(
                f"{cache} has no records of {path} as it is now, and several machines would write them at the same "
                "time: run --mode=eval or train with the same --data and --data_cache, which all machines must share, "
                "on one of them first"
            )
        data = data or conversion.run()
    if needs_train and "train" not in data.splits:
        found = ", ".join(data.splits)
        raise DataError(f"{path} has no split of training images (found: {found}); expected one that is called train")
    logging.info("%s", data.show_table())
    return data


def note_use(data: PreparedData, model_dir: str) -> None:
    """Warns if the training in a local or remote folder used the dataset in another state; stores the new state."""
    path, state = os.path.join(model_dir, USED_FILE), json.dumps([data.source, data.fingerprint])
    if not data.fingerprint:  # records are used as they are
        return
    try:
        if tf.io.gfile.exists(path):
            if read_file(path).decode() == state:
                return
            logging.warning(
                "the data changed since the training in %s began: it continues with %s as it is now",
                model_dir,
                data.source,
            )
        check_folder(model_dir)
        write_file(path, state)
    except tf.errors.OpError as error:
        logging.warning("cannot write %s: %s; a later change of the data is not reported", path, reason_of(error))


def find_fingerprint(sources: Iterable[Path], options: Mapping[str, Any]) -> str:
    """Returns a hash of the paths, sizes and times of modification of files, and of the options.

    Args:
        sources: files, and folders of which all visible files in and below them count, see `folder_listing.scan`.

    Raises:
        DataError: if a file or folder cannot be read.
    """
    files = set()
    for source in map(os.path.abspath, sources):
        if not os.path.isdir(source):
            files.add(source)
            continue
        for folder, names in folder_listing.scan(Path(source)).names.items():
            files.update(os.path.join(source, folder, name) for name in names)
    try:
        states = [(file, *_state(file)) for file in sorted(files)]
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {reason_of(error)}") from error
    return hashlib.sha256(json.dumps([options, states]).encode("utf-8", "backslashreplace")).hexdigest()


def _state(file: str) -> tuple[int, int]:
    """Returns size and time of modification; those of the link itself if it is broken."""
    try:
        stat = os.stat(file)
    except FileNotFoundError:
        stat = os.lstat(file)
    return stat.st_size, stat.st_mtime_ns


class _Conversion:
    """The conversion of a dataset, as it is now, to a folder of records in a cache."""

    def __init__(self, path: Path, layout: Layout | None, cache: Path, data_format: str | None, seed: int):
        """Finds the fingerprint; `layout` is None for a zip file."""
        self.path, self.layout, self.cache = path, layout, cache
        self.data_format, self.seed = data_format, seed
        options = {"data_format": data_format, "seed": seed, "version": VERSION}
        self.fingerprint = find_fingerprint(layout.sources() if layout else [path], options)
        self.source = os.path.realpath(path)
        self.folder = cache / f"records-{self.fingerprint[:8]}"

    def open(self) -> PreparedData | None:
        """Returns the records in the cache, which are in use until this process ends; None if there are none."""
        if not _hold(self.folder):
            return None
        data = PreparedData.read(self.folder)
        return data if data and data.fingerprint == self.fingerprint else None

    def run(self) -> PreparedData:
        """Writes the records, or waits for another process that does, and returns them."""
        check_folder(str(self.cache))
        is_waiting, data = False, None
        while not data:
            try:
                # One name for all datasets: what a killed process left is removed by the next conversion.
                with staging_folder(str(self.cache / "records")) as staging:
                    data = self.open()
                    if not data:
                        self._warn_of_change()
                        self._convert(Path(staging))
            except (OSError, tf.errors.OpError) as error:
                if not reason_of(error).endswith(os.strerror(errno.ENOSPC)):
                    raise
                raise DataError(
                    f"{self.cache} has no space left for the records of {self.path}; free some, or choose a folder on "
                    "another disk with --data_cache"
                ) from error
            except BusyError:
                if not is_waiting:
                    logging.info("another process is converting to %s; waiting for it", self.cache)
                is_waiting = True
                time.sleep(POLL)
            data = data or self.open()
        _remove_unused(self.cache, self.folder, self.source)
        return data

    def _warn_of_change(self) -> None:
        earlier = [data.converted for _, data in _records_of(self.cache, self.source)]
        if earlier:
            logging.warning("%s changed since it was converted, %s; converting it again", self.path, max(earlier))

    def _convert(self, staging: Path) -> None:
        layout, unpacked, target = self.layout, staging / "unpacked", staging / self.folder.name
        if not layout:
            archive.unpack(self.path, unpacked)
            layout = layout_lib.find(unpacked, self.data_format)
            if layout.format == layout_lib.TFRECORD:
                raise DataError(f"{self.path} contains TFRecords; unpack it, and give the folder")
        description = layout.description.replace(str(unpacked), str(self.path))
        logging.info("--data: %s; converting to %s", description, self.folder)
        target.mkdir()
        with self._keep_reports(target):
            sources = layout.load()
            if holds_out := "train" in sources and "val" not in sources:
                sources = self._hold_out(sources, target)
            if not holds_out or "test" in sources:  # identical images are held out together
                for message in split.show_shared(sources):
                    logging.warning("%s", message)
            splits = {name: _write_split(name, source, target) for name, source in sources.items()}
        label_map = dict(next(iter(sources.values())).label_map)  # the same in all
        converted = time.strftime("%Y-%m-%d %H:%M:%S")
        data = PreparedData(splits, label_map, description, self.source, self.fingerprint, converted)
        data.write(target)
        remove(str(unpacked))
        remove(str(self.folder))  # incomplete, or else `open` would have found it

    def _hold_out(self, sources: Mapping[str, Source], target: Path) -> dict[str, Source]:
        """Returns the sources with validation images that are held out of those of training, and lists them."""
        train, val, names = split.hold_out(sources["train"], seed=self.seed)
        write_file(target / "split_val.txt", "".join(f"{name}\n" for name in names))
        logging.info(
            "--data: no validation split: %d of %d images are held out, listed in %s",
            len(names),
            len(sources["train"].items),
            self.folder / "split_val.txt",
        )
        return {**sources, "train": train, "val": val}

    @contextlib.contextmanager
    def _keep_reports(self, target: Path) -> Iterator[None]:
        """Keeps the reports of a failed conversion in the cache."""
        try:
            yield
        except DataError as error:
            for report in target.glob("report_*.json"):
                shutil.copy(report, self.cache)
            text = str(error).replace(str(target), str(self.cache))
            raise DataError(text + SCRIPTS * any(option in text for option in SCRIPT_OPTIONS)) from error
        except KeyboardInterrupt:
            logging.warning("interrupted during the conversion; nothing of it is left in %s", self.cache)
            raise


def _write_split(name: str, source: Source, target: Path) -> PreparedSplit:
    """Writes records, report, label map and, except for training, groundtruth of a split."""
    if name == "train":
        source = dataclasses.replace(source, write_groundtruth=False)  # evaluated by nobody
    number = min(-(-len(source.items) // SHARD_IMAGES), MAX_SHARDS) or 1
    prefix = str(target / name)
    report = shards.write_shards(source, prefix, num_shards=number)
    shards.write_label_map(prefix, source.label_map, source.original_ids)
    _log_report(name, report)
    boxes = {class_id: report.boxes_per_class[class_id] for class_id in sorted(report.boxes_per_class)}
    return PreparedSplit(f"{prefix}-*-of-{number:05d}.tfrecord", report.written["images"], boxes)


def _log_report(name: str, report: ConversionReport) -> None:
    first, *reasons = str(report).splitlines()
    logging.info("%s: %s", name, first)
    for reason in reasons:
        logging.warning("%s: %s", name, reason)
    if warning := shards.find_unusable(report):
        logging.warning("%s: %s", name, warning)


def _records_of(cache: Path, source: str) -> list[tuple[Path, PreparedData]]:
    """Returns every folder in a cache with records of a dataset, in any state of it."""
    found = [(folder, PreparedData.read(folder)) for folder in sorted(cache.glob("records-*"))]
    return [(folder, data) for folder, data in found if data and data.source == source]


def _hold(folder: Path) -> bool:
    """Locks a folder of records against removal until this process ends; returns False if it does not exist."""
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    with contextlib.suppress(OSError):  # a file system without locks, on which nothing is removed either
        fcntl.flock(lock, fcntl.LOCK_SH)  # waits for a process that removes it
    if not folder.exists():
        os.close(lock)
        return False
    if folder in _locks:
        os.close(_locks[folder])
    _locks[folder] = lock
    return True


def _remove_unused(cache: Path, newest: Path, source: str) -> None:
    """Removes the records of a dataset in earlier states, except those that a process uses."""
    for folder, _ in _records_of(cache, source):
        if folder == newest:
            continue
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(str(folder))
            logging.info("removed %s, the records of the dataset as it was before", folder)
        except OSError:
            logging.info("%s, the records of the dataset as it was before, is in use or cannot be removed", folder)
        finally:
            os.close(lock)
