# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Detects with OpenVINO in all images at once: an .onnx file of the content detector for any number of images.

python with_openvino_batch.py detector.onnx IMAGE...
"""

import json
import sys

# [docs]
import numpy as np
import openvino
from PIL import Image

# [end]
path, *files = sys.argv[1:]
# [docs]
model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])  # images of one size
detections = model({"image_arrays": pixels})["detections"]
# [end]
found = []
for rows in detections:
    # Rows of [image, ymin, xmin, ymax, xmax, score, class]; those with score 0 are padding.
    rows = rows[rows[:, 5] > 0].tolist()
    found.append([{"box": row[1:5], "score": row[5], "class": int(row[6])} for row in rows])
print(json.dumps(found))
