# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Datasets of the synthetic images of `scenes`: image files, COCO annotations and TFRecords."""

import json
import re
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from dataset import scenes
from dataset.convert import coco, shards
from dataset.convert.conversion_report import ConversionReport
from dataset.files import check_local, write_file

NUM_SHARDS = 4


def create(
    output_dir: str | Path,
    *,
    num_images: int,
    image_size: tuple[int, int] = (160, 160),
    seed: int = 0,
    prefix: str = "sample",
    num_shards: int = NUM_SHARDS,
) -> ConversionReport:
    """Writes images/*.jpg, annotations.json in COCO format with ids from 1, `{prefix}-*.tfrecord` and their report.

    Args:
        output_dir: folder; images of an earlier run in it are replaced or removed.
        num_images: from 1.
        image_size: (height, width), pixels.
        seed: from 0; each seed draws other images.
        prefix: prefix of the shard names.
        num_shards: number of TFRecord files, from 1.

    Raises:
        DataError: if the folder contains another number of shards with this prefix.
    """
    check_local(output_dir, "output_dir")
    images_dir, annotations_path = Path(output_dir, "images"), Path(output_dir, "annotations.json")
    images_dir.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index in tqdm(range(num_images), desc="drawing", unit="image"):
        scene, image_id = scenes.make_scene(seed, index, image_size), index + 1
        height, width = image_size
        images.append({"id": image_id, "file_name": f"{image_id:06d}.jpg", "height": height, "width": width})
        Image.fromarray(scene.image).save(images_dir / images[-1]["file_name"], **scenes.JPEG_OPTIONS)
        for class_id, (ymin, xmin, ymax, xmax) in zip(scene.classes.tolist(), scene.boxes.tolist(), strict=True):
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": class_id}
            box, area = [xmin, ymin, xmax - xmin, ymax - ymin], (xmax - xmin) * (ymax - ymin)
            annotations.append({**ids, "bbox": box, "area": area, "iscrowd": 0})
    file_names = {image["file_name"] for image in images}
    for path in images_dir.glob("*.jpg"):  # of an earlier, larger run; other names are kept
        if re.fullmatch(r"[0-9]{6}|[1-9][0-9]{6,}", path.stem) and path.name not in file_names:
            path.unlink()
    categories = [{"id": class_id, "name": name} for class_id, name in scenes.CLASS_NAMES.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_file(annotations_path, json.dumps(content))
    source = coco.load(images_dir, object_annotations_file=annotations_path)
    return shards.write_shards(source, Path(output_dir, prefix), num_shards=num_shards)
