# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Normalization, activations and drop connect: what backbone, BiFPN and heads share."""

from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "swish": tf.nn.silu,
    "silu": tf.nn.silu,
    "swish_native": lambda x: x * tf.sigmoid(x),
    "hswish": lambda x: x * tf.nn.relu6(x + 3) / 6,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "mish": lambda x: x * tf.tanh(tf.math.softplus(x)),
}


def activation(act_type: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """The activation function of a name.

    Args:
        act_type: a key of `ACTIVATIONS`.

    Returns:
        A function of one float tensor, same shape and dtype out.

    Raises:
        ValueError: if the name is unknown.
    """
    if act_type not in ACTIVATIONS:
        raise ValueError(f"unknown act_type {act_type!r}; use one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[act_type]


@keras.utils.register_keras_serializable(package="efficientdet")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization with the constants of the EfficientNet family.

    `batch_statistics = False` makes a training step normalize by the moving averages and leave them
    alone, while gamma and beta go on learning: the way to fine-tune with a small batch.

    Reference: Ioffe and Szegedy, ICML 2015 (https://arxiv.org/abs/1502.03167).
    """

    def __init__(self, momentum: float = 0.99, epsilon: float = 1e-3, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)
        self.batch_statistics = True

    def call(self, inputs, training=False, mask=None):
        return super().call(inputs, training=training and self.batch_statistics, mask=mask)


def drop_connect(x: tf.Tensor, survival_prob: float, training: bool) -> tf.Tensor:
    """Drops whole samples of a residual branch in training, and scales up those that survive.

    Args:
        x: [B, H, W, C] float, the branch before it is added to its shortcut.
        survival_prob: probability in (0, 1] that a sample keeps the branch.
        training: False returns x as it is.

    Returns:
        [B, H, W, C], with the expectation of x.

    Reference: Huang et al., ECCV 2016, stochastic depth (https://arxiv.org/abs/1603.09382).
    """
    if not training or survival_prob == 1.0:
        return x
    keep = tf.floor(survival_prob + tf.random.uniform([tf.shape(x)[0], 1, 1, 1], dtype=x.dtype))
    return x / survival_prob * keep


def build(layer: keras.layers.Layer, channels: int) -> int:
    """Creates the variables of a layer under its own name, without running or tracing it.

    Only channels decide the shapes of a convolutional network's variables. Building by channels takes
    a second where tracing takes ten, and keeps names as they are written: under tf.function Keras would
    number a second model's scopes.

    Args:
        layer: an unbuilt layer over [B, H, W, C] maps.
        channels: C of its input.

    Returns:
        C of its output.
    """
    with tf.name_scope(layer.name):
        layer.build((None, None, None, channels))
    return layer.compute_output_shape((None, None, None, channels))[-1]
