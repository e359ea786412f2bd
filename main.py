# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Trains and evaluates EfficientDet over TFRecords.

    python main.py --mode=train_and_eval --model_name=efficientdet-d0 --model_dir=runs/voc --ckpt=efficientdet-d0 \
        --train_file_pattern='voc/train-*' --val_file_pattern='voc/val-*' --hparams=configs/voc.yaml \
        --num_examples_per_epoch=5717 --num_epochs=50 --train_batch_size=16
    python main.py --mode=eval --model_name=efficientdet-d0 --model_dir=runs/voc/archive --hparams=configs/voc.yaml \
        --val_file_pattern='voc/val-*' --voc --report_dir=/tmp/report
    python main.py --mode=eval --saved_model_dir=/tmp/d0.onnx --val_file_pattern='coco/val-*' \
        --val_json_file=annotations/instances_val2017.json --output_metrics=/tmp/d0.json

The keys of --hparams stand in efficientdet/config.py.
"""

import json
import os
import shlex
import sys

# Before TensorFlow is imported: level 3 keeps back notes about the CPU, and the three "errors" that TensorFlow 2.15
# writes at every start where CUDA is absent. What really fails is raised.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import flags, logging

from dataset import command_line, label_map
from efficientdet import config as config_lib

FLAGS = flags.FLAGS
EVAL_OUT_OF_MEMORY = "lower --eval_batch_size, or nms_configs.max_nms_inputs or image_size in --hparams"
OUT_OF_MEMORY = (
    "lower --train_batch_size, set gradient_accumulation_steps to 2 or more, or grad_checkpoint=true in --hparams"
)

# Flags of the published program that mean nothing here: accepted, so that published commands run.
MEANINGLESS = {
    "iterations_per_loop": "progress is shown step by step",
    "num_cores": "the device tells how many cores it has",
    "use_spatial_partition": "images are not partitioned over cores",
    "num_cores_per_replica": "images are not partitioned over cores",
    "input_partition_dims": "images are not partitioned over cores",
    "run_epoch_in_child_process": "one process trains and evaluates, and its memory does not grow",
    "eval_name": "metrics are printed, and those of a training go to model_dir/eval",
}
# Flags of the published program that are refused, so that nothing is left out silently.
REFUSED = {
    "hub_module_url": "TensorFlow Hub modules are not read; take released weights by name, --ckpt=efficientdet-d0",
}
# Flags of an evaluation that is made once, of what is finished.
ONCE = (
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
    """Defines every flag; a function, so that reading this file defines none."""
    with command_line.group("What to do"):
        flags.DEFINE_enum(
            "mode", "train", ["train", "eval", "train_and_eval"], "Trains, evaluates, or does both in turn."
        )
        flags.DEFINE_string("model_name", "efficientdet-d1", f"One of {', '.join(config_lib.MODELS)}.")
        flags.DEFINE_string(
            "hparams", "", "Keys of efficientdet/config.py: a .yaml file, or 'k=v,nms_configs.method=hard'."
        )
        flags.DEFINE_string(
            "model_dir", None, "Folder of checkpoints, config.yaml and event files; a training resumes there."
        )
        flags.DEFINE_string(
            "ckpt",
            None,
            "Detector to start a training from, or to evaluate instead of model_dir's: folder, prefix, .h5 file, or a "
            "name of released weights.",
        )
        flags.DEFINE_integer(
            "tf_random_seed",
            None,
            "Seed of weights, order and augmentation; on CPUs every bit follows from it; default: drawn, and kept.",
        )
    define_training_flags()
    define_evaluation_flags()
    define_device_flags()
    with command_line.group("Of the published program, without effect or refused"):
        for name, why in MEANINGLESS.items():
            switch = name in ("use_spatial_partition", "run_epoch_in_child_process")  # typed without a value
            define = flags.DEFINE_bool if switch else flags.DEFINE_string
            define(name, None, f"Has no effect: {why}.")
        for name, why in REFUSED.items():
            flags.DEFINE_string(name, None, f"Refused: {why}.")


def define_training_flags() -> None:
    """What is trained on, and for how long."""
    with command_line.group("Training", ["train", "train_and_eval"]):
        flags.DEFINE_string("train_file_pattern", None, "Glob of the records to train on, in quotes.")
        flags.DEFINE_string(
            "backbone_ckpt", None, "Classifier to start the backbone from: as --ckpt, such as efficientnet-b0."
        )
        flags.DEFINE_integer("train_batch_size", 64, "Images a training step, on all devices together.", lower_bound=1)
        flags.DEFINE_integer("num_examples_per_epoch", 120000, "Images in the training records.", lower_bound=1)
        flags.DEFINE_integer("num_epochs", None, "Epochs to train; default: the config's num_epochs.", lower_bound=1)
        flags.DEFINE_integer(
            "save_checkpoints_steps",
            1000,
            "Steps from one checkpoint to the next; each epoch ends in one, too.",
            lower_bound=1,
        )
        flags.DEFINE_bool("eval_after_train", False, "With --mode=train: evaluates once, after the last epoch.")
        flags.DEFINE_integer(
            "steps_per_execution", 1, "Training steps without a return to Python between them.", lower_bound=1
        )
        flags.DEFINE_bool("use_fake_data", False, "Repeats the first batch, to measure speed without reading.")
        flags.DEFINE_bool(
            "profile", False, "Profiles a few training steps, from the tenth of the run on, for TensorBoard."
        )


def define_evaluation_flags() -> None:
    """What is evaluated, on what, and what is written about it."""
    with command_line.group("Evaluation", ["eval", "train_and_eval"]):
        flags.DEFINE_string("val_file_pattern", None, "Glob of the records to evaluate on, in quotes.")
        flags.DEFINE_string("val_json_file", None, "COCO groundtruth; default: what is in the records.")
        flags.DEFINE_integer("eval_batch_size", 1, "Images an evaluation step.", lower_bound=1)
        flags.DEFINE_integer("eval_samples", 5000, "Images to evaluate at most; 0 for all.", lower_bound=0)
    with command_line.group("Evaluation of what is finished", ["eval"]):
        flags.DEFINE_string(
            "saved_model_dir",
            None,
            "An exported file to evaluate instead of a checkpoint: a SavedModel, or a .pb, .tflite or .onnx file.",
        )
        flags.DEFINE_bool("as_served", False, "Judges a checkpoint as an exported detector would detect.")
        flags.DEFINE_bool("flip", False, "Averages the network's outputs with those of the mirrored image.")
        flags.DEFINE_bool("voc", False, "Pascal VOC's metrics, too.")
        flags.DEFINE_string(
            "testdev_dir", None, "Folder for the detections of COCO's test-dev, as its server takes them."
        )
        flags.DEFINE_string("output_detections", None, "File for all detections, as COCO results.")
        flags.DEFINE_string("output_metrics", None, "JSON file of all figures, and what they are of.")
        flags.DEFINE_string("report_dir", None, "Folder for a page with plots and pictures.")
    with command_line.group("Evaluation beside a training; either flag asks for it", ["eval"]):
        flags.DEFINE_integer(
            "min_eval_interval", 180, "Seconds from one evaluation to the next, at least.", lower_bound=0
        )
        flags.DEFINE_integer("eval_timeout", 3600, "Seconds without a new checkpoint that end it.", lower_bound=0)


def define_device_flags() -> None:
    """Flags of where and how steps are computed."""
    with command_line.group("Devices"):
        flags.DEFINE_enum(
            "strategy",
            None,
            ["", "gpus", "multi-gpus", "tpu"],
            "gpus: all of this machine; multi-gpus: several machines; tpu; default: one device.",
        )
        flags.DEFINE_list("worker", [], "With multi-gpus: host:port of each machine; default: what TF_CONFIG says.")
        flags.DEFINE_integer(
            "worker_index", 0, "Which of --worker this machine is, from 0; the first writes the files."
        )
        flags.DEFINE_string("tpu", None, "local on a TPU VM, or name or address of the TPU.")
        flags.DEFINE_string("tpu_zone", None, "Google Cloud zone of the TPU.")
        flags.DEFINE_string("gcp_project", None, "Google Cloud project of the TPU.")
        flags.DEFINE_bool("use_xla", False, "Compiles clusters of operations with XLA, on GPUs and TPUs.")
        flags.DEFINE_bool("debug", False, "Runs every operation by itself, slowly, so that errors show their line.")


def main() -> None:
    """Runs the mode."""
    results = run(load_config())
    if results:
        print(json.dumps(results))


def load_config() -> config_lib.Config:
    """Checks the flags, and reads the config that they give."""
    for name, why in MEANINGLESS.items():
        if FLAGS[name].present:
            logging.info("--%s has no effect: %s", name, why)
    for name, why in REFUSED.items():
        if FLAGS[name].value:
            raise ValueError(f"--{name} is refused: {why}")
    for name in ONCE:
        if FLAGS[name].value and (FLAGS.mode != "eval" or follows()):
            raise ValueError(f"--{name} is for --mode=eval of what is finished, not beside a training; leave it out")
    for name in command_line.unused("train_and_eval" if FLAGS.mode == "train" and evaluates() else FLAGS.mode):
        logging.warning("--%s has no effect with --mode=%s", name, FLAGS.mode)
    config = config_lib.load(
        FLAGS.model_name, FLAGS.hparams, num_epochs=FLAGS.num_epochs, strategy=FLAGS.strategy or None
    )
    if not FLAGS.saved_model_dir:  # which has a number of classes of its own
        label_map.check(label_map.resolve(config.label_map), config.num_classes)
    if FLAGS.mode != "eval" or not (FLAGS.ckpt or FLAGS.saved_model_dir):
        require("model_dir")
    if FLAGS.mode != "eval":
        require("train_file_pattern")
    if FLAGS.ckpt and FLAGS.backbone_ckpt:
        raise ValueError("--ckpt and --backbone_ckpt are mutually exclusive; give the one to start from")
    if evaluates():
        require("val_file_pattern")
    if follows() and FLAGS.ckpt:
        raise ValueError("--min_eval_interval and --eval_timeout follow --model_dir; leave them or --ckpt out")
    if FLAGS.saved_model_dir and FLAGS.ckpt:
        raise ValueError("--saved_model_dir and --ckpt are mutually exclusive; give the one to evaluate")
    return config


def evaluates() -> bool:
    """Whether the mode evaluates at all."""
    return FLAGS.mode != "train" or FLAGS.eval_after_train


def follows() -> bool:
    """Whether the mode evaluates what a training beside it writes."""
    return FLAGS.mode == "eval" and (FLAGS["min_eval_interval"].present or FLAGS["eval_timeout"].present)


def run(config: config_lib.Config) -> dict[str, float]:
    """The mode's work; returns metrics, if it evaluated."""
    from tf2.training import strategy as strategy_lib  # TensorFlow takes seconds: a typing error answers before
    from tf2.training import train

    advice = EVAL_OUT_OF_MEMORY if FLAGS.mode == "eval" else OUT_OF_MEMORY
    if FLAGS.mode != "eval" and evaluates():
        advice += f"; in an evaluation, {EVAL_OUT_OF_MEMORY}"
    try:
        with strategy_lib.plain_errors(advice):
            strategy = create_strategy(config)
            if follows():
                return follow(config)
            if FLAGS.mode == "eval":
                return evaluate_once(config)
            return run_training(config, strategy)
    except train.Stopped as stopped:
        logging.warning("%s", stopped)
        sys.exit(stopped.exit_code)


