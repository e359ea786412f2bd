# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""How every script speaks: --help in groups, --version, and one sentence for what goes wrong."""

import contextlib
import dataclasses
import importlib.metadata
import platform
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence

from absl import app, flags, logging

from efficientdet import config as config_lib

HELP = ("-h", "-help", "--help", "-helpshort", "--helpshort")  # --helpfull, with the flags of absl, is absl's own
VERSION = ("-version", "--version")
INDENT = 26  # columns of the names of flags
NARROWEST, WIDEST = 60, 110  # columns, whatever the terminal's
VALUES = {"int": "N", "float": "X", "comma separated list of strings": "A,B", "multi int": "N"}  # of a type of flag


@dataclasses.dataclass(frozen=True)
class Group:
    """Flags that belong together.

    Attributes:
        title: what they are about.
        names: of the flags, as defined.
        modes: the modes of the script in which they mean something; empty: all.
    """

    title: str
    names: tuple[str, ...]
    modes: tuple[str, ...] = ()


GROUPS: list[Group] = []  # of the script that runs


@contextlib.contextmanager
def group(title: str, modes: Sequence[str] = ()) -> Iterator[None]:
    """Around the definition of flags: --help shows them under a title, and `unused` knows their modes."""
    before = set(flags.FLAGS)
    yield
    GROUPS.append(Group(title, tuple(name for name in flags.FLAGS if name not in before), tuple(modes)))


def unused(mode: str) -> list[str]:
    """The flags that were typed but mean nothing in a mode of the script."""
    others = [name for each in GROUPS if each.modes and mode not in each.modes for name in each.names]
    return [name for name in others if flags.FLAGS[name].present]


def run(main: Callable[[], None]) -> None:
    """Reads the command line and calls `main`, a script's work."""
    app.run(lambda _: call(main), flags_parser=parse)


def call(main: Callable[[], None]) -> None:
    """Calls `main`.

    Raises:
        SystemExit: with one sentence for what is wrong with files, values or numbers (the rest at --verbosity=1), and
            with the code 130, as a shell calls it, after Ctrl-C.
    """
    try:
        main()
    except (ValueError, FloatingPointError, OSError) as error:
        logging.debug("%s", error, exc_info=True)
        sys.exit(f"error: {_sentence(error)}")
    except KeyboardInterrupt:
        sys.exit(130)


def _sentence(error: Exception) -> str:
    """What an error says, without the number of an operating system's."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def parse(argv: Sequence[str]) -> list[str]:
    """Reads flags.

    Raises:
        SystemExit: after --help or --version; with a sentence for what is no flag, or no value of one.
    """
    words = argv[1:]
    if any(word in HELP for word in words):
        columns = shutil.get_terminal_size((100, 0)).columns
        print(help_text(sys.modules["__main__"].__doc__ or "", max(NARROWEST, min(columns, WIDEST))))
        sys.exit(0)
    if any(word in VERSION for word in words):
        print(version())
        sys.exit(0)
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(f"error: {' '.join(str(error).split()).removesuffix(' ?')} (--help lists the flags)")
    if len(rest) > 1:
        sys.exit(f"error: unexpected arguments {rest[1:]}; every option starts with --, and --help lists them")
    return rest


def version() -> str:
    """What runs, in one line."""
    try:
        tensorflow = f"TensorFlow {importlib.metadata.version('tensorflow')}"
    except importlib.metadata.PackageNotFoundError:
        tensorflow = "no TensorFlow"
    return f"efficientdet-tf2 {config_lib.VERSION}, Python {platform.python_version()}, {tensorflow}"


def help_text(doc: str, width: int) -> str:
    """A script's docstring, and its flags by group.

    Args:
        doc: the docstring, with its examples.
        width: columns of the text.
    """
    parts = [doc.strip()]
    for each in GROUPS:
        where = f" ({', '.join(each.modes)})" if each.modes else ""
        title = textwrap.fill(f"{each.title}{where}:", width)
        parts.append("\n".join([title, *(_describe(name, width) for name in each.names)]))
    return "\n\n".join(parts)


def _describe(name: str, width: int) -> str:
    """A flag's name and values, beside its sentence."""
    flag = flags.FLAGS[name]
    choices = getattr(flag.parser, "enum_values", [])
    value = "|".join(filter(None, choices)) or VALUES.get(flag.flag_type(), "...")
    typed = f"--[no]{name}" if flag.boolean else f"--{name}={value if len(value) < INDENT * 2 else '...'}"
    nothing = flag.default is None or flag.default is False or flag.default in ("", [])
    shown = "" if nothing else f" (default: {_plain(flag.default)})"
    text = flag.help.removeprefix(f"<{'|'.join(choices)}>: ")  # absl puts them in front
    lines = textwrap.wrap(f"{text}{shown}", width - INDENT, break_on_hyphens=False)
    first = f"  {typed}".ljust(INDENT)
    if len(first) > INDENT or first[-1] != " ":
        lines.insert(0, "")
    return "\n".join([first + lines[0], *(" " * INDENT + line for line in lines[1:])]).rstrip()


def _plain(default) -> str:
    """A default as it is typed."""
    return ",".join(map(str, default)) if isinstance(default, list) else str(default)
