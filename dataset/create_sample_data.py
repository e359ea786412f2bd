# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Makes a dataset of circles, triangles and stars over textured backgrounds, with exact boxes, to test a detector.

    python dataset/create_sample_data.py --output_dir=data/train --prefix=train --num_images=800 --seed=1
    python dataset/create_sample_data.py --output_dir=data/val --prefix=val --num_images=200 --seed=2
    python dataset/create_sample_data.py --output_dir=data/wide --num_images=20 --image_size=640x360

The class of an object is its shape; size, colour, rotation, position and texture are independent of it. Some images are
empty. A seed gives the same images on every machine.
"""

import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dataset import command_line
from dataset.convert import command, sample_data
from dataset.tfrecord import DataError

FLAGS = flags.FLAGS


def define_flags() -> None:
    with command_line.group("Images"):
        flags.DEFINE_integer("num_images", 200, "Number of images.", lower_bound=1)
        flags.DEFINE_string("image_size", "160", "Pixels: the side of a square, or WxH.")
        flags.DEFINE_integer(
            "seed", 0, "Seed of the random images; training and validation need different ones.", lower_bound=0
        )
    with command_line.group("Output"):
        flags.DEFINE_string(
            "output_dir",
            None,
            "Folder for images/, annotations.json and TFRecords; use one per dataset.",
            required=True,
        )
        flags.DEFINE_string("prefix", "sample", "Prefix of the TFRecord names.")


def parse_image_size(text: str) -> tuple[int, int]:
    """Returns (height, width) for "160" or, as WxH, "640x480".

    Raises:
        DataError: for any other text, and for sides below 32 pixels, at which shapes are indistinguishable.
    """
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) >= 32 for side in sides):
        raise DataError(
            f"expected image_size as one side or WxH in pixels from 32, such as 160 or 640x480, got {text!r}"
        )
    return int(sides[-1]), int(sides[0])


@command.translate_errors()
def main() -> None:
    command.hide_gpus()
    report = sample_data.create(
        FLAGS.output_dir,
        num_images=FLAGS.num_images,
        image_size=parse_image_size(FLAGS.image_size),
        seed=FLAGS.seed,
        prefix=FLAGS.prefix,
    )
    print(report)
    shards = f"{FLAGS.prefix}-*-of-{sample_data.NUM_SHARDS:05d}.tfrecord"
    print(f"wrote {FLAGS.output_dir}/images, annotations.json and {shards}")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
