# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/convert/box_frame.py: boxes of images with EXIF orientation are on their objects."""

import json
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image

from dataset import tfrecord
from dataset.convert import box_frame, coco, command, pascal, shards, yolo
from dataset.convert.box_frame import STORED, UPRIGHT, Evidence, Frames
from dataset.tfrecord import DataError

CASES = Path(__file__).resolve().parents[4] / "shared" / "cases" / "exif"
LANDSCAPE, SQUARE = (40, 60), (50, 50)  # (height, width) of the stored pixels
CENTRE = (10, 5, 30, 25)  # [xmin, ymin, xmax, ymax]: fits in both frames of LANDSCAPE
RIGHT = (45, 5, 57, 25)  # fits in 60x40 only
BOTTOM = (5, 45, 25, 57)  # fits in 40x60 only
FITS_NEITHER = (45, 45, 57, 57)
STORED_NOTE, UPRIGHT_NOTE = "EXIF orientation applied to images and boxes", "boxes are upright"
TRANSPOSES = {  # Exif 2.32, tag 274: stored pixels of an upright image, and back
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, 1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels, -1),
}


class Photo(NamedTuple):
    """An image whose pixels are bright in its only box."""

    orientation: int
    box: tuple[int, int, int, int]  # [xmin, ymin, xmax, ymax], in the frame `frame`
    frame: str
    annotated: str | None = STORED  # frame of the annotated size; None: no size
    stored_size: tuple[int, int] = LANDSCAPE

    @property
    def upright_size(self):
        return self.stored_size[::-1] if self.orientation >= 5 else self.stored_size

    def write(self, path):
        xmin, ymin, xmax, ymax = self.box
        pixels = np.full([*(self.stored_size if self.frame == STORED else self.upright_size), 3], 20, np.uint8)
        pixels[ymin:ymax, xmin:xmax] = 240
        stored = pixels if self.frame == STORED else TRANSPOSES[self.orientation](pixels)
        exif = Image.Exif()
        exif[0x0112] = self.orientation
        Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)

    @property
    def annotated_size(self):
        return {STORED: self.stored_size, UPRIGHT: self.upright_size, None: None}[self.annotated]


def as_coco(root, photos):
    images, annotations = [], []
    for i, photo in enumerate(photos, start=1):
        photo.write(root / f"{i}.png")
        height, width = photo.annotated_size or (0, 0)
        images.append({"id": i, "file_name": f"{i}.png", "height": height, "width": width})
        xmin, ymin, xmax, ymax = photo.box
        box, outline = [xmin, ymin, xmax - xmin, ymax - ymin], [xmin, ymin, xmax, ymin, xmax, ymax, xmin, ymax]
        annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": box, "segmentation": [outline]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "dog"}]}
    (root / "a.json").write_text(json.dumps(content))
    return coco.load(root, object_annotations_file=root / "a.json")


def as_voc(root, photos):
    for folder in ("JPEGImages", "Annotations"):
        (root / folder).mkdir()
    for i, photo in enumerate(photos):
        photo.write(root / "JPEGImages" / f"{i}.png")
        sides = zip(("xmin", "ymin", "xmax", "ymax"), photo.box)
        box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
        height, width = photo.annotated_size or (0, 0)
        content = f"<size><height>{height}</height><width>{width}</width></size>"
        content += f"<object><name>dog</name><bndbox>{box}</bndbox></object>"
        (root / "Annotations" / f"{i}.xml").write_text(f"<annotation>{content}</annotation>")
    return pascal.load([pascal.VocSet(root, "all")], label_map={1: "dog"})


def as_yolo(root, photos):
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for i, photo in enumerate(photos):
        photo.write(root / "images" / f"{i}.png")
        height, width = photo.stored_size if photo.frame == STORED else photo.upright_size
        xmin, ymin, xmax, ymax = np.divide(photo.box, [width, height, width, height])
        row = f"0 {(xmin + xmax) / 2} {(ymin + ymax) / 2} {xmax - xmin} {ymax - ymin}"
        (root / "labels" / f"{i}.txt").write_text(row)
    (root / "data.yaml").write_text(yaml.safe_dump({"path": ".", "train": "images", "names": ["dog"]}))
    return yolo.load(root / "data.yaml", "train")


