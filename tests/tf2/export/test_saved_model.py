# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""saved_model: SavedModel and frozen graph return the detections of their driver; the calls of TF-TRT."""

import io
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tensorflow as tf

from dataset.file_search import files_in
from dataset.files import TargetError
from tf2.export import saved_model
from tf2.inference import drivers, signatures
from tf2.inference.metadata import ArtifactError, ExportError, Metadata

SIZES = ((96, 96), (50, 130), (96, 96))


@pytest.fixture(scope="module")
def driver(tiny_config, spread_driver):
    return spread_driver(tiny_config.override({"nms_configs": {"max_output_size": 15, "method": "hard"}}))


@pytest.fixture(scope="module")
def images():
    return [np.random.RandomState(i).randint(0, 256, (*size, 3), np.uint8) for i, size in enumerate(SIZES)]


@pytest.fixture(
    scope="module",
    params=[2, *(pytest.param(size, marks=[pytest.mark.slow, pytest.mark.both_lanes]) for size in (0, 1))],
    ids="batch_size={}".format,
)
def exported(request, driver, tmp_path_factory):
    """Returns (batch_size, path of a SavedModel, path of a frozen graph)."""
    folder, batch_size = tmp_path_factory.mktemp("exported"), request.param
    model, metadata = signatures.frozen(driver.model, batch_size), Metadata(driver.config, checkpoint="here")
    path, frozen_graph = str(folder / "saved_model"), str(folder / "frozen.pb")
    written = saved_model.saved_model(model, path, metadata, batch_size=batch_size)
    assert written == files_in(path) and os.path.join(path, "saved_model.pb") in written
    assert saved_model.frozen_graph(model, frozen_graph, metadata, batch_size=batch_size) == [frozen_graph]
    return batch_size, path, frozen_graph


def encode(image, orientation=1):
    """Returns a PNG file."""
    buffer, exif = io.BytesIO(), PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(image).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def assert_equal(detections, expected):
    for ours, theirs in zip(detections, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_files_return_the_detections_of_their_driver(driver, exported, images):
    batch_size, *paths = exported
    expected = driver.serve(images)
    assert np.all(expected.valid_len > 0)
    for path in paths:
        detector = drivers.open_artifact(path)
        assert detector.metadata == Metadata(driver.config, checkpoint="here")
        assert detector.runtime.batch_size == (batch_size or None)
        assert_equal(detector.serve(images), expected)  # of two sizes, and not a multiple of the batch


def test_signatures_of_a_saved_model(driver, exported, images):
    batch_size, path, _ = exported
    count = batch_size or 3
    functions = tf.saved_model.load(path).signatures
    assert set(functions) == {"serving_default", "encoded", "network"}
    outputs = functions["serving_default"](image_arrays=tf.constant(np.stack(images[:1] * count)))
    rows, expected = outputs["detections"].numpy(), driver.serve(images[:1])
    assert rows.shape == (count, 15, 7)
    np.testing.assert_array_equal(rows[..., 0], np.arange(count)[:, None].repeat(15, 1))
    np.testing.assert_array_equal(rows[..., 1:5], outputs["detection_boxes"])
    np.testing.assert_array_equal(rows[..., 5], outputs["detection_scores"])
    np.testing.assert_array_equal(rows[..., 6], outputs["detection_classes"])
    np.testing.assert_array_equal(outputs["num_detections"], expected.valid_len.repeat(count))

    network = drivers.open_artifact(path, content="network")
    inputs, _ = driver.stages["preprocess"](images)
    for ours, theirs in zip(network.network(inputs), driver.network(inputs), strict=True):
        for level, expected_level in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(level, expected_level, rtol=1e-4, atol=1e-4)


def test_encoded_images_may_differ_in_size(driver, exported, images):
    batch_size, path, frozen_graph = exported

    chosen = images[: batch_size or 3]
    files = [encode(x, orientation) for x, orientation in zip(chosen, (6, 1, 3))]
    signature = tf.saved_model.load(path).signatures["encoded"]
    outputs = signature(tf.constant(files))
    expected = driver.serve([np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(x)))) for x in files])
    np.testing.assert_allclose(outputs["detection_boxes"], expected.boxes, rtol=1e-4, atol=1e-4)
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"cannot decode image\] \[{len(files) - 1}\] "):
        signature(tf.constant([*files[:-1], b"no image"]))
    if not batch_size:
        empty = signature(image_files=tf.constant([], tf.string))
        assert empty["detections"].shape == (0, 15, 7) and empty["num_detections"].shape == (0,)

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:  # like readers of the published graph
        graph_def = tf.compat.v1.GraphDef.FromString(pathlib.Path(frozen_graph).read_bytes())
        tf.graph_util.import_graph_def(graph_def, name="")
        chosen = images[:1] * len(chosen)  # of one size
        encoded = session.run("detections:0", {"image_files:0": [encode(x) for x in chosen]})
        decoded = session.run("detections:0", {"image_arrays:0": np.stack(chosen)})
    np.testing.assert_array_equal(encoded, decoded)
    np.testing.assert_allclose(encoded[:, :, 1:5], driver.serve(chosen).boxes, rtol=1e-4, atol=1e-4)


