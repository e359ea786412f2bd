# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Detects with the TensorFlow Lite Task Library: a .tflite file of the content detection_op; stretches images to it.

python with_task_library.py detection_op.tflite IMAGE...
"""

import ctypes
import json
import sys

import libusb_package

# The package links to libusb, for Coral's accelerators; where the system has it, this line is not needed.
ctypes.CDLL(str(libusb_package.get_library_path()), ctypes.RTLD_GLOBAL)

# [docs]
from tflite_support.task import core, vision

# [end]
path, *files = sys.argv[1:]
found = []
# [docs]
options = vision.ObjectDetectorOptions(core.BaseOptions(path))
detector = vision.ObjectDetector.create_from_options(options)
# [end]
for file in files:
    # [docs]
    detections = detector.detect(vision.TensorImage.create_from_file(file)).detections
    # [end]
    rows = []
    for detection in detections:
        box, category = detection.bounding_box, detection.categories[0]  # whole pixels
        corners = [box.origin_y, box.origin_x, box.origin_y + box.height, box.origin_x + box.width]
        rows.append({"box": corners, "score": category.score, "class": category.category_name})
    found.append(rows)
print(json.dumps(found))
