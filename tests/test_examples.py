# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the examples in docstrings."""

import ast
import doctest
import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("backbone", "efficientdet", "dataset", "tf2")
PATHS = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in PATHS if ">>>" in path.read_text()}


def documented(path: pathlib.Path) -> set[str]:
    """Returns the functions, classes and methods of a file whose docstring has an example."""

    def visit(nodes, prefix):
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                name = f"{prefix}{node.name}"
                if ">>>" in (ast.get_docstring(node) or ""):
                    yield name
                yield from visit(node.body, f"{name}.")

    return set(visit(ast.parse(path.read_text()).body, ""))


@pytest.mark.parametrize("module", MODULES)
def test_examples_of_docstrings(module):
    tests = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module), module)
    found = {test.name.removeprefix(f"{module}.") for test in tests if test.examples}
    assert found == documented(MODULES[module])  # doctest passes over objects that a decorator has replaced
    for test in tests:
        report = []
        failed, _ = doctest.DocTestRunner().run(test, out=report.append)
        assert not failed, "".join(report)
