# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Converts images with Pascal VOC annotations into TFRecords, and writes the same boxes as COCO groundtruth.

    python dataset/create_pascal_tfrecord.py --data_dir=VOCdevkit --year=VOC2012 --set=train --output_path=voc/train
    python dataset/create_pascal_tfrecord.py --data_dir=VOCdevkit --year=SHOP --set=all --collect_label_map \
        --output_path=shop/all --num_shards=8
    python dataset/create_pascal_tfrecord.py --data_dir=VOCdevkit --year=BCCD --set=test --output_path=bccd/test \
        --label_map_json_path=bccd/labels.json

The folder of a year contains Annotations/*.xml, JPEGImages/ and, for image sets, ImageSets/Main/*.txt. The images may
also be in images/ or beside the XML files, and the sets in subfolders such as train/. Classes other than VOC's require
--collect_label_map, or --label_map_json_path with a file such as {"RBC": 1, "WBC": 2}.
"""

import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dataset import command_line
from dataset import label_map as label_map_lib
from dataset.convert import command, pascal, shards
from dataset.convert.voc_set import VocSet
from dataset.files import check_local
from dataset.tfrecord import DataError

FLAGS = flags.FLAGS


def define_flags() -> None:
    with command_line.group("Input"):
        flags.DEFINE_string(
            "data_dir", None, "Folder that contains the folder of the year, such as VOCdevkit.", required=True
        )
        flags.DEFINE_string(
            "year", "VOC2007", "Folder in data_dir, '' for data_dir itself, or 'merged' for VOC2007 and VOC2012."
        )
        flags.DEFINE_string(
            "set",
            "train",
            "List in ImageSets/Main or, without lists, subfolder of the XML files: train, val, trainval, test or your "
            "own; or 'all'.",
        )
        flags.DEFINE_string(
            "annotations_dir",
            None,
            "Folder of the XML files, in the folder of the year; default: Annotations, or else that folder itself.",
        )
        flags.DEFINE_string(
            "image_dir",
            None,
            "Folder of the images; default: JPEGImages or images, or else the folder of the year itself.",
        )
        flags.DEFINE_integer(
            "num_images", None, "Number of images to convert, from the first; default: all.", lower_bound=1
        )
        flags.DEFINE_boolean("ignore_difficult_instances", False, "Leave out objects marked as difficult.")
    with command_line.group("Classes"):
        flags.DEFINE_string(
            "label_map_json_path", None, "JSON, YAML or .pbtxt file of names and ids from 1; default: VOC's."
        )
        flags.DEFINE_boolean(
            "collect_label_map", False, "Collect the classes of the annotations and write them as YAML."
        )
    with command_line.group("Output"):
        flags.DEFINE_string("output_path", None, "Path prefix of the output files, such as data/train.", required=True)
        flags.DEFINE_integer("num_shards", 100, "Number of TFRecord files.", lower_bound=1)
    command.define_flags()


@command.translate_errors()
def main() -> None:
    command.hide_gpus()
    check_local(FLAGS.data_dir, "--data_dir")
    check_local(FLAGS.image_dir or "", "--image_dir")
    years = ["VOC2007", "VOC2012"] if FLAGS.year == "merged" else [FLAGS.year]
    folders = (FLAGS.annotations_dir, FLAGS.image_dir)
    voc_sets = [VocSet(Path(FLAGS.data_dir, year), FLAGS.set, *folders) for year in years]
    if FLAGS.collect_label_map and FLAGS.label_map_json_path:
        raise DataError("expected one of --collect_label_map and --label_map_json_path, got both")
    label_map = label_map_lib.VOC
    if FLAGS.label_map_json_path:
        label_map = pascal.load_label_map(FLAGS.label_map_json_path)
    if FLAGS.collect_label_map:
        label_map = pascal.collect_label_map(voc_sets)
    source = pascal.load(
        voc_sets,
        label_map=label_map,
        ignore_difficult_instances=FLAGS.ignore_difficult_instances,
        num_images=FLAGS.num_images,
    )
    try:
        command.convert(source, FLAGS.output_path, with_label_map=False)
    except DataError as error:
        hint = "; use --label_map_json_path for other classes, or --collect_label_map for those of the annotations"
        raise DataError(f"{error}{hint if pascal.UNKNOWN_CLASS in str(error) else ''}") from error
    if FLAGS.collect_label_map:
        path = shards.write_label_map(FLAGS.output_path, label_map)
        print(
            f"wrote {path}; for other sets pass --label_map_json_path={path}, for training "
            f"--hparams=label_map={path},num_classes={max(label_map)}"
        )


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
