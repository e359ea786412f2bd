# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""COCO metrics: collects detections and groundtruth batch by batch, then computes average precision per class."""

import contextlib
import functools
import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dataset import coco_json
from dataset.check import finding, json_checks
from dataset.tfrecord import DataError
from efficientdet import boxes as box_ops
from efficientdet.postprocess import Detections

# Implementations of matching and accumulation. faster-coco-eval, the default if installed, agrees with pycocotools
# except for the last bit of the precision, because pycocotools divides by the number of detections + 2e-16.
BACKENDS = {"pycocotools": COCOeval}
with contextlib.suppress(ImportError):
    from faster_coco_eval import COCOeval_faster

    # Its default logs every step; what is printed is suppressed for both.
    BACKENDS["faster-coco-eval"] = functools.partial(COCOeval_faster, print_function=print)

# COCO's twelve metrics in the order of COCOeval.stats.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "ARmax1", "ARmax10", "ARmax100", "ARs", "ARm", "ARl")

# Keys of an annotation, in files and here; difficult is Pascal VOC's.
ANNOTATION_KEYS = ("image_id", "category_id", "bbox", "area", "iscrowd", "difficult")


class ImageGroundtruth(NamedTuple):
    """The K objects of one image."""

    boxes: np.ndarray  # [K, 4] float64, pixels of the original image
    classes: np.ndarray  # [K] int, from 1
    is_crowd: np.ndarray  # [K] bool: the box contains several objects
    area: np.ndarray  # [K] float64, px^2 of the object
    difficult: np.ndarray  # [K] bool: Pascal VOC's metrics ignore the object


class EvaluatedImage(NamedTuple):
    """Detections and groundtruth of one image."""

    source_id: str
    detections: Detections  # without batch dimension and padding: boxes [D, 4], scores [D], classes [D], valid_len []
    groundtruth: ImageGroundtruth


def mean_valid(values: np.ndarray) -> float:
    """Returns the mean of precision or recall, without entries of -1, which have no groundtruth; -1 if all are.

    >>> mean_valid(np.array([0.25, 0.75, -1.0]))
    0.5
    """
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0


