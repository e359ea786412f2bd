# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""JAX's side of openxla.py: runs exported programs on any device of JAX, and compiles them for absent TPUs.

It needs requirements-openxla.txt, and of this repository only stablehlo.py.
"""

import dataclasses
import math
import multiprocessing
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
from jax.experimental import topologies
from jaxlib.mlir.dialects import stablehlo as dialect

from tf2.benchmarks import stablehlo
from tf2.benchmarks.stablehlo import Program

jax.config.update("jax_enable_x64", True)  # the step counter is int64

WARM_UP = 3  # runs before the timed ones
# Largest deviation from TensorFlow, see `stablehlo.deviations`, by precision. In 16 bits it is that of the results
# alone, because rounding dominates the gradients of random weights.
TOLERANCES = {"float32": 0.01, "float16": 0.05, "bfloat16": 0.1}
GB = 10**9
POLL_SECONDS = 0.5
REASON_LENGTH = 300  # characters
EXPORT_PLATFORMS = {"gpu": "cuda"}  # of jax.export, by platform of the device
# Files of XLA's dump: the memory of a program, and one that is written after it.
MEMORY_REPORT, AFTER_MEMORY_REPORT = "*.after_optimizations-memory-usage-report.txt", "*.after_optimizations.txt"
_HBM = re.compile(r"Memory Space: default .*\nTotal bytes: (\d+)")


def run(folder: Path, names: Sequence[str], *, runs: int, tolerance: float | None = None) -> Iterator[str]:
    """Runs programs on JAX's default device; yields the lines of a report.

    Args:
        folder: folder of an export.
        names: programs to run; empty for all of the folder.
        runs: timed runs, after WARM_UP others.
        tolerance: largest deviation from TensorFlow; None for that of the precision in TOLERANCES.

    Raises:
        ValueError: if the folder is not an export, or at the end if a program deviates more.
    """
    about = stablehlo.read_manifest(folder)
    device = jax.devices()[0]
    yield f"{_describe(about)}; JAX {jax.__version__} on {device.device_kind} ({device.platform})"
    tolerance = TOLERANCES[about["precision"]] if tolerance is None else tolerance
    failed = []
    for program in _programs(folder, about, names):
        arrays = stablehlo.read_arrays(folder, program)
        if arrays is None:
            raise ValueError(f"{folder} has no inputs; export it without --expected=false")
        call = compile_program(program, device)
        outputs, state = step(call, program, [jax.device_put(array, device) for array in arrays[0]])
        found = stablehlo.deviations(program, *arrays, outputs)
        seconds = statistics.median(_time(call, program, state, runs))
        speed = about["batch_size"] / seconds
        yield f"{program.name}: {1000 * seconds:.2f} ms, {speed:.1f} images/s (median of {runs})"
        if missing := [x.name for x, value in zip(program.outputs, arrays[1]) if value is None]:
            yield f"  not compared: {', '.join(missing)}"
        for what, deviation in found.items():
            name, worst = max(deviation.items(), key=_nan_last, default=("", 0.0))
            is_checked = what == "results" or about["precision"] == "float32"
            failed += [f"{what} of {program.name}"] if is_checked and not worst <= tolerance else []
            if deviation:
                yield f"  {what} deviate from TensorFlow by {worst:.2g} at most, in {name}"
    if failed:
        raise ValueError(
            f"{', '.join(failed)} deviate by more than {tolerance:g} from TensorFlow; as GPUs and TPUs may round the "
            "inputs of float32 convolutions, --tolerance can be raised there"
        )


def compile_for(folder: Path, names: Sequence[str], topology: str, *, memory_only: bool = False) -> Iterator[str]:
    """Compiles programs for one device of a TPU that need not be there; yields the lines of a report.

    Args:
        folder, names: see `run`.
        topology: name of TPU and its layout, such as v5e:2x2 or v4:2x2x1.
        memory_only: ends a compilation when the memory is known, see `required_memory`.

    Raises:
        ValueError: if the folder is not an export, libtpu is missing or does not know the topology, or at the end if
            a program does not compile, which includes that it does not fit into the memory.
    """
    about = stablehlo.read_manifest(folder)
    device = find_device(topology)
    yield f"{_describe(about)}; JAX {jax.__version__}, compiled for one {device.device_kind} of {topology}"
    failed = []
    for program in _programs(folder, about, names):
        begin = time.perf_counter()
        try:
            if memory_only:
                required = required_memory(program, topology)
                yield f"{program.name}: {required / GB:.3f} GB of HBM per device, without code"
                continue
            compiled = compile_program(program, device)
        except (jax.errors.JaxRuntimeError, CompilationError) as error:
            failed.append(program.name)
            yield f"{program.name}: {_reason(error)}"
            continue
        yield f"{program.name}: compiled in {time.perf_counter() - begin:.0f} s"
        yield from _report(compiled)
    if failed:
        raise ValueError(f"{' and '.join(failed)} cannot be compiled for {device.device_kind}")


def find_device(topology: str) -> jax.Device:
    """Returns the first device of a TPU topology; raises ValueError, see `compile_for`."""
    # On a v4, JAX and TensorFlow use both cores of a chip as one device; libtpu would describe them as two.
    options = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    try:
        return topologies.get_topology_desc(topology, platform="tpu", **options).devices[0]
    except Exception as error:  # of several types: libtpu is missing or of another version, the name is unknown
        raise ValueError(
            f"no TPU topology {topology!r} ({_reason(error)}); expected a name such as v5e:2x2 or v4:2x2x1, and the "
            "package libtpu of requirements-openxla.txt"
        ) from error


class CompilationError(RuntimeError):
    """Error message of a compiler in another process."""


def required_memory(program: Program, topology: str) -> int:
    """Returns the bytes of HBM that arguments, outputs and temporaries of a program take on one device.

    XLA writes them when all operations are scheduled. The process that compiles is then killed, because generating
    code takes nine tenths of the time.

    Raises:
        CompilationError: if the program does not compile, which includes that it does not fit into the memory.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as dump:
        process = context.Process(target=_compile_and_dump, args=(program, topology, dump, sender), daemon=True)
        process.start()
        sender.close()  # the other end alone, so that its death is an EOFError
        try:
            while not any(Path(dump).glob(AFTER_MEMORY_REPORT)):
                if receiver.poll(POLL_SECONDS):
                    raise CompilationError(receiver.recv())
        except EOFError:
            process.join()
            raise CompilationError(f"the compiler ended with exit code {process.exitcode}") from None
        finally:
            process.kill()
            process.join()
        [report] = Path(dump).glob(MEMORY_REPORT)
        return int(_HBM.search(report.read_text(encoding="utf-8"))[1])


