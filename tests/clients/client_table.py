# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The programs of others that exported files are run with: packages, files, scripts and required agreement."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

FOLDER = pathlib.Path(__file__).parent
CHECKPOINT = "runs/bccd"
CALIBRATION = "bccd/trainval-*"
PRECISIONS = "FP32", "FP16", "INT8"
STRETCH = "--hparams=keep_aspect_ratio=false"
IMAGES, FITTED = "images", "fitted"  # folders of a workplace: photos, and the same scaled and padded to network inputs


@dataclasses.dataclass(frozen=True)
class File:
    """An exported file."""

    path: str  # in a workplace
    options: str  # flags of model_inspect.py, beside --ckpt_path

    @property
    def flags(self) -> str:
        """The flags of model_inspect.py that write it."""
        runmode, _, options = self.options.partition(" ")
        return f"{runmode} --ckpt_path={CHECKPOINT} {options}"

    @property
    def needs_records(self) -> bool:
        """True if it is calibrated with records."""
        return CALIBRATION in self.options


@dataclasses.dataclass(frozen=True)
class Environment:
    """Packages that are installed together."""

    name: str
    requirements: tuple[str, ...]
    python: str = "3.11"


@dataclasses.dataclass(frozen=True)
class Client:
    """A program that detects with an exported file."""

    title: str
    environment: Environment
    script: str  # in this folder
    file: File
    images: str = IMAGES  # the folder of the images
    returns_whole_pixels: bool = False  # as the upper left corner and the size of boxes, rounded down
    min_iou: float = 0.99  # of a detection that counts as found
    min_share: float = 1.0  # of the detections of the checkpoint that must be found

    @property
    def stretches(self) -> bool:
        """True if images are stretched to the network input instead of being padded."""
        return STRETCH in self.file.options

    @property
    def package(self) -> str:
        """Name and version of the package that runs the file, the first requirement."""
        return self.environment.requirements[0].replace("==", " ")

    @property
    def name(self) -> str:
        """Key of the client in the results, unique among CLIENTS."""
        script = self.script.removeprefix("with_")
        name = f"{self.environment.name}/{script}/{pathlib.PurePath(self.file.path).name}"
        return name if self.images == IMAGES else f"{name}/{self.images}"

    def failure(self, result: Mapping[str, Any]) -> str | None:
        """Returns the reason why figures of `Workplace.measure` are not good enough; None if they are."""
        if "error" in result:
            return f"does not run: {result['error']}"
        if not result["expected"]:
            return "the checkpoint detects nothing"
        if result["found"] < self.min_share * result["expected"]:
            return f"found {result['found']} of {result['expected']} detections at IoU {self.min_iou}"
        return None

    def snippet(self) -> str:
        """Returns the lines of the script between "# [docs]" and "# [end]", without indentation."""
        lines, is_shown = [], False
        for line in (FOLDER / f"{self.script}.py").read_text().splitlines():
            if line.strip() in ("# [docs]", "# [end]"):
                is_shown, indent = line.strip() == "# [docs]", line.index("#")
            elif is_shown:
                lines.append(line[indent:])
        return "\n".join(lines).strip()


SAVED_MODEL = File("exports/saved_model", "--runmode=saved_model --saved_model_dir=exports/saved_model")
ONNX_DETECTOR = File("exports/detector.onnx", "--runmode=onnx --onnx_path=exports/detector.onnx")
ONNX_BATCHES = File("exports/batches.onnx", "--runmode=onnx --onnx_path=exports/batches.onnx --batch_size=0")
ONNX_NETWORK = File("exports/network.onnx", "--runmode=onnx --onnx_path=exports/network.onnx --onnx_content=network")


def _tflite(name: str, content: str, precision: str, *more: str) -> File:
    """Returns a TFLite file, which is written beside a SavedModel; `more` are further flags."""
    path = f"exports/{name}.tflite"
    flags = ["--runmode=saved_model", f"--saved_model_dir=exports/{name}", f"--tflite_path={path}"]
    flags += [f"--tflite_content={content}", f"--tflite={precision}", *more]
    if precision == "INT8":
        flags += [f"--file_pattern='{CALIBRATION}'", "--num_calibration_steps=100"]
    return File(path, " ".join(flags))


