# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Tells what is wrong with records before a training over them; exit code 1 where it would be pointless.

    python dataset/check_tfrecords.py --file_pattern='voc/train-*' --hparams='num_classes=20,label_map=voc'
    python dataset/check_tfrecords.py --file_pattern='voc/val-*' --model_name=efficientdet-d0 \
        --hparams='num_classes=20,label_map=voc' --val_json_file=voc/json_val.json --output_dir=/tmp/check
    python dataset/check_tfrecords.py --file_pattern='coco/train-*' --hparams=configs/coco.yaml --samples=5000

Prints a table of the data and of all findings. With --output_dir, report.json, box_sizes.png and counts.png go there.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as in main.py

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dataset import command_line, label_map
from efficientdet import config as config_lib

FLAGS = flags.FLAGS


def define_flags() -> None:
    with command_line.group("Records"):
        flags.DEFINE_string("file_pattern", None, "Glob of the records, in quotes.", required=True)
        flags.DEFINE_string("val_json_file", None, "COCO groundtruth with which these records are evaluated.")
        flags.DEFINE_integer("samples", None, "About how many records to read; default: all.", lower_bound=1)
    with command_line.group("Model"):
        flags.DEFINE_string("model_name", "efficientdet-d0", f"One of {', '.join(config_lib.MODELS)}.")
        flags.DEFINE_string("hparams", "", "Keys of efficientdet/config.py: a .yaml file, or 'k=v,label_map=voc'.")
    with command_line.group("Output"):
        flags.DEFINE_string("output_dir", None, "Folder for report.json and two plots; default: none is written.")


def main() -> None:
    config = config_lib.load(FLAGS.model_name, FLAGS.hparams)
    label_map.check(label_map.resolve(config.label_map), config.num_classes)
    fatal = check(
        FLAGS.file_pattern,
        config,
        val_json_file=FLAGS.val_json_file,
        output_dir=FLAGS.output_dir,
        samples=FLAGS.samples,
    )
    sys.exit(1 if fatal else 0)


def check(
    file_pattern: str,
    config: config_lib.Config,
    *,
    val_json_file: str | None = None,
    output_dir: str | None = None,
    samples: int | None = None,
) -> bool:
    """Prints the table, writes the files, and returns whether a finding is fatal; arguments as the flags.

    Raises:
        DataError: if no file matches, or the JSON is not groundtruth.
    """
    from dataset.check import checks, json_checks, record_facts  # TensorFlow: a typing error answers before
    from dataset.check import data_report as report_lib
    from dataset.check.finding import FATAL

    groundtruth = json_checks.load(val_json_file) if val_json_file else None
    if output_dir:
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)  # before all records are read
    facts = record_facts.read(
        file_pattern, samples=samples, regenerate_source_id=config.regenerate_source_id, progress=True
    )
    figures = report_lib.figures(facts, config)
    findings = checks.run(facts, config, groundtruth, anchors=figures["anchors"])
    print(report_lib.table(figures, findings))
    if output_dir:
        report = {**figures, "findings": [finding._asdict() for finding in findings]}
        folder.joinpath("report.json").write_text(json.dumps(report, indent=2), "utf-8")
        report_lib.plot_sizes(facts, config, folder / "box_sizes.png")
        report_lib.plot_counts(figures, folder / "counts.png")
    return any(finding.level == FATAL for finding in findings)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
