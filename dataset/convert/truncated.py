# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Image files that end too early, as after an interrupted download: completed if nearly all pixels are there."""

import io
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

# A grey bar of a tenth of the image hides little; augmentation cuts out more. Larger parts would hide objects.
MAX_LOST = 0.1

JPEG_SIGNATURE, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
# No markers, which begin with 255, and unlike the zeros that decoders insert.
JPEG_FILLER = bytes((171 + 97 * i) % 251 for i in range(256))
JPEG_FRAMES, JPEG_SCAN = {0xC0, 0xC1, 0xC2}, 0xDA  # markers: SOF0 to SOF2, SOS
JPEG_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # ends the data of a scan
JPEG_BLOCK = 8  # pixels; a row of blocks has a multiple of it, by the sampling of the colours

PNG_SIGNATURE, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type


def complete(encoded: bytes) -> bytes | None:
    """Completes a truncated JPEG or PNG file; the lost pixels have one colour.

    Args:
        encoded: content of a file whose header can be read, of a size that may be decoded.

    Returns:
        A file that can be decoded; None if the file is not truncated, lacks more than MAX_LOST of its pixels, or has
        another format.
    """
    if encoded.startswith(JPEG_SIGNATURE):
        return _complete_jpeg(encoded)
    return _complete_png(encoded) if encoded.startswith(PNG_SIGNATURE) else None


def _complete_jpeg(encoded: bytes) -> bytes | None:
    if encoded.rstrip(b"\0\r\n").endswith(JPEG_END) or _decode(encoded) is not None:
        return None
    encoded = encoded.rstrip(b"\0\xff")  # zeros of a file that was allocated before its download, half of a marker
    scan = _find_last_scan(encoded)
    if scan is None:
        return None
    # What is decoded behind the end of the data depends on the bytes that follow; what is before it does not.
    restart = bytes([0xFF, 0xD0 + scan.num_restarts % 8])  # a decoder that waits for this marker ignores other bytes
    pixels, *others = (_decode(encoded + more + JPEG_END) for more in (b"", JPEG_FILLER, restart + JPEG_FILLER))
    if pixels is None or any(other is None for other in others):
        return None
    differs = np.any([np.any(pixels != other, axis=2) for other in others], axis=0)
    if np.any(differs):
        height, width = differs.shape
        row = int(np.argmax(np.any(differs, axis=1)))
        column = int(np.argmax(np.any(differs[row : row + scan.row_height], axis=0)))
        if (height - row) * width - scan.row_height * column > MAX_LOST * height * width:
            return None
    return encoded + JPEG_END


class _Scan(NamedTuple):
    row_height: int  # of a row of blocks, pixels
    num_restarts: int  # markers in it


def _find_last_scan(encoded: bytes) -> _Scan | None:
    """Returns the last scan of a JPEG; None if more would follow.

    A scan contains some of the 64 frequencies of some of the components; in a progressive file, which has about ten of
    them, not all of their bits: `approximation` bits are left to later scans.
    """
    start, missing, height = 2, None, JPEG_BLOCK  # missing: (component, frequency) without their last bit
    while start + 4 <= len(encoded):
        kind, content = encoded[start + 1], start + 4
        start += 2 + int.from_bytes(encoded[start + 2 : start + 4], "big")
        if kind in JPEG_FRAMES:
            components = encoded[content + 6 : start : 3]
            missing = {(component, k) for component in components for k in range(64)}
            height = JPEG_BLOCK * max((factors % 16 for factors in encoded[content + 7 : start : 3]), default=1)
        elif kind == JPEG_SCAN and missing is not None and start <= len(encoded):
            components, (first, last, approximation) = encoded[content + 1 : start - 3 : 2], encoded[start - 3 : start]
            if approximation % 16 == 0:
                missing -= {(component, k) for component in components for k in range(first, last + 1)}
            marker = JPEG_MARKER.search(encoded, start)
            if marker is None:
                row_height = height if len(components) > 1 else JPEG_BLOCK
                return None if missing else _Scan(row_height, len(JPEG_RESTART.findall(encoded, start)))
            start = marker.start()
    return None


def _decode(encoded: bytes) -> np.ndarray | None:
    """Returns the pixels of a JPEG, [H, W, 3] uint8, or None if it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(encoded), formats=["JPEG"]) as image:
            return np.asarray(image.convert("RGB"))
    except Exception:  # the caller's decoder reports the reason
        return None


def _complete_png(encoded: bytes) -> bytes | None:
    kept, packed = [], []
    for kind, start, end in png_chunks(encoded):
        if kind == PNG_END and end <= len(encoded):
            return None
        if kind == b"IDAT":
            packed.append(encoded[start + 8 : end - 4])
        elif not packed and end <= len(encoded):
            kept.append(encoded[start:end])
    if not packed or not kept or encoded[28]:  # the last: interlaced, the rows are not in order
        return None
    width, height = (int.from_bytes(encoded[i : i + 4], "big") for i in (16, 20))
    row_bytes = 1 + (width * PNG_CHANNELS.get(encoded[25], 4) * encoded[24] + 7) // 8  # 1: filter of the row
    try:
        rows = zlib.decompressobj().decompress(b"".join(packed), height * row_bytes)
    except zlib.error:
        return None
    if len(rows) < (1 - MAX_LOST) * height * row_bytes:
        return None
    pixels = zlib.compress(rows.ljust(height * row_bytes, b"\0"))
    chunks = [_chunk(b"IDAT", pixels), _chunk(PNG_END, b"")]
    return b"".join([PNG_SIGNATURE, *kept, *chunks])


def png_chunks(encoded: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields (kind, start, end) of the chunks of a PNG file; the last one of a truncated file ends beyond it."""
    start = len(PNG_SIGNATURE)
    while start < len(encoded):
        end = start + 12 + int.from_bytes(encoded[start : start + 4], "big")  # length, kind, content, checksum
        yield encoded[start + 4 : start + 8], start, end
        start = end


def _chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
