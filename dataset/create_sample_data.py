# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Makes pictures of circles, triangles and stars over textured backgrounds, with exact boxes, to try a detector on.

    python dataset/create_sample_data.py --output_dir=data/train --prefix=train --num_images=800 --seed=1
    python dataset/create_sample_data.py --output_dir=data/val --prefix=val --num_images=200 --seed=2
    python dataset/create_sample_data.py --output_dir=data/wide --num_images=20 --image_size=640x360

The shape decides the class; size, colour, rotation, place and texture say nothing about it. Some pictures are empty.
A seed gives the same pictures everywhere; another seed gives others.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as in main.py

import numpy as np
from absl import flags
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from dataset import command_line, conversion, create_coco_tfrecord
from dataset.notes import Report
from dataset.tfrecord import DataError

FLAGS = flags.FLAGS
NUM_SHARDS = 4
CLASS_NAMES = {1: "circle", 2: "triangle", 3: "star"}
EMPTY_SHARE = 0.06  # of the images
MAX_OBJECTS = 8  # on one image
SIZES = (0.18, 0.6)  # diameter of an object, in shorter sides of the image
MAX_HIDDEN = 0.4  # share of an object that others may hide
MIN_CONTRAST = 90  # distance in RGB between an object's colour and what it covers
JPEG_OPTIONS = {"quality": 92, "subsampling": 0}  # with subsampling, small shapes lose their colour


def define_flags() -> None:
    with command_line.group("Pictures"):
        flags.DEFINE_integer("num_images", 200, "Pictures to make.", lower_bound=1)
        flags.DEFINE_string("image_size", "160", "Pixels: one side of a square, or WxH.")
        flags.DEFINE_integer("seed", 0, "Another seed, other pictures.", lower_bound=0)
    with command_line.group("Output"):
        flags.DEFINE_string("output_dir", None, "Folder for images/, annotations.json and TFRecords.", required=True)
        flags.DEFINE_string("prefix", "sample", "What the TFRecord names begin with; one set of pictures a folder.")


class Scene(NamedTuple):
    """A picture and what is on it."""

    image: np.ndarray  # uint8 [H, W, 3]
    boxes: np.ndarray  # int [K, 4], [ymin, xmin, ymax, xmax] in pixels: the whole shape, hidden parts too
    classes: np.ndarray  # int [K], keys of CLASS_NAMES


def make_scene(seed: int, index: int, image_size: tuple[int, int]) -> Scene:
    """Draws picture number `index` of a seed; image_size is (height, width) in pixels."""
    random = np.random.RandomState([seed, index])  # unlike a Generator's, its stream is the same in every NumPy
    image = _background(random, image_size)
    num_objects = 0 if random.random_sample() < EMPTY_SHARE else 1 + int(random.random_sample() * MAX_OBJECTS)
    classes = 1 + (random.random_sample(num_objects) * len(CLASS_NAMES)).astype(int)
    coverages = [_shape_coverage(random, SHAPES[class_id], image_size) for class_id in classes]
    kept = _visible(coverages)
    for i in kept:
        image = _paint(random, image, coverages[i])
    image += random.uniform(-8, 8, image.shape)  # grain
    boxes = np.array([_mask_box(coverages[i] >= 0.5) for i in kept], np.int64).reshape(-1, 4)
    return Scene(np.clip(image, 0, 255).astype(np.uint8), boxes, classes[kept])


def _visible(coverages: list[np.ndarray]) -> list[int]:
    """Indices of the objects to draw, in order: each later one hides earlier ones, but none more than MAX_HIDDEN."""
    kept, hidden = [], False
    for i in reversed(range(len(coverages))):
        mask = coverages[i] >= 0.5
        if (mask & hidden).sum() <= MAX_HIDDEN * mask.sum():
            kept.insert(0, i)
            hidden = mask | hidden
    return kept


