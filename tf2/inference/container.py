# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Facts in the header of a video file that OpenCV does not report: audio, and the length after trimming."""

import re
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

HEAD_BYTES = 1 << 16  # contains the stream headers of AVI and Matroska
MAX_MOOV_BYTES = 1 << 26  # index of an MP4 file; about 16 bytes per frame
UNKNOWN_LENGTHS = (0, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)  # in a track header
_AVI_AUDIO = re.compile(rb"strh.{4}auds", re.DOTALL)
_MATROSKA_AUDIO = re.compile(rb"\x86[\x80-\xff]A_[A-Z]")  # element CodecID, its length, the start of its value


class Container(NamedTuple):
    """Facts about a video file; None: unknown."""

    has_audio: bool | None = None
    has_frame_count: bool | None = None  # of the video track; of other containers OpenCV estimates the number of frames
    seconds: float | None = None  # of the video track as it is played, that is, after trimming by an edit list


def read(path: str) -> Container:
    """Returns the facts of a local file: all for MP4 and MOV, no length for AVI, Matroska and WebM.

    Raises:
        OSError: if the file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return Container(_AVI_AUDIO.search(head) is not None, True)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return Container(_MATROSKA_AUDIO.search(head) is not None, False)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            try:
                return _read_iso(_moov(file))
            except struct.error:  # a damaged header; OpenCV decides if the file can be played
                pass
    return Container()


def _moov(file: BinaryIO) -> bytes:
    """Returns the payload of the top-level box `moov` of an ISO base media file; empty if there is none."""
    file.seek(0)
    while len(header := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", header)
        size = struct.unpack(">Q", file.read(8))[0] - 8 if size == 1 else size
        if kind == b"moov":
            return file.read(min(max(size - 8, 0), MAX_MOOV_BYTES) if size else MAX_MOOV_BYTES)
        if size < 8:  # to the end of the file, or damaged
            break
        file.seek(size - 8, 1)
    return b""


def _read_iso(moov: bytes) -> Container:
    """Reads the headers of movie and tracks, ISO/IEC 14496-12, sections 8.2.2, 8.3.2 and 8.4.3."""
    time_scale, handlers, seconds = 0, set(), None
    for kind, payload in _boxes(moov):
        if kind == b"mvhd":
            [time_scale] = struct.unpack_from(">I", payload, 20 if payload[:1] == b"\1" else 12)
        if kind == b"trak":
            parts = dict(_boxes(payload))
            handler = dict(_boxes(parts.get(b"mdia", b""))).get(b"hdlr", b"")[8:12]
            handlers.add(handler)
            if handler == b"vide" and b"tkhd" in parts:
                header = parts[b"tkhd"]
                is_long = header[:1] == b"\1"
                [ticks] = struct.unpack_from(">Q" if is_long else ">I", header, 28 if is_long else 20)
                seconds = ticks / time_scale if time_scale and ticks not in UNKNOWN_LENGTHS else None
    return Container(b"soun" in handlers, True, seconds) if handlers else Container()


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields kind and payload of the boxes of a payload, up to a damaged one."""
    position = 0
    while position + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, position)
        if size < 8:
            return
        yield kind, content[position + 8 : position + size]
        position += size
