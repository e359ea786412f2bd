# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""onnx: an ONNX file returns the detections of its driver, using only standard operators."""

import importlib
import itertools
import pathlib
import sys

import cv2
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from dataset import tfrecord
from dataset.files import TargetError
from efficientdet import config as config_lib
from efficientdet.model import EfficientDetModel
from efficientdet.postprocess import Detections
from testdata import reference_weights
from tf2.export import onnx as export_onnx
from tf2.inference import drivers, runtimes, signatures
from tf2.inference.metadata import METADATA_KEY, ExportError, Metadata
from tf2.weights import checkpoint

for package in ("onnx", "onnxruntime", "tf2onnx"):
    pytest.importorskip(package, reason="needs python -m pip install -r requirements-onnx.txt")
onnx = importlib.import_module("onnx")

ROOT = pathlib.Path(__file__).parents[3]
HARD = {"method": "hard", "score_thresh": 0.5, "max_output_size": 20}
BOUND = 1e-4  # on |difference| / max(1, |value|) of raw outputs


@pytest.fixture(scope="module")
def detector(light_model, tmp_path_factory):
    """The driver of an exported detector."""
    return export(light_model(), tmp_path_factory.mktemp("detector"), "detector")


def random_images(count, *size):
    return np.random.RandomState(count).randint(0, 256, (count, *size, 3), np.uint8)


def export(model, folder, content, **options):
    path = str(folder / "model.onnx")
    metadata = Metadata(model.config, content, checkpoint="model.ckpt-1")
    assert export_onnx.write(model, path, metadata, **options) == [path]
    return drivers.open_artifact(path)


def path_of(exported):
    return exported.runtime._session._model_path


def largest_difference(ours, theirs):
    """Largest |a - b| / max(1, |b|) of two pairs of lists of outputs."""
    pairs = zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True)
    return max(np.max(np.abs(a - b) / np.maximum(1, np.abs(b))) for a, b in pairs)


def agreement(ours, theirs, tolerance):
    """Share of the detections of one image, in any order, that both have."""
    rows, others = (np.column_stack([d.classes, d.boxes, d.scores]) for d in (ours, theirs))
    distance = np.abs(rows[:, np.newaxis] - others).max(-1)
    return min(np.mean(distance.min(0) < tolerance), np.mean(distance.min(1) < tolerance))


def test_raw_outputs_of_a_network(tiny_config, spread_driver, tmp_path):
    # 320 pixels are 5 and 3 on the last two levels; tf2onnx's own nearest-neighbor op turns 3 into 4.
    driver = spread_driver(tiny_config.override({"image_size": "320x256", "nms_configs": HARD}))
    exported = export(signatures.frozen(driver.model), tmp_path, "network")
    inputs = np.random.RandomState(0).randn(1, 256, 320, 3).astype(np.float32)
    assert largest_difference(exported.network(inputs), driver.network(inputs)) < BOUND
    [image] = random_images(1, 50, 130)
    assert agreement(exported.detect(image), driver.detect(image), 1e-3) == 1
    nodes = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    # Between [B, H, W, C] and ONNX's [B, C, H, W] only at the input and the 2 * 5 outputs.
    assert nodes.count("Transpose") <= 11 and nodes.count("Conv") > 50
    in_opencv = cv2.dnn.readNetFromONNX(str(tmp_path / "model.onnx"))
    in_opencv.setInput(inputs)
    outputs = exported.runtime.run(inputs)
    for name, values in zip(outputs, in_opencv.forward(list(outputs)), strict=True):
        np.testing.assert_allclose(values, outputs[name], rtol=BOUND, atol=BOUND)


def test_sums_are_chains_of_two_summands():
    """OpenCV 4.11 and 4.12 compute Sum with three inputs wrongly, without an error."""

    @tf.function(input_signature=[tf.TensorSpec([None, 2, 3, 4], tf.float32, name="x")], autograph=False)
    def sums(x):
        terms = [x, x[:, ::-1], x * 3, tf.nn.relu(x)]
        return {f"y{count}": tf.add_n(terms[:count]) for count in (2, 3, 4)}

    x = np.random.RandomState(0).randn(2, 2, 3, 4).astype(np.float32)
    proto = export_onnx._convert(sums.get_concrete_function())
    operators = [node.op_type for node in proto.graph.node]
    assert operators.count("Add") == 3 and "Sum" not in operators  # equal prefixes are shared
    session = importlib.import_module("onnxruntime").InferenceSession(proto.SerializeToString())
    for output, value in zip(session.get_outputs(), session.run(None, {"x": x}), strict=True):
        np.testing.assert_allclose(value, sums(tf.constant(x))[output.name], rtol=1e-6)


