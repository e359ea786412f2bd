# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Draws images of TFRecords as read in training or evaluation, and one image after every augmentation operation.

    python dataset/inspect_tfrecords.py --file_pattern='voc/train-*' --hparams='num_classes=20,label_map=voc'
    python dataset/inspect_tfrecords.py --file_pattern='shop/train-*' --model_name=efficientdet-d0 \
        --hparams="label_map={1: 'cat', 2: 'dog'},autoaugment_policy=v3" --samples=10 --save_samples_dir=train_samples
    python dataset/inspect_tfrecords.py --file_pattern='voc/val-*' --eval --hparams='num_classes=20,label_map=voc'

Writes sample0.jpg, sample1.jpg, ..., which are network inputs with their boxes, and contact_sheet.jpg. The output is
deterministic.
"""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dataset import command_line
from efficientdet import config as config_lib

FLAGS = flags.FLAGS


def define_flags() -> None:
    with command_line.group("Records"):
        flags.DEFINE_string("file_pattern", None, "Glob of the records, in quotes.", required=True)
        flags.DEFINE_bool("eval", False, "Draw the images of evaluation: without augmentation, in file order.")
    with command_line.group("Model"):
        flags.DEFINE_string("model_name", config_lib.DEFAULT_MODEL, f"One of {', '.join(config_lib.MODELS)}.")
        flags.DEFINE_string("hparams", "", "Keys of efficientdet/config.py: a .yaml file, or 'k=v,label_map=voc'.")
    with command_line.group("Output"):
        flags.DEFINE_string("save_samples_dir", "tfrecord_samples", "Output folder; created if it does not exist.")
        flags.DEFINE_integer("samples", 10, "Number of images, besides the contact sheet.", lower_bound=1)


def check_joined_flags(argv: Sequence[str]) -> None:
    """Exits with the corrected command if `-eval` and the next flag are one word, as in published commands."""
    for i, word in enumerate(argv):
        joined = re.fullmatch(r"--?eval-+(\w+.*)", word, re.DOTALL)
        if joined:
            corrected = [*argv[:i], "--eval", f"--{joined[1]}", *argv[i + 1 :]]
            typed = word.partition("=")[0]
            sys.exit(f"error: {typed} is two flags in one word; type: python {' '.join(map(_quote, corrected))}")


def _quote(word: str) -> str:
    """Quotes a word for a shell, in double quotes if it contains single ones, as a label map does."""
    return f'"{word}"' if "'" in word and not re.search(r'["$`\\!]', word) else shlex.quote(word)


def main() -> None:
    config = config_lib.load(FLAGS.model_name, FLAGS.hparams)
    # Imports TensorFlow, which takes seconds, after errors in the flags have been reported.
    from dataset.check import inspection

    folder = FLAGS.save_samples_dir.rstrip("/") or "/"
    inspection.run(FLAGS.file_pattern, folder, config, samples=FLAGS.samples, evaluation=FLAGS.eval)


if __name__ == "__main__":
    check_joined_flags(sys.argv)
    define_flags()
    command_line.run(main)
