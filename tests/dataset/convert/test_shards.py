# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/convert/shards.py: shards, report and groundtruth."""

import io
import json
import os
import resource
import signal
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image

from dataset import files, label_map, tfrecord
from dataset.convert import shards
from dataset.convert.annotation import CROWDS, AnnotatedObject, Annotation, Source
from dataset.convert.conversion_report import ConversionReport
from dataset.convert.image_file import ImageError
from dataset.convert.shards import open_shards


@pytest.fixture
def folder(tmp_path):
    """A folder with ten images of 8 x 12 pixels, 0.png to 9.png."""
    (tmp_path / "images").mkdir()
    for i in range(10):
        image = np.full((8, 12, 3), 20 * i, np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")
    return tmp_path


def annotate(folder):
    """Returns a function that annotates image i with i % 3 objects; a box of image 4 and image 7 are left out."""

    def read(i, report):
        if i == 7:
            raise ImageError("images that are seven", f"image {i} is left out")
        time.sleep(0.01 * (i % 2))  # so that threads finish out of order
        objects = [AnnotatedObject((k, 1, k + 4, 5), k + 1, "ab"[k], f"object {k}") for k in range(i % 3)]
        if i == 4:
            report.leave_out("boxes", "boxes of four", "object 1 of 4.png")
        return Annotation(folder / "images" / f"{i}.png", f"{i}.png", str(i), (8, 12), objects)

    return read


def locate(folder):
    """Returns a function that finds image i."""
    return lambda i: (f"{i}.png", folder / "images" / f"{i}.png")


def convert(folder, items=range(10), name="out", report=None, write_groundtruth=False, **options):
    options = {"num_shards": 3, "max_bad_fraction": 0.5, **options}
    label_map, report = {1: "a", 2: "b"}, report or ConversionReport()
    source = Source(items, annotate(folder), locate(folder), label_map, report, write_groundtruth=write_groundtruth)
    return shards.write_shards(source, folder / "new" / name, **options)


def written_files(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "new").iterdir())}


def samples(folder, pattern="out-*"):
    paths = sorted((folder / "new").glob(pattern))
    return [tfrecord.decode(raw) for path in paths for raw in tf.data.TFRecordDataset(str(path))]


def test_records_report_and_groundtruth(folder):
    report = convert(folder, write_groundtruth=True)
    assert sorted(written_files(folder)) == [
        "json_out.json",
        *(f"out-{i:05d}-of-00003.tfrecord" for i in range(3)),
        "report_out.json",
    ]
    # Record i is in shard i mod 3; image 7 of 0 to 9 is left out.
    assert [int(sample["source_id"]) for sample in samples(folder)] == [0, 3, 6, 1, 4, 8, 2, 5, 9]
    (sample,) = (sample for sample in samples(folder) if sample["source_id"] == b"5")
    np.testing.assert_allclose(sample["boxes_norm"] * [8, 12, 8, 12], [[1, 0, 5, 4], [1, 1, 5, 5]], atol=1e-5)
    assert sample["image"].numpy().tolist() == np.full((8, 12, 3), 100).tolist()

    assert report.written == {"images": 9, "boxes": 8}
    assert json.loads((folder / "new" / "report_out.json").read_text()) == {
        "images": 9,
        "images_without_boxes": 4,
        "boxes": 8,
        "images_left_out": 1,
        "boxes_left_out": 1,
        "reasons": {
            "boxes of four": {"count": 1, "first": ["object 1 of 4.png"]},
            "images that are seven": {"count": 1, "first": ["image 7 is left out"]},
        },
    }
    groundtruth = json.loads((folder / "new" / "json_out.json").read_text())
    assert [image["id"] for image in groundtruth["images"]] == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert groundtruth["images"][0] == {"file_name": "0.png", "height": 8, "width": 12, "id": 0}
    assert groundtruth["categories"][1] == {"supercategory": "none", "id": 2, "name": "b"}
    assert [row["id"] for row in groundtruth["annotations"]] == list(range(1, 9))
    assert groundtruth["annotations"][2] == {
        "id": 3,
        "image_id": 2,
        "category_id": 2,
        "bbox": [1.0, 1.0, 4.0, 4.0],
        "area": 16.0,
        "iscrowd": 0,
        "ignore": 0,
        "segmentation": [],
    }


