# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""report: pages parsed as by a browser, with links, images and hostile texts; replacement of reports."""

import html.parser
import pathlib

import numpy as np
import pytest
from PIL import Image

from dataset.files import TargetError
from efficientdet.postprocess import Detections
from tf2.evaluation import voc_metric
from tf2.evaluation.coco_metric import METRICS, CocoMetric
from tf2.evaluation.report import page as report_page
from tf2.evaluation.report import plots, report
from tf2.training.history import History

HOSTILE = ["<script>alert(1)</script>", "\"'>&amp; <img src=x>", "$x_1$ \\$", "猫 кот\u202e", "a" * 300]
VOID = {"meta", "img", "br"}
RED, BLUE = [10.0, 10.0, 60.0, 60.0], [20.0, 70.0, 80.0, 110.0]


class Reader(html.parser.HTMLParser):
    """Collects the content of a page; fails for unclosed tags."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.links, self.rows, self.texts = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]
        self.rows += [[]] if tag == "tr" else []
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def collected(found, objects, names, source_id="x"):
    """A metric of two images: one with rows of (box, score, class) and of (box, class), and an empty one."""
    metric = CocoMetric(names)
    size = max(len(found), 1)
    batch = Detections(np.zeros([2, size, 4]), np.zeros([2, size]), np.ones([2, size], int), np.array([len(found), 0]))
    for i, row in enumerate(found):
        batch.boxes[0, i], batch.scores[0, i], batch.classes[0, i] = row
    boxes = np.array([box for box, _ in objects]).reshape(-1, 4)
    groundtruth = {
        "boxes": boxes,
        "classes": np.array([category for _, category in objects], int),
        "is_crowd": np.zeros(len(objects), bool),
        "area": (boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
    }
    metric.add([source_id, source_id], batch, [groundtruth, {name: column[:0] for name, column in groundtruth.items()}])
    return metric


def read_images(indices):
    for index in indices:
        yield index, np.full([100, 120, 3], 128, np.uint8)


def write(directory, metric, *, voc=False, facts=(), **options):
    """Writes a report, parses it, and checks that its links and the written files agree."""
    metrics = metric.result() | (voc_metric.score(metric.images(), metric.names).metrics if voc else {})
    path = report.write(str(directory), metric, metrics, {"model_name": "tiny", **dict(facts)}, read_images, **options)
    assert path == str(directory / "index.html")
    page = Reader(pathlib.Path(path).read_text(encoding="utf-8"))
    assert len(set(page.ids)) == len(page.ids) and "script" not in page.tags
    assert (page.ids[0], page.ids[-1]) == ("metrics", "facts")
    used = {path}
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
            continue
        assert ":" not in link and not link.startswith(("/", "..")) and link.isascii()
        with Image.open(directory / link) as image:
            image.load()
        used.add(str(directory / link))
    assert {str(file) for file in directory.rglob("*") if file.is_file()} == used
    return page


def test_values_of_the_page(tmp_path):
    found = [(RED, 0.9, 1), ([0, 0, 9, 9], 0.75, 1), (BLUE, 0.8, 1), (RED, 0.4, 2)]
    metric = collected(found, [(RED, 1), (BLUE, 2), ([30, 0, 70, 8], 1)], {1: "one", 2: "two", 5: "absent"})
    page = write(tmp_path, metric, voc=True)
    result = metric.result()
    for name in METRICS:
        value = f"{result[name]:.3f}" if result[name] >= 0 else "no groundtruth"
        assert [name, value, report.MEANINGS[name]] in page.rows
    assert [row[0] for row in page.rows].count("VOC07_mAP") == 1
    voc = voc_metric.score(metric.images(), metric.names).metrics
    row = [f"{x:.3f}" for x in (result["AP_/one"], voc["VOC07_AP_/one"], voc["VOC_AP_/one"])]
    (by_class,) = (r for r in page.rows if r[:2] == ["1", "one"] and len(r) == 7)
    assert [by_class[2], *by_class[5:]] == row
    assert ["5", "absent", "-", "-", "-", "-", "-"] in page.rows
    # id, class, objects, correct, confused, missed, detections, wrong class, false positives, precision, recall
    assert ["1", "one", "2", "1", "0", "1", "3", "1", "1", "0.333", "0.500"] in page.rows
    assert ["2", "two", "1", "0", "1", "0", "0", "0", "0", "-", "0.000"] in page.rows
    assert ["", "all", "3", "1", "1", "1", "3", "1", "1", "0.333", "0.333"] in page.rows
    assert {"should be: two", "object: one, 8x40 px", "correct: 1 of 4 boxes"} <= set(page.texts)
    assert len([link for link in page.links if link.endswith("_small.jpg")]) == 4


def test_threshold_is_applied_and_stated(tmp_path):
    metric = collected([(RED, 0.4, 1)], [(RED, 1)], {1: "one"})
    assert ["1", "one", "1", "0", "0", "1", "0", "0", "0", "-", "0.000"] in write(tmp_path, metric).rows
    page = write(tmp_path, metric, min_score_thresh=0.3)
    assert ["1", "one", "1", "1", "0", "0", "1", "0", "0", "1.000", "1.000"] in page.rows
    assert any(text.startswith("Detections with a score above 0.3, ") for text in page.texts)


def test_hostile_texts_are_escaped(tmp_path):
    names = dict(enumerate(HOSTILE, 1))
    source_id = f"{''.join(HOSTILE[:4])}/../"
    found = [(RED, 0.9, 1), (RED, 0.8, 2), ([0, 0, 9, 9], 0.7, 3)]
    metric = collected(found, [(RED, 1), (BLUE, 2), (RED, 4), (BLUE, 5)], names, source_id)
    facts = {name: {name: [1, {name: 0.5}]} for name in HOSTILE}
    page = write(tmp_path, metric, voc=True, facts=facts)
    for class_id, name in names.items():
        assert [name.replace("_", " "), f"{name} (1, ({name} 0.5))"] in page.rows
        assert [row[:2] for row in page.rows].count([str(class_id), name]) == 2  # AP, and counts
    assert f"image {source_id}" in page.texts
    assert {f"detected: {HOSTILE[1]}, score 0.800", f"should be: {HOSTILE[3]}"} <= set(page.texts)
    assert f"object: {HOSTILE[4]}, 40x60 px" in page.texts


def test_a_plot_links_to_its_file():
    page = Reader(report_page.figure("files/plot.png", "a & b"))
    assert page.links == ["files/plot.png"] * 2 and page.texts.count("a & b") == 1


def test_forbidden_characters_are_replaced():
    assert report_page.escape("a\x00b\nc\ud800d\x9b<") == "a\ufffdb\ufffdc\ufffdd\ufffd&lt;"


@pytest.mark.parametrize(
    "found, objects, names, filled",
    [
        ([], [(RED, 1), (BLUE, 2)], {1: "one", 2: "two"}, {"missed"}),
        ([(RED, 0.9, 1)], [], {1: "one", 2: "two"}, {"false"}),
        ([], [], {}, set()),
        ([(RED, 0.9, 1)], [(RED, 1)], {1: "one"}, {"best"}),
        ([(RED, 0.9, 7)], [(RED, 1)], {}, {"confused"}),
    ],
)
def test_sparse_data(tmp_path, found, objects, names, filled):
    page = write(tmp_path, collected(found, objects, names))
    kinds = {link.split("/")[1].split("_")[0] for link in page.links if link.endswith(".jpg")}
    assert kinds == filled and page.texts.count("There are none.") == 4 - len(filled)


def test_ninety_classes(tmp_path):
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 60, [90, 2]).astype(float)
    boxes = np.concatenate([corners, corners + 30], axis=1).tolist()
    found = [(box, 0.6 + i / 300, 1 + (i + i % 2) % 90) for i, box in enumerate(boxes)]
    metric = collected(found, [(box, i) for i, box in enumerate(boxes, 1)], {i: f"class {i}" for i in range(1, 91)})
    page = write(tmp_path, metric)
    assert len([row for row in page.rows if row[1].startswith("class ")]) == 180
    assert any(text.endswith("Of 90 classes the 30 with most confusions are shown.") for text in page.texts)


def test_report_is_replaced_and_other_files_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    metric = collected([(RED, 0.9, 1)], [(BLUE, 1)], {1: "one"})
    args = (str(tmp_path), metric, metric.result(), {"model_name": "tiny"})
    for _ in range(2):
        report.check(str(tmp_path))
        report.write(*args, read_images)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index.html", "notes.txt", "report_files"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["index.html", "report_files"])
def test_foreign_files_are_not_replaced(tmp_path, name):
    if name == "index.html":
        (tmp_path / name).write_text("<p>mine")
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(TargetError, match=f"{name} exists and is not part of a report; remove it"):
        report.check(str(tmp_path))


def test_unwritable_folder_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TargetError, match="cannot be written to"):
        report.check(str(tmp_path / "file" / "below"))


def test_interrupted_report_keeps_the_old_one(tmp_path):
    metric = collected([(RED, 0.9, 1)], [(BLUE, 1)], {1: "one"})
    write(tmp_path, metric)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    def interrupted(indices):
        yield from list(read_images(indices))[:0]
        raise KeyboardInterrupt

    args = (str(tmp_path), metric, metric.result(), {"model_name": "other"})
    with pytest.raises(KeyboardInterrupt):
        report.write(*args, interrupted)
    with pytest.raises(ValueError, match=r"images \[0\] cannot be read a second time"):
        report.write(*args, lambda indices: iter([]))
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_most_confused_classes():
    matrix = np.array([[9, 0, 0, 5], [1, 9, 0, 0], [0, 0, 9, 1], [9, 0, 0, 0]])  # background last
    assert plots.most_confused(matrix, 2) == [0, 1]
    assert plots.most_confused(matrix, 9) == [0, 1, 2]
    assert plots.most_confused(np.diag([1, 2, 0]), 1) == [0]


def test_class_labels():
    names = {1: "a$b$", 2: "猫", 3: "кот", 4: "x" * 30, 5: "tab\t"}
    assert plots.class_labels(names) == [r"1 a\$b\$", "2", "3 кот", f"4 {'x' * 24}..", "5"]


NAN = float("nan")
TRAINING = {"step": [1, 10, 20], "loss": [3, 2, 1], "cls_loss": [1, 0.5, 0.2], "learning_rate": [0.1, 0.2, 0.0]}
EVALUATIONS = {"step": [10, 20], "AP": [0.5, 0.25], "AP50": [0.75, 0.5], "AP_/one": [0.5, 0.25]}


def history(training, evaluations, steps_per_epoch=None):
    tables = ({name: np.array(column, np.float64) for name, column in x.items()} for x in (training, evaluations))
    return History(*tables, steps_per_epoch)


def labels(figure):
    return [axes.get_ylabel() for axes in figure.axes]


def curves(figure):
    """Curves [x, y] by label of the vertical axis."""
    return {axes.get_ylabel(): [line.get_xydata().T.tolist() for line in axes.lines] for axes in figure.axes}


def test_curves_of_a_training():
    figure = plots.plot_training(history(TRAINING, EVALUATIONS, steps_per_epoch=10))
    steps = [1, 10, 20]
    assert curves(figure) == {
        "loss": [[steps, [3, 2, 1]]],
        "class loss": [[steps, [1, 0.5, 0.2]]],
        "AP on the evaluation images": [[[10, 20], [0.75, 0.5]], [[10, 20], [0.5, 0.25]], [[10], [0.5]]],
        "learning rate": [[steps, [0.1, 0.2, 0.0]]],
    }
    by_label = {axes.get_ylabel(): axes for axes in figure.axes}
    names = [text.get_text() for text in by_label["AP on the evaluation images"].get_legend().get_texts()]
    assert names == ["AP50", "AP", "best AP: 0.500 at step 10"]
    for axes in figure.axes:
        [epochs] = axes.child_axes
        assert (axes.get_xlabel(), epochs.get_xlabel()) == ("step", "epoch")


def test_a_loss_is_smoothed_by_a_running_median():
    loss = np.arange(200.0, 100, -1)
    loss[50] = 1e6  # a spike leaves the panel
    loss[10] = NAN  # of a skipped step
    [axes] = plots.plot_training(history({"step": np.arange(100), "loss": loss}, {})).axes
    raw, smooth = (line.get_ydata() for line in axes.lines)
    np.testing.assert_array_equal(raw, loss)
    np.testing.assert_allclose(smooth[[0, 20, 52, 99]], [199.5, 180, 148.5, 101.5], atol=1)
    assert np.isnan(smooth).tolist() == (np.arange(100) == 10).tolist()
    assert axes.get_yscale() == "linear" and 200 < axes.get_ylim()[1] < 220
    [axes] = plots.plot_training(history({"step": np.arange(100), "loss": np.logspace(3, -1, 100)}, {})).axes
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize("training, evaluations, expected", [
    ({"step": [1], "loss": [2]}, {"step": [1], "AP": [0], "AP50": [0]}, ["loss", "AP on the evaluation images"]),
    ({"step": [1], "loss": [0], "learning_rate": [0]}, {}, ["loss", "learning rate"]),
    ({"step": [1, 2], "loss": [NAN, np.inf], "box_loss": [0.1, NAN]}, {}, ["box loss"]),
    ({}, EVALUATIONS, ["AP on the evaluation images"]),
    ({"step": [1]}, {"step": [1], "AP": [-1.0]}, []),
    (TRAINING | {"skipped_steps": [NAN, 0, 2]}, EVALUATIONS | {"AP_averaged": [NAN, 0.5], "AP_raw": [NAN, 0.25]},
     ["loss", "class loss", "AP on the evaluation images", "learning rate"]),
])  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_a_page_with_curves_of_any_training(tmp_path, training, evaluations, expected):
    run = history(training, evaluations, 4)
    assert labels(plots.plot_training(run)) == expected
    page = write(tmp_path, collected([(RED, 0.9, 1)], [(RED, 1)], {1: "one"}), history=run)
    assert "report_files/training.png" in page.links and "training" in page.ids
    if "skipped_steps" in training:
        text = "20 steps of 4 per epoch, 2 evaluations. 2 steps were skipped, because their loss or gradients were not "
        assert text + "finite. The last weights: AP 0.500 averaged, 0.250 raw." in page.texts


def test_a_page_without_a_training_has_no_curves(tmp_path):
    page = write(tmp_path, collected([(RED, 0.9, 1)], [(RED, 1)], {1: "one"}))
    assert "training" not in page.ids
