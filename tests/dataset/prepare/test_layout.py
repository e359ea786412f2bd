# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/prepare/layout.py and of the layouts of each format."""

import json
import os
import pathlib
import shutil
import zipfile

import pytest
import yaml
from absl import logging
from tool_exports import (
    BOXES,
    EXPORTS,
    HEIGHT,
    NAMES,
    WIDTH,
    add_images,
    add_rows,
    add_xml,
    write_coco,
)

from dataset import label_map
from dataset.convert import shards
from dataset.convert.conversion_report import ConversionReport
from dataset.prepare import archive, layout
from dataset.prepare.voc_layout import NO_ANNOTATION
from dataset.tfrecord import DataError

BCCD = pathlib.Path(__file__).resolve().parents[4] / "shared/data/VOCdevkit/BCCD"
# Images of the splits of exports that have several, without BOXES.
OTHER_SPLITS = {("Roboflow", "Pascal VOC"): {"val": {"c": [("Dog", [1, 1, 9, 9])]}, "test": {"d": []}}}
OTHER_SPLITS[("Roboflow", "COCO")] = {"val": BOXES, "test": BOXES}
OTHER_SPLITS[("Roboflow", "YOLO")] = {"val": BOXES}


def boxes_of(source):
    """Returns {name of the image without folder and suffix: [(class, box in pixels)]}."""
    boxes = {}
    for item in source.items:
        annotation = source.read(item, ConversionReport())
        scale = [WIDTH, HEIGHT] * 2 if annotation.normalized else [1] * 4
        stem = annotation.image_path.stem.removesuffix("_jpg.rf.0123abcd")
        boxes[stem] = [
            (item.class_name, [round(side * length, 3) for side, length in zip(item.box, scale)])
            for item in annotation.objects
        ]
    return boxes


@pytest.mark.parametrize("export", EXPORTS, ids=" ".join)
def test_exports_of_tools(tmp_path, export):
    EXPORTS[export](tmp_path)
    found = layout.find(tmp_path)
    expected = {"train": BOXES, **OTHER_SPLITS.get(export, {})}
    if export in (("CVAT", "Pascal VOC 1.1"), ("CVAT", "COCO 1.0")):  # turned by 90 degrees
        expected["train"] = {**BOXES, "a": [("Dog", [3, 6, 13, 14]), BOXES["a"][1]]}
    sources = found.load()
    assert {split: boxes_of(source) for split, source in sources.items()} == expected
    assert list(sources) == list(expected) == list(found.splits)
    assert {tuple(source.label_map.items()) for source in sources.values()} == {((1, "Dog"), (2, "traffic light"))}
    assert found.format == {"Pascal": "voc", "COCO": "coco"}.get(export[1].split()[0], "yolo")
    assert str(found.folder) in found.description
    assert not unlisted(found)


def unlisted(found):
    """Returns the files of which the sources of a layout have neither the file nor a folder above it."""
    read = [path for path in found.folder.rglob("*") if path.suffix in (".jpg", ".json", ".xml", ".yaml", ".data")]
    read += [path for path in found.folder.rglob("*.txt") if path.stem in (*BOXES, "train", "classes", "Dog_train")]
    read = [path for path in read if path.name != "notes.json"]
    return [path for path in read if not any(path.is_relative_to(source) for source in found.sources())]


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def check_error(path, *messages, **options):
    with pytest.raises(DataError) as info:
        layout.find(path, **options)
    assert "\n" not in str(info.value)
    for message in messages:
        assert message in str(info.value)


EXPECTED_FORMATS = "expected COCO (*.json with images, annotations and categories), Pascal VOC (*.xml), YOLO (data.yaml"


