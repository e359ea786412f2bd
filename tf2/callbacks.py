# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""What one sees of a training: a progress bar, TensorBoard's files, and a stop when the loss is lost."""

import math
import time
from collections.abc import Mapping

import tensorflow as tf
import tqdm
from absl import logging

PUBLISHED_TAGS = {"learning_rate": "lrn_rate", "gradient_norm": "clip/gradient_norm"}
REPORT_STEPS = 10  # from one look at the metrics to the next: each waits for the device


class Progress:
    """Bar and event file of one run; a context manager."""

    def __init__(self, model_dir: str, batch_size: int, step: int, last_step: int):
        """Shows an empty bar.

        Args:
            model_dir: gets the event file.
            batch_size: images a step.
            step: steps already taken.
            last_step: where the training ends.
        """
        self._batch_size = batch_size
        self._last_step = last_step
        self._metrics: Mapping[str, tf.Tensor] = {}
        self._step = self._counted = step
        self._counted_at = None
        self._writer = tf.summary.create_file_writer(model_dir)
        self._bar = tqdm.tqdm(
            total=last_step, initial=step, unit="step", desc="compiling the first step", smoothing=0.1
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error) -> None:
        self._bar.close()
        self._writer.close()

    def report(self, step: int, metrics: Mapping[str, tf.Tensor]) -> None:
        """Takes the metrics of a step; shows those of every tenth."""
        self._bar.update(step - self._step)
        self._step, self._metrics = step, metrics
        if step % REPORT_STEPS and step != self._last_step and self._counted_at is not None:
            return
        values = self.require_finite()
        now = time.monotonic()
        speed = self._batch_size * (step - self._counted) / (now - self._counted_at) if self._counted_at else 0.0
        self._counted, self._counted_at = step, now
        self._bar.set_description("training", refresh=False)
        self._bar.set_postfix_str(
            f"loss {values['loss']:.3f} (cls {values['cls_loss']:.3f}, box {values['box_loss']:.4f}), "
            f"rate {values['learning_rate']:.2g}, {speed:.1f} images/s"
        )
        with self._writer.as_default(step):
            for name, value in values.items():
                tf.summary.scalar(PUBLISHED_TAGS.get(name, f"trainloss/{name}"), value)

    def require_finite(self) -> dict[str, float]:
        """Metrics of the last step as numbers.

        Raises:
            FloatingPointError: if one of them is not finite.
        """
        values = {name: float(value) for name, value in self._metrics.items()}
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise FloatingPointError(
                f"{', '.join(bad)} is not finite at step {self._step} (last checked at {self._counted}); nothing of it "
                f"is saved: lower learning_rate or lengthen lr_warmup_epoch and run again"
            )
        return values

    def evaluated(self, step: int, results: Mapping[str, float]) -> None:
        """Records metrics of an evaluation."""
        with self._writer.as_default(step):
            for name, value in results.items():
                tf.summary.scalar(f"eval/{name}", value)
        self._counted, self._counted_at = step, time.monotonic()  # the pause was no training
        logging.info("step %d: %s", step, ", ".join(f"{name} = {value:.4f}" for name, value in results.items()))
