# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Looks at, measures, exports and runs an EfficientDet.

    python model_inspect.py --runmode=infer --model_name=efficientdet-d0 --ckpt_path=efficientdet-d0 \\
        --input_image=testdata/img1.jpg --output_image_dir=/tmp/drawn
    python model_inspect.py --runmode=saved_model --model_name=efficientdet-d0 --ckpt_path=efficientdet-d0 \\
        --saved_model_dir=/tmp/saved_model
    python model_inspect.py --runmode=saved_model_benchmark --saved_model_dir=/tmp/saved_model

Run modes: dry (writes the graph of a training), ckpt (loads a checkpoint, and writes it in another format), freeze (the
network alone), saved_model (SavedModel and frozen graph; TFLite and TensorRT on request) and onnx; bm (times the
network); infer (pictures, by a checkpoint). saved_model_infer, saved_model_video and saved_model_benchmark take any
exported file.
"""

import os

# Before TensorFlow is imported: level 3 keeps back notes about the CPU, and the three "errors" that TensorFlow 2.15
# writes at every start where CUDA is absent. What really fails is raised.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Likewise OpenCV, which TensorFlow may import: a video that cannot be read is told in a sentence.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

from absl import flags, logging

from dataset import command_line, label_map
from efficientdet import config as config_lib

FLAGS = flags.FLAGS
# Flags of the published program that mean nothing here: accepted, so that published commands run.
MEANINGLESS = {
    "delete_logdir": "nothing is ever deleted; what exists is refused",
    "freeze": "nothing read it; --runmode=freeze writes a frozen graph",
}
EXPORTS = ("freeze", "saved_model", "onnx")
FROM_CHECKPOINT = ("dry", "ckpt", *EXPORTS, "bm", "infer")
FROM_FILE = ("saved_model_infer", "saved_model_video", "saved_model_benchmark")
# What each mode cannot do without; of a group in a tuple, one.
NEEDS = {
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
    """Defines every flag; a function, so that reading this file defines none."""
    with command_line.group("What to do"):
        flags.DEFINE_enum("runmode", "dry", list(NEEDS), "One of the modes above.")
        flags.DEFINE_string("model_name", "efficientdet-d0", f"One of {', '.join(config_lib.MODELS)}.")
        flags.DEFINE_string(
            "hparams", "", "Keys of efficientdet/config.py: a .yaml file, or 'k=v,nms_configs.iou_thresh=0.6'."
        )
        flags.DEFINE_integer("threads", 0, "Threads of one operation; 0: one a core.", lower_bound=0)
    with command_line.group("Checkpoint", FROM_CHECKPOINT):
        flags.DEFINE_string(
            "ckpt_path",
            None,
            "Folder, prefix or .h5 file of a checkpoint, or the name of released weights; '_' for random weights.",
        )
    with command_line.group("Exported file", ["saved_model", "bm", *FROM_FILE]):
        flags.DEFINE_string(
            "saved_model_dir",
            "/tmp/saved_model",
            "saved_model: a folder that does not exist yet. Else: a SavedModel, or a .pb, .tflite or .onnx file.",
        )
    with command_line.group("Batches", [*EXPORTS, "bm", "infer", "saved_model_infer", "saved_model_benchmark"]):
        flags.DEFINE_integer(
            "batch_size", 1, "Pictures at once; in an exported file 0 means any number.", lower_bound=0
        )
    defaults = config_lib.INFERENCE_NMS
    with command_line.group(
        "Detections; an exported detector keeps these", ["saved_model", "onnx", "infer", *FROM_FILE]
    ):
        flags.DEFINE_float("min_score_thresh", defaults["score_thresh"], "Lowest score, 0 to 1.", 0.0, 1.0)
        flags.DEFINE_integer(
            "max_boxes_to_draw", defaults["max_output_size"], "Most detections in a picture.", lower_bound=1
        )
        flags.DEFINE_string("nms_method", defaults["method"], "Suppression: hard or gaussian.")
    define_export_flags()
    define_inference_flags()
    with command_line.group("Benchmark", ["bm", "saved_model_benchmark"]):
        flags.DEFINE_integer("bm_runs", 10, "Timed runs.", lower_bound=1)
        flags.DEFINE_string("trace_filename", None, "File for a Chrome trace of one run.")
        flags.DEFINE_string("benchmark_json", None, "File for the table as JSON.")
        flags.DEFINE_bool("use_xla", False, "With --runmode=bm: compiles clusters of operations with XLA, on GPUs.")
    with command_line.group("Of the published program, without effect"):
        for name, why in MEANINGLESS.items():
            flags.DEFINE_bool(name, None, f"Has no effect: {why}.")


def define_export_flags() -> None:
    """What is written, and how it is proved."""
    with command_line.group("Folder", ["dry", "freeze"]):
        flags.DEFINE_string("logdir", "/tmp/deff/", "Folder for what is written.")
    with command_line.group("Checkpoint to write", ["dry", "ckpt"]):
        flags.DEFINE_string("export_ckpt", None, "Prefix of the checkpoint to write; of hdf5, a name ending in .h5.")
        flags.DEFINE_enum("export_ckpt_format", "name", ["name", "object", "hdf5"], "Format of that checkpoint.")
    with command_line.group("Beside the SavedModel", ["saved_model"]):
        flags.DEFINE_string("tflite_path", None, "A .tflite file to write as well.")
        flags.DEFINE_enum("tflite", "FP32", ["FP32", "FP16", "INT8"], "Precision of that file.")
        flags.DEFINE_enum(
            "tflite_content",
            "detector",
            ["detector", "detection_op", "network"],
            "detector: pictures to detections, all inside; detection_op: normalized images to the op "
            "TFLite_Detection_PostProcess; network: normalized images to raw outputs.",
        )
        flags.DEFINE_enum(
            "tensorrt",
            None,
            ["FP32", "FP16", "INT8"],
            "Precision of a TensorRT SavedModel to write as well, into saved_model_dir; needs an NVIDIA GPU.",
        )
        flags.DEFINE_string("file_pattern", None, "TFRecords whose images show INT8 the ranges of its tensors.")
        flags.DEFINE_integer("num_calibration_steps", 500, "Images of --file_pattern to read, at most.", lower_bound=1)
    with command_line.group("ONNX", ["onnx"]):
        flags.DEFINE_string("onnx_path", None, "The .onnx file to write.")
        flags.DEFINE_enum(
            "onnx_content", "detector", ["detector", "network"], "What is in it, as for --tflite_content."
        )
    with command_line.group("Proof", EXPORTS):
        flags.DEFINE_bool(
            "proof", True, "Holds each exported file against the checkpoint, and writes FILE.report.json."
        )
        flags.DEFINE_string(
            "proof_images", None, "Pictures that both detect in: file, folder, glob or list; default: generated ones."
        )
        flags.DEFINE_string(
            "val_file_pattern",
            None,
            "TFRecords on which both get an AP, under the same NMS; default: none is computed.",
        )
        flags.DEFINE_string("val_json_file", None, "COCO groundtruth of these records; default: what is in them.")
        flags.DEFINE_integer("eval_samples", None, "Images of these records to evaluate; default: all.", lower_bound=1)
        flags.DEFINE_float("max_ap_drop", 0.02, "AP that an exported file may lose, 0 to 1.", 0.0, 1.0)


def define_inference_flags() -> None:
    """Pictures and video."""
    with command_line.group("Pictures", ["infer", "saved_model_infer", "saved_model_benchmark"]):
        flags.DEFINE_string("input_image", None, "Pictures: file, folder, glob in quotes, or a .txt of paths.")
    with command_line.group("What is written of them", ["infer", "saved_model_infer"]):
        flags.DEFINE_string("output_image_dir", None, "Folder for the pictures with boxes drawn, 0.jpg and on.")
        flags.DEFINE_enum(
            "output_names", "index", ["index", "input"], "Names of the pictures: {i}.jpg, or the inputs'."
        )
        flags.DEFINE_string("output_json", None, "File for detections as JSON, by picture.")
        flags.DEFINE_string("output_csv", None, "File for detections as CSV, a line each.")
        flags.DEFINE_string("output_coco", None, "File for detections as COCO results.")
    with command_line.group("Video", ["saved_model_video"]):
        flags.DEFINE_string("input_video", None, "A file, or the number of a camera.")
        flags.DEFINE_string("output_video", None, "An .mp4, .mov or .avi file; default: a window.")
    with command_line.group("Drawing", ["infer", "saved_model_infer", "saved_model_video"]):
        flags.DEFINE_integer("line_thickness", None, "Pixels of the lines of boxes; default: suits the picture.")


def main() -> None:
    """Runs the mode."""
    run(load_config())


def load_config() -> config_lib.Config:
    """Checks the flags, and reads the config; flags with a default of their own go below hparams unless typed."""
    for name, why in MEANINGLESS.items():
        if FLAGS[name].present:
            logging.info("--%s has no effect: %s", name, why)
    for name in command_line.unused(FLAGS.runmode):
        logging.warning("--%s has no effect with --runmode=%s", name, FLAGS.runmode)
    keys = {"method": "nms_method", "score_thresh": "min_score_thresh", "max_output_size": "max_boxes_to_draw"}
    typed = {key: FLAGS[flag].value for key, flag in keys.items() if FLAGS[flag].present}
    layers = {"nms_configs": config_lib.INFERENCE_NMS}, config_lib.read_hparams(FLAGS.hparams), {"nms_configs": typed}
    config = config_lib.load(FLAGS.model_name).override(*layers)
    label_map.check(label_map.resolve(config.label_map), config.num_classes)
    if config.mixed_precision:
        logging.warning(
            "mixed_precision is for training; here is float32, and 16 bits by --tflite=FP16 or --tensorrt=FP16"
        )
    for names in NEEDS[FLAGS.runmode]:
        group = (names,) if isinstance(names, str) else names
        if not any(FLAGS[name].value for name in group):
            raise ValueError(
                f"--runmode={FLAGS.runmode} needs --{' or --'.join(group)}; --help lists the flags by mode"
            )
    if FLAGS.use_xla and FLAGS.runmode != "bm":
        raise ValueError("--use_xla is for --runmode=bm; leave it out")
    if FLAGS.export_ckpt and FLAGS.runmode not in ("dry", "ckpt"):
        raise ValueError("--export_ckpt is for --runmode=ckpt and dry; leave it out")
    if not FLAGS.proof:
        for name in ("proof_images", "val_file_pattern", "val_json_file", "max_ap_drop"):
            if FLAGS[name].present:
                raise ValueError(f"--{name} is for the proof; leave it or --noproof out")
    if FLAGS.runmode == "saved_model" and not FLAGS.tflite_path:
        for name in ("tflite", "tflite_content"):
            if FLAGS[name].present:
                raise ValueError(f"--{name} needs --tflite_path, the file to write")
    return config


def run(config: config_lib.Config) -> None:
    """The mode's work; TensorFlow takes seconds to import, so a typing error has answered before."""
    if FLAGS.threads:
        from tf2.benchmarks import latency

        latency.set_threads(FLAGS.threads)
    from tf2.training import strategy

    with strategy.device_errors("lower --batch_size, or nms_configs.max_nms_inputs or image_size in --hparams"):
        MODES[FLAGS.runmode](config)


