# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Elements of a static HTML page. All text is escaped here and nowhere else."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

GENERATOR = '<meta name="generator" content="efficientdet report">'
# Characters that HTML forbids: control characters, surrogates and noncharacters.
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
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
td:first-child { white-space: nowrap; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 1.2em; }
.gallery figure { margin: 0; } .gallery figcaption { font-size: 0.9em; }
""".strip()


def escape(value: object) -> str:
    """Escapes text for HTML, including attributes, and replaces forbidden characters.

    >>> escape("<a href='x'>")
    '&lt;a href=&#x27;x&#x27;&gt;'
    """
    return html.escape(FORBIDDEN.sub("\ufffd", str(value)), quote=True)


def page(title: str, sections: Mapping[str, tuple[str, Sequence[str]]]) -> str:
    """Returns a complete page with sections {id: (heading, HTML elements)}; an id is one word."""
    links = "".join(f'<a href="#{name}">{escape(heading)}</a>\n' for name, (heading, _) in sections.items())
    bodies = "\n".join(
        f'<section id="{name}">\n<h2>{escape(heading)}</h2>\n' + "\n".join(parts) + "\n</section>"
        for name, (heading, parts) in sections.items()
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{GENERATOR}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{STYLE}
</style>
</head>
<body>
<h1>{escape(title)}</h1>
<nav>
{links}</nav>
{bodies}
</body>
</html>
"""


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], text_columns: Sequence[int]) -> str:
    """Returns a table that scrolls horizontally in a narrow window.

    Args:
        head: column names.
        rows: cells: text, integers, or floats, which are shown with three decimals, or as a dash if negative.
        text_columns: positions of the columns with text; the other ones are aligned right.
    """
    kinds = ["" if i in text_columns else ' class="number"' for i in range(len(head))]

    def line(tag, row):
        return f"<tr>{''.join(f'<{tag}{kind}>{_cell(x)}</{tag}>' for kind, x in zip(kinds, row, strict=True))}</tr>"

    lines = "\n".join([line("th", head), *(line("td", row) for row in rows)])
    return f'<div class="scroll">\n<table>\n{lines}\n</table>\n</div>'


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "-" if value < 0 else f"{value:.3f}"
    return escape(value)


def figure(path: str, caption: str) -> str:
    """Returns a captioned image that links to the image alone, because plots are hard to read in narrow windows."""
    link, text = escape(path), escape(caption)
    image = f'<a href="{link}"><img src="{link}" alt="{text}"></a>'
    return f"<figure>\n{image}\n<figcaption>{text}</figcaption>\n</figure>"


def thumbnails(entries: Iterable[tuple[str, str, Sequence[str]]]) -> str:
    """Returns a grid of thumbnails; entries: (path of the full image, path of the thumbnail, lines of the caption)."""
    figures = "\n".join(
        f'<figure>\n<a href="{escape(full)}"><img src="{escape(small)}" alt="{escape(lines[0])}" loading="lazy"></a>\n'
        f"<figcaption>{'<br>'.join(map(escape, lines))}</figcaption>\n</figure>"
        for full, small, lines in entries
    )
    return f'<div class="gallery">\n{figures}\n</div>'


def format_value(value: Any) -> str:
    """Formats a JSON value as text.

    >>> format_value({"AP": 0.123456, "sizes": [320, 320], "images": None})
    'AP 0.1235, sizes (320, 320), images none'
    """

    def inner(part):
        return f"({format_value(part)})" if isinstance(part, (Mapping, list, tuple)) else format_value(part)

    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(inner, value))
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
