# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""What an exported file says of itself: which detector it is, what it computes, and how its inputs are made.

The text, JSON, travels inside the file, so that class names, thresholds and normalization cannot get lost:
  SavedModel     assets.extra/efficientdet.json
  frozen graph   a string constant, the node efficientdet_json
  TFLite         efficientdet.json in a ZIP archive behind the flatbuffer, where TFLite Metadata has its files, too
  ONNX           the key efficientdet_json of metadata_props
"""

import dataclasses
import json
import zipfile

import tensorflow as tf

from dataset import label_map
from efficientdet.config import VERSION, Config, ConfigError

FORMAT = 1  # of the text
METADATA_FILE = "efficientdet.json"
METADATA_KEY = "efficientdet_json"
CONTENTS = {
    "detector": "pictures (uint8 RGB, any size) -> detections in pixels of the picture",
    "detection_op": "normalized images -> detections of the op TFLite_Detection_PostProcess",
    "network": "normalized images -> class logits and box codes of every level",
}
PRECISIONS = ("FP32", "FP16", "INT8")


class ArtifactError(ValueError):
    """An exported file that is missing, damaged, or not a detector."""


class ExportError(ValueError):
    """A format that cannot be written as asked."""


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What an artifact is."""

    config: Config
    content: str = "detector"  # a key of CONTENTS
    precision: str = "FP32"  # one of PRECISIONS: of the weights, INT8 of the activations too
    checkpoint: str = "random weights"  # what it was made of

    def to_json(self) -> str:
        """The text; what stands in it besides `hparams` and `label_map` is for readers without this program."""
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
            **{key: value if isinstance(value, (bool, float)) else list(value) for key, value in config.colors.items()},
            "nms_configs": dataclasses.asdict(config.nms_configs),
            "label_map": class_names(config),
            "hparams": {key: value for key, value in config.difference(Config()).items() if key != "label_map"},
        }
        return json.dumps(text, indent=1, ensure_ascii=False)

    def of(self, content: str) -> "Metadata":
        """The same detector by another of the contents of its file."""
        return dataclasses.replace(self, content=content)

    @classmethod
    def from_json(cls, text: str | bytes, path: str) -> "Metadata":
        """The artifact that a text describes.

        Args:
            text: as `to_json` writes it.
            path: of the artifact, for messages.

        Raises:
            ArtifactError: if the text is of another program, or of a newer version.
        """
        try:
            fields = json.loads(text)
            if fields["format"] > FORMAT:
                raise ArtifactError(f"{path} was exported by the newer version {fields['version']}; update this one")
            names = {int(class_id): name for class_id, name in fields["label_map"].items()}
            config = Config().override(fields["hparams"], {"label_map": names or None})
            return cls(config, fields["content"], fields["precision"], fields["checkpoint"])
        except (ConfigError, LookupError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ArtifactError(f"{path} does not describe itself readably ({error}); export it again") from error


def class_names(config: Config) -> dict[int, str]:
    """Class names: the config's own; COCO's only for its 90 classes; else none."""
    return label_map.resolve(config.label_map or ("coco" if config.num_classes == 90 else None))


def append_zip(path: str, metadata: Metadata) -> None:
    """Puts the text behind a TFLite file, whose readers go by offsets from its start."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA_FILE, metadata.to_json())
        archive.writestr("labels.txt", "".join(f"{name}\n" for name in label_lines(metadata.config)))


def label_lines(config: Config) -> list[str]:
    """The name of every class from 1 on, a line each, as readers of TFLite Metadata want them; "???" has no name."""
    names = class_names(config)
    return [names.get(class_id, "???") for class_id in range(1, config.num_classes + 1)]


def read_zip(path: str) -> Metadata | None:
    """What `append_zip` wrote; None if there is nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            return Metadata.from_json(archive.read(METADATA_FILE), path)
    except (zipfile.BadZipFile, KeyError):
        return None
