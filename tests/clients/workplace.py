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
import cv2
import environments
import numpy as np
from agreement import Agreement
from client_table import FITTED, IMAGES, Client, File

from efficientdet import config as config_lib
from tf2.training.model_dir import ModelDir
from tf2.weights import saved_config

ROOT = pathlib.Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
WEIGHTS = SHARED / "weights" / "efficientdet-lite0-bccd"
VOC = SHARED / "data" / "VOCdevkit"
NUM_IMAGES = 6  # the first of the test split
MODEL = "efficientdet-lite0"
PADDING = 127  # the mean color of lite models
LABELS = {1: "RBC", 2: "WBC", 3: "Platelets"}


class ClientError(RuntimeError):
    """A client that does not run."""


class Workplace:
    """A folder with a trained detector, images, and the files that are exported from it when they are first needed."""

    def __init__(
        self,
        folder: pathlib.Path,
        environments_folder: pathlib.Path,
        training: pathlib.Path = WEIGHTS,
        *,
        num_images: int | None = NUM_IMAGES,
    ):
        """Prepares a folder; what an earlier call left in it is kept, exported files among it.

        Args:
            folder: of the files.
            environments_folder: of the clients' packages.
            training: folder of a MODEL with the classes LABELS.
            num_images: of the test split that are copied; all if it is None.
        """
        self.folder, self.environments_folder = folder, environments_folder
        checkpoint = folder / client_table.CHECKPOINT
        shutil.copytree(training, checkpoint, dirs_exist_ok=True)
        config = saved_config.read(str(checkpoint))
        if config is None:  # of WEIGHTS
            config = config_lib.load(MODEL, num_classes=4, label_map=LABELS)
            ModelDir(str(checkpoint)).write_config(config)
        (folder / IMAGES).mkdir(exist_ok=True)
        for name in (VOC / "BCCD/ImageSets/Main/test.txt").read_text().split()[:num_images]:
            shutil.copy(VOC / f"BCCD/JPEGImages/{name}.jpg", folder / IMAGES)
        self.fit_images(FITTED, config.image_size[0])

    def fit_images(self, name: str, size: int) -> None:
        """Writes all images, scaled and padded to squares, to a folder; as PNG, which all programs decode alike."""
        (self.folder / name).mkdir(exist_ok=True)
        for file in (self.folder / IMAGES).iterdir():
            cv2.imwrite(str(self.folder / name / f"{file.stem}.png"), fit_image(cv2.imread(str(file)), size))

    def expected(self, client: Client) -> list[list[dict]]:
        """Returns the detections of the checkpoint per image, with images stretched or padded as the client does."""
        results = self.folder / f"{client.images}_{'stretched' if client.stretches else 'padded'}.json"
        if not results.exists():
            flags = f"--runmode=infer --ckpt_path={client_table.CHECKPOINT} --input_image={client.images}"
            flags += f" --output_json={results}"
            self.run("model_inspect.py", f"{flags} {client_table.STRETCH}" if client.stretches else flags)
        return [image["detections"] for image in json.loads(results.read_text())["images"]]

    def exported(self, file: File) -> pathlib.Path:
        """Returns the path of an exported file."""
        path = self.folder / file.path
        if not path.exists():
            if file.needs_records and not any(self.folder.glob(client_table.CALIBRATION)):
                self.write_records("trainval")
            self.run("model_inspect.py", f"{file.flags} --noparity")
        return path

    def detect(self, client: Client) -> list[list[dict]]:
        """Returns the detections of a client per image, by the names of the images.

        Raises:
            ClientError: if it does not run.
        """
        try:
            python = environments.create(client.environment, self.environments_folder)
        except environments.InstallError as error:
            raise ClientError(str(error)) from error
        command = [python, client_table.FOLDER / f"{client.script}.py", self.exported(client.file)]
        images = sorted((self.folder / client.images).iterdir())
        process = subprocess.run([*command, *images], cwd=self.folder, capture_output=True, text=True, timeout=600)
        if process.returncode:
            raise ClientError(environments.last_line(process.stderr).replace(f"{self.folder}/", ""))
        return json.loads(process.stdout)

    def measure(self, client: Client) -> dict[str, Any]:
        """Runs a client, and returns its figures: those of Agreement, or an "error"."""
        try:
            detections = self.detect(client)
        except ClientError as error:
            return {"error": str(error)}
        agreement = Agreement()
        for expected, found in zip(self.expected(client), detections, strict=True):
            if client.returns_whole_pixels:
                expected = [{**row, "box": whole_pixels(row["box"])} for row in expected]
            agreement.add(expected, found, client.min_iou)
        return dataclasses.asdict(agreement)

    def write_records(self, split: str) -> None:
        """Writes the records bccd/{split}-*, with which INT8 is calibrated, and bccd/json_{split}.json."""
        (self.folder / "labels.json").write_text(json.dumps({name: class_id for class_id, name in LABELS.items()}))
        flags = f"--data_dir={VOC} --year=BCCD --set={split} --label_map_json_path=labels.json --num_shards=1"
        self.run("dataset/create_pascal_tfrecord.py", f"{flags} --output_path=bccd/{split}")

    def run(self, script: str, flags: str) -> str:
        """Runs a script of ours in the folder, and returns what it prints to stdout."""
        command = [sys.executable, str(ROOT / script), *shlex.split(flags)]
        result = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(f"{shlex.join(command)}\n{result.stdout}\n{result.stderr}")
        return result.stdout


def whole_pixels(box: list[float]) -> list[int]:
    """Returns [ymin, xmin, ymax, xmax] with the upper left corner and the size rounded down."""
    ymin, xmin, ymax, xmax = box
    return [int(ymin), int(xmin), int(ymin) + int(ymax - ymin), int(xmin) + int(xmax - xmin)]


def fit_image(image: np.ndarray, size: int) -> np.ndarray:
    """Scales an image, [H, W, 3] uint8, and places it at the top left of a square of PADDING."""
    scale = size / max(image.shape)
    scaled = cv2.resize(image, None, fx=scale, fy=scale)
    fitted = np.full([size, size, 3], PADDING, np.uint8)
    fitted[: scaled.shape[0], : scaled.shape[1]] = scaled
    return fitted
