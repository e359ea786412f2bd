# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/dataloader.py on testdata/sample.tfrecord, 8 images of 96 px; groundtruth in sample.json."""

import dataclasses
import io
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dataset import tfrecord
from dataset.dataloader import InputReader, batches
from efficientdet import boxes as box_ops
from efficientdet import preprocess
from efficientdet.anchors import concat_levels
from efficientdet.model import build_anchors
from efficientdet.targets import AnchorLabeler

TESTDATA = pathlib.Path(__file__).parents[2] / "testdata"
SAMPLE = str(TESTDATA / "sample.tfrecord")
LEVELS = [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]  # of 64 px


@pytest.fixture(scope="module")
def reader(tiny_config):
    return InputReader(SAMPLE, tiny_config)


@pytest.fixture(scope="module")
def trained(reader):
    """The first batches of a training with seed 1, while the global seed is 0."""
    tf.random.set_seed(0)
    return training(reader, 7, seed=1)


@pytest.fixture(scope="module")
def evaluated(reader):
    """All batches of an evaluation with batch size 3."""
    return list(reader.evaluation(3))


@pytest.fixture(scope="module")
def annotations():
    """Annotations of sample.json by source id."""
    groundtruth = json.loads((TESTDATA / "sample.json").read_text())
    rows = {str(image["id"]): [] for image in groundtruth["images"]}
    for annotation in groundtruth["annotations"]:
        rows[str(annotation["image_id"])].append(annotation)
    return rows


@pytest.fixture
def write_records(tmp_path):
    """Writes records of `black_image`s, given the objects of each; returns the file pattern."""

    def write(*images, size=(96, 96)):
        with tf.io.TFRecordWriter(str(tmp_path / "own.tfrecord")) as writer:
            for i, objects in enumerate(images):
                writer.write(tfrecord.encode(black_image(f"image{i}", objects, *size)))
        return str(tmp_path / "own.tfrecord")

    return write


@pytest.fixture
def write_files(tmp_path):
    """Writes files with the given numbers of records; returns the file pattern."""

    def write(counts):
        for i, count in enumerate(counts):
            with tf.io.TFRecordWriter(str(tmp_path / f"part-{i:02}.tfrecord")) as writer:
                for j in range(count):
                    writer.write(tfrecord.encode(black_image(f"{i}-{j}", [], 64, 64)))
        return str(tmp_path / "part-*")

    return write


