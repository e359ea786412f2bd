# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's side of openxla.py: writes network, training step and evaluation step as StableHLO."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras

from backbone import layers
from dataset.files import atomic_path, check_target, reason_of
from efficientdet.config import Config
from efficientdet.model import EfficientDetModel
from tf2.benchmarks import random_batch, stablehlo
from tf2.evaluation import evaluator
from tf2.training.trainer import Trainer

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
STEPS_PER_EPOCH = 1000  # of the learning-rate schedule
# Outputs without expected values: random weights give many boxes nearly the same score, and rounding orders them.
NOT_COMPARED = ("boxes", "classes")


class Options(NamedTuple):
    """Options of the export."""

    programs: Sequence[str]  # keys of FUNCTIONS
    batch_size: int = 8
    precision: str = "float32"  # key of POLICIES
    expected: bool = True  # also runs the programs in TensorFlow, and stores inputs and outputs


def export(config: Config, folder: str, options: Options) -> Iterator[str]:
    """Writes the programs of a network with random weights; yields one line per program.

    Args:
        config: configuration of model and training.
        folder: folder to create, see `stablehlo`.
        options: see `Options`.

    Raises:
        TargetError: if the folder exists already and is not empty.
        ValueError: if this TensorFlow has no StableHLO, or XLA cannot compile a program.
    """
    check_target(folder)
    _check_tensorflow()
    keras.utils.set_random_seed(0)
    precision = POLICIES[options.precision]
    trainer = Trainer(config, batch_size=options.batch_size, steps_per_epoch=STEPS_PER_EPOCH, precision=precision)
    about = {
        "model_name": config.name,
        "image_size": config.image_size,
        "batch_size": options.batch_size,
        "precision": options.precision,
        "tensorflow": tf.__version__,
    }
    if options.expected:
        normalize_activations(trainer)
    programs = {}
    with atomic_path(folder) as unfinished:
        Path(unfinished).mkdir()
        for name in options.programs:
            function, arguments = FUNCTIONS[name](trainer, options.batch_size)
            program, captured = to_program(name, function, arguments, trainer.variables())
            arrays = run(program, function, arguments, captured) if options.expected else {}
            programs[name] = stablehlo.write(Path(unfinished), program, arrays)
            size = len(program.text) / 1e6
            yield f"{name}: {len(program.inputs)} inputs, {len(program.outputs)} outputs, {size:.1f} MB of StableHLO"
        stablehlo.write_manifest(Path(unfinished), {**about, "programs": programs})


def _check_tensorflow() -> None:
    """Raises ValueError if this TensorFlow does not write StableHLO."""
    ir = tf.function(lambda x: x, jit_compile=True).experimental_get_compiler_ir(tf.constant(0.0))
    try:
        ir(stage="stablehlo")
    except ValueError as error:
        raise ValueError(
            f"TensorFlow {tf.__version__} does not write StableHLO; export with Python 3.12 or 3.13, for which "
            "requirements.txt installs TensorFlow 2.20 or later"
        ) from error


