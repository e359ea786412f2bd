# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Report of a check: statistics of the records and findings, as a table, report.json and two plots."""

import collections
import json
import os
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dataset import label_map
from dataset.check import anchor_fit, object_use
from dataset.check.finding import Finding
from dataset.check.record_facts import Facts
from dataset.files import atomic_path, write_file
from efficientdet.config import Config
from efficientdet.model import build_anchors

WIDTH = 120  # columns of the table
MAX_CLASSES = 100  # in the table
MAX_POINTS = 5000  # boxes in the plot
SMALL, MEDIUM = 32**2, 96**2  # COCO's upper limits of small and medium objects, square pixels
SIZES = ("small", "medium", "large")


def compute_statistics(facts: Facts, config: Config) -> dict[str, Any]:
    """Computes statistics of the records, in types of JSON.

    Sizes and anchor recall exclude unusable boxes; anchor recall also excludes crowds if training skips them.
    """
    usable, counts = facts.usable, facts.counts
    per_image = counts if len(counts) else np.zeros(1, int)
    image_sizes = collections.Counter(sorted(record.size for record in facts.records)).most_common()
    clipped = np.clip(facts.boxes, 0, 1)
    sides = (clipped[:, 2:] - clipped[:, :2]) * facts.sizes[facts.image_index]
    network = facts.network_boxes(config.image_size, config.keep_aspect_ratio)
    network_sides = network[:, 2:] - network[:, :2]
    trained = object_use.used_boxes(facts, config, evaluates=False) & (network_sides > 0).all(1)
    ious = np.full(len(usable), np.nan)
    ious[trained] = anchor_fit.best_ious(network[trained], build_anchors(config))
    proposals = anchor_fit.propose(network[trained], config)
    # Indices of SIZES, [K].
    size, network_size = (np.digitize(pixels.prod(1), [SMALL, MEDIUM]) for pixels in (sides, network_sides))
    return {
        "files": len(facts.files),
        "records": facts.num_records,
        "faulty_records": len(facts.faulty),
        "complete": facts.complete,
        "boxes": len(usable),
        "crowds": int(facts.is_crowd.sum()),
        "boxes_per_image": {
            "min": int(per_image.min()),
            "median": float(np.median(per_image)),
            "mean": float(per_image.mean()),
            "max": int(per_image.max()),
            "images_without": int((counts == 0).sum()),
            "histogram": dict(sorted(collections.Counter(counts.tolist()).items())),
        },
        "image_sizes": {f"{width}x{height}": number for (height, width), number in image_sizes},
        "sizes": {
            where: {name: int((index[usable] == i).sum()) for i, name in enumerate(SIZES)}
            for where, index in (("original", size), ("network", network_size))
        },
        "classes": _class_statistics(facts, config, ious),
        "anchors": {
            "image_size": list(config.image_size),
            "boxes": int(trained.sum()),
            "match_threshold": config.match_threshold,
            "recall": anchor_fit.recall(ious[trained], config.match_threshold),
            "recall_by_size": {name: _recall(ious[network_size == i], config) for i, name in enumerate(SIZES)},
            "mean_iou": float(ious[trained].mean()) if trained.any() else None,
            "proposals": [{"hparams": p.hparams, "recall": p.recall} for p in proposals],
        },
    }


def _recall(ious: np.ndarray, config: Config) -> float | None:
    ious = ious[~np.isnan(ious)]
    return anchor_fit.recall(ious, config.match_threshold) if len(ious) else None


def _class_statistics(facts: Facts, config: Config, ious: np.ndarray) -> list[dict[str, Any]]:
    # Without a label map, the most frequent name of each class in the records.
    names = label_map.resolve(config.label_map) or dict(pair for pair, _ in reversed(facts.names.most_common()))
    rows = []
    for class_id in sorted({*facts.classes.tolist(), *names}):
        chosen = facts.classes == class_id
        images = len(np.unique(facts.image_index[chosen]))
        row = {"id": class_id, "name": names.get(class_id, ""), "boxes": int(chosen.sum()), "images": images}
        rows.append({**row, "recall": _recall(ious[chosen], config)})
    return rows


