# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""From Detections to average precision, as COCO defines it: collect batches, then score them all with pycocotools."""

import contextlib
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from efficientdet.postprocess import Detections

# COCO's twelve, in the order in which COCOeval computes them.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "ARmax1", "ARmax10", "ARmax100", "ARs", "ARm", "ARl")


class Groundtruth(NamedTuple):
    """The objects of one image."""

    boxes: np.ndarray  # [K, 4] float64, pixels of the original image
    classes: np.ndarray  # [K] int, from 1
    is_crowd: np.ndarray  # [K] bool: the box is around several objects
    area: np.ndarray  # [K] float64, px^2 of the object
    difficult: np.ndarray  # [K] bool: Pascal VOC does not ask for it


class EvaluatedImage(NamedTuple):
    """What was detected in one image, and what there is."""

    source_id: str
    detections: Detections  # without batch dimension and padding: boxes [D, 4], scores [D], classes [D], valid_len []
    groundtruth: Groundtruth


class CocoMetric:
    """COCO's twelve metrics, and the AP of every named class, over all images that were added.

    Every added image counts, those without detections too. The groundtruth is that of `val_json_file` if there is one,
    else what comes with the batches.

    Args:
        names: {category id: name} of the classes to report one by one; 0 is background and never reported.
        val_json_file: groundtruth in COCO's format; its image ids are the source ids of the batches.

    Raises:
        ValueError: if the file lacks images, annotations or categories.

    Reference: Lin et al., ECCV 2014 (https://arxiv.org/abs/1405.0312), as scored at https://cocodataset.org/#detection-eval.
    """

    def __init__(self, names: Mapping[int, str] | None = None, val_json_file: str | None = None):
        self.names = {category: name for category, name in sorted((names or {}).items()) if category > 0}
        self.val_json_file = val_json_file
        self._annotations = []  # of the records; those of a file stand in self._file
        self._source_ids = []  # per image
        self._detections = []  # per image (image id, boxes, scores, classes)
        self._evaluated = None  # (COCOeval, its printed table) of what was added so far
        self._file = None
        if val_json_file is not None:
            with open(val_json_file) as file:
                self._file = json.load(file)
            missing = [key for key in ("images", "annotations", "categories") if key not in self._file]
            if missing:
                raise ValueError(
                    f"{val_json_file} has no {' and no '.join(missing)}: AP needs a file with groundtruth, such as "
                    "instances_val2017.json"
                )
            self._file_ids = {str(image["id"]): image["id"] for image in self._file["images"]}
        self._image_ids = set()

    @property
    def num_file_images(self) -> int | None:
        """Images in `val_json_file`; None without one."""
        return len(self._file_ids) if self._file else None

    def add(
        self,
        source_ids: Sequence[str],
        detections: Detections,
        groundtruth: Sequence[Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        """Takes one batch.

        Args:
            source_ids: B strings. With `val_json_file` they are its image ids; else any text, also twice the same.
            detections: arrays or eager tensors, boxes [B, D, 4] in pixels of the original image, scores [B, D], classes
                [B, D] from 1, valid_len [B]: the rows from there on are padding.
            groundtruth: B mappings of boxes [K, 4] in pixels of the original image, classes [K], is_crowd [K], area
                [K] in px^2 of the object (not of its box, where a mask is known) and, as far as it is known,
                difficult [K]; rows of class 0 and below are padding. Needed without `val_json_file`; with one, the
                file's groundtruth is the one that counts.

        Raises:
            ValueError: if lengths differ, groundtruth is needed and absent, or the file lacks a source id or got it
                twice.
        """
        lengths = [len(source_ids), len(detections.valid_len), len(source_ids if groundtruth is None else groundtruth)]
        if len(set(lengths)) > 1:
            raise ValueError(f"one entry per image expected, got {lengths} source ids, detections and groundtruths")
        if self._file is None and groundtruth is None:
            raise ValueError("groundtruth is needed: pass it with every batch, or a val_json_file at the start")
        image_ids = self._register([str(source_id) for source_id in source_ids])
        self._source_ids += source_ids
        self._evaluated = None
        boxes, scores, classes, valid_len = (np.asarray(field) for field in detections)
        for i, (image_id, length) in enumerate(zip(image_ids, valid_len)):
            # Copies, as a slice would keep the padding of the whole batch alive.
            rows = (array[i, : int(length)].copy() for array in (boxes, scores, classes))
            self._detections.append((image_id, *rows))
            if self._file is None:
                self._annotations += _annotations(image_id, groundtruth[i])

    def result(self) -> dict[str, float]:
        """Scores all that was added.

        Returns:
            The twelve METRICS in [0, 1], then `AP_/<name>` by category id; -1 where there is no groundtruth to find.

        Raises:
            ValueError: if no image was added.
        """
        evaluation, _ = self._evaluate()
        metrics = {name: float(value) for name, value in zip(METRICS, evaluation.stats)}
        # By category id: positions differ as soon as a named class has no groundtruth, or an unnamed one has.
        positions = {category: position for position, category in enumerate(evaluation.params.catIds)}
        for category, name in self.names.items():
            precision = np.empty(0)
            if category in positions:
                # [IoU threshold, recall, class, area range, detections per image]: all areas, 100 detections.
                precision = evaluation.eval["precision"][:, :, positions[category], 0, -1]
            found = precision[precision > -1]
            metrics[f"AP_/{name}"] = float(found.mean()) if found.size else -1.0
        return metrics

    def table(self) -> str:
        """The twelve metrics as pycocotools prints them, then one line for every named class; raises as `result`."""
        _, summary = self._evaluate()
        per_class = {name: value for name, value in self.result().items() if name not in METRICS}
        return "\n".join([summary, *(f" {name:<40} = {value:0.3f}" for name, value in per_class.items())])

    def images(self) -> list[EvaluatedImage]:
        """All that was added, image by image and in that order."""
        rows = defaultdict(list)
        for row in self._annotations if self._file is None else self._file["annotations"]:
            rows[row["image_id"]].append(row)
        return [
            EvaluatedImage(
                source_id, Detections(boxes, scores, classes, np.int32(len(scores))), _groundtruth(rows[image_id])
            )
            for source_id, (image_id, boxes, scores, classes) in zip(self._source_ids, self._detections, strict=True)
        ]

    def _register(self, source_ids: list[str]) -> list[int]:
        """The image ids of a batch: the file's own, or running numbers from 1, as records may repeat or lack ids."""
        if self._file is None:
            image_ids = [len(self._image_ids) + i for i in range(1, len(source_ids) + 1)]
        else:
            unknown = [source_id for source_id in source_ids if source_id not in self._file_ids]
            if unknown:
                raise ValueError(
                    f"{self.val_json_file} has no images with the source ids {unknown[:5]} (its own are like "
                    f"{list(self._file_ids)[:5]}): pass the JSON file that belongs to these records"
                )
            image_ids = [self._file_ids[source_id] for source_id in source_ids]
            twice = [
                image_id
                for i, image_id in enumerate(image_ids)
                if image_id in self._image_ids or image_id in image_ids[:i]
            ]
            if twice:
                raise ValueError(f"source ids {twice[:5]} came twice: give every image of {self.val_json_file} once")
        self._image_ids.update(image_ids)
        return image_ids

    def _evaluate(self) -> tuple[COCOeval, str]:
        """COCOeval after its three steps, and what its summary printed; kept until the next batch."""
        if self._evaluated is None:
            if not self._image_ids:
                raise ValueError("no image was added, so there is nothing to score: check the validation file pattern")
            annotations = self._annotations if self._file is None else self._file["annotations"]
            categories = {annotation["category_id"] for annotation in annotations}
            if self._file is not None:
                categories |= {category["id"] for category in self._file["categories"]}
            with contextlib.redirect_stdout(io.StringIO()):
                groundtruth = _coco(self._image_ids, annotations, categories)
                results = [row for image in self._detections for row in _results(*image)]
                evaluation = COCOeval(groundtruth, _coco(self._image_ids, results, categories), "bbox")
                evaluation.evaluate()
                evaluation.accumulate()
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                evaluation.summarize()
            self._evaluated = evaluation, printed.getvalue().rstrip("\n")
        return self._evaluated


def _coco(image_ids, annotations, categories) -> COCO:
    """A COCO data set of the given images, made from dicts instead of a file."""
    image_ids = set(image_ids)
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image_id} for image_id in sorted(image_ids)],
        "categories": [{"id": category} for category in sorted(categories)],
        "annotations": [
            # Ids from 1: COCOeval takes a groundtruth of id 0 for unmatched. Area and iscrowd are optional in files.
            {"iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3], **row, "id": i}
            for i, row in enumerate(annotations, 1)
            if row["image_id"] in image_ids
        ],
    }
    coco.createIndex()
    return coco


