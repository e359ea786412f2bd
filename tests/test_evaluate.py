# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""evaluate: from records and detections to metrics, over the 8 images of testdata/sample.tfrecord."""

import json
import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dataset import tfrecord, visualize
from efficientdet.model import EfficientDetNet
from efficientdet.postprocess import Detections
from tf2 import checkpoint, evaluate
from tf2.evaluate import Evaluation, Evaluator
from tf2.model_dir import ModelDir

TESTDATA = pathlib.Path(__file__).parents[1] / "testdata"
SAMPLE, GROUNDTRUTH = str(TESTDATA / "sample.tfrecord"), str(TESTDATA / "sample.json")

STATM = pathlib.Path("/proc/self/statm")


class Oracle:
    """Stands in for a network: its detections are the groundtruth, image by image, moved by some pixels."""

    def __init__(self, move=0.0):
        self.move, self.image = move, 0
        self.rows = {}
        for annotation in json.loads(pathlib.Path(GROUNDTRUTH).read_text())["annotations"]:
            self.rows.setdefault(annotation["image_id"], []).append(annotation)

    def detect(self, images, image_scales):
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
    """Runs an Evaluator over an Oracle; returns its metrics."""

    def run(oracle=None, config=tiny_config, **evaluation):
        oracle = oracle or Oracle()
        monkeypatch.setattr(Evaluator, "_detector", lambda self, net: oracle.detect)
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


def test_num_samples_limits_the_images(score):
    _, oracle = score(num_samples=5, batch_size=2)
    assert oracle.image == 5


def test_an_evaluator_runs_again_from_the_start(tiny_config, monkeypatch):
    oracle = Oracle()
    monkeypatch.setattr(Evaluator, "_detector", lambda self, net: oracle.detect)
    evaluator = Evaluator(tiny_config, Evaluation(SAMPLE, batch_size=4))
    first = evaluator.run(object())
    oracle.image = 0
    assert evaluator.run(object()) == first


def test_candidates_are_5000_unless_the_config_says(tiny_config):
    assert Evaluator(tiny_config, Evaluation(SAMPLE)).config.nms_configs.max_nms_inputs == 5000
    config = tiny_config.override({"nms_configs": {"max_nms_inputs": 70, "method": "hard"}})
    nms_configs = Evaluator(config, Evaluation(SAMPLE)).config.nms_configs
    assert (nms_configs.max_nms_inputs, nms_configs.method) == (70, "hard")


def test_files_are_looked_at_before_a_network_is_built(tiny_config, tmp_path):
    with pytest.raises(ValueError, match="no file matches"):
        Evaluator(tiny_config, Evaluation(str(tmp_path / "none")))
    with pytest.raises(FileNotFoundError):
        Evaluator(tiny_config, Evaluation(SAMPLE, str(tmp_path / "none.json")))
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="hold no record that can be read"):
        Evaluator(tiny_config, Evaluation(str(tmp_path / "empty")))
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint at"):
        evaluate.run(Evaluator(tiny_config, Evaluation(SAMPLE)), str(tmp_path / "none"))


def with_sample_image(config, path):
    """The config with a sample_image."""
    return config.override({"sample_image": str(path)})


@pytest.mark.parametrize("content, reason", [(None, "No such file"), (b"", "0 bytes"), (b"text", "no image")])
def test_a_sample_image_that_cannot_be_read_is_refused(tiny_config, tmp_path, content, reason):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=rf"sample_image: .*a\.png.*{reason}.*; give a picture file, or leave it out"):
        Evaluator(with_sample_image(tiny_config, tmp_path / "a.png"), Evaluation(SAMPLE))


def one_box(images, image_scales):
    """Stands in for a network's function: a sure box, and one of score 0.3, the same in every network input."""
    boxes = np.array([[8, 16, 40, 48], [0, 0, 64, 64]]) * np.asarray(image_scales)[:, None, None]
    count = len(images)
    return Detections(boxes, np.tile([0.9, 0.3], [count, 1]), np.full((count, 2), 3), np.full(count, 2))