@pytest.mark.parametrize("size", [(720, 1280), (300, 200), (33, 57)])
def test_a_detector_accepts_images_of_any_size(light_model, detector, size):
    image = random_images(1, *size)
    boxes, scores, classes, valid_len = (value[0] for value in light_model()(tf.constant(image)))
    expected = Detections(boxes[:valid_len], scores[:valid_len], classes[:valid_len], valid_len)
    assert agreement(detector.detect(image[0]), expected, 1e-2) == 1  # pixels


def test_operators_and_metadata_of_a_detector(light_model, detector):
    assert detector.metadata == Metadata(light_model().config, "detector", "FP32", "model.ckpt-1")
    proto = onnx.load(path_of(detector))
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 17)]
    assert {node.domain for node in proto.graph.node} == {""}
    assert [node.op_type for node in proto.graph.node].count("NonMaxSuppression") == 1
    assert proto.producer_name == "EfficientDet TensorFlow 2" and proto.doc_string.startswith("efficientdet-lite0: ")
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*proto.graph.input, *proto.graph.output]
    }
    assert shapes == {
        "image_arrays": [1, "height", "width", 3],
        "detections": [1, 20, 7],
        "detection_boxes": [1, 20, 4],
        "detection_scores": [1, 20],
        "detection_classes": [1, 20],
        "num_detections": [1],
    }
    assert [file.name for file in pathlib.Path(path_of(detector)).parent.iterdir()] == ["model.onnx"]


def test_the_shape_of_every_tensor_is_stored(detector):
    """Without that of the scaled image, whose size is computed, onnxslim takes it for a scalar and fails."""
    graph = onnx.load(path_of(detector)).graph
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in [*graph.value_info, *graph.output]}
    assert ranks.keys() == {name for node in graph.node for name in node.output}
    [scaled] = [node.output[0] for node in graph.node if node.op_type == "Resize"]
    assert ranks[scaled] == 4


@pytest.mark.parametrize(
    "post_mode, nms_configs, batch_size, counts",
    [
        ("global", {}, 0, [1, 3]),
        ("global", {"max_nms_inputs": 50}, 2, [2]),
        ("global", {"max_nms_inputs": 50}, 0, [3]),
        ("global", {"score_thresh": None, "iou_thresh": 0.2}, 1, [1]),
        ("per_class", {"max_nms_inputs": 50}, 1, [1]),
    ],
)
def test_batch_sizes_and_nms_options(light_model, tmp_path, post_mode, nms_configs, batch_size, counts):
    model = light_model(post_mode, **nms_configs)
    exported = export(model, tmp_path, "detector", batch_size=batch_size)
    assert exported.runtime.batch_size == (batch_size or None)
    if post_mode == "global":
        operators = [node.op_type for node in onnx.load(path_of(exported)).graph.node]
        # OpenVINO reads no loops: one suppression for each of a fixed number of images, or one for all.
        assert "Loop" not in operators and operators.count("NonMaxSuppression") == (batch_size or 1)
    for count in counts:
        images = random_images(count, 50, 130)
        expected = signatures.named(model(tf.constant(images)))
        outputs = exported.runtime.run(images)
        assert sorted(outputs) == sorted(expected) and np.all(expected["num_detections"] > 0)
        for name, value in expected.items():
            assert outputs[name].dtype == value.dtype
            np.testing.assert_allclose(outputs[name], value, rtol=1e-4, atol=2e-3)


