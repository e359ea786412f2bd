# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Every hyper-parameter, the table of models, and the ways to override them; `Config` below is the manual.

Order: defaults < model < hparams < flags. `--hparams` is a .yaml file or `k=v` pairs (see `parse_pairs`).
"""

import ast
import dataclasses
import difflib
import json
import math
import numbers
import os
import re
import reprlib
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

import yaml

VERSION = "0.4"  # of this program


class ConfigError(ValueError):
    """A key or a value that cannot be used, told in one sentence."""


FUSIONS = ("fastattn", "attn", "channel_fastattn", "channel_attn", "sum")
BACKBONES = (*(f"efficientnet-b{i}" for i in range(8)), *(f"efficientnet-lite{i}" for i in range(5)))
ACTIVATIONS = ("swish", "silu", "swish_native", "hswish", "relu", "relu6", "mish")


def _key(default: Any, within: str = "", *, choices: tuple[str, ...] = (), kind: str = "") -> Any:
    """A field of a section.

    Args:
        default: its value if nobody sets it.
        within: the interval that holds each of its numbers, as in "[0, 1)"; "" is any.
        choices: the values it may have; none is any.
        kind: row of KINDS; "" is the row named like its type.
    """
    return dataclasses.field(default=default, metadata={"within": within, "choices": choices, "kind": kind})


Section = TypeVar("Section", bound="_Section")


class _Section:
    """What Config and the mappings inside it share: checked when made, changed only by copies."""

    _prefix: ClassVar[str] = ""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, convert(field, getattr(self, field.name), self._prefix))

    def override(self: Section, *layers: Mapping[str, Any]) -> Section:
        """Returns a changed copy; later layers win, `nms_configs` merges, any other mapping replaces.

        Raises:
            ConfigError: for a key that does not exist or is retired, or a value that does not fit.
        """
        known = {field.name for field in dataclasses.fields(self)}
        changed = {}
        for values in layers:
            for key, value in values.items():
                key = ALIASES.get(key, key)
                if key not in known:
                    self._refuse(key, value)
                    continue
                current = changed.get(key, getattr(self, key))
                merges = isinstance(current, _Section) and isinstance(value, Mapping)
                changed[key] = current.override(value) if merges else value
        return dataclasses.replace(self, **changed)

    def _refuse(self, key: Any, value: Any) -> None:
        """Raises for a key that is no field, unless it is a retired one at a value that asks for nothing."""
        path = f"{self._prefix}{key}"
        if path not in RETIRED:
            keys = {f.name: f"nms_configs.{f.name}" for f in dataclasses.fields(NmsConfig)}
            keys |= {f.name: f"{self._prefix}{f.name}" for f in dataclasses.fields(self)}
            raise ConfigError(f"unknown config key {path!r}{nearest(key, keys)}")
        harmless, instead = RETIRED[path]
        if value not in harmless:
            raise ConfigError(f"{path}={reprlib.repr(value)} is not supported any more: {instead}")

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
    """Non-maximum suppression; keys are typed as nms_configs.method and so on."""

    _prefix: ClassVar[str] = "nms_configs."

    method: str = _key("gaussian", choices=("hard", "gaussian"), kind="nms_method")  # gaussian: soft NMS; None: hard
    iou_thresh: float | None = _key(None, "[0, 1]")  # hard only: drops boxes that overlap more; None or 0 is 0.5
    score_thresh: float | None = _key(0.0, "[0, 1]")  # drops lower scores; None or 0: hard keeps all, gaussian 0.001
    sigma: float | None = _key(None, "[0, inf)")  # gaussian only: score * exp(-iou^2 / sigma); None or 0 is 0.5
    max_nms_inputs: int = _key(0, "[0, inf)")  # (anchor, class) pairs that enter; 0: each anchor with its best class
    max_output_size: int = _key(100, "[1, inf)")  # detections an image, in every form of export too


@dataclasses.dataclass(frozen=True)
class Config(_Section):
    """All keys: type, default, range or choices, unit. Frozen; `override` makes changed copies.

    Raises:
        ConfigError: for a value that does not fit its key, or keys that do not fit each other.
    """

    name: str = _key("efficientdet-d1")  # names the model in logs and exported files

    # Images. Sizes are kept as (height, width) in pixels and typed as 512, "1920x1280" (WxH) or [height, width].
    image_size: tuple[int, int] = _key((640, 640), "[1, inf)", kind="size")  # network input; need not be square
    # The network sees (pixel - mean_rgb) / stddev_rgb, pixels in 0..255; a single number stands for all three channels.
    mean_rgb: tuple[float, float, float] = _key((0.485 * 255, 0.456 * 255, 0.406 * 255), kind="rgb")
    stddev_rgb: tuple[float, float, float] = _key((0.229 * 255, 0.224 * 255, 0.225 * 255), "(0, inf)", kind="rgb")
    scale_range: bool = _key(False)  # then x * 2 / 255 - 1: AdvProp checkpoints, with mean_rgb=0,stddev_rgb=1

    # Data.
    num_classes: int = _key(90, "[1, inf)")  # class logits; class ids are 1..num_classes
    label_map: str | Mapping[int, str] | None = _key(None, kind="label_map")  # coco, voc, waymo, file.yaml, {id: name}
    max_instances_per_image: int = _key(100, "[1, inf)")  # groundtruth boxes are padded to it
    skip_crowd_during_training: bool = _key(True)  # crowd boxes then train as background
    regenerate_source_id: bool = _key(False)  # image ids from a hash of the image instead of the record
    max_damaged_records: int = _key(10, "[0, inf)")  # so many are left out, each named in the log; one more is an error

    # Augmentation, in training only.
    input_rand_hflip: bool = _key(True)  # mirrors half of the images left to right
    jitter_min: float = _key(0.1, "(0, inf)")  # images are scaled by a factor between these two, then cropped;
    jitter_max: float = _key(2.0, "(0, inf)")  # equal values fix the factor, 1.0 is none
    # What the factor refers to; None: image_size.
    target_size: tuple[int, int] | None = _key(None, "[1, inf)", kind="size")
    autoaugment_policy: str | None = _key(None, choices=("v0", "v1", "v2", "v3", "test", "randaug"))
    grid_mask: bool = _key(False)  # blanks a random grid
    mosaic: bool = _key(False)  # puts four images together to one

    # Network.
    backbone_name: str = _key("efficientnet-b1", choices=BACKBONES)  # efficientnet-b0..b7, efficientnet-lite0..lite4
    act_type: str = _key("swish", choices=ACTIVATIONS)  # in backbone, FPN and heads
    min_level: int = _key(3, "[1, 5]")  # pyramid levels min_level..max_level; level l has stride 2**l
    max_level: int = _key(7, "[1, inf)")
    fpn_name: str | None = _key(None, choices=("bifpn", "bifpn_dyn", "qufpn"))  # None and bifpn_dyn are bifpn
    fpn_weight_method: str | None = _key(None, choices=FUSIONS)  # how a node fuses its inputs; None is fastattn
    # Own nodes in place of fpn_name: {nodes: [{feat_level: 6, inputs_offsets: [3, 4]}, ...], weight_method: sum}.
    # Offsets number the inputs, finest level first, then the nodes; without weight_method fpn_weight_method holds.
    fpn_config: Mapping[str, Any] | None = _key(None, kind="fpn_config")
    fpn_cell_repeats: int = _key(3, "[1, inf)")
    fpn_num_filters: int = _key(88, "[1, inf)")  # channels of FPN and heads
    box_class_repeats: int = _key(3, "[0, inf)")  # convolutions in each head before the last one
    separable_conv: bool = _key(True)  # False: plain convolutions in FPN and heads
    apply_bn_for_resampling: bool = _key(True)  # batch norm after the 1x1 convolutions between levels
    conv_after_downsample: bool = _key(False)  # 1x1 convolution after max pooling instead of before
    conv_bn_act_pattern: bool = _key(False)  # FPN nodes: conv-bn-act instead of act-conv-bn
    survival_prob: float | None = _key(None, "(0, 1]")  # drop connect in the heads; None: never dropped
    is_training_bn: bool = _key(True)  # False: batch norm keeps its statistics in training
    grad_checkpoint: bool = _key(False)  # recomputes activations in the backward pass to save memory

    # Anchors.
    num_scales: int = _key(3, "[1, inf)")  # octave scales 2**(i / num_scales) a location
    # Width / height, or pairs [x, y] that multiply width and height.
    aspect_ratios: tuple[float | tuple[float, float], ...] = _key((1.0, 2.0, 0.5), "(0, inf)", kind="ratios")
    anchor_scale: float | tuple[float, ...] = _key(4.0, "(0, inf)", kind="scale")  # times stride; a list: one a level

    # Losses.
    alpha: float = _key(0.25, "[0, 1]")  # focal: weight of the positives
    gamma: float = _key(1.5, "[0, inf)")  # focal: (1 - p)**gamma
    label_smoothing: float = _key(0.0, "[0, 1)")
    delta: float = _key(0.1, "(0, inf)")  # Huber: where it turns linear, in units of the anchor size
    box_loss_weight: float = _key(50.0, "[0, inf)")
    iou_loss_type: str | None = _key(None, choices=("iou", "giou", "diou", "ciou"))  # added to the box loss; None: not
    iou_loss_weight: float = _key(1.0, "[0, inf)")
    weight_decay: float = _key(4e-5, "[0, inf)")  # L2, weight_decay / 2 * sum(kernel**2), kernels only
    positives_momentum: float | None = _key(None, "(-inf, 1)")  # averages num_positives over steps; < 0: replicas

    # Optimizer. Rates are for 64 images a step and scale with the batch size.
    optimizer: str = _key("sgd", choices=("sgd", "adam"))
    momentum: float = _key(0.9, "[0, 1)")  # of sgd; beta_1 of adam
    learning_rate: float = _key(0.08, "[0, inf)")  # adam: 0.008 to fine-tune, 0.08 and more for the small examples
    # After the warm-up; constant has no warm-up either.
    lr_decay_method: str = _key("cosine", choices=("cosine", "stepwise", "polynomial", "constant"))
    lr_warmup_init: float = _key(0.008, "[0, inf)")  # rate of the first step
    lr_warmup_epoch: float = _key(1.0, "[0, inf)")  # epochs of linear warm-up
    first_lr_drop_epoch: float = _key(200.0, "[0, inf)")  # stepwise: rate * 0.1 from here
    second_lr_drop_epoch: float = _key(250.0, "[0, inf)")  # stepwise: rate * 0.01 from here
    poly_lr_power: float = _key(0.9, "(0, inf)")  # polynomial
    clip_gradients_norm: float | None = _key(10.0, "[0, inf)")  # each gradient, then all together; None or 0: no limit
    moving_average_decay: float = _key(0.9998, "[0, 1)")  # of the weights that are evaluated and exported; 0: none
    var_freeze_expr: str | None = _key(None)  # regex, matched from the start of variable names: these are not trained

    # Training run.
    num_epochs: int = _key(300, "[1, inf)")
    gradient_accumulation_steps: int = _key(1, "[1, inf)")  # parts that a batch goes through the network in
    map_freq: int = _key(1, "[1, inf)")  # train_and_eval: epochs from one evaluation to the next
    early_stop_patience: int | None = _key(None, "[1, inf)")  # evaluations without a better AP that end it; None: never
    max_skipped_steps: int = _key(5, "[1, inf)")  # so many in a row, whose loss is not finite, end the training
    ckpt_var_scope: str | None = _key(None)  # scope of the backbone inside --backbone_ckpt; None: backbone_name
    skip_mismatch: bool = _key(True)  # training start: list what does not fit and go on; False: stop
    # gpus of one machine; multi-gpus, of several machines; None: one device.
    strategy: str | None = _key(None, choices=("gpus", "multi-gpus", "tpu"))
    mixed_precision: bool = _key(False)  # bfloat16 on TPU, float16 on GPU
    loss_scale: float | None = _key(None, "(0, inf)")  # initial dynamic loss scale under float16
    sample_image: str | None = _key(None)  # image whose detections are drawn during training

    nms_configs: NmsConfig = dataclasses.field(default_factory=NmsConfig)

    def __post_init__(self):
        super().__post_init__()
        if not re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9_.-]*", self.name):
            raise ConfigError(f"name must be letters, digits, dots, dashes and underscores, got {self.name!r}")
        if self.min_level >= self.max_level:
            raise ConfigError(f"min_level {self.min_level} must be below max_level {self.max_level}")
        if self.jitter_min > self.jitter_max:
            raise ConfigError(f"jitter_min {self.jitter_min} must not be above jitter_max {self.jitter_max}")
        if self.lr_decay_method == "stepwise" and self.first_lr_drop_epoch > self.second_lr_drop_epoch:
            raise ConfigError(
                f"first_lr_drop_epoch {self.first_lr_drop_epoch} must not be above"
                f" second_lr_drop_epoch {self.second_lr_drop_epoch}"
            )
        levels = self.max_level - self.min_level + 1
        if isinstance(self.anchor_scale, tuple) and len(self.anchor_scale) != levels:
            raise ConfigError(
                f"anchor_scale has {len(self.anchor_scale)} values, but levels"
                f" {self.min_level}..{self.max_level} need {levels}"
            )
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
        missing = set(levels) - {node["feat_level"] for node in self.fpn_config["nodes"]}
        if missing:
            raise ConfigError(f"fpn_config needs a node for each level {levels[0]}..{levels[-1]}, none has {missing}")

    @property
    def colors(self) -> dict[str, Any]:
        """mean_rgb, stddev_rgb and scale_range, which `preprocess` takes together."""
        return {"mean_rgb": self.mean_rgb, "stddev_rgb": self.stddev_rgb, "scale_range": self.scale_range}

    def to_yaml(self, *, default_nms: bool = True) -> str:
        """Returns every key as YAML in plain types, which `override` reads back to an equal Config.

        Args:
            default_nms: False leaves out keys of nms_configs that have their default, as they would take the place of
                other defaults that a command has.
        """
        values = _plain(dataclasses.asdict(self))
        if not default_nms:
            values["nms_configs"] = self.difference(Config()).get("nms_configs", {})
        # Other alphabets are escaped: PyYAML reads some of what it writes as plain Unicode back differently (U+0085).
        return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120)


ALIASES = {"autoaugmentation_policy": "autoaugment_policy"}
# Keys of the published program without a field here: values that ask for nothing, and what to do about others.
RETIRED = {
    "drop_remainder": (
        (True,),
        "training batches run on over the end of an epoch, evaluation takes every image; remove the key",
    ),
    "use_keras_model": ((True,), "there is one model, built with Keras; remove the key"),
    "dataset_type": ((None, "tfrecord"), "records are always read from TFRecord files; remove the key"),
    "data_format": (("channels_last",), "every tensor is channels last; remove the key"),
    "heads": (
        (["object_detection"], ("object_detection",), "object_detection"),
        "object detection is the only head; remove the key",
    ),
    "seg_num_classes": ((3,), "there is no segmentation head; remove the key"),
    "backbone_config": ((None,), "choose one of the backbones with backbone_name"),
    "verbose": ((1,), "the amount of logging is set by the flag --verbosity"),
    "save_freq": (("epoch",), "the time between checkpoints is set by the flag --save_checkpoints_steps"),
    "tflite_max_detections": ((100,), "set nms_configs.max_output_size, which holds for TFLite as well"),
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


def load(model_name: str, hparams: str = "", **flags: Any) -> Config:
    """The Config of a model: defaults < model < hparams < flags.

    Args:
        model_name: a key of MODELS.
        hparams: "", a .yaml file, or `k=v` pairs.
        **flags: any key of Config; None means not set.

    Raises:
        ConfigError: for an unknown model, key or value, or a file that cannot be read.
    """
    if model_name not in MODELS:
        names = {name.removeprefix("efficientdet-"): name for name in MODELS} | {name: name for name in MODELS}
        raise ConfigError(f"unknown model {model_name!r}{nearest(model_name, names)} (known: {', '.join(MODELS)})")
    given = {key: value for key, value in flags.items() if value is not None}
    return Config().override({"name": model_name}, MODELS[model_name], read_hparams(hparams), given)


def read_hparams(hparams: str) -> dict[str, Any]:
    """Overrides from the text of --hparams: nothing, a .yaml or .yml file, or `k=v` pairs.

    Raises:
        ConfigError: if it is none of these, or the file cannot be read.
    """
    hparams = hparams.strip()
    if not hparams:
        return {}
    # "label_map=my.yaml" is a pair, unless there is a file of that very name.
    if hparams.endswith((".yaml", ".yml")) and ("=" not in hparams or os.path.isfile(hparams)):
        return read_yaml(hparams)
    if "=" not in hparams:
        raise ConfigError(f"hparams must be a file ending in .yaml or key=value pairs, got {hparams!r}")
    return parse_pairs(hparams)


class _Loader(yaml.SafeLoader):
    """Plain types alone, and no key twice, of which the last would win without a word."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _mapping(pairs: list[tuple[str, Any]]) -> dict:
    """An object of a JSON file, with no key twice."""
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"{twice[0]!r} is given twice")
    return dict(pairs)


