# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/convert/yolo.py."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image

from dataset import tfrecord
from dataset.convert import shards, yolo


def add_image(root, name, rows=None, *, split="train", size=(40, 20)):
    """Writes an image of (width, height) and, if there are rows, its label file."""
    image, labels = root / "images" / split / name, root / "labels" / split / Path(name).with_suffix(".txt")
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 200, 30)).save(image)
    if rows is not None:
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("\n".join(rows))


def write_yaml(root, **changes):
    content = {"path": ".", "train": "images/train", "val": "images/val", "names": ["cat", "dog"], **changes}
    (root / "data.yaml").write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return root / "data.yaml"


def convert(tmp_path, data_yaml, split="train", **options):
    """Returns the records and the written report."""
    shards.write_shards(yolo.load(data_yaml, split), tmp_path / "out", num_shards=1, num_threads=2, **options)
    raw = list(tf.data.TFRecordDataset(str(tmp_path / "out-00000-of-00001.tfrecord")).as_numpy_iterator())
    return raw, json.loads((tmp_path / "report_out.json").read_text())


def test_values_by_hand(tmp_path):
    add_image(tmp_path, "a.jpg", ["1 0.5 0.5 0.25 0.5", "", "0 0.1 0.2 0.9 0.2 0.5 0.8"])
    add_image(tmp_path, "b.png", [])
    raw, report = convert(tmp_path, write_yaml(tmp_path))
    sample, empty = (tfrecord.decode(x) for x in raw)
    np.testing.assert_allclose(sample["boxes_norm"], [[0.25, 0.375, 0.75, 0.625], [0.2, 0.1, 0.8, 0.9]])
    np.testing.assert_array_equal(sample["classes"], [2, 1])
    np.testing.assert_allclose(sample["area"], [0.125 * 800, 0.48 * 800], rtol=1e-5)  # square pixels
    assert (sample["source_id"], empty["source_id"]) == (b"1", b"2")
    assert empty["boxes_norm"].shape == (0, 4)
    feature = tf.train.Example.FromString(raw[0]).features.feature
    assert feature["image/object/class/text"].bytes_list.value == [b"dog", b"cat"]
    assert feature["image/filename"].bytes_list.value == [b"a.jpg"]
    groundtruth = json.loads((tmp_path / "json_out.json").read_text())
    assert [(image["file_name"], image["id"]) for image in groundtruth["images"]] == [("a.jpg", 1), ("b.png", 2)]
    np.testing.assert_allclose([a["bbox"] for a in groundtruth["annotations"]], [[15, 5, 10, 10], [4, 4, 32, 12]])
    assert [(c["id"], c["name"]) for c in groundtruth["categories"]] == [(1, "cat"), (2, "dog")]
    polygons = {"polygons, replaced by the boxes that enclose them": {"count": 1, "first": ["line 3 of a.jpg"]}}
    assert (report["images"], report["boxes"], report["reasons"]) == (2, 2, polygons)


def test_images_of_two_entries_are_written_once(tmp_path):
    add_image(tmp_path, "a.jpg", ["1 0.5 0.5 0.25 0.5"])
    add_image(tmp_path, "b.jpg", [], split="val")
    raw, report = convert(tmp_path, write_yaml(tmp_path, train=["images", "images/train"]))
    assert len(raw) == report["images"] == 2
    assert report["reasons"]["images listed more than once, written once"]["first"] == [
        str(tmp_path / "images/train/a.jpg")
    ]


