# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Image files, read with Pillow and stored as bytes that every TensorFlow version decodes to the same upright RGB."""

import contextlib
import dataclasses
import functools
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image

from dataset.convert import truncated
from dataset.files import reason_of
from dataset.tfrecord import DataError, decode_image

MAX_IMAGE_PIXELS = 100_000_000
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")  # lower case

# Pillow format -> image/format, for the formats that TensorFlow decodes. An MPO file is a JPEG followed by more images.
IMAGE_FORMATS = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "GIF": "gif", "BMP": "bmp"}
# Pillow may try no others, as some start external programs, such as Ghostscript. "JPEG" includes MPO.
READABLE_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000")

EXIF_ORIENTATION, IMAGE_WIDTH, IMAGE_LENGTH = 0x0112, 0x0100, 0x0101  # tags
EXIF_TRANSPOSES = {  # EXIF orientation -> operation that makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

TRUNCATED = f"truncated, at most {truncated.MAX_LOST:.0%} of the pixels lost"
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # chunk types that do not affect the pixels
PNG_ORIENTATIONS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # keywords of texts that may hold orientation


class _NoPixelLimit:
    """Context manager that lifts Pillow's process-wide pixel limit while any thread is inside it."""

    def __init__(self):
        self._lock, self._num_inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._num_inside:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._num_inside += 1

    def __exit__(self, *error) -> None:
        with self._lock:
            self._num_inside -= 1
            if not self._num_inside:
                Image.MAX_IMAGE_PIXELS = self._limit


_no_pixel_limit = _NoPixelLimit()


class ImageError(DataError):
    """An image that cannot be used.

    Args:
        reason: category in the conversion report, such as "file is missing".
        message: error message, which names the file.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """An image to store: the unchanged file if `change` is empty, else a re-encoded one."""

    encoded: bytes
    image_format: str  # of `encoded`: jpeg, png, gif or bmp
    height: int  # of `encoded`, pixels
    width: int
    orientation: int = 1  # EXIF orientation of the file, 1-8; `encoded` is upright
    change: str = ""  # reason for re-encoding, such as "CMYK"

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) of the pixels in the file, before EXIF orientation is applied."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def find(folder: Path, name: str) -> Path:
    """Returns the path of a file that an annotation names; it must be inside the folder.

    Raises:
        ImageError: if the name is absolute, leaves the folder by `../` or through a link, or the file does not exist.
    """
    path = Path(folder, name)
    try:
        name.encode("utf-8")  # as records store it
        target = os.path.realpath(path)
    except ValueError as error:  # a lone surrogate, or NUL
        raise ImageError("invalid file name", f"{name!r} cannot be the name of a file: {error}") from error
    is_inside = os.path.join(target, "").startswith(os.path.join(_real_path(os.path.abspath(folder)), ""))
    if os.path.isabs(name) or not is_inside:
        is_linked = not os.path.isabs(name) and Path(os.path.normpath(name)).parts[0] != ".."
        problem = f"is linked to {target}, outside" if is_linked else "is not a relative path inside"
        raise ImageError("file is outside its folder", f"{name!r} {problem} {folder}; copy the file into that folder")
    if not os.path.isfile(path):
        raise ImageError("file is missing", f"file {path} does not exist")
    return path


# Of an absolute path. The same for all images of a dataset, and half of the time that `find` takes.
_real_path = functools.lru_cache(maxsize=16)(os.path.realpath)


def read(path: Path, max_pixels: int = MAX_IMAGE_PIXELS) -> ImageFile:
    """Reads an image file; re-encodes it unless every TensorFlow version decodes it to upright 8-bit RGB.

    Stored unchanged: grey and RGB JPEGs, and PNG, GIF and BMP files of at most 8 bits per channel that TensorFlow and
    Pillow decode to the same pixels (the first frame of an animation). All other files (CMYK, 16 bits, EXIF
    orientation, WebP, TIFF, ...) are re-encoded: as JPEG of quality 95 if the file is lossy, else as PNG. 16 bits are
    scaled to 8. So are JPEG and PNG files that lack only their end, see `truncated.complete`.

    Args:
        path: image file.
        max_pixels: limit of height * width, checked before decoding.

    Raises:
        ImageError: if the file is empty, not an image, truncated, unreadable or too large.
    """
    with _open(path, max_pixels) as (image, encoded, is_truncated):
        orientation = _read_orientation(image)
        change = TRUNCATED if is_truncated else _find_change(image, encoded, orientation)
        if not change:
            return ImageFile(encoded, IMAGE_FORMATS[image.format], image.height, image.width)
        upright = Image.fromarray(np.asarray(_to_upright_rgb(image)))  # a new image, as `save` would keep EXIF
        is_lossy = image.format in ("JPEG", "MPO") or (image.format == "WEBP" and b"VP8L" not in encoded)
        image_format, options = ("jpeg", {"quality": 95, "subsampling": 0}) if is_lossy else ("png", {})
        file = io.BytesIO()
        upright.save(file, image_format, **options)
        encoded = file.getvalue()
        decode_image(encoded)  # fails here, not in training, for sizes beyond TensorFlow's own limits
        return ImageFile(encoded, image_format, upright.height, upright.width, orientation, change)


def read_header(path: Path) -> tuple[tuple[int, int], int]:
    """Reads (height, width) of the stored pixels and the EXIF orientation, 1-8, without decoding the pixels.

    Raises:
        ImageError: if the file cannot be read.
    """
    try:
        with _no_pixel_limit, open(path, "rb") as file:
            is_png = file.read(len(truncated.PNG_SIGNATURE)) == truncated.PNG_SIGNATURE
            file.seek(0)
            if is_png:
                content = file.read()
                file = io.BytesIO(_strip_png_texts(content))
                is_upright = not any(kind in content for kind in (b"eXIf", *PNG_ORIENTATIONS))
            with Image.open(file, formats=READABLE_FORMATS) as image:
                # Pillow looks for the orientation behind the pixels of a PNG, which it decodes for that.
                orientation = 1 if is_png and is_upright else _read_orientation(image)
                tags = getattr(image, "tag_v2", {})  # of a TIFF, whose `size` is the upright one in new versions
                return (tags.get(IMAGE_LENGTH, image.height), tags.get(IMAGE_WIDTH, image.width)), orientation
    except Exception as error:  # see `_open`
        raise ImageError("image is unreadable", f"cannot read image {path}: {reason_of(error)}") from error


def read_pixels(path: str | os.PathLike) -> np.ndarray:
    """Reads the upright pixels of an image file; warns of a truncated one, see `truncated.complete`.

    Returns:
        [H, W, 3] uint8, RGB; the first frame of an animation.

    Raises:
        ImageError: see `read`; also for more than MAX_IMAGE_PIXELS pixels.
    """
    with _open(Path(path), MAX_IMAGE_PIXELS) as (image, _, is_truncated):
        if is_truncated:
            logging.warning("image %s is %s", path, TRUNCATED)
        return np.asarray(_to_upright_rgb(image))


@contextlib.contextmanager
def _open(path: Path, max_pixels: int) -> Iterator[tuple[Image.Image, bytes, bool]]:
    """Yields (opened image, bytes of its file, True if they were completed); errors in the block become ImageErrors."""
    try:
        encoded = path.read_bytes()
        if not encoded:
            raise ImageError("file is empty", f"image {path} has 0 bytes")
        with contextlib.ExitStack() as stack:
            stack.enter_context(_no_pixel_limit)
            image = stack.enter_context(_open_bytes(encoded))
            if image.width * image.height > max_pixels:
                size = f"{image.width}x{image.height}"
                raise ImageError("too many pixels", f"image {path} is {size}, above the limit of {max_pixels} pixels")
            if completed := truncated.complete(encoded):
                image = stack.enter_context(_open_bytes(completed))
            yield image, completed or encoded, bool(completed)
    except ImageError:
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError(
            "file is not an image", f"{path} is not an image of a supported format, or its header is damaged"
        ) from error
    except Exception as error:  # Pillow's parsers raise almost any type for damaged files
        raise ImageError("image is unreadable", f"cannot read image {path}: {reason_of(error)}") from error


def _open_bytes(encoded: bytes) -> Image.Image:
    return Image.open(io.BytesIO(_strip_png_texts(encoded)), formats=READABLE_FORMATS)


def _strip_png_texts(encoded: bytes) -> bytes:
    """Removes texts and the colour profile from a PNG, because Pillow refuses long ones; returns others unchanged."""
    if not encoded.startswith(truncated.PNG_SIGNATURE):
        return encoded
    kept = [truncated.PNG_SIGNATURE]
    for kind, start, end in truncated.png_chunks(encoded):
        if kind not in PNG_TEXTS or encoded.startswith(PNG_ORIENTATIONS, start + 8):
            kept.append(encoded[start:end])
    return b"".join(kept)


def _read_orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        return int(orientation) if orientation in EXIF_TRANSPOSES else 1
    except Exception:  # damaged EXIF is common, and is ignored
        return 1


def _find_change(image: Image.Image, encoded: bytes, orientation: int) -> str:
    """Returns the reason why a file cannot be stored unchanged, or "". Decodes pixels only if the header allows it."""
    if orientation > 1:
        return "EXIF orientation"
    if image.format not in IMAGE_FORMATS:
        return image.format
    is_jpeg = IMAGE_FORMATS[image.format] == "jpeg"
    if is_jpeg and image.mode not in ("L", "RGB"):
        return image.mode
    if image.format == "PNG" and encoded[24] == 16:  # bit depth in IHDR, the first chunk
        return "16 bit"
    try:
        pixels = decode_image(encoded)
    except tf.errors.OpError:  # includes truncated files, for which Pillow raises later
        return f"{image.format} that TensorFlow does not decode"
    is_same = pixels.shape == (image.height, image.width, 3)
    if not is_jpeg:  # JPEG decoders round differently
        is_same = is_same and np.array_equal(pixels, image.convert("RGB"))
    return "" if is_same else f"{image.format} that TensorFlow decodes to different pixels"


def _to_upright_rgb(image: Image.Image) -> Image.Image:
    """Converts an image to 8-bit RGB and applies its EXIF orientation."""
    orientation = 1 if image.format == "TIFF" else _read_orientation(image)  # Pillow applies that of TIFF files
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        pixels = (np.asarray(image, np.uint32) + 128) // 257  # Pillow would clip at 255
        image = Image.fromarray(pixels.astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"expected 8 or 16 bits per channel, got mode {image.mode!r}, whose value range is unknown")
    rgb = image.convert("RGB")
    return rgb if orientation == 1 else rgb.transpose(EXIF_TRANSPOSES[orientation])
