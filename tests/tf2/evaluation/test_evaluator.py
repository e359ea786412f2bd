# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""evaluator: metrics and drawings of the 8 images of testdata/sample.tfrecord."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from PIL import Image

from dataset import tfrecord, visualize
from efficientdet.model import EfficientDetNet
from efficientdet.postprocess import Detections
from tf2.evaluation import evaluator as evaluator_lib
from tf2.evaluation.evaluator import Evaluation, Evaluator
from tf2.inference import drivers
from tf2.training.model_dir import ModelDir
from tf2.weights import checkpoint

TESTDATA = pathlib.Path(__file__).parents[3] / "testdata"
SAMPLE, GROUNDTRUTH = str(TESTDATA / "sample.tfrecord"), str(TESTDATA / "sample.json")

STATM = pathlib.Path("/proc/self/statm")


class Oracle:
    """A fake network that detects the groundtruth of each image, shifted by some pixels."""

    def __init__(self, move=0.0):
        self.move, self.image = move, 0
        self.rows = {}
        for annotation in json.loads(pathlib.Path(GROUNDTRUTH).read_text())["annotations"]:
            self.rows.setdefault(annotation["image_id"], []).append(annotation)

    def detect(self, state):
        images, image_scales = state
        assert images.shape[1:] == (64, 64, 3)
        np.testing.assert_allclose(image_scales, 1.5)
        count = images.shape[0]
        boxes, scores, classes = np.zeros((count, 100, 4)), np.zeros((count, 100)), np.zeros((count, 100), np.int32)
        lengths = []
        for i in range(count):
            self.image += 1
            rows = self.rows.get(self.image, [])
            lengths.append(len(rows))
            for j, row in enumerate(rows):
                x, y, width, height = row["bbox"]
                boxes[i, j] = np.array([y, x, y + height, x + width]) + self.move
                scores[i, j], classes[i, j] = 0.9, row["category_id"]
        return Detections(boxes, scores, classes, np.array(lengths))


@pytest.fixture
def score(tiny_config, monkeypatch):
    """A function that runs an Evaluator over an Oracle and returns its metrics."""

    def run(oracle=None, config=tiny_config, **evaluation):
        oracle = oracle or Oracle()
        monkeypatch.setattr(Evaluator, "_detector", lambda self, net: {"network + NMS": oracle.detect})
        results = Evaluator(config, Evaluation(SAMPLE, **evaluation)).run(object())
        return results, oracle

    return run


@pytest.mark.parametrize("options", [{}, {"val_json_file": GROUNDTRUTH}, {"batch_size": 3}, {"batch_size": 8}])
def test_perfect_detections_score_1(score, options, tiny_config, capsys):
    config = tiny_config.override({"label_map": {1: "one", 3: "three"}})
    results, oracle = score(config=config, **options)
    assert oracle.image == 8
    np.testing.assert_allclose([results[name] for name in ("AP", "AP50", "APs", "AP_/one", "AP_/three")], 1, rtol=1e-6)
    assert "AP_/three" in capsys.readouterr().out


def test_moved_detections_score_less(score):
    results, _ = score(Oracle(move=2.0))
    assert 0.2 < results["AP"] < results["AP50"] <= 1


@pytest.mark.parametrize("num_samples, images", [(None, 8), (5, 5), (7, 7), (8, 8), (9, 8), (5000, 8)])
def test_num_samples_limits_the_images_and_only_then_says_so(score, monkeypatch, num_samples, images):
    warnings = []
    monkeypatch.setattr(logging, "warning", lambda message, *args: warnings.append(message % args))
    _, oracle = score(num_samples=num_samples, batch_size=2)
    assert oracle.image == images
    limited = f"evaluated only {images} images, as limited by --eval_samples={images}; {8 - images} more records were"
    assert [warning.removesuffix(" not read") for warning in warnings] == ([limited] if images < 8 else [])


def test_evaluator_runs_again_from_the_start(tiny_config, monkeypatch):
    oracle = Oracle()
    monkeypatch.setattr(Evaluator, "_detector", lambda self, net: {"network + NMS": oracle.detect})
    evaluator = Evaluator(tiny_config, Evaluation(SAMPLE, batch_size=4))
    first = evaluator.run(object())
    oracle.image = 0
    assert evaluator.run(object()) == first


