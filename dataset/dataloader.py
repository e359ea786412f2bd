# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""InputReader: files -> records -> augmented images and their targets -> batches.

The order of records and every random choice are functions of (seed, position in the stream), never of
timing, so a run that resumes at step n reads what it would have read.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator

import tensorflow as tf

from dataset import tfrecord
from dataset.augment.autoaugment import autoaugment
from dataset.augment.flip import random_flip
from dataset.augment.gridmask import grid_mask
from dataset.augment.jitter import random_window
from dataset.augment.mosaic import NUM_IMAGES, mosaic
from dataset.files import reason_of
from dataset.records import RecordFiles, find_files
from dataset.tfrecord import Sample
from dataset.window import Window, crop_boxes, crop_image, decode_window
from efficientdet import preprocess
from efficientdet.config import Config
from efficientdet.model import build_anchors
from efficientdet.targets import AnchorLabeler

SHUFFLE_BUFFER = 1024  # records, still encoded: about 160 MB of COCO
MAX_FILES_AT_ONCE = 16
OBJECT_COLUMNS = ("boxes_norm", "classes", "is_crowd", "area")  # of a Sample

Batch = tuple[tf.Tensor, dict[str, tf.Tensor]]


class InputReader:
    """Reads TFRecords of `dataset.tfrecord` as batches for training or evaluation.

    Damaged records are left out, named in the log and counted; above max_damaged_records of the config that is an
    error. A run that resumes does not read on exactly where it stopped, then. A mosaic with one of them is left out
    whole; its other images come back in the next round, in other company.
    """

    def __init__(self, file_pattern: str, config: Config, shard: tuple[int, int] = (0, 1)):
        """Finds the files.

        Args:
            file_pattern: glob of the records.
            config: image size, augmentation, anchors, number of classes.
            shard: (i, n) reads the i-th part of n, from 0: each of n workers its own files, or where there are fewer
                files than workers, its own records of all files.

        Raises:
            DataError: if no file matches.
        """
        files = find_files(file_pattern)
        self.file_pattern = file_pattern
        self.config = config
        self._shard, self._num_shards = shard
        by_file = len(files) >= self._num_shards
        self._record_shard = None if by_file else self._shard
        files = files[self._shard :: self._num_shards] if by_file else files
        self.records = RecordFiles(files, config.max_damaged_records)
        self._is_usable = False  # not known yet

    def training(self, batch_size: int, *, seed: int, start_batch: int = 0, num_examples: int) -> tf.data.Dataset:
        """Endless batches, in a new order every time through the data.

        Args:
            batch_size: images a batch.
            seed: of order and augmentation.
            start_batch: where to begin, as if the batches before had been read.
            num_examples: records in the files, of all shards. Only a start_batch above 0 needs it, to skip whole rounds
                unread; it has to be their true number then, and the shards of one size, or the run does not read on
                exactly where it stopped.

        Returns:
            Dataset of (images [B, height, width, 3] float32, labels) with labels cls_targets and box_targets,
            tuples over the levels of [B, Hl, Wl, A] int32 and [B, Hl, Wl, 4 * A] float32, and num_positives
            [B] float32.

        Raises:
            DataError: if the files hold no record that can be read.
        """
        labeler = AnchorLabeler(build_anchors(self.config))

        def label(example: dict[str, tf.Tensor]) -> Batch:
            cls_targets, box_targets, num_positives = labeler.label(example["boxes"], example["classes"])
            labels = {"cls_targets": cls_targets, "box_targets": box_targets, "num_positives": num_positives}
            return example["image"], labels

        dataset = self._examples(seed, start_batch * batch_size, num_examples, label)
        return dataset.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    def augmented(self, seed: int) -> tf.data.Dataset:
        """What training sees, image by image, before the boxes become targets; the same images as those of `training`.

        Returns:
            Endless dataset of dicts: image [height, width, 3] float32, boxes [K, 4] float32 in pixels of it, classes
            [K] int32, source_id [] string.

        Raises:
            DataError: if the files hold no record that can be read.
        """
        return self._examples(seed, 0, 1, lambda example: example)

    def source_ids(self, batch_size: int, *, seed: int, start_batch: int, num_examples: int) -> list[str]:
        """Ids of the images of one batch of `training`, whose arguments these are."""
        dataset = self._examples(seed, start_batch * batch_size, num_examples, lambda example: example["source_id"])
        with plain_errors():
            return [source_id.decode(errors="replace") for source_id in dataset.take(batch_size).as_numpy_iterator()]

    def evaluation(self, batch_size: int, limit: int | None = None) -> tf.data.Dataset:
        """Every image once, in the order of the files; the last batch may be smaller.

        Args:
            batch_size: images a batch.
            limit: records to read at most; None for all.

        Returns:
            Dataset of (images [B, height, width, 3] float32, labels) with labels source_id [B] string,
            image_scale [B] float32 and, padded with -1 to M = max_instances_per_image, boxes_image
            [B, M, 4] float32, classes, is_crowd and difficult [B, M] int32, area [B, M] float32.

        Raises:
            DataError: if the files hold no record that can be read.
        """

        def to_input(image: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            image, image_scale = preprocess.preprocess(image, self.config.image_size, **self.config.colors)
            return image, {"image_scale": image_scale}

        return self._evaluated(to_input, limit).batch(batch_size).prefetch(tf.data.AUTOTUNE)

    def pictures(self, limit: int | None = None) -> tf.data.Dataset:
        """The images of `evaluation` one by one and as they are stored.

        Returns:
            Dataset of (picture [H, W, 3] uint8, labels), labels as in `evaluation`, of one image and without
            image_scale.
        """
        return self._evaluated(lambda image: (image, {}), limit).prefetch(tf.data.AUTOTUNE)

    def _evaluated(self, finish: Callable, limit: int | None) -> tf.data.Dataset:
        """Every image once, as `finish` makes it: image -> (image, labels of its own); and its other labels."""
        self._check_usable()
        own_ids = self.config.regenerate_source_id
        decode = functools.partial(tfrecord.decode, regenerate_source_id=own_ids, with_difficult=True)

        def example(place: tf.Tensor, record: tf.Tensor):
            sample, is_good = self.records.attempt(decode, place, record)
            sample = self._check_classes(sample)
            image, labels = finish(sample["image"])
            return (image, {"source_id": sample["source_id"], **labels, **self._groundtruth(sample)}), is_good

        return _good(self._in_order().take(-1 if limit is None else limit), example)

    def _examples(self, seed: int, start: int, num_examples: int, finish: Callable) -> tf.data.Dataset:
        """Augmented images from position start on, each as finish makes it."""
        self._check_usable()
        records_each = NUM_IMAGES if self.config.mosaic else 1
        round_size = max(num_examples // self._num_shards, 1)
        rounds = tf.data.Dataset.range(start * records_each // round_size, tf.int64.max)
        records = rounds.flat_map(lambda i: self._shuffled(seed + i)).skip(start * records_each % round_size)
        if self.config.mosaic:
            records = records.batch(records_each, drop_remainder=True)

        def example(number: tf.Tensor, record: tuple[tf.Tensor, tf.Tensor]):
            sample, is_good = self._augmented(*record, tf.stack([tf.cast(seed, tf.int64), number]))
            return finish(sample), is_good

        # Of all shards, or the images of each would be augmented like those of the others.
        numbers = tf.data.Dataset.range(start * self._num_shards + self._shard, tf.int64.max, self._num_shards)
        return _good(tf.data.Dataset.zip((numbers, records)), example)

    def _shuffled(self, seed: tf.Tensor) -> tf.data.Dataset:
        # Of the graph that tf.data traces this into. Else the order would depend on the seed of the program, too.
        tf.random.set_seed(1)
        num_files = len(self.records.files)
        files = tf.data.Dataset.range(num_files).shuffle(num_files, seed=seed)
        records = files.interleave(self.records.read, cycle_length=min(num_files, MAX_FILES_AT_ONCE))
        return self._own(records).shuffle(SHUFFLE_BUFFER, seed=seed)

    def _in_order(self) -> tf.data.Dataset:
        return self._own(tf.data.Dataset.range(len(self.records.files)).flat_map(self.records.read))

    def _own(self, records: tf.data.Dataset) -> tf.data.Dataset:
        return records.shard(self._num_shards, self._record_shard) if self._record_shard is not None else records

    def _check_usable(self):
        # Reads until a record is good. Without any, the endless rounds of training would look for one forever.
        if self._is_usable:
            return

        def check(place: tf.Tensor, record: tf.Tensor):
            return self.records.attempt(tfrecord.decode, place, record)[::-1]

        good = self._in_order().map(check).filter(lambda is_good, _: is_good)
        if next(batches(good), None) is None:
            reasons = [f"{self.records.name(place)}: {reason}" for place, reason in self.records.damaged.items()]
            raise tfrecord.DataError(
                f"the files of {self.file_pattern!r} hold no record that can be read"
                + (f" ({reasons[0]})" if reasons else "")
                + "; write them again from data with images, or give another pattern"
            )
        self._is_usable = True

    def _augmented(
        self, place: tf.Tensor, record: tf.Tensor, seed: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """One image as the network gets it, with boxes in its pixels; and whether its records are good.

        Without a need for the whole image, no more of it is decoded than the window of the scale jitter.
        """
        config = self.config
        whole_seed, window_seed, flip_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
        choose = functools.partial(window_chooser(config), seed=window_seed)
        if config.mosaic or config.grid_mask or config.autoaugment_policy:
            sample, is_good = self._whole(place, record, whole_seed)
            image_hw = tf.shape(sample["image"])[:2]
            window = choose(image_hw)
            image = crop_image(sample["image"], window)
        else:

            def decode(record: tf.Tensor):
                sample = tfrecord.parse(record)
                del sample["area"]  # which has not one value an object yet
                return sample, *decode_window(sample.pop("encoded"), choose)

            (sample, image, image_hw, window), is_good = self.records.attempt(decode, place, record)
            sample = self._objects(sample)
        sample = {**sample, "image": image, "boxes_norm": crop_boxes(sample["boxes_norm"], image_hw, window)}
        if config.input_rand_hflip:
            sample = random_flip(sample, flip_seed)
        return self._to_input(sample, window.scaled_size), is_good

    def _whole(self, places: tf.Tensor, records: tf.Tensor, seed: tf.Tensor) -> tuple[Sample, tf.Tensor]:
        """A whole image under what is asked for of mosaic, grid_mask and autoaugment_policy."""
        config = self.config
        mosaic_seed, mask_seed, policy_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
        samples, good = [], []
        one_by_one = zip(*(tf.unstack(part, NUM_IMAGES) if config.mosaic else [part] for part in (places, records)))
        for place, record in one_by_one:
            sample, is_good = self.records.attempt(tfrecord.decode, place, record)
            samples.append(self._objects(sample))
            good.append(is_good)
        sample = mosaic(samples, mosaic_seed, image_size=config.image_size) if config.mosaic else samples[0]
        if config.grid_mask:
            sample = grid_mask(sample, mask_seed)
        if config.autoaugment_policy:
            sample = autoaugment(sample, policy_seed, config.autoaugment_policy)
        return sample, tf.reduce_all(good)

    def _objects(self, sample: Sample) -> Sample:
        """The sample with the objects to train on."""
        sample = self._check_classes(sample)
        keep = tf.reduce_all(tf.math.is_finite(sample["boxes_norm"]), 1)
        if self.config.skip_crowd_during_training:
            keep &= ~sample["is_crowd"]
        kept = tf.where(keep)
        return {**sample, **{name: tf.gather_nd(sample[name], kept) for name in OBJECT_COLUMNS if name in sample}}

    def _check_classes(self, sample: Sample) -> Sample:
        num_classes, classes = self.config.num_classes, sample["classes"]
        valid = tf.reduce_all((classes >= 1) & (classes <= num_classes))
        message = f"class ids must be in 1..num_classes = {num_classes}; set num_classes, or mend the record of image"
        data = [message, sample["source_id"], "with the classes", classes]
        # raw_ops: see tfrecord.parse.
        with tf.control_dependencies([tf.raw_ops.Assert(condition=valid, data=data, summarize=20)]):
            return {**sample, "classes": tf.identity(classes)}

    def _to_input(self, sample: Sample, size: tf.Tensor) -> dict[str, tf.Tensor]:
        """Network input of an image scaled to size, and the objects that are still to be seen."""
        height, width = self.config.image_size
        boxes = sample["boxes_norm"] * tf.cast(tf.tile(size, [2]), tf.float32)
        boxes = tf.clip_by_value(boxes, 0.0, tf.constant([height - 1, width - 1] * 2, tf.float32))
        visible = tf.where(tf.reduce_all(boxes[:, 2:] > boxes[:, :2], 1))
        return {
            "image": preprocess.to_input(sample["image"], size, self.config.image_size, **self.config.colors),
            "boxes": tf.gather_nd(boxes, visible),
            "classes": tf.gather_nd(sample["classes"], visible),
            "source_id": sample["source_id"],
        }

    def _groundtruth(self, sample: Sample) -> dict[str, tf.Tensor]:
        """The objects in pixels of the original image, the largest first, padded with -1; as training, without boxes
        that are no numbers or empty."""
        boxes = tf.clip_by_value(sample["boxes_norm"], 0.0, 1.0)
        usable = tf.reduce_all(tf.math.is_finite(sample["boxes_norm"]), 1) & tf.reduce_all(
            boxes[:, 2:] > boxes[:, :2], 1
        )
        sample = {**sample, "boxes_norm": boxes}
        columns = {name: tf.boolean_mask(sample[name], usable) for name in (*OBJECT_COLUMNS, "difficult")}
        num_objects, limit = tf.shape(columns["classes"])[0], self.config.max_instances_per_image
        warning = ["image", sample["source_id"], "has", num_objects, "objects; evaluating the", limit, "largest,"]
        if num_objects > limit:
            tf.print(*warning, "raise max_instances_per_image to use all")
        order = tf.argsort(columns["area"], direction="DESCENDING")[:limit]
        size = tf.cast(tf.stack([sample["height"], sample["width"]] * 2), tf.float32)
        columns = {
            "boxes_image": columns["boxes_norm"] * size,
            "classes": columns["classes"],
            "is_crowd": tf.cast(columns["is_crowd"], tf.int32),
            "difficult": tf.cast(columns["difficult"], tf.int32),
            "area": columns["area"],
        }
        return {name: _pad(tf.gather(column, order), limit) for name, column in columns.items()}


def window_chooser(config: Config) -> Callable[[tf.Tensor, tf.Tensor], Window]:
    """The scale jitter of a config: (image_hw, seed) -> window."""
    return functools.partial(
        random_window,
        image_size=config.image_size,
        target_size=config.target_size or config.image_size,
        jitter_min=config.jitter_min,
        jitter_max=config.jitter_max,
    )


def batches(dataset: tf.data.Dataset) -> Iterator:
    """The batches of a dataset of InputReader, or other elements that it makes.

    Raises:
        DataError: if too many records are damaged, or one does not fit the config.
    """
    with plain_errors():
        yield from dataset


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """A context in which what the datasets of InputReader raise becomes a DataError of one sentence."""
    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError, tf.errors.UnknownError) as error:
        raise tfrecord.DataError(f"cannot use the records: {reason_of(error)}") from error


def _good(records: tf.data.Dataset, example: Callable) -> tf.data.Dataset:
    """The examples of good records; `example` returns one, and whether its record is good."""
    dataset = records.map(example, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.filter(lambda _, is_good: is_good).map(lambda example, _: example)


def _pad(values: tf.Tensor, length: int) -> tf.Tensor:
    """[K, ...] padded with -1 to [length, ...]."""
    paddings = [[0, length - tf.shape(values)[0]]] + [[0, 0]] * (values.shape.rank - 1)
    padded = tf.pad(values, paddings, constant_values=tf.cast(-1, values.dtype))
    return tf.ensure_shape(padded, [length, *values.shape[1:]])
