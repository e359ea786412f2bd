# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The figures of checked records: as a dict for report.json, as a table to read, and as two plots."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dataset import label_map
from dataset.check import anchor_fit
from dataset.check.finding import Finding
from dataset.check.record_facts import Facts
from efficientdet.config import Config

WIDTH = 120  # columns
CLASSES_SHOWN = 100
SMALL, MEDIUM = 32**2, 96**2  # square pixels: where COCO's medium and large objects begin
SIZES = ("small", "medium", "large")
POINTS_SHOWN = 5000


def figures(facts: Facts, config: Config) -> dict[str, Any]:
    """Everything that is counted, in plain types.

    Boxes that are empty or outside are left out of sizes and anchors, and crowds out of anchors if training skips them.
    """
    usable = facts.usable
    sides = (np.clip(facts.boxes, 0, 1)[:, 2:] - np.clip(facts.boxes, 0, 1)[:, :2]) * facts.sizes[facts.image_index]
    network = facts.network_boxes(config.image_size)
    network_sides = network[:, 2:] - network[:, :2]
    trained = usable & ~(facts.is_crowd & config.skip_crowd_during_training) & (network_sides > 0).all(1)
    ious = np.full(len(usable), np.nan)
    ious[trained] = anchor_fit.best_ious(network[trained], anchor_fit.anchors_of(config))
    proposals = anchor_fit.propose(network[trained], config)
    size_class = _size_class(network_sides)
    counts = facts.counts
    return {
        "files": len(facts.files),
        "records": facts.num_records,
        "faulty_records": len(facts.faulty),
        "complete": facts.complete,
        "boxes": len(usable),
        "crowds": int(facts.is_crowd.sum()),
        "boxes_per_image": {
            "min": int(counts.min(initial=counts.max(initial=0))),
            "median": float(np.median(counts)) if len(counts) else 0.0,
            "mean": float(counts.mean()) if len(counts) else 0.0,
            "max": int(counts.max(initial=0)),
            "images_without": int((counts == 0).sum()),
            "histogram": {int(n): int(images) for n, images in zip(*np.unique(counts, return_counts=True))},
        },
        "image_sizes": _image_sizes(facts),
        "sizes": {
            "original": _by_size(_size_class(sides[usable])),
            "network": _by_size(size_class[usable]),
        },
        "classes": _classes(facts, config, ious),
        "anchors": {
            "image_size": list(config.image_size),
            "boxes": int(trained.sum()),
            "recall": anchor_fit.recall(ious[trained]),
            "recall_by_size": {name: _recall(ious[trained & (size_class == i)]) for i, name in enumerate(SIZES)},
            "mean_iou": float(ious[trained].mean()) if trained.any() else None,
            "proposals": [{"hparams": p.hparams, "recall": p.recall} for p in proposals],
        },
    }


def _size_class(sides: np.ndarray) -> np.ndarray:
    """[K] indices of SIZES for boxes of (height, width) in pixels."""
    return np.digitize(sides.prod(1), [SMALL, MEDIUM])


def _by_size(size_class: np.ndarray) -> dict[str, int]:
    return {name: int((size_class == i).sum()) for i, name in enumerate(SIZES)}


def _recall(ious: np.ndarray) -> float | None:
    ious = ious[~np.isnan(ious)]
    return anchor_fit.recall(ious) if len(ious) else None


