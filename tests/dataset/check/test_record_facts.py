# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/check/record_facts.py: records and files that cannot be read, and samples."""

import dataclasses
import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from planted import check, codes, config, write

from dataset import tfrecord
from dataset.check import checks, record_facts
from dataset.tfrecord import DataError


def faulty(clean, change):
    example = tf.train.Example.FromString(tfrecord.encode(clean[0][0]))
    change(example.features.feature)
    return example.SerializeToString()


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda f: f["image/object/bbox/xmax"].float_list.value.pop(), "have columns that differ in length"),
        (lambda f: f.pop("image/object/class/label"), "0 class/label"),
        (lambda f: f.pop("image/encoded"), "hold no image in image/encoded"),
        (
            lambda f: f["image/object/class/label"].float_list.value.extend([1.0]),
            "image/object/class/label has floats, expected whole numbers",
        ),
        (
            lambda f: f["image/object/area"].int64_list.value.append(1),
            "image/object/area has whole numbers, expected floats",
        ),
        (lambda f: f["image/height"].int64_list.value.append(3), "2 values in image/height"),
    ],
)
def test_faulty_records_are_reported_and_the_others_read(tmp_path, clean, change, words):
    serialized = [tfrecord.encode(record) for record in clean[0]]
    pattern = write(tmp_path / "x.tfrecord", [*serialized[1:], faulty(clean, change)])
    facts = record_facts.read(pattern)
    assert (len(facts.records), len(facts.faulty)) == (23, 1)
    [finding] = check(pattern, config())
    assert finding.code == "faulty_records" and finding.level == "fatal"
    assert words in finding.text and "x.tfrecord record 23" in finding.text


def png_with(chunk, data):
    """Returns a PNG of 30x20 pixels with an additional chunk."""
    with io.BytesIO() as file:
        Image.new("RGB", (30, 20)).save(file, "PNG")
        content = file.getvalue()
    body = chunk + data
    added = struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    return content[:33] + added + content[33:]  # behind IHDR


def test_an_image_that_only_tensorflow_decodes_is_accepted(tmp_path, clean):
    encoded = png_with(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2_000_000))
    with pytest.raises(ValueError, match="too large"), Image.open(io.BytesIO(encoded)) as image:
        image.load()
    record = dataclasses.replace(clean[0][0], encoded=encoded, height=20, width=30)
    pattern = write(tmp_path / "x.tfrecord", [tfrecord.encode(record)])
    for decode_images in (False, True):
        facts = record_facts.read(pattern, decode_images=decode_images)
        assert [record.size for record in facts.records] == [(20, 30)]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP"])
def test_headers_have_the_size_and_truncated_ones_are_faults(tmp_path, clean, image_format):
    with io.BytesIO() as file:
        Image.new("RGB", (30, 20)).save(file, image_format)
        content = file.getvalue()
    serialized = [
        tfrecord.encode(dataclasses.replace(clean[0][0], encoded=encoded)) for encoded in (content, content[:15])
    ]
    facts = record_facts.read(write(tmp_path / "x.tfrecord", serialized), decode_images=False)
    assert [record.size for record in facts.records] == [(20, 30)]
    assert [record.fault for record in facts.faulty] == ["hold an image that does not decode"]
    no_size = content[:16] + bytes(8) + content[24:]
    if image_format == "PNG":
        pattern = write(tmp_path / "x.tfrecord", [tfrecord.encode(dataclasses.replace(clean[0][0], encoded=no_size))])
        assert record_facts.read(pattern, decode_images=False).faulty[0].detail == "its header states 0x0"


def test_an_absent_source_id_is_replaced_as_in_the_reader(tmp_path, clean):
    serialized = tfrecord.encode(dataclasses.replace(clean[0][0], source_id=""))
    [record] = record_facts.read(write(tmp_path / "x.tfrecord", [serialized])).records
    assert record.source_id == tfrecord.parse(serialized)["source_id"].numpy().decode()


def test_a_record_that_is_no_example_is_reported(tmp_path, clean):
    pattern = write(tmp_path / "x.tfrecord", [*map(tfrecord.encode, clean[0]), b"\xff\xff\xff"])
    [finding] = check(pattern, config())
    assert "1 of 25 records (4.0%) hold no tf.train.Example (x.tfrecord record 24" in finding.text


