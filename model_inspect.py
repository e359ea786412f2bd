# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs and exports a trained EfficientDet.

    python model_inspect.py --runmode=infer --model_name=efficientdet-d0 --ckpt_path=efficientdet-d0 \\
        --input_image=testdata/img1.jpg --output_image_dir=/tmp/drawn
    python model_inspect.py --runmode=saved_model --model_name=efficientdet-d0 --ckpt_path=efficientdet-d0 \\
        --saved_model_dir=/tmp/saved_model
"""

import os
import sys

# Before TensorFlow is imported: level 3 keeps back notes about the CPU, and the three "errors" that TensorFlow 2.15
# writes at every start where CUDA is absent. What really fails is raised.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags, logging

from dataset import label_map
from efficientdet import config as config_lib

FLAGS = flags.FLAGS
# Flags of the published program that mean nothing here: accepted, so that published commands run.
MEANINGLESS = {
    "logdir": "files go where --output_image_dir and --saved_model_dir say",
    "delete_logdir": "nothing is ever deleted",
    "freeze": "nothing read it",
}

# Flags of the published program whose work is still to come: refused, so that nothing is left out silently.
NOT_YET = (
    "tensorrt",
    "tflite_path",
    "export_ckpt",
    "input_video",
    "output_video",
    "trace_filename",
    "threads",
    "bm_runs",
    "use_xla",
)


def define_flags() -> None:
    """Defines every flag; a function, so that reading this file defines none."""
    flags.DEFINE_enum("runmode", "infer", ["infer", "saved_model"], "What to do.")
    flags.DEFINE_string("model_name", "efficientdet-d0", "One of the models of efficientdet/config.py.")
    flags.DEFINE_string("ckpt_path", None, "Checkpoint: directory, prefix or .h5 file; '_' for random weights.")
    flags.DEFINE_string(
        "hparams", "", "Keys of efficientdet/config.py: a .yaml file, or 'k=v,nms_configs.iou_thresh=0.6'."
    )
    flags.DEFINE_integer("batch_size", 1, "Pictures at once; for saved_model 0 means any number.", lower_bound=0)
    flags.DEFINE_string("input_image", None, "infer: a file, a folder, or a glob in quotes.")
    flags.DEFINE_string("output_image_dir", None, "infer: folder for the pictures with boxes drawn, 0.jpg and on.")
    flags.DEFINE_integer("line_thickness", None, "Of drawn boxes, in pixels; default: suits the picture.")
    flags.DEFINE_integer("max_boxes_to_draw", 100, "Detections a picture; an exported model keeps it.", lower_bound=1)
    flags.DEFINE_float("min_score_thresh", 0.4, "Lowest score; an exported model keeps it.", 0.0, 1.0)
    flags.DEFINE_string("nms_method", "hard", "hard or gaussian; an exported model keeps it.")
    flags.DEFINE_string("saved_model_dir", "/tmp/saved_model", "saved_model: a folder that does not exist yet.")
    for name, why in MEANINGLESS.items():
        define = flags.DEFINE_string if name == "logdir" else flags.DEFINE_bool
        define(name, None, f"Of the published program; has no effect: {why}.")
    for name in NOT_YET:
        define = flags.DEFINE_bool if name == "use_xla" else flags.DEFINE_string
        define(name, None, "Of the published program; not available in this version.")


def main(argv: list[str]) -> None:
    """Runs the mode; errors of the user end in one sentence."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; every option starts with --")
    try:
        run(load_config())
    except (ValueError, OSError) as error:
        logging.debug("%s", error, exc_info=True)
        sys.exit(f"error: {error}")


def load_config() -> config_lib.Config:
    """Checks the flags, and reads the config; flags with a default of their own go below hparams unless typed."""
    for name, why in MEANINGLESS.items():
        if FLAGS[name].present:
            logging.info("--%s has no effect: %s", name, why)
    for name in NOT_YET:
        if FLAGS[name].value:
            raise ValueError(f"--{name} is not available in this version; leave it out")
    keys = {"method": "nms_method", "score_thresh": "min_score_thresh", "max_output_size": "max_boxes_to_draw"}
    defaults = {key: FLAGS[flag].value for key, flag in keys.items()}
    typed = {key: FLAGS[flag].value for key, flag in keys.items() if FLAGS[flag].present}
    config = config_lib.load(FLAGS.model_name)
    config = config.override({"nms_configs": defaults}, config_lib.read_hparams(FLAGS.hparams), {"nms_configs": typed})
    label_map.check(label_map.resolve(config.label_map), config.num_classes)
    for name in ("ckpt_path", *(("input_image", "output_image_dir") if FLAGS.runmode == "infer" else ())):
        if not FLAGS[name].value:
            raise ValueError(f"--runmode={FLAGS.runmode} needs --{name}; see --helpfull")
    return config


def run(config: config_lib.Config) -> None:
    """The mode's work, flags as plain arguments."""
    from tf2 import drivers, export, infer  # TensorFlow takes seconds: a typing error answers before

    if FLAGS.runmode == "saved_model":
        export.check_target(FLAGS.saved_model_dir)
    else:
        infer.find_images(FLAGS.input_image)
    driver = drivers.KerasDriver(config, None if FLAGS.ckpt_path == "_" else FLAGS.ckpt_path)
    if FLAGS.runmode == "saved_model":
        written = export.saved_model(driver, FLAGS.saved_model_dir, batch_size=FLAGS.batch_size)
    else:
        written = infer.run(
            driver,
            FLAGS.input_image,
            FLAGS.output_image_dir,
            min_score_thresh=FLAGS.min_score_thresh,
            max_boxes_to_draw=FLAGS.max_boxes_to_draw,
            line_thickness=FLAGS.line_thickness,
            batch_size=FLAGS.batch_size or 1,
        )
    for path in written:
        print(f"writing file to {path}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
