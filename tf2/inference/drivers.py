# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Drivers: one way to call a detector, whatever it is stored as."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from efficientdet import boxes as box_ops
from efficientdet import config as config_lib
from efficientdet.model import EfficientDetModel, EfficientDetNet
from efficientdet.postprocess import CLASS_OFFSET, Detections
from efficientdet.tta import Levels
from tf2.inference import runtimes, signatures
from tf2.inference.metadata import ArtifactError, Metadata, class_names
from tf2.weights import checkpoint, published


class Driver:
    """A detector to be called with pictures, in stages that can be timed one by one."""

    network: Callable[[tf.Tensor], Levels] | None = None  # of [B, height, width, 3], normalized; None: not to be had

    def __init__(self, config: config_lib.Config, stages: Mapping[str, Callable[[Any], Any]]):
        """Puts the stages together.

        Args:
            config: of the detector.
            stages: by name and in order. The first takes a list of pictures, every other what the one before returns,
                the last returns Detections of NumPy arrays.
        """
        self.config = config
        self.names = class_names(config)
        self.stages = dict(stages)

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
        state = images
        for stage in self.stages.values():
            state = stage(state)
        return state

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


class KerasDriver(Driver):
    """A detector from a checkpoint."""

    def __init__(self, config: config_lib.Config, ckpt_path: str | None):
        """Builds the model and loads its weights.

        Args:
            config: as in the training of the checkpoint.
            ckpt_path: see `checkpoint.find`; None leaves the weights random.

        Raises:
            CheckpointError: if the checkpoint lacks a variable of the network.
        """
        if ckpt_path is not None and ckpt_path not in published.ARCHIVES:
            ckpt_path = checkpoint.find(ckpt_path)  # of a directory, which holds another one tomorrow
        self.model = EfficientDetModel(
            config, checkpoint.load_net(config, ckpt_path) if ckpt_path is not None else None
        )
        self.ckpt_path = ckpt_path
        self.network = network_function(self.model.net)
        super().__init__(config, stages(self.model, self.network))


class ArtifactDriver(Driver):
    """A detector from an exported file."""

    def __init__(self, runtime: runtimes.Runtime, metadata: Metadata):
        """Puts around a file what is not in it.

        Args:
            runtime: of the file.
            metadata: what the file is.
        """
        self.runtime = runtime
        self.metadata = metadata
        config = metadata.config
        if metadata.content == "detector":
            super().__init__(config, {"preprocess + network + NMS": self._detections})
            return
        model = EfficientDetModel(config, self._levels)
        if metadata.content == "network":
            self.network = self._levels
            super().__init__(config, stages(model, self.network))
        else:
            super().__init__(config, {"preprocess": _preprocessing(model), "network + NMS": self._op_detections})

    def _levels(self, inputs, training=False) -> Levels:
        """The network of the file, in batches of the size that it takes."""
        outputs = self._run(np.asarray(inputs))
        return signatures.levels({name: tf.convert_to_tensor(value) for name, value in outputs.items()})

    def _detections(self, images: list[np.ndarray]) -> Detections:
        """Of a file with everything inside; a call takes pictures of one size, so they are sorted by it."""
        by_size = {}
        for i, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(i)
        rows = {}
        for members in by_size.values():
            rows |= zip(members, self._run(np.stack([images[i] for i in members]))["detections"])
        return _from_rows(np.stack([rows[i] for i in range(len(images))]))

    def _op_detections(self, state) -> Detections:
        """Of a file that ends in TFLite's detection op: boxes in parts of the network input, classes from 0."""
        inputs, image_scales = state
        outputs = self._run(np.asarray(inputs))
        counts, scores, classes, boxes = (outputs[f"output_{i}"] for i in range(4))
        height, width = self.config.image_size
        boxes = boxes * np.array([height, width, height, width], np.float32)
        boxes = box_ops.clip(boxes, height, width).numpy() * np.asarray(image_scales)[:, np.newaxis, np.newaxis]
        rows = np.concatenate([boxes, scores[..., np.newaxis], classes[..., np.newaxis] + CLASS_OFFSET], -1)
        rows *= (np.arange(scores.shape[1]) < np.reshape(counts, [-1, 1]))[..., np.newaxis]
        return _from_rows(np.pad(rows, [[0, 0], [0, 0], [1, 0]]))

    def _run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """All of a batch through a file that may take another number at once; the last call is filled up."""
        size = self.runtime.batch_size or len(inputs)
        if size == len(inputs):
            return self.runtime.run(inputs)
        outputs = []
        for start in range(0, len(inputs), size):
            part = inputs[start : start + size]
            filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            outputs.append({name: value[: len(part)] for name, value in self.runtime.run(filled).items()})
        return {name: np.concatenate([part[name] for part in outputs]) for name in outputs[0]}


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