def black_image(source_id, objects, height, width):
    """A record of white objects, (class, [ymin, xmin, ymax, xmax] in pixels, is_crowd), on black."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for _, (ymin, xmin, ymax, xmax), _ in objects:
        pixels[ymin:ymax, xmin:xmax] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return tfrecord.Record(
        encoded=buffer.getvalue(),
        height=height,
        width=width,
        filename=f"{source_id}.png",
        source_id=source_id,
        image_format="png",
        boxes_norm=[np.array(box) / [height, width, height, width] for _, box, _ in objects],
        classes=[class_id for class_id, _, _ in objects],
        is_crowd=[is_crowd for _, _, is_crowd in objects],
    )


def training(reader, count, *, seed, start_batch=0):
    """The first batches of a training, as lists of arrays; some cross the end of a round, as 3 does not divide 8."""
    dataset = reader.training(3, seed=seed, start_batch=start_batch, num_examples=8)
    return [[array.numpy() for array in tf.nest.flatten(batch)] for batch in dataset.take(count)]


def equal(run, other):
    """Returns True if two lists of batches are equal bit by bit."""
    return len(run) == len(other) and all(
        np.array_equal(a, b) for pair in zip(run, other) for a, b in zip(*pair, strict=True)
    )


def plain(config, **changes):
    """The config without augmentation."""
    return config.override({"input_rand_hflip": False, "jitter_min": 1.0, "jitter_max": 1.0}, changes)


def test_training_batches(reader, tiny_config):
    images, labels = next(iter(reader.training(4, seed=1, num_examples=8)))
    assert images.shape == (4, 64, 64, 3) and images.dtype == tf.float32
    lowest, highest = (np.array([0, 255]) - tiny_config.mean_rgb[0]) / tiny_config.stddev_rgb[0]
    assert lowest <= images.numpy().min() < -0.3 and 0.3 < images.numpy().max() <= highest
    assert labels.keys() == {"cls_targets", "box_targets", "num_positives"}
    for cls_targets, box_targets, (height, width) in zip(
        labels["cls_targets"], labels["box_targets"], LEVELS, strict=True
    ):
        assert (cls_targets.shape, cls_targets.dtype) == ((4, height, width, 9), tf.int32)
        assert (box_targets.shape, box_targets.dtype) == ((4, height, width, 36), tf.float32)
        assert set(np.unique(cls_targets)) <= {-1, 0, 1, 2}
        background = np.repeat(cls_targets.numpy() == -1, 4, axis=-1)
        assert np.all(box_targets.numpy()[background] == 0)
    positives = sum(np.sum(level.numpy() >= 0, axis=(1, 2, 3)) for level in labels["cls_targets"])
    np.testing.assert_array_equal(labels["num_positives"], positives.astype(np.float32))
    assert positives.sum() > 0


def test_batches_depend_on_the_seed_but_not_on_the_global_seed(reader, trained):
    try:
        tf.random.set_seed(7)
        assert equal(trained, training(reader, 7, seed=1))
        assert not equal(trained, training(reader, 7, seed=0))
    finally:
        tf.random.set_seed(1)


@pytest.mark.usefixtures("op_determinism")
def test_batches_do_not_depend_on_op_determinism(reader, trained):
    """Neither run in parallel by `batches` nor sequentially by TensorFlow, as any other iterator is."""
    for iterate in (batches, iter):
        dataset = reader.training(3, seed=1, num_examples=8).take(7)
        assert equal(trained, [[array.numpy() for array in tf.nest.flatten(batch)] for batch in iterate(dataset)])


@pytest.mark.usefixtures("op_determinism")
def test_records_are_decoded_in_parallel_with_op_determinism(reader, overlap, monkeypatch):
    parse = tfrecord.parse
    monkeypatch.setattr(tfrecord, "parse", lambda record: parse(overlap(record)))
    assert len(list(batches(reader.augmented(seed=1).take(4)))) == 4
    assert overlap.seen == [True]


@pytest.mark.usefixtures("op_determinism")
def test_files_are_read_in_parallel(write_files, tiny_config, overlap, monkeypatch):
    reader = InputReader(write_files([3, 3]), plain(tiny_config))
    read = reader.records.read
    monkeypatch.setattr(reader.records, "read", lambda i: read(i).map(lambda *item: (item[0], overlap(item[1]))))
    assert len(list(batches(reader._shuffled(tf.constant(1, tf.int64))))) == 6
    assert overlap.seen == [True]


def test_files_read_in_parallel_have_the_order_of_one_thread(write_files, tiny_config):
    """Of the sizes given, with empty files and more files than are read at once."""
    reader = InputReader(write_files([0, 1, 9, 2, 4, 3, 0, 5, 1, 1, 2, 6, 3, 2, 7, 0, 4, 2, 3, 1]), plain(tiny_config))
    files = tf.data.Dataset.range(20)
    in_parallel = reader._interleaved(files)
    expected = files.interleave(reader.records.read, cycle_length=16)
    positions = [[position.numpy().tolist() for position, _ in dataset] for dataset in (in_parallel, expected)]
    assert positions[0] == positions[1] and len(positions[0]) == 56


@pytest.fixture
def debug_mode():
    """The settings of --debug."""
    from tensorflow.python.data.ops import debug_mode

    tf.config.run_functions_eagerly(True)
    tf.data.experimental.enable_debug_mode()
    yield
    tf.config.run_functions_eagerly(False)
    debug_mode.toggle_debug_mode(False)


@pytest.mark.usefixtures("debug_mode")
def test_debug_mode_has_the_same_batches_and_keeps_the_global_seed(reader, trained):
    tf.random.set_seed(777)
    expected = [tf.random.uniform([]).numpy() for _ in range(2)]
    tf.random.set_seed(777)
    drawn = [tf.random.uniform([]).numpy()]
    assert equal(trained[:1], training(reader, 1, seed=1))
    assert [*drawn, tf.random.uniform([]).numpy()] == expected


def test_start_batch_continues_the_same_stream(reader, trained):
    for start_batch in (1, 5):
        assert equal(trained[start_batch:], training(reader, 7 - start_batch, seed=1, start_batch=start_batch))


def test_every_round_contains_each_record_once_in_another_order(write_records, tiny_config):
    # The white box of image i has a height of i + 1 pixels, which identifies the image.
    path = write_records(*[[(1, [0, 0, i + 1, 64], 0)] for i in range(12)], size=(64, 64))
    reader = InputReader(path, plain(tiny_config))
    rounds = []
    for images, _ in reader.training(12, seed=3, num_examples=12).take(3):
        white = tf.reduce_sum(tf.cast(images[..., 0] > 0, tf.int32), axis=(1, 2)) // 64
        rounds.append((white - 1).numpy().tolist())
        assert sorted(rounds[-1]) == list(range(12))
    assert len({tuple(order) for order in [*rounds, range(12)]}) == 4


def test_several_files_are_mixed(tmp_path, tiny_config):
    for i in range(3):
        with tf.io.TFRecordWriter(str(tmp_path / f"part-{i}.tfrecord")) as writer:
            for j in range(4):
                writer.write(tfrecord.encode(black_image(f"{i}{j}", [(1, [0, 0, 4 * i + j + 1, 64], 0)], 64, 64)))
    reader = InputReader(str(tmp_path / "part-*"), plain(tiny_config))
    images, _ = next(iter(reader.training(12, seed=3, num_examples=12)))
    white = tf.reduce_sum(tf.cast(images[..., 0] > 0, tf.int32), axis=(1, 2)).numpy() // 64 - 1
    assert sorted(white) == list(range(12))
    assert np.any(np.diff(white // 4) < 0)  # not one file after the other
    ids = [source_id for _, labels in reader.evaluation(5) for source_id in labels["source_id"].numpy()]
    assert ids == [f"{i}{j}".encode() for i in range(3) for j in range(4)]


def test_boxes_follow_the_pixels_through_augmentation(write_records, tiny_config):
    path = write_records([(2, [20, 30, 70, 60], 0)], size=(96, 80))
    config = tiny_config.override({"jitter_min": 0.6, "jitter_max": 1.4})
    anchors = build_anchors(config).boxes
    boxes = []
    for images, labels in InputReader(path, config).training(8, seed=2, num_examples=1).take(4):
        codes = concat_levels(labels["box_targets"], 4).numpy()
        classes = concat_levels(labels["cls_targets"], 1).numpy()[..., 0]
        for image, row, cls in zip(images.numpy(), codes, classes):
            if np.any(cls >= 0):
                assert set(cls[cls >= 0]) == {1}
                decoded = box_ops.decode(row[cls >= 0], anchors[cls >= 0]).numpy()
                np.testing.assert_allclose(decoded, decoded[:1].repeat(len(decoded), 0), atol=1e-3)
                ys, xs = np.nonzero(image[..., 0] > 0)
                seen = np.minimum([ys.min(), xs.min(), ys.max() + 1, xs.max() + 1], 63)
                np.testing.assert_allclose(decoded[0], seen, atol=1.5)
                boxes.append(decoded[0])
    assert len(boxes) > 15 and np.ptp(boxes, axis=0).min() > 10


def test_boxes_outside_of_the_window_are_removed(write_records, tiny_config):
    # By hand: at factor 2 the image has 128 px and the window 64 px; a corner box of 8 px is often outside.
    path = write_records([(1, [0, 0, 4, 4], 0)], size=(64, 64))
    reader = InputReader(path, tiny_config.override({"jitter_min": 2.0, "jitter_max": 2.0, "input_rand_hflip": False}))
    images, labels = next(iter(reader.training(64, seed=1, num_examples=1)))
    brightest, positive = images.numpy().max(axis=(1, 2, 3)), labels["num_positives"].numpy() > 0
    assert 0 < positive.sum() < 20
    assert np.all(brightest[positive] > -0.9) and np.all(brightest[~positive] < 0.9)


def test_image_fits_target_size_at_factor_1(write_records, tiny_config):
    path = write_records([(1, [0, 0, 64, 64], 0)], size=(64, 64))
    images, _ = next(iter(InputReader(path, plain(tiny_config, target_size=32)).training(1, seed=1, num_examples=1)))
    white = images[0, ..., 0] > 0
    assert np.all(white[:32, :32]) and int(tf.reduce_sum(tf.cast(white, tf.int32))) == 32 * 32


def test_crowds_are_skipped_in_training(write_records, tiny_config):
    path = write_records([(1, [10, 10, 60, 60], 1), (3, [20, 50, 80, 90], 0)])
    for skip, classes in ((True, {-1, 2}), (False, {-1, 0, 2})):
        reader = InputReader(path, plain(tiny_config, skip_crowd_during_training=skip))
        _, labels = next(iter(reader.training(1, seed=1, num_examples=1)))
        assert {int(value) for level in labels["cls_targets"] for value in np.unique(level)} == classes


def test_evaluation_yields_every_image_once(reader, evaluated):
    for all_batches, sizes in ((evaluated, [3, 3, 2]), (reader.evaluation(16), [8])):
        ids = [labels["source_id"].numpy() for _, labels in all_batches]
        assert [len(batch) for batch in ids] == sizes
        assert [source_id.decode() for batch in ids for source_id in batch] == [str(i) for i in range(1, 9)]


def test_evaluation_with_a_limit(reader):
    ids = [source_id for _, labels in reader.evaluation(2, limit=3) for source_id in labels["source_id"].numpy()]
    assert ids == [b"1", b"2", b"3"]


def test_evaluation_yields_the_groundtruth_of_the_json(evaluated, annotations):
    for _, labels in evaluated:
        labels = {name: column.numpy() for name, column in labels.items()}
        assert labels["boxes_image"].shape[1:] == (100, 4) and labels["boxes_image"].dtype == np.float32
        np.testing.assert_allclose(labels["image_scale"], 96 / 64, rtol=1e-6)
        for i, source_id in enumerate(labels["source_id"]):
            expected = sorted(annotations[source_id.decode()], key=lambda row: -row["area"])
            count = len(expected)
            assert np.all(np.diff(labels["area"][i, :count]) <= 0)
            got = {
                (*np.round(box, 3), int(category), int(crowd), float(area))
                for box, category, crowd, area in zip(
                    *(labels[name][i, :count] for name in ("boxes_image", "classes", "is_crowd", "area"))
                )
            }
            assert got == {
                (y, x, y + h, x + w, row["category_id"], row["iscrowd"], row["area"])
                for row in expected
                for x, y, w, h in [row["bbox"]]
            }
            assert np.all(labels["difficult"][i, :count] == 0)  # absent from the records
            for name in ("boxes_image", "classes", "is_crowd", "difficult", "area"):
                assert np.all(labels[name][i, count:] == -1)


@pytest.fixture
def write_difficult(tmp_path):
    """Writes a record of three objects with a column `difficult` of any length, and an intact one; returns the path."""

    def write(difficult):
        objects = [(1 + i, [0, 0, size, size], 0) for i, size in enumerate([10, 40, 20])]
        example = tf.train.Example.FromString(tfrecord.encode(black_image("one", objects, 96, 96)))
        example.features.feature["image/object/difficult"].int64_list.value.extend(difficult)
        with tf.io.TFRecordWriter(str(tmp_path / "own.tfrecord")) as writer:
            writer.write(example.SerializeToString())
            writer.write(tfrecord.encode(black_image("two", objects[:1], 96, 96)))
        return str(tmp_path / "own.tfrecord")

    return write


def test_evaluation_yields_difficult(write_difficult, tiny_config):
    _, labels = next(iter(InputReader(write_difficult([0, 1, 0]), tiny_config).evaluation(2)))
    assert labels["difficult"].dtype == tf.int32
    np.testing.assert_array_equal(labels["classes"][:, :4], [[2, 3, 1, -1], [1, -1, -1, -1]])  # by falling area
    np.testing.assert_array_equal(labels["difficult"][:, :4], [[1, 0, 0, -1], [0, -1, -1, -1]])


def test_invalid_difficult_column_damages_the_record_in_evaluation_only(write_difficult, tiny_config, caplog):
    reader = InputReader(write_difficult([0, 1]), plain(tiny_config))
    ids = [source_id for _, labels in reader.evaluation(1) for source_id in labels["source_id"].numpy()]
    assert ids == [b"two"] and "area, is_crowd and difficult must have one value per box; record one" in caplog.text
    trained = InputReader(reader.file_pattern, reader.config)
    assert set(training_ids(trained, 2)) == {"one", "two"} and not trained.records.damaged


def test_groundtruth_has_no_invalid_boxes(tmp_path, tiny_config):
    boxes = [[np.nan, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 1.5], [0.1, 0.1, np.inf, 0.9], [0.2, 0.2, 0.2, 0.9]]
    image = black_image("one", [(1, [0, 0, 40, 40], 0)], 64, 64)
    image = dataclasses.replace(image, boxes_norm=boxes, classes=[1, 2, 3, 3], is_crowd=[0] * 4)
    with tf.io.TFRecordWriter(str(tmp_path / "own.tfrecord")) as writer:
        writer.write(tfrecord.encode(image))
    _, labels = next(iter(InputReader(str(tmp_path / "own.tfrecord"), tiny_config).evaluation(1)))
    np.testing.assert_array_equal(labels["classes"][0, :3], [2, -1, -1])
    np.testing.assert_allclose(labels["boxes_image"][0, 0], [6.4, 6.4, 32, 64], rtol=1e-6)  # clipped to the image


def test_evaluation_and_serving_have_equal_preprocessing(evaluated, tiny_config):
    raw = next(iter(tf.data.TFRecordDataset(SAMPLE)))
    expected, image_scale = preprocess.preprocess(
        tfrecord.decode(raw)["image"],
        (64, 64),
        keep_aspect_ratio=True,
        mean_rgb=tiny_config.mean_rgb,
        stddev_rgb=tiny_config.stddev_rgb,
        scale_range=False,
    )
    images, labels = evaluated[0]
    np.testing.assert_array_equal(images[0], expected)
    np.testing.assert_array_equal(labels["image_scale"][0], image_scale)


@pytest.mark.parametrize("keep_aspect_ratio, scaled", [(True, [32, 64]), (False, [64, 64])])
def test_boxes_and_pixels_agree_with_and_without_the_aspect_ratio(
    write_records, tiny_config, keep_aspect_ratio, scaled
):
    """An image of 40 x 80 whose object is the middle quarter, in evaluation and in training without augmentation."""
    path = write_records([(1, [10, 20, 30, 60], 0)], size=(40, 80))
    plain = {"input_rand_hflip": False, "jitter_min": 1.0, "jitter_max": 1.0, "keep_aspect_ratio": keep_aspect_ratio}
    config = tiny_config.override(plain)
    reader = InputReader(path, config)
    box = np.multiply([0.25, 0.25, 0.75, 0.75], np.tile(scaled, 2))
    images, labels = next(iter(reader.evaluation(1)))
    np.testing.assert_allclose(labels["boxes_image"][0, 0], [10, 20, 30, 60], rtol=1e-6)
    np.testing.assert_allclose(labels["boxes_image"][0, 0] / labels["image_scale"][0], box, rtol=1e-6)
    example = next(iter(reader.augmented(seed=1)))
    np.testing.assert_allclose(example["boxes"], [box], rtol=1e-6)
    np.testing.assert_array_equal(example["image"], images[0])
    (top, left, bottom, right), white = box.astype(int), images[0, ..., 0].numpy() > 0
    expected = np.zeros([64, 64], bool)
    expected[top:bottom, left:right] = True
    assert (white != expected).mean() < 0.03  # pixels at the border are grey
    targets = next(iter(reader.training(1, seed=1, num_examples=1)))[1]
    labeler = AnchorLabeler(build_anchors(config), config.match_threshold)
    expected_targets = labeler.label(tf.constant(box[np.newaxis], tf.float32), tf.constant([1]))
    for ours, theirs in zip(targets["box_targets"], expected_targets[1], strict=True):
        np.testing.assert_allclose(ours[0], theirs, atol=1e-5)


def test_jitter_and_mosaic_of_stretched_images_keep_boxes_on_their_pixels(write_records, tiny_config):
    """The bounding box of the white pixels is that of the object, in images of 40 x 90 with one object."""
    path = write_records(*[[(1, [8, 30, 32, 66], 0)]] * 4, size=(40, 90))
    config = tiny_config.override({"keep_aspect_ratio": False, "jitter_min": 0.5, "jitter_max": 1.5})
    ratios = []
    for example in InputReader(path, config).augmented(seed=2).take(20):
        [box] = example["boxes"].numpy()
        rows, columns = np.nonzero(example["image"][..., 0].numpy() > 0.5)
        np.testing.assert_allclose(box, [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1], atol=1.1)
        if np.all(box[:2] > 1) and np.all(box[2:] < 62):
            ratios.append((box[2] - box[0]) / (box[3] - box[1]))
    assert len(ratios) >= 5
    np.testing.assert_allclose(ratios, (24 / 40) / (36 / 90), rtol=0.1)  # of the object in the stretched image
    mosaics = InputReader(path, config.override({"mosaic": True, "jitter_min": 1.0, "jitter_max": 1.0}))
    for example in mosaics.augmented(seed=2).take(5):
        for ymin, xmin, ymax, xmax in np.round(example["boxes"]).astype(int):
            assert example["image"][ymin:ymax, xmin:xmax, 0].numpy().mean() > 0.8


def test_scale_range_applies_to_training_and_evaluation(write_records, tiny_config):
    path = write_records([(1, [0, 0, 64, 64], 0)], size=(64, 96))  # a third is white; then black; then padding
    config = plain(tiny_config, scale_range=True, mean_rgb=0, stddev_rgb=1)
    reader = InputReader(path, config)
    for dataset in (reader.training(1, seed=1, num_examples=1), reader.evaluation(1)):
        images, _ = next(iter(dataset))
        assert (images.numpy().min(), images.numpy().max()) == (-1, 1)


def test_evaluation_keeps_the_largest_of_too_many_objects(write_records, tiny_config, capfd):
    objects = [(1 + i % 3, [0, 0, size, size], 0) for i, size in enumerate([10, 40, 20, 30])]
    reader = InputReader(write_records(objects), tiny_config.override({"max_instances_per_image": 2}))
    _, labels = next(iter(reader.evaluation(1)))
    np.testing.assert_allclose(labels["area"], [[1600, 900]], rtol=1e-5)
    np.testing.assert_array_equal(labels["classes"], [[2, 1]])
    assert 'image "image0" has 4 objects; evaluating the 2 largest' in capfd.readouterr().err


@pytest.mark.parametrize("class_id, is_training", [(4, True), (0, False)])
def test_message_for_invalid_class_ids(write_records, tiny_config, class_id, is_training):
    path = write_records([(3, [0, 0, 50, 50], 0)], [(class_id, [0, 0, 50, 50], 0)])
    reader = InputReader(path, tiny_config)
    dataset = reader.training(2, seed=1, num_examples=2) if is_training else reader.evaluation(2)
    with pytest.raises(tfrecord.DataError) as error:
        list(batches(dataset.take(1)))
    assert str(error.value) == (
        "cannot use the records: class ids must be in 1..num_classes = 3; set num_classes, or fix the record of image "
        f"image1 with the classes {class_id}"
    )


def test_message_for_other_file_formats(tiny_config):
    with pytest.raises(tfrecord.DataError) as error:
        InputReader(str(TESTDATA / "sample.json"), tiny_config).evaluation(1)
    assert "hold no record that can be read (record 0 of " in str(error.value)
    assert "sample.json: the file is JSON, not a TFRecord file)" in str(error.value)


def test_message_for_missing_files(tiny_config, tmp_path):
    with pytest.raises(ValueError, match=f"no file matches '{tmp_path}/none-\\*'; give a pattern"):
        InputReader(f"{tmp_path}/none-*", tiny_config)


def test_message_for_empty_files(write_records, tiny_config):
    reader = InputReader(write_records(), tiny_config)
    for read in (lambda: reader.training(1, seed=1, num_examples=1), lambda: reader.evaluation(1)):
        with pytest.raises(tfrecord.DataError, match=r"own\.tfrecord' hold no record that can be read; write them"):
            read()


def damage(path, *, record, where="image"):
    """Inverts a byte in a record of a file, or in the length before it."""
    content, offset = bytearray(pathlib.Path(path).read_bytes()), 0
    for _ in range(record):
        offset += 16 + int.from_bytes(content[offset : offset + 8], "little")
    offset += {"length": 0, "image": 200}[where]
    content[offset] ^= 0xFF
    pathlib.Path(path).write_bytes(content)


def training_ids(reader, count, seed=1):
    """Source ids of the first images of a training."""
    return [example["source_id"].numpy().decode() for example in reader.augmented(seed).take(count)]


def test_damaged_record_is_skipped_and_logged(write_records, tiny_config, caplog):
    path = write_records(*[[(1, [0, 0, 40, 40], 0)]] * 6)
    damage(path, record=2)
    reader = InputReader(path, tiny_config)
    ids = [source_id.decode() for _, labels in reader.evaluation(4) for source_id in labels["source_id"].numpy()]
    assert ids == ["image0", "image1", "image3", "image4", "image5"]
    trained = training_ids(reader, 10)
    assert sorted(trained[:5]) == sorted(trained[5:]) == ids  # two rounds
    assert reader.records.damaged == {(0, 2): "its checksum is wrong"}
    messages = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert messages == [f"skipped record 2 of {path}: its checksum is wrong (damaged so far: 1, at most 10)"]


def test_undecodable_image_is_skipped_and_logged(tmp_path, tiny_config):
    good = black_image("good", [(1, [0, 0, 40, 40], 0)], 64, 64)
    path = tmp_path / "own.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(tfrecord.encode(dataclasses.replace(good, encoded=good.encoded[:60], source_id="cut")))
        writer.write(tfrecord.encode(good))
        writer.write(b"no Example")
    for augmentation in ({}, {"grid_mask": True}):
        reader = InputReader(str(path), tiny_config.override(augmentation))
        assert training_ids(reader, 4) == ["good"] * 4
        assert reader.records.damaged == {
            (0, 0): "Invalid PNG data, size 60",
            (0, 2): "Could not parse example input, value: 'no Example'",
        }


def test_mosaic_with_a_damaged_record_is_skipped(tmp_path, tiny_config):
    images = [black_image(f"image{i}", [(1, [0, 0, 64, 64], 0)], 64, 64) for i in range(9)]
    images[4] = dataclasses.replace(images[4], encoded=images[4].encoded[:60])
    path = tmp_path / "own.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image in images:
            writer.write(tfrecord.encode(image))
    reader = InputReader(str(path), plain(tiny_config, mosaic=True))
    for example in reader.augmented(seed=1).take(12):
        assert len(example["classes"]) == 4
    assert list(reader.records.damaged) == [(0, 4)]


def test_too_many_damaged_records_are_an_error(write_records, tiny_config):
    path = write_records(*[[(1, [0, 0, 40, 40], 0)]] * 4)
    damage(path, record=1)
    damage(path, record=2)
    reader = InputReader(path, tiny_config.override({"max_damaged_records": 1}))
    with pytest.raises(tfrecord.DataError, match=r"^cannot use the records: more than max_damaged_records = 1 .*own"):
        list(batches(reader.evaluation(4)))


def test_damaged_length_loses_one_record(tmp_path, tiny_config):
    for name in "ab":
        with tf.io.TFRecordWriter(str(tmp_path / f"{name}.tfrecord")) as writer:
            for i in range(3):
                writer.write(tfrecord.encode(black_image(f"{name}{i}", [], 64, 64)))
    damage(tmp_path / "a.tfrecord", record=1, where="length")
    reader = InputReader(str(tmp_path / "*.tfrecord"), tiny_config)
    ids = [source_id.decode() for _, labels in reader.evaluation(4) for source_id in labels["source_id"].numpy()]
    assert ids == ["a0", "a2", "b0", "b1", "b2"]
    assert list(reader.records.damaged) == [(0, 1)]


@pytest.mark.parametrize("num_files, num_shards", [(3, 2), (1, 2)])
def test_shards_partition_the_records(tmp_path, tiny_config, num_files, num_shards):
    for i in range(num_files):
        with tf.io.TFRecordWriter(str(tmp_path / f"{i}.tfrecord")) as writer:
            for j in range(7):
                writer.write(tfrecord.encode(black_image(f"{i}{j}", [], 64, 64)))
    everything = sorted(f"{i}{j}" for i in range(num_files) for j in range(7))
    readers = [InputReader(str(tmp_path / "*"), tiny_config, shard=(i, num_shards)) for i in range(num_shards)]
    evaluated = [[s.decode() for _, labels in r.evaluation(4) for s in labels["source_id"].numpy()] for r in readers]
    trained = [training_ids(reader, len(ids)) for reader, ids in zip(readers, evaluated)]
    for shards in (evaluated, trained):
        assert sorted(source_id for ids in shards for source_id in ids) == everything


def test_shards_draw_different_augmentations(write_records, tiny_config):
    path = write_records(*[[(1, [0, 0, 40, 40], 0)]] * 4)  # four equal images
    readers = [InputReader(path, tiny_config, shard=(i, 2)) for i in range(2)]
    first, second = ([example["image"].numpy() for example in r.augmented(seed=1).take(6)] for r in readers)
    assert not any(np.array_equal(a, b) for a, b in zip(first, second))


def test_source_ids_in_any_encoding(tmp_path, tiny_config):
    example = tf.train.Example.FromString(tfrecord.encode(black_image("x", [(1, [0, 0, 40, 40], 0)], 64, 64)))
    example.features.feature["image/source_id"].bytes_list.value[:] = [b"caf\xe9"]
    with tf.io.TFRecordWriter(str(tmp_path / "own.tfrecord")) as writer:
        writer.write(example.SerializeToString())
    reader = InputReader(str(tmp_path / "own.tfrecord"), tiny_config)
    assert reader.source_ids(2, seed=1, start_batch=0, num_examples=1) == ["caf\ufffd"] * 2


def test_large_and_textual_source_ids_are_kept(write_records, tmp_path, tiny_config):
    ids = ["123456789012345678", "0007", "street/größe.jpg"]
    path = tmp_path / "own.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for source_id in ids:
            writer.write(tfrecord.encode(black_image(source_id, [], 64, 64)))
    _, labels = next(iter(InputReader(str(path), tiny_config).evaluation(3)))
    assert [source_id.decode() for source_id in labels["source_id"].numpy()] == ids


def test_training_uses_all_boxes_of_an_image(write_records, tiny_config):
    objects = [(1, [y, x, y + 8, x + 8], 0) for y in range(0, 64, 8) for x in range(0, 64, 8)]
    config = plain(tiny_config, max_instances_per_image=10)
    example = next(iter(InputReader(write_records(objects, size=(64, 64)), config).augmented(seed=1)))
    assert len(example["boxes"]) == len(example["classes"]) == 64


@pytest.fixture(scope="module")
def unchanged_images(tiny_config):
    return [example["image"].numpy() for example in InputReader(SAMPLE, plain(tiny_config)).augmented(5).take(8)]


@pytest.mark.parametrize("change", [{"mosaic": True}, {"grid_mask": True}, {"autoaugment_policy": "test"}])
def test_augmentations_change_images_deterministically(tiny_config, unchanged_images, change):
    dataset = InputReader(SAMPLE, plain(tiny_config, **change)).augmented(5).take(8)
    changed, again = ([example["image"].numpy() for example in dataset] for _ in range(2))
    np.testing.assert_array_equal(changed, again)
    assert np.any(np.not_equal(changed, unchanged_images))


def test_mosaic_contains_the_objects_of_four_images(write_records, tiny_config):
    images = [[(1 + i % 3, [0, 0, 64, 64], 0)] for i in range(4)]
    reader = InputReader(write_records(*images, size=(64, 64)), plain(tiny_config, mosaic=True))
    for example in reader.augmented(seed=3).take(5):
        assert sorted(example["classes"].numpy()) == [1, 1, 2, 3]
        assert np.all(example["image"].numpy() > 0.99)  # each is white and fills its corner
        area = np.prod(example["boxes"][:, 2:] - example["boxes"][:, :2], 1)
        assert 62**2 < area.sum() <= 64**2


@pytest.mark.parametrize("change", [{}, {"autoaugment_policy": "test"}])
def test_non_finite_boxes_are_removed(tmp_path, tiny_config, change):
    image = black_image("one", [(1, [0, 0, 40, 40], 0)], 64, 64)
    boxes = [[np.nan, 0.1, 0.5, 0.5], [0.1, 0.1, 0.9, 0.9], [0.1, 0.1, np.inf, 0.9]]
    path = tmp_path / "own.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(tfrecord.encode(dataclasses.replace(image, boxes_norm=boxes, classes=[1, 2, 3], is_crowd=[0] * 3)))
    reader = InputReader(str(path), plain(tiny_config, **change))
    for example in batches(reader.augmented(seed=1).take(20 if change else 1)):
        assert set(example["classes"].numpy()) <= {2}
        assert np.all(np.isfinite(example["boxes"]))
