# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Every flag that names a file: outputs are written to remote paths, inputs are read there or refused.

TensorFlow's ram:// stands for gs://. In the scripts' working directory, no folder appears that is named like a scheme.
"""

import ast
import json
import os
import pathlib
import types

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dataset import (
    check_tfrecords,
    create_coco_tfrecord,
    create_pascal_tfrecord,
    create_yolo_tfrecord,
    files,
    label_map,
)
from dataset.check import inspection
from dataset.convert import coco, command, sample_data, shards, yolo
from dataset.file_search import files_in
from dataset.files import TargetError
from dataset.prepare import prepared
from dataset.records import find_files
from efficientdet import config as config_lib
from efficientdet.model import EfficientDetNet
from efficientdet.postprocess import Detections
from tf2.benchmarks import latency
from tf2.evaluation import evaluate, evaluator
from tf2.evaluation.evaluate import EvaluationOutputs
from tf2.evaluation.evaluator import Evaluation
from tf2.export import checkpoints, onnx, parity, saved_model, tflite
from tf2.inference import drivers, graph, images, signatures, video
from tf2.inference.metadata import Metadata
from tf2.weights import checkpoint

ROOT = pathlib.Path(__file__).parents[1]
SAMPLE, GROUNDTRUTH = str(ROOT / "testdata" / "sample.tfrecord"), str(ROOT / "testdata" / "sample.json")
SCRIPTS = [path for path in ROOT.rglob("*.py") if "\n    command_line.run(main" in path.read_text()]
SCRIPTS.append(ROOT / "main_flags.py")

# All flags that are strings, by what they name. Each output is written in a test below.
OUTPUTS = {
    *("output_path", "output_file_prefix", "save_samples_dir", "output_dir"),
    *("model_dir", "testdev_dir", "output_detections", "output_metrics", "report_dir"),
    *("output_image_dir", "output_json", "output_csv", "output_coco", "output_video"),
    *("saved_model_dir", "tflite_path", "onnx_path", "logdir", "export_ckpt", "trace_filename", "benchmark_json"),
}
READ_REMOTELY = {
    *("train_file_pattern", "val_file_pattern", "file_pattern", "val_json_file"),
    *("object_annotations_file", "caption_annotations_file", "image_info_file", "ckpt", "ckpt_path", "backbone_ckpt"),
}
WRITTEN_LOCALLY = {"data_cache", "work_dir"}
READ_LOCALLY = {
    "data",
    "hparams",
    "label_map_json_path",
    "image_dir",
    "data_dir",
    "data_yaml",
    "input_image",
    "parity_images",
    "input_video",
    "training",
}
NO_FILES = {
    *("model_name", "tpu", "tpu_zone", "gcp_project", "nms_method", "year", "set", "annotations_dir", "prefix"),
    *("image_size", "split", "only", "topology"),
}


def test_every_flag_is_known():
    names = set()
    for path in SCRIPTS:
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        names |= {
            node.args[0].value
            for node in calls
            if getattr(node.func, "attr", "") == "DEFINE_string" and isinstance(node.args[0], ast.Constant)
        }
    assert names == OUTPUTS | WRITTEN_LOCALLY | READ_REMOTELY | READ_LOCALLY | NO_FILES


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A remote folder; the working directory is empty, and has to stay so."""
    empty = tmp_path / "working_directory"
    empty.mkdir()
    monkeypatch.chdir(empty)
    yield f"ram://{tmp_path.name}/folder"
    assert os.listdir(empty) == []


def read(path):
    return files.read_file(path)


def tree(folder):
    """Returns the names of all files below a remote folder, relative to it."""
    return {file.removeprefix(f"{folder}/") for file in files_in(folder)}


class Fake(drivers.Driver):
    """A driver that finds nothing."""

    network = ckpt_path = None

    def __init__(self, config):
        super().__init__(config, {"all": lambda images: Fake._nothing(len(images))})

    @staticmethod
    def _nothing(count):
        return Detections(np.zeros([count, 1, 4]), np.zeros([count, 1]), np.ones([count, 1], int), np.zeros(count, int))


