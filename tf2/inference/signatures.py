# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""What exported files compute: functions with named inputs and outputs, upon a network of constants."""

import tensorflow as tf
from tensorflow.types.experimental import ConcreteFunction

from dataset import tfrecord
from efficientdet import postprocess
from efficientdet.config import Config
from efficientdet.model import EfficientDetModel, EfficientDetNet
from efficientdet.postprocess import Detections
from tf2.inference import graph


def frozen(model: EfficientDetModel, batch_size: int = 1) -> EfficientDetModel:
    """A model whose network is a graph of constants, with batch normalization folded into the convolutions.

    Every function below that is made of it calls the one network, so that a file holds its weights once.

    Args:
        model: with the weights.
        batch_size: images a call; 0 for any number.

    Returns:
        A model for functions that serve, not for training.
    """
    frozen_net = graph.to_function(graph.freeze(network(model.net, model.config, batch_size)))

    def net(inputs, training=False):
        return levels(frozen_net(inputs))

    return EfficientDetModel(model.config, net, post_mode=model.post_mode, clip=model.clip)


def detector(model: EfficientDetModel, batch_size: int = 1, *, resizes_float: bool = False) -> ConcreteFunction:
    """Pictures to detections.

    It takes `image_arrays`, [B, H, W, 3] uint8 RGB pictures of any one size, and gives, by falling score:
        detections: [B, D, 7] float32, rows of [index in the batch, ymin, xmin, ymax, xmax, score, class].
        detection_boxes: [B, D, 4] float32, [ymin, xmin, ymax, xmax] in pixels of the pictures.
        detection_scores: [B, D] float32.
        detection_classes: [B, D] int32, from 1.
        num_detections: [B] int32; from there on, all is 0.

    Args:
        model: to serve.
        batch_size: pictures a call, B; 0 for any number.
        resizes_float: makes pictures float32 first, with equal results; TFLite and ONNX do not resize uint8 to float32.

    Returns:
        The function.
    """

    @_function(tf.TensorSpec([batch_size or None, None, None, 3], tf.uint8, name="image_arrays"))
    def serve(image_arrays):
        return named(model(tf.cast(image_arrays, tf.float32) if resizes_float else image_arrays))

    return serve


def encoded_detector(model: EfficientDetModel, batch_size: int = 1) -> ConcreteFunction:
    """As `detector`, of `image_files`, [B] strings: JPEG, PNG, BMP or GIF files, which may differ in size.

    A picture that is turned only by its EXIF entry is taken as it is stored.
    """

    @_function(tf.TensorSpec([batch_size or None], tf.string, name="image_files"))
    def serve(image_files):
        height, width = model.config.image_size
        inputs, image_scales = tf.map_fn(
            lambda encoded: model.preprocess(tfrecord.decode_image(encoded)),
            image_files,
            fn_output_signature=(tf.TensorSpec([height, width, 3], tf.float32), tf.TensorSpec([], tf.float32)),
        )
        return named(model.detect(inputs, image_scales))

    return serve


def network(net: EfficientDetNet, config: Config, batch_size: int = 1, name: str = "images") -> ConcreteFunction:
    """Network inputs to raw outputs.

    It takes `images`, [B, height, width, 3] float32, normalized, and gives for every level i, finest first,
    `class_predict_{i}`, [B, Hl, Wl, A * C] logits, and `box_predict_{i}`, [B, Hl, Wl, A * 4] codes.

    Args:
        net: to serve.
        config: of the network.
        batch_size: images a call, B; 0 for any number.
        name: of the input.

    Returns:
        The function.
    """

    @_function(tf.TensorSpec([batch_size or None, *config.image_size, 3], tf.float32, name=name))
    def serve(images):
        cls_outputs, box_outputs = net(images, training=False)
        predictions = {f"class_predict_{i}": output for i, output in enumerate(cls_outputs)}
        return predictions | {f"box_predict_{i}": output for i, output in enumerate(box_outputs)}

    return serve


def named(detections: Detections) -> dict[str, tf.Tensor]:
    """The outputs of a detector by name."""
    return {
        "detections": postprocess.to_rows(detections),
        "detection_boxes": detections.boxes,
        "detection_scores": detections.scores,
        "detection_classes": detections.classes,
        "num_detections": detections.valid_len,
    }


def levels(outputs: dict[str, tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """(cls_outputs, box_outputs), finest level first, of the named outputs of `network`."""
    count = len(outputs) // 2
    return tuple([outputs[f"{head}_predict_{i}"] for i in range(count)] for head in ("class", "box"))


def _function(spec: tf.TensorSpec):
    """A decorator: the function of one input, traced."""
    return lambda function: tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()
