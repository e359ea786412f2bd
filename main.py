# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Trains and evaluates EfficientDet.

    python main.py --mode=train_and_eval --data=shop.zip --model_name=efficientdet-lite0 --ckpt=efficientdet-lite0 \
        --model_dir=runs/shop
    python main.py --mode=train_and_eval --model_name=efficientdet-d0 --model_dir=runs/voc --ckpt=efficientdet-d0 \
        --train_file_pattern='voc/train-*' --val_file_pattern='voc/val-*' --num_epochs=50 --train_batch_size=16 \
        --hparams=recipe=finetune,num_classes=20,label_map=voc
    python main.py --mode=eval --model_dir=runs/voc/archive --val_file_pattern='voc/val-*' --voc \
        --report_dir=/tmp/report
    python main.py --mode=eval --saved_model_dir=/tmp/d0.onnx --val_file_pattern='coco/val-*' \
        --val_json_file=annotations/instances_val2017.json --output_metrics=/tmp/d0.json

The keys of --hparams are documented in efficientdet/config.py. In the folder of an earlier training, they are read from
its config.yaml, so that only changes must be given. Changes are logged, or refused if they do not fit the weights.
"""

import json
import shlex
import sys

from absl import flags, logging

from dataset import command_line, label_map
from efficientdet import config as config_lib
from main_flags import check_flags, define_flags, evaluates, follows, trains
from tf2.weights import base_config

FLAGS = flags.FLAGS
EVAL_OUT_OF_MEMORY = "lower --eval_batch_size, or nms_configs.max_nms_inputs or image_size in --hparams"
OUT_OF_MEMORY = (
    "lower --train_batch_size, set gradient_accumulation_steps to 2 or more, or grad_checkpoint=true in --hparams"
)


def main() -> None:
    """Runs --mode and prints the metrics as JSON."""
    config = load_config()
    # These import TensorFlow, which takes seconds: only after the flags are checked.
    from tf2.evaluation import evaluate, follow, next_commands, train_and_eval
    from tf2.training import strategy as strategy_lib
    from tf2.training import train

    try:
        with strategy_lib.device_errors(memory_advice()):
            strategy = create_strategy(config)
            config, data = find_data(config, strategy)
            if trains():
                results = train_and_eval.run(
                    config,
                    training_from_flags(config, data),
                    evaluation_from_flags(data) if evaluates() else None,
                    evaluates_during=FLAGS.mode == "train_and_eval",
                    typed_keys=keys_typed(),
                    strategy=strategy,
                )
            elif follows():
                results = follow.run(
                    config,
                    evaluation_from_flags(data),
                    FLAGS.model_dir,
                    min_interval=FLAGS.min_eval_interval,
                    timeout=FLAGS.eval_timeout,
                    strategy=strategy,
                )
            else:
                results = evaluate.evaluate_stored(
                    config,
                    FLAGS.saved_model_dir or FLAGS.ckpt or FLAGS.model_dir,
                    evaluation_from_flags(data),
                    outputs=outputs_from_flags(),
                    artifact_keys=config_lib.read_hparams(FLAGS.hparams) if FLAGS.saved_model_dir else None,
                    as_served=FLAGS.as_served,
                    strategy=strategy,
                )
    except train.Stopped as stopped:
        logging.warning("%s", stopped)
        sys.exit(stopped.exit_code)
    if results:
        print(json.dumps(results))
        if trains():
            next_commands.log(FLAGS.model_dir, sys.argv)


def load_config() -> config_lib.Config:
    """Checks the flags and returns the config that they define, over that of a training in its folder.

    Raises:
        ValueError: for flags that are missing or contradict each other.
    """
    check_flags()
    if trains():
        config = base_config.of_training(
            *(FLAGS.model_dir, FLAGS.ckpt, FLAGS.model_name),
            hparams=FLAGS.hparams,
            default_recipe="finetune" if FLAGS.data else None,
            num_epochs=FLAGS.num_epochs,
            strategy=FLAGS.strategy or None,
        )
    else:
        path, typed = FLAGS.ckpt or FLAGS.model_dir, config_lib.read_hparams(FLAGS.hparams)
        path = None if FLAGS.saved_model_dir else path
        config = base_config.of_detector(path, FLAGS.model_name, typed)
    if not (FLAGS.saved_model_dir or FLAGS.data):  # an exported file has its own number of classes
        label_map.check(label_map.resolve(config.label_map), config.num_classes)
    return config


def keys_typed() -> set[str]:
    """Returns the config keys that the flags set."""
    return {*config_lib.read_hparams(FLAGS.hparams), *(["num_epochs"] if FLAGS.num_epochs else [])}


def command_typed() -> str:
    """Returns the command line, for provenance."""
    return shlex.join(["python", *sys.argv])


def memory_advice() -> str:
    """Returns the remedy for a lack of memory."""
    if not trains():
        return EVAL_OUT_OF_MEMORY
    return f"{OUT_OF_MEMORY}; in an evaluation, {EVAL_OUT_OF_MEMORY}" if evaluates() else OUT_OF_MEMORY


def create_strategy(config: config_lib.Config):
    """Returns the strategy that the flags describe, after TensorFlow's global settings are made."""
    from tf2.training import strategy as strategy_lib

    kind = FLAGS.strategy or config.strategy
    strategy_lib.set_options(FLAGS.tf_random_seed, debug=FLAGS.debug, use_xla=FLAGS.use_xla)
    return strategy_lib.create(
        kind,
        workers=FLAGS.worker,
        worker_index=FLAGS.worker_index,
        tpu=FLAGS.tpu,
        tpu_zone=FLAGS.tpu_zone,
        gcp_project=FLAGS.gcp_project,
    )


