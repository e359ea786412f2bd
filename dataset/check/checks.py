# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with records, told before a training: facts -> findings. `quick` is for the start of a training."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dataset import label_map
from dataset.check import box_layouts, json_checks, record_facts, swap_evidence
from dataset.check.finding import FATAL, LEVELS, NOTE, WARNING, Finding, by_share, count, first
from dataset.check.json_checks import Groundtruth
from dataset.check.record_facts import Facts
from dataset.convert.conversion_report import CORNERS
from dataset.tfrecord import DataError
from efficientdet.config import Config

QUICK_RECORDS = 256
FAULTY_SHARE = 0.01  # of records or bytes that cannot be read; above, they are to be written again
BAD_SHARE = 0.1  # of images or boxes that are wrong; above, training would be pointless
TINY_SIDE = 2.0  # pixels of the network input
TINY_SHARE = 0.01
WHOLE_IMAGE_SHARE = 0.1
EMPTY_IMAGES_SHARE = 0.5
OUTSIDE = 0.01  # of the image: how far a box may stick out by rounding
MISSED_SHARE = 0.05  # of boxes that no anchor reaches
HOPELESS_RECALL, ENOUGH_BOXES = 0.05, 50  # anchors that reach less of so many boxes are not worth a training
NAMES_AGREE = 0.9  # of the class names
# Findings that say nothing new beside one of these.
CONSEQUENCES = {"json_class_ids": {"class_ids"}, "json_image_ids": {"json_other_split"}}


def quick(file_pattern: str, config: Config, val_json_file: str | None = None, limit: int = QUICK_RECORDS) -> list[str]:
    """Checks what can be checked within a second or two: the first records of up to 32 files, without images.

    Args:
        file_pattern: glob of the records.
        config: what they are to be used with.
        val_json_file: groundtruth that evaluation over them would use.
        limit: about how many records to read.

    Returns:
        What is wrong, but no reason to stop: sentences to log.

    Raises:
        DataError: if training or evaluation would be pointless; the message says why.
    """
    facts = _quick_facts(file_pattern, config, limit)
    groundtruth = json_checks.load(val_json_file) if val_json_file else None
    findings = run(facts, config, groundtruth, max_damaged=config.max_damaged_records)
    return _told(file_pattern, findings, "; dataset/check_tfrecords.py shows all")


def quick_test_set(file_pattern: str, config: Config, limit: int = QUICK_RECORDS) -> list[str]:
    """As `quick`, for images without groundtruth whose detections go to COCO's server, which knows them by number."""
    facts = _quick_facts(file_pattern, config, limit)
    findings = _check_reading(facts, config.max_damaged_records)
    if config.regenerate_source_id:
        text = "regenerate_source_id makes ids of its own, which COCO's server does not know; leave it out"
        findings.append(Finding(FATAL, "regenerated_ids", text))
    ids = collections.Counter(record.source_id if record.has_source_id else "none" for record in facts.records)
    unfit = [source_id for source_id, times in ids.items() if times > 1 or not source_id.isdecimal()]
    if unfit:
        text = f"image/source_id must be the number that COCO gives the image, once each, but there are {first(unfit)}"
        findings.append(Finding(FATAL, "test_image_ids", f"{text}: write the records from COCO's image_info file"))
    return _told(file_pattern, findings)


def _quick_facts(file_pattern: str, config: Config, limit: int) -> Facts:
    return record_facts.read(
        file_pattern, samples=limit, decode_images=False, regenerate_source_id=config.regenerate_source_id
    )


def _told(file_pattern: str, findings: Sequence[Finding], advice: str = "") -> list[str]:
    """The sentences of warnings; a DataError, with some advice at its end, if there is worse."""
    fatal = [finding.text for finding in findings if finding.level == FATAL]
    if fatal:
        more = f" (and {len(fatal) - 1} more)" if len(fatal) > 1 else ""
        raise DataError(f"{file_pattern}: {fatal[0]}{more}{advice}")
    return [f"{file_pattern}: {finding.text}" for finding in findings if finding.level == WARNING]


