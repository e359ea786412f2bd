# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""tflite: a TFLite file returns the detections of its driver, for every content and precision."""

import itertools
import json
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.tools import flatbuffer_utils

from dataset import dataloader
from dataset.files import TargetError
from efficientdet import config as config_lib
from efficientdet.model import EfficientDetModel
from efficientdet.postprocess import Detections
from testdata import reference_weights
from tf2.evaluation import evaluator
from tf2.export import tflite, tflite_metadata
from tf2.inference import drivers, runtimes, signatures
from tf2.inference.metadata import ArtifactError, ExportError, Metadata
from tf2.weights import checkpoint

ROOT = pathlib.Path(__file__).parents[3]
SHARED = ROOT.parent / "shared"
SAMPLE = str(ROOT / "testdata" / "sample.tfrecord")
HARD = {"method": "hard", "score_thresh": 0.5, "max_output_size": 20}
# On |difference| / max(1, |value|) of raw outputs. For INT8 only a rough bound, as AP is what matters there.
BOUNDS = {"FP32": 1e-4, "FP16": 1e-2, "INT8": 0.15}


@pytest.fixture(scope="module")
def driver(tiny_config, spread_driver):
    return spread_driver(tiny_config.override({"image_size": "96x64", "nms_configs": HARD}))


@pytest.fixture(scope="module")
def model(driver):
    return signatures.frozen(driver.model)


@pytest.fixture(scope="module")
def images():
    """Images of two sizes; the network input is 64 pixels high and 96 wide."""
    return [
        np.random.RandomState(i).randint(0, 256, (*size, 3), np.uint8) for i, size in enumerate([(50, 130), (99, 64)])
    ]


def export(model, folder, content, precision, calibration_inputs=None):
    path = str(folder / "model.tflite")
    metadata = Metadata(model.config, content, precision, "model.ckpt-1")
    assert tflite.write(model, path, metadata, calibration_inputs=calibration_inputs) == [path]
    return drivers.open_artifact(path)


def inputs_of(driver, images):
    return [driver.model.preprocess(image)[0].numpy()[np.newaxis] for image in images]


def detections_of(outputs):
    """Detections of one image from the named outputs of a detector, which must equal its rows."""
    columns = [outputs[f"detection_{name}"][0] for name in ("boxes", "scores", "classes")]
    np.testing.assert_array_equal(outputs["detections"][0, :, 1:], np.column_stack(columns))
    valid_len = outputs["num_detections"][0]
    return Detections(*(column[:valid_len] for column in columns), valid_len)


def assert_same_detections(ours, theirs, tolerance=1e-3):
    """Compares the detections of one image, in any order."""
    assert ours.valid_len == theirs.valid_len > 0
    rows, others = (np.column_stack([d.classes, d.boxes, d.scores]) for d in (ours, theirs))
    distance = np.abs(rows[:, np.newaxis] - others).max(-1)
    assert np.all(distance.min(0) < tolerance) and np.all(distance.min(1) < tolerance)


@pytest.mark.parametrize("precision", ["FP32", "FP16", "INT8"])
def test_raw_outputs_of_the_network(driver, model, images, tmp_path, precision, capfd):
    inputs = inputs_of(driver, images)
    exported = export(model, tmp_path, "network", precision, inputs if precision == "INT8" else None)
    assert capfd.readouterr() == ("", "")  # TFLite itself prints messages at any log level
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
def test_a_detector_accepts_images_of_any_size(model, images, tmp_path, method, max_nms_inputs):
    # A low threshold, so that boxes with reduced scores are among the detections.
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


def test_the_detection_op_equals_hard_nms(driver, model, images, tmp_path):
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
    # The second image is taller than the input and fills its left part only; boxes are in [0, 1] of the input.
    boxes = exported.runtime.run(inputs_of(driver, images)[1])["output_3"][0, :count]
    assert np.median(boxes) < 1


