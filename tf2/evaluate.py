# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluation: one pass over a dataset, from the network's detections to COCO's metrics."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf
import tqdm
from absl import logging

from dataset import dataloader, label_map
from dataset.dataloader import InputReader
from efficientdet.config import Config
from efficientdet.model import EfficientDetModel, EfficientDetNet
from efficientdet.postprocess import Detections
from tf2 import checkpoint
from tf2.coco_metric import CocoMetric

MAX_NMS_INPUTS = 5000  # candidates an image, where the config does not give a number


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
            ValueError: if no record matches, or the JSON is no groundtruth.
        """
        nms_configs = config.nms_configs
        self.config = config.override({"nms_configs": {"max_nms_inputs": nms_configs.max_nms_inputs or MAX_NMS_INPUTS}})
        self.evaluation = evaluation
        self.names = label_map.resolve(config.label_map)
        self.reader = InputReader(evaluation.val_file_pattern, config)
        self._metric()
        self._net, self._detect = None, None

    def run(self, net: EfficientDetNet) -> dict[str, float]:
        """One pass; prints COCO's table.

        Args:
            net: with the weights to evaluate.

        Returns:
            Metrics by their published names.
        """
        if net is not self._net:
            self._net, self._detect = net, self._detector(net)
        metric = self._metric()
        dataset = self.reader.evaluation(self.evaluation.batch_size, self.evaluation.num_samples)
        with tqdm.tqdm(desc="evaluating", unit="image", total=self._total(metric)) as bar:
            for images, labels in dataloader.batches(dataset):
                detections = self._detect(images, labels["image_scale"])
                labels = {name: column.numpy() for name, column in labels.items()}
                source_ids = [source_id.decode() for source_id in labels["source_id"]]
                metric.add(source_ids, detections, _by_image(labels))
                bar.update(len(source_ids))
            if bar.n == self.evaluation.num_samples:
                logging.info("stopped after %d images, as asked for; there may be more in the records", bar.n)
        print(metric.table())
        return metric.result()

    def _total(self, metric: CocoMetric) -> int | None:
        """Images of a pass, as far as they are known before it."""
        known = [n for n in (metric.num_file_images, self.evaluation.num_samples) if n is not None]
        return min(known) if metric.num_file_images is not None else None

    def _metric(self) -> CocoMetric:
        return CocoMetric(self.names, self.evaluation.val_json_file)

    def _detector(self, net: EfficientDetNet) -> Callable[[tf.Tensor, tf.Tensor], Detections]:
        """Network and per-class NMS as one function of (normalized images, image scales)."""
        # Published AP was measured on boxes that may stick out of the picture. Cutting them off, as everywhere else,
        # would add 0.003 AP on BCCD, for the same network: figures could not be compared any more.
        return EfficientDetModel(self.config, net, post_mode="per_class", clip=False).detect_function()


def run(evaluator: Evaluator, ckpt_path: str) -> dict[str, float]:
    """Evaluates a checkpoint, by its moving averages where it has them.

    Args:
        evaluator: of the config of the checkpoint.
        ckpt_path: see `checkpoint.find`.

    Returns:
        Metrics by their published names.

    Raises:
        CheckpointError: if the checkpoint lacks a variable of the network.
    """
    return evaluator.run(checkpoint.load_net(evaluator.config, ckpt_path))


def _by_image(labels: dict) -> list[dict]:
    """The groundtruth of each image of a batch."""
    columns = {"boxes": "boxes_image", "classes": "classes", "is_crowd": "is_crowd", "area": "area"}
    return [{name: labels[column][i] for name, column in columns.items()} for i in range(len(labels["source_id"]))]
