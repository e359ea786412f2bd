# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""tests of dataset/create_coco_tfrecord.py."""

import io
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as mask_lib

from dataset import create_coco_tfrecord as coco
from dataset import tfrecord

ROOT = Path(__file__).resolve().parent.parent


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


def convert(folder, *, include_masks=False, **files):
    source = coco.load(folder / "images", **files)
    summary = coco.convert(source, folder / "out", include_masks=include_masks, num_shards=1, num_threads=2)
    return summary, list(tf.data.TFRecordDataset(str(folder / "out-00000-of-00001.tfrecord")).as_numpy_iterator())


def feature(raw, key):
    kind = tf.train.Example.FromString(raw).features.feature[key]
    return list(getattr(kind, kind.WhichOneof("kind")).value)


def test_values_by_hand(folder):
    annotations = [annotation(1, 3, [4, 5, 8, 10]), annotation(2, 3, [0, 0, 40, 20], category_id=90, iscrowd=1)]
    summary, raw = convert(folder, object_annotations_file=write_json(folder, annotations))
    empty, sample = (tfrecord.decode(x) for x in raw)  # in the order of the list: 7, 3
    assert (empty["source_id"].numpy(), sample["source_id"].numpy()) == (b"7", b"3")
    assert empty["boxes_norm"].shape == (0, 4)
    np.testing.assert_allclose(sample["boxes_norm"], [[0.25, 0.1, 0.75, 0.3], [0, 0, 1, 1]])
    np.testing.assert_array_equal(sample["classes"], [18, 90])
    np.testing.assert_array_equal(sample["is_crowd"], [False, True])
    np.testing.assert_array_equal(sample["area"], [40, 400])
    assert feature(raw[1], "image/object/class/text") == [b"dog", b"toothbrush"]
    assert feature(raw[1], "image/encoded") == [(folder / "images/3.jpg").read_bytes()]
    assert str(summary) == "2 images, 2 boxes"


def test_bad_boxes_are_left_out_by_name(folder):
    boxes = [[1, 1, 0, 5], [1, 1, 5, -2], [36, 1, 5, 5], [1, 16, 5, 4.5], [-1, 1, 5, 5], [35, 15, 5, 5]]
    annotations = [annotation(i, 3, box) for i, box in enumerate(boxes)] + [annotation(9, 4, [1, 1, 5, 5])]
    summary, raw = convert(folder, object_annotations_file=write_json(folder, annotations))
    np.testing.assert_allclose(tfrecord.decode(raw[1])["boxes_norm"], [[0.75, 0.875, 1, 1]])
    assert summary.num_boxes == 1
    assert summary.notes == {
        "annotated images that the list of images lacks": ["id 4"],
        "empty boxes left out": ["annotation 0 of 3.jpg", "annotation 1 of 3.jpg"],
        "boxes beyond the image left out": [f"annotation {i} of 3.jpg" for i in (2, 3, 4)],
    }


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
    captions = write_json(folder, texts, "captions.json")
    info = write_json(folder, [], "info.json", images=[{"id": 3, "file_name": "3.jpg", "height": 20, "width": 40}])
    _, raw = convert(folder, image_info_file=info, caption_annotations_file=captions)
    assert len(raw) == 1
    assert [text.decode() for text in feature(raw[0], "image/caption")] == ["ein Hund", "一只狗"]


def test_test_images_need_no_annotations(folder):
    info = write_json(folder, [], "info.json")
    summary, raw = convert(folder, image_info_file=info)
    assert (summary.num_images, summary.num_boxes) == (2, 0)
    assert [tfrecord.decode(x)["source_id"].numpy() for x in raw] == [b"7", b"3"]


