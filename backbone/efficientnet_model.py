# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""EfficientNet as a feature extractor: stem, squeeze-excite, MBConv and the network.

Reference: Tan and Le, ICML 2019 (https://arxiv.org/abs/1905.11946), table 1 and section 4.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras as keras

from backbone import layers
from backbone.layers import Shape


class BlockArgs(NamedTuple):
    """The hyper-parameters of one MBConv block."""

    kernel_size: int
    strides: int
    expand_ratio: int  # channels inside the block are expand_ratio * input_filters
    input_filters: int
    output_filters: int
    se_ratio: float | None  # squeezed channels are se_ratio * input_filters; None: no squeeze-excite


def conv_initializer() -> keras.initializers.Initializer:
    """Returns a new initializer, normal with standard deviation sqrt(2 / fan_out).

    Every layer needs its own: an unseeded Keras initializer returns the same numbers again when it is called twice.
    """
    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def conv(
    filters: int, name: str, kernel_size: int = 1, strides: int = 1, use_bias: bool = False
) -> keras.layers.Conv2D:
    """Returns a convolution with SAME padding and EfficientNet's initialization."""
    return keras.layers.Conv2D(
        filters, kernel_size, strides, "same", use_bias=use_bias, kernel_initializer=conv_initializer(), name=name
    )


@keras.utils.register_keras_serializable(package="efficientdet")
class Stem(layers.Layer):
    """3x3 convolution with stride 2, batch normalization, activation.

    Call: [B, H, W, 3] -> [B, ceil(H / 2), ceil(W / 2), filters].
    """

    def __init__(self, filters: int, act_type: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.act_type = act_type
        self.act = layers.activation(act_type)
        self.conv = conv(filters, "conv2d", kernel_size=3, strides=2)
        self.bn = layers.BatchNormalization(name="tpu_batch_normalization")

    def build(self, input_shape: Shape) -> None:
        layers.build(self.bn, layers.build(self.conv, input_shape[-1]))
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.act(self.bn(self.conv(inputs), training=training))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.conv.compute_output_shape(input_shape)


@keras.utils.register_keras_serializable(package="efficientdet")
class SqueezeExcite(layers.Layer):
    """Channel attention: x * sigmoid(expand(act(reduce(mean of x over H and W)))).

    Call: [B, H, W, C] -> [B, H, W, C].
    Reference: Hu et al., CVPR 2018 (https://arxiv.org/abs/1709.01507).
    """

    def __init__(self, reduced_filters: int, filters: int, act_type: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reduced_filters = reduced_filters
        self.filters = filters
        self.act_type = act_type
        self.act = layers.activation(act_type)
        self.reduce = conv(reduced_filters, "conv2d", use_bias=True)
        self.expand = conv(filters, "conv2d_1", use_bias=True)

    def build(self, input_shape: Shape) -> None:
        layers.build(self.reduce, input_shape[-1])
        layers.build(self.expand, self.reduced_filters)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        # The mean of the row means: its float32 rounding error is an eighth of that of a single sum, and it is faster.
        row = [1, inputs.shape[2]]
        squeezed = tf.reduce_mean(tf.nn.avg_pool2d(inputs, row, row, "VALID"), axis=[1, 2], keepdims=True)
        return inputs * tf.sigmoid(self.expand(self.act(self.reduce(squeezed))))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@keras.utils.register_keras_serializable(package="efficientdet")
class MBConvBlock(layers.Layer):
    """Mobile inverted bottleneck: expand 1x1, depthwise, squeeze-excite, project 1x1, shortcut.

    Call: [B, H, W, input_filters], optional draw [B] (see `layers.drop_connect`)
        -> [B, ceil(H / strides), ceil(W / strides), output_filters].
    Sublayer names match the published checkpoints, which number the layers of one kind.

    Reference: Sandler et al., CVPR 2018 (https://arxiv.org/abs/1801.04381).
    """

    def __init__(self, args: BlockArgs, act_type: str, survival_prob: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.args = args = BlockArgs(*args)
        self.act_type = act_type
        self.survival_prob = survival_prob
        self.act = layers.activation(act_type)
        self.has_shortcut = args.strides == 1 and args.input_filters == args.output_filters

        conv_names = iter(("conv2d", "conv2d_1"))
        norm_names = iter(f"tpu_batch_normalization{suffix}" for suffix in ("", "_1", "_2"))
        filters = args.input_filters * args.expand_ratio
        self.expand_conv = None
        if args.expand_ratio != 1:
            self.expand_conv = conv(filters, next(conv_names))
            self.expand_bn = layers.BatchNormalization(name=next(norm_names))
        self.depthwise_conv = keras.layers.DepthwiseConv2D(
            args.kernel_size,
            strides=args.strides,
            padding="same",
            use_bias=False,
            depthwise_initializer=conv_initializer(),
            name="depthwise_conv2d",
        )
        self.depthwise_bn = layers.BatchNormalization(name=next(norm_names))
        self.squeeze_excite = None
        if args.se_ratio:
            reduced_filters = max(1, int(args.input_filters * args.se_ratio))  # not of the expanded filters
            self.squeeze_excite = SqueezeExcite(reduced_filters, filters, act_type, name="se")
        self.project_conv = conv(args.output_filters, next(conv_names))
        self.project_bn = layers.BatchNormalization(name=next(norm_names))

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        if self.expand_conv:
            channels = layers.build(self.expand_conv, channels)
            layers.build(self.expand_bn, channels)
        layers.build(self.depthwise_conv, channels)
        layers.build(self.depthwise_bn, channels)
        if self.squeeze_excite:
            layers.build(self.squeeze_excite, channels)
        layers.build(self.project_bn, layers.build(self.project_conv, channels))
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool = False, draw: tf.Tensor | None = None) -> tf.Tensor:
        x = inputs
        if self.expand_conv:
            x = self.act(self.expand_bn(self.expand_conv(x), training=training))
        x = self.act(self.depthwise_bn(self.depthwise_conv(x), training=training))
        if self.squeeze_excite:
            x = self.squeeze_excite(x)
        x = self.project_bn(self.project_conv(x), training=training)
        if self.has_shortcut:
            x = inputs + layers.drop_connect(x, self.survival_prob, training, draw)
        return x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.project_conv.compute_output_shape(self.depthwise_conv.compute_output_shape(input_shape))


@keras.utils.register_keras_serializable(package="efficientdet")
class Model(layers.Layer, keras.Model):
    """EfficientNet without its classification head.

    Call: [B, H, W, 3] float, normalized -> five feature maps [B, H / 2^k, W / 2^k, C_k], k = 1..5, finest first.
    Each is the output of the last block of its resolution, before any activation.

    In training, draws [B, num_draws], uniform in [0, 1), are the random numbers of drop connect, see
    `layers.drop_connect`; None draws new ones. With `recompute`, only the input of each block is stored for the
    backward pass.
    """

    def __init__(
        self,
        block_args: Sequence[BlockArgs],
        *,
        act_type: str,
        survival_prob: float = 1.0,
        recompute: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.block_args = block_args = tuple(BlockArgs(*args) for args in block_args)
        self.act_type = act_type
        self.survival_prob = survival_prob
        self.recompute = recompute
        self.stem = Stem(block_args[0].input_filters, act_type, name="stem")
        # Block i of n survives with probability 1 - (1 - survival_prob) * i / n.
        self.blocks = [
            MBConvBlock(args, act_type, 1 - (1 - survival_prob) * i / len(block_args), name=f"blocks_{i}")
            for i, args in enumerate(block_args)
        ]
        next_strides = [args.strides for args in block_args[1:]] + [2]
        self.taps = [i for i, strides in enumerate(next_strides) if strides == 2]
        self.feature_channels = [block_args[i].output_filters for i in self.taps]

    def build(self, input_shape: Shape) -> None:
        channels = layers.build(self.stem, input_shape[-1])
        for block in self.blocks:
            channels = layers.build(block, channels)
        self.built = True

    @property
    def num_draws(self) -> int:
        """Random numbers per image for drop connect."""
        return len(self.blocks) if self.survival_prob < 1 else 0

    def call(self, inputs: tf.Tensor, training: bool = False, draws: tf.Tensor | None = None) -> list[tf.Tensor]:
        if training and draws is None:
            draws = tf.random.uniform([tf.shape(inputs)[0], self.num_draws])
        x = self.stem(inputs, training=training)
        features = []
        for i, block in enumerate(self.blocks):
            draw = draws[:, i] if training and self.num_draws else None
            run = functools.partial(block, training=training, draw=draw)
            x = layers.recompute(run, x) if training and self.recompute else run(x)
            if i in self.taps:
                features.append(x)
        return features
