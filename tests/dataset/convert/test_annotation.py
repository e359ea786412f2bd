# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/convert/annotation.py: stored boxes and masks, and notes on the others."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_lib

from dataset import tfrecord
from dataset.convert import annotation as annotation_lib
from dataset.convert import box_frame, image_file
from dataset.convert.annotation import HEAVILY_CLIPPED, AnnotatedObject, Annotation
from dataset.convert.conversion_report import ConversionReport
from dataset.convert.image_file import ImageError, ImageFile

HEIGHT, WIDTH = 20, 40
BOX = (4, 5, 12, 15)  # [xmin, ymin, xmax, ymax]
BOX_NORM = [0.25, 0.1, 0.75, 0.3]


def item(box=BOX, class_id=18, label="annotation 5", **changes):
    return AnnotatedObject(box, class_id, "dog", label, **changes)


def to_record(*objects, image=None, size=(HEIGHT, WIDTH), include_masks=False, exif_boxes="auto", **changes):
    """Returns the record of a.jpg, the report as {reason: names}, and the number of boxes left out."""
    report = ConversionReport()
    annotation = Annotation(Path("images/a.jpg"), "a.jpg", "3", size, objects, **changes)
    image = image or ImageFile(b"bytes", "jpeg", HEIGHT, WIDTH)
    options = {"include_masks": include_masks, "box_frames": box_frame.decide({}, exif_boxes)}
    record = annotation_lib.to_record(annotation, image, report, **options)
    reasons = {reason: entry.first for reason, entry in report.reasons.items()}
    return record, reasons, sum(report.left_out["boxes"].values())


def test_values_by_hand():
    objects = [item(area=33.5, is_crowd=1), item((0, 0, 40, 20), 1, is_crowd=0, difficult=0, truncated=1, pose="Left")]
    record, reasons, left_out = to_record(*objects, captions=["ein Hund"])
    assert (record.encoded, record.image_format, record.height, record.width) == (b"bytes", "jpeg", 20, 40)
    assert (record.filename, record.source_id, record.captions) == ("a.jpg", "3", ["ein Hund"])
    np.testing.assert_allclose(record.boxes_norm, [BOX_NORM, [0, 0, 1, 1]], rtol=1e-6)
    assert (record.classes, record.class_names, record.is_crowd) == ([18, 1], ["dog", "dog"], [1, 0])
    assert record.area == [33.5, 800]  # as annotated; area of the box
    assert (record.difficult, record.truncated, record.poses) == ([0], [1], ["Left"])
    assert (record.masks, reasons, left_out) == ([], {annotation_lib.CROWDS: ["annotation 5 of a.jpg"]}, 0)


def test_fractions_are_not_scaled():
    record, reasons, _ = to_record(item((0.1, 0.25, 0.3, 0.75)), normalized=True, size=None)
    np.testing.assert_allclose(record.boxes_norm, [BOX_NORM], rtol=1e-6)
    np.testing.assert_allclose(record.area, [80], rtol=1e-6)
    assert reasons == {}


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    "box, reason",
    [
        ((NAN, 5, 12, 15), "boxes that are not finite numbers"),
        ((4, 5, INFINITE, 15), "boxes that are not finite numbers"),
        ((4, 5, 4, 15), "boxes that are empty or inverted"),
        ((12, 5, 4, 15), "boxes that are empty or inverted"),
        ((4, 15, 12, 5), "boxes that are empty or inverted"),
        ((4, 5, 4.0009, 15), "boxes that are empty or inverted"),  # pixels
        ((39.9995, 5, 60, 15), "boxes that are empty or inverted"),  # after clipping
        ((40, 5, 60, 15), "boxes outside the image"),
        ((-9, 5, 0, 15), "boxes outside the image"),
        ((4, -9, 12, -1), "boxes outside the image"),
        ((4, 1e300, 12, 1.1e300), "boxes outside the image"),
    ],
)
def test_unusable_boxes_are_left_out_and_named(box, reason):
    record, reasons, left_out = to_record(item(), item(box))
    np.testing.assert_allclose(record.boxes_norm, [BOX_NORM], rtol=1e-6)
    assert len(record.classes) == len(record.area) == left_out == 1
    assert reasons == {reason: ["annotation 5 of a.jpg"]}


