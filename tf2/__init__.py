# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""EfficientDet for TensorFlow 2: detectors from weights and from exported files.

    import tf2

    detector = tf2.load("efficientdet-d0")  # or tf2.open("model.tflite")
    boxes, scores, classes, count = detector.detect("street.jpg")
    names = [detector.name_of(class_id) for class_id in classes]

`load` is `tf2.inference.drivers.load`, `open` is `tf2.inference.drivers.open_artifact`. They are imported on first use:
`import tf2` does not import TensorFlow, which takes seconds.
"""


def __getattr__(name: str):
    if name not in ("load", "open"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dataset import native_log

    native_log.hide_start_notes()
    from tf2.inference import drivers

    return drivers.load if name == "load" else drivers.open_artifact
