# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/convert/pascal.py."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dataset import label_map, tfrecord
from dataset.convert import image_file, pascal, shards
from dataset.convert.voc_set import VocSet

ROOT = Path(__file__).resolve().parents[3]
VOCDEVKIT = ROOT.parent / "shared" / "data" / "VOCdevkit"
DOG = "<object><name>dog</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>{}</object>"


def add_image(year, image_id, objects, *, size=(40, 20), filename=None, suffix=".jpg", folder="elsewhere"):
    """Writes an image of (width, height) and its annotation to a VOC folder, and its id to the list `train`."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (year / name).mkdir(parents=True, exist_ok=True)
    width, height = size
    Image.new("RGB", size, (10, 200, 30)).save(year / "JPEGImages" / f"{image_id}{suffix}")
    (year / "Annotations" / f"{image_id}.xml").write_text(
        f"<annotation><folder>{folder}</folder><filename>{filename or image_id + suffix}</filename>"
        f"<size><width>{width}</width><height>{height}</height></size>{''.join(objects)}</annotation>"
    )
    with (year / "ImageSets/Main/train.txt").open("a") as file:
        file.write(f"{image_id}\n\n")


def convert(tmp_path, *years, name="out", max_bad_fraction=0, **options):
    """Returns the written report, the records and the groundtruth."""
    source = pascal.load([VocSet(year, "train") for year in years], label_map=label_map.VOC, **options)
    shards.write_shards(source, tmp_path / name, num_shards=1, num_threads=2, max_bad_fraction=max_bad_fraction)
    raw = list(tf.data.TFRecordDataset(str(tmp_path / f"{name}-00000-of-00001.tfrecord")).as_numpy_iterator())
    groundtruth = json.loads((tmp_path / f"json_{name}.json").read_text())
    return json.loads((tmp_path / f"report_{name}.json").read_text()), raw, groundtruth


def reasons(report):
    return {reason: entry["first"] for reason, entry in report["reasons"].items()}


def test_values_by_hand(tmp_path):
    extra = "<difficult>1</difficult><truncated>1</truncated><pose>Left</pose>"
    add_image(tmp_path / "VOC", "a", [DOG.format(4, 5, 12, 15, extra), DOG.format(10.5, 0, 20.5, 10, "")])
    report, raw, groundtruth = convert(tmp_path, tmp_path / "VOC")
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
    assert groundtruth["images"] == [{"file_name": "a.jpg", "height": 20, "width": 40, "id": 1}]
    assert [a["bbox"] for a in groundtruth["annotations"]] == [[4, 5, 8, 10], [10.5, 0, 10, 10]]
    assert [a["area"] for a in groundtruth["annotations"]] == [80, 100]
    assert [a["id"] for a in groundtruth["annotations"]] == [1, 2]
    assert [a.get("difficult") for a in groundtruth["annotations"]] == [1, None]
    assert (report["images"], report["boxes"], report["reasons"]) == (1, 2, {})


def test_boxes_are_clipped_and_invalid_ones_left_out_and_named(tmp_path):
    kept = [DOG.format(-5, 3, 10, 99, ""), DOG.format("1e0", " 2 ", 5.5, 8, "<difficult>?</difficult>")]
    boxes = [(7, 7, 7, 9), (9, 9, 3, 3), (50, 2, 60, 8), ("nan", 2, 5, 8), ("inf", 2, 5, 8), ("left", 2, 5, 8)]
    no_box = ["<object><name>dog</name></object>", "<object><name>dog</name><bndbox/></object>"]
    invalid = [DOG.format(*box, "") for box in boxes] + no_box
    add_image(tmp_path / "VOC", "a", kept + invalid)
    report, raw, groundtruth = convert(tmp_path, tmp_path / "VOC", max_bad_fraction=0.8)
    np.testing.assert_allclose(tfrecord.decode(raw[0])["boxes_norm"], [[0.15, 0, 1, 0.25], [0.1, 0.025, 0.4, 0.1375]])
    assert [a["bbox"] for a in groundtruth["annotations"]] == [[0, 3, 10, 17], [1, 2, 4.5, 6]]
    assert (report["boxes"], report["boxes_left_out"]) == (2, len(invalid))
    shown = str(reasons(report))
    for item in ("[-5, 3, 10, 99]", "[7, 7, 7, 9]", "[50, 2, 60, 8]", "[nan, 2, 5, 8]", "[left, 2, 5, 8]", "[, , , ]"):
        assert f"dog {item} of a.jpg" in shown


def test_difficult_objects_are_kept_unless_asked(tmp_path):
    difficult = DOG.format(1, 1, 9, 9, "<difficult>1</difficult>")
    add_image(tmp_path / "VOC", "a", [difficult, DOG.format(2, 2, 9, 9, "")])
    assert convert(tmp_path, tmp_path / "VOC", name="all")[0]["boxes"] == 2
    report, raw, _ = convert(tmp_path, tmp_path / "VOC", name="easy", ignore_difficult_instances=True)
    assert reasons(report) == {"difficult objects left out": ["dog [1, 1, 9, 9] of a.jpg"]}
    assert report["boxes_left_out"] == 0  # it was requested
    assert tfrecord.decode(raw[0])["boxes_norm"].shape == [1, 4]


def test_merged_years_have_consecutive_ids_and_one_list_of_categories(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        add_image(tmp_path / year, "a", [DOG.format(1, 2, 3, 4, "")])
    _, raw, groundtruth = convert(tmp_path, tmp_path / "VOC2007", tmp_path / "VOC2012")
    assert [tfrecord.decode(x)["source_id"].numpy() for x in raw] == [b"1", b"2"]
    assert [image["id"] for image in groundtruth["images"]] == [1, 2]
    assert [a["image_id"] for a in groundtruth["annotations"]] == [1, 2]
    assert [a["id"] for a in groundtruth["annotations"]] == [1, 2]
    assert [c["id"] for c in groundtruth["categories"]] == list(range(1, 21))
    assert groundtruth["categories"][14]["name"] == "person"


@pytest.mark.parametrize("filename", ["C:\\images\\a.png", "gone.jpg", "../../../a.png"])
@pytest.mark.parametrize("suffix", [".png", ".JPG", ".tif", ".webp"])
def test_images_are_found_despite_wrong_file_names(tmp_path, filename, suffix):
    add_image(tmp_path / "VOC", "a", [], filename=filename, suffix=suffix)
    add_image(tmp_path / "VOC", "a.2", [], filename=filename, suffix=suffix)  # has another stem
    _, raw, groundtruth = convert(tmp_path, tmp_path / "VOC", num_images=1)
    assert groundtruth["images"][0]["file_name"] == f"a{suffix}" and len(raw) == 1


def test_file_name_decides_between_several_images(tmp_path):
    add_image(tmp_path / "VOC", "a", [], filename="C:\\b\\a.png")
    add_image(tmp_path / "VOC", "b", [])
    images = tmp_path / "VOC/JPEGImages"
    voc_set = VocSet(tmp_path / "VOC", "train")
    Image.new("RGB", (40, 20)).save(images / "a.png")
    assert voc_set.image_path("a", "C:\\b\\a.png") == images / "a.png"
    assert voc_set.image_path("a", "a.bmp") == images / "a.jpg"
    assert voc_set.image_path("a", "b.jpg") == images / "a.jpg"  # the stem of the annotation has priority
    assert voc_set.image_path("c", "x/b.jpg") == images / "b.jpg"
    with pytest.raises(image_file.ImageError, match=r"c\.jpg"):
        voc_set.image_path("c", "")


def test_list_of_a_class_replaces_a_missing_list_of_the_set(tmp_path):
    add_image(tmp_path / "VOC", "a", [])
    lists = tmp_path / "VOC" / "ImageSets" / "Main"
    (lists / "train.txt").unlink()
    (lists / "aeroplane_train.txt").write_text("\ufeffa -1\r\n\r\nb  1\r\n image (1)  0\r\nmöwe 1 -1\r\n", "utf-8")
    ids = ["a", "b", "image (1)", "möwe 1"]
    (lists / "odd_train.txt").write_text("not a class of the label map")
    assert VocSet(tmp_path / "VOC", "train").image_ids(["aeroplane"]) == ids
    assert VocSet(tmp_path / "VOC", "aeroplane_train").image_ids(["cat", "aeroplane"]) == ids
    assert VocSet(tmp_path / "VOC", "aeroplane_train").image_ids(["another class"]) == ids
    with pytest.raises(
        tfrecord.DataError, match=r"val\.txt does not exist; available lists: aeroplane_train\.txt, .*--set=all"
    ):
        VocSet(tmp_path / "VOC", "val").image_ids(["aeroplane"])
    with pytest.raises(tfrecord.DataError, match=r"folder .*VOC1999.* does not exist"):
        VocSet(tmp_path / "VOC1999", "train").image_ids([])


def test_lists_of_images(tmp_path):
    add_image(tmp_path / "VOC", "a", [])
    path, voc_set = tmp_path / "VOC/ImageSets/Main/train.txt", VocSet(tmp_path / "VOC", "train")
    path.write_text("\ufeff000001\r\n\r\n000002  \r\n image (1)\r\n möwe\r\n", "utf-8")
    assert voc_set.image_ids([]) == ["000001", "000002", "image (1)", "möwe"]
    path.write_text("\n")
    with pytest.raises(tfrecord.DataError, match="lists no images"):
        voc_set.image_ids([])
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(tfrecord.DataError, match="cannot read image list"):
        voc_set.image_ids([])


def test_ids_may_end_like_class_flags(tmp_path):
    for image_id in ("img", "img 1", "img 0", "img -1"):
        add_image(tmp_path / "VOC", image_id, [])
    report, _, groundtruth = convert(tmp_path, tmp_path / "VOC")
    names = [image["file_name"] for image in groundtruth["images"]]
    assert names == ["img.jpg", "img 1.jpg", "img 0.jpg", "img -1.jpg"] and report["reasons"] == {}
    (tmp_path / "VOC/ImageSets/Main/train.txt").write_text("img 1\nimg 0\n")
    assert VocSet(tmp_path / "VOC", "train").image_ids([]) == ["img 1", "img 0"]


def test_duplicate_ids_are_written_once(tmp_path):
    for image_id in ("a", "b", "a", "a"):
        add_image(tmp_path / "VOC", image_id, [])
    report, raw, groundtruth = convert(tmp_path, tmp_path / "VOC")
    assert [image["file_name"] for image in groundtruth["images"]] == ["a.jpg", "b.jpg"] and len(raw) == 2
    assert reasons(report) == {"images listed more than once, written once": [f"a of {tmp_path / 'VOC'}"]}


def test_all_annotations_are_converted_without_lists_or_for_all(tmp_path):
    for image_id in ("b", "a"):
        add_image(tmp_path / "VOC", image_id, [])
    (tmp_path / "VOC/ImageSets/Main/train.txt").write_text("b")
    assert VocSet(tmp_path / "VOC", "all").image_ids([]) == ["a", "b"]
    shutil.rmtree(tmp_path / "VOC/ImageSets")
    report, raw, _ = convert(tmp_path, tmp_path / "VOC")
    assert [tfrecord.decode(x)["source_id"].numpy() for x in raw] == [b"1", b"2"]
    assert list(reasons(report)) == ["folders without image lists: all annotations converted"]
    shutil.rmtree(tmp_path / "VOC/Annotations")
    with pytest.raises(tfrecord.DataError, match=r"folder .*Annotations does not exist"):
        convert(tmp_path, tmp_path / "VOC")
    (tmp_path / "VOC/Annotations").mkdir()
    with pytest.raises(tfrecord.DataError, match=r"no annotations \*\.xml"):
        convert(tmp_path, tmp_path / "VOC")


@pytest.mark.parametrize("image_id", ["../a", "/etc/hostname", "sub/a", "..", "C:\\a"])
def test_ids_with_folders_are_left_out(tmp_path, image_id):
    add_image(tmp_path / "VOC", "a", [])
    add_image(tmp_path, "a", [])
    with (tmp_path / "VOC/ImageSets/Main/train.txt").open("a") as file:
        file.write(image_id)
    report, raw, _ = convert(tmp_path, tmp_path / "VOC", max_bad_fraction=0.5)
    assert len(raw) == 1 and report["images_left_out"] == 1


def test_unknown_classes_are_reported(tmp_path):
    dogs = [DOG.format(1, 2, 3, 4, "")] * 2
    add_image(tmp_path / "VOC", "a", [*dogs, dogs[0].replace("dog", "RBC"), dogs[0].replace("dog", "")])
    report, _, _ = convert(tmp_path, tmp_path / "VOC", max_bad_fraction=0.5)
    assert report["boxes_left_out"] == 2
    assert reasons(report)["class 'RBC' is not in the label map"] == ["RBC [1, 2, 3, 4] of a.jpg"]
    assert reasons(report)["object has no class name"] == ["[1, 2, 3, 4] of a.jpg"]
    add_image(tmp_path / "other", "b", [dogs[0].replace("dog", "DOG ")])
    with pytest.raises(tfrecord.DataError, match="class 'DOG' is not in the label map, which has 'dog'"):
        convert(tmp_path, tmp_path / "other", name="bad")
    shutil.rmtree(tmp_path / "VOC")
    add_image(tmp_path / "VOC", "a", [*dogs, dogs[0].replace("dog", "RBC")])
    with pytest.raises(tfrecord.DataError, match="class 'RBC' is not in the label map"):
        convert(tmp_path, tmp_path / "VOC", name="bad")
    assert not list(tmp_path.glob("bad*")) and not list(tmp_path.glob("json_bad*"))  # no incomplete shards


def test_broken_files_are_named(tmp_path):
    add_image(tmp_path / "VOC", "a", [])
    add_image(tmp_path / "VOC", "b", [])
    path, image = tmp_path / "VOC/Annotations/a.xml", tmp_path / "VOC/JPEGImages/a.jpg"
    text = path.read_text()

    def assert_left_out(content):
        path.write_text(content)
        report, raw, _ = convert(tmp_path, tmp_path / "VOC", max_bad_fraction=0.5)
        assert len(raw) == 1 and report["images_left_out"] == 1 and tfrecord.decode(raw[0])["source_id"] == b"2"
        with pytest.raises(tfrecord.DataError, match=r"a\.(xml|jpg)"):
            convert(tmp_path, tmp_path / "VOC", name="strict")

    for content in (text[:-5], "", "<a>" * 100_000, text.replace("<width>40", "<width>80")):
        assert_left_out(content)
    path.write_text(
        text.replace("<width>40</width>", "").replace("<height>20", "<height>0")
    )  # the size is read from the image
    assert convert(tmp_path, tmp_path / "VOC")[2]["images"][0] == {
        "file_name": "a.jpg",
        "height": 20,
        "width": 40,
        "id": 1,
    }
    image.write_bytes(b"no image")
    assert_left_out(text)
    image.unlink()
    assert_left_out(text)
    image.with_name("b.jpg").rename(image)
    path.unlink()
    with pytest.raises(tfrecord.DataError, match=r"a\.xml"):
        convert(tmp_path, tmp_path / "VOC")


def test_quotes_of_broken_files_are_short(tmp_path):
    add_image(tmp_path / "VOC", "a", [])
    (tmp_path / "VOC/Annotations/a.xml").write_text(f"<annotation><{'a' * 5000}></annotation>")
    with pytest.raises(image_file.ImageError, match=r"cannot read annotation .*a\.xml: ") as error:
        pascal.read_xml(VocSet(tmp_path / "VOC", "train"), "a")
    assert len(str(error.value)) < 300 + len(str(tmp_path))
    with pytest.raises(
        tfrecord.DataError, match=r"cannot use --label_map_json_path: .*none\.json: No such file or directory$"
    ):
        pascal.load_label_map(tmp_path / "none.json")


LAUGHS = '<!ENTITY l0 "ha">' + "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))


@pytest.mark.parametrize(
    "doctype, text",
    [
        ("<!DOCTYPE annotation>", ""),
        ("<!DOCTYPE a [" + LAUGHS + "]>", "&l9;"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "SECRET">]>', "&x;"),
        ('<!DOCTYPE a SYSTEM "SECRET">', ""),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_not_expanded_or_fetched(tmp_path, doctype, text, encoding):
    add_image(tmp_path / "VOC", "a", [])
    (tmp_path / "secret").write_text("do not read")
    content = f"{doctype}<annotation><filename>{text}</filename></annotation>".replace("SECRET", f"{tmp_path}/secret")
    (tmp_path / "VOC/Annotations/a.xml").write_bytes(content.encode(encoding))
    with pytest.raises(image_file.ImageError, match=r"a\.xml"):
        pascal.read_xml(VocSet(tmp_path / "VOC", "train"), "a")


def test_collected_label_map_contains_the_classes_of_the_whole_folder(tmp_path):
    for image_id, name in (("a", "WBC"), ("b", "RBC"), ("c", "yes"), ("d", "")):
        add_image(tmp_path / "VOC", image_id, [DOG.format(1, 2, 3, 4, "").replace("dog", name)])
    (tmp_path / "VOC/ImageSets/Main/train.txt").write_text("a")
    (tmp_path / "VOC/Annotations/broken.xml").write_text("<object><name>dog</name>")
    voc_set = VocSet(tmp_path / "VOC", "train")
    assert pascal.collect_label_map([voc_set]) == {1: "RBC", 2: "WBC", 3: "yes"}
    add_image(tmp_path / "empty", "a", [])
    with pytest.raises(tfrecord.DataError, match="names a class"):
        pascal.collect_label_map([VocSet(tmp_path / "empty", "train")])


@pytest.mark.parametrize(
    "text, expected",
    [
        ('{"RBC": 1, "WBC": 2}', {1: "RBC", 2: "WBC"}),
        ('{\n\t"background": 0,\n\t"RBC": 1}', {1: "RBC"}),
        ("1: RBC\n2: WBC\n", {1: "RBC", 2: "WBC"}),
        ("RBC: 3\n", {3: "RBC"}),
    ],
)
def test_load_label_map(tmp_path, text, expected):
    path = tmp_path / ("map.json" if text.startswith("{") else "map.yaml")
    path.write_text(text)
    assert pascal.load_label_map(path) == expected


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"a": 1, "b": 1}', "id 1 to both 'a' and 'b'"),
        ('{"a": 0}', "ids start at 1"),
        ("[1, 2]", "must hold `key: value` lines"),
        ("{}", "must contain names and ids"),
        ("{", "cannot use --label_map_json_path"),
        ('{"a": 1.5}', "must pair ids"),
        ("\0", "cannot use --label_map_json_path"),
    ],
)
def test_load_label_map_rejects(tmp_path, text, message):
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(tfrecord.DataError, match=message):
        pascal.load_label_map(tmp_path / "map.json")


@pytest.mark.skipif(not VOCDEVKIT.is_dir(), reason=f"requires the images in {VOCDEVKIT}")
@pytest.mark.parametrize(
    "name, num_images, num_boxes", [("trainval", 292, 3941), ("test", 72, 945), ("all", 364, 4886)]
)
def test_real_images(tmp_path, name, num_images, num_boxes):
    voc_set = VocSet(VOCDEVKIT / "BCCD", name)
    names = pascal.collect_label_map([voc_set])
    assert names == {1: "Platelets", 2: "RBC", 3: "WBC"}
    shards.write_shards(pascal.load([voc_set], label_map=names), tmp_path / name, num_shards=3)
    report = json.loads((tmp_path / f"report_{name}.json").read_text())
    assert (report["images"], report["images_left_out"], report["boxes"]) == (num_images, 0, num_boxes)
    assert report["boxes_left_out"] == (0 if name == "test" else 2)
    if name != "test":
        shown = str(reasons(report))
        assert "RBC [504, 337, 504, 337] of BloodImage_00338.jpg" in shown
        assert "RBC [181, 329, 181, 329] of BloodImage_00343.jpg" in shown
    groundtruth = json.loads((tmp_path / f"json_{name}.json").read_text())
    annotations = {}
    for annotation in groundtruth["annotations"]:
        annotations.setdefault(annotation["image_id"], []).append(annotation)
    paths = [str(tmp_path / f"{name}-{i:05d}-of-00003.tfrecord") for i in range(3)]
    samples = [tfrecord.decode(raw) for raw in tf.data.TFRecordDataset(paths)]
    assert sorted(int(sample["source_id"]) for sample in samples) == list(range(1, num_images + 1))
    for sample in samples:
        assert sample["image"].shape == (480, 640, 3)
        expected = annotations.get(int(sample["source_id"]), [])
        xmin, ymin, width, height = np.reshape([a["bbox"] for a in expected], [-1, 4]).T
        boxes_norm = np.stack([ymin, xmin, ymin + height, xmin + width], axis=-1) / [480, 640, 480, 640]
        np.testing.assert_allclose(sample["boxes_norm"], boxes_norm, atol=1e-6)
        np.testing.assert_array_equal(sample["classes"], [a["category_id"] for a in expected])
        np.testing.assert_allclose(sample["area"], [a["area"] for a in expected], rtol=1e-6)


def test_hidden_files_are_counted_and_never_converted(tmp_path):
    year = tmp_path / "VOC2012"
    add_image(year, "a", [])
    hidden = ["Annotations/._a.xml", "Annotations/.DS_Store", "JPEGImages/._a.jpg", "JPEGImages/Thumbs.db"]
    hidden.append("ImageSets/Main/._all.txt")
    for name in hidden:
        (year / name).write_bytes(b"\0\5\x16\7")
    for voc_set in (VocSet(year, "train"), VocSet(year, "all")):
        source = pascal.load([voc_set], label_map=label_map.VOC)
        report = shards.write_shards(source, tmp_path / voc_set.name, num_shards=1)
        assert (report.written["images"], report.left_out["images"].total()) == (1, 0)
        assert report.reasons.keys() == {"hidden files ignored"}
        assert report.reasons["hidden files ignored"].first == [str(year / name) for name in sorted(hidden[:2])] + [
            str(year / name) for name in hidden[2:]
        ]
