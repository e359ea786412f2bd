# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/check/inspection.py: the drawn images and boxes are those of training and evaluation."""

import io
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dataset import tfrecord
from dataset.check import inspection
from dataset.dataloader import InputReader
from dataset.visualize import class_color
from efficientdet import config as config_lib
from efficientdet.hparams import read_hparams

SAMPLE = str(pathlib.Path(__file__).parents[3] / "testdata" / "sample.tfrecord")


def load(hparams=""):
    return config_lib.load("efficientdet-lite0", hparams, image_size=96, num_classes=3)


def without_augmentation():
    return load("jitter_min=1,jitter_max=1,input_rand_hflip=false")


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def write_records(path, *images_and_boxes, **columns):
    """Writes a record per pair of an image and its boxes in [0, 1], with the source ids 1, 2, ..."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for i, (image, boxes) in enumerate(images_and_boxes, start=1):
            height, width = image.shape[:2]
            record = tfrecord.Record(
                png(image), height, width, f"{i}.png", str(i), "png", boxes, [1] * len(boxes), **columns
            )
            writer.write(tfrecord.encode(record))
    return str(path)


def noise(height, width, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "colors", ["", "mean_rgb=[120,110,100],stddev_rgb=[60,50,40]", "mean_rgb=0,stddev_rgb=1,scale_range=true"]
)
@pytest.mark.parametrize("images", [inspection.training_images, inspection.evaluation_images])
def test_pixels_equal_those_of_the_record_for_all_color_constants(tmp_path, colors, images):
    image = noise(96, 96)
    pattern = write_records(tmp_path / "a", (image, [[0.25, 0.5, 0.75, 0.875]]))
    config = without_augmentation().override(read_hparams(colors))
    [drawn] = images(InputReader(pattern, config), 1)
    np.testing.assert_array_equal(drawn.image, image)
    np.testing.assert_allclose(drawn.boxes, [[24, 48, 72, 84]], atol=1e-3)
    assert drawn.classes.tolist() == [1] and drawn.title == "image 1"


def test_evaluation_images_are_in_file_order(tmp_path):
    pairs = [(noise(48, 24, i), [[0, 0, 0.5, 1]] * i) for i in range(3)]
    pattern = write_records(tmp_path / "a", *pairs)
    images = list(inspection.evaluation_images(InputReader(pattern, load()), 10))
    assert [image.title for image in images] == ["image 1", "image 2", "image 3"]
    assert [len(image.boxes) for image in images] == [0, 1, 2]  # without the padding
    np.testing.assert_allclose(images[2].boxes, [[0, 0, 48, 48]] * 2)  # in pixels of the input, which is twice as large


def test_boxes_match_the_objects_after_augmentation(tmp_path):
    """Compares boxes with the white object on black in twenty augmented images."""
    image = np.zeros((96, 96, 3), np.uint8)
    image[30:60, 20:70] = 255
    pattern = write_records(tmp_path / "a", (image, np.array([[30, 20, 60, 70]]) / 96))
    found = 0
    for labeled in inspection.training_images(InputReader(pattern, load("jitter_min=0.5")), 20):
        bright = labeled.image.mean(axis=-1) > 191  # more than the padding
        if len(labeled.boxes):
            rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
            np.testing.assert_allclose(labeled.boxes[0], [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], atol=2)
            found += 1
        else:
            assert bright.sum() <= 96  # at most a line at the border
    assert found >= 15


def test_written_files_and_printed_lines(tmp_path, capsys):
    """Three records, one of them without objects; boxes have the color of their class."""
    pairs = [(np.zeros((96, 96, 3), np.uint8), boxes) for boxes in ([[0.25, 0.25, 0.75, 0.75]], [], [[0, 0, 1, 1]] * 2)]
    pattern = write_records(tmp_path / "a", *pairs)
    folder = tmp_path / "made" / "here"
    inspection.run(pattern, folder, without_augmentation(), samples=5, evaluation=True)
    assert capsys.readouterr().out.splitlines() == [
        f"writing {folder}/sample0.jpg: image 1, boxes: 1",
        f"writing {folder}/sample1.jpg: image 2, boxes: 0",
        f"writing {folder}/sample2.jpg: image 3, boxes: 2",
        "found only 3 images for 5 requested samples",
        f"writing {folder}/contact_sheet.jpg: 7 tiles, of image 1",
        f"wrote 3 images, 1 of them without boxes, and a contact sheet to {folder}",
    ]
    assert sorted(path.name for path in folder.iterdir()) == [
        "contact_sheet.jpg",
        "sample0.jpg",
        "sample1.jpg",
        "sample2.jpg",
    ]
    drawn, empty = (np.array(Image.open(folder / f"sample{i}.jpg")).astype(int) for i in (0, 1))
    np.testing.assert_allclose(drawn[50, 24], class_color(1), atol=40)  # JPEG
    assert not empty.any()
    sheet = Image.open(folder / "contact_sheet.jpg")
    tile, caption = inspection.TILE, inspection.CAPTION
    assert sheet.size == (3 * tile, 3 * (tile + caption))  # seven tiles


@pytest.mark.parametrize(
    "policy, expected",
    [
        ("test", {"Equalize, level 10", "TranslateX_BBox, level 4"}),
        (  # by hand from v0: each operation once, at its highest level, and not Sharpness, whose probability is 0
            "v0",
            {
                "Color, level 6", "Cutout, level 8", "Equalize, level 10", "Rotate_BBox, level 10",
                "ShearX_BBox, level 0", "ShearY_BBox, level 2", "TranslateX_BBox, level 4",
                "TranslateY_Only_BBoxes, level 6",
            },
        ),
    ],
)  # fmt: skip
def test_operations_of_the_policy_and_of_the_other_keys(policy, expected):
    titles = set(inspection.operations([], load(f"autoaugment_policy={policy},mosaic=true")))
    others = {
        "grid_mask (not in use)",
        "mosaic",
        "input_rand_hflip",
        *(f"jitter 0.1 to 2, window {i}" for i in (1, 2, 3)),
    }
    assert titles == expected | others


def test_every_tile_shows_its_operation(tmp_path):
    """Each operation changes an image of noise; a tile without a change has it in its title."""
    boxes = [[0.2, 0.2, 0.4, 0.6], [0.5, 0.5, 0.9, 0.9]]
    pattern = write_records(tmp_path / "a", (noise(300, 320), []), (noise(300, 320, 1), boxes), is_crowd=())
    config = load("autoaugment_policy=v0")
    samples = inspection.first_samples(InputReader(pattern, config), 4)
    assert [sample["source_id"].numpy() for sample in samples] == [b"2"] * 4  # the only one with objects
    tiles = {tile.title: tile for tile in inspection.operation_tiles(samples, config)}
    original = tiles.pop("image 2")
    np.testing.assert_allclose(original.boxes, np.array(boxes) * [300, 320, 300, 320], rtol=1e-5)
    same = [title for title, tile in tiles.items() if np.array_equal(tile.image, original.image)]
    assert same == ["ShearX_BBox, level 0: no change"]
    flipped = tiles["input_rand_hflip"]
    np.testing.assert_array_equal(flipped.image, original.image[:, ::-1])
    np.testing.assert_allclose(flipped.boxes[0], [60, 128, 120, 256], rtol=1e-5)  # 320 - 192, 320 - 64
    moved = tiles["TranslateX_BBox, level 4"].boxes[:, 1].min() - original.boxes[:, 1].min()
    assert moved == pytest.approx(100, abs=1e-3) or moved == pytest.approx(-64, abs=1e-3)  # or clipped at the border
    np.testing.assert_array_equal(tiles["Color, level 6"].boxes, original.boxes)
    inside = tiles["TranslateY_Only_BBoxes, level 6"].image  # 72 px, more than the height of the first box
    np.testing.assert_array_equal(inside[60:120, 64:192], 128)
    np.testing.assert_array_equal(inside[:60], original.image[:60])
    assert len(tiles["mosaic (not in use)"].image) == 96


def test_crowds_are_drawn_if_training_keeps_them(tmp_path):
    pattern = write_records(tmp_path / "a", (noise(96, 96), [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]), is_crowd=[1, 0])
    for skip, count in ((True, 1), (False, 2)):
        config = without_augmentation().override({"skip_crowd_during_training": skip})
        reader = InputReader(pattern, config)
        [labeled] = inspection.training_images(reader, 1)
        tiles = inspection.operation_tiles(inspection.first_samples(reader, 4), config)
        assert len(labeled.boxes) == len(tiles[0].boxes) == count


def test_tiles_keep_the_aspect_ratio_of_their_image():
    image = np.full((1, 50, 3), 7, np.uint8)
    wide = inspection.LabeledImage(image, np.array([[0, 10, 1, 20]]), np.array([1]), "wide")
    resized = inspection.resize(wide, 100)
    assert resized.image.shape == (2, 100, 3) and (resized.image == 7).all()
    np.testing.assert_allclose(resized.boxes, [[0, 20, 2, 40]])
    sheet = inspection.contact_sheet([wide._replace(title="long " * 99)] * 2, {})
    tile, caption = inspection.TILE, inspection.CAPTION
    assert sheet.shape == (tile + caption, 2 * tile, 3)
    np.testing.assert_array_equal(sheet[:, :tile], sheet[:, tile:])  # a title does not extend into the next tile
    assert (sheet[:caption] != 255).any() and (sheet[-100:] == 255).all()


def test_errors_in_the_data_are_raised(tmp_path):
    with pytest.raises(ValueError, match=r"class ids must be in 1\.\.num_classes = 2"):
        inspection.run(SAMPLE, tmp_path, load().override({"num_classes": 2}), samples=8)
    with pytest.raises(ValueError, match="label_map has id 20"):
        inspection.run(SAMPLE, tmp_path, load("label_map=voc"), samples=8)
    (tmp_path / "damaged").write_bytes(b"no record")
    with pytest.raises(tfrecord.DataError, match="hold no record that can be read"):
        inspection.run(str(tmp_path / "damaged"), tmp_path, load(), samples=8)
