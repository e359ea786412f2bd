# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Configurations of all Keras layers: each constructor argument survives a round trip through JSON."""

import importlib
import inspect
import json

import pytest
import tf_keras as keras

from backbone.efficientnet_model import BlockArgs, MBConvBlock, Model, SqueezeExcite, Stem
from backbone.layers import BatchNormalization, Layer
from efficientdet import bifpn, config
from efficientdet.fpn_configs import Node
from efficientdet.heads import BoxNet, ClassNet, PredictionNet
from efficientdet.model import EfficientDetNet

MODULES = ["backbone.layers", "backbone.efficientnet_model", "efficientdet.bifpn", "efficientdet.heads"]
MODULES.append("efficientdet.model")
ABSTRACT = {Layer, bifpn.WeightedFusion, PredictionNet}
BLOCK = BlockArgs(5, 1, 6, 8, 8, 0.25)
NODES = (Node(3, (0, 1)), Node(4, (1, 2)))
OPTIONS = bifpn.NodeOptions(8, "relu", "attn", False, True, False, True)
HEAD = {
    **{"outputs": 6, "filters": 8, "repeats": 2, "min_level": 4, "max_level": 5, "act_type": "relu"},
    **{"separable_conv": False, "survival_prob": 0.7, "recompute": True},
}
TINY = config.load(
    "efficientdet-lite0",
    image_size="96x64",
    fpn_num_filters=8,
    fpn_cell_repeats=1,
    box_class_repeats=1,
    num_classes=3,
    aspect_ratios=[1.0, [1.4, 0.7]],
    label_map={1: "a", 3: "b"},
    nms_configs={"method": "hard"},
)
CASES = {  # with another value than the default for each argument
    BatchNormalization: {"momentum": 0.9, "epsilon": 0.01, "batch_statistics": False, "synchronized": True},
    Stem: {"filters": 8, "act_type": "relu"},
    SqueezeExcite: {"reduced_filters": 2, "filters": 8, "act_type": "relu"},
    MBConvBlock: {"args": BLOCK, "act_type": "relu6", "survival_prob": 0.9},
    Model: {"block_args": (BLOCK,), "act_type": "relu", "survival_prob": 0.7, "recompute": True},
    bifpn.ResampleFeatureMap: {"filters": 8, "apply_bn": False, "conv_after_downsample": True},
    bifpn.SumFusion: {},
    bifpn.FastFusion: {"epsilon": 0.5},
    bifpn.SoftmaxFusion: {},
    bifpn.ChannelFastFusion: {"epsilon": 0.5},
    bifpn.ChannelSoftmaxFusion: {},
    bifpn.ConvAfterFusion: {"filters": 8, "act_type": "relu", "separable_conv": False, "conv_bn_act_pattern": True},
    bifpn.FNode: {"inputs": (0, 1), "number": 2, "options": OPTIONS},
    bifpn.FPNCell: {"nodes": NODES, "options": OPTIONS},
    bifpn.FPNCells: {"repeats": 2, "nodes": NODES, "options": OPTIONS, "recompute": True},
    ClassNet: HEAD,
    BoxNet: HEAD,
    EfficientDetNet: {"config": TINY, "synchronized": True},
}


def test_all_layers_and_arguments_are_tested():
    defined = {
        value
        for module in MODULES
        for value in vars(importlib.import_module(module)).values()
        if inspect.isclass(value) and issubclass(value, keras.layers.Layer) and value.__module__ == module
    }
    assert defined - ABSTRACT == set(CASES)
    for layer_class, arguments in CASES.items():
        if layer_class.__init__ is not keras.layers.Layer.__init__:  # without arguments of its own
            assert {*arguments, "self", "kwargs"} == set(inspect.signature(layer_class.__init__).parameters)


@pytest.mark.parametrize("layer_class", CASES, ids=lambda layer_class: layer_class.__name__)
def test_config_round_trip(layer_class):
    arguments = {**CASES[layer_class], "name": "another", "trainable": False, "dtype": "float64"}
    config = json.loads(json.dumps(layer_class(**arguments).get_config()))
    again = layer_class.from_config(config)
    assert {name: getattr(again, name) for name in arguments} == arguments
    assert json.loads(json.dumps(again.get_config())) == config
    registered = keras.utils.get_registered_name(layer_class)
    assert registered == f"efficientdet>{layer_class.__name__}"  # Keras finds the class without custom_objects


def test_keras_restores_the_network():
    """The whole network, from JSON by Keras' functions, has the same variables."""
    net = EfficientDetNet(TINY, synchronized=True)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(net))))
    assert again.config == TINY and again.synchronized
    assert [(v.name, v.shape) for v in again.weights] == [(v.name, v.shape) for v in net.weights]
    norms = [layer for layer in again.submodules if isinstance(layer, BatchNormalization)]
    assert norms and all(norm.synchronized for norm in norms)