def test_pictures_are_the_first_of_the_records(tiny_config, monkeypatch):
    monkeypatch.setattr(Evaluator, "_detector", lambda self, net: one_box)
    evaluator = Evaluator(tiny_config.override({"label_map": {3: "three"}}), Evaluation(SAMPLE, batch_size=3))
    pictures = evaluator.pictures(object())
    assert list(pictures) == ["1", "2", "3", "4"]
    record = next(iter(tf.data.TFRecordDataset(SAMPLE)))
    image = tfrecord.decode(record)["image"]
    height, width = (int(side / 1.5) for side in image.shape[:2])
    plain = np.zeros((64, 64, 3), np.uint8) + np.array([round(c) for c in tiny_config.mean_rgb], np.uint8)  # padding
    plain[:height, :width] = np.round(tf.image.resize(tf.cast(image, tf.float32), (height, width)))
    expected = visualize.draw_boxes(plain, [[8, 16, 40, 48]], [3], [0.9], names={3: "three"})
    assert pictures["1"].dtype == np.uint8
    np.testing.assert_allclose(pictures["1"].astype(int), expected, atol=1)
    assert list(evaluator.pictures(object(), count=2)) == ["1", "2"]


def test_a_sample_image_is_drawn_at_its_own_size(tiny_config, tmp_path, monkeypatch):
    seen = []

    def detect(images, image_scales):
        seen.append(np.asarray(images))
        return one_box(images, image_scales)

    monkeypatch.setattr(Evaluator, "_detector", lambda self, net: detect)
    image = np.full((128, 256, 3), 90, np.uint8)
    Image.fromarray(image).save(tmp_path / "street.png")
    evaluator = Evaluator(with_sample_image(tiny_config, tmp_path / "street.png"), Evaluation(SAMPLE))
    (tmp_path / "street.png").unlink()  # it was read at the start: a training does not fail for it later
    pictures = evaluator.pictures(object())
    assert list(pictures) == ["street.png"]
    expected = visualize.draw_boxes(image, [[32, 64, 160, 192]], [3], [0.9])  # 4 times the box of the network input
    np.testing.assert_array_equal(pictures["street.png"], expected)
    [[network_input]] = seen
    assert network_input.shape == (64, 64, 3)
    grey = (90 - np.array(tiny_config.mean_rgb)) / np.array(tiny_config.stddev_rgb)
    np.testing.assert_allclose(network_input[:32], np.broadcast_to(grey, (32, 64, 3)), atol=1e-5)
    np.testing.assert_allclose(network_input[32:], 0, atol=1e-5)


class Clock:
    """Stands in for the module time: to sleep is to make time pass, and things happen that are due."""

    def __init__(self):
        self.now, self.events = 1000.0, []  # seconds; (when, what to call)

    def at(self, seconds, call, *args):
        self.events.append((1000 + seconds, lambda: call(*args)))

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        for event in [event for event in self.events if event[0] <= self.now]:
            self.events.remove(event)
            event[1]()


class Follower:
    """A directory followed with a network of one variable; the metric of an evaluation is its value."""

    def __init__(self, directory):
        self.directory, self.clock, self.seconds = directory, Clock(), 0
        self.evaluations = []  # (start, step, AP)
        self.nets = []
        self.config = "config"

    def net(self, config):
        assert config == "config"
        weights = [tf.Variable(tf.zeros(3), name="part/kernel")]
        self.nets.append(
            types.SimpleNamespace(name="tiny", config=types.SimpleNamespace(num_classes=3), weights=weights)
        )
        return self.nets[-1]

    def save(self, step, last_step=None, shape=3):
        """Writes a checkpoint whose values are its step."""
        tensors = {"part/kernel": np.full(shape, step, np.float32)}
        if last_step is not None:
            tensors["training/last_step"] = np.int64(last_step)
        return ModelDir(str(self.directory), keep=2).save(step, tensors)

    def run(self, net):
        """As Evaluator.run; takes some time."""
        [value] = set(net.weights[0].numpy().tolist())
        self.evaluations.append([self.clock.now - 1000, value])
        self.clock.sleep(self.seconds)
        return {"AP": value}

    def follow(self, **options):
        told = []
        options = {"min_interval": 0, "timeout": 60, **options}
        results = evaluate.follow(self, str(self.directory), on_result=lambda *args: told.append(args), **options)
        assert [row[2]["AP"] for row in told] == [value for _, value in self.evaluations]
        assert results == told[-1][2]
        assert len(self.nets) == 1
        return [(pathlib.Path(prefix).name, step) for prefix, step, _ in told]