def _mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest box [ymin, xmin, ymax, xmax] around the pixels of a mask, edges included."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def _shape_coverage(random: np.random.RandomState, distance: Callable, image_size: tuple[int, int]) -> np.ndarray:
    """How much of every pixel a shape of random size, rotation and place covers: float [H, W] in [0, 1]."""
    height, width = image_size
    smallest, largest = np.log(SIZES)
    radius = min(image_size) * np.exp(random.uniform(smallest, largest)) / 2
    # At most a third of the radius sticks out over each edge.
    center_y = random.uniform(radius * 2 / 3, height - radius * 2 / 3)
    center_x = random.uniform(radius * 2 / 3, width - radius * 2 / 3)
    angle = random.uniform(0, 2 * np.pi)
    rows = np.arange(max(int(center_y - radius) - 1, 0), min(int(center_y + radius) + 2, height))
    columns = np.arange(max(int(center_x - radius) - 1, 0), min(int(center_x + radius) + 2, width))
    y = (rows + 0.5 - center_y)[:, None] / radius  # in radii
    x = (columns + 0.5 - center_x)[None, :] / radius
    turned = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    coverage = np.zeros(image_size)
    coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = np.clip(0.5 - radius * distance(*turned), 0, 1)
    return coverage


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 1


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _fold_star(x, y, tips=3, notch=0.5)  # a notch of cos(pi / 3) is on the line from tip to tip


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _fold_star(x, y, tips=5, notch=0.45)


def _fold_star(x: np.ndarray, y: np.ndarray, tips: int, notch: float) -> np.ndarray:
    """Distance to the nearest edge of a star with tips at radius 1 and notches between them, below 0 inside.

    The plane is folded into the wedge between a tip, at angle 0, and its notch, where the star is one straight edge.
    """
    wedge = np.pi / tips
    angle = np.abs((np.arctan2(y, x) + wedge) % (2 * wedge) - wedge)
    radius = np.hypot(x, y)
    edge_x, edge_y = notch * np.cos(wedge) - 1, notch * np.sin(wedge)  # from the tip to the notch
    cross = (radius * np.cos(angle) - 1) * edge_y - radius * np.sin(angle) * edge_x
    return cross / np.hypot(edge_x, edge_y)


SHAPES = {1: _circle, 2: _triangle, 3: _star}  # by class; distances to the outline in radii, below 0 inside


