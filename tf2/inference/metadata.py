# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Metadata embedded in exported files: model, content, class names, thresholds and normalization.

The JSON text is part of the file:
  SavedModel     assets.extra/efficientdet.json
  frozen graph   a string constant, the node efficientdet_json
  TFLite         efficientdet.json in a ZIP archive after the flatbuffer, as in TFLite Metadata
  ONNX           the key efficientdet_json of metadata_props
"""

import dataclasses
import json
import zipfile
from collections.abc import Mapping

import tensorflow as tf

from dataset import label_map
from dataset.check import class_ids
from efficientdet.config import VERSION, Config, ConfigError

FORMAT = 1  # version of the JSON text
METADATA_FILE = "efficientdet.json"
METADATA_KEY = "efficientdet_json"
CONTENTS = {
    "detector": "images (uint8 RGB, any size) -> detections in pixels of the image",
    "detection_op": "normalized images -> detections of the op TFLite_Detection_PostProcess",
    "network": "normalized images -> class logits and box codes per level",
}


class ArtifactError(ValueError):
    """An exported file that is missing, damaged, or not a detector."""


class ExportError(ValueError):
    """An export that cannot be written with the given options."""


def check_calibration(precision: str, images: object) -> None:
    """Raises ExportError for INT8 without calibration images, or without a pattern of their files."""
    if precision == "INT8" and images is None:
        raise ExportError("INT8 needs calibration images: give --file_pattern of TFRecords")


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Description of an exported file."""

    config: Config
    content: str = "detector"  # a key of CONTENTS
    precision: str = "FP32"  # FP32, FP16 or INT8: of the weights; for INT8 of the activations, too
    checkpoint: str = "random weights"  # source of the weights

    def to_json(self) -> str:
        """Returns the JSON text; keys that repeat `hparams` are meant for other programs."""
        config = self.config
        text = {
            "format": FORMAT,
            "version": VERSION,
            "tensorflow": tf.__version__,
            "model_name": config.name,
            "content": self.content,
            "meaning": CONTENTS[self.content],
            "precision": self.precision,
            "checkpoint": self.checkpoint,
            "image_size": list(config.image_size),  # [height, width]
            "keep_aspect_ratio": config.keep_aspect_ratio,  # False: images are stretched to image_size
            **config.colors,
            "nms_configs": dataclasses.asdict(config.nms_configs),
            "label_map": label_map.resolve(config.label_map),
            "hparams": {key: value for key, value in config.difference(Config()).items() if key != "label_map"},
        }
        return json.dumps(text, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes, path: str) -> "Metadata":
        """Parses the text written by `to_json` in the exported file `path`.

        Raises:
            ArtifactError: if the text is invalid, or written by a newer version.
        """
        try:
            fields = json.loads(text)
            if fields["format"] > FORMAT:
                raise ArtifactError(f"{path} was exported by the newer version {fields['version']}; update this one")
            names = {int(class_id): name for class_id, name in fields["label_map"].items()}
            config = Config().override(fields["hparams"], {"label_map": names or None})
            return cls(config, fields["content"], fields["precision"], fields["checkpoint"])
        except (ConfigError, LookupError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ArtifactError(f"{path} has metadata that cannot be read ({error}); export it again") from error


def stored_names(metadata: Metadata | None, path: str) -> class_ids.NamedIds:
    """Returns the class names in the metadata of an exported file, which may have none."""
    return class_ids.of_label_map(metadata.config.label_map if metadata else None, path)


def append_zip(path: str, files: Mapping[str, str]) -> None:
    """Appends {name: text} as a ZIP archive to a TFLite file, which is read by offsets from its start."""
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in files.items():
            archive.writestr(name, text.encode("utf-8", "backslashreplace"))


def read_zip(path: str) -> Metadata | None:
    """Reads the metadata from the archive in a TFLite file; None if there is none."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file, zipfile.ZipFile(file) as archive:
            return Metadata.from_json(archive.read(METADATA_FILE), path)
    except (zipfile.BadZipFile, KeyError):
        return None
