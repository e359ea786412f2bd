# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Detects with OpenCV's dnn: an .onnx file of the content network; boxes and their suppression are computed here.

python with_opencv.py network.onnx IMAGE...
"""

import json
import sys

# [docs]
import cv2
import numpy as np

# [end]
SCORE_THRESH, IOU_THRESH = 0.4, 0.5
# Of EfficientDet-Lite0; of other models, see the config.yaml of a training.
SIZE, MEAN, STDDEV, ANCHOR_SCALE = 320, 127, 128, 3.0
LEVELS, OCTAVES, ASPECT_RATIOS = range(3, 8), (0, 1 / 3, 2 / 3), (1.0, 2.0, 0.5)
ANCHORS_PER_CELL = len(OCTAVES) * len(ASPECT_RATIOS)


def level_anchors(level: int) -> np.ndarray:
    """Returns the anchors of a level, [N, 4] of [ycenter, xcenter, height, width] in pixels of the network input."""
    cells = -(-SIZE // 2**level)
    stride = SIZE / cells
    sides = [(ANCHOR_SCALE * stride * 2**octave, ratio**0.5) for octave in OCTAVES for ratio in ASPECT_RATIOS]
    centers = (np.arange(cells) + 0.5) * stride
    return np.array([(y, x, side / root, side * root) for y in centers for x in centers for side, root in sides])


def decode(outputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decodes the outputs of the network, and keeps the best of boxes that overlap.

    Args:
        outputs: class_predict_{i}, [1, Hl, Wl, A * C] logits, and box_predict_{i}, [1, Hl, Wl, A * 4], per level.

    Returns:
        boxes [K, 4] of [ymin, xmin, ymax, xmax] in pixels of the network input, scores [K], classes [K] from 1.
    """
    logits, codes, anchors = [], [], []
    for i, level in enumerate(LEVELS):
        anchors.append(level_anchors(level))
        logits.append(outputs[f"class_predict_{i}"].reshape(len(anchors[-1]), -1))
        codes.append(outputs[f"box_predict_{i}"].reshape(-1, 4))
    logits, codes, anchors = (np.concatenate(levels) for levels in (logits, codes, anchors))
    scores = 1 / (1 + np.exp(-logits.max(axis=1)))
    centers = codes[:, :2] * anchors[:, 2:] + anchors[:, :2]
    sides = np.exp(codes[:, 2:]) * anchors[:, 2:]
    corners = centers - sides / 2
    kept = np.array(cv2.dnn.NMSBoxes(np.hstack([corners, sides]), scores, SCORE_THRESH, IOU_THRESH), int)
    boxes = np.hstack([corners, corners + sides])[kept].clip(0, SIZE)
    return boxes, scores[kept], logits.argmax(axis=1)[kept] + 1


path, *files = sys.argv[1:]
found = []
# [docs]
net = cv2.dnn.readNetFromONNX(path)
names = net.getUnconnectedOutLayersNames()
# [end]
for file in files:
    # [docs]
    # The image at the top left of a square of the mean color.
    image = cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB).astype(np.float32)
    scale = SIZE / max(image.shape)
    image = (cv2.resize(image, None, fx=scale, fy=scale) - MEAN) / STDDEV
    image = np.pad(image, [(0, SIZE - image.shape[0]), (0, SIZE - image.shape[1]), (0, 0)])
    net.setInput(image[np.newaxis])
    boxes, scores, classes = decode(dict(zip(names, net.forward(names))))
    # [end]
    rows = zip((boxes / scale).tolist(), scores.tolist(), classes.tolist())
    found.append([{"box": box, "score": score, "class": class_id} for box, score, class_id in rows])
print(json.dumps(found))
