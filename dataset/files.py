# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Files: atomic writing, remote paths, checks before the work begins, one-line reasons of errors."""

import contextlib
import errno
import fcntl
import os
import re
import signal
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence

import tensorflow as tf

from dataset.file_access import is_remote
from dataset.file_search import files_in

UNFINISHED = ".unfinished-"  # prefix of a file or folder that is being written; hidden, and no `{name}*` matches it
REASON_LENGTH = 200  # characters; parsers quote their input, however long it is
# Decoration of TensorFlow's error messages: names of graph nodes, datasets and Python classes, and brackets.
_AROUND_REASON = re.compile(
    r"\{\{.*?\}\} |Error in user-defined function .*? with iterator: \S+: "
    r"|assertion failed: |\b\w+Error: | ?\[Op:.*|[][]"
)
_SYSTEM_REASONS = frozenset(map(os.strerror, errno.errorcode))


class TargetError(ValueError):
    """A file or folder that results cannot be written to."""


class BusyError(TargetError):
    """Another process is writing the same files."""


def reason_of(error: BaseException, *, with_path: bool = False) -> str:
    """Returns the reason of an error as one line, shortened to REASON_LENGTH characters unless it is TensorFlow's.

    Graph nodes and stack traces in TensorFlow's messages are removed, and so is the path of a file that cannot be
    opened, which the caller names; `with_path` keeps TensorFlow's path.

    >>> reason_of(OSError(28, "No space left on device"))
    'No space left on device'
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, tf.errors.OpError):
        message = _AROUND_REASON.sub("", error.message.partition("\n")[0])
        path, _, reason = message.rpartition("; ")  # "{path}; No such file or directory"
        if reason in _SYSTEM_REASONS:
            return f"{path}: {reason}" if with_path and path else reason
        return message or type(error).__name__
    reason = " ".join(str(error).split()) or type(error).__name__
    return reason if len(reason) <= REASON_LENGTH else f"{reason[: REASON_LENGTH - 3]}..."


def check_local(path: str | os.PathLike, name: str) -> None:
    """Raises ValueError for a remote path where only local files are supported; `name` is that of the argument."""
    if is_remote(path):
        raise ValueError(f"{name} must be on this machine, got {path}; copy it here, and give the local path")


def folder_of(path: str) -> str:
    """Returns the folder of a local or remote path; an absolute path for a local one.

    >>> folder_of("gs://bucket/run/model.ckpt")
    'gs://bucket/run'
    """
    if not is_remote(path):
        return os.path.dirname(os.path.abspath(path))
    scheme, _, name = path.rstrip("/").partition("://")
    return f"{scheme}://{os.path.dirname(name)}"


@contextlib.contextmanager
def atomic_path(path: str) -> Iterator[str]:
    """Yields a temporary local path for a file or a folder, which is moved to `path` when the block succeeds.

    The temporary path has the same suffix. For a local path it is in the same folder, which must exist; for a remote
    one it is in the folder for temporary files, and the files of a folder are uploaded one by one. A file at `path` is
    replaced. If the block fails or the process is killed, `path` is unchanged.
    """
    if not is_remote(path):
        with _renamed(path) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory() as folder:
        temporary = os.path.join(folder, os.path.basename(path.rstrip("/")))
        yield temporary
        upload(temporary, path)


@contextlib.contextmanager
def _renamed(path: str, suffix: str = "") -> Iterator[str]:
    """Yields a path in the same local or remote folder, which is renamed to `path` when the block succeeds."""
    folder, name = os.path.split(path.rstrip("/"))
    temporary = os.path.join(folder, f"{UNFINISHED}{name}{suffix}")
    remove(temporary)  # left by a killed process
    try:
        yield temporary
        tf.io.gfile.rename(temporary, os.path.join(folder, name), overwrite=True)
    except BaseException:  # not finally: after the rename there is nothing to remove, and remote look-ups are slow
        remove(temporary)
        raise


def upload(source: str, target: str) -> None:
    """Copies a local file, or all files of a local folder that are not hidden, to a remote path, each one atomically.

    Raises:
        tf.errors.OpError: if it cannot be written.
    """
    for file in files_in(source):
        path = target.rstrip("/") + file.removeprefix(source)
        tf.io.gfile.makedirs(folder_of(path))
        with _renamed(path) as temporary:
            tf.io.gfile.copy(file, temporary, overwrite=True)


def read_file(path: str | os.PathLike) -> bytes:
    """Returns the content of a local or remote file; raises tf.errors.OpError if it cannot be read."""
    with tf.io.gfile.GFile(os.fspath(path), "rb") as file:
        return file.read()


def write_file(path: str | os.PathLike, content: str | bytes, *, suffix: str = "") -> None:
    """Replaces a local or remote file atomically.

    Text is encoded as UTF-8; characters without an encoding, such as lone surrogates, are escaped.

    Args:
        suffix: end of the temporary name; a unique one if several processes may write the file at the same time.

    Raises:
        tf.errors.OpError: if it cannot be written; a previous file is unchanged.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    with _renamed(os.fspath(path), suffix) as temporary, tf.io.gfile.GFile(temporary, "wb") as file:
        file.write(content)


