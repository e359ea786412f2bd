# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Detections as rows of JSON and CSV, the same for images and videos; the files of a video, written frame by frame."""

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dataset import label_map
from dataset.files import atomic_path

BOX_LAYOUT = "[ymin, xmin, ymax, xmax], pixels"
CSV_COLUMNS = ("class", "name", "score", "ymin", "xmin", "ymax", "xmax")

Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # boxes [K, 4] in pixels, classes [K], scores [K]


def rows(found: Found, names: Mapping[int, str]) -> list[dict[str, Any]]:
    """Returns the detections of an image as dictionaries of box, score, class and name."""
    boxes, classes, scores = (array.tolist() for array in found)
    return [
        {"box": box, "score": score, "class": class_id, "name": label_map.name_of(names, class_id)}
        for box, score, class_id in zip(boxes, scores, classes, strict=True)
    ]


def csv_line(values: Sequence[Any]) -> str:
    """Returns one line of CSV.

    >>> csv_line([1, "cat, black", 0.5]).strip()
    '1,"cat, black",0.5'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def csv_values(row: Mapping[str, Any]) -> list[Any]:
    """Returns the values of CSV_COLUMNS of a detection.

    >>> csv_values({"box": [1.0, 2.0, 3.0, 4.0], "score": 0.5, "class": 1, "name": "cat"})
    [1, 'cat', 0.5, 1.0, 2.0, 3.0, 4.0]
    """
    return [row["class"], row["name"], row["score"], *row["box"]]


@contextlib.contextmanager
def json_of_video(path: str, header: Mapping[str, Any]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yields a function that adds a frame to a JSON file, which is complete when the block succeeds.

    Args:
        path: local or remote file.
        header: keys and values before the list `frames`.
    """
    with atomic_path(path) as temporary, _opened(temporary) as file:
        file.write(f'{json.dumps({"box": BOX_LAYOUT, **header}, ensure_ascii=False)[:-1]}, "frames": [')
        separators = iter(("\n",))  # before the first frame; then a comma as well

        def write(frame: Mapping[str, Any]) -> None:
            file.write(next(separators, ",\n") + json.dumps(frame, ensure_ascii=False))

        yield write
        file.write("\n]}\n")


@contextlib.contextmanager
def csv_of_video(path: str) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yields a function that adds the detections of a frame to a CSV file, see `json_of_video`."""
    with atomic_path(path) as temporary, _opened(temporary) as file:
        file.write(csv_line(["frame", "seconds", *CSV_COLUMNS]))

        def write(frame: Mapping[str, Any]) -> None:
            lines = (csv_line([frame["frame"], frame["seconds"], *csv_values(row)]) for row in frame["detections"])
            file.write("".join(lines))

        yield write


def _opened(path: str):
    """Opens a text file; each line reaches the file system at once, so that a killed process leaves whole lines."""
    return open(path, "w", encoding="utf-8", errors="backslashreplace", newline="", buffering=1)