def run(
    facts: Facts,
    config: Config,
    groundtruth: Groundtruth | None = None,
    anchors: Mapping[str, Any] | None = None,
    *,
    max_damaged: int | None = None,
) -> list[Finding]:
    """All findings, the worst first.

    Args:
        facts: the records.
        config: what they are to be used with.
        groundtruth: the file that evaluation over them would use.
        anchors: the figures of `report_lib.figures` under that name; None does not judge them.
        max_damaged: so many damaged or faulty records are let pass, as the reader does; None judges by their share.
    """
    names = label_map.resolve(config.label_map)
    findings = _check_reading(facts, max_damaged) + _check_images(facts, evaluated=groundtruth is not None)
    if groundtruth:
        findings += json_checks.check_image_ids(facts, groundtruth, config.regenerate_source_id)
    of_classes = check_classes(facts, config.num_classes, names, "label_map")
    if groundtruth and not of_classes and min(groundtruth.names, default=0) > 0:
        source = (groundtruth.names, groundtruth.path)
        of_classes = _check_shift(facts, config.num_classes, *source) or _check_names(facts, *source)
    of_boxes = _check_layout(facts, groundtruth)
    findings += of_classes + of_boxes
    found = {finding.code for finding in findings}
    findings = [finding for finding in findings if not found & CONSEQUENCES.get(finding.code, set())]
    if not found & box_layouts.LAYOUTS.keys():
        findings += check_boxes(facts, config) + (check_anchors(anchors) if anchors else [])
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def _check_reading(facts: Facts, max_damaged: int | None) -> list[Finding]:
    """Files that break off, and records that no reader can use."""
    findings, remedy = [], "write them again"
    too_many = max_damaged is not None and len(facts.damage) + len(facts.faulty) > max_damaged
    if too_many:
        remedy += f", or raise max_damaged_records = {max_damaged}"

    def level(share: float) -> str:
        if max_damaged is None:
            return by_share(share, FAULTY_SHARE)
        return FATAL if too_many or not facts.records else WARNING

    if facts.damage:
        lost = f"{facts.lost_share:.1%} of the {'bytes' if facts.complete else 'records that were looked at'}"
        text = f"damaged files: {first(facts.damage)}; {lost} cannot be read: copy these files again, or {remedy}"
        findings.append(Finding(level(facts.lost_share), "damaged_files", text))
    if not facts.num_records:
        text = "the files hold no record; write them again from data with images"
        return findings or [Finding(FATAL, "no_records", text)]
    kinds = collections.defaultdict(list)
    for record in facts.faulty:
        kinds[record.fault].append(f"{record.where}: {record.detail}")
    for kind, where in kinds.items():
        text = f"{count(len(where), facts.num_records, 'records')} {kind} ({first(where)}); {remedy}"
        findings.append(Finding(level(len(facts.faulty) / facts.num_records), "faulty_records", text))
    unread = [
        f"{record.where}: {len(record.boxes)} boxes, {record.unread}" for record in facts.records if record.unread
    ]
    if unread:
        text = f"{count(len(unread), facts.num_records, 'records')} have columns, not read in training, of another "
        text += f"length than their boxes ({first(unread)})"
        findings.append(Finding(WARNING, "unread_columns", text))
    return findings


def _check_images(facts: Facts, evaluated: bool) -> list[Finding]:
    """Sizes, source ids and numbers of boxes of images."""
    findings, records = [], facts.records
    wrong = [record for record in records if record.stored_size not in (None, record.size)]
    if wrong:
        turned = all(record.stored_size == record.size[::-1] for record in wrong)
        shown = first([f"{r.where}: {_wxh(r.stored_size)} for {_wxh(r.size)}" for r in wrong])
        text = f"{count(len(wrong), len(records), 'records')} have an image/height and image/width that is not their "
        text += f"image's ({shown})" + ("; the two are swapped, as in images turned by EXIF" if turned else "")
        text += ": groundtruth is in other pixels than detections; write the size of the image as it is stored"
        findings.append(Finding(by_share(len(wrong) / len(records), BAD_SHARE), "image_sizes", text))
    ids = collections.Counter(record.source_id for record in records if record.has_source_id)
    twice = [source_id for source_id, times in ids.items() if times > 1]
    if twice:
        if len(ids) == 1:
            text = f"all {ids.total()} records with an image id have the same, {twice[0]!r}: write to image/source_id "
            text += "of each the id of its image."
        else:
            text = f"{len(twice)} image ids are there more than once ({first(twice)}): does the pattern match shards "
            text += "of two runs?"
        text += " Evaluation stops there" if evaluated else ""
        findings.append(Finding(FATAL if evaluated else WARNING, "repeated_image_ids", text))
    without = sum(not record.has_source_id for record in records)
    if without:
        text = f"{count(without, len(records), 'records')} have no image/source_id; a hash of the image takes its place"
        findings.append(Finding(NOTE, "no_image_ids", text))
    empty = int((facts.counts == 0).sum())
    if records and empty == len(records):
        looked_at = "" if facts.complete else f" of the {len(records)} that were looked at"
        text = f"no record{looked_at} has a box; write them to image/object/bbox/xmin, xmax, ymin, ymax and class/label"
        # AP with a groundtruth file needs no boxes in the records.
        findings.append(Finding(FATAL if facts.complete and not evaluated else WARNING, "no_boxes", text))
    elif empty > EMPTY_IMAGES_SHARE * len(records):
        text = f"{count(empty, len(records), 'images')} have no box; objects in them that nobody marked train as "
        findings.append(Finding(WARNING, "empty_images", f"{text}background"))
    return findings