def test_the_outputs_of_the_detection_op_by_position(driver, model, images, tmp_path):
    """Clients read boxes, classes, scores and count by position, or by the names of the signature."""
    runtime = export(model, tmp_path, "detection_op", "FP32").runtime
    [inputs] = inputs_of(driver, images[:1])
    outputs = runtime.run(inputs)
    with runtimes.quiet_tflite():
        interpreter = (runtimes.litert_interpreter() or tf.lite.Interpreter)(str(tmp_path / "model.tflite"))
    interpreter.allocate_tensors()
    details = interpreter.get_output_details()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], inputs)
    interpreter.invoke()
    for detail, name in zip(details, ["output_3", "output_2", "output_1", "output_0"], strict=True):
        np.testing.assert_allclose(interpreter.get_tensor(detail["index"]), outputs[name], atol=1e-5)
    assert [detail["shape"].tolist() for detail in details] == [[1, 20, 4], [1, 20], [1, 20], [1]]
    assert [detail["name"][-2:] for detail in details] == [":3", ":2", ":1", ":0"]  # the names of signatures agree


def test_tflite_metadata_of_the_detection_op_alone(light_model, tmp_path):
    names = {1: "a cell", 3: "2 lines\nof text"}
    for content in ("detection_op", "network"):
        model = light_model()
        config = model.config.override({"label_map": names})
        path = tmp_path / f"{content}.tflite"
        tflite.write(EfficientDetModel(config, model.net), str(path), Metadata(config, content))
        stored = {
            entry.name.decode(): bytes(flatbuffer.buffers[entry.buffer].data)
            for flatbuffer in [flatbuffer_utils.read_model(str(path))]
            for entry in flatbuffer.metadata
        }
        assert "min_runtime_version" in stored
        with zipfile.ZipFile(path) as archive:
            if content == "detection_op":
                assert stored["TFLITE_METADATA"] == tflite_metadata.detection_op(config)
                assert archive.namelist() == ["efficientdet.json", "labels.txt"]
                assert archive.read("labels.txt").decode() == "a cell\n???\n2 lines of text\n"
            else:  # writers of metadata pack a labels.txt of their own
                assert "TFLITE_METADATA" not in stored and archive.namelist() == ["efficientdet.json"]
        assert drivers.open_artifact(str(path)).names == names


@pytest.mark.parametrize("precision, remedy", [("FP32", "or the TFLite Task Library"), ("INT8", "or normalize")])
def test_three_means_are_reported(light_model, tmp_path, caplog, precision, remedy):
    model = light_model()
    for content, colors, lines in (
        ("detection_op", {"mean_rgb": (123.0, 116.0, 103.0)}, 1),
        ("detection_op", {}, 0),
        ("network", {"mean_rgb": (123.0, 116.0, 103.0)}, 0),
    ):
        config = model.config.override(colors)
        caplog.clear()
        (tmp_path / "a.tflite").unlink(missing_ok=True)
        inputs = [np.zeros([1, *config.image_size, 3], np.float32)] if precision == "INT8" else None
        model_of = EfficientDetModel(config, model.net)
        metadata = Metadata(config, content, precision)
        tflite.write(model_of, str(tmp_path / "a.tflite"), metadata, calibration_inputs=inputs)
        messages = [record.message for record in caplog.records if "MediaPipe" in record.message]
        assert len(messages) == lines and all(remedy in message for message in messages)


@pytest.mark.parametrize("low, high", [(0, 256), (0, 20), (200, 230)], ids=["all", "dark", "bright"])
def test_pixels_are_the_quantized_input_for_any_calibration_images(driver, model, images, tmp_path, low, high):
    # Images of the size of the input, so that there is no padding.
    rng = np.random.RandomState(0)
    calibration = inputs_of(driver, [rng.randint(low, high, (64, 96, 3)).astype(np.uint8) for _ in range(2)])
    exported = export(model, tmp_path, "network", "INT8", calibration)
    scale, zero_point = exported.runtime._input["quantization"]
    assert (scale, zero_point) == (1 / 128, 127)  # the mean and stddev of lite models
    pixels = np.arange(256, dtype=np.uint8)
    inputs = ((pixels.astype(np.float32) - 127) / 128)[:, np.newaxis]
    np.testing.assert_array_equal(runtimes.quantize(inputs, exported.runtime._input)[:, 0], pixels)


