# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Command-line conventions shared by all scripts: grouped --help, --version, error messages and exit codes."""

import contextlib
import functools
import gc
import importlib.metadata
import platform
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from absl import app, flags, logging

from dataset import native_log
from efficientdet import config as config_lib

native_log.hide_start_notes()  # here, because every script imports this module before TensorFlow

INDENT = 26  # columns reserved for the flag names
MIN_WIDTH, MAX_WIDTH = 60, 110  # columns of the help text
PLACEHOLDERS = {"int": "N", "float": "X", "comma separated list of strings": "A,B", "multi int": "N"}  # by flag type


class Group(NamedTuple):
    """A group of flags in --help."""

    title: str
    names: tuple[str, ...]  # of the flags, in order of definition
    modes: tuple[str, ...]  # of the script, in which the flags have an effect; empty for all modes


GROUPS: list[Group] = []  # of the running script


@contextlib.contextmanager
def group(title: str, modes: Sequence[str] = ()) -> Iterator[None]:
    """Groups the flags defined in the block under a title in --help, with the modes in which they have an effect."""
    before = set(flags.FLAGS)
    yield
    GROUPS.append(Group(title, tuple(name for name in flags.FLAGS if name not in before), tuple(modes)))


def unused(mode: str) -> list[str]:
    """Returns the flags that were given on the command line but have no effect in a mode of the script."""
    other_modes = [each for each in GROUPS if each.modes and mode not in each.modes]
    return [name for each in other_modes for name in each.names if flags.FLAGS[name].present]


def report_unused(mode_flag: str, mode: str, ignored: Mapping[str, str]) -> None:
    """Logs the given flags that have no effect.

    Args:
        mode_flag: name of the flag that selects the mode.
        mode: see `unused`.
        ignored: flags without effect in any mode, with the reason.
    """
    for name, why in ignored.items():
        if flags.FLAGS[name].present:
            logging.info("--%s has no effect: %s", name, why)
    for name in unused(mode):
        logging.warning("--%s has no effect with --%s=%s", name, mode_flag, flags.FLAGS[mode_flag].value)


def run(main: Callable[..., None], arguments: Sequence[str] = ()) -> None:
    """Parses the command line and calls `main`, see `call`; it takes the named `arguments`, which are not flags."""
    app.run(
        lambda argv: call(functools.partial(main, *argv[1:])),
        flags_parser=functools.partial(parse, arguments=arguments),
    )


def call(main: Callable[[], None]) -> None:
    """Calls `main` and converts user errors to an error message and an exit code.

    Raises:
        SystemExit: with a one-line message for a ValueError, FloatingPointError or OSError (traceback at
            --verbosity=1); with code 130, as in a shell, after Ctrl-C.
    """
    try:
        main()
    except (ValueError, FloatingPointError, OSError) as error:
        logging.debug("%s", error, exc_info=True)
        message = str(error)
        if isinstance(error, OSError) and error.strerror:  # str(error) would contain its number
            message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        code = f"error: {message}"
    except KeyboardInterrupt:
        code = 130
    else:
        code = 0
    # Frees the iterators that the traceback held. Those of tf.data call Python in their own threads, and deleting one
    # while the interpreter shuts down, which ends these threads, would wait for them forever.
    gc.collect()
    if code:
        sys.exit(code)


def parse(argv: Sequence[str], arguments: Sequence[str] = ()) -> list[str]:
    """Parses the command line; prints --help and --version.

    Args:
        argv: name of the script and what follows it.
        arguments: descriptions of the arguments that the script takes besides flags, all of them required.

    Returns:
        Name of the script and the arguments.

    Raises:
        SystemExit: after --help or --version; with an error message for an unknown flag, an invalid value, or another
            number of arguments.
    """
    if {"-h", "-help", "--help", "-helpshort", "--helpshort"} & set(argv[1:]):  # --helpfull is handled by absl
        columns = shutil.get_terminal_size((100, 0)).columns
        print(help_text(sys.modules["__main__"].__doc__ or "", max(MIN_WIDTH, min(columns, MAX_WIDTH))))
        sys.exit(0)
    if {"-version", "--version"} & set(argv[1:]):
        print(version())
        sys.exit(0)
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(f"error: {' '.join(str(error).split()).removesuffix(' ?')} (--help lists the flags)")
    if len(rest) > 1 + len(arguments):
        unexpected = rest[1 + len(arguments) :]
        sys.exit(f"error: unexpected arguments {unexpected}; every option starts with --, and --help lists them")
    if len(rest) <= len(arguments):
        sys.exit(f"error: expected {arguments[len(rest) - 1]}; --help shows examples")
    return rest


def version() -> str:
    """Versions of this package, Python and TensorFlow in one line."""
    try:
        tensorflow = f"TensorFlow {importlib.metadata.version('tensorflow')}"
    except importlib.metadata.PackageNotFoundError:
        tensorflow = "no TensorFlow"
    return f"efficientdet-tf2 {config_lib.VERSION}, Python {platform.python_version()}, {tensorflow}"


def help_text(doc: str, width: int) -> str:
    """Text of --help: `doc`, the docstring of a script, and its flags by group, wrapped to `width` columns."""
    parts = [doc.strip()]
    for each in GROUPS:
        modes = f" ({', '.join(each.modes)})" if each.modes else ""
        title = textwrap.fill(f"{each.title}{modes}:", width)
        parts.append("\n".join([title, *(_describe(name, width) for name in each.names)]))
    return "\n\n".join(parts)


def _describe(name: str, width: int) -> str:
    """Help text of a flag: name and values, description, default."""
    flag = flags.FLAGS[name]
    choices = getattr(flag.parser, "enum_values", [])
    value = "|".join(filter(None, choices)) or PLACEHOLDERS.get(flag.flag_type(), "...")
    usage = f"--[no]{name}" if flag.boolean else f"--{name}={value if len(value) < INDENT * 2 else '...'}"
    default = ",".join(map(str, flag.default)) if isinstance(flag.default, list) else flag.default
    shown = "" if default is None or default is False or default == "" else f" (default: {default})"
    text = flag.help.removeprefix(f"<{'|'.join(choices)}>: ")  # added by absl
    indent = " " * INDENT
    description = textwrap.fill(f"{indent}{text}{shown}", width, subsequent_indent=indent, break_on_hyphens=False)
    start = f"  {usage}".ljust(INDENT)
    return start + description[INDENT:] if start.endswith(" ") else f"{start}\n{description}"
