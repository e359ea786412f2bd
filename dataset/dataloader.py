# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""InputReader: TFRecord files -> records -> augmented images and their targets -> batches.

The order of records and every random choice are functions of (seed, position in the stream), never of timing, so a
run that resumes at step n reads the same batches as an uninterrupted one.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import tensorflow as tf
from tensorflow.python.framework import config as determinism

from dataset import tfrecord
from dataset.augment.autoaugment import autoaugment
from dataset.augment.geometry import random_flip
from dataset.augment.gridmask import grid_mask
from dataset.augment.mosaic import NUM_IMAGES, mosaic
from dataset.files import reason_of
from dataset.records import RecordFiles, find_files
from dataset.tfrecord import Sample
from dataset.window import Window, crop_boxes, crop_image, decode_window, random_window
from efficientdet import preprocess
from efficientdet.config import Config
from efficientdet.model import build_anchors
from efficientdet.targets import AnchorLabeler

SHUFFLE_BUFFER = 1024  # records, still encoded: about 160 MB of COCO
MAX_FILES_AT_ONCE = 16


class Share(NamedTuple):
    """Records that one of several workers evaluates: every `count`-th block of `size` records, from `index` on."""

    index: int
    count: int
    size: int

    def of(self, records: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the share of a dataset of records."""
        if self.count == 1:
            return records
        chosen = records.enumerate().filter(lambda number, _: number // self.size % self.count == self.index)
        return chosen.map(lambda _, record: record)


class InputReader:
    """Reads records of `dataset.tfrecord` as batches for training or evaluation.

    Damaged records are skipped, logged and counted; more than `max_damaged_records` of the config are an error. A
    mosaic with a damaged record is skipped as a whole. With damaged records, a resumed training does not continue at
    exactly the record where it stopped. All methods raise DataError if the files hold no record that can be read.
    """

    def __init__(self, file_pattern: str, config: Config, shard: tuple[int, int] = (0, 1)):
        """Finds the files.

        Args:
            file_pattern: glob pattern of the TFRecord files.
            config: image size, augmentation, anchors, number of classes.
            shard: (i, n) for worker i of n, from 0. Every n-th file is read; with fewer than n files, every n-th record
                of all files.

        Raises:
            DataError: if no file matches.
        """
        self.file_pattern = file_pattern
        self.config = config
        self._shard, self._num_shards = shard
        files = find_files(file_pattern)
        self._has_own_files = len(files) >= self._num_shards
        files = files[self._shard :: self._num_shards] if self._has_own_files else files
        self.records = RecordFiles(files, config.max_damaged_records)
        self._is_checked = False

    def training(self, batch_size: int, *, seed: int, start_batch: int = 0, num_examples: int) -> tf.data.Dataset:
        """Returns an endless dataset of training batches, reshuffled in every pass over the data.

        Args:
            seed: seed of order and augmentation.
            start_batch: number of batches to skip.
            num_examples: number of records in all shards, used to skip whole rounds without reading them. For an exact
                resume it must be exact, and the shards equally large.

        Returns:
            Dataset of (images [B, height, width, 3] float32, labels). Labels are cls_targets and box_targets, tuples
            over the levels of [B, Hl, Wl, A] int32 and [B, Hl, Wl, A*4] float32, and num_positives [B] float32.
        """
        labeler = AnchorLabeler(build_anchors(self.config), self.config.match_threshold)

        def label(example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            targets = labeler.label(example["boxes"], example["classes"])
            return example["image"], dict(zip(("cls_targets", "box_targets", "num_positives"), targets))

        images = self.augmented(seed, start_batch * batch_size, num_examples).map(label, tf.data.AUTOTUNE)
        return images.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    def augmented(self, seed: int, start: int = 0, num_examples: int = 1) -> tf.data.Dataset:
        """Returns the images of `training` one by one from number `start` on, with boxes instead of targets.

        Returns:
            Endless dataset of dicts: image [height, width, 3] float32, boxes [K, 4] float32 in pixels of the network
            input, classes [K] int32, source_id [] string.
        """
        self._check_readable()
        records_per_image = NUM_IMAGES if self.config.mosaic else 1
        first, round_size = start * records_per_image, max(num_examples // self._num_shards, 1)
        rounds = tf.data.Dataset.range(first // round_size, tf.int64.max)
        records = rounds.flat_map(lambda i: self._shuffled(seed + i)).skip(first % round_size)
        # Numbers are unique over all shards, so that no two shards draw the same augmentations.
        numbers = tf.data.Dataset.range(start * self._num_shards + self._shard, tf.int64.max, self._num_shards)
        images = tf.data.Dataset.zip((numbers, records.batch(records_per_image, drop_remainder=True)))
        return _map_valid(images, functools.partial(self._augmented, seed))

    def source_ids(self, batch_size: int, *, seed: int, start_batch: int, num_examples: int) -> list[str]:
        """Returns the source ids of one batch of `training`, for the same arguments."""
        images = self.augmented(seed, start_batch * batch_size, num_examples).take(batch_size)
        return [example["source_id"].numpy().decode(errors="replace") for example in batches(images)]

    def evaluation(self, batch_size: int, limit: int | None = None, share: Share | None = None) -> tf.data.Dataset:
        """Returns every image once, in the order of the files; the last batch may be smaller.

        Args:
            limit: maximum number of records to read; None for all.
            share: records of one worker, including damaged ones; None for all, without damaged ones.

        Returns:
            Dataset of (images [B, height, width, 3] float32, labels). Labels are source_id [B] string, position [B, 2]
            int64 of the record, is_valid [B] bool, which is False for damaged records, image_scale [B, 4] float32 and,
            padded with -1 to M = max_instances_per_image, boxes_image [B, M, 4] float32, classes, is_crowd and
            difficult [B, M] int32, area [B, M] float32.
        """
        config = self.config

        def to_input(image: tf.Tensor, labels: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            image, image_scale = preprocess.preprocess(
                image, config.image_size, keep_aspect_ratio=config.keep_aspect_ratio, **config.colors
            )
            return image, {**labels, "image_scale": image_scale}

        images = self.original_images(limit, share)
        return images.map(to_input, tf.data.AUTOTUNE).batch(batch_size).prefetch(tf.data.AUTOTUNE)

    def original_images(self, limit: int | None = None, share: Share | None = None) -> tf.data.Dataset:
        """Returns the images of `evaluation` one by one, without preprocessing.

        Returns:
            Dataset of (image [H, W, 3] uint8, labels): labels as in `evaluation`, without the batch dimension and
            image_scale.
        """
        self._check_readable()
        regenerate = self.config.regenerate_source_id
        decode = functools.partial(tfrecord.decode, regenerate_source_id=regenerate, with_difficult=True)

        def example(position: tf.Tensor, record: tf.Tensor):
            sample, is_valid = self.records.try_decode(decode, position, record)
            labels = {"source_id": sample["source_id"], "position": position, "is_valid": is_valid}
            return sample["image"], labels | self._groundtruth(self._check_classes(sample))

        records = self._in_order().take(-1 if limit is None else limit)
        examples = (share.of(records) if share else records).map(example, tf.data.AUTOTUNE)
        return examples if share else examples.filter(is_valid)

    def _shuffled(self, seed: tf.Tensor) -> tf.data.Dataset:
        num_files = len(self.records.files)
        files = _shuffle(tf.data.Dataset.range(num_files), num_files, seed)
        return _shuffle(self._shard_records(self._interleaved(files)), SHUFFLE_BUFFER, seed)

    def _interleaved(self, files: tf.data.Dataset) -> tf.data.Dataset:
        # In parallel, as one remote file at a time may be slower than training; the order is that of a single thread.
        count = min(len(self.records.files), MAX_FILES_AT_ONCE)
        return files.interleave(self.records.read, count, num_parallel_calls=count, deterministic=True)

    def _in_order(self) -> tf.data.Dataset:
        return self._shard_records(tf.data.Dataset.range(len(self.records.files)).flat_map(self.records.read))

    def _shard_records(self, records: tf.data.Dataset) -> tf.data.Dataset:
        return records if self._has_own_files else records.shard(self._num_shards, self._shard)

    def _check_readable(self):
        # Reads up to the first valid record: without one, the endless rounds of training would never yield an example.
        if self._is_checked:
            return
        decoded = self._in_order().map(functools.partial(self.records.try_decode, tfrecord.decode))
        if next(batches(decoded.filter(lambda _, is_valid: is_valid)), None) is None:
            reasons = [f" ({self.records.name(where)}: {reason})" for where, reason in self.records.damaged.items()]
            raise tfrecord.DataError(
                f"the files of {self.file_pattern!r} hold no record that can be read{''.join(reasons[:1])}; "
                "write them again from data with images, or give another pattern"
            )
        self._is_checked = True

    def _augmented(
        self, seed: int, number: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Returns an example, see `augmented`, and is_valid, [] bool: False if one of its records is damaged.

        Only the window of the scale jitter is decoded, unless another augmentation needs the whole image.
        """
        positions, records = batch
        config = self.config
        seeds = tf.random.experimental.stateless_split(tf.stack([tf.cast(seed, tf.int64), number]), 3)
        image_seed, window_seed, flip_seed = tf.unstack(seeds)
        choose = window_chooser(config)
        if config.mosaic or config.grid_mask or config.autoaugment_policy:
            sample, is_valid = self._augmented_image(positions, records, image_seed)
            image_hw = tf.shape(sample["image"])[:2]
            window = choose(image_hw, window_seed)
            sample = {**sample, "image": crop_image(sample["image"], window)}
        else:

            def decode(record: tf.Tensor, window_seed: tf.Tensor):
                sample = tfrecord.parse(record)
                image, image_hw, window = decode_window(sample["encoded"], functools.partial(choose, seed=window_seed))
                return {**sample, "image": image}, image_hw, window

            inputs = positions[0], records[0], window_seed
            (sample, image_hw, window), is_valid = self.records.try_decode(decode, *inputs)
            sample = self._training_objects(sample)
        sample = {**sample, "boxes_norm": crop_boxes(sample["boxes_norm"], image_hw, window)}
        if config.input_rand_hflip:
            sample = random_flip(sample, flip_seed)
        return self._to_input(sample, window.scaled_size), is_valid

    def _augmented_image(self, positions: tf.Tensor, records: tf.Tensor, seed: tf.Tensor) -> tuple[Sample, tf.Tensor]:
        """Decodes a whole image, or the four of a mosaic, and applies the augmentations that need it."""
        config = self.config
        mosaic_seed, mask_seed, policy_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
        count = NUM_IMAGES if config.mosaic else 1
        pairs = zip(tf.unstack(positions, count), tf.unstack(records, count))
        decoded = [self.records.try_decode(tfrecord.decode, *pair) for pair in pairs]
        samples = [self._training_objects(sample) for sample, _ in decoded]
        sizes = config.select("image_size", "keep_aspect_ratio")
        sample = mosaic(samples, mosaic_seed, **sizes) if config.mosaic else samples[0]
        if config.grid_mask:
            sample = grid_mask(sample, mask_seed)
        if config.autoaugment_policy:
            sample = autoaugment(sample, policy_seed, config.autoaugment_policy)
        return sample, tf.reduce_all([is_valid for _, is_valid in decoded])

    def _training_objects(self, sample: Sample) -> Sample:
        """Removes columns not used in training, non-finite boxes and, with skip_crowd_during_training, crowds."""
        sample = self._check_classes(sample)
        keep = tf.reduce_all(tf.math.is_finite(sample["boxes_norm"]), 1)
        if self.config.skip_crowd_during_training:
            keep &= ~sample["is_crowd"]
        objects = {name: tf.boolean_mask(sample[name], keep) for name in ("boxes_norm", "classes", "is_crowd")}
        return {"image": sample["image"], "source_id": sample["source_id"], **objects}

    def _check_classes(self, sample: Sample) -> Sample:
        num_classes, classes = self.config.num_classes, sample["classes"]
        valid = tf.reduce_all((classes >= 1) & (classes <= num_classes))
        message = f"class ids must be in 1..num_classes = {num_classes}; set num_classes, or fix the record of image"
        data = [message, sample["source_id"], "with the classes", classes]
        # raw_ops: see tfrecord.parse.
        with tf.control_dependencies([tf.raw_ops.Assert(condition=valid, data=data, summarize=20)]):
            return {**sample, "classes": tf.identity(classes)}

    def _to_input(self, sample: Sample, size: tf.Tensor) -> dict[str, tf.Tensor]:
        """Scales an image to size, [2] int32, and pads it to the network input; removes objects outside of it."""
        height, width = self.config.image_size
        boxes = sample["boxes_norm"] * tf.cast(tf.tile(size, [2]), tf.float32)
        boxes = tf.clip_by_value(boxes, 0.0, tf.constant([height - 1, width - 1] * 2, tf.float32))
        visible = tf.reduce_all(boxes[:, 2:] > boxes[:, :2], 1)
        return {
            "image": preprocess.to_input(sample["image"], size, self.config.image_size, **self.config.colors),
            "boxes": tf.boolean_mask(boxes, visible),
            "classes": tf.boolean_mask(sample["classes"], visible),
            "source_id": sample["source_id"],
        }

    def _groundtruth(self, sample: Sample) -> dict[str, tf.Tensor]:
        """Groundtruth labels of `evaluation`, sorted by decreasing area; non-finite and empty boxes are removed."""
        boxes = tf.clip_by_value(sample["boxes_norm"], 0.0, 1.0)
        is_finite = tf.reduce_all(tf.math.is_finite(sample["boxes_norm"]), 1)
        is_valid = is_finite & tf.reduce_all(boxes[:, 2:] > boxes[:, :2], 1)
        columns = {
            "boxes_image": boxes * tf.cast(tf.stack([sample["height"], sample["width"]] * 2), tf.float32),
            "classes": sample["classes"],
            "is_crowd": tf.cast(sample["is_crowd"], tf.int32),
            "difficult": tf.cast(sample["difficult"], tf.int32),
            "area": sample["area"],
        }
        columns = {name: tf.boolean_mask(column, is_valid) for name, column in columns.items()}
        num_objects, limit = tf.shape(columns["classes"])[0], self.config.max_instances_per_image
        if num_objects > limit:
            counts = ["has", num_objects, "objects; evaluating the", limit, "largest,"]
            tf.print("image", sample["source_id"], *counts, "raise max_instances_per_image to use all")
        order = tf.argsort(columns["area"], direction="DESCENDING")[:limit]
        return {name: _pad(tf.gather(column, order), limit) for name, column in columns.items()}


def is_valid(image: tf.Tensor, labels: dict[str, tf.Tensor]) -> tf.Tensor:
    """Returns False for an unbatched element of `InputReader.evaluation` whose record is damaged."""
    return labels["is_valid"]


def window_chooser(config: Config) -> Callable[[tf.Tensor, tf.Tensor], Window]:
    """Returns the scale jitter of a config as a function (image_hw, seed) -> window."""
    return functools.partial(
        random_window,
        image_size=config.image_size,
        target_size=config.target_size or config.image_size,
        keep_aspect_ratio=config.keep_aspect_ratio,
        jitter_min=config.jitter_min,
        jitter_max=config.jitter_max,
    )


def batches(dataset: tf.data.Dataset) -> Iterator:
    """Iterates over a dataset of InputReader, see `iterate`.

    Raises:
        DataError: if too many records are damaged, or a record does not fit the config.
    """
    with data_errors():
        yield from iterate(dataset)


def iterate(dataset: tf.data.Dataset | tf.distribute.DistributedDataset) -> Iterator:
    """Returns an iterator over a dataset of InputReader, which runs in parallel to training even with op determinism.

    With op determinism, TensorFlow replaces parallel maps by sequential ones and disables prefetching in every dataset
    whose functions hold stateful ops, such as the nested datasets of `RecordFiles.try_decode` or the choice of an
    algorithm in tf.random.stateless_uniform. None of these has an effect on the batches, which are functions of seed
    and position. There is no option for it, but only the creation of an iterator is concerned.
    """
    if not determinism.is_op_determinism_enabled():
        return iter(dataset)
    determinism.disable_op_determinism()
    try:
        return iter(dataset)
    finally:
        determinism.enable_op_determinism()


@contextlib.contextmanager
def data_errors() -> Iterator[None]:
    """Converts TensorFlow errors raised by a dataset of InputReader in the block to a DataError."""
    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError, tf.errors.UnknownError) as error:
        raise tfrecord.DataError(f"cannot use the records: {reason_of(error)}") from error


