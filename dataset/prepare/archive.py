# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Safe unpacking of untrusted .zip files."""

import contextlib
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from dataset.file_search import is_hidden
from dataset.files import TargetError, check_target, reason_of, staging_folder
from dataset.tfrecord import DataError

ZIP_SUFFIX = ".zip"
OTHER_SUFFIXES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
MAX_RATIO = 100  # unpacked bytes per byte of the archive; annotations reach 20, images 1
MIN_BOMB_BYTES = 1 << 30  # archives with less content are unpacked at any ratio
MAX_FREE_FRACTION = 0.9  # of the free space that the content may take
ENCRYPTED, UTF8 = 0x1, 0x800  # bits of the flags of an entry
ENTRY_TYPES = (0, stat.S_IFREG, stat.S_IFDIR)  # 0: written by Windows, without a type
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others may need much memory per byte
DRIVE = re.compile(r"[A-Za-z]:")
_DAMAGES = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, RuntimeError, ValueError)


def is_archive(path: Path) -> bool:
    """Returns True for a file with the suffix of an archive, of which `unpack` reads only .zip."""
    return path.suffix.lower() in (ZIP_SUFFIX, *OTHER_SUFFIXES) and not path.is_dir()


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a .zip file into a new folder, completely or not at all; hidden files are left out, see `is_hidden`.

    An archive is refused as a whole if a name is absolute or has `..`, an entry is a link or a special file, two
    entries have the same path, or the content, by the sizes that the archive states and that no entry can exceed, takes
    more than MAX_FREE_FRACTION of the free space of the disk, or is more than MAX_RATIO times as large as the archive
    and than MIN_BOMB_BYTES.

    Args:
        archive: the .zip file.
        folder: does not exist or is empty; its parent is created.

    Raises:
        DataError: if the archive is refused, encrypted, damaged or of another format, or the disk is full.
        TargetError: if `folder` has files or cannot be created, or another process is unpacking to it.
    """
    if archive.suffix.lower() != ZIP_SUFFIX:
        raise DataError(f"{archive} is not a .zip file; unpack it, and give the folder")
    try:
        with zipfile.ZipFile(archive) as file:
            entries = _check_entries(archive, file.infolist())
            check_target(str(folder))
            _check_size(archive, entries.values(), folder)
            with staging_folder(str(folder)) as staging:
                for name, entry in entries.items():
                    _extract(file, entry, Path(staging, folder.name, name))
    except (DataError, TargetError):
        raise
    except OSError as error:
        raise DataError(f"cannot unpack {archive} to {folder}: {reason_of(error)}") from error
    except _DAMAGES as error:
        raise DataError(
            f"cannot unpack {archive}: {reason_of(error)}; is the file complete? Export it again"
        ) from error


def _check_entries(archive: Path, entries: Iterable[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Returns {relative path: entry} of the files to unpack, after all entries have been checked."""
    files, folders = {}, set()
    for entry in entries:
        name = _decode_name(entry)
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or DRIVE.match(name) or ".." in parts:
            raise DataError(f"{archive} is refused: {name!r} would be written outside of the folder")
        if stat.S_IFMT(entry.external_attr >> 16) not in ENTRY_TYPES:
            raise DataError(f"{archive} is refused: {name!r} is a link or a special file; pack the files themselves")
        if entry.flag_bits & ENCRYPTED:
            raise DataError(f"{archive} is encrypted; unpack it with its password, and give the folder")
        if entry.compress_type not in COMPRESSIONS:
            raise DataError(f"{archive}: {name!r} is compressed by method {entry.compress_type}; expected deflate")
        path = "/".join(parts)
        if name.endswith("/") or not path:
            continue
        if path in files:
            raise DataError(f"{archive} is refused: it has {path!r} twice; pack every file once")
        files[path] = entry
        folders.update("/".join(parts[:end]) for end in range(1, len(parts)))
    if both := sorted(folders & files.keys()):
        raise DataError(f"{archive} is refused: {both[0]!r} is both a file and a folder")
    visible = {path: entry for path, entry in files.items() if not is_hidden(path)}
    if not visible:
        raise DataError(f"{archive} has no files")
    return visible


def _decode_name(entry: zipfile.ZipInfo) -> str:
    r"""Returns the name of an entry, with "/" for the "\" of Windows.

    Names without the flag of UTF-8 are of code page 437, but many tools write UTF-8 without the flag.
    """
    name = entry.filename
    if not entry.flag_bits & UTF8:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


def _check_size(archive: Path, entries: Iterable[zipfile.ZipInfo], folder: Path) -> None:
    size, packed = sum(entry.file_size for entry in entries), archive.stat().st_size
    free = shutil.disk_usage(folder.absolute().parent).free
    if size > max(MAX_RATIO * packed, MIN_BOMB_BYTES):
        raise DataError(
            f"{archive} is refused: {packed} bytes would expand to {size}, more than {MAX_RATIO} times as many; if "
            "this is correct, unpack it and give the folder"
        )
    if size > MAX_FREE_FRACTION * free:
        raise DataError(
            f"{archive} needs {size} bytes, but {folder.absolute().parent} has {free} left; free some, or choose a "
            "folder on another disk"
        )


def _extract(file: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    """Writes an entry; zipfile checks its size and checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with file.open(entry) as source, open(path, "xb") as target:
        shutil.copyfileobj(source, target)
