# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""video_file: codec, even sizes, complete files; windows."""

import logging

import cv2
import numpy as np
import pytest
import videos

from tf2.inference import video_file
from tf2.inference.video_file import OutputEnd

IMAGE = np.full((48, 64, 3), videos.RED, np.uint8)


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.INFO, "absl")
    return lambda: [record.getMessage() for record in caplog.records]


class H264:
    """A fake of cv2.VideoWriter that has codecs, and writes motion JPEG whichever of them is asked for."""

    real = cv2.VideoWriter

    def __init__(self, codecs):
        self.codecs, self.asked = codecs, []

    def __call__(self, path, fourcc, rate, size):
        codec = fourcc.to_bytes(4, "little").decode()
        self.asked.append(codec)
        if codec not in self.codecs:
            return self.real()
        return self.real(path, cv2.VideoWriter_fourcc(*("MJPG" if path.endswith("avi") else "mp4v")), rate, size)


@pytest.mark.parametrize(
    "suffix, codecs, asked, text",
    [
        (".mp4", ["avc1", "mp4v"], ["avc1"], "as H.264 (avc1), which browsers play"),
        (".mov", ["avc1", "mp4v"], ["avc1"], "as H.264 (avc1), which browsers play"),
        (".mp4", ["mp4v"], ["avc1", "mp4v"], "as MPEG-4 part 2 (mp4v), which players but not browsers play"),
        (".avi", ["MJPG"], ["MJPG"], "as motion JPEG, which players but not browsers play"),
    ],
)
def test_the_best_codec_is_taken_and_logged(tmp_path, monkeypatch, logged, suffix, codecs, asked, text):
    fake = H264(codecs)
    monkeypatch.setattr(cv2, "VideoWriter", fake)
    target = tmp_path / f"out{suffix}"
    with video_file.writer(str(target), 10) as write:
        assert write(IMAGE)
    assert fake.asked == asked and len(logged()) == 1 and f"writing {target} {text}" in logged()[0]
    assert len(videos.read(target)[0]) == 1


def test_an_opencv_without_codecs(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "VideoWriter", H264([]))
    message = r"OpenCV cannot write \S+out\.mp4; try another of \.mp4, "
    with pytest.raises(ValueError, match=message), video_file.writer(str(tmp_path / "out.mp4"), 10) as write:
        write(IMAGE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize("height, width", [(47, 64), (48, 63), (47, 63), (48, 64)])
def test_odd_sizes_are_padded_and_reported(tmp_path, logged, suffix, height, width):
    frame = np.zeros((height, width, 3), np.uint8)
    frame[-8:], frame[:, -8:] = videos.RED, videos.RED  # a codec stores colors at half resolution
    target = tmp_path / f"out{suffix}"
    with video_file.writer(str(target), 10) as write:
        write(frame)
    [read] = videos.read(target)[0]
    assert read.shape == (48, 64, 3)
    np.testing.assert_allclose(read[-2:].mean((0, 1)), videos.RED, atol=15)
    np.testing.assert_allclose(read[:, -2:].mean((0, 1)), videos.RED, atol=15)
    padding = f"{target} is padded from {width}x{height} to 64x48 pixels: codecs need even sizes"
    assert (padding in logged()) == ((height, width) != (48, 64))


def test_a_change_of_size_ends_the_video(tmp_path):
    target = tmp_path / "out.mp4"
    with video_file.writer(str(target), 10) as write:
        write(IMAGE)
        with pytest.raises(OutputEnd, match="the video changes its size, 32x24 and 64x48; convert it to one size"):
            write(IMAGE[::2, ::2])
    assert len(videos.read(target)[0]) == 1


@pytest.mark.parametrize("kept", [0, 1])
def test_a_video_that_cannot_be_read_back_is_not_kept(tmp_path, monkeypatch, kept):
    """OpenCV does not report that a disk is full."""
    target = tmp_path / "out.avi"

    def forgetful(*args):
        real, left = H264.real(*args), iter(range(kept))

        class Writer:
            isOpened, release = real.isOpened, real.release

            def write(self, frame):
                if next(left, None) is not None:
                    real.write(frame)

        return Writer()

    monkeypatch.setattr(cv2, "VideoWriter", forgetful)
    with (
        pytest.raises(ValueError, match=rf"out\.avi could not be written: {kept} of 3 frames can be read back; is the"),
        video_file.writer(str(target), 10) as write,
    ):
        for _ in range(3):
            write(IMAGE)
    assert not list(tmp_path.iterdir())
