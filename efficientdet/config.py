# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""All hyper-parameters, their defaults and the tables of recipes and models: `Config` below is the reference manual.

Precedence: defaults < model < recipe < `--hparams` < flags. Imports no TensorFlow, so that typos are reported at once.
"""

import dataclasses
import re
import reprlib
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import yaml

from backbone.choices import ACTIVATIONS, BACKBONES
from efficientdet.config_values import ConfigError, Kind, convert, key, nearest
from efficientdet.fpn_configs import FPNS, FUSIONS
from efficientdet.hparams import read_hparams

VERSION = "0.5"  # of this repository
MAX_NUM_CLASSES = 10_000  # far above that of any dataset of boxes (LVIS has 1,203); memory grows with it
Section = TypeVar("Section", bound="_Section")


class _Section:
    """Base class of Config and its sections: values are checked on construction, and changes return copies."""

    _prefix: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, convert(field, getattr(self, field.name), self._prefix))

    def override(self: Section, *layers: Mapping[str, Any]) -> Section:
        """Returns a changed copy; later layers win. `nms_configs` is merged, any other mapping is replaced.

        Raises:
            ConfigError: for an unknown or retired key, or an invalid value.
        """
        known = {field.name for field in dataclasses.fields(self)}
        changed = {}
        for values in layers:
            for name, value in values.items():
                name = ALIASES.get(name, name)
                if name not in known:
                    self._check_retired(name, value)
                    continue
                current = changed.get(name, getattr(self, name))
                is_section = isinstance(current, _Section) and isinstance(value, Mapping)
                changed[name] = current.override(value) if is_section else value
        return dataclasses.replace(self, **changed)

    def _check_retired(self, name: Any, value: Any) -> None:
        """Raises ConfigError unless the key is retired and has a value without effect."""
        path = f"{self._prefix}{name}"
        if path not in RETIRED:
            paths = {f.name: f"nms_configs.{f.name}" for f in dataclasses.fields(NmsConfig)}
            paths |= {f.name: f"{self._prefix}{f.name}" for f in dataclasses.fields(self)}
            raise ConfigError(f"unknown config key {path!r}{nearest(name, paths)}")
        accepted, advice = RETIRED[path]
        if _plain(value) not in accepted:
            raise ConfigError(f"{path}={reprlib.repr(value)} is no longer supported: {advice}")

    def difference(self: Section, base: Section) -> dict[str, Any]:
        """Returns the keys that differ from base, in plain YAML types: base.override(result) equals self."""
        changed = {}
        for field in dataclasses.fields(self):
            ours, theirs = getattr(self, field.name), getattr(base, field.name)
            if ours != theirs:
                changed[field.name] = ours.difference(theirs) if isinstance(ours, _Section) else _plain(ours)
        return changed


@dataclasses.dataclass(frozen=True)
class NmsConfig(_Section):
    """Non-maximum suppression; the keys are written nms_configs.method and so on.

    For iou_thresh, score_thresh and sigma, None and 0 select a default; the properties below return the resolved value.
    """

    _prefix: ClassVar[str] = "nms_configs."

    method: str = key("gaussian", choices=("hard", "gaussian"), kind="nms_method")  # gaussian: soft NMS; None: hard
    iou_thresh: float | None = key(None, "[0, 1]")  # hard only: IoU above which the lower-scored box is removed
    score_thresh: float | None = key(0.0, "[0, 1]")  # lower scores are dropped
    sigma: float | None = key(None, "[0, inf)")  # gaussian only: scores are multiplied by exp(-iou^2 / sigma)
    max_nms_inputs: int = key(0, "[0, inf)")  # best (anchor, class) pairs per image; 0: every anchor, its best class
    max_output_size: int = key(100, "[1, inf)")  # detections per image, in all export formats too

    @property
    def hard_iou_thresh(self) -> float:
        """Resolved iou_thresh; default 0.5."""
        return self.iou_thresh or 0.5

    @property
    def soft_sigma(self) -> float:
        """Resolved sigma; default 0.5."""
        return self.sigma or 0.5

    @property
    def min_score(self) -> float:
        """Resolved score_thresh, a strict lower bound; default 0.001 for gaussian, -inf for hard."""
        return self.score_thresh or (0.001 if self.method == "gaussian" else float("-inf"))


# Defaults of model_inspect.py and tf2.load, which hparams override; training and evaluation have those of NmsConfig.
INFERENCE_NMS = {"method": "hard", "score_thresh": 0.4, "max_output_size": 100}


def _read_nms(value: Any) -> NmsConfig:
    return value if isinstance(value, NmsConfig) else NmsConfig().override(value)


@dataclasses.dataclass(frozen=True)
class Config(_Section):
    """All keys with type, default, range or choices, and unit. Frozen; `override` returns changed copies.

    Raises:
        ConfigError: for an invalid value, or values that contradict each other.
    """

    name: str = key("efficientdet-d1")  # name of the model in logs and exported files
    # Training settings, see RECIPES: published, of COCO on TPUs; finetune, for own data from pre-trained weights.
    recipe: str = key("published", choices=("published", "finetune"))

    # Images. Sizes are stored as (height, width) in pixels and written as 512, "1920x1280" (WxH) or [height, width].
    image_size: tuple[int, int] = key((640, 640), "[1, inf)", kind="size")  # network input; need not be square
    keep_aspect_ratio: bool = key(True)  # scaled to fit, and padded; False: stretched to image_size, as MediaPipe does
    # The network input is (pixel - mean_rgb) / stddev_rgb, pixels in [0, 255]; one number applies to all channels.
    mean_rgb: tuple[float, float, float] = key((0.485 * 255, 0.456 * 255, 0.406 * 255), kind="rgb")
    stddev_rgb: tuple[float, float, float] = key((0.229 * 255, 0.224 * 255, 0.225 * 255), "(0, inf)", kind="rgb")
    scale_range: bool = key(False)  # then x * 2 / 255 - 1; for AdvProp checkpoints, with mean_rgb=0,stddev_rgb=1

    # Data.
    num_classes: int = key(90, "[1, inf)")  # class logits, up to MAX_NUM_CLASSES; class ids are 1..num_classes
    # coco, voc, waymo, file.yaml or {id: name}. None: the names of the loaded detector, which are in its config.yaml or
    # exported file, and COCO's for released weights; without either, also with 90 classes, classes are named by id.
    label_map: str | Mapping[int, str] | None = key(None, kind="label_map")
    max_instances_per_image: int = key(100, "[1, inf)")  # groundtruth boxes are padded to this number
    skip_crowd_during_training: bool = key(True)  # crowd boxes then count as background
    regenerate_source_id: bool = key(False)  # image ids are a hash of the image instead of those in the records
    max_damaged_records: int = key(10, "[0, inf)")  # damaged records that are skipped and logged; one more: an error

    # Augmentation, in training only.
    input_rand_hflip: bool = key(True)  # horizontal flip with probability 0.5
    jitter_min: float = key(0.1, "(0, inf)")  # images are scaled by a random factor in this range, then cropped;
    jitter_max: float = key(2.0, "(0, inf)")  # equal values fix the factor, 1.0 disables scaling
    target_size: tuple[int, int] | None = key(None, "[1, inf)", kind="size")  # size at factor 1; None: image_size
    autoaugment_policy: str | None = key(None, choices=("v0", "v1", "v2", "v3", "test", "randaug"))
    grid_mask: bool = key(False)  # erases a random grid of squares
    mosaic: bool = key(False)  # combines four images into one

    # Network.
    backbone_name: str = key("efficientnet-b1", choices=BACKBONES)  # efficientnet-b0..b7, efficientnet-lite0..lite4
    act_type: str = key("swish", choices=ACTIVATIONS)  # in backbone, FPN and heads
    min_level: int = key(3, "[1, 5]")  # pyramid levels min_level..max_level; level l has stride 2**l
    max_level: int = key(7, "[1, inf)")
    fpn_name: str | None = key(None, choices=FPNS)  # None and bifpn_dyn are bifpn
    fpn_weight_method: str | None = key(None, choices=FUSIONS)  # fusion of the inputs of a node; None: fastattn
    # Custom nodes instead of fpn_name: {nodes: [{feat_level: 6, inputs_offsets: [3, 4]}, ...], weight_method: sum}.
    # Offsets count the inputs, finest level first, then the nodes; weight_method defaults to fpn_weight_method.
    fpn_config: Mapping[str, Any] | None = key(None, kind="fpn_config")
    fpn_cell_repeats: int = key(3, "[1, inf)")
    fpn_num_filters: int = key(88, "[1, inf)")  # channels of FPN and heads
    box_class_repeats: int = key(3, "[0, inf)")  # convolutions in each head before the prediction
    separable_conv: bool = key(True)  # False: plain convolutions in FPN and heads
    apply_bn_for_resampling: bool = key(True)  # batch norm after the 1x1 convolutions between levels
    conv_after_downsample: bool = key(False)  # 1x1 convolution after max pooling instead of before
    conv_bn_act_pattern: bool = key(False)  # FPN nodes: conv-bn-act instead of act-conv-bn
    survival_prob: float | None = key(None, "(0, 1]")  # of drop connect in the heads; None: no drop connect
    is_training_bn: bool = key(True)  # False: training normalizes by the moving averages and does not update them
    batch_norm_momentum: float = key(0.99, "[0, 1)")  # of these moving averages, over 1 / (1 - momentum) steps
    grad_checkpoint: bool = key(False)  # recomputes activations in the backward pass to save memory

    # Anchors.
    num_scales: int = key(3, "[1, inf)")  # octave scales 2**(i / num_scales) per location
    # Width / height, or pairs [x, y] of factors for width and height.
    aspect_ratios: tuple[float | tuple[float, float], ...] = key((1.0, 2.0, 0.5), "(0, inf)", kind="ratios")
    anchor_scale: float | tuple[float, ...] = key(4.0, "(0, inf)", kind="scale")  # in strides; one, or one per level
    # Fits anchor_scale, and aspect_ratios if needed, to the training boxes at the start, see tf2/training/recipe.py.
    fit_anchors: bool = key(False)
    match_threshold: float = key(0.5, "(0, 1]")  # IoU from which an anchor is matched; the best of each box always is

    # Losses.
    alpha: float = key(0.25, "[0, 1]")  # focal loss: weight of positives; negatives have 1 - alpha
    gamma: float = key(1.5, "[0, inf)")  # focal loss: factor (1 - p)**gamma
    label_smoothing: float = key(0.0, "[0, 1)")  # targets of the cross entropy are 1 - s / 2 and s / 2
    delta: float = key(0.1, "(0, inf)")  # Huber loss: error of a box code from which it is linear
    box_loss_weight: float = key(50.0, "[0, inf)")
    iou_loss_type: str | None = key(None, choices=("iou", "giou", "diou", "ciou"))  # added to the box loss; None: off
    iou_loss_weight: float = key(1.0, "[0, inf)")
    # Kernels only. sgd and adam: L2 loss, weight_decay / 2 * sum(kernel**2). adamw: not in the loss: a step multiplies
    # kernels by 1 - rate * weight_decay, with the scheduled rate, so that 0.01 to 0.1 is usual, and 4e-5 is nothing.
    weight_decay: float = key(4e-5, "[0, inf)")
    positives_momentum: float | None = key(None, "(-inf, 1)")  # averages num_positives over steps; < 0: over replicas

    # Optimizer. Learning rates apply to 64 images per step and are scaled with the batch size.
    optimizer: str = key("sgd", choices=("sgd", "adam", "adamw"))
    momentum: float = key(0.9, "[0, 1)")  # of sgd; beta_1 of adam and adamw
    learning_rate: float = key(0.08, "[0, inf)")  # adam: 0.008 to fine-tune, 0.08 and more for the small examples
    # Decay after the warm-up; constant has no warm-up.
    lr_decay_method: str = key("cosine", choices=("cosine", "stepwise", "polynomial", "constant"))
    lr_warmup_init: float = key(0.008, "[0, inf)")  # learning rate of the first step
    lr_warmup_epoch: float = key(1.0, "[0, inf)")  # epochs of linear warm-up
    first_lr_drop_epoch: float = key(200.0, "[0, inf)")  # stepwise: learning_rate * 0.1 from here
    second_lr_drop_epoch: float = key(250.0, "[0, inf)")  # stepwise: learning_rate * 0.01 from here
    poly_lr_power: float = key(0.9, "(0, inf)")  # polynomial
    clip_gradients_norm: float | None = key(10.0, "[0, inf)")  # per gradient, then globally; None or 0: no clipping
    # Moving average of the weights, which is evaluated and exported; 0: off. Its decay rises to this value, so that the
    # mean age of the averaged weights is at most 1 / (1 - moving_average_decay) steps,
    moving_average_decay: float = key(0.9998, "[0, 1)")
    moving_average_horizon: float = key(0.1, "(0, 1)")  # and at most this fraction of the steps so far
    var_freeze_expr: str | None = key(None)  # variables whose name matches this regex (re.match) are not trained

    # Training run.
    num_epochs: int = key(300, "[1, inf)")
    gradient_accumulation_steps: int = key(1, "[1, inf)")  # parts into which a batch is split for the network
    map_freq: int = key(1, "[1, inf)")  # train_and_eval: epochs between evaluations
    early_stop_patience: int | None = key(None, "[1, inf)")  # ends after this many evaluations without a better AP
    max_skipped_steps: int = key(5, "[1, inf)")  # consecutive steps with a non-finite loss that end the training
    ckpt_var_scope: str | None = key(None)  # scope of the backbone inside --backbone_ckpt; None: backbone_name
    skip_mismatch: bool = key(True)  # initial weights: log mismatched variables and continue; False: stop
    # gpus: all of one machine; multi-gpus: of several machines; None: one device.
    strategy: str | None = key(None, choices=("gpus", "multi-gpus", "tpu"))
    mixed_precision: bool = key(False)  # bfloat16 on TPU, float16 on GPU
    loss_scale: float | None = key(None, "(0, inf)")  # initial dynamic loss scale under float16
    sample_image: str | None = key(None)  # path of an image whose detections are drawn during training

    nms_configs: NmsConfig = dataclasses.field(
        default_factory=NmsConfig, metadata={"kind": Kind("a mapping such as {method: hard}", _read_nms)}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9_.-]*", self.name):
            raise ConfigError(f"name must be letters, digits, dots, dashes and underscores, got {self.name!r}")
        if self.num_classes > MAX_NUM_CLASSES:
            raise ConfigError(f"num_classes {self.num_classes} is too large; {num_classes_advice(self.num_classes)}")
        lowest, highest = self.min_level, self.max_level
        if lowest >= highest:
            raise ConfigError(f"min_level {lowest} must be below max_level {highest}")
        if self.jitter_min > self.jitter_max:
            raise ConfigError(f"jitter_min {self.jitter_min} must not be above jitter_max {self.jitter_max}")
        first, second = self.first_lr_drop_epoch, self.second_lr_drop_epoch
        if self.lr_decay_method == "stepwise" and first > second:
            raise ConfigError(f"first_lr_drop_epoch {first} must not be above second_lr_drop_epoch {second}")
        scales, needed = self.anchor_scale, highest - lowest + 1
        if isinstance(scales, tuple) and len(scales) != needed:
            raise ConfigError(f"anchor_scale has {len(scales)} values, but levels {lowest}..{highest} need {needed}")
        self._check_fpn_config()

    def _check_fpn_config(self) -> None:
        if self.fpn_config is None:
            return
        if self.fpn_name is not None:
            raise ConfigError(f"fpn_config replaces fpn_name; remove one of them (fpn_name is {self.fpn_name!r})")
        levels = range(self.min_level, self.max_level + 1)
        for i, node in enumerate(self.fpn_config["nodes"]):
            if node["feat_level"] not in levels or max(node["inputs_offsets"]) >= len(levels) + i:
                raise ConfigError(
                    f"fpn_config node {i} must have a feat_level in {levels[0]}..{levels[-1]} and"
                    f" inputs_offsets in 0..{len(levels) + i - 1}, got {node}"
                )
        if missing := set(levels) - {node["feat_level"] for node in self.fpn_config["nodes"]}:
            raise ConfigError(f"fpn_config needs a node for each level {levels[0]}..{levels[-1]}, none has {missing}")

    def select(self, *names: str) -> dict[str, Any]:
        """Returns the given keys with their values, as keyword arguments of a function."""
        return {name: getattr(self, name) for name in names}

    @property
    def colors(self) -> dict[str, tuple[float, float, float] | bool]:
        """The keyword arguments mean_rgb, stddev_rgb and scale_range of `preprocess.to_input`."""
        return self.select("mean_rgb", "stddev_rgb", "scale_range")

    def to_yaml(self, *, default_nms: bool = True) -> str:
        """Returns all keys as YAML in plain types, which `override` reads back to an equal Config.

        Args:
            default_nms: False omits the keys of nms_configs that have their default, so that a command can apply
                defaults of its own when it reads the file.
        """
        values = _plain(dataclasses.asdict(self))
        if not default_nms:
            values["nms_configs"] = self.difference(Config()).get("nms_configs", {})
        # Non-ASCII is escaped, because PyYAML reads some characters that it writes differently (U+0085).
        return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120)


def num_classes_advice(largest_id: int) -> str:
    """Returns what to do about class ids up to `largest_id`: num_classes to set, or other ids above MAX_NUM_CLASSES."""
    if largest_id <= MAX_NUM_CLASSES:
        return f"set num_classes to {largest_id} or more"
    return (
        f"class ids, and num_classes, must be at most {MAX_NUM_CLASSES}: number the classes from 1, as "
        "dataset/create_coco_tfrecord.py --consecutive_ids does"
    )


ALIASES = {"autoaugmentation_policy": "autoaugment_policy"}
# Keys of the published program that have no field here: the values that are accepted and ignored, and advice.
RETIRED = {
    "drop_remainder": ((True,), "batches continue across epochs, and evaluation uses every image; remove the key"),
    "use_keras_model": ((True,), "there is one model, built with Keras; remove the key"),
    "dataset_type": ((None, "tfrecord"), "records are always read from TFRecord files; remove the key"),
    "data_format": (("channels_last",), "every tensor is channels last; remove the key"),
    "heads": ((["object_detection"], "object_detection"), "object detection is the only head; remove the key"),
    "seg_num_classes": ((3,), "there is no segmentation head; remove the key"),
    "backbone_config": ((None,), "choose one of the backbones with backbone_name"),
    "verbose": ((1,), "the amount of logging is set by the flag --verbosity"),
    "save_freq": (("epoch",), "the interval between checkpoints is set by the flag --save_checkpoints_steps"),
    "tflite_max_detections": ((100,), "set nms_configs.max_output_size, which applies to TFLite as well"),
    "img_summary_steps": ((None,), "draw detections with model_inspect.py --runmode=infer"),
    "nms_configs.pyfunc": ((False, None), "NMS always runs in TensorFlow; choose it with nms_configs.method"),
}


def _model(backbone: str, size: int, filters: int, cells: int, repeats: int, **more: Any) -> dict[str, Any]:
    table = {"backbone_name": f"efficientnet-{backbone}", "image_size": (size, size), "fpn_num_filters": filters}
    return {**table, "fpn_cell_repeats": cells, "box_class_repeats": repeats, **more}


_SUM = {"fpn_weight_method": "sum"}
_LITE = {**_SUM, "act_type": "relu6", "mean_rgb": (127.0,) * 3, "stddev_rgb": (128.0,) * 3}
MODELS: dict[str, dict[str, Any]] = {
    # backbone, image size, FPN filters, FPN cells, head repeats
    "efficientdet-d0": _model("b0", 512, 64, 3, 3),
    "efficientdet-d1": _model("b1", 640, 88, 4, 3),
    "efficientdet-d2": _model("b2", 768, 112, 5, 3),
    "efficientdet-d3": _model("b3", 896, 160, 6, 4),
    "efficientdet-d4": _model("b4", 1024, 224, 7, 4),
    "efficientdet-d5": _model("b5", 1280, 288, 7, 4),
    "efficientdet-d6": _model("b6", 1280, 384, 8, 5, **_SUM),
    "efficientdet-d7": _model("b6", 1536, 384, 8, 5, **_SUM, anchor_scale=5.0),
    "efficientdet-d7x": _model("b7", 1536, 384, 8, 5, **_SUM, anchor_scale=4.0, max_level=8),
    "efficientdet-lite0": _model("lite0", 320, 64, 3, 3, **_LITE, anchor_scale=3.0),
    "efficientdet-lite1": _model("lite1", 384, 88, 4, 3, **_LITE, anchor_scale=3.0),
    "efficientdet-lite2": _model("lite2", 448, 112, 5, 3, **_LITE, anchor_scale=3.0),
    "efficientdet-lite3": _model("lite3", 512, 160, 6, 4, **_LITE),
    "efficientdet-lite3x": _model("lite3", 640, 200, 6, 4, **_LITE, anchor_scale=3.0),
    "efficientdet-lite4": _model("lite4", 640, 224, 7, 4, **_LITE),
}
DEFAULT_MODEL = "efficientdet-d0"  # of every command

# Values of keys that hparams and flags override. At the start of a training, finetune also sets the keys that depend on
# the data, see tf2/training/recipe.py. config.yaml records all values, with which trainings resume.
RECIPES: dict[str, dict[str, Any]] = {
    "published": {},
    "finetune": {
        "optimizer": "adam",  # a short training with sgd ends before it has learned small objects
        "learning_rate": 0.064,  # AP on BCCD's val 0.60; 0.57 with 0.016, 0.59 with 0.032, 0.60 with 0.128
        "lr_warmup_init": 0.0064,  # a tenth of the rate, as published
        "jitter_min": 0.5,  # 0.1 to 2.0 as published hides most objects of small images,
        "jitter_max": 1.5,  # and takes hundreds of epochs to pay off
        "iou_loss_type": "ciou",  # the Huber loss alone leaves boxes inexact in short trainings: AP75
        "iou_loss_weight": 4.0,  # about as large as the box loss
        # With 0.99, statistics lag 100 steps behind the weights: AP 0.01 instead of 0.27 after 160 steps on BCCD.
        "batch_norm_momentum": 0.9,
        "moving_average_horizon": 0.05,  # with 0.1, AP of the averages half-way is 0.03 below that of the weights
        "fit_anchors": True,  # objects of own data rarely have the sizes of COCO's
    },
}


def load(model: str | Config, hparams: str = "", *, default_recipe: str | None = None, **flags: Any) -> Config:
    """Returns the Config of a model: defaults < model < recipe < hparams < flags.

    Args:
        model: a key of MODELS, or a Config in place of defaults, model and recipe, of which it has applied its own.
        hparams: "", the path of a .yaml file, or `k=v` pairs.
        default_recipe: recipe if neither hparams nor flags have one; None for that of the model, published.
        **flags: any key of Config; None means not set.

    Raises:
        ConfigError: for an unknown model or key, an invalid value, or a file that cannot be read.

    Example:
        >>> load("efficientdet-d0", "num_classes=3", image_size="1920x1280").image_size
        (1280, 1920)
    """
    base = model if isinstance(model, Config) else _of_model(model)
    given = [read_hparams(hparams), {name: value for name, value in flags.items() if value is not None}]
    recipes = [{"recipe": values["recipe"]} for values in given if "recipe" in values]
    recipe = base.override({"recipe": default_recipe or base.recipe}, *recipes).recipe
    table = RECIPES[recipe] if recipe != base.recipe else {}
    return base.override({"recipe": recipe}, table, *given)


def _of_model(name: str) -> Config:
    if name not in MODELS:
        names = {name.removeprefix("efficientdet-"): name for name in MODELS} | {name: name for name in MODELS}
        raise ConfigError(f"unknown model {name!r}{nearest(name, names)} (known: {', '.join(MODELS)})")
    return Config().override({"name": name}, MODELS[name])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