def _image_sizes(facts: Facts) -> dict[str, int]:
    """Images by size, "640x480" as users type it, the most frequent first."""
    sizes, counts = np.unique(facts.sizes, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {f"{sizes[i][1]}x{sizes[i][0]}": int(counts[i]) for i in order}


def _classes(facts: Facts, config: Config, ious: np.ndarray) -> list[dict[str, Any]]:
    # Of several names of a class in the records, the most frequent.
    names = label_map.resolve(config.label_map) or dict(pair for pair, _ in reversed(facts.names.most_common()))
    rows = []
    for class_id in sorted(set(facts.classes.tolist()) | set(names)):
        chosen = facts.classes == class_id
        rows.append(
            {
                "id": class_id,
                "name": names.get(class_id, ""),
                "boxes": int(chosen.sum()),
                "images": len(np.unique(facts.image_index[chosen])),
                "recall": _recall(ious[chosen]),
            }
        )
    return rows


def table(figures: dict[str, Any], findings: Sequence[Finding]) -> str:
    """Figures and findings in lines of at most 120 columns."""
    per_image, anchors = figures["boxes_per_image"], figures["anchors"]
    height, width = anchors["image_size"]
    sizes = list(figures["image_sizes"].items())
    shown = ", ".join(f"{size} ({count})" for size, count in sizes[:4]) + (", ..." if len(sizes) > 4 else "")
    lines = [
        f"records       {figures['records']} read from {figures['files']} files"
        + ("" if figures["complete"] else " (a sample)")
        + f", {figures['faulty_records']} of them faulty",
        f"image sizes   {shown}",
        f"boxes         {figures['boxes']}, {figures['crowds']} of them crowds; an image: min {per_image['min']}, "
        f"median {per_image['median']:g}, mean {per_image['mean']:.1f}, max {per_image['max']}; "
        f"images without: {per_image['images_without']}",
        "",
        f"{'box size':<24}{'original':>12}{f'at {width}x{height}':>16}{'anchor recall':>16}",
    ]
    for name, limits in zip(SIZES, ("below 32x32", "below 96x96", "above")):
        counts = [figures["sizes"][where][name] for where in ("original", "network")]
        recall = _percent(anchors["recall_by_size"][name])
        lines.append(f"  {f'{name} ({limits})':<22}{counts[0]:>12}{counts[1]:>16}{recall:>16}")
    lines.append(f"  {'all':<22}{'':>12}{anchors['boxes']:>16}{_percent(anchors['recall']):>16}")
    lines += ["", f"{'class':<40}{'boxes':>12}{'images':>12}{'anchor recall':>16}"]
    for row in figures["classes"][:CLASSES_SHOWN]:
        name = f"{row['id']:>4} {row['name']}"[:40]
        lines.append(f"{name:<40}{row['boxes']:>12}{row['images']:>12}{_percent(row['recall']):>16}")
    if len(figures["classes"]) > CLASSES_SHOWN:
        lines.append(f"     and {len(figures['classes']) - CLASSES_SHOWN} classes more, in report.json")
    if anchors["proposals"]:
        lines += ["", "anchors that would reach more boxes (num_scales as it is):"]
        lines += [f"  {_percent(p['recall']):>6}  --hparams='{p['hparams']}'" for p in anchors["proposals"]]
    lines += ["", *_lines(findings)]
    return "\n".join(line.rstrip() for line in lines)


def _lines(findings: Sequence[Finding]) -> list[str]:
    if not findings:
        return ["nothing wrong was found"]
    lines = []
    for level, _, text in findings:
        lines += textwrap.wrap(f"{level.upper()}: {text}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return lines


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def plot_sizes(facts: Facts, config: Config, path: Path) -> None:
    """Width and height of boxes at the network's image size, over those of all anchors, as a PNG file."""
    boxes = facts.network_boxes(config.image_size)[facts.usable]
    boxes = boxes[:: -(-len(boxes) // POINTS_SHOWN) or 1]
    anchors = anchor_fit.anchors_of(config).boxes
    kinds = np.unique(np.round(anchors[:, 2:] - anchors[:, :2], 2), axis=0)
    figure = Figure(figsize=(8, 8), layout="constrained")
    axes = figure.add_subplot(aspect="equal", xlabel="width, pixels", ylabel="height, pixels")
    axes.loglog(base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")  # 64 instead of a power
    axes.scatter(boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0], s=6, alpha=0.4, label="boxes")
    axes.scatter(kinds[:, 1], kinds[:, 0], s=60, marker="+", color="black", label="anchors")
    height, width = config.image_size
    axes.set_title(f"boxes and anchors at {width}x{height}")
    axes.legend()
    figure.savefig(path)


def plot_counts(figures: dict[str, Any], path: Path) -> None:
    """Boxes of every class, and images by their number of boxes, as a PNG file."""
    figure = Figure(figsize=(12, 6), layout="constrained")
    by_class, by_image = figure.subplots(1, 2)
    rows = figures["classes"]
    # Two classes of one name are two bars, and $ is no formula.
    labels = [f"{row['id']} {row['name']}".rstrip().replace("$", r"\$") for row in rows]
    by_class.bar(labels, [row["boxes"] for row in rows])
    by_class.tick_params(axis="x", rotation=90)
    by_class.set(title="boxes of every class", ylabel="boxes")
    histogram = figures["boxes_per_image"]["histogram"]
    by_image.bar(list(histogram), list(histogram.values()), width=1.0)
    by_image.set(title="boxes per image", xlabel="boxes", ylabel="images")
    figure.savefig(path)