def test_missing_things_name_themselves(folder):
    with pytest.raises(tfrecord.DataError, match="all annotation files are missing"):
        coco.load(folder / "images")
    path = write_json(folder, [annotation(5, 3, [1, 1, 5, 5], category_id=2)])
    with pytest.raises(tfrecord.DataError, match=r"image_dir .*nowhere"):
        coco.load(folder / "nowhere", object_annotations_file=path)
    with pytest.raises(tfrecord.DataError, match=r"annotation 5 of 3\.jpg has category 2"):
        convert(folder, object_annotations_file=path)
    (folder / "images/3.jpg").unlink()
    with pytest.raises(tfrecord.DataError, match=r"cannot read the image .*3\.jpg"):
        convert(folder, object_annotations_file=write_json(folder, []))
    assert not list(folder.glob("out*"))
    (folder / "instances.json").write_text("[]")
    with pytest.raises(tfrecord.DataError, match=r"instances\.json has no list of images"):
        coco.load(folder / "images", object_annotations_file=path)


@pytest.mark.parametrize("name", ["images", "annotations", "categories"])
def test_missing_lists_name_themselves(folder, name):
    path = write_json(folder, [])
    content = json.loads(path.read_text())
    del content[name]
    path.write_text(json.dumps(content))
    with pytest.raises(tfrecord.DataError, match=rf"instances\.json has no list of {name}; expected"):
        coco.load(folder / "images", object_annotations_file=path)


@pytest.mark.parametrize(
    "name, key",
    [("images", key) for key in ("id", "file_name", "height", "width")]
    + [("annotations", key) for key in ("id", "image_id", "category_id", "bbox")]
    + [("categories", key) for key in ("id", "name")],
)
def test_missing_keys_name_themselves(folder, name, key):
    path = write_json(folder, [annotation(i, 3, [1, 1, 5, 5]) for i in range(2)])
    content = json.loads(path.read_text())
    del content[name][1][key]
    path.write_text(json.dumps(content))
    with pytest.raises(tfrecord.DataError, match=rf"instances\.json: {name}\[1\] has no '{key}'; add it to {{"):
        coco.load(folder / "images", object_annotations_file=path)


def test_missing_captions_name_themselves(folder):
    path = write_json(folder, [annotation(1, 3, [1, 1, 5, 5])])
    with pytest.raises(tfrecord.DataError, match=r"annotations\[0\] has no 'caption'"):
        coco.load(folder / "images", caption_annotations_file=path)


def test_missing_masks_name_themselves(folder):
    row = annotation(5, 3, [1, 1, 5, 5])
    del row["segmentation"]
    path = write_json(folder, [row])
    assert convert(folder, object_annotations_file=path)[0].num_boxes == 1
    with pytest.raises(tfrecord.DataError, match=r"annotation 5 of 3\.jpg has no 'segmentation'; .* without masks"):
        convert(folder, include_masks=True, object_annotations_file=path)


def test_missing_area_is_that_of_the_box(folder):
    rows = [annotation(1, 3, [4, 5, 8, 10]), annotation(2, 3, [4, 5, 8, 10])]
    del rows[1]["area"]
    _, raw = convert(folder, object_annotations_file=write_json(folder, rows))
    assert feature(raw[1], "image/object/area") == [40, 80]


def test_files_that_cannot_be_written_are_told(folder, monkeypatch):
    flags = types.SimpleNamespace(
        image_dir=folder / "images",
        image_info_file="",
        object_annotations_file=write_json(folder, []),
        caption_annotations_file="",
        output_file_prefix=str(folder / "instances.json" / "train"),  # a file where a folder has to be
        include_masks=False,
        num_shards=1,
        num_threads=1,
    )
    monkeypatch.setattr(coco, "FLAGS", flags)
    with pytest.raises(SystemExit, match=r"^error: .*instances\.json"):
        coco.main(["create_coco_tfrecord.py"])


def test_command_runs_from_anywhere(folder):
    write_json(folder, [annotation(1, 3, [4, 5, 8, 10])])
    script = ROOT / "dataset" / "create_coco_tfrecord.py"
    flags = ["--image_dir=images", "--output_file_prefix=new/train", "--num_shards=2"]
    flags.append("--object_annotations_file=instances.json")
    done = subprocess.run([sys.executable, script, *flags], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 images, 1 boxes\n")
    assert len(list((folder / "new").glob("train-*-of-00002.tfrecord"))) == 2
