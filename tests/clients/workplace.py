# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The folder in which files are exported from a detector of blood cells, and in which clients run."""

import dataclasses
import json
import pathlib
import shlex
import shutil
import subprocess
import sys
from typing import Any

import client_table
import environments
from agreement import Agreement
from client_table import Client, File

from efficientdet import config as config_lib
from tf2.training.model_dir import ModelDir

ROOT = pathlib.Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
WEIGHTS = SHARED / "weights" / "efficientdet-lite0-bccd"
VOC = SHARED / "data" / "VOCdevkit"
NUM_IMAGES = 6  # the first of the test split
LABELS = {1: "RBC", 2: "WBC", 3: "Platelets"}


class Workplace:
    """A folder with a trained detector, images, and the files that are exported from it when they are first needed."""

    def __init__(self, folder: pathlib.Path, environments_folder: pathlib.Path):
        """Prepares a folder; what an earlier call left in it is kept, exported files among it."""
        self.folder, self.environments_folder = folder, environments_folder
        checkpoint = folder / client_table.CHECKPOINT
        shutil.copytree(WEIGHTS, checkpoint, dirs_exist_ok=True)
        config = config_lib.load("efficientdet-lite0", num_classes=4, label_map=LABELS)
        ModelDir(str(checkpoint)).write_config(config)
        (folder / "images").mkdir(exist_ok=True)
        for name in (VOC / "BCCD/ImageSets/Main/test.txt").read_text().split()[:NUM_IMAGES]:
            shutil.copy(VOC / f"BCCD/JPEGImages/{name}.jpg", folder / "images")

    def expected(self, client: Client) -> list[list[dict]]:
        """Returns the detections of the checkpoint per image, with images stretched or padded as the client does."""
        results = self.folder / ("stretched.json" if client.stretches else "padded.json")
        if not results.exists():
            flags = (
                f"--runmode=infer --ckpt_path={client_table.CHECKPOINT} --input_image=images --output_json={results}"
            )
            self._run("model_inspect.py", f"{flags} {client_table.STRETCH}" if client.stretches else flags)
        return [image["detections"] for image in json.loads(results.read_text())["images"]]

    def exported(self, file: File) -> pathlib.Path:
        """Returns the path of an exported file."""
        path = self.folder / file.path
        if not path.exists():
            if file.needs_records and not any(self.folder.glob(client_table.CALIBRATION)):
                self._write_records()
            self._run("model_inspect.py", f"{file.flags} --noparity")
        return path

    def measure(self, client: Client) -> dict[str, Any]:
        """Runs a client, and returns its figures: those of Agreement, or an "error"."""
        try:
            python = environments.create(client.environment, self.environments_folder)
        except environments.InstallError as error:
            return {"error": str(error)}
        command = [python, client_table.FOLDER / f"{client.script}.py", self.exported(client.file)]
        images = sorted((self.folder / "images").iterdir())
        process = subprocess.run([*command, *images], cwd=self.folder, capture_output=True, text=True, timeout=600)
        if process.returncode:
            return {"error": environments.last_line(process.stderr).replace(f"{self.folder}/", "")}
        agreement = Agreement()
        for expected, found in zip(self.expected(client), json.loads(process.stdout), strict=True):
            agreement.add(expected, found, client.min_iou)
        return dataclasses.asdict(agreement)

    def _write_records(self) -> None:
        """Writes the records with which INT8 is calibrated."""
        (self.folder / "labels.json").write_text(json.dumps({name: class_id for class_id, name in LABELS.items()}))
        flags = f"--data_dir={VOC} --year=BCCD --set=trainval --label_map_json_path=labels.json --num_shards=1"
        self._run("dataset/create_pascal_tfrecord.py", f"{flags} --output_path={client_table.CALIBRATION_PREFIX}")

    def _run(self, script: str, flags: str) -> None:
        """Runs a script of ours in the folder."""
        command = [sys.executable, str(ROOT / script), *shlex.split(flags)]
        result = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(f"{shlex.join(command)}\n{result.stdout}\n{result.stderr}")
