# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes the synthetic files of this folder: img1.jpg, and sample.tfrecord with sample.json, eight small images.

python testdata/make_testdata.py
"""

import sys
import tempfile
from pathlib import Path

from absl import app
from PIL import Image

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent))
from dataset import scenes
from dataset.convert import sample_data

SEED = 1
IMG1_INDEX = 6  # an image of this seed with all three classes and overlapping objects
NUM_IMAGES = 8


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; there are no options")
    scene = scenes.make_scene(SEED, IMG1_INDEX, (480, 640))
    Image.fromarray(scene.image).save(FOLDER / "img1.jpg", **scenes.JPEG_OPTIONS)
    with tempfile.TemporaryDirectory() as made:
        sample_data.create(made, num_images=NUM_IMAGES, image_size=(96, 96), seed=SEED, num_shards=1)
        (FOLDER / "sample.tfrecord").write_bytes(Path(made, "sample-00000-of-00001.tfrecord").read_bytes())
        (FOLDER / "sample.json").write_bytes(Path(made, "annotations.json").read_bytes())
    for name in ("img1.jpg", "sample.tfrecord", "sample.json"):
        print(f"wrote {FOLDER / name}")


if __name__ == "__main__":
    app.run(main)
