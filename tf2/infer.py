# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Inference from the command line: pictures in, pictures with boxes out."""

import glob
import os

import numpy as np
import PIL.Image
import PIL.ImageOps
import tqdm

from dataset import visualize
from tf2.drivers import KerasDriver

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def run(
    driver: KerasDriver,
    input_image: str,
    output_image_dir: str,
    *,
    min_score_thresh: float,
    max_boxes_to_draw: int,
    line_thickness: int | None,
    batch_size: int = 1,
) -> list[str]:
    """Detects in every picture and writes it with boxes drawn, as {i}.jpg in the order of the sorted names.

    Args:
        driver: the detector.
        input_image: file, folder, or glob.
        output_image_dir: made where it does not exist.
        min_score_thresh: draws what scores above.
        max_boxes_to_draw: draws the best so many.
        line_thickness: of boxes, in pixels; None suits it to the picture.
        batch_size: pictures at once.

    Returns:
        The files written.

    Raises:
        ValueError: if there is no picture, or, after all others are written, for those that cannot be read.
    """
    paths = find_images(input_image)
    os.makedirs(output_image_dir, exist_ok=True)
    written, unreadable = [], []
    for start in tqdm.trange(0, len(paths), batch_size, desc="detecting", unit="batch"):
        images = {}
        for i, path in enumerate(paths[start : start + batch_size], start):
            try:
                images[i] = read_image(path)
            except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
                unreadable.append(f"{path} ({error})")
        if not images:
            continue
        detections = driver.serve(list(images.values()))
        for row, (i, image) in enumerate(images.items()):
            drawn = visualize.draw_boxes(
                image,
                detections.boxes[row],
                detections.classes[row],
                detections.scores[row],
                names=driver.names,
                min_score_thresh=min_score_thresh,
                max_boxes_to_draw=max_boxes_to_draw,
                line_thickness=line_thickness,
            )
            written.append(os.path.join(output_image_dir, f"{i}.jpg"))
            PIL.Image.fromarray(drawn).save(written[-1], quality=92)
    if unreadable:
        raise ValueError(
            f"{len(unreadable)} of {len(paths)} pictures could not be read, {len(written)} are written: "
            f"{'; '.join(unreadable)}"
        )
    return written


def find_images(pattern: str) -> list[str]:
    """Pictures that a file, a folder or a glob means, sorted.

    Raises:
        ValueError: if there is none.
    """
    if os.path.isdir(pattern):
        paths = [path for path in glob.glob(os.path.join(glob.escape(pattern), "*")) if path.lower().endswith(SUFFIXES)]
    else:
        paths = [pattern] if os.path.isfile(pattern) else glob.glob(pattern)
    if not paths:
        raise ValueError(f"no picture at {pattern!r}; give a file, a folder or a glob in quotes")
    return sorted(paths)


def read_image(path: str) -> np.ndarray:
    """A picture as [H, W, 3] uint8 RGB, turned upright as its EXIF entry says."""
    with PIL.Image.open(path) as image:
        return np.asarray(PIL.ImageOps.exif_transpose(image).convert("RGB"))
