# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Programs in StableHLO, their deviation from expected outputs, and the folder: {name}.mlir, {name}.npz, export.json.

This file needs neither TensorFlow nor JAX, because one writes the folder and the other one reads it.
"""

import collections
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MANIFEST = "export.json"
DTYPES = {
    "i1": "bool",
    "i32": "int32",
    "i64": "int64",
    "f16": "float16",
    "bf16": "bfloat16",
    "f32": "float32",
    "f64": "float64",
}
_MODULE = re.compile(r"^(module @\S+) attributes \{.*\} \{$", re.MULTILINE)
_MAIN = re.compile(r"func\.func (?:public )?@main\((.*?)\) -> (.*?) \{$", re.MULTILINE)
_TENSOR = re.compile(r"tensor<([^>]*)>")
_ALIAS = re.compile(r"parameter_number = (\d+) : i64\}, output_index = array<i64: (\d+)>")


class Tensor(NamedTuple):
    """Type and name of an input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class Program(NamedTuple):
    """A function with flat inputs and outputs."""

    name: str
    text: str  # StableHLO
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    updates: Mapping[int, int]  # index of an output -> index of the input, a variable, whose new value it is


def from_compiler_ir(name: str, text: str, inputs: Sequence[str], outputs: Sequence[str]) -> Program:
    """Makes a program of the text that TensorFlow's `experimental_get_compiler_ir` returns.

    The text is StableHLO except for `mhlo.copy` and for attributes of the module. The copy becomes an optimization
    barrier of one operand, which returns its operand as well. The attributes tell which variable an output updates.

    Args:
        name: name of the program.
        text: result for stage="stablehlo".
        inputs: names of the inputs: of the arguments, then of the captured variables.
        outputs: names of the results of the function, without updates.

    Raises:
        ValueError: if the text has other inputs or outputs, or another operation of MHLO.
    """
    signature = _MAIN.search(text)
    if not signature:
        raise ValueError(f"{name}: expected StableHLO with a function @main, got {text[:80]!r}")
    updates = {int(output): int(parameter) for parameter, output in _ALIAS.findall(text.partition("func.func")[0])}
    input_types, output_types = map(_types, signature.groups())
    if len(input_types) != len(inputs) or len(output_types) != len(outputs) + len(updates):
        raise ValueError(
            f"{name}: expected {len(inputs)} inputs, {len(outputs)} results and {len(updates)} updates of variables, "
            f"got a program with {len(input_types)} inputs and {len(output_types)} outputs"
        )
    results = iter(outputs)
    output_names = [inputs[updates[i]] if i in updates else next(results) for i in range(len(output_types))]
    text = re.sub(r"\bmhlo\.copy\b", "stablehlo.optimization_barrier", _MODULE.sub(r"\1 {", text))
    if others := sorted(set(re.findall(r'= "?(mhlo\.\w+)', text))):
        raise ValueError(f"{name} contains {', '.join(others)}, which StableHLO does not have")
    return Program(
        name,
        text,
        [Tensor(each, *kind) for each, kind in zip(inputs, input_types)],
        [Tensor(each, *kind) for each, kind in zip(output_names, output_types)],
        updates,
    )


def _types(text: str) -> list[tuple[tuple[int, ...], str]]:
    """Returns shape and dtype of every tensor of a function's signature, as MLIR writes it."""
    types = []
    for tensor in _TENSOR.findall(text):
        *dims, dtype = tensor.split("x")
        types.append((tuple(map(int, dims)), DTYPES[dtype]))
    return types


def write(folder: Path, program: Program, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Writes a program, and its arrays if there are any; returns its part of the manifest.

    Args:
        folder: folder that exists.
        program: the program.
        arrays: see `read_arrays`; empty to store the program alone.
    """
    (folder / f"{program.name}.mlir").write_text(program.text, encoding="utf-8")
    if arrays:
        np.savez(folder / f"{program.name}.npz", **arrays)
    return {
        "inputs": program.inputs,
        "outputs": program.outputs,
        "updates": [[output, parameter] for output, parameter in sorted(program.updates.items())],
    }


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Writes the manifest: a description with `programs`, {name: result of `write`}."""
    (folder / MANIFEST).write_text(json.dumps(about, indent=1), encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns the manifest of a folder; raises ValueError if it has none or a damaged one."""
    try:
        about = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        about["programs"].keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{folder / MANIFEST} cannot be read ({reason}); expected a folder of the export") from error
    return about


def read(folder: Path, name: str, about: Mapping[str, Any]) -> Program:
    """Returns a program, given its part of the manifest; raises OSError if it is missing."""
    text = (folder / f"{name}.mlir").read_text(encoding="utf-8")
    inputs, outputs = (
        [Tensor(each, tuple(shape), dtype) for each, shape, dtype in about[kind]] for kind in ("inputs", "outputs")
    )
    return Program(name, text, inputs, outputs, dict(about["updates"]))


def read_arrays(folder: Path, program: Program) -> tuple[list[np.ndarray], list[np.ndarray | None]] | None:
    """Returns inputs and expected outputs in the order of the program, or None if they were not exported.

    In the file, their names are in_0, in_1, ... and out_0, out_1, ...; an output that has no expected value is None.
    """
    path = folder / f"{program.name}.npz"
    if not path.exists():
        return None
    with np.load(path) as arrays:
        return (
            [arrays[f"in_{i}"] for i in range(len(program.inputs))],
            [arrays.get(f"out_{i}") for i in range(len(program.outputs))],
        )


def deviations(
    program: Program, inputs: Sequence[np.ndarray], expected: Sequence[np.ndarray | None], outputs: Sequence[Any]
) -> dict[str, dict[str, float]]:
    """Deviations from TensorFlow, of results by name, and of updated variables by the last part of their names.

    Outputs without an expected value are left out.

    A result r deviates by |r - expected| / max(1, |expected|) at most. The updates of all kernels, all momenta and so
    on deviate by the norm of the differences, divided by the norm of the expected changes. They are taken together
    because some of them, such as those of a bias before batch normalization, are nothing but rounding.
    """
    results, squares = {}, collections.defaultdict(lambda: np.zeros(2))
    for i, (output, value) in enumerate(zip(outputs, expected, strict=True)):
        if value is None:
            continue
        name, value, output = program.outputs[i].name, np.asarray(value, np.float64), np.asarray(output, np.float64)
        is_same = (output == value) | (np.isnan(output) & np.isnan(value))  # such as the norm of an overflow in float16
        with np.errstate(invalid="ignore"):
            difference = np.where(is_same, 0, output - value)
        if i in program.updates:
            change = value - inputs[program.updates[i]]
            squares[name.rpartition("/")[2]] += np.sum(difference**2), np.sum(change**2)
        else:
            results[name] = float(np.max(np.abs(difference) / np.fmax(1, np.abs(value)), initial=0))
    updates = {}
    for name, (difference, change) in squares.items():  # a variable that must not change, but does: infinite
        updates[name] = math.sqrt(difference / change) if change else math.inf if difference else 0.0
    return {"results": results, "updates": updates}
