# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests that run every command of README.md and docs/, on a few small images and with tiny networks.

Commands that need GPUs, TPUs, other machines or buckets, or that measure for minutes, are only checked by
test_readme.py; those of docs/exports.md are run by `make clients`.
"""

import ast
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import test_readme
import yaml

from dataset import label_map
from efficientdet import config as config_lib

ROOT = test_readme.ROOT
TINY = {"image_size": 64, "fpn_num_filters": 8, "fpn_cell_repeats": 1, "box_class_repeats": 1}
# One training step on four images; the last occurrence of a flag counts.
ONE_STEP = ["--train_batch_size=4", "--num_epochs=1"]
SKIPPED = ("--strategy=", "gs://", "tf2/benchmarks/", "tests/kill_", "tests/collectives", "exports/", "tests/clients")
RELEASED = ("efficientdet-d0", "efficientdet-d4", "efficientdet-lite0")
# Patterns of commands in the order of their execution, because some read files that others write.
ORDER = (
    "wget",
    "unzip",
    "tar",
    "mkdir",
    "dataset/create_",
    "--mode=train",
    "--runmode=(ckpt|saved_model |onnx|freeze)",
    "",
)


def all_lines() -> list[str]:
    """Returns the commands of all documents, without duplicates, in an order in which they can run."""
    found = [line for path in test_readme.DOCUMENTS for line in test_readme.lines(path)]
    wanted = re.compile(rf"{test_readme.MEASURED}python \S+\.py|wget|unzip|tar|mkdir")
    found = [line for line in dict.fromkeys(found) if wanted.match(line) and not any(part in line for part in SKIPPED)]
    return sorted(found, key=lambda line: next(i for i, pattern in enumerate(ORDER) if re.search(pattern, line)))


def run(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess:
    """Runs a script in the sandbox, which contains tiny weights with released names; downloads fail."""
    environment = {"EFFICIENTDET_CACHE": str(folder / "cache"), "EFFICIENTDET_WEIGHTS_URL": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """A folder like a clone, with small replacements of the data and downloads that the documents name."""
    folder = tmp_path_factory.mktemp("clone")
    for path in ROOT.iterdir():
        if path.name not in ("demo", "tutorial") and not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    (folder / "tmp").mkdir()
    shutil.copy(ROOT / "testdata" / "img1.jpg", folder / "photo.jpg")
    assert run(folder, "dataset/create_sample_data.py", "--output_dir=shapes", "--num_images=4").returncode == 0
    groundtruth = json.loads((folder / "shapes" / "annotations.json").read_text())
    images = sorted((folder / "shapes" / "images").iterdir())
    make_coco(folder / "downloads", images, groundtruth)
    for data_dir in ("VOCdevkit", "BCCD_Dataset"):
        make_voc(folder / data_dir / "BCCD", images, groundtruth, ["RBC", "WBC", "Platelets"])
    make_voc(folder / "VOCdevkit" / "SHOP", images, groundtruth, ["bottle", "box", "can"])
    make_voc(folder / "downloads" / "VOCdevkit" / "VOC2012", images, groundtruth, ["cat", "dog", "person"])
    with tarfile.open(folder / "downloads" / "VOCtrainval_11-May-2012.tar", "w") as archive:
        archive.add(folder / "downloads" / "VOCdevkit", "VOCdevkit")
    make_shop(folder, images)
    shutil.make_archive(str(folder / "shop"), "zip", folder / "VOCdevkit" / "SHOP")
    make_video(folder / "street.mp4")
    for name in RELEASED:
        write = ["--runmode=ckpt", "--ckpt_path=_", f"--model_name={name}", f"--export_ckpt=cache/{name}/model"]
        assert run(folder, "model_inspect.py", *write, f"--hparams={tiny(folder, '')}").returncode == 0
    shutil.copytree(folder / "cache" / "efficientdet-lite0", folder / "cache" / "efficientnet-lite0")
    shutil.copytree(folder / "cache" / "efficientdet-lite0", folder / "demo" / "model")
    return folder


def make_coco(folder: pathlib.Path, images: list[pathlib.Path], groundtruth: dict) -> None:
    """Writes archives like those of COCO, with a few images."""
    folder.mkdir()
    info = {key: groundtruth[key] for key in ("images", "categories")}
    files = {
        "annotations_trainval2017.zip": {"annotations/instances_val2017.json": json.dumps(groundtruth)},
        "image_info_test2017.zip": {"annotations/image_info_test-dev2017.json": json.dumps(info)},
        **{
            f"{name}.zip": {f"{name}/{path.name}": path.read_bytes() for path in images}
            for name in ("val2017", "test2017")
        },
    }
    for name, members in files.items():
        with zipfile.ZipFile(folder / name, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)


def make_voc(folder: pathlib.Path, images: list[pathlib.Path], groundtruth: dict, names: list[str]) -> None:
    """Writes a folder like Pascal VOC; every split contains all images."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for name in ("train", "val", "trainval", "test"):
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{path.stem}\n" for path in images))
    for path, image in zip(images, groundtruth["images"]):
        shutil.copy(path, folder / "JPEGImages")
        objects = ""
        for row in groundtruth["annotations"]:
            if row["image_id"] == image["id"]:
                x, y, w, h = row["bbox"]
                corners = f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
                objects += f"<object><name>{names[row['category_id'] - 1]}</name><bndbox>{corners}</bndbox></object>"
        size = f"<size><width>{image['width']}</width><height>{image['height']}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{path.name}</filename>{size}{objects}</annotation>"
        (folder / "Annotations" / f"{path.stem}.xml").write_text(text)


