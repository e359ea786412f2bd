# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Look-ups in local and remote folders; local ones without TensorFlow, whose import takes seconds."""

import os


def is_remote(path: str | os.PathLike) -> bool:
    """Returns True for a URL such as gs://bucket/file, which tf.io.gfile reads and writes.

    >>> is_remote("gs://bucket/train.tfrecord"), is_remote("/data/train.tfrecord")
    (True, False)
    """
    return "://" in os.fspath(path)


def exists(path: str) -> bool:
    """Returns True if there is a local or remote file or folder."""
    return _gfile().exists(path) if is_remote(path) else os.path.exists(path)


def is_folder(path: str) -> bool:
    """Returns True if there is a local or remote folder."""
    return _gfile().isdir(path) if is_remote(path) else os.path.isdir(path)


def names_in(folder: str) -> list[str]:
    """Returns the names of the files and folders in a local or remote folder, which exists."""
    return _gfile().listdir(folder) if is_remote(folder) else os.listdir(folder)


def _gfile():
    import tensorflow as tf

    return tf.io.gfile
