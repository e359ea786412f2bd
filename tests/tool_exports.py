# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Exports of annotation tools as they come, by (tool, format), for tests."""

import json

import yaml
from PIL import Image

WIDTH, HEIGHT = 40, 20
NAMES = ["Dog", "traffic light"]
# {image: [(class, [xmin, ymin, xmax, ymax])]}
BOXES = {
    "a": [("Dog", [4, 5, 12, 15]), ("traffic light", [20, 2, 36, 18])],
    "b 1": [("traffic light", [0, 10, 10, 20])],
    "empty": [],
}
ROTATED = "<attributes><attribute><name>rotation</name><value>90.0</value></attribute></attributes>"


def add_images(folder, suffix=".jpg", boxes=BOXES):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(boxes):
        Image.new("RGB", (WIDTH, HEIGHT), (10, 200, 30 * i)).save(folder / f"{name}{suffix}")


def add_xml(folder, boxes=BOXES, *, suffix=".jpg", extra="", path=""):
    """Writes an XML file per image; `extra` is added to the first object of each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, objects in boxes.items():
        text = f"<folder/><filename>{name}{suffix}</filename><path>{path}{name}{suffix}</path>"
        text += f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        for i, (class_name, (xmin, ymin, xmax, ymax)) in enumerate(objects):
            corners = f"<xmin>{xmin}.0</xmin><xmax>{xmax}.0</xmax><ymin>{ymin}.0</ymin><ymax>{ymax}.0</ymax>"
            text += f"<object><name>{class_name}</name><pose>Unspecified</pose><difficult>0</difficult>"
            text += f"<bndbox>{corners}</bndbox>{'' if i else extra}</object>"
        (folder / f"{name}.xml").write_text(f"<annotation>{text}</annotation>")


def add_rows(folder, boxes=BOXES, *, polygons=False):
    """Writes a YOLO label file per image, with cx, cy, width, height or with the corners of each box."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, objects in boxes.items():
        rows = []
        for class_name, (xmin, ymin, xmax, ymax) in objects:
            x1, x2, y1, y2 = xmin / WIDTH, xmax / WIDTH, ymin / HEIGHT, ymax / HEIGHT
            box = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
            corners = (x1, y1, x2, y1, x2, y2, x1, y2)
            rows.append(" ".join(map(str, [NAMES.index(class_name), *(corners if polygons else box)])))
        (folder / f"{name}.txt").write_text("\n".join(rows))


