# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Detects with MediaPipe Tasks: a .tflite file of the content detection_op, which MediaPipe stretches images to.

python with_mediapipe.py detection_op.tflite IMAGE...
"""

import json
import sys

# [docs]
import mediapipe
from mediapipe.tasks.python import BaseOptions, vision

# [end]
path, *files = sys.argv[1:]
found = []
# [docs]
options = vision.ObjectDetectorOptions(base_options=BaseOptions(model_asset_path=path))
detector = vision.ObjectDetector.create_from_options(options)
# [end]
for file in files:
    # [docs]
    detections = detector.detect(mediapipe.Image.create_from_file(file)).detections
    # [end]
    rows = []
    for detection in detections:
        box, category = detection.bounding_box, detection.categories[0]  # whole pixels
        corners = [box.origin_y, box.origin_x, box.origin_y + box.height, box.origin_x + box.width]
        rows.append({"box": corners, "score": category.score, "class": category.category_name})
    found.append(rows)
detector.close()
print(json.dumps(found))
