# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Hardware, versions and weights recorded with every reported number."""

import importlib.metadata
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
    if not isinstance(driver, ArtifactDriver):
        return describe_checkpoint(driver.config, driver.ckpt_path)
    metadata, device, versions = driver.metadata, _device(), _versions()
    if isinstance(driver.runtime, NOT_TENSORFLOW):
        device |= {"device": "CPU", "threads": getattr(driver.runtime, "num_threads", None) or None}
    if isinstance(driver.runtime, runtimes.Onnx):
        versions["onnxruntime"] = importlib.metadata.version("onnxruntime")
    if getattr(driver.runtime, "is_litert", False):
        versions["ai-edge-litert"] = importlib.metadata.version("ai-edge-litert")
    return {
        **_model(driver.config),
        "form": type(driver.runtime).__name__,
        "content": metadata.content,
        "precision": metadata.precision,
        "weights": metadata.checkpoint,
        **device,
        "versions": versions,
    }


def describe_checkpoint(config: config_lib.Config, ckpt_path: str | None) -> dict[str, Any]:
    """Returns the same of a checkpoint; None for random weights."""
    return {
        **_model(config),
        "form": "Keras",
        "content": "detector",
        "precision": "FP32",
        "weights": ckpt_path or "random weights",
        **_device(),
        "versions": _versions(),
    }


def _model(config: config_lib.Config) -> dict[str, str]:
    height, width = config.image_size
    return {"model_name": config.name, "image_size": f"{width}x{height}"}


def _device() -> dict[str, Any]:
    gpus = tf.config.list_logical_devices("GPU")
    return {
        "device": gpus[0].name if gpus else "CPU",
        "cpu_name": cpu_name(),
        "cores": runtimes.num_cores(),
        "threads": tf.config.threading.get_intra_op_parallelism_threads() or None,  # None: chosen by TensorFlow
    }


def _versions() -> dict[str, str]:
    versions = {"efficientdet": config_lib.VERSION, "python": platform.python_version()}
    return versions | {"tensorflow": tf.__version__, "numpy": np.__version__}


def cpu_name() -> str:
    """Returns the model name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")  # Linux only
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
