# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of records before training or evaluation: facts -> findings. `quick` is used at the start of main.py."""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from dataset import coco_json, label_map
from dataset.check import box_layouts, class_ids, json_checks, name_checks, object_use, record_facts, swap_evidence
from dataset.check.class_ids import NamedIds
from dataset.check.finding import FATAL, LEVELS, NOTE, WARNING, Finding, format_count, format_names
from dataset.check.json_checks import GroundtruthFile
from dataset.check.record_facts import Facts
from dataset.convert.annotation import CORNERS_HINT
from dataset.label_map import spelling_key
from dataset.tfrecord import DataError
from efficientdet.config import Config, num_classes_advice

QUICK_RECORDS = 256
# Limits above which a problem is reported, or is fatal.
MAX_FAULTY_SHARE = 0.01  # of records or bytes that cannot be read
MAX_WRONG_SHARE = 0.1  # of images or boxes
MIN_SIDE = 2.0  # of boxes, pixels of the network input
MAX_TINY_SHARE = 0.01
MAX_WHOLE_IMAGE_SHARE = 0.1
MAX_EMPTY_SHARE = 0.5  # of images
ROUNDING = 0.01  # of the image, by which a box may extend beyond it
MAX_MISSED_SHARE = 0.05  # of boxes without a matching anchor
MIN_RECALL, MIN_RECALL_BOXES = 0.05, 50  # of anchors; below, over this many boxes or more, training is pointless
MIN_AGREEMENT = 0.9  # share of class names that must agree with a label map to prove that ids are shifted
# Findings that follow from others, beside which they are not reported: {code: codes of the others}.
CONSEQUENCES = {
    "similar_names": {"moved_names", "repeated_names"},
    "unnamed_classes": {"moved_names"},
    "json_unnamed_classes": {"moved_names", "unnamed_classes", "json_class_ids"},
    "json_class_ids": {"class_ids", "moved_names"},
    "json_category_0": {"class_ids", "json_class_ids"},
    "json_image_ids": {"json_other_split"},
}


class QuickResult(NamedTuple):
    """Result of `quick`."""

    warnings: list[str]  # to log
    names: NamedIds  # class names in the records


def quick(
    file_pattern: str,
    config: Config,
    val_json_file: str | None = None,
    others: Sequence[NamedIds] = (),
    *,
    evaluates: bool = False,
) -> QuickResult:
    """Checks the first records of up to 32 files within seconds, without decoding images.

    If no box of them is used, all records are read, because they are refused only if that holds for all.

    Args:
        val_json_file: groundtruth for AP, instead of the boxes in the records.
        others: class names of the detector or of other records, see `name_checks.check`.
        evaluates: True for records of an evaluation, False for those of training.

    Raises:
        DataError: if training or evaluation would be pointless.
    """
    groundtruth = json_checks.load(val_json_file) if val_json_file else None
    options = {"max_damaged": config.max_damaged_records, "others": others, "evaluates": evaluates}
    facts = _read(file_pattern, config)
    findings = run(facts, config, groundtruth, **options)
    is_fatal = any(finding.level == FATAL for finding in findings)
    has_use = groundtruth or object_use.used_boxes(facts, config, evaluates).any()
    if not (facts.complete or is_fatal or has_use):
        logging.info("no box in the first %d records of %s can be used: reading all", facts.num_records, file_pattern)
        facts = _read(file_pattern, config, samples=None)
        findings = run(facts, config, **options)
    warnings = _raise_fatal(file_pattern, findings, "; dataset/check_tfrecords.py shows all")
    return QuickResult(warnings, NamedIds(facts.names, file_pattern))


