# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""container: audio and length in the headers of MP4, MOV, AVI, Matroska and others."""

import struct

import pytest
import videos

from tf2.inference import container
from tf2.inference.container import Container


def box(kind, *payload):
    payload = b"".join(payload)
    return struct.pack(">I", len(payload) + 8) + kind + payload


def track(handler, ticks, version=0):
    times = bytes(16 if version else 8)
    header = bytes([version, 0, 0, 0]) + times + bytes(8) + struct.pack(">Q" if version else ">I", ticks)
    return box(b"trak", box(b"tkhd", header), box(b"mdia", box(b"hdlr", bytes(8), handler, bytes(12))))


def movie(*tracks, scale=1000, version=0):
    header = bytes([version, 0, 0, 0]) + bytes(16 if version else 8) + struct.pack(">I", scale)
    return box(b"moov", box(b"mvhd", header, bytes(80)), *tracks)


FTYP = box(b"ftyp", b"isom", bytes(4))
VIDEO, AUDIO = track(b"vide", 2500), track(b"soun", 2600)
LONG_VIDEO = track(b"vide", 1 << 33, version=1)
LARGE_MDAT = struct.pack(">I", 1) + b"mdat" + struct.pack(">Q", 16 + 40) + b"moov" * 10  # 64-bit size
CASES = {
    "silent.mp4": (FTYP + movie(VIDEO), Container(False, True, 2.5)),
    "sound.mp4": (FTYP + movie(VIDEO, AUDIO), Container(True, True, 2.5)),
    "sound first.mov": (box(b"wide") + box(b"mdat", b"soun" * 5) + movie(AUDIO, VIDEO), Container(True, True, 2.5)),
    "large.mp4": (FTYP + LARGE_MDAT + movie(LONG_VIDEO, scale=1 << 20, version=1), Container(False, True, 8192.0)),
    "fragments.mp4": (FTYP + movie(track(b"vide", 0), AUDIO), Container(True, True, None)),
    "to the end.mp4": (FTYP + bytes(4) + movie(VIDEO)[4:], Container(False, True, 2.5)),
    "no moov.mp4": (FTYP + box(b"mdat", bytes(50)), Container()),
    "short moov.mp4": (FTYP + struct.pack(">I", 4) + movie(VIDEO)[4:], Container()),
    "truncated.mp4": ((FTYP + movie(VIDEO, AUDIO))[:60], Container()),
    "damaged.mp4": (FTYP + box(b"moov", box(b"mvhd", b"\1"), VIDEO), Container()),
    "sound.avi": (b"RIFF....AVI LIST....hdrlstrh8...vidsMJPGstrh8...auds", Container(True, True)),
    "silent.avi": (b"RIFF....AVI LIST....hdrlstrh8...vidsMJPG", Container(False, True)),
    "sound.webm": (b"\x1a\x45\xdf\xa3...\x86\x85V_VP9\x86\x86A_OPUS", Container(True, False)),
    "silent.webm": (b"\x1a\x45\xdf\xa3...\x86\x85V_VP9", Container(False, False)),
    "unknown.ts": (b"G" * 188, Container()),
    "empty.mp4": (b"", Container()),
}


@pytest.mark.parametrize("name", CASES)
def test_facts(tmp_path, name):
    content, expected = CASES[name]
    (tmp_path / name).write_bytes(content)
    assert container.read(str(tmp_path / name)) == expected


@pytest.mark.parametrize("suffix, seconds", [(".mp4", 0.5), (".mov", 0.5), (".avi", None), (".mkv", None)])
def test_videos_of_opencv_have_no_audio(tmp_path, suffix, seconds):
    facts = container.read(videos.write(tmp_path / f"in{suffix}", 5, rate=10))
    assert facts == Container(False, suffix != ".mkv", seconds)
