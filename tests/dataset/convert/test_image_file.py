# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/convert/image_file.py: stored bytes of all kinds of files, and rejected files."""

import io
import os
import struct
import warnings
import zlib
from concurrent import futures

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dataset.convert import image_file, truncated
from dataset.convert.image_file import ImageError

ORIENTATION = 0x0112
HEIGHT, WIDTH = 16, 24


def make_image(mode="RGB"):
    """Returns an image of four flat rectangles of different sizes, so that all orientations differ."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (200, 40, 40))
    image.paste((40, 200, 40), (8, 0, WIDTH, 8))
    image.paste((40, 40, 200), (0, 8, 8, HEIGHT))
    image.paste((250, 250, 250), (8, 8, WIDTH, HEIGHT))
    return image.convert(mode)


PIXELS = np.asarray(make_image()).astype(int)
GREY = np.asarray(make_image("L").convert("RGB")).astype(int)


def encode(image, image_format, **options):
    file = io.BytesIO()
    options = {"quality": 95, "subsampling": 0, **options} if image_format == "JPEG" else options
    image.save(file, image_format, **options)
    return file.getvalue()


def encode_with_exif(orientation, image_format="JPEG"):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encode(make_image(), image_format, exif=exif)


def sixteen_bit(mode="L"):
    """Returns a PNG of 16 bits per channel, written by hand because Pillow cannot write 16-bit RGB."""
    pixels = (np.asarray(make_image(mode)).astype(">u2") * 257).reshape(HEIGHT, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, {"L": 0, "RGB": 2}[mode], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(width, height):
    """Returns a small PNG whose header has another size."""
    png = encode(make_image(), "PNG")
    return png[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + png[24:29]) + png[33:]


def read(tmp_path, content, **options):
    path = tmp_path / "image.jpg"  # the suffix is ignored
    path.write_bytes(content)
    return image_file.read(path, **options)


def decode(encoded):
    return tf.io.decode_image(encoded, channels=3, expand_animations=False).numpy().astype(int)


UNCHANGED = {
    "jpeg": (encode(make_image(), "JPEG"), PIXELS),
    "progressive jpeg": (encode(make_image(), "JPEG", progressive=True), PIXELS),
    "jpeg of several images": (
        encode(make_image(), "MPO", save_all=True, append_images=[make_image()], quality=95, subsampling=0),
        PIXELS,
    ),
    "grey jpeg": (encode(make_image("L"), "JPEG"), GREY),
    "upright by exif": (encode_with_exif(1), PIXELS),
    "impossible exif": (encode_with_exif(9), PIXELS),
    "broken exif": (encode(make_image(), "JPEG", exif=b"Exif\0\0MM nonsense"), PIXELS),
    "png": (encode(make_image(), "PNG"), PIXELS),
    "grey png": (encode(make_image("L"), "PNG"), GREY),
    "bits of png": (encode(make_image("L").point(lambda v: 255 * (v > 100), "1"), "PNG"), 255 * (GREY > 100)),
    "palette png": (encode(make_image("P"), "PNG"), np.asarray(make_image("P").convert("RGB"))),
    "alpha png": (encode(make_image("RGBA"), "PNG"), PIXELS),
    "grey alpha png": (encode(make_image("LA"), "PNG"), GREY),
    "gif": (encode(make_image().quantize(8), "GIF"), PIXELS),
    "animated gif": (encode(make_image().quantize(8), "GIF", save_all=True, append_images=[make_image("P")]), PIXELS),
    "bmp": (encode(make_image(), "BMP"), PIXELS),
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_files_stored_unchanged(tmp_path, name):
    content, expected = UNCHANGED[name]
    image = read(tmp_path, content)
    assert image.encoded == content and (image.change, image.orientation) == ("", 1)
    assert image.image_format == {"M": "bmp", "\x89": "png", "G": "gif", "\xff": "jpeg", "B": "bmp"}[chr(content[0])]
    assert (image.height, image.width) == image.stored_size == (HEIGHT, WIDTH)
    np.testing.assert_allclose(decode(content), expected, atol=6 if image.image_format == "jpeg" else 0)


RE_ENCODED = {
    "cmyk": (encode(make_image("CMYK"), "JPEG"), "jpeg", "CMYK", PIXELS),
    "16 bit grey": (sixteen_bit(), "png", "16 bit", GREY),
    "16 bit colour": (sixteen_bit("RGB"), "png", "16 bit", PIXELS),
    "webp": (encode(make_image("L"), "WEBP", quality=100), "jpeg", "WEBP", GREY),  # lossy WebP subsamples colours
    "lossless webp": (encode(make_image(), "WEBP", lossless=True), "png", "WEBP", PIXELS),
    "tiff": (encode(make_image(), "TIFF"), "png", "TIFF", PIXELS),
    "16 bit tiff": (encode(Image.open(io.BytesIO(sixteen_bit())), "TIFF"), "png", "TIFF", GREY),
    "ppm": (encode(make_image(), "PPM"), "png", "PPM", PIXELS),
    "palette bmp": (
        encode(make_image().quantize(8), "BMP"),
        "png",
        "BMP that TensorFlow decodes to different pixels",
        PIXELS,
    ),
    "bits of bmp": (
        encode(make_image("L").point(lambda v: 255 * (v > 100), "1"), "BMP"),
        "png",
        "BMP that TensorFlow does not decode",
        255 * (GREY > 100),
    ),
    "png without its end": (encode(make_image(), "PNG")[:-12], "png", image_file.TRUNCATED, PIXELS),
    "oriented png": (encode_with_exif(3, "PNG"), "png", "EXIF orientation", PIXELS[::-1, ::-1]),
    "oriented tiff": (encode_with_exif(6, "TIFF"), "png", "EXIF orientation", np.rot90(PIXELS, -1)),
}


@pytest.mark.parametrize("name", RE_ENCODED)
def test_re_encoded_files(tmp_path, name):
    content, image_format, change, expected = RE_ENCODED[name]
    image = read(tmp_path, content)
    assert (image.image_format, image.change) == (image_format, change)
    assert Image.open(io.BytesIO(image.encoded)).format.lower() == image_format
    assert (image.height, image.width) == expected.shape[:2] and image.stored_size == (HEIGHT, WIDTH)
    np.testing.assert_allclose(decode(image.encoded), expected, atol=6 if image_format == "jpeg" else 0)


@pytest.mark.parametrize(
    "orientation, upright",  # from Exif 2.32, tag 274
    [
        (2, PIXELS[:, ::-1]),
        (3, PIXELS[::-1, ::-1]),
        (4, PIXELS[::-1]),
        (5, PIXELS.transpose(1, 0, 2)),
        (6, PIXELS[::-1].transpose(1, 0, 2)),
        (7, PIXELS[::-1, ::-1].transpose(1, 0, 2)),
        (8, PIXELS[:, ::-1].transpose(1, 0, 2)),
    ],
)
def test_exif_orientation_is_applied_once(tmp_path, orientation, upright):
    image = read(tmp_path, encode_with_exif(orientation))
    assert (image.orientation, image.change, image.image_format) == (orientation, "EXIF orientation", "jpeg")
    assert (image.height, image.width) == upright.shape[:2] and image.stored_size == (HEIGHT, WIDTH)
    np.testing.assert_allclose(decode(image.encoded), upright, atol=8)
    again = read(tmp_path, image.encoded)
    assert (again.encoded, again.orientation) == (image.encoded, 1)  # without EXIF


def test_16_bits_are_scaled(tmp_path):
    levels = np.array([[0, 128, 129, 256, 257, 32767, 32768, 65407, 65535]], np.uint16)
    image = read(tmp_path, encode(Image.fromarray(levels), "PNG"))
    # By hand, 65535 / 255 = 257: halves of 257 round up.
    assert decode(image.encoded)[0, :, 0].tolist() == [0, 0, 1, 1, 1, 127, 128, 255, 255]


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "file is empty"),
        (b"<html>404 not found</html>", "file is not an image"),
        (encode(make_image(), "JPEG")[:4], "file is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "file is not an image"),  # would start Ghostscript
        (encode(make_image("L").convert("F"), "TIFF"), "image is unreadable"),  # white may be 1 or 255
        (bomb(60_000, 60_000), "too many pixels"),
        (bomb(2**31 - 1, 2**31 - 1), "too many pixels"),
        (bomb(0, 5), "file is not an image"),
        (bomb(100, 100), "image is unreadable"),  # rows are missing
    ],
)
def test_rejected_files(tmp_path, content, reason):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=r"image\.jpg") as error:
            read(tmp_path, content)
    assert error.value.reason == reason and " at 0x" not in str(error.value)  # no memory addresses


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_truncated_files_are_rejected_or_complete(tmp_path, image_format):
    """A file truncated anywhere is rejected, unless nearly all pixels are before the cut."""
    noise = np.random.RandomState(0).randint(0, 256, (8, 10, 3)).astype(np.uint8)
    image = Image.fromarray(noise).resize((40, 32), Image.Resampling.NEAREST)
    content = encode(image, image_format, **({"lossless": True} if image_format == "WEBP" else {}))
    complete, num_rejected = decode(read(tmp_path, content).encoded), 0
    for length in [*range(1, len(content), max(1, len(content) // 60)), *range(len(content) - 20, len(content))]:
        try:
            stored = read(tmp_path, content[:length])
        except ImageError:
            num_rejected += 1
            continue
        differs = np.any(np.abs(decode(stored.encoded) - complete) > 8 * (image_format == "JPEG"), axis=2)
        lost = truncated.MAX_LOST if stored.change == image_file.TRUNCATED else 0
        assert np.mean(differs) <= lost and not np.any(differs[: int(32 * (1 - lost)) // 8 * 8])
    assert num_rejected >= 50


def test_max_pixels(tmp_path):
    content = encode(make_image(), "PNG")
    assert read(tmp_path, content, max_pixels=HEIGHT * WIDTH).encoded == content
    with pytest.raises(ImageError, match=r"24x16, above the limit of 383 pixels"):
        read(tmp_path, content, max_pixels=HEIGHT * WIDTH - 1)


def with_texts(keyword=b"Comment", after_pixels=False):
    """Returns a PNG with 2 MB each of text, compressed text and colour profile."""
    png, packed = encode(make_image(), "PNG"), zlib.compress(bytes(2_000_000))
    texts = chunk(b"zTXt", keyword + b"\0\0" + packed) + chunk(b"tEXt", keyword + b"\0" + b"a" * 2_000_000)
    texts += chunk(b"iTXt", keyword + b"\0\1\0\0\0" + packed)
    if after_pixels:
        return png[:-12] + texts + png[-12:]
    return png[:33] + chunk(b"iCCP", b"profile\0\0" + packed) + texts + png[33:]


@pytest.mark.parametrize("after_pixels", [False, True])
def test_png_with_long_texts(tmp_path, after_pixels):
    content = with_texts(after_pixels=after_pixels)
    image = read(tmp_path, content)
    assert image.encoded == content and image.change == ""
    np.testing.assert_array_equal(decode(image.encoded), PIXELS)


def test_orientation_in_png_texts_is_applied(tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="3"/></x:xmpmeta>'
    png = encode(make_image(), "PNG")
    content = png[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp) + png[33:]
    image = read(tmp_path, content)
    assert image.change == "EXIF orientation"
    np.testing.assert_array_equal(decode(image.encoded), PIXELS[::-1, ::-1])


@pytest.mark.parametrize("name", [*UNCHANGED, *RE_ENCODED])
def test_pillows_pixel_limit_is_ignored_and_restored(tmp_path, name, monkeypatch):
    content = {**UNCHANGED, **RE_ENCODED}[name][0]
    assert Image.MAX_IMAGE_PIXELS is not None  # protects other code in this process
    expected = read(tmp_path, content)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(tmp_path, content) == expected
        with futures.ThreadPoolExecutor(4) as pool:
            assert set(pool.map(lambda i: image_file.read(tmp_path / "image.jpg"), range(20))) == {expected}
    assert Image.MAX_IMAGE_PIXELS == 10
    with pytest.raises(ImageError):
        read(tmp_path, b"no image")
    assert Image.MAX_IMAGE_PIXELS == 10


def test_missing_files(tmp_path):
    with pytest.raises(ImageError, match=r"nothing\.jpg") as error:
        image_file.read(tmp_path / "nothing.jpg")
    assert error.value.reason == "image is unreadable"


@pytest.fixture
def folder(tmp_path):
    for name in ("images/sub", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("images/a.jpg", "images/sub/möwe 鳥.jpg", "images/..b.jpg", "elsewhere/secret.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "images/inner.jpg").symlink_to("sub/möwe 鳥.jpg")
    (tmp_path / "images/link.jpg").symlink_to("../elsewhere/secret.jpg")
    (tmp_path / "images/door").symlink_to("../elsewhere")
    (tmp_path / "images/loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "linked").symlink_to("images")  # the folder itself may be a link
    return tmp_path


@pytest.mark.parametrize("name", ["a.jpg", "sub/möwe 鳥.jpg", "sub/../a.jpg", "..b.jpg", "inner.jpg"])
@pytest.mark.parametrize("root", ["images", "linked"])
def test_find(folder, root, name):
    assert image_file.find(folder / root, name) == folder / root / name


@pytest.mark.parametrize(
    "name, reason",
    [
        ("../elsewhere/secret.jpg", "file is outside its folder"),
        ("sub/../../elsewhere/secret.jpg", "file is outside its folder"),
        ("../gone.jpg", "file is outside its folder"),  # existence of files elsewhere is not revealed
        ("link.jpg", "file is outside its folder"),
        ("door/secret.jpg", "file is outside its folder"),
        ("/etc/hostname", "file is outside its folder"),
        ("{folder}/images/a.jpg", "file is outside its folder"),  # absolute names depend on the machine
        ("gone.jpg", "file is missing"),
        ("", "file is missing"),
        ("sub", "file is missing"),
        ("loop.jpg", "file is missing"),
        ("a.jpg/b.jpg", "file is missing"),
        ("a" * 5000, "file is missing"),
        ("a\0.jpg", "invalid file name"),
        ("caf\udce9.jpg", "invalid file name"),
    ],
)
def test_find_rejects(folder, name, reason):
    name = name.replace("{folder}", str(folder))
    with pytest.raises(ImageError) as error:
        image_file.find(folder / "images", name)
    assert error.value.reason == reason
    assert (name or "images") in str(error.value) or repr(name) in str(error.value)
    str(error.value).encode("utf-8")


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "link.jpg",
            "'link.jpg' is linked to {folder}/elsewhere/secret.jpg, outside {folder}/images",
        ),
        ("door/secret.jpg", "'door/secret.jpg' is linked to {folder}/elsewhere/secret.jpg, outside"),
        (
            "../elsewhere/secret.jpg",
            "'../elsewhere/secret.jpg' is not a relative path inside {folder}/images; copy the file",
        ),
        (
            "{folder}/images/a.jpg",
            "'{folder}/images/a.jpg' is not a relative path inside {folder}/images; copy the file into that folder",
        ),
    ],
)
def test_messages_for_files_outside_the_folder(folder, name, message):
    with pytest.raises(ImageError) as error:
        image_file.find(folder / "images", name.replace("{folder}", str(folder)))
    assert message.replace("{folder}", str(folder)) in str(error.value)


def test_message_for_names_that_are_not_utf8(folder):
    name = os.fsdecode(b"caf\xe9.jpg")
    (folder / "images" / name).touch()
    with pytest.raises(ImageError, match=r"caf\\udce9"):
        image_file.find(folder / "images", name)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_header_has_the_stored_size_and_the_orientation(tmp_path, image_format, orientation):
    options = {"save_all": True, "append_images": [make_image()]} if image_format == "MPO" else {}
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    (tmp_path / "a").write_bytes(encode(make_image(), image_format, exif=exif, **options))
    assert image_file.read_header(tmp_path / "a") == ((HEIGHT, WIDTH), orientation)
    stored = image_file.read(tmp_path / "a")
    assert (stored.stored_size, stored.orientation) == ((HEIGHT, WIDTH), orientation)


def test_headers_of_other_files(tmp_path):
    contents = {"texts": with_texts(), "bmp": encode(make_image(), "BMP"), "16 bit": sixteen_bit()}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert image_file.read_header(tmp_path / name) == ((HEIGHT, WIDTH), 1)
    (tmp_path / "text").write_bytes(b"<html>")
    with pytest.raises(ImageError, match="cannot read image"):
        image_file.read_header(tmp_path / "text")


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_files_without_their_end_are_repaired_for_training_and_inference(tmp_path, caplog, image_format, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    pixels = np.random.RandomState(0).randint(0, 256, (12, 16, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    content = encode(Image.fromarray(pixels), image_format, exif=exif)
    upright = np.rot90(pixels, {1: 0, 6: -1}[orientation])
    image = read(tmp_path, content[:-20])
    assert (image.change, image.orientation) == (image_file.TRUNCATED, orientation)
    inference = image_file.read_pixels(tmp_path / "image.jpg")
    assert caplog.messages == [f"image {tmp_path}/image.jpg is truncated, at most 10% of the pixels lost"]
    for found in (decode(image.encoded), inference):
        assert found.shape == upright.shape
        assert np.mean(np.any(np.abs(found.astype(int) - upright) > 8, axis=2)) < 0.02
    (tmp_path / "image.jpg").write_bytes(content[: len(content) // 2])
    for read_file in (image_file.read, image_file.read_pixels):
        with pytest.raises(ImageError, match="cannot read image") as error:
            read_file(tmp_path / "image.jpg")
        assert error.value.reason == "image is unreadable"
