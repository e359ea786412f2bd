# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The flags of main.py: definition, and checks of their combination."""

from absl import flags

from dataset import command_line
from efficientdet import config as config_lib

FLAGS = flags.FLAGS
# Flags that --data replaces, and flags that need it.
DATA_REPLACES = ("train_file_pattern", "val_file_pattern", "val_json_file", "num_examples_per_epoch", "testdev_dir")
DATA_OPTIONS = ("data_format", "data_cache", "data_split")
# Flags of the published program that have no effect here; accepted, so that published commands run.
IGNORED_FLAGS = {
    "iterations_per_loop": "progress is reported per step",
    "num_cores": "the number of cores is read from the device",
    "use_spatial_partition": "images are not partitioned over cores",
    "num_cores_per_replica": "images are not partitioned over cores",
    "input_partition_dims": "images are not partitioned over cores",
    "run_epoch_in_child_process": "one process trains and evaluates, and its memory does not grow",
    "eval_name": "metrics are printed, and those of a training run are written to model_dir/eval",
}
# Flags of the published program that are refused, so that nothing is skipped silently.
REFUSED_FLAGS = {
    "hub_module_url": "TensorFlow Hub modules are not supported; use released weights by name, --ckpt=efficientdet-d0",
}
ONE_OFF_EVAL_FLAGS = (
    "saved_model_dir",
    "as_served",
    "flip",
    "voc",
    "testdev_dir",
    "output_detections",
    "output_metrics",
    "report_dir",
)


def define_flags() -> None:
    """Defines all flags; not done at import time."""
    with command_line.group("General"):
        flags.DEFINE_enum(
            "mode", "train", ["train", "eval", "train_and_eval"], "Train, evaluate, or alternate between both."
        )
        flags.DEFINE_string(
            "model_name",
            None,
            f"One of {', '.join(config_lib.MODELS)}; default: that of the training in model_dir or of --ckpt, or else "
            f"{config_lib.DEFAULT_MODEL}.",
        )
        flags.DEFINE_string(
            "hparams",
            "",
            "Keys of efficientdet/config.py, over those of config.yaml in the folder of a training: a .yaml file, or "
            "'k=v,nms_configs.method=hard'.",
        )
        flags.DEFINE_string(
            "model_dir", None, "Folder for checkpoints, config.yaml and event files; training resumes from it."
        )
        flags.DEFINE_string(
            "ckpt",
            None,
            "Detector to start training from, or to evaluate instead of model_dir's: folder, prefix, .h5 file, or name "
            "of released weights.",
        )
        flags.DEFINE_integer(
            "tf_random_seed",
            None,
            "Seed of weights, data order and augmentation; on CPUs results are reproducible to the bit; default: drawn "
            "once per model_dir.",
        )
    define_data_flags()
    define_training_flags()
    define_evaluation_flags()
    define_device_flags()
    with command_line.group("Flags of the published program, without effect or refused"):
        for name, why in IGNORED_FLAGS.items():
            is_switch = name in ("use_spatial_partition", "run_epoch_in_child_process")  # typed without a value
            define = flags.DEFINE_bool if is_switch else flags.DEFINE_string
            define(name, None, f"Has no effect: {why}.")
        for name, why in REFUSED_FLAGS.items():
            flags.DEFINE_string(name, None, f"Refused: {why}.")


def define_data_flags() -> None:
    """Defines the flags of datasets that are converted here."""
    with command_line.group("Data, instead of file patterns, num_classes and label_map"):
        flags.DEFINE_string(
            "data",
            None,
            "Dataset as exported by tools: a folder or .zip of COCO, Pascal VOC or YOLO, or a folder of TFRecords.",
        )
        flags.DEFINE_enum(
            "data_format", None, ["coco", "voc", "yolo", "tfrecord"], "Format of --data; default: detected."
        )
        flags.DEFINE_string(
            "data_cache",
            None,
            "Folder for the records of --data, which are reused until its files change; runs may share it; default: "
            "MODEL_DIR/data.",
        )
        flags.DEFINE_enum(
            "data_split",
            None,
            ["train", "val", "test"],
            "Images of --data that are evaluated; default: val, or 10 % of the training images if there is none.",
        )


