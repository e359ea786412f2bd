# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""conversion: shards, report and groundtruth, the same for any number of threads, whole or not at all."""

import io
import json
import os
import resource
import signal
import threading
import time
import types

import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image

from dataset import command_line, files, label_map, tfrecord
from dataset.convert import shards
from dataset.convert.annotation import AnnotatedObject, Annotation
from dataset.convert.conversion_report import Notes, Report
from dataset.convert.image_file import ImageError
from dataset.convert.shards import ShardWriter


@pytest.fixture
def folder(tmp_path):
    """A folder with ten images of 8 x 12 pixels, 0.png to 9.png."""
    (tmp_path / "images").mkdir()
    for i in range(10):
        image = np.full((8, 12, 3), 20 * i, np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")
    return tmp_path


def annotate(folder):
    """Reads an annotation of image i with i % 3 objects; of image 4 a box is left out, and image 7 itself."""

    def read(i, notes):
        if i == 7:
            raise ImageError("images that are seven", f"image {i} is left out")
        time.sleep(0.01 * (i % 2))  # threads overtake each other
        objects = [AnnotatedObject((k, 1, k + 4, 5), k + 1, "ab"[k], f"object {k}") for k in range(i % 3)]
        if i == 4:
            notes.leave_out_box("boxes of four", "object 1 of 4.png")
        return Annotation(folder / "images" / f"{i}.png", f"{i}.png", str(i), (8, 12), objects)

    return read


def convert(folder, items=range(10), name="out", **options):
    options = {"num_shards": 3, "max_bad_fraction": 0.5, **options}
    return shards.run(list(items), annotate(folder), folder / "new" / name, **options)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "new").iterdir())}


def samples(folder, pattern="out-*"):
    paths = sorted((folder / "new").glob(pattern))
    return [tfrecord.decode(raw) for path in paths for raw in tf.data.TFRecordDataset(str(path))]


