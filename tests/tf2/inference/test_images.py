# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""infer: which pictures are read, what is written, and that boxes are drawn where the detector says."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from dataset import visualize
from efficientdet.postprocess import Detections
from tf2.inference import images as infer


class OneBox:
    """Stands in for a driver: one sure box in the middle of each picture, and one unsure over all of it."""

    def __init__(self):
        self.names, self.batches = {1: "square"}, []

    def serve(self, images):
        self.batches.append([image.shape[:2] for image in images])
        heights, widths = np.array([image.shape[:2] for image in images]).T
        middle = np.stack([heights / 4, widths / 4, heights * 3 / 4, widths * 3 / 4], -1)
        boxes = np.stack([middle, np.stack([0 * heights, 0 * widths, heights, widths], -1)], 1)
        scores, classes = np.tile([0.9, 0.3], [len(images), 1]), np.ones((len(images), 2), np.int32)
        return Detections(boxes, scores, classes, np.full(len(images), 2))


@pytest.fixture
def pictures(tmp_path):
    """A folder of grey pictures b.png (120 x 160), a.jpg (100 x 50), c.png (120 x 160), and a text file."""
    folder = tmp_path / "in [1]"
    folder.mkdir()
    for name, size in (("b.png", (120, 160)), ("a.jpg", (100, 50)), ("c.png", (120, 160))):
        Image.fromarray(np.full((*size, 3), 128, np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def run(pattern, out, driver=None, outputs=None, **options):
    options = {"min_score_thresh": 0.4, "max_boxes_to_draw": 100, "line_thickness": None, **options}
    return infer.run(driver or OneBox(), str(pattern), outputs or infer.Outputs(str(out)), **options)


def changed(path, grey=128):
    """[H, W] bool: pixels that are no longer grey."""
    return np.any(np.abs(np.asarray(Image.open(path)).astype(int) - grey) > 60, axis=-1)


@pytest.mark.parametrize("batch_size, batches", [(1, [1, 1, 1]), (2, [2, 1]), (9, [3])])
def test_a_folder_is_read_in_order_of_its_names(pictures, tmp_path, batch_size, batches):
    driver = OneBox()
    written = run(pictures, tmp_path / "new" / "out", driver, batch_size=batch_size)
    assert written == [str(tmp_path / "new" / "out" / f"{i}.jpg") for i in range(3)]
    assert [len(batch) for batch in driver.batches] == batches
    assert [size for batch in driver.batches for size in batch] == [(100, 50), (120, 160), (120, 160)]  # a, b, c
    assert [Image.open(path).size for path in written] == [(50, 100), (160, 120), (160, 120)]


def test_a_file_and_a_glob(pictures, tmp_path):
    assert len(run(pictures / "b.png", tmp_path / "file")) == 1
    copy = tmp_path / "plain"
    pictures.rename(copy)
    assert infer.find_images(f"{copy}/*.png") == [f"{copy}/b.png", f"{copy}/c.png"]
    assert len(run(copy / "*.png", tmp_path / "glob")) == 2


def test_boxes_are_drawn_where_they_are(pictures, tmp_path):
    [path] = run(pictures / "b.png", tmp_path / "out", line_thickness=2)
    drawn = changed(path)
    assert drawn[31:89, 40].all() and drawn[31:89, 119].all() and drawn[89, 41:119].all()  # left, right, bottom edge
    assert not drawn[40:80, 50:110].any()  # nothing inside
    assert not drawn[95:].any() and not drawn[:, 125:].any()  # nothing outside: the unsure box is not there


def test_what_is_drawn_can_be_chosen(pictures, tmp_path):
    image = np.full((120, 160, 3), 128, np.uint8)
    options = {"names": {1: "square"}, "line_thickness": 3}
    boxes = [[30, 40, 90, 120], [0, 0, 120, 160]]
    for name, chosen in (
        ("both", {"min_score_thresh": 0.1}),
        ("best", {"min_score_thresh": 0.1, "max_boxes_to_draw": 1}),
    ):
        [path] = run(pictures / "b.png", tmp_path / name, line_thickness=3, **chosen)
        expected = visualize.draw_boxes(image, boxes, [1, 1], [0.9, 0.3], **{**options, **chosen})
        assert np.mean(np.abs(np.asarray(Image.open(path)).astype(int) - expected)) < 8  # JPEG
    assert changed(tmp_path / "both" / "0.jpg")[119, 80] and not changed(tmp_path / "best" / "0.jpg")[119, 80]


def test_an_unreadable_file_is_named_and_keeps_its_number(pictures, tmp_path, capsys):
    (pictures / "b.png").write_bytes(b"no picture")
    (pictures / "c.png").write_bytes((pictures / "a.jpg").read_bytes()[:300])
    (pictures / "d.jpg").write_bytes((pictures / "a.jpg").read_bytes())
    with pytest.raises(
        ValueError, match=r"2 of 4 pictures could not be read or drawn, the others are done: .*b\.png.*c\.png"
    ):
        run(pictures, tmp_path / "out", batch_size=3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.jpg", "3.jpg"]
    assert capsys.readouterr().out.splitlines() == [f"writing file to {tmp_path / 'out' / f'{i}.jpg'}" for i in (0, 3)]


def test_no_readable_picture_is_an_error(pictures, tmp_path):
    with pytest.raises(
        ValueError, match=r"1 of 1 pictures could not be read or drawn, the others are done: .*notes\.jpg"
    ):
        (pictures / "notes.txt").rename(pictures / "notes.jpg")
        run(pictures / "notes.jpg", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    for pattern in (tmp_path / "empty", tmp_path / "none.jpg", tmp_path / "*.gif"):
        with pytest.raises(ValueError, match=r"no picture at .*; give a file, a folder, a glob in quotes, or a"):
            run(pattern, tmp_path / "out")


def test_pictures_become_rgb_and_upright(tmp_path):
    pixels = np.zeros((4, 6), np.uint8)
    pixels[0] = 200
    picture, turned = Image.fromarray(pixels), Image.Exif()
    turned[0x0112] = 6  # to be shown turned to the right by 90 degrees
    picture.save(tmp_path / "grey.png", exif=turned)
    image = infer.read_image(str(tmp_path / "grey.png"))
    assert image.shape == (6, 4, 3) and image.dtype == np.uint8
    assert np.all(image[:, 3] == 200) and np.all(image[:, :3] == 0)
    Image.fromarray(np.full((4, 6, 4), 77, np.uint8)).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(infer.read_image(str(tmp_path / "alpha.png")), np.full((4, 6, 3), 77))


def test_a_list_is_relative_to_its_folder(pictures, tmp_path):
    (pictures / "notes.txt").write_text("c.png\n\n# not this: b.png\n  ./a.jpg \n")
    assert [path.rpartition("/")[2] for path in infer.find_images(str(pictures / "notes.txt"))] == ["c.png", "a.jpg"]
    (pictures / "notes.txt").write_text("c.png\nnone.png\n")
    with pytest.raises(ValueError, match=r"names 'none\.png', and there is no file .*none\.png"):
        run(pictures / "notes.txt", tmp_path / "out")


def test_detections_as_lists_name_their_source(pictures, tmp_path):
    outputs = infer.Outputs(
        json=str(tmp_path / "a.json"), csv=str(tmp_path / "a.csv"), coco=str(tmp_path / "coco.json")
    )
    (pictures / "b.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="1 of 3 pictures could not be read or drawn, the others are done"):
        run(pictures, None, outputs=outputs, min_score_thresh=0.1)
    images = json.loads((tmp_path / "a.json").read_text())["images"]
    assert [(image["id"], image["file"]) for image in images] == [(0, f"{pictures}/a.jpg"), (2, f"{pictures}/c.png")]
    assert (images[0]["height"], images[0]["width"]) == (100, 50)
    first = {"box": [25, 12.5, 75, 37.5], "score": 0.9, "class": 1, "name": "square"}  # by hand: the middle of 100 x 50
    assert images[0]["detections"][0] == first and len(images[0]["detections"]) == 2

    lines = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert len(lines) == 4 and lines[0]["file"] == f"{pictures}/a.jpg" and lines[0]["name"] == "square"
    assert [float(lines[0][side]) for side in ("ymin", "xmin", "ymax", "xmax")] == [25, 12.5, 75, 37.5]

    results = json.loads((tmp_path / "coco.json").read_text())
    assert [result["image_id"] for result in results] == [0, 0, 2, 2]
    assert results[0] == {
        "image_id": 0,
        "category_id": 1,
        "bbox": [12.5, 25, 25, 50],
        "score": 0.9,
        "file_name": f"{pictures}/a.jpg",
    }
    assert not list(tmp_path.glob(".unfinished*"))


def test_a_name_that_is_not_utf_8_loses_nothing(pictures, tmp_path):
    name = "\udce4.png"  # as Python has the byte 0xe4
    shutil.copy(pictures / "b.png", pictures / name)
    outputs = infer.Outputs(json=str(tmp_path / "a.json"), csv=str(tmp_path / "a.csv"), coco=str(tmp_path / "c.json"))
    run(pictures, None, outputs=outputs)
    assert json.loads((tmp_path / "a.json").read_text())["images"][-1]["file"] == f"{pictures}/{name}"
    assert r"\udce4.png" in (tmp_path / "a.csv").read_text()


def test_names_of_the_inputs(pictures, tmp_path):
    written = run(pictures, None, outputs=infer.Outputs(str(tmp_path / "out"), "input"))
    assert [path.rpartition("/")[2] for path in written] == ["a.jpg", "b.jpg", "c.jpg"]
    (pictures / "a.png").write_bytes((pictures / "b.png").read_bytes())
    with pytest.raises(ValueError, match=r"several pictures are called 'a' .* use --output_names=index"):
        run(pictures, None, outputs=infer.Outputs(str(tmp_path / "out"), "input"))


def test_what_cannot_be_written_is_told_before_the_first_detection(pictures, tmp_path):
    driver = OneBox()
    cases = {
        "is one of the inputs and would be overwritten": infer.Outputs(str(pictures), "input"),
        "expected a file in a folder that exists": infer.Outputs(json=str(tmp_path / "none" / "a.json")),
        "expected a file in a folder": infer.Outputs(csv=str(tmp_path)),
        "output_names must be one of index, input, got 'x'": infer.Outputs(str(tmp_path / "out"), "x"),
    }
    for sentence, outputs in cases.items():
        with pytest.raises(ValueError, match=sentence):
            run(pictures, None, driver, outputs=outputs)
    assert not driver.batches


def test_no_file_of_results_takes_the_place_of_another_or_of_an_input(pictures, tmp_path):
    driver, one, before = OneBox(), str(tmp_path / "one.json"), (pictures / "b.png").read_bytes()
    (tmp_path / "file").touch()
    for outputs, message in (
        (infer.Outputs(json=str(pictures / "b.png")), r"b\.png is one of the inputs and would be overwritten; choose"),
        (infer.Outputs(json=one, coco=one), "one file cannot take several kinds of results; give each its own"),
        (infer.Outputs(json="/proc/found.json"), r"/proc cannot be written to \(.*\); change its permissions"),
        (infer.Outputs(str(tmp_path / "file")), r"file cannot be written to \(File exists\); change its permissions"),
    ):
        with pytest.raises(ValueError, match=message):
            run(pictures, None, driver, outputs)
    assert driver.batches == [] and (pictures / "b.png").read_bytes() == before


def test_a_picture_too_long_for_a_jpeg_is_detected_and_named(tmp_path):
    Image.new("RGB", (66_000, 8)).save(tmp_path / "long.png")
    outputs = infer.Outputs(str(tmp_path / "out"), json=str(tmp_path / "found.json"))
    with pytest.raises(ValueError, match=r"long\.png is detected but not drawn: a JPEG has up to 65500 pixels a side"):
        run(tmp_path / "long.png", None, outputs=outputs)
    assert json.loads((tmp_path / "found.json").read_text())["images"][0]["width"] == 66_000
    assert list((tmp_path / "out").iterdir()) == []
