# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Class and box heads: the convolutions are shared by all levels, the batch normalizations are not.

Reference: Tan et al., CVPR 2020, section 4.2 (https://arxiv.org/abs/1911.09070);
Lin et al., ICCV 2017, section 4 (https://arxiv.org/abs/1708.02002).
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from backbone import layers
from backbone.layers import Shape
from efficientdet.anchors import Maps

PRIOR = 0.01  # initial probability of every class at every anchor; keeps the first losses small


class PredictionNet(layers.Layer):
    """`repeats` steps of convolution, batch normalization and activation, then a convolution that predicts.

    Call: a list over the levels, finest first, of [B, Hl, Wl, F] -> list of [B, Hl, Wl, outputs].

    In training, draws [B, num_draws], uniform in [0, 1), are the random numbers of drop connect, see
    `layers.drop_connect`; None draws new ones. With `recompute`, only the input of each step is stored for the
    backward pass. Sublayer names: {prefix}-{i}, {prefix}-{i}-bn-{level}, {prefix}-predict.
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
        **kwargs: Any,
    ) -> None:
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
        levels = range(min_level, max_level + 1)
        self.bns = [
            [layers.BatchNormalization(name=f"{self.prefix}-{i}-bn-{level}") for level in levels]
            for i in range(repeats)
        ]
        self.predict = self._conv(outputs, f"{self.prefix}-predict", bias=self.prediction_bias)

    def _conv(self, filters: int, name: str, bias: float = 0.0) -> keras.layers.Layer:
        options = {"padding": "same", "bias_initializer": keras.initializers.Constant(bias), "name": name}
        if not self.separable_conv:
            options["kernel_initializer"] = keras.initializers.RandomNormal(stddev=0.01)
            return keras.layers.Conv2D(filters, 3, **options)
        for kernel in ("depthwise", "pointwise"):
            options[f"{kernel}_initializer"] = keras.initializers.VarianceScaling()
        return keras.layers.SeparableConv2D(filters, 3, **options)

    def build(self, input_shape: Sequence[Shape]) -> None:
        channels = input_shape[0][-1]
        for conv, bns in zip(self.convs, self.bns):
            channels = layers.build(conv, channels)
            for bn in bns:
                layers.build(bn, channels)
        layers.build(self.predict, channels)
        super().build(input_shape)

    @property
    def num_draws(self) -> int:
        """Random numbers per image for drop connect: one per level and step, except the first step."""
        drops = self.survival_prob is not None and self.survival_prob < 1
        return max(self.repeats - 1, 0) * (self.max_level - self.min_level + 1) if drops else 0

    def call(self, feats: Maps, training: bool = False, draws: tf.Tensor | None = None) -> list[tf.Tensor]:
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


@keras.utils.register_keras_serializable(package="efficientdet")
class ClassNet(PredictionNet):
    """Class logits per anchor: outputs = A * num_classes, in anchor-major order."""

    prefix = "class"
    prediction_bias = -math.log((1 - PRIOR) / PRIOR)


@keras.utils.register_keras_serializable(package="efficientdet")
class BoxNet(PredictionNet):
    """Box codes (ty, tx, th, tw) per anchor: outputs = A * 4, in anchor-major order."""

    prefix = "box"
