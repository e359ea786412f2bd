# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""replicas: evaluations on two and four devices and on two machines give the figures and detections of one device."""

import pathlib
import pickle

import numpy as np
import processes
import pytest
import tensorflow as tf

from tf2.evaluation.replicas import Replicas

ROOT = pathlib.Path(__file__).parents[3]
SAMPLE = ROOT / "testdata" / "sample.tfrecord"


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """The 8 records of the sample, of which two hold no image and the last one is cut off."""
    path = tmp_path_factory.mktemp("records") / "damaged.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for i, record in enumerate(tf.data.TFRecordDataset(str(SAMPLE)).as_numpy_iterator()):
            example = tf.train.Example.FromString(record)
            if i in (2, 5):
                example.features.feature["image/encoded"].bytes_list.value[:] = [b"no image"]
            writer.write(example.SerializeToString())
    path.write_bytes(path.read_bytes()[:-100])
    return path


def run(folder, damaged, *modes):
    """Returns the outcomes of simultaneous runs of replicated_evaluation.py."""
    outputs = [folder / f"{i}.pickle" for i in range(len(modes))]
    script = ROOT / "tests" / "replicated_evaluation.py"
    words = ([script, output, damaged, *mode] for output, mode in zip(outputs, modes))
    processes.run(folder, *words)
    return [pickle.loads(output.read_bytes()) for output in outputs]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory, damaged):
    [outcomes] = run(tmp_path_factory.mktemp("one"), damaged, ["one"])
    counts = {name: value[-1] for name, value in outcomes.items() if name != "drawn" and value[0] != "error"}
    assert counts == {"all images": 8, "one image, flipped": 1, "as served": 8, "damaged": 5}
    assert outcomes["all images"][0]["AP"] >= 0 and sum(len(image[2]) for image in outcomes["all images"][1]) > 50
    return outcomes


@pytest.fixture
def model(light_model):
    return light_model("per_class", score_thresh=0.2, max_nms_inputs=50)


def detect(model, strategy, batch_size, images, scales):
    """Returns the detections of the stages of a strategy."""
    stages = Replicas(strategy, batch_size).stages(model, tf.function(model.net, autograph=False))
    return stages["NMS"](stages["network"]((images, scales)))


def test_batches_of_any_size_are_padded(model):
    images = tf.random.stateless_normal([3, *model.config.image_size, 3], [0, 1])
    scales = tf.constant([[1.0], [2.0], [0.5]]) * tf.ones([3, 4])
    expected = model.postprocess(*model.net(images), scales)
    assert min(expected.valid_len) > 0
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0"])):
        for count in (1, 3):
            found = detect(model, strategy, 5, images[:count], scales[:count])
            for field, value in zip(found, expected, strict=True):
                assert isinstance(field, np.ndarray)
                np.testing.assert_allclose(field, value[:count], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("post_mode", ["global", "per_class"])
def test_detections_compiled_by_xla_are_those_of_the_stages(light_model, post_mode):
    model = light_model(post_mode, score_thresh=0.2)
    network = tf.function(model.net, autograph=False)
    images = tf.random.stateless_normal([3, *model.config.image_size, 3], [0, 1])
    scales = tf.constant([[1.0], [2.0], [0.5]]) * tf.ones([3, 4])
    expected = detect(model, tf.distribute.get_strategy(), 5, images, scales)
    [(name, stage)] = Replicas(tf.distribute.get_strategy(), 5, use_xla=True).stages(model, network).items()
    found = stage((images, scales))
    assert name == "network + NMS" and expected.valid_len.min() > 0
    for field, value in zip(found, expected):
        assert isinstance(field, np.ndarray) and field.dtype == value.dtype
        np.testing.assert_allclose(field, value, rtol=1e-4, atol=1e-4)


def test_all_stages_compile_for_a_tpu(model, monkeypatch):
    class Tpu:
        """A strategy of one replica, for which XLA compiles every function, as for a TPU."""

        num_replicas_in_sync = 1
        one = tf.distribute.get_strategy()
        experimental_distribute_values_from_function = one.experimental_distribute_values_from_function
        experimental_local_results = one.experimental_local_results

        def run(self, function, args):
            return tf.function(function, autograph=False, jit_compile=True)(*args)

    monkeypatch.setattr(tf.distribute, "TPUStrategy", Tpu)
    images, scales = tf.random.stateless_normal([2, *model.config.image_size, 3], [0, 1]), tf.ones([2, 4])
    found = detect(model, Tpu(), 2, images, scales)
    for field, value in zip(found, model.postprocess(*model.net(images), scales), strict=True):
        np.testing.assert_allclose(field, value, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_devices_evaluate_like_one(one_device, tmp_path, damaged, count):
    [found] = run(tmp_path, damaged, [count])
    assert found.keys() == one_device.keys()
    for name, outcome in one_device.items():
        np.testing.assert_equal(found[name], outcome, err_msg=name)  # to the last bit


@pytest.mark.slow
@pytest.mark.both_lanes
def test_machines_evaluate_like_one(one_device, tmp_path, damaged):
    workers = processes.free_addresses(2)
    first, second = run(tmp_path, damaged, [workers, 0], [workers, 1])
    assert first.keys() == one_device.keys() and second.keys() == one_device.keys() - {"drawn"}
    failed = {name for name in second if one_device[name][0] == "error"}
    assert failed == {"too many damaged", "wrong class"}
    for name in first.keys() - failed:
        np.testing.assert_equal(first[name], one_device[name], err_msg=name)
    for name in second.keys() - failed:  # the same detections, and no metrics
        np.testing.assert_equal(second[name], ({}, *one_device[name][1:]), err_msg=name)
    # Each of both reads two of the three damaged records.
    for outcomes in (first, second):
        kind, message = outcomes["too many damaged"]
        assert kind == "error" and "more than max_damaged_records = 2 records are damaged, including rec" in message
        kind, message = outcomes["wrong class"]
        assert kind == "error" and "class ids must be in 1..num_classes = 2" in message
