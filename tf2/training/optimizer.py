# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules, optimizers, gradient clipping, moving average, and frozen variables."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
import tf_keras as keras

from efficientdet.config import Config
from efficientdet.model import EfficientDetNet

REFERENCE_BATCH_SIZE = 64  # images per step to which learning_rate and lr_warmup_init refer


@keras.utils.register_keras_serializable(package="efficientdet")
class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """The learning-rate schedule: linear warm-up followed by a decay; `constant` has neither.

    Call: step, a scalar integer counted from 0 -> rate, a float32 scalar.

    The cosine decays from the base rate at the end of the warm-up to 0 at the last step
    (Loshchilov and Hutter, ICLR 2017, equation 5, https://arxiv.org/abs/1608.03983).

    >>> rate = LearningRate("cosine", 0.5, total_steps=100, warmup_init=0.25, warmup_steps=20)
    >>> [round(float(rate(step)), 3) for step in (0, 10, 20, 60, 100)]
    [0.25, 0.375, 0.5, 0.25, 0.0]
    """

    def __init__(
        self,
        method: str,
        base_rate: float,
        *,
        total_steps: int,
        warmup_init: float = 0.0,
        warmup_steps: int = 0,
        drop_steps: Sequence[int] = (),
        power: float = 0.9,
    ):
        """Stores the schedule; all lengths are in steps.

        Args:
            method: cosine, stepwise, polynomial or constant.
            base_rate: rate after the warm-up, for the actual batch size.
            total_steps: steps of the whole training run.
            warmup_init: rate of step 0.
            warmup_steps: steps until base_rate is reached.
            drop_steps: stepwise only: steps at which the rate is divided by 10.
            power: polynomial only: exponent of the remaining fraction of steps.

        Raises:
            ValueError: if the method is unknown.
        """
        if method not in ("cosine", "stepwise", "polynomial", "constant"):
            raise ValueError(f"unknown lr_decay_method {method!r}; use one of cosine, stepwise, polynomial, constant")
        self.method = method
        self.base_rate = base_rate
        self.total_steps = total_steps
        self.warmup_init = warmup_init
        self.warmup_steps = warmup_steps
        self.drop_steps = tuple(drop_steps)
        self.power = power

    def __call__(self, step):
        if self.method == "constant":
            return tf.constant(self.base_rate)
        step = tf.cast(step, tf.float32)
        warmup = self.warmup_init + step / max(1, self.warmup_steps) * (self.base_rate - self.warmup_init)
        return tf.where(step < self.warmup_steps, warmup, self._decayed(step))

    def _decayed(self, step: tf.Tensor) -> tf.Tensor:
        if self.method == "cosine":
            share = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
            return 0.5 * self.base_rate * (1 + tf.cos(math.pi * tf.clip_by_value(share, 0, 1)))
        if self.method == "polynomial":
            return self.base_rate * tf.maximum(1 - step / self.total_steps, 0) ** self.power
        drops = tf.add_n([tf.cast(step >= drop, tf.float32) for drop in self.drop_steps] or [tf.zeros_like(step)])
        return self.base_rate * 0.1**drops

    def get_config(self):
        keys = ("method", "base_rate", "total_steps", "warmup_init", "warmup_steps", "drop_steps", "power")
        return {key: getattr(self, key) for key in keys}


def learning_rate_schedule(config: Config, batch_size: int, steps_per_epoch: int) -> LearningRate:
    """Builds the schedule of a config: epochs are converted to steps, and rates scale with the batch size.

    >>> rate = learning_rate_schedule(Config(learning_rate=0.08, num_epochs=10), batch_size=8, steps_per_epoch=100)
    >>> rate.base_rate, rate.total_steps
    (0.01, 1000)
    """
    scale = batch_size / REFERENCE_BATCH_SIZE
    drops = (config.first_lr_drop_epoch, config.second_lr_drop_epoch)
    return LearningRate(
        config.lr_decay_method,
        config.learning_rate * scale,
        total_steps=config.num_epochs * steps_per_epoch,
        warmup_init=config.lr_warmup_init * scale,
        warmup_steps=int(config.lr_warmup_epoch * steps_per_epoch),
        drop_steps=[int(epoch * steps_per_epoch) for epoch in drops],
        power=config.poly_lr_power,
    )


