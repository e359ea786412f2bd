# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""What an exported file says of itself: which detector it is, what it computes, and how its inputs are made.

The text, JSON, travels inside the file, so that class names, thresholds and normalization cannot get lost:
  SavedModel     assets.extra/efficientdet.json
  frozen graph   a string constant, the node efficientdet_json
  TFLite         efficientdet.json in a ZIP archive behind the flatbuffer, where TFLite Metadata has its files, too
  ONNX           the key efficientdet_json of metadata_props
"""

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence

import tensorflow as tf

from dataset import label_map
from efficientdet.config import VERSION, Config, ConfigError

FORMAT = 1  # of the text
FILE = "efficientdet.json"
KEY = "efficientdet_json"
CONTENTS = {
    "detector": "pictures (uint8 RGB, any size) -> detections in pixels of the picture",
    "detection_op": "normalized images -> detections of the op TFLite_Detection_PostProcess",
    "network": "normalized images -> class logits and box codes of every level",
}
PRECISIONS = ("FP32", "FP16", "INT8")


class ArtifactError(ValueError):
    """An exported file that is missing, damaged, or not a detector."""


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
            "label_map": names_of(config),
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


def names_of(config: Config) -> dict[int, str]:
    """Class names: the config's own; COCO's only for its 90 classes; else none."""
    return label_map.resolve(config.label_map or ("coco" if config.num_classes == 90 else None))


def append_zip(path: str, metadata: Metadata) -> None:
    """Puts the text behind a TFLite file, whose readers go by offsets from its start."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(FILE, metadata.to_json())
        archive.writestr("labels.txt", "".join(f"{name}\n" for name in label_lines(metadata.config)))


def label_lines(config: Config) -> list[str]:
    """The name of every class from 1 on, a line each, as readers of TFLite Metadata want them; "???" has no name."""
    names = names_of(config)
    return [names.get(class_id, "???") for class_id in range(1, config.num_classes + 1)]


def read_zip(path: str) -> Metadata | None:
    """What `append_zip` wrote; None if there is nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            return Metadata.from_json(archive.read(FILE), path)
    except (zipfile.BadZipFile, KeyError):
        return None


def check_target(path: str) -> None:
    """Makes the folder of an export, or raises ArtifactError if that, or the export, is in the way; before any work."""
    if os.path.exists(path) and (not os.path.isdir(path) or os.listdir(path)):
        raise ArtifactError(f"{path} exists already; remove it, or choose another name")
    check_folder(os.path.dirname(os.path.abspath(path)))


def check_distinct(files: Sequence[str], inputs: Iterable[str], what: str) -> None:
    """Raises an ArtifactError if two files to be written are one, or one would replace an input; `what` names those."""
    if len(set(map(os.path.realpath, files))) < len(files):
        raise ArtifactError(f"{' and '.join(files)}: one file cannot take several kinds of results; give each its own")
    inputs = set(map(os.path.realpath, inputs))
    if same := [file for file in files if os.path.realpath(file) in inputs]:
        raise ArtifactError(f"{same[0]} is {what} and would be overwritten; choose another file")


def check_folder(folder: str) -> None:
    """Makes a folder where it does not exist, and tries whether a file can be made in it; else an ArtifactError."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ArtifactError(
            f"{folder} cannot be written to ({error.strerror}); mend its access, or choose another"
        ) from error


@contextlib.contextmanager
def whole(path: str) -> Iterator[str]:
    """A path beside `path` to write a file or a folder to, which takes its name when the block ends without an error.

    Raises:
        ArtifactError: if the target exists, or its folder does not.
    """
    check_target(path)
    path = path.rstrip("/")
    stem, suffix = os.path.splitext(path)
    temporary = f"{stem}.unfinished{suffix}"
    _remove(temporary)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        _remove(temporary)


def replace(path: str, text: str) -> None:
    """Writes a text file; until it is whole, what was there stays. What is not UTF-8 in it is escaped."""
    with open(f"{path}.unfinished", "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        file.write(text)
    os.replace(f"{path}.unfinished", path)


def first_line(error: Exception) -> str:
    """What an error says, without the stack that comes with those of TensorFlow and others."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def files(path: str) -> list[str]:
    """The files of an artifact, which is a file or a folder, sorted."""
    if os.path.isfile(path):
        return [path]
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)


def _remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.remove(path)