@pytest.mark.parametrize(
    "names, message",
    [
        ([], "found no files and no annotations in"),
        ([".hidden.jpg", "__MACOSX/a.xml"], "found no files and no annotations in"),
        (["a/1.jpg", "a/2.PNG", "b/3.jpg"], "found 3 images and no annotations in"),
        (["1.jpg", "boxes.csv", "README"], "found 1 images, 1 README, 1 .csv and no annotations in"),
        (["images.tar", "notes.txt"], "found 1 .tar, 1 .txt and no annotations in"),
    ],
)
def test_folders_without_annotations(tmp_path, names, message):
    touch(tmp_path, *names)
    check_error(tmp_path, message, EXPECTED_FORMATS)


@pytest.mark.parametrize("data_format", layout.FORMATS)
def test_a_given_format_that_is_not_there(tmp_path, data_format):
    touch(tmp_path, "1.jpg")
    check_error(
        tmp_path,
        f"found 1 images in {tmp_path}, but nothing of {layout.NAMES[data_format]}; expected",
        data_format=data_format,
    )


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda root: add_xml(root / "Annotations"), "found 3 annotations of Pascal VOC and no image in"),
        (lambda root: write_coco(root / "instances.json"), "found 1 annotations of COCO and no image in"),
        (lambda root: add_rows(root / "labels"), "annotations of YOLO and no image in"),
    ],
)
def test_annotations_without_images(tmp_path, write, message):
    write(tmp_path)
    check_error(tmp_path, message, "put the images beside the annotations, or in a folder beside theirs")


def test_paths_that_are_no_data(tmp_path):
    check_error(tmp_path / "gone", "gone does not exist; expected a folder, a file or a .zip of COCO")
    touch(tmp_path, "a.jpg", "empty.json")
    check_error(tmp_path / "a.jpg", "a.jpg is not a file of COCO", "give the folder of the dataset")
    check_error(tmp_path / "empty.json", "empty.json has no lists of images, annotations and categories")
    (tmp_path / "labels.json").write_text('{"images": [], "categories": []}')
    check_error(tmp_path / "labels.json", "labels.json has no lists of images, annotations and categories")
    check_error(tmp_path / "labels.json", "is not a file of YOLO", data_format="yolo")
    with pytest.raises(ValueError, match="data must be on this machine, got gs://bucket/shop"):
        layout.find("gs://bucket/shop")


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "scandir", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    check_error(tmp_path, f"cannot read folder {tmp_path}: Permission denied")


def test_several_formats(tmp_path):
    add_images(tmp_path / "images")
    add_xml(tmp_path / "Annotations")
    add_rows(tmp_path / "labels")
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    write_coco(tmp_path / "instances_train.json")
    check_error(
        tmp_path,
        "holds several formats, COCO (instances_train.json) and Pascal VOC (Annotations/a.xml) and YOLO (classes.txt); "
        "choose one with --data_format=coco or --data_format=voc or --data_format=yolo",
    )
    for data_format in ("coco", "voc", "yolo"):
        found = layout.find(tmp_path, data_format)
        assert (found.format, boxes_of(found.load()["train"])) == (data_format, BOXES)
    check_error(tmp_path, "nothing of TFRecords", data_format="tfrecord")


def test_other_files_beside_a_dataset(tmp_path):
    EXPORTS["LabelImg", "Pascal VOC"](tmp_path)
    root = tmp_path / "export"
    (root / "config.json").write_text('{"images": 3}')
    (root / "notes.txt").write_text("3 images\n")
    (root / "run.yaml").write_text("learning_rate: 0.1\n")
    (root / "pom.xml").write_text("<project/>")
    (root / "latin.txt").write_bytes(b"\xe9t\xe9")
    assert layout.find(root).format == "voc"


def test_annotations_of_another_tool_are_not_pascal_voc(tmp_path):
    add_images(tmp_path)
    (tmp_path / "annotations.xml").write_text("<annotations><image/></annotations>")  # CVAT for images
    check_error(tmp_path, "found 3 images, 1 .xml and no annotations")


def test_yolo_labels_without_names(tmp_path):
    add_images(tmp_path / "images/train")
    add_rows(tmp_path / "labels/train")
    check_error(
        tmp_path, "found YOLO labels such as", "labels/train/a.txt, but no names of classes; expected data.yaml"
    )


