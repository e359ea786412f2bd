# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Label maps: names of class ids, built in for COCO, VOC and Waymo, or defined by the user; names that look alike."""

import collections
import re
import unicodedata
from collections.abc import Mapping

from efficientdet import config as config_lib
from efficientdet import config_values, hparams

PBTXT_TEXT = r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*\""""
PBTXT_ITEM = re.compile(rf"""item\s*:?\s*\{{((?:[^'"{{}}]|{PBTXT_TEXT})*)\}}""")
PBTXT_ID = re.compile(r"\bid\s*:\s*(\d+)")
PBTXT_NAME = re.compile(rf"\bname\s*:\s*({PBTXT_TEXT})")
SIMILAR_NAMES = "classes whose names differ only in case, spaces, hyphens or underscores"
SIMILAR_NAMES_ADVICE = "if they are one class, give it one name in the annotations and convert them again"


class LabelMapError(ValueError):
    """An invalid label map; the message states the problem."""


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]


_COCO_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote,
keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush
"""
_VOC_NAMES = """
aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike, person,
pottedplant, sheep, sofa, train, tvmonitor
"""
_COCO_IDS = sorted({*range(1, 91)} - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
COCO = dict(zip(_COCO_IDS, _split(_COCO_NAMES), strict=True))
VOC = dict(enumerate(_split(_VOC_NAMES), start=1))
WAYMO = {1: "vehicle", 2: "pedestrian", 3: "cyclist"}
LABEL_MAPS = {"coco": COCO, "voc": VOC, "waymo": WAYMO}


def resolve(label_map: str | Mapping | None) -> dict[int, str]:
    """Returns the class names of a `label_map` config value.

    Args:
        label_map: None; "coco", "voc" or "waymo"; a mapping {id: name} or {name: id}; or the path of a .yaml or .json
            file with such a mapping, or of a .pbtxt file of `item { id: 1 name: 'cat' }`. Ids start at 1; an entry of
            0 must be "background" and is removed.

    Returns:
        {id: name}, sorted by id; empty for None.

    Raises:
        LabelMapError: for an unknown name, an unreadable file, or an invalid or duplicate id or name.

    Example:
        >>> resolve("voc")[1]
        'aeroplane'
        >>> resolve({"dog": 2, "cat": 1})
        {1: 'cat', 2: 'dog'}
    """
    if label_map is None:
        return {}
    if isinstance(label_map, Mapping):
        return _parse(label_map, "label_map")
    if label_map in LABEL_MAPS:
        return dict(LABEL_MAPS[label_map])
    if label_map.endswith(".pbtxt"):
        return _parse(_read_pbtxt(label_map), label_map)
    if not label_map.endswith((".yaml", ".yml", ".json")):
        close = config_lib.nearest(label_map, {name: name for name in LABEL_MAPS})
        raise LabelMapError(f"label_map {label_map!r} is not coco, voc, waymo or a .yaml, .json or .pbtxt file{close}")
    try:
        return _parse(hparams.read_yaml(label_map), label_map)  # JSON is YAML
    except config_lib.ConfigError as error:
        raise LabelMapError(f"label_map: {error}") from None


def spelling_key(name: str) -> str:
    """Returns the same text for names that differ only in case, spaces, hyphens or underscores.

    >>> spelling_key("Traffic_Light") == spelling_key("traffic light")
    True
    """
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name).strip()).casefold()


def is_background(name: str) -> bool:
    """Returns True for "background" and other spellings of it, such as "_background_".

    >>> is_background("__background__")
    True
    """
    return spelling_key(name).strip() == "background"


def show_similar(names: Mapping[int, str], num_boxes: Mapping[int, int]) -> list[str]:
    """Returns every group of classes with the same `spelling_key`, with their numbers of boxes.

    Args:
        names: {id: name}.
        num_boxes: number of boxes per id; 0 for ids that it lacks.

    Example:
        >>> show_similar({1: "Dog", 2: "dog", 3: "cat"}, {1: 5, 2: 1})
        ["1 'Dog' on 5 boxes, 2 'dog' on 1 boxes"]
    """
    groups = collections.defaultdict(list)
    for class_id, name in sorted(names.items()):
        groups[spelling_key(name)].append(f"{class_id} {name!r} on {num_boxes.get(class_id, 0)} boxes")
    return [", ".join(group) for group in groups.values() if len(group) > 1]


def name_of(names: Mapping[int, str], class_id: float) -> str:
    """Returns the name of a class, or its id if it has none; accepts ids of any numeric type.

    >>> name_of({1: "cat"}, 1), name_of({1: "cat"}, 7)
    ('cat', 'class 7')
    """
    return names.get(int(class_id), f"class {int(class_id)}")


def on_one_line(name: str) -> str:
    """Returns a name with spaces for its line breaks.

    >>> on_one_line("red\\ncell")
    'red cell'
    """
    return " ".join(name.splitlines())


def check(names: Mapping[int, str], num_classes: int) -> None:
    """Checks that all ids of a label map are within num_classes, the number of class logits.

    Raises:
        LabelMapError: if an id is above num_classes; the message states the num_classes needed.

    Example:
        >>> check({1: "cat", 5: "dog"}, num_classes=3)
        Traceback (most recent call last):
            ...
        dataset.label_map.LabelMapError: label_map has id 5 ('dog') but num_classes is 3; set num_classes to 5 or more
    """
    largest = max(names, default=0)
    if largest > num_classes:
        raise LabelMapError(
            f"label_map has id {largest} ({names[largest]!r}) but num_classes is {num_classes}; "
            f"{config_lib.num_classes_advice(largest)}"
        )


def _read_pbtxt(path: str) -> dict[int, str]:
    """Reads a label map in the text format of protocol buffers, which the TensorFlow Object Detection API uses."""
    try:
        text = re.sub(r"^\s*#.*$", "", hparams.read_local(path).decode("utf-8-sig"), flags=re.MULTILINE)
    except config_lib.ConfigError as error:
        raise LabelMapError(f"label_map: {error}") from None
    except UnicodeDecodeError as error:
        raise LabelMapError(f"label_map: cannot read {path}: {error}") from None
    names: dict[int, str] = {}
    for item in PBTXT_ITEM.findall(text):
        class_id, name = PBTXT_ID.search(item), PBTXT_NAME.search(item)
        if not class_id or not name or int(class_id[1]) in names:
            shown = " ".join(item.split())[:80]
            raise LabelMapError(f"{path}: expected an id of its own and a name in every item, got {{ {shown} }}")
        try:
            names[int(class_id[1])] = _unescape(name[1][1:-1])
        except UnicodeError:
            raise LabelMapError(f"{path}: name {name[1]} has invalid escape sequences; write it in UTF-8") from None
    if not names or PBTXT_ITEM.sub("", text).strip():
        raise LabelMapError(f"{path}: expected nothing but items such as item {{ id: 1 name: 'cat' }}")
    return names


def _unescape(text: str) -> str:
    """Replaces escape sequences, of which protocol buffers write one per byte of other characters than ASCII."""
    return text.encode().decode("unicode_escape").encode("latin-1").decode()


def _parse(mapping: Mapping, source: str) -> dict[int, str]:
    """Converts {name: id} to {id: name} and checks every pair; error messages start with `source`."""
    names: dict[int, str] = {}
    ids: dict[str, int] = {}
    for key, value in mapping.items():
        if isinstance(key, str) and key.isdecimal() and isinstance(value, str):  # an id in JSON
            key = int(key)
        class_id, name = (value, key) if isinstance(key, str) else (key, value)
        if type(class_id) is not int or class_id < 0 or not isinstance(name, str) or not name.strip():
            pair = config_values.show_pair(key, value)
            raise LabelMapError(f"{source} must pair ids from 1 with names in quotes, got {pair}")
        if class_id == 0 and "background" not in name.lower():
            raise LabelMapError(f"{source} gives id 0, the background, to {name!r}; class ids start at 1")
        if class_id in names:
            raise LabelMapError(f"{source} gives id {class_id} to both {names[class_id]!r} and {name!r}")
        if name in ids:
            raise LabelMapError(f"{source} gives the name {name!r} to both id {ids[name]} and id {class_id}")
        names[class_id], ids[name] = name, class_id
    return {class_id: names[class_id] for class_id in sorted(names) if class_id > 0}
