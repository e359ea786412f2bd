# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The config of a command that reads a stored detector or continues a training, so that only changes must be given.

Precedence: defaults < model < config.yaml < hparams < flags. All keys of a config.yaml in the folder of the detector or
training apply, also if --model_name is given again. Given keys that differ from it are logged, or refused if they
contradict the weights. Without the file, the model is that of --model_name, that of released weights by their name, or
the one with the structure of the weights.
"""

from collections.abc import Mapping
from typing import Any

from absl import logging

from dataset import file_access
from efficientdet import config as config_lib
from efficientdet.config import Config, ConfigError
from tf2.weights import published, saved_config

# Keys that a new training takes from the config.yaml of the detector that it starts from.
DETECTOR = ("name", "image_size", "keep_aspect_ratio", "label_map", *saved_config.STRUCTURE, *saved_config.SEMANTICS)
# Keys of the machine and the course of a training, which neither inference nor evaluation takes from config.yaml.
TRAINING_RUN = ("strategy", "mixed_precision", "loss_scale", "sample_image")
INFERENCE = {"nms_configs": config_lib.INFERENCE_NMS}  # defaults of inference, which config.yaml overrides
NAME_IT = "give --model_name and the --hparams of its training (in Python: tf2.load(MODEL, CKPT, hparams=...))"


def of_detector(
    path: str | None,
    model_name: str | None,
    *typed: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
) -> Config:
    """Returns the config of a stored detector, for inference, export or evaluation.

    Args:
        path: see `checkpoint.find`; None for random weights, or an exported file without metadata.
        model_name: value of --model_name; None for that of the detector, or DEFAULT_MODEL without a path.
        *typed: config keys given by the user; later mappings win.
        defaults: config keys that config.yaml overrides.

    Raises:
        ConfigError: if given keys contradict config.yaml, or the model is not known.
        CheckpointError: if the model is not known, and the weights cannot be read.
    """
    saved = _read(path, model_name, defaults) if path else None
    if saved is None:
        base = _of_weights(path) if path and not model_name else config_lib.load(model_name or config_lib.DEFAULT_MODEL)
        config = base.override(defaults or {}, *typed)
        if path and not config.keep_aspect_ratio:
            logging.warning("%s has no config.yaml; keep_aspect_ratio: False suits it only if it was trained so", path)
        return config
    unset = Config()
    saved = saved.override({key: getattr(unset, key) for key in TRAINING_RUN})
    config = saved.override(*typed)
    source = saved_config.file_of(path)
    lines = saved_config.changes(saved, config)
    keys = (*saved_config.STRUCTURE, *saved_config.SEMANTICS)
    if wrong := [line for key, line in lines.items() if key in keys and saved_config.differs(key, saved, config)]:
        raise ConfigError(f"the weights were trained with other settings, {source}: {', '.join(wrong)}; remove them")
    for key, line in lines.items():
        # Clients may dictate it, though AP is higher with the value of the training.
        log = logging.warning if key == "keep_aspect_ratio" else logging.info
        log("other than in %s: %s", source, line)
    return config


def of_training(
    model_dir: str,
    ckpt: str | None,
    model_name: str | None,
    *,
    hparams: str,
    default_recipe: str | None = None,
    **flags: Any,
) -> Config:
    """Returns the config of a training run, which `resume.find` compares with that of the previous run.

    Args:
        model_dir: folder of the training; it continues if the folder has a checkpoint.
        ckpt: the detector to start from otherwise, see `checkpoint.find`; None for another start.
        model_name: value of --model_name; None for that of the training to continue or, in a new one, of the
            detector to start from, with its network, input and classes; without either, `config.DEFAULT_MODEL`.
        hparams: "", the path of a .yaml file, or `k=v` pairs.
        default_recipe: recipe of a new training, see `config.load`.
        **flags: config keys; None means not set.

    Raises:
        ConfigError: if model_name contradicts config.yaml, or the model is not known.
        CheckpointError: if the model is not known, and the weights cannot be read.
    """
    if saved_config.has_checkpoint(model_dir):
        if saved := _read(model_dir, model_name):
            # The strategy belongs to the command, as --worker and --tpu do: this may be another machine.
            return config_lib.load(saved.override({"strategy": None}), hparams, **flags)
        if not model_name:
            raise ConfigError(f"{model_dir} has checkpoints, but no config.yaml to continue with; {NAME_IT}")
    elif ckpt and not model_name:
        return _start_from(ckpt, hparams, default_recipe=default_recipe, **flags)
    return config_lib.load(model_name or config_lib.DEFAULT_MODEL, hparams, default_recipe=default_recipe, **flags)


def _read(path: str, model_name: str | None, defaults: Mapping[str, Any] | None = None) -> Config | None:
    """Reads config.yaml beside a checkpoint; None if there is none, or if it cannot be read and the model is typed.

    Raises:
        ConfigError: if it cannot be read, or has another model.
    """
    try:
        saved = saved_config.read(saved_config.folder_of(path), defaults)
    except ConfigError as error:
        if not model_name:
            raise
        logging.warning("%s; using --model_name and --hparams alone", error)
        return None
    # A name that is not one of a model was set by the user.
    if saved and model_name and saved.name in config_lib.MODELS and saved.name != model_name:
        raise ConfigError(
            f"{saved_config.file_of(path)} is of {saved.name}, but the model given is {model_name}; leave it out, or "
            f"give another folder"
        )
    return saved


def _start_from(ckpt: str, hparams: str, **options: Any) -> Config:
    """Returns the config of a new training with the network, input and classes of the detector that it starts from.

    Args:
        ckpt: see `checkpoint.find`.
        hparams: see `config.load`, as **options.
    """
    if saved := _read(ckpt, None):
        base = Config().override(saved.select(*DETECTOR))
        config = config_lib.load(base, hparams, **options)
        if config.num_classes == saved.num_classes or config.label_map != base.label_map:
            return config
        # The classes are others than those of the detector.
        return config_lib.load(base.override({"label_map": None}), hparams, **options)
    return config_lib.load(_of_weights(ckpt), hparams, **options)


def _of_weights(path: str) -> Config:
    """Returns the config of weights without a config.yaml: by their name, or of the model that they look like.

    Raises:
        ConfigError: if there is no such file, or the weights are not those of exactly one model.
        CheckpointError: if the file cannot be read.
    """
    if name := saved_config.released_name(path):
        model_name, keys = published.model_of(name)
        return config_lib.load(model_name).override(keys)
    if not (file_access.exists(path) or file_access.exists(f"{path}.index")):
        close = config_lib.nearest(path, {name: name for name in published.ARCHIVES})
        raise ConfigError(
            f"{path!r} is neither the folder of a training, nor a checkpoint, nor a name of released weights{close}"
        )
    from tf2.weights import checkpoint, structure  # import TensorFlow

    values = checkpoint.read(path, ()).values
    models, about = structure.models_like(values), structure.looks_like(values)
    if len(models) != 1:
        raise ConfigError(f"{path} has no config.yaml that names its model; {NAME_IT}; it looks like {about}")
    logging.warning("%s has no config.yaml; it looks like %s; otherwise %s", path, about, NAME_IT)
    return config_lib.load(models[0], num_classes=structure.num_classes(values))