@pytest.mark.parametrize(
    "box, expected, reason",
    [
        ((-5, 3, 10, 99), [0.15, 0, 1, 0.25], HEAVILY_CLIPPED),
        ((-1e300, -1e300, 1e300, 1e300), [0, 0, 1, 1], HEAVILY_CLIPPED),
        ((25, 0, 48.1, 20), [0, 0.625, 1, 1], HEAVILY_CLIPPED),  # 8.1 of 23.1 pixels
        ((25, 0, 47, 20), [0, 0.625, 1, 1], "boxes that extend beyond the image, clipped"),  # 7 of 22
        ((0, 0, 40.2, 20), [0, 0, 1, 1], "boxes that extend beyond the image, clipped"),
        ((-0.09, 0, 40, 20.09), [0, 0, 1, 1], None),  # rounding
        ((0, 0, 40, 20), [0, 0, 1, 1], None),
    ],
)
def test_boxes_beyond_the_image_are_clipped(box, expected, reason):
    record, reasons, left_out = to_record(item(box, area=7))
    np.testing.assert_allclose(record.boxes_norm, [expected], rtol=1e-6)
    assert (record.area, left_out) == ([7], 0)
    assert reasons == ({reason: ["annotation 5 of a.jpg"]} if reason else {})


@given(st.tuples(*[st.floats(allow_nan=True, width=32) | st.integers(-5, 45)] * 4))
def test_any_four_numbers_give_a_box_inside_the_image_or_none(box):
    record, reasons, left_out = to_record(item(box))
    ymin, xmin, ymax, xmax = np.reshape(record.boxes_norm, [-1, 4]).T
    assert np.all((ymin >= 0) & (xmin >= 0) & (ymax <= 1) & (xmax <= 1) & (ymax > ymin) & (xmax > xmin))
    assert len(ymin) + left_out == 1 and (not left_out or len(reasons) == 1)
    assert all(math.isfinite(area) and area > 0 for area in record.area)
    tfrecord.encode(record)


def test_duplicates_are_kept_and_noted():
    record, reasons, left_out = to_record(item(), item(label="annotation 6"), item(class_id=2), item((4, 5, 12, 15.5)))
    assert record.classes == [18, 18, 2, 18] and left_out == 0
    assert reasons == {"duplicate boxes, kept": ["annotation 6 of a.jpg"]}


@pytest.mark.parametrize("area", [NAN, INFINITE, -1, 1e300])
def test_invalid_areas_are_replaced(area):
    record, reasons, left_out = to_record(item(area=area))
    np.testing.assert_allclose(record.area, [80], rtol=1e-6)
    assert left_out == 0 and list(reasons.values()) == [["annotation 5 of a.jpg"]]


def test_many_objects():
    objects = [item((i % 30, i % 15, i % 30 + 5, i % 15 + 1 + i / 5000), label=str(i)) for i in range(5000)]
    record, reasons, _ = to_record(*objects)
    assert (
        len(tfrecord.encode(record)) > 5000 * (4 * 4 + 4 + 1) and record.boxes_norm.shape == (5000, 4) and reasons == {}
    )


@pytest.mark.parametrize("size", [(40, 20), (20, 41), (0.5, 40), (20, NAN)])
def test_images_of_another_size_than_annotated_are_left_out(size):
    with pytest.raises(ImageError, match=r"a\.jpg is 40x20, but annotated as") as error:
        to_record(item(), size=size)
    assert error.value.reason == "annotated size differs from the image's"


def test_re_encoded_images_are_noted():
    image = ImageFile(b"", "jpeg", HEIGHT, WIDTH, change="CMYK")
    assert to_record(image=image)[1] == {"images re-encoded: CMYK": ["a.jpg"]}


# EXIF orientation of images, boxes and masks.

RE_ENCODED = "images re-encoded: EXIF orientation"


def oriented_image(tmp_path, orientation, size=(HEIGHT, WIDTH)):
    """Reads a file with an EXIF orientation whose stored pixels are bright in BOX."""
    stored = Image.new("RGB", size[::-1], (20, 20, 20))
    stored.paste((240, 240, 240), BOX)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    return image_file.read(tmp_path / "a.png")


def bright_box(encoded):
    """Returns the box [ymin, xmin, ymax, xmax] in [0, 1] of the bright pixels of an image."""
    bright = tf.io.decode_image(encoded, channels=3, expand_animations=False).numpy()[:, :, 0] > 100
    found = np.argwhere(bright)
    return np.concatenate([found.min(axis=0), found.max(axis=0) + 1]) / np.tile(bright.shape, 2)