def write_checkpoint(config: config_lib.Config) -> None:
    """dry, ckpt: the network as it is trained; its weights in a format of checkpoints."""
    from tf2.export import checkpoints
    from tf2.inference import drivers

    prefix, options = FLAGS.export_ckpt, {"format": FLAGS.export_ckpt_format}
    if FLAGS.runmode == "dry":
        checkpoints.check_dry(config, FLAGS.logdir)
    if prefix:
        checkpoints.check_target(prefix, **options)
    net = drivers.KerasDriver(config, ckpt_path()).model.net
    if FLAGS.runmode == "dry":
        checkpoints.dry(net, FLAGS.logdir)
    if prefix:
        checkpoints.export(net, prefix, **options)


def export_model(config: config_lib.Config) -> None:
    """freeze, saved_model, onnx: writes files, each with its proof."""
    from dataset.check import checks
    from tf2.evaluation import evaluator
    from tf2.export import export, parity
    from tf2.inference import drivers
    from tf2.inference.images import find_images, read_image

    targets = targets_from_flags()
    if FLAGS.runmode == "freeze":
        os.makedirs(FLAGS.logdir, exist_ok=True)
    export.check(config, targets)
    images = [read_image(path) for path in find_images(FLAGS.proof_images)] if FLAGS.proof_images else None
    evaluation = None
    if FLAGS.val_file_pattern:
        evaluation = evaluator.Evaluation(
            FLAGS.val_file_pattern, FLAGS.val_json_file, FLAGS.batch_size or 1, FLAGS.eval_samples
        )
        for warning in checks.quick(FLAGS.val_file_pattern, config, FLAGS.val_json_file):
            logging.warning("%s", warning)
    driver = drivers.KerasDriver(config, ckpt_path())

    def prove(path: str) -> None:
        parity.check(driver, path, images=images, evaluation=evaluation, max_ap_drop=FLAGS.max_ap_drop)

    export.run(driver, targets, prove if FLAGS.proof else None)


