# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Flags, steps and error handling shared by the conversion scripts."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from absl import flags, logging

from dataset import command_line
from dataset.convert import box_frame, image_file, shards
from dataset.convert.annotation import Source
from dataset.files import reason_of
from dataset.tfrecord import DataError

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of all conversions."""
    with command_line.group("Reading"):
        flags.DEFINE_integer(
            "num_threads", None, "Images read concurrently; default: number of CPU cores.", lower_bound=1
        )
        flags.DEFINE_float(
            "max_bad_fraction",
            0.01,
            "Largest fraction of images, or of boxes, that may be left out, 0 to 1; above it nothing is written. Also "
            "the limit, but at least 0.2, for the fraction of boxes that lose over a third of their area by clipping.",
            lower_bound=0,
            upper_bound=1,
        )
        flags.DEFINE_integer(
            "max_image_pixels",
            image_file.MAX_IMAGE_PIXELS,
            "Largest height * width of an image; larger images are left out.",
            lower_bound=1,
        )
        flags.DEFINE_enum(
            "exif_boxes",
            box_frame.AUTO,
            box_frame.EXIF_BOXES,
            "Pixels that boxes and masks of images with EXIF orientation refer to: those of the upright image, the "
            "stored ones, or auto: decided for the whole dataset from boxes that fit in one of the two only, and from "
            "annotated sizes. Images without evidence are read as upright and counted; more than max_bad_fraction of "
            "them are an error.",
        )


def flag_values() -> dict[str, Any]:
    """Returns the values of those flags that are keyword arguments of `shards.write_shards`."""
    return {name: getattr(FLAGS, name) for name in ("num_threads", "max_bad_fraction", "max_image_pixels")}


def convert(source: Source, prefix: str, *, with_label_map: bool, include_masks: bool = False) -> None:
    """Writes a dataset with the values of the flags, and prints the report and the written files."""
    source = dataclasses.replace(source, exif_boxes=FLAGS.exif_boxes)
    if source.original_ids:
        shards.check_label_maps(prefix, source.label_map)
    report = shards.write_shards(
        source, prefix, num_shards=FLAGS.num_shards, include_masks=include_masks, **flag_values()
    )
    written = [f"{prefix}-*-of-{FLAGS.num_shards:05d}.tfrecord"]
    if source.write_groundtruth:
        written.append(shards.companion_path(prefix, "json"))
    if with_label_map:
        written.append(shards.write_label_map(prefix, source.label_map, source.original_ids))
    print(report)
    if not source.write_groundtruth and any(reason.startswith(box_frame.BOXES_TURNED) for reason in report.reasons):
        logging.warning(
            "the annotation file has the boxes of the stored pixels: evaluate these records without --val_json_file"
        )
    if source.label_map and (warning := shards.find_unusable(report)):
        logging.warning("%s", warning)
    *others, last = map(str, written)
    print(f"wrote {', '.join(others)} and {last}" if others else f"wrote {last}")


def hide_gpus() -> None:
    """Hides GPUs from TensorFlow, which only decodes images here but would allocate the memory of all of them."""
    with contextlib.suppress(RuntimeError):  # raised if TensorFlow is initialized already
        tf.config.set_visible_devices([], "GPU")


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Turns TensorFlow's file errors into DataErrors, and prints a message on Ctrl-C."""
    try:
        yield
    except tf.errors.OpError as error:
        raise DataError(reason_of(error, with_path=True)) from error
    except KeyboardInterrupt:
        print("interrupted: no incomplete TFRecords are left", file=sys.stderr)
        raise
