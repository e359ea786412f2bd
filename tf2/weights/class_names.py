# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Class names of a stored detector, and their comparison with the label map of a config.

The names are those of config.yaml beside the checkpoint. Released weights, by their name or in an unpacked folder of
that name without a config.yaml, have COCO's. The names of other checkpoints are not known.
"""

from absl import logging

from dataset.check import class_ids
from dataset.check.class_ids import NamedIds
from dataset.check.finding import format_names
from efficientdet.config import Config, ConfigError
from tf2.weights import published, saved_config

# What to do about a label_map with other ids than the detector.
USE_THOSE = "leave label_map out to use those of the detector, and convert data that have other ids again with them"
CONTINUE = "a training run keeps its ids: convert the data again with them, or start a new run in another --model_dir"
START = "its class head is taken over: convert the data again with its ids, or start a new one with another num_classes"


def of_checkpoint(path: str | None, num_classes: int) -> NamedIds:
    """Returns the class names of the detector in a checkpoint; without names if they are not known.

    Args:
        path: see `checkpoint.find`; None for random weights.
        num_classes: of the config; a detector with another number cannot be used with it, and its names do not matter.
    """
    folder = saved_config.folder_of(path) if path else ""
    try:
        saved = saved_config.read(folder) if path else None
    except ConfigError as error:
        logging.warning("%s; its class names are not compared", error)
        return NamedIds((), folder)
    if saved:
        names = saved.label_map if saved.num_classes == num_classes else None
        return class_ids.of_label_map(names, saved_config.file_of(path))
    is_released = path and saved_config.released_name(path) in published.DETECTORS
    names = "coco" if is_released and num_classes == published.NUM_CLASSES else None
    return class_ids.of_label_map(names, f"the released weights {path}")


def with_names(config: Config, known: NamedIds) -> Config:
    """Returns the config of a detector with its class names, which a label_map in the config may change.

    Args:
        config: for inference, export or evaluation; a name that its label_map gives to another class is logged.
        known: names of the detector, see `of_checkpoint`.

    Raises:
        LabelMapError: if label_map gives a name of the detector another id.
    """
    given = class_ids.of_label_map(config.label_map)
    if given.pairs:
        class_ids.check_moved(given, known, USE_THOSE)
        log_renamed(given, known)
    elif known.pairs:
        return config.override({"label_map": dict(known.pairs)})
    elif config.num_classes == published.NUM_CLASSES:
        logging.info("classes have ids as names; a detector of COCO's classes needs label_map=coco in --hparams")
    return config


def of_detector(config: Config, path: str | None) -> tuple[Config, NamedIds]:
    """Returns the config of a detector in a checkpoint with its class names, see `with_names`, and these names."""
    known = of_checkpoint(path, config.num_classes)
    return with_names(config, known), known


def at_start(config: Config, model_dir: str, ckpt: str | None = None) -> tuple[Config, NamedIds]:
    """Compares the label map of a training run with the detector that it continues or starts from.

    Args:
        config: of the training run.
        model_dir: its folder; training is resumed if it has a checkpoint.
        ckpt: detector to start from otherwise, see `checkpoint.find`; None for another start.

    Returns:
        The config, with the class names so far if a resumed run has no label_map; and the names of that detector.

    Raises:
        LabelMapError: if label_map gives a name of the detector another id.
    """
    given = class_ids.of_label_map(config.label_map)
    if not saved_config.has_checkpoint(model_dir):
        known = of_checkpoint(ckpt, config.num_classes)
        class_ids.check_moved(given, known, START)
        return config, known
    known = of_checkpoint(model_dir, config.num_classes)
    class_ids.check_moved(given, known, CONTINUE)
    return config if given.pairs else with_names(config, known), known


def log_renamed(given: NamedIds, known: NamedIds) -> None:
    """Logs the classes that have another name than in the detector."""
    names = dict(given.pairs)
    renamed = [f"{i} {name!r} -> {names[i]!r}" for i, name in known.pairs if names.get(i, name) != name]
    if renamed:
        shown = format_names(renamed)
        logging.info("%s renames %d classes of %s: %s", given.source, len(renamed), known.source, shown)