def convert(root, source, exif_boxes="auto", **options):
    """Returns whether the boxes of the records are on the bright pixels, and the reasons in the report with counts."""
    source = source.__class__(**{**vars(source), "exif_boxes": exif_boxes})
    report = shards.write_shards(source, root / "out" / "o", num_shards=1, num_threads=2, **options)
    is_right = []
    for raw in tf.data.TFRecordDataset(str(root / "out" / "o-00000-of-00001.tfrecord")):
        sample = tfrecord.decode(raw)
        bright = np.argwhere(sample["image"].numpy()[..., 0] > 120)
        found = np.concatenate([bright.min(axis=0), bright.max(axis=0) + 1])
        box = sample["boxes_norm"].numpy()[0] * np.tile(sample["image"].shape[:2], 2)
        is_right.append(bool(np.all(np.abs(box - found) < 0.5)))
        for mask in tf.train.Example.FromString(raw.numpy()).features.feature["image/object/mask"].bytes_list.value:
            mask = tf.io.decode_png(mask).numpy()[..., 0]
            np.testing.assert_array_equal(mask, sample["image"].numpy()[..., 0] > 120)
    return is_right, {reason: entry.count for reason, entry in report.reasons.items() if "EXIF orientation a" in reason}


def turned(frame, annotated, boxes=(CENTRE, RIGHT, BOTTOM)):
    """Returns images of all orientations, with boxes that are inside of the frame."""
    inside = {1: RIGHT, 0: BOTTOM}
    return [
        Photo(orientation, box, frame, annotated)
        for orientation in (5, 6, 7, 8)
        for box in boxes
        if box in (CENTRE, inside[frame == STORED])
    ]


AMBIGUOUS = [(2, LANDSCAPE), (3, LANDSCAPE), (4, LANDSCAPE), (6, SQUARE), (8, SQUARE)]


@pytest.mark.parametrize("write", [as_coco, as_voc])
@pytest.mark.parametrize("annotated", [STORED, UPRIGHT, None])
@pytest.mark.parametrize("frame", [STORED, UPRIGHT])
def test_boxes_that_fit_in_one_frame_decide_for_all_images(tmp_path, write, frame, annotated):
    """Also for images that show nothing themselves: boxes in the centre, square images, flips and half turns."""
    photos = turned(frame, annotated)
    photos += [Photo(orientation, CENTRE, frame, STORED, size) for orientation, size in AMBIGUOUS]
    photos.append(Photo(1, CENTRE, frame))
    is_right, notes = convert(tmp_path, write(tmp_path, photos))
    assert is_right == [True] * len(photos)
    expected = STORED_NOTE if frame == STORED else UPRIGHT_NOTE
    assert sum(notes.values()) == len(photos) - 1 and all(expected in note for note in notes)


def test_masks_follow_their_boxes(tmp_path):
    for frame in (STORED, UPRIGHT):
        root = tmp_path / frame
        root.mkdir()
        photos = [*turned(frame, STORED), *(Photo(i, CENTRE, frame, STORED, size) for i, size in AMBIGUOUS)]
        is_right, _ = convert(root, as_coco(root, photos), include_masks=True)
        assert is_right == [True] * len(photos)


@pytest.mark.parametrize("write", [as_coco, as_voc])
@pytest.mark.parametrize("frame", [STORED, UPRIGHT])
def test_without_other_evidence_the_annotated_size_decides(tmp_path, write, frame):
    photos = turned(frame, frame, [CENTRE])
    photos += [Photo(orientation, CENTRE, frame, STORED, size) for orientation, size in AMBIGUOUS]
    is_right, notes = convert(tmp_path, write(tmp_path, photos))
    assert is_right == [True] * len(photos)
    by_size = {f"{STORED_NOTE}: {box_frame.BY_SIZE}": 4} if frame == STORED else {}  # upright: nothing is assumed
    assert by_size.items() <= notes.items() and sum(notes.values()) == len(AMBIGUOUS) + len(by_size) * 4


