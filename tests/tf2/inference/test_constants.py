# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""constants: large constants leave a graph and come back unchanged."""

import numpy as np
import pytest
import tensorflow as tf

from tf2.inference import constants


@pytest.fixture
def graph_def():
    """A graph with a large and a small constant."""
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [2, 16], name="x")
        kernel = tf.constant(np.random.RandomState(0).randn(16, 32).astype(np.float32), name="kernel")
        tf.add(tf.matmul(x, kernel), tf.constant([3.0], name="bias"), name="y")
    return graph.as_graph_def()


def run(graph_def):
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        tf.graph_util.import_graph_def(graph_def, name="")
        return session.run("y:0", {"x:0": np.ones([2, 16], np.float32)}), graph.as_graph_def()


def test_a_large_constant_leaves_a_graph_and_comes_back(graph_def):
    original = graph_def.SerializeToString(deterministic=True)
    expected, _ = run(graph_def)
    values = constants.take(graph_def.node)
    assert {key: len(value) for key, value in values.items()} == {b"kernel": 16 * 32 * 4}
    assert graph_def.ByteSize() < len(original) - 16 * 32 * 4 + 100
    zeros, processed = run(graph_def)
    np.testing.assert_array_equal(zeros, np.full([2, 32], 3.0))  # type and shape remain, the bias as well
    assert [node.name for node in processed.node if constants.is_taken(node)] == ["kernel"]  # as TensorFlow keeps keys
    constants.restore(processed.node, values)
    assert not any(map(constants.is_taken, processed.node))
    np.testing.assert_array_equal(run(processed)[0], expected)
    constants.restore(graph_def.node, values)
    assert graph_def.SerializeToString(deterministic=True) == original
