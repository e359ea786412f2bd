# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of an evaluation: its figures, plots, and pictures of where the detector fails; it opens from disk."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pycocotools.cocoeval import COCOeval

from dataset import label_map
from dataset.files import TargetError, atomic_path, check_folder, write_file
from tf2.evaluation.coco_metric import METRICS, CocoMetric, EvaluatedImage
from tf2.evaluation.report import error_analysis, gallery, plots
from tf2.evaluation.report import page as report_page
from tf2.evaluation.report.error_analysis import MIN_IOU, NONE, Case

PAGE = "index.html"
FOLDER = "report_files"  # beside the page, with its pictures
MIN_SCORE = 0.5  # of a detection, to be counted and shown
JPEG = {"quality": 90, "subsampling": 0}  # keeps thin coloured lines sharp
MEANINGS = dict(
    zip(
        METRICS,
        [
            "mean over IoU 0.50 to 0.95",
            "at IoU 0.50",
            "at IoU 0.75",
            "of small objects, below 32x32 px of area",
            "of medium objects",
            "of large objects, from 96x96 px of area on",
            "recall with 1 detection an image, mean over IoU 0.50 to 0.95",
            "recall with 10 detections an image",
            "recall with 100 detections an image",
            "recall of small objects, with 100 detections",
            "recall of medium objects",
            "recall of large objects",
        ],
    ),
    VOC07_mAP="Pascal VOC, at IoU 0.50, by 11 points as in 2007",
    VOC_mAP="Pascal VOC, at IoU 0.50, by all points as from 2010 on",
)

Pictures = Callable[[Sequence[int]], Iterator[tuple[int, np.ndarray]]]
Section = tuple[str, list[str]]  # heading, parts in HTML


class _Findings(NamedTuple):
    """What the page is made of."""

    images: list[EvaluatedImage]
    cases: list[Case]
    metrics: Mapping[str, float]
    evaluation: COCOeval
    names: dict[int, str]  # of all classes, those of objects and detections too
    min_score_thresh: float

    @property
    def matrix(self) -> np.ndarray:
        return error_analysis.confusion(self.cases, list(self.names))

    @property
    def precision(self) -> np.ndarray:
        """[IoU threshold, recall, C] for all of `names`, -1 where there is nothing to find."""
        places = [list(self.names).index(category) for category in self.evaluation.params.catIds]
        given = self.evaluation.eval["precision"][..., 0, -1]  # all sizes, 100 detections
        precision = np.full([*given.shape[:2], len(self.names)], -1.0)
        precision[..., places] = given
        return precision


def check(directory: str) -> None:
    """Makes the folder of a report and tries to write there; asked before the work begins.

    A report that is there will be replaced; other files are left alone.

    Raises:
        TargetError: if the folder cannot be written to, or what has the report's names in it is none.
    """
    check_folder(directory)
    page, folder = Path(directory, PAGE), Path(directory, FOLDER)
    is_report = page.is_file() and report_page.MARK in page.read_text(encoding="utf-8", errors="replace")
    if not is_report and (page.exists() or folder.exists()):
        raise TargetError(
            f"{page if page.exists() else folder} is there and not of a report; remove it, or choose another folder"
        )


def write(
    directory: str,
    metric: CocoMetric,
    metrics: Mapping[str, float],
    facts: Mapping[str, Any],
    pictures: Pictures,
    *,
    min_score_thresh: float = MIN_SCORE,
) -> str:
    """Writes the page and its pictures; until they are whole, a report that was there stays.

    Args:
        directory: for the page; see `check`.
        metric: with all that was detected.
        metrics: of it by name, Pascal VOC's too if they are to be shown; -1 where there is nothing to find.
        facts: what the figures are of, fit for JSON; its model_name stands in the title.
        pictures: gives (index, [H, W, 3] uint8) for positions among the images of `metric`; one picture at a time is
            kept.
        min_score_thresh: detections above it are counted and shown. Metrics and curves are of all detections.

    Returns:
        The path of the page.

    Raises:
        TargetError: as `check`.
        ValueError: if no image was added to the metric, or `pictures` lacks one.
    """
    check(directory)
    images, evaluation = metric.images(), metric.evaluation()
    cases = error_analysis.match(images, min_score_thresh)
    found = {class_id for case in cases for class_id in (case.actual, case.detected)}
    class_ids = sorted({*metric.names, *evaluation.params.catIds, *found} - {NONE})
    names = {class_id: label_map.name_of(metric.names, class_id) for class_id in class_ids}
    findings = _Findings(images, cases, metrics, evaluation, names, min_score_thresh)
    with _replacing(directory) as folder:
        sections = {
            "facts": ("What was evaluated", [report_page.table(["what", "value"], _fact_rows(facts), (0, 1))]),
            "metrics": ("Metrics", _metrics(findings, folder)),
            "classes": ("Classes", _classes(findings, folder)),
            "curves": ("Precision and recall", _curves(findings, folder)),
            "counts": ("Counts", _counts(findings, folder)),
            "confusion": ("Confusion", _confusion(findings, folder)),
            **_galleries(findings, pictures, folder),
        }
        page = report_page.page(f"Evaluation of {facts['model_name']}", sections)
        write_file(str(folder / PAGE), page)
    return os.path.join(directory, PAGE)


