# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""tf2.load and tf2.open: detectors by name, from the folder of a training, and from exported files."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import tf2
from dataset import label_map
from efficientdet import config as config_lib
from tf2.export import saved_model, tflite
from tf2.inference import drivers, images, signatures
from tf2.inference.metadata import Metadata
from tf2.training.model_dir import ModelDir
from tf2.weights import checkpoint, published

ROOT = pathlib.Path(__file__).parents[2]
IMAGE = ROOT / "testdata" / "img1.jpg"
TINY = "image_size=64,num_classes=3,fpn_num_filters=8,fpn_cell_repeats=1,box_class_repeats=1"
DETECTORS = sorted(name for name in published.ARCHIVES if name.startswith("efficientdet-"))


@pytest.fixture(scope="module")
def driver(spread_driver):
    """A detector whose scores are mostly above 0.4."""
    return spread_driver(config_lib.load("efficientdet-lite0", TINY, label_map={1: "a", 2: "b"}))


@pytest.fixture(scope="module")
def training(driver, tmp_path_factory):
    """The folder of a training that evaluated its only checkpoint."""
    folder = ModelDir(str(tmp_path_factory.mktemp("training")))
    folder.write_config(driver.config, "python main.py --mode=train")
    variables = checkpoint.named_variables(driver.model.net)
    prefix = folder.save(7, {name: variable.numpy() for name, variable in variables.items()})
    folder.archive(prefix, {"AP": 0.5})
    return folder.path


@pytest.fixture(scope="module")
def detector(training):
    """The detector of the training, by tf2.load."""
    return tf2.load(training)


@pytest.fixture
def loaded(monkeypatch):
    """Returns (config, checkpoint) from tf2.load instead of a driver."""
    monkeypatch.setattr(drivers, "KerasDriver", lambda config, ckpt_path: (config, ckpt_path))


def assert_equal(detections, expected, tolerance=0.0):
    for ours, theirs in zip(detections, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def listed(path):
    """Detections in the file of --output_json, as [K, 6] rows of box, score, class."""
    [entry] = json.loads(path.read_text())["images"]
    return np.array([[*row["box"], row["score"], row["class"]] for row in entry["detections"]])


def rows_of(detections):
    """Detections as [K, 6] rows of box, score, class."""
    return np.concatenate([detections.boxes, detections.scores[:, None], detections.classes[:, None]], -1)


def test_import_does_not_import_tensorflow():
    code = "import sys, tf2; print('tensorflow' in sys.modules, hasattr(tf2, 'nothing'), 'tensorflow' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.split() == ["False", "False", "False"], result.stderr


def test_the_functions_are_those_of_drivers():
    assert tf2.load is drivers.load and tf2.open is drivers.open_artifact
    with pytest.raises(AttributeError, match="module 'tf2' has no attribute 'laod'"):
        tf2.laod  # noqa: B018


@pytest.mark.parametrize("name", DETECTORS)
def test_every_released_name_has_its_config(loaded, name):
    config, ckpt = tf2.load(name)
    assert ckpt == name
    model = name.removesuffix("-640").removesuffix("-advprop")
    expected = config_lib.load(model, nms_configs={"method": "hard", "score_thresh": 0.4, "max_output_size": 100})
    changes = {"image_size": [640, 640]} if name.endswith("-640") and model != "efficientdet-d1" else {}
    if name.endswith("-advprop"):
        changes = {"mean_rgb": [0, 0, 0], "stddev_rgb": [1, 1, 1], "scale_range": True}
    changes["label_map"] = label_map.COCO
    assert config.difference(expected) == changes
    published.check_colors(name, config.colors)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, ("hard", 0.4, 100)),
        ({"min_score_thresh": 0.1}, ("hard", 0.1, 100)),
        ({"min_score_thresh": 0}, ("hard", 0, 100)),
        ({"nms_method": "gaussian"}, ("gaussian", 0.4, 100)),
        ({"nms_configs": {"max_output_size": 7}}, ("hard", 0.4, 7)),
        ({"hparams": "nms_configs.score_thresh=0.2,nms_configs.method=gaussian"}, ("gaussian", 0.2, 100)),
        ({"hparams": "nms_configs.score_thresh=0.2", "min_score_thresh": 0.3}, ("hard", 0.3, 100)),
    ],
)
def test_suppression_follows_arguments_then_hparams_then_defaults(loaded, options, expected):
    """As the flags of model_inspect.py, see test_what_is_drawn_follows_flags_then_hparams_then_defaults."""
    config, _ = tf2.load("efficientdet-d0", **options)
    assert (config.nms_configs.method, config.nms_configs.score_thresh, config.nms_configs.max_output_size) == expected


def test_suppression_of_a_training(loaded, tmp_path):
    """Keys of nms_configs that the training set are kept."""
    for nms, expected in (({}, ("hard", 0.4)), ({"score_thresh": 0.1}, ("hard", 0.1)), ({"sigma": 1}, ("hard", 0.4))):
        ModelDir(str(tmp_path)).write_config(config_lib.load("efficientdet-d3", nms_configs=nms))
        config, ckpt = tf2.load(tmp_path)
        assert (config.nms_configs.method, config.nms_configs.score_thresh) == expected
        assert (config.name, config.image_size, ckpt) == ("efficientdet-d3", (896, 896), str(tmp_path))