def test_kinds_of_annotated_sizes_are_decided_on_separately(tmp_path):
    """A dataset joined from those of two tools."""
    photos = [*turned(STORED, STORED), *turned(UPRIGHT, UPRIGHT)]
    is_right, _ = convert(tmp_path, as_coco(tmp_path, photos))
    assert is_right == [True] * len(photos)


UNDECIDED = {
    "fractions": (as_yolo, turned(UPRIGHT, None)),
    "no size": (as_voc, turned(UPRIGHT, None, [CENTRE])),
    "flips, half turns and squares": (as_coco, [Photo(i, CENTRE, UPRIGHT, STORED, size) for i, size in AMBIGUOUS]),
    "contradiction": (as_coco, [*turned(UPRIGHT, STORED, [BOTTOM]), *turned(STORED, STORED, [RIGHT])]),
}


@pytest.mark.parametrize("name", UNDECIDED)
def test_images_without_evidence_are_an_error_that_names_the_flag(tmp_path, name):
    write, photos = UNDECIDED[name]
    with pytest.raises(DataError, match=r"\.png, .*; give --exif_boxes=upright, .* or --exif_boxes=stored") as error:
        convert(tmp_path, write(tmp_path, photos))
    assert str(error.value).startswith(f"{len(photos)} of {len(photos)} images ")
    fits = 4 if name == "contradiction" else 0
    assert f"{fits} only in the upright image, {fits} only in the stored image" in str(error.value)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("write", [as_coco, as_voc, as_yolo])
@pytest.mark.parametrize("frame", [STORED, UPRIGHT])
def test_the_flag_decides(tmp_path, write, frame):
    photos = [Photo(i, CENTRE, frame, STORED, size) for i, size in AMBIGUOUS] + turned(frame, None, [CENTRE])
    is_right, notes = convert(tmp_path, write(tmp_path, photos), frame)
    assert is_right == [True] * len(photos)
    assert list(notes.values()) == [len(photos)] and all(note.endswith(box_frame.BY_FLAG) for note in notes)


@pytest.mark.parametrize("num_plain, is_error", [(198, False), (197, True)])
def test_a_few_images_without_evidence_are_read_as_upright_and_counted(tmp_path, monkeypatch, num_plain, is_error):
    """2 of 200 images are max_bad_fraction."""
    photos = [Photo(3, CENTRE, UPRIGHT), Photo(6, CENTRE, UPRIGHT, None)] + [Photo(1, CENTRE, UPRIGHT)] * num_plain
    source = as_coco(tmp_path, photos)
    if is_error:
        with pytest.raises(DataError, match="2 of 199 images"):
            convert(tmp_path, source)
        return
    is_right, notes = convert(tmp_path, source)
    assert all(is_right)
    assert notes == {f"EXIF orientation applied to images only, boxes are upright: {box_frame.ASSUMED}": 2}


def test_images_without_objects_need_no_evidence(tmp_path):
    source = as_coco(tmp_path, [Photo(3, CENTRE, UPRIGHT), Photo(1, CENTRE, UPRIGHT)])
    content = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps({**content, "annotations": content["annotations"][1:]}))
    source = coco.load(tmp_path, object_annotations_file=tmp_path / "a.json")
    report = shards.write_shards(source, tmp_path / "out" / "o", num_shards=1)
    assert dict(report.reasons)["images re-encoded: EXIF orientation"].count == 1 and len(report.reasons) == 1


def test_images_of_another_size_than_annotated_are_no_evidence(tmp_path):
    """They are left out, and the reason is their size, not EXIF orientation."""
    as_coco(tmp_path, [Photo(6, CENTRE, UPRIGHT), Photo(1, CENTRE, UPRIGHT)])
    content = json.loads((tmp_path / "a.json").read_text())
    content["images"][0]["width"] = 61
    (tmp_path / "a.json").write_text(json.dumps(content))
    source = coco.load(tmp_path, object_annotations_file=tmp_path / "a.json")
    with pytest.raises(DataError, match=r"1 of 2, above .*; annotated size differs from the image's: 1"):
        shards.write_shards(source, tmp_path / "out" / "o", num_shards=1)