CLIENT = """
import sys
import numpy as np
import tensorflow as tf
assert not {"efficientdet", "tf2", "dataset", "backbone"} & {name.split(".")[0] for name in sys.modules}
model = tf.saved_model.load(sys.argv[1])
encoded = model.signatures["encoded"](image_files=tf.constant([open(path, "rb").read() for path in sys.argv[3:]]))
decoded = model.signatures["serving_default"](image_arrays=np.load(sys.argv[2]))
np.savez("found.npz", encoded=encoded["detections"], decoded=decoded["detections"])
"""


@pytest.mark.slow
@pytest.mark.both_lanes
def test_a_client_without_this_code(driver, exported, images, tmp_path):
    batch_size, path, _ = exported
    count = batch_size or 3
    (tmp_path / "image.png").write_bytes(encode(images[1], 6))
    np.save(tmp_path / "images.npy", np.stack(images[:1] * count))
    arguments = [path, str(tmp_path / "images.npy"), *[str(tmp_path / "image.png")] * count]
    (tmp_path / "empty").mkdir()
    options = {"cwd": tmp_path / "empty", "check": True, "capture_output": True, "text": True}
    subprocess.run([sys.executable, "-I", "-c", CLIENT, *arguments], **options)
    found = np.load(tmp_path / "empty" / "found.npz")
    for name, image in (("encoded", np.rot90(images[1], -1)), ("decoded", images[0])):
        expected = driver.serve([image] * count)
        np.testing.assert_allclose(found[name][..., 1:5], expected.boxes, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found[name][..., 5], expected.scores, rtol=1e-4, atol=1e-4)

    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "show", "--dir", path]
    for name, argument in (("encoded", "image_files"), ("serving_default", "image_arrays"), ("network", "images")):
        shown = subprocess.run([*command, "--tag_set", "serve", "--signature_def", name], **options).stdout
        assert re.findall(r"inputs\['(\w+)'\]", shown) == [argument]
        outputs = {"detections", "detection_boxes", "detection_scores", "detection_classes", "num_detections"}
        levels = {f"{head}_predict_{i}" for head in ("class", "box") for i in range(5)}
        assert set(re.findall(r"outputs\['(\w+)'\]", shown)) == (levels if name == "network" else outputs)


