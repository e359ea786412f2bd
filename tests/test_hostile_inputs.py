# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of the converters with broken and hostile images and annotations: each is converted or reported."""

import functools
import io
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dataset import tfrecord
from dataset.convert import coco, pascal, shards
from dataset.convert.annotation import Source
from dataset.convert.voc_set import VocSet

ROOT = Path(__file__).resolve().parents[1]
SIZE = WIDTH, HEIGHT = 48, 32
BOX = (8, 4, 28, 20)  # [xmin, ymin, xmax, ymax] of the bright rectangle on every image


def draw(mode: str = "RGB") -> Image.Image:
    image = Image.new("L", SIZE, 30)
    image.paste(220, BOX)
    return image.convert("RGB").convert(mode)


def encoded(image: Image.Image, image_format: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **({"quality": 95} if image_format == "JPEG" else {}), **options)
    return file.getvalue()


def with_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(draw(), exif=exif)


def bomb() -> bytes:
    """Returns a PNG of a few hundred bytes with a size of 60000x60000 in its header."""
    png = encoded(draw(), "PNG")
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


class Case(NamedTuple):
    """An image with boxes of dogs, and the expected result of its conversion."""

    content: Callable[[], bytes]
    kept: int | None = 1  # boxes in the record; None: there is no record
    reported: bool = False  # True if the conversion report names it
    boxes: list = [BOX]  # noqa: RUF012
    class_name: str = "dog"
    boxes_match: bool = True  # True if the stored box is that of the bright rectangle


PLAIN = functools.partial(encoded, draw())
LEFT_OUT = {"kept": None, "reported": True}
IMAGES = {
    "plain.jpg": Case(PLAIN),
    "truncated.jpg": Case(lambda: PLAIN()[:-300], **LEFT_OUT),
    "zero bytes.jpg": Case(lambda: b"", **LEFT_OUT),
    "text.jpg": Case(lambda: b"<html>404 not found</html>", **LEFT_OUT),
    "really png.jpg": Case(lambda: encoded(draw(), "PNG")),
    "cmyk.jpg": Case(lambda: encoded(draw("CMYK")), reported=True),
    "gray.jpg": Case(lambda: encoded(draw("L"))),
    "palette.png": Case(lambda: encoded(draw("P"), "PNG")),
    "alpha.png": Case(lambda: encoded(draw("RGBA"), "PNG")),
    "16 bit.png": Case(
        lambda: encoded(Image.fromarray(np.asarray(draw("L")).astype(np.uint16) * 257), "PNG"), reported=True
    ),
    "modern.webp": Case(lambda: encoded(draw(), "WEBP"), reported=True),
    "exif1.jpg": Case(lambda: with_exif(1)),
    # A rotation by 180 degrees or a flip keeps the size, so it is unknown to which orientation the boxes refer.
    **{f"exif{i}.jpg": Case(functools.partial(with_exif, i), reported=True, boxes_match=False) for i in (2, 3, 4)},
    **{f"exif{i}.jpg": Case(functools.partial(with_exif, i), reported=True) for i in (5, 6, 7, 8)},
    "bomb.png": Case(bomb, **LEFT_OUT),
    "möwe 鳥 (1).jpg": Case(PLAIN),
    "no objects.jpg": Case(PLAIN, 0, boxes=[]),
    "5000 objects.jpg": Case(PLAIN, 5000, boxes=[(i % 40, i % 23, i % 40 + 2 + i / 5000, 30) for i in range(5000)]),
    "float.jpg": Case(PLAIN, boxes=[(8.25, 4.0, 27.75, 19.5)]),
    "sticking out.jpg": Case(PLAIN, reported=True, boxes=[(-5, 4, 500, 20)], boxes_match=False),
    "duplicate.jpg": Case(PLAIN, 2, reported=True, boxes=[BOX, BOX]),
    "nan.jpg": Case(PLAIN, reported=True, boxes=[BOX, (float("nan"), 4, 28, 20)]),
    "infinite.jpg": Case(PLAIN, reported=True, boxes=[BOX, (8, 4, float("inf"), 20)]),
    "inverted.jpg": Case(PLAIN, 0, reported=True, boxes=[(28, 20, 8, 4)]),
    "outside.jpg": Case(PLAIN, 0, reported=True, boxes=[(60, 4, 70, 20)]),
    "zero size.jpg": Case(PLAIN, 0, reported=True, boxes=[(8, 4, 8, 4)]),
    "unknown class.jpg": Case(PLAIN, 0, reported=True, class_name="unicorn"),
    "link.jpg": Case(None, **LEFT_OUT),  # a link to an image outside of the folder
    "missing.jpg": Case(None, **LEFT_OUT),
    "../secret.jpg": Case(None, **LEFT_OUT),
    "/absolute.jpg": Case(None, **LEFT_OUT),
}


