# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""images: which image files are read, what is written, and that boxes are drawn at the right place."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from dataset import visualize
from dataset.check.class_ids import NamedIds
from dataset.convert import image_file
from efficientdet.config import Config
from efficientdet.postprocess import Detections
from tf2.benchmarks import latency
from tf2.export import export
from tf2.inference import images


class OneBox:
    """A fake driver: a box of score 0.9 in the middle of each image, and one of score 0.3 around all of it."""

    def __init__(self):
        self.names, self.batches = {1: "square"}, []

    def serve(self, batch):
        self.batches.append([image.shape[:2] for image in batch])
        heights, widths = np.array([image.shape[:2] for image in batch]).T
        middle = np.stack([heights / 4, widths / 4, heights * 3 / 4, widths * 3 / 4], -1)
        boxes = np.stack([middle, np.stack([0 * heights, 0 * widths, heights, widths], -1)], 1)
        scores, classes = np.tile([0.9, 0.3], [len(batch), 1]), np.ones((len(batch), 2), np.int32)
        return Detections(boxes, scores, classes, np.full(len(batch), 2))


@pytest.fixture
def folder(tmp_path):
    """A folder with gray images b.png (120 x 160), a.jpg (100 x 50), c.png (120 x 160), and a text file."""
    folder = tmp_path / "in [1]"
    folder.mkdir()
    for name, size in (("b.png", (120, 160)), ("a.jpg", (100, 50)), ("c.png", (120, 160))):
        Image.fromarray(np.full((*size, 3), 128, np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def run(pattern, out, driver=None, outputs=None, **options):
    options = {"min_score_thresh": 0.4, "max_boxes_to_draw": 100, "line_thickness": None, **options}
    return images.run(driver or OneBox(), str(pattern), outputs or images.OutputPaths(str(out)), **options)


def changed(path, gray=128):
    """Returns [H, W] bool: pixels that are no longer gray."""
    return np.any(np.abs(np.asarray(Image.open(path)).astype(int) - gray) > 60, axis=-1)


@pytest.mark.parametrize("batch_size, batches", [(1, [1, 1, 1]), (2, [2, 1]), (9, [3])])
def test_a_folder_is_read_in_order_of_its_names(folder, tmp_path, batch_size, batches):
    driver = OneBox()
    written = run(folder, tmp_path / "new" / "out", driver, batch_size=batch_size)
    assert written == [str(tmp_path / "new" / "out" / f"{i}.jpg") for i in range(3)]
    assert [len(batch) for batch in driver.batches] == batches
    assert [size for batch in driver.batches for size in batch] == [(100, 50), (120, 160), (120, 160)]  # a, b, c
    assert [Image.open(path).size for path in written] == [(50, 100), (160, 120), (160, 120)]


def test_a_file_and_a_glob(folder, tmp_path):
    assert len(run(folder / "b.png", tmp_path / "file")) == 1
    copy = tmp_path / "plain"
    folder.rename(copy)
    assert images.find_images(f"{copy}/*.png") == [f"{copy}/b.png", f"{copy}/c.png"]
    assert len(run(copy / "*.png", tmp_path / "glob")) == 2


def test_boxes_are_drawn_where_they_are(folder, tmp_path):
    [path] = run(folder / "b.png", tmp_path / "out", line_thickness=2)
    drawn = changed(path)
    assert drawn[31:89, 40].all() and drawn[31:89, 119].all() and drawn[89, 41:119].all()  # left, right, bottom edge
    assert not drawn[40:80, 50:110].any()  # nothing inside
    assert not drawn[95:].any() and not drawn[:, 125:].any()  # nothing outside: the box of score 0.3 is not drawn


def test_threshold_and_number_of_boxes(folder, tmp_path):
    image = np.full((120, 160, 3), 128, np.uint8)
    options = {"names": {1: "square"}, "line_thickness": 3}
    boxes = [[30, 40, 90, 120], [0, 0, 120, 160]]
    for name, chosen in (
        ("both", {"min_score_thresh": 0.1}),
        ("best", {"min_score_thresh": 0.1, "max_boxes_to_draw": 1}),
    ):
        [path] = run(folder / "b.png", tmp_path / name, line_thickness=3, **chosen)
        expected = visualize.draw_boxes(image, boxes, [1, 1], [0.9, 0.3], **{**options, **chosen})
        assert np.mean(np.abs(np.asarray(Image.open(path)).astype(int) - expected)) < 8  # JPEG
    assert changed(tmp_path / "both" / "0.jpg")[119, 80] and not changed(tmp_path / "best" / "0.jpg")[119, 80]


def test_an_unreadable_file_is_named_and_keeps_its_index(folder, tmp_path, capsys):
    (folder / "b.png").write_bytes(b"no image")
    (folder / "c.png").write_bytes((folder / "a.jpg").read_bytes()[:300])
    (folder / "d.jpg").write_bytes((folder / "a.jpg").read_bytes())
    with pytest.raises(
        ValueError, match=r"2 of 4 images could not be read or drawn, the others are done: .*b\.png.*c\.png"
    ):
        run(folder, tmp_path / "out", batch_size=3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.jpg", "3.jpg"]
    assert capsys.readouterr().out.splitlines() == [f"writing file to {tmp_path / 'out' / f'{i}.jpg'}" for i in (0, 3)]


def test_no_readable_image_is_an_error(folder, tmp_path):
    with pytest.raises(
        ValueError, match=r"1 of 1 images could not be read or drawn, the others are done: .*notes\.jpg"
    ):
        (folder / "notes.txt").rename(folder / "notes.jpg")
        run(folder / "notes.jpg", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    for pattern in (tmp_path / "empty", tmp_path / "none.jpg", tmp_path / "*.gif"):
        with pytest.raises(ValueError, match=r"no image at .*; give a file, a folder, a glob in quotes, or a"):
            run(pattern, tmp_path / "out")


def test_images_become_rgb_and_upright(tmp_path):
    pixels = np.zeros((4, 6), np.uint8)
    pixels[0] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # to be displayed rotated by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "gray.png", exif=exif)
    image = image_file.read_pixels(str(tmp_path / "gray.png"))
    assert image.shape == (6, 4, 3) and image.dtype == np.uint8
    assert np.all(image[:, 3] == 200) and np.all(image[:, :3] == 0)
    Image.fromarray(np.full((4, 6, 4), 77, np.uint8)).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(image_file.read_pixels(str(tmp_path / "alpha.png")), np.full((4, 6, 3), 77))


def test_paths_in_a_list_are_relative_to_its_folder(folder, tmp_path):
    (folder / "notes.txt").write_text("c.png\n\n# not this: b.png\n  ./a.jpg \n")
    assert [path.rpartition("/")[2] for path in images.find_images(str(folder / "notes.txt"))] == ["c.png", "a.jpg"]
    (folder / "notes.txt").write_text("c.png\nnone.png\n")
    with pytest.raises(ValueError, match=r"names 'none\.png', but there is no file .*none\.png"):
        run(folder / "notes.txt", tmp_path / "out")


def test_lists_of_detections_name_their_files(folder, tmp_path):
    outputs = images.OutputPaths(
        json=str(tmp_path / "a.json"), csv=str(tmp_path / "a.csv"), coco=str(tmp_path / "coco.json")
    )
    (folder / "b.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="1 of 3 images could not be read or drawn, the others are done"):
        run(folder, None, outputs=outputs, min_score_thresh=0.1)
    entries = json.loads((tmp_path / "a.json").read_text())["images"]
    assert [(entry["id"], entry["file"]) for entry in entries] == [(0, f"{folder}/a.jpg"), (2, f"{folder}/c.png")]
    assert (entries[0]["height"], entries[0]["width"]) == (100, 50)
    first = {"box": [25, 12.5, 75, 37.5], "score": 0.9, "class": 1, "name": "square"}  # by hand: the middle of 100 x 50
    assert entries[0]["detections"][0] == first and len(entries[0]["detections"]) == 2

    lines = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert len(lines) == 4 and lines[0]["file"] == f"{folder}/a.jpg" and lines[0]["name"] == "square"
    assert [float(lines[0][side]) for side in ("ymin", "xmin", "ymax", "xmax")] == [25, 12.5, 75, 37.5]

    results = json.loads((tmp_path / "coco.json").read_text())
    assert [result["image_id"] for result in results] == [0, 0, 2, 2]
    assert results[0] == {
        "image_id": 0,
        "category_id": 1,
        "bbox": [12.5, 25, 25, 50],
        "score": 0.9,
        "file_name": f"{folder}/a.jpg",
    }
    assert not list(tmp_path.glob(".unfinished*"))


def test_a_file_name_that_is_not_utf_8_is_escaped(folder, tmp_path):
    name = "\udce4.png"  # the byte 0xe4 in Python
    shutil.copy(folder / "b.png", folder / name)
    outputs = images.OutputPaths(
        json=str(tmp_path / "a.json"), csv=str(tmp_path / "a.csv"), coco=str(tmp_path / "c.json")
    )
    run(folder, None, outputs=outputs)
    assert json.loads((tmp_path / "a.json").read_text())["images"][-1]["file"] == f"{folder}/{name}"
    assert r"\udce4.png" in (tmp_path / "a.csv").read_text()


def test_output_names_of_the_inputs(folder, tmp_path):
    written = run(folder, None, outputs=images.OutputPaths(str(tmp_path / "out"), "input"))
    assert [path.rpartition("/")[2] for path in written] == ["a.jpg", "b.jpg", "c.jpg"]
    (folder / "a.png").write_bytes((folder / "b.png").read_bytes())
    with pytest.raises(ValueError, match=r"several images are named 'a' .* use --output_names=index"):
        run(folder, None, outputs=images.OutputPaths(str(tmp_path / "out"), "input"))


def test_invalid_outputs_are_refused_before_the_first_detection(folder, tmp_path):
    driver = OneBox()
    cases = {
        "is one of the inputs and would be overwritten": images.OutputPaths(str(folder), "input"),
        "expected a file in a folder that exists": images.OutputPaths(json=str(tmp_path / "none" / "a.json")),
        "expected a file in a folder": images.OutputPaths(csv=str(tmp_path)),
        "output_names must be one of index, input, got 'x'": images.OutputPaths(str(tmp_path / "out"), "x"),
    }
    for message, outputs in cases.items():
        with pytest.raises(ValueError, match=message):
            run(folder, None, driver, outputs=outputs)
    assert not driver.batches


def test_results_never_replace_each_other_or_an_input(folder, tmp_path):
    driver, one, before = OneBox(), str(tmp_path / "one.json"), (folder / "b.png").read_bytes()
    (tmp_path / "file").touch()
    for outputs, message in (
        (
            images.OutputPaths(json=str(folder / "b.png")),
            r"b\.png is one of the inputs and would be overwritten; choose",
        ),
        (images.OutputPaths(json=one, coco=one), "one file cannot take several kinds of results; give each its own"),
        (images.OutputPaths(json="/proc/found.json"), r"/proc cannot be written to \(.*\); change its permissions"),
        (
            images.OutputPaths(str(tmp_path / "file")),
            r"file cannot be written to \(File exists\); change its permissions",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            run(folder, None, driver, outputs)
    assert driver.batches == [] and (folder / "b.png").read_bytes() == before


def test_an_image_too_large_for_a_jpeg_is_listed_and_named(tmp_path):
    Image.new("RGB", (66_000, 8)).save(tmp_path / "long.png")
    outputs = images.OutputPaths(str(tmp_path / "out"), json=str(tmp_path / "found.json"))
    with pytest.raises(
        ValueError, match=r"long\.png is listed but not drawn: a JPEG has at most 65500 pixels per side"
    ):
        run(tmp_path / "long.png", None, outputs=outputs)
    assert json.loads((tmp_path / "found.json").read_text())["images"][0]["width"] == 66_000
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def nested(folder):
    """The images of `folder`, one of them in a subfolder, between files that are never data."""
    plain = folder.with_name("nested")
    folder.rename(plain)
    for name in ("sub/deep/d.jpg", ".ipynb_checkpoints/a-checkpoint.jpg", "sub/__MACOSX/e.jpg", "._a.jpg"):
        (plain / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(plain / "a.jpg", plain / name)
    return plain


def test_globs_are_recursive_and_hidden_files_are_no_images(nested, caplog):
    assert images.find_images(str(nested)) == [str(nested / name) for name in ("a.jpg", "b.png", "c.png")]
    assert images.find_images(f"{nested}/**/*.jpg") == [str(nested / name) for name in ("a.jpg", "sub/deep/d.jpg")]
    assert images.find_images(f"{nested}/*.jpg") == [str(nested / "a.jpg")]
    assert [message.partition(" (")[0] for message in caplog.messages] == [
        "hidden files ignored: 1",
        "hidden files ignored: 3",
    ]
    with pytest.raises(ValueError, match="no image at"):
        images.find_images(f"{nested}/._*.jpg")


def test_parity_and_benchmark_take_the_same_globs(nested):
    pattern = f"{nested}/**/*.jpg"
    arguments = export._parity_arguments(Config(), export.ParityOptions(pattern), NamedIds((), "no checkpoint"))
    assert [image.shape for image in arguments["images"]] == [(100, 50, 3)] * 2
    with latency._paths(pattern, 3) as paths:
        assert paths == [str(nested / name) for name in ("a.jpg", "sub/deep/d.jpg", "a.jpg")]


@pytest.mark.parametrize("kept, is_read", [(-20, True), (400, False)])
def test_an_image_without_its_end_is_read_with_a_warning(tmp_path, caplog, kept, is_read):
    pixels = np.random.RandomState(0).randint(0, 256, (12, 16, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(pixels).save(tmp_path / "whole.jpg", quality=95)
    path = tmp_path / "a.jpg"
    path.write_bytes((tmp_path / "whole.jpg").read_bytes()[:kept])
    if is_read:
        assert len(run(path, tmp_path / "out")) == 1
        assert caplog.messages == [f"image {path} is truncated, at most 10% of the pixels lost"]
    else:
        with pytest.raises(
            ValueError, match=r"1 of 1 images could not be read .*cannot read image .*a\.jpg: .*[Tt]runcated"
        ):
            run(path, tmp_path / "out")