def read_yaml(path: str) -> dict:
    """The mapping in a YAML or JSON file of plain types.

    Raises:
        ConfigError: if the file is missing, malformed, gives a key twice, or holds something else.
    """
    is_json = path.endswith(".json")  # not quite YAML: tabs between its words, halves of a character
    try:
        with open(path, "rb") as file:
            content = file.read()
        values = json.loads(content, object_pairs_hook=_mapping) if is_json else yaml.load(content, _Loader)
    except RecursionError:
        raise ConfigError(f"{path}: its brackets are nested too deep") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or error
        where = f"{path}, line {mark.line + 1}" if mark else path
        if "python/" in str(problem):
            raise ConfigError(f"{where}: tags such as !!python/tuple are not read; write a list, [1.4, 0.7]") from None
        kind = "JSON" if is_json else "YAML"
        raise ConfigError(f"{where} is not valid {kind}: {' '.join(str(problem).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, got {reprlib.repr(values)}")
    return values


def parse_pairs(text: str) -> dict[str, Any]:
    """Reads `k=v,nms_configs.method=hard,label_map={1: 'a', 2: 'b'}` into nested dicts.

    A comma inside brackets or quotes belongs to the value, dots nest. Values: true, false, None, numbers, lists and
    mappings as in Python, the old lists `1.0*2.0*0.5`; what is in quotes, and all else, is text as it stands.

    Raises:
        ConfigError: for a piece without "=", a key given twice, or an open bracket or quote.
    """
    values = {}
    for piece in filter(None, map(str.strip, _split(text))):
        path, equals, value = piece.partition("=")
        *sections, key = (part.strip() for part in path.split("."))
        if not equals or not key or not all(sections):
            raise ConfigError(
                f"{piece!r} is not key=value; a list is typed in brackets, as in aspect_ratios=[1.0, 2.0]"
            )
        target = values
        for section in sections:
            target = target.setdefault(section, {}) if isinstance(target, dict) else None
        if not isinstance(target, dict) or key in target:
            raise ConfigError(f"{path.strip()} is given twice in {text!r}")
        target[key] = _parse_value(path.strip(), value.strip())
    return values


