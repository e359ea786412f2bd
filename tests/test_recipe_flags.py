# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of recipes on the command line of main.py, up to the start of the training."""

import pathlib

import pytest
from absl import flags

import main
from dataset import command_line
from tf2.training import train

SAMPLE = pathlib.Path(__file__).parents[1] / "testdata" / "sample.tfrecord"


@pytest.fixture
def start(tmp_path, monkeypatch):
    """A function: flags -> config and training with which the training starts."""
    monkeypatch.setattr(train, "run", lambda config, training, *args, **options: started.append((config, training)))
    started, groups, before = [], command_line.GROUPS[:], set(flags.FLAGS)

    def run(*words):
        words = ["--mode=train", "--model_name=efficientdet-lite0", f"--train_file_pattern={SAMPLE}", *words]
        command_line.parse(["main.py", *words, f"--model_dir={tmp_path / 'run'}"])
        main.main()
        return started.pop()

    main.define_flags()
    yield run
    command_line.GROUPS[:] = groups
    flags.FLAGS.remove_flag_values(set(flags.FLAGS) - before)
    flags.FLAGS.unparse_flags()


@pytest.mark.parametrize(
    "words, expected",
    [
        ([], ("published", "sgd", 0.08, 300, 1, 64)),
        (["--hparams=recipe=published", "--num_epochs=3"], ("published", "sgd", 0.08, 3, 1, 64)),
        (["--hparams=recipe=finetune"], ("finetune", "adam", 0.064, 300, 30, 8)),
        (["--hparams=recipe=finetune,num_epochs=20,optimizer=sgd"], ("finetune", "sgd", 0.064, 20, 2, 8)),
        (["--hparams=recipe=finetune", "--num_epochs=9"], ("finetune", "adam", 0.064, 9, 1, 8)),
        (["--hparams=recipe=finetune,map_freq=5", "--train_batch_size=2"], ("finetune", "adam", 0.064, 300, 5, 2)),
    ],
)
def test_recipe_of_a_command(start, words, expected):
    config, training = start(*words)
    assert (*(config.recipe, config.optimizer, config.learning_rate), config.num_epochs, config.map_freq) == expected[
        :5
    ]
    assert training.batch_size == expected[5]