@pytest.fixture
def follower(tmp_path, monkeypatch):
    follower = Follower(tmp_path)
    monkeypatch.setattr(evaluate, "time", follower.clock)
    monkeypatch.setattr(evaluate, "EfficientDetNet", follower.net)
    return follower


def named(*steps):
    return [(f"model.ckpt-{step}", step) for step in steps]


def test_a_training_is_followed_to_its_last_step(follower):
    follower.save(10, 30)
    follower.clock.at(20, follower.save, 20, 30)
    follower.clock.at(70, follower.save, 30, 30)  # within 60 s after the one before
    follower.clock.at(75, follower.save, 40, 30)  # not looked for any more
    assert follower.follow() == named(10, 20, 30)
    assert follower.evaluations == [[0, 10], [20, 20], [70, 30]]


def test_what_is_complete_is_evaluated_once(follower):
    follower.save(10, 20)
    follower.save(20, 20)
    assert follower.follow() == named(20)
    assert follower.clock.now == 1000


def test_the_last_step_may_be_put_off(follower):
    follower.save(10, 20)
    follower.clock.at(5, follower.save, 20, 30)  # resumed with more epochs
    follower.clock.at(10, follower.save, 30, 30)
    assert follower.follow() == named(10, 20, 30)


def test_evaluations_start_min_interval_apart(follower):
    follower.seconds = 7
    follower.save(1, 100)
    for step in range(2, 101):
        follower.clock.at(step, follower.save, step, 100)
    assert follower.follow(min_interval=30) == named(1, 30, 60, 90, 100)
    assert [start for start, _ in follower.evaluations] == [0, 30, 60, 90, 120]


def test_no_interval_means_one_after_the_other(follower):
    follower.seconds = 40
    follower.save(1, 100)
    for step in range(2, 101):
        follower.clock.at(step, follower.save, step, 100)
    assert follower.follow(min_interval=30) == named(1, 40, 80, 100)


def test_without_a_newer_checkpoint_it_ends_with_a_warning(follower, caplog):
    follower.save(10, 30)
    follower.clock.at(50, follower.save, 20, 30)
    follower.clock.at(200, follower.save, 30, 30)
    assert follower.follow() == named(10, 20)
    assert follower.clock.now == 1000 + 50 + 60
    assert "nothing newer than " in caplog.text and "model.ckpt-20 came within 60 s" in caplog.text


def test_a_checkpoint_that_tells_no_last_step_is_one_of_more(follower):
    follower.save(10)
    follower.clock.at(5, follower.save, 20)
    assert follower.follow() == named(10, 20)
    assert follower.clock.now == 1000 + 5 + 60


def test_a_checkpoint_without_a_step_in_its_name_is_the_only_one(follower):
    follower.save(7)
    for file in follower.directory.glob("model.ckpt-7.*"):
        file.rename(follower.directory / file.name.replace("model.ckpt-7", "model"))
    (follower.directory / "checkpoint").write_text('model_checkpoint_path: "model"\n')
    assert follower.follow() == [("model", None)]
    assert follower.evaluations == [[0, 7]] and follower.clock.now == 1000


def test_the_first_checkpoint_is_waited_for(follower, caplog):
    caplog.set_level("INFO")
    follower.directory /= "new"
    follower.clock.at(30, lambda: (follower.directory.mkdir(), follower.save(5, 5)))
    assert follower.follow() == named(5)
    assert follower.evaluations == [[30, 5]]
    waiting = [message for message in caplog.messages if message.startswith("waiting")]
    assert waiting == [f"waiting up to 60 s for a first checkpoint in {follower.directory}"]


def test_no_checkpoint_at_all_is_an_error(follower):
    with pytest.raises(
        checkpoint.CheckpointError, match=r"no checkpoint that can be read came to .* within 60 s; give"
    ):
        follower.follow()
    assert follower.clock.now == 1060


