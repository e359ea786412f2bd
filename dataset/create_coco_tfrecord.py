# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Converts images with COCO annotations into TFRecords; category ids and image ids stay as they are.

python dataset/create_coco_tfrecord.py --image_dir=train2017 --output_file_prefix=data/train \
  --object_annotations_file=annotations/instances_train2017.json

For test images without annotations, give --image_info_file alone.
"""

import collections
import dataclasses
import io
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent import futures
from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as mask_lib
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from dataset import tfrecord
from dataset.tfrecord import DataError, Record, ShardWriter, Summary

FLAGS = flags.FLAGS
IMAGES_AT_A_TIME = 256  # read ahead of the writer: bounds the memory


def define_flags() -> None:
    flags.DEFINE_string("image_dir", None, "Folder of the images.", required=True)
    flags.DEFINE_string("image_info_file", "", "JSON that lists the images, such as image_info_test-dev2017.json.")
    flags.DEFINE_string("object_annotations_file", "", "JSON with boxes, such as instances_train2017.json.")
    flags.DEFINE_string("caption_annotations_file", "", "JSON with captions, such as captions_train2017.json.")
    flags.DEFINE_boolean("include_masks", False, "Write instance masks too, as PNG.")
    flags.DEFINE_string("output_file_prefix", "/tmp/train", "What the shard names begin with, such as data/train.")
    flags.DEFINE_integer("num_shards", 32, "Number of TFRecord files.", lower_bound=1)
    flags.DEFINE_integer("num_threads", None, "Threads that read images. Default: by the cores.", lower_bound=1)


@dataclasses.dataclass(frozen=True)
class CocoSource:
    """Images and what is known of them, as in the JSON files."""

    image_dir: Path
    images: list[dict]
    objects: Mapping[int, list[dict]]  # image id -> annotations
    captions: Mapping[int, list[str]]  # image id -> captions
    category_names: Mapping[int, str]


def load(
    image_dir: str | Path,
    *,
    image_info_file: str | Path = "",
    object_annotations_file: str | Path = "",
    caption_annotations_file: str | Path = "",
) -> CocoSource:
    """Reads the JSON files that are given; the list of images comes from the first of them.

    Raises:
        DataError: if there is none, one cannot be read or lacks something, or the images folder is not there.
    """
    given = [path for path in (image_info_file, object_annotations_file, caption_annotations_file) if path]
    if not given:
        raise DataError(
            "all annotation files are missing; give object_annotations_file, caption_annotations_file "
            "or image_info_file"
        )
    if not Path(image_dir).is_dir():
        raise DataError(f"image_dir {str(image_dir)!r} is not a folder")
    files = {path: _read_json(path) for path in given}

    def rows(path: str | Path, name: str, *keys: str) -> list[dict]:
        return _rows(files[path], path, name, keys) if path else []

    objects, captions = collections.defaultdict(list), collections.defaultdict(list)
    images = rows(given[0], "images", "id", "file_name", "height", "width")
    for annotation in rows(object_annotations_file, "annotations", "id", "image_id", "category_id", "bbox"):
        objects[annotation["image_id"]].append(annotation)
    for annotation in rows(caption_annotations_file, "annotations", "image_id", "caption"):
        captions[annotation["image_id"]].append(annotation["caption"])
    names = {category["id"]: category["name"] for category in rows(object_annotations_file, "categories", "id", "name")}
    return CocoSource(Path(image_dir), images, objects, captions, names)


def _read_json(path: str | Path) -> object:
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _rows(content: object, path: str | Path, name: str, keys: Sequence[str]) -> list[dict]:
    """The list of that name in the content of a COCO file, once every row is known to have the keys."""
    if not (isinstance(content, dict) and isinstance(content.get(name), list)):
        raise DataError(f"{path} has no list of {name}; expected a COCO annotation file")
    for i, row in enumerate(content[name]):
        for key in keys:
            if not (isinstance(row, dict) and key in row):
                raise DataError(f"{path}: {name}[{i}] has no {key!r}; add it to {json.dumps(row)[:80]}")
    return content[name]


def usable_objects(source: CocoSource, image: Mapping, notes: Summary) -> list[dict]:
    """The annotations of an image whose box is not empty and lies within the image; the others are noted."""
    usable = []
    for annotation in source.objects.get(image["id"], []):
        x, y, width, height = annotation["bbox"]
        where = f"annotation {annotation['id']} of {image['file_name']}"
        if annotation["category_id"] not in source.category_names:
            raise DataError(f"{where} has category {annotation['category_id']}, which the file's categories lack")
        if not (width > 0 and height > 0):  # so written, a NaN is empty too
            notes.note("empty boxes left out", where)
        elif x < 0 or y < 0 or x + width > image["width"] or y + height > image["height"]:
            notes.note("boxes beyond the image left out", where)
        else:
            usable.append(annotation)
    return usable


def make_record(source: CocoSource, image: Mapping, annotations: list[dict], include_masks: bool = False) -> Record:
    """One image with the given annotations.

    Raises:
        DataError: if the image cannot be read or is of a kind that TensorFlow does not decode, or a mask is missing.
    """
    path, size = source.image_dir / image["file_name"], (image["height"], image["width"])
    try:
        encoded = path.read_bytes()
        image_format = Image.open(io.BytesIO(encoded)).format
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"cannot read the image {path}: {error}") from error
    if image_format not in tfrecord.IMAGE_FORMATS:
        raise DataError(f"{path} is {image_format}; expected JPEG, PNG, GIF or BMP: convert it")
    boxes = np.reshape([annotation["bbox"] for annotation in annotations], [-1, 4]).astype(np.float64)
    yx, hw = boxes[:, 1::-1], boxes[:, :1:-1]  # [K, 2] each, pixels
    for annotation in annotations if include_masks else []:
        if "segmentation" not in annotation:
            where = f"annotation {annotation['id']} of {image['file_name']}"
            raise DataError(f"{where} has no 'segmentation'; add it, or convert without masks")
    masks = [encode_mask(annotation["segmentation"], size) for annotation in annotations] if include_masks else []
    return Record(
        encoded=encoded,
        height=image["height"],
        width=image["width"],
        filename=image["file_name"],
        source_id=str(image["id"]),
        image_format=tfrecord.IMAGE_FORMATS[image_format],
        boxes_norm=np.concatenate([yx, yx + hw], axis=1) / [*size, *size],
        classes=[annotation["category_id"] for annotation in annotations],
        class_names=[source.category_names[annotation["category_id"]] for annotation in annotations],
        is_crowd=[int(annotation.get("iscrowd", 0)) for annotation in annotations],
        area=[annotation.get("area", box[2] * box[3]) for annotation, box in zip(annotations, boxes, strict=True)],
        masks=masks,
        captions=source.captions.get(image["id"], []),
    )


def encode_mask(segmentation: list | Mapping, size: tuple[int, int]) -> bytes:
    """A COCO segmentation, polygons or run lengths, as a PNG of the given (height, width): 1 on the object, else 0."""
    if isinstance(segmentation, Mapping) and isinstance(segmentation["counts"], str | bytes):
        rle = segmentation  # compressed already
    else:
        rle = mask_lib.frPyObjects(segmentation, *size)
    mask = mask_lib.decode(mask_lib.merge(rle) if isinstance(rle, list) else rle)  # several polygons, one object
    png = io.BytesIO()
    Image.fromarray(mask).save(png, "PNG")
    return png.getvalue()


def convert(
    source: CocoSource,
    output_file_prefix: str | Path,
    *,
    include_masks: bool = False,
    num_shards: int = 32,
    num_threads: int | None = None,
) -> Summary:
    """Writes `{output_file_prefix}-*.tfrecord`, in the order of the list of images.

    Raises:
        DataError: for data that cannot be converted; nothing is written then.
    """
    summary = Summary()
    unlisted = source.objects.keys() - {image["id"] for image in source.images}
    for image_id in sorted(unlisted):
        summary.note("annotated images that the list of images lacks", f"id {image_id}")
    todo = [(image, usable_objects(source, image, summary)) for image in source.images]
    progress = tqdm(total=len(todo), unit="image")
    with (
        ShardWriter(output_file_prefix, num_shards) as writer,
        futures.ThreadPoolExecutor(num_threads) as pool,
        progress,
    ):
        for start in range(0, len(todo), IMAGES_AT_A_TIME):
            part = todo[start : start + IMAGES_AT_A_TIME]
            for serialized in pool.map(lambda item: tfrecord.encode(make_record(source, *item, include_masks)), part):
                writer.write(serialized)
                progress.update()
    summary.num_images = len(todo)
    summary.num_boxes = sum(len(annotations) for _, annotations in todo)
    return summary


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; every option starts with --")
    try:
        source = load(
            FLAGS.image_dir,
            image_info_file=FLAGS.image_info_file,
            object_annotations_file=FLAGS.object_annotations_file,
            caption_annotations_file=FLAGS.caption_annotations_file,
        )
        summary = convert(
            source,
            FLAGS.output_file_prefix,
            include_masks=FLAGS.include_masks,
            num_shards=FLAGS.num_shards,
            num_threads=FLAGS.num_threads,
        )
    except (DataError, OSError) as error:
        sys.exit(f"error: {error}")
    print(summary)
    print(f"wrote {FLAGS.output_file_prefix}-*-of-{FLAGS.num_shards:05d}.tfrecord")


if __name__ == "__main__":
    define_flags()
    app.run(main)
