# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Detects with ONNX Runtime: an .onnx file of the content detector, simplified by onnxslim.

python with_onnxslim.py detector.onnx IMAGE...
"""

import json
import sys

# [docs]
import numpy as np
import onnx
import onnxruntime
import onnxslim
from PIL import Image

# [end]
path, *files = sys.argv[1:]
found = []
# [docs]
model = onnxslim.slim(onnx.load(path))
session = onnxruntime.InferenceSession(model.SerializeToString())
# [end]
for file in files:
    # [docs]
    pixels = np.asarray(Image.open(file).convert("RGB"))  # [height, width, 3] uint8, any size
    detections = session.run(["detections"], {"image_arrays": pixels[np.newaxis]})[0][0]
    # [end]
    # Rows of [image, ymin, xmin, ymax, xmax, score, class]; those with score 0 are padding.
    rows = detections[detections[:, 5] > 0].tolist()
    found.append([{"box": row[1:5], "score": row[5], "class": int(row[6])} for row in rows])
print(json.dumps(found))