def test_the_input_of_a_quantized_network_with_three_means(light_model, tmp_path):
    """One scale covers the ranges of all channels, whatever the calibration images hold."""
    model = light_model()
    config = model.config.override({"mean_rgb": (120.0, 110.0, 100.0), "stddev_rgb": (60.0, 55.0, 50.0)})
    inputs = [np.zeros([1, *config.image_size, 3], np.float32)]
    exported = export(EfficientDetModel(config, model.net), tmp_path, "network", "INT8", inputs)
    scale, zero_point = exported.runtime._input["quantization"]
    assert scale == pytest.approx((155 / 50 + 120 / 60) / 255)  # by hand: from -120 / 60 to (255 - 100) / 50
    assert zero_point == round(2 / scale)


def test_the_detection_op_of_a_quantized_network(driver, model, images, tmp_path):
    exported = export(model, tmp_path, "detection_op", "INT8", inputs_of(driver, images))
    for image in images:
        ours, theirs = exported.detect(image), driver.detect(image)
        assert ours.valid_len > 0
        np.testing.assert_allclose(ours.scores[:5], theirs.scores[:5], atol=0.03)


def test_the_attributes_of_the_op_follow_the_config(model):
    # The same text as in the published export.
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


def test_metadata_of_a_file(light_model, tmp_path):
    model = light_model()
    exported = export(model, tmp_path, "network", "FP16")
    assert exported.metadata == Metadata(model.config, "network", "FP16", "model.ckpt-1")
    assert [file.name for file in tmp_path.iterdir()] == ["model.tflite"]
    plain = tf.lite.TFLiteConverter.from_concrete_functions([signatures.network(model.net, model.config)], tf.Module())
    (tmp_path / "plain.tflite").write_bytes(plain.convert())
    with pytest.raises(ArtifactError, match="has no metadata; give --model_name and --hparams"):
        drivers.open_artifact(str(tmp_path / "plain.tflite"))
    assert drivers.open_artifact(str(tmp_path / "plain.tflite"), model.config).metadata.content == "network"


@pytest.mark.parametrize(
    "changes, nms_configs, message",
    [
        ({"content": "detector", "precision": "INT8"}, {}, "choose the content detection_op or network, or FP16"),
        ({"content": "detection_op"}, {"method": "gaussian"}, "has no gaussian NMS; use --nms_method=hard"),
        ({}, {"method": "gaussian", "max_nms_inputs": 9}, "uses only the best class of each anchor, got nms_configs"),
        ({"content": "detection_op"}, {"max_nms_inputs": 10}, "got nms_configs.max_nms_inputs=10; set it to 0"),
        ({"content": "network", "precision": "INT8"}, {}, "give --file_pattern"),
    ],
)
def test_unsupported_requests(driver, tmp_path, changes, nms_configs, message):
    metadata = Metadata(driver.config.override({"nms_configs": nms_configs}), **changes)
    with pytest.raises(ExportError, match=message):
        tflite.write(None, str(tmp_path / "a.tflite"), metadata)
    assert list(tmp_path.iterdir()) == []


def test_unsupported_names_and_batch_sizes(driver):
    with pytest.raises(ExportError, match=r"expected \*.tflite, got a.lite"):
        tflite.check("a.lite", Metadata(driver.config))
    with pytest.raises(ExportError, match="one image per call, got --batch_size=0"):
        tflite.check("a.tflite", Metadata(driver.config), batch_size=0)


def test_an_existing_target_is_kept(driver, tmp_path):
    (tmp_path / "a.tflite").write_text("kept")
    with pytest.raises(TargetError, match="exists already"):
        tflite.write(None, str(tmp_path / "a.tflite"), Metadata(driver.config))
    assert (tmp_path / "a.tflite").read_text() == "kept"


def test_int8_without_calibration_images(light_model, tmp_path):
    model = light_model()
    metadata = Metadata(model.config, "network", "INT8")
    with pytest.raises(ExportError, match="needs calibration images, but the records have none; check --file_pattern"):
        tflite.write(model, str(tmp_path / "a.tflite"), metadata, calibration_inputs=[])
    assert list(tmp_path.iterdir()) == []


