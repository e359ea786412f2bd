# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluates a network or any driver on a dataset: one pass yields detections, metrics and the time per stage.

The records are divided over the workers of a strategy, and each batch over the replicas of a worker. At the end every
worker holds the detections of all, in the order of the records, and the first one computes the metrics.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tqdm
from absl import logging

from dataset import dataloader, label_map, tfrecord, visualize
from dataset.convert import image_file
from dataset.dataloader import InputReader, Share
from dataset.files import check_local
from dataset.record_count import RecordCounts
from dataset.records import find_files
from efficientdet import preprocess, tta
from efficientdet.config import Config
from efficientdet.model import EfficientDetModel, EfficientDetNet
from efficientdet.postprocess import Detections
from tf2.evaluation.coco_metric import CocoMetric
from tf2.evaluation.replicas import Replicas
from tf2.inference import drivers
from tf2.inference.drivers import Driver, KerasDriver
from tf2.training import exchange
from tf2.training import strategy as strategy_lib

MAX_NMS_INPUTS = 5000  # candidates per image, unless the config sets max_nms_inputs
MIN_DRAWN_SCORE = 0.3
MAX_KEPT = 20_000  # images; each takes several KiB
FIRST_BATCH = "first batch"  # timed separately, because it includes the tracing of graphs
READ, METRIC = "read", "metric"  # stages before and after those of the detector

Network = EfficientDetNet | Callable[[tf.Tensor], tta.Levels]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Data and options of an evaluation."""

    val_file_pattern: str
    val_json_file: str | None = None  # groundtruth in COCO's format; None uses that of the records
    batch_size: int = 1  # images per step and replica
    num_samples: int | None = None  # images; None for all
    flip: bool = False  # horizontal-flip test-time augmentation
    use_xla: bool = False  # compiles network and postprocessing; not of exported files


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of one evaluation pass."""

    metric: CocoMetric  # holds all detections
    num_images: int
    seconds: dict[str, float]  # of one worker per stage: FIRST_BATCH, then of the other batches READ, detector, METRIC
    suppression: dict[str, Any]  # see `suppression`


class _Records:
    """The records of an evaluation, and the share of this worker."""

    def __init__(self, config: Config, evaluation: Evaluation, strategy: tf.distribute.Strategy | None):
        """Finds the files; strategy None means one device."""
        self.evaluation = evaluation
        self.strategy = strategy or tf.distribute.get_strategy()
        self.is_chief = strategy_lib.is_chief(self.strategy)
        self.num_workers = strategy_lib.num_workers(self.strategy)
        self.replicas = Replicas(self.strategy, evaluation.batch_size, use_xla=evaluation.use_xla)
        self.share = Share(strategy_lib.worker_index(self.strategy), self.num_workers, self.replicas.batch_size)
        self.num_skipped = _num_skipped(evaluation)
        self.reader = InputReader(evaluation.val_file_pattern, config)


