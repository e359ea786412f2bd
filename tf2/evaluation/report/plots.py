# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The plots of an evaluation, each from figures to a PNG file."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

CURVES_SHOWN = 12  # classes with a precision-recall curve of their own, as far as there are no more
WORST_SHOWN = 5  # of more classes, beside their mean
BARS_SHOWN = 60
MATRIX_SHOWN = 30  # classes
NAME_LENGTH = 24  # letters
IOUS = (0.5, 0.75)
DPI = 100
DARK, MIDDLE, LIGHT = "#012a4a", "#2a6f97", "#a9d6e5"


def plot_precision_recall(precision: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Precision over recall at each of IOUS.

    Args:
        precision: [2, R, C] at IOUS, recall from 0 to 1, and of C classes; -1 where a class has nothing to find.
        names: [C], for people.
        path: of the file.
    """
    with_objects = np.flatnonzero((precision > -1).any(axis=(0, 1)))
    precision, names = precision[..., with_objects], [names[i] for i in with_objects]
    recall = np.linspace(0, 1, precision.shape[1])
    figure = Figure(figsize=(11, 5), dpi=DPI, layout="constrained")
    for axes, iou, curves in zip(figure.subplots(1, 2, sharey=True), IOUS, precision):
        areas = curves.mean(axis=0)
        shown = np.arange(len(names))
        if len(names) > CURVES_SHOWN:
            shown = np.argsort(areas, kind="stable")[:WORST_SHOWN]
        if len(names) > 1:
            axes.plot(recall, curves.mean(axis=1), color="black", linewidth=2.5, label=f"mean: {areas.mean():.3f}")
        for position, i in enumerate(shown):
            style = "-" if position < 10 else "--"  # matplotlib has ten colours
            axes.plot(recall, curves[:, i], style, linewidth=1.5, label=f"{names[i]}: {areas[i]:.3f}")
        if not names:
            _say(axes, "no objects to find")
        else:
            of = f"of {len(names)} classes, and of the {len(shown)} worst" if len(shown) < len(names) else "by class"
            axes.legend(title=f"AP at IoU {iou} {of}", fontsize="small", title_fontsize="small")
        axes.set(title=f"IoU {iou}", xlabel="recall", xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.label_outer()
    figure.axes[0].set_ylabel("precision")
    figure.savefig(path)


def plot_ap_by_class(ap: np.ndarray, ap50: np.ndarray, names: Sequence[str], path: Path) -> None:
    """A bar a class, the worst first; classes with nothing to find are left out.

    Args:
        ap: [C], mean over IoU 0.5 to 0.95; -1 where there is nothing to find.
        ap50: [C], at IoU 0.5.
        names: [C], for people.
        path: of the file.
    """
    order = [i for i in np.argsort(ap, kind="stable") if ap[i] > -1]
    shown = order[:BARS_SHOWN]
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
        _say(axes, "no objects to find")
    figure.savefig(path)


def plot_by_size(values: Mapping[str, Sequence[float]], groups: Sequence[str], path: Path) -> None:
    """Bars side by side for each size of objects.

    Args:
        values: {metric: one value a group}, three at most, in [0, 1]; -1 where there is nothing to find.
        groups: their names, for people.
        path: of the file.
    """
    figure = Figure(figsize=(8, 4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(values)
    for position, (color, (metric, row)) in enumerate(zip((DARK, MIDDLE, LIGHT), values.items())):
        offsets = np.arange(len(groups)) + (position - (len(values) - 1) / 2) * width
        bars = axes.bar(offsets, np.maximum(row, 0), 0.9 * width, label=metric, color=color)
        axes.bar_label(bars, [f"{value:.2f}" if value > -1 else "none" for value in row], fontsize="small")
    axes.set_xticks(range(len(groups)), groups)
    axes.set(title="by size of the object", ylim=(0, 1.08))
    axes.legend()
    figure.savefig(path)


def plot_confusion(matrix: np.ndarray, names: Sequence[str], path: Path) -> None:
    """The matrix as a picture: numbers in its cells, coloured by their share of the row.

    Args:
        matrix: [C + 1, C + 1] as `error_analysis.confusion` gives it.
        names: [C], for people; of more than MATRIX_SHOWN the most confused are shown.
        path: of the file.
    """
    shown = most_confused(matrix, MATRIX_SHOWN)
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
    axes.set_yticks(range(len(matrix)), [*labels, "nothing there"])
    axes.axhline(len(shown) - 0.5, color="gray", linewidth=1)
    axes.axvline(len(shown) - 0.5, color="gray", linewidth=1)
    left_out = len(names) - len(shown)
    axes.set_xlabel("detected as", labelpad=10)
    axes.set_ylabel("object")
    axes.set_title(f"the {len(shown)} most confused of {len(names)} classes" if left_out else "objects by detection")
    figure.savefig(path)


def most_confused(matrix: np.ndarray, number: int) -> list[int]:
    """Positions of at most so many classes of a confusion matrix: those that most errors are of, in their own order."""
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    confused = errors[:-1, :-1].sum(axis=0) + errors[:-1, :-1].sum(axis=1)
    alone = errors[-1, :-1] + errors[:-1, -1]
    return sorted(np.lexsort([-alone, -confused])[:number].tolist())


def plot_boxes_per_image(objects: Sequence[int], detections: Sequence[int], path: Path) -> None:
    """Images by their number of objects, and of detections.

    Args:
        objects: one number an image.
        detections: likewise.
        path: of the file.
    """
    figure = Figure(figsize=(8, 4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    top = max([0, *objects, *detections])
    bins = np.arange(0, top + 2, max(1, -(-top // 50))) - 0.5  # of one number each, up to about 50
    bins = np.append(bins, bins[-1] + (bins[1] - bins[0] if len(bins) > 1 else 1))
    axes.hist([objects, detections], bins, label=["objects", "detections"], color=[DARK, LIGHT])
    axes.set(title="boxes an image", xlabel="boxes", ylabel="images")
    axes.legend()
    figure.savefig(path)


def plot_names(names: Mapping[int, str]) -> list[str]:
    """What plots call the classes: "3 car"; "3" alone where the plots' font lacks a letter of the name.

    The number keeps two classes of one name apart.
    """
    labels = []
    for class_id, name in names.items():
        if len(name) > NAME_LENGTH:
            name = f"{name[:NAME_LENGTH]}.."
        known = all(ord(letter) in _letters() for letter in name)
        labels.append(f"{class_id} {name}".replace("$", r"\$") if known else f"{class_id}")  # $ is no formula
    return labels


@functools.lru_cache(maxsize=1)
def _letters() -> frozenset[int]:
    """The code points that matplotlib's own font has."""
    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())


def _say(axes: Axes, text: str) -> None:
    """Text in place of curves."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
