# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Clean records with their groundtruth file, planted faults, and the check of both; shared by the tests of checks."""

import dataclasses
import io
import json

import numpy as np
import tensorflow as tf
from PIL import Image

from dataset import scenes, tfrecord
from dataset.check import checks, data_report, json_checks, record_facts
from efficientdet import config as config_lib

NAMES = scenes.CLASS_NAMES
SIZE = (96, 128)  # (height, width)
SIZES = np.tile(SIZE, 2)
NUM_IMAGES = 24


def config(**overrides):
    return config_lib.load("efficientdet-lite0", num_classes=3, label_map=NAMES).override(overrides)


def jpeg(image):
    with io.BytesIO() as file:
        Image.fromarray(image).save(file, "JPEG", quality=92)
        return file.getvalue()


def groundtruth_of(records):
    images, annotations = [], []
    for record in records:
        images.append({"id": int(record.source_id), "file_name": record.filename})
        images[-1].update(height=record.height, width=record.width)
        for box, class_id in zip(np.asarray(record.boxes_norm) * np.tile(SIZE, 2), record.classes):
            ymin, xmin, ymax, xmax = box.tolist()
            row = {"id": len(annotations) + 1, "image_id": images[-1]["id"], "category_id": class_id, "iscrowd": 0}
            annotations.append({**row, "bbox": [xmin, ymin, xmax - xmin, ymax - ymin]})
    categories = [{"id": class_id, "name": name} for class_id, name in NAMES.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(path, serialized):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in serialized:
            writer.write(record)
    return str(path)


def check(pattern, config, groundtruth=None):
    """Returns the findings of the whole check."""
    facts = record_facts.read(pattern, regenerate_source_id=config.regenerate_source_id)
    statistics = data_report.compute_statistics(facts, config)
    findings = checks.run(facts, config, groundtruth, statistics["anchors"])
    assert max(map(len, data_report.table(statistics, findings).splitlines())) <= 120
    return findings


def check_records(tmp_path, records, groundtruth=None, **overrides):
    pattern = write(tmp_path / "x.tfrecord", map(tfrecord.encode, records))
    if groundtruth is not None:
        (tmp_path / "x.json").write_text(json.dumps(groundtruth))
        groundtruth = json_checks.load(str(tmp_path / "x.json"))
    return check(pattern, config(**overrides), groundtruth)


def codes(findings):
    return {finding.code for finding in findings}


def change_boxes(record, change):
    return dataclasses.replace(record, boxes_norm=change(np.reshape(record.boxes_norm, [-1, 4])))


def boxes_by(change):
    return lambda records: [change_boxes(record, change) for record in records]


def classes_by(change, names=True):
    def plant(records):
        changed = [dataclasses.replace(r, classes=[change(class_id) for class_id in r.classes]) for r in records]
        return changed if names else [dataclasses.replace(record, class_names=()) for record in changed]

    return plant


def renumber(source_id):
    return lambda records: [dataclasses.replace(record, source_id=source_id(record)) for record in records]


def annotations_by(change):
    def plant(groundtruth):
        for row in groundtruth["annotations"]:
            row.update(change(row))

    return plant


def other_ids(groundtruth):
    annotations_by(lambda row: {"category_id": {1: 3, 2: 1, 3: 2}[row["category_id"]]})(groundtruth)
    for category in groundtruth["categories"]:
        category["id"] = {1: 3, 2: 1, 3: 2}[category["id"]]


def text_of(findings, level, code):
    [text] = [finding.text for finding in findings if (finding.level, finding.code) == (level, code)]
    return text
