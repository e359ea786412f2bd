# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Steps that are skipped because their loss or gradients are not finite: counters, loss scale and likely cause."""

import math
from collections.abc import Mapping, Sequence

import tensorflow as tf

LOSS_SCALE = 2.0**15  # initial dynamic loss scale, unless config.loss_scale is set
GROWTH_STEPS = 2000  # finite steps after which the loss scale is doubled


class SkippedSteps:
    """Counts skipped steps and, under float16, adapts the loss scale; the variables are identical on all replicas."""

    def __init__(self, strategy: tf.distribute.Strategy, loss_scale: float | None = None):
        """Creates the variables; to be called in the scope of the strategy.

        Args:
            strategy: distribution strategy of the training.
            loss_scale: initial factor of the loss under float16; None for other precisions, which need none.
        """
        self._strategy = strategy
        self.count = counter("training/skipped_steps")
        self.in_a_row = counter("training/skipped_in_a_row")
        self.bad_gradient = counter("training/bad_gradient")  # index of the first gradient that is not finite
        self.loss_scale = self.good_steps = None
        if loss_scale is not None:
            self.loss_scale = counter("training/loss_scale", loss_scale)
            self.good_steps = counter("training/good_steps")

    @property
    def saved(self) -> list[tf.Variable]:
        """Variables that checkpoints hold."""
        scale = [self.loss_scale, self.good_steps] if self.loss_scale is not None else []
        return [self.count, self.in_a_row, *scale]

    def scale(self, loss: tf.Tensor) -> tf.Tensor:
        """Returns the loss times the loss scale."""
        return loss if self.loss_scale is None else loss * self.loss_scale

    def unscale(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the gradients of the loss, given those of the scaled one."""
        return gradients if self.loss_scale is None else [gradient / self.loss_scale for gradient in gradients]

    def update(self, is_finite: tf.Tensor, norms: tf.Tensor) -> None:
        """Updates counters and loss scale after a step.

        Args:
            is_finite: [] bool, False if the step was skipped.
            norms: [G] float32, norms of all gradients before clipping.
        """
        self.count.assign_add(tf.cast(~is_finite, tf.int64))
        self.in_a_row.assign(tf.where(is_finite, tf.zeros([], tf.int64), self.in_a_row + 1))
        self.bad_gradient.assign(tf.argmax(tf.cast(~tf.math.is_finite(norms), tf.int32)))
        if self.loss_scale is not None:
            good = tf.where(is_finite, self.good_steps + 1, 0)
            grown = tf.where(good >= GROWTH_STEPS, self.loss_scale * 2, self.loss_scale)
            self.loss_scale.assign(tf.where(is_finite, grown, tf.maximum(self.loss_scale / 2, 1)))
            self.good_steps.assign(good % GROWTH_STEPS)

    def num_in_a_row(self) -> int:
        """Returns the number of consecutive skipped steps up to the last one."""
        return int(self._local(self.in_a_row))

    def can_reduce_loss_scale(self) -> bool:
        """Returns True under float16 if a smaller loss scale may still end the overflow that skips steps."""
        return self.loss_scale is not None and float(self._local(self.loss_scale)) > 1

    def cause(self, metrics: Mapping[str, float], variables: Sequence[tf.Variable]) -> str:
        """Names the loss or gradient because of which the last step was skipped, and the likely cause.

        Args:
            metrics: metrics of that step.
            variables: variables of the gradients, in the order of the norms that `update` got.
        """
        parts = [name for name in metrics if name.endswith("_loss") and not math.isfinite(metrics[name])]
        if parts:
            what = f"{' and '.join(parts)} {'is' if len(parts) == 1 else 'are'} not finite"
            cause = "learning_rate is too high, lr_warmup_epoch too short, or --ckpt holds broken weights"
        else:
            variable = variables[int(self._local(self.bad_gradient))]
            what = f"the gradient of {variable.name} is not finite, while the loss is {metrics['loss']:.4g}"
            cause = "the gradients explode: lower learning_rate, or clip_gradients_norm where it was raised"
        return f"{what} (most likely {cause})"

    def _local(self, variable: tf.Variable) -> tf.Tensor:
        return self._strategy.experimental_local_results(variable)[0]


def counter(name: str, value: float = 0) -> tf.Variable:
    """Creates a scalar variable of which every replica keeps an identical copy."""
    return tf.Variable(
        value,
        dtype=tf.int64 if isinstance(value, int) else tf.float32,
        trainable=False,
        name=name,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