def quick_test_set(file_pattern: str, config: Config) -> list[str]:
    """As `quick`, for images without groundtruth whose detections are uploaded to COCO's server; returns warnings."""
    facts = _read(file_pattern, config)
    findings = list(_check_reading(facts, config.max_damaged_records))
    if config.regenerate_source_id:
        text = "regenerate_source_id replaces the image ids of COCO's server; leave it out"
        findings.append(Finding(FATAL, "regenerated_ids", text))
    ids = collections.Counter(record.source_id if record.has_source_id else "none" for record in facts.records)
    wrong = [source_id for source_id, number in ids.items() if number > 1 or not source_id.isdecimal()]
    if wrong:
        text = (
            f"image/source_id must be the unique number that COCO gives the image, but there are {format_names(wrong)}:"
            " write the records from COCO's image_info file"
        )
        findings.append(Finding(FATAL, "test_image_ids", text))
    return _raise_fatal(file_pattern, findings)


def _read(file_pattern: str, config: Config, samples: int | None = QUICK_RECORDS) -> Facts:
    options = {"decode_images": False, "regenerate_source_id": config.regenerate_source_id}
    return record_facts.read(file_pattern, samples=samples, progress=samples is None, **options)


def _raise_fatal(file_pattern: str, findings: Sequence[Finding], advice: str = "") -> list[str]:
    """Raises a DataError, which ends with the advice, if a finding is fatal; otherwise returns the warnings."""
    fatal = [finding.text for finding in findings if finding.level == FATAL]
    if fatal:
        more = f" (and {len(fatal) - 1} more)" if len(fatal) > 1 else ""
        raise DataError(f"{file_pattern}: {fatal[0]}{more}{advice}")
    return [f"{file_pattern}: {finding.text}" for finding in findings if finding.level == WARNING]


def run(
    facts: Facts,
    config: Config,
    groundtruth: GroundtruthFile | None = None,
    anchors: Mapping[str, Any] | None = None,
    *,
    max_damaged: int | None = None,
    others: Sequence[NamedIds] = (),
    evaluates: bool = False,
) -> list[Finding]:
    """Runs all checks; returns the findings, most severe first.

    Args:
        anchors: entry "anchors" of `data_report.compute_statistics`; None skips the check of the anchors.
        max_damaged: number of damaged or faulty records that the reader tolerates; None judges them by their share.
        others: class names of the detector or of other records, see `name_checks.check`.
        evaluates: True if AP is computed from the boxes of the records; a groundtruth file implies that AP is computed.
    """
    names = label_map.resolve(config.label_map)
    findings = [*_check_reading(facts, max_damaged), *_check_images(facts, evaluated=groundtruth is not None)]
    if groundtruth:
        findings += groundtruth.findings
        findings += json_checks.check_image_ids(facts, groundtruth, config.regenerate_source_id)
    of_classes = list(_check_classes(facts, config.num_classes, names))
    if groundtruth and groundtruth.has_names and not of_classes:
        of_classes = _check_shift(facts, config.num_classes, groundtruth.names, groundtruth.path)
    if not any(finding.code == "class_ids" for finding in of_classes):
        of_classes += name_checks.check(facts, class_ids.of_label_map(config.label_map), groundtruth, others)
    findings += [*of_classes, *_check_layout(facts, groundtruth)]
    codes = {finding.code for finding in findings}
    findings = [finding for finding in findings if not codes & CONSEQUENCES.get(finding.code, set())]
    if not codes & box_layouts.LAYOUTS.keys():
        findings += [*_check_boxes(facts, config), *(_check_anchors(anchors) if anchors else ())]
        findings += object_use.check(facts, config, evaluates) if not groundtruth else ()
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def _check_reading(facts: Facts, max_damaged: int | None) -> Iterator[Finding]:
    """Reports damaged files and faulty records."""
    total, remedy = facts.num_records, "write them again"
    too_many = max_damaged is not None and len(facts.damage) + len(facts.faulty) > max_damaged
    if too_many:
        remedy += f", or raise max_damaged_records = {max_damaged}"

    def level(share: float) -> str:
        if max_damaged is None:
            return FATAL if share > MAX_FAULTY_SHARE else WARNING
        return FATAL if too_many or not facts.records else WARNING

    if facts.damage:
        lost = f"{facts.lost_share:.1%} of the {'bytes' if facts.complete else 'sampled records'} cannot be read"
        text = f"damaged files: {format_names(facts.damage)}; {lost}: copy these files again, or {remedy}"
        yield Finding(level(facts.lost_share), "damaged_files", text)
    elif not total:
        yield Finding(FATAL, "no_records", "the files contain no records; write them again from data with images")
    kinds = collections.defaultdict(list)
    for record in facts.faulty:
        kinds[record.fault].append(f"{record.where}: {record.detail}")
    for kind, where in kinds.items():
        text = f"{format_count(len(where), total, 'records')} {kind} ({format_names(where)}); {remedy}"
        yield Finding(level(len(facts.faulty) / total), "faulty_records", text)
    unread = [f"{r.where}: {len(r.boxes)} boxes, {r.unread}" for r in facts.records if r.unread]
    if unread:
        records = format_count(len(unread), total, "records")
        text = f"{records} have columns, not read in training, of other lengths than their boxes"
        yield Finding(WARNING, "unread_columns", f"{text} ({format_names(unread)})")


