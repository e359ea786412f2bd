# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of model: published variable names, outputs, detections and sizes, and properties of a small network."""

import json
import pathlib
import zlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from efficientdet import config as config_lib
from efficientdet.model import EfficientDetModel, EfficientDetNet
from testdata import reference_weights
from tf2.weights import checkpoint

ROOT = pathlib.Path(__file__).parents[2]
REFERENCE = ROOT.parent / "shared" / "reference"
NUMBERS = json.loads((ROOT / "testdata" / "numbers.json").read_text())["models"]

# Published trainable parameters, and multiply-adds at the image size of the model by TensorFlow's profiler.
SIZES = {
    "efficientdet-d0": (3_880_067, 2_550_618_821),
    "efficientdet-d1": (6_625_898, 6_133_752_112),
    "efficientdet-d2": (8_097_039, 11_045_799_933),
    "efficientdet-d3": (12_032_296, 24_982_737_931),
    "efficientdet-d4": (20_723_675, 55_346_593_717),
    "efficientdet-d5": (33_653_315, 135_729_505_573),
    "efficientdet-d6": (51_871_782, 226_033_623_795),
    "efficientdet-d7": (51_871_782, 325_473_789_367),
    "efficientdet-d7x": (77_147_166, None),
    "efficientdet-lite0": (3_243_470, 977_617_221),
    "efficientdet-lite1": (4_248_318, 1_973_728_714),
    "efficientdet-lite2": (5_252_334, 3_383_232_590),
    "efficientdet-lite3": (8_350_862, 7_503_764_515),
    "efficientdet-lite3x": (9_280_862, 14_019_809_178),
    "efficientdet-lite4": (15_130_894, 20_221_443_966),
}


class Published:
    """A published model: its network with the reference weights, and the reference values computed with them."""

    def __init__(self, name: str, path: pathlib.Path):
        self.figures = np.load(path)
        self.config = config_lib.load(name, image_size=int(self.figures["image_size"]))
        self.net = EfficientDetNet(self.config)
        self.variables = checkpoint.named_variables(self.net)
        for key, value in reference_weights.weights(self.figures).items():
            if key in self.variables:
                self.variables[key].assign(value)

    def detect(self, image, post_mode):
        return EfficientDetModel(self.config, self.net, post_mode=post_mode)(image[np.newaxis])


def _published_params():
    for name in ("d0", "lite0", "d3", "d7x", "lite3"):
        file = f"efficientdet-{name}.npz"
        path = ROOT / "testdata" / file
        marks = []
        if name not in ("d0", "lite0"):
            path = REFERENCE / "models" / file
            marks = [pytest.mark.slow, pytest.mark.skipif(not path.exists(), reason=f"needs {path}")]
        yield pytest.param((f"efficientdet-{name}", path), id=name, marks=marks)


@pytest.fixture(scope="module", params=_published_params())
def published(request):
    return Published(*request.param)


def test_published_names_and_shapes(published):
    ours = {name: tuple(variable.shape) for name, variable in published.variables.items()}
    assert ours == reference_weights.shapes(published.figures)
    assert len(ours) == len(published.net.weights)
    assert _parameters(published.net.weights) == published.figures["num_params"]
    assert _parameters(published.net.trainable_variables) == published.figures["trainable_params"]


def test_published_outputs(published):
    model = EfficientDetModel(published.config, published.net)
    inputs, _ = model.preprocess(reference_weights.image()[np.newaxis])
    for kind, outputs in zip(("cls", "box"), published.net(inputs)):
        for level, output in enumerate(outputs, published.config.min_level):
            key = f"{kind}_{level}"
            assert output.shape == tuple(published.figures[f"{key}_shape"])
            _assert_close(reference_weights.sample(output.numpy()), published.figures[f"{key}_sample"], key)
            stats = [np.mean(output), np.std(output), np.min(output), np.max(output)]
            _assert_close(stats, published.figures[f"{key}_stats"], key)


@pytest.mark.parametrize(
    "key, post_mode, image",
    [
        ("det_global", "global", reference_weights.image()),
        ("det_per_class", "per_class", reference_weights.image()),
        ("det_nonsquare", "global", reference_weights.image(256, 11)[:180, :240]),
    ],
    ids=["global", "per_class", "nonsquare"],
)
def test_published_detections(published, key, post_mode, image):
    detections = published.detect(image, post_mode)
    boxes, scores, classes = (published.figures[f"{key}_{part}"][0] for part in ("boxes", "scores", "classes"))
    # The published per_class mode does not clip boxes to the network input, a square with the longer side of the image.
    boxes = np.clip(boxes, 0, max(image.shape))
    # Near the lowest score, rounding decides which of the candidates are kept.
    certain = scores > scores[-1] + 1e-4
    assert certain.sum() >= 80
    _assert_found(boxes[certain], scores[certain], classes[certain], *(part[0].numpy() for part in detections[:3]))


