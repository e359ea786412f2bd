# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Label maps: names of class ids, built in for COCO, VOC and Waymo, or defined by the user."""

from collections.abc import Mapping

from efficientdet import config as config_lib
from efficientdet import hparams


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
            file with such a mapping. Ids start at 1; an entry of 0 must be "background" and is removed.

    Returns:
        {id: name}, sorted by id; empty for None.

    Raises:
        LabelMapError: for an unknown name, an unreadable file, or an invalid or duplicate id or name.
    """
    if label_map is None:
        return {}
    if isinstance(label_map, Mapping):
        return _parse(label_map, "label_map")
    if label_map in LABEL_MAPS:
        return dict(LABEL_MAPS[label_map])
    if not label_map.endswith((".yaml", ".yml", ".json")):
        close = config_lib.nearest(label_map, {name: name for name in LABEL_MAPS})
        raise LabelMapError(f"label_map {label_map!r} is not coco, voc, waymo or a .yaml or .json file{close}")
    try:
        return _parse(hparams.read_yaml(label_map), label_map)  # JSON is YAML
    except config_lib.ConfigError as error:
        raise LabelMapError(f"label_map: {error}") from None


def name_of(names: Mapping[int, str], class_id: float) -> str:
    """Returns the name of a class, or "class 7" if it has none; accepts ids of any numeric type."""
    return names.get(int(class_id), f"class {int(class_id)}")


def check(names: Mapping[int, str], num_classes: int) -> None:
    """Checks that all ids of a label map are within num_classes, the number of class logits.

    Raises:
        LabelMapError: if an id is above num_classes; the message states the num_classes needed.
    """
    largest = max(names, default=0)
    if largest > num_classes:
        raise LabelMapError(
            f"label_map has id {largest} ({names[largest]!r}) but num_classes is {num_classes}; "
            f"{config_lib.num_classes_advice(largest)}"
        )


def _parse(mapping: Mapping, source: str) -> dict[int, str]:
    """Converts {name: id} to {id: name} and checks every pair; error messages start with `source`."""
    names: dict[int, str] = {}
    ids: dict[str, int] = {}
    for key, value in mapping.items():
        if isinstance(key, str) and key.isdecimal() and isinstance(value, str):  # an id in JSON
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