class CocoMetric:
    """COCO's twelve metrics and the AP of every named class, over all added images.

    Every added image counts, including those without detections. The groundtruth comes from `val_json_file` if it is
    given, otherwise from the batches.

    Args:
        names: {category id: name} of the classes to report individually; 0 is background and never reported.
        val_json_file: groundtruth in COCO's format, see `coco_json.load`; its image ids are the source ids of the
            batches. Annotations that cannot be used are left out, and counted below the table of AP.
        backend: one of BACKENDS; None selects faster-coco-eval if it is installed, otherwise pycocotools.

    Raises:
        ValueError: if the file lacks images, annotations or categories, has an invalid id or no groundtruth that AP can
            use, or the backend is not installed.

    Reference: Lin et al., ECCV 2014 (https://arxiv.org/abs/1405.0312), as scored at https://cocodataset.org/#detection-eval.
    """

    def __init__(
        self,
        names: Mapping[int, str] | None = None,
        val_json_file: str | None = None,
        *,
        backend: str | None = None,
    ):
        self.names = {category: name for category, name in sorted((names or {}).items()) if category > 0}
        self.val_json_file = val_json_file
        self.backend = backend or list(BACKENDS)[-1]
        if self.backend not in BACKENDS:
            raise ValueError(f"backend {backend!r} is not installed; available: {', '.join(BACKENDS)}")
        self._annotations = []  # dicts as in COCO's files, from val_json_file or the batches
        self._images = {}  # {image id: (source id, Detections as in EvaluatedImage)} of all images added so far
        self._evaluation = None  # COCOeval of these images
        self._file_ids = None  # image ids of val_json_file
        self._file_categories = set()
        self._file_findings = []  # texts of warnings about val_json_file
        if val_json_file is not None:
            self._read_file(val_json_file)

    @property
    def num_file_images(self) -> int | None:
        """Number of images in `val_json_file`; None without one."""
        return None if self._file_ids is None else len(self._file_ids)

    def add(
        self,
        source_ids: Sequence[str],
        detections: Detections,
        groundtruth: Sequence[Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        """Adds one batch.

        Args:
            source_ids: B strings. With `val_json_file` they must be its image ids, each added once; without it, any
                strings, which may repeat.
            detections: arrays or eager tensors: boxes [B, D, 4] in pixels of the original image, scores [B, D], classes
                [B, D] from 1, valid_len [B]; later rows are padding.
            groundtruth: B mappings of boxes [K, 4] in pixels of the original image, classes [K], is_crowd [K], area
                [K] in px^2 of the object (of its mask, if known, not of its box) and optionally difficult [K]; rows
                with class 0 or below are padding. Required without `val_json_file`, ignored with one.

        Raises:
            ValueError: if lengths differ, required groundtruth is missing, or a source id is not in the file or was
                added before.
        """
        lengths = [len(source_ids), len(detections.valid_len), len(source_ids if groundtruth is None else groundtruth)]
        if len(set(lengths)) > 1:
            raise ValueError(f"one entry per image expected, got {lengths} source ids, detections and groundtruths")
        if self._file_ids is None and groundtruth is None:
            raise ValueError("groundtruth is needed: pass it with every batch, or a val_json_file to CocoMetric")
        source_ids = [str(source_id) for source_id in source_ids]
        image_ids = self._image_ids_of(source_ids)
        self._evaluation = None
        *columns, valid_len = (np.asarray(field) for field in detections)
        for i, (image_id, source_id, length) in enumerate(zip(image_ids, source_ids, valid_len)):
            # Copies, because a slice would keep the padding of the whole batch in memory.
            self._images[image_id] = source_id, Detections(*(column[i, :length].copy() for column in columns), length)
            if self._file_ids is None:
                self._annotations += _annotations_of(image_id, groundtruth[i])

    def result(self) -> dict[str, float]:
        """Computes the metrics of all added images.

        Returns:
            The twelve METRICS in [0, 1], then `AP_/<name>` in the order of category ids; -1 without groundtruth.

        Raises:
            ValueError: if no image was added.
        """
        evaluation = self.evaluation()
        metrics = {name: float(value) for name, value in zip(METRICS, evaluation.stats)}
        precision = evaluation.eval["precision"][..., 0, -1]  # all areas, 100 detections
        for category, name in self.names.items():
            # Selected by category id: a named class may lack groundtruth, and an unnamed one may have some.
            metrics[f"AP_/{name}"] = mean_valid(precision[..., np.equal(evaluation.params.catIds, category)])
        return metrics

    def evaluation(self) -> COCOeval:
        """Returns pycocotools' evaluation of all added images, without data and matches; raises as `result`.

        Returns:
            An object with `params`, whose catIds [K] are all categories of the groundtruth; `stats` [12] in the order
            of METRICS; and `eval`: precision and scores [IoU threshold, recall, K, area range, detections per image],
            recall [IoU threshold, K, area range, detections per image], -1 without groundtruth.
        """
        if self._evaluation is None:
            if not self._images:
                raise ValueError("no image was added, so there is nothing to score: check the validation file pattern")
            logging.info("computing AP with %s", self.backend)
            with contextlib.redirect_stdout(io.StringIO()):
                self._evaluation = self._evaluate()
        return self._evaluation

    def find_left_out(self) -> list[str]:
        """Returns messages about groundtruth that AP leaves out, of the images added so far."""
        texts, counts = list(self._file_findings), self.count_groundtruth()
        missed = len(self._file_ids or ()) - len(self._images)
        if missed > 0:
            texts.append(
                f"AP is of {len(self._images)} of the {len(self._file_ids)} images of {self.val_json_file}; the others "
                f"have {len(self._annotations) - counts['boxes']} boxes"
            )
        if counts["boxes"] == counts["crowds"]:
            crowds = f" that is not a crowd (iscrowd: 1), of {counts['crowds']}" if counts["crowds"] else ""
            texts.append(f"AP is -1: none of the {len(self._images)} evaluated images has a box{crowds}")
        return texts

    def count_groundtruth(self) -> dict[str, int]:
        """Returns the numbers of `coco_json.count` for the images added so far."""
        return coco_json.count(self._images, [row for row in self._annotations if row["image_id"] in self._images])

    def table(self) -> str:
        """Returns the metrics as printed by pycocotools, then a line per named class and per warning.

        Warnings are those of `find_left_out`. Raises as `result`.
        """
        with contextlib.redirect_stdout(io.StringIO()) as summary:
            self.evaluation().summarize()
        per_class = [f" {name:<40} = {value:0.3f}" for name, value in self.result().items() if name not in METRICS]
        warnings = [f"warning: {text}" for text in self.find_left_out()]
        return "\n".join([summary.getvalue().rstrip("\n"), *per_class, *warnings])

    def images(self) -> list[EvaluatedImage]:
        """Returns all added images in the order in which they were added."""
        rows = defaultdict(list)
        for row in self._annotations:
            rows[row["image_id"]].append(row)
        return [
            EvaluatedImage(source_id, detections, _groundtruth_of(rows[image_id]))
            for image_id, (source_id, detections) in self._images.items()
        ]

    def coco_results(self) -> list[dict[str, Any]]:
        """Returns all detections in COCO's results format: dicts of image_id, category_id, bbox and score.

        image_id is that of `val_json_file`, or the source id without one, as an integer if it is a number. bbox is
        [xmin, ymin, width, height] in pixels, rounded to two decimals; scores are rounded to five.
        """
        results = []
        for image_id, (source_id, (boxes, scores, classes, _)) in self._images.items():
            if self._file_ids is None:
                number = coco_json.parse_id(source_id)
                image_id = source_id if number is None else number
            for box, score, category in zip(box_ops.to_xywh(boxes).tolist(), scores.tolist(), classes.tolist()):
                box = [round(x, 2) for x in box]
                row = {"image_id": image_id, "category_id": int(category), "bbox": box, "score": round(score, 5)}
                results.append(row)
        return results

    def _read_file(self, val_json_file: str) -> None:
        """Reads the groundtruth without masks, which are most of the file."""
        groundtruth = coco_json.load(val_json_file, ANNOTATION_KEYS)
        findings = json_checks.check_rows(groundtruth)
        if fatal := [text for level, _, text in findings if level == finding.FATAL]:
            raise DataError(fatal[0])
        self._file_findings = [text for level, _, text in findings if level == finding.WARNING]
        self._file_ids, self._file_categories = set(groundtruth.images), set(groundtruth.names)
        for row in groundtruth.annotations.rows:
            area, box_area = row.get("area"), row["bbox"][2] * row["bbox"][3]
            # As in records: an area that is absent or impossible is that of the box.
            usable = area is not None and 0 <= area < math.inf
            self._annotations.append({"iscrowd": 0, **row, "area": area if usable else box_area})

    def _image_ids_of(self, source_ids: list[str]) -> list[int]:
        """Returns image ids for a batch: those of the file, or consecutive numbers, as records may lack unique ids."""
        if self._file_ids is None:
            return [len(self._images) + i for i in range(1, len(source_ids) + 1)]
        image_ids = [coco_json.parse_id(source_id) for source_id in source_ids]
        unknown = [source_id for source_id, image_id in zip(source_ids, image_ids) if image_id not in self._file_ids]
        if unknown:
            raise ValueError(
                f"{self.val_json_file} has no images with the source ids {unknown[:5]} (its own are like "
                f"{sorted(self._file_ids)[:5]}): pass the JSON file that belongs to these records"
            )
        twice = [image_id for image_id, count in Counter(image_ids).items() if count > 1 or image_id in self._images]
        if twice:
            raise ValueError(f"source ids {twice[:5]} were added twice: add every image of {self.val_json_file} once")
        return image_ids

    def _evaluate(self) -> COCOeval:
        """Evaluates one class at a time; rows and matches of all classes at once would take gigabytes."""
        # Detections with equal scores are ordered by image id. Ranks, because the backends need integers.
        ranks = {image_id: rank for rank, image_id in enumerate(sorted(self._images))}
        truth = defaultdict(list)
        for row in self._annotations:
            if row["image_id"] in ranks:
                truth[row["category_id"]].append({**row, "image_id": ranks[row["image_id"]]})
        boxes, scores, classes, lengths = zip(*(detections for _, detections in self._images.values()))
        bbox = box_ops.to_xywh(np.concatenate(boxes))
        found = {
            "image_id": np.repeat([ranks[image_id] for image_id in self._images], lengths),
            "category_id": np.concatenate(classes).astype(np.int64),
            "bbox": bbox,
            "area": bbox[:, 2] * bbox[:, 3],
            "score": np.concatenate(scores),
        }

        total = COCOeval(iouType="bbox")
        params = total.params
        params.catIds = sorted(self._file_categories | truth.keys())
        shape = [len(params.iouThrs), len(params.recThrs), len(params.catIds), len(params.areaRng), len(params.maxDets)]
        total.eval = {name: np.full(shape, -1.0) for name in ("precision", "scores")}
        total.eval["recall"] = np.full([shape[0], *shape[2:]], -1.0)
        for k, category in enumerate(params.catIds):
            if category not in truth:
                continue  # remains -1
            chosen = np.flatnonzero(found["category_id"] == category)
            columns = (column[chosen].tolist() for column in found.values())
            rows = [dict(zip(found, row)) for row in zip(*columns)]
            images = {row["image_id"] for row in truth[category] + rows}
            evaluation = BACKENDS[self.backend](_coco_of(images, truth[category]), _coco_of(images, rows), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            for name, array in total.eval.items():
                array[..., k, :, :] = evaluation.eval[name][..., 0, :, :]
        total.summarize()
        return total


def _coco_of(image_ids: Iterable[int], rows: Sequence[dict]) -> COCO:
    """Builds a COCO dataset of one category from annotations or results."""
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image_id} for image_id in image_ids],
        "categories": [{"id": category} for category in {row["category_id"] for row in rows}],
        # Ids start at 1, because COCOeval treats a groundtruth with id 0 as unmatched.
        "annotations": [{**row, "id": i} for i, row in enumerate(rows, 1)],
    }
    coco.createIndex()
    return coco