def _check_images(facts: Facts, evaluated: bool) -> Iterator[Finding]:
    """Checks sizes, ids and numbers of boxes of the images; evaluated: with a groundtruth file."""
    records, total = facts.records, len(facts.records)
    wrong = [record for record in records if record.stored_size not in (None, record.size)]
    if wrong:
        swapped = all(record.stored_size == record.size[::-1] for record in wrong)
        cause = "; the two are swapped, as in images rotated by EXIF" if swapped else ""
        shown = format_names([f"{r.where}: {_format_size(r.stored_size)} for {_format_size(r.size)}" for r in wrong])
        text = (
            f"{format_count(len(wrong), total, 'records')} have an image/height and image/width that differ from their "
            f"image ({shown}){cause}: groundtruth and detections are in different pixels; write the size of the image "
            "as it is stored"
        )
        yield Finding(FATAL if len(wrong) > MAX_WRONG_SHARE * total else WARNING, "image_sizes", text)
    numbered = [(record, coco_json.parse_id(record.source_id)) for record in records if record.has_source_id]
    ids = collections.Counter(record.source_id if number is None else str(number) for record, number in numbered)
    repeated = [source_id for source_id, number in ids.items() if number > 1]
    if repeated:
        text = f"{len(repeated)} image ids occur more than once ({format_names(repeated)}): does the pattern match "
        text += "shards of two runs?"
        if len(ids) == 1:
            text = f"all {ids.total()} records with an image id have the same, {repeated[0]!r}: write to "
            text += "image/source_id of each the id of its image."
        text += " Evaluation stops there" if evaluated else ""
        yield Finding(FATAL if evaluated else WARNING, "repeated_image_ids", text)
    without = sum(not record.has_source_id for record in records)
    if without:
        text = f"{format_count(without, total, 'records')} have no image/source_id; a hash of the image is used"
        yield Finding(NOTE, "no_image_ids", text)
    empty = int((facts.counts == 0).sum())
    if records and empty == total:
        sample = "" if facts.complete else f" of the {total} sampled ones"
        text = f"no record{sample} has a box; write them to image/object/bbox/xmin, xmax, ymin, ymax and class/label"
        # AP with a groundtruth file needs no boxes in the records.
        yield Finding(FATAL if facts.complete and not evaluated else WARNING, "no_boxes", text)
    elif empty > MAX_EMPTY_SHARE * total:
        images = format_count(empty, total, "images")
        text = f"{images} have no box; objects in them that are not annotated train as background"
        yield Finding(WARNING, "empty_images", text)