def find_data(config: config_lib.Config, strategy):
    """Returns the config with the classes of --data, and the `DataFiles` of the flags or of --data."""
    from dataset.prepare import prepared
    from dataset.records import DataFiles
    from tf2.training import strategy as strategy_lib

    if not FLAGS.data:
        return config, DataFiles(FLAGS.train_file_pattern, FLAGS.val_file_pattern, FLAGS.val_json_file)
    data = prepared.prepare(
        FLAGS.data,
        FLAGS.data_cache or prepared.default_cache(FLAGS.model_dir),
        data_format=FLAGS.data_format,
        needs_train=trains(),
        may_convert=strategy_lib.num_workers(strategy) == 1,
    )
    files = data.select_files(trains=trains(), evaluates=evaluates(), split=FLAGS.data_split)
    if trains():
        prepared.note_use(data, FLAGS.model_dir)
    of_detector = not (trains() or FLAGS.saved_model_dir)
    return data.configure(config, config_lib.read_hparams(FLAGS.hparams), of_detector=of_detector), files


def training_from_flags(config: config_lib.Config, data):
    """Returns the `Training` that the flags describe."""
    from tf2.training import recipe, train

    return train.Training(
        model_dir=FLAGS.model_dir,
        train_file_pattern=data.train_file_pattern,
        batch_size=FLAGS.train_batch_size or recipe.BATCH_SIZES[config.recipe],
        num_examples_per_epoch=FLAGS.num_examples_per_epoch,
        ckpt=FLAGS.ckpt,
        backbone_ckpt=FLAGS.backbone_ckpt,
        save_checkpoints_steps=FLAGS.save_checkpoints_steps,
        min_save_steps=recipe.SAVE_STEPS[config.recipe],
        steps_per_execution=FLAGS.steps_per_execution,
        seed=FLAGS.tf_random_seed,
        use_fake_data=FLAGS.use_fake_data,
        profile=FLAGS.profile,
        use_xla=FLAGS.use_xla,
        command=command_typed(),
    )


def evaluation_from_flags(data):
    """Returns the `Evaluation` that the flags describe."""
    from tf2.evaluation import evaluator

    return evaluator.Evaluation(
        *(data.val_file_pattern, data.val_json_file, FLAGS.eval_batch_size, FLAGS.eval_samples or None),
        flip=FLAGS.flip,
        use_xla=FLAGS.use_xla,
    )


def outputs_from_flags():
    """Returns the `EvaluationOutputs` that the flags describe."""
    from tf2.evaluation import evaluate

    return evaluate.EvaluationOutputs(
        *(FLAGS.testdev_dir, FLAGS.output_detections, FLAGS.output_metrics, FLAGS.report_dir),
        voc=FLAGS.voc,
        command=command_typed(),
    )


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
