# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Published weights by name: downloaded once, unpacked within limits, and kept in a cache."""

import datetime
import errno
import gzip
import hashlib
import http.client
import json
import os
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import tqdm
from absl import logging

BUCKET = "https://storage.googleapis.com/cloud-tpu-checkpoints"
MIRROR = "EFFICIENTDET_WEIGHTS_URL"  # environment variable: URL that replaces BUCKET
CACHE = "EFFICIENTDET_CACHE"  # environment variable: folder of the cache; default: ~/.cache/efficientdet
ARCHIVES = {
    **{f"efficientdet-d{i}": f"efficientdet/coco2/efficientdet-d{i}.tar.gz" for i in (*range(8), "7x")},
    **{f"efficientdet-lite{i}": f"efficientdet/coco/efficientdet-lite{i}.tgz" for i in (*range(4), "3x", 4)},
    **{f"efficientdet-d{i}-640": f"efficientdet/coco640/efficientdet-d{i}-640.tar.gz" for i in range(2, 7)},
    **{f"efficientdet-d{i}-advprop": f"efficientdet/advprop/efficientdet-d{i}.tar.gz" for i in range(6)},
    **{f"efficientnet-b{i}": f"efficientnet/ckptsaug/efficientnet-b{i}.tar.gz" for i in range(8)},
    **{f"efficientnet-lite{i}": f"efficientnet/lite/efficientnet-lite{i}.tar.gz" for i in range(5)},
}
DETECTORS = tuple(name for name in ARCHIVES if name.startswith("efficientdet-"))
NUM_CLASSES = 90  # of the detectors: COCO's ids 1..90
ADVPROP_COLORS = {"mean_rgb": (0.0, 0.0, 0.0), "stddev_rgb": (1.0, 1.0, 1.0), "scale_range": True}
TIMEOUT = 30  # seconds without a response
CHUNK = 2**20  # bytes
MAX_FILES, MAX_BYTES = 1000, 4 * 2**30  # per archive, packed or not; the largest published one has about 0.6 GiB
MAX_HEADER = 2**20  # bytes; tarfile reads headers at once
# Raised for an invalid URL, by connections, servers and truncated responses.
DOWNLOAD_ERRORS = (http.client.HTTPException, ValueError, OSError)
ARCHIVE_ERRORS = (
    *(tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError),
    *(FileExistsError, NotADirectoryError, ValueError, RecursionError),
)
DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)  # of the cache, not of the connection


class WeightsError(ValueError):
    """Published weights that cannot be downloaded, have changed, or do not suit the config."""


def fetch(name: str) -> str:
    """Returns the folder of a checkpoint by its key in ARCHIVES; downloads and unpacks the archive the first time.

    NAME.json beside the folder records the URL, size, SHA-256 and date of the archive. It is kept if the folder is
    removed; a later download must be identical. An interrupted download leaves no folder.

    Raises:
        WeightsError: if the archive cannot be downloaded, has changed, or is not an archive of weights.
    """
    cache = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "efficientdet")
    folder, record_file = cache / name, cache / f"{name}.json"
    if not folder.is_dir():
        url = f"{(os.environ.get(MIRROR) or BUCKET).rstrip('/')}/{ARCHIVES[name]}"
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix=f"{name}.unfinished-") as unfinished:
                archive, unpacked = Path(unfinished, "archive"), Path(unfinished, "unpacked")
                record = _download(name, url, archive)
                _compare(name, record, record_file)
                _unpack(archive, unpacked, url)
                if not record_file.is_file():
                    temporary = Path(unfinished, "record")
                    temporary.write_text(json.dumps(record, indent=1))
                    temporary.replace(record_file)
                if not folder.is_dir():  # unless another process was faster
                    unpacked.rename(folder)
        except OSError as error:
            if not folder.is_dir():
                raise WeightsError(
                    f"cannot keep the published weights {name} in {cache} ({error.strerror or error}); make room and "
                    f"check the permissions there, or set {CACHE} to another folder"
                ) from error
    indices = sorted(folder.rglob("*.index"), key=lambda path: (len(path.parts), path))
    if not indices:
        raise WeightsError(f"{folder} contains no checkpoint; remove the folder to download it again")
    return str(indices[0].parent)  # a folder within, whose name differs between archives


