# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Images with boxes as read in training or evaluation, and a contact sheet of the augmentation operations."""

import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from dataset import label_map as label_map_lib
from dataset import tfrecord
from dataset.augment import autoaugment
from dataset.augment.geometry import random_flip
from dataset.augment.gridmask import grid_mask
from dataset.augment.mosaic import NUM_IMAGES, mosaic
from dataset.dataloader import InputReader, batches, window_chooser
from dataset.files import atomic_path, check_folder
from dataset.tfrecord import Sample
from dataset.visualize import draw_boxes
from dataset.window import crop_boxes, crop_image
from efficientdet import preprocess
from efficientdet.config import Config

SEED = 0
JPEG_OPTIONS = {"quality": 95, "subsampling": 0}

TILE = 320  # side of a tile of the contact sheet, pixels
CAPTION = 24  # height of the caption above a tile, pixels
NUM_WINDOWS = 3  # tiles of scale jitter
ALWAYS = 3.0  # probability of an operation; `_Only_BBoxes` operations apply a third of it to each box
MAX_DRAWS = 20  # of a random operation, until it changes the image

Operation = Callable[[Sample, tf.Tensor], Sample]  # (sample, seed) -> sample


class LabeledImage(NamedTuple):
    """An image with its objects and a title."""

    image: np.ndarray  # uint8 [H, W, 3]
    boxes: np.ndarray  # [K, 4], [ymin, xmin, ymax, xmax] in pixels of image
    classes: np.ndarray  # [K]
    title: str


def run(file_pattern: str, folder: str, config: Config, *, samples: int, evaluation: bool = False) -> None:
    """Writes sample images and the contact sheet, and prints a line for each.

    Args:
        folder: local or remote folder, created if it does not exist.
        samples: number of images; in evaluation at most the number of records.
        evaluation: True for the images of evaluation, False for those of training.

    Raises:
        ValueError: if no file matches, the records do not fit the config or are damaged, or label_map is wrong.
    """
    names = label_map_lib.resolve(config.label_map)
    label_map_lib.check(names, config.num_classes)
    reader = InputReader(file_pattern, config)
    check_folder(folder)
    num_boxes = []
    for labeled in (evaluation_images if evaluation else training_images)(reader, samples):
        path = os.path.join(folder, f"sample{len(num_boxes)}.jpg")
        print(f"writing {path}: {labeled.title}, boxes: {len(labeled.boxes)}", flush=True)
        with atomic_path(path) as temporary:
            Image.fromarray(_draw(labeled, names)).save(temporary, **JPEG_OPTIONS)
        num_boxes.append(len(labeled.boxes))
    if len(num_boxes) < samples:
        print(f"found only {len(num_boxes)} images for {samples} requested samples")

    path = os.path.join(folder, "contact_sheet.jpg")
    tiles = operation_tiles(first_samples(reader, NUM_IMAGES), config)
    print(f"writing {path}: {len(tiles)} tiles, of {tiles[0].title}", flush=True)
    with atomic_path(path) as temporary:
        Image.fromarray(contact_sheet(tiles, names)).save(temporary, **JPEG_OPTIONS)
    empty = num_boxes.count(0)
    print(f"wrote {len(num_boxes)} images, {empty} of them without boxes, and a contact sheet to {folder}")


def training_images(reader: InputReader, count: int) -> Iterator[LabeledImage]:
    """Yields the first augmented images of training, with the boxes that become targets."""
    for example in batches(reader.augmented(SEED).take(count)):
        boxes, classes = example["boxes"].numpy(), example["classes"].numpy()
        image = preprocess.unnormalize(example["image"], **reader.config.colors).numpy()
        yield LabeledImage(image, boxes, classes, _title(example))


def evaluation_images(reader: InputReader, count: int) -> Iterator[LabeledImage]:
    """Yields the first images of evaluation, with their groundtruth."""
    for images, labels in batches(reader.evaluation(batch_size=1, limit=count)):
        label = {name: column[0] for name, column in labels.items()}
        real = label["classes"].numpy() > 0  # the rest is padding
        boxes = (label["boxes_image"] / label["image_scale"]).numpy()[real]
        classes = label["classes"].numpy()[real]
        image = preprocess.unnormalize(images[0], **reader.config.colors).numpy()
        yield LabeledImage(image, boxes, classes, _title(label))


def first_samples(reader: InputReader, count: int) -> list[Sample]:
    """Returns the first decoded records with objects, or the first ones if there are none; repeated if too few."""
    records = tf.data.Dataset.range(len(reader.records.files)).flat_map(reader.records.read)
    decoded = records.map(functools.partial(reader.records.try_decode, tfrecord.decode))
    samples = decoded.filter(lambda _, is_valid: is_valid).map(lambda sample, _: sample)
    with_objects = samples.filter(lambda sample: tf.size(sample["classes"]) > 0)
    found = list(batches(with_objects.take(count))) or list(batches(samples.take(count)))
    return list(itertools.islice(itertools.cycle(found), count))