def test_output_does_not_depend_on_the_number_of_threads(folder):
    written = []
    for num_threads in (1, 4):
        convert(folder, num_threads=num_threads, write_groundtruth=True)
        written.append(written_files(folder))
    assert written[0] == written[1]


def test_more_images_than_read_ahead(folder, monkeypatch):
    monkeypatch.setattr(shards, "READ_AHEAD", 1)
    assert convert(folder).written["images"] == 9


@pytest.mark.parametrize(
    "max_bad_fraction, message",
    [
        (
            0.09,
            r"too many images left out: 1 of 10, above max_bad_fraction=0.09; .*seven: 1 \(image 7 is left out\)",
        ),
        (0.105, r"too many boxes left out: 1 of 9, above max_bad_fraction=0.105; boxes of four: 1 \(object 1 of 4"),
    ],
)
def test_too_many_left_out_fails_and_writes_only_the_report(folder, max_bad_fraction, message):
    with pytest.raises(tfrecord.DataError, match=message):
        convert(folder, max_bad_fraction=max_bad_fraction)
    assert list(written_files(folder)) == ["report_out.json"]


def test_no_image_fails(folder):
    with pytest.raises(tfrecord.DataError, match=r"no image can be written; images that are seven: 1 \("):
        convert(folder, items=[7], max_bad_fraction=1.0)
    with pytest.raises(tfrecord.DataError, match=r"no image can be written; the full report is .*report_out"):
        convert(folder, items=[])


def test_notes_on_the_input_count(folder):
    report = ConversionReport()
    for i in range(9):
        report.leave_out("boxes", "unlisted", f"annotation {i}")
    with pytest.raises(tfrecord.DataError, match="too many boxes left out: 10 of 18, above"):
        convert(folder, report=report)


def test_an_interrupted_run_leaves_no_file(folder):
    def read(i, report):
        if i == 5:
            raise KeyboardInterrupt
        return annotate(folder)(i, report)

    with pytest.raises(KeyboardInterrupt):
        source = Source(range(10), read, locate(folder), {}, ConversionReport())
        shards.write_shards(source, folder / "new" / "out", num_shards=2, num_threads=2)
    assert written_files(folder) == {}


@pytest.mark.parametrize("name", ["train", "report", "json", "j", "label_map", "r"])
def test_names_of_companion_files_do_not_match_the_prefix(folder, name):
    convert(folder, name=name, write_groundtruth=True)
    shards.write_label_map(folder / "new" / name, {1: "a"})
    assert len(written_files(folder)) == 6
    assert len(list((folder / "new").glob(f"{name}*"))) == 3


def test_label_map_is_readable_as_config_value(tmp_path):
    names = {1: "größe", 2: "no", 3: "1"}
    path = shards.write_label_map(tmp_path / "train", names)
    assert path == str(tmp_path / "label_map_train.yaml")
    assert label_map.resolve(path) == yaml.safe_load((tmp_path / "label_map_train.yaml").read_text("utf-8")) == names


def encoded(source_id):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(buffer, "PNG")
    record = tfrecord.Record(buffer.getvalue(), 2, 2, "a.png", str(source_id), "png")
    return tfrecord.encode(record)


def read_ids(path):
    return [int(tfrecord.decode(raw)["source_id"]) for raw in tf.data.TFRecordDataset(str(path))]


def write(prefix, num_shards, num_records):
    with open_shards(prefix, num_shards) as append:
        for i in range(num_records):
            append(encoded(i))


def test_records_are_written_to_shards_in_rotation(tmp_path):
    write(tmp_path / "new" / "train", 3, 7)
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == [f"train-{i:05d}-of-00003.tfrecord" for i in range(3)]
    assert [read_ids(tmp_path / "new" / name) for name in names] == [[0, 3, 6], [1, 4], [2, 5]]


def test_a_failed_run_leaves_old_shards_unchanged(tmp_path):
    write(tmp_path / "train", 2, 4)
    with pytest.raises(KeyboardInterrupt), open_shards(tmp_path / "train", 2) as append:
        append(encoded(9))
        assert len(list(tmp_path.glob("train*"))) == 2  # the unfinished ones do not match
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"train-{i:05d}-of-00002.tfrecord" for i in range(2)]
    assert read_ids(tmp_path / "train-00000-of-00002.tfrecord") == [0, 2]


