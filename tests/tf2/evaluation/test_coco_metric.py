# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""CocoMetric: cases computed by hand, and equality with pycocotools on files."""

import importlib.util
import json
import pickle
import sys

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from efficientdet.postprocess import Detections
from tf2.evaluation import coco_metric
from tf2.evaluation.coco_metric import METRICS, CocoMetric

NAMES = {1: "a", 2: "b", 3: "c"}
SQUARE = [10.0, 20.0, 110.0, 120.0]  # sides of 100 px: large


@pytest.fixture(params=["pycocotools", "faster-coco-eval"], autouse=True)
def backend(request, monkeypatch):
    """Runs every test with each backend as the default."""
    if request.param not in coco_metric.BACKENDS:
        pytest.skip(f"{request.param} is not installed")
    monkeypatch.setattr(coco_metric, "BACKENDS", {request.param: coco_metric.BACKENDS[request.param]})
    return request.param


def detections(*images, size=100):
    """Detections of one batch, a list of (box, score, class) per image. Padding rows look like real ones."""
    batch = Detections(
        np.tile(np.float32(SQUARE), [len(images), size, 1]),
        np.ones([len(images), size], np.float32),
        np.ones([len(images), size], np.int32),
        np.array([len(rows) for rows in images], np.int32),
    )
    for i, rows in enumerate(images):
        for j, (box, score, category) in enumerate(rows):
            batch.boxes[i, j], batch.scores[i, j], batch.classes[i, j] = box, score, category
    return batch


def groundtruth(rows):
    """Groundtruth of one image from a list of (box, class[, is_crowd[, area]])."""
    boxes = np.array([row[0] for row in rows], np.float32).reshape([-1, 4])
    box_areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return {
        "boxes": boxes,
        "classes": np.array([row[1] for row in rows], np.int32),
        "is_crowd": np.array([len(row) > 2 and row[2] for row in rows], bool),
        "area": np.array([row[3] if len(row) > 3 else area for row, area in zip(rows, box_areas)], np.float32),
    }


def score(found, truth, names=None):
    metric = CocoMetric(names)
    metric.add(["x"], detections(found), [groundtruth(truth)])
    return metric.result()


def test_two_perfect_classes_and_a_missed_one():
    metric = CocoMetric({0: "background", **NAMES, 7: "absent"})
    metric.add(["first"], detections([(SQUARE, 0.9, 1), (SQUARE, 0.8, 2)]), [groundtruth([(SQUARE, 1), (SQUARE, 2)])])
    metric.add(["second"], detections([]), [groundtruth([(SQUARE, 3)])])
    result = metric.result()
    assert list(result) == [*METRICS, "AP_/a", "AP_/b", "AP_/c", "AP_/absent"]
    per_class = [result[f"AP_/{name}"] for name in ("a", "b", "c", "absent")]
    np.testing.assert_allclose(per_class, [1, 1, 0, -1])
    for name in ("AP", "AP50", "AP75", "APl", "ARmax1", "ARmax10", "ARmax100", "ARl"):
        np.testing.assert_allclose(result[name], 2 / 3, err_msg=name)
    assert [result[name] for name in ("APs", "APm", "ARs", "ARm")] == [-1, -1, -1, -1]


def test_a_class_without_groundtruth_does_not_shift_the_next():
    result = score([(SQUARE, 0.9, 3), (SQUARE, 0.8, 2)], [(SQUARE, 3)], names=NAMES)
    np.testing.assert_allclose([result[f"AP_/{name}"] for name in NAMES.values()], [-1, -1, 1])


@pytest.mark.parametrize(
    "found, truth, expected",
    [
        # IoU 0.62 passes the thresholds 0.5, 0.55 and 0.6 of ten.
        ([([10, 20, 72, 120], 0.9, 1)], [(SQUARE, 1)], {"AP": 0.3, "AP50": 1, "AP75": 0, "ARmax100": 0.3}),
        # A false positive before the true one: precision 1/2 at every recall.
        ([([300, 300, 400, 400], 0.9, 1), (SQUARE, 0.8, 1)], [(SQUARE, 1)], {"AP": 0.5, "ARmax1": 0, "ARmax10": 1}),
        # A second detection of the same object after it: the recall is complete before.
        ([(SQUARE, 0.9, 1), (SQUARE, 0.8, 1)], [(SQUARE, 1)], {"AP": 1}),
        # Detections in a crowd are ignored.
        ([(SQUARE, 0.8, 1), ([300, 300, 320, 320], 0.9, 1)], [(SQUARE, 1), ([290, 290, 500, 500], 1, 1)], {"AP": 1}),
        # The size class depends on the object's area, not on its box: a mask of 900 px^2 in a box of 10,000.
        ([(SQUARE, 0.9, 1)], [(SQUARE, 1, 0, 900)], {"AP": 1, "APs": 1, "APm": -1, "APl": -1}),
        ([], [(SQUARE, 1)], {"AP": 0, "AP50": 0, "ARmax100": 0}),
        ([(SQUARE, 0.9, 1)], [], dict.fromkeys(METRICS, -1)),  # no groundtruth
        ([(SQUARE, 0.9, 1)], [([-1, -1, -1, -1], -1, 0, -1), (SQUARE, 1)], {"AP": 1}),  # a padding row
    ],
)
def test_by_hand(found, truth, expected):
    result = score(found, truth)
    np.testing.assert_allclose([result[name] for name in expected], list(expected.values()), atol=1e-7)


