# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""InputReader: files -> records -> augmented images and their targets -> batches.

The order of records and every random choice are functions of (seed, position in the stream), never of
timing, so a run that resumes at step n reads what it would have read.
"""

import re
from collections.abc import Iterator

import tensorflow as tf

from dataset import tfrecord
from dataset.augment.flip import random_flip
from dataset.augment.jitter import random_jitter
from efficientdet import preprocess
from efficientdet.config import Config
from efficientdet.model import build_anchors
from efficientdet.targets import AnchorLabeler

SHUFFLE_BUFFER = 1024  # records, still encoded: 100 MB of COCO
MAX_FILES_AT_ONCE = 16

Batch = tuple[tf.Tensor, dict[str, tf.Tensor]]


class InputReader:
    """Reads TFRecords of `dataset.tfrecord` as batches for training or evaluation."""

    def __init__(self, file_pattern: str, config: Config):
        """Finds the files.

        Args:
            file_pattern: glob of the records.
            config: image size, augmentation, anchors, number of classes.

        Raises:
            ValueError: if no file matches.
        """
        self.files = sorted(tf.io.gfile.glob(file_pattern))
        if not self.files:
            raise ValueError(f"no file matches {file_pattern!r}; give a pattern such as 'data/train-*.tfrecord'")
        self.file_pattern = file_pattern
        self.config = config

    def training(self, batch_size: int, *, seed: int, start_batch: int = 0, num_examples: int) -> tf.data.Dataset:
        """Endless batches, in a new order every time through the data.

        Args:
            batch_size: images a batch.
            seed: of order and augmentation.
            start_batch: where to begin, as if the batches before had been read.
            num_examples: records in the files. Only a start_batch above 0 needs it, to skip whole rounds unread; it has
                to be their true number then, or the run does not read on exactly where it stopped.

        Returns:
            Dataset of (images [B, height, width, 3] float32, labels) with labels cls_targets and box_targets,
            lists over the levels of [B, Hl, Wl, A] int32 and [B, Hl, Wl, 4 * A] float32, and num_positives
            [B] float32.

        Raises:
            DataError: if the files hold no record, or the first one is damaged.
        """
        self._check_not_empty()
        labeler = AnchorLabeler(build_anchors(self.config))
        start = start_batch * batch_size
        rounds = tf.data.Dataset.range(start // num_examples, tf.int64.max)
        records = rounds.flat_map(lambda i: self._shuffled(seed + i)).skip(start % num_examples)
        numbers = tf.data.Dataset.range(start, tf.int64.max)

        def parse(number: tf.Tensor, record: tf.Tensor):
            return self._training_example(record, tf.stack([tf.cast(seed, tf.int64), number]), labeler)

        dataset = tf.data.Dataset.zip((numbers, records)).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
        return dataset.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    def evaluation(self, batch_size: int, limit: int | None = None) -> tf.data.Dataset:
        """Every image once, in the order of the files; the last batch may be smaller.

        Args:
            batch_size: images a batch.
            limit: images to read at most; None for all.

        Returns:
            Dataset of (images [B, height, width, 3] float32, labels) with labels source_id [B] string,
            image_scale [B] float32 and, padded with -1 to M = max_instances_per_image, boxes_image
            [B, M, 4] float32, classes [B, M] int32, is_crowd [B, M] int32, area [B, M] float32.

        Raises:
            DataError: if the files hold no record, or the first one is damaged.
        """
        self._check_not_empty()
        records = tf.data.TFRecordDataset(self.files).take(-1 if limit is None else limit)
        dataset = records.map(self._evaluation_example, num_parallel_calls=tf.data.AUTOTUNE)
        return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)

    def _check_not_empty(self):
        # Reads one record. Without any, the endless rounds of training would look for one forever.
        if next(batches(tf.data.TFRecordDataset(self.files).take(1)), None) is None:
            raise tfrecord.DataError(
                f"the files of {self.file_pattern!r} hold no record; write them again from data with images, or give "
                "another pattern"
            )

    def _shuffled(self, seed: tf.Tensor) -> tf.data.Dataset:
        # Of the graph that tf.data traces this into. Else the order would depend on the seed of the program, too.
        tf.random.set_seed(1)
        files = tf.data.Dataset.from_tensor_slices(self.files).shuffle(len(self.files), seed=seed)
        records = files.interleave(tf.data.TFRecordDataset, cycle_length=min(len(self.files), MAX_FILES_AT_ONCE))
        return records.shuffle(SHUFFLE_BUFFER, seed=seed)

    def _training_example(self, record: tf.Tensor, seed: tf.Tensor, labeler: AnchorLabeler) -> Batch:
        config = self.config
        sample = self._decode(record)
        if config.skip_crowd_during_training:
            sample = keep_objects(sample, ~sample["is_crowd"])
        flip_seed, jitter_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        if config.input_rand_hflip:
            sample = random_flip(sample, flip_seed)
        sample = random_jitter(
            sample,
            jitter_seed,
            image_size=config.image_size,
            target_size=config.target_size or config.image_size,
            jitter_min=config.jitter_min,
            jitter_max=config.jitter_max,
        )
        image, _ = self._preprocess(sample, scale=sample["scale"], offset=sample["offset"])
        boxes, classes = self._input_boxes(sample)
        cls_targets, box_targets, num_positives = labeler.label(boxes, classes)
        labels = {"cls_targets": cls_targets, "box_targets": box_targets, "num_positives": num_positives}
        return image, labels

    def _evaluation_example(self, record: tf.Tensor) -> Batch:
        sample = self._decode(record)
        image, image_scale = self._preprocess(sample)
        return image, {"source_id": sample["source_id"], "image_scale": image_scale, **self._groundtruth(sample)}

    def _decode(self, record: tf.Tensor) -> tfrecord.Sample:
        sample = tfrecord.decode(record, self.config.regenerate_source_id)
        num_classes, classes = self.config.num_classes, sample["classes"]
        valid = tf.reduce_all((classes >= 1) & (classes <= num_classes))
        message = f"class ids must be in 1..num_classes = {num_classes}; set num_classes, or mend the record of image"
        data = [message, sample["source_id"], "with the classes", classes]
        with tf.control_dependencies([tf.debugging.Assert(valid, data, 20)]):
            return {**sample, "classes": tf.identity(classes)}

    def _preprocess(self, sample: tfrecord.Sample, **window) -> tuple[tf.Tensor, tf.Tensor]:
        config = self.config
        return preprocess.preprocess(
            sample["image"],
            config.image_size,
            mean_rgb=config.mean_rgb,
            stddev_rgb=config.stddev_rgb,
            scale_range=config.scale_range,
            **window,
        )

    def _input_boxes(self, sample: tfrecord.Sample) -> tuple[tf.Tensor, tf.Tensor]:
        """Boxes [K, 4] in pixels of the network input, and classes [K], of what the window still shows."""
        size = preprocess.scaled_size(tf.shape(sample["image"])[:2], sample["scale"])
        boxes = sample["boxes_norm"] * tf.cast(tf.tile(size, [2]), tf.float32)
        boxes -= tf.cast(tf.tile(sample["offset"], [2]), tf.float32)
        height, width = self.config.image_size
        boxes = tf.clip_by_value(boxes, 0.0, tf.constant([height - 1, width - 1] * 2, tf.float32))
        visible = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return tf.boolean_mask(boxes, visible), tf.boolean_mask(sample["classes"], visible)

    def _groundtruth(self, sample: tfrecord.Sample) -> dict[str, tf.Tensor]:
        """The objects in pixels of the original image, the largest first, padded with -1."""
        num_objects, limit = tf.shape(sample["classes"])[0], self.config.max_instances_per_image
        warning = ["image", sample["source_id"], "has", num_objects, "objects; evaluating the", limit, "largest,"]
        if num_objects > limit:
            tf.print(*warning, "raise max_instances_per_image to use all")
        order = tf.argsort(sample["area"], direction="DESCENDING")[:limit]
        size = tf.cast(tf.stack([sample["height"], sample["width"]] * 2), tf.float32)
        columns = {
            "boxes_image": sample["boxes_norm"] * size,
            "classes": sample["classes"],
            "is_crowd": tf.cast(sample["is_crowd"], tf.int32),
            "area": sample["area"],
        }
        return {name: _pad(tf.gather(column, order), limit) for name, column in columns.items()}


def batches(dataset: tf.data.Dataset) -> Iterator:
    """The batches of a dataset of InputReader, or the records of its files.

    Raises:
        DataError: if a file is damaged, or a record does not fit the config.
    """
    try:
        yield from dataset
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        # Its first line, without the names of graph nodes and the brackets around what an Assert prints.
        reason = re.sub(r"\{\{.*?\}\} |assertion failed: | ?\[Op:.*", "", error.message.splitlines()[0])
        raise tfrecord.DataError(f"cannot use the records: {re.sub(r'[][]', '', reason)}") from error


def keep_objects(sample: tfrecord.Sample, keep: tf.Tensor) -> tfrecord.Sample:
    """The sample with those of its K objects for which keep, [K] bool, holds."""
    columns = ("boxes_norm", "classes", "is_crowd", "area")
    return {**sample, **{name: tf.boolean_mask(sample[name], keep) for name in columns}}


def _pad(values: tf.Tensor, length: int) -> tf.Tensor:
    """[K, ...] padded with -1 to [length, ...]."""
    paddings = [[0, length - tf.shape(values)[0]]] + [[0, 0]] * (values.shape.rank - 1)
    padded = tf.pad(values, paddings, constant_values=tf.cast(-1, values.dtype))
    return tf.ensure_shape(padded, [length, *values.shape[1:]])