STORED_BOXES, UPRIGHT_BOXES = (
    f"EXIF orientation applied to images {scope}: " for scope in ("and boxes", "only, boxes are upright")
)


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), None])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_is_applied_to_boxes_and_masks_of_stored_pixels(tmp_path, orientation, size):
    image, polygon = oriented_image(tmp_path, orientation), [[4, 5, 12, 5, 12, 15, 4, 15]]
    options = {"image": image, "size": size, "include_masks": True, "exif_boxes": "stored"}
    record, reasons, left_out = to_record(item(segmentation=polygon), **options)
    np.testing.assert_allclose(record.boxes_norm, [bright_box(record.encoded)], atol=1e-6)
    assert (record.height, record.width, left_out) == (image.height, image.width, 0)
    np.testing.assert_allclose(record.area, [80], rtol=1e-6)
    assert reasons == {RE_ENCODED: ["a.jpg"], STORED_BOXES + box_frame.BY_FLAG: ["a.jpg"]}
    mask = np.asarray(Image.open(io.BytesIO(record.masks[0])))
    bright = tf.io.decode_image(record.encoded, channels=3).numpy()[:, :, 0] > 100
    np.testing.assert_array_equal(mask, bright)


@pytest.mark.parametrize(
    "orientation, size",
    [
        *((orientation, size) for orientation in range(2, 9) for size in ((HEIGHT, WIDTH), None)),
        *((orientation, (WIDTH, HEIGHT)) for orientation in range(5, 9)),
    ],
)
def test_boxes_and_masks_of_the_upright_image_are_unchanged(tmp_path, orientation, size):
    image, polygon = oriented_image(tmp_path, orientation), [[4, 5, 12, 5, 12, 15, 4, 15]]
    options = {"image": image, "size": size, "include_masks": True, "exif_boxes": "upright"}
    record, reasons, _ = to_record(item(segmentation=polygon), **options)
    height, width = image.height, image.width
    np.testing.assert_allclose(record.boxes_norm, [[5 / height, 4 / width, 15 / height, 12 / width]], rtol=1e-6)
    assert reasons == {RE_ENCODED: ["a.jpg"], UPRIGHT_BOXES + box_frame.BY_FLAG: ["a.jpg"]}
    mask = np.zeros([height, width], np.uint8)
    mask[5:15, 4:12] = 1
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(record.masks[0]))), mask)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_refer_to_the_frame_of_the_annotated_size(tmp_path, orientation):
    image = oriented_image(tmp_path, orientation)
    record, reasons, _ = to_record(item(), image=image)
    np.testing.assert_allclose(record.boxes_norm, [bright_box(record.encoded)], atol=1e-6)
    assert reasons == {RE_ENCODED: ["a.jpg"], STORED_BOXES + box_frame.BY_SIZE: ["a.jpg"]}
    record, reasons, _ = to_record(item(), image=image, size=(WIDTH, HEIGHT))
    np.testing.assert_allclose(record.boxes_norm, [[5 / 40, 4 / 20, 15 / 40, 12 / 20]], rtol=1e-6)
    assert reasons == {RE_ENCODED: ["a.jpg"]}  # nothing is assumed


@pytest.mark.parametrize(
    "orientation, stored_size, size",
    [
        # Height and width are not exchanged.
        *((orientation, (HEIGHT, WIDTH), (HEIGHT, WIDTH)) for orientation in (2, 3, 4)),
        (6, (HEIGHT, WIDTH), None),
        (6, (30, 30), (30, 30)),
    ],
)
def test_ambiguous_boxes_are_unchanged_and_noted(tmp_path, orientation, stored_size, size):
    image = oriented_image(tmp_path, orientation, stored_size)
    record, reasons, left_out = to_record(item(), image=image, size=size)
    height, width = image.height, image.width
    np.testing.assert_allclose(record.boxes_norm, [[5 / height, 4 / width, 15 / height, 12 / width]], rtol=1e-6)
    assert reasons == {RE_ENCODED: ["a.jpg"], UPRIGHT_BOXES + box_frame.ASSUMED: ["a.jpg"]} and left_out == 0
    assert to_record(image=image, size=size)[1] == {RE_ENCODED: ["a.jpg"]}  # not ambiguous without boxes