@pytest.mark.parametrize(
    "row, reason",
    [
        ("0 0.5 0.5 0.2 0.2 0.9", "row has 6 values"),
        ("0 0.5 0.5 0.2", "row has neither 5 values"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.9", "row has neither 5 values"),
        ("0 0.5 0.5 0.2 wide", "row has values that are not finite numbers"),
        ("0 0.5 nan 0.2 0.2", "row has values that are not finite numbers"),
        ("2 0.5 0.5 0.2 0.2", "class 2 is not among the names, which are those of 0 to 1: is one missing, or do"),
        ("-1 0.5 0.5 0.2 0.2", "class -1 is not among the names"),
        ("0.5 0.5 0.5 0.2 0.2", "class 0.5 is not among the names"),
        ("0 20 10 8 4", "values are in pixels"),
    ],
)
def test_invalid_rows_are_left_out_and_named(tmp_path, row, reason):
    add_image(tmp_path, "a.jpg", ["0 0.5 0.5 0.2 0.2", row])
    raw, report = convert(tmp_path, write_yaml(tmp_path), max_bad_fraction=1)
    assert tfrecord.decode(raw[0])["boxes_norm"].shape == (1, 4)
    assert report["boxes_left_out"] == 1
    [(found, entry)] = report["reasons"].items()
    assert found.startswith(reason) and "line 2 of a.jpg" in entry["first"][0]


def test_boxes_beyond_the_image_are_clipped(tmp_path):
    add_image(tmp_path, "a.jpg", ["0 0.05 0.5 0.2 0.5", "0 1.3 0.5 0.2 0.5"])
    raw, report = convert(tmp_path, write_yaml(tmp_path), max_bad_fraction=1)
    np.testing.assert_allclose(tfrecord.decode(raw[0])["boxes_norm"], [[0.25, 0, 0.75, 0.15]], atol=1e-6)
    assert report["boxes_left_out"] == 1  # the one outside


def test_images_without_labels_and_labels_without_images(tmp_path):
    add_image(tmp_path, "a.jpg", ["0 0.5 0.5 0.2 0.2"])
    add_image(tmp_path, "none.jpg")
    labels = tmp_path / "labels" / "train"
    (labels / "lost.txt").write_text("0 0.5 0.5 0.2 0.2")
    (labels / "classes.txt").write_text("cat\ndog")  # written by some annotation tools
    raw, report = convert(tmp_path, write_yaml(tmp_path), max_bad_fraction=0.5)
    assert len(raw) == 2 and report["images_left_out"] == 1
    assert report["reasons"]["images without a label file: no objects"]["first"] == ["none.jpg"]
    assert any("lost.jpg" in name for reason in report["reasons"].values() for name in reason["first"])
    with pytest.raises(tfrecord.DataError, match=r"lost\.jpg"):
        convert(tmp_path, write_yaml(tmp_path))


def test_file_names_that_are_not_utf8_are_left_out(tmp_path):
    add_image(tmp_path, "a.jpg", ["0 0.5 0.5 0.2 0.2"])
    folder = os.fsencode(tmp_path / "images" / "train")
    try:
        shutil.copy(folder + b"/a.jpg", folder + b"/caf\xe9.jpg")  # as unpacked from old Windows archives
    except OSError:
        pytest.skip("this file system does not allow such a name")
    raw, report = convert(tmp_path, write_yaml(tmp_path), max_bad_fraction=0.5)
    assert len(raw) == 1 and report["images_left_out"] == 1


def test_a_split_without_labels_is_rejected(tmp_path):
    add_image(tmp_path, "a.jpg")
    with pytest.raises(
        tfrecord.DataError, match=r"none of the 1 images has a label file; expected .*labels/train/a\.txt"
    ):
        convert(tmp_path, write_yaml(tmp_path))


@pytest.mark.parametrize(
    "image, labels",
    [
        ("d/images/train/a.jpg", "d/labels/train/a.txt"),
        ("images/d/images/a.b.png", "images/d/labels/a.b.txt"),
        ("d/myimages/a.jpg", "d/myimages/a.txt"),
        ("d/images", "d/images.txt"),  # a file
    ],
)
def test_label_path(image, labels):
    assert yolo.label_path(Path(image)) == Path(labels)


def names_of(source):
    return [name for _, name, _, _ in source.items]


def test_split_as_folders_and_lists(tmp_path):
    add_image(tmp_path, "b.JPG", [])
    add_image(tmp_path, "deep/a.webp", [])
    add_image(tmp_path, "v.jpg", [], split="val")
    (tmp_path / "images/train/notes.txt").touch()
    assert names_of(yolo.load(write_yaml(tmp_path), "train")) == ["b.JPG", "deep/a.webp"]
    both = write_yaml(tmp_path, train=["images/val", "images/train"])
    assert names_of(yolo.load(both, "train")) == ["v.jpg", "b.JPG", "deep/a.webp"]
    (tmp_path / "list.txt").write_text(f"./images/val/v.jpg\n\n{tmp_path}/images/train/b.JPG\n")
    source = yolo.load(write_yaml(tmp_path, train="list.txt"), "train")
    assert names_of(source) == ["images/val/v.jpg", "images/train/b.JPG"]
    # Relative to the folder of data.yaml; "../images" is what some exporters write instead of "images".
    assert names_of(yolo.load(write_yaml(tmp_path, path=None, train="../images/val"), "train")) == ["v.jpg"]
    below = tmp_path / "sub"
    below.mkdir()
    assert names_of(yolo.load(write_yaml(below, path="..", train="images/val"), "train")) == ["v.jpg"]


def test_path_may_be_relative_to_the_working_directory(tmp_path, monkeypatch):
    add_image(tmp_path / "work" / "data", "here.jpg", [])
    (tmp_path / "yaml").mkdir()
    data_yaml = write_yaml(tmp_path / "yaml", path="data")
    monkeypatch.chdir(tmp_path / "work")
    assert names_of(yolo.load(data_yaml, "train")) == ["here.jpg"]
    add_image(tmp_path / "yaml" / "data", "beside.jpg", [])  # has priority
    assert names_of(yolo.load(data_yaml, "train")) == ["beside.jpg"]


def test_images_outside_the_dataset_are_left_out(tmp_path):
    root = tmp_path / "data"
    add_image(root, "a.jpg", ["0 0.5 0.5 0.2 0.2"])
    for name in ("secret.jpg", "other.jpg"):
        add_image(tmp_path, name, [])
    lines = ["images/train/a.jpg", "../images/train/secret.jpg", f"{tmp_path}/images/train/other.jpg"]
    (root / "list.txt").write_text("\n".join(lines))
    raw, report = convert(tmp_path, write_yaml(root, train="list.txt"), max_bad_fraction=1)
    assert len(raw) == 1 and report["images_left_out"] == 2


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"names": None}, "expected names as a list"),
        ({"names": {"cat": 0}}, "expected names as a list"),
        ({"names": ["cat", "cat"]}, "name 'cat' to both"),
        ({"names": [1, 2]}, "names in quotes"),
        ({"nc": 3}, "nc is 3, but there are 2 names"),
        ({"train": None}, r"data\.yaml has no split 'train' \(available: val\); add it, or choose another --split"),
        ({"train": None, "val": None}, r"has no split 'train' \(available: none\)"),
        ({"path": 5}, "expected path to be a folder, and train a folder, .* got 5 and"),
        (
            {"path": "elsewhere"},
            r"path: elsewhere is not a folder \(tried /.*/elsewhere and /.*/elsewhere\);",
        ),
        ({"train": [1]}, r"and train a folder, .* got '\.' and \[1\]"),
        ({"train": "images/nowhere"}, r"cannot read .*nowhere"),
        ({"train": "labels"}, "train of .* has no image"),
        ({"kpt_shape": [17, 3]}, "not of keypoints"),
    ],
)
def test_load_rejects(tmp_path, changes, message):
    add_image(tmp_path, "a.jpg", [])
    with pytest.raises(tfrecord.DataError, match=message):
        yolo.load(write_yaml(tmp_path, **changes), "train")


