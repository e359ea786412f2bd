# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/tfrecord.py."""

import hashlib
import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from dataset import tfrecord


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def record(**changes):
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    defaults = {
        "encoded": png(image),
        "height": 4,
        "width": 6,
        "filename": "a.png",
        "source_id": "17",
        "image_format": "png",
        "boxes_norm": [[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 1.0, 1.0]],
        "classes": [1, 90],
        "class_names": ["person", "toothbrush"],
    }
    return tfrecord.Record(**{**defaults, **changes})


def parse(serialized):
    return dict(tf.train.Example.FromString(serialized).features.feature)


@st.composite
def records(draw):
    height, width, num_boxes = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(0, 4))
    image = draw(hnp.arrays(np.uint8, (height, width, 3)))
    corners = draw(hnp.arrays(np.float32, (num_boxes, 2, 2), elements=st.floats(0, 1, width=32)))
    areas = st.sampled_from([0, 2**-20, 2, 81])
    optional, optional_areas = (
        st.one_of(st.just([]), st.lists(values, min_size=num_boxes, max_size=num_boxes))
        for values in (st.integers(0, 1), areas)
    )
    encoded = tfrecord.Record(
        encoded=png(image),
        height=height,
        width=width,
        filename=draw(st.text(max_size=5)),
        source_id=draw(st.text(min_size=1, max_size=5)),
        boxes_norm=np.sort(corners, axis=1).reshape(-1, 4),
        classes=draw(st.lists(st.integers(1, 2**31 - 1), min_size=num_boxes, max_size=num_boxes)),
        is_crowd=draw(optional),
        difficult=draw(optional),
        area=[float(x) for x in draw(optional_areas)],
    )
    return image, encoded


def plain(feature):
    """The values of a tf.train.Feature, strings as str."""
    values = getattr(feature, feature.WhichOneof("kind")).value
    return [value.decode("utf-8") if isinstance(value, bytes) else value for value in values]


@st.composite
def full_records(draw):
    """Records with every field."""
    num_boxes = draw(st.integers(1, 4))

    def column(values):
        return draw(st.lists(values, min_size=num_boxes, max_size=num_boxes))

    whole, text, fraction = st.integers(-(2**63), 2**63 - 1), st.text(max_size=5), st.floats(0, 1, width=32)
    return tfrecord.Record(
        encoded=draw(st.binary(max_size=9)),
        height=draw(whole),
        width=draw(whole),
        filename=draw(text),
        source_id=draw(text),
        image_format=draw(text),
        boxes_norm=column(st.tuples(fraction, fraction, fraction, fraction)),
        classes=column(whole),
        class_names=column(text),
        is_crowd=column(whole),
        area=column(st.floats(width=32, allow_nan=False)),
        masks=column(st.binary(max_size=9)),
        difficult=column(whole),
        truncated=column(whole),
        poses=column(text),
        captions=column(text),
    )


@given(full_records())
def test_encode_writes_every_field(rec):
    features = parse(tfrecord.encode(rec))
    assert features.pop("image/encoded").bytes_list.value == [rec.encoded]
    assert list(features.pop("image/object/mask").bytes_list.value) == rec.masks
    assert plain(features.pop("image/key/sha256")) == [hashlib.sha256(rec.encoded).hexdigest()]
    sides = zip(*rec.boxes_norm)
    assert {key: plain(feature) for key, feature in features.items()} == {
        "image/height": [rec.height],
        "image/width": [rec.width],
        "image/filename": [rec.filename],
        "image/source_id": [rec.source_id],
        "image/format": [rec.image_format],
        **{f"image/object/bbox/{side}": list(values) for side, values in zip(("ymin", "xmin", "ymax", "xmax"), sides)},
        "image/object/class/label": rec.classes,
        "image/object/class/text": rec.class_names,
        "image/object/is_crowd": rec.is_crowd,
        "image/object/area": rec.area,
        "image/object/difficult": rec.difficult,
        "image/object/truncated": rec.truncated,
        "image/object/view": rec.poses,
        "image/caption": rec.captions,
    }


@given(records())
def test_decode_is_the_inverse_of_encode(image_and_record):
    image, rec = image_and_record
    sample = tfrecord.decode(tfrecord.encode(rec), with_difficult=True)
    num_boxes = len(rec.boxes_norm)
    np.testing.assert_array_equal(sample["image"], image)
    np.testing.assert_array_equal(sample["boxes_norm"], rec.boxes_norm)
    np.testing.assert_array_equal(sample["classes"], rec.classes)
    for flag, values in {"is_crowd": rec.is_crowd, "difficult": rec.difficult}.items():
        np.testing.assert_array_equal(sample[flag], np.array(values or [0] * num_boxes, bool))
    assert sample["source_id"].numpy().decode("utf-8") == rec.source_id
    assert (int(sample["height"]), int(sample["width"])) == (rec.height, rec.width)
    if rec.area:
        np.testing.assert_array_equal(sample["area"], rec.area)


