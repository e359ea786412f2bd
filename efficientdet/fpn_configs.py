# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Feature pyramids as data: lists of nodes, each of which fuses earlier feature maps at one level.

The feature maps of a cell are numbered: first the inputs, one per level, finest first, then the nodes in order. The
output of a cell at a level is the last node of that level. Imports no TensorFlow, see `config.py`.
"""

from typing import NamedTuple


class Node(NamedTuple):
    """Fuses the feature maps numbered `inputs` at the resolution of `level`."""

    level: int
    inputs: tuple[int, ...]


class _Builder:
    """Appends nodes and returns their numbers."""

    def __init__(self, min_level: int, max_level: int):
        self.inputs = {level: number for number, level in enumerate(range(min_level, max_level + 1))}
        self.nodes: list[Node] = []

    def add(self, level: int, *inputs: int) -> int:
        self.nodes.append(Node(level, inputs))
        return len(self.inputs) + len(self.nodes) - 1


def bifpn(min_level: int, max_level: int) -> list[Node]:
    """One top-down and one bottom-up path, with a shortcut from each input to the last node of its level.

    Args:
        min_level: finest level.
        max_level: coarsest level.

    Returns:
        The nodes, in order of evaluation.

    Reference: Tan et al., CVPR 2020, figure 3 (f) (https://arxiv.org/abs/1911.09070).
    """
    graph = _Builder(min_level, max_level)
    _add_bifpn(graph, min_level, max_level)
    return graph.nodes


def qufpn(min_level: int, max_level: int) -> list[Node]:
    """Quad pyramid: the paths of a BiFPN, the same paths in the opposite direction, and their fusion per level."""
    graph = _Builder(min_level, max_level)
    last = _add_bifpn(graph, min_level, max_level)

    up = dict(graph.inputs)
    for level in range(min_level + 1, max_level + 1):
        up[level] = graph.add(level, graph.inputs[level], up[level - 1])
    opposite = dict(up)
    for level in range(max_level - 1, min_level - 1, -1):
        same_level = (graph.inputs[level], up[level]) if level > min_level else (graph.inputs[level],)
        opposite[level] = graph.add(level, *same_level, opposite[level + 1])

    for level in range(max_level, min_level - 1, -1):
        graph.add(level, last[level], opposite[level])
    return graph.nodes


def _add_bifpn(graph: _Builder, min_level: int, max_level: int) -> dict[int, int]:
    """Adds the nodes of a BiFPN and returns the number of the last node per level."""
    down = dict(graph.inputs)
    for level in range(max_level - 1, min_level - 1, -1):
        down[level] = graph.add(level, graph.inputs[level], down[level + 1])
    last = dict(down)
    for level in range(min_level + 1, max_level + 1):
        same_level = (graph.inputs[level], down[level]) if level < max_level else (graph.inputs[level],)
        last[level] = graph.add(level, *same_level, last[level - 1])
    return last


FPNS = {"bifpn": bifpn, "bifpn_dyn": bifpn, "qufpn": qufpn}

# Weight methods, and the layer of bifpn.py that implements each.
FUSIONS = {
    "fastattn": "FastFusion",
    "attn": "SoftmaxFusion",
    "channel_fastattn": "ChannelFastFusion",
    "channel_attn": "ChannelSoftmaxFusion",
    "sum": "SumFusion",
}


def get_nodes(fpn_name: str | None, min_level: int, max_level: int) -> list[Node]:
    """Returns the nodes of a pyramid by name, a key of `FPNS`; None for bifpn.

    Raises:
        ValueError: if the name is unknown.
    """
    name = fpn_name or "bifpn"
    if name not in FPNS:
        raise ValueError(f"unknown fpn_name {name!r}; use one of {', '.join(FPNS)}")
    return FPNS[name](min_level, max_level)
