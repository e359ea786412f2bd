# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""tests of dataset/inspect_tfrecords.py: what is drawn is what training sees, and the command as it is published."""

import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dataset import inspect_tfrecords, tfrecord
from dataset.dataloader import InputReader
from dataset.visualize import class_color
from efficientdet import config as config_lib

ROOT = pathlib.Path(__file__).parents[2]
SAMPLE = str(ROOT / "testdata" / "sample.tfrecord")
LABELS = "label_map={1:'circle',2:'triangle',3:'star'}"


def load(hparams=""):
    return config_lib.load("efficientdet-lite0", hparams, image_size=96, num_classes=3)


def plain(hparams="jitter_min=1,jitter_max=1,input_rand_hflip=false"):
    return load(hparams)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def write_records(path, *images_and_boxes, **columns):
    """Writes one record a pair of an image and its boxes in [0, 1], with the source ids 1 and on."""
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


def command(folder, *flags):
    script = str(ROOT / "dataset" / "inspect_tfrecords.py")
    return subprocess.run(
        [sys.executable, script, *flags], capture_output=True, text=True, cwd=folder, timeout=300, env=os.environ
    )


@pytest.mark.parametrize(
    "colors", ["", "mean_rgb=[120,110,100],stddev_rgb=[60,50,40]", "mean_rgb=0,stddev_rgb=1,scale_range=true"]
)
@pytest.mark.parametrize("pictures", [inspect_tfrecords.training_pictures, inspect_tfrecords.evaluation_pictures])
def test_the_pixels_are_those_of_the_record_whatever_the_constants(tmp_path, colors, pictures):
    image = noise(96, 96)
    pattern = write_records(tmp_path / "a", (image, [[0.25, 0.5, 0.75, 0.875]]))
    config = plain().override(config_lib.read_hparams(colors))
    [picture] = pictures(InputReader(pattern, config), 1)
    np.testing.assert_array_equal(picture.image, image)
    np.testing.assert_allclose(picture.boxes, [[24, 48, 72, 84]], atol=1e-3)
    assert picture.classes.tolist() == [1] and picture.title == "image 1"


def test_evaluation_shows_each_image_once_in_the_order_of_the_files(tmp_path):
    pairs = [(noise(48, 24, i), [[0, 0, 0.5, 1]] * i) for i in range(3)]
    pattern = write_records(tmp_path / "a", *pairs)
    pictures = list(inspect_tfrecords.evaluation_pictures(InputReader(pattern, load()), 10))
    assert [picture.title for picture in pictures] == ["image 1", "image 2", "image 3"]
    assert [len(picture.boxes) for picture in pictures] == [0, 1, 2]  # without the padding
    np.testing.assert_allclose(pictures[2].boxes, [[0, 0, 48, 48]] * 2)  # in pixels of the input, twice the image's


def test_boxes_are_drawn_where_the_objects_are_after_augmentation(tmp_path):
    """A white object on black, found again in each of twenty augmented images."""
    image = np.zeros((96, 96, 3), np.uint8)
    image[30:60, 20:70] = 255
    pattern = write_records(tmp_path / "a", (image, np.array([[30, 20, 60, 70]]) / 96))
    found = 0
    for picture in inspect_tfrecords.training_pictures(InputReader(pattern, load("jitter_min=0.5")), 20):
        bright = picture.image.mean(axis=-1) > 191  # more than the padding
        if len(picture.boxes):
            rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
            np.testing.assert_allclose(picture.boxes[0], [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], atol=2)
            found += 1
        else:
            assert bright.sum() <= 96  # no more than a line at the border
    assert found >= 15