def make_images(folder: Path):
    folder.mkdir(parents=True)
    for name, case in IMAGES.items():
        if case.content is not None:
            (folder / name).write_bytes(case.content())
    (folder.parent / "secret.jpg").write_bytes(PLAIN())
    (folder / "link.jpg").symlink_to("../secret.jpg")


def xml(boxes: list, class_name: str = "dog", before: str = "", size: str | None = None) -> str:
    sides = ("xmin", "ymin", "xmax", "ymax")
    objects = [
        f"<object><name>{class_name}</name><bndbox>"
        + "".join(f"<{side}>{value}</{side}>" for side, value in zip(sides, box))
        + "</bndbox></object>"
        for box in boxes
    ]
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>" if size is None else size
    return f"{before}<annotation><filename>x.jpg</filename>{size}{''.join(objects)}</annotation>"


LAUGHS = '<!ENTITY l0 "ha">' + "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
XMLS = {  # annotations of plain images: (content, kept, reported), see Case
    "billion laughs": (xml([BOX], "&l9;", before=f"<!DOCTYPE a [{LAUGHS}]>"), None, True),
    "external entity": (xml([BOX], "&x;", before='<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'), None, True),
    "external DTD": (xml([BOX], before='<!DOCTYPE a SYSTEM "http://localhost:9/a.dtd">'), None, True),
    "broken": (xml([BOX])[:-9], None, True),
    "empty": ("", None, True),
    "deep": ("<a>" * 100_000 + "</a>" * 100_000, None, True),
    "other size": (xml([BOX], size="<size><width>96</width><height>64</height></size>"), None, True),
    "no size": (xml([BOX], size=""), 1, False),
    "no xmax": (xml([BOX]).replace("<xmax>28</xmax>", ""), 0, True),
    "no bndbox": (xml([]).replace("</annotation>", "<object><name>dog</name></object></annotation>"), 0, True),
    "no name": (xml([BOX]).replace("<name>dog</name>", ""), 0, True),
}


def as_voc(root: Path) -> Source:
    make_images(root / "JPEGImages")
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for name, case in IMAGES.items():
        if not name.startswith((".", "/")):
            (root / "Annotations" / f"{Path(name).stem}.xml").write_text(xml(case.boxes, case.class_name))
    for name, (content, _, _) in XMLS.items():
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(PLAIN())
        (root / "Annotations" / f"{name}.xml").write_text(content)
    (root / "secret.xml").write_text(xml([BOX]))  # the file that ../secret would read
    ids = [name.removesuffix(Path(name).suffix) for name in IMAGES] + [*XMLS, "no annotation"]
    (root / "ImageSets/Main/train.txt").write_text("\n".join(ids))
    return pascal.load([VocSet(root, "train")], label_map={1: "dog"})


def as_coco(root: Path) -> Source:
    make_images(root / "images")
    images, annotations = [], []
    for image_id, (name, case) in enumerate(IMAGES.items(), start=1):
        images.append({"id": image_id, "file_name": name, "height": HEIGHT, "width": WIDTH})
        for xmin, ymin, xmax, ymax in case.boxes:
            category = {"dog": 1}.get(case.class_name, 99)
            row = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category}
            annotations.append({**row, "bbox": [xmin, ymin, xmax - xmin, ymax - ymin]})
    annotations.append({"id": 777_777, "image_id": 999, "category_id": 1, "bbox": [1, 1, 5, 5]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "dog"}]}
    (root / "instances.json").write_text(json.dumps(content))  # with NaN, which Python writes and reads
    return coco.load(root / "images", object_annotations_file=root / "instances.json")


@pytest.fixture(scope="module", params=[as_voc, as_coco], ids=["voc", "coco"])
def source(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("hostile") / "data")


@pytest.fixture(scope="module")
def converted(source, tmp_path_factory):
    """A folder with the output of one conversion of the hostile inputs; its prefix is "out"."""
    folder = tmp_path_factory.mktemp("converted")
    shards.write_shards(source, folder / "out", num_shards=2, num_threads=1, max_bad_fraction=1)
    return folder


def read_records(folder: Path) -> dict[str, tuple[tf.train.Example, dict]]:
    """Returns {file name: (record, decoded record)}."""
    found = {}
    for path in sorted(folder.glob("out*")):
        for raw in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            example = tf.train.Example.FromString(raw)
            name = example.features.feature["image/filename"].bytes_list.value[0].decode()
            assert name not in found
            found[name] = example, tfrecord.decode(raw)
    return found


def test_every_input_is_converted_or_reported(source, converted):
    expected = {name: (case.kept, case.reported) for name, case in IMAGES.items()}
    if source.write_groundtruth:  # VOC
        expected |= {f"{name}.jpg": result for name, (_, *result) in XMLS.items()}
        expected["no annotation.jpg"] = None, True
    records = read_records(converted)
    assert set(records) == {name for name, (kept, _) in expected.items() if kept is not None}
    report = json.loads((converted / "report_out.json").read_text())
    reported = [where for notes in report["reasons"].values() for where in notes["first"]]
    for name, (kept, is_reported) in expected.items():
        stem = name.removesuffix(Path(name).suffix)
        assert is_reported == any(stem in where for where in reported), (name, reported)
        if kept is not None:
            sample = records[name][1]
            assert (len(sample["boxes_norm"]), len(sample["classes"])) == (kept, kept), name
    assert report["images"] == len(records) and report["images_left_out"] == len(expected) - len(records)
    assert report["boxes"] == sum(len(sample["classes"]) for _, sample in records.values())