def model_of(name: str) -> tuple[str, dict[str, Any]]:
    """Returns the model of published weights, and the config keys that differ from those of the model.

    Args:
        name: a key of ARCHIVES; for "efficientdet-d2-640" the result is ("efficientdet-d2", {"image_size": 640}).

    Raises:
        WeightsError: for the weights of a backbone.

    Example:
        >>> model_of("efficientdet-d2-640")
        ('efficientdet-d2', {'image_size': 640})
    """
    if name not in DETECTORS:
        raise WeightsError(f"{name} is a backbone, for --backbone_ckpt in training; choose the name of a detector")
    if name.endswith("-640"):
        return name.removesuffix("-640"), {"image_size": 640}
    if name.endswith("-advprop"):
        return name.removesuffix("-advprop"), ADVPROP_COLORS
    return name, {}


def check_colors(name: str, colors: Mapping[str, Any]) -> None:
    """Raises WeightsError if `name` are weights trained with AdvProp, and the colors of the config are others."""
    if name in ARCHIVES and name.endswith("-advprop") and colors != ADVPROP_COLORS:
        raise WeightsError(
            f"{name} was trained on colors from -1 to 1; add mean_rgb=0.0,stddev_rgb=1.0,scale_range=true to --hparams"
        )


def _download(name: str, url: str, path: Path) -> dict[str, Any]:
    """Downloads the archive to a file; returns its URL, size, SHA-256 and date."""
    digest, size = hashlib.sha256(), 0
    logging.info("downloading the published weights %s from %s", name, url)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response, open(path, "wb") as file:
            expected = int(response.headers.get("Content-Length") or 0)
            with tqdm.tqdm(desc=name, total=expected or None, unit="B", unit_scale=True, unit_divisor=1024) as bar:
                while chunk := response.read(CHUNK):
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                    bar.update(len(chunk))
                    if size > MAX_BYTES:
                        raise http.client.HTTPException(f"it has more than {MAX_BYTES} bytes")
        if expected not in (0, size):
            raise http.client.HTTPException(f"truncated after {size} of {expected} bytes")
    except DOWNLOAD_ERRORS as error:
        if getattr(error, "errno", None) in DISK_ERRNOS:
            raise
        reason = getattr(error, "reason", None) or error
        code = f"{error.code} " if isinstance(error, urllib.error.HTTPError) else ""
        raise WeightsError(
            f"cannot download the published weights {name} from {url} ({code}{reason}); give the path of a checkpoint "
            f"on this machine, or set {MIRROR} to the URL of a mirror"
        ) from error
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {"url": url, "bytes": size, "sha256": digest.hexdigest(), "date": date}


def _compare(name: str, record: Mapping[str, Any], record_file: Path) -> None:
    """Raises WeightsError if an earlier download of the same name was another file."""
    earlier = json.loads(record_file.read_text()) if record_file.is_file() else record
    if any(record[key] != earlier[key] for key in ("bytes", "sha256")):
        raise WeightsError(
            f"{record['url']} has changed: {record['bytes']} bytes with SHA-256 {record['sha256'][:12]}..; the "
            f"download from {earlier['url']} on {earlier['date']} had {earlier['bytes']} bytes with "
            f"{earlier['sha256'][:12]}..; if you trust the new {name}, remove {record_file}"
        )


class _BoundedGzip(gzip.GzipFile):
    """A gzip file that rejects reads above MAX_HEADER; tarfile copies file data in small parts."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_HEADER:
            raise ValueError(f"it has a header of {size} bytes")
        return super().read(size)


def _unpack(archive: Path, folder: Path, url: str) -> None:
    """Unpacks an archive of regular files, within `folder`, MAX_FILES and MAX_BYTES."""
    try:
        with _BoundedGzip(archive) as unzipped, tarfile.open(fileobj=unzipped, mode="r:") as archived:
            archived.extractall(folder, _checked(archived), filter="data")
    except ARCHIVE_ERRORS as error:
        raise WeightsError(f"{url} is not an archive of weights ({error}); nothing of it was kept") from error


def _checked(members: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yields the files of an archive; raises ValueError for a member that no archive of weights contains."""
    names, num_bytes = set(), 0
    for member in members:
        if member.isdir():
            continue
        path = PureWindowsPath(member.name)  # knows backslashes and drive letters, too
        if not member.isreg():
            raise ValueError(f"{member.name} is not a regular file")
        if path.anchor or ".." in path.parts:
            raise ValueError(f"{member.name} leads out of its folder")
        if member.name in names:
            raise ValueError(f"it contains {member.name} twice")
        names.add(member.name)
        num_bytes += member.size
        if len(names) > MAX_FILES or num_bytes > MAX_BYTES:
            raise ValueError(f"it contains more than {MAX_FILES} files or {MAX_BYTES} bytes")
        yield member