def test_an_op_that_tflite_lacks_is_an_error(model, tmp_path):
    strange = EfficientDetModel(model.config, _strange)
    with pytest.raises(ExportError, match=r"TensorFlow could not convert to TFLite: .*Betainc") as raised:
        tflite.write(strange, str(tmp_path / "a.tflite"), Metadata(model.config, "network"))
    assert "\n" not in str(raised.value) and list(tmp_path.iterdir()) == []


def _strange(images, training=False):
    return [tf.math.betainc(images, images, images)], [images]  # TFLite has no such op


def test_calibration_inputs_equal_those_of_the_evaluation(driver):
    inputs = list(tflite.calibration_inputs(SAMPLE, driver.config, 3))
    reader = dataloader.InputReader(SAMPLE, driver.config)
    expected = [images.numpy() for images, _ in reader.evaluation(1, 3)]
    assert len(expected) == 3 and expected[0].shape == (1, 64, 96, 3)
    np.testing.assert_array_equal(inputs, expected)
    with pytest.raises(ValueError, match="no file matches"):
        tflite.calibration_inputs("none-*", driver.config, 3)


@pytest.mark.slow
@pytest.mark.both_lanes
def test_d0_whole(tmp_path):
    # Not lite0, whose float32 results with reference weights differ by 3e-4 from float64.
    figures = np.load(ROOT / "testdata" / "efficientdet-d0.npz")
    config = config_lib.load("efficientdet-d0", image_size=int(figures["image_size"]), nms_configs={"method": "hard"})
    driver = drivers.KerasDriver(config, None)
    variables = checkpoint.named_variables(driver.model.net)
    for key, value in reference_weights.weights(figures).items():
        if key in variables:
            variables[key].assign(value)
    model = signatures.frozen(driver.model)
    image = reference_weights.image()
    [inputs] = inputs_of(driver, [image])
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
        assert_same_detections(exported.detect(image), driver.detect(image), tolerance=0.05)


@pytest.mark.slow
def test_int8_keeps_ap_on_blood_cells(tmp_path):
    """On all 72 test images with the same NMS and threshold; calibrated on training images."""
    weights, data = SHARED / "weights" / "efficientdet-lite0-bccd", SHARED / "data" / "VOCdevkit"
    if not weights.exists() or not data.exists():
        pytest.skip(f"needs {weights} and {data}")
    (tmp_path / "labels.json").write_text(json.dumps({"RBC": 1, "WBC": 2, "Platelets": 3}))
    for part in ("trainval", "test"):
        script = ROOT / "dataset" / "create_pascal_tfrecord.py"
        flags = [f"--data_dir={data}", "--year=BCCD", f"--set={part}", f"--output_path={tmp_path / part}"]
        flags += ["--num_shards=1", f"--label_map_json_path={tmp_path / 'labels.json'}"]
        subprocess.run([sys.executable, script, *flags], check=True)
    config = config_lib.load("efficientdet-lite0", num_classes=4, nms_configs={"method": "hard"})
    driver = drivers.KerasDriver(config, str(weights))
    evaluation = evaluator.Evaluation(str(tmp_path / "test-*"))
    expected = evaluator.run_driver(driver, evaluation)
    ap = expected.metric.result()["AP"]
    assert expected.num_images == 72 and ap == pytest.approx(0.388, abs=0.001)
    inputs = tflite.calibration_inputs(str(tmp_path / "trainval-*"), config, 100)
    exported = export(signatures.frozen(driver.model), tmp_path, "detection_op", "INT8", inputs)
    quantized = evaluator.run_driver(exported, evaluation).metric.result()["AP"]
    assert quantized > ap - 0.02
    # Clients put pixels into the input, regardless of its scale.
    run = exported.runtime.run
    exported.runtime.run = lambda inputs: run(np.round(inputs * 128 + 127).astype(np.uint8))
    assert evaluator.run_driver(exported, evaluation).metric.result()["AP"] == pytest.approx(quantized, abs=0.005)