def test_records_report_and_groundtruth(folder):
    report = convert(folder, groundtruth_categories={"a": 1, "b": 2})
    assert sorted(content(folder)) == [
        "json_out.json",
        *(f"out-{i:05d}-of-00003.tfrecord" for i in range(3)),
        "report_out.json",
    ]
    # Record i goes to shard i mod 3; of images 0 to 9 the seventh is missing.
    assert [int(sample["source_id"]) for sample in samples(folder)] == [0, 3, 6, 1, 4, 8, 2, 5, 9]
    (sample,) = (sample for sample in samples(folder) if sample["source_id"] == b"5")
    np.testing.assert_allclose(sample["boxes_norm"] * [8, 12, 8, 12], [[1, 0, 5, 4], [1, 1, 5, 5]], atol=1e-5)
    assert sample["image"].numpy().tolist() == np.full((8, 12, 3), 100).tolist()

    assert report.written == {"images": 9, "boxes": 8}
    assert json.loads((folder / "new" / "report_out.json").read_text()) == {
        "images": 9,
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


def test_the_number_of_threads_changes_no_byte(folder):
    written = []
    for num_threads in (1, 4):
        convert(folder, num_threads=num_threads, groundtruth_categories={"a": 1, "b": 2})
        written.append(content(folder))
    assert written[0] == written[1]


def test_more_images_than_are_read_ahead(folder, monkeypatch):
    monkeypatch.setattr(shards, "READ_AHEAD", 1)
    assert convert(folder).written["images"] == 9


@pytest.mark.parametrize(
    "max_bad_fraction, message",
    [
        (
            0.09,
            r"too much is left out: 1 of 10 images, above max_bad_fraction=0.09; .*seven: 1 \(image 7 is left out\)",
        ),
        (0.105, r"too much is left out: 1 of 9 boxes, above max_bad_fraction=0.105; boxes of four: 1 \(object 1 of 4"),
    ],
)
def test_too_much_left_out_fails_and_writes_the_report_alone(folder, max_bad_fraction, message):
    with pytest.raises(tfrecord.DataError, match=message):
        convert(folder, max_bad_fraction=max_bad_fraction)
    assert list(content(folder)) == ["report_out.json"]


def test_nothing_left_fails(folder):
    with pytest.raises(tfrecord.DataError, match=r"there is no image that can be written; images that are seven: 1 \("):
        convert(folder, items=[7], max_bad_fraction=1.0)
    with pytest.raises(
        tfrecord.DataError, match=r"there is no image that can be written; all of it is in .*report_out"
    ):
        convert(folder, items=[])


def test_notes_made_before_count(folder):
    notes = Notes()
    for i in range(9):
        notes.leave_out_box("unlisted", f"annotation {i}")
    with pytest.raises(tfrecord.DataError, match="10 of 18 boxes, above"):
        convert(folder, notes=notes)


def test_an_interrupted_run_leaves_nothing_that_looks_whole(folder):
    def read(i, notes):
        if i == 5:
            raise KeyboardInterrupt
        return annotate(folder)(i, notes)

    with pytest.raises(KeyboardInterrupt):
        shards.run(list(range(10)), read, folder / "new" / "out", num_shards=2, num_threads=2)
    assert content(folder) == {}


@pytest.mark.parametrize("name", ["train", "report", "json", "j", "label_map", "r"])
def test_what_is_beside_the_shards_does_not_match_their_prefix(folder, name):
    convert(folder, name=name, groundtruth_categories={"a": 1, "b": 2})
    shards.write_label_map(folder / "new" / name, {1: "a"})
    assert len(content(folder)) == 6
    assert len(list((folder / "new").glob(f"{name}*"))) == 3


def test_label_map_is_what_the_hparam_reads(tmp_path):
    names = {1: "größe", 2: "no", 3: "1"}
    path = shards.write_label_map(tmp_path / "train", names)
    assert path == tmp_path / "label_map_train.yaml"
    assert label_map.resolve(str(path)) == yaml.safe_load(path.read_text("utf-8")) == names


def encoded(source_id):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(buffer, "PNG")
    record = tfrecord.Record(buffer.getvalue(), 2, 2, "a.png", str(source_id), "png")
    return tfrecord.encode(record)


def read_ids(path):
    return [int(tfrecord.decode(raw)["source_id"]) for raw in tf.data.TFRecordDataset(str(path))]


def write(prefix, num_shards, num_records):
    with ShardWriter(prefix, num_shards) as writer:
        for i in range(num_records):
            writer.write(encoded(i))


def test_shards_take_turns_and_keep_order(tmp_path):
    write(tmp_path / "new" / "train", 3, 7)
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == [f"train-{i:05d}-of-00003.tfrecord" for i in range(3)]
    assert [read_ids(tmp_path / "new" / name) for name in names] == [[0, 3, 6], [1, 4], [2, 5]]


def test_a_failed_run_leaves_nothing_and_the_old_shards_untouched(tmp_path):
    write(tmp_path / "train", 2, 4)
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path / "train", 2) as writer:
        writer.write(encoded(9))
        assert len(list(tmp_path.glob("train*"))) == 2  # the unfinished ones do not match
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"train-{i:05d}-of-00002.tfrecord" for i in range(2)]
    assert read_ids(tmp_path / "train-00000-of-00002.tfrecord") == [0, 2]


def test_more_shards_than_open_files_are_one_sentence(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, hard))
    try:
        with pytest.raises(tfrecord.DataError, match=r"^cannot open shard \d\d of 400: .*open files.*lower num_shards"):
            write(tmp_path / "train", 400, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "train", 2, 1)  # nothing is locked


def test_an_interrupt_while_the_shards_move_waits_for_the_last(tmp_path, monkeypatch):
    def replace(source, target):
        signal.raise_signal(signal.SIGINT)
        os.rename(source, target)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    monkeypatch.setattr(os, "replace", replace)
    try:
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "train", 3, 6)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"train-{i:05d}-of-00003.tfrecord" for i in range(3)]
    assert read_ids(tmp_path / "train-00002-of-00003.tfrecord") == [2, 5]


def test_shards_are_written_in_any_thread(tmp_path):
    thread = threading.Thread(target=write, args=(tmp_path / "train", 2, 4))
    thread.start()
    thread.join()
    assert read_ids(tmp_path / "train-00001-of-00002.tfrecord") == [1, 3]


