# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""An image file, of any kind that Pillow reads, as bytes that every TensorFlow decodes to the same upright RGB."""

import contextlib
import dataclasses
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from dataset.files import reason_of
from dataset.tfrecord import DataError, decode_image

MAX_IMAGE_PIXELS = 100_000_000
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")  # of image files, in lower case

# Pillow's name -> image/format, of what TensorFlow decodes from 2.15 on. MPO is a JPEG with more pictures behind it.
IMAGE_FORMATS = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "GIF": "gif", "BMP": "bmp"}
# All that is opened at all (as JPEG, MPO too): others start programs, such as Ghostscript, or hold no photographs.
READABLE_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000")

EXIF_ORIENTATION = 0x0112
TURNS = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # chunks of any length that no pixel depends on
PNG_ORIENTATIONS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # keywords of those that may turn the image


class _AnySize:
    """Lifts Pillow's bound of pixels, which is one for the whole process, as long as any thread is in a block of it."""

    def __init__(self):
        self._lock, self._num_inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._num_inside:
                self._bound, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._num_inside += 1

    def __exit__(self, *error) -> None:
        with self._lock:
            self._num_inside -= 1
            if not self._num_inside:
                Image.MAX_IMAGE_PIXELS = self._bound


_any_size = _AnySize()


class ImageError(DataError):
    """An image that is left out.

    Args:
        reason: what it is counted under, such as "file is missing".
        message: the sentence that names the file.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """An image to store; without `change` it is the file as it is."""

    encoded: bytes
    image_format: str  # of `encoded`: jpeg, png, gif or bmp
    height: int  # of `encoded`, pixels
    width: int
    orientation: int = 1  # EXIF orientation of the file, 1-8; `encoded` is upright
    change: str = ""  # why it was encoded anew, such as "CMYK"

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) of the file before it was turned upright."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def find(folder: Path, name: str) -> Path:
    """The path of a file that an annotation names, which has to be in the folder or below it.

    Raises:
        ImageError: if the name is absolute, leaves the folder by `../` or through a link, or there is no such file.
    """
    path = Path(folder, name)
    try:
        name.encode("utf-8")  # records hold names as UTF-8
        target = Path(os.path.realpath(path))
    except ValueError as error:  # half a surrogate pair or NUL in it
        raise ImageError("file name is no valid text", f"{name!r} cannot be the name of a file: {error}") from error
    is_inside = target.is_relative_to(os.path.realpath(folder))
    if os.path.isabs(name) or not is_inside:
        is_link = not os.path.isabs(name) and Path(os.path.normpath(name)).parts[0] != ".."
        way = f"is a link, or behind one, to {target}, outside of {folder}" if is_link else f"is not a name in {folder}"
        raise ImageError("file is outside of its folder", f"{name!r} {way}; copy the file itself there")
    if not os.path.isfile(path):
        raise ImageError("file is missing", f"there is no file {path}")
    return path


def read(path: Path, max_pixels: int = MAX_IMAGE_PIXELS) -> ImageFile:
    """Reads an image file, and encodes it anew where it is not upright 8-bit RGB to every TensorFlow.

    The file is stored as it is if it is a JPEG in grey or colour, or a PNG, GIF or BMP of 8 bits or less of which
    TensorFlow and Pillow decode the same pixels (of an animation, the first frame). All else becomes a PNG, or a JPEG
    of quality 95 where the file was lossy: CMYK, 16 bits (scaled to 8), what EXIF turns, WebP, TIFF and so on.

    Args:
        path: of the file.
        max_pixels: a header that promises more is refused before anything is decoded.

    Raises:
        ImageError: if the file is empty, no image, truncated or otherwise unreadable, or too large.
    """
    with _opened(path, max_pixels) as (image, encoded):
        return _to_image_file(image, encoded)


def read_pixels(path: Path) -> np.ndarray:
    """The pixels of an image file, upright, as [H, W, 3] uint8 RGB; of an animation the first frame.

    Args:
        path: of the file.

    Raises:
        ImageError: as of `read`; also of more than MAX_IMAGE_PIXELS.
    """
    with _opened(path, MAX_IMAGE_PIXELS) as (image, _):
        return np.asarray(_upright(image))


@contextlib.contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[tuple[Image.Image, bytes]]:
    """An image and its file; what fails while it is read is an ImageError that names the file."""
    try:
        encoded = path.read_bytes()
        if not encoded:
            raise ImageError("file is empty", f"the image {path} has 0 bytes")
        with open_image(encoded) as image:
            if image.width * image.height > max_pixels:
                size = f"{image.width}x{image.height}"
                raise ImageError(
                    "too many pixels", f"the image {path} is {size}, above the {max_pixels} pixels allowed"
                )
            yield image, encoded
    except ImageError:
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError("file is no image", f"{path} is no image of a known kind, or its header is broken") from error
    except Exception as error:  # on broken files the parsers of Pillow raise nearly anything
        raise ImageError("image is unreadable", f"cannot read the image {path}: {reason_of(error)}") from error


@contextlib.contextmanager
def open_image(encoded: bytes) -> Iterator[Image.Image]:
    """The image as Pillow reads it, whatever size its header promises; of a PNG without texts and colour profile."""
    with _any_size, Image.open(io.BytesIO(_without_texts(encoded)), formats=READABLE_FORMATS) as image:
        yield image


def _without_texts(encoded: bytes) -> bytes:
    """A PNG without its texts and colour profile, at which Pillow raises where they are long; others as they are."""
    if not encoded.startswith(PNG_SIGNATURE):
        return encoded
    kept, start = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while start < len(encoded):
        end = start + 12 + int.from_bytes(encoded[start : start + 4], "big")  # length, kind, content, checksum
        is_text = encoded[start + 4 : start + 8] in PNG_TEXTS
        if not is_text or encoded.startswith(PNG_ORIENTATIONS, start + 8):
            kept.append(encoded[start:end])
        start = end
    return b"".join(kept)


def _to_image_file(image: Image.Image, encoded: bytes) -> ImageFile:
    orientation = _read_orientation(image)
    change = _find_change(image, encoded, orientation)
    if not change:
        return ImageFile(encoded, IMAGE_FORMATS[image.format], image.height, image.width)
    upright = Image.fromarray(np.asarray(_upright(image)))  # without EXIF and other things that `save` would pass on
    is_lossy = image.format in ("JPEG", "MPO") or (image.format == "WEBP" and b"VP8L" not in encoded)
    file = io.BytesIO()
    if is_lossy:
        upright.save(file, "JPEG", quality=95, subsampling=0)
    else:
        upright.save(file, "PNG")
    decode_image(file.getvalue())  # PNG and JPEG have bounds of their own in TensorFlow
    return ImageFile(file.getvalue(), "jpeg" if is_lossy else "png", upright.height, upright.width, orientation, change)


def _upright(image: Image.Image) -> Image.Image:
    """RGB of 8 bits, turned as EXIF says."""
    orientation = _read_orientation(image)
    is_turned_already = image.format == "TIFF"  # by Pillow, as it loads the pixels
    upright = _to_rgb(image)
    return upright.transpose(TURNS[orientation]) if orientation > 1 and not is_turned_already else upright


def _read_orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        return int(orientation) if orientation in TURNS else 1
    except Exception:  # broken EXIF, of which there is much, turns nothing
        return 1


def _find_change(image: Image.Image, encoded: bytes, orientation: int) -> str:
    """Why a file cannot be stored as it is, or "". Pixels are decoded only if the header has nothing against it."""
    if orientation > 1:
        return "turned by EXIF"
    if image.format not in IMAGE_FORMATS:
        return image.format
    is_jpeg = IMAGE_FORMATS[image.format] == "jpeg"
    if is_jpeg and image.mode not in ("L", "RGB"):
        return image.mode
    if image.format == "PNG" and encoded[24] == 16:  # bit depth, in IHDR, which comes first
        return "16 bit"
    try:
        pixels = decode_image(encoded)
    except tf.errors.OpError:  # also if the file is truncated, where Pillow will raise too
        return f"{image.format} that TensorFlow does not decode"
    is_same = pixels.shape == (image.height, image.width, 3)
    if not is_jpeg:  # two decoders of JPEG round differently
        is_same = is_same and np.array_equal(pixels, image.convert("RGB"))
    return "" if is_same else f"{image.format} that TensorFlow decodes to other pixels"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        pixels = (np.asarray(image, np.uint32) + 128) // 257  # Pillow would clip at 255
        image = Image.fromarray(pixels.astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"expected 8 or 16 bits a channel, got pixels of mode {image.mode!r}, whose range is unknown")
    return image.convert("RGB")