class Optimizer:
    """Base class: updates variables in place; slots are named as in the published checkpoints.

    One TensorFlow kernel per variable computes the update. It writes to the copy of the calling replica, so all
    replicas must pass the same gradients, already summed.
    """

    slot_names: tuple[str, ...]

    def __init__(self, variables: Sequence[tf.Variable], momentum: float):
        """Creates the slots, initialized to 0.

        Args:
            variables: variables that may be updated; each gets its slots.
            momentum: decay of the gradient average, in [0, 1).
        """
        self.momentum = momentum
        self.slots = {
            variable.ref(): [
                tf.Variable(tf.zeros_like(variable), trainable=False, name=f"{variable.name.removesuffix(':0')}/{name}")
                for name in self.slot_names
            ]
            for variable in variables
        }

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        *,
        rate: tf.Tensor,
        step: tf.Tensor,
        apply_update: tf.Tensor,
    ) -> None:
        """Applies one update.

        Args:
            gradients: finite tensors of any shapes.
            variables: variables of these shapes, all or some of those passed to the constructor.
            rate: [] float32, the learning rate.
            step: [] int64, number of this update, from 0.
            apply_update: [] bool; if False, and the gradients are 0, variables and slots keep their exact values.
        """
        raise NotImplementedError


class Sgd(Optimizer):
    """Stochastic gradient descent with heavy-ball momentum: m <- momentum * m + g, w <- w - rate * m."""

    slot_names = ("Momentum",)

    def apply(self, gradients, variables, *, rate, step, apply_update):
        rate, momentum = tf.where(apply_update, rate, 0.0), tf.where(apply_update, self.momentum, 1.0)
        for gradient, variable in zip(gradients, variables, strict=True):
            (accumulator,) = self.slots[variable.ref()]
            tf.raw_ops.ResourceApplyMomentum(
                var=variable.handle, accum=accumulator.handle, lr=rate, grad=gradient, momentum=momentum
            )


class Adam(Optimizer):
    """Adam, with momentum as beta_1, beta_2 = 0.999 and epsilon = 1e-7.

    Reference: Kingma and Ba, ICLR 2015, end of section 2 (https://arxiv.org/abs/1412.6980).
    """

    slot_names = ("Adam", "Adam_1")

    def apply(self, gradients, variables, *, rate, step, apply_update):
        number = tf.cast(step + 1, tf.float32)
        powers = {"beta1_power": self.momentum**number, "beta2_power": 0.999**number}
        betas = {"beta1": tf.where(apply_update, self.momentum, 1.0), "beta2": tf.where(apply_update, 0.999, 1.0)}
        rate = tf.where(apply_update, rate, 0.0)
        for gradient, variable in zip(gradients, variables, strict=True):
            mean, square = self.slots[variable.ref()]
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=mean.handle,
                v=square.handle,
                lr=rate,
                epsilon=1e-7,
                grad=gradient,
                **powers,
                **betas,
            )


class AdamW(Adam):
    """Adam with decoupled weight decay of kernels: w <- w - rate * (step of Adam + weight_decay * w).

    Reference: Loshchilov and Hutter, ICLR 2019, algorithm 2 (https://arxiv.org/abs/1711.05101), in which `rate` is the
    product of alpha and the schedule eta_t, so that the decay follows the schedule.
    """

    def __init__(
        self,
        variables: Sequence[tf.Variable],
        momentum: float,
        *,
        weight_decay: float = 0.0,
        kernels: Sequence[tf.Variable] = (),
    ):
        """Creates the slots.

        Args:
            variables: see `Optimizer`.
            momentum: beta_1.
            weight_decay: share of the kernels by which they shrink per step at a rate of 1.
            kernels: variables that decay.
        """
        super().__init__(variables, momentum)
        self.weight_decay, self.kernels = weight_decay, list(kernels)

    def apply(self, gradients, variables, *, rate, step, apply_update):
        # Before the step of Adam, which does not depend on the weights: both subtract from the weights before the step.
        share = tf.where(apply_update, rate * self.weight_decay, 0.0)
        for kernel in self.kernels:
            tf.raw_ops.ResourceApplyGradientDescent(var=kernel.handle, alpha=share, delta=kernel.value())
        super().apply(gradients, variables, rate=rate, step=step, apply_update=apply_update)


OPTIMIZERS = {"sgd": Sgd, "adam": Adam, "adamw": AdamW}


def make_optimizer(config: Config, variables: Sequence[tf.Variable], kernels: Sequence[tf.Variable]) -> Optimizer:
    """Returns the optimizer of a config.

    Args:
        variables: variables that may be updated.
        kernels: those that weight decay applies to, in the optimizer (adamw) or in the loss.
    """
    decay = {"weight_decay": config.weight_decay, "kernels": kernels} if config.optimizer == "adamw" else {}
    return OPTIMIZERS[config.optimizer](variables, config.momentum, **decay)


class Clipped(NamedTuple):
    """The result of `clip_gradients`."""

    gradients: list[tf.Tensor]  # same shapes as the input
    norm: tf.Tensor  # [] float32, global L2 norm after clipping
    norms: tf.Tensor  # [number of gradients] float32, L2 norms before clipping
    finite: tf.Tensor  # [] bool; if False, one gradient was infinite or NaN, and all are returned as 0