def test_false_positives_on_an_image_without_objects_count():
    metric = CocoMetric()
    batch = detections([(SQUARE, 0.8, 1)], [(SQUARE, 0.9, 1)])
    metric.add(["1", "2"], batch, [groundtruth([(SQUARE, 1)]), groundtruth([])])
    np.testing.assert_allclose(metric.result()["AP"], 0.5)


def random_images(seed, count=12):
    """(found, truth) per image: tied scores, crowds, classes 1-4, of which 4 has no object, and empty images."""
    rng = np.random.default_rng(seed)

    def boxes(number):
        corner = rng.uniform(0, 200, [number, 2])
        return np.float32(np.concatenate([corner, corner + rng.uniform(10, 150, [number, 2])], -1))

    images = []
    for _ in range(count):
        number = rng.integers(0, 5)
        truth = list(zip(boxes(number), rng.integers(1, 4, number), rng.random(number) < 0.2))
        # Up to two detections close to each object, some of them of another class, and some anywhere.
        near = [
            (box + np.float32(rng.normal(0, 3, 4)), category) for box, category, _ in truth * 2 if rng.random() < 0.6
        ]
        near = [(box, category if rng.random() < 0.8 else 4) for box, category in near]
        anywhere = [(box, rng.integers(1, 5)) for box in boxes(rng.integers(0, 3))]
        images.append(([(box, rng.integers(1, 6) / 5, category) for box, category in near + anywhere], truth))
    return images


def write_files(folder, images, ids):
    """Writes the images as COCO's groundtruth and results files."""

    def rows(image_id, boxes):
        xywh = [[x0, y0, x1 - x0, y1 - y0] for y0, x0, y1, x1 in np.float64(boxes).reshape([-1, 4]).tolist()]
        return [{"image_id": image_id, "bbox": box, "area": box[2] * box[3]} for box in xywh]

    annotations, results = [], []
    for image_id, (found, truth) in zip(ids, images):
        for row, (_, category, is_crowd) in zip(rows(image_id, [box for box, *_ in truth]), truth):
            annotations.append(
                {**row, "id": len(annotations) + 1, "category_id": int(category), "iscrowd": int(is_crowd)}
            )
        for row, (_, confidence, category) in zip(rows(image_id, [box for box, *_ in found]), found):
            results.append({**row, "score": float(np.float32(confidence)), "category_id": int(category)})
    file = {
        "images": [{"id": i} for i in [*ids, 999_999_999]],  # the last is never evaluated
        "annotations": [*annotations, {**annotations[0], "id": len(annotations) + 1, "image_id": 999_999_999}],
        "categories": [{"id": i, "name": str(i)} for i in range(5)],  # 0 is background
    }
    (folder / "val.json").write_text(json.dumps(file))
    (folder / "results.json").write_text(json.dumps(results))
    return str(folder / "val.json"), str(folder / "results.json")


