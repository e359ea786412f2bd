# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/convert/coco.py."""

import io
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as mask_lib

from dataset import coco_json, label_map, tfrecord
from dataset.convert import coco, shards
from dataset.convert.annotation import CROWDS, HEAVILY_CLIPPED, ROTATED


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for i in (3, 7):
        Image.new("RGB", (40, 20), (i, 100, 200)).save(tmp_path / "images" / f"{i}.jpg")
    return tmp_path


def annotation(annotation_id, image_id, bbox, **changes):
    defaults = {"category_id": 18, "area": bbox[2] * bbox[3] / 2, "iscrowd": 0, "segmentation": []}
    return {"id": annotation_id, "image_id": image_id, "bbox": bbox, **defaults, **changes}


def write_json(folder, annotations, name="instances.json", **changes):
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 20, "width": 40} for i in (7, 3)]
    categories = [{"id": 18, "name": "dog"}, {"id": 90, "name": "toothbrush"}]
    content = {"images": images, "annotations": annotations, "categories": categories, **changes}
    (folder / name).write_text(json.dumps(content))
    return folder / name


def convert(folder, *, include_masks=False, max_bad_fraction=0.0, **files):
    """Returns the written report, and the records."""
    source, options = coco.load(folder / "images", **files), {"include_masks": include_masks, "num_shards": 1}
    shards.write_shards(source, folder / "out", num_threads=2, max_bad_fraction=max_bad_fraction, **options)
    raw = list(tf.data.TFRecordDataset(str(folder / "out-00000-of-00001.tfrecord")).as_numpy_iterator())
    return json.loads((folder / "report_out.json").read_text()), raw


def feature(raw, key):
    kind = tf.train.Example.FromString(raw).features.feature[key]
    return list(getattr(kind, kind.WhichOneof("kind")).value)


def test_values_by_hand(folder):
    annotations = [annotation(1, 3, [4, 5, 8, 10]), annotation(2, 3, [0, 0, 40, 20], category_id=90, iscrowd=1)]
    report, raw = convert(folder, object_annotations_file=write_json(folder, annotations))
    empty, sample = (tfrecord.decode(x) for x in raw)  # in the order of the list: 7, 3
    assert (empty["source_id"].numpy(), sample["source_id"].numpy()) == (b"7", b"3")
    assert empty["boxes_norm"].shape == (0, 4)
    np.testing.assert_allclose(sample["boxes_norm"], [[0.25, 0.1, 0.75, 0.3], [0, 0, 1, 1]])
    np.testing.assert_array_equal(sample["classes"], [18, 90])
    np.testing.assert_array_equal(sample["is_crowd"], [False, True])
    np.testing.assert_array_equal(sample["area"], [40, 400])
    assert feature(raw[1], "image/object/class/text") == [b"dog", b"toothbrush"]
    assert feature(raw[1], "image/encoded") == [(folder / "images/3.jpg").read_bytes()]
    crowds = {CROWDS: {"count": 1, "first": ["annotation 2 of 3.jpg"]}}
    assert (report["images"], report["boxes"], report["reasons"]) == (2, 2, crowds)


def test_similar_class_names_are_counted(folder):
    categories = [{"id": i, "name": name} for i, name in enumerate(["Dog", "dog", "cat", "DOG "], start=1)]
    boxes = [annotation(i, 3, [4 + i, 5, 8, 10], category_id=class_id) for i, class_id in enumerate((1, 1, 2, 3))]
    path = write_json(folder, boxes, categories=categories)
    report, _ = convert(folder, object_annotations_file=path)
    [(reason, entry)] = report["reasons"].items()
    assert reason.startswith("classes whose names differ only in case, spaces, hyphens or underscores; if they are one")
    assert entry["first"] == ["1 'Dog' on 2 boxes, 2 'dog' on 1 boxes, 4 'DOG ' on 0 boxes"]


DIAGONAL = 9 / 2**0.5  # half of (8 + 10) * sin(45 degrees), pixels