# Writers of records.


class Flags(types.SimpleNamespace):
    """Flags of a writer; None for those that are not given."""

    def __getattr__(self, name):
        return None


@pytest.fixture
def raw(tmp_path):
    """A folder with two images and their annotations in the formats of all writers."""
    for folder in ("JPEGImages", "labels", "Annotations"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
    raw = tmp_path / "raw"
    for i in (1, 2):
        Image.new("RGB", (40, 20), (i, 100, 200)).save(raw / "JPEGImages" / f"{i}.jpg")
        (raw / "JPEGImages" / f"{i}.txt").write_text("0 0.5 0.5 0.25 0.5\n")
        corners = "<xmin>10</xmin><ymin>5</ymin><xmax>20</xmax><ymax>15</ymax>"
        size = "<size><width>40</width><height>20</height><depth>3</depth></size>"
        (raw / "Annotations" / f"{i}.xml").write_text(
            f"<annotation><filename>{i}.jpg</filename>{size}<object><name>dog</name><bndbox>{corners}</bndbox></object>"
            f"</annotation>"
        )
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [10, 5, 10, 10]} for i in (1, 2)]
    rows = [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2)]
    content = {"images": rows, "annotations": boxes, "categories": [{"id": 1, "name": "dog"}]}
    (raw / "coco.json").write_text(json.dumps(content))
    (raw / "data.yaml").write_text("train: JPEGImages\nnames: [dog]\n")
    return raw


def call(script, monkeypatch, **flags):
    shared = {"max_bad_fraction": 0.01, "max_image_pixels": 10**8, "num_shards": 2, "exif_boxes": "auto"}
    flags = Flags(**shared, **flags)
    monkeypatch.setattr(script, "FLAGS", flags)
    monkeypatch.setattr(command, "FLAGS", flags)
    script.main()


PASCAL_FLAGS = {"year": "", "set": "all", "annotations_dir": "Annotations", "collect_label_map": True}
SHARDS = {f"train-0000{i}-of-00002.tfrecord" for i in range(2)}


def write_coco(target, raw, monkeypatch):
    paths = {"image_dir": str(raw / "JPEGImages"), "object_annotations_file": str(raw / "coco.json")}
    call(create_coco_tfrecord, monkeypatch, output_file_prefix=target, **paths)
    return {*SHARDS, "report_train.json", "label_map_train.yaml"}


def write_pascal(target, raw, monkeypatch):
    call(create_pascal_tfrecord, monkeypatch, data_dir=str(raw), output_path=target, **PASCAL_FLAGS)
    return {*SHARDS, "report_train.json", "label_map_train.yaml", "json_train.json"}


def write_yolo(target, raw, monkeypatch):
    call(create_yolo_tfrecord, monkeypatch, data_yaml=str(raw / "data.yaml"), split="train", output_path=target)
    return {*SHARDS, "report_train.json", "label_map_train.yaml", "json_train.json"}


@pytest.mark.parametrize("write", [write_coco, write_pascal, write_yolo])
def test_records(remote, raw, monkeypatch, capsys, write):
    expected = write(f"{remote}/train", raw, monkeypatch)
    assert tree(remote) == expected
    assert "2 images, 2 boxes" in capsys.readouterr().out
    assert sum(1 for _ in tf.data.TFRecordDataset(find_files(f"{remote}/train-*"))) == 2
    assert json.loads(read(f"{remote}/report_train.json"))["images"] == 2
    assert read(f"{remote}/label_map_train.yaml") == b"1: dog\n"
    with (
        pytest.raises(ValueError, match="with another number of shards than 3"),
        shards.open_shards(f"{remote}/train", 3),
    ):
        pytest.fail("opened")