@contextlib.contextmanager
def staging_folder(prefix: str, order: Callable[[str], object] | None = None) -> Iterator[str]:
    """Yields a hidden folder for files that belong together; they move beside `prefix` when the block succeeds.

    The folder is `.unfinished-{name}` in the folder of `prefix` and is locked while its process is alive: files left by
    a killed process are removed, files of a running one are not. Ctrl-C during the move takes effect after it, because
    a partial set of files would look complete.

    For a remote prefix the folder is a temporary one of this machine, and another process that writes to the same
    prefix is not noticed. If the upload fails or is interrupted, what was uploaded is removed.

    Args:
        prefix: local or remote path {folder}/{name}; the folder exists.
        order: sort key of the file names for the order of the move; None for alphabetical order.

    Raises:
        BusyError: if another process is writing to the same prefix.
        OSError: if the folder cannot be created, or a file cannot be moved.
        tf.errors.OpError: if a file cannot be uploaded.
    """
    directory, name = os.path.split(prefix)
    if is_remote(prefix):
        with tempfile.TemporaryDirectory() as folder:
            yield folder
            _upload_all(folder, directory, order)
        return
    folder = os.path.join(directory, UNFINISHED + name)
    os.makedirs(folder, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another run is writing {prefix}*; wait for it or choose another name") from None
        except OSError:  # a file system without locks; the user has to avoid concurrent runs
            pass
        if not (os.path.exists(folder) and os.path.samestat(os.fstat(lock), os.stat(folder))):
            raise BusyError(f"another run has just written {prefix}*; start again, or choose another name")
        stack.callback(remove, folder)
        for file in os.listdir(folder):
            remove(os.path.join(folder, file))
        yield folder
        with hold_interrupt():
            for file in sorted(os.listdir(folder), key=order):
                os.replace(os.path.join(folder, file), os.path.join(directory, file))


def _upload_all(folder: str, target: str, order: Callable[[str], object] | None) -> None:
    """Uploads the files of a folder to another one; all or, after an error, none."""
    uploaded = []
    try:
        for file in sorted(os.listdir(folder), key=order):
            uploaded.append(os.path.join(target, file))
            upload(os.path.join(folder, file), uploaded[-1])
    except BaseException:
        for path in uploaded:
            remove(path)
        raise


@contextlib.contextmanager
def hold_interrupt() -> Iterator[None]:
    """Delays Ctrl-C, and SIGTERM if a function handles it, until the end of the block.

    Has no effect outside of the main thread, which alone receives them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(held):
            signal.raise_signal(number)


def check_target(path: str) -> None:
    """Checks that a file or folder can be written, before the work begins, and creates its parent folder.

    Raises:
        TargetError: if `path` exists and is not an empty folder, or its folder cannot be written to.
    """
    check_folder(folder_of(path))
    if tf.io.gfile.exists(path) and (not tf.io.gfile.isdir(path) or tf.io.gfile.listdir(path)):
        raise TargetError(f"{path} exists already; remove it, or choose another name")


def check_file(path: str) -> None:
    """Checks that a file can be written or replaced, before the work begins.

    Raises:
        TargetError: if `path` is a folder, or its folder does not exist or cannot be written to. Folders of a remote
            file system are created.
    """
    folder = folder_of(path)
    if tf.io.gfile.isdir(path) or not (is_remote(folder) or os.path.isdir(folder)):
        raise TargetError(f"expected a file in a folder that exists, got {path}")
    check_folder(folder)


def check_folder(folder: str) -> None:
    """Creates a local or remote folder if it does not exist; raises TargetError if files cannot be created in it."""
    try:
        if is_remote(folder):
            tf.io.gfile.makedirs(folder)
            probe = os.path.join(folder, f"{UNFINISHED}probe-{uuid.uuid4().hex}")
            with tf.io.gfile.GFile(probe, "wb") as file:
                file.write(b"-")
            tf.io.gfile.remove(probe)
            return
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, tf.errors.OpError) as error:
        raise TargetError(
            f"{folder} cannot be written to ({reason_of(error)}); change its permissions, or choose another folder"
        ) from error


def check_distinct(paths: Sequence[str], inputs: Iterable[str], what: str) -> None:
    """Checks that the files to be written, `paths`, are distinct and that none of them is an input.

    Raises:
        TargetError: if not; `what` describes the inputs in the message, such as "--val_json_file".
    """
    if len(set(map(os.path.realpath, paths))) < len(paths):
        raise TargetError(f"{' and '.join(paths)}: one file cannot take several kinds of results; give each its own")
    inputs = set(map(os.path.realpath, inputs))
    if same := [path for path in paths if os.path.realpath(path) in inputs]:
        raise TargetError(f"{same[0]} is {what} and would be overwritten; choose another file")


def remove(path: str) -> None:
    """Removes a local or remote file, or a folder with its content, if it exists."""
    if tf.io.gfile.isdir(path):
        tf.io.gfile.rmtree(path)
    elif tf.io.gfile.exists(path):
        tf.io.gfile.remove(path)