def test_names_as_mapping(tmp_path):
    add_image(tmp_path, "a.jpg", [])
    source = yolo.load(write_yaml(tmp_path, names={0: "猫", 5: "dog"}, nc=2), "train")
    assert source.label_map == {1: "猫", 6: "dog"}


def test_hidden_files_are_counted_and_never_converted(tmp_path):
    """In folders of images and of labels; a label of a hidden image is not one without an image."""
    add_image(tmp_path, "a.jpg", ["0 0.5 0.5 0.2 0.2"])
    add_image(tmp_path, "deep/b.jpg", ["0 0.5 0.5 0.2 0.2"])
    for name in (".ipynb_checkpoints/a-checkpoint.jpg", "__MACOSX/c.jpg"):
        add_image(tmp_path, name, ["0 0.5 0.5 0.2 0.2"])
    hidden = ["images/train/._a.jpg", "images/train/.DS_Store", "images/train/Thumbs.db", "labels/train/._a.txt"]
    for name in hidden:
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    raw, report = convert(tmp_path, write_yaml(tmp_path))
    names = [tf.train.Example.FromString(x).features.feature["image/filename"].bytes_list.value for x in raw]
    assert names == [[b"a.jpg"], [b"deep/b.jpg"]] and report["images_left_out"] == 0
    assert report["reasons"].keys() == {"hidden files ignored"}
    entry = report["reasons"]["hidden files ignored"]
    assert entry["count"] == 8 and {str(tmp_path / name) for name in hidden} <= set(entry["first"])


