# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""HTML report of an evaluation: metrics, plots and example images; can be opened from disk."""

import contextlib
import operator
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image
from pycocotools.cocoeval import COCOeval

from dataset import label_map
from dataset.files import TargetError, atomic_path, check_folder, read_file, remove, write_file
from tf2.evaluation.coco_metric import CocoMetric, EvaluatedImage, mean_valid
from tf2.evaluation.report import error_analysis, gallery, plots
from tf2.evaluation.report import page as report_page
from tf2.evaluation.report.error_analysis import MIN_IOU, NONE, Match
from tf2.training.history import History

PAGE = "index.html"
FOLDER = "report_files"  # beside the page, with its images
MIN_SCORE = 0.5  # of detections that are counted and shown
JPEG = {"quality": 90, "subsampling": 0}  # keeps thin colored lines sharp
MEANINGS = {
    "AP": "mean over IoU 0.50 to 0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "APs": "small objects: area below 32x32 px",
    "APm": "medium objects",
    "APl": "large objects: area from 96x96 px",
    "ARmax1": "recall with 1 detection per image, mean over IoU 0.50 to 0.95",
    "ARmax10": "recall with 10 detections per image",
    "ARmax100": "recall with 100 detections per image",
    "ARs": "recall of small objects, 100 detections per image",
    "ARm": "recall of medium objects",
    "ARl": "recall of large objects",
    "VOC07_mAP": "Pascal VOC 2007: IoU 0.50, 11 points",
    "VOC_mAP": "Pascal VOC 2010 and later: IoU 0.50, all points",
}

ReadImages = Callable[[Sequence[int]], Iterator[tuple[int, np.ndarray]]]


class _ReportData(NamedTuple):
    """Results shown by the report."""

    images: list[EvaluatedImage]
    matches: list[Match]
    metrics: Mapping[str, float]
    evaluation: COCOeval
    names: dict[int, str]  # of all classes, including unnamed ones of objects and detections
    min_score_thresh: float

    @property
    def confusion(self) -> np.ndarray:
        """[C + 1, C + 1] for all of `names`, see `error_analysis.confusion`."""
        return error_analysis.confusion(self.matches, list(self.names))

    @property
    def precision(self) -> np.ndarray:
        """[IoU threshold, recall, C] for all of `names`; -1 for classes without objects."""
        values = self.evaluation.eval["precision"][..., 0, -1]  # all sizes, 100 detections
        precision = np.full([*values.shape[:2], len(self.names)], -1.0)
        precision[..., np.isin(list(self.names), self.evaluation.params.catIds)] = values  # both ascending
        return precision


def check(directory: str) -> None:
    """Creates the folder of a report and checks that it is writable, before the evaluation begins.

    An existing report will be replaced; other files are kept.

    Raises:
        TargetError: if the folder cannot be written to, or contains PAGE or FOLDER that are not of a report.
    """
    check_folder(directory)
    page, folder = os.path.join(directory, PAGE), os.path.join(directory, FOLDER)
    is_file = tf.io.gfile.exists(page) and not tf.io.gfile.isdir(page)
    is_report = is_file and report_page.GENERATOR.encode() in read_file(page)
    for path in (page, folder):
        if not is_report and tf.io.gfile.exists(path):
            raise TargetError(f"{path} exists and is not part of a report; remove it, or choose another folder")


def write(
    directory: str,
    metric: CocoMetric,
    metrics: Mapping[str, float],
    facts: Mapping[str, Any],
    read_images: ReadImages,
    *,
    history: History | None = None,
    min_score_thresh: float = MIN_SCORE,
) -> str:
    """Writes the page and its images, and returns its path; a previous report is replaced when the new one is complete.

    Args:
        metric: metric with all images added.
        metrics: its values by name, optionally with those of Pascal VOC; -1 without objects.
        facts: provenance as JSON values, including model_name for the title.
        read_images: yields (index, [H, W, 3] uint8) for positions of images in `metric`, so that only one image at a
            time is in memory.
        history: metrics of the training run, for its curves; None for no curves.
        min_score_thresh: detections above it are counted and shown. Metrics and curves include all detections.

    Raises:
        TargetError: see `check`.
        ValueError: if no image was added to the metric, or `read_images` does not yield one.
    """
    check(directory)
    images, evaluation = metric.images(), metric.evaluation()
    matches = error_analysis.match(images, min_score_thresh)
    matched = {class_id for pair in matches for class_id in (pair.object_class, pair.detected_class)}
    class_ids = sorted({*metric.names, *evaluation.params.catIds, *matched} - {NONE})
    names = {class_id: label_map.name_of(metric.names, class_id) for class_id in class_ids}
    data = _ReportData(images, matches, metrics, evaluation, names, min_score_thresh)
    rows = [(key.replace("_", " "), report_page.format_value(value)) for key, value in facts.items()]
    with _replace_report(directory) as folder:
        sections = {
            "metrics": ("Metrics", _metrics(data, folder)),
            **({"training": ("Training", _training(history, folder))} if history else {}),
            "classes": ("Classes", _classes(data, folder)),
            "curves": ("Precision and recall", _curves(data, folder)),
            "counts": ("Counts", _counts(data, folder)),
            "confusion": ("Confusion matrix", _confusion(data, folder)),
            **_galleries(data, read_images, folder),
            "facts": ("Provenance", [report_page.table(["property", "value"], rows, (0, 1))]),
        }
        page = report_page.page(f"Evaluation of {facts['model_name']}", sections)
        write_file(str(folder / PAGE), page)
    return os.path.join(directory, PAGE)