def test_files_and_lines(tmp_path, capsys):
    """Three records, one of them without an object; the boxes are in the colour of their class."""
    pairs = [(np.zeros((96, 96, 3), np.uint8), boxes) for boxes in ([[0.25, 0.25, 0.75, 0.75]], [], [[0, 0, 1, 1]] * 2)]
    pattern = write_records(tmp_path / "a", *pairs)
    folder = tmp_path / "made" / "here"
    inspect_tfrecords.run(pattern, folder, plain(), samples=5, evaluation=True)
    assert capsys.readouterr().out.splitlines() == [
        f"writing {folder}/sample0.jpg: image 1, boxes: 1",
        f"writing {folder}/sample1.jpg: image 2, boxes: 0",
        f"writing {folder}/sample2.jpg: image 3, boxes: 2",
        "there are only 3 images for the 5 samples that were asked for",
        f"writing {folder}/contact_sheet.jpg: 7 tiles, of image 1",
        f"wrote 3 pictures, 1 of them without boxes, and a contact sheet to {folder}",
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
    tile, caption = inspect_tfrecords.TILE, inspect_tfrecords.CAPTION
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
def test_the_sheet_has_every_operation_of_the_policy_and_the_rest(policy, expected):
    titles = set(inspect_tfrecords.operations([], load(f"autoaugment_policy={policy},mosaic=true")))
    rest = {
        "grid_mask (not in use)",
        "mosaic",
        "input_rand_hflip",
        *(f"jitter 0.1 to 2, window {i}" for i in (1, 2, 3)),
    }
    assert titles == expected | rest


def test_every_tile_shows_its_operation(tmp_path):
    """On 300 px of noise each operation changes the image, and what leaves the image alone says so."""
    boxes = [[0.2, 0.2, 0.4, 0.6], [0.5, 0.5, 0.9, 0.9]]
    pattern = write_records(tmp_path / "a", (noise(300, 320), []), (noise(300, 320, 1), boxes), is_crowd=())
    config = load("autoaugment_policy=v0")
    samples = inspect_tfrecords.first_samples(InputReader(pattern, config), 4)
    assert [sample["source_id"].numpy() for sample in samples] == [b"2"] * 4  # the only one with objects
    pictures = {picture.title: picture for picture in inspect_tfrecords.contact_pictures(samples, config)}
    original = pictures.pop("image 2")
    np.testing.assert_allclose(original.boxes, np.array(boxes) * [300, 320, 300, 320], rtol=1e-5)
    same = [title for title, picture in pictures.items() if np.array_equal(picture.image, original.image)]
    assert same == ["ShearX_BBox, level 0: no change"]
    flipped = pictures["input_rand_hflip"]
    np.testing.assert_array_equal(flipped.image, original.image[:, ::-1])
    np.testing.assert_allclose(flipped.boxes[0], [60, 128, 120, 256], rtol=1e-5)  # 320 - 192, 320 - 64
    moved = pictures["TranslateX_BBox, level 4"].boxes[:, 1].min() - original.boxes[:, 1].min()
    assert moved == pytest.approx(100, abs=1e-3) or moved == pytest.approx(-64, abs=1e-3)  # or cut at the border
    np.testing.assert_array_equal(pictures["Color, level 6"].boxes, original.boxes)
    inside = pictures["TranslateY_Only_BBoxes, level 6"].image  # 72 px, more than either box but for the lower one
    np.testing.assert_array_equal(inside[60:120, 64:192], 128)
    np.testing.assert_array_equal(inside[:60], original.image[:60])
    assert len(pictures["mosaic (not in use)"].image) == 96


def test_crowds_are_shown_as_training_has_it(tmp_path):
    pattern = write_records(tmp_path / "a", (noise(96, 96), [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]), is_crowd=[1, 0])
    for skip, count in ((True, 1), (False, 2)):
        config = plain().override({"skip_crowd_during_training": skip})
        reader = InputReader(pattern, config)
        [picture] = inspect_tfrecords.training_pictures(reader, 1)
        tiles = inspect_tfrecords.contact_pictures(inspect_tfrecords.first_samples(reader, 4), config)
        assert len(picture.boxes) == len(tiles[0].boxes) == count


def test_tiles_keep_the_shape_of_their_picture():
    wide = inspect_tfrecords.Picture(
        np.full((1, 50, 3), 7, np.uint8), np.array([[0, 10, 1, 20]]), np.array([1]), "wide"
    )
    fitted = inspect_tfrecords._fitted(wide, 100)
    assert fitted.image.shape == (2, 100, 3) and (fitted.image == 7).all()
    np.testing.assert_allclose(fitted.boxes, [[0, 20, 2, 40]])
    sheet = inspect_tfrecords.contact_sheet([wide._replace(title="long " * 99)] * 2, {})
    tile, caption = inspect_tfrecords.TILE, inspect_tfrecords.CAPTION
    assert sheet.shape == (tile + caption, 2 * tile, 3)
    np.testing.assert_array_equal(sheet[:, :tile], sheet[:, tile:])  # a title does not run on into the next tile
    assert (sheet[:caption] != 255).any() and (sheet[-100:] == 255).all()


def test_the_published_command(tmp_path):
    flags = [
        f"--file_pattern={SAMPLE}",
        "--model_name=efficientdet-d0",
        "--samples=2",
        "--save_samples_dir=train_samples/",
    ]
    result = command(tmp_path, *flags, "-eval", f"--hparams={LABELS}, autoaugmentation_policy=v3")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == (
        "wrote 2 pictures, 1 of them without boxes, and a contact sheet to train_samples"
    )
    names = sorted(path.name for path in (tmp_path / "train_samples").iterdir())
    assert names == ["contact_sheet.jpg", "sample0.jpg", "sample1.jpg"]
    assert Image.open(tmp_path / "train_samples" / "sample0.jpg").size == (512, 512)


@pytest.mark.parametrize("dashes", ["-eval-hparams", "--eval--hparams"])
def test_joined_words_get_the_corrected_line(monkeypatch, dashes):
    argv = [
        "inspect.py",
        "--file_pattern=a*",
        f"{dashes}=label_map={{1:'label1'}}, autoaugmentation_policy=v3",
        "--samples=3",
    ]
    with pytest.raises(SystemExit) as stopped:
        inspect_tfrecords.check_words(argv)
    assert stopped.value.code == (
        f"error: {dashes} is two flags in one word; type: python inspect.py '--file_pattern=a*' --eval "
        "\"--hparams=label_map={1:'label1'}, autoaugmentation_policy=v3\" --samples=3"
    )


def test_words_that_are_not_joined_pass():
    inspect_tfrecords.check_words(
        ["inspect.py", "-eval", "-hparams=eval-hparams=1", "--noeval", "--eval=true", "--eval"]
    )


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--file_pattern=none*"], "error: no file matches 'none*'"),
        ([f"--file_pattern={SAMPLE}", "-eval-hparams=num_classes=3"], "error: -eval-hparams is two flags in one word"),
    ],
)
def test_errors_exit_non_zero_with_a_sentence(tmp_path, flags, sentence):
    result = command(tmp_path, *flags)
    assert result.returncode == 1 and sentence in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr and list(tmp_path.iterdir()) == []


def test_errors_of_the_data_are_not_swallowed(tmp_path):
    with pytest.raises(ValueError, match=r"class ids must be in 1\.\.num_classes = 2"):
        inspect_tfrecords.run(SAMPLE, tmp_path, load().override({"num_classes": 2}), samples=8)
    with pytest.raises(ValueError, match="label_map has id 20"):
        inspect_tfrecords.run(SAMPLE, tmp_path, load("label_map=voc"), samples=8)
    (tmp_path / "damaged").write_bytes(b"no record")
    with pytest.raises(tfrecord.DataError, match="hold no record that can be read"):
        inspect_tfrecords.run(str(tmp_path / "damaged"), tmp_path, load(), samples=8)
