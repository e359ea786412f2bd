# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The plots of an evaluation report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure

MAX_CURVES = 12  # of more classes, only the WORST_CURVES with the lowest AP have a precision-recall curve
WORST_CURVES = 5
MAX_BARS = 60
MAX_MATRIX_CLASSES = 30
MAX_NAME_LENGTH = 24  # characters
IOUS = (0.5, 0.75)
DARK, MIDDLE, LIGHT = "#012a4a", "#2a6f97", "#a9d6e5"


def plot_precision_recall(precision: np.ndarray, names: Sequence[str]) -> Figure:
    """Plots precision over recall at each of IOUS.

    Args:
        precision: [2, R, C] at IOUS, R recalls from 0 to 1, and C classes; -1 for a class without objects.
        names: [C] labels.
    """
    with_objects = np.flatnonzero((precision > -1).any(axis=(0, 1)))
    precision, names = precision[..., with_objects], [names[i] for i in with_objects]
    recall = np.linspace(0, 1, precision.shape[1])
    figure, both_axes = _new_figure(11, 5, num_plots=len(IOUS))
    for axes, iou, curves in zip(both_axes, IOUS, precision):
        areas = curves.mean(axis=0)
        order = np.argsort(areas, kind="stable")
        shown = order[:WORST_CURVES] if len(names) > MAX_CURVES else range(len(names))
        if len(names) > 1:
            axes.plot(recall, curves.mean(axis=1), color="black", linewidth=2.5, label=f"mean: {areas.mean():.3f}")
        for position, i in enumerate(shown):
            style = "-" if position < 10 else "--"  # matplotlib cycles through ten colors
            axes.plot(recall, curves[:, i], style, linewidth=1.5, label=f"{names[i]}: {areas[i]:.3f}")
        if names:
            worst = f": mean of {len(names)} classes, and the {len(shown)} worst"
            title = f"AP at IoU {iou}" + (worst if len(shown) < len(names) else " by class")
            axes.legend(title=title, fontsize="small", title_fontsize="small")
        else:
            axes.text(0.5, 0.5, "no objects", ha="center", va="center", transform=axes.transAxes)
        axes.set(title=f"IoU {iou}", xlabel="recall", xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.label_outer()
    figure.axes[0].set_ylabel("precision")
    return figure


def plot_ap_by_class(ap: np.ndarray, ap50: np.ndarray, names: Sequence[str]) -> Figure:
    """Plots one bar per class, the lowest AP first, without classes that have no objects.

    Args:
        ap: [C], mean over IoU 0.5 to 0.95; -1 for a class without objects.
        ap50: [C], at IoU 0.5.
        names: [C] labels.
    """
    order = [i for i in np.argsort(ap, kind="stable") if ap[i] > -1]
    shown = order[:MAX_BARS]
    figure, axes = _new_figure(11, 1.6 + 0.24 * max(len(shown), 3))
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
        axes.text(0.5, 0.5, "no objects", ha="center", va="center", transform=axes.transAxes)
    return figure


def plot_by_size(values: Mapping[str, Sequence[float]], groups: Sequence[str]) -> Figure:
    """Plots grouped bars, one group per object size.

    Args:
        values: {metric: one value per group, in [0, 1], or -1 without objects}, at most three metrics.
        groups: labels of the groups.
    """
    figure, axes = _new_figure(8, 4)
    width = 0.8 / len(values)
    for position, (color, (metric, row)) in enumerate(zip((DARK, MIDDLE, LIGHT), values.items())):
        offsets = np.arange(len(groups)) + (position - (len(values) - 1) / 2) * width
        bars = axes.bar(offsets, np.maximum(row, 0), 0.9 * width, label=metric, color=color)
        axes.bar_label(bars, [f"{value:.2f}" if value > -1 else "none" for value in row], fontsize="small")
    axes.set_xticks(range(len(groups)), groups)
    axes.set(title="AP and AR by object size", ylim=(0, 1.08))
    axes.legend()
    return figure


def plot_confusion(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    """Plots a confusion matrix with its counts; the color of a cell is its fraction of the row.

    Args:
        matrix: [C + 1, C + 1], see `error_analysis.confusion`.
        names: [C] labels; of more than MAX_MATRIX_CLASSES classes, only the most confused are shown.
    """
    shown = most_confused(matrix, MAX_MATRIX_CLASSES)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    matrix, share = (values[np.ix_([*shown, -1], [*shown, -1])] for values in (matrix, share))
    side = 3 + 0.55 * len(matrix) if len(shown) <= 12 else 3.5 + 0.36 * len(matrix)
    figure, axes = _new_figure(side + 1, side)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), number in np.ndenumerate(matrix):
        if number:
            color = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, f"{number}", ha="center", va="center", color=color, fontsize="small")
    labels = [names[i] for i in shown]
    axes.set_xticks(range(len(matrix)), [*labels, "missed"], rotation=90)
    axes.set_yticks(range(len(matrix)), [*labels, "background"])
    axes.axhline(len(shown) - 0.5, color="gray", linewidth=1)
    axes.axvline(len(shown) - 0.5, color="gray", linewidth=1)
    axes.set_xlabel("detected as", labelpad=10)
    axes.set_ylabel("object")
    is_part = len(shown) < len(names)
    axes.set_title(f"the {len(shown)} most confused of {len(names)} classes" if is_part else "confusion matrix")
    return figure


def most_confused(matrix: np.ndarray, number: int) -> list[int]:
    """Returns the positions of up to `number` classes with the most confusions, then the most other errors, ascending.

    matrix is [C + 1, C + 1], see `error_analysis.confusion`.
    """
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    confused = errors[:-1, :-1].sum(axis=0) + errors[:-1, :-1].sum(axis=1)
    unmatched = errors[-1, :-1] + errors[:-1, -1]
    return sorted(np.lexsort([-unmatched, -confused])[:number].tolist())


def plot_boxes_per_image(objects: Sequence[int], detections: Sequence[int]) -> Figure:
    """Plots histograms of the numbers of objects and of detections, given for each image."""
    figure, axes = _new_figure(8, 4)
    top = max([0, *objects, *detections])
    width = max(1, -(-top // 50))  # 1 up to 50 boxes
    bins = np.arange(0, top + 2 + width, width) - 0.5
    axes.hist([objects, detections], bins, label=["objects", "detections"], color=[DARK, LIGHT])
    axes.set(title="boxes per image", xlabel="boxes", ylabel="images")
    axes.legend()
    return figure


def class_labels(names: Mapping[int, str]) -> list[str]:
    """Returns unique labels of classes such as "3 car", or "3" if the font lacks a character of the name."""
    supported = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()  # matplotlib's default font
    labels = []
    for class_id, name in names.items():
        if len(name) > MAX_NAME_LENGTH:
            name = f"{name[:MAX_NAME_LENGTH]}.."
        is_supported = supported.keys() >= set(map(ord, name))
        # An unescaped $ would begin a formula.
        labels.append(f"{class_id} {name}".replace("$", r"\$") if is_supported else f"{class_id}")
    return labels


def _new_figure(width: float, height: float, num_plots: int = 1) -> tuple[Figure, Any]:
    """Returns a figure of some size in inches and its axes, side by side."""
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    return figure, figure.subplots(1, num_plots, sharey=True)