def test_published_preprocessing(published):
    image = reference_weights.image(256, 11)[:180, :240]
    inputs, scale = EfficientDetModel(published.config, published.net).preprocess(image)
    _assert_close(reference_weights.sample(inputs.numpy()), published.figures["pre_nonsquare_sample"])
    _assert_close(scale, published.figures["pre_nonsquare_scale"][0])


def _number_case(name):
    return pytest.param(name, NUMBERS[name], id=name, marks=[] if name.startswith("d0@128") else pytest.mark.slow)


@pytest.mark.parametrize("name, case", [_number_case(name) for name in NUMBERS])
def test_published_numbers(name, case):
    """All fusions, qufpn, other layer orders, odd image sizes, and a training step with its moving averages."""
    config = config_lib.load(f"efficientdet-{name.split('@')[0]}", image_size=case["image_size"])
    net = EfficientDetNet(config.override(case["override"] or {}))
    variables = checkpoint.named_variables(net)
    for key, variable in variables.items():
        variable.assign(_numbers_weight(key, variable.shape))
    # Normalization by the variance of two values, at level 7, amplifies rounding, which differs by TensorFlow version.
    tolerance = 5e-4 if case["training"] else 1e-4
    shape = (case["batch"], *config.image_size, 3)
    inputs = np.random.RandomState(1).uniform(-1, 1, shape).astype(np.float32)
    cls_outputs, box_outputs = net(inputs, training=case["training"])
    for output, expected in zip([*cls_outputs, *box_outputs], case["cls"] + case["box"], strict=True):
        _assert_numbers(output.numpy(), expected, tolerance)
    for key, expected in case.get("after", {}).items():
        _assert_numbers(variables[key].numpy(), expected)


def _numbers_weight(name, shape):
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    kind = name.rsplit("/", 1)[-1]
    if kind in ("kernel", "pointwise_kernel"):
        return noise / np.sqrt(np.prod(shape[:-1]))
    if kind == "depthwise_kernel":
        return noise / np.sqrt(np.prod(shape[:2]))
    if kind.startswith("WSM"):
        return 1 + 0.3 * noise
    return {"gamma": 1 + 0.1 * noise, "moving_variance": 1 + 0.1 * np.abs(noise)}.get(kind, 0.1 * noise)


def _assert_numbers(values, expected, tolerance=1e-4):
    flat = values.ravel()
    assert list(values.shape) == expected["shape"]
    _assert_close([*flat[:5], *flat[-3:]], expected["first5"] + expected["last3"], tolerance=tolerance)
    _assert_close([flat.mean(dtype=float), flat.std(dtype=float)], [expected["mean"], expected["std"]])
    _assert_close(np.abs(flat).sum(dtype=float), expected["abs_sum"])


SOME = ("efficientdet-d0", "efficientdet-d3", "efficientdet-d7x", "efficientdet-lite0", "efficientdet-lite4")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*SOME, *(pytest.param(name, marks=pytest.mark.long) for name in SIZES if name not in SOME)]
)
def test_published_size(name):
    """Only convolutions are counted here; the profiler also counted normalizations and other small operations."""
    parameters, multiply_adds = SIZES[name]
    config = config_lib.load(name)
    net = EfficientDetNet(config)
    assert _parameters(net.trainable_variables) == parameters
    if multiply_adds:
        assert 0.97 * multiply_adds <= _multiply_adds(net, config.image_size) <= multiply_adds


def _multiply_adds(net, image_size):
    graph = tf.function(net).get_concrete_function(tf.TensorSpec([1, *image_size, 3])).graph
    total = 0
    for operation in graph.get_operations():
        if operation.type in ("Conv2D", "DepthwiseConv2dNative"):
            # One product per output value, kernel position and input channel; depthwise kernels use one channel.
            kernel = operation.inputs[1].shape
            channels = kernel[2] if operation.type == "Conv2D" else 1
            total += operation.outputs[0].shape.num_elements() * kernel[0] * kernel[1] * channels
    return total


@pytest.fixture(scope="module")
def tiny_net(tiny_config):
    return EfficientDetNet(tiny_config)


def test_variable_names_of_a_second_network_are_equal(tiny_config, tiny_net):
    names = [list(checkpoint.named_variables(net)) for net in (tiny_net, EfficientDetNet(tiny_config))]
    assert names[0] == names[1] and len(set(names[0])) == len(names[0])


