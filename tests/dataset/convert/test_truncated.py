# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/convert/truncated.py: what is completed is what the bytes still contain."""

import io

import numpy as np
import pytest
from PIL import Image

from dataset.convert import truncated

NOISE = np.random.RandomState(0).randint(0, 256, (12, 16, 3)).astype(np.uint8)
SIZE = (160, 120)


def encode(image_format, mode="RGB", **options):
    image = Image.fromarray(NOISE).resize(SIZE, Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def decode(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(int)


FILES = {
    "jpeg": encode("JPEG"),
    "jpeg without subsampling": encode("JPEG", quality=95, subsampling=0),
    "grey jpeg": encode("JPEG", "L"),
    "cmyk jpeg": encode("JPEG", "CMYK"),
    "progressive jpeg": encode("JPEG", quality=90, progressive=True),
    "jpeg with restart markers": encode("JPEG", quality=90, restart_marker_rows=1),
    "png": encode("PNG"),
    "grey alpha png": encode("PNG", "LA"),
    "palette png": encode("PNG", "P"),
    "bits of png": encode("PNG", "1"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_are_completed_if_the_cut_loses_few_pixels(name):
    content, num_rejected = FILES[name], 0
    expected = decode(content)
    assert truncated.complete(content) is None
    cuts = sorted({1, 2, 3, 10, *range(20, len(content) - 1000, len(content) // 50)})
    for cut in cuts:
        completed = truncated.complete(content[:-cut])
        if completed is None:
            num_rejected += 1
            continue
        assert num_rejected == 0  # a bound, not a matter of chance
        differs = np.any(decode(completed) != expected, axis=2)
        assert np.mean(differs) <= truncated.MAX_LOST and not np.any(differs[: SIZE[1] // 2])
    assert len(cuts) - num_rejected >= 3 and num_rejected >= len(cuts) // 2


@pytest.mark.parametrize("name", FILES)
def test_only_the_last_bytes_are_missing(name):
    np.testing.assert_array_equal(decode(truncated.complete(FILES[name][:-2])), decode(FILES[name]))


@pytest.mark.parametrize("kept, is_completed", [(0.92, True), (0.88, False)])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_the_bound_is_a_tenth_of_the_pixels(image_format, kept, is_completed):
    """Blocks of noise are of about the same length, so that the part of the bytes is that of the pixels."""
    pixels = np.random.RandomState(1).randint(0, 256, (800, 160, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, image_format)
    content = file.getvalue()
    completed = truncated.complete(content[: round(kept * len(content))])
    assert (completed is not None) == is_completed
    if completed:
        lost = np.any(decode(completed) != decode(content), axis=2)
        assert 0.07 < np.mean(lost) < 0.09 and not np.any(lost[:704])


def test_scans_of_a_progressive_file_are_not_optional():
    """The bytes of the first scans decode to a whole image, which lacks its details."""
    content = FILES["progressive jpeg"]
    scans = [i for i in range(len(content) - 1) if content[i : i + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for start in scans[1:]:
        assert decode(content[:start] + b"\xff\xd9").shape == (120, 160, 3)
        assert truncated.complete(content[:start]) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xd8\xff",
        FILES["jpeg"][:100],
        FILES["png"][:20],
        FILES["png"][:60],
        FILES["jpeg"][:2000] + bytes(len(FILES["jpeg"]) - 2000),  # allocated, then written
        encode("BMP")[:-10],
        encode("GIF")[:-10],
        FILES["jpeg"] + b"\xff\xd9",
        FILES["jpeg"] + b"\0\0\r\n",
        FILES["jpeg"] + b"bytes behind the image",
        FILES["png"] + b"bytes behind the image",
    ],
)
def test_other_files_are_not_completed(content):
    assert truncated.complete(content) is None


def test_only_the_first_image_of_several_counts():
    image, file = Image.fromarray(NOISE), io.BytesIO()
    image.save(file, "MPO", save_all=True, append_images=[image])
    assert truncated.complete(file.getvalue()[:-20]) is None


def test_interlaced_png_is_not_completed():
    content = bytearray(FILES["png"][:-30])
    content[28] = 1
    assert truncated.complete(bytes(content)) is None
