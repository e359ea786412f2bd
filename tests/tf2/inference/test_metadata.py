# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""metadata: embedded text describes the exported detector, and reads back equal."""

import dataclasses
import json
import zipfile

import pytest

from dataset import label_map
from efficientdet import config as config_lib
from tf2.inference.metadata import METADATA_FILE, ArtifactError, Metadata, append_zip, read_zip, stored_names


def metadata(**changes):
    config = config_lib.load("efficientdet-lite0", "num_classes=3,label_map={1: 'RBC', 3: 'é'},image_size=96x64")
    return Metadata(config, **{"content": "network", "precision": "FP16", "checkpoint": "model.ckpt-7", **changes})


@pytest.mark.parametrize("name", config_lib.MODELS)
def test_the_text_reads_back_equal(name):
    original = Metadata(config_lib.load(name, "nms_configs.score_thresh=0.3"), "detector", "FP32", "x")
    again = Metadata.from_json(original.to_json(), "file")
    assert again == original and stored_names(again, "file") == ({}.items(), "file")  # 90 classes may be any
    coco = dataclasses.replace(original, config=original.config.override({"label_map": "coco"}))
    assert dict(stored_names(Metadata.from_json(coco.to_json(), "file"), "file").pairs) == label_map.COCO
    assert Metadata.from_json(metadata().to_json(), "file") == metadata()
    stretched = dataclasses.replace(original, config=original.config.override({"keep_aspect_ratio": False}))
    assert Metadata.from_json(stretched.to_json(), "file") == stretched != original


def test_the_text_is_readable_for_other_programs():
    text = json.loads(metadata().to_json())
    assert text["image_size"] == [64, 96] and text["keep_aspect_ratio"] is True
    assert text["mean_rgb"] == [127.0] * 3 and text["scale_range"] is False
    assert text["label_map"] == {"1": "RBC", "3": "é"} and text["nms_configs"]["max_output_size"] == 100
    assert (text["model_name"], text["precision"], text["checkpoint"]) == ("efficientdet-lite0", "FP16", "model.ckpt-7")


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "metadata that cannot be read"),
        ("[]", "metadata that cannot be read"),
        ("{}", "metadata that cannot be read"),
        (metadata().to_json().replace('"hparams": {', '"hparams": {"nonsense": 1, '), "unknown config key 'nonsense'"),
        (
            metadata().to_json().replace('"format": 1', '"format": 2'),
            f"exported by the newer version {config_lib.VERSION}",
        ),
    ],
)
def test_an_invalid_text_is_refused(text, message):
    with pytest.raises(ArtifactError, match=message):
        Metadata.from_json(text, "file")


def test_an_appended_zip_leaves_the_file_unchanged(tmp_path):
    path = tmp_path / "a.tflite"
    path.write_bytes(b"TFL3" * 100)
    assert read_zip(str(path)) is None
    append_zip(str(path), {METADATA_FILE: metadata().to_json(), "labels.txt": "RBC\né\n"})
    assert path.read_bytes().startswith(b"TFL3" * 100)
    assert read_zip(str(path)) == metadata()
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt").decode() == "RBC\né\n"
        # Clients read files that are not compressed.
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_an_appended_zip_with_a_name_that_has_no_encoding(tmp_path):
    config = metadata().config.override({"label_map": {1: "\ud800"}})
    append_zip(str(tmp_path / "a.tflite"), {METADATA_FILE: Metadata(config).to_json()})
    assert read_zip(str(tmp_path / "a.tflite")).config.label_map == {1: "\ud800"}
