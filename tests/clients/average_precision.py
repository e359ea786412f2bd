# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""AP of MediaPipe Tasks and the TFLite Task Library on the test images of BCCD, beside that of the checkpoint.

    python tests/clients/average_precision.py
    python tests/clients/average_precision.py --training=runs/bccd_stretched/archive

The programs detect in the images as they are, which they stretch, and in images that were padded before.
"""

import dataclasses
import json
import pathlib
import sys
import tempfile

from absl import flags

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import client_table
import numpy as np
from client_table import CLIENTS, FITTED, IMAGES, STRETCH, Client
from workplace import LABELS, WEIGHTS, Workplace

from dataset import command_line
from efficientdet.postprocess import Detections
from tf2.evaluation.coco_metric import CocoMetric

IMAGE_SIZE = 640  # pixels, the width of all images; their height is 480
SQUARES = "squares"  # a folder of images that were padded to IMAGE_SIZE
# Pixels of an image per pixel of the files of a folder.
FOLDERS = {IMAGES: 1, SQUARES: 1, FITTED: IMAGE_SIZE / 320}
MIN_SCORE = 0.001
FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines all flags; not done at import time."""
    with command_line.group("Detector"):
        flags.DEFINE_string("training", str(WEIGHTS), "Folder of an efficientdet-lite0 that was trained on BCCD.")


def main() -> None:
    """Prints a line per detector and kind of images."""
    with tempfile.TemporaryDirectory() as folder:
        environments_folder = ROOT / ".venv" / "clients"
        workplace = Workplace(pathlib.Path(folder), environments_folder, pathlib.Path(FLAGS.training), num_images=None)
        workplace.fit_images(SQUARES, IMAGE_SIZE)
        workplace.write_records("test")
        for title, hparams in (("padded", "keep_aspect_ratio=true"), ("stretched", STRETCH.partition("=")[2])):
            print(f"checkpoint, {title}: {checkpoint_ap(workplace, hparams):.4f}", flush=True)
        for client in clients():
            print(f"{client.title}, {client.images}: {client_ap(workplace, client):.4f}", flush=True)


def clients() -> list[Client]:
    """Returns the clients that stretch images, each with the images of every folder and a file for low scores."""
    found = {client.title: client for client in CLIENTS if client.stretches and "FP32" in client.file.path}
    assert len(found) == 2
    file = next(iter(found.values())).file
    file = dataclasses.replace(file, options=f"{file.options} --min_score_thresh={MIN_SCORE}")
    return [dataclasses.replace(client, file=file, images=name) for client in found.values() for name in FOLDERS]


def checkpoint_ap(workplace: Workplace, hparams: str) -> float:
    """Returns the AP of the checkpoint with the post-processing of exported files."""
    flags = f"--mode=eval --as_served --model_dir={client_table.CHECKPOINT} --val_file_pattern=bccd/test-*"
    flags += f" --hparams={hparams},nms_configs.method=hard,nms_configs.score_thresh={MIN_SCORE}"
    return json.loads(workplace.run("main.py", flags).splitlines()[-1])["AP"]


def client_ap(workplace: Workplace, client: Client) -> float:
    """Returns the AP of a client."""
    groundtruth = workplace.folder / "bccd" / "json_test.json"
    image_ids = {image["file_name"]: image["id"] for image in json.loads(groundtruth.read_text())["images"]}
    class_ids = {name: class_id for class_id, name in LABELS.items()}
    metric = CocoMetric(val_json_file=str(groundtruth))
    files = sorted((workplace.folder / client.images).iterdir())
    for file, rows in zip(files, workplace.detect(client), strict=True):
        boxes = np.reshape([row["box"] for row in rows], [1, -1, 4]) * FOLDERS[client.images]
        scores, classes = [[row["score"] for row in rows]], [[class_ids[row["class"]] for row in rows]]
        metric.add([image_ids[f"{file.stem}.jpg"]], Detections(boxes, scores, classes, [len(rows)]))
    return metric.result()["AP"]


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
