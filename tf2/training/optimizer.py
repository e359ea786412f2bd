# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules, optimizers, gradient clipping and the moving average of the weights."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
import tf_keras as keras

REFERENCE_BATCH_SIZE = 64  # that learning_rate and lr_warmup_init are given for


@keras.utils.register_keras_serializable(package="efficientdet")
class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then one of the decays; with method `constant` neither.

    Call: step, a scalar integer counted from 0 -> rate, a float32 scalar.

    The cosine runs from the base rate at the end of the warm-up to 0 at the last step
    (Loshchilov and Hutter, ICLR 2017, equation 5, https://arxiv.org/abs/1608.03983).
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
        """Takes everything in steps, not epochs.

        Args:
            method: cosine, stepwise, polynomial or constant.
            base_rate: rate after the warm-up, for the global batch at hand.
            total_steps: steps of the whole training.
            warmup_init: rate of step 0.
            warmup_steps: steps until base_rate.
            drop_steps: for stepwise, from where on the rate is a tenth of the one before.
            power: for polynomial, exponent of the remaining share of steps.

        Raises:
            ValueError: for another method.
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


class Optimizer:
    """Updates variables in place from gradients; its slots are named as in the published checkpoints.

    TensorFlow's own kernels do the work, one for each variable. They write to the copy of the replica that calls them,
    so every replica has to come with the same gradients, summed up before.
    """

    slot_names: tuple[str, ...]

    def __init__(self, variables: Sequence[tf.Variable], momentum: float):
        """Makes the slots, all 0.

        Args:
            variables: that may be updated; each has its slots from the start.
            momentum: of the gradients, in [0, 1).
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
        counts: tf.Tensor,
    ) -> None:
        """One update.

        Args:
            gradients: of any shapes, finite.
            variables: with these shapes, all of those it was made with or some.
            rate: [] float32, the learning rate.
            step: [] int64, number of this update, from 0.
            counts: [] bool; False, with gradients of 0, leaves variables and slots exactly as they are.
        """
        raise NotImplementedError


class Sgd(Optimizer):
    """Stochastic gradient descent with momentum, not Nesterov's: m <- momentum * m + g, w <- w - rate * m."""

    slot_names = ("Momentum",)

    def apply(self, gradients, variables, *, rate, step, counts):
        rate, momentum = tf.where(counts, rate, 0.0), tf.where(counts, self.momentum, 1.0)
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

    def apply(self, gradients, variables, *, rate, step, counts):
        number = tf.cast(step + 1, tf.float32)
        powers = {"beta1_power": self.momentum**number, "beta2_power": 0.999**number}
        betas = {"beta1": tf.where(counts, self.momentum, 1.0), "beta2": tf.where(counts, 0.999, 1.0)}
        rate = tf.where(counts, rate, 0.0)
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


OPTIMIZERS = {"sgd": Sgd, "adam": Adam}


class Clipped(NamedTuple):
    """What `clip_gradients` gives."""

    gradients: list[tf.Tensor]  # of the same shapes
    norm: tf.Tensor  # [] float32, global L2 norm after clipping
    norms: tf.Tensor  # [number of gradients] float32, L2 norms before
    finite: tf.Tensor  # [] bool; False: the gradients are all 0, because one was infinite or not a number


def clip_gradients(gradients: Sequence[tf.Tensor], norm: float | None) -> Clipped:
    """Clips each gradient to a norm, then all together to the same global norm.

    Args:
        gradients: of any shapes.
        norm: L2 norm, above 0; None or 0 clips nothing.
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
    # no_nan: 0 times infinity is 0 here.
    clipped = [tf.math.multiply_no_nan(gradient, factor) for gradient, factor in zip(gradients, factors)]
    return Clipped(clipped, after, norms, finite)


class MovingAverage:
    """Exponential moving average of variables, with a decay that grows at the start.

    average += (1 - d) * (variable - average), d = min(decay, (1 + step) / (10 + step)).
    """

    def __init__(self, variables: Sequence[tf.Variable], decay: float):
        self.decay = decay
        self.variables = list(variables)
        # Each replica updates a copy of its own, all alike: nothing has to be sent between them.
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

    def update(self, step: tf.Tensor, counts: tf.Tensor | bool = True) -> None:
        """Takes in the variables' values after a step, a scalar integer; unless counts, [] bool, is False."""
        step = tf.cast(step, tf.float32)
        decay = tf.where(counts, tf.minimum(self.decay, (1 + step) / (10 + step)), 1.0)
        for variable, average in zip(self.variables, self.averages):
            average.assign_sub((1 - decay) * (average - variable))

    def reset(self) -> None:
        """Starts again from the variables as they are."""
        for variable, average in zip(self.variables, self.averages):
            average.assign(variable)
