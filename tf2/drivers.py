# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Drivers: one way to call a detector, whatever it is stored as."""

import numpy as np
import tensorflow as tf

from dataset import label_map
from efficientdet import config as config_lib
from efficientdet.model import EfficientDetModel
from efficientdet.postprocess import Detections
from tf2 import checkpoint


class KerasDriver:
    """A detector from a checkpoint, ready to be called with pictures."""

    def __init__(self, config: config_lib.Config, ckpt_path: str | None):
        """Builds the model and loads its weights.

        Args:
            config: as in the training of the checkpoint.
            ckpt_path: see `checkpoint.find`; None leaves the weights random.

        Raises:
            CheckpointError: if the checkpoint lacks a variable of the network.
        """
        self.model = EfficientDetModel(
            config, checkpoint.load_net(config, ckpt_path) if ckpt_path is not None else None
        )
        self.config = config
        self.names = label_map.resolve(config.label_map or ("coco" if config.num_classes == 90 else None))
        self._detect = self.model.detect_function()

    def serve(self, images: list[np.ndarray]) -> Detections:
        """Detects in several pictures at once, which may differ in size.

        Args:
            images: B arrays [H, W, 3] uint8, RGB.

        Returns:
            Detections of NumPy arrays, boxes in pixels of each picture.

        Raises:
            ValueError: if an array is not a picture, or there is none.
        """
        if not images:
            raise ValueError("expected at least one picture, got an empty list")
        for image in images:
            if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or not image.size:
                raise ValueError(f"expected [H, W, 3] uint8 RGB pictures, got {list(image.shape)} {image.dtype}")
        inputs, image_scales = zip(*(self.model.preprocess(tf.constant(image)) for image in images))
        return Detections(*(x.numpy() for x in self._detect(tf.stack(inputs), tf.stack(image_scales))))

    def detect(self, image: np.ndarray) -> Detections:
        """Detects in one picture.

        Args:
            image: [H, W, 3] uint8, RGB.

        Returns:
            Detections without batch dimension and padding: boxes [K, 4] in pixels of the picture, scores [K],
            classes [K], best first; valid_len is K.
        """
        boxes, scores, classes, valid_len = (x[0] for x in self.serve([image]))
        return Detections(boxes[:valid_len], scores[:valid_len], classes[:valid_len], valid_len)


def load(model_name: str, ckpt_path: str | None, hparams: str = "", **overrides) -> KerasDriver:
    """A detector in one line.

        detector = drivers.load("efficientdet-d0", "path/to/efficientdet-d0")
        detections = detector.detect(np.asarray(PIL.Image.open("street.jpg").convert("RGB")))

    Args:
        model_name: efficientdet-d0 .. efficientdet-d7x, efficientdet-lite0 .. efficientdet-lite4.
        ckpt_path: a checkpoint of any published format; None for random weights.
        hparams: as on the command line, a .yaml file or "k=v,k=v".
        **overrides: single keys of the config.

    Returns:
        The detector.

    Raises:
        ValueError: if a name, a key or the checkpoint does not fit.
    """
    return KerasDriver(config_lib.load(model_name, hparams, **overrides), ckpt_path)