def open_artifact(
    path: str,
    config: config_lib.Config | None = None,
    *,
    content: str | None = None,
    num_threads: int | None = None,
) -> ArtifactDriver:
    """A detector from an exported file.

        detections = drivers.open_artifact("model.tflite").detect(image)

    Args:
        path: a SavedModel's directory, a frozen graph .pb, a .tflite or an .onnx file.
        config: for files that do not say what they are, as the published program wrote them.
        content: which of the contents of a SavedModel, where it has several; None for the detector.
        num_threads: of TFLite and ONNX Runtime; None leaves it to them.

    Returns:
        The detector.

    Raises:
        ArtifactError: if there is no such file, it is damaged, or it is no detector.
    """
    runtime = runtimes.load(path, content, num_threads)
    metadata = runtime.metadata
    if metadata is None:
        if config is None:
            raise ArtifactError(f"{path} does not say which detector it is; give its --model_name and --hparams")
        metadata = Metadata(config, runtime.content)
    return ArtifactDriver(runtime, metadata)


def network_function(net: EfficientDetNet) -> Callable[[tf.Tensor], Levels]:
    """A network as one graph for batches of any size."""
    inputs = tf.TensorSpec([None, *net.config.image_size, 3], tf.float32)
    return tf.function(lambda inputs: net(inputs, training=False), input_signature=[inputs], autograph=False)


def stages(model: EfficientDetModel, network: Callable[[tf.Tensor], Levels]) -> dict[str, Callable[[Any], Any]]:
    """The stages of a driver around a network: from pictures to Detections of NumPy arrays."""
    postprocess = model.postprocess_function()

    def suppress(state) -> Detections:
        (cls_outputs, box_outputs), image_scales = state
        return Detections(*(x.numpy() for x in postprocess(cls_outputs, box_outputs, image_scales)))

    return {
        "preprocess": _preprocessing(model),
        "network": lambda state: (network(state[0]), state[1]),
        "NMS": suppress,
    }


def _preprocessing(model: EfficientDetModel) -> Callable[[list[np.ndarray]], tuple[tf.Tensor, tf.Tensor]]:
    """Pictures -> network inputs [B, height, width, 3] and image_scales [B]."""
    preprocess = tf.function(
        model.preprocess, input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)], autograph=False
    )

    def stage(images):
        inputs, image_scales = zip(*(preprocess(image) for image in images))
        return tf.stack(inputs), tf.stack(image_scales)

    return stage


def _from_rows(rows: np.ndarray) -> Detections:
    """Detections of rows [B, D, 7]; padding has the score 0, and in published files a class and a box all the same."""
    rows = np.where(rows[..., 5:6] <= 0, 0, rows)  # which keeps a NaN
    return Detections(
        boxes=rows[..., 1:5],
        scores=rows[..., 5],
        classes=rows[..., 6].astype(np.int32),
        valid_len=np.count_nonzero(rows[..., 5], axis=-1).astype(np.int32),
    )
