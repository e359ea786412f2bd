# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Readers of the text of --hparams: `k=v` pairs, YAML files and JSON files."""

import ast
import json
import os
import reprlib
from typing import Any

import yaml

from efficientdet.config_values import ConfigError


def read_hparams(hparams: str) -> dict[str, Any]:
    """Returns the overrides given by --hparams: "", a .yaml or .yml file, or `k=v` pairs.

    Raises:
        ConfigError: if the text is none of these, or the file cannot be read.

    Example:
        >>> read_hparams("image_size=1920x1280,nms_configs.method=hard")
        {'image_size': '1920x1280', 'nms_configs': {'method': 'hard'}}
    """
    hparams = hparams.strip()
    # "label_map=my.yaml" is a pair, unless a file of exactly that name exists.
    if hparams.endswith((".yaml", ".yml")) and ("=" not in hparams or os.path.isfile(hparams)):
        return read_yaml(hparams)
    if hparams and "=" not in hparams:
        raise ConfigError(f"hparams must be a file ending in .yaml or key=value pairs, got {hparams!r}")
    return parse_pairs(hparams)


class _Loader(yaml.SafeLoader):
    """Loads plain types only and rejects duplicate keys, of which PyYAML would silently use the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict:
    """Builds a JSON object and rejects duplicate keys."""
    keys = [key for key, _ in pairs]
    if duplicates := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"{duplicates[0]!r} is given twice")
    return dict(pairs)


def read_local(path: str) -> bytes:
    """Returns the content of a file; raises ConfigError if it is remote, or cannot be read."""
    if "://" in path:
        raise ConfigError(f"{path} must be on this machine; copy it here, and give the local path")
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def read_yaml(path: str) -> dict[Any, Any]:
    """Returns the mapping in a YAML or JSON file of plain types.

    Raises:
        ConfigError: if the file is missing or malformed, has a duplicate key, or does not contain a mapping.
    """
    content = read_local(path)
    is_json = path.endswith(".json")  # YAML rejects some JSON: tabs between tokens, escaped surrogate pairs
    try:
        values = json.loads(content, object_pairs_hook=_unique_keys) if is_json else yaml.load(content, _Loader)
    except RecursionError:
        raise ConfigError(f"{path}: its brackets are nested too deep") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an invalid date
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or error
        where = f"{path}, line {mark.line + 1}" if mark else path
        if "python/" in str(problem):
            raise ConfigError(f"{where}: tags such as !!python/tuple are not read; write a list, [1.4, 0.7]") from None
        kind = "JSON" if is_json else "YAML"
        raise ConfigError(f"{where} is not valid {kind}: {' '.join(str(problem).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, got {reprlib.repr(values)}")
    return values


def parse_pairs(text: str) -> dict[str, Any]:
    """Parses `k=v,nms_configs.method=hard,label_map={1: 'a', 2: 'b'}` into nested dicts.

    A comma inside brackets or quotes belongs to the value; a dot in a key starts a nested dict. Values are true,
    false, None, Python numbers, lists and mappings, lists of the form `1.0*2.0*0.5`, and mappings of the form
    `{1: traffic light, 2: can}`; anything in quotes, and anything else, is a string.

    Raises:
        ConfigError: for a pair without "=", a key given twice, or an unbalanced bracket or quote.

    Example:
        >>> parse_pairs("learning_rate=0.01,label_map={1: traffic light, 2: can}")
        {'learning_rate': 0.01, 'label_map': {1: 'traffic light', 2: 'can'}}
    """
    values = {}
    for piece in filter(None, map(str.strip, _split(text))):
        path, equals, value = piece.partition("=")
        *sections, key = (part.strip() for part in path.split("."))
        if not equals or not key or not all(sections):
            raise ConfigError(f"{piece!r} is not key=value; write a list in brackets, as in aspect_ratios=[1.0, 2.0]")
        target = values
        for section in sections:
            target = target.setdefault(section, {}) if isinstance(target, dict) else None
        if not isinstance(target, dict) or key in target:
            raise ConfigError(f"{path.strip()} is given twice in {text!r}")
        target[key] = _parse_value(path.strip(), value.strip())
    return values


def _split(text: str) -> list[str]:
    """Splits at the commas outside brackets and quotes."""
    pieces, start, depth, quote = [], 0, 0, ""
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote and text[i - 1] != "\\" else quote
        elif char in "'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth == 0:
            pieces.append(text[start:i])
            start = i + 1
        if depth < 0:
            break
    if depth or quote:
        raise ConfigError(f"unbalanced {'quote' if quote else 'bracket'} in {text!r}; put the value in quotes")
    return [*pieces, text[start:]]


def _parse_value(key: str, value: str) -> Any:
    words = {"true": True, "false": False, "none": None, "null": None}
    if value.lower() in words:
        return words[value.lower()]
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    if value.lower().startswith("0x"):  # an image size of width 0, not a hexadecimal number
        return value
    for parts in ([value], value.split("*")):
        try:
            trees = [ast.parse(part.strip(), mode="eval") for part in parts]
            parsed = [ast.literal_eval(tree) for tree in trees]
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        for node in ast.walk(trees[0]):
            keys = [ast.dump(item) for item in node.keys] if isinstance(node, ast.Dict) else []
            if len(set(keys)) < len(keys):
                raise ConfigError(f"{key}={value} has a duplicate key; remove one of them")
        return parsed if len(parts) > 1 else parsed[0]
    if value.startswith("{") and value.endswith("}"):
        return _parse_mapping(key, value)
    if value.startswith(("[", "{")):
        raise ConfigError(f"{key}={value} cannot be parsed; inside brackets, text needs quotes, as in ['a', 'b']")
    return value


def _parse_mapping(key: str, text: str) -> dict:
    """Parses a mapping with text that is not in quotes, such as {1: traffic light, 2: can}."""
    mapping = {}
    for piece in filter(None, map(str.strip, _split(text[1:-1]))):
        name, _, value = (part.strip() for part in piece.partition(":"))
        name = _parse_value(key, name) if value else None
        if not isinstance(name, int | str) or name == "":
            raise ConfigError(f"{key}={text} cannot be parsed: {piece!r} is not a pair such as 1: cat")
        if name in mapping:
            raise ConfigError(f"{key}={text} has a duplicate key; remove one of them")
        mapping[name] = _parse_value(key, value)
    return mapping