def write_coco(path, *, prefix="", first_id=1, unused=(), attributes=None):
    """Writes a COCO file; `attributes` are those of the first annotation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = {name: i for i, name in enumerate(NAMES, start=first_id)}
    images, annotations = [], []
    for i, (name, objects) in enumerate(BOXES.items(), start=1):
        images.append({"id": i, "file_name": f"{prefix}{name}.jpg", "width": WIDTH, "height": HEIGHT})
        for class_name, (xmin, ymin, xmax, ymax) in objects:
            box = [xmin, ymin, xmax - xmin, ymax - ymin]
            row = {"id": len(annotations) + 1, "image_id": i, "category_id": ids[class_name], "bbox": box}
            extra = {} if attributes is None or annotations else {"attributes": attributes}
            annotations.append({**row, "area": box[2] * box[3], "iscrowd": 0, "segmentation": [], **extra})
    categories = [*unused, *({"id": i, "name": name, "supercategory": ""} for name, i in ids.items())]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def roboflow_voc(root):
    for split, boxes in (("train", BOXES), ("valid", {"c": [("Dog", [1, 1, 9, 9])]}), ("test", {"d": []})):
        names = {f"{name}_jpg.rf.0123abcd": objects for name, objects in boxes.items()}
        add_images(root / "export" / split, boxes=names)
        add_xml(root / "export" / split, names)
    (root / "export/README.roboflow.txt").write_text("exported")


def roboflow_coco(root):
    for split in ("train", "valid", "test"):
        add_images(root / "export" / split)
        group = {"id": 0, "name": "street", "supercategory": "none"}
        write_coco(root / "export" / split / "_annotations.coco.json", unused=[group])


def roboflow_yolo(root):
    for split in ("train", "valid"):
        add_images(root / "export" / split / "images")
        add_rows(root / "export" / split / "labels", polygons=split == "train")
    content = {"train": "../train/images", "val": "../valid/images", "nc": 2, "names": NAMES}
    (root / "export/data.yaml").write_text(yaml.safe_dump(content))
    (root / "export/README.roboflow.txt").write_text("exported")


def cvat_voc(root):
    add_images(root / "export/JPEGImages")
    add_xml(root / "export/Annotations", extra=ROTATED)
    (root / "export/ImageSets/Main").mkdir(parents=True)
    (root / "export/ImageSets/Main/default.txt").write_text('a\n"b 1"\nempty\n')
    (root / "export/labelmap.txt").write_text("# label:color_rgb:parts:actions\nDog:1,2,3::\n")


def cvat_coco(root):
    add_images(root / "export/images/default")
    attributes = {"occluded": False, "rotation": 90.0}
    write_coco(root / "export/annotations/instances_default.json", attributes=attributes)


def cvat_yolo(root):
    add_images(root / "export/obj_train_data")
    add_rows(root / "export/obj_train_data")
    lines = "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    (root / "export/obj.data").write_text(lines)
    (root / "export/obj.names").write_text("\n".join([*NAMES, ""]))
    (root / "export/train.txt").write_text("".join(f"data/obj_train_data/{name}.jpg\n" for name in BOXES))


def cvat_ultralytics(root):
    add_images(root / "export/images/train")
    add_rows(root / "export/labels/train")
    (root / "export/train.txt").write_text("".join(f"data/images/train/{name}.jpg\n" for name in BOXES))
    content = {"path": ".", "train": "train.txt", "names": dict(enumerate(NAMES))}
    (root / "export/data.yaml").write_text(yaml.safe_dump(content))


def label_studio_voc(root):
    add_images(root / "export/images")
    add_xml(root / "export/Annotations")


def label_studio_coco(root, prefix="images\\"):
    add_images(root / "export/images")
    write_coco(root / "export/result.json", prefix=prefix, first_id=0)


def label_studio_yolo(root):
    add_images(root / "export/images")
    add_rows(root / "export/labels")
    (root / "export/classes.txt").write_text("\n".join(NAMES))
    (root / "export/notes.json").write_text(json.dumps({"categories": [], "info": {}}))


def vott_voc(root):
    add_images(root / "export/JPEGImages")
    add_xml(root / "export/Annotations")
    (root / "export/ImageSets/Main").mkdir(parents=True)
    for name in NAMES:
        lines = [f"{image}.jpg {1 if name in dict(objects) else -1}\n" for image, objects in BOXES.items()]
        (root / f"export/ImageSets/Main/{name}_train.txt").write_text("".join(lines))
        (root / f"export/ImageSets/Main/{name}_val.txt").write_text("")
    items = [f"item {{\n id: {i}\n name: '{name}'\n}}\n" for i, name in enumerate(NAMES, start=1)]
    (root / "export/pascal_label_map.pbtxt").write_text("".join(items))


def labelimg_voc(root):
    add_images(root / "export")
    add_xml(root / "export", path="C:\\Users\\me\\")


def labelimg_yolo(root):
    add_images(root / "export")
    add_rows(root / "export")
    (root / "export/classes.txt").write_text("\n".join([*NAMES, ""]))


def makesense_voc(root):
    add_images(root / "photos")
    add_xml(root / "export", path="/my-project-name/")


def makesense_coco(root):
    add_images(root / "photos")
    write_coco(root / "export.json")


def makesense_yolo(root):
    add_images(root / "photos")
    add_rows(root / "export")
    (root / "export/names.txt").write_text("\n".join(NAMES))


EXPORTS = {
    ("Roboflow", "Pascal VOC"): roboflow_voc,
    ("Roboflow", "COCO"): roboflow_coco,
    ("Roboflow", "YOLO"): roboflow_yolo,
    ("CVAT", "Pascal VOC 1.1"): cvat_voc,
    ("CVAT", "COCO 1.0"): cvat_coco,
    ("CVAT", "YOLO 1.1"): cvat_yolo,
    ("CVAT", "Ultralytics YOLO"): cvat_ultralytics,
    ("Label Studio", "Pascal VOC"): label_studio_voc,
    ("Label Studio", "COCO"): label_studio_coco,
    ("Label Studio", "YOLO"): label_studio_yolo,
    ("VoTT", "Pascal VOC"): vott_voc,
    ("LabelImg", "Pascal VOC"): labelimg_voc,
    ("LabelImg", "YOLO"): labelimg_yolo,
    ("makesense", "Pascal VOC"): makesense_voc,
    ("makesense", "COCO"): makesense_coco,
    ("makesense", "YOLO"): makesense_yolo,
}
