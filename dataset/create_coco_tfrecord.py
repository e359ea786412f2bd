# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Converts images with COCO annotations into TFRecords. Ids of images and categories are kept.

    python dataset/create_coco_tfrecord.py --image_dir=train2017 --output_file_prefix=coco/train \
        --object_annotations_file=annotations/instances_train2017.json
    python dataset/create_coco_tfrecord.py --image_dir=test2017 --output_file_prefix=coco/testdev \
        --image_info_file=annotations/image_info_test-dev2017.json
    python dataset/create_coco_tfrecord.py --image_dir=shop --output_file_prefix=shop/train --include_masks \
        --object_annotations_file=shop.json --num_shards=8 --consecutive_ids

The second command converts images without annotations. The third numbers the categories from 1, for files with large
ids or a category 0. Ids are integers; 7, 7.0 and "7" are the same id.
"""

import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dataset import command_line
from dataset.convert import coco, command

FLAGS = flags.FLAGS


def define_flags() -> None:
    with command_line.group("Input, at least one of the three JSON files"):
        flags.DEFINE_string("image_dir", None, "Folder of the images.", required=True)
        flags.DEFINE_string("object_annotations_file", "", "JSON with boxes, such as instances_train2017.json.")
        flags.DEFINE_string("caption_annotations_file", "", "JSON with captions, such as captions_train2017.json.")
        flags.DEFINE_string("image_info_file", "", "JSON that lists images, such as image_info_test-dev2017.json.")
    with command_line.group("Output"):
        flags.DEFINE_string("output_file_prefix", "/tmp/train", "Path prefix of the output files, such as coco/train.")
        flags.DEFINE_integer("num_shards", 32, "Number of TFRecord files.", lower_bound=1)
        flags.DEFINE_boolean("include_masks", False, "Also write instance masks, as PNG.")
        flags.DEFINE_boolean(
            "consecutive_ids",
            False,
            "Number the categories from 1, in the order of their ids. The label map lists both ids, and "
            "json_{name}.json is the COCO groundtruth with the new ids, for --val_json_file. The files of all splits "
            "must list the same categories. Category 0 becomes a class, unless it is called background, or is the "
            "supercategory of others and has no box.",
        )
    command.define_flags()


@command.translate_errors()
def main() -> None:
    command.hide_gpus()
    source = coco.load(
        FLAGS.image_dir,
        image_info_file=FLAGS.image_info_file,
        object_annotations_file=FLAGS.object_annotations_file,
        caption_annotations_file=FLAGS.caption_annotations_file,
        consecutive_ids=FLAGS.consecutive_ids,
    )
    prefix, has_classes = FLAGS.output_file_prefix, bool(source.label_map)
    command.convert(source, prefix, with_label_map=has_classes, include_masks=FLAGS.include_masks)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
