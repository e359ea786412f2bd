# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The plots of an evaluation report, written as PNG files."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MAX_CURVES = 12  # of more classes, only the WORST_CURVES with the lowest AP have a precision-recall curve
WORST_CURVES = 5
MAX_BARS = 60
MAX_MATRIX_CLASSES = 30
MAX_NAME_LENGTH = 24  # characters
IOUS = (0.5, 0.75)
DPI = 100
DARK, MIDDLE, LIGHT = "#012a4a", "#2a6f97", "#a9d6e5"


def plot_precision_recall(precision: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Plots precision over recall at each of IOUS.

    Args:
        precision: [2, R, C] at IOUS, R recalls from 0 to 1, and C classes; -1 for a class without objects.
        names: [C] labels.
        path: output file.
    """
    with_objects = np.flatnonzero((precision > -1).any(axis=(0, 1)))
    precision, names = precision[..., with_objects], [names[i] for i in with_objects]
    recall = np.linspace(0, 1, precision.shape[1])
    figure = Figure(figsize=(11, 5), dpi=DPI, layout="constrained")
    for axes, iou, curves in zip(figure.subplots(1, 2, sharey=True), IOUS, precision):
        areas = curves.mean(axis=0)
        shown = np.arange(len(names))
        if len(names) > MAX_CURVES:
            shown = np.argsort(areas, kind="stable")[:WORST_CURVES]
        if len(names) > 1:
            axes.plot(recall, curves.mean(axis=1), color="black", linewidth=2.5, label=f"mean: {areas.mean():.3f}")
        for position, i in enumerate(shown):
            style = "-" if position < 10 else "--"  # matplotlib cycles through ten colors
            axes.plot(recall, curves[:, i], style, linewidth=1.5, label=f"{names[i]}: {areas[i]:.3f}")
        if not names:
            _show_text(axes, "no objects")
        else:
            title = f"AP at IoU {iou} by class"
            if len(shown) < len(names):
                title = f"AP at IoU {iou}: mean of {len(names)} classes, and the {len(shown)} worst"
            axes.legend(title=title, fontsize="small", title_fontsize="small")
        axes.set(title=f"IoU {iou}", xlabel="recall", xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.label_outer()
    figure.axes[0].set_ylabel("precision")
    figure.savefig(path)


def plot_ap_by_class(ap: np.ndarray, ap50: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Plots one bar per class, the lowest AP first, without classes that have no objects.

    Args:
        ap: [C], mean over IoU 0.5 to 0.95; -1 for a class without objects.
        ap50: [C], at IoU 0.5.
        names: [C] labels.
        path: output file.
    """
    order = [i for i in np.argsort(ap, kind="stable") if ap[i] > -1]
    shown = order[:MAX_BARS]
    figure = Figure(figsize=(11, 1.6 + 0.24 * max(len(shown), 3)), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(shown))
    axes.barh(rows, ap50[shown], height=0.75, color=LIGHT, label="AP50")
    axes.barh(rows, ap[shown], height=0.4, color=MIDDLE, label="AP")
    for row, i in zip(rows, shown):
        axes.text(ap50[i] + 0.005, row, f"{ap[i]:.3f} / {ap50[i]:.3f}", va="center", fontsize="small")
    axes.set_yticks(rows, [names[i] for i in shown])
    axes.set(xlim=(0, 1.15), ylim=(len(shown) - 0.4, -0.6) if shown else (0, 1))
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_title(f"the {len(shown)} worst of {len(order)} classes" if len(shown) < len(order) else "AP by class")
    if shown:
        figure.legend(loc="outside lower center", ncols=2)
    else:
        _show_text(axes, "no objects")
    figure.savefig(path)


def plot_by_size(values: Mapping[str, Sequence[float]], groups: Sequence[str], path: Path) -> None:
    """Plots grouped bars, one group per object size.

    Args:
        values: {metric: one value per group, in [0, 1], or -1 without objects}, at most three metrics.
        groups: labels of the groups.
        path: output file.
    """
    figure = Figure(figsize=(8, 4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(values)
    for position, (color, (metric, row)) in enumerate(zip((DARK, MIDDLE, LIGHT), values.items())):
        offsets = np.arange(len(groups)) + (position - (len(values) - 1) / 2) * width
        bars = axes.bar(offsets, np.maximum(row, 0), 0.9 * width, label=metric, color=color)
        axes.bar_label(bars, [f"{value:.2f}" if value > -1 else "none" for value in row], fontsize="small")
    axes.set_xticks(range(len(groups)), groups)
    axes.set(title="AP and AR by object size", ylim=(0, 1.08))
    axes.legend()
    figure.savefig(path)


def plot_confusion(matrix: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Plots a confusion matrix with its counts; the color of a cell is its fraction of the row.

    Args:
        matrix: [C + 1, C + 1], see `error_analysis.confusion`.
        names: [C] labels; of more than MAX_MATRIX_CLASSES classes, only the most confused are shown.
        path: output file.
    """
    shown = most_confused(matrix, MAX_MATRIX_CLASSES)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    matrix, share = (values[np.ix_([*shown, -1], [*shown, -1])] for values in (matrix, share))
    labels = [names[i] for i in shown]
    side = 3 + 0.55 * len(matrix) if len(shown) <= 12 else 3.5 + 0.36 * len(matrix)
    figure = Figure(figsize=(side + 1, side), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), number in np.ndenumerate(matrix):
        if number:
            color = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, f"{number}", ha="center", va="center", color=color, fontsize="small")
    axes.set_xticks(range(len(matrix)), [*labels, "missed"], rotation=90)
    axes.set_yticks(range(len(matrix)), [*labels, "background"])
    axes.axhline(len(shown) - 0.5, color="gray", linewidth=1)
    axes.axvline(len(shown) - 0.5, color="gray", linewidth=1)
    left_out = len(names) - len(shown)
    axes.set_xlabel("detected as", labelpad=10)
    axes.set_ylabel("object")
    axes.set_title(f"the {len(shown)} most confused of {len(names)} classes" if left_out else "confusion matrix")
    figure.savefig(path)


def most_confused(matrix: np.ndarray, number: int) -> list[int]:
    """Returns the positions of the classes with the most confusions, then the most other errors, in ascending order.

    Args:
        matrix: [C + 1, C + 1], see `error_analysis.confusion`.
        number: maximum number of classes.
    """
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    confused = errors[:-1, :-1].sum(axis=0) + errors[:-1, :-1].sum(axis=1)
    unmatched = errors[-1, :-1] + errors[:-1, -1]
    return sorted(np.lexsort([-unmatched, -confused])[:number].tolist())


def plot_boxes_per_image(objects: Sequence[int], detections: Sequence[int], path: Path) -> None:
    """Plots histograms of the numbers of objects and of detections per image.

    Args:
        objects: number of objects of each image.
        detections: number of detections of each image.
        path: output file.
    """
    figure = Figure(figsize=(8, 4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    top = max([0, *objects, *detections])
    bins = np.arange(0, top + 2, max(1, -(-top // 50))) - 0.5  # of width 1 up to 50 boxes
    bins = np.append(bins, bins[-1] + (bins[1] - bins[0] if len(bins) > 1 else 1))
    axes.hist([objects, detections], bins, label=["objects", "detections"], color=[DARK, LIGHT])
    axes.set(title="boxes per image", xlabel="boxes", ylabel="images")
    axes.legend()
    figure.savefig(path)


def class_labels(names: Mapping[int, str]) -> list[str]:
    """Returns labels of classes such as "3 car", or "3" if the font lacks a character of the name.

    The id distinguishes classes with equal names.
    """
    labels = []
    for class_id, name in names.items():
        if len(name) > MAX_NAME_LENGTH:
            name = f"{name[:MAX_NAME_LENGTH]}.."
        is_supported = all(ord(character) in _supported_characters() for character in name)
        # An unescaped $ would begin a formula.
        labels.append(f"{class_id} {name}".replace("$", r"\$") if is_supported else f"{class_id}")
    return labels


@functools.lru_cache(maxsize=1)
def _supported_characters() -> frozenset[int]:
    """Returns the code points of matplotlib's default font."""
    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())


def _show_text(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