def define_training_flags() -> None:
    """Defines the flags of training data and training length."""
    with command_line.group("Training", ["train", "train_and_eval"]):
        flags.DEFINE_string("train_file_pattern", None, "Glob of the training records, in quotes.")
        flags.DEFINE_string(
            "backbone_ckpt", None, "Classifier to start the backbone from; values as for --ckpt, e.g. efficientnet-b0."
        )
        flags.DEFINE_integer(
            "train_batch_size",
            None,
            "Images per training step, over all devices; default: 64, or 8 with recipe=finetune.",
            lower_bound=1,
        )
        flags.DEFINE_integer(
            "num_examples_per_epoch",
            None,
            "Images per epoch; default: the number of training records. With another number, a resumed run does not "
            "continue at the exact image.",
            lower_bound=1,
        )
        flags.DEFINE_integer(
            "num_epochs",
            None,
            "Epochs to train; default: num_epochs of the config; with recipe=finetune, by the number of images.",
            lower_bound=1,
        )
        flags.DEFINE_integer(
            "save_checkpoints_steps",
            1000,
            "Steps between checkpoints. Each epoch also ends with one; with recipe=finetune, if 30 steps have passed.",
            lower_bound=1,
        )
        flags.DEFINE_bool("eval_after_train", False, "With --mode=train: evaluate once, after the last epoch.")
        flags.DEFINE_integer(
            "steps_per_execution", 1, "Training steps computed without returning to Python.", lower_bound=1
        )
        flags.DEFINE_bool("use_fake_data", False, "Repeat the first batch, to measure speed without reading.")
        flags.DEFINE_bool("profile", False, "Profile a few training steps for TensorBoard, starting at the tenth.")


def define_evaluation_flags() -> None:
    """Defines the flags of evaluation data, options and outputs."""
    with command_line.group("Evaluation", ["eval", "train_and_eval"]):
        flags.DEFINE_string("val_file_pattern", None, "Glob of the evaluation records, in quotes.")
        flags.DEFINE_string("val_json_file", None, "COCO groundtruth file; default: the groundtruth in the records.")
        flags.DEFINE_integer(
            "eval_batch_size",
            1,
            "Images per evaluation step and device, so that the metrics do not depend on the number of devices.",
            lower_bound=1,
        )
        flags.DEFINE_integer("eval_samples", 0, "Maximum number of images to evaluate; 0 for all.", lower_bound=0)
    with command_line.group("One-off evaluation", ["eval"]):
        flags.DEFINE_string(
            "saved_model_dir",
            None,
            "An exported file to evaluate instead of a checkpoint: a SavedModel, or a .pb, .tflite or .onnx file.",
        )
        flags.DEFINE_bool("as_served", False, "Evaluate a checkpoint with the post-processing of exported detectors.")
        flags.DEFINE_bool("flip", False, "Horizontal-flip test-time augmentation.")
        flags.DEFINE_bool("voc", False, "Also compute Pascal VOC metrics.")
        flags.DEFINE_string("testdev_dir", None, "Folder for detections on COCO test-dev, in the format of its server.")
        flags.DEFINE_string("output_detections", None, "File for all detections, in COCO results format.")
        flags.DEFINE_string(
            "output_metrics", None, "JSON file for all metrics, and for model, data and settings of the evaluation."
        )
        flags.DEFINE_string("report_dir", None, "Folder for an HTML report with plots and images.")
    with command_line.group("Evaluation parallel to training, enabled by either flag", ["eval"]):
        flags.DEFINE_integer("min_eval_interval", 180, "Minimum seconds between two evaluations.", lower_bound=0)
        flags.DEFINE_integer("eval_timeout", 3600, "Seconds to wait for a new checkpoint before ending.", lower_bound=0)