def _format_size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _check_classes(facts: Facts, num_classes: int, names: Mapping[int, str]) -> Iterator[Finding]:
    """Checks class ids against 1..num_classes and label_map {id: name}, which may be empty."""
    ids = collections.Counter(facts.classes.tolist())
    wrong = {class_id: boxes for class_id, boxes in sorted(ids.items()) if not 1 <= class_id <= num_classes}
    shifted = _check_shift(facts, num_classes, names, "label_map")
    if shifted or not ids:
        yield from shifted
    elif wrong:
        remedy = "write ids from 1, and no boxes of background"
        if min(wrong) > 0:
            remedy = num_classes_advice(max(ids))
        others = format_names([f"{class_id} on {boxes}" for class_id, boxes in wrong.items()])
        text = (
            f"class ids must be in 1..num_classes = {num_classes}, but {sum(wrong.values())} of {len(facts.classes)} "
            f"boxes have others ({others}); {remedy}"
        )
        yield Finding(FATAL, "class_ids", text)
    else:
        yield from _check_similar_names(facts, names)
        unnamed = sorted(ids.keys() - names.keys()) if names else []
        if unnamed:
            boxes = sum(ids[class_id] for class_id in unnamed)
            text = f"label_map has no class {format_names(unnamed)}, which {boxes} boxes have; add the names, or "
            text += "convert the data again with this label map"
            yield Finding(FATAL, "unnamed_classes", text)
        unseen = [name for class_id, name in names.items() if class_id not in ids]
        if unseen and facts.complete:
            text = f"no box is of class {format_names(unseen)}, which label_map has"
            yield Finding(NOTE, "unseen_classes", text)


def _check_similar_names(facts: Facts, names: Mapping[int, str]) -> Iterator[Finding]:
    """Detects classes of the records, or of label_map {id: name}, whose names are spellings of one name."""
    num_boxes = collections.Counter(facts.classes.tolist())
    similar = label_map.show_similar({**names, **dict(sorted(facts.names))}, num_boxes)
    if similar:
        text = f"{label_map.SIMILAR_NAMES}: {'; '.join(similar)}; {label_map.SIMILAR_NAMES_ADVICE}"
        yield Finding(WARNING, "similar_names", text)


def _check_shift(facts: Facts, num_classes: int, names: Mapping[int, str], source: str) -> list[Finding]:
    """Detects ids that are all one too low or too high, by the {id: name} of a source or, if it is empty, by range."""
    if not len(facts.classes):
        return []
    used, low, high = sorted(facts.names), int(facts.classes.min()), int(facts.classes.max())
    agreeing = {
        shift: [(i, name) for i, name in used if spelling_key(name) == spelling_key(names.get(i + shift, ""))]
        for shift in (0, 1, -1)
    }
    shift = max(agreeing, key=lambda shift: len(agreeing[shift]))
    if not used or len(agreeing[shift]) < MIN_AGREEMENT * len(used):
        shift = 1 if low == 0 and high < num_classes else -1 if low == 2 and high == num_classes + 1 else 0
    if not shift:
        return []
    direction, background = ("low", "0") if shift == 1 else ("high", "0 alone")
    text = f"class ids are one too {direction}: they run from {low} to {high} with num_classes {num_classes}"
    for class_id, name in agreeing[shift][:1]:
        text += f", and {class_id} is called {name!r}, which {source} has as {class_id + shift}"
    return [Finding(FATAL, "class_ids", f"{text}; write them from 1, as {background} is background")]


def _check_layout(facts: Facts, groundtruth: GroundtruthFile | None) -> list[Finding]:
    """Detects wrong layouts of boxes: by the groundtruth file or, if it explains nothing, by the values and pixels."""
    findings, agrees = json_checks.check_boxes(facts, groundtruth) if groundtruth else ([], False)
    if agrees or any(finding.code in box_layouts.LAYOUTS for finding in findings):
        return findings
    layout = box_layouts.from_values(facts.boxes, facts.sizes[facts.image_index])
    evidence = ""
    if layout is None:
        layout = swap_evidence.find_swap(facts.gains, facts.boxes, facts.image_index)
        evidence = " (objects stand out from the pixels around them only with x and y exchanged)"
    if layout is None:
        return findings
    return [Finding(FATAL, layout, box_layouts.LAYOUTS[layout].text + evidence)]


