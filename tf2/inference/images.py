# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Inference from the command line: pictures in, pictures with boxes and lists of detections out."""

import collections
import csv
import dataclasses
import glob
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import tqdm

from dataset import label_map, visualize
from dataset.convert import image_file
from dataset.convert.image_file import ImageError
from dataset.files import check_distinct, check_folder, write_file
from tf2.inference.drivers import Driver

OUTPUT_NAMES = ("index", "input")
MAX_JPEG_SIDE = 65_500  # pixels, of libjpeg


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What is written; None is left out."""

    image_dir: str | None = None  # pictures with boxes drawn; made where it does not exist
    names: str = "index"  # of the pictures: {i}.jpg in the order of the inputs; "input": the inputs' own, as .jpg
    json: str | None = None  # all detections, by picture
    csv: str | None = None  # a line each
    coco: str | None = None  # COCO results; a picture's image_id is its number


def run(
    driver: Driver,
    input_image: str,
    outputs: Outputs,
    *,
    min_score_thresh: float,
    max_boxes_to_draw: int,
    line_thickness: int | None,
    batch_size: int = 1,
) -> list[str]:
    """Detects in every picture, writes what it finds, and prints where.

    Args:
        driver: the detector.
        input_image: see `find_images`.
        outputs: what is written. What is there already is replaced, but never an input.
        min_score_thresh: only what scores above counts.
        max_boxes_to_draw: of each picture the best so many count.
        line_thickness: of boxes, in pixels; None suits it to the picture.
        batch_size: pictures at once.

    Returns:
        The files written.

    Raises:
        ValueError: if there is no picture, or a file cannot be written; and, after all others are written, for those
            that cannot be read or drawn.
    """
    paths = find_images(input_image)
    targets = _picture_targets(paths, outputs)
    written, failed, found = [], [], []
    for start in tqdm.trange(0, len(paths), batch_size, desc="detecting", unit="batch"):
        images = {}
        for i, path in enumerate(paths[start : start + batch_size], start):
            try:
                images[i] = read_image(path)
            except ImageError as error:
                failed.append(str(error))
        if not images:
            continue
        detections = driver.serve(list(images.values()))
        for row, (i, image) in enumerate(images.items()):
            boxes, scores, classes = (column[row] for column in detections[:3])
            kept = np.flatnonzero(scores > min_score_thresh)[:max_boxes_to_draw]  # by falling score
            rows = boxes[kept], classes[kept], scores[kept]
            found.append(_entry(i, paths[i], image, *rows, driver.names))
            if targets and max(image.shape) > MAX_JPEG_SIDE:
                failed.append(f"{paths[i]} is detected but not drawn: a JPEG has up to {MAX_JPEG_SIDE} pixels a side")
            elif targets:
                _draw(targets[i], image, *rows, driver.names, line_thickness)
                written.append(targets[i])
    for path, form in ((outputs.json, _to_json), (outputs.csv, _to_csv), (outputs.coco, _to_coco)):
        if path:
            write_file(path, form(found))
            written.append(path)
    for path in written:
        print(f"writing file to {path}")
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(paths)} pictures could not be read or drawn, the others are done: "
            f"{'; '.join(failed)}"
        )
    return written


def find_images(pattern: str) -> list[str]:
    """Pictures that a file, a folder, a glob, or a .txt file with a path a line means; all but the last kind sorted.

    Paths in a list are relative to its folder; empty lines and those that begin with # are left out.

    Raises:
        ValueError: if there is none, or a list names a file that does not exist.
    """
    if pattern.endswith(".txt") and os.path.isfile(pattern):
        paths = list(_listed(pattern))
    elif os.path.isdir(pattern):
        paths = sorted(
            p for p in glob.glob(os.path.join(glob.escape(pattern), "*")) if p.lower().endswith(image_file.SUFFIXES)
        )
    else:
        paths = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(pattern))
    if not paths:
        raise ValueError(f"no picture at {pattern!r}; give a file, a folder, a glob in quotes, or a .txt list")
    return paths


def read_image(path: str) -> np.ndarray:
    """A picture as [H, W, 3] uint8 RGB, turned upright as its EXIF entry says.

    Raises:
        ImageError: if it cannot be read.
    """
    return image_file.read_pixels(Path(path))


def _listed(path: str) -> Iterator[str]:
    """The paths in a list."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no list of paths: expected text, {error}") from error
    for line in map(str.strip, lines):
        if line and not line.startswith("#"):
            listed = os.path.join(os.path.dirname(path), line)
            if not os.path.isfile(listed):
                raise ValueError(f"{path} names {line!r}, and there is no file {listed}")
            yield listed