def test_a_step_back_is_not_newer(follower):
    follower.save(20, 30)
    follower.clock.at(10, follower.save, 10, 30)
    assert follower.follow() == named(20)


@pytest.mark.parametrize("damage", ["index", "data", "half"])
def test_what_vanishes_or_is_half_there_gives_way_to_a_newer_one(follower, damage, caplog):
    follower.save(10, 30)
    data = next(follower.directory.glob("*.data*"))
    if damage == "index":
        (follower.directory / "model.ckpt-10.index").unlink()
    elif damage == "data":
        data.unlink()
    else:
        data.write_bytes(data.read_bytes()[:-9])
    follower.clock.at(30, follower.save, 20, 30)
    follower.clock.at(40, follower.save, 30, 30)
    assert follower.follow() == named(20, 30)
    told = [message for message in caplog.messages if "waiting for a newer checkpoint" in message]
    assert len(told) == (0 if damage == "index" else 1)  # without its index there is no checkpoint


def test_a_checkpoint_that_is_still_being_copied_is_read_when_it_is_whole(follower):
    follower.save(10, 10)
    data = next(follower.directory.glob("*.data*"))
    whole = data.read_bytes()
    data.write_bytes(whole[:5])
    follower.clock.at(20, data.write_bytes, whole)
    assert follower.follow() == named(10)
    assert follower.evaluations == [[20, 10]]


def test_a_checkpoint_deleted_while_it_is_read(follower, monkeypatch):
    """The trainer writes two more, and keeps two, between the look at the state file and the reading."""
    follower.save(10, 40)
    read = checkpoint.read_entries

    def late(prefix, names=None):
        monkeypatch.setattr(checkpoint, "read_entries", read)
        for step in (20, 30, 40):
            follower.save(step, 40)
        return read(prefix, names)

    monkeypatch.setattr(checkpoint, "read_entries", late)
    assert follower.follow() == named(40)


def test_a_checkpoint_of_another_network_is_an_error_at_once(follower):
    follower.save(10, 30)
    follower.clock.at(5, follower.save, 20, 30, 4)
    with pytest.raises(checkpoint.CheckpointError, match="fits tiny in 0 of 1 variables"):
        follower.follow()
    assert follower.clock.now == 1005


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="the memory of a process is read from /proc, as Linux has it")
def test_memory_stays_flat_over_many_evaluations(tiny_config):
    config = tiny_config.override({"nms_configs": {"max_nms_inputs": 50}})
    evaluator, net, memory = Evaluator(config, Evaluation(SAMPLE, batch_size=3)), EfficientDetNet(config), []
    for _ in range(8):
        for variable in net.weights:
            variable.assign(0.99 * variable)
        evaluator.run(net)
        assert len(evaluator.pictures(net)) == 4
        memory.append(int(STATM.read_text().split()[1]))
    assert memory[-1] <= 1.05 * memory[2]
    assert evaluator._detector(net).experimental_get_tracing_count() == 1


def listing(folder):
    """What changes if anything is written into a folder."""
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.iterdir()]}


@pytest.mark.slow
def test_a_checkpoint_is_evaluated_by_its_averages_and_its_folder_stays_as_it_is(tiny_config, tmp_path):
    config = tiny_config.override({"nms_configs": {"max_nms_inputs": 50}})
    net = EfficientDetNet(config)
    weights = {name: variable.numpy() for name, variable in checkpoint.named_variables(net).items()}
    averages = {name + checkpoint.AVERAGE: value for name, value in weights.items()}
    zeros = {name: np.zeros_like(value) for name, value in weights.items()}
    ModelDir(str(tmp_path)).save(1, {**zeros, **averages})
    evaluator = Evaluator(config, Evaluation(SAMPLE, GROUNDTRUTH, batch_size=3))
    before = listing(tmp_path)
    assert "config.yaml" not in before  # and none is needed
    results = evaluate.run(evaluator, str(tmp_path))
    assert listing(tmp_path) == before
    assert results == evaluator.run(net)
    assert -1 <= results["AP"] < 0.2 and not tf.math.is_nan(results["AP"])