def test_a_failed_conversion_leaves_no_record(remote, raw, monkeypatch):
    copy, done = tf.io.gfile.copy, []

    def fail_at_the_second(source, target, overwrite):
        done.append(target)
        if len(done) == 2:
            raise tf.errors.UnavailableError(None, None, "no network")
        copy(source, target, overwrite=overwrite)

    monkeypatch.setattr(tf.io.gfile, "copy", fail_at_the_second)
    with pytest.raises(ValueError, match="no network"):
        write_yolo(f"{remote}/train", raw, monkeypatch)
    assert tree(remote) == {"report_train.json", "json_train.json"}


# Checks and samples of records.


def test_samples(remote, tiny_config, capsys):
    inspection.run(SAMPLE, remote, tiny_config, samples=1, evaluation=True)
    assert tree(remote) == {"sample0.jpg", "contact_sheet.jpg"}
    assert tf.io.decode_jpeg(read(f"{remote}/sample0.jpg")).shape == (64, 64, 3)
    assert f"writing {remote}/sample0.jpg: " in capsys.readouterr().out


def test_check(remote, monkeypatch, capsys):
    tf.io.gfile.makedirs(remote)
    files.write_file(f"{remote}/groundtruth.json", pathlib.Path(GROUNDTRUTH).read_bytes())
    flags = {"model_name": "efficientdet-lite0", "hparams": "num_classes=3,image_size=64", "samples": None}
    flags |= {"file_pattern": SAMPLE, "val_json_file": f"{remote}/groundtruth.json", "output_dir": f"{remote}/out"}
    monkeypatch.setattr(check_tfrecords, "FLAGS", types.SimpleNamespace(**flags))
    with pytest.raises(SystemExit) as stopped:
        check_tfrecords.main()
    assert stopped.value.code == 0
    assert tree(f"{remote}/out") == {"report.json", "box_sizes.png", "counts.png"}
    assert json.loads(read(f"{remote}/out/report.json"))["records"] == 8


# Evaluation.


def test_results_of_an_evaluation(remote, tiny_config, capsys):
    tf.io.gfile.makedirs(remote)
    files.write_file(f"{remote}/groundtruth.json", pathlib.Path(GROUNDTRUTH).read_bytes())
    outputs = EvaluationOutputs(
        detections=f"{remote}/new/found.json", metrics=f"{remote}/new/metrics.json", report_dir=f"{remote}/report"
    )
    outputs.check(f"{remote}/groundtruth.json")
    driver = Fake(tiny_config.override({"label_map": {1: "a", 2: "b", 3: "c"}}))
    evaluation = Evaluation(SAMPLE, f"{remote}/groundtruth.json")
    for _ in range(2):  # the second one replaces the results of the first
        evaluate.publish(driver, evaluation, evaluate.run(driver, evaluation), outputs)
    assert tree(f"{remote}/new") == {"found.json", "metrics.json"}
    metrics = json.loads(read(f"{remote}/new/metrics.json"))
    assert metrics["metrics"]["AP"] == 0 and metrics["images"] == 8
    assert json.loads(read(f"{remote}/new/found.json")) == []
    names = tree(f"{remote}/report")
    assert "index.html" in names and "report_files/confusion.png" in names
    assert all(name == "index.html" or name.startswith("report_files/") for name in names)
    outputs.check(f"{remote}/groundtruth.json")
    with pytest.raises(TargetError, match="is --val_json_file and would be overwritten"):
        EvaluationOutputs(metrics=f"{remote}/groundtruth.json").check(f"{remote}/groundtruth.json")


def test_detections_on_a_test_set(remote, tiny_config, capsys):
    outputs = EvaluationOutputs(testdev_dir=f"{remote}/testdev")
    outputs.check()
    driver, evaluation = Fake(tiny_config), Evaluation(SAMPLE)
    evaluate.publish(driver, evaluation, evaluate.run(driver, evaluation), outputs)
    assert tree(remote) == {f"testdev/{evaluate.TESTDEV_FILE}"}


def test_a_report_keeps_files_of_others(remote):
    tf.io.gfile.makedirs(remote)
    files.write_file(f"{remote}/index.html", "<html>mine</html>")
    with pytest.raises(TargetError, match=r"index\.html exists and is not part of a report"):
        EvaluationOutputs(report_dir=remote).check()


