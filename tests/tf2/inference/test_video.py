# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""video: frames keep their number, rate, size and colors; problems are reported in one error message."""

import cv2
import numpy as np
import pytest

from efficientdet.postprocess import Detections
from tf2.inference import video

RED = (0, 0, 255)  # BGR, as in OpenCV


class OneBox:
    """A fake driver: one box in the middle; records the color of its images."""

    def __init__(self, stop_at=None):
        self.names = {1: "thing"}
        self.colors, self.stop_at = [], stop_at

    def detect(self, image):
        if len(self.colors) == self.stop_at:
            raise KeyboardInterrupt
        self.colors.append(image[:5, :5].mean((0, 1)))
        return Detections(np.array([[40.0, 60, 80, 120]]), np.array([0.9]), np.array([1]), 1)


def write(path, frames=7, rate=12.5, size=(160, 120)):
    """Writes a red video."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*video.CODECS[path.suffix]), rate, size)
    for _ in range(frames):
        writer.write(np.full((size[1], size[0], 3), RED, np.uint8))
    writer.release()
    return str(path)


def read(path):
    """Returns (BGR frames, frames per second)."""
    capture = cv2.VideoCapture(str(path))
    rate, frames = capture.get(cv2.CAP_PROP_FPS), []
    while (result := capture.read())[0]:
        frames.append(result[1])
    capture.release()
    return frames, rate


def run(source, target, driver=None):
    options = {"min_score_thresh": 0.4, "max_boxes_to_draw": 9, "line_thickness": 2}
    return video.run(driver or OneBox(), str(source), output_video=target and str(target), **options)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi"])
def test_frames_rate_size_and_colors_are_kept(tmp_path, suffix):
    driver, target = OneBox(), tmp_path / f"out{suffix}"
    assert run(write(tmp_path / f"in{suffix}"), target, driver) == 7
    frames, rate = read(target)
    assert len(frames) == 7 and rate == pytest.approx(12.5) and frames[0].shape == (120, 160, 3)
    np.testing.assert_allclose(driver.colors, [[255, 0, 0]] * 7, atol=12)  # the detector sees RGB
    for frame in frames:
        np.testing.assert_allclose(frame[100:, :30].mean((0, 1)), RED, atol=12)  # red stays red
        assert np.abs(frame[60, 58:63].astype(int) - RED).max() > 60  # the left edge of the box
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"in{suffix}", f"out{suffix}"]


def test_an_interrupted_video_is_complete_up_to_then(tmp_path):
    assert run(write(tmp_path / "in.mp4"), tmp_path / "out.mp4", OneBox(stop_at=3)) == 3
    assert len(read(tmp_path / "out.mp4")[0]) == 3


def test_an_interrupt_before_the_first_frame_propagates(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(write(tmp_path / "in.mp4"), tmp_path / "out.mp4", OneBox(stop_at=0))
    assert not (tmp_path / "out.mp4").exists()


def test_an_error_leaves_no_partial_video(tmp_path):
    class Broken(OneBox):
        def detect(self, image):
            if len(self.colors) == 2:
                raise RuntimeError("broken")
            return super().detect(image)

    with pytest.raises(RuntimeError, match="broken"):
        run(write(tmp_path / "in.mp4"), tmp_path / "out.mp4", Broken())
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_unreadable_videos_and_invalid_targets(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "there.mp4").write_bytes(b"kept")
    for source, message in (
        ("none.mp4", "there is no video"),
        ("text.mp4", "cannot read"),
        ("empty.mp4", "cannot read"),
    ):
        with pytest.raises(ValueError, match=message):
            run(tmp_path / source, tmp_path / "out.mp4")
    source = write(tmp_path / "in.mp4")
    for target, message in (
        ("there.mp4", "exists already"),
        ("there.mp4/out.mp4", "there.mp4 cannot be written to"),
        ("out.gif", r"must end in \.mp4 or \.mov or \.avi"),
    ):
        with pytest.raises(ValueError, match=message):
            run(source, tmp_path / target)
    assert (tmp_path / "there.mp4").read_bytes() == b"kept"


def test_a_window_needs_a_display(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(video.sys, "platform", "linux")
    with pytest.raises(ValueError, match="no display for a window; give --output_video="):
        run(write(tmp_path / "in.mp4"), None)


@pytest.mark.parametrize("keys, frames", [([-1, -1, ord("q")], 3), ([27], 1), ([-1] * 9, 7)])
def test_a_window_closes_at_a_key_and_at_the_end(tmp_path, monkeypatch, keys, frames):
    monkeypatch.setenv("DISPLAY", ":0")
    shown, closed, keys = [], [], iter(keys)
    monkeypatch.setattr(cv2, "namedWindow", lambda *args: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, frame: shown.append(frame))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: next(keys))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *args: 1.0)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: closed.append(True))
    assert run(write(tmp_path / "in.mp4"), None) == frames == len(shown)
    assert closed == [True]
    np.testing.assert_allclose(shown[0][100:, :30].mean((0, 1)), RED, atol=12)


def test_a_stream_that_changes_its_size_is_refused(tmp_path, monkeypatch):
    frames = iter([np.zeros((120, 160, 3), np.uint8)] * 3 + [np.zeros((60, 80, 3), np.uint8)])

    class Capture:
        def __init__(self, *_):
            self.isOpened, self.get, self.release = (lambda: True), (lambda _: 10.0), (lambda: None)

        def read(self):
            frame = next(frames, None)
            return frame is not None, frame

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    with pytest.raises(ValueError, match="the video changes its size, 80x60 and 160x120; convert it to one size first"):
        run("0", tmp_path / "out.mp4")
