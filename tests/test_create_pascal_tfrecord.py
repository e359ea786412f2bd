# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""tests of dataset/create_pascal_tfrecord.py."""

import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dataset import create_pascal_tfrecord as pascal
from dataset import tfrecord

ROOT = Path(__file__).resolve().parent.parent
VOCDEVKIT = ROOT.parent / "shared" / "data" / "VOCdevkit"
BCCD_LABEL_MAP = {"RBC": 1, "WBC": 2, "Platelets": 3}
DOG = "<object><name>dog</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>{}</object>"


def add_image(year, image_id, objects, *, size=(40, 20), filename=None, suffix=".jpg", folder="elsewhere"):
    """An image of (width, height) with its annotation in a VOC tree, and its id in the list `train`."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (year / name).mkdir(parents=True, exist_ok=True)
    width, height = size
    Image.new("RGB", size, (10, 200, 30)).save(year / "JPEGImages" / f"{image_id}{suffix}")
    (year / "Annotations" / f"{image_id}.xml").write_text(
        f"<annotation><folder>{folder}</folder><filename>{filename or image_id + suffix}</filename>"
        f"<size><width>{width}</width><height>{height}</height></size>{''.join(objects)}</annotation>"
    )
    with (year / "ImageSets/Main/train.txt").open("a") as file:
        file.write(f"{image_id}  1\n\n")


def convert(tmp_path, *years, name="out", **options):
    sets = [pascal.VocSet(year, "train") for year in years]
    options = {"label_map": pascal.VOC_LABEL_MAP, "num_shards": 1, **options}
    summary = pascal.convert(sets, tmp_path / name, **options)
    raw = list(tf.data.TFRecordDataset(str(tmp_path / f"{name}-00000-of-00001.tfrecord")).as_numpy_iterator())
    ground_truth = json.loads((tmp_path / f"json_{name}.json").read_text())
    return summary, raw, ground_truth


def test_values_by_hand(tmp_path):
    extra = "<difficult>1</difficult><truncated>1</truncated><pose>Left</pose>"
    add_image(tmp_path / "VOC", "a", [DOG.format(4, 5, 12, 15, extra), DOG.format(10.5, 0, 20.5, 10, "")])
    summary, raw, ground_truth = convert(tmp_path, tmp_path / "VOC")
    sample = tfrecord.decode(raw[0])
    np.testing.assert_allclose(sample["boxes_norm"], [[0.25, 0.1, 0.75, 0.3], [0, 0.2625, 0.5, 0.5125]])
    np.testing.assert_array_equal(sample["classes"], [12, 12])
    np.testing.assert_allclose(sample["area"], [80, 100])  # square pixels
    assert sample["source_id"] == b"1"
    feature = tf.train.Example.FromString(raw[0]).features.feature
    assert feature["image/object/difficult"].int64_list.value == [1, 0]
    assert feature["image/object/truncated"].int64_list.value == [1, 0]
    assert feature["image/object/view"].bytes_list.value == [b"Left", b""]
    assert feature["image/object/class/text"].bytes_list.value == [b"dog", b"dog"]
    assert feature["image/filename"].bytes_list.value == [b"a.jpg"]
    assert ground_truth["images"] == [{"file_name": "a.jpg", "height": 20, "width": 40, "id": 1}]
    assert [a["bbox"] for a in ground_truth["annotations"]] == [[4, 5, 8, 10], [10.5, 0, 10, 10]]
    assert [a["area"] for a in ground_truth["annotations"]] == [80, 100]
    assert [a["id"] for a in ground_truth["annotations"]] == [1, 2]
    assert str(summary) == "1 images, 2 boxes"


def test_boxes_outside_are_clipped_and_empty_ones_left_out_by_name(tmp_path):
    boxes = [(-5, 3, 10, 99), (7, 7, 7, 9), (50, 2, 60, 8), ("nan", 2, 5, 8)]
    add_image(tmp_path / "VOC", "a", [DOG.format(*box, "") for box in boxes])
    summary, raw, ground_truth = convert(tmp_path, tmp_path / "VOC")
    np.testing.assert_allclose(tfrecord.decode(raw[0])["boxes_norm"], [[0.15, 0, 1, 0.25]])
    assert [a["bbox"] for a in ground_truth["annotations"]] == [[0, 3, 10, 17]]
    assert summary.notes == {
        "boxes clipped to the image": ["a dog [-5, 3, 10, 99]"],
        "empty boxes left out": ["a dog [7, 7, 7, 9]", "a dog [50, 2, 60, 8]", "a dog [nan, 2, 5, 8]"],
    }


def test_difficult_objects_are_kept_unless_asked(tmp_path):
    difficult = DOG.format(1, 1, 9, 9, "<difficult>1</difficult>")
    add_image(tmp_path / "VOC", "a", [difficult, DOG.format(2, 2, 9, 9, "")])
    assert convert(tmp_path, tmp_path / "VOC", name="all")[0].num_boxes == 2
    summary, raw, _ = convert(tmp_path, tmp_path / "VOC", name="easy", ignore_difficult_instances=True)
    assert summary.notes == {"difficult objects left out": ["a dog [1, 1, 9, 9]"]}
    assert tfrecord.decode(raw[0])["boxes_norm"].shape == [1, 4]


def test_merged_years_number_on_and_list_every_category_once(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        add_image(tmp_path / year, "a", [DOG.format(1, 2, 3, 4, "")])
    _, raw, ground_truth = convert(tmp_path, tmp_path / "VOC2007", tmp_path / "VOC2012")
    assert [tfrecord.decode(x)["source_id"].numpy() for x in raw] == [b"1", b"2"]
    assert [image["id"] for image in ground_truth["images"]] == [1, 2]
    assert [a["image_id"] for a in ground_truth["annotations"]] == [1, 2]
    assert [a["id"] for a in ground_truth["annotations"]] == [1, 2]
    assert [c["id"] for c in ground_truth["categories"]] == list(range(1, 21))
    assert ground_truth["categories"][14]["name"] == "person"


@pytest.mark.parametrize("filename", ["C:\\pictures\\a.png", "gone.jpg", "../../../a.png"])
def test_image_is_found_whatever_the_file_name_says(tmp_path, filename):
    add_image(tmp_path / "VOC", "a", [], filename=filename, suffix=".png")
    add_image(tmp_path / "VOC", "a.2", [], filename=filename, suffix=".png")  # a.* must not take it for a
    _, raw, ground_truth = convert(tmp_path, tmp_path / "VOC", num_images=1)
    assert ground_truth["images"][0]["file_name"] == "a.png" and len(raw) == 1
    feature = tf.train.Example.FromString(raw[0]).features.feature
    assert feature["image/format"].bytes_list.value == [b"png"]


def test_list_of_a_class_stands_in_for_the_list_of_the_set(tmp_path):
    add_image(tmp_path / "VOC", "a", [])
    lists = tmp_path / "VOC" / "ImageSets" / "Main"
    (lists / "train.txt").rename(lists / "aeroplane_train.txt")
    assert pascal.VocSet(tmp_path / "VOC", "train").image_ids(["aeroplane"]) == ["a"]
    with pytest.raises(tfrecord.DataError, match=r"val\.txt; the lists there are: aeroplane_train\.txt"):
        pascal.VocSet(tmp_path / "VOC", "val").image_ids(["aeroplane"])
    with pytest.raises(tfrecord.DataError, match=r"no folder .*VOC1999"):
        pascal.VocSet(tmp_path / "VOC1999", "train").image_ids([])


def test_unknown_class_names_itself_the_file_and_the_flag(tmp_path):
    add_image(tmp_path / "VOC", "a", [DOG.format(1, 2, 3, 4, "").replace("dog", "RBC")])
    with pytest.raises(tfrecord.DataError, match=r'a\.xml: class .RBC. .*--label_map_json_path.*\{"RBC": 1'):
        convert(tmp_path, tmp_path / "VOC")
    assert not list(tmp_path.glob("out*")) and not list(tmp_path.glob("json*"))  # no shard that looks whole


def test_broken_files_name_themselves(tmp_path):
    add_image(tmp_path / "VOC", "a", [])
    annotation, image = tmp_path / "VOC/Annotations/a.xml", tmp_path / "VOC/JPEGImages/a.jpg"
    text, voc_set = annotation.read_text(), pascal.VocSet(tmp_path / "VOC", "train")

    def read():
        notes = tfrecord.Summary()
        return pascal.read_record(voc_set, "a", "1", label_map={}, ignore_difficult=False, notes=notes)

    annotation.write_text(text.replace("<width>40", "<width>80"))
    with pytest.raises(tfrecord.DataError, match=r"a\.xml is for 80x20 pixels, but .*a\.jpg has 40x20"):
        read()
    annotation.write_text(text.replace("<width>40</width>", ""))  # taken from the image
    assert (read().height, read().width) == (20, 40)
    annotation.write_text(text[:-5])
    with pytest.raises(tfrecord.DataError, match=r"cannot read the annotation .*a\.xml"):
        read()
    annotation.write_text(text)
    image.write_bytes(b"no image")
    with pytest.raises(tfrecord.DataError, match=r"cannot read the image .*a\.jpg"):
        read()
    image.unlink()
    with pytest.raises(tfrecord.DataError, match=r"neither a\.jpg nor a\.jpg \(\.png, \.\.\.\)"):
        read()


def test_no_entity_of_an_annotation_is_resolved(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("do not read")
    path = tmp_path / "a.xml"
    path.write_text(
        f'<!DOCTYPE a [<!ENTITY x SYSTEM "{secret.as_uri()}"><!ENTITY y "boom">]>'
        "<annotation><filename>&x;&y;</filename></annotation>"
    )
    assert pascal.read_annotation(path) == ("", None, [])


@pytest.mark.parametrize(
    "text, expected",
    [
        ('{"RBC": 1, "WBC": 2}', {"RBC": 1, "WBC": 2}),
        ('{\n\t"background": 0,\n\t"RBC": 1}', {"RBC": 1}),
        ("1: RBC\n2: WBC\n", {"RBC": 1, "WBC": 2}),
        ("RBC: 3\n", {"RBC": 3}),
    ],
)
def test_load_label_map(tmp_path, text, expected):
    (tmp_path / "map").write_text(text)
    assert pascal.load_label_map(tmp_path / "map") == expected


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"a": 1, "b": 1}', "id 1 to both 'a' and 'b'"),
        ('{"a": 0}', "ids start at 1"),
        ("[1, 2]", "expected a label map"),
        ("{", "cannot use the label map"),
        ('{"a": 1.5}', "must pair ids"),
    ],
)
def test_load_label_map_refuses(tmp_path, text, message):
    (tmp_path / "map").write_text(text)
    with pytest.raises(tfrecord.DataError, match=message):
        pascal.load_label_map(tmp_path / "map")


@pytest.mark.skipif(not VOCDEVKIT.is_dir(), reason=f"needs the real photographs in {VOCDEVKIT}")
@pytest.mark.parametrize("name, num_images, num_boxes", [("trainval", 292, 3941), ("test", 72, 945)])
def test_real_photographs(tmp_path, name, num_images, num_boxes):
    voc_set = pascal.VocSet(VOCDEVKIT / "BCCD", name)
    summary = pascal.convert([voc_set], tmp_path / name, label_map=BCCD_LABEL_MAP, num_shards=3)
    assert (summary.num_images, summary.num_boxes) == (num_images, num_boxes)
    left_out = {"trainval": ["BloodImage_00338 RBC [504, 337, 504, 337]", "BloodImage_00343 RBC [181, 329, 181, 329]"]}
    assert summary.notes.get("empty boxes left out", []) == left_out.get(name, [])
    ground_truth = json.loads((tmp_path / f"json_{name}.json").read_text())
    annotations = {}
    for annotation in ground_truth["annotations"]:
        annotations.setdefault(annotation["image_id"], []).append(annotation)
    paths = [str(tmp_path / f"{name}-{i:05d}-of-00003.tfrecord") for i in range(3)]
    samples = [tfrecord.decode(raw) for raw in tf.data.TFRecordDataset(paths)]
    assert sorted(int(sample["source_id"]) for sample in samples) == list(range(1, num_images + 1))
    for sample in samples:
        assert sample["image"].shape == (480, 640, 3)
        own = annotations.get(int(sample["source_id"]), [])
        xmin, ymin, width, height = np.reshape([a["bbox"] for a in own], [-1, 4]).T
        expected = np.stack([ymin, xmin, ymin + height, xmin + width], axis=-1) / [480, 640, 480, 640]
        np.testing.assert_allclose(sample["boxes_norm"], expected, atol=1e-6)
        np.testing.assert_array_equal(sample["classes"], [a["category_id"] for a in own])
        np.testing.assert_allclose(sample["area"], [a["area"] for a in own], rtol=1e-6)


def test_files_that_cannot_be_written_are_told(tmp_path, monkeypatch):
    add_image(tmp_path / "VOC2007", "a", [])
    (tmp_path / "file").touch()
    flags = types.SimpleNamespace(
        data_dir=tmp_path,
        output_path=str(tmp_path / "file" / "voc"),  # a file where a folder has to be
        year="VOC2007",
        set="train",
        annotations_dir="Annotations",
        label_map_json_path=None,
        ignore_difficult_instances=False,
        num_shards=1,
        num_images=None,
    )
    monkeypatch.setattr(pascal, "FLAGS", flags)
    with pytest.raises(SystemExit, match=r"^error: .*file"):
        pascal.main(["create_pascal_tfrecord.py"])


def test_command_runs_from_anywhere(tmp_path):
    add_image(tmp_path / "VOC2007", "a", [DOG.format(4, 5, 12, 15, "")])
    script = ROOT / "dataset" / "create_pascal_tfrecord.py"
    flags = [f"--data_dir={tmp_path}", "--output_path=out/voc", "--num_shards=2"]
    done = subprocess.run([sys.executable, script, *flags], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 images, 1 boxes\n")
    assert len(list((tmp_path / "out").glob("voc-*-of-00002.tfrecord"))) == 2
    failed = subprocess.run([sys.executable, script, *flags, "--set=odd"], cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: expected the list of images")
