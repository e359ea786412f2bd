# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""EfficientDetNet, the network, and EfficientDetModel: preprocessing, network and postprocessing in one.

Reference: Tan et al., CVPR 2020 (https://arxiv.org/abs/1911.09070).
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from backbone import efficientnet_builder, layers
from efficientdet import fpn_configs, postprocess, preprocess
from efficientdet.anchors import Anchors
from efficientdet.bifpn import FPNCells, ResampleFeatureMap
from efficientdet.config import Config
from efficientdet.heads import BoxNet, ClassNet
from efficientdet.nms import NmsOptions
from efficientdet.postprocess import Detections


class EfficientDetNet(keras.Model):
    """Backbone, BiFPN and heads.

    Call: [B, H, W, 3] float, normalized, H and W of any static size ->
    (cls_outputs, box_outputs): lists over min_level..max_level, finest first, of logits
    [B, Hl, Wl, A * num_classes] and box regressions [B, Hl, Wl, A * 4], float32. In training, draws [B, num_draws],
    uniform in [0, 1), decide what drop connect drops; without them it draws itself.

    Its variables exist from the start, with the names of the published checkpoints, and are the same
    for any number of networks in one process.
    """

    def __init__(self, config: Config, *, synchronized: bool = False, **kwargs):
        """Makes the variables, with random values.

        Args:
            config: of the network.
            synchronized: whether batch normalization, in training, takes the images of all replicas together.
            kwargs: of a Keras model.
        """
        super().__init__(name=kwargs.pop("name", config.name), **kwargs)
        self.config = config
        nodes, weight_method = _pyramid(config)
        # Drop connect hurts the smallest network.
        survival_prob = 1.0 if config.backbone_name == "efficientnet-b0" else 0.8
        self.backbone = efficientnet_builder.get_model(
            config.backbone_name,
            act_type=config.act_type,
            survival_prob=survival_prob,
            recompute=config.grad_checkpoint,
        )
        resample_options = {
            "apply_bn": config.apply_bn_for_resampling,
            "conv_after_downsample": config.conv_after_downsample,
        }
        self.resample_layers = [
            ResampleFeatureMap(config.fpn_num_filters, **resample_options, name=f"resample_p{level}")
            for level in range(6, config.max_level + 1)
        ]
        self.fpn_cells = FPNCells(
            config.fpn_cell_repeats,
            nodes,
            config.min_level,
            config.max_level,
            {
                "filters": config.fpn_num_filters,
                "act_type": config.act_type,
                "weight_method": weight_method,
                "apply_bn_for_resampling": config.apply_bn_for_resampling,
                "conv_after_downsample": config.conv_after_downsample,
                "separable_conv": config.separable_conv,
                "conv_bn_act_pattern": config.conv_bn_act_pattern,
            },
            recompute=config.grad_checkpoint,
            name="fpn_cells",
        )
        num_anchors = config.num_scales * len(config.aspect_ratios)
        head_options = {
            "filters": config.fpn_num_filters,
            "repeats": config.box_class_repeats,
            "min_level": config.min_level,
            "max_level": config.max_level,
            "act_type": config.act_type,
            "separable_conv": config.separable_conv,
            "survival_prob": config.survival_prob,
            "recompute": config.grad_checkpoint,
        }
        self.class_net = ClassNet(num_anchors * config.num_classes, **head_options, name="class_net")
        self.box_net = BoxNet(num_anchors * 4, **head_options, name="box_net")

        with tf.init_scope(), tf.name_scope(""):
            self.build((None, None, None, 3))
        for layer in self.submodules:
            if isinstance(layer, layers.BatchNormalization):
                layer.batch_statistics = config.is_training_bn
                layer.synchronized = synchronized

    def build(self, input_shape):
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

    @property
    def num_draws(self) -> int:
        """Random numbers that drop connect wants for each image."""
        return sum(part.num_draws for part in self._dropping)

    @property
    def _dropping(self) -> tuple:
        return self.backbone, self.class_net, self.box_net

    def call(self, inputs, training=False, draws=None):
        if None in inputs.shape[1:3]:
            raise ValueError(f"the network needs images of a static size, got shape {tuple(inputs.shape)}")
        counts = [part.num_draws for part in self._dropping]
        of_backbone, of_class_net, of_box_net = [None] * 3 if draws is None else tf.split(draws, counts, axis=1)
        feats = self.backbone(inputs, training=training, draws=of_backbone)
        for resample in self.resample_layers:
            height, width = feats[-1].shape[1:3]
            feats.append(resample(feats[-1], ((height + 1) // 2, (width + 1) // 2), training=training))
        feats = self.fpn_cells(feats[self.config.min_level - 1 : self.config.max_level], training=training)
        cls_outputs = self.class_net(feats, training=training, draws=of_class_net)
        box_outputs = self.box_net(feats, training=training, draws=of_box_net)
        return [tf.cast(x, tf.float32) for x in cls_outputs], [tf.cast(x, tf.float32) for x in box_outputs]

    def get_config(self):
        return {"config": self.config, "name": self.name}


class EfficientDetModel(tf.Module):
    """From pictures to boxes: preprocessing, the network, and postprocessing."""

    def __init__(
        self, config: Config, net: EfficientDetNet | None = None, *, post_mode: str = "global", clip: bool = True
    ):
        """Builds the network, unless one is given.

        Args:
            config: of network, preprocessing and non-maximum suppression.
            net: the network to use; None for a new one with random weights.
            post_mode: mode of `postprocess.postprocess`.
            clip: whether boxes are cut off at the border of the network input.
        """
        super().__init__(name="efficientdet_model")
        self.config = config
        self.net = net or EfficientDetNet(config)
        self.anchors = build_anchors(config)
        self.post_mode = post_mode
        self.clip = clip
        self.nms_options = NmsOptions(**dataclasses.asdict(config.nms_configs))

    def __call__(self, images: tf.Tensor) -> Detections:
        """Detects in pictures of one size.

        Args:
            images: [B, H, W, 3] uint8, RGB; H and W may be unknown.

        Returns:
            Detections with boxes in pixels of the pictures.
        """
        inputs, image_scale = self.preprocess(images)
        return self.detect(inputs, tf.fill(tf.shape(inputs)[:1], image_scale))

    def preprocess(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Network inputs [(B,) height, width, 3] of pictures [(B,) H, W, 3], and their image_scale []."""
        return preprocess.preprocess(images, self.config.image_size, **self.config.colors)

    def detect(self, inputs: tf.Tensor, image_scales: tf.Tensor) -> Detections:
        """Detects in network inputs.

        Args:
            inputs: [B, height, width, 3] float32, preprocessed.
            image_scales: [B] float32, pixels of the picture a pixel of the input.

        Returns:
            Detections with boxes in pixels of the pictures.
        """
        return self.postprocess(*self.net(inputs, training=False), image_scales)

    def postprocess(
        self, cls_outputs: list[tf.Tensor], box_outputs: list[tf.Tensor], image_scales: tf.Tensor
    ) -> Detections:
        """Detections of the outputs of the network; image_scales as in `detect`."""
        return postprocess.postprocess(
            self.post_mode,
            cls_outputs,
            box_outputs,
            anchors=self.anchors,
            image_scales=image_scales,
            options=self.nms_options,
            clip=self.clip,
        )

    def postprocess_function(self) -> Callable[[list[tf.Tensor], list[tf.Tensor], tf.Tensor], Detections]:
        """`postprocess` as one graph for batches of any size."""
        num_anchors = self.anchors.num_anchors_per_location
        cls_outputs, box_outputs = (
            [tf.TensorSpec([None, *size, num_anchors * values], tf.float32) for size in self.anchors.feat_sizes]
            for values in (self.config.num_classes, 4)
        )
        signature = [cls_outputs, box_outputs, tf.TensorSpec([None], tf.float32)]
        return tf.function(self.postprocess, input_signature=signature, autograph=False)


def build_anchors(config: Config) -> Anchors:
    """The anchors that a config describes."""
    return Anchors(
        config.image_size,
        min_level=config.min_level,
        max_level=config.max_level,
        num_scales=config.num_scales,
        aspect_ratios=config.aspect_ratios,
        anchor_scale=config.anchor_scale,
    )


def _pyramid(config: Config) -> tuple[list[fpn_configs.Node], str]:
    """The nodes and the fusion of a config; `fpn_config` wins over the names."""
    weight_method = config.fpn_weight_method or "fastattn"
    if config.fpn_config is None:
        return fpn_configs.get_nodes(config.fpn_name, config.min_level, config.max_level), weight_method
    nodes = [fpn_configs.Node(node["feat_level"], tuple(node["inputs_offsets"])) for node in config.fpn_config["nodes"]]
    return nodes, config.fpn_config.get("weight_method") or weight_method
