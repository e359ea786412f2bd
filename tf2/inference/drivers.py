# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Drivers: one interface to a detector, from a checkpoint or from an exported file."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from dataset import file_access, label_map
from dataset.check import class_ids
from dataset.convert import image_file
from efficientdet import boxes as box_ops
from efficientdet import config as config_lib
from efficientdet.model import EfficientDetModel, EfficientDetNet
from efficientdet.postprocess import CLASS_OFFSET, Detections
from efficientdet.tta import Levels
from tf2.inference import runtimes, signatures
from tf2.inference.metadata import ArtifactError, Metadata, stored_names
from tf2.weights import base_config, checkpoint, class_names, published


class Driver:
    """A detector, divided into stages that can be timed separately."""

    # [B, height, width, 3] normalized images -> raw outputs per level; None if an exported file does not provide them.
    network: Callable[[tf.Tensor], Levels] | None = None

    def __init__(self, config: config_lib.Config, stages: Mapping[str, Callable[[Any], Any]]):
        """Initializes the driver.

        The first of the stages takes a list of images, each other one the result of its predecessor; the last one
        returns Detections of NumPy arrays.
        """
        self.config = config
        self.names = label_map.resolve(config.label_map)
        self.stages = dict(stages)

    def serve(self, images: list[np.ndarray]) -> Detections:
        """Detects objects in a batch of images, which may differ in size.

        Args:
            images: B arrays [H, W, 3] uint8, RGB.

        Returns:
            Detections of NumPy arrays, [B, D, ...], boxes in pixels of each image.

        Raises:
            ValueError: for an empty list, or an array of another shape or dtype.
        """
        if not images:
            raise ValueError("expected at least one image, got an empty list")
        for image in images:
            if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or not image.size:
                raise ValueError(f"expected [H, W, 3] uint8 RGB images, got {list(image.shape)} {image.dtype}")
        state = images
        for stage in self.stages.values():
            state = stage(state)
        return state

    def detect(self, image: np.ndarray | str | os.PathLike) -> Detections:
        """Detects objects in one image.

        Args:
            image: [H, W, 3] uint8 RGB, or the path of an image file.

        Returns:
            Detections without batch dimension and padding, by falling score: boxes [K, 4] float32, [ymin, xmin, ymax,
            xmax] in pixels of the image; scores [K] float32 above nms_configs.score_thresh; classes [K] int32 from 1,
            see `name_of`; valid_len, which is K.

        Raises:
            ValueError: if the file cannot be read, or for an array of another shape or dtype.
        """
        if not isinstance(image, np.ndarray):
            image = image_file.read_pixels(image)
        return self.first(self.serve([image]))

    def first(self, detections: Detections) -> Detections:
        """Returns the detections of the first image of a batch, as `detect` does."""
        nms = self.config.nms_configs
        boxes, scores, classes, valid_len = (x[0] for x in detections)
        # A file of the published program may apply a lower threshold. A NaN is kept, for the parity check to find.
        num_low = np.count_nonzero(scores[:valid_len] <= (nms.score_thresh or 0))
        count = min(valid_len - num_low, nms.max_output_size)
        return Detections(boxes[:count], scores[:count], classes[:count], count)

    def name_of(self, class_id: int) -> str:
        """Returns the name of a class, such as "person", or "class 7" if it has none."""
        return label_map.name_of(self.names, class_id)


class KerasDriver(Driver):
    """A detector from a checkpoint."""

    def __init__(self, config: config_lib.Config, ckpt_path: str | None):
        """Builds the model and loads the weights of `ckpt_path`, see `checkpoint.find`; None for random weights.

        Its class names are those of the config, see `class_names.with_names`.

        Raises:
            CheckpointError: if there is no checkpoint, or it does not match the network.
        """
        if ckpt_path is not None:
            # Before the seconds that building takes, and only once: training may add checkpoints to a directory.
            prefix = checkpoint.find(ckpt_path)
            ckpt_path = ckpt_path if ckpt_path in published.ARCHIVES else prefix
        self.ckpt_path = ckpt_path
        self.model = EfficientDetModel(config)
        if ckpt_path is not None:
            checkpoint.restore(self.model.net, ckpt_path)
        self.network = network_function(self.model.net)
        super().__init__(config, stages(self.model, self.network))