# Inference and benchmarks.


def test_results_for_images(remote, tiny_config, tmp_path, capsys):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    names = {kind: f"{remote}/found.{kind}" for kind in ("json", "csv", "coco")}
    outputs = images.OutputPaths(f"{remote}/drawn", **names)
    options = {"min_score_thresh": 0.5, "max_boxes_to_draw": 1, "line_thickness": None}
    images.run(Fake(tiny_config), str(tmp_path / "a.png"), outputs, **options)
    assert tree(remote) == {"drawn/0.jpg", "found.json", "found.csv", "found.coco"}
    assert tf.io.decode_jpeg(read(f"{remote}/drawn/0.jpg")).shape == (40, 60, 3)
    assert json.loads(read(f"{remote}/found.json"))["images"][0]["height"] == 40


def test_video(remote, tiny_config, tmp_path):
    def write(path):
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
        for _ in range(3):
            writer.write(np.zeros([48, 64, 3], np.uint8))
        writer.release()
        return str(path)

    options = {"min_score_thresh": 0.5, "max_boxes_to_draw": 1, "line_thickness": None}
    source = write(tmp_path / "in.avi")
    outputs = video.OutputPaths(f"{remote}/out.avi", f"{remote}/out.json", f"{remote}/out.csv")
    video.run(Fake(tiny_config), source, outputs, **options)
    assert tree(remote) == {"out.avi", "out.json", "out.csv"}
    assert len(json.loads(read(f"{remote}/out.json"))["frames"]) == 3
    (tmp_path / "copy.avi").write_bytes(read(f"{remote}/out.avi"))
    assert cv2.VideoCapture(str(tmp_path / "copy.avi")).get(cv2.CAP_PROP_FRAME_COUNT) == 3
    with pytest.raises(TargetError, match="exists already"):
        video.run(Fake(tiny_config), source, video.OutputPaths(f"{remote}/out.avi"), **options)


def test_results_of_a_benchmark(remote, tiny_config, capsys):
    options = latency.Options(1, 1, f"{remote}/trace.json", f"{remote}/benchmark.json")
    latency.saved_model_benchmark(Fake(tiny_config), None, options)
    assert tree(remote) == {"trace.json", "benchmark.json"}
    assert json.loads(read(f"{remote}/benchmark.json"))["stages"]


# Exports.


def write_pb(model, path, metadata):
    graph.write(graph.freeze(signatures.network(model.net, model.config, 1, name="input")), path, metadata)


EXPORTS = {
    "saved_model": saved_model.saved_model,
    "frozen.pb": write_pb,
    "model.tflite": tflite.write,
    "model.onnx": onnx.write,
}


@pytest.mark.parametrize("name", EXPORTS)
def test_exported_files(remote, light_model, name, capsys):
    model = light_model()
    path, metadata = f"{remote}/{name}", Metadata(model.config, "network")
    EXPORTS[name](model, path, metadata)
    opened = drivers.open_artifact(path)
    assert opened.metadata.config == model.config
    inputs = np.random.RandomState(1).randn(1, *model.config.image_size, 3).astype(np.float32)
    np.testing.assert_allclose(opened.network(inputs)[0][0], model.net(inputs)[0][0], atol=1e-3)
    with pytest.raises(TargetError, match="exists already"):
        EXPORTS[name](model, path, metadata)


@pytest.mark.slow
def test_an_export_with_its_parity_check(remote, tiny_config, capsys):
    driver = drivers.KerasDriver(tiny_config, None)
    path = f"{remote}/model.tflite"
    tflite.write(signatures.frozen(driver.model, 1), path, Metadata(tiny_config, "network"))
    report = parity.check(driver, path, images=[np.zeros([64, 64, 3], np.uint8)])
    assert tree(remote) == {"model.tflite", "model.tflite.parity.json"}
    assert report.facts["bytes"] == len(read(path))


@pytest.fixture(scope="module")
def net(tiny_config):
    return EfficientDetNet(tiny_config)