@pytest.mark.parametrize("max_kept, is_kept", [(8, True), (7, False)])
def test_the_best_result_is_kept_unless_it_has_many_images(tiny_config, monkeypatch, max_kept, is_kept):
    monkeypatch.setattr(evaluator_lib, "MAX_KEPT", max_kept)
    evaluator, aps = Evaluator(tiny_config, Evaluation(SAMPLE)), []
    for move in (9.0, 0.0, 2.0, 0.0):
        monkeypatch.setattr(Evaluator, "_detector", lambda self, net, move=move: {"all": Oracle(move=move).detect})
        aps.append(evaluator.run(object())["AP"])
        if len(aps) == 2:
            best = evaluator.best
    assert max(aps) == aps[1] > aps[0] and evaluator.best is best  # the first of equal ones
    assert (best and best.metric.result()["AP"]) == (aps[1] if is_kept else None)


def test_invalid_utf_8_in_source_ids_is_replaced(tiny_config, monkeypatch):
    evaluator, oracle = Evaluator(tiny_config, Evaluation(SAMPLE)), Oracle()
    monkeypatch.setattr(Evaluator, "_detector", lambda self, net: {"network + NMS": oracle.detect})
    evaluator._dataset = evaluator._dataset.map(
        lambda images, labels: (images, {**labels, "source_id": tf.strings.join([labels["source_id"], b"\xe4"])})
    )
    assert evaluator.run(object())["AP"] > 0.9
    monkeypatch.setattr(Evaluator, "_detector", lambda self, net: {"network + NMS": one_box})
    assert [name[-1] for name in evaluator.draw_images(object(), 2)] == ["\ufffd"] * 2


def test_max_nms_inputs_defaults_to_5000(tiny_config):
    assert Evaluator(tiny_config, Evaluation(SAMPLE)).config.nms_configs.max_nms_inputs == 5000
    config = tiny_config.override({"nms_configs": {"max_nms_inputs": 70, "method": "hard"}})
    nms_configs = Evaluator(config, Evaluation(SAMPLE)).config.nms_configs
    assert (nms_configs.max_nms_inputs, nms_configs.method) == (70, "hard")


def test_files_are_checked_before_a_network_is_built(tiny_config, tmp_path):
    with pytest.raises(ValueError, match="no file matches"):
        Evaluator(tiny_config, Evaluation(str(tmp_path / "none")))
    with pytest.raises(ValueError, match=r"cannot read .*none\.json: No such file"):
        Evaluator(tiny_config, Evaluation(SAMPLE, str(tmp_path / "none.json")))
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="hold no record that can be read"):
        Evaluator(tiny_config, Evaluation(str(tmp_path / "empty")))


@pytest.mark.parametrize("content, reason", [(None, "No such file"), (b"", "0 bytes"), (b"text", "not an image")])
def test_unreadable_sample_image_is_an_error(tiny_config, tmp_path, content, reason):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=rf"sample_image: .*a\.png.*{reason}.*; give an image file, or leave it out"):
        Evaluator(tiny_config.override({"sample_image": str(tmp_path / "a.png")}), Evaluation(SAMPLE))


def one_box(state):
    """A fake detector: boxes of score 0.9 and 0.3, the same in every network input."""
    images, image_scales = state
    boxes = np.array([[8, 16, 40, 48], [0, 0, 64, 64]]) * np.asarray(image_scales)[:, None]
    count = len(images)
    return Detections(boxes, np.tile([0.9, 0.3], [count, 1]), np.full((count, 2), 3), np.full(count, 2))


