# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of fpn_configs: the published node lists, and properties of every pyramid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficientdet import fpn_configs

# Published (level, inputs) per node.
BIFPN_3_7 = [
    *[(6, (3, 4)), (5, (2, 5)), (4, (1, 6)), (3, (0, 7))],
    *[(4, (1, 7, 8)), (5, (2, 6, 9)), (6, (3, 5, 10)), (7, (4, 11))],
]
BIFPN_2_7 = [
    *[(6, (4, 5)), (5, (3, 6)), (4, (2, 7)), (3, (1, 8)), (2, (0, 9))],
    *[(3, (1, 9, 10)), (4, (2, 8, 11)), (5, (3, 7, 12)), (6, (4, 6, 13)), (7, (5, 14))],
]
QUFPN_3_7 = [
    *BIFPN_3_7,
    *[(4, (1, 0)), (5, (2, 13)), (6, (3, 14)), (7, (4, 15))],
    *[(6, (3, 15, 16)), (5, (2, 14, 17)), (4, (1, 13, 18)), (3, (0, 19))],
    *[(7, (12, 16)), (6, (11, 17)), (5, (10, 18)), (4, (9, 19)), (3, (8, 20))],
]


@pytest.mark.parametrize(
    "fpn_name, min_level, max_level, expected",
    [
        ("bifpn", 3, 7, BIFPN_3_7),
        ("bifpn_dyn", 3, 7, BIFPN_3_7),
        (None, 3, 7, BIFPN_3_7),
        ("bifpn", 2, 7, BIFPN_2_7),
        ("qufpn", 3, 7, QUFPN_3_7),
    ],
)
def test_published_nodes(fpn_name, min_level, max_level, expected):
    assert fpn_configs.get_nodes(fpn_name, min_level, max_level) == expected


@given(st.sampled_from(sorted(fpn_configs.FPNS)), st.integers(1, 5), st.integers(1, 5))
def test_nodes_use_earlier_maps_and_every_map_is_used(fpn_name, min_level, more_levels):
    max_level = min_level + more_levels
    nodes = fpn_configs.get_nodes(fpn_name, min_level, max_level)
    used = set()
    for number, node in enumerate(nodes, more_levels + 1):
        assert min_level <= node.level <= max_level
        assert len(set(node.inputs)) == len(node.inputs) >= 2 and max(node.inputs) < number
        used |= set(node.inputs)
    last = {node.level: number for number, node in enumerate(nodes, more_levels + 1)}
    assert last.keys() == set(range(min_level, max_level + 1))
    assert used | set(last.values()) == set(range(more_levels + 1 + len(nodes)))


def test_unknown_name():
    with pytest.raises(ValueError, match="unknown fpn_name 'panet'; use one of bifpn, bifpn_dyn, qufpn"):
        fpn_configs.get_nodes("panet", 3, 7)