def test_columns_that_training_does_not_read_are_a_warning(tmp_path, clean):
    def change(features):
        features["image/object/class/text"].bytes_list.value.append(b"circle")

    serialized = [tfrecord.encode(record) for record in clean[0]]
    [finding] = check(write(tmp_path / "x.tfrecord", [*serialized[1:], faulty(clean, change)]), config())
    assert (finding.level, finding.code) == ("warning", "unread_columns") and "class/text" in finding.text


@pytest.mark.parametrize("fault", ["truncated", "flipped byte", "no TFRecord"])
def test_a_damaged_file_is_reported_and_the_rest_read(tmp_path, clean, fault):
    serialized = [tfrecord.encode(record) for record in clean[0]]
    for part in range(3):
        write(tmp_path / f"{part}.tfrecord", serialized[part * 8 : part * 8 + 8])
    path = tmp_path / "1.tfrecord"
    content = bytearray(path.read_bytes())
    place = sum(len(record) + 16 for record in serialized[8:11]) + 500  # in record 3
    if fault == "truncated":
        path.write_bytes(content[:place])
    elif fault == "flipped byte":
        content[place] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(b"<html>not found</html>" * 1000)
    facts = record_facts.read(str(tmp_path / "*.tfrecord"))
    damaged, readable = {"truncated": (3, 3), "flipped byte": (3, 7), "no TFRecord": (0, 0)}[fault]
    assert facts.num_records == 16 + readable
    findings = check(str(tmp_path / "*.tfrecord"), config())
    assert "damaged_files" in codes(findings) <= {"damaged_files", "unseen_classes"}
    assert f"record {damaged} of {path}: " in findings[0].text
    assert fault != "no TFRecord" or "the file is XML or HTML, not a TFRecord file" in findings[0].text
    assert findings[0].level == ("fatal" if facts.lost_share > 0.01 else "warning")


def test_network_boxes_are_those_of_evaluation(tmp_path, clean):
    record = dataclasses.replace(
        clean[0][0], boxes_norm=[[0.25, 0.5, 0.75, 1.5]], classes=[1], class_names=(), is_crowd=[]
    )
    height, width = record.height, record.width
    facts = record_facts.read(write(tmp_path / "x.tfrecord", [tfrecord.encode(record)]), decode_images=False)
    scale = min(128 / height, 256 / width)
    box = np.array([0.25, 0.5, 0.75, 1])
    fitted = box * np.tile(np.floor(np.multiply((height, width), scale)), 2)
    np.testing.assert_allclose(facts.network_boxes((128, 256), True), [fitted])
    np.testing.assert_allclose(facts.network_boxes((128, 256), False), [box * [128, 256, 128, 256]])


def test_a_folder_among_the_files_is_an_error(tmp_path):
    (tmp_path / "old").mkdir()
    with pytest.raises(DataError, match=r"^cannot use the records: .*old"):
        checks.quick(str(tmp_path / "*"), config())


def test_no_files_no_records_and_only_faulty_records(tmp_path):
    with pytest.raises(DataError, match="no file matches"):
        record_facts.read(str(tmp_path / "*"))
    [finding] = check(write(tmp_path / "empty.tfrecord", []), config(label_map=None))
    assert (finding.level, finding.code) == ("fatal", "no_records")
    [finding] = check(write(tmp_path / "bad.tfrecord", [b"\xff"]), config(label_map=None))
    assert (finding.level, finding.code) == ("fatal", "faulty_records")


def test_samples_are_spread_over_the_files(tmp_path, clean):
    for part in range(8):
        write(tmp_path / f"{part}.tfrecord", map(tfrecord.encode, clean[0][part * 3 : part * 3 + 3]))
    facts = record_facts.read(str(tmp_path / "*"), samples=8, decode_images=False)
    assert [record.source_id for record in facts.records] == [str(1 + 3 * part) for part in range(8)]
    facts = record_facts.read(str(tmp_path / "*"), samples=4)
    assert {record.where.split()[0] for record in facts.records} == {f"{part}.tfrecord" for part in (0, 2, 4, 7)}
    assert not facts.complete
    assert not record_facts.read(str(tmp_path / "0.*"), samples=3).complete
    assert record_facts.read(str(tmp_path / "0.*"), samples=4).complete  # there are 3