def _annotations(image_id: int, groundtruth: Mapping[str, np.ndarray]) -> list[dict]:
    """COCO's rows for the groundtruth of one image, without padding."""
    keys = {"classes": "category_id", "is_crowd": "iscrowd", "area": "area", "difficult": "difficult"}
    columns = {key: np.asarray(groundtruth[name]).tolist() for name, key in keys.items() if name in groundtruth}
    rows = zip(_xywh(groundtruth["boxes"]), *columns.values(), strict=True)
    rows = [{"image_id": image_id, "bbox": box, **dict(zip(columns, values))} for box, *values in rows]
    return [row for row in rows if row["category_id"] > 0]


def _groundtruth(rows: Sequence[Mapping[str, Any]]) -> Groundtruth:
    """COCO's rows of one image as arrays; what is optional in files is filled in."""
    xmin, ymin, width, height = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4).T
    return Groundtruth(
        boxes=np.stack([ymin, xmin, ymin + height, xmin + width], -1),
        classes=np.array([row["category_id"] for row in rows], np.int64),
        is_crowd=np.array([row.get("iscrowd", 0) for row in rows], bool),
        area=np.array([row.get("area", row["bbox"][2] * row["bbox"][3]) for row in rows], np.float64),
        difficult=np.array([row.get("difficult", 0) for row in rows], bool),
    )


def _results(image_id: int, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> list[dict]:
    """COCO's rows for the detections of one image."""
    rows = zip(_xywh(boxes), scores.tolist(), classes.tolist())
    return [
        {"image_id": image_id, "category_id": int(category), "bbox": box, "score": score}
        for box, score, category in rows
    ]


def _xywh(boxes: np.ndarray) -> list[list[float]]:
    """[K, 4] corners to rows of COCO's [xmin, ymin, width, height]."""
    ymin, xmin, ymax, xmax = np.reshape(boxes, [-1, 4]).T.astype(np.float64)
    return np.stack([xmin, ymin, xmax - xmin, ymax - ymin], -1).tolist()
