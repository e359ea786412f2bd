# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of EfficientNet: published blocks, outputs and parameters, and blocks by hand."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from backbone import efficientnet_builder, layers
from backbone.choices import BACKBONES
from backbone.efficientnet_model import BlockArgs, MBConvBlock, Model, SqueezeExcite, Stem

# Published: filters of the stem | filters x blocks of each stage | block index:channels of each output.
TABLE = """
b0 32 | 16x1 24x2 40x2 80x3 112x3 192x4 320x1 | 0:16 2:24 4:40 10:112 15:320
b1 32 | 16x2 24x3 40x3 80x4 112x4 192x5 320x2 | 1:16 4:24 7:40 15:112 22:320
b2 32 | 16x2 24x3 48x3 88x4 120x4 208x5 352x2 | 1:16 4:24 7:48 15:120 22:352
b3 40 | 24x2 32x3 48x3 96x5 136x5 232x6 384x2 | 1:24 4:32 7:48 17:136 25:384
b4 48 | 24x2 32x4 56x4 112x6 160x6 272x8 448x2 | 1:24 5:32 9:56 21:160 31:448
b5 48 | 24x3 40x5 64x5 128x7 176x7 304x9 512x3 | 2:24 7:40 12:64 26:176 38:512
b6 56 | 32x3 40x6 72x6 144x8 200x8 344x11 576x3 | 2:32 8:40 14:72 30:200 44:576
b7 64 | 32x4 48x7 80x7 160x10 224x10 384x13 640x4 | 3:32 10:48 17:80 37:224 54:640
lite0 32 | 16x1 24x2 40x2 80x3 112x3 192x4 320x1 | 0:16 2:24 4:40 10:112 15:320
lite1 32 | 16x1 24x3 40x3 80x4 112x4 192x5 320x1 | 0:16 3:24 6:40 14:112 20:320
lite2 32 | 16x1 24x3 48x3 88x4 120x4 208x5 352x1 | 0:16 3:24 6:48 14:120 20:352
lite3 32 | 24x1 32x3 48x3 96x5 136x5 232x6 384x1 | 0:24 3:32 6:48 16:136 23:384
lite4 32 | 24x1 32x4 56x4 112x6 160x6 272x8 448x1 | 0:24 4:32 8:56 20:160 29:448
"""
ROWS = [[part.split() for part in line.split("|")] for line in TABLE.strip().splitlines()]
# Published trainable parameters of the classifiers with 1000 classes.
CLASSIFIERS = {
    **{"b0": 5_288_548, "b1": 7_794_184, "b2": 9_109_994, "b3": 12_233_232},
    **{"b4": 19_341_616, "b5": 30_389_784, "b6": 43_040_704, "b7": 66_347_960},
    **{"lite0": 4_652_008, "lite1": 5_416_680, "lite2": 6_092_072, "lite3": 8_197_096, "lite4": 13_006_568},
}


@pytest.mark.parametrize(
    "filters, width, expected",
    [
        *[(32, 1.0, 32), (32, 1.1, 32), (32, 1.2, 40), (16, 1.4, 24), (40, 1.1, 48), (1280, 1.1, 1408)],
        *[(7, 1.0, 8), (12, 1.0, 16), (17, 1.0, 16)],
        (11, 1.0, 16),  # 8 is below 0.9 * 11
    ],
)
def test_round_filters(filters, width, expected):
    assert efficientnet_builder.round_filters(filters, width) == expected


