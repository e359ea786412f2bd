# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Feature pyramids as data: lists of nodes, each of which fuses earlier feature maps at one level.

The feature maps of a cell are numbered: first the inputs, one per level, finest first, then the nodes in order. The
output of a cell at a level is the last node of that level. Imports no TensorFlow, see `config.py`.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple


class Node(NamedTuple):
    """Fuses the feature maps numbered `inputs` at the resolution of `level`."""

    level: int
    inputs: tuple[int, ...]


class _Builder:
    """Appends nodes and returns their numbers."""

    def __init__(self, min_level: int, max_level: int) -> None:
        self.inputs = {level: number for number, level in enumerate(range(min_level, max_level + 1))}
        self.nodes: list[Node] = []

    def add(self, level: int, *inputs: int) -> int:
        self.nodes.append(Node(level, inputs))
        return len(self.inputs) + len(self.nodes) - 1


def bifpn(min_level: int, max_level: int) -> list[Node]:
    """One top-down and one bottom-up path, with a shortcut from each input to the last node of its level.

    >>> [node.level for node in bifpn(min_level=3, max_level=7)]
    [6, 5, 4, 3, 4, 5, 6, 7]

    Reference: Tan et al., CVPR 2020, figure 3 (f) (https://arxiv.org/abs/1911.09070).
    """
    graph = _Builder(min_level, max_level)
    _add_paths(graph, range(max_level, min_level - 1, -1))
    return graph.nodes


def qufpn(min_level: int, max_level: int) -> list[Node]:
    """Quad pyramid: the paths of a BiFPN, the same paths in the opposite direction, and their fusion per level.

    >>> len(qufpn(min_level=3, max_level=7))
    21
    """
    graph = _Builder(min_level, max_level)
    levels = range(min_level, max_level + 1)
    last = _add_paths(graph, levels[::-1])
    opposite = _add_paths(graph, levels)
    for level in levels[::-1]:
        graph.add(level, last[level], opposite[level])
    return graph.nodes


def _add_paths(graph: _Builder, levels: Sequence[int]) -> dict[int, int]:
    """Adds a path along the levels and the path back; returns the number of the last node per level."""
    there = dict(graph.inputs)
    for before, level in itertools.pairwise(levels):
        there[level] = graph.add(level, graph.inputs[level], there[before])
    last = dict(there)
    for before, level in itertools.pairwise(levels[::-1]):
        same_level = (graph.inputs[level], there[level]) if level != levels[0] else (graph.inputs[level],)
        last[level] = graph.add(level, *same_level, last[before])
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
    """Returns the nodes of a pyramid in order of evaluation, by name, a key of `FPNS`; None for bifpn.

    Raises:
        ValueError: if the name is unknown.

    Example:
        >>> get_nodes("bifpn", min_level=3, max_level=4)
        [Node(level=3, inputs=(0, 1)), Node(level=4, inputs=(1, 2))]
    """
    name = fpn_name or "bifpn"
    if name not in FPNS:
        raise ValueError(f"unknown fpn_name {name!r}; use one of {', '.join(FPNS)}")
    return FPNS[name](min_level, max_level)
