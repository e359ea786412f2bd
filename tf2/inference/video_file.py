# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes frames to a video file, as H.264 where OpenCV can, or shows them in a window."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

import numpy as np
from absl import logging

from dataset.files import atomic_path
from tf2.inference.capture import opencv

CODECS = {".mp4": ("avc1", "mp4v"), ".mov": ("avc1", "mp4v"), ".avi": ("MJPG",)}  # by suffix, the best one first
DESCRIPTIONS = {
    "avc1": "H.264 (avc1), which browsers play",
    "mp4v": "MPEG-4 part 2 (mp4v), which players but not browsers play: this OpenCV has no encoder for H.264",
    "MJPG": "motion JPEG, which players but not browsers play",
}
TITLE = "EfficientDet - q ends"
QUIT_KEYS = (ord("q"), 27)  # 27: Escape


class OutputEnd(Exception):
    """No more frames can be written; those up to now are complete. The message says why."""


def check_suffix(path: str) -> None:
    """Raises ValueError if OpenCV cannot write a video of this suffix."""
    if os.path.splitext(path)[1].lower() not in CODECS:
        raise ValueError(f"--output_video must end in {' or '.join(CODECS)}, got {path}")


@contextlib.contextmanager
def writer(path: str, rate: float) -> Iterator[Callable[[np.ndarray], bool]]:
    """Yields a function that adds a BGR frame to a video file, which is complete when the block succeeds.

    The function returns True, as that of `window` does. A frame of another size than the first one raises OutputEnd.
    Odd sizes are padded by repeating the last row or column: codecs that store colors at half resolution need even
    ones.

    Args:
        path: local or remote file with a suffix of CODECS.
        rate: frames per second.

    Raises:
        ValueError: if OpenCV cannot write it, or the written file cannot be read.
    """
    opened, size, count = None, None, 0

    def write(frame: np.ndarray) -> bool:
        nonlocal opened, size, count
        if opened is None:
            size = frame.shape[1::-1]
            opened = _open(path, temporary, rate, size)
            stack.callback(opened.release)
        if frame.shape[1::-1] != size:  # OpenCV would silently drop this frame
            sizes = " and ".join(f"{width}x{height}" for width, height in sorted({size, frame.shape[1::-1]}))
            raise OutputEnd(f"the video changes its size, {sizes}; convert it to one size first")
        opened.write(_padded(frame))
        count += 1
        return True

    with atomic_path(path) as temporary:
        with contextlib.ExitStack() as stack:
            yield write
        _verify(path, temporary, count)


def _open(path: str, temporary: str, rate: float, size: tuple[int, int]):
    """Returns OpenCV's writer for frames of a size (width, height), with the best codec that works, and logs it."""
    cv2 = opencv()
    even = tuple(length + length % 2 for length in size)
    for codec in CODECS[os.path.splitext(path)[1].lower()]:
        opened = cv2.VideoWriter(temporary, cv2.VideoWriter_fourcc(*codec), rate, even)
        if opened.isOpened():
            break
        opened.release()
    else:
        raise ValueError(f"OpenCV cannot write {path}; try another of {', '.join(CODECS)}")
    logging.info("writing %s as %s", path, DESCRIPTIONS[codec])
    if even != size:
        logging.warning("%s is padded from %dx%d to %dx%d pixels: codecs need even sizes", path, *size, *even)
    return opened


def _padded(frame: np.ndarray) -> np.ndarray:
    """Returns a frame with an even number of rows and columns."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge") if height % 2 or width % 2 else frame


def _verify(path: str, temporary: str, count: int) -> None:
    """Raises ValueError unless a file can be read back: OpenCV's writer does not report errors, as of a full disk."""
    cv2 = opencv()
    capture = cv2.VideoCapture(temporary)
    found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    if found < count:
        raise ValueError(f"{path} could not be written: {found} of {count} frames can be read back; is the disk full?")


@contextlib.contextmanager
def window() -> Iterator[Callable[[np.ndarray], bool]]:
    """Yields a function that shows a BGR frame in a window, and returns False if the user closed it."""
    cv2 = opencv()
    remedy = "give --output_video=FILE.mp4 to write the video"
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ValueError(f"there is no display for a window; {remedy}")
    try:
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL)
    except cv2.error as error:  # a build without windows
        raise ValueError(f"this OpenCV cannot open windows; {remedy}") from error

    def show(frame: np.ndarray) -> bool:
        cv2.imshow(TITLE, frame)
        is_quit = cv2.waitKey(1) & 0xFF in QUIT_KEYS
        return not is_quit and cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1

    try:
        yield show
    finally:
        cv2.destroyAllWindows()
