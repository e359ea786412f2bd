# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Layers shared by backbone, BiFPN and heads: activations, batch normalization, drop connect and recomputation."""

import contextlib
import inspect
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import tensorflow as tf
import tf_keras as keras

from backbone.choices import ACTIVATIONS

Shape = tuple[int | None, ...]  # of one tensor, as Keras passes it to `build`
Tensors = tf.Tensor | Sequence[tf.Tensor]
Result = TypeVar("Result", bound=Tensors)


@tf.custom_gradient
def swish(x: tf.Tensor) -> tf.Tensor:
    """x * sigmoid(x), elementwise; its gradient takes four passes over memory, that of `tf.nn.silu` seven.

    Reference: Elfwing et al., Neural Networks 2018, equation 4 (https://arxiv.org/abs/1702.03118).
    """
    sigmoid = tf.sigmoid(x)
    outputs = x * sigmoid

    def gradient(upstream):
        # d/dx (x * s) = s + x * s * (1 - s), s = sigmoid(x). The control dependency keeps TensorFlow from computing
        # this factor during the forward pass and holding it in memory until the backward pass.
        with tf.control_dependencies([upstream]):
            return upstream * (sigmoid + outputs * (1 - sigmoid))

    return outputs, gradient


def swish_native(x: tf.Tensor) -> tf.Tensor:
    """x * sigmoid(x) with TensorFlow's own gradient."""
    return x * tf.sigmoid(x)


def hswish(x: tf.Tensor) -> tf.Tensor:
    """x * relu6(x + 3) / 6."""
    return x * tf.nn.relu6(x + 3) / 6


def mish(x: tf.Tensor) -> tf.Tensor:
    """x * tanh(softplus(x))."""
    return x * tf.tanh(tf.math.softplus(x))


silu, relu, relu6 = swish, tf.nn.relu, tf.nn.relu6


def activation(act_type: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns an elementwise activation function by name, one of `choices.ACTIVATIONS`.

    Raises:
        ValueError: if the name is unknown.

    Example:
        >>> float(activation("relu6")(7.0))
        6.0
    """
    if act_type not in ACTIVATIONS:
        raise ValueError(f"unknown act_type {act_type!r}; use one of {', '.join(ACTIVATIONS)}")
    return globals()[act_type]


class Layer(keras.layers.Layer):
    """A layer whose constructor arguments are attributes of the same names and the keys of its configuration."""

    def get_config(self) -> dict[str, Any]:
        _, *names, _ = inspect.signature(type(self).__init__).parameters  # without self and **kwargs
        # Not super(): for a keras.Model, that would be a configuration without name, trainable and dtype.
        return {**keras.layers.Layer.get_config(self), **{name: getattr(self, name) for name in names}}


@keras.utils.register_keras_serializable(package="efficientdet")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization with the momentum and epsilon of EfficientNet.

    Call: [B, H, W, C] -> [B, H, W, C].

    Args:
        momentum: of the moving averages.
        epsilon: added to the variance.
        batch_statistics: if False, training normalizes by the moving averages and does not update them, while gamma
            and beta are still trained; suits fine-tuning with small batches.
        synchronized: if True, training normalizes by the statistics over the samples of all replicas.

    Reference: Ioffe and Szegedy, ICML 2015 (https://arxiv.org/abs/1502.03167).
    """

    def __init__(
        self,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        *,
        batch_statistics: bool = True,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)
        self.batch_statistics = batch_statistics
        self.synchronized = synchronized

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "batch_statistics": self.batch_statistics,
            "synchronized": self.synchronized,
        }

    def call(self, inputs: tf.Tensor, training: bool = False, mask: None = None) -> tf.Tensor:
        if not (training and self.batch_statistics):
            statistics = {"mean": self.moving_mean, "variance": self.moving_variance}
            return self._fused(inputs, **statistics, is_training=False)[0]
        outputs, mean, variance = self._synchronized(inputs) if self.synchronized else self._fused(inputs)
        if not getattr(_thread_state, "freeze_moving_averages", False):
            for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                average.assign_sub((average - value) * (1 - self.momentum))
        return outputs

    def _fused(self, inputs, **options):
        """Returns the outputs, and the mean and unbiased variance of the batch, from TensorFlow's fused kernel."""
        return tf.compat.v1.nn.fused_batch_norm(inputs, self.gamma, self.beta, epsilon=self.epsilon, **options)

    def _synchronized(self, inputs):
        """Computes the results of `_fused` over the samples of all replicas, in the precision of the inputs.

        The statistics take one collective in the forward and one in the backward pass.
        """
        count, mean, variance = moments_over_replicas(inputs)
        given = {"mean": mean, "variance": variance, "epsilon": self.epsilon, "is_training": False}

        @tf.custom_gradient
        def normalize(x, gamma, beta):
            def gradient(upstream):
                # With y = gamma * x_hat + beta and scale = gamma / sqrt(variance + epsilon), the kernel of constant
                # statistics returns upstream * scale, sum(upstream * x_hat) and sum(upstream). Through the statistics
                # flows -scale * (mean(upstream * x_hat) * x_hat + mean(upstream)), of the form of y.
                d_x, d_gamma, d_beta, *_ = tf.raw_ops.FusedBatchNormGradV3(
                    y_backprop=upstream,
                    x=x,
                    scale=gamma,
                    reserve_space_1=mean,
                    reserve_space_2=variance,
                    reserve_space_3=[],
                    epsilon=self.epsilon,
                    is_training=False,
                )
                scale = gamma * tf.math.rsqrt(variance + self.epsilon)
                factor, offset = tf.unstack(-scale * all_sum(tf.stack([d_gamma, d_beta])) / count)
                return d_x + tf.compat.v1.nn.fused_batch_norm(x, factor, offset, **given)[0], d_gamma, d_beta

            return tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, **given)[0], gradient

        outputs = normalize(inputs, self.gamma, self.beta)
        return outputs, mean, variance * count / tf.maximum(count - 1, 1)