def test_encode_writes_the_published_features():
    rec = record(is_crowd=[0, 1], area=[3.0, 18.0], captions=["two things"], difficult=[0, 1], poses=["Left", ""])
    features = parse(tfrecord.encode(rec))
    assert features["image/object/bbox/ymin"].float_list.value == [0.0, 0.25]
    assert features["image/object/bbox/xmax"].float_list.value == [0.5, 1.0]
    assert features["image/object/class/label"].int64_list.value == [1, 90]
    assert features["image/object/class/text"].bytes_list.value == [b"person", b"toothbrush"]
    assert features["image/object/is_crowd"].int64_list.value == [0, 1]
    assert features["image/object/area"].float_list.value == [3.0, 18.0]
    assert features["image/object/difficult"].int64_list.value == [0, 1]
    assert features["image/object/view"].bytes_list.value == [b"Left", b""]
    assert features["image/caption"].bytes_list.value == [b"two things"]
    assert features["image/format"].bytes_list.value == [b"png"]
    assert features["image/encoded"].bytes_list.value == [rec.encoded]
    assert len(features["image/key/sha256"].bytes_list.value[0]) == 64
    assert "image/object/truncated" not in features and "image/object/mask" not in features


def test_encode_omits_object_features_of_an_empty_image():
    features = parse(tfrecord.encode(record(boxes_norm=[], classes=[], class_names=[])))
    assert not [key for key in features if key.startswith("image/object")]


def test_encode_rejects_columns_of_different_length():
    with pytest.raises(ValueError, match=r"a\.png: 1 area for 2 boxes"):
        tfrecord.encode(record(area=[1.0]))


def test_decode_fills_in_missing_features():
    example = tf.train.Example.FromString(tfrecord.encode(record()))
    for key in ("image/height", "image/width", "image/source_id"):
        del example.features.feature[key]
    sample = tfrecord.decode(example.SerializeToString())
    assert (int(sample["height"]), int(sample["width"])) == (4, 6)
    np.testing.assert_allclose(sample["area"], [2 * 3, 3 * 6])  # pixels, by hand
    np.testing.assert_array_equal(sample["is_crowd"], [False, False])
    fingerprint = int(sample["source_id"].numpy())
    assert 0 <= fingerprint < 2**63


def test_areas_that_are_fractions_of_the_image_become_pixels():
    # As stored by the published VOC writer: 1/4 and 3/4 of 4 x 6 pixels.
    sample = tfrecord.decode(tfrecord.encode(record(area=[0.25, 0.75])))
    np.testing.assert_allclose(sample["area"], [2 * 3, 3 * 6])
    full = tfrecord.decode(tfrecord.encode(record(boxes_norm=[[0, 0, 1, 1]] * 2, area=[1.0, 1.5])))
    np.testing.assert_allclose(full["area"], [4 * 6, 1.5])
    # Areas of segments in pixels, which may be much smaller than the box, are kept.
    for area in ([0.0, 17.0], [0.5, 1.0], [0.2, 0.7]):
        np.testing.assert_allclose(tfrecord.decode(tfrecord.encode(record(area=area)))["area"], area)


def test_regenerated_source_id_depends_only_on_the_image():
    ids = [
        tfrecord.decode(tfrecord.encode(rec), regenerate_source_id=True)["source_id"].numpy()
        for rec in (
            record(),
            record(source_id="3", filename="b"),
            record(encoded=png(np.zeros([4, 6, 3], np.uint8))),
            record(source_id=""),
        )
    ]
    assert ids[0] == ids[1] == ids[3] != ids[2]
    assert tfrecord.decode(tfrecord.encode(record(source_id="")))["source_id"].numpy() == ids[0]


def test_decode_is_the_same_eagerly_and_in_tf_data():
    serialized = tfrecord.encode(record(is_crowd=[1, 0]))
    eager = tfrecord.decode(serialized)
    mapped = next(iter(tf.data.Dataset.from_tensors(serialized).map(tfrecord.decode)))
    assert eager.keys() == mapped.keys()
    for key, value in eager.items():
        assert value.dtype == mapped[key].dtype
        np.testing.assert_array_equal(value, mapped[key])


@pytest.mark.parametrize("key", ["image/object/class/label", "image/object/bbox/xmin", "image/object/area"])
def test_decode_names_the_record_whose_columns_differ(key):
    example = tf.train.Example.FromString(tfrecord.encode(record(area=[1.0, 2.0])))
    feature = example.features.feature[key]
    (feature.float_list if key != "image/object/class/label" else feature.int64_list).value.pop()
    dataset = tf.data.Dataset.from_tensors(example.SerializeToString()).map(tfrecord.decode)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)one value per box; record.*17"):
        next(iter(dataset))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)one value per box; record.*17"):
        tfrecord.decode(example.SerializeToString())


def test_difficult_is_read_on_request():
    example = tf.train.Example.FromString(tfrecord.encode(record(difficult=[0, 1])))
    sample = tfrecord.decode(example.SerializeToString(), with_difficult=True)
    np.testing.assert_array_equal(sample.pop("difficult"), [False, True])
    example.features.feature["image/object/difficult"].int64_list.value.append(1)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)and difficult must have one value.*17.*2 0 0 3"):
        tfrecord.decode(example.SerializeToString(), with_difficult=True)
    assert tfrecord.decode(example.SerializeToString()).keys() == sample.keys()


def test_decode_requires_an_image():
    with pytest.raises(tf.errors.InvalidArgumentError, match="image/encoded"):
        tfrecord.decode(tf.train.Example().SerializeToString())