def pycocotools_alone(val_json_file, results_file, ids):
    truth = COCO(val_json_file)
    evaluation = COCOeval(truth, truth.loadRes(results_file), "bbox")
    evaluation.params.imgIds = ids
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("from_file", [True, False])
def test_equals_pycocotools_on_files(tmp_path, capsys, backend, seed, from_file):
    images = random_images(seed)
    ids = [16_777_217 + 3 * i for i in range(len(images))]  # too long for a float32
    val_json_file, results_file = write_files(tmp_path, images, ids)
    expected = pycocotools_alone(val_json_file, results_file, ids)
    table = "\n".join(line for line in capsys.readouterr().out.splitlines() if "area=" in line)

    metric = CocoMetric(NAMES, val_json_file if from_file else None)
    # The last batch is smaller. The order of the images must not affect detections with equal scores.
    for start in [10, 0, 5] if from_file else [0, 5, 10]:
        batch = images[start : start + 5]
        truth = None if from_file else [groundtruth(truth) for _, truth in batch]
        metric.add([str(i) for i in ids[start : start + 5]], detections(*(found for found, _ in batch), size=16), truth)
    result, evaluation = metric.result(), metric.evaluation()
    # Equal to the last bit; but pycocotools divides by detections + 2e-16, and faster-coco-eval does not.
    tolerance = 0 if backend == "pycocotools" else 1e-15
    np.testing.assert_allclose([result[name] for name in METRICS], expected.stats, rtol=0, atol=tolerance)
    assert 0.1 < result["AP"] < 0.9  # so that the comparison is not trivial
    # Records do not contain classes without an object; in the file these are 0 and 4.
    assert evaluation.params.catIds == (list(range(5)) if from_file else [1, 2, 3])
    for name in ("precision", "scores", "recall"):
        values = expected.eval[name] if from_file else expected.eval[name][..., 1:4, :, :]
        np.testing.assert_allclose(
            evaluation.eval[name], values, rtol=0, atol=tolerance if name == "precision" else 0, err_msg=name
        )
    for category, name in NAMES.items():
        precision = expected.eval["precision"][:, :, category, 0, -1]
        mean = precision[precision > -1].mean() if (precision > -1).any() else -1
        assert result[f"AP_/{name}"] == pytest.approx(mean, rel=0, abs=tolerance)
    assert metric.table().startswith(table) and "AP_/c" in metric.table()
    assert capsys.readouterr().out == ""


def test_annotation_ids_may_start_at_zero_and_optional_keys_be_absent(tmp_path):
    path = tmp_path / "val.json"
    annotation = {"id": 0, "image_id": 7, "category_id": 1, "bbox": [20, 10, 100, 100]}
    path.write_text(json.dumps({"images": [{"id": 7}], "annotations": [annotation], "categories": [{"id": 1}]}))
    metric = CocoMetric(None, str(path))
    metric.add(["7"], detections([(SQUARE, 0.9, 1)]))
    np.testing.assert_allclose(metric.result()["AP"], 1)


def test_batches_added_after_a_result_count():
    metric = CocoMetric()
    metric.add(["a"], detections([(SQUARE, 0.9, 1)]), [groundtruth([(SQUARE, 1)])])
    assert metric.result()["ARmax1"] == 1
    metric.add(["a"], detections([]), [groundtruth([(SQUARE, 1)])])  # without a file, ids may repeat
    assert metric.result()["ARmax1"] == 0.5


def test_errors(tmp_path):
    path = tmp_path / "val.json"
    path.write_text(json.dumps({"images": [{"id": 1}, {"id": 2}]}))
    with pytest.raises(ValueError, match="no annotations and no categories"):
        CocoMetric(None, str(path))
    row = {"image_id": 1, "category_id": 1, "bbox": [20, 10, 100, 100]}
    content = {"images": [{"id": 1}, {"id": 2}], "annotations": [row], "categories": [{"id": 1}]}
    path.write_text(json.dumps(content))
    metric = CocoMetric(None, str(path))
    with pytest.raises(ValueError, match=r"source ids \['7', '8'\] \(its own are like \[1, 2\]\)"):
        metric.add(["1", "7", "8"], detections([], [], []))
    metric.add(["1"], detections([]))
    with pytest.raises(ValueError, match=r"\[1\] were added twice"):
        metric.add(["1"], detections([]))
    with pytest.raises(ValueError, match=r"\[2\] were added twice"):
        metric.add(["2", "2"], detections([], []))
    with pytest.raises(ValueError, match="groundtruth is needed"):
        CocoMetric().add(["1"], detections([]))
    with pytest.raises(ValueError, match=r"\[2, 1, 1\]"):
        CocoMetric().add(["1", "2"], detections([]), [groundtruth([])])
    with pytest.raises(ValueError, match="no image was added"):
        CocoMetric().result()
    with pytest.raises(ValueError, match="backend 'matlab' is not installed; available: "):
        CocoMetric(backend="matlab")


def test_backend_is_logged(caplog, backend):
    with caplog.at_level("INFO", logger="absl"):
        score([(SQUARE, 0.9, 1)], [(SQUARE, 1)])
    assert [record.message for record in caplog.records] == [f"computing AP with {backend}"]