def _wxh(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def check_classes(facts: Facts, num_classes: int, names: Mapping[int, str], source: str) -> list[Finding]:
    """Class ids against their range and, where records have names, against a label map.

    Args:
        facts: the records.
        num_classes: ids are 1..num_classes.
        names: {id: name} or empty.
        source: what the names are from, for messages.
    """
    ids = collections.Counter(facts.classes.tolist())
    if not ids:
        return []
    wrong = {class_id: boxes for class_id, boxes in sorted(ids.items()) if not 1 <= class_id <= num_classes}
    shifted = _check_shift(facts, num_classes, names, source)
    if shifted:
        return shifted
    if wrong:
        text = (
            f"class ids must be in 1..num_classes = {num_classes}, but {sum(wrong.values())} of {len(facts.classes)} "
        )
        text += f"boxes have others ({first([f'{class_id} on {boxes}' for class_id, boxes in wrong.items()])}); "
        text += f"set num_classes to {max(ids)}" if min(wrong) > 0 else "write ids from 1, and no boxes of background"
        return [Finding(FATAL, "class_ids", text)]
    return _check_names(facts, names, source) + _check_named(ids, names, source, facts.complete)


def _check_named(ids: Mapping[int, int], names: Mapping[int, str], source: str, complete: bool) -> list[Finding]:
    """Ids without a name, and names without a box."""
    findings = []
    unnamed = sorted(ids.keys() - names.keys()) if names else []
    if unnamed:
        boxes = sum(ids[class_id] for class_id in unnamed)
        text = f"{source} has no class {first(unnamed)}, which {boxes} boxes have; add the names"
        findings.append(Finding(WARNING, "unnamed_classes", text))
    unseen = [name for class_id, name in names.items() if class_id not in ids]
    if unseen and complete:
        findings.append(Finding(NOTE, "unseen_classes", f"no box is of {first(unseen)}, which {source} names"))
    return findings


def _check_names(facts: Facts, names: Mapping[int, str], source: str) -> list[Finding]:
    """Names in the records against those of a label map."""
    used = sorted(facts.names)
    differ = [(class_id, name) for class_id, name in used if class_id in names and not _same(name, names[class_id])]
    if not differ:
        return []
    shown = first([f"{class_id} is {name!r} in the records and {names[class_id]!r} there" for class_id, name in differ])
    return [Finding(WARNING, "class_names", f"class names are not those of {source}: {shown}; which ids are right?")]


def _same(name: str, other: str) -> bool:
    plain = [text.casefold().replace("_", " ").replace("-", " ").strip() for text in (name, other)]
    return plain[0] == plain[1]


def _check_shift(facts: Facts, num_classes: int, names: Mapping[int, str], source: str) -> list[Finding]:
    """Whether all ids are one too low or too high, by the names or, where these do not tell, by the range."""
    ids = set(facts.classes.tolist())
    if not ids:
        return []
    shift = _name_shift(facts, names)
    if shift is None:
        low, high = min(ids), max(ids)
        shift = 1 if low == 0 and high < num_classes else -1 if low == 2 and high == num_classes + 1 else 0
    if not shift:
        return []
    which, background = ("low", "0") if shift == 1 else ("high", "0 alone")
    text = (
        f"class ids are one too {which}: they run from {min(ids)} to {max(ids)} with num_classes {num_classes}"
        f"{_example(facts, names, shift, source)}; write them from 1, as {background} is background"
    )
    return [Finding(FATAL, "class_ids", text)]


def _name_shift(facts: Facts, names: Mapping[int, str]) -> int | None:
    """What has to be added to the ids for the names to agree: -1, 0 or 1; None where names do not tell."""
    used = sorted(facts.names)
    if not used or not names:
        return None
    agree = {shift: np.mean([_same(name, names.get(i + shift, "")) for i, name in used]) for shift in (0, 1, -1)}
    best = max(agree, key=agree.get)
    return best if agree[best] >= NAMES_AGREE else None


def _example(facts: Facts, names: Mapping[int, str], shift: int, source: str) -> str:
    """A name that agrees once the shift is added to its id, as the end of a sentence; empty where none does."""
    for class_id, name in sorted(facts.names):
        if _same(name, names.get(class_id + shift, "")):
            return f", and {class_id} is called {name!r}, which {source} has as {class_id + shift}"
    return ""


def _check_layout(facts: Facts, groundtruth: Groundtruth | None) -> list[Finding]:
    """Whether boxes are written as they should be: by the groundtruth file, or else by their values and the pixels."""
    findings, agrees = json_checks.check_boxes(facts, groundtruth) if groundtruth else ([], False)
    if agrees or any(finding.code in box_layouts.LAYOUTS for finding in findings):
        return findings
    layout = box_layouts.from_values(facts.boxes, facts.sizes[facts.image_index])
    evidence = ""
    if layout is None:
        layout = swap_evidence.verdict(facts.gains, facts.boxes, facts.image_index)
        evidence = " (objects stand out from the pixels around them only with x and y exchanged)"
    if layout is None:
        return findings
    return [Finding(FATAL, layout, box_layouts.LAYOUTS[layout].text + evidence)]


def check_boxes(facts: Facts, config: Config) -> list[Finding]:
    """Boxes that are empty, outside, twice there, tiny, too many or as large as their image."""
    boxes, total = facts.boxes, len(facts.boxes)
    if not total:
        return []
    findings = []

    def add(code: str, wrong: np.ndarray, what: str, level: str | None = None) -> None:
        if wrong.any():
            where = first([facts.records[i].where for i in np.unique(facts.image_index[wrong])])
            text = f"{count(int(wrong.sum()), total, 'boxes')} {what} ({where})"
            findings.append(Finding(level or by_share(wrong.mean(), BAD_SHARE), code, text))

    finite = np.isfinite(boxes).all(1)
    with np.errstate(invalid="ignore"):
        inverted = finite & (boxes[:, 2:] < boxes[:, :2]).any(1)
        empty = finite & ~inverted & (boxes[:, 2:] == boxes[:, :2]).any(1)
        beyond = finite & ((boxes < -OUTSIDE) | (boxes > 1 + OUTSIDE)).any(1)
    add("boxes_not_finite", ~finite, "are not a number: leave them out")
    add("boxes_inverted", inverted, "have a maximum below their minimum: write corners in order")
    add("boxes_empty", empty, "have no area: leave them out")
    add("boxes_outside", finite & ~inverted & ~empty & ~facts.usable, "are beside their image: leave them out")
    far_out = facts.usable & box_layouts.are_far_out(boxes)
    if box_layouts.are_many(far_out):
        add("boxes_beyond", far_out, f"have more than a third of their area outside of their image: {CORNERS}", FATAL)
    else:
        add("boxes_beyond", facts.usable & beyond, "stick out of their image: cut them at 0 and 1", WARNING)
    add("boxes_twice", _twice(facts), "repeat another of their image and class: write each once", WARNING)
    sides = facts.network_boxes(config.image_size)
    tiny = facts.usable & ((sides[:, 2:] - sides[:, :2]).min(1) < TINY_SIDE)
    if tiny.mean() > TINY_SHARE:
        height, width = config.image_size
        what = (
            f"are less than {TINY_SIDE:g} pixels high or wide at {width}x{height}: raise image_size or leave them out"
        )
        add("boxes_tiny", tiny, what, WARNING)
    whole = facts.usable & ((boxes[:, :2] <= 0) & (boxes[:, 2:] >= 1)).all(1)
    if whole.mean() > WHOLE_IMAGE_SHARE:
        add("boxes_of_whole_images", whole, "are the whole image: are these data for classification?", WARNING)
    most, limit = int(facts.counts.max()), config.max_instances_per_image
    if most > limit:
        text = (
            f"{int((facts.counts > limit).sum())} images have more than max_instances_per_image = {limit} boxes, and "
        )
        text += f"are evaluated on the largest; set it to {most} ({facts.records[int(facts.counts.argmax())].where})"
        findings.append(Finding(WARNING, "too_many_boxes", text))
    return findings


def _twice(facts: Facts) -> np.ndarray:
    """[K] bool: boxes that an earlier one of the same image and class equals."""
    rows = np.column_stack([facts.image_index, facts.classes, np.round(facts.boxes * 1e6)])
    _, firsts = np.unique(rows, axis=0, return_index=True)
    twice = np.ones(len(rows), bool)
    twice[firsts] = False
    return twice & facts.usable


def check_anchors(anchors: Mapping[str, Any]) -> list[Finding]:
    """Whether anchors reach the boxes; the figures are those of `report_lib.figures`."""
    missed, proposals = 1 - anchors["recall"], anchors["proposals"]
    if missed <= MISSED_SHARE:
        return []
    text = f"{missed:.0%} of the boxes have no anchor with an IoU of 0.5, and are learnt badly"
    if proposals:
        text += f"; --hparams='{proposals[-1]['hparams']}' leaves {1 - proposals[-1]['recall']:.0%}"
    hopeless = anchors["recall"] < HOPELESS_RECALL and anchors["boxes"] >= ENOUGH_BOXES
    return [Finding(FATAL if hopeless else WARNING, "anchors", text)]