def test_what_a_killed_run_left_is_removed(tmp_path):
    left = tmp_path / ".unfinished-train"
    left.mkdir()
    for name in ("lock", "0", "7"):
        (left / name).write_bytes(b"left")
    write(tmp_path / "train", 1, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["train-00000-of-00001.tfrecord"]
    assert read_ids(tmp_path / "train-00000-of-00001.tfrecord") == [0]


def test_two_runs_at_a_time_cannot_write_the_same_shards(tmp_path):
    with ShardWriter(tmp_path / "train", 1) as writer:
        with pytest.raises(files.TargetError, match=r"another run is writing .*train\*; wait for it"):
            write(tmp_path / "train", 1, 3)
        writer.write(encoded(9))
    assert read_ids(tmp_path / "train-00000-of-00001.tfrecord") == [9]


def test_shards_of_another_count_are_refused(tmp_path):
    write(tmp_path / "train", 2, 4)
    with pytest.raises(tfrecord.DataError, match=r"train-00000-of-00002.*another number of shards than 3"):
        write(tmp_path / "train", 3, 4)
    write(tmp_path / "train-2", 3, 4)  # another set
    write(tmp_path / "train", 2, 1)  # the same count is replaced
    assert read_ids(tmp_path / "train-00001-of-00002.tfrecord") == []


@pytest.mark.parametrize("prefix, num_shards, message", [("a", 0, "at least 1"), ("", 1, "path"), ("a/", 1, "path")])
def test_shard_writer_refuses_bad_arguments(prefix, num_shards, message):
    with pytest.raises(tfrecord.DataError, match=message):
        ShardWriter(prefix, num_shards)


@pytest.mark.parametrize(
    "fault, line",
    [
        (tfrecord.DataError("no image"), "error: no image"),
        (PermissionError(13, "Permission denied", "a.xml"), "error: a.xml: Permission denied"),
        (OSError(28, "No space left on device"), "error: No space left on device"),
        (tf.errors.ResourceExhaustedError(None, None, "out/0; No space left on device"), "error: out/0; No space left"),
    ],
)
def test_faults_end_a_script_with_one_line(fault, line):
    @shards.plain_ending()
    def script():
        raise fault

    with pytest.raises(SystemExit) as error:
        command_line.call(script)
    assert error.value.code.startswith(line) and "\n" not in error.value.code


def test_faults_of_the_program_are_no_faults_of_the_data():
    with pytest.raises(KeyError), shards.plain_ending():
        raise KeyError("program")


def test_options_are_what_a_run_takes(folder, monkeypatch):
    values = {"num_threads": 2, "max_bad_fraction": 0.5, "max_image_pixels": 95}  # an image has 96
    monkeypatch.setattr(shards, "FLAGS", types.SimpleNamespace(**values, num_shards=9))
    assert shards.options() == values
    with pytest.raises(tfrecord.DataError, match="too many pixels: 9 "):
        convert(folder, **shards.options())


def test_gpus_are_hidden_and_too_late_is_no_error(monkeypatch):
    seen = []

    def set_visible_devices(devices, kind):
        seen.append((devices, kind))
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", set_visible_devices)
    shards.hide_gpus()
    assert seen == [([], "GPU")]


def test_a_failing_conversion_shows_one_name_a_reason():
    report = Report()
    report.written = {"images": 1, "boxes": 1}
    for reason, count in (("a", 4), ("b", 3), ("c", 1), ("d", 1)):
        for i in range(count):
            report.leave_out_box(reason, f"{reason}{i}")
    assert report.find_excess(0.1) == (
        "too much is left out: 9 of 10 boxes, above max_bad_fraction=0.1; "
        "a: 4 (a0 and 3 more); b: 3 (b0 and 2 more); c: 1 (c0)"
    )


def test_report_counts_and_names_the_first_few():
    report = Report()
    report.written = {"images": 3, "boxes": 5}
    report.note("boxes clipped", "a.xml cat")
    report.note("boxes clipped", "b.xml dog")
    assert str(report) == "3 images, 5 boxes\nboxes clipped: 2 (a.xml cat; b.xml dog)"
    for i in range(1000):
        report.leave_out_box("empty", str(i))
    first, _, last = str(report).splitlines()
    assert first == "3 images, 5 boxes; 0 images and 1000 boxes left out"
    assert last == "empty: 1000 (0; 1; 2; 3; 4 and 995 more)"
    empty = report.to_json()["reasons"]["empty"]
    assert empty["count"] == 1000 and empty["first"] == [str(i) for i in range(300)]
