# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Trains and evaluates EfficientDet over TFRecords.

    python main.py --mode=train_and_eval --model_name=efficientdet-d0 --model_dir=runs/voc --ckpt=efficientdet-d0 \
        --train_file_pattern='voc/train-*' --val_file_pattern='voc/val-*' --hparams=configs/voc.yaml \
        --num_epochs=50 --train_batch_size=16
    python main.py --mode=eval --model_dir=runs/voc/archive --val_file_pattern='voc/val-*' --voc \
        --report_dir=/tmp/report
    python main.py --mode=eval --saved_model_dir=/tmp/d0.onnx --val_file_pattern='coco/val-*' \
        --val_json_file=annotations/instances_val2017.json --output_metrics=/tmp/d0.json

The keys of --hparams are documented in efficientdet/config.py. In a folder of an earlier training, config.yaml holds
their values: only what is to change must be given. What differs is logged, and refused if the weights cannot have it.
"""

import json
import shlex
import sys

from absl import flags, logging

from dataset import command_line, label_map
from dataset.check import class_ids
from efficientdet import config as config_lib
from tf2.weights import base_config

FLAGS = flags.FLAGS
DEFAULT_MODEL = "efficientdet-d1"  # of a new training, and of exported files without metadata
EVAL_OUT_OF_MEMORY = "lower --eval_batch_size, or nms_configs.max_nms_inputs or image_size in --hparams"
OUT_OF_MEMORY = (
    "lower --train_batch_size, set gradient_accumulation_steps to 2 or more, or grad_checkpoint=true in --hparams"
)

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
            f"{DEFAULT_MODEL}.",
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
            "Dataset as tools export it: a folder or .zip of COCO, Pascal VOC or YOLO, or a folder of TFRecords.",
        )
        flags.DEFINE_enum(
            "data_format", None, ["coco", "voc", "yolo", "tfrecord"], "Format of --data; default: found by looking."
        )
        flags.DEFINE_string(
            "data_cache",
            None,
            "Folder for the records of --data, which are used again while its files are unchanged; runs may share it; "
            "default: MODEL_DIR/data.",
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
            "Images per training step, over all devices; default: 64, and 8 with recipe=finetune.",
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
            "Epochs to train; default: the config's num_epochs; with recipe=finetune by the number of images.",
            lower_bound=1,
        )
        flags.DEFINE_integer(
            "save_checkpoints_steps",
            1000,
            "Steps between checkpoints; each epoch ends with one, too.",
            lower_bound=1,
        )
        flags.DEFINE_bool("eval_after_train", False, "With --mode=train: evaluate once, after the last epoch.")
        flags.DEFINE_integer(
            "steps_per_execution", 1, "Training steps taken without returning to Python.", lower_bound=1
        )
        flags.DEFINE_bool("use_fake_data", False, "Repeat the first batch, to measure speed without reading.")
        flags.DEFINE_bool(
            "profile", False, "Profile a few training steps, from the tenth of the run on, for TensorBoard."
        )


def define_evaluation_flags() -> None:
    """Defines the flags of evaluation data, options and outputs."""
    with command_line.group("Evaluation", ["eval", "train_and_eval"]):
        flags.DEFINE_string("val_file_pattern", None, "Glob of the evaluation records, in quotes.")
        flags.DEFINE_string("val_json_file", None, "COCO groundtruth file; default: the groundtruth in the records.")
        flags.DEFINE_integer("eval_batch_size", 1, "Images per evaluation step.", lower_bound=1)
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
        flags.DEFINE_string("output_metrics", None, "JSON file for all metrics and what was evaluated.")
        flags.DEFINE_string("report_dir", None, "Folder for an HTML report with plots and images.")
    with command_line.group("Evaluation parallel to training, enabled by either flag", ["eval"]):
        flags.DEFINE_integer("min_eval_interval", 180, "Minimum seconds between two evaluations.", lower_bound=0)
        flags.DEFINE_integer(
            "eval_timeout", 3600, "Seconds without a new checkpoint after which it ends.", lower_bound=0
        )


def define_device_flags() -> None:
    """Defines the flags of devices and of the way steps are computed."""
    with command_line.group("Devices"):
        flags.DEFINE_enum(
            "strategy",
            None,
            ["", "gpus", "multi-gpus", "tpu"],
            "gpus: all GPUs of this machine; multi-gpus: several machines; tpu; default: one device.",
        )
        flags.DEFINE_list("worker", [], "With multi-gpus: host:port of each machine; default: from TF_CONFIG.")
        flags.DEFINE_integer(
            "worker_index", 0, "Index of this machine in --worker, from 0; the first one writes the files."
        )
        flags.DEFINE_string("tpu", None, "local on a TPU VM, or name or address of the TPU.")
        flags.DEFINE_string("tpu_zone", None, "Google Cloud zone of the TPU.")
        flags.DEFINE_string("gcp_project", None, "Google Cloud project of the TPU.")
        flags.DEFINE_bool("use_xla", False, "Compile clusters of operations with XLA, on GPUs and TPUs.")
        flags.DEFINE_bool("debug", False, "Run operations eagerly, slowly, so that errors show their line.")


def main() -> None:
    """Runs --mode and prints the metrics as JSON."""
    config = load_config()
    from tf2.training import strategy as strategy_lib  # imports TensorFlow: only after the flags are checked
    from tf2.training import train

    advice = EVAL_OUT_OF_MEMORY if FLAGS.mode == "eval" else OUT_OF_MEMORY
    if FLAGS.mode != "eval" and evaluates():
        advice += f"; in an evaluation, {EVAL_OUT_OF_MEMORY}"
    mode = run_training if FLAGS.mode != "eval" else run_follow if follows() else run_evaluation
    try:
        with strategy_lib.device_errors(advice):
            strategy = create_strategy(config)
            results = mode(prepare_data(config, strategy) if FLAGS.data else config, strategy)
    except train.Stopped as stopped:
        logging.warning("%s", stopped)
        sys.exit(stopped.exit_code)
    if results:
        print(json.dumps(results))
    if results and FLAGS.mode != "eval":
        from tf2.evaluation import next_commands

        next_commands.log(FLAGS.model_dir, sys.argv)


def load_config() -> config_lib.Config:
    """Checks the flags and returns the config they define.

    Raises:
        ValueError: for flags that are missing or contradict each other.
    """
    for name, why in REFUSED_FLAGS.items():
        if FLAGS[name].value:
            raise ValueError(f"--{name} is refused: {why}")
    for name in ONE_OFF_EVAL_FLAGS:
        if FLAGS[name].value and (FLAGS.mode != "eval" or follows()):
            raise ValueError(
                f"--{name} needs a one-off --mode=eval; it cannot be combined with training, --min_eval_interval or "
                f"--eval_timeout"
            )
    evaluates_after = FLAGS.mode == "train" and evaluates()
    command_line.report_unused("mode", "train_and_eval" if evaluates_after else FLAGS.mode, IGNORED_FLAGS)
    check_data_flags()
    if FLAGS.mode != "eval" or not (FLAGS.ckpt or FLAGS.saved_model_dir):
        require("model_dir")
    if FLAGS.mode != "eval" and not FLAGS.data:
        require("train_file_pattern")
    if FLAGS.ckpt and FLAGS.backbone_ckpt:
        raise ValueError("--ckpt and --backbone_ckpt are mutually exclusive; pass the one to start from")
    if evaluates() and not FLAGS.data:
        require("val_file_pattern")
    if follows() and FLAGS.ckpt:
        raise ValueError("--min_eval_interval and --eval_timeout evaluate --model_dir; omit them or --ckpt")
    if FLAGS.saved_model_dir and FLAGS.ckpt:
        raise ValueError("--saved_model_dir and --ckpt are mutually exclusive; pass the one to evaluate")
    if FLAGS.mode != "eval":
        config = base_config.of_training(
            *(FLAGS.model_dir, FLAGS.ckpt, FLAGS.model_name),
            hparams=FLAGS.hparams,
            default_model=DEFAULT_MODEL,
            default_recipe="finetune" if FLAGS.data else None,
            num_epochs=FLAGS.num_epochs,
            strategy=FLAGS.strategy or None,
        )
    else:
        path, typed = FLAGS.ckpt or FLAGS.model_dir, config_lib.read_hparams(FLAGS.hparams)
        path = None if FLAGS.saved_model_dir else path
        config = base_config.of_detector(path, FLAGS.model_name, typed, default_model=DEFAULT_MODEL)
    if not (FLAGS.saved_model_dir or FLAGS.data):  # an exported file has its own number of classes
        label_map.check(label_map.resolve(config.label_map), config.num_classes)
    return config


def check_data_flags() -> None:
    """Raises ValueError for flags that contradict --data, or need it."""
    for name in DATA_REPLACES if FLAGS.data else DATA_OPTIONS:
        if FLAGS[name].present and FLAGS.data:
            raise ValueError(f"--data and --{name} are mutually exclusive; omit --{name}, which follows from the data")
        if FLAGS[name].present:
            raise ValueError(f"--{name} needs --data")
    if FLAGS.data_split and FLAGS.mode != "eval":
        raise ValueError("--data_split needs --mode=eval; a training is evaluated on the split val")


def prepare_data(config: config_lib.Config, strategy) -> config_lib.Config:
    """Prepares --data, sets the flags that it replaces, and returns the config with its classes."""
    from dataset.prepare import prepared
    from tf2.training import strategy as strategy_lib

    data = prepared.prepare(
        FLAGS.data,
        FLAGS.data_cache or prepared.default_cache(FLAGS.model_dir),
        data_format=FLAGS.data_format,
        needs_train=FLAGS.mode != "eval",
        may_convert=strategy_lib.num_workers(strategy) == 1,
    )
    if evaluates():
        evaluated = data.find_evaluated(FLAGS.data_split)
        FLAGS.val_file_pattern, FLAGS.val_json_file = evaluated.file_pattern, evaluated.groundtruth
    if FLAGS.mode != "eval":
        FLAGS.train_file_pattern = data.train_file_pattern
        prepared.note_use(data, FLAGS.model_dir)
    if FLAGS.mode == "eval" and config.label_map and not FLAGS.saved_model_dir:
        return config  # with the classes of the detector, with which those of the data are compared
    return data.configure(config, config_lib.read_hparams(FLAGS.hparams))


def evaluates() -> bool:
    """Returns True if the mode evaluates."""
    return FLAGS.mode != "train" or FLAGS.eval_after_train


def follows() -> bool:
    """Returns True if the mode evaluates the checkpoints of a parallel training run."""
    return FLAGS.mode == "eval" and (FLAGS["min_eval_interval"].present or FLAGS["eval_timeout"].present)


def run_training(config: config_lib.Config, strategy) -> dict[str, float]:
    """Runs --mode=train or train_and_eval; returns metrics if it evaluated."""
    from tf2.evaluation import evaluator, training_report
    from tf2.training import recipe, train
    from tf2.weights import class_names

    config, known = class_names.at_start(config, FLAGS.model_dir, FLAGS.ckpt)
    check_data(config, known)
    training = train.Training(
        model_dir=FLAGS.model_dir,
        train_file_pattern=FLAGS.train_file_pattern,
        batch_size=FLAGS.train_batch_size or recipe.BATCH_SIZES[config.recipe],
        num_examples_per_epoch=FLAGS.num_examples_per_epoch,
        ckpt=FLAGS.ckpt,
        backbone_ckpt=FLAGS.backbone_ckpt,
        save_checkpoints_steps=FLAGS.save_checkpoints_steps,
        steps_per_execution=FLAGS.steps_per_execution,
        seed=FLAGS.tf_random_seed,
        use_fake_data=FLAGS.use_fake_data,
        profile=FLAGS.profile,
        command=command_typed(),
    )
    config = recipe.fit(config, keys_typed(), training)
    evaluator_or_none = evaluator.Evaluator(config, evaluation_from_flags()) if evaluates() else None
    every = config.map_freq if FLAGS.mode == "train_and_eval" else 0
    metrics = train.run(config, training, evaluator_or_none, eval_every_epochs=every, strategy=strategy)
    if metrics:  # of the first machine, if there are several
        training_report.write(config, evaluator_or_none, FLAGS.model_dir, command_typed())
    return metrics


def run_follow(config: config_lib.Config, strategy) -> dict[str, float]:
    """Runs --mode=eval parallel to a training run; returns the last metrics."""
    from tf2.evaluation import evaluator, follow
    from tf2.weights import class_names

    config, known = class_names.of_detector(config, FLAGS.model_dir)
    names = check_data(config, known)
    return follow.evaluate_checkpoints(
        # No image is drawn here, and sample_image may be a file of the machine that trains.
        evaluator.Evaluator(config.override({"sample_image": None}), evaluation_from_flags()),
        FLAGS.model_dir,
        min_interval=FLAGS.min_eval_interval,
        timeout=FLAGS.eval_timeout,
        names=names,  # the training may write its own later
    )


def run_evaluation(config: config_lib.Config, strategy) -> dict[str, float]:
    """Runs --mode=eval for a checkpoint or an exported file; returns the metrics."""
    from tf2.evaluation import evaluate
    from tf2.inference import drivers, metadata
    from tf2.weights import class_names

    outputs = evaluate.EvaluationOutputs(
        FLAGS.testdev_dir, FLAGS.output_detections, FLAGS.output_metrics, FLAGS.report_dir, FLAGS.voc
    )
    outputs.check(FLAGS.val_json_file)
    driver, ckpt_path = None, FLAGS.ckpt or FLAGS.model_dir
    if FLAGS.saved_model_dir:
        driver = evaluate.open_artifact(FLAGS.saved_model_dir, config, config_lib.read_hparams(FLAGS.hparams))
        config, known = driver.config, metadata.stored_names(driver.runtime.metadata, FLAGS.saved_model_dir)
    else:
        config, known = class_names.of_detector(config, ckpt_path)
    check_data(config, known)
    driver = driver or drivers.KerasDriver(config, ckpt_path)
    evaluation = evaluation_from_flags()
    result = evaluate.run(driver, evaluation, as_served=FLAGS.as_served)
    return evaluate.publish(driver, evaluation, result, outputs, command_typed())


def evaluation_from_flags():
    """Returns the `Evaluation` that the flags describe."""
    from tf2.evaluation import evaluator

    return evaluator.Evaluation(
        FLAGS.val_file_pattern,
        None if FLAGS.testdev_dir else FLAGS.val_json_file,
        FLAGS.eval_batch_size,
        FLAGS.eval_samples or None,
        FLAGS.flip,
    )


def command_typed() -> str:
    """Returns the command line, for provenance."""
    return shlex.join(["python", *sys.argv])


def keys_typed() -> set[str]:
    """Returns the config keys that the flags set."""
    return {*config_lib.read_hparams(FLAGS.hparams), *(["num_epochs"] if FLAGS.num_epochs else [])}


def create_strategy(config: config_lib.Config):
    """Returns the strategy that the flags describe, after TensorFlow's global settings are made."""
    from tf2.training import strategy as strategy_lib

    strategy_lib.set_options(
        FLAGS.tf_random_seed, debug=FLAGS.debug, use_xla=FLAGS.use_xla, is_tpu=config.strategy == "tpu"
    )
    if FLAGS.mode == "eval":
        if FLAGS.strategy or config.strategy or FLAGS.worker or FLAGS.tpu:
            logging.info("evaluation runs on one device; --strategy, --worker and --tpu apply to training only")
        return strategy_lib.create()
    return strategy_lib.create(
        config.strategy,
        workers=FLAGS.worker,
        worker_index=FLAGS.worker_index,
        tpu=FLAGS.tpu,
        tpu_zone=FLAGS.tpu_zone,
        gcp_project=FLAGS.gcp_project,
    )


def check_data(config: config_lib.Config, known: class_ids.NamedIds) -> class_ids.NamedIds:
    """Checks some records that the mode reads, see `run_checks.check_files`."""
    from dataset.check import run_checks

    return run_checks.check_files(
        config,
        known,
        FLAGS.train_file_pattern if FLAGS.mode != "eval" else None,
        FLAGS.val_file_pattern if evaluates() else None,
        val_json_file=FLAGS.val_json_file,
        is_test_set=bool(FLAGS.testdev_dir),
    )


def require(name: str) -> None:
    """Raises ValueError if a flag that the mode needs is not set."""
    if not FLAGS[name].value:
        raise ValueError(f"Must specify --{name} for {FLAGS.mode}.")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
