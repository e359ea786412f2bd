# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules, optimizers, gradient clipping and the moving average of the weights."""

import contextlib
import math
from collections.abc import Iterator, Sequence

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


def get_optimizer(name: str, learning_rate: LearningRate, momentum: float) -> keras.optimizers.Optimizer:
    """SGD with momentum, or Adam with momentum as its beta_1.

    Raises:
        ValueError: if the name is neither sgd nor adam.
    """
    if name == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum=momentum, jit_compile=False)
    if name == "adam":
        return keras.optimizers.Adam(learning_rate, beta_1=momentum, jit_compile=False)
    raise ValueError(f"unknown optimizer {name!r}; use sgd or adam")


def clip_gradients(gradients: Sequence[tf.Tensor], norm: float | None) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Clips each gradient to a norm, then all together to the same global norm.

    Args:
        gradients: of any shapes.
        norm: L2 norm, above 0; None or 0 clips nothing.

    Returns:
        The gradients, and their global norm after clipping.
    """
    if not norm:
        return list(gradients), tf.linalg.global_norm(gradients)
    clipped = [tf.clip_by_norm(gradient, norm) for gradient in gradients]
    clipped, before = tf.clip_by_global_norm(clipped, norm)
    return clipped, tf.minimum(before, norm)


class MovingAverage:
    """Exponential moving average of variables, with a decay that grows at the start.

    average += (1 - d) * (variable - average), d = min(decay, (1 + step) / (10 + step)).
    """

    def __init__(self, variables: Sequence[tf.Variable], decay: float):
        self.decay = decay
        self.variables = list(variables)
        self.averages = [tf.Variable(v, trainable=False, name=v.name.removesuffix(":0")) for v in variables]

    def update(self, step: tf.Tensor) -> None:
        """Takes in the variables' values after a step, a scalar integer."""
        step = tf.cast(step, tf.float32)
        decay = tf.minimum(self.decay, (1 + step) / (10 + step))
        for variable, average in zip(self.variables, self.averages):
            average.assign_sub((1 - decay) * (average - variable))

    def reset(self) -> None:
        """Starts again from the variables as they are."""
        for variable, average in zip(self.variables, self.averages):
            average.assign(variable)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the averages into the variables while the context lasts."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for variable, average in zip(self.variables, self.averages):
            value = variable.numpy()
            variable.assign(average)
            average.assign(value)