@contextlib.contextmanager
def _replacing(directory: str) -> Iterator[Path]:
    """A folder for the page and its pictures, which take the place of those of `directory` when the block ends."""
    page, folder = Path(directory, PAGE), Path(directory, FOLDER)
    with atomic_path(str(folder)) as unfinished:
        os.mkdir(unfinished)
        yield Path(unfinished)
        # The page is removed first and written last: as long as it exists, its images exist too.
        page.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    (folder / PAGE).replace(page)


def _fact_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key.replace("_", " "), report_page.plain(value)) for key, value in facts.items()]


def _metrics(findings: _Findings, folder: Path) -> list[str]:
    """COCO's metrics, Pascal VOC's if they were handed in, and AP by size."""
    rows = [
        (name, "no groundtruth" if value < 0 else value, MEANINGS[name])
        for name, value in findings.metrics.items()
        if name in MEANINGS
    ]
    params, arrays = findings.evaluation.params, findings.evaluation.eval
    precision, recall = arrays["precision"][..., -1], arrays["recall"][..., -1]  # 100 detections
    values = {
        "AP": [_mean(precision[..., size]) for size in range(len(params.areaRng))],
        "AP50": [_mean(precision[0, ..., size]) for size in range(len(params.areaRng))],
        "AR": [_mean(recall[..., size]) for size in range(len(params.areaRng))],
    }
    areas = np.concatenate([image.groundtruth.area[~image.groundtruth.is_crowd] for image in findings.images])
    sizes = [
        f"{name}\n{np.count_nonzero((low <= areas) & (areas <= high))} objects"
        for name, (low, high) in zip(params.areaRngLbl, params.areaRng)
    ]
    plots.plot_by_size(values, sizes, folder / "by_size.png")
    return [
        report_page.table(["metric", "value", "meaning"], rows, (0, 2)),
        report_page.figure(f"{FOLDER}/by_size.png", "AP and AR (with 100 detections an image) by size of the objects"),
    ]


def _mean(values: np.ndarray) -> float:
    """Of what there is; -1 if there is nothing."""
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0


def _classes(findings: _Findings, folder: Path) -> list[str]:
    """Metrics by class: AP of all, others of those that were named."""
    precision = findings.precision
    columns = {"AP": precision.mean(axis=(0, 1)), "AP50": precision[0].mean(axis=0), "AP75": precision[5].mean(axis=0)}
    for metric in ("VOC07_AP", "VOC_AP"):
        if f"{metric.removesuffix('AP')}mAP" in findings.metrics:
            values = [findings.metrics.get(f"{metric}_/{name}", -1.0) for name in findings.names.values()]
            columns[metric] = np.array(values)
    rows = [
        (*item, *values) for item, *values in zip(findings.names.items(), *map(np.ndarray.tolist, columns.values()))
    ]
    plot_names = plots.plot_names(findings.names)
    plots.plot_ap_by_class(columns["AP"], columns["AP50"], plot_names, folder / "ap_by_class.png")
    return [
        report_page.figure(f"{FOLDER}/ap_by_class.png", "AP (dark) and AP50 (light) by class, the worst first"),
        report_page.table(["id", "class", *columns], rows, (0, 1)),
        report_page.paragraph("A dash stands for classes without groundtruth."),
    ]


