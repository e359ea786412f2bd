# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/command_line.py: --help, --version and error messages of every script."""

import contextlib
import importlib
import os
import pathlib
import re
import shlex
import subprocess
import sys
import weakref

import pytest
from absl import flags, logging
from test_readme import TYPED, commands, flags_of, name_of

from dataset import command_line
from efficientdet import config as config_lib
from tf2.training import model_dir
from tf2.weights import base_config

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = ["main.py", "model_inspect.py"]
SCRIPTS += [
    name_of(path)
    for folder in ("dataset", "tf2", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.read_text().endswith("    command_line.run(main)\n")
]


def run_script(script, *words, cwd=ROOT, columns=100):
    """Runs a script in a terminal with a number of columns."""
    environment = {**os.environ, "COLUMNS": str(columns)}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *words], capture_output=True, text=True, cwd=cwd, env=environment
    )


@pytest.fixture(scope="module", params=SCRIPTS)
def help_output(request):
    """A script and its output for --help."""
    result = run_script(request.param, "--help")
    assert result.returncode == 0, result.stderr
    return request.param, result.stdout


def test_scripts_are_found():
    assert {
        "main.py",
        "dataset/create_coco_tfrecord.py",
        "tf2/benchmarks/training.py",
        "tests/kill_training.py",
    } <= set(SCRIPTS)


def test_help_lists_every_flag_once(help_output):
    script, text = help_output
    shown = re.findall(r"^  --(?:\[no\])?(\w+)", text, re.MULTILINE)
    assert sorted(shown) == sorted(flags_of(script))
    assert all(len(line) <= 100 for line in text.split("\n\nWhat", 1)[-1].splitlines() if line.startswith("  --"))


def test_flags_of_help_examples_exist(help_output):
    script, text = help_output
    joined = re.sub(r"\\\n\s*", "", text)
    examples = re.findall(rf"^    (?:taskset -c 0 )?python {re.escape(script)}(.*)$", joined, re.MULTILINE)
    assert len(examples) >= (1 if script.startswith("tests/") else 3)
    for example in examples:
        assert set(re.findall(r"(?:^| )--(\w+)", example)) <= flags_of(script)


@contextlib.contextmanager
def defined(name):
    """Imports a script and defines its flags for the duration of the block."""
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


@pytest.fixture
def found_everywhere(monkeypatch):
    """Finds a D0 where documents name the folder of a training, which need not exist."""
    monkeypatch.setattr(base_config, "_of_weights", lambda path: config_lib.load("efficientdet-d0"))