def test_released_weights(detector, training, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    fetched = []
    monkeypatch.setattr(published, "fetch", lambda name: [fetched.append(name), training][-1])
    released = tf2.load("efficientdet-lite0", hparams=TINY)
    assert fetched[-1] == released.ckpt_path == "efficientdet-lite0" and released.names == {}
    detections = released.detect(IMAGE)
    assert 10 < detections.valid_len <= 100 and detections.scores.min() > 0.4
    assert_equal(detections, detector.detect(IMAGE))


def weights_of(detector):
    return {name: value.numpy() for name, value in checkpoint.named_variables(detector.model.net).items()}


def test_the_folder_of_a_training(driver, detector, training, tmp_path):
    """The archive and another checkpoint are loaded with the config of the training, too."""
    expected = weights_of(driver)
    other = ModelDir(str(tmp_path)).save(1, {name: 2 * value for name, value in expected.items()})
    for found, ckpt, scale in (
        (detector, f"{training}/model.ckpt-7", 1),
        (tf2.load(pathlib.Path(training, "archive")), f"{training}/archive/model.ckpt-7", 1),
        (tf2.load(training, other), other, 2),
    ):
        assert found.ckpt_path == ckpt and found.name_of(2) == "b"
        assert found.config == driver.config.override({"nms_configs": config_lib.INFERENCE_NMS})
        for name, value in weights_of(found).items():
            np.testing.assert_array_equal(value, scale * expected[name], err_msg=name)


def test_class_names_of_a_training_may_change_but_not_move(loaded, training):
    assert tf2.load("efficientdet-lite0", f"{training}/model.ckpt-7", hparams=TINY)[0].label_map == {1: "a", 2: "b"}
    assert tf2.load(training, label_map={1: "c", 2: "b"})[0].label_map == {1: "c", 2: "b"}
    for load in (
        lambda moved: tf2.load(training, label_map=moved),
        lambda moved: tf2.load("efficientdet-lite0", training, hparams=TINY, label_map=moved),
    ):
        with pytest.raises(
            label_map.LabelMapError, match=r"in label_map than in .*config\.yaml: 'b' is 1 instead of 2"
        ):
            load({1: "b"})


def test_what_cannot_be_loaded(training, tmp_path):
    prefix, weights = ModelDir(str(tmp_path)).save(1, {"x": np.zeros(3, np.float32)}), tmp_path / "weights.h5"
    weights.touch()
    for path in (str(tmp_path), prefix):
        message = (
            rf"{path} has no config\.yaml that names its model; give .* tf2\.load\(.*; it looks like no EfficientDet"
        )
        with pytest.raises(config_lib.ConfigError, match=message):
            tf2.load(path)
    with pytest.raises(
        checkpoint.CheckpointError, match=rf"{weights} is neither a TensorFlow checkpoint .* nor an HDF5"
    ):
        tf2.load(weights)
    with pytest.raises(config_lib.ConfigError, match=r"'efficientdet-d9' is neither .*; did you mean 'efficientdet-d"):
        tf2.load("efficientdet-d9")
    with pytest.raises(published.WeightsError, match="efficientnet-b0 is a backbone"):
        tf2.load("efficientnet-b0")
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint at gone"):
        tf2.load("efficientdet-d0", "gone")
    (tmp_path / "config.yaml").write_text("no_such_key: 1")
    with pytest.raises(config_lib.ConfigError, match=r"cannot read .*config\.yaml \(unknown config key 'no_such_key'"):
        tf2.load(tmp_path)


def test_detections_are_those_of_image_files(detector, tmp_path):
    written = tmp_path / "found.json"
    options = {"min_score_thresh": 0.4, "max_boxes_to_draw": 100, "line_thickness": None}
    images.run(detector, str(IMAGE), images.OutputPaths(json=str(written)), **options)
    assert len(listed(written)) > 10
    np.testing.assert_array_equal(rows_of(detector.detect(IMAGE)), listed(written))


@pytest.mark.slow
def test_detections_are_those_of_the_command(detector, training, tmp_path):
    written = tmp_path / "found.json"
    command = [sys.executable, "model_inspect.py", "--runmode=infer", "--model_name=efficientdet-lite0"]
    command += [f"--hparams={training}/config.yaml", f"--ckpt_path={training}", f"--input_image={IMAGE}"]
    result = subprocess.run([*command, f"--output_json={written}"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len(listed(written)) > 10
    np.testing.assert_allclose(rows_of(detector.detect(IMAGE)), listed(written), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.both_lanes
def test_exported_files(detector, tmp_path):
    model, metadata, expected = signatures.frozen(detector.model), Metadata(detector.config), detector.detect(IMAGE)
    saved_model.saved_model(model, str(tmp_path / "saved"), metadata, batch_size=1)
    saved_model.frozen_graph(model, str(tmp_path / "frozen.pb"), metadata, batch_size=1)
    tflite.write(model, str(tmp_path / "model.tflite"), metadata)
    for path in (tmp_path / "saved", tmp_path / "frozen.pb", tmp_path / "model.tflite"):
        exported = tf2.open(path)
        assert exported.name_of(1) == "a"
        assert_equal(exported.detect(IMAGE), expected, 1e-3)
