# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""structure: the model is identified by names and shapes of weights."""

import pathlib
import re

import numpy as np
import pytest

from efficientdet.model import EfficientDetNet
from testdata import reference_weights
from tf2.weights import checkpoint, structure

ROOT = pathlib.Path(__file__).parents[3]
TESTDATA = ROOT / "testdata"


def _zeros(figures):
    """Weights with the shapes of a published model, without the memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in reference_weights.shapes(figures).items()}


@pytest.mark.parametrize("name", ["d0", "d3", "d7x", "lite0", "lite3"])
def test_looks_like(name):
    if name in ("d0", "lite0"):
        figures = np.load(TESTDATA / f"efficientdet-{name}.npz")
    else:
        variables = np.load(TESTDATA / "variables.npz")
        figures = {key: variables[f"{name}/{key}"] for key in ("var_names", "var_shapes")}
    assert structure.looks_like(_zeros(figures)) == f"efficientdet-{name} with num_classes 90"


def test_looks_like_for_object_keys():
    """Keys of an object-based checkpoint that is read for a network with separable_conv=false."""
    shapes = reference_weights.shapes(np.load(TESTDATA / "efficientdet-d0.npz"))
    renamed = {re.sub(r"class-predict/(\w+)_kernel", r"classes/\1_kernel", name): s for name, s in shapes.items()}
    assert renamed.keys() != shapes.keys()
    values = {name: np.broadcast_to(np.float32(0), shape) for name, shape in renamed.items()}
    assert structure.looks_like(values) == "efficientdet-d0 with num_classes 90"


def test_looks_like_for_unpublished_weights(tiny_config):
    net = EfficientDetNet(tiny_config)
    values = {name: variable.numpy() for name, variable in checkpoint.named_variables(net).items()}
    assert structure.looks_like(values) == "a customized EfficientDet with num_classes 3"
    backbone = {name: value for name, value in values.items() if name.startswith("efficientnet-lite0/")}
    assert structure.looks_like(backbone) == "a backbone, efficientnet-lite0"
    assert structure.looks_like({"dense/kernel": np.zeros(3)}) == "no EfficientDet"
