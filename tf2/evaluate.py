# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluation: one pass over a dataset, from the network's detections to COCO's metrics; once, or along a training."""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
import tqdm
from absl import logging

from dataset import dataloader, image_file, label_map, tfrecord, visualize
from dataset.dataloader import InputReader
from efficientdet import preprocess
from efficientdet.config import Config
from efficientdet.model import EfficientDetModel, EfficientDetNet
from efficientdet.postprocess import Detections
from tf2 import checkpoint
from tf2.coco_metric import CocoMetric
from tf2.drivers import Driver

MAX_NMS_INPUTS = 5000  # candidates an image, where the config does not give a number
PICTURE_MIN_SCORE = 0.3  # of a detection, to be drawn
POLL_SECONDS = 5  # from one look for a new checkpoint to the next


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation reads."""

    val_file_pattern: str
    val_json_file: str | None = None  # groundtruth; None takes what is in the records
    batch_size: int = 1
    num_samples: int | None = None  # images; None for all


class Evaluator:
    """Evaluates networks of one config on one dataset; made once, run whenever there are new weights."""

    def __init__(self, config: Config, evaluation: Evaluation):
        """Looks at the files, before any network is built.

        Raises:
            ValueError: if no record matches or none can be read, the JSON is no groundtruth, or the config's
                sample_image cannot be read.
        """
        nms_configs = config.nms_configs
        self.config = config.override({"nms_configs": {"max_nms_inputs": nms_configs.max_nms_inputs or MAX_NMS_INPUTS}})
        self.evaluation = evaluation
        self.names = label_map.resolve(config.label_map)
        self._sample_image = _read_picture(config.sample_image) if config.sample_image else None
        self._metric()
        reader = InputReader(evaluation.val_file_pattern, config)
        # Once: a new dataset would trace its functions again, and TensorFlow keeps some of each trace.
        self._dataset = reader.evaluation(evaluation.batch_size, evaluation.num_samples)
        self._net, self._detect = None, None

    def run(self, net: EfficientDetNet) -> dict[str, float]:
        """One pass; prints COCO's table.

        Args:
            net: with the weights to evaluate. The same network with other weights is not traced again.

        Returns:
            Metrics by their published names.
        """
        detect, metric = self._detector(net), self._metric()
        batches = dataloader.batches(self._dataset)
        detected = ((detect(images, labels["image_scale"]), labels) for images, labels in batches)
        _fill(metric, detected, self.evaluation.num_samples)
        print(metric.table())
        return metric.result()

    def pictures(self, net: EfficientDetNet, count: int = 4) -> dict[str, np.ndarray]:
        """What the network detects, drawn: in the first images of the records, or in the config's sample_image.

        Args:
            net: as in `run`.
            count: images of the records.

        Returns:
            {source_id: [H, W, 3] uint8}, of the records at the size of the network input, with its padding; of a
            sample_image {file name: at its own size}.
        """
        detect, pictures = self._detector(net), {}
        for name, picture, network_input, image_scale in self._samples(count):
            detections = detect(network_input[tf.newaxis], image_scale[tf.newaxis])
            boxes, scores, classes = (np.asarray(column)[0] for column in detections[:3])
            pictures[name] = visualize.draw_boxes(
                picture, boxes, classes, scores, names=self.names, min_score_thresh=PICTURE_MIN_SCORE
            )
        return pictures

    def _samples(self, count: int) -> Iterator[tuple[str, np.ndarray, tf.Tensor, tf.Tensor]]:
        """(name, picture to draw on, network input, image_scale from one to the other) of what `pictures` shows."""
        config = self.config
        if self._sample_image is not None:
            network_input, image_scale = preprocess.preprocess(self._sample_image, config.image_size, **config.colors)
            yield Path(config.sample_image).name, self._sample_image, network_input, image_scale
            return
        for image, labels in dataloader.batches(self._dataset.unbatch().take(count)):
            picture = preprocess.unnormalize(image, **config.colors).numpy()
            yield labels["source_id"].numpy().decode(), picture, image, tf.ones([])

    def _metric(self) -> CocoMetric:
        return CocoMetric(self.names, self.evaluation.val_json_file)

    def _detector(self, net: EfficientDetNet) -> Callable[[tf.Tensor, tf.Tensor], Detections]:
        """Network and per-class NMS as one function of (normalized images, image scales); kept for the next call."""
        if net is not self._net:
            # Published AP was measured on boxes that may stick out of the picture. Cutting them off, as everywhere
            # else, would add 0.003 AP on BCCD, for the same network: figures could not be compared any more.
            model = EfficientDetModel(self.config, net, post_mode="per_class", clip=False)
            self._net, self._detect = net, model.detect_function()
        return self._detect


def run(evaluator: Evaluator, ckpt_path: str) -> dict[str, float]:
    """Evaluates a checkpoint, by its moving averages where it has them; writes nothing.

    Args:
        evaluator: of the config of the checkpoint.
        ckpt_path: see `checkpoint.find`.

    Returns:
        Metrics by their published names.

    Raises:
        CheckpointError: if the checkpoint lacks a variable of the network.
    """
    return evaluator.run(checkpoint.load_net(evaluator.config, ckpt_path))


def run_driver(driver: Driver, evaluation: Evaluation) -> tuple[dict[str, float], int]:
    """Evaluates any driver, by the detections that it serves; prints no table.

    It differs from an `Evaluator` in them alone: they are those of the driver's own suppression and score threshold,
    cut off at the border, of pictures as they are stored.

    Args:
        driver: a checkpoint or an exported file.
        evaluation: what to read.

    Returns:
        Metrics by their published names, and the number of images that they are of.

    Raises:
        ValueError: if no record matches or none can be read, or the JSON is no groundtruth.
    """
    metric = CocoMetric(driver.names, evaluation.val_json_file)
    reader = InputReader(evaluation.val_file_pattern, driver.config)
    labels = reader.evaluation(1, evaluation.num_samples).map(lambda _, labels: labels)
    dataset = tf.data.Dataset.zip((pictures(reader, evaluation.num_samples), labels))

    def detected():
        examples = dataloader.batches(dataset)
        while batch := list(itertools.islice(examples, evaluation.batch_size)):
            pictures, labels = zip(*batch)
            labels = {name: tf.concat([image[name] for image in labels], 0) for name in labels[0]}
            yield driver.serve([picture.numpy() for picture in pictures]), labels

    count = _fill(metric, detected(), evaluation.num_samples)
    return metric.result(), count


def follow(
    evaluator: Evaluator,
    model_dir: str,
    *,
    min_interval: float,
    timeout: float,
    on_result: Callable[[str, int | None, dict[str, float]], None],
) -> dict[str, float]:
    """Evaluates the newest checkpoint of a directory, then each newer one as a training writes it.

    Ends with the checkpoint of the training's last step, which its entry `training/last_step` tells; with one that has
    no step in its name, as released ones have none; or when no newer one comes. One that is deleted, or not all there
    yet, while it is read is left for a newer one.

    Args:
        evaluator: of the config of the training.
        model_dir: directory of the checkpoints; it need not exist yet.
        min_interval: seconds from the start of an evaluation to that of the next, at least.
        timeout: seconds to wait for a newer checkpoint, after each evaluation and for the first one.
        on_result: called after each evaluation with prefix, step (None where the name has none) and metrics.

    Returns:
        Metrics of the last evaluation.

    Raises:
        CheckpointError: if there is no checkpoint within `timeout`, or it is of another network.
    """
    net = EfficientDetNet(evaluator.config)  # one for all checkpoints: the evaluator traces it once
    prefix, step, results, not_before = None, -1, {}, time.monotonic()
    while True:
        logging.info("waiting up to %g s for a %s checkpoint in %s", timeout, "newer" if prefix else "first", model_dir)
        deadline = max(time.monotonic() + timeout, not_before)
        time.sleep(max(0.0, not_before - time.monotonic()))
        loaded = _load_newer(net, model_dir, step, deadline)
        if loaded is None:
            break
        not_before = time.monotonic() + min_interval
        prefix, step, last_step = loaded
        results = evaluator.run(net)
        on_result(prefix, step, results)
        if step is None or (last_step is not None and step >= last_step):
            return results
    if prefix is None:
        raise checkpoint.CheckpointError(
            f"no checkpoint that can be read came to {model_dir} within {timeout:g} s; "
            f"give the --model_dir of a training, or a longer --eval_timeout"
        )
    logging.warning(
        "nothing newer than %s came within %g s, and it is not marked as the last of its training: ending here; "
        "run again when the training goes on, or with a longer --eval_timeout",
        prefix,
        timeout,
    )
    return results


def _load_newer(
    net: EfficientDetNet, model_dir: str, step: int, deadline: float
) -> tuple[str, int | None, int | None] | None:
    """Loads the newest checkpoint as soon as it is beyond a step.

    Returns:
        Its prefix, the step in its name, if any, and the last step of its training, if it tells; None if none came
        until the deadline.
    """
    unreadable = None
    while True:
        prefix, newest_step = _newest(model_dir)
        if prefix and (newest_step is None or newest_step > step):
            try:
                last_step = checkpoint.read_entries(prefix, ["training/last_step"]).get("training/last_step")
                checkpoint.restore(net, prefix)
                return prefix, newest_step, last_step
            except checkpoint.CheckpointError as error:
                if checkpoint.is_whole(prefix):  # and of another network: waiting would not help
                    raise
                if prefix != unreadable:
                    logging.warning("%s; waiting for a newer checkpoint", error)
                unreadable = prefix
        if time.monotonic() >= deadline:
            return None
        time.sleep(POLL_SECONDS)


def _newest(model_dir: str) -> tuple[str | None, int | None]:
    """Prefix and step of the newest checkpoint of a directory, as far as there are any."""
    prefix = step = None
    # Of a state file whose checkpoint is deleted or not there yet; of a name without a step.
    with contextlib.suppress(checkpoint.CheckpointError):
        prefix = checkpoint.latest(model_dir)
        step = checkpoint.step_of(prefix) if prefix else None
    return prefix, step


def _fill(
    metric: CocoMetric, detected: Iterable[tuple[Detections, dict[str, tf.Tensor]]], num_samples: int | None
) -> int:
    """Adds batches of detections and the labels of `InputReader.evaluation` to a metric, and counts their images."""
    known = [n for n in (metric.num_file_images, num_samples) if n is not None]
    total = min(known) if metric.num_file_images is not None else None
    count = 0
    with tqdm.tqdm(desc="evaluating", unit="image", total=total) as bar:
        for detections, labels in detected:
            labels = {name: column.numpy() for name, column in labels.items()}
            source_ids = [source_id.decode() for source_id in labels["source_id"]]
            metric.add(source_ids, detections, _by_image(labels))
            count += len(source_ids)
            bar.update(len(source_ids))
    if count == num_samples:
        logging.info("stopped after %d images, as asked for; there may be more in the records", count)
    return count


def pictures(reader: InputReader, limit: int | None) -> tf.data.Dataset:
    """The pictures of `reader.evaluation`, one by one as they are stored: [H, W, 3] uint8."""

    def picture(place: tf.Tensor, record: tf.Tensor):
        sample, is_good = reader.records.attempt(tfrecord.decode, place, record)
        return sample["image"], is_good

    records = tf.data.Dataset.range(len(reader.records.files)).flat_map(reader.records.read)
    pictures = records.take(-1 if limit is None else limit).map(picture, num_parallel_calls=tf.data.AUTOTUNE)
    return pictures.filter(lambda _, is_good: is_good).map(lambda image, _: image).prefetch(tf.data.AUTOTUNE)


def _by_image(labels: dict) -> list[dict]:
    """The groundtruth of each image of a batch."""
    columns = {"boxes": "boxes_image", "classes": "classes", "is_crowd": "is_crowd", "area": "area"}
    return [{name: labels[column][i] for name, column in columns.items()} for i in range(len(labels["source_id"]))]


def _read_picture(path: str) -> np.ndarray:
    """The config's sample_image as [H, W, 3] uint8 RGB, upright."""
    try:
        return tfrecord.decode_image(image_file.read(Path(path)).encoded).numpy()
    except image_file.ImageError as error:
        raise tfrecord.DataError(f"sample_image: {error}; give a picture file, or leave it out") from error