def normalize_activations(trainer: Trainer) -> None:
    """Sets the statistics of batch normalization to those of random images.

    In inference, the outputs of random weights would otherwise hardly depend on the images, and show no errors.
    """
    images, _ = random_batch.random_batch(trainer.config, 2)
    normalizations = [layer for layer in trainer.net.submodules if isinstance(layer, layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normalizations]
    for layer in normalizations:
        layer.momentum = 0.0
    trainer.net(images, training=True)
    for layer, momentum in zip(normalizations, momenta):
        layer.momentum = momentum


def network(trainer: Trainer, batch_size: int) -> tuple[Callable, tuple]:
    """The network in inference, and its arguments."""
    images, _ = random_batch.random_batch(trainer.config, batch_size)
    return lambda images: trainer.net(images, training=False), (images,)


def training_step(trainer: Trainer, batch_size: int) -> tuple[Callable, tuple]:
    """The training step, and its arguments."""
    return trainer.train_step, random_batch.random_batch(trainer.config, batch_size)


def evaluation_step(trainer: Trainer, batch_size: int) -> tuple[Callable, tuple]:
    """Network and postprocessing as in an `Evaluator`, with static shapes; and its arguments."""
    nms_configs = trainer.config.nms_configs
    candidates = nms_configs.max_nms_inputs or evaluator.MAX_NMS_INPUTS
    config = trainer.config.override({"nms_configs": {"max_nms_inputs": candidates}})
    model = EfficientDetModel(config, trainer.net, post_mode="per_class_static", clip=False)
    images, _ = random_batch.random_batch(config, batch_size)
    return lambda *state: model.detect(*state)._asdict(), (images, tf.ones([batch_size, 4]))


FUNCTIONS = {"network": network, "training_step": training_step, "evaluation_step": evaluation_step}


def to_program(
    name: str, function: Callable, arguments: tuple, variables: Mapping[str, tf.Variable]
) -> tuple[stablehlo.Program, list[tf.Tensor]]:
    """Compiles a function to StableHLO.

    Args:
        name: name of the program.
        function: function of tensors and variables.
        arguments: its arguments, structures of tensors of known shapes.
        variables: names of variables.

    Returns:
        The program; and the tensors that the function captures, in the order of its inputs after the arguments:
        handles of variables, and constants.

    Raises:
        ValueError: if XLA has no kernel for an operation, or a shape is dynamic.
    """
    compiled = tf.function(function, autograph=False, jit_compile=True)
    concrete = compiled.get_concrete_function(*arguments)
    try:
        text = compiled.experimental_get_compiler_ir(*arguments)(stage="stablehlo")
    except (ValueError, tf.errors.OpError) as error:
        raise ValueError(f"XLA cannot compile {name}: {reason_of(error)}") from error
    names = {id(variable.handle): entry for entry, variable in variables.items()}
    captured = [names.get(id(tensor), f"captured_{i}") for i, tensor in enumerate(concrete.captured_inputs)]
    inputs, outputs = [*_names(arguments), *captured], _names(concrete.structured_outputs)
    return stablehlo.from_compiler_ir(name, text, inputs, outputs), concrete.captured_inputs


def _names(structure: Any, prefix: str = "") -> list[str]:
    """Names the tensors of a structure, in the order of tf.nest.flatten, by their keys and positions."""
    if isinstance(structure, Mapping):
        items = sorted(structure.items())
    elif isinstance(structure, Sequence):
        items = enumerate(structure)
    else:
        return [prefix or "result"]
    return [name for key, value in items for name in _names(value, f"{prefix}/{key}".lstrip("/"))]


def run(
    program: stablehlo.Program, function: Callable, arguments: tuple, captured: Sequence[tf.Tensor]
) -> dict[str, np.ndarray]:
    """Runs a function in TensorFlow without XLA.

    Args:
        program: the program of the function.
        function, arguments: see `to_program`.
        captured: second result of `to_program`; updates change the variables.

    Returns:
        Inputs and outputs of the program, see `stablehlo.read_arrays`.
    """
    inputs = [*tf.nest.flatten(arguments), *captured]

    def value(i: int) -> np.ndarray:
        if inputs[i].dtype == tf.resource:  # not a variable, because optimizers use handles alone
            return tf.raw_ops.ReadVariableOp(resource=inputs[i], dtype=program.inputs[i].dtype).numpy()
        return inputs[i].numpy()

    arrays = {f"in_{i}": value(i) for i in range(len(inputs))}
    results = iter(tf.nest.flatten(tf.function(function, autograph=False)(*arguments)))
    updates = program.updates
    outputs = [value(updates[i]) if i in updates else next(results).numpy() for i in range(len(program.outputs))]
    names = [each.name for each in program.outputs]
    return arrays | {f"out_{i}": array for i, array in enumerate(outputs) if names[i] not in NOT_COMPARED}
