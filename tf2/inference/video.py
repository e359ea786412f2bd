# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Detects in a video or what a camera sees, and writes or shows it with boxes drawn."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tqdm
from absl import logging

from dataset import visualize
from dataset.files import atomic_path, check_target, reason_of
from tf2.inference.drivers import Driver

CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".avi": "MJPG"}
DEFAULT_RATE = 25.0  # frames a second, where the source tells none, as cameras do
MAX_RATE = 1000.0  # more is no rate: some containers tell the ticks of their clock
TITLE = "EfficientDet - q ends"
QUIT_KEYS = (ord("q"), 27)  # 27: Escape


class Source(NamedTuple):
    """What is known of a video before its first frame."""

    rate: float  # frames a second
    frames: int | None  # None where it is not known, as of a camera


def run(
    driver: Driver,
    input_video: str,
    *,
    output_video: str | None,
    min_score_thresh: float,
    max_boxes_to_draw: int,
    line_thickness: int | None,
) -> int:
    """Detects in each frame, and writes or shows it; ends with the video, at q or Escape, or at Ctrl-C.

    Args:
        driver: the detector.
        input_video: a file, or the number of a camera.
        output_video: an .mp4, .mov or .avi file that does not exist, of the source's size and rate; None: a window.
        min_score_thresh: draws what scores above.
        max_boxes_to_draw: draws the best so many.
        line_thickness: of boxes, in pixels; None suits it to the frame.

    Returns:
        The number of frames; after Ctrl-C, too, the output is a video of the frames until then.

    Raises:
        ValueError: if the video cannot be read or written, or there is no display for a window.
    """
    cv2 = _opencv()
    count = 0
    with _opened(input_video) as (capture, source), _sink(output_video, source.rate) as show:
        progress = tqdm.tqdm(desc="detecting", unit="frame", total=source.frames)
        with progress, _until_interrupted(lambda: count > 0):
            while True:
                more, frame = capture.read()
                if not more:
                    break
                image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                boxes, scores, classes, _ = driver.detect(image)
                drawn = visualize.draw_boxes(
                    image,
                    boxes,
                    classes,
                    scores,
                    names=driver.names,
                    min_score_thresh=min_score_thresh,
                    max_boxes_to_draw=max_boxes_to_draw,
                    line_thickness=line_thickness,
                )
                count += 1
                progress.update()
                if not show(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)):
                    break
        if not count:
            raise ValueError(f"{input_video} has no frame that OpenCV can decode; give another file, or convert it")
    if source.frames and count < source.frames:
        logging.warning("%d of %d frames of %s were done", count, source.frames, input_video)
    return count


def _opencv():
    """OpenCV, which wants libraries that not every machine has."""
    try:
        import cv2
    except ImportError as error:
        raise ValueError(f"video needs OpenCV, which cannot be loaded: {reason_of(error)}") from error
    return cv2


@contextlib.contextmanager
def _until_interrupted(has_begun: Callable[[], bool]) -> Iterator[None]:
    """Ends the block at Ctrl-C, so that what follows can finish the video; before the first frame there is none."""
    try:
        yield
    except KeyboardInterrupt:
        if not has_begun():
            raise
        logging.warning("interrupted: ending the video here")


@contextlib.contextmanager
def _opened(input_video: str) -> Iterator[tuple[Any, Source]]:
    """OpenCV's capture of the source, released at the end."""
    cv2 = _opencv()
    is_camera = input_video.isdigit()
    if not is_camera and not os.path.isfile(input_video):
        raise ValueError(f"there is no video {input_video}; give a file, or the number of a camera")
    capture = cv2.VideoCapture(int(input_video) if is_camera else input_video)
    try:
        if not capture.isOpened():
            what = (
                f"camera {input_video} does not answer" if is_camera else f"OpenCV cannot read {input_video} as a video"
            )
            raise ValueError(f"{what}; give another")
        rate, frames = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if not 0 < rate <= MAX_RATE:  # also of NaN
            logging.info("%s tells no frame rate; taking %g frames a second", input_video, DEFAULT_RATE)
            rate = DEFAULT_RATE
        yield capture, Source(rate, frames if frames > 0 and not is_camera else None)
    finally:
        capture.release()


@contextlib.contextmanager
def _sink(output_video: str | None, rate: float) -> Iterator[Callable[[np.ndarray], bool]]:
    """A function that takes a BGR frame and tells whether to go on; what it holds is released at the end."""
    if output_video is None:
        with _window() as show:
            yield show
        return
    suffix = os.path.splitext(output_video)[1].lower()
    if suffix not in CODECS:
        raise ValueError(f"--output_video must end in {' or '.join(CODECS)}, got {output_video}")
    check_target(output_video)
    cv2, writers, shapes = _opencv(), [], set()

    def write(frame: np.ndarray) -> bool:
        if not writers:  # only the first frame tells its size for sure: cameras and rotation change it
            size = frame.shape[1::-1]
            writers.append(cv2.VideoWriter(temporary, cv2.VideoWriter_fourcc(*CODECS[suffix]), rate, size))
            if not writers[0].isOpened():
                raise ValueError(f"OpenCV cannot write {output_video}; try the other of {', '.join(CODECS)}")
        shapes.add(frame.shape[1::-1])
        if len(shapes) > 1:  # the writer would leave this frame out without a word
            sizes = " and ".join(f"{width}x{height}" for width, height in sorted(shapes))
            raise ValueError(f"the video changes its size, {sizes}; convert it to one size first")
        writers[0].write(frame)
        return True

    with atomic_path(output_video) as temporary:
        try:
            yield write
        finally:
            for writer in writers:
                writer.release()


@contextlib.contextmanager
def _window() -> Iterator[Callable[[np.ndarray], bool]]:
    """A window, closed at the end."""
    cv2 = _opencv()
    instead = "give --output_video=FILE.mp4 to write the video"
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ValueError(f"there is no display for a window; {instead}")
    try:
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL)
    except cv2.error as error:  # of builds without windows
        raise ValueError(f"this OpenCV opens no window; {instead}") from error

    def show(frame: np.ndarray) -> bool:
        cv2.imshow(TITLE, frame)
        is_quit = cv2.waitKey(1) & 0xFF in QUIT_KEYS
        return not is_quit and cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1

    try:
        yield show
    finally:
        cv2.destroyAllWindows()
