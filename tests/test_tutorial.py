# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of tutorial.ipynb: the committed outputs are complete and small; a run from top to bottom trains a detector."""

import csv
import os
import pathlib
import re
import shlex
import sys
import types
from importlib import metadata

import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from test_readme import flags_of

from dataset import scenes
from efficientdet import boxes as box_ops

ROOT = pathlib.Path(__file__).parents[1]
PATH = ROOT / "tutorial.ipynb"
NOTEBOOK = nbformat.read(PATH, as_version=nbformat.NO_CONVERT)
CODE = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]
ABSL_FLAGS = {"verbosity"}  # accepted by every script


def printed(cells) -> str:
    """Returns the printed output of code cells."""
    return "".join(output.text for cell in cells for output in cell.outputs if output.output_type == "stream")


def ap50_of(text: str) -> float:
    """Returns the AP50 that the notebook prints after its training."""
    return float(re.search(r"^AP [\d.]+, AP50 ([\d.]+)$", text, re.MULTILINE)[1])


def test_committed_outputs_are_of_one_complete_run():
    nbformat.validate(NOTEBOOK)
    assert NOTEBOOK.nbformat == 4
    assert [cell.execution_count for cell in CODE] == list(range(1, len(CODE) + 1))
    outputs = [output for cell in CODE for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data"}  # no error
    assert all(output.name == "stdout" for output in outputs if output.output_type == "stream")  # no warning
    kinds = [kind for output in outputs for kind in output.get("data", {}) if kind.startswith("image/")]
    assert len(kinds) >= 5
    assert PATH.stat().st_size < 900_000  # bytes


def test_outputs_contain_no_local_paths_or_warnings():
    everything = "\n".join([*(cell.source for cell in NOTEBOOK.cells), printed(CODE)])
    assert not re.findall(r"(?<![\w.:/])/(?:tmp|home|root|work|usr|var|Users|content)\b.*", everything)
    assert not re.findall(r"(?i)\bTODO\b|\bFIXME\b|warning|traceback|^error.*", everything, re.MULTILINE)
    assert "\r" not in everything and "\x1b" not in everything


def test_the_badge_opens_this_repository():
    link = re.search(r"\[!\[Open in Colab\]\((\S+)\)\]\((\S+)\)", NOTEBOOK.cells[0].source)
    repository = re.search(r'^REPOSITORY = "(.*)"$', CODE[0].source, re.MULTILINE)[1]
    assert link[1] == "https://colab.research.google.com/assets/colab-badge.svg"
    assert link[2] == f"https://colab.research.google.com/github/{repository}/blob/main/tutorial.ipynb"
    assert link[0] in (ROOT / "README.md").read_text()


def test_commands_use_flags_that_exist():
    sources = re.sub(r"\\\n *", "", "\n".join(cell.source for cell in NOTEBOOK.cells))
    commands = [shlex.split(line) for line in re.findall(r"^ *!python (.*)$", sources, re.MULTILINE)]
    assert {command[0] for command in commands} >= {"main.py", "model_inspect.py", "dataset/create_sample_data.py"}
    for script, *arguments in commands:
        typed = {argument.lstrip("-").split("=")[0] for argument in arguments}
        assert typed <= flags_of(script) | ABSL_FLAGS, f"{script} has no {typed - flags_of(script)}"


def test_links_exist():
    for cell in NOTEBOOK.cells:
        for target in re.findall(r"\]\(([^)#]+)\)", cell.source) if cell.cell_type == "markdown" else []:
            assert target.startswith("https://") or (ROOT / target).exists(), f"the notebook links to {target}"


def test_the_committed_outputs_are_of_photographs():
    text = printed(CODE)
    assert "tutorial/BCCD: 364 images" in text and "start: efficientnet-lite0" in text
    assert ap50_of(text) > 0.8


def run_first_cell(called: list[str], clone_to: pathlib.Path | None = None) -> dict:
    """Runs the installation cell with a replacement of the shell; returns its variables."""

    def system(command: str):
        called.append(command)
        if command.startswith("git clone"):
            clone_to.symlink_to(ROOT)

    names = {"get_ipython": lambda: types.SimpleNamespace(system=system)}
    exec(TransformerManager().transform_cell(CODE[0].source), names)
    return names


def test_the_first_cell_installs_nothing_if_complete(monkeypatch, capsys):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.chdir(ROOT)
    called = []
    run_first_cell(called)
    assert not called
    assert "installed: nothing" in capsys.readouterr().out


def test_the_first_cell_clones_and_installs_missing_packages(monkeypatch, tmp_path):
    versions = {"tensorflow": "2.20.0", "tensorboard": "2.20.0", "tf-keras": "2.19.0", "pycocotools": None}
    real = metadata.version

    def version(name: str) -> str:
        if name in versions and versions[name] is None:
            raise metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.chdir(tmp_path)
    called = []
    names = run_first_cell(called, tmp_path / "efficientdet-tf2")
    clone, install = called
    assert clone.startswith("git clone") and "https://github.com/{REPOSITORY} efficientdet-tf2" in clone
    assert install.endswith("-m pip install --quiet {packages}")
    # TensorFlow is pinned to its installed version, so that no other package replaces it.
    assert shlex.split(names["packages"]) == ["tf-keras==2.20.*", "pycocotools>=2.0.8", "tensorflow==2.20.0"]
    assert pathlib.Path.cwd() == ROOT


@pytest.mark.slow
@pytest.mark.both_lanes
def test_from_top_to_bottom(monkeypatch, tmp_path):
    for path in ROOT.iterdir():  # like a clone; files that the notebook writes stay in tmp_path
        if path.name not in ("demo", "tutorial") and not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    for name in ("http_proxy", "https_proxy", "EFFICIENTDET_WEIGHTS_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # no server answers there
    notebook = nbformat.read(PATH, as_version=4)
    # In this test, a failing command is an error.
    notebook.cells.insert(0, nbformat.v4.new_code_cell("get_ipython().system_raise_on_error = True"))
    NotebookClient(
        notebook,
        timeout=900,  # seconds per cell
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
        coalesce_streams=True,
    ).execute()

    text = printed(cell for cell in notebook.cells if cell.cell_type == "code")
    assert f"Python {sys.version.split()[0]}" in text
    assert "the notebook continues with generated images" in text and "start: random weights" in text
    ap50 = ap50_of(text)
    assert ap50 > 0.7
    with (tmp_path / "tutorial/run/eval.csv").open() as file:
        assert float(list(csv.DictReader(file))[-1]["AP50"]) == pytest.approx(ap50, abs=1e-3)
    assert len(re.findall(r"^(?:detector\.tflite|saved_model|\S+_frozen\.pb) .* passed$", text, re.MULTILINE)) == 3
    assert (tmp_path / "tutorial/run/report/index.html").is_file()
    assert recall(tmp_path / "tutorial/detector.tflite") > 0.6


def recall(path: pathlib.Path, num_images: int = 40) -> float:
    """Returns the share of objects in new images that an exported detector finds, with class and IoU above 0.5."""
    from tf2.inference import drivers

    detector, found, total = drivers.open_artifact(str(path)), 0, 0
    for index in range(num_images):
        scene = scenes.make_scene(seed=5, index=index, image_size=(128, 128))
        detections = detector.detect(scene.image)
        ious = box_ops.iou(scene.boxes[:, np.newaxis].astype(np.float32), detections.boxes).numpy()
        found += ((ious > 0.5) & (scene.classes[:, np.newaxis] == detections.classes)).any(axis=1).sum()
        total += len(scene.boxes)
    return found / total