def operation_tiles(samples: Sequence[Sample], config: Config) -> list[LabeledImage]:
    """Returns the first sample, and the first sample after each operation; mosaic uses the other samples as well."""
    sample, *others = samples
    tiles = [_labeled(sample, config, _title(sample))]
    for title, operation in operations(others, config).items():
        draws = (operation(sample, seed=tf.constant([SEED, i])) for i in range(MAX_DRAWS))
        changed = next((draw for draw in draws if not np.array_equal(draw["image"], sample["image"])), None)
        tiles.append(_labeled(changed or sample, config, title if changed else f"{title}: no change"))
    return tiles


def operations(others: Sequence[Sample], config: Config) -> dict[str, Operation]:
    """Returns all augmentation operations by title; those of the policy at their highest level."""
    policy = autoaugment.POLICIES[config.autoaugment_policy] if config.autoaugment_policy else ()
    steps = sorted((name, level) for name, probability, level in itertools.chain(*policy) if probability > 0)
    table: dict[str, Operation] = {
        f"{name}, level {level}": functools.partial(autoaugment.apply, step=(name, ALWAYS, level))
        for name, level in dict(steps).items()  # the last level of each name
    }
    sizes = config.select("image_size", "keep_aspect_ratio")
    switched = {
        "grid_mask": (grid_mask, config.grid_mask),
        "mosaic": (lambda sample, seed: mosaic([sample, *others], seed, **sizes), config.mosaic),
        "input_rand_hflip": (random_flip, config.input_rand_hflip),
    }
    table |= {title if used else f"{title} (not in use)": operation for title, (operation, used) in switched.items()}
    factors = f"jitter {config.jitter_min:g} to {config.jitter_max:g}"
    windows = {
        f"{factors}, window {i + 1}": functools.partial(_jitter, config=config, number=i) for i in range(NUM_WINDOWS)
    }
    return table | windows


def _jitter(sample: Sample, seed: tf.Tensor, *, config: Config, number: int) -> Sample:
    """Returns the network input of a random window of scale jitter."""
    image_hw = tf.shape(sample["image"])[:2]
    window = window_chooser(config)(image_hw, tf.random.experimental.stateless_fold_in(seed, number))
    image = crop_image(sample["image"], window)
    image = preprocess.to_input(image, window.scaled_size, config.image_size, **config.colors)
    boxes = tf.clip_by_value(crop_boxes(sample["boxes_norm"], image_hw, window), 0.0, 1.0)
    share = tf.cast(window.scaled_size, tf.float32) / tf.constant(config.image_size, tf.float32)
    image = preprocess.unnormalize(image, **config.colors)
    return {**sample, "image": image, "boxes_norm": boxes * tf.tile(share, [2])}


def _labeled(sample: Sample, config: Config, title: str) -> LabeledImage:
    """Converts a sample, with the objects that training keeps."""
    image, boxes = sample["image"].numpy(), sample["boxes_norm"].numpy()
    height, width = image.shape[:2]
    kept = np.all(boxes[:, 2:] > boxes[:, :2], axis=-1)
    if config.skip_crowd_during_training:
        kept &= ~sample["is_crowd"].numpy()
    return LabeledImage(image, boxes[kept] * [height, width, height, width], sample["classes"].numpy()[kept], title)


def contact_sheet(tiles: Sequence[LabeledImage], names: Mapping[int, str]) -> np.ndarray:
    """Draws images of any size as tiles of one image, uint8 [H, W, 3], row by row, each below its title."""
    num_columns = math.ceil(math.sqrt(len(tiles)))
    num_rows = math.ceil(len(tiles) / num_columns)
    sheet = Image.new("RGB", (num_columns * TILE, num_rows * (TILE + CAPTION)), "white")
    font = ImageFont.load_default(14)
    for i, labeled in enumerate(tiles):
        tile = Image.new("RGB", (TILE, CAPTION + TILE), "white")  # clips a long title
        ImageDraw.Draw(tile).text((4, CAPTION // 2), labeled.title, "black", font, anchor="lm")
        tile.paste(Image.fromarray(_draw(resize(labeled, TILE - 4), names)), (2, CAPTION))
        sheet.paste(tile, (i % num_columns * TILE, i // num_columns * (CAPTION + TILE)))
    return np.array(sheet)


def resize(labeled: LabeledImage, side: int) -> LabeledImage:
    """Scales an image and its boxes so that the longer side is `side` pixels."""
    height, width = labeled.image.shape[:2]
    size = [max(1, round(length * side / max(height, width))) for length in (height, width)]
    image = np.array(Image.fromarray(labeled.image).resize(size[::-1], Image.Resampling.BILINEAR))
    return labeled._replace(image=image, boxes=labeled.boxes * np.tile(np.divide(size, (height, width)), 2))


def _draw(labeled: LabeledImage, names: Mapping[int, str]) -> np.ndarray:
    image, boxes, classes, _ = labeled
    return draw_boxes(image, boxes, classes, names=names, max_boxes_to_draw=len(boxes))


def _title(sample: Mapping[str, tf.Tensor]) -> str:
    return f"image {sample['source_id'].numpy().decode(errors='replace')}"