def test_draws_the_first_images_of_the_records(tiny_config, monkeypatch):
    monkeypatch.setattr(Evaluator, "_detector", lambda self, net: {"all": one_box})
    evaluator = Evaluator(tiny_config.override({"label_map": {3: "three"}}), Evaluation(SAMPLE, batch_size=3))
    drawn = evaluator.draw_images(object())
    assert list(drawn) == ["1", "2", "3", "4"]
    record = next(iter(tf.data.TFRecordDataset(SAMPLE)))
    image = tfrecord.decode(record)["image"]
    height, width = (int(side / 1.5) for side in image.shape[:2])
    plain = np.zeros((64, 64, 3), np.uint8) + np.array([round(c) for c in tiny_config.mean_rgb], np.uint8)  # padding
    plain[:height, :width] = np.round(tf.image.resize(tf.cast(image, tf.float32), (height, width)))
    expected = visualize.draw_boxes(plain, [[8, 16, 40, 48]], [3], [0.9], names={3: "three"})
    assert drawn["1"].dtype == np.uint8
    np.testing.assert_allclose(drawn["1"].astype(int), expected, atol=1)
    assert list(evaluator.draw_images(object(), count=2)) == ["1", "2"]


def test_sample_image_is_drawn_at_its_own_size(tiny_config, tmp_path, monkeypatch):
    seen = []

    def detect(state):
        seen.append(np.asarray(state[0]))
        return one_box(state)

    monkeypatch.setattr(Evaluator, "_detector", lambda self, net: {"all": detect})
    image = np.full((128, 256, 3), 90, np.uint8)
    Image.fromarray(image).save(tmp_path / "street.png")
    config = tiny_config.override({"sample_image": str(tmp_path / "street.png")})
    evaluator = Evaluator(config, Evaluation(SAMPLE))
    (tmp_path / "street.png").unlink()  # read at the start, so that a training cannot fail because of it later
    drawn = evaluator.draw_images(object())
    assert list(drawn) == ["street.png"]
    expected = visualize.draw_boxes(image, [[32, 64, 160, 192]], [3], [0.9])  # 4 times the box of the network input
    np.testing.assert_array_equal(drawn["street.png"], expected)
    [[network_input]] = seen
    assert network_input.shape == (64, 64, 3)
    grey = (90 - np.array(tiny_config.mean_rgb)) / np.array(tiny_config.stddev_rgb)
    np.testing.assert_allclose(network_input[:32], np.broadcast_to(grey, (32, 64, 3)), atol=1e-5)
    np.testing.assert_allclose(network_input[32:], 0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="reads the memory of the process from /proc, which is Linux only")
def test_memory_stays_flat_over_many_evaluations(tiny_config, monkeypatch):
    network_function, functions = drivers.network_function, []
    monkeypatch.setattr(
        drivers, "network_function", lambda net: functions.append(network_function(net)) or functions[-1]
    )
    config = tiny_config.override({"nms_configs": {"max_nms_inputs": 50}})
    evaluator, net, memory = Evaluator(config, Evaluation(SAMPLE, batch_size=3)), EfficientDetNet(config), []
    for _ in range(8):
        for variable in net.weights:
            variable.assign(0.99 * variable)
        evaluator.run(net)
        assert len(evaluator.draw_images(net)) == 4
        memory.append(int(STATM.read_text().split()[1]))
    assert memory[-1] <= 1.05 * memory[2]
    assert [function.experimental_get_tracing_count() for function in functions] == [1]


def listing(folder):
    """Modification times and sizes of a folder and its files."""
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.iterdir()]}


@pytest.mark.slow
def test_checkpoint_is_evaluated_with_moving_averages_and_not_modified(tiny_config, tmp_path):
    config = tiny_config.override({"nms_configs": {"max_nms_inputs": 50}})
    net = EfficientDetNet(config)
    weights = {name: variable.numpy() for name, variable in checkpoint.named_variables(net).items()}
    averages = {name + checkpoint.AVERAGE: value for name, value in weights.items()}
    zeros = {name: np.zeros_like(value) for name, value in weights.items()}
    ModelDir(str(tmp_path)).save(1, {**zeros, **averages})
    evaluator = Evaluator(config, Evaluation(SAMPLE, GROUNDTRUTH, batch_size=3))
    before = listing(tmp_path)
    assert "config.yaml" not in before  # and none is needed
    results = evaluator.run(drivers.KerasDriver(config, str(tmp_path)).network)
    assert listing(tmp_path) == before
    assert results == evaluator.run(net)
    assert -1 <= results["AP"] < 0.2 and not tf.math.is_nan(results["AP"])
