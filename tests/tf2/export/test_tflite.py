# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""export_tflite: a TFLite file answers as the driver that it was made of, in every content and precision."""

import itertools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from dataset import dataloader
from dataset.files import TargetError
from efficientdet import config as config_lib
from efficientdet.model import EfficientDetModel
from efficientdet.postprocess import Detections
from testdata import reference_weights
from tf2.evaluation import evaluator
from tf2.export import tflite
from tf2.inference import drivers, signatures
from tf2.inference.metadata import ArtifactError, ExportError, Metadata
from tf2.weights import checkpoint

ROOT = pathlib.Path(__file__).parents[3]
SHARED = ROOT.parent / "shared"
SAMPLE = str(ROOT / "testdata" / "sample.tfrecord")
HARD = {"method": "hard", "score_thresh": 0.5, "max_output_size": 20}
# Largest |difference| / max(1, |value|) of raw outputs. In 8 bits a rough one: what counts there is AP.
BOUNDS = {"FP32": 1e-4, "FP16": 1e-2, "INT8": 0.15}


@pytest.fixture(scope="module")
def driver(tiny_config, spread_driver):
    return spread_driver(tiny_config.override({"image_size": "96x64", "nms_configs": HARD}))


@pytest.fixture(scope="module")
def model(driver):
    return signatures.frozen(driver.model)


@pytest.fixture(scope="module")
def images():
    """Pictures of two sizes; the network input is 64 pixels high and 96 wide."""
    return [
        np.random.RandomState(i).randint(0, 256, (*size, 3), np.uint8) for i, size in enumerate([(50, 130), (99, 64)])
    ]


def export(model, folder, content, precision, representative=None):
    path = str(folder / "model.tflite")
    metadata = Metadata(model.config, content, precision, "model.ckpt-1")
    assert tflite.write(model, path, metadata, representative=representative) == [path]
    return drivers.open_artifact(path)


def inputs_of(driver, images):
    return [driver.model.preprocess(image)[0].numpy()[np.newaxis] for image in images]


def detections_of(outputs):
    """Of one picture, by the names of a detector's outputs; the rows say the same."""
    columns = [outputs[f"detection_{name}"][0] for name in ("boxes", "scores", "classes")]
    np.testing.assert_array_equal(outputs["detections"][0, :, 1:], np.column_stack(columns))
    valid_len = outputs["num_detections"][0]
    return Detections(*(column[:valid_len] for column in columns), valid_len)


def assert_same_detections(ours, theirs, tolerance=1e-3):
    """Of one picture each, in any order."""
    assert ours.valid_len == theirs.valid_len > 0
    rows, others = (np.column_stack([d.classes, d.boxes, d.scores]) for d in (ours, theirs))
    distance = np.abs(rows[:, np.newaxis] - others).max(-1)
    assert np.all(distance.min(0) < tolerance) and np.all(distance.min(1) < tolerance)


@pytest.mark.parametrize("precision", ["FP32", "FP16", "INT8"])
def test_the_network_gives_the_raw_outputs(driver, model, images, tmp_path, precision, capfd):
    inputs = inputs_of(driver, images)
    exported = export(model, tmp_path, "network", precision, inputs if precision == "INT8" else None)
    assert capfd.readouterr() == ("", "")  # TFLite prints what no log level stops
    details = exported.runtime._input
    assert details["shape"].tolist() == [1, 64, 96, 3]
    assert details["dtype"] == (np.uint8 if precision == "INT8" else np.float32)
    for image in inputs:
        for ours, theirs in zip(
            *(itertools.chain(*source.network(image)) for source in (exported, driver)), strict=True
        ):
            difference = np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))
            assert difference.shape == theirs.shape and difference.max() < BOUNDS[precision]
    if precision == "FP32":
        for image in images:
            assert_same_detections(exported.detect(image), driver.detect(image))


@pytest.mark.parametrize("method, max_nms_inputs", [("hard", 0), ("gaussian", 0)])
def test_a_detector_takes_pictures_of_any_size(model, images, tmp_path, method, max_nms_inputs):
    # A low threshold: what is only weakened has to be among the detections.
    nms_configs = {"method": method, "max_nms_inputs": max_nms_inputs, "score_thresh": 0.1, "max_output_size": 500}
    config = model.config.override({"nms_configs": nms_configs})
    model = EfficientDetModel(config, model.net)
    exported = export(model, tmp_path, "detector", "FP32")
    in_tensorflow = signatures.detector(model)
    for image in images:
        expected = {name: value.numpy() for name, value in in_tensorflow(tf.constant(image[np.newaxis])).items()}
        outputs = exported.runtime.run(image[np.newaxis])
        assert sorted(outputs) == sorted(expected)
        assert_same_detections(detections_of(outputs), detections_of(expected))
        assert_same_detections(exported.detect(image), detections_of(expected))