class ArtifactDriver(Driver):
    """A detector from an exported file."""

    def __init__(self, runtime: runtimes.Runtime, metadata: Metadata):
        """Adds the pre- and post-processing that the file does not contain."""
        self.runtime = runtime
        self.metadata = metadata
        functions = stages(EfficientDetModel(metadata.config, self._levels), self._levels)
        if metadata.content == "detector":
            functions = {"preprocess + network + NMS": self._detections}
        elif metadata.content == "detection_op":
            functions = {"preprocess": functions["preprocess"], "network + NMS": self._op_detections}
        else:
            self.network = self._levels
        super().__init__(metadata.config, functions)

    def _levels(self, inputs, training=False) -> Levels:
        """Runs the network of the file."""
        outputs = self._run(np.asarray(inputs))
        return signatures.levels({name: tf.convert_to_tensor(value) for name, value in outputs.items()})

    def _detections(self, images: list[np.ndarray]) -> Detections:
        """Runs a file that contains the whole detector, once per image size, as all images of a call share one."""
        found = {}
        for shape in {image.shape for image in images}:
            members = [i for i, image in enumerate(images) if image.shape == shape]
            found |= zip(members, self._run(np.stack([images[i] for i in members]))["detections"])
        rows = np.stack([found[i] for i in range(len(images))])
        return _without_padding(boxes=rows[..., 1:5], scores=rows[..., 5], classes=rows[..., 6])

    def _op_detections(self, state) -> Detections:
        """Runs a file that ends in TFLite's detection op: boxes relative to the network input, classes from 0."""
        inputs, image_scales = state
        outputs = self._run(np.asarray(inputs))
        counts, scores, classes, boxes = (outputs[f"output_{i}"] for i in range(4))
        height, width = self.config.image_size
        boxes = boxes * np.array([height, width, height, width], np.float32)
        boxes = box_ops.clip(boxes, height, width).numpy() * np.asarray(image_scales)[:, np.newaxis]
        scores = np.where(np.arange(scores.shape[1]) < np.reshape(counts, [-1, 1]), scores, 0)
        return _without_padding(boxes, scores, classes + CLASS_OFFSET)

    def _run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Runs a batch of any size through a file that may have a fixed batch size; the last call is padded."""
        size = self.runtime.batch_size or len(inputs)
        if size == len(inputs):
            return self.runtime.run(inputs)
        padded = np.concatenate([inputs, np.repeat(inputs[-1:], -len(inputs) % size, axis=0)])
        outputs = [self.runtime.run(part) for part in np.split(padded, len(padded) // size)]
        return {name: np.concatenate([part[name] for part in outputs])[: len(inputs)] for name in outputs[0]}


def load(
    model_or_path: str | os.PathLike,
    ckpt: str | os.PathLike | None = None,
    *,
    hparams: str = "",
    min_score_thresh: float | None = None,
    nms_method: str | None = None,
    **overrides: Any,
) -> KerasDriver:
    """Loads a detector from weights, with the defaults of `model_inspect.py --runmode=infer`; called as `tf2.load`.

        detector = tf2.load("efficientdet-d0")
        boxes, scores, classes, count = detector.detect("street.jpg")

    Args:
        model_or_path: a model, or another name of released weights such as "efficientdet-d2-640" (downloaded the first
            time); or the folder of a training, its archive/ subfolder or a checkpoint in it, with a config.yaml.
        ckpt: other weights to load, see `checkpoint.find`; None for those of model_or_path. With a model, the
            config.yaml beside them counts.
        hparams: config overrides, a .yaml file or "k=v,k=v".
        min_score_thresh: scores of detections are higher, in [0, 1]; None for nms_configs.score_thresh of the training
            or hparams, or else 0.4.
        nms_method: "hard" or "gaussian"; None for nms_configs.method of the training or hparams, or else "hard".
        **overrides: other keys of the config.

    Raises:
        ValueError: if a name, a key or the checkpoint does not exist or does not match.
    """
    nms = {"score_thresh": min_score_thresh, "method": nms_method}
    nms = {"nms_configs": {key: value for key, value in nms.items() if value is not None}}
    typed = config_lib.read_hparams(hparams), overrides, nms
    path, model_name = os.fspath(model_or_path), None
    ckpt_path = os.fspath(ckpt or path)
    if ckpt and path in published.ARCHIVES and not file_access.exists(path):
        model_name, keys = published.model_of(path)
        path, typed = ckpt_path, (keys, *typed)
    config = base_config.of_detector(path, model_name, *typed, defaults=base_config.INFERENCE)
    config, _ = class_names.of_detector(config, ckpt_path)
    return KerasDriver(config, ckpt_path)


def open_artifact(
    path: str | os.PathLike,
    config: config_lib.Config | None = None,
    *,
    content: str | None = None,
    num_threads: int | None = None,
) -> ArtifactDriver:
    """Opens an exported file, with the NMS and the thresholds of its export; called as `tf2.open`.

        detections = tf2.open("model.tflite").detect("street.jpg")

    Args:
        path: a SavedModel's folder, or a .pb, .tflite or .onnx file.
        config: of a file without metadata, as written by the published program; otherwise only its label_map is read,
            which must not contradict the class names of the file.
        content: key of CONTENTS to use, if a SavedModel has several; None for the detector.
        num_threads: of TFLite and ONNX Runtime; None for their default.

    Raises:
        ArtifactError: if there is no such file, it is damaged, or it is not a detector.
        LabelMapError: if the label_map of the config gives a class name of the file another id.
    """
    path = os.fspath(path)
    runtime = runtimes.load(path, content, num_threads)
    if not (runtime.metadata or config):
        raise ArtifactError(f"{path} has no metadata; give --model_name and --hparams, or in Python its config")
    if config:
        stored = stored_names(runtime.metadata, path)
        class_ids.check_moved(class_ids.of_label_map(config.label_map), stored, class_names.USE_THOSE)
    return ArtifactDriver(runtime, runtime.metadata or Metadata(config, runtime.content))


def network_function(net: EfficientDetNet) -> Callable[[tf.Tensor], Levels]:
    """Returns a network as one graph for any batch size."""
    inputs = tf.TensorSpec([None, *net.config.image_size, 3], tf.float32)
    return tf.function(lambda inputs: net(inputs, training=False), input_signature=[inputs], autograph=False)


def stages(model: EfficientDetModel, network: Callable[[tf.Tensor], Levels]) -> dict[str, Callable[[Any], Any]]:
    """Returns the stages of a driver around a network: from images to Detections of NumPy arrays."""
    image = tf.TensorSpec([None, None, 3], tf.uint8)
    preprocess = tf.function(model.preprocess, input_signature=[image], autograph=False)
    postprocess = model.postprocess_function()

    def normalize(images):
        inputs, image_scales = zip(*(preprocess(image) for image in images))
        return tf.stack(inputs), tf.stack(image_scales)

    def suppress(state):
        (cls_outputs, box_outputs), image_scales = state
        return Detections(*(x.numpy() for x in postprocess(cls_outputs, box_outputs, image_scales)))

    return {"preprocess": normalize, "network": lambda state: (network(state[0]), state[1]), "NMS": suppress}


def _without_padding(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> Detections:
    """Returns Detections with zeros for padding, which has the score 0 and in published files a box."""
    is_valid = ~(scores <= 0)  # keeps a NaN
    return Detections(
        boxes=np.where(is_valid[..., np.newaxis], boxes, 0),
        scores=np.where(is_valid, scores, 0),
        classes=np.where(is_valid, classes, 0).astype(np.int32),
        valid_len=np.count_nonzero(is_valid, axis=-1).astype(np.int32),
    )
