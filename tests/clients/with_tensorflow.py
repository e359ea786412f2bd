# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Detects with TensorFlow of any version: a SavedModel, on pixels.

python with_tensorflow.py saved_model IMAGE...
"""

import json
import sys

# [docs]
import numpy as np
import tensorflow as tf
from PIL import Image

# [end]
path, *files = sys.argv[1:]
found = []
# [docs]
detector = tf.saved_model.load(path).signatures["serving_default"]
# [end]
for file in files:
    # [docs]
    pixels = np.asarray(Image.open(file).convert("RGB"))  # [height, width, 3] uint8, any size
    detections = detector(image_arrays=pixels[np.newaxis])["detections"][0].numpy()
    # [end]
    # Rows of [image, ymin, xmin, ymax, xmax, score, class]; those with score 0 are padding.
    rows = detections[detections[:, 5] > 0].tolist()
    found.append([{"box": row[1:5], "score": row[5], "class": int(row[6])} for row in rows])
print(json.dumps(found))
