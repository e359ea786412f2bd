# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Types, ranges and choices of config values: declaration, conversion and checks."""

import dataclasses
import difflib
import math
import numbers
import re
import reprlib
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from efficientdet.fpn_configs import FUSIONS


class ConfigError(ValueError):
    """An invalid config key or value; the message is one line."""


class Kind(NamedTuple):
    """A kind of value: its description in error messages, and a function that converts a value or raises."""

    expects: str
    read: Callable[[Any], Any]


def key(default: Any, within: str = "", *, choices: Collection[str] = (), kind: str = "") -> Any:
    """Declares a config key, as a dataclass field.

    Args:
        within: the interval of valid numbers, such as "[0, 1)"; "" for any.
        choices: the valid values; empty for any.
        kind: a row of KINDS; "" for the row named like the annotated type.
    """
    metadata = {"within": within, "choices": tuple(choices), "kind": KINDS[kind] if kind else None}
    return dataclasses.field(default=default, metadata=metadata)


def convert(field: dataclasses.Field, value: Any, prefix: str = "") -> Any:
    """Converts the value of a key to its type and checks it; idempotent.

    Args:
        field: the key, as declared by `key`.
        value: from the command line, YAML or Python; "" means None where None is allowed.
        prefix: path of the section of the key, for the error message.

    Raises:
        ConfigError: if the value is invalid; the message states the key, the expected and the given value.
    """
    types = typing.get_args(field.type) or (field.type,)
    within, choices = field.metadata.get("within"), field.metadata.get("choices")
    kind = field.metadata.get("kind") or KINDS[types[0].__name__]
    if type(None) in types and value in (None, ""):
        return None
    try:
        result = kind.read(value)
        if (choices and result not in choices) or (within and not all(_inside(within, n) for n in _flat(result))):
            raise ValueError
    except ConfigError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        expects = f"one of {', '.join(choices)}" if choices else kind.expects
        within, none = f" in {within}" if within else "", " or None" if type(None) in types else ""
        raise ConfigError(f"{prefix}{field.name} must be {expects}{within}{none}, got {reprlib.repr(value)}") from None
    return result


def nearest(word: Any, known: Mapping[str, str]) -> str:
    """Returns "; did you mean ...?" with the value of the most similar key, or "" if no key is similar.

    >>> nearest("lerning_rate", {"learning_rate": "learning_rate", "momentum": "momentum"})
    "; did you mean 'learning_rate'?"
    """
    close = difflib.get_close_matches(str(word).lower(), known, n=1)
    return f"; did you mean {known[close[0]]!r}?" if close else ""


def show_pair(key: Any, value: Any) -> str:
    """Formats an invalid pair of a label map for an error message; explains booleans, which YAML makes of words.

    >>> show_pair(2, True)
    '2: True; without quotes, yes, no, on and off are booleans'
    """
    hint = "; without quotes, yes, no, on and off are booleans" if bool in (type(key), type(value)) else ""
    return f"{key!r}: {value!r}{hint}"


def _inside(interval: str, number: float) -> bool:
    low, high = map(float, interval[1:-1].split(","))
    return (low < number < high) or (number == low and interval[0] == "[") or (number == high and interval[-1] == "]")


def _flat(value: Any) -> list:
    return [number for item in value for number in _flat(item)] if isinstance(value, tuple) else [value]


# The readers raise one of the errors that `convert` catches.


def _read_int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError
    return int(value)


def _read_float(value: Any) -> float:
    # Strings are accepted because YAML 1.1 reads 1e-3, which has no dot, as one.
    if isinstance(value, bool) or not isinstance(value, numbers.Real | str) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _read_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _read_str(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _items(value: Any) -> tuple:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError
    return tuple(value)


def _read_size(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        width, height = re.fullmatch(r"(\d+)(?:[xX](\d+))?", value.strip()).groups()
        return int(height or width), int(width)
    height, width = (value, value) if isinstance(value, numbers.Integral) else _items(value)
    return _read_int(height), _read_int(width)


def _read_rgb(value: Any) -> tuple[float, float, float]:
    red, green, blue = _items(value) if isinstance(value, list | tuple) else (value,) * 3
    return _read_float(red), _read_float(green), _read_float(blue)


def _read_ratios(value: Any) -> tuple[float | tuple[float, float], ...]:
    ratios = tuple(_read_scale(ratio) for ratio in _items(value))
    if any(isinstance(ratio, tuple) and len(ratio) != 2 for ratio in ratios):
        raise ValueError
    return ratios


def _read_scale(value: Any) -> float | tuple[float, ...]:
    return tuple(map(_read_float, _items(value))) if isinstance(value, list | tuple) else _read_float(value)


def _read_label_map(value: Any) -> str | dict:
    if isinstance(value, str):
        return value
    for class_id, name in value.items():
        if {type(class_id), type(name)} != {int, str}:
            raise ConfigError(
                f"label_map must pair whole numbers with names in quotes, got {show_pair(class_id, name)}"
            )
    return dict(value)


def _read_fpn_config(value: Any) -> dict[str, Any]:
    if value.keys() - {"nodes", "weight_method"} or value.get("weight_method") not in (None, *FUSIONS):
        raise ValueError
    nodes = []
    for node in _items(value["nodes"]):
        offsets = [_read_int(offset) for offset in _items(node["inputs_offsets"])]
        if node.keys() != {"feat_level", "inputs_offsets"} or min(offsets) < 0:
            raise ValueError
        nodes.append({"feat_level": _read_int(node["feat_level"]), "inputs_offsets": offsets})
    return {**value, "nodes": nodes}


KINDS = {
    "bool": Kind("true or false", _read_bool),
    "int": Kind("a whole number", _read_int),
    "float": Kind("a number", _read_float),
    "str": Kind("text", _read_str),
    "size": Kind('512, "1920x1280" (width x height) or [height, width]', _read_size),
    "rgb": Kind("a number or a list of three", _read_rgb),
    "ratios": Kind("a list of width/height ratios or [x, y] pairs", _read_ratios),
    "scale": Kind("a number or a list with one number per level", _read_scale),
    "label_map": Kind(
        "coco, voc, waymo, a .yaml, .json or .pbtxt file or a mapping such as {1: cat, 2: dog}", _read_label_map
    ),
    "fpn_config": Kind("{nodes: [{feat_level: 6, inputs_offsets: [3, 4]}, ...], weight_method: sum}", _read_fpn_config),
    "nms_method": Kind("text", lambda value: "hard" if value in (None, "") else _read_str(value)),
}
