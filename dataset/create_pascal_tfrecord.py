# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
r"""Converts Pascal VOC annotations into TFRecords and a COCO-style JSON of the same boxes.

    python dataset/create_pascal_tfrecord.py --data_dir=VOCdevkit --year=VOC2012 --set=train --output_path=voc/train
    python dataset/create_pascal_tfrecord.py --data_dir=VOCdevkit --year=SHOP --set=all --collect_label_map \
        --output_path=shop/all --num_shards=8
    python dataset/create_pascal_tfrecord.py --data_dir=VOCdevkit --year=BCCD --set=test --output_path=bccd/test \
        --label_map_json_path=bccd/labels.json

The folder of a year holds Annotations/*.xml, JPEGImages/ and, if there are sets, ImageSets/Main/*.txt. Other classes
than VOC's need --collect_label_map, or --label_map_json_path with a file such as {"RBC": 1, "WBC": 2}.
"""

import collections
import dataclasses
import functools
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as in main.py

from absl import flags
from lxml import etree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dataset import command_line
from dataset import label_map as label_map_lib
from dataset.convert import image_file, shards
from dataset.convert.annotation import AnnotatedObject, Annotation
from dataset.convert.conversion_report import Notes, Report
from dataset.convert.image_file import ImageError
from dataset.files import reason_of
from dataset.tfrecord import DataError

FLAGS = flags.FLAGS
VOC_LABEL_MAP = {name: class_id for class_id, name in label_map_lib.VOC.items()}
FLAG = re.compile(r"\s+(-1|0|1)$")  # behind an id in the list of a class: not in the image, difficult, in it
BOX_SIDES = ("xmin", "ymin", "xmax", "ymax")
UNKNOWN_CLASS = "is not in the label map"


def define_flags() -> None:
    with command_line.group("Input"):
        flags.DEFINE_string(
            "data_dir", None, "Folder that holds the folder of the year, as VOCdevkit does.", required=True
        )
        flags.DEFINE_string(
            "year", "VOC2007", "Folder in data_dir, '' for data_dir itself, or 'merged': VOC2007 and VOC2012."
        )
        flags.DEFINE_string("set", "train", "List in ImageSets/Main: train, val, trainval, test, your own; or 'all'.")
        flags.DEFINE_string("annotations_dir", "Annotations", "Folder of the XML files, in the folder of the year.")
        flags.DEFINE_integer("num_images", None, "Images to convert, the first ones; default: all.", lower_bound=1)
        flags.DEFINE_boolean("ignore_difficult_instances", False, "Leaves out objects marked as difficult.")
    with command_line.group("Classes"):
        flags.DEFINE_string("label_map_json_path", None, "JSON or YAML file, {name: id}, ids from 1; default: VOC's.")
        flags.DEFINE_boolean(
            "collect_label_map", False, "Takes the classes from the annotations and writes them as YAML."
        )
    with command_line.group("Output"):
        flags.DEFINE_string("output_path", None, "What the file names begin with, such as data/train.", required=True)
        flags.DEFINE_integer("num_shards", 100, "TFRecord files to write.", lower_bound=1)
    shards.define_flags()


@dataclasses.dataclass(frozen=True)
class VocSet:
    """One image set of one VOC folder."""

    folder: Path  # {data_dir}/{year}
    name: str  # of the set, such as trainval
    annotations_dir: str = "Annotations"

    def all_ids(self) -> list[str]:
        """The ids of all annotation files, sorted.

        Raises:
            DataError: if there is no such folder or file.
        """
        folder = self.folder / self.annotations_dir
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}; data_dir, year and annotations_dir have to lead to one")
        ids = sorted(path.stem for path in folder.glob("*.xml"))
        if not ids:
            raise DataError(f"there are no annotations *.xml in {folder}")
        return ids

    def image_ids(self, class_names: Sequence[str]) -> list[str]:
        """The ids of the set's list: `{set}.txt`, or else that of a class, since each of those lists every image.

        Without any list, or for a set named "all" that has none, the ids of all annotation files.

        Raises:
            DataError: if there is no such folder or list, or the list is empty.
        """
        for name in (self.name, *(f"{class_name}_{self.name}" for class_name in class_names)):
            if f"{name}.txt" in self.lists:
                return self._read_list(self.lists[f"{name}.txt"])
        if self.lists and self.name != "all":
            raise DataError(
                f"expected the list of images {self.folder}/ImageSets/Main/{self.name}.txt; the lists there are: "
                f"{', '.join(self.lists)}; for all annotations give --set=all"
            )
        return self.all_ids()

    def _read_list(self, path: Path) -> list[str]:
        """Ids, one a line; in the list of a class a flag follows each. An id may have spaces, as file names do."""
        try:
            lines = path.read_text("utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read the list {path}: {reason_of(error)}") from error
        ids = [line.strip() for line in lines if line.strip()]
        if not ids:
            raise DataError(f"{path} lists no images")
        # "image 1" may be an id, too: then there is an annotation of that name.
        folder = self.folder / self.annotations_dir
        if all(FLAG.search(line) for line in ids) and not any((folder / f"{line}.xml").is_file() for line in ids):
            return [FLAG.sub("", line) for line in ids]
        return ids

    @functools.cached_property
    def lists(self) -> Mapping[str, Path]:
        """The lists of images by file name."""
        return {path.name: path for path in sorted((self.folder / "ImageSets" / "Main").glob("*.txt"))}

    @functools.cached_property
    def images(self) -> Mapping[str, list[str]]:
        """File names of the images in JPEGImages by their stem."""
        names: dict[str, list[str]] = {}
        for path in sorted((self.folder / "JPEGImages").glob("*")):
            if path.suffix.lower() in image_file.SUFFIXES:
                names.setdefault(path.stem, []).append(path.name)
        return names

    def image_path(self, image_id: str, filename: str) -> Path:
        """The image in JPEGImages named as the annotation, or else as its <filename>. <folder> is often wrong.

        Raises:
            ImageError: if there is neither, or it is not in that folder.
        """
        named = PureWindowsPath(filename).name  # knows both kinds of slash; a path of another machine says nothing here
        names = self.images.get(image_id, [named or f"{image_id}.jpg"])
        try:
            return image_file.find(self.folder / "JPEGImages", named if named in names else names[0])
        except ImageError as error:
            raise ImageError(error.reason, f"annotation {image_id}: {error}") from error