def make_shop(folder: pathlib.Path, images: list[pathlib.Path]) -> None:
    """Writes the images and the config of docs/own_data.md; its annotations are in VOCdevkit."""
    (folder / "shop_images").mkdir()
    for path in images:
        shutil.copy(path, folder / "shop_images")
    guide = (ROOT / "docs" / "own_data.md").read_text()
    (folder / "shop.yaml").write_text(re.search(r"```yaml\n(.*?)```", guide, re.DOTALL)[1])


def make_video(path: pathlib.Path) -> None:
    """Writes a video of four frames."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 5, (96, 64))
    for i in range(4):
        writer.write(np.full((64, 96, 3), 60 * i, np.uint8))
    writer.release()


def tiny(folder: pathlib.Path, hparams: str) -> str:
    """Writes a config with the keys of --hparams and a tiny network; returns its path."""
    if hparams.endswith(".yaml"):
        hparams = str(folder / hparams)
    keys = {**config_lib.read_hparams(hparams), **TINY}
    path = folder / "tmp" / f"{abs(hash(hparams))}.yaml"
    path.write_text(yaml.safe_dump(keys))
    return str(path)


def arguments_of(folder: pathlib.Path, line: str) -> list[str]:
    """Returns script and flags of a line, with a tiny network, one training step, and /tmp inside of the sandbox."""
    words = shlex.split(re.sub(rf"^{test_readme.MEASURED}python ", "", line).replace("/tmp/", f"{folder}/tmp/"))
    flags = test_readme.typed(words)
    if words[0] in ("main.py", "model_inspect.py") and ("saved_model_dir" not in flags or "ckpt_path" in flags):
        words.append(f"--hparams={tiny(folder, flags.get('hparams', ''))}")
    if {"train_file_pattern", "data"} & flags.keys():
        words += ONE_STEP
    if "train_file_pattern" in flags:
        words.append("--num_examples_per_epoch=4")
    for name in ("bm_runs", "num_calibration_steps", "num_images"):
        if name in flags:
            words.append(f"--{name}=2")
    return words


def run_shell_line(folder: pathlib.Path, line: str) -> bool:
    """Runs wget, unzip, tar and mkdir, without downloading; returns False for another program."""
    program, *words = shlex.split(line)
    if program == "wget":
        shutil.copy(folder / "downloads" / words[0].rsplit("/", 1)[-1], folder)
    elif program == "unzip":
        with zipfile.ZipFile(folder / words[-1]) as archive:
            archive.extractall(folder)
    elif program == "tar":
        with tarfile.open(folder / words[-1]) as archive:
            archive.extractall(folder, filter="data")
    elif program == "mkdir":
        assert subprocess.run(line, shell=True, cwd=folder).returncode == 0
    else:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("line", all_lines(), ids=str)
def test_a_command_runs(sandbox, line):
    if run_shell_line(sandbox, line):
        return
    script, *flags = arguments_of(sandbox, line)
    prefix = test_readme.typed(flags).get("output_path") or test_readme.typed(flags).get("output_file_prefix")
    if prefix:  # documents convert the same data to different numbers of shards
        for path in sandbox.glob(f"{prefix}-*"):
            path.unlink()
    result = run(sandbox, script, *flags)
    assert result.returncode == 0, f"{line}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
    for name in (
        "output_image_dir",
        "report_dir",
        "output_json",
        "output_metrics",
        "onnx_path",
        "tflite_path",
        "model_dir",
    ):
        target = test_readme.typed(flags).get(name)
        assert target is None or (sandbox / target).exists(), f"{line} did not write {target}"


@pytest.mark.slow
def test_the_python_example_runs(sandbox):
    name = 'tf2.load("efficientdet-d0"'
    code = test_readme.python_call().replace(name, f"{name}, hparams={tiny(sandbox, '')!r}, min_score_thresh=0")
    result = run(
        sandbox, "-c", f"{code}\nassert len(names) == count == len(boxes) == len(scores) > 0\nprint(sorted(names))"
    )
    assert result.returncode == 0, result.stderr
    assert set(ast.literal_eval(result.stdout)) <= {label_map.name_of(label_map.COCO, i) for i in range(1, 91)}


def test_commands_are_found():
    found = all_lines()
    assert len(found) > 40
    for part in ("main.py --mode=eval", "--runmode=onnx", "dataset/create_pascal", "check_tfrecords", "wget http"):
        assert any(part in line for line in found), part
    assert label_map.resolve("voc")[8] == "cat"  # `sandbox` uses classes of VOC


def test_no_two_commands_export_to_one_file():
    exports = [test_readme.typed(shlex.split(line)) for line in all_lines() if "--runmode=" in line]
    written = [flags.get(name) for flags in exports for name in ("onnx_path", "tflite_path")]
    written += [flags.get("saved_model_dir") for flags in exports if flags["runmode"] == "saved_model"]
    assert sorted(filter(None, written)) == sorted({*filter(None, written)})
