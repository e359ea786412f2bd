# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""capture: frames are upright and have times; damaged ones are passed over and counted; streams end with a message."""

import logging
import time

import cv2
import numpy as np
import pytest
import rtsp_server
import videos

from tf2.inference import capture

CORNERS = {0: (slice(0, 30), slice(0, 30)), 90: (slice(0, 30), slice(-30, None))}  # of a patch that is at the top left
CORNERS |= {180: (slice(-30, None), slice(-30, None)), 270: (slice(-30, None), slice(0, 30))}


@pytest.fixture
def logged(caplog):
    """Function that returns the logged warnings."""
    caplog.set_level(logging.INFO, "absl")
    return lambda: [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def play(source):
    """Returns (frames, error messages at the end, Source)."""
    with capture.opened(str(source)) as opened:
        frames = list(opened.frames())
        return frames, opened.problems(), opened


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_frame_is_turned_once_as_the_metadata_says(tmp_path, angle, suffix):
    image = np.full((120, 160, 3), 128, np.uint8)
    image[:40, :40] = videos.RED
    path = tmp_path / f"in{suffix}"
    videos.write(path, 2, image=image)
    videos.rotate(path, angle)
    for frame in play(path)[0]:
        assert frame.image.shape == ((160, 120, 3) if angle % 180 else (120, 160, 3))
        for corner, rows_columns in CORNERS.items():
            expected = (255, 0, 0) if corner == angle else (128, 128, 128)
            np.testing.assert_allclose(frame.image[rows_columns].mean((0, 1)), expected, atol=12)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_frames_have_index_and_seconds(tmp_path, suffix):
    frames, problems, source = play(videos.write(tmp_path / f"in{suffix}", 5, rate=10))
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4] and problems == []
    np.testing.assert_allclose([frame.seconds for frame in frames], [0, 0.1, 0.2, 0.3, 0.4], atol=0.002)
    assert source.rate == pytest.approx(10) and source.total == 5 and not source.is_live


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize("bad", [[3], [4, 5, 6], [2, 5], [9], [7, 8, 9]], ids=str)
def test_damaged_frames_are_passed_over_and_counted(tmp_path, suffix, bad):
    path = tmp_path / f"in{suffix}"
    videos.write(path, 10)
    videos.damage(path, bad)
    frames, problems, source = play(path)
    assert [frame.index for frame in frames] == [i for i in range(10) if i not in bad]
    assert source.lost == len(bad)
    [message] = problems
    assert message.startswith(f"{len(bad)} of 10 frames missing or undecodable in {path}, the others are done; copy ")


@pytest.mark.parametrize("frames, is_damaged", [(100, False), (99, True)])
def test_more_than_one_percent_is_an_error_and_less_is_logged(tmp_path, logged, frames, is_damaged):
    path = tmp_path / "in.avi"
    videos.write(path, frames, size=(32, 32))
    videos.damage(path, [50])
    _, problems, _ = play(path)
    assert len(problems) == is_damaged
    assert [f"1 of {frames} frames missing" in message for message in logged()] == [True] * (not is_damaged)


def test_a_truncated_video_is_damaged(tmp_path):
    path = tmp_path / "in.avi"
    videos.write(path, 20)
    videos.truncate(path, 8)
    frames, problems, _ = play(path)
    assert 8 <= len(frames) <= 9  # FFmpeg shows what there is of an image
    assert problems[0].startswith(f"{20 - len(frames)} of 20 frames missing")


def test_frames_behind_the_end_of_a_trimmed_video_are_not_missing(tmp_path):
    path = tmp_path / "in.mp4"
    videos.write(path, 30, rate=10)
    videos.trim(path, 0.5)
    frames, problems, source = play(path)
    assert len(frames) == 15 and source.total == 30 and problems == []


class Capture:
    """A fake of cv2.VideoCapture: reads a list of frames, None for a failure."""

    def __init__(self, frames, **properties):
        self.frames, self.properties = iter(frames), properties
        self.release = lambda: None
        self.isOpened = lambda: True
        self.set = lambda *_: True

    def get(self, key):
        return next((value for name, value in self.properties.items() if getattr(cv2, f"CAP_PROP_{name}") == key), 0.0)

    def read(self):
        frame = next(self.frames, None)
        return frame is not None, frame


IMAGE = np.zeros((4, 6, 3), np.uint8)


@pytest.mark.parametrize("count", [0.0, -9.2e18, float("nan")])
def test_a_camera_has_clock_times_and_ends_with_an_error(monkeypatch, count):
    frames = [None, IMAGE, None, IMAGE]
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Capture(frames, FRAME_COUNT=count, POS_MSEC=-4e20))
    clock = iter(np.arange(0.0, 1000, 0.25))
    monkeypatch.setattr(capture.time, "monotonic", lambda: next(clock))
    read, problems, source = play("0")
    assert source.total is None and source.is_live and source.rate == 25
    assert read[0].seconds == 0 and 0 < read[1].seconds < 3
    assert problems[0] == "1 of 3 frames missing or undecodable in camera 0, the others are done"
    assert problems[1] == "camera 0 ended or was lost after 2 frames; the results up to then are kept"


