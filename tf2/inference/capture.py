# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Frames of a video file, a camera or a network stream: upright, with their times; damaged ones are skipped."""

import contextlib
import math
import os
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from dataset.files import check_local, reason_of
from tf2.inference import container
from tf2.inference.container import Container

STREAMS = ("rtsp", "rtsps", "http", "https")  # schemes of network streams
DEFAULT_RATE = 25.0  # frames per second; for sources without a frame rate, such as cameras
MAX_RATE = 1000.0  # frames per second; higher values are clock ticks of some containers
TIMEOUT = 15.0  # seconds to wait for a connection, and for the next frame of a stream or camera
MAX_FAILURES = 1000  # consecutive frames without an image, after which a source of unknown length has ended
MAX_LOST = 0.01  # share of lost frames above which a video counts as damaged


class Frame(NamedTuple):
    """A frame of a video."""

    index: int  # in the source, from 0; frames that cannot be decoded count
    seconds: float  # since the first frame
    image: np.ndarray  # [H, W, 3] uint8, RGB, upright


class Source:
    """An opened video file, camera or network stream."""

    def __init__(self, capture: Any, name: str, facts: Container | None, *, is_camera: bool):
        """Reads the properties of OpenCV's capture.

        Args:
            capture: an opened cv2.VideoCapture.
            name: used in messages and results.
            facts: of a file; None for a camera or stream.
            is_camera: True for a camera.
        """
        import cv2

        self.name, self.is_camera, self.has_audio = name, is_camera, facts.has_audio if facts else None
        self.count = self.skipped = 0  # frames that were read, and damaged frames before the last of them
        self.is_at_end = False
        self._capture = capture
        self.rate, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if not 0 < self.rate <= MAX_RATE:  # also True for NaN
            logging.info("%s has no frame rate; using %g frames per second", name, DEFAULT_RATE)
            self.rate = DEFAULT_RATE
        self.total = int(frames) if 0 < frames < math.inf and not is_camera else None  # None: unknown
        self.is_live = is_camera or (facts is None and self.total is None)  # not a file, nor a file on a server
        # Where OpenCV estimates the number of frames, audio may last longer than the images, by less than a second.
        self._num_uncertain = 0 if facts and facts.has_frame_count else round(self.rate)
        self._length = (facts and facts.seconds) or (self.total / self.rate if self.total else 0.0)
        self._seconds, self._start = 0.0, None  # of the last frame; time.monotonic() of the first frame

    def frames(self) -> Iterator[Frame]:
        """Yields the frames up to the end of the video, without those that cannot be decoded."""
        import cv2

        failures, last_read = 0, time.monotonic()
        while True:
            is_read, image = self._capture.read()
            if not is_read:
                # OpenCV reports a damaged frame and the end of the video alike.
                failures += 1
                if failures > self._max_failures or (self.is_live and time.monotonic() - last_read > TIMEOUT):
                    break
                continue
            if self.count or not self.is_live:  # a stream begins between two key frames
                self.skipped += failures
            failures, last_read = 0, time.monotonic()
            self._seconds = self._time(last_read)
            self.count += 1
            index = self.count + self.skipped - 1
            yield Frame(index, round(self._seconds, 6), cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            last_read = time.monotonic()  # not the time that the caller took
        self.is_at_end = True

    @property
    def lost(self) -> int:
        """Number of frames that could not be decoded, at the end of a file including those that it should contain."""
        if not self.is_at_end or not self.total:
            return self.skipped
        # The number of frames may include some that were trimmed away; those that are missing at the end are missing in
        # the time line as well.
        missing = min(self.total - self.count - self.skipped, round((self._length - self._seconds) * self.rate) - 1)
        return self.skipped + (missing if missing > self._num_uncertain else 0)

    def problems(self) -> list[str]:
        """Returns error messages if a stream or camera has ended, or if more than MAX_LOST of the frames were lost.

        Fewer lost frames are logged.
        """
        lost, problems = self.lost, []
        total = self.count + lost
        message = f"{lost} of {total} frames missing or undecodable in {self.name}, the others are done"
        if lost > MAX_LOST * total:
            problems.append(message if self.is_live else f"{message}; copy or convert the video again")
        elif lost:
            logging.warning("%s", message)
        if self.is_at_end and self.is_live:
            problems.append(f"{self.name} ended or was lost after {self.count} frames; the results up to then are kept")
        return problems

    @property
    def _max_failures(self) -> int:
        return max(MAX_FAILURES, (self.total or 0) - self.count - self.skipped)

    def _time(self, now: float) -> float:
        """Returns the time of the frame that was just read, in seconds since the first one."""
        import cv2

        if self._start is None:
            self._start = now
        if self.is_live:  # some streams have no times, and OpenCV makes them up
            return now - self._start
        position = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if not self.count:
            return position if 0 <= position < math.inf else 0.0
        return position if self._seconds < position < math.inf else self._seconds + 1 / self.rate


@contextlib.contextmanager
def opened(input_video: str) -> Iterator[Source]:
    """Opens a video file, a stream of STREAMS, or the camera of a number.

    Raises:
        ValueError: if it cannot be read; the message does not contain the credentials of a URL.
    """
    cv2 = opencv()
    name, is_camera, is_stream = name_of(input_video), input_video.isdigit(), is_url(input_video)
    if not is_stream:
        check_local(name, "--input_video")
    if not is_camera and not is_stream and not os.path.isfile(input_video):
        raise ValueError(
            f"there is no video {input_video}; give a file, the number of a camera, or a URL that starts with "
            f"{', '.join(f'{scheme}://' for scheme in STREAMS)}"
        )
    if is_stream:
        milliseconds = int(1000 * TIMEOUT)
        waits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
        capture = cv2.VideoCapture(input_video, cv2.CAP_ANY, waits)
    else:
        capture = cv2.VideoCapture(int(input_video) if is_camera else input_video)
    try:
        if not capture.isOpened():
            if is_stream:
                raise ValueError(f"OpenCV cannot open {name} within {TIMEOUT:g} s; check address, user and password")
            problem = f"camera {input_video} does not respond" if is_camera else f"OpenCV cannot read {input_video}"
            raise ValueError(f"{problem}; give another video or camera")
        # Some versions of OpenCV turn frames as the metadata of phones says by default, others do not.
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        facts = None if is_camera or is_stream else container.read(input_video)
        yield Source(capture, name, facts, is_camera=is_camera)
    finally:
        capture.release()


def check(input_video: str) -> None:
    """Raises ValueError if a file cannot be read; cameras and streams are opened only when they are needed."""
    opencv()
    if not input_video.isdigit() and not is_url(input_video):
        with opened(input_video):
            pass


def is_url(input_video: str) -> bool:
    """Returns True for the URL of a network stream that OpenCV reads.

    >>> is_url("rtsp://camera/stream"), is_url("video.mp4")
    (True, False)
    """
    scheme, separator, _ = input_video.partition("://")
    return bool(separator) and scheme.lower() in STREAMS


def name_of(input_video: str) -> str:
    """Returns a name for messages and results: a path, camera 0, or a URL without user, password and query.

    >>> name_of("rtsp://admin:secret@camera/stream?quality=high"), name_of("0")
    ('rtsp://camera/stream', 'camera 0')
    """
    if input_video.isdigit():
        return f"camera {input_video}"
    scheme, separator, rest = input_video.partition("://")
    if not separator:
        return input_video
    host, path, query = re.fullmatch(r"([^/?#]*)([^?#]*)(.*)", rest, re.DOTALL).groups()
    if "@" in path + query:  # may belong to a password with / or ?
        return f"{scheme}://***"
    # Some cameras expect user and password in the path: /user=admin&password=...
    return f"{scheme}://{host.rpartition('@')[2]}{'/***' if '=' in path else path}"


def opencv():
    """Imports OpenCV, which needs libraries that some machines lack."""
    try:
        import cv2
    except ImportError as error:
        raise ValueError(f"video needs OpenCV, which cannot be loaded: {reason_of(error)}") from error
    return cv2
