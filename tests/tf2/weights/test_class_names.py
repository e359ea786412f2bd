# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""class_names: the names of a stored detector, and label maps that move, rename or leave them."""

import os

import pytest
from absl import logging

from dataset.label_map import COCO, LabelMapError
from efficientdet import config as config_lib
from tf2.training.model_dir import ModelDir
from tf2.weights import class_names, published

BCCD = {1: "RBC", 2: "WBC", 3: "Platelets"}
MOVED = {1: "Platelets", 2: "RBC", 3: "WBC"}
RENAMED = {1: "red", 2: "WBC", 3: "Platelets"}
MESSAGE = (
    "class names have other ids in label_map than in {}: 'Platelets' is 1 instead of 3, 'RBC' is 2 instead of 1, "
    "'WBC' is 3 instead of 2; "
)


def config(label_map=None, num_classes=4):
    return config_lib.load("efficientdet-lite0", num_classes=num_classes, label_map=label_map)


@pytest.fixture
def logged(monkeypatch):
    lines = []
    for level in ("info", "warning"):
        monkeypatch.setattr(logging, level, lambda text, *args: lines.append(text % args))
    return lines


@pytest.fixture
def training(tmp_path):
    """The folder of a training with the classes of BCCD and one padding class; its checkpoints are empty files."""
    folder = tmp_path / "bccd"
    for path in (folder, folder / "archive"):
        path.mkdir()
        ModelDir(str(path)).write_config(config(BCCD))
        (path / "model.ckpt-7.index").touch()
        (path / "checkpoint").touch()
    (folder / "weights.h5").touch()
    return folder


@pytest.mark.parametrize(
    "path", ["", "model.ckpt-7", "model.ckpt-7.index", "checkpoint", "weights.h5", "archive", "archive/model.ckpt-7"]
)
def test_names_are_those_of_the_config_beside_the_checkpoint(training, path):
    known = class_names.of_checkpoint(os.path.join(training, path), 4)
    assert dict(known.pairs) == BCCD
    assert known.source == str(training / ("archive" if "archive" in path else "") / "config.yaml")
    assert not class_names.of_checkpoint(str(training / path), 3).pairs  # of a detector that cannot be loaded


def test_prefixes_in_the_current_folder(training, monkeypatch):
    monkeypatch.chdir(training)
    assert dict(class_names.of_checkpoint("model.ckpt-7", 4).pairs) == BCCD
    assert dict(class_names.of_checkpoint(".", 4).pairs) == BCCD


@pytest.mark.parametrize("name", published.DETECTORS)
def test_released_weights_have_the_names_of_coco(tmp_path, monkeypatch, name):
    """By name, without a download, or unpacked."""
    monkeypatch.chdir(tmp_path)
    assert dict(class_names.of_checkpoint(name, 90).pairs) == COCO
    folder = tmp_path / "downloads" / name
    folder.mkdir(parents=True)
    assert not class_names.of_checkpoint(str(folder), 90).pairs  # of a training that has yet to write
    (folder / "model.index").touch()
    for path in (folder, f"{folder}/", folder / "model"):
        assert dict(class_names.of_checkpoint(str(path), 90).pairs) == COCO
        assert not class_names.of_checkpoint(str(path), 3).pairs


@pytest.mark.parametrize("label_map, expected", [(None, {}), (BCCD, BCCD)])
@pytest.mark.parametrize("folder", ["own", "efficientdet-d0"])
def test_a_detector_with_90_classes_of_its_own_has_its_own_names(tmp_path, folder, label_map, expected):
    path = tmp_path / folder
    path.mkdir()
    (path / "model.ckpt-1.index").touch()
    ModelDir(str(path)).write_config(config(label_map, num_classes=90))
    assert dict(class_names.of_checkpoint(str(path), 90).pairs) == expected


@pytest.mark.parametrize("path", [None, "gone", "efficientnet-b0"])
def test_other_names_are_not_known(tmp_path, monkeypatch, logged, path):
    monkeypatch.chdir(tmp_path)
    known = class_names.of_checkpoint(path, 90)
    assert not known.pairs
    assert class_names.with_names(config(None, 90), known).label_map is None
    assert logged == ["classes have ids as names; a detector of COCO's classes needs label_map=coco in --hparams"]


def test_a_config_that_cannot_be_read_is_reported(training, logged):
    (training / "config.yaml").write_text("no_such_key: 1")
    assert not class_names.of_checkpoint(str(training), 4).pairs
    [line] = logged
    assert "unknown config key 'no_such_key'" in line and line.endswith("; its class names are not compared")


def test_names_of_the_detector_may_be_left_out_and_changed_but_not_moved(training, logged):
    known = class_names.of_checkpoint(str(training), 4)
    for given, expected in ((None, BCCD), (BCCD, BCCD), ({1: "RBC"}, {1: "RBC"})):
        assert class_names.with_names(config(given), known).label_map == expected
    assert logged == []
    assert class_names.with_names(config(RENAMED), known).label_map == RENAMED
    assert logged == [f"label_map renames 1 classes of {training}/config.yaml: 1 'RBC' -> 'red'"]
    for given in (MOVED, {2: "RBC"}):
        with pytest.raises(LabelMapError, match=r"^class names have other ids in label_map .*; leave label_map out"):
            class_names.with_names(config(given), known)


def test_a_resumed_training_keeps_its_ids(training):
    folder = str(training)
    kept, known = class_names.at_start(config(), folder, "efficientdet-d0")
    assert kept.label_map == dict(known.pairs) == BCCD
    assert class_names.at_start(config(RENAMED), folder)[0].label_map == RENAMED
    with pytest.raises(LabelMapError) as error:
        class_names.at_start(config(MOVED), folder)
    assert str(error.value).startswith(MESSAGE.format(training / "config.yaml") + "a training run keeps its ids: ")


def test_a_training_starts_with_the_ids_of_the_class_head_that_it_takes_over(training, tmp_path):
    new, ckpt = str(tmp_path / "new"), str(training)
    with pytest.raises(LabelMapError) as error:
        class_names.at_start(config(MOVED), new, ckpt)
    assert str(error.value).startswith(MESSAGE.format(training / "config.yaml") + "its class head is taken over: ")
    # Without a label map the records are compared; with another number of classes the class head is not taken over.
    for given, num_classes, expected in ((None, 4, BCCD), (RENAMED, 4, BCCD), (MOVED, 3, {})):
        started, known = class_names.at_start(config(given, num_classes), new, ckpt)
        assert started.label_map == given and dict(known.pairs) == expected
    assert not class_names.at_start(config(MOVED), new)[1].pairs


def test_an_interrupted_start_without_a_checkpoint_may_change_its_label_map(tmp_path):
    ModelDir(str(tmp_path)).write_config(config(BCCD))
    assert class_names.at_start(config(MOVED), str(tmp_path))[0].label_map == MOVED