def test_all_boxes_of_the_sample_are_on_their_objects(tmp_path):
    """12 JPEGs of 160x120 with orientation 6, the stored size in the JSON, and boxes of the upright image."""
    if not CASES.exists():
        pytest.skip(f"{CASES} does not exist")
    source = coco.load(CASES / "images", object_annotations_file=CASES / "ann.json")
    report = shards.write_shards(source, tmp_path / "o", num_shards=1)
    hits = []
    for raw in tf.data.TFRecordDataset(str(tmp_path / "o-00000-of-00001.tfrecord")):
        sample = tfrecord.decode(raw)
        image, (height, width) = sample["image"].numpy().astype(int), sample["image"].shape[:2]
        assert (height, width) == (160, 120)
        for ymin, xmin, ymax, xmax in sample["boxes_norm"].numpy():
            red, green, blue = image[int((ymin + ymax) / 2 * height), int((xmin + xmax) / 2 * width)]
            hits.append(max(red, green) - blue > 100)  # objects are red and green, the background is grey
    assert hits == [True] * 36
    assert {reason for reason in report.reasons if "clipped" in reason or "clipping" in reason} == set()


def test_command_warns_that_the_annotation_file_has_other_boxes(tmp_path, monkeypatch, caplog):
    source = as_coco(tmp_path, turned(STORED, STORED, [CENTRE]))
    values = {"num_threads": 1, "max_bad_fraction": 0.01, "max_image_pixels": 10**6, "num_shards": 1}
    for exif_boxes, is_turned in (("auto", True), ("upright", False)):
        flags = types.SimpleNamespace(**values, exif_boxes=exif_boxes)
        monkeypatch.setattr(command, "FLAGS", flags)
        command.convert(source, str(tmp_path / "out" / exif_boxes), with_label_map=False)
        assert ("evaluate these records without --val_json_file" in caplog.text) == is_turned
        caplog.clear()


@pytest.mark.parametrize(
    "box, frame",
    [
        (CENTRE, None),
        (RIGHT, STORED),
        (BOTTOM, UPRIGHT),
        (FITS_NEITHER, None),
        ((0, 0, 60, 40), STORED),
        ((0, 0, 61, 41), STORED),  # inaccurate by less than 2 % of 60
        ((0, 0, 41, 41), None),  # so it fits in both
        ((-1, 0, 60, 40), STORED),
        ((-2, 0, 60, 40), None),
        ((50, 5, 45, 25), None),  # inverted
        ((45, 5, float("nan"), 25), None),
        ((45, 5, float("inf"), 25), None),
    ],
)
def test_frame_of_a_box(box, frame):
    assert Frames((40, 60), (60, 40)).of_box(box) == frame
    assert Frames((40, 60), (40, 60)).of_box(box) is None  # a half turn


@pytest.mark.parametrize(
    "segmentation, frame",
    [
        ({"size": [40, 60], "counts": []}, STORED),
        ({"size": [60, 40], "counts": []}, UPRIGHT),
        ({"size": [9, 9], "counts": []}, None),
        ({"size": 9}, None),
        ({}, None),
        (None, None),
        ([[1, 2, 3, 4, 5, 6]], None),
    ],
)
def test_frame_of_a_mask(segmentation, frame):
    assert Frames((40, 60), (60, 40)).of_mask(segmentation) == frame


@pytest.mark.parametrize(
    "num_stored, num_upright, expected",
    [
        (9, 1, (STORED, box_frame.BY_BOXES)),
        (1, 9, (UPRIGHT, box_frame.BY_BOXES)),
        (0, 1, (UPRIGHT, box_frame.BY_BOXES)),
        (8, 1, (STORED, box_frame.ASSUMED)),
        (1, 8, (STORED, box_frame.ASSUMED)),
        (0, 0, (STORED, box_frame.BY_SIZE)),
    ],
)
def test_nearly_all_boxes_must_agree(num_stored, num_upright, expected):
    evidence = Evidence(names=["a.jpg"])
    evidence.fits.update([STORED] * num_stored + [UPRIGHT] * num_upright)
    assert box_frame.decide({STORED: evidence}).by_size[STORED] == expected