def _check_boxes(facts: Facts, config: Config) -> Iterator[Finding]:
    """Detects boxes that are invalid, outside, repeated, tiny or as large as their image, and images with too many."""
    boxes, usable = facts.boxes, facts.usable
    if not len(boxes):
        return
    mins, maxs = boxes[:, :2], boxes[:, 2:]
    finite = np.isfinite(boxes).all(1)
    inverted = finite & (maxs < mins).any(1)
    empty = finite & ~inverted & (maxs == mins).any(1)
    beyond = usable & ((boxes < -ROUNDING) | (boxes > 1 + ROUNDING)).any(1)
    far_outside = usable & box_layouts.are_far_outside(boxes)
    extends = ("boxes_beyond", beyond, "extend beyond their image: clip them to 0 and 1", WARNING)
    if box_layouts.are_many(far_outside):
        what = f"have more than a third of their area outside of their image: {CORNERS_HINT}"
        extends = ("boxes_beyond", far_outside, what, FATAL)
    repeated = usable.copy()
    rows = np.column_stack([facts.image_index, facts.classes, np.round(boxes * 1e6)])
    repeated[np.unique(rows, axis=0, return_index=True)[1]] = False  # the first one of each
    network_boxes = facts.network_boxes(config.image_size, config.keep_aspect_ratio)
    tiny = usable & ((network_boxes[:, 2:] - network_boxes[:, :2]).min(1) < MIN_SIDE)
    tiny &= tiny.mean() > MAX_TINY_SHARE
    tiny_text = f"are less than {MIN_SIDE:g} pixels high or wide at {_format_size(config.image_size)}"
    whole = usable & ((mins <= 0) & (maxs >= 1)).all(1)
    whole &= whole.mean() > MAX_WHOLE_IMAGE_SHARE
    for code, wrong, what, level in (  # level None: by the share of the boxes
        ("boxes_not_finite", ~finite, "are not a number: leave them out", None),
        ("boxes_inverted", inverted, "have a maximum below their minimum: write corners in order", None),
        ("boxes_empty", empty, "have no area: leave them out", None),
        ("boxes_outside", finite & ~inverted & ~empty & ~usable, "are outside their image: leave them out", None),
        extends,
        ("boxes_twice", repeated, "repeat another of their image and class: write each once", WARNING),
        ("boxes_tiny", tiny, f"{tiny_text}: raise image_size or leave them out", WARNING),
        ("boxes_of_whole_images", whole, "cover the whole image: are these data for classification?", WARNING),
    ):
        if wrong.any():
            where = format_names([facts.records[i].where for i in np.unique(facts.image_index[wrong])])
            text = f"{format_count(int(wrong.sum()), len(boxes), 'boxes')} {what} ({where})"
            yield Finding(level or (FATAL if wrong.mean() > MAX_WRONG_SHARE else WARNING), code, text)
    most, limit = int(facts.counts.max()), config.max_instances_per_image
    if most > limit:
        text = (
            f"{int((facts.counts > limit).sum())} images have more than max_instances_per_image = {limit} boxes, and "
            f"are evaluated on the largest; set it to {most} ({facts.records[int(facts.counts.argmax())].where})"
        )
        yield Finding(WARNING, "too_many_boxes", text)


def _check_anchors(anchors: Mapping[str, Any]) -> Iterator[Finding]:
    """Checks the recall of the anchors; see `run`."""
    missed, proposals = 1 - anchors["recall"], anchors["proposals"]
    if missed > MAX_MISSED_SHARE:
        iou = f"an IoU of {anchors['match_threshold']:g}"
        text = f"{missed:.0%} of the boxes have no anchor with {iou}, and are hard to learn"
        if proposals:
            text += f"; --hparams='{proposals[-1]['hparams']}' leaves {1 - proposals[-1]['recall']:.0%}"
        pointless = anchors["recall"] < MIN_RECALL and anchors["boxes"] >= MIN_RECALL_BOXES
        yield Finding(FATAL if pointless else WARNING, "anchors", text)
