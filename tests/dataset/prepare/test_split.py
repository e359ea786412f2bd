# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/prepare/split.py."""

import collections
import random

import pytest
from absl import logging

from dataset.convert.annotation import AnnotatedObject, Annotation, Source
from dataset.convert.conversion_report import ConversionReport
from dataset.convert.image_file import ImageError
from dataset.prepare import split
from dataset.tfrecord import DataError


def make_source(folder, images):
    """Returns a source of {name: (content, class ids)}; content None: an annotation that cannot be read."""
    for name, (content, _) in images.items():
        if content is not None:
            (folder / name).write_bytes(content)

    def find_image(item):
        if images[item[0]][0] is None:
            raise ImageError("file is missing", item[0])
        return item[0], folder / item[0]

    def read(item, report):
        (name, path), classes = find_image(item), images[item[0]][1]
        objects = [AnnotatedObject((0, 0, 1, 1), class_id, f"c{class_id}", "row") for class_id in classes]
        return Annotation(path, name, item[1], None, objects)

    items = [(name, str(i)) for i, name in enumerate(images, start=1)]
    report = ConversionReport()
    report.note("note", "once")
    return Source(items, read, find_image, {1: "c1"}, report, write_groundtruth=False)


def distinct(number, classes=(1,)):
    return {f"{i}.jpg": (str(i).encode(), classes) for i in range(number)}


def names(source):
    return [item[0] for item in source.items]


@pytest.mark.parametrize(
    "number, expected", [(2, 1), (3, 1), (4, 2), (30, 15), (41, 20), (200, 20), (300, 30), (305, 30), (60_000, 5000)]
)
def test_numbers(number, expected):
    groups = [[split._Image(i, str(i), None, frozenset())] for i in range(number)]
    chosen = split._choose(groups, split.num_held_out(number))
    assert len(chosen) == expected


def test_parts_are_complete_disjoint_and_keep_order_and_ids(tmp_path):
    source = make_source(tmp_path, distinct(300))
    train, val, listed = split.hold_out(source, seed=0)
    assert (len(train.items), len(val.items)) == (270, 30)
    assert sorted(train.items + val.items) == sorted(source.items)
    for part in (train, val):
        assert part.items == [item for item in source.items if item in part.items]
        assert part.label_map == source.label_map
    assert val.write_groundtruth and not train.write_groundtruth
    assert (list(train.report.reasons), list(val.report.reasons)) == (["note"], [])  # counted once
    assert listed == names(val)


def test_the_choice_depends_on_seed_and_names_alone(tmp_path):
    images = distinct(200)
    expected = set(names(split.hold_out(make_source(tmp_path, images), seed=3)[1]))
    order = list(images)
    random.Random(0).shuffle(order)
    shuffled = make_source(tmp_path, {name: images[name] for name in order})
    assert set(names(split.hold_out(shuffled, seed=3)[1])) == expected
    other = set(names(split.hold_out(shuffled, seed=4)[1]))
    assert other != expected and len(other) == 20


@pytest.mark.parametrize("seed", range(5))
def test_identical_files_stay_together(tmp_path, seed):
    images = {f"{i}.jpg": (str(i // 4).encode(), [1]) for i in range(120)}
    train, val, _ = split.hold_out(make_source(tmp_path, images), seed=seed)
    assert len(val.items) == 20
    assert {images[name][0] for name in names(train)}.isdisjoint(images[name][0] for name in names(val))


@pytest.mark.parametrize("seed", range(5))
def test_classes_are_in_both_parts(tmp_path, seed):
    images = distinct(200)
    for number, class_id in ((1, 7), (2, 8), (3, 9)):  # class: number of its images
        for i in range(number):
            images[f"rare-{class_id}-{i}.jpg"] = (f"{class_id} {i}".encode(), [1, class_id])
    train, val, _ = split.hold_out(make_source(tmp_path, images), seed=seed)
    counts = [collections.Counter(c for name in names(part) for c in images[name][1]) for part in (train, val)]
    assert (counts[0][7], counts[1][7]) == (1, 0)  # an only image trains
    assert all(counts[part][class_id] >= 1 for part in (0, 1) for class_id in (1, 8, 9))
    assert len(val.items) == 21


def test_500_classes(tmp_path):
    images = {f"{i}.jpg": (str(i).encode(), [i % 500 + 1]) for i in range(1000)}
    train, val, _ = split.hold_out(make_source(tmp_path, images), seed=0)
    assert len(val.items) == 100
    assert {images[name][1][0] for name in names(train)} == set(range(1, 501))
    images = {f"{i}.jpg": (str(i).encode(), [i + 1]) for i in range(100)}  # one image each
    assert len(split.hold_out(make_source(tmp_path, images), seed=0)[1].items) == 20


@pytest.mark.parametrize(
    "images, message",
    [
        ({"a.jpg": (b"1", [1])}, r"found 1 images and no validation split: expected at least 2 different images"),
        ({}, "found 0 images and no validation split"),
        ({name: (b"1", [1]) for name in "abc"}, "found 3 images, all of them identical to a, and no validation split"),
    ],
)
def test_too_few_images(tmp_path, images, message):
    with pytest.raises(DataError, match=message):
        split.hold_out(make_source(tmp_path, images), seed=0)


def test_few_images_are_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        split.hold_out(make_source(tmp_path, distinct(3)), seed=0)
    assert "only 3 images, of which 1 are held out" in caplog.text
    caplog.clear()
    split.hold_out(make_source(tmp_path, distinct(4)), seed=0)
    assert not caplog.text


def test_images_that_cannot_be_read_stay_in_training(tmp_path):
    source = make_source(tmp_path, {**distinct(50), "bad.jpg": (None, [])})
    train, val, _ = split.hold_out(source, seed=0)
    assert "bad.jpg" in names(train) and (len(train.items), len(val.items)) == (31, 20)


def test_shared_images(tmp_path):
    (tmp_path / "val").mkdir()
    train = make_source(tmp_path, {**distinct(10), "copy.jpg": (b"3", [1])})
    val = make_source(tmp_path / "val", {"x.jpg": (b"3", [1]), "y.jpg": (b"4", [1]), "new.jpg": (b"n", [1])})
    assert split.show_shared({"train": train, "val": val, "test": make_source(tmp_path, {})}) == [
        "images of val that are also in train: 2 (x.jpg is 3.jpg; y.jpg is 4.jpg); AP on them says nothing about new "
        "images"
    ]
    assert split.show_shared({"train": train}) == []
    [message] = split.show_shared({"train": train, "val": train})  # one folder for both
    assert message.startswith("images of val that are also in train: 11 (0.jpg is 0.jpg; ")
