# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of README.md, docs/ and configs/: their commands, flags, keys, links and files exist."""

import pathlib
import re
import shlex

import pytest

from dataset import label_map
from efficientdet import config as config_lib

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "docs" / "guide.md").read_text()
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
DOCUMENTS = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "testdata/README.md")
]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))
TYPED = [*DOCUMENTS, ROOT / "Makefile", *CONFIGS]
PROGRAMS = ("python", "python3", "pip", "make", "git", "cd", "source", "wget", "unzip", "tar", "mkdir", "echo")
MEASURED = r"(?:taskset -c 0 |/usr/bin/time -v )?"  # what may stand before a command
SECTIONS = (
    "Models",
    "Released checkpoints",
    "Export",
    "Latency",
    "Detect in images",
    "Detect in videos",
    "Evaluate on COCO 2017",
    "Fine-tune on Pascal VOC 2012",
    "Several GPUs, several machines",
    "TPUs",
    "Less memory",
    "Look into TFRecords",
)


def lines(path: pathlib.Path) -> list[str]:
    """Returns the lines of all code blocks, with continued lines joined; for a config, those of its header comment."""
    text = path.read_text()
    if path.name == "Makefile":
        text = text.replace("$(RUN)", "    python").replace("\t", "    ").replace("$(ARGS)", "")
    if path.suffix == ".yaml":
        text = "\n".join(line.replace("#", " ", 1) for line in text.splitlines() if line.startswith("#"))
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^( +)(\S.*)\\\n +", r"\1\2", text, flags=re.MULTILINE)
    while (joined := re.sub(r"^(    .*)\\\n +", r"\1", text, flags=re.MULTILINE)) != text:
        text = joined
    indent = "  " if path.suffix == ".yaml" else "    "
    return [line.strip() for line in text.splitlines() if line.startswith(indent) and line.strip()]


def commands(path: pathlib.Path) -> list[list[str]]:
    """Returns the commands `python script.py --flags` of a document, split like a shell does."""
    found = [re.match(rf"{MEASURED}python (\S+\.py.*)$", line) for line in lines(path)]
    return [shlex.split(match[1]) for match in found if match]


def flags_of(script: str) -> set[str]:
    """Returns the names of the flags that a script defines, parsed from its source."""
    source = (ROOT / script).read_text()
    if "command.define_flags()" in source:
        source += (ROOT / "dataset" / "convert" / "command.py").read_text()
    if "from main_flags import" in source:
        source += (ROOT / "main_flags.py").read_text()
    tables = re.findall(r"^(?:IGNORED_FLAGS|REFUSED_FLAGS) = .*?[})]$", source, re.MULTILINE | re.DOTALL)
    defined = re.findall(r'(?:DEFINE_\w+|add_argument)\(\s*"(?:--)?(\w+)"', source)
    return set(defined) | set(re.findall(r'"(\w+)"[:,)]', " ".join(tables)))


def python_call() -> str:
    """Returns the Python example of README.md."""
    return re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]


def typed(arguments: list[str]) -> dict[str, str]:
    """Returns {flag: value} of a command."""
    return dict(word.lstrip("-").partition("=")[::2] for word in arguments if word.startswith("--"))


def name_of(path):
    return str(path.relative_to(ROOT))


def test_the_guide_has_the_published_sections():
    assert re.findall(r"^## (\d+)\. (.*)$", GUIDE, re.MULTILINE) == [(str(i + 1), s) for i, s in enumerate(SECTIONS)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_line_of_a_code_block_is_a_known_command(path):
    for line in lines(path):
        if line.startswith(("@inproceedings", "}")) or re.match(r"\w+ = \{", line):  # the citation
            continue
        for command in line.split(" && "):
            program, *words = shlex.split(re.sub(rf"^{MEASURED}", "", command), comments=True)
            assert program in PROGRAMS, f"{path.name}: unknown program in {line!r}"
            if program == "make":
                targets = [word for word in words if "=" not in word]
                makefile = (ROOT / "Makefile").read_text()
                assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


@pytest.mark.parametrize("path", TYPED, ids=name_of)
def test_commands_use_flags_that_exist(path):
    found = commands(path)
    assert found or path.suffix == ".md" or path.name == "demo.yaml", f"{path.name} has no command"
    for script, *arguments in found:
        unknown = typed(arguments).keys() - flags_of(script)
        assert not unknown, f"{path.name}: {script} has no {unknown}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_hparams_of_commands_are_valid(path):
    for _script, *arguments in commands(path):
        flags = typed(arguments)
        if "model_name" in flags and not flags.get("hparams", "").startswith("shop"):
            hparams = flags.get("hparams", "").replace("configs/", f"{ROOT}/configs/")
            config = config_lib.load(flags["model_name"], hparams)
            label_map.check(label_map.resolve(config.label_map), config.num_classes)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_configs_load_and_state_their_results(path):
    config = config_lib.load("efficientdet-lite0", str(path))
    label_map.check(label_map.resolve(config.label_map), config.num_classes)
    head = re.match(r"(#.*\n)+", path.read_text())[0]
    assert re.search(r"\bAP\b.* 0\.\d+", head), f"{path.name} states no measured AP"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_exist(path):
    text = path.read_text()
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        if target.startswith("https://"):
            continue
        file = path.parent / target if target else path
        assert file.exists(), f"{path.name} links to {target}"
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE) if file.suffix == ".md" else []
        slugs = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
        assert not anchor or anchor in slugs, f"{path.name} links to {target}#{anchor}"


def test_the_layout_in_the_readme_matches_the_tree():
    picture = re.search(r"^```\n(main\.py .*?)^```$", README, re.MULTILINE | re.DOTALL)[1]
    shown, folders = set(), []
    for line in picture.splitlines():
        name, depth = line.split()[0], (len(line) - len(line.lstrip())) // 4
        folders[depth:] = [name] if name.endswith("/") else []
        shown.add("".join(folders) if name.endswith("/") else "".join([*folders[:depth], name]))
    packages = ("backbone", "efficientdet", "dataset", "tf2")
    folders = {f"{name_of(path.parent)}/" for package in packages for path in (ROOT / package).rglob("__init__.py")}
    assert {name for name in shown if name.startswith(packages)} == folders
    assert {name for name in shown if name.endswith(".py")} == {path.name for path in ROOT.glob("*.py")}
    assert all((ROOT / name).exists() for name in shown)
