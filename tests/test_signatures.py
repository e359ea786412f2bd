# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Public signatures of backbone/ and efficientdet/ have types."""

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
MODULES = [path for package in ("backbone", "efficientdet") for path in sorted((ROOT / package).glob("*.py"))]


def signatures(tree: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """Yields public functions and methods, constructors and other special methods included."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from signatures(node)
        elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name.endswith("__")):
            yield node


def untyped(function: ast.FunctionDef) -> list[str]:
    """Returns the names of the parts of a signature that have no type, and those of containers without elements."""
    arguments = function.args
    parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    types = {each.arg: each.annotation for each in parameters if each and each.arg not in ("self", "cls")}
    types["return"] = function.returns
    return [name for name, annotation in types.items() if annotation is None or ast.unparse(annotation) in BARE]


BARE = ("Callable", "Iterator", "Mapping", "Sequence", "dict", "list", "tuple")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_public_signatures_have_types(path):
    found = {node.name: missing for node in signatures(ast.parse(path.read_text())) if (missing := untyped(node))}
    assert not found


@pytest.mark.parametrize(
    "source, missing",
    [
        ("def f(a: int, *b: int, c: str = '', **d: Any) -> None: ...", [[]]),
        ("def f(a, *b, c='', **d): ...", [["a", "c", "b", "d", "return"]]),
        ("class A:\n  def __init__(self, a: int): ...\n  @classmethod\n  def of(cls) -> 'A': ...", [["return"], []]),
        ("def f(a: Callable) -> dict: ...", [["a", "return"]]),
        ("def _f(a): ...\nclass _B:\n  def f(self) -> int: ...", [[]]),
    ],
)
def test_untyped_finds_missing_types(source, missing):
    assert [untyped(node) for node in signatures(ast.parse(source))] == missing
