# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Converts images with YOLO text labels into TFRecords, and writes COCO groundtruth and a label map.

    python dataset/create_yolo_tfrecord.py --data_yaml=coco128/data.yaml --split=train --output_path=data/train
    python dataset/create_yolo_tfrecord.py --data_yaml=coco128/data.yaml --split=val --output_path=data/val
    python dataset/create_yolo_tfrecord.py --data_yaml=shop/data.yaml --split=test --output_path=data/test \
        --num_shards=4 --max_bad_fraction=0.05
    python dataset/create_yolo_tfrecord.py --data_yaml=shop/classes.txt --image_dir=photos --output_path=data/all

The labels of images/train/a.jpg are read from labels/train/a.txt; if the path of an image contains no folder `images`,
from the same folder. Each line is one object, `class cx cy width height` or `class x1 y1 x2 y2 x3 y3 ...`, in fractions
of the image. Classes are numbered from 0 in labels and from 1 in records.
"""

import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dataset import command_line
from dataset.convert import command, yolo

FLAGS = flags.FLAGS


def define_flags() -> None:
    with command_line.group("Input"):
        flags.DEFINE_string(
            "data_yaml",
            None,
            "YAML file with path, train, val, test and names; Darknet's obj.data; or a list of names, classes.txt.",
            required=True,
        )
        flags.DEFINE_string(
            "split",
            None,
            "Key of data_yaml: train (default), val or test; for a list of names, subfolder of the images.",
        )
        flags.DEFINE_string(
            "image_dir",
            None,
            "Folder of the images, for a list of names; default: images beside it, or its own folder.",
        )
    with command_line.group("Output"):
        flags.DEFINE_string("output_path", None, "Path prefix of the output files, such as data/train.", required=True)
        flags.DEFINE_integer("num_shards", 32, "Number of TFRecord files.", lower_bound=1)
    command.define_flags()


@command.translate_errors()
def main() -> None:
    command.hide_gpus()
    source = yolo.load(FLAGS.data_yaml, FLAGS.split, image_dir=FLAGS.image_dir)
    command.convert(source, FLAGS.output_path, with_label_map=True)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