def run_training(config: config_lib.Config, strategy) -> dict[str, float]:
    """train, train_and_eval."""
    from tf2.evaluation import evaluator
    from tf2.training import train

    check_data(config)
    training = train.Training(
        model_dir=FLAGS.model_dir,
        train_file_pattern=FLAGS.train_file_pattern,
        batch_size=FLAGS.train_batch_size,
        num_examples_per_epoch=FLAGS.num_examples_per_epoch,
        ckpt=FLAGS.ckpt,
        backbone_ckpt=FLAGS.backbone_ckpt,
        save_checkpoints_steps=FLAGS.save_checkpoints_steps,
        steps_per_execution=FLAGS.steps_per_execution,
        seed=FLAGS.tf_random_seed,
        use_fake_data=FLAGS.use_fake_data,
        profile=FLAGS.profile,
        command=command(),
    )
    evaluates_too = evaluator.Evaluator(config, evaluation_from_flags()) if evaluates() else None
    every = config.map_freq if FLAGS.mode == "train_and_eval" else 0
    return train.run(config, training, evaluates_too, eval_every_epochs=every, strategy=strategy)


def follow(config: config_lib.Config) -> dict[str, float]:
    """eval, beside a training."""
    from tf2.evaluation import evaluator, follow
    from tf2.training import train

    check_data(config)
    return follow.run(
        # Nothing is drawn, and the picture may be on the machine of the training.
        evaluator.Evaluator(config.override({"sample_image": None}), evaluation_from_flags()),
        FLAGS.model_dir,
        min_interval=FLAGS.min_eval_interval,
        timeout=FLAGS.eval_timeout,
        on_result=train.Recorder(FLAGS.model_dir),
    )