def test_no_training_split(tmp_path):
    EXPORTS["Roboflow", "Pascal VOC"](tmp_path)
    shutil.rmtree(tmp_path / "export/train")
    found = layout.find(tmp_path)
    assert list(found.splits) == list(found.load()) == ["val", "test"]
    (tmp_path / "export/valid").rename(tmp_path / "export/train_")
    assert list(layout.find(tmp_path).splits) == ["train", "test"]


def test_an_only_folder_of_test_images_is_not_training(tmp_path):
    add_images(tmp_path / "test")
    add_xml(tmp_path / "test")
    assert list(layout.find(tmp_path).splits) == ["test"]


def voc_year(root, *, years=("VOC2007",), lists):
    """Writes folders of VOCdevkit whose image lists have the given ids."""
    for year in years:
        add_images(root / year / "JPEGImages")
        add_images(root / year / "SegmentationClass", ".png")
        add_xml(root / year / "Annotations")
        (root / year / "ImageSets/Main").mkdir(parents=True)
        for name, ids in lists.items():
            (root / year / "ImageSets/Main" / f"{name}.txt").write_text("".join(f"{image_id}\n" for image_id in ids))


def ids_of(found):
    return {split: [item[1] for item in source.items] for split, source in found.load().items()}


@pytest.mark.parametrize(
    "lists, expected",
    [
        ({"trainval": ["a", "b 1"], "test": ["empty"]}, {"train": ["a", "b 1"], "test": ["empty"]}),
        (
            {"train": ["a"], "val": ["b 1"], "trainval": ["a", "b 1"], "test": ["empty"]},
            {"train": ["a"], "val": ["b 1"], "test": ["empty"]},
        ),
        ({"train": ["a"], "val": [], "test": []}, {"train": ["a"]}),
        ({"Training": ["a"], "validation": ["b 1"]}, {"train": ["a"], "val": ["b 1"]}),
        ({"everything": ["a", "empty"]}, {"train": ["a", "empty"]}),
        ({"Dog_train": ["a  1", "b 1 -1"], "Dog_val": ["empty -1"]}, {"train": ["a", "b 1"], "val": ["empty"]}),
    ],
)
def test_lists_of_voc(tmp_path, lists, expected):
    voc_year(tmp_path / "VOCdevkit", lists=lists)
    for path in (tmp_path, tmp_path / "VOCdevkit", tmp_path / "VOCdevkit/VOC2007"):
        found = layout.find(path)
        assert (ids_of(found), found.folder) == (expected, tmp_path / "VOCdevkit/VOC2007")


def test_lists_of_no_known_split(tmp_path):
    voc_year(tmp_path, lists={"morning": ["a"], "evening": ["b 1"]})
    check_error(
        tmp_path, "ImageSets/Main has no list with images of a known split (evening, morning); expected train.txt"
    )


def test_years_of_voc(tmp_path):
    voc_year(tmp_path, lists={"train": ["a"], "val": ["b 1"], "trainval": ["a", "b 1"], "test": ["empty"]})
    voc_year(tmp_path, years=["VOC2012"], lists={"train": ["b 1", "empty"], "val": ["a"]})
    found = layout.find(tmp_path)
    assert ids_of(found) == {"train": ["a", "b 1", "empty"], "val": ["b 1", "a"], "test": ["empty"]}
    assert "train: VOC2007/Annotations (list train) and VOC2012/Annotations (list train); val: " in found.description
    [first, second, _] = found.load()["train"].items
    assert [item[0].image_folder for item in (first, second)] == [
        tmp_path / f"VOC20{y}/JPEGImages" for y in ("07", "12")
    ]


@pytest.mark.skipif(not BCCD.is_dir(), reason="data of the shared folder")
def test_bccd_as_published():
    found = layout.find(BCCD.parent)
    sources = found.load()
    assert {split: len(source.items) for split, source in sources.items()} == {"train": 205, "val": 87, "test": 72}
    assert {tuple(source.label_map.values()) for source in sources.values()} == {("Platelets", "RBC", "WBC")}


