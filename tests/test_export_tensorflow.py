# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""export: a SavedModel answers as the driver that it was made of, and nothing is overwritten."""

import numpy as np
import pytest
import tensorflow as tf

from tf2 import checkpoint, drivers, export


@pytest.fixture(scope="module")
def driver(tiny_config):
    """The tiny network with class and box outputs that differ from place to place."""
    driver = drivers.KerasDriver(tiny_config.override({"nms_configs": {"max_output_size": 15}}), None)
    rng = np.random.RandomState(0)
    for name, variable in checkpoint.named_variables(driver.model.net).items():
        if "predict" in name and not name.endswith("depthwise_kernel"):
            variable.assign(0.3 * rng.randn(*variable.shape))
    return driver


def pictures(count, *size):
    return np.random.RandomState(count).randint(0, 256, (count, *size, 3), np.uint8)


@pytest.mark.slow
@pytest.mark.both_lanes
@pytest.mark.parametrize("batch_size, counts", [(1, [1, 1]), (0, [2, 3])])
def test_a_saved_model_answers_as_its_driver(driver, tmp_path, batch_size, counts):
    path = tmp_path / "new" / "saved_model"
    written = export.saved_model(driver, str(path), batch_size=batch_size)
    assert str(path / "saved_model.pb") in written
    assert sorted(written) == sorted(str(file) for file in path.rglob("*") if file.is_file())
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    [spec] = serve.structured_input_signature[1].values()
    assert spec.name == "image_arrays" and spec.dtype == tf.uint8
    assert spec.shape.as_list() == [batch_size or None, None, None, 3]
    for count, size in zip(counts, [(96, 96), (50, 130)]):
        images = pictures(count, *size)
        detections = serve(image_arrays=tf.constant(images))["detections"].numpy()
        boxes, scores, classes, valid_len = driver.serve(list(images))
        assert detections.shape == (count, 15, 7) and np.all(valid_len > 0)
        np.testing.assert_array_equal(detections[..., 0], np.arange(count)[:, None].repeat(15, 1))
        np.testing.assert_allclose(detections[..., 1:5], boxes, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(detections[..., 5], scores, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(detections[..., 6], classes)


def test_what_exists_is_refused_before_any_work(tmp_path):
    (tmp_path / "empty").mkdir()
    export.check_target(str(tmp_path / "empty"))
    export.check_target(str(tmp_path / "none"))
    (tmp_path / "file").write_text("kept")
    for target in (tmp_path, tmp_path / "file"):
        with pytest.raises(ValueError, match=f"{target} exists already; remove it or choose another --saved_model_dir"):
            export.saved_model(None, str(target))
    assert (tmp_path / "file").read_text() == "kept"
