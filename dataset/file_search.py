# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Files that a path, a folder or a glob stands for; hidden files, such as those of systems, are never data."""

import functools
import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from absl import logging

SYSTEM_FILES = {"__macosx", "thumbs.db", "desktop.ini"}  # of macOS and Windows, in lower case
HIDDEN_IGNORED = "hidden files ignored"  # reason in the conversion report
NAMES_LOGGED = 3


class Found(NamedTuple):
    """Paths of files, sorted."""

    files: list[str]
    hidden: list[str]  # those that are never data, see `is_hidden`


def expand(pattern: str) -> Found:
    """Finds the files that a path or a glob stands for.

    Args:
        pattern: local path of a file; of a folder, for the files in it without its subfolders; or a glob, in which `**`
            stands for any number of folders.
    """
    if os.path.isfile(pattern):
        return Found([pattern], [])  # named by the user, even if hidden
    if os.path.isdir(pattern):
        return find_in(pattern)
    root = glob_root(pattern)
    parts = pattern[len(root) :].strip(os.sep)
    return find_in(root, parts) if parts else Found([], [])


def find_in(folder: str | os.PathLike, pattern: str = "*") -> Found:
    """Finds the files of a folder, as `{folder}/{name}`, that match a glob relative to it.

    `**` does not follow links to folders, which may lead in circles, and logs those that it finds.
    """
    parts = [part if part == "**" else re.sub(r"\*+", "*", part) for part in pattern.split(os.sep) if part]
    parts += ["*"] if parts[-1] == "**" else []
    names, links = [], []
    for path in Path(folder).glob(os.sep.join(parts)):
        if not path.is_dir():
            names.append(str(path.relative_to(folder)))
        elif path.is_symlink() and "**" in parts:
            links.append(str(path))
    if links:
        _warn_once(f"links to folders are not followed: {_show(sorted(links))}")
    return split_hidden([os.path.join(folder, name) for name in sorted(names)], os.fspath(folder))


def split_hidden(paths: Iterable[str], root: str) -> Found:
    """Separates the hidden files, judging by the names below the folder `root`, which may be remote."""
    found = Found([], [])
    for path in paths:
        found[is_hidden(os.path.relpath(path, root or "."))].append(path)
    return found


def is_hidden(path: str) -> bool:
    """Returns True for files that systems and editors put beside data, and all files in such folders.

    Their names begin with a dot, such as `._a.jpg` and `.ipynb_checkpoints`, or are among SYSTEM_FILES.

    >>> is_hidden("images/a.jpg"), is_hidden(".ipynb_checkpoints/a.jpg"), is_hidden("images/Thumbs.db")
    (False, True, True)
    """
    names = [name for name in path.split(os.sep) if name not in (".", "..")]
    return any(name.startswith(".") or name.lower() in SYSTEM_FILES for name in names)


def glob_root(pattern: str) -> str:
    """Returns the folder of a glob in front of the first wildcard; the path itself if there is none.

    >>> glob_root("data/*/images/*.jpg"), glob_root("data/a.jpg")
    ('data', 'data/a.jpg')
    """
    parts = pattern.split(os.sep)
    is_plain = [not glob.has_magic(part) for part in parts]
    num_plain = is_plain.index(False) if False in is_plain else len(parts)
    return os.sep.join(parts[:num_plain]) or (os.sep if pattern.startswith(os.sep) else "")


def warn_of_hidden(hidden: Sequence[str]) -> None:
    """Logs the number of hidden files that are ignored and the first of them, once per process."""
    if hidden:
        _warn_once(f"{HIDDEN_IGNORED}: {_show(hidden)}")


def _show(paths: Sequence[str]) -> str:
    """Returns the number of paths and the first of them, such as "5 (a, b, c, ...)"."""
    more = ", ..." if len(paths) > NAMES_LOGGED else ""
    return f"{len(paths)} ({', '.join(paths[:NAMES_LOGGED])}{more})"


@functools.cache
def _warn_once(message: str) -> None:
    logging.warning("%s", message)


def files_in(path: str) -> list[str]:
    """Returns a local or remote `path` if it is a file, else the sorted paths of all files in and below the folder.

    Hidden files are left out, see `is_hidden`.
    """
    if not tf.io.gfile.isdir(path):
        return [path]
    found = [os.path.join(folder, name) for folder, _, names in tf.io.gfile.walk(path) for name in names]
    return split_hidden(sorted(found), path).files
