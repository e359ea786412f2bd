# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Converts Pascal VOC annotations into TFRecords and a COCO-style JSON of the same boxes.

python dataset/create_pascal_tfrecord.py --data_dir=VOCdevkit --year=VOC2012 --set=trainval --output_path=data/pascal

The folder of a year holds Annotations/*.xml, JPEGImages/ and ImageSets/Main/*.txt. Other classes than VOC's need
--label_map_json_path, a file such as {"RBC": 1, "WBC": 2}.
"""

import dataclasses
import glob
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np
import yaml
from absl import app, flags
from lxml import etree
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from dataset import label_map as label_map_lib
from dataset import tfrecord
from dataset.tfrecord import DataError, Record, ShardWriter, Summary

FLAGS = flags.FLAGS
VOC_LABEL_MAP = {name: class_id for class_id, name in label_map_lib.VOC.items()}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")


def define_flags() -> None:
    flags.DEFINE_string("data_dir", None, "Folder that holds the folder of the year, such as VOCdevkit.", required=True)
    flags.DEFINE_string("output_path", None, "What the shard names begin with, such as data/pascal.", required=True)
    flags.DEFINE_string("year", "VOC2007", "Folder in data_dir, or 'merged' for VOC2007 and VOC2012 together.")
    flags.DEFINE_string("set", "train", "List in ImageSets/Main: train, val, trainval, test or one of your own.")
    flags.DEFINE_string("annotations_dir", "Annotations", "Folder of the XML files, in the folder of the year.")
    flags.DEFINE_string("label_map_json_path", None, "JSON or YAML file, {name: id} with ids from 1. Default: VOC's.")
    flags.DEFINE_boolean("ignore_difficult_instances", False, "Leave out objects marked as difficult.")
    flags.DEFINE_integer("num_shards", 100, "Number of TFRecord files.", lower_bound=1)
    flags.DEFINE_integer("num_images", None, "Convert only the first so many images.", lower_bound=1)


class VocObject(NamedTuple):
    """One <object>; the box in pixels as written, [xmin, ymin, xmax, ymax]."""

    name: str
    box: tuple[float, float, float, float]
    difficult: int
    truncated: int
    pose: str

    def __str__(self) -> str:
        return f"{self.name} [{', '.join(f'{side:g}' for side in self.box)}]"


@dataclasses.dataclass(frozen=True)
class VocSet:
    """One image set of one VOC folder."""

    folder: Path  # {data_dir}/{year}
    name: str  # of the set, such as trainval
    annotations_dir: str = "Annotations"

    def image_ids(self, class_names: Sequence[str]) -> list[str]:
        """The ids of the set's list: `{set}.txt`, or else that of a class, since each of those lists every image.

        Raises:
            DataError: if there is no such folder or list, or the list is empty.
        """
        if not self.folder.is_dir():
            raise DataError(f"there is no folder {self.folder}; give its name in data_dir as year")
        lists = self.folder / "ImageSets" / "Main"
        for name in (self.name, *(f"{class_name}_{self.name}" for class_name in class_names)):
            path = lists / f"{name}.txt"
            if path.is_file():
                ids = [line.split()[0] for line in path.read_text("utf-8").splitlines() if line.strip()]
                if not ids:
                    raise DataError(f"{path} lists no images")
                return ids
        there = ", ".join(sorted(path.name for path in lists.glob("*.txt"))) or "none"
        raise DataError(f"expected the list of images {lists / self.name}.txt; the lists there are: {there}")

    def annotation_path(self, image_id: str) -> Path:
        """Where the XML file of an image is."""
        return self.folder / self.annotations_dir / f"{image_id}.xml"

    def image_path(self, image_id: str, filename: str) -> Path:
        """The image in JPEGImages by the annotation's file name, or else by its id. <folder> is often wrong.

        Raises:
            DataError: if there is neither.
        """
        folder = self.folder / "JPEGImages"
        named = PureWindowsPath(filename).name  # knows both kinds of slash; a path of another machine says nothing here
        if named and (folder / named).is_file():
            return folder / named
        for path in sorted(folder.glob(glob.escape(image_id) + ".*")):
            if path.stem == image_id and path.suffix.lower() in IMAGE_SUFFIXES:
                return path
        annotation = self.annotation_path(image_id)
        raise DataError(
            f"{annotation}: neither {named or 'its <filename>'} nor {image_id}.jpg (.png, ...) is in {folder}"
        )


def load_label_map(path: str | Path) -> dict[str, int]:
    """Reads {name: id}, or {id: name} as the label_map of the hparams has it, from JSON or YAML.

    Raises:
        DataError: if it holds anything else, an id twice, or an id below 1 for another class than background.
    """
    try:
        mapping = yaml.safe_load(Path(path).read_text("utf-8").replace("\t", " "))  # JSON is YAML, but for tabs
        if not (isinstance(mapping, dict) and mapping):
            raise DataError(f'{path}: expected a label map such as {{"cat": 1, "dog": 2}}, got {str(mapping)[:80]}')
        return {name: class_id for class_id, name in label_map_lib.resolve(mapping).items()}
    except (OSError, yaml.YAMLError, label_map_lib.LabelMapError) as error:
        raise DataError(f"cannot use the label map {path}: {error}") from error


def read_annotation(path: Path) -> tuple[str, tuple[int, int] | None, list[VocObject]]:
    """Reads one XML file. No entity is resolved and nothing else is loaded, whatever the file asks for.

    Returns:
        <filename> or "", (width, height) or None where the file does not say, and the objects.

    Raises:
        DataError: if the file cannot be read, or holds a word where a number has to be.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        root = etree.parse(str(path), parser).getroot()
    except (OSError, etree.XMLSyntaxError) as error:
        raise DataError(f"cannot read the annotation {path}: {error}") from error
    size = [int(_number(root, f"size/{side}", path, default=0)) for side in ("width", "height")]
    objects = []
    for element in root.iterfind("object"):
        objects.append(
            VocObject(
                name=_text(element, "name"),
                box=tuple(_number(element, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax")),
                difficult=int(_number(element, "difficult", path, default=0)),
                truncated=int(_number(element, "truncated", path, default=0)),
                pose=_text(element, "pose"),
            )
        )
    return _text(root, "filename"), tuple(size) if all(size) else None, objects


def _text(element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _number(element, tag: str, path: Path, default: float | None = None) -> float:
    text = _text(element, tag)
    if not text and default is not None:
        return default
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{path}: expected a number as <{tag}> of <{element.tag}>, got {text!r}") from None


def read_record(
    voc_set: VocSet,
    image_id: str,
    source_id: str,
    *,
    label_map: Mapping[str, int],
    ignore_difficult: bool,
    notes: Summary,
) -> Record:
    """One image of a set with its objects; boxes are clipped to the image, and dropped where nothing is left.

    Raises:
        DataError: if a file is missing or unreadable, its size is not as annotated, or a class is not in the label map.
    """
    annotation_path = voc_set.annotation_path(image_id)
    filename, annotated_size, objects = read_annotation(annotation_path)
    image_path = voc_set.image_path(image_id, filename)
    image_format, (width, height) = _read_header(image_path)
    if annotated_size not in (None, (width, height)):
        raise DataError(
            f"{annotation_path} is for {annotated_size[0]}x{annotated_size[1]} pixels, but {image_path} has "
            f"{width}x{height}; correct <size> and the boxes, or the image"
        )
    kept = []
    for item in objects:
        if item.name not in label_map:
            raise DataError(
                f"{annotation_path}: class {item.name!r} is not in the label map ({', '.join(label_map)}); give one as "
                f"--label_map_json_path, a JSON file that holds {{{json.dumps(item.name)}: 1, ...}} with ids from 1"
            )
        if ignore_difficult and item.difficult:
            notes.note("difficult objects left out", f"{image_id} {item}")
        elif (clipped := clip_object(item, (height, width), image_id, notes)) is not None:
            kept.append(clipped)
    boxes = np.reshape([item.box for item in kept], [-1, 4])  # [K, 4], pixels
    return Record(
        encoded=image_path.read_bytes(),
        height=height,
        width=width,
        filename=image_path.name,
        source_id=source_id,
        image_format=image_format,
        boxes_norm=boxes[:, [1, 0, 3, 2]] / [height, width, height, width],
        classes=[label_map[item.name] for item in kept],
        class_names=[item.name for item in kept],
        area=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        difficult=[item.difficult for item in kept],
        truncated=[item.truncated for item in kept],
        poses=[item.pose for item in kept],
    )


def clip_object(item: VocObject, size: tuple[int, int], image_id: str, notes: Summary) -> VocObject | None:
    """The object with its box clipped to the image of the given (height, width), or None where nothing is left."""
    height, width = size
    box = tuple(np.clip(item.box, 0, [width, height, width, height]).tolist())
    if not (box[2] > box[0] and box[3] > box[1]):  # so written, a NaN is empty too
        notes.note("empty boxes left out", f"{image_id} {item}")
        return None
    if box != item.box:
        notes.note("boxes clipped to the image", f"{image_id} {item}")
    return item._replace(box=box)


def _read_header(path: Path) -> tuple[str, tuple[int, int]]:
    try:
        with Image.open(path) as image:
            if image.format in tfrecord.IMAGE_FORMATS:
                return tfrecord.IMAGE_FORMATS[image.format], image.size
            raise DataError(f"{path} is {image.format}; expected JPEG, PNG, GIF or BMP: convert it")
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"cannot read the image {path}: {error}") from error


def coco_annotations(record: Record, first_id: int) -> list[dict]:
    """The objects of a record as COCO annotations with running ids; boxes in pixels, [xmin, ymin, width, height]."""
    scale = [record.height, record.width, record.height, record.width]
    annotations = []
    for i, box in enumerate(np.round(np.asarray(record.boxes_norm) * scale, 4).tolist()):
        ymin, xmin, ymax, xmax = box
        annotations.append(
            {
                "id": first_id + i,
                "image_id": int(record.source_id),
                "category_id": record.classes[i],
                "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
                "area": float(record.area[i]),
                "iscrowd": 0,
                "ignore": 0,
                "segmentation": [],
            }
        )
    return annotations


def convert(
    voc_sets: Sequence[VocSet],
    output_path: str | Path,
    *,
    label_map: Mapping[str, int],
    ignore_difficult_instances: bool = False,
    num_shards: int = 100,
    num_images: int | None = None,
) -> Summary:
    """Writes `{output_path}-*.tfrecord` and `json_{name}.json` beside them; image ids run from 1 over all sets.

    Raises:
        DataError: for data that cannot be converted; nothing is written then.
    """
    output_path, summary = Path(output_path), Summary()
    todo = [(voc_set, image_id) for voc_set in voc_sets for image_id in voc_set.image_ids(list(label_map))]
    ground_truth = {
        "type": "instances",
        "images": [],
        "annotations": [],
        "categories": [{"supercategory": "none", "id": i, "name": name} for name, i in label_map.items()],
    }
    with ShardWriter(output_path, num_shards) as writer:
        for number, (voc_set, image_id) in enumerate(tqdm(todo[:num_images], unit="image"), start=1):
            record = read_record(
                voc_set,
                image_id,
                str(number),
                label_map=label_map,
                ignore_difficult=ignore_difficult_instances,
                notes=summary,
            )
            writer.write(tfrecord.encode(record))
            image = {"file_name": record.filename, "height": record.height, "width": record.width, "id": number}
            ground_truth["images"].append(image)
            ground_truth["annotations"] += coco_annotations(record, len(ground_truth["annotations"]) + 1)
        write_json(json_path(output_path), ground_truth)
    summary.num_images = len(ground_truth["images"])
    summary.num_boxes = len(ground_truth["annotations"])
    return summary


def json_path(output_path: Path) -> Path:
    """Where the COCO-style JSON of the shards `{output_path}-*` is: beside them."""
    return output_path.with_name(f"json_{output_path.name}.json")


def write_json(path: Path, value: Mapping) -> None:
    """Writes a whole file or none."""
    unfinished = path.with_name(f".unfinished-{path.name}")
    unfinished.write_text(json.dumps(value), "utf-8")
    os.replace(unfinished, path)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; every option starts with --")
    years = ["VOC2007", "VOC2012"] if FLAGS.year == "merged" else [FLAGS.year]
    try:
        summary = convert(
            [VocSet(Path(FLAGS.data_dir, year), FLAGS.set, FLAGS.annotations_dir) for year in years],
            FLAGS.output_path,
            label_map=load_label_map(FLAGS.label_map_json_path) if FLAGS.label_map_json_path else VOC_LABEL_MAP,
            ignore_difficult_instances=FLAGS.ignore_difficult_instances,
            num_shards=FLAGS.num_shards,
            num_images=FLAGS.num_images,
        )
    except (DataError, OSError) as error:
        sys.exit(f"error: {error}")
    print(summary)
    print(f"wrote {FLAGS.output_path}-*-of-{FLAGS.num_shards:05d}.tfrecord and {json_path(Path(FLAGS.output_path))}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