@pytest.mark.parametrize(
    "degrees, expected",
    [
        (0, [4, 5, 12, 15]),
        (90.0, [3, 6, 13, 14]),
        (-180, [4, 5, 12, 15]),
        (45.0, [8 - DIAGONAL, 10 - DIAGONAL, 8 + DIAGONAL, 10 + DIAGONAL]),
    ],
)
def test_rotated_boxes_are_enclosed(folder, degrees, expected):
    turned = annotation(1, 3, [4, 5, 8, 10], attributes={"occluded": False, "rotation": degrees})
    report, raw = convert(folder, object_annotations_file=write_json(folder, [turned]))
    xmin, ymin, xmax, ymax = np.divide(expected, [40, 20, 40, 20])
    np.testing.assert_allclose(tfrecord.decode(raw[1])["boxes_norm"], [[ymin, xmin, ymax, xmax]], atol=1e-6)
    assert reasons(report) == ({ROTATED: ["annotation 1 of 3.jpg"]} if degrees else {})


@pytest.mark.parametrize("attributes", [None, [], {"rotation": "left"}, {"rotation": float("inf")}, {"rotation": None}])
def test_other_attributes_are_ignored(folder, attributes):
    path = write_json(folder, [annotation(1, 3, [4, 5, 8, 10], attributes=attributes)])
    report, raw = convert(folder, object_annotations_file=path)
    np.testing.assert_allclose(tfrecord.decode(raw[1])["boxes_norm"], [[0.25, 0.1, 0.75, 0.3]])
    assert report["reasons"] == {}


def reasons(report):
    return {reason: entry["first"] for reason, entry in report["reasons"].items()}


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"bbox": [1, 1, 5]}, "bbox is not four numbers"),
        ({"bbox": [1, 1, 5, "5"]}, "bbox is not four numbers"),
        ({"bbox": [1, 1, 5, 10**400]}, "bbox is not four numbers"),
        ({"bbox": None}, "bbox is not four numbers"),
        ({"category_id": 2}, "category 2 is not among the categories"),
        ({"category_id": 0}, coco_json.BACKGROUND),
        ({"iscrowd": "maybe"}, "iscrowd is neither 0 nor 1"),
        ({"area": "large"}, "area is not a number"),
        ({"bbox": [1, 1, 0, 5]}, None),
        ({"bbox": [1, 1, 5, -2]}, None),
        ({"bbox": [1, float("nan"), 5, 5]}, None),
        ({"bbox": [50, 1, 5, 5]}, None),
    ],
)
def test_invalid_annotations_are_left_out_and_named(folder, changes, reason):
    annotations = [annotation(1, 3, [1, 1, 5, 5]), {**annotation(5, 3, [1, 1, 5, 5]), **changes}]
    categories = [{"id": 18, "name": "dog"}, {"id": 0, "name": "all"}]
    path = write_json(folder, annotations, categories=categories)
    report, raw = convert(folder, object_annotations_file=path, max_bad_fraction=0.5)
    np.testing.assert_allclose(tfrecord.decode(raw[1])["boxes_norm"], [[0.05, 0.025, 0.3, 0.15]])
    assert (report["boxes"], report["boxes_left_out"]) == (1, 1)
    [(found, where)] = reasons(report).items()
    assert reason in (None, found) and "annotation 5" in where[0] and "3.jpg" in where[0]
    with pytest.raises(tfrecord.DataError, match=r"annotation 5.*3\.jpg"):
        convert(folder, object_annotations_file=path, max_bad_fraction=0.49)


def test_boxes_beyond_the_image_are_clipped(folder):
    annotations = [annotation(1, 3, [36, 16, 8, 8], area=64), annotation(2, 3, [-1, -1, 3, 3])]
    report, raw = convert(folder, object_annotations_file=write_json(folder, annotations))
    np.testing.assert_allclose(tfrecord.decode(raw[1])["boxes_norm"], [[0.8, 0.9, 1, 1], [0, 0, 0.1, 0.05]])
    [where] = reasons(report).values()
    assert len(where) == 2 and "annotation 1" in where[0] and report["boxes_left_out"] == 0