def test_nearest_neighbor_resizing_equals_tensorflow():
    """Upsampling to the next level, over several levels, and by an integer factor on one side."""
    sizes = [(before, after) for after in range(2, 34) for before in {-(-after // 2), -(-after // 4)} if before < after]
    sizes = list(zip(sizes, reversed(sizes)))

    @tf.function(input_signature=[tf.TensorSpec([None, 1, 1, 2], tf.float32, name="x")], autograph=False)
    def resize(x):
        def grown(index, heights, widths):
            grid = tf.range(float(heights[0] * widths[0])) + index
            pixels = tf.reshape(grid, [1, heights[0], widths[0], 1]) + x
            return tf.raw_ops.ResizeNearestNeighbor(images=pixels, size=[heights[1], widths[1]])

        return {f"y{i}": grown(i, *pair) for i, pair in enumerate(sizes)}

    proto = export_onnx._convert(resize.get_concrete_function())
    session = importlib.import_module("onnxruntime").InferenceSession(proto.SerializeToString())
    x = np.zeros([2, 1, 1, 2], np.float32)
    outputs = dict(zip([output.name for output in session.get_outputs()], session.run(None, {"x": x})))
    assert len(outputs) == len(sizes) > 50
    for i, ((h, height), (w, width)) in enumerate(sizes):
        rows, columns = np.arange(height) * h // height, np.arange(width) * w // width
        expected = np.broadcast_to((rows[:, np.newaxis] * w + columns + i)[..., np.newaxis], [2, height, width, 2])
        np.testing.assert_array_equal(outputs[f"y{i}"], expected)


def test_number_of_threads(detector):
    path = path_of(detector)
    assert runtimes.Onnx(path, num_threads=1)._session.get_session_options().intra_op_num_threads == 1
    assert runtimes.Onnx(path)._session.get_session_options().intra_op_num_threads == 0  # one per core


@pytest.mark.parametrize(
    "path, changes, message",
    [
        ("a.pb", {}, r"expected \*.onnx, got .*a.pb"),
        ("a.onnx", {"content": "detection_op"}, "a detector or a network, got detection_op"),
        ("a.onnx", {"precision": "INT8"}, "INT8 needs calibration images: give --file_pattern"),
        ("a.onnx", {"method": "gaussian"}, "no gaussian NMS; use --nms_method=hard"),
    ],
)
def test_unsupported_requests(tiny_config, tmp_path, path, changes, message):
    config = tiny_config.override({"nms_configs": {"method": changes.pop("method", "hard")}})
    with pytest.raises(ExportError, match=message):
        export_onnx.write(None, str(tmp_path / path), Metadata(config, **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_network_may_have_any_nms_method(tiny_config):
    config = tiny_config.override({"nms_configs": {"method": "gaussian"}})
    export_onnx.check("a.onnx", Metadata(config, "network"))


def test_the_error_names_a_missing_package(tiny_config, monkeypatch):
    config = tiny_config.override({"nms_configs": HARD})
    for package in ("onnx", "onnxruntime", "tf2onnx"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(ExportError, match=rf"pip install -r requirements-onnx.txt \(.*{package}"):
                export_onnx.check("a.onnx", Metadata(config))


def test_an_existing_target_is_kept(tiny_config, tmp_path):
    (tmp_path / "a.onnx").write_text("kept")
    with pytest.raises(TargetError, match="exists already"):
        export_onnx.write(None, str(tmp_path / "a.onnx"), Metadata(tiny_config))
    assert (tmp_path / "a.onnx").read_text() == "kept"


def test_an_op_that_onnx_lacks_is_an_error(light_model, tmp_path, capfd, caplog):
    model = light_model()
    strange = EfficientDetModel(model.config, lambda x, training=False: ([tf.math.betainc(x, x, x)], [x]))
    with pytest.raises(ExportError, match=r"could not be converted to ONNX: .*Betainc") as raised:
        export_onnx.write(strange, str(tmp_path / "a.onnx"), Metadata(model.config, "network"))
    assert "\n" not in str(raised.value) and list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == "" and not [r for r in caplog.records if r.name.startswith("tf2onnx")]


def test_errors_of_the_calibration(light_model, tmp_path):
    """They name what is wrong with the records, and leave no file."""
    model = light_model()

    def unreadable():
        yield np.zeros([1, 50, 130, 3], np.uint8)
        raise tfrecord.DataError("record 2 is damaged")

    metadata = Metadata(model.config, "detector", "INT8")
    for inputs, error, message in (
        ([], ExportError, "the records have none; check --file_pattern"),
        (unreadable(), tfrecord.DataError, "^record 2 is damaged$"),
    ):
        with pytest.raises(error, match=message):
            export_onnx.write(model, str(tmp_path / "a.onnx"), metadata, calibration_inputs=inputs)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.both_lanes
@pytest.mark.parametrize("precision, content, batch_size", [("FP16", "detector", 0), ("INT8", "network", 2)])
def test_reduced_precision_keeps_interface_and_metadata(
    tiny_config, spread_driver, tmp_path, precision, content, batch_size
):
    driver = spread_driver(tiny_config.override({"nms_configs": HARD}))
    metadata = Metadata(driver.config, content, precision, "model.ckpt-1")
    model, path = signatures.frozen(driver.model, batch_size), str(tmp_path / "model.onnx")
    inputs = np.random.RandomState(0).randn(4, 1, 64, 64, 3).astype(np.float32)
    options = {"batch_size": batch_size, "calibration_inputs": inputs if precision == "INT8" else None}
    assert export_onnx.write(model, path, metadata, **options) == [path]
    exported = drivers.open_artifact(path)
    assert exported.metadata == metadata and exported.runtime.batch_size == (batch_size or None)
    proto = onnx.load(path)
    assert [prop.key for prop in proto.metadata_props] == [METADATA_KEY]
    assert proto.producer_name == "EfficientDet TensorFlow 2"
    types = {value.type.tensor_type.elem_type for value in [*proto.graph.input, *proto.graph.output]}
    if precision == "INT8":
        assert types == {onnx.TensorProto.FLOAT}
        outputs, expected = exported.network(inputs[0]), driver.network(inputs[0])
        assert 1e-3 < largest_difference(outputs, expected) < 0.3
    else:
        assert onnx.TensorProto.FLOAT16 not in types
        images = random_images(2, 50, 130)
        for ours, theirs in zip(exported.serve(list(images)).scores, driver.serve(list(images)).scores):
            np.testing.assert_allclose(ours, theirs, atol=1e-2)
        assert sum(node.op_type == "Cast" for node in proto.graph.node) > 10


@pytest.mark.slow
@pytest.mark.both_lanes
@pytest.mark.parametrize("name", ["efficientdet-d0", "efficientdet-lite0"])
def test_whole_models(name, tmp_path):
    driver = drivers.KerasDriver(config_lib.load(name, nms_configs=HARD | {"max_output_size": 100}), None)
    variables = checkpoint.named_variables(driver.model.net)
    for key, value in reference_weights.weights(np.load(ROOT / "testdata" / f"{name}.npz")).items():
        if key in variables:
            variables[key].assign(value)
    image = np.asarray(PIL.Image.open(ROOT / "testdata" / "img1.jpg").convert("RGB"))
    model = signatures.frozen(driver.model)
    exported = export(model, tmp_path, "network")
    inputs = driver.model.preprocess(image)[0].numpy()[np.newaxis]
    # These random weights amplify rounding: Keras itself differs by 2e-4 from the same graph in float64.
    assert largest_difference(exported.network(inputs), driver.network(inputs)) < 10 * BOUND
    (tmp_path / "model.onnx").unlink()
    # Half a pixel of 640; some of the hundred have equal scores, and may be swapped with boxes that are left out.
    assert agreement(export(model, tmp_path, "detector").detect(image), driver.detect(image), 0.5) >= 0.95


QUICK = "efficientdet-lite3x"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [QUICK, *(pytest.param(name, marks=pytest.mark.long) for name in config_lib.MODELS if name != QUICK)]
)
def test_every_model_converts_and_runs(name, tmp_path):
    config = config_lib.load(name, image_size=128, nms_configs=HARD)
    exported = export(signatures.frozen(drivers.KerasDriver(config, None).model), tmp_path, "detector")
    outputs = exported.runtime.run(random_images(1, 128, 100))
    assert outputs["detections"].shape == (1, 20, 7) and np.all(np.isfinite(outputs["detections"]))