@pytest.mark.parametrize(
    "images, xml",
    [
        ("JPEGImages", "Annotations"),
        ("imgs", "labels"),
        ("photos/day 1", "boxes/xml"),
        ("pictures", "Annotations"),
        ("Annotations", "annotations"),
        ("x", "x"),
        (".", "xml"),
        ("photos", "."),
    ],
)
def test_two_folders_of_voc(tmp_path, images, xml):
    add_images(tmp_path / images)
    add_xml(tmp_path / xml)
    [source] = layout.find(tmp_path).load().values()
    assert boxes_of(source) == BOXES


@pytest.mark.parametrize(
    "images, xml",
    [
        ("images/{}", "annotations/{}"),
        ("{}/images", "{}/xml"),
        ("{}/JPEGImages", "{}/Annotations"),
        ("{}", "{}"),
        ("{}_images", "{}_xml"),
        ("images", "Annotations/{}"),
        ("photos/{}", "boxes/{}"),
    ],
)
@pytest.mark.parametrize("train, val, test", [("train", "val", "test"), ("Training", "validation", "testing")])
def test_split_folders_of_voc(tmp_path, images, xml, train, val, test):
    boxes = {train: BOXES, val: {"c": [("cat", [1, 1, 9, 9])]}, test: {"d": []}}
    for name, content in boxes.items():
        add_images(tmp_path / images.format(name), boxes=content)
        add_xml(tmp_path / xml.format(name), content)
    sources = layout.find(tmp_path).load()
    assert [boxes_of(source) for source in sources.values()] == list(boxes.values())
    assert list(sources) == ["train", "val", "test"]
    assert {tuple(source.label_map.values()) for source in sources.values()} == {("Dog", "cat", "traffic light")}


def test_split_folders_with_images_of_the_same_names(tmp_path):
    for name in ("train", "val"):
        add_images(tmp_path / "images" / name)
        add_xml(tmp_path / "xml" / name)
    for split, source in layout.find(tmp_path).load().items():
        paths = {source.read(item, ConversionReport()).image_path.parent for item in source.items}
        assert paths == {tmp_path / "images" / split}


def test_annotations_of_no_split_beside_splits(tmp_path):
    EXPORTS["Roboflow", "Pascal VOC"](tmp_path)
    add_xml(tmp_path / "export/more")
    check_error(
        tmp_path, f"the annotations in {tmp_path}/export/more are in no split, but others are (test, train, val)"
    )


def test_images_without_an_xml_file_are_counted(tmp_path):
    add_images(tmp_path / "images/val")
    add_images(tmp_path / "images/train", boxes=dict.fromkeys("abcd"))
    for split, name in (("train", "a"), ("train", "b"), ("val", "a")):
        add_xml(tmp_path / "labels" / split, {name: [("Dog", [1, 1, 9, 9])]})
    reasons = layout.find(tmp_path).load()["train"].report.reasons[NO_ANNOTATION]
    names = ["train/c.jpg", "train/d.jpg", "val/b 1.jpg", "val/empty.jpg"]
    assert reasons.first == [f"{tmp_path}/images/{name}" for name in names]
    voc_year(tmp_path / "lists", lists={"train": ["a"], "test": ["empty"]})
    assert not layout.find(tmp_path / "lists").load()["train"].report.reasons  # lists may leave images out


def test_label_map_of_the_tool(tmp_path):
    EXPORTS["VoTT", "Pascal VOC"](tmp_path)
    path = tmp_path / "export/pascal_label_map.pbtxt"
    path.write_text("item { id: 1 name: 'traffic light' } item { id: 2 name: 'Dog' }")
    assert layout.find(tmp_path).load()["train"].label_map == {1: "traffic light", 2: "Dog"}


