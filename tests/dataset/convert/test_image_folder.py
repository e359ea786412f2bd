# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/convert/image_folder.py."""

import pytest

from dataset.convert.conversion_report import ConversionReport
from dataset.convert.image_file import ImageError
from dataset.convert.image_folder import MOVED, ImageFolder


def make_files(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    "name, file, is_noted",
    [
        ("a.jpg", "a.jpg", False),
        ("images/a.jpg", "images/a.jpg", False),
        ("images\\a.jpg", "images/a.jpg", False),
        ("images\\a.jpg", "a.jpg", True),
        ("images/a.jpg", "a.jpg", True),
        ("a.jpg", "default/a.jpg", True),
        ("upload/1/5f2a-a.jpg", "images/5f2a-a.jpg", None),
        ("upload/1/5f2a-a.jpg", "5f2a-a.jpg", True),
        ("/data/upload/1/5f2a-a.jpg", "5f2a-a.jpg", True),
        ("/data/upload/1/5f2a-a.jpg", "upload/1/5f2a-a.jpg", True),
        ("../../media/upload/1/a.jpg", "a.jpg", True),
        ("C:\\Users\\me\\images\\a.jpg", "images/a.jpg", True),
        ("http://localhost:8080/data/upload/1/a%20b.jpg", "a b.jpg", True),
        ("/data/local-files/?d=street/a.jpg", "street/a.jpg", True),
        ("cam2/a.jpg", "cam1/a.jpg", None),
        ("a.jpg", "b.jpg", None),
        ("a.jpg", "a.JPG", None),
    ],
)
def test_names_of_tools(tmp_path, name, file, is_noted):
    make_files(tmp_path / "export", [file, "other.jpg"])
    report = ConversionReport()
    folder = ImageFolder(tmp_path / "export", [name, "other.jpg"])
    if is_noted is None:
        with pytest.raises(ImageError):
            folder.find(name, report)
    else:
        assert folder.find(name, report) == tmp_path / "export" / file
    expected = {MOVED: [f"{file} for {name}"]} if is_noted else {}
    assert {reason: entry.first for reason, entry in report.reasons.items()} == expected


@pytest.mark.parametrize(
    "names, files",
    [
        (["cam1/a.jpg", "cam2/a.jpg"], ["a.jpg"]),  # one file for two images
        (["a.jpg"], ["cam1/a.jpg", "cam2/a.jpg"]),
    ],
)
def test_ambiguous_names_are_missing(tmp_path, names, files):
    make_files(tmp_path, files)
    folder = ImageFolder(tmp_path, names)
    for name in names:
        with pytest.raises(ImageError, match="does not exist"):
            folder.find(name, ConversionReport())


def test_names_whose_separators_differ_are_paths(tmp_path):
    make_files(tmp_path / "images", ["cam1/a.jpg", "cam2/a.jpg"])
    names, report = ["cam1\\a.jpg", "cam2\\a.jpg"], ConversionReport()
    folder = ImageFolder(tmp_path / "images", names)
    assert [folder.find(name, report) for name in names] == [tmp_path / f"images/cam{i}/a.jpg" for i in (1, 2)]
    assert not report.reasons
    with pytest.raises(ImageError):
        folder.find("..\\cam1\\a.jpg", report)


def test_the_folder_of_other_images_is_not_searched(tmp_path):
    make_files(tmp_path, ["cam1/0001.jpg", "cam2/0001.jpg"])
    with pytest.raises(ImageError, match=r"cam2/0001\.jpg does: is .*cam1 the right folder\?"):
        ImageFolder(tmp_path / "cam1", ["cam2/0001.jpg"]).find("cam2/0001.jpg", ConversionReport())
    folder = ImageFolder(tmp_path / "cam2", ["cam2/0001.jpg"])
    assert folder.find("cam2/0001.jpg", ConversionReport()) == tmp_path / "cam2/0001.jpg"


def test_files_outside_the_folder_are_not_found(tmp_path):
    make_files(tmp_path, ["secret.jpg", "export/a.jpg"])
    (tmp_path / "export/linked.jpg").symlink_to(tmp_path / "secret.jpg")
    for name in ("../secret.jpg", f"{tmp_path}/secret.jpg", "upload/linked.jpg", "secret.jpg\0"):
        with pytest.raises(ImageError):
            ImageFolder(tmp_path / "export", [name]).find(name, ConversionReport())
