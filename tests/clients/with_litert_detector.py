# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Detects with LiteRT, without TensorFlow: a .tflite file of the content detector.

python with_litert_detector.py detector.tflite IMAGE...
"""

import json
import sys

# [docs]
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

# [end]
path, *files = sys.argv[1:]
found = []
# [docs]
detector = Interpreter(path).get_signature_runner()
# [end]
for file in files:
    # [docs]
    pixels = np.asarray(Image.open(file).convert("RGB"))  # [height, width, 3] uint8, any size
    detections = detector(image_arrays=pixels[np.newaxis])["detections"][0]
    # [end]
    # Rows of [image, ymin, xmin, ymax, xmax, score, class]; those with score 0 are padding.
    rows = detections[detections[:, 5] > 0].tolist()
    found.append([{"box": row[1:5], "score": row[5], "class": int(row[6])} for row in rows])
print(json.dumps(found))
