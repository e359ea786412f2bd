# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Detects with, exports and benchmarks an EfficientDet.

    python model_inspect.py --runmode=infer --ckpt_path=efficientdet-d0 --input_image=testdata/img1.jpg \\
        --output_image_dir=/tmp/drawn
    python model_inspect.py --runmode=saved_model --ckpt_path=runs/shop --saved_model_dir=/tmp/saved_model
    python model_inspect.py --runmode=saved_model_benchmark --saved_model_dir=/tmp/saved_model

Run modes: dry (writes a checkpoint and the training graph), ckpt (converts a checkpoint to another format), freeze
(exports the network alone), saved_model (exports SavedModel and frozen graph, optionally TFLite and TensorRT), onnx, bm
(times the network), infer (detects in images with a checkpoint). saved_model_infer, saved_model_video and
saved_model_benchmark accept any exported file.
"""

import os

# Before OpenCV is imported, which TensorFlow may do: an unreadable video gets an error message of its own.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

from absl import flags, logging

from dataset import command_line, label_map
from efficientdet import config as config_lib
from tf2.weights import base_config

FLAGS = flags.FLAGS
# Flags of the published program that have no effect here; accepted, so that published commands run.
IGNORED_FLAGS = {
    "delete_logdir": "nothing is ever deleted; existing targets are refused",
    "freeze": "the published program did not use it; --runmode=freeze writes a frozen graph",
}
ALIASES = {"proof": "parity", "proof_images": "parity_images"}  # former names, still accepted
EXPORTS = ("freeze", "saved_model", "onnx")
CHECKPOINT_MODES = ("dry", "ckpt", *EXPORTS, "bm", "infer")
EXPORTED_FILE_MODES = ("saved_model_infer", "saved_model_video", "saved_model_benchmark")
# Flags that a mode requires; of those in a tuple, at least one.
REQUIRED_FLAGS = {
    "dry": (),
    "freeze": (),
    "bm": (),
    "ckpt": ("ckpt_path",),
    "saved_model": ("ckpt_path",),
    "onnx": ("ckpt_path", "onnx_path"),
    "infer": ("ckpt_path", "input_image", ("output_image_dir", "output_json", "output_csv", "output_coco")),
    "saved_model_infer": ("input_image", ("output_image_dir", "output_json", "output_csv", "output_coco")),
    "saved_model_benchmark": (),
    "saved_model_video": ("input_video",),
}


def define_flags() -> None:
    """Defines all flags; not done at import time."""
    with command_line.group("General"):
        flags.DEFINE_enum("runmode", "dry", list(REQUIRED_FLAGS), "One of the modes above.")
        flags.DEFINE_string(
            "model_name",
            None,
            f"One of {', '.join(config_lib.MODELS)}; default: that of --ckpt_path, or else {config_lib.DEFAULT_MODEL}.",
        )
        flags.DEFINE_string(
            "hparams",
            "",
            "Keys of efficientdet/config.py, over those of config.yaml beside --ckpt_path: a .yaml file, or "
            "'k=v,nms_configs.iou_thresh=0.6'.",
        )
        flags.DEFINE_integer("threads", 0, "Threads per operation; 0: one per core.", lower_bound=0)
    with command_line.group("Checkpoint", CHECKPOINT_MODES):
        flags.DEFINE_string(
            "ckpt_path",
            None,
            "Folder of a training, prefix or .h5 file of a checkpoint, or name of released weights; '_' for random "
            "weights.",
        )
    with command_line.group("Exported file", ["saved_model", "bm", *EXPORTED_FILE_MODES]):
        flags.DEFINE_string(
            "saved_model_dir",
            "/tmp/saved_model",
            "saved_model: a new folder. Other modes: a SavedModel, or a .pb, .tflite or .onnx file.",
        )
    with command_line.group("Batches", [*EXPORTS, "bm", "infer", "saved_model_infer", "saved_model_benchmark"]):
        flags.DEFINE_integer("batch_size", 1, "Images per batch; 0 exports a file for any batch size.", lower_bound=0)
    with command_line.group(
        "Detections; stored in exported detectors", ["saved_model", "onnx", "infer", *EXPORTED_FILE_MODES]
    ):
        nms = config_lib.INFERENCE_NMS
        flags.DEFINE_float("min_score_thresh", nms["score_thresh"], "Minimum score, 0 to 1.", 0.0, 1.0)
        flags.DEFINE_integer(
            "max_boxes_to_draw", nms["max_output_size"], "Maximum number of detections per image.", lower_bound=1
        )
        flags.DEFINE_string("nms_method", nms["method"], "NMS method: hard or gaussian.")
    define_export_flags()
    define_inference_flags()
    with command_line.group("Benchmark", ["bm", "saved_model_benchmark"]):
        flags.DEFINE_integer("bm_runs", 10, "Timed runs.", lower_bound=1)
        flags.DEFINE_string("trace_filename", None, "File for a Chrome trace of one run.")
        flags.DEFINE_string("benchmark_json", None, "File for the results as JSON.")
        flags.DEFINE_bool("use_xla", False, "With --runmode=bm: compile clusters of operations with XLA, on GPUs.")
    with command_line.group("Flags of the published program, without effect"):
        for name, why in IGNORED_FLAGS.items():
            flags.DEFINE_bool(name, None, f"Has no effect: {why}.")


def define_export_flags() -> None:
    """Defines the flags of the files to write and of their parity check."""
    with command_line.group("Output folder", ["dry", "freeze"]):
        flags.DEFINE_string("logdir", "/tmp/deff/", "Folder for the files.")
    with command_line.group("Checkpoint to write", ["dry", "ckpt"]):
        flags.DEFINE_string("export_ckpt", None, "Prefix of the checkpoint to write; for hdf5 a name ending in .h5.")
        flags.DEFINE_enum("export_ckpt_format", "name", ["name", "object", "hdf5"], "Format of that checkpoint.")
    with command_line.group("Files beside the SavedModel", ["saved_model"]):
        flags.DEFINE_string("tflite_path", None, "A .tflite file to write as well.")
        flags.DEFINE_enum("tflite", "FP32", ["FP32", "FP16", "INT8"], "Precision of that file.")
        flags.DEFINE_enum(
            "tflite_content",
            "detector",
            ["detector", "detection_op", "network"],
            "detector: images to detections, including pre- and post-processing; detection_op: normalized images to "
            "the op TFLite_Detection_PostProcess; network: normalized images to raw outputs.",
        )
        flags.DEFINE_enum(
            "tensorrt",
            None,
            ["FP32", "FP16", "INT8"],
            "Precision of a TensorRT SavedModel to write as well, into saved_model_dir; needs an NVIDIA GPU.",
        )
    with command_line.group("ONNX", ["onnx"]):
        flags.DEFINE_string("onnx_path", None, "The .onnx file to write.")
        flags.DEFINE_enum("onnx", "FP32", ["FP32", "FP16", "INT8"], "Precision of the network in that file.")
        flags.DEFINE_enum("onnx_content", "detector", ["detector", "network"], "Its content, as for --tflite_content.")
    with command_line.group("Calibration of INT8", ["saved_model", "onnx"]):
        flags.DEFINE_string("file_pattern", None, "TFRecords with calibration images for INT8.")
        flags.DEFINE_integer("num_calibration_steps", 500, "Maximum number of calibration images.", lower_bound=1)
    with command_line.group("Parity check", EXPORTS):
        flags.DEFINE_bool("parity", True, "Compare each exported file with the checkpoint, and write FILE.parity.json.")
        flags.DEFINE_string("parity_images", None, "Images to compare on, as --input_image; default: generated images.")
        flags.DEFINE_string(
            "val_file_pattern", None, "TFRecords to compare AP on, under the same NMS; default: AP is not computed."
        )
        flags.DEFINE_string("val_json_file", None, "COCO groundtruth of these records; default: that of the records.")
        flags.DEFINE_integer("eval_samples", None, "Images of these records to evaluate; default: all.", lower_bound=1)
        flags.DEFINE_float("max_ap_drop", 0.02, "Largest accepted loss of AP, 0 to 1.", 0.0, 1.0)
    for alias, name in ALIASES.items():
        flags.DEFINE_alias(alias, name)


def define_inference_flags() -> None:
    """Defines the flags of images and video."""
    with command_line.group("Images", ["infer", "saved_model_infer", "saved_model_benchmark"]):
        flags.DEFINE_string(
            "input_image", None, "Images: file, folder, glob in quotes (** matches subfolders), or .txt file of paths."
        )
    with command_line.group("Lists of detections", ["infer", "saved_model_infer", "saved_model_video"]):
        flags.DEFINE_string("output_json", None, "File for detections as JSON, grouped by image or frame.")
        flags.DEFINE_string("output_csv", None, "File for detections as CSV, one per line.")
    with command_line.group("Results for images", ["infer", "saved_model_infer"]):
        flags.DEFINE_string("output_image_dir", None, "Folder for the images with drawn boxes, 0.jpg, 1.jpg, ...")
        flags.DEFINE_enum(
            "output_names", "index", ["index", "input"], "Names of these images: {i}.jpg, or those of the inputs."
        )
        flags.DEFINE_string("output_coco", None, "File for detections as COCO results.")
    with command_line.group("Video", ["saved_model_video"]):
        flags.DEFINE_string(
            "input_video", None, "A file, the number of a camera, or the rtsp:// or http:// URL of a stream."
        )
        flags.DEFINE_string(
            "output_video",
            None,
            "An .mp4, .mov or .avi file, without audio; default: a window, unless --output_json or --output_csv is "
            "given.",
        )
    with command_line.group("Drawing", ["infer", "saved_model_infer", "saved_model_video"]):
        flags.DEFINE_integer(
            "line_thickness", None, "Line width of boxes in pixels; default: by the size of the image."
        )


def main() -> None:
    """Runs the mode."""
    run(load_config())


def load_config() -> config_lib.Config:
    """Checks the flags and returns the config; NMS flags override --hparams only if they are given.

    Raises:
        ValueError: for flags that are missing or contradict each other.
    """
    command_line.report_unused("runmode", FLAGS.runmode, IGNORED_FLAGS)
    keys = {"method": "nms_method", "score_thresh": "min_score_thresh", "max_output_size": "max_boxes_to_draw"}
    given = {key: FLAGS[flag].value for key, flag in keys.items() if FLAGS[flag].present}
    check_flags()
    path = None if opens_exported_file() else ckpt_path()
    typed = config_lib.read_hparams(FLAGS.hparams), {"nms_configs": given}
    config = base_config.of_detector(path, FLAGS.model_name, *typed, defaults=base_config.INFERENCE)
    label_map.check(label_map.resolve(config.label_map), config.num_classes)
    if config.mixed_precision:
        logging.warning(
            "mixed_precision applies to training only; inference uses float32, or 16 bits with --tflite=FP16, "
            "--onnx=FP16 or --tensorrt=FP16"
        )
    return config


def check_flags() -> None:
    """Raises ValueError for flags that are missing or contradict each other."""
    for names in REQUIRED_FLAGS[FLAGS.runmode]:
        alternatives = (names,) if isinstance(names, str) else names
        if not any(FLAGS[name].value for name in alternatives):
            raise ValueError(
                f"--runmode={FLAGS.runmode} needs --{' or --'.join(alternatives)}; --help lists the flags by mode"
            )
    if FLAGS.use_xla and FLAGS.runmode != "bm":
        raise ValueError("--use_xla requires --runmode=bm; leave it out")
    if FLAGS.export_ckpt and FLAGS.runmode not in ("dry", "ckpt"):
        raise ValueError("--export_ckpt requires --runmode=ckpt or dry; leave it out")
    if not FLAGS.parity:
        for name in ("parity_images", "val_file_pattern", "val_json_file", "max_ap_drop"):
            if FLAGS[name].present:
                raise ValueError(f"--{name} needs the parity check; leave it or --noparity out")
    if FLAGS.runmode == "saved_model" and not FLAGS.tflite_path:
        for name in ("tflite", "tflite_content"):
            if FLAGS[name].present:
                raise ValueError(f"--{name} needs --tflite_path, the file to write")


def run(config: config_lib.Config) -> None:
    """Runs the mode. Imports TensorFlow only now, so that errors in flags are reported immediately."""
    if FLAGS.threads:
        from tf2.benchmarks import latency

        latency.set_threads(FLAGS.threads)
    from tf2.training import strategy

    with strategy.device_errors("lower --batch_size, or nms_configs.max_nms_inputs or image_size in --hparams"):
        MODES[FLAGS.runmode](config)


def write_checkpoint(config: config_lib.Config) -> None:
    """Modes dry and ckpt."""
    from tf2.export import checkpoints

    logdir = FLAGS.logdir if FLAGS.runmode == "dry" else None
    checkpoints.run(config, ckpt_path(), logdir=logdir, export_ckpt=FLAGS.export_ckpt, format=FLAGS.export_ckpt_format)


def export_model(config: config_lib.Config) -> None:
    """Modes freeze, saved_model and onnx."""
    from tf2.evaluation import evaluator
    from tf2.export import export

    parity_options = evaluation = None
    if FLAGS.val_file_pattern:
        evaluation = evaluator.Evaluation(
            FLAGS.val_file_pattern, FLAGS.val_json_file, FLAGS.batch_size or 1, FLAGS.eval_samples
        )
    if FLAGS.parity:
        parity_options = export.ParityOptions(FLAGS.parity_images, evaluation, FLAGS.max_ap_drop)
    export.run(config, ckpt_path(), targets_from_flags(FLAGS.model_name or config.name), parity_options)


def infer_images(config: config_lib.Config) -> None:
    """Modes infer and saved_model_infer."""
    from tf2.inference import images

    outputs = images.OutputPaths(
        FLAGS.output_image_dir, FLAGS.output_names, FLAGS.output_json, FLAGS.output_csv, FLAGS.output_coco
    )
    images.find_images(FLAGS.input_image)  # before the model is built
    driver = open_driver(config)
    images.run(driver, FLAGS.input_image, outputs, batch_size=FLAGS.batch_size or 1, **drawing_options(config))


def run_video(config: config_lib.Config) -> None:
    """Mode saved_model_video."""
    from tf2.inference import video

    outputs = video.OutputPaths(FLAGS.output_video, FLAGS.output_json, FLAGS.output_csv)
    video.check(FLAGS.input_video, outputs)  # before the model is loaded
    video.run(open_driver(config), FLAGS.input_video, outputs, **drawing_options(config))


def run_benchmark(config: config_lib.Config) -> None:
    """Modes bm and saved_model_benchmark."""
    from tf2.benchmarks import latency

    options = latency.Options(FLAGS.batch_size, FLAGS.bm_runs, FLAGS.trace_filename, FLAGS.benchmark_json)
    driver = open_driver(config)
    if FLAGS.runmode == "bm":
        latency.bm(driver, options, use_xla=FLAGS.use_xla)
    else:
        latency.saved_model_benchmark(driver, FLAGS.input_image, options)


def open_driver(config: config_lib.Config):
    """Returns the detector of a mode, from an exported file or a checkpoint; bm accepts either."""
    from tf2.inference import drivers
    from tf2.weights import class_names

    if opens_exported_file():
        content = "network" if FLAGS.runmode == "bm" else None
        threads = FLAGS.threads or None
        driver = drivers.open_artifact(FLAGS.saved_model_dir, config, content=content, num_threads=threads)
        warn_overridden_flags(driver)
        return driver
    config, _ = class_names.of_detector(config, ckpt_path())
    return drivers.KerasDriver(config, ckpt_path())


def opens_exported_file() -> bool:
    """Returns True if the mode opens --saved_model_dir instead of a checkpoint."""
    return FLAGS.runmode in EXPORTED_FILE_MODES or (FLAGS.runmode == "bm" and FLAGS["saved_model_dir"].present)


def warn_overridden_flags(driver) -> None:
    """Warns about flags that the exported model overrides."""
    if driver.runtime.metadata is None:
        return
    for name in ("model_name", "hparams", "nms_method"):
        if FLAGS[name].present:
            logging.warning("--%s has no effect: the metadata of %s overrides it", name, FLAGS.saved_model_dir)
    score_thresh = driver.config.nms_configs.score_thresh or 0
    if FLAGS["min_score_thresh"].present and FLAGS.min_score_thresh < score_thresh:
        logging.warning("%s was exported with the score threshold %g", FLAGS.saved_model_dir, score_thresh)


def targets_from_flags(name: str):
    """Returns the files that the mode writes; frozen graphs are named after the model."""
    from tf2.export import export

    common = {
        "batch_size": FLAGS.batch_size,
        "file_pattern": FLAGS.file_pattern,
        "num_calibration_steps": FLAGS.num_calibration_steps,
    }
    if FLAGS.runmode == "freeze":
        saved_model_dir = os.path.join(FLAGS.logdir, "savedmodel")
        frozen_graph = os.path.join(FLAGS.logdir, f"{name}_frozen.pb")
        return export.Targets(saved_model_dir, frozen_graph, content="network", **common)
    if FLAGS.runmode == "onnx":
        return export.Targets(onnx=FLAGS.onnx_path, content=FLAGS.onnx_content, onnx_precision=FLAGS.onnx, **common)
    saved_model_dir = FLAGS.saved_model_dir.rstrip("/")
    tensorrt_dir = os.path.join(saved_model_dir, f"tensorrt_{FLAGS.tensorrt.lower()}") if FLAGS.tensorrt else None
    return export.Targets(
        saved_model_dir,
        os.path.join(saved_model_dir, f"{name}_frozen.pb"),
        tflite=FLAGS.tflite_path,
        tflite_content=FLAGS.tflite_content,
        tflite_precision=FLAGS.tflite,
        tensorrt_dir=tensorrt_dir,
        tensorrt_precision=FLAGS.tensorrt or "FP32",
        **common,
    )


def ckpt_path() -> str | None:
    """Returns the checkpoint; None for random weights."""
    return None if FLAGS.ckpt_path == "_" else FLAGS.ckpt_path


def drawing_options(config: config_lib.Config) -> dict:
    """Returns the options of drawn and listed detections."""
    return {
        "min_score_thresh": config.nms_configs.score_thresh or 0.0,
        "max_boxes_to_draw": config.nms_configs.max_output_size,
        "line_thickness": FLAGS.line_thickness,
    }


MODES = {
    "dry": write_checkpoint,
    "ckpt": write_checkpoint,
    "freeze": export_model,
    "saved_model": export_model,
    "onnx": export_model,
    "infer": infer_images,
    "saved_model_infer": infer_images,
    "saved_model_video": run_video,
    "bm": run_benchmark,
    "saved_model_benchmark": run_benchmark,
}


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
