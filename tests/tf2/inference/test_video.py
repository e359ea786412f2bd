# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""video: frames keep their number, rate, size and colors; what was written is complete however the video ends."""

import csv
import json
import logging
import os
import signal
import types

import cv2
import numpy as np
import pytest
import videos
from videos import RED, read, write

from efficientdet.postprocess import Detections
from tf2.inference import images, video, video_file


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


def run(source, target=None, driver=None, **lists):
    options = {"min_score_thresh": 0.4, "max_boxes_to_draw": 9, "line_thickness": 2}
    outputs = video.OutputPaths(*(path and str(path) for path in (target, lists.get("json"), lists.get("csv"))))
    return video.run(driver or OneBox(), str(source), outputs, **options)


def load(path):
    """Returns the frames of a JSON file."""
    return json.loads(path.read_text())["frames"]


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


@pytest.fixture
def ctrl_c():
    """SIGINT raises KeyboardInterrupt; background jobs of a shell ignore it."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ["detect", "write"])
def test_an_interrupted_video_is_complete_up_to_then(tmp_path, monkeypatch, number, place):
    class Killed(OneBox):
        def detect(self, image):
            if place == "detect" and len(self.colors) == 3:
                os.kill(os.getpid(), number)
            return super().detect(image)

    written = []

    def padded(frame):
        written.append(frame)
        if place == "write" and len(written) == 3:
            os.kill(os.getpid(), number)
        return frame

    monkeypatch.setattr(video_file, "_padded", padded)
    names = {suffix: tmp_path / f"out.{suffix}" for suffix in ("json", "csv")}
    handler = signal.getsignal(number)
    assert run(write(tmp_path / "in.mp4"), tmp_path / "out.mp4", Killed(), **names) == 3
    assert signal.getsignal(number) == handler
    assert len(read(tmp_path / "out.mp4")[0]) == len(load(names["json"])) == 3
    assert len(names["csv"].read_text().splitlines()) == 4
    assert len(list(tmp_path.iterdir())) == 4


def test_an_interrupt_before_the_first_frame_propagates(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(write(tmp_path / "in.mp4"), tmp_path / "out.mp4", OneBox(stop_at=0), json=tmp_path / "out.json")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_an_error_leaves_no_partial_video(tmp_path):
    class Broken(OneBox):
        def detect(self, image):
            if len(self.colors) == 2:
                raise RuntimeError("broken")
            return super().detect(image)

    with pytest.raises(RuntimeError, match="broken"):
        run(write(tmp_path / "in.mp4"), tmp_path / "out.mp4", Broken(), json=tmp_path / "out.json")
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
    monkeypatch.setattr(video_file.sys, "platform", "linux")
    with pytest.raises(ValueError, match="no display for a window; give --output_video="):
        run(write(tmp_path / "in.mp4"))


@pytest.mark.parametrize("keys, frames", [([-1, -1, ord("q")], 3), ([27], 1), ([-1] * 9, 7)])
def test_a_window_closes_at_a_key_and_at_the_end(tmp_path, monkeypatch, keys, frames):
    monkeypatch.setenv("DISPLAY", ":0")
    shown, closed, keys = [], [], iter(keys)
    monkeypatch.setattr(cv2, "namedWindow", lambda *args: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, frame: shown.append(frame))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: next(keys))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *args: 1.0)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: closed.append(True))
    assert run(write(tmp_path / "in.mp4")) == frames == len(shown)
    assert closed == [True]
    np.testing.assert_allclose(shown[0][100:, :30].mean((0, 1)), RED, atol=12)


def test_lists_hold_the_detections_of_images(tmp_path):
    source, lists = write(tmp_path / "in.mp4", 3, rate=10), {name: tmp_path / f"out.{name}" for name in ("json", "csv")}
    assert run(source, **lists) == 3  # no window
    content = json.loads(lists["json"].read_text())
    box = {"box": [40.0, 60.0, 80.0, 120.0], "score": 0.9, "class": 1, "name": "thing"}
    expected = {"frame": 2, "seconds": 0.2, "height": 120, "width": 160, "detections": [box]}
    assert content["frames"][2] == expected and len(content["frames"]) == 3
    assert content["box"] == json.loads(images._to_json([]))["box"] == "[ymin, xmin, ymax, xmax], pixels"
    assert content["file"] == source and content["frames_per_second"] == 10
    lines = list(csv.reader(lists["csv"].open()))
    assert lines[0] == ["frame", "seconds", *images._to_csv([]).strip().split(",")[1:]] and len(lines) == 4
    assert lines[3] == ["2", "0.2", "1", "thing", "0.9", "40.0", "60.0", "80.0", "120.0"]


class Scored(OneBox):
    """A fake driver with four boxes of falling score."""

    def detect(self, image):
        boxes = np.tile([[40.0, 60, 80, 120]], (4, 1)) + np.arange(4)[:, np.newaxis]
        return Detections(boxes, np.array([0.9, 0.8, 0.7, 0.3]), np.array([1, 2, 1, 1]), 4)


@pytest.mark.parametrize("threshold, maximum, scores", [(0.4, 9, [0.9, 0.8, 0.7]), (0.1, 2, [0.9, 0.8]), (0.9, 9, [])])
def test_lists_are_limited_like_those_of_images(tmp_path, threshold, maximum, scores):
    options = {"min_score_thresh": threshold, "max_boxes_to_draw": maximum, "line_thickness": None}
    outputs = video.OutputPaths(json=str(tmp_path / "out.json"))
    video.run(Scored(), write(tmp_path / "in.mp4", 1), outputs, **options)
    [frame] = load(tmp_path / "out.json")
    assert [row["score"] for row in frame["detections"]] == scores


def test_boxes_of_a_turned_video_are_upright(tmp_path):
    source = tmp_path / "in.mp4"
    write(source, 2)
    videos.rotate(source, 90)
    run(source, tmp_path / "out.mp4", json=tmp_path / "out.json")
    frames, _ = read(tmp_path / "out.mp4")
    assert [frame.shape for frame in frames] == [(160, 120, 3)] * 2
    assert np.abs(frames[0][60, 58:63].astype(int) - RED).max() > 60  # the left edge of the box
    assert (load(tmp_path / "out.json")[0]["height"], load(tmp_path / "out.json")[0]["width"]) == (160, 120)


def test_a_damaged_video_is_done_to_its_end_and_is_an_error(tmp_path):
    source = tmp_path / "in.avi"
    write(source, 10)
    videos.damage(source, [3, 4])
    with pytest.raises(ValueError, match=r"2 of 10 frames missing or undecodable in .*, the others are done"):
        run(source, tmp_path / "out.mp4", json=tmp_path / "out.json")
    assert len(read(tmp_path / "out.mp4")[0]) == 8
    assert [frame["frame"] for frame in load(tmp_path / "out.json")] == [0, 1, 2, 5, 6, 7, 8, 9]


def test_a_lost_stream_leaves_complete_files(tmp_path, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    message = "cam ended or was lost after 5 frames; the results up to then are kept"
    with (
        videos.server(frames=5) as address,
        pytest.raises(ValueError, match=f"{address}/{message}") as error,
    ):
        run(f"http://user:secret@{address}/cam?token=secret", tmp_path / "out.mp4", json=tmp_path / "out.json")
    assert len(read(tmp_path / "out.mp4")[0]) == len(load(tmp_path / "out.json")) == 5
    printed = capsys.readouterr()
    assert f"writing file to {tmp_path / 'out.mp4'}: 5 frames\n" in printed.out
    texts = (caplog.text, printed.out, printed.err, str(error.value), (tmp_path / "out.json").read_text())
    assert not [text for text in texts if "secret" in text]


def test_a_full_disk_ends_the_video(tmp_path, monkeypatch):
    free = iter([1 << 40] * 4)  # at the check, and for three frames
    monkeypatch.setattr(video.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=next(free, 1000)))
    with pytest.raises(ValueError, match=f"less than 16 MiB are free in {tmp_path}; the results up to then are kept"):
        run(write(tmp_path / "in.mp4"), tmp_path / "out.mp4", json=tmp_path / "out.json")
    assert len(read(tmp_path / "out.mp4")[0]) == len(load(tmp_path / "out.json")) == 3
    with pytest.raises(ValueError, match=f"less than 16 MiB are free in {tmp_path}; make room, or choose another fol"):
        video.check(str(tmp_path / "in.mp4"), video.OutputPaths(csv=str(tmp_path / "a.csv")))


@pytest.mark.parametrize(
    "outputs, message",
    [
        ({"video": "there.mp4"}, "there.mp4 exists already"),
        ({"video": "out.gif"}, r"must end in \.mp4 or \.mov or \.avi"),
        ({"json": "none/out.json"}, "expected a file in a folder that exists, got .*none/out.json"),
        ({"csv": "none/out.csv"}, "expected a file in a folder that exists, got .*none/out.csv"),
        ({"json": "in.mp4"}, "in.mp4 is the input and would be overwritten"),
        ({"json": "out.txt", "csv": "out.txt"}, "one file cannot take several kinds of results"),
        ({"json": "there.mp4/out.json"}, "expected a file in a folder that exists"),
    ],
)
def test_targets_are_checked_before_the_work(tmp_path, outputs, message):
    (tmp_path / "there.mp4").write_bytes(b"kept")
    source = write(tmp_path / "in.mp4", 1)
    with pytest.raises(ValueError, match=message):
        video.check(source, video.OutputPaths(**{name: str(tmp_path / path) for name, path in outputs.items()}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "there.mp4"]
    assert len(read(source)[0]) == 1


@pytest.mark.parametrize(
    "has_audio, message",
    [(True, "the audio of in.mp4 is not kept"), (None, "audio, if in.mp4 has any, is not kept"), (False, None)],
)
def test_the_loss_of_audio_is_reported(tmp_path, monkeypatch, caplog, has_audio, message):
    caplog.set_level(logging.INFO, "absl")
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.mp4", 1)
    monkeypatch.setattr(video.capture.container, "read", lambda _: video.capture.Container(has_audio))
    run("in.mp4", tmp_path / "out.mp4")
    assert sum("not kept" in record.getMessage() for record in caplog.records) == bool(message)
    assert (message or "") in caplog.text


def test_a_stream_that_changes_its_size_ends_there(tmp_path, monkeypatch):
    frames = iter([np.zeros((120, 160, 3), np.uint8)] * 3 + [np.zeros((60, 80, 3), np.uint8)])
    real = cv2.VideoCapture

    class Capture:
        def __init__(self, *_):
            self.isOpened, self.get, self.release = (lambda: True), (lambda _: 10.0), (lambda: None)
            self.set = lambda *_: True

        def read(self):
            frame = next(frames, None)
            return frame is not None, frame

    monkeypatch.setattr(cv2, "VideoCapture", lambda path: real(path) if path else Capture())
    message = "the video changes its size, 80x60 and 160x120; convert it to one size first; the results up to then are"
    with pytest.raises(ValueError, match=message):
        run("0", tmp_path / "out.mp4", json=tmp_path / "out.json")
    monkeypatch.undo()
    assert len(read(tmp_path / "out.mp4")[0]) == len(load(tmp_path / "out.json")) == 3
