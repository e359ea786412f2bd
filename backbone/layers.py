# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Normalization, activations and drop connect: what backbone, BiFPN and heads share."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator

import tensorflow as tf
import tf_keras as keras


@tf.custom_gradient
def swish(x: tf.Tensor) -> tf.Tensor:
    """x * sigmoid(x), of any shape, with a cheaper gradient than `tf.nn.silu`: four passes over memory, not seven.

    Reference: Elfwing et al., Neural Networks 2018, equation 4 (https://arxiv.org/abs/1702.03118).
    """
    sigmoid = tf.sigmoid(x)
    outputs = x * sigmoid

    def gradient(upstream):
        with tf.control_dependencies([upstream]):  # or all of it would be computed, and kept, in the forward pass
            return upstream * (sigmoid + outputs * (1 - sigmoid))

    return outputs, gradient


ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "swish": swish,
    "silu": swish,
    "swish_native": lambda x: x * tf.sigmoid(x),
    "hswish": lambda x: x * tf.nn.relu6(x + 3) / 6,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "mish": lambda x: x * tf.tanh(tf.math.softplus(x)),
}


def activation(act_type: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """The activation function of a name.

    Args:
        act_type: a key of `ACTIVATIONS`.

    Returns:
        A function of one float tensor, same shape and dtype out.

    Raises:
        ValueError: if the name is unknown.
    """
    if act_type not in ACTIVATIONS:
        raise ValueError(f"unknown act_type {act_type!r}; use one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[act_type]


@keras.utils.register_keras_serializable(package="efficientdet")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization with the constants of the EfficientNet family.

    `batch_statistics = False` makes a training step normalize by the moving averages and leave them
    alone, while gamma and beta go on learning: the way to fine-tune with a small batch.
    `synchronized = True` normalizes by the statistics of all replicas' samples together.

    Reference: Ioffe and Szegedy, ICML 2015 (https://arxiv.org/abs/1502.03167).
    """

    def __init__(self, momentum: float = 0.99, epsilon: float = 1e-3, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)
        self.batch_statistics = True

    def call(self, inputs, training=False, mask=None):
        if not (training and self.batch_statistics):
            statistics = {"mean": self.moving_mean, "variance": self.moving_variance}
            return self._fused(inputs, **statistics, is_training=False)[0]
        outputs, mean, variance = self._synchronized(inputs) if self.synchronized else self._fused(inputs)
        if not getattr(_statistics, "kept", False):
            for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                average.assign_sub((average - value) * (1 - self.momentum))
        return outputs

    def _fused(self, inputs, **options):
        """Outputs, and mean and unbiased variance of the batch, by TensorFlow's kernel."""
        return tf.compat.v1.nn.fused_batch_norm(inputs, self.gamma, self.beta, epsilon=self.epsilon, **options)

    def _synchronized(self, inputs):
        """As `_fused`, over the samples of all replicas, of which each has as many."""
        replicas, x = tf.distribute.get_replica_context(), tf.cast(inputs, tf.float32)
        count = tf.cast(tf.size(x[..., 0]) * replicas.num_replicas_in_sync, tf.float32)

        def mean_of(values):
            return replicas.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(values, [0, 1, 2])) / count

        mean = mean_of(x)
        # Not the mean square minus the squared mean: of large means, few digits would be left.
        variance = mean_of(tf.math.squared_difference(x, mean))
        outputs = tf.nn.batch_normalization(x, mean, variance, self.beta, self.gamma, self.epsilon)
        return tf.cast(outputs, inputs.dtype), mean, variance * count / tf.maximum(count - 1, 1)


_statistics = threading.local()  # replicas are traced in threads of their own


@contextlib.contextmanager
def kept_statistics() -> Iterator[None]:
    """A context in which batch normalization leaves its moving averages alone, whatever it normalizes by."""
    before = getattr(_statistics, "kept", False)
    _statistics.kept = True
    try:
        yield
    finally:
        _statistics.kept = before


def recompute(function: Callable, *inputs):
    """function(*inputs), whose activations are computed again in the backward pass instead of being kept until then.

    Args:
        function: of tensors; gives equal results each time, so it takes random numbers from outside.
        inputs: tensors, or nested lists of them; gradients flow to them and to the variables inside.

    Returns:
        What function returns, a tensor or a list of tensors; moving averages of batch normalization change once.

    Reference: Chen et al., Training Deep Nets with Sublinear Memory Cost (https://arxiv.org/abs/1604.06174).
    """
    runs = itertools.count()

    def run(*inputs):
        with kept_statistics() if next(runs) else contextlib.nullcontext():
            return function(*inputs)

    return tf.recompute_grad(run)(*inputs)


def drop_connect(x: tf.Tensor, survival_prob: float, training: bool, draw: tf.Tensor | None = None) -> tf.Tensor:
    """Drops whole samples of a residual branch in training, and scales up those that survive.

    Args:
        x: [B, H, W, C] float, the branch before it is added to its shortcut.
        survival_prob: probability in (0, 1] that a sample keeps the branch.
        training: False returns x as it is.
        draw: [B] float32, uniform in [0, 1): samples of 1 - survival_prob and more survive; None draws.

    Returns:
        [B, H, W, C], with the expectation of x.

    Reference: Huang et al., ECCV 2016, stochastic depth (https://arxiv.org/abs/1603.09382).
    """
    if not training or survival_prob == 1.0:
        return x
    if draw is None:
        draw = tf.random.uniform(tf.shape(x)[:1])
    factor = tf.floor(survival_prob + draw) / survival_prob
    return x * tf.cast(factor[:, None, None, None], x.dtype)


def build(layer: keras.layers.Layer, channels: int) -> int:
    """Creates the variables of a layer under its own name, without running or tracing it.

    Only channels decide the shapes of a convolutional network's variables. Building by channels takes
    a second where tracing takes ten, and keeps names as they are written: under tf.function Keras would
    number a second model's scopes.

    Args:
        layer: an unbuilt layer over [B, H, W, C] maps.
        channels: C of its input.

    Returns:
        C of its output.
    """
    with tf.name_scope(layer.name):
        layer.build((None, None, None, channels))
    return layer.compute_output_shape((None, None, None, channels))[-1]
