# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""functions: stored functions compute what tf.saved_model.load computes, hold weights once and leave no memory."""

import gc

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from tf2.inference import constants, functions

X = tf.constant([[1.0, -2.0], [3.0, 0.5], [0.0, 4.0]])


def traced(function, **specs):
    signature = [tf.TensorSpec(shape, tf.float32, name=name) for name, shape in specs.items()]
    return tf.function(function, input_signature=signature, autograph=False).get_concrete_function()


def outputs(factor):
    """A function with a nested function, a loop and two outputs, one of them used twice."""
    scale = tf.function(lambda x: factor * x, autograph=False)

    def function(x):
        total = tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y + scale(x)), (0, x))[1]
        return {"total": total, "again": total, "rows": tf.shape(x)[0]}

    return traced(function, x=[None, 2])


@pytest.fixture
def saved(tmp_path):
    tf.saved_model.save(
        tf.Module(), str(tmp_path), signatures={"serving_default": outputs(2.0), "other": outputs(-1.0)}
    )
    return str(tmp_path)


def as_lists(found):
    return {name: np.asarray(value).tolist() for name, value in found.items()}


def test_signatures_of_a_saved_model(saved):
    expected = tf.saved_model.load(saved).signatures
    first, second = functions.of_saved_model(saved), functions.of_saved_model(saved)  # as two open files
    assert first.keys() == expected.keys()
    for name, signature in expected.items():
        assert first[name].structured_input_signature[1] == {"x": tf.TensorSpec([None, 2], tf.float32, name="x")}
        assert as_lists(first[name](x=X)) == as_lists(second[name](x=X)) == as_lists(signature(x=X))
    assert as_lists(first["serving_default"](x=X))["total"] == (7 * X.numpy()).tolist()  # x + 3 * 2 x


def test_functions_are_removed_with_the_last_reference(saved):
    loaded = functions.of_saved_model(saved)
    names = list(loaded["other"]._library.names.values())
    loaded["other"](x=X)
    other = loaded["serving_default"]
    del loaded
    gc.collect()
    assert all(map(context.context().has_function, names))  # the signatures share functions
    del other
    gc.collect()
    assert not any(map(context.context().has_function, names))


def test_a_saved_model_with_variables_is_left_to_tensorflow(tmp_path):
    module = tf.Module()
    module.factor = tf.Variable(3.0)
    double = traced(lambda x: {"y": 2 * x}, x=[2])
    triple = traced(lambda x: {"y": module.factor * x}, x=[2])
    tf.saved_model.save(module, str(tmp_path), signatures={"double": double, "triple": triple})
    assert functions.of_saved_model(str(tmp_path)) is None


@pytest.mark.parametrize("content", [b"", b"hello world", None])
def test_a_damaged_saved_model_is_left_to_tensorflow(tmp_path, content):
    if content is not None:
        (tmp_path / "saved_model.pb").write_bytes(content)
    assert functions.of_saved_model(str(tmp_path)) is None


def test_a_function_gets_its_constants_back():
    kernel = np.random.RandomState(0).randn(2, 200).astype(np.float32)
    function = traced(lambda x: {"z": tf.matmul(x, tf.constant(kernel)), "a": 2 * x}, x=[None, 2])
    graph_def = function.graph.as_graph_def()
    values = constants.take(graph_def.node)
    imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph_def, name=""), [])
    names = {name: function.structured_outputs[name].name for name in ("z", "a")}
    light = imported.prune("x:0", names)
    np.testing.assert_array_equal(light(X)["z"], np.zeros([3, 200]))
    complete = functions.of_concrete_function(light, values)
    assert complete.structured_input_signature[1]["x"].shape == [None, 2]
    found = complete(x=X)
    np.testing.assert_allclose(found["z"], X.numpy() @ kernel, rtol=1e-6)
    np.testing.assert_array_equal(found["a"], 2 * X)


def test_weights_become_arguments_except_in_loops(tmp_path):
    kernel, factors = (np.random.RandomState(0).randn(*shape).astype(np.float32) for shape in ([2, 200], [3, 100]))
    product = tf.function(lambda x: tf.matmul(x, tf.constant(kernel)), autograph=False)
    scale = tf.function(lambda y: y * tf.constant(factors), autograph=False)

    def function(x):
        powers = tf.while_loop(lambda i, _: i < 2, lambda i, y: (i + 1, scale(y)), (0, product(x)[:, :100]))[1]
        return {"product": product(2 * x), "powers": powers, "kernel": tf.constant(kernel)}

    tf.saved_model.save(tf.Module(), str(tmp_path), signatures={"serving_default": traced(function, x=[3, 2])})
    loaded = functions.of_saved_model(str(tmp_path))["serving_default"]
    found = loaded(x=X)
    product = X.numpy() @ kernel
    np.testing.assert_allclose(found["product"], 2 * product, rtol=1e-5)
    np.testing.assert_allclose(found["powers"], product[:, :100] * factors**2, rtol=1e-5)
    np.testing.assert_array_equal(found["kernel"], kernel)
    weights = loaded._library.weights.values()
    assert len({id(value) for values in weights for value in values}) == 2  # of two calls and their callers
    assert max(map(len, weights)) == 3
    definitions = [context.get_function_def(name) for name in loaded._library.names.values()]
    assert [sum(map(functions._is_weight, each.node_def)) for each in definitions].count(1) == 1  # in the loop