def evaluate_once(config: config_lib.Config) -> dict[str, float]:
    """eval, of a checkpoint or an exported file."""
    from tf2.evaluation import evaluate
    from tf2.inference import drivers

    outputs = evaluate.Outputs(
        FLAGS.testdev_dir, FLAGS.output_detections, FLAGS.output_metrics, FLAGS.report_dir, FLAGS.voc
    )
    outputs.check(FLAGS.val_json_file)
    driver = None
    if FLAGS.saved_model_dir:
        driver = evaluate.open_artifact(FLAGS.saved_model_dir, config, config_lib.read_hparams(FLAGS.hparams))
        config = driver.config
    check_data(config)
    driver = driver or drivers.KerasDriver(config, FLAGS.ckpt or FLAGS.model_dir)
    evaluation = evaluation_from_flags()
    result = evaluate.run(driver, evaluation, as_served=FLAGS.as_served)
    return evaluate.publish(driver, evaluation, result, outputs, command())


def evaluation_from_flags():
    """What an evaluation reads, and how."""
    from tf2.evaluation import evaluator

    return evaluator.Evaluation(
        FLAGS.val_file_pattern,
        None if FLAGS.testdev_dir else FLAGS.val_json_file,
        FLAGS.eval_batch_size,
        FLAGS.eval_samples or None,
        FLAGS.flip,
    )


