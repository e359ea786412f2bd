# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Virtual environments of the clients; each is created once per list of requirements."""

import os
import pathlib
import subprocess
import zlib

from client_table import Environment


class InstallError(RuntimeError):
    """Packages that cannot be installed here."""


def find_python(version: str) -> str:
    """Returns an interpreter of a version such as "3.9", from PATH or from pyenv.

    Raises:
        InstallError: if there is none.
    """
    versions = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")) / "versions"
    for python in (f"python{version}", *map(str, versions.glob(f"{version}.*/bin/python{version}"))):
        try:  # the shims of pyenv exist for versions that are not selected, and fail
            subprocess.run([python, "-c", "import ensurepip, venv"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    raise InstallError(f"Python {version} is not installed")


def create(environment: Environment, folder: pathlib.Path) -> pathlib.Path:
    """Creates an environment below a folder unless it exists with these requirements, and returns its Python.

    Raises:
        InstallError: if the Python version is missing, or pip fails.
    """
    root = folder / environment.name
    checksum = zlib.crc32(repr((environment.python, environment.requirements)).encode())
    installed, python = root / f"installed-{checksum}", root / "bin" / "python"
    if installed.exists():
        return python
    base = find_python(environment.python)
    subprocess.run([base, "-m", "venv", "--clear", root], check=True)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    result = subprocess.run([*command, *environment.requirements], capture_output=True, text=True)
    if result.returncode:
        raise InstallError(last_line(result.stderr))
    installed.touch()
    return python


def last_line(text: str) -> str:
    """Returns the last line that is not empty."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message")