TFLITE_DETECTOR = _tflite("detector", "detector", "FP32")
TFLITE_OPS = [_tflite(f"detection_op_{precision}", "detection_op", precision) for precision in PRECISIONS]
TFLITE_STRETCHED = [_tflite(f"stretched_{precision}", "detection_op", precision, STRETCH) for precision in PRECISIONS]

# Versions are fixed, so that figures can be repeated. OpenCV: the newest that the 3.11 lane takes, and the newest.
ONNXRUNTIME = Environment("onnxruntime", ("onnxruntime==1.32.0", "pillow"))
ONNXSIM = Environment("onnxsim", ("onnxsim==0.8.1", "onnxruntime==1.32.0", "pillow"))
ONNXSLIM = Environment("onnxslim", ("onnxslim==0.1.98", "onnxruntime==1.32.0", "pillow"))
OPENVINO = Environment("openvino", ("openvino==2026.4.1", "pillow"))
OPENCV_4 = Environment("opencv4", ("opencv-python-headless==4.11.0.86", "numpy<2"))
OPENCV_5 = Environment("opencv5", ("opencv-python-headless==5.0.0.93", "numpy"))
LITERT = Environment("litert", ("ai-edge-litert==2.3.0", "pillow", "opencv-python-headless"))
TENSORFLOW = Environment("tensorflow", ("tensorflow-cpu==2.18.1", "pillow"))
MEDIAPIPE = Environment("mediapipe", ("mediapipe==1.2.3",))
# Its wheels: Python 3.9 at most, built for numpy 1. It links to libusb.
TASK_LIBRARY = Environment("task_library", ("tflite-support==0.4.4", "numpy<2", "libusb-package"), python="3.9")

CLIENTS = (
    Client("TensorFlow", TENSORFLOW, "with_tensorflow", SAVED_MODEL),
    Client("TensorFlow, encoded images", TENSORFLOW, "with_tensorflow_encoded", SAVED_MODEL),
    Client("ONNX Runtime", ONNXRUNTIME, "with_onnxruntime", ONNX_DETECTOR),
    Client("onnxsim", ONNXSIM, "with_onnxsim", ONNX_DETECTOR),
    Client("onnxslim", ONNXSLIM, "with_onnxslim", ONNX_DETECTOR),
    Client("OpenVINO", OPENVINO, "with_openvino", ONNX_DETECTOR),
    Client("OpenVINO, all images at once", OPENVINO, "with_openvino_batch", ONNX_BATCHES),
    Client("OpenCV 4", OPENCV_4, "with_opencv", ONNX_NETWORK),
    Client("OpenCV 5", OPENCV_5, "with_opencv", ONNX_NETWORK),
    Client("LiteRT", LITERT, "with_litert_detector", TFLITE_DETECTOR),
    *(
        Client("LiteRT", LITERT, "with_litert_detection_op", file, **bounds)
        for file, bounds in zip(TFLITE_OPS, ({}, {"min_iou": 0.9}, {"min_iou": 0.9, "min_share": 0.9}))
    ),
    # Both stretch images to the network input, each in its own way; there is nothing to do for fitted ones.
    *(
        Client(title, environment, script, file, images, True, min_iou=0.9, min_share=min_share)
        for title, environment, script in (
            ("MediaPipe Tasks", MEDIAPIPE, "with_mediapipe"),
            ("TFLite Task Library", TASK_LIBRARY, "with_task_library"),
        )
        for images, files, min_shares in (
            (FITTED, TFLITE_OPS, (1.0, 1.0, 0.9)),
            (IMAGES, TFLITE_STRETCHED, (0.8, 0.8, 0.8)),
        )
        for file, min_share in zip(files, min_shares)
    ),
)