def coco_2017(root):
    """Writes COCO 2017's own layout, with the files of its other tasks."""
    for split, boxes in (("train2017", BOXES), ("val2017", BOXES)):
        add_images(root / split, boxes=boxes)
        write_coco(root / f"annotations/instances_{split}.json")
        write_coco(root / f"annotations/person_keypoints_{split}.json")
        (root / f"annotations/captions_{split}.json").write_text('{"images": [], "annotations": []}')
    add_images(root / "test2017", boxes={"t": []})
    (root / "annotations/image_info_test2017.json").write_text('{"images": [], "categories": []}')


def test_coco_2017(tmp_path):
    coco_2017(tmp_path)
    found = layout.find(tmp_path)
    assert found.splits == {
        split: (tmp_path / f"annotations/instances_{split}2017.json", tmp_path / f"{split}2017")
        for split in ("train", "val")
    }
    sources = found.load()
    assert [boxes_of(source) for source in sources.values()] == [BOXES, BOXES]
    assert [source.write_groundtruth for source in sources.values()] == [False, True]


@pytest.mark.parametrize(
    "images, annotations, prefix",
    [
        ("images/{}", "annotations/instances_{}.json", ""),
        ("{}", "annotations/{}.json", ""),
        ("images", "annotations/{}.json", ""),
        ("images/{}", "{}.json", ""),
        ("{}", "{}/labels.json", ""),
        ("{}/data", "{}/labels.json", ""),
        ("{}/images", "{}/annotations/coco.json", ""),
        ("images/{}", "annotations/{}.json", "images/{}/"),
        ("images/{}", "annotations/{}.json", "{}\\"),
        ("{}", "annotations/{}.json", "/home/me/project/"),
    ],
)
def test_layouts_of_coco(tmp_path, images, annotations, prefix):
    for name in ("train", "valid"):
        add_images(tmp_path / images.format(name))
        write_coco(tmp_path / annotations.format(name), prefix=prefix.format(name))
    sources = layout.find(tmp_path).load()
    for (split, source), name in zip(sources.items(), ("train", "valid"), strict=True):
        assert boxes_of(source) == BOXES
        paths = {source.read(item, ConversionReport()).image_path.parent for item in source.items}
        assert (split, paths) == ({"valid": "val"}.get(name, name), {tmp_path / images.format(name)})


def test_several_coco_files_of_one_split(tmp_path):
    add_images(tmp_path / "images")
    write_coco(tmp_path / "instances_train.json")
    write_coco(tmp_path / "train_fixed.json")
    check_error(tmp_path, "has 2 COCO files of the split train: instances_train.json, train_fixed.json; expected one")
    write_coco(tmp_path / "shop.json")
    check_error(
        tmp_path, "has 3 COCO files, and the names of some show no split: shop.json; name them such as train.json"
    )
    found = layout.find(tmp_path / "train_fixed.json")  # is one of them
    assert found.splits == {"train": (tmp_path / "train_fixed.json", tmp_path / "images")}


@pytest.mark.parametrize("large", [False, True])
def test_large_coco_files_are_not_read(tmp_path, monkeypatch, large):
    add_images(tmp_path)
    write_coco(tmp_path / "shop.json", attributes={"text": "x" * (1 << 22) * large})
    monkeypatch.setattr(json, "loads", lambda text, loads=json.loads: loads(text) if len(text) < 100 else 1 / 0)
    assert layout.find(tmp_path).splits["train"].image_dir == tmp_path


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_encodings_of_coco_files(tmp_path, encoding):
    add_images(tmp_path / "images")
    write_coco(tmp_path / "shop.json")
    (tmp_path / "shop.json").write_text((tmp_path / "shop.json").read_text(), encoding)
    assert boxes_of(layout.find(tmp_path).load()["train"]) == BOXES


