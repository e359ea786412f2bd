# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The training step: forward pass, gradients, update and moving average, on any number of replicas."""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import logging

from backbone import layers
from efficientdet import losses
from efficientdet.config import Config
from efficientdet.model import EfficientDetNet, build_anchors
from tf2.training import optimizer as optimizer_lib
from tf2.training import skipped_steps
from tf2.training import strategy as strategy_lib
from tf2.weights import checkpoint

STEP_METRICS = ("gradient_norm", "learning_rate", "skipped_steps")


class Trainer:
    """The state of a training run (weights, optimizer slots, moving averages, step) and the step that updates it.

    The loss is a function of the global batch, independent of the number of replicas: it is normalized by the
    positives of all replicas, gradients are summed over replicas before clipping, weight decay is added once.
    """

    def __init__(
        self,
        config: Config,
        *,
        batch_size: int,
        steps_per_epoch: int,
        seed: int = 0,
        strategy: tf.distribute.Strategy | None = None,
        precision: str = "float32",
        use_xla: bool = False,
    ):
        """Builds the network with random weights, and its optimizer.

        Args:
            config: configuration of model and training.
            batch_size: images per step over all replicas; learning rates scale with it.
            steps_per_epoch: converts the epochs of the config to steps.
            seed: seed of drop connect, which depends on seed and step only.
            strategy: distribution strategy; None for one device.
            precision: Keras policy of the layers: float32, mixed_float16 or mixed_bfloat16.
            use_xla: compiles the step of a replica, from images to updated weights, as one XLA program.

        Raises:
            ValueError: if batch_size is not divisible by replicas times micro-batches, var_freeze_expr is invalid, or
                use_xla does not suit the strategy.
        """
        self.config = config
        self.seed = seed
        self.batch_size = batch_size
        self.strategy = strategy or tf.distribute.get_strategy()
        self.num_replicas = self.strategy.num_replicas_in_sync
        self.learning_rate = optimizer_lib.learning_rate_schedule(config, batch_size, steps_per_epoch)
        self._check_batch_size()
        step = self._replica_step
        self._run_replica = strategy_lib.compile_replica(step, self.strategy) if use_xla else step
        with self.strategy.scope():
            policy = keras.mixed_precision.global_policy()
            keras.mixed_precision.set_global_policy(precision)
            try:
                self.net = EfficientDetNet(config, synchronized=self.num_replicas > 1)
            finally:
                keras.mixed_precision.set_global_policy(policy)
            self.anchors = tf.constant(build_anchors(config).boxes)
            self._freeze(optimizer_lib.frozen_variables(self.net, config.var_freeze_expr))
            self.optimizer = optimizer_lib.make_optimizer(config, self.net.trainable_variables, self.kernels)
            self.average = None
            if config.moving_average_decay:
                self.average = optimizer_lib.MovingAverage(
                    self.net.weights, config.moving_average_decay, config.moving_average_horizon
                )
            self.global_step = skipped_steps.counter("global_step")
            self.positives_average = skipped_steps.counter("training/positives_average", 0.0)
            loss_scale = (config.loss_scale or skipped_steps.LOSS_SCALE) if precision == "mixed_float16" else None
            self.skipped_steps = skipped_steps.SkippedSteps(self.strategy, loss_scale)
        self._evaluated_net = None

    def _freeze(self, frozen: set) -> None:
        """Determines the variables that steps change: trained ones, and statistics of batch normalization."""
        self.trained = [v for v in self.net.trainable_variables if v.ref() not in frozen]
        self.kernels = [v for v in self.trained if re.search(r"(kernel|weight):0$", v.name)]
        self.statistics = []
        for layer in self.net.submodules:
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = self.config.batch_norm_momentum
                layer.batch_statistics &= layer.moving_mean.ref() not in frozen
                self.statistics += [layer.moving_mean, layer.moving_variance] if layer.batch_statistics else []

    @property
    def step(self) -> int:
        """Steps since the weights were initialized or loaded from another training run."""
        return int(self._local(self.global_step).numpy())

    def distribute(self, make_dataset) -> tf.data.Dataset:
        """Distributes batches over the replicas.

        Args:
            make_dataset: (i, n, b) -> dataset of batches of b images for worker i of n; each replica of the worker
                takes one batch per step.

        Returns:
            A (distributed) dataset whose elements are the arguments of `train_step`.
        """
        per_replica = self.batch_size // self.num_replicas
        return self.strategy.distribute_datasets_from_function(
            lambda context: make_dataset(context.input_pipeline_id, context.num_input_pipelines, per_replica)
        )

    @tf.function(autograph=False)  # AutoGraph would double the time of tracing
    def train_step(self, images: tf.Tensor, labels: Mapping) -> dict[str, tf.Tensor]:
        """Updates weights and averages once.

        If the loss or a gradient is not finite, the batch is skipped: only the step counters change.

        Args:
            images: [B, height, width, 3] float32, normalized; per replica if there are several.
            labels: labels of `InputReader.training`.

        Returns:
            Scalars by name, over all replicas: loss and its components, gradient_norm (after clipping), learning_rate,
            and skipped_steps, the number of steps skipped so far.
        """
        metrics = self.strategy.run(self._run_replica, args=(images, labels))
        return {name: self._local(metrics[name]) for name in self.metric_names}

    @tf.function(autograph=False)
    def train_steps(self, batches: Iterator, count: tf.Tensor) -> dict[str, tf.Tensor]:
        """Takes several steps without returning to Python in between.

        Args:
            batches: iterator over a dataset of `distribute`.
            count: [] int32, number of steps.

        Returns:
            The metrics of the last step, see `train_step`.
        """
        zeros = dict.fromkeys(self.metric_names, tf.constant(0.0))
        step = lambda i, _: (i + 1, self.train_step(*next(batches)))  # noqa: E731
        return tf.while_loop(lambda i, _: i < count, step, (0, zeros), parallel_iterations=1)[1]

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics that `train_step` returns."""
        return (*self._loss_names, *STEP_METRICS)

    @property
    def _loss_options(self) -> losses.LossOptions:
        return losses.LossOptions(**self.config.select(*losses.LossOptions._fields))

    @property
    def _loss_names(self) -> tuple[str, ...]:
        """Names of the losses that `loss` returns."""
        return (*losses.names(self._loss_options), "reg_l2_loss", "loss")

    def _replica_step(self, images: tf.Tensor, labels: Mapping) -> dict[str, tf.Tensor]:
        """The part of a step that every replica computes; updates and metrics are identical on all replicas."""
        replica = tf.distribute.get_replica_context()
        step, rate = self.global_step.value(), self.learning_rate(self.global_step)
        # The forward pass changes these before it is known if the update is applied.
        tentative = [*self.statistics, self.positives_average]
        before = [tf.identity(variable) for variable in tentative]
        positives = layers.all_sum(tf.reduce_sum(labels["num_positives"]))
        compute = self._gradients if self.config.gradient_accumulation_steps == 1 else self._accumulated_gradients
        parts, gradients = compute(images, labels, self._normalizer(positives), self._draws(replica, step))
        parts, gradients = layers.all_sum((parts, gradients))
        gradients = self.skipped_steps.unscale(gradients)
        clipped = optimizer_lib.clip_gradients(gradients, self.config.clip_gradients_norm)
        is_finite = clipped.finite & tf.math.is_finite(parts["loss"])

        self.optimizer.apply(clipped.gradients, self.trained, rate=rate, step=step, apply_update=is_finite)
        for variable, value in zip(tentative, before):
            variable.assign(tf.where(is_finite, variable, value))
        if self.average:
            self.average.update(step + 1, is_finite)
        self.global_step.assign_add(1)
        self.skipped_steps.update(is_finite, clipped.norms)
        num_skipped = tf.cast(self.skipped_steps.count, tf.float32)
        return {**parts, "gradient_norm": clipped.norm, "learning_rate": rate, "skipped_steps": num_skipped}

    def _normalizer(self, positives: tf.Tensor) -> tf.Tensor:
        """Returns the divisor of the losses, given the positive anchors of the global batch."""
        momentum = self.config.positives_momentum
        if momentum is None or momentum <= 0:  # below 0 requests the positives of all replicas: the default here
            return positives + 1
        average = momentum * self.positives_average + (1 - momentum) * (positives + 1)
        self.positives_average.assign(average)
        return average

    def _draws(self, replica: tf.distribute.ReplicaContext, step: tf.Tensor) -> tf.Tensor:
        """Returns the random numbers of drop connect for the images of a replica, a function of seed and step."""
        seed = tf.stack([tf.constant(self.seed, tf.int64), step])
        draws = layers.seeded_draws([self.batch_size, self.net.num_draws], seed)
        size = self.batch_size // self.num_replicas
        return tf.slice(draws, [replica.replica_id_in_sync_group * size, 0], [size, -1])

    def _accumulated_gradients(self, images, labels, normalizer, draws):
        """Sums `_gradients` over micro-batches."""
        count = self.config.gradient_accumulation_steps
        batch = (images, labels, draws)
        micro_batches = tf.nest.map_structure(lambda x: tf.reshape(x, [count, -1, *x.shape[1:]]), batch)

        def add(i, sums):
            images, labels, draws = tf.nest.map_structure(lambda x: x[i], micro_batches)
            return i + 1, tf.nest.map_structure(tf.add, sums, self._gradients(images, labels, normalizer, draws))

        parts = dict.fromkeys(self._loss_names, tf.zeros([]))
        zeros = parts, [tf.zeros(variable.shape) for variable in self.trained]
        # In sequence: parallel iterations would need the memory of all micro-batches at once.
        return tf.while_loop(lambda i, _: i < count, add, (0, zeros), parallel_iterations=1)[1]

    def _gradients(self, images, labels, normalizer, draws) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """Returns loss components and gradients of the images given; gradients are multiplied by the loss scale."""
        share = 1 / (self.num_replicas * self.config.gradient_accumulation_steps)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.trained)
            parts = self.loss(images, labels, normalizer=normalizer, draws=draws, share=share)
            loss = self.skipped_steps.scale(parts["loss"])
        return parts, tape.gradient(loss, self.trained, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def loss(
        self,
        images: tf.Tensor,
        labels: Mapping,
        *,
        normalizer: tf.Tensor,
        draws: tf.Tensor | None = None,
        share: float = 1.0,
    ) -> dict[str, tf.Tensor]:
        """Computes the training loss and its components: detection losses plus weight decay.

        Args:
            images: see `train_step`.
            labels: see `train_step`.
            normalizer: [] float32, positive anchors of the global batch plus 1.
            draws: random numbers of drop connect, see `EfficientDetNet`.
            share: fraction of the weight decay to add; it sums to 1 over replicas and micro-batches.

        Returns:
            [] float32 by name: cls_loss, box_loss, box_iou_loss if configured, det_loss, reg_l2_loss, and their total,
            loss = det_loss + reg_l2_loss with reg_l2_loss = weight_decay / 2 * sum(kernel**2), or 0 with adamw, which
            decays the weights itself.
        """
        cls_outputs, box_outputs = self.net(images, training=True, draws=draws)
        parts = losses.detection_loss(
            cls_outputs,
            box_outputs,
            labels,
            options=self._loss_options,
            anchors=self.anchors,
            normalizer=normalizer,
        )
        kernels = [] if self.config.optimizer == "adamw" else self.kernels
        squares = tf.reduce_sum([tf.nn.l2_loss(kernel) for kernel in kernels])  # 0 if all kernels are frozen
        decay = self.config.weight_decay * share * squares
        return {**parts, "reg_l2_loss": decay, "loss": parts["det_loss"] + decay}

    def any_worker(self, flag: bool) -> bool:
        """Returns True if the flag is set on any worker; a collective call, made by all workers at the same point."""
        return self.mean_over_replicas([float(flag)])[0] > 0

    def mean_over_replicas(self, values: Sequence[float]) -> np.ndarray:
        """Returns the means of numbers of each worker, the same on all of them; a collective call like `any_worker`."""
        return self._local(self._all_sum(tf.constant(values, tf.float64))).numpy() / self.num_replicas

    @tf.function(autograph=False)
    def _all_sum(self, value):
        # identity: every replica needs a tensor of its own.
        return self.strategy.run(lambda value: layers.all_sum(tf.identity(value)), args=(value,))

    def summary(self) -> str:
        """A description for the log: devices, batch size, learning rate, precision, number of variables."""
        config, per_replica = self.config, self.batch_size // self.num_replicas
        parts = f" in {config.gradient_accumulation_steps} parts" if config.gradient_accumulation_steps > 1 else ""
        frozen = len(self.net.trainable_variables) - len(self.trained)
        has_strategy = self.strategy is not tf.distribute.get_strategy()
        devices = f"{type(self.strategy).__name__} of {self.num_replicas} replicas" if has_strategy else "one device"
        return (
            f"{devices}, {self.batch_size} images per step "
            f"({per_replica} per replica{parts}), learning rate {self.learning_rate.base_rate:g} "
            f"(learning_rate {config.learning_rate:g} at {optimizer_lib.REFERENCE_BATCH_SIZE} images per step), "
            f"precision {self.net.dtype_policy.name}, {len(self.trained)} trainable variables, {frozen} frozen"
        )

    def num_bytes(self) -> int:
        """Returns the size of a checkpoint in bytes."""
        return sum(variable.dtype.size * variable.shape.num_elements() for variable in self.variables().values())

    def evaluated_net(self, *, averaged: bool = True) -> EfficientDetNet:
        """Returns a network on all replicas with the current averages, if there are any, or else the weights.

        Every call returns the same network. The first one is collective: all workers make it at the same point.

        Args:
            averaged: False for the weights in any case.
        """
        sources = self.average.averages if self.average and averaged else self.net.weights
        if self._evaluated_net is None:
            with self.strategy.scope():
                self._evaluated_net = EfficientDetNet(self.config)
        for variable, source in zip(self._evaluated_net.weights, sources, strict=True):
            # Not variable.assign, which for statistics of batch normalization is a collective call.
            for copy in self.strategy.experimental_local_results(variable):
                copy.assign(self._local(source))
        return self._evaluated_net

    def start_from(self, path: str, *, scope: str = "", source_scope: str | None = None) -> None:
        """Initializes weights from a checkpoint; variables that do not match stay random and are listed in the log.

        Args:
            path: see `checkpoint.find`.
            scope: prefix of the variable names to load; "" for all.
            source_scope: the corresponding prefix in the checkpoint; None for the same.

        Raises:
            CheckpointError: if hardly any variable matches, or, with skip_mismatch=False, if one does not.
        """
        partial = self.config.skip_mismatch
        with self.strategy.scope():
            checkpoint.restore(self.net, path, partial=partial, scope=scope, source_scope=source_scope)
            if self.average:
                self.average.reset()

    def state(self) -> dict[str, np.ndarray]:
        """Returns the values of all variables that training changes, by checkpoint entry."""
        return {name: self._local(variable).numpy() for name, variable in self.variables().items()}

    def resume(self, prefix: str, entries: Mapping[str, np.ndarray]) -> None:
        """Restores the state from a checkpoint.

        Args:
            prefix: prefix of the checkpoint, for messages.
            entries: values by checkpoint entry, as `state` returned them; others are ignored.

        Raises:
            CheckpointError: if an entry is missing or has another shape.
        """
        state = self.variables()
        for name, variable in state.items():
            value = entries.get(name)
            if value is None and name.startswith("training/"):
                continue  # a counter that the previous run did not need, such as the loss scale, starts fresh
            if value is None or value.shape != tuple(variable.shape):
                found = "no entry" if value is None else f"shape {list(value.shape)}"
                raise checkpoint.CheckpointError(
                    f"cannot resume from {prefix}: it has {found} for {name}, expected shape "
                    f"{variable.shape.as_list()}; use the model, num_classes, optimizer and moving_average_decay "
                    f"of that training run, or start a new one in another --model_dir with --ckpt={prefix}"
                )
        with self.strategy.scope():
            for name in state.keys() & entries.keys():
                state[name].assign(entries[name])
        logging.info("resuming from %s, step %d", prefix, self.step)

    def variables(self) -> dict[str, tf.Variable]:
        """Returns all variables by checkpoint entry; the names are the published ones."""
        state = checkpoint.named_variables(self.net)
        if self.average:
            for variable, average in zip(self.average.variables, self.average.averages):
                state[checkpoint.official_name(variable) + checkpoint.AVERAGE] = average
        counters = [self.global_step, *self.skipped_steps.saved, self.positives_average]
        others = [slot for slots in self.optimizer.slots.values() for slot in slots] + counters
        return state | {checkpoint.official_name(variable): variable for variable in others}

    def _local(self, value):
        """Returns the first local copy of a per-replica value."""
        return self.strategy.experimental_local_results(value)[0]

    def _check_batch_size(self) -> None:
        if self.num_replicas > 1 and self.config.gradient_accumulation_steps > 1 and self.config.is_training_bn:
            raise ValueError(
                f"gradient_accumulation_steps={self.config.gradient_accumulation_steps} over {self.num_replicas} "
                f"replicas needs is_training_bn=false, because TensorFlow cannot synchronize batch normalization "
                f"per micro-batch; set it, or leave gradient_accumulation_steps at 1"
            )
        count, what = self.num_replicas, f"{self.num_replicas} replicas"
        if self.config.gradient_accumulation_steps > 1:
            count *= self.config.gradient_accumulation_steps
            what += f" times gradient_accumulation_steps={self.config.gradient_accumulation_steps}"
        if self.batch_size % count:
            below = self.batch_size // count * count
            nearest = " or ".join(str(size) for size in (below, below + count) if size)
            raise ValueError(f"train_batch_size {self.batch_size} is not divisible by {what}; nearest: {nearest}")