def test_corners_instead_of_sides_are_an_error(folder):
    # Read as width and height, 9 of these corners are heavily clipped; with a tenth, the conversion fails.
    far_out = [annotation(i, 3, [20 + i, 10, 39, 18]) for i in range(9)]
    inside = [annotation(i, 3, [i - 8, 1, 12, 9]) for i in range(9, 20)]
    report, _ = convert(folder, object_annotations_file=write_json(folder, [*far_out, *inside]))
    assert reasons(report).keys() == {HEAVILY_CLIPPED}
    far_out.append(annotation(99, 3, [19, 10, 39, 18]))
    path = write_json(folder, [*far_out, *inside])
    with pytest.raises(tfrecord.DataError) as error:
        convert(folder, object_annotations_file=path)
    assert "10 of 21 boxes lose more than a third of their area (annotation 0 of 3.jpg, ...): " in str(error.value)
    assert "are these corners x1, y1, x2, y2 instead of x, y, width, height" in str(error.value)
    assert convert(folder, object_annotations_file=path, max_bad_fraction=0.48)[0]["boxes"] == 21
    many = [annotation(i, 7, [i - 100, 1, 8, 9]) for i in range(100, 129)]  # 10 of 50 are not more than a fifth
    path = write_json(folder, [*far_out, *inside, *many])
    assert convert(folder, object_annotations_file=path)[0]["boxes"] == 50


@pytest.mark.parametrize("image_id", [4, "4", 4.0, 10**15])
def test_annotations_of_unlisted_images(folder, image_id):
    annotations = [annotation(1, 3, [1, 1, 5, 5]), annotation(9, image_id, [1, 1, 5, 5])]
    path = write_json(folder, annotations)
    expected = {"annotations of images that are not listed": ["annotation 9"]}
    report, _ = convert(folder, object_annotations_file=path, max_bad_fraction=0.5)
    assert reasons(report) == expected and report["boxes_left_out"] == 1
    # --image_info_file may list a subset of the images.
    report, _ = convert(folder, object_annotations_file=path, image_info_file=write_json(folder, [], "info.json"))
    assert reasons(report) == expected and report["boxes_left_out"] == 0


@pytest.mark.parametrize("image_id", [3.0, "3", "003"])
@pytest.mark.parametrize("category_id", [18.0, "18"])
def test_ids_of_other_types_are_the_same_ids(folder, image_id, category_id):
    path = write_json(folder, [annotation(1, image_id, [4, 5, 8, 10], category_id=category_id)])
    report, raw = convert(folder, object_annotations_file=path)
    sample = tfrecord.decode(raw[1])
    np.testing.assert_allclose(sample["boxes_norm"], [[0.25, 0.1, 0.75, 0.3]])
    assert (sample["source_id"].numpy(), sample["classes"].numpy().tolist()) == (b"3", [18])
    assert (report["reasons"], report["images_without_boxes"]) == ({}, 1)


def test_repeated_annotation_ids_are_noted(folder):
    rows = [annotation(1, 3, [4, 5, 8, 10]), annotation("1", 3, [5, 5, 8, 10]), annotation(2, 3, [6, 5, 8, 10])]
    report, _ = convert(folder, object_annotations_file=write_json(folder, rows))
    assert (report["boxes"], reasons(report)) == (
        3,
        {"annotations with the id of another one, written": ["annotation 1 of 3.jpg"]},
    )


def test_files_with_two_ids_are_noted(folder):
    images = [{"id": i, "file_name": name} for i, name in ((1, "3.jpg"), (2, "7.jpg"), (3, "3.jpg"))]
    report, raw = convert(folder, object_annotations_file=write_json(folder, [], images=images))
    assert len(raw) == 3
    assert reasons(report) == {"file names with several image ids, written once per id": ["3.jpg"]}


def test_ids_may_be_large_and_names_contain_folders(folder):
    (folder / "images/möwe").mkdir()
    (folder / "images/3.jpg").rename(folder / "images/möwe/鳥.jpg")
    images = [
        {"id": 5, "file_name": "möwe/鳥.jpg"},
        {"id": 2**53 + 1, "file_name": "7.jpg", "height": 20, "width": 40},
    ]
    path = write_json(folder, [annotation("x", 5, [4, 5, 8, 10])], images=images)
    _, raw = convert(folder, object_annotations_file=path)
    assert [tfrecord.decode(x)["source_id"].numpy().decode() for x in raw] == ["5", "9007199254740993"]
    assert [feature(x, "image/filename")[0].decode() for x in raw] == ["möwe/鳥.jpg", "7.jpg"]
    np.testing.assert_allclose(tfrecord.decode(raw[0])["boxes_norm"], [[0.25, 0.1, 0.75, 0.3]])  # no annotated size