def infer_images(config: config_lib.Config) -> None:
    """infer, saved_model_infer."""
    from tf2.inference import images

    outputs = images.OutputPaths(
        FLAGS.output_image_dir, FLAGS.output_names, FLAGS.output_json, FLAGS.output_csv, FLAGS.output_coco
    )
    images.find_images(FLAGS.input_image)  # before the model is built
    driver = open_driver(config)
    images.run(driver, FLAGS.input_image, outputs, batch_size=FLAGS.batch_size or 1, **drawing(config))


def run_video(config: config_lib.Config) -> None:
    """saved_model_video."""
    from tf2.inference import video

    frames = video.run(open_driver(config), FLAGS.input_video, output_video=FLAGS.output_video, **drawing(config))
    if FLAGS.output_video:
        print(f"writing file to {FLAGS.output_video}: {frames} frames")


def measure(config: config_lib.Config) -> None:
    """bm, saved_model_benchmark."""
    from tf2.benchmarks import latency

    options = {
        "batch_size": FLAGS.batch_size,
        "runs": FLAGS.bm_runs,
        "trace_filename": FLAGS.trace_filename,
        "json_path": FLAGS.benchmark_json,
    }
    driver = open_driver(config)
    if FLAGS.runmode == "bm":
        latency.bm(driver, use_xla=FLAGS.use_xla, **options)
    else:
        latency.saved_model_benchmark(driver, FLAGS.input_image, **options)


