# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Published weights by name: fetched once, unpacked with care, and kept in a cache."""

import datetime
import difflib
import errno
import gzip
import hashlib
import http.client
import json
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import tqdm
from absl import logging

BUCKET = "https://storage.googleapis.com/cloud-tpu-checkpoints"
MIRROR = "EFFICIENTDET_WEIGHTS_URL"  # environment variable: takes the place of BUCKET
CACHE = "EFFICIENTDET_CACHE"  # environment variable: folder of the cache; default: ~/.cache/efficientdet
ARCHIVES = {
    **{f"efficientdet-d{i}": f"efficientdet/coco2/efficientdet-d{i}.tar.gz" for i in (*range(8), "7x")},
    **{f"efficientdet-lite{i}": f"efficientdet/coco/efficientdet-lite{i}.tgz" for i in (*range(4), "3x", 4)},
    **{f"efficientdet-d{i}-640": f"efficientdet/coco640/efficientdet-d{i}-640.tar.gz" for i in range(2, 7)},
    **{f"efficientdet-d{i}-advprop": f"efficientdet/advprop/efficientdet-d{i}.tar.gz" for i in range(6)},
    **{f"efficientnet-b{i}": f"efficientnet/ckptsaug/efficientnet-b{i}.tar.gz" for i in range(8)},
    **{f"efficientnet-lite{i}": f"efficientnet/lite/efficientnet-lite{i}.tar.gz" for i in range(5)},
}
ADVPROP_COLORS = {"mean_rgb": (0.0, 0.0, 0.0), "stddev_rgb": (1.0, 1.0, 1.0), "scale_range": True}
TIMEOUT = 30  # seconds without an answer
CHUNK = 2**20  # bytes
MAX_FILES, MAX_BYTES = 1000, 4 * 2**30  # of an archive, packed or not; the largest published one has some 0.6 GiB
MAX_HEADER = 2**20  # bytes of an archive that are read at once
# What a connection, a server or a cut-off answer may raise.
UNREACHABLE = (urllib.error.URLError, http.client.HTTPException, ValueError, OSError)
NOT_AN_ARCHIVE = (
    *(tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError),
    *(FileExistsError, NotADirectoryError, ValueError, RecursionError),
)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)  # of the cache's disk, not of the connection


class WeightsError(ValueError):
    """Published weights that cannot be had, or are not what they were."""