def _compile_and_dump(program: Program, topology: str, dump: str, sender: Connection) -> None:
    """Compiles a program in a process of its own; sends an error message."""
    try:
        compile_program(program, find_device(topology), xla_dump_to=dump, xla_dump_hlo_as_text=True)
    except jax.errors.JaxRuntimeError as error:
        sender.send(str(error))


def compile_program(program: Program, device: jax.Device, **options: Any) -> jax.stages.Compiled:
    """Compiles a program for one device, with options of XLA.

    Inputs that it updates are donated, as their new values replace them.
    """
    sharding = jax.sharding.SingleDeviceSharding(device)
    inputs = [jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=sharding) for each in program.inputs]
    platform = EXPORT_PLATFORMS.get(device.platform, device.platform)
    function = jax.jit(as_function(program, platform), donate_argnums=sorted(program.updates.values()))
    return function.lower(*inputs).compile(compiler_options=options)


def as_function(program: Program, platform: str) -> Callable:
    """Returns a program as a function of JAX arrays.

    JAX exports a placeholder with the same inputs and outputs, whose StableHLO is then exchanged.
    """
    placeholder = jax.jit(lambda *_: tuple(jnp.zeros(x.shape, x.dtype) for x in program.outputs), keep_unused=True)
    inputs = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in program.inputs]
    exported = jax.export.export(placeholder, platforms=[platform])(*inputs)
    portable = dialect.serialize_portable_artifact_str(program.text, dialect.get_current_version())
    return dataclasses.replace(exported, mlir_module_serialized=portable).call


def step(call: Callable, program: Program, state: Sequence[jax.Array]) -> tuple[Sequence[jax.Array], list[jax.Array]]:
    """Runs a program and waits for it; returns its outputs, and its inputs with updated variables."""
    outputs = jax.block_until_ready(call(*state))
    state = list(state)
    for output, parameter in program.updates.items():
        state[parameter] = outputs[output]
    return outputs, state


def _time(call: Callable, program: Program, state: Sequence[jax.Array], runs: int) -> list[float]:
    """Returns the seconds of each of several runs after a warm-up; each run continues with the updated variables."""
    seconds = []
    for _ in range(WARM_UP + runs):
        begin = time.perf_counter()
        _, state = step(call, program, state)
        seconds.append(time.perf_counter() - begin)
    return seconds[WARM_UP:]


def _nan_last(item: tuple[str, float]) -> float:
    """Key of a deviation that sorts NaN as the largest."""
    return math.inf if math.isnan(item[1]) else item[1]


def _reason(error: Exception) -> str:
    """Formats the first part of an error message of XLA as one line."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return reason if len(reason) <= REASON_LENGTH else f"{reason[: REASON_LENGTH - 3]}..."


def _report(compiled: jax.stages.Compiled) -> Iterator[str]:
    """Formats memory and cost of a compiled program."""
    memory = compiled.memory_analysis()
    arguments = memory.argument_size_in_bytes
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes  # beyond those in place of arguments
    sizes = {
        "arguments": arguments,
        "outputs": outputs,
        # Not temp_size_in_bytes, which for TPUs is not what XLA compares with the memory that there is.
        "temporaries": memory.total_allocation_bytes - arguments - outputs,
        "code": memory.generated_code_size_in_bytes,
    }
    parts = ", ".join(f"{name} {size / GB:.3f}" for name, size in sizes.items())
    yield f"  HBM per device: {sum(sizes.values()) / GB:.3f} GB ({parts})"
    cost = compiled.cost_analysis()
    yield f"  per run: {cost['flops'] / 1e9:.1f} GFLOP, {cost['bytes accessed'] / GB:.2f} GB of memory traffic"


def _programs(folder: Path, about: Mapping[str, Any], names: Sequence[str]) -> Iterator[Program]:
    """Reads the named programs, or all; raises ValueError before the first one if one does not exist."""
    stored = about["programs"]
    if missing := [name for name in names if name not in stored]:
        raise ValueError(f"{folder} has no program {missing[0]!r}; it has {', '.join(stored)}")
    return (stablehlo.read(folder, name, stored[name]) for name in names or stored)


def _describe(about: Mapping[str, Any]) -> str:
    """Formats model, batch and origin of an export."""
    size = "x".join(map(str, about["image_size"][::-1]))
    return (
        f"{about['model_name']}, {size} pixels, batch size {about['batch_size']}, {about['precision']}, "
        f"exported by TensorFlow {about['tensorflow']}"
    )
