# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Detects with LiteRT, without TensorFlow: a .tflite file of the content detection_op, float or INT8.

    python with_litert_detection_op.py detection_op.tflite IMAGE...

Outputs are read by position, as programs for the detectors of TensorFlow Lite Model Maker do.
"""

import json
import sys

# [docs]
import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

# [end]
path, *files = sys.argv[1:]
found = []
# [docs]
interpreter = Interpreter(path)
interpreter.allocate_tensors()
[images] = interpreter.get_input_details()
size = images["shape"][1]
# [end]
for file in files:
    # [docs]
    # The image at the top left of a square of the mean color, scaled as float, because rounded pixels change scores.
    image = cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB).astype(np.float32)
    scale = size / max(image.shape)
    image = cv2.resize(image, None, fx=scale, fy=scale)
    padding = [(0, size - image.shape[0]), (0, size - image.shape[1]), (0, 0)]
    image = np.pad(image, padding, constant_values=127)
    # INT8 takes pixels as they are.
    image = (image - 127) / 128 if images["dtype"] == np.float32 else image.round().astype(np.uint8)
    interpreter.set_tensor(images["index"], image[np.newaxis])
    interpreter.invoke()
    outputs = [interpreter.get_tensor(output["index"])[0] for output in interpreter.get_output_details()]
    boxes, classes, scores, count = outputs  # boxes in 0..1 of the square, classes from 0
    # [end]
    rows = zip(boxes[: int(count)].clip(0, 1) * size / scale, classes, scores)
    found.append([{"box": box.tolist(), "score": float(score), "class": int(c) + 1} for box, c, score in rows])
print(json.dumps(found))