def clip_gradients(gradients: Sequence[tf.Tensor], norm: float | None) -> Clipped:
    """Clips every gradient to an L2 norm, then all gradients together to the same global norm.

    Args:
        gradients: tensors of any shapes.
        norm: maximum L2 norm, above 0; None or 0 disables clipping.

    Example:
        >>> clip_gradients([tf.constant([3.0, 4.0])], norm=2.5).gradients[0].numpy().tolist()
        [1.5, 2.0]
    """
    norms = tf.sqrt(2 * tf.stack([tf.nn.l2_loss(gradient) for gradient in gradients]))
    finite = tf.math.is_finite(tf.norm(norms))
    if norm:
        factors = norm / tf.maximum(norms, norm)
        after = tf.norm(norms * factors)
        factors, after = factors * norm / tf.maximum(after, norm), tf.minimum(after, norm)
    else:
        factors, after = tf.ones_like(norms), tf.norm(norms)
    factors = tf.unstack(tf.where(finite, factors, 0.0))
    # no_nan: 0 * inf must be 0.
    clipped = [tf.math.multiply_no_nan(gradient, factor) for gradient, factor in zip(gradients, factors)]
    return Clipped(clipped, after, norms, finite)


class MovingAverage:
    """Moving average of variables over a fraction of the steps so far, at most over those of an exponential decay.

    average += (1 - d) * (variable - average), d = min(decay, (1 + step) / (1 / horizon + step)).

    Until d reaches `decay`, the variables of step s have a weight of about (s / step)**(1 / horizon - 2), and a mean
    age of horizon * step. This profile does not depend on the length of the training (Karras et al., CVPR 2024,
    section 3.1, https://arxiv.org/abs/2312.02696). With horizon 0.1, d is that of TensorFlow's moving averages.
    """

    def __init__(self, variables: Sequence[tf.Variable], decay: float, horizon: float = 0.1):
        """Creates the averages, initialized to the variables.

        Args:
            variables: variables to average.
            decay: maximum of d, in (0, 1).
            horizon: mean age of the averaged values, as a fraction of the steps so far; in (0, 1).
        """
        self.decay = decay
        self.horizon = horizon
        self.variables = list(variables)
        # Every replica updates its own identical copy, so no communication is needed.
        self.averages = [
            tf.Variable(
                v,
                trainable=False,
                name=v.name.removesuffix(":0"),
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            for v in variables
        ]

    def update(self, step: tf.Tensor, apply_update: tf.Tensor | bool = True) -> None:
        """Adds the current values of the variables.

        Args:
            step: scalar integer, number of updates of the variables so far.
            apply_update: [] bool; if False, the averages keep their exact values.
        """
        step = tf.cast(step, tf.float32)
        decay = tf.where(apply_update, tf.minimum(self.decay, (1 + step) / (1 / self.horizon + step)), 1.0)
        for variable, average in zip(self.variables, self.averages):
            average.assign_sub((1 - decay) * (average - variable))

    def reset(self) -> None:
        """Sets the averages to the current values of the variables."""
        for variable, average in zip(self.variables, self.averages):
            average.assign(variable)


def frozen_variables(net: EfficientDetNet, expression: str | None) -> set:
    """Selects the variables that `var_freeze_expr` freezes, including the statistics of batch normalization.

    Args:
        net: the network.
        expression: regular expression, matched from the start of variable names such as
            "fpn_cells/cell_0/fnode0/WSM:0"; None freezes nothing.

    Returns:
        The references of the variables, `variable.ref()`.

    Raises:
        ValueError: if the expression is not valid, or matches no trainable variable or all of them.
    """
    if expression is None:
        return set()
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise ValueError(f"var_freeze_expr {expression!r} is not a regular expression: {error}") from error
    frozen = {variable.ref() for variable in net.weights if pattern.match(variable.name)}
    trained = [variable for variable in net.trainable_variables if variable.ref() not in frozen]
    if not trained:
        raise ValueError(f"var_freeze_expr {expression!r} matches every variable; nothing is left to train")
    if len(trained) == len(net.trainable_variables):
        scopes = list(dict.fromkeys(variable.name.split("/")[0] for variable in trained))
        raise ValueError(
            f"var_freeze_expr {expression!r} matches no trainable variable from the start of its name; names begin "
            f"with {', '.join(scopes)}, such as {', '.join(_similar_names(expression, trained))}"
        )
    return frozen


def _similar_names(expression: str, variables: list, count: int = 3) -> list[str]:
    """Returns the names that share the most words with the expression."""
    words = set(re.findall(r"\w{3,}", expression))
    return sorted((v.name for v in variables), key=lambda name: -sum(word in name for word in words))[:count]