def write_categories(root, **splits):
    """Writes a COCO file of one image per split; values are ({category id: name}, category id of its box)."""
    for split, (categories, category) in splits.items():
        add_images(root / split, boxes={"a": []})
        content = {
            "images": [{"id": 1, "file_name": "a.jpg"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": category, "bbox": [1, 1, 5, 5]}],
            "categories": [{"id": key, "name": name} for key, name in categories.items()],
        }
        (root / f"{split}.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "train, val, label_map, boxes",
    [
        (({1: "a", 2: "b"}, 1), ({1: "a", 2: "b"}, 2), {1: "a", 2: "b"}, (1, 2)),
        (
            ({1: "a", 3: "b", 4: "c", 5: "d", 6: "e"}, 6),
            ({3: "b"}, 3),
            {1: "a", 3: "b", 4: "c", 5: "d", 6: "e"},
            (6, 3),
        ),
        (({1: "a", 2: "b"}, 1), ({2: "b", 3: "c"}, 3), {1: "a", 2: "b", 3: "c"}, (1, 3)),  # united
        (({0: "a", 1: "b"}, 0), ({0: "a", 1: "b"}, 1), {1: "a", 2: "b"}, (1, 2)),
        (({0: "a", 1: "b"}, 1), ({0: "a", 1: "b"}, 0), {1: "a", 2: "b"}, (2, 1)),  # category 0 in one split only
        (({0: "group", 1: "b"}, 1), ({0: "group", 1: "b"}, 1), {1: "b"}, (1, 1)),
        (({7: "a", 9210045: "b"}, 7), ({9210045: "b"}, 9210045), {1: "a", 2: "b"}, (1, 2)),
        (({5: "a"}, 5), ({5: "a"}, 5), {1: "a"}, (1, 1)),  # 1 class
        ((dict(label_map.COCO), 90), ({90: "toothbrush"}, 90), label_map.COCO, (90, 90)),
        (({i: f"c{i}" for i in range(500)}, 499), ({0: "c0"}, 0), {i + 1: f"c{i}" for i in range(500)}, (500, 1)),
    ],
)
def test_classes_of_coco(tmp_path, train, val, label_map, boxes):
    write_categories(tmp_path, train=train, val=val)
    sources = layout.find(tmp_path).load()
    assert [dict(source.label_map) for source in sources.values()] == [label_map, label_map]
    for source, expected in zip(sources.values(), boxes, strict=True):
        [row] = source.read(source.items[0], ConversionReport()).objects
        assert (row.class_id, row.class_name) == (expected, label_map[expected])


@pytest.mark.parametrize(
    "val, message",
    [
        (
            {1: "b", 2: "a"},
            "category 1 is 'b' in {}/val.json, but category 1 is 'a' in another split; export all splits",
        ),
        ({3: "a"}, "category 3 is 'a' in {}/val.json, but 'a' is 1 in another split; export all splits with the same"),
    ],
)
def test_categories_that_contradict_each_other(tmp_path, val, message):
    write_categories(tmp_path, train=({1: "a", 2: "b"}, 1), val=(val, max(val)))
    with pytest.raises(DataError) as info:
        layout.find(tmp_path).load()
    assert message.format(tmp_path) in str(info.value)


def write_yolo(root, *, splits=("train", "val"), names=NAMES, data="data.yaml", images="images/{}", labels="labels/{}"):
    for split in splits:
        add_images(root / images.format(split))
        add_rows(root / labels.format(split))
    if data:
        content = {**{split: images.format(split) for split in splits}, "names": names}
        (root / data).write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("data", ["data.yaml", "shop.yml", "dataset.yaml"])
def test_yolo_files(tmp_path, data):
    write_yolo(tmp_path, splits=["train", "validation", "test"], data=data)
    for path in (tmp_path, tmp_path / data):
        found = layout.find(path)
        assert list(found.splits) == ["train", "val", "test"]
        assert [boxes_of(source) for source in found.load().values()] == [BOXES] * 3


def test_yolo_splits_that_do_not_exist(tmp_path, caplog):
    write_yolo(tmp_path)
    text = (tmp_path / "data.yaml").read_text()
    (tmp_path / "data.yaml").write_text(text + "test: images/test\n")
    with caplog.at_level(logging.WARNING):
        assert list(layout.find(tmp_path).splits) == ["train", "val"]
    assert "data.yaml: " in caplog.text and "images/test does not exist, split test is left out" in caplog.text
    shutil.rmtree(tmp_path / "images/train")
    check_error(tmp_path, "images/train does not exist; put the images of train there, or correct the path")


def test_yolo_images_elsewhere(tmp_path):
    write_yolo(tmp_path / "there", data=None)
    (tmp_path / "here").mkdir()
    content = {"path": str(tmp_path / "there"), "train": "images/train", "names": NAMES}
    (tmp_path / "here/shop.yaml").write_text(yaml.safe_dump(content))
    for path in (tmp_path / "here", tmp_path / "here/shop.yaml"):
        assert boxes_of(layout.find(path).load()["train"]) == BOXES
        assert layout.find(path).sources() == [
            path if path.is_file() else path / "shop.yaml",
            tmp_path / "there/images/train",
            tmp_path / "there/labels/train",
        ]


def test_several_yolo_files(tmp_path):
    write_yolo(tmp_path, data="a.yaml")
    write_yolo(tmp_path, data="b.yaml")
    check_error(tmp_path, "has several lists of names: a.yaml, b.yaml; give one of them as PATH")
    assert layout.find(tmp_path / "b.yaml").splits["val"] == (tmp_path / "b.yaml", "val", None, None)
    write_yolo(tmp_path)
    assert layout.find(tmp_path).splits["train"].data == tmp_path / "data.yaml"


@pytest.mark.parametrize("names_file", ["classes.txt", "names.txt", "labels.txt", "obj.names", "labels/classes.txt"])
@pytest.mark.parametrize("splits", [["train", "val"], ["training", "valid"], ["."]])
def test_lists_of_names(tmp_path, names_file, splits):
    write_yolo(tmp_path, splits=splits, data=None)
    (tmp_path / names_file).write_text("\n".join(NAMES))
    sources = layout.find(tmp_path).load()
    assert list(sources) == ["train", "val"][: len(splits)]
    assert [boxes_of(source) for source in sources.values()] == [BOXES] * len(splits)


@pytest.mark.parametrize("images, labels", [("{}/images", "{}/labels"), ("{}", "{}")])
@pytest.mark.parametrize("lists", [[""], ["train"], ["train", "valid"]])  # beside all labels, or beside those of splits
def test_lists_of_names_with_folders_of_splits(tmp_path, images, labels, lists):
    write_yolo(tmp_path, splits=["train", "valid"], data=None, images=images, labels=labels)
    for name in lists:
        folder = tmp_path / labels.format(name) if name else tmp_path
        (folder / "classes.txt").write_text("\n".join(NAMES))
    found = layout.find(tmp_path)
    assert {split: boxes_of(source) for split, source in found.load().items()} == {"train": BOXES, "val": BOXES}
    assert not unlisted(found)


def test_lists_of_names_with_images_in_no_split(tmp_path):
    write_yolo(tmp_path, data=None)
    add_images(tmp_path / "images")
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    check_error(tmp_path, "images has the subfolders train, val and images beside them; expected one for each of train")


@pytest.mark.parametrize("number", [1, 500])
def test_numbers_of_classes(tmp_path, number):
    names = [f"class {i}" for i in range(number)]
    add_images(tmp_path, boxes={"a": []})
    add_xml(tmp_path, {"a": [(name, [1, 1, 9, 9]) for name in names]})
    assert len(layout.find(tmp_path).load()["train"].label_map) == number
    assert len(boxes_of(layout.find(tmp_path).load()["train"])["a"]) == number


def test_records(tmp_path):
    EXPORTS["Roboflow", "Pascal VOC"](tmp_path)
    for split, source in layout.find(tmp_path).load().items():
        shards.write_shards(source, tmp_path / "records" / split, num_shards=2)
    label_map_file = shards.write_label_map(tmp_path / "records/train", {1: "Dog", 2: "traffic light"})
    for path in (tmp_path / "records", tmp_path / "records/"):
        found = layout.find(path)
        assert (found.format, found.folder) == ("tfrecord", tmp_path / "records")
        assert found.splits["train"] == (
            f"{tmp_path}/records/train-*-of-00002*",
            tmp_path / "records/json_train.json",
            pathlib.Path(label_map_file),
        )
        assert found.splits["val"][1:] == (tmp_path / "records/json_val.json", None)
    (tmp_path / "records/val-00001-of-00002.tfrecord").unlink()
    check_error(tmp_path / "records", "has 1 of 2 shards of val; copy the missing ones")
    touch(tmp_path / "records", "old_train-00000-of-00001.tfrecord", "val-00001-of-00002.tfrecord")
    check_error(
        tmp_path / "records", "has several sets of records of the split train: old_train-*-of-00001, train-*-of"
    )


def test_links_to_folders(tmp_path):
    EXPORTS["Label Studio", "Pascal VOC"](tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("images", "Annotations"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "export" / name)
    (tmp_path / "data/again").symlink_to(tmp_path / "data")  # in circles
    assert boxes_of(layout.find(tmp_path / "data").load()["train"]) == BOXES


def test_years_of_voc_without_lists(tmp_path):
    for year, boxes in (("VOC2007", {"a": [("Dog", [1, 1, 9, 9])]}), ("VOC2012", {"b": [("cat", [1, 1, 9, 9])]})):
        add_images(tmp_path / year / "JPEGImages", boxes=boxes)
        add_xml(tmp_path / year / "Annotations", boxes)
    [source] = layout.find(tmp_path).load().values()
    assert boxes_of(source) == {"a": [("Dog", [1, 1, 9, 9])], "b": [("cat", [1, 1, 9, 9])]}


def test_folders_of_cameras(tmp_path):
    for camera, name in (("cam1", "a"), ("cam2", "b")):
        add_images(tmp_path / camera, boxes={name: []})
        add_xml(tmp_path / camera, {name: [(camera, [1, 1, 9, 9])]})
    [source] = layout.find(tmp_path).load().values()
    assert boxes_of(source) == {"a": [("cam1", [1, 1, 9, 9])], "b": [("cam2", [1, 1, 9, 9])]}


@pytest.mark.parametrize("export", EXPORTS, ids=" ".join)
def test_exports_as_zip_files_of_windows(tmp_path, export):
    EXPORTS[export](tmp_path / "tool")
    with zipfile.ZipFile(tmp_path / "shop.zip", "w") as file:
        for path in sorted((tmp_path / "tool").rglob("*")):
            if path.is_file():
                info = zipfile.ZipInfo("x")
                info.filename = "shop\\" + str(path.relative_to(tmp_path / "tool")).replace("/", "\\")
                file.writestr(info, path.read_bytes())
    archive.unpack(tmp_path / "shop.zip", tmp_path / "unpacked")
    found, expected = layout.find(tmp_path / "unpacked"), layout.find(tmp_path / "tool")
    assert found.format == expected.format
    splits = ({split: boxes_of(source) for split, source in one.load().items()} for one in (found, expected))
    assert next(splits) == next(splits)


@pytest.mark.parametrize("name", ["classes.txt", "shop.json", "shop.yaml"])
def test_files_that_cannot_be_read_are_named(tmp_path, name):
    write_yolo(tmp_path, data=None)
    (tmp_path / name).symlink_to(tmp_path / "gone")
    check_error(tmp_path, f"cannot read {tmp_path / name}: No such file or directory")


def test_damaged_file_names_of_coco_are_reported_by_the_conversion(tmp_path):
    add_images(tmp_path / "images")
    write_coco(tmp_path / "shop.json")
    (tmp_path / "shop.json").write_text((tmp_path / "shop.json").read_text().replace("b 1.jpg", "\\x.jpg"))
    found = layout.find(tmp_path)
    assert found.splits["train"].image_dir == tmp_path / "images"
    with pytest.raises(DataError, match=r"cannot read .*shop\.json: Invalid"):
        found.load()
