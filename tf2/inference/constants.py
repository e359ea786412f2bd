# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Large constants apart from their graph, because TensorFlow copies them in almost every step that processes a graph.

A graph of D7x has 300 MB of weights; with them, saving or loading it takes ten times as much. Therefore they are taken
out, the graph is processed, and the result gets them back.
"""

from collections.abc import Iterable, Mapping

import tensorflow as tf

MIN_BYTES = 1024  # of a constant that is taken out
KEY = "_constant"  # attribute of its node; TensorFlow keeps unknown attributes whose names start with an underscore


def take(nodes: Iterable[tf.compat.v1.NodeDef]) -> dict[bytes, bytes]:
    """Replaces the large constants among nodes by zeros, in place; returns their values by a key for `restore`."""
    values = {}
    for node in nodes:
        if node.op == "Const" and len(node.attr["value"].tensor.tensor_content) >= MIN_BYTES:
            key = node.name.encode()
            values[key] = node.attr["value"].tensor.tensor_content
            node.attr["value"].tensor.ClearField("tensor_content")  # a tensor without content is all zeros
            node.attr[KEY].s = key
    return values


def is_taken(node: tf.compat.v1.NodeDef) -> bool:
    """Returns True if the value of a node was taken out."""
    return KEY in node.attr


def restore(nodes: Iterable[tf.compat.v1.NodeDef], values: Mapping[bytes, bytes]) -> None:
    """Puts the values of `take` back, in place."""
    for node in filter(is_taken, nodes):
        node.attr["value"].tensor.tensor_content = values[node.attr.pop(KEY).s]
