# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/file_access.py: local folders as remote ones, of which TensorFlow's ram:// is an example."""

import builtins

import pytest
import tensorflow as tf

from dataset import file_access


@pytest.mark.parametrize("scheme", ["", "ram://", "file://"])
def test_files_and_folders_are_found(tmp_path, scheme):
    folder = f"{scheme}{tmp_path}/run"
    assert file_access.is_remote(folder) == bool(scheme)
    assert not file_access.exists(folder) and not file_access.is_folder(folder)
    tf.io.gfile.makedirs(folder)
    for name in ("b", "a"):
        with tf.io.gfile.GFile(f"{folder}/{name}", "w") as file:
            file.write("x")
    assert file_access.exists(folder) and file_access.is_folder(folder)
    assert file_access.exists(f"{folder}/a") and not file_access.is_folder(f"{folder}/a")
    assert sorted(file_access.names_in(folder)) == ["a", "b"]


def test_local_folders_need_no_tensorflow(tmp_path, monkeypatch):
    """Importing it would take seconds, before an error in the flags is reported."""
    importer = builtins.__import__
    names = []
    monkeypatch.setattr(builtins, "__import__", lambda name, *args: names.append(name) or importer(name, *args))
    assert file_access.exists(str(tmp_path)) and file_access.names_in(str(tmp_path)) == [] and names == []
    assert not file_access.exists("ram://none") and names[:1] == ["tensorflow"]
