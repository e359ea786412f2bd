# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""command_line: what every script answers to --help, --version and to what is typed wrong."""

import contextlib
import importlib
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from absl import flags, logging
from test_readme import TYPED, commands, flags_of, name_of

from dataset import command_line
from efficientdet import config as config_lib
from tf2.training import model_dir

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = ["main.py", "model_inspect.py"]
SCRIPTS += [
    name_of(path)
    for folder in ("dataset", "tf2", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.read_text().endswith("    command_line.run(main)\n")
]


def type_(script, *words, cwd=ROOT, columns=100):
    """Runs a script in a terminal of so many columns."""
    environment = {**os.environ, "COLUMNS": str(columns)}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *words], capture_output=True, text=True, cwd=cwd, env=environment
    )


@pytest.fixture(scope="module", params=SCRIPTS)
def helped(request):
    """A script and what it prints for --help."""
    result = type_(request.param, "--help")
    assert result.returncode == 0, result.stderr
    return request.param, result.stdout


def test_scripts_are_found():
    assert {"main.py", "dataset/create_coco_tfrecord.py", "tf2/benchmarks/metric.py", "tests/kill_training.py"} <= set(
        SCRIPTS
    )


def test_every_flag_stands_in_the_help_once(helped):
    script, text = helped
    shown = re.findall(r"^  --(?:\[no\])?(\w+)", text, re.MULTILINE)
    assert sorted(shown) == sorted(flags_of(script))
    assert all(len(line) <= 100 for line in text.split("\n\nWhat", 1)[-1].splitlines() if line.startswith("  --"))


def test_help_has_examples_whose_flags_exist(helped):
    script, text = helped
    joined = re.sub(r"\\\n\s*", "", text)
    examples = re.findall(rf"^    (?:taskset -c 0 )?python {re.escape(script)}(.*)$", joined, re.MULTILINE)
    assert len(examples) >= (1 if script.startswith("tests/") else 3)
    for example in examples:
        assert set(re.findall(r"(?:^| )--(\w+)", example)) <= flags_of(script)


@contextlib.contextmanager
def defined(name):
    """A script as a module, with its flags defined for the time of the block."""
    groups, before = command_line.GROUPS[:], set(flags.FLAGS)
    module = importlib.import_module(name)
    try:
        module.define_flags()
        yield module
    finally:
        command_line.GROUPS[:] = groups
        flags.FLAGS.remove_flag_values(set(flags.FLAGS) - before)
        flags.FLAGS.unparse_flags()


@pytest.fixture(params=["main", "model_inspect"])
def script(request):
    with defined(request.param) as module:
        yield module