@contextlib.contextmanager
def _replace_report(directory: str) -> Iterator[Path]:
    """Yields a local folder for a page and its images, which replace those in `directory` when the block succeeds."""
    page, folder = os.path.join(directory, PAGE), os.path.join(directory, FOLDER)
    with atomic_path(folder) as unfinished:
        os.mkdir(unfinished)
        yield Path(unfinished)
        # The page is removed first and written last: as long as it exists, its images exist too.
        remove(page)
        remove(folder)
    tf.io.gfile.rename(os.path.join(folder, PAGE), page, overwrite=True)


def _metrics(data: _ReportData, folder: Path) -> list[str]:
    """Returns a table of COCO's and, if given, Pascal VOC's metrics, and a plot of AP and AR by object size."""
    metrics = [(name, value) for name, value in data.metrics.items() if name in MEANINGS]
    rows = [(name, "no groundtruth" if value < 0 else value, MEANINGS[name]) for name, value in metrics]
    params, arrays = data.evaluation.params, data.evaluation.eval
    precision, recall = arrays["precision"][..., -1], arrays["recall"][..., -1]  # 100 detections
    by_size = {"AP": precision, "AP50": precision[0], "AR": recall}  # the last dimension is the object size
    values = {name: list(map(mean_valid, np.moveaxis(array, -1, 0))) for name, array in by_size.items()}
    areas = np.concatenate([image.groundtruth.area[~image.groundtruth.is_crowd] for image in data.images])
    sizes = [
        f"{name}\n{np.count_nonzero((low <= areas) & (areas <= high))} objects"
        for name, (low, high) in zip(params.areaRngLbl, params.areaRng)
    ]
    caption = "AP and AR (100 detections per image) by object size"
    return [
        report_page.table(["metric", "value", "meaning"], rows, (0, 2)),
        _figure(plots.plot_by_size(values, sizes), folder / "by_size.png", caption),
    ]


def _training(history: History, folder: Path) -> list[str]:
    """Returns a plot of the training run and its numbers of steps and evaluations."""
    training, evaluations, steps_per_epoch = history.training, history.evaluations, history.steps_per_epoch
    steps = [columns["step"][-1] for columns in (training, evaluations) if columns]
    text = f"{max(steps):.0f} steps" + (f" of {steps_per_epoch:.0f} per epoch" if steps_per_epoch else "")
    num_evaluations = len(evaluations.get("step", ()))
    text += f", {num_evaluations} evaluation{'s' * (num_evaluations != 1)}."
    if num_skipped := np.nanmax(training.get("skipped_steps", [0]), initial=0):
        text += f" {num_skipped:.0f} steps were skipped, because their loss or gradients were not finite."
    averaged, raw = (evaluations.get(name, [np.nan])[-1] for name in ("AP_averaged", "AP_raw"))
    if np.isfinite([averaged, raw]).all():
        text += f" The last weights: AP {averaged:.3f} averaged, {raw:.3f} raw."
    caption = (
        "Losses of the training steps, as measured (light) and as running median (dark); AP of the evaluations during "
        "training; learning rate"
    )
    return [
        report_page.paragraph(text),
        _figure(plots.plot_training(history), folder / "training.png", caption),
    ]


def _figure(plot: plots.Figure, path: Path, caption: str) -> str:
    """Saves a plot and returns its HTML element."""
    plot.savefig(path)
    return report_page.figure(f"{FOLDER}/{path.name}", caption)


def _classes(data: _ReportData, folder: Path) -> list[str]:
    """Returns a plot and a table of the metrics per class; Pascal VOC's are known for named classes only."""
    precision = data.precision
    columns = {"AP": precision.mean(axis=(0, 1)), "AP50": precision[0].mean(axis=0), "AP75": precision[5].mean(axis=0)}
    for metric in ("VOC07", "VOC"):
        if f"{metric}_mAP" in data.metrics:
            columns[f"{metric}_AP"] = [data.metrics.get(f"{metric}_AP_/{name}", -1.0) for name in data.names.values()]
    rows = [(*item, *values) for item, *values in zip(data.names.items(), *columns.values())]
    plot = plots.plot_ap_by_class(columns["AP"], columns["AP50"], plots.class_labels(data.names))
    return [
        _figure(plot, folder / "ap_by_class.png", "AP (dark) and AP50 (light) per class, lowest first"),
        report_page.table(["id", "class", *columns], rows, (0, 1)),
        report_page.paragraph("A dash means that there are no objects of the class."),
    ]


