# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Checks TFRecords before training or evaluation; exit code 1 if that would be pointless.

    python dataset/check_tfrecords.py --file_pattern='voc/train-*' --hparams='num_classes=20,label_map=voc'
    python dataset/check_tfrecords.py --file_pattern='voc/val-*' --model_name=efficientdet-d0 \
        --hparams='num_classes=20,label_map=voc' --val_json_file=voc/json_val.json --output_dir=/tmp/check
    python dataset/check_tfrecords.py --file_pattern='coco/train-*' --hparams=label_map=coco --samples=5000

Prints statistics of the records and all findings. --output_dir receives report.json, box_sizes.png and counts.png.
"""

import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dataset import command_line, label_map
from efficientdet import config as config_lib

FLAGS = flags.FLAGS


def define_flags() -> None:
    with command_line.group("Records"):
        flags.DEFINE_string("file_pattern", None, "Glob of the records, in quotes.", required=True)
        flags.DEFINE_string("val_json_file", None, "COCO groundtruth with which these records are evaluated.")
        flags.DEFINE_integer("samples", None, "Approximate number of records to read; default: all.", lower_bound=1)
    with command_line.group("Model"):
        flags.DEFINE_string("model_name", config_lib.DEFAULT_MODEL, f"One of {', '.join(config_lib.MODELS)}.")
        flags.DEFINE_string("hparams", "", "Keys of efficientdet/config.py: a .yaml file, or 'k=v,label_map=voc'.")
    with command_line.group("Output"):
        flags.DEFINE_string("output_dir", None, "Folder for report.json and two plots; default: none is written.")


def main() -> None:
    config = config_lib.load(FLAGS.model_name, FLAGS.hparams)
    label_map.check(label_map.resolve(config.label_map), config.num_classes)
    # Imports TensorFlow, which takes seconds, after errors in the flags have been reported.
    from dataset import files
    from dataset.check import checks, data_report, json_checks, record_facts
    from dataset.check.finding import FATAL

    groundtruth = json_checks.load(FLAGS.val_json_file) if FLAGS.val_json_file else None
    if FLAGS.output_dir:
        files.check_folder(FLAGS.output_dir)  # before all records are read
    facts = record_facts.read(
        FLAGS.file_pattern, samples=FLAGS.samples, regenerate_source_id=config.regenerate_source_id, progress=True
    )
    statistics = data_report.compute_statistics(facts, config)
    if groundtruth:
        statistics["groundtruth"] = {"path": groundtruth.path, **groundtruth.counts}
    findings = checks.run(facts, config, groundtruth, anchors=statistics["anchors"])
    print(data_report.table(statistics, findings))
    if FLAGS.output_dir:
        data_report.write(FLAGS.output_dir, facts, config, statistics, findings)
    sys.exit(1 if any(finding.level == FATAL for finding in findings) else 0)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