def _paint(random: np.random.RandomState, image: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """Lays an object over the image in a colour that stands out from what it covers, lighter on one side."""
    below = np.tensordot(coverage, image, 2) / coverage.sum()  # [3], mean colour
    color = random.uniform(0, 255, 3)
    while np.linalg.norm(color - below) < MIN_CONTRAST:
        color = random.uniform(0, 255, 3)
    shade = 1 + 0.5 * (_ramp(random, image.shape[:2]) - 0.5)
    return image + coverage[..., None] * (color * shade[..., None] - image)


def _background(random: np.random.RandomState, image_size: tuple[int, int]) -> np.ndarray:
    """A texture between two colours of limited contrast: float [H, W, 3] in [0, 255]."""
    base = random.uniform(50, 205, 3)
    contrast = random.uniform(-50, 50, 3)
    texture = TEXTURES[int(random.random_sample() * len(TEXTURES))](random, image_size)
    return base + contrast * (texture[..., None] * 2 - 1)


def _ramp(random: np.random.RandomState, image_size: tuple[int, int]) -> np.ndarray:
    """Rises from 0 to 1 across the image in a random direction."""
    angle = random.uniform(0, 2 * np.pi)
    y, x = np.linspace(-1, 1, image_size[0])[:, None], np.linspace(-1, 1, image_size[1])[None, :]
    return 0.5 + (np.sin(angle) * y + np.cos(angle) * x) / np.sqrt(8)


def _stripes(random: np.random.RandomState, image_size: tuple[int, int]) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(_ramp(random, image_size) * random.uniform(20, 90))


def _clouds(random: np.random.RandomState, image_size: tuple[int, int]) -> np.ndarray:
    """Smooth noise: a few random values, stretched over the image."""
    cells = 3 + int(random.random_sample() * 8)
    grid = Image.fromarray(random.random_sample((cells, cells)).astype(np.float32))
    return np.clip(np.asarray(grid.resize(image_size[::-1], Image.Resampling.BICUBIC), np.float64), 0, 1)


TEXTURES = (_ramp, _stripes, _clouds)


def create(
    output_dir: str | Path,
    *,
    num_images: int,
    image_size: tuple[int, int] = (160, 160),
    seed: int = 0,
    prefix: str = "sample",
    num_shards: int = NUM_SHARDS,
) -> Report:
    """Writes images/*.jpg, annotations.json in COCO's format with ids from 1, `{prefix}-*.tfrecord` and their report.

    Args:
        output_dir: folder; one set of pictures a folder: those of an earlier run are replaced or removed.
        num_images: from 1.
        image_size: (height, width), pixels.
        seed: from 0; another seed, other pictures.
        prefix: what the shard names begin with.
        num_shards: number of TFRecord files, from 1.

    Raises:
        DataError: if shards of that prefix, but of another number, are in the folder.
    """
    images_dir, annotations_path = Path(output_dir, "images"), Path(output_dir, "annotations.json")
    images_dir.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index in tqdm(range(num_images), desc="drawing", unit="image"):
        scene, image_id = make_scene(seed, index, image_size), index + 1
        height, width = image_size
        images.append({"id": image_id, "file_name": f"{image_id:06d}.jpg", "height": height, "width": width})
        Image.fromarray(scene.image).save(images_dir / images[-1]["file_name"], **JPEG_OPTIONS)
        for class_id, box in zip(scene.classes.tolist(), scene.boxes.tolist(), strict=True):
            annotations.append(_coco_annotation(len(annotations) + 1, image_id, class_id, box))
    _remove_others(images_dir, {image["file_name"] for image in images})
    categories = [{"id": class_id, "name": name} for class_id, name in CLASS_NAMES.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    annotations_path.write_text(json.dumps(content), "utf-8")
    source = create_coco_tfrecord.load(images_dir, object_annotations_file=annotations_path)
    return create_coco_tfrecord.convert(source, Path(output_dir, prefix), num_shards=num_shards)


def _remove_others(images_dir: Path, file_names: set[str]):
    """Removes the pictures of an earlier, larger run; files that are not named as `create` does stay."""
    for path in images_dir.glob("*.jpg"):
        if re.fullmatch(r"[0-9]{6}|[1-9][0-9]{6,}", path.stem) and path.name not in file_names:
            path.unlink()


def _coco_annotation(annotation_id: int, image_id: int, class_id: int, box: list[int]) -> dict:
    ymin, xmin, ymax, xmax = box
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": class_id,
        "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
        "area": (xmax - xmin) * (ymax - ymin),
        "iscrowd": 0,
    }


def parse_image_size(text: str) -> tuple[int, int]:
    """(height, width) from "160" or "640x480", which is WxH.

    Raises:
        DataError: for any other text, and for sides below 32 pixels, where the shapes could not be told apart.
    """
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) >= 32 for side in sides):
        raise DataError(
            f"expected image_size as one side or WxH in pixels from 32, such as 160 or 640x480, got {text!r}"
        )
    return int(sides[-1]), int(sides[0])


def main() -> None:
    conversion.hide_gpus()
    with conversion.plain_ending():
        report = create(
            FLAGS.output_dir,
            num_images=FLAGS.num_images,
            image_size=parse_image_size(FLAGS.image_size),
            seed=FLAGS.seed,
            prefix=FLAGS.prefix,
        )
    print(report)
    print(f"wrote {FLAGS.output_dir}/images, annotations.json and {FLAGS.prefix}-*-of-{NUM_SHARDS:05d}.tfrecord")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
