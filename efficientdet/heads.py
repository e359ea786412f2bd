# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The class and the box network: convolutions shared by all levels, normalizations that are not.

Reference: Tan et al., CVPR 2020, section 4.2 (https://arxiv.org/abs/1911.09070);
Lin et al., ICCV 2017, section 4 (https://arxiv.org/abs/1708.02002).
"""

import functools
import math

import tensorflow as tf
import tf_keras as keras

from backbone import layers

PRIOR = 0.01  # of an anchor to be an object, before training: keeps the first losses finite


class PredictionNet(keras.layers.Layer):
    """`repeats` times convolution, normalization, activation; then one convolution that predicts.

    Call: list of [B, Hl, Wl, F], finest level first -> list of [B, Hl, Wl, outputs]. In training, draws [B, num_draws],
    uniform in [0, 1), decide what drop connect drops; without them it draws itself.
    `recompute` saves memory in training: of a step, only the input is kept until the backward pass.
    Sublayer names: {prefix}-{i}, {prefix}-{i}-bn-{level}, {prefix}-predict.
    """

    prefix: str
    prediction_bias = 0.0

    def __init__(
        self,
        outputs: int,
        *,
        filters: int,
        repeats: int,
        min_level: int,
        max_level: int,
        act_type: str,
        separable_conv: bool = True,
        survival_prob: float | None = None,
        recompute: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.outputs = outputs
        self.filters = filters
        self.repeats = repeats
        self.min_level = min_level
        self.max_level = max_level
        self.act_type = act_type
        self.separable_conv = separable_conv
        self.survival_prob = survival_prob
        self.recompute = recompute
        self.act = layers.activation(act_type)
        self.convs = [self._conv(filters, f"{self.prefix}-{i}") for i in range(repeats)]
        self.bns = [
            [
                layers.BatchNormalization(name=f"{self.prefix}-{i}-bn-{level}")
                for level in range(min_level, max_level + 1)
            ]
            for i in range(repeats)
        ]
        self.predict = self._conv(outputs, f"{self.prefix}-predict", bias=self.prediction_bias)

    def _conv(self, filters: int, name: str, bias: float = 0.0) -> keras.layers.Layer:
        options = {"padding": "same", "bias_initializer": keras.initializers.Constant(bias), "name": name}
        if not self.separable_conv:
            kernel_initializer = keras.initializers.RandomNormal(stddev=0.01)
            return keras.layers.Conv2D(filters, 3, kernel_initializer=kernel_initializer, **options)
        return keras.layers.SeparableConv2D(
            filters,
            3,
            depthwise_initializer=keras.initializers.VarianceScaling(),
            pointwise_initializer=keras.initializers.VarianceScaling(),
            **options,
        )

    def build(self, input_shape):
        channels = input_shape[0][-1]
        for conv, bns in zip(self.convs, self.bns):
            channels = layers.build(conv, channels)
            for bn in bns:
                layers.build(bn, channels)
        layers.build(self.predict, channels)
        super().build(input_shape)

    @property
    def num_draws(self) -> int:
        """Random numbers that drop connect wants for each image."""
        drops = self.survival_prob is not None and self.survival_prob < 1
        return max(self.repeats - 1, 0) * (self.max_level - self.min_level + 1) if drops else 0

    def call(self, feats, training=False, draws=None):
        if training and draws is None:
            draws = tf.random.uniform([tf.shape(feats[0])[0], self.num_draws])
        outputs = []
        for level, x in enumerate(feats):
            for i in range(self.repeats):
                draw = draws[:, level * (self.repeats - 1) + i - 1] if i and training and self.num_draws else None
                run = functools.partial(self._step, level=level, repeat=i, training=training, draw=draw)
                x = layers.recompute(run, x) if training and self.recompute else run(x)
            outputs.append(self.predict(x))
        return outputs

    def _step(self, inputs, *, level, repeat, training, draw):
        x = self.act(self.bns[repeat][level](self.convs[repeat](inputs), training=training))
        if repeat > 0 and self.survival_prob:
            x = inputs + layers.drop_connect(x, self.survival_prob, training, draw)
        return x

    def get_config(self):
        keys = ("outputs", "filters", "repeats", "min_level", "max_level", "act_type", "separable_conv")
        keys += ("survival_prob", "recompute")
        return {**super().get_config(), **{k: getattr(self, k) for k in keys}}


@keras.utils.register_keras_serializable(package="efficientdet")
class ClassNet(PredictionNet):
    """Logits of every class at every anchor; outputs = A * num_classes, anchor by anchor."""

    prefix = "class"
    prediction_bias = -math.log((1 - PRIOR) / PRIOR)


@keras.utils.register_keras_serializable(package="efficientdet")
class BoxNet(PredictionNet):
    """(ty, tx, th, tw) of every anchor; outputs = A * 4, anchor by anchor."""

    prefix = "box"
