# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Hardware, versions and weights recorded with every reported number."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from efficientdet import config as config_lib
from tf2.inference import runtimes
from tf2.inference.drivers import ArtifactDriver, Driver

NOT_TENSORFLOW = (runtimes.TFLite, runtimes.Onnx)  # with their own threads, on the CPU, and without traces


def describe(driver: Driver) -> dict[str, Any]:
    """Returns model, weights, device and versions of a detector, as plain JSON types."""
    height, width = driver.config.image_size
    about = {"model_name": driver.config.name, "image_size": f"{width}x{height}"}
    versions = {"efficientdet": config_lib.VERSION, "python": platform.python_version()}
    versions |= {"tensorflow": tf.__version__, "numpy": np.__version__}
    gpus = tf.config.list_logical_devices("GPU")
    threads = tf.config.threading.get_intra_op_parallelism_threads()  # 0: chosen by TensorFlow
    if isinstance(driver, ArtifactDriver):
        metadata = driver.metadata
        about |= {"form": type(driver.runtime).__name__, "content": metadata.content, "precision": metadata.precision}
        about["weights"] = metadata.checkpoint
        if isinstance(driver.runtime, NOT_TENSORFLOW):
            gpus, threads = [], getattr(driver.runtime, "num_threads", None)
        if isinstance(driver.runtime, runtimes.Onnx):
            versions["onnxruntime"] = importlib.metadata.version("onnxruntime")
    else:
        about |= {"form": "Keras", "content": "detector", "precision": "FP32"}
        about["weights"] = driver.ckpt_path or "random weights"
    return about | {
        "device": gpus[0].name if gpus else "CPU",
        "cpu_name": cpu_name(),
        "cores": num_cores(),
        "threads": threads or None,
        "versions": versions,
    }


def cpu_name() -> str:
    """Returns the model name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")  # Linux only
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def num_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
