# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluation: one pass over a dataset, with a network or with any driver, to detections, metrics and stage timings."""

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm
from absl import logging

from dataset import dataloader, tfrecord, visualize
from dataset.convert import image_file
from dataset.dataloader import InputReader
from efficientdet import preprocess, tta
from efficientdet.config import Config
from efficientdet.model import EfficientDetModel, EfficientDetNet
from efficientdet.nms import hard_iou_thresh, least_score, soft_sigma
from tf2.evaluation.coco_metric import CocoMetric
from tf2.inference import drivers
from tf2.inference.drivers import Driver
from tf2.inference.metadata import class_names

MAX_NMS_INPUTS = 5000  # candidates an image, where the config does not give a number
PICTURE_MIN_SCORE = 0.3  # of a detection, to be drawn
START = "first batch"  # a stage of its own: in it graphs are traced
READ, METRIC = "read", "metric"  # stages around those of the detector

Network = EfficientDetNet | Callable[[tf.Tensor], tta.Levels]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation reads, and how."""

    val_file_pattern: str
    val_json_file: str | None = None  # groundtruth; None takes what is in the records
    batch_size: int = 1
    num_samples: int | None = None  # images; None for all
    flip: bool = False  # averages the network's outputs with those of the mirrored image


@dataclasses.dataclass(frozen=True)
class Result:
    """What came out of one pass."""

    metric: CocoMetric  # with all that was detected
    num_images: int
    seconds: dict[str, float]  # by stage: START, then of all other batches READ, the detector's own, METRIC
    suppression: dict[str, Any]  # see `suppression`


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
        self.names = class_names(config)
        self._sample_image = _read_picture(config.sample_image) if config.sample_image else None
        self._metric()
        reader = InputReader(evaluation.val_file_pattern, config)
        # Once: a new dataset would trace its functions again, and TensorFlow keeps some of each trace.
        self._dataset = reader.evaluation(evaluation.batch_size, evaluation.num_samples)
        self._net, self._stages = None, {}

    def run(self, net: Network) -> dict[str, float]:
        """One pass; prints COCO's table.

        Returns:
            Metrics by their published names.
        """
        metric = self.evaluate(net).metric
        print(metric.table())
        return metric.result()

    def evaluate(self, net: Network) -> Result:
        """One pass.

        Args:
            net: with the weights to evaluate. The same network with other weights is not traced again.
        """
        batches = (((images, labels["image_scale"]), labels) for images, labels in dataloader.batches(self._dataset))
        rules = suppression(self.config, classes="each by itself", clip=False)
        return _pass(self._metric(), batches, self._detector(net), self.evaluation.num_samples, rules)

    def draw_images(self, net: Network, count: int = 4) -> dict[str, np.ndarray]:
        """What the network detects, drawn: in the first images of the records, or in the config's sample_image.

        Args:
            net: as in `evaluate`.
            count: images of the records.

        Returns:
            {source_id: [H, W, 3] uint8}, of the records at the size of the network input, with its padding; of a
            sample_image {file name: at its own size}.
        """
        stages, pictures = self._detector(net), {}
        for name, picture, network_input, image_scale in self._samples(count):
            state = network_input[tf.newaxis], image_scale[tf.newaxis]
            for stage in stages.values():
                state = stage(state)
            boxes, scores, classes = (column[0] for column in state[:3])
            pictures[name] = visualize.draw_boxes(
                picture, boxes, classes, scores, names=self.names, min_score_thresh=PICTURE_MIN_SCORE
            )
        return pictures

    def _samples(self, count: int) -> Iterator[tuple[str, np.ndarray, tf.Tensor, tf.Tensor]]:
        """(name, picture to draw on, network input, image_scale from one to the other) of what `draw_images` shows."""
        config = self.config
        if self._sample_image is not None:
            network_input, image_scale = preprocess.preprocess(self._sample_image, config.image_size, **config.colors)
            yield Path(config.sample_image).name, self._sample_image, network_input, image_scale
            return
        for image, labels in dataloader.batches(self._dataset.unbatch().take(count)):
            picture = preprocess.unnormalize(image, **config.colors).numpy()
            yield labels["source_id"].numpy().decode(errors="replace"), picture, image, tf.ones([])

    def _metric(self) -> CocoMetric:
        return CocoMetric(self.names, self.evaluation.val_json_file)

    def _detector(self, net: Network) -> dict[str, Callable[[Any], Any]]:
        """The stages from (normalized images, image scales) to Detections of NumPy arrays; kept for the next call."""
        if net is not self._net:
            # Published AP was measured on boxes that may stick out of the picture. Cutting them off, as everywhere
            # else, would add 0.003 AP on BCCD, for the same network: figures could not be compared any more.
            model = EfficientDetModel(self.config, net, post_mode="per_class", clip=False)
            network = drivers.network_function(net) if isinstance(net, EfficientDetNet) else net
            if self.evaluation.flip:
                network = tta.flip_averaged(network, model.anchors.num_anchors_per_location)
            stages = drivers.stages(model, network)
            self._net, self._stages = net, {name: stages[name] for name in ("network", "NMS")}
        return self._stages


def run_driver(driver: Driver, evaluation: Evaluation) -> Result:
    """One pass with any driver, by the detections that it serves.

    It differs from an `Evaluator` in them alone: they are those of the driver's own suppression and score threshold,
    cut off at the border, of pictures as they are stored.

    Args:
        driver: a checkpoint or an exported file.
        evaluation: what to read.

    Raises:
        ValueError: if no record matches or none can be read, the JSON is no groundtruth, or flip is asked for.
    """
    if evaluation.flip:
        raise ValueError(
            "flip needs the outputs of the network: evaluate a checkpoint or an exported network, without as_served"
        )
    metric = CocoMetric(driver.names, evaluation.val_json_file)
    examples = dataloader.batches(
        InputReader(evaluation.val_file_pattern, driver.config).pictures(evaluation.num_samples)
    )

    def batches():
        while batch := list(itertools.islice(examples, evaluation.batch_size)):
            pictures, labels = zip(*batch)
            labels = {name: tf.stack([image[name] for image in labels]) for name in labels[0]}
            yield [picture.numpy() for picture in pictures], labels

    return _pass(metric, batches(), driver.stages, evaluation.num_samples, suppression(driver.config))


def suppression(config: Config, *, classes: str = "all at once", clip: bool = True) -> dict[str, Any]:
    """How candidates become detections, with the values that "none" stands for; fit for JSON.

    Args:
        config: of the detector.
        classes: which boxes compete with each other.
        clip: whether boxes are cut off at the border.
    """
    nms_configs = config.nms_configs
    method = nms_configs.method or "hard"
    own = {"sigma": soft_sigma(nms_configs)} if method == "gaussian" else {"iou_thresh": hard_iou_thresh(nms_configs)}
    score = least_score(nms_configs)
    return {
        "method": method,
        **own,
        "score_thresh": score if math.isfinite(score) else None,
        "max_nms_inputs": nms_configs.max_nms_inputs,
        "max_output_size": nms_configs.max_output_size,
        "classes": classes,
        "clip": clip,
    }


class _Watch:
    """Seconds by stage."""

    def __init__(self):
        self.seconds = {}

    @contextlib.contextmanager
    def on(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def waiting(self, stage: str, items: Iterable) -> Iterator:
        """The items; what it takes to get each of them counts."""
        iterator, nothing = iter(items), object()
        while True:
            with self.on(stage):
                item = next(iterator, nothing)
            if item is nothing:
                return
            yield item


def _pass(
    metric: CocoMetric,
    batches: Iterable[tuple[Any, dict[str, tf.Tensor]]],
    stages: Mapping[str, Callable[[Any], Any]],
    num_samples: int | None,
    rules: dict[str, Any],
) -> Result:
    """Puts batches through the stages of a detector, and what comes out, with the labels, into a metric."""
    known = [n for n in (metric.num_file_images, num_samples) if n is not None]
    total = min(known) if metric.num_file_images is not None else None
    count, watch = 0, _Watch()
    with tqdm.tqdm(desc="evaluating", unit="image", total=total) as bar:
        for state, labels in watch.waiting(READ, batches):
            for name, stage in stages.items():
                with watch.on(name):
                    state = stage(state)
                    tf.test.experimental.sync_devices()  # a GPU goes on working when the call returns
            with watch.on(METRIC):
                labels = {name: column.numpy() for name, column in labels.items()}
                source_ids = [source_id.decode(errors="replace") for source_id in labels["source_id"]]
                metric.add(source_ids, state, _by_image(labels))
            if not count:
                watch.seconds = {START: sum(watch.seconds.values())}
            count += len(source_ids)
            bar.update(len(source_ids))
    with watch.on(METRIC):
        metric.result()  # which it keeps
    if count == num_samples:
        logging.info("stopped after %d images, as asked for; there may be more in the records", count)
    return Result(metric, count, watch.seconds, rules)


def _by_image(labels: dict) -> list[dict]:
    """The groundtruth of each image of a batch."""
    columns = {name: labels[name] for name in ("classes", "is_crowd", "area", "difficult")}
    columns["boxes"] = labels["boxes_image"]
    return [{name: column[i] for name, column in columns.items()} for i in range(len(labels["source_id"]))]


def pictures_at(reader: InputReader, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Some pictures of the records once more, as they are stored.

    Args:
        reader: of the evaluation.
        indices: positions among the images of its pass, from 0.

    Yields:
        (index, [H, W, 3] uint8), by rising index.
    """
    wanted = set(indices)
    for i, (picture, _) in enumerate(dataloader.batches(reader.pictures())):
        if not wanted:
            return
        if i in wanted:
            wanted.remove(i)
            yield i, picture.numpy()


def _read_picture(path: str) -> np.ndarray:
    """The config's sample_image as [H, W, 3] uint8 RGB, upright."""
    try:
        return tfrecord.decode_image(image_file.read(Path(path)).encoded).numpy()
    except image_file.ImageError as error:
        raise tfrecord.DataError(f"sample_image: {error}; give a picture file, or leave it out") from error