class Evaluator:
    """Evaluates networks of one config on one dataset; created once and run for every new set of weights."""

    def __init__(self, config: Config, evaluation: Evaluation, strategy: tf.distribute.Strategy | None = None):
        """Checks the input files, before any network is built.

        Args:
            config: config of the networks.
            evaluation: data and options.
            strategy: its workers evaluate together, each on all its replicas; None for one device.

        Raises:
            ValueError: if no record matches the pattern or can be read, the JSON file has no groundtruth, or the
                config's sample_image cannot be read.
        """
        nms_configs = config.nms_configs
        self.config = config.override({"nms_configs": {"max_nms_inputs": nms_configs.max_nms_inputs or MAX_NMS_INPUTS}})
        self.evaluation = evaluation
        self.names = label_map.resolve(config.label_map)
        self._sample_image = _read_sample_image(config.sample_image) if config.sample_image else None
        CocoMetric(self.names, evaluation.val_json_file)
        self._records = records = _Records(config, evaluation, strategy)
        self._batch_size = records.replicas.batch_size
        # Built once: a new dataset would trace its functions again, and TensorFlow never frees all of a trace.
        self._dataset = records.reader.evaluation(self._batch_size, evaluation.num_samples, records.share)
        self._net, self._stages = None, {}
        # The result of `run` with the highest AP; None before, or if it has more than MAX_KEPT images.
        self.best: Result | None = None
        self._best_ap = -math.inf

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """The strategy on whose replicas this evaluator runs."""
        return self._records.strategy

    def alone(self) -> "Evaluator":
        """Returns an evaluator that needs no other worker: this one, or with several workers one for one device."""
        if self._records.num_workers == 1:
            return self
        return Evaluator(self.config, self.evaluation)

    def run(self, net: Network) -> dict[str, float]:
        """Evaluates a network, prints COCO's table, and returns `CocoMetric.result`.

        A collective call, made by all workers at the same point; those other than the first return no metrics.
        """
        result = self.evaluate(net)
        if not self._records.is_chief:
            return {}
        metrics = result.metric.result()
        print(result.metric.table())
        if metrics["AP"] > self._best_ap:
            self._best_ap, self.best = metrics["AP"], result if result.num_images <= MAX_KEPT else None
        return metrics

    def evaluate(self, net: Network) -> Result:
        """Runs one pass over the dataset; the same network with new weights is not traced again.

        A collective call as `run`; the result is that of all workers.
        """
        batches = (((images, labels["image_scale"]), labels) for images, labels in dataloader.batches(self._dataset))
        metric = CocoMetric(self.names, self.evaluation.val_json_file)
        count, seconds = _evaluate(metric, batches, self._detector(net), self._records)
        return Result(metric, count, seconds, suppression(self.config, classes="each by itself", clip=False))

    def draw_images(self, net: Network, count: int = 4) -> dict[str, np.ndarray]:
        """Draws detections on the first `count` images of the records, or on the config's sample_image if it is set.

        Returns:
            {source_id: [H, W, 3] uint8}, images of the records as network inputs, including the padding; or {file
            name: sample_image at its own size}.
        """
        drawn, samples = {}, self._samples(count)
        while batch := list(itertools.islice(samples, self._batch_size)):
            names, images, *state = zip(*batch)
            state = tuple(tf.stack(column) for column in state)
            for stage in self._detector(net).values():
                state = stage(state)
            for name, image, boxes, scores, classes in zip(names, images, *state[:3]):
                drawn[name] = visualize.draw_boxes(
                    image, boxes, classes, scores, names=self.names, min_score_thresh=MIN_DRAWN_SCORE
                )
        return drawn

    def _samples(self, count: int) -> Iterator[tuple[str, np.ndarray, tf.Tensor, tf.Tensor]]:
        """Yields (name, image to draw on, network input, image_scale) for `draw_images`."""
        config = self.config
        if self._sample_image is not None:
            network_input, image_scale = preprocess.preprocess(
                self._sample_image, config.image_size, keep_aspect_ratio=config.keep_aspect_ratio, **config.colors
            )
            yield Path(config.sample_image).name, self._sample_image, network_input, image_scale
            return
        # Not by operations of the dataset, which would be traced again in every call.
        images = (image for image in dataloader.batches(self._all_images.unbatch()) if dataloader.is_valid(*image))
        for image, labels in itertools.islice(images, count):
            pixels = preprocess.unnormalize(image, **config.colors).numpy()
            yield labels["source_id"].numpy().decode(errors="replace"), pixels, image, tf.ones([4])

    @functools.cached_property
    def _all_images(self) -> tf.data.Dataset:
        """The images of all workers."""
        if self._records.num_workers == 1:
            return self._dataset
        return self._records.reader.evaluation(self._batch_size, self.evaluation.num_samples)

    def _detector(self, net: Network) -> dict[str, Callable[[Any], Any]]:
        """Stages from (normalized images, image scales) to Detections of NumPy arrays, cached for the last network.

        A network that is a Python function, as those of exported files, runs on one device of every worker.
        """
        if net is not self._net:
            # Published AP was measured on unclipped boxes. Clipping them, as everywhere else, would raise the AP of
            # the same network on BCCD by 0.003, and results would no longer be comparable.
            model = EfficientDetModel(self.config, net, post_mode="per_class", clip=False)
            network = drivers.network_function(net) if isinstance(net, EfficientDetNet) else net
            is_graph = isinstance(network, tf.types.experimental.PolymorphicFunction)
            if self.evaluation.flip:
                network = tta.flip_averaged(network, model.anchors.num_anchors_per_location)
            stages = (self._records.replicas if is_graph else drivers).stages(model, network)
            self._net, self._stages = net, {name: stage for name, stage in stages.items() if name != "preprocess"}
        return self._stages