def define_device_flags() -> None:
    """Defines the flags of devices and of the way steps are computed."""
    with command_line.group("Devices"):
        flags.DEFINE_enum(
            "strategy",
            None,
            ["", "gpus", "multi-gpus", "tpu"],
            "gpus: all GPUs of this machine; multi-gpus: several machines; tpu; default: one device.",
        )
        flags.DEFINE_list("worker", [], "With multi-gpus: host:port of each machine; default: from TF_CONFIG or Slurm.")
        flags.DEFINE_integer(
            "worker_index", 0, "Index of this machine in --worker, from 0; the first one writes the files."
        )
        flags.DEFINE_string("tpu", None, "local on a TPU VM, or name or address of the TPU.")
        flags.DEFINE_string("tpu_zone", None, "Google Cloud zone of the TPU.")
        flags.DEFINE_string("gcp_project", None, "Google Cloud project of the TPU.")
        flags.DEFINE_bool(
            "use_xla",
            False,
            "Compile each training step with XLA, and network and post-processing of evaluations. Training needs one "
            "device, GPUs, or a TPU, which always compiles. The first step takes minutes.",
        )
        flags.DEFINE_bool("debug", False, "Run operations eagerly, which is slow but shows the lines of errors.")


def check_flags() -> None:
    """Raises ValueError for flags that are missing or contradict each other; logs flags without effect."""
    for name, why in REFUSED_FLAGS.items():
        if FLAGS[name].value:
            raise ValueError(f"--{name} is refused: {why}")
    if FLAGS.debug and FLAGS.use_xla:
        raise ValueError("--debug runs operations eagerly and --use_xla compiles them; omit one")
    if FLAGS.use_xla and FLAGS.saved_model_dir:
        raise ValueError("--use_xla compiles the network of a checkpoint, not an exported file; omit it")
    for name in ONE_OFF_EVAL_FLAGS:
        if FLAGS[name].value and (trains() or follows()):
            raise ValueError(
                f"--{name} needs a one-off --mode=eval; it cannot be combined with training, --min_eval_interval or "
                f"--eval_timeout"
            )
    command_line.report_unused("mode", "train_and_eval" if trains() and evaluates() else FLAGS.mode, IGNORED_FLAGS)
    check_data_flags()
    if trains() or not (FLAGS.ckpt or FLAGS.saved_model_dir):
        require("model_dir")
    if trains() and not FLAGS.data:
        require("train_file_pattern")
    if FLAGS.ckpt and FLAGS.backbone_ckpt:
        raise ValueError("--ckpt and --backbone_ckpt are mutually exclusive; pass the one to start from")
    if evaluates() and not FLAGS.data:
        require("val_file_pattern")
    if follows() and FLAGS.ckpt:
        raise ValueError("--min_eval_interval and --eval_timeout evaluate --model_dir; omit them or --ckpt")
    if FLAGS.saved_model_dir and FLAGS.ckpt:
        raise ValueError("--saved_model_dir and --ckpt are mutually exclusive; pass the one to evaluate")


def check_data_flags() -> None:
    """Raises ValueError for flags that contradict --data, or need it."""
    for name in DATA_REPLACES if FLAGS.data else DATA_OPTIONS:
        if FLAGS[name].present and FLAGS.data:
            raise ValueError(f"--data and --{name} are mutually exclusive; omit --{name}, which follows from the data")
        if FLAGS[name].present:
            raise ValueError(f"--{name} needs --data")
    if FLAGS.data_split and trains():
        raise ValueError("--data_split needs --mode=eval; a training is evaluated on the split val")


def require(name: str) -> None:
    """Raises ValueError if a flag that the mode needs is not set."""
    if not FLAGS[name].value:
        raise ValueError(f"Must specify --{name} for {FLAGS.mode}.")


def trains() -> bool:
    """Returns True if the mode trains."""
    return FLAGS.mode != "eval"


def evaluates() -> bool:
    """Returns True if the mode evaluates."""
    return FLAGS.mode != "train" or FLAGS.eval_after_train


def follows() -> bool:
    """Returns True if the mode evaluates the checkpoints of a parallel training run."""
    return not trains() and (FLAGS["min_eval_interval"].present or FLAGS["eval_timeout"].present)