def load_label_map(path: str | Path) -> dict[str, int]:
    """Reads {name: id}, or {id: name}, as `label_map.resolve` does.

    Raises:
        DataError: if it holds anything else, or nothing.
    """
    try:
        names = label_map_lib.resolve(str(path))
    except label_map_lib.LabelMapError as error:
        raise DataError(f"cannot use --label_map_json_path: {error}") from error
    if not names:
        raise DataError(f'{path} must hold names and ids, such as {{"cat": 1, "dog": 2}}')
    return {name: class_id for class_id, name in names.items()}


def collect_label_map(voc_sets: Sequence[VocSet]) -> dict[str, int]:
    """{name: id} of all classes in all annotation files of the folders, so that every set of them has the same ids.

    Sorted by name, ids from 1. A file that cannot be read has no say; converting it will count it.

    Raises:
        DataError: if there is no class.
    """
    names = set()
    for voc_set in voc_sets:
        for image_id in voc_set.all_ids():
            try:
                root = read_xml(voc_set, image_id)
            except ImageError:
                continue
            names.update(_text(element, "name") for element in root.iterfind("object"))
    names.discard("")
    if not names:
        raise DataError(f"no annotation in {voc_sets[0].folder / voc_sets[0].annotations_dir} names a class")
    return {name: class_id for class_id, name in enumerate(sorted(names), start=1)}


def read_xml(voc_set: VocSet, image_id: str) -> etree._Element:
    """The root of an annotation file. Nothing is expanded and nothing else is loaded, whatever the file asks for.

    Raises:
        ImageError: if the file is missing, is no XML, or has a DOCTYPE, which alone can define entities.
    """
    path = image_file.find(voc_set.folder / voc_set.annotations_dir, f"{image_id}.xml")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        content = path.read_bytes()
        root = None if b"<!DOCTYPE" in content else etree.fromstring(content, parser)
    except (OSError, etree.XMLSyntaxError) as error:
        reason = reason_of(error)
        raise ImageError("annotation is unreadable", f"cannot read the annotation {path}: {reason}") from error
    if root is None or root.getroottree().docinfo.doctype:  # the latter where the file is not in an ASCII encoding
        raise ImageError("annotation has a DOCTYPE", f"{path} has a <!DOCTYPE ...>; remove it with its entities")
    return root