@pytest.mark.slow
@pytest.mark.both_lanes
def test_the_network_alone(driver, tmp_path, images):
    model, metadata = signatures.frozen(driver.model, 0), Metadata(driver.config, "network")
    folder, frozen_graph = str(tmp_path / "savedmodel"), str(tmp_path / "frozen.pb")
    saved_model.saved_model(model, folder, metadata, batch_size=0)
    saved_model.frozen_graph(model, frozen_graph, metadata, batch_size=0)
    [signature] = tf.saved_model.load(folder).signatures.values()
    assert set(signature.structured_input_signature[1]) == {"input"}
    names = {f"{head}_predict_{i}" for head in ("class", "box") for i in range(5)}
    assert set(signature.structured_outputs) == names
    nodes = {node.name for node in tf.compat.v1.GraphDef.FromString(pathlib.Path(frozen_graph).read_bytes()).node}
    levels = ["", *(f"_{i}" for i in range(1, 5))]
    assert {f"{h}_net/{h}-predict{level}/BiasAdd" for h in ("class", "box") for level in levels} | {"input"} <= nodes
    for path in (folder, frozen_graph):
        assert_equal(drivers.open_artifact(path).serve(images), driver.serve(images))


def test_existing_targets_are_kept(driver, tmp_path):
    (tmp_path / "file").write_text("kept")
    metadata = Metadata(driver.config)
    for write in (saved_model.saved_model, saved_model.frozen_graph):
        with pytest.raises(TargetError, match=f"{tmp_path / 'file'} exists already; remove it"):
            write(None, str(tmp_path / "file"), metadata)
    assert (tmp_path / "file").read_text() == "kept"


def test_truncated_files_are_errors(exported, tmp_path):
    *_, frozen_graph = exported
    content = pathlib.Path(frozen_graph).read_bytes()
    (tmp_path / "half.pb").write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=r"half\.pb is (damaged|not the graph of a detector)"):
        drivers.open_artifact(str(tmp_path / "half.pb"))
    (tmp_path / "saved_model.pb").write_bytes(content[:1000])
    with pytest.raises(ArtifactError, match="cannot be loaded as a SavedModel"):
        drivers.open_artifact(str(tmp_path))


def test_tensorrt_needs_a_build_and_a_gpu(monkeypatch):
    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: {"is_tensorrt_build": False})
    with pytest.raises(ExportError, match=r"needs a TensorFlow built with TensorRT.*--runmode=onnx"):
        saved_model.check_tensorrt()
    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: {"is_tensorrt_build": True})
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(ExportError, match="on the GPU they run on, but TensorFlow finds no GPU; use --runmode=onnx"):
        saved_model.check_tensorrt()


class FakeConverter:
    """The used part of TF-TRT's converter."""

    def __init__(self, **options):
        self.options, self.calls = options, []
        FakeConverter.last = self

    def convert(self, calibration_input_fn=None):
        self.calls.append([sorted(batch) for batch in calibration_input_fn()] if calibration_input_fn else None)

    def save(self, folder):
        os.makedirs(folder)
        open(os.path.join(folder, "saved_model.pb"), "w").close()


@pytest.mark.parametrize("precision, calls", [("FP16", [None]), ("INT8", [[["image_arrays"]] * 3])])
def test_calls_of_tensorrt(driver, tmp_path, monkeypatch, precision, calls):
    monkeypatch.setattr(saved_model, "check_tensorrt", lambda: None)
    monkeypatch.setattr(tf.experimental.tensorrt, "Converter", FakeConverter)
    metadata = Metadata(driver.config, precision=precision)
    batches = (np.zeros([1, 9, 9, 3], np.uint8) for _ in range(3))
    target = str(tmp_path / "tensorrt")
    calibration = {"calibration_batches": batches} if precision == "INT8" else {}
    written = saved_model.tensorrt("saved", target, metadata, **calibration)
    assert FakeConverter.last.options["precision_mode"] == precision and FakeConverter.last.calls == calls
    assert FakeConverter.last.options["use_calibration"] == (precision == "INT8")
    assert [os.path.relpath(path, target) for path in written] == ["assets.extra/efficientdet.json", "saved_model.pb"]


def test_int8_of_tensorrt_needs_calibration_images(driver, tmp_path, monkeypatch):
    monkeypatch.setattr(saved_model, "check_tensorrt", lambda: None)
    with pytest.raises(ExportError, match="needs calibration images: give --file_pattern"):
        saved_model.tensorrt("saved", str(tmp_path / "t"), Metadata(driver.config, precision="INT8"))
