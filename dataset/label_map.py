# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Class ids and their names: coco, voc, waymo, or the user's own."""

from collections.abc import Mapping

from efficientdet import config as config_lib


class LabelMapError(ValueError):
    """A label map that cannot be used, told in one sentence."""


_COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
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


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


COCO = dict(zip((i for i in range(1, 91) if i not in _COCO_GAPS), _words(_COCO_NAMES), strict=True))
VOC = dict(enumerate(_words(_VOC_NAMES), start=1))
WAYMO = {1: "vehicle", 2: "pedestrian", 3: "cyclist"}
LABEL_MAPS = {"coco": COCO, "voc": VOC, "waymo": WAYMO}


def resolve(label_map: str | Mapping | None) -> dict[int, str]:
    """The class names that a `label_map` key stands for.

    Args:
        label_map: None; "coco", "voc" or "waymo"; a mapping {id: name} or {name: id}; or a .yaml or .json file with
            one. Ids start at 1; 0 may be there as "background" and is left out.

    Returns:
        {id: name}, sorted by id; empty for None.

    Raises:
        LabelMapError: for an unknown name, a file that cannot be read, or ids or names that are wrong or given twice.
    """
    if label_map is None:
        return {}
    if isinstance(label_map, Mapping):
        return _read(label_map, "label_map")
    if label_map in LABEL_MAPS:
        return dict(LABEL_MAPS[label_map])
    if not label_map.endswith((".yaml", ".yml", ".json")):
        close = config_lib.nearest(label_map, {name: name for name in LABEL_MAPS})
        raise LabelMapError(f"label_map {label_map!r} is not coco, voc, waymo or a .yaml or .json file{close}")
    try:
        return _read(config_lib.read_yaml(label_map), label_map)  # JSON is YAML
    except config_lib.ConfigError as error:
        raise LabelMapError(f"label_map: {error}") from None


def name_of(names: Mapping[int, str], class_id: float) -> str:
    """The name of a class, or "class 7" where there is none; the id may be of any number type, NumPy's too."""
    return names.get(int(class_id), f"class {int(class_id)}")


def check(names: Mapping[int, str], num_classes: int) -> None:
    """Holds the ids of a label map against the number of class logits, which may be larger.

    Raises:
        LabelMapError: if an id is above num_classes; it says which num_classes is needed.
    """
    largest = max(names, default=0)
    if largest > num_classes:
        raise LabelMapError(
            f"label_map has id {largest} ({names[largest]!r}) but num_classes is {num_classes};"
            f" set num_classes to {largest} or more"
        )


def _read(mapping: Mapping, source: str) -> dict[int, str]:
    """Turns {name: id} round where needed, and checks every pair; `source` begins the messages."""
    names: dict[int, str] = {}
    ids: dict[str, int] = {}
    for key, value in mapping.items():
        if isinstance(key, str) and key.isdecimal() and isinstance(value, str):  # as JSON has to write an id
            key = int(key)
        class_id, name = (value, key) if isinstance(key, str) else (key, value)
        if type(class_id) is not int or class_id < 0 or not isinstance(name, str) or not name.strip():
            raise LabelMapError(f"{source} must pair ids from 1 with names in quotes, got {key!r}: {value!r}")
        if class_id == 0 and "background" not in name.lower():
            raise LabelMapError(f"{source} gives id 0, the background, to {name!r}; class ids start at 1")
        if class_id in names:
            raise LabelMapError(f"{source} gives id {class_id} to both {names[class_id]!r} and {name!r}")
        if name in ids:
            raise LabelMapError(f"{source} gives the name {name!r} to both id {ids[name]} and id {class_id}")
        names[class_id], ids[name] = name, class_id
    return {class_id: names[class_id] for class_id in sorted(names) if class_id > 0}