@pytest.mark.parametrize("orientation", range(2, 9))
def test_fractions_of_oriented_images(tmp_path, orientation):
    image, options = oriented_image(tmp_path, orientation), {"size": None, "normalized": True}
    box = (0.1, 0.25, 0.3, 0.75)  # BOX
    record, reasons, _ = to_record(item(box), image=image, **options)
    np.testing.assert_allclose(record.boxes_norm, [[0.25, 0.1, 0.75, 0.3]], rtol=1e-6)
    assert UPRIGHT_BOXES + box_frame.ASSUMED in reasons
    record, _, _ = to_record(item(box), image=image, exif_boxes="stored", **options)
    np.testing.assert_allclose(record.boxes_norm, [bright_box(record.encoded)], atol=1e-6)


def test_oriented_images_of_another_size_than_annotated_are_left_out(tmp_path):
    with pytest.raises(ImageError, match="20x40, but annotated as 21x40"):
        to_record(item(), image=oriented_image(tmp_path, 6), size=(40, 21))


@given(st.integers(1, 8), st.tuples(*[st.integers(0, 16).map(lambda v: v / 16)] * 4))
def test_inverse_orientation_restores_the_box(orientation, box):
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    assert box_frame.transpose_box_norm(box_frame.transpose_box_norm(box, orientation), inverse) == box


# Masks.

MASK = np.zeros([HEIGHT, WIDTH], np.uint8)
MASK[5:15, 4:12] = 1
RUNS = [4 * 20 + 5, *[10, 10] * 7, 10, 20 * 40 - 11 * 20 - 15]  # column by column, by hand


@pytest.mark.parametrize("is_crowd", [0, 1])
@pytest.mark.parametrize(
    "segmentation",
    [
        [[4, 5, 12, 5, 12, 15, 4, 15]],
        [[4, 5, 12, 5, 12, 10, 4, 10], [4, 9, 12, 9, 12, 15, 4, 15]],  # union
        {"size": [HEIGHT, WIDTH], "counts": RUNS},
        {"size": [HEIGHT, WIDTH], "counts": mask_lib.encode(np.asfortranarray(MASK))["counts"].decode()},
    ],
)
def test_all_kinds_of_masks(segmentation, is_crowd):
    record, _, left_out = to_record(item(segmentation=segmentation, is_crowd=is_crowd), include_masks=True)
    image = Image.open(io.BytesIO(record.masks[0]))
    assert (image.format, image.mode, left_out) == ("PNG", "L", 0)
    np.testing.assert_array_equal(np.asarray(image), MASK)
    assert to_record(item(segmentation=segmentation))[0].masks == []  # not requested


@given(st.lists(st.booleans(), min_size=12, max_size=600))
def test_compressed_masks_agree_with_pycocotools(bits):
    mask = np.repeat(np.array(bits[: len(bits) // 12 * 12], np.uint8).reshape(12, -1), 3, axis=0)
    rle = mask_lib.encode(np.asfortranarray(mask))
    png = annotation_lib.encode_mask({"size": rle["size"], "counts": rle["counts"].decode()}, mask.shape)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), mask)


@pytest.mark.parametrize(
    "segmentation",
    [
        "polygon",
        [4, 5, 12, 5, 12, 15],
        [[4, 5, 12, 15]],  # a box for pycocotools
        [[4, 5, 12, 5, 12, 15, 4]],
        [[4, 5, 12, 5, "12", 15], None],
        [[4, 5, 12, 5, NAN, 15]],
        [[4, 5, 1e9, 5, 12, 15]],  # would need gigabytes
        [{"size": [HEIGHT, WIDTH], "counts": RUNS}],
        {"size": [WIDTH, HEIGHT], "counts": RUNS},
        {"size": [HEIGHT, WIDTH], "counts": [*RUNS, 99]},
        {"size": [HEIGHT, WIDTH], "counts": RUNS[:-1]},
        {"size": [HEIGHT, WIDTH], "counts": [-5, *RUNS]},
        {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH * 10**12]},
        {"size": [HEIGHT, WIDTH], "counts": "möwe"},
        {"size": [HEIGHT, WIDTH], "counts": mask_lib.encode(np.asfortranarray(MASK))["counts"].decode()[:-1]},
        {"size": [HEIGHT, WIDTH]},
        {"counts": RUNS},
    ],
    ids=str,
)
def test_invalid_masks_are_left_out_and_named(segmentation):
    record, reasons, left_out = to_record(item(), item(segmentation=segmentation), include_masks=True)
    assert (len(record.masks), len(record.boxes_norm), left_out) == (0, 0, 2)
    assert reasons == {
        "masks missing: add 'segmentation', or convert without masks": ["annotation 5 of a.jpg"],
        "masks invalid: neither polygons nor run lengths of the image's size": ["annotation 5 of a.jpg"],
    }