@pytest.mark.usefixtures("found_everywhere")
@pytest.mark.parametrize("path", TYPED, ids=name_of)
def test_documented_commands_parse(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name, *words in commands(path):
        if not words:
            continue
        arguments = [word for word in words if not word.startswith("--")]
        monkeypatch.syspath_prepend(ROOT / pathlib.Path(name).parent)  # as Python does for a script
        with defined(name.removesuffix(".py").replace("/", ".")) as module:
            command_line.parse([name, *words], arguments)
            if name in SCRIPTS[:2] and "--hparams=shop.yaml" not in words:
                assert module.load_config().name.startswith("efficientdet-")


@pytest.mark.usefixtures("found_everywhere")
def test_examples_of_main_and_model_inspect_parse_without_warnings(script, monkeypatch):
    warnings = []
    monkeypatch.setattr(logging, "warning", lambda *words: warnings.append(words))
    monkeypatch.chdir(ROOT)
    examples = re.findall(r"^    python (.*)$", re.sub(r"\\\n\s*", "", script.__doc__), re.MULTILINE)
    assert len(examples) == (4 if script.__name__ == "main" else 3)
    for example in examples:
        flags.FLAGS.unparse_flags()
        command_line.parse(shlex.split(example))
        assert script.load_config().name.startswith("efficientdet-")
    assert warnings == []


@pytest.mark.parametrize("script", ["model_inspect"], indirect=True)
def test_drawing_options_follow_flags_then_hparams_then_defaults(script, tmp_path):
    model_dir.ModelDir(str(tmp_path)).write_config(config_lib.load("efficientdet-d0"))
    saved, own = f"--hparams={tmp_path / 'config.yaml'}", "nms_configs.max_output_size=300"
    for words, expected in (
        ([], ("hard", 0.4, 100)),
        ([saved], ("hard", 0.4, 100)),  # its gaussian suppression is a default, not a choice
        ([f"--hparams={own},nms_configs.score_thresh=0.1"], ("hard", 0.1, 300)),
        ([f"--hparams={own},nms_configs.method=gaussian"], ("gaussian", 0.4, 300)),
        ([f"--hparams={own}", "--max_boxes_to_draw=7", "--min_score_thresh=0"], ("hard", 0, 7)),
    ):
        flags.FLAGS.unparse_flags()
        command_line.parse(["model_inspect.py", "--runmode=bm", *words])
        config = script.load_config()
        drawing = script.drawing_options(config)
        found = config.nms_configs.method, drawing["min_score_thresh"], drawing["max_boxes_to_draw"]
        assert found == expected, words


@pytest.mark.parametrize("script", ["model_inspect"], indirect=True)
def test_the_former_names_of_the_parity_flags_are_aliases(script):
    for word, images in (("parity", "parity_images"), ("proof", "proof_images")):
        flags.FLAGS.unparse_flags()
        command_line.parse(["model_inspect.py", f"--no{word}", f"--{images}=x.jpg"])
        assert flags.FLAGS.parity is False and flags.FLAGS.parity_images == "x.jpg"
        assert command_line.unused("bm") == ["parity", "parity_images"] and command_line.unused("onnx") == []
        flags.FLAGS.unparse_flags()
        command_line.parse(["model_inspect.py", f"--{word}"])
        assert flags.FLAGS.parity is True and flags.FLAGS.parity_images is None
    text = command_line.help_text("", 100)
    assert "--[no]parity " in text and "--parity_images=" in text and "proof" not in text


def test_help_fits_the_terminal(script):
    for columns in (60, 110):
        shown = command_line.help_text("", columns).splitlines()
        assert max(len(line) for line in shown if not line.lstrip().startswith("--")) <= columns
    assert any("efficientdet-lite3x," in line for line in shown)


def test_help_shows_modes_units_and_defaults():
    text = run_script("main.py", "--help").stdout
    assert "\nTraining (train, train_and_eval):\n" in text
    assert re.search(r"--train_batch_size=N +Images per training step, over all devices; default: 64, or 8", text)
    assert re.search(r"--eval_batch_size=N +Images per evaluation step and device", text)
    assert re.search(r"--mode=train\|eval\|train_and_eval\n +Train, evaluate, or", text)
    assert run_script("main.py", "--help", columns=10).stdout.startswith("Trains and evaluates")
    assert "--[no]eval_after_train" in text and "(default: False)" not in text and "(default: None)" not in text


@pytest.mark.parametrize("script", ["main.py", "model_inspect.py", "dataset/check_tfrecords.py"])
def test_version(script):
    result = run_script(script, "--version")
    assert result.returncode == 0
    assert re.fullmatch(
        rf"efficientdet-tf2 {config_lib.VERSION}, Python 3\.\d+\.\d+, TensorFlow 2\.\d+\.\d+\n", result.stdout
    )


@pytest.mark.parametrize(
    "words, message",
    [
        (["--model_nme=x"], "error: Unknown command line flag 'model_nme'. Did you mean: model_name (--help lists"),
        (["--train_batch_size=x"], "error: flag --train_batch_size=x: invalid literal for int()"),
        (["--train_batch_size=0"], "error: flag --train_batch_size=0: 0 is not a positive integer"),
        (["--mode=trian"], "error: flag --mode=trian: value should be one of <train|eval|train_and_eval>"),
        (["train"], "error: unexpected arguments ['train']; every option starts with --"),
    ],
)
def test_invalid_command_lines_give_one_line_messages(words, message):
    result = run_script("main.py", *words)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith(message) and result.stderr.count("\n") == 1


def test_arguments_that_a_script_takes(monkeypatch):
    monkeypatch.setattr(flags, "FLAGS", flags.FlagValues())
    named = ("export or run", "the folder")
    assert command_line.parse(["script", "run", "/tmp/d0"], named) == ["script", "run", "/tmp/d0"]
    for argv, message in (
        (["script"], "error: expected export or run; --help shows examples"),
        (["script", "run"], "error: expected the folder; --help shows examples"),
        (["script", "run", "/tmp/d0", "x"], r"error: unexpected arguments \['x'\]; every option starts with --"),
    ):
        with pytest.raises(SystemExit, match=message):
            command_line.parse(argv, named)


def test_unused_returns_flags_of_other_modes(monkeypatch):
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


def test_scripts_report_flags_without_effect(tmp_path):
    failing = "--hparams=num_classes=3,label_map=voc"
    missing = [f"--{name}=missing" for name in ("ckpt_path", "input_image", "output_json")]
    precision = "--hparams=mixed_precision=true"
    for script, words, message in (
        ("main.py", ["--mode=eval", "--train_batch_size=8", failing], "--train_batch_size has no effect with --mode"),
        ("model_inspect.py", ["--runmode=bm", "--output_csv=x", failing], "--output_csv has no effect with --runmode"),
        (
            "model_inspect.py",
            ["--runmode=infer", "--model_name=efficientdet-d0", *missing, precision],
            "mixed_precision applies to training only",
        ),
    ):
        result = run_script(script, *words, cwd=tmp_path)
        assert result.returncode == 1 and message in result.stderr


@pytest.mark.parametrize(
    "error, code",
    [
        (ValueError("expected 3, got 4"), "error: expected 3, got 4"),
        (FloatingPointError("loss is nan"), "error: loss is nan"),
        (FileNotFoundError(2, "No such file", "x.yaml"), "error: x.yaml: No such file"),
        (KeyboardInterrupt(), 130),
    ],
)
def test_user_errors_become_messages_and_exit_codes(error, code):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        command_line.call(main)
    assert caught.value.code == code


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, None])
def test_everything_that_main_used_is_freed_before_the_interpreter_shuts_down(error):
    class Iterator:
        pass

    alive = []

    def main():
        iterator = Iterator()
        iterator.itself = iterator  # only the garbage collector frees it
        alive.append(weakref.ref(iterator))
        if error:
            raise error

    with pytest.raises(SystemExit) if error else contextlib.nullcontext():
        try:
            command_line.call(main)
        finally:
            is_alive = alive[0]() is not None
    assert not is_alive


def test_other_errors_keep_their_traceback():
    with pytest.raises(KeyError):
        command_line.call(lambda: {}["x"])