@pytest.mark.parametrize("total, lost", [(50, 0), (60, 0), (61, 11)])
def test_a_number_of_frames_that_opencv_estimates_is_off_by_up_to_a_second(tmp_path, monkeypatch, total, lost):
    (tmp_path / "in.webm").write_bytes(b"\x1a\x45\xdf\xa3")
    fake = Capture([IMAGE] * 50, FPS=10.0, FRAME_COUNT=float(total))
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: fake)
    assert play(tmp_path / "in.webm")[2].lost == lost


def test_a_file_without_times_uses_its_rate(tmp_path, monkeypatch):
    (tmp_path / "in.avi").write_bytes(b"")
    fake = Capture([IMAGE] * 3, FPS=4.0, FRAME_COUNT=3.0, POS_MSEC=float("nan"))
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: fake)
    frames, problems, _ = play(tmp_path / "in.avi")
    assert [frame.seconds for frame in frames] == [0, 0.25, 0.5] and problems == []


def test_a_stream_that_dies_ends_with_a_message(logged):
    with videos.server(frames=6, bad=[3]) as address:
        frames, problems, source = play(f"http://user:secret@{address}/cam?token=secret")
    assert [frame.index for frame in frames] == [0, 1, 2, 4, 5] and source.is_live
    assert f"http://{address}/cam ended or was lost after 5 frames; the results up to then are kept" in problems[1]
    assert problems[0] == f"1 of 6 frames missing or undecodable in http://{address}/cam, the others are done"


def test_a_stream_that_stalls_ends_after_the_time_out(monkeypatch):
    monkeypatch.setattr(capture, "TIMEOUT", 2)
    start = time.monotonic()
    with videos.server(frames=3, stall=60) as address:
        frames, problems, _ = play(f"http://{address}/cam")
        seconds = time.monotonic() - start
    assert len(frames) == 3 and "ended or was lost after 3 frames" in problems[0] and seconds < 40


def test_a_file_on_a_server_is_complete(tmp_path):
    path = tmp_path / "in.mp4"
    videos.write(path, 5, rate=10)
    with videos.server(path.read_bytes()) as address:
        frames, problems, source = play(f"http://{address}/video.mp4")
    assert len(frames) == source.total == 5 and problems == [] and not source.is_live
    assert frames[4].seconds == pytest.approx(0.4)


def test_an_rtsp_stream_with_a_password(tmp_path):
    path = tmp_path / "in.mp4"
    with rtsp_server.serve(videos.write(path, 6), "user:secret") as address:
        frames, problems, source = play(f"rtsp://user:secret@{address}/live")
        with pytest.raises(
            ValueError, match=rf"OpenCV cannot open rtsp://{address}/live within 15 s; check address, us"
        ):
            play(f"rtsp://user:wrong@{address}/live")
    assert len(frames) == 6 and frames[0].image.shape == (120, 160, 3) and source.is_live
    np.testing.assert_allclose(frames[5].image.mean((0, 1)), [255, 0, 0], atol=12)
    assert problems == [f"rtsp://{address}/live ended or was lost after 6 frames; the results up to then are kept"]


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_stream_that_is_not_there(scheme):
    with pytest.raises(ValueError, match=rf"OpenCV cannot open {scheme}://127.0.0.1:9/a within 15 s; check address"):
        play(f"{scheme}://user:secret@127.0.0.1:9/a?b=secret")


@pytest.mark.parametrize(
    "url, name",
    [
        ("0", "camera 0"),
        ("clips/a@b.mp4", "clips/a@b.mp4"),
        ("rtsp://10.0.0.7:554/live/1", "rtsp://10.0.0.7:554/live/1"),
        ("rtsp://admin:secret@cam/live", "rtsp://cam/live"),
        ("RTSP://admin:se@cret@cam/live", "RTSP://cam/live"),
        ("http://cam/video?user=admin&password=secret", "http://cam/video"),
        ("http://cam/video#secret", "http://cam/video"),
        ("rtsp://cam:554/user=admin&password=secret&channel=1.sdp", "rtsp://cam:554/***"),
        ("rtsp://admin:pa/secret@cam/live", "rtsp://***"),
        ("rtsp://admin:pa?secret@cam/live", "rtsp://***"),
    ],
)
def test_names_contain_no_credentials(url, name):
    assert capture.name_of(url) == name


@pytest.mark.parametrize(
    "url, name", [("gs://bucket/a.mp4", "gs://bucket/a.mp4"), ("ftp://user:secret@host/a.mp4", "ftp://host/a.mp4")]
)
def test_other_urls_are_not_read(url, name):
    with pytest.raises(ValueError, match=f"--input_video must be on this machine, got {name};"):
        capture.check(url)
