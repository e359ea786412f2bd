# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Inference on image files: writes images with boxes, and lists of detections."""

import collections
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import tqdm

from dataset import visualize
from dataset.convert import image_file
from dataset.convert.image_file import ImageError
from dataset.file_search import expand, warn_of_hidden
from dataset.files import atomic_path, check_distinct, check_file, check_folder, check_local, write_file
from efficientdet import boxes as box_ops
from tf2.inference import detection_list
from tf2.inference.detection_list import Found
from tf2.inference.drivers import Driver

OUTPUT_NAMES = ("index", "input")
MAX_JPEG_SIDE = 65_500  # pixels, a limit of libjpeg


@dataclasses.dataclass(frozen=True)
class OutputPaths:
    """Local or remote files to write; None: not written."""

    image_dir: str | None = None  # folder for images with boxes drawn, created if necessary
    names: str = "index"  # of the images: "index" is {i}.jpg in the order of the inputs, "input" is {input name}.jpg
    json: str | None = None  # detections by image
    csv: str | None = None  # one line per detection
    coco: str | None = None  # COCO results; image_id is the index of the image


def run(
    driver: Driver,
    input_image: str,
    outputs: OutputPaths,
    *,
    min_score_thresh: float,
    max_boxes_to_draw: int,
    line_thickness: int | None,
    batch_size: int = 1,
) -> list[str]:
    """Detects objects in image files, writes the results, and prints and returns the paths of the files written.

    Args:
        input_image: see `find_images`.
        outputs: files to write. Existing files are replaced, except inputs.
        min_score_thresh: detections need a higher score, in [0, 1].
        max_boxes_to_draw: maximum number of detections per image, the best ones.
        line_thickness: of boxes, in pixels; None depends on the size of the image.
        batch_size: images per batch.

    Raises:
        ValueError: if there is no image, or a file cannot be written; and, after all results are written, if any
            image could not be read or drawn.
    """
    paths = find_images(input_image)
    targets = _image_targets(paths, outputs)
    written, failed, found = [], [], []
    for images in _batches(paths, batch_size, failed):
        detections = driver.serve(list(images.values()))
        for (i, image), boxes, scores, classes in zip(images.items(), *detections[:3]):
            kept = np.flatnonzero(scores > min_score_thresh)[:max_boxes_to_draw]  # sorted by falling score
            rows = boxes[kept], classes[kept], scores[kept]
            found.append(_entry(i, paths[i], image, rows, driver.names))
            if targets and max(image.shape) > MAX_JPEG_SIDE:
                failed.append(f"{paths[i]} is listed but not drawn: a JPEG has at most {MAX_JPEG_SIDE} pixels per side")
            elif targets:
                options = {"min_score_thresh": 0, "max_boxes_to_draw": len(kept), "line_thickness": line_thickness}
                drawn = visualize.draw_boxes(image, *rows, names=driver.names, **options)
                with atomic_path(targets[i]) as temporary:
                    PIL.Image.fromarray(drawn).save(temporary, quality=92)
                written.append(targets[i])
    for path, form in ((outputs.json, _to_json), (outputs.csv, _to_csv), (outputs.coco, _to_coco)):
        if path:
            write_file(path, form(found))
            written.append(path)
    for path in written:
        print(f"writing file to {path}")
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(paths)} images could not be read or drawn, the others are done: {'; '.join(failed)}"
        )
    return written


def find_images(pattern: str) -> list[str]:
    """Returns the paths of the image files of a pattern, sorted except for a .txt file.

    Args:
        pattern: a local file or folder; a glob, in which `**` stands for any number of folders; or a .txt file with one
            path per line, relative to its folder, in which empty lines and lines that start with # are ignored. Of a
            folder and a glob, hidden files are ignored.

    Raises:
        ValueError: if the pattern is remote, there is no image, or a .txt file names a file that does not exist.
    """
    check_local(pattern, "an image")
    if pattern.endswith(".txt") and os.path.isfile(pattern):
        paths = list(_read_list(pattern))
    else:
        paths, hidden = expand(pattern)
        warn_of_hidden(hidden)
        if os.path.isdir(pattern):
            paths = [path for path in paths if path.lower().endswith(image_file.SUFFIXES)]
    if not paths:
        raise ValueError(f"no image at {pattern!r}; give a file, a folder, a glob in quotes, or a .txt list")
    return paths


