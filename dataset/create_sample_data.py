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
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as in main.py

from absl import flags
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dataset import command_line, create_coco_tfrecord, scenes
from dataset.convert import shards
from dataset.convert.conversion_report import Report
from dataset.tfrecord import DataError

FLAGS = flags.FLAGS
NUM_SHARDS = 4


def define_flags() -> None:
    with command_line.group("Pictures"):
        flags.DEFINE_integer("num_images", 200, "Pictures to make.", lower_bound=1)
        flags.DEFINE_string("image_size", "160", "Pixels: one side of a square, or WxH.")
        flags.DEFINE_integer("seed", 0, "Another seed, other pictures.", lower_bound=0)
    with command_line.group("Output"):
        flags.DEFINE_string("output_dir", None, "Folder for images/, annotations.json and TFRecords.", required=True)
        flags.DEFINE_string("prefix", "sample", "What the TFRecord names begin with; one set of pictures a folder.")


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
        scene, image_id = scenes.make_scene(seed, index, image_size), index + 1
        height, width = image_size
        images.append({"id": image_id, "file_name": f"{image_id:06d}.jpg", "height": height, "width": width})
        Image.fromarray(scene.image).save(images_dir / images[-1]["file_name"], **scenes.JPEG_OPTIONS)
        for class_id, box in zip(scene.classes.tolist(), scene.boxes.tolist(), strict=True):
            annotations.append(_coco_annotation(len(annotations) + 1, image_id, class_id, box))
    _remove_others(images_dir, {image["file_name"] for image in images})
    categories = [{"id": class_id, "name": name} for class_id, name in scenes.CLASS_NAMES.items()]
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
    shards.hide_gpus()
    with shards.plain_ending():
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