def test_a_folder_of_hidden_files_alone_has_no_images(tmp_path):
    add_image(tmp_path, ".ipynb_checkpoints/a-checkpoint.jpg", ["0 0.5 0.5 0.2 0.2"])
    with pytest.raises(tfrecord.DataError, match="has no image"):
        yolo.load(write_yaml(tmp_path), "train")


def add_beside(folder, names, *, images=True):
    """Writes an image and its label file for every name into one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if images:
            Image.new("RGB", (40, 20)).save(folder / f"{name}.jpg")
        (folder / f"{name}.txt").write_text("1 0.5 0.5 0.2 0.2")


@pytest.mark.parametrize("text", ["cat\ndog", "\ufeffcat \r\n dog\r\n\r\n"])
def test_a_list_of_names_replaces_data_yaml(tmp_path, text):
    add_beside(tmp_path, ["b", "a"])
    (tmp_path / "classes.txt").write_text(text, "utf-8")
    source = yolo.load(tmp_path / "classes.txt")
    assert (source.label_map, names_of(source)) == ({1: "cat", 2: "dog"}, ["a.jpg", "b.jpg"])


@pytest.mark.parametrize(
    "text, message",
    [
        ("cat\n\ndog\n", r"classes\.txt, line 2: the name of class 1 is blank; add it or remove the line"),
        ("\ncat\n", "line 1: the name of class 0 is blank"),
        ("\n\n", "expected the name of a class in every line"),
        ("cat\ncat\n", "gives the name 'cat' to both"),
        ("images/a.jpg\nimages/b.jpg\n", "expected the name of a class in every line"),  # a list of images
        ("0 0.5 0.5 0.2 0.2\n", "expected the name of a class in every line"),  # a label file
    ],
)
def test_invalid_lists_of_names_are_refused(tmp_path, text, message):
    add_beside(tmp_path, ["a"])
    (tmp_path / "classes.txt").write_text(text)
    (tmp_path / "obj.data").write_text("train = images\nnames = classes.txt")
    for path in ("classes.txt", "obj.data"):
        with pytest.raises(tfrecord.DataError, match=message):
            yolo.load(tmp_path / path)


def test_labels_in_a_folder_of_their_own(tmp_path):
    add_beside(tmp_path / "labels", ["a", "lost"], images=False)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 20)).save(tmp_path / "images/a.jpg")
    for names_file in ("classes.txt", "labels/classes.txt"):
        (tmp_path / names_file).write_text("cat\ndog")
        for image_dir in (None, tmp_path / "images"):
            source = yolo.load(tmp_path / names_file, image_dir=image_dir)
            assert [(name, labels) for _, name, labels, _ in source.items] == [
                ("a.jpg", tmp_path / "labels/a.txt"),
                ("lost.jpg", tmp_path / "labels/lost.txt"),  # counted as missing
            ]
            (tmp_path / names_file).unlink() if image_dir else None


def test_label_files_without_an_image_are_counted_beside_images(tmp_path):
    add_beside(tmp_path, ["a"])
    add_beside(tmp_path, ["lost"], images=False)
    (tmp_path / "classes.txt").write_text("1\n2\n")
    (tmp_path / "notes.txt").write_text("5 boxes are missing\n")
    assert names_of(yolo.load(tmp_path / "classes.txt")) == ["a.jpg", "lost.jpg"]


def test_splits_of_a_list_of_names(tmp_path):
    add_image(tmp_path, "a.jpg", ["0 0.5 0.5 0.2 0.2"])
    add_image(tmp_path, "v.jpg", ["0 0.5 0.5 0.2 0.2"], split="val")
    (tmp_path / "classes.txt").write_text("cat\n")
    assert names_of(yolo.load(tmp_path / "classes.txt", "val")) == ["v.jpg"]
    with pytest.raises(tfrecord.DataError, match="has the subfolders train, val; choose one with --split"):
        yolo.load(tmp_path / "classes.txt")
    with pytest.raises(tfrecord.DataError, match=r"no subfolder 'test' of images \(available: train, val\)"):
        yolo.load(tmp_path / "classes.txt", "test")


def test_obj_data(tmp_path):
    add_beside(tmp_path / "obj_train_data", ["a"])
    add_beside(tmp_path / "obj_valid_data", ["v"])
    (tmp_path / "obj.names").write_text("cat\ndog\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/a.jpg\n")
    (tmp_path / "valid.txt").write_text("data\\obj_valid_data\\v.jpg\n")
    lines = "# a comment\nclasses=2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n"
    (tmp_path / "obj.data").write_text(lines)
    source = yolo.load(tmp_path / "obj.data")
    assert (source.label_map, names_of(source)) == ({1: "cat", 2: "dog"}, ["obj_train_data/a.jpg"])
    assert names_of(yolo.load(tmp_path / "obj.data", "val")) == names_of(yolo.load(tmp_path / "obj.data", "valid"))
    assert names_of(yolo.load(tmp_path / "obj.data", "val")) == ["obj_valid_data/v.jpg"]
    with pytest.raises(tfrecord.DataError, match="image_dir is for lists of names"):
        yolo.load(tmp_path / "obj.data", image_dir=tmp_path)
    for changed, message in (
        (lines.replace("classes=2", "classes=3"), "classes is 3, but there are 2 names"),
        (lines.replace("names =", "labels ="), "expected a line such as names = data/obj.names"),
        (lines.replace("train =", "trainval ="), r"has no split 'train' \(available: trainval, valid\)"),
        (lines.replace("obj.names", "none.names"), r"cannot read list of names .*none\.names"),
    ):
        (tmp_path / "obj.data").write_text(changed)
        with pytest.raises(tfrecord.DataError, match=message):
            yolo.load(tmp_path / "obj.data")


@pytest.mark.parametrize("names", [["cat", "dog"], {3: "cat", 4: "dog"}])
def test_labels_that_count_from_1_are_an_error(tmp_path, names):
    first = 0 if isinstance(names, list) else 3
    rows = [f"{first + 1} 0.5 0.5 0.{i}1 0.2" for i in range(1, 9)]  # cats, but "dog" by the names
    add_image(tmp_path, "a.jpg", [*rows, f"{first + 2} 0.5 0.5 0.2 0.2"])
    message = rf"no box is of class {first} \(cat\), but 1 are of class {first + 2}, beyond the names: the labels seem"
    with pytest.raises(tfrecord.DataError, match=message):
        convert(tmp_path, write_yaml(tmp_path, names=names), max_bad_fraction=0.5)
    add_image(tmp_path, "b.jpg", [f"{first} 0.5 0.5 0.2 0.2"])
    assert convert(tmp_path, write_yaml(tmp_path, names=names), max_bad_fraction=0.5)[1]["boxes_left_out"] == 1


def test_a_dataset_beside_the_export_is_not_taken_for_it(tmp_path):
    for root in (tmp_path / "export/train", tmp_path / "train"):
        add_image(root, "a.jpg", ["0 0.5 0.5 0.2 0.2"])
    data_yaml = write_yaml(tmp_path / "export", path=None, train="../train/images")
    with pytest.raises(tfrecord.DataError, match=r"\.\./train/images may be .*, which both exist; remove \.\./, or"):
        yolo.load(data_yaml)
    shutil.rmtree(tmp_path / "train")
    assert yolo.load(data_yaml).items[0][0] == tmp_path / "export/train/images"
