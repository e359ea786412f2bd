# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Draws what training sees of TFRecords, and one image under every operation of the augmentation.

    python dataset/inspect_tfrecords.py --file_pattern='voc/train-*' --hparams='num_classes=20,label_map=voc'
    python dataset/inspect_tfrecords.py --file_pattern='shop/train-*' --model_name=efficientdet-d0 \
        --hparams="label_map={1: 'cat', 2: 'dog'},autoaugment_policy=v3" --samples=10 --save_samples_dir=train_samples
    python dataset/inspect_tfrecords.py --file_pattern='voc/val-*' --eval --hparams='num_classes=20,label_map=voc'

Writes sample0.jpg and on, network inputs with the boxes that they are labelled with, after augmentation, and
contact_sheet.jpg. Every run draws the same.
"""

import functools
import itertools
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# Before TensorFlow is imported: level 3 keeps back notes about the CPU. What really fails is raised.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import flags
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dataset import command_line, tfrecord
from dataset import label_map as label_map_lib
from dataset.augment import autoaugment
from dataset.augment.flip import random_flip
from dataset.augment.gridmask import grid_mask
from dataset.augment.mosaic import NUM_IMAGES, mosaic
from dataset.dataloader import InputReader, batches, window_chooser
from dataset.files import reason_of
from dataset.tfrecord import Sample
from dataset.visualize import draw_boxes
from dataset.window import crop_boxes, crop_image
from efficientdet import config as config_lib
from efficientdet import preprocess
from efficientdet.config import Config

FLAGS = flags.FLAGS
SEED = 0
JPEG_OPTIONS = {"quality": 95, "subsampling": 0}

# The contact sheet.
TILE = 320  # pixels a side
CAPTION = 24  # pixels above a tile
NUM_WINDOWS = 3  # of scale jitter
ALWAYS = 3.0  # a probability of which even a third, which `_Only_BBoxes` take, is one
MOST_DRAWS = 20  # until an operation that may leave the image alone has changed it

Operation = Callable[[Sample, tf.Tensor], Sample]  # (sample, seed) -> sample


class Picture(NamedTuple):
    """An image and its objects, as they are drawn."""

    image: np.ndarray  # uint8 [H, W, 3]
    boxes: np.ndarray  # [K, 4], [ymin, xmin, ymax, xmax] in pixels of image
    classes: np.ndarray  # [K]
    title: str


def define_flags() -> None:
    with command_line.group("Records"):
        flags.DEFINE_string("file_pattern", None, "Glob of the records, in quotes.", required=True)
        flags.DEFINE_bool("eval", False, "Draws what evaluation sees: without augmentation, in the order of the files.")
    with command_line.group("Model"):
        flags.DEFINE_string("model_name", "efficientdet-d0", f"One of {', '.join(config_lib.MODELS)}.")
        flags.DEFINE_string("hparams", "", "Keys of efficientdet/config.py: a .yaml file, or 'k=v,label_map=voc'.")
    with command_line.group("Output"):
        flags.DEFINE_string("save_samples_dir", "tfrecord_samples", "Folder for the pictures; it is made.")
        flags.DEFINE_integer("samples", 10, "Pictures to draw, the contact sheet apart.", lower_bound=1)


def run(file_pattern: str, folder: Path, config: Config, *, samples: int, evaluation: bool = False) -> None:
    """Writes the pictures and the contact sheet, and prints a line for each.

    Args:
        file_pattern: glob of the records.
        folder: where to.
        config: image size, colors, augmentation, label_map.
        samples: number of pictures; evaluation draws fewer where there are fewer records.
        evaluation: whether to draw what evaluation sees, instead of training.

    Raises:
        ValueError: if no file matches, the records do not fit the config or are damaged, or label_map is wrong.
    """
    names = label_map_lib.resolve(config.label_map)
    label_map_lib.check(names, config.num_classes)
    reader = InputReader(file_pattern, config)
    folder.mkdir(parents=True, exist_ok=True)
    num_written = num_empty = 0
    for picture in (evaluation_pictures if evaluation else training_pictures)(reader, samples):
        path = folder / f"sample{num_written}.jpg"
        print(f"writing {path}: {picture.title}, boxes: {len(picture.boxes)}", flush=True)
        Image.fromarray(_draw(picture, names)).save(path, **JPEG_OPTIONS)
        num_written += 1
        num_empty += len(picture.boxes) == 0
    if num_written < samples:
        print(f"there are only {num_written} images for the {samples} samples that were asked for")

    path = folder / "contact_sheet.jpg"
    tiles = contact_pictures(first_samples(reader, NUM_IMAGES), config)
    print(f"writing {path}: {len(tiles)} tiles, of {tiles[0].title}", flush=True)
    Image.fromarray(contact_sheet(tiles, names)).save(path, **JPEG_OPTIONS)
    print(f"wrote {num_written} pictures, {num_empty} of them without boxes, and a contact sheet to {folder}")


def training_pictures(reader: InputReader, count: int) -> Iterator[Picture]:
    """The first images that training would see, with the boxes that become targets."""
    for example in batches(reader.augmented(SEED).take(count)):
        boxes, classes = example["boxes"].numpy(), example["classes"].numpy()
        yield Picture(_picture_of(example["image"], reader.config), boxes, classes, _title(example))


def evaluation_pictures(reader: InputReader, count: int) -> Iterator[Picture]:
    """The first images of the files as evaluation sees them, with the groundtruth that it compares with."""
    for images, labels in batches(reader.evaluation(batch_size=1, limit=count)):
        one = {name: column[0] for name, column in labels.items()}
        real = one["classes"].numpy() > 0  # the rest is padding
        boxes = (one["boxes_image"] / one["image_scale"]).numpy()[real]
        yield Picture(_picture_of(images[0], reader.config), boxes, one["classes"].numpy()[real], _title(one))


def first_samples(reader: InputReader, count: int) -> list[Sample]:
    """The first images with objects, whole, as they are in the files; those there are again where they are too few.

    If no image has an object, it is the first images.
    """
    records = tf.data.Dataset.range(len(reader.records.files)).flat_map(reader.records.read)
    attempts = records.map(functools.partial(reader.records.attempt, tfrecord.decode))
    samples = attempts.filter(lambda _, is_good: is_good).map(lambda sample, _: sample)
    with_objects = samples.filter(lambda sample: tf.size(sample["classes"]) > 0)
    found = list(batches(with_objects.take(count))) or list(batches(samples.take(count)))
    return list(itertools.islice(itertools.cycle(found), count))


def contact_pictures(samples: Sequence[Sample], config: Config) -> list[Picture]:
    """The first sample as it is, and under each operation; the others are put together with it by mosaic."""
    sample, *others = samples
    pictures = [_picture_after(sample, config, _title(sample))]
    for title, operation in operations(others, config).items():
        draws = (operation(sample, seed=tf.constant([SEED, i])) for i in range(MOST_DRAWS))
        changed = next((draw for draw in draws if not np.array_equal(draw["image"], sample["image"])), None)
        pictures.append(_picture_after(changed or sample, config, title if changed else f"{title}: no change"))
    return pictures


def operations(others: Sequence[Sample], config: Config) -> dict[str, Operation]:
    """What augmentation may do to an image, by title: those of the policy, each at its highest level, and the rest."""
    levels: dict[str, int] = {}
    policy = autoaugment.POLICIES[config.autoaugment_policy] if config.autoaugment_policy else ()
    for name, probability, level in itertools.chain(*policy):
        if probability > 0:
            levels[name] = max(level, levels.get(name, 0))
    table: dict[str, Operation] = {
        f"{name}, level {level}": functools.partial(autoaugment.apply, step=(name, ALWAYS, level))
        for name, level in sorted(levels.items())
    }

    def put_together(sample: Sample, seed: tf.Tensor) -> Sample:
        return mosaic([sample, *others], seed, image_size=config.image_size)

    rest = {
        "grid_mask": (grid_mask, config.grid_mask),
        "mosaic": (put_together, config.mosaic),
        "input_rand_hflip": (random_flip, config.input_rand_hflip),
    }
    table |= {title if used else f"{title} (not in use)": operation for title, (operation, used) in rest.items()}
    factors = f"jitter {config.jitter_min:g} to {config.jitter_max:g}"
    for i in range(NUM_WINDOWS):
        table[f"{factors}, window {i + 1}"] = functools.partial(_jittered, config=config, number=i)
    return table


def _jittered(sample: Sample, seed: tf.Tensor, *, config: Config, number: int) -> Sample:
    """The network input of a window that scale jitter draws."""
    image_hw = tf.shape(sample["image"])[:2]
    window = window_chooser(config)(image_hw, tf.random.experimental.stateless_fold_in(seed, number))
    image = crop_image(sample["image"], window)
    image = preprocess.to_input(image, window.scaled_size, config.image_size, **config.colors)
    boxes = tf.clip_by_value(crop_boxes(sample["boxes_norm"], image_hw, window), 0.0, 1.0)
    share = tf.cast(window.scaled_size, tf.float32) / tf.constant(config.image_size, tf.float32)
    image = preprocess.unnormalize(image, **config.colors)
    return {**sample, "image": image, "boxes_norm": boxes * tf.tile(share, [2])}


def _picture_after(sample: Sample, config: Config, title: str) -> Picture:
    """A sample with the objects that are left of it to train on."""
    image, boxes = sample["image"].numpy(), sample["boxes_norm"].numpy()
    height, width = image.shape[:2]
    left = np.all(boxes[:, 2:] > boxes[:, :2], axis=-1)
    if config.skip_crowd_during_training:
        left &= ~sample["is_crowd"].numpy()
    return Picture(image, boxes[left] * [height, width, height, width], sample["classes"].numpy()[left], title)


def contact_sheet(pictures: Sequence[Picture], names: Mapping[int, str]) -> np.ndarray:
    """Pictures of any size as tiles of a sheet, row by row, each with its title above.

    Returns:
        uint8 [H, W, 3].
    """
    num_columns = math.ceil(math.sqrt(len(pictures)))
    num_rows = math.ceil(len(pictures) / num_columns)
    sheet = Image.new("RGB", (num_columns * TILE, num_rows * (TILE + CAPTION)), "white")
    font = ImageFont.load_default(14)
    for i, picture in enumerate(pictures):
        tile = Image.new("RGB", (TILE, CAPTION + TILE), "white")  # so that a long title ends where the tile does
        ImageDraw.Draw(tile).text((4, CAPTION // 2), picture.title, "black", font, anchor="lm")
        tile.paste(Image.fromarray(_draw(_fitted(picture, TILE - 4), names)), (2, CAPTION))
        sheet.paste(tile, (i % num_columns * TILE, i // num_columns * (CAPTION + TILE)))
    return np.array(sheet)


def _fitted(picture: Picture, side: int) -> Picture:
    """The picture scaled so that its longer side is `side` pixels."""
    height, width = picture.image.shape[:2]
    size = [max(1, round(length * side / max(height, width))) for length in (height, width)]
    image = np.array(Image.fromarray(picture.image).resize(size[::-1], Image.Resampling.BILINEAR))
    return picture._replace(image=image, boxes=picture.boxes * np.tile(np.divide(size, (height, width)), 2))


def _draw(picture: Picture, names: Mapping[int, str]) -> np.ndarray:
    image, boxes, classes, _ = picture
    return draw_boxes(image, boxes, classes, names=names, max_boxes_to_draw=len(boxes))


def _picture_of(network_input: tf.Tensor, config: Config) -> np.ndarray:
    return preprocess.unnormalize(network_input, **config.colors).numpy()


def _title(sample: Mapping[str, tf.Tensor]) -> str:
    return f"image {sample['source_id'].numpy().decode(errors='replace')}"


def check_words(argv: Sequence[str]) -> None:
    """Exits with the corrected command where `-eval` and the next flag are one word, as they have been published."""
    for i, word in enumerate(argv):
        joined = re.fullmatch(r"--?eval-+(\w+.*)", word, re.DOTALL)
        if joined:
            corrected = [*argv[:i], "--eval", f"--{joined[1]}", *argv[i + 1 :]]
            typed = word.partition("=")[0]
            sys.exit(f"error: {typed} is two flags in one word; type: python {' '.join(map(_quoted, corrected))}")


def _quoted(word: str) -> str:
    """A word as it is typed in a shell, in double quotes where they do, as a label map has single ones inside."""
    return f'"{word}"' if "'" in word and not re.search(r'["$`\\!]', word) else shlex.quote(word)


def main() -> None:
    try:
        config = config_lib.load(FLAGS.model_name, FLAGS.hparams)
        folder = Path(FLAGS.save_samples_dir)
        run(FLAGS.file_pattern, folder, config, samples=FLAGS.samples, evaluation=FLAGS.eval)
    except tf.errors.OpError as error:  # files that cannot be read
        raise tfrecord.DataError(reason_of(error)) from error


if __name__ == "__main__":
    check_words(sys.argv)
    define_flags()
    command_line.run(main)