def open_driver(config: config_lib.Config):
    """The detector that a mode runs: an exported file, or a checkpoint; bm takes either."""
    from tf2.inference import drivers

    if FLAGS.runmode.startswith("saved_model_") or (FLAGS.runmode == "bm" and FLAGS["saved_model_dir"].present):
        content = "network" if FLAGS.runmode == "bm" else None
        threads = FLAGS.threads or None
        driver = drivers.open_artifact(FLAGS.saved_model_dir, config, content=content, num_threads=threads)
        explain(driver)
        return driver
    return drivers.KerasDriver(config, ckpt_path())


def explain(driver) -> None:
    """Says which flags an exported file has made up its mind about."""
    if driver.runtime.metadata is None:
        return
    for name in ("model_name", "hparams", "nms_method"):
        if FLAGS[name].present:
            logging.warning("--%s has no effect: %s says itself what it is", name, FLAGS.saved_model_dir)
    score_thresh = driver.config.nms_configs.score_thresh or 0
    if FLAGS["min_score_thresh"].present and FLAGS.min_score_thresh < score_thresh:
        logging.warning("%s was exported to give no score below %g", FLAGS.saved_model_dir, score_thresh)


def targets_from_flags():
    """What the mode writes."""
    from tf2.export import export

    common = {
        "batch_size": FLAGS.batch_size,
        "file_pattern": FLAGS.file_pattern,
        "num_calibration_steps": FLAGS.num_calibration_steps,
    }
    if FLAGS.runmode == "freeze":
        saved_model_dir = os.path.join(FLAGS.logdir, "savedmodel")
        frozen_graph = os.path.join(FLAGS.logdir, f"{FLAGS.model_name}_frozen.pb")
        return export.Targets(saved_model_dir, frozen_graph, content="network", **common)
    if FLAGS.runmode == "onnx":
        return export.Targets(onnx=FLAGS.onnx_path, content=FLAGS.onnx_content, **common)
    saved_model_dir = FLAGS.saved_model_dir.rstrip("/")
    tensorrt_dir = os.path.join(saved_model_dir, f"tensorrt_{FLAGS.tensorrt.lower()}") if FLAGS.tensorrt else None
    return export.Targets(
        saved_model_dir,
        os.path.join(saved_model_dir, f"{FLAGS.model_name}_frozen.pb"),
        tflite=FLAGS.tflite_path,
        tflite_content=FLAGS.tflite_content,
        tflite_precision=FLAGS.tflite,
        tensorrt_dir=tensorrt_dir,
        tensorrt_precision=FLAGS.tensorrt or "FP32",
        **common,
    )


def ckpt_path() -> str | None:
    """The checkpoint; None for random weights."""
    return None if FLAGS.ckpt_path == "_" else FLAGS.ckpt_path


def drawing(config: config_lib.Config) -> dict:
    """What is drawn and listed of that which is found, and how."""
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
    "bm": measure,
    "saved_model_benchmark": measure,
}


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