def test_a_detector_in_half_precision(driver, model, images, tmp_path):
    exported = export(model, tmp_path, "detector", "FP16")
    assert (tmp_path / "model.tflite").stat().st_size < 0.6 * 4 * driver.model.net.count_params()
    for image in images:
        ours, theirs = exported.detect(image), driver.detect(image)
        assert abs(int(ours.valid_len) - int(theirs.valid_len)) <= 1
        np.testing.assert_allclose(ours.scores[:5], theirs.scores[:5], atol=1e-2)


def test_the_detection_op_detects_as_hard_nms(driver, model, images, tmp_path):
    exported = export(model, tmp_path, "detection_op", "FP32")
    for image in images:
        assert_same_detections(exported.detect(image), driver.detect(image))
    outputs = exported.runtime.run(inputs_of(driver, images)[0])
    assert {name: value.shape for name, value in outputs.items()} == {
        "output_0": (1,),
        "output_1": (1, 20),
        "output_2": (1, 20),
        "output_3": (1, 20, 4),
    }
    count = int(outputs["output_0"][0])
    assert set(outputs["output_2"][0, :count]) <= {0.0, 1.0, 2.0}
    # The second picture is higher than the input: in parts of it, the boxes lie in its left half.
    boxes = exported.runtime.run(inputs_of(driver, images)[1])["output_3"][0, :count]
    assert np.median(boxes) < 1


def test_the_detection_op_of_a_quantized_network(driver, model, images, tmp_path):
    exported = export(model, tmp_path, "detection_op", "INT8", inputs_of(driver, images))
    for image in images:
        ours, theirs = exported.detect(image), driver.detect(image)
        assert ours.valid_len > 0
        np.testing.assert_allclose(ours.scores[:5], theirs.scores[:5], atol=0.03)


def test_the_attributes_of_the_op_are_those_of_the_config(model):
    # As in the published export.
    assert tflite._op_attributes(model) == (
        'name: "TFLite_Detection_PostProcess" '
        'attr { key: "max_detections" value { i: 20 } } '
        'attr { key: "max_classes_per_detection" value { i: 1 } } '
        'attr { key: "use_regular_nms" value { b: false } } '
        'attr { key: "nms_score_threshold" value { f: 0.500000 } } '
        'attr { key: "nms_iou_threshold" value { f: 0.500000 } } '
        'attr { key: "y_scale" value { f: 1.000000 } } attr { key: "x_scale" value { f: 1.000000 } } '
        'attr { key: "h_scale" value { f: 1.000000 } } attr { key: "w_scale" value { f: 1.000000 } } '
        'attr { key: "num_classes" value { i: 3 } }'
    )


def test_a_file_says_what_it_is(driver, model, tmp_path):
    exported = export(model, tmp_path, "network", "FP16")
    assert exported.metadata == Metadata(driver.config, "network", "FP16", "model.ckpt-1")
    assert [file.name for file in tmp_path.iterdir()] == ["model.tflite"]
    plain = tf.lite.TFLiteConverter.from_concrete_functions([signatures.network(model.net, model.config)], tf.Module())
    (tmp_path / "plain.tflite").write_bytes(plain.convert())
    with pytest.raises(ArtifactError, match="has no metadata; give --model_name and --hparams"):
        drivers.open_artifact(str(tmp_path / "plain.tflite"))
    assert drivers.open_artifact(str(tmp_path / "plain.tflite"), driver.config).metadata.content == "network"


@pytest.mark.parametrize(
    "changes, nms_configs, sentence",
    [
        ({"content": "detector", "precision": "INT8"}, {}, "choose the content detection_op or network, or FP16"),
        ({"content": "detection_op"}, {"method": "gaussian"}, "has no gaussian NMS; use --nms_method=hard"),
        ({}, {"method": "gaussian", "max_nms_inputs": 9}, "takes every anchor with its best class, got nms_configs"),
        ({"content": "detection_op"}, {"max_nms_inputs": 10}, "got nms_configs.max_nms_inputs=10; set it to 0"),
        ({"content": "network", "precision": "INT8"}, {}, "give --file_pattern"),
    ],
)
def test_what_tflite_has_not_is_refused(driver, tmp_path, changes, nms_configs, sentence):
    metadata = Metadata(driver.config.override({"nms_configs": nms_configs}), **changes)
    with pytest.raises(ExportError, match=sentence):
        tflite.write(None, str(tmp_path / "a.tflite"), metadata)
    assert list(tmp_path.iterdir()) == []


def test_names_and_batches_that_tflite_has_not(driver):
    with pytest.raises(ExportError, match=r"expected \*.tflite, got a.lite"):
        tflite.check("a.lite", Metadata(driver.config))
    with pytest.raises(ExportError, match="one picture a call, got --batch_size=0"):
        tflite.check("a.tflite", Metadata(driver.config), batch_size=0)