def _annotations_of(image_id: int, groundtruth: Mapping[str, np.ndarray]) -> list[dict]:
    """Converts the groundtruth of one image to COCO's annotations and removes padding."""
    keys = {"classes": "category_id", "is_crowd": "iscrowd", "area": "area", "difficult": "difficult"}
    columns = {key: np.asarray(groundtruth[name]).tolist() for name, key in keys.items() if name in groundtruth}
    rows = zip(box_ops.to_xywh(groundtruth["boxes"]).tolist(), *columns.values(), strict=True)
    rows = [{"image_id": image_id, "bbox": box, **dict(zip(columns, values))} for box, *values in rows]
    return [row for row in rows if row["category_id"] > 0]


def _groundtruth_of(rows: Sequence[Mapping[str, Any]]) -> ImageGroundtruth:
    """Converts COCO's annotations of one image to arrays."""
    xmin, ymin, width, height = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4).T
    return ImageGroundtruth(
        boxes=np.stack([ymin, xmin, ymin + height, xmin + width], -1),
        classes=np.array([row["category_id"] for row in rows], np.int64),
        is_crowd=np.array([row["iscrowd"] for row in rows], bool),
        area=np.array([row["area"] for row in rows], np.float64),
        difficult=np.array([row.get("difficult", 0) for row in rows], bool),
    )