def _batches(paths: list[str], batch_size: int, failed: list[str]) -> Iterator[dict[int, np.ndarray]]:
    """Yields the readable images of each batch by index, and adds the error messages of the others to `failed`."""
    for start in tqdm.trange(0, len(paths), batch_size, desc="detecting", unit="batch"):
        images = {}
        for i, path in enumerate(paths[start : start + batch_size], start):
            try:
                images[i] = image_file.read_pixels(path)
            except ImageError as error:
                failed.append(str(error))
        if images:
            yield images


def _read_list(path: str) -> Iterator[str]:
    """Yields the paths in a .txt file."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a list of paths: expected text, {error}") from error
    for line in map(str.strip, lines):
        if line and not line.startswith("#"):
            listed = os.path.join(os.path.dirname(path), line)
            if not os.path.isfile(listed):
                raise ValueError(f"{path} names {line!r}, but there is no file {listed}")
            yield listed


def _image_targets(paths: list[str], outputs: OutputPaths) -> list[str]:
    """Checks all outputs, and returns the path to draw each image to; an empty list without `image_dir`."""
    files = [path for path in (outputs.json, outputs.csv, outputs.coco) if path]
    for path in files:
        check_file(path)
    check_distinct(files, paths, "one of the inputs")
    if not outputs.image_dir:
        return []
    if outputs.names not in OUTPUT_NAMES:
        raise ValueError(f"output_names must be one of {', '.join(OUTPUT_NAMES)}, got {outputs.names!r}")
    names = [str(i) if outputs.names == "index" else Path(path).stem for i, path in enumerate(paths)]
    if twice := sorted(name for name, count in collections.Counter(names).items() if count > 1):
        raise ValueError(
            f"several images are named {twice[0]!r} and would be written to one file in {outputs.image_dir}; "
            f"use --output_names=index"
        )
    targets = [os.path.join(outputs.image_dir, f"{name}.jpg") for name in names]
    inputs = {os.path.realpath(path) for path in paths}
    if same := [target for target in targets if os.path.realpath(target) in inputs]:
        raise ValueError(f"{same[0]} is one of the inputs and would be overwritten; choose another --output_image_dir")
    check_folder(outputs.image_dir)
    return targets


def _entry(i: int, path: str, image: np.ndarray, found: Found, names: Mapping[int, str]) -> dict[str, Any]:
    """Returns the detections of one image, as in --output_json."""
    height, width = image.shape[:2]
    return {"id": i, "file": path, "height": height, "width": width, "detections": detection_list.rows(found, names)}


def _to_json(found: list[dict]) -> str:
    return json.dumps({"box": detection_list.BOX_LAYOUT, "images": found}, indent=1, ensure_ascii=False)


def _to_csv(found: list[dict]) -> str:
    lines = [["file", *detection_list.CSV_COLUMNS]]
    lines += [[image["file"], *detection_list.csv_values(row)] for image in found for row in image["detections"]]
    return "".join(map(detection_list.csv_line, lines))


def _to_coco(found: list[dict]) -> str:
    """Formats COCO results, with an additional key file_name."""
    results = []
    for image in found:
        for row in image["detections"]:
            [bbox] = box_ops.to_xywh(row["box"]).tolist()
            result = {"image_id": image["id"], "category_id": row["class"], "bbox": bbox, "score": row["score"]}
            results.append({**result, "file_name": image["file"]})
    return json.dumps(results, ensure_ascii=False)
