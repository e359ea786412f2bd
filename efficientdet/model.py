# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""EfficientDetNet, the network, and EfficientDetModel: preprocessing, network and postprocessing.

Reference: Tan et al., CVPR 2020 (https://arxiv.org/abs/1911.09070).
"""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tf_keras as keras
import yaml

from backbone import efficientnet_builder, layers
from backbone.layers import Shape
from efficientdet import fpn_configs, postprocess, preprocess
from efficientdet.anchors import Anchors, Maps
from efficientdet.bifpn import FPNCells, NodeOptions, ResampleFeatureMap
from efficientdet.config import Config
from efficientdet.heads import BoxNet, ClassNet
from efficientdet.postprocess import Detections


@keras.utils.register_keras_serializable(package="efficientdet")
class EfficientDetNet(layers.Layer, keras.Model):
    """Backbone, BiFPN and heads.

    Call: [B, H, W, 3] float, normalized, of any static H and W -> (cls_outputs, box_outputs), lists over
        min_level..max_level, finest first, of logits [B, Hl, Wl, A * num_classes] and box codes [B, Hl, Wl, A * 4],
        float32. In training, draws [B, num_draws], uniform in [0, 1), are the random numbers of drop connect, see
        `layers.drop_connect`; None draws new ones.

    The constructor creates the variables, with random values. Their names are those of the published checkpoints, also
    for a second network in the same process.

    Args:
        config: configuration of the network.
        synchronized: True synchronizes batch normalization over replicas in training.
    """

    def __init__(self, config: Config, *, synchronized: bool = False, **kwargs: Any) -> None:
        super().__init__(name=kwargs.pop("name", config.name), **kwargs)
        self.config = config
        self.synchronized = synchronized
        # As published: drop connect reduces the AP of the smallest network.
        survival_prob = 1.0 if config.backbone_name == "efficientnet-b0" else 0.8
        recompute, filters = config.grad_checkpoint, config.fpn_num_filters
        self.backbone = efficientnet_builder.get_model(
            config.backbone_name, act_type=config.act_type, survival_prob=survival_prob, recompute=recompute
        )
        resample_options = (filters, config.apply_bn_for_resampling, config.conv_after_downsample)
        self.resample_layers = [
            ResampleFeatureMap(*resample_options, name=f"resample_p{level}") for level in range(6, config.max_level + 1)
        ]
        nodes, weight_method = _pyramid(config)
        convolutions = config.select("act_type", "separable_conv")
        node_keys = ("apply_bn_for_resampling", "conv_after_downsample", "conv_bn_act_pattern")
        node_options = NodeOptions(filters, weight_method=weight_method, **convolutions, **config.select(*node_keys))
        self.fpn_cells = FPNCells(config.fpn_cell_repeats, nodes, node_options, recompute=recompute, name="fpn_cells")
        head_options = {
            "filters": filters,
            "repeats": config.box_class_repeats,
            "recompute": recompute,
            **config.select("min_level", "max_level", "survival_prob"),
            **convolutions,
        }
        num_anchors = config.num_scales * len(config.aspect_ratios)
        self.class_net = ClassNet(num_anchors * config.num_classes, **head_options, name="class_net")
        self.box_net = BoxNet(num_anchors * 4, **head_options, name="box_net")

        with tf.init_scope(), tf.name_scope(""):
            self.build((None, None, None, 3))
        for layer in self.submodules:
            if isinstance(layer, layers.BatchNormalization):
                layer.batch_statistics = config.is_training_bn
                layer.synchronized = synchronized

    def build(self, input_shape: Shape) -> None:
        with tf.name_scope(self.backbone.name):
            self.backbone.build(input_shape)
        shapes = [(None, None, None, channels) for channels in self.backbone.feature_channels]
        for resample in self.resample_layers:
            shapes.append((None, None, None, layers.build(resample, shapes[-1][-1])))
        shapes = shapes[self.config.min_level - 1 : self.config.max_level]
        for layer in (self.fpn_cells, self.class_net, self.box_net):
            with tf.name_scope(layer.name):
                layer.build(shapes)
            shapes = [(None, None, None, self.config.fpn_num_filters)] * len(shapes)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Returns all arguments as plain types; `config` as YAML, because JSON has no whole numbers as keys."""
        return {**super().get_config(), "config": self.config.to_yaml()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: None = None) -> "EfficientDetNet":
        """Creates a network from a result of `get_config`, with new weights."""
        return cls(**{**config, "config": Config().override(yaml.safe_load(config["config"]))})

    @property
    def num_draws(self) -> int:
        """Random numbers per image for drop connect."""
        return sum(part.num_draws for part in (self.backbone, self.class_net, self.box_net))

    def call(self, inputs: tf.Tensor, training: bool = False, draws: tf.Tensor | None = None) -> tuple[Maps, Maps]:
        if None in inputs.shape[1:3]:
            raise ValueError(f"the network needs images of a static size, got shape {tuple(inputs.shape)}")
        counts = [part.num_draws for part in (self.backbone, self.class_net, self.box_net)]
        backbone_draws, class_draws, box_draws = [None] * 3 if draws is None else tf.split(draws, counts, axis=1)
        feats = self.backbone(inputs, training=training, draws=backbone_draws)
        for resample in self.resample_layers:
            height, width = feats[-1].shape[1:3]
            feats.append(resample(feats[-1], ((height + 1) // 2, (width + 1) // 2), training=training))
        feats = self.fpn_cells(feats[self.config.min_level - 1 : self.config.max_level], training=training)
        cls_outputs = self.class_net(feats, training=training, draws=class_draws)
        box_outputs = self.box_net(feats, training=training, draws=box_draws)
        return [tf.cast(x, tf.float32) for x in cls_outputs], [tf.cast(x, tf.float32) for x in box_outputs]


class EfficientDetModel(tf.Module):
    """The detector: images -> preprocessing -> network -> postprocessing -> detections.

    Args:
        config: configuration of the network, preprocessing and non-maximum suppression.
        net: the network; None creates one with random weights.
        post_mode, clip: see `postprocess.postprocess`.
    """

    def __init__(
        self, config: Config, net: EfficientDetNet | None = None, *, post_mode: str = "global", clip: bool = True
    ) -> None:
        super().__init__(name="efficientdet_model")
        self.config = config
        self.net = net or EfficientDetNet(config)
        self.anchors = build_anchors(config)
        self.post_mode = post_mode
        self.clip = clip

    def __call__(self, images: tf.Tensor) -> Detections:
        """Detects objects in images of one size; boxes are in pixels of the images.

        Args:
            images: [B, H, W, 3] uint8, RGB; H and W may be unknown.
        """
        inputs, image_scale = self.preprocess(images)
        return self.detect(inputs, image_scale[tf.newaxis])

    def preprocess(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns network inputs [(B,) height, width, 3] of images [(B,) H, W, 3], and their image_scale [4]."""
        config = self.config
        return preprocess.preprocess(
            images, config.image_size, keep_aspect_ratio=config.keep_aspect_ratio, **config.colors
        )

    def detect(self, inputs: tf.Tensor, image_scales: tf.Tensor) -> Detections:
        """Detects objects in network inputs; boxes are in pixels of the original images.

        Args:
            inputs: [B, height, width, 3] float32, preprocessed.
            image_scales: [B, 4] or [1, 4] float32, see `postprocess.postprocess`.
        """
        return self.postprocess(*self.net(inputs, training=False), image_scales)

    def postprocess(self, cls_outputs: Maps, box_outputs: Maps, image_scales: tf.Tensor) -> Detections:
        """Applies `postprocess.postprocess` to the outputs of the network."""
        return postprocess.postprocess(
            self.post_mode,
            cls_outputs,
            box_outputs,
            anchors=self.anchors,
            image_scales=image_scales,
            nms_config=self.config.nms_configs,
            clip=self.clip,
        )

    def postprocess_function(self) -> Callable[[Maps, Maps, tf.Tensor], Detections]:
        """Returns `postprocess` as a tf.function for batches of any size."""
        num_anchors = self.anchors.num_anchors_per_location
        cls_outputs, box_outputs = (
            [tf.TensorSpec([None, *size, num_anchors * values], tf.float32) for size in self.anchors.feat_sizes]
            for values in (self.config.num_classes, 4)
        )
        signature = [cls_outputs, box_outputs, tf.TensorSpec([None, 4], tf.float32)]
        return tf.function(self.postprocess, input_signature=signature, autograph=False)


def build_anchors(config: Config) -> Anchors:
    """Creates the anchors of a config.

    >>> build_anchors(Config(image_size=512)).boxes.shape
    (49104, 4)
    """
    options = config.select("min_level", "max_level", "num_scales", "aspect_ratios", "anchor_scale")
    return Anchors(config.image_size, **options)


def _pyramid(config: Config) -> tuple[list[fpn_configs.Node], str]:
    """Returns the nodes and the weight method of a config; `fpn_config` takes precedence."""
    weight_method = config.fpn_weight_method or "fastattn"
    if config.fpn_config is None:
        return fpn_configs.get_nodes(config.fpn_name, config.min_level, config.max_level), weight_method
    nodes = [fpn_configs.Node(node["feat_level"], tuple(node["inputs_offsets"])) for node in config.fpn_config["nodes"]]
    return nodes, config.fpn_config.get("weight_method") or weight_method
