# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Export: a detector as a SavedModel that takes pictures and gives boxes."""

import os

import tensorflow as tf

from efficientdet import postprocess
from tf2.drivers import KerasDriver


def check_target(path: str) -> None:
    """Raises ValueError if something stands where an export would go; asked before the work begins."""
    if os.path.exists(path) and (not os.path.isdir(path) or os.listdir(path)):
        raise ValueError(f"{path} exists already; remove it or choose another --saved_model_dir")


def saved_model(driver: KerasDriver, path: str, *, batch_size: int = 1) -> list[str]:
    """Writes a SavedModel with the signature serving_default.

    It takes `image_arrays`, [B, H, W, 3] uint8 pictures of any one size, and gives `detections`,
    [B, D, 7] float32 rows of [index in the batch, ymin, xmin, ymax, xmax, score, class], in pixels of the
    pictures; rows of padding are 0. Preprocessing and non-maximum suppression are inside.

    Args:
        driver: the detector.
        path: a directory that does not exist or is empty.
        batch_size: pictures a call; 0 for any number.

    Returns:
        The files written.

    Raises:
        ValueError: if the target exists.
    """
    check_target(path)
    model = driver.model

    @tf.function(input_signature=[tf.TensorSpec([batch_size or None, None, None, 3], tf.uint8, name="image_arrays")])
    def serve(image_arrays):
        return {"detections": postprocess.to_rows(model(image_arrays))}

    # The variables alone: with its layers in it, every one of them would be traced and saved on its own.
    module = tf.Module()
    module.weights = model.net.weights
    tf.saved_model.save(module, path, signatures={"serving_default": serve.get_concrete_function()})
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