def test_more_shards_than_open_files_give_a_one_line_error(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, hard))
    try:
        with pytest.raises(tfrecord.DataError, match=r"^cannot open shard \d\d of 400: .*open files.*lower num_shards"):
            write(tmp_path / "train", 400, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "train", 2, 1)  # the lock is released


def test_ctrl_c_takes_effect_after_all_shards_are_moved(tmp_path, monkeypatch):
    def replace(source, target):
        signal.raise_signal(signal.SIGINT)
        os.rename(source, target)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs of a shell
    monkeypatch.setattr(os, "replace", replace)
    try:
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "train", 3, 6)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"train-{i:05d}-of-00003.tfrecord" for i in range(3)]
    assert read_ids(tmp_path / "train-00002-of-00003.tfrecord") == [2, 5]


def test_shards_can_be_written_in_another_thread(tmp_path):
    thread = threading.Thread(target=write, args=(tmp_path / "train", 2, 4))
    thread.start()
    thread.join()
    assert read_ids(tmp_path / "train-00001-of-00002.tfrecord") == [1, 3]


def test_files_of_a_killed_run_are_removed(tmp_path):
    left = tmp_path / ".unfinished-train"
    left.mkdir()
    for name in ("lock", "0", "7"):
        (left / name).write_bytes(b"left")
    write(tmp_path / "train", 1, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["train-00000-of-00001.tfrecord"]
    assert read_ids(tmp_path / "train-00000-of-00001.tfrecord") == [0]


def test_concurrent_runs_cannot_write_the_same_shards(tmp_path):
    with open_shards(tmp_path / "train", 1) as append:
        with pytest.raises(files.TargetError, match=r"another run is writing .*train\*; wait for it"):
            write(tmp_path / "train", 1, 3)
        append(encoded(9))
    assert read_ids(tmp_path / "train-00000-of-00001.tfrecord") == [9]


def test_shards_of_another_number_are_rejected(tmp_path):
    write(tmp_path / "train", 2, 4)
    with pytest.raises(tfrecord.DataError, match=r"train-00000-of-00002.*another number of shards than 3"):
        write(tmp_path / "train", 3, 4)
    write(tmp_path / "train-2", 3, 4)  # another prefix
    write(tmp_path / "train", 2, 1)  # the same number: replaced
    assert read_ids(tmp_path / "train-00001-of-00002.tfrecord") == []


@pytest.mark.parametrize("prefix, num_shards, message", [("a", 0, "at least 1"), ("", 1, "path"), ("a/", 1, "path")])
def test_open_shards_rejects_invalid_arguments(prefix, num_shards, message):
    with pytest.raises(tfrecord.DataError, match=message), open_shards(prefix, num_shards):
        pass


def test_error_message_shows_one_name_per_reason():
    report = ConversionReport()
    report.written = {"images": 1, "boxes": 1}
    for reason, count in (("a", 4), ("b", 3), ("c", 1), ("d", 1)):
        for i in range(count):
            report.leave_out("boxes", reason, f"{reason}{i}")
    assert shards.find_excess(report, 0.1) == (
        "too many boxes left out: 9 of 10, above max_bad_fraction=0.1; "
        "a: 4 (a0 and 3 more); b: 3 (b0 and 2 more); c: 1 (c0)"
    )


@pytest.mark.parametrize(
    "boxes, crowds, expected",
    [
        (0, 0, "no image has a box: nothing can be trained on these records, and AP would be -1"),
        (36, 36, "36 of 36 boxes are crowds (iscrowd: 1), which training leaves out and AP ignores; export polygons"),
        (100, 11, "11 of 100 boxes are crowds"),
        (100, 10, None),
        (5, 0, None),
    ],
)
def test_find_unusable(boxes, crowds, expected):
    report = ConversionReport()
    report.written.update(images=12, boxes=boxes)
    for i in range(crowds):
        report.note(CROWDS, f"annotation {i} of a.jpg")
    warning = shards.find_unusable(report)
    assert warning is None if expected is None else warning.startswith(expected)
    assert "skip_crowd_during_training=false" in warning if crowds > 10 else True
