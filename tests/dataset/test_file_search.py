# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/file_search.py: paths, folders and globs, between hidden files."""

import pytest

from dataset import file_search

HIDDEN = [
    "._a.jpg",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    ".ipynb_checkpoints/a-checkpoint.jpg",
    "__MACOSX/._a.jpg",
    "__MACOSX/a.jpg",
    "sub/.ipynb_checkpoints/deep/a.jpg",
    "sub/._b.jpg",
]


@pytest.fixture
def littered(tmp_path):
    """A folder with images, two of them in subfolders, between hidden files; its own path has hidden parts."""
    folder = tmp_path / ".cache" / "in [1]"
    for name in ["b.jpg", "a.jpg", "c.png", "sub/b.jpg", "sub/deep/a.jpg", *HIDDEN]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize(
    "pattern, names, hidden",
    [
        ("*", ["a.jpg", "b.jpg", "c.png"], [".DS_Store", "._a.jpg", "Thumbs.db", "desktop.ini"]),
        ("*.jpg", ["a.jpg", "b.jpg"], ["._a.jpg"]),
        ("**", ["a.jpg", "b.jpg", "c.png", "sub/b.jpg", "sub/deep/a.jpg"], sorted(HIDDEN)),
        ("**/*", ["a.jpg", "b.jpg", "c.png", "sub/b.jpg", "sub/deep/a.jpg"], sorted(HIDDEN)),
        (
            "**/*.jpg",
            ["a.jpg", "b.jpg", "sub/b.jpg", "sub/deep/a.jpg"],
            sorted(name for name in HIDDEN if name.endswith(".jpg")),
        ),
        ("**.jpg", ["a.jpg", "b.jpg"], ["._a.jpg"]),  # as `*`, like Python's glob and bash
        ("**/a.jpg", ["a.jpg", "sub/deep/a.jpg"], ["__MACOSX/a.jpg", "sub/.ipynb_checkpoints/deep/a.jpg"]),
        ("s*/**/*.jpg", ["sub/b.jpg", "sub/deep/a.jpg"], ["sub/._b.jpg", "sub/.ipynb_checkpoints/deep/a.jpg"]),
        ("*/*.jpg", ["sub/b.jpg"], [".ipynb_checkpoints/a-checkpoint.jpg", "__MACOSX/._a.jpg", "__MACOSX/a.jpg",
                                    "sub/._b.jpg"]),
        ("[ac].*", ["a.jpg", "c.png"], []),
        ("sub/*", ["sub/b.jpg"], ["sub/._b.jpg"]),
        ("*.gif", [], []),
    ],
)  # fmt: skip
def test_globs_are_recursive_and_without_hidden_files(littered, pattern, names, hidden):
    expected = file_search.Found(*([str(littered / name) for name in group] for group in (names, hidden)))
    assert file_search.find_in(littered, pattern) == expected
    plain = littered.with_name("plain")  # a glob cannot begin with the brackets of the other name
    littered.rename(plain)
    found = file_search.expand(f"{plain}/{pattern}")
    assert found == file_search.Found(*([str(plain / name) for name in group] for group in (names, hidden)))


def test_paths_of_globs_begin_as_given(littered, monkeypatch):
    monkeypatch.chdir(littered)
    assert file_search.expand("*.jpg").files == ["a.jpg", "b.jpg"]
    assert file_search.expand("./*.jpg").files == ["./a.jpg", "./b.jpg"]
    assert file_search.expand("../in*/*.png").files == ["../in [1]/c.png"]
    assert file_search.expand("sub/**/*.jpg").files == ["sub/b.jpg", "sub/deep/a.jpg"]
    assert file_search.expand("**/deep/*").files == ["sub/deep/a.jpg"]


def test_files_and_folders_are_taken_as_named(littered):
    """The name of a file may look like a glob, and a hidden folder may be meant."""
    assert file_search.expand(str(littered)).files == [str(littered / name) for name in ("a.jpg", "b.jpg", "c.png")]
    assert file_search.expand(str(littered / "._a.jpg")) == ([str(littered / "._a.jpg")], [])
    hidden_folder = littered / ".ipynb_checkpoints"
    assert file_search.expand(str(hidden_folder)).files == [str(hidden_folder / "a-checkpoint.jpg")]
    assert file_search.expand("") == file_search.expand(str(littered / "none.jpg")) == ([], [])


def test_a_link_to_nothing_is_found(littered):
    (littered / "d.jpg").symlink_to("gone")
    assert str(littered / "d.jpg") in file_search.find_in(littered).files


def test_links_to_folders_are_reported_instead_of_followed(littered, caplog):
    (littered / "circle").symlink_to(littered)
    (littered / "other").symlink_to(littered / "sub")
    assert [name for name in file_search.find_in(littered, "**").files if "/circle/" in name or "/other/" in name] == []
    expected = f"links to folders are not followed: 2 ({littered}/circle, {littered}/other)"
    assert caplog.messages == [expected]
    assert file_search.find_in(littered, "sub/**").files == [f"{littered}/sub/b.jpg", f"{littered}/sub/deep/a.jpg"]
    assert file_search.find_in(littered / "other").files == [f"{littered}/other/b.jpg"]
    assert caplog.messages == [expected]


def test_files_in_has_no_hidden_files(littered):
    names = ["a.jpg", "b.jpg", "c.png", "sub/b.jpg", "sub/deep/a.jpg"]
    assert file_search.files_in(str(littered)) == [str(littered / name) for name in names]


def test_hidden_files_are_counted_once(caplog):
    hidden = [f"data/._{i}.jpg" for i in range(5)]
    for _ in range(2):
        file_search.warn_of_hidden(hidden)
    file_search.warn_of_hidden([])
    assert caplog.messages == ["hidden files ignored: 5 (data/._0.jpg, data/._1.jpg, data/._2.jpg, ...)"]