@pytest.mark.parametrize("head, stages, taps", ROWS, ids=[row[0][0] for row in ROWS])
def test_published_blocks(head, stages, taps):
    name, stem = f"efficientnet-{head[0]}", int(head[1])
    model = efficientnet_builder.get_model(name)
    assert model.stem.filters == stem
    assert [f"{i}:{c}" for i, c in zip(model.taps, model.feature_channels)] == taps
    outputs = [args.output_filters for args in model.block_args]
    assert [f"{filters}x{len(list(run))}" for filters, run in itertools.groupby(outputs)] == stages
    assert [args.input_filters for args in model.block_args] == [stem, *outputs[:-1]]
    # The first block of each stage; later blocks have stride 1.
    first = [args for before, args in zip([None, *outputs], model.block_args) if args.output_filters != before]
    assert [(args.kernel_size, args.strides, args.expand_ratio) for args in first] == [
        *[(3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6)]
    ]
    assert sum(args.strides - 1 for args in model.block_args) == 4
    assert {args.se_ratio for args in model.block_args} == ({None} if "lite" in name else {0.25})
    assert model.act_type == ("relu6" if "lite" in name else "swish")


@pytest.mark.parametrize(
    "name", [n if n in ("b0", "lite0", "lite3") else pytest.param(n, marks=pytest.mark.slow) for n in CLASSIFIERS]
)
def test_published_parameters(name):
    """The published classifier less its head: convolution to 1280 * width, batch norm, 1000 classes with bias."""
    model = efficientnet_builder.get_model(f"efficientnet-{name}")
    width = 1.0 if "lite" in name else BACKBONES[f"efficientnet-{name}"].width
    filters = efficientnet_builder.round_filters(1280, width)
    head = model.feature_channels[-1] * filters + 2 * filters + filters * 1000 + 1000
    model.build((None, None, None, 3))
    parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert parameters == CLASSIFIERS[name] - head
    if name == "b0":
        assert parameters == 3_595_388  # published for the feature extractor


def test_features_have_strides_2_to_32():
    features = _tiny_model()(tf.zeros([2, 65, 40, 3]))
    assert [tuple(x.shape) for x in features] == [
        *[(2, 33, 20, 8), (2, 17, 10, 8), (2, 9, 5, 16), (2, 5, 3, 16), (2, 3, 2, 24)]
    ]


def test_variable_names_of_a_second_model_are_equal():
    names = [[v.name for v in _tiny_model().weights] for _ in range(2)]
    assert names[0] == names[1]
    assert {"stem/conv2d/kernel:0", "blocks_0/conv2d/kernel:0", "blocks_1/se/conv2d_1/bias:0"} <= set(names[0])


def test_block_golden():
    """Input and kernels are 1, the depthwise kernel 1 / 9: expand gives 2, the depthwise mean is 4 / 9 in corners."""
    block = MBConvBlock(BlockArgs(3, 1, 2, 2, 2, None), "relu")
    x = tf.ones([1, 3, 3, 2])
    block(x)
    block.expand_conv.kernel.assign(np.ones([1, 1, 2, 4]))
    block.depthwise_conv.depthwise_kernel.assign(np.full([3, 3, 4, 1], 1 / 9))
    block.project_conv.kernel.assign(np.ones([1, 1, 4, 2]))
    for bn in (block.expand_bn, block.depthwise_bn, block.project_bn):
        bn.gamma.assign(np.full(bn.gamma.shape, np.sqrt(1.001)))  # cancels epsilon
    covered = np.array([[4, 6, 4], [6, 9, 6], [4, 6, 4]]) / 9
    np.testing.assert_allclose(block(x)[0, ..., 0], 1 + 4 * 2 * covered, rtol=1e-5)


def test_squeeze_excite_golden():
    """Channel means 2 and 4 -> relu(2 + 4 - 5) = 1 -> sigmoid of (1, -1)."""
    layer = SqueezeExcite(1, 2, "relu")
    x = tf.constant([[[[1.0, 3.0]], [[3.0, 5.0]]]])
    layer(x)
    layer.reduce.kernel.assign(np.ones([1, 1, 2, 1]))
    layer.reduce.bias.assign([-5.0])
    layer.expand.kernel.assign(np.reshape([1.0, -1.0], [1, 1, 1, 2]))
    gate = 1 / (1 + np.exp([-1.0, 1.0]))
    np.testing.assert_allclose(layer(x)[0, :, 0], np.array([[1, 3], [3, 5]]) * gate, rtol=1e-5)


