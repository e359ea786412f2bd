# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/convert/voc_set.py: layouts beside that of VOCdevkit, which test_pascal.py covers."""

import pytest

from dataset.convert.voc_set import VocSet
from dataset.tfrecord import DataError


def make_files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    "annotation, image",
    [
        ("Annotations/a.xml", "JPEGImages/a.png"),
        ("Annotations/a.xml", "images/a.png"),
        ("annotations/a.xml", "a.png"),
        ("annotations/train/a.xml", "images/train/a.png"),
        ("Annotations/street/a.b.xml", "JPEGImages/street/a.b.png"),
        ("a.xml", "a.png"),
        ("train/a.xml", "train/a.png"),
        ("images/a.xml", "images/a.png"),
    ],
)
def test_layouts(tmp_path, annotation, image):
    make_files(tmp_path, annotation, image)
    voc_set = VocSet(tmp_path, "all")
    [image_id] = voc_set.image_ids([])
    assert voc_set.annotations / f"{image_id}.xml" == tmp_path / annotation
    assert voc_set.image_path(image_id, "gone.jpg") == tmp_path / image


def test_images_in_a_folder_of_their_own(tmp_path):
    make_files(tmp_path, "export/a.xml", "photos/a.JPG", "photos/b.png")
    voc_set = VocSet(tmp_path / "export", "all", image_dir=tmp_path / "photos")
    assert voc_set.all_ids() == ["a"]
    assert voc_set.image_path("a", "") == tmp_path / "photos/a.JPG"
    assert voc_set.image_path("b-1", "/project/b.png") == tmp_path / "photos/b.png"


@pytest.mark.parametrize("folder", ["", "Annotations/"])
def test_sets_are_subfolders(tmp_path, folder):
    make_files(tmp_path, *(f"{folder}{name}.xml" for name in ("train/b", "train/a", "valid/a", "train2/c")))
    sets = {name: VocSet(tmp_path, name).image_ids([]) for name in ("train", "val", "valid", "all")}
    assert sets == {
        "train": ["train/a", "train/b"],
        "val": ["valid/a"],
        "valid": ["valid/a"],
        "all": ["train/a", "train/b", "train2/c", "valid/a"],
    }
    message = r"has no subfolder of annotations 'test' \(available: train, train2, valid\); choose another --set"
    with pytest.raises(DataError, match=message):
        VocSet(tmp_path, "test").image_ids([])


def test_subfolders_that_are_no_sets_are_all_taken(tmp_path):
    make_files(tmp_path, "Annotations/cam1/a.xml", "Annotations/cam2/a.xml")
    assert VocSet(tmp_path, "train").image_ids([]) == ["cam1/a", "cam2/a"]


def test_the_folder_of_several_years_is_refused(tmp_path):
    make_files(tmp_path, "VOC2007/Annotations/a.xml", "VOC2012/Annotations/a.xml")
    with pytest.raises(DataError, match=r"folder .*/Annotations does not exist, and .* check data_dir, year"):
        VocSet(tmp_path, "all").image_ids([])


def test_lists_with_suffixes_quotes_and_class_flags(tmp_path):
    make_files(tmp_path, *(f"Annotations/{name}.xml" for name in ("a", "b 1", "c.jpg", "sub/d")))
    lists = tmp_path / "ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text('a.JPG\n"b 1"\nc.jpg\nsub/d\nmissing.png\n')
    assert VocSet(tmp_path, "train").image_ids([]) == ["a", "b 1", "c.jpg", "sub/d", "missing"]
    (lists / "Dog_val.txt").write_text("a.jpg 1\nb 1.jpg -1\n")
    (lists / "Cat_val.txt").write_text("b 1.jpg 1\nc.jpg -1\n")
    assert VocSet(tmp_path, "val").image_ids(["Cat", "Dog"]) == ["b 1", "c.jpg", "a"]
