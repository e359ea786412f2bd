# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Freezing: which variables of a network a training leaves as they are."""

import re

from efficientdet.model import EfficientDetNet


def frozen_variables(net: EfficientDetNet, expression: str | None) -> set:
    """The variables that a `var_freeze_expr` freezes, statistics of batch normalization among them.

    Args:
        net: the network.
        expression: regular expression, matched from the start of variable names such as
            "fpn_cells/cell_0/fnode0/WSM:0"; None freezes nothing.

    Returns:
        References of the variables, `variable.ref()`.

    Raises:
        ValueError: if it is no regular expression, or matches no trainable variable or all of them.
    """
    if expression is None:
        return set()
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise ValueError(f"var_freeze_expr {expression!r} is no regular expression: {error}") from error
    frozen = {variable.ref() for variable in net.weights if pattern.match(variable.name)}
    trained = [variable for variable in net.trainable_variables if variable.ref() not in frozen]
    if not trained:
        raise ValueError(f"var_freeze_expr {expression!r} matches every variable; leave some to train")
    if len(trained) == len(net.trainable_variables):
        scopes = list(dict.fromkeys(variable.name.split("/")[0] for variable in trained))
        raise ValueError(
            f"var_freeze_expr {expression!r} matches no trainable variable from the start of its name; names begin "
            f"with {', '.join(scopes)}, such as {', '.join(_nearest(expression, trained))}"
        )
    return frozen


def _nearest(expression: str, variables: list, count: int = 3) -> list[str]:
    """Names that share most of the expression's words."""
    words = set(re.findall(r"\w{3,}", expression))
    return sorted((v.name for v in variables), key=lambda name: -sum(word in name for word in words))[:count]