def _picture_targets(paths: list[str], outputs: Outputs) -> list[str]:
    """Where each picture goes; empty if none is asked for. Finds what cannot be written before the first detection."""
    files = [path for path in (outputs.json, outputs.csv, outputs.coco) if path]
    for path in files:
        if os.path.isdir(path) or not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            raise ValueError(f"cannot write {path}: expected a file in a folder that exists")
        check_folder(os.path.dirname(os.path.abspath(path)))
    check_distinct(files, paths, "one of the inputs")
    if not outputs.image_dir:
        return []
    if outputs.names not in OUTPUT_NAMES:
        raise ValueError(f"output_names must be one of {', '.join(OUTPUT_NAMES)}, got {outputs.names!r}")
    names = [str(i) if outputs.names == "index" else Path(path).stem for i, path in enumerate(paths)]
    if twice := sorted(name for name, count in collections.Counter(names).items() if count > 1):
        raise ValueError(
            f"several pictures are called {twice[0]!r} and would be one file in {outputs.image_dir}; "
            f"use --output_names=index"
        )
    targets = [os.path.join(outputs.image_dir, f"{name}.jpg") for name in names]
    inputs = {os.path.realpath(path) for path in paths}
    if same := [target for target in targets if os.path.realpath(target) in inputs]:
        raise ValueError(f"{same[0]} is one of the inputs and would be overwritten; choose another --output_image_dir")
    check_folder(outputs.image_dir)
    return targets


def _draw(path: str, image: np.ndarray, boxes, classes, scores, names, line_thickness: int | None) -> None:
    """Writes a picture with all the boxes given."""
    options = {"names": names, "line_thickness": line_thickness, "min_score_thresh": 0.0}
    drawn = visualize.draw_boxes(image, boxes, classes, scores, max_boxes_to_draw=len(boxes), **options)
    PIL.Image.fromarray(drawn).save(path, quality=92)


def _entry(i: int, path: str, image: np.ndarray, boxes, classes, scores, names) -> dict[str, Any]:
    """What was found in one picture."""
    rows = zip(boxes.tolist(), scores.tolist(), classes.tolist(), strict=True)
    return {
        "id": i,
        "file": path,
        "height": image.shape[0],
        "width": image.shape[1],
        "detections": [
            {"box": box, "score": score, "class": class_id, "name": label_map.name_of(names, class_id)}
            for box, score, class_id in rows
        ],
    }


def _to_json(found: list[dict]) -> str:
    """All that is known; `box` is [ymin, xmin, ymax, xmax] in pixels of the picture."""
    content = {"box": "[ymin, xmin, ymax, xmax], pixels", "images": found}
    return json.dumps(content, indent=1, ensure_ascii=False)


def _to_csv(found: list[dict]) -> str:
    """A line a detection."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "class", "name", "score", "ymin", "xmin", "ymax", "xmax"])
    for image in found:
        for row in image["detections"]:
            writer.writerow([image["file"], row["class"], row["name"], row["score"], *row["box"]])
    return text.getvalue()


def _to_coco(found: list[dict]) -> str:
    """COCO results, with the name of the file beside what COCO's tools read."""
    results = []
    for image in found:
        for row in image["detections"]:
            ymin, xmin, ymax, xmax = row["box"]
            bbox = [xmin, ymin, xmax - xmin, ymax - ymin]
            result = {"image_id": image["id"], "category_id": row["class"], "bbox": bbox, "score": row["score"]}
            results.append({**result, "file_name": image["file"]})
    return json.dumps(results, ensure_ascii=False)