def test_variable_names_do_not_depend_on_the_outer_scope(tiny_config, tiny_net):
    with tf.name_scope("outer"):
        net = EfficientDetNet(tiny_config)
    assert list(checkpoint.named_variables(net)) == list(checkpoint.named_variables(tiny_net))


@pytest.mark.parametrize("size", [(64, 64), (65, 130), (33, 97)])
def test_output_shapes(tiny_net, size):
    cls_outputs, box_outputs = tiny_net(tf.zeros([1, *size, 3]))
    height, width = size
    for level in range(1, 8):
        height, width = (height + 1) // 2, (width + 1) // 2
        if level >= 3:
            assert cls_outputs[level - 3].shape == (1, height, width, 9 * 3)
            assert box_outputs[level - 3].shape == (1, height, width, 9 * 4)


def test_dynamic_image_size_raises(tiny_net):
    with pytest.raises(ValueError, match="images of a static size, got shape"):
        tf.function(tiny_net).get_concrete_function(tf.TensorSpec([1, None, 64, 3]))


def test_batch_of_two_is_two_batches_of_one_and_eager_is_function(tiny_net):
    images = tf.random.stateless_normal([2, 64, 64, 3], [1, 2])
    together = tf.nest.flatten(tf.function(tiny_net)(images))
    alone = [tf.nest.flatten(tiny_net(images[i : i + 1])) for i in (0, 1)]
    for whole, *parts in zip(together, *alone):
        np.testing.assert_allclose(whole, tf.concat(parts, 0), rtol=1e-4, atol=1e-5)


def test_frozen_statistics(tiny_config):
    """is_training_bn=False: a training step does not update the moving averages, but weights have gradients."""
    keras.utils.set_random_seed(0)
    images = tf.random.stateless_normal([3, 64, 64, 3], [1, 2])  # of two images at 1x1, outputs would cancel to mean 0
    for is_training_bn in (True, False):
        # swish, because relu6 can make a coarse feature map 0, whose mean would not change.
        net = EfficientDetNet(tiny_config.override({"is_training_bn": is_training_bn, "act_type": "swish"}))
        statistics = {name: v for name, v in checkpoint.named_variables(net).items() if "/moving_" in name}
        before = {name: v.numpy() for name, v in statistics.items()}
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_sum(x**2) for x in net(images, training=True)[1]])
        changed = [name for name, v in statistics.items() if np.any(v.numpy() != before[name])]
        assert len(changed) == (len(statistics) if is_training_bn else 0)
        kernel, gamma = net.backbone.stem.conv.kernel, net.backbone.stem.bn.gamma
        for gradient in tape.gradient(loss, [kernel, gamma]):
            assert np.any(gradient)


@pytest.fixture
def no_grappler():
    """Disables Grappler, which rewrites equal graphs differently, so that they round differently."""
    options = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False, **options})


@pytest.mark.parametrize(
    "wrap", [lambda f: f, pytest.param(tf.function, marks=pytest.mark.slow)], ids=["eager", "function"]
)
def test_grad_checkpoint_changes_no_value(tiny_config, wrap, no_grappler):
    """Compares outputs, gradients and moving averages, with drop connect in backbone and heads."""
    changes = {"survival_prob": 0.7, "box_class_repeats": 2, "act_type": "swish", "max_level": 5}
    images = tf.image.resize(tf.random.stateless_normal([4, 8, 8, 3], [1, 2]), [64, 64])
    results, start = [], None
    for grad_checkpoint in (False, True):
        net = EfficientDetNet(tiny_config.override({**changes, "grad_checkpoint": grad_checkpoint}))
        draws = tf.random.stateless_uniform([4, net.num_draws], [3, 4])
        start = start or [variable.numpy() for variable in net.weights]
        for variable, value in zip(net.weights, start):
            variable.assign(value)

        def run(net=net, draws=draws):
            with tf.GradientTape() as tape:
                outputs = tf.nest.flatten(net(images, training=True, draws=draws))
                loss = tf.add_n([tf.reduce_sum(x * tf.random.stateless_normal(x.shape, [5, 6])) for x in outputs])
            return outputs, tape.gradient(loss, net.trainable_variables)

        outputs, gradients = wrap(run)()
        gradients = np.concatenate([np.ravel(gradient) for gradient in gradients])
        results.append([*outputs, gradients, *(v.numpy() for v in net.non_trainable_variables)])
    assert np.linalg.norm(results[0][len(outputs)]) > 1
    for plain, recomputed in zip(*results):
        assert np.linalg.norm(recomputed - plain) <= 1e-6 * np.linalg.norm(plain)