@pytest.mark.parametrize(
    "changes",
    [
        {"file_name": "../secret.jpg"},
        {"file_name": "/etc/hostname"},
        {"file_name": "gone.jpg"},
        {"file_name": ""},
        {"file_name": 5},
        {"file_name": "\ud800.jpg"},
        {"file_name": "a\0.jpg"},
        {"height": "tall"},
        {"height": 21},
        {"width": float("nan")},
        {"width": 10**400},
        {"height": True},
    ],
)
def test_invalid_images_are_left_out(folder, changes):
    Image.new("RGB", (40, 20)).save(folder / "secret.jpg")
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 20, "width": 40} for i in (7, 3)]
    path = write_json(folder, [annotation(1, 3, [4, 5, 8, 10])], images=[{**images[0], **changes}, images[1]])
    report, raw = convert(folder, object_annotations_file=path, max_bad_fraction=0.5)
    assert len(raw) == 1 and (report["images"], report["images_left_out"]) == (1, 1)
    assert sum(len(where) for where in reasons(report).values()) == 1


def test_masks_of_every_kind_agree(folder):
    mask = np.zeros([20, 40], np.uint8)
    mask[2:8, 4:10] = 1
    compressed = mask_lib.encode(np.asfortranarray(mask))
    runs = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel(order="F"), [1 - mask[-1, -1]]])))
    kinds = {
        "polygons": ([[4, 2, 10, 2, 10, 5, 4, 5], [4, 5, 10, 5, 10, 8, 4, 8]], 0),
        "polygons of a crowd": ([[4, 2, 10, 2, 10, 8, 4, 8]], 1),
        "compressed": ({"size": [20, 40], "counts": compressed["counts"].decode()}, 1),
        "uncompressed": ({"size": [20, 40], "counts": np.diff([0, *runs, mask.size]).tolist()}, 1),
    }
    annotations = [
        annotation(i, 3, [4, 2, 6, 6], segmentation=segmentation, iscrowd=crowd)
        for i, (segmentation, crowd) in enumerate(kinds.values())
    ]
    _, raw = convert(folder, include_masks=True, object_annotations_file=write_json(folder, annotations))
    for kind, png in zip(kinds, feature(raw[1], "image/object/mask"), strict=True):
        decoded = Image.open(io.BytesIO(png))
        assert decoded.mode == "L", kind
        np.testing.assert_array_equal(np.asarray(decoded), mask, err_msg=kind)


def test_captions_and_list_of_images(folder):
    texts = [{"image_id": 3, "id": 1, "caption": "ein Hund"}, {"image_id": 3, "id": 2, "caption": "一只狗"}]
    texts += [{"image_id": 3, "id": 3, "caption": None}, {"image_id": 7, "id": 4, "caption": "elsewhere"}]
    captions = write_json(folder, texts, "captions.json")
    info = write_json(folder, [], "info.json", images=[{"id": 3, "file_name": "3.jpg", "height": 20, "width": 40}])
    report, raw = convert(folder, image_info_file=info, caption_annotations_file=captions)
    assert len(raw) == 1
    assert reasons(report) == {
        "captions left out: not a string, or of images that are not listed": ["annotation 3", "annotation 4"]
    }
    assert [text.decode() for text in feature(raw[0], "image/caption")] == ["ein Hund", "一只狗"]


def test_test_images_need_no_annotations(folder):
    info = write_json(folder, [], "info.json")
    report, raw = convert(folder, image_info_file=info)
    assert (report["images"], report["boxes"], report["reasons"]) == (2, 0, {})
    assert [tfrecord.decode(x)["source_id"].numpy() for x in raw] == [b"7", b"3"]