@pytest.mark.parametrize("path", TYPED, ids=name_of)
def test_commands_of_documents_are_read_with_their_values(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name, *words in commands(path):
        with defined(name.removesuffix(".py").replace("/", ".")) as module:
            command_line.parse([name, *words])
            if name in SCRIPTS[:2] and "--hparams=shop.yaml" not in words:
                assert module.load_config().name.startswith("efficientdet-")


def test_examples_of_main_and_model_inspect_are_right(script, monkeypatch):
    told = []
    monkeypatch.setattr(logging, "warning", lambda *words: told.append(words))
    monkeypatch.chdir(ROOT)
    examples = re.findall(r"^    python (.*)$", re.sub(r"\\\n\s*", "", script.__doc__), re.MULTILINE)
    assert len(examples) == 3
    for example in examples:
        flags.FLAGS.unparse_flags()
        command_line.parse(shlex.split(example))
        assert script.load_config().name.startswith("efficientdet-d")
    assert told == []


@pytest.mark.parametrize("script", ["model_inspect"], indirect=True)
def test_what_is_drawn_follows_flags_then_hparams_then_defaults(script, tmp_path):
    model_dir.ModelDir(str(tmp_path)).write_config(config_lib.load("efficientdet-d0"))
    of_training, own = f"--hparams={tmp_path / 'config.yaml'}", "nms_configs.max_output_size=300"
    for words, expected in (
        ([], ("hard", 0.4, 100)),
        ([of_training], ("hard", 0.4, 100)),  # whose gaussian suppression nobody asked for
        ([f"--hparams={own},nms_configs.score_thresh=0.1"], ("hard", 0.1, 300)),
        ([f"--hparams={own},nms_configs.method=gaussian"], ("gaussian", 0.4, 300)),
        ([f"--hparams={own}", "--max_boxes_to_draw=7", "--min_score_thresh=0"], ("hard", 0, 7)),
    ):
        flags.FLAGS.unparse_flags()
        command_line.parse(["model_inspect.py", "--runmode=bm", *words])
        config = script.load_config()
        drawing = script.drawing(config)
        found = config.nms_configs.method, drawing["min_score_thresh"], drawing["max_boxes_to_draw"]
        assert found == expected, words


def test_help_fits_terminals_of_any_width(script):
    for columns in (60, 110):
        shown = command_line.help_text("", columns).splitlines()
        assert max(len(line) for line in shown if not line.lstrip().startswith("--")) <= columns
    assert any("efficientdet-lite3x," in line for line in shown)


def test_groups_tell_modes_units_and_defaults():
    text = type_("main.py", "--help").stdout
    assert "\nTraining (train, train_and_eval):\n" in text
    assert re.search(r"--train_batch_size=N +Images a training step, on all devices together\. \(default: 64\)", text)
    assert re.search(r"--mode=train\|eval\|train_and_eval\n +Trains, evaluates", text)
    assert type_("main.py", "--help", columns=10).stdout.startswith("Trains and evaluates")
    assert "--[no]eval_after_train" in text and "(default: False)" not in text and "(default: None)" not in text


@pytest.mark.parametrize("script", ["main.py", "model_inspect.py", "dataset/check_tfrecords.py"])
def test_version(script):
    result = type_(script, "--version")
    assert result.returncode == 0
    assert re.fullmatch(
        rf"efficientdet-tf2 {config_lib.VERSION}, Python 3\.\d+\.\d+, TensorFlow 2\.\d+\.\d+\n", result.stdout
    )


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--model_nme=x"], "error: Unknown command line flag 'model_nme'. Did you mean: model_name (--help lists"),
        (["--train_batch_size=x"], "error: flag --train_batch_size=x: invalid literal for int()"),
        (["--train_batch_size=0"], "error: flag --train_batch_size=0: 0 is not a positive integer"),
        (["--mode=trian"], "error: flag --mode=trian: value should be one of <train|eval|train_and_eval>"),
        (["train"], "error: unexpected arguments ['train']; every option starts with --"),
    ],
)
def test_what_is_typed_wrong_is_one_sentence(words, sentence):
    result = type_("main.py", *words)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith(sentence) and result.stderr.count("\n") == 1


def test_flags_of_other_modes_are_told(monkeypatch):
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    monkeypatch.setattr(command_line, "GROUPS", [])
    with command_line.group("Any"):
        flags.DEFINE_string("a", None, "A.", flag_values=values)
    with command_line.group("Some", ["draw", "write"]):
        flags.DEFINE_string("b", None, "B.", flag_values=values)
        flags.DEFINE_integer("c", 1, "C.", flag_values=values)
    assert [group.names for group in command_line.GROUPS] == [("a",), ("b", "c")]
    command_line.parse(["script", "--a=1", "--b=2"])
    assert command_line.unused("draw") == [] and command_line.unused("train") == ["b"]


def test_flags_without_an_effect_in_a_mode_are_told_by_the_scripts(tmp_path):
    for script, words, told in (
        ("main.py", ["--mode=eval", "--train_batch_size=8"], "--train_batch_size has no effect with --mode=eval"),
        ("model_inspect.py", ["--runmode=bm", "--output_csv=x"], "--output_csv has no effect with --runmode=bm"),
        ("model_inspect.py", ["--hparams=mixed_precision=true"], "mixed_precision is for training"),
    ):
        fails = ["--hparams=num_classes=3,label_map=voc"] if "hparams" not in words[0] else []
        result = type_(script, *words, *fails, *(["--runmode=infer"] if not fails else []), cwd=tmp_path)
        assert result.returncode == 1 and told in result.stderr


@pytest.mark.parametrize(
    "error, code",
    [
        (ValueError("expected 3, got 4"), "error: expected 3, got 4"),
        (FloatingPointError("loss is nan"), "error: loss is nan"),
        (FileNotFoundError(2, "No such file", "x.yaml"), "error: x.yaml: No such file"),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_goes_wrong_is_one_sentence(error, code):
    def main():
        raise error

    with pytest.raises(SystemExit) as told:
        command_line.call(main)
    assert told.value.code == code


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(KeyError):
        command_line.call(lambda: {}["x"])