@pytest.mark.parametrize("format, name", [("name", "model"), ("object", "model"), ("hdf5", "model.h5")])
def test_checkpoints(remote, net, format, name, capsys):
    checkpoints.export(net, f"{remote}/{name}", format=format)
    pair = {"model.index", "model.data-00000-of-00001"}
    assert tree(remote) == ({"model.h5"} if format == "hdf5" else {*pair, "checkpoint"})
    if format != "hdf5":
        assert checkpoint.find(remote) == f"{remote}/model"
    with pytest.raises(TargetError, match=r"exists already|is a folder"):  # to ram://, prefixes are folders
        checkpoints.export(net, f"{remote}/{name}", format=format)


def test_dry(remote, net, capsys):
    checkpoints.dry(net, remote)
    names = {name for name in tree(remote) if "tfevents" not in name}
    assert names == {"checkpoint", "efficientdet-lite0.index", "efficientdet-lite0.data-00000-of-00001"}
    assert len(tree(remote)) == 4


# Refused paths.


@pytest.mark.parametrize(
    "read",
    [
        lambda path: coco.load(path, object_annotations_file="coco.json"),
        lambda path: yolo.load(path, "train"),
        lambda path: sample_data.create(path, num_images=1),
        lambda path: prepared.prepare(path, "cache"),
        lambda path: prepared.prepare("data", path),
        lambda path: images.find_images(path),
        lambda path: video.check(path, video.OutputPaths()),
        lambda path: evaluator.Evaluator(config_lib.load("efficientdet-d0", sample_image=path), Evaluation(SAMPLE)),
    ],
    ids=[
        "image_dir",
        "data_yaml",
        "output_dir of sample data",
        "data",
        "data_cache",
        "input_image",
        "input_video",
        "sample_image",
    ],
)
def test_local_inputs(remote, read):
    with pytest.raises(
        ValueError, match=rf"must be on this machine, got {remote}/in; copy it here, and give the local"
    ):
        read(f"{remote}/in")


@pytest.mark.parametrize("flag", ["data_dir", "image_dir"])
def test_folders_of_voc_are_local(remote, raw, monkeypatch, flag):
    flags = {**PASCAL_FLAGS, "data_dir": str(raw), flag: remote}
    with pytest.raises(ValueError, match=f"--{flag} must be on this machine, got {remote}"):
        call(create_pascal_tfrecord, monkeypatch, output_path="train", **flags)


def test_paths_in_data_yaml_are_local(remote, raw):
    (raw / "data.yaml").write_text("path: gs://bucket\ntrain: JPEGImages\nnames: [dog]\n")
    with pytest.raises(ValueError, match=r"a path in .*data\.yaml must be on this machine, got gs://bucket"):
        yolo.load(raw / "data.yaml", "train")


@pytest.mark.parametrize(
    "check",
    [
        files.check_target,
        files.check_folder,
        lambda path: EvaluationOutputs(metrics=path).check(),
        lambda path: EvaluationOutputs(report_dir=path).check(),
        lambda path: checkpoints.check_target(path),
        lambda path: shards.open_shards(path, 1).__enter__(),
        lambda path: inspection.run(SAMPLE, path, config_lib.load("efficientdet-d0", num_classes=3), samples=1),
    ],
    ids=["check_target", "check_folder", "output_metrics", "report_dir", "export_ckpt", "output_path", "samples"],
)
def test_an_unknown_file_system_is_refused_before_the_work(remote, check):
    with pytest.raises(TargetError, match=r"abc://.* cannot be written to .*abc.* not implemented"):
        check("abc://bucket/folder/name")


@pytest.mark.parametrize(
    "hparams", ["gs://bucket/keys.yaml", "label_map=gs://bucket/names.yaml", "label_map=gs://bucket/names.pbtxt"]
)
def test_a_remote_config_is_refused(hparams):
    with pytest.raises(
        ValueError, match=r"gs://bucket/\w+\.(yaml|pbtxt) must be on this machine; copy it here, and give the lo"
    ):
        label_map.resolve(config_lib.load("efficientdet-d0", hparams).label_map)