def read_annotation(
    voc_set: VocSet,
    image_id: str,
    source_id: str,
    *,
    label_map: Mapping[str, int],
    ignore_difficult: bool,
    notes: Notes,
) -> Annotation:
    """One image of a set with its objects; faulty ones are left out and noted.

    Raises:
        ImageError: if the id is not a plain name, or a file is missing or unreadable.
    """
    if PureWindowsPath(image_id).name != image_id:
        raise ImageError("id is not a plain name", f"expected the name of an annotation file, got {image_id!r}")
    root = read_xml(voc_set, image_id)
    image_path = voc_set.image_path(image_id, _text(root, "filename"))
    objects = []
    for element in root.iterfind("object"):
        name, sides = _text(element, "name"), [_text(element, f"bndbox/{side}") for side in BOX_SIDES]
        label, box = f"{name} [{', '.join(sides)}]"[:100], [_number(side) for side in sides]
        where = f"{label} of {image_path.name}"
        if name not in label_map:
            notes.leave_out_box(f"class {name[:50]!r} {UNKNOWN_CLASS}", where)
        elif None in box:
            notes.leave_out_box("bndbox is not four numbers", where)
        elif ignore_difficult and _is_set(element, "difficult"):
            notes.note("difficult objects left out", where)
        else:
            objects.append(
                AnnotatedObject(
                    box=tuple(box),
                    class_id=label_map[name],
                    class_name=name,
                    label=label,
                    difficult=_is_set(element, "difficult"),
                    truncated=_is_set(element, "truncated"),
                    pose=_text(element, "pose"),
                )
            )
    size = [_number(_text(root, f"size/{side}")) for side in ("height", "width")]
    return Annotation(
        image_path=image_path,
        filename=image_path.name,
        source_id=source_id,
        size=tuple(size) if all(size) else None,
        objects=objects,
    )


def _text(element: etree._Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _is_set(element: etree._Element, tag: str) -> int:
    return int(_text(element, tag).lower() in ("1", "true", "yes"))


def convert(
    voc_sets: Sequence[VocSet],
    output_path: str | Path,
    *,
    label_map: Mapping[str, int],
    ignore_difficult_instances: bool = False,
    num_shards: int = 100,
    num_images: int | None = None,
    **options,
) -> Report:
    """Writes `{output_path}-*.tfrecord` and `json_{name}.json` beside them; image ids run from 1 over all sets.

    Args:
        voc_sets: whose images to convert, one set after the other.
        output_path: path that the shard names begin with.
        label_map: {name: id}, ids from 1.
        ignore_difficult_instances: leaves out objects marked as difficult.
        num_shards: number of TFRecord files, from 1.
        num_images: converts only the first so many.
        **options: num_threads, max_bad_fraction and max_image_pixels of `conversion.run`.

    Raises:
        DataError: for data that cannot be converted; the report alone is written then.
    """
    listed, notes = [], Notes()
    for voc_set in voc_sets:
        for image_id, times in collections.Counter(voc_set.image_ids(list(label_map))).items():
            listed.append((voc_set, image_id))
            if times > 1:
                notes.note("images listed twice, written once", f"{image_id} of {voc_set.folder}")
        if not voc_set.lists and voc_set.name != "all":
            notes.note("folders without any list of images: all annotations taken", str(voc_set.folder))
    items = [(voc_set, image_id, str(number)) for number, (voc_set, image_id) in enumerate(listed, start=1)]

    def read(item: tuple[VocSet, str, str], notes: Notes) -> Annotation:
        return read_annotation(*item, label_map=label_map, ignore_difficult=ignore_difficult_instances, notes=notes)

    try:
        return shards.run(
            items[:num_images],
            read,
            output_path,
            num_shards=num_shards,
            groundtruth_categories=label_map,
            notes=notes,
            **options,
        )
    except DataError as error:
        hint = "; --label_map_json_path gives other classes, --collect_label_map takes those of the annotations"
        raise DataError(f"{error}{hint if UNKNOWN_CLASS in str(error) else ''}") from error


def main() -> None:
    shards.hide_gpus()
    years = ["VOC2007", "VOC2012"] if FLAGS.year == "merged" else [FLAGS.year]
    voc_sets = [VocSet(Path(FLAGS.data_dir, year), FLAGS.set, FLAGS.annotations_dir) for year in years]
    with shards.plain_ending():
        if FLAGS.collect_label_map and FLAGS.label_map_json_path:
            raise DataError("expected one of --collect_label_map and --label_map_json_path, got both")
        label_map = VOC_LABEL_MAP
        if FLAGS.label_map_json_path:
            label_map = load_label_map(FLAGS.label_map_json_path)
        if FLAGS.collect_label_map:
            label_map = collect_label_map(voc_sets)
        report = convert(
            voc_sets,
            FLAGS.output_path,
            label_map=label_map,
            ignore_difficult_instances=FLAGS.ignore_difficult_instances,
            num_shards=FLAGS.num_shards,
            num_images=FLAGS.num_images,
            **shards.options(),
        )
        names = {class_id: name for name, class_id in label_map.items()}
        collected = shards.write_label_map(FLAGS.output_path, names) if FLAGS.collect_label_map else None
    print(report)
    groundtruth = shards.beside(Path(FLAGS.output_path), "json")
    print(f"wrote {FLAGS.output_path}-*-of-{FLAGS.num_shards:05d}.tfrecord and {groundtruth}")
    if collected:
        print(
            f"wrote {collected}; other sets get these ids with --label_map_json_path={collected}, training with "
            f"--hparams=label_map={collected},num_classes={max(names)}"
        )


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
