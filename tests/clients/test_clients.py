# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Clients: exported files in the programs of others; docs/exports.md shows what was measured and the code that ran."""

import ast
import json
import pathlib

import average_precision
import client_table
import environments
import exports_page
import numpy as np
import pytest
from agreement import Agreement
from client_table import CLIENTS, Client
from workplace import VOC, WEIGHTS, Workplace, fit_image, whole_pixels

ROOT = pathlib.Path(__file__).parents[2]


def row(box, score, class_id, name="cell"):
    return {"box": box, "score": score, "class": class_id, "name": name}


def test_agreement_golden():
    """By hand: boxes of 100x100 pixels, one moved by 1 pixel (IoU 99 / 101), one by 10 (IoU 90 / 110)."""
    expected = [row([0, 0, 100, 100], 0.9, 1), row([200, 0, 300, 100], 0.8, 2, "dog"), row([0, 200, 100, 300], 0.7, 1)]
    found = [
        {"box": [0, 1, 100, 101], "score": 0.88, "class": 1},
        {"box": [200, 0, 300, 100], "score": 0.8, "class": "dog"},  # names are as good as ids
        {"box": [0, 210, 100, 310], "score": 0.7, "class": 1},
        {"box": [200, 0, 300, 100], "score": 0.5, "class": 1},  # of another class
    ]
    agreement = Agreement()
    agreement.add(expected, found, min_iou=0.9)
    assert (agreement.expected, agreement.found, agreement.more) == (3, 2, 2)
    assert agreement.lowest_iou == pytest.approx(99 / 101)
    assert agreement.score_difference == pytest.approx(0.02)
    agreement.add(expected[:1], [], min_iou=0.9)  # a second image
    assert (agreement.expected, agreement.found, agreement.more) == (4, 2, 2)


def test_a_detection_is_found_once():
    agreement = Agreement()
    agreement.add([row([0, 0, 9, 9], 0.9, 1)] * 2, [{"box": [0, 0, 9, 9], "score": 0.9, "class": 1}], min_iou=0.5)
    assert (agreement.expected, agreement.found, agreement.more) == (2, 1, 0)


@pytest.mark.parametrize(
    "result, expected",
    [
        ({"found": 10, "expected": 10}, None),
        ({"found": 9, "expected": 10}, "found 9 of 10 detections at IoU 0.99"),
        ({"error": "no metadata"}, "does not run: no metadata"),
        ({"found": 0, "expected": 0}, "the checkpoint detects nothing"),
    ],
)
def test_failures_tell_the_reason(result, expected):
    assert CLIENTS[0].failure(result) == expected


def test_an_environment_is_created_once_per_requirements(tmp_path, monkeypatch):
    commands = []

    def run(command, **options):
        commands.append([str(word) for word in command])
        if "venv" in command:
            pathlib.Path(command[-1]).mkdir(exist_ok=True)
        return type("Result", (), {"returncode": 0})

    monkeypatch.setattr(environments.subprocess, "run", run)
    first = client_table.Environment("env", ("a==1", "b"))
    for _ in range(2):
        assert environments.create(first, tmp_path) == tmp_path / "env/bin/python"
    installs = [command for command in commands if "install" in command]
    assert len(installs) == 1 and installs[0][-2:] == ["a==1", "b"]
    environments.create(client_table.Environment("env", ("a==2", "b")), tmp_path)
    assert len([command for command in commands if "install" in command]) == 2


def test_a_missing_python_is_named():
    with pytest.raises(environments.InstallError, match=r"Python 2\.9 is not installed"):
        environments.find_python("2.9")


def test_fitted_images_are_scaled_and_padded_golden():
    """By hand: halves of 2x2 equal pixels, at the top left of the mean color."""
    image = np.kron(np.uint8([[10, 20], [30, 40], [50, 60]]), np.ones([2, 2], np.uint8))  # [6, 4]
    fitted = fit_image(np.stack([image] * 3, -1), 3)
    np.testing.assert_array_equal(fitted[..., 0], [[10, 20, 127], [30, 40, 127], [50, 60, 127]])


def test_whole_pixels_golden():
    assert whole_pixels([10.9, 20.2, 20.8, 40.5]) == [10, 20, 19, 40]  # 9.9 high, 20.3 wide


def test_average_precision_is_of_both_programs_that_stretch():
    found = average_precision.clients()
    assert [client.images for client in found] == ["images", "squares", "fitted"] * 2
    assert [client.title for client in found[::3]] == ["MediaPipe Tasks", "TFLite Task Library"]
    assert all("--tflite=FP32" in client.file.flags and client.file == found[0].file for client in found)


def test_names_of_clients_are_unique():
    assert len({client.name for client in CLIENTS}) == len(CLIENTS)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_snippet_is_code_that_calls_the_package(client: Client):
    code, script = client.snippet(), (client_table.FOLDER / f"{client.script}.py").read_text()
    ast.parse(code)
    assert code.startswith(("import", "from")) and "[docs]" not in code
    for line in code.splitlines():
        assert line.strip() in script


def test_the_page_shows_the_results():
    """docs/exports.md is written by `python tests/clients/run_clients.py --write`, never by hand."""
    results = json.loads(exports_page.RESULTS.read_text())
    assert results.keys() == {client.name for client in CLIENTS}
    text = exports_page.PAGE.read_text()
    measured = text.partition(exports_page.BEGIN)[2].partition(exports_page.END)[0]
    assert measured == exports_page.render(results)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    if not WEIGHTS.exists() or not VOC.exists():
        pytest.skip(f"needs {WEIGHTS} and {VOC}")
    return Workplace(tmp_path_factory.mktemp("workplace"), ROOT / ".venv" / "clients")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client_finds_what_the_checkpoint_finds(workplace, client):
    """Downloads packages, about 4 GB when all are installed."""
    result = workplace.measure(client)
    if "is not installed" in result.get("error", ""):
        pytest.skip(result["error"])
    assert client.failure(result) is None