def _curves(data: _ReportData, folder: Path) -> list[str]:
    plot = plots.plot_precision_recall(data.precision[[0, 5]], plots.class_labels(data.names))  # at IoU 0.5 and 0.75
    caption = "Precision over recall of all detections; the area under a curve is the AP"
    return [_figure(plot, folder / "curves.png", caption)]


def _counts(data: _ReportData, folder: Path) -> list[str]:
    """Returns counts of objects and detections per class, and a histogram of boxes per image."""
    columns = ["objects", "correct", "confused", "missed", "detections", "wrong_class", "false_positives"]
    columns += ["precision", "recall"]
    by_class = zip([*data.names.items(), ("", "all")], error_analysis.counts(data.confusion))
    rows = [(*item, *operator.attrgetter(*columns)(counts)) for item, counts in by_class]
    truths = [image.groundtruth for image in data.images]
    objects = [len(truth.classes) for truth in truths]
    ignored = sum(np.count_nonzero(truth.is_crowd | truth.difficult) for truth in truths)
    detections = [np.count_nonzero(image.detections.scores > data.min_score_thresh) for image in data.images]
    return [
        report_page.paragraph(
            f"Detections with a score above {data.min_score_thresh:g}, matched with objects at an IoU of at least "
            f"{MIN_IOU:g}. Confused objects were detected as another class, missed objects were not detected. "
            "Detections with a wrong class match an object of another class, false positives match no object. Not "
            f"counted: {ignored} crowds and difficult objects, and the detections that match them."
        ),
        report_page.table(["id", "class", *(column.replace("_", " ") for column in columns)], rows, (0, 1)),
        _figure(
            plots.plot_boxes_per_image(objects, detections),
            folder / "boxes_per_image.png",
            f"Histogram of boxes per image: {sum(objects)} objects and {sum(detections)} detections with a score above "
            f"{data.min_score_thresh:g} in {len(objects)} images",
        ),
    ]


def _confusion(data: _ReportData, folder: Path) -> list[str]:
    num_classes, shown = len(data.names), plots.MAX_MATRIX_CLASSES
    caption = (
        f"Classes of objects (rows) and of their detections (columns) at scores above {data.min_score_thresh:g} and an "
        f"IoU of at least {MIN_IOU:g}; the color is the fraction of the row. The last column counts missed objects, "
        "the last row false positives."
    )
    if num_classes > shown:
        caption += f" Of {num_classes} classes the {shown} with most confusions are shown."
    plot = plots.plot_confusion(data.confusion, plots.class_labels(data.names))
    return [_figure(plot, folder / "confusion.png", caption)]


def _galleries(data: _ReportData, read_images: ReadImages, folder: Path) -> dict[str, tuple[str, list[str]]]:
    """Writes all drawings, reading each image once, and returns the galleries as {id: (heading, HTML elements)}."""
    galleries = gallery.select(data.images, data.matches, data.names)
    missing = defaultdict(list)  # {position of the image: [(name of the drawing, entry)]}
    for part in galleries:
        for i, entry in enumerate(part.entries, 1):
            missing[entry.image].append((f"{part.name}_{i:02}", entry))
    for index, pixels in read_images(sorted(missing)):
        for name, entry in missing.pop(index):
            drawings = gallery.draw(entry, data.images[index], pixels, data.names, data.min_score_thresh)
            for suffix, drawing in zip(("", "_small"), drawings):
                Image.fromarray(drawing).save(folder / f"{name}{suffix}.jpg", **JPEG)
    if missing:
        raise ValueError(
            f"images {sorted(missing)} cannot be read a second time; do not change the records during an evaluation"
        )
    return {part.name: (part.title, _gallery(part)) for part in galleries}


def _gallery(part: gallery.Gallery) -> list[str]:
    if not part.entries:
        return [report_page.paragraph("There are none.")]
    text = f"Left: objects. Right: detections. {part.order.capitalize()} first, at most {gallery.MAX_ENTRIES} images."
    if part.entries[0].match is not None:
        text += " The thick line marks the boxes that the caption describes."
    files = [f"{FOLDER}/{part.name}_{i:02}" for i in range(1, len(part.entries) + 1)]
    entries = [(f"{file}.jpg", f"{file}_small.jpg", entry.lines) for file, entry in zip(files, part.entries)]
    return [report_page.paragraph(text), report_page.thumbnails(entries)]