def test_survival_probability_decreases_with_depth():
    model = Model([BlockArgs(3, 1, 1, 8, 8, None)] * 4, act_type="relu", survival_prob=0.8)
    np.testing.assert_allclose([block.survival_prob for block in model.blocks], [1.0, 0.95, 0.9, 0.85])


@pytest.mark.parametrize("recompute", [False, True])
def test_each_block_has_its_own_draw(recompute):
    """Four blocks with survival probabilities 1, 0.9, 0.8 and 0.7; a dropped block returns its input."""
    model = Model([BlockArgs(3, 1, 1, 4, 4, None)] * 4, act_type="relu", survival_prob=0.6, recompute=recompute)
    model.build((None, None, None, 3))
    assert model.num_draws == 4
    for layer in model.submodules:
        if isinstance(layer, layers.BatchNormalization):
            layer.batch_statistics = False
    images = tf.random.stateless_normal([3, 8, 8, 3], [1, 2])
    draws = tf.constant([[0.0, 0.0, 0.0, 0.0], [0.0, 0.1, 0.19, 0.29], [0.9, 0.05, 0.9, 0.2]])
    outputs = tf.function(model)(images, training=True, draws=draws)[-1]
    x = model.stem(images)
    for block, kept in zip(model.blocks, [[1, 1, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]]):
        branch = (block(x) - x) / block.survival_prob
        x += branch * np.reshape(np.float32(kept), [3, 1, 1, 1])
    np.testing.assert_allclose(outputs, x, rtol=1e-4, atol=1e-5)


def test_recomputed_blocks_have_the_same_outputs_gradients_and_averages():
    images, draws = tf.random.stateless_normal([4, 32, 32, 3], [1, 2]), tf.random.stateless_uniform([4, 5], [3, 4])
    keras.utils.set_random_seed(0)
    results, weights = [], None
    for recompute in (False, True):
        model = _tiny_model(survival_prob=0.5, recompute=recompute, act_type="swish")
        weights = weights or [variable.numpy() for variable in model.weights]
        for variable, value in zip(model.weights, weights):
            variable.assign(value)

        @tf.function
        def run(model=model):
            with tf.GradientTape() as tape:
                features = model(images, training=True, draws=draws)
                # Random weights: batch norm keeps the sum of squares constant, so its gradient would be rounding error.
                loss = tf.add_n([tf.reduce_sum(x * tf.random.stateless_normal(x.shape, [5, 6])) for x in features])
            return features, tape.gradient(loss, model.trainable_variables)

        results.append(tf.nest.flatten(run()) + [v.numpy() for v in model.non_trainable_variables])
    for expected, value in zip(*results):
        # The last feature maps have four values per channel, whose normalization amplifies rounding.
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6 + 1e-4 * np.abs(expected).max())


def test_standard_deviation_of_initial_kernels():
    """sqrt(2 / fan_out), fan_out = 3 * 3 * 64 for the convolution and 3 * 3 for the depthwise convolution."""
    stem = Stem(64, "relu")
    layers.build(stem, 64)
    np.testing.assert_allclose(np.std(stem.conv.kernel), np.sqrt(2 / (9 * 64)), rtol=0.05)
    block = MBConvBlock(BlockArgs(3, 1, 1, 512, 8, None), "relu")
    layers.build(block, 512)
    np.testing.assert_allclose(np.std(block.depthwise_conv.depthwise_kernel), np.sqrt(2 / 9), rtol=0.05)


def test_unknown_name():
    with pytest.raises(ValueError, match="unknown backbone 'resnet50'; use one of efficientnet-b0"):
        efficientnet_builder.get_model("resnet50")


def _tiny_model(act_type="relu", **options):
    blocks = [BlockArgs(3, 1, 1, 8, 8, None)]
    blocks += [BlockArgs(3, 2, 2, *filters, 0.25) for filters in ((8, 8), (8, 16), (16, 16), (16, 24))]
    model = Model(blocks, act_type=act_type, **options)
    model.build((None, None, None, 3))
    return model
