# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""README.md and configs/: every command names scripts and flags that exist, every link a file, every config loads."""

import pathlib
import re
import shlex

import pytest

from dataset import label_map
from efficientdet import config as config_lib

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands(text: str) -> list[list[str]]:
    """The commands `python script.py --flags` of a text, as a shell would split them."""
    joined = re.sub(r"\\\n[ #]*", "", text)
    found = re.findall(r"^[ #]+(?:taskset -c 0 )?python (\S+\.py.*)$", joined, re.MULTILINE)
    return [shlex.split(command) for command in found]


def flags_of(script: str) -> set[str]:
    """Names of the flags that a script defines, read from its source."""
    source = (ROOT / script).read_text()
    if "conversion.define_flags()" in source:
        source += (ROOT / "dataset" / "conversion.py").read_text()
    tables = re.findall(r"^(?:MEANINGLESS|NOT_YET) = .*?[})]$", source, re.MULTILINE | re.DOTALL)
    return set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source)) | set(re.findall(r'"(\w+)"[:,)]', " ".join(tables)))


def test_the_readme_has_commands():
    assert {command[0] for command in commands(README)} >= {"main.py", "model_inspect.py"}


@pytest.mark.parametrize(
    "source", ["README.md", "Makefile", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "configs").glob("*.yaml")))]
)
def test_commands_use_flags_that_exist(source):
    text = (ROOT / source).read_text().replace("$(RUN)", "  python").replace("\t", "  ").replace("$(DEMO_MODEL)", "")
    for script, *arguments in commands(text):
        typed = {argument.lstrip("-").split("=")[0] for argument in arguments if argument.startswith("--")}
        assert typed and not typed - flags_of(script), f"{source}: {script} has no {typed - flags_of(script)}"


def test_hparams_of_the_readme_are_read():
    for script, *arguments in commands(README):
        typed = dict(argument.lstrip("-").split("=", 1) for argument in arguments if "=" in argument)
        if script in ("main.py", "model_inspect.py"):
            hparams = typed.get("hparams", "").replace("configs/", f"{ROOT}/configs/")
            config_lib.load(typed.get("model_name", "efficientdet-d1"), hparams)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_configs_load(path):
    config = config_lib.load("efficientdet-lite0", str(path))
    label_map.check(label_map.resolve(config.label_map), config.num_classes)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), f"README.md links to {target}"


def test_the_python_call_is_the_drivers_own():
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    compile(code, "README.md", "exec")
    assert 'drivers.load("efficientdet-d0"' in code and "detector.detect(image)" in code