def _shuffle(dataset: tf.data.Dataset, buffer_size: int, seed: tf.Tensor) -> tf.data.Dataset:
    """Shuffles like Dataset.shuffle, but the order depends on `seed`, [] int64, alone: not on the global seed."""
    specs = tf.nest.flatten(dataset.element_spec)
    shuffled = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(dataset),
        buffer_size=buffer_size,
        seed=1,
        seed2=seed,
        output_types=[spec.dtype for spec in specs],
        output_shapes=[spec.shape for spec in specs],
    )
    return tf.data.experimental.from_variant(shuffled, dataset.element_spec)


def _map_valid(records: tf.data.Dataset, convert: Callable) -> tf.data.Dataset:
    """Maps records by `convert`, which returns (example, is_valid), and keeps the valid examples."""
    dataset = records.map(convert, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.filter(lambda _, is_valid: is_valid).map(lambda example, _: example)


def _pad(values: tf.Tensor, length: int) -> tf.Tensor:
    """Pads [K, ...] with -1 to [length, ...]."""
    paddings = [[0, length - tf.shape(values)[0]]] + [[0, 0]] * (values.shape.rank - 1)
    padded = tf.pad(values, paddings, constant_values=tf.cast(-1, values.dtype))
    return tf.ensure_shape(padded, [length, *values.shape[1:]])
