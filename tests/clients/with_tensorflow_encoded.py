# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Detects with TensorFlow of any version: a SavedModel, on the bytes of image files, as TensorFlow Serving gets them.

python with_tensorflow_encoded.py saved_model IMAGE...
"""

import json
import sys

# [docs]
import tensorflow as tf

# [end]
path, *files = sys.argv[1:]
found = []
# [docs]
detector = tf.saved_model.load(path).signatures["encoded"]
# [end]
for file in files:
    # [docs]
    detections = detector(image_files=[tf.io.read_file(file)])["detections"][0].numpy()
    # [end]
    # Rows of [image, ymin, xmin, ymax, xmax, score, class]; those with score 0 are padding.
    rows = detections[detections[:, 5] > 0].tolist()
    found.append([{"box": row[1:5], "score": row[5], "class": int(row[6])} for row in rows])
print(json.dumps(found))
