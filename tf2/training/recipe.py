# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings that a recipe derives from the training data: number of epochs, warm-up, evaluations, and anchors.

`config.RECIPES` has the values that do not depend on the data. Keys that the user sets are never changed. config.yaml
records all values, with which a training resumes.
"""

import math
from collections.abc import Collection
from typing import Any

import numpy as np
from absl import logging

from dataset.check import anchor_fit, object_use, record_facts
from dataset.record_count import RecordCounts
from dataset.records import find_files
from efficientdet.config import Config
from tf2.training.train import Training
from tf2.weights import published, saved_config

BATCH_SIZES = {"published": 64, "finetune": 8}  # images per step, unless --train_batch_size is set
SAVE_STEPS = {"published": 0, "finetune": 30}  # see `Training`: saving takes a fifth of a step of Lite0
STEPS = 1440  # of a training on few images: 40 epochs of 36 steps for the 292 images of BCCD
MIN_EPOCHS, MAX_EPOCHS = 15, 300  # of a training on many images, for which STEPS is too short, and on very few
WARMUP_SHARE = 1 / 40  # of all steps
MIN_WARMUP, MAX_WARMUP = 30, 1000  # steps
EVALUATIONS = 10  # during a training, so that they take little of its time
MAX_IMAGES, MAX_BOXES = 1000, 2000  # that anchors are fitted to, so that this takes seconds
MIN_GAIN = 0.02  # of recall, for which anchors are changed
ANCHORS = ("anchor_scale", "aspect_ratios")


def fit(
    config: Config, typed_keys: Collection[str], training: Training, *, counts: RecordCounts | None = None
) -> Config:
    """Returns the config of a new training with the keys that its recipe determines from the data, and logs them.

    The recipe `published` determines none, unless fit_anchors is set. A training that resumes keeps its config.

    Args:
        config: config of the training.
        typed_keys: keys that the user set.
        training: data and start of the training.
        counts: counter of records; None for a new one.

    Raises:
        DataError: if the training records cannot be read.
    """
    if saved_config.has_checkpoint(training.model_dir):
        return config
    typed_keys, fitted = set(typed_keys), {}
    if config.recipe == "finetune":
        counts, files = counts or RecordCounts(training.model_dir), find_files(training.train_file_pattern)
        num_images = training.num_examples_per_epoch or counts.total(files)
        if not (training.ckpt or training.backbone_ckpt):
            _warn_of_random_weights(config, num_images)
        steps_per_epoch = max(num_images // training.batch_size, 1)
        epochs = config.num_epochs if "num_epochs" in typed_keys else num_epochs(steps_per_epoch)
        fitted = schedule(epochs, steps_per_epoch)
        fitted = {key: value for key, value in fitted.items() if key not in typed_keys}
        shown = ", ".join(f"{key}={value:g}" for key, value in fitted.items()) or "no other key"
        logging.info(
            "recipe finetune: %d epochs of %d images, %d steps of %d images; it sets %s",
            *(epochs, num_images, epochs * steps_per_epoch, training.batch_size, shown),
        )
    if config.fit_anchors and not typed_keys.intersection(ANCHORS):
        is_asked = not training.ckpt or "fit_anchors" in typed_keys
        fitted |= _fit_anchors(config, training.train_file_pattern) if is_asked else _anchors_of(training.ckpt)
    return config.override(fitted)


def num_epochs(steps_per_epoch: int) -> int:
    """Returns the number of epochs: those of STEPS steps, but at least MIN_EPOCHS and at most MAX_EPOCHS."""
    return min(max(round(STEPS / steps_per_epoch), MIN_EPOCHS), MAX_EPOCHS)


def schedule(epochs: int, steps_per_epoch: int) -> dict[str, Any]:
    """Returns num_epochs, lr_warmup_epoch and map_freq of a training.

    The warm-up takes a share of the steps, WARMUP_SHARE, but at least MIN_WARMUP and at most MAX_WARMUP steps, and at
    most half of them.
    """
    steps = epochs * steps_per_epoch
    warmup = min(max(steps * WARMUP_SHARE, MIN_WARMUP), MAX_WARMUP, steps / 2)
    return {
        "num_epochs": epochs,
        "lr_warmup_epoch": float(f"{warmup / steps_per_epoch:.4g}"),
        "map_freq": math.ceil(epochs / EVALUATIONS),
    }


def _warn_of_random_weights(config: Config, num_images: int) -> None:
    starts = [f"a released detector, --ckpt={config.name}"] if config.name in published.DETECTORS else []
    starts.append(f"a released classifier, --backbone_ckpt={config.backbone_name}")
    logging.warning(
        "training starts from random weights, for which %d images are too few; start from %s",
        *(num_images, " or ".join(starts)),
    )


def _fit_anchors(config: Config, file_pattern: str) -> dict[str, Any]:
    """Returns the cheapest anchors, see `anchor_fit.propose`, over which no others gain more than MIN_GAIN of recall.

    Empty if the present anchors are good enough.
    """
    boxes, chosen = training_boxes(file_pattern, config), {}
    before = reached = anchor_fit.recall_of(boxes, config)
    for proposal in anchor_fit.propose(boxes, config):
        if proposal.recall > reached + MIN_GAIN:
            chosen, reached = proposal.overrides, proposal.recall
    text = f"recall of the anchors over {len(boxes)} training boxes, IoU {config.match_threshold:g}: {before:.3f}"
    if chosen:
        old, new = (config.override(values).select(*chosen) for values in ({}, chosen))
        changes = ", ".join(f"{key}: {old[key]} -> {new[key]}" for key in chosen)
        logging.info("%s -> %.3f, fitted with %s", text, reached, changes)
    else:
        logging.info("%s; other anchors would not add more than %g", text, MIN_GAIN)
    return chosen


def training_boxes(file_pattern: str, config: Config) -> np.ndarray:
    """Returns boxes of training images, [K, 4] in pixels of the network input without augmentation.

    Of frequent classes fewer boxes are taken, because AP is a mean over classes.
    """
    facts = record_facts.read(file_pattern, samples=MAX_IMAGES, decode_images=False)
    boxes = facts.network_boxes(config.image_size, config.keep_aspect_ratio)
    is_used = object_use.used_boxes(facts, config, evaluates=False) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    boxes, classes = boxes[is_used], facts.classes[is_used]
    ids = np.unique(classes)
    per_class = math.ceil(MAX_BOXES / max(len(ids), 1))
    of_classes = [boxes[classes == class_id] for class_id in ids]
    return np.concatenate([boxes[:0], *(own[:: math.ceil(len(own) / per_class)] for own in of_classes)])


def _anchors_of(ckpt: str) -> dict[str, Any]:
    """Returns the anchors of the detector in a checkpoint, for which its heads are trained; empty if not known."""
    saved = saved_config.read(saved_config.folder_of(ckpt))
    anchors = saved.select("num_scales", *ANCHORS) if saved else {}
    if anchors:
        logging.info("anchors of %s: %s", ckpt, ", ".join(f"{key}={value}" for key, value in anchors.items()))
    return anchors