def command() -> str:
    """What was typed."""
    return shlex.join(["python", *sys.argv])


def create_strategy(config: config_lib.Config):
    """The devices of the flags; and what of TensorFlow has to be set before anything else uses it."""
    import tensorflow as tf
    import tf_keras as keras

    from tf2.training import strategy as strategy_lib

    if FLAGS.tf_random_seed is not None:
        keras.utils.set_random_seed(FLAGS.tf_random_seed)
        # Not on GPUs, where TensorFlow has no deterministic kernel for the gradient of frozen batch normalization.
        if not tf.config.list_physical_devices("GPU"):
            tf.config.experimental.enable_op_determinism()
    if FLAGS.debug:
        tf.config.run_functions_eagerly(True)
        tf.data.experimental.enable_debug_mode()
    if FLAGS.use_xla:
        tf.config.optimizer.set_jit("autoclustering")
        # CPUs take part with TF_XLA_FLAGS=--tf_xla_cpu_global_jit alone; a training that was tried so ended in an error
        # over the shapes of its labels.
        if config.strategy != "tpu" and not tf.config.list_physical_devices("GPU"):
            logging.warning("--use_xla has no effect: it compiles for GPUs and TPUs, of which there is none")
    if FLAGS.mode == "eval":
        if config.strategy or FLAGS.worker or FLAGS.tpu:
            logging.info("an evaluation runs on one device; --strategy, --worker and --tpu are for training")
        return strategy_lib.create()
    return strategy_lib.create(
        config.strategy,
        workers=FLAGS.worker,
        worker_index=FLAGS.worker_index,
        tpu=FLAGS.tpu,
        tpu_zone=FLAGS.tpu_zone,
        gcp_project=FLAGS.gcp_project,
    )


def check_data(config: config_lib.Config) -> None:
    """Looks at some records of each file pattern that the mode reads; raises DataError for what would be pointless."""
    from dataset.check import checks

    warnings = []
    if FLAGS.mode != "eval":
        warnings += checks.quick(FLAGS.train_file_pattern, config)
    if FLAGS.testdev_dir:
        warnings += checks.quick_test_set(FLAGS.val_file_pattern, config)
    elif evaluates():
        warnings += checks.quick(FLAGS.val_file_pattern, config, FLAGS.val_json_file)
    for warning in warnings:
        logging.warning("%s", warning)


def require(name: str) -> None:
    """Raises ValueError if a flag that the mode needs is not set."""
    if not FLAGS[name].value:
        raise ValueError(f"Must specify --{name} for {FLAGS.mode}.")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
