# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Serving signatures: functions with named inputs and outputs around the frozen network."""

import functools

import tensorflow as tf
from tensorflow.types.experimental import ConcreteFunction

from efficientdet import postprocess
from efficientdet.config import Config
from efficientdet.model import EfficientDetModel, EfficientDetNet
from efficientdet.postprocess import Detections
from efficientdet.tta import Levels
from tf2.inference import encoded_image, graph


def frozen(model: EfficientDetModel, batch_size: int = 1) -> EfficientDetModel:
    """Returns a model for inference whose network is frozen, with batch normalization folded into convolutions.

    All signatures built from it share the network, so that a file contains the weights once. batch_size is the number
    of images per call; 0 for any number.
    """
    return _with_net(model, FrozenNet(graph.freeze(network(model.net, model.config, batch_size))))


def without_constants(model: EfficientDetModel) -> tuple[EfficientDetModel, dict[bytes, bytes]]:
    """Returns a model from `frozen` without its weights, and their values, see `constants.take`.

    A model whose network is another function is returned as it is.
    """
    if not isinstance(model.net, FrozenNet):
        return model, {}
    light, values = graph.without_constants(model.net.graph)
    return _with_net(model, FrozenNet(light)), values


class FrozenNet:
    """A frozen network, called like an EfficientDetNet."""

    def __init__(self, frozen: graph.Graph):
        self.graph = frozen

    @functools.cached_property
    def _function(self) -> ConcreteFunction:
        return graph.to_function(self.graph)

    def __call__(self, inputs: tf.Tensor, training: bool = False) -> Levels:
        return levels(self._function(inputs))


def _with_net(model: EfficientDetModel, net: FrozenNet) -> EfficientDetModel:
    return EfficientDetModel(model.config, net, post_mode=model.post_mode, clip=model.clip)


def detector(model: EfficientDetModel, batch_size: int = 1, *, resizes_float: bool = False) -> ConcreteFunction:
    """Returns the signature from images to detections.

    Its input is `image_arrays`, [B, H, W, 3] uint8 RGB images of one size. Its outputs, by falling score, are:
        detections: [B, D, 7] float32, rows of [index in the batch, ymin, xmin, ymax, xmax, score, class].
        detection_boxes: [B, D, 4] float32, [ymin, xmin, ymax, xmax] in pixels of the image.
        detection_scores: [B, D] float32.
        detection_classes: [B, D] int32, from 1.
        num_detections: [B] int32; later entries of the other outputs are 0.

    Args:
        batch_size: images per call, B; 0 for any number.
        resizes_float: converts images to float32 first, with equal results; TFLite and ONNX cannot resize uint8 images
            to float32.
    """

    @_function(tf.TensorSpec([batch_size or None, None, None, 3], tf.uint8, name="image_arrays"))
    def serve(image_arrays):
        return named(model(tf.cast(image_arrays, tf.float32) if resizes_float else image_arrays))

    return serve


def encoded_detector(model: EfficientDetModel, batch_size: int = 1) -> ConcreteFunction:
    """Returns the signature of `detector` with the input `image_files`: [B] strings, encoded images of any size.

    The formats are JPEG, PNG, BMP and GIF. The pixels are those of `image_file.read_pixels`: upright, as EXIF says.
    With a batch_size of 0, B may be 0.
    """

    @_function(tf.TensorSpec([batch_size or None], tf.string, name="image_files"))
    def serve(image_files):
        specs = tf.TensorSpec([*model.config.image_size, 3], tf.float32), tf.TensorSpec([4], tf.float32)
        batch = encoded_image.decode_batch(image_files, model.preprocess, specs)
        if batch_size:
            return named(model.detect(*batch))
        # TensorFlow's convolutions fail for an empty batch, so that it is padded.
        count = tf.size(image_files)
        padding = [[0, tf.cast(count == 0, tf.int32)]]
        padded = [tf.pad(x, padding + [[0, 0]] * (x.shape.rank - 1)) for x in batch]
        return {name: output[:count] for name, output in named(model.detect(*padded)).items()}

    return serve


def network(net: EfficientDetNet, config: Config, batch_size: int = 1, name: str = "images") -> ConcreteFunction:
    """Returns the signature from network inputs to raw outputs.

    Its input is `images`, [B, height, width, 3] float32, normalized. Its outputs, per level i, finest first, are
    `class_predict_{i}`, [B, Hl, Wl, A * C] logits, and `box_predict_{i}`, [B, Hl, Wl, A * 4] regressions.

    Args:
        net: the network of `config`.
        batch_size: images per call, B; 0 for any number.
        name: name of the input.
    """

    @_function(tf.TensorSpec([batch_size or None, *config.image_size, 3], tf.float32, name=name))
    def serve(images):
        cls_outputs, box_outputs = net(images, training=False)
        predictions = {f"class_predict_{i}": output for i, output in enumerate(cls_outputs)}
        return predictions | {f"box_predict_{i}": output for i, output in enumerate(box_outputs)}

    return serve


def named(detections: Detections) -> dict[str, tf.Tensor]:
    """Returns detections as the named outputs of `detector`."""
    return {
        "detections": postprocess.to_rows(detections),
        "detection_boxes": detections.boxes,
        "detection_scores": detections.scores,
        "detection_classes": detections.classes,
        "num_detections": detections.valid_len,
    }


def levels(outputs: dict[str, tf.Tensor]) -> Levels:
    """Converts the named outputs of `network` to (cls_outputs, box_outputs), finest level first."""
    count = len(outputs) // 2
    return tuple([outputs[f"{head}_predict_{i}"] for i in range(count)] for head in ("class", "box"))


def _function(spec: tf.TensorSpec):
    """Returns a decorator that traces a function of one input."""
    return lambda function: tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()
