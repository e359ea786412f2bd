# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trainer: the network with its optimizer and moving average, and one step over them on any number of replicas."""

import functools
import math
import re
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import logging

from backbone.layers import BatchNormalization
from efficientdet import losses
from efficientdet.config import Config
from efficientdet.model import EfficientDetNet, build_anchors
from tf2.training import freezing
from tf2.training import optimizer as optimizer_lib
from tf2.weights import checkpoint

LOSS_SCALE = 2.0**15  # where dynamic loss scaling begins, unless the config says; doubled after GOOD_STEPS
GOOD_STEPS = 2000
STEP_METRICS = ("gradient_norm", "learning_rate", "skipped_steps")


class Trainer:
    """All that training changes: weights, optimizer slots, moving averages and the step.

    The loss is one function of the global batch, however many replicas share it: it is divided by the positives of
    all of them, gradients are summed up over the replicas before they are clipped, weight decay counts once.
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
    ):
        """Builds network and optimizer with random weights.

        Args:
            config: of the model and its training.
            batch_size: images a step, over all replicas; learning rates scale with it.
            steps_per_epoch: for what the config gives in epochs.
            seed: of what drop connect drops; step and seed alone decide it.
            strategy: of the replicas; None for one device.
            precision: Keras policy of the layers: float32, mixed_float16 or mixed_bfloat16.

        Raises:
            ValueError: if batch_size does not divide over replicas and micro-batches, or var_freeze_expr does not fit.
        """
        self.config = config
        self.seed = seed
        self.batch_size = batch_size
        self.strategy = strategy or tf.distribute.get_strategy()
        self.num_replicas = self.strategy.num_replicas_in_sync
        self.learning_rate = learning_rate(config, batch_size, steps_per_epoch)
        self._check_batch_size()
        with self.strategy.scope():
            policy = keras.mixed_precision.global_policy()
            keras.mixed_precision.set_global_policy(precision)
            try:
                self.net = EfficientDetNet(config, synchronized=self.num_replicas > 1)
            finally:
                keras.mixed_precision.set_global_policy(policy)
            self.anchors = tf.constant(build_anchors(config).boxes)
            make_optimizer = optimizer_lib.OPTIMIZERS[config.optimizer]
            self.optimizer = make_optimizer(self.net.trainable_variables, config.momentum)
            self.average = None
            if config.moving_average_decay:
                self.average = optimizer_lib.MovingAverage(self.net.weights, config.moving_average_decay)
            self.global_step = _counter("global_step")
            self.skipped_steps = _counter("training/skipped_steps")  # as their loss or gradients were not finite
            self.skipped_in_a_row = _counter("training/skipped_in_a_row")
            self.bad_gradient = _counter("training/bad_gradient")  # the first that was not finite, of self.trained
            self.positives_average = _counter("training/positives_average", 0.0)
            self.loss_scale = self.good_steps = None
            if precision == "mixed_float16":
                self.loss_scale = _counter("training/loss_scale", config.loss_scale or LOSS_SCALE)
                self.good_steps = _counter("training/good_steps")
        frozen = freezing.frozen_variables(self.net, config.var_freeze_expr)
        self.trained = [v for v in self.net.trainable_variables if v.ref() not in frozen]
        self.kernels = [v for v in self.trained if re.search(r"(kernel|weight):0$", v.name)]
        self.statistics = []
        for layer in self.net.submodules:
            if isinstance(layer, BatchNormalization):
                layer.batch_statistics &= layer.moving_mean.ref() not in frozen
                self.statistics += [layer.moving_mean, layer.moving_variance] if layer.batch_statistics else []
        self._evaluated_net = None

    @property
    def step(self) -> int:
        """Steps taken since the weights were random or loaded from another training."""
        return int(self._local(self.global_step).numpy())

    def distribute(self, make_dataset) -> tf.data.Dataset:
        """The batches of a step, for every replica its own.

        Args:
            make_dataset: (i, n, b) -> dataset of batches of b images for worker i of n; each replica of the worker
                takes one of them.

        Returns:
            A dataset, or what the strategy has for one; its elements are the arguments of `train_step`.
        """
        per_replica = self.batch_size // self.num_replicas
        return self.strategy.distribute_datasets_from_function(
            lambda context: make_dataset(context.input_pipeline_id, context.num_input_pipelines, per_replica)
        )

    @tf.function(autograph=False)  # which would take as long as all the rest of tracing
    def train_step(self, images: tf.Tensor, labels: Mapping) -> dict[str, tf.Tensor]:
        """One update of weights and averages.

        Where loss or gradients are not finite, the step counts, but changes nothing else: its batch is skipped.

        Args:
            images: [B, height, width, 3] float32, normalized; of each replica, where there are several.
            labels: as `InputReader.training` gives them.

        Returns:
            Scalars by name, over all replicas: loss and its parts, gradient_norm (after clipping), learning_rate, and
            skipped_steps, how many were skipped so far.
        """
        return self._step(images, labels)

    @tf.function(autograph=False)
    def train_steps(self, batches: Iterator, count: tf.Tensor) -> dict[str, tf.Tensor]:
        """Several updates without a return to Python between them.

        Args:
            batches: iterator over a dataset of `distribute`.
            count: [] int32, steps to take.

        Returns:
            As `train_step`, of the last step.
        """
        nothing = dict.fromkeys(self.metric_names, tf.constant(0.0))
        step = lambda i, _: (i + 1, self._step(*next(batches)))  # noqa: E731
        return tf.while_loop(lambda i, _: i < count, step, (0, nothing), parallel_iterations=1)[1]

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What `train_step` returns."""
        return (*self._loss_names, *STEP_METRICS)

    @property
    def _loss_names(self) -> tuple[str, ...]:
        """What `loss` returns."""
        return (*losses.names(loss_options(self.config)), "reg_l2_loss", "loss")

    def _step(self, images, labels):
        metrics = self.strategy.run(self._replica_step, args=(images, labels))
        return {name: self._local(metrics[name]) for name in self.metric_names}

    def _replica_step(self, images: tf.Tensor, labels: Mapping) -> dict[str, tf.Tensor]:
        """One step, as seen from one replica; what it returns and writes is the same on all of them."""
        replica = tf.distribute.get_replica_context()
        add_up = functools.partial(replica.all_reduce, tf.distribute.ReduceOp.SUM)
        step, rate = self.global_step.value(), self.learning_rate(self.global_step)
        undone = [*self.statistics, self.positives_average]  # they change before it is known whether the step counts
        before = [tf.identity(variable) for variable in undone]
        positives = add_up(tf.reduce_sum(labels["num_positives"]))
        parts, gradients = self._gradients(images, labels, self._normalizer(positives), self._draws(replica, step))
        parts, gradients = add_up(parts), add_up(gradients)
        if self.loss_scale is not None:
            gradients = [gradient / self.loss_scale for gradient in gradients]
        clipped = optimizer_lib.clip_gradients(gradients, self.config.clip_gradients_norm)
        counts = clipped.finite & tf.math.is_finite(parts["loss"])

        self.optimizer.apply(clipped.gradients, self.trained, rate=rate, step=step, counts=counts)
        for variable, value in zip(undone, before):
            variable.assign(tf.where(counts, variable, value))
        if self.average:
            self.average.update(step + 1, counts)
        self._count(counts, clipped.norms)
        skipped = tf.cast(self.skipped_steps, tf.float32)
        return {**parts, "gradient_norm": clipped.norm, "learning_rate": rate, "skipped_steps": skipped}

    def _count(self, counts: tf.Tensor, norms: tf.Tensor) -> None:
        """Brings counters and loss scale up to date; counts [] bool, and norms of all gradients before clipping."""
        self.global_step.assign_add(1)
        self.skipped_steps.assign_add(tf.cast(~counts, tf.int64))
        self.skipped_in_a_row.assign(tf.where(counts, tf.zeros([], tf.int64), self.skipped_in_a_row + 1))
        self.bad_gradient.assign(tf.argmax(tf.cast(~tf.math.is_finite(norms), tf.int32)))
        if self.loss_scale is not None:
            good = tf.where(counts, self.good_steps + 1, 0)
            grown = tf.where(good >= GOOD_STEPS, self.loss_scale * 2, self.loss_scale)
            self.loss_scale.assign(tf.where(counts, grown, tf.maximum(self.loss_scale / 2, 1)))
            self.good_steps.assign(good % GOOD_STEPS)

    def _normalizer(self, positives: tf.Tensor) -> tf.Tensor:
        """What losses are divided by; from the positive anchors of the global batch."""
        momentum = self.config.positives_momentum
        if momentum is None or momentum <= 0:  # below 0 asks for the positives of all replicas, which these are
            return positives + 1
        average = momentum * self.positives_average + (1 - momentum) * (positives + 1)
        self.positives_average.assign(average)
        return average

    def _draws(self, replica: tf.distribute.ReplicaContext, step: tf.Tensor) -> tf.Tensor:
        """Random numbers of drop connect for the images of a replica, as a function of seed and step."""
        seed = tf.stack([tf.constant(self.seed, tf.int64), step])
        draws = tf.random.stateless_uniform([self.batch_size, self.net.num_draws], seed)
        size = self.batch_size // self.num_replicas
        return tf.slice(draws, [replica.replica_id_in_sync_group * size, 0], [size, -1])

    def _gradients(self, images, labels, normalizer, draws) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """The parts of the loss that are a replica's own, and its gradients, times the loss scale."""
        count = self.config.gradient_accumulation_steps
        if count == 1:
            return self._micro_gradients(images, labels, normalizer, draws)
        batch = (images, labels, draws)
        micro_batches = tf.nest.map_structure(lambda x: tf.reshape(x, [count, -1, *x.shape[1:]]), batch)

        def add(i, sums):
            images, labels, draws = tf.nest.map_structure(lambda x: x[i], micro_batches)
            return i + 1, tf.nest.map_structure(tf.add, sums, self._micro_gradients(images, labels, normalizer, draws))

        parts = dict.fromkeys(self._loss_names, tf.zeros([]))
        zeros = parts, [tf.zeros(variable.shape) for variable in self.trained]
        # One after the other, or the memory of all of them would be needed at once.
        return tf.while_loop(lambda i, _: i < count, add, (0, zeros), parallel_iterations=1)[1]

    def _micro_gradients(self, images, labels, normalizer, draws):
        share = 1 / (self.num_replicas * self.config.gradient_accumulation_steps)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.trained)
            parts = self.loss(images, labels, normalizer=normalizer, draws=draws, share=share)
            loss = parts["loss"] if self.loss_scale is None else parts["loss"] * self.loss_scale
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
        """The training loss and its parts: detection losses plus weight decay.

        Args:
            images: as `train_step`.
            labels: as `train_step`.
            normalizer: [] float32: positive anchors of the global batch plus 1.
            draws: see `EfficientDetNet`.
            share: of the weight decay that is added; the shares of all who add one make 1.
        """
        cls_outputs, box_outputs = self.net(images, training=True, draws=draws)
        parts = losses.detection_loss(
            cls_outputs,
            box_outputs,
            labels,
            options=loss_options(self.config),
            anchors=self.anchors,
            normalizer=normalizer,
        )
        squares = tf.reduce_sum([tf.nn.l2_loss(kernel) for kernel in self.kernels])  # of none, where all are frozen: 0
        decay = self.config.weight_decay * share * squares
        return {**parts, "reg_l2_loss": decay, "loss": parts["det_loss"] + decay}

    def any_worker(self, wish: bool) -> bool:
        """Whether any of the machines has a wish; all of them have to ask at the same point."""
        return self._sum_over_replicas(float(wish)) > 0

    def all_agree(self, number: int) -> bool:
        """Whether all machines have the same number; all of them have to ask at the same point."""
        here = float(number) * self.num_replicas
        return not self.any_worker(self._sum_over_replicas(float(number)) != here)

    def _sum_over_replicas(self, value: float) -> float:
        return float(self._local(self._add_up_all(tf.constant(value, tf.float32))))

    @tf.function(autograph=False)
    def _add_up_all(self, value):
        def add_up(value):
            # identity: each replica has to come with a tensor of its own.
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))

        return self.strategy.run(add_up, args=(value,))

    def summary(self) -> str:
        """One line for the log: what trains where."""
        config, per_replica = self.config, self.batch_size // self.num_replicas
        parts = f" in {config.gradient_accumulation_steps} parts" if config.gradient_accumulation_steps > 1 else ""
        frozen = len(self.net.trainable_variables) - len(self.trained)
        has_strategy = self.strategy is not tf.distribute.get_strategy()
        devices = f"{type(self.strategy).__name__} of {self.num_replicas} replicas" if has_strategy else "one device"
        return (
            f"{devices}, {self.batch_size} images a step "
            f"({per_replica} a replica{parts}), learning rate {self.learning_rate.base_rate:g} "
            f"(learning_rate {config.learning_rate:g} at {optimizer_lib.REFERENCE_BATCH_SIZE} images a step), "
            f"precision {self.net.dtype_policy.name}, {len(self.trained)} variables to train, {frozen} frozen"
        )

    def num_bytes(self) -> int:
        """Size of a checkpoint."""
        return sum(variable.dtype.size * variable.shape.num_elements() for variable in self._state().values())

    def num_skipped_in_a_row(self) -> int:
        """How many of the last steps were skipped."""
        return int(self._local(self.skipped_in_a_row).numpy())

    def scales_down(self) -> bool:
        """Whether steps are skipped because float16 overflows, and the loss scale still has a way to go down."""
        return self.loss_scale is not None and float(self._local(self.loss_scale)) > 1

    def what_is_not_finite(self, metrics: Mapping[str, float]) -> str:
        """Names what made the last step be skipped, and the likely reason; metrics are those of that step."""
        parts = [name for name in metrics if name.endswith("_loss") and not math.isfinite(metrics[name])]
        if parts:
            what = f"{' and '.join(parts)} {'is' if len(parts) == 1 else 'are'} not finite"
            cause = "learning_rate is too high, lr_warmup_epoch too short, or --ckpt holds broken weights"
        else:
            variable = self.trained[int(self._local(self.bad_gradient).numpy())]
            what = f"the gradient of {variable.name} is not finite, while the loss is {metrics['loss']:.4g}"
            cause = "the gradients explode: lower learning_rate, or clip_gradients_norm where it was raised"
        return f"{what} (most likely {cause})"

    def evaluated_net(self) -> EfficientDetNet:
        """A network of one device with the weights to evaluate and ship: the averages, if there are any.

        It is the same one each time, with other values.
        """
        if self._evaluated_net is None:
            self._evaluated_net = EfficientDetNet(self.config)
        sources = self.average.averages if self.average else self.net.weights
        for variable, source in zip(self._evaluated_net.weights, sources, strict=True):
            variable.assign(self._local(source))
        return self._evaluated_net

    def start_from(self, path: str, *, scope: str = "", source_scope: str | None = None) -> None:
        """Loads weights to begin a training with; what does not fit stays random, and is listed.

        Args:
            path: see `checkpoint.find`.
            scope: first part of the variable names to load; "" for all.
            source_scope: what the checkpoint has in its place; None for the same.

        Raises:
            CheckpointError: if next to nothing fits, or something does not and skip_mismatch is off.
        """
        partial = self.config.skip_mismatch
        with self.strategy.scope():
            checkpoint.restore(self.net, path, partial=partial, scope=scope, source_scope=source_scope)
            if self.average:
                self.average.reset()

    def state(self) -> dict[str, np.ndarray]:
        """All that training changes, by its entry in a checkpoint."""
        return {name: self._local(variable).numpy() for name, variable in self._state().items()}

    def resume(self, prefix: str, entries: Mapping[str, np.ndarray]) -> None:
        """Takes all state from a checkpoint.

        Args:
            prefix: of the checkpoint, for messages.
            entries: what `state` gave, and maybe others.

        Raises:
            CheckpointError: if the checkpoint lacks any state, or holds it in another shape.
        """
        state = self._state()
        for name, variable in state.items():
            value = entries.get(name)
            if value is None and name.startswith("training/"):
                continue  # a counter that the run before did without, such as the loss scale, begins where it begins
            if value is None or value.shape != tuple(variable.shape):
                has = "nothing" if value is None else list(value.shape)
                raise checkpoint.CheckpointError(
                    f"cannot continue from {prefix}: it holds {has} for {name}, this training needs "
                    f"{variable.shape.as_list()}; use the model, num_classes, optimizer and moving_average_decay "
                    f"that it began with, or start anew in another --model_dir with --ckpt={prefix}"
                )
        with self.strategy.scope():
            for name in state.keys() & entries.keys():
                state[name].assign(entries[name])
        logging.info("continuing from %s, step %d", prefix, self.step)

    def _state(self) -> dict[str, tf.Variable]:
        """Every variable by its entry in a checkpoint; the names are the published ones."""
        state = checkpoint.named_variables(self.net)
        if self.average:
            for variable, average in zip(self.average.variables, self.average.averages):
                state[checkpoint.official_name(variable) + checkpoint.AVERAGE] = average
        counters = [self.global_step, self.skipped_steps, self.skipped_in_a_row, self.positives_average]
        counters += [self.loss_scale, self.good_steps] if self.loss_scale is not None else []
        others = [slot for slots in self.optimizer.slots.values() for slot in slots] + counters
        return state | {checkpoint.official_name(variable): variable for variable in others}

    def _local(self, value):
        """The first copy of a value on this machine, where there is one for each replica."""
        return self.strategy.experimental_local_results(value)[0]

    def _check_batch_size(self) -> None:
        if self.num_replicas > 1 and self.config.gradient_accumulation_steps > 1 and self.config.is_training_bn:
            raise ValueError(
                f"gradient_accumulation_steps={self.config.gradient_accumulation_steps} over {self.num_replicas} "
                f"replicas needs is_training_bn=false, as TensorFlow cannot gather the statistics of batch "
                f"normalization part by part; set it, or leave gradient_accumulation_steps at 1"
            )
        count, what = self.num_replicas, f"{self.num_replicas} replicas"
        if self.config.gradient_accumulation_steps > 1:
            count *= self.config.gradient_accumulation_steps
            what += f" times gradient_accumulation_steps={self.config.gradient_accumulation_steps}"
        if self.batch_size % count:
            below = self.batch_size // count * count
            nearest = " or ".join(str(size) for size in (below, below + count) if size)
            raise ValueError(f"train_batch_size {self.batch_size} does not divide over {what}; nearest: {nearest}")


def _counter(name: str, value: float = 0) -> tf.Variable:
    """A scalar that every replica keeps for itself, all alike."""
    return tf.Variable(
        value,
        dtype=tf.int64 if isinstance(value, int) else tf.float32,
        trainable=False,
        name=name,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def learning_rate(config: Config, batch_size: int, steps_per_epoch: int) -> optimizer_lib.LearningRate:
    """The schedule of a config: epochs become steps, and rates scale with the batch."""
    scale = batch_size / optimizer_lib.REFERENCE_BATCH_SIZE
    drops = (config.first_lr_drop_epoch, config.second_lr_drop_epoch)
    return optimizer_lib.LearningRate(
        config.lr_decay_method,
        config.learning_rate * scale,
        total_steps=config.num_epochs * steps_per_epoch,
        warmup_init=config.lr_warmup_init * scale,
        warmup_steps=int(config.lr_warmup_epoch * steps_per_epoch),
        drop_steps=[int(epoch * steps_per_epoch) for epoch in drops],
        power=config.poly_lr_power,
    )


def loss_options(config: Config) -> losses.LossOptions:
    """The part of a config that losses need."""
    return losses.LossOptions(**{name: getattr(config, name) for name in losses.LossOptions._fields})
