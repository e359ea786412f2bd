# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Feature pyramids as data: a list of nodes, each fusing earlier ones at one level.

The inputs of a cell are its first nodes, one a level, finest first; every node of the list takes the
next number. What a cell gives out at a level is the last node there.
"""

from typing import NamedTuple


class Node(NamedTuple):
    """A fusion: the maps numbered `inputs`, resized to the grid of `level`."""

    level: int
    inputs: tuple[int, ...]


class _Builder:
    """Numbers the nodes while a pyramid is written down."""

    def __init__(self, min_level: int, max_level: int):
        self.first = {level: number for number, level in enumerate(range(min_level, max_level + 1))}
        self.nodes: list[Node] = []

    def add(self, level: int, *inputs: int) -> int:
        self.nodes.append(Node(level, inputs))
        return len(self.first) + len(self.nodes) - 1


def bifpn(min_level: int, max_level: int) -> list[Node]:
    """One path down and one path up, with a shortcut from each input to its last node.

    Args:
        min_level: finest level.
        max_level: coarsest level.

    Returns:
        The nodes, in order of evaluation.

    Reference: Tan et al., CVPR 2020, figure 3 (f) (https://arxiv.org/abs/1911.09070).
    """
    graph = _Builder(min_level, max_level)
    _down_and_up(graph, min_level, max_level)
    return graph.nodes


def qufpn(min_level: int, max_level: int) -> list[Node]:
    """Quad pyramid: a path down and up, a path up and down, and both fused at each level.

    Args:
        min_level: finest level.
        max_level: coarsest level.

    Returns:
        The nodes, in order of evaluation.
    """
    graph = _Builder(min_level, max_level)
    last = _down_and_up(graph, min_level, max_level)

    up = dict(graph.first)
    for level in range(min_level + 1, max_level + 1):
        up[level] = graph.add(level, graph.first[level], up[level - 1])
    mirrored = dict(up)
    for level in range(max_level - 1, min_level - 1, -1):
        own = (graph.first[level], up[level]) if level > min_level else (graph.first[level],)
        mirrored[level] = graph.add(level, *own, mirrored[level + 1])

    for level in range(max_level, min_level - 1, -1):
        graph.add(level, last[level], mirrored[level])
    return graph.nodes


def _down_and_up(graph: _Builder, min_level: int, max_level: int) -> dict[int, int]:
    """Adds the nodes of a BiFPN; returns the number of the last node of each level."""
    down = dict(graph.first)
    for level in range(max_level - 1, min_level - 1, -1):
        down[level] = graph.add(level, graph.first[level], down[level + 1])
    last = dict(down)
    for level in range(min_level + 1, max_level + 1):
        own = (graph.first[level], down[level]) if level < max_level else (graph.first[level],)
        last[level] = graph.add(level, *own, last[level - 1])
    return last


FPNS = {"bifpn": bifpn, "bifpn_dyn": bifpn, "qufpn": qufpn}


def get_nodes(fpn_name: str | None, min_level: int, max_level: int) -> list[Node]:
    """The nodes of a pyramid by name.

    Args:
        fpn_name: a key of `FPNS`; None for bifpn.
        min_level: finest level.
        max_level: coarsest level.

    Returns:
        The nodes, in order of evaluation.

    Raises:
        ValueError: if the name is unknown.
    """
    name = fpn_name or "bifpn"
    if name not in FPNS:
        raise ValueError(f"unknown fpn_name {name!r}; use one of {', '.join(FPNS)}")
    return FPNS[name](min_level, max_level)