def test_missing_files_are_named(folder):
    with pytest.raises(tfrecord.DataError, match="all annotation files are missing"):
        coco.load(folder / "images")
    path = write_json(folder, [])
    with pytest.raises(tfrecord.DataError, match=r"image_dir .*nowhere"):
        coco.load(folder / "nowhere", object_annotations_file=path)
    (folder / "images/3.jpg").unlink()
    with pytest.raises(tfrecord.DataError, match=r"3\.jpg"):
        convert(folder, object_annotations_file=path)
    assert not list(folder.glob("out*"))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"[]", "has no list of images"),
        (b'{"images": {}}', "has no list of images"),
        (b'{"images": [3]}', r"expected images\[0\] to be an object {...}, got 3"),
        (b"", "cannot read"),
        (b'{"images": [', "cannot read"),
        (b'{"images": "\xff\xff"}', "cannot read"),
        (b"[" * 200_000, "nested too deep"),
    ],
)
def test_broken_files_give_one_line_errors(folder, content, message):
    (folder / "broken.json").write_bytes(content)
    with pytest.raises(tfrecord.DataError, match=message) as error:
        coco.load(folder / "images", object_annotations_file=folder / "broken.json")
    assert "broken.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"images": [{"id": 3, "file_name": "3.jpg"}, {"id": "3", "file_name": "7.jpg"}]},
            r"images\[0\] and \[1\] have",
        ),
        ({"images": [{"id": 3.5, "file_name": "3.jpg"}]}, r"images\[0\] has id 3\.5"),
        ({"images": [{"id": None, "file_name": "3.jpg"}]}, r"images\[0\] has id None"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, r"categories\[0\] and \[1\] have"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": "1", "name": "b"}]}, r"categories\[0\] and \[1\] have"),
        ({"categories": [{"id": "a", "name": "a"}]}, r"categories\[0\] has id 'a'; ids must be integers"),
        ({"categories": [{"id": -1, "name": "a"}]}, r"a category has the id -1"),
        ({"categories": [{"id": 9210045, "name": "a"}]}, r"category ids go up to 9210045; .* --consecutive_ids"),
        ({"categories": [{"id": 1, "name": None}]}, r"expected a name as text in categories\[0\], got None"),
    ],
)
def test_invalid_ids_are_refused(folder, changes, message):
    with pytest.raises(tfrecord.DataError, match=message):
        coco.load(folder / "images", object_annotations_file=write_json(folder, [], **changes))


@pytest.mark.parametrize("name", ["images", "annotations", "categories"])
def test_missing_lists_are_named(folder, name):
    path = write_json(folder, [])
    content = json.loads(path.read_text())
    del content[name]
    path.write_text(json.dumps(content))
    with pytest.raises(tfrecord.DataError, match=rf"instances\.json has no list of {name}; expected"):
        coco.load(folder / "images", object_annotations_file=path)


@pytest.mark.parametrize(
    "name, key",
    [("images", "id"), ("images", "file_name"), ("categories", "id"), ("categories", "name")],
)
def test_missing_keys_are_named(folder, name, key):
    path = write_json(folder, [])
    content = json.loads(path.read_text())
    del content[name][1][key]
    path.write_text(json.dumps(content))
    with pytest.raises(tfrecord.DataError, match=rf"instances\.json: {name}\[1\] has no '{key}'; add it to {{"):
        coco.load(folder / "images", object_annotations_file=path)


def test_objects_without_masks_are_left_out_and_named(folder):
    row = annotation(5, 3, [1, 1, 5, 5])
    del row["segmentation"]
    path = write_json(folder, [row])
    assert convert(folder, object_annotations_file=path)[0]["boxes"] == 1
    with pytest.raises(tfrecord.DataError, match=r"annotation 5.*3\.jpg"):
        convert(folder, include_masks=True, object_annotations_file=path)


def test_missing_area_is_the_area_of_the_box(folder):
    rows = [annotation(1, 3, [4, 5, 8, 10]), annotation(2, 3, [4, 5, 8, 10])]
    del rows[1]["area"]
    _, raw = convert(folder, object_annotations_file=write_json(folder, rows))
    np.testing.assert_allclose(feature(raw[1], "image/object/area"), [40, 80], rtol=1e-6)


