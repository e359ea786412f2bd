# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The plots of an evaluation report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import font_manager, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tf2.training.history import Columns, History

MAX_CURVES = 12  # of more classes, only the WORST_CURVES with the lowest AP have a precision-recall curve
WORST_CURVES = 5
MAX_BARS = 60
MAX_MATRIX_CLASSES = 30
MAX_NAME_LENGTH = 24  # characters
IOUS = (0.5, 0.75)
LOSSES = {"loss": "loss", "cls_loss": "class loss", "box_loss": "box loss", "box_iou_loss": "IoU loss"}
SMOOTHED = 1 / 20  # fraction of its values over which a loss is smoothed
MAX_SMOOTHED = 100  # values
MAX_MARKERS = 60  # points of a line that are marked
LOG_RANGE = 30  # ratio of the largest to the smallest smoothed loss, from which the axis is logarithmic
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

    >>> most_confused(np.array([[8, 0, 0], [0, 5, 3], [0, 0, 0]]), number=1)
    [1]
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


def plot_training(history: History) -> Figure:
    """Plots losses above, and AP and learning rate below, over the steps of a training run.

    Panels of numbers that are not known are left out; values that are not finite, and AP of -1, are gaps.
    """
    training = {name: np.where(np.isfinite(column), column, np.nan) for name, column in history.training.items()}
    evaluations = {name: np.where(column >= 0, column, np.nan) for name, column in history.evaluations.items()}
    losses = [name for name in LOSSES if _is_known(training, name)]
    below = [name for name in ("AP", "learning_rate") if _is_known(evaluations | training, name)]
    rows = [row for row in (losses, below) if row]
    figure = Figure(figsize=(11, 3.4 * max(len(rows), 1)), dpi=100, layout="constrained")
    last_step = max(columns["step"].max() for columns in (training, evaluations) if columns)
    for grid, row in zip(figure.add_gridspec(max(len(rows), 1), 1), rows):
        widths = [2 if name == "AP" else 1 for name in row]
        for name, cell in zip(row, grid.subgridspec(1, len(row), width_ratios=widths)):
            axes = figure.add_subplot(cell)
            if name == "AP":
                _plot_ap(axes, evaluations)
            elif name == "learning_rate":
                axes.plot(training["step"], training[name], color=MIDDLE, **_markers(training["step"]))
                axes.set(ylabel="learning rate", ylim=(0, 1.08 * np.nanmax(training[name]) or 1))
            else:
                _plot_loss(axes, training["step"], training[name], LOSSES[name])
            is_wide = name == "AP" or len(row) == 1
            _label_steps(axes, last_step, history.steps_per_epoch, num_ticks=8 if is_wide else 4)
    return figure


def _is_known(columns: Columns, name: str) -> bool:
    return bool(np.isfinite(columns.get(name, np.nan)).any())


def _markers(values: np.ndarray) -> dict[str, Any]:
    """Returns options that mark the points of a short line."""
    return {"marker": "o", "markersize": 4} if len(values) <= MAX_MARKERS else {}


def _plot_loss(axes: Axes, steps: np.ndarray, values: np.ndarray, label: str) -> None:
    """Plots the values of a loss and, if there are enough, their centered running median."""
    is_known = np.isfinite(values)
    half = min(round(len(values) * SMOOTHED / 2), MAX_SMOOTHED // 2)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, half, constant_values=np.nan), 2 * half + 1)
    smooth = values.copy()
    smooth[is_known] = np.nanmedian(windows[is_known], axis=1)
    if half:
        axes.plot(steps, values, color=LIGHT, linewidth=1)
    axes.plot(steps, smooth, color=DARK, **_markers(values))
    smooth, top = smooth[is_known], max(np.max(smooth[is_known]), np.percentile(values[is_known], 98))
    if smooth.min() > 0 and smooth.max() > LOG_RANGE * smooth.min():
        axes.set(yscale="log", ylim=(smooth.min() / 2, 2 * top))
    else:
        axes.set_ylim(min(smooth.min(), 0), 1.08 * top or 1)  # a few spikes may leave the panel
    axes.set_ylabel(label)


def _plot_ap(axes: Axes, evaluations: Columns) -> None:
    """Plots AP50 and AP of each evaluation; the best AP is marked."""
    steps, ap, top = evaluations["step"], evaluations["AP"], 0.01
    for name, color in (("AP50", LIGHT), ("AP", MIDDLE)):
        if _is_known(evaluations, name):
            axes.plot(steps, evaluations[name], color=color, label=name, **_markers(steps))
            top = max(top, 1.1 * np.nanmax(evaluations[name]))
    best = int(np.nanargmax(ap))
    label = f"best AP: {ap[best]:.3f} at step {steps[best]:.0f}"
    axes.plot(steps[best], ap[best], "*", color=DARK, markersize=13, label=label)
    axes.set(ylabel="AP on the evaluation images", ylim=(0, top))
    axes.legend()


def _label_steps(axes: Axes, last_step: float, steps_per_epoch: float | None, *, num_ticks: int) -> None:
    """Labels the horizontal axis with steps below and, if known, epochs above."""
    whole_numbers = {"integer": True, "min_n_ticks": 1, "steps": [1, 2, 5, 10], "nbins": num_ticks}
    axes.set(xlabel="step", xlim=(0, last_step * 1.02))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(**whole_numbers))
    axes.grid(alpha=0.3)
    if steps_per_epoch:
        epochs = axes.secondary_xaxis("top", functions=(lambda x: x / steps_per_epoch, lambda x: x * steps_per_epoch))
        epochs.xaxis.set_major_locator(ticker.MaxNLocator(**whole_numbers))
        epochs.set_xlabel("epoch")


def class_labels(names: Mapping[int, str]) -> list[str]:
    """Returns unique labels of classes: id and name, or the id alone if the font lacks a character of the name.

    >>> class_labels({3: "car", 4: "猫"})
    ['3 car', '4']
    """
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