def fetch(name: str) -> str:
    """The folder of a published checkpoint; downloads and unpacks it the first time.

    Beside it stands NAME.json with the address, size, SHA-256 and date of the archive. It stays when the folder is
    removed, and a later download has to be the same. An interrupted download leaves nothing that looks whole.

    Args:
        name: a key of ARCHIVES.

    Raises:
        WeightsError: if the archive cannot be downloaded, has changed, or holds what no archive of weights should.
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
                _write_record(record, record_file, unfinished)
                if not folder.is_dir():  # another process may have been faster
                    unpacked.rename(folder)
        except OSError as error:
            if not folder.is_dir():
                raise WeightsError(
                    f"cannot keep the published weights {name} in {cache} ({error.strerror or error}); make room there "
                    f"and mend its access, or set {CACHE} to another folder"
                ) from error
    return _checkpoint_folder(folder)


def similar(name: str) -> list[str]:
    """Published names that look like one."""
    return difflib.get_close_matches(name, ARCHIVES, n=3, cutoff=0.8)


def check_colors(name: str, colors: Mapping[str, Any]) -> None:
    """Raises WeightsError if weights trained with AdvProp would see other colours than in their training.

    Args:
        name: of published weights, or any other text.
        colors: mean_rgb, stddev_rgb and scale_range of a config.
    """
    if name in ARCHIVES and name.endswith("-advprop") and colors != ADVPROP_COLORS:
        raise WeightsError(
            f"{name} was trained on colours from -1 to 1; add mean_rgb=0.0,stddev_rgb=1.0,scale_range=true to --hparams"
        )


def _download(name: str, url: str, path: Path) -> dict[str, Any]:
    """Writes the archive to a file; returns what is recorded of it."""
    digest, size = hashlib.sha256(), 0
    logging.info("downloading the published weights %s from %s", name, url)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, open(path, "wb") as file:
            expected = int(answer.headers.get("Content-Length") or 0)
            with tqdm.tqdm(desc=name, total=expected or None, unit="B", unit_scale=True, unit_divisor=1024) as bar:
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                    bar.update(len(chunk))
                    if size > MAX_BYTES:
                        raise http.client.HTTPException(f"it has more than {MAX_BYTES} bytes")
        if expected not in (0, size):
            raise http.client.HTTPException(f"cut off after {size} of {expected} bytes")
    except UNREACHABLE as error:
        if getattr(error, "errno", None) in NO_ROOM:
            raise
        reason = getattr(error, "reason", None) or error
        code = f"{error.code} " if isinstance(error, urllib.error.HTTPError) else ""
        raise WeightsError(
            f"cannot download the published weights {name} from {url} ({code}{reason}); give the path of a checkpoint "
            f"on this machine, or set {MIRROR} to the address of a mirror"
        ) from error
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {"url": url, "bytes": size, "sha256": digest.hexdigest(), "date": date}


def _compare(name: str, record: Mapping[str, Any], record_file: Path) -> None:
    """Raises WeightsError if an earlier download of the same name was another file."""
    if not record_file.is_file():
        return
    earlier = json.loads(record_file.read_text())
    if any(record[key] != earlier[key] for key in ("bytes", "sha256")):
        raise WeightsError(
            f"{record['url']} has changed: {record['bytes']} bytes with SHA-256 {record['sha256'][:12]}.., where "
            f"{earlier['bytes']} with {earlier['sha256'][:12]}.. came from {earlier['url']} on {earlier['date']}; if "
            f"you trust the new {name}, remove {record_file}"
        )


def _write_record(record: Mapping[str, Any], record_file: Path, unfinished: str) -> None:
    if not record_file.is_file():
        whole = Path(unfinished, "record")
        whole.write_text(json.dumps(record, indent=1))
        whole.replace(record_file)


class _Unzipped(gzip.GzipFile):
    """The archive as tarfile reads it: a header at once, whatever the length that it claims; data in small parts."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_HEADER:
            raise ValueError(f"it has a header of {size} bytes")
        return super().read(size)


def _unpack(archive: Path, folder: Path, url: str) -> None:
    """Unpacks plain files alone, within the folder and within limits."""
    folder.mkdir()
    num_files = num_bytes = 0
    try:
        with _Unzipped(archive) as unzipped, tarfile.open(fileobj=unzipped, mode="r:") as members:
            for member in members:
                if member.isdir():
                    continue
                num_files, num_bytes = num_files + 1, num_bytes + member.size
                _check_member(member, num_files, num_bytes)
                target = folder / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with members.extractfile(member) as source, open(target, "xb") as file:
                    shutil.copyfileobj(source, file)
    except NOT_AN_ARCHIVE as error:
        raise WeightsError(f"{url} is not an archive of weights ({error}); nothing of it was kept") from error


def _check_member(member: tarfile.TarInfo, num_files: int, num_bytes: int) -> None:
    """Raises ValueError for what no archive of weights holds."""
    path = PurePosixPath(member.name)
    if not member.isreg() or member.issparse():
        raise ValueError(f"{member.name} is no plain file")
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name or not path.name:
        raise ValueError(f"{member.name} leads out of its folder")
    if num_files > MAX_FILES or num_bytes > MAX_BYTES:
        raise ValueError(f"it holds more than {MAX_FILES} files or {MAX_BYTES} bytes")


def _checkpoint_folder(folder: Path) -> str:
    """The folder with the checkpoint, which in an archive has any name."""
    indices = sorted(folder.rglob("*.index"), key=lambda path: (len(path.parts), path))
    if not indices:
        raise WeightsError(f"{folder} holds no checkpoint; remove the folder to download it again")
    return str(indices[0].parent)
