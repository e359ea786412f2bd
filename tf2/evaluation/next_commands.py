# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The commands that come after a training: detect, export, train longer."""

import os
import re
import shlex
from collections.abc import Sequence

from absl import logging

from dataset.file_access import is_remote
from efficientdet.config import Config
from tf2.evaluation import training_report
from tf2.training.model_dir import ARCHIVE, ModelDir
from tf2.weights import checkpoint

NUM_EPOCHS = re.compile(r"--?num_epochs(=.*)?", re.DOTALL)


def log(model_dir: str, argv: Sequence[str]) -> None:
    """Logs the commands, see `after_training`."""
    for purpose, command in after_training(model_dir, argv).items():
        logging.info("next, to %s:\n  %s", purpose, command)


def after_training(model_dir: str, argv: Sequence[str]) -> dict[str, str]:
    """Returns commands for a shell by purpose, for the best checkpoint of a training that is complete.

    Args:
        model_dir: local or remote directory of the training run.
        argv: its command line, beginning with the path of main.py.
    """
    folder, directory = os.path.dirname(argv[0]), ModelDir(model_dir)
    example = os.path.join(model_dir, training_report.FOLDER, training_report.EXAMPLE)
    if is_remote(example) or not os.path.exists(example):  # images to detect in are local
        example = os.path.join(folder, "testdata", "img1.jpg")
    weights = os.path.join(model_dir, ARCHIVE) if directory.archived() else model_dir
    inspect = ["python", os.path.join(folder, "model_inspect.py"), f"--ckpt_path={weights}"]
    detections = os.path.join(model_dir, "detections")
    detect = [*inspect, "--runmode=infer", f"--input_image={example}", f"--output_image_dir={detections}"]
    export = [*inspect, "--runmode=saved_model", f"--saved_model_dir={os.path.join(model_dir, 'saved_model')}"]
    commands = {"detect objects in images": detect, "export the detector": export}
    if config := directory.read_config():
        purpose = "train longer"
        if _stopped_early(model_dir, config):
            purpose += f", with a larger early_stop_patience than {config.early_stop_patience}, which ended this run"
        commands[purpose] = ["python", *_with_num_epochs(argv, 2 * config.num_epochs)]
    return {purpose: shlex.join(command) for purpose, command in commands.items()}


def _with_num_epochs(argv: Sequence[str], num_epochs: int) -> list[str]:
    """Returns the command line with another --num_epochs."""
    kept, is_value = [], False
    for word in argv:
        match = None if is_value else NUM_EPOCHS.fullmatch(word)
        if not match and not is_value:
            kept.append(word)
        is_value = bool(match and not match[1])  # the next word of "--num_epochs 40"
    return [*kept, f"--num_epochs={num_epochs}"]


def _stopped_early(model_dir: str, config: Config) -> bool:
    """Returns True if a training ended before its last step because its AP no longer rose."""
    if not config.early_stop_patience:
        return False
    newest = checkpoint.find(model_dir)
    return checkpoint.step_of(newest) < checkpoint.read_entries(newest, ["training/last_step"])["training/last_step"]
