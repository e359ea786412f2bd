# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of the cache of records: written once, used again, converted anew after a change, never half-written."""

import collections
import errno
import os
import pathlib
import shutil
import threading
import zipfile

import pytest
import tensorflow as tf
from PIL import Image

from dataset import records
from dataset.convert import pascal, shards, yolo
from dataset.files import TargetError
from dataset.prepare import prepared
from dataset.prepare.prepared_data import ROWS, PreparedData, PreparedSplit
from dataset.tfrecord import DataError
from efficientdet import config as config_lib

NAMES = ["cat", "dog"]


def add_image(folder, number, classes=(0,)):
    """Writes an image that differs by number, and its YOLO labels."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10), (number % 256, number // 256, 0)).save(folder / "images" / f"{number}.png")
    rows = "".join(f"{class_id} 0.5 0.5 0.4 0.4\n" for class_id in classes)
    (folder / "labels" / f"{number}.txt").write_text(rows)


@pytest.fixture
def data(tmp_path):
    """A YOLO dataset of 6 training and 2 validation images."""
    root = tmp_path / "data"
    for number in range(6):
        add_image(root / "train", number, (0, 1) if number < 2 else (0,))
    for number in (6, 7):
        add_image(root / "val", number, (1,))
    (root / "data.yaml").write_text(f"train: train/images\nval: val/images\nnames: {NAMES}\n")
    return root


@pytest.fixture
def conversions(monkeypatch):
    """Prefixes that are converted."""
    write, found = shards.write_shards, []

    def count(source, prefix, **options):
        found.append(os.path.basename(prefix))
        return write(source, prefix, **options)

    monkeypatch.setattr(shards, "write_shards", count)
    return found


def filenames(pattern):
    paths = records.find_files(pattern)
    examples = map(tf.train.Example.FromString, tf.data.TFRecordDataset(paths).as_numpy_iterator())
    return {example.features.feature["image/filename"].bytes_list.value[0].decode() for example in examples}


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


def test_records_are_written_once(data, tmp_path, conversions, caplog):
    first = prepared.prepare(data, tmp_path / "cache")
    assert conversions == ["train", "val"]
    before = tree(tmp_path / "cache")
    second = prepared.prepare(data, tmp_path / "cache")
    assert conversions == ["train", "val"] and tree(tmp_path / "cache") == before
    assert first == second
    assert second.label_map == {1: "cat", 2: "dog"} and second.num_classes == 2
    assert second.num_images == {"train": 6, "val": 2}
    assert second.splits["train"].num_boxes == {1: 6, 2: 2} and second.splits["val"].num_boxes == {2: 2}
    assert len(filenames(second.train_file_pattern)) == 6
    assert filenames(second.find_evaluated().file_pattern) == {"6.png", "7.png"}
    assert not [name for name in before if "unfinished" in name]


def test_annotations_are_read_once(data, tmp_path, monkeypatch):
    read, found = yolo._read_annotation, collections.Counter()

    def count(item, report, **options):
        found[item[2].name] += 1
        return read(item, report, **options)

    monkeypatch.setattr(yolo, "_read_annotation", count)
    prepared.prepare(data, tmp_path / "cache")
    assert set(found.values()) == {1} and len(found) == 8
    (data / "data.yaml").write_text(f"train: train/images\nnames: {NAMES}\n")  # of train, a part is held out by classes
    found.clear()
    prepared.prepare(data, tmp_path / "cache")
    assert set(found.values()) == {2} and len(found) == 6


def test_xml_is_read_for_the_classes_and_for_the_records(data, tmp_path, monkeypatch):
    read, found = pascal.read_xml, collections.Counter()

    def count(voc_set, image_id):
        found[image_id] += 1
        return read(voc_set, image_id)

    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    for image in sorted((data / "train/images").iterdir()) + sorted((data / "val/images").iterdir()):
        xml = f"<annotation><object><name>cat</name>{box}</object></annotation>"
        image.with_suffix(".xml").write_text(xml)
    monkeypatch.setattr(pascal, "read_xml", count)
    assert prepared.prepare(data, tmp_path / "cache", data_format="voc").num_images == {"train": 6, "val": 2}
    assert set(found.values()) == {2} and len(found) == 8


def change_label(data):
    (data / "train" / "labels" / "0.txt").write_text("1 0.5 0.5 0.4 0.4\n")


def touch_image(data):
    os.utime(data / "train" / "images" / "3.png", (1, 1))


CHANGES = {
    "label": change_label,
    "time of an image": touch_image,
    "image added": lambda data: add_image(data / "train", 9),
    "image removed": lambda data: (data / "val" / "images" / "6.png").unlink(),
    "names": lambda data: (data / "data.yaml").write_text("train: train/images\nval: val/images\nnames: [a, b]\n"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_sources_are_converted_anew(data, tmp_path, conversions, caplog, change):
    before = prepared.prepare(data, tmp_path / "cache")
    change(data)
    (data / "train" / ".hidden").write_text("x")
    with caplog.at_level("INFO", "absl"):
        try:
            after = prepared.prepare(data, tmp_path / "cache")
        except DataError as error:  # labels without their image
            assert "left out" in str(error)
            after = None
    assert conversions[2:4][:1] == ["train"]
    assert f"{data} changed since it was converted" in caplog.text
    if after:
        assert after.fingerprint != before.fingerprint


def test_relative_paths_are_the_same_dataset(data, tmp_path, conversions, monkeypatch):
    prepared.prepare(data, tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    prepared.prepare(pathlib.Path("data"), tmp_path / "cache")
    assert conversions == ["train", "val"]


def test_hidden_files_do_not_count(data, tmp_path, conversions):
    prepared.prepare(data, tmp_path / "cache")
    (data / "train" / "images" / ".DS_Store").write_text("x")
    prepared.prepare(data, tmp_path / "cache")
    assert conversions == ["train", "val"]


@pytest.mark.parametrize("in_use", [True, False])
def test_earlier_records_are_kept_only_while_they_are_used(data, tmp_path, in_use):
    before = prepared.prepare(data, tmp_path / "cache")
    if not in_use:
        for lock in prepared._locks.values():
            os.close(lock)
        prepared._locks.clear()
    change_label(data)
    after = prepared.prepare(data, tmp_path / "cache")
    assert bool(tf.io.gfile.glob(before.train_file_pattern)) == in_use
    assert len(filenames(after.train_file_pattern)) == 6


def test_records_of_other_datasets_are_kept(data, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(data, other)
    found = [prepared.prepare(path, tmp_path / "cache") for path in (data, other)]
    assert all(tf.io.gfile.glob(each.train_file_pattern) for each in found)


def test_damaged_records_are_written_again(data, tmp_path, conversions):
    found = prepared.prepare(data, tmp_path / "cache")
    with open(records.find_files(found.train_file_pattern)[0], "ab") as file:
        file.truncate(10)
    again = prepared.prepare(data, tmp_path / "cache")
    assert conversions == ["train", "val"] * 2 and len(filenames(again.train_file_pattern)) == 6


def test_a_validation_split_is_held_out_and_listed(data, tmp_path):
    shutil.rmtree(data / "val")
    (data / "data.yaml").write_text(f"train: train/images\nnames: {NAMES}\n")
    found = prepared.prepare(data, tmp_path / "cache")
    val = filenames(found.find_evaluated().file_pattern)
    train = filenames(found.train_file_pattern)
    [listed] = (tmp_path / "cache").glob("records-*/split_val.txt")
    assert set(listed.read_text().split()) == val and len(val) == 3
    assert not val & train and len(val | train) == 6
    assert filenames(prepared.prepare(data, tmp_path / "b").find_evaluated().file_pattern) == val


def pack(folder, path):
    with zipfile.ZipFile(path, "w") as file:
        for source in sorted(folder.rglob("*")):
            if source.is_file():
                file.write(source, source.relative_to(folder))
    return path


def test_zip(data, tmp_path, conversions):
    path = pack(data, tmp_path / "data.zip")
    found = prepared.prepare(path, tmp_path / "cache")
    assert prepared.prepare(path, tmp_path / "cache") == found and conversions == ["train", "val"]
    assert found.num_images == {"train": 6, "val": 2} and found.description.startswith(f"YOLO in {path}")
    assert len(list((tmp_path / "cache").iterdir())) == 1  # what was unpacked is removed


def test_a_damaged_zip_leaves_nothing(data, tmp_path):
    (tmp_path / "data.zip").write_bytes(pack(data, tmp_path / "whole.zip").read_bytes()[:-200])
    with pytest.raises(DataError, match="cannot unpack"):
        prepared.prepare(tmp_path / "data.zip", tmp_path / "cache")
    assert tree(tmp_path / "cache") == []


@pytest.mark.parametrize(
    "error, message",
    [
        (KeyboardInterrupt(), None),
        (tf.errors.ResourceExhaustedError(None, None, "x.tfrecord; No space left on device"), "has no space left for"),
        (OSError(errno.ENOSPC, "No space left on device", "x.json"), r"no space left .*--data_cache"),
        (OSError(errno.EIO, "Input/output error", "x.jpg"), "Input/output error"),
    ],
)
def test_an_interrupted_conversion_leaves_nothing(data, tmp_path, monkeypatch, error, message):
    write = shards.write_shards

    def fail(source, prefix, **options):
        if prefix.endswith("val"):
            raise error
        return write(source, prefix, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_shards", fail)
        with pytest.raises(DataError if "space" in str(message) else type(error), match=message):
            prepared.prepare(data, tmp_path / "cache")
    assert tree(tmp_path / "cache") == []
    assert prepared.prepare(data, tmp_path / "cache").num_images == {"train": 6, "val": 2}


def test_the_report_of_a_failed_conversion_is_kept(data, tmp_path):
    for number in range(3):
        (data / "train" / "images" / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"left out: 3 of 6.*these are flags of dataset/create") as error:
        prepared.prepare(data, tmp_path / "cache")
    assert f"the full report is {tmp_path / 'cache' / 'report_train.json'}" in str(error.value)
    assert tree(tmp_path / "cache") == ["report_train.json"]


def test_a_cache_without_permission(data, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(TargetError, match="cache cannot be written to"):
        prepared.prepare(data, tmp_path / "cache")


def test_a_cache_in_the_dataset_is_refused(data):
    with pytest.raises(ValueError, match="is inside the dataset"):
        prepared.prepare(data, data / "run" / "data")


def test_two_processes_convert_once(data, tmp_path, monkeypatch, conversions):
    monkeypatch.setattr(prepared, "POLL", 0.05)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(prepared.prepare(data, tmp_path / "cache"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert conversions == ["train", "val"] and len(results) == 3 and results[0] == results[1] == results[2]


def test_several_machines_need_records(data, tmp_path, conversions):
    with pytest.raises(DataError, match="several machines would write them at the same time"):
        prepared.prepare(data, tmp_path / "cache", may_convert=False)
    found = prepared.prepare(data, tmp_path / "cache")
    assert prepared.prepare(data, tmp_path / "cache", may_convert=False) == found


def test_images_that_splits_share_are_counted(data, tmp_path, caplog):
    shutil.copy(data / "train" / "images" / "1.png", data / "val" / "images" / "6.png")
    prepared.prepare(data, tmp_path / "cache")
    assert "images of val that are also in train: 1 (6.png is 1.png)" in caplog.text


def test_records_are_used_as_they_are(data, tmp_path):
    found = prepared.prepare(data, tmp_path / "cache")
    folder = os.path.dirname(found.train_file_pattern)
    again = prepared.prepare(folder, tmp_path / "other")
    assert tree(tmp_path / "other") == []
    assert again.num_images == found.num_images and again.label_map == found.label_map
    assert filenames(again.train_file_pattern) == filenames(found.train_file_pattern)


def test_a_training_that_is_resumed_with_other_data_warns(data, tmp_path, caplog):
    run = tmp_path / "run"
    prepared.note_use(prepared.prepare(data, tmp_path / "cache"), str(run))
    prepared.note_use(prepared.prepare(data, tmp_path / "cache"), str(run))
    assert "the data changed" not in caplog.text
    change_label(data)
    prepared.note_use(prepared.prepare(data, tmp_path / "cache"), str(run))
    assert f"the data changed since the training in {run} began" in caplog.text


def test_one_image_is_refused(data, tmp_path):
    shutil.rmtree(data)
    add_image(data, 1)
    (data / "classes.txt").write_text("cat\n")
    with pytest.raises(DataError, match="expected at least 2 different images"):
        prepared.prepare(data, tmp_path / "cache")
    add_image(data, 2)
    assert prepared.prepare(data, tmp_path / "cache").num_images == {"train": 1, "val": 1}


def test_default_cache():
    assert prepared.default_cache("runs/shop") == prepared.default_cache("runs/shop/archive/") == "runs/shop/data"
    with pytest.raises(ValueError, match="give --data_cache, or --model_dir"):
        prepared.default_cache(None)


def make(num_classes):
    counts = {class_id: 2000 - class_id for class_id in range(1, num_classes + 1)}
    names = {class_id: f"name {class_id}" for class_id in counts}
    split = PreparedSplit("train-*", 10, counts)
    return PreparedData({"train": split}, names, "", "data")


@pytest.mark.parametrize("num_classes, lines", [(1, 4), (ROWS, ROWS + 3), (500, ROWS + 4)])
def test_table(num_classes, lines):
    rows = make(num_classes).show_table().splitlines()
    assert len(rows) == lines <= 20 and rows[1].split() == ["id", "name", "train"]
    assert rows[2].split() == ["images", "10"] and rows[3].split() == ["1", "name", "1", "1999"]
    assert ("... 484 more classes" in rows[min(11, lines - 1)]) == (num_classes == 500)


@pytest.mark.parametrize(
    "typed, expected",
    [({}, 5), ({"num_classes": 7}, 7), ({"num_classes": 3}, "label_map has id 5 .* but num_classes is 3")],
)
def test_classes_follow_from_the_data(typed, expected):
    config = config_lib.load("efficientdet-lite0", "").override(typed)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            make(5).configure(config, typed)
    else:
        found = make(5).configure(config, typed)
        assert found.num_classes == expected and found.label_map[5] == "name 5"
    with pytest.raises(DataError, match="give num_classes and label_map"):
        make(0).configure(config, {})


def test_class_names_of_a_detector_stay():
    config = config_lib.load("efficientdet-lite0", num_classes=3, label_map={1: "dog"})
    assert make(5).configure(config, {}, of_detector=True) == config
    unnamed = config.override({"label_map": None})
    assert make(5).configure(unnamed, {}, of_detector=True).label_map[5] == "name 5"


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"trains": True, "evaluates": True}, ("train-*", "val-*", "val.json")),
        ({"trains": True, "evaluates": False}, ("train-*", None, None)),
        ({"trains": False, "evaluates": True, "split": "train"}, (None, "train-*", None)),
        ({"trains": False, "evaluates": True, "split": "test"}, "data has no split test; expected one of train, val"),
    ],
)
def test_files_of_a_command(options, expected):
    splits = {"train": PreparedSplit("train-*", 10, {}), "val": PreparedSplit("val-*", 2, {}, "val.json")}
    data = PreparedData(splits, {}, "", "data")
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            data.select_files(**options)
    else:
        assert data.select_files(**options) == expected


def test_the_reason_why_no_image_can_be_used_is_reported_without_a_validation_split(tmp_path, data):
    (data / "data.yaml").write_text(f"train: train/images\nnames: {NAMES}\n")
    for number in range(6):
        image = data / "train/images" / f"{number}.png"
        image.symlink_to(image.rename(tmp_path / f"{number}.png"))
    with pytest.raises(DataError, match="no image can be written; file is outside its folder: 6"):
        prepared.prepare(data, tmp_path / "cache")


@pytest.mark.parametrize("zipped", [False, True])
def test_validation_images_are_enough_for_an_evaluation(tmp_path, data, zipped):
    shutil.rmtree(data / "train")
    (data / "data.yaml").write_text(f"val: val/images\nnames: {NAMES}\n")
    path = shutil.make_archive(str(tmp_path / "data"), "zip", data) if zipped else data
    found = prepared.prepare(path, tmp_path / "cache", needs_train=False)
    assert found.num_images == {"val": 2} and found.label_map == {1: "cat", 2: "dog"}
    assert len(filenames(found.find_evaluated().file_pattern)) == 2
    with pytest.raises(DataError, match=r"no split of training images \(found: val\); expected one"):
        prepared.prepare(path, tmp_path / "cache")