def _curves(findings: _Findings, folder: Path) -> list[str]:
    precision = findings.precision[[0, 5]]  # at IoU 0.5 and 0.75
    plots.plot_precision_recall(precision, plots.plot_names(findings.names), folder / "curves.png")
    caption = "Precision by recall over all detections, and the area below, which is AP"
    return [report_page.figure(f"{FOLDER}/curves.png", caption)]


def _counts(findings: _Findings, folder: Path) -> list[str]:
    """Objects and detections of every class, and of every image."""
    head = ["id", "class", "objects", "right", "confused", "missed"]
    head += ["detections", "mistaken", "false", "precision", "recall"]
    keys = [*findings.names.items(), ("", "all")]
    rows = [
        (*key, n.objects, n.right, n.confused, n.missed, n.detections, n.mistaken, n.false, n.precision, n.recall)
        for key, n in zip(keys, error_analysis.counts(findings.matrix))
    ]
    truths = [image.groundtruth for image in findings.images]
    objects = [len(truth.classes) for truth in truths]
    ignored = sum(np.count_nonzero(truth.is_crowd | truth.difficult) for truth in truths)
    detections = [np.count_nonzero(image.detections.scores > findings.min_score_thresh) for image in findings.images]
    plots.plot_boxes_per_image(objects, detections, folder / "boxes_per_image.png")
    return [
        report_page.paragraph(
            f"Detections with a score above {findings.min_score_thresh:g}, matched from an IoU of {MIN_IOU:g} on. Of "
            "the objects, confused ones were taken for another class, and missed ones not found at all. Of the "
            "detections, mistaken ones belong to an object of another class, and false ones to none. Left out are "
            f"{ignored} crowds and difficult objects, and the detections that belong to them."
        ),
        report_page.table(head, rows, (0, 1)),
        report_page.figure(
            f"{FOLDER}/boxes_per_image.png",
            f"Images by number of boxes: {sum(objects)} objects and {sum(detections)} detections above "
            f"{findings.min_score_thresh:g} in {len(objects)} images",
        ),
    ]


def _confusion(findings: _Findings, folder: Path) -> list[str]:
    matrix, num_classes = findings.matrix, len(findings.names)
    plots.plot_confusion(matrix, plots.plot_names(findings.names), folder / "confusion.png")
    shown = plots.MATRIX_SHOWN
    caption = (
        f"Objects (rows) by what they were detected as (columns), scores above {findings.min_score_thresh:g}, IoU from "
        f"{MIN_IOU:g} on; colours are shares of a row. The last column has missed objects, the last row detections of "
        "nothing."
    )
    if num_classes > shown:
        caption += f" Of {num_classes} classes the {shown} with most confusions are shown."
    return [report_page.figure(f"{FOLDER}/confusion.png", caption)]


def _galleries(findings: _Findings, pictures: Pictures, folder: Path) -> dict[str, Section]:
    """Draws all entries of an image while its picture is there."""
    galleries = gallery.choose(findings.images, findings.cases, findings.names)
    wanted = [(part.name, i, entry) for part in galleries for i, entry in enumerate(part.entries, 1)]
    missing = {entry.image for *_, entry in wanted}
    for index, picture in pictures(sorted(missing)):
        missing.remove(index)
        for name, i, entry in wanted:
            if entry.image == index:
                drawn = gallery.draw(entry, findings.images[index], picture, findings.names, findings.min_score_thresh)
                for suffix, pixels in zip(("", "_small"), drawn):
                    Image.fromarray(pixels).save(folder / f"{name}_{i:02}{suffix}.jpg", **JPEG)
    if missing:
        raise ValueError(f"images {sorted(missing)} cannot be read a second time; keep the records as they were")
    return {part.name: (part.title, _gallery(part)) for part in galleries}


def _gallery(part: gallery.Gallery) -> list[str]:
    if not part.entries:
        return [report_page.paragraph("There are none.")]
    text = (
        f"{part.order.capitalize()} first, {gallery.ENTRIES} at most. The left half has the objects, the right one "
        "what was detected."
    )
    if part.entries[0].case is not None:
        text += " What is meant has the thick line."
    files = [f"{FOLDER}/{part.name}_{i:02}" for i in range(1, len(part.entries) + 1)]
    entries = [(f"{file}.jpg", f"{file}_small.jpg", entry.lines) for file, entry in zip(files, part.entries)]
    return [report_page.paragraph(text), report_page.thumbnails(entries)]