def table(statistics: dict[str, Any], findings: Sequence[Finding]) -> str:
    """Formats statistics and findings in lines of at most 120 columns."""
    per_image, anchors = statistics["boxes_per_image"], statistics["anchors"]
    height, width = anchors["image_size"]
    sizes = list(statistics["image_sizes"].items())
    shown = ", ".join(f"{size} ({count})" for size, count in sizes[:4]) + (", ..." if len(sizes) > 4 else "")
    lines = [
        f"records       {statistics['records']} read from {statistics['files']} files"
        + ("" if statistics["complete"] else " (a sample)")
        + f", {statistics['faulty_records']} of them faulty",
        f"image sizes   {shown}",
        f"boxes         {statistics['boxes']}, {statistics['crowds']} of them crowds; "
        f"per image: min {per_image['min']}, median {per_image['median']:g}, mean {per_image['mean']:.1f}, "
        f"max {per_image['max']}; images without: {per_image['images_without']}",
        *_format_groundtruth(**statistics.get("groundtruth", {})),
        "",
        f"{'box size':<24}{'original':>12}{f'at {width}x{height}':>16}{'anchor recall':>16}",
    ]
    for name, limits in zip(SIZES, ("below 32x32", "below 96x96", "above")):
        counts = [statistics["sizes"][where][name] for where in ("original", "network")]
        recall = _format_share(anchors["recall_by_size"][name])
        lines.append(f"  {f'{name} ({limits})':<22}{counts[0]:>12}{counts[1]:>16}{recall:>16}")
    recall = _format_share(anchors["recall"] if anchors["boxes"] else None)
    lines.append(f"  {'all':<22}{'':>12}{anchors['boxes']:>16}{recall:>16}")
    lines += ["", f"{'class':<40}{'boxes':>12}{'images':>12}{'anchor recall':>16}"]
    for row in statistics["classes"][:MAX_CLASSES]:
        name = f"{row['id']:>4} {row['name']}"[:40]
        lines.append(f"{name:<40}{row['boxes']:>12}{row['images']:>12}{_format_share(row['recall']):>16}")
    if len(statistics["classes"]) > MAX_CLASSES:
        lines.append(f"     and {len(statistics['classes']) - MAX_CLASSES} more classes, in report.json")
    if anchors["proposals"]:
        lines += ["", "anchors that would reach more boxes (with the same num_scales):"]
        lines += [f"  {_format_share(p['recall']):>6}  --hparams='{p['hparams']}'" for p in anchors["proposals"]]
    lines.append("")
    for level, _, text in findings:
        lines += textwrap.wrap(f"{level.upper()}: {text}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    if not findings:
        lines.append("nothing wrong was found")
    return "\n".join(line.rstrip() for line in lines)


def _format_groundtruth(path: str = "", **counts: int) -> list[str]:
    if not path:
        return []
    text = "{images} images, {images_without_boxes} without boxes; {boxes} boxes, {crowds} of them crowds"
    return textwrap.wrap(f"groundtruth   {text.format(**counts)}; {path}", WIDTH, subsequent_indent=" " * 14)


def _format_share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def write(folder: str, facts: Facts, config: Config, statistics: dict[str, Any], findings: Sequence[Finding]) -> None:
    """Writes report.json, box_sizes.png and counts.png to an existing local or remote folder."""
    report = {**statistics, "findings": [finding._asdict() for finding in findings]}
    write_file(os.path.join(folder, "report.json"), json.dumps(report, indent=2))
    with atomic_path(os.path.join(folder, "box_sizes.png")) as path:
        plot_sizes(facts, config, path)
    with atomic_path(os.path.join(folder, "counts.png")) as path:
        plot_counts(statistics, path)


def plot_sizes(facts: Facts, config: Config, path: str) -> None:
    """Plots width and height of boxes and anchors in pixels of the network input, as a PNG file."""
    boxes = facts.network_boxes(config.image_size, config.keep_aspect_ratio)[facts.usable]
    boxes = boxes[:: -(-len(boxes) // MAX_POINTS) or 1]
    anchors = build_anchors(config).boxes
    kinds = np.unique(np.round(anchors[:, 2:] - anchors[:, :2], 2), axis=0)
    figure = Figure(figsize=(8, 8), layout="constrained")
    axes = figure.add_subplot(aspect="equal", xlabel="width, pixels", ylabel="height, pixels")
    axes.loglog(base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")  # instead of powers
    axes.scatter(boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0], s=6, alpha=0.4, label="boxes")
    axes.scatter(kinds[:, 1], kinds[:, 0], s=60, marker="+", color="black", label="anchors")
    height, width = config.image_size
    axes.set_title(f"boxes and anchors at {width}x{height}")
    axes.legend()
    figure.savefig(path)


def plot_counts(statistics: dict[str, Any], path: str) -> None:
    """Plots boxes per class, and the histogram of boxes per image, as a PNG file."""
    figure = Figure(figsize=(12, 6), layout="constrained")
    by_class, by_image = figure.subplots(1, 2)
    rows = statistics["classes"]
    # With ids, as equal labels would share a bar; $ would start a formula.
    labels = [f"{row['id']} {row['name']}".rstrip().replace("$", r"\$") for row in rows]
    by_class.bar(labels, [row["boxes"] for row in rows])
    by_class.tick_params(axis="x", rotation=90)
    by_class.set(title="boxes per class", ylabel="boxes")
    histogram = statistics["boxes_per_image"]["histogram"]
    by_image.bar(list(histogram), list(histogram.values()), width=1.0)
    by_image.set(title="boxes per image", xlabel="boxes", ylabel="images")
    figure.savefig(path)
