# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""A dataset as records: files, classes, and numbers of images and boxes per split."""

import collections
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset import label_map as label_map_lib
from dataset.files import reason_of, write_file
from dataset.prepare.layout import Layout
from dataset.record_count import RecordCounts
from dataset.records import DataFiles, find_files
from dataset.tfrecord import DataError
from efficientdet.config import Config

FILE = "data.json"
ROWS = 16  # classes in the table of a dataset with more of them
NAME_LENGTH = 24  # characters of a name in the table


@dataclasses.dataclass(frozen=True)
class PreparedSplit:
    """Records of one split."""

    file_pattern: str
    num_images: int
    num_boxes: Mapping[int, int] | None  # {class id: number of boxes}, without those of none; None: not counted
    groundtruth: str | None = None  # COCO file for AP; None: the groundtruth in the records


@dataclasses.dataclass(frozen=True)
class PreparedData:
    """Records of a dataset."""

    splits: Mapping[str, PreparedSplit]  # {"train", "val", "test": records}
    label_map: Mapping[int, str]  # {id: name}, ids from 1; empty for records without label map
    description: str  # of the dataset, one line
    source: str = ""  # absolute path of the dataset
    fingerprint: str = ""  # of its files, see `prepared.find_fingerprint`; "" for records that are used directly
    converted: str = ""  # date and time

    @property
    def train_file_pattern(self) -> str:
        """Glob of the training records."""
        return self.splits["train"].file_pattern

    @property
    def num_images(self) -> dict[str, int]:
        """Number of images per split."""
        return {name: split.num_images for name, split in self.splits.items()}

    @property
    def num_classes(self) -> int:
        """Largest class id; 0 without label map."""
        return max(self.label_map, default=0)

    def find_evaluated(self, name: str | None = None) -> PreparedSplit:
        """Returns the split of a name; by default "val", or else "test".

        Raises:
            DataError: if the dataset has no such split.
        """
        name = name or next((name for name in ("val", "test") if name in self.splits), "val")
        if name not in self.splits:
            raise DataError(f"{self.source} has no split {name}; expected one of {', '.join(self.splits)}")
        return self.splits[name]

    def select_files(self, *, trains: bool, evaluates: bool, split: str | None = None) -> DataFiles:
        """Returns the files that a command reads.

        Args:
            trains: True for those of training.
            evaluates: True for those of evaluation.
            split: name of the split that is evaluated, see `find_evaluated`.

        Raises:
            DataError: if the dataset has no such split.
        """
        train = self.train_file_pattern if trains else None
        if not evaluates:
            return DataFiles(train)
        evaluated = self.find_evaluated(split)
        return DataFiles(train, evaluated.file_pattern, evaluated.groundtruth)

    def configure(self, config: Config, typed: Mapping[str, Any], *, of_detector: bool = False) -> Config:
        """Returns the config with the classes of the dataset, as far as they are not among the keys that were typed.

        Args:
            config: of a command.
            typed: its config keys that the user set.
            of_detector: True if the config is that of a stored detector, whose class names stay if they are known:
                those of the dataset are compared with them later.

        Raises:
            DataError: if the records have no label map, and num_classes was not typed.
            LabelMapError: if the typed num_classes is smaller than the largest id.
        """
        if of_detector and config.label_map:
            return config
        if not self.label_map and "num_classes" not in typed:
            raise DataError(
                f"{self.source} has no label_map_*.yaml beside its records: give num_classes and label_map in --hparams"
            )
        values = {"label_map": dict(self.label_map) or None, "num_classes": self.num_classes}
        config = config.override({key: value for key, value in values.items() if value and key not in typed})
        label_map_lib.check(label_map_lib.resolve(config.label_map), config.num_classes)
        return config

    def show_table(self) -> str:
        """Returns the numbers of images, and of boxes per class, as a table of at most ROWS + 4 lines."""
        names = list(self.splits)
        counts = [split.num_boxes or {} for split in self.splits.values()]
        rows = [
            (class_id, name, [count.get(class_id, 0) for count in counts]) for class_id, name in self.label_map.items()
        ]
        left_out = []
        if len(rows) > ROWS:
            by_count = sorted(rows, key=lambda row: (-row[2][0], row[0]))
            left_out = by_count[ROWS // 2 : -ROWS // 2]
            rows = by_count[: ROWS // 2] + by_count[-ROWS // 2 :]
        lines = [["", "images", *(str(number) for number in self.num_images.values())]]
        if all(split.num_boxes is not None for split in self.splits.values()):
            lines += [[str(class_id), _shorten(name), *map(str, row)] for class_id, name, row in rows]
        else:
            lines += [[str(class_id), _shorten(name), *["-"] * len(names)] for class_id, name, _ in rows]
        if left_out:
            totals = [str(sum(row[i] for _, _, row in left_out)) for i in range(len(names))]
            lines.insert(1 + ROWS // 2, ["", f"... {len(left_out)} more classes", *totals])
        return "images and boxes per class:\n" + _align([["id", "name", *names], *lines])

    def write(self, folder: Path) -> None:
        """Writes the data to FILE in the folder of its records; file patterns are stored relative to it."""
        content = dataclasses.asdict(self)
        for split in content["splits"].values():
            split["file_pattern"] = os.path.basename(split["file_pattern"])
        content["files"] = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
        write_file(folder / FILE, json.dumps(content, indent=1))

    @classmethod
    def read(cls, folder: Path) -> "PreparedData | None":
        """Reads FILE; None if it is absent or damaged, or if a file of the records is absent or has another size."""
        try:
            content = json.loads((folder / FILE).read_text("utf-8"))
            if any((folder / name).stat().st_size != size for name, size in content.pop("files").items()):
                return None
            splits = {}
            for name, split in content.pop("splits").items():
                split["file_pattern"] = str(folder / split["file_pattern"])
                split["num_boxes"] = {int(class_id): number for class_id, number in split["num_boxes"].items()}
                splits[name] = PreparedSplit(**split)
            names = {int(class_id): name for class_id, name in content.pop("label_map").items()}
            return cls(splits, names, **content)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    @classmethod
    def of_records(cls, layout: Layout) -> "PreparedData":
        """Returns the data of a folder of TFRecords, which stays as it is.

        Boxes are counted in the groundtruth files, if there is one for every split.

        Raises:
            DataError: if a file cannot be read.
        """
        prepared, counts = {}, RecordCounts()
        for name, split in layout.splits.items():
            num_images = counts.total(find_files(split.file_pattern))
            num_boxes = _count_boxes(split.groundtruth) if split.groundtruth else None
            groundtruth = str(split.groundtruth) if split.groundtruth else None
            prepared[name] = PreparedSplit(split.file_pattern, num_images, num_boxes, groundtruth)
        label_map = next((split.label_map for split in layout.splits.values() if split.label_map), None)
        names = label_map_lib.resolve(str(label_map)) if label_map else {}
        return cls(prepared, names, layout.description, str(layout.folder))


def _count_boxes(groundtruth: Path) -> dict[int, int]:
    try:
        rows = json.loads(groundtruth.read_bytes())["annotations"]
        return dict(collections.Counter(row["category_id"] for row in rows))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{groundtruth} is not a COCO groundtruth file: {reason_of(error)}") from error


def _shorten(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 3]}..."


def _align(rows: list[list[str]]) -> str:
    """Returns rows as lines: names to the left, the other columns to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column == 1 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths))
        )
        for row in rows
    )
