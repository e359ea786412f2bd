# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Inference on a video, camera or stream; the results are a video with boxes, a list of detections or a window."""

import contextlib
import dataclasses
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tqdm
from absl import logging

from dataset import visualize
from dataset.files import TargetError, check_distinct, check_file, check_target, folder_of, hold_interrupt, is_remote
from tf2.inference import capture, detection_list, video_file
from tf2.inference.capture import Frame, Source
from tf2.inference.detection_list import Found
from tf2.inference.drivers import Driver
from tf2.inference.video_file import OutputEnd

MIN_FREE_BYTES = 1 << 24  # of a disk; leaves room to complete the files, whose index is written last


@dataclasses.dataclass(frozen=True)
class OutputPaths:
    """Local or remote files to write; without any, the frames are shown in a window."""

    video: str | None = None  # an .mp4, .mov or .avi file that does not exist, with size and rate of the source
    json: str | None = None  # detections by frame
    csv: str | None = None  # one line per detection

    @property
    def given(self) -> list[str]:
        """The files that are to be written."""
        return [path for path in (self.video, self.json, self.csv) if path]


def run(
    driver: Driver,
    input_video: str,
    outputs: OutputPaths,
    *,
    min_score_thresh: float,
    max_boxes_to_draw: int,
    line_thickness: int | None,
) -> int:
    """Detects objects in each frame, writes or shows the results, and returns the number of frames.

    Ends with the video, or at q, Escape, Ctrl-C or SIGTERM; the files then contain the frames up to then.

    Args:
        input_video: a file, the number of a camera, or the URL of a stream.
        outputs: files to write. Existing lists are replaced, an existing video is not.
        min_score_thresh: detections need a higher score, in [0, 1].
        max_boxes_to_draw: maximum number of detections per frame, the best ones.
        line_thickness: of boxes, in pixels; None depends on the size of the frame.

    Raises:
        ValueError: if the video cannot be read or written, or there is no display for a window; and, after the results
            are written, if a stream was lost, more than 1 % of the frames could not be decoded, the frames changed
            their size, or the disk is full.
    """
    check(input_video, outputs)
    count, problems = 0, []
    with _sigterm_interrupts(), contextlib.ExitStack() as stack:
        source = stack.enter_context(capture.opened(input_video))
        write = stack.enter_context(_sinks(outputs, source, driver.names, line_thickness))
        progress = stack.enter_context(tqdm.tqdm(desc="detecting", unit="frame", total=source.total))
        try:
            for frame in source.frames():
                boxes, scores, classes, _ = driver.detect(frame.image)
                kept = np.flatnonzero(scores > min_score_thresh)[:max_boxes_to_draw]  # sorted by falling score
                with hold_interrupt():
                    is_open = write(frame, (boxes[kept], classes[kept], scores[kept]))
                    count += 1
                progress.update()
                if not is_open:
                    break
        except KeyboardInterrupt:
            if not count:
                raise
            logging.warning("interrupted: the video ends here")
        except OutputEnd as error:
            problems.append(f"{error}; the results up to then are kept")
        if not count:
            raise ValueError(f"{source.name} has no frame that OpenCV can decode; convert it, or give another file")
        with hold_interrupt():
            stack.close()  # completes the files
    for path in outputs.given:
        print(f"writing file to {path}: {count} frames")
    if problems := [*problems, *source.problems()]:
        raise ValueError("; ".join(problems))
    return count


def check(input_video: str, outputs: OutputPaths) -> None:
    """Checks the input and the targets of `run`, before a model is built.

    Raises:
        ValueError: if a file cannot be read or written, or a disk is full.
    """
    if outputs.video:
        video_file.check_suffix(outputs.video)
        check_target(outputs.video)
    for path in (outputs.json, outputs.csv):
        if path:
            check_file(path)
    check_distinct(outputs.given, [input_video], "the input")
    capture.check(input_video)
    try:
        _check_room(outputs.given)
    except OutputEnd as error:
        raise TargetError(f"{error}; make room, or choose another folder") from error


@contextlib.contextmanager
def _sinks(
    outputs: OutputPaths, source: Source, names: Mapping[int, str], line_thickness: int | None
) -> Iterator[Callable[[Frame, Found], bool]]:
    """Yields a function that writes or shows a frame and its detections; False if the user closed the window."""
    with contextlib.ExitStack() as stack:
        show, lists = None, []
        if outputs.video:
            show = stack.enter_context(video_file.writer(outputs.video, source.rate))
            _report_audio(source)
        elif not outputs.given:
            show = stack.enter_context(video_file.window())
        if outputs.json:
            header = {"file": source.name, "frames_per_second": source.rate}
            lists.append(stack.enter_context(detection_list.json_of_video(outputs.json, header)))
        if outputs.csv:
            lists.append(stack.enter_context(detection_list.csv_of_video(outputs.csv)))

        def write(frame: Frame, found: Found) -> bool:
            _check_room(outputs.given)
            is_open = True
            if show:
                options = {"min_score_thresh": 0, "max_boxes_to_draw": len(found[0]), "line_thickness": line_thickness}
                drawn = visualize.draw_boxes(frame.image, *found, names=names, **options)
                is_open = show(np.ascontiguousarray(drawn[..., ::-1]))
            for add in lists:
                add(_entry(frame, found, names))
            return is_open

        yield write


def _entry(frame: Frame, found: Found, names: Mapping[int, str]) -> dict[str, Any]:
    """Returns the detections of one frame, as in --output_json."""
    height, width = frame.image.shape[:2]
    position = {"frame": frame.index, "seconds": frame.seconds, "height": height, "width": width}
    return {**position, "detections": detection_list.rows(found, names)}


def _report_audio(source: Source) -> None:
    """Logs that audio is not kept, unless the source has none."""
    if source.has_audio:
        logging.warning("the audio of %s is not kept: OpenCV writes images alone", source.name)
    elif source.has_audio is None and not source.is_camera:
        logging.info("audio, if %s has any, is not kept: OpenCV writes images alone", source.name)


def _check_room(paths: list[str]) -> None:
    """Raises OutputEnd if a file system to be written to is nearly full."""
    for folder in {tempfile.gettempdir() if is_remote(path) else folder_of(path) for path in paths}:
        if shutil.disk_usage(folder).free < MIN_FREE_BYTES:
            raise OutputEnd(f"less than {MIN_FREE_BYTES >> 20} MiB are free in {folder}")


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Lets SIGTERM act as Ctrl-C, because it is what ends a container or a service that reads a camera."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)
