# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""encoded_image: the graph decodes files to the pixels that inference reads, upright as EXIF says."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dataset.convert import image_file
from tf2.inference import encoded_image

PIXELS = np.arange(24 * 40 * 3).reshape(24, 40, 3).astype(np.uint8)  # no symmetry


@pytest.fixture(scope="module")
def decode():
    """`encoded_image.decode` in a graph, as in a signature."""
    return tf.function(encoded_image.decode, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def tiff(*entries, order="<", header=None, start=8):
    """EXIF data: a directory of entries (tag, type, count, four bytes of the value)."""
    header = header or (b"II*\0" if order == "<" else b"MM\0*")
    content = header + struct.pack(f"{order}I", start) + bytes(start - 8) + struct.pack(f"{order}H", len(entries))
    return content + b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in entries) + bytes(4)


def short(value, order="<", tag=0x0112):
    return (tag, 3, 1, struct.pack(f"{order}HH", value, 0))


def long(value, order="<", tag=0x0112):
    return (tag, 4, 1, struct.pack(f"{order}I", value))


def encode(image_format="JPEG", exif=None, pixels=PIXELS, **options):
    file = io.BytesIO()
    options = options if exif is None else {**options, "exif": exif}
    Image.fromarray(pixels).save(file, image_format, **options)
    return file.getvalue()


def assert_as_inference(decode, encoded, path):
    """Asserts that the graph returns the pixels of inference; returns them."""
    path.write_bytes(encoded)
    expected = image_file.read_pixels(path)
    np.testing.assert_array_equal(decode(tf.constant(encoded)), expected)
    return expected


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(decode, tmp_path, orientation, image_format, order):
    other = short(7, order, tag=0x0100)
    exif = tiff(other, short(orientation, order), other, order=order, start=22)
    expected = assert_as_inference(decode, encode(image_format, b"Exif\0\0" + exif), tmp_path / "image")
    assert expected.shape == ((40, 24, 3) if orientation >= 5 else (24, 40, 3))
    is_turned = not np.array_equal(expected, assert_as_inference(decode, encode(image_format), tmp_path / "plain"))
    assert is_turned == (orientation > 1)


@pytest.mark.parametrize(
    "exif, orientation",
    [
        (tiff(short(6)), 6),
        (tiff(long(6)), 6),
        (tiff(long(6, ">"), order=">"), 6),
        (tiff(short(6), short(3)), 6),  # the first one
        (tiff(short(0)), 1),
        (tiff(short(9)), 1),
        (tiff(long(0x01000006)), 1),
        (tiff((0x0112, 2, 1, b"6\0\0\0")), 1),  # a text
        (tiff(short(7, tag=0x0100)), 1),
        (tiff(), 1),
        (tiff(short(6), header=b"IIII"), 1),
        (tiff(short(6))[:-4], 6),  # without the offset of the next directory
        (tiff(short(6))[:-6], 1),  # truncated in the entry
        (tiff(short(6), short(7, tag=0x0100))[:-9], 6),  # truncated behind it
        (tiff(short(6))[:8], 1),
        (tiff(short(6))[:5], 1),
        (b"", 1),
        (b"II*\0\xff\xff\xff\xff" + tiff(short(6)), 1),  # a directory behind the end
        (b"garbage, and no header", 1),
    ],
)
def test_contents_of_exif(decode, tmp_path, exif, orientation):
    assert encoded_image.orientation(tf.constant(list(exif), tf.uint8)) == orientation
    if exif:
        expected = assert_as_inference(decode, encode(exif=b"Exif\0\0" + exif), tmp_path / "image.jpg")
        assert expected.shape == ((40, 24, 3) if orientation >= 5 else (24, 40, 3))


def segment(marker, content):
    return b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(content)) + content


EXIF_SEGMENT = segment(0xE1, b"Exif\0\0" + tiff(short(6)))


@pytest.mark.parametrize(
    "inserted, is_turned",
    [
        (EXIF_SEGMENT, True),
        (segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0") + EXIF_SEGMENT, True),  # XMP first
        (segment(0xFE, b"Exif\0\0 in a comment") + segment(0xE2, bytes(60_000)) + EXIF_SEGMENT, True),
        (b"\xff\xff\xff" + EXIF_SEGMENT, True),  # fill bytes
        (segment(0xE2, EXIF_SEGMENT), False),  # a segment of another kind that contains one
        (segment(0xE1, b""), False),
    ],
)
def test_segments_of_jpeg(decode, tmp_path, inserted, is_turned):
    plain = encode()
    expected = assert_as_inference(decode, plain[:2] + inserted + plain[2:], tmp_path / "image.jpg")
    assert expected.shape == ((40, 24, 3) if is_turned else (24, 40, 3))


def test_a_png_may_have_exif_behind_its_pixels(decode, tmp_path):
    turned = encode("PNG", tiff(short(6)))
    start = turned.index(b"eXIf") - 4
    chunk = turned[start : start + 12 + len(tiff(short(6)))]
    moved = turned.replace(chunk, b"")
    moved = moved[:-12] + chunk + moved[-12:]  # before IEND
    assert assert_as_inference(decode, moved, tmp_path / "image.png").shape == (40, 24, 3)


@pytest.mark.parametrize("image_format, options", [("GIF", {}), ("BMP", {}), ("JPEG", {"progressive": True})])
@pytest.mark.parametrize("is_grey", [False, True])
def test_other_images(decode, tmp_path, image_format, options, is_grey):
    pixels = PIXELS[..., 0] if is_grey else PIXELS
    assert_as_inference(decode, encode(image_format, pixels=pixels, **options), tmp_path / "image")


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpegs_are_decoded_as_by_inference(decode, tmp_path, subsampling):
    pixels = np.random.RandomState(0).randint(0, 256, (61, 83, 3), np.uint8)
    assert_as_inference(decode, encode(pixels=pixels, subsampling=subsampling, quality=80), tmp_path / "image.jpg")


@pytest.fixture(scope="module")
def decode_batch():
    """A function that returns the heights of the images of a batch."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def function(image_files):
        return encoded_image.decode_batch(image_files, lambda image: tf.shape(image)[0], tf.TensorSpec([], tf.int32))

    return lambda files: function(tf.constant(files, tf.string)).numpy().tolist()


def test_batches(decode_batch):
    assert decode_batch([]) == []
    assert decode_batch([encode(), encode("PNG", tiff(short(6)))]) == [24, 40]


@pytest.mark.parametrize("damaged", [b"", b"text", b"\xff\xd8\xff", encode()[:300], encode("PNG")[:60]])
@pytest.mark.parametrize("index", [0, 2])
def test_an_undecodable_image_is_named_by_its_index(decode_batch, damaged, index):
    files = [encode()] * 3
    files[index] = damaged
    message = rf"\[cannot decode image\] \[{index}\] .* expected JPEG, PNG, BMP or GIF; its bytes:\] \[{len(damaged)}\]"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode_batch(files)