def _split(text: str) -> list[str]:
    """Splits at the commas outside brackets and quotes."""
    pieces, start, depth, quote = [], 0, 0, ""
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote and text[i - 1] != "\\" else quote
        elif char in "'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth == 0:
            pieces.append(text[start:i])
            start = i + 1
        if depth < 0:
            break
    if depth or quote:
        raise ConfigError(f"unbalanced {'quote' if quote else 'bracket'} in {text!r}; put the value in quotes")
    return [*pieces, text[start:]]


def _parse_value(key: str, value: str) -> Any:
    words = {"true": True, "false": False, "none": None, "null": None}
    if value.lower() in words:
        return words[value.lower()]
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    if value.lower().startswith("0x"):  # a size of no width, not a hexadecimal number
        return value
    for parts in ([value], value.split("*")):
        try:
            trees = [ast.parse(part.strip(), mode="eval") for part in parts]
            parsed = [ast.literal_eval(tree) for tree in trees]
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        for node in ast.walk(trees[0]):
            keys = [ast.dump(item) for item in node.keys] if isinstance(node, ast.Dict) else []
            if len(set(keys)) < len(keys):
                raise ConfigError(f"{key}={value} gives a key twice; leave one of them out")
        return parsed if len(parts) > 1 else parsed[0]
    if value.startswith(("[", "{")):
        raise ConfigError(f"{key}={value} cannot be read; inside brackets, text needs quotes, as in {{1: 'cat'}}")
    return value


