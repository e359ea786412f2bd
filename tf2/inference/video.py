# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Inference on a video or camera; the frames with boxes are written to a file or shown in a window."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tqdm
from absl import logging

from dataset import visualize
from dataset.files import atomic_path, check_local, check_target, reason_of
from tf2.inference.drivers import Driver

CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".avi": "MJPG"}
DEFAULT_RATE = 25.0  # frames per second; for sources without a frame rate, such as cameras
MAX_RATE = 1000.0  # frames per second; higher values are clock ticks of some containers
TITLE = "EfficientDet - q ends"
QUIT_KEYS = (ord("q"), 27)  # 27: Escape


def run(
    driver: Driver,
    input_video: str,
    *,
    output_video: str | None,
    min_score_thresh: float,
    max_boxes_to_draw: int,
    line_thickness: int | None,
) -> int:
    """Detects objects in each frame, and writes or shows it; returns the number of frames.

    Ends with the video, or at q, Escape or Ctrl-C.

    Args:
        input_video: a file, or the number of a camera.
        output_video: an .mp4, .mov or .avi file that does not exist, with size and rate of the source; None for a
            window. After Ctrl-C it contains the frames up to then.
        min_score_thresh: boxes need a higher score to be drawn, in [0, 1].
        max_boxes_to_draw: maximum number of boxes per frame, the best ones.
        line_thickness: of boxes, in pixels; None depends on the size of the frame.

    Raises:
        ValueError: if the video cannot be read or written, or there is no display for a window.
    """
    cv2 = _opencv()
    options = {"min_score_thresh": min_score_thresh, "max_boxes_to_draw": max_boxes_to_draw}
    options["line_thickness"] = line_thickness
    count = 0
    with _opened(input_video) as (capture, rate, total), _sink(output_video, rate) as show:
        try:
            with tqdm.tqdm(desc="detecting", unit="frame", total=total) as progress:
                while (result := capture.read())[0]:
                    image = cv2.cvtColor(result[1], cv2.COLOR_BGR2RGB)
                    boxes, scores, classes, _ = driver.detect(image)
                    drawn = visualize.draw_boxes(image, boxes, classes, scores, names=driver.names, **options)
                    count += 1
                    progress.update()
                    if not show(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)):
                        break
        except KeyboardInterrupt:
            if not count:
                raise
            logging.warning("interrupted: the video ends here")
        if not count:
            raise ValueError(f"{input_video} has no frame that OpenCV can decode; convert it, or give another file")
    if total and count < total:
        logging.warning("%d of %d frames of %s were processed", count, total, input_video)
    return count


def _opencv():
    """Imports OpenCV, which needs libraries that some machines lack."""
    try:
        import cv2
    except ImportError as error:
        raise ValueError(f"video needs OpenCV, which cannot be loaded: {reason_of(error)}") from error
    return cv2


@contextlib.contextmanager
def _opened(input_video: str) -> Iterator[tuple[Any, float, int | None]]:
    """Yields OpenCV's capture, frames per second, and the number of frames; None if unknown, as for a camera."""
    cv2 = _opencv()
    check_local(input_video, "--input_video")
    is_camera = input_video.isdigit()
    if not is_camera and not os.path.isfile(input_video):
        raise ValueError(f"there is no video {input_video}; give a file, or the number of a camera")
    capture = cv2.VideoCapture(int(input_video) if is_camera else input_video)
    try:
        if not capture.isOpened():
            problem = f"camera {input_video} does not respond" if is_camera else f"OpenCV cannot read {input_video}"
            raise ValueError(f"{problem}; give another video or camera")
        rate, frames = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if not 0 < rate <= MAX_RATE:  # also True for NaN
            logging.info("%s has no frame rate; using %g frames per second", input_video, DEFAULT_RATE)
            rate = DEFAULT_RATE
        yield capture, rate, frames if frames > 0 and not is_camera else None
    finally:
        capture.release()


@contextlib.contextmanager
def _sink(output_video: str | None, rate: float) -> Iterator[Callable[[np.ndarray], bool]]:
    """Yields a function that writes a BGR frame to a file, or shows it, see `_window`."""
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
        if not writers:  # the size of the first frame; cameras and rotation may change the size of the source
            size = frame.shape[1::-1]
            writers.append(cv2.VideoWriter(temporary, cv2.VideoWriter_fourcc(*CODECS[suffix]), rate, size))
            stack.callback(writers[0].release)
            if not writers[0].isOpened():
                raise ValueError(f"OpenCV cannot write {output_video}; try another of {', '.join(CODECS)}")
        shapes.add(frame.shape[1::-1])
        if len(shapes) > 1:  # the writer would silently drop this frame
            sizes = " and ".join(f"{width}x{height}" for width, height in sorted(shapes))
            raise ValueError(f"the video changes its size, {sizes}; convert it to one size first")
        writers[0].write(frame)
        return True

    with atomic_path(output_video) as temporary, contextlib.ExitStack() as stack:
        yield write


@contextlib.contextmanager
def _window() -> Iterator[Callable[[np.ndarray], bool]]:
    """Yields a function that shows a frame in a window, and returns False if the user closed it."""
    cv2 = _opencv()
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