def all_sum(values: Any) -> Any:
    """Sums tensors over all replicas; in a `tf.function`, CPUs and GPUs pack them into one collective.

    Args:
        values: a tensor, or a nested structure of tensors of one type.
    """
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


def moments_over_replicas(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Computes statistics over the samples of all replicas, in one collective; they are constants to gradients.

    E[x^2] - E[x]^2 would cancel the digits of the variance where the mean is large: the parts of the replicas are
    combined without it. They do not come from the fused kernel, because XLA implements it with that formula.

    Args:
        x: [B, H, W, C] float, the samples of this replica; at least one, not necessarily as many as on others.

    Returns:
        [] float32, number of values per channel; [C] float32, their means; [C] float32, their biased variances.

    Reference: Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
    """
    replica = tf.distribute.get_replica_context()
    channels, x = x.shape[-1], tf.cast(tf.stop_gradient(x), tf.float32)
    count, mean = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), tf.float32), tf.reduce_mean(x, [0, 1, 2])
    squares = tf.reduce_sum(tf.math.squared_difference(x, mean), [0, 1, 2])
    # Each replica fills one row of zeros: the sum of all is the list of the parts.
    row = tf.one_hot(replica.replica_id_in_sync_group, replica.num_replicas_in_sync)
    rows = all_sum(row[:, None] * tf.concat([[count], mean, squares], 0))
    counts, means, squares = tf.split(rows, [1, channels, channels], axis=1)
    count = tf.reduce_sum(counts)
    mean = tf.reduce_sum(counts / count * means, 0)
    squares = tf.reduce_sum(squares + counts * tf.math.squared_difference(means, mean), 0)
    return count, mean, squares / count


_thread_state = threading.local()  # per thread, because each replica is traced in its own


@contextlib.contextmanager
def frozen_moving_averages() -> Iterator[None]:
    """Context manager in which no batch normalization updates its moving averages."""
    before = getattr(_thread_state, "freeze_moving_averages", False)
    _thread_state.freeze_moving_averages = True
    try:
        yield
    finally:
        _thread_state.freeze_moving_averages = before


def recompute(function: Callable[..., Result], *inputs: Tensors) -> Result:
    """Returns function(*inputs); its activations are recomputed in the backward pass instead of being stored.

    Args:
        function: of tensors and deterministic, so random numbers must be inputs.
        inputs: tensors or lists of tensors; gradients flow to them and to the variables used in `function`.

    Returns:
        The tensor or list of tensors of `function`; it updates the moving averages of batch normalization once.

    Example:
        >>> float(recompute(tf.square, tf.constant(3.0)))
        9.0

    Reference: Chen et al., Training Deep Nets with Sublinear Memory Cost (https://arxiv.org/abs/1604.06174).
    """
    calls = itertools.count()

    def run(*inputs):
        with frozen_moving_averages() if next(calls) else contextlib.nullcontext():
            return function(*inputs)

    return tf.recompute_grad(run)(*inputs)


def drop_connect(x: tf.Tensor, survival_prob: float, training: bool, draw: tf.Tensor | None = None) -> tf.Tensor:
    """Drops residual branches per sample: x * floor(survival_prob + draw) / survival_prob.

    Args:
        x: [B, H, W, C] float, the residual branch before the addition.
        survival_prob: probability in (0, 1] that a sample keeps its branch.
        training: False returns x unchanged.
        draw: [B] float32, uniform in [0, 1); samples from 1 - survival_prob upwards are kept. None draws new numbers.

    Returns:
        [B, H, W, C] with the expectation of x.

    Example:
        >>> kept = drop_connect(tf.ones([2, 1, 1, 1]), 0.5, training=True, draw=tf.constant([0.25, 0.75]))
        >>> kept[:, 0, 0, 0].numpy().tolist()
        [0.0, 2.0]

    Reference: Huang et al., ECCV 2016, stochastic depth (https://arxiv.org/abs/1603.09382).
    """
    if not training or survival_prob == 1.0:
        return x
    if draw is None:
        draw = tf.random.uniform(tf.shape(x)[:1])
    factor = tf.floor(survival_prob + draw) / survival_prob
    return x * tf.cast(factor[:, None, None, None], x.dtype)


def seeded_draws(shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Random numbers for drop connect that depend on the seed alone: the same bits on every device and with XLA.

    They equal those of tf.random.stateless_uniform on a CPU. With XLA that function returns other numbers, even with
    alg="philox": the bits of Philox are the same, but kernels convert the lower 23 of them to floats, XLA the upper 23.

    Args:
        shape: shape of the result.
        seed: [2] int64.

    Returns:
        float32, uniform in [0, 1), multiples of 2**-23.
    """
    bits = tf.random.stateless_uniform(shape, seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox")
    return tf.cast(tf.bitwise.bitwise_and(bits, 2**23 - 1), tf.float32) / 2**23


def build(layer: keras.layers.Layer, channels: int) -> int:
    """Creates the variables of a layer of [B, H, W, channels] in a name scope of its name; returns its output channels.

    The layer is not traced: the shapes of a convolutional network's variables depend on channels alone. Building from
    them takes one second instead of ten, and the names stay as written: under tf.function Keras would number the scopes
    of a second model.

    >>> build(keras.layers.Conv2D(8, 3), channels=3)
    8
    """
    with tf.name_scope(layer.name):
        layer.build((None, None, None, channels))
    return layer.compute_output_shape((None, None, None, channels))[-1]