def nearest(word: Any, known: Mapping[str, str]) -> str:
    """Returns "; did you mean ...?" with the value of the closest key, or nothing if none is close."""
    close = difflib.get_close_matches(str(word).lower(), known, n=1)
    return f"; did you mean {known[close[0]]!r}?" if close else ""


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


class Kind(NamedTuple):
    """What a value may be: how an error puts it, and its reader, which raises if it is something else."""

    expects: str
    read: Callable[[Any], Any]


def _read_int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError
    return int(value)


def _read_float(value: Any) -> float:
    # Text too: YAML 1.1 takes 1e-3, without a dot, for a string.
    if isinstance(value, bool) or not isinstance(value, numbers.Real | str) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _read_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _read_str(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _items(value: Any) -> tuple:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError
    return tuple(value)


def _read_size(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        width, height = re.fullmatch(r"(\d+)(?:[xX](\d+))?", value.strip()).groups()
        return int(height or width), int(width)
    height, width = (value, value) if isinstance(value, numbers.Integral) else _items(value)
    return _read_int(height), _read_int(width)


def _read_rgb(value: Any) -> tuple[float, float, float]:
    red, green, blue = _items(value) if isinstance(value, list | tuple) else (value,) * 3
    return _read_float(red), _read_float(green), _read_float(blue)


def _read_ratios(value: Any) -> tuple[float | tuple[float, float], ...]:
    ratios = tuple(_read_scale(ratio) for ratio in _items(value))
    if any(isinstance(ratio, tuple) and len(ratio) != 2 for ratio in ratios):
        raise ValueError
    return ratios


def _read_scale(value: Any) -> float | tuple[float, ...]:
    return tuple(map(_read_float, _items(value))) if isinstance(value, list | tuple) else _read_float(value)


def _read_label_map(value: Any) -> str | dict:
    if isinstance(value, str):
        return value
    for key, name in value.items():
        if {type(key), type(name)} != {int, str}:
            raise ConfigError(f"label_map pairs whole numbers with names in quotes, got {key!r}: {name!r}")
    return dict(value)


def _read_fpn_config(value: Any) -> dict[str, Any]:
    if value.keys() - {"nodes", "weight_method"} or value.get("weight_method") not in (None, *FUSIONS):
        raise ValueError
    nodes = []
    for node in _items(value["nodes"]):
        offsets = [_read_int(offset) for offset in _items(node["inputs_offsets"])]
        if node.keys() != {"feat_level", "inputs_offsets"} or min(offsets) < 0:
            raise ValueError
        nodes.append({"feat_level": _read_int(node["feat_level"]), "inputs_offsets": offsets})
    return {**value, "nodes": nodes}


def _read_nms(value: Any) -> NmsConfig:
    return value if isinstance(value, NmsConfig) else NmsConfig().override(value)


# What a key may hold: the rows are named like the type of a field, or by its `kind`.
KINDS = {
    "bool": Kind("true or false", _read_bool),
    "int": Kind("a whole number", _read_int),
    "float": Kind("a number", _read_float),
    "str": Kind("text", _read_str),
    "size": Kind('512, "1920x1280" (width x height) or [height, width]', _read_size),
    "rgb": Kind("a number or a list of three", _read_rgb),
    "ratios": Kind("a list of width/height ratios or [x, y] pairs", _read_ratios),
    "scale": Kind("a number or a list with one a level", _read_scale),
    "label_map": Kind(
        "coco, voc, waymo, a .yaml or .json file or a mapping such as {1: 'cat', 2: 'dog'}", _read_label_map
    ),
    "fpn_config": Kind("{nodes: [{feat_level: 6, inputs_offsets: [3, 4]}, ...], weight_method: sum}", _read_fpn_config),
    "nms_method": Kind("text", lambda value: "hard" if value in (None, "") else _read_str(value)),
    "NmsConfig": Kind("a mapping such as {method: hard}", _read_nms),
}


def _inside(interval: str, number: float) -> bool:
    low, high = map(float, interval[1:-1].split(","))
    return (low < number < high) or (number == low and interval[0] == "[") or (number == high and interval[-1] == "]")


def _flat(value: Any) -> list:
    return [number for item in value for number in _flat(item)] if isinstance(value, tuple) else [value]


def convert(field: dataclasses.Field, value: Any, prefix: str = "") -> Any:
    """Types and checks the value of one key; what it returns it also accepts.

    Args:
        field: the key, as made by `_key`.
        value: as typed, from YAML or from Python; for a key that may be None, "" is None too.
        prefix: path of the section the key stands in, for the message.

    Raises:
        ConfigError: naming the key, what it may be, and what came.
    """
    types = typing.get_args(field.type) or (field.type,)
    within, choices = field.metadata.get("within"), field.metadata.get("choices")
    kind = KINDS[field.metadata.get("kind") or types[0].__name__]
    if type(None) in types and value in (None, ""):
        return None
    try:
        result = kind.read(value)
        if (choices and result not in choices) or (within and not all(_inside(within, n) for n in _flat(result))):
            raise ValueError
    except ConfigError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        expects = f"one of {', '.join(choices)}" if choices else kind.expects
        within, none = f" in {within}" if within else "", " or None" if type(None) in types else ""
        raise ConfigError(f"{prefix}{field.name} must be {expects}{within}{none}, got {reprlib.repr(value)}") from None
    return result