def run_driver(driver: Driver, evaluation: Evaluation, strategy: tf.distribute.Strategy | None = None) -> Result:
    """Runs one pass with any driver and evaluates the detections that it serves.

    Unlike in an `Evaluator`, detections come from the driver's own suppression and score threshold, are clipped at the
    image border, and are computed from the stored images. With a strategy, its workers evaluate together: a checkpoint
    on all their replicas, an exported file on one device of every worker.

    Raises:
        ValueError: if no record matches the pattern or can be read, the JSON file has no groundtruth, or flip is set.
    """
    if evaluation.flip:
        raise ValueError(
            "flip needs the outputs of the network: evaluate a checkpoint or an exported network, without as_served"
        )
    metric = CocoMetric(driver.names, evaluation.val_json_file)
    records, stages = _Records(driver.config, evaluation, strategy), driver.stages
    if isinstance(driver, KerasDriver):
        stages = {"preprocess": stages["preprocess"], **records.replicas.stages(driver.model, driver.network)}
    examples = dataloader.batches(records.reader.original_images(evaluation.num_samples, records.share))
    examples = (example for example in examples if dataloader.is_valid(*example))

    def batches():
        while batch := list(itertools.islice(examples, records.replicas.batch_size)):
            images, labels = zip(*batch)
            labels = {name: tf.stack([row[name] for row in labels]) for name in labels[0]}
            yield [image.numpy() for image in images], labels

    count, seconds = _evaluate(metric, batches(), stages, records)
    return Result(metric, count, seconds, suppression(driver.config))


def suppression(config: Config, *, classes: str = "all at once", clip: bool = True) -> dict[str, Any]:
    """Describes the suppression of a detector, with defaults resolved, as values that JSON can hold.

    Args:
        classes: "all at once" if boxes of all classes compete with each other, or "each by itself".
        clip: True if boxes are clipped at the image border.

    Example:
        >>> suppression(Config())["method"], suppression(Config())["sigma"]
        ('gaussian', 0.5)
    """
    nms = config.nms_configs
    return {
        "method": nms.method,
        **({"sigma": nms.soft_sigma} if nms.method == "gaussian" else {"iou_thresh": nms.hard_iou_thresh}),
        "score_thresh": nms.min_score if math.isfinite(nms.min_score) else None,
        "max_nms_inputs": nms.max_nms_inputs,
        "max_output_size": nms.max_output_size,
        "classes": classes,
        "clip": clip,
    }


