# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Detects with OpenVINO: an .onnx file of the content detector.

python with_openvino.py detector.onnx IMAGE...
"""

import json
import sys

# [docs]
import numpy as np
import openvino
from PIL import Image

# [end]
path, *files = sys.argv[1:]
found = []
# [docs]
# Without the hint, CPUs that support it compute in 16 bits, which moves boxes by up to a pixel.
model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
# [end]
for file in files:
    # [docs]
    pixels = np.asarray(Image.open(file).convert("RGB"))  # [height, width, 3] uint8, any size
    detections = model({"image_arrays": pixels[np.newaxis]})["detections"][0]
    # [end]
    # Rows of [image, ymin, xmin, ymax, xmax, score, class]; those with score 0 are padding.
    rows = detections[detections[:, 5] > 0].tolist()
    found.append([{"box": row[1:5], "score": row[5], "class": int(row[6])} for row in rows])
print(json.dumps(found))
