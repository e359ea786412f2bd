# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs main.py or model_inspect.py in this process up to the construction of the network."""

from absl import flags

import main
import model_inspect
from dataset import command_line
from tf2.evaluation import follow
from tf2.export import checkpoints, export
from tf2.inference import drivers
from tf2.training import train


class Built(Exception):
    """A network is built; its argument is the config."""


def patch(monkeypatch):
    """Makes the construction of every network raise Built."""

    def build(config, *args, **options):
        raise Built(config)

    for module in (drivers, export, checkpoints):
        monkeypatch.setattr(module, "KerasDriver", build)
    monkeypatch.setattr(drivers, "ArtifactDriver", build)
    monkeypatch.setattr(follow, "EfficientDetNet", build)
    monkeypatch.setattr(train, "Trainer", build)


def run(words):
    """Runs a command, whose network must be patched.

    Args:
        words: script and flags.
    """
    module = main if words[0] == "main.py" else model_inspect
    groups, before = command_line.GROUPS[:], set(flags.FLAGS)
    try:
        module.define_flags()
        command_line.parse(words)
        if module is model_inspect:
            model_inspect.MODES[flags.FLAGS.runmode](model_inspect.load_config())
        else:
            main.main()
    finally:
        command_line.GROUPS[:] = groups
        flags.FLAGS.remove_flag_values(set(flags.FLAGS) - before)
        flags.FLAGS.unparse_flags()