@pytest.mark.parametrize(
    "overrides, nodes",
    [
        ({"fpn_name": "qufpn"}, 21),
        ({"max_level": 6}, 6),
        ({"min_level": 2}, 10),
        ({"max_level": 8}, 10),
        ({"fpn_config": {"nodes": [{"feat_level": level, "inputs_offsets": [level - 3]} for level in range(3, 8)]}}, 5),
    ],
    ids=["qufpn", "max_level=6", "min_level=2", "max_level=8", "fpn_config"],
)
def test_other_pyramids(tiny_config, overrides, nodes):
    config = tiny_config.override(overrides)
    net = EfficientDetNet(config)
    assert len(net.fpn_cells.cells[0].fnodes) == nodes
    cls_outputs, _ = net(tf.zeros([1, 64, 64, 3]))
    sides = [max(1, 64 // 2**level) for level in range(config.min_level, config.max_level + 1)]
    assert [tuple(x.shape[1:3]) for x in cls_outputs] == [(side, side) for side in sides]


@pytest.mark.parametrize("method", ["sum", "attn"])
def test_weight_method_of_fpn_config_takes_precedence(tiny_config, method):
    nodes = [{"feat_level": level, "inputs_offsets": [level - 3]} for level in range(3, 8)]
    config = tiny_config.override({"fpn_config": {"nodes": nodes, "weight_method": method}})
    edges = [name for name in checkpoint.named_variables(EfficientDetNet(config)) if name.endswith("/WSM")]
    assert len(edges) == (0 if method == "sum" else 5)


@pytest.mark.parametrize("key", ["fpn_name", "fpn_weight_method", "backbone_name", "act_type"])
def test_unknown_names_raise(tiny_config, key):
    with pytest.raises(config_lib.ConfigError, match=f"{key} must be one of .*, got 'nonsense'"):
        tiny_config.override({key: "nonsense"})


def test_detections_are_in_pixels_of_the_image(tiny_config, tiny_net):
    """Boxes are multiplied by image_scale, and the model equals preprocess and detect."""
    small = np.random.RandomState(1).randint(0, 256, (64, 48, 3)).astype(np.uint8)
    model = EfficientDetModel(tiny_config, tiny_net)
    inputs, scale = model.preprocess(small)
    np.testing.assert_array_equal(scale, [1] * 4)
    assert inputs.shape == (64, 64, 3)
    ones, twos = (model.detect(inputs[tf.newaxis], tf.fill([1, 4], s)) for s in (1.0, 2.0))
    assert ones.valid_len[0] > 0 and np.all((ones.classes >= 0) & (ones.classes <= 3))
    np.testing.assert_allclose(2 * ones.boxes, twos.boxes)
    for part, whole in zip(model(small[np.newaxis]), ones):
        np.testing.assert_allclose(part, whole, rtol=1e-5, atol=1e-5)


def test_without_the_aspect_ratio_an_image_is_stretched_before_and_its_boxes_after(tiny_config, tiny_net):
    """The model equals that of the image stretched by TensorFlow, boxes multiplied by the quotients of the sides."""
    images = np.random.RandomState(1).randint(0, 256, (2, 40, 96, 3)).astype(np.uint8)
    stretched = tf.image.resize(tf.cast(images, tf.float32), [64, 64])
    expected = EfficientDetModel(tiny_config, tiny_net)(stretched)
    model = EfficientDetModel(tiny_config.override({"keep_aspect_ratio": False}), tiny_net)
    found = model(images)
    assert np.all(found.valid_len > 0)
    np.testing.assert_allclose(found.boxes, expected.boxes * np.float32([40 / 64, 96 / 64] * 2), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_array_equal(found.classes, expected.classes)


def _assert_close(ours, expected, message="", *, tolerance=1e-4):
    error = np.abs(np.subtract(ours, expected)) / np.maximum(1, np.abs(expected))
    assert np.max(error) <= tolerance, f"{message} differs by {np.max(error)}"


def _assert_found(boxes, scores, classes, our_boxes, our_scores, our_classes):
    """Asserts that every published detection matches a different one of ours."""
    unmatched = np.ones(len(our_scores), bool)
    for box, score, label in zip(boxes, scores, classes):
        tolerance = max(0.05, 2e-4 * max(box[2] - box[0], box[3] - box[1]))
        alike = unmatched & (our_classes == label) & (np.abs(our_scores - score) <= 1e-4)
        alike &= np.abs(our_boxes - box).max(axis=1) <= tolerance
        assert alike.any(), f"no detection matches {box}, {score}, {label}"
        unmatched[np.argmax(alike)] = False


def _parameters(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)