def test_pycocotools_alone_is_enough(monkeypatch):
    """None in sys.modules makes the import of faster-coco-eval fail."""
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    spec = importlib.util.spec_from_file_location("without_faster_coco_eval", coco_metric.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert list(module.BACKENDS) == ["pycocotools"] and module.CocoMetric().backend == "pycocotools"


def test_only_detections_and_objects_stay_in_memory(tmp_path):
    """Neither the padding of a batch, nor masks of a file, nor intermediate results of matching."""
    batch = detections([(SQUARE, 0.9, 1)], [], size=5000)
    path = tmp_path / "val.json"
    row = {"image_id": 1, "category_id": 1, "bbox": [20, 10, 100, 100], "segmentation": [list(range(100_000))]}
    path.write_text(
        json.dumps({"images": [{"id": 1}, {"id": 2}], "annotations": [{**row, "id": 1}], "categories": [{"id": 1}]})
    )
    metric = CocoMetric(None, str(path))
    metric.add(["1", "2"], batch)
    assert metric.result()["AP"] == pytest.approx(1)
    kept = [image.detections.boxes for image in metric.images()]
    assert [boxes.shape for boxes in kept] == [(1, 4), (0, 4)] and all(boxes.base is None for boxes in kept)
    arrays = sum(metric.evaluation().eval[name].nbytes for name in ("precision", "scores", "recall"))
    assert len(pickle.dumps(metric)) < arrays + 10_000


def test_equal_scores_are_ordered_by_image_id_and_then_by_row(tmp_path):
    """Two detections of score 0.5, one right and one wrong: the precision is 1 or 1/2, depending on their order."""
    path = tmp_path / "val.json"
    right, wrong = (SQUARE, 0.5, 1), ([300, 300, 400, 400], 0.5, 1)
    row = {"image_id": 10, "category_id": 1, "bbox": [20, 10, 100, 100]}
    path.write_text(json.dumps({"images": [{"id": 9}, {"id": 10}], "annotations": [row], "categories": [{"id": 1}]}))
    metric = CocoMetric(None, str(path))
    metric.add(["10", "9"], detections([right], [wrong]))
    assert metric.result()["AP"] == pytest.approx(0.5)
    assert score([right, wrong], [(SQUARE, 1)])["AP"] == pytest.approx(1)
    assert score([wrong, right], [(SQUARE, 1)])["AP"] == pytest.approx(0.5)


def test_images_returns_what_was_added(tmp_path):
    """From records and from a file, with and without optional keys."""
    path = tmp_path / "val.json"
    row = {"image_id": 7, "category_id": 2, "bbox": [20, 10, 100, 100]}
    path.write_text(
        json.dumps(
            {
                "images": [{"id": 7}, {"id": 3}],
                "annotations": [row, {**row, "iscrowd": 1, "area": 50, "difficult": 1}],
                "categories": [{"id": 2}],
            }
        )
    )
    from_file, from_records = CocoMetric(None, str(path)), CocoMetric()
    truth = groundtruth([(SQUARE, 2), (SQUARE, 2, True, 50), ([-1, -1, -1, -1], -1)])
    truth["difficult"] = np.array([0, 1, -1])
    for metric in (from_file, from_records):
        metric.add(["3", "7"], detections([], [(SQUARE, 0.9, 1)]), [groundtruth([]), truth])
        empty, image = metric.images()
        assert (empty.source_id, image.source_id) == ("3", "7") and len(empty.groundtruth.boxes) == 0
        np.testing.assert_array_equal(image.detections.boxes, np.float32([SQUARE]))
        np.testing.assert_array_equal(image.groundtruth.boxes, [SQUARE, SQUARE])
        assert image.groundtruth.classes.tolist() == [2, 2] and image.groundtruth.is_crowd.tolist() == [False, True]
        assert image.groundtruth.area.tolist() == [10_000, 50]
        assert image.groundtruth.difficult.tolist() == [False, True]


def test_coco_results_format():
    metric = CocoMetric()
    found = detections([([10.128, 20, 110, 120], 1 / 3, 2)], [], [(SQUARE, 1, 1)])
    metric.add(["000000000139", "b", "c"], found, [groundtruth([])] * 3)
    assert metric.coco_results() == [
        {"image_id": 139, "category_id": 2, "bbox": [20.0, 10.13, 100.0, 99.87], "score": 0.33333},
        {"image_id": "c", "category_id": 1, "bbox": [20.0, 10.0, 100.0, 100.0], "score": 1.0},
    ]


def write_groundtruth(tmp_path, rows, **changes):
    """Writes groundtruth of the images 7 and 3 with boxes SQUARE; rows are changes of annotations."""
    row = {"image_id": 7, "category_id": 1, "bbox": [20, 10, 100, 100]}
    content = {
        "images": [{"id": 7}, {"id": 3}],
        "annotations": [{**row, "id": i, **change} for i, change in enumerate(rows)],
        "categories": [{"id": 1, "name": "dog"}],
        **changes,
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    return str(tmp_path / "x.json")


@pytest.mark.parametrize("types", [(int, int), (str, int), (int, str), (float, str), (str, float)])
@pytest.mark.parametrize("source_ids", [["7", "3"], ["000007", "000003"]])
def test_ids_of_several_types_are_one_id(tmp_path, types, source_ids):
    """Half of the objects with ids of another type once were no groundtruth: AP 1/2 instead of 1 here."""
    of_image, of_category = types
    other = {"image_id": of_image(3), "category_id": of_category(1)}
    metric = CocoMetric(None, write_groundtruth(tmp_path, [{}, other]))
    metric.add(source_ids, detections([(SQUARE, 0.9, 1)], [(SQUARE, 0.8, 1)]))
    result = metric.result()
    assert (result["AP"], result["ARmax100"]) == pytest.approx((1, 1))
    assert metric.count_groundtruth() == {"images": 2, "images_without_boxes": 0, "boxes": 2, "crowds": 0}
    assert "warning" not in metric.table()
    assert {row["image_id"] for row in metric.coco_results()} == {3, 7}


@pytest.mark.parametrize(
    "change, text",
    [
        ({"image_id": 4}, "annotations of images that are not listed: 1 (annotation 20)"),
        ({"category_id": 2}, "category 2 is not among the categories: 1 (annotation 20)"),
        ({"category_id": 0}, "category 0 is reserved for the background"),
        ({"bbox": None}, "bbox is not four numbers: 1 (annotation 20)"),
        ({"id": 0}, "1 of 21 annotations (4.8%) of {path} have the id of another one (annotation 0)"),
    ],
)
def test_groundtruth_that_is_left_out_is_counted_beside_ap(tmp_path, change, text):
    path = write_groundtruth(tmp_path, [{}] * 20 + [change])
    metric = CocoMetric(None, path)
    metric.add(["7", "3"], detections([(SQUARE, 0.9, 1)], []))
    [left_out] = metric.find_left_out()
    assert text.format(path=path) in left_out and ("id" in change or "AP leaves out 1 of 21 annotations" in left_out)
    assert metric.table().endswith(f"\nwarning: {left_out}")


def test_images_that_are_not_evaluated_are_counted_beside_ap(tmp_path):
    path = write_groundtruth(tmp_path, [{}] + [{"image_id": 3}] * 10 + [{"image_id": 3, "iscrowd": 1}])
    metric = CocoMetric(None, path)
    metric.add(["7"], detections([(SQUARE, 0.9, 1)]))
    assert metric.find_left_out() == [f"AP is of 1 of the 2 images of {path}; the others have 11 boxes"]
    metric.add(["3"], detections([]))
    assert metric.find_left_out() == []


def test_ap_without_groundtruth_is_explained():
    metric = CocoMetric()
    metric.add(["a"], detections([(SQUARE, 0.9, 1)]), [groundtruth([(SQUARE, 1, True)])])
    assert metric.result()["AP"] == -1
    text = "AP is -1: none of the 1 evaluated images has a box that is not a crowd (iscrowd: 1), of 1"
    assert metric.find_left_out() == [text] and metric.table().endswith(f"\nwarning: {text}")


@pytest.mark.parametrize(
    "rows, message",
    [
        ([], r"x\.json has no boxes; give a file with the groundtruth"),
        ([{"image_id": 8}], r"AP leaves out 1 of 1 annotations .*annotations of images that are not listed: 1"),
        ([{"iscrowd": 1}] * 3, r"3 of 3 boxes .*x\.json are crowds .* skip_crowd_during_training=false"),
        ([{}, {"bbox": [1, 2, 3]}], r"AP leaves out 1 of 2 annotations \(50\.0%\) .* bbox is not four numbers"),
        ([{"category_id": "dog"}], r"annotations\[0\] has category_id 'dog'; ids must be integers"),
        ([{"image_id": 7.5}], r"annotations\[0\] has image_id 7\.5; ids must be integers"),
    ],
)
def test_files_without_usable_groundtruth_are_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        CocoMetric(None, write_groundtruth(tmp_path, rows))


@pytest.mark.parametrize("area", [None, -5, float("nan")])
def test_impossible_areas_are_those_of_the_boxes(tmp_path, area):
    metric = CocoMetric(None, write_groundtruth(tmp_path, [{"area": area}]))
    metric.add(["7", "3"], detections([(SQUARE, 0.9, 1)], []))
    assert metric.result()["APl"] == pytest.approx(1)