@contextlib.contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Adds the duration of the block to the seconds of a stage."""
    start = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start


class _Image(NamedTuple):
    """One evaluated image: arguments of `CocoMetric.add`."""

    position: tuple[int, ...]  # of its record
    source_id: str
    detections: Detections  # of a batch of one
    groundtruth: dict[str, np.ndarray]


class _Share(NamedTuple):
    """The part of one worker in an evaluation."""

    num_images: int
    seconds: dict[str, float]  # per stage
    images: list[_Image]  # empty if there is one worker, whose metric has them already
    damaged: dict[tuple[int, int], str]  # damaged records, see `RecordFiles`


def _evaluate(
    metric: CocoMetric,
    batches: Iterator[tuple[Any, dict[str, tf.Tensor]]],
    stages: Mapping[str, Callable[[Any], Any]],
    records: _Records,
) -> tuple[int, dict[str, float]]:
    """Adds the detections and labels of all workers to a metric, given the batches of this one.

    Returns:
        The number of images, and the seconds per stage.
    """
    evaluate_share = functools.partial(_evaluate_share, metric, batches, stages, records)
    shares = exchange.run_on_all(records.strategy, evaluate_share)
    seconds, count = shares[records.share.index].seconds, sum(share.num_images for share in shares)
    with _timed(seconds, METRIC):
        for share in shares:
            records.reader.records.add_damaged(share.damaged)
        for image in sorted((image for share in shares for image in share.images), key=lambda image: image.position):
            metric.add([image.source_id], image.detections, [image.groundtruth])
        if records.is_chief:
            metric.result()  # cached by the metric
    if records.num_skipped:
        message = "evaluated only %d images, as limited by --eval_samples=%d; %d more records were not read"
        logging.warning(message, count, records.evaluation.num_samples, records.num_skipped)
    return count, seconds


def _evaluate_share(
    metric: CocoMetric,
    batches: Iterator[tuple[Any, dict[str, tf.Tensor]]],
    stages: Mapping[str, Callable[[Any], Any]],
    records: _Records,
) -> _Share:
    """Evaluates the batches of this worker; a single worker adds them to the metric at once."""
    total = metric.num_file_images
    if total is not None:
        total = math.ceil(min(total, records.evaluation.num_samples or total) / records.num_workers)
    count, seconds, kept = 0, {}, []
    hidden = {} if records.is_chief else {"disable": True}  # without it, TQDM_DISABLE decides
    with tqdm.tqdm(desc="evaluating", unit="image", total=total, **hidden) as bar:
        while True:
            with _timed(seconds, READ):
                batch = next(batches, None)
            if batch is None:
                break
            state, labels = batch
            for name, stage in stages.items():
                with _timed(seconds, name):
                    state = stage(state)
                    records.replicas.wait()  # a GPU still computes when the call returns
            with _timed(seconds, METRIC):
                is_valid = labels["is_valid"].numpy()
                labels = {name: column.numpy()[is_valid] for name, column in labels.items()}
                labels["boxes"] = labels["boxes_image"]
                rows = [dict(zip(labels, row)) for row in zip(*labels.values())]
                source_ids = [row["source_id"].decode(errors="replace") for row in rows]
                detections = Detections(*(np.asarray(column)[is_valid] for column in state))
                if records.num_workers == 1:
                    metric.add(source_ids, detections, rows)
                else:
                    kept += map(_image_of, source_ids, zip(*detections), rows)
            if not count:
                seconds = {FIRST_BATCH: sum(seconds.values())}
            count += len(source_ids)
            bar.update(len(source_ids))
    return _Share(count, seconds, kept, records.reader.records.damaged)


def _image_of(source_id: str, columns: tuple[np.ndarray, ...], labels: dict[str, np.ndarray]) -> _Image:
    """Returns an image of a batch without padding, given its row of the detections and of the labels."""
    *columns, valid_len = columns
    # Copies, because a slice would keep the whole batch in memory.
    detections = Detections(*(column[np.newaxis, :valid_len].copy() for column in columns), np.array([valid_len]))
    is_object = labels["classes"] > 0
    names = ("boxes", "classes", "is_crowd", "difficult", "area")
    groundtruth = {name: labels[name][is_object] for name in names}
    return _Image(tuple(labels["position"].tolist()), source_id, detections, groundtruth)


def _num_skipped(evaluation: Evaluation) -> int:
    """Returns the number of records that an evaluation does not read because of its num_samples."""
    if evaluation.num_samples is None:
        return 0
    return max(RecordCounts().total(find_files(evaluation.val_file_pattern)) - evaluation.num_samples, 0)


def read_images(reader: InputReader, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Reads some images of an evaluation again, as they are stored.

    Args:
        reader: reader of the records.
        indices: positions of the images in the evaluation, from 0.

    Yields:
        (index, [H, W, 3] uint8), in ascending order of the index.
    """
    examples = enumerate(dataloader.batches(reader.original_images()))
    for i, (image, _) in itertools.islice(examples, max(indices, default=-1) + 1):
        if i in indices:
            yield i, image.numpy()


def _read_sample_image(path: str) -> np.ndarray:
    """Reads the config's sample_image: [H, W, 3] uint8 RGB, upright."""
    check_local(path, "sample_image")
    try:
        return tfrecord.decode_image(image_file.read(Path(path)).encoded).numpy()
    except image_file.ImageError as error:
        raise tfrecord.DataError(f"sample_image: {error}; give an image file, or leave it out") from error
