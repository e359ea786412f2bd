# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Inference on all replicas of a worker: a padded batch of one shape for each, whose detections are merged."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from efficientdet.model import EfficientDetModel
from efficientdet.postprocess import Detections
from efficientdet.tta import Levels
from tf2.training import strategy as strategy_lib


class Replicas:
    """The replicas of a strategy on this worker.

    Every replica computes batches that a single device would compute, because kernels may round an image differently in
    a batch of another size, and at another position in it.
    """

    def __init__(self, strategy: tf.distribute.Strategy, batch_size: int, *, use_xla: bool = False):
        """Initializes the replicas.

        Args:
            strategy: distribution strategy.
            batch_size: images per replica and step.
            use_xla: compiles network and postprocessing of a replica as one XLA program.
        """
        self.strategy, self.use_xla = strategy, use_xla
        self.count = strategy_lib.num_local_replicas(strategy)
        self.batch_size = self.count * batch_size  # of this worker

    def split(self, values: tf.Tensor) -> Any:
        """Pads [B, ...] with zeros to batch_size, and returns one share per replica."""
        with tf.device("CPU:0"):  # not by way of the first GPU
            padded = tf.pad(values, [[0, self.batch_size - values.shape[0]]] + [[0, 0]] * (values.shape.rank - 1))
            shares = tf.split(padded, self.count)
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: shares[context.replica_id_in_sync_group % self.count]
        )

    def merge(self, values: Any) -> np.ndarray:
        """Returns the shares of all replicas as one array, [batch_size, ...]."""
        return np.concatenate([share.numpy() for share in self.strategy.experimental_local_results(values)])

    def run(self, function: Callable) -> Callable:
        """Returns a function as a graph that every replica runs on its share of the arguments."""
        # A Python function, because a strategy calls a tf.function with the shares of all replicas at once.
        return tf.function(
            lambda *shares: self.strategy.run(lambda *share: function(*share), args=shares), autograph=False
        )

    def wait(self) -> None:
        """Waits until the devices have finished; on TPUs and with several machines TensorFlow offers no way to."""
        if not isinstance(self.strategy, tf.distribute.TPUStrategy | tf.distribute.MultiWorkerMirroredStrategy):
            tf.test.experimental.sync_devices()

    def stages(self, model: EfficientDetModel, network: Callable[[tf.Tensor], Levels]) -> dict[str, Callable]:
        """Returns the stages from (normalized images, image scales) to Detections of NumPy arrays.

        On TPUs suppression is that of the static modes of `postprocess`, which XLA compiles.

        Args:
            model: its postprocessing is used.
            network: a tf.function.

        Returns:
            The stages "network" and "NMS" of `drivers.stages`, for batches of up to `batch_size` images; with use_xla
            one stage, "network + NMS".
        """
        is_tpu, postprocess = isinstance(self.strategy, tf.distribute.TPUStrategy), model.postprocess_function()
        if is_tpu or self.use_xla:
            mode = f"{model.post_mode}_static"
            postprocess = EfficientDetModel(model.config, model.net, post_mode=mode, clip=model.clip).postprocess
        if self.use_xla:
            detect = lambda images, image_scales: postprocess(*network(images), image_scales)  # noqa: E731
            # TPUs compile every function.
            detect = detect if is_tpu else tf.function(detect, autograph=False, jit_compile=True)
            return {"network + NMS": self._one_stage(self.run(detect))}
        network, postprocess = self.run(network), self.run(postprocess)

        def infer(state):
            images, image_scales = state
            return network(self.split(images)), self.split(image_scales), len(images)

        def suppress(state):
            (cls_outputs, box_outputs), image_scales, count = state
            detections = postprocess(cls_outputs, box_outputs, image_scales)
            return Detections(*(self.merge(field)[:count] for field in detections))

        return {"network": infer, "NMS": suppress}

    def _one_stage(self, detect: Callable) -> Callable:
        """Returns the only stage of `stages`, given a result of `run` that infers and suppresses."""

        def infer(state):
            images, image_scales = state
            detections = detect(self.split(images), self.split(image_scales))
            return Detections(*(self.merge(field)[: len(images)] for field in detections))

        return infer
