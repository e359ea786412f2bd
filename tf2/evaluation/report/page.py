# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The parts of a static HTML page; every text that goes in is escaped here, and nowhere else."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MARK = '<meta name="generator" content="efficientdet report">'
# What no page may contain: control characters, halves of a surrogate pair, and the two that are no characters.
UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 1100px; margin: 0 auto;
  padding: 1em; overflow-wrap: anywhere; }
h1 { font-size: 1.6em; } h2 { font-size: 1.25em; margin-top: 2.2em; border-bottom: 1px solid #ccc; }
nav a { margin-right: 1em; } a { color: #014f86; }
p, figcaption { color: #444; } figure { margin: 1em 0; } img { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; overflow-wrap: normal; }
th, td { padding: 0.2em 0.8em 0.2em 0; text-align: left; vertical-align: top; border-bottom: 1px solid #e5e5e5; }
td:last-child { overflow-wrap: anywhere; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 1.2em; }
.gallery figure { margin: 0; } .gallery figcaption { font-size: 0.9em; }
""".strip()


def text(value: object) -> str:
    """Any text as it may stand in a page, in attributes too."""
    return html.escape(UNFIT.sub("\ufffd", str(value)), quote=True)


def page(title: str, sections: Mapping[str, tuple[str, Sequence[str]]]) -> str:
    """A whole page.

    Args:
        title: of it.
        sections: {id: (heading, parts in HTML)}; an id is one word.
    """
    links = "".join(f'<a href="#{name}">{text(heading)}</a>\n' for name, (heading, _) in sections.items())
    bodies = "\n".join(
        f'<section id="{name}">\n<h2>{text(heading)}</h2>\n' + "\n".join(parts) + "\n</section>"
        for name, (heading, parts) in sections.items()
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{MARK}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>
{STYLE}
</style>
</head>
<body>
<h1>{text(title)}</h1>
<nav>
{links}</nav>
{bodies}
</body>
</html>
"""


def paragraph(sentences: str) -> str:
    """A paragraph."""
    return f"<p>{text(sentences)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], text_columns: Sequence[int]) -> str:
    """A table that scrolls where the window is narrow.

    Args:
        head: a name a column.
        rows: text, whole numbers, and shares as floats, which get three places, a dash below 0.
        text_columns: positions; the others have numbers, which stand at the right.
    """
    kinds = ["" if i in text_columns else ' class="number"' for i in range(len(head))]

    def line(tag, row):
        return f"<tr>{''.join(f'<{tag}{kind}>{_cell(x)}</{tag}>' for kind, x in zip(kinds, row, strict=True))}</tr>"

    lines = "\n".join([line("th", head), *(line("td", row) for row in rows)])
    return f'<div class="scroll">\n<table>\n{lines}\n</table>\n</div>'


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "-" if value < 0 else f"{value:.3f}"
    return text(value)


def figure(path: str, caption: str) -> str:
    """A plot."""
    return (
        f'<figure>\n<img src="{text(path)}" alt="{text(caption)}">\n<figcaption>{text(caption)}</figcaption>\n</figure>'
    )


def thumbnails(entries: Iterable[tuple[str, str, Sequence[str]]]) -> str:
    """Small pictures that lead to full ones.

    Args:
        entries: (path of the full picture, path of the small one, lines below).
    """
    figures = "\n".join(
        f'<figure>\n<a href="{text(full)}"><img src="{text(small)}" alt="{text(lines[0])}" loading="lazy"></a>\n'
        f"<figcaption>{'<br>'.join(map(text, lines))}</figcaption>\n</figure>"
        for full, small, lines in entries
    )
    return f'<div class="gallery">\n{figures}\n</div>'


def plain(value: Any) -> str:
    """A value that is fit for JSON as text for people."""

    def inner(part):
        return f"({plain(part)})" if isinstance(part, (Mapping, list, tuple)) else plain(part)

    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(inner, value))
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
