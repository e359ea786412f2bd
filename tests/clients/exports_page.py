# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The measured part of docs/exports.md: a table of clients and files, export commands, and the code that was run."""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from client_table import CLIENTS, FITTED, Client

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "exports.md"
RESULTS = ROOT / "docs" / "exports.json"
BEGIN, END = "<!-- measured by make clients -->\n", "<!-- end of the measured part -->\n"
COLUMNS = ("program", "file in `exports/`", "detections found", "further ones", "lowest IoU", "scores differ by")
WIDTH = 120


def update(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes the results, by the name of the client, to RESULTS, and the measured part of PAGE.

    Those of other clients that RESULTS has are kept.
    """
    known = {**json.loads(RESULTS.read_text()), **results} if RESULTS.exists() else results
    results = {client.name: known[client.name] for client in CLIENTS if client.name in known}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + render(results) + END + rest.partition(END)[2])


def render(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the text between BEGIN and END."""
    clients = [client for client in CLIENTS if client.name in results]
    rows = [_row(client, results[client.name]) for client in clients]
    parts = [
        f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n{''.join(rows)}",
        "The files:\n",
        "".join(_command(file.flags) for file in dict.fromkeys(client.file for client in clients)),
        "Client code, as measured; `path` is the exported file, `file` an image:\n",
        *_snippets(clients),
    ]
    return "\n" + "\n".join(parts) + "\n"


def _row(client: Client, result: Mapping[str, Any]) -> str:
    """Returns the line of the table."""
    program = f"{client.title} ({client.package}, Python {client.environment.python})"
    if client.images == FITTED:
        program += ", images padded to 320x320"
    file = f"`{pathlib.PurePath(client.file.path).name}`"
    if "error" in result:
        return f"| {program} | {file} | does not run: {_cell(result['error'])} | | | |\n"
    found = f"{result['found']} of {result['expected']} at IoU {client.min_iou:g}"
    figures = f"{result['lowest_iou']:.3f} | {result['score_difference']:.4f}" if result["found"] else "- | -"
    return f"| {program} | {file} | {found} | {result['more']} | {figures} |\n"


def _cell(text: str) -> str:
    """Returns text for a table, in which | ends a cell and < begins a tag."""
    return re.sub(r"([|<])", r"\\\1", " ".join(text.split()))


def _command(flags: str) -> str:
    """Returns a command of model_inspect.py as an indented block of lines of at most WIDTH characters."""
    lines, line = [], "    python model_inspect.py"
    for flag in flags.split():
        if len(line) + len(flag) + len(" \\") >= WIDTH:
            lines.append(line + " \\\n")
            line = " " * 7
        line += f" {flag}"
    return "".join([*lines, line, "\n"])


def _snippets(clients: list[Client]) -> list[str]:
    """Returns the code of each script once, under the titles of the clients that run it."""
    titles = {}
    for client in clients:
        titles.setdefault(client.script, []).append(client)
    parts = []
    for script, users in titles.items():
        names = " and ".join(dict.fromkeys(client.title for client in users))
        link = f"[tests/clients/{script}.py](../tests/clients/{script}.py)"
        parts.append(f"{names} ({link}):\n\n```python\n{users[0].snippet()}\n```\n")
    return parts
