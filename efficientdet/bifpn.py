# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""BiFPN: resampling, weighted fusion, nodes, and cells.

Reference: Tan et al., CVPR 2020, section 3 (https://arxiv.org/abs/1911.09070).
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras as keras

from backbone import layers
from backbone.layers import Shape
from efficientdet.fpn_configs import FUSIONS, Node


@keras.utils.register_keras_serializable(package="efficientdet")
class ResampleFeatureMap(layers.Layer):
    """Converts a feature map to `filters` channels and to the resolution of another level.

    A 1x1 convolution, with batch normalization if `apply_bn`, is present only if the channels differ. Max pooling
    downsamples, after the convolution unless `conv_after_downsample`; nearest neighbor upsamples.

    Call: [B, H, W, C], size (h, w) -> [B, h, w, filters].
    """

    def __init__(self, filters: int, apply_bn: bool = True, conv_after_downsample: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.apply_bn = apply_bn
        self.conv_after_downsample = conv_after_downsample
        self.conv = self.bn = None

    def build(self, input_shape: Shape) -> None:
        if input_shape[-1] != self.filters:
            self.conv = keras.layers.Conv2D(self.filters, 1, padding="same", name="conv2d")
            layers.build(self.conv, input_shape[-1])
            if self.apply_bn:
                self.bn = layers.BatchNormalization(name="bn")
                layers.build(self.bn, self.filters)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, size: tuple[int, int], training: bool = False) -> tf.Tensor:
        if self.conv_after_downsample:
            return upsample(self._project(downsample(inputs, size), training), size)
        return upsample(downsample(self._project(inputs, training), size), size)

    def _project(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        x = self.conv(x) if self.conv else x
        return self.bn(x, training=training) if self.bn else x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.filters)


def downsample(x: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Max-pools [B, H, W, C] to [B, h, w, C], size = (h, w); returns x if neither side shrinks.

    Raises:
        ValueError: if one side shrinks and the other grows.

    Example:
        >>> downsample(tf.zeros([1, 64, 64, 8]), (32, 32)).shape
        TensorShape([1, 32, 32, 8])
    """
    (height, width), (h, w) = x.shape[1:3], size
    if h >= height and w >= width:
        return x
    if h > height or w > width:
        raise ValueError(f"cannot resample a map of {height}x{width} to {h}x{w}: one side shrinks, one grows")
    strides = ((height - 1) // h + 1, (width - 1) // w + 1)
    return tf.nn.max_pool2d(x, [stride + 1 for stride in strides], strides, "SAME")


def upsample(x: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Nearest neighbor, [B, H, W, C] to [B, h, w, C]: out[i] = x[floor(i * H / h)]; returns x if the size is equal.

    >>> upsample(tf.reshape([1.0, 2.0], [1, 1, 2, 1]), (1, 4))[0, 0, :, 0].numpy().tolist()
    [1.0, 1.0, 2.0, 2.0]
    """
    if tuple(x.shape[1:3]) == tuple(size):
        return x
    # TensorFlow 1's op: the published checkpoints were trained without half-pixel centers.
    nearest = functools.partial(
        tf.raw_ops.ResizeNearestNeighbor, size=size, align_corners=False, half_pixel_centers=False
    )
    sides = list(zip(x.shape[1:3], size))
    factors = [-(-after // before) for before, after in sides]
    if any(i * before // after != i // factor for (before, after), factor in zip(sides, factors) for i in range(after)):
        return nearest(images=x)  # pixels are repeated unequally often: odd sizes, across more than one level

    @tf.custom_gradient
    def repeat(x):
        def gradient(upstream):
            # Sums over the copies of each pixel. TensorFlow's own gradient op has no XLA kernel, so no TPU runs it.
            margins = [[0, factor * before - after] for factor, (before, after) in zip(factors, sides)]
            upstream = tf.pad(upstream, [[0, 0], *margins, [0, 0]])
            return tf.nn.avg_pool2d(upstream, factors, factors, "VALID") * math.prod(factors)

        return nearest(images=x), gradient

    return repeat(x)


@keras.utils.register_keras_serializable(package="efficientdet")
class SumFusion(keras.layers.Layer):
    """Unweighted fusion: sum(x_i). Call: a list of K maps [B, H, W, F] -> [B, H, W, F]."""

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        return tf.add_n(inputs)


class WeightedFusion(keras.layers.Layer):
    """Weighted fusion, sum(w_i * x_i), with one trained variable v_i per input; w = normalize(v).

    Subclasses implement `normalize`: [K] or, if `per_channel`, [K, F] -> the same shape, with a sum over K of about 1.
    The variables are named as in the published checkpoints: WSM, WSM_1, WSM_2.

    Call: a list of K maps [B, H, W, F] -> [B, H, W, F].
    """

    per_channel = False

    def normalize(self, weights: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError

    def build(self, input_shape: Sequence[Shape]) -> None:
        shape = (input_shape[0][-1],) if self.per_channel else ()
        names = ["WSM", *(f"WSM_{i}" for i in range(1, len(input_shape)))]
        self.edges = [self.add_weight(name=name, shape=shape, initializer="ones") for name in names]
        super().build(input_shape)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        weights = self.normalize(tf.stack(self.edges))
        return tf.add_n([tf.cast(w, x.dtype) * x for w, x in zip(tf.unstack(weights), inputs)])


@keras.utils.register_keras_serializable(package="efficientdet")
class FastFusion(WeightedFusion):
    """Fast normalized fusion, w_i = relu(v_i) / (epsilon + sum_j(relu(v_j))) (section 3.3)."""

    def __init__(self, epsilon: float = 1e-4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def normalize(self, weights: tf.Tensor) -> tf.Tensor:
        weights = tf.nn.relu(weights)
        return weights / (tf.reduce_sum(weights, axis=0) + self.epsilon)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.utils.register_keras_serializable(package="efficientdet")
class SoftmaxFusion(WeightedFusion):
    """Softmax-based fusion, w_i = exp(v_i) / sum_j(exp(v_j)) (section 3.3)."""

    def normalize(self, weights: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(weights, axis=0)


@keras.utils.register_keras_serializable(package="efficientdet")
class ChannelFastFusion(FastFusion):
    """Fast normalized fusion with one weight per channel."""

    per_channel = True


@keras.utils.register_keras_serializable(package="efficientdet")
class ChannelSoftmaxFusion(SoftmaxFusion):
    """Softmax-based fusion with one weight per channel."""

    per_channel = True


def fusion(weight_method: str) -> keras.layers.Layer:
    """Returns a new fusion layer by name, a key of `fpn_configs.FUSIONS`.

    Raises:
        ValueError: if the name is unknown.

    Example:
        >>> type(fusion("fastattn")).__name__
        'FastFusion'
    """
    if weight_method not in FUSIONS:
        raise ValueError(f"unknown fpn_weight_method {weight_method!r}; use one of {', '.join(FUSIONS)}")
    return globals()[FUSIONS[weight_method]]()


@keras.utils.register_keras_serializable(package="efficientdet")
class ConvAfterFusion(layers.Layer):
    """Activation, 3x3 convolution, batch normalization; with `conv_bn_act_pattern` the activation comes last.

    Call: [B, H, W, F] -> [B, H, W, F].
    """

    def __init__(
        self, filters: int, act_type: str, separable_conv: bool, conv_bn_act_pattern: bool, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.act_type = act_type
        self.separable_conv = separable_conv
        self.conv_bn_act_pattern = conv_bn_act_pattern
        self.act = layers.activation(act_type)
        conv_class = keras.layers.SeparableConv2D if separable_conv else keras.layers.Conv2D
        self.conv = conv_class(filters, 3, padding="same", use_bias=not conv_bn_act_pattern, name="conv")
        self.bn = layers.BatchNormalization(name="bn")

    def build(self, input_shape: Shape) -> None:
        layers.build(self.bn, layers.build(self.conv, input_shape[-1]))
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if self.conv_bn_act_pattern:
            return self.act(self.bn(self.conv(inputs), training=training))
        return self.bn(self.conv(self.act(inputs)), training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.filters)


class NodeOptions(NamedTuple):
    """Hyper-parameters of the nodes: keys of `config.Config`, which documents them, some with the prefix fpn_."""

    filters: int
    act_type: str
    weight_method: str = "fastattn"
    apply_bn_for_resampling: bool = True
    conv_after_downsample: bool = False
    separable_conv: bool = True
    conv_bn_act_pattern: bool = False


@keras.utils.register_keras_serializable(package="efficientdet")
class FNode(layers.Layer):
    """A node of the pyramid: resamples its inputs to one resolution, fuses them, and applies ConvAfterFusion.

    `inputs` and `number` are numbers of feature maps in the cell, see `fpn_configs.py`; sublayer names contain them.

    Call: all feature maps before the node (a list of [B, H, W, C]), size (h, w) -> [B, h, w, filters].
    """

    def __init__(self, inputs: Sequence[int], number: int, options: NodeOptions, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inputs = tuple(inputs)
        self.number = number
        self.options = options = NodeOptions(*options)
        resample_options = (options.filters, options.apply_bn_for_resampling, options.conv_after_downsample)
        self.resamples = [
            ResampleFeatureMap(*resample_options, name=f"resample_{i}_{source}_{number}")
            for i, source in enumerate(inputs)
        ]
        self.fusion = fusion(options.weight_method)
        conv_options = (options.filters, options.act_type, options.separable_conv, options.conv_bn_act_pattern)
        self.op_after_combine = ConvAfterFusion(*conv_options, name=f"op_after_combine{number}")

    def build(self, input_shape: Sequence[Shape]) -> None:
        # Without a name scope of its own: in the published checkpoints, the node contains WSM directly.
        self.fusion.build([(None, None, None, self.options.filters)] * len(self.inputs))
        for resample, source in zip(self.resamples, self.inputs):
            layers.build(resample, input_shape[source][-1])
        layers.build(self.op_after_combine, self.options.filters)
        super().build(input_shape)

    def call(self, feats: Sequence[tf.Tensor], size: tuple[int, int], training: bool = False) -> tf.Tensor:
        resampled = [
            resample(feats[source], size, training=training) for resample, source in zip(self.resamples, self.inputs)
        ]
        return self.op_after_combine(self.fusion(resampled), training=training)


@keras.utils.register_keras_serializable(package="efficientdet")
class FPNCell(layers.Layer):
    """One evaluation of all nodes, which include at least one per level.

    Call: a list over the levels, finest first, of [B, Hl, Wl, C] -> list of [B, Hl, Wl, filters].
    """

    def __init__(self, nodes: Sequence[Node], options: NodeOptions, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.nodes = tuple(Node(level, tuple(inputs)) for level, inputs in nodes)
        self.options = NodeOptions(*options)
        self.levels = tuple(sorted({node.level for node in self.nodes}))
        self.fnodes = [
            FNode(node.inputs, number, options, name=f"fnode{number - len(self.levels)}")
            for number, node in enumerate(self.nodes, len(self.levels))
        ]

    def build(self, input_shape: Sequence[Shape]) -> None:
        shapes = list(input_shape)
        for fnode in self.fnodes:
            with tf.name_scope(fnode.name):
                fnode.build(shapes)
            shapes.append((None, None, None, self.options.filters))
        super().build(input_shape)

    def call(self, feats: Sequence[tf.Tensor], training: bool = False) -> list[tf.Tensor]:
        feats = list(feats)
        sizes = {level: tuple(feat.shape[1:3]) for level, feat in zip(self.levels, feats)}
        last = {}
        for node, fnode in zip(self.nodes, self.fnodes):
            feats.append(fnode(feats, sizes[node.level], training=training))
            last[node.level] = feats[-1]
        return [last[level] for level in self.levels]


@keras.utils.register_keras_serializable(package="efficientdet")
class FPNCells(layers.Layer):
    """The pyramid: `repeats` cells in sequence, each with its own weights; other arguments as in `FPNCell`.

    With `recompute`, only the inputs of each cell are stored for the backward pass.

    Call: a list over the levels, finest first, of [B, Hl, Wl, C] -> list of [B, Hl, Wl, filters].
    """

    def __init__(
        self, repeats: int, nodes: Sequence[Node], options: NodeOptions, recompute: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.repeats = repeats
        self.nodes = tuple(Node(level, tuple(inputs)) for level, inputs in nodes)
        self.options = NodeOptions(*options)
        self.recompute = recompute
        self.cells = [FPNCell(nodes, options, name=f"cell_{i}") for i in range(repeats)]

    def build(self, input_shape: Sequence[Shape]) -> None:
        for cell in self.cells:
            with tf.name_scope(cell.name):
                cell.build(input_shape)
            input_shape = [(None, None, None, self.options.filters)] * len(input_shape)
        super().build(input_shape)

    def call(self, feats: Sequence[tf.Tensor], training: bool = False) -> list[tf.Tensor]:
        for cell in self.cells:
            run = functools.partial(cell, training=training)
            feats = layers.recompute(run, feats) if training and self.recompute else run(feats)
        return feats
