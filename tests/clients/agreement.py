# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Agreement of a client's detections with those of the checkpoint."""

import dataclasses

import numpy as np

from efficientdet import boxes as box_ops


@dataclasses.dataclass
class Agreement:
    """Counts over images.

    Attributes:
        expected: detections of the checkpoint.
        found: those among them that the client found, with the same class and an IoU of at least min_iou.
        more: detections of the client that are none of these.
        lowest_iou: of the found ones; 1 if there are none.
        score_difference: the largest of the found ones.
    """

    expected: int = 0
    found: int = 0
    more: int = 0
    lowest_iou: float = 1.0
    score_difference: float = 0.0

    def add(self, expected: list[dict], detections: list[dict], min_iou: float) -> None:
        """Adds an image.

        Args:
            expected: of the checkpoint, {"box": [ymin, xmin, ymax, xmax], "score": float, "class": id, "name": str} by
                falling score.
            detections: of the client, with ids or names in "class".
            min_iou: of a detection that counts as found.
        """
        rest = list(detections)
        self.expected += len(expected)
        for target in expected:
            same_class = [row for row in rest if row["class"] in (target["class"], target["name"])]
            boxes = np.reshape([row["box"] for row in same_class], [-1, 4]).astype(np.float64)
            ious = box_ops.numpy_iou(np.float64(target["box"]), boxes)
            if not np.any(ious >= min_iou):
                continue
            match = same_class[int(np.argmax(ious))]
            rest = [row for row in rest if row is not match]
            self.found += 1
            self.lowest_iou = min(self.lowest_iou, float(np.max(ious)))
            self.score_difference = max(self.score_difference, abs(match["score"] - target["score"]))
        self.more += len(rest)