def test_a_target_that_exists_is_kept(driver, tmp_path):
    (tmp_path / "a.tflite").write_text("kept")
    with pytest.raises(TargetError, match="exists already"):
        tflite.write(None, str(tmp_path / "a.tflite"), Metadata(driver.config))
    assert (tmp_path / "a.tflite").read_text() == "kept"


def test_ranges_of_no_picture_are_no_ranges(model, tmp_path):
    with pytest.raises(ExportError, match="and there are none"):
        tflite.write(model, str(tmp_path / "a.tflite"), Metadata(model.config, "network", "INT8"), representative=[])
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_convert_is_told(model, tmp_path):
    strange = EfficientDetModel(model.config, _strange)
    with pytest.raises(ExportError, match=r"TensorFlow could not convert to TFLite: .*Betainc") as raised:
        tflite.write(strange, str(tmp_path / "a.tflite"), Metadata(model.config, "network"))
    assert "\n" not in str(raised.value) and list(tmp_path.iterdir()) == []


def _strange(images, training=False):
    return [tf.math.betainc(images, images, images)], [images]  # TFLite has no such op


def test_representative_inputs_are_those_of_the_evaluation(driver):
    representative = list(tflite.representative_inputs(SAMPLE, driver.config, 3))
    reader = dataloader.InputReader(SAMPLE, driver.config)
    expected = [images.numpy() for images, _ in reader.evaluation(1, 3)]
    assert len(expected) == 3 and expected[0].shape == (1, 64, 96, 3)
    np.testing.assert_array_equal(representative, expected)
    with pytest.raises(ValueError, match="no file matches"):
        tflite.representative_inputs("none-*", driver.config, 3)


@pytest.mark.slow
@pytest.mark.both_lanes
def test_d0_whole(tmp_path):
    # Not lite0: with its reference weights, float32 itself differs by 3e-4 from float64.
    figures = np.load(ROOT / "testdata" / "efficientdet-d0.npz")
    config = config_lib.load("efficientdet-d0", image_size=int(figures["image_size"]), nms_configs={"method": "hard"})
    driver = drivers.KerasDriver(config, None)
    variables = checkpoint.named_variables(driver.model.net)
    for key, value in reference_weights.weights(figures).items():
        if key in variables:
            variables[key].assign(value)
    model = signatures.frozen(driver.model)
    picture = reference_weights.image()
    [inputs] = inputs_of(driver, [picture])
    # With these weights, rounding the checkpoint's kernels to 16 bits changes its own outputs by 0.013.
    for precision, bound in (("FP32", 1e-4), ("FP16", 0.02)):
        (tmp_path / precision).mkdir()
        exported = export(model, tmp_path / precision, "network", precision)
        for ours, theirs in zip(
            *(itertools.chain(*source.network(inputs)) for source in (exported, driver)), strict=True
        ):
            assert np.max(np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))) < bound
    for content in ("detector", "detection_op"):
        (tmp_path / content).mkdir()
        exported = export(model, tmp_path / content, content, "FP32")
        assert_same_detections(exported.detect(picture), driver.detect(picture), tolerance=0.05)


@pytest.mark.slow
def test_8_bits_keep_the_precision_of_blood_cells(tmp_path):
    """All 72 test pictures, the same NMS and threshold; calibrated on pictures of training."""
    weights, data = SHARED / "weights" / "efficientdet-lite0-bccd", SHARED / "data" / "VOCdevkit"
    if not weights.exists() or not data.exists():
        pytest.skip(f"needs {weights} and {data}")
    (tmp_path / "labels.json").write_text(json.dumps({"RBC": 1, "WBC": 2, "Platelets": 3}))
    for part in ("trainval", "test"):
        script = ROOT / "dataset" / "create_pascal_tfrecord.py"
        flags = [f"--data_dir={data}", "--year=BCCD", f"--set={part}", f"--output_path={tmp_path / part}"]
        flags += ["--num_shards=1", f"--label_map_json_path={tmp_path / 'labels.json'}"]
        subprocess.run([sys.executable, script, *flags], check=True)
    config = config_lib.load("efficientdet-lite0", str(ROOT / "configs" / "bccd.yaml"), nms_configs={"method": "hard"})
    driver = drivers.KerasDriver(config, str(weights))
    evaluation = evaluator.Evaluation(str(tmp_path / "test-*"))
    expected = evaluator.run_driver(driver, evaluation)
    ap = expected.metric.result()["AP"]
    assert expected.num_images == 72 and ap == pytest.approx(0.388, abs=0.001)
    representative = tflite.representative_inputs(str(tmp_path / "trainval-*"), config, 100)
    exported = export(signatures.frozen(driver.model), tmp_path, "detection_op", "INT8", representative)
    assert evaluator.run_driver(exported, evaluation).metric.result()["AP"] > ap - 0.02