def test_records_describe_their_images(converted):
    for name, (example, sample) in read_records(converted).items():
        feature = example.features.feature
        stored = Image.open(io.BytesIO(feature["image/encoded"].bytes_list.value[0]))
        assert stored.format.lower() == feature["image/format"].bytes_list.value[0].decode(), name
        assert stored.getexif().get(0x0112, 1) == 1, name
        size = stored.height, stored.width
        assert size == tuple(int(sample[side]) for side in ("height", "width")) == sample["image"].shape[:2], name
        assert size == ((WIDTH, HEIGHT) if name in {f"exif{i}.jpg" for i in (5, 6, 7, 8)} else (HEIGHT, WIDTH)), name
        boxes = sample["boxes_norm"].numpy()
        assert np.all(boxes >= 0) and np.all(boxes <= 1) and np.all(boxes[:, 2:] > boxes[:, :2]), name


def test_boxes_match_the_object_in_the_image(converted):
    records = read_records(converted)
    for name, case in IMAGES.items():
        if case.boxes_match and case.kept in (1, 2):
            sample = records[name][1]
            bright = np.argwhere(sample["image"].numpy().mean(axis=-1) > 125)
            expected = np.concatenate([bright.min(axis=0), bright.max(axis=0) + 1])
            box = sample["boxes_norm"].numpy()[0] * np.tile(sample["image"].shape[:2], 2)
            np.testing.assert_allclose(box, expected, atol=0.6, err_msg=name)


def test_groundtruth_file_matches_the_records(source, converted):
    if not source.write_groundtruth:  # COCO
        assert not (converted / "json_out.json").exists()  # the annotations are the groundtruth
        return
    content, records = json.loads((converted / "json_out.json").read_text()), read_records(converted)
    assert {image["file_name"] for image in content["images"]} == set(records)
    for image in content["images"]:
        _, sample = records[image["file_name"]]
        assert str(image["id"]) == sample["source_id"].numpy().decode()
        xywh = np.reshape([a["bbox"] for a in content["annotations"] if a["image_id"] == image["id"]], [-1, 4])
        corners = xywh @ [[0, 1, 0, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
        boxes = sample["boxes_norm"].numpy() * np.tile([image["height"], image["width"]], 2)
        np.testing.assert_allclose(corners, boxes, atol=1e-3, err_msg=image["file_name"])


def test_output_does_not_depend_on_the_number_of_threads(source, converted, tmp_path):
    shards.write_shards(source, tmp_path / "out", num_shards=2, num_threads=4, max_bad_fraction=1)
    names = sorted(path.name for path in converted.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name in names:
        assert (tmp_path / name).read_bytes() == (converted / name).read_bytes(), name


def test_too_many_damaged_inputs_are_an_error(source, tmp_path):
    with pytest.raises(tfrecord.DataError) as error:
        shards.write_shards(source, tmp_path / "out", num_shards=2)
    assert "\n" not in str(error.value) and "max_bad_fraction" in str(error.value)
    assert not list(tmp_path.glob("out*")) and not (tmp_path / "json_out.json").exists()


SLOW_RUN = """
import dataclasses, signal, time
from dataset.convert import coco, shards
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
source = coco.load("images", object_annotations_file="instances.json")
def slow(item, report):
    print("reading", flush=True)
    time.sleep(0.3)  # 36 images: 11 s
    return source.read(item, report)
slow_source = dataclasses.replace(source, read=slow)
shards.write_shards(slow_source, "out/train", num_shards=2, num_threads=1, max_bad_fraction=1)
"""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_conversion_leaves_no_complete_files(tmp_path, stop):
    source, environment = as_coco(tmp_path / "data"), {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SLOW_RUN]
    with subprocess.Popen(command, cwd=tmp_path / "data", env=environment, stdout=subprocess.PIPE, text=True) as run:
        assert [run.stdout.readline() for _ in range(3)] == ["reading\n"] * 3
        run.send_signal(stop)
        rest, _ = run.communicate(timeout=20)
    assert run.returncode != 0 and rest.count("reading") < 10
    assert not list((tmp_path / "data/out").glob("train*"))
    shards.write_shards(source, tmp_path / "data/out/train", num_shards=2, num_threads=1, max_bad_fraction=1)
    names = sorted(path.name for path in (tmp_path / "data/out").iterdir())
    assert names == ["report_train.json", "train-00000-of-00002.tfrecord", "train-00001-of-00002.tfrecord"]
