# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""freezing: which variables an expression names, and what is said of one that names none or all."""

import pytest

from efficientdet.model import EfficientDetNet
from tf2.training.freezing import frozen_variables


@pytest.fixture(scope="module")
def net(tiny_config):
    return EfficientDetNet(tiny_config)


def names(net, expression):
    frozen = frozen_variables(net, expression)
    return {variable.name for variable in net.weights if variable.ref() in frozen}


def test_no_expression_freezes_nothing(net):
    assert frozen_variables(net, None) == set()


@pytest.mark.parametrize("expression", ["efficientnet", "(efficientnet-lite0|class_net)", "fpn_cells/cell_0/fnode0"])
def test_frozen_are_the_names_that_begin_so_statistics_among_them(net, expression):
    starts = tuple(expression.strip("()").split("|"))
    frozen = names(net, expression)
    assert frozen == {variable.name for variable in net.weights if variable.name.startswith(starts)}
    assert {name.rsplit("/", 1)[-1] for name in frozen} >= {"gamma:0", "moving_mean:0", "moving_variance:0"}


def test_an_expression_may_end_at_the_name_s_end(net):
    assert names(net, ".*/class-predict/bias:0$") == {"class_net/class-predict/bias:0"}


@pytest.mark.parametrize("expression", [".*", "", "[a-z]"])
def test_everything_is_refused(net, expression):
    with pytest.raises(ValueError, match="matches every variable; leave some to train"):
        frozen_variables(net, expression)


@pytest.mark.parametrize(
    "expression, near",
    [
        ("net/class-predict", "class_net/class-predict/"),  # in the middle of a name
        ("fpn_cells/cell_7/fnode0", "fpn_cells/cell_0/fnode0/"),  # a cell that this model lacks
        ("efficientnet-b0/stem", "efficientnet-lite0/stem/"),
        (".*moving_mean", ""),  # only statistics, which nothing trains anyway
    ],
)
def test_nothing_is_refused_with_near_names(net, expression, near):
    with pytest.raises(ValueError, match="matches no trainable variable from the start of its name") as error:
        frozen_variables(net, expression)
    message = str(error.value)
    assert "names begin with efficientnet-lite0, resample_p6, fpn_cells, class_net, box_net, such as " in message
    suggested = message.split("such as ")[1].split(", ")
    assert len(suggested) == 3 and all(name.startswith(near) for name in suggested)
    assert set(suggested) <= {variable.name for variable in net.trainable_variables}


def test_no_regular_expression(net):
    with pytest.raises(ValueError, match=r"var_freeze_expr '\(stem' is no regular expression: missing \)"):
        frozen_variables(net, "(stem")