def test_label_map_contains_the_ids_from_1(folder):
    def load(*names):
        categories = [{"id": i, "name": name} for i, name in enumerate(names)]
        return coco.load(folder / "images", object_annotations_file=write_json(folder, [], categories=categories))

    assert load("all", "dog", "cat").label_map == {1: "dog", 2: "cat"} and load().label_map == {}
    for names in (["", "car", "car"], ["", " "]):
        with pytest.raises(tfrecord.DataError, match=r"^categories: .*; give each class a unique name$"):
            load(*names)


CELLS = {"id": 0, "name": "cells", "supercategory": "none"}  # as Roboflow writes it
LARGE = [{"id": 9210045, "name": "dog", "supercategory": "cells"}, {"id": 70, "name": "cat", "supercategory": "cells"}]


@pytest.mark.parametrize(
    "first, class_ids, note",
    [
        ([], {70: 1, 9210045: 2}, None),
        ([CELLS], {70: 1, 9210045: 2}, "category 0 left out: it is the supercategory of others, and has no box"),
        ([{"id": 0, "name": "__background__"}], {70: 1, 9210045: 2}, "category 0 left out: it is the background"),
        ([{"id": 0, "name": "Background"}], {70: 1, 9210045: 2}, "category 0 left out: it is the background"),
        ([{"id": 0, "name": "bird"}], {0: 1, 70: 2, 9210045: 3}, None),
    ],
)
def test_consecutive_ids(folder, first, class_ids, note):
    rows = [annotation(i, 3, [4, 5, 8, 10], category_id=category) for i, category in enumerate(class_ids)]
    path = write_json(folder, rows, categories=[*first, *LARGE])
    source = coco.load(folder / "images", object_annotations_file=path, consecutive_ids=True)
    names = {9210045: "dog", 70: "cat", 0: "bird"}
    assert source.label_map == {class_id: names[category] for category, class_id in class_ids.items()}
    report = shards.write_shards(source, folder / "out", num_shards=1)
    assert list(report.reasons) == [*([note] if note else []), "categories renumbered, see the label map"]
    raw = list(tf.data.TFRecordDataset(str(folder / "out-00000-of-00001.tfrecord")).as_numpy_iterator())
    assert tfrecord.decode(raw[1])["classes"].numpy().tolist() == list(class_ids.values())
    # The written groundtruth has the ids of the records, and those of the source.
    groundtruth = coco_json.load(folder / "json_out.json")
    assert [row["category_id"] for row in groundtruth.annotations.rows] == list(class_ids.values())
    assert {
        row["original_id"]: row["id"] for row in coco_json.read(folder / "json_out.json").categories().values()
    } == (class_ids)
    written = shards.write_label_map(folder / "out", source.label_map, source.original_ids)
    assert label_map.resolve(written) == source.label_map
    assert "# 2 has the id 9210045 in the source\n" in pathlib.Path(written).read_text() or 0 in class_ids


@pytest.mark.parametrize("target", ["{}", "ram://{}"])
def test_a_supercategory_with_boxes_becomes_a_class(folder, target):
    target = target.format(folder)
    tf.io.gfile.makedirs(target)
    path = write_json(folder, [annotation(1, 3, [4, 5, 8, 10], category_id=0)], categories=[CELLS, *LARGE])
    source = coco.load(folder / "images", object_annotations_file=path, consecutive_ids=True)
    assert source.label_map == {1: "cells", 2: "cat", 3: "dog"}
    # Another split, in which the same class has no box, would get other ids.
    shards.write_label_map(f"{target}/train", source.label_map, source.original_ids)
    path = write_json(folder, [annotation(1, 3, [4, 5, 8, 10], category_id=70)], categories=[CELLS, *LARGE])
    other = coco.load(folder / "images", object_annotations_file=path, consecutive_ids=True)
    shards.check_label_maps(f"{target}/train", other.label_map)  # its own file is replaced
    with pytest.raises(tfrecord.DataError, match=r"'cat' would get the id 1, but has 2 in .*label_map_train\.yaml"):
        shards.check_label_maps(f"{target}/val", other.label_map)
